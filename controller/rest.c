#include "rest.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rest_priv.h"

void
rest_logf(struct rest *r, enum rest_log level, const char *format, ...)
{
    char line[600];
    va_list args;

    if (r->config.log) {
        va_start(args, format);
        vsnprintf(line, sizeof line, format, args);
        va_end(args);
        r->config.log(level, line);
    }
}

void
rest_fault_set(struct rest_fault *f, int status, const char *error, const char *object,
               const char *field, const char *format, ...)
{
    va_list args;

    f->status = status;
    f->error = error;
    snprintf(f->object, sizeof f->object, "%s", object ? object : "");
    snprintf(f->field, sizeof f->field, "%s", field ? field : "");
    va_start(args, format);
    vsnprintf(f->message, sizeof f->message, format, args);
    va_end(args);
}

void
rest_fault_unknown(struct rest_fault *f)
{
    rest_fault_set(f, 503, "unavailable", NULL, NULL,
                   "the pool database has not been read yet; try again");
}

/* --- lists of requests ---------------------------------------------------------- */

static void
push(struct rest_list *l, struct rest_request *q)
{
    q->next = NULL;
    q->prev = l->last;
    *(l->last ? &l->last->next : &l->first) = q;
    l->last = q;
}

static void
take(struct rest_list *l, struct rest_request *q)
{
    *(q->prev ? &q->prev->next : &l->first) = q->next;
    *(q->next ? &q->next->prev : &l->last) = q->prev;
    q->prev = q->next = NULL;
}

/* --- answers --------------------------------------------------------------------- */

void
rest_put_answer(struct rest_request *q, int status, json_t *json)
{
    http_put(&q->http, status, json_dumps(json, JSON_PRESERVE_ORDER | JSON_INDENT(2)));
    json_decref(json);
}

/* A word cut in the middle of a character is none in JSON. */
static json_t *
text_json(const char *text)
{
    json_t *json = json_string(text);

    for (size_t n = strlen(text); !json && n; n--) {
        json = json_stringn(text, n);
    }
    return json;
}

void
rest_put_fault(struct rest_request *q, const struct rest_fault *f)
{
    json_t *json = json_pack("{s:s}", "error", f->error);
    json_t *errors = json_object_get(q->txn.report, "errors");
    const char *const names[] = {"object", "field", "message"};
    const char *const values[] = {f->object, f->field, f->message};

    for (int i = 0; i < 3; i++) {
        if (*values[i]) {
            json_object_set_new(json, names[i], text_json(values[i]));
        }
    }
    if (json_array_size(errors) > 1) {
        json_object_set(json, "errors", errors);
    }
    json_decref(q->txn.report);
    q->txn.report = NULL;
    rest_put_answer(q, f->status, json);
}

void
rest_answer(struct rest_request *q, int status, json_t *json)
{
    rest_put_answer(q, status, json);
    http_resume(&q->http);
}

void
rest_refuse(struct rest_request *q, const struct rest_fault *f)
{
    if (f->status == 403 || q->route->change) {
        rest_audit_request(rest_of(q), q, f, 0);
    }
    rest_put_fault(q, f);
    http_resume(&q->http);
}

void
rest_audit_request(struct rest *r, const struct rest_request *q, const struct rest_fault *fault,
                   int64_t generation)
{
    char message[sizeof fault->object + sizeof fault->field + sizeof fault->message + 8] = "";
    struct rest_audit_line line = {
        .user = q->user.name,
        .session = q->user.session,
        .role = pool_role_name(q->user.role),
        .tenant = q->user.tenant,
        .address = q->user.address,
        .method = q->route ? q->route->method : NULL,
        .path = q->http.path,
        .status = fault ? fault->status : q->http.status,
        .message = message,
        .generation = generation,
    };

    if (fault) {
        snprintf(message, sizeof message, "%s%s%s%s%s", fault->object, *fault->object ? ": " : "",
                 fault->field, *fault->field ? ": " : "", fault->message);
    }
    if (!rest_audit_write(r->audit, &line)) {
        rest_logf(r, REST_LOG_ERROR,
                  "the audit log cannot be written: changes are refused until it can");
    }
}

void
rest_note(struct rest *r, const char *what, int status, int64_t generation)
{
    struct rest_audit_line line = {.user = "weft-controllerd",
                                   .address = "self",
                                   .status = status,
                                   .message = what,
                                   .generation = generation};

    rest_audit_write(r->audit, &line);
}

/* --- from the listeners' threads -------------------------------------------------- */

static void
role_from_ou(const char *ou, struct rest_user *u)
{
    u->role = pool_role_from_name(ou);
    if (u->role == POOL_ROLE_TENANT) { /* of which? */
        u->role = POOL_ROLE_NONE;
    }
    if (!strncmp(ou, "tenant:", 7) && ou[7]) {
        u->role = POOL_ROLE_TENANT;
        snprintf(u->tenant, sizeof u->tenant, "%s", ou + 7);
    }
}

