/* Where vifs are: their units, and those of networks on hosts. */
#include <config.h>

#include <stdlib.h>

#include "compile_impl.h"
#include "hash.h"
#include "index.h"
#include "slab.h"
#include "util.h"

/* OpenFlow ports above are reserved. */
#define MAX_OFPORT 0xff00u

/* --- networks ------------------------------------------------------------------- */

struct cnet *
get_cnet(struct compile *c, uint32_t key)
{
    struct cnet *net = find_cnet(c, key);

    if (!net) {
        net = xzalloc(sizeof *net);
        net->key = key;
        ovs_list_init(&net->presences);
        ovs_list_init(&net->vifs);
        hmap_insert(&c->nets, &net->node, hash_int(key, 0));
    }
    return net;
}

static void
dirty_presence(struct compile *c, struct cpresence *p)
{
    if (!p->dirty) {
        p->dirty = true;
        ovs_list_push_back(&c->dirty_nets, &p->dirty_node);
    }
}

void
dirty_network(struct compile *c, struct cnet *net)
{
    struct cpresence *p;

    LIST_FOR_EACH (p, net_node, &net->presences) {
        dirty_presence(c, p);
    }
}

static void
dirty_flood(struct compile *c, struct cpresence *p)
{
    if (!p->flood_dirty) {
        p->flood_dirty = true;
        ovs_list_push_back(&c->dirty_floods, &p->flood_node);
    }
}

void
dirty_floods(struct compile *c, struct cnet *net)
{
    struct cpresence *p;

    LIST_FOR_EACH (p, net_node, &net->presences) {
        dirty_flood(c, p);
    }
}

static bool
is_overlay(const struct compile *c, const struct cnet *net)
{
    struct model_network *n = model_network(model_by_key(c->model, net->key));

    return n && n->type == MODEL_OVERLAY;
}

static struct cpresence *
get_presence(struct compile *c, struct cnet *net, struct chost *h)
{
    struct cpresence *p = find_presence(net, h);

    if (!p) {
        p = xzalloc(sizeof *p);
        p->net = net;
        p->host = h;
        ovs_list_init(&p->places);
        ovs_list_push_back(&net->presences, &p->net_node);
        ovs_list_push_back(&h->presences, &p->host_node);
        p->fresh = true;
        ovs_list_push_back(&c->fresh, &p->fresh_node);
        if (is_overlay(c, net)) {
            dirty_floods(c, net);
        }
        scope_presence(c, net->key, h, true);
    }
    return p;
}

static void
drop_presence(struct compile *c, struct cpresence *p)
{
    struct cnet *net = p->net;
    struct chost *h = p->host;
    struct cvif *v;

    scope_presence(c, net->key, h, false);
    unit_clear(c, h, UNIT_NETWORK, net->key, 0);
    unit_clear(c, h, UNIT_FLOOD, net->key, 0);
    LIST_FOR_EACH (v, net_node, &net->vifs) {
        unit_clear(c, h, UNIT_REMOTE, v->key, 0);
    }
    if (p->dirty) {
        ovs_list_remove(&p->dirty_node);
    }
    if (p->flood_dirty) {
        ovs_list_remove(&p->flood_node);
    }
    if (p->fresh) {
        ovs_list_remove(&p->fresh_node);
    }
    ovs_list_remove(&p->net_node);
    ovs_list_remove(&p->host_node);
    free(p);
    if (is_overlay(c, net)) {
        dirty_floods(c, net);
    }
}

/* --- vifs -------------------------------------------------------------------------- */

static struct cplace *
find_place(const struct cvif *v, const struct chost *h)
{
    for (size_t i = 0; i < v->n_places; i++) {
        if (v->places[i]->presence->host == h) {
            return v->places[i];
        }
    }
    return NULL;
}

