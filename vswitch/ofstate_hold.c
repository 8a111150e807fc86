/* Theory of Operation
 * ===================
 *
 * ofproto-dpif tells the translation of each port in xlate_ofport_set(); ours in
 * front of it closes (as OFPPC_NO_RECV and OFPPC_NO_FWD do) those of held bridges
 * that are not the host's or an uplink.  It is asked again for all ports when
 * dpif_run() says that the datapath has changed, which ours does for a turn of the
 * main loop whenever a hold begins, ends or might concern other ports.
 *
 * What passes between the ports that stay open is up to two flows of a priority
 * that OpenFlow cannot name, and that no controller therefore sees or deletes.
 * With one uplink (a bond is one) everything is switched as by default.  With
 * several, which only the lost policy could tell apart, what comes from them goes
 * to the local port.
 *
 * A change of flows by an OpenFlow connection other than ours ends the hold; it is
 * told by ofmonitor_report(), which gets the connection of who asks. */
#include <config.h>

#include "ofstate_hold.h"

#include <stdlib.h>
#include <string.h>

#include "lib/vswitch-idl.h"
#include "netdev.h"
#include "ofproto/connmgr.h"
#include "ofproto/fail-open.h"
#include "ofproto/ofproto-dpif.h"
#include "ofproto/ofproto-provider.h"
#include "ofstate_priv.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/match.h"
#include "openvswitch/ofp-actions.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "ovs-thread.h"
#include "ovsdb-idl.h"
#include "smap.h"
#include "util.h"
#include "wrap.h"

VLOG_DEFINE_THIS_MODULE(ofstate_hold);

#define HOLD_PRIORITY 0x20000 /* above OpenFlow's, below those of in-band control */

struct hold {
    char *why;
    enum { HELD, TAKEN, LOADED, NOTHING, FORGOTTEN } state;
    bool loading;
    bool seen;                /* somebody's change of a flow, ours or not, since then */
    bool torn;                /* controllers have to read the bridge again */
    unsigned int turns;       /* of the main loop, since it is held; 2: in effect */
    const struct ofproto *on; /* that has our flows */
    bool one_uplink;          /* they are for */
};

static struct ovs_mutex lock = OVS_MUTEX_INITIALIZER; /* within ofproto_mutex */
static struct shash holds OVS_GUARDED_BY(lock) = SHASH_INITIALIZER(&holds);
static atomic_count n_holds = ATOMIC_COUNT_INIT(0);

/* The main thread's. */
static const struct ovsdb_idl *idl;
static unsigned int idl_seqno;
static bool retranslate; /* for one turn */

/* --- any thread ------------------------------------------------------------- */

static bool
is_held(const char *bridge)
{
    bool held = false;

    if (atomic_count_get(&n_holds)) {
        ovs_mutex_lock(&lock);
        held = shash_find(&holds, bridge) != NULL;
        ovs_mutex_unlock(&lock);
    }
    return held;
}

void
ofstate_hold(const char *bridge, const char *why)
{
    ovs_mutex_lock(&lock);
    if (!shash_find(&holds, bridge)) {
        struct hold *h = xzalloc(sizeof *h);

        h->why = xstrdup(why);
        shash_add(&holds, bridge, h);
        atomic_count_inc(&n_holds);
    }
    ovs_mutex_unlock(&lock);
}

void
ofstate_hold_why(const char *bridge, const char *why)
{
    struct hold *h;

    ovs_mutex_lock(&lock);
    h = shash_find_data(&holds, bridge);
    if (h) {
        free(h->why);
        h->why = xstrdup(why);
    }
    ovs_mutex_unlock(&lock);
}

bool
ofstate_hold_in_effect(void)
{
    struct shash_node *node;
    bool all = true;

    ovs_mutex_lock(&lock);
    SHASH_FOR_EACH (node, &holds) {
        const struct hold *h = node->data;

        all &= h->turns >= 2;
    }
    ovs_mutex_unlock(&lock);
    return all;
}

bool
ofstate_hold_loads(const char *bridge)
{
    struct hold *h;
    bool may;

    ovs_mutex_lock(&lock);
    h = shash_find_data(&holds, bridge);
    may = h && h->state == HELD;
    if (may) {
        h->loading = true;
        h->seen = false;
    }
    ovs_mutex_unlock(&lock);
    return may;
}

