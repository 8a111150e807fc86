/* Ports of hosts, the vifs they belong to, and the networks that are there. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "model_impl.h"
#include "packets.h"
#include "util.h"

static uint32_t
hash_port(const struct model_host *host, const char *name)
{
    return hash_string(name, hash_pointer(host, 0));
}

static uint32_t
hash_addr(const struct eth_addr *mac)
{
    return hash_bytes(mac, sizeof *mac, 0);
}

struct model_port *
model_port_by_name(const struct model *m, const struct model_host *host, const char *name)
{
    struct model_port *port;

    HMAP_FOR_EACH_WITH_HASH (port, node, hash_port(host, name), &m->ports) {
        if (port->host == host && !strcmp(port->name, name)) {
            return port;
        }
    }
    return NULL;
}

/* --- presence ----------------------------------------------------------------------------- */

static uint32_t
hash_presence(const struct model_network *network, const struct model_host *host)
{
    return hash_pointer(network, hash_pointer(host, 0));
}

struct model_presence *
model_presence(const struct model *m, const struct model_network *network,
               const struct model_host *host)
{
    struct model_presence *p;

    HMAP_FOR_EACH_WITH_HASH (p, node, hash_presence(network, host), &m->presences) {
        if (p->network == network && p->host == host) {
            return p;
        }
    }
    return NULL;
}

static struct model_presence *
presence_get(struct model *m, struct model_network *network, struct model_host *host)
{
    struct model_presence *p = model_presence(m, network, host);

    if (!p) {
        p = xzalloc(sizeof *p);
        p->network = network;
        p->host = host;
        hmap_insert(&m->presences, &p->node, hash_presence(network, host));
        ovs_list_push_back(&network->presences, &p->network_node);
        ovs_list_push_back(&host->presences, &p->host_node);
        model_mark(m, &network->obj, MODEL_PRESENCE);
        model_mark(m, &host->obj, MODEL_PRESENCE);
    }
    p->n_ports++;
    return p;
}

static void
presence_put(struct model *m, struct model_presence *p)
{
    if (p && !--p->n_ports) {
        model_mark(m, &p->network->obj, MODEL_PRESENCE);
        model_mark(m, &p->host->obj, MODEL_PRESENCE);
        hmap_remove(&m->presences, &p->node);
        ovs_list_remove(&p->network_node);
        ovs_list_remove(&p->host_node);
        free(p);
    }
}

/* --- a vif's place ------------------------------------------------------------------------- */

struct model_port *
model_vif_port(const struct model_vif *vif, const struct model_host *host)
{
    struct model_port *port;

    LIST_FOR_EACH (port, vif_node, &vif->ports) {
        if (port->host == host) {
            return port;
        }
    }
    return NULL;
}

const struct model_port *
model_port_tagged(const struct model_port *port, uint16_t tag)
{
    const struct model_port *sub;

    if (!tag) {
        return port;
    }
    LIST_FOR_EACH (sub, sub_node, &port->subs) {
        if (sub->tag == tag) {
            return sub;
        }
    }
    return NULL;
}

/* Where it was before this controller knew anything, while nobody knows better. */
static struct model_host *
remembered_host(const struct model *m, const struct model_vif *vif)
{
    struct model_host *host =
        vif->remembered ? model_host(model_by_name(m, REC_HOST, vif->remembered)) : NULL;

    return host && !host->reported ? host : NULL;
}

static struct model_host *
named_host(const struct model *m, const char *name)
{
    return name ? model_host(model_by_name(m, REC_HOST, name)) : NULL;
}

enum model_role
model_vif_role(const struct model_vif *vif, const struct model_host *host)
{
    if (!vif->resident || vif->host == host) {
        return MODEL_HERE;
    }
    return vif->coming == host ? MODEL_COMING : MODEL_AWAY;
}

static void
forget_confirm(struct model_port *port)
{
    ovs_list_remove(&port->confirm_node);
    ovs_list_init(&port->confirm_node);
    port->confirm = port->host->reported ? MODEL_UNCONFIRMED : MODEL_UNKNOWN;
    port->revision = 0;
}

