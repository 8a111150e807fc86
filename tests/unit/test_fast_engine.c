/* engine: packets through a worker's cache and out, statistics, edits, what
 * changes of flows do to entries, growth and trimming. */
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "fast/state.h"
#include "fast_rig.h"

/* The adapter: flow f[dport] for packets to UDP port 'dport', exact in it. */
#define N_FLOWS 16u

static struct engine *engine;
static struct worker *worker;
static struct fast_rig_port ports[4];
static struct fast_flow flows[N_FLOWS];
static struct key_mask mask;
static const struct key_mask flow_mask = {.tp_dst = UINT16_MAX};
static bool whole; /* flows say what they match: each has one entry in smc.h */
static unsigned n_missed, n_slow, n_tracked, n_verdicts_freed;
static bool learning, track_answer;
static const struct program *slow_program;
static uint8_t order[ENGINE_BURST * 2]; /* TTLs of slow packets, as they come */

static unsigned
dport_of(const struct rte_mbuf *m)
{
    const uint8_t *d = rte_pktmbuf_mtod(m, const uint8_t *);
    unsigned l3 = d[12] == 0x81 ? 18 : 14;

    return d[l3 + (d[l3] >> 4 == 6 ? 40 : 20) + 3];
}

static void
miss(struct worker *w, uint16_t in_port, struct rte_mbuf **pkts, unsigned n)
{
    n_missed += n;
    for (unsigned i = 0; i < n; i++) {
        struct fast_flow *f = &flows[dport_of(pkts[i]) % N_FLOWS];
        if (learning) {
            worker_learn(w, in_port, pkts[i], f);
        }
        worker_count(w, f, pkts[i]);
        worker_act(w, in_port, f, &pkts[i], 1);
    }
}

static void
slow(struct worker *w, uint16_t in_port, const struct program *p, struct rte_mbuf **pkts,
     unsigned n)
{
    (void)w, (void)in_port;
    for (unsigned i = 0; i < n; i++) {
        order[(n_slow + i) % sizeof order] = rte_pktmbuf_mtod(pkts[i], uint8_t *)[22];
    }
    n_slow += n;
    slow_program = p;
    fast_rig_mbuf_free(pkts, n);
}

static bool
track(struct worker *w, void *verdict, struct rte_mbuf *m)
{
    (void)w, (void)m;
    n_tracked += verdict == &track_answer;
    return track_answer;
}

static void
verdict_free(struct worker *w, void *verdict)
{
    (void)w;
    n_verdicts_freed += verdict == &track_answer;
}

static const struct engine_ops ops = {
    .miss = miss,
    .slow = slow,
    .track = track,
    .verdict_free = verdict_free,
    .free = fast_rig_mbuf_free,
};

/* Programs that flows no longer have go with the rig. */
static struct program *garbage[256];
static unsigned n_garbage;

static void
set_program(unsigned flow, struct program *p)
{
    garbage[n_garbage++] = engine_flow_set_program(engine, &flows[flow], p);
}

static void
set_up(unsigned cache_max)
{
    engine = engine_create(&ops, &engine);
    worker = worker_create(engine, cache_max, &worker);
    for (unsigned i = 0; i < RTE_DIM(ports); i++) {
        fast_rig_port_init(&ports[i], engine, i);
    }
    memset(&mask, 0, sizeof mask);
    mask.tp_dst = UINT16_MAX;
    engine_set_mask(engine, &mask);
    for (unsigned i = 0; i < N_FLOWS; i++) {
        flows[i].covers = 7;
        flows[i].mask = whole ? &flow_mask : NULL;
        engine_flow_add(engine, &flows[i], fast_rig_program(PROGRAM_OUTPUT, i % RTE_DIM(ports)));
    }
    n_missed = n_slow = n_tracked = n_verdicts_freed = 0;
    learning = true;
    worker_begin(worker);
}

