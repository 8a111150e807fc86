/* of_table: OpenFlow-like tables and what ofproto makes of them.
 *
 * Rules with priorities, in Open vSwitch's own classifier, which also says
 * what of a packet's flow a megaflow must look at; and, for comparison, in a
 * plain list that is searched linearly.
 *
 * Include before anything that includes fast/classifier.h: both classifiers
 * use the same names. */
#ifndef OF_TABLE_H
#define OF_TABLE_H

#define classifier ovs_classifier
#define cls_rule ovs_cls_rule
#include "classifier.h"

static inline void
of_classifier_insert(struct classifier *cls, const struct cls_rule *rule)
{
    classifier_insert(cls, rule, OVS_VERSION_MIN, NULL, 0);
}

static inline void
of_classifier_remove(struct classifier *cls, const struct cls_rule *rule)
{
    classifier_remove_assert(cls, rule);
}

static inline const struct cls_rule *
of_classifier_lookup(const struct classifier *cls, struct flow *flow, struct flow_wildcards *wc)
{
    return classifier_lookup(cls, OVS_VERSION_MIN, flow, wc);
}

static inline void
of_classifier_destroy(struct classifier *cls)
{
    classifier_destroy(cls);
}
#undef classifier
#undef cls_rule

#include "flow.h"
#include "frames.h"
#include "odp-util.h"
#include "openvswitch/match.h"
#include "openvswitch/meta-flow.h"
#include "ovs-rcu.h"
#include "packets.h"
#include "tunnel.h"
#include "util.h"

#define OF_TABLES 3u     /* one per recirculation id: 0, 1, 2 */
#define OF_RULES_MAX 64u /* of a table */

/* What happens to a packet; then it leaves through the rule's port. */
enum of_action {
    OF_OUTPUT,
    OF_DROP,          /* no actions at all */
    OF_DROP_EXPLICIT, /* a drop action */
    OF_PUSH_VLAN,
    OF_POP_VLAN,
    OF_SET_ETH,
    OF_TWO_OUTPUTS, /* more than the engine does itself */
    OF_RECIRC,
    OF_PUSH_RECIRC,
    OF_N_ACTIONS
};

struct of_rule {
    struct ovs_cls_rule cr; /* first */
    struct match match;
    unsigned table, slot; /* in rules[][] */
    int priority;

    /* The words of the match that are not wild. */
    unsigned n_words;
    uint8_t idx[FLOW_U64S];
    uint64_t mask[FLOW_U64S], value[FLOW_U64S];

    enum of_action action;
    uint32_t recirc_id;
    struct eth_addr eth_dst;
    ovs_be16 tci;

    /* What the reference says and what the datapath counted. */
    uint64_t ref_packets, ref_bytes, got_packets, got_bytes;
};

struct of_tables {
    struct ovs_classifier cls[OF_TABLES];
    struct of_rule *rules[OF_TABLES][OF_RULES_MAX]; /* slot 0: matches everything */
    unsigned version;                               /* grows with each change */
};

/* --- random rules -------------------------------------------------------------- */

static const enum mf_field_id of_fields[] = {
    MFF_TUN_ID,      MFF_TUN_SRC,     MFF_TUN_DST,         MFF_TUN_IPV6_SRC, MFF_TUN_IPV6_DST,
    MFF_TUN_TTL,     MFF_TUN_TOS,     MFF_TUN_GBP_ID,      MFF_SKB_PRIORITY, MFF_PKT_MARK,
    MFF_DP_HASH,     MFF_CT_STATE,    MFF_CT_ZONE,         MFF_CT_MARK,      MFF_CT_LABEL,
    MFF_CT_NW_PROTO, MFF_CT_NW_SRC,   MFF_CT_NW_DST,       MFF_CT_IPV6_SRC,  MFF_CT_IPV6_DST,
    MFF_CT_TP_SRC,   MFF_CT_TP_DST,   MFF_ETH_SRC,         MFF_ETH_DST,      MFF_ETH_TYPE,
    MFF_VLAN_TCI,    MFF_VLAN_VID,    MFF_VLAN_PCP,        MFF_MPLS_LABEL,   MFF_MPLS_TC,
    MFF_MPLS_BOS,    MFF_MPLS_TTL,    MFF_IPV4_SRC,        MFF_IPV4_DST,     MFF_IPV6_SRC,
    MFF_IPV6_DST,    MFF_IPV6_LABEL,  MFF_IP_PROTO,        MFF_IP_DSCP,      MFF_IP_ECN,
    MFF_IP_TTL,      MFF_IP_FRAG,     MFF_ARP_OP,          MFF_ARP_SPA,      MFF_ARP_TPA,
    MFF_ARP_SHA,     MFF_ARP_THA,     MFF_TCP_SRC,         MFF_TCP_DST,      MFF_TCP_FLAGS,
    MFF_UDP_SRC,     MFF_UDP_DST,     MFF_SCTP_SRC,        MFF_SCTP_DST,     MFF_ICMPV4_TYPE,
    MFF_ICMPV4_CODE, MFF_ICMPV6_TYPE, MFF_ICMPV6_CODE,     MFF_ND_TARGET,    MFF_ND_SLL,
    MFF_ND_TLL,      MFF_ND_RESERVED, MFF_ND_OPTIONS_TYPE, MFF_NSH_FLAGS,    MFF_NSH_TTL,
    MFF_NSH_SPI,     MFF_NSH_SI,      MFF_NSH_C1,          MFF_NSH_C3,
};

