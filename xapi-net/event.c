/* event.from: what has changed since a token.
 *
 * Each change of the replica is a version; each object knows at which one it
 * came and last changed, and those that went are remembered for a while.  A
 * token is this process's number and a version: one of another process (another
 * coordinator) gets everything anew. */
#include <config.h>

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "openvswitch/hmap.h"
#include "openvswitch/json.h"
#include "ovsdb-idl-provider.h"
#include "ovsdb-idl.h"
#include "timeval.h"
#include "util.h"
#include "xapi.h"

/* Each change is compared with each class of each request that waits. */
enum { GONE_MAX = 4096, EVENT_TIMEOUT_MAX_S = 3600, CLASSES_MAX = 256 };

struct object {
    struct hmap_node node;
    const struct class *class;
    struct uuid uuid;
    uint64_t added, changed;
    char last[64]; /* VM: resident_on; task: status: others change with it */
};

struct gone {
    const struct class *class;
    struct uuid uuid;
    uint64_t version;
};

struct events {
    uint64_t instance, version;
    unsigned seqno;
    struct hmap objects;
    struct gone gone[GONE_MAX]; /* a ring */
    uint64_t n_gone;
};

struct event_wait {
    uint64_t since;
    long long int until; /* monotonic */
    bool all;
    struct json *classes; /* "vm", "vm/OpaqueRef:..." in lower case */
};

struct events *
events_create(void)
{
    struct events *e = xzalloc(sizeof *e);
    struct uuid uuid;

    uuid_generate(&uuid);
    e->instance = (uint64_t)uuid.parts[0] << 32 | uuid.parts[1];
    hmap_init(&e->objects);
    return e;
}

void
events_destroy(struct events *e)
{
    struct object *o;

    if (e) {
        HMAP_FOR_EACH_SAFE (o, node, &e->objects) {
            hmap_remove(&e->objects, &o->node);
            free(o);
        }
        hmap_destroy(&e->objects);
        free(e);
    }
}

/* --- versions ---------------------------------------------------------------------------- */

static struct object *
find(struct events *e, const struct uuid *uuid)
{
    struct object *o;

    HMAP_FOR_EACH_WITH_HASH (o, node, uuid_hash(uuid), &e->objects) {
        if (uuid_equals(&o->uuid, uuid)) {
            return o;
        }
    }
    return NULL;
}

static void
touch(struct events *e, const struct uuid *uuid)
{
    struct object *o = uuid ? find(e, uuid) : NULL;

    if (o) {
        o->changed = e->version;
    }
}

static void
touch_host(struct xapi *x, const char *name)
{
    const struct poolrec_host *host = *name ? store_host(x->store, name) : NULL;

    touch(x->events, host ? &host->header_.uuid : NULL);
}

/* What other objects' records say of this one. */
static void
touch_others(struct xapi *x, struct object *o, const struct ovsdb_idl_row *row)
{
    const char *now = NULL;

    if (o->class == &class_vm) {
        const struct poolrec_vm *vm = poolrec_vm_get_for_uuid(store_idl(x->store), &row->uuid);
        now = vm->resident_on;
        if (strcmp(now, o->last)) {
            touch_host(x, o->last);
            touch_host(x, now);
        }
    } else if (o->class == &class_task) {
        const struct poolrec_task *t = poolrec_task_get_for_uuid(store_idl(x->store), &row->uuid);
        const struct poolrec_vm *vm = store_vm(x->store, t->vm);
        now = t->status;
        if (strcmp(now, o->last)) {
            touch(x->events, vm ? &vm->header_.uuid : NULL);
        }
    } else if (o->class == &class_vif) {
        const struct poolrec_vif *vif = poolrec_vif_get_for_uuid(store_idl(x->store), &row->uuid);
        touch(x->events, vif->vm ? &vif->vm->header_.uuid : NULL);
    }
    if (now) {
        ovs_strlcpy(o->last, now, sizeof o->last);
    }
}

