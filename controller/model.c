#include <config.h>

#include "model.h"

#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "model_impl.h"
#include "util.h"

static const size_t obj_sizes[REC_N_KINDS] = {
    [REC_HOST] = sizeof(struct model_host),         [REC_TENANT] = sizeof(struct model_tenant),
    [REC_NETWORK] = sizeof(struct model_network),   [REC_VM] = sizeof(struct model_vm),
    [REC_VIF] = sizeof(struct model_vif),           [REC_GROUP] = sizeof(struct model_group),
    [REC_POLICY] = sizeof(struct model_policy),     [REC_RULE] = sizeof(struct model_rule),
    [REC_USER] = sizeof(struct model_user),         [REC_MIRROR] = sizeof(struct model_mirror),
    [REC_EXPORTER] = sizeof(struct model_exporter), [REC_BOND] = sizeof(struct model_bond),
    [REC_PIF] = sizeof(struct model_pif),
};

/* --- life -------------------------------------------------------------------------- */

struct model *
model_create(void)
{
    struct model *m = xzalloc(sizeof *m);

    m->default_action = MODEL_DENY;
    m->pool_name = xstrdup("");
    ovs_list_init(&m->global_policies);
    ovs_list_init(&m->pool_policies);
    ovs_list_init(&m->status);
    ovs_list_init(&m->gone);
    ovs_list_init(&m->residents);
    for (int k = 0; k < REC_N_KINDS; k++) {
        hmap_init(&m->objs[k]);
        ovs_list_init(&m->changed[k]);
        ovs_list_init(&m->dirty[k]);
    }
    hmap_init(&m->by_key);
    hmap_init(&m->wants);
    hmap_init(&m->claims);
    hmap_init(&m->vif_by_xs);
    hmap_init(&m->vif_by_mac);
    hmap_init(&m->ports);
    hmap_init(&m->ports_by_xs);
    hmap_init(&m->ports_by_mac);
    hmap_init(&m->presences);
    return m;
}

static void
init_lists(struct model_obj *obj)
{
    struct ovs_list *lists[3] = {NULL};

    switch (obj->kind) {
    case REC_HOST:
        lists[0] = &model_host(obj)->vifs;
        lists[1] = &model_host(obj)->ports;
        lists[2] = &model_host(obj)->presences;
        ovs_list_init(&model_host(obj)->unconfirmed);
        ovs_list_init(&model_host(obj)->exporters);
        ovs_list_init(&model_host(obj)->remembered);
        ovs_list_init(&model_host(obj)->bonds);
        ovs_list_init(&model_host(obj)->pifs);
        break;
    case REC_TENANT:
        lists[0] = &model_tenant(obj)->networks;
        lists[1] = &model_tenant(obj)->vms;
        lists[2] = &model_tenant(obj)->groups;
        ovs_list_init(&model_tenant(obj)->users);
        break;
    case REC_NETWORK:
        lists[0] = &model_network(obj)->vifs;
        lists[1] = &model_network(obj)->policies;
        lists[2] = &model_network(obj)->presences;
        ovs_list_init(&model_network(obj)->mirrors);
        ovs_list_init(&model_network(obj)->exporters);
        break;
    case REC_VM:
        lists[0] = &model_vm(obj)->vifs;
        lists[1] = &model_vm(obj)->groups;
        lists[2] = &model_vm(obj)->policies;
        ovs_list_init(&model_vm(obj)->resident_node);
        break;
    case REC_VIF:
        lists[0] = &model_vif(obj)->ports;
        lists[1] = &model_vif(obj)->groups;
        lists[2] = &model_vif(obj)->policies;
        ovs_list_init(&model_vif(obj)->mirrors);
        ovs_list_init(&model_vif(obj)->mirrors_to);
        ovs_list_init(&model_vif(obj)->remembered_node);
        ovs_list_init(&model_vif(obj)->children);
        break;
    case REC_GROUP:
        lists[0] = &model_group(obj)->groups;
        lists[1] = &model_group(obj)->policies;
        lists[2] = &model_group(obj)->rules;
        break;
    case REC_POLICY:
        lists[0] = &model_policy(obj)->rules;
        lists[1] = &model_policy(obj)->node;
        break;
    default:
        break;
    }
    for (size_t i = 0; i < ARRAY_SIZE(lists) && lists[i]; i++) {
        ovs_list_init(lists[i]);
    }
}

