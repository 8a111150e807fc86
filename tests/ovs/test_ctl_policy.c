/* Compiled flows against the policy they were compiled from.
 *
 *   random pool > model > compiler > the hosts' flows > evaluator (eval.h)
 *        |                                                   ^  packets
 *        +------------> oracle (ctl_oracle.h) <---------------+
 *
 * Frames leave a vif, pass its host's tables, then the wire or the tunnels, then
 * the other hosts' tables; the vifs they reach must be those that the oracle
 * names, and so must be what leaves by the uplinks.
 *
 * POLICY_SECONDS bounds the run, POLICY_SEED makes it another one. */
#include <config.h>

#include "check.h"
#include "compile.h"
#include "eval.h"
#include "packets.h"
#include "pflow.h"
#include "util.h"

#include "ctl_oracle.h"
#include "ctl_pool.h"
#include "openvswitch/vlog.h"
#include "timeval.h"
#include "trace.h"

static struct eval evals[N_HOSTS];
static struct model *model;
static struct compile *compile;
static struct tracer *tracer; /* of the pool's first state */
static struct pool pool;

static struct {
    unsigned pools, packets, delivered, refused, spoofed, replies, mismatches, most_lookups;
    unsigned kinds[3]; /* free, stateless, tracked */
} seen;

/* --- the pool's hosts ------------------------------------------------------------------ */

static void
load_flows(void)
{
    for (unsigned h = 0; h < N_HOSTS; h++) {
        struct ftable *ft = compile_host_flows(compile, pool_key(REC_HOST, h));

        ovs_assert(!!ft == pool.hosts[h].there);
        if (ft) {
            eval_set_flows(&evals[h], ft);
        } else {
            eval_forget_flows(&evals[h]);
        }
    }
}

static void
start_pool(void)
{
    model = model_create();
    compile = compile_create(model);
    random_pool(&pool);
    pool_state_all(&pool, model);
    compile_run(compile);
    model_changes_clear(model);
    load_flows();
    tracer = tracer_create(model, compile, NULL);
}

static void
forget_conns(void)
{
    for (unsigned h = 0; h < N_HOSTS; h++) {
        eval_forget_conns(&evals[h]);
    }
}

static void
end_pool(void)
{
    forget_conns();
    tracer_destroy(tracer);
    compile_destroy(compile);
    model_destroy(model);
}

/* --- a frame's way -------------------------------------------------------------------------- */

struct fate {
    bool vifs[N_VIFS];
    bool uplinks[N_HOSTS]; /* left by it, with the network's tag */
    bool broken;
};

static void arrive(struct fate *fate, unsigned h, const struct eval_out *out, unsigned n_hops);

static void
run_host(struct fate *fate, unsigned h, const struct flow *f, uint32_t in_port, unsigned n_hops)
{
    struct eval *e = &evals[h];
    struct eval_out *out;
    size_t n;

    if (!pool.hosts[h].there) {
        return;
    }
    eval_packet(e, f, in_port);
    fate->broken |= e->broken || n_hops > 1;
    seen.most_lookups = MAX(seen.most_lookups, e->n_lookups);
    n = e->n_out;
    out = n ? xmemdup(e->out, n * sizeof *out) : NULL;
    for (size_t i = 0; i < n; i++) {
        arrive(fate, h, &out[i], n_hops);
    }
    free(out);
}

static void
arrive_by_tunnel(struct fate *fate, unsigned h, const struct eval_out *out, unsigned n_hops)
{
    const struct flow_tnl *tnl = &out->flow.tunnel;
    struct flow f = out->flow;
    unsigned to = 0;

    memset(&f, 0, offsetof(struct flow, dl_dst));
    f.ct_nw_proto = 0;
    f.tunnel.tun_id = tnl->tun_id;
    if (ipv6_addr_is_set(&tnl->ipv6_dst)) {
        fate->broken |= tnl->ip_dst || !pool.hosts[h].v6;
        to = tnl->ipv6_dst.s6_addr[15] - 1;
        f.tunnel.ipv6_src = tnl->ipv6_dst;
        f.tunnel.ipv6_src.s6_addr[15] = h + 1;
    } else {
        fate->broken |= pool.hosts[h].v6;
        to = ntohl(tnl->ip_dst) - 0xc0000201;
        f.tunnel.ip_src = htonl(0xc0000201 + h);
    }
    if (to >= N_HOSTS || to == h || !pool.hosts[to].tunnels) {
        fate->broken = true;
    } else {
        run_host(fate, to, &f, out->port, n_hops + 1);
    }
}

