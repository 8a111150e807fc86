/* Claims and references; what comes, goes and is linked by them. */
#include <config.h>

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "model_impl.h"
#include "util.h"

const struct model_field_info model_fields[N_FIELDS] = {
    [FIELD_NETWORK_TENANT] = {REC_NETWORK, REC_NETWORK_TENANT},
    [FIELD_VM_TENANT] = {REC_VM, REC_VM_TENANT},
    [FIELD_GROUP_TENANT] = {REC_GROUP, REC_GROUP_TENANT},
    [FIELD_USER_TENANT] = {REC_USER, REC_USER_TENANT},
    [FIELD_VIF_VM] = {REC_VIF, REC_VIF_VM},
    [FIELD_VIF_NETWORK] = {REC_VIF, REC_VIF_NETWORK},
    [FIELD_VIF_HOST] = {REC_VIF, REC_VIF_HOST},
    [FIELD_VIF_PARENT] = {REC_VIF, REC_VIF_PARENT},
    [FIELD_GROUP_VIF] = {REC_GROUP, REC_GROUP_VIFS, true},
    [FIELD_GROUP_VM] = {REC_GROUP, REC_GROUP_VMS, true},
    [FIELD_GROUP_GROUP] = {REC_GROUP, REC_GROUP_GROUPS},
    [FIELD_POLICY_NETWORK] = {REC_POLICY, REC_POLICY_NETWORK},
    [FIELD_POLICY_GROUP] = {REC_POLICY, REC_POLICY_GROUP},
    [FIELD_POLICY_VM] = {REC_POLICY, REC_POLICY_VM},
    [FIELD_POLICY_VIF] = {REC_POLICY, REC_POLICY_VIF},
    [FIELD_RULE_POLICY] = {REC_RULE, REC_RULE_POLICY},
    [FIELD_RULE_REMOTE_GROUP] = {REC_RULE, REC_RULE_REMOTE_GROUP},
    [FIELD_MIRROR_VIF] = {REC_MIRROR, REC_MIRROR_VIFS, true},
    [FIELD_MIRROR_NETWORK] = {REC_MIRROR, REC_MIRROR_NETWORKS, true},
    [FIELD_MIRROR_OUTPUT_VIF] = {REC_MIRROR, REC_MIRROR_OUTPUT_VIF},
    [FIELD_EXPORTER_HOST] = {REC_EXPORTER, REC_EXPORTER_HOST},
    [FIELD_EXPORTER_NETWORK] = {REC_EXPORTER, REC_EXPORTER_NETWORKS, true},
    [FIELD_BOND_HOST] = {REC_BOND, REC_BOND_HOST},
    [FIELD_PIF_HOST] = {REC_PIF, REC_PIF_HOST},
};

const struct rec_field *
model_field_of(enum model_field f)
{
    return &rec_tables[model_fields[f].kind].fields[model_fields[f].rec_field];
}

const char *
model_field_name(enum model_field f)
{
    return model_field_of(f)->name;
}

/* --- claims -------------------------------------------------------------------------- */

static void
dirty_claimants(struct model *m, struct model_claim_set *set, const struct model_obj *but)
{
    struct model_claim *claim;

    LIST_FOR_EACH (claim, set_node, &set->claims) {
        if (claim->obj != but) {
            model_dirty(m, claim->obj);
        }
    }
}

static size_t
set_size(const char *what)
{
    return sizeof(struct model_claim_set) + strlen(what) + 1;
}

/* Takes over 'set', which is in no table. */
static void
claim_hashed(struct model *m, struct model_obj *obj, const struct model_asked *asked)
{
    struct model_claim_set *set = model_claim_find_hashed(m, asked->set->what, asked->hash);
    struct model_claim *claim;

    if (!set) {
        set = asked->set;
        ovs_list_init(&set->claims);
        index_insert(&m->claims, &set->node, asked->hash);
        claim = &set->first;
    } else {
        m->n_contested += ovs_list_is_singleton(&set->claims);
        dirty_claimants(m, set, obj);
        claim = slab_alloc(sizeof *claim);
        slab_free(asked->set, set_size(asked->set->what));
    }
    claim->obj = obj;
    claim->set = set;
    claim->field = asked->field;
    ovs_list_push_back(&set->claims, &claim->set_node);
    ovs_list_push_back(&obj->claims, &claim->obj_node);
}

