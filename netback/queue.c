/* queue: one thread per vif queue.
 *
 * Theory of operation
 * -------------------
 * A turn of the thread moves a bounded number of packets each way: guest's
 * transmit ring to the lane's 'out' or to the receiver, lane's inbox to
 * guest's receive ring.  While turns find work the thread keeps going, and
 * gives way (where there is a receiver) after each turn's worth of it, so that
 * vifs that share a core alternate; after a few microseconds (poll_us) without any it arms both
 * rings' events, looks once more, and sleeps on its event channel and its wake
 * descriptor.  Each turn sends at most one notification per event channel.
 *
 * Back-pressure: if the switch is slow, 'out' fills up (or the receiver takes
 * its time) and requests stay in the guest's ring, where the guest's own
 * queueing sees them.  If the guest is slow, packets wait here up to the
 * inbox's memory bound and grx_expire_ms.  A guest that offers too few buffers
 * for the first packet during grx_stall_ms is stalled: everything queued is
 * dropped and producers drop at once, until it offers a whole packet's worth
 * again (XSA-392: one free slot must not reset the clock).
 *
 * A guest that sends events without work buys itself longer and longer
 * naps of this thread, nothing else (XSA-391 seen from our side). */
#include "queue_priv.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <syslog.h>

#define CTRL_BUDGET 16u
/* Wakeups in a row that found no work before naps begin, and the longest nap. */
#define IDLE_WAKES_FREE 16u
#define NAP_MAX_MS 10u
#define IDLE_TRIM_NS 100000000ull
/* Event channels of a queue: transmit, receive, control. */
#define MAX_PORTS 3u

/* --- calls from other threads ------------------------------------------- */

static bool
queue_serve_call(struct queue *q)
{
    struct pending_call *c = atomic_exchange(&q->call, NULL);

    if (!c) {
        return false;
    }
    c->result = c->fn(q, c->aux);
    sem_post(&c->done);
    return true;
}

int
queue_call(struct queue *q, int (*fn)(struct queue *, void *aux), void *aux)
{
    struct pending_call c = {.fn = fn, .aux = aux, .result = ESHUTDOWN};
    struct pending_call *mine = &c;

    sem_init(&c.done, 0, 0);
    pthread_mutex_lock(&q->call_lock);
    atomic_store(&q->call, &c);
    inbox_wake(&q->lane->in);
    /* A thread that ended before it saw the call leaves it to us. */
    if (atomic_load(&q->alive) || !atomic_compare_exchange_strong(&q->call, &mine, NULL)) {
        while (sem_wait(&c.done)) {
        }
    }
    pthread_mutex_unlock(&q->call_lock);
    sem_destroy(&c.done);
    return c.result;
}

/* --- guest to switch ------------------------------------------------------ */

static bool
out_has_room(struct lane *l)
{
    return spsc_space(&l->out, QUEUE_BURST) >= QUEUE_BURST &&
           atomic_load_explicit(&l->out_bytes, memory_order_relaxed) < LANE_OUT_BYTES;
}

