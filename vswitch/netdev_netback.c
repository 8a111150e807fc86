/* Theory of Operation
 * ===================
 *
 * A netdev of this class owns at most one attached vif.  Packets come from it
 * in one of two ways: Open vSwitch's polling threads call rxq_recv() for each
 * of the vif's queues, or its queue threads hand them to the receiver that
 * netdev_netback_set_receiver() named.  They go to it from any thread.
 *
 * Threads with packets use 'live' and take no lock.  It only changes where
 * Open vSwitch's datapath keeps its threads off the port (before the first
 * reconfigure(), inside reconfigure(), in destruct()); for threads of ours,
 * which nobody stops, reconfigure() takes it away first and waits for an
 * epoch.  'mutex' may be held while waiting for queue threads (that is what a
 * change of the receiver does), so nothing that a thread with packets calls
 * may take it: send(), get_mtu().
 *
 * set_config() checks the options and attaches a vif to a fresh port, so that
 * errors reach ovs-vsctl.  A change of options on a live port is only noted,
 * and reconfigure() swaps the vifs.  If the new vif cannot be had at that
 * moment (the port that owned it is still being closed by another thread),
 * run() asks for another reconfiguration until it can.
 *
 * Packets are not copied here.  Towards the switch, netback's mbufs are the
 * first member of struct dp_packet (pools.c).  Towards the guest, mbufs pass
 * as they are; the malloc'ed copies that Open vSwitch makes for a flood or a
 * mirror get the few mbuf fields that their allocator leaves undefined, and
 * come back through free_foreign() (backend.c).  Offload flags stay as they
 * are in both directions. */
#include <config.h>

#include "netdev_netback_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <rte_mbuf.h>

#include "backend.h"
#include "coverage.h"
#include "dp-packet.h"
#include "fast/epoch.h"
#include "if-notifier.h"
#include "netback.h"
#include "netdev-provider.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/list.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovs-thread.h"
#include "smap.h"
#include "svec.h"
#include "timeval.h"
#include "unixctl.h"
#include "util.h"
#include "vif_move.h"

VLOG_DEFINE_THIS_MODULE(netdev_netback);

COVERAGE_DEFINE(weft_drop_no_vif);

/* Xen's DOMID_FIRST_RESERVED. */
#define DOMID_MAX 0x7fefu
#define MTU_DEFAULT 1500
/* How soon the main loop sees a vif's carrier, MAC or presence change. */
#define CHANGE_CHECK_MS 100
#define REATTACH_MS 500

struct ovs_mutex netdev_netback_all_mutex = OVS_MUTEX_INITIALIZER;
static struct ovs_list all OVS_GUARDED_BY(netdev_netback_all_mutex) = OVS_LIST_INITIALIZER(&all);
/* A port was refused because another one, perhaps about to go, has its vif. */
static bool refused_duplicate OVS_GUARDED_BY(netdev_netback_all_mutex);

static const struct netdev_class netback_class;

bool
netdev_is_netback(const struct netdev *netdev)
{
    return netdev->netdev_class == &netback_class;
}

static bool
same_vif(struct vif_id a, struct vif_id b)
{
    return a.domid == b.domid && a.handle == b.handle;
}

/* --- life cycle ---------------------------------------------------------- */

static struct netdev *
netback_alloc(void)
{
    struct netdev_netback *dev = xzalloc(sizeof *dev);

    return &dev->up;
}