void
ofstate_hold_loaded(const char *bridge, enum ofstate_hold_end end)
{
    struct hold *h;

    ovs_mutex_lock(&lock);
    h = shash_find_data(&holds, bridge);
    if (h) {
        h->loading = false;
        h->torn |= end == OFSTATE_HOLD_TORN;
        if (h->state == HELD && end == OFSTATE_HOLD_STAYS && h->seen) {
            h->state = TAKEN;
        } else if (h->state == HELD && end == OFSTATE_HOLD_LOADED) {
            h->state = LOADED;
        } else if ((h->state == HELD || h->state == FORGOTTEN) && end == OFSTATE_HOLD_NOTHING) {
            h->state = NOTHING;
        }
    }
    ovs_mutex_unlock(&lock);
}

void
ofstate_hold_forget(const char *bridge)
{
    struct hold *h;

    ovs_mutex_lock(&lock);
    h = shash_find_data(&holds, bridge);
    if (h) {
        h->state = FORGOTTEN;
    }
    ovs_mutex_unlock(&lock);
}

void
ofstate_hold_show(const char *bridge, struct ds *out)
{
    const struct hold *h;

    ovs_mutex_lock(&lock);
    h = shash_find_data(&holds, bridge);
    if (h) {
        ds_put_format(out, "%s: held, guests' ports are closed: %s\n", bridge, h->why);
    } else {
        ds_put_format(out, "%s: in force\n", bridge);
    }
    ovs_mutex_unlock(&lock);
}

/* --- what stands in front of ofproto ------------------------------------------ */

/* Somebody's change of a flow.  'ofconn' is NULL for what the switch does by itself. */
void
ofstate_hold_flow_changed(const struct rule *rule, const struct ofconn *ofconn)
{
    struct hold *h;

    if (!ofconn || !atomic_count_get(&n_holds)) {
        return;
    }
    ovs_mutex_lock(&lock);
    h = shash_find_data(&holds, rule->ofproto->name);
    if (h && h->loading) {
        h->seen = true;
    } else if (h && h->state == HELD) {
        h->state = TAKEN;
    }
    ovs_mutex_unlock(&lock);
}

static const struct ovsrec_interface *
find_interface(const char *name)
{
    const struct ovsrec_interface *iface;

    OVSREC_INTERFACE_FOR_EACH (iface, idl) {
        if (!strcmp(iface->name, name)) {
            return iface;
        }
    }
    return NULL;
}

static bool
is_guests(const struct ovsrec_interface *iface)
{
    return smap_get(&iface->external_ids, "xs-vif-uuid") ||
           smap_get(&iface->external_ids, "attached-mac") ||
           smap_get(&iface->external_ids, "iface-id");
}

static bool
is_nic(const char *type)
{
    return !type[0] || !strcmp(type, "system") || !strcmp(type, "dpdk") || !strcmp(type, "afxdp");
}

static bool
is_uplink_port(const struct ovsrec_port *port)
{
    for (size_t i = 0; i < port->n_interfaces; i++) {
        if (is_nic(port->interfaces[i]->type) && !is_guests(port->interfaces[i])) {
            return true;
        }
    }
    return false;
}

bool
ofstate_is_uplink_bridge(const struct ovsrec_bridge *br)
{
    size_t uplinks = 0, patches = 0;

    if (!strcmp(smap_get_def(&br->external_ids, "weft-controller", ""), "uplink")) {
        return true;
    }
    for (size_t i = 0; i < br->n_ports; i++) {
        const struct ovsrec_port *port = br->ports[i];

        if (is_uplink_port(port)) {
            uplinks++;
        } else if (port->n_interfaces && !strcmp(port->interfaces[0]->type, "patch")) {
            patches++;
        } else if (strcmp(port->name, br->name)) {
            return false;
        }
    }
    return uplinks == 1 && patches;
}

static const struct ovsrec_bridge *
bridge_of(const struct ovsrec_interface *iface)
{
    const struct ovsrec_bridge *br;

    OVSREC_BRIDGE_FOR_EACH (br, idl) {
        for (size_t i = 0; i < br->n_ports; i++) {
            for (size_t j = 0; j < br->ports[i]->n_interfaces; j++) {
                if (br->ports[i]->interfaces[j] == iface) {
                    return br;
                }
            }
        }
    }
    return NULL;
}

