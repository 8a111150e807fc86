/* Transactions of the host h1, as JSON or (first byte below ' ') put together from
 * pieces that are nearly right, against a database in memory: whatever comes, no row
 * changes that is not h1's. */
#include "../ovs/ctl_gate.h"

#include <stdint.h>

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

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ovsdb *db;
    static struct gate_state fresh;
    struct json *params = parse(data, size), *answer;
    struct gate_state after;

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