static bool
needs_confirm(const struct model_port *port)
{
    return port->vif && port->vif->resident && model_vif_role(port->vif, port->host) != MODEL_AWAY;
}

/* Of resident vifs somebody waits to hear that the switch is ready for them. */
static void
expect_confirm(struct model_port *port)
{
    if (!needs_confirm(port)) {
        forget_confirm(port);
    } else if (port->confirm != MODEL_CONFIRMED && ovs_list_is_empty(&port->confirm_node)) {
        ovs_list_push_back(&port->host->unconfirmed, &port->confirm_node);
    }
}

void
model_port_confirm(struct model *m, struct model_port *port)
{
    ovs_list_remove(&port->confirm_node);
    ovs_list_init(&port->confirm_node);
    port->confirm = MODEL_CONFIRMED;
    model_note(m, &port->vif->obj);
}

static void
doubt(struct model *m, struct model_port *port, enum model_confirm confirm)
{
    if (needs_confirm(port)) {
        port->confirm = confirm;
        expect_confirm(port);
        model_note(m, &port->vif->obj);
    }
}

void
model_ports_doubt(struct model *m, struct model_host *host, enum model_confirm confirm)
{
    struct model_port *port, *sub;

    LIST_FOR_EACH (port, host_node, &host->ports) {
        doubt(m, port, confirm);
        LIST_FOR_EACH (sub, sub_node, &port->subs) {
            doubt(m, sub, confirm);
        }
    }
}

static void
place(struct model *m, struct model_vif *vif)
{
    const struct model_vm *vm = vif->vm;
    struct model_host *host = vm ? named_host(m, vm->resident_on) : NULL, *coming = NULL;
    struct model_port *port, *last = NULL;
    bool resident = host;

    if (host) {
        coming = named_host(m, vm->destination);
        coming = coming != host ? coming : NULL;
    } else {
        /* The parent of one that is not live may be gone. */
        host = vif->obj.live && vif->parent ? vif->parent->stated_host : vif->stated_host;
    }
    LIST_FOR_EACH (port, vif_node, &vif->ports) {
        last = !last || port->came > last->came ? port : last;
    }
    if (!host && last) {
        host = last->host;
    }
    ovs_list_remove(&vif->remembered_node);
    ovs_list_init(&vif->remembered_node);
    vif->host_remembered = !host && vif->obj.live && (host = remembered_host(m, vif));
    if (vif->host_remembered) {
        ovs_list_push_back(&host->remembered, &vif->remembered_node);
    }
    if (vif->host != host || vif->coming != coming || vif->resident != resident) {
        vif->host = host;
        vif->coming = coming;
        vif->resident = resident;
        model_mark(m, &vif->obj, MODEL_PLACE);
    }
    LIST_FOR_EACH (port, vif_node, &vif->ports) {
        expect_confirm(port);
    }
    model_note(m, &vif->obj);
}

/* A name of a host means another one, or none any more. */
static void
place_residents(struct model *m)
{
    struct model_vm *vm;
    struct model_ref *ref;

    LIST_FOR_EACH (vm, resident_node, &m->residents) {
        MODEL_FOR_EACH_REF (ref, &vm->vifs) {
            place(m, model_vif(ref->from));
        }
    }
}

/* It has reported, or is not live: nothing takes its word from before any more. */
static void
forget_remembered(struct model *m, struct model_host *host)
{
    struct model_vif *vif;

    LIST_FOR_EACH_SAFE (vif, remembered_node, &host->remembered) {
        place(m, vif);
    }
}

/* --- trunks ------------------------------------------------------------------------------- */