static void
note(struct xapi *x, const struct class *class, const struct uuid *uuid)
{
    struct events *e = x->events;
    const struct ovsdb_idl_row *row =
        ovsdb_idl_get_row_for_uuid(store_idl(x->store), class->table, uuid);
    struct object *o = find(e, uuid);

    if (row && !o) {
        o = xzalloc(sizeof *o);
        *o = (struct object){.class = class, .uuid = *uuid, .added = e->version};
        hmap_insert(&e->objects, &o->node, uuid_hash(uuid));
    }
    if (row) {
        o->changed = e->version;
        touch_others(x, o, row);
    } else if (o) {
        e->gone[e->n_gone++ % GONE_MAX] = (struct gone){class, *uuid, e->version};
        hmap_remove(&e->objects, &o->node);
        free(o);
    }
}

void
events_run(struct xapi *x)
{
    struct events *e = x->events;

    if (e->seqno == store_seqno(x->store)) {
        return;
    }
    e->seqno = store_seqno(x->store);
    e->version++;
    for (size_t i = 0; i < n_classes; i++) {
        const struct ovsdb_idl_row *row;

        if (!classes[i]->table) {
            continue;
        }
        for (row = ovsdb_idl_track_get_first(store_idl(x->store), classes[i]->table); row;
             row = ovsdb_idl_track_get_next(row)) {
            note(x, classes[i], &row->uuid);
        }
    }
}

/* --- event.from ----------------------------------------------------------------------------- */

static void
lower(const char *from, char *to, size_t size)
{
    size_t i;

    for (i = 0; from[i] && i + 1 < size; i++) {
        to[i] = (char)tolower((unsigned char)from[i]);
    }
    to[i] = '\0';
}

static bool
wanted(const struct event_wait *w, const struct class *class, const struct uuid *uuid)
{
    const struct json_array *a = json_array(w->classes);
    char name[20], object[20 + REF_SIZE];

    if (w->all) {
        return true;
    }
    lower(class->name, name, sizeof name);
    snprintf(object, sizeof object, "%s/opaqueref:" UUID_FMT, name, UUID_ARGS(uuid));
    for (size_t i = 0; i < a->n; i++) {
        const char *s = json_string(a->elems[i]);
        if (!strcmp(s, name) || !strcmp(s, object)) {
            return true;
        }
    }
    return false;
}

static void
put_event(struct json *list, const struct class *class, const char *operation,
          const struct uuid *uuid, uint64_t version, struct json *snapshot)
{
    struct json *event = json_object_create();
    char name[20];

    lower(class->name, name, sizeof name);
    json_object_put(event, "id", json_integer_create((long long int)version));
    json_object_put(event, "timestamp", value_time(time_wall_msec()));
    json_object_put_string(event, "class", name);
    json_object_put_string(event, "operation", operation);
    json_object_put(event, "ref", value_ref(uuid));
    if (snapshot) {
        json_object_put(event, "snapshot", snapshot);
    }
    json_array_add(list, event);
}

static struct json *
collect(struct xapi *x, const struct event_wait *w)
{
    struct events *e = x->events;
    struct json *list = json_array_create_empty();
    const struct object *o;
    uint64_t oldest = e->n_gone > GONE_MAX ? e->n_gone - GONE_MAX : 0;

    HMAP_FOR_EACH (o, node, &e->objects) {
        const struct ovsdb_idl_row *row =
            o->changed > w->since && wanted(w, o->class, &o->uuid)
                ? ovsdb_idl_get_row_for_uuid(store_idl(x->store), o->class->table, &o->uuid)
                : NULL;
        if (row) {
            put_event(list, o->class, o->added > w->since ? "add" : "mod", &o->uuid, o->changed,
                      class_record(x, o->class, row));
        }
    }
    for (uint64_t i = oldest; w->since && i < e->n_gone; i++) {
        const struct gone *g = &e->gone[i % GONE_MAX];
        if (g->version > w->since && wanted(w, g->class, &g->uuid)) {
            put_event(list, g->class, "del", &g->uuid, g->version, NULL);
        }
    }
    return list;
}