static struct cplace *
add_place(struct compile *c, struct cvif *v, struct chost *h)
{
    struct cplace *place = slab_zalloc(sizeof *place);

    place->vif = v;
    place->presence = get_presence(c, v->net, h);
    ovs_list_push_back(&place->presence->places, &place->presence_node);
    place->presence->n_places++;
    dirty_presence(c, place->presence);
    v->places = xrealloc(v->places, (v->n_places + 1) * sizeof *v->places);
    v->places[v->n_places++] = place;
    if (c->started) {
        unit_clear(c, h, UNIT_REMOTE, v->key, 0);
    }
    scope_place(c, v, h, true);
    return place;
}

/* The number may be another vif's by now, and so may the meters. */
static void
clear_meters(struct chost *h, uint32_t vif_key, const struct cplace *place)
{
    for (unsigned way = 0; way < 2; way++) {
        mtable_remove(&h->meters, pmeter_id(place->ofport, place->tag, way), vif_key);
    }
}

static void
set_meters(struct chost *h, const struct model_vif *mv, uint32_t ofport, bool reachable)
{
    for (unsigned way = 0; way < 2; way++) {
        const struct model_limit *limit = &mv->limit[way];

        if (limit->kbps && reachable) {
            mtable_set(&h->meters, pmeter_id(ofport, mv->tag, way), limit->kbps,
                       pmeter_burst(limit->kbps, limit->burst), mv->obj.key);
        } else {
            mtable_remove(&h->meters, pmeter_id(ofport, mv->tag, way), mv->obj.key);
        }
    }
}

static void
drop_place(struct compile *c, struct cvif *v, size_t i)
{
    struct cplace *place = v->places[i];
    struct cpresence *p = place->presence;

    scope_place(c, v, p->host, false);
    unit_clear(c, p->host, UNIT_VIF, v->key, 0);
    clear_meters(p->host, v->key, place);
    v->places[i] = v->places[--v->n_places];
    ovs_list_remove(&place->presence_node);
    p->sum -= place->reachable ? mix64(v->key, 0) : 0;
    slab_free(place, sizeof *place);
    if (--p->n_places) {
        dirty_presence(c, p);
        dirty_flood(c, p);
    } else {
        drop_presence(c, p);
    }
}

/* The vif's port on a host: of several, as when one is just replaced, the one
 * that was there first has the lower number. */
static uint32_t
port_on(const struct model_vif *mv, const struct chost *h)
{
    struct model_port *port;
    uint32_t best = 0;

    LIST_FOR_EACH (port, vif_node, &mv->ports) {
        if (port->host->obj.key == h->key && port->ofport && port->ofport < MAX_OFPORT &&
            (!best || port->ofport < best)) {
            best = port->ofport;
        }
    }
    return best;
}

static void
set_network(struct compile *c, struct cvif *v, uint32_t key)
{
    if (v->net && v->net->key == key) {
        return;
    }
    if (v->net) {
        struct cpresence *p;

        while (v->n_places) {
            drop_place(c, v, 0);
        }
        LIST_FOR_EACH (p, net_node, &v->net->presences) {
            unit_clear(c, p->host, UNIT_REMOTE, v->key, 0);
        }
        scope_network(c, v, v->net->key, false);
        ovs_list_remove(&v->net_node);
    }
    v->net = get_cnet(c, key);
    ovs_list_push_back(&v->net->vifs, &v->net_node);
    scope_network(c, v, key, true);
}

static void
place_port(struct compile *c, struct cvif *v, struct model_vif *mv, const struct model_port *port,
           struct chost *h)
{
    struct cplace *place = find_place(v, h);
    enum model_role role = model_vif_role(mv, port->host);
    bool reachable = mv->locking != MODEL_DISABLED && role != MODEL_AWAY;
    uint32_t ofport = port->ofport;
    struct flows flows = {0};

