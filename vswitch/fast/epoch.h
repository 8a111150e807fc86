/* epoch: when is memory that readers found without a lock free for reuse?
 *
 * Quiescent-state reclamation for threads that may be preempted anywhere.  A
 * reader is online while it may hold references, says so once a burst, and
 * goes offline before it sleeps.  A writer unlinks something, then either
 * waits until every reader that was online has come round (synchronize), or
 * leaves the object to be freed when they have (defer).
 *
 * Readers never wait and touch one line of their own.  Only writers wait, for
 * readers to come round or go to sleep, without spinning.
 *
 * Threads: a reader belongs to one thread at a time; all else from any thread,
 * but epoch_synchronize() not from an online reader (it would wait for
 * itself). */
#ifndef EPOCH_H
#define EPOCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct epoch_reader {
    _Alignas(64) _Atomic uint64_t seen; /* 0: offline */
    struct epoch_reader *next, **pprev; /* under the list's lock */
};

extern _Atomic uint64_t epoch_now; /* starts at 1 */

void epoch_register(struct epoch_reader *);   /* offline at first */
void epoch_unregister(struct epoch_reader *); /* must be offline */

/* The reader holds no references from before; from now on it may. */
static inline void
epoch_online(struct epoch_reader *r)
{
    /* The store's release and the load's acquire say who saw what in a way
     * that ThreadSanitizer understands; the fence does the work: what the
     * reader loads from now on is no older than what writers see in 'seen'. */
    atomic_store_explicit(&r->seen, atomic_load_explicit(&epoch_now, memory_order_acquire),
                          memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
}

/* As epoch_online() for a reader that is online: once a burst.  Cheap when
 * nobody has waited since. */
static inline void
epoch_quiesce(struct epoch_reader *r)
{
    if (atomic_load_explicit(&epoch_now, memory_order_relaxed) !=
        atomic_load_explicit(&r->seen, memory_order_relaxed)) {
        epoch_online(r);
    }
}

static inline void
epoch_offline(struct epoch_reader *r)
{
    atomic_store_explicit(&r->seen, 0, memory_order_release);
}

static inline bool
epoch_is_online(const struct epoch_reader *r)
{
    return atomic_load_explicit(&r->seen, memory_order_relaxed) != 0;
}

/* Returns when no reader holds a reference from before the call.  Sleeps. */
void epoch_synchronize(void);

/* Calls fn(aux) some time after no reader can hold a reference from before
 * this call: at a later epoch_reclaim() or epoch_synchronize(), on the thread
 * that makes it, so that callers may hold any lock here.  In the order of the
 * calls, except that two threads may run two at a time.  Never waits. */
void epoch_defer(void (*fn)(void *aux), void *aux);
/* Runs what is due.  Never waits for readers.  Call now and then from a slow
 * loop. */
void epoch_reclaim(void);

#endif