static int
netback_construct(struct netdev *netdev)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);

    ovs_mutex_init(&dev->mutex);
    atomic_init(&dev->known, false);
    atomic_init(&dev->live, NULL);
    atomic_init(&dev->mtu, MTU_DEFAULT);
    ovs_mutex_lock(&dev->mutex);
    dev->requested_n_txq = 1;
    /* What XenServer gives the host's end of each vif. */
    dev->mac = (struct eth_addr)ETH_ADDR_C(fe, ff, ff, ff, ff, ff);
    dev->flags = NETDEV_UP | NETDEV_PROMISC;
    ovs_mutex_unlock(&dev->mutex);
    netdev->ol_flags =
        NETDEV_TX_OFFLOAD_TCP_CKSUM | NETDEV_TX_OFFLOAD_UDP_CKSUM | NETDEV_TX_OFFLOAD_TCP_TSO;

    ovs_mutex_lock(&netdev_netback_all_mutex);
    ovs_list_push_back(&all, &dev->in_all);
    ovs_mutex_unlock(&netdev_netback_all_mutex);
    return 0;
}

static void
netback_destruct(struct netdev *netdev)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);

    ovs_mutex_lock(&netdev_netback_all_mutex);
    ovs_list_remove(&dev->in_all);
    vif_move_destroy(dev->move);
    backend_detach(dev->vif);
    if (refused_duplicate) {
        refused_duplicate = false;
        if_notifier_manual_report();
    }
    ovs_mutex_unlock(&netdev_netback_all_mutex);
    ovs_mutex_destroy(&dev->mutex);
}

static void
netback_dealloc(struct netdev *netdev)
{
    free(netdev_netback_cast(netdev));
}

/* --- configuration ------------------------------------------------------- */

static int
netback_get_config(const struct netdev *netdev, struct smap *args)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);

    ovs_mutex_lock(&dev->mutex);
    if (dev->configured) {
        smap_add_format(args, "domid", "%" PRIu16, dev->wanted.domid);
        smap_add_format(args, "handle", "%" PRIu32, dev->wanted.handle);
    }
    ovs_mutex_unlock(&dev->mutex);
    return 0;
}

static int
get_number(const char *name, const struct smap *args, const char *key, unsigned max,
           unsigned *value, char **errp)
{
    const char *text = smap_get(args, key);

    if (!text) {
        *errp = xasprintf("%s: options:%s is missing: give the vif as options:domid=DOMID "
                          "options:handle=HANDLE",
                          name, key);
        return EINVAL;
    }
    /* str_to_uint() takes signs and blanks; a number here is digits. */
    if (!text[0] || text[strspn(text, "0123456789")] || !str_to_uint(text, 10, value) ||
        *value > max) {
        *errp = xasprintf("%s: options:%s=%s is not a number from 0 to %u", name, key, text, max);
        return EINVAL;
    }
    return 0;
}

static int
parse_options(const char *name, const struct smap *args, struct vif_id *id, char **errp)
{
    unsigned domid, handle;
    int error;

    error = get_number(name, args, "domid", DOMID_MAX, &domid, errp);
    if (!error) {
        error = get_number(name, args, "handle", UINT32_MAX, &handle, errp);
    }
    if (!error) {
        id->domid = domid;
        id->handle = handle;
    }
    return error;
}

/* Another port that has or wants vif 'id', or NULL. */
static struct netdev_netback *
find_rival(const struct netdev_netback *self, struct vif_id id)
    OVS_REQUIRES(netdev_netback_all_mutex)
{
    struct netdev_netback *dev;

    LIST_FOR_EACH (dev, in_all, &all) {
        bool rival;

        if (dev == self) {
            continue;
        }
        ovs_mutex_lock(&dev->mutex);
        rival = (dev->configured && same_vif(dev->wanted, id)) ||
                (dev->vif && same_vif(dev->attached, id));
        ovs_mutex_unlock(&dev->mutex);
        if (rival) {
            return dev;
        }
    }
    return NULL;
}

static int
attach(struct netdev_netback *dev) OVS_REQUIRES(dev->mutex)
{
    int error = backend_attach(dev->wanted.domid, dev->wanted.handle, &dev->vif);

    if (error) {
        dev->vif = NULL;
        return error;
    }
    dev->attached = dev->wanted;
    dev->receiving = false;
    netback_set_mtu(dev->vif, netdev_netback_mtu(dev));
    netback_set_carrier(dev->vif, dev->flags & NETDEV_UP);
    /* Unlike any real one, so that run() looks at the vif. */
    dev->change_seq = netback_change_seq(dev->vif) - 1;
    atomic_store_explicit(&dev->live, dev->vif, memory_order_release);
    return 0;
}

