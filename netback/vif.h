/* vif: netback's inside, shared by its files.
 *
 * Three kinds of threads meet here:
 *
 *   xenbus thread  one; owns every vif's life: the store, connecting,
 *                  disconnecting, attaching, detaching.
 *   queue thread   one per connected queue; owns its rings, its buffers, its
 *                  static grants.  Queue 0's also runs the control ring.
 *   switch threads hand packets over through a lane and never touch a ring.
 *
 * A lane is a queue's two hand-over points with the switch.  Lanes live from
 * attach to detach, queues from connect to disconnect, so a switch thread
 * never meets a queue that is going away.
 *
 * A queue thread that is itself the switch (netback_set_receiver()) may go one
 * step further: if nothing waits in the inbox, it delivers into the other
 * guest's receive ring itself, while the packets and their buffers are in its
 * cache.  So may any other thread of the switch that asked for it
 * (netback_deliver_here()), so that the queue's need not be woken.  For that, a
 * receive ring belongs to whoever holds its lane.  Nobody waits for a lane that
 * is held but the control side: a packet goes to the inbox instead, and who lets
 * go of the lane wakes the queue's thread. */
#ifndef VIF_H
#define VIF_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "inbox.h"
#include "journal.h"
#include "keep.h"
#include "netback.h"
#include "ring.h"
#include "spsc.h"

struct xs_handle;

/* Packets a guest may have waiting for the switch, per queue. */
#define LANE_OUT_PACKETS 512u
#define LANE_OUT_BYTES (1u << 20)

struct lane {
    struct inbox in;                       /* switch to guest */
    struct spsc out;                       /* guest to switch */
    _Alignas(64) _Atomic size_t out_bytes; /* buffer memory in 'out' */
    _Atomic bool out_blocked;              /* the queue's thread waits for room in 'out' */
    struct queue_stats stats;              /* written by the queue's thread, survives it */

    _Alignas(64) _Atomic bool held;
    struct queue *queue;                /* NULL: not connected.  Who holds the lane has */
    struct queue_stats grx_stats;       /* these, and all of the queue's that grx uses */
    _Atomic uint64_t first_ns, last_ns; /* while watched; 0: none */
};

/* A packet moved, while watched. */
void lane_stamp(struct netback_vif *, struct lane *, bool to_guest);

static inline bool
lane_try_hold(struct lane *l)
{
    return !atomic_load_explicit(&l->held, memory_order_relaxed) &&
           !atomic_exchange_explicit(&l->held, true, memory_order_acquire);
}

int lanes_alloc(struct netback_vif *); /* ENOMEM, or what eventfd() fails with */
void lanes_free(struct netback_vif *);

/* Hands packets to the queues; any number. */
void vif_to_queues(struct netback_vif *, struct rte_mbuf **, unsigned n, unsigned n_queues);

/* For changes of what grx uses; sleeps while another thread delivers. */
void lane_hold(struct lane *);

/* For the queue's own thread, which need not be woken. */
static inline void
lane_release(struct lane *l)
{
    atomic_store_explicit(&l->held, false, memory_order_release);
}