static void
tear_down(void)
{
    worker_end(worker);
    worker_destroy(worker);
    for (unsigned i = 0; i < N_FLOWS; i++) {
        free(atomic_load(&flows[i].program));
        engine_flow_invalidate(engine, &flows[i]);
        engine_flow_free(engine, &flows[i]);
    }
    for (unsigned i = 0; i < RTE_DIM(ports); i++) {
        fast_rig_port_done(&ports[i], engine);
    }
    engine_destroy(engine);
    for (; n_garbage; n_garbage--) {
        free(garbage[n_garbage - 1]);
    }
    epoch_reclaim();
    CHECK(!fast_rig_mbufs_alive());
}

static struct rte_mbuf *
udp(uint32_t src, uint16_t dport)
{
    uint8_t d[FRAME_MAX];
    unsigned len = frame_build_udp(d, &(struct frame_udp){.src = src, .dst = 9, .dport = dport});

    return fast_rig_mbuf(d, len);
}

/* Sends 'n' frames like 'f' as one burst. */
static void
send_like(const struct frame_udp *f, unsigned n, int64_t now)
{
    struct rte_mbuf *pkts[ENGINE_BURST];
    uint8_t d[FRAME_MAX];
    unsigned len = frame_build_udp(d, f);

    for (unsigned i = 0; i < n; i++) {
        d[f->tci ? 26 : 22] = i;
        pkts[i] = fast_rig_mbuf(d, len);
    }
    worker_run(worker, 1, pkts, n, now);
}

static struct flow_stats
stats_of(unsigned flow)
{
    struct flow_stats s;

    engine_flow_stats(engine, &flows[flow], &s);
    return s;
}

static struct worker_stats
worker_numbers(void)
{
    struct worker_stats s;

    worker_stats(worker, &s);
    return s;
}

/* --- forwarding ----------------------------------------------------------------- */

static void
test_forward(void)
{
    struct rte_mbuf *pkts[ENGINE_BURST];
    struct worker_stats s;

    set_up(1024);
    CASE("the first packet of a flow misses, the next ones hit");
    send_like(&(struct frame_udp){.dport = 1}, 1, 5);
    CHECK(n_missed == 1);
    send_like(&(struct frame_udp){.dport = 1}, 128, 6);
    send_like(&(struct frame_udp){.dport = 1}, 3, 7);
    CHECK(n_missed == 1);
    CHECK(ports[1].packets == 132 && ports[1].bytes == 132 * 64);
    CHECK(stats_of(1).packets == 132 && stats_of(1).bytes == 132 * 64 && stats_of(1).used == 7);

    CASE("a burst of several flows is scattered by port");
    for (unsigned i = 0; i < N_FLOWS; i++) {
        send_like(&(struct frame_udp){.dport = i}, 1, 8);
    }
    n_missed = 0;
    for (unsigned i = 0; i < ENGINE_BURST; i++) {
        pkts[i] = udp(i, i % N_FLOWS);
    }
    worker_run(worker, 1, pkts, ENGINE_BURST, 9);
    CHECK(!n_missed);
    CHECK(ports[0].packets == 36 && ports[2].packets == 36 && ports[3].packets == 36);
    CHECK(stats_of(2).packets == 1 + ENGINE_BURST / N_FLOWS);

    CASE("another port misses though all else is equal");
    pkts[0] = udp(1, 1);
    worker_run(worker, 2, pkts, 1, 9);
    CHECK(n_missed == 1);

    CASE("a drop and an output to no port are counted");
    set_program(1, fast_rig_program(PROGRAM_DROP, 0));
    set_program(2, fast_rig_program(PROGRAM_OUTPUT, 77));
    for (unsigned turn = 0; turn < 2; turn++) {
        send_like(&(struct frame_udp){.dport = 1}, 4, 10);
        send_like(&(struct frame_udp){.dport = 2}, 4, 10);
    }
    for (unsigned i = 0; i < 8; i++) {
        pkts[i] = udp(1, 1 + i % 2);
    }
    worker_run(worker, 1, pkts, 8, 10);
    s = worker_numbers();
    CHECK(s.drops[ENGINE_DROP_ACTION] == 12 && s.drops[ENGINE_DROP_NO_PORT] == 12);

    CASE("a frame without an Ethernet header is dropped");
    pkts[0] = fast_rig_mbuf("123456789abc", 13);
    worker_run(worker, 1, pkts, 1, 10);
    CHECK(worker_numbers().drops[ENGINE_DROP_SHORT] == 1);

    CASE("an odd frame misses each time");
    n_missed = 0;
    for (unsigned i = 0; i < 3; i++) {
        uint8_t d[FRAME_MAX];
        unsigned len = frame_build_udp(d, &(struct frame_udp){.dport = 1});
        d[14 + 6] = 0x20; /* more fragments */
        pkts[0] = fast_rig_mbuf(d, len);
        worker_run(worker, 1, pkts, 1, 10);
    }
    CHECK(n_missed == 3);
    CHECK(worker_numbers().odd == 3);
    tear_down();
}

