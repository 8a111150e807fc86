/* grx: packets into a guest's receive ring.
 *
 * Theory of Operation
 * -------------------
 * The guest offers buffers (requests: an id and a grant of one page); a
 * packet takes as many as it needs, in order, and each is answered in the
 * slot it came from:
 *
 *   slot 0        first page of data, the packet's flags
 *   next slots    extra-info (GSO, hash); their buffers stay unused
 *   next slots    further pages of data, NETRXF_more_data on all but the last
 *
 * A burst plans packets one after the other: decides the shape (grx_shape.h),
 * takes buffers, writes the responses into a private mirror of the ring and
 * lists the copies.  It copies whenever the batch is full, and at the end.
 * Then it corrects the responses of packets whose copies failed and publishes
 * all at once, through the log (struct rsp_log), which is that mirror.  rsp_prod == req_cons
 * between bursts.
 *
 * Packets of one slot in a mapped page, while they come first in a burst, are
 * shorter: grx_single.c.
 *
 * A frame is one "unit" in the ring; a packet that must be cut becomes many,
 * each in a buffer of its own until it is copied.  If the guest's buffers run
 * out in the middle, the packet itself is turned into the segment that is
 * left (its headers moved up to the payload not yet delivered) and stays the
 * caller's: nothing is remembered here about packets not consumed, so
 * the caller may drop them at any time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "grx_plan.h"
#include "grx_priv.h"

/* The most copies of one unit: of a partial packet, its head and its pieces, and
 * one more where a piece goes on in the guest's next page. */
#define UNIT_COPIES_MAX (PLAN_COPIES_MAX)

/* Slots in a cache line. */
#define RX_PER_LINE 8u

enum verdict { CONSUMED, NO_SLOTS };

static enum verdict grx_deliver(struct grx *, struct rte_mbuf *, RING_IDX prod);
static void grx_copy(struct grx *);
static void grx_publish(struct grx *, bool *notify);
static void grx_write_answers(netif_rx_sring_t *, const struct rsp_log *);
static void grx_count(struct grx *);

int
grx_init(struct grx *g, struct ring_port *port, void *page)
{
    netif_rx_sring_t *sring = page;
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
    struct rsp_log *log = port->rx_log ? port->rx_log : &g->scratch->own_log;
    if (rsp_log_unfinished(log, answered, prod)) {
        grx_write_answers(sring, log);
        answered = log->to;
        ring_publish(&sring->rsp_prod, &sring->rsp_event, log->from, answered);
    }
    log->from = log->to = answered;
    g->scratch->log = log;
    g->scratch->rsp = (void *)log->rsp;
    g->scratch->fetched = answered;
    BACK_RING_ATTACH(&g->ring, sring, answered, HV_PAGE_SIZE);
    g->port = port;
    return 0;
}

void
grx_done(struct grx *g)
{
    free(g->scratch);
    memset(g, 0, sizeof *g);
}

int
grx_burst(struct grx *g, struct rte_mbuf **pkts, unsigned n, bool *notify)
{
    struct grx_scratch *s = g->scratch;
    int slots = grx_slots(g);
    unsigned done = 0;

    if (slots < 0) {
        return -EPROTO;
    }
    RING_IDX prod = g->ring.req_cons + slots;
    s->mtu = atomic_load_explicit(&g->port->mtu, memory_order_relaxed);
    s->hashing = g->port->hash && atomic_load_explicit(&g->port->hash->flags, memory_order_relaxed);
    s->n_units = 0;
    s->totals = (struct grx_totals){0};
    copy_begin(&s->batch, g->port);
    /* The guest wrote these lines, and answers will overwrite them. */
    for (RING_IDX i = 0; i < n && i < (RING_IDX)slots; i += RX_PER_LINE) {
        prefetch_write(&g->ring.sring->ring[(g->ring.req_cons + i) % RING_SLOTS]);
    }

    for (done = grx_single(g, pkts, n, prod); done < n; done++) {
        if (done + 4 < n) {
            rte_prefetch0(rte_pktmbuf_mtod(pkts[done + 4], void *));
        }
        if (done + 8 < n) {
            rte_prefetch0(pkts[done + 8]);
        }
        if (grx_deliver(g, pkts[done], prod) == NO_SLOTS) {
            break;
        }
    }
    grx_copy(g);
    grx_publish(g, notify);
    grx_count(g);
    pkt_free_bulk(g->port->pool, pkts, done);
    return done;
}

