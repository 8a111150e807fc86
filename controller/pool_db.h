/* pool_db: the daemon's connection to the pool database.
 *
 * Feeds the model from the database's changes, gives keys and zones to objects
 * that have none, writes status back (coalesced), and makes changes of the
 * stated configuration as one transaction each, one after the other.
 *
 * Threads: one, the daemon's main loop; nothing blocks.
 * Ownership: borrows the model, owns the connection. */
#ifndef POOL_DB_H
#define POOL_DB_H

#include <stdbool.h>
#include <stdint.h>

#include "doc.h"

struct json_t;
struct model;
struct ovsdb_idl;
struct pool_db;

struct pool_db *pool_db_open(const char *remote, struct model *);
void pool_db_close(struct pool_db *);
/* In each turn of the main loop, before the change set is looked at:
 *     pool_db_run(db);
 *     if (model_has_changes(model)) { compile...; model_changes_clear(model); }
 *     rest_run(...);
 *     pool_db_wait(db); ... poll_block(); */
void pool_db_run(struct pool_db *);
void pool_db_wait(struct pool_db *);
/* The model shows the database as it once was, at least. */
bool pool_db_ready(const struct pool_db *);
bool pool_db_connected(const struct pool_db *);
struct ovsdb_idl *pool_db_idl(struct pool_db *);
/* There are other controllers: each writes the status of the hosts that it leads
 * (model_host.led), the one that leads the pool everything else.  Without this
 * call we are the only one. */
void pool_db_share(struct pool_db *, bool leads);

/* --- changes of what is stated (REST) -------------------------------------------- */

enum pool_apply_mode {
    POOL_REPLACE, /* what the document does not name goes */
    POOL_MERGE,   /* adds and changes; fields not stated stay as they are */
    /* As REPLACE, of a pending commit's document: VMs and vifs that weft-xapid has made
     * since stay, but for vifs that need what goes; those that have gone since stay away
     * (restore.h). */
    POOL_RESTORE,
};

struct pool_result {
    int error; /* 0, EINVAL (see errors), EAGAIN (not connected), EIO (see errors) */
    const struct doc_errors *errors;   /* object, field and message of each */
    const struct doc_errors *warnings; /* likewise */
    int64_t generation; /* that carries the change; the present one if there was none */
    size_t n_created, n_changed, n_deleted;
};
/* A commit that waits for its confirmation: columns of the Pool's row. */
struct pool_pending {
    const char *document; /* what brings the old state back; "" none.  For a change, NULL:
                           * what stands before it. */
    int64_t deadline_ms;  /* wall clock; 0: nothing is pending */
    const char *author;
};
typedef void pool_done(const struct pool_result *, void *aux);

/* Compares the document with what is there and makes the difference in one
 * transaction, or nothing if anything is wrong.  Takes ownership of 'doc'.
 * 'done' is called once, from here or from a later pool_db_run().  'check_only':
 * all but the transaction.  'pending' (or NULL: leave it) is written in the same
 * transaction, also if the document makes no difference. */
void pool_db_apply(struct pool_db *db, struct doc *doc, enum pool_apply_mode mode, bool check_only,
                   const struct pool_pending *pending, pool_done *done, void *aux);
/* Warnings are those of what stands now, not of a moment ago: all rules that are to be
 * looked at are, at once. */
void pool_db_lint(struct pool_db *);
/* A model aside, as the document would leave the pool if it replaced what it
 * holds; the caller's.  NULL: see errors. */
struct model *pool_db_aside(struct pool_db *, const struct doc *, struct doc_errors *);
/* Likewise, of a document that depends on what stands: 'ask' says it each time that the change
 * is tried, against what the model shows then and the database has if it succeeds.  The
 * document is ours; NULL: it is not made (EINVAL), and 'errors' may say why. */
typedef struct doc *pool_ask(void *aux, struct doc_errors *errors);
void pool_db_apply_asked(struct pool_db *db, pool_ask *ask, enum pool_apply_mode mode,
                         bool check_only, const struct pool_pending *pending, pool_done *done,
                         void *aux);
/* Good until the next pool_db_run(). */
const struct pool_pending *pool_db_pending(struct pool_db *);

/* --- reading (REST) ------------------------------------------------------------------ */

/* The whole stated configuration as a document; the caller's reference. */
struct json_t *pool_db_export(struct pool_db *);
/* One object, or an array of all of a kind, stated fields and status: "uuid",
 * "key", "error" and what the kind has.  NULL: there is none.  'name' may be a
 * uuid; a rule's is "POLICY/RULE". */
struct json_t *pool_db_get(struct pool_db *, enum rec_kind, const char *name);
struct json_t *pool_db_list(struct pool_db *, enum rec_kind);

#endif
