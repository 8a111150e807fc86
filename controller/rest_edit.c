#include <stdio.h>
#include <string.h>

#include "rest_priv.h"

/* References from an object to its tenant: vif, vm, tenant; rule, policy, vif, vm. */
#define OWNER_DEPTH 6

/* --- who owns what --------------------------------------------------------------- */

/* The tenant that the object leads to; "" if it is the pool's, or refers to
 * what is not there. */
static void
owner_of(struct rest *r, const struct pool_class *class, const json_t *object, char *to,
         size_t size, int depth)
{
    *to = '\0';
    if (!strcmp(class->noun, "tenant")) {
        const char *name = json_string_value(json_object_get(object, "name"));
        snprintf(to, size, "%s", name ? name : "");
        return;
    }
    for (size_t i = 0; i < class->n_fields && depth; i++) {
        const struct pool_field *f = &class->fields[i];
        const char *name = json_string_value(json_object_get(object, f->name));
        if (!(f->flags & POOL_OWNER) || !name || !*name) {
            continue;
        }
        const struct pool_class *ref = pool_class_by_noun(f->ref);
        json_t *next = r->config.ops->object(r->config.aux, ref, name);
        if (next) {
            owner_of(r, ref, next, to, size, depth - 1);
            json_decref(next);
        }
        return;
    }
}

static bool
owns(struct rest *r, const struct rest_user *u, const struct pool_class *class,
     const json_t *object)
{
    char owner[129];

    owner_of(r, class, object, owner, sizeof owner, OWNER_DEPTH);
    return *u->tenant && !strcmp(owner, u->tenant);
}

/* Without an owner of any kind: hosts, users. */
static bool
ownable(const struct pool_class *class)
{
    for (size_t i = 0; i < class->n_fields; i++) {
        if (class->fields[i].flags & POOL_OWNER) {
            return true;
        }
    }
    return !strcmp(class->noun, "tenant");
}

bool
rest_may_see(struct rest *r, const struct rest_user *u, const struct pool_class *class,
             const json_t *object)
{
    const char *tenant;

    if (u->role != POOL_ROLE_TENANT) {
        return pool_may_read(class, u->role);
    }
    if (class->single) {
        return true;
    }
    if (!ownable(class)) {
        return false;
    }
    /* Groups of the whole pool are there to be named by anyone's rules. */
    tenant = json_string_value(json_object_get(object, "tenant"));
    if (!strcmp(class->noun, "group") && (!tenant || !*tenant)) {
        return true;
    }
    return owns(r, u, class, object);
}

/* --- values ------------------------------------------------------------------------- */

struct edit {
    const struct pool_class *class;
    const char *op, *name;
    json_t *values, *object; /* borrowed; 'object' NULL: it is to be added */
    char label[300];         /* "network blue" */
};

static bool
is_word(const json_t *value)
{
    const char *s = json_string_value(value);

    return s && strlen(s) == json_string_length(value);
}

static bool
type_ok(const struct pool_field *f, const json_t *value)
{
    size_t i;
    json_t *member;

    if (f->flags & POOL_SET) {
        if (!json_is_array(value)) {
            return false;
        }
        json_array_foreach(value, i, member)
        {
            if (!is_word(member)) {
                return false;
            }
        }
        return true;
    }
    return f->type == POOL_INTEGER   ? json_is_integer(value)
           : f->type == POOL_BOOLEAN ? json_is_boolean(value)
                                     : is_word(value);
}

static bool
holds(const json_t *array, const json_t *value)
{
    size_t i;
    json_t *member;

    json_array_foreach(array, i, member)
    {
        if (json_equal(member, value)) {
            return true;
        }
    }
    return false;
}

/* {"add": [...], "remove": [...]} of what stands.  NULL: not in form. */
static json_t *
changed_set(const struct edit *e, const struct pool_field *f, const json_t *value)
{
    json_t *add = json_object_get(value, "add"), *remove = json_object_get(value, "remove");
    json_t *result, *member;
    size_t i;

    if (!e->object || json_object_size(value) != (size_t) !!add + !!remove ||
        (add && !type_ok(f, add)) || (remove && !type_ok(f, remove))) {
        return NULL;
    }
    result = json_array();
    json_array_foreach(json_object_get(e->object, f->name), i, member)
    {
        if (!holds(remove, member)) {
            json_array_append(result, member);
        }
    }
    json_array_foreach(add, i, member)
    {
        if (!holds(result, member)) {
            json_array_append(result, member);
        }
    }
    return result;
}

static bool
value_ok(const struct rest_user *u, struct edit *e, const char *key, json_t *value,
         struct rest_fault *fault)
{
    const struct pool_field *f = pool_field_find(e->class, key);
    static const char *const types[] = {"a string", "an integer", "true or false", "a name"};

