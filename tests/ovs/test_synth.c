/* The benchmark ports' packets: are they what the rows of perf/ say they
 * measure?  Frames as Open vSwitch parses them, flows, pace, buffers. */
#include <config.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_mempool.h>
#include <stdlib.h>

#include "check.h"
#include "csum.h"
#include "flow.h"
#include "packets.h"
#include "smap.h"
#include "sset.h"
#include "synth_latency.h"
#include "synth_queue.h"
#include "util.h"

#define N_DESC 64u

/* Sources 10.0.0.0/12 and 11.0.0.0/13 to port 80; the rule's number in the
 * seven bits below the destination's first byte. */
#define SHAPES                                                                                     \
    "shapes=0a000000ac00000000000050/0000000000fe000000000000/000fffff00000000ffff0000+"           \
    "0b000000ac00000000000050/0000000000fe000000000000/0007ffff00000000ffff0000"

static struct synth_flows *flows;
static struct synth_queue queue;

/* --- helpers ------------------------------------------------------------------ */

/* Options are "key=value", ended by NULL. */
static char *
parse(const char *const options[])
{
    struct smap map = SMAP_INITIALIZER(&map);
    char *error;

    for (int i = 0; options[i]; i++) {
        char *key = xstrdup(options[i]), *value = strchr(key, '=');

        *value++ = '\0';
        smap_add(&map, key, value);
        free(key);
    }
    error = synth_flows_parse("s1", &map, flows);
    smap_destroy(&map);
    return error;
}

static void
open_queue(const char *const options[], bool stamp)
{
    char *error = parse(options);

    ovs_assert(!error);
    ovs_assert(synth_queue_init(&queue, flows, 0, 1, N_DESC, stamp));
}

static void
give(struct dp_packet **b, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        ovs_assert(synth_buffers_give(b[i]));
    }
}

static struct dp_packet *
receive(struct flow *flow)
{
    struct dp_packet *b;

    ovs_assert(synth_queue_burst(&queue, SYNTH_UNLIMITED, &b, 1) == 1);
    b->packet_type = htonl(PT_ETH);
    pkt_metadata_init(&b->md, ODP_PORT_C(1));
    flow_extract(b, flow);
    return b;
}

/* What a switch sees of the next packet, which it then spoils. */
static struct flow
next_flow(void)
{
    struct flow flow;
    struct dp_packet *b = receive(&flow);

    eth_push_vlan(b, htons(ETH_TYPE_VLAN), htons(7));
    ovs_assert(synth_buffers_give(b));
    return flow;
}

/* Adds the 5-tuple and 'extra' to 'seen'; false if they were in. */
static bool
add(struct sset *seen, const struct flow *f, uint32_t extra)
{
    char text[80];

    snprintf(text, sizeof text, "%08x %08x %04x %04x %08x", ntohl(f->nw_src), ntohl(f->nw_dst),
             ntohs(f->tp_src), ntohs(f->tp_dst), extra);
    return sset_add(seen, text);
}

/* --- frames ------------------------------------------------------------------- */

static bool
sums_are_right(const struct dp_packet *b)
{
    const struct ip_header *ip = dp_packet_l3(b);
    const struct tcp_header *tcp = dp_packet_l4(b);

    if (ip->ip_proto == IPPROTO_UDP) {
        return !csum(ip, sizeof *ip) && !((const struct udp_header *)tcp)->udp_csum;
    }
    return !csum(ip, sizeof *ip) &&
           !csum_finish(csum_continue(packet_csum_pseudoheader(ip), tcp, sizeof *tcp));
}

static void
test_frames(const char *name, const char *const options[], uint8_t proto, bool tagged)
{
    CASE(name);
    open_queue(options, false);
    for (int i = 0; i < 1000; i++) {
        struct flow flow;
        struct dp_packet *b = receive(&flow);

        CHECK(dp_packet_size(b) == flows->size);
        CHECK(flow.dl_type == htons(ETH_TYPE_IP) && flow.nw_proto == proto);
        CHECK(flow.tp_src && flow.tp_dst);
        CHECK((flow.vlans[0].tci == htons(100 | VLAN_CFI)) == tagged);
        CHECK(proto != IPPROTO_TCP || flow.tcp_flags == htons(TCP_ACK));
        CHECK(sums_are_right(b));
        CHECK(dp_packet_rss_valid(b) && dp_packet_ip_checksum_valid(b) &&
              dp_packet_l4_checksum_valid(b));
        /* Worse than what actions do, and gone with the next turn. */
        eth_pop_vlan(b);
        memset(dp_packet_data(b), 0xff, 60);
        ovs_assert(synth_buffers_give(b));
    }
    synth_queue_uninit(&queue);
}

