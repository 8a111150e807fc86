/* What the host h1 asks.
 *
 * Transactions, as JSON or (first byte below ' ') put together from pieces that are nearly
 * right, against a database in memory: whatever comes, no row changes that is not h1's.
 *
 * Other requests of one connection (first byte from 0x80 on), of names and parameters put
 * together or (odd) as JSON: what passes is what a second reading of the rules lets pass, and
 * has what the server reads without counting. */
#include "../ovs/ctl_gate.h"

#include <stdint.h>
#include <string.h>

#include "openvswitch/dynamic-string.h"
#include "openvswitch/vlog.h"

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

struct bytes {
    const uint8_t *p, *end;
};

static const char *
pick(struct bytes *b, const char *const *from, size_t n)
{
    return b->p < b->end ? from[*b->p++ % n] : from[0];
}
#define PICK(B, ...)                                                                               \
    pick(B, (const char *const[]){__VA_ARGS__},                                                    \
         sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static const char *
column(struct bytes *b)
{
    return PICK(b, "resident_on", "destination", "host", "name", "epoch", "from_host", "to_host",
                "status", "xapi_seen", "progress", "power_state", "_uuid", "migration_address",
                "role", "finished", "_version");
}

static const char *
value(struct bytes *b)
{
    return PICK(b, "\"h1\"", "\"\"", "\"h2\"", "0", "1", "\"at1\"", "\"at2\"", "\"told\"", "\"t2\"",
                "[\"set\",[\"h1\"]]", "[\"uuid\",\"" GATE_UUID("4") "\"]",
                "[\"uuid\",\"" GATE_UUID("3") "\"]", "[\"named-uuid\",\"n\"]", "\"off\"",
                "[\"uuid\",\"" GATE_UUID("9") "\"]", "[\"set\",[]]");
}

static void
put_where(struct bytes *b, struct ds *s)
{
    unsigned n = b->p < b->end ? *b->p++ % 4 : 0;

    ds_put_cstr(s, "\"where\":[");
    for (unsigned i = 0; i < n; i++) {
        const char *c = column(b), *f = PICK(b, "==", "!=", "includes", "excludes", "<", ">=");

        ds_put_format(s, "%s[\"%s\",\"%s\",%s]", i ? "," : "", c, f, value(b));
    }
    ds_put_cstr(s, n || b->p >= b->end || *b->p++ % 8 ? "]" : "true]");
}

static void
put_row(struct bytes *b, struct ds *s)
{
    unsigned n = b->p < b->end ? *b->p++ % 3 : 1;

    ds_put_cstr(s, ",\"row\":{");
    for (unsigned i = 0; i <= n; i++) {
        const char *c = column(b);

        ds_put_format(s, "%s\"%s\":%s", i ? "," : "", c, value(b));
    }
    ds_put_char(s, '}');
}

static void
put_operation(struct bytes *b, struct ds *s)
{
    const char *op = PICK(b, "update", "mutate", "delete", "insert", "wait", "select");
    const char *table = PICK(b, "VM", "Task", "Host", "Migration", "User");

    ds_put_format(s, ",{\"op\":\"%s\",\"table\":\"%s\",", op, table);
    if (!strcmp(op, "insert")) {
        ds_put_cstr(s, PICK(b, "\"uuid-name\":\"n\"", "\"uuid\":\"" GATE_UUID("d") "\"",
                            "\"uuid\":\"" GATE_UUID("4") "\""));
    } else {
        put_where(b, s);
    }
    if (!strcmp(op, "update") || !strcmp(op, "insert")) {
        put_row(b, s);
    } else if (!strcmp(op, "mutate")) {
        const char *c = column(b), *f = PICK(b, "+=", "insert", "delete", "*=");

        ds_put_format(s, ",\"mutations\":[[\"%s\",\"%s\",%s]]", c, f, value(b));
    } else if (!strcmp(op, "wait")) {
        ds_put_format(s, ",\"timeout\":%s,\"until\":\"!=\",\"rows\":[{}]", PICK(b, "0", "9"));
    }
    ds_put_char(s, '}');
}

static struct json *
parse(const uint8_t *data, size_t size)
{
    struct ds s = DS_EMPTY_INITIALIZER;
    struct json *json;

    ds_put_cstr(&s, "[\"Weft_Pool\"");
    if (size && data[0] < ' ') {
        struct bytes b = {data + 1, data + size};

        for (unsigned i = 0; i < 5 && b.p < b.end; i++) {
            put_operation(&b, &s);
        }
    } else {
        ds_put_char(&s, ',');
        ds_put_buffer(&s, (const char *)data, size);
    }
    ds_put_char(&s, ']');
    json = json_from_string(ds_cstr(&s));
    ds_destroy(&s);
    return json;
}

/* --- other requests ----------------------------------------------------------------------- */

/* By method, what its parameters are: s a string, i a monitor's id, = the same once more,
 * o an object, ? anything; NULL: any array. */
static const struct rule {
    const char *method, *shape;
} rules[] = {
    {"monitor", "sio"},
    {"monitor_cond", "sio"},
    {"monitor_cond_since", "sios"},
    {"monitor_cond_change", "i=o"},
    {"monitor_cancel", "?"},
    {"echo", NULL},
    {"list_dbs", NULL},
    {"get_schema", NULL},
    {"get_server_id", NULL},
    {"set_db_change_aware", NULL},
};

static bool
is_plain_id(const struct json *json)
{
    return json->type == JSON_INTEGER ||
           (json->type == JSON_STRING && strlen(json_string(json)) <= 64);
}

static bool
is_id(const struct json *json)
{
    return json->type == JSON_NULL || is_plain_id(json) ||
           (json->type == JSON_ARRAY && json->array.n == 2 && is_plain_id(json->array.elems[0]) &&
            is_plain_id(json->array.elems[1]));
}

static bool
has_shape(const struct json *params, const char *shape)
{
    if (!shape) {
        return true;
    }
    if (params->array.n != strlen(shape)) {
        return false;
    }
    for (size_t i = 0; shape[i]; i++) {
        const struct json *p = params->array.elems[i];

        if (!(shape[i] == 's'   ? p->type == JSON_STRING
              : shape[i] == 'o' ? p->type == JSON_OBJECT
              : shape[i] == 'i' ? is_id(p)
              : shape[i] == '=' ? json_equal(p, params->array.elems[i - 1])
                                : true)) {
            return false;
        }
    }
    return true;
}

/* The monitors that there may be, as text. */
struct held {
    char *ids[DBGATE_MAX_MONITORS];
    size_t n;
};

static size_t
find_held(const struct held *held, const char *id)
{
    size_t i = 0;

    while (i < held->n && strcmp(held->ids[i], id) != 0) {
        i++;
    }
    return i;
}

/* What is to be said of the request, and done about its monitor. */
static bool
expect(struct held *held, const char *method, const struct json *params)
{
    const struct rule *rule = NULL;
    char *id;
    size_t at;

    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        rule = !strcmp(rules[i].method, method) ? &rules[i] : rule;
    }
    if (!rule || !params || params->type != JSON_ARRAY || !has_shape(params, rule->shape)) {
        return false;
    }
    if (strncmp(method, "monitor", 7) != 0 || !strcmp(method, "monitor_cond_change")) {
        return true;
    }
    id = json_to_string(params->array.elems[strcmp(method, "monitor_cancel") ? 1 : 0], JSSF_SORT);
    at = find_held(held, id);
    if (!strcmp(method, "monitor_cancel")) {
        free(id);
        if (at < held->n) {
            free(held->ids[at]);
            held->ids[at] = held->ids[--held->n];
        }
        return true;
    }
    if (at < held->n || held->n == DBGATE_MAX_MONITORS) {
        free(id);
        return at < held->n;
    }
    held->ids[held->n++] = id;
    return true;
}

