/* pkt: packet buffers through a thread's own mempool caches (ring.h).
 *
 * The caches are small because a thousand vifs have one each; large buffers
 * are worth 64 KiB, so only a few of them may rest in a cache. */
#include "ring.h"

#include <errno.h>

#include <rte_branch_prediction.h>
#include <rte_prefetch.h>

#define SMALL_CACHED 32u
#define LARGE_CACHED 4u
#define FREE_CHUNK 64u
#define PREFETCH_AHEAD 4u

static uint16_t
frame_room(struct rte_mempool *mp)
{
    uint16_t room = rte_pktmbuf_data_room_size(mp);

    return room > NETBACK_HEADROOM ? room - NETBACK_HEADROOM : 0;
}

int
pkt_pool_init(struct pkt_pool *p, struct rte_mempool *small, struct rte_mempool *large,
              void (*free_foreign)(struct rte_mbuf *))
{
    *p = (struct pkt_pool){
        .small = small,
        .large = large,
        .free_foreign = free_foreign,
        .small_room = frame_room(small),
        .large_room = frame_room(large),
    };
    p->small_cache = rte_mempool_cache_create(SMALL_CACHED, SOCKET_ID_ANY);
    if (!p->small_cache) {
        return ENOMEM;
    }
    p->large_cache = rte_mempool_cache_create(LARGE_CACHED, SOCKET_ID_ANY);
    if (!p->large_cache) {
        goto free_small;
    }
    return 0;

free_small:
    rte_mempool_cache_free(p->small_cache);
    *p = (struct pkt_pool){0};
    return ENOMEM;
}

void
pkt_pool_trim(struct pkt_pool *p)
{
    if (p->small_cache) {
        rte_mempool_cache_flush(p->small_cache, p->small);
    }
    if (p->large_cache) {
        rte_mempool_cache_flush(p->large_cache, p->large);
    }
}

void
pkt_pool_done(struct pkt_pool *p)
{
    pkt_pool_trim(p);
    if (p->small_cache) {
        rte_mempool_cache_free(p->small_cache);
    }
    if (p->large_cache) {
        rte_mempool_cache_free(p->large_cache);
    }
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
    struct rte_mempool_cache *cache = small ? p->small_cache : p->large_cache;
    if (rte_mempool_generic_get(small ? p->small : p->large, (void **)&m, 1, cache)) {
        return NULL;
    }
    /* Most buffers were last touched by another core. */
    if (likely(cache->len >= PREFETCH_AHEAD)) {
        rte_prefetch0(cache->objs[cache->len - PREFETCH_AHEAD]);
    }
    /* What lies in a pool has one reference, one segment and no next
     * (rte_mbuf.h); the rest of the first cache line is ours to set.  The
     * second is left alone until an offload needs it. */
    m->data_off = NETBACK_HEADROOM;
    m->port = RTE_MBUF_PORT_INVALID;
    m->ol_flags = 0;
    m->packet_type = 0;
    m->vlan_tci = 0;
    m->data_len = len;
    m->pkt_len = len;
    return m;
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
    void *small[FREE_CHUNK];
    unsigned n_small = 0;

    for (unsigned i = 0; i < n; i++) {
        struct rte_mbuf *m = pkt_release(p, pkts[i]);

        if (!m) {
            continue;
        }
        if (m->pool == p->large) {
            rte_mempool_generic_put(p->large, (void **)&m, 1, p->large_cache);
            continue;
        }
        small[n_small++] = m;
        if (n_small == FREE_CHUNK) {
            rte_mempool_generic_put(p->small, small, n_small, p->small_cache);
            n_small = 0;
        }
    }
    if (n_small) {
        rte_mempool_generic_put(p->small, small, n_small, p->small_cache);
    }
}
