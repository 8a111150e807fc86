#include <config.h>

#include "model_lint.h"

#include <stdlib.h>
#include <string.h>

#include "model_impl.h"
#include "util.h"

/* Members of a group that are looked at one by one. */
#define MAX_MEMBERS 256

struct entry {
    struct model_rule *rule;
    unsigned band;
    const struct model_prefixes *remote; /* NULL: any */
    char *warning;
};
/* Of an entry, what tells nearly all pairs apart, close together. */
struct glance {
    const struct model_obj *object;    /* of the policy's scope */
    const struct model_vif *one_of_it; /* of scopes that a wider one is compared with by vifs */
    uint8_t scope, ethertype;
    int16_t protocol;
};
struct model_lint {
    struct model *m;
    struct entry *entries;  /* those of direction in first, then in order of precedence */
    struct glance *glances; /* likewise */
    size_t n;
    size_t at, before; /* pairs compared so far: (at, 0..before-1) */
    size_t same;       /* first one of at's direction, band and order */
    size_t n_in;       /* of direction in */
};
/* Steps that a comparison counts, of which a glance is one. */
#define COMPARISON 16

/* --- what rules match ------------------------------------------------------------------- */

static const struct model_prefixes *
anything(enum model_ethertype type)
{
    static struct model_prefix all[] = {
        {.addr = {{{[10] = 0xff, [11] = 0xff}}}, .plen = 96},
        {.plen = 0},
    };
    static const struct model_prefixes by_type[] = {
        [MODEL_ETH_ANY] = {all, 2}, [MODEL_ETH_IPV4] = {all, 1}, [MODEL_ETH_IPV6] = {all + 1, 1}};

    return &by_type[type];
}

static bool
prefix_counts(const struct model_prefix *p, enum model_ethertype type)
{
    return type == MODEL_ETH_ANY || model_prefix_is_v4(p) == (type == MODEL_ETH_IPV4);
}

static bool
remote_covers(const struct entry *e, const struct entry *r)
{
    const struct model_prefixes *wide = e->remote;
    const struct model_prefixes *narrow = r->remote ? r->remote : anything(r->rule->ethertype);

    if (!wide) {
        return true;
    }
    if (wide->n > MAX_MEMBERS || narrow->n > MAX_MEMBERS) {
        return wide == narrow;
    }
    for (size_t i = 0; i < narrow->n; i++) {
        bool covered = !prefix_counts(&narrow->p[i], r->rule->ethertype);

        for (size_t j = 0; j < wide->n && !covered; j++) {
            covered = model_prefix_contains(&wide->p[j], &narrow->p[i]);
        }
        if (!covered) {
            return false;
        }
    }
    return narrow->n;
}

static bool
remotes_overlap(const struct entry *a, const struct entry *b)
{
    const struct model_prefixes *x = a->remote, *y = b->remote;

    if (!x || !y) {
        return (!x || x->n) && (!y || y->n);
    }
    if (x->n > MAX_MEMBERS || y->n > MAX_MEMBERS) {
        return x == y;
    }
    for (size_t i = 0; i < x->n; i++) {
        for (size_t j = 0; j < y->n; j++) {
            if (model_prefix_contains(&x->p[i], &y->p[j]) ||
                model_prefix_contains(&y->p[j], &x->p[i])) {
                return true;
            }
        }
    }
    return false;
}

static bool
ports_cover(const struct model_rule *e, const struct model_rule *r)
{
    static const struct model_ports all = {0, UINT16_MAX};
    const struct model_ports *narrow = r->n_ports ? r->ports : &all;

    if (!e->n_ports) {
        return true;
    }
    for (size_t i = 0; i < MAX(r->n_ports, 1); i++) {
        bool covered = false;

        for (size_t j = 0; j < e->n_ports && !covered; j++) {
            covered = e->ports[j].first <= narrow[i].first && e->ports[j].last >= narrow[i].last;
        }
        if (!covered) {
            return false;
        }
    }
    return true;
}

static bool
ports_overlap(const struct model_rule *a, const struct model_rule *b)
{
    bool overlap = !a->n_ports || !b->n_ports;

    for (size_t i = 0; i < a->n_ports && !overlap; i++) {
        for (size_t j = 0; j < b->n_ports && !overlap; j++) {
            overlap =
                a->ports[i].first <= b->ports[j].last && b->ports[j].first <= a->ports[i].last;
        }
    }
    return overlap;
}

