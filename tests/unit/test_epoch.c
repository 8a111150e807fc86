/* epoch: readers that hold references are waited for, others are not. */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "fast/epoch.h"

static void
nap_ms(unsigned ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static double
now_ms(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* --- one reader -------------------------------------------------------------- */

static struct epoch_reader reader;
static _Atomic bool synchronized;
static double waiter_cpu_ms;

static void *
waiter(void *unused)
{
    double start = now_ms(CLOCK_THREAD_CPUTIME_ID);

    (void)unused;
    epoch_synchronize();
    atomic_store(&synchronized, true);
    waiter_cpu_ms = now_ms(CLOCK_THREAD_CPUTIME_ID) - start;
    return NULL;
}

static void
test_waits(void (*come_round)(struct epoch_reader *))
{
    pthread_t t;

    epoch_register(&reader);
    epoch_online(&reader);
    atomic_store(&synchronized, false);
    pthread_create(&t, NULL, waiter, NULL);
    nap_ms(100);
    CHECK(!atomic_load(&synchronized));
    come_round(&reader);
    pthread_join(t, NULL);
    CHECK(atomic_load(&synchronized));
    epoch_offline(&reader);
    epoch_unregister(&reader);
}

static void
note(void *aux)
{
    ++*(int *)aux;
}

static void
test_one(void)
{
    int ran = 0;

    CASE("synchronize waits for an online reader to come round");
    test_waits(epoch_quiesce);
    CASE("or to go offline, and does not burn CPU meanwhile");
    test_waits(epoch_offline);
    CHECK(waiter_cpu_ms < 50);

    CASE("an offline reader is not waited for");
    epoch_register(&reader);
    epoch_synchronize(); /* or it would never return */

    CASE("deferred calls run once readers from before have come round");
    epoch_online(&reader);
    epoch_defer(note, &ran);
    epoch_defer(note, &ran);
    epoch_reclaim();
    epoch_reclaim();
    CHECK(ran == 0);
    epoch_quiesce(&reader);
    epoch_reclaim();
    CHECK(ran == 2);
    epoch_defer(note, &ran);
    epoch_reclaim();
    CHECK(ran == 2);
    epoch_offline(&reader);
    epoch_synchronize();
    CHECK(ran == 3);
    epoch_unregister(&reader);
}

/* --- many ---------------------------------------------------------------------- */

#define N_READERS 3
#define LIVE 0x600dull
#define DEAD 0xdeadull

struct object {
    _Atomic uint64_t state;
};

static struct object *_Atomic shared;
static _Atomic bool stop;
static _Atomic unsigned long n_dead_seen, n_reads, n_freed;

static void *
read_objects(void *unused)
{
    struct epoch_reader r;
    unsigned long seen = 0, reads = 0;

    (void)unused;
    epoch_register(&r);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        epoch_online(&r);
        for (unsigned burst = 0; burst < 50; burst++) {
            struct object *o = atomic_load_explicit(&shared, memory_order_acquire);
            for (unsigned i = 0; i < 20; i++) {
                seen += atomic_load_explicit(&o->state, memory_order_relaxed) != LIVE;
            }
            reads++;
            epoch_quiesce(&r);
        }
        epoch_offline(&r);
        if (reads % 1000 == 0) {
            /* Threads come and go. */
            epoch_unregister(&r);
            epoch_register(&r);
        }
    }
    epoch_unregister(&r);
    atomic_fetch_add(&n_dead_seen, seen);
    atomic_fetch_add(&n_reads, reads);
    return NULL;
}

static void
kill_object(void *o_)
{
    struct object *o = o_;

    atomic_store_explicit(&o->state, DEAD, memory_order_relaxed);
    free(o);
    atomic_fetch_add(&n_freed, 1);
}

static struct object *
new_object(void)
{
    struct object *o = malloc(sizeof *o);

    atomic_init(&o->state, LIVE);
    return o;
}

static void *
replace_objects(void *by_waiting)
{
    for (unsigned i = 0; !atomic_load(&stop); i++) {
        struct object *old = atomic_exchange(&shared, new_object());
        if (by_waiting) {
            epoch_synchronize();
            kill_object(old);
        } else {
            epoch_defer(kill_object, old);
            if (i % 16 == 0) {
                epoch_reclaim();
                nap_ms(1);
            }
        }
    }
    return NULL;
}

static void
test_many(void)
{
    pthread_t readers[N_READERS], writers[3];

    CASE("readers never see what was freed");
    atomic_store(&shared, new_object());
    for (unsigned i = 0; i < N_READERS; i++) {
        pthread_create(&readers[i], NULL, read_objects, NULL);
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_create(&writers[i], NULL, replace_objects, i == 0 ? &stop : NULL);
    }
    nap_ms(1500);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(writers[i], NULL);
    }
    for (unsigned i = 0; i < N_READERS; i++) {
        pthread_join(readers[i], NULL);
    }
    epoch_synchronize();
    free(atomic_load(&shared));
    CHECK(n_dead_seen == 0);
    CHECK(n_reads > 1000 && n_freed > 100);
}

int
main(void)
{
    test_one();
    test_many();
    return check_done();
}