static void
detach(struct netdev_netback *dev) OVS_REQUIRES(dev->mutex)
{
    atomic_store_relaxed(&dev->live, NULL);
    epoch_synchronize();
    vif_move_destroy(dev->move);
    dev->move = NULL;
    backend_detach(dev->vif);
    dev->vif = NULL;
}

static int
netback_set_config(struct netdev *netdev, const struct smap *args, char **errp)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);
    const char *name = netdev_get_name(netdev);
    struct netdev_netback *rival;
    struct vif_id id;
    char *why = NULL;
    int error;

    error = parse_options(name, args, &id, errp);
    if (error) {
        return error;
    }
    error = backend_start(&why);
    if (error) {
        *errp = xasprintf("%s: %s", name, why);
        free(why);
        return error;
    }

    ovs_mutex_lock(&netdev_netback_all_mutex);
    rival = find_rival(dev, id);
    if (rival) {
        *errp = xasprintf("%s: vif %" PRIu16 ".%" PRIu32 " is already port %s", name, id.domid,
                          id.handle, netdev_get_name(&rival->up));
        refused_duplicate = true;
        ovs_mutex_unlock(&netdev_netback_all_mutex);
        return EBUSY;
    }
    ovs_mutex_lock(&dev->mutex);
    if (!dev->configured || !same_vif(dev->wanted, id)) {
        dev->wanted = id;
        error = dev->configured ? 0 : attach(dev);
        if (error) {
            *errp = xasprintf("%s: cannot attach vif %" PRIu16 ".%" PRIu32 ": %s", name, id.domid,
                              id.handle, ovs_strerror(error));
        } else {
            dev->configured = true;
            netdev_request_reconfigure(netdev);
        }
    }
    ovs_mutex_unlock(&dev->mutex);
    ovs_mutex_unlock(&netdev_netback_all_mutex);
    return error;
}

/* Open vSwitch's datapath has its threads off the port. */
static int
netback_reconfigure(struct netdev *netdev)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);

    ovs_mutex_lock(&dev->mutex);
    if (dev->configured && dev->vif && !same_vif(dev->wanted, dev->attached)) {
        detach(dev);
    }
    if (dev->configured && !dev->vif) {
        int error = attach(dev);

        dev->reattach_at = error ? time_msec() + REATTACH_MS : 0;
        if (error) {
            VLOG_WARN("%s: cannot attach vif %" PRIu16 ".%" PRIu32 ": %s (trying again)",
                      netdev_get_name(netdev), dev->wanted.domid, dev->wanted.handle,
                      ovs_strerror(error));
        }
    }
    netdev->n_rxq = dev->vif ? netback_n_queues(dev->vif) : 1;
    netdev->n_txq = dev->requested_n_txq;
    ovs_mutex_unlock(&dev->mutex);
    return 0;
}

static int
netback_set_tx_multiq(struct netdev *netdev, unsigned int n_txq)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);

    ovs_mutex_lock(&dev->mutex);
    if (dev->requested_n_txq != n_txq) {
        dev->requested_n_txq = n_txq;
        netdev_request_reconfigure(netdev);
    }
    ovs_mutex_unlock(&dev->mutex);
    return 0;
}

/* --- the main loop's part ------------------------------------------------- */

