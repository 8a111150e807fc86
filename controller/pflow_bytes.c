#include <config.h>

#include "pflow_bytes.h"

#include <string.h>

#include "byte-order.h"
#include "flow.h"
#include "fmatch.h"
#include "hash.h"
#include "nx-match.h"
#include "openvswitch/match.h"
#include "openvswitch/meta-flow.h"
#include "openvswitch/ofp-actions.h"
#include "openvswitch/ofp-port.h"
#include "openvswitch/ofpbuf.h"
#include "ovs-thread.h"
#include "packets.h"
#include "util.h"

#define CANONICAL OFP15_VERSION

/* --- matches -------------------------------------------------------------------- */

/* A field's OXM header, without and with mask. */
struct header {
    uint8_t len;
    uint8_t bytes[15];
};

static struct header headers[MFF_N_IDS][2];
/* All that quick_match() encodes. */
static struct flow known;

static void
init_header(enum mf_field_id id)
{
    for (unsigned masked = 0; masked < 2; masked++) {
        struct header *h = &headers[id][masked];
        struct ofpbuf b;

        ofpbuf_use_stack(&b, h->bytes, sizeof h->bytes);
        nx_put_header(&b, id, CANONICAL, masked);
        h->len = b.size;
    }
}

static void
init_headers(void)
{
    static const enum mf_field_id fields[] = {
        MFF_CONJ_ID,      MFF_IN_PORT_OXM, MFF_ETH_SRC,     MFF_ETH_DST,  MFF_ETH_TYPE,
        MFF_IPV4_SRC,     MFF_IPV4_DST,    MFF_IPV6_SRC,    MFF_IPV6_DST, MFF_IP_PROTO,
        MFF_TCP_SRC,      MFF_TCP_DST,     MFF_UDP_SRC,     MFF_UDP_DST,  MFF_ICMPV4_TYPE,
        MFF_ICMPV4_CODE,  MFF_ICMPV6_TYPE, MFF_ICMPV6_CODE, MFF_ARP_OP,   MFF_ARP_SPA,
        MFF_ARP_TPA,      MFF_ARP_SHA,     MFF_ARP_THA,     MFF_ND_SLL,   MFF_ND_TLL,
        MFF_ND_TARGET,    MFF_TUN_ID,      MFF_CT_STATE,    MFF_CT_MARK,  MFF_METADATA,
        MFF_CT_LABEL,     MFF_VLAN_VID,    MFF_SCTP_SRC,    MFF_SCTP_DST, MFF_TUN_SRC,
        MFF_TUN_IPV6_SRC,
    };

    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        init_header(fields[i]);
    }
    for (unsigned i = 0; i < FLOW_N_XREGS; i++) {
        init_header(MFF_XREG0 + i);
    }
    for (unsigned i = 0; i < FLOW_N_REGS; i++) {
        init_header(MFF_REG0 + i);
    }

    known.conj_id = UINT32_MAX;
    known.in_port.ofp_port = u16_to_ofp(UINT16_MAX);
    known.dl_src = known.dl_dst = known.arp_sha = known.arp_tha = eth_addr_exact;
    known.dl_type = known.tp_src = known.tp_dst = OVS_BE16_MAX;
    known.nw_src = known.nw_dst = OVS_BE32_MAX;
    known.ipv6_src = known.ipv6_dst = known.nd_target = in6addr_exact;
    known.nw_proto = UINT8_MAX;
    known.tunnel.tun_id = known.metadata = OVS_BE64_MAX;
    known.ct_state = UINT8_MAX; /* all there is of it */
    known.ct_mark = UINT32_MAX;
    known.ct_label = OVS_U128_MAX;
    memset(known.regs, 0xff, sizeof known.regs);
}

static bool
only_known(const struct flow *mask)
{
    const uint64_t *m = (const uint64_t *)mask, *k = (const uint64_t *)&known;
    uint64_t other = 0;

    for (size_t i = 0; i < FLOW_U64S; i++) {
        other |= m[i] & ~k[i];
    }
    return !other;
}