static void
add_sub(struct model *m, struct model_port *trunk, struct model_vif *child)
{
    struct model_port *sub = slab_zalloc(sizeof *sub);

    sub->host = trunk->host;
    sub->name = trunk->name;
    sub->ofport = trunk->ofport;
    sub->came = trunk->came;
    sub->trunk = trunk;
    sub->tag = child->tag;
    sub->vif = child;
    ovs_list_init(&sub->subs);
    ovs_list_init(&sub->confirm_node);
    forget_confirm(sub);
    ovs_list_push_back(&trunk->subs, &sub->sub_node);
    ovs_list_push_back(&child->ports, &sub->vif_node);
    sub->presence = presence_get(m, child->network, sub->host);
    model_mark(m, &child->obj, MODEL_PLACE);
    model_mark(m, &sub->host->obj, MODEL_MEMBERS);
    place(m, child);
}

static void
drop_sub(struct model *m, struct model_port *sub)
{
    struct model_vif *child = sub->vif;

    forget_confirm(sub);
    ovs_list_remove(&sub->sub_node);
    ovs_list_remove(&sub->vif_node);
    presence_put(m, sub->presence);
    model_mark(m, &child->obj, MODEL_PLACE);
    model_mark(m, &sub->host->obj, MODEL_MEMBERS);
    slab_free(sub, sizeof *sub);
    place(m, child);
}

static bool
has_sub(const struct model_port *trunk, const struct model_vif *child)
{
    const struct model_port *sub;

    LIST_FOR_EACH (sub, sub_node, &trunk->subs) {
        if (sub->vif == child) {
            return true;
        }
    }
    return false;
}

/* The vif's ports are those of the parent that it has now.  One that turns into the parent
 * of what was its own is for a moment still in its frames: no port of a trunk has any. */
static void
follow_parent(struct model *m, struct model_vif *vif)
{
    struct model_port *port;

    LIST_FOR_EACH_SAFE (port, vif_node, &vif->ports) {
        if (port->trunk && (port->trunk->vif != vif->parent || port->tag != vif->tag)) {
            drop_sub(m, port);
        }
    }
    if (vif->parent) {
        LIST_FOR_EACH (port, vif_node, &vif->parent->ports) {
            if (!port->trunk && !has_sub(port, vif)) {
                add_sub(m, port, vif);
            }
        }
    }
}

/* --- whose a port is ---------------------------------------------------------------------------
 */

static void
detach(struct model *m, struct model_port *port)
{
    struct model_vif *vif = port->vif;
    struct model_port *sub;

    LIST_FOR_EACH_SAFE (sub, sub_node, &port->subs) {
        drop_sub(m, sub);
    }
    if (vif) {
        port->vif = NULL;
        forget_confirm(port);
        ovs_list_remove(&port->vif_node);
        presence_put(m, port->presence);
        port->presence = NULL;
        model_mark(m, &vif->obj, MODEL_PLACE);
        model_mark(m, &port->host->obj, MODEL_MEMBERS);
        place(m, vif);
    }
}

static void
attach(struct model *m, struct model_port *port, struct model_vif *vif)
{
    struct model_ref *ref;

    if (port->vif == vif) {
        return;
    }
    detach(m, port);
    if (vif) {
        port->vif = vif;
        ovs_list_push_back(&vif->ports, &port->vif_node);
        port->presence = presence_get(m, vif->network, port->host);
        model_mark(m, &vif->obj, MODEL_PLACE);
        model_mark(m, &port->host->obj, MODEL_MEMBERS);
        place(m, vif);
        MODEL_FOR_EACH_REF (ref, &vif->children) {
            if (model_vif(ref->from)->indexed) {
                add_sub(m, port, model_vif(ref->from));
            }
        }
    }
}

struct model_vif *
model_vif_by_mac(const struct model *m, const struct model_network *n, struct eth_addr mac)
{
    struct model_vif *vif;

    HMAP_FOR_EACH_WITH_HASH (vif, mac_node, hash_addr(&mac), &m->vif_by_mac) {
        if (vif->obj.live && vif->network == n && eth_addr_equals(vif->mac, mac)) {
            return vif;
        }
    }
    return NULL;
}

/* The vif that a port names, never one of a trunk.  A MAC may be in several networks:
 * then the vif that is expected on this host, if there is but one such. */