/* What came out of host 'h'. */
static void
arrive(struct fate *fate, unsigned h, const struct eval_out *out, unsigned n_hops)
{
    struct flow f = out->flow;

    if (out->port == PORT_UPLINK) {
        fate->uplinks[h] = true;
        for (unsigned i = 0; i < N_HOSTS; i++) {
            if (i != h && pool.hosts[i].uplink) {
                struct flow wire;

                memset(&wire, 0, sizeof wire);
                memcpy(&wire.vlans, &f.vlans, sizeof wire.vlans);
                memcpy((char *)&wire + offsetof(struct flow, dl_dst),
                       (char *)&f + offsetof(struct flow, dl_dst),
                       sizeof wire - offsetof(struct flow, dl_dst));
                wire.ct_nw_proto = 0;
                run_host(fate, i, &wire, PORT_UPLINK, n_hops + 1);
            }
        }
        return;
    }
    if (out->port < PORT_VIF(0)) {
        arrive_by_tunnel(fate, h, out, n_hops);
        return;
    }

    unsigned v = out->port - PORT_VIF(0);
    bool good = v < N_VIFS && vif_host(&pool, v) == (int)h && !fate->vifs[v] &&
                !(f.vlans[0].tci & htons(VLAN_CFI));

    fate->broken |= !good;
    if (good) {
        fate->vifs[v] = true;
    }
}

static struct fate
send_from(int v, const struct flow *f)
{
    struct fate fate = {0};
    int h = pool.vifs[v].host;

    if (h != NONE && pool.vifs[v].there) {
        run_host(&fate, h, f, PORT_VIF(v), 0);
    }
    return fate;
}

/* --- packets --------------------------------------------------------------------------------- */

static void
set_l3(struct flow *f, bool v6, struct in6_addr src, struct in6_addr dst)
{
    if (v6) {
        f->dl_type = htons(ETH_TYPE_IPV6);
        f->ipv6_src = src;
        f->ipv6_dst = dst;
    } else {
        f->dl_type = htons(ETH_TYPE_IP);
        f->nw_src = in6_addr_get_mapped_ipv4(&src);
        f->nw_dst = in6_addr_get_mapped_ipv4(&dst);
    }
}

static uint16_t
random_port(void)
{
    static const uint16_t known[] = {67, 68, 546, 547, 80, 443};
    const struct p_rule *r = &pool.rules[pick(N_RULES)];

    if (r->n_ports && chance(70)) {
        const struct model_ports *range = &r->ports[pick(r->n_ports)];

        switch (pick(4)) {
        case 0:
            return range->first;
        case 1:
            return range->last;
        case 2:
            return range->first - 1;
        default:
            return range->last + 1;
        }
    }
    return chance(30) ? known[pick(6)] : pick(65536);
}

static void
random_l4(struct flow *f, bool v6)
{
    static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP, 47, 0};

    f->nw_proto = protocols[pick(5)];
    if (chance(20)) {
        f->nw_proto = v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
        f->tp_src = htons(chance(60) ? (v6 ? 128 : 8) : pick(256));
        f->tp_dst = htons(chance(80) ? 0 : pick(4));
    } else if (f->nw_proto != 47 && f->nw_proto) {
        f->tp_src = htons(random_port());
        f->tp_dst = htons(random_port());
    }
    f->nw_frag = chance(5) ? FLOW_NW_FRAG_ANY : 0;
}