/* What must be matched as well for a field to mean anything. */
static inline void
of_mask_prereqs(const struct mf_field *mf, struct flow_wildcards *wc)
{
    if (mf->prereqs == MFP_NONE || mf->prereqs == MFP_ETHERNET) {
        return;
    }
    wc->masks.dl_type = OVS_BE16_MAX;
    switch (mf->prereqs) {
    case MFP_VLAN_VID:
        wc->masks.dl_type = 0;
        wc->masks.vlans[0].tci |= htons(VLAN_CFI);
        break;
    case MFP_ND:
    case MFP_ND_SOLICIT:
    case MFP_ND_ADVERT:
        wc->masks.tp_src = wc->masks.tp_dst = OVS_BE16_MAX;
        wc->masks.nw_proto = UINT8_MAX;
        break;
    case MFP_TCP:
    case MFP_UDP:
    case MFP_SCTP:
    case MFP_ICMPV4:
    case MFP_ICMPV6:
        wc->masks.nw_proto = UINT8_MAX;
        break;
    case MFP_CT_VALID:
        wc->masks.ct_state = UINT8_MAX;
        break;
    default:
        break;
    }
}

static inline void
of_random_mask(struct frames *rnd, const struct mf_field *mf, union mf_value *mask)
{
    unsigned kind = frames_below(rnd, 10), bits;

    memset(mask, 0, sizeof *mask);
    memset(mask, 0xff, mf->n_bytes);
    if (mf->n_bits % 8) {
        mask->b[0] = (1u << mf->n_bits % 8) - 1;
    }
    if (mf->maskable != MFM_FULLY || kind < 5) {
        return;
    }
    bits = frames_below(rnd, mf->n_bits + 1);
    for (unsigned i = 0; i < mf->n_bytes * 8; i++) {
        /* From the end: a prefix, or any bits. */
        if (kind < 8 ? i < bits : frames_chance(rnd, 50)) {
            mask->b[mf->n_bytes - 1 - i / 8] &= ~(1u << i % 8);
        }
    }
}

/* Matches some of 'from', or of what 'other' has in its place. */
static inline void
of_add_field(struct frames *rnd, enum mf_field_id id, const struct flow *from,
             const struct flow *other, struct match *match)
{
    const struct mf_field *mf = mf_from_id(id);
    union mf_value value, mask;
    struct flow_wildcards prereqs;
    char *error;

    if (!mf_are_prereqs_ok(mf, from, NULL)) {
        return;
    }
    if (frames_chance(rnd, 15) && mf_are_prereqs_ok(mf, other, NULL)) {
        mf_get_value(mf, other, &value);
    } else {
        mf_get_value(mf, from, &value);
    }
    of_random_mask(rnd, mf, &mask);
    if (is_all_zeros(&mask, mf->n_bytes) || !mf_is_mask_valid(mf, &mask)) {
        return;
    }
    for (int i = 0; i < mf->n_bytes; i++) {
        value.b[i] &= mask.b[i];
    }
    if (!mf_is_value_valid(mf, &value)) {
        return;
    }
    mf_set(mf, &value, &mask, match, &error);
    free(error);

    memset(&prereqs, 0, sizeof prereqs);
    of_mask_prereqs(mf, &prereqs);
    for (size_t i = 0; i < FLOW_U64S; i++) {
        uint64_t add = ((uint64_t *)&prereqs)[i] & ~((uint64_t *)&match->wc)[i];
        ((uint64_t *)&match->wc)[i] |= add;
        ((uint64_t *)&match->flow)[i] |= ((const uint64_t *)from)[i] & add;
    }
}

