/* spsc: a bounded ring of pointers between one producer and one consumer.
 *
 * Lock-free and wait-free; neither side ever waits for a preempted other.
 * Each side keeps its last sight of the other's index and looks again only
 * when that says full or empty.
 *
 * Threads: one thread pushes and one pops at a time. */
#ifndef SPSC_H
#define SPSC_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

struct spsc {
    /* producer's line */
    _Alignas(64) _Atomic uint32_t head; /* next slot to fill */
    uint32_t tail_seen;
    /* consumer's line */
    _Alignas(64) _Atomic uint32_t tail; /* next slot to empty */
    uint32_t head_seen;
    /* read-only after spsc_init() */
    _Alignas(64) uint32_t mask;
    void **slots;
};

/* 'size' is a power of two.  ENOMEM. */
static inline int
spsc_init(struct spsc *r, uint32_t size)
{
    *r = (struct spsc){.mask = size - 1};
    r->slots = calloc(size, sizeof *r->slots);
    return r->slots ? 0 : ENOMEM;
}

static inline void
spsc_done(struct spsc *r)
{
    free(r->slots);
    r->slots = NULL;
}

/* Producer: how many a push would take, at least 'want' if there is room. */
static inline uint32_t
spsc_space(struct spsc *r, uint32_t want)
{
    uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);

    if (r->mask + 1 - (head - r->tail_seen) < want) {
        r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
    }
    return r->mask + 1 - (head - r->tail_seen);
}

/* Producer: pushes 'n' <= spsc_space() pointers. */
static inline void
spsc_push(struct spsc *r, void *const *items, uint32_t n)
{
    uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);

    for (uint32_t i = 0; i < n; i++) {
        r->slots[(head + i) & r->mask] = items[i];
    }
    atomic_store_explicit(&r->head, head + n, memory_order_release);
}

/* Consumer: pops up to 'n'; returns how many. */
static inline uint32_t
spsc_pop(struct spsc *r, void **items, uint32_t n)
{
    uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

    if (r->head_seen - tail < n) {
        r->head_seen = atomic_load_explicit(&r->head, memory_order_acquire);
    }
    uint32_t have = r->head_seen - tail;
    if (n > have) {
        n = have;
    }
    if (!n) {
        return 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        items[i] = r->slots[(tail + i) & r->mask];
    }
    atomic_store_explicit(&r->tail, tail + n, memory_order_release);
    return n;
}

/* Any thread: whether there is something to pop, as of now. */
static inline bool
spsc_empty(const struct spsc *r)
{
    return atomic_load_explicit(&r->head, memory_order_acquire) ==
           atomic_load_explicit(&r->tail, memory_order_acquire);
}

#endif
