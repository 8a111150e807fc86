/* What records of flows say of their packets' way: where to, dropped by what,
 * by whose rules; for packets that the cache knows and others.
 *
 *   port 1, 2 > worker_run() > ... > ports 2, 3; records > collector */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "csum.h"
#include "dp_rig.h"
#include "fast/program.h"
#include "fast/record.h"
#include "flow_text.h"
#include "netdev-vport.h"
#include "odp-execute.h"
#include "openvswitch/ofp-meter.h"
#include "timeval.h"
#include "unaligned.h"

static struct dp_worker *w;
static uint64_t next_id = 1;
static long long now;

static void
sink(struct fast_port *port OVS_UNUSED, struct worker *worker OVS_UNUSED, struct rte_mbuf **pkts,
     unsigned n)
{
    dp_packets_free(pkts, n);
}

/* Returns the flow's number. */
static uint64_t
put(const char *flow, const char *actions)
{
    ovs_u128 ufid = {.u64 = {next_id, next_id}};

    ovs_assert(!flow_text_put(rig_dp, DPIF_FP_CREATE, &ufid, flow, actions, NULL));
    return next_id++;
}

/* UDP from 10.0.0.A to 10.0.0.B, of 'len' bytes from the IP header on. */
static struct rte_mbuf *
frame_of(uint16_t len, uint8_t a, uint8_t b, uint16_t sport, uint16_t dport)
{
    unsigned size = MAX(14 + len, 60);
    struct dp_packet *p = dp_packet_new_with_headroom(size, 128);
    uint8_t *d = dp_packet_put_zeros(p, size);

    d[0] = d[6] = 2;
    d[5] = b;
    d[11] = a;
    d[12] = 8;
    d[14] = 0x45;
    d[16] = len >> 8;
    d[17] = len;
    d[22] = 64;
    d[23] = 17;
    d[26] = d[30] = 10;
    d[29] = a;
    d[33] = b;
    d[34] = sport >> 8;
    d[35] = sport;
    d[36] = dport >> 8;
    d[37] = dport;
    d[38] = (len - 20) >> 8; /* UDP's length; no checksum */
    d[39] = len - 20;
    put_unaligned_u16((uint16_t *)(d + 24), csum(d + 14, 20));
    dp_packet_complete(p);
    return &p->mbuf;
}

static struct rte_mbuf *
frame(uint8_t a, uint8_t b, uint16_t sport, uint16_t dport)
{
    return frame_of(40, a, b, sport, dport);
}

static void
run(uint16_t in_port, struct rte_mbuf **pkts, unsigned n)
{
    worker_begin(w->worker);
    worker_run(w->worker, in_port, pkts, n, ++now);
    worker_end(w->worker);
}

static void
pass(uint16_t in_port, uint8_t a, uint8_t b, uint16_t sport, uint16_t dport, unsigned n)
{
    struct rte_mbuf *pkts[ENGINE_BURST];

    for (unsigned i = 0; i < n; i++) {
        pkts[i] = frame(a, b, sport, dport);
    }
    run(in_port, pkts, n);
}

/* --- the collector -------------------------------------------------------------- */

static struct record told[256];
static unsigned n_told;

static void
take(const struct record_block *b, void *aux OVS_UNUSED)
{
    for (unsigned i = 0; i < b->n && n_told < ARRAY_SIZE(told); i++) {
        told[n_told++] = b->records[i];
    }
}

static void
collect(void)
{
    engine_record(rig_dp->engine, NULL);
    n_told = 0;
    engine_record_collect(rig_dp->engine, now, take, NULL);
    engine_record(rig_dp->engine, &(struct record_settings){10000, 10000, 1024, 1});
}

/* The records of packets to 'dport', as one: packets add up, the way is the
 * last one's. */
static struct record
record_of(uint16_t in_port, uint16_t dport)
{
    struct record sum = {.packets = 0};

    for (unsigned i = 0; i < n_told; i++) {
        if (told[i].key.tp_dst == htons(dport) && told[i].key.in_port == in_port) {
            uint64_t packets = sum.packets + told[i].packets, bytes = sum.bytes + told[i].bytes;
            sum = told[i];
            sum.packets = packets;
            sum.bytes = bytes;
        }
    }
    return sum;
}

/* --- cases -------------------------------------------------------------------------- */

#define NOTE(DOMAIN, POINT)                                                                        \
    "userspace(pid=0,flow_sample(probability=65535,collector_set_id=1,obs_domain_id=" DOMAIN       \
    ",obs_point_id=" POINT ",output_port=4294967295))"