static void
test_ipv6(void)
{
    struct rte_mbuf *pkts[4];

    set_up(1024);
    CASE("IPv6 is cached, and by all of its address that the mask has");
    mask.ip6_src[15] = 0xff;
    engine_set_mask(engine, &mask);
    for (unsigned i = 0; i < 3; i++) {
        send_like(&(struct frame_udp){.dport = 1, .src = 7, .ip6 = true}, 2, 1);
    }
    CHECK(n_missed == 2);
    send_like(&(struct frame_udp){.dport = 1, .src = 8, .ip6 = true}, 1, 1);
    CHECK(n_missed == 3);
    send_like(&(struct frame_udp){.dport = 1, .src = 0x107, .ip6 = true}, 1, 1);
    CHECK(n_missed == 3);

    CASE("both versions of IP in one burst");
    send_like(&(struct frame_udp){.dport = 2}, 1, 1);
    n_missed = 0;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t d[FRAME_MAX];
        unsigned len =
            frame_build_udp(d, &(struct frame_udp){.dport = 1 + i % 2, .src = 7, .ip6 = !(i % 2)});
        pkts[i] = fast_rig_mbuf(d, len);
    }
    worker_run(worker, 1, pkts, 4, 1);
    CHECK(!n_missed);
    CHECK(stats_of(1).packets == 10 && stats_of(2).packets == 3);
    tear_down();
}

static void
test_covers(void)
{
    set_up(1024);
    CASE("a flow that the key does not cover is classified each time");
    flows[1].covers = 1 << SHAPE_L2 | 1 << SHAPE_IPV6;
    for (unsigned i = 0; i < 3; i++) {
        send_like(&(struct frame_udp){.dport = 1}, 1, 1);
    }
    CHECK(n_missed == 3 && stats_of(1).packets == 3);
    flows[1].covers = 7;
    tear_down();

    set_up(0);
    CASE("a worker without a cache");
    send_like(&(struct frame_udp){.dport = 1}, 3, 1);
    send_like(&(struct frame_udp){.dport = 1}, 3, 1);
    CHECK(n_missed == 6 && ports[1].packets == 6 && stats_of(1).packets == 6);
    tear_down();
}

/* A burst of 'n' sources to UDP port 1. */
static void
send_sources(unsigned n)
{
    struct rte_mbuf *pkts[ENGINE_BURST];

    for (unsigned i = 0; i < n; i++) {
        pkts[i] = udp(i, 1);
    }
    worker_run(worker, 1, pkts, n, 1);
}

static void
test_one_flow(void)
{
    set_up(1024);
    mask.ip4_src = UINT32_MAX;
    engine_set_mask(engine, &mask);
    CASE("bursts of many keys and one flow, also with a stranger among them");
    for (unsigned turn = 0; turn < 4; turn++) {
        send_sources(100);
        CHECK(stats_of(1).packets == (turn + 1) * 100 && ports[1].packets == (turn + 1) * 100);
    }
    CHECK(n_missed == 100);
    send_sources(101);
    send_sources(101);
    CHECK(n_missed == 101 - whole && stats_of(1).packets == 602 && stats_of(1).bytes == 602 * 64);
    CASE("and when the flow changes to drop, to push a tag, to go slow");
    set_program(1, fast_rig_program(PROGRAM_DROP, 0));
    send_sources(101), send_sources(101), send_sources(101);
    CHECK(ports[1].packets == 602 && worker_numbers().drops[ENGINE_DROP_ACTION] == 303);
    set_program(1, fast_rig_program_push(2, 5));
    send_sources(101), send_sources(101), send_sources(101);
    CHECK(ports[2].packets == 303 && ports[2].bytes == 303 * 68);
    set_program(1, fast_rig_program(PROGRAM_SLOW, 0));
    send_sources(101), send_sources(101), send_sources(101);
    CHECK(n_slow == 303 && n_missed == 404 - whole && stats_of(1).packets == 602 + 909);
    tear_down();
}

