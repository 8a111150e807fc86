#include <config.h>

#include "ovs/vm_claim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "jsonrpc.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/json.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "socket-util.h"
#include "stream-ssl.h"
#include "stream.h"
#include "svec.h"
#include "timeval.h"
#include "util.h"
#include "uuid.h"

enum {
    TRY_MS = 2000, /* one server's time to answer; a member without a majority never does */
    COPY_POLL_MS = 2,
    COPY_POLL_MAX_MS = 50,
    PAUSE_MS = 100, /* between two rounds of all servers */
};

/* What the row Pool says about the database itself. */
struct pool_state {
    int64_t fence;
    bool closed, exists;
    char *copy; /* "": none */
};

struct vm_claim {
    struct svec remotes;
    size_t current; /* the one that `rpc` is a connection of */
    struct jsonrpc *rpc;
    struct pool_state pool; /* as `rpc` showed it; copy is NULL: not yet */
    int64_t fence;          /* the greatest seen anywhere */
    char *copy_remote;      /* of `copy` */
    struct jsonrpc *copy;
};

int
vm_claim_open(const char *remotes, const struct vm_claim_tls *tls, struct vm_claim **out)
{
    struct vm_claim *c = xzalloc(sizeof *c);
    char *copy, *save = NULL, *r;

    *out = NULL;
    svec_init(&c->remotes);
    copy = xstrdup(remotes);
    for (r = strtok_r(copy, ", ", &save); r; r = strtok_r(NULL, ", ", &save)) {
        svec_add(&c->remotes, r);
    }
    free(copy);
    if (!c->remotes.n) {
        vm_claim_close(c);
        return EINVAL;
    }
    if (tls && tls->private_key && tls->certificate && tls->ca_cert) {
        stream_ssl_set_key_and_cert(tls->private_key, tls->certificate);
        stream_ssl_set_ca_cert_file(tls->ca_cert, false);
    }
    *out = c;
    return 0;
}

static void
drop_primary(struct vm_claim *c)
{
    jsonrpc_close(c->rpc);
    c->rpc = NULL;
    free(c->pool.copy);
    c->pool.copy = NULL;
}

static void
drop_copy(struct vm_claim *c)
{
    jsonrpc_close(c->copy);
    c->copy = NULL;
    free(c->copy_remote);
    c->copy_remote = NULL;
}

void
vm_claim_close(struct vm_claim *c)
{
    if (c) {
        drop_primary(c);
        drop_copy(c);
        svec_destroy(&c->remotes);
        free(c);
    }
}

/* --- one connection --------------------------------------------------------- */

static int
dial(const char *remote, long long int deadline, struct jsonrpc **out)
{
    long long int left = deadline - time_msec();
    struct stream *stream;
    int error;

    error = stream_open_block(jsonrpc_stream_open(remote, &stream, DSCP_DEFAULT), MAX(left, 1),
                              &stream);
    if (!error) {
        *out = jsonrpc_open(stream);
    }
    return error;
}

/* Handles what is there; true if `*reply` is what `id` waits for. */
static bool
receive_reply(struct jsonrpc *rpc, const struct json *id, struct jsonrpc_msg **reply, int *error)
{
    struct jsonrpc_msg *msg;

    while (!(*error = jsonrpc_recv(rpc, &msg))) {
        if ((msg->type == JSONRPC_REPLY || msg->type == JSONRPC_ERROR) && json_equal(msg->id, id)) {
            *reply = msg;
            return true;
        }
        if (msg->type == JSONRPC_REQUEST && !strcmp(msg->method, "echo")) {
            jsonrpc_send(rpc, jsonrpc_create_reply(json_clone(msg->params), msg->id));
        }
        jsonrpc_msg_destroy(msg);
    }
    return false;
}

/* Runs a transaction; consumes `params`.  *results is an array then. */
static int
transact(struct jsonrpc *rpc, struct json *params, long long int deadline, struct json **results)
{
    struct jsonrpc_msg *reply = NULL;
    struct json *id;
    int error;

    error = jsonrpc_send(rpc, jsonrpc_create_request("transact", params, &id));
    while (!error) {
        jsonrpc_run(rpc);
        if (receive_reply(rpc, id, &reply, &error)) {
            break;
        }
        if (error != EAGAIN) {
            break;
        }
        error = 0;
        if (time_msec() >= deadline) {
            error = ETIMEDOUT;
            break;
        }
        jsonrpc_wait(rpc);
        jsonrpc_recv_wait(rpc);
        poll_timer_wait_until(deadline);
        poll_block();
    }
    json_destroy(id);
    if (!error) {
        if (reply->type == JSONRPC_REPLY && reply->result->type == JSON_ARRAY) {
            *results = json_clone(reply->result);
        } else {
            error = EPROTO;
        }
        jsonrpc_msg_destroy(reply);
    }
    return error;
}

