#include <config.h>

#include "netdev_synth.h"

#include <errno.h>
#include <rte_cycles.h>

#include "dp-packet.h"
#include "dpdk.h"
#include "openvswitch/poll-loop.h"
#include "ovs-numa.h"
#include "synth_port.h"
#include "util.h"

#define MAX_RXQ 16u
#define DESC_DEFAULT 256u
#define DESC_MIN 64u
#define DESC_MAX 65536u

static struct netdev_synth *
netdev_synth_cast(const struct netdev *netdev)
{
    return CONTAINER_OF(netdev, struct netdev_synth, up);
}

struct synth_counts
synth_port_counts(const struct netdev_synth *dev)
{
    struct synth_counts c = dev->gone;

    for (int i = 0; dev->queues && i < dev->up.n_rxq; i++) {
        uint64_t n = synth_queue_packets(&dev->queues[i]);

        c.rx_packets += n;
        c.rx_bytes += n * dev->flows.size;
        c.rx_missed += synth_queue_missed(&dev->queues[i]);
    }
    for (int i = 0; dev->txqs && i < dev->up.n_txq; i++) {
        c.tx_packets += synth_peek(&dev->txqs[i].packets);
        c.tx_bytes += synth_peek(&dev->txqs[i].bytes);
    }
    return c;
}

/* --- life cycle -------------------------------------------------------------- */

static struct netdev *
synth_alloc(void)
{
    struct netdev_synth *dev = xzalloc_cacheline(sizeof *dev);

    return &dev->up;
}

static int
synth_construct(struct netdev *netdev)
{
    struct netdev_synth *dev = netdev_synth_cast(netdev);

    ovs_mutex_init(&dev->mutex);
    atomic_init(&dev->rate, SYNTH_STOPPED);
    ovs_mutex_lock(&dev->mutex);
    smap_init(&dev->options);
    dev->wanted.n_rxq = dev->wanted.n_txq = 1;
    dev->wanted.n_desc = DESC_DEFAULT;
    eth_addr_random(&dev->mac);
    dev->mtu = 1500;
    dev->flags = NETDEV_UP | NETDEV_PROMISC;
    ovs_mutex_unlock(&dev->mutex);

    synth_show_add(dev);
    return 0;
}

static void
drop_queues(struct netdev_synth *dev) OVS_REQUIRES(dev->mutex)
{
    dev->gone = synth_port_counts(dev);
    for (int i = 0; dev->queues && i < dev->up.n_rxq; i++) {
        synth_queue_uninit(&dev->queues[i]);
    }
    free_cacheline(dev->queues);
    free_cacheline(dev->txqs);
    dev->queues = NULL;
    dev->txqs = NULL;
}

static void
synth_destruct(struct netdev *netdev)
{
    struct netdev_synth *dev = netdev_synth_cast(netdev);

    synth_show_remove(dev);
    ovs_mutex_lock(&dev->mutex);
    drop_queues(dev);
    smap_destroy(&dev->options);
    ovs_mutex_unlock(&dev->mutex);
    ovs_mutex_destroy(&dev->mutex);
}

static void
synth_dealloc(struct netdev *netdev)
{
    free_cacheline(netdev_synth_cast(netdev));
}

static void
synth_run(const struct netdev_class *class OVS_UNUSED)
{
    synth_buffers_reap();
}

/* --- configuration ----------------------------------------------------------- */

static int
synth_get_config(const struct netdev *netdev, struct smap *options)
{
    struct netdev_synth *dev = netdev_synth_cast(netdev);
    const struct smap_node *node;

    ovs_mutex_lock(&dev->mutex);
    SMAP_FOR_EACH (node, &dev->options) {
        smap_add(options, node->key, node->value);
    }
    ovs_mutex_unlock(&dev->mutex);
    return 0;
}

