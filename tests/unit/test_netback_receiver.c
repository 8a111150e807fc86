/* The switch on the queues' threads: netback_set_receiver().
 *
 *   guest ==rings== queue thread > receiver (this test) > back to the guest */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "nb_guest.h"
#include "nb_rig.h"

#define FRAME_LEN 200u
#define N_FRAMES 60000u
#define TURN_BYTES (256u << 10)

static uint8_t frame[65536];

/* What a receiver saw; one for each of a vif's queues. */
struct seen {
    struct netback_vif *v;
    _Atomic unsigned starts, stops, sleeps, idles;
    _Atomic unsigned bursts, packets, largest_burst, largest_bytes;
    _Atomic unsigned wrong; /* calls that must not come, or not like this */
    _Atomic bool running;   /* between start and stop */
    _Atomic bool echo;      /* packets go back to the guest */
    _Atomic unsigned pause_ms;
    unsigned id;
    pthread_t thread;
    /* Frames are numbered; the next one expected, whoever takes it. */
    _Atomic uint32_t *next;
};

static void
raise_to(_Atomic unsigned *most, unsigned n)
{
    if (n > *most) {
        *most = n;
    }
}

static void *
on_start(void *all, unsigned q)
{
    struct seen *s = &((struct seen *)all)[q];

    s->wrong += s->running;
    s->running = true;
    s->thread = pthread_self();
    s->id = q;
    s->starts++; /* last: then the main thread looks at the rest */
    return s;
}

static bool
here(struct seen *s)
{
    bool good = s->running && pthread_equal(s->thread, pthread_self());

    s->wrong += !good;
    return good;
}

/* True if the packets are the next ones. */
static bool
in_order(_Atomic uint32_t *next, struct rte_mbuf **pkts, unsigned n)
{
    uint32_t number = *next;
    bool good = true;

    for (unsigned i = 0; i < n; i++, number++) {
        uint32_t got;

        memcpy(&got, rte_pktmbuf_mtod_offset(pkts[i], void *, 14), sizeof got);
        good &= got == number;
    }
    *next = number;
    return good;
}

static void
on_burst(void *s_, struct rte_mbuf **pkts, unsigned n)
{
    struct seen *s = s_;
    unsigned bytes = 0;

    here(s);
    s->wrong += !n || n > NETBACK_TURN_MAX;
    for (unsigned i = 0; i < n; i++) {
        bytes += pkts[i]->pkt_len;
    }
    s->bursts++;
    s->packets += n;
    raise_to(&s->largest_burst, n);
    raise_to(&s->largest_bytes, bytes);
    if (s->next) {
        s->wrong += !in_order(s->next, pkts, n);
    }
    for (uint64_t until = rig_now_ms() + s->pause_ms; s->pause_ms && rig_now_ms() < until;) {
        rig_yield();
    }
    if (s->echo) {
        netback_tx_burst(s->v, pkts, n);
    } else {
        rig_free(pkts, n);
    }
    s->wrong += !s->running;
}

static void
on_sleep(void *s_)
{
    struct seen *s = s_;

    here(s);
    s->sleeps++;
}

static void
on_idle(void *s_)
{
    struct seen *s = s_;

    here(s);
    s->idles++;
}

static void
on_stop(void *s_)
{
    struct seen *s = s_;

    here(s);
    s->running = false;
    s->stops++;
}

static const struct netback_receiver receiver = {
    .start = on_start,
    .burst = on_burst,
    .sleep = on_sleep,
    .idle = on_idle,
    .stop = on_stop,
};

/* --- cases ------------------------------------------------------------------------- */

