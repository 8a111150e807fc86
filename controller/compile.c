/* One run: from the change set to the hosts' tables.
 *
 * The order matters.  Hosts come first, for vifs are put on them; then vifs,
 * which bring networks to hosts; then members of scopes and rules, whose sums
 * make the epochs; then what depends on all of these: networks' and flood
 * units.  What goes frees its flows at once; a host that goes waits until
 * nothing is on it. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "compile_impl.h"
#include "index.h"
#include "openvswitch/dynamic-string.h"
#include "util.h"

struct compile *
compile_create(struct model *model)
{
    struct compile *c = xzalloc(sizeof *c);

    c->model = model;
    hmap_init(&c->hosts);
    hmap_init(&c->nets);
    hmap_init(&c->vifs);
    hmap_init(&c->scopes);
    hmap_init(&c->rules);
    ovs_list_init(&c->dirty_nets);
    ovs_list_init(&c->dirty_floods);
    ovs_list_init(&c->fresh);
    ovs_list_init(&c->placed);
    ovs_list_init(&c->touched);
    return c;
}

/* --- the change set ---------------------------------------------------------------- */

/* Objects of a kind to look at: what changed, or at first all.  The caller frees
 * the array. */
static struct model_obj **
changed(const struct compile *c, enum rec_kind kind, size_t *n)
{
    struct model_obj **objs = NULL, *obj;
    size_t allocated = 0;

    *n = 0;
    if (!c->started) {
        MODEL_FOR_EACH (obj, c->model, kind) {
            if (obj->live) {
                if (*n == allocated) {
                    objs = x2nrealloc(objs, &allocated, sizeof *objs);
                }
                objs[(*n)++] = obj;
            }
        }
        return objs;
    }
    MODEL_FOR_EACH_CHANGED (obj, c->model, kind) {
        if (*n == allocated) {
            objs = x2nrealloc(objs, &allocated, sizeof *objs);
        }
        objs[(*n)++] = obj;
    }
    return objs;
}

static void
run_default_action(struct compile *c)
{
    struct flows old = c->pipeline;
    struct chost *h;

    if (c->started && c->default_action == c->model->default_action) {
        return;
    }
    c->default_action = c->model->default_action;
    c->pipeline = (struct flows){0};
    make_pipeline(c, &c->pipeline, c->default_action);
    HMAP_FOR_EACH (h, node, &c->hosts) {
        for (size_t i = 0; i < c->pipeline.n; i++) {
            host_give(c, h, c->pipeline.f[i]);
            host_withdraw(c, h, old.f[i]);
        }
    }
    c->all_dirty = true;
    flows_clear(&old);
}

static void
run_hosts(struct compile *c)
{
    size_t n;
    struct model_obj **objs = changed(c, REC_HOST, &n);

    for (size_t i = 0; i < n; i++) {
        struct chost *h = find_chost(c, objs[i]->key);

        if (objs[i]->live) {
            update_host(c, model_host(objs[i]));
        } else if (h) {
            set_host_gone(c, h);
        }
    }
    free(objs);
}

static void
run_vif(struct compile *c, uint32_t key)
{
    struct model_vif *mv = model_vif(model_by_key(c->model, key));
    struct cvif *v = find_cvif(c, key);

    if (v && v->run == c->stats.runs) {
        return;
    }
    if (mv) {
        place_vif(c, mv);
    } else {
        forget_vif(c, key);
    }
}

/* Keys of vifs: what they are found by may change while they are looked at. */
struct keys {
    uint32_t *k;
    size_t n, allocated;
};

static void
add_key(struct keys *keys, uint32_t key)
{
    if (keys->n == keys->allocated) {
        keys->k = x2nrealloc(keys->k, &keys->allocated, sizeof *keys->k);
    }
    keys->k[keys->n++] = key;
}

static void
run_keys(struct compile *c, struct keys *keys)
{
    for (size_t i = 0; i < keys->n; i++) {
        run_vif(c, keys->k[i]);
    }
    free(keys->k);
}

static void
run_vifs_of_net(struct compile *c, const struct cnet *net)
{
    struct keys keys = {0};
    struct cvif *v;

    LIST_FOR_EACH (v, net_node, &net->vifs) {
        add_key(&keys, v->key);
    }
    run_keys(c, &keys);
}