/* Returns NULL, or a sentence for the user. */
static char *
parse(const char *name, const struct smap *options, struct synth_wanted *w, uint64_t *rate)
{
    w->n_rxq = smap_get_uint(options, "n_rxq", 1);
    w->n_desc = smap_get_uint(options, "n_desc", DESC_DEFAULT);
    w->stamp = smap_get_bool(options, "stamp", false);
    *rate = smap_get_ullong(options, "rate", SYNTH_UNLIMITED);
    if (w->n_rxq < 1 || w->n_rxq > MAX_RXQ) {
        return xasprintf("%s: options:n_rxq is 1 to %u", name, MAX_RXQ);
    }
    if (w->n_desc < DESC_MIN || w->n_desc > DESC_MAX || !is_pow2(w->n_desc)) {
        return xasprintf("%s: options:n_desc is a power of two from %u to %u", name, DESC_MIN,
                         DESC_MAX);
    }
    if (*rate > SYNTH_RATE_MAX) {
        return xasprintf("%s: options:rate is at most %u packets a second, or 0: unlimited", name,
                         SYNTH_RATE_MAX);
    }
    if (smap_get_bool(options, "stopped", false)) {
        *rate = SYNTH_STOPPED;
    }
    return synth_flows_parse(name, options, &w->flows);
}

static int
synth_set_config(struct netdev *netdev, const struct smap *options, char **errp)
{
    struct netdev_synth *dev = netdev_synth_cast(netdev);
    const char *name = netdev_get_name(netdev);
    struct synth_wanted *w;
    uint64_t rate;

    if (!dpdk_available()) {
        *errp = xasprintf("%s: ports of type synth need other_config:dpdk-init=true", name);
        return EINVAL;
    }
    w = xzalloc_cacheline(sizeof *w);
    *errp = parse(name, options, w, &rate);
    if (*errp) {
        free_cacheline(w);
        return EINVAL;
    }

    ovs_mutex_lock(&dev->mutex);
    if (!dev->configured || !smap_equal(options, &dev->options)) {
        smap_destroy(&dev->options);
        smap_clone(&dev->options, options);
        w->n_txq = dev->wanted.n_txq;
        dev->wanted = *w;
        dev->configured = true;
        atomic_store_relaxed(&dev->rate, rate);
        netdev_request_reconfigure(netdev);
    }
    ovs_mutex_unlock(&dev->mutex);
    free_cacheline(w);
    return 0;
}

static int
synth_set_tx_multiq(struct netdev *netdev, unsigned n_txq)
{
    struct netdev_synth *dev = netdev_synth_cast(netdev);

    ovs_mutex_lock(&dev->mutex);
    if (dev->wanted.n_txq != n_txq) {
        dev->wanted.n_txq = n_txq;
        netdev_request_reconfigure(netdev);
    }
    ovs_mutex_unlock(&dev->mutex);
    return 0;
}

/* The datapath's threads are off the port. */
static int
synth_reconfigure(struct netdev *netdev)
{
    struct netdev_synth *dev = netdev_synth_cast(netdev);
    const struct synth_wanted *w = &dev->wanted;
    bool ok = true;

    ovs_mutex_lock(&dev->mutex);
    drop_queues(dev);
    dev->flows = w->flows;
    dev->stamp = w->stamp;
    netdev->n_rxq = w->n_rxq;
    netdev->n_txq = w->n_txq;
    dev->txqs = xzalloc_cacheline(netdev->n_txq * sizeof *dev->txqs);
    dev->queues = xzalloc_cacheline(netdev->n_rxq * sizeof *dev->queues);
    for (int i = 0; i < netdev->n_rxq; i++) {
        ok &= synth_queue_init(&dev->queues[i], &dev->flows, i, netdev->n_rxq, w->n_desc, w->stamp);
    }
    ovs_mutex_unlock(&dev->mutex);
    return ok ? 0 : ENOMEM;
}

/* --- packets from the port ------------------------------------------------------- */

static struct netdev_rxq *
synth_rxq_alloc(void)
{
    return xzalloc(sizeof(struct netdev_rxq));
}

