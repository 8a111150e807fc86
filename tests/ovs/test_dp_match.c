/* What the exact-match cache may remember: flows' coverage of shapes against
 * an oracle.  The oracle is flow_extract() and the plain definition of a match:
 * of two frames with equal cache keys, a flow that covers their shape matches
 * both or none, whatever random masks are in use.
 *
 * The environment's ROUNDS makes it longer, SEED makes it another run. */
#include <config.h>

#include <stdlib.h>

#include "check.h"
#include "dp.h"
#include "fast/key.h"
#include "fast/state.h"
#include "frames.h"
#include "odp-util.h"
#include "packets.h"
#include "util.h"

#define N_FRAMES 3000u
#define N_RULES 8u

static struct dp *dp;
static struct frames rnd = {1};

static void
no_miss(struct worker *w OVS_UNUSED, uint16_t in_port OVS_UNUSED, struct rte_mbuf **m OVS_UNUSED,
        unsigned n OVS_UNUSED)
{
}

static const struct engine_ops ops = {.miss = no_miss};

/* --- rules ---------------------------------------------------------------------- */

static bool
matches(const struct flow *mask, const struct flow *match, const struct flow *flow)
{
    const uint64_t *m = (const uint64_t *)mask, *v = (const uint64_t *)match;
    const uint64_t *f = (const uint64_t *)flow;

    for (size_t i = 0; i < FLOW_U64S; i++) {
        if ((f[i] & m[i]) != v[i]) {
            return false;
        }
    }
    return true;
}

/* As the classifier would compare. */
static bool
rule_matches(const struct cls_rule *rule, const struct flow *flow)
{
    const uint64_t *f = (const uint64_t *)flow;

    for (size_t i = 0; i < rule->n_words; i++) {
        if ((f[rule->idx[i]] & rule->mask[i]) != rule->value[i]) {
            return false;
        }
    }
    return true;
}

/* A flow, and what it is to match. */
struct rule {
    struct dp_flow flow;
    struct flow mask, match; /* match: masked */
};

static struct dp_flow *
rule_create(const struct flow *value, const struct flow *mask)
{
    struct rule *r = xzalloc(sizeof *r);
    struct match match = {.flow = *value, .wc.masks = *mask};

    r->flow.dp = dp;
    r->mask = *mask;
    for (size_t i = 0; i < FLOW_U64S; i++) {
        ((uint64_t *)&r->match)[i] = ((const uint64_t *)value)[i] & ((const uint64_t *)mask)[i];
    }
    ovs_mutex_lock(&dp->flows_lock);
    dp_match_init(dp, &r->flow, &match);
    ovs_mutex_unlock(&dp->flows_lock);
    return &r->flow;
}

static void
rule_destroy(struct dp_flow *flow)
{
    ovs_mutex_lock(&dp->flows_lock);
    dp_match_uninit(dp, flow);
    ovs_mutex_unlock(&dp->flows_lock);
    free(CONTAINER_OF(flow, struct rule, flow));
}

static bool
flow_matches(const struct dp_flow *flow, const struct flow *packet)
{
    const struct rule *r = CONTAINER_OF(CONST_CAST(struct dp_flow *, flow), struct rule, flow);

    return matches(&r->mask, &r->match, packet);
}

#define F(FIELD)                                                                                   \
    {                                                                                              \
        offsetof(struct flow, FIELD), sizeof((struct flow *)0)->FIELD                              \
    }
static const struct {
    size_t ofs, size;
} fields[] = {
    F(dl_dst),
    F(dl_src),
    F(vlans[0].tci),
    F(vlans[0].tpid),
    F(nw_src),
    F(nw_dst),
    F(ipv6_src),
    F(ipv6_dst),
    F(ipv6_label),
    F(nw_frag),
    F(nw_tos),
    F(tp_src),
    F(tp_dst),
    /* from here on: rarely */
    F(vlans[1]),
    F(mpls_lse[0]),
    F(mpls_lse[1]),
    F(nw_ttl),
    F(nd_target),
    F(arp_sha),
    F(arp_tha),
    F(tcp_flags),
    F(nsh),
    F(igmp_group_ip4),
    F(tunnel.ip_dst),
    F(skb_priority),
    F(pkt_mark),
    F(dp_hash),
    F(recirc_id),
    F(ct_state),
    F(ct_zone),
    F(ct_mark),
    F(ct_label),
    F(ct_nw_proto),
    F(ct_nw_src),
    F(ct_ipv6_dst),
    F(ct_tp_src),
    F(packet_type),
};
#define N_USUAL 13u

