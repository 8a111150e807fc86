/* gtx_single: packets of one slot, the short way.
 *
 * Theory of Operation
 * -------------------
 * Most small packets have one slot, no extra, and lie in a page under a static
 * grant.  Of such a packet nothing is left to find out, to wait for or to go
 * wrong once its slot was checked, but its offloads; so it needs no entry in
 * 'packets', no list of copies, and no pass over the burst of its own for each
 * stage.  A burst's packets are taken this way up to the first that is of
 * another kind; what follows goes through gtx_collect(), in order.
 *
 * What lies in the guest's page is another core's: it is asked for as soon as
 * the slot was checked, and copied SINGLE_AHEAD packets later.  Were all of a
 * burst asked for first, then pages' first lines, which share a set of the
 * first cache, would push each other out. */
#include "gtx_priv.h"

/* Copies not made yet. */
#define SINGLE_AHEAD 16u

struct single {
    const uint8_t *from;
    struct rte_mbuf *m;
};

struct totals {
    uint64_t packets, bytes, multicast, blank;
};

/* Checks a slot, finds its page and a buffer.  False if it is none of ours: nothing
 * was done. */
static inline bool
begin(struct gtx *g, const netif_tx_request_t *slot, uint32_t longest, struct single *p)
{
    const uint32_t size = slot->size;

    if (unlikely((slot->flags & ~(NETTXF_csum_blank | NETTXF_data_validated)) ||
                 size < ETH_HDR_LEN || size > longest || slot->offset + size > HV_PAGE_SIZE)) {
        return false;
    }
    const uint8_t *page = gref_lookup(g->port->grefs, slot->gref, false);
    if (unlikely(!page)) {
        return false;
    }
    p->from = page + slot->offset;
    /* The processor finds the rest of a long frame by itself, and sooner. */
    rte_prefetch0(p->from);
    rte_prefetch0(p->from + RTE_CACHE_LINE_SIZE);
    p->m = pkt_stash_get(&g->port->pool->small_stash);
    if (unlikely(!p->m)) {
        return false;
    }
    prefetch_write((char *)p->m->buf_addr + NETBACK_HEADROOM);
    return true;
}

/* The packet's offloads are as its slot says; or it is dropped. */
static __attribute__((noinline)) bool
offloads(struct gtx *g, const netif_tx_request_t *slot, struct rte_mbuf *m)
{
    const struct gtx_request request = {
        .csum_blank = slot->flags & NETTXF_csum_blank,
        .data_validated = slot->flags & NETTXF_data_validated,
        .size = slot->size,
    };
    struct frame_layout layout;
    enum drop_reason reason = gtx_frame_offloads(m, &request, g->scratch->mtu, &layout);

    if (likely(reason == DROP_N_REASONS)) {
        return true;
    }
    STAT_ADD(g->port->stats->drops[reason], 1);
    STAT_ADD(g->port->stats->errors_responded, 1);
    pkt_free(g->port->pool, m);
    return false;
}

/* Copies the packet, answers its slot, and says whether it may pass. */
static inline bool
finish(struct gtx *g, const netif_tx_request_t *slot, const struct single *p, struct totals *t)
{
    struct rte_mbuf *m = p->m;
    bool passes = true;

    pkt_reset(m, slot->size);
    uint8_t *frame = rte_pktmbuf_mtod(m, uint8_t *);
    copy_bytes(frame, p->from, slot->size);
    if (slot->flags) {
        passes = offloads(g, slot, m);
    }
    gtx_respond(g, slot->id, likely(passes) ? NETIF_RSP_OKAY : NETIF_RSP_ERROR);
    if (likely(passes)) {
        t->packets++;
        t->bytes += slot->size;
        t->multicast += frame[0] & 1;
        t->blank += (slot->flags & NETTXF_csum_blank) != 0;
    }
    return passes;
}

static void
count(struct queue_stats *stats, const struct totals *t, unsigned copies)
{
    STAT_ADD(stats->rx_packets, t->packets);
    STAT_ADD(stats->rx_bytes, t->bytes);
    STAT_ADD(stats->rx_multicast, t->multicast);
    STAT_ADD(stats->rx_csum_blank, t->blank);
    STAT_ADD(stats->static_copies, copies);
}

unsigned
gtx_single(struct gtx *g, struct rte_mbuf **pkts, unsigned room)
{
    struct gtx_scratch *s = g->scratch;
    const uint32_t longest = RTE_MIN(s->mtu + FRAME_OVERHEAD, g->port->pool->small_room);
    const RING_IDX first = g->ring.req_cons;
    const unsigned n = RTE_MIN(RTE_MIN(room, GTX_BURST_MAX), s->fetched - first);
    struct single packets[GTX_BURST_MAX];
    struct totals t = {0};
    unsigned begun = 0, done = 0, n_out = 0;
    size_t left = g->turn_left;

    if (!s->batch.use_static || g->credit_bytes || s->discard != DISCARD_NONE) {
        return 0;
    }
    for (; begun < n && left; begun++) {
        const netif_tx_request_t *slot = slot_at(s, first + begun);

        if (!begin(g, slot, longest, &packets[begun])) {
            break;
        }
        left -= RTE_MIN(left, slot->size);
        if (begun - done == SINGLE_AHEAD) {
            pkts[n_out] = packets[done].m;
            n_out += finish(g, slot_at(s, first + done), &packets[done], &t);
            done++;
        }
    }
    for (; done < begun; done++) {
        pkts[n_out] = packets[done].m;
        n_out += finish(g, slot_at(s, first + done), &packets[done], &t);
    }
    if (begun) {
        g->turn_left = left;
        g->ring.req_cons += begun;
        count(g->port->stats, &t, begun);
    }
    return n_out;
}
