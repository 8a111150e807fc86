/* From a request to its method, by the table.
 *
 * In xapi's order: is there such a method, has it the right number of parameters,
 * are we the coordinator, is there such a session, may its user do that, are
 * the parameters of the right types and do their references lead somewhere. */
#include <config.h>

#include "dispatch.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "audit.h"
#include "openvswitch/json.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl-provider.h"
#include "timeval.h"
#include "util.h"
#include "xapi.h"

VLOG_DEFINE_THIS_MODULE(dispatch);

/* --- answers ------------------------------------------------------------------------- */

static void
finish(struct request *q, char *text)
{
    ovs_list_remove(&q->node);
    if (q->event) {
        event_forget(q);
    }
    http_answer(q->http, 200, text);
    free(q);
}

void
request_answer(struct request *q, struct json *value)
{
    audit_request(q, NULL);
    finish(q, call_success(q->call, value));
}

void
request_refuse(struct request *q, const struct fault *f)
{
    audit_request(q, f);
    finish(q, call_failure(q->call, f));
}

void
request_fail_with(struct request *q, const char *code, const char *const *params)
{
    struct fault f;

    fault_fill(&f, code, params);
    request_refuse(q, &f);
}

/* --- writing ---------------------------------------------------------------------------- */

struct commit {
    struct request *request;
    struct json *value;
};

static void
committed(enum store_result result, const char *why, void *commit_)
{
    struct commit *c = commit_;

    if (result == STORE_DONE) {
        request_answer(c->request, c->value);
        c->value = NULL;
    } else if (result == STORE_CONFLICT) {
        request_fail(c->request, "OTHER_OPERATION_IN_PROGRESS", c->request->class->name,
                     c->request->n_args && c->request->args[0].s ? c->request->args[0].s : REF_NULL,
                     NULL);
    } else {
        request_fail(c->request, "INTERNAL_ERROR", why, NULL);
    }
    json_destroy(c->value);
    free(c);
}

struct ovsdb_idl_txn *
request_begin(struct request *q)
{
    struct ovsdb_idl_txn *txn = store_begin(q->xapi->store);

    if (!txn) {
        request_fail(q, "INTERNAL_ERROR", "the pool's database cannot be written now", NULL);
    }
    return txn;
}

void
request_commit(struct request *q, struct ovsdb_idl_txn *txn, struct json *value)
{
    struct commit *c = xmalloc(sizeof *c);

    *c = (struct commit){q, value};
    store_commit(q->xapi->store, txn, committed, c);
}

/* --- what every class has --------------------------------------------------------------- */

#define FOR_EACH_ROW(ROW, X, CLASS)                                                                \
    for ((ROW) = ovsdb_idl_first_row(store_idl((X)->store), (CLASS)->table); (ROW);                \
         (ROW) = ovsdb_idl_next_row(ROW))

const struct field *
class_field(const struct class *c, const char *name)
{
    for (size_t i = 0; i < c->n_fields; i++) {
        if (!strcmp(c->fields[i].name, name)) {
            return &c->fields[i];
        }
    }
    return NULL;
}

const struct ovsdb_idl_row *
class_find(struct xapi *x, const struct class *c, const char *ref)
{
    struct uuid uuid;

    return !strncmp(ref, REF_PREFIX, strlen(REF_PREFIX)) &&
                   uuid_from_string(&uuid, ref + strlen(REF_PREFIX))
               ? ovsdb_idl_get_row_for_uuid(store_idl(x->store), c->table, &uuid)
               : NULL;
}

static struct json *
field_value(struct xapi *x, const struct field *f, const struct ovsdb_idl_row *row)
{
    return f->get      ? f->get(x, row)
           : f->column ? value_of(row, f->column, f->type)
                       : value_literal(f->literal);
}

