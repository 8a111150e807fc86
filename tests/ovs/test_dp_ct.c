/* Tracked packets through the datapath: with a cache that learns verdicts, and
 * without.
 *
 *   client, port 1 > ct, recirculation, second flow > port 2, server; and back
 *
 * Two datapaths see the same bursts at the same time: "quick" has a worker
 * with a cache, "plain" one without, so that each of its packets goes the long
 * way.  What leaves, by which port, what flows count and what the trackers
 * know must be the same. */
#include <config.h>

#include <stdlib.h>

#include "check.h"
#include "conntrack.h"
#include "ct_entry.h"
#include "ct_traffic.h"
#include "dp.h"
#include "fatal-signal.h"
#include "flow_text.h"
#include "odp-util.h"
#include "ovs-rcu.h"
#include "timeval.h"

#define N_TALKS 48u
#define N_PORTS 4u /* 1 clients, 2 servers, 3 where marked connections go */
#define BURST 24u
#define MAX_SENT 256u

/* --- a datapath ---------------------------------------------------------------- */

struct sent {
    unsigned port;
    size_t len;
    uint8_t data[1600];
};

struct side {
    struct dp *dp;
    struct dp_worker *worker;
    struct dp_port ports[N_PORTS];
    struct sent sent[MAX_SENT];
    unsigned n_sent;
};

static struct side quick, plain;

static void
capture(struct fast_port *fast, struct worker *w OVS_UNUSED, struct rte_mbuf **pkts, unsigned n)
{
    struct dp_port *port = CONTAINER_OF(fast, struct dp_port, fast);
    struct side *side = port->dp == quick.dp ? &quick : &plain;

    for (unsigned i = 0; i < n; i++) {
        struct sent *s = &side->sent[side->n_sent++];

        ovs_assert(side->n_sent <= MAX_SENT);
        memset(s, 0, sizeof *s);
        s->port = odp_to_u32(port->port_no);
        s->len = pkts[i]->data_len;
        memcpy(s->data, rte_pktmbuf_mtod(pkts[i], uint8_t *), MIN(s->len, sizeof s->data));
    }
    dp_packets_free(pkts, n);
}

static void
side_create(struct side *side, const char *name, unsigned cache_max)
{
    struct dp *dp = dp_create(&dpif_weft_class, name);

    ovs_assert(dp);
    memset(side, 0, sizeof *side);
    side->dp = dp;
    for (unsigned i = 1; i < N_PORTS; i++) {
        side->ports[i].dp = dp;
        side->ports[i].port_no = u32_to_odp(i);
        side->ports[i].kind = DP_PORT_WAITED;
        side->ports[i].fast.send = capture;
        engine_port_set(dp->engine, i, &side->ports[i].fast);
    }
    side->worker = dp_worker_create(dp, cache_max, false);
}

static void
side_destroy(struct side *side)
{
    struct dp *dp = side->dp;

    dp_worker_destroy(side->worker);
    for (unsigned i = 1; i < N_PORTS; i++) {
        engine_port_set(dp->engine, i, NULL);
    }
    dp_destroy(dp);
}

/* --- flows ----------------------------------------------------------------------- */

/* Per Ethernet type; '%s' is the type. */
static const struct rule {
    const char *match, *actions, *other; /* actions that it may change to */
} rules[] = {
    {"recirc_id(0),in_port(1),ct_state(-trk),%s", "ct(zone=5),recirc(1)", NULL},
    {"recirc_id(0),in_port(2),ct_state(-trk),%s", "ct(zone=5),recirc(1)", NULL},
    {"recirc_id(1),in_port(1),ct_state(+new+trk-est-inv),%s", "ct(commit,zone=5),2",
     "ct(commit,zone=5,mark=0x3/0xffffffff),2"},
    {"recirc_id(1),in_port(2),ct_state(+new+trk-est-inv),%s", "", NULL},
    {"recirc_id(1),in_port(1),ct_state(-new+est+trk-inv),ct_mark(0),%s", "2", ""},
    {"recirc_id(1),in_port(1),ct_state(-new+est+trk-inv),ct_mark(0x3),%s", "3", NULL},
    {"recirc_id(1),in_port(2),ct_state(-new+est+rpl+trk-inv),%s", "push_vlan(vid=9,pcp=0),1", "1"},
    {"recirc_id(1),in_port(2),ct_state(-new+est-rpl+trk-inv),%s", "1", NULL},
    {"recirc_id(1),in_port(1),ct_state(+inv+trk),%s", "", NULL},
    {"recirc_id(1),in_port(2),ct_state(+inv+trk),%s", "", NULL},
};
static const char *const types[] = {"eth_type(0x0800),ipv4(frag=no)",
                                    "eth_type(0x86dd),ipv6(frag=no)"};
#define N_FLOWS (ARRAY_SIZE(rules) * ARRAY_SIZE(types))