static struct model_obj *
obj_create(struct model *m, enum rec_kind kind, const struct uuid *uuid)
{
    struct model_obj *obj = slab_zalloc(obj_sizes[kind]);

    obj->kind = kind;
    obj->uuid = *uuid;
    obj->name = xstrdup("");
    ovs_list_init(&obj->change_node);
    ovs_list_init(&obj->dirty_node);
    ovs_list_init(&obj->status_node);
    ovs_list_init(&obj->refs_out);
    ovs_list_init(&obj->claims);
    init_lists(obj);
    /* Found by its uuid in 'wants'; here side by side, in the order in which they came. */
    hmap_insert(&m->objs[kind], &obj->kind_node, m->objs_came++);
    model_want_add(m, obj);
    /* Its row may show the status of another day. */
    model_note(m, obj);
    return obj;
}

/* It is in no other object's list. */
static void
obj_destroy(struct model *m, struct model_obj *obj)
{
    model_drop_refs(m, obj);
    model_drop_claims(m, obj);
    model_want_remove(m, obj);
    hmap_remove(&m->objs[obj->kind], &obj->kind_node);
    ovs_list_remove(&obj->change_node);
    ovs_list_remove(&obj->dirty_node);
    ovs_list_remove(&obj->status_node);
    model_free_fields(obj);
    free(obj->name);
    free(obj->error);
    free(obj->warning);
    free(obj->refused);
    free(obj->fault);
    slab_free(obj, obj_sizes[obj->kind]);
}

void
model_destroy(struct model *m)
{
    struct model_obj *obj;

    if (!m) {
        return;
    }
    for (int k = REC_N_KINDS - 1; k >= 0; k--) {
        MODEL_FOR_EACH (obj, m, k) {
            model_remove(m, k, &obj->uuid);
        }
    }
    model_settle(m);
    model_changes_clear(m);
    for (int k = 0; k < REC_N_KINDS; k++) {
        hmap_destroy(&m->objs[k]);
    }
    hmap_destroy(&m->by_key);
    hmap_destroy(&m->wants);
    hmap_destroy(&m->claims);
    hmap_destroy(&m->vif_by_xs);
    hmap_destroy(&m->vif_by_mac);
    hmap_destroy(&m->ports);
    hmap_destroy(&m->ports_by_xs);
    hmap_destroy(&m->ports_by_mac);
    hmap_destroy(&m->presences);
    free(m->pool_name);
    free(m);
}

/* --- feeding ------------------------------------------------------------------------- */

static void
put_pool(struct model *m, const struct rec *r)
{
    enum model_action action =
        !strcmp(r->v[REC_POOL_DEFAULT_ACTION].s, "allow") ? MODEL_ALLOW : MODEL_DENY;
    struct model_rates rates = model_parse_rates(r, REC_POOL_RATE_IN);

    if (action != m->default_action) {
        m->default_action = action;
        m->change |= MODEL_CFG;
    }
    if (memcmp(&rates, &m->rates, sizeof rates)) {
        struct model_obj *vif;

        m->rates = rates;
        MODEL_FOR_EACH (vif, m, REC_VIF) {
            model_dirty(m, vif);
        }
    }
    free(m->pool_name);
    m->pool_name = xstrdup(r->name);
}

/* Nothing of it counts but its name, by which it can be found and mended. */
static void
put_faulty(struct model *m, struct model_obj *obj, const struct rec *r)
{
    struct uuid policy = UUID_ZERO;
    struct model_claimed name;

    if (r->kind == REC_RULE) {
        uuid_from_string(&policy, r->v[REC_RULE_POLICY].s);
    }
    free(obj->name);
    obj->name = xstrdup(r->name);
    model_drop_claims(m, obj);
    name = model_claimed_name(r->kind, r->name, &policy);
    model_claim(m, obj, "name", &name);
    obj->key = obj->key ? obj->key : r->key;
    if (obj->key) {
        model_claim_number(m, obj, "key", obj->key);
    }
    model_claims_end(m, obj);
}