static void
random_nd(struct flow *f, const struct p_vif *v)
{
    static const uint8_t types[] = {130, 133, 134, 135, 135, 136, 136, 137, 143};
    static const struct eth_addr other = ETH_ADDR_C(02, 00, 00, 00, 00, 77);
    unsigned n = v->mac.ea[5];

    f->dl_type = htons(ETH_TYPE_IPV6);
    f->nw_proto = IPPROTO_ICMPV6;
    f->tp_src = htons(types[pick(ARRAY_SIZE(types))]);
    f->tp_dst = 0;
    f->nw_frag = chance(10) ? FLOW_NW_FRAG_ANY : 0;
    if (chance(30)) {
        f->ipv6_src = in6addr_any;
        ipv6_parse("ff02::1:ff00:7", &f->ipv6_dst);
    }
    if (f->tp_src == htons(135) || f->tp_src == htons(136)) {
        struct eth_addr lla = chance(50) ? v->mac : chance(50) ? eth_addr_zero : other;

        f->nd_target = chance(60)   ? address6(chance(70) ? n : pick(14))
                       : chance(70) ? link_local(v->mac)
                                    : in6addr_any;
        if (f->tp_src == htons(135)) {
            f->arp_sha = lla;
        } else {
            f->arp_tha = lla;
        }
    }
}

/* Anything a vif might try. */
static void
random_packet(struct flow *f, int v)
{
    static const uint16_t types[] = {0x8035, 0x88cc, 0x8847, 0x05ff, 0x8100, 0x888e};
    const struct p_vif *vif = &pool.vifs[v], *to = &pool.vifs[pick(N_VIFS)];
    unsigned n = vif->mac.ea[5];
    bool v6 = chance(45);
    struct in6_addr src, dst;

    memset(f, 0, sizeof *f);
    f->dl_src = vif->mac;
    f->dl_dst = to->mac;
    if (chance(5)) {
        f->dl_src.ea[5] = pick(14);
    }
    if (chance(20)) {
        f->dl_dst =
            chance(50) ? eth_addr_broadcast : (struct eth_addr)ETH_ADDR_C(01, 80, c2, 00, 00, 21);
        f->dl_dst.ea[5] ^= chance(30) ? pick(256) : 0;
    }
    src = v6 ? address6(chance(85) ? n : pick(14)) : address4(chance(85) ? n : pick(14));
    dst = v6 ? address6(chance(80) ? to->mac.ea[5] : pick(14))
             : address4(chance(80) ? to->mac.ea[5] : pick(14));
    if (v6 && chance(10)) {
        src = link_local(vif->mac);
    }
    if (!v6 && chance(5)) {
        in6_addr_set_mapped_ipv4(&src, 0);
        in6_addr_set_mapped_ipv4(&dst, OVS_BE32_MAX);
    }
    set_l3(f, v6, src, dst);
    random_l4(f, v6);
    if (v6 && chance(25)) {
        random_nd(f, vif);
    } else if (chance(15)) {
        bool arp = chance(70);

        memset((char *)&f->dl_type, 0, sizeof *f - offsetof(struct flow, dl_type));
        f->dl_type = htons(arp ? ETH_TYPE_ARP : types[pick(ARRAY_SIZE(types))]);
        if (arp || f->dl_type == htons(0x8035)) {
            f->nw_proto = 1 + pick(2);
            f->arp_sha = chance(85) ? vif->mac : to->mac;
            f->nw_src = chance(20) ? 0 : htonl(0x0a000000 | (chance(80) ? n : pick(14)));
            f->nw_dst = htonl(0x0a000000 | pick(14));
        }
    }
    if (chance(4)) {
        f->vlans[0].tpid = htons(ETH_TYPE_VLAN);
        f->vlans[0].tci = htons(VLAN_CFI | pick(200));
    }
}

/* --- what the oracle expects
 * ---------------------------------------------------------------------- */

static struct fate
expect(int v, const struct flow *f)
{
    const struct p_net *n = &pool.nets[pool.vifs[v].net];
    struct subject s = subject_of(f);
    struct fate fate = {0};
    bool local = false;
    int rule;

    if (!may_send(&pool, v, f)) {
        seen.spoofed++;
        return fate;
    }
    seen.kinds[is_free(f) ? 0 : is_tracked(f) ? 2 : 1]++;
    if (!is_free(f) && say(&pool, v, false, &s, &rule) == SAYS_DENY) {
        seen.refused++;
        return fate;
    }
    for (int w = 0; w < N_VIFS; w++) {
        int h = vif_host(&pool, w);

        local |= h == vif_host(&pool, v) && vif_mode(&pool, w) != MODEL_DISABLED &&
                 pool.vifs[w].net == pool.vifs[v].net &&
                 eth_addr_equals(pool.vifs[w].mac, f->dl_dst);
        if (is_addressee(&pool, v, w, f)) {
            bool pass = is_free(f) || say(&pool, w, true, &s, &rule) != SAYS_DENY;

            fate.vifs[w] = pass;
            seen.delivered += pass;
            seen.refused += !pass;
        }
    }
    /* To the wire goes what is for no vif here.  Between isolated vifs not even
     * that: the pool knows both. */
    if (!n->overlay && pool.hosts[vif_host(&pool, v)].uplink && !local) {
        bool isolated = false;

        for (int w = 0; w < N_VIFS; w++) {
            isolated |= vif_live(&pool, w) && vif_mode(&pool, w) != MODEL_DISABLED &&
                        pool.vifs[w].net == pool.vifs[v].net && vif_isolated(&pool, w) &&
                        eth_addr_equals(pool.vifs[w].mac, f->dl_dst);
        }
        fate.uplinks[vif_host(&pool, v)] = !(isolated && vif_isolated(&pool, v));
    }
    return fate;
}