static bool
number_covers(int wide, int narrow)
{
    return wide < 0 || wide == narrow;
}

static bool
numbers_overlap(int a, int b)
{
    return a < 0 || b < 0 || a == b;
}

static bool
match_covers(const struct entry *e, const struct entry *r)
{
    const struct model_rule *a = e->rule, *b = r->rule;

    return (a->ethertype == MODEL_ETH_ANY || a->ethertype == b->ethertype) &&
           number_covers(a->protocol, b->protocol) && number_covers(a->icmp_type, b->icmp_type) &&
           number_covers(a->icmp_code, b->icmp_code) && ports_cover(a, b) && remote_covers(e, r);
}

static bool
matches_overlap(const struct entry *e, const struct entry *r)
{
    const struct model_rule *a = e->rule, *b = r->rule;

    return (a->ethertype == MODEL_ETH_ANY || b->ethertype == MODEL_ETH_ANY ||
            a->ethertype == b->ethertype) &&
           numbers_overlap(a->protocol, b->protocol) &&
           numbers_overlap(a->icmp_type, b->icmp_type) &&
           numbers_overlap(a->icmp_code, b->icmp_code) && ports_overlap(a, b) &&
           remotes_overlap(e, r);
}

/* --- where rules hold --------------------------------------------------------------------------
 */

static bool
scope_has_vif(struct model *m, const struct model_policy *policy, const struct model_vif *vif)
{
    switch (policy->scope) {
    case MODEL_SCOPE_GLOBAL:
    case MODEL_SCOPE_POOL:
        return true;
    case MODEL_SCOPE_NETWORK:
        return policy->object == &vif->network->obj;
    case MODEL_SCOPE_GROUP:
        return model_group_has_vif(m, model_group(policy->object), vif);
    case MODEL_SCOPE_VM:
        return policy->object == &vif->vm->obj;
    case MODEL_SCOPE_VIF:
        return policy->object == &vif->obj;
    }
    return false;
}

/* Whether scope_covers() could be true: tells nearly all pairs apart without a walk. */
static bool
scope_may_cover(const struct glance *wide, const struct glance *narrow)
{
    const struct model_vif *vif = narrow->one_of_it;

    switch ((enum model_scope)wide->scope) {
    case MODEL_SCOPE_GLOBAL:
    case MODEL_SCOPE_POOL:
        return true;
    case MODEL_SCOPE_NETWORK:
        return wide->object == narrow->object || (vif && wide->object == &vif->network->obj);
    case MODEL_SCOPE_GROUP:
        return wide->object == narrow->object || vif;
    case MODEL_SCOPE_VM:
        return wide->object == narrow->object || (vif && wide->object == &vif->vm->obj);
    case MODEL_SCOPE_VIF:
        return vif && wide->object == &vif->obj;
    }
    return true;
}

/* The same of all that makes a rule cover another. */
static bool
may_cover(const struct glance *wide, const struct glance *narrow)
{
    return number_covers(wide->protocol, narrow->protocol) &&
           (wide->ethertype == MODEL_ETH_ANY || wide->ethertype == narrow->ethertype) &&
           scope_may_cover(wide, narrow);
}

static bool
scope_covers(struct model *m, const struct model_policy *wide, const struct model_policy *narrow)
{
    struct model_vif **vifs;
    struct model_ref *ref;
    size_t n = 0;

    if (wide->scope <= MODEL_SCOPE_POOL || wide->object == narrow->object) {
        return wide->scope <= MODEL_SCOPE_POOL || narrow->object;
    }
    switch (narrow->scope) {
    case MODEL_SCOPE_VIF:
        return scope_has_vif(m, wide, model_vif(narrow->object));
    case MODEL_SCOPE_VM:
        MODEL_FOR_EACH_REF (ref, &model_vm(narrow->object)->vifs) {
            if (!scope_has_vif(m, wide, model_vif(ref->from))) {
                return false;
            }
            n++;
        }
        return n;
    case MODEL_SCOPE_GROUP:
        vifs = model_group_vifs(m, model_group(narrow->object), &n);
        for (size_t i = 0; i < n && n <= MAX_MEMBERS; i++) {
            if (!scope_has_vif(m, wide, vifs[i])) {
                return false;
            }
        }
        return n && n <= MAX_MEMBERS;
    default:
        return false;
    }
}

