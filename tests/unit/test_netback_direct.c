/* From guest to guest on one thread: where the switch runs on the queues'
 * threads, a packet is delivered into the other guest's ring on the spot if
 * nothing waits there (vif.h).
 *
 *   guest A ==rings== A's queue thread, the switch ==rings== guest B
 *   this test, another thread of the switch ====inbox======/
 *
 * and so from a thread of the switch that asked for it (netback_deliver_here()). */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "nb_guest.h"
#include "nb_rig.h"
#include "ring_guest.h"

#define FRAME_LEN 200u
#define N_FRAMES 40000u
#define N_SOURCES 2u

/* A's receiver: hands everything to B, if there is one. */
static _Atomic(struct netback_vif *) target;

static void *
on_start(void *aux, unsigned q)
{
    return aux;
}

static void
on_burst(void *ctx, struct rte_mbuf **pkts, unsigned n)
{
    struct netback_vif *v = target;

    if (v) {
        netback_tx_burst(v, pkts, n);
    } else {
        rig_free(pkts, n);
    }
}

static void
nothing(void *ctx)
{
}

static const struct netback_receiver forwarder = {
    .start = on_start,
    .burst = on_burst,
    .sleep = nothing,
    .idle = nothing,
    .stop = nothing,
    .takes_partial = true,
};

/* Frames say whose they are and count. */
static void
number_frame(uint8_t *frame, uint8_t source, uint32_t number)
{
    memset(frame, 2, FRAME_LEN);
    frame[14] = source;
    memcpy(frame + 15, &number, sizeof number);
}

/* What B gets. */
struct sink {
    struct nb_queue *q;
    uint32_t next[N_SOURCES];
    unsigned wrong;
    atomic_uint received;
};

/* Guest A's sender, on a thread of its own. */
struct sender {
    struct nb_guest *g;
    atomic_bool stop;
    uint32_t n, sent;
    /* At most this many beyond what 'sink' has received; 0: no bound. */
    uint32_t window;
    struct sink *sink;
};

static void *
send_numbered(void *s_)
{
    struct sender *s = s_;
    struct nb_queue *q = &s->g->q[0];
    uint8_t frame[FRAME_LEN];

    while (!s->stop && s->sent < s->n) {
        number_frame(frame, 0, s->sent);
        if (s->window && s->sent - s->sink->received >= s->window) {
            nb_tx_push(q);
            nb_tx_reap(q);
            rig_yield();
        } else if (nb_tx_frame(q, frame, FRAME_LEN, 0, NULL, HV_PAGE_SIZE)) {
            s->sent++;
        } else {
            rig_yield();
        }
        if (s->sent % 24 == 0) {
            nb_tx_push(q);
            nb_tx_reap(q);
        }
    }
    nb_tx_push(q);
    nb_tx_drain(q, s->stop ? 0 : RIG_PATIENCE_MS);
    return NULL;
}

static void
take_all(struct sink *s)
{
    static struct nb_packet p;
    unsigned slots = 0;

    while (nb_rx_take(s->q, &p)) {
        uint32_t number;

        slots += p.n_slots;
        memcpy(&number, p.data + 15, sizeof number);
        if (p.malformed || p.error || p.len != FRAME_LEN || p.data[14] >= N_SOURCES ||
            number < s->next[p.data[14]]) {
            s->wrong++;
        } else {
            s->next[p.data[14]] = number + 1;
        }
        s->received++;
    }
    nb_rx_post(s->q, slots);
}

struct pair {
    struct nb_guest *a, *b;
    struct netback_vif *va, *vb;
};

static struct pair
connect_pair(const struct nb_options *b)
{
    struct pair p = {.a = nb_guest_new(7, NULL), .b = nb_guest_new(8, NULL)};

    p.va = rig_attach(7);
    p.vb = rig_attach(8);
    target = p.vb;
    netback_set_receiver(p.va, &forwarder, NULL);
    CHECK(nb_connect(p.a, b) && nb_connect(p.b, b));
    return p;
}

static void
part(struct pair *p)
{
    netback_detach(p->va);
    target = NULL;
    netback_detach(p->vb);
    nb_guest_free(p->a);
    nb_guest_free(p->b);
}

/* Packets to B that went nowhere. */
static uint64_t
lost(const struct netback_vif *v)
{
    struct netback_stats s = rig_stats(v);

    return s.drops[DROP_GRX_QUEUE_FULL] + s.drops[DROP_GRX_STALLED] + s.drops[DROP_GRX_EXPIRED] +
           s.drops[DROP_GRX_NOT_CONNECTED] + s.drops[DROP_GRX_DETACHED];
}

