/* Packets of many producers on their way out of one port: fast/portq.h. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <rte_mbuf.h>

#include "check.h"
#include "fast/portq.h"

#define QUANTUM 2048u
#define ROOM 2048u
/* What a packet of mk() counts against the bound. */
#define FOOTPRINT (ROOM + sizeof(struct rte_mbuf))

static struct rte_mbuf *
mk(unsigned producer, unsigned number, unsigned len)
{
    struct rte_mbuf *m = calloc(1, sizeof *m);

    m->buf_len = ROOM;
    m->pkt_len = m->data_len = len;
    m->port = producer;
    m->hash.rss = number;
    return m;
}

static _Atomic unsigned n_freed;

static void
free_all(struct rte_mbuf **pkts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        free(pkts[i]);
    }
    n_freed += n;
}

/* The address of something stands for a producer. */
static char workers[4096][64];

static unsigned
push_one(struct portq *q, unsigned producer, unsigned number, unsigned len)
{
    struct rte_mbuf *m = mk(producer, number, len);
    unsigned took = portq_push(q, workers[producer], &m, 1);

    if (!took) {
        free(m);
    }
    return took;
}

static void
test_bound(void)
{
    struct portq *q = portq_create(100 * FOOTPRINT, QUANTUM);
    struct rte_mbuf *pkts[256];
    unsigned sent = 0;

    CASE("portq: each lane is bounded by buffer memory and drops at its tail");
    CHECK(portq_empty(q) && portq_pop(q, pkts, 256) == 0);
    for (unsigned i = 0; i < 64; i++) {
        pkts[i] = mk(0, i, 60);
    }
    CHECK(portq_push(q, workers[0], pkts, 64) == 64);
    for (unsigned i = 0; i < 64; i++) {
        pkts[i] = mk(0, 64 + i, 60);
    }
    CHECK(portq_push(q, workers[0], pkts, 64) == 36);
    free_all(pkts + 36, 28);
    CHECK(!push_one(q, 0, 0, 60));
    for (unsigned i = 0; i < 100; i++) {
        CHECK(push_one(q, 1, i, 1500)); /* its own bound */
    }
    CHECK(!push_one(q, 1, 0, 60));
    CHECK(!portq_empty(q));

    CASE("portq: what was popped makes room again, order holds");
    unsigned next[2] = {0}, n;
    bool ordered = true;
    while ((n = portq_pop(q, pkts, 32)) > 0) {
        for (unsigned i = 0; i < n; i++) {
            ordered &= pkts[i]->hash.rss == next[pkts[i]->port]++;
        }
        sent += n;
        free_all(pkts, n);
    }
    CHECK(ordered && sent == 200 && next[0] == 100 && next[1] == 100 && portq_empty(q));
    CHECK(push_one(q, 0, 0, 60) && push_one(q, 0, 1, 60));

    CASE("portq: what waits is freed with it");
    n_freed = 0;
    portq_destroy(q, free_all);
    CHECK(n_freed == 2);
    portq_destroy(NULL, free_all);
}

/* Lengths of a producer's packets. */
static unsigned
len_of(unsigned producer, unsigned number)
{
    switch (producer % 4) {
    case 0:
        return 60;
    case 1:
        return 1514;
    case 2:
        return 9000; /* more than the quantum */
    default:
        return 60 + number * 37 % 1400;
    }
}

static void
test_fair(void)
{
    enum { N = 8 };
    struct portq *q = portq_create(64 << 20, QUANTUM);
    uint64_t bytes[N] = {0}, sum = 0, squares = 0;
    unsigned pushed[N] = {0};

    CASE("portq: lanes that always have packets get the same bytes, whatever their sizes");
    for (unsigned round = 0; round < 4000; round++) {
        struct rte_mbuf *pkts[29];

        for (unsigned p = 0; p < N; p++) {
            /* Hogs push four times as many packets as others. */
            for (unsigned i = 0; i < (p < 4 ? 64 : 16); i++) {
                pushed[p] += push_one(q, p, pushed[p], len_of(p, pushed[p]));
            }
        }
        unsigned n = portq_pop(q, pkts, 29);
        for (unsigned i = 0; i < n; i++) {
            bytes[pkts[i]->port] += pkts[i]->pkt_len;
        }
        free_all(pkts, n);
    }
    for (unsigned p = 0; p < N; p++) {
        sum += bytes[p];
        squares += bytes[p] * bytes[p] / 1024;
    }
    double jain = (double)sum * sum / 1024 / N / squares;
    printf("# Jain %.5f\n", jain);
    CHECK(jain > 0.999);
    /* Never more apart than a quantum and a packet. */
    for (unsigned p = 0; p < N; p++) {
        CHECK(bytes[p] + QUANTUM + 9000 >= sum / N && bytes[p] <= sum / N + QUANTUM + 9000);
    }
    portq_destroy(q, free_all);

    CASE("portq: a late packet waits for one turn of the others at most");
    q = portq_create(64 << 20, QUANTUM);
    for (unsigned p = 0; p < 7; p++) {
        for (unsigned i = 0; i < 500; i++) {
            push_one(q, p, i, 1000);
        }
    }
    struct rte_mbuf *m;
    CHECK(portq_pop(q, &m, 1) == 1);
    free_all(&m, 1);
    CHECK(push_one(q, 7, 0, 60));
    unsigned before = 0;
    while (portq_pop(q, &m, 1) == 1 && m->port != 7) {
        before += m->pkt_len;
        free_all(&m, 1);
    }
    free_all(&m, 1);
    CHECK(before <= 7 * QUANTUM);
    portq_destroy(q, free_all);
}