int
grx_slots(const struct grx *g)
{
    RING_IDX free = ring_index_load(&g->ring.sring->req_prod) - g->ring.req_cons;

    return free <= RING_SLOTS ? (int)free : -EPROTO;
}

unsigned
grx_slots_needed(const struct grx *g, const struct rte_mbuf *m)
{
    uint32_t hash, len = m->data_len;
    struct grx_shape shape;
    unsigned extras;

    grx_shape(&shape, m, &g->port->features,
              atomic_load_explicit(&g->port->mtu, memory_order_relaxed));
    if (shape.way == GRX_DROP) {
        return 1; /* any burst gets rid of it */
    }
    extras = g->port->hash &&
             hash_frame(g->port->hash, rte_pktmbuf_mtod(m, uint8_t *), m->data_len, &hash) >= 0;
    extras += shape.gso_type != XEN_NETIF_GSO_TYPE_NONE;
    if (shape.way == GRX_CUT) {
        len = shape.layout.payload + shape.mss; /* the first segment; the rest can wait */
    }
    return grx_data_slots(rte_pktmbuf_mtod(m, uint8_t *), len,
                          g->port->hv->ops->copies_by_page && shape.way == GRX_WHOLE) +
           extras;
}

bool
grx_arm(struct grx *g, unsigned slots)
{
    unsigned wanted = slots < 1 ? 1 : RTE_MIN(slots, RING_SLOTS);

    ring_ask_event(&g->ring.sring->req_event, g->ring.req_cons + wanted);
    /* A broken ring is for the next burst to find. */
    return ring_index_load(&g->ring.sring->req_prod) - g->ring.req_cons >= wanted;
}

/* --- units ---------------------------------------------------------------- */

static void
put_gso_extra(union netif_rx_sring_entry *slot, const struct grx_shape *shape, bool more)
{
    netif_extra_info_t e = {
        .type = XEN_NETIF_EXTRA_TYPE_GSO,
        .flags = more ? XEN_NETIF_EXTRA_FLAG_MORE : 0,
        .u.gso = {.size = shape->mss, .type = shape->gso_type},
    };

    memcpy(slot, &e, sizeof *slot);
}

static void
put_hash_extra(union netif_rx_sring_entry *slot, int type, uint32_t hash)
{
    netif_extra_info_t e = {
        .type = XEN_NETIF_EXTRA_TYPE_HASH,
        .u.hash = {.type = type, .algorithm = XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ},
    };

    memcpy(e.u.hash.value, &hash, sizeof hash); /* least significant byte first */
    memcpy(slot, &e, sizeof *slot);
}

/* Takes a buffer of the guest for 'len' bytes and prepares its response; returns the
 * buffer's grant. */
static inline uint32_t
put_response(struct grx *g, uint16_t len, uint16_t flags)
{
    struct grx_scratch *s = g->scratch;
    unsigned i = g->ring.req_cons++ % RING_SLOTS;

    s->rsp[i].rsp = (netif_rx_response_t){.id = s->req[i].id, .flags = flags, .status = len};
    return s->req[i].gref;
}

/* The same for data of ours. */
static void
put_data(struct grx *g, const uint8_t *data, uint16_t len, uint16_t flags, uint16_t owner)
{
    uint32_t ref = put_response(g, len, flags);

    if (len) {
        copy_to_guest(&g->scratch->batch, ref, data, len, owner);
    }
}