static void
check_changes(struct netdev_netback *dev) OVS_REQUIRES(dev->mutex)
{
    struct netback_status status;
    uint64_t seq;

    if (dev->reattach_at && time_msec() >= dev->reattach_at) {
        dev->reattach_at = 0;
        netdev_request_reconfigure(&dev->up);
    }
    if (!dev->vif) {
        return;
    }
    atomic_store_relaxed(&dev->known, true);
    if (dev->receiver && !dev->receiving) {
        netback_set_receiver(dev->vif, dev->receiver, dev->receiver_aux);
        dev->receiving = true;
    }
    seq = netback_change_seq(dev->vif);
    if (seq == dev->change_seq) {
        return;
    }
    dev->change_seq = seq;
    netback_status(dev->vif, &status);
    if (status.carrier != dev->carrier) {
        dev->carrier = status.carrier;
        dev->carrier_resets++;
    }
    netdev_change_seq_changed(&dev->up);
}

static void
netback_run(const struct netdev_class *class OVS_UNUSED)
{
    struct netdev_netback *dev;

    ovs_mutex_lock(&netdev_netback_all_mutex);
    LIST_FOR_EACH (dev, in_all, &all) {
        ovs_mutex_lock(&dev->mutex);
        check_changes(dev);
        ovs_mutex_unlock(&dev->mutex);
    }
    ovs_mutex_unlock(&netdev_netback_all_mutex);
}

static void
netback_wait(const struct netdev_class *class OVS_UNUSED)
{
    struct netdev_netback *dev;

    ovs_mutex_lock(&netdev_netback_all_mutex);
    if (!ovs_list_is_empty(&all)) {
        poll_timer_wait(CHANGE_CHECK_MS);
    }
    LIST_FOR_EACH (dev, in_all, &all) {
        ovs_mutex_lock(&dev->mutex);
        if (dev->vif && dev->receiver && !dev->receiving) {
            poll_immediate_wake();
        }
        ovs_mutex_unlock(&dev->mutex);
    }
    ovs_mutex_unlock(&netdev_netback_all_mutex);
}

void
netdev_netback_set_receiver(struct netdev *netdev, const struct netback_receiver *receiver,
                            void *aux)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);

    ovs_mutex_lock(&dev->mutex);
    if (dev->receiving && dev->vif && backend_running()) {
        netback_set_receiver(dev->vif, NULL, NULL);
    }
    dev->receiving = false;
    dev->receiver = receiver;
    dev->receiver_aux = aux;
    ovs_mutex_unlock(&dev->mutex);
}

void
netdev_netback_exit(void)
{
    struct netdev_netback *dev;

    ovs_mutex_lock(&netdev_netback_all_mutex);
    LIST_FOR_EACH (dev, in_all, &all) {
        atomic_store_relaxed(&dev->live, NULL);
        ovs_mutex_lock(&dev->mutex);
        vif_move_destroy(dev->move);
        dev->move = NULL;
        ovs_mutex_unlock(&dev->mutex);
    }
    ovs_mutex_unlock(&netdev_netback_all_mutex);
    epoch_synchronize();
}

bool
netdev_netback_visit(const char *port,
                     void (*cb)(const char *port, struct netback_vif *, struct vif_move **,
                                void *aux),
                     void *aux)
{
    struct netdev_netback *dev;
    bool found = false;

    ovs_mutex_lock(&netdev_netback_all_mutex);
    LIST_FOR_EACH (dev, in_all, &all) {
        if (!strcmp(port, netdev_get_name(&dev->up))) {
            ovs_mutex_lock(&dev->mutex);
            cb(port, dev->vif, &dev->move, aux);
            ovs_mutex_unlock(&dev->mutex);
            found = true;
        }
    }
    ovs_mutex_unlock(&netdev_netback_all_mutex);
    return found;
}

/* --- packets ------------------------------------------------------------- */

static inline struct netback_vif *
live_vif(struct netdev_netback *dev)
{
    struct netback_vif *vif;

    atomic_read_explicit(&dev->live, &vif, memory_order_acquire);
    return vif;
}

static struct netdev_rxq *
netback_rxq_alloc(void)
{
    return xzalloc(sizeof(struct netdev_rxq));
}