static void
explain(const char *what, int v, const struct flow *f, const struct fate *is,
        const struct fate *should)
{
    struct ds ds = DS_EMPTY_INITIALIZER;

    if (seen.mismatches++ > 5) {
        return;
    }
    flow_format(&ds, f, NULL);
    printf("# %s: vif %d (net %d, host %d, mode %d): %s\n#  is:", what, v, pool.vifs[v].net,
           pool.vifs[v].host, vif_mode(&pool, v), ds_cstr(&ds));
    for (int w = 0; w < N_VIFS; w++) {
        printf(" %d%s", is->vifs[w], is->vifs[w] != should->vifs[w] ? "!" : "");
    }
    printf(" | ");
    for (int h = 0; h < N_HOSTS; h++) {
        printf(" %d%s", is->uplinks[h], is->uplinks[h] != should->uplinks[h] ? "!" : "");
    }
    printf("%s\n", is->broken ? " broken" : "");
    ds_destroy(&ds);
}

static bool
same_fate(const struct fate *a, const struct fate *b)
{
    return !memcmp(a->vifs, b->vifs, sizeof a->vifs) &&
           !memcmp(a->uplinks, b->uplinks, sizeof a->uplinks) && a->broken == b->broken;
}

/* The trace (trace.h) ends at the same vifs, and each copy ends somewhere. */
static bool
same_trace(int v, const struct flow *f, const struct fate *should)
{
    struct trace_start start = {
        .host = pool_key(REC_HOST, pool.vifs[v].host),
        .in_port = PORT_VIF(v),
        .packet = *f,
    };
    struct fate is = {0};
    struct trace trace;
    bool good = true;

    if (pool.vifs[v].host == NONE || !pool.vifs[v].there || !pool.hosts[pool.vifs[v].host].there) {
        return true;
    }
    /* One for this packet alone, now and then. */
    struct tracer *t = chance(10) ? tracer_create(model, compile, &start) : tracer;

    tracer_run(t, &start, true, &trace);
    for (size_t i = 0; i < trace.n_visits; i++) {
        const struct trace_visit *visit = &trace.visits[i];

        good &= visit->n_ends && !visit->broken;
        for (size_t j = 0; j < visit->n_ends; j++) {
            const struct trace_end *end = &visit->ends[j];

            good &= end->kind != TRACE_LOST && (end->kind == TRACE_DROPPED) == !!end->reason;
            if (end->kind == TRACE_TO_VIF) {
                is.vifs[end->key - pool_key(REC_VIF, 0)] = true;
            }
        }
    }
    good &= !memcmp(is.vifs, should->vifs, sizeof is.vifs);
    trace_uninit(&trace);
    if (t != tracer) {
        tracer_destroy(t);
    }
    return good;
}

/* Any packet, each as the first of its connection. */
static bool
check_single(unsigned n)
{
    bool good = true;

    for (unsigned i = 0; i < n; i++) {
        int v = pick(N_VIFS);
        struct fate is, should;
        struct flow f;

        random_packet(&f, v);
        forget_conns();
        should = expect(v, &f);
        is = send_from(v, &f);
        seen.packets++;
        if (!same_fate(&is, &should)) {
            explain("single", v, &f, &is, &should);
            good = false;
        }
        if (!same_trace(v, &f, &should)) {
            explain("traced otherwise", v, &f, &is, &should);
            good = false;
        }
    }
    return good;
}

