/* The engine with threads that forward while flows, programs, masks, ports and
 * workers come and go.
 *
 * Flow d takes packets to UDP port d out through the ports its program names.
 * Once a change of it has been waited for, nothing may go the old way; its
 * statistics are exact when it is gone, and never decrease. */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "check.h"
#include "fast_rig.h"

#define N_WORKERS 3u
#define N_FLOWS 100u
#define N_FIXED 4u /* flows that stay */
#define N_PORTS 8u
#define BURST 32u

struct flow {
    struct fast_flow fast;
    unsigned dport;
};

struct checked_port {
    struct fast_port port;
    bool _Atomic closed[N_FLOWS]; /* no packet of this flow may come */
};

static unsigned run_ms = 3000;
static struct engine *engine;
static struct checked_port ports[N_PORTS];
static struct flow *_Atomic table[N_FLOWS]; /* the classifier */
static _Atomic bool stop;
static _Atomic uint64_t n_counted, n_strays, n_sent, n_slow, n_ended, n_verdicts;
static _Atomic bool decreased;
static _Atomic int64_t clock_ms = 1;

static unsigned
dport_of(const struct rte_mbuf *m)
{
    return rte_pktmbuf_mtod(m, const uint8_t *)[37];
}

static void
check_send(struct fast_port *port, struct worker *w, struct rte_mbuf **pkts, unsigned n)
{
    struct checked_port *p = (struct checked_port *)port;

    (void)w;
    for (unsigned i = 0; i < n; i++) {
        unsigned d = dport_of(pkts[i]);
        if (atomic_load_explicit(&p->closed[d], memory_order_relaxed)) {
            atomic_fetch_add(&n_strays, 1);
        }
    }
    atomic_fetch_add_explicit(&n_sent, n, memory_order_relaxed);
    fast_rig_mbuf_free(pkts, n);
}

static void
miss(struct worker *w, uint16_t in_port, struct rte_mbuf **pkts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct flow *f = atomic_load_explicit(&table[dport_of(pkts[i])], memory_order_acquire);
        if (!f) {
            worker_drop(w, ENGINE_DROP_NO_PORT, &pkts[i], 1);
            continue;
        }
        worker_learn(w, in_port, pkts[i], &f->fast);
        worker_count(w, &f->fast, pkts[i]);
        atomic_fetch_add_explicit(&n_counted, 1, memory_order_relaxed);
        worker_act(w, in_port, &f->fast, &pkts[i], 1);
    }
}

/* TRACK: the second flow is the fixed one of number 0. */
static void
slow(struct worker *w, uint16_t in_port, const struct program *p, struct rte_mbuf **pkts,
     unsigned n)
{
    (void)p;
    for (unsigned i = 0; i < n; i++) {
        struct flow *f = atomic_load_explicit(&table[dport_of(pkts[i])], memory_order_acquire);
        struct flow *second = atomic_load_explicit(&table[0], memory_order_acquire);
        if (f) {
            atomic_fetch_add_explicit(&n_verdicts, 1, memory_order_relaxed);
            worker_learn_verdict(w, in_port, pkts[i], &f->fast, &second->fast, &n_verdicts);
        }
    }
    atomic_fetch_add_explicit(&n_slow, n, memory_order_relaxed);
    fast_rig_mbuf_free(pkts, n);
}

static bool
track(struct worker *w, void *verdict, struct rte_mbuf *m)
{
    (void)w, (void)m, (void)verdict;
    return rte_pktmbuf_mtod(m, const uint8_t *)[29] % 16;
}

static void
verdict_free(struct worker *w, void *verdict)
{
    (void)w, (void)verdict;
    atomic_fetch_sub_explicit(&n_verdicts, 1, memory_order_relaxed);
}

static const struct engine_ops ops = {
    .miss = miss,
    .slow = slow,
    .track = track,
    .verdict_free = verdict_free,
    .free = fast_rig_mbuf_free,
};

/* --- threads that forward ------------------------------------------------------- */

static void
send_burst(struct worker *w, uint16_t in_port, uint64_t *seed)
{
    struct rte_mbuf *pkts[BURST];
    uint8_t d[FRAME_MAX];

    for (unsigned i = 0; i < BURST; i++) {
        unsigned len =
            frame_build_udp(d, &(struct frame_udp){.src = frame_random(seed) % 500,
                                                   .dport = frame_random(seed) % N_FLOWS});
        pkts[i] = fast_rig_mbuf(d, len);
    }
    worker_run(w, in_port, pkts, BURST, atomic_fetch_add(&clock_ms, 1));
}

static void *
forward(void *index_)
{
    uintptr_t index = (uintptr_t)index_;
    uint64_t seed = index + 1;

    while (!atomic_load(&stop)) {
        struct worker *w = worker_create(engine, index == 2 ? 64 : 4096, NULL);
        for (unsigned turn = 0; turn < 40 && !atomic_load(&stop); turn++) {
            worker_begin(w);
            for (unsigned i = 0; i < 20; i++) {
                send_burst(w, 1 + index, &seed);
            }
            worker_end(w);
            if (turn % 7 == index) {
                worker_trim(w);
            }
        }
        struct worker_stats s;
        worker_stats(w, &s);
        /* A verdict counts in the second flow, too. */
        atomic_fetch_add(&n_counted, s.cache_hits + s.verdicts);
        worker_destroy(w);
    }
    return NULL;
}

/* --- a thread that reads ----------------------------------------------------------- */

static void *
watch(void *unused)
{
    struct flow_stats seen[N_FIXED] = {0};

    (void)unused;
    while (!atomic_load(&stop)) {
        for (unsigned i = 0; i < N_FIXED; i++) {
            struct flow *f = atomic_load(&table[i]);
            struct flow_stats s;
            engine_flow_stats(engine, &f->fast, &s);
            if (s.packets < seen[i].packets || s.bytes < seen[i].bytes || s.used < seen[i].used) {
                atomic_store(&decreased, true);
            }
            seen[i] = s;
        }
    }
    return NULL;
}