static int
synth_rxq_construct(struct netdev_rxq *rxq OVS_UNUSED)
{
    return 0;
}

static void
synth_rxq_destruct(struct netdev_rxq *rxq OVS_UNUSED)
{
}

static void
synth_rxq_dealloc(struct netdev_rxq *rxq)
{
    free(rxq);
}

static int
synth_rxq_recv(struct netdev_rxq *rxq, struct dp_packet_batch *batch, int *qfill)
{
    struct netdev_synth *dev = netdev_synth_cast(rxq->netdev);
    struct synth_queue *q = dev->queues ? &dev->queues[rxq->queue_id] : NULL;
    uint64_t rate;

    atomic_read_relaxed(&dev->rate, &rate);
    if (!q || !q->buffers) {
        return EAGAIN;
    }
    if (rate == SYNTH_STOPPED) {
        synth_queue_stop(q);
        return EAGAIN;
    }
    batch->count = synth_queue_burst(q, rate, batch->packets, NETDEV_MAX_BURST);
    if (!batch->count) {
        return EAGAIN;
    }
    dp_packet_batch_init_packet_fields(batch);
    if (qfill) {
        *qfill = -ENOTSUP;
    }
    return 0;
}

static void
synth_rxq_wait(struct netdev_rxq *rxq)
{
    struct netdev_synth *dev = netdev_synth_cast(rxq->netdev);
    uint64_t rate;

    atomic_read_relaxed(&dev->rate, &rate);
    if (dev->queues && dev->queues[rxq->queue_id].buffers && rate != SYNTH_STOPPED) {
        poll_immediate_wake();
    }
}

static int
synth_rxq_drain(struct netdev_rxq *rxq OVS_UNUSED)
{
    return 0;
}

/* --- packets to the port --------------------------------------------------------- */

static int
synth_send(struct netdev *netdev, int qid, struct dp_packet_batch *batch, bool concurrent_txq)
{
    struct netdev_synth *dev = netdev_synth_cast(netdev);
    uint64_t now = dev->stamp ? rte_rdtsc() : 0;
    struct synth_txq *txq;
    uint64_t bytes = 0, age;
    struct dp_packet *b;

    if (OVS_UNLIKELY(!dev->txqs)) {
        dp_packet_delete_batch(batch, true);
        return 0;
    }
    txq = &dev->txqs[qid];
    dp_packet_batch_apply_cutlen(batch);
    DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
        bytes += dp_packet_size(b);
        if (OVS_UNLIKELY(dev->stamp) && synth_queue_age(b, now, &age)) {
            synth_latency_add(&dev->latency, age);
        }
        if (OVS_UNLIKELY(!synth_buffers_give(b))) {
            dp_packet_delete(b);
        }
    }
    if (concurrent_txq) {
        unsigned long long before;

        atomic_add_relaxed(&txq->packets, batch->count, &before);
        atomic_add_relaxed(&txq->bytes, bytes, &before);
    } else {
        synth_bump(&txq->packets, batch->count);
        synth_bump(&txq->bytes, bytes);
    }
    return 0;
}

/* --- properties ------------------------------------------------------------------ */

static int
synth_get_numa_id(const struct netdev *netdev OVS_UNUSED)
{
    return ovs_numa_get_n_numas() > 1 ? NETDEV_NUMA_UNSPEC : 0;
}

static int
synth_set_etheraddr(struct netdev *netdev, const struct eth_addr mac)
{
    struct netdev_synth *dev = netdev_synth_cast(netdev);

    ovs_mutex_lock(&dev->mutex);
    dev->mac = mac;
    ovs_mutex_unlock(&dev->mutex);
    netdev_change_seq_changed(netdev);
    return 0;
}

static int
synth_get_etheraddr(const struct netdev *netdev, struct eth_addr *mac)
{
    struct netdev_synth *dev = netdev_synth_cast(netdev);

    ovs_mutex_lock(&dev->mutex);
    *mac = dev->mac;
    ovs_mutex_unlock(&dev->mutex);
    return 0;
}

