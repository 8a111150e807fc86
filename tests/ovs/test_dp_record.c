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
#include "odp-execute.h"
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

/* UDP from 10.0.0.A to 10.0.0.B. */
static struct rte_mbuf *
frame(uint8_t a, uint8_t b, uint16_t sport, uint16_t dport)
{
    struct dp_packet *p = dp_packet_new_with_headroom(60, 128);
    uint8_t *d = dp_packet_put_zeros(p, 60);

    d[0] = d[6] = 2;
    d[5] = b;
    d[11] = a;
    d[12] = 8;
    d[14] = 0x45;
    d[17] = 40;
    d[22] = 64;
    d[23] = 17;
    d[26] = d[30] = 10;
    d[29] = a;
    d[33] = b;
    d[34] = sport >> 8;
    d[35] = sport;
    d[36] = dport >> 8;
    d[37] = dport;
    d[39] = 20; /* UDP's length; no checksum */
    put_unaligned_u16((uint16_t *)(d + 24), csum(d + 14, 20));
    dp_packet_complete(p);
    return &p->mbuf;
}

static void
pass(uint16_t in_port, uint8_t a, uint8_t b, uint16_t sport, uint16_t dport, unsigned n)
{
    struct rte_mbuf *pkts[ENGINE_BURST];

    for (unsigned i = 0; i < n; i++) {
        pkts[i] = frame(a, b, sport, dport);
    }
    worker_begin(w->worker);
    worker_run(w->worker, in_port, pkts, n, ++now);
    worker_end(w->worker);
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

int
main(int argc OVS_UNUSED, char *argv[])
{
    struct dp_port *ports[3];

    set_program_name(argv[0]);
    odp_execute_init();
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
    dp_worker_destroy(w);
    for (unsigned i = 0; i < 3; i++) {
        rig_port_free(ports[i]);
    }
    rig_stop();
    return check_done();
}
