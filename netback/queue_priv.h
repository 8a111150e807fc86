/* queue_priv: a queue's inside, shared by queue.c (its thread),
 * queue_deliver.c (what goes to the guest), queue_open.c (its life) and
 * queue_ctrl.c (its control ring).
 *
 * Threads: everything belongs to the queue's thread while that runs, but
 * for the fields at the end. */
#ifndef QUEUE_PRIV_H
#define QUEUE_PRIV_H

#include "vif.h"

#define QUEUE_BURST 64u
#define QUEUE_MARKS 32u
/* A receiver is a whole switch.  Only what is touched takes memory. */
#define QUEUE_STACK_BYTES (512u * 1024)
#define QUEUE_STACK_USED (16u * 1024) /* an idle one */

struct pending_call {
    int (*fn)(struct queue *, void *aux);
    void *aux;
    int result;
    sem_t done;
};

struct queue {
    struct netback_vif *vif;
    struct lane *lane;
    unsigned id;

    struct hv_grants *grants;
    struct hv_evtchns *evtchns;
    void *tx_page, *rx_page, *ctrl_page;
    uint32_t tx_port, rx_port, ctrl_port;
    bool split, has_ctrl;

    struct ring_port port;     /* of gtx */
    struct ring_port grx_port; /* buffers and grant handle are of who holds the lane */
    struct gtx gtx;
    struct grx grx; /* this, grx_port and grefs: the lane's holder only */
    struct ctrl ctrl;
    struct gref_table grefs;
    struct pkt_pool pool;

    const struct netback_receiver *receiver; /* NULL: the lane's 'out' */
    void *receiver_ctx;
    struct {
        const struct netback_receiver *receiver;
        void *aux;
    } first; /* what the thread starts with; written before it runs */
    /* Moved either way since the thread last gave way. */
    unsigned spent_packets;
    size_t spent_bytes;
    uint64_t let_in_ns;    /* what it worked until then is in core_share */
    uint64_t keep_ns;      /* what it may work, or not poll, without giving way */
    uint64_t keep_from_ns; /* since then */

    /* taken from the inbox and not delivered: 'burst' first, then the chain */
    struct rte_mbuf *burst[QUEUE_BURST];
    unsigned burst_at, burst_n;
    struct rte_mbuf *chain_head, *chain_tail; /* 'tail' holds if 'head' does */
    /* When they were taken: mark m says when the packets numbered up to
     * m.end were.  Of packets taken when all marks are in use, the time of those
     * before them is told, which is too early. */
    struct {
        uint64_t ns;
        uint32_t end;
    } marks[QUEUE_MARKS];
    unsigned mark_first, n_marks;
    uint32_t n_taken, n_left;          /* running numbers */
    _Atomic uint64_t blocked_since_ns; /* by who holds the lane; 0: the guest takes packets */
    _Atomic bool dead;                 /* ring broken or on hold: serves calls only */
    bool held;
    unsigned idle_wakes; /* in a row, by the guest */
    bool trimmed;        /* gave its cached buffers back */

    pthread_t thread;
    bool started;
    _Atomic bool stop;
    _Atomic bool alive;
    pthread_mutex_t call_lock; /* one caller at a time */
    _Atomic(struct pending_call *) call;
};

/* The thread. */
void *queue_main(void *queue);
/* On the thread: the previous receiver's end, then the vif's current one. */
void queue_change_receiver(struct queue *, const struct netback_receiver *, void *aux);
/* The control ring's effects; 'aux' of the hooks is queue 0. */
extern const struct ctrl_hooks queue_ctrl_hooks;
/* Takes 'n' of the host-wide budget of static grants; false if it has less. */
bool queue_gref_budget_take(struct netback *, unsigned n);
/* Drops all that waits for the guest. */
void queue_drop_waiting(struct queue *, enum drop_reason);
void queue_set_stalled(struct queue *, bool stalled);
/* A ring is broken: the vif is switched off.  Any thread. */
void queue_give_up(struct queue *, const char *which);

/* Keeps all that waits for the guest (keep.h). */
void queue_keep_waiting(struct queue *);

/* Says whose thread this is. */
void queue_set_here(struct queue *);
/* Delivers as much of what waits as the guest may send in a turn.  True if the
 * guest took something. */
bool queue_to_guest(struct queue *, bool *notify);
/* Asks for an event when the guest has room for what waits.  True if it has. */
bool queue_arm_grx(struct queue *);
/* The first packet that waits for the guest, or NULL; and since when. */
struct rte_mbuf *queue_first_waiting(struct queue *);
uint64_t queue_first_since(const struct queue *);

static inline void
queue_spend(struct queue *q, unsigned packets, size_t bytes)
{
    q->spent_packets += packets;
    q->spent_bytes += bytes;
}

#endif
