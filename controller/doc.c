#include "doc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ovs/jansson_ns.h"

static void *
need(void *p)
{
    if (!p) {
        abort();
    }
    return p;
}

/* --- errors -------------------------------------------------------------------------- */

void
doc_errors_add(struct doc_errors *errors, const char *object, const char *field, const char *format,
               ...)
{
    struct doc_error *e;
    va_list args;

    if (errors->n == DOC_MAX_ERRORS) {
        errors->more = true;
        return;
    }
    errors->e = need(realloc(errors->e, (errors->n + 1) * sizeof *errors->e));
    e = &errors->e[errors->n++];
    e->object = need(strdup(object));
    e->field = need(strdup(field));
    va_start(args, format);
    if (vasprintf(&e->message, format, args) < 0) {
        abort();
    }
    va_end(args);
}

void
doc_errors_clear(struct doc_errors *errors)
{
    for (size_t i = 0; i < errors->n; i++) {
        free(errors->e[i].object);
        free(errors->e[i].field);
        free(errors->e[i].message);
    }
    free(errors->e);
    memset(errors, 0, sizeof *errors);
}

void
doc_label(const struct rec *r, char *label, size_t size)
{
    bool rule = r->kind == REC_RULE;

    snprintf(label, size, "%s %.130s%s%.130s", rec_tables[r->kind].noun,
             rule ? r->v[REC_RULE_POLICY].s : r->name, rule ? "/" : "", rule ? r->name : "");
}

/* --- documents ------------------------------------------------------------------------- */

struct doc *
doc_create(void)
{
    return need(calloc(1, sizeof(struct doc)));
}

void
doc_free(struct doc *doc)
{
    if (!doc) {
        return;
    }
    for (size_t i = 0; i < doc->n; i++) {
        rec_destroy(&doc->items[i].rec);
        free(doc->items[i].rename);
        free(doc->items[i].uuid);
    }
    free(doc->items);
    free(doc);
}

struct doc_item *
doc_append(struct doc *doc, enum rec_kind kind)
{
    struct doc_item *item;

    if (doc->n == doc->cap) {
        doc->cap = doc->cap ? 2 * doc->cap : 8;
        doc->items = need(realloc(doc->items, doc->cap * sizeof *doc->items));
    }
    item = &doc->items[doc->n++];
    memset(item, 0, sizeof *item);
    rec_init(&item->rec, kind);
    return item;
}

/* --- reading ------------------------------------------------------------------------------ */

/* Reads an object's members into a record. */
struct reading {
    struct rec *rec;
    struct doc_errors *errors;
    const char *label;
};

