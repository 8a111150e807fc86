/* netback: the backend of Xen's paravirtual network interface (io/netif.h).
 *
 * What a switch sees of it.  A vif is known by its frontend's domain id and
 * its handle.  Each connected queue has one thread, "vif1.0-q0", that copies
 * packets between the guest's rings and the switch:
 *
 *   guest's TX ring > queue thread > netback_rx_burst() > switch
 *   guest's TX ring > queue thread > netback_receiver.burst(), on that thread
 *   switch > netback_tx_burst() > queue's inbox > queue thread > guest's RX ring
 *
 * The first is for a switch whose own threads poll; the second, chosen by
 * netback_set_receiver(), runs the switch on the queue's thread.  "rx" and
 * "tx" are the switch's, "gtx" and "grx" the guest's.
 *
 * Packets are single-segment mbufs.  Offloads travel in the mbuf as DPDK
 * defines them: RTE_MBUF_F_TX_{TCP,UDP}_CKSUM with TX_IPV4/6 for a blank
 * checksum, RTE_MBUF_F_TX_TCP_SEG with tso_segsz for a segment to be cut,
 * RTE_MBUF_F_RX_L4_CKSUM_GOOD for a validated one.
 *
 * Threads: netback_start/stop/attach/detach and the listings from any one
 * thread at a time.  netback_rx_burst and netback_set_receiver: one thread per
 * (vif, queue) and per vif at a time.
 * netback_tx_burst: any number of threads.  Everything else: any thread.
 * Ownership of packets only moves forward: a burst handed over is consumed. */
#ifndef NETBACK_H
#define NETBACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drop.h"

struct rte_mbuf;
struct rte_mempool;
struct netback;
struct netback_vif;

#define NETBACK_MAX_QUEUES 8u
#define NETBACK_MAX_BURST 32u
/* What a receiver gets at once, at most. */
#define NETBACK_TURN_MAX 128u
/* Bytes in front of each frame, for tags and tunnel headers.  What needs more
 * (Geneve with much metadata) is copied by the switch. */
#define NETBACK_HEADROOM 256u
/* Largest frame handed to the switch.  OVS keeps sizes in 16 bits, so it and
 * all that is put in front of it must stay below 65,536: the largest header
 * over IPv4 is Geneve's, 302 bytes.  Linux's usual largest segment, 45 * 1448
 * bytes and 66 of headers, fits. */
#define NETBACK_FRAME_MAX 65232u

/* Strings are kept by reference and must outlive netback. */
struct netback_config {
    const char *hv;            /* "xen" or "local:DIR" (hv.h) */
    const char *journal_dir;   /* control-state journals; must outlive the process */
    struct rte_mempool *small; /* data room >= NETBACK_HEADROOM + 1,536 */
    struct rte_mempool *large; /* data room >= NETBACK_HEADROOM + NETBACK_FRAME_MAX */
    /* Frees a packet that came in through netback_tx_burst() with a pool
     * other than the two above (or NULL).  Called on queue threads. */
    void (*free_foreign)(struct rte_mbuf *);
    unsigned max_queues;     /* offered to guests; 0: min(cores, NETBACK_MAX_QUEUES) */
    unsigned gref_budget;    /* static grant mappings, host-wide; 0: 65,536 */
    unsigned gref_per_queue; /* of those, at most per queue; 0: 1,024 */
    size_t grx_queue_bytes;  /* buffer memory queued to a guest per queue; 0: 4 MiB */
    unsigned grx_expire_ms;  /* a packet waits at most this long; 0: 10,000 */
    unsigned grx_stall_ms;   /* no buffers for this long: stalled, carrier off; 0: 60,000 */
    unsigned poll_us;        /* a queue polls this long before it sleeps; 0: 5 */
    /* A guest's share of a turn with a receiver: packets, at most
     * NETBACK_TURN_MAX (0: 128), and bytes (0: 256 KiB; the packet that
     * crosses the mark is the last). */
    unsigned turn_packets;
    size_t turn_bytes;
    /* Log sink; NULL: stderr.  Rate-limited per source by netback. */
    void (*log)(int syslog_level, const char *msg);
};

/* Opens the hypervisor seam, adopts vifs that an earlier process served, and
 * starts the xenbus thread.  On failure returns a positive errno and leaves
 * an explanation in 'why'. */
int netback_start(const struct netback_config *, struct netback **, char *why, size_t why_size);
/* Disconnects nothing that the guest would see: rings stay with the guests, so that a
 * successor can adopt them.  With 'close_vifs' every vif goes to Closed first. */
void netback_stop(struct netback *, bool close_vifs); /* accepts NULL */

/* --- a vif as a port of the switch ------------------------------------ */

/* Claims vif 'domid'.'handle' for a port; it need not exist yet.  A vif
 * connects only while it is attached.  EBUSY if it is attached already. */
