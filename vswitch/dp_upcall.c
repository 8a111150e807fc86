/* Theory of Operation
 * ===================
 *
 * Producers are the threads that handle packets; consumers are ofproto's
 * handler threads, each of which has a queue of its own here.  A flow's
 * packets all go to the same queue, so they stay in order until the flow is
 * installed.
 *
 * A producer copies the packet and its flow into one buffer, pushes that
 * onto the queue's stack with compare-and-swap, and wakes the handler if that
 * sleeps.  It never waits for anybody, nor does anybody wait for it: a
 * producer that is preempted anywhere has either pushed or not.
 *
 * A consumer takes the whole stack with one exchange, turns it round and sorts
 * it into lanes, one per port, which it serves in turn.  So the miss of a
 * quiet vif waits for one packet of every other port at most.
 *
 * Bounds.  What a port has in all queues together is counted in its quota:
 * misses and actions apart, so that neither keeps the other out, and buffer
 * memory.  Of the misses, packets whose flows share one of 16 hash buckets may
 * be a quarter at most: a flood of one flow leaves room for others.  A packet
 * over a bound is dropped before anything is copied.
 *
 * Sleeping.  Before a handler sleeps it "arms" its queue: it stores an odd
 * ticket and looks at the stack once more.  A producer that finds an odd
 * ticket writes to the eventfd, and only then makes the ticket even, by
 * compare-and-swap, so that a slow producer's late store cannot disarm a later
 * sleep.  A handler that is awake costs producers one load. */
#include <config.h>

#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "coverage.h"
#include "dp.h"
#include "dp_upcall_copy.h"
#include "hash.h"
#include "openvswitch/hmap.h"
#include "openvswitch/list.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "packets.h"

#include "util.h"

VLOG_DEFINE_THIS_MODULE(dp_upcall);

COVERAGE_DEFINE(weft_upcall);
COVERAGE_DEFINE(weft_upcall_lost);

/* What a port may have waiting.  A vif is one guest; other ports carry the
 * flows of many. */
struct bounds {
    uint32_t packets; /* of misses, and again of actions */
    uint32_t bytes;   /* of buffer memory */
};
static const struct bounds vif_bounds = {128, 1u << 20};
static const struct bounds port_bounds = {1024, 8u << 20};

#define FLOW_BUCKETS 16u
/* What one bucket may have of a port's misses: one part in so many. */
#define FLOW_SHARE 4u

/* One port's packets in all queues. */
struct quota {
    _Alignas(64) _Atomic uint32_t misses;
    _Atomic uint32_t actions, bytes;
    _Atomic uint16_t buckets[FLOW_BUCKETS]; /* of 'misses' */
};

/* The last is for packets that came in on no port. */
#define N_QUOTAS (ENGINE_PORTS_MAX + 1u)

/* A port's packets in one queue, oldest first. */
struct lane {
    struct hmap_node node; /* in queue->lanes */
    struct ovs_list turn;  /* in queue->turns */
    uint16_t quota;
    struct upcall *first, *last; /* at least one */
};

struct queue {
    /* Producers. */
    _Alignas(64) struct upcall *_Atomic pushed; /* newest first */
    _Atomic uint32_t ticket;                    /* odd: the handler sleeps, or is about to */
    int wake;                                   /* eventfd */

    /* The handler, and whoever purges. */
    _Alignas(64) struct ovs_mutex lock;
    struct hmap lanes;
    struct ovs_list turns; /* struct lane, the next one first */
};

struct queues {
    unsigned n;
    struct queue queue[];
};

struct dp_upcalls {
    /* NULL: nobody receives.  Producers, online readers of epoch.h, follow it
     * without the lock. */
    struct queues *_Atomic queues;
    struct ovs_rwlock lock; /* held for writing while 'queues' is replaced */
    void *quotas_base;
    struct quota *quotas; /* N_QUOTAS; mostly never touched, so mostly not there */
    struct upcall_pool pool;
};

/* --- quotas --------------------------------------------------------------------- */

static uint16_t
quota_index(odp_port_t in_port)
{
    return MIN(odp_to_u32(in_port), N_QUOTAS - 1);
}

static bool
is_miss(enum dpif_upcall_type type)
{
    return type == DPIF_UC_MISS;
}