/* --- operations --------------------------------------------------------------- */

static struct json *
op_new(const char *op, const char *table)
{
    struct json *j = json_object_create();

    json_object_put_string(j, "op", op);
    if (table) {
        json_object_put_string(j, "table", table);
    }
    return j;
}

static struct json *
columns_new(const char *const names[])
{
    struct json *j = json_array_create_empty();

    for (size_t i = 0; names[i]; i++) {
        json_array_add(j, json_string_create(names[i]));
    }
    return j;
}

static struct json *
where_uuid(const char *vm)
{
    struct json *uuid = json_array_create_2(json_string_create("uuid"), json_string_create(vm));

    return json_array_create_1(
        json_array_create_3(json_string_create("_uuid"), json_string_create("=="), uuid));
}

static struct json *
vm_row(const char *host, uint64_t epoch)
{
    struct json *row = json_object_create();

    json_object_put_string(row, "resident_on", host);
    json_object_put(row, "epoch", json_integer_create(epoch));
    return row;
}

static const char *const vm_columns[] = {"resident_on", "epoch", NULL};
static const char *const pool_columns[] = {"fence", "closed", "copy", NULL};

/* Holds only if the table has exactly this row where `where` says. */
static struct json *
op_wait(const char *table, struct json *where, const char *const columns[], struct json *row)
{
    struct json *j = op_new("wait", table);

    json_object_put(j, "timeout", json_integer_create(0));
    json_object_put(j, "where", where);
    json_object_put(j, "columns", columns_new(columns));
    json_object_put_string(j, "until", "==");
    json_object_put(j, "rows", row ? json_array_create_1(row) : json_array_create_empty());
    return j;
}

static struct json *
op_wait_pool(const struct pool_state *p)
{
    struct json *row = NULL;

    if (p->exists) {
        row = json_object_create();
        json_object_put(row, "fence", json_integer_create(p->fence));
        json_object_put(row, "closed", json_boolean_create(p->closed));
        json_object_put_string(row, "copy", p->copy);
    }
    return op_wait("Pool", json_array_create_empty(), pool_columns, row);
}

static struct json *
op_select(const char *table, struct json *where, const char *const columns[])
{
    struct json *j = op_new("select", table);

    json_object_put(j, "where", where);
    json_object_put(j, "columns", columns_new(columns));
    return j;
}

static struct json *
params_new(void)
{
    return json_array_create_1(json_string_create("Weft_Pool"));
}

/* The error of result `i`, "" if it has none, NULL if there is no such result. */
static const char *
result_error(const struct json *results, size_t i)
{
    const struct json *r = i < results->array.n ? results->array.elems[i] : NULL;
    const struct json *e;

    if (!r || r->type == JSON_NULL) {
        return NULL;
    }
    if (r->type != JSON_OBJECT) {
        return "";
    }
    e = shash_find_data(r->object, "error");
    return !e ? "" : e->type == JSON_STRING ? e->string : "?";
}

/* The only row that a select has found: 0, ENOENT, EPROTO. */
static int
result_row(const struct json *results, size_t i, const struct shash **row)
{
    const char *error = result_error(results, i);
    const struct json *rows;

    if (!error || *error || results->array.elems[i]->type != JSON_OBJECT) {
        return EPROTO;
    }
    rows = shash_find_data(results->array.elems[i]->object, "rows");
    if (!rows || rows->type != JSON_ARRAY) {
        return EPROTO;
    }
    if (!rows->array.n) {
        return ENOENT;
    }
    if (rows->array.elems[0]->type != JSON_OBJECT) {
        return EPROTO;
    }
    *row = rows->array.elems[0]->object;
    return 0;
}

static const struct json *
cell(const struct shash *row, const char *column, enum json_type type)
{
    const struct json *j = shash_find_data(row, column);

    return j && j->type == type ? j : NULL;
}