static const char *
parameter(struct bytes *b)
{
    return PICK(b, "\"Weft_Pool\"", "\"m\"", "{}", "1", "2", "3", "4", "5", "6", "7",
                "[\"monid\",\"Weft_Pool\"]", "[\"monid\",1]", "[[],[]]", "[1]", "null", "true",
                "1.5", "{\"VM\":{}}", "\"00000000-0000-0000-0000-000000000000\"",
                "\"01234567890123456789012345678901234567890123456789012345678901234\"");
}

static struct json *
put_parameters(struct bytes *b)
{
    unsigned n = b->p < b->end ? *b->p++ % 8 : 0;
    struct ds s = DS_EMPTY_INITIALIZER;
    struct json *json;

    /* Mostly as many as there should be, and right in part. */
    ds_put_cstr(&s, n == 7 ? "{" : "[");
    for (unsigned i = 0; n < 7 && i < (n > 4 ? 3 : n); i++) {
        ds_put_format(&s, "%s%s", i ? "," : "",
                      n == 5 && i == 0                    ? "\"Weft_Pool\""
                      : n > 4 && i == 2                   ? "{}"
                      : n == 6 && i == 1 && b->p < b->end ? "\"m\""
                                                          : parameter(b));
    }
    ds_put_cstr(&s, n == 7 ? "}" : "]");
    json = json_from_string(ds_cstr(&s));
    ds_destroy(&s);
    return json;
}