static void
ask(struct model *m, struct model_obj *obj, const char *field, struct model_claim_set *set)
{
    uint32_t hash = model_claim_hash(set->what);

    if (m->n_asked == ARRAY_SIZE(m->asked)) {
        model_claims_end(m, obj);
    }
    index_prefetch(&m->claims, hash);
    m->asked[m->n_asked++] = (struct model_asked){field, set, hash};
}

void
model_claim(struct model *m, struct model_obj *obj, const char *field,
            const struct model_claimed *what)
{
    struct model_claim_set *set = slab_alloc(sizeof *set + model_claimed_size(what));

    model_claimed_put(set->what, what);
    ask(m, obj, field, set);
}

void
model_claim_number(struct model *m, struct model_obj *obj, const char *field, uint32_t number)
{
    model_claim(m, obj, field, &(struct model_claimed){field, "", &number, sizeof number});
}

void
model_claim_printed(struct model *m, struct model_obj *obj, const char *field, const char *format,
                    ...)
{
    struct model_claim_set *set;
    va_list args;
    char *what;

    va_start(args, format);
    what = xvasprintf(format, args);
    va_end(args);
    set = slab_alloc(set_size(what));
    strcpy(set->what, what);
    free(what);
    ask(m, obj, field, set);
}

void
model_claims_end(struct model *m, struct model_obj *obj)
{
    for (size_t i = 0; i < m->n_asked; i++) {
        index_prefetch_node(&m->claims, m->asked[i].hash);
    }
    for (size_t i = 0; i < m->n_asked; i++) {
        claim_hashed(m, obj, &m->asked[i]);
    }
    m->n_asked = 0;
}

void
model_drop_claims(struct model *m, struct model_obj *obj)
{
    struct model_claim *claim;

    LIST_FOR_EACH_POP (claim, obj_node, &obj->claims) {
        struct model_claim_set *set = claim->set;

        ovs_list_remove(&claim->set_node);
        if (claim != &set->first) {
            slab_free(claim, sizeof *claim);
        }
        if (ovs_list_is_empty(&set->claims)) {
            hmap_remove(&m->claims, &set->node);
            slab_free(set, set_size(set->what));
        } else {
            m->n_contested -= ovs_list_is_singleton(&set->claims);
            dirty_claimants(m, set, obj);
        }
    }
}

/* --- references ------------------------------------------------------------------------ */

static struct ovs_list *
back_list(enum model_field f, const struct model_obj *to)
{
    switch (f) {
    case FIELD_NETWORK_TENANT:
        return &model_tenant(to)->networks;
    case FIELD_VM_TENANT:
        return &model_tenant(to)->vms;
    case FIELD_GROUP_TENANT:
        return &model_tenant(to)->groups;
    case FIELD_USER_TENANT:
        return &model_tenant(to)->users;
    case FIELD_VIF_VM:
        return &model_vm(to)->vifs;
    case FIELD_VIF_NETWORK:
        return &model_network(to)->vifs;
    case FIELD_VIF_HOST:
        return &model_host(to)->vifs;
    case FIELD_VIF_PARENT:
        return &model_vif(to)->children;
    case FIELD_GROUP_VIF:
        return &model_vif(to)->groups;
    case FIELD_GROUP_VM:
        return &model_vm(to)->groups;
    case FIELD_GROUP_GROUP:
        return &model_group(to)->groups;
    case FIELD_POLICY_NETWORK:
        return &model_network(to)->policies;
    case FIELD_POLICY_GROUP:
        return &model_group(to)->policies;
    case FIELD_POLICY_VM:
        return &model_vm(to)->policies;
    case FIELD_POLICY_VIF:
        return &model_vif(to)->policies;
    case FIELD_RULE_POLICY:
        return &model_policy(to)->rules;
    case FIELD_RULE_REMOTE_GROUP:
        return &model_group(to)->rules;
    case FIELD_MIRROR_VIF:
        return &model_vif(to)->mirrors;
    case FIELD_MIRROR_NETWORK:
        return &model_network(to)->mirrors;
    case FIELD_MIRROR_OUTPUT_VIF:
        return &model_vif(to)->mirrors_to;
    case FIELD_EXPORTER_HOST:
        return &model_host(to)->exporters;
    case FIELD_EXPORTER_NETWORK:
        return &model_network(to)->exporters;
    case FIELD_BOND_HOST:
        return &model_host(to)->bonds;
    case FIELD_PIF_HOST:
        return &model_host(to)->pifs;
    case N_FIELDS:
        break;
    }
    OVS_NOT_REACHED();
}