struct json *
class_record(struct xapi *x, const struct class *c, const struct ovsdb_idl_row *row)
{
    struct json *record = json_object_create();

    for (size_t i = 0; i < c->n_fields; i++) {
        json_object_put(record, c->fields[i].name, field_value(x, &c->fields[i], row));
    }
    return record;
}

static void
get_all(struct request *q)
{
    struct json *set = json_array_create_empty();
    const struct ovsdb_idl_row *row;

    FOR_EACH_ROW(row, q->xapi, q->class)
    {
        json_array_add(set, value_ref(&row->uuid));
    }
    request_answer(q, set);
}

static void
get_all_records(struct request *q)
{
    struct json *map = json_object_create();
    const struct ovsdb_idl_row *row;
    char ref[REF_SIZE];

    FOR_EACH_ROW(row, q->xapi, q->class)
    {
        snprintf(ref, sizeof ref, REF_PREFIX UUID_FMT, UUID_ARGS(&row->uuid));
        json_object_put(map, ref, class_record(q->xapi, q->class, row));
    }
    request_answer(q, map);
}

static void
get_record(struct request *q)
{
    request_answer(q, class_record(q->xapi, q->class, q->args[0].row));
}

static void
get_by_uuid(struct request *q)
{
    struct uuid uuid;
    const struct ovsdb_idl_row *row =
        uuid_from_string(&uuid, q->args[0].s)
            ? ovsdb_idl_get_row_for_uuid(store_idl(q->xapi->store), q->class->table, &uuid)
            : NULL;

    if (row) {
        request_answer(q, value_ref(&row->uuid));
    } else {
        request_fail(q, "UUID_INVALID", q->class->name, q->args[0].s, NULL);
    }
}

static void
get_by_name_label(struct request *q)
{
    const struct field *name = class_field(q->class, "name_label");
    struct json *set = json_array_create_empty();
    const struct ovsdb_idl_row *row;

    FOR_EACH_ROW(row, q->xapi, q->class)
    {
        struct json *value = field_value(q->xapi, name, row);

        if (!strcmp(json_string(value), q->args[0].s)) {
            json_array_add(set, value_ref(&row->uuid));
        }
        json_destroy(value);
    }
    request_answer(q, set);
}

static void
get_field(struct request *q)
{
    request_answer(q, field_value(q->xapi, q->field, q->args[0].row));
}

static void
set_field(struct request *q)
{
    const struct json *value = q->args[1].j;
    struct ovsdb_idl_txn *txn;

    if (!value_fits(value, q->field->type)) {
        request_fail(q, "FIELD_TYPE_ERROR", q->field->name, NULL);
        return;
    }
    if (q->field->type == V_STRING && strlen(json_string(value)) > NAME_MAX_BYTES) {
        request_fail(q, "INVALID_VALUE", q->field->name, "is too long", NULL);
        return;
    }
    for (size_t i = 0; q->field->among; i++) {
        if (!q->field->among[i]) {
            request_fail(q, "VALUE_NOT_SUPPORTED", q->field->name, json_string(value),
                         "is none of the enumeration's", NULL);
            return;
        }
        if (!strcmp(q->field->among[i], json_string(value))) {
            break;
        }
    }
    txn = request_begin(q);
    if (txn) {
        value_write(q->args[0].row, q->field->column, value);
        request_commit(q, txn, json_string_create(""));
    }
}

static const struct method generic[] = {
    {"get_all", "", POOL_ROLE_VIEWER, false, get_all},
    {"get_all_records", "", POOL_ROLE_VIEWER, false, get_all_records},
    {"get_record", ".", POOL_ROLE_VIEWER, false, get_record},
    {"get_by_uuid", "s", POOL_ROLE_VIEWER, false, get_by_uuid},
    {"get_by_name_label", "s", POOL_ROLE_VIEWER, false, get_by_name_label},
};
static const struct method getter = {"get_*", ".", POOL_ROLE_VIEWER, false, get_field};
/* The least of any setter; the field's own is checked as well. */
static const struct method setter = {"set_*", ".j", POOL_ROLE_OPERATOR, false, set_field};

