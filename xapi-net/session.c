/* Sessions: references that stand for a user.  Kept in memory: another
 * coordinator does not know them, and clients log in again. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "openvswitch/hmap.h"
#include "openvswitch/json.h"
#include "timeval.h"
#include "util.h"
#include "xapi.h"

enum { SESSIONS_MAX = 1000, SESSIONS_OF_USER = 200, SESSION_IDLE_MS = 24 * 3600 * 1000 };

struct session {
    struct hmap_node node;
    char ref[REF_SIZE];
    char user[129], originator[80];
    enum pool_role role;
    long long int began_ms;  /* wall clock */
    long long int active_ms; /* wall clock, for people */
    long long int used_ms;   /* monotonic */
};

struct sessions {
    struct hmap map;
};

struct sessions *
sessions_create(void)
{
    struct sessions *s = xmalloc(sizeof *s);

    hmap_init(&s->map);
    return s;
}

static void
drop(struct sessions *s, struct session *one)
{
    hmap_remove(&s->map, &one->node);
    free(one);
}

void
sessions_destroy(struct sessions *s)
{
    struct session *one;

    if (s) {
        HMAP_FOR_EACH_SAFE (one, node, &s->map) {
            drop(s, one);
        }
        hmap_destroy(&s->map);
        free(s);
    }
}

static void
expire(struct sessions *s)
{
    struct session *one;

    HMAP_FOR_EACH_SAFE (one, node, &s->map) {
        if (time_msec() - one->used_ms > SESSION_IDLE_MS) {
            drop(s, one);
        }
    }
}

/* The one that has not been used for longest makes room: clients that never log
 * out keep nobody else out. */
static void
make_room(struct sessions *s, const char *user)
{
    struct session *one, *oldest = NULL, *oldest_of_user = NULL;
    unsigned n = 0;

    HMAP_FOR_EACH (one, node, &s->map) {
        bool same = !strcmp(one->user, user);

        n += same;
        oldest = !oldest || one->used_ms < oldest->used_ms ? one : oldest;
        if (same && (!oldest_of_user || one->used_ms < oldest_of_user->used_ms)) {
            oldest_of_user = one;
        }
    }
    if (n >= SESSIONS_OF_USER) {
        drop(s, oldest_of_user);
    } else if (hmap_count(&s->map) >= SESSIONS_MAX) {
        drop(s, oldest);
    }
}

bool
session_begin(struct sessions *s, const char *user, enum pool_role role, const char *originator,
              char ref[REF_SIZE])
{
    struct session *one = xzalloc(sizeof *one);
    struct uuid uuid;

    expire(s);
    make_room(s, user);
    uuid_generate(&uuid);
    snprintf(one->ref, sizeof one->ref, REF_PREFIX UUID_FMT, UUID_ARGS(&uuid));
    snprintf(one->user, sizeof one->user, "%s", user);
    snprintf(one->originator, sizeof one->originator, "%s", originator);
    one->role = role;
    one->began_ms = one->active_ms = time_wall_msec();
    one->used_ms = time_msec();
    hmap_insert(&s->map, &one->node, hash_string(one->ref, 0));
    strcpy(ref, one->ref);
    return true;
}

static struct session *
find(struct sessions *s, const char *ref)
{
    struct session *one;

    HMAP_FOR_EACH_WITH_HASH (one, node, hash_string(ref, 0), &s->map) {
        if (!strcmp(one->ref, ref)) {
            return time_msec() - one->used_ms > SESSION_IDLE_MS ? NULL : one;
        }
    }
    return NULL;
}

bool
session_use(struct sessions *s, const char *ref, char user[129], enum pool_role *role)
{
    struct session *one = find(s, ref);

    if (one) {
        one->used_ms = time_msec();
        one->active_ms = time_wall_msec();
        strcpy(user, one->user);
        *role = one->role;
    }
    return one != NULL;
}

bool
session_end(struct sessions *s, const char *ref)
{
    struct session *one = find(s, ref);

    if (one) {
        drop(s, one);
    }
    return one != NULL;
}

struct json *
session_refs(struct sessions *s)
{
    struct json *set = json_array_create_empty();
    struct session *one;

    HMAP_FOR_EACH (one, node, &s->map) {
        value_add(set, one->ref);
    }
    return set;
}

struct json *
session_record(struct xapi *x, const char *ref)
{
    const struct session *one = find(x->sessions, ref);
    const struct poolrec_host *host = store_host(x->store, x->options->host);
    struct json *r;

    if (!one) {
        return NULL;
    }
    r = json_object_create();
    json_object_put_string(r, "uuid", one->ref + strlen(REF_PREFIX));
    json_object_put(r, "this_host",
                    host ? value_ref(&host->header_.uuid) : json_string_create(REF_NULL));
    json_object_put_string(r, "this_user", REF_NULL);
    json_object_put(r, "last_active", value_time(one->active_ms));
    json_object_put(r, "pool", json_boolean_create(false));
    json_object_put(r, "other_config", json_object_create());
    json_object_put(r, "is_local_superuser", json_boolean_create(one->role == POOL_ROLE_ADMIN));
    json_object_put_string(r, "subject", REF_NULL);
    json_object_put(r, "validation_time", value_time(one->began_ms));
    json_object_put_string(r, "auth_user_sid", one->user);
    json_object_put_string(r, "auth_user_name", one->user);
    json_object_put(r, "rbac_permissions", json_array_create_empty());
    json_object_put(r, "tasks", json_array_create_empty());
    json_object_put_string(r, "parent", REF_NULL);
    json_object_put_string(r, "originator", one->originator);
    json_object_put(r, "client_certificate", json_boolean_create(false));
    return r;
}