static void bad(struct reading *, const char *field, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void
bad(struct reading *rd, const char *field, const char *format, ...)
{
    char why[256];
    va_list args;

    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    doc_errors_add(rd->errors, rd->label, field, "%s", why);
}

static void
read_list(struct reading *rd, unsigned f, const json_t *value)
{
    const struct rec_field *field = &rec_tables[rd->rec->kind].fields[f];
    json_t *member;
    size_t i;

    if (!json_is_array(value)) {
        bad(rd, field->name, "must be an array of strings");
        return;
    }
    if (json_array_size(value) > (size_t)field->max) {
        bad(rd, field->name, "has %zu members, at most %lld are possible", json_array_size(value),
            (long long)field->max);
        return;
    }
    rd->rec->given |= 1u << f; /* an empty one, too */
    json_array_foreach(value, i, member)
    {
        if (!json_is_string(member)) {
            bad(rd, field->name, "must be an array of strings");
            return;
        }
        rec_add(rd->rec, f, json_string_value(member));
    }
}

static void
read_value(struct reading *rd, unsigned f, const json_t *value)
{
    const struct rec_field *field = &rec_tables[rd->rec->kind].fields[f];

    switch (field->type) {
    case REC_STRING:
    case REC_ENUM:
    case REC_REF:
        if (json_is_string(value)) {
            rec_set_string(rd->rec, f, json_string_value(value));
        } else if (json_is_null(value) && field->type == REC_REF) {
            rec_set_string(rd->rec, f, "");
        } else {
            bad(rd, field->name, "must be a string");
        }
        break;
    case REC_INT:
    case REC_OPT_INT:
        if (json_is_integer(value)) {
            rec_set_int(rd->rec, f, json_integer_value(value));
        } else if (json_is_null(value) && field->type == REC_OPT_INT) {
            rec_set_int(rd->rec, f, -1);
        } else {
            bad(rd, field->name, "must be a whole number");
        }
        break;
    case REC_BOOL:
        if (json_is_boolean(value)) {
            rec_set_int(rd->rec, f, json_is_true(value));
        } else {
            bad(rd, field->name, "must be true or false");
        }
        break;
    case REC_STRINGS:
    case REC_REFS:
        read_list(rd, f, value);
        break;
    }
}

/* "POLICY/RULE" sets both. */
static void
set_name(struct rec *r, const char *name)
{
    const char *slash = r->kind == REC_RULE ? strchr(name, '/') : NULL;

    free(r->name);
    r->name = need(strdup(slash ? slash + 1 : name));
    if (slash) {
        char *policy = need(strndup(name, slash - name));

        rec_set_string(r, REC_RULE_POLICY, policy);
        free(policy);
    }
}

static bool
name_is(const struct rec *r, const char *name)
{
    struct rec other;
    bool same;

    rec_init(&other, r->kind);
    set_name(&other, name);
    same = !strcmp(other.name, r->name) &&
           (r->kind != REC_RULE || !*other.v[REC_RULE_POLICY].s ||
            !strcmp(other.v[REC_RULE_POLICY].s, r->v[REC_RULE_POLICY].s));
    rec_destroy(&other);
    return same;
}

/* Status that a reader got and sends back is passed over; "rules" is the
 * caller's. */
static bool
is_passed_over(const struct rec *r, const char *member)
{
    return !strcmp(member, "uuid") || !strcmp(member, "key") ||
           (r->kind == REC_POLICY && !strcmp(member, "rules"));
}

static void
read_members(struct reading *rd, const json_t *body)
{
    const char *member;
    json_t *value;

    json_object_foreach((json_t *)body, member, value)
    {
        int f = rec_field_index(rd->rec->kind, member);

        if (!strcmp(member, "name")) {
            if (json_is_string(value)) {
                set_name(rd->rec, json_string_value(value));
            } else {
                bad(rd, "name", "must be a string");
            }
        } else if (f >= 0) {
            read_value(rd, f, value);
        } else if (!is_passed_over(rd->rec, member)) {
            bad(rd, member, "is no field of a %s", rec_tables[rd->rec->kind].noun);
        }
    }
    rec_normalize(rd->rec);
}

static void
label_body(enum rec_kind kind, const char *within, const json_t *body, char *label, size_t size)
{
    const char *name = json_string_value(json_object_get(body, "name"));

    snprintf(label, size, "%s %.130s%s%.130s", rec_tables[kind].noun, within ? within : "",
             within ? "/" : "", name ? name : "");
}

/* A rule nobody named has a name that tells its place; it is the same the next
 * time the same is read. */
static void
name_rule(struct rec *r, json_t *names)
{
    char name[96];

    for (unsigned n = 1; !*r->name; n++) {
        snprintf(name, sizeof name, "%.40s-%lld-%.20s", r->v[REC_RULE_PART].s,
                 (long long)r->v[REC_RULE_ORDER].i, r->v[REC_RULE_DIRECTION].s);
        if (n > 1) {
            snprintf(name + strlen(name), sizeof name - strlen(name), "-%u", n);
        }
        if (!json_object_get(names, name)) {
            free(r->name);
            r->name = need(strdup(name));
        }
    }
    json_object_set_new(names, r->name, json_true());
}

/* Names that are stated, so that made ones differ. */
static json_t *
stated_names(const json_t *rules)
{
    json_t *names = need(json_object()), *rule;
    size_t i;

    json_array_foreach(rules, i, rule)
    {
        const char *name = json_string_value(json_object_get(rule, "name"));

        if (name) {
            json_object_set_new(names, name, json_true());
        }
    }
    return names;
}

static void
read_rules(struct doc *doc, const char *policy, const json_t *rules, struct doc_errors *errors)
{
    json_t *names, *rule;
    char label[300];
    size_t i;

    if (!json_is_array(rules)) {
        snprintf(label, sizeof label, "policy %.130s", policy);
        doc_errors_add(errors, label, "rules", "must be an array of objects");
        return;
    }
    names = stated_names(rules);
    json_array_foreach(rules, i, rule)
    {
        struct reading rd = {.errors = errors, .label = label};

        label_body(REC_RULE, policy, rule, label, sizeof label);
        if (!json_is_object(rule)) {
            doc_errors_add(errors, label, "", "must be an object");
            continue;
        }
        rd.rec = &doc_append(doc, REC_RULE)->rec;
        read_members(&rd, rule);
        if (rd.rec->given & 1u << REC_RULE_POLICY && strcmp(rd.rec->v[REC_RULE_POLICY].s, policy)) {
            bad(&rd, "policy", "is \"%.60s\", but the rule stands in policy \"%.60s\"",
                rd.rec->v[REC_RULE_POLICY].s, policy);
        }
        rec_set_string(rd.rec, REC_RULE_POLICY, policy);
        name_rule(rd.rec, names);
    }
    json_decref(names);
}

static bool
add_object(struct doc *doc, enum rec_kind kind, const char *name, const json_t *body,
           struct doc_errors *errors)
{
    size_t errors_before = errors->n, at = doc->n;
    const json_t *rules = kind == REC_POLICY ? json_object_get(body, "rules") : NULL;
    const char *uuid = json_string_value(json_object_get(body, "uuid"));
    struct reading rd = {.errors = errors};
    char label[300];

    label_body(kind, NULL, body, label, sizeof label);
    if (name && !json_object_get(body, "name")) {
        snprintf(label, sizeof label, "%s %.260s", rec_tables[kind].noun, name);
    }
    if (!json_is_object(body)) {
        doc_errors_add(errors, label, "", "must be an object");
        return false;
    }
    rd.label = label;
    rd.rec = &doc_append(doc, kind)->rec;
    if (name) {
        set_name(rd.rec, name);
    }
    read_members(&rd, body);
    if (name && !name_is(rd.rec, name)) {
        doc->items[at].rename = need(strdup(name));
    }
    if (uuid && rec_is_uuid(uuid)) {
        doc->items[at].uuid = need(strdup(uuid));
    }
    if (kind == REC_RULE && !*rd.rec->name) {
        json_t *none = need(json_object());

        name_rule(rd.rec, none);
        json_decref(none);
    }
    if (rules) {
        char *policy = need(strdup(rd.rec->name));

        doc->items[at].all_rules = true;
        read_rules(doc, policy, rules, errors);
        free(policy);
    }
    return errors->n == errors_before;
}

bool
doc_add(struct doc *doc, enum rec_kind kind, const char *name, const json_t *body,
        struct doc_errors *errors)
{
    return add_object(doc, kind, kind == REC_POOL ? NULL : name, body, errors);
}

bool
doc_add_removal(struct doc *doc, enum rec_kind kind, const char *name, struct doc_errors *errors)
{
    struct doc_item *item;

    if (kind == REC_POOL) {
        doc_errors_add(errors, "pool", "", "cannot be removed");
        return false;
    }
    item = doc_append(doc, kind);
    set_name(&item->rec, name);
    item->remove = true;
    return true;
}

/* --- whole documents ------------------------------------------------------------------------ */

static void
read_kind(struct doc *doc, enum rec_kind kind, const json_t *value, struct doc_errors *errors)
{
    json_t *body;
    size_t i;

    doc->kinds |= 1u << kind;
    if (kind == REC_POOL) {
        add_object(doc, kind, NULL, value, errors);
        return;
    }
    if (!json_is_array(value)) {
        doc_errors_add(errors, "", rec_tables[kind].member, "must be an array of objects");
        return;
    }
    json_array_foreach(value, i, body)
    {
        add_object(doc, kind, NULL, body, errors);
    }
}

static bool
depth_is_fine(const json_t *value, unsigned depth)
{
    const char *member;
    json_t *in;
    size_t i;

    if (depth > DOC_MAX_DEPTH) {
        return false;
    }
    if (json_is_array(value)) {
        json_array_foreach(value, i, in)
        {
            if (!depth_is_fine(in, depth + 1)) {
                return false;
            }
        }
    } else if (json_is_object(value)) {
        json_object_foreach((json_t *)value, member, in)
        {
            if (!depth_is_fine(in, depth + 1)) {
                return false;
            }
        }
    }
    return true;
}

struct doc *
doc_from_json(const json_t *json, struct doc_errors *errors)
{
    const json_t *version = json_object_get(json, "version");
    size_t errors_before = errors->n;
    struct doc *doc;
    const char *member;
    json_t *value;

    if (!json_is_object(json)) {
        doc_errors_add(errors, "", "", "must be a JSON object");
        return NULL;
    }
    if (!depth_is_fine(json, 1)) {
        doc_errors_add(errors, "", "", "is nested more than %u deep", DOC_MAX_DEPTH);
        return NULL;
    }
    if (!json_is_integer(version) || json_integer_value(version) != DOC_VERSION) {
        doc_errors_add(errors, "", "version", "must be %d", DOC_VERSION);
        return NULL;
    }
    doc = doc_create();
    json_object_foreach((json_t *)json, member, value)
    {
        enum rec_kind kind = REC_POOL;

        while (kind < REC_N_KINDS && strcmp(member, rec_tables[kind].member)) {
            kind++;
        }
        if (kind == REC_RULE) {
            doc_errors_add(errors, "", member, "stand in their policies");
        } else if (kind < REC_N_KINDS) {
            read_kind(doc, kind, value, errors);
        } else if (strcmp(member, "version")) {
            doc_errors_add(errors, "", member, "is no member of a document");
        }
    }
    if (errors->n != errors_before) {
        doc_free(doc);
        return NULL;
    }
    return doc;
}

/* Before anything is allocated for it. */
static bool
text_is_shallow(const char *text, size_t len)
{
    bool in_string = false;
    unsigned depth = 0;

    for (size_t i = 0; i < len; i++) {
        if (in_string && text[i] == '\\') {
            i++;
        } else if (in_string) {
            in_string = text[i] != '"';
        } else if (text[i] == '"') {
            in_string = true;
        } else if (text[i] == '[' || text[i] == '{') {
            if (++depth > DOC_MAX_DEPTH) {
                return false;
            }
        } else if ((text[i] == ']' || text[i] == '}') && depth) {
            depth--;
        }
    }
    return true;
}

struct doc *
doc_parse(const char *text, size_t len, struct doc_errors *errors)
{
    json_error_t why;
    struct doc *doc;
    json_t *json;

    if (len > DOC_MAX_BYTES) {
        doc_errors_add(errors, "", "", "has more than %u bytes", DOC_MAX_BYTES);
        return NULL;
    }
    if (!text_is_shallow(text, len)) {
        doc_errors_add(errors, "", "", "is nested more than %u deep", DOC_MAX_DEPTH);
        return NULL;
    }
    json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!json) {
        doc_errors_add(errors, "", "", "line %d: %s", why.line, why.text);
        return NULL;
    }
    doc = doc_from_json(json, errors);
    json_decref(json);
    return doc;
}