static void
test_reverse(void)
{
    const char *const forth[] = {"flows=100", "proto=tcp", NULL};
    const char *const back[] = {"flows=100", "proto=tcp", "reverse=true", NULL};
    struct flow there[100];

    CASE("the other direction of the same connections");
    open_queue(forth, false);
    for (int i = 0; i < 100; i++) {
        there[i] = next_flow();
    }
    synth_queue_uninit(&queue);
    open_queue(back, false);
    for (int i = 0; i < 100; i++) {
        struct flow f = next_flow();

        CHECK(f.nw_src == there[i].nw_dst && f.nw_dst == there[i].nw_src);
        CHECK(f.tp_src == there[i].tp_dst && f.tp_dst == there[i].tp_src);
    }
    synth_queue_uninit(&queue);
}

/* --- flows -------------------------------------------------------------------- */

static void
test_random_flows(void)
{
    const char *const options[] = {"flows=1000", NULL};
    struct sset seen = SSET_INITIALIZER(&seen);
    struct flow flow;

    CASE("each flow once, then no other, each with its own RSS hash");
    open_queue(options, false);
    for (int i = 0; i < 10000; i++) {
        struct dp_packet *b = receive(&flow);

        CHECK(add(&seen, &flow, dp_packet_get_rss_hash(b)) == (i < 1000));
        ovs_assert(synth_buffers_give(b));
    }
    CHECK(sset_count(&seen) == 1000);
    synth_queue_uninit(&queue);
    sset_destroy(&seen);
}

static void
test_fresh_flows(void)
{
    const char *const options[] = {"flows=1", "order=fresh", "rules=100", SHAPES, NULL};
    struct sset seen = SSET_INITIALIZER(&seen);
    struct flow flow;

    CASE("no fresh flow comes twice");
    open_queue(options, false);
    for (int i = 0; i < 50000; i++) {
        flow = next_flow();
        CHECK(add(&seen, &flow, 0));
    }
    synth_queue_uninit(&queue);
    sset_destroy(&seen);
}

static void
test_shapes(void)
{
    const char *const options[] = {"flows=1000", "rules=100", SHAPES, NULL};
    unsigned n[2][128] = {{0}};

    CASE("flows are spread over shapes and rules");
    open_queue(options, false);
    for (int i = 0; i < 1000; i++) {
        struct flow flow = next_flow();
        uint32_t src = ntohl(flow.nw_src), dst = ntohl(flow.nw_dst);
        int shape = (src >> 24) - 10;

        CHECK(shape ? (src & 0xfff80000) == 0x0b000000 : (src & 0xfff00000) == 0x0a000000);
        CHECK((dst & 0xff01ffff) == 0xac000000 && flow.tp_dst == htons(80));
        n[shape & 1][dst >> 17 & 127]++;
    }
    for (int rule = 0; rule < 128; rule++) {
        CHECK(n[0][rule] == (rule < 100 ? 5 : 0) && n[1][rule] == n[0][rule]);
    }
    synth_queue_uninit(&queue);
}

static unsigned
leaves_at(uint32_t a, uint32_t b, unsigned width)
{
    return a == b ? width : __builtin_clz(a ^ b) - (32 - width);
}

static void
test_attack(void)
{
    const char *const options[] = {"flows=1", "attack=1000", "attacked=0a0000010a80000130390050",
                                   NULL};
    static bool seen[33][17][17];
    unsigned n = 0;
    char *error;

    CASE("an attack leaves the rules at every combination of bits");
    error = parse(options);
    CHECK(!error);
    for (uint32_t i = 0; i < 33 * 17 * 17; i++) {
        struct synth_tuple t = synth_attack_tuple(flows, i * UINT64_C(0x9e3779b97f4a7c15), i);
        bool *bits = &seen[leaves_at(t.ip >> 32, 0x0a000001, 32)][leaves_at(t.l4 >> 16, 12345, 16)]
                          [leaves_at(t.l4 & 0xffff, 80, 16)];

        n += !*bits;
        *bits = true;
        CHECK((uint32_t)t.ip == 0x0a800001);
    }
    CHECK(n == 33 * 17 * 17);
}

