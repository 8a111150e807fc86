#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rest_priv.h"

#define WAIT_DEFAULT_S 60
#define SAMPLE_DEFAULT_S 10

static const char class_path[] = "/v1/{class}";
static const char object_path[] = "/v1/{class}/{object}";
static const char session_path[] = "/v1/sessions/{id}";
static const char cookie_path[] = "/v1/cookies/{cookie}";

/* --- the whole pool ------------------------------------------------------------- */

static void
run_openapi(struct rest *r, struct rest_request *q)
{
    rest_answer(q, 200, rest_openapi());
}

static void
run_whoami(struct rest *r, struct rest_request *q)
{
    rest_answer(q, 200,
                json_pack("{s:s, s:s, s:s, s:s}", "name", q->user.name, "role",
                          pool_role_name(q->user.role), "tenant", q->user.tenant, "session",
                          q->user.session));
}

static void
run_status(struct rest *r, struct rest_request *q)
{
    if (q->user.role == POOL_ROLE_TENANT) {
        int64_t generation = r->config.ops->generation(r->config.aux);
        rest_answer(q, 200, json_pack("{s:I}", "generation", (json_int_t)generation));
    } else {
        rest_answer(q, 200, r->config.ops->status(r->config.aux));
    }
}

static void
run_wait(struct rest *r, struct rest_request *q)
{
    int64_t seconds = q->args[REST_ARG_TIMEOUT];

    if (q->args[REST_ARG_GENERATION] < 0) {
        q->args[REST_ARG_GENERATION] = r->config.ops->generation(r->config.aux);
    }
    q->until_ms = http_now_ms() + (seconds < 0 ? WAIT_DEFAULT_S : seconds) * 1000;
    rest_wait_for(r, q);
}

static void
run_export(struct rest *r, struct rest_request *q)
{
    json_t *document = r->config.ops->export(r->config.aux);

    rest_document_hide(&q->user, document);
    rest_answer(q, 200, document);
}

/* False: the request has been refused, and is gone. */
static bool
has_body(struct rest_request *q)
{
    struct rest_fault fault;

    if (q->json) {
        return true;
    }
    rest_fault_set(&fault, 400, "bad_request", NULL, NULL, "the request needs a JSON body");
    rest_refuse(q, &fault);
    return false;
}

/* False: the request has been refused, and is gone. */
static bool
holds_only(struct rest_request *q, const char *const *members, size_t n)
{
    struct rest_fault fault;
    const char *key;
    json_t *value;

    json_object_foreach(q->json, key, value)
    {
        size_t i = 0;

        while (i < n && strcmp(key, members[i])) {
            i++;
        }
        if (i == n) {
            rest_fault_set(&fault, 422, "invalid", NULL, key, "has no place beside %s", members[0]);
            rest_refuse(q, &fault);
            return false;
        }
    }
    return true;
}

static void
run_check(struct rest *r, struct rest_request *q)
{
    if (!strcmp(q->route->method, "GET")) {
        rest_answer(q, 200, r->config.ops->check(r->config.aux));
    } else if (has_body(q)) {
        q->txn = (struct rest_txn){.kind = REST_CHECK, .body = q->json};
        rest_write(r, q);
    }
}

static void
run_import(struct rest *r, struct rest_request *q)
{
    if (has_body(q)) {
        q->txn = (struct rest_txn){.kind = REST_IMPORT, .body = q->json};
        rest_write(r, q);
    }
}

static void
run_trace(struct rest *r, struct rest_request *q)
{
    struct rest_fault fault;
    json_t *answer;

    if (!has_body(q)) {
        return;
    }
    answer = r->config.ops->trace(r->config.aux, q->json, &fault);
    if (answer) {
        rest_answer(q, 200, answer);
    } else {
        rest_refuse(q, &fault);
    }
}

static void
run_cookie(struct rest *r, struct rest_request *q)
{
    struct rest_fault fault;
    json_t *answer = r->config.ops->cookie(r->config.aux, q->object, &fault);

    if (answer) {
        rest_answer(q, 200, answer);
    } else {
        rest_refuse(q, &fault);
    }
}

static void
run_samples(struct rest *r, struct rest_request *q)
{
    int64_t seconds = q->args[REST_ARG_SECONDS], generation;
    json_t *answer;

    if (!strcmp(q->route->method, "GET")) {
        rest_answer(q, 200, r->config.ops->samples(r->config.aux));
        return;
    }
    seconds = seconds < 0 ? SAMPLE_DEFAULT_S : seconds;
    generation = r->config.ops->generation(r->config.aux);
    answer = r->config.ops->sample(r->config.aux, (unsigned)seconds);
    json_object_set_new(answer, "generation", json_integer(generation));
    q->http.status = 200;
    rest_audit_request(r, q, NULL, generation);
    rest_answer(q, 200, answer);
}