static void
test_tcp_flags(void)
{
    set_up(1024);
    CASE("TCP flags gather in the flow");
    send_like(&(struct frame_udp){.dport = 1, .proto = 6, .tcp_flags = 2}, 1, 1);
    CHECK(stats_of(1).tcp_flags == 2);
    send_like(&(struct frame_udp){.dport = 1, .proto = 6, .tcp_flags = 0x10}, 2, 1);
    CHECK(stats_of(1).tcp_flags == 0x12 && n_missed == 1);
    tear_down();
}

/* --- edits -------------------------------------------------------------------------- */

static const uint8_t *
last_frame(const struct fast_rig_port *p)
{
    return rte_pktmbuf_mtod(p->last, const uint8_t *);
}

static void
test_vlan(void)
{
    static const uint8_t tag[] = {0x81, 0x00, 0x20, 0x64, 0x08, 0x00};
    struct program *pop;
    struct rte_mbuf *pkts[2];
    struct worker_stats s;

    set_up(1024);
    ports[3].keep = true;
    CASE("a tag is pushed, by a burst and by a packet among others");
    set_program(3, fast_rig_program_push(3, 0x3064)); /* with OVS's mark */
    for (unsigned turn = 0; turn < 3; turn++) {
        send_like(&(struct frame_udp){.dport = 3}, 1 + turn, 1);
        CHECK(ports[3].last->data_len == 68 && ports[3].last->pkt_len == 68);
        CHECK(!memcmp(last_frame(&ports[3]) + 12, tag, sizeof tag));
        CHECK(last_frame(&ports[3])[5] == 1 && last_frame(&ports[3])[11] == 2);
    }
    send_like(&(struct frame_udp){.dport = 1}, 1, 1);
    pkts[0] = udp(1, 3), pkts[1] = udp(1, 1);
    pkts[0]->ol_flags = RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4;
    pkts[0]->l2_len = 14;
    n_missed = 0;
    worker_run(worker, 1, pkts, 2, 1);
    CHECK(!n_missed && ports[3].packets == 7);
    CHECK(!memcmp(last_frame(&ports[3]) + 12, tag, sizeof tag));
    CHECK(ports[3].last->l2_len == 18);
    CHECK(stats_of(3).packets == 7 && stats_of(3).bytes == 7 * 64);

    CASE("without headroom for a tag the packet is dropped");
    pkts[0] = udp(1, 3);
    memmove(pkts[0]->buf_addr, rte_pktmbuf_mtod(pkts[0], void *), 64);
    pkts[0]->data_off = 0;
    worker_run(worker, 1, pkts, 1, 1);
    s = worker_numbers();
    CHECK(s.drops[ENGINE_DROP_HEADROOM] == 1);

    CASE("a tag is popped; of an untagged frame nothing is");
    pop = calloc(1, sizeof *pop + 2 * sizeof pop->edits[0]);
    pop->kind = PROGRAM_EDIT;
    pop->port = 3;
    pop->n_edits = 2;
    pop->edits[0].type = EDIT_POP_VLAN;
    pop->edits[1] =
        (struct edit){.type = EDIT_SET_ETH, .eth = {.value = {0xff, 0x0e}, .mask = {0x0f, 0xff}}};
    set_program(3, pop);
    for (unsigned turn = 0; turn < 4; turn++) {
        send_like(&(struct frame_udp){.dport = 3, .tci = turn % 2 ? 0 : 5}, 2, 1);
        CHECK(ports[3].last->data_len == (turn % 2 ? 64 : 60));
        CHECK(last_frame(&ports[3])[12] == 8 && last_frame(&ports[3])[11] == 2);
        CHECK(last_frame(&ports[3])[0] == 0x0f && last_frame(&ports[3])[1] == 0x0e);
    }
    tear_down();
}

