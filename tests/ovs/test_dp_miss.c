/* Packets that the cache does not know, from a port through the classifier to
 * ports, recirculations and upcalls; what is counted on the way.
 *
 *   port 1 > worker_run() > dp_miss() > [dp_execute() > dp_input()]* > 2, 3 */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "dp_rig.h"
#include "flow_text.h"
#include "odp-util.h"

#define BURST 100u
#define NOW 1 /* ms; nothing ages */

static struct dp_worker *w;
static unsigned n_sent[4], n_tagged[4];
static uint64_t next_id = 1;

static void
sink(struct fast_port *port, struct worker *worker OVS_UNUSED, struct rte_mbuf **pkts, unsigned n)
{
    unsigned index = odp_to_u32(CONTAINER_OF(port, struct dp_port, fast)->port_no);

    for (unsigned i = 0; i < n; i++) {
        const uint8_t *d = rte_pktmbuf_mtod(pkts[i], const uint8_t *);

        n_sent[index]++;
        n_tagged[index] += d[12] == 0x81 && d[13] == 0;
    }
    dp_packets_free(pkts, n);
}

static void
put(const char *flow, const char *actions)
{
    ovs_u128 ufid = {.u64 = {next_id, next_id}};

    next_id++;
    ovs_assert(!flow_text_put(rig_dp, DPIF_FP_CREATE, &ufid, flow, actions, NULL));
}

/* A 60-byte IPv4 frame of 'proto' with ports 'src' and 'dst'. */
static struct rte_mbuf *
frame(uint8_t proto, uint16_t src, uint16_t dst)
{
    struct dp_packet *p = dp_packet_new_with_headroom(60, 128);
    uint8_t *d = dp_packet_put_zeros(p, 60);

    d[0] = d[6] = 2;
    d[5] = 1;
    d[12] = 8;
    d[14] = 0x45;
    d[17] = 46;
    d[22] = 64;
    d[23] = proto;
    d[26] = d[30] = 10;
    d[34] = src >> 8;
    d[35] = src;
    d[36] = dst >> 8;
    d[37] = dst;
    d[46] = 0x50; /* as TCP: offset 5, */
    d[47] = 0x12; /* SYN, ACK */
    dp_packet_complete(p);
    return &p->mbuf;
}

/* 'n' frames at once; of each kind in turn, if there are several; source ports
 * from 'first' on. */
static void
run_from(uint16_t first, unsigned n, const uint8_t protos[], unsigned n_protos)
{
    struct rte_mbuf *pkts[ENGINE_BURST];

    memset(n_sent, 0, sizeof n_sent);
    memset(n_tagged, 0, sizeof n_tagged);
    for (unsigned i = 0; i < n; i++) {
        pkts[i] = frame(protos[i % n_protos], first + i, 53);
    }
    worker_begin(w->worker);
    worker_run(w->worker, 1, pkts, n, NOW);
    worker_end(w->worker);
}

static void
run(unsigned n, const uint8_t protos[], unsigned n_protos)
{
    run_from(0, n, protos, n_protos);
}

static struct dpif_flow_stats
stats_of(uint64_t id)
{
    struct dpif_flow_stats stats = {0};
    struct dpif_flow_dump *dump = dp_flow_dump_create(RIG_DPIF, true, NULL);
    struct dpif_flow_dump_thread *thread = dp_flow_dump_thread_create(dump);
    struct dpif_flow f;

    while (dp_flow_dump_next(thread, &f, 1)) {
        if (f.ufid.u64.hi == id) {
            stats = f.stats;
        }
    }
    dp_flow_dump_thread_destroy(thread);
    dp_flow_dump_destroy(dump);
    return stats;
}

static struct worker_stats
engine_stats(void)
{
    struct worker_stats s;

    worker_stats(w->worker, &s);
    return s;
}

static uint64_t
read64(atomic_uint64_t *v)
{
    uint64_t value;

    atomic_read_relaxed(v, &value);
    return value;
}

#define START "recirc_id(0),in_port(1),eth_type(0x0800),"
#define UDP 17
#define TCP 6
#define GRE 47
#define SCTP 132
#define OTHER 200

