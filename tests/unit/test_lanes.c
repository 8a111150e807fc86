/* The hand-over points between switch and queue threads: spsc and inbox. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "check.h"
#include "inbox.h"
#include "spsc.h"

#define N_ITEMS 200000u
#define N_PRODUCERS 3u
#define N_PACKETS 20000u
#define HEADROOM 256u

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
};

/* Every other packet has headroom and can carry others. */
static void *
inbox_producer(void *p_)
{
    struct producer *p = p_;
    struct rte_mbuf *burst[32];

    for (unsigned i = 0, n; i < N_PACKETS; i += n) {
        n = 1 + i % 32;
        n = n < N_PACKETS - i ? n : N_PACKETS - i;
        for (unsigned k = 0; k < n; k++) {
            burst[k] = &p->mbufs[i + k];
            while (!inbox_reserve(p->in, &burst[k], 1)) {
                sched_yield();
            }
        }
        inbox_push(p->in, burst, n);
    }
    return NULL;
}

static struct rte_mbuf *
make_packets(uint8_t *headroom, unsigned port)
{
    struct rte_mbuf *m = calloc(N_PACKETS, sizeof *m);

    for (unsigned i = 0; i < N_PACKETS; i++) {
        m[i].buf_addr = headroom + (size_t)i * HEADROOM;
        m[i].data_off = i % 2 ? HEADROOM : 0;
        m[i].buf_len = 1000;
        m[i].pkt_len = i;
        m[i].port = port;
        rte_mbuf_refcnt_set(&m[i], 1);
    }
    return m;
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
    uint8_t *headroom = malloc((size_t)N_PRODUCERS * N_PACKETS * HEADROOM);
    for (unsigned p = 0; p < N_PRODUCERS; p++) {
        producers[p].in = &in;
        producers[p].mbufs = make_packets(headroom + (size_t)p * N_PACKETS * HEADROOM, p);
        pthread_create(&threads[p], NULL, inbox_producer, &producers[p]);
    }
    while (total < N_PRODUCERS * N_PACKETS) {
        struct rte_mbuf *head, *last, *pkts[1 + INBOX_CARRIED_MAX];
        unsigned expected = inbox_take(&in, &head, &last), n = 0;
        if (!expected) {
            sched_yield();
        }
        for (; head; head = inbox_next(head)) {
            unsigned k = inbox_unpack(head, pkts);
            for (unsigned i = 0; i < k; i++) {
                /* Concurrent reservations may pass the bound by one each. */
                bounded &= atomic_load(&in.bytes) <= in.bytes_max + N_PRODUCERS * 1128;
                in_order &= pkts[i]->pkt_len == next[pkts[i]->port]++;
                inbox_release(&in, pkt_footprint(pkts[i]));
            }
            n += k;
        }
        in_order &= n == expected;
        total += n;
    }
    for (unsigned p = 0; p < N_PRODUCERS; p++) {
        pthread_join(threads[p], NULL);
        free(producers[p].mbufs);
    }
    free(headroom);
    CHECK(in_order);
    CHECK(bounded);
    CHECK(atomic_load(&in.bytes) == 0);
    CHECK(inbox_empty(&in));

    CASE("inbox: a sleeper is woken once");
    struct rte_mbuf m = {.buf_len = 64};
    eventfd_t v = 0;
    CHECK(eventfd_read(in.wake_fd, &v) != 0);
    atomic_store(&in.asleep, true);
    inbox_push(&in, (struct rte_mbuf *[]){&m}, 1);
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
