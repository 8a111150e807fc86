/* What a port is asked about itself, and told of itself: address, MTU, carrier, flags, counters.
 * get_mtu() is asked by threads with packets and takes no lock. */
#include <config.h>

#include "netdev_netback_priv.h"

#include <errno.h>
#include <inttypes.h>

#include "openvswitch/vlog.h"
#include "ovs-numa.h"
#include "smap.h"

VLOG_DEFINE_THIS_MODULE(netdev_netback_state);

#define MTU_MIN 68
#define MTU_MAX 65000

/* --- properties ------------------------------------------------------------ */

int
netdev_netback_get_numa_id(const struct netdev *netdev OVS_UNUSED)
{
    /* Guests are not bound to nodes.  Only where there are several does that
     * deserve the log line that the datapath writes for it. */
    return ovs_numa_get_n_numas() > 1 ? NETDEV_NUMA_UNSPEC : 0;
}

int
netdev_netback_set_etheraddr(struct netdev *netdev, const struct eth_addr mac)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);

    ovs_mutex_lock(&dev->mutex);
    if (!eth_addr_equals(dev->mac, mac)) {
        dev->mac = mac;
        netdev_change_seq_changed(netdev);
    }
    ovs_mutex_unlock(&dev->mutex);
    return 0;
}

int
netdev_netback_get_etheraddr(const struct netdev *netdev, struct eth_addr *mac)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);

    ovs_mutex_lock(&dev->mutex);
    *mac = dev->mac;
    ovs_mutex_unlock(&dev->mutex);
    return 0;
}

int
netdev_netback_get_mtu(const struct netdev *netdev, int *mtu)
{
    *mtu = netdev_netback_mtu(netdev_netback_cast(netdev));
    return 0;
}

int
netdev_netback_set_mtu(struct netdev *netdev, int mtu)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);
    int error = 0;

    if (mtu < MTU_MIN || mtu > MTU_MAX) {
        VLOG_WARN("%s: MTU %d is out of range: use %d to %d", netdev_get_name(netdev), mtu, MTU_MIN,
                  MTU_MAX);
        return EINVAL;
    }
    ovs_mutex_lock(&dev->mutex);
    if (netdev_netback_mtu(dev) != mtu) {
        error = dev->vif ? netback_set_mtu(dev->vif, mtu) : 0;
        if (!error) {
            atomic_store_relaxed(&dev->mtu, mtu);
            netdev_change_seq_changed(netdev);
        }
    }
    ovs_mutex_unlock(&dev->mutex);
    return error;
}

int
netdev_netback_get_carrier(const struct netdev *netdev, bool *carrier)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);
    struct netback_status status = {.carrier = false};

    ovs_mutex_lock(&dev->mutex);
    if (dev->vif) {
        netback_status(dev->vif, &status);
    }
    ovs_mutex_unlock(&dev->mutex);
    *carrier = status.carrier;
    return 0;
}

long long int
netdev_netback_get_carrier_resets(const struct netdev *netdev)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);
    long long int n;

    ovs_mutex_lock(&dev->mutex);
    n = dev->carrier_resets;
    ovs_mutex_unlock(&dev->mutex);
    return n;
}

int
netdev_netback_update_flags(struct netdev *netdev, enum netdev_flags off, enum netdev_flags on,
                            enum netdev_flags *old)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);

    if ((off | on) & ~(NETDEV_UP | NETDEV_PROMISC)) {
        return EINVAL;
    }
    ovs_mutex_lock(&dev->mutex);
    *old = dev->flags;
    dev->flags = (dev->flags & ~off) | on;
    if (dev->flags != *old) {
        if (dev->vif) {
            netback_set_carrier(dev->vif, dev->flags & NETDEV_UP);
        }
        netdev_change_seq_changed(netdev);
    }
    ovs_mutex_unlock(&dev->mutex);
    return 0;
}

