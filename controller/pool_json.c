/* What pool_db gives to read, as JSON. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "doc.h"
#include "ovs/jansson_ns.h"
#include "plan.h"
#include "pool_db.h"
#include "pool_db_priv.h"
#include "sset.h"
#include "util.h"
#include "uuid.h"

static json_t *
extra_json(const struct pool_extra *e)
{
    json_t *list;

    switch (e->type) {
    case POOL_EXTRA_STRING:
        return json_string(e->s);
    case POOL_EXTRA_INT:
        return json_integer(e->i);
    case POOL_EXTRA_BOOL:
        return json_boolean(e->i);
    case POOL_EXTRA_LIST:
        break;
    }
    list = json_array();
    for (size_t i = 0; i < e->n; i++) {
        json_array_append_new(list, json_string(e->list[i]));
    }
    return list;
}

static json_t *
object_json(const struct pool_object *o)
{
    json_t *json = doc_record_json(&o->rec, true);

    for (size_t i = 0; i < o->n_extras; i++) {
        json_object_set_new(json, o->extras[i].name, extra_json(&o->extras[i]));
    }
    return json;
}

json_t *
pool_db_get(struct pool_db *db, enum rec_kind kind, const char *name)
{
    struct pool_object o;
    json_t *json;

    if (!pool_object_read(db, kind, name, &o)) {
        return NULL;
    }
    json = object_json(&o);
    pool_object_destroy(&o);
    return json;
}

json_t *
pool_db_list(struct pool_db *db, enum rec_kind kind)
{
    struct pool_object *objects;
    size_t n = pool_objects_read(db, kind, &objects);
    json_t *json = json_array();

    for (size_t i = 0; i < n; i++) {
        json_array_append_new(json, object_json(&objects[i]));
        pool_object_destroy(&objects[i]);
    }
    free(objects);
    return json;
}

static const char *
uuid_of(const struct pool_object *o)
{
    for (size_t i = 0; i < o->n_extras; i++) {
        if (!strcmp(o->extras[i].name, "uuid")) {
            return o->extras[i].s;
        }
    }
    return "";
}

/* 'deleted' (or NULL: none has one): uuids of what is written without. */
static json_t *export(struct pool_db *db, const struct sset *deleted)
{
    struct doc *doc = doc_create();
    json_t *json;

    for (enum rec_kind k = 0; k < REC_N_KINDS; k++) {
        struct pool_object *objects;
        size_t n = pool_objects_read(db, k, &objects);
        bool named = deleted && k != REC_POOL && k != REC_RULE;

        doc->kinds |= 1u << k;
        for (size_t i = 0; i < n; i++) {
            struct doc_item *item = doc_append(doc, k);
            const char *uuid = uuid_of(&objects[i]);

            rec_destroy(&item->rec);
            rec_copy(&item->rec, &objects[i].rec);
            if (named && !sset_contains(deleted, uuid)) {
                item->uuid = xstrdup(uuid);
            }
            pool_object_destroy(&objects[i]);
        }
        free(objects);
    }
    json = doc_to_json(doc);
    doc_free(doc);
    return json;
}

json_t *
pool_db_export(struct pool_db *db)
{
    return export(db, NULL);
}

char *
pool_db_before(struct pool_db *db, const struct plan *plan)
{
    struct sset deleted = SSET_INITIALIZER(&deleted);
    json_t *json;
    char *text;

    for (size_t i = 0; i < plan->n; i++) {
        if (plan->ops[i].what == PLAN_DELETE) {
            char uuid[UUID_LEN + 1];

            snprintf(uuid, sizeof uuid, UUID_FMT, UUID_ARGS(&plan->ops[i].uuid));
            sset_add(&deleted, uuid);
        }
    }
    json = export(db, &deleted);
    text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    sset_destroy(&deleted);
    return text ? text : xstrdup("");
}