static int
synth_get_mtu(const struct netdev *netdev, int *mtu)
{
    struct netdev_synth *dev = netdev_synth_cast(netdev);

    ovs_mutex_lock(&dev->mutex);
    *mtu = dev->mtu;
    ovs_mutex_unlock(&dev->mutex);
    return 0;
}

static int
synth_set_mtu(struct netdev *netdev, int mtu)
{
    struct netdev_synth *dev = netdev_synth_cast(netdev);

    ovs_mutex_lock(&dev->mutex);
    dev->mtu = mtu;
    ovs_mutex_unlock(&dev->mutex);
    netdev_change_seq_changed(netdev);
    return 0;
}

static int
synth_get_carrier(const struct netdev *netdev OVS_UNUSED, bool *carrier)
{
    *carrier = true;
    return 0;
}

static int
synth_update_flags(struct netdev *netdev, enum netdev_flags off, enum netdev_flags on,
                   enum netdev_flags *old)
{
    struct netdev_synth *dev = netdev_synth_cast(netdev);

    if ((off | on) & ~(NETDEV_UP | NETDEV_PROMISC)) {
        return EINVAL;
    }
    ovs_mutex_lock(&dev->mutex);
    *old = dev->flags;
    dev->flags = (dev->flags & ~off) | on;
    ovs_mutex_unlock(&dev->mutex);
    if (((off & *old) | (on & ~*old)) != 0) {
        netdev_change_seq_changed(netdev);
    }
    return 0;
}

static int
synth_get_status(const struct netdev *netdev OVS_UNUSED, struct smap *status)
{
    smap_add(status, "driver_name", "synth");
    return 0;
}

static int
synth_get_stats(const struct netdev *netdev, struct netdev_stats *stats)
{
    struct netdev_synth *dev = netdev_synth_cast(netdev);
    struct synth_counts c;

    ovs_mutex_lock(&dev->mutex);
    c = synth_port_counts(dev);
    ovs_mutex_unlock(&dev->mutex);
    /* All ones: not counted here. */
    memset(stats, 0xff, sizeof *stats);
    stats->rx_packets = c.rx_packets;
    stats->rx_bytes = c.rx_bytes;
    stats->rx_dropped = c.rx_missed;
    stats->tx_packets = c.tx_packets;
    stats->tx_bytes = c.tx_bytes;
    stats->rx_errors = stats->tx_errors = stats->tx_dropped = 0;
    return 0;
}

static const struct netdev_class synth_class = {
    .type = "synth",
    .is_pmd = true,
    .run = synth_run,
    .alloc = synth_alloc,
    .construct = synth_construct,
    .destruct = synth_destruct,
    .dealloc = synth_dealloc,
    .get_config = synth_get_config,
    .set_config = synth_set_config,
    .get_numa_id = synth_get_numa_id,
    .set_tx_multiq = synth_set_tx_multiq,
    .send = synth_send,
    .set_etheraddr = synth_set_etheraddr,
    .get_etheraddr = synth_get_etheraddr,
    .get_mtu = synth_get_mtu,
    .set_mtu = synth_set_mtu,
    .get_carrier = synth_get_carrier,
    .get_stats = synth_get_stats,
    .get_status = synth_get_status,
    .update_flags = synth_update_flags,
    .reconfigure = synth_reconfigure,
    .rxq_alloc = synth_rxq_alloc,
    .rxq_construct = synth_rxq_construct,
    .rxq_destruct = synth_rxq_destruct,
    .rxq_dealloc = synth_rxq_dealloc,
    .rxq_recv = synth_rxq_recv,
    .rxq_wait = synth_rxq_wait,
    .rxq_drain = synth_rxq_drain,
};

void
netdev_synth_register(void)
{
    netdev_register_provider(&synth_class);
    synth_show_register();
}
