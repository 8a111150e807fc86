/* Sessions over REST.  A session is begun by who has shown who it is otherwise:
 * one that began another would never end. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rest_priv.h"

struct login {
    const char *user;
    int64_t lifetime_s, idle_s;
};

static bool
seconds(const json_t *body, const char *name, int64_t max, int64_t *s, struct rest_fault *fault)
{
    const json_t *value = json_object_get(body, name);

    if (value && (!json_is_integer(value) || json_integer_value(value) < 60 ||
                  json_integer_value(value) > max)) {
        rest_fault_set(fault, 422, "invalid", "session", name, "must be 60 to %lld seconds",
                       (long long)max);
        return false;
    }
    *s = value ? json_integer_value(value) : *s;
    return true;
}

static bool
parse(const struct rest_request *q, struct login *l, struct rest_fault *fault)
{
    const json_t *user = json_object_get(q->json, "user");
    const char *key;
    json_t *value;

    *l = (struct login){q->user.name, REST_SESSION_LIFETIME_S, REST_SESSION_IDLE_S};
    json_object_foreach(q->json, key, value)
    {
        if (strcmp(key, "user") != 0 && strcmp(key, "lifetime") != 0 && strcmp(key, "idle") != 0) {
            rest_fault_set(fault, 422, "invalid", "session", key,
                           "is none of user, lifetime, idle");
            return false;
        }
    }
    if (user && !json_is_string(user)) {
        rest_fault_set(fault, 422, "invalid", "session", "user", "must be a user's name");
        return false;
    }
    l->user = user ? json_string_value(user) : l->user;
    return seconds(q->json, "lifetime", REST_SESSION_LIFETIME_MAX_S, &l->lifetime_s, fault) &&
           seconds(q->json, "idle", REST_SESSION_LIFETIME_MAX_S, &l->idle_s, fault);
}

static bool
may_begin(struct rest *r, const struct rest_request *q, const struct login *l,
          struct rest_fault *fault)
{
    struct rest_user as = {.role = POOL_ROLE_NONE};

    if (*q->user.session) {
        rest_fault_set(fault, 403, "denied", "session", NULL,
                       "a session begins with a certificate or at the local socket, not with "
                       "another session");
        return false;
    }
    if (strcmp(l->user, q->user.name) != 0 && q->user.role != POOL_ROLE_ADMIN) {
        rest_fault_set(fault, 403, "denied", "session", "user",
                       "only an admin begins a session for somebody else");
        return false;
    }
    if (strlen(l->user) < sizeof as.name) {
        rest_identify(r, l->user, "", &as);
    }
    if (as.role == POOL_ROLE_NONE) {
        rest_fault_set(fault, 422, "invalid", "session", "user",
                       "\"%.128s\" is no enabled user of the pool; \"weft user add\" makes one",
                       l->user);
        return false;
    }
    if (!rest_audit_good(r->audit)) {
        rest_fault_set(fault, 503, "unavailable", NULL, NULL,
                       "the audit log cannot be written, so no session begins");
        return false;
    }
    return true;
}

void
rest_run_login(struct rest *r, struct rest_request *q)
{
    char token[REST_SESSION_TOKEN] = "";
    struct rest_fault fault;
    struct login l;
    json_t *answer;
    int error;

    if (!parse(q, &l, &fault) || !may_begin(r, q, &l, &fault)) {
        rest_refuse(q, &fault);
        return;
    }
    error = rest_session_begin(r->sessions, l.user, q->user.address, l.lifetime_s, l.idle_s,
                               http_now_ms(), token);
    if (error) {
        rest_fault_set(&fault, error == ENOSPC ? 409 : 503,
                       error == ENOSPC ? "conflict" : "unavailable", "session", NULL,
                       error == ENOSPC ? "too many sessions: end one, or wait until one ends"
                                       : "there are no random numbers");
        rest_refuse(q, &fault);
        return;
    }
    snprintf(q->user.session, sizeof q->user.session, "%.16s", token + 5);
    answer = json_pack("{s:s, s:s, s:s, s:I, s:I}", "id", q->user.session, "user", l.user, "token",
                       token, "expires_in", (json_int_t)l.lifetime_s, "idle", (json_int_t)l.idle_s);
    explicit_bzero(token, sizeof token);
    q->http.status = 201;
    rest_audit_request(r, q, NULL, r->config.ops->generation(r->config.aux));
    rest_answer(q, 201, answer);
}

/* NULL: everybody's. */
static const char *
whose(const struct rest_request *q)
{
    return q->user.role == POOL_ROLE_ADMIN ? NULL : q->user.name;
}

void
rest_run_sessions(struct rest *r, struct rest_request *q)
{
    rest_answer(
        q, 200,
        json_pack("{s:o}", "sessions", rest_sessions_list(r->sessions, whose(q), http_now_ms())));
}

void
rest_run_logout(struct rest *r, struct rest_request *q)
{
    const char *id = strcmp(q->object, "current") != 0 ? q->object : q->user.session;
    struct rest_fault fault;

    if (!rest_session_end(r->sessions, id, whose(q), http_now_ms())) {
        rest_fault_set(&fault, 404, "not_found", "session", NULL, "there is no session \"%s\"",
                       q->object);
        rest_refuse(q, &fault);
        return;
    }
    q->http.status = 200;
    rest_audit_request(r, q, NULL, r->config.ops->generation(r->config.aux));
    rest_answer(q, 200, json_pack("{s:s}", "ended", id));
}