    if (!place) {
        place = add_place(c, v, h);
        dirty_flood(c, place->presence);
    }
    place->role = role;
    if (place->reachable != reachable || place->isolated != mv->isolated) {
        /* Who is shut off has no side: what was passed without it is judged again. */
        place->presence->sum -= place->reachable ? mix64(v->key, 0) : 0;
        place->reachable = reachable;
        place->presence->sum += place->reachable ? mix64(v->key, 0) : 0;
        dirty_presence(c, place->presence);
        place->isolated = mv->isolated;
        dirty_flood(c, place->presence);
    }
    if (place->ofport != ofport || place->tag != mv->tag) {
        clear_meters(h, v->key, place);
        place->ofport = ofport;
        place->tag = mv->tag;
    }
    set_meters(h, mv, ofport, reachable);
    make_vif(c, mv, ofport, role, &flows);
    unit_set(c, h, UNIT_VIF, v->key, 0, &flows);
}

void
place_vif(struct compile *c, struct model_vif *mv)
{
    struct cvif *v = c->started ? find_cvif(c, mv->obj.key) : NULL; /* at first each comes once */
    struct model_port *port;

    if (!v) {
        v = slab_zalloc(sizeof *v);
        v->key = mv->obj.key;
        index_insert(&c->vifs, &v->node, hash_int(v->key, 0));
    }
    v->now = mv;
    v->run = c->stats.runs;
    ovs_list_push_back(&c->placed, &v->run_node);
    set_network(c, v, mv->network->obj.key);

    for (size_t i = v->n_places; i-- > 0;) {
        struct chost *h = v->places[i]->presence->host;

        if (h->gone || !port_on(mv, h)) {
            drop_place(c, v, i);
        }
    }
    LIST_FOR_EACH (port, vif_node, &mv->ports) {
        struct chost *h = find_chost(c, port->host->obj.key);
        uint32_t ofport = h && !h->gone ? port_on(mv, h) : 0;

        if (ofport && ofport == port->ofport) {
            place_port(c, v, mv, port, h);
        }
    }
}

void
forget_vif(struct compile *c, uint32_t key)
{
    struct cvif *v = find_cvif(c, key);
    struct cpresence *p;

    if (!v) {
        return;
    }
    while (v->n_places) {
        drop_place(c, v, 0);
    }
    LIST_FOR_EACH (p, net_node, &v->net->presences) {
        unit_clear(c, p->host, UNIT_REMOTE, key, 0);
    }
    scope_leave(c, v);
    ovs_list_remove(&v->net_node);
    hmap_remove(&c->vifs, &v->node);
    free(v->places);
    free(v->scopes);
    slab_free(v, sizeof *v);
}

/* --- on other hosts ------------------------------------------------------------------ */

/* A vif's flows on the hosts where it is not.  They are the same on hosts that are alike
 * to it, which share them. */
struct remotes {
    const struct model_vif *vif;
    struct {
        bool made;
        struct flows flows;
    } of[4];
};

static struct flows *
remote_flows(struct compile *c, struct remotes *r, const struct chost *h)
{
    bool its_host = r->vif->host && r->vif->host->obj.key == h->key;
    unsigned i = 2 * its_host + !!h->uplink;

    if (!r->of[i].made) {
        r->of[i].made = true;
        make_remote(c, r->vif, h, &r->of[i].flows);
    }
    return &r->of[i].flows;
}

static void
place_remote(struct compile *c, struct cvif *v, struct remotes *r, struct cpresence *p)
{
    const struct cplace *place = find_place(v, p->host);
    struct flows *shared, flows = {0};

    if (place && place->role == MODEL_HERE) {
        if (c->started) {
            unit_clear(c, p->host, UNIT_REMOTE, v->key, 0);
        }
        return;
    }
    shared = remote_flows(c, r, p->host);
    if (!c->started) {
        if (shared->n) {
            unit_add(c, p->host, UNIT_REMOTE, v->key, 0, shared); /* each comes by once */
        }
        return;
    }
    if (shared->n || unit_exists(p->host, UNIT_REMOTE, v->key, 0)) {
        for (size_t i = 0; i < shared->n; i++) {
            flows_add(&flows, pflow_ref(shared->f[i]));
        }
        unit_set(c, p->host, UNIT_REMOTE, v->key, 0, &flows);
    }
}

