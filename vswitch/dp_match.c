/* A megaflow's match as the classifier and the exact-match cache see it.
 *
 * Theory of Operation
 *
 * Classifier.  Its keys are OVS's struct flow, word by word.  A rule is the
 * words of the flow's mask that are not zero; thousands of flows have the same
 * mask, so masks are interned and their flows share indices and mask words.
 *
 * Cache.  An entry says: packets of this shape whose key, ANDed with the union
 * U of the masks in use, is this one, belong to flow f.  That is right if the
 * packets an entry stands for all match f.  Two conditions make it so:
 *
 * 1. f covers the shape: each bit of struct flow that f's mask looks at is,
 *    for a packet of the shape straight from a port, a function of the key.
 *    Per shape and, where it matters, per Ethernet type and IP protocol that f
 *    demands, a bit of struct flow is one of
 *
 *      held     in the key (addresses, ports, ...)
 *      zero     the same for all such packets, and zero: everything about
 *               tunnels, recirculation and tracking, fragments, inner tags,
 *               the fields of other protocols
 *      unknown  anything else: TTL, TCP flags, ARP, ND, MPLS, NSH, ...
 *
 *    f covers the shape if its mask has no unknown bit.  If it also demands
 *    one of the zero bits, no such packet matches it; then it counts as not
 *    covering, which keeps its bits out of U.
 *
 *    Not every bit is as plain as it looks: an IPv4 packet of protocol 58 has
 *    ND fields, an IPv6 one of protocol 1 ICMP's ports, and the L4 ports are
 *    known only if f demands a protocol whose ports the key holds.
 *
 * 2. U has all of f's held bits from before f can be found until no reader can
 *    find it.  So whatever U was when an entry was learned (U1) and is when it
 *    is found (U2), both have f's bits: key1 & U1 == key2 & U2 implies that
 *    both packets agree in all of them, hence by 1. that both match f.
 *    Changing U needs no flush; entries with another U are just not found.
 *
 * The Ethernet type and whether there is a tag are always in U: much of 1. is
 * said per type, and a tag's TPID follows from its presence.
 *
 * Tracked packets.  Packets whose program is TRACK are looked up again after
 * conntrack, with recirculation id and ct_* fields set, and this second
 * lookup's verdict may hang off the first one's entry (worker_learn_verdict()).
 * So the second flow's bits are subject to 1. and 2. as well, except that ct_*
 * and recirc_id are allowed: whoever uses the verdict compares those, and the
 * connection, with what they were.  An entry with a verdict must stand for one
 * connection: flows after a recirculation that may be such second ones put
 * addresses, protocol and ports into U, whether they look at them or not. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "dp.h"
#include "hash.h"
#include "packets.h"
#include "util.h"

BUILD_ASSERT_DECL(FLOW_U64S <= CLS_WORDS_MAX);
/* New fields of struct flow must find their place here. */
BUILD_ASSERT_DECL(FLOW_WC_SEQ == 42);

#define KEY_BITS (sizeof(struct key_mask) * 8)

struct dp_mask {
    struct hmap_node node; /* in dp_masks.masks */
    unsigned n_flows;      /* that have it */
    unsigned n_first;      /* of those, that cover a shape: 'first' is in U */
    unsigned n_tracked;    /* ... that cover one after tracking: 'tracked' is in U */
    struct key_mask first, tracked;
    struct flow_wildcards wc;
    unsigned n_words; /* of it that are not zero */
    uint64_t *words;  /* behind the struct; the indices behind them */
    uint16_t *idx;
};

struct dp_masks {
    struct hmap masks;
    uint32_t uses[KEY_BITS]; /* how many masks have put this bit into U */
    struct key_mask in_use;  /* U */
};

/* --- 1. what a shape's key says about a packet ----------------------------- */

#define SET(FLOW, FIELD) memset(&(FLOW)->FIELD, 0xff, sizeof(FLOW)->FIELD)

static void
l4_held(enum shape shape, const struct flow *match, bool exact_proto, struct flow *held,
        struct flow *unknown)
{
    bool ports = false, no_ports = false, nd = false, igmp = false, tcp_flags = false;