#define UDP(PORT, DPORT)                                                                           \
    "recirc_id(0),in_port(" PORT "),eth_type(0x0800),ipv4(proto=17,frag=no),udp(dst=" DPORT ")"

static void
test_ways(void)
{
    struct record r;
    uint64_t missed;

    put(UDP("1", "53"), "2");
    put(UDP("1", "54"), "");
    put(UDP("1", "55"), NOTE("2", "4242"));
    put(UDP("1", "56"), NOTE("1", "77") ",3");
    put(UDP("1", "57"), "sample(sample=50%,actions(" NOTE("1", "78") ")),3,2");
    put(UDP("1", "58"), "recirc(9)");
    put(UDP("1", "60"), "set(ipv4(src=10.9.9.9/255.255.255.255)),recirc(9)");
    put("recirc_id(9),in_port(1),eth_type(0x0800),ipv4(frag=no)", NOTE("2", "79") ",3");
    for (unsigned round = 0; round < 3; round++) {
        for (uint16_t dport = 53; dport <= 60; dport++) {
            pass(1, 1, 2, 1000, dport, 5);
        }
    }
    collect();

    CASE("record: an output");
    r = record_of(1, 53);
    CHECK(r.packets == 15 && r.bytes == 15 * 40 && r.status == RECORD_FORWARDED && r.out == 2);

    CASE("record: a drop");
    r = record_of(1, 54);
    CHECK(r.packets == 15 && r.status == RECORD_DROPPED && r.drop == RECORD_DROP_POLICY);
    CHECK(!r.rule_in && !r.rule_out);

    CASE("record: a drop says its rule, and stays a drop");
    r = record_of(1, 55);
    CHECK(r.packets == 15 && r.status == RECORD_DROPPED && r.drop == RECORD_DROP_POLICY);
    CHECK(r.rule_in == 4242 && !r.rule_out);

    CASE("record: so does an output, of the source's side");
    r = record_of(1, 56);
    CHECK(r.status == RECORD_FORWARDED && r.out == 3 && r.rule_out == 77 && !r.rule_in);

    CASE("record: of several outputs the first");
    r = record_of(1, 57);
    CHECK(r.packets == 15 && r.status == RECORD_FORWARDED && r.out == 3 && r.rule_out == 78);

    CASE("record: what was recirculated went where it went at last");
    r = record_of(1, 58);
    CHECK(r.packets == 15 && r.status == RECORD_FORWARDED && r.out == 3 && r.rule_in == 79);

    CASE("record: also what was changed before that");
    r = record_of(1, 60);
    CHECK(r.packets == 15 && r.status == RECORD_FORWARDED && r.out == 3 && r.rule_in == 79);

    CASE("record: lost on the way to ofproto");
    r = record_of(1, 59);
    CHECK(r.packets == 15 && r.status == RECORD_DROPPED && r.drop == RECORD_DROP_UPCALL);

    CASE("record: naming a rule makes no upcall");
    atomic_read_relaxed(&rig_dp->n_lost, &missed);
    CHECK(missed == 15);
}