/* A patch to a bridge that is there for the uplink's sake. */
static bool
is_uplink_patch(const struct ovsrec_interface *iface)
{
    const struct ovsrec_interface *peer;
    const struct ovsrec_bridge *br;

    if (strcmp(iface->type, "patch")) {
        return false;
    }
    peer = find_interface(smap_get_def(&iface->options, "peer", ""));
    br = peer ? bridge_of(peer) : NULL;
    return br && ofstate_is_uplink_bridge(br);
}

/* Whether a held bridge's port stays open: the host's own, and uplinks.  The database says what it
 * is (the netdev of an internal port may be a tap); one that our replica does not know yet may be
 * anybody's. */
static bool
stays_open(ofp_port_t port, const struct netdev *netdev)
{
    const struct ovsrec_interface *iface;

    if (port == OFPP_LOCAL) {
        return true;
    }
    iface = find_interface(netdev_get_name(netdev));
    return iface && !is_guests(iface) &&
           (is_nic(iface->type) || !strcmp(iface->type, "internal") || is_uplink_patch(iface));
}

void
__wrap_xlate_ofport_set(struct ofproto_dpif *ofproto, struct ofbundle *bundle,
                        struct ofport_dpif *ofport, ofp_port_t ofp_port, odp_port_t odp_port,
                        const struct netdev *netdev, const struct cfm *cfm, const struct bfd *bfd,
                        const struct lldp *lldp, struct ofport_dpif *peer, int stp_port,
                        const struct rstp_port *rstp_port, const struct ofproto_port_queue *queues,
                        size_t n_queues, int config, int state, bool is_tunnel, bool may_enable)
{
    if (is_held(ofproto->up.name) && !stays_open(ofp_port, netdev)) {
        config |= OFPUTIL_PC_NO_RECV | OFPUTIL_PC_NO_RECV_STP | OFPUTIL_PC_NO_FWD;
    }
    __real_xlate_ofport_set(ofproto, bundle, ofport, ofp_port, odp_port, netdev, cfm, bfd, lldp,
                            peer, stp_port, rstp_port, queues, n_queues, config, state, is_tunnel,
                            may_enable);
}

bool
__wrap_dpif_run(struct dpif *dpif)
{
    return __real_dpif_run(dpif) || retranslate;
}

/* --- the flows of a held bridge ------------------------------------------------- */

static bool
has_one_uplink(const char *bridge)
{
    const struct ovsrec_bridge *br;
    size_t n = 0;

    OVSREC_BRIDGE_FOR_EACH (br, idl) {
        for (size_t i = 0; i < br->n_ports && !strcmp(br->name, bridge); i++) {
            const struct ovsrec_port *port = br->ports[i];

            n += is_uplink_port(port) ||
                 (port->n_interfaces && is_uplink_patch(port->interfaces[0]));
        }
    }
    return n <= 1;
}

static void
add_flow(struct ofproto *p, ofp_port_t in_port, int priority, ofp_port_t output)
{
    struct match match = MATCH_CATCHALL_INITIALIZER;
    struct ofpbuf actions;

    if (in_port != OFPP_ANY) {
        match_set_in_port(&match, in_port);
    }
    ofpbuf_init(&actions, 64);
    ofpact_put_OUTPUT(&actions)->port = output;
    ofproto_add_flow(p, &match, priority, actions.data, actions.size);
    ofpbuf_uninit(&actions);
}

static void
add_flows(struct ofproto *p, bool one_uplink)
{
    add_flow(p, OFPP_LOCAL, HOLD_PRIORITY + 1, OFPP_NORMAL);
    add_flow(p, OFPP_ANY, HOLD_PRIORITY, one_uplink ? OFPP_NORMAL : OFPP_LOCAL);
}

static void
delete_flow(struct ofproto *p, ofp_port_t in_port, int priority)
{
    struct match match = MATCH_CATCHALL_INITIALIZER;

    if (in_port != OFPP_ANY) {
        match_set_in_port(&match, in_port);
    }
    ovs_mutex_lock(&ofproto_mutex);
    ofproto_delete_flow(p, &match, priority);
    ovs_mutex_unlock(&ofproto_mutex);
}

/* Open vSwitch flushes a bridge that comes up, or whose controllers or fail mode change, and may
 * give it a flow that forwards everything. */