static void
run_capture(struct rest *r, struct rest_request *q)
{
    int64_t generation = r->config.ops->generation(r->config.aux);
    struct rest_fault fault;
    json_t *answer;

    if (!strcmp(q->route->method, "GET")) {
        rest_answer(q, 200, r->config.ops->captured(r->config.aux, q->args[REST_ARG_AFTER]));
        return;
    }
    if (!has_body(q)) {
        return;
    }
    answer = r->config.ops->capture(r->config.aux, q->json, &fault);
    if (!answer) {
        rest_refuse(q, &fault);
        return;
    }
    json_object_set_new(answer, "generation", json_integer(generation));
    q->http.status = 200;
    rest_audit_request(r, q, NULL, generation);
    rest_answer(q, 200, answer);
}

static void
run_shadow(struct rest *r, struct rest_request *q)
{
    static const char *const members[] = {"document", "flows"};
    struct rest_fault fault;
    json_t *answer;

    if (!has_body(q) || !holds_only(q, members, 2)) {
        return;
    }
    answer = r->config.ops->shadow(r->config.aux, q->json, &fault);
    if (answer) {
        rest_answer(q, 200, answer);
    } else {
        rest_refuse(q, &fault);
    }
}

static void
run_log(struct rest *r, struct rest_request *q)
{
    rest_answer(q, 200, r->config.ops->log(r->config.aux, q->args[REST_ARG_AFTER]));
}

/* A document, or {"edits": [...]}. */
static void
run_commit(struct rest *r, struct rest_request *q)
{
    static const char *const members[] = {"edits"};
    json_t *edits;

    if (!has_body(q)) {
        return;
    }
    edits = json_object_get(q->json, "edits");
    if (edits && !holds_only(q, members, 1)) {
        return;
    }
    q->txn = (struct rest_txn){.kind = REST_IMPORT, .body = q->json};
    if (edits) {
        q->edits = json_incref(edits);
        q->txn.kind = REST_EDIT;
        q->txn.body = edits;
    }
    q->txn.confirm_s = q->args[REST_ARG_CONFIRM] > 0 ? (unsigned)q->args[REST_ARG_CONFIRM] : 0;
    rest_write(r, q);
}

static void
run_confirm(struct rest *r, struct rest_request *q)
{
    q->txn = (struct rest_txn){.kind = REST_CONFIRM};
    rest_write(r, q);
}

static void
run_rollback(struct rest *r, struct rest_request *q)
{
    q->txn = (struct rest_txn){.kind = REST_ROLLBACK};
    rest_write(r, q);
}

/* --- objects ------------------------------------------------------------------------ */

static void
run_list(struct rest *r, struct rest_request *q)
{
    json_t *all = r->config.ops->list(r->config.aux, q->class), *seen = json_array(), *object;
    size_t i;

    json_array_foreach(all, i, object)
    {
        if (rest_may_see(r, &q->user, q->class, object)) {
            json_array_append(seen, object);
        }
    }
    json_decref(all);
    rest_answer(q, 200, json_pack("{s:o}", q->class->plural, seen));
}

static void
run_get(struct rest *r, struct rest_request *q)
{
    json_t *object = r->config.ops->object(r->config.aux, q->class, q->object);
    struct rest_fault fault;

    if (object && rest_may_see(r, &q->user, q->class, object)) {
        rest_answer(q, 200, object);
        return;
    }
    json_decref(object);
    rest_fault_set(&fault, 404, "not_found", NULL, NULL, "there is no %s \"%.260s\"",
                   q->class->noun, q->object);
    rest_refuse(q, &fault);
}

static void
edit(struct rest *r, struct rest_request *q, const char *op, const char *name)
{
    json_t *e = json_pack("{s:s, s:s, s:s}", "op", op, "class", q->class->noun, "name", name);

    if (q->json) {
        json_object_set(e, "values", q->json);
    }
    q->edits = json_pack("[o]", e);
    q->txn = (struct rest_txn){.kind = REST_EDIT, .body = q->edits};
    rest_write(r, q);
}

static void
run_add(struct rest *r, struct rest_request *q)
{
    const char *name, *within = NULL;
    struct rest_fault fault;
    char full[300];

    if (!has_body(q)) {
        return;
    }
    name = json_string_value(json_object_get(q->json, "name"));
    if (q->class->within) {
        within = json_string_value(json_object_get(q->json, q->class->within));
    }
    if (!name || !*name || (q->class->within && (!within || !*within))) {
        rest_fault_set(&fault, 422, "invalid", q->class->noun,
                       name && *name ? q->class->within : "name", "must be given");
        rest_refuse(q, &fault);
        return;
    }
    snprintf(full, sizeof full, "%s%s%s", within ? within : "", within ? "/" : "", name);
    edit(r, q, "add", full);
}