    if (!strcmp(key, "name")) {
        if (!is_word(value) || !*json_string_value(value)) {
            rest_fault_set(fault, 422, "invalid", e->label, key, "must be a string");
            return false;
        }
        return true;
    }
    if (!f) {
        rest_fault_set(fault, 422, "invalid", e->label, key, "%s has no such field",
                       e->class->noun);
        return false;
    }
    if (!pool_may_write(e->class, f, u->role)) {
        rest_fault_set(fault, 403, "denied", e->label, key,
                       f->flags & POOL_STATUS ? "only the controller sets it"
                                              : "role %s may not set it",
                       pool_role_name(u->role));
        return false;
    }
    if (f->flags & POOL_SET && json_is_object(value)) {
        value = changed_set(e, f, value);
        if (value) {
            json_object_set_new(e->values, key, value);
        }
    }
    if (!value || (!json_is_null(value) && !type_ok(f, value))) {
        rest_fault_set(fault, 422, "invalid", e->label, key,
                       f->flags & POOL_SET
                           ? "must be an array of strings, or {\"add\": [...], \"remove\": [...]} "
                             "of what stands"
                           : "must be %s",
                       types[f->type]);
        return false;
    }
    return true;
}

/* --- a tenant's edits ------------------------------------------------------------------- */

static bool
ref_ok(struct rest *r, const struct rest_user *u, const struct edit *e, const struct pool_field *f,
       const char *name, struct rest_fault *fault)
{
    const struct pool_class *class = pool_class_by_noun(f->ref);
    json_t *to = *name ? r->config.ops->object(r->config.aux, class, name) : NULL;
    bool ok = !*name || (to && rest_may_see(r, u, class, to));

    json_decref(to);
    if (!ok) { /* whether it is there is not for its eyes */
        rest_fault_set(fault, 422, "invalid", e->label, f->name, "there is no %s \"%.200s\"",
                       class->noun, name);
    }
    return ok;
}

static bool
refs_ok(struct rest *r, const struct rest_user *u, const struct edit *e, struct rest_fault *fault)
{
    const char *key;
    json_t *value, *member;
    size_t i;

    json_object_foreach(e->values, key, value)
    {
        const struct pool_field *f = pool_field_find(e->class, key);
        if (!f || f->type != POOL_REF) {
            continue;
        }
        if (json_is_string(value) && !ref_ok(r, u, e, f, json_string_value(value), fault)) {
            return false;
        }
        json_array_foreach(value, i, member)
        {
            if (!ref_ok(r, u, e, f, json_string_value(member), fault)) {
                return false;
            }
        }
    }
    return true;
}

/* It must be the tenant's before and after. */
static bool
tenant_ok(struct rest *r, const struct rest_user *u, const struct edit *e, struct rest_fault *fault)
{
    json_t *after = json_object();
    bool ok;

    if (e->object) {
        json_object_update(after, e->object);
    }
    if (e->values) {
        json_object_update(after, e->values);
    }
    ok = (!e->object || owns(r, u, e->class, e->object)) && owns(r, u, e->class, after);
    json_decref(after);
    if (!ok) {
        rest_fault_set(fault, 403, "denied", e->label, NULL,
                       "tenant %s may change only what is its own", u->tenant);
        return false;
    }
    return refs_ok(r, u, e, fault);
}

/* --- edits -------------------------------------------------------------------------------- */

static bool
members_ok(const json_t *edit, struct edit *e, struct rest_fault *fault)
{
    const char *class = json_string_value(json_object_get(edit, "class"));
    json_t *name = json_object_get(edit, "name");
    const char *key;
    json_t *value;

    e->op = json_string_value(json_object_get(edit, "op"));
    e->class = class ? pool_class_by_noun(class) : NULL;
    e->name = is_word(name) ? json_string_value(name) : "";
    e->values = json_object_get(edit, "values");
    if (!e->op || (strcmp(e->op, "add") && strcmp(e->op, "set") && strcmp(e->op, "remove"))) {
        rest_fault_set(fault, 422, "invalid", "edit", "op", "must be add, set or remove");
        return false;
    }
    if (!e->class) {
        rest_fault_set(fault, 422, "invalid", "edit", "class", "names no class: network, vif ...");
        return false;
    }
    snprintf(e->label, sizeof e->label, "%s%s%s", e->class->noun, *e->name ? " " : "", e->name);
    if (e->class->single ? strcmp(e->op, "set") != 0 : !*e->name) {
        rest_fault_set(fault, 422, "invalid", e->label, e->class->single ? "op" : "name",
                       e->class->single ? "must be set" : "must be given");
        return false;
    }
    if (!strcmp(e->op, "remove") ? e->values != NULL : !json_is_object(e->values)) {
        rest_fault_set(fault, 422, "invalid", e->label, "values",
                       "must be an object with add and set, and not be there with remove");
        return false;
    }
    json_object_foreach((json_t *)edit, key, value)
    {
        if (strcmp(key, "op") && strcmp(key, "class") && strcmp(key, "name") &&
            strcmp(key, "values")) {
            rest_fault_set(fault, 422, "invalid", "edit", key, "an edit has no such member");
            return false;
        }
    }
    return true;
}

