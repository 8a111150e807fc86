/* lane: where packets change hands between switch threads and queues (vif.h). */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vif.h"

/* Ticks cost as much as the sleeps they bound. */
#define TICK_MIN_NS 250000u

void
vif_drop(struct netback_vif *v, struct rte_mbuf *m, enum drop_reason reason)
{
    const struct netback_config *c = &v->nb->config;

    atomic_fetch_add_explicit(&v->drops[reason], 1, memory_order_relaxed);
    if (m->pool && (m->pool == c->small || m->pool == c->large)) {
        rte_pktmbuf_free(m);
    } else if (c->free_foreign) {
        c->free_foreign(m);
    } else {
        rte_pktmbuf_free(m);
    }
}

/* --- life -------------------------------------------------------------------- */

static void
drop_inbox(struct netback_vif *v, struct inbox *in)
{
    struct rte_mbuf *head, *last, *pkts[1 + INBOX_CARRIED_MAX];

    inbox_take(in, &head, &last);
    while (head) {
        struct rte_mbuf *next = inbox_next(head);
        unsigned n = inbox_unpack(head, pkts);

        for (unsigned i = 0; i < n; i++) {
            vif_drop(v, pkts[i], DROP_GRX_DETACHED);
        }
        head = next;
    }
}

void
lanes_free(struct netback_vif *v)
{
    for (unsigned i = 0; i < v->n_lanes; i++) {
        struct lane *l = &v->lanes[i];
        void *m;

        while (spsc_pop(&l->out, &m, 1)) {
            rte_pktmbuf_free(m);
        }
        /* A producer may have been faster than the end of the connection. */
        drop_inbox(v, &l->in);
        spsc_done(&l->out);
        if (l->in.wake_fd >= 0) {
            close(l->in.wake_fd);
        }
    }
    free(v->lanes);
    v->lanes = NULL;
    v->n_lanes = 0;
}

int
lanes_alloc(struct netback_vif *v)
{
    const struct netback_config *c = &v->nb->config;
    int error = posix_memalign((void **)&v->lanes, 64, c->max_queues * sizeof *v->lanes);

    if (error) {
        return error;
    }
    memset(v->lanes, 0, c->max_queues * sizeof *v->lanes);
    for (unsigned i = 0; i < c->max_queues; i++) {
        struct lane *l = &v->lanes[i];

        v->n_lanes = i + 1;
        l->in.bytes_max = c->grx_queue_bytes;
        l->in.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        error = l->in.wake_fd < 0 ? errno : spsc_init(&l->out, LANE_OUT_PACKETS);
        if (error) {
            lanes_free(v);
            return error;
        }
    }
    return 0;
}

/* --- from a guest's queues ------------------------------------------------- */

unsigned
netback_rx_burst(struct netback_vif *v, unsigned qid, struct rte_mbuf **pkts, unsigned n)
{
    struct lane *l = &v->lanes[qid];
    unsigned got = spsc_pop(&l->out, (void **)pkts, n);

    if (got) {
        size_t bytes = 0;
        for (unsigned i = 0; i < got; i++) {
            bytes += pkt_footprint(pkts[i]);
        }
        atomic_fetch_sub_explicit(&l->out_bytes, bytes, memory_order_relaxed);
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load_explicit(&l->out_blocked, memory_order_relaxed)) {
            atomic_store_explicit(&l->out_blocked, false, memory_order_relaxed);
            inbox_wake(&l->in);
        }
    }
    return got;
}

static long
futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
    return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

/* The sequence number moves with every burst, so whoever polled all queues
 * since it last looked, and finds it unmoved, may sleep on it.  No timeout: to
 * set a timer for each of these short sleeps costs more than the sleep (in a
 * virtual machine each is an exit to the hypervisor).  The ticker ends those
 * that last. */