static ovs_u128
ufid_of(unsigned i)
{
    return (ovs_u128){.u64 = {.hi = i + 1, .lo = (i + 1) * UINT64_C(0x9e3779b97f4a7c15)}};
}

static void
put_text(struct side *side, unsigned i, const char *match, const char *actions,
         enum dpif_flow_put_flags flags)
{
    ovs_u128 ufid = ufid_of(i);

    ovs_assert(!flow_text_put(side->dp, flags, &ufid, match, actions, NULL));
}

static void
put_flow(struct side *side, unsigned i, bool other, enum dpif_flow_put_flags flags)
{
    const struct rule *r = &rules[i / ARRAY_SIZE(types)];
    char *match = xasprintf(r->match, types[i % ARRAY_SIZE(types)]);

    put_text(side, i, match, other && r->other ? r->other : r->actions, flags);
    free(match);
}

/* Packets and bytes of a flow. */
static struct dpif_flow_stats
flow_stats(struct side *side, unsigned i)
{
    uint64_t stub[DPIF_FLOW_BUFSIZE / 8];
    ovs_u128 ufid = ufid_of(i);
    struct dpif_flow flow;
    struct ofpbuf buf;

    ofpbuf_use_stub(&buf, stub, sizeof stub);
    memset(&flow, 0, sizeof flow);
    dp_flow_get(side->dp, &(struct dpif_flow_get){
                              .ufid = &ufid, .pmd_id = PMD_ID_NULL, .buffer = &buf, .flow = &flow});
    return flow.stats;
}

static unsigned
n_flows_differ(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < N_FLOWS; i++) {
        struct dpif_flow_stats q = flow_stats(&quick, i), p = flow_stats(&plain, i);

        n += q.n_packets != p.n_packets || q.n_bytes != p.n_bytes || q.tcp_flags != p.tcp_flags;
    }
    return n;
}

/* --- traffic ------------------------------------------------------------------------ */

static struct talk talks[N_TALKS];
static uint64_t seed;
static long long now;
static unsigned n_differ, n_through;

static void
run(struct side *side, uint16_t in_port, const struct spec *specs, unsigned n)
{
    struct rte_mbuf *pkts[BURST];

    for (unsigned i = 0; i < n; i++) {
        struct dp_packet *b = dp_packet_new(2048);

        build(b, &specs[i]);
        dp_packet_complete(b);
        pkts[i] = &b->mbuf;
    }
    side->n_sent = 0;
    worker_begin(side->worker->worker);
    worker_run(side->worker->worker, in_port, pkts, n, now);
    worker_end(side->worker->worker);
}

static int
compare_sent(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct sent));
}

/* Within a burst, connections may overtake each other. */
static void
compare_sides(void)
{
    n_differ += quick.n_sent != plain.n_sent;
    n_through += quick.n_sent;
    if (quick.n_sent && quick.n_sent == plain.n_sent) {
        qsort(quick.sent, quick.n_sent, sizeof(struct sent), compare_sent);
        qsort(plain.sent, plain.n_sent, sizeof(struct sent), compare_sent);
        n_differ += !!memcmp(quick.sent, plain.sent, quick.n_sent * sizeof(struct sent));
    }
}

static void
run_both(const struct spec *specs, unsigned n)
{
    if (n) {
        run(&quick, specs[0].reply ? 2 : 1, specs, n);
        run(&plain, specs[0].reply ? 2 : 1, specs, n);
        compare_sides();
    }
}

/* Packets that the cache takes and odd ones may overtake each other. */
static bool
is_odd(const struct spec *s)
{
    return s->options || s->short_l4;
}

/* Bursts, each from one port and of one first flow: packets that are tracked as
 * one batch do not see what the ones before them do in their second flows.
 * With 'runs' many packets in a row are from one connection. */
static void
bursts(bool runs)
{
    unsigned n = 0, conn = ct_rand(&seed) % N_TALKS;
    struct spec specs[BURST];

    for (unsigned i = 0; i < BURST; i++) {
        struct spec s;

        if (!runs || one_in(&seed, 6)) {
            conn = ct_rand(&seed) % N_TALKS;
        }
        talks[conn].tagged = false;
        talk_next(&talks[conn], conn, &s, &seed);
        if (n && (s.reply != specs[0].reply || s.v6 != specs[0].v6 || is_odd(&s) ||
                  is_odd(&specs[n - 1]))) {
            run_both(specs, n);
            n = 0;
        }
        specs[n++] = s;
    }
    run_both(specs, n);
}

/* --- what trackers know ---------------------------------------------------------------- */

struct known {
    struct ct_entry e[4 * N_TALKS];
    size_t n;
};

static void
remember(const struct ct_entry *e, void *known_)
{
    struct known *known = known_;

    ovs_assert(known->n < ARRAY_SIZE(known->e));
    known->e[known->n++] = *e;
}

static int
compare_entries(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct ct_entry));
}