static struct json *
counts(struct xapi *x)
{
    struct json *map = json_object_create();

    for (size_t i = 0; i < n_classes; i++) {
        const struct ovsdb_idl_row *row;
        char name[20];
        int n = 0;

        if (!classes[i]->table) {
            continue;
        }
        for (row = ovsdb_idl_first_row(store_idl(x->store), classes[i]->table); row;
             row = ovsdb_idl_next_row(row)) {
            n++;
        }
        lower(classes[i]->name, name, sizeof name);
        json_object_put(map, name, json_integer_create(n));
    }
    return map;
}

bool
event_look(struct request *q)
{
    struct events *e = q->xapi->events;
    struct json *list, *answer;

    if (e->version <= q->event->since && time_msec() < q->event->until) {
        return false;
    }
    list = collect(q->xapi, q->event);
    if (!json_array(list)->n && time_msec() < q->event->until) {
        q->event->since = e->version;
        json_destroy(list);
        return false;
    }
    if (!request_permitted(q)) { /* any more */
        json_destroy(list);
        return true;
    }
    answer = json_object_create();
    json_object_put(answer, "events", list);
    json_object_put(answer, "valid_ref_counts", counts(q->xapi));
    json_object_put_format(answer, "token", "%016" PRIx64 ",%" PRIu64, e->instance, e->version);
    request_answer(q, answer);
    return true;
}

long long int
event_until(const struct request *q)
{
    return q->event->until;
}

void
event_forget(struct request *q)
{
    json_destroy(q->event->classes);
    free(q->event);
    q->event = NULL;
}

/* "": everything. */
static bool
read_token(const struct events *e, const char *token, uint64_t *since)
{
    unsigned long long instance, version;
    int n = 0;

    *since = 0;
    if (!*token) {
        return true;
    }
    if (strlen(token) > 40 || sscanf(token, "%16llx,%19llu%n", &instance, &version, &n) != 2 ||
        token[n]) {
        return false;
    }
    *since = instance == e->instance && version <= e->version ? version : 0;
    return true;
}

/* event.from(session, classes, token, timeout) */
void
event_from(struct request *q)
{
    const struct json_array *a = json_array(q->args[0].j);
    const struct json *timeout = q->args[2].j;
    double seconds =
        timeout->type == JSON_REAL ? json_real(timeout) : (double)json_integer(timeout);
    struct events *e = q->xapi->events;
    uint64_t since;

    if (a->n > CLASSES_MAX) {
        request_fail(q, "EVENT_SUBSCRIPTION_PARSE_FAILURE", "more than 256 classes", NULL);
        return;
    }
    if (!read_token(e, q->args[1].s, &since)) {
        request_fail(q, "EVENT_FROM_TOKEN_PARSE_FAILURE", q->args[1].s, NULL);
        return;
    }
    if (since && e->n_gone > GONE_MAX && e->gone[e->n_gone % GONE_MAX].version > since) {
        request_fail(q, "EVENTS_LOST", NULL);
        return;
    }
    seconds = seconds > 0 ? MIN(seconds, EVENT_TIMEOUT_MAX_S) : 0;
    q->event = xzalloc(sizeof *q->event);
    q->event->since = since;
    q->event->until = time_msec() + (long long int)(seconds * 1000);
    q->event->classes = json_array_create_empty();
    for (size_t i = 0; i < a->n; i++) {
        char name[20 + REF_SIZE];

        lower(json_string(a->elems[i]), name, sizeof name);
        q->event->all = q->event->all || !strcmp(name, "*");
        value_add(q->event->classes, name);
    }
    event_look(q);
}
