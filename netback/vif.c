/* vif: a guest's network interface as a port of the switch. */
#include "vif.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#define LOG_BURST 10u
/* Ticks cost as much as the sleeps they bound. */
#define TICK_MIN_NS 250000u
#define LOG_PERIOD_NS 5000000000ull

void
vif_log(struct netback_vif *v, int level, const char *format, ...)
{
    uint64_t now = nb_now(v->nb);
    char msg[512];
    va_list args;

    pthread_mutex_lock(&v->nb->lock);
    if (now - v->log_refill_ns > LOG_PERIOD_NS) {
        v->log_refill_ns = now;
        v->log_credit = LOG_BURST;
    }
    bool say = v->log_credit > 0;
    v->log_credit -= say;
    pthread_mutex_unlock(&v->nb->lock);
    if (!say) {
        return;
    }
    va_start(args, format);
    vsnprintf(msg, sizeof msg, format, args);
    va_end(args);
    netback_log(v->nb, level, "vif%u.%u: %s", v->domid, v->handle, msg);
}

void
vif_changed(struct netback_vif *v)
{
    atomic_fetch_add(&v->seq, 1);
}

void
vif_poke(struct netback_vif *v)
{
    atomic_store(&v->poked, true);
    xenbus_kick(v->nb);
}

void
vif_broken(struct netback_vif *v)
{
    atomic_store(&v->broken, true);
    vif_poke(v);
}

void
vif_set_stalled(struct netback_vif *v, bool stalled)
{
    unsigned before = atomic_fetch_add(&v->n_stalled, stalled ? 1 : -1);

    if (before == (stalled ? 0 : 1)) {
        vif_log(v, stalled ? LOG_WARNING : LOG_INFO,
                stalled ? "guest takes no packets, carrier off" : "guest takes packets again");
        vif_changed(v);
        vif_poke(v);
    }
}

/* --- lanes -------------------------------------------------------------- */

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

static void
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

static int
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

int
vif_attach(struct netback_vif *v)
{
    if (v->attached) {
        return EBUSY;
    }
    int error = lanes_alloc(v);
    if (error) {
        return error;
    }
    error = journal_open(v->nb->config.journal_dir, v->domid, v->handle, &v->journal);
    if (error) {
        lanes_free(v);
        return error;
    }
    for (int i = 0; i < DROP_N_REASONS; i++) {
        atomic_store(&v->drops[i], 0);
    }
    v->receiver = NULL;
    v->attached = true;
    return 0;
}

void
vif_detach(struct netback_vif *v)
{
    vif_disconnect(v);
    v->attached = false;
    journal_close(v->journal);
    v->journal = NULL;
    if (!v->present) {
        journal_remove(v->nb->config.journal_dir, v->domid, v->handle);
    }
    lanes_free(v);
}

/* --- connecting ----------------------------------------------------------- */

static void
close_queues(struct netback_vif *v)
{
    /* Queue 0 first: its control ring may be calling the others. */
    for (unsigned i = 0; i < v->n_open; i++) {
        queue_close(v->queues[i]);
        v->queues[i] = NULL;
    }
    v->n_open = 0;
}

int
vif_connect(struct netback_vif *v, const struct connection *c, bool adopt, char *why,
            size_t why_size)
{
    bool same = adopt && journal_matches(v->journal, &c->ids);
    int error = 0;

    if (!same) {
        journal_reset(v->journal, &c->ids);
    }
    for (unsigned i = 0; i < c->n_queues && !error; i++) {
        error = queue_open(v, i, &c->queue[i], &v->queues[i], why, why_size);
        v->n_open += !error;
    }
    if (error) {
        close_queues(v);
        return error;
    }
    if (same) {
        journal_settle(v->journal, queue_ctrl_answered(v->queues[0]));
        for (unsigned i = 0; i < v->n_open; i++) {
            queue_replay(v->queues[i], v->journal);
        }
    }
    atomic_store(&v->journal->mcast.enabled, c->mcast_control);
    atomic_store(&v->broken, false);
    v->rate_bytes = c->queue[0].rate_bytes;
    v->rate_usecs = c->queue[0].rate_usecs;
    /* First, for the answer to a guest's packet may be faster than we are. */
    atomic_store_explicit(&v->n_connected, v->n_open, memory_order_release);
    /* Queue 0 last: a control request that waits for us may call the others. */
    for (unsigned i = v->n_open; i-- > 0 && !error;) {
        error = queue_start(v->queues[i]);
    }
    if (error) {
        snprintf(why, why_size, "cannot start a thread (%s)", strerror(error));
        atomic_store(&v->n_connected, 0);
        close_queues(v);
        return error;
    }
    atomic_fetch_add(&v->connects, 1);
    vif_changed(v);
    return 0;
}

void
vif_disconnect(struct netback_vif *v)
{
    if (!v->n_open) {
        return;
    }
    atomic_store(&v->n_connected, 0);
    close_queues(v);
    vif_changed(v);
}

void
vif_sample_mcast(struct netback_vif *v, bool enabled)
{
    if (v->journal && atomic_exchange(&v->journal->mcast.enabled, enabled) != enabled) {
        vif_changed(v);
    }
}

/* --- the switch's side ------------------------------------------------------ */

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