static int
parse_vm(const struct json *results, size_t i, char host[VM_CLAIM_HOST], uint64_t *epoch)
{
    const struct json *jhost, *jepoch;
    const struct shash *row;
    int error = result_row(results, i, &row);

    if (error) {
        return error;
    }
    jhost = cell(row, "resident_on", JSON_STRING);
    jepoch = cell(row, "epoch", JSON_INTEGER);
    if (!jhost || !jepoch || jepoch->integer < 0 || strlen(jhost->string) >= VM_CLAIM_HOST) {
        return EPROTO;
    }
    ovs_strlcpy(host, jhost->string, VM_CLAIM_HOST);
    *epoch = jepoch->integer;
    return 0;
}

static int
parse_pool(const struct json *results, size_t i, struct pool_state *p)
{
    const struct json *fence, *copy;
    const struct shash *row;
    int error = result_row(results, i, &row);

    *p = (struct pool_state){0};
    if (error == ENOENT) {
        p->copy = xstrdup("");
        return 0;
    }
    if (error) {
        return error;
    }
    fence = cell(row, "fence", JSON_INTEGER);
    copy = cell(row, "copy", JSON_STRING);
    if (!fence || !copy) {
        return EPROTO;
    }
    p->exists = true;
    p->fence = fence->integer;
    p->closed = cell(row, "closed", JSON_TRUE);
    p->copy = xstrdup(copy->string);
    return 0;
}

/* --- which server may be believed ----------------------------------------------- */

/* Whoever has seen a number believes no database with a smaller one, nor a closed
 * one, nor, having seen any, one without the row. */
static bool
believed(struct vm_claim *c, const struct pool_state *p)
{
    if (p->closed || p->fence < c->fence) {
        return false;
    }
    c->fence = p->fence;
    return true;
}

static long long int
sooner(long long int deadline)
{
    return MIN(deadline, time_msec() + TRY_MS);
}

/* The copy has the VM's row with this epoch or a later one, and still follows.
 * EAGAIN: not yet. */
static int
copy_has(struct vm_claim *c, const char *vm, uint64_t epoch, long long int deadline)
{
    struct json *params, *results;
    struct pool_state p = {0};
    char host[VM_CLAIM_HOST];
    uint64_t have = 0;
    int error;

    if (!c->copy_remote || strcmp(c->copy_remote, c->pool.copy)) {
        drop_copy(c);
        c->copy_remote = xstrdup(c->pool.copy);
    }
    if (!c->copy && (error = dial(c->copy_remote, sooner(deadline), &c->copy))) {
        return error;
    }
    params = params_new();
    json_array_add(params, op_select("Pool", json_array_create_empty(), pool_columns));
    json_array_add(params, op_select("VM", where_uuid(vm), vm_columns));
    error = transact(c->copy, params, sooner(deadline), &results);
    if (error) {
        drop_copy(c);
        return error;
    }
    error = parse_pool(results, 0, &p);
    if (!error) {
        c->fence = MAX(c->fence, p.fence);
        error = p.fence != c->pool.fence || p.closed ? ESTALE : parse_vm(results, 1, host, &have);
    }
    if (!error || error == ENOENT) {
        error = have >= epoch ? 0 : EAGAIN;
    }
    free(p.copy);
    json_destroy(results);
    return error;
}

/* Waits until the copy, if there is one, has it. */
static int
confirm(struct vm_claim *c, const char *vm, uint64_t epoch, long long int deadline)
{
    int pause = COPY_POLL_MS, error;

    if (!*c->pool.copy) {
        return 0;
    }
    while ((error = copy_has(c, vm, epoch, deadline)) == EAGAIN && time_msec() < deadline) {
        poll_timer_wait(pause);
        poll_block();
        pause = MIN(2 * pause, COPY_POLL_MAX_MS);
    }
    return error ? ETIMEDOUT : 0;
}

/* A connection to a server that may be believed: the one that there is, or the
 * next. */
static int
connect_primary(struct vm_claim *c, long long int deadline)
{
    struct json *params, *results;
    int error;

    if (c->rpc && c->pool.copy) {
        return 0;
    }
    drop_primary(c);
    error = dial(c->remotes.names[c->current], sooner(deadline), &c->rpc);
    if (error) {
        return error;
    }
    params = params_new();
    json_array_add(params, op_select("Pool", json_array_create_empty(), pool_columns));
    error = transact(c->rpc, params, sooner(deadline), &results);
    if (!error) {
        error = parse_pool(results, 0, &c->pool);
        json_destroy(results);
    }
    if (!error && !believed(c, &c->pool)) {
        error = EPERM;
    }
    return error;
}