void
__wrap_ofproto_flush_flows(struct ofproto *p)
{
    if (ofstate_keeps_flows(p->name) && connmgr_has_controllers(p->connmgr)) {
        return;
    }
    __real_ofproto_flush_flows(p);
    if (is_held(p->name)) {
        delete_flow(p, OFPP_ANY, 0);
        delete_flow(p, OFPP_ANY, FAIL_OPEN_PRIORITY);
        add_flows(p, has_one_uplink(p->name));
    }
}

/* --- the main thread ----------------------------------------------------------- */

/* What is to be done for a bridge, outside 'lock'. */
struct step {
    char *bridge;
    struct hold hold;
};

static void
take_step(const struct step *s, struct ofproto *p, void (*taken)(const char *bridge))
{
    const char *bridge = s->bridge;

    if (s->hold.state == HELD || s->hold.state == FORGOTTEN) {
        if (p && s->hold.on != p) {
            __wrap_ofproto_flush_flows(p);
        } else if (p) {
            add_flows(p, s->hold.one_uplink);
        }
        if (p && s->hold.torn) {
            ofproto_reconnect_controllers(p);
        }
        return;
    }
    if (p && s->hold.state == NOTHING) {
        __real_ofproto_flush_flows(p);
    } else if (p) {
        delete_flow(p, OFPP_LOCAL, HOLD_PRIORITY + 1);
        delete_flow(p, OFPP_ANY, HOLD_PRIORITY);
    }
    if (s->hold.state == TAKEN) {
        VLOG_INFO("%s: it has been given flows; its ports are open", bridge);
        taken(bridge);
    } else if (p && s->hold.state == LOADED) {
        /* They may have read, or said, something in between. */
        ofproto_reconnect_controllers(p);
    }
}

/* Takes 'h' a turn further.  True: there is something to be done. */
static bool
turn(struct hold *h, const char *bridge, const struct ofproto *p, bool database_changed)
{
    bool one_uplink = has_one_uplink(bridge);
    bool first = !h->turns;
    bool again = first || h->on != p || database_changed || h->one_uplink != one_uplink || h->torn;

    h->turns += h->turns < 2;
    h->one_uplink = one_uplink;
    return again || h->state == TAKEN || h->state == LOADED || h->state == NOTHING;
}

void
ofstate_hold_run(void (*taken)(const char *bridge))
{
    bool database_changed = idl_seqno != ovsdb_idl_get_seqno(idl);
    struct shash_node *node, *next;
    struct step *steps;
    size_t n = 0;

    idl_seqno = ovsdb_idl_get_seqno(idl);
    retranslate = false;
    if (!atomic_count_get(&n_holds)) {
        return;
    }
    ovs_mutex_lock(&lock);
    steps = xmalloc(shash_count(&holds) * sizeof *steps);
    SHASH_FOR_EACH_SAFE (node, next, &holds) {
        struct ofproto *p = ofproto_lookup(node->name);
        struct hold *h = node->data;

        if (turn(h, node->name, p, database_changed)) {
            steps[n++] = (struct step){xstrdup(node->name), *h};
            h->on = p;
            h->torn &= !p;
        }
        if ((h->state != HELD && h->state != FORGOTTEN) || (h->state == FORGOTTEN && !p)) {
            free(h->why);
            free(h);
            shash_delete(&holds, node);
            atomic_count_dec(&n_holds);
        }
    }
    ovs_mutex_unlock(&lock);
    for (size_t i = 0; i < n; i++) {
        take_step(&steps[i], ofproto_lookup(steps[i].bridge), taken);
        free(steps[i].bridge);
        retranslate = true;
    }
    free(steps);
}

void
ofstate_hold_wait(void)
{
    if (retranslate || !ofstate_hold_in_effect()) {
        poll_immediate_wake();
    }
}

void
ofstate_hold_init(const struct ovsdb_idl *idl_)
{
    idl = idl_;
}

void
ofstate_hold_exit(void)
{
    struct shash_node *node;

    ovs_mutex_lock(&lock);
    SHASH_FOR_EACH (node, &holds) {
        struct hold *h = node->data;

        free(h->why);
        free(h);
    }
    shash_destroy(&holds);
    shash_init(&holds);
    atomic_count_set(&n_holds, 0);
    ovs_mutex_unlock(&lock);
}