/* --- connections
 * ------------------------------------------------------------------------------------ */

#define N_TALKS 14
#define N_STEPS 10

static struct o_conns known[N_HOSTS];

/* Two vifs, their addresses, a service. */
struct talk {
    int a, b;
    bool v6;
    uint8_t proto;
    uint16_t sport, dport;
};

static void
random_talk(struct talk *t)
{
    struct flow f;

    memset(&f, 0, sizeof f);
    t->a = pick(N_VIFS);
    t->b = pick(N_VIFS);
    for (int i = 0; i < 20 && (t->a == t->b || pool.vifs[t->a].net != pool.vifs[t->b].net); i++) {
        t->b = pick(N_VIFS);
    }
    t->v6 = chance(40);
    do {
        random_l4(&f, t->v6);
    } while (!f.nw_proto);
    t->proto = f.nw_proto;
    t->sport = ntohs(f.tp_src);
    t->dport = ntohs(f.tp_dst);
    if (t->proto == IPPROTO_ICMP || t->proto == IPPROTO_ICMPV6) {
        t->sport = t->v6 ? 128 : 8;
        t->dport = 0;
    }
}

static void
talk_packet(const struct talk *t, bool reply, struct flow *f)
{
    const struct p_vif *from = &pool.vifs[reply ? t->b : t->a];
    const struct p_vif *to = &pool.vifs[reply ? t->a : t->b];
    bool icmp = t->proto == IPPROTO_ICMP || t->proto == IPPROTO_ICMPV6;

    memset(f, 0, sizeof *f);
    f->dl_src = from->mac;
    f->dl_dst = to->mac;
    if (t->v6) {
        set_l3(f, true, address6(from->mac.ea[5]), address6(to->mac.ea[5]));
    } else {
        set_l3(f, false, address4(from->mac.ea[5]), address4(to->mac.ea[5]));
    }
    f->nw_proto = t->proto;
    f->tp_src = htons(icmp && reply ? (t->v6 ? 129 : 0) : reply && !icmp ? t->dport : t->sport);
    f->tp_dst = htons(reply && !icmp ? t->sport : t->dport);
}

static struct fate
expect_talk(int v, int w, const struct flow *f)
{
    const struct p_net *n = &pool.nets[pool.vifs[v].net];
    int from = vif_host(&pool, v), at = vif_host(&pool, w);
    bool same_net = pool.vifs[v].net == pool.vifs[w].net;
    bool known_isolated = same_net && vif_live(&pool, w) && vif_mode(&pool, w) != MODEL_DISABLED &&
                          vif_isolated(&pool, w) && vif_isolated(&pool, v);
    bool addressee = is_addressee(&pool, v, w, f);
    /* The host knows where it is; that no tunnel leads there shows only behind
     * conntrack. */
    bool reachable = same_net && at != NONE && vif_mode(&pool, w) != MODEL_DISABLED;
    struct fate fate = {0};

    if (!may_send(&pool, v, f) || known_isolated) {
        return fate;
    }
    if (addressee && at == from) {
        fate.vifs[w] = host_passes(&pool, &known[from], pool.vifs[v].net, f, v, w);
    } else if (n->overlay ? reachable : pool.hosts[from].uplink) {
        bool out = host_passes(&pool, &known[from], pool.vifs[v].net, f, v, NONE);

        fate.uplinks[from] = out && !n->overlay;
        fate.vifs[w] =
            out && addressee && host_passes(&pool, &known[at], pool.vifs[v].net, f, NONE, w);
    }
    seen.delivered += fate.vifs[w];
    return fate;
}

static bool
check_talk(const struct talk *t, bool reply)
{
    int v = reply ? t->b : t->a, w = reply ? t->a : t->b;
    struct fate is, should;
    struct flow f;

    if (v == w) {
        return true;
    }
    talk_packet(t, reply, &f);
    should = expect_talk(v, w, &f);
    is = send_from(v, &f);
    seen.packets++;
    seen.replies += reply && should.vifs[w];
    if (!same_fate(&is, &should)) {
        explain(reply ? "reply" : "talk", v, &f, &is, &should);
        return false;
    }
    return true;
}

