/* Theory of Operation
 * ===================
 *
 * A lane is a ring of pointers with one producer and one consumer, so a push
 * is a few stores.  Lanes hang in a hash table by producer.  They are never
 * taken out of it, only given from one producer to the next, so a producer may
 * look for its lane without a lock and without asking whether what it sees is
 * still there:
 *
 *   FREE  nobody's
 *   0     owner's
 *   BUSY  owner's, who is pushing
 *
 * The state's other bits count its changes, so that no value comes back.  A
 * producer takes its lane by compare-and-swap from 0 to BUSY, the sender takes
 * an empty one away by compare-and-swap from 0 to FREE; each looks at the lane
 * (is it mine? is it empty?) between reading the state and swapping it, and
 * one of them fails.  A producer that is preempted in the middle keeps its
 * lane, no more.
 *
 * The sender does not look at lanes without packets.  A producer that finds
 * its lane unlisted puts it on a stack, which the sender takes whole and
 * appends to its round.  The sender unlists a lane it has emptied and looks
 * once more, so that a push just then is not missed.
 *
 * Deficit round robin (Shreedhar and Varghese, 1995): each visit gives a lane
 * 'quantum' bytes to spend on packets; what it cannot spend it keeps while it
 * has packets. */
#include "fast/portq.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <rte_branch_prediction.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>

#define BUCKETS_LOG2 8u
#define SLOTS_MIN 64u
#define SLOTS_MAX 4096u
/* A packet's buffer is hardly ever smaller. */
#define FOOTPRINT_MIN 2048u
/* A lane that was empty during so many pops is given back. */
#define IDLE_POPS 65536u

/* struct lane's 'state' */
#define BUSY UINT64_C(1)
#define FREE UINT64_C(2)
#define CHANGE UINT64_C(4)

struct lane {
    /* seldom written, by who claims the lane and by the sender who takes it away: */
    _Alignas(64) _Atomic(const void *) owner; /* NULL some time after it is FREE */
    struct rte_mbuf **slots;
    /* constant */
    struct lane *in_bucket;

    /* producer's, in its turn: */
    _Alignas(64) _Atomic uint64_t state; /* see above */
    _Atomic uint32_t head;               /* next slot to fill */
    uint32_t tail_seen;
    size_t pushed, popped_seen; /* buffer bytes, ever */

    _Alignas(64) _Atomic bool listed; /* on the stack or in the sender's round */
    _Atomic bool forgotten;
    struct lane *on_stack;

    /* sender's: */
    _Alignas(64) _Atomic uint32_t tail; /* next slot to empty */
    _Atomic size_t popped;
    bool visited; /* has got its quantum of this visit */
    bool idle;    /* in the list of idle ones, else in the round (or in none) */
    size_t deficit;
    uint64_t idle_since; /* pops */
    struct lane *prev, *next;
};

struct lane_list {
    struct lane *first, *last;
};

struct portq {
    size_t lane_bytes;
    uint32_t quantum, n_slots;
    _Atomic(struct lane *) buckets[1u << BUCKETS_LOG2];

    _Alignas(64) _Atomic(struct lane *) stack;
    /* sender's: */
    _Alignas(64) struct lane_list round, idle;
    uint64_t pops;
    _Atomic bool busy; /* 'round' is not empty */
};

struct portq *
portq_create(size_t lane_bytes, uint32_t quantum)
{
    struct portq *q;

    if (posix_memalign((void **)&q, 64, sizeof *q)) {
        return NULL;
    }
    memset(q, 0, sizeof *q);
    q->lane_bytes = lane_bytes;
    q->quantum = quantum ? quantum : 1;
    q->n_slots = SLOTS_MIN;
    while (q->n_slots < SLOTS_MAX && q->n_slots < lane_bytes / FOOTPRINT_MIN) {
        q->n_slots *= 2;
    }
    return q;
}

/* --- lanes ------------------------------------------------------------------- */