/* The fields that a set of rules matches: all, or few, so that rules differ in
 * the same ones. */
struct of_theme {
    enum mf_field_id fields[ARRAY_SIZE(of_fields)];
    unsigned n;
};

/* Whether both flows have the field, and not the same in it. */
static inline bool
of_field_differs(enum mf_field_id id, const struct flow *a, const struct flow *b)
{
    const struct mf_field *mf = mf_from_id(id);
    union mf_value x, y;

    if (!mf_are_prereqs_ok(mf, a, NULL) || !mf_are_prereqs_ok(mf, b, NULL)) {
        return false;
    }
    mf_get_value(mf, a, &x);
    mf_get_value(mf, b, &y);
    return memcmp(&x, &y, mf->n_bytes) != 0;
}

/* Most of the fields are such as tell some of the pairs apart. */
static inline void
of_random_theme(struct frames *rnd, struct of_theme *theme, const struct flow pairs[][2],
                unsigned n_pairs)
{
    enum mf_field_id telling[ARRAY_SIZE(of_fields)];
    unsigned n_telling = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(of_fields); i++) {
        for (unsigned j = 0; j < n_pairs; j++) {
            if (of_field_differs(of_fields[i], &pairs[j][0], &pairs[j][1])) {
                telling[n_telling++] = of_fields[i];
                break;
            }
        }
    }
    theme->n = FRAMES_PICK(rnd, 2, 4, 8, ARRAY_SIZE(of_fields));
    for (unsigned i = 0; i < theme->n; i++) {
        theme->fields[i] = n_telling && frames_chance(rnd, 75)
                               ? telling[frames_below(rnd, n_telling)]
                               : of_fields[frames_below(rnd, ARRAY_SIZE(of_fields))];
    }
}

static inline void
of_random_match(struct frames *rnd, const struct of_theme *theme, const struct flow *from,
                const struct flow *other, struct match *match)
{
    unsigned n = 1 + frames_below(rnd, FRAMES_PICK(rnd, 2, 4, 9)), n_used = 0;
    enum mf_field_id used[9];

    match_init_catchall(match);
    if (frames_chance(rnd, 40)) {
        match->flow.in_port = from->in_port;
        match->wc.masks.in_port.odp_port = ODPP_NONE;
    }
    /* Most fields are not there in most packets: take those that are. */
    for (unsigned tries = 0; n_used < n && tries < 100; tries++) {
        enum mf_field_id id = theme->fields[frames_below(rnd, theme->n)];
        if (mf_are_prereqs_ok(mf_from_id(id), from, NULL)) {
            of_add_field(rnd, id, from, other, match);
            used[n_used++] = id;
        }
    }
    /* A value of 'other' may have broken another field's prerequisites. */
    for (unsigned i = 0; i < n_used; i++) {
        if (!mf_are_match_prereqs_ok(mf_from_id(used[i]), match)) {
            match_init_catchall(match);
        }
    }
}

/* --- tables ---------------------------------------------------------------------- */

static inline void
of_tables_init(struct of_tables *t)
{
    static const enum mf_field_id prefixes[] = {MFF_IPV4_DST, MFF_IPV4_SRC, MFF_IPV6_DST};

    memset(t, 0, sizeof *t);
    for (unsigned i = 0; i < OF_TABLES; i++) {
        classifier_init(&t->cls[i], flow_segment_u64s);
        classifier_set_prefix_fields(&t->cls[i], prefixes, ARRAY_SIZE(prefixes));
    }
}

static inline void
of_rule_add(struct of_tables *t, unsigned table, unsigned slot, const struct match *match,
            int priority, struct frames *rnd)
{
    struct of_rule *r = xzalloc(sizeof *r);

    r->match = *match;
    match_zero_wildcarded_fields(&r->match);
    r->table = table;
    r->slot = slot;
    r->priority = priority;
    for (unsigned i = 0; i < FLOW_U64S; i++) {
        uint64_t mask = ((const uint64_t *)&r->match.wc.masks)[i];
        if (mask) {
            r->idx[r->n_words] = i;
            r->mask[r->n_words] = mask;
            r->value[r->n_words++] = ((const uint64_t *)&r->match.flow)[i];
        }
    }
    do {
        r->action = frames_chance(rnd, 40) ? OF_OUTPUT : frames_below(rnd, OF_N_ACTIONS);
    } while (table == OF_TABLES - 1 && r->action >= OF_RECIRC);
    r->recirc_id = table + 1 + frames_below(rnd, OF_TABLES - table - 1 + (table == OF_TABLES - 1));
    r->eth_dst = (struct eth_addr)ETH_ADDR_C(02, 00, 00, 00, 00, 0a);
    r->eth_dst.ea[4] = slot;
    r->tci = htons(VLAN_CFI | (slot + 1));
    cls_rule_init(&r->cr, &r->match, priority);
    of_classifier_insert(&t->cls[table], &r->cr);
    t->rules[table][slot] = r;
    t->version++;
}

