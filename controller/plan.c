#include <config.h>

#include "plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hmapx.h"
#include "model_impl.h"
#include "model_lint.h"
#include "openvswitch/shash.h"
#include "trunk_lint.h"
#include "util.h"

/* --- comparing -------------------------------------------------------------------------- */

struct planning {
    struct model *m;
    struct plan *plan;
    enum plan_mode mode;
    plan_read *read;
    void *aux;
    struct doc_errors *errors;
    struct shash names;  /* struct uuid of what the document states, by claim of its name */
    struct hmap touched; /* struct touched: what it states or removes */
};

struct touched {
    struct hmap_node node;
    struct uuid uuid;
    bool goes;
};

static struct touched *
find_touched(const struct planning *p, const struct uuid *uuid)
{
    struct touched *t;

    HMAP_FOR_EACH_WITH_HASH (t, node, uuid_hash(uuid), &p->touched) {
        if (uuid_equals(&t->uuid, uuid)) {
            return t;
        }
    }
    return NULL;
}

/* False if it was before. */
static bool
touch(struct planning *p, const struct uuid *uuid, bool goes)
{
    struct touched *t;

    if (find_touched(p, uuid)) {
        return false;
    }
    t = xmalloc(sizeof *t);
    t->uuid = *uuid;
    t->goes = goes;
    hmap_insert(&p->touched, &t->node, uuid_hash(uuid));
    return true;
}

static void fault(struct planning *, const struct rec *, const char *field, const char *format, ...)
    OVS_PRINTF_FORMAT(4, 5);

static void
fault(struct planning *p, const struct rec *r, const char *field, const char *format, ...)
{
    struct rec named;
    char label[300], *why;
    struct uuid policy;
    va_list args;

    va_start(args, format);
    why = xvasprintf(format, args);
    va_end(args);
    rec_copy(&named, r);
    if (r->kind == REC_RULE && uuid_from_string(&policy, r->v[REC_RULE_POLICY].s)) {
        const struct model_obj *obj = model_find(p->m, REC_POLICY, &policy);

        rec_set_string(&named, REC_RULE_POLICY, obj ? obj->name : "");
    }
    doc_label(&named, label, sizeof label);
    doc_errors_add(p->errors, label, field, "%s", why);
    rec_destroy(&named);
    free(why);
}

/* The object that a name or uuid means once the document holds. */
static bool
resolve(const struct planning *p, enum rec_kind kind, const char *name, const struct uuid *policy,
        struct uuid *uuid)
{
    struct model_obj *obj;
    struct uuid *stated;
    char *claim;

    if (uuid_from_string(uuid, name)) {
        obj = model_find(p->m, kind, uuid);
        return obj || find_touched(p, uuid);
    }
    claim = model_name_claim(kind, name, policy);
    stated = shash_find_data(&p->names, claim);
    free(claim);
    if (stated) {
        *uuid = *stated;
        return true;
    }
    obj = model_any_by_name(p->m, kind, name, policy);
    if (obj) {
        *uuid = obj->uuid;
    }
    return obj;
}

static struct plan_op *
add_op(struct planning *p, enum plan_what what, const struct uuid *uuid)
{
    struct plan *plan = p->plan;
    struct plan_op *op;

    if (plan->n == plan->cap) {
        plan->ops = x2nrealloc(plan->ops, &plan->cap, sizeof *plan->ops);
    }
    op = &plan->ops[plan->n++];
    memset(op, 0, sizeof *op);
    op->what = what;
    op->uuid = *uuid;
    return op;
}

/* The policy of a rule's record, which may be a name or a uuid. */
static bool
policy_of(struct planning *p, const struct rec *r, struct uuid *policy)
{
    const char *name = r->v[REC_RULE_POLICY].s;

    *policy = UUID_ZERO;
    if (r->kind != REC_RULE || rec_is_uuid(r->name)) {
        return true;
    }
    if (!*name) {
        fault(p, r, "policy", "is missing");
        return false;
    }
    if (!resolve(p, REC_POLICY, name, NULL, policy)) {
        fault(p, r, "policy", "there is no policy \"%.60s\"", name);
        return false;
    }
    return true;
}