int
main(int argc OVS_UNUSED, char *argv[])
{
    static const uint8_t udp[] = {UDP}, other[] = {OTHER}, sctp[] = {SCTP};
    static const uint8_t mixed[] = {UDP, TCP, TCP, GRE}, both[] = {UDP, TCP};
    struct dp_port *two, *three;
    struct dpif_flow_stats s;
    uint64_t hit, missed, lost, learned = 0;

    set_program_name(argv[0]);
    rig_start();
    two = rig_port(2, DP_PORT_WAITED);
    three = rig_port(3, DP_PORT_WAITED);
    two->fast.send = three->fast.send = sink;
    w = dp_worker_create(rig_dp, 1024, false);

    put(START "ipv4(proto=17,frag=no),udp(dst=53)", "2");                            /* 1 */
    put(START "ipv4(proto=6,frag=no),tcp(dst=53)", "push_vlan(vid=5,pcp=0),3");      /* 2 */
    put(START "ipv4(proto=47,frag=no)", "2,3");                                      /* 3 */
    put(START "ipv4(proto=132,ttl=64,frag=no),sctp(dst=53)", "recirc(1)");           /* 4 */
    put("recirc_id(1),in_port(1),eth_type(0x0800),ipv4(frag=no)", "recirc(2)");      /* 5 */
    put("recirc_id(2),in_port(1),eth_type(0x0800),ipv4(frag=no)", "3,recirc(3)");    /* 6 */
    put("recirc_id(3),in_port(1),eth_type(0x0800),ipv4(frag=no)", "recirc(4)");      /* 7 */
    put("recirc_id(4),in_port(1),eth_type(0x0800),ipv4(src=10.0.0.0,frag=no)", "2"); /* 8 */

    CASE("miss-learns");
    run(BURST, udp, 1);
    CHECK(n_sent[2] == BURST && !n_sent[3]);
    CHECK(read64(&rig_dp->n_hit) == BURST && engine_stats().misses == BURST);
    run(BURST, udp, 1);
    CHECK(n_sent[2] == BURST);
    CHECK(read64(&rig_dp->n_hit) == BURST && engine_stats().cache_hits == BURST);
    s = stats_of(1);
    CHECK(s.n_packets == 2 * BURST && s.n_bytes == 2 * BURST * 60 && s.used == NOW);
    CHECK(s.tcp_flags == 0);

    /* Runs of one, two and one packets, each flow with its own program. */
    CASE("miss-mixed");
    hit = read64(&rig_dp->n_hit);
    run(BURST, mixed, 4);
    CHECK(n_sent[2] == BURST / 2 && n_sent[3] == BURST * 3 / 4);
    CHECK(n_tagged[3] == BURST / 2 && !n_tagged[2]);
    CHECK(read64(&rig_dp->n_hit) == hit + BURST * 3 / 4); /* UDP was learned */
    CHECK(stats_of(2).n_packets == BURST / 2 && stats_of(2).tcp_flags == 0x12);
    CHECK(stats_of(3).n_packets == BURST / 4);
    run(BURST, mixed, 4);
    CHECK(read64(&rig_dp->n_hit) == hit + BURST * 3 / 4);
    CHECK(n_sent[2] == BURST / 2 && n_sent[3] == BURST * 3 / 4);

    /* The first flow looks at the TTL: classified each time.  More levels of
     * recirculation than have keys of their own. */
    CASE("miss-recirculates");
    for (unsigned i = 1; i <= 2; i++) {
        hit = read64(&rig_dp->n_hit);
        run(BURST, sctp, 1);
        CHECK(n_sent[2] == BURST && n_sent[3] == BURST);
        CHECK(read64(&rig_dp->n_hit) == hit + 5 * BURST);
        for (unsigned id = 4; id <= 8; id++) {
            CHECK(stats_of(id).n_packets == i * BURST);
        }
    }

    CASE("miss-upcalls");
    missed = read64(&rig_dp->n_missed);
    lost = read64(&rig_dp->n_lost);
    run(BURST, other, 1);
    CHECK(!n_sent[2] && !n_sent[3]);
    CHECK(read64(&rig_dp->n_missed) == missed + BURST);
    CHECK(read64(&rig_dp->n_lost) == lost + BURST); /* nobody receives */

    /* One flow makes source ports count: others get a key for each. */
    put(START "ipv4(proto=17,frag=no),udp(src=65535,dst=54)", "2");
    CASE("miss-not-at-all");
    for (unsigned i = 0; i < 3; i++) {
        hit = engine_stats().cache_hits;
        run_from(60000 + i * BURST, BURST, udp, 1);
        run_from(50000 + i * BURST, BURST, udp, 1);
    }
    CHECK(engine_stats().cache_hits == hit + 2 * BURST);

    /* Far more keys than the cache holds; of two megaflows, so that bursts are not known by the one
     * that they are of. */
    CASE("miss-teaches-little-in-vain");
    for (unsigned i = 0; i < 600; i++) {
        learned = i == 500 ? engine_stats().learned : learned;
        run_from(i * BURST, BURST, both, 2);
    }
    learned = engine_stats().learned - learned;
    CHECK(learned > 0 && learned < 100 * BURST / 16);

    CASE("miss-teaches-again");
    for (unsigned i = 0; i < 1000; i++) {
        run_from(0, BURST, both, 2);
    }
    hit = engine_stats().cache_hits;
    run_from(0, BURST, both, 2);
    CHECK(engine_stats().cache_hits == hit + BURST);

    dp_worker_destroy(w);
    rig_port_free(two);
    rig_port_free(three);
    ovsrcu_exit();
    epoch_synchronize();
    rig_stop();
    return check_done();
}
