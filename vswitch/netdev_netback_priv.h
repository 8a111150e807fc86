/* netdev_netback_priv: a port of type "netback" inside, shared by netdev_netback.c (its life,
 * its vif, its packets) and netdev_netback_state.c (what it is asked about itself).
 *
 * Threads: see the Theory of Operation in netdev_netback.c. */
#ifndef NETDEV_NETBACK_PRIV_H
#define NETDEV_NETBACK_PRIV_H

#include "netback.h"
#include "netdev-provider.h"
#include "netdev_netback.h"
#include "openvswitch/list.h"
#include "ovs-atomic.h"
#include "ovs-thread.h"
#include "util.h"

extern struct ovs_mutex netdev_netback_all_mutex; /* of the list of all ports */

struct vif_id {
    uint16_t domid;
    uint32_t handle;
};

struct netdev_netback {
    struct netdev up;
    struct ovs_list in_all OVS_GUARDED_BY(netdev_netback_all_mutex);

    /* Read without 'mutex': see the Theory of Operation. */
    ATOMIC(struct netback_vif *) live;
    atomic_int mtu; /* written under it */
    /* Set once the main loop has come round: the datapath polls a new port
     * before ofproto knows it, and would drop the guest's first packets. */
    atomic_bool known;

    struct ovs_mutex mutex OVS_ACQ_AFTER(netdev_netback_all_mutex);
    struct netback_vif *vif OVS_GUARDED;
    struct vif_move *move OVS_GUARDED;  /* of 'vif'; NULL: goes nowhere */
    struct vif_id wanted OVS_GUARDED;   /* valid once 'configured' */
    struct vif_id attached OVS_GUARDED; /* valid if 'vif' */
    bool configured OVS_GUARDED;
    unsigned requested_n_txq OVS_GUARDED;
    struct eth_addr mac OVS_GUARDED;
    enum netdev_flags flags OVS_GUARDED;
    const struct netback_receiver *receiver OVS_GUARDED; /* may be NULL */
    void *receiver_aux OVS_GUARDED;
    bool receiving OVS_GUARDED; /* 'vif' has it */

    /* What run() saw last. */
    uint64_t change_seq OVS_GUARDED;
    bool carrier OVS_GUARDED;
    long long int carrier_resets OVS_GUARDED;
    long long int reattach_at OVS_GUARDED; /* 0: nothing to retry */
};

static inline struct netdev_netback *
netdev_netback_cast(const struct netdev *netdev)
{
    ovs_assert(netdev_is_netback(netdev));
    return CONTAINER_OF(netdev, struct netdev_netback, up);
}

/* L3 bytes. */
static inline int
netdev_netback_mtu(const struct netdev_netback *dev)
{
    int mtu;

    atomic_read_relaxed(&CONST_CAST(struct netdev_netback *, dev)->mtu, &mtu);
    return mtu;
}

/* --- netdev_netback_state.c: of struct netdev_class -------------------------------------- */

int netdev_netback_get_numa_id(const struct netdev *);
int netdev_netback_set_etheraddr(struct netdev *, const struct eth_addr);
int netdev_netback_get_etheraddr(const struct netdev *, struct eth_addr *);
int netdev_netback_get_mtu(const struct netdev *, int *);
int netdev_netback_set_mtu(struct netdev *, int);
int netdev_netback_get_carrier(const struct netdev *, bool *);
long long int netdev_netback_get_carrier_resets(const struct netdev *);
int netdev_netback_update_flags(struct netdev *, enum netdev_flags off, enum netdev_flags on,
                                enum netdev_flags *old);
int netdev_netback_get_status(const struct netdev *, struct smap *);
int netdev_netback_get_stats(const struct netdev *, struct netdev_stats *);
int netdev_netback_get_custom_stats(const struct netdev *, struct netdev_custom_stats *);

#endif