/* The extras that follow slot 0; 'hash_type' is -1 for none. */
static inline void
put_extras(struct grx *g, const struct grx_shape *shape, int hash_type, uint32_t hash)
{
    union netif_rx_sring_entry *rsp = g->scratch->rsp;

    if (shape->gso_type != XEN_NETIF_GSO_TYPE_NONE) {
        put_gso_extra(&rsp[g->ring.req_cons++ % RING_SLOTS], shape, hash_type >= 0);
    }
    if (hash_type >= 0) {
        put_hash_extra(&rsp[g->ring.req_cons++ % RING_SLOTS], hash_type, hash);
    }
}

static inline void
count_unit(struct grx_scratch *s, const struct rte_mbuf *m, const struct grx_shape *shape)
{
    s->totals.packets++;
    s->totals.bytes += m->data_len;
    s->totals.gso += shape->gso_type != XEN_NETIF_GSO_TYPE_NONE;
    s->totals.blank += (shape->flags & NETRXF_csum_blank) != 0;
}

/* Puts one frame into the guest's next slots; false if it has too few. */
static bool
put_unit(struct grx *g, struct rte_mbuf *m, const struct grx_shape *shape, RING_IDX prod)
{
    struct grx_scratch *s = g->scratch;
    const uint8_t *data = rte_pktmbuf_mtod(m, const uint8_t *);
    bool gso = shape->gso_type != XEN_NETIF_GSO_TYPE_NONE;
    uint32_t left = m->data_len, hash = 0;
    int hash_type = s->hashing ? hash_frame(g->port->hash, data, left, &hash) : -1;
    bool by_page = g->port->hv->ops->copies_by_page && shape->way == GRX_WHOLE;
    unsigned n_data = grx_data_slots(data, left, by_page), n_extras = gso + (hash_type >= 0);
    uint16_t owner = s->n_units, flags = shape->flags;
    RING_IDX first = g->ring.req_cons;

    if (prod - first < n_data + n_extras) {
        return false;
    }
    if (!copy_has_room(&s->batch, UNIT_COPIES_MAX)) {
        grx_copy(g);
    }
    s->units[s->n_units++] = (struct grx_unit){first, n_extras, n_data, left, NULL};
    s->failed[owner] = false;
    s->totals.computed += grx_shape_apply(shape, m);
    grx_fetch(g, first + n_data + n_extras);

    flags |= n_extras ? NETRXF_extra_info : 0;
    uint16_t len = grx_first_len(data, left, by_page);
    for (unsigned i = 0; i < n_data; i++) {
        left -= len;
        put_data(g, data, len, flags | (left ? NETRXF_more_data : 0), owner);
        data += len;
        len = RTE_MIN(left, HV_PAGE_SIZE);
        flags = 0;
        if (i == 0) {
            put_extras(g, shape, hash_type, hash);
        }
    }
    count_unit(s, m, shape);
    return true;
}

/* Puts a partial packet into the guest's next slots, its head from our buffer and
 * the rest from the sender's pages; false if there are too few. */