static inline uint8_t *
put(uint8_t *p, enum mf_field_id id, const void *value, const void *mask, size_t n)
{
    static const uint8_t none[16], all[16] = {[0 ... 15] = 0xff};
    const struct header *h;
    bool masked;

    if (!memcmp(mask, none, n)) {
        return p;
    }
    masked = memcmp(mask, all, n);
    h = &headers[id][masked];
    memcpy(p, h->bytes, 8);
    p += h->len;
    memcpy(p, value, n);
    p += n;
    if (masked) {
        memcpy(p, mask, n);
        p += n;
    }
    return p;
}

#define PUT(ID, FIELD) p = put(p, ID, &f->FIELD, &m->FIELD, sizeof f->FIELD)

static inline uint8_t *
put_exact(uint8_t *p, enum mf_field_id id, const void *value, size_t n)
{
    static const uint8_t all[16] = {[0 ... 15] = 0xff};

    return put(p, id, value, all, n);
}

/* A type or code, which struct flow has in a port's place. */
static uint8_t *
put_icmp(uint8_t *p, enum mf_field_id id, ovs_be16 value, ovs_be16 mask)
{
    uint8_t v = ntohs(value);

    return mask ? put_exact(p, id, &v, sizeof v) : p;
}

static uint8_t *
put_icmp6(uint8_t *p, const struct flow *f, const struct flow *m)
{
    p = put_icmp(p, MFF_ICMPV6_TYPE, f->tp_src, m->tp_src);
    p = put_icmp(p, MFF_ICMPV6_CODE, f->tp_dst, m->tp_dst);
    if (is_nd(f, NULL)) {
        PUT(MFF_ND_TARGET, nd_target);
        if (f->tp_src == htons(ND_NEIGHBOR_SOLICIT)) {
            PUT(MFF_ND_SLL, arp_sha);
        } else {
            PUT(MFF_ND_TLL, arp_tha);
        }
    }
    return p;
}

static uint8_t *
put_ip(uint8_t *p, const struct flow *f, const struct flow *m)
{
    bool v4 = f->dl_type == htons(ETH_TYPE_IP);

    if (v4) {
        PUT(MFF_IPV4_SRC, nw_src);
        PUT(MFF_IPV4_DST, nw_dst);
    } else {
        PUT(MFF_IPV6_SRC, ipv6_src);
        PUT(MFF_IPV6_DST, ipv6_dst);
    }
    if (!m->nw_proto) {
        return p;
    }
    p = put_exact(p, MFF_IP_PROTO, &f->nw_proto, 1);
    if (f->nw_proto == IPPROTO_TCP) {
        PUT(MFF_TCP_SRC, tp_src);
        PUT(MFF_TCP_DST, tp_dst);
    } else if (f->nw_proto == IPPROTO_UDP) {
        PUT(MFF_UDP_SRC, tp_src);
        PUT(MFF_UDP_DST, tp_dst);
    } else if (v4) {
        p = put_icmp(p, MFF_ICMPV4_TYPE, f->tp_src, m->tp_src);
        p = put_icmp(p, MFF_ICMPV4_CODE, f->tp_dst, m->tp_dst);
    } else {
        p = put_icmp6(p, f, m);
    }
    return p;
}

static uint8_t *
put_arp(uint8_t *p, const struct flow *f, const struct flow *m)
{
    ovs_be16 op = htons(f->nw_proto);

    if (m->nw_proto) {
        p = put_exact(p, MFF_ARP_OP, &op, sizeof op);
    }
    PUT(MFF_ARP_SPA, nw_src);
    PUT(MFF_ARP_TPA, nw_dst);
    PUT(MFF_ARP_SHA, arp_sha);
    PUT(MFF_ARP_THA, arp_tha);
    return p;
}