static void
drop_all(struct netback_vif *v, struct rte_mbuf **pkts, unsigned n, enum drop_reason reason)
{
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

static void
to_lane(struct netback_vif *v, struct lane *l, struct rte_mbuf **pkts, unsigned n)
{
    if (atomic_load_explicit(&l->in.stalled, memory_order_relaxed)) {
        drop_all(v, pkts, n, DROP_GRX_STALLED);
        return;
    }
    unsigned fit = inbox_reserve(&l->in, pkts, n);

    if (fit) {
        inbox_push(&l->in, pkts, fit);
    }
    drop_all(v, pkts + fit, n - fit, DROP_GRX_QUEUE_FULL);
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
netback_tx_burst(struct netback_vif *v, struct rte_mbuf **pkts, unsigned n)
{
    unsigned n_queues = atomic_load_explicit(&v->n_connected, memory_order_acquire);

    if (!n_queues) {
        drop_all(v, pkts, n, DROP_GRX_NOT_CONNECTED);
        return;
    }
    n = filter_mcast(v, pkts, n);
    if (n_queues == 1) {
        to_lane(v, &v->lanes[0], pkts, n);
        return;
    }
    for (unsigned i = 0; i < n; i += NETBACK_MAX_BURST) {
        to_lanes(v, pkts + i, n - i < NETBACK_MAX_BURST ? n - i : NETBACK_MAX_BURST, n_queues);
    }
}

unsigned
netback_n_queues(const struct netback_vif *v)
{
    return v->n_lanes;
}

void
netback_status(const struct netback_vif *v, struct netback_status *s)
{
    struct netback *nb = v->nb;
    uint64_t mac = atomic_load(&v->mac);

    *s = (struct netback_status){0};
    pthread_mutex_lock(&nb->lock);
    s->present = v->present;
    pthread_mutex_unlock(&nb->lock);
    s->n_queues = atomic_load(&v->n_connected);
    s->connected = s->n_queues > 0;
    s->carrier = s->connected && !atomic_load(&v->n_stalled);
    for (int i = 0; i < 6; i++) {
        s->mac[i] = mac >> (40 - 8 * i);
    }
    s->mtu = atomic_load(&v->mtu);
    s->connects = atomic_load(&v->connects);
    if (v->journal && s->connected) {
        s->multicast_control = atomic_load(&v->journal->mcast.enabled);
        s->static_grants = atomic_load(&v->n_static) > 0;
    }
}

struct receiver_change {
    struct netback_vif *vif;
    const struct netback_receiver *receiver;
    void *aux;
};

static int
set_receiver(struct netback *nb, void *change_)
{
    struct receiver_change *c = change_;

    c->vif->receiver = c->receiver;
    c->vif->receiver_aux = c->aux;
    for (unsigned i = 0; i < c->vif->n_open; i++) {
        queue_set_receiver(c->vif->queues[i]);
    }
    return 0;
}

void
netback_set_receiver(struct netback_vif *v, const struct netback_receiver *receiver, void *aux)
{
    struct receiver_change c = {v, receiver, aux};

    xenbus_call(v->nb, set_receiver, &c);
}

void
netback_set_carrier(struct netback_vif *v, bool up)
{
    if (atomic_exchange(&v->admin_up, up) != up) {
        vif_poke(v);
    }
}

struct mtu_change {
    struct netback_vif *vif;
    uint16_t mtu;
};

static int
set_mtu(struct netback *nb, void *change_)
{
    struct mtu_change *c = change_;

    atomic_store(&c->vif->mtu, c->mtu);
    for (unsigned i = 0; i < c->vif->n_open; i++) {
        queue_set_mtu(c->vif->queues[i], c->mtu);
    }
    return 0;
}

int
netback_set_mtu(struct netback_vif *v, uint16_t mtu)
{
    struct mtu_change c = {v, mtu};

    return mtu < 68 || mtu > 65000 ? EINVAL : xenbus_call(v->nb, set_mtu, &c);
}

uint64_t
netback_change_seq(const struct netback_vif *v)
{
    return atomic_load(&v->seq);
}

void
netback_stats(const struct netback_vif *v, struct netback_stats *s)
{
    *s = (struct netback_stats){0};
    for (unsigned i = 0; i < v->n_lanes; i++) {
        const struct queue_stats *q = &v->lanes[i].stats;
#define X(name) s->name += STAT_GET(q->name);
        NETBACK_COUNTERS(X)
#undef X
        for (int r = 0; r < DROP_N_REASONS; r++) {
            s->drops[r] += STAT_GET(q->drops[r]);
        }
    }
    for (int r = 0; r < DROP_N_REASONS; r++) {
        s->drops[r] += STAT_GET(v->drops[r]);
    }
}

static int
measure_memory(struct netback *nb, void *sum_)
{
    struct {
        const struct netback_vif *vif;
        size_t bytes;
    } *sum = sum_;
    const struct netback_vif *v = sum->vif;

    sum->bytes = sizeof *v;
    for (unsigned i = 0; i < v->n_lanes; i++) {
        const struct lane *l = &v->lanes[i];
        sum->bytes += sizeof *l + (l->out.mask + 1) * sizeof *l->out.slots +
                      atomic_load(&l->out_bytes) + atomic_load(&l->in.bytes);
    }
    for (unsigned i = 0; i < v->n_open; i++) {
        sum->bytes += queue_memory(v->queues[i]);
    }
    return 0;
}

size_t
netback_memory(const struct netback_vif *v)
{
    struct {
        const struct netback_vif *vif;
        size_t bytes;
    } sum = {v, 0};

    xenbus_call(v->nb, measure_memory, &sum);
    return sum.bytes;
}