/* --- the thread that changes things -------------------------------------------------- */

static struct program *
random_program(unsigned dport, uint64_t *seed)
{
    /* The fixed flows count what they are told to, nothing else. */
    if (dport >= N_FIXED && frame_chance(seed, 8)) {
        return fast_rig_program(PROGRAM_TRACK, 0);
    }
    return fast_rig_program(PROGRAM_OUTPUT, frame_random(seed) % N_PORTS);
}

/* From now on packets of 'dport' may only go where 'p' says: a port, or if it
 * is TRACK that of flow 0, which stays.  NULL: nowhere. */
static void
allow(unsigned dport, const struct program *p, bool open_only)
{
    struct flow *second = atomic_load(&table[0]);
    const struct program *to = p;

    if (p && p->kind == PROGRAM_TRACK) {
        to = atomic_load(&second->fast.program);
    }
    for (unsigned i = 0; i < N_PORTS; i++) {
        if (to && to->port == i) {
            atomic_store(&ports[i].closed[dport], false);
        } else if (!open_only) {
            atomic_store(&ports[i].closed[dport], true);
        }
    }
}

static const struct key_mask flow_mask = {.tp_dst = UINT16_MAX};

static void
add_flow(unsigned dport, uint64_t *seed)
{
    struct flow *f = calloc(1, sizeof *f);
    struct program *p = random_program(dport, seed);

    f->fast.covers = 1 << SHAPE_IPV4;
    f->fast.mask = dport % 3 ? &flow_mask : NULL;
    f->dport = dport;
    engine_flow_add(engine, &f->fast, p);
    if (!dport) {
        atomic_store(&table[0], f);
    }
    allow(dport, p, true);
    atomic_store(&table[dport], f);
}

static void
remove_flow(unsigned dport)
{
    struct flow *f = atomic_exchange(&table[dport], NULL);
    struct flow_stats s, again;

    engine_flow_invalidate(engine, &f->fast);
    epoch_synchronize();
    if (dport) {
        allow(dport, NULL, false);
    }
    engine_flow_stats(engine, &f->fast, &s);
    sched_yield();
    engine_flow_stats(engine, &f->fast, &again);
    CHECK(s.packets == again.packets && s.bytes == again.bytes);
    CHECK(s.bytes == s.packets * 64);
    atomic_fetch_add(&n_ended, s.packets);
    free(atomic_load(&f->fast.program));
    engine_flow_free(engine, &f->fast);
    free(f);
}

static void
change_program(unsigned dport, uint64_t *seed)
{
    struct flow *f = atomic_load(&table[dport]);
    struct program *p = random_program(dport, seed), *old;

    allow(dport, p, true);
    old = engine_flow_set_program(engine, &f->fast, p);
    epoch_synchronize();
    allow(dport, p, false);
    free(old);
}

static void
change_all(void)
{
    struct key_mask mask = {.tp_dst = UINT16_MAX};
    struct timespec start, now;
    uint64_t seed = 77;

    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        unsigned dport = N_FIXED + frame_random(&seed) % (N_FLOWS - N_FIXED);
        bool there = atomic_load(&table[dport]);
        switch (frame_random(&seed) % 6) {
        case 0:
        case 1:
            there ? remove_flow(dport) : add_flow(dport, &seed);
            break;
        case 2:
        case 3:
            if (there) {
                change_program(dport, &seed);
            }
            break;
        case 4:
            change_program(1 + frame_random(&seed) % (N_FIXED - 1), &seed);
            break;
        case 5:
            mask.ip4_src ^= 0x0f000000;
            engine_set_mask(engine, &mask);
            break;
        }
        epoch_reclaim();
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < run_ms);
}

static void
test_all(void)
{
    pthread_t workers[N_WORKERS], watcher;
    struct key_mask mask = {.tp_dst = UINT16_MAX};
    uint64_t seed = 5;

    CASE("flows change under running workers");
    engine = engine_create(&ops, NULL);
    engine_set_mask(engine, &mask);
    for (unsigned i = 0; i < N_PORTS; i++) {
        ports[i].port.send = check_send;
        engine_port_set(engine, i, &ports[i].port);
    }
    for (unsigned i = 0; i < N_FLOWS; i++) {
        add_flow(i, &seed);
    }
    for (uintptr_t i = 0; i < N_WORKERS; i++) {
        pthread_create(&workers[i], NULL, forward, (void *)i);
    }
    pthread_create(&watcher, NULL, watch, NULL);
    change_all();
    atomic_store(&stop, true);
    for (unsigned i = 0; i < N_WORKERS; i++) {
        pthread_join(workers[i], NULL);
    }
    pthread_join(watcher, NULL);
    CHECK(!n_strays);
    CHECK(n_sent > 10000 && n_slow > 10);

    CASE("statistics never decrease while workers come and go");
    CHECK(!decreased);
    CASE("all packets are counted once, in flows that went and flows that stay");
    for (unsigned i = N_FLOWS; i-- > 0;) {
        if (atomic_load(&table[i])) {
            remove_flow(i);
        }
    }
    CHECK(n_ended == n_counted);
    CASE("all packets, programs and verdicts are given back");
    epoch_synchronize();
    engine_destroy(engine);
    CHECK(!fast_rig_mbufs_alive());
    CHECK(!n_verdicts);
}

int
main(int argc, char **argv)
{
    run_ms = argc > 1 ? atoi(argv[1]) : run_ms;
    test_all();
    return check_done();
}