static uint8_t *
put_regs(uint8_t *p, const struct flow *f, const struct flow *m)
{
    for (int i = 0; i < FLOW_N_XREGS; i++) {
        ovs_be64 mask = htonll(flow_get_xreg(m, i));

        if (mask) {
            ovs_be64 value = htonll(flow_get_xreg(f, i));

            p = put(p, MFF_XREG0 + i, &value, &mask, sizeof value);
        }
    }
    return p;
}

static uint8_t *
put_host_order(uint8_t *p, enum mf_field_id id, uint32_t value, uint32_t mask)
{
    ovs_be32 v = htonl(value), m = htonl(mask);

    return put(p, id, &v, &m, sizeof v);
}

static uint8_t *
put_label(uint8_t *p, const struct flow *f, const struct flow *m)
{
    ovs_be128 v = hton128(f->ct_label), mask = hton128(m->ct_label);

    return put(p, MFF_CT_LABEL, &v, &mask, sizeof v);
}

/* Whether the transport protocol, if there is a match on it, is one that put_ip()
 * tells apart. */
static bool
knows_protocol(const struct flow *f, const struct flow *m)
{
    return !(m->tp_src | m->tp_dst) || f->nw_proto == IPPROTO_TCP || f->nw_proto == IPPROTO_UDP ||
           is_icmpv4(f, NULL) || is_icmpv6(f, NULL);
}

/* In the order of libopenvswitch.  False, and nothing done: there is more in it
 * than this knows. */
static bool
quick_match(struct ofpbuf *b, const struct match *match)
{
    const struct flow *f = &match->flow, *m = &match->wc.masks;
    bool ip = f->dl_type == htons(ETH_TYPE_IP) || f->dl_type == htons(ETH_TYPE_IPV6);
    bool arp = f->dl_type == htons(ETH_TYPE_ARP) || f->dl_type == htons(ETH_TYPE_RARP);
    uint8_t *start, *p;

    if (!only_known(m) || f->packet_type || (ip && !knows_protocol(f, m)) ||
        (m->dl_type && m->dl_type != OVS_BE16_MAX) ||
        f->dl_type == htons(OFP_DL_TYPE_NOT_ETH_TYPE)) {
        return false;
    }
    p = start = ofpbuf_put_uninit(b, PFLOW_MATCH_BYTES);
    p = put_host_order(p, MFF_CONJ_ID, f->conj_id, m->conj_id);
    if (m->in_port.ofp_port) {
        ovs_be32 port = ofputil_port_to_ofp11(f->in_port.ofp_port);

        p = put_exact(p, MFF_IN_PORT_OXM, &port, sizeof port);
    }
    PUT(MFF_ETH_SRC, dl_src);
    PUT(MFF_ETH_DST, dl_dst);
    PUT(MFF_ETH_TYPE, dl_type);
    p = ip ? put_ip(p, f, m) : arp ? put_arp(p, f, m) : p;
    PUT(MFF_TUN_ID, tunnel.tun_id);
    p = put_regs(p, f, m);
    p = put_host_order(p, MFF_CT_STATE, f->ct_state, m->ct_state);
    p = put_host_order(p, MFF_CT_MARK, f->ct_mark, m->ct_mark);
    p = put_label(p, f, m);
    PUT(MFF_METADATA, metadata);
    b->size -= PFLOW_MATCH_BYTES - (p - start);
    return true;
}

static inline void
init_once(void)
{
    static struct ovsthread_once once = OVSTHREAD_ONCE_INITIALIZER;

    if (ovsthread_once_start(&once)) {
        init_headers();
        ovsthread_once_done(&once);
    }
}

void
pflow_put_match(struct ofpbuf *b, const struct match *match)
{
    init_once();
    if (!quick_match(b, match)) {
        oxm_put_raw(b, match, CANONICAL);
    }
}

/* --- matches of the compiler ------------------------------------------------------- */