/* --- flows that change ------------------------------------------------------------------ */

static void
test_changes(void)
{
    uint64_t before;

    set_up(1024);
    CASE("a new program takes effect on cached packets; statistics go on");
    send_like(&(struct frame_udp){.dport = 1}, 1, 1);
    send_like(&(struct frame_udp){.dport = 1}, 1, 1);
    set_program(1, fast_rig_program(PROGRAM_OUTPUT, 2));
    send_like(&(struct frame_udp){.dport = 1}, 2, 1);
    send_like(&(struct frame_udp){.dport = 1}, 2, 1);
    CHECK(ports[1].packets == 2 && ports[2].packets == 4 && n_missed == 3);
    CHECK(stats_of(1).packets == 6);

    CASE("a flow that is gone is neither hit nor learned; its id starts from 0");
    engine_flow_invalidate(engine, &flows[1]);
    send_like(&(struct frame_udp){.dport = 1}, 1, 1);
    send_like(&(struct frame_udp){.dport = 1}, 1, 1);
    CHECK(n_missed == 5);
    engine_flow_free(engine, &flows[1]);
    engine_flow_add(engine, &flows[1], atomic_load(&flows[1].program));
    CHECK(stats_of(1).packets == 0 && stats_of(1).used == 0 && stats_of(1).tcp_flags == 0);
    send_like(&(struct frame_udp){.dport = 1}, 1, 1);
    send_like(&(struct frame_udp){.dport = 1}, 1, 1);
    CHECK(n_missed == 6 && stats_of(1).packets == 2);

    CASE("a worker that goes leaves its counts");
    worker_end(worker);
    worker_destroy(worker);
    CHECK(stats_of(1).packets == 2);
    worker = worker_create(engine, 1024, NULL);
    worker_begin(worker);
    send_like(&(struct frame_udp){.dport = 1}, 5, 9);
    CHECK(stats_of(1).packets == 7 && stats_of(1).used == 9);

    CASE("a wider mask divides packets that had one entry");
    before = n_missed;
    send_like(&(struct frame_udp){.dport = 1, .src = 0x0a000001}, 1, 1);
    CHECK(n_missed == before);
    mask.ip4_src = UINT32_MAX;
    engine_set_mask(engine, &mask);
    send_like(&(struct frame_udp){.dport = 1, .src = 0x0a000001}, 1, 1);
    CHECK(n_missed == before + !whole);
    send_like(&(struct frame_udp){.dport = 1, .src = 0x0a000001}, 1, 1);
    send_like(&(struct frame_udp){.dport = 1, .src = 0}, 1, 1);
    CHECK(n_missed == before + !whole);
    tear_down();
}

static void
test_ids(void)
{
    static struct fast_flow many[3 * CHUNK_SLOTS];
    struct flow_stats s;

    set_up(1024);
    CASE("ids are given out anew, lowest memory first, with clean counters");
    for (unsigned i = 0; i < RTE_DIM(many); i++) {
        CHECK(!engine_flow_add(engine, &many[i], NULL));
        CHECK(many[i].id == N_FLOWS + i);
        worker_count_n(worker, &many[i], 1, 100, 0x10);
    }
    for (unsigned i = 0; i < RTE_DIM(many); i += 2) {
        engine_flow_invalidate(engine, &many[i]);
        engine_flow_free(engine, &many[i]);
    }
    for (unsigned i = 0; i < RTE_DIM(many); i += 2) {
        CHECK(!engine_flow_add(engine, &many[i], NULL));
        CHECK(many[i].id < N_FLOWS + RTE_DIM(many));
        engine_flow_stats(engine, &many[i], &s);
        CHECK(!s.packets && !s.bytes && !s.tcp_flags && !s.used);
        engine_flow_stats(engine, &many[i + 1], &s);
        CHECK(s.packets == 1 && s.bytes == 100 && s.tcp_flags == 0x10);
    }
    tear_down();
}