static void
test_refusals(void)
{
    static const char *const wrong[][4] = {
        {"flows=-1"},
        {"flows=10x"},
        {"size=63"},
        {"size=1519"},
        {"rules=0"},
        {"vlan=4096"},
        {"order=sorted"},
        {"proto=sctp"},
        {"src_mac=02:00"},
        {"attacked=xyz"},
        {"shapes="},
        {"shapes=1/2"},
        {"shapes=1/1/2"}, /* a bit in two */
        {"shapes=0/2/2"},
        {"shapes=0/0/1+"},
        {"shapes=0/0/0000000000000000000000001"}, /* 25 digits */
        {"flows=3", "shapes=0/0/1"},              /* two flows at most */
        {"flows=1", "shapes=0/1/2", "rules=3"},
        {"flows=1", "shapes=0/0/ffff", "order=fresh"},
    };

    CASE("options that make no sense are refused");
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        char *error = parse(wrong[i]);

        CHECK(error);
        free(error);
    }
}

/* --- pace --------------------------------------------------------------------- */

static void
test_pace(void)
{
    const char *const options[] = {"flows=10", NULL};
    uint64_t start, got = 0, cycles = rte_get_tsc_hz() / 100;
    struct dp_packet *b[N_DESC];
    double at_least, at_most;

    CASE("at a set rate nothing comes early, and what is not fetched is lost and counted");
    open_queue(options, false);
    CHECK(!synth_queue_burst(&queue, 1000000, b, 32));
    start = rte_rdtsc();
    do {
        unsigned n;

        at_least = (rte_rdtsc() - start) * 1e6 / rte_get_tsc_hz() - 1;
        n = synth_queue_burst(&queue, 1000000, b, 32);
        give(b, n);
        got += n;
    } while (rte_rdtsc() - start < cycles);
    at_most = (rte_rdtsc() - start) * 1e6 / rte_get_tsc_hz() + 2;
    /* This thread may have been put aside, and some may wait. */
    CHECK(got + synth_queue_missed(&queue) <= at_most);
    CHECK(got + synth_queue_missed(&queue) + N_DESC >= at_least && got);
    CHECK(synth_queue_packets(&queue) == got);

    rte_delay_us_block(1000);
    CHECK(synth_queue_burst(&queue, 1000000, b, N_DESC) == N_DESC);
    CHECK(synth_queue_missed(&queue) >= 900);
    give(b, N_DESC);
    synth_queue_uninit(&queue);
}

static void
test_stamps(void)
{
    const char *const options[] = {"flows=10", NULL};
    uint64_t waited, age, hz = rte_get_tsc_hz();
    struct dp_packet *b[32];

    CASE("a stamp counts from arrival, not from the poll");
    open_queue(options, true);
    CHECK(!synth_queue_burst(&queue, 1000, b, 32));
    rte_delay_us_block(5500);
    CHECK(synth_queue_burst(&queue, 1000, b, 1) == 1);
    CHECK(synth_queue_age(b[0], rte_rdtsc(), &age));
    waited = age * 1000000 / hz;
    CHECK(waited >= 4400);
    ovs_assert(synth_buffers_give(b[0]));

    CHECK(synth_queue_burst(&queue, SYNTH_UNLIMITED, b, 1) == 1);
    eth_push_vlan(b[0], htons(ETH_TYPE_VLAN), htons(7));
    CHECK(synth_queue_age(b[0], rte_rdtsc(), &age) && age < hz / 10);
    memset(dp_packet_data(b[0]), 0, dp_packet_size(b[0]));
    CHECK(!synth_queue_age(b[0], rte_rdtsc(), &age));
    ovs_assert(synth_buffers_give(b[0]));
    synth_queue_uninit(&queue);
}

/* --- buffers ------------------------------------------------------------------- */