static void
request(struct held *held, struct dbgate_monitors *monitors, const char *method,
        const struct json *params)
{
    bool may = dbgate_may_call(method, params, monitors);

    if (may != expect(held, method, params) || monitors->n != held->n) {
        fprintf(stderr, "%s %s: %d, %zu monitors, not %zu\n", method,
                params ? json_to_string(params, 0) : "", may, monitors->n, held->n);
        abort();
    }
}

/* "METHOD" PARAMS "METHOD" PARAMS ... as JSON, in one array. */
static void
requests_of_json(struct held *held, struct dbgate_monitors *monitors, const struct bytes *b)
{
    struct ds s = DS_EMPTY_INITIALIZER;
    struct json *json;

    ds_put_char(&s, '[');
    ds_put_buffer(&s, (const char *)b->p, b->end - b->p);
    ds_put_char(&s, ']');
    json = json_from_string(ds_cstr(&s));
    ds_destroy(&s);
    for (size_t i = 0; json->type == JSON_ARRAY && i + 1 < json->array.n; i += 2) {
        const struct json *method = json->array.elems[i], *params = json->array.elems[i + 1];

        if (method->type == JSON_STRING) {
            request(held, monitors, json_string(method), params);
        }
        if (dbgate_is_id(params) != is_plain_id(params)) {
            abort();
        }
    }
    json_destroy(json);
}

static void
requests(struct bytes b)
{
    struct dbgate_monitors monitors = {.n = 0};
    struct held held = {.n = 0};

    if (*b.p++ % 2) {
        requests_of_json(&held, &monitors, &b);
    }
    while (b.p < b.end) {
        const char *method = PICK(&b, "monitor", "monitor_cond", "monitor_cond_since",
                                  "monitor_cond_change", "monitor_cancel", "monitor", "echo",
                                  "list_dbs", "get_schema", "get_server_id", "set_db_change_aware",
                                  "lock", "steal", "unlock", "convert", "monitor_", "", "moni");
        struct json *params = put_parameters(&b);

        request(&held, &monitors, method, params);
        json_destroy(params);
    }
    dbgate_monitors_clear(&monitors);
    while (held.n) {
        free(held.ids[--held.n]);
    }
}

/* --- transactions --------------------------------------------------------------------------- */

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ovsdb *db;
    static struct gate_state fresh;
    struct json *params, *answer;
    struct gate_state after;

    if (size && data[0] >= 0x80) {
        requests((struct bytes){data, data + size});
        return 0;
    }
    params = parse(data, size);
    if (!db) {
        vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
        db = gate_db_create();
        gate_state_take(&fresh, db);
    }
    answer = gate_transact(db, params);
    gate_state_take(&after, db);
    if (gate_broken(&fresh, &after)) {
        fprintf(stderr, "h1 changed %s by %s\n", gate_broken(&fresh, &after),
                json_to_string(params, 0));
        abort();
    }
    if (answer->type == JSON_ARRAY && params->type == JSON_ARRAY &&
        answer->array.n < params->array.n - 1) {
        abort();
    }
    if (!gate_failed(answer)) {
        ovsdb_destroy(db);
        db = gate_db_create();
    }
    gate_state_clear(&after);
    json_destroy(answer);
    json_destroy(params);
    return 0;
}