/* An ICMP error about a connection passes if what opened that would. */
static bool
check_error(const struct talk *t, bool from_b)
{
    int v = from_b ? t->b : t->a, w = from_b ? t->a : t->b, h = vif_host(&pool, v);
    struct eval *e = &evals[MAX(h, 0)];
    struct eval_tuple tuple;
    struct flow f, first;
    struct fate is;
    struct subject s;
    bool should;

    if (h == NONE || h != vif_host(&pool, w) || v == w || t->v6) {
        return true;
    }
    talk_packet(t, false, &first);
    tuple = eval_tuple(&first, pool.vifs[t->a].net + 1);
    for (e->force_conn = 0; e->force_conn < e->n_conns; e->force_conn++) {
        if (eval_same_tuple(&e->conns[e->force_conn].tuple, &tuple)) {
            break;
        }
    }
    if (e->force_conn == e->n_conns) {
        return true;
    }
    talk_packet(t, from_b, &f);
    f.nw_proto = IPPROTO_ICMP;
    f.tp_src = htons(3);
    f.tp_dst = htons(1);
    s = subject_of(&first);
    should = may_send(&pool, v, &f) && is_addressee(&pool, v, w, &f) &&
             both_say(&pool, t->a, t->b, &s) != SAYS_DENY;
    e->force_state = CS_RELATED;
    e->force_reply = from_b;
    is = send_from(v, &f);
    e->force_state = 0;
    if (is.vifs[w] != should || is.broken) {
        struct fate expected = {0};

        expected.vifs[w] = should;
        explain("error", v, &f, &is, &expected);
        return false;
    }
    return true;
}

/* Connections while everything about them changes. */
static bool
check_changes(void)
{
    struct talk talks[N_TALKS];
    bool good = true;

    forget_conns();
    for (unsigned i = 0; i < N_TALKS; i++) {
        random_talk(&talks[i]);
    }
    for (unsigned step = 0; step < N_STEPS; step++) {
        for (unsigned i = 0; i < 2 * N_TALKS; i++) {
            good &= check_talk(&talks[pick(N_TALKS)], chance(50));
            good &= check_error(&talks[pick(N_TALKS)], chance(50));
        }
        for (unsigned n = 1 + pick(3); n; n--) {
            pool_change(&pool, model);
        }
        compile_run(compile);
        model_changes_clear(model);
        load_flows();
    }
    for (unsigned h = 0; h < N_HOSTS; h++) {
        free(known[h].c);
        known[h] = (struct o_conns){0};
    }
    return good;
}

/* --- run
 * ---------------------------------------------------------------------------------------------- */

static void
report(void)
{
    printf("# %u pools, %u packets: %u spoofed, %u refused, %u delivered (%u replies), "
           "%u mismatches; free/stateless/tracked %u/%u/%u; %u lookups at most\n",
           seen.pools, seen.packets, seen.spoofed, seen.refused, seen.delivered, seen.replies,
           seen.mismatches, seen.kinds[0], seen.kinds[1], seen.kinds[2], seen.most_lookups);
}

int
main(void)
{
    const char *seconds = getenv("POLICY_SECONDS"), *seed = getenv("POLICY_SEED");
    long long budget = 1000 * (seconds ? atoi(seconds) : 3), end;

    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    pool_seed = seed ? strtoull(seed, NULL, 0) * 2 + 1 : 12345;
    for (unsigned h = 0; h < N_HOSTS; h++) {
        eval_init(&evals[h]);
    }

    CASE("policy: any packet, as the first of its connection");
    for (end = time_msec() + budget; time_msec() < end || seen.pools < 20; seen.pools++) {
        start_pool();
        CHECK(check_single(200));
        end_pool();
    }
    report();
    CHECK(seen.delivered > 100 && seen.refused > 100 && seen.spoofed > 100);
    CHECK(seen.kinds[0] > 100 && seen.kinds[1] > 100 && seen.kinds[2] > 100);

    CASE("policy: connections, replies and errors while policy and pool change");
    memset(&seen, 0, sizeof seen);
    for (end = time_msec() + budget; time_msec() < end || seen.pools < 10; seen.pools++) {
        start_pool();
        CHECK(check_changes());
        end_pool();
    }
    report();
    CHECK(seen.delivered > 100 && seen.replies > 50);

    for (unsigned h = 0; h < N_HOSTS; h++) {
        eval_destroy(&evals[h]);
    }
    return check_done();
}
