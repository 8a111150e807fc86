/* gtx: packets out of a guest's transmit ring.
 *
 * Theory of Operation
 * -------------------
 * A packet in the ring is slot 0 (whose size is the whole packet's), its
 * extra-info slots, and its further data slots.  A burst goes through four
 * stages, each over all its packets:
 *
 *   fetch    copies new slots to private memory, each once in its life
 *            (scratch->slot mirrors the ring; the mirror survives the burst, so
 *            that slots not yet taken are not read again)
 *   collect  walks whole packets, checks them, takes buffers and lists the
 *            copies to be made
 *   copy     moves the bytes, in as few calls as possible
 *   finish   checks the frames against the offloads asked for, hands them
 *            out, and answers their slots
 *
 * but for packets of one slot in a mapped page, which come first and go
 * through all of it at once (gtx_single.c).
 *
 * Indices:  rsp_prod_pvt  <=  req_cons  <=  fetched  <=  the guest's req_prod.
 * Everything taken is answered before the burst ends, or, if packets of it are
 * partial (gtx_partial.c), in gtx_settle(), so that between turns
 * rsp_prod == req_cons, which is where a successor of this process resumes.
 * Responses overlay requests in the ring; only fetched slots are overlaid,
 * and all of a burst together, through the log (struct rsp_log).
 *
 * A packet whose slots are not all there yet is left alone: req_cons stays,
 * and 'idle_at' remembers the req_prod that brought nothing whole, so that
 * nobody polls for it and the event is asked for at the right index.
 *
 * A chain longer than the protocol allows is answered slot by slot with
 * errors, as far as it is there; 'discard' remembers across bursts which part
 * of the chain comes next, until the chain ends.  So no packet, however long,
 * needs more state than this, and none stops the ring. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gtx_priv.h"

/* Each type of extra may come once. */
#define EXTRAS_MAX (XEN_NETIF_EXTRA_TYPE_MAX - 1u)
/* Linux lets a guest burst this much, however low its rate, so that the
 * largest packet always passes. */
#define CREDIT_BURST_MIN 131072ull
/* Beyond these a rate is no limit, or no rate; they keep sums from overflow. */
#define CREDIT_MAX (1ull << 48)
#define PERIOD_MAX_USECS 3600000000ull

static bool gtx_fetch(struct gtx *);
static void gtx_discard(struct gtx *);
static void gtx_collect(struct gtx *, unsigned room);
static unsigned gtx_finish(struct gtx *, struct rte_mbuf **, unsigned room);
static void gtx_write_answers(netif_tx_sring_t *, const struct rsp_log *);
static bool gtx_publish(struct gtx *, RING_IDX answered);

int
gtx_init(struct gtx *g, struct ring_port *port, void *page)
{
    netif_tx_sring_t *sring = page;
    RING_IDX answered = ring_index_load(&sring->rsp_prod);
    RING_IDX prod = ring_index_load(&sring->req_prod);

    memset(g, 0, sizeof *g);
    if (prod - answered > RING_SLOTS) {
        return EPROTO;
    }
    g->scratch = calloc(1, sizeof *g->scratch);
    if (!g->scratch) {
        return ENOMEM;
    }
    struct rsp_log *log = port->tx_log ? port->tx_log : &g->scratch->own_log;
    if (rsp_log_unfinished(log, answered, prod)) {
        gtx_write_answers(sring, log);
        answered = log->to;
        ring_publish(&sring->rsp_prod, &sring->rsp_event, log->from, answered);
    }
    log->from = log->to = answered;
    g->scratch->log = log;
    BACK_RING_ATTACH(&g->ring, sring, answered, HV_PAGE_SIZE);
    g->port = port;
    g->turn_left = SIZE_MAX;
    g->scratch->fetched = g->scratch->idle_at = answered;
    return 0;
}

void
gtx_done(struct gtx *g)
{
    if (g->scratch && g->scratch->spill) {
        pkt_free(g->port->pool, g->scratch->spill);
    }
    free(g->scratch);
    memset(g, 0, sizeof *g);
}