void
netback_rx_wait(struct netback *nb, uint32_t *seen, uint64_t ns)
{
    uint32_t seq = atomic_load(&nb->rx_seq);

    if (seq == *seen && ns) {
        atomic_store_explicit(&nb->tick_ns, ns, memory_order_relaxed);
        atomic_fetch_add(&nb->rx_sleepers, 1);
        if (atomic_exchange(&nb->ticker_rests, 0)) {
            futex(&nb->ticker_rests, FUTEX_WAKE_PRIVATE, 1, NULL);
        }
        futex(&nb->rx_seq, FUTEX_WAIT_PRIVATE, seq, NULL);
        atomic_fetch_sub(&nb->rx_sleepers, 1);
        seq = atomic_load(&nb->rx_seq);
    }
    *seen = seq;
}

void *
netback_ticker(void *nb_)
{
    struct netback *nb = nb_;

    while (!atomic_load(&nb->ticker_stop)) {
        atomic_store(&nb->ticker_rests, 1);
        while (!atomic_load(&nb->rx_sleepers) && !atomic_load(&nb->ticker_stop) &&
               atomic_load(&nb->ticker_rests)) {
            futex(&nb->ticker_rests, FUTEX_WAIT_PRIVATE, 1, NULL);
        }
        atomic_store(&nb->ticker_rests, 0);

        uint64_t ns = atomic_load_explicit(&nb->tick_ns, memory_order_relaxed);
        ns = ns > TICK_MIN_NS ? ns : TICK_MIN_NS;
        struct timespec ts = {.tv_sec = ns / 1000000000u, .tv_nsec = ns % 1000000000u};
        nanosleep(&ts, NULL);
        futex(&nb->rx_seq, FUTEX_WAKE_PRIVATE, INT_MAX, NULL);
    }
    return NULL;
}

void
vif_rx_announce(struct netback_vif *v)
{
    struct netback *nb = v->nb;

    atomic_fetch_add(&nb->rx_seq, 1);
    if (atomic_load(&nb->rx_sleepers)) {
        futex(&nb->rx_seq, FUTEX_WAKE_PRIVATE, INT_MAX, NULL);
    }
}

bool
netback_rx_ready(const struct netback_vif *v, unsigned q)
{
    return !spsc_empty(&v->lanes[q].out);
}

/* --- to a guest's queues -------------------------------------------------- */

void
vif_drop_all(struct netback_vif *v, struct rte_mbuf **pkts, unsigned n, enum drop_reason reason)
{
    if (n && queue_is_here()) {
        atomic_fetch_add_explicit(&v->drops[reason], n, memory_order_relaxed);
        queue_free(pkts, n);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        vif_drop(v, pkts[i], reason);
    }
}

/* Drops the multicasts that the guest did not ask for; returns how many packets are left. */
static unsigned
filter_mcast(struct netback_vif *v, struct rte_mbuf **pkts, unsigned n)
{
    const struct mcast_list *list = &v->journal->mcast;
    unsigned kept = 0;

    if (!atomic_load_explicit(&list->enabled, memory_order_relaxed)) {
        return n;
    }
    for (unsigned i = 0; i < n; i++) {
        if (mcast_pass(list, rte_pktmbuf_mtod(pkts[i], const uint8_t *))) {
            pkts[kept++] = pkts[i];
        } else {
            vif_drop(v, pkts[i], DROP_GRX_MULTICAST);
        }
    }
    return kept;
}

void
lane_hold(struct lane *l)
{
    const struct timespec pause = {.tv_nsec = 20000};

    while (!lane_try_hold(l)) {
        nanosleep(&pause, NULL);
    }
}

static bool
nothing_waits(const struct lane *l)
{
    return !atomic_load_explicit(&l->in.bytes, memory_order_relaxed);
}

static size_t
footprints(struct rte_mbuf *const *pkts, unsigned n)
{
    size_t bytes = 0;

    for (unsigned i = 0; i < n; i++) {
        bytes += pkt_footprint(pkts[i]);
    }
    return bytes;
}

/* What waits may not be partial.  'n' have room in the inbox; returns how many are
 * left, the others have given theirs back. */
