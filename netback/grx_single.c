/* grx_single: packets that take one slot, the short way.
 *
 * Theory of Operation
 * -------------------
 * As in gtx_single.c: a frame that goes whole, without extras, into one page
 * that is mapped, cannot fail.  A burst's packets are delivered this way up to
 * the first that is of another kind.  Their answers are in the log at once and
 * published with those of the rest.
 *
 * Another core has the lines that will be written: the guest has read what was there.
 * To get one back can take a thousand cycles, so all of a burst are asked for
 * before the first is written.  And so that they do not push each other out,
 * frames do not all begin where their pages do. */
#include "grx_priv.h"

/* Copies not made yet. */
#define SINGLE_AHEAD 64u

struct single {
    uint8_t *to;
    const uint8_t *from;
    uint32_t len;
};

/* Where in its page a frame begins.  At the start of each, all of a burst's lines would
 * share a set of the first cache and 1/64 of the second's.  A page has always
 * the same place: what was written last is written again. */
static inline uint16_t
place(uint32_t ref, uint32_t len)
{
    uint32_t at = ref % 64 * RTE_CACHE_LINE_SIZE;

    if (at + len > HV_PAGE_SIZE) {
        at = ref % 32 * RTE_CACHE_LINE_SIZE;
    }
    return at + len > HV_PAGE_SIZE ? 0 : at;
}

/* The flags of the packet's response.  False if it is none of ours; nothing was done. */
static inline bool
decide(const struct grx *g, const struct rte_mbuf *m, uint32_t longest, struct grx_shape *shape)
{
    if (unlikely(m->data_len > longest || !m->data_len || m->nb_segs != 1)) {
        return false;
    }
    if (unlikely(m->ol_flags & (RTE_MBUF_F_TX_L4_MASK | RTE_MBUF_F_TX_TCP_SEG))) {
        grx_shape(shape, m, &g->port->features, g->scratch->mtu);
        return shape->way == GRX_WHOLE && shape->gso_type == XEN_NETIF_GSO_TYPE_NONE;
    }
    shape->layout_valid = false;
    shape->flags = (m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD
                       ? NETRXF_data_validated
                       : 0;
    return true;
}

/* Prepares the answer and finds where the packet goes. */
static inline bool
begin(struct grx *g, struct rte_mbuf *m, uint32_t longest, struct single *p)
{
    struct grx_scratch *s = g->scratch;
    const unsigned i = g->ring.req_cons % RING_SLOTS;
    const netif_rx_request_t *req = &s->req[i];
    struct grx_shape shape;

    if (!decide(g, m, longest, &shape)) {
        return false;
    }
    uint8_t *page = gref_lookup(g->port->grefs, req->gref, true);
    if (unlikely(!page)) {
        return false;
    }
    if (unlikely(shape.layout_valid)) {
        s->totals.computed += grx_shape_apply(&shape, m);
        s->totals.blank += (shape.flags & NETRXF_csum_blank) != 0;
    }
    const uint16_t at = place(req->gref, m->data_len);
    prefetch_write(page + at); /* the rest comes sooner if it is not asked for */
    *p = (struct single){page + at, rte_pktmbuf_mtod(m, const uint8_t *), m->data_len};
    s->rsp[i].rsp = (netif_rx_response_t){
        .id = req->id, .offset = at, .flags = shape.flags, .status = m->data_len};
    s->totals.bytes += m->data_len;
    g->ring.req_cons++;
    return true;
}

unsigned
grx_single(struct grx *g, struct rte_mbuf **pkts, unsigned n, RING_IDX prod)
{
    struct grx_scratch *s = g->scratch;
    const uint32_t longest = RTE_MIN(s->mtu + FRAME_OVERHEAD, HV_PAGE_SIZE);
    const RING_IDX first = g->ring.req_cons;
    struct single packets[SINGLE_AHEAD];
    unsigned begun = 0, done = 0;

    if (!s->batch.use_static || s->hashing || (g->from && g->from->n_partial)) {
        return 0;
    }
    n = RTE_MIN(n, prod - first);
    grx_fetch(g, first + n);
    for (; begun < n; begun++) {
        struct single *p = &packets[begun % SINGLE_AHEAD];

        if (begun + 4 < n) {
            rte_prefetch0(rte_pktmbuf_mtod(pkts[begun + 4], void *));
        }
        if (begun + 8 < n) {
            rte_prefetch0(pkts[begun + 8]);
        }
        if (begun - done == SINGLE_AHEAD) {
            copy_bytes(p->to, p->from, p->len);
            done++;
        }
        if (!begin(g, pkts[begun], longest, p)) {
            break;
        }
    }
    for (; done < begun; done++) {
        const struct single *p = &packets[done % SINGLE_AHEAD];
        copy_bytes(p->to, p->from, p->len);
    }
    s->totals.packets += begun;
    STAT_ADD(g->port->stats->static_copies, begun);
    return begun;
}
