/* inbox: packets on their way to one queue of a guest.
 *
 * Any number of switch threads push bursts; the queue's thread takes all
 * there is.  A push is one compare-and-swap, taking is one exchange and a
 * reversal.  Nobody spins on a preempted peer.
 *
 * What is chained are bundles.  A bundle is a packet that carries pointers to
 * up to 31 more in its headroom, so that the queue's thread does not have to
 * fetch one packet from another core's cache to learn where the next is.  The
 * link to the next bundle and the number of carried pointers lie in the
 * mbuf's fields hash and packet_type, which nobody needs any more and which
 * are in the first cache line.  A packet without headroom is a bundle of its
 * own.
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

#define INBOX_CARRIED_MAX 31u

static inline struct rte_mbuf *
inbox_next(const struct rte_mbuf *head)
{
    struct rte_mbuf *next;

    memcpy(&next, &head->hash, sizeof next);
    return next;
}

static inline void
inbox_set_next(struct rte_mbuf *head, struct rte_mbuf *next)
{
    _Static_assert(sizeof head->hash >= sizeof next, "a pointer fits");
    memcpy(&head->hash, &next, sizeof next);
}

/* Writes a bundle's packets, its head first, to 'pkts' (room for 32); returns
 * how many. */
static inline unsigned
inbox_unpack(struct rte_mbuf *head, struct rte_mbuf **pkts)
{
    unsigned n = head->packet_type;

    pkts[0] = head;
    if (n) {
        memcpy(pkts + 1, head->buf_addr, n * sizeof *pkts);
    }
    return 1 + n;
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

/* Takes room in the memory bound for as many of the packets, from the first,
 * as fit; returns how many.  Producers may together exceed it by a burst each. */
static inline unsigned
inbox_reserve(struct inbox *in, struct rte_mbuf *const *pkts, unsigned n)
{
    size_t used = atomic_load_explicit(&in->bytes, memory_order_relaxed);
    size_t need = 0;
    unsigned fit;

    for (fit = 0; fit < n; fit++) {
        size_t with = need + pkt_footprint(pkts[fit]);

        if (used + with > in->bytes_max) {
            break;
        }
        need = with;
    }
    if (fit) {
        atomic_fetch_add_explicit(&in->bytes, need, memory_order_relaxed);
    }
    return fit;
}

static inline void
inbox_release(struct inbox *in, size_t bytes)
{
    atomic_fetch_sub_explicit(&in->bytes, bytes, memory_order_relaxed);
}

/* Packets that 'head' can carry. */
static inline unsigned
inbox_room(const struct rte_mbuf *head)
{
    unsigned room = head->data_off / sizeof(struct rte_mbuf *);

    if (rte_mbuf_refcnt_read(head) != 1 || !RTE_MBUF_DIRECT(head)) {
        return 0;
    }
    return room < INBOX_CARRIED_MAX ? room : INBOX_CARRIED_MAX;
}

/* Pushes reserved packets, in order. */
static inline void
inbox_push(struct inbox *in, struct rte_mbuf *const *pkts, unsigned n)
{
    while (n) {
        struct rte_mbuf *head = pkts[0];
        struct rte_mbuf *old = atomic_load_explicit(&in->newest, memory_order_relaxed);
        unsigned room = inbox_room(head), carried = n - 1 < room ? n - 1 : room;

        if (carried) {
            memcpy(head->buf_addr, pkts + 1, carried * sizeof *pkts);
        }
        head->packet_type = carried;
        do {
            inbox_set_next(head, old);
        } while (!atomic_compare_exchange_weak_explicit(
            &in->newest, &old, head, memory_order_release, memory_order_relaxed));
        pkts += 1 + carried;
        n -= 1 + carried;
    }
    inbox_wake(in);
}

static inline bool
inbox_empty(const struct inbox *in)
{
    return !atomic_load_explicit(&in->newest, memory_order_relaxed);
}

/* Takes everything: bundles, oldest first, linked by inbox_next().  '*last'
 * becomes the newest; returns how many packets. */
static inline unsigned
inbox_take(struct inbox *in, struct rte_mbuf **first, struct rte_mbuf **last)
{
    struct rte_mbuf *m = atomic_exchange_explicit(&in->newest, NULL, memory_order_acquire);
    struct rte_mbuf *fifo = NULL;
    unsigned n = 0;

    *last = m;
    while (m) {
        struct rte_mbuf *older = inbox_next(m);

        inbox_set_next(m, fifo);
        n += 1 + m->packet_type;
        fifo = m;
        m = older;
    }
    *first = fifo;
    return n;
}

#endif