/* --- writing ------------------------------------------------------------------------------------
 */

static json_t *
string(const char *s)
{
    json_t *json = json_string(s);

    /* What is no UTF-8 cannot come from the database, nor from a document. */
    return json ? json : need(json_string("?"));
}

static bool
is_default(const struct rec_field *field, const struct rec_value *v)
{
    switch (field->type) {
    case REC_STRING:
    case REC_ENUM:
    case REC_REF:
        return field->def && !strcmp(v->s, field->def);
    case REC_INT:
    case REC_OPT_INT:
    case REC_BOOL:
        return field->def && v->i == strtoll(field->def, NULL, 10);
    case REC_STRINGS:
    case REC_REFS:
        return !v->n;
    }
    return false;
}

static json_t *
value_json(const struct rec_field *field, const struct rec_value *v)
{
    json_t *array;

    switch (field->type) {
    case REC_STRING:
    case REC_ENUM:
        return string(v->s);
    case REC_REF:
        return *v->s ? string(v->s) : json_null();
    case REC_INT:
        return need(json_integer(v->i));
    case REC_OPT_INT:
        return v->i < 0 ? json_null() : need(json_integer(v->i));
    case REC_BOOL:
        return json_boolean(v->i);
    case REC_STRINGS:
    case REC_REFS:
        break;
    }
    array = need(json_array());
    for (size_t i = 0; i < v->n; i++) {
        json_array_append_new(array, string(v->list[i]));
    }
    return array;
}

