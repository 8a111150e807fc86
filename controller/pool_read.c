/* Objects of the database for others to read: names for references, and status. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "model_impl.h"
#include "ovsdb-idl-provider.h"
#include "ovsdb-types.h"
#include "pool_db.h"
#include "pool_db_priv.h"
#include "pool_row.h"
#include "util.h"

static void
name_reference(const struct model *m, enum rec_kind kind, char **text)
{
    const struct model_obj *obj;
    struct uuid uuid;

    if (uuid_from_string(&uuid, *text)) {
        obj = model_find(m, kind, &uuid);
        if (obj) {
            free(*text);
            *text = strdup(obj->name);
        }
    }
}

static void
name_references(const struct model *m, struct rec *r)
{
    for (unsigned f = 0; f < rec_tables[r->kind].n_fields; f++) {
        const struct rec_field *field = &rec_tables[r->kind].fields[f];

        if (field->type == REC_REF) {
            name_reference(m, field->ref, &r->v[f].s);
        } else if (field->type == REC_REFS) {
            for (size_t i = 0; i < r->v[f].n; i++) {
                name_reference(m, field->ref, &r->v[f].list[i]);
            }
        }
    }
    rec_normalize(r);
}

static struct pool_extra *
add_extra(struct pool_object *o, const char *name, int type)
{
    struct pool_extra *e = &o->extras[o->n_extras++];

    ovs_assert(o->n_extras <= POOL_MAX_EXTRAS);
    memset(e, 0, sizeof *e);
    e->name = name;
    e->type = type;
    return e;
}

static void
read_extra(const struct ovsdb_idl_row *row, enum rec_kind kind,
           const struct ovsdb_idl_column *column, struct pool_object *o)
{
    if (column->type.n_max > 1) {
        struct pool_extra *e = add_extra(o, column->name, POOL_EXTRA_LIST);

        e->list = pool_row_get_list(row, kind, column->name, &e->n);
    } else if (column->type.key.type == OVSDB_TYPE_STRING) {
        add_extra(o, column->name, POOL_EXTRA_STRING)->s =
            strdup(pool_row_get_string(row, kind, column->name));
    } else {
        bool boolean = column->type.key.type == OVSDB_TYPE_BOOLEAN;

        add_extra(o, column->name, boolean ? POOL_EXTRA_BOOL : POOL_EXTRA_INT)->i =
            pool_row_get_int(row, kind, column->name);
    }
}

static void
read_status(const struct ovsdb_idl_row *row, enum rec_kind kind, struct pool_object *o)
{
    /* Columns that are no fields; what is not for show is not here. */
    static const char *const columns[] = {
        "generation",
        "pending_deadline",
        "pending_author",
        "connected",
        "applied_generation",
        "drift",
        "last_seen",
        "datapath_type",
        "switch",
        "version",
        "zone",
        "seen_host",
        "ofport",
        "warning",
        "error",
        "coordinator",
        "xapi_address",
        "xapi_seen",
        "migration_address",
        "power_state",
        "resident_on",
        "epoch",
        "destination",
        "migration",
        "driver",
        "memory_bytes",
        "config",
        "device",
        "confirmed_on",
        "link",
        "speed_mbps",
        "mac_in_use",
        "at_bridge",
    };

    add_extra(o, "uuid", POOL_EXTRA_STRING)->s = xasprintf(UUID_FMT, UUID_ARGS(&row->uuid));
    if (kind != REC_POOL) {
        add_extra(o, "key", POOL_EXTRA_INT)->i = o->rec.key;
    }
    for (size_t i = 0; i < ARRAY_SIZE(columns); i++) {
        const struct ovsdb_idl_column *column = pool_row_column(kind, columns[i]);

        if (column) {
            read_extra(row, kind, column, o);
        }
    }
}

static void
read_object(struct pool_db *db, enum rec_kind kind, const struct ovsdb_idl_row *row,
            struct pool_object *o)
{
    memset(o, 0, sizeof *o);
    pool_row_read(row, kind, &o->rec);
    name_references(pool_db_model(db), &o->rec);
    read_status(row, kind, o);
}

void
pool_object_destroy(struct pool_object *o)
{
    rec_destroy(&o->rec);
    for (size_t i = 0; i < o->n_extras; i++) {
        struct pool_extra *e = &o->extras[i];

        free(e->s);
        for (size_t j = 0; j < e->n; j++) {
            free(e->list[j]);
        }
        free(e->list);
    }
}

static const struct model_obj *
find_by_name(const struct model *m, enum rec_kind kind, const char *name)
{
    const char *slash = strchr(name, '/');
    const struct model_obj *policy;
    struct uuid uuid;
    char *text;

    if (uuid_from_string(&uuid, name)) {
        return model_find(m, kind, &uuid);
    }
    if (kind != REC_RULE) {
        return model_any_by_name(m, kind, name, NULL);
    }
    if (!slash) {
        return NULL;
    }
    text = xmemdup0(name, slash - name);
    policy = model_any_by_name(m, REC_POLICY, text, NULL);
    free(text);
    return policy ? model_any_by_name(m, kind, slash + 1, &policy->uuid) : NULL;
}

bool
pool_object_read(struct pool_db *db, enum rec_kind kind, const char *name, struct pool_object *o)
{
    const struct ovsdb_idl_row *row = NULL;

    if (kind == REC_POOL) {
        row = ovsdb_idl_first_row(pool_db_idl(db), pool_row_table(kind));
    } else {
        const struct model_obj *obj = find_by_name(pool_db_model(db), kind, name);

        row = obj ? pool_row_find(pool_db_idl(db), kind, &obj->uuid) : NULL;
    }
    if (row) {
        read_object(db, kind, row, o);
    }
    return row;
}

static int
compare_objects(const void *a_, const void *b_)
{
    const struct rec *a = &((const struct pool_object *)a_)->rec;
    const struct rec *b = &((const struct pool_object *)b_)->rec;
    int cmp = 0;

    if (a->kind == REC_RULE) {
        cmp = strcmp(a->v[REC_RULE_POLICY].s, b->v[REC_RULE_POLICY].s);
        cmp = cmp ? cmp : -strcmp(a->v[REC_RULE_PART].s, b->v[REC_RULE_PART].s);
        cmp = cmp ? cmp : (int)(a->v[REC_RULE_ORDER].i - b->v[REC_RULE_ORDER].i);
    }
    return cmp ? cmp : strcmp(a->name, b->name);
}

size_t
pool_objects_read(struct pool_db *db, enum rec_kind kind, struct pool_object **objects)
{
    const struct ovsdb_idl_row *row;
    size_t n = 0, cap = 0;

    *objects = NULL;
    for (row = ovsdb_idl_first_row(pool_db_idl(db), pool_row_table(kind)); row;
         row = ovsdb_idl_next_row(row)) {
        if (n == cap) {
            *objects = x2nrealloc(*objects, &cap, sizeof **objects);
        }
        read_object(db, kind, row, &(*objects)[n++]);
    }
    if (n) {
        qsort(*objects, n, sizeof **objects, compare_objects);
    }
    return n;
}