static void
list_append(struct lane_list *list, struct lane *l)
{
    l->prev = list->last;
    l->next = NULL;
    *(list->last ? &list->last->next : &list->first) = l;
    list->last = l;
}

static void
list_remove(struct lane_list *list, struct lane *l)
{
    *(l->prev ? &l->prev->next : &list->first) = l->next;
    *(l->next ? &l->next->prev : &list->last) = l->prev;
}

static _Atomic(struct lane *) *
bucket_of(struct portq *q, const void *producer)
{
    return &q->buckets[((uintptr_t)producer >> 4) * UINT64_C(0x9e3779b97f4a7c15) >>
                       (64 - BUCKETS_LOG2)];
}

static bool
lane_swap(struct lane *l, uint64_t from, uint64_t to)
{
    return atomic_compare_exchange_strong_explicit(&l->state, &from, to, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

/* Makes the lane BUSY if it is in state 'bits' and belongs to 'owner'. */
static bool
lane_take(struct lane *l, const void *owner, uint64_t bits)
{
    if (atomic_load_explicit(&l->owner, memory_order_relaxed) != owner) {
        return false; /* which spares us the line that its producer writes to */
    }
    uint64_t state = atomic_load_explicit(&l->state, memory_order_acquire);

    return (state & (BUSY | FREE)) == bits &&
           atomic_load_explicit(&l->owner, memory_order_acquire) == owner &&
           lane_swap(l, state, (state & ~FREE) | BUSY);
}

static void
lane_release(struct lane *l)
{
    uint64_t state = atomic_load_explicit(&l->state, memory_order_relaxed);

    atomic_store_explicit(&l->state, (state & ~BUSY) + CHANGE, memory_order_release);
}

/* The producer's lane, taken, or NULL. */
static struct lane *
lane_find(struct portq *q, const void *producer)
{
    struct lane *l = atomic_load_explicit(bucket_of(q, producer), memory_order_acquire);

    while (l && !lane_take(l, producer, 0)) {
        l = l->in_bucket;
    }
    return l;
}

/* A new lane in the bucket, taken by 'producer'. */
static struct lane *
lane_new(struct portq *q, const void *producer)
{
    _Atomic(struct lane *) *bucket = bucket_of(q, producer);
    struct lane *l;

    if (posix_memalign((void **)&l, 64, sizeof *l)) {
        return NULL;
    }
    memset(l, 0, sizeof *l);
    atomic_init(&l->state, BUSY);
    l->in_bucket = atomic_load_explicit(bucket, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(bucket, &l->in_bucket, l, memory_order_acq_rel,
                                                  memory_order_relaxed)) {
    }
    return l;
}

/* A lane for a producer that has none, taken. */
static struct lane *
lane_claim(struct portq *q, const void *producer)
{
    struct rte_mbuf **slots = malloc(q->n_slots * sizeof *slots);
    struct lane *l;

    if (!slots) {
        return NULL;
    }
    l = atomic_load_explicit(bucket_of(q, producer), memory_order_acquire);
    while (l && !lane_take(l, NULL, FREE)) {
        l = l->in_bucket;
    }
    l = l ? l : lane_new(q, producer);
    if (!l) {
        free(slots);
        return NULL;
    }
    l->slots = slots;
    atomic_store_explicit(&l->forgotten, false, memory_order_relaxed);
    atomic_store_explicit(&l->owner, producer, memory_order_relaxed);
    return l;
}

/* The sender shall look at the lane.  Call after what it shall see. */
static void
lane_list(struct portq *q, struct lane *l)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&l->listed, memory_order_relaxed) ||
        atomic_exchange_explicit(&l->listed, true, memory_order_acq_rel)) {
        return;
    }
    l->on_stack = atomic_load_explicit(&q->stack, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&q->stack, &l->on_stack, l, memory_order_release,
                                                  memory_order_relaxed)) {
    }
}

/* --- producers --------------------------------------------------------------- */

static size_t
footprint(const struct rte_mbuf *m)
{
    return sizeof *m + m->buf_len;
}