/* --- the slow path and verdicts ------------------------------------------------------------ */

static void
test_slow(void)
{
    struct rte_mbuf *pkts[30];
    bool in_order = true;

    set_up(1024);
    CASE("SLOW packets go to the adapter, counted, in order, by program");
    set_program(1, fast_rig_program(PROGRAM_SLOW, 0));
    set_program(2, fast_rig_program(PROGRAM_TRACK, 0));
    send_like(&(struct frame_udp){.dport = 1}, 1, 1);
    send_like(&(struct frame_udp){.dport = 2}, 1, 1);
    CHECK(n_slow == 2 && n_missed == 2);
    send_like(&(struct frame_udp){.dport = 1}, 5, 1);
    CHECK(n_slow == 7 && slow_program == atomic_load(&flows[1].program));
    n_slow = 0;
    for (unsigned i = 0; i < 30; i++) {
        pkts[i] = udp(1, 1 + i % 2);
        rte_pktmbuf_mtod(pkts[i], uint8_t *)[22] = i;
    }
    worker_run(worker, 1, pkts, 30, 1);
    CHECK(n_slow == 30 && n_missed == 2 && stats_of(1).packets == 21);
    for (unsigned i = 0; i < 15; i++) {
        in_order &= order[i] == 2 * i && order[15 + i] == 2 * i + 1;
    }
    CHECK(in_order);
    tear_down();
}

static void
test_verdicts(void)
{
    struct rte_mbuf *m;

    set_up(1024);
    learning = false;
    set_program(1, fast_rig_program(PROGRAM_TRACK, 0));
    CASE("a verdict that accepts counts in both flows and takes the second's way");
    m = udp(0, 1);
    worker_learn_verdict(worker, 1, m, &flows[1], &flows[2], &track_answer);
    track_answer = true;
    send_like(&(struct frame_udp){.dport = 1}, 6, 3);
    CHECK(n_tracked == 6 && !n_slow && !n_missed && ports[2].packets == 6);
    CHECK(stats_of(1).packets == 6 && stats_of(2).packets == 6 && stats_of(2).bytes == 6 * 64);

    CASE("one that does not leaves the burst to the slow path, and goes");
    track_answer = false;
    send_like(&(struct frame_udp){.dport = 1}, 6, 3);
    CHECK(n_tracked == 7 && n_slow == 6 && n_verdicts_freed == 1);
    CHECK(slow_program == atomic_load(&flows[1].program));
    CHECK(stats_of(1).packets == 12 && stats_of(2).packets == 6);

    CASE("it goes when another one takes its place");
    worker_learn_verdict(worker, 1, m, &flows[1], &flows[2], &track_answer);
    CHECK(n_verdicts_freed == 1);
    worker_learn_verdict(worker, 1, m, &flows[1], &flows[2], &track_answer);
    CHECK(n_verdicts_freed == 2);
    track_answer = true;
    send_like(&(struct frame_udp){.dport = 1}, 1, 3);
    CHECK(n_tracked == 8);

    CASE("it is not asked once the second flow has changed");
    set_program(2, fast_rig_program(PROGRAM_OUTPUT, 3));
    send_like(&(struct frame_udp){.dport = 1}, 2, 3);
    CHECK(n_tracked == 8 && n_slow == 8 && n_verdicts_freed == 3);

    CASE("nor once the first one has");
    worker_learn_verdict(worker, 1, m, &flows[1], &flows[2], &track_answer);
    set_program(1, fast_rig_program(PROGRAM_TRACK, 0));
    send_like(&(struct frame_udp){.dport = 1}, 2, 3);
    CHECK(n_tracked == 8 && n_missed == 2);

    CASE("a second flow that edits, and one that is slow");
    set_program(2, fast_rig_program_push(3, 7));
    ports[3].keep = true;
    worker_learn_verdict(worker, 1, m, &flows[1], &flows[2], &track_answer);
    send_like(&(struct frame_udp){.dport = 1}, 2, 3);
    CHECK(n_tracked == 10 && ports[3].last && ports[3].last->data_len == 68);
    n_verdicts_freed = 0;
    set_program(2, fast_rig_program(PROGRAM_SLOW, 3));
    worker_learn_verdict(worker, 1, m, &flows[1], &flows[2], &track_answer);
    CHECK(n_verdicts_freed == 1);

    CASE("all verdicts come back in the end");
    engine_flow_invalidate(engine, &flows[3]);
    set_program(2, fast_rig_program(PROGRAM_OUTPUT, 3));
    worker_learn_verdict(worker, 1, m, &flows[3], &flows[2], &track_answer);
    CHECK(n_verdicts_freed == 2);
    worker_learn_verdict(worker, 1, m, &flows[1], &flows[2], &track_answer);
    CHECK(n_verdicts_freed == 3); /* the stale one of two cases ago */

    /* Ofproto has changed the flow since its program ran; its entry is all packets'. */
    CASE("none of a flow that no longer tracks");
    set_program(1, fast_rig_program(PROGRAM_OUTPUT, 1));
    worker_learn_verdict(worker, 1, m, &flows[1], &flows[2], &track_answer);
    CHECK(n_verdicts_freed == 4);
    n_tracked = 0;
    send_like(&(struct frame_udp){.dport = 1}, 2, 3);
    CHECK(!n_tracked);
    fast_rig_mbuf_free(&m, 1);
    tear_down();
    CHECK(n_verdicts_freed == 5);
}

