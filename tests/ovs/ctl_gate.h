/* A database in memory behind dbgate_admit(): transactions of the host h1, and what they
 * may have changed.  What a row is whose is said here anew. */
#ifndef TESTS_CTL_GATE_H
#define TESTS_CTL_GATE_H

#include <config.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dbgate.h"
#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "ovsdb-error.h"
#include "ovsdb/column.h"
#include "ovsdb/ovsdb.h"
#include "ovsdb/row.h"
#include "ovsdb/storage.h"
#include "ovsdb/table.h"
#include "util.h"

/* clang-format off */
#define GATE_STRINGS(A, B) "\"" A "\":{\"type\":\"string\"},\"" B "\":{\"type\":\"string\"}"
#define GATE_NUMBER(A, TYPE) "\"" A "\":{\"type\":\"" TYPE "\"}"
#define GATE_TABLE(NAME, COLUMNS) "\"" NAME "\":{\"isRoot\":true,\"columns\":{" COLUMNS "}}"
#define GATE_UUID(DIGIT) "00000000-0000-4000-8000-00000000000" DIGIT
#define GATE_ROW(TABLE, DIGIT, ROW) \
    "{\"op\":\"insert\",\"table\":\"" TABLE "\",\"uuid\":\"" GATE_UUID(DIGIT) "\",\"row\":{" ROW "}}"

static const char gate_schema[] =
    "{\"name\":\"Weft_Pool\",\"version\":\"1.0.0\",\"tables\":{"
    GATE_TABLE("Host", GATE_STRINGS("name", "xapi_address") "," GATE_NUMBER("xapi_seen", "integer")
               "," GATE_STRINGS("migration_address", "ovsdb")) ","
    GATE_TABLE("VM", GATE_STRINGS("name", "power_state") "," GATE_STRINGS("resident_on", "destination")
               "," GATE_STRINGS("migration", "driver") "," GATE_NUMBER("epoch", "integer")) ","
    GATE_TABLE("Task", GATE_STRINGS("name", "host") "," GATE_STRINGS("status", "result")
               "," GATE_STRINGS("error_info", "params") "," GATE_NUMBER("progress", "real")
               "," GATE_NUMBER("finished", "integer")) ","
    GATE_TABLE("Migration", GATE_STRINGS("from_host", "to_host") "," GATE_STRINGS("phase", "address")
               "," GATE_STRINGS("status", "stats") "," GATE_NUMBER("finished", "integer")) ","
    GATE_TABLE("User", GATE_STRINGS("name", "role")) "}}";

static const char gate_rows[] =
    "[\"Weft_Pool\","
    GATE_ROW("Host", "1", "\"name\":\"h1\"") ","
    GATE_ROW("Host", "2", "\"name\":\"h2\"") ","
    GATE_ROW("VM", "3", "\"name\":\"at1\",\"resident_on\":\"h1\"") ","
    GATE_ROW("VM", "4", "\"name\":\"at2\",\"resident_on\":\"h2\"") ","
    GATE_ROW("VM", "5", "\"name\":\"off\"") ","
    GATE_ROW("VM", "6", "\"name\":\"told\",\"destination\":\"h1\"") ","
    GATE_ROW("VM", "7", "\"name\":\"comes\",\"resident_on\":\"h2\",\"destination\":\"h1\"") ","
    GATE_ROW("Task", "8", "\"name\":\"t1\",\"host\":\"h1\"") ","
    GATE_ROW("Task", "9", "\"name\":\"t2\",\"host\":\"h2\"") ","
    GATE_ROW("Migration", "a", "\"from_host\":\"h1\",\"to_host\":\"h2\"") ","
    GATE_ROW("Migration", "b", "\"from_host\":\"h2\",\"to_host\":\"h3\"") ","
    GATE_ROW("User", "c", "\"name\":\"ada\",\"role\":\"viewer\"") "]";
/* clang-format on */

/* The rows, "TABLE UUID" to their columns. */
struct gate_state {
    struct shash rows;
};

static inline struct json *
gate_parse(const char *text)
{
    struct json *json = json_from_string(text);

    ovs_assert(json->type != JSON_STRING);
    return json;
}

static inline struct json *
gate_execute(struct ovsdb *db, const struct json *params)
{
    long long int timeout = 0;

    return ovsdb_execute(db, NULL, params, false, NULL, NULL, 0, &timeout);
}

static inline struct ovsdb *
gate_db_create(void)
{
    struct json *schema_json = gate_parse(gate_schema), *rows = gate_parse(gate_rows), *result;
    struct ovsdb_schema *schema;
    struct ovsdb_error *error = ovsdb_schema_from_json(schema_json, &schema);
    struct ovsdb *db;

    ovs_assert(!error);
    db = ovsdb_create(schema, ovsdb_storage_create_unbacked(NULL));
    result = gate_execute(db, rows);
    ovs_assert(json_array(result)->n == json_array(rows)->n - 1);
    json_destroy(result);
    json_destroy(rows);
    json_destroy(schema_json);
    return db;
}

