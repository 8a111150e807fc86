/* Ports: netdevs under numbers, and how packets leave by them.
 *
 * All changes happen on the main thread.  A port whose netdev wants new queues
 * or buffers is first taken off every thread that could touch it: it leaves
 * the engine, its receivers let go of it, and an epoch passes. */
#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <rte_mbuf.h>

#include "dp.h"
#include "fast/portq.h"
#include "hash.h"
#include "netdev-provider.h"
#include "netdev-vport.h"
#include "netdev_netback.h"
#include "odp-util.h"
#include "offload_ports.h"
#include "openvswitch/vlog.h"
#include "seq.h"
#include "shadow.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(dp_port);

/* Buffer memory that one producer may have waiting for a polled port, and
 * what it may send per turn: at least the largest packet. */
#define LANE_BYTES (4u << 20)
#define QUANTUM_BYTES (64u << 10)

void
dp_ports_init(struct dp *dp)
{
    ovs_rwlock_init(&dp->ports_lock);
    hmap_init(&dp->ports);
    dp->port_seq = seq_create();
}

void
dp_ports_destroy(struct dp *dp)
{
    seq_destroy(dp->port_seq);
    hmap_destroy(&dp->ports);
    ovs_rwlock_destroy(&dp->ports_lock);
}

static uint32_t
hash_port_no(odp_port_t port_no)
{
    return hash_int(odp_to_u32(port_no), 0);
}

static struct dp_port *
find_by_number(const struct dp *dp, odp_port_t port_no) OVS_REQ_RDLOCK(dp->ports_lock)
{
    struct dp_port *port;

    HMAP_FOR_EACH_WITH_HASH (port, node, hash_port_no(port_no), &dp->ports) {
        if (port->port_no == port_no) {
            return port;
        }
    }
    return NULL;
}

static struct dp_port *
find_by_name(const struct dp *dp, const char *name) OVS_REQ_RDLOCK(dp->ports_lock)
{
    struct dp_port *port;

    HMAP_FOR_EACH (port, node, &dp->ports) {
        if (!strcmp(netdev_get_name(port->netdev), name)) {
            return port;
        }
    }
    return NULL;
}

/* --- the way out --------------------------------------------------------------- */

/* A DPDK port looks at the first packet of a batch to know whether all are
 * mbufs of a pool. */
static bool
same_kind(const struct rte_mbuf *a, const struct rte_mbuf *b)
{
    return !a->pool == !b->pool;
}

/* 'wants': the union of the packets' offload flags. */
static void
send_batch(struct dp_port *port, struct dp_packet_batch *batch, uint64_t wants, int qid,
           bool concurrent)
{
    if (!wants) {
        /* What netdev_send() looks for, packet by packet, has been looked for. */
        port->netdev->netdev_class->send(port->netdev, qid, batch, concurrent);
    } else {
        netdev_send(port->netdev, qid, batch, concurrent);
    }
    dp_packet_batch_init(batch);
}

void
dp_port_send(struct dp_port *port, struct rte_mbuf **pkts, unsigned n, int qid, bool concurrent)
{
    struct dp_packet_batch batch;
    uint64_t wants = 0;

    dp_packet_batch_init(&batch);
    for (unsigned i = 0; i < n; i++) {
        struct dp_packet *b = dp_packet_of(pkts[i]);
        uint64_t this = offload_wants(b);

        if (batch.count == NETDEV_MAX_BURST ||
            (batch.count && !same_kind(&batch.packets[0]->mbuf, pkts[i]))) {
            send_batch(port, &batch, wants, qid, concurrent);
            wants = 0;
        }
        if (this) {
            /* Straight from the engine, it may have no type yet. */
            b->packet_type = htonl(PT_ETH);
            wants |= this;
        }
        batch.packets[batch.count++] = b;
    }
    if (batch.count) {
        send_batch(port, &batch, wants, qid, concurrent);
    }
}