/* What the item is about: '*uuid' of what is there, or a new one. */
static bool
find_object(struct planning *p, const struct doc_item *item, struct uuid *uuid, bool *there)
{
    const char *slash, *name = item->rename ? item->rename : item->rec.name;
    struct model_obj *obj;
    struct uuid policy;

    *there = true;
    if (item->rec.kind == REC_POOL) {
        *uuid = UUID_ZERO;
        return true;
    }
    slash = item->rec.kind == REC_RULE && item->rename ? strchr(name, '/') : NULL;
    if (slash) {
        char *text = xmemdup0(name, slash - name);
        bool ok = resolve(p, REC_POLICY, text, NULL, &policy);

        free(text);
        name = slash + 1;
        if (!ok) {
            fault(p, &item->rec, "policy", "there is no policy \"%.60s\"", item->rename);
            return false;
        }
    } else if (!(item->rename && rec_is_uuid(name)) && !policy_of(p, &item->rec, &policy)) {
        return false;
    }
    if (uuid_from_string(uuid, name)) {
        obj = model_find(p->m, item->rec.kind, uuid);
    } else {
        obj = item->fresh ? NULL : model_any_by_name(p->m, item->rec.kind, name, &policy);
    }
    if (!obj && (item->remove || item->rename || rec_is_uuid(name))) {
        fault(p, &item->rec, "name", "there is no %s \"%.60s\"", rec_tables[item->rec.kind].noun,
              name);
        return false;
    }
    *there = obj;
    if (obj) {
        *uuid = obj->uuid;
    } else {
        uuid_generate(uuid);
    }
    return true;
}

static void
set_name(struct rec *r, const char *name)
{
    free(r->name);
    r->name = strdup(name);
}

/* Turns an item into an operation; references are names yet. */
static void
plan_item(struct planning *p, const struct doc_item *item)
{
    const struct rec *r = &item->rec;
    struct plan_op *op;
    struct uuid uuid;
    bool there;

    if (!find_object(p, item, &uuid, &there)) {
        return;
    }
    if (!touch(p, &uuid, item->remove)) {
        fault(p, r, "name", "is stated twice");
        return;
    }
    op = add_op(p, item->remove ? PLAN_DELETE : there ? PLAN_CHANGE : PLAN_CREATE, &uuid);
    if (there && !p->read(p->aux, r->kind, &uuid, &op->before)) {
        fault(p, r, "", "has gone meanwhile");
        p->plan->n--;
        return;
    }
    if (item->remove) {
        return;
    }
    if (there && p->mode == PLAN_MERGE) {
        rec_copy(&op->after, &op->before);
        rec_overlay(&op->after, r);
        op->after.given = UINT32_MAX;
    } else {
        rec_copy(&op->after, r);
    }
    if (there) {
        rec_keep(&op->after, &op->before);
    }
    set_name(&op->after, there && (rec_is_uuid(r->name) || !*r->name) ? op->before.name : r->name);
}

static void
state_name(struct planning *p, const struct plan_op *op)
{
    const struct rec *r = &op->after;
    struct uuid policy = UUID_ZERO;
    struct uuid *copy;
    char *claim;

    if (op->what == PLAN_DELETE || r->kind == REC_POOL ||
        (r->kind == REC_RULE && !resolve(p, REC_POLICY, r->v[REC_RULE_POLICY].s, NULL, &policy))) {
        return;
    }
    claim = model_name_claim(r->kind, r->name, &policy);
    copy = xmemdup(&op->uuid, sizeof op->uuid);
    if (!shash_add_once(&p->names, claim, copy)) {
        fault(p, r, "name", "is stated twice");
        free(copy);
    }
    free(claim);
}

/* --- what goes along ----------------------------------------------------------------------- */

static void delete_object(struct planning *, struct model_obj *);

/* Deletes those who name 'obj' in 'field' and are not in the document. */
static void
delete_referrers(struct planning *p, const struct uuid *uuid, enum model_field field)
{
    struct model_want *want;
    struct model_ref *ref;

    HMAP_FOR_EACH_WITH_HASH (want, node, uuid_hash(uuid), &p->m->wants) {
        if (uuid_equals(&want->uuid, uuid)) {
            LIST_FOR_EACH (ref, want_node, &want->refs) {
                if (ref->field == field && ref->from->present) {
                    delete_object(p, ref->from);
                }
            }
        }
    }
}