static void
remotes_end(struct remotes *r)
{
    for (unsigned i = 0; i < ARRAY_SIZE(r->of); i++) {
        flows_clear(&r->of[i].flows);
    }
}

/* All vifs of a network on one host after the other, so that what is worked on lies close
 * together. */
static void
place_first_remotes(struct compile *c, const struct cnet *net)
{
    struct remotes *r = xcalloc(ovs_list_size(&net->vifs) + 1, sizeof *r);
    struct cpresence *p;
    struct cvif *v;
    size_t n = 0;

    LIST_FOR_EACH (v, net_node, &net->vifs) {
        OVS_PREFETCH(v->places);
        prefetch(v->now, sizeof *v->now);
        r[n++].vif = v->now;
    }
    LIST_FOR_EACH (p, net_node, &net->presences) {
        n = 0;
        LIST_FOR_EACH (v, net_node, &net->vifs) {
            place_remote(c, v, &r[n++], p);
        }
    }
    for (size_t i = 0; i < n; i++) {
        remotes_end(&r[i]);
    }
    free(r);
}

void
place_remotes(struct compile *c)
{
    struct cnet *net;
    struct cvif *v;

    if (!c->started) {
        HMAP_FOR_EACH (net, node, &c->nets) {
            place_first_remotes(c, net);
        }
        LIST_FOR_EACH_POP (v, run_node, &c->placed) {
            v->now = NULL;
        }
        return;
    }
    LIST_FOR_EACH_POP (v, run_node, &c->placed) {
        struct remotes r = {.vif = v->now};
        struct cpresence *p;

        v->now = NULL;
        LIST_FOR_EACH (p, net_node, &v->net->presences) {
            place_remote(c, v, &r, p);
        }
        remotes_end(&r);
    }
}

/* A network that is new on a host has all its other vifs as remote ones there.
 * Those that are in the change set themselves have been there already. */
void
place_fresh(struct compile *c)
{
    struct cpresence *p;

    LIST_FOR_EACH_POP (p, fresh_node, &c->fresh) {
        struct cvif *v;

        p->fresh = false;
        dirty_flood(c, p);
        dirty_presence(c, p);
        if (!c->started) {
            continue;
        }
        LIST_FOR_EACH (v, net_node, &p->net->vifs) {
            if (v->run != c->stats.runs) {
                struct remotes r = {.vif = model_vif(model_by_key(c->model, v->key))};

                if (r.vif) {
                    place_remote(c, v, &r, p);
                    remotes_end(&r);
                }
            }
        }
    }
}

/* --- networks on hosts ------------------------------------------------------------------ */

void
place_networks(struct compile *c)
{
    struct cpresence *p;
    struct cnet *net;

    if (c->all_dirty) {
        c->all_dirty = false;
        HMAP_FOR_EACH (net, node, &c->nets) {
            dirty_network(c, net);
        }
    }

    LIST_FOR_EACH_POP (p, dirty_node, &c->dirty_nets) {
        struct model_network *n = model_network(model_by_key(c->model, p->net->key));
        struct flows flows = {0};

        p->dirty = false;
        if (n) {
            make_network(c, n, p, &flows);
        }
        unit_set(c, p->host, UNIT_NETWORK, p->net->key, 0, &flows);
    }
}

void
place_floods(struct compile *c)
{
    struct cpresence *p;

    LIST_FOR_EACH_POP (p, flood_node, &c->dirty_floods) {
        struct model_network *n = model_network(model_by_key(c->model, p->net->key));
        struct flows flows = {0};

        p->flood_dirty = false;
        if (n) {
            make_flood(c, n, p, &flows);
        }
        unit_set(c, p->host, UNIT_FLOOD, p->net->key, 0, &flows);
    }
}
