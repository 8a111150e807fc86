/* counters: a flow's statistics and its generation, a slot per worker.
 *
 * Slots are made when a worker first needs one, in chunks; the worker finds
 * its chunk by the flow's id, the engine finds all workers' chunks of an id in
 * a list.  One more chunk per 64 ids, the base, belongs to the engine: what
 * workers had counted that are gone.
 *
 * A cache entry is valid while its generation is its slot's.  Whoever makes an
 * entry takes the slot's generation first and looks at the flow after; whoever
 * changes the flow does so first and raises the generations after: so an entry
 * is either made from the changed flow or has an old generation.  That a flow
 * is gone is such a change, too.  A chunk that a worker adds while a flow is
 * invalidated is no exception: it is in the list before its generation is
 * taken, in one order for all threads (seq_cst).
 *
 * Threads: a slot's counters are written by its worker alone. */
#ifndef COUNTERS_H
#define COUNTERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "engine.h"

struct slot {
    _Alignas(32) _Atomic uint64_t packets;
    _Atomic uint64_t bytes;
    _Atomic int64_t used;
    /* Raised by engine_flow_invalidate() and ..._set_program(). */
    _Atomic uint32_t gen;
    _Atomic uint16_t tcp_flags;
};
_Static_assert(sizeof(struct slot) == 32, "two to a line");

#define CHUNK_SLOTS 64u
#define N_CHUNKS (ENGINE_FLOWS_MAX / CHUNK_SLOTS)

struct chunk {
    struct slot slots[CHUNK_SLOTS];
    struct chunk *_Atomic next;  /* of the same ids */
    uint16_t notes[CHUNK_SLOTS]; /* the worker's: where smc.h has the flow's entry */
};

/* The engine's side: a list for each CHUNK_SLOTS ids. */
struct counters {
    /* Taken for writing where a chunk leaves a list, for reading by who walks
     * one.  Workers, which add chunks, never take it. */
    pthread_rwlock_t leave;
    struct chunk *_Atomic *lists; /* N_CHUNKS */
    struct chunk **base;          /* N_CHUNKS; under the caller's lock */
    uint32_t n_ids;               /* ever handed out */
    uint32_t free_id;             /* the next in the list, through base slots; UINT32_MAX: none */
};

int counters_init(struct counters *); /* ENOMEM */
void counters_done(struct counters *);

/* ENOSPC, ENOMEM. */
int counters_id_alloc(struct counters *, uint32_t *id);
/* Nobody counts in it any more. */
void counters_id_free(struct counters *, uint32_t id);
void counters_raise_gen(struct counters *, uint32_t id);
void counters_sum(const struct counters *, uint32_t id, struct flow_stats *);

/* A worker's side. */
struct slots {
    struct chunk **chunks; /* N_CHUNKS, of which few pages are ever touched */
    unsigned n_chunks;
};

int slots_init(struct slots *); /* ENOMEM */
void slots_done(struct counters *, struct slots *);
/* NULL: no memory. */
struct slot *slots_get(struct counters *, struct slots *, uint32_t id);

/* The worker's note about a flow that slots_get() has found a slot of. */
static inline uint16_t *
slots_note(const struct slots *s, uint32_t id)
{
    return &s->chunks[id / CHUNK_SLOTS]->notes[id % CHUNK_SLOTS];
}

/* Gives back all chunks, their counts to the base.  No entry may lead there. */
void slots_trim(struct counters *, struct slots *);

/* Reserves zeroed memory that costs nothing until it is touched; NULL. */
void *reserve(size_t bytes);
void unreserve(void *, size_t bytes); /* accepts NULL */

static inline void
slot_count(struct slot *s, unsigned packets, uint64_t bytes, int64_t now, uint16_t tcp_flags)
{
    /* Its only writer need not add atomically. */
#define ADD_(field, op, v)                                                                         \
    atomic_store_explicit(&s->field, atomic_load_explicit(&s->field, memory_order_relaxed) op(v),  \
                          memory_order_relaxed)
    ADD_(packets, +, packets);
    ADD_(bytes, +, bytes);
    ADD_(tcp_flags, |, tcp_flags);
#undef ADD_
    atomic_store_explicit(&s->used, now, memory_order_relaxed);
}

#endif