static void
test_connections(void)
{
    const char *established =
        "recirc_id(1),in_port(1),ct_state(+est+trk),eth_type(0x0800),ipv4(frag=no)";
    struct worker_stats stats;
    struct record r;
    ovs_u128 ufid;

    put("recirc_id(0),in_port(1),ct_state(-trk),eth_type(0x0800),ipv4(proto=17,frag=no),"
        "udp(dst=80)",
        "ct(zone=5),recirc(1)");
    put("recirc_id(0),in_port(2),ct_state(-trk),eth_type(0x0800),ipv4(proto=17,frag=no),"
        "udp(dst=2000)",
        "ct(zone=5),recirc(1)");
    put("recirc_id(1),in_port(1),ct_state(+new+trk),eth_type(0x0800),ipv4(frag=no)",
        "ct(commit,zone=5,label=0x0000000b0000000a/0xffffffffffffffff),2");
    ufid.u64.lo = ufid.u64.hi = put(established, "2");
    put("recirc_id(1),in_port(2),ct_state(+est+trk),eth_type(0x0800),ipv4(frag=no)", "3");
    pass(1, 1, 2, 2000, 80, 1);
    for (unsigned i = 0; i < 6; i++) {
        pass(2, 2, 1, 80, 2000, 4);
        pass(1, 1, 2, 2000, 80, 4);
    }
    collect();

    CASE("record: a connection's rules, from its label");
    r = record_of(1, 80);
    CHECK(r.packets == 25 && r.status == RECORD_FORWARDED && r.out == 2);
    CHECK(r.rule_out == 10 && r.rule_in == 11);
    r = record_of(2, 2000);
    CHECK(r.packets == 24 && r.status == RECORD_FORWARDED && r.out == 3);
    CHECK(r.rule_out == 10 && r.rule_in == 11);

    CASE("record: a record made anew finds the rules in the verdict");
    worker_stats(w->worker, &stats);
    CHECK(stats.verdicts > 10);
    pass(1, 1, 2, 2000, 80, 4);
    collect();
    r = record_of(1, 80);
    CHECK(r.packets == 4 && r.out == 2 && r.rule_out == 10 && r.rule_in == 11);

    CASE("record: actions that the second flow no longer has say nothing");
    ovs_assert(!flow_text_put(rig_dp, DPIF_FP_MODIFY, &ufid, established, "3", NULL));
    ovsrcu_quiesce();
    epoch_synchronize();
    pass(1, 1, 2, 2000, 80, 4);
    collect();
    r = record_of(1, 80);
    CHECK(r.packets == 4 && r.out == 3 && r.rule_out == 10 && r.rule_in == 11);
    CHECK(n_told == 1);
}

/* --- what ofproto decides ----------------------------------------------------------- */

/* As a handler of ofproto does it with the next packet that missed. */
static void
handle(const char *actions)
{
    struct ofpbuf buf, text;
    struct dpif_upcall up;
    struct flow flow;
    ovs_u128 ufid;

    ofpbuf_init(&buf, 512);
    ofpbuf_init(&text, 0);
    ovs_assert(!odp_actions_from_string(actions, NULL, &text));
    if (dp_upcall_recv(RIG_DPIF, 0, &up, &buf)) {
        CHECK(!"an upcall");
        goto out;
    }
    ovs_assert(odp_flow_key_to_flow(up.key, up.key_len, &flow, NULL) != ODP_FIT_ERROR);
    pkt_metadata_from_flow(&up.packet.md, &flow);
    flow_extract(&up.packet, &flow);
    ufid.u64.lo = ufid.u64.hi = next_id++;
    CHECK(!dp_flow_put(rig_dp, &(struct dpif_flow_put){
                                   .flags = DPIF_FP_CREATE,
                                   .key = up.key,
                                   .key_len = up.key_len,
                                   .actions = text.data,
                                   .actions_len = text.size,
                                   .ufid = &ufid,
                                   .pmd_id = PMD_ID_NULL,
                               }));
    if (text.size) {
        struct dpif_op op = {.type = DPIF_OP_EXECUTE,
                             .execute = {.actions = text.data,
                                         .actions_len = text.size,
                                         .packet = &up.packet,
                                         .flow = &flow}};

        dp_execute_ops(rig_dp, (struct dpif_op *[]){&op}, 1);
    }
    dp_packet_uninit(&up.packet);
out:
    ofpbuf_uninit(&text);
    ofpbuf_uninit(&buf);
}