int netback_attach(struct netback *, uint16_t domid, uint32_t handle, struct netback_vif **);
void netback_detach(struct netback_vif *); /* accepts NULL; ends its threads, frees its packets */

/* Up to 'n' packets from the guest's queue 'q' (below netback_n_queues()).
 * Returns how many.  Frames are at most NETBACK_FRAME_MAX bytes and at least
 * 14, with NETBACK_HEADROOM in front. */
unsigned netback_rx_burst(struct netback_vif *, unsigned q, struct rte_mbuf **, unsigned n);
/* Sleeps until any guest has sent something, about 'ns' at most.  A polling thread
 * keeps '*seen' (0 at first), and polls all its queues between two calls; a
 * call returns at once if something came since the last one. */
void netback_rx_wait(struct netback *, uint32_t *seen, uint64_t ns);
/* True if a burst on queue 'q' would return something. */
bool netback_rx_ready(const struct netback_vif *, unsigned q);

/* Takes a guest's packets on the thread of the queue that they came from.  All
 * calls of one queue come from its thread, which lives as long as the guest is
 * connected; between two of them it may be preempted or serve the guest, so
 * what they leave behind must not be in anybody's way.  They may take locks
 * that nobody holds across a call into netback. */
struct netback_receiver {
    /* The first call for queue 'q'; what it returns is passed to the others. */
    void *(*start)(void *aux, unsigned q);
    /* 1..NETBACK_TURN_MAX packets, as netback_rx_burst() describes them; consumes. */
    void (*burst)(void *ctx, struct rte_mbuf **, unsigned n);
    /* About to sleep until there is work. */
    void (*sleep)(void *ctx);
    /* Has slept for a while (0.1 s) and will go on: memory may go.  Once a sleep. */
    void (*idle)(void *ctx);
    /* The last call: the thread ends, or the receiver is replaced. */
    void (*stop)(void *ctx);
    bool takes_partial; /* netback_complete() */
};
/* From now on the guest's packets go to 'receiver', which must outlive its
 * use, or, with NULL (as after attach), wait for netback_rx_burst() again.
 * Packets that wait already go first.  When it returns, no call of the previous
 * receiver is under way and none will come.  While there is a receiver nobody
 * may call netback_rx_burst().  Not from a receiver's call. */
void netback_set_receiver(struct netback_vif *, const struct netback_receiver *, void *aux);

/* Packets that a receiver with 'takes_partial' gets may be partial: of a large frame with a blank
 * checksum only the headers are there (with all lengths as if it were whole), because
 * netback_tx_burst() on the same thread can take the rest from the sender's own
 * pages.  Whoever wants to read more, or lets a packet leave the thread or
 * outlive the burst, completes it first: these drop (and count) what cannot be,
 * and return how many are left.  On other threads none is partial. */
bool netback_is_partial(const struct rte_mbuf *);
unsigned netback_complete(struct rte_mbuf **, unsigned n);

/* Hands packets to the guest and consumes them all, by drop if need be.
 * Queues are chosen by the guest's hash settings. */
void netback_tx_burst(struct netback_vif *, struct rte_mbuf **, unsigned n);
/* What netback_tx_burst() on this thread puts into the guest's ring itself, if nothing
 * waits there, instead of waking the queue's thread.  At first nothing, and a thread that
 * has changed that goes back to it before it ends. */
enum netback_deliver {
    NETBACK_DELIVER_NONE,
    NETBACK_DELIVER_LITTLE, /* what costs less than waking that thread, if it sleeps */
    NETBACK_DELIVER_ALL,    /* that, and all that is more */
};
void netback_deliver_here(enum netback_deliver);
/* Gives back the buffers it has at hand for that. */
void netback_deliver_trim(void);

/* Queues the switch must serve with netback_rx_burst(): fixed while attached. */
unsigned netback_n_queues(const struct netback_vif *);

struct netback_status {
    bool present;   /* has a directory in the store */
    bool connected; /* rings mapped */
    bool carrier;   /* connected and not stalled */
    uint8_t mac[6]; /* the guest's; zero if unknown */
    uint16_t mtu;   /* what the guest may send, L3 bytes */
    unsigned n_queues;
    bool static_grants; /* some mapped */
    bool multicast_control;
    uint64_t connects; /* carrier changes to up */
};
void netback_status(const struct netback_vif *, struct netback_status *);
/* Administrative state of the port, shown to the guest as carrier. */
void netback_set_carrier(struct netback_vif *, bool up);
/* L3 bytes, 68..65,000.  Frames above are dropped unless segmentable. */
int netback_set_mtu(struct netback_vif *, uint16_t mtu);
/* Changes whenever anything of the status but 'mtu' changes. */
uint64_t netback_change_seq(const struct netback_vif *);