static void
send_direct(struct fast_port *fast, struct worker *worker OVS_UNUSED, struct rte_mbuf **pkts,
            unsigned n)
{
    dp_port_send(CONTAINER_OF(fast, struct dp_port, fast), pkts, n, 0, true);
}

/* To a tunnel without a push there is no way. */
static void
send_nowhere(struct fast_port *fast, struct worker *worker OVS_UNUSED, struct rte_mbuf **pkts,
             unsigned n)
{
    atomic_fetch_add_explicit(&fast->drops, n, memory_order_relaxed);
    dp_packets_free(pkts, n);
}

/* --- making and unmaking -------------------------------------------------------- */

static enum dp_port_kind
kind_of(const struct netdev *netdev)
{
    return netdev_is_netback(netdev)                               ? DP_PORT_VIF
           : netdev_vport_is_vport_class(netdev_get_class(netdev)) ? DP_PORT_TUNNEL
           : netdev_is_pmd(netdev)                                 ? DP_PORT_POLLED
                                                                   : DP_PORT_WAITED;
}

static void
close_rxqs(struct dp_port *port)
{
    for (unsigned i = 0; i < port->n_rxq; i++) {
        netdev_rxq_close(port->rxqs[i]);
    }
    free(port->rxqs);
    port->rxqs = NULL;
    port->n_rxq = 0;
}

static int
open_rxqs(struct dp_port *port)
{
    int n = netdev_n_rxq(port->netdev);

    port->rxqs = xcalloc(MAX(n, 1), sizeof *port->rxqs);
    for (int i = 0; i < n; i++) {
        int error = netdev_rxq_open(port->netdev, &port->rxqs[i], i);

        if (error) {
            VLOG_ERR("%s: cannot open queue %d: %s", netdev_get_name(port->netdev), i,
                     ovs_strerror(error));
            close_rxqs(port);
            return error;
        }
        port->n_rxq++;
    }
    return 0;
}

/* Off every thread that handles packets. */
static void
port_stop(struct dp_port *port)
{
    engine_port_set(port->dp->engine, odp_to_u32(port->port_no), NULL);
    switch (port->kind) {
    case DP_PORT_VIF:
        dp_vif_stop(port);
        break;
    case DP_PORT_POLLED:
    case DP_PORT_WAITED:
        pollers_remove(port->dp, port);
        break;
    case DP_PORT_TUNNEL:
        break;
    }
    epoch_synchronize();
    close_rxqs(port);
}

/* The netdev takes its settings, and packets flow. */
static int
port_start(struct dp_port *port, bool first)
{
    struct netdev *netdev = port->netdev;
    int error;

    if (first || netdev_is_reconf_required(netdev)) {
        error = netdev_reconfigure(netdev);
        if (error && error != EOPNOTSUPP) {
            VLOG_ERR("%s: cannot be configured: %s", netdev_get_name(netdev), ovs_strerror(error));
            return error;
        }
    }
    engine_port_set(port->dp->engine, odp_to_u32(port->port_no), &port->fast);
    error = 0;
    switch (port->kind) {
    case DP_PORT_VIF:
        error = dp_vif_start(port);
        break;
    case DP_PORT_POLLED:
    case DP_PORT_WAITED:
        error = open_rxqs(port);
        if (!error) {
            pollers_add(port->dp, port);
        }
        break;
    case DP_PORT_TUNNEL:
        break;
    }
    if (error) {
        engine_port_set(port->dp->engine, odp_to_u32(port->port_no), NULL);
        epoch_synchronize();
    }
    return error;
}

static void
port_free(struct dp_port *port)
{
    netdev_close(port->netdev);
    netdev_restore_flags(port->sf);
    portq_destroy(port->queue, dp_packets_free);
    free(port->type);
    free(port);
}

static int
port_create(struct dp *dp, const char *name, const char *type, odp_port_t port_no,
            struct dp_port **portp)
{
    enum netdev_flags flags;
    struct netdev *netdev;
    struct dp_port *port;
    int error;