static void
run_vifs_on_host(struct compile *c, const struct chost *host)
{
    struct keys keys = {0};
    struct cpresence *p;
    struct cplace *place;

    LIST_FOR_EACH (p, host_node, &host->presences) {
        LIST_FOR_EACH (place, presence_node, &p->places) {
            add_key(&keys, place->vif->key);
        }
    }
    run_keys(c, &keys);
}

struct vif_order {
    uint64_t place; /* host, then network */
    uint32_t key;
    struct model_vif *vif;
};

static int
compare_order(const void *a_, const void *b_)
{
    const struct vif_order *a = a_, *b = b_;

    if (a->place != b->place) {
        return a->place < b->place ? -1 : 1;
    }
    return a->key < b->key ? -1 : a->key > b->key;
}

/* Vifs asked for before they are looked at. */
#define AHEAD 3

/* All vifs, by host and network, so that what is worked on lies close together. */
static void
run_first_vifs(struct compile *c, struct model_obj **vifs, size_t n)
{
    struct vif_order *order = xmalloc((n + 1) * sizeof *order);

    for (size_t i = 0; i < n; i++) {
        struct model_vif *v = model_vif(vifs[i]);
        uint64_t host = v->host ? v->host->obj.key : 0;

        order[i] = (struct vif_order){host << 32 | v->network->obj.key, v->obj.key, v};
    }
    qsort(order, n, sizeof *order, compare_order);
    hmap_reserve(&c->vifs, 4 * n);
    for (size_t i = 0; i < n; i++) {
        if (i + AHEAD < n) {
            prefetch(order[i + AHEAD].vif, sizeof *order[i].vif);
        }
        place_vif(c, order[i].vif);
    }
    free(order);
}

static void
run_vifs(struct compile *c)
{
    size_t n_nets, n_vifs;
    struct model_obj **nets = changed(c, REC_NETWORK, &n_nets);
    struct model_obj **vifs = changed(c, REC_VIF, &n_vifs);
    struct chost *h;

    if (!c->started) {
        run_first_vifs(c, vifs, n_vifs);
    }
    for (size_t i = 0; c->started && i < n_vifs; i++) {
        run_vif(c, vifs[i]->key);
    }
    for (size_t i = 0; i < n_nets; i++) {
        struct cnet *net = find_cnet(c, nets[i]->key);

        if (net && nets[i]->change & (MODEL_CFG | MODEL_CREATED | MODEL_DELETED)) {
            if (c->started) { /* at first all have been placed */
                run_vifs_of_net(c, net);
            }
            dirty_network(c, net);
            dirty_floods(c, net);
        }
    }
    if (c->hosts_changed) {
        HMAP_FOR_EACH (h, node, &c->hosts) {
            if (h->gone) {
                run_vifs_on_host(c, h);
            }
        }
    }
    place_remotes(c);
    free(nets);
    free(vifs);
}

static void
run_members(struct compile *c)
{
    static const enum rec_kind kinds[] = {REC_GROUP, REC_VM, REC_VIF};

    for (size_t k = 0; c->started && k < ARRAY_SIZE(kinds); k++) {
        size_t n;
        struct model_obj **objs = changed(c, kinds[k], &n);

        for (size_t i = 0; i < n; i++) {
            if (objs[i]->live) {
                scope_members(c, objs[i]);
            }
        }
        free(objs);
    }
}

static void
run_rule(struct compile *c, const struct model_obj *rule)
{
    struct model_rule *mr = model_rule(model_by_key(c->model, rule->key));

    if (mr) {
        scope_rule(c, mr);
    } else {
        forget_rule(c, rule->key);
    }
}

/* Rules that changed; those of policies that did; those that name a group that
 * did. */
static void
run_rules(struct compile *c)
{
    size_t n;
    struct model_obj **objs = changed(c, REC_RULE, &n);
    struct model_ref *ref;

    for (size_t i = 0; i < n; i++) {
        run_rule(c, objs[i]);
    }
    free(objs);
    if (!c->started) {
        return;
    }
    objs = changed(c, REC_POLICY, &n);
    for (size_t i = 0; i < n; i++) {
        if (objs[i]->live && objs[i]->change & MODEL_CFG) {
            MODEL_FOR_EACH_REF (ref, &model_policy(objs[i])->rules) {
                run_rule(c, ref->from);
            }
        }
    }
    free(objs);
    objs = changed(c, REC_GROUP, &n);
    for (size_t i = 0; i < n; i++) {
        if (objs[i]->live && objs[i]->change & MODEL_MEMBERS) {
            MODEL_FOR_EACH_REF (ref, &model_group(objs[i])->rules) {
                run_rule(c, ref->from);
            }
        }
    }
    free(objs);
}