int
gtx_burst(struct gtx *g, struct rte_mbuf **pkts, unsigned n, bool *notify)
{
    struct gtx_scratch *s = g->scratch;
    RING_IDX answered = g->ring.rsp_prod_pvt;
    unsigned n_out = 0;

    if (n && s->spill) {
        pkts[n_out++] = s->spill;
        s->spill = NULL;
    }
    if (!gtx_fetch(g)) {
        return n_out ? (int)n_out : -EPROTO;
    }
    s->mtu = atomic_load_explicit(&g->port->mtu, memory_order_relaxed);
    gtx_discard(g);
    copy_begin(&s->batch, g->port);
    n_out += gtx_single(g, pkts + n_out, n - n_out);
    gtx_collect(g, n - n_out);
    copy_run(&s->batch, s->failed);
    n_out += gtx_finish(g, pkts + n_out, n - n_out);
    if (unlikely(s->deferred)) {
        s->answered = answered;
        if (!g->n_partial) {
            gtx_answer_burst(g, notify);
        }
    } else if (g->ring.rsp_prod_pvt != answered) {
        *notify |= gtx_publish(g, answered);
    }
    return n_out;
}

bool
gtx_pending(const struct gtx *g)
{
    const struct gtx_scratch *s = g->scratch;

    if (s->spill) {
        return true;
    }
    return !s->broken && ring_index_load(&g->ring.sring->req_prod) != s->idle_at &&
           !gtx_credit_wait(g);
}

bool
gtx_arm(struct gtx *g)
{
    if (!g->scratch->broken && !gtx_credit_wait(g)) {
        ring_ask_event(&g->ring.sring->req_event, g->scratch->idle_at + 1);
    }
    return gtx_pending(g);
}

/* --- rate limit ----------------------------------------------------------- */

static uint64_t
gtx_now(const struct gtx *g)
{
    return g->port->hv->ops->now_ns(g->port->hv);
}

void
gtx_set_rate(struct gtx *g, uint64_t bytes, uint64_t usecs)
{
    g->credit_bytes = usecs ? RTE_MIN(bytes, CREDIT_MAX) : 0;
    g->credit_period_ns = RTE_MIN(usecs, PERIOD_MAX_USECS) * 1000;
    g->credit_left = g->credit_bytes;
    g->scratch->credit_needed = 0;
    g->credit_refill_at_ns = g->credit_bytes ? gtx_now(g) + g->credit_period_ns : 0;
}

static void
credit_refill(struct gtx *g)
{
    uint64_t now = gtx_now(g), most = RTE_MAX(g->credit_bytes, CREDIT_BURST_MIN);

    if (now < g->credit_refill_at_ns) {
        return;
    }
    uint64_t periods = (now - g->credit_refill_at_ns) / g->credit_period_ns + 1;
    g->credit_refill_at_ns += periods * g->credit_period_ns;
    g->credit_left = periods > most / g->credit_bytes
                         ? most
                         : RTE_MIN(g->credit_left + periods * g->credit_bytes, most);
}

/* Charges a packet; false if it has to wait. */
static bool
credit_take(struct gtx *g, uint32_t bytes)
{
    struct gtx_scratch *s = g->scratch;

    if (!g->credit_bytes) {
        return true;
    }
    if (bytes > g->credit_left) {
        credit_refill(g);
    }
    if (bytes > g->credit_left) {
        if (!s->credit_needed) {
            STAT_ADD(g->port->stats->rate_limited, 1);
        }
        s->credit_needed = bytes;
        return false;
    }
    g->credit_left -= bytes;
    s->credit_needed = 0;
    return true;
}

uint64_t
gtx_credit_wait(const struct gtx *g)
{
    uint32_t needed = g->scratch->credit_needed;

    if (!needed || needed <= g->credit_left) {
        return 0;
    }
    uint64_t periods = (needed - g->credit_left + g->credit_bytes - 1) / g->credit_bytes;
    uint64_t at = g->credit_refill_at_ns + (periods - 1) * g->credit_period_ns;
    return gtx_now(g) < at ? at : 0;
}

/* --- fetch ---------------------------------------------------------------- */

/* False if the guest's index cannot be: it claims more requests than fit, or
 * takes some back. */
static bool
gtx_fetch(struct gtx *g)
{
    struct gtx_scratch *s = g->scratch;
    RING_IDX prod = ring_index_load(&g->ring.sring->req_prod);

    if (prod - s->fetched > RING_SLOTS - (s->fetched - g->ring.rsp_prod_pvt)) {
        s->broken = true;
    }
    if (s->broken) {
        return false;
    }
    ring_fetch_tx(s->slot, g->ring.sring->ring, s->fetched, prod);
    s->fetched = prod;
    return true;
}

static inline const netif_extra_info_t *
extra_at(const struct gtx_scratch *s, RING_IDX i)
{
    return (const netif_extra_info_t *)slot_at(s, i);
}