static void
run_set(struct rest *r, struct rest_request *q)
{
    if (has_body(q)) {
        edit(r, q, "set", q->object);
    }
}

static void
run_remove(struct rest *r, struct rest_request *q)
{
    edit(r, q, "remove", q->object);
}

/* --- the table ------------------------------------------------------------------------- */

#define ROLE(least_) .least = POOL_ROLE_##least_
#define BODY(max) .max_body = REST_##max##_MAX
#define CHANGE .change = true
#define WHOLE .whole_pool = true
#define EARLY .early = true
#define ARG(name) (1u << REST_ARG_##name)

const struct rest_route rest_routes[] = {
    {"GET", "/v1/openapi.json", ROLE(VIEWER), EARLY, .answer = "openapi", .run = run_openapi,
     .about = "this description"},
    {"GET", "/v1/whoami", ROLE(VIEWER), .answer = "whoami", .run = run_whoami,
     .about = "name and role of who asks"},
    {"GET", "/v1/status", ROLE(VIEWER), EARLY, .answer = "status", .run = run_status,
     .about = "generation, hosts, and what is wrong"},
    {"GET", "/v1/wait", ROLE(VIEWER), .args = ARG(GENERATION) | ARG(TIMEOUT), .answer = "waited",
     .run = run_wait,
     .about = "answers when every connected host has applied the generation, or after the timeout"},
    {"GET", "/v1/export", ROLE(VIEWER), WHOLE, .answer = "document", .run = run_export,
     .about = "what is stated, as a document"},
    {"GET", "/v1/check", ROLE(VIEWER), WHOLE, .answer = "report", .run = run_check,
     .about = "errors and warnings (conflicts, unreachable rules) of what stands"},
    {"POST", "/v1/check", ROLE(VIEWER), WHOLE, BODY(BODY), .body = "document", .answer = "report",
     .run = run_check, .about = "errors and warnings of a document; nothing changes"},
    {"POST", "/v1/trace", ROLE(VIEWER), WHOLE, BODY(OBJECT), .body = "question", .answer = "trace",
     .run = run_trace, .about = "the way of a packet over the pool's hosts, and who decided what"},
    {"GET", cookie_path, ROLE(VIEWER), WHOLE, .answer = "origin", .run = run_cookie,
     .about = "whose a flow with this cookie is"},
    {"GET", "/v1/log", ROLE(VIEWER), WHOLE, .args = ARG(AFTER), .answer = "log", .run = run_log,
     .about = "what rules with their log flag decided lately"},
    {"GET", "/v1/sessions", ROLE(VIEWER), .answer = "sessions", .run = rest_run_sessions,
     .about = "one's sessions; an admin's: everybody's"},
    {"POST", "/v1/sessions", ROLE(VIEWER), CHANGE, BODY(OBJECT), .body = "login",
     .answer = "session_begun", .run = rest_run_login,
     .about = "a session, and the token for it, which is not told again"},
    {"DELETE", session_path, ROLE(VIEWER), CHANGE, .answer = "session_ended",
     .run = rest_run_logout,
     .about = "a session ends; \"current\" is the one of the token that asks"},
    {"POST", "/v1/samples", ROLE(OPERATOR), WHOLE, CHANGE, .args = ARG(SECONDS),
     .answer = "sampling", .run = run_samples,
     .about =
         "switches report new connections for a while; what they reported before is forgotten"},
    {"GET", "/v1/samples", ROLE(VIEWER), WHOLE, .answer = "samples", .run = run_samples,
     .about = "the connections that they reported, as flows for shadow"},
    {"POST", "/v1/capture", ROLE(OPERATOR), WHOLE, CHANGE, BODY(OBJECT), .body = "capture",
     .answer = "capturing", .run = run_capture,
     .about = "a vif's next packets are reported for a while; in place of what is under way"},
    {"GET", "/v1/capture", ROLE(OPERATOR), WHOLE, .args = ARG(AFTER), .answer = "captured",
     .run = run_capture, .about = "the packets that were reported, each with its trace"},
    {"POST", "/v1/shadow", ROLE(OPERATOR), WHOLE, BODY(BODY), .body = "shadow", .answer = "scored",
     .run = run_shadow,
     .about = "what a document would do with flows that were seen; nothing changes"},
    {"POST", "/v1/import", ROLE(OPERATOR), WHOLE, CHANGE, BODY(BODY), .body = "document",
     .run = run_import, .about = "a document replaces the classes it holds"},
    {"POST", "/v1/commit", ROLE(OPERATOR), WHOLE, CHANGE, BODY(BODY), .args = ARG(CONFIRM),
     .body = "commit", .run = run_commit,
     .about = "a document, or edits, in one transaction; with confirm=SECONDS it rolls back unless "
              "confirmed"},
    {"POST", "/v1/confirm", ROLE(OPERATOR), WHOLE, CHANGE, .run = run_confirm,
     .about = "the unconfirmed commit stays"},
    {"POST", "/v1/rollback", ROLE(OPERATOR), WHOLE, CHANGE, .run = run_rollback,
     .about = "what stood before the unconfirmed commit stands again"},
    {"GET", class_path, .run = run_list, .about = "all objects of the class"},
    {"POST", class_path, CHANGE, BODY(OBJECT), .run = run_add, .about = "a new object"},
    {"GET", object_path, .run = run_get, .about = "one object, by name or uuid"},
    {"PATCH", object_path, CHANGE, BODY(OBJECT), .run = run_set,
     .about = "new values of some fields; null means the default; {\"add\": [...], \"remove\": "
              "[...]} changes a set"},
    {"DELETE", object_path, CHANGE, .run = run_remove, .about = "the object goes"},
};
const size_t n_rest_routes = sizeof rest_routes / sizeof rest_routes[0];