static void
test_life(void)
{
    struct nb_guest *g = nb_guest_new(7, NULL);
    struct netback_vif *v = rig_attach(7);
    struct seen s[2] = {{.v = v, .echo = true}, {.v = v, .echo = true}};
    static struct nb_packet got;

    CASE("a receiver that is set before the guest connects gets its packets, on each queue's "
         "thread");
    memset(frame, 3, FRAME_LEN);
    netback_set_receiver(v, &receiver, s);
    CHECK(nb_connect(g, &(struct nb_options){.n_queues = 2}));
    for (unsigned q = 0; q < 2; q++) {
        CHECK(RIG_UNTIL(s[q].starts == 1 && s[q].id == q, RIG_PATIENCE_MS));
        CHECK(nb_tx_one(&g->q[q], frame, FRAME_LEN, 0, NULL) == NETIF_RSP_OKAY);
        /* Without hash settings all go to queue 0. */
        CHECK(nb_rx_wait(&g->q[0], &got, RIG_PATIENCE_MS) && got.len == FRAME_LEN);
        CHECK(s[q].packets == 1 && s[q].bursts == 1);
    }
    CHECK(!pthread_equal(s[0].thread, s[1].thread));

    CASE("it hears of sleep, and once of a long one");
    CHECK(RIG_UNTIL(s[0].sleeps >= 1, RIG_PATIENCE_MS));
    CHECK(RIG_UNTIL(s[0].idles >= 1 && s[1].idles >= 1, RIG_PATIENCE_MS));
    unsigned idles = s[0].idles;
    CHECK(!RIG_UNTIL(s[0].idles != idles, 300));

    CASE("it stops with the connection and starts with the next");
    CHECK(nb_close(g));
    CHECK(RIG_UNTIL(s[0].stops == 1 && s[1].stops == 1, RIG_PATIENCE_MS));
    CHECK(nb_reinit(g) && nb_connect(g, NULL));
    CHECK(RIG_UNTIL(s[0].starts == 2, RIG_PATIENCE_MS) && s[1].starts == 1);
    CHECK(nb_tx_one(&g->q[0], frame, FRAME_LEN, 0, NULL) == NETIF_RSP_OKAY);
    CHECK(nb_rx_wait(&g->q[0], &got, RIG_PATIENCE_MS));

    CASE("it stops at detach, and the next port starts without one");
    netback_detach(v);
    CHECK(s[0].stops == 2 && !s[0].running);
    v = rig_attach(7);
    CHECK(nb_reinit(g) && nb_connect(g, NULL));
    CHECK(nb_tx_one(&g->q[0], frame, FRAME_LEN, 0, NULL) == NETIF_RSP_OKAY);
    struct rte_mbuf *m;
    CHECK(rig_collect(v, &m, NULL, 1, RIG_PATIENCE_MS) == 1);
    rig_free(&m, 1);
    CHECK(s[0].starts == 2);
    netback_detach(v);
    nb_guest_free(g);
    CHECK(!s[0].wrong && !s[1].wrong);
}

static void
test_budget(void)
{
    struct nb_guest *g = nb_guest_new(8, NULL);
    struct netback_vif *v = rig_attach(8);
    struct seen s[1] = {{.v = v, .pause_ms = 2}};
    unsigned sent = 0;

    CASE("a turn ends after 128 packets");
    CHECK(nb_connect(g, NULL));
    netback_set_receiver(v, &receiver, s);
    while (sent < 4000) {
        sent += nb_tx_frame(&g->q[0], frame, FRAME_LEN, 0, NULL, HV_PAGE_SIZE);
        nb_tx_push(&g->q[0]);
        nb_tx_reap(&g->q[0]);
    }
    CHECK(nb_tx_drain(&g->q[0], RIG_PATIENCE_MS));
    CHECK(RIG_UNTIL(s->packets == sent, RIG_PATIENCE_MS));
    CHECK(s->largest_burst == 128);

    CASE("a turn ends with the packet that crosses 256 KiB");
    s->largest_burst = s->largest_bytes = 0;
    CHECK(netback_set_mtu(v, 65000) == 0);
    unsigned before = s->packets;
    for (sent = 0; sent < 200;) {
        sent += nb_tx_frame(&g->q[0], frame, 60000, 0, NULL, HV_PAGE_SIZE);
        nb_tx_push(&g->q[0]);
        nb_tx_reap(&g->q[0]);
    }
    CHECK(nb_tx_drain(&g->q[0], RIG_PATIENCE_MS));
    CHECK(RIG_UNTIL(s->packets - before == sent, RIG_PATIENCE_MS));
    /* Four are less than 256 KiB; the fifth crosses it. */
    CHECK(s->largest_burst == 5 && s->largest_bytes == 5 * 60000);
    netback_detach(v);
    CHECK(!s->wrong && s->starts == 1 && s->stops == 1);
    nb_guest_free(g);
}