static void
set_pointer(enum model_field f, struct model_obj *from, struct model_obj *to)
{
    switch (f) {
    case FIELD_NETWORK_TENANT:
        model_network(from)->tenant = model_tenant(to);
        break;
    case FIELD_VM_TENANT:
        model_vm(from)->tenant = model_tenant(to);
        break;
    case FIELD_GROUP_TENANT:
        model_group(from)->tenant = model_tenant(to);
        break;
    case FIELD_VIF_VM:
        model_vif(from)->vm = model_vm(to);
        break;
    case FIELD_VIF_NETWORK:
        model_vif(from)->network = model_network(to);
        break;
    case FIELD_VIF_HOST:
        model_vif(from)->stated_host = model_host(to);
        break;
    case FIELD_VIF_PARENT:
        model_vif(from)->parent = model_vif(to);
        break;
    case FIELD_POLICY_NETWORK:
    case FIELD_POLICY_GROUP:
    case FIELD_POLICY_VM:
    case FIELD_POLICY_VIF:
        model_policy(from)->object = to;
        break;
    case FIELD_RULE_POLICY:
        model_rule(from)->policy = model_policy(to);
        break;
    case FIELD_RULE_REMOTE_GROUP:
        model_rule(from)->remote_group = model_group(to);
        break;
    case FIELD_MIRROR_OUTPUT_VIF:
        model_mirror(from)->output_vif = model_vif(to);
        break;
    case FIELD_EXPORTER_HOST:
        model_exporter(from)->host = model_host(to);
        break;
    case FIELD_BOND_HOST:
        model_bond(from)->host = model_host(to);
        break;
    case FIELD_PIF_HOST:
        model_pif(from)->host = model_host(to);
        break;
    case FIELD_MIRROR_VIF:
    case FIELD_MIRROR_NETWORK:
    case FIELD_EXPORTER_NETWORK:
    case FIELD_USER_TENANT:
    case FIELD_GROUP_VIF:
    case FIELD_GROUP_VM:
    case FIELD_GROUP_GROUP:
    case N_FIELDS:
        break;
    }
}

struct model_want *
model_want_find(const struct model *m, const struct uuid *uuid)
{
    struct model_want *want;

    HMAP_FOR_EACH_WITH_HASH (want, node, uuid_hash(uuid), &m->wants) {
        if (uuid_equals(&want->uuid, uuid)) {
            return want;
        }
    }
    return NULL;
}

static struct model_want *
get_want(struct model *m, const struct uuid *uuid)
{
    struct model_want *want = model_want_find(m, uuid);

    if (!want) {
        want = slab_alloc(sizeof *want);
        want->uuid = *uuid;
        want->objs = NULL;
        ovs_list_init(&want->refs);
        index_insert(&m->wants, &want->node, uuid_hash(uuid));
    }
    return want;
}

/* Frees it if nothing is left of it. */
static void
put_want(struct model *m, struct model_want *want)
{
    if (!want->objs && ovs_list_is_empty(&want->refs)) {
        hmap_remove(&m->wants, &want->node);
        slab_free(want, sizeof *want);
    }
}

void
model_want_add(struct model *m, struct model_obj *obj)
{
    obj->want = get_want(m, &obj->uuid);
    obj->next_alike = obj->want->objs;
    obj->want->objs = obj;
}

void
model_want_remove(struct model *m, struct model_obj *obj)
{
    struct model_obj **p = &obj->want->objs;

    while (*p != obj) {
        p = &(*p)->next_alike;
    }
    *p = obj->next_alike;
    put_want(m, obj->want);
    obj->want = NULL;
}

struct model_obj *
model_want_obj(const struct model_want *want, enum rec_kind kind)
{
    struct model_obj *obj = want->objs;

    while (obj && obj->kind != kind) {
        obj = obj->next_alike;
    }
    return obj;
}

struct model_obj *
model_ref_any(const struct model_ref *ref)
{
    return model_want_obj(ref->want, model_field_of(ref->field)->ref);
}

struct model_obj *
model_ref_live(const struct model_ref *ref)
{
    struct model_obj *obj = model_ref_any(ref);

    return obj && obj->live ? obj : NULL;
}