/* Of two policies in one band: of one kind of scope. */
static bool
scopes_overlap(struct model *m, const struct model_policy *a, const struct model_policy *b)
{
    struct model_vif **vifs;
    size_t n;

    if (a->object == b->object) {
        return true;
    }
    if (a->scope != MODEL_SCOPE_GROUP) {
        return false;
    }
    vifs = model_group_vifs(m, model_group(a->object), &n);
    for (size_t i = 0; i < MIN(n, MAX_MEMBERS); i++) {
        if (scope_has_vif(m, b, vifs[i])) {
            return true;
        }
    }
    return false;
}

/* --- pairs
 * ------------------------------------------------------------------------------------------ */

static int
compare_entries(const void *a_, const void *b_)
{
    const struct entry *a = a_, *b = b_;
    const struct model_rule *x = a->rule, *y = b->rule;

    if (x->in != y->in) {
        return x->in ? -1 : 1;
    }
    if (a->band != b->band) {
        return a->band > b->band ? -1 : 1;
    }
    if (x->order != y->order) {
        return x->order < y->order ? -1 : 1;
    }
    if (x->action != y->action) {
        return x->action == MODEL_DENY ? -1 : 1;
    }
    return x->obj.key < y->obj.key ? -1 : x->obj.key > y->obj.key;
}

static void warn(struct entry *, const char *format, ...) OVS_PRINTF_FORMAT(2, 3);

/* The first thing found is said: the others often follow from it. */
static void
warn(struct entry *e, const char *format, ...)
{
    if (!e->warning) {
        va_list args;

        va_start(args, format);
        e->warning = xvasprintf(format, args);
        va_end(args);
    }
}

static void
compare_pair(struct model_lint *lint, struct entry *first, struct entry *second)
{
    const struct model_rule *a = first->rule, *b = second->rule;
    const struct model_policy *p = a->policy, *q = b->policy;

    const char *differs = a->action != b->action ? "the other action; deny wins"
                          : a->action == MODEL_ALLOW && a->stateful != b->stateful
                              ? "the other statefulness; which of them counts is not defined"
                              : NULL;

    if (differs && first->band == second->band && a->order == b->order &&
        matches_overlap(first, second) && scopes_overlap(lint->m, p, q)) {
        warn(first, "conflict: %s/%s has the same order and %s", q->obj.name, b->obj.name, differs);
        warn(second, "conflict: %s/%s has the same order and %s", p->obj.name, a->obj.name,
             differs);
    }
    if (!second->warning && match_covers(first, second) && scope_covers(lint->m, p, q)) {
        warn(second, "unreachable: %s/%s decides before it (%s, the %s part)", p->obj.name,
             a->obj.name, a->action == MODEL_ALLOW ? "allow" : "deny",
             a->mandatory ? "mandatory" : "default");
    }
}

/* If not all vifs of the scope are those of a wider one, this may be one that is not; NULL:
 * scope_covers() looks at none. */
static const struct model_vif *
one_of(struct model *m, const struct model_policy *policy)
{
    struct model_vif **vifs;
    struct model_ref *ref;
    size_t n;

    switch (policy->scope) {
    case MODEL_SCOPE_VIF:
        return model_vif(policy->object);
    case MODEL_SCOPE_VM:
        MODEL_FOR_EACH_REF (ref, &model_vm(policy->object)->vifs) {
            return model_vif(ref->from);
        }
        return NULL;
    case MODEL_SCOPE_GROUP:
        vifs = model_group_vifs(m, model_group(policy->object), &n);
        return n && n <= MAX_MEMBERS ? vifs[0] : NULL;
    default:
        return NULL;
    }
}

static void
glance_at_all(struct model_lint *lint)
{
    lint->glances = xcalloc(lint->n + 1, sizeof *lint->glances);
    for (size_t i = 0; i < lint->n; i++) {
        const struct model_rule *rule = lint->entries[i].rule;

        lint->glances[i] = (struct glance){.object = rule->policy->object,
                                           .one_of_it = one_of(lint->m, rule->policy),
                                           .scope = rule->policy->scope,
                                           .ethertype = rule->ethertype,
                                           .protocol = rule->protocol};
        lint->n_in += rule->in;
    }
}