static _Atomic uint32_t *
quota_packets(struct quota *q, enum dpif_upcall_type type)
{
    return is_miss(type) ? &q->misses : &q->actions;
}

static bool
exceeds(const _Atomic uint32_t *counter, uint32_t bound)
{
    return atomic_load_explicit(counter, memory_order_relaxed) >= bound;
}

/* Whether one more packet may be queued.  Threads that ask at once may each be
 * told yes, so a port can exceed its bound by a packet per thread. */
static bool
quota_allows(struct quota *q, enum dpif_upcall_type type, uint8_t bucket,
             const struct bounds *bounds)
{
    if (exceeds(quota_packets(q, type), bounds->packets) || exceeds(&q->bytes, bounds->bytes)) {
        return false;
    }
    return !is_miss(type) || atomic_load_explicit(&q->buckets[bucket], memory_order_relaxed) <
                                 bounds->packets / FLOW_SHARE;
}

static void
quota_take(struct quota *q, const struct upcall *u)
{
    atomic_fetch_add_explicit(quota_packets(q, u->type), 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&q->bytes, u->size, memory_order_relaxed);
    if (is_miss(u->type)) {
        atomic_fetch_add_explicit(&q->buckets[u->bucket], 1, memory_order_relaxed);
    }
}

static void
quota_give(struct quota *q, const struct upcall *u)
{
    atomic_fetch_sub_explicit(quota_packets(q, u->type), 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&q->bytes, u->size, memory_order_relaxed);
    if (is_miss(u->type)) {
        atomic_fetch_sub_explicit(&q->buckets[u->bucket], 1, memory_order_relaxed);
    }
}

static void
count_lost(struct dp *dp, struct dp_port *port, uint64_t n)
{
    uint64_t orig;

    COVERAGE_ADD(weft_upcall_lost, n);
    atomic_add_relaxed(&dp->n_lost, n, &orig);
    if (port) {
        atomic_add_relaxed(&port->upcalls_lost, n, &orig);
    }
}

/* --- producers ------------------------------------------------------------------ */

/* The same for all packets of a flow, recirculated or not. */
static uint32_t
hash_flow(const struct flow *flow)
{
    uint32_t hash = hash_int(odp_to_u32(flow->in_port.odp_port), 0);

    hash = hash_add64(hash, eth_addr_to_uint64(flow->dl_src));
    hash = hash_add64(hash, eth_addr_to_uint64(flow->dl_dst));
    return flow_hash_5tuple(flow, hash);
}

static void
queue_push(struct queue *q, struct upcall *u)
{
    struct upcall *top = atomic_load_explicit(&q->pushed, memory_order_relaxed);
    uint32_t ticket;

    do {
        u->next = top;
    } while (!atomic_compare_exchange_weak(&q->pushed, &top, u));

    ticket = atomic_load(&q->ticket);
    if (ticket & 1) {
        uint64_t one = 1;

        /* Fails only if the counter is full, which wakes as well. */
        ignore(write(q->wake, &one, sizeof one));
        atomic_compare_exchange_strong(&q->ticket, &ticket, ticket + 1);
    }
}

bool
dp_upcall(struct dp_worker *w, const struct dp_packet *b, const struct flow *flow,
          enum dpif_upcall_type type, const struct nlattr *userdata, const struct nlattr *actions,
          const struct flow_tnl *out_tunnel)
{
    struct dp_upcalls *upcalls = w->dp->upcalls;
    odp_port_t in_port = flow->in_port.odp_port;
    struct queues *queues = atomic_load_explicit(&upcalls->queues, memory_order_acquire);
    struct dp_port *port = dp_port_lookup(w->dp, in_port);
    struct quota *quota = &upcalls->quotas[quota_index(in_port)];
    const struct bounds *bounds = port && port->kind == DP_PORT_VIF ? &vif_bounds : &port_bounds;
    uint32_t hash = hash_flow(flow);
    uint8_t bucket = hash % FLOW_BUCKETS;
    struct upcall *u;

    if (!queues || !quota_allows(quota, type, bucket, bounds)) {
        count_lost(w->dp, port, 1);
        return false;
    }
    u = upcall_create(&upcalls->pool, b, flow, type, userdata, actions, out_tunnel);
    u->quota = quota_index(in_port);
    u->bucket = bucket;
    quota_take(quota, u);
    COVERAGE_INC(weft_upcall);
    queue_push(&queues->queue[(uint64_t)hash * queues->n >> 32], u);
    return true;
}

