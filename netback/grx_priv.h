/* grx_priv: a grx's inside, shared by its files. */
#ifndef GRX_PRIV_H
#define GRX_PRIV_H

#include "grx_shape.h"
#include "ring_priv.h"

struct grx_unit {
    RING_IDX first;
    uint8_t n_extras, n_data;
    uint16_t len;       /* bytes of the frame */
    struct rte_mbuf *m; /* a partial packet, or NULL */
};

struct grx_totals {
    uint64_t packets, bytes, gso, blank, computed, cut, one_copy;
};

struct grx_scratch {
    RING_IDX fetched; /* slots before it are in 'req' */
    uint16_t mtu;
    bool hashing;
    unsigned n_units;
    unsigned n_cut; /* buffers with cut segments, to be freed once copied */
    struct grx_totals totals;
    struct grx_unit units[RING_SLOTS];
    bool failed[RING_SLOTS]; /* by unit */
    struct rte_mbuf *cut[RING_SLOTS];
    netif_rx_request_t req[RING_SLOTS]; /* private copies, by slot */
    struct rsp_log *log;                /* the port's, or 'own_log' */
    union netif_rx_sring_entry *rsp;    /* to be published, by slot: log->rsp */
    struct rsp_log own_log;
    struct copy_batch batch;
};

/* Copies the guest's slots before 'end' that are not in 'req' yet: each once in its life. */
static inline void
grx_fetch(struct grx *g, RING_IDX end)
{
    struct grx_scratch *s = g->scratch;

    if ((int32_t)(end - s->fetched) > 0) {
        ring_fetch_rx(s->req, g->ring.sring->ring, s->fetched, end);
        s->fetched = end;
    }
}

/* --- grx_single.c -------------------------------------------------------- */

/* Delivers the first of 'pkts' that take one slot each, without extras, in a page under a
 * static grant; 'prod' as the guest's index says.  Returns how many; the
 * caller frees them. */
unsigned grx_single(struct grx *, struct rte_mbuf **pkts, unsigned n, RING_IDX prod);

#endif