/* --- which method ------------------------------------------------------------------------- */

static const struct class *
find_class(const char *name, size_t n)
{
    for (size_t i = 0; i < n_classes; i++) {
        if (strlen(classes[i]->name) == n && !strncmp(classes[i]->name, name, n)) {
            return classes[i];
        }
    }
    return NULL;
}

static const struct method *
find_generic(const struct class *c, const char *name)
{
    for (size_t i = 0; c->table && i < ARRAY_SIZE(generic); i++) {
        if (!strcmp(generic[i].name, name)) {
            return generic[i].run == get_by_name_label && !class_field(c, "name_label")
                       ? NULL
                       : &generic[i];
        }
    }
    return NULL;
}

static const struct method *
find_accessor(struct request *q, const char *name)
{
    bool set = !strncmp(name, "set_", 4);

    if (!q->class->table || (!set && strncmp(name, "get_", 4) != 0)) {
        return NULL;
    }
    q->field = class_field(q->class, name + 4);
    return !q->field || (set && q->field->set == POOL_ROLE_NONE) ? NULL : set ? &setter : &getter;
}

static bool
find_method(struct request *q)
{
    const char *name = q->call->method, *dot;

    q->async = !strncmp(name, "Async.", 6);
    name += q->async ? 6 : 0;
    dot = strchr(name, '.');
    q->class = dot ? find_class(name, (size_t)(dot - name)) : NULL;
    if (!q->class) {
        return false;
    }
    for (size_t i = 0; i < q->class->n_methods; i++) {
        if (!strcmp(q->class->methods[i].name, dot + 1)) {
            q->method = &q->class->methods[i];
        }
    }
    q->method = q->method ? q->method : find_generic(q->class, dot + 1);
    q->method = q->method ? q->method : find_accessor(q, dot + 1);
    return q->method && (!q->async || q->method->async);
}

/* --- parameters --------------------------------------------------------------------------------
 */

static bool
takes_session(const struct request *q)
{
    return q->method->role != POOL_ROLE_NONE;
}

/* How many there may be, the session included. */
static void
count_params(const struct request *q, unsigned *least, unsigned *most)
{
    *least = *most = takes_session(q);
    for (const char *p = q->method->params; *p; p++) {
        if (*p != '/') {
            ++*most;
            *least += !strchr(q->method->params, '/') || p < strchr(q->method->params, '/');
        }
    }
}

static bool
count_ok(struct request *q)
{
    size_t n = json_array(q->call->params)->n;
    char expected[16], got[16];
    unsigned least, most;

    count_params(q, &least, &most);
    if (n >= least && n <= most) {
        return true;
    }
    snprintf(expected, sizeof expected, "%u", n < least ? least : most);
    snprintf(got, sizeof got, "%zu", n);
    request_fail(q, "MESSAGE_PARAMETER_COUNT_MISMATCH", q->call->method, expected, got, NULL);
    return false;
}

static const struct class *
class_of_letter(const struct request *q, char letter)
{
    if (letter == '.') {
        return q->class;
    }
    for (size_t i = 0; i < n_classes; i++) {
        if (classes[i]->letter == letter) {
            return classes[i];
        }
    }
    return NULL;
}

/* Integers come as numbers, or as XML-RPC has them. */
static bool
take_int(struct arg *a, const struct json *j)
{
    long long int i;

    if (j->type == JSON_STRING && str_to_llong(json_string(j), 10, &i)) {
        a->i = i;
        return true;
    }
    a->i = j->type == JSON_INTEGER ? json_integer(j) : 0;
    return j->type == JSON_INTEGER;
}