void
fm_in_port(struct fmatch *m, ofp_port_t port)
{
    ovs_be32 v = ofputil_port_to_ofp11(port);

    fm_set(m, FM_IN_PORT, &v, sizeof v);
}

static inline uint8_t *
put_field(uint8_t *p, const struct fmatch *m, enum fmatch_field f, enum mf_field_id id, size_t n)
{
    bool masked = m->masked >> f & 1;
    const struct header *h = &headers[id][masked];

    if (!(m->has >> f & 1)) {
        return p;
    }
    memcpy(p, h->bytes, 8);
    p += h->len;
    memcpy(p, m->value[f], n);
    p += n;
    if (masked) {
        memcpy(p, m->mask[f], n);
        p += n;
    }
    return p;
}

static inline bool
has_any(const struct fmatch *m, uint32_t fields)
{
    return m->has & fields;
}

static uint8_t *
put_transport(uint8_t *p, const struct fmatch *m, bool v4)
{
    static const struct {
        uint8_t proto;
        enum mf_field_id src, dst;
    } ports[] = {{IPPROTO_TCP, MFF_TCP_SRC, MFF_TCP_DST},
                 {IPPROTO_UDP, MFF_UDP_SRC, MFF_UDP_DST},
                 {IPPROTO_SCTP, MFF_SCTP_SRC, MFF_SCTP_DST}};
    uint8_t type = m->value[FM_TP_SRC][1], code = m->value[FM_TP_DST][1];
    bool has_type = m->has >> FM_TP_SRC & 1, has_code = m->has >> FM_TP_DST & 1;

    for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
        if (m->nw_proto == ports[i].proto) {
            p = put_field(p, m, FM_TP_SRC, ports[i].src, 2);
            return put_field(p, m, FM_TP_DST, ports[i].dst, 2);
        }
    }
    if (m->nw_proto != (v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
        return p;
    }
    if (has_type) {
        p = put_exact(p, v4 ? MFF_ICMPV4_TYPE : MFF_ICMPV6_TYPE, &type, 1);
    }
    if (has_code) {
        p = put_exact(p, v4 ? MFF_ICMPV4_CODE : MFF_ICMPV6_CODE, &code, 1);
    }
    if (!v4 && has_type && !(has_code && code) &&
        (type == ND_NEIGHBOR_SOLICIT || type == ND_NEIGHBOR_ADVERT)) {
        p = put_field(p, m, FM_ND_TARGET, MFF_ND_TARGET, 16);
        p = type == ND_NEIGHBOR_SOLICIT ? put_field(p, m, FM_ARP_SHA, MFF_ND_SLL, 6)
                                        : put_field(p, m, FM_ARP_THA, MFF_ND_TLL, 6);
    }
    return p;
}

static uint8_t *
put_network(uint8_t *p, const struct fmatch *m)
{
    bool v4 = m->dl_type == htons(ETH_TYPE_IP), has_proto = m->has >> FM_NW_PROTO & 1;
    uint8_t op[2] = {0, m->nw_proto};

    if (v4 || m->dl_type == htons(ETH_TYPE_IPV6)) {
        if (v4) {
            p = put_field(p, m, FM_NW_SRC, MFF_IPV4_SRC, 4);
            p = put_field(p, m, FM_NW_DST, MFF_IPV4_DST, 4);
        } else {
            p = put_field(p, m, FM_IPV6_SRC, MFF_IPV6_SRC, 16);
            p = put_field(p, m, FM_IPV6_DST, MFF_IPV6_DST, 16);
        }
        if (has_proto) {
            p = put_exact(p, MFF_IP_PROTO, &m->nw_proto, 1);
            p = put_transport(p, m, v4);
        }
    } else if (m->dl_type == htons(ETH_TYPE_ARP) || m->dl_type == htons(ETH_TYPE_RARP)) {
        if (has_proto) {
            p = put_exact(p, MFF_ARP_OP, op, sizeof op);
        }
        p = put_field(p, m, FM_NW_SRC, MFF_ARP_SPA, 4);
        p = put_field(p, m, FM_NW_DST, MFF_ARP_TPA, 4);
        p = put_field(p, m, FM_ARP_SHA, MFF_ARP_SHA, 6);
        p = put_field(p, m, FM_ARP_THA, MFF_ARP_THA, 6);
    }
    return p;
}