/* --- queues ---------------------------------------------------------------------- */

static struct queues *
queues_create(unsigned n)
{
    size_t size = sizeof(struct queues) + n * sizeof(struct queue);
    struct queues *queues = xzalloc_cacheline(size);

    queues->n = n;
    for (unsigned i = 0; i < n; i++) {
        struct queue *q = &queues->queue[i];

        q->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (q->wake < 0) {
            VLOG_FATAL("eventfd: %s", ovs_strerror(errno));
        }
        ovs_mutex_init(&q->lock);
        hmap_init(&q->lanes);
        ovs_list_init(&q->turns);
    }
    return queues;
}

static struct lane *
lane_for(struct queue *q, uint16_t quota) OVS_REQUIRES(q->lock)
{
    uint32_t hash = hash_int(quota, 0);
    struct lane *lane;

    HMAP_FOR_EACH_WITH_HASH (lane, node, hash, &q->lanes) {
        if (lane->quota == quota) {
            return lane;
        }
    }
    lane = xzalloc(sizeof *lane);
    lane->quota = quota;
    hmap_insert(&q->lanes, &lane->node, hash);
    ovs_list_push_back(&q->turns, &lane->turn);
    return lane;
}

/* Moves what was pushed to the lanes. */
static void
queue_sort(struct queue *q) OVS_REQUIRES(q->lock)
{
    struct upcall *u, *next, *oldest = NULL;

    if (!atomic_load_explicit(&q->pushed, memory_order_relaxed)) {
        return;
    }
    for (u = atomic_exchange(&q->pushed, NULL); u; u = next) {
        next = u->next;
        u->next = oldest;
        oldest = u;
    }
    for (u = oldest; u; u = next) {
        struct lane *lane = lane_for(q, u->quota);

        next = u->next;
        u->next = NULL;
        if (lane->first) {
            lane->last->next = u;
        } else {
            lane->first = u;
        }
        lane->last = u;
    }
}

/* The next in turn, or NULL. */
static struct upcall *
queue_pop(struct queue *q) OVS_REQUIRES(q->lock)
{
    struct upcall *u;
    struct lane *lane;

    queue_sort(q);
    if (ovs_list_is_empty(&q->turns)) {
        return NULL;
    }
    lane = CONTAINER_OF(ovs_list_pop_front(&q->turns), struct lane, turn);
    u = lane->first;
    lane->first = u->next;
    if (lane->first) {
        ovs_list_push_back(&q->turns, &lane->turn);
    } else {
        hmap_remove(&q->lanes, &lane->node);
        free(lane);
    }
    return u;
}

/* Frees all packets of a queue and returns how many they were. */
static unsigned
queue_purge(struct dp_upcalls *upcalls, struct queue *q)
{
    struct upcall *u;
    unsigned n = 0;

    ovs_mutex_lock(&q->lock);
    while ((u = queue_pop(q))) {
        quota_give(&upcalls->quotas[u->quota], u);
        upcall_free(&upcalls->pool, u);
        n++;
    }
    ovs_mutex_unlock(&q->lock);
    return n;
}

/* Puts other queues, or none, in place of those there are, whose packets are
 * lost. */
static void
queues_replace(struct dp *dp, struct queues *new)
{
    struct dp_upcalls *upcalls = dp->upcalls;
    struct queues *old;

    ovs_rwlock_wrlock(&upcalls->lock);
    old = atomic_exchange(&upcalls->queues, new);
    ovs_rwlock_unlock(&upcalls->lock);
    if (!old) {
        return;
    }
    epoch_synchronize();
    for (unsigned i = 0; i < old->n; i++) {
        struct queue *q = &old->queue[i];

        count_lost(dp, NULL, queue_purge(upcalls, q));
        hmap_destroy(&q->lanes);
        ovs_mutex_destroy(&q->lock);
        close(q->wake);
    }
    free_cacheline(old);
}