static void
add_field(struct flow *mask, size_t ofs, size_t size)
{
    uint8_t *p = (uint8_t *)mask + ofs;

    for (size_t i = 0; i < size; i++) {
        p[i] = 0xff;
    }
    if (frames_chance(&rnd, 20)) {
        for (size_t i = 0; i < size; i++) {
            p[i] &= frames_random(&rnd);
        }
    }
}

static void
random_mask(struct flow *mask)
{
    unsigned usual = FRAMES_PICK(&rnd, 10, 40, 80), rare = FRAMES_PICK(&rnd, 0, 2, 10);

    memset(mask, 0, sizeof *mask);
    mask->in_port.odp_port = ODPP_NONE;
    if (frames_chance(&rnd, 85)) {
        mask->dl_type = OVS_BE16_MAX;
    }
    if (frames_chance(&rnd, 60)) {
        mask->nw_proto = UINT8_MAX;
    }
    mask->vlans[0].tci = htons(VLAN_VID_MASK | VLAN_CFI);
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        if (frames_chance(&rnd, i < N_USUAL ? usual : rare)) {
            add_field(mask, fields[i].ofs, fields[i].size);
        }
    }
}

/* Demands that some bits of a rare field are 0 and not much else: many packets
 * match that, and the rule looks as if it could be covered. */
static void
demand_zero(struct flow *mask, struct flow *value)
{
    size_t i = N_USUAL + frames_below(&rnd, ARRAY_SIZE(fields) - N_USUAL);
    uint8_t *m = (uint8_t *)mask + fields[i].ofs;

    memset(mask, 0, sizeof *mask);
    mask->in_port.odp_port = ODPP_NONE;
    mask->dl_type = OVS_BE16_MAX;
    mask->vlans[0].tci = htons(VLAN_VID_MASK | VLAN_CFI);
    mask->nw_proto = frames_chance(&rnd, 80) ? UINT8_MAX : 0;
    for (size_t k = 0; k < fields[i].size; k++) {
        m[k] |= frames_random(&rnd) & frames_random(&rnd);
    }
    memset((uint8_t *)value + fields[i].ofs, 0, fields[i].size);
}

/* --- frames ------------------------------------------------------------------------- */

struct sample {
    enum shape shape;
    struct key_wide key;
    struct flow flow, tracked; /* straight from the port; after conntrack */
};

static struct sample samples[N_FRAMES];

static void
extract(const struct frame *frame, uint16_t in_port, bool tracked, struct flow *flow)
{
    struct dp_packet *p = dp_packet_new_with_headroom(frame->len + 64, 128);

    dp_packet_put(p, frame->data, frame->len);
    p->packet_type = htonl(PT_ETH);
    pkt_metadata_init(&p->md, u32_to_odp(in_port));
    if (tracked) {
        flow_extract(p, flow);
        memset(&p->md.ct_orig_tuple, 0, sizeof p->md.ct_orig_tuple);
        p->md.recirc_id = 7;
        p->md.ct_state = CS_TRACKED | CS_ESTABLISHED;
        p->md.ct_zone = 3;
        p->md.ct_mark = 0x1234;
        p->md.ct_label.u32[1] = 5;
        p->md.ct_orig_tuple_ipv6 = flow->dl_type == htons(ETH_TYPE_IPV6);
        if (p->md.ct_orig_tuple_ipv6) {
            p->md.ct_orig_tuple.ipv6.ipv6_proto = flow->nw_proto;
            p->md.ct_orig_tuple.ipv6.ipv6_dst = flow->ipv6_src;
            p->md.ct_orig_tuple.ipv6.src_port = flow->tp_dst;
        } else {
            p->md.ct_orig_tuple.ipv4.ipv4_proto = flow->nw_proto;
            p->md.ct_orig_tuple.ipv4.ipv4_src = flow->nw_dst;
            p->md.ct_orig_tuple.ipv4.src_port = flow->tp_dst;
        }
    }
    flow_extract(p, flow);
    dp_packet_delete(p);
}

static struct frame frames[N_FRAMES];
static uint16_t in_ports[N_FRAMES];

static void
make_frames(void)
{
    for (size_t i = 0; i < N_FRAMES; i++) {
        struct sample *s = &samples[i];

        frame_random(&rnd, &frames[i]);
        in_ports[i] = FRAMES_PICK(&rnd, 1, 1, 2);
        extract(&frames[i], in_ports[i], false, &s->flow);
        extract(&frames[i], in_ports[i], true, &s->tracked);
    }
}

