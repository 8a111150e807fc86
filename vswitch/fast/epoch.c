/* epoch: see epoch.h.
 *
 * epoch_now only grows, and only under the lock.  A reader whose 'seen' is at
 * least T went online, or came round, after epoch_now had become T, so it saw
 * all that was unlinked before.  A reader that reads epoch_now just before it
 * grows and stores 'seen' just after is the case for the fences: either the
 * writer sees its old value and waits, or it sees what the writer unlinked.
 *
 * Waiting is by sleeping: readers are not asked to wake anybody, because that
 * would cost each of their bursts, and one that was preempted comes round in
 * milliseconds, not in the time of a few turns of a loop. */
#include "epoch.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define NAP_FIRST_NS 10000
#define NAP_LONGEST_NS 1000000

struct deferred {
    struct deferred *next;
    uint64_t due; /* once no reader is behind this */
    void (*fn)(void *);
    void *aux;
};

_Atomic uint64_t epoch_now = 1;

/* Guards all of these, and growth of epoch_now.  Held for a look at the
 * readers at most, never while waiting or in a callback. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct epoch_reader *readers;
static struct deferred *first, **last = &first; /* ascending by 'due' */

void
epoch_register(struct epoch_reader *r)
{
    atomic_store_explicit(&r->seen, 0, memory_order_relaxed);
    pthread_mutex_lock(&lock);
    r->next = readers;
    r->pprev = &readers;
    if (readers) {
        readers->pprev = &r->next;
    }
    readers = r;
    pthread_mutex_unlock(&lock);
}

void
epoch_unregister(struct epoch_reader *r)
{
    pthread_mutex_lock(&lock);
    *r->pprev = r->next;
    if (r->next) {
        r->next->pprev = r->pprev;
    }
    pthread_mutex_unlock(&lock);
}

/* Starts an epoch: what was unlinked before is gone for readers that see it.
 * Returns it.  Under the lock. */
static uint64_t
advance(void)
{
    uint64_t now = atomic_fetch_add_explicit(&epoch_now, 1, memory_order_seq_cst) + 1;

    atomic_thread_fence(memory_order_seq_cst);
    return now;
}

/* The oldest epoch an online reader may be in.  Under the lock. */
static uint64_t
oldest(void)
{
    uint64_t min = UINT64_MAX;

    for (struct epoch_reader *r = readers; r; r = r->next) {
        uint64_t seen = atomic_load_explicit(&r->seen, memory_order_acquire);
        if (seen && seen < min) {
            min = seen;
        }
    }
    return min;
}

/* Takes what no reader older than 'limit' can still hold.  Under the lock. */
static struct deferred *
take_due(uint64_t limit)
{
    struct deferred *due = first, **end = &first;

    while (*end && (*end)->due <= limit) {
        end = &(*end)->next;
    }
    if (end == &first) {
        return NULL;
    }
    first = *end;
    *end = NULL;
    if (!first) {
        last = &first;
    }
    return due;
}

static void
run(struct deferred *d)
{
    while (d) {
        struct deferred *next = d->next;
        d->fn(d->aux);
        free(d);
        d = next;
    }
}

void
epoch_synchronize(void)
{
    struct timespec nap = {0, NAP_FIRST_NS};
    struct deferred *due;
    uint64_t target;

    pthread_mutex_lock(&lock);
    target = advance();
    while (oldest() < target) {
        pthread_mutex_unlock(&lock);
        nanosleep(&nap, NULL);
        if (nap.tv_nsec < NAP_LONGEST_NS) {
            nap.tv_nsec *= 2;
        }
        pthread_mutex_lock(&lock);
    }
    due = take_due(target);
    pthread_mutex_unlock(&lock);
    run(due);
}

void
epoch_defer(void (*fn)(void *aux), void *aux)
{
    struct deferred *d = malloc(sizeof *d);

    if (!d) {
        /* It must not run now, and there is no room to note it for later: its
         * memory is lost, which is the least harm. */
        return;
    }
    *d = (struct deferred){.fn = fn, .aux = aux};
    pthread_mutex_lock(&lock);
    /* The lock orders the caller's unlinking before the next advance(). */
    d->due = atomic_load_explicit(&epoch_now, memory_order_relaxed) + 1;
    *last = d;
    last = &d->next;
    pthread_mutex_unlock(&lock);
}

void
epoch_reclaim(void)
{
    struct deferred *due = NULL;

    pthread_mutex_lock(&lock);
    if (first) {
        uint64_t now = atomic_load_explicit(&epoch_now, memory_order_relaxed);
        uint64_t limit = oldest();

        if (now < first->due) {
            now = advance();
            limit = oldest();
        }
        due = take_due(limit < now ? limit : now);
    }
    pthread_mutex_unlock(&lock);
    run(due);
}