static void
test_direct(void)
{
    struct pair p = connect_pair(NULL);
    struct sink sink = {.q = &p.b->q[0]};
    /* No more on the way than B's ring holds, however late this thread gets to
     * empty it: B shall always have room. */
    struct sender sender = {.g = p.a, .n = 2000, .window = 128, .sink = &sink};
    pthread_t t;

    CASE("to a guest that has room: without its queue's thread");
    uint64_t wakeups = rig_stats(p.vb).wakeups;
    pthread_create(&t, NULL, send_numbered, &sender);
    RIG_UNTIL((take_all(&sink), sink.received == sender.n), RIG_PATIENCE_MS);
    pthread_join(t, NULL);
    printf("# %u packets, %u wakeups of the receiver's thread\n", sink.received,
           (unsigned)(rig_stats(p.vb).wakeups - wakeups));
    CHECK(sink.received == 2000 && !sink.wrong);
    /* Counted when the burst is over, which is after the guest may see it. */
    CHECK(RIG_UNTIL(rig_stats(p.vb).tx_packets == 2000, RIG_PATIENCE_MS));
    CHECK(rig_stats(p.vb).wakeups - wakeups < 500);
    part(&p);
}

/* Both sources at once, B with and without room, with and without static grants. */
static void
run_mixed(bool grants, unsigned pause_every)
{
    struct pair p = connect_pair(&(struct nb_options){.ctrl = grants});
    struct sink sink = {.q = &p.b->q[0]};
    struct sender sender = {.g = p.a, .n = N_FRAMES};
    uint8_t frame[FRAME_LEN];
    unsigned pushed = 0, changed = 0;
    pthread_t t;

    pthread_create(&t, NULL, send_numbered, &sender);
    for (unsigned round = 0; pushed < N_FRAMES / 4 || !sender.stop; round++) {
        struct rte_mbuf *m[8];

        for (unsigned i = 0; i < 8 && pushed < N_FRAMES / 4; i++) {
            number_frame(frame, 1, pushed++);
            m[i] = rig_mbuf(frame, FRAME_LEN);
            netback_tx_burst(p.vb, &m[i], 1);
        }
        if (!pause_every || round % pause_every) {
            take_all(&sink);
        } else {
            uint64_t until = rig_now_ms() + 2;

            while (rig_now_ms() < until) {
                rig_yield();
            }
        }
        if (grants && round % 200 == 0) {
            changed += nb_static_all(p.b, 0, round % 400 == 0) > 0;
        }
        if (pushed == N_FRAMES / 4 && !pthread_tryjoin_np(t, NULL)) {
            sender.stop = true;
        }
        rig_yield();
    }
    CHECK(RIG_UNTIL((take_all(&sink), sink.received + lost(p.vb) == sender.n + pushed),
                    RIG_PATIENCE_MS));
    printf("# %u received, %u dropped, grants changed %u times\n", sink.received,
           (unsigned)lost(p.vb), changed);
    CHECK(!sink.wrong && sink.received > N_FRAMES / 100 && (!grants || changed > 2));
    part(&p);
}

static void
test_mixed(void)
{
    CASE("two threads of the switch at once: each one's order holds, nothing is lost uncounted");
    run_mixed(false, 0);
    CASE("the same to a guest that has no room now and then");
    run_mixed(false, 50);
    CASE("the same while the guest changes its static grants");
    run_mixed(true, 100);
}

/* --- large frames: one copy, from guest to guest --------------------------------- */

#define LARGE_PAYLOAD 30000u
#define N_LARGE 6000u

static uint32_t
build_large(uint8_t *frame, uint32_t number)
{
    uint32_t len = frame_build(
        frame, &(struct frame_spec){.payload = LARGE_PAYLOAD, .blank = true, .seq = number});

    for (uint32_t i = 0, word; i < LARGE_PAYLOAD; i += sizeof word) {
        word = number * 2654435761u + i;
        memcpy(frame + len - LARGE_PAYLOAD + i, &word, sizeof word);
    }
    return len;
}

static void *
send_large(void *s_)
{
    netif_extra_info_t gso = nb_gso(XEN_NETIF_GSO_TYPE_TCPV4, 1448);
    struct sender *s = s_;
    struct nb_queue *q = &s->g->q[0];
    uint8_t *frame = malloc(LARGE_PAYLOAD + 100);

    while (s->sent < s->n) {
        uint32_t len = build_large(frame, s->sent);

        while (!nb_tx_frame(q, frame, len, NETTXF_csum_blank, &gso, HV_PAGE_SIZE)) {
            nb_tx_reap(q);
            rig_yield();
        }
        nb_tx_push(q);
        s->sent++;
    }
    nb_tx_drain(q, RIG_PATIENCE_MS);
    s->stop = true;
    free(frame);
    return NULL;
}

