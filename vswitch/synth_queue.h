/* synth_queue: the receive queues of a benchmark port.
 *
 * A queue owns a ring of buffers and a sequence of flows.  A burst takes free
 * buffers in order and rewrites headers and descriptor fields of each, so that
 * nothing a datapath did to the packet before is left.
 *
 * At a set rate, packet k arrives at start + k / rate, whether somebody polls
 * or not.  What has arrived but was not taken waits, as many as there are
 * buffers; more are lost and counted as missed.  A stamped frame carries its
 * time of arrival in its last eight bytes: the wait for a busy polling thread
 * is part of what a receiver measures.
 *
 * Threads: one at a time polls a queue; synth_queue_packets() and
 * synth_queue_missed() from any. */
#ifndef SYNTH_QUEUE_H
#define SYNTH_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "dp-packet.h"
#include "ovs-atomic.h"
#include "synth_buffers.h"
#include "synth_flows.h"

/* Packets a second, and what is no number of them. */
#define SYNTH_UNLIMITED UINT64_C(0)
#define SYNTH_STOPPED UINT64_MAX

struct synth_pace {
    uint64_t rate;  /* what the rest is for */
    uint64_t start; /* TSC */
    uint64_t done;  /* arrived since, and taken or lost */
    double per_cycle;
};

struct synth_queue {
    struct synth_buffers *buffers; /* NULL: nothing ever comes */
    const struct synth_flows *flows;
    bool stamp;
    unsigned share; /* queues that share the port's rate */
    struct synth_source source;
    struct synth_pace pace;
    struct synth_pace attack;
    atomic_ullong packets, missed; /* written by the polling thread */
} __attribute__((aligned(CACHE_LINE_SIZE)));

/* Queue 'i' of 'n' with 'n_desc' buffers.  'flows' stays the caller's.  False
 * without memory. */
bool synth_queue_init(struct synth_queue *, const struct synth_flows *flows, unsigned i, unsigned n,
                      unsigned n_desc, bool stamp);
void synth_queue_uninit(struct synth_queue *);

/* Up to 'max' packets into 'out', the caller's from then on; returns how many. */
unsigned synth_queue_burst(struct synth_queue *, uint64_t rate, struct dp_packet **out,
                           unsigned max);

/* Called instead, while nothing shall come: what follows starts afresh. */
static inline void
synth_queue_stop(struct synth_queue *q)
{
    q->pace.rate = SYNTH_STOPPED;
}

uint64_t synth_queue_packets(const struct synth_queue *);
uint64_t synth_queue_missed(const struct synth_queue *);

/* True if the packet carries a stamp; sets '*cycles' to how long ago, at 'now'
 * of the time stamp counter, it arrived. */
bool synth_queue_age(const struct dp_packet *, uint64_t now, uint64_t *cycles);

/* --- counters with one writer ------------------------------------------------ */

static inline void
synth_bump(atomic_ullong *counter, uint64_t n)
{
    unsigned long long before;

    atomic_read_relaxed(counter, &before);
    atomic_store_relaxed(counter, before + n);
}

static inline uint64_t
synth_peek(const atomic_ullong *counter)
{
    unsigned long long n;

    atomic_read_relaxed(CONST_CAST(atomic_ullong *, counter), &n);
    return n;
}

#endif
