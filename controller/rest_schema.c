/* The schemas of the OpenAPI description: classes from their tables, bodies and
 * answers from those below. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doc.h"
#include "record.h"
#include "rest_priv.h"

json_t *
rest_schema_ref(const char *name, const char *suffix)
{
    return json_pack("{s:s++}", "$ref", "#/components/schemas/", name, suffix);
}

/* --- classes ---------------------------------------------------------------------- */

/* What an object looks like ... */
enum form {
    ANSWERED, /* in answers: all fields, status too */
    STATED,   /* in POST */
    IN_DOCUMENT,
    CHANGED, /* in PATCH: some fields, null for the default */
};
static const char *const suffixes[] = {"", "_stated", "_document", "_change"};

static const struct rec_field *
record_field(const struct pool_class *c, const struct pool_field *f)
{
    enum rec_kind kind = rec_kind_by_name(c->noun);
    int at = rec_field_index(kind, f->name);

    return at < 0 ? NULL : &rec_tables[kind].fields[at];
}

static json_t *
list_of(json_t *items)
{
    return json_pack("{s:s, s:o, s:b}", "type", "array", "items", items, "uniqueItems", 1);
}

/* One value, or a member of a set. */
static json_t *
value_schema(const struct pool_field *f, const struct rec_field *rf)
{
    static const char *const types[] = {"string", "integer", "boolean", "string"};
    json_t *s = json_pack("{s:s}", "type", types[f->type]), *words;

    if (f->type == POOL_INTEGER) {
        json_object_set_new(s, "format", json_string("int64"));
    }
    if (rf && rf->type == REC_ENUM) {
        words = json_array();
        for (size_t i = 0; rf->choices[i]; i++) {
            json_array_append_new(words, json_string(rf->choices[i]));
        }
        json_object_set_new(s, "enum", words);
    } else if (rf && (rf->type == REC_INT || rf->type == REC_OPT_INT)) {
        json_object_set_new(s, "minimum", json_integer(rf->min));
        json_object_set_new(s, "maximum", json_integer(rf->max));
    }
    return s;
}

static void
set_nullable(json_t *s)
{
    json_t *words = json_object_get(s, "enum");

    json_object_set_new(s, "nullable", json_true());
    if (words) {
        json_array_append_new(words, json_null());
    }
}

static void
set_default(json_t *s, const struct rec_field *rf)
{
    switch (rf->type) {
    case REC_INT:
        json_object_set_new(s, "default", json_integer(strtoll(rf->def, NULL, 10)));
        break;
    case REC_BOOL:
        json_object_set_new(s, "default", json_boolean(*rf->def != '0'));
        break;
    case REC_STRING:
    case REC_ENUM:
        json_object_set_new(s, "default", json_string(rf->def));
        break;
    case REC_OPT_INT: /* nothing is stated */
    case REC_REF:
    case REC_STRINGS:
    case REC_REFS:
        break;
    }
}

static json_t *
field_schema(const struct pool_class *c, const struct pool_field *f, enum form form)
{
    const struct rec_field *rf = record_field(c, f);
    json_t *s = value_schema(f, rf);
    char text[200];

    if (f->flags & POOL_SET) {
        s = list_of(s);
        if (rf) {
            json_object_set_new(s, "maxItems", json_integer(rf->max));
        }
    }
    if (rf && rf->def && (form == CHANGED || rf->type == REC_REF || rf->type == REC_OPT_INT)) {
        set_nullable(s);
    }
    if (f->flags & POOL_SET && form == CHANGED) {
        json_t *some = list_of(json_pack("{s:s}", "type", "string"));
        s = json_pack("{s:[o, {s:s, s:b, s:{s:O, s:o}}]}", "oneOf", s, "type", "object",
                      "additionalProperties", 0, "properties", "add", some, "remove", some);
    }
    if (rf && rf->def && (form == STATED || form == IN_DOCUMENT)) {
        set_default(s, rf);
    }
    snprintf(text, sizeof text, "%s%s%s", f->help, f->ref ? "; the name of a " : "",
             f->ref ? f->ref : "");
    json_object_set_new(s, "description", json_string(text));
    if (f->flags & POOL_STATUS) {
        json_object_set_new(s, "readOnly", json_true());
    }
    return s;
}