static void
take_large(struct sink *s)
{
    static struct nb_packet p;
    static uint8_t expected[LARGE_PAYLOAD + 100];
    uint32_t number;

    while (nb_rx_take(s->q, &p)) {
        memcpy(&number, p.data + p.len - LARGE_PAYLOAD, sizeof number);
        number *= 244002641u; /* the inverse */
        uint32_t len = build_large(expected, number);
        if (p.malformed || p.error || p.len != len || number < s->next[0] ||
            memcmp(p.data, expected, len)) {
            s->wrong++;
        }
        s->next[0] = number + 1;
        s->received++;
        nb_rx_post(s->q, p.n_slots);
    }
}

static void
test_one_copy(unsigned grants, unsigned pause_every)
{
    struct pair p = connect_pair(&(struct nb_options){.ctrl = true});
    struct sink sink = {.q = &p.b->q[0]};
    struct sender sender = {.g = p.a, .n = N_LARGE};
    static uint8_t first[LARGE_PAYLOAD + 100];
    pthread_t t;

    build_large(first, 0); /* what frames are made from is there before two threads want it */
    CHECK(grants < 1 || nb_static_all(p.b, 0, true) > 0);
    CHECK(grants < 2 || nb_static_all(p.a, 0, true) > 0);
    pthread_create(&t, NULL, send_large, &sender);
    for (unsigned round = 0; !sender.stop; round++) {
        if (pause_every && round % pause_every == 0) {
            uint64_t seen = rig_stats(p.va).rx_packets;
            RIG_UNTIL(sender.stop || rig_stats(p.va).rx_packets > seen + 40, RIG_PATIENCE_MS);
        }
        take_large(&sink);
        rig_yield();
    }
    pthread_join(t, NULL);
    CHECK(RIG_UNTIL((take_large(&sink), sink.received + lost(p.vb) == N_LARGE), RIG_PATIENCE_MS));
    uint64_t one_copy = rig_stats(p.vb).tx_one_copy;
    printf("# %u received, %u of them with one copy\n", sink.received, (unsigned)one_copy);
    CHECK(!sink.wrong && one_copy > 0 && (!pause_every || one_copy < sink.received));
    CHECK(!p.a->q[0].n_error && !p.a->q[0].n_dropped && !p.a->q[0].n_wrong_id);
    part(&p);
}

static void
test_large(void)
{
    CASE("large frames from guest to guest by grant copies: one copy, every byte right");
    test_one_copy(0, 0);
    CASE("the same with one side's static grants");
    test_one_copy(1, 0);
    CASE("the same with static grants of both");
    test_one_copy(2, 0);
    CASE("to a guest that has no room now and then, by grant copies");
    test_one_copy(0, 30);
    CASE("the same with static grants of both");
    test_one_copy(2, 30);
}

static void
test_stall(void)
{
    struct pair p = connect_pair(NULL);
    struct sink sink = {.q = &p.b->q[0]};
    struct sender sender = {.g = p.a, .n = UINT32_MAX};
    pthread_t t;

    CASE("a guest that takes nothing is stalled, and heard again when it does");
    pthread_create(&t, NULL, send_numbered, &sender);
    CHECK(RIG_UNTIL(!rig_status(p.vb).carrier, RIG_PATIENCE_MS));
    CHECK(RIG_UNTIL(rig_drops(p.vb, DROP_GRX_STALLED) > 0, RIG_PATIENCE_MS));
    take_all(&sink);
    CHECK(RIG_UNTIL((take_all(&sink), rig_status(p.vb).carrier), RIG_PATIENCE_MS));
    unsigned before = sink.received;
    CHECK(RIG_UNTIL((take_all(&sink), sink.received > before + 1000), RIG_PATIENCE_MS));
    sender.stop = true;
    pthread_join(t, NULL);
    CHECK(!sink.wrong);
    part(&p);
}

/* --- a thread of the switch that is nobody's queue -------------------------------- */

/* Pushes frames from..to as source 1, in bursts of 'burst', which B takes before the next.
 * Returns how many frames were there as soon as a burst had been handed over. */