void
rest_identify(struct rest *r, const char *cn, const char *ou, struct rest_user *u)
{
    json_t *user;

    snprintf(u->name, sizeof u->name, "%s", cn);
    u->tenant[0] = '\0';
    pthread_mutex_lock(&r->mutex);
    user = json_object_get(r->users, cn);
    if (user) {
        const char *role = json_string_value(json_object_get(user, "role"));
        const char *tenant = json_string_value(json_object_get(user, "tenant"));
        u->role = json_is_false(json_object_get(user, "enabled")) || !role
                      ? POOL_ROLE_NONE
                      : pool_role_from_name(role);
        if (u->role == POOL_ROLE_TENANT) {
            snprintf(u->tenant, sizeof u->tenant, "%s", tenant ? tenant : "");
            u->role = *u->tenant ? POOL_ROLE_TENANT : POOL_ROLE_NONE;
        }
    } else {
        role_from_ou(ou, u);
    }
    pthread_mutex_unlock(&r->mutex);
}

/* --- the main loop ------------------------------------------------------------------ */

/* The listeners' copy of class user. */
static void
refresh_users(struct rest *r)
{
    int64_t generation = r->config.ops->generation(r->config.aux);
    json_t *list, *users, *user, *old;
    size_t i;

    if (generation == r->users_generation) {
        return;
    }
    list = r->config.ops->list(r->config.aux, pool_class_by_noun("user"));
    users = json_object();
    json_array_foreach(list, i, user)
    {
        json_object_set(users, json_string_value(json_object_get(user, "name")), user);
    }
    json_decref(list);
    pthread_mutex_lock(&r->mutex);
    old = r->users;
    r->users = users;
    pthread_mutex_unlock(&r->mutex);
    json_decref(old);
    r->users_generation = generation;
}

static struct rest_request *
request_of(struct rest_txn *txn)
{
    return (struct rest_request *)((char *)txn - offsetof(struct rest_request, txn));
}

static void
drop_edits(struct rest_request *q)
{
    json_decref(q->edits);
    json_decref(q->checked);
    q->edits = q->checked = NULL;
}

static void
write_done(struct rest_txn *txn, const struct rest_fault *fault, int64_t generation)
{
    struct rest_request *q = request_of(txn);
    struct rest *r = rest_of(q);

    take(&r->writes, q);
    r->writing = false;
    drop_edits(q);
    if (fault) {
        rest_refuse(q, fault);
        return;
    }
    json_t *report = txn->report ? txn->report : json_object();
    txn->report = NULL;
    if (txn->kind == REST_CHECK) {
        rest_answer(q, 200, report);
        return;
    }
    /* Who was told that a user is shut out finds it so. */
    refresh_users(r);
    json_object_del(report, "errors");
    json_object_set_new(report, "generation", json_integer(generation));
    q->http.status = !strcmp(q->route->method, "POST") && q->class ? 201 : 200;
    rest_audit_request(r, q, NULL, generation);
    rest_answer(q, q->http.status, report);
}

/* Who might not make the commit as he is now neither confirms it nor takes it back, whoever
 * has made it. */
static bool
may_decide(struct rest *r, const struct rest_request *q, struct rest_fault *fault)
{
    json_t *before = r->config.ops->pending_document(r->config.aux);
    bool ok = rest_commit_check(r, &q->user, before, fault);

    json_decref(before);
    if (!ok) {
        snprintf(fault->message, sizeof fault->message,
                 "the commit changed them, which role %s may not", pool_role_name(q->user.role));
    }
    return ok;
}

/* What the check makes of the edits is for what stands now. */
static bool
may_edit(struct rest *r, struct rest_request *q, struct rest_fault *fault)
{
    json_decref(q->checked);
    q->checked = json_deep_copy(q->edits);
    q->txn.body = q->checked;
    return rest_edits_check(r, &q->user, q->checked, fault);
}

/* Decided when its turn has come, by what stands and who asks then. */
static bool
decide(struct rest_txn *txn, struct rest_fault *fault)
{
    struct rest_request *q = request_of(txn);
    struct rest *r = rest_of(q);
    bool pending = r->config.ops->pending(r->config.aux);

    refresh_users(r);
    if (!rest_still_may(q, fault)) {
        return false;
    }
    if (q->txn.kind != REST_CHECK && !rest_audit_good(r->audit)) {
        rest_fault_set(fault, 503, "unavailable", NULL, NULL,
                       "the audit log cannot be written, so nothing is changed");
        return false;
    }
    switch (q->txn.kind) {
    case REST_CHECK:
        return true;
    case REST_EDIT:
    case REST_IMPORT:
        if (pending) {
            rest_fault_set(fault, 409, "conflict", "pool", "pending_deadline",
                           "a commit waits for its confirmation: confirm it or roll it back first");
            return false;
        }
        return q->txn.kind == REST_EDIT ? may_edit(r, q, fault)
                                        : rest_document_check(r, &q->user, q->txn.body, fault);
    case REST_CONFIRM:
    case REST_ROLLBACK:
        if (!pending) {
            rest_fault_set(fault, 409, "conflict", "pool", "pending_deadline",
                           "no commit waits for a confirmation");
        }
        return pending && may_decide(r, q, fault);
    }
    return false;
}

