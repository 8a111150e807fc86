#include <config.h>

#include "pflow_bytes.h"

#include <string.h>

#include "byte-order.h"
#include "flow.h"
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
/* More than all fields below take with their masks. */
#define MAX_BYTES 512

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
init_headers(void)
{
    static const enum mf_field_id fields[] = {
        MFF_CONJ_ID,     MFF_IN_PORT_OXM, MFF_ETH_SRC,     MFF_ETH_DST,  MFF_ETH_TYPE,
        MFF_IPV4_SRC,    MFF_IPV4_DST,    MFF_IPV6_SRC,    MFF_IPV6_DST, MFF_IP_PROTO,
        MFF_TCP_SRC,     MFF_TCP_DST,     MFF_UDP_SRC,     MFF_UDP_DST,  MFF_ICMPV4_TYPE,
        MFF_ICMPV4_CODE, MFF_ICMPV6_TYPE, MFF_ICMPV6_CODE, MFF_ARP_OP,   MFF_ARP_SPA,
        MFF_ARP_TPA,     MFF_ARP_SHA,     MFF_ARP_THA,     MFF_ND_SLL,   MFF_ND_TLL,
        MFF_ND_TARGET,   MFF_TUN_ID,      MFF_CT_STATE,    MFF_CT_MARK,  MFF_METADATA,
    };

    for (size_t i = 0; i < ARRAY_SIZE(fields) + FLOW_N_XREGS; i++) {
        enum mf_field_id id =
            i < ARRAY_SIZE(fields) ? fields[i] : MFF_XREG0 + (i - ARRAY_SIZE(fields));

        for (unsigned masked = 0; masked < 2; masked++) {
            struct header *h = &headers[id][masked];
            struct ofpbuf b;

            ofpbuf_use_stack(&b, h->bytes, sizeof h->bytes);
            nx_put_header(&b, id, CANONICAL, masked);
            h->len = b.size;
        }
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
    p = start = ofpbuf_put_uninit(b, MAX_BYTES);
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
    PUT(MFF_METADATA, metadata);
    b->size -= MAX_BYTES - (p - start);
    return true;
}

void
pflow_put_match(struct ofpbuf *b, const struct match *match)
{
    static struct ovsthread_once once = OVSTHREAD_ONCE_INITIALIZER;

    if (ovsthread_once_start(&once)) {
        init_headers();
        ovsthread_once_done(&once);
    }
    if (!quick_match(b, match)) {
        oxm_put_raw(b, match, CANONICAL);
    }
}

/* --- actions -------------------------------------------------------------------- */

/* What short lists of actions became; most flows have one of a few. */
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

    if (!len) {
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
