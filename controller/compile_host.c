/* Hosts: their own ports, each other, and their coming and going. */
#include <config.h>

#include <stdlib.h>

#include "compile_impl.h"
#include "hash.h"
#include "host_extra.h"
#include "util.h"

/* OpenFlow ports above are reserved. */
#define MAX_OFPORT 0xff00u

static uint32_t
port_number(const struct compile *c, const struct model_host *mh, const char *name)
{
    const struct model_port *port = name[0] ? model_port_by_name(c->model, mh, name) : NULL;

    return port && port->ofport < MAX_OFPORT ? port->ofport : 0;
}

/* What it has here depends on its uplink and tunnels. */
static void
redo_networks(struct compile *c, struct chost *h)
{
    struct cpresence *p;

    LIST_FOR_EACH (p, host_node, &h->presences) {
        dirty_network(c, p->net);
        dirty_floods(c, p->net);
        if (!p->fresh) {
            p->fresh = true;
            ovs_list_push_back(&c->fresh, &p->fresh_node);
        }
    }
}

static struct chost *
create_host(struct compile *c, uint32_t key)
{
    struct chost *h = xzalloc(sizeof *h);

    h->key = key;
    ovs_list_init(&h->touched_node);
    ftable_init(&h->table);
    mtable_init(&h->meters);
    hmap_init(&h->units);
    ovs_list_init(&h->presences);
    hmap_insert(&c->hosts, &h->node, hash_int(key, 0));
    for (size_t i = 0; i < c->pipeline.n; i++) {
        host_give(c, h, c->pipeline.f[i]);
    }
    scope_presence(c, 0, h, true);
    return h;
}

static int
compare_spans(const void *a_, const void *b_)
{
    const struct cspan *a = a_, *b = b_;

    return a->vlan < b->vlan ? -1 : a->vlan > b->vlan;
}

/* The ports that mirrors to VLANs have here.  The caller frees them. */
static struct cspan *
find_spans(const struct compile *c, const struct model_host *mh, size_t *n)
{
    struct cspan *spans = NULL;
    const struct model_obj *obj;

    *n = 0;
    MODEL_FOR_EACH (obj, c->model, REC_MIRROR) {
        uint16_t vlan = obj->live ? model_mirror(obj)->output_vlan : 0;
        char in[16], out[16];
        uint32_t ofport;

        if (vlan) {
            host_mirror_vlan_ports(vlan, in, out);
            ofport = port_number(c, mh, out);
            if (ofport) {
                spans = xrealloc(spans, (*n + 1) * sizeof *spans);
                memset(&spans[*n], 0, sizeof *spans);
                spans[*n].ofport = ofport;
                spans[(*n)++].vlan = vlan;
            }
        }
    }
    if (*n) {
        qsort(spans, *n, sizeof *spans, compare_spans);
    }
    return spans;
}

static bool
same_spans(const struct cspan *a, size_t n_a, const struct cspan *b, size_t n_b)
{
    return n_a == n_b && (!n_a || !memcmp(a, b, n_a * sizeof *a));
}

void
update_host(struct compile *c, const struct model_host *mh)
{
    static const char *const tunnels[] = COMPILE_TUNNEL_NAMES;
    struct chost *h = find_chost(c, mh->obj.key);
    uint32_t uplink = port_number(c, mh, mh->uplink), tunnel[3];
    struct flows flows = {0};
    struct cspan *spans;
    size_t n_spans;

    for (unsigned i = 0; i < ARRAY_SIZE(tunnel); i++) {
        tunnel[i] = port_number(c, mh, tunnels[i]);
    }
    spans = find_spans(c, mh, &n_spans);
    if (!h) {
        h = create_host(c, mh->obj.key);
    } else if (h->uplink == uplink && !memcmp(h->tunnel, tunnel, sizeof tunnel) &&
               ipv6_addr_equals(&h->tunnel_ip, &mh->tunnel_ip) &&
               same_spans(h->spans, h->n_spans, spans, n_spans)) {
        free(spans);
        return;
    }
    free(h->spans);
    h->spans = spans;
    h->n_spans = n_spans;
    h->uplink = uplink;
    memcpy(h->tunnel, tunnel, sizeof tunnel);
    h->tunnel_ip = mh->tunnel_ip;
    h->changed = c->hosts_changed = true;
    make_base(c, h, &flows);
    unit_set(c, h, UNIT_BASE, 0, 0, &flows);
    redo_networks(c, h);
}

/* A tunnel has both ends in one address family. */
bool
is_peer(const struct chost *h, const struct chost *other)
{
    return h != other && !other->gone && !IN6_IS_ADDR_UNSPECIFIED(&h->tunnel_ip) &&
           !IN6_IS_ADDR_UNSPECIFIED(&other->tunnel_ip) &&
           !!IN6_IS_ADDR_V4MAPPED(&h->tunnel_ip) == !!IN6_IS_ADDR_V4MAPPED(&other->tunnel_ip);
}

/* 'h' of its peer; nothing if it has no tunnels. */
static void
set_peer(struct compile *c, struct chost *h, const struct chost *peer)
{
    bool tunnels = h->tunnel[0] || h->tunnel[1] || h->tunnel[2];
    struct flows flows = {0};

    if (tunnels && is_peer(h, peer)) {
        make_peer(c, h, peer, &flows);
    }
    if (flows.n || unit_exists(h, UNIT_PEER, peer->key, 0)) {
        unit_set(c, h, UNIT_PEER, peer->key, 0, &flows);
    }
}

void
update_peers(struct compile *c)
{
    struct chost *h, *other;

    if (!c->hosts_changed) {
        return;
    }
    c->hosts_changed = false;
    HMAP_FOR_EACH (h, node, &c->hosts) {
        if (!h->changed) {
            continue;
        }
        HMAP_FOR_EACH (other, node, &c->hosts) {
            if (other != h) {
                if (!h->gone) {
                    set_peer(c, h, other);
                }
                if (!other->gone) {
                    set_peer(c, other, h);
                }
            }
        }
    }
    HMAP_FOR_EACH (h, node, &c->hosts) {
        h->changed = false;
    }
}

void
set_host_gone(struct compile *c, struct chost *h)
{
    h->gone = h->changed = c->hosts_changed = true;
    scope_presence(c, 0, h, false); /* at once: a scope made later in this run omits it */
}

void
free_host(struct compile *c, struct chost *h)
{
    struct unit *u, *next;

    ovs_assert(ovs_list_is_empty(&h->presences));
    ftable_track(&h->table, false);
    HMAP_FOR_EACH_SAFE (u, next, node, &h->units) {
        unit_free(h, u);
    }
    hmap_destroy(&h->units);
    ovs_list_remove(&h->touched_node);
    ftable_destroy(&h->table);
    mtable_destroy(&h->meters);
    free(h->spans);
    hmap_remove(&c->hosts, &h->node);
    free(h);
}

void
settle_hosts(struct compile *c)
{
    struct chost *h;

    LIST_FOR_EACH_POP (h, touched_node, &c->touched) {
        ovs_list_init(&h->touched_node);
        ftable_settle(&h->table);
    }
    ftable_drop_spare();
}