/* Who names 'obj' in the field, live or not. */
static void
dirty_namers(struct model *m, const struct model_obj *obj, enum model_field field)
{
    const struct model_ref *ref;

    LIST_FOR_EACH (ref, want_node, &obj->want->refs) {
        if (ref->field == field) {
            model_dirty(m, ref->from);
        }
    }
}

/* What it means to the objects around that 'from' now names 'to', or no more. */
static void
edge_changed(struct model *m, enum model_field f, struct model_obj *from, struct model_obj *to)
{
    struct model_ref *ref;

    switch (f) {
    case FIELD_NETWORK_TENANT:
    case FIELD_VM_TENANT:
        model_dirty_referrers(m, from);
        break;
    case FIELD_VIF_VM:
        MODEL_FOR_EACH_REF (ref, &model_vm(to)->groups) {
            model_group_touch(m, model_group(ref->from));
        }
    /* fall through */
    case FIELD_VIF_NETWORK:
        dirty_namers(m, from, FIELD_VIF_PARENT);
    /* fall through */
    case FIELD_VIF_HOST:
    case FIELD_RULE_POLICY:
        model_mark(m, to, MODEL_MEMBERS);
        break;
    case FIELD_GROUP_VIF:
    case FIELD_GROUP_VM:
    case FIELD_GROUP_GROUP:
        model_group_touch(m, model_group(from));
        break;
    case FIELD_POLICY_NETWORK:
    case FIELD_POLICY_GROUP:
    case FIELD_POLICY_VM:
    case FIELD_POLICY_VIF:
        model_mark(m, to, MODEL_POLICIES);
        break;
    case FIELD_MIRROR_VIF:
    case FIELD_MIRROR_NETWORK:
    case FIELD_EXPORTER_NETWORK:
        model_mark(m, from, MODEL_MEMBERS);
        break;
    case FIELD_VIF_PARENT:
        dirty_namers(m, from, FIELD_VIF_PARENT);
        dirty_namers(m, from, FIELD_MIRROR_OUTPUT_VIF);
        dirty_namers(m, to, FIELD_MIRROR_OUTPUT_VIF);
        break;
    case FIELD_GROUP_TENANT:
    case FIELD_USER_TENANT:
    case FIELD_RULE_REMOTE_GROUP:
    case FIELD_MIRROR_OUTPUT_VIF:
    case FIELD_EXPORTER_HOST:
    case FIELD_BOND_HOST:
    case FIELD_PIF_HOST:
    case N_FIELDS:
        break;
    }
}

static void
link_ref(struct model *m, struct model_ref *ref, struct model_obj *to)
{
    if (ref->to != to) {
        ref->to = to;
        ovs_list_push_back(back_list(ref->field, to), &ref->to_node);
        edge_changed(m, ref->field, ref->from, to);
    }
}

/* The pointer in 'from' stays, for the change set's reader. */
static void
unlink_ref(struct model *m, struct model_ref *ref)
{
    struct model_obj *to = ref->to;

    if (to) {
        ref->to = NULL;
        ovs_list_remove(&ref->to_node);
        edge_changed(m, ref->field, ref->from, to);
    }
}

static struct model_ref *
add_ref(struct model *m, struct model_obj *from, unsigned field, const struct uuid *target,
        struct ovs_list *before)
{
    struct model_want *want = get_want(m, target);
    struct model_ref *ref = slab_zalloc(sizeof *ref);

    ref->from = from;
    ref->field = field;
    ref->want = want;
    ovs_list_push_back(&want->refs, &ref->want_node);
    ovs_list_insert(before, &ref->from_node);
    return ref;
}

static void
drop_ref(struct model *m, struct model_ref *ref)
{
    struct model_want *want = ref->want;

    unlink_ref(m, ref);
    ovs_list_remove(&ref->from_node);
    ovs_list_remove(&ref->want_node);
    put_want(m, want);
    slab_free(ref, sizeof *ref);
}

void
model_drop_refs(struct model *m, struct model_obj *obj)
{
    struct model_ref *ref;

    LIST_FOR_EACH_SAFE (ref, from_node, &obj->refs_out) {
        drop_ref(m, ref);
    }
}