static struct model_vif *
vif_of(const struct model *m, const struct model_port *port)
{
    struct model_vif *vif, *any = NULL, *expected = NULL;
    size_t n_any = 0, n_expected = 0;

    if (port->has_xs_uuid) {
        HMAP_FOR_EACH_WITH_HASH (vif, xs_node, uuid_hash(&port->xs_uuid), &m->vif_by_xs) {
            if (!vif->tag && uuid_equals(&vif->xs_uuid, &port->xs_uuid)) {
                return vif;
            }
        }
    }
    if (port->has_mac) {
        HMAP_FOR_EACH_WITH_HASH (vif, mac_node, hash_addr(&port->mac), &m->vif_by_mac) {
            if (!vif->tag && eth_addr_equals(vif->mac, port->mac)) {
                any = vif;
                n_any++;
                if (vif->stated_host == port->host) {
                    expected = vif;
                    n_expected++;
                }
            }
        }
    }
    return n_expected == 1 ? expected : n_any == 1 ? any : NULL;
}

/* Ports that name this vif, or did, by uuid or MAC. */
static void
rematch(struct model *m, const struct model_vif *vif)
{
    struct model_port *port;

    HMAP_FOR_EACH_WITH_HASH (port, xs_node, uuid_hash(&vif->xs_uuid), &m->ports_by_xs) {
        attach(m, port, vif_of(m, port));
    }
    HMAP_FOR_EACH_WITH_HASH (port, mac_node, hash_addr(&vif->mac), &m->ports_by_mac) {
        attach(m, port, vif_of(m, port));
    }
}

void
model_vif_prefetch(const struct model *m, const struct model_vif *vif)
{
    index_prefetch(&m->vif_by_xs, uuid_hash(&vif->xs_uuid));
    index_prefetch(&m->vif_by_mac, hash_addr(&vif->mac));
    index_prefetch(&m->ports_by_xs, uuid_hash(&vif->xs_uuid));
    index_prefetch(&m->ports_by_mac, hash_addr(&vif->mac));
}

void
model_vif_enter(struct model *m, struct model_vif *vif)
{
    struct model_port *port;
    struct model_ref *ref;

    if (!vif->indexed) {
        index_insert(&m->vif_by_xs, &vif->xs_node, uuid_hash(&vif->xs_uuid));
        index_insert(&m->vif_by_mac, &vif->mac_node, hash_addr(&vif->mac));
        vif->indexed = true;
    }
    rematch(m, vif);
    follow_parent(m, vif);
    LIST_FOR_EACH (port, vif_node, &vif->ports) {
        if (port->presence->network != vif->network) {
            struct model_presence *old = port->presence;

            port->presence = presence_get(m, vif->network, port->host);
            presence_put(m, old);
        }
    }
    place(m, vif);
    MODEL_FOR_EACH_REF (ref, &vif->children) {
        place(m, model_vif(ref->from));
    }
}

void
model_vif_leave(struct model *m, struct model_vif *vif)
{
    struct model_port *port;

    if (!vif->indexed) {
        return;
    }
    hmap_remove(&m->vif_by_xs, &vif->xs_node);
    hmap_remove(&m->vif_by_mac, &vif->mac_node);
    vif->indexed = false;
    LIST_FOR_EACH_SAFE (port, vif_node, &vif->ports) {
        if (port->trunk) {
            drop_sub(m, port);
        } else {
            detach(m, port);
        }
    }
    /* Another vif with this MAC may be the only one left. */
    rematch(m, vif);
}

/* --- reports ------------------------------------------------------------------------------------
 */

static void
index_port(struct model *m, struct model_port *port)
{
    if (port->has_xs_uuid) {
        index_insert(&m->ports_by_xs, &port->xs_node, uuid_hash(&port->xs_uuid));
    }
    if (port->has_mac) {
        index_insert(&m->ports_by_mac, &port->mac_node, hash_addr(&port->mac));
    }
}