static void
delete_parts(struct planning *p, enum rec_kind kind, const struct uuid *uuid)
{
    if (kind == REC_POLICY) {
        delete_referrers(p, uuid, FIELD_RULE_POLICY);
    } else if (kind == REC_VM) {
        delete_referrers(p, uuid, FIELD_VIF_VM);
    } else if (kind == REC_VIF) {
        delete_referrers(p, uuid, FIELD_VIF_PARENT);
    }
}

static void
delete_object(struct planning *p, struct model_obj *obj)
{
    struct plan_op *op;

    if (touch(p, &obj->uuid, true)) {
        op = add_op(p, PLAN_DELETE, &obj->uuid);
        if (!p->read(p->aux, obj->kind, &obj->uuid, &op->before)) {
            p->plan->n--;
            return;
        }
        delete_parts(p, obj->kind, &obj->uuid);
    }
}

static bool
needs_what_goes(const struct planning *p, const struct rec *r)
{
    for (unsigned f = 0; f < rec_tables[r->kind].n_fields; f++) {
        const struct touched *t;
        struct uuid uuid;

        if (rec_tables[r->kind].fields[f].type == REC_REF && uuid_from_string(&uuid, r->v[f].s)) {
            t = find_touched(p, &uuid);
            if (t && t->goes) {
                return true;
            }
        }
    }
    return false;
}

/* Changes are refused while a commit may be taken back, but weft-xapid's VMs do not
 * come by way of us.  A vif of theirs goes with its network, for one; VMs never go. */
static bool
outlives(const struct planning *p, const struct model_obj *obj)
{
    bool stays = false;
    struct rec r;

    if (p->mode == PLAN_RESTORE && (obj->kind == REC_VM || obj->kind == REC_VIF) &&
        p->read(p->aux, obj->kind, &obj->uuid, &r)) {
        stays = r.of_toolstack && (obj->kind == REC_VM || !needs_what_goes(p, &r));
        rec_destroy(&r);
    }
    return stays;
}

static void
plan_deletions(struct planning *p, const struct doc *doc, const struct doc_item *const *items)
{
    size_t n = p->plan->n;
    struct model_obj *obj;

    for (size_t i = 0; i < n; i++) {
        if (p->plan->ops[i].what == PLAN_DELETE) {
            struct uuid uuid = p->plan->ops[i].uuid;

            delete_parts(p, p->plan->ops[i].before.kind, &uuid);
        }
    }
    for (size_t i = 0; i < doc->n; i++) {
        struct uuid uuid;
        bool there;

        if (items[i]->all_rules && find_object(p, items[i], &uuid, &there) && there) {
            delete_referrers(p, &uuid, FIELD_RULE_POLICY);
        }
    }
    for (enum rec_kind k = 0; p->mode != PLAN_MERGE && k < REC_N_KINDS; k++) {
        if (doc->kinds & 1u << k) {
            MODEL_FOR_EACH (obj, p->m, k) {
                if (obj->present && !outlives(p, obj)) {
                    delete_object(p, obj);
                }
            }
        }
    }
}

/* --- references ------------------------------------------------------------------------------ */

/* 'named' is as it was before anything was resolved: for what an error calls it. */
static void
resolve_text(struct planning *p, const struct rec *named, const struct rec_field *field,
             char **text)
{
    struct uuid uuid;

    if (!**text) {
        return;
    }
    if (!resolve(p, field->ref, *text, NULL, &uuid)) {
        fault(p, named, field->name, "there is no %s \"%.60s\"", rec_tables[field->ref].noun,
              *text);
        return;
    }
    free(*text);
    *text = xasprintf(UUID_FMT, UUID_ARGS(&uuid));
}

static void
resolve_record(struct planning *p, const struct rec *named, struct rec *r)
{
    for (unsigned f = 0; f < rec_tables[r->kind].n_fields; f++) {
        const struct rec_field *field = &rec_tables[r->kind].fields[f];

        if (field->type == REC_REF) {
            resolve_text(p, named, field, &r->v[f].s);
        }
        for (size_t i = 0; field->type == REC_REFS && i < r->v[f].n; i++) {
            resolve_text(p, named, field, &r->v[f].list[i]);
        }
    }
    rec_normalize(r);
}

static bool
rec_equal(const struct rec *a, const struct rec *b)
{
    if (strcmp(a->name, b->name)) {
        return false;
    }
    for (unsigned f = 0; f < rec_tables[a->kind].n_fields; f++) {
        if (!rec_value_equal(rec_tables[a->kind].fields[f].type, &a->v[f], &b->v[f])) {
            return false;
        }
    }
    return true;
}

