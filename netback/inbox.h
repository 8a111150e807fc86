/* inbox: packets on their way to one queue of a guest.
 *
 * Any number of switch threads push bursts; the queue's thread takes all
 * there is.  A push is one compare-and-swap of a chain of packets; taking is
 * one exchange and a reversal.  Nobody spins on a preempted peer.
 *
 * Packets are linked through the mbuf's hash field, which nobody needs any
 * more: it lies in the first cache line, mbuf->next in the second, and that
 * line then need not travel from one core to the other.
 *
 * The bound is in buffer memory, counts what the queue's thread has taken
 * but not delivered as well, and is enforced here, at the tail.
 *
 * Ownership: a pushed packet belongs to the inbox, a taken one to the queue's
 * thread, which reports its memory back with inbox_release(). */
#ifndef INBOX_H
#define INBOX_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_mbuf.h>

#include "ring.h"

struct inbox {
    _Alignas(64) _Atomic(struct rte_mbuf *) newest;
    _Atomic size_t bytes; /* buffer memory pushed and not released */
    _Atomic bool asleep;  /* the queue's thread wants wake_fd written */
    _Atomic bool stalled; /* the guest takes nothing: producers drop at once */
    /* read-only while attached */
    size_t bytes_max;
    int wake_fd; /* eventfd of the queue's thread */
};

static inline struct rte_mbuf *
inbox_next(const struct rte_mbuf *m)
{
    struct rte_mbuf *next;

    memcpy(&next, &m->hash, sizeof next);
    return next;
}

static inline void
inbox_set_next(struct rte_mbuf *m, struct rte_mbuf *next)
{
    _Static_assert(sizeof m->hash >= sizeof next, "a pointer fits");
    memcpy(&m->hash, &next, sizeof next);
}

/* Wakes the queue's thread if it sleeps.  Call after publishing work. */
static inline void
inbox_wake(struct inbox *in)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&in->asleep, memory_order_relaxed) &&
        atomic_exchange_explicit(&in->asleep, false, memory_order_relaxed)) {
        (void)!eventfd_write(in->wake_fd, 1);
    }
}

/* Takes room for 'm' in the memory bound; false if there is none. */
static inline bool
inbox_reserve(struct inbox *in, const struct rte_mbuf *m)
{
    size_t need = pkt_footprint(m);

    if (atomic_load_explicit(&in->bytes, memory_order_relaxed) + need > in->bytes_max) {
        return false;
    }
    atomic_fetch_add_explicit(&in->bytes, need, memory_order_relaxed);
    return true;
}

static inline void
inbox_release(struct inbox *in, size_t bytes)
{
    atomic_fetch_sub_explicit(&in->bytes, bytes, memory_order_relaxed);
}

/* Pushes a chain of reserved packets, linked newest first. */
static inline void
inbox_push_chain(struct inbox *in, struct rte_mbuf *newest, struct rte_mbuf *oldest)
{
    struct rte_mbuf *old = atomic_load_explicit(&in->newest, memory_order_relaxed);

    do {
        inbox_set_next(oldest, old);
    } while (!atomic_compare_exchange_weak_explicit(&in->newest, &old, newest, memory_order_release,
                                                    memory_order_relaxed));
    inbox_wake(in);
}

static inline bool
inbox_empty(const struct inbox *in)
{
    return !atomic_load_explicit(&in->newest, memory_order_relaxed);
}

/* Takes everything, oldest first, linked by inbox_next().  '*last' becomes the
 * newest; returns how many. */
static inline unsigned
inbox_take(struct inbox *in, struct rte_mbuf **first, struct rte_mbuf **last)
{
    struct rte_mbuf *m = atomic_exchange_explicit(&in->newest, NULL, memory_order_acquire);
    struct rte_mbuf *fifo = NULL;
    unsigned n = 0;

    *last = m;
    for (; m; n++) {
        struct rte_mbuf *older = inbox_next(m);
        inbox_set_next(m, fifo);
        fifo = m;
        m = older;
    }
    *first = fifo;
    return n;
}

#endif