/* --- many keys ------------------------------------------------------------------------------- */

static void
send_many(unsigned keys, int64_t now)
{
    struct rte_mbuf *pkts[ENGINE_BURST];

    for (unsigned i = 0; i < keys; i += ENGINE_BURST) {
        unsigned n = RTE_MIN(keys - i, ENGINE_BURST);
        for (unsigned j = 0; j < n; j++) {
            pkts[j] = udp(0x0a000000 + i + j, (i + j) % N_FLOWS);
        }
        worker_run(worker, 1, pkts, n, now);
    }
}

static void
test_sizes(void)
{
    struct worker_stats s;
    uint64_t total = 0;

    set_up(20000);
    mask.ip4_src = UINT32_MAX;
    engine_set_mask(engine, &mask);
    CASE("the cache grows with use");
    send_many(64, 1);
    CHECK(worker_numbers().cache_size == 64);
    send_many(10000, 1);
    CHECK(n_missed == 10000 && worker_numbers().cache_entries == 10000);
    send_many(10000, 1);
    CHECK(n_missed == 10000);

    CASE("a full cache replaces what is not used");
    send_many(40000, 1);
    s = worker_numbers();
    CHECK(s.cache_entries <= 20000 && s.cache_entries > 19900 && s.evicted > 9900);
    for (unsigned i = 0; i < N_FLOWS; i++) {
        total += stats_of(i).packets;
    }
    CHECK(total == 60064);

    CASE("what nobody uses leaves with time");
    for (unsigned i = 0; i < 4000; i++) {
        send_like(&(struct frame_udp){.dport = 1}, 1, 100 + i * 20);
    }
    CHECK(worker_numbers().cache_entries == 1);

    CASE("trimming keeps a few that are used, and all counts");
    send_many(5000, 200000);
    send_many(5000, 200000);
    worker_trim(worker);
    s = worker_numbers();
    CHECK(s.cache_entries > 100 && s.cache_entries <= 256 && s.cache_size <= 256);
    n_missed = 0;
    send_many(5000, 200000);
    /* One of those that stayed may be the flow's of the case before. */
    CHECK(n_missed + s.cache_entries - 5000 <= 1);
    worker_trim(worker);
    worker_trim(worker);
    CHECK(worker_numbers().cache_entries <= 256);
    total = 0;
    for (unsigned i = 0; i < N_FLOWS; i++) {
        total += stats_of(i).packets;
    }
    CHECK(total == 60064 + 4000 + 15000);
    tear_down();

    CASE("a worker with many flows' counters gives them back when trimmed");
    set_up(1024);
    {
        static struct fast_flow many[64 * CHUNK_SLOTS];
        struct flow_stats f;
        for (unsigned i = 0; i < RTE_DIM(many); i++) {
            engine_flow_add(engine, &many[i], NULL);
            worker_count_n(worker, &many[i], 2, 30, 0);
        }
        send_like(&(struct frame_udp){.dport = 1}, 2, 1);
        CHECK(worker->slots.n_chunks >= 64);
        worker_trim(worker);
        CHECK(worker->slots.n_chunks == 0);
        send_like(&(struct frame_udp){.dport = 1}, 2, 1);
        CHECK(stats_of(1).packets == 4);
        engine_flow_stats(engine, &many[999], &f);
        CHECK(f.packets == 2 && f.bytes == 30);
        worker_count_n(worker, &many[999], 1, 15, 0);
        engine_flow_stats(engine, &many[999], &f);
        CHECK(f.packets == 3 && f.bytes == 45);
    }
    tear_down();
}