void
model_put(struct model *m, const struct uuid *uuid, const struct rec *r)
{
    struct model_obj *obj;
    const char *field;
    char why[512];
    bool good;

    if (r->kind == REC_POOL) {
        put_pool(m, r);
        return;
    }
    index_prefetch(&m->wants, uuid_hash(uuid));
    good = rec_check(r, &field, why, sizeof why);
    obj = model_any_by_uuid(m, r->kind, uuid);
    if (!obj) {
        obj = obj_create(m, r->kind, uuid);
    }
    obj->present = true;
    free(obj->fault);
    obj->fault = NULL;
    if (!good) {
        obj->fault = xasprintf("%s: %s", field, why);
        obj->widened = model_parse_widened(m, obj, r);
        if (obj->widened) {
            model_mark(m, obj, MODEL_CFG);
        } else {
            put_faulty(m, obj, r);
        }
    } else {
        model_parse(m, obj, r);
        model_mark(m, obj, MODEL_CFG);
    }
    model_dirty(m, obj);
}

void
model_remove(struct model *m, enum rec_kind kind, const struct uuid *uuid)
{
    struct model_obj *obj = kind == REC_POOL ? NULL : model_find(m, kind, uuid);

    if (obj) {
        obj->present = false;
        free(obj->fault);
        obj->fault = NULL;
        model_drop_claims(m, obj);
        model_dirty(m, obj);
    }
}

/* --- finding ---------------------------------------------------------------------------- */

struct model_obj *
model_any_by_uuid(const struct model *m, enum rec_kind kind, const struct uuid *uuid)
{
    const struct model_want *want = model_want_find(m, uuid);

    return want ? model_want_obj(want, kind) : NULL;
}

struct model_obj *
model_find(const struct model *m, enum rec_kind kind, const struct uuid *uuid)
{
    struct model_obj *obj = model_any_by_uuid(m, kind, uuid);

    return obj && obj->present ? obj : NULL;
}

struct model_obj *
model_by_uuid(const struct model *m, enum rec_kind kind, const struct uuid *uuid)
{
    struct model_obj *obj = model_any_by_uuid(m, kind, uuid);

    return obj && obj->live ? obj : NULL;
}

struct model_obj *
model_by_key(const struct model *m, uint32_t key)
{
    struct model_obj *obj;

    HMAP_FOR_EACH_WITH_HASH (obj, key_node, hash_int(key, 0), &m->by_key) {
        if (obj->key == key) {
            return obj;
        }
    }
    return NULL;
}

size_t
model_claimed_size(const struct model_claimed *what)
{
    return strlen(what->kind) + strlen(what->of) + 2 * what->n + 3;
}

/* A cold start makes some for each object: with printf the model takes a quarter longer. */
void
model_claimed_put(char *text, const struct model_claimed *what)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = what->bytes;
    char *p = text;

    p = stpcpy(p, what->kind);
    *p++ = ' ';
    p = stpcpy(p, what->of);
    *p++ = ' ';
    for (size_t i = 0; i < what->n; i++) {
        *p++ = digits[bytes[i] >> 4];
        *p++ = digits[bytes[i] & 15];
    }
    *p = '\0';
}

static char *
claim_text(const struct model_claimed *what)
{
    char *text = xmalloc(model_claimed_size(what));

    model_claimed_put(text, what);
    return text;
}

char *
model_number_claim(const char *what, uint32_t number)
{
    return claim_text(&(struct model_claimed){what, "", &number, sizeof number});
}

struct model_claimed
model_claimed_name(enum rec_kind kind, const char *name, const struct uuid *policy)
{
    /* Tables' names are in capitals, unlike what other claims begin with. */
    return (struct model_claimed){rec_tables[kind].table, name, policy,
                                  kind == REC_RULE ? sizeof *policy : 0};
}

char *
model_name_claim(enum rec_kind kind, const char *name, const struct uuid *policy)
{
    struct model_claimed what = model_claimed_name(kind, name, policy);

    return claim_text(&what);
}

struct model_claim_set *
model_claim_find(const struct model *m, const char *what)
{
    return model_claim_find_hashed(m, what, model_claim_hash(what));
}

struct model_claim_set *
model_claim_find_hashed(const struct model *m, const char *what, uint32_t hash)
{
    struct model_claim_set *set;

    HMAP_FOR_EACH_WITH_HASH (set, node, hash, &m->claims) {
        if (!strcmp(set->what, what)) {
            return set;
        }
    }
    return NULL;
}