/* A guest that sends numbered frames. */
struct sender {
    struct nb_guest *g;
    atomic_bool stop;
    uint32_t sent, most;
};

static void *
send_numbered(void *s_)
{
    struct sender *s = s_;
    struct nb_queue *q = &s->g->q[0];
    uint8_t mine[FRAME_LEN] = {0};

    while (!s->stop && s->sent < s->most) {
        memcpy(mine + 14, &s->sent, sizeof s->sent);
        if (nb_tx_frame(q, mine, FRAME_LEN, 0, NULL, HV_PAGE_SIZE)) {
            s->sent++;
        }
        if (s->sent % 16 == 0) {
            nb_tx_push(q);
            nb_tx_reap(q);
        }
    }
    nb_tx_push(q);
    return NULL;
}

static void
test_switching(void)
{
    struct nb_guest *g = nb_guest_new(9, NULL);
    struct netback_vif *v = rig_attach(9);
    _Atomic uint32_t next = 0;
    struct seen s[1] = {{.v = v, .next = &next}};
    struct sender sender = {.g = g, .most = UINT32_MAX};
    struct rte_mbuf *pkts[64];
    unsigned sets = 0, by_hand = 0, late = 0;
    bool ordered = true;
    pthread_t t;

    CASE("set and cleared under traffic: every packet once, in order, none after the end");
    CHECK(nb_connect(g, NULL));
    pthread_create(&t, NULL, send_numbered, &sender);
    for (uint64_t until = rig_now_ms() + 60000;
         (next < N_FRAMES || sets < 20 || s->packets <= 1000 || by_hand <= 1000) &&
         rig_now_ms() < until;) {
        unsigned goal = next + 150;

        netback_set_receiver(v, &receiver, s);
        sets++;
        RIG_UNTIL(next >= goal, 5);
        netback_set_receiver(v, NULL, NULL);
        unsigned bursts = s->bursts;
        late += s->running || s->stops != sets;
        goal = next + 150;
        for (uint64_t end = rig_now_ms() + 5; next < goal && rig_now_ms() < end;) {
            unsigned n = rig_collect(v, pkts, NULL, 64, 0);

            ordered &= in_order(&next, pkts, n);
            by_hand += n;
            rig_free(pkts, n);
        }
        late += s->bursts != bursts;
    }
    sender.stop = true;
    pthread_join(t, NULL);
    netback_set_receiver(v, &receiver, s);
    sets++;
    CHECK(nb_tx_drain(&g->q[0], RIG_PATIENCE_MS));
    CHECK(RIG_UNTIL(next == sender.sent, RIG_PATIENCE_MS));
    netback_set_receiver(v, NULL, NULL);
    printf("# changed %u times; %u packets to the receiver, %u by hand\n", 2 * sets, s->packets,
           by_hand);
    CHECK(next >= N_FRAMES && ordered && !late && !s->wrong);
    CHECK(sets > 20 && s->starts == sets && s->packets > 1000 && by_hand > 1000);
    netback_detach(v);
    nb_guest_free(g);
}