    if (!exact_proto) {
        nd = igmp = tcp_flags = true;
    } else {
        switch (match->nw_proto) {
        case IPPROTO_TCP:
            ports = true;
            tcp_flags = true;
            break;
        case IPPROTO_UDP:
        case IPPROTO_SCTP:
            ports = true;
            break;
        case IPPROTO_ICMP:
            ports = shape == SHAPE_IPV4;
            break;
        case IPPROTO_ICMPV6:
            ports = shape == SHAPE_IPV6;
            nd = true;
            break;
        case IPPROTO_IGMP:
            igmp = true;
            break;
        default:
            no_ports = true;
            break;
        }
    }

    if (ports) {
        SET(held, tp_src);
        SET(held, tp_dst);
    } else if (!no_ports) {
        SET(unknown, tp_src);
        SET(unknown, tp_dst);
    }
    if (nd) {
        SET(unknown, nd_target);
        SET(unknown, arp_sha);
        SET(unknown, arp_tha);
    }
    if (nd || tcp_flags) {
        SET(unknown, tcp_flags);
    }
    if (nd || igmp) {
        SET(unknown, igmp_group_ip4);
    }
}

static void
l2_unknown(const struct flow *match, bool exact_type, struct flow *unknown)
{
    bool arp = match->dl_type == htons(ETH_TYPE_ARP) || match->dl_type == htons(ETH_TYPE_RARP);

    if (!exact_type || arp) {
        SET(unknown, nw_src);
        SET(unknown, nw_dst);
        SET(unknown, nw_proto);
        SET(unknown, arp_sha);
        SET(unknown, arp_tha);
    }
    if (!exact_type || eth_type_mpls(match->dl_type)) {
        SET(unknown, mpls_lse);
    }
    if (!exact_type || match->dl_type == htons(ETH_TYPE_NSH)) {
        SET(unknown, nsh);
    }
}

/* Says whether packets of the shape can match at all, and which bits of their
 * struct flow are held and unknown; all others are zero. */
static bool
shape_fields(enum shape shape, const struct flow *match, const struct flow *mask, struct flow *held,
             struct flow *unknown)
{
    bool exact_type = mask->dl_type == OVS_BE16_MAX;
    bool exact_proto = mask->nw_proto == UINT8_MAX;

    if (exact_type) {
        enum shape only = match->dl_type == htons(ETH_TYPE_IP)     ? SHAPE_IPV4
                          : match->dl_type == htons(ETH_TYPE_IPV6) ? SHAPE_IPV6
                                                                   : SHAPE_L2;

        /* A tag that OVS was told not to parse (vlan-limit). */
        if (shape != only || eth_type_vlan(match->dl_type)) {
            return false;
        }
    }

    memset(held, 0, sizeof *held);
    memset(unknown, 0, sizeof *unknown);
    SET(held, in_port);
    SET(held, dl_dst);
    SET(held, dl_src);
    SET(held, dl_type);
    SET(held, vlans[0]);
    switch (shape) {
    case SHAPE_IPV4:
        SET(held, nw_src);
        SET(held, nw_dst);
        break;
    case SHAPE_IPV6:
        SET(held, ipv6_src);
        SET(held, ipv6_dst);
        SET(held, ipv6_label);
        break;
    default:
        l2_unknown(match, exact_type, unknown);
        return true;
    }
    SET(held, nw_proto);
    SET(held, nw_tos);
    SET(unknown, nw_ttl);
    l4_held(shape, match, exact_proto, held, unknown);
    return true;
}

/* What conntrack adds to a packet's metadata. */
static void
tracked_fields(struct flow *held)
{
    SET(held, recirc_id);
    SET(held, ct_state);
    SET(held, ct_zone);
    SET(held, ct_mark);
    SET(held, ct_label);
    SET(held, ct_nw_proto);
    SET(held, ct_nw_src);
    SET(held, ct_nw_dst);
    SET(held, ct_ipv6_src);
    SET(held, ct_ipv6_dst);
    SET(held, ct_tp_src);
    SET(held, ct_tp_dst);
}