static struct model_obj *
by_claim(const struct model *m, char *what, bool live)
{
    struct model_claim_set *set = model_claim_find(m, what);
    struct model_obj *found = NULL;
    struct model_claim *claim;

    free(what);
    if (set) {
        LIST_FOR_EACH (claim, set_node, &set->claims) {
            if (claim->obj->state == GOOD || !live) {
                return claim->obj;
            }
            found = claim->obj->live && !found ? claim->obj : found;
        }
    }
    return found;
}

struct model_obj *
model_by_name(const struct model *m, enum rec_kind kind, const char *name)
{
    return kind == REC_RULE ? NULL : by_claim(m, model_name_claim(kind, name, NULL), true);
}

struct model_obj *
model_any_by_name(const struct model *m, enum rec_kind kind, const char *name,
                  const struct uuid *policy)
{
    return by_claim(m, model_name_claim(kind, name, policy), false);
}

/* --- the change set ------------------------------------------------------------------------ */

void
model_mark(struct model *m, struct model_obj *obj, unsigned change)
{
    if (!obj->live && !obj->was_live) {
        return;
    }
    if (!obj->change) {
        ovs_list_push_back(&m->changed[obj->kind], &obj->change_node);
    }
    obj->change |= change;
}

void
model_dirty(struct model *m, struct model_obj *obj)
{
    /* It may be on the list of those that went. */
    ovs_list_remove(&obj->dirty_node);
    ovs_list_push_back(&m->dirty[obj->kind], &obj->dirty_node);
}

void
model_note(struct model *m, struct model_obj *obj)
{
    if (ovs_list_is_empty(&obj->status_node)) {
        ovs_list_push_back(&m->status, &obj->status_node);
    }
}

bool
model_has_changes(const struct model *m)
{
    for (int k = 0; k < REC_N_KINDS; k++) {
        if (!ovs_list_is_empty(&m->changed[k])) {
            return true;
        }
    }
    return m->change || !ovs_list_is_empty(&m->gone);
}

void
model_changes_clear(struct model *m)
{
    struct model_obj *obj;

    for (int k = 0; k < REC_N_KINDS; k++) {
        LIST_FOR_EACH_SAFE (obj, change_node, &m->changed[k]) {
            obj->change = 0;
            obj->was_live = obj->live;
            ovs_list_remove(&obj->change_node);
            ovs_list_init(&obj->change_node);
            if (!obj->live) {
                model_forget(obj);
            }
        }
    }
    LIST_FOR_EACH_SAFE (obj, dirty_node, &m->gone) {
        obj_destroy(m, obj);
    }
    m->change = 0;
}

/* --- status ---------------------------------------------------------------------------------- */

void
model_host_set_status(struct model *m, struct model_host *host, const struct model_host_status *now)
{
    struct model_host_status *was = &host->status;
    bool minute = now->last_seen_ms / 60000 != was->last_seen_ms / 60000;
    bool same = now->connected == was->connected && now->drift == was->drift &&
                now->applied_generation == was->applied_generation &&
                !strcmp(now->error, was->error) && !strcmp(now->version, was->version) &&
                !strcmp(now->datapath_type, was->datapath_type) &&
                !strcmp(now->switch_type, was->switch_type);

    *was = *now;
    if (!same || minute) {
        model_note(m, &host->obj);
    }
}

void
model_pif_set_status(struct model *m, struct model_pif *pif, const struct model_pif_status *now)
{
    struct model_pif_status *was = &pif->status;
    bool same = !strcmp(was->link, now->link) && was->speed_mbps == now->speed_mbps &&
                !strcmp(was->mac, now->mac) && !strcmp(was->bridge, now->bridge);

    *was = *now;
    if (!same || !pif->reported) {
        pif->reported = true;
        model_note(m, &pif->obj);
    }
}

static void
set_text(struct model *m, struct model_obj *obj, char **text, const char *now)
{
    now = now && *now ? now : NULL;
    if (nullable_string_is_equal(*text, now)) {
        return;
    }
    free(*text);
    *text = nullable_xstrdup(now);
    model_note(m, obj);
}

void
model_set_error(struct model *m, struct model_obj *obj, const char *error)
{
    set_text(m, obj, &obj->refused, error);
}

void
model_set_warning(struct model *m, struct model_obj *obj, const char *warning)
{
    set_text(m, obj, &obj->warning, warning);
}

unsigned
model_rule_band(const struct model_rule *rule)
{
    return rule->mandatory ? MODEL_N_BANDS - 1 - rule->policy->scope : rule->policy->scope;
}