/* How many of the packets fit, and their memory. */
static unsigned
lane_fit(const struct portq *q, struct lane *l, struct rte_mbuf **pkts, unsigned n, size_t *bytes)
{
    size_t used = l->pushed - l->popped_seen,
           room = used < q->lane_bytes ? q->lane_bytes - used : 0;
    unsigned fit = 0;

    *bytes = 0;
    while (fit < n && *bytes + footprint(pkts[fit]) <= room) {
        *bytes += footprint(pkts[fit++]);
    }
    return fit;
}

unsigned
portq_push(struct portq *q, const void *producer, struct rte_mbuf **pkts, unsigned n)
{
    struct lane *l = lane_find(q, producer);
    size_t bytes;

    if (unlikely(!l)) {
        l = lane_claim(q, producer);
        if (!l) {
            return 0;
        }
    }
    uint32_t head = atomic_load_explicit(&l->head, memory_order_relaxed);
    unsigned fit = lane_fit(q, l, pkts, n, &bytes);

    if (unlikely(fit < n || q->n_slots - (head - l->tail_seen) < fit)) {
        l->tail_seen = atomic_load_explicit(&l->tail, memory_order_acquire);
        l->popped_seen = atomic_load_explicit(&l->popped, memory_order_relaxed);
        fit = lane_fit(q, l, pkts, RTE_MIN(n, q->n_slots - (head - l->tail_seen)), &bytes);
    }
    for (unsigned i = 0; i < fit; i++) {
        l->slots[(head + i) & (q->n_slots - 1)] = pkts[i];
    }
    l->pushed += bytes;
    atomic_store_explicit(&l->head, head + fit, memory_order_release);
    if (fit) {
        lane_list(q, l);
    }
    lane_release(l);
    return fit;
}

void
portq_forget(struct portq *q, const void *producer)
{
    struct lane *l = lane_find(q, producer);

    if (l) {
        atomic_store_explicit(&l->forgotten, true, memory_order_relaxed);
        lane_list(q, l);
        lane_release(l);
    }
}

/* --- the sender -------------------------------------------------------------- */

static bool
lane_empty(const struct lane *l)
{
    return atomic_load_explicit(&l->head, memory_order_acquire) ==
           atomic_load_explicit(&l->tail, memory_order_relaxed);
}

/* Takes a lane away from its producer if it is empty and not listed. */
static bool
lane_retire(struct lane *l)
{
    uint64_t state = atomic_load_explicit(&l->state, memory_order_acquire);

    if (state & (BUSY | FREE) || !lane_empty(l) ||
        atomic_load_explicit(&l->listed, memory_order_relaxed) ||
        !lane_swap(l, state, (state + CHANGE) | FREE)) {
        return false;
    }
    free(l->slots);
    l->slots = NULL;
    atomic_store_explicit(&l->owner, NULL, memory_order_release);
    return true;
}

static void
to_round(struct portq *q, struct lane *l)
{
    if (l->idle) {
        list_remove(&q->idle, l);
        l->idle = false;
    }
    l->deficit = 0;
    l->visited = false;
    list_append(&q->round, l);
}

/* Adds what producers have listed, oldest first. */
static void
take_listed(struct portq *q)
{
    struct lane *l, *fifo = NULL;

    if (!atomic_load_explicit(&q->stack, memory_order_relaxed)) {
        return;
    }
    l = atomic_exchange_explicit(&q->stack, NULL, memory_order_acquire);
    while (l) {
        struct lane *older = l->on_stack;

        l->on_stack = fifo;
        fifo = l;
        l = older;
    }
    for (; fifo; fifo = l) {
        l = fifo->on_stack;
        to_round(q, fifo);
    }
}