static void
know(struct side *side, struct known *known)
{
    memset(known, 0, sizeof *known);
    for (unsigned i = 0; i < CT_ENTRY_LISTS; i++) {
        ct_entry_visit(side->dp->conntrack, i, now, NULL, remember, known);
    }
    qsort(known->e, known->n, sizeof known->e[0], compare_entries);
}

static bool
know_the_same(void)
{
    static struct known q, p;

    know(&quick, &q);
    know(&plain, &p);
    return q.n > 5 && q.n == p.n && !memcmp(q.e, p.e, q.n * sizeof q.e[0]);
}

/* --- cases -------------------------------------------------------------------------------- */

static void
test_same(unsigned n_bursts)
{
    struct worker_stats stats;
    bool other[N_FLOWS] = {false};

    CASE("with verdicts as without");
    seed = 1;
    now = time_msec();
    side_create(&quick, "quick", 4096);
    side_create(&plain, "plain", 0);
    for (unsigned i = 0; i < N_TALKS; i++) {
        talk_init(&talks[i], i);
    }
    for (unsigned i = 0; i < N_FLOWS; i++) {
        put_flow(&quick, i, false, DPIF_FP_CREATE);
        put_flow(&plain, i, false, DPIF_FP_CREATE);
    }
    for (unsigned i = 0; i < n_bursts; i++) {
        now += one_in(&seed, 2);
        if (one_in(&seed, 500)) {
            now += ct_rand(&seed) % 40000;
        }
        if (one_in(&seed, 500)) {
            conntrack_flush(quick.dp->conntrack, NULL);
            conntrack_flush(plain.dp->conntrack, NULL);
        }
        if (one_in(&seed, 50)) {
            unsigned f = ct_rand(&seed) % N_FLOWS;

            other[f] = !other[f];
            put_flow(&quick, f, other[f], DPIF_FP_MODIFY);
            put_flow(&plain, f, other[f], DPIF_FP_MODIFY);
        }
        bursts(one_in(&seed, 2));
        if (!(i % 500)) {
            CHECK(!n_flows_differ());
            ovsrcu_quiesce();
        }
    }
    CHECK(!n_differ);
    CHECK(!n_flows_differ());
    CHECK(know_the_same());
    worker_stats(quick.worker->worker, &stats);
    printf("# %" PRIu64 " packets, %u through, %" PRIu64 " by verdict\n", stats.packets, n_through,
           stats.verdicts);
    CHECK(stats.verdicts > stats.packets / 10 && n_through > stats.packets / 4);
    CHECK(flow_stats(&quick, 0).n_packets > 100);
    worker_stats(plain.worker->worker, &stats);
    CHECK(!stats.verdicts);
    side_destroy(&quick);
    side_destroy(&plain);
}

/* A connection committed with "nat" and no range keeps its addresses and ports:
 * answers belong to it, and it can travel. */
static void
test_nat_without_range(void)
{
    static const struct spec specs[] = {
        {.proto = IPPROTO_UDP, .conn = 1},
        {.proto = IPPROTO_ICMP, .conn = 2},
        {.proto = IPPROTO_TCP, .conn = 3, .flags = TCP_SYN, .seq = 1, .win = 1000},
    };
    static struct known known;

    CASE("nat without a range");
    now = time_msec();
    side_create(&quick, "quick", 4096);
    put_text(&quick, 0, "recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)",
             "ct(commit,zone=5,nat),2", DPIF_FP_CREATE);
    put_text(&quick, 1, "recirc_id(0),in_port(2),eth_type(0x0800),ipv4(frag=no)",
             "ct(zone=5,nat),recirc(1)", DPIF_FP_CREATE);
    put_text(
        &quick, 2,
        "recirc_id(1),in_port(2),ct_state(-new+est+rpl+trk-inv),eth_type(0x0800),ipv4(frag=no)",
        "1", DPIF_FP_CREATE);
    for (unsigned i = 0; i < ARRAY_SIZE(specs); i++) {
        struct spec answer = specs[i];

        answer.reply = true;
        if (answer.proto == IPPROTO_TCP) {
            answer.flags |= TCP_ACK;
            answer.ack = answer.seq + 1;
        }
        run(&quick, 1, &specs[i], 1);
        CHECK(quick.n_sent == 1 && quick.sent[0].port == 2);
        run(&quick, 2, &answer, 1);
        CHECK(quick.n_sent == 1 && quick.sent[0].port == 1);
    }
    know(&quick, &known);
    CHECK(known.n == ARRAY_SIZE(specs));
    for (size_t i = 0; i < known.n; i++) {
        CHECK(!ct_entry_check(&known.e[i]));
    }
    side_destroy(&quick);
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    const char *more = getenv("CT_ROUNDS");

    ovs_set_program_name(argv[0], "1");
    fatal_signal_init();
    test_same(6000 * (more ? strtoul(more, NULL, 10) : 1));
    test_nat_without_range();
    ovsrcu_exit();
    return check_done();
}