/* Whether one must say it. */
static bool
is_required(const struct pool_class *c, const char *field, bool by_class, enum form form)
{
    switch (form) {
    case ANSWERED:
        return true;
    case STATED:
        return by_class;
    case IN_DOCUMENT: /* a rule's policy is around it, and its place will do for a name */
        return by_class &&
               (!c->within || (strcmp(field, c->within) != 0 && strcmp(field, "name") != 0));
    case CHANGED:
        break;
    }
    return false;
}

static json_t *
class_schema(const struct pool_class *c, enum form form)
{
    json_t *properties = json_object(), *required = json_array();
    json_t *schema = json_pack("{s:s, s:s, s:b, s:o}", "type", "object", "description", c->about,
                               "additionalProperties", 0, "properties", properties);

    json_object_set_new(properties, "name", json_pack("{s:s}", "type", "string"));
    if (is_required(c, "name", !c->single, form)) {
        json_array_append_new(required, json_string("name"));
    }
    if (form == ANSWERED) {
        json_object_set_new(
            properties, "uuid",
            json_pack("{s:s, s:s, s:b}", "type", "string", "format", "uuid", "readOnly", 1));
        json_array_append_new(required, json_string("uuid"));
    }
    if (form == ANSWERED && !c->single) {
        json_object_set_new(properties, "key",
                            json_pack("{s:s, s:b, s:s}", "type", "integer", "readOnly", 1,
                                      "description", "in cookies and labels; 0: none yet"));
        json_array_append_new(required, json_string("key"));
    }
    for (size_t i = 0; i < c->n_fields; i++) {
        const struct pool_field *f = &c->fields[i];
        if (form != ANSWERED && f->flags & POOL_STATUS) {
            continue;
        }
        json_object_set_new(properties, f->name, field_schema(c, f, form));
        if (is_required(c, f->name, f->flags & POOL_REQUIRED, form)) {
            json_array_append_new(required, json_string(f->name));
        }
    }
    if (form == IN_DOCUMENT && !strcmp(c->noun, "policy")) {
        json_object_set_new(properties, "rules",
                            json_pack("{s:s, s:o, s:s}", "type", "array", "items",
                                      rest_schema_ref("rule", suffixes[IN_DOCUMENT]), "description",
                                      "all of them; without this member they stay"));
    }
    if (json_array_size(required)) {
        json_object_set(schema, "required", required);
    }
    json_decref(required);
    return schema;
}

static json_t *
document_schema(void)
{
    json_t *properties =
        json_pack("{s:{s:s, s:[i]}}", "version", "type", "integer", "enum", DOC_VERSION);

    for (size_t i = 0; i < n_pool_classes; i++) {
        const struct pool_class *c = &pool_classes[i];
        json_t *one = rest_schema_ref(c->noun, suffixes[IN_DOCUMENT]);
        if (c->within) {
            json_decref(one);
        } else if (c->single) {
            json_object_set_new(properties, c->plural, one);
        } else {
            json_object_set_new(properties, c->plural,
                                json_pack("{s:s, s:o}", "type", "array", "items", one));
        }
    }
    return json_pack("{s:s, s:s, s:[s], s:b, s:o}", "type", "object", "description",
                     "see docs/policy.md; the rules of a policy stand in its member rules",
                     "required", "version", "additionalProperties", 0, "properties", properties);
}

