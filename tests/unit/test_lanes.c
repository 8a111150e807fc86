/* The hand-over points between switch and queue threads: spsc and inbox. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "check.h"
#include "inbox.h"
#include "spsc.h"

#define N_ITEMS 200000u
#define N_PRODUCERS 3u

static void *
spsc_producer(void *ring_)
{
    struct spsc *r = ring_;

    for (uintptr_t i = 1; i <= N_ITEMS;) {
        void *items[7];
        uint32_t n = spsc_space(r, 7);
        uint32_t k = 0;
        for (; k < n && k < 7 && i <= N_ITEMS; k++) {
            items[k] = (void *)i++;
        }
        spsc_push(r, items, k);
        if (!n) {
            sched_yield();
        }
    }
    return NULL;
}

static void
test_spsc(void)
{
    struct spsc r;
    pthread_t t;
    void *items[5];
    uintptr_t next = 1;
    bool in_order = true;

    CASE("spsc: bound, order, nothing lost between two threads");
    CHECK(!spsc_init(&r, 8));
    CHECK(spsc_space(&r, 8) == 8);
    CHECK(spsc_empty(&r));
    void *eight[8] = {0};
    spsc_push(&r, eight, 8);
    CHECK(spsc_space(&r, 1) == 0);
    CHECK(spsc_pop(&r, eight, 8) == 8);

    pthread_create(&t, NULL, spsc_producer, &r);
    while (next <= N_ITEMS) {
        uint32_t n = spsc_pop(&r, items, 5);
        for (uint32_t i = 0; i < n; i++) {
            in_order &= (uintptr_t)items[i] == next++;
        }
        if (!n) {
            sched_yield();
        }
    }
    pthread_join(t, NULL);
    CHECK(in_order);
    CHECK(spsc_empty(&r));
    spsc_done(&r);
}

struct producer {
    struct inbox *in;
    struct rte_mbuf *mbufs;
    unsigned id;
};

static void *
inbox_producer(void *p_)
{
    struct producer *p = p_;

    for (unsigned i = 0; i < N_ITEMS; i += 2) {
        struct rte_mbuf *a = &p->mbufs[i], *b = &p->mbufs[i + 1];
        while (!inbox_reserve(p->in, a)) {
            sched_yield();
        }
        while (!inbox_reserve(p->in, b)) {
            sched_yield();
        }
        inbox_set_next(b, a);
        inbox_push_chain(p->in, b, a);
    }
    return NULL;
}

static void
test_inbox(void)
{
    static struct inbox in;
    struct producer producers[N_PRODUCERS];
    pthread_t threads[N_PRODUCERS];
    unsigned next[N_PRODUCERS] = {0}, total = 0;
    bool in_order = true, bounded = true;

    CASE("inbox: memory bound, each producer's order, nothing lost");
    in.bytes_max = 100 * (1000 + 128);
    in.wake_fd = eventfd(0, EFD_NONBLOCK);
    for (unsigned p = 0; p < N_PRODUCERS; p++) {
        producers[p] = (struct producer){&in, calloc(N_ITEMS, sizeof(struct rte_mbuf)), p};
        for (unsigned i = 0; i < N_ITEMS; i++) {
            producers[p].mbufs[i].buf_len = 1000;
            producers[p].mbufs[i].pkt_len = i;
            producers[p].mbufs[i].port = p;
        }
        pthread_create(&threads[p], NULL, inbox_producer, &producers[p]);
    }
    while (total < N_PRODUCERS * N_ITEMS) {
        struct rte_mbuf *m, *last;
        if (!inbox_take(&in, &m, &last)) {
            sched_yield();
        }
        for (; m; m = inbox_next(m)) {
            /* Concurrent reservations may pass the bound by one each. */
            bounded &= atomic_load(&in.bytes) <= in.bytes_max + N_PRODUCERS * 1128;
            in_order &= m->pkt_len == next[m->port]++;
            inbox_release(&in, pkt_footprint(m));
            total++;
        }
    }
    for (unsigned p = 0; p < N_PRODUCERS; p++) {
        pthread_join(threads[p], NULL);
        free(producers[p].mbufs);
    }
    CHECK(in_order);
    CHECK(bounded);
    CHECK(atomic_load(&in.bytes) == 0);
    CHECK(inbox_empty(&in));

    CASE("inbox: a sleeper is woken once");
    struct rte_mbuf m = {.buf_len = 64};
    eventfd_t v = 0;
    CHECK(eventfd_read(in.wake_fd, &v) != 0);
    atomic_store(&in.asleep, true);
    inbox_push_chain(&in, &m, &m);
    inbox_wake(&in);
    CHECK(!eventfd_read(in.wake_fd, &v) && v == 1);
    close(in.wake_fd);
}

int
main(void)
{
    test_spsc();
    test_inbox();
    return check_done();
}
