/* Theory of Operation
 * ===================
 *
 * A row is a host's own if one of the owner columns of its table has the host's name, as
 * the row is when the write comes to it.  For
 *
 *     {"op": "update", "table": "VM", "where": W, "row": ...}
 *
 * of the host h1, whatever W is, the server is told
 *
 *     {"op": "wait", "timeout": 0, "table": "VM", "columns": ["resident_on"],
 *      "where": W and resident_on != h1 and destination != h1, "until": "==", "rows": []}
 *
 * just before: "of the rows that W means here and now, none is not h1's", or the
 * transaction as a whole is given up.  One server judges both, in one transaction and
 * against the same rows, after what earlier operations have made of them; a cluster
 * commits it only if nothing has changed since.
 *
 * In front of the first that writes goes another, by which the transaction is given up
 * unless h1 is a row of Host: what was its own may outlive it.
 *
 * An insertion says itself whose the row will be.  What is not understood here does not
 * go on: what we read and what the server reads is one and the same text, written anew
 * from what we have parsed. */
#include <config.h>

#include "dbgate.h"

#include <stdlib.h>
#include <string.h>

#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "util.h"

/* Of one request. */
enum {
    MAX_OPERATIONS = 100,
    MAX_SELECTS = 8, /* each may be a whole table */
    MAX_CLAUSES = 16,
    MAX_ID = 64,
};

struct table_rule {
    const char *table;
    const char *owners[3];
    bool insert_delete;
    const char *columns[8]; /* of rows that are there */
};

static const struct table_rule rules[] = {
    {"Host", {"name"}, false, {"xapi_address", "xapi_seen", "migration_address"}},
    /* 'destination' of one that runs nowhere is who was told to start it. */
    {"VM",
     {"resident_on", "destination"},
     false,
     {"power_state", "resident_on", "epoch", "destination", "migration"}},
    {"Task", {"host"}, true, {"status", "progress", "result", "error_info", "finished"}},
    /* Others believe one only if a row of VM or Task names it. */
    {"Migration",
     {"from_host", "to_host"},
     true,
     {"phase", "address", "status", "stats", "finished"}},
};

/* --- other requests ------------------------------------------------------------------ */

bool
dbgate_is_id(const struct json *id)
{
    return id && (id->type == JSON_INTEGER ||
                  (id->type == JSON_STRING && strlen(json_string(id)) <= MAX_ID));
}

/* Clients' libraries have ["monid", DATABASE], ovsdb-client null. */
static bool
is_monitor_id(const struct json *id)
{
    if (id->type == JSON_ARRAY) {
        return id->array.n == 2 && dbgate_is_id(id->array.elems[0]) &&
               dbgate_is_id(id->array.elems[1]);
    }
    return id->type == JSON_NULL || dbgate_is_id(id);
}

static size_t
find_monitor(const struct dbgate_monitors *monitors, const struct json *id)
{
    size_t i = 0;

    while (i < monitors->n && !json_equal(monitors->ids[i], id)) {
        i++;
    }
    return i;
}

/* One that the server refuses counts too, until it is cancelled; asked for again, once. */
static bool
may_monitor(const struct json *params, size_t n, struct dbgate_monitors *monitors)
{
    struct json *const *p = params->array.elems;

    /* The server reads parameters of "monitor" without counting them. */
    if (params->array.n != n || p[0]->type != JSON_STRING || !is_monitor_id(p[1]) ||
        p[2]->type != JSON_OBJECT || (n > 3 && p[3]->type != JSON_STRING)) {
        return false;
    }
    if (find_monitor(monitors, p[1]) == monitors->n) {
        if (monitors->n == DBGATE_MAX_MONITORS) {
            return false;
        }
        monitors->ids[monitors->n++] = json_clone(p[1]);
    }
    return true;
}

/* Under another id we would not know it. */
static bool
may_change_monitor(const struct json *params)
{
    struct json *const *p = params->array.elems;

    return params->array.n == 3 && is_monitor_id(p[0]) && json_equal(p[0], p[1]) &&
           p[2]->type == JSON_OBJECT;
}

static bool
may_cancel_monitor(const struct json *params, struct dbgate_monitors *monitors)
{
    size_t i;

    if (params->array.n != 1) {
        return false;
    }
    i = find_monitor(monitors, params->array.elems[0]);
    if (i < monitors->n) {
        json_destroy(monitors->ids[i]);
        monitors->ids[i] = monitors->ids[--monitors->n];
    }
    return true;
}

void
dbgate_monitors_clear(struct dbgate_monitors *monitors)
{
    while (monitors->n) {
        json_destroy(monitors->ids[--monitors->n]);
    }
}