static void
test_answers(void)
{
    struct record r;

    dp_upcall_recv_set(RIG_DPIF, true);
    put("recirc_id(9),in_port(2),eth_type(0x0800),ipv4(frag=no)", NOTE("2", "80") ",3");
    for (uint16_t dport = 100; dport <= 106; dport++) {
        pass(2, 1, 2, 1000, dport, 1);
        switch (dport) {
        case 100:
            handle(NOTE("1", "81") ",3");
            break;
        case 101:
            handle("");
            break;
        case 102:
            handle("set(ipv4(src=10.9.9.9)),recirc(9)");
            break;
        case 103: /* the second flow is not known either */
            handle("recirc(10)");
            handle("1");
            break;
        case 104: /* nor then, when it is another packet */
            handle("set(ipv4(src=10.9.9.8)),recirc(11)");
            handle("1");
            break;
        case 105:
            handle("set(ipv4(src=10.9.9.8)),recirc(12)");
            handle("");
            break;
        }
    }
    dp_upcall_recv_purge(RIG_DPIF);
    dp_upcall_recv_set(RIG_DPIF, false);
    collect();

    CASE("record: a first packet, forwarded by ofproto");
    r = record_of(2, 100);
    CHECK(r.packets == 1 && r.status == RECORD_FORWARDED && r.out == 3 && r.rule_out == 81);

    CASE("record: a first packet, dropped");
    r = record_of(2, 101);
    CHECK(r.packets == 1 && r.status == RECORD_DROPPED && r.drop == RECORD_DROP_POLICY);

    CASE("record: a first packet that went through a second flow, changed");
    r = record_of(2, 102);
    CHECK(r.packets == 1 && r.status == RECORD_FORWARDED && r.out == 3 && r.rule_in == 80);

    CASE("record: a first packet that missed twice");
    r = record_of(2, 103);
    CHECK(r.packets == 1 && r.status == RECORD_FORWARDED && r.out == 1);

    CASE("record: a first packet that missed twice, and was another by then");
    r = record_of(2, 104);
    CHECK(r.packets == 1 && r.status == RECORD_FORWARDED && r.out == 1);
    r = record_of(2, 105);
    CHECK(r.packets == 1 && r.status == RECORD_DROPPED && r.drop == RECORD_DROP_POLICY);

    CASE("record: a first packet that nobody answered for");
    r = record_of(2, 106);
    CHECK(r.packets == 1 && r.status == RECORD_UNKNOWN);

    CASE("record: an old answer says nothing of a new record");
    now += 60000;
    dp_upcall_recv_set(RIG_DPIF, true);
    pass(2, 1, 2, 1001, 100, 1);
    dp_upcall_recv_set(RIG_DPIF, false);
    collect();
    r = record_of(2, 100);
    CHECK(r.packets == 1 && r.status == RECORD_UNKNOWN);
    now -= 60000;

    CASE("record: nor one that the clock has come round to since");
    struct record_way way = {.status = RECORD_FORWARDED, .out = 3};
    struct rte_mbuf *pkt = frame(1, 2, 1002, 108);
    struct key_wide k;
    uint16_t tcp_flags;
    uint8_t tos;

    record_parse(rte_pktmbuf_mtod(pkt, const uint8_t *), pkt->data_len, 2, 0, false, &k, &tcp_flags,
                 &tos);
    for (unsigned old = 0; old < 2; old++) {
        engine_record_answer(rig_dp->engine, &k, &way, now - (old ? (1LL << 31) + 5000 : 0));
        dp_upcall_recv_set(RIG_DPIF, true);
        pass(2, 1, 2, 1002, 108, 1);
        dp_upcall_recv_set(RIG_DPIF, false);
        collect();
        r = record_of(2, 108);
        CHECK(r.packets == 1 && r.status == (old ? RECORD_UNKNOWN : RECORD_FORWARDED));
    }
    dp_packet_delete(dp_packet_of(pkt));
}

/* --- meters ------------------------------------------------------------------------------ */

/* Of 10 packets a meter lets 4 through; of another flow, whose first one ofproto has, none. */
static void
test_meters(void)
{
    struct ofputil_meter_band band = {.type = OFPMBT13_DROP, .rate = 1, .burst_size = 4};
    struct ofputil_meter_config config = {
        .flags = OFPMF13_PKTPS | OFPMF13_BURST, .n_bands = 1, .bands = &band};
    uint64_t passed = 0, dropped = 0, bytes = 0;

    CASE("record: what a meter drops is told of apart");
    ovs_assert(!dp_meter_set(RIG_DPIF, (ofproto_meter_id){1}, &config));
    put(UDP("1", "70"), "meter(1),2");
    now = MAX(now, time_msec());
    pass(1, 1, 2, 1000, 70, 3);
    pass(1, 1, 2, 1000, 70, 7);
    collect();
    for (unsigned i = 0; i < n_told; i++) {
        CHECK(told[i].key.tp_dst == htons(70));
        bytes += told[i].bytes;
        if (told[i].status == RECORD_FORWARDED) {
            CHECK(told[i].out == 2);
            passed += told[i].packets;
        } else {
            CHECK(told[i].drop == RECORD_DROP_METER && told[i].out == ENGINE_PORTS_MAX);
            dropped += told[i].packets;
        }
    }
    CHECK(n_told == 2 && passed == 4 && dropped == 6 && bytes == 400);

    CASE("record: a first packet that a meter drops");
    dp_upcall_recv_set(RIG_DPIF, true);
    pass(1, 1, 2, 1000, 71, 1);
    handle("meter(1),2");
    dp_upcall_recv_purge(RIG_DPIF);
    dp_upcall_recv_set(RIG_DPIF, false);
    collect();
    CHECK(n_told == 1 && told[0].packets == 1 && told[0].drop == RECORD_DROP_METER);
    CHECK(!dp_meter_del(RIG_DPIF, (ofproto_meter_id){1}, NULL, 0));
}

