/* synth_buffers: packet buffers that a benchmark port's receive queue cycles.
 *
 * They look like a NIC's ring of descriptors: handed out in a fixed order,
 * each again when its turn comes and it is back.  The buffers form a mempool
 * whose operations only mark a buffer as returned (its reference count, 0
 * while it is with us), so that whoever frees a packet, wherever and by
 * whatever call, returns it, without a lock, a cache or a registered thread.
 * What a polling thread pays is the same for every datapath.
 *
 * Threads: one at a time takes; any gives back, creates or retires. */
#ifndef SYNTH_BUFFERS_H
#define SYNTH_BUFFERS_H

#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>

#include "dp-packet.h"

struct synth_buffers {
    struct rte_mempool *mp;
    struct dp_packet **ring;
    unsigned n;    /* a power of two */
    unsigned next; /* taker's */
};

/* 'n' buffers, each filled with a frame of 'size' bytes.  NULL without memory. */
struct synth_buffers *synth_buffers_create(unsigned n, const void *frame, unsigned size);
/* Frees the buffers, as soon as the last one is back.  Accepts NULL. */
void synth_buffers_retire(struct synth_buffers *);
/* Frees what was retired and has come back since. */
void synth_buffers_reap(void);

extern int synth_buffers_ops; /* index of the mempool operations */

/* --- per packet --------------------------------------------------------------- */

/* Up to 'max' free buffers. */
static inline unsigned
synth_buffers_take(struct synth_buffers *b, struct dp_packet **out, unsigned max)
{
    struct dp_packet *const *ring = b->ring;
    unsigned n = 0, next = b->next, mask = b->n - 1;

    for (unsigned end = next + b->n; n < max && next != end; next++) {
        struct dp_packet *p = ring[next & mask];

        out[n] = p;
        n += !__atomic_load_n(&p->mbuf.refcnt, __ATOMIC_ACQUIRE);
    }
    b->next = next;
    return n;
}

/* Gives back a packet that nobody else refers to.  False if it is not ours. */
static inline bool
synth_buffers_give(struct dp_packet *p)
{
    if (p->source != DPBUF_DPDK || p->mbuf.pool->ops_index != synth_buffers_ops ||
        rte_mbuf_refcnt_read(&p->mbuf) != 1) {
        return false;
    }
    __atomic_store_n(&p->mbuf.refcnt, 0, __ATOMIC_RELEASE);
    return true;
}

#endif