static void
test_ends_in_the_middle(void)
{
    struct nb_guest *g = nb_guest_new(10, NULL);
    struct netback_vif *v = rig_attach(10);
    struct rig_resources base = rig_resources();
    unsigned rounds = 20, wrong = 0, bursts = 0;

    CASE("a guest goes, a port goes, while a burst is under way");
    for (unsigned i = 0; i < rounds; i++) {
        struct seen s[1] = {{.v = v, .pause_ms = 1, .echo = true}};
        struct sender sender = {.g = g, .most = N_FRAMES};
        pthread_t t;

        netback_set_receiver(v, &receiver, s);
        CHECK(nb_connect(g, NULL));
        pthread_create(&t, NULL, send_numbered, &sender);
        CHECK(RIG_UNTIL(s->bursts > 2, RIG_PATIENCE_MS));
        if (i % 2) {
            netback_detach(v);
        } else {
            nb_set_state(g, 5);
            CHECK(RIG_UNTIL(s->stops == 1, RIG_PATIENCE_MS));
        }
        bursts += s->bursts;
        wrong += s->wrong + (s->starts != 1) + (s->stops != 1) + s->running;
        sender.stop = true;
        pthread_join(t, NULL);
        nb_release(g);
        nb_guest_free(g);
        if (!(i % 2)) {
            netback_detach(v);
        }
        g = nb_guest_new(10, NULL);
        v = rig_attach(10);
    }
    CHECK(!wrong && bursts > 2 * rounds);
    CHECK(rig_settles(&base));
    netback_detach(v);
    nb_guest_free(g);
}

/* --- beside a stranger ------------------------------------------------------------ */

#define TURN_WORK_NS 20000u
#define STRANGER_CPU_NS 200000000u

/* A receiver on one core with a thread that never sleeps nor gives way.  It sends the
 * guest's next frames itself, so that its queue always has work. */
struct crowded {
    struct nb_queue *q;
    int policy;
    _Atomic bool stop;
    _Atomic unsigned bursts;
    pthread_t thread;
};

/* How often another of them was there than the last time, and all of their bursts.  Real-time
 * threads call the stranger themselves, and end by themselves: nobody else may get at that core. */
#define STRANGER_AT 100u
#define LAST_BURST 4500u
#define ALL_READY 3u /* two queues and the stranger */
static struct crowded *_Atomic crowded_last;
static _Atomic unsigned crowded_changes, crowded_bursts;
static _Atomic unsigned crowded_ready;
static sem_t crowded_calls;

static uint64_t
cpu_ns(pthread_t thread)
{
    struct timespec ts;
    clockid_t clock;

    CHECK(!pthread_getcpuclockid(thread, &clock) && !clock_gettime(clock, &ts));
    return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static void
share_core(void)
{
    cpu_set_t all, one;

    CPU_ZERO(&one);
    CHECK(!sched_getaffinity(0, sizeof all, &all));
    for (unsigned i = 0; i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, &all)) {
            CPU_SET(i, &one);
            break;
        }
    }
    CHECK(!pthread_setaffinity_np(pthread_self(), sizeof one, &one));
}

static void
send_more(struct nb_queue *q)
{
    nb_tx_reap(q);
    while (nb_tx_frame(q, frame, FRAME_LEN, 0, NULL, HV_PAGE_SIZE)) {
        continue;
    }
    nb_tx_push(q);
}

static void *
crowded_start(void *c_, unsigned q)
{
    struct crowded *c = c_;

    c->thread = pthread_self();
    /* In this order: on that core an ordinary thread might never get to the second call. */
    pthread_setschedparam(c->thread, c->policy,
                          &(struct sched_param){.sched_priority = !!c->policy});
    share_core();
    send_more(c->q);
    crowded_ready++;
    return c;
}

static void
crowded_burst(void *c_, struct rte_mbuf **pkts, unsigned n)
{
    struct crowded *c = c_;

    while (c->policy == SCHED_FIFO && crowded_ready < ALL_READY && !c->stop) {
        usleep(1000);
    }
    unsigned burst = ++crowded_bursts;

    if (atomic_exchange(&crowded_last, c) != c && ++crowded_changes == STRANGER_AT) {
        sem_post(&crowded_calls);
    }
    rig_free(pkts, n);
    for (uint64_t until = rig_now_ns() + TURN_WORK_NS; rig_now_ns() < until;) {
        continue;
    }
    c->bursts++;
    if (!c->stop && (c->policy != SCHED_FIFO || burst < LAST_BURST)) {
        send_more(c->q);
    }
}

static void
nothing(void *c)
{
}

static const struct netback_receiver crowded_receiver = {
    .start = crowded_start,
    .burst = crowded_burst,
    .sleep = nothing,
    .idle = nothing,
    .stop = nothing,
};