/* What a meter drops is told of with no more bytes than were counted. */
static void
test_meters_bytes(void)
{
    struct ofputil_meter_band band = {.type = OFPMBT13_DROP, .rate = 1, .burst_size = 10};
    struct ofputil_meter_config config = {
        .flags = OFPMF13_PKTPS | OFPMF13_BURST, .n_bands = 1, .bands = &band};
    uint64_t packets = 0, bytes = 0, dropped = 0;
    struct rte_mbuf *pkts[10];

    /* The first of each burst is counted, and they are the short ones. */
    CASE("record: as much of what a meter drops as is sampled");
    ovs_assert(!dp_meter_set(RIG_DPIF, (ofproto_meter_id){1}, &config));
    put(UDP("1", "72"), "meter(1),2");
    now = MAX(now, time_msec());
    engine_record(rig_dp->engine, &(struct record_settings){10000, 10000, 1024, 10});
    for (unsigned k = 0; k < 12; k++) {
        for (unsigned i = 0; i < ARRAY_SIZE(pkts); i++) {
            pkts[i] = frame_of(i ? 1386 : 40, 1, 2, 1000, 72);
        }
        run(1, pkts, ARRAY_SIZE(pkts));
    }
    collect();
    for (unsigned i = 0; i < n_told; i++) {
        packets += told[i].packets;
        bytes += told[i].bytes;
        dropped += told[i].drop == RECORD_DROP_METER ? told[i].packets : 0;
        CHECK(told[i].bytes <= 12 * 40);
    }
    CHECK(packets == 12 && bytes == 12 * 40);
    CHECK(dropped >= 10 && dropped <= 11); /* of 120 packets 110 */

    CASE("record: all packets, once it samples no more");
    engine_record(rig_dp->engine, &(struct record_settings){10000, 10000, 1024, 1000});
    pass(1, 1, 2, 1000, 73, 1);
    collect();
    pass(1, 1, 2, 1000, 73, 5);
    collect();
    CHECK(record_of(1, 73).packets == 5);

    CASE("record: of what a meter drops, its length before it got a tag");
    put("recirc_id(0),in_port(1),eth_type(0x88cc)", "push_vlan(vid=5,pcp=0),meter(1),2");
    for (unsigned i = 0; i < ARRAY_SIZE(pkts); i++) {
        pkts[i] = frame(1, 2, 0, 0);
        memcpy(rte_pktmbuf_mtod_offset(pkts[i], char *, 12), "\x88\xcc", 2);
    }
    run(1, pkts, ARRAY_SIZE(pkts));
    collect();
    CHECK(n_told == 1 && told[0].drop == RECORD_DROP_METER);
    CHECK(told[0].packets == 10 && told[0].bytes == 10 * 60);
    CHECK(!dp_meter_del(RIG_DPIF, (ofproto_meter_id){1}, NULL, 0));
}

/* --- tunnels ---------------------------------------------------------------------------- */

/* frame() in VXLAN of network 0x7b. */
static struct rte_mbuf *
tunnelled(uint16_t dport)
{
    static const uint8_t header[50] = {
        2, [11] = 9, 8, 0, 0x45, 0,  0,    96,   [20] = 0x40, 0,    64, 17, [26] = 1, 1,
        2, 88,       1, 1, 2,    92, 0x30, 0x39, 0x12,        0xb5, 0,  76, [42] = 8, [48] = 0x7b,
    };
    struct dp_packet *p = dp_packet_of(frame(1, 2, 1000, dport));
    uint8_t *d = dp_packet_push_uninit(p, sizeof header);

    memcpy(d, header, sizeof header);
    put_unaligned_u16((uint16_t *)(d + 24), csum(d + 14, 20));
    dp_packet_complete(p);
    return &p->mbuf;
}

static void
pass_tunnelled(uint16_t dport, unsigned n)
{
    struct rte_mbuf *pkts[ENGINE_BURST];

    for (unsigned i = 0; i < n; i++) {
        pkts[i] = tunnelled(dport);
    }
    run(1, pkts, n);
}

