/* synth_port: a port of type "synth" as its two files know it: netdev_synth.c
 * (the network device) and synth_show.c (commands). */
#ifndef SYNTH_PORT_H
#define SYNTH_PORT_H

#include <stdbool.h>
#include <stdint.h>

#include "netdev-provider.h"
#include "openvswitch/list.h"
#include "ovs-thread.h"
#include "smap.h"
#include "synth_flows.h"
#include "synth_latency.h"
#include "synth_queue.h"

#define SYNTH_RATE_MAX 1000000000u

struct synth_txq {
    atomic_ullong packets, bytes;
} __attribute__((aligned(CACHE_LINE_SIZE)));

struct synth_counts {
    uint64_t rx_packets, rx_bytes, rx_missed, tx_packets, tx_bytes;
};

/* What set_config() asks for and reconfigure() does. */
struct synth_wanted {
    unsigned n_rxq, n_txq, n_desc;
    bool stamp;
    struct synth_flows flows;
};

struct netdev_synth {
    struct netdev up;

    /* For polling threads, without a lock: these only change in reconfigure()
     * and destruct(), when the datapath keeps its threads off. */
    struct synth_queue *queues; /* up.n_rxq of them, or NULL */
    struct synth_txq *txqs;     /* up.n_txq of them, or NULL */
    struct synth_flows flows;
    bool stamp;

    atomic_uint64_t rate; /* packets a second, SYNTH_UNLIMITED or SYNTH_STOPPED */
    struct synth_latency latency;

    struct ovs_list node; /* in the list of all, under its mutex */
    struct ovs_mutex mutex;
    struct smap options OVS_GUARDED; /* as given */
    bool configured OVS_GUARDED;     /* options were given */
    struct synth_wanted wanted OVS_GUARDED;
    struct synth_counts gone OVS_GUARDED; /* of queues before the last reconfigure() */
    struct eth_addr mac OVS_GUARDED;
    int mtu OVS_GUARDED;
    enum netdev_flags flags OVS_GUARDED;
};

struct synth_counts synth_port_counts(const struct netdev_synth *dev) OVS_REQUIRES(dev->mutex);

/* synth_show.c: the list of all ports, and ovs-appctl's commands for them. */
void synth_show_add(struct netdev_synth *);
void synth_show_remove(struct netdev_synth *);
void synth_show_register(void);

#endif