/* Checks the records in form, then resolves; what makes no difference is left out. */
static void
finish_ops(struct planning *p)
{
    struct plan *plan = p->plan;
    const char *field;
    size_t n = 0;
    char why[512];

    for (size_t i = 0; i < plan->n; i++) {
        struct plan_op *op = &plan->ops[i];

        if (op->what != PLAN_DELETE) {
            struct rec named;

            rec_copy(&named, &op->after);
            if (!rec_check(&op->after, &field, why, sizeof why)) {
                fault(p, &named, field, "%s", why);
            } else {
                resolve_record(p, &named, &op->after);
            }
            rec_destroy(&named);
        }
        if (op->what == PLAN_CHANGE && rec_equal(&op->before, &op->after)) {
            rec_destroy(&op->before);
            rec_destroy(&op->after);
        } else {
            plan->ops[n++] = *op;
        }
    }
    plan->n = n;
}

struct plan *
plan_create(struct model *m, const struct doc *doc, enum plan_mode mode, plan_read *read, void *aux,
            struct doc_errors *errors)
{
    size_t errors_before = errors->n;
    struct planning p = {.m = m, .mode = mode, .read = read, .aux = aux, .errors = errors};
    const struct doc_item **items = xcalloc(doc->n + 1, sizeof *items);
    struct touched *t;
    size_t n = 0;

    p.plan = xzalloc(sizeof *p.plan);
    shash_init(&p.names);
    hmap_init(&p.touched);
    for (enum rec_kind k = 0; k < REC_N_KINDS; k++) {
        size_t first = p.plan->n;

        for (size_t i = 0; i < doc->n; i++) {
            if (doc->items[i].rec.kind == k) {
                items[n++] = &doc->items[i];
                plan_item(&p, &doc->items[i]);
            }
        }
        for (size_t i = first; i < p.plan->n; i++) {
            state_name(&p, &p.plan->ops[i]);
        }
    }
    if (errors->n == errors_before) {
        plan_deletions(&p, doc, items);
        finish_ops(&p);
    }
    HMAP_FOR_EACH_POP (t, node, &p.touched) {
        free(t);
    }
    hmap_destroy(&p.touched);
    shash_destroy_free_data(&p.names);
    free(items);
    if (errors->n != errors_before) {
        plan_free(p.plan);
        return NULL;
    }
    return p.plan;
}

void
plan_free(struct plan *plan)
{
    if (plan) {
        for (size_t i = 0; i < plan->n; i++) {
            rec_destroy(&plan->ops[i].before);
            rec_destroy(&plan->ops[i].after);
        }
        free(plan->ops);
        free(plan);
    }
}

/* --- keys ------------------------------------------------------------------------------------- */

static uint32_t
free_number(const struct model *m, const char *what, uint32_t *next, uint32_t max)
{
    for (uint32_t tries = 0; tries < max; tries++) {
        uint32_t number = *next && *next <= max ? *next : 1;
        char *claim = model_number_claim(what, number);
        bool taken = model_claim_find(m, claim);

        free(claim);
        *next = number + 1;
        if (!taken) {
            return number;
        }
    }
    return 0;
}

uint32_t
model_free_key(const struct model *m, uint32_t *next)
{
    return free_number(m, "key", next, MODEL_KEY_MAX);
}

uint32_t
model_free_zone(const struct model *m, uint32_t *next)
{
    return free_number(m, "zone", next, UINT16_MAX);
}

bool
plan_give_keys(struct model *m, struct plan *plan, struct doc_errors *errors)
{
    uint32_t zones = 0;

    for (size_t i = 0; i < plan->n; i++) {
        struct plan_op *op = &plan->ops[i];
        struct rec *r = &op->after;
        char label[300];

        if (op->what != PLAN_CREATE || r->kind == REC_POOL) {
            continue;
        }
        r->key = model_free_key(m, &plan->key_next);
        if (r->kind == REC_NETWORK) {
            /* Two of one plan do not see each other's claims. */
            r->zone = zones++ < UINT16_MAX ? model_free_zone(m, &plan->zone_next) : 0;
        }
        if (!r->key || (r->kind == REC_NETWORK && !r->zone)) {
            doc_label(r, label, sizeof label);
            doc_errors_add(errors, label, r->key ? "zone" : "key", "all are taken");
            return false;
        }
    }
    return true;
}