/* The first lane of the round has no packets left. */
static void
leave_round(struct portq *q, struct lane *l)
{
    list_remove(&q->round, l);
    atomic_store_explicit(&l->listed, false, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (!lane_empty(l)) {
        /* The producer may have listed it meanwhile; then it is on the stack. */
        if (!atomic_exchange_explicit(&l->listed, true, memory_order_acq_rel)) {
            to_round(q, l);
        }
        return;
    }
    if (atomic_load_explicit(&l->forgotten, memory_order_relaxed) && lane_retire(l)) {
        return;
    }
    l->idle = true;
    l->idle_since = q->pops;
    list_append(&q->idle, l);
}

/* Gives back the lane that has been idle longest. */
static void
retire_idle(struct portq *q)
{
    struct lane *l = q->idle.first;

    if (!l || q->pops - l->idle_since < IDLE_POPS) {
        return;
    }
    list_remove(&q->idle, l);
    l->idle = false;
    if (!atomic_load_explicit(&l->listed, memory_order_acquire) && !lane_retire(l)) {
        /* Its producer is about to list it, or holds it without need: later. */
        l->idle = true;
        l->idle_since = q->pops;
        list_append(&q->idle, l);
    }
}

/* Takes up to 'n' packets of the first lane, as its deficit allows, and moves
 * on if it is spent or there are no more. */
static unsigned
visit(struct portq *q, struct lane *l, struct rte_mbuf **pkts, unsigned n)
{
    uint32_t tail = atomic_load_explicit(&l->tail, memory_order_relaxed);
    uint32_t have = atomic_load_explicit(&l->head, memory_order_acquire) - tail;
    size_t bytes = 0;
    unsigned got = 0;
    bool spent = false;

    if (!l->visited) {
        l->deficit += q->quantum;
        l->visited = true;
    }
    for (unsigned i = 0; i < RTE_MIN(have, 4u); i++) {
        rte_prefetch0(l->slots[(tail + i) & (q->n_slots - 1)]);
    }
    while (got < n && got < have) {
        struct rte_mbuf *m = l->slots[(tail + got) & (q->n_slots - 1)];

        if (got + 4 < have) {
            rte_prefetch0(l->slots[(tail + got + 4) & (q->n_slots - 1)]);
        }
        if (m->pkt_len > l->deficit) {
            spent = true;
            break;
        }
        l->deficit -= m->pkt_len;
        bytes += footprint(m);
        pkts[got++] = m;
    }
    atomic_store_explicit(&l->popped,
                          atomic_load_explicit(&l->popped, memory_order_relaxed) + bytes,
                          memory_order_relaxed);
    atomic_store_explicit(&l->tail, tail + got, memory_order_release);
    if (spent) {
        l->visited = false;
        list_remove(&q->round, l);
        list_append(&q->round, l);
    } else if (got == have) {
        leave_round(q, l);
    }
    return got;
}

unsigned
portq_pop(struct portq *q, struct rte_mbuf **pkts, unsigned n)
{
    unsigned got = 0;

    q->pops++;
    take_listed(q);
    retire_idle(q);
    while (got < n && q->round.first) {
        got += visit(q, q->round.first, pkts + got, n - got);
    }
    atomic_store_explicit(&q->busy, q->round.first != NULL, memory_order_relaxed);
    return got;
}

bool
portq_empty(const struct portq *q)
{
    return !atomic_load_explicit(&q->busy, memory_order_relaxed) &&
           !atomic_load_explicit(&q->stack, memory_order_acquire);
}

void
portq_destroy(struct portq *q, void (*free_packets)(struct rte_mbuf **, unsigned n))
{
    struct rte_mbuf *pkts[64];
    unsigned n;

    if (!q) {
        return;
    }
    while ((n = portq_pop(q, pkts, 64)) > 0) {
        free_packets(pkts, n);
    }
    for (unsigned i = 0; i < 1u << BUCKETS_LOG2; i++) {
        struct lane *l = atomic_load_explicit(&q->buckets[i], memory_order_relaxed), *next;

        for (; l; l = next) {
            next = l->in_bucket;
            free(l->slots);
            free(l);
        }
    }
    free(q);
}