static uint32_t
push_numbered(struct pair *p, struct sink *sink, uint32_t from, uint32_t to, unsigned burst)
{
    uint8_t frame[FRAME_LEN];
    uint32_t at_once = 0;

    for (uint32_t i = from; i < to;) {
        struct rte_mbuf *m[NETBACK_MAX_BURST];
        uint32_t before = sink->received;
        unsigned n = 0;

        while (n < burst && i < to) {
            number_frame(frame, 1, i++);
            m[n++] = rig_mbuf(frame, FRAME_LEN);
        }
        netback_tx_burst(p->vb, m, n);
        take_all(sink);
        at_once += sink->received - before;
        CHECK(RIG_UNTIL((take_all(sink), sink->received == i), RIG_PATIENCE_MS));
    }
    return at_once;
}

static void
test_courier(void)
{
    struct pair p = connect_pair(NULL);
    struct sink sink = {.q = &p.b->q[0]};
    uint64_t wakeups;

    CASE("a thread that delivers itself does not wake the queue's for a little");
    netback_deliver_here(NETBACK_DELIVER_LITTLE);
    /* That counts when it wakes; it does once, to give back memory, and then sleeps on. */
    CHECK(RIG_UNTIL(rig_stats(p.vb).wakeups > 0, RIG_PATIENCE_MS));
    CHECK(push_numbered(&p, &sink, 0, 800, 8) > 700 && !sink.wrong);
    wakeups = rig_stats(p.vb).wakeups;
    CHECK(push_numbered(&p, &sink, 800, 2400, 8) > 1400 && !sink.wrong);
    CHECK(rig_stats(p.vb).wakeups - wakeups < 50);
    CHECK(RIG_UNTIL(rig_stats(p.vb).tx_packets == 2400, RIG_PATIENCE_MS));
    netback_deliver_trim();

    CASE("but for more it does");
    wakeups = rig_stats(p.vb).wakeups;
    push_numbered(&p, &sink, 2400, 4800, 24);
    CHECK(rig_stats(p.vb).wakeups > wakeups && !sink.wrong);

    CASE("one that delivers all: it is in the ring when it has been handed over");
    netback_deliver_here(NETBACK_DELIVER_ALL);
    CHECK(push_numbered(&p, &sink, 4800, 7200, 24) == 2400 && !sink.wrong);
    netback_deliver_here(NETBACK_DELIVER_NONE);
    part(&p);

    netback_deliver_here(NETBACK_DELIVER_ALL);
    CASE("two threads deliver at once: each one's order holds, nothing is lost uncounted");
    run_mixed(false, 0);
    CASE("the same to a guest that has no room now and then");
    run_mixed(false, 50);
    CASE("the same while the guest changes its static grants");
    run_mixed(true, 100);
    netback_deliver_here(NETBACK_DELIVER_NONE);
}

static void
test_courier_cuts(void)
{
    struct pair p;
    static uint8_t frame[LARGE_PAYLOAD + 100];
    static struct nb_packet got;
    unsigned n = 0, bytes = 0;

    CASE("it also cuts what the guest does not take whole");
    netback_deliver_here(NETBACK_DELIVER_ALL);
    p = connect_pair(&(struct nb_options){.no_gso = true});
    uint32_t len =
        frame_build(frame, &(struct frame_spec){.payload = LARGE_PAYLOAD, .blank = true, .seq = 1});
    struct rte_mbuf *m = rig_mbuf(frame, len);
    m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4;
    m->tso_segsz = 1448;
    netback_tx_burst(p.vb, &m, 1);
    CHECK(RIG_UNTIL(({
                        while (nb_rx_take(&p.b->q[0], &got)) {
                            CHECK(!got.malformed && !got.error && got.len <= 1514);
                            bytes += got.len - (len - LARGE_PAYLOAD);
                            n++;
                        }
                        bytes >= LARGE_PAYLOAD;
                    }),
                    RIG_PATIENCE_MS));
    CHECK(bytes == LARGE_PAYLOAD && n == (LARGE_PAYLOAD + 1447) / 1448);
    netback_deliver_here(NETBACK_DELIVER_NONE);
    part(&p);
}

/* Of ours, delivered at once. */
static void
deliver_some(void)
{
    struct pair p = connect_pair(NULL);
    struct sink sink = {.q = &p.b->q[0]};

    CHECK(push_numbered(&p, &sink, 0, 240, 24) == 240 && !sink.wrong);
    part(&p);
}