/* --- trying
 * --------------------------------------------------------------------------------------- */

struct failure {
    struct model_obj *obj;
    char *before;
};
struct trial {
    struct failure *failures;
    size_t n, cap;
    struct hmapx seen;
};

static void
note_failure(struct model_obj *obj, const char *before, void *trial_)
{
    struct trial *trial = trial_;

    if (hmapx_add(&trial->seen, obj)) {
        if (trial->n == trial->cap) {
            trial->failures = x2nrealloc(trial->failures, &trial->cap, sizeof *trial->failures);
        }
        trial->failures[trial->n++] = (struct failure){obj, nullable_xstrdup(before)};
    }
}

static void
label_object(const struct model *m, const struct model_obj *obj, char *label, size_t size)
{
    const struct model_obj *to;
    struct model_ref *ref;
    const char *policy = "";

    LIST_FOR_EACH (ref, from_node, &obj->refs_out) {
        if (ref->field == FIELD_RULE_POLICY) {
            to = model_ref_any(ref);
            policy = to ? to->name : "";
        }
    }
    snprintf(label, size, "%s %.130s%s%.130s", rec_tables[obj->kind].noun, policy,
             *policy ? "/" : "", obj->name);
}

static void
report(const struct model *m, const struct model_obj *obj, struct doc_errors *errors)
{
    const char *colon = strstr(obj->error, ": ");
    char label[300], *field;

    label_object(m, obj, label, sizeof label);
    field = xmemdup0(obj->error, colon - obj->error);
    doc_errors_add(errors, label, field, "%s", colon + 2);
    free(field);
}

static void
do_ops(struct model *m, const struct plan *plan)
{
    for (size_t i = 0; i < plan->n; i++) {
        const struct plan_op *op = &plan->ops[i];

        if (op->what == PLAN_DELETE) {
            model_remove(m, op->before.kind, &op->uuid);
        } else {
            model_put(m, &op->uuid, &op->after);
        }
    }
    model_settle(m);
}

static void
undo_ops(struct model *m, const struct plan *plan)
{
    for (size_t i = plan->n; i-- > 0;) {
        const struct plan_op *op = &plan->ops[i];

        if (op->what == PLAN_CREATE) {
            model_remove(m, op->after.kind, &op->uuid);
        } else {
            model_put(m, &op->uuid, &op->before);
        }
    }
    model_settle(m);
}

static bool
do_and_report(struct model *m, const struct plan *plan, struct doc_errors *errors)
{
    size_t errors_before = errors->n;
    struct trial trial = {NULL, 0, 0, HMAPX_INITIALIZER(&trial.seen)};
    struct hmapx reported = HMAPX_INITIALIZER(&reported);

    m->on_error = note_failure;
    m->on_error_aux = &trial; // cppcheck-suppress autoVariables ; taken back below
    do_ops(m, plan);
    m->on_error = NULL;
    m->on_error_aux = NULL;
    /* What the plan states must be right, even if it was wrong before. */
    for (size_t i = 0; i < plan->n; i++) {
        const struct plan_op *op = &plan->ops[i];
        struct model_obj *obj = op->what == PLAN_DELETE || op->after.kind == REC_POOL
                                    ? NULL
                                    : model_find(m, op->after.kind, &op->uuid);

        if (obj && obj->error) {
            report(m, obj, errors);
            hmapx_add(&reported, obj);
        }
    }
    for (size_t i = 0; i < trial.n; i++) {
        struct failure *f = &trial.failures[i];

        if (f->obj->error && !hmapx_contains(&reported, f->obj) &&
            !nullable_string_is_equal(f->obj->error, f->before)) {
            report(m, f->obj, errors);
        }
        free(f->before);
    }
    hmapx_destroy(&reported);
    free(trial.failures);
    hmapx_destroy(&trial.seen);
    return errors->n == errors_before;
}