/* Both sides are in order of (field, target): those that stay are not touched. */
void
model_set_refs(struct model *m, struct model_obj *obj, const struct model_edges *edges,
               size_t n_edges)
{
    struct ovs_list *at = obj->refs_out.next;

    for (size_t e = 0; e < n_edges; e++) {
        size_t i = 0;

        while (i < edges[e].n) {
            struct model_ref *ref =
                at == &obj->refs_out ? NULL : CONTAINER_OF(at, struct model_ref, from_node);
            int cmp = !ref ? 1 : (int)ref->field - (int)edges[e].field;

            if (!cmp) {
                cmp = uuid_compare_3way(&ref->want->uuid, &edges[e].targets[i]);
            }
            if (cmp < 0) {
                at = at->next;
                drop_ref(m, ref);
            } else if (!cmp) {
                at = at->next;
                i++;
            } else {
                add_ref(m, obj, edges[e].field, &edges[e].targets[i++], at);
            }
        }
    }
    while (at != &obj->refs_out) {
        struct model_ref *ref = CONTAINER_OF(at, struct model_ref, from_node);

        at = at->next;
        drop_ref(m, ref);
    }
}

void
model_dirty_referrers(struct model *m, struct model_obj *obj)
{
    struct model_ref *ref;

    LIST_FOR_EACH (ref, want_node, &obj->want->refs) {
        model_dirty(m, ref->from);
    }
}

void
model_forget(struct model_obj *obj)
{
    for (unsigned f = 0; f < N_FIELDS; f++) {
        if (model_fields[f].kind == obj->kind) {
            set_pointer(f, obj, NULL);
        }
    }
}

/* --- up and down ---------------------------------------------------------------------------- */

/* 'obj' came or went: who names it hears of it.  A group need not be looked at
 * as a whole because of one member. */
static void
tell_referrers(struct model *m, struct model_obj *obj)
{
    struct model_ref *ref;

    LIST_FOR_EACH (ref, want_node, &obj->want->refs) {
        if (model_field_of(ref->field)->ref != obj->kind) {
            continue;
        }
        if (!obj->live && model_fields[ref->field].member) {
            unlink_ref(m, ref);
        }
        if (!model_fields[ref->field].member || !obj->present || !ref->from->live ||
            (obj->live && !model_may_hold(m, ref->from, obj))) {
            model_dirty(m, ref->from);
        } else if (obj->live) {
            link_ref(m, ref, obj);
        }
    }
}

static void
link_all(struct model *m, struct model_obj *obj)
{
    struct model_ref *ref;

    model_forget(obj);
    LIST_FOR_EACH (ref, from_node, &obj->refs_out) {
        struct model_obj *to = model_ref_live(ref);

        if (to && to->state == SICK && ref->field == FIELD_RULE_REMOTE_GROUP) {
            /* Whom it holds is in doubt: the rule, which denies, is about everybody. */
            to = NULL;
        }
        if (ref->to != to) {
            unlink_ref(m, ref);
        }
        if (to) {
            set_pointer(ref->field, obj, to);
            link_ref(m, ref, to);
        }
    }
}

static void
append(struct model_prefixes *all, const struct model_prefixes *some)
{
    if (some->n) {
        memcpy(all->p + all->n, some->p, some->n * sizeof *some->p);
        all->n += some->n;
    }
}

/* What depends on the objects it names. */
static void
derive_vif(struct model *m, struct model_vif *vif)
{
    size_t room = vif->ipv4_allowed.n + vif->ipv6_allowed.n + vif->addresses.n;
    struct model_prefixes effective = {xcalloc(room + 1, sizeof *effective.p), 0};
    bool isolated = vif->stated_isolated || vif->network->isolated_ports;
    enum model_locking locking = vif->stated_locking;

    if (vif->network_default) {
        locking = vif->network->default_disabled ? MODEL_DISABLED : MODEL_UNLOCKED;
    }
    if (locking == MODEL_LOCKED) {
        append(&effective, &vif->ipv4_allowed);
        append(&effective, &vif->ipv6_allowed);
    } else {
        append(&effective, &vif->addresses);
    }
    model_derive_limits(m, vif);
    if (vif->isolated != isolated || vif->locking != locking) {
        vif->isolated = isolated;
        vif->locking = locking;
        model_mark(m, &vif->obj, MODEL_CFG);
    }
    if (!model_prefixes_equal(&vif->effective, &effective)) {
        struct model_prefixes was = vif->effective;

        vif->effective = effective;
        effective = was;
        model_mark(m, &vif->obj, MODEL_CFG);
        model_vif_touch_groups(m, vif);
    }
    free(effective.p);
}

