/* Columns as XenAPI's values, and back. */
#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "ovsdb-data.h"
#include "ovsdb-error.h"
#include "ovsdb-idl-provider.h"
#include "ovsdb-types.h"
#include "util.h"
#include "xapi.h"

struct json *
value_ref(const struct uuid *uuid)
{
    return json_string_create_nocopy(xasprintf(REF_PREFIX UUID_FMT, UUID_ARGS(uuid)));
}

struct json *
value_time(int64_t ms)
{
    time_t t = ms / 1000;
    struct tm tm;
    char text[40];

    gmtime_r(&t, &tm);
    strftime(text, sizeof text, "%Y%m%dT%H:%M:%SZ", &tm);
    return json_string_create(text);
}

void
value_add(struct json *set, const char *s)
{
    json_array_add(set, json_string_create(s));
}

struct json *
value_literal(const char *text)
{
    /* The parser takes an object or an array as a whole text only. */
    char *list = xasprintf("[%s]", text);
    struct json *json = json_from_string(list);
    struct json *value = json_clone(json_array(json)->elems[0]);

    json_destroy(json);
    free(list);
    return value;
}

static struct json *
map_value(const struct ovsdb_datum *d)
{
    struct json *map = json_object_create();

    for (unsigned i = 0; i < d->n; i++) {
        json_object_put_string(map, json_string(d->keys[i].s), json_string(d->values[i].s));
    }
    return map;
}

static struct json *
set_value(const struct ovsdb_datum *d)
{
    struct json *set = json_array_create_empty();

    for (unsigned i = 0; i < d->n; i++) {
        value_add(set, json_string(d->keys[i].s));
    }
    return set;
}

struct json *
value_of(const struct ovsdb_idl_row *row, const struct ovsdb_idl_column *column,
         enum value_type type)
{
    const struct ovsdb_datum *d = ovsdb_idl_read(row, column);

    switch (type) {
    case V_STRING:
        return json_string_create(d->n ? json_string(d->keys[0].s) : "");
    case V_INT:
        return json_integer_create(d->n ? d->keys[0].integer : 0);
    case V_FLOAT:
        return json_real_create(d->n ? d->keys[0].real : 0);
    case V_BOOL:
        return json_boolean_create(d->n && d->keys[0].boolean);
    case V_DATETIME:
        return value_time(d->n ? d->keys[0].integer : 0);
    case V_REF:
        return d->n ? value_ref(&d->keys[0].uuid) : json_string_create(REF_NULL);
    case V_SET:
        return set_value(d);
    case V_MAP:
        return map_value(d);
    case V_JSON:
        break;
    }
    return json_null_create();
}

static bool
all_strings(const struct json *json)
{
    const struct shash_node *node;

    if (json->type == JSON_ARRAY) {
        for (size_t i = 0; i < json_array(json)->n; i++) {
            if (json_array(json)->elems[i]->type != JSON_STRING) {
                return false;
            }
        }
        return true;
    }
    SHASH_FOR_EACH (node, json_object(json)) {
        if (((struct json *)node->data)->type != JSON_STRING) {
            return false;
        }
    }
    return true;
}

bool
value_fits(const struct json *json, enum value_type type)
{
    switch (type) {
    case V_STRING:
    case V_REF:
    case V_DATETIME:
        return json->type == JSON_STRING;
    case V_INT:
        return json->type == JSON_INTEGER;
    case V_FLOAT:
        return json->type == JSON_REAL || json->type == JSON_INTEGER;
    case V_BOOL:
        return json->type == JSON_TRUE || json->type == JSON_FALSE;
    case V_SET:
        return json->type == JSON_ARRAY && all_strings(json);
    case V_MAP:
        return json->type == JSON_OBJECT && all_strings(json);
    case V_JSON:
        break;
    }
    return false;
}

static struct json *
ovsdb_set(const struct json *json)
{
    return json_array_create_2(json_string_create("set"), json_clone(json));
}

static struct json *
ovsdb_map(const struct json *json)
{
    struct json *pairs = json_array_create_empty();
    const struct shash_node *node;

    SHASH_FOR_EACH (node, json_object(json)) {
        json_array_add(pairs, json_array_create_2(json_string_create(node->name),
                                                  json_clone((struct json *)node->data)));
    }
    return json_array_create_2(json_string_create("map"), pairs);
}

void
value_write(const struct ovsdb_idl_row *row, const struct ovsdb_idl_column *column,
            const struct json *json)
{
    struct json *form = json->type == JSON_ARRAY    ? ovsdb_set(json)
                        : json->type == JSON_OBJECT ? ovsdb_map(json)
                                                    : json_clone(json);
    struct ovsdb_datum datum;
    struct ovsdb_error *error = ovsdb_datum_from_json(&datum, &column->type, form, NULL);

    json_destroy(form);
    if (error) { /* an enumeration's, a range: the caller's checks were too lax */
        ovsdb_error_destroy(error);
        return;
    }
    ovsdb_idl_txn_write(row, column, &datum);
}

const struct json *
value_member(const struct json *map, const char *key)
{
    return map && map->type == JSON_OBJECT ? shash_find_data(json_object(map), key) : NULL;
}

const char *
value_map(const struct json *map, const char *key, const char *otherwise)
{
    const struct json *value = value_member(map, key);

    return value && value->type == JSON_STRING ? json_string(value) : otherwise;
}