/* More than a little, so that who delivers all delivers it. */
static void
push_burst(struct pair *p)
{
    struct rte_mbuf *m[24];
    uint8_t frame[FRAME_LEN];

    number_frame(frame, 1, 0);
    for (unsigned i = 0; i < RTE_DIM(m); i++) {
        m[i] = rig_mbuf(frame, FRAME_LEN);
    }
    netback_tx_burst(p->vb, m, RTE_DIM(m));
}

/* The guest has no room, and packets wait until they are too old. */
static bool
expire_some(struct pair *p)
{
    uint64_t before = rig_drops(p->vb, DROP_GRX_EXPIRED);

    for (unsigned n = 0; n < NB_SLOTS + 24; n += 24) {
        push_burst(p);
    }
    return RIG_UNTIL(rig_drops(p->vb, DROP_GRX_EXPIRED) > before, RIG_PATIENCE_MS);
}

static void
test_blocked_long_ago(void)
{
    rig_netback_stop(true);
    rig_expire_ms = 50;
    rig_netback();

    struct pair p = connect_pair(NULL);
    struct nb_queue *q = &p.b->q[0];

    CASE("a guest that blocked long ago, and has been delivered to since, is not stalled for that");
    netback_deliver_here(NETBACK_DELIVER_ALL);
    CHECK(expire_some(&p));
    uint64_t until = rig_now_ns() + (RIG_STALL_MS + 100) * 1000000ull;
    while (rig_now_ns() < until) {
        nb_rx_discard(q);
        push_burst(&p);
        rig_yield();
    }
    nb_rx_discard(q);
    CHECK(expire_some(&p));
    CHECK(!rig_stats(p.vb).stalls && rig_status(p.vb).carrier);
    netback_deliver_here(NETBACK_DELIVER_NONE);
    part(&p);
    rig_netback_stop(true);
    rig_expire_ms = RIG_EXPIRE_MS;
    rig_netback();
}

static void
test_courier_outlives(void)
{
    CASE("netback ends, and begins anew, while a thread has what it delivers with");
    netback_deliver_here(NETBACK_DELIVER_ALL);
    deliver_some();
    rig_netback_stop(false);
    netback_deliver_trim();
    rig_netback();
    deliver_some();
    rig_netback_stop(false);
    netback_deliver_here(NETBACK_DELIVER_NONE);
    rig_netback();
}

static void
test_going(void)
{
    unsigned connected = 0, got = 0;

    CASE("the receiving guest goes and comes while packets are on their way to it");
    struct pair p = connect_pair(NULL);
    struct sender sender = {.g = p.a, .n = UINT32_MAX};
    pthread_t t;
    pthread_create(&t, NULL, send_numbered, &sender);
    for (unsigned i = 0; i < 25; i++) {
        struct sink sink = {.q = &p.b->q[0]};

        CHECK(RIG_UNTIL((take_all(&sink), sink.received > 300), RIG_PATIENCE_MS));
        got += sink.received > 300 && !sink.wrong;
        CHECK(nb_close(p.b) && nb_reinit(p.b));
        connected += nb_connect(p.b, NULL);
    }
    CHECK(connected == 25 && got == 25);

    CASE("a broken receive ring switches its own guest off, not the sender");
    p.b->q[0].rx.sring->req_prod += 1000;
    RING_IDX broken = p.b->q[0].rx.sring->req_prod;
    CHECK(RIG_UNTIL(rig_logged("ring is broken") || !rig_status(p.vb).connected, RIG_PATIENCE_MS));
    CHECK(p.b->q[0].rx.sring->req_prod == broken && rig_status(p.va).connected);
    sender.stop = true;
    pthread_join(t, NULL);
    part(&p);
}

int
main(void)
{
    rig_begin();
    rig_netback();
    struct rig_resources base = rig_resources();
    test_direct();
    test_mixed();
    test_large();
    test_stall();
    test_courier();
    test_courier_cuts();
    test_going();
    CASE("after all this nothing is left in use");
    CHECK(rig_settles(&base));

    test_blocked_long_ago();
    test_courier_outlives();

    CASE("netback ends while the switch on one vif's thread delivers to another");
    struct pair p = connect_pair(NULL);
    struct sender sender = {.g = p.a, .n = UINT32_MAX};
    struct sink sink = {.q = &p.b->q[0]};
    pthread_t t;
    pthread_create(&t, NULL, send_numbered, &sender);
    CHECK(RIG_UNTIL((take_all(&sink), sink.received > 300), RIG_PATIENCE_MS));
    rig_netback_stop(false);
    sender.stop = true;
    pthread_join(t, NULL);
    nb_guest_free(p.a);
    nb_guest_free(p.b);
    int failed = check_done();
    rig_end();
    return failed;
}