static int
netback_rxq_construct(struct netdev_rxq *rxq OVS_UNUSED)
{
    return 0;
}

static void
netback_rxq_destruct(struct netdev_rxq *rxq OVS_UNUSED)
{
}

static void
netback_rxq_dealloc(struct netdev_rxq *rxq)
{
    free(rxq);
}

static int
netback_rxq_recv(struct netdev_rxq *rxq, struct dp_packet_batch *batch, int *qfill)
{
    struct netdev_netback *dev = CONTAINER_OF(rxq->netdev, struct netdev_netback, up);
    struct netback_vif *vif = live_vif(dev);
    unsigned n = 0;
    bool known;

    BUILD_ASSERT_DECL(NETBACK_MAX_BURST <= NETDEV_MAX_BURST);
    atomic_read_relaxed(&dev->known, &known);
    if (OVS_LIKELY(vif && known)) {
        n = netback_rx_burst(vif, rxq->queue_id, (struct rte_mbuf **)batch->packets,
                             NETBACK_MAX_BURST);
    }
    if (!n) {
        return EAGAIN;
    }
    batch->count = n;
    dp_packet_batch_init_packet_fields(batch);
    if (qfill) {
        *qfill = -ENOTSUP; /* the queue's length is not known */
    }
    return 0;
}

static void
netback_rxq_wait(struct netdev_rxq *rxq)
{
    struct netback_vif *vif = live_vif(CONTAINER_OF(rxq->netdev, struct netdev_netback, up));

    if (vif && netback_rx_ready(vif, rxq->queue_id)) {
        poll_immediate_wake();
    } else {
        poll_timer_wait(1);
    }
}

static int
netback_rxq_drain(struct netdev_rxq *rxq)
{
    struct dp_packet_batch batch;

    dp_packet_batch_init(&batch);
    while (!netback_rxq_recv(rxq, &batch, NULL)) {
        dp_packet_delete_batch(&batch, true);
    }
    return 0;
}

/* Gives a malloc'ed packet the mbuf fields that mbufs of a pool always have. */
static void
complete_mbuf(struct dp_packet *b)
{
    b->mbuf.pool = NULL;
    b->mbuf.next = NULL;
    b->mbuf.nb_segs = 1;
    rte_mbuf_refcnt_set(&b->mbuf, 1);
}

static int
netback_send(struct netdev *netdev, int qid OVS_UNUSED, struct dp_packet_batch *batch,
             bool concurrent_txq OVS_UNUSED)
{
    struct netback_vif *vif = live_vif(CONTAINER_OF(netdev, struct netdev_netback, up));
    struct dp_packet *packet;

    if (OVS_UNLIKELY(!vif)) {
        COVERAGE_ADD(weft_drop_no_vif, dp_packet_batch_size(batch));
        dp_packet_delete_batch(batch, true);
        return 0;
    }
    dp_packet_batch_apply_cutlen(batch);
    DP_PACKET_BATCH_FOR_EACH (i, packet, batch) {
        if (OVS_UNLIKELY(packet->source != DPBUF_DPDK)) {
            complete_mbuf(packet);
        }
    }
    netback_tx_burst(vif, (struct rte_mbuf **)batch->packets, batch->count);
    return 0;
}

void
netdev_netback_tx(struct netdev *netdev, struct rte_mbuf **pkts, unsigned n)
{
    struct netback_vif *vif = live_vif(CONTAINER_OF(netdev, struct netdev_netback, up));

    if (OVS_LIKELY(vif)) {
        netback_tx_burst(vif, pkts, n);
        return;
    }
    COVERAGE_ADD(weft_drop_no_vif, n);
    for (unsigned i = 0; i < n; i++) {
        dp_packet_delete(CONTAINER_OF(pkts[i], struct dp_packet, mbuf));
    }
}

/* --- ovs-appctl netback/show ----------------------------------------------- */

