/* queue_deliver: packets on their way to the guest.
 *
 * What the queue's thread took from the inbox waits here, in order, until the
 * guest has room.  And what other queues' threads deliver themselves (vif.h)
 * passes through here.  The receive ring is touched by the lane's holder only. */
#include "queue_priv.h"

#include <syslog.h>

#include <rte_prefetch.h>

/* The thread's queue. */
static __thread struct queue *here;

void
queue_set_here(struct queue *q)
{
    here = q;
}

bool
queue_is_here(void)
{
    return here;
}

/* --- what waits ------------------------------------------------------------ */

static void
mark_taken(struct queue *q, unsigned n)
{
    q->n_taken += n;
    if (q->n_marks < QUEUE_MARKS) {
        q->marks[(q->mark_first + q->n_marks++) % QUEUE_MARKS].ns = nb_now(q->vif->nb);
    }
    q->marks[(q->mark_first + q->n_marks - 1) % QUEUE_MARKS].end = q->n_taken;
}

/* 'n' packets went, in order. */
static void
mark_left(struct queue *q, unsigned n)
{
    q->n_left += n;
    while (q->n_marks && (int32_t)(q->marks[q->mark_first].end - q->n_left) <= 0) {
        q->mark_first = (q->mark_first + 1) % QUEUE_MARKS;
        q->n_marks--;
    }
}

uint64_t
queue_first_since(const struct queue *q)
{
    return q->marks[q->mark_first].ns;
}

static void
take_inbox(struct queue *q)
{
    struct rte_mbuf *first, *last;

    if (inbox_empty(&q->lane->in)) {
        return;
    }
    mark_taken(q, inbox_take(&q->lane->in, &first, &last));
    if (q->chain_head) {
        inbox_set_next(q->chain_tail, first);
    } else {
        q->chain_head = first;
    }
    q->chain_tail = last;
}

/* Unpacks bundles while they fit. */
static void
fill_burst(struct queue *q)
{
    q->burst_at = q->burst_n = 0;
    while (q->chain_head && q->burst_n + 1 + INBOX_CARRIED_MAX <= QUEUE_BURST) {
        struct rte_mbuf *head = q->chain_head;

        q->chain_head = inbox_next(head);
        q->burst_n += inbox_unpack(head, q->burst + q->burst_n);
    }
    for (unsigned i = 0; i < q->burst_n; i++) {
        rte_prefetch0(q->burst[i]);
    }
}

struct rte_mbuf *
queue_first_waiting(struct queue *q)
{
    if (q->burst_at == q->burst_n) {
        fill_burst(q);
    }
    return q->burst_n ? q->burst[q->burst_at] : NULL;
}

static void
drop_first(struct queue *q, enum drop_reason reason)
{
    struct rte_mbuf *m = q->burst[q->burst_at++];

    mark_left(q, 1);
    inbox_release(&q->lane->in, pkt_footprint(m));
    STAT_ADD(q->lane->stats.drops[reason], 1);
    pkt_free(&q->pool, m);
}

void
queue_drop_waiting(struct queue *q, enum drop_reason reason)
{
    take_inbox(q);
    while (queue_first_waiting(q)) {
        drop_first(q, reason);
    }
}

void
queue_keep_waiting(struct queue *q)
{
    take_inbox(q);
    while (queue_first_waiting(q)) {
        struct rte_mbuf *m = q->burst[q->burst_at++];

        mark_left(q, 1);
        inbox_release(&q->lane->in, pkt_footprint(m));
        vif_keep_first(q->vif, &m, 1);
    }
}

static bool
is_stalled(const struct queue *q)
{
    return atomic_load_explicit(&q->lane->in.stalled, memory_order_relaxed);
}

void
queue_set_stalled(struct queue *q, bool stalled)
{
    if (is_stalled(q) != stalled) {
        atomic_store_explicit(&q->lane->in.stalled, stalled, memory_order_relaxed);
        if (stalled) {
            STAT_ADD(q->lane->stats.stalls, 1);
        }
        vif_set_stalled(q->vif, stalled);
    }
}

static void
set_blocked_since(struct queue *q, uint64_t ns)
{
    if (atomic_load_explicit(&q->blocked_since_ns, memory_order_relaxed) != ns) {
        atomic_store_explicit(&q->blocked_since_ns, ns, memory_order_relaxed);
    }
}

/* The guest has no room for the first packet: how long has this lasted? */
static void
guest_blocks(struct queue *q)
{
    const struct netback_config *c = &q->vif->nb->config;
    uint64_t now = nb_now(q->vif->nb);
    uint64_t since = atomic_load_explicit(&q->blocked_since_ns, memory_order_relaxed);

    if (!since) {
        set_blocked_since(q, since = now);
    }
    if (now - since > c->grx_stall_ms * 1000000ull) {
        queue_set_stalled(q, true);
        queue_drop_waiting(q, DROP_GRX_STALLED);
        return;
    }
    while (queue_first_waiting(q) && now - queue_first_since(q) > c->grx_expire_ms * 1000000ull) {
        drop_first(q, DROP_GRX_EXPIRED);
    }
}