static void
test_outputs(void)
{
    static struct fast_rig_port many[60];
    struct rte_mbuf *pkts[300];
    uint64_t sum = 0, sends = 0;

    set_up(1024);
    CASE("more packets and more ports than there are lists");
    for (unsigned i = 0; i < RTE_DIM(many); i++) {
        fast_rig_port_init(&many[i], engine, 1000 + i);
    }
    for (unsigned i = 0; i < 300; i++) {
        pkts[i] = udp(1, 1);
    }
    for (unsigned i = 0; i < 300; i++) {
        worker_output(worker, 1000 + (i < 150 ? 7 : i % RTE_DIM(many)), &pkts[i], 1);
    }
    worker_flush(worker);
    for (unsigned i = 0; i < RTE_DIM(many); i++) {
        sum += many[i].packets;
        sends += many[i].sends;
        CHECK(many[i].packets == (i == 7 ? 152 : i >= 30 ? 3 : 2));
        fast_rig_port_done(&many[i], engine);
    }
    CHECK(sum == 300);
    CHECK(sends < 200);
    tear_down();
}

/* Sanitizers take memory of their own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

/* Resident memory of this process, in bytes. */
static size_t
resident(void)
{
    size_t pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (!f || fscanf(f, "%*u %zu", &pages) != 1) {
        pages = 0;
    }
    if (f) {
        fclose(f);
    }
    return pages * getpagesize();
}

static void
test_idle_memory(void)
{
    static struct worker *many[1000], *mine;
    size_t before;

    set_up(1024);
    mine = worker;
    mask.ip4_src = UINT32_MAX;
    engine_set_mask(engine, &mask);
    CASE("1,000 workers that have seen a few packets take less than 64 KiB each");
    send_many(16, 1);
    before = resident();
    for (unsigned i = 0; i < RTE_DIM(many); i++) {
        worker = many[i] = worker_create(engine, 100000, NULL);
        worker_begin(worker);
        send_many(16, 1);
        worker_end(worker);
    }
    CHECK(resident() - before < RTE_DIM(many) * (64u << 10) || SANITIZED);
    CASE("and no more when they have been busy and were trimmed");
    for (unsigned i = 0; i < RTE_DIM(many); i++) {
        worker = many[i];
        worker_begin(worker);
        send_many(2000, 1);
        send_many(1000, 1);
        worker_end(worker);
        worker_trim(worker);
    }
    CHECK(resident() - before < RTE_DIM(many) * (96u << 10) || SANITIZED);
    for (unsigned i = 0; i < RTE_DIM(many); i++) {
        worker_destroy(many[i]);
    }
    worker = mine;
    CHECK(stats_of(1).packets == (16 + 1000 * (16 + 3000u)) / N_FLOWS + (3000 % 16 ? 500 : 0));
    tear_down();
}

int
main(void)
{
    for (unsigned i = 0; i < 2; i++) {
        whole = i;
        test_forward();
        test_ipv6();
        test_covers();
        test_one_flow();
        test_tcp_flags();
        test_vlan();
        test_changes();
        test_slow();
        test_verdicts();
        test_idle_memory();
    }
    whole = false;
    test_ids();
    test_sizes();
    test_outputs();
    return check_done();
}