static char *
format_one(struct netdev_netback *dev) OVS_REQUIRES(dev->mutex)
{
    struct ds out = DS_EMPTY_INITIALIZER;
    struct netback_status s;

    ds_put_format(&out, "%s: vif %" PRIu16 ".%" PRIu32 ", ", netdev_get_name(&dev->up),
                  dev->wanted.domid, dev->wanted.handle);
    if (!dev->vif) {
        ds_put_cstr(&out, "not attached\n");
        return ds_steal_cstr(&out);
    }
    netback_status(dev->vif, &s);
    ds_put_format(
        &out, "%s, mac " ETH_ADDR_FMT ", mtu %" PRIu16 ", queues %u%s%s, memory %zu bytes\n",
        s.carrier     ? "carrier up"
        : s.connected ? "connected, carrier down"
        : s.present   ? "waiting for the guest"
                      : "not in the store",
        ETH_ADDR_BYTES_ARGS(s.mac), s.mtu, s.n_queues, s.static_grants ? ", static grants" : "",
        s.multicast_control ? ", multicast control" : "", netback_memory(dev->vif));
    return ds_steal_cstr(&out);
}

static void
netback_show(struct unixctl_conn *conn, int argc, const char *argv[], void *aux OVS_UNUSED)
{
    struct svec lines = SVEC_EMPTY_INITIALIZER;
    struct netdev_netback *dev;
    char *out;

    ovs_mutex_lock(&netdev_netback_all_mutex);
    LIST_FOR_EACH (dev, in_all, &all) {
        if (argc < 2 || !strcmp(argv[1], netdev_get_name(&dev->up))) {
            ovs_mutex_lock(&dev->mutex);
            svec_add_nocopy(&lines, format_one(dev));
            ovs_mutex_unlock(&dev->mutex);
        }
    }
    ovs_mutex_unlock(&netdev_netback_all_mutex);
    if (argc == 2 && svec_is_empty(&lines)) {
        unixctl_command_reply_error(conn, "no such port of type netback");
    } else {
        svec_sort(&lines);
        out = svec_join(&lines, "", "");
        unixctl_command_reply(conn, out);
        free(out);
    }
    svec_destroy(&lines);
}

static const struct netdev_class netback_class = {
    .type = "netback",
    .is_pmd = true,
    .run = netback_run,
    .wait = netback_wait,
    .alloc = netback_alloc,
    .construct = netback_construct,
    .destruct = netback_destruct,
    .dealloc = netback_dealloc,
    .get_config = netback_get_config,
    .set_config = netback_set_config,
    .get_numa_id = netdev_netback_get_numa_id,
    .set_tx_multiq = netback_set_tx_multiq,
    .send = netback_send,
    .set_etheraddr = netdev_netback_set_etheraddr,
    .get_etheraddr = netdev_netback_get_etheraddr,
    .get_mtu = netdev_netback_get_mtu,
    .set_mtu = netdev_netback_set_mtu,
    .get_carrier = netdev_netback_get_carrier,
    .get_carrier_resets = netdev_netback_get_carrier_resets,
    .get_stats = netdev_netback_get_stats,
    .get_custom_stats = netdev_netback_get_custom_stats,
    .get_status = netdev_netback_get_status,
    .update_flags = netdev_netback_update_flags,
    .reconfigure = netback_reconfigure,
    .rxq_alloc = netback_rxq_alloc,
    .rxq_construct = netback_rxq_construct,
    .rxq_destruct = netback_rxq_destruct,
    .rxq_dealloc = netback_rxq_dealloc,
    .rxq_recv = netback_rxq_recv,
    .rxq_wait = netback_rxq_wait,
    .rxq_drain = netback_rxq_drain,
};

void
netdev_netback_register(void)
{
    netdev_register_provider(&netback_class);
    unixctl_command_register("netback/show", "[PORT]", 0, 1, netback_show, NULL);
    vif_move_init();
}