static void
test_buffers(void)
{
    const char *const options[] = {"flows=10", NULL};
    struct dp_packet *b[2 * N_DESC], *foreign;
    void *objects[2];

    CASE("every way to free a packet returns its buffer");
    open_queue(options, false);
    CHECK(synth_queue_burst(&queue, SYNTH_UNLIMITED, b, 2 * N_DESC) == N_DESC);
    CHECK(!synth_queue_burst(&queue, SYNTH_UNLIMITED, b + N_DESC, 32));
    dp_packet_delete(b[3]);
    CHECK(synth_queue_burst(&queue, SYNTH_UNLIMITED, b + N_DESC, 32) == 1);
    CHECK(b[N_DESC] == b[3]);
    objects[0] = b[5];
    objects[1] = b[9];
    rte_mempool_put_bulk(b[5]->mbuf.pool, objects, 2);
    CHECK(synth_queue_burst(&queue, SYNTH_UNLIMITED, b + N_DESC, 32) == 2);

    foreign = dp_packet_new(100);
    CHECK(!synth_buffers_give(foreign));
    dp_packet_delete(foreign);
    rte_mbuf_refcnt_update(&b[0]->mbuf, 1);
    CHECK(!synth_buffers_give(b[0]));
    dp_packet_delete(b[0]);
    CHECK(!synth_queue_burst(&queue, SYNTH_UNLIMITED, b + N_DESC, 32));
    for (unsigned i = 0; i < N_DESC; i++) {
        CHECK(synth_buffers_give(b[i]));
    }
    synth_queue_uninit(&queue);
}

static void
test_spread(void)
{
    const char *const options[] = {"flows=10", NULL};
    unsigned here[4096 / 64] = {0}; /* buffers by their line in a page */
    struct dp_packet *b[N_DESC];

    CASE("buffers are spread over the sets of a cache");
    open_queue(options, false);
    CHECK(synth_queue_burst(&queue, SYNTH_UNLIMITED, b, N_DESC) == N_DESC);
    for (unsigned i = 0; i < N_DESC; i++) {
        CHECK(++here[(uintptr_t)b[i] % 4096 / 64] <= 2 * N_DESC / ARRAY_SIZE(here));
    }
    give(b, N_DESC);
    synth_queue_uninit(&queue);
}

static void
test_retirement(void)
{
    const char *const options[] = {"flows=10", NULL};
    char pool[RTE_MEMPOOL_NAMESIZE];
    struct dp_packet *b;

    CASE("buffers live until the last packet is back");
    open_queue(options, false);
    ovs_strlcpy(pool, queue.buffers->mp->name, sizeof pool);
    CHECK(synth_queue_burst(&queue, SYNTH_UNLIMITED, &b, 1) == 1);
    synth_queue_uninit(&queue);
    synth_buffers_reap();
    CHECK(rte_mempool_lookup(pool));
    dp_packet_delete(b);
    synth_buffers_reap();
    CHECK(!rte_mempool_lookup(pool));
}

static void
test_latency(void)
{
    static struct synth_latency l;

    CASE("quantiles of the histogram");
    CHECK(!synth_latency_quantile(&l, .5));
    for (unsigned i = 1; i <= 10000; i++) {
        synth_latency_add(&l, i);
    }
    CHECK(synth_latency_count(&l) == 10000);
    for (double p = .01; p <= 1; p += .01) {
        uint64_t q = synth_latency_quantile(&l, p);

        CHECK(q >= 10000 * p && q <= 10000 * p * 1.125 + 1);
    }
    for (int shift = 0; shift < 64; shift++) {
        synth_latency_add(&l, UINT64_MAX >> shift);
    }
    CHECK(synth_latency_count(&l) == 10064);
    synth_latency_clear(&l);
    CHECK(!synth_latency_count(&l));
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    char *eal[] = {"test",           "--no-huge", "--legacy-mem", "--no-shconf", "--no-pci",
                   "--no-telemetry", "-m",        "64",           "--log-level", "1"};
    const char *const udp[] = {"flows=500", NULL};
    const char *const tagged[] = {"flows=500", "vlan=100", "size=128", NULL};
    const char *const tcp[] = {"flows=500", "proto=tcp", "vlan=100", NULL};

    set_program_name(argv[0]);
    ovs_assert(rte_eal_init(ARRAY_SIZE(eal), eal) >= 0);
    flows = xzalloc_cacheline(sizeof *flows);
    test_frames("UDP frames", udp, IPPROTO_UDP, false);
    test_frames("tagged UDP frames", tagged, IPPROTO_UDP, true);
    test_frames("tagged TCP frames", tcp, IPPROTO_TCP, true);
    test_reverse();
    test_random_flows();
    test_fresh_flows();
    test_shapes();
    test_attack();
    test_refusals();
    test_pace();
    test_stamps();
    test_buffers();
    test_spread();
    test_retirement();
    test_latency();
    free_cacheline(flows);
    return check_done();
}