json_t *
doc_record_json(const struct rec *r, bool all)
{
    json_t *json = need(json_object());

    json_object_set_new(json, "name", string(r->name));
    for (unsigned f = 0; f < rec_tables[r->kind].n_fields; f++) {
        const struct rec_field *field = &rec_tables[r->kind].fields[f];

        if (all || !is_default(field, &r->v[f])) {
            json_object_set_new(json, field->name, value_json(field, &r->v[f]));
        }
    }
    return json;
}

static void
append(json_t *root, const char *member, json_t *value)
{
    json_t *array = json_object_get(root, member);

    if (!array) {
        array = need(json_array());
        json_object_set_new(root, member, array);
    }
    json_array_append_new(array, value);
}

json_t *
doc_to_json(const struct doc *doc)
{
    json_t *root = need(json_object()), *policies = need(json_object());

    json_object_set_new(root, "version", json_integer(DOC_VERSION));
    for (enum rec_kind k = 0; k < REC_N_KINDS; k++) {
        if (doc->kinds & 1u << k && k != REC_POOL && k != REC_RULE) {
            json_object_set_new(root, rec_tables[k].member, json_array());
        }
    }
    for (size_t i = 0; i < doc->n; i++) {
        const struct rec *r = &doc->items[i].rec;
        json_t *json = doc_record_json(r, false);

        if (doc->items[i].uuid) {
            json_object_set_new(json, "uuid", string(doc->items[i].uuid));
        }
        if (r->kind == REC_POOL) {
            json_object_set_new(root, "pool", json);
        } else if (r->kind == REC_RULE) {
            json_object_del(json, "policy");
            append(json_object_get(policies, r->v[REC_RULE_POLICY].s), "rules", json);
        } else {
            if (r->kind == REC_POLICY) {
                json_object_set_new(json, "rules", json_array());
                json_object_set(policies, r->name, json);
            }
            append(root, rec_tables[r->kind].member, json);
        }
    }
    json_decref(policies);
    return root;
}
