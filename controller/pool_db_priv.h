/* pool_db_priv: what pool_db.c and the files that read for others share. */
#ifndef POOL_DB_PRIV_H
#define POOL_DB_PRIV_H

#include "record.h"

struct doc;
struct json_t;
struct model;
struct model_obj;
struct model_vif;
struct ovsdb_idl_row;
struct plan;
struct pool_db;

struct model *pool_db_model(struct pool_db *);

/* A column of status beside a record. */
struct pool_extra {
    const char *name;
    enum { POOL_EXTRA_STRING, POOL_EXTRA_INT, POOL_EXTRA_BOOL, POOL_EXTRA_LIST } type;
    char *s;
    int64_t i;
    char **list;
    size_t n;
};
#define POOL_MAX_EXTRAS 16
struct pool_object {
    struct rec rec; /* references are names */
    struct pool_extra extras[POOL_MAX_EXTRAS];
    size_t n_extras;
};

/* pool_read.c: Open vSwitch's side.  False: there is none. */
bool pool_object_read(struct pool_db *, enum rec_kind, const char *name, struct pool_object *);
/* All of a kind, in order of name (rules: of policy first). */
size_t pool_objects_read(struct pool_db *, enum rec_kind, struct pool_object **);
void pool_object_destroy(struct pool_object *);

/* pool_json.c: what stands before the plan is carried out, as a document that restore.h
 * understands; the caller's. */
char *pool_db_before(struct pool_db *, const struct plan *);

/* pool_confirm.c: writes what has been found out of a vif, in the open transaction.
 * 'shared': with other controllers; 'quiet': one of them leads the pool. */
void pool_confirm_write(const struct model *, bool shared, bool quiet, const struct model_vif *,
                        const struct ovsdb_idl_row *);

/* pool_status.c: writes what has been found out of an object, and gives it the numbers that it
 * needs to become live, in the open transaction. */
struct pool_status {
    struct model *model;
    const struct ovsdb_idl_row *pool;
    uint32_t *key_next, *zone_next; /* of the row 'pool' */
    bool shared, quiet;             /* as of pool_confirm_write() */
    bool warns_of_vifs;             /* the schema has a column for it, since 1.6.0 */
};
void pool_status_write(const struct pool_status *, struct model_obj *,
                       const struct ovsdb_idl_row *);

#endif