static bool
covered(const struct cls_rule *rule, const struct flow *held, const struct flow *unknown)
{
    const uint64_t *h = (const uint64_t *)held, *u = (const uint64_t *)unknown;
    uint64_t bad = 0;

    for (unsigned i = 0; i < rule->n_words; i++) {
        unsigned word = rule->idx[i];
        bad |= (rule->mask[i] & u[word]) | (rule->value[i] & ~h[word]);
    }
    return !bad;
}

/* Of a flow whose rule is filled in. */
static void
decide_coverage(struct dp_flow *flow, const struct flow *match)
{
    const struct flow *mask = &flow->mask->wc.masks;
    bool recirculated = match->recirc_id & mask->recirc_id;

    flow->fast.covers = 0;
    flow->covers_tracked = 0;
    for (enum shape shape = SHAPE_L2; shape < SHAPE_ODD; shape++) {
        struct flow held, unknown;

        if (!shape_fields(shape, match, mask, &held, &unknown)) {
            continue;
        }
        if (covered(&flow->fast.rule, &held, &unknown)) {
            flow->fast.covers |= 1u << shape;
        }
        tracked_fields(&held);
        /* Only after a recirculation, and not one for a bond's hash. */
        if (recirculated && !mask->dp_hash && shape != SHAPE_L2 &&
            covered(&flow->fast.rule, &held, &unknown)) {
            flow->covers_tracked |= 1u << shape;
        }
    }
}

/* --- 2. the union of the masks in use -------------------------------------- */

static void
key_mask_first(const struct flow *mask, struct key_mask *k)
{
    memset(k, 0, sizeof *k);
    memcpy(k->eth_dst, &mask->dl_dst, sizeof k->eth_dst);
    memcpy(k->eth_src, &mask->dl_src, sizeof k->eth_src);
    k->eth_type = OVS_BE16_MAX;
    k->vlan_tci = mask->vlans[0].tci | htons(VLAN_CFI);
    k->ip4_src = mask->nw_src;
    k->ip4_dst = mask->nw_dst;
    memcpy(k->ip6_src, &mask->ipv6_src, sizeof k->ip6_src);
    memcpy(k->ip6_dst, &mask->ipv6_dst, sizeof k->ip6_dst);
    k->ip6_label = mask->ipv6_label;
    k->tp_src = mask->tp_src;
    k->tp_dst = mask->tp_dst;
    k->nw_proto = mask->nw_proto;
    k->nw_tos = mask->nw_tos;
}

static void
key_mask_tracked(const struct flow *mask, struct key_mask *k)
{
    key_mask_first(mask, k);
    SET(k, ip4_src);
    SET(k, ip4_dst);
    SET(k, ip6_src);
    SET(k, ip6_dst);
    SET(k, tp_src);
    SET(k, tp_dst);
    SET(k, nw_proto);
}

/* Adds (+1) or takes away (-1) one user of each of the bits. */
static void
use_bits(struct dp *dp, const struct key_mask *k, int delta)
{
    struct dp_masks *masks = dp->masks;
    const uint8_t *bytes = (const uint8_t *)k;
    uint8_t *in_use = (uint8_t *)&masks->in_use;
    bool changed = false;

    for (unsigned i = 0; i < sizeof *k; i++) {
        for (unsigned left = bytes[i]; left; left &= left - 1) {
            unsigned bit = __builtin_ctz(left);
            uint32_t *uses = &masks->uses[i * 8 + bit];
            bool before = *uses != 0;

            *uses += delta;
            if (before != (*uses != 0)) {
                in_use[i] ^= 1u << bit;
                changed = true;
            }
        }
    }
    if (changed) {
        engine_set_mask(dp->engine, &masks->in_use);
    }
}

/* --- interned masks --------------------------------------------------------- */

static struct dp_mask *
mask_find(const struct dp_masks *masks, uint32_t hash, const uint64_t *words, const uint16_t *idx,
          unsigned n)
{
    struct dp_mask *mask = NULL;

    HMAP_FOR_EACH_WITH_HASH (mask, node, hash, &masks->masks) {
        if (mask->n_words == n && !memcmp(mask->idx, idx, n * sizeof *idx) &&
            !memcmp(mask->words, words, n * sizeof *words)) {
            return mask;
        }
    }
    return NULL;
}