static inline void
lane_let_go(struct lane *l)
{
    lane_release(l);
    /* The queue's thread says that it sleeps before it finds the lane held. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&l->in.bytes, memory_order_relaxed) ||
        atomic_load_explicit(&l->in.stalled, memory_order_relaxed)) {
        inbox_wake(&l->in);
    }
}

/* --- queue -------------------------------------------------------------- */

/* Where a queue's rings are, as the frontend wrote it. */
struct queue_refs {
    uint32_t tx_ref, rx_ref, tx_port, rx_port; /* tx_port == rx_port: not split */
};

struct queue_config {
    struct queue_refs refs;
    struct guest_features features;
    bool has_ctrl;
    uint32_t ctrl_ref, ctrl_port;
    unsigned n_queues;
    uint64_t rate_bytes, rate_usecs;
};

struct courier;
struct queue;
struct netback_vif;
struct vif_carried;
struct netback_receiver;

/* Maps the rings, binds the event channels; no thread yet.  On failure
 * returns a positive errno and says why. */
int queue_open(struct netback_vif *, unsigned id, const struct queue_config *, struct queue **,
               char *why, size_t why_size);
/* Maps again what the journal says the frontend had mapped; queue_ctrl_answered() settles it
 * first. */
void queue_replay(struct queue *, const struct journal *);
/* The control ring's rsp_prod (queue 0 with a control ring only). */
uint32_t queue_ctrl_answered(const struct queue *);
int queue_start(struct queue *);
/* Ends the thread, unmaps and unbinds everything, frees what was under way. */
void queue_close(struct queue *); /* accepts NULL */
/* Runs 'fn' on the queue's thread between two turns and returns its result;
 * ESHUTDOWN if the thread has ended. */
int queue_call(struct queue *, int (*fn)(struct queue *, void *aux), void *aux);
void queue_set_rate(struct queue *, uint64_t bytes, uint64_t usecs);
void queue_set_mtu(struct queue *, uint16_t mtu);
/* Takes over the vif's receiver, on the queue's thread; before queue_start()
 * without effect, for that does the same. */
void queue_set_receiver(struct queue *);
/* True on a queue's thread. */
bool queue_is_here(void);
/* True on one that has partial packets (ring.h) now. */
bool queue_has_partial(void);
/* Frees on a queue's thread, into its own stashes. */
void queue_free(struct rte_mbuf **, unsigned n);
/* Delivers from another queue's thread (no courier) or a courier's, which holds the
 * lane, as many of the packets as the guest has room for, from the first; returns how
 * many it consumed. */
unsigned queue_deliver(struct queue *, struct courier *, struct rte_mbuf **, unsigned n);
size_t queue_memory(struct queue *);
/* On hold the queue's thread touches no ring, and what waits for the guest is kept
 * (keep.h). */
int queue_set_held(struct queue *, bool held);
/* Hands packets to the switch, on the queue's thread; ENOTCONN, EAGAIN: not now,
 * they are the caller's still. */
int queue_inject(struct queue *, struct rte_mbuf **, unsigned n);
/* Whether static grants are mapped, or copied by grant (ring.h). */
void queue_set_static(struct queue *, bool mapped);

/* --- courier -------------------------------------------------------------- */

/* This thread's, which is no queue's, if it is to deliver such a burst itself, or NULL.
 * 'asleep': the queue's thread is. */
struct courier *courier_for(struct netback *, struct rte_mbuf *const *, unsigned n, bool asleep);
struct pkt_pool *courier_pool(struct courier *);
struct hv_grants *courier_grants(struct courier *);
/* When netback ends. */
void couriers_close(const struct netback *);

/* --- vif ---------------------------------------------------------------- */

struct netback_vif {
    struct netback *nb;
    _Atomic bool timed;       /* netback_watch(); read with each burst, like 'nb' */
    struct netback_vif *next; /* nb->vifs */
    uint16_t domid;
    uint32_t handle;

    /* xenbus thread only */
    bool watched;     /* frontend watch registered */
    bool dirty;       /* the toolstack or the switch changed something */
    bool front_dirty; /* the frontend did; it spends 'run_credit' */
    bool dynamic_mcast;
    bool foreign; /* in the store, but the kernel's backend's */
    int backend_state;
    uint64_t run_credit_at_ns; /* limits how often the guest can keep us busy */
    unsigned run_credit;
    unsigned log_credit;
    uint64_t log_refill_ns;
    char *frontend; /* its path in the store */
    struct queue *queues[NETBACK_MAX_QUEUES];
    unsigned n_open;
    uint64_t rate_bytes, rate_usecs;         /* as the queues have it */
    const struct netback_receiver *receiver; /* NULL: netback_rx_burst() */
    void *receiver_aux;

    /* xenbus thread writes, under nb->lock; others read under it */
    bool present;
    struct netback_vif_info info;

    /* from attach to detach */
    bool attached; /* xenbus thread */
    struct lane *lanes;
    unsigned n_lanes;
    struct journal *journal;

    /* any thread */
    _Atomic unsigned n_connected; /* queues that producers may feed */
    _Atomic bool poked;           /* the xenbus thread shall look at it */
    _Atomic bool broken;          /* a queue's thread gave up on its ring */
    _Atomic unsigned n_stalled;   /* queues */
    _Atomic unsigned n_static;    /* static grants mapped, all queues */
    _Atomic bool admin_up;
    _Atomic uint16_t mtu;
    _Atomic uint64_t mac; /* low 48 bits */
    _Atomic uint64_t seq, connects;
    _Atomic uint64_t drops[DROP_N_REASONS]; /* by producers */
    struct vif_keep keep;
    /* On another host, before it came here. */
    struct {
        _Atomic uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes;
    } before;
    struct vif_carried *carried; /* xenbus thread; for the next connection, or NULL */
    bool static_off;             /* xenbus thread; netback_static_grants() */
};

static inline void
lane_moved(struct netback_vif *v, struct lane *l, bool to_guest)
{
    if (atomic_load_explicit(&v->timed, memory_order_relaxed)) {
        lane_stamp(v, l, to_guest);
    }
}

/* A switch thread dropping what never reached a lane. */
void vif_drop(struct netback_vif *, struct rte_mbuf *, enum drop_reason);
void vif_drop_all(struct netback_vif *, struct rte_mbuf **, unsigned n, enum drop_reason);
/* A queue's thread reports that the guest stopped (or resumed) taking packets. */
void vif_set_stalled(struct netback_vif *, bool stalled);
/* A queue's thread gives up: the ring is broken.  The xenbus thread switches the vif off. */
void vif_broken(struct netback_vif *);
/* The switch shall look at its carrier, MAC and status. */
void vif_changed(struct netback_vif *);
/* A queue's thread has put packets into its lane: wakes netback_rx_wait(). */
void vif_rx_announce(struct netback_vif *);
/* The xenbus thread shall look at it. */
void vif_poke(struct netback_vif *);

/* xenbus thread only: */
struct connection {
    struct journal_connection ids;
    struct queue_config queue[NETBACK_MAX_QUEUES];
    unsigned n_queues;
    bool mcast_control;
};
int vif_connect(struct netback_vif *, const struct connection *, bool adopt, char *why,
                size_t why_size);
void vif_disconnect(struct netback_vif *);
void vif_sample_mcast(struct netback_vif *, bool enabled);
/* Takes up, and forgets, what netback_import() brought. */
void vif_apply_carried(struct netback_vif *);
int vif_attach(struct netback_vif *); /* allocates lanes and journal */
void vif_detach(struct netback_vif *);

/* --- the instance -------------------------------------------------------- */

/* What queues' threads have had of a core; queue.c: giving way. */
#define NETBACK_CORES 256u
struct core_share {
    _Alignas(64) _Atomic uint64_t ran_ns;
    _Atomic unsigned yields;
};

struct netback {
    struct netback_config config;
    struct hv *hv;
    pthread_t thread;
    struct xs_handle *xs; /* xenbus thread */
    int cmd_fd;           /* wakes the xenbus thread */
    int list_fd;

    pthread_mutex_t lock; /* guards 'vifs', 'calls', and what vif.h says */
    struct netback_vif *vifs;
    struct xenbus_call *calls;
    bool stopping;         /* under lock */
    _Atomic int gref_left; /* of config.gref_budget */

    /* netback_rx_wait(): a futex */
    _Alignas(64) _Atomic uint32_t rx_seq;
    _Atomic unsigned rx_sleepers;
    _Atomic uint32_t ticker_rests; /* a futex */
    _Atomic uint64_t tick_ns;
    _Atomic bool ticker_stop;
    pthread_t ticker;

    struct core_share cores[NETBACK_CORES]; /* by the core's number, modulo */
};

/* Runs 'fn' on the xenbus thread and returns its result. */
int xenbus_call(struct netback *, int (*fn)(struct netback *, void *aux), void *aux);
void xenbus_kick(struct netback *);
void *xenbus_main(void *nb);
/* Returns once the vifs that were there before us are listed. */
void xenbus_wait_started(struct netback *);
/* Ends sleeps of netback_rx_wait(); rests while nobody sleeps. */
void *netback_ticker(void *nb);
/* Takes every vif to Closed, as on an orderly end with 'close_vifs'. */
int xenbus_close_all(struct netback *, void *);

/* Logs for a vif, at most ten lines in five seconds each. */
void vif_log(struct netback_vif *, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void netback_log(struct netback *, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static inline uint64_t
nb_now(const struct netback *nb)
{
    return nb->hv->ops->now_ns(nb->hv);
}

#endif
