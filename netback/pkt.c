/* pkt: packet buffers through a thread's own stashes (ring.h).
 *
 * These are small because a thousand vifs have two each; large buffers are
 * worth 64 KiB, so only a few of them may rest.  Packets are taken here and
 * freed by the thread of the guest they went to, or the other way round: what
 * counts is that whole bulks pass through the mempool. */
#include "ring_priv.h"

#define SMALL_BULK (PKT_STASH / 4)
#define LARGE_BULK 4u

static uint16_t
frame_room(struct rte_mempool *mp)
{
    uint16_t room = rte_pktmbuf_data_room_size(mp);

    return room > NETBACK_HEADROOM ? room - NETBACK_HEADROOM : 0;
}

/* What an element has behind its struct and private data. */
static size_t
element_room(struct rte_mempool *mp)
{
    return mp->elt_size - sizeof(struct rte_mbuf) - rte_pktmbuf_priv_size(mp);
}

void
pkt_pool_init(struct pkt_pool *p, struct rte_mempool *small, struct rte_mempool *large,
              void (*free_foreign)(struct rte_mbuf *))
{
    *p = (struct pkt_pool){
        .small = small,
        .large = large,
        .small_stash = {.mp = small, .most = PKT_STASH, .bulk = SMALL_BULK},
        .large_stash = {.mp = large, .most = 4 * LARGE_BULK, .bulk = LARGE_BULK},
        .free_foreign = free_foreign,
        .small_room = frame_room(small),
        .large_room = frame_room(large),
        .can_slide = element_room(large) >= rte_pktmbuf_data_room_size(large) + HV_PAGE_SIZE,
    };
}

static void
stash_trim(struct pkt_stash *s)
{
    if (s->n) {
        rte_mempool_generic_put(s->mp, s->objects, s->n, NULL);
        s->n = 0;
    }
}

bool
pkt_stash_refill(struct pkt_stash *s)
{
    for (unsigned n = s->bulk; n; n /= 2) {
        if (!rte_mempool_generic_get(s->mp, s->objects, n, NULL)) {
            s->n = n;
            for (unsigned i = 0; i < RTE_MIN(n, PKT_STASH_AHEAD); i++) {
                rte_prefetch0(s->objects[n - 1 - i]);
            }
            return true;
        }
    }
    return false;
}

static inline void
stash_put(struct pkt_stash *s, struct rte_mbuf *m)
{
    if (unlikely(s->n == s->most)) {
        s->n -= s->bulk;
        rte_mempool_generic_put(s->mp, s->objects + s->n, s->bulk, NULL);
    }
    s->objects[s->n++] = m;
}

void
pkt_pool_trim(struct pkt_pool *p)
{
    stash_trim(&p->small_stash);
    stash_trim(&p->large_stash);
}

void
pkt_pool_done(struct pkt_pool *p)
{
    pkt_pool_trim(p);
    *p = (struct pkt_pool){0};
}

struct rte_mbuf *
pkt_alloc(struct pkt_pool *p, uint32_t len)
{
    bool small = len <= p->small_room;
    struct rte_mbuf *m;

    if (len > p->large_room && !small) {
        return NULL;
    }
    m = pkt_stash_get(small ? &p->small_stash : &p->large_stash);
    if (m) {
        pkt_reset(m, len);
    }
    return m;
}

void
pkt_slide(struct pkt_pool *p, struct rte_mbuf *m, uint32_t ofs, uint32_t page_ofs)
{
    if (m->pool != p->large || !p->can_slide) {
        return;
    }
    /* From where the element's room begins, wherever it was moved before. */
    char *room = rte_mbuf_buf_addr(m, m->pool);
    uint32_t by = (page_ofs - (uint32_t)(uintptr_t)(room + m->data_off + ofs)) % HV_PAGE_SIZE;

    m->buf_iova += room + by - (char *)m->buf_addr;
    m->buf_addr = room + by;
}

/* The mbuf as it goes back to its pool, or NULL: it was not ours, or others
 * still refer to it, or it is not a single segment. */
static struct rte_mbuf *
pkt_release(struct pkt_pool *p, struct rte_mbuf *m)
{
    if (unlikely(m->pool != p->small && m->pool != p->large)) {
        if (p->free_foreign) {
            p->free_foreign(m);
        } else {
            rte_pktmbuf_free(m);
        }
        return NULL;
    }
    /* The usual case needs the first cache line only. */
    if (likely(m->nb_segs == 1 && rte_mbuf_refcnt_read(m) == 1 && RTE_MBUF_DIRECT(m))) {
        return m;
    }
    rte_pktmbuf_free(m);
    return NULL;
}

void
pkt_free(struct pkt_pool *p, struct rte_mbuf *m)
{
    pkt_free_bulk(p, &m, 1);
}

void
pkt_free_bulk(struct pkt_pool *p, struct rte_mbuf **pkts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct rte_mbuf *m = pkt_release(p, pkts[i]);

        if (m) {
            stash_put(m->pool == p->large ? &p->large_stash : &p->small_stash, m);
        }
    }
}