void
dp_upcalls_init(struct dp *dp)
{
    struct dp_upcalls *upcalls = xzalloc(sizeof *upcalls);

    /* Untouched pages of a large zeroed allocation cost nothing, which is why
     * the alignment is made by hand. */
    upcalls->quotas_base = xcalloc(N_QUOTAS + 1, sizeof *upcalls->quotas);
    upcalls->quotas =
        (struct quota *)ROUND_UP((uintptr_t)upcalls->quotas_base, sizeof *upcalls->quotas);
    BUILD_ASSERT_DECL(sizeof *upcalls->quotas == 64);
    ovs_rwlock_init(&upcalls->lock);
    upcall_pool_init(&upcalls->pool);
    dp->upcalls = upcalls;
}

void
dp_upcalls_destroy(struct dp *dp)
{
    if (dp->upcalls) {
        queues_replace(dp, NULL);
        upcall_pool_destroy(&dp->upcalls->pool);
        ovs_rwlock_destroy(&dp->upcalls->lock);
        free(dp->upcalls->quotas_base);
        free(dp->upcalls);
        dp->upcalls = NULL;
    }
}

/* --- the class's functions --------------------------------------------------------- */

int
dp_upcall_recv_set(struct dpif *dpif, bool enable)
{
    struct dp *dp = dp_of(dpif);
    bool enabled = atomic_load(&dp->upcalls->queues) != NULL;

    if (enable != enabled) {
        queues_replace(dp, enable ? queues_create(1) : NULL);
    }
    return 0;
}

int
dp_upcall_handlers_set(struct dpif *dpif, uint32_t n)
{
    struct dp *dp = dp_of(dpif);
    struct queues *queues = atomic_load(&dp->upcalls->queues);

    if (queues && queues->n != n) {
        queues_replace(dp, queues_create(MAX(n, 1)));
    }
    return 0;
}

/* The handler's next packet, or NULL. */
static struct upcall *
take_next(struct dp_upcalls *upcalls, uint32_t handler)
{
    struct upcall *u = NULL;
    struct queues *queues;

    ovs_rwlock_rdlock(&upcalls->lock);
    queues = atomic_load_explicit(&upcalls->queues, memory_order_acquire);
    if (queues && handler < queues->n) {
        struct queue *q = &queues->queue[handler];

        ovs_mutex_lock(&q->lock);
        u = queue_pop(q);
        ovs_mutex_unlock(&q->lock);
    }
    ovs_rwlock_unlock(&upcalls->lock);
    if (u) {
        quota_give(&upcalls->quotas[u->quota], u);
    }
    return u;
}

int
dp_upcall_recv(struct dpif *dpif, uint32_t handler, struct dpif_upcall *up, struct ofpbuf *buf)
{
    struct dp *dp = dp_of(dpif);
    struct upcall *u;

    while ((u = take_next(dp->upcalls, handler)) &&
           !upcall_deliver(&dp->upcalls->pool, u, up, buf)) {
        count_lost(dp, NULL, 1);
    }
    return u ? 0 : EAGAIN;
}

void
dp_upcall_recv_wait(struct dpif *dpif, uint32_t handler)
{
    struct dp_upcalls *upcalls = dp_of(dpif)->upcalls;
    struct queues *queues;

    ovs_rwlock_rdlock(&upcalls->lock);
    queues = atomic_load_explicit(&upcalls->queues, memory_order_acquire);
    if (queues && handler < queues->n) {
        struct queue *q = &queues->queue[handler];
        uint64_t events;
        bool busy;

        /* A wake-up of last time, or one that nobody needed. */
        ignore(read(q->wake, &events, sizeof events));
        /* Odd, and another one than last time. */
        atomic_store(&q->ticket, (atomic_load(&q->ticket) + 1) | 1);
        ovs_mutex_lock(&q->lock);
        busy = atomic_load(&q->pushed) || !ovs_list_is_empty(&q->turns);
        ovs_mutex_unlock(&q->lock);
        if (busy) {
            poll_immediate_wake();
        }
        poll_fd_wait(q->wake, POLLIN);
    }
    ovs_rwlock_unlock(&upcalls->lock);
}

void
dp_upcall_recv_purge(struct dpif *dpif)
{
    struct dp *dp = dp_of(dpif);
    struct queues *queues;

    ovs_rwlock_rdlock(&dp->upcalls->lock);
    queues = atomic_load_explicit(&dp->upcalls->queues, memory_order_acquire);
    for (unsigned i = 0; queues && i < queues->n; i++) {
        count_lost(dp, NULL, queue_purge(dp->upcalls, &queues->queue[i]));
    }
    ovs_rwlock_unlock(&dp->upcalls->lock);
}