/* The next server, after a rest once all have been tried. */
static void
next_server(struct vm_claim *c, long long int deadline)
{
    drop_primary(c);
    c->current = (c->current + 1) % c->remotes.n;
    if (!c->current && time_msec() < deadline) {
        poll_timer_wait_until(MIN(deadline, time_msec() + PAUSE_MS));
        poll_block();
    }
}

/* --- the two questions ------------------------------------------------------------ */

/* EAGAIN: ask the next server. */
static int
read_once(struct vm_claim *c, const char *vm, char host[VM_CLAIM_HOST], uint64_t *epoch,
          long long int deadline)
{
    struct pool_state now = {0};
    struct json *params, *results;
    int error;

    if (connect_primary(c, deadline)) {
        return EAGAIN;
    }
    params = params_new();
    json_array_add(params, op_select("VM", where_uuid(vm), vm_columns));
    json_array_add(params, op_select("Pool", json_array_create_empty(), pool_columns));
    if (transact(c->rpc, params, sooner(deadline), &results)) {
        return EAGAIN;
    }
    error = parse_pool(results, 1, &now);
    if (!error) {
        free(c->pool.copy);
        c->pool = now;
        error = believed(c, &c->pool) ? parse_vm(results, 0, host, epoch) : EPERM;
    }
    json_destroy(results);
    if (!error) {
        error = confirm(c, vm, *epoch, deadline);
    }
    return !error || error == ENOENT ? error : EAGAIN;
}

int
vm_claim_read(struct vm_claim *c, const char *vm, char host[VM_CLAIM_HOST], uint64_t *epoch,
              int timeout_ms)
{
    long long int deadline = time_msec() + timeout_ms;
    int error;

    while ((error = read_once(c, vm, host, epoch, deadline)) == EAGAIN) {
        next_server(c, deadline);
        if (time_msec() >= deadline) {
            return ETIMEDOUT;
        }
    }
    return error;
}

/* 0; ESTALE; EAGAIN: nothing was done or it is unknown, ask the next server. */
static int
swap_once(struct vm_claim *c, const char *vm, const char *from, uint64_t epoch, const char *to,
          uint64_t epoch2, long long int deadline)
{
    struct json *params, *results, *row_json, *j;
    const char *pool, *row, *update, *commit;
    int error = EAGAIN;

    if (connect_primary(c, deadline)) {
        return EAGAIN;
    }
    params = params_new();
    json_array_add(params, op_wait_pool(&c->pool));
    json_array_add(params, op_wait("VM", where_uuid(vm), vm_columns, vm_row(from, epoch)));
    j = op_new("update", "VM");
    json_object_put(j, "where", where_uuid(vm));
    row_json = vm_row(to, epoch2);
    /* Who gives it away has no say about it any more (docs/pool-db.md, roles). */
    json_object_put_string(row_json, "destination", "");
    json_object_put_string(row_json, "migration", "");
    json_object_put(j, "row", row_json);
    json_array_add(params, j);
    j = op_new("commit", NULL);
    json_object_put(j, "durable", json_boolean_create(true));
    json_array_add(params, j);

    if (transact(c->rpc, params, sooner(deadline), &results)) {
        return EAGAIN;
    }
    pool = result_error(results, 0);
    row = result_error(results, 1);
    update = result_error(results, 2);
    commit = result_error(results, 3);
    /* One result more than operations: the transaction as a whole has failed. */
    if (pool && !*pool && row && !*row && update && !*update && commit && !*commit &&
        !result_error(results, 4)) {
        error = confirm(c, vm, epoch2, deadline) ? EAGAIN : 0;
    } else if (pool && !*pool && row && !strcmp(row, "timed out")) {
        error = ESTALE;
    }
    json_destroy(results);
    return error;
}

int
vm_claim_swap(struct vm_claim *c, const char *vm, const char *from, uint64_t epoch, const char *to,
              uint64_t epoch2, int timeout_ms)
{
    long long int deadline = time_msec() + timeout_ms;
    int error;

    if (epoch2 <= epoch || epoch2 > INT64_MAX || strlen(to) >= VM_CLAIM_HOST) {
        return EINVAL;
    }
    while ((error = swap_once(c, vm, from, epoch, to, epoch2, deadline)) == EAGAIN) {
        next_server(c, deadline);
        if (time_msec() >= deadline) {
            return ETIMEDOUT;
        }
    }
    return error;
}