static bool
take_arg(struct arg *a, char letter, const struct json *j)
{
    a->given = true;
    a->j = j;
    switch (letter) {
    case 's':
        a->s = j->type == JSON_STRING ? json_string(j) : NULL;
        return a->s;
    case 'i':
        return take_int(a, j);
    case 'b':
        a->b = j->type == JSON_TRUE;
        return value_fits(j, V_BOOL);
    case 'f':
        return value_fits(j, V_FLOAT);
    case 'm':
        return value_fits(j, V_MAP);
    case 'l':
        return value_fits(j, V_SET);
    case 'o':
        return j->type == JSON_OBJECT;
    case 'j':
        return true;
    }
    a->s = j->type == JSON_STRING ? json_string(j) : NULL;
    return a->s;
}

static bool
take_args(struct request *q)
{
    const struct json_array *params = json_array(q->call->params);
    size_t next = takes_session(q);

    for (const char *p = q->method->params; *p && next < params->n; p++) {
        struct arg *a = &q->args[q->n_args];
        const struct class *class = class_of_letter(q, *p);

        if (*p == '/') {
            continue;
        }
        if (!take_arg(a, *p, params->elems[next++])) {
            char name[20];
            snprintf(name, sizeof name, "parameter %u", q->n_args + 1);
            request_fail(q, "FIELD_TYPE_ERROR", name, NULL);
            return false;
        }
        if (class && !(a->row = class_find(q->xapi, class, a->s))) {
            request_fail(q, "HANDLE_INVALID", class->name, a->s, NULL);
            return false;
        }
        q->n_args++;
    }
    return true;
}

/* --- who asks ------------------------------------------------------------------------------- */

static bool
at_coordinator(struct request *q)
{
    const char *address;

    if (!store_ready(q->xapi->store)) {
        request_fail(q, "HOST_STILL_BOOTING", NULL);
        return false;
    }
    if (coord_is(q->xapi)) {
        return true;
    }
    address = coord_address(q->xapi);
    if (*address) {
        request_fail(q, "HOST_IS_SLAVE", address, NULL);
    } else {
        request_fail(q, "HOST_STILL_BOOTING", NULL);
    }
    return false;
}

bool
request_permitted(struct request *q)
{
    const struct json *j = takes_session(q) ? json_array(q->call->params)->elems[0] : NULL;
    const char *ref = j && j->type == JSON_STRING ? json_string(j) : "";
    enum pool_role least = q->method->role;

    if (!takes_session(q)) {
        return true;
    }
    if (!session_use(q->xapi->sessions, ref, q->user, &q->role)) {
        request_fail(q, "SESSION_INVALID", ref, NULL);
        return false;
    }
    http_vouch(q->http);
    ovs_strlcpy(q->session, ref, sizeof q->session);
    if (!q->http->peer->local) { /* as it is by now */
        q->role = role_of_user(q->xapi, q->user, q->role);
    }
    if (q->role == POOL_ROLE_NONE || q->role == POOL_ROLE_TENANT) {
        session_end(q->xapi->sessions, ref);
        request_fail(q, "SESSION_INVALID", ref, NULL);
        return false;
    }
    if (q->method == &setter && q->field->set > least) {
        least = q->field->set;
    }
    if (q->role < least) {
        request_fail(q, "RBAC_PERMISSION_DENIED", q->call->method,
                     "the user's role does not include it", NULL);
        return false;
    }
    return true;
}

void
dispatch(struct xapi *x, struct http_request *http)
{
    struct request *q = xzalloc(sizeof *q);

    q->xapi = x;
    q->http = http;
    q->call = ((struct incoming *)http)->call;
    ovs_list_push_back(&x->waiting, &q->node);
    if (!find_method(q)) {
        request_fail(q, "MESSAGE_METHOD_UNKNOWN", q->call->method, NULL);
    } else if (count_ok(q) && at_coordinator(q) && request_permitted(q) && take_args(q)) {
        q->method->run(q);
    }
}

/* --- those that wait --------------------------------------------------------------------- */