/* An edit of a commit. */
static json_t *
edit_schema(void)
{
    json_t *nouns = json_array();

    for (size_t i = 0; i < n_pool_classes; i++) {
        json_array_append_new(nouns, json_string(pool_classes[i].noun));
    }
    return json_pack(
        "{s:s, s:[s, s], s:b, s:{s:{s:s, s:[s, s, s]}, s:{s:s, s:o}, s:{s:s, s:s}, s:{s:s, s:s}}}",
        "type", "object", "required", "op", "class", "additionalProperties", 0, "properties", "op",
        "type", "string", "enum", "add", "set", "remove", "class", "type", "string", "enum", nouns,
        "name", "type", "string", "description", "or uuid; a rule's is POLICY/RULE", "values",
        "type", "object", "description",
        "of add as in the class's POST, of set as in its PATCH, of remove none");
}

static json_t *
commit_schema(void)
{
    return json_pack("{s:[o, {s:s, s:[s], s:b, s:{s:{s:s, s:i, s:o}}}]}", "oneOf",
                     rest_schema_ref("document", ""), "type", "object", "required", "edits",
                     "additionalProperties", 0, "properties", "edits", "type", "array", "minItems",
                     1, "items", rest_schema_ref("edit", ""));
}

/* --- bodies and answers ---------------------------------------------------------------- */

/* A type: JSON's, "a|b|c" (one of these words), "#SCHEMA", "[]" and one of them;
 * "?" behind it: it may be left out.  A row without a member says what it is. */
struct row {
    const char *schema, *member, *type, *about;
};

static const struct row bodies[] = {
    {"question", "", NULL, "a packet"},
    {"question", "from", "string?", "the vif that sends it"},
    {"question", "to", "string?", "a vif, or an address in the sender's network"},
    {"question", "to_mac", "string?", "destination MAC, if it is not that of a vif in the network"},
    {"question", "source", "string?", "address; default: the sender's first known one"},
    {"question", "destination", "string?", "address; default: the receiver's first known one"},
    {"question", "family", "ipv4|ipv6?", "if both are known"},
    {"question", "protocol", "string?", "tcp, udp, sctp, icmp, icmpv6, a number; default: a ping"},
    {"question", "port", "integer?", "destination port"},
    {"question", "source_port", "integer?", "default 40000"},
    {"question", "icmp_type", "integer?", "default: echo request"},
    {"question", "icmp_code", "integer?", "default 0"},
    {"question", "state", "new|established|reply|older|invalid?", "of its connection; default new"},
    {"question", "host", "string?", "with flow: where the packet enters"},
    {"question", "flow", "string?",
     "the packet as ovs-fields(7) has it; in_port by name or number"},

    {"login", "", NULL, "what a session is to be"},
    {"login", "user", "string?", "a user of the pool; default: who asks; others: for admins"},
    {"login", "lifetime", "integer?", "seconds; default 43200, at most 604800"},
    {"login", "idle", "integer?", "seconds without use after which it ends; default 1800"},

    {"capture", "", NULL, "packets to be captured"},
    {"capture", "vif", "string", "that sends them"},
    {"capture", "seconds", "integer?", "default 10, at most 300; 0 ends it"},
    {"capture", "protocol", "string?", "only of this one"},
    {"capture", "port", "integer?", "only to this one"},
    {"capture", "family", "ipv4|ipv6?", "only of this one"},

    {"shadow", "", NULL, "a document, and what it is tried on"},
    {"shadow", "document", "#document", NULL},
    {"shadow", "flows", "[]#flow?", "at most 10,000; default: the samples"},

    {"flow", "", NULL, "connections that were seen"},
    {"flow", "from", "string?", "the vif that sends it; none: from outside, by the VLAN of 'to'"},
    {"flow", "to", "string?", "the vif that it is for; none: what is not the pool's"},
    {"flow", "network", "string?", "for people"},
    {"flow", "source", "string?", "address"},
    {"flow", "destination", "string?", "address"},
    {"flow", "protocol", "string?", "tcp, udp, sctp, icmp, icmpv6, a number"},
    {"flow", "port", "integer?", "destination port"},
    {"flow", "source_port", "integer?", "default 40000"},
    {"flow", "icmp_type", "integer?", "default: echo request"},
    {"flow", "icmp_code", "integer?", "default 0"},
    {"flow", "count", "integer?", "for people: how often it was seen"},
};

