/* Mempool operations of our own: fast/bundle.h. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "check.h"
#include "fast/bundle.h"
#include "spsc.h"

#define N 4000u
#define ROOM 1024u

static struct rte_mempool *mp;

static struct rte_mempool *
make(const char *name, unsigned room)
{
    struct rte_pktmbuf_pool_private priv = {.mbuf_data_room_size = room, .mbuf_priv_size = 64};
    struct rte_mempool *p = rte_mempool_create_empty(name, N, sizeof(struct rte_mbuf) + 64 + room,
                                                     0, sizeof priv, SOCKET_ID_ANY, 0);

    if (!p || rte_mempool_set_ops_byname(p, bundle_ops_name(), NULL)) {
        abort();
    }
    rte_pktmbuf_pool_init(p, &priv);
    if (rte_mempool_populate_default(p) < 0) {
        rte_mempool_free(p);
        return NULL;
    }
    rte_mempool_obj_iter(p, rte_pktmbuf_init, NULL);
    return p;
}

/* Each buffer's owner, to see that none is handed out twice. */
static _Atomic uint8_t owned[N];
static _Atomic unsigned twice;

static unsigned
index_of(const void *object)
{
    return ((const struct rte_mbuf *)object)->dynfield1[0];
}

static void
number(struct rte_mempool *p, void *aux, void *object, unsigned i)
{
    ((struct rte_mbuf *)object)->dynfield1[0] = i;
}

/* As a user would: writes all over the data. */
static void
take(void **objects, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        twice += atomic_exchange(&owned[index_of(objects[i])], 1);
        memset(((struct rte_mbuf *)objects[i])->buf_addr, 0xa5, 600);
    }
}

static void
leave(void **objects, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        twice += atomic_exchange(&owned[index_of(objects[i])], 0) != 1;
    }
    rte_mempool_generic_put(mp, objects, n, NULL);
}

static void
test_alone(void)
{
    static const unsigned sizes[] = {1, 2, 31, 32, 33, 63, 64, 65, 100, 257, 1000};
    void *objects[N];
    unsigned n = 0;

    CASE("bundle: every buffer comes out once, and all come back, in any sizes");
    CHECK(rte_mempool_avail_count(mp) == N);
    for (unsigned round = 0; round < 200; round++) {
        unsigned k = sizes[rand() % 11], at = n ? rand() % n : 0;

        if (rand() % 2 && !rte_mempool_generic_get(mp, objects + n, k < N - n ? k : 0, NULL)) {
            k = k < N - n ? k : 0;
            take(objects + n, k);
            n += k;
        } else if (n) {
            /* Any of them, not those that came last. */
            k = k < n - at ? k : n - at;
            leave(objects + at, k);
            memmove(objects + at, objects + at + k, (n - at - k) * sizeof objects[0]);
            n -= k;
        }
        CHECK(rte_mempool_avail_count(mp) == N - n);
    }
    while (!rte_mempool_generic_get(mp, objects + n, 1, NULL)) {
        take(objects + n++, 1);
    }
    CHECK(n == N && !twice);

    CASE("bundle: of an empty pool nothing is taken, and of too small a one neither");
    CHECK(rte_mempool_generic_get(mp, objects, 1, NULL));
    leave(objects, 10);
    void *few[11];
    CHECK(rte_mempool_generic_get(mp, few, 11, NULL) && rte_mempool_avail_count(mp) == 10);
    leave(objects + 10, N - 10);
    CHECK(rte_mempool_avail_count(mp) == N && !twice);

    CASE("bundle: buffers without room for it are refused");
    CHECK(!make("too small", BUNDLE_ROOM - 8));
}

/* --- threads: a ring of them, each passing on what it took ------------------------- */

#define N_THREADS 4u
#define QUOTA 250000u /* buffers that each passes on at least */

struct passer {
    struct spsc *in, *out;
    unsigned id;
    _Atomic uint64_t passed;
};

static atomic_bool stop;

static void *
pass(void *p_)
{
    struct passer *p = p_;
    unsigned seed = p->id;

    for (unsigned given = 0; given < QUOTA || !stop;) {
        void *objects[64];
        unsigned n = 1 + rand_r(&seed) % 64;

        if (given < QUOTA && spsc_space(p->out, 64) >= 64 &&
            !rte_mempool_generic_get(mp, objects, n, NULL)) {
            take(objects, n);
            spsc_push(p->out, objects, n);
            given += n;
        }
        n = spsc_pop(p->in, objects, 64);
        if (n) {
            leave(objects, n);
            p->passed += n;
        } else {
            sched_yield();
        }
    }
    return NULL;
}

static void
test_threads(void)
{
    struct spsc rings[N_THREADS];
    struct passer p[N_THREADS];
    pthread_t t[N_THREADS];
    uint64_t passed = 0;

    CASE("bundle: threads that take here and leave there: none lost, none twice");
    for (unsigned i = 0; i < N_THREADS; i++) {
        CHECK(!spsc_init(&rings[i], 512));
    }
    for (unsigned i = 0; i < N_THREADS; i++) {
        p[i] = (struct passer){.in = &rings[i], .out = &rings[(i + 1) % N_THREADS], .id = i};
        pthread_create(&t[i], NULL, pass, &p[i]);
    }
    do {
        sched_yield();
        passed = 0;
        for (unsigned i = 0; i < N_THREADS; i++) {
            passed += p[i].passed;
        }
    } while (passed < N_THREADS * QUOTA);
    stop = true;
    for (unsigned i = 0; i < N_THREADS; i++) {
        pthread_join(t[i], NULL);
    }
    for (unsigned i = 0; i < N_THREADS; i++) {
        void *objects[64];
        unsigned n;

        while ((n = spsc_pop(&rings[i], objects, 64)) > 0) {
            leave(objects, n);
        }
        spsc_done(&rings[i]);
    }
    CHECK(!twice && rte_mempool_avail_count(mp) == N);
}

int
main(void)
{
    char *argv[] = {"bundle",
                    "--no-huge",
                    "--legacy-mem",
                    "-m",
                    "64",
                    "--no-pci",
                    "--no-shconf",
                    "-l",
                    "0",
                    "--log-level",
                    "lib.*:1",
                    "--no-telemetry",
                    "--file-prefix",
                    "weft-test",
                    NULL};
    cpu_set_t cpus;

    /* EAL nails its caller to a CPU, and every thread made later with it. */
    sched_getaffinity(0, sizeof cpus, &cpus);
    if (rte_eal_init(sizeof argv / sizeof argv[0] - 1, argv) < 0 || !(mp = make("bundles", ROOM))) {
        printf("not ok bundle: DPDK does not start\n");
        return 1;
    }
    sched_setaffinity(0, sizeof cpus, &cpus);
    rte_mempool_obj_iter(mp, number, NULL);
    test_alone();
    test_threads();
    rte_mempool_free(mp);
    rte_eal_cleanup();
    return check_done();
}