static __attribute__((noinline)) unsigned
complete_reserved(struct lane *l, struct rte_mbuf **pkts, unsigned n)
{
    size_t bytes = footprints(pkts, n);

    n = netback_complete(pkts, n);
    inbox_release(&l->in, bytes - footprints(pkts, n));
    return n;
}

static void
to_inbox(struct netback_vif *v, struct lane *l, struct rte_mbuf **pkts, unsigned n)
{
    unsigned fit = inbox_reserve(&l->in, pkts, n);

    vif_drop_all(v, pkts + fit, n - fit, DROP_GRX_QUEUE_FULL);
    if (fit && queue_has_partial()) {
        fit = complete_reserved(l, pkts, fit);
    }
    if (fit) {
        inbox_push(&l->in, pkts, fit);
    }
}

static void
to_lane(struct netback_vif *v, struct lane *l, struct rte_mbuf **pkts, unsigned n)
{
    if (atomic_load_explicit(&l->in.stalled, memory_order_relaxed)) {
        vif_drop_all(v, pkts, n, DROP_GRX_STALLED);
        return;
    }
    struct courier *courier = NULL;
    if (!queue_is_here()) {
        courier =
            courier_for(v->nb, pkts, n, atomic_load_explicit(&l->in.asleep, memory_order_relaxed));
    }
    if ((!courier && !queue_is_here()) || !nothing_waits(l) || !lane_try_hold(l)) {
        to_inbox(v, l, pkts, n);
        return;
    }
    /* Behind what waits, and before what others will hand over. */
    unsigned done = nothing_waits(l) && l->queue ? queue_deliver(l->queue, courier, pkts, n) : 0;

    if (done < n) {
        to_inbox(v, l, pkts + done, n - done);
    }
    lane_let_go(l);
}

/* A burst's packets for one lane. */
struct batch {
    unsigned n;
    struct rte_mbuf *pkts[NETBACK_MAX_BURST];
};

/* n <= NETBACK_MAX_BURST */
static void
to_lanes(struct netback_vif *v, struct rte_mbuf **pkts, unsigned n, unsigned n_queues)
{
    struct batch batches[NETBACK_MAX_QUEUES];

    for (unsigned q = 0; q < n_queues; q++) {
        batches[q].n = 0;
    }
    for (unsigned i = 0; i < n; i++) {
        struct rte_mbuf *m = pkts[i];

        if (i + 1 < n) {
            rte_prefetch0(rte_pktmbuf_mtod(pkts[i + 1], void *));
        }
        uint32_t spread = m->ol_flags & RTE_MBUF_F_RX_RSS_HASH ? m->hash.rss : 0;
        unsigned q = hash_queue(&v->journal->hash, rte_pktmbuf_mtod(m, uint8_t *), m->data_len,
                                n_queues, spread);
        batches[q].pkts[batches[q].n++] = m;
    }
    for (unsigned q = 0; q < n_queues; q++) {
        if (batches[q].n) {
            to_lane(v, &v->lanes[q], batches[q].pkts, batches[q].n);
        }
    }
}

void
vif_to_queues(struct netback_vif *v, struct rte_mbuf **pkts, unsigned n, unsigned n_queues)
{
    n = filter_mcast(v, pkts, n);
    if (n_queues == 1) {
        to_lane(v, &v->lanes[0], pkts, n);
        return;
    }
    for (unsigned i = 0; i < n; i += NETBACK_MAX_BURST) {
        to_lanes(v, pkts + i, n - i < NETBACK_MAX_BURST ? n - i : NETBACK_MAX_BURST, n_queues);
    }
}

void
netback_tx_burst(struct netback_vif *v, struct rte_mbuf **pkts, unsigned n)
{
    unsigned n_queues = atomic_load_explicit(&v->n_connected, memory_order_acquire);

    if (!n_queues) {
        n = netback_complete(pkts, n);
        n_queues = vif_keep_burst(v, pkts, n);
    }
    if (n_queues) {
        vif_to_queues(v, pkts, n, n_queues);
    }
}