/* --- answers -------------------------------------------------------------- */

/* Writes the responses under way over their requests, all of a slot's bytes. */
static void
gtx_write_answers(netif_tx_sring_t *sring, const struct rsp_log *log)
{
    for (RING_IDX i = log->from; i != log->to; i++) {
        union netif_tx_sring_entry rsp = {.req = {0}};

        memcpy(&rsp, &log->rsp[i % RING_SLOTS], sizeof rsp.rsp);
        sring->ring[i % RING_SLOTS] = rsp;
    }
}

/* True if the guest wants to know. */
static bool
gtx_publish(struct gtx *g, RING_IDX answered)
{
    struct rsp_log *log = g->scratch->log;

    log_order();
    log->to = g->ring.rsp_prod_pvt;
    log_order();
    gtx_write_answers(g->ring.sring, log);
    bool notify =
        ring_publish(&g->ring.sring->rsp_prod, &g->ring.sring->rsp_event, answered, log->to);
    log_order();
    log->from = log->to;
    return notify;
}

static void
gtx_answer(struct gtx *g, const struct gtx_packet *p)
{
    const struct gtx_scratch *s = g->scratch;
    RING_IDX i = p->first;

    gtx_respond(g, slot_at(s, i++)->id, p->status);
    for (unsigned k = 0; k < p->n_extras; k++, i++) {
        gtx_respond(g, 0, NETIF_RSP_NULL);
    }
    for (unsigned k = 1; k < p->n_data; k++, i++) {
        gtx_respond(g, slot_at(s, i)->id, p->status);
    }
    if (unlikely(p->status == NETIF_RSP_ERROR)) {
        STAT_ADD(g->port->stats->errors_responded, p->n_data);
    }
}

void
gtx_answer_burst(struct gtx *g, bool *notify)
{
    struct gtx_scratch *s = g->scratch;

    for (unsigned i = 0; i < s->n_packets; i++) {
        gtx_answer(g, &s->packets[i]);
    }
    s->deferred = false;
    *notify |= gtx_publish(g, s->answered);
}

/* Answers what is there of a chain that is too long. */
static void
gtx_discard(struct gtx *g)
{
    struct gtx_scratch *s = g->scratch;

    while (s->discard != DISCARD_NONE && g->ring.req_cons != s->fetched) {
        RING_IDX i = g->ring.req_cons++;

        if (s->discard == DISCARD_DATA) {
            gtx_respond(g, slot_at(s, i)->id, NETIF_RSP_ERROR);
            STAT_ADD(g->port->stats->errors_responded, 1);
            if (!(slot_at(s, i)->flags & NETTXF_more_data)) {
                s->discard = DISCARD_NONE;
            }
        } else {
            gtx_respond(g, 0, NETIF_RSP_NULL);
            if (!(extra_at(s, i)->flags & XEN_NETIF_EXTRA_FLAG_MORE)) {
                s->discard = s->discard == DISCARD_EXTRA ? DISCARD_NONE : DISCARD_DATA;
            }
        }
    }
}

/* --- collect -------------------------------------------------------------- */

enum walk { WALK_WHOLE, WALK_PARTIAL, WALK_TOO_LONG };

/* Follows the chain that starts at 'p->first' and counts its slots. */
static enum walk
gtx_walk(const struct gtx_scratch *s, struct gtx_packet *p)
{
    RING_IDX i = p->first;
    const netif_tx_request_t *slot0 = slot_at(s, i++);
    bool more = slot0->flags & NETTXF_extra_info;

    p->n_extras = 0;
    p->n_data = 1;
    while (more) {
        if (i == s->fetched) {
            return WALK_PARTIAL;
        }
        more = extra_at(s, i++)->flags & XEN_NETIF_EXTRA_FLAG_MORE;
        if (++p->n_extras > EXTRAS_MAX) {
            bool data = slot0->flags & NETTXF_more_data;
            p->then = more && data ? DISCARD_EXTRA_DATA
                      : more       ? DISCARD_EXTRA
                      : data       ? DISCARD_DATA
                                   : DISCARD_NONE;
            return WALK_TOO_LONG;
        }
    }
    more = slot0->flags & NETTXF_more_data;
    while (more) {
        if (i == s->fetched) {
            return WALK_PARTIAL;
        }
        more = slot_at(s, i++)->flags & NETTXF_more_data;
        if (++p->n_data > XEN_NETIF_NR_SLOTS_MIN) {
            p->then = more ? DISCARD_DATA : DISCARD_NONE;
            return WALK_TOO_LONG;
        }
    }
    return WALK_WHOLE;
}