/* As out_has_room(), asking to be woken when there is none. */
static bool
out_has_room_or_wait(struct lane *l)
{
    if (out_has_room(l)) {
        return true;
    }
    atomic_store_explicit(&l->out_blocked, true, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    return out_has_room(l);
}

void
queue_give_up(struct queue *q, const char *which)
{
    q->dead = true;
    vif_log(q->vif, LOG_ERR, "queue %u: %s ring is broken, vif switched off", q->id, which);
    vif_broken(q->vif);
}

static void
to_out(struct queue *q, struct rte_mbuf **pkts, unsigned n)
{
    size_t bytes = 0;

    for (unsigned i = 0; i < n; i++) {
        bytes += pkt_footprint(pkts[i]);
    }
    atomic_fetch_add_explicit(&q->lane->out_bytes, bytes, memory_order_relaxed);
    spsc_push(&q->lane->out, (void **)pkts, n);
    vif_rx_announce(q->vif);
}

static bool
guest_to_lane(struct queue *q, bool *notify)
{
    struct rte_mbuf *pkts[QUEUE_BURST];

    if (!out_has_room(q->lane)) {
        return false;
    }
    /* Large frames fill the bound with fewer packets than a burst. */
    size_t room = LANE_OUT_BYTES - atomic_load_explicit(&q->lane->out_bytes, memory_order_relaxed);
    unsigned limit = room / (q->pool.large_room / 4) + 1;
    int n = gtx_burst(&q->gtx, pkts, limit < QUEUE_BURST ? limit : QUEUE_BURST, notify);
    if (n < 0) {
        queue_give_up(q, "transmit");
        return false;
    }
    if (n) {
        to_out(q, pkts, n);
        lane_moved(q->vif, q->lane, false);
    }
    /* Extra-info-only requests and errors are work, too. */
    return n > 0 || *notify;
}

/* A turn's share, handed over at once: the switch works best on long bursts. */
static bool
guest_to_receiver(struct queue *q, bool *notify)
{
    const struct netback_config *c = &q->vif->nb->config;
    struct rte_mbuf *pkts[NETBACK_TURN_MAX];
    unsigned n = 0, asked;
    int got;

    q->gtx.turn_left = c->turn_bytes;
    do {
        asked = c->turn_packets - n < QUEUE_BURST ? c->turn_packets - n : QUEUE_BURST;
        got = gtx_burst(&q->gtx, pkts + n, asked, notify);
        n += got > 0 ? got : 0;
    } while (got == (int)asked && n < c->turn_packets && q->gtx.turn_left && !q->gtx.n_partial);
    queue_spend(q, n, c->turn_bytes - q->gtx.turn_left);
    if (got < 0) {
        queue_give_up(q, "transmit");
    }
    if (n) {
        lane_moved(q->vif, q->lane, false);
        q->receiver->burst(q->receiver_ctx, pkts, n);
        gtx_settle(&q->gtx, notify);
    }
    return n > 0 || *notify;
}

static bool
from_guest(struct queue *q, bool *notify)
{
    return q->receiver ? guest_to_receiver(q, notify) : guest_to_lane(q, notify);
}

void
queue_change_receiver(struct queue *q, const struct netback_receiver *receiver, void *aux)
{
    struct rte_mbuf *pkts[NETBACK_MAX_BURST];
    unsigned n;

    if (q->receiver) {
        q->receiver->stop(q->receiver_ctx);
    }
    q->receiver = receiver;
    q->gtx.turn_left = SIZE_MAX;
    q->gtx.may_defer = receiver && receiver->takes_partial;
    if (receiver) {
        q->receiver_ctx = receiver->start(aux, q->id);
        while ((n = netback_rx_burst(q->vif, q->id, pkts, NETBACK_MAX_BURST)) > 0) {
            receiver->burst(q->receiver_ctx, pkts, n);
        }
    }
}

/* --- control ring ----------------------------------------------------------- */

static bool
control(struct queue *q, bool *notify)
{
    int n = ctrl_run(&q->ctrl, CTRL_BUDGET, notify);

    if (n < 0) {
        queue_give_up(q, "control");
        return false;
    }
    return n > 0;
}

/* --- the thread ------------------------------------------------------------ */

static void
notify_guest(struct queue *q, bool tx, bool rx, bool ctrl)
{
    const struct hv_ops *ops = q->vif->nb->hv->ops;

    if (tx || (rx && !q->split)) {
        ops->evtchn_notify(q->evtchns, q->tx_port);
        STAT_ADD(q->lane->stats.notifies, 1);
    }
    if (rx && q->split) {
        ops->evtchn_notify(q->evtchns, q->rx_port);
        STAT_ADD(q->lane->stats.notifies, 1);
    }
    if (ctrl) {
        ops->evtchn_notify(q->evtchns, q->ctrl_port);
    }
}

static bool
turn(struct queue *q)
{
    bool tx = false, rx = false, ctrl = false, busy = false;

    if (q->dead) {
        if (q->held) {
            queue_keep_waiting(q);
        } else {
            queue_drop_waiting(q, DROP_GRX_NOT_CONNECTED);
        }
        return false;
    }
    busy |= queue_to_guest(q, &rx);
    busy |= !q->dead && from_guest(q, &tx);
    if (q->has_ctrl && !q->dead) {
        busy |= control(q, &ctrl);
    }
    if (tx || rx || ctrl) {
        notify_guest(q, tx, rx, ctrl);
    }
    return busy;
}

/* --- on the way to another host ------------------------------------------------ */

static int
hold_here(struct queue *q, void *aux)
{
    RING_IDX first = q->gtx.ring.req_cons;
    bool tx = false;

    (void)aux;
    if (q->dead) {
        return 0;
    }
    /* The guest is paused; one that is not gets no more than a ring's worth. */
    while (q->gtx.ring.req_cons - first < RING_SLOTS && !q->dead && from_guest(q, &tx)) {
        notify_guest(q, tx, false, false);
        tx = false;
    }
    /* Nobody delivers past this. */
    lane_hold(q->lane);
    q->held = !q->dead;
    q->dead = true;
    lane_let_go(q->lane);
    queue_keep_waiting(q);
    return 0;
}

static int
release_here(struct queue *q, void *aux)
{
    (void)aux;
    if (q->held) {
        q->held = false;
        q->dead = false;
        atomic_store_explicit(&q->blocked_since_ns, 0, memory_order_relaxed);
    }
    return 0;
}

struct injection {
    struct rte_mbuf **pkts;
    unsigned n;
};

static int
inject_here(struct queue *q, void *injection)
{
    struct injection *i = injection;

    if (q->dead) {
        return ENOTCONN;
    }
    if (q->receiver) {
        q->receiver->burst(q->receiver_ctx, i->pkts, i->n);
    } else if (out_has_room(q->lane)) {
        to_out(q, i->pkts, i->n);
    } else {
        return EAGAIN;
    }
    return 0;
}

int
queue_inject(struct queue *q, struct rte_mbuf **pkts, unsigned n)
{
    struct injection i = {pkts, n};

    return queue_call(q, inject_here, &i);
}

int
queue_set_held(struct queue *q, bool held)
{
    return queue_call(q, held ? hold_here : release_here, NULL);
}

/* Arms every event and looks once more.  True if there is work after all. */
static bool
arm(struct queue *q)
{
    if (atomic_load(&q->stop) || atomic_load(&q->call)) {
        return true;
    }
    if (!inbox_empty(&q->lane->in)) {
        /* While another thread holds the lane, there is nothing that we could
         * do; it will wake us. */
        return !atomic_load_explicit(&q->lane->held, memory_order_relaxed);
    }
    if (q->dead) {
        return false;
    }
    bool work = false;
    if (!gtx_credit_wait(&q->gtx) && (q->receiver || out_has_room_or_wait(q->lane))) {
        work |= gtx_arm(&q->gtx);
    }
    work |= queue_arm_grx(q);
    if (q->has_ctrl) {
        work |= ctrl_arm(&q->ctrl);
    }
    return work;
}

/* How long to sleep at most, ns; 0: for ever. */
static uint64_t
sleep_limit(struct queue *q)
{
    const struct netback_config *c = &q->vif->nb->config;
    uint64_t now = nb_now(q->vif->nb), until = q->dead ? 0 : gtx_credit_wait(&q->gtx);

    uint64_t since = atomic_load_explicit(&q->blocked_since_ns, memory_order_relaxed);

    if (since && queue_first_waiting(q)) {
        uint64_t expires = queue_first_since(q) + c->grx_expire_ms * 1000000ull;
        uint64_t stalls = since + c->grx_stall_ms * 1000000ull;
        uint64_t first = (expires < stalls ? expires : stalls) + 1000000;
        until = !until || first < until ? first : until;
    }
    return !until ? 0 : until > now ? until - now : 1;
}

/* A guest that rings without a reason is heard less and less often. */
static void
nap_after_idle_wakes(struct queue *q)
{
    if (q->idle_wakes <= IDLE_WAKES_FREE) {
        return;
    }
    unsigned shift = q->idle_wakes - IDLE_WAKES_FREE;
    int ms = shift > 4 ? NAP_MAX_MS : 1 << (shift - 1);
    struct pollfd fd = {.fd = q->lane->in.wake_fd, .events = POLLIN};

    poll(&fd, 1, ms < (int)NAP_MAX_MS ? ms : (int)NAP_MAX_MS);
}

/* Waits.  A thread that slept for IDLE_TRIM_NS without work gives back the
 * buffers in its caches and what the receiver can spare, once. */
static void
doze(struct queue *q, struct pollfd fds[2])
{
    uint64_t limit = sleep_limit(q), ns = limit;

    if (!q->trimmed && (!ns || ns > IDLE_TRIM_NS)) {
        ns = IDLE_TRIM_NS;
    }
    struct timespec ts = {.tv_sec = ns / 1000000000u, .tv_nsec = ns % 1000000000u};
    if (!ppoll(fds, 2, ns ? &ts : NULL, NULL) && ns != limit) {
        pkt_pool_trim(&q->pool);
        if (q->receiver) {
            q->receiver->idle(q->receiver_ctx);
        }
        q->trimmed = true;
    }
    STAT_ADD(q->lane->stats.wakeups, 1);
}

static void
queue_sleep(struct queue *q)
{
    const struct hv_ops *ops = q->vif->nb->hv->ops;
    struct inbox *in = &q->lane->in;
    struct pollfd fds[2] = {
        {.fd = in->wake_fd, .events = POLLIN},
        {.fd = q->dead ? -1 : ops->evtchn_fd(q->evtchns), .events = POLLIN},
    };

    atomic_store_explicit(&in->asleep, true, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (!arm(q)) {
        if (q->receiver) {
            q->receiver->sleep(q->receiver_ctx);
        }
        nap_after_idle_wakes(q);
        doze(q, fds);
        /* Only the guest's own ringing counts against it. */
        q->idle_wakes += fds[1].revents && !fds[0].revents;
    }
    atomic_store_explicit(&in->asleep, false, memory_order_relaxed);
    eventfd_t ignored;
    if (fds[0].revents) {
        eventfd_read(in->wake_fd, &ignored);
    }
    if (fds[1].revents & POLLIN) {
        uint32_t ports[MAX_PORTS];
        /* Once; a storm would go on for ever. */
        ops->evtchn_take(q->evtchns, ports, MAX_PORTS);
    }
}

/* --- giving way ---------------------------------------------------------- */

/* Who gives way forfeits the rest of its time slice (sched_yield() of Linux 6.18), a
 * millisecond or more.  Among threads that all do so nobody notices.  But beside a
 * process that never does, a thread that gives way every few microseconds gets a
 * fiftieth of what is its due.  So who was let in again long after what our own
 * threads worked on that core in between has waited for a stranger, and works for as
 * long without giving way, if the kernel lets it: KEEP_MAX_NS at most, and divided
 * among those of ours that were let in in between, for they do the same. */
#define STRANGER_NS 1000000u
#define KEEP_MAX_NS 4000000u
#define KEEP_LASTS_NS (10 * KEEP_MAX_NS)
/* What seems to have been worked for longer was interrupted. */
#define TURN_LONG_NS 500000u

static struct core_share *
this_core(struct netback *nb)
{
    return &nb->cores[(unsigned)sched_getcpu() % NETBACK_CORES];
}

/* Until 'now' the thread has worked: for how long. */
static uint64_t
worked(struct queue *q, uint64_t now)
{
    uint64_t ran = now - q->let_in_ns;

    ran = ran < TURN_LONG_NS ? ran : TURN_LONG_NS;
    q->let_in_ns = now;
    atomic_fetch_add_explicit(&this_core(q->vif->nb)->ran_ns, ran, memory_order_relaxed);
    return ran;
}

static void
yield_core(struct queue *q, uint64_t now)
{
    struct core_share *core = this_core(q->vif->nb);
    uint64_t ran = atomic_load_explicit(&core->ran_ns, memory_order_relaxed);
    unsigned yields = atomic_fetch_add_explicit(&core->yields, 1, memory_order_relaxed) + 1;

    sched_yield();
    q->let_in_ns = nb_now(q->vif->nb);
    uint64_t took = q->let_in_ns - now;
    uint64_t ours = atomic_load_explicit(&core->ran_ns, memory_order_relaxed) - ran;
    if (took > ours + STRANGER_NS) {
        uint64_t theirs = took - ours;
        unsigned others = atomic_load_explicit(&core->yields, memory_order_relaxed) - yields;

        q->keep_ns = (theirs < KEEP_MAX_NS ? theirs : KEEP_MAX_NS) / (others + 1ull);
        q->keep_from_ns = q->let_in_ns;
    }
}

/* True if the thread may keep the core 'now'; 'ns' of it are spent. */
static bool
keeps_core(struct queue *q, uint64_t now, uint64_t ns)
{
    if (q->keep_ns && now - q->keep_from_ns > KEEP_LASTS_NS) {
        q->keep_ns = 0;
    }
    bool keeps = q->keep_ns;

    q->keep_ns -= ns < q->keep_ns ? ns : q->keep_ns;
    return keeps;
}

/* After a turn's share of work, in however many turns, it is the turn of
 * others on this core.  Without a receiver the switch has threads of its own,
 * and what we do at once it need not do in small pieces. */
static void
give_way(struct queue *q)
{
    const struct netback_config *c = &q->vif->nb->config;

    if (q->spent_packets < c->turn_packets && q->spent_bytes < c->turn_bytes) {
        return;
    }
    q->spent_packets = q->spent_bytes = 0;
    if (q->receiver) {
        uint64_t now = nb_now(q->vif->nb);

        if (!keeps_core(q, now, worked(q, now))) {
            yield_core(q, now);
        }
    }
}

/* True if a thread that found no work shall look again instead of sleeping. */
static bool
polls_on(struct queue *q, uint64_t *idle_since, uint64_t poll_ns)
{
    uint64_t now = nb_now(q->vif->nb);

    *idle_since = *idle_since ? *idle_since : now;
    if (now - *idle_since >= poll_ns || keeps_core(q, now, poll_ns)) {
        return false;
    }
    /* Whoever shares the core may be about to bring work. */
    worked(q, now);
    yield_core(q, now);
    return true;
}

/* --- the thread's life ------------------------------------------------------ */

void *
queue_main(void *q_)
{
    struct queue *q = q_;
    uint64_t poll_ns = q->vif->nb->config.poll_us * 1000ull;
    uint64_t idle_since = 0;

    queue_set_here(q);
    queue_change_receiver(q, q->first.receiver, q->first.aux);
    q->let_in_ns = nb_now(q->vif->nb);
    /* What an earlier process answered may never have been announced. */
    notify_guest(q, true, q->split, q->has_ctrl);
    while (!atomic_load_explicit(&q->stop, memory_order_acquire)) {
        queue_serve_call(q);
        if (turn(q)) {
            idle_since = 0;
            q->idle_wakes = 0;
            q->trimmed = false;
            give_way(q);
            continue;
        }
        if (q->idle_wakes == 0 && polls_on(q, &idle_since, poll_ns)) {
            continue;
        }
        idle_since = 0;
        worked(q, nb_now(q->vif->nb));
        queue_sleep(q);
        q->let_in_ns = nb_now(q->vif->nb);
    }
    queue_change_receiver(q, NULL, NULL);
    atomic_store(&q->alive, false);
    queue_serve_call(q);
    return NULL;
}