static void
start_write(struct rest *r)
{
    while (!r->writing && r->writes.first) {
        r->writing = true;
        r->config.ops->submit(r->config.aux, &r->writes.first->txn);
    }
}

void
rest_write(struct rest *r, struct rest_request *q)
{
    q->txn.decide = decide;
    q->txn.done = write_done;
    q->txn.author = q->user.name;
    push(&r->writes, q);
}

void
rest_wait_for(struct rest *r, struct rest_request *q)
{
    push(&r->waiting, q);
}

/* Long polls whose time has come, one way or the other. */
static void
look_at_waiting(struct rest *r)
{
    int64_t now = http_now_ms();
    struct rest_request *next;
    struct rest_fault fault;

    for (struct rest_request *q = r->waiting.first; q; q = next) {
        int64_t generation = q->args[REST_ARG_GENERATION];
        bool applied = r->config.ops->applied(r->config.aux, generation, NULL);

        next = q->next;
        if (!applied && now < q->until_ms) {
            continue;
        }
        take(&r->waiting, q);
        if (!rest_still_may(q, &fault)) {
            rest_refuse(q, &fault);
            continue;
        }
        json_t *late = json_array(), *absent = json_array();
        if (!applied) {
            r->config.ops->applied(r->config.aux, generation, late);
        }
        r->config.ops->absent(r->config.aux, absent);
        if (q->user.role == POOL_ROLE_TENANT) {
            json_array_clear(late); /* hosts are none of its business */
            json_array_clear(absent);
        }
        rest_answer(q, 200,
                    json_pack("{s:b, s:I, s:o, s:o}", "applied", applied, "generation",
                              (json_int_t)generation, "waiting_for", late, "not_connected",
                              absent));
    }
}

static bool
is_known(struct rest *r)
{
    return !r->config.ops->ready || r->config.ops->ready(r->config.aux);
}

/* Until the body had come, and what stands was known, he may have become another. */
static void
run_request(struct rest *r, struct rest_request *q)
{
    struct rest_fault fault;

    if (!q->route->early && !is_known(r)) {
        rest_fault_unknown(&fault);
        rest_refuse(q, &fault);
    } else if (rest_still_may(q, &fault)) {
        q->route->run(r, q);
    } else {
        rest_refuse(q, &fault);
    }
}

void
rest_run(struct rest *r)
{
    struct http_request *q, *next;
    bool known;

    http_run(r->http);
    known = is_known(r); /* before: by then they are */
    refresh_users(r);
    atomic_store(&r->known, known);
    for (q = http_take(r->http); q; q = next) {
        struct rest_request *request = (struct rest_request *)q;
        next = q->next;
        run_request(r, request);
    }
    start_write(r);
    look_at_waiting(r);
}

int
rest_fd(const struct rest *r)
{
    return http_fd(r->http);
}

int
rest_timeout_ms(const struct rest *r)
{
    int64_t left, until = http_until_ms(r->http);

    for (const struct rest_request *q = r->waiting.first; q; q = q->next) {
        until = q->until_ms < until ? q->until_ms : until;
    }
    left = until - http_now_ms();
    return left < 0 ? 0 : (int)left;
}

/* --- life ------------------------------------------------------------------------------ */

int
rest_create(const struct rest_config *config, struct rest **rp, char *why, size_t why_size)
{
    struct rest *r = calloc(1, sizeof *r);
    int error;

    *rp = NULL;
    if (!r) {
        snprintf(why, why_size, "out of memory");
        return ENOMEM;
    }
    r->config = *config;
    r->users_generation = -1;
    pthread_mutex_init(&r->mutex, NULL);
    error = rest_audit_open(config->audit, &r->audit, why, why_size);
    if (!error && !(r->sessions = rest_sessions_create())) {
        error = ENOMEM;
        snprintf(why, why_size, "out of memory");
    }
    refresh_users(r);
    error = error ? error : rest_listen(r, why, why_size);
    if (error) {
        rest_destroy(r);
        return error;
    }
    *rp = r;
    return 0;
}

static void
turn_away(struct rest_list *l)
{
    struct rest_fault fault;
    struct rest_request *q;

    rest_fault_set(&fault, 503, "unavailable", NULL, NULL, "the controller is going down");
    while ((q = l->first)) {
        take(l, q);
        drop_edits(q);
        rest_put_fault(q, &fault);
        http_resume(&q->http);
    }
}

void
rest_destroy(struct rest *r)
{
    if (!r) {
        return;
    }
    turn_away(&r->waiting);
    turn_away(&r->writes);
    http_destroy(r->http);
    rest_audit_close(r->audit);
    rest_sessions_destroy(r->sessions);
    json_decref(r->users);
    pthread_mutex_destroy(&r->mutex);
    free(r);
}