static void
unindex_port(struct model *m, struct model_port *port)
{
    if (port->has_xs_uuid) {
        hmap_remove(&m->ports_by_xs, &port->xs_node);
    }
    if (port->has_mac) {
        hmap_remove(&m->ports_by_mac, &port->mac_node);
    }
}

static void
destroy_port(struct model *m, struct model_port *port)
{
    detach(m, port);
    model_mark(m, &port->host->obj, MODEL_MEMBERS);
    unindex_port(m, port);
    hmap_remove(&m->ports, &port->node);
    ovs_list_remove(&port->host_node);
    free(port->name);
    slab_free(port, sizeof *port);
}

static void
renumber(struct model *m, struct model_port *port, uint32_t ofport)
{
    struct model_port *sub;

    port->ofport = ofport;
    model_mark(m, &port->host->obj, MODEL_MEMBERS);
    if (port->vif) {
        forget_confirm(port);
        expect_confirm(port);
        model_mark(m, &port->vif->obj, MODEL_PLACE);
        model_note(m, &port->vif->obj);
    }
    LIST_FOR_EACH (sub, sub_node, &port->subs) {
        renumber(m, sub, ofport);
    }
}

void
model_port_report(struct model *m, struct model_host *host, const char *name,
                  const struct uuid *xs_vif_uuid, const struct eth_addr *mac, uint32_t ofport)
{
    struct model_port *port;

    if (xs_vif_uuid) {
        index_prefetch(&m->vif_by_xs, uuid_hash(xs_vif_uuid));
        index_prefetch(&m->ports_by_xs, uuid_hash(xs_vif_uuid));
    }
    port = model_port_by_name(m, host, name);
    if (!host->obj.live) {
        return;
    }
    if (xs_vif_uuid) {
        index_prefetch_node(&m->vif_by_xs, uuid_hash(xs_vif_uuid));
    }
    if (!port) {
        port = slab_zalloc(sizeof *port);
        port->host = host;
        port->name = xstrdup(name);
        index_insert(&m->ports, &port->node, hash_port(host, name));
        ovs_list_push_back(&host->ports, &port->host_node);
        port->came = ++m->ports_came;
        ovs_list_init(&port->subs);
        ovs_list_init(&port->confirm_node);
        forget_confirm(port);
        model_mark(m, &host->obj, MODEL_MEMBERS);
    }
    port->round = m->port_round;
    if (port->has_xs_uuid != !!xs_vif_uuid || port->has_mac != !!mac ||
        (mac && !eth_addr_equals(*mac, port->mac)) ||
        (xs_vif_uuid && !uuid_equals(xs_vif_uuid, &port->xs_uuid))) {
        unindex_port(m, port);
        port->has_xs_uuid = xs_vif_uuid;
        port->has_mac = mac;
        port->xs_uuid = xs_vif_uuid ? *xs_vif_uuid : UUID_ZERO;
        port->mac = mac ? *mac : eth_addr_zero;
        index_port(m, port);
    }
    if (port->ofport != ofport) {
        renumber(m, port, ofport);
    }
    attach(m, port, vif_of(m, port));
}

void
model_port_gone(struct model *m, struct model_host *host, const char *name)
{
    struct model_port *port = model_port_by_name(m, host, name);

    if (port) {
        destroy_port(m, port);
    }
}

void
model_ports_begin(struct model *m)
{
    m->port_round++;
}

void
model_ports_end(struct model *m, struct model_host *host)
{
    struct model_port *port;

    LIST_FOR_EACH_SAFE (port, host_node, &host->ports) {
        if (port->round != m->port_round) {
            destroy_port(m, port);
        }
    }
    if (!host->reported) {
        host->reported = true;
        forget_remembered(m, host);
    }
}

void
model_host_enter(struct model *m)
{
    place_residents(m);
}

void
model_host_leave(struct model *m, struct model_host *host)
{
    struct model_port *port;

    LIST_FOR_EACH_SAFE (port, host_node, &host->ports) {
        destroy_port(m, port);
    }
    forget_remembered(m, host); /* it is not live: nothing finds it */
    place_residents(m);
}