bool
dbgate_may_call(const char *method, const struct json *params, struct dbgate_monitors *monitors)
{
    /* No locks: they are all clients' and not for hosts to hold; no "convert". */
    static const char *const methods[] = {
        "echo", "list_dbs", "get_schema", "get_server_id", "set_db_change_aware",
    };

    if (!params || params->type != JSON_ARRAY) {
        return false;
    }
    if (!strcmp(method, "monitor") || !strcmp(method, "monitor_cond")) {
        return may_monitor(params, 3, monitors);
    }
    if (!strcmp(method, "monitor_cond_since")) {
        return may_monitor(params, 4, monitors);
    }
    if (!strcmp(method, "monitor_cond_change")) {
        return may_change_monitor(params);
    }
    if (!strcmp(method, "monitor_cancel")) {
        return may_cancel_monitor(params, monitors);
    }
    for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
        if (!strcmp(method, methods[i])) {
            return true;
        }
    }
    return false;
}

/* --- reading ----------------------------------------------------------------------- */

/* The member of that type, or NULL. */
static const struct json *
member(const struct json *object, const char *name, enum json_type type)
{
    const struct json *value = shash_find_data(object->object, name);

    return value && value->type == type ? value : NULL;
}

static const char *
member_string(const struct json *object, const char *name)
{
    const struct json *value = member(object, name, JSON_STRING);

    return value ? json_string(value) : "";
}

static const struct table_rule *
find_rule(const struct json *op)
{
    const char *table = member_string(op, "table");

    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        if (!strcmp(rules[i].table, table)) {
            return &rules[i];
        }
    }
    return NULL;
}

static bool
may_change(const struct table_rule *rule, const char *column)
{
    for (const char *const *c = rule->columns; *c; c++) {
        if (!strcmp(*c, column)) {
            return true;
        }
    }
    return false;
}

static bool
may_update(const struct table_rule *rule, const struct json *op)
{
    const struct json *row = member(op, "row", JSON_OBJECT);
    const struct shash_node *node;

    if (!row || shash_is_empty(row->object)) {
        return false;
    }
    SHASH_FOR_EACH (node, row->object) {
        if (!may_change(rule, node->name)) {
            return false;
        }
    }
    return true;
}

static bool
may_mutate(const struct table_rule *rule, const struct json *op)
{
    const struct json *mutations = member(op, "mutations", JSON_ARRAY);

    for (size_t i = 0; mutations && i < mutations->array.n; i++) {
        const struct json *m = mutations->array.elems[i];

        if (m->type != JSON_ARRAY || m->array.n != 3 || m->array.elems[0]->type != JSON_STRING ||
            !may_change(rule, json_string(m->array.elems[0]))) {
            return false;
        }
    }
    return mutations != NULL;
}

static bool
may_insert(const struct table_rule *rule, const struct json *op, const char *host)
{
    const struct json *row = member(op, "row", JSON_OBJECT);

    for (const char *const *owner = rule->owners; row && *owner; owner++) {
        if (!strcmp(member_string(row, *owner), host)) {
            return rule->insert_delete;
        }
    }
    return false;
}

/* A wait would hold up the server's queue, and go on when another's rows have changed. */
static bool
waits_not(const struct json *op)
{
    const struct json *timeout = member(op, "timeout", JSON_INTEGER);

    return timeout && !json_integer(timeout);
}

/* --- writing ------------------------------------------------------------------------ */

/* "of the rows that 'where' means, none is not host's" */
static struct json *
make_guard(const struct table_rule *rule, const struct json *where, const char *host)
{
    struct json *all = json_array_create_empty(), *guard = json_object_create();

    for (size_t i = 0; i < where->array.n; i++) {
        json_array_add(all, json_clone(where->array.elems[i]));
    }
    for (const char *const *owner = rule->owners; *owner; owner++) {
        json_array_add(all,
                       json_array_create_3(json_string_create(*owner), json_string_create("!="),
                                           json_string_create(host)));
    }
    json_object_put_string(guard, "op", "wait");
    json_object_put(guard, "timeout", json_integer_create(0));
    json_object_put_string(guard, "table", rule->table);
    json_object_put(guard, "where", all);
    json_object_put(guard, "columns", json_array_create_1(json_string_create(rule->owners[0])));
    json_object_put_string(guard, "until", "==");
    json_object_put(guard, "rows", json_array_create_empty());
    return guard;
}

/* "h1 is a host" */
static struct json *
make_host_guard(const char *host)
{
    struct json *guard = json_object_create();
    struct json *is_named = json_array_create_3(json_string_create("name"),
                                                json_string_create("=="), json_string_create(host));

    json_object_put_string(guard, "op", "wait");
    json_object_put(guard, "timeout", json_integer_create(0));
    json_object_put_string(guard, "table", "Host");
    json_object_put(guard, "where", json_array_create_1(is_named));
    json_object_put(guard, "columns", json_array_create_1(json_string_create("name")));
    json_object_put_string(guard, "until", "!=");
    json_object_put(guard, "rows", json_array_create_empty());
    return guard;
}

enum verdict { REFUSED, READS, INSERTS, GUARDED };