/* clang-format off */
#define NETBACK_COUNTERS(X) \
    X(rx_packets) X(rx_bytes) X(rx_multicast) X(rx_gso) X(rx_csum_blank) \
    X(tx_packets) X(tx_bytes) X(tx_gso) X(tx_csum_blank) X(grant_copies) \
    X(grant_copy_segs) X(static_copies) X(notifies) X(wakeups) X(errors_responded) \
    X(rate_limited) X(ctrl_requests) X(stalls) X(csum_computed) X(segments_cut) \
    X(tx_one_copy)
/* clang-format on */

struct netback_stats {
#define X(name) uint64_t name;
    NETBACK_COUNTERS(X)
#undef X
    uint64_t drops[DROP_N_REASONS];
};
/* Sums over all queues since attach. */
void netback_stats(const struct netback_vif *, struct netback_stats *);

/* --- on the way to another host (docs/vif-move.md) ---------------------- */

/* From now on, if 'on', notes when packets move: one clock reading a burst.  Forgets
 * what it noted before. */
void netback_watch(struct netback_vif *, bool on);
/* Off for as long as the guest's memory is copied to another host: static grants are
 * not mapped but copied by grant, so that the hypervisor notes what is written. */
void netback_static_grants(struct netback_vif *, bool on);
/* The guest is paused.  Takes what it has sent (a ring's worth at most), lets
 * what is in flight finish, and touches its memory no more.  Frames for it are kept
 * from now on, up to config.grx_queue_bytes, also when its vif is closed or goes.
 * ENOTCONN: no port has it.  Repeated: no effect. */
int netback_hold(struct netback_vif *);
/* Ends that, or a wait: what was kept is delivered first, in order. */
int netback_release(struct netback_vif *);
/* The guest is not there yet: frames for it are kept until it connects, and
 * delivered then.  EISCONN: it is there. */
int netback_keep(struct netback_vif *);
/* Takes kept frames, the oldest first; returns how many.  Any one thread. */
unsigned netback_kept_take(struct netback_vif *, struct rte_mbuf **, unsigned n);
/* Readable while there are some; valid from the hold (or wait) to detach. */
int netback_kept_fd(const struct netback_vif *);
/* Hands over frames that another host kept, to be delivered before those that
 * netback_tx_burst() brings; consumes. */
void netback_feed(struct netback_vif *, struct rte_mbuf **, unsigned n);

/* Lets the switch have frames as if the guest had sent them: at most
 * NETBACK_MAX_BURST.  ENOTCONN: it is not connected; the packets are the caller's
 * still. */
int netback_inject(struct netback_vif *, struct rte_mbuf **, unsigned n);

/* What the guest has asked its backend for (multicast list, hash settings), in a
 * form of netback's own (carry.c); returns its length, 0 if no port has the vif. */
#define NETBACK_CARRY_MAX 8636u
size_t netback_export(struct netback_vif *, uint8_t buf[NETBACK_CARRY_MAX]);
/* The same from another host, hostile, for the connection that comes next.
 * EINVAL: it is not that; EISCONN, ENOTCONN: too late, too early. */
int netback_import(struct netback_vif *, const uint8_t *, size_t len);
bool netback_import_check(const uint8_t *, size_t len);
/* Lets the vif's counts of packets and bytes go on from there; until detach. */
void netback_continue_stats(struct netback_vif *, const struct netback_stats *);

struct netback_move_status {
    int state; /* 0, 1: waits for the guest, 2: on hold */
    /* While watched, in the hypervisor's clock (CLOCK_MONOTONIC); 0: none. */
    uint64_t last_ns;  /* to the guest */
    uint64_t first_ns; /* from or to the guest */
    uint64_t held_ns;  /* when the hold or wait began */
    /* Frames, since the hold or wait began. */
    uint64_t kept, fed, taken, dropped;
    size_t bytes; /* of buffers, kept now */
};
void netback_move_status(struct netback_vif *, struct netback_move_status *);

/* --- plugging --------------------------------------------------------- */

/* A vif as the toolstack describes it in the store.  Strings are empty where
 * the toolstack said nothing. */
struct netback_vif_info {
    uint16_t domid;
    uint32_t handle;
    char bridge[64]; /* as written: "xenbr0", "xenbr0.100", "xenbr0.100:200:300" */
    char mac[18];
    char vif_uuid[40];     /* xs-vif-uuid */
    char vm_uuid[40];      /* xs-vm-uuid */
    char network_uuid[40]; /* xs-network-uuid */
    char vlan_mode[24];    /* backend key "vlan-mode": access, trunk, ... */
    char vlan_tag[8];      /* backend key "vlan" */
    char vlan_trunks[256]; /* backend key "trunks": "10,20,30" */
};
/* Fills at most 'cap' entries and returns how many vifs there are. */
size_t netback_list(struct netback *, struct netback_vif_info *, size_t cap);
/* Readable after the list has changed; netback_list() clears it. */
int netback_list_fd(const struct netback *);

/* Bytes of memory the vif's own structures take now, buffers included. */
size_t netback_memory(const struct netback_vif *);

#endif