static bool
check(struct rest *r, const struct rest_user *u, struct edit *e, struct rest_fault *fault)
{
    bool add = !strcmp(e->op, "add");
    const char *key;
    json_t *value;
    void *next;

    if (!pool_may_write(e->class, NULL, u->role)) {
        rest_fault_set(fault, 403, "denied", e->label, NULL, "role %s may not change it",
                       pool_role_name(u->role));
        return false;
    }
    if (add && e->object) {
        rest_fault_set(fault, 409, "conflict", e->label, "name", "it exists already");
        return false;
    }
    if (!add && (!e->object || !rest_may_see(r, u, e->class, e->object))) {
        rest_fault_set(fault, 404, "not_found", e->label, NULL, "there is no %s \"%.200s\"",
                       e->class->noun, e->name);
        return false;
    }
    json_object_foreach_safe(e->values, next, key, value)
    {
        if (!value_ok(u, e, key, value, fault)) {
            return false;
        }
    }
    return u->role != POOL_ROLE_TENANT || tenant_ok(r, u, e, fault);
}

bool
rest_edits_check(struct rest *r, const struct rest_user *u, json_t *edits, struct rest_fault *fault)
{
    json_t *edit;
    size_t i;

    if (!json_is_array(edits) || !json_array_size(edits)) {
        rest_fault_set(fault, 422, "invalid", NULL, "edits", "must be an array of edits");
        return false;
    }
    json_array_foreach(edits, i, edit)
    {
        struct edit e;
        if (!members_ok(edit, &e, fault)) {
            return false;
        }
        e.object = r->config.ops->object(r->config.aux, e.class, e.name);
        bool ok = check(r, u, &e, fault);
        json_decref(e.object);
        if (!ok) {
            return false;
        }
    }
    return true;
}

/* --- documents ------------------------------------------------------------------------------ */

void
rest_document_hide(const struct rest_user *u, json_t *document)
{
    for (size_t i = 0; i < n_pool_classes; i++) {
        if (!pool_may_read(&pool_classes[i], u->role)) {
            json_object_del(document, pool_classes[i].plural);
        }
    }
}

bool
rest_document_check(struct rest *r, const struct rest_user *u, const json_t *document,
                    struct rest_fault *fault)
{
    json_t *now = NULL;
    bool ok = true;

    for (size_t i = 0; ok && i < n_pool_classes; i++) {
        const char *plural = pool_classes[i].plural;
        json_t *part = json_object_get(document, plural);
        if (!part || pool_may_write(&pool_classes[i], NULL, u->role)) {
            continue;
        }
        if (!now) {
            now = r->config.ops->export(r->config.aux);
        }
        ok = json_equal(part, json_object_get(now, plural));
        if (!ok) {
            rest_fault_set(fault, 403, "denied", plural, NULL,
                           "role %s may not change them; leave them out of the document",
                           pool_role_name(u->role));
        }
    }
    json_decref(now);
    return ok;
}

/* --- the unconfirmed commit ------------------------------------------------------------------ */

/* What the object of the document is called now, a new reference; NULL: that is not known. */
static json_t *
name_now(struct rest *r, const json_t *document, const struct pool_class *class, const char *name)
{
    json_t *object, *now, *fresh = NULL;
    size_t i;

    json_array_foreach(json_object_get(document, class->plural), i, object)
    {
        const char *old = json_string_value(json_object_get(object, "name"));
        const char *uuid = json_string_value(json_object_get(object, "uuid"));
        if (old && uuid && !strcmp(old, name)) {
            now = r->config.ops->object(r->config.aux, class, uuid);
            fresh = json_incref(json_object_get(now, "name"));
            json_decref(now);
            break;
        }
    }
    return fresh;
}

/* Objects of a class as the document has them, but without uuids, and what they name is
 * called as it is now. */
static json_t *
part_now(struct rest *r, const json_t *document, const struct pool_class *class)
{
    json_t *part = json_deep_copy(json_object_get(document, class->plural)), *object;
    size_t i;

    json_array_foreach(part, i, object)
    {
        json_object_del(object, "uuid");
        for (size_t f = 0; f < class->n_fields; f++) {
            const struct pool_field *field = &class->fields[f];
            const char *name = json_string_value(json_object_get(object, field->name));
            json_t *now = field->type == POOL_REF && name
                              ? name_now(r, document, pool_class_by_noun(field->ref), name)
                              : NULL;
            if (now) {
                json_object_set_new(object, field->name, now);
            }
        }
    }
    return part;
}

bool
rest_commit_check(struct rest *r, const struct rest_user *u, const json_t *before,
                  struct rest_fault *fault)
{
    json_t *document = json_object();
    bool ok;

    for (size_t i = 0; i < n_pool_classes; i++) {
        const struct pool_class *class = &pool_classes[i];
        if (!pool_may_write(class, NULL, u->role) && json_object_get(before, class->plural)) {
            json_object_set_new(document, class->plural, part_now(r, before, class));
        }
    }
    ok = rest_document_check(r, u, document, fault);
    json_decref(document);
    return ok;
}