static void
test_tunnels(void)
{
    struct dp_port *port = rig_port(7, DP_PORT_TUNNEL);
    struct record r;

    ovs_assert(!netdev_open("tunnel", "vxlan", &port->netdev));
    port->fast.send = sink;
    engine_record_port(rig_dp->engine, 7, true);
    put(UDP("1", "4789"), "tnl_pop(7)");
    put("recirc_id(0),tunnel(tun_id=0x7b,src=1.1.2.88,dst=1.1.2.92,ttl=64,flags(-df-csum+key)),"
        "in_port(7),eth(),eth_type(0x0800),ipv4(proto=17,frag=no),udp(dst=200)",
        "3");
    pass_tunnelled(200, 1);
    pass_tunnelled(200, 4);
    collect();
    pass_tunnelled(200, 5); /* which the cache knows by now */
    collect();

    CASE("record: a tunnel's packets, where they came in");
    r = record_of(1, 4789);
    CHECK(r.packets == 5 && r.bytes == 5 * 96 && r.status == RECORD_FORWARDED && r.out == 7);
    CHECK(!(r.key.nw_tos & RECORD_TUNNEL));

    CASE("record: what was in them, at the tunnel's port");
    r = record_of(7, 200);
    CHECK(r.packets == 5 && r.bytes == 5 * 40 && r.status == RECORD_FORWARDED && r.out == 3);
    CHECK(r.key.nw_tos & RECORD_TUNNEL && r.more.tunnel == 0x7b);

    CASE("record: what was in one that ofproto unpacked");
    dp_upcall_recv_set(RIG_DPIF, true);
    pass_tunnelled(201, 1);
    handle("2");
    dp_upcall_recv_set(RIG_DPIF, false);
    collect();
    r = record_of(7, 201);
    CHECK(r.packets == 1 && r.status == RECORD_FORWARDED && r.out == 2);
    CHECK(r.more.tunnel == 0x7b);
    engine_record_port(rig_dp->engine, 7, false);
    netdev_close(port->netdev);
    rig_port_free(port);
}

/* A tunnel's first packet: a handler unpacks it. */
static void
test_unpacked_elsewhere(void)
{
    struct dp_port *port = rig_port(8, DP_PORT_TUNNEL);
    struct record r;

    ovs_assert(!netdev_open("tunnel2", "vxlan", &port->netdev));
    port->fast.send = sink;
    engine_record_port(rig_dp->engine, 8, true);
    put("recirc_id(0),tunnel(tun_id=0x7b,src=1.1.2.88,dst=1.1.2.92,ttl=64,flags(-df-csum+key)),"
        "in_port(8),eth(),eth_type(0x0800),ipv4(proto=17,frag=no),udp(dst=200)",
        "3");
    dp_upcall_recv_set(RIG_DPIF, true);
    engine_record_port(rig_dp->engine, 2, true);
    worker_begin(w->worker);
    worker_run(w->worker, 2, (struct rte_mbuf *[]){tunnelled(200)}, 1, ++now);
    worker_end(w->worker);
    handle("tnl_pop(8)");
    dp_upcall_recv_set(RIG_DPIF, false);
    collect();

    CASE("record: a tunnel's first packet, and what was in it");
    r = record_of(2, 4789);
    CHECK(r.packets == 1 && r.status == RECORD_FORWARDED && r.out == 8);
    r = record_of(8, 200);
    CHECK(r.packets == 1 && r.status == RECORD_FORWARDED && r.out == 3);
    CHECK(r.more.tunnel == 0x7b);
    engine_record_port(rig_dp->engine, 8, false);
    netdev_close(port->netdev);
    rig_port_free(port);
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    struct dp_port *ports[3];

    set_program_name(argv[0]);
    odp_execute_init();
    netdev_vport_tunnel_register();
    rig_start();
    now = time_msec();
    for (unsigned i = 0; i < 3; i++) {
        ports[i] = rig_port(i + 1, DP_PORT_WAITED);
        ports[i]->fast.send = sink;
        engine_record_port(rig_dp->engine, i + 1, true);
    }
    engine_record(rig_dp->engine, &(struct record_settings){10000, 10000, 1024, 1});
    w = dp_worker_create(rig_dp, 1024, false);
    test_ways();
    test_connections();
    test_answers();
    test_meters();
    test_meters_bytes();
    test_tunnels();
    test_unpacked_elsewhere();
    dp_worker_destroy(w);
    for (unsigned i = 0; i < 3; i++) {
        rig_port_free(ports[i]);
    }
    rig_stop();
    return check_done();
}