/* Whose a rule is, wherever one is named. */
#define RULE_ROWS(schema)                                                                          \
    {schema, "rule", "string?", "POLICY/RULE"}, {schema, "policy", "string?", NULL},               \
        {schema, "author", "string?", "of the policy"},                                            \
    {                                                                                              \
        schema, "part", "mandatory|default?", NULL                                                 \
    }

static const struct row answers[] = {
    {"openapi", "", NULL, "an OpenAPI document"},

    {"error", "", NULL, "why nothing was done"},
    {"error", "error", "bad_request|invalid|denied|not_found|conflict|too_large|unavailable", NULL},
    {"error", "object", "string?", "a class and a name"},
    {"error", "field", "string?", "which of its fields is wrong"},
    {"error", "message", "string?", NULL},
    {"error", "errors", "[]#fault?", "if there is more than one"},

    {"fault", "object", "string", "a class and a name"},
    {"fault", "field", "string?", NULL},
    {"fault", "message", "string", NULL},
    {"report", "errors", "[]#fault", NULL},
    {"report", "warnings", "[]#fault", "conflicts, unreachable rules ..."},

    {"generation", "", NULL, "the database has the change; /v1/wait says when the hosts have it"},
    {"generation", "generation", "integer", "of the configuration"},
    {"generation", "warnings", "[]#fault?", NULL},
    {"waited", "applied", "boolean", "every connected host has it"},
    {"waited", "generation", "integer", NULL},
    {"waited", "waiting_for", "[]string", "hosts; for tenants always empty"},
    {"waited", "not_connected", "[]string", "hosts that get it when they are back; likewise"},

    {"whoami", "name", "string", NULL},
    {"whoami", "role", "viewer|tenant|operator|admin", NULL},
    {"whoami", "tenant", "string", "of role tenant"},
    {"whoami", "session", "string", "its id; empty: it is none"},
    {"status", "", NULL, "for tenants the generation alone"},
    {"status", "generation", "integer", NULL},
    {"status", "database", "boolean?", "the controller is connected to it"},
    {"status", "hosts", "integer?", "all that are enabled"},
    {"status", "connected", "integer?", "of them"},
    {"status", "applied", "integer?", "connected ones that have the generation"},
    {"status", "behind", "[]string?", "connected ones that have not"},
    {"status", "errors", "[]#fault?", NULL},
    {"status", "warnings", "[]#fault?", NULL},
    {"status", "pending", "#pending?", NULL},
    {"pending", "", NULL, "a commit that rolls back unless it is confirmed"},
    {"pending", "deadline", "integer", "ms since 1970"},
    {"pending", "author", "string", NULL},

    {"session_begun", "id", "string", NULL},
    {"session_begun", "user", "string", NULL},
    {"session_begun", "token", "string", "for Authorization: Bearer"},
    {"session_begun", "expires_in", "integer", "seconds"},
    {"session_begun", "idle", "integer", "seconds without use after which it ends"},
    {"session_ended", "ended", "string", "its id"},
    {"sessions", "sessions", "[]#session", NULL},
    {"session", "id", "string", NULL},
    {"session", "user", "string", NULL},
    {"session", "address", "string", "where it began"},
    {"session", "began", "string", "ISO 8601, UTC"},
    {"session", "expires_in", "integer", "seconds"},
    {"session", "idle_in", "integer", "seconds until it ends unless it is used"},

    {"trace", "", NULL, "the way of a packet"},
    {"trace", "packet", "string", NULL},
    {"trace", "connection", "boolean",
     "false: there is no such connection; this is the packet that would open it"},
    {"trace", "verdict", "delivered|leaves|dropped|lost|broken", NULL},
    {"trace", "outcome", "string", "the same in a sentence"},
    {"trace", "sides", "[]#side", "who allowed or denied it"},
    {"trace", "visits", "[]#visit", "the hosts that it passes"},
    {"trace", "more", "boolean", "it goes to more hosts than are followed"},
    {"trace", "text", "string", "all of it for people"},
    {"side", "side", "source|destination", NULL},
    {"side", "host", "string", "where it was asked"},
    {"side", "action", "allow|deny", NULL},
    {"side", "by", "string", "in words"},
    RULE_ROWS("side"),
    {"visit", "host", "string", NULL},
    {"visit", "in", "string", "how the packet came"},
    {"visit", "conntrack", "string?", "what connection tracking says, if it is asked"},
    {"visit", "doubt", "string?", "why the host's switch may do otherwise"},
    {"visit", "steps", "[]#step", "a flow of each table"},
    {"visit", "ends", "[]#end", "where it, or each copy, ends"},
    {"step", "table", "integer", NULL},
    {"step", "name", "string", "of the table"},
    {"step", "priority", "integer?", "without one: no flow matches"},
    {"step", "cookie", "string?", NULL},
    {"step", "kind", "string?", "base, vif, remote, network, rule, default, tap, unknown"},
    {"step", "from", "string?", "whose the flow is, in words"},
    RULE_ROWS("step"),
    {"step", "match", "string?", NULL},
    {"step", "actions", "string?", NULL},
    {"end", "kind", "vif|host|wire|stack|port|lost|dropped", NULL},
    {"end", "text", "string", NULL},
    {"end", "name", "string?", "of the vif or host"},
    {"end", "reason", "string?", "of a dropped one, in one word"},
    {"end", "for", "string?", "the vif that a dropped copy was for"},
    RULE_ROWS("end"),
    {"origin", "cookie", "string", NULL},
    {"origin", "kind", "string", "base, vif, remote, network, rule, default, tap, unknown"},
    {"origin", "from", "string", "in words"},
    {"origin", "object", "string?", "a class and a name"},
    RULE_ROWS("origin"),

    {"log", "entries", "[]#log_entry", NULL},
    {"log", "last", "integer", "number of the latest"},
    {"log", "lost", "integer", "entries that had gone before they were asked for"},
    {"log_entry", "number", "integer", NULL},
    {"log_entry", "time", "integer", "ms since 1970"},
    {"log_entry", "host", "string", NULL},
    {"log_entry", "rule", "string", "POLICY/RULE"},
    {"log_entry", "author", "string", NULL},
    {"log_entry", "action", "allow|deny", NULL},
    {"log_entry", "direction", "in|out", NULL},
    {"log_entry", "packet", "string", NULL},
    {"log_entry", "from", "string", "vif, or empty"},
    {"log_entry", "to", "string", "vif, or empty"},

    {"capturing", "seconds", "integer", "for so long"},
    {"capturing", "generation", "integer", NULL},
    {"captured", "packets", "[]#captured_packet", "up to 20"},
    {"captured", "last", "integer", "number of the last of them"},
    {"captured", "going", "boolean", "more may come"},
    {"captured_packet", "number", "integer", NULL},
    {"captured_packet", "time", "integer", "ms since 1970"},
    {"captured_packet", "trace", "#trace", NULL},

    {"sampling", "hosts", "integer", "that report"},
    {"sampling", "seconds", "integer", "for so long"},
    {"sampling", "generation", "integer", NULL},
    {"samples", "flows", "[]#flow", NULL},
    {"scored", "", NULL, "what a document would do with flows"},
    {"scored", "flows", "integer", "how many there are"},
    {"scored", "same", "integer", NULL},
    {"scored", "newly_denied", "integer", NULL},
    {"scored", "newly_allowed", "integer", NULL},
    {"scored", "other_rule", "integer", "the same action, by another rule"},
    {"scored", "unknown", "integer", "to the pool"},
    {"scored", "changes", "[]#scored_change", "up to 1,000"},
    {"scored_change", "flow", "#flow", NULL},
    {"scored_change", "now", "#decision", NULL},
    {"scored_change", "then", "#decision", NULL},
    {"decision", "action", "string", "allow, deny, drop or unknown"},
    {"decision", "by", "string", "in words"},
    {"decision", "rule", "string?", "POLICY/RULE"},
    {"decision", "author", "string?", NULL},
};