void
gtx_drop(struct gtx *g, struct gtx_packet *p, enum drop_reason reason)
{
    p->status = reason == DROP_GTX_NO_BUFFER ? NETIF_RSP_DROPPED : NETIF_RSP_ERROR;
    STAT_ADD(g->port->stats->drops[reason], 1);
}

/* Adds to or removes from the multicast list; such a request is no packet. */
static void
gtx_change_mcast(struct gtx *g, struct gtx_packet *p, const netif_extra_info_t *e)
{
    struct mcast_list *list = g->port->mcast;
    int error = 0;

    if (e->type == XEN_NETIF_EXTRA_TYPE_MCAST_ADD) {
        error = list ? mcast_add(list, e->u.mcast.addr) : ENOSPC;
    } else if (list) {
        mcast_del(list, e->u.mcast.addr);
    }
    p->status = error ? NETIF_RSP_ERROR : NETIF_RSP_OKAY;
    if (!error && g->port->mcast_changed) {
        g->port->mcast_changed(g->port->aux);
    }
}

/* Reads the extras.  Sets '*mcast' if one changes the multicast list.
 * DROP_N_REASONS: they are right. */
static enum drop_reason
gtx_read_extras(const struct gtx_scratch *s, struct gtx_packet *p, const netif_extra_info_t **mcast)
{
    unsigned seen = 0;

    for (unsigned k = 1; k <= p->n_extras; k++) {
        const netif_extra_info_t *e = extra_at(s, p->first + k);

        if (e->type == XEN_NETIF_EXTRA_TYPE_NONE || e->type >= XEN_NETIF_EXTRA_TYPE_MAX ||
            (seen & 1u << e->type)) {
            return DROP_GTX_BAD_EXTRA;
        }
        seen |= 1u << e->type;
        switch (e->type) {
        case XEN_NETIF_EXTRA_TYPE_GSO:
            if (e->u.gso.type != XEN_NETIF_GSO_TYPE_TCPV4 &&
                e->u.gso.type != XEN_NETIF_GSO_TYPE_TCPV6) {
                return DROP_GTX_BAD_GSO;
            }
            p->request.gso_type = e->u.gso.type;
            p->request.mss = e->u.gso.size;
            break;
        case XEN_NETIF_EXTRA_TYPE_MCAST_ADD:
        case XEN_NETIF_EXTRA_TYPE_MCAST_DEL:
            if (*mcast || p->n_data > 1) {
                return DROP_GTX_BAD_EXTRA;
            }
            *mcast = e;
            break;
        default: /* a hash; we compute our own */
            break;
        }
    }
    return DROP_N_REASONS;
}

/* Checks sizes and offsets and finds how much of the packet is in slot 0. */
static enum drop_reason
gtx_check_sizes(const struct gtx_scratch *s, struct gtx_packet *p)
{
    const netif_tx_request_t *slot0 = slot_at(s, p->first);
    uint16_t left = slot0->size;

    if (left < ETH_HDR_LEN) {
        return DROP_GTX_TOO_SHORT;
    }
    if (p->request.gso_type == XEN_NETIF_GSO_TYPE_NONE &&
        left > RTE_MIN(s->mtu + FRAME_OVERHEAD, NETBACK_FRAME_MAX)) {
        return DROP_GTX_TOO_LONG;
    }
    for (unsigned k = 1; k < p->n_data; k++) {
        const netif_tx_request_t *slot = slot_at(s, p->first + p->n_extras + k);

        if (slot->size > left || slot->offset + slot->size > HV_PAGE_SIZE) {
            return DROP_GTX_BAD_SLOT;
        }
        left -= slot->size;
    }
    /* Only slot 0 may not be empty (io/netif.h leaves the others free to). */
    if (!left || slot0->offset + left > HV_PAGE_SIZE) {
        return DROP_GTX_BAD_SLOT;
    }
    p->first_size = left;
    return DROP_N_REASONS;
}