static void
free_gone(struct compile *c)
{
    struct chost *h, *next_h;
    struct cnet *net;

    HMAP_FOR_EACH_SAFE (h, next_h, node, &c->hosts) {
        if (h->gone) {
            free_host(c, h);
        }
    }
    if (!c->started) {
        return;
    }

    size_t n;
    struct model_obj **objs = changed(c, REC_NETWORK, &n);

    for (size_t i = 0; i < n; i++) {
        net = find_cnet(c, objs[i]->key);
        if (net && !objs[i]->live && ovs_list_is_empty(&net->vifs)) {
            hmap_remove(&c->nets, &net->node);
            free(net);
        }
    }
    free(objs);
}

void
compile_run(struct compile *c)
{
    c->stats.runs++;
    run_default_action(c);
    run_hosts(c);
    run_vifs(c);
    run_members(c);
    run_rules(c);
    place_fresh(c);
    place_networks(c);
    place_floods(c);
    update_peers(c);
    free_gone(c);
    settle_hosts(c);
    c->started = true;
}

/* --- what came of it ----------------------------------------------------------------- */

struct ftable *
compile_host_flows(struct compile *c, uint32_t host_key)
{
    struct chost *h = find_chost(c, host_key);

    return h ? &h->table : NULL;
}

const struct mtable *
compile_host_meters(struct compile *c, uint32_t host_key)
{
    struct chost *h = find_chost(c, host_key);

    return h ? &h->meters : NULL;
}

uint32_t
compile_network_epoch(const struct compile *c, uint32_t network_key, uint32_t host_key)
{
    const struct cnet *net = find_cnet(c, network_key);
    const struct cpresence *p = net ? find_presence(net, find_chost(c, host_key)) : NULL;

    return p ? network_epoch(c, p) : 0;
}

const struct compile_stats *
compile_get_stats(const struct compile *c)
{
    return &c->stats;
}

static int
compare_names(const void *a_, const void *b_)
{
    const struct model_obj *a = *(struct model_obj *const *)a_;
    const struct model_obj *b = *(struct model_obj *const *)b_;

    return strcmp(a->name, b->name);
}

int
compile_print(struct compile *c, const char *host_name, struct ds *s)
{
    struct model_obj **hosts = xmalloc((hmap_count(&c->hosts) + 1) * sizeof *hosts);
    struct chost *h;
    size_t n = 0;

    HMAP_FOR_EACH (h, node, &c->hosts) {
        struct model_obj *obj = model_by_key(c->model, h->key);

        if (obj && (!host_name || !strcmp(obj->name, host_name))) {
            hosts[n++] = obj;
        }
    }
    qsort(hosts, n, sizeof *hosts, compare_names);
    for (size_t i = 0; i < n; i++) {
        if (!host_name) {
            ds_put_format(s, "%shost %s\n", i ? "\n" : "", hosts[i]->name);
        }
        ftable_format(compile_host_flows(c, hosts[i]->key), s);
    }
    free(hosts);
    return host_name && !n ? ENOENT : 0;
}

/* --- the end ---------------------------------------------------------------------------- */

void
compile_destroy(struct compile *c)
{
    struct chost *h, *next_h;
    struct cnet *net, *next_net;
    struct crule *r;
    struct cvif *v;

    if (!c) {
        return;
    }
    while (!hmap_is_empty(&c->rules)) {
        r = CONTAINER_OF(hmap_first(&c->rules), struct crule, node);
        forget_rule(c, r->key);
    }
    while (!hmap_is_empty(&c->vifs)) {
        v = CONTAINER_OF(hmap_first(&c->vifs), struct cvif, node);
        forget_vif(c, v->key);
    }
    HMAP_FOR_EACH_SAFE (h, next_h, node, &c->hosts) {
        free_host(c, h);
    }
    HMAP_FOR_EACH_SAFE (net, next_net, node, &c->nets) {
        hmap_remove(&c->nets, &net->node);
        free(net);
    }
    flows_clear(&c->pipeline);
    hmap_destroy(&c->hosts);
    hmap_destroy(&c->nets);
    hmap_destroy(&c->vifs);
    hmap_destroy(&c->scopes);
    hmap_destroy(&c->rules);
    free(c);
}