/* Registers go in pairs. */
static uint8_t *
put_pairs(uint8_t *p, const struct fmatch *m)
{
    for (unsigned left = m->regs; left;) {
        unsigned i = raw_ctz(left) / 2, both = left >> 2 * i & 3;
        uint32_t hi = both & 1 ? UINT32_MAX : 0, lo = both & 2 ? UINT32_MAX : 0;
        uint32_t value_hi = hi ? m->reg[2 * i] : 0, value_lo = lo ? m->reg[2 * i + 1] : 0;
        ovs_be64 value = htonll((uint64_t)value_hi << 32 | value_lo);
        ovs_be64 mask = htonll((uint64_t)hi << 32 | lo);

        p = put(p, MFF_XREG0 + i, &value, &mask, sizeof value);
        left &= ~(3u << 2 * i);
    }
    return p;
}

size_t
pflow_encode_fmatch(uint8_t bytes[PFLOW_MATCH_BYTES], const struct fmatch *m)
{
    uint8_t *p = bytes;

    init_once();
    if (has_any(m, 1u << FM_CONJ_ID | 1u << FM_IN_PORT)) {
        p = put_field(p, m, FM_CONJ_ID, MFF_CONJ_ID, 4);
        p = put_field(p, m, FM_IN_PORT, MFF_IN_PORT_OXM, 4);
    }
    p = put_field(p, m, FM_DL_SRC, MFF_ETH_SRC, 6);
    p = put_field(p, m, FM_DL_DST, MFF_ETH_DST, 6);
    p = put_field(p, m, FM_DL_TYPE, MFF_ETH_TYPE, 2);
    p = put_field(p, m, FM_VLAN_VID, MFF_VLAN_VID, 2);
    p = put_network(p, m);
    if (has_any(m, 1u << FM_TUN_ID | 1u << FM_TUN_SRC | 1u << FM_TUN_IPV6_SRC)) {
        p = put_field(p, m, FM_TUN_ID, MFF_TUN_ID, 8);
        p = put_field(p, m, FM_TUN_SRC, MFF_TUN_SRC, 4);
        p = put_field(p, m, FM_TUN_IPV6_SRC, MFF_TUN_IPV6_SRC, 16);
    }
    p = put_pairs(p, m);
    if (has_any(m, 1u << FM_CT_STATE | 1u << FM_CT_MARK | 1u << FM_CT_LABEL)) {
        p = put_field(p, m, FM_CT_STATE, MFF_CT_STATE, 4);
        p = put_field(p, m, FM_CT_MARK, MFF_CT_MARK, 4);
        p = put_field(p, m, FM_CT_LABEL, MFF_CT_LABEL, 16);
    }
    p = put_field(p, m, FM_METADATA, MFF_METADATA, 8);
    return p - bytes;
}

/* --- actions -------------------------------------------------------------------- */

/* Each quick action takes at most 16 bytes, and so do the headers of both instructions. */
#define MAX_QUICK 14

enum { ACTION_OUTPUT = 0, ACTION_SET_FIELD = 25 }; /* OpenFlow 1.5, 7.2.6 */

static uint8_t *
put_header(uint8_t *p, uint16_t type, uint16_t len)
{
    ovs_be16 header[2] = {htons(type), htons(len)};

    memcpy(p, header, sizeof header);
    return p + sizeof header;
}