static void
collect_warnings(struct model *m, struct doc_errors *warnings)
{
    struct model_lint *lint = model_lint_create(m);
    const struct model_rule *rule;
    struct model_obj *obj;
    const char *warning;
    char label[300];
    size_t at = 0;

    model_lint_run(lint, SIZE_MAX);
    while ((warning = model_lint_next(lint, &at, &rule))) {
        label_object(m, &rule->obj, label, sizeof label);
        doc_errors_add(warnings, label, "", "%s", warning);
    }
    model_lint_destroy(lint);
    MODEL_FOR_EACH (obj, m, REC_VIF) {
        char *of_trunk = obj->live ? trunk_lint(model_vif(obj)) : NULL;

        if (of_trunk) {
            label_object(m, obj, label, sizeof label);
            doc_errors_add(warnings, label, "", "%s", of_trunk);
        }
        free(of_trunk);
    }
}

bool
plan_try(struct model *m, const struct plan *plan, struct doc_errors *errors,
         struct doc_errors *warnings)
{
    bool ok = do_and_report(m, plan, errors);

    if (ok && warnings) {
        collect_warnings(m, warnings);
    }
    undo_ops(m, plan);
    return ok;
}

/* --- a model aside ------------------------------------------------------------------ */

static void
copy_ports(const struct model *from, struct model *to)
{
    struct model_obj *obj;

    MODEL_FOR_EACH (obj, from, REC_HOST) {
        struct model_host *host = model_host(model_by_uuid(to, REC_HOST, &obj->uuid));
        const struct model_port *port;

        if (!host) {
            continue;
        }
        model_ports_begin(to);
        LIST_FOR_EACH (port, host_node, &model_host(obj)->ports) {
            model_port_report(to, host, port->name, port->has_xs_uuid ? &port->xs_uuid : NULL,
                              port->has_mac ? &port->mac : NULL, port->ofport);
        }
        if (model_host(obj)->reported) {
            model_ports_end(to, host);
        }
    }
    model_settle(to);
}

struct model *
plan_model(struct model *m, const struct plan *plan, plan_read *read, void *aux)
{
    struct model *aside = model_create();
    const struct uuid none = UUID_ZERO;
    struct model_obj *obj;
    struct rec r;

    if (read(aux, REC_POOL, &none, &r)) {
        model_put(aside, &none, &r);
        rec_destroy(&r);
    }
    for (enum rec_kind kind = REC_HOST; kind < REC_N_KINDS; kind++) {
        MODEL_FOR_EACH (obj, m, kind) {
            if (read(aux, kind, &obj->uuid, &r)) {
                model_put(aside, &obj->uuid, &r);
                rec_destroy(&r);
            }
        }
    }
    do_ops(aside, plan);
    copy_ports(m, aside); /* only what is live has ports */
    return aside;
}

/* --- a model without a database
 * ---------------------------------------------------------------------- */

static bool
read_nothing(void *aux, enum rec_kind kind, const struct uuid *uuid, struct rec *r)
{
    if (kind != REC_POOL) {
        return false;
    }
    rec_init(r, kind);
    set_name(r, "pool");
    return true;
}

bool
model_load_doc(struct model *m, const struct doc *doc, struct doc_errors *errors)
{
    struct plan *plan = plan_create(m, doc, PLAN_REPLACE, read_nothing, NULL, errors);
    bool ok = plan && plan_give_keys(m, plan, errors) && do_and_report(m, plan, errors);

    m->generation = 1;
    plan_free(plan);
    return ok;
}

int
model_load_file(struct model *m, const char *file)
{
    struct doc_errors errors = {NULL, 0, false};
    FILE *stream = fopen(file, "r");
    struct doc *doc = NULL;
    char *text = NULL;
    size_t size = 0;
    ssize_t n;
    int error;

    if (!stream) {
        error = errno;
        fprintf(stderr, "%s: %s\n", file, strerror(error));
        return error;
    }
    n = getdelim(&text, &size, '\0', stream);
    error = ferror(stream) ? EIO : 0;
    if (!error) {
        doc = doc_parse(text ? text : "", MAX(n, 0), &errors);
        error = doc && model_load_doc(m, doc, &errors) ? 0 : EINVAL;
    }
    for (size_t i = 0; i < errors.n; i++) {
        const struct doc_error *e = &errors.e[i];

        fprintf(stderr, "%s: %s%s%s%s%s\n", file, e->object, *e->object ? ": " : "", e->field,
                *e->field ? ": " : "", e->message);
    }
    doc_errors_clear(&errors);
    doc_free(doc);
    free(text);
    fclose(stream);
    return error;
}