static struct dp_mask *
mask_get(struct dp_masks *masks, const struct flow_wildcards *wc)
{
    const uint64_t *m = (const uint64_t *)&wc->masks;
    uint64_t words[FLOW_U64S];
    uint16_t idx[FLOW_U64S];
    unsigned n = 0;
    struct dp_mask *mask;
    uint32_t hash;

    for (unsigned i = 0; i < FLOW_U64S; i++) {
        if (m[i]) {
            words[n] = m[i];
            idx[n++] = i;
        }
    }
    hash = hash_bytes(idx, n * sizeof *idx, hash_bytes64(words, n * sizeof *words, 0));
    mask = mask_find(masks, hash, words, idx, n);
    if (!mask) {
        mask = xzalloc(sizeof *mask + n * (sizeof *words + sizeof *idx));
        mask->wc = *wc;
        mask->n_words = n;
        mask->words = (uint64_t *)(mask + 1);
        mask->idx = (uint16_t *)(mask->words + n);
        memcpy(mask->words, words, n * sizeof *words);
        memcpy(mask->idx, idx, n * sizeof *idx);
        key_mask_first(&wc->masks, &mask->first);
        key_mask_tracked(&wc->masks, &mask->tracked);
        hmap_insert(&masks->masks, &mask->node, hash);
    }
    mask->n_flows++;
    return mask;
}

static void
mask_put(struct dp_masks *masks, struct dp_mask *mask)
{
    if (!--mask->n_flows) {
        hmap_remove(&masks->masks, &mask->node);
        free(mask);
    }
}

/* --- public ------------------------------------------------------------------ */

void
dp_match_init(struct dp *dp, struct dp_flow *flow, const struct match *match)
{
    struct dp_mask *mask = mask_get(dp->masks, &match->wc);
    const uint64_t *f = (const uint64_t *)&match->flow;
    uint64_t *value = mask->n_words <= ARRAY_SIZE(flow->value)
                          ? flow->value
                          : xmalloc(mask->n_words * sizeof *value);

    for (unsigned i = 0; i < mask->n_words; i++) {
        value[i] = f[mask->idx[i]] & mask->words[i];
    }
    flow->mask = mask;
    flow->fast.rule.n_words = mask->n_words;
    flow->fast.rule.idx = mask->idx;
    flow->fast.rule.mask = mask->words;
    flow->fast.rule.value = value;

    flow->fast.mask = &mask->first;
    decide_coverage(flow, &match->flow);
    if (flow->fast.covers && !mask->n_first++) {
        use_bits(dp, &mask->first, 1);
    }
    if (flow->covers_tracked && !mask->n_tracked++) {
        use_bits(dp, &mask->tracked, 1);
    }
}

void
dp_match_uninit(struct dp *dp, struct dp_flow *flow)
{
    struct dp_mask *mask = flow->mask;

    if (flow->fast.covers && !--mask->n_first) {
        use_bits(dp, &mask->first, -1);
    }
    if (flow->covers_tracked && !--mask->n_tracked) {
        use_bits(dp, &mask->tracked, -1);
    }
    mask_put(dp->masks, mask);
    flow->mask = NULL;
    if (flow->fast.rule.value != flow->value) {
        free(CONST_CAST(uint64_t *, flow->fast.rule.value));
    }
    flow->fast.rule.value = NULL;
}

const struct flow_wildcards *
dp_match_wc(const struct dp_flow *flow)
{
    return &flow->mask->wc;
}

void
dp_masks_init(struct dp *dp)
{
    dp->masks = xzalloc(sizeof *dp->masks);
    hmap_init(&dp->masks->masks);
    engine_set_mask(dp->engine, &dp->masks->in_use);
}

void
dp_masks_destroy(struct dp *dp)
{
    if (dp->masks) {
        ovs_assert(hmap_is_empty(&dp->masks->masks));
        hmap_destroy(&dp->masks->masks);
        free(dp->masks);
        dp->masks = NULL;
    }
}

size_t
dp_masks_count(const struct dp *dp)
{
    size_t n;

    ovs_mutex_lock(&dp->flows_lock);
    n = hmap_count(&dp->masks->masks);
    ovs_mutex_unlock(&dp->flows_lock);
    return n;
}