/* Keys under the masks in use now. */
static void
make_keys(void)
{
    const struct key_masks *masks = atomic_load(&dp->engine->masks);
    uint16_t tcp_flags;

    for (size_t i = 0; i < N_FRAMES; i++) {
        struct sample *s = &samples[i];

        memset(&s->key, 0, sizeof s->key);
        s->shape =
            key_parse(frames[i].data, frames[i].len, in_ports[i], masks, &s->key, &tcp_flags);
    }
}

static int
compare_keys(const void *a_, const void *b_)
{
    const struct sample *a = *(const struct sample *const *)a_;
    const struct sample *b = *(const struct sample *const *)b_;

    return a->shape != b->shape ? (a->shape < b->shape ? -1 : 1)
                                : memcmp(&a->key, &b->key, sizeof a->key);
}

/* --- the oracle ----------------------------------------------------------------------- */

static struct {
    size_t pairs;   /* of equal keys and different flows */
    size_t covered; /* rules times pairs that had to agree */
    size_t hits;    /* ... and did match */
    size_t tracked; /* the same after conntrack */
    size_t tracked_hits;
    size_t needless_pairs, disagreements; /* of rules that do not cover the shape */
} seen;

static bool
same_connection(const struct flow *a, const struct flow *b)
{
    return a->nw_src == b->nw_src && a->nw_dst == b->nw_dst && a->nw_proto == b->nw_proto &&
           a->tp_src == b->tp_src && a->tp_dst == b->tp_dst &&
           ipv6_addr_equals(&a->ipv6_src, &b->ipv6_src) &&
           ipv6_addr_equals(&a->ipv6_dst, &b->ipv6_dst);
}

static bool
pair_agrees(const struct dp_flow *r, const struct sample *a, const struct sample *b)
{
    bool ma = flow_matches(r, &a->flow);
    bool mb = flow_matches(r, &b->flow);
    bool ta = flow_matches(r, &a->tracked);
    bool tb = flow_matches(r, &b->tracked);

    if (r->fast.covers & 1u << a->shape) {
        seen.covered++;
        seen.hits += ma;
        if (ma != mb) {
            return false;
        }
    } else {
        seen.needless_pairs++;
        seen.disagreements += ma != mb;
    }
    if (r->covers_tracked & 1u << a->shape) {
        seen.tracked++;
        seen.tracked_hits += ta;
        return ta == tb && same_connection(&a->flow, &b->flow);
    }
    return true;
}

static void
one_round(unsigned n_rules)
{
    static const struct sample *sorted[N_FRAMES];
    struct dp_flow *rules[N_RULES];
    bool arrays_right = true, agree = true;

    for (unsigned i = 0; i < n_rules; i++) {
        const struct sample *s = &samples[frames_below(&rnd, N_FRAMES)];
        struct flow mask, value = frames_chance(&rnd, 60) ? s->flow : s->tracked;

        if (frames_chance(&rnd, 60)) {
            random_mask(&mask);
        } else {
            demand_zero(&mask, &value);
        }
        if (value.recirc_id) {
            mask.recirc_id = UINT32_MAX;
        }
        if (frames_chance(&rnd, 5)) {
            ((uint8_t *)&value)[frames_below(&rnd, sizeof value)] ^= 1;
        }
        rules[i] = rule_create(&value, &mask);
    }
    make_keys();
    for (size_t i = 0; i < N_FRAMES; i++) {
        sorted[i] = &samples[i];
        for (unsigned j = 0; j < n_rules; j++) {
            arrays_right &= rule_matches(&rules[j]->fast.rule, &samples[i].flow) ==
                            flow_matches(rules[j], &samples[i].flow);
        }
    }
    qsort(sorted, N_FRAMES, sizeof sorted[0], compare_keys);
    for (size_t i = 1, first = 0; i < N_FRAMES; i++) {
        if (compare_keys(&sorted[first], &sorted[i])) {
            first = i;
        } else if (sorted[i]->shape != SHAPE_ODD) {
            seen.pairs += memcmp(&sorted[first]->flow, &sorted[i]->flow, sizeof(struct flow)) != 0;
            for (unsigned j = 0; j < n_rules; j++) {
                agree &= pair_agrees(rules[j], sorted[first], sorted[i]);
            }
        }
    }
    CHECK(arrays_right);
    CHECK(agree);
    for (unsigned i = 0; i < n_rules; i++) {
        rule_destroy(rules[i]);
    }
}

/* --- what ofproto's flows get ----------------------------------------------------------- */