    error = netdev_open(name, type, &netdev);
    if (error) {
        return error;
    }
    netdev_get_flags(netdev, &flags);
    if (flags & NETDEV_LOOPBACK) {
        VLOG_ERR("%s: a loopback device cannot be a port", name);
        netdev_close(netdev);
        return EINVAL;
    }
    port = xzalloc(sizeof *port);
    port->dp = dp;
    port->port_no = port_no;
    port->netdev = netdev;
    port->type = xstrdup(type);
    port->kind = kind_of(netdev);
    port->fast.takes_partial = port->kind == DP_PORT_VIF;
    port->fast.send = port->kind == DP_PORT_POLLED   ? pollers_send
                      : port->kind == DP_PORT_VIF    ? dp_vif_send
                      : port->kind == DP_PORT_TUNNEL ? send_nowhere
                                                     : send_direct;
    atomic_init(&port->fast.drops, 0);
    atomic_init(&port->owner, NULL);
    atomic_init(&port->upcalls_lost, 0);
    if (port->kind == DP_PORT_POLLED) {
        port->queue = portq_create(LANE_BYTES, QUANTUM_BYTES);
        if (!port->queue) {
            out_of_memory();
        }
    }
    *portp = port;
    return 0;
}

static void
port_remove(struct dp_port *port)
{
    struct dp *dp = port->dp;

    shadow_port_del(dp, port);
    ovs_rwlock_wrlock(&dp->ports_lock);
    hmap_remove(&dp->ports, &port->node);
    ovs_rwlock_unlock(&dp->ports_lock);
    seq_change(dp->port_seq);
    port_free(port);
}

/* For tests, a port's number follows from its name where it can. */
static odp_port_t
number_in_name(const struct dp *dp, const char *name)
{
    uint32_t start = strncmp(name, "br", 2) ? 0 : 100;
    const char *p = name + strcspn(name, "0123456789");
    uint32_t port_no;

    if (*p) {
        port_no = start + strtol(p, NULL, 10);
        if (port_no > 0 && port_no < ENGINE_PORTS_MAX && !find_by_number(dp, u32_to_odp(port_no))) {
            return u32_to_odp(port_no);
        }
    }
    return ODPP_NONE;
}

static odp_port_t
choose_number(const struct dp *dp, const char *name)
{
    odp_port_t port_no = ODPP_NONE;

    if (dp->class != &dpif_weft_class) {
        port_no = number_in_name(dp, name);
    }
    for (uint32_t i = 1; port_no == ODPP_NONE && i < ENGINE_PORTS_MAX; i++) {
        if (!find_by_number(dp, u32_to_odp(i))) {
            port_no = u32_to_odp(i);
        }
    }
    return port_no;
}

int
dp_port_add(struct dp *dp, struct netdev *netdev, odp_port_t *port_nop)
{
    char buf[NETDEV_VPORT_NAME_BUFSIZE];
    const char *name = netdev_vport_get_dpif_port(netdev, buf, sizeof buf);
    odp_port_t port_no = *port_nop;
    struct dp_port *port;
    int error;

    if (port_no == ODPP_NONE) {
        port_no = choose_number(dp, name);
        if (port_no == ODPP_NONE) {
            return EFBIG;
        }
    } else if (odp_to_u32(port_no) >= ENGINE_PORTS_MAX) {
        return EINVAL;
    } else if (find_by_number(dp, port_no)) {
        return EBUSY;
    }
    *port_nop = port_no;
    if (find_by_name(dp, name)) {
        return EEXIST;
    }

    error = port_create(dp, name, netdev_get_type(netdev), port_no, &port);
    if (error) {
        return error;
    }
    ovs_rwlock_wrlock(&dp->ports_lock);
    hmap_insert(&dp->ports, &port->node, hash_port_no(port_no));
    ovs_rwlock_unlock(&dp->ports_lock);
    seq_change(dp->port_seq);

    error = port_start(port, true);
    if (error) {
        port_remove(port);
        return error == EOPNOTSUPP ? error : EINVAL;
    }
    /* Last, because a change of flags makes the bridge look at all ports, and
     * one that cannot be configured would be tried forever. */
    error = netdev_turn_flags_on(port->netdev, NETDEV_PROMISC, &port->sf);
    if (error) {
        VLOG_ERR("%s: cannot be made promiscuous: %s", name, ovs_strerror(error));
        port_stop(port);
        port_remove(port);
        return error;
    }
    shadow_port_add(dp, port);
    return 0;
}