static void
test_lanes(void)
{
    struct portq *q = portq_create(1 << 20, QUANTUM);
    struct rte_mbuf *pkts[64];
    bool all = true;
    unsigned n;

    CASE("portq: thousands of producers that come and go");
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned p = 0; p < 4096; p++) {
            all &= push_one(q, p, round, 100);
            if (p % 3 == 0) {
                portq_forget(q, workers[p]);
            }
        }
        unsigned sent = 0;
        while ((n = portq_pop(q, pkts, 64)) > 0) {
            sent += n;
            free_all(pkts, n);
        }
        CHECK(all && sent == 4096);
        for (unsigned p = 1; p < 4096; p += 3) {
            portq_forget(q, workers[p]); /* with an empty lane */
        }
    }

    CASE("portq: a lane that is idle for long is given back, and comes again");
    for (unsigned i = 0; i < 70000; i++) {
        portq_pop(q, pkts, 64);
    }
    CHECK(portq_empty(q));
    for (unsigned p = 0; p < 4096; p++) {
        all &= push_one(q, p, 7, 100);
    }
    CHECK(all && portq_pop(q, pkts, 64) == 64);
    free_all(pkts, 64);
    portq_destroy(q, free_all);
}

/* --- threads ---------------------------------------------------------------------- */

#define N_THREADS 3u
#define PER_THREAD 200000u

struct producer {
    struct portq *q;
    unsigned id;
    unsigned dropped;
};

/* Now and then with a new identity, as workers that end and begin. */
static void *
produce(void *p_)
{
    struct producer *p = p_;
    unsigned identity = p->id, number = 0;

    while (number < PER_THREAD) {
        struct rte_mbuf *pkts[32];
        unsigned n = 1 + number % 32;

        n = n < PER_THREAD - number ? n : PER_THREAD - number;
        for (unsigned i = 0; i < n; i++) {
            pkts[i] = mk(p->id, number + i, 60 + (number + i) % 1400);
        }
        unsigned took = portq_push(p->q, workers[identity], pkts, n);
        p->dropped += n - took;
        free_all(pkts + took, n - took);
        if (took < n) {
            sched_yield();
        }
        number += n;
        if (number % 1024 < 8) {
            portq_forget(p->q, workers[identity]);
        }
    }
    return NULL;
}

static void
test_threads(void)
{
    struct portq *q = portq_create(200 * FOOTPRINT, QUANTUM);
    struct producer p[N_THREADS];
    unsigned last[N_THREADS] = {0}, got = 0, dropped = 0, empty = 0;
    pthread_t t[N_THREADS];
    bool ordered = true;

    CASE("portq: threads push and forget while one pops: nothing lost, each one's order kept");
    for (unsigned i = 0; i < N_THREADS; i++) {
        p[i] = (struct producer){.q = q, .id = i};
        pthread_create(&t[i], NULL, produce, &p[i]);
    }
    unsigned joined = 0;
    for (;;) {
        struct rte_mbuf *pkts[37];
        unsigned n = portq_pop(q, pkts, 37);

        for (unsigned i = 0; i < n; i++) {
            unsigned id = pkts[i]->port;

            ordered &= pkts[i]->hash.rss + 1 > last[id];
            last[id] = pkts[i]->hash.rss + 1;
        }
        got += n;
        free_all(pkts, n);
        if (n) {
            continue;
        }
        sched_yield();
        if (joined < N_THREADS && !pthread_tryjoin_np(t[joined], NULL)) {
            joined++;
        } else if (joined == N_THREADS && portq_empty(q) && ++empty > 2) {
            break;
        }
    }
    for (unsigned i = 0; i < N_THREADS; i++) {
        dropped += p[i].dropped;
    }
    printf("# %u popped, %u dropped\n", got, dropped);
    CHECK(ordered && got + dropped == N_THREADS * PER_THREAD && got > PER_THREAD / 10);
    n_freed = 0;
    portq_destroy(q, free_all);
    CHECK(n_freed == 0);
}

int
main(void)
{
    test_bound();
    test_fair();
    test_lanes();
    test_threads();
    return check_done();
}