static inline void
of_rule_free(struct of_rule *r)
{
    cls_rule_destroy(&r->cr);
    free(r);
}

static inline void
of_rule_del(struct of_tables *t, unsigned table, unsigned slot)
{
    struct of_rule *r = t->rules[table][slot];

    of_classifier_remove(&t->cls[table], &r->cr);
    ovsrcu_postpone(of_rule_free, r);
    t->rules[table][slot] = NULL;
    t->version++;
}

static inline void
of_tables_destroy(struct of_tables *t)
{
    for (unsigned i = 0; i < OF_TABLES; i++) {
        for (unsigned j = 0; j < OF_RULES_MAX; j++) {
            if (t->rules[i][j]) {
                of_rule_del(t, i, j);
            }
        }
        of_classifier_destroy(&t->cls[i]);
    }
}

/* The reference. */
static inline struct of_rule *
of_linear(const struct of_tables *t, const struct flow *flow)
{
    const uint64_t *f = (const uint64_t *)flow;
    struct of_rule *best = NULL;

    for (unsigned i = 0; i < OF_RULES_MAX; i++) {
        struct of_rule *r = t->rules[flow->recirc_id][i];
        if (r && (!best || r->priority > best->priority)) {
            unsigned w = 0;
            while (w < r->n_words && (f[r->idx[w]] & r->mask[w]) == r->value[w]) {
                w++;
            }
            best = w == r->n_words ? r : best;
        }
    }
    return best;
}

/* --- translation ------------------------------------------------------------------ */

/* As ofproto does: the rule of a packet's flow, and all that a megaflow must
 * look at (xlate_wc_init() and xlate_wc_finish() of ofproto-dpif-xlate.c). */
static inline struct of_rule *
of_translate(const struct of_tables *t, const struct flow *flow_, struct flow_wildcards *wc)
{
    const struct ovs_cls_rule *cr;
    struct flow flow = *flow_;

    flow_wildcards_init_catchall(wc);
    WC_MASK_FIELD(wc, packet_type);
    WC_MASK_FIELD(wc, in_port);
    WC_MASK_FIELD(wc, dl_type);
    WC_MASK_FIELD(wc, recirc_id);
    if (is_ip_any(&flow)) {
        WC_MASK_FIELD_MASK(wc, nw_frag, FLOW_NW_FRAG_MASK);
    }
    tnl_wc_init(&flow, wc);

    cr = of_classifier_lookup(&t->cls[flow.recirc_id], &flow, wc);

    flow_wildcards_clear_non_packet_fields(wc);
    if (is_icmpv4(&flow, NULL) || is_icmpv6(&flow, NULL)) {
        wc->masks.tp_src &= htons(UINT8_MAX);
        wc->masks.tp_dst &= htons(UINT8_MAX);
    }
    for (int i = 0; i < FLOW_MAX_VLAN_HEADERS; i++) {
        if (wc->masks.vlans[i].tci) {
            wc->masks.vlans[i].tci |= htons(VLAN_CFI);
        }
        if (!eth_type_vlan(flow.vlans[i].tpid)) {
            wc->masks.vlans[i].tpid = 0;
            wc->masks.vlans[i].tci = 0;
        }
    }
    if (flow.nw_frag & FLOW_NW_FRAG_LATER) {
        wc->masks.tp_src = 0;
        wc->masks.tp_dst = 0;
    }
    if (!eth_type_mpls(flow.dl_type)) {
        memset(wc->masks.mpls_lse, 0, sizeof wc->masks.mpls_lse);
    }
    if (!flow_tnl_dst_is_set(&flow.tunnel)) {
        memset(&wc->masks.tunnel, 0, sizeof wc->masks.tunnel);
    }
    return CONST_CAST(struct of_rule *, CONTAINER_OF(cr, struct of_rule, cr));
}

#endif