int
dp_port_del(struct dp *dp, odp_port_t port_no)
{
    struct dp_port *port;

    if (port_no == ODPP_NONE) {
        return EINVAL;
    }
    port = find_by_number(dp, port_no);
    if (!port) {
        return ENODEV;
    }
    port_stop(port);
    port_remove(port);
    return 0;
}

void
dp_ports_clear(struct dp *dp)
{
    struct dp_port *port;

    HMAP_FOR_EACH_SAFE (port, node, &dp->ports) {
        port_stop(port);
        port_remove(port);
    }
}

/* --- the main loop's part -------------------------------------------------------- */

void
dp_ports_run(struct dp *dp)
{
    struct dp_port *port;

    HMAP_FOR_EACH_SAFE (port, node, &dp->ports) {
        if (!netdev_is_reconf_required(port->netdev)) {
            continue;
        }
        port_stop(port);
        if (port_start(port, false)) {
            port_remove(port);
        }
    }
}

void
dp_ports_wait(struct dp *dp)
{
    struct dp_port *port;

    HMAP_FOR_EACH (port, node, &dp->ports) {
        netdev_wait_reconf_required(port->netdev);
    }
}

/* --- queries ------------------------------------------------------------------------ */

static int
answer(const struct dp_port *port, struct dpif_port *out)
{
    if (!port) {
        return ENODEV;
    }
    if (out) {
        out->name = xstrdup(netdev_get_name(port->netdev));
        out->type = xstrdup(port->type);
        out->port_no = port->port_no;
    }
    return 0;
}

int
dp_port_query_by_number(const struct dpif *dpif, odp_port_t port_no, struct dpif_port *out)
{
    struct dp *dp = dp_of(dpif);
    int error;

    if (port_no == ODPP_NONE) {
        return EINVAL;
    }
    ovs_rwlock_rdlock(&dp->ports_lock);
    error = answer(find_by_number(dp, port_no), out);
    ovs_rwlock_unlock(&dp->ports_lock);
    return error;
}

int
dp_port_query_by_name(const struct dpif *dpif, const char *name, struct dpif_port *out)
{
    struct dp *dp = dp_of(dpif);
    int error;

    ovs_rwlock_rdlock(&dp->ports_lock);
    error = answer(find_by_name(dp, name), out);
    ovs_rwlock_unlock(&dp->ports_lock);
    return error;
}

struct port_dump {
    struct hmap_position position;
    char *name, *type;
};

int
dp_port_dump_start(const struct dpif *dpif OVS_UNUSED, void **state)
{
    *state = xzalloc(sizeof(struct port_dump));
    return 0;
}

int
dp_port_dump_next(const struct dpif *dpif, void *state, struct dpif_port *out)
{
    struct port_dump *dump = state;
    struct dp *dp = dp_of(dpif);
    struct hmap_node *node;

    ovs_rwlock_rdlock(&dp->ports_lock);
    node = hmap_at_position(&dp->ports, &dump->position);
    if (node) {
        const struct dp_port *port = CONTAINER_OF(node, struct dp_port, node);

        free(dump->name);
        free(dump->type);
        out->name = dump->name = xstrdup(netdev_get_name(port->netdev));
        out->type = dump->type = xstrdup(port->type);
        out->port_no = port->port_no;
    }
    ovs_rwlock_unlock(&dp->ports_lock);
    return node ? 0 : EOF;
}

int
dp_port_dump_done(const struct dpif *dpif OVS_UNUSED, void *state)
{
    struct port_dump *dump = state;

    free(dump->name);
    free(dump->type);
    free(dump);
    return 0;
}