static void *
stranger_main(void *stop_)
{
    atomic_bool *stop = stop_;

    share_core();
    while (!*stop) {
        continue;
    }
    return NULL;
}

static void
test_stranger(void)
{
    struct nb_guest *g = nb_guest_new(11, NULL);
    struct netback_vif *v = rig_attach(11);
    struct crowded c = {.q = &g->q[0]};
    atomic_bool stop = false;
    pthread_t stranger;

    CASE("a queue that always has work gets its share of a core beside a process that never "
         "gives way");
    CHECK(nb_connect(g, NULL));
    netback_set_receiver(v, &crowded_receiver, &c);
    uint64_t before = cpu_ns(c.thread);
    pthread_create(&stranger, NULL, stranger_main, &stop);
    CHECK(RIG_UNTIL(cpu_ns(stranger) >= STRANGER_CPU_NS, 3 * RIG_PATIENCE_MS));
    uint64_t ours = cpu_ns(c.thread) - before, theirs = cpu_ns(stranger);
    printf("# %u bursts, %.0f ms of CPU time, the stranger %.0f ms\n", c.bursts, ours / 1e6,
           theirs / 1e6);
    CHECK(ours >= theirs / 5);
    stop = c.stop = true;
    pthread_join(stranger, NULL);
    netback_detach(v);
    nb_guest_free(g);
}

#define PASSES_NS 5000000u

/* A stranger that is there for a while. */
static void *
passing_main(void *bursts)
{
    uint64_t until;

    pthread_setschedparam(pthread_self(), SCHED_FIFO, &(struct sched_param){.sched_priority = 1});
    share_core();
    crowded_ready++;
    sem_wait(&crowded_calls);
    for (until = rig_now_ns() + PASSES_NS; rig_now_ns() < until;) {
        continue;
    }
    crowded_changes = 0;
    *(unsigned *)bursts = crowded_bursts;
    return NULL;
}

/* Under a real-time policy, so that nobody else is on that core. */
static void
test_stranger_gone(void)
{
    struct sched_param one = {.sched_priority = 1};

    if (sched_setscheduler(0, SCHED_FIFO, &one)) {
        printf("skip once the stranger has gone: no real-time threads here\n");
        return;
    }
    sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0});
    CASE("once the stranger has gone, queues alternate turn by turn again");

    struct crowded c[2];
    struct nb_guest *g[2];
    struct netback_vif *v[2];
    unsigned from = 0;
    pthread_t stranger;

    sem_init(&crowded_calls, 0, 0);
    crowded_ready = crowded_bursts = crowded_changes = 0;
    pthread_create(&stranger, NULL, passing_main, &from);
    for (unsigned i = 0; i < 2; i++) {
        g[i] = nb_guest_new(12 + i, NULL);
        v[i] = rig_attach(12 + i);
        c[i] = (struct crowded){.q = &g[i]->q[0], .policy = SCHED_FIFO};
        CHECK(nb_connect(g[i], NULL));
    }
    for (unsigned i = 0; i < 2; i++) {
        netback_set_receiver(v[i], &crowded_receiver, &c[i]);
    }
    CHECK(RIG_UNTIL(crowded_bursts >= LAST_BURST, RIG_PATIENCE_MS));
    c[0].stop = c[1].stop = true;
    sem_post(&crowded_calls); /* if they never alternated */
    pthread_join(stranger, NULL);
    unsigned after = crowded_bursts - from;
    printf("# %u bursts, another queue's %u times\n", after, crowded_changes);
    CHECK(after > LAST_BURST / 2 && after < LAST_BURST && crowded_changes >= after / 40);
    for (unsigned i = 0; i < 2; i++) {
        netback_detach(v[i]);
        nb_guest_free(g[i]);
    }
}

int
main(void)
{
    rig_begin();
    rig_netback();
    struct rig_resources base = rig_resources();
    test_life();
    test_budget();
    test_switching();
    test_ends_in_the_middle();
    test_stranger();
    test_stranger_gone();
    CASE("after all this nothing is left in use");
    CHECK(rig_settles(&base));
    int failed = check_done();
    rig_end();
    return failed;
}