int
netdev_netback_get_status(const struct netdev *netdev, struct smap *smap)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);
    struct netback_status s;

    ovs_mutex_lock(&dev->mutex);
    smap_add(smap, "driver_name", "netback");
    if (dev->vif) {
        netback_status(dev->vif, &s);
        smap_add(smap, "present", s.present ? "true" : "false");
        smap_add(smap, "connected", s.connected ? "true" : "false");
        smap_add(smap, "carrier", s.carrier ? "true" : "false");
        smap_add_format(smap, "mac", ETH_ADDR_FMT, ETH_ADDR_BYTES_ARGS(s.mac));
        smap_add_format(smap, "guest_mtu", "%" PRIu16, s.mtu);
        smap_add_format(smap, "queues", "%u", s.n_queues);
        smap_add(smap, "static_grants", s.static_grants ? "true" : "false");
        smap_add(smap, "multicast_control", s.multicast_control ? "true" : "false");
        smap_add_format(smap, "connects", "%" PRIu64, s.connects);
    }
    ovs_mutex_unlock(&dev->mutex);
    return 0;
}

/* --- counters -------------------------------------------------------------- */

/* Of a guest's packets that went nowhere, those that broke the protocol. */
static bool
is_guest_error(enum drop_reason r)
{
    return r == DROP_GTX_BAD_SLOT || r == DROP_GTX_TOO_MANY_SLOTS || r == DROP_GTX_BAD_EXTRA ||
           r == DROP_GTX_BAD_GSO || r == DROP_GTX_BAD_GRANT || r == DROP_GTX_TOO_SHORT ||
           r == DROP_GTX_TOO_LONG;
}

static void
add_drops(const struct netback_stats *s, struct netdev_stats *stats)
{
    for (int r = 0; r < DROP_N_REASONS; r++) {
        if (is_guest_error(r)) {
            stats->rx_errors += s->drops[r];
        } else if (r == DROP_GTX_NO_BUFFER) {
            stats->rx_dropped += s->drops[r];
        } else if (r == DROP_GRX_BAD_GRANT) {
            stats->tx_errors += s->drops[r];
        } else {
            stats->tx_dropped += s->drops[r];
        }
    }
}

static void
read_counters(const struct netdev *netdev, struct netback_stats *s)
{
    struct netdev_netback *dev = netdev_netback_cast(netdev);

    memset(s, 0, sizeof *s);
    ovs_mutex_lock(&dev->mutex);
    if (dev->vif) {
        netback_stats(dev->vif, s);
    }
    ovs_mutex_unlock(&dev->mutex);
}

int
netdev_netback_get_stats(const struct netdev *netdev, struct netdev_stats *stats)
{
    struct netback_stats s;

    read_counters(netdev, &s);
    /* All ones: not counted here. */
    memset(stats, 0xff, sizeof *stats);
    stats->rx_packets = s.rx_packets;
    stats->rx_bytes = s.rx_bytes;
    stats->multicast = s.rx_multicast;
    stats->tx_packets = s.tx_packets;
    stats->tx_bytes = s.tx_bytes;
    stats->rx_errors = stats->rx_dropped = stats->tx_errors = stats->tx_dropped = 0;
    add_drops(&s, stats);
    return 0;
}

static void
add_counter(struct netdev_custom_stats *stats, const char *prefix, const char *name, uint64_t value)
{
    struct netdev_custom_counter *c = &stats->counters[stats->size++];

    snprintf(c->name, sizeof c->name, "%s%s", prefix, name);
    c->value = value;
}

int
netdev_netback_get_custom_stats(const struct netdev *netdev, struct netdev_custom_stats *stats)
{
    struct netback_stats s;
    size_t n = sizeof s / sizeof(uint64_t);

    read_counters(netdev, &s);
    stats->size = 0;
    stats->counters = xcalloc(n, sizeof *stats->counters);
#define X(name) add_counter(stats, "netback_", #name, s.name);
    NETBACK_COUNTERS(X)
#undef X
    for (int r = 0; r < DROP_N_REASONS; r++) {
        add_counter(stats, "drop_", drop_reason_name(r), s.drops[r]);
    }
    ovs_assert(stats->size == n);
    return 0;
}