/* Whether a flow in dpctl's notation has the coverage 'want', "first/tracked". */
static bool
covers(const char *text, const char *want)
{
    struct ofpbuf key, mask;
    struct flow_wildcards wc;
    struct flow flow;
    struct dp_flow *r;
    char got[16] = "unreadable", *error = NULL;

    ofpbuf_init(&key, 0);
    ofpbuf_init(&mask, 0);
    if (!odp_flow_from_string(text, NULL, &key, &mask, &error) &&
        !odp_flow_key_to_flow(key.data, key.size, &flow, NULL) &&
        !odp_flow_key_to_mask(mask.data, mask.size, &wc, &flow, NULL)) {
        r = rule_create(&flow, &wc.masks);
        snprintf(got, sizeof got, "%x/%x", r->fast.covers, r->covers_tracked);
        rule_destroy(r);
    }
    ofpbuf_uninit(&key);
    ofpbuf_uninit(&mask);
    free(error);
    if (strcmp(got, want)) {
        printf("# %s: %s\n", text, got);
        return false;
    }
    return true;
}

#define START "recirc_id(0),in_port(1),eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),"
#define AFTER "recirc_id(9),in_port(1),ct_state(+est+trk),ct_mark(0x1),"

static void
test_usual(void)
{
    CASE("match-covers-usual");
    CHECK(covers(START "eth_type(0x0800),ipv4(frag=no)", "2/0"));
    CHECK(covers(START "eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=6,frag=no),"
                       "tcp(src=80,dst=1024)",
                 "2/0"));
    CHECK(covers(START "eth_type(0x8100),vlan(vid=5,pcp=0),encap(eth_type(0x0800),"
                       "ipv4(dst=10.0.0.0/255.0.0.0,proto=17,tos=0/0xfc,frag=no),udp(dst=53))",
                 "2/0"));
    CHECK(covers(START "eth_type(0x0800),ipv4(proto=1,frag=no),icmp(type=8,code=0)", "2/0"));
    CHECK(covers(START "eth_type(0x86dd),ipv6(src=fe80::1,dst=fe80::2,label=0x12,proto=17,frag=no),"
                       "udp(src=1,dst=2)",
                 "4/0"));
    CHECK(covers(START "eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=128,code=0)", "4/0"));
    CHECK(covers(START "eth_type(0x0806),arp(op=0/0)", "1/0"));
    CHECK(covers(START "eth_type(0x88cc)", "1/0"));

    CASE("match-covers-not");
    CHECK(covers(START "eth_type(0x0800),ipv4(ttl=64,frag=no)", "0/0"));
    CHECK(
        covers(START "eth_type(0x0800),ipv4(proto=6,frag=no),tcp(src=80),tcp_flags(+syn)", "0/0"));
    CHECK(covers(START "eth_type(0x0800),ipv4(proto=17,frag=later)", "0/0"));
    CHECK(covers(START "eth_type(0x0800),ipv4(proto=2,frag=no)", "2/0"));
    CHECK(covers(START "eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135,code=0),"
                       "nd(target=fe80::1)",
                 "0/0"));
    CHECK(covers(START "eth_type(0x0806),arp(sip=10.0.0.1,tip=10.0.0.2,op=1)", "0/0"));
    CHECK(covers(START "eth_type(0x8847),mpls(label=3,tc=0,ttl=64,bos=1)", "0/0"));
    CHECK(covers("tunnel(tun_id=0x1,src=1.1.1.1,dst=2.2.2.2,ttl=64,flags(key))," START
                 "eth_type(0x0800),ipv4(frag=no)",
                 "0/0"));

    CASE("match-covers-tracked");
    CHECK(covers(AFTER "eth_type(0x0800),ipv4(frag=no)", "0/2"));
    CHECK(covers(AFTER "eth_type(0x0800),ipv4(src=10.0.0.1,proto=6,frag=no),tcp(dst=22)", "0/2"));
    CHECK(covers(AFTER "ct_tuple4(src=10.0.0.1,dst=10.0.0.2,proto=6,tp_src=1,tp_dst=2),"
                       "eth_type(0x0800),ipv4(proto=6,frag=no),tcp(src=1/0)",
                 "0/2"));
    CHECK(covers(AFTER "eth_type(0x86dd),ipv6(proto=6,frag=no),tcp(src=1/0)", "0/4"));
    CHECK(covers(AFTER "eth_type(0x0800),ipv4(ttl=1,frag=no)", "0/0"));
    CHECK(covers("dp_hash(0x1/0xf),recirc_id(9),in_port(1),eth_type(0x0800),ipv4(frag=no)", "0/0"));
}