/* Lists the copy of one slot's bytes, which lie 'ofs' bytes into the packet. */
static void
gtx_list_copy(struct gtx_scratch *s, struct gtx_packet *p, const netif_tx_request_t *slot,
              uint32_t ofs, uint32_t len)
{
    uint16_t owner = p - s->packets;
    uint32_t here = ofs >= NETBACK_FRAME_MAX ? 0 : RTE_MIN(len, NETBACK_FRAME_MAX - ofs);

    if (here) {
        copy_from_guest(&s->batch, rte_pktmbuf_mtod_offset(p->m, uint8_t *, ofs), slot->gref,
                        slot->offset, here, owner);
    }
    if (unlikely(here < len)) {
        copy_from_guest(&s->batch,
                        rte_pktmbuf_mtod_offset(p->rest, uint8_t *, ofs + here - NETBACK_FRAME_MAX),
                        slot->gref, slot->offset + here, len - here, owner);
    }
}

/* Takes buffers for a checked packet and lists its copies. */
static void
gtx_take(struct gtx *g, struct gtx_packet *p)
{
    struct gtx_scratch *s = g->scratch;
    uint32_t ofs = p->first_size;

    p->m = pkt_alloc(g->port->pool, RTE_MIN(p->request.size, NETBACK_FRAME_MAX));
    if (p->m && unlikely(p->request.size > NETBACK_FRAME_MAX)) {
        p->rest = pkt_alloc(g->port->pool, p->request.size - NETBACK_FRAME_MAX);
        if (!p->rest) {
            pkt_free(g->port->pool, p->m);
            p->m = NULL;
        }
    }
    if (unlikely(!p->m)) {
        gtx_drop(g, p, DROP_GTX_NO_BUFFER);
        return;
    }
    if (unlikely(!copy_has_room(&s->batch, COPIES_MAX))) {
        copy_run(&s->batch, s->failed);
    }
    if (g->port->hv->ops->copies_by_page && p->n_data > 1) {
        /* Most of a guest's large frames go on, from slot to slot, where in
         * the next page they were in the last. */
        pkt_slide(g->port->pool, p->m, ofs, slot_at(s, p->first + p->n_extras + 1)->offset);
    }
    if (unlikely(p->request.size >= DEFER_MIN) && (p->head = gtx_head(g, p))) {
        s->deferred = true;
        gtx_list_range(s, p, 0, p->head);
        return;
    }
    gtx_list_copy(s, p, slot_at(s, p->first), 0, p->first_size);
    for (unsigned k = 1; k < p->n_data; k++) {
        const netif_tx_request_t *slot = slot_at(s, p->first + p->n_extras + k);

        gtx_list_copy(s, p, slot, ofs, slot->size);
        ofs += slot->size;
    }
}

/* Checks a walked packet; takes it, carries it out, or drops it. */
static void
gtx_accept(struct gtx *g, struct gtx_packet *p)
{
    struct gtx_scratch *s = g->scratch;
    const netif_extra_info_t *mcast = NULL;
    enum drop_reason reason = gtx_read_extras(s, p, &mcast);

    if (reason == DROP_N_REASONS && mcast) {
        gtx_change_mcast(g, p, mcast);
        return;
    }
    if (reason == DROP_N_REASONS) {
        reason = gtx_check_sizes(s, p);
    }
    if (reason != DROP_N_REASONS) {
        gtx_drop(g, p, reason);
        return;
    }
    gtx_take(g, p);
}

/* Errors cost something, too. */
static void
turn_charge(struct gtx *g, const struct gtx_packet *p)
{
    size_t cost = p->request.size;

    if (cost > g->port->pool->small_room) {
        cost = RTE_MAX(cost, GTX_LARGE_COST);
    }
    g->turn_left -= RTE_MIN(g->turn_left, RTE_MAX(cost, 1u));
}

static void
gtx_collect(struct gtx *g, unsigned room)
{
    struct gtx_scratch *s = g->scratch;
    bool waits = false;

    s->n_packets = 0;
    while (room && g->turn_left && s->n_packets < GTX_BURST_MAX && s->discard == DISCARD_NONE &&
           g->ring.req_cons != s->fetched) {
        struct gtx_packet *p = &s->packets[s->n_packets];
        const netif_tx_request_t *slot0 = slot_at(s, g->ring.req_cons);
        unsigned outs = slot0->size > NETBACK_FRAME_MAX ? 2 : 1;

        *p = (struct gtx_packet){.first = g->ring.req_cons};
        p->request.size = slot0->size;
        p->request.csum_blank = slot0->flags & NETTXF_csum_blank;
        p->request.data_validated = slot0->flags & NETTXF_data_validated;
        enum walk walk = gtx_walk(s, p);
        waits = walk == WALK_PARTIAL;
        /* A packet in two parts may spill, but only as the first of a burst. */
        if (waits || (outs > room && s->n_packets) || !credit_take(g, slot0->size)) {
            break;
        }
        s->failed[s->n_packets] = false;
        if (walk == WALK_TOO_LONG) {
            gtx_drop(g, p, p->n_extras > EXTRAS_MAX ? DROP_GTX_BAD_EXTRA : DROP_GTX_TOO_MANY_SLOTS);
        } else {
            gtx_accept(g, p);
        }
        g->ring.req_cons += p->n_extras + p->n_data;
        s->discard = p->then;
        s->n_packets++;
        room -= p->m ? RTE_MIN(outs, room) : 0;
        turn_charge(g, p);
    }
    s->idle_at = waits ? s->fetched : g->ring.req_cons;
}