static bool
put_partial(struct grx *g, struct rte_mbuf *m, const struct grx_shape *shape, RING_IDX prod)
{
    struct grx_scratch *s = g->scratch;
    const uint8_t *data = rte_pktmbuf_mtod(m, const uint8_t *), *at;
    bool gso = shape->gso_type != XEN_NETIF_GSO_TYPE_NONE;
    uint16_t owner = s->n_units, flags = shape->flags;
    RING_IDX first = g->ring.req_cons;
    uint32_t hash = 0, refs[PLAN_SLOTS_MAX];
    int hash_type = s->hashing ? hash_frame(g->port->hash, data, m->data_len, &hash) : -1;
    unsigned n_extras = gso + (hash_type >= 0);
    struct gtx_piece pieces[XEN_NETIF_NR_SLOTS_MIN];
    unsigned n_pieces = gtx_pieces(g->from, m, pieces, &at);
    struct grx_plan plan;

    grx_plan(&plan, at - data, pieces, n_pieces, !(s->batch.use_static && g->from->port->grefs->n));
    if (prod - first < plan.n_slots + n_extras) {
        return false;
    }
    if (!copy_has_room(&s->batch, UNIT_COPIES_MAX)) {
        grx_copy(g);
    }
    s->units[s->n_units++] = (struct grx_unit){first, n_extras, plan.n_slots, m->data_len, m};
    s->failed[owner] = false;
    grx_shape_apply(shape, m);
    grx_fetch(g, first + plan.n_slots + n_extras);

    flags |= n_extras ? NETRXF_extra_info : 0;
    for (unsigned i = 0; i < plan.n_slots; i++) {
        refs[i] =
            put_response(g, plan.len[i], flags | (i + 1 < plan.n_slots ? NETRXF_more_data : 0));
        flags = 0;
        if (i == 0) {
            put_extras(g, shape, hash_type, hash);
        }
    }
    copy_to_guest(&s->batch, refs[0], data, at - data, owner);
    for (unsigned i = 0; i < plan.n_copies; i++) {
        const struct plan_copy *c = &plan.copy[i];
        copy_between(&s->batch, g->from->port, c->ref, c->offset, refs[c->slot], c->to, c->len,
                     owner);
    }
    s->totals.one_copy++;
    count_unit(s, m, shape);
    return true;
}

/* --- cutting -------------------------------------------------------------- */

/* Turns 'm' into the segment that is left after 'done' bytes of its payload,
 * 'n_done' wire segments. */
static void
keep_remainder(struct rte_mbuf *m, const struct grx_shape *shape, uint32_t done, unsigned n_done)
{
    struct frame_layout l = shape->layout;
    uint8_t *old = rte_pktmbuf_mtod(m, uint8_t *);
    uint32_t left = l.l3_end - l.payload - done;

    memmove(old + done, old, l.payload);
    gso_part_headers(old + done, &l, &(struct gso_part){done, left, n_done, true});
    m->data_off += done;
    m->data_len = l.payload + left;
    m->pkt_len = m->data_len;
}

static void
grx_drop(struct grx *g, enum drop_reason reason)
{
    STAT_ADD(g->port->stats->drops[reason], 1);
}

/* Delivers the wire segments of 'm', as many as the guest has room for. */
static enum verdict
deliver_cut(struct grx *g, struct rte_mbuf *m, const struct grx_shape *shape, RING_IDX prod)
{
    const struct frame_layout *l = &shape->layout;
    struct grx_scratch *s = g->scratch;
    struct grx_shape each = {.way = GRX_CUT, .flags = shape->flags};
    struct gso_iter it;
    unsigned n = 0;

    if (!gso_begin(&it, rte_pktmbuf_mtod(m, uint8_t *), m->data_len, shape->mss, GSO_TUNNEL_NONE, 0,
                   shape->blank_cut)) {
        grx_drop(g, DROP_GRX_TOO_LONG);
        return CONSUMED;
    }
    for (unsigned total = gso_count(&it); n < total; n++) {
        struct rte_mbuf *seg = pkt_alloc(g->port->pool, l->payload + shape->mss);
        if (!seg) {
            grx_drop(g, DROP_GRX_NO_BUFFER);
            return CONSUMED;
        }
        seg->data_len = gso_next(&it, rte_pktmbuf_mtod(seg, uint8_t *), l->payload + shape->mss);
        seg->pkt_len = seg->data_len;
        if (!put_unit(g, seg, &each, prod)) {
            pkt_free(g->port->pool, seg);
            if (n) {
                keep_remainder(m, shape, (uint32_t)n * shape->mss, n);
            }
            return NO_SLOTS;
        }
        s->cut[s->n_cut++] = seg;
        s->totals.cut++;
        s->totals.computed += !shape->blank_cut;
    }
    return CONSUMED;
}