struct model_lint *
model_lint_create(struct model *m)
{
    struct model_lint *lint = xzalloc(sizeof *lint);
    struct model_obj *obj;

    lint->m = m;
    lint->entries = xcalloc(hmap_count(&m->objs[REC_RULE]) + 1, sizeof *lint->entries);
    MODEL_FOR_EACH (obj, m, REC_RULE) {
        struct model_rule *rule = model_rule(obj);
        struct entry *e = &lint->entries[lint->n];

        if (!obj->live) {
            continue;
        }
        e->rule = rule;
        e->band = model_rule_band(rule);
        if (rule->remote_group) {
            e->remote = model_group_prefixes(m, rule->remote_group);
            if (!e->remote->n) {
                warn(e, "without effect: group \"%s\" has no address",
                     rule->remote_group->obj.name);
            }
        } else if (rule->remote_cidrs.n) {
            e->remote = &rule->remote_cidrs;
        }
        lint->n++;
    }
    if (lint->n) {
        qsort(lint->entries, lint->n, sizeof *lint->entries, compare_entries);
    }
    glance_at_all(lint);
    return lint;
}

void
model_lint_destroy(struct model_lint *lint)
{
    if (lint) {
        for (size_t i = 0; i < lint->n; i++) {
            free(lint->entries[i].warning);
        }
        free(lint->entries);
        free(lint->glances);
        free(lint);
    }
}

/* The next entry, and the first one to compare it with. */
static void
next_entry(struct model_lint *lint)
{
    const struct entry *was = &lint->entries[lint->at], *is = was + 1;

    lint->at++;
    lint->before = lint->at < lint->n_in ? 0 : lint->n_in;
    if (lint->at < lint->n && (is->rule->in != was->rule->in || is->band != was->band ||
                               is->rule->order != was->rule->order)) {
        lint->same = lint->at;
    }
}

/* Those before 'at' of its precedence may contradict it; all others may leave it nothing to
 * decide, which is said once. */
static bool
may_concern(const struct model_lint *lint, const struct glance *narrow, bool warned)
{
    return lint->before >= lint->same ||
           (!warned && may_cover(&lint->glances[lint->before], narrow));
}

bool
model_lint_run(struct model_lint *lint, size_t steps)
{
    while (lint->at < lint->n && steps) {
        struct entry *second = &lint->entries[lint->at];
        const struct glance narrow = lint->glances[lint->at];

        for (; lint->before < lint->at && steps; lint->before++, steps--) {
            if (may_concern(lint, &narrow, second->warning)) {
                compare_pair(lint, &lint->entries[lint->before], second);
                steps -= MIN(steps - 1, COMPARISON - 1);
            }
        }
        if (lint->before >= lint->at && steps) {
            next_entry(lint);
            steps--;
        }
    }
    return lint->at == lint->n;
}

void
model_lint_finish(struct model_lint *lint)
{
    struct model_obj *obj;

    MODEL_FOR_EACH (obj, lint->m, REC_RULE) {
        if (!obj->live) {
            model_set_warning(lint->m, obj, NULL);
        }
    }
    MODEL_FOR_EACH (obj, lint->m, REC_POLICY) {
        obj->n_warnings = 0;
    }
    for (size_t i = 0; i < lint->n; i++) {
        const struct entry *e = &lint->entries[i];

        model_set_warning(lint->m, &e->rule->obj, e->warning);
        e->rule->policy->obj.n_warnings += !!e->warning;
    }
    MODEL_FOR_EACH (obj, lint->m, REC_POLICY) {
        char text[64] = "";

        if (obj->n_warnings) {
            snprintf(text, sizeof text, "%u of its rules %s a warning", obj->n_warnings,
                     obj->n_warnings == 1 ? "has" : "have");
        }
        model_set_warning(lint->m, obj, text);
    }
}

const char *
model_lint_next(const struct model_lint *lint, size_t *at, const struct model_rule **rule)
{
    while (*at < lint->n) {
        const struct entry *e = &lint->entries[(*at)++];

        if (e->warning) {
            *rule = e->rule;
            return e->warning;
        }
    }
    return NULL;
}