static enum verdict
judge(const struct json *op, const char *host)
{
    const char *name;
    const struct json *where;
    const struct table_rule *rule;
    bool may;

    if (op->type != JSON_OBJECT) {
        return REFUSED;
    }
    where = member(op, "where", JSON_ARRAY);
    if (where && where->array.n > MAX_CLAUSES) {
        return REFUSED;
    }
    name = member_string(op, "op");
    if (!strcmp(name, "select") || !strcmp(name, "comment") || !strcmp(name, "commit") ||
        !strcmp(name, "abort")) {
        return READS;
    }
    if (!strcmp(name, "wait")) {
        return waits_not(op) ? READS : REFUSED;
    }
    rule = find_rule(op);
    if (!rule) {
        return REFUSED;
    }
    if (!strcmp(name, "insert")) {
        return may_insert(rule, op, host) ? INSERTS : REFUSED;
    }
    may = !strcmp(name, "update")   ? may_update(rule, op)
          : !strcmp(name, "mutate") ? may_mutate(rule, op)
          : !strcmp(name, "delete") ? rule->insert_delete
                                    : false;
    return may && where ? GUARDED : REFUSED;
}

static struct json *
permission_error(void)
{
    struct json *error = json_object_create();

    json_object_put_string(error, "error", "permission error");
    json_object_put_string(error, "details",
                           "hosts write what is theirs: see \"Who may write it\" of the pool's "
                           "database");
    return error;
}

/* As if the operations before had been done and the transaction then given up. */
static struct json *
refuse_at(size_t at, size_t n)
{
    struct json *result = json_array_create_empty();

    for (size_t i = 0; i < n; i++) {
        json_array_add(result, i < at    ? json_object_create()
                               : i == at ? permission_error()
                                         : json_null_create());
    }
    return result;
}

static void
add(struct json *admitted, struct dbgate_plan *plan, struct json *op, bool ours)
{
    json_array_add(admitted, op);
    plan->ours[plan->n++] = ours;
}

struct json *
dbgate_admit(const char *host, const struct json *params, struct dbgate_plan *plan,
             struct json **refusal)
{
    struct json *admitted;
    size_t n, selects = 0;
    bool writes = false;

    memset(plan, 0, sizeof *plan);
    *refusal = NULL;
    if (!*host || params->type != JSON_ARRAY || params->array.n < 1 ||
        params->array.n > MAX_OPERATIONS + 1 || params->array.elems[0]->type != JSON_STRING) {
        *refusal = permission_error();
        return NULL;
    }
    n = params->array.n - 1;
    admitted = json_array_create_1(json_clone(params->array.elems[0]));
    plan->ours = xcalloc(2 * n + 1, sizeof *plan->ours);
    for (size_t i = 0; i < n; i++) {
        const struct json *op = params->array.elems[i + 1];
        enum verdict verdict = judge(op, host);
        bool selects_rows = verdict == READS && !strcmp(member_string(op, "op"), "select");

        selects += selects_rows;
        if (verdict == REFUSED || selects > MAX_SELECTS ||
            (!selects_rows && strcmp(json_string(params->array.elems[0]), DBGATE_DB) != 0)) {
            *refusal = refuse_at(i, n);
            json_destroy(admitted);
            dbgate_plan_clear(plan);
            return NULL;
        }
        if (!writes && verdict != READS) {
            add(admitted, plan, make_host_guard(host), true);
            writes = true;
        }
        if (verdict == GUARDED) {
            add(admitted, plan, make_guard(find_rule(op), member(op, "where", JSON_ARRAY), host),
                true);
        }
        add(admitted, plan, json_clone(op), false);
    }
    return admitted;
}

/* --- answers ------------------------------------------------------------------------ */

static bool
timed_out(const struct json *result)
{
    return result->type == JSON_OBJECT && !strcmp(member_string(result, "error"), "timed out");
}

static bool
failed(const struct json *result)
{
    return result->type == JSON_OBJECT && member(result, "error", JSON_STRING);
}

struct json *
dbgate_result(const struct dbgate_plan *plan, const struct json *result)
{
    struct json *out, *instead = NULL;

    if (result->type != JSON_ARRAY) {
        return json_clone(result);
    }
    out = json_array_create_empty();
    for (size_t i = 0; i < result->array.n; i++) {
        const struct json *one = result->array.elems[i];

        if (i < plan->n && plan->ours[i]) {
            /* What it says is about the operation that follows; of two, the first. */
            if (!instead) {
                instead = timed_out(one) ? permission_error()
                          : failed(one)  ? json_clone(one)
                                         : NULL;
            }
        } else {
            json_array_add(out, instead ? instead : json_clone(one));
            instead = NULL;
        }
    }
    json_destroy(instead);
    return out;
}

void
dbgate_plan_clear(struct dbgate_plan *plan)
{
    free(plan->ours);
    memset(plan, 0, sizeof *plan);
}