static enum verdict
grx_deliver(struct grx *g, struct rte_mbuf *m, RING_IDX prod)
{
    struct grx_scratch *s = g->scratch;
    struct grx_shape shape;

    if (prod == g->ring.req_cons) {
        return NO_SLOTS;
    }
    grx_shape(&shape, m, &g->port->features, s->mtu);
    if (unlikely(shape.way == GRX_DROP)) {
        grx_drop(g, DROP_GRX_TOO_LONG);
        return CONSUMED;
    }
    if (unlikely(g->from) && gtx_is_partial(g->from, m)) {
        if (shape.way == GRX_WHOLE && (!shape.layout_valid || shape.flags & NETRXF_csum_blank)) {
            return put_partial(g, m, &shape, prod) ? CONSUMED : NO_SLOTS;
        }
        if (!gtx_bring(g->from, m)) {
            return CONSUMED;
        }
    }
    if (unlikely(shape.way == GRX_CUT)) {
        return deliver_cut(g, m, &shape, prod);
    }
    return put_unit(g, m, &shape, prod) ? CONSUMED : NO_SLOTS;
}

/* --- end of a burst ------------------------------------------------------- */

/* Makes the copies listed so far. */
static void
grx_copy(struct grx *g)
{
    struct grx_scratch *s = g->scratch;

    copy_run(&s->batch, s->failed);
    pkt_free_bulk(g->port->pool, s->cut, s->n_cut);
    s->n_cut = 0;
}

/* Marks every page of a frame of which one was refused. */
static void
fail_unit(struct grx *g, const struct grx_unit *u)
{
    struct grx_scratch *s = g->scratch;

    for (unsigned i = 0; i < u->n_data; i++) {
        RING_IDX slot = u->first + i + (i ? u->n_extras : 0);
        s->rsp[slot % RING_SLOTS].rsp.status = NETIF_RSP_ERROR;
    }
    s->totals.packets--;
    s->totals.bytes -= u->len;
    STAT_ADD(g->port->stats->errors_responded, u->n_data);
    s->totals.one_copy -= u->m != NULL;
    /* Whose grant was it?  If the sender's, it is told so there. */
    if (!u->m || gtx_bring(g->from, u->m)) {
        grx_drop(g, DROP_GRX_BAD_GRANT);
    }
}

static void
grx_publish(struct grx *g, bool *notify)
{
    struct grx_scratch *s = g->scratch;
    RING_IDX answered = g->ring.rsp_prod_pvt;

    for (unsigned i = 0; i < s->n_units; i++) {
        if (unlikely(s->failed[i])) {
            fail_unit(g, &s->units[i]);
        }
    }
    if (g->ring.req_cons == answered) {
        return;
    }
    g->ring.rsp_prod_pvt = g->ring.req_cons;
    log_order();
    s->log->to = g->ring.rsp_prod_pvt;
    log_order();
    grx_write_answers(g->ring.sring, s->log);
    *notify |= ring_publish(&g->ring.sring->rsp_prod, &g->ring.sring->rsp_event, answered,
                            g->ring.rsp_prod_pvt);
    log_order();
    s->log->from = s->log->to;
}

/* Writes the responses under way over their requests. */
static void
grx_write_answers(netif_rx_sring_t *sring, const struct rsp_log *log)
{
    RING_IDX n = log->to - log->from, first = log->from % RING_SLOTS;
    RING_IDX straight = RTE_MIN(n, RING_SLOTS - first);

    memcpy(&sring->ring[first], &log->rsp[first], straight * sizeof log->rsp[0]);
    memcpy(&sring->ring[0], &log->rsp[0], (n - straight) * sizeof log->rsp[0]);
}

static void
grx_count(struct grx *g)
{
    const struct grx_totals *t = &g->scratch->totals;
    struct queue_stats *stats = g->port->stats;

    STAT_ADD(stats->tx_packets, t->packets);
    STAT_ADD(stats->tx_bytes, t->bytes);
    STAT_ADD(stats->tx_gso, t->gso);
    STAT_ADD(stats->tx_csum_blank, t->blank);
    STAT_ADD(stats->csum_computed, t->computed);
    STAT_ADD(stats->segments_cut, t->cut);
    STAT_ADD(stats->tx_one_copy, t->one_copy);
}