static inline void
gate_state_take(struct gate_state *state, const struct ovsdb *db)
{
    const struct shash_node *t;

    shash_init(&state->rows);
    SHASH_FOR_EACH (t, &db->tables) {
        const struct ovsdb_table *table = t->data;
        struct ovsdb_column_set all = OVSDB_COLUMN_SET_INITIALIZER;
        const struct shash_node *c;
        const struct ovsdb_row *row;

        SHASH_FOR_EACH (c, &table->schema->columns) {
            if (c->name[0] != '_') {
                ovsdb_column_set_add(&all, c->data);
            }
        }
        HMAP_FOR_EACH (row, hmap_node, &table->rows) {
            shash_add_nocopy(&state->rows,
                             xasprintf("%s " UUID_FMT, t->name, UUID_ARGS(ovsdb_row_get_uuid(row))),
                             ovsdb_row_to_json(row, &all));
        }
        ovsdb_column_set_destroy(&all);
    }
}

static inline void
gate_state_clear(struct gate_state *state)
{
    struct shash_node *node;

    SHASH_FOR_EACH_SAFE (node, &state->rows) {
        json_destroy(node->data);
        shash_delete(&state->rows, node);
    }
    shash_destroy(&state->rows);
}

static inline bool
gate_is(const struct json *row, const char *column, const char *value)
{
    const struct json *is = shash_find_data(row->object, column);

    return is && is->type == JSON_STRING && !strcmp(json_string(is), value);
}

static inline bool
gate_in_table(const char *key, const char *table)
{
    return !strncmp(key, table, strlen(table)) && key[strlen(table)] == ' ';
}

static inline bool
gate_is_h1s(const char *key, const struct json *row)
{
    return gate_in_table(key, "Host") ? gate_is(row, "name", "h1")
           : gate_in_table(key, "VM")
               ? gate_is(row, "resident_on", "h1") || gate_is(row, "destination", "h1")
           : gate_in_table(key, "Task") ? gate_is(row, "host", "h1")
           : gate_in_table(key, "Migration")
               ? gate_is(row, "from_host", "h1") || gate_is(row, "to_host", "h1")
               : false;
}

static inline bool
gate_comes_and_goes(const char *key)
{
    return gate_in_table(key, "Task") || gate_in_table(key, "Migration");
}

/* Columns that no host changes in a row that is there. */
static inline bool
gate_keeps(const struct json *before, const struct json *after)
{
    static const char *const fixed[] = {"name",   "ovsdb", "driver",    "host",
                                        "params", "role",  "from_host", "to_host"};

    for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
        const struct json *was = shash_find_data(before->object, fixed[i]);

        if (was && !json_equal(was, shash_find_data(after->object, fixed[i]))) {
            return false;
        }
    }
    return true;
}

/* NULL, or the row that h1 had no right to change so. */
static inline const char *
gate_broken(const struct gate_state *before, const struct gate_state *after)
{
    const struct shash_node *node;

    SHASH_FOR_EACH (node, &before->rows) {
        const struct json *was = node->data, *is = shash_find_data(&after->rows, node->name);
        bool own = gate_is_h1s(node->name, was);

        if (is ? !json_equal(was, is) && (!own || !gate_keeps(was, is))
               : !own || !gate_comes_and_goes(node->name)) {
            return node->name;
        }
    }
    SHASH_FOR_EACH (node, &after->rows) {
        if (!shash_find(&before->rows, node->name) &&
            !(gate_comes_and_goes(node->name) && gate_is_h1s(node->name, node->data))) {
            return node->name;
        }
    }
    return NULL;
}

/* A transaction of h1's; what it is told. */
static inline struct json *
gate_transact(struct ovsdb *db, const struct json *params)
{
    struct dbgate_plan plan;
    struct json *answer, *admitted = dbgate_admit("h1", params, &plan, &answer);

    ovs_assert(!admitted == (answer != NULL));
    if (admitted) {
        struct json *result = gate_execute(db, admitted);

        answer = dbgate_result(&plan, result);
        json_destroy(result);
        json_destroy(admitted);
    }
    dbgate_plan_clear(&plan);
    return answer;
}

static inline bool
gate_failed(const struct json *answer)
{
    bool failed = answer->type != JSON_ARRAY;

    for (size_t i = 0; !failed && i < answer->array.n; i++) {
        const struct json *one = answer->array.elems[i];

        failed = one->type == JSON_OBJECT && shash_find(one->object, "error");
    }
    return failed;
}

#endif