/* Which path of the table this one is; class and object into the request. */
static const char *
match(struct rest_request *q)
{
    char plural[32];
    size_t n;

    for (size_t i = 0; i < n_rest_routes; i++) {
        if (!strcmp(rest_routes[i].path, q->http.path)) {
            return rest_routes[i].path;
        }
    }
    if (!strncmp(q->http.path, "/v1/sessions/", 13)) {
        snprintf(q->object, sizeof q->object, "%.60s", q->http.path + 13);
        return session_path;
    }
    if (!strncmp(q->http.path, "/v1/cookies/", 12)) {
        snprintf(q->object, sizeof q->object, "%.60s", q->http.path + 12);
        return cookie_path;
    }
    if (strncmp(q->http.path, "/v1/", 4) != 0) {
        return NULL;
    }
    n = strcspn(q->http.path + 4, "/");
    if (n >= sizeof plural) {
        return NULL;
    }
    memcpy(plural, q->http.path + 4, n);
    plural[n] = '\0';
    q->class = pool_class_by_plural(plural);
    if (!q->class) {
        return NULL;
    }
    const char *rest = q->http.path + 4 + n;
    if (q->class->single) {
        return *rest ? NULL : object_path;
    }
    if (!*rest) {
        return class_path;
    }
    if (!rest[1] || strlen(rest + 1) >= sizeof q->object) {
        return NULL;
    }
    snprintf(q->object, sizeof q->object, "%s", rest + 1);
    return object_path;
}

bool
rest_route_allows(const struct rest_request *q, struct rest_fault *fault)
{
    const struct rest_route *route = q->route;
    enum pool_role role = q->user.role;
    bool ok = role >= route->least && !(route->whole_pool && role == POOL_ROLE_TENANT);

    if (q->class) {
        ok = route->change ? pool_may_write(q->class, NULL, role) : pool_may_read(q->class, role);
    }
    if (q->class && q->class->single && !strcmp(route->method, "DELETE")) {
        rest_fault_set(fault, 405, "bad_request", q->class->noun, NULL, "it cannot be removed");
        return false;
    }
    if (!ok) {
        rest_fault_set(fault, 403, "denied", q->class ? q->class->noun : NULL, NULL,
                       "role %s may not %s %s", pool_role_name(role), route->method, q->http.path);
    }
    return ok;
}

bool
rest_route_find(struct rest_request *q, const char *method, struct rest_fault *fault)
{
    const char *path = match(q);

    if (!path) {
        rest_fault_set(fault, 404, "not_found", NULL, NULL,
                       "there is nothing at this path; /v1/openapi.json lists what there is");
        return false;
    }
    for (size_t i = 0; i < n_rest_routes; i++) {
        if (!strcmp(rest_routes[i].path, path) && !strcmp(rest_routes[i].method, method)) {
            q->route = &rest_routes[i];
            return rest_route_allows(q, fault);
        }
    }
    rest_fault_set(fault, 405, "bad_request", NULL, NULL, "%.20s cannot be done here", method);
    q->http.allow = !strcmp(path, class_path)     ? "GET, POST"
                    : !strcmp(path, session_path) ? "DELETE"
                    : !strcmp(path, cookie_path)  ? "GET"
                    : !strcmp(path, object_path)  ? "GET, PATCH, DELETE"
                                                  : "GET, POST";
    return false;
}
