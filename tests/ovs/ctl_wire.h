/* ctl_wire: the hosts of a pool (ctl_pool.h) as evaluators of their flows, and
 * between them the wire and the tunnels.
 *
 * Frames leave a vif, pass its host's tables, then the wire or the tunnels, then
 * the other hosts' tables; expect() and expect_talk() say, by the oracle, which vifs
 * they must reach. */
#ifndef CTL_WIRE_H
#define CTL_WIRE_H

#include "compile.h"
#include "ctl_oracle.h"
#include "ctl_pool.h"
#include "eval.h"
#include "packets.h"
#include "pflow.h"
#include "util.h"

static struct eval evals[N_HOSTS];
static struct model *model;
static struct compile *compile;
static struct pool pool;

static struct {
    unsigned pools, packets, delivered, refused, spoofed, replies, mismatches, most_lookups;
    unsigned kinds[3]; /* free, stateless, tracked */
} seen;

/* --- the pool's hosts ------------------------------------------------------------------ */

static inline void
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

static inline void
forget_conns(void)
{
    for (unsigned h = 0; h < N_HOSTS; h++) {
        eval_forget_conns(&evals[h]);
    }
}

/* --- a frame's way -------------------------------------------------------------------------- */

struct fate {
    bool vifs[N_VIFS];
    bool uplinks[N_HOSTS]; /* left by it, with the network's tag */
    bool astray[N_VIFS];   /* its port on another host than the one where it is */
    bool broken;
};

/* As the vif's frame is at its port. */
static inline struct flow
at_port(int v, const struct flow *f)
{
    struct flow tagged = *f;

    if (pool.vifs[v].parent) {
        tagged.vlans[1] = f->vlans[0];
        tagged.vlans[0].tpid = htons(ETH_TYPE_VLAN);
        tagged.vlans[0].tci = htons(VLAN_CFI | pool.vifs[v].tag);
    }
    return tagged;
}

/* Whose what left a vif's port is, or NONE. */
static inline int
owner_of(unsigned port, const struct flow *f)
{
    unsigned root = port - PORT_VIF(0), tag = vlan_tci_to_vid(f->vlans[0].tci);

    if (root >= N_VIFS || pool.vifs[root].parent || f->vlans[1].tci) {
        return NONE;
    }
    if (!f->vlans[0].tci) {
        return root;
    }
    for (int v = 0; v < N_VIFS; v++) {
        if (pool.vifs[v].parent == root + 1 && pool.vifs[v].tag == tag && vif_live(&pool, v)) {
            return v;
        }
    }
    return NONE;
}

static inline void arrive(struct fate *fate, unsigned h, const struct eval_out *out,
                          unsigned n_hops);

static inline void
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

static inline void
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
static inline void
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

    int v = owner_of(out->port, &f);
    bool *got = v == NONE ? NULL : vif_host(&pool, v) == (int)h ? &fate->vifs[v] : &fate->astray[v];

    if (!got || *got) {
        fate->broken = true;
    } else {
        *got = true;
    }
}

static inline struct fate
send_from(int v, const struct flow *f)
{
    unsigned root = vif_root(&pool, v);
    struct flow tagged = at_port(v, f);
    struct fate fate = {0};
    int h = pool.vifs[root].host;

    if (h != NONE && pool.vifs[root].there) {
        run_host(&fate, h, &tagged, PORT_VIF(root), 0);
    }
    return fate;
}

/* --- packets --------------------------------------------------------------------------------- */

static inline void
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

static inline uint16_t
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

static inline void
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

static inline void
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
static inline void
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

static inline struct fate
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

static inline void
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
        printf(" %d%s%s", is->vifs[w], is->vifs[w] != should->vifs[w] ? "!" : "",
               is->astray[w] ? "?" : "");
    }
    printf(" | ");
    for (int h = 0; h < N_HOSTS; h++) {
        printf(" %d%s", is->uplinks[h], is->uplinks[h] != should->uplinks[h] ? "!" : "");
    }
    printf("%s\n", is->broken ? " broken" : "");
    ds_destroy(&ds);
}

static inline bool
same_fate(const struct fate *a, const struct fate *b)
{
    return !memcmp(a->vifs, b->vifs, sizeof a->vifs) &&
           !memcmp(a->astray, b->astray, sizeof a->astray) &&
           !memcmp(a->uplinks, b->uplinks, sizeof a->uplinks) && a->broken == b->broken;
}

/* The trace (trace.h) ends at the same vifs, and each copy ends somewhere. */
/* --- connections
 * ------------------------------------------------------------------------------------ */

#define N_TALKS 14

static struct o_conns known[N_HOSTS];

/* Two vifs, their addresses, a service. */
struct talk {
    int a, b;
    bool v6;
    uint8_t proto;
    uint16_t sport, dport;
};

static inline void
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

static inline void
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

/* Who has the MAC in v's network: it may be another one than 'w' of the same trunk. */
static inline int
addressee_of(int v, int w, const struct flow *f)
{
    for (int x = 0; x < N_VIFS; x++) {
        if (vif_live(&pool, x) && pool.vifs[x].net == pool.vifs[v].net &&
            eth_addr_equals(pool.vifs[x].mac, f->dl_dst)) {
            return x;
        }
    }
    return w;
}

static inline struct fate
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

static inline bool
check_talk(const struct talk *t, bool reply)
{
    int v = reply ? t->b : t->a, w = reply ? t->a : t->b;
    struct fate is, should;
    struct flow f;

    talk_packet(t, reply, &f);
    w = addressee_of(v, w, &f);
    if (v == w) {
        return true;
    }
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
#endif