/* --- the union ----------------------------------------------------------------------------- */

static void
test_union(void)
{
    struct flow value, mask;
    struct dp_flow *a, *b, *c;
    const struct key_masks *u;

    CASE("match-union");
    memset(&value, 0, sizeof value);
    memset(&mask, 0, sizeof mask);
    value.dl_type = htons(ETH_TYPE_IP);
    mask.dl_type = OVS_BE16_MAX;
    mask.in_port.odp_port = ODPP_NONE;
    mask.nw_dst = htonl(0xffffff00);
    a = rule_create(&value, &mask);
    value.nw_dst = htonl(0x0a000000);
    b = rule_create(&value, &mask);
    CHECK(dp_masks_count(dp) == 1);
    CHECK(a->fast.rule.mask == b->fast.rule.mask && a->fast.rule.idx == b->fast.rule.idx);
    mask.nw_ttl = UINT8_MAX; /* not cacheable: stays out of the union */
    mask.nw_src = OVS_BE32_MAX;
    c = rule_create(&value, &mask);
    CHECK(dp_masks_count(dp) == 2);

    u = atomic_load(&dp->engine->masks);
    CHECK(u->narrow.ip4_dst == htonl(0xffffff00) && !u->narrow.ip4_src && !u->narrow.tp_src);
    CHECK(u->narrow.vlan_tci == htons(VLAN_CFI));
    rule_destroy(a);
    u = atomic_load(&dp->engine->masks);
    CHECK(u->narrow.ip4_dst == htonl(0xffffff00));
    rule_destroy(b);
    u = atomic_load(&dp->engine->masks);
    CHECK(!u->narrow.ip4_dst);
    rule_destroy(c);
    CHECK(dp_masks_count(dp) == 0);
    CHECK(!u->narrow.vlan_tci);

    /* One entry, one connection. */
    CASE("match-union-tracked");
    memset(&mask, 0, sizeof mask);
    mask.dl_type = OVS_BE16_MAX;
    mask.in_port.odp_port = ODPP_NONE;
    mask.recirc_id = UINT32_MAX;
    value.recirc_id = 1;
    value.nw_dst = 0;
    a = rule_create(&value, &mask);
    value.recirc_id = 0;
    b = rule_create(&value, &mask);
    CHECK(dp_masks_count(dp) == 1);
    CHECK(a->covers_tracked == 1u << SHAPE_IPV4 && b->fast.covers == 1u << SHAPE_IPV4);
    u = atomic_load(&dp->engine->masks);
    CHECK(u->narrow.ip4_src == OVS_BE32_MAX && u->narrow.ip4_dst == OVS_BE32_MAX);
    CHECK(u->narrow.tp_src == OVS_BE16_MAX && u->narrow.nw_proto == UINT8_MAX);
    rule_destroy(a);
    u = atomic_load(&dp->engine->masks);
    CHECK(!u->narrow.ip4_src && !u->narrow.nw_proto);
    rule_destroy(b);
    CHECK(dp_masks_count(dp) == 0);
}

int
main(void)
{
    const char *env = getenv("ROUNDS"), *seed = getenv("SEED");
    unsigned rounds = env ? atoi(env) : 1000;

    rnd.state = seed ? strtoull(seed, NULL, 0) | 1 : 0x9e3779b97f4a7c15;
    dp = xzalloc(sizeof *dp);
    dp->engine = engine_create(&ops, dp);
    dp_masks_init(dp);
    dp_flows_init(dp);

    test_usual();
    test_union();

    CASE("match-oracle");
    for (unsigned i = 0; i < rounds; i++) {
        if (i % 20 == 0) {
            make_frames();
        }
        one_round(1 + frames_below(&rnd, N_RULES));
    }
    printf("# %zu pairs; %zu of %zu covered matches hit, %zu of %zu tracked; %zu of %zu "
           "uncovered disagree\n",
           seen.pairs, seen.hits, seen.covered, seen.tracked_hits, seen.tracked, seen.disagreements,
           seen.needless_pairs);
    /* The frames must have been able to show a mistake. */
    CASE("match-oracle-sees");
    CHECK(seen.pairs > rounds && seen.hits > rounds && seen.tracked_hits > rounds / 4);
    CHECK(seen.disagreements > rounds / 4);

    dp_flows_destroy(dp);
    dp_masks_destroy(dp);
    engine_destroy(dp->engine);
    free(dp);
    return check_done();
}