/* --- finish --------------------------------------------------------------- */

struct gtx_totals {
    uint64_t packets, bytes, multicast, gso, blank;
};

static void
gtx_count(struct gtx *g, const struct gtx_totals *t)
{
    struct queue_stats *stats = g->port->stats;

    STAT_ADD(stats->rx_packets, t->packets);
    STAT_ADD(stats->rx_bytes, t->bytes);
    STAT_ADD(stats->rx_multicast, t->multicast);
    STAT_ADD(stats->rx_gso, t->gso);
    STAT_ADD(stats->rx_csum_blank, t->blank);
}

/* Frees a packet that was copied but may not pass. */
static void
gtx_reject(struct gtx *g, struct gtx_packet *p, enum drop_reason reason)
{
    gtx_drop(g, p, reason);
    pkt_free(g->port->pool, p->m);
    if (p->rest) {
        pkt_free(g->port->pool, p->rest);
    }
    p->m = p->rest = NULL;
}

/* Decides about a copied packet.  On return 'm' is NULL or ready. */
static void
gtx_judge(struct gtx *g, struct gtx_packet *p)
{
    struct gtx_scratch *s = g->scratch;
    enum drop_reason reason = DROP_N_REASONS;
    struct frame_layout layout;

    if (unlikely(s->failed[p - s->packets])) {
        reason = DROP_GTX_BAD_GRANT;
    } else if (unlikely(p->head)) {
        reason = gtx_head_offloads(g, p, &layout);
    } else {
        reason = gtx_frame_offloads(p->m, &p->request, s->mtu, &layout);
    }
    if (reason == DROP_N_REASONS && unlikely(p->rest)) {
        if (!(p->m->ol_flags & RTE_MBUF_F_TX_TCP_SEG)) {
            reason = DROP_GTX_TOO_LONG;
        } else if (!gtx_frame_divide(g->port->pool, p->m, &p->rest, &layout)) {
            reason = DROP_GTX_NO_BUFFER;
        }
    }
    if (unlikely(reason != DROP_N_REASONS)) {
        gtx_reject(g, p, reason);
    }
}

static void
gtx_mark_partial(struct gtx *g)
{
    struct gtx_scratch *s = g->scratch;

    for (unsigned i = 0; i < s->n_packets; i++) {
        struct gtx_packet *p = &s->packets[i];

        if (p->m && p->head) {
            p->m->port = PKT_PARTIAL + i;
            g->n_partial++;
        }
    }
}

static unsigned
gtx_finish(struct gtx *g, struct rte_mbuf **pkts, unsigned room)
{
    struct gtx_scratch *s = g->scratch;
    const bool deferred = s->deferred;
    struct gtx_totals t = {0};
    unsigned n = 0;

    for (unsigned i = 0; i < s->n_packets; i++) {
        struct gtx_packet *p = &s->packets[i];

        if (p->m) {
            gtx_judge(g, p);
        }
        if (likely(!deferred)) {
            gtx_answer(g, p);
        }
        if (!p->m) {
            continue;
        }
        t.packets++;
        t.bytes += p->request.size;
        t.multicast += rte_pktmbuf_mtod(p->m, uint8_t *)[0] & 1;
        t.gso += p->request.gso_type != XEN_NETIF_GSO_TYPE_NONE;
        t.blank += p->request.csum_blank;
        pkts[n++] = p->m;
        if (unlikely(p->rest)) {
            if (n < room) {
                pkts[n++] = p->rest;
            } else {
                s->spill = p->rest;
            }
        }
    }
    if (unlikely(deferred)) {
        gtx_mark_partial(g);
    }
    if (t.packets) {
        gtx_count(g, &t);
    }
    return n;
}