/* Of what is written, zeros are not. */
static bool
put_quick_action(uint8_t **p, const struct ofpact *a)
{
    const struct ofpact_set_field *sf;
    const struct header *h;
    ovs_be32 port;

    switch ((int)a->type) {
    case OFPACT_OUTPUT:
        port = ofputil_port_to_ofp11(ofpact_get_OUTPUT(a)->port);
        memcpy(put_header(*p, ACTION_OUTPUT, 16), &port, sizeof port);
        *p += 16;
        return !ofpact_get_OUTPUT(a)->max_len;
    case OFPACT_SET_FIELD:
        sf = ofpact_get_SET_FIELD(a);
        h = &headers[sf->field->id][0];
        if (!h->len || sf->field->n_bytes > 8 || h->len + sf->field->n_bytes > 12 ||
            !is_all_ones(ofpact_set_field_mask(sf), sf->field->n_bytes)) {
            return false;
        }
        memcpy(put_header(*p, ACTION_SET_FIELD, 16), h->bytes, h->len);
        memcpy(*p + 4 + h->len, sf->value, sf->field->n_bytes);
        *p += 16;
        return true;
    default:
        return false;
    }
}

/* Registers and metadata that are set, outputs, and the next table: most of what flows do. */
static bool
quick_instructions(struct ofpbuf *b, const struct ofpact *actions, size_t len)
{
    uint8_t bytes[16 * (MAX_QUICK + 1)] = {0},
                                    *p = bytes + sizeof(struct ofp11_instruction_actions);
    const struct ofpact *a, *next = NULL;
    unsigned n = 0;

    OFPACT_FOR_EACH(a, actions, len)
    {
        if (!next && a->type == OFPACT_GOTO_TABLE) {
            next = a;
        } else if (next || n++ == MAX_QUICK || !put_quick_action(&p, a)) {
            return false;
        }
    }
    if (n) {
        put_header(bytes, OFPIT11_APPLY_ACTIONS, p - bytes);
    } else {
        p = bytes;
    }
    if (next) {
        put_header(p, OFPIT11_GOTO_TABLE, 8)[0] = ofpact_get_GOTO_TABLE(next)->table_id;
        p += 8;
    }
    ofpbuf_put(b, bytes, p - bytes);
    return true;
}

/* Most flows of vifs go on to the next table, and that is all. */
static bool
only_goto(struct ofpbuf *b, const struct ofpact *a, size_t len)
{
    uint8_t bytes[8] = {0};

    if (a->type != OFPACT_GOTO_TABLE || len != OFPACT_ALIGN(sizeof(struct ofpact_goto_table))) {
        return false;
    }
    put_header(bytes, OFPIT11_GOTO_TABLE, sizeof bytes)[0] = ofpact_get_GOTO_TABLE(a)->table_id;
    ofpbuf_put(b, bytes, sizeof bytes);
    return true;
}

/* What other short lists of actions became; many flows have one of a few. */
#define N_SEEN 256

static struct seen {
    uint8_t len, n_bytes; /* 0: nothing seen */
    uint8_t actions[64];
    uint8_t bytes[128];
} seen[N_SEEN];

void
pflow_put_instructions(struct ofpbuf *b, const struct ofpact *actions, size_t len)
{
    struct seen *s = NULL;
    size_t start = b->size;

    init_once();
    if (!len || only_goto(b, actions, len) || quick_instructions(b, actions, len)) {
        return;
    }
    if (len <= sizeof s->actions) {
        s = &seen[hash_bytes(actions, len, 0) % N_SEEN];
        if (s->len == len && !memcmp(s->actions, actions, len)) {
            ofpbuf_put(b, s->bytes, s->n_bytes);
            return;
        }
    }
    ofpacts_put_openflow_instructions(actions, len, b, CANONICAL);
    if (s && b->size - start <= sizeof s->bytes) {
        s->len = len;
        s->n_bytes = b->size - start;
        memcpy(s->actions, actions, len);
        memcpy(s->bytes, (uint8_t *)b->data + start, s->n_bytes);
    }
}