/* The policies of no object hang on the model. */
static void
link_policy(struct model *m, struct model_policy *policy)
{
    struct ovs_list *list = policy->scope == MODEL_SCOPE_GLOBAL ? &m->global_policies
                            : policy->scope == MODEL_SCOPE_POOL ? &m->pool_policies
                                                                : NULL;
    bool linked = !ovs_list_is_empty(&policy->node);

    if (!policy->obj.live) {
        list = NULL;
    }
    if (linked == !!list && policy->linked_scope == policy->scope) {
        return;
    }
    if (linked || list) {
        m->change |= MODEL_POLICIES;
    }
    ovs_list_remove(&policy->node);
    ovs_list_init(&policy->node);
    if (list) {
        ovs_list_push_back(list, &policy->node);
    }
    policy->linked_scope = policy->scope;
}

static void
go_up(struct model *m, struct model_obj *obj)
{
    obj->live = true;
    index_insert(&m->by_key, &obj->key_node, hash_int(obj->key, 0));
    model_mark(m, obj, MODEL_CREATED);
}

static void
go_down(struct model *m, struct model_obj *obj)
{
    struct model_ref *ref;

    model_mark(m, obj, MODEL_DELETED);
    obj->live = false;
    hmap_remove(&m->by_key, &obj->key_node);
    if (obj->kind == REC_VIF) {
        model_vif_leave(m, model_vif(obj));
    } else if (obj->kind == REC_HOST) {
        model_host_leave(m, model_host(obj));
    }
    LIST_FOR_EACH (ref, from_node, &obj->refs_out) {
        unlink_ref(m, ref);
    }
    /* Came and went between two looks: there was nothing. */
    if (!obj->was_live) {
        ovs_list_remove(&obj->change_node);
        ovs_list_init(&obj->change_node);
        obj->change = 0;
    }
}

static void
set_why(struct model *m, struct model_obj *obj, char *why)
{
    if (why && m->on_error) {
        m->on_error(obj, obj->error, m->on_error_aux);
    }
    if (!nullable_string_is_equal(why, obj->error)) {
        model_note(m, obj);
    }
    free(obj->error);
    obj->error = why;
}

static void
evaluate(struct model *m, struct model_obj *obj)
{
    unsigned char was = obj->state;
    bool was_live = obj->live;
    char *why = NULL;
    enum model_state state;

    if (!was_live) {
        index_prefetch(&m->by_key, hash_int(obj->key, 0));
    }
    if (obj->kind == REC_VIF) {
        model_vif_prefetch(m, model_vif(obj));
    }
    state = model_check(m, obj, &why);
    set_why(m, obj, why);
    obj->state = state;
    if (state == GOOD || state == SICK) {
        const struct model_group *remote =
            obj->kind == REC_RULE ? model_rule(obj)->remote_group : NULL;

        if (!was_live) {
            go_up(m, obj);
        }
        link_all(m, obj);
        if (was_live && obj->kind == REC_RULE && model_rule(obj)->remote_group != remote) {
            model_mark(m, obj, MODEL_CFG);
        }
        if (obj->kind == REC_VIF) {
            derive_vif(m, model_vif(obj));
            model_vif_enter(m, model_vif(obj));
        } else if (obj->kind == REC_HOST) {
            model_host_enter(m);
        }
    } else if (was_live) {
        go_down(m, obj);
    }
    if (obj->kind == REC_POLICY) {
        link_policy(m, model_policy(obj));
    }
    if (obj->live != was_live) {
        tell_referrers(m, obj);
    } else if (state != was) {
        model_dirty_referrers(m, obj);
    }
    if (state == WAITS && obj->present) {
        model_note(m, obj);
    }
    if (!obj->present) {
        ovs_list_remove(&obj->dirty_node); /* it may have named itself */
        ovs_list_push_back(&m->gone, &obj->dirty_node);
    }
}

void
model_settle(struct model *m)
{
    bool again;

    do {
        again = false;
        for (int k = 0; k < REC_N_KINDS; k++) {
            while (!ovs_list_is_empty(&m->dirty[k])) {
                struct ovs_list *node = ovs_list_pop_front(&m->dirty[k]);

                /* It may be the list's head: nothing is read. */
                prefetch(CONTAINER_OF(m->dirty[k].next, struct model_obj, dirty_node),
                         sizeof(struct model_obj));
                ovs_list_init(node);
                evaluate(m, CONTAINER_OF(node, struct model_obj, dirty_node));
                again = true;
            }
        }
    } while (again);
}