/* While stalled nothing is queued; a whole packet's worth of buffers ends it. */
static bool
still_stalled(struct queue *q)
{
    if (!is_stalled(q)) {
        return false;
    }
    int slots = grx_slots(&q->grx);
    if (slots >= (int)XEN_NETIF_NR_SLOTS_MIN) {
        set_blocked_since(q, 0);
        queue_set_stalled(q, false);
        return false;
    }
    if (slots < 0) {
        queue_give_up(q, "receive");
    }
    queue_drop_waiting(q, DROP_GRX_STALLED);
    return true;
}

/* --- delivery ---------------------------------------------------------------- */

void
queue_free(struct rte_mbuf **pkts, unsigned n)
{
    pkt_free_bulk(&here->pool, pkts, n);
}

bool
queue_has_partial(void)
{
    return here && here->gtx.n_partial;
}

bool
netback_is_partial(const struct rte_mbuf *m)
{
    return here && gtx_is_partial(&here->gtx, m);
}

unsigned
netback_complete(struct rte_mbuf **pkts, unsigned n)
{
    return here ? gtx_complete(&here->gtx, pkts, n) : n;
}

/* Who holds the lane brings its buffers and its grant handle. */
static void
lend(struct queue *q, struct pkt_pool *pool, struct hv_grants *grants, struct gtx *from)
{
    q->grx_port.pool = pool;
    q->grx_port.grants = grants;
    q->grx.from = from;
}

unsigned
queue_deliver(struct queue *q, struct courier *courier, struct rte_mbuf **pkts, unsigned n)
{
    const struct hv_ops *ops = q->vif->nb->hv->ops;
    bool notify = false;

    if (atomic_load_explicit(&q->dead, memory_order_relaxed)) {
        return 0;
    }
    if (courier) {
        lend(q, courier_pool(courier), courier_grants(courier), NULL);
    } else {
        lend(q, &here->pool, here->grants, here->gtx.n_partial ? &here->gtx : NULL);
    }
    RING_IDX answered = q->grx.ring.rsp_prod_pvt;
    int done = grx_burst(&q->grx, pkts, n, &notify);
    if (done < 0) {
        queue_give_up(q, "receive");
        return 0;
    }
    if (done || q->grx.ring.rsp_prod_pvt != answered) {
        set_blocked_since(q, 0);
    }
    if (notify) {
        ops->evtchn_notify(q->evtchns, q->rx_port);
        STAT_ADD(q->lane->grx_stats.notifies, 1);
    }
    if (done) {
        lane_moved(q->vif, q->lane, true);
    }
    return done;
}

/* Delivers one burst.  True if the guest took something. */
static bool
deliver(struct queue *q, bool *notify)
{
    /* grx_burst() frees what it consumes, so the sizes come first. */
    unsigned n = q->burst_n - q->burst_at;
    uint32_t footprint[QUEUE_BURST], len[QUEUE_BURST];
    for (unsigned i = 0; i < n; i++) {
        footprint[i] = pkt_footprint(q->burst[q->burst_at + i]);
        len[i] = q->burst[q->burst_at + i]->pkt_len;
    }
    RING_IDX answered = q->grx.ring.rsp_prod_pvt;
    int done = grx_burst(&q->grx, q->burst + q->burst_at, n, notify);
    if (done < 0) {
        queue_give_up(q, "receive");
        return false;
    }
    size_t memory = 0, bytes = 0;
    for (int i = 0; i < done; i++) {
        memory += footprint[i];
        bytes += len[i];
    }
    q->burst_at += done;
    mark_left(q, done);
    inbox_release(&q->lane->in, memory);
    queue_spend(q, done, bytes);
    /* A packet that is being cut makes progress before it is done. */
    bool progress = done || q->grx.ring.rsp_prod_pvt != answered;
    if (progress) {
        set_blocked_since(q, 0);
        lane_moved(q->vif, q->lane, true);
    } else {
        guest_blocks(q);
    }
    return progress;
}

bool
queue_to_guest(struct queue *q, bool *notify)
{
    unsigned most = q->receiver ? q->vif->nb->config.turn_packets : QUEUE_BURST;
    uint32_t first = q->n_left;
    bool progress = false;

    take_inbox(q);
    if (!queue_first_waiting(q) && !is_stalled(q)) {
        return false;
    }
    if (!lane_try_hold(q->lane)) {
        return false; /* who has it will wake us */
    }
    lend(q, &q->pool, q->grants, NULL);
    if (!still_stalled(q)) {
        while (!q->dead && q->n_left - first < most && queue_first_waiting(q) &&
               deliver(q, notify)) {
            progress = true;
        }
    }
    lane_release(q->lane);
    return progress;
}

bool
queue_arm_grx(struct queue *q)
{
    struct rte_mbuf *m = queue_first_waiting(q);
    bool work;

    if (!m && !is_stalled(q)) {
        return false;
    }
    if (!lane_try_hold(q->lane)) {
        return false; /* who has it will wake us */
    }
    work = grx_arm(&q->grx, m ? grx_slots_needed(&q->grx, m) : XEN_NETIF_NR_SLOTS_MIN);
    lane_release(q->lane);
    return work;
}