void
dispatch_run(struct xapi *x)
{
    struct http_request *http, *next;
    struct request *q;

    LIST_FOR_EACH_SAFE (q, node, &x->waiting) {
        if (*q->task) {
            task_look(q);
        } else if (q->event) {
            event_look(q);
        }
    }
    for (http = http_take(x->http); http; http = next) {
        struct incoming *in = (struct incoming *)http;

        next = http->next;
        if (in->unchecked) {
            in->unchecked = false;
            password_submit(&in->login); /* it comes again */
        } else {
            dispatch(x, http);
        }
    }
}

void
dispatch_wait(struct xapi *x)
{
    struct request *q;

    LIST_FOR_EACH (q, node, &x->waiting) {
        if (q->event) {
            poll_timer_wait_until(event_until(q));
        }
    }
}

void
dispatch_end(struct xapi *x)
{
    struct request *q;

    LIST_FOR_EACH_SAFE (q, node, &x->waiting) {
        request_fail(q, "HOST_STILL_BOOTING", NULL);
    }
}

/* In the thread of the checks. */
static void
checked(struct password_check *c)
{
    http_again(&CONTAINER_OF(c, struct incoming, login)->http);
}

/* --- in the listeners' threads --------------------------------------------------------------- */

static const char *
text_param(const struct call *c, size_t i)
{
    const struct json_array *a = json_array(c->params);

    return i < a->n && a->elems[i]->type == JSON_STRING ? json_string(a->elems[i]) : NULL;
}

/* What is not even a request of ours. */
static bool
refuse(struct http_request *q, int status, const char *message)
{
    http_put(q, status,
             xasprintf("{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32600,\"message\":\"%s\"},"
                       "\"id\":null}",
                       message));
    return false;
}

/* An application's Content-Type keeps pages of other origins out: a browser asks
 * before it sends one, and nobody says yes. */
static bool
head(struct http_request *q, const char *method)
{
    const char *length = http_header(q, "Content-Length");
    const char *type = http_header(q, "Content-Type");

    if (strcmp(q->path, "/jsonrpc") != 0 && strcmp(q->path, "/json") != 0) {
        return refuse(q, 404, "there is only /jsonrpc (and /json)");
    }
    if (strcmp(method, "POST") != 0) {
        q->allow = "POST";
        return refuse(q, 405, "only POST");
    }
    if (length && strtoull(length, NULL, 10) > q->max_body) {
        return refuse(q, 413, "the body is too large");
    }
    if (!type || strncasecmp(type, "application/json", 16) != 0) {
        return refuse(q, 415, "the body's Content-Type must be application/json");
    }
    return true;
}

static bool
whole(struct http_request *q)
{
    struct incoming *in = (struct incoming *)q;
    char why[240];
    const struct call *call = in->call =
        call_decode(q->path, q->body ? q->body : "", q->n_body, why, sizeof why);

    if (!call) {
        http_put(q, 200, call_refusal(why));
        return false;
    }
    if (!strcmp(call->method, "session.login_with_password") && !q->peer->local &&
        text_param(call, 0) && text_param(call, 1) && *text_param(call, 1)) {
        in->login = (struct password_check){
            .user = text_param(call, 0), .password = text_param(call, 1), .done = checked};
        in->unchecked = password_may_check(q->peer->address, &in->login);
    }
    return true;
}

static void
turn_away(struct http_request *q)
{
    refuse(q, 503, "weft-xapid is going down");
}

static void
discard(struct http_request *q)
{
    call_destroy(((struct incoming *)q)->call);
}

void
dispatch_config(struct http_config *c)
{
    c->politely = true;
    c->peer_connections = 64;
    c->body_ms = 20000;
    c->keep_ms = 120000;
    c->max_body = 256 << 10;
    c->max_bodies = 16 << 20;
    c->request_size = sizeof(struct incoming);
    c->head = head;
    c->whole = whole;
    c->turn_away = turn_away;
    c->discard = discard;
}
