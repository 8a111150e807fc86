/* Scopes of rules: which vifs, hosts and networks a rule concerns.
 *
 * Rules of one object share a scope.  A scope knows its members, how many of
 * them each host has (a rule's common flows are on hosts that have any), and
 * for each network a sum over its members there.  A rule adds mix(content, sum)
 * to the policy of each such network; that makes the network's epoch. */
#include <config.h>

#include <stdlib.h>

#include "compile_impl.h"
#include "hash.h"
#include "util.h"

uint64_t
mix64(uint64_t a, uint64_t b)
{
    /* splitmix64's finalizer */
    uint64_t x = a * UINT64_C(0x9e3779b97f4a7c15) + b + UINT64_C(0x632be59bd9b4e019);

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* The vifs that are here count as well: a connection that passed one side's
 * policy here is looked at again when the other side's vif arrives. */
uint32_t
network_epoch(const struct compile *c, const struct cpresence *p)
{
    const struct model_network *n = model_network(model_by_key(c->model, p->net->key));
    uint64_t h = mix64(c->policy + p->net->policy, n ? n->policy_epoch : 0);
    uint32_t epoch = mix64(mix64(h, p->sum), c->model->default_action);

    return epoch ? epoch : 1; /* 0 is the mark of what was never committed */
}

static struct crule *
find_crule(const struct compile *c, uint32_t key)
{
    struct crule *r;

    HMAP_FOR_EACH_WITH_HASH (r, node, hash_int(key, 0), &c->rules) {
        if (r->key == key) {
            return r;
        }
    }
    return NULL;
}

static struct cscope *
find_scope(const struct compile *c, uint32_t key)
{
    struct cscope *s;

    HMAP_FOR_EACH_WITH_HASH (s, node, hash_int(key, 0), &c->scopes) {
        if (s->key == key) {
            return s;
        }
    }
    return NULL;
}

static struct model_rule *
rule_of(const struct compile *c, const struct crule *r)
{
    return model_rule(model_by_key(c->model, r->key));
}

/* --- policy of networks --------------------------------------------------------------- */

static void
add_policy(struct compile *c, const struct cscope *s, const struct scope_net *n, uint64_t content,
           bool add)
{
    uint64_t part = mix64(content, n ? n->sum : 0);

    if (s->type == SCOPE_ALL) {
        c->policy += add ? part : -part;
        c->all_dirty = true;
    } else {
        struct cnet *net = get_cnet(c, n->net);

        net->policy += add ? part : -part;
        dirty_network(c, net);
    }
}

static void
rule_policy(struct compile *c, const struct crule *r, bool add)
{
    const struct cscope *s = r->scope;

    if (s->type == SCOPE_ALL) {
        add_policy(c, s, NULL, r->content, add);
    }
    for (size_t i = 0; i < s->n_nets; i++) {
        add_policy(c, s, &s->nets[i], r->content, add);
    }
}

/* A member, or the network itself, counts in a network or counts no more. */
static void
scope_count(struct compile *c, struct cscope *s, uint32_t net, uint32_t member, bool there)
{
    struct crule *r;
    size_t i = 0;

    while (i < s->n_nets && s->nets[i].net != net) {
        i++;
    }
    if (i == s->n_nets) {
        ovs_assert(there);
        s->nets = xrealloc(s->nets, ++s->n_nets * sizeof *s->nets);
        s->nets[i] = (struct scope_net){.net = net};
    } else {
        LIST_FOR_EACH (r, scope_node, &s->rules) {
            add_policy(c, s, &s->nets[i], r->content, false);
        }
    }
    if (there) {
        s->nets[i].n++;
        s->nets[i].sum += mix64(member, 0);
    } else {
        s->nets[i].n--;
        s->nets[i].sum -= mix64(member, 0);
    }
    if (!s->nets[i].n) {
        s->nets[i] = s->nets[--s->n_nets];
        return;
    }
    LIST_FOR_EACH (r, scope_node, &s->rules) {
        add_policy(c, s, &s->nets[i], r->content, true);
    }
}

/* --- hosts ---------------------------------------------------------------------------- */

static void
give_bodies(struct compile *c, struct cscope *s, struct chost *h, bool give)
{
    struct crule *r;

    LIST_FOR_EACH (r, scope_node, &s->rules) {
        for (size_t i = 0; i < r->body.n; i++) {
            (give ? host_give : host_withdraw)(c, h, r->body.f[i]);
        }
    }
}

static void
scope_host(struct compile *c, struct cscope *s, struct chost *h, bool there)
{
    size_t i = 0;

    while (i < s->n_hosts && s->hosts[i].host != h) {
        i++;
    }
    if (i == s->n_hosts) {
        ovs_assert(there);
        s->hosts = xrealloc(s->hosts, ++s->n_hosts * sizeof *s->hosts);
        s->hosts[i] = (struct scope_host){.host = h};
        give_bodies(c, s, h, true);
    }
    if (there) {
        s->hosts[i].n++;
    } else if (!--s->hosts[i].n) {
        give_bodies(c, s, h, false);
        s->hosts[i] = s->hosts[--s->n_hosts];
    }
}

static void
set_rule_vif(struct compile *c, const struct crule *r, const struct model_rule *mr,
             const struct cvif *v, struct chost *h)
{
    struct flows flows = {0};

    make_rule_vif(c, mr, v->key, &flows);
    unit_set(c, h, UNIT_RULE_VIF, r->key, v->key, &flows);
}

static void
member_place(struct compile *c, struct cscope *s, struct cvif *v, struct chost *h, bool there)
{
    struct crule *r;

    scope_host(c, s, h, there);
    if (s->type != SCOPE_SET) {
        return;
    }
    LIST_FOR_EACH (r, scope_node, &s->rules) {
        struct model_rule *mr = there ? rule_of(c, r) : NULL;

        if (mr) {
            set_rule_vif(c, r, mr, v, h);
        } else if (!there) {
            unit_clear(c, h, UNIT_RULE_VIF, r->key, v->key);
        }
    }
}

void
scope_place(struct compile *c, struct cvif *v, struct chost *h, bool there)
{
    for (size_t i = 0; i < v->n_scopes; i++) {
        member_place(c, v->scopes[i], v, h, there);
    }
}

void
scope_presence(struct compile *c, uint32_t key, struct chost *h, bool there)
{
    struct cscope *s = find_scope(c, key);

    if (s) {
        scope_host(c, s, h, there);
    }
}

void
scope_network(struct compile *c, struct cvif *v, uint32_t net, bool there)
{
    for (size_t i = 0; i < v->n_scopes; i++) {
        scope_count(c, v->scopes[i], net, v->key, there);
    }
}

/* --- members ---------------------------------------------------------------------------- */

static struct cmember *
find_member(const struct cscope *s, const struct cvif *v)
{
    struct cmember *m;

    HMAP_FOR_EACH_WITH_HASH (m, node, hash_int(v->key, 0), &s->members) {
        if (m->vif == v) {
            return m;
        }
    }
    return NULL;
}

static struct cmember *
add_member(struct compile *c, struct cscope *s, struct cvif *v)
{
    struct cmember *m = xmalloc(sizeof *m);

    m->vif = v;
    hmap_insert(&s->members, &m->node, hash_int(v->key, 0));
    v->scopes = xrealloc(v->scopes, (v->n_scopes + 1) * sizeof *v->scopes);
    v->scopes[v->n_scopes++] = s;
    scope_count(c, s, v->net->key, v->key, true);
    for (size_t i = 0; i < v->n_places; i++) {
        member_place(c, s, v, v->places[i]->presence->host, true);
    }
    return m;
}

static void
drop_member(struct compile *c, struct cscope *s, struct cmember *m)
{
    struct cvif *v = m->vif;
    size_t i = 0;

    for (size_t j = 0; j < v->n_places; j++) {
        member_place(c, s, v, v->places[j]->presence->host, false);
    }
    scope_count(c, s, v->net->key, v->key, false);
    while (v->scopes[i] != s) {
        i++;
    }
    v->scopes[i] = v->scopes[--v->n_scopes];
    hmap_remove(&s->members, &m->node);
    free(m);
}

void
scope_leave(struct compile *c, struct cvif *v)
{
    while (v->n_scopes) {
        struct cscope *s = v->scopes[0];

        drop_member(c, s, find_member(s, v));
    }
}

/* Calls 'cb' for each vif that the object stands for. */
static void
for_each_vif(struct compile *c, const struct model_obj *obj, struct cscope *s,
             void (*cb)(struct compile *, struct cscope *, struct cvif *))
{
    struct model_group *group = model_group(obj);
    struct model_vm *vm = model_vm(obj);
    struct model_ref *ref;
    struct cvif *v;

    if (group) {
        size_t n;
        struct model_vif **vifs = model_group_vifs(c->model, group, &n);

        for (size_t i = 0; i < n; i++) {
            v = find_cvif(c, vifs[i]->obj.key);
            if (v) {
                cb(c, s, v);
            }
        }
    } else if (vm) {
        MODEL_FOR_EACH_REF (ref, &vm->vifs) {
            v = find_cvif(c, ref->from->key);
            if (v) {
                cb(c, s, v);
            }
        }
    } else if (model_vif(obj)) {
        v = find_cvif(c, obj->key);
        if (v) {
            cb(c, s, v);
        }
    }
}

/* It is a member (still). */
static void
join(struct compile *c, struct cscope *s, struct cvif *v)
{
    struct cmember *m = find_member(s, v);

    if (!m) {
        m = add_member(c, s, v);
    }
    m->round = c->round;
}

static void
update_members(struct compile *c, struct cscope *s, const struct model_obj *obj)
{
    struct cmember *m, *next;

    c->round++;
    for_each_vif(c, obj, s, join);
    HMAP_FOR_EACH_SAFE (m, next, node, &s->members) {
        if (m->round != c->round) {
            drop_member(c, s, m);
        }
    }
}

void
scope_members(struct compile *c, const struct model_obj *obj)
{
    struct cscope *s = find_scope(c, obj->key);

    if (s) {
        update_members(c, s, obj);
    }
}

/* --- life of a scope ------------------------------------------------------------------------ */

static enum scope_type
type_of(const struct model_policy *p)
{
    switch (p->scope) {
    case MODEL_SCOPE_GLOBAL:
    case MODEL_SCOPE_POOL:
        break;
    case MODEL_SCOPE_NETWORK:
        return SCOPE_NETWORK;
    case MODEL_SCOPE_VIF:
        return SCOPE_VIF;
    case MODEL_SCOPE_GROUP:
    case MODEL_SCOPE_VM:
        return SCOPE_SET;
    }
    return SCOPE_ALL;
}

static void
fill_scope(struct compile *c, struct cscope *s, const struct model_obj *obj)
{
    struct cpresence *p;
    struct chost *h;

    switch (s->type) {
    case SCOPE_ALL:
        HMAP_FOR_EACH (h, node, &c->hosts) {
            if (!h->gone) {
                scope_host(c, s, h, true);
            }
        }
        break;
    case SCOPE_NETWORK:
        scope_count(c, s, s->key, s->key, true);
        LIST_FOR_EACH (p, net_node, &get_cnet(c, s->key)->presences) {
            scope_host(c, s, p->host, true);
        }
        break;
    case SCOPE_VIF:
    case SCOPE_SET:
        update_members(c, s, obj);
        break;
    }
}

static struct cscope *
get_scope(struct compile *c, const struct model_policy *p)
{
    uint32_t key = p->object ? p->object->key : 0;
    struct cscope *s = find_scope(c, key);

    if (!s) {
        s = xzalloc(sizeof *s);
        s->key = key;
        s->type = type_of(p);
        hmap_init(&s->members);
        ovs_list_init(&s->rules);
        hmap_insert(&c->scopes, &s->node, hash_int(key, 0));
        fill_scope(c, s, p->object);
    }
    return s;
}

static void
free_scope(struct compile *c, struct cscope *s)
{
    struct cmember *m, *next;

    HMAP_FOR_EACH_SAFE (m, next, node, &s->members) {
        drop_member(c, s, m);
    }
    hmap_destroy(&s->members);
    hmap_remove(&c->scopes, &s->node);
    free(s->nets);
    free(s->hosts);
    free(s);
}

/* --- rules ----------------------------------------------------------------------------------- */

/* Drops what says the same twice, as ports stated twice do. */
static void
make_unique(struct flows *body)
{
    struct ftable seen;
    size_t n = 0;

    ftable_init(&seen);
    for (size_t i = 0; i < body->n; i++) {
        if (ftable_find(&seen, body->f[i])) {
            pflow_unref(body->f[i]);
        } else {
            ftable_set(&seen, body->f[i]);
            body->f[n++] = body->f[i];
        }
    }
    body->n = n;
    ftable_destroy(&seen);
}

static void
give_to_all(struct compile *c, const struct cscope *s, const struct pflow *f, bool give)
{
    for (size_t i = 0; i < s->n_hosts; i++) {
        (give ? host_give : host_withdraw)(c, s->hosts[i].host, f);
    }
}

/* Puts 'body' in place of the rule's, on each host of its scope; what is equal
 * stays. */
static void
set_body(struct compile *c, struct crule *r, struct flows *body)
{
    struct ftable old;
    const struct pflow *f;

    make_unique(body);
    ftable_init(&old);
    for (size_t i = 0; i < r->body.n; i++) {
        ftable_set(&old, r->body.f[i]);
    }
    for (size_t i = 0; i < body->n; i++) {
        struct pflow *same = ftable_find(&old, body->f[i]);

        if (same && pflow_equal(same, body->f[i])) {
            pflow_unref(body->f[i]);
            body->f[i] = pflow_ref(same);
            ftable_remove(&old, same);
        } else {
            give_to_all(c, r->scope, body->f[i], true);
        }
    }
    FTABLE_FOR_EACH (f, &old) {
        give_to_all(c, r->scope, f, false);
    }
    ftable_destroy(&old);
    flows_clear(&r->body);
    r->body = *body;
    *body = (struct flows){0};
}

/* What the rule's flows are for any vif. */
static uint64_t
vif_shape(struct compile *c, const struct model_rule *mr)
{
    struct flows flows = {0};
    uint64_t shape = 1;

    make_rule_vif(c, mr, 0, &flows);
    for (size_t i = 0; i < flows.n; i++) {
        const struct pflow *f = flows.f[i];
        ovs_u128 h;

        hash_bytes128(f->bytes, f->match_len + f->actions_len, f->priority, &h);
        shape = mix64(shape, h.u64.lo + f->table);
    }
    flows_clear(&flows);
    return shape;
}

static void
set_vifs(struct compile *c, struct crule *r, const struct model_rule *mr)
{
    uint64_t shape = vif_shape(c, mr);
    struct cmember *m;

    if (shape == r->vif_shape) {
        return;
    }
    r->vif_shape = shape;
    HMAP_FOR_EACH (m, node, &r->scope->members) {
        for (size_t i = 0; i < m->vif->n_places; i++) {
            set_rule_vif(c, r, mr, m->vif, m->vif->places[i]->presence->host);
        }
    }
}

void
scope_rule(struct compile *c, struct model_rule *mr)
{
    struct cscope *s = get_scope(c, mr->policy);
    struct crule *r = find_crule(c, mr->obj.key);
    uint64_t content = rule_content(c, mr);
    struct flows body = {0};

    if (r && r->scope != s) {
        forget_rule(c, r->key);
        r = NULL;
    }
    if (!r) {
        r = xzalloc(sizeof *r);
        r->key = mr->obj.key;
        r->scope = s;
        hmap_insert(&c->rules, &r->node, hash_int(r->key, 0));
        ovs_list_push_back(&s->rules, &r->scope_node);
        r->content = content;
        rule_policy(c, r, true);
    } else if (r->content != content) {
        rule_policy(c, r, false);
        r->content = content;
        rule_policy(c, r, true);
    }

    c->stats.units++;
    make_rule(c, mr, s->type, s->key, &body);
    set_body(c, r, &body);
    if (s->type == SCOPE_SET) {
        set_vifs(c, r, mr);
    }
}

void
forget_rule(struct compile *c, uint32_t key)
{
    struct crule *r = find_crule(c, key);
    struct flows nothing = {0};

    if (!r) {
        return;
    }

    struct cscope *s = r->scope;
    struct cmember *m;

    rule_policy(c, r, false);
    set_body(c, r, &nothing);
    if (s->type == SCOPE_SET) {
        HMAP_FOR_EACH (m, node, &s->members) {
            for (size_t i = 0; i < m->vif->n_places; i++) {
                unit_clear(c, m->vif->places[i]->presence->host, UNIT_RULE_VIF, key, m->vif->key);
            }
        }
    }
    ovs_list_remove(&r->scope_node);
    hmap_remove(&c->rules, &r->node);
    free(r);
    if (ovs_list_is_empty(&s->rules)) {
        free_scope(c, s);
    }
}