static json_t *
words(const char *type, size_t n)
{
    json_t *array = json_array();

    for (size_t i = 0, length; i < n; i += length + 1) {
        length = strcspn(type + i, "|?");
        json_array_append_new(array, json_stringn(type + i, length));
    }
    return array;
}

static json_t *
type_schema(const char *type)
{
    size_t n = strcspn(type, "?");
    char name[40];

    if (!strncmp(type, "[]", 2)) {
        return json_pack("{s:s, s:o}", "type", "array", "items", type_schema(type + 2));
    }
    if (memchr(type, '|', n)) {
        return json_pack("{s:s, s:o}", "type", "string", "enum", words(type, n));
    }
    snprintf(name, sizeof name, "%.*s", (int)n, type);
    if (*type == '#') {
        return rest_schema_ref(name + 1, "");
    }
    return !strcmp(name, "integer") ? json_pack("{s:s, s:s}", "type", "integer", "format", "int64")
                                    : json_pack("{s:s}", "type", name);
}

static void
add_member(json_t *schema, const struct row *row)
{
    json_t *properties = json_object_get(schema, "properties"), *one;

    if (!properties) {
        properties = json_object();
        json_object_set_new(schema, "properties", properties);
    }
    one = type_schema(row->type);
    if (row->about && !json_object_get(one, "$ref")) { /* beside it nothing counts */
        json_object_set_new(one, "description", json_string(row->about));
    }
    json_object_set_new(properties, row->member, one);
    if (!strchr(row->type, '?')) {
        if (!json_object_get(schema, "required")) {
            json_object_set_new(schema, "required", json_array());
        }
        json_array_append_new(json_object_get(schema, "required"), json_string(row->member));
    }
}

static void
add_rows(json_t *schemas, const struct row *rows, size_t n, bool closed)
{
    for (size_t i = 0; i < n; i++) {
        json_t *schema = json_object_get(schemas, rows[i].schema);
        if (!schema) {
            schema = json_pack("{s:s}", "type", "object");
            json_object_set_new(schemas, rows[i].schema, schema);
            if (closed) {
                json_object_set_new(schema, "additionalProperties", json_false());
            }
        }
        if (*rows[i].member) {
            add_member(schema, &rows[i]);
        } else {
            json_object_set_new(schema, "description", json_string(rows[i].about));
        }
    }
}

json_t *
rest_schemas(void)
{
    json_t *schemas = json_object();
    char name[80];

    for (size_t i = 0; i < n_pool_classes; i++) {
        const struct pool_class *c = &pool_classes[i];
        for (enum form form = ANSWERED; form <= CHANGED; form++) {
            if (form == STATED && c->single) {
                continue;
            }
            snprintf(name, sizeof name, "%s%s", c->noun, suffixes[form]);
            json_object_set_new(schemas, name, class_schema(c, form));
        }
    }
    json_object_set_new(schemas, "document", document_schema());
    json_object_set_new(schemas, "edit", edit_schema());
    json_object_set_new(schemas, "commit", commit_schema());
    add_rows(schemas, bodies, sizeof bodies / sizeof bodies[0], true);
    add_rows(schemas, answers, sizeof answers / sizeof answers[0], false);
    return schemas;
}
