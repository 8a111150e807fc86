/* fmatch: a match as the compiler puts it together.
 *
 * A "struct match" of libopenvswitch has a kilobyte, most of it zeros that are written
 * and looked through again for each flow.  This one has the fields that our flows match
 * on, and says which of them are set.  Setters are named after those of struct match
 * and mean the same; what a field means (whose address, which port) depends on dl_type
 * and nw_proto, as there.  pflow_bytes.h encodes it; tests/ovs/test_ctl_bytes.c
 * compares the two.
 *
 * Threads: none of its own. */
#ifndef CTL_FMATCH_H
#define CTL_FMATCH_H

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#include "openvswitch/flow.h"
#include "openvswitch/types.h"
#include "packets.h"

/* Those with an address of IPv4 or IPv6 are two. */
enum fmatch_field {
    FM_CONJ_ID,
    FM_IN_PORT,
    FM_DL_SRC,
    FM_DL_DST,
    FM_DL_TYPE,
    FM_VLAN_VID,
    FM_NW_SRC,
    FM_NW_DST,
    FM_IPV6_SRC,
    FM_IPV6_DST,
    FM_NW_PROTO,
    FM_TP_SRC, /* ICMP's type, too */
    FM_TP_DST, /* and its code */
    FM_ND_TARGET,
    FM_ARP_SHA,
    FM_ARP_THA,
    FM_TUN_ID,
    FM_TUN_SRC,
    FM_TUN_IPV6_SRC,
    FM_CT_STATE,
    FM_CT_MARK,
    FM_CT_LABEL,
    FM_METADATA,
    FM_N
};

struct fmatch {
    uint32_t has, masked; /* bits by field; of those without a mask each bit counts */
    uint16_t regs;        /* bits by register */
    ovs_be16 dl_type;     /* 0: not set, as in those that follow */
    uint8_t nw_proto;
    uint32_t reg[FLOW_N_REGS];
    uint8_t value[FM_N][16], mask[FM_N][16]; /* in network byte order */
};

static inline void
fm_init(struct fmatch *m)
{
    m->has = m->masked = 0;
    m->regs = 0;
    m->dl_type = 0;
    m->nw_proto = 0;
}

static inline void
fm_set(struct fmatch *m, enum fmatch_field f, const void *value, size_t n)
{
    m->has |= 1u << f;
    m->masked &= ~(1u << f);
    memcpy(m->value[f], value, n);
}

/* A mask of zeros sets nothing, one of ones is none. */
static inline void
fm_set_masked(struct fmatch *m, enum fmatch_field f, const void *value_, const void *mask_,
              size_t n)
{
    const uint8_t *value = value_, *mask = mask_;
    uint8_t any = 0, all = 0xff;

    for (size_t i = 0; i < n; i++) {
        any |= mask[i];
        all &= mask[i];
        m->value[f][i] = value[i] & mask[i];
        m->mask[f][i] = mask[i];
    }
    m->has = (m->has & ~(1u << f)) | (uint32_t) !!any << f;
    m->masked = (m->masked & ~(1u << f)) | (uint32_t)(all != 0xff) << f;
}

/* --- by name ---------------------------------------------------------------------- */

static inline void
fm_conj_id(struct fmatch *m, uint32_t id)
{
    ovs_be32 v = htonl(id);

    fm_set(m, FM_CONJ_ID, &v, sizeof v);
}

void fm_in_port(struct fmatch *, ofp_port_t);

static inline void
fm_dl_src(struct fmatch *m, struct eth_addr mac)
{
    fm_set(m, FM_DL_SRC, &mac, sizeof mac);
}

static inline void
fm_dl_dst(struct fmatch *m, struct eth_addr mac)
{
    fm_set(m, FM_DL_DST, &mac, sizeof mac);
}

static inline void
fm_dl_dst_masked(struct fmatch *m, struct eth_addr mac, struct eth_addr mask)
{
    fm_set_masked(m, FM_DL_DST, &mac, &mask, sizeof mac);
}

static inline void
fm_dl_type(struct fmatch *m, ovs_be16 type)
{
    m->dl_type = type;
    fm_set(m, FM_DL_TYPE, &type, sizeof type);
}

static inline void
fm_vlan_vid(struct fmatch *m, ovs_be16 vid)
{
    fm_set(m, FM_VLAN_VID, &vid, sizeof vid);
}

/* No tag. */
static inline void
fm_no_vlan(struct fmatch *m)
{
    ovs_be16 vid = 0, mask = htons(0x1000);

    fm_set_masked(m, FM_VLAN_VID, &vid, &mask, sizeof vid);
}

static inline void
fm_nw_src_masked(struct fmatch *m, ovs_be32 ip, ovs_be32 mask)
{
    fm_set_masked(m, FM_NW_SRC, &ip, &mask, sizeof ip);
}

static inline void
fm_nw_dst_masked(struct fmatch *m, ovs_be32 ip, ovs_be32 mask)
{
    fm_set_masked(m, FM_NW_DST, &ip, &mask, sizeof ip);
}

static inline void
fm_nw_src(struct fmatch *m, ovs_be32 ip)
{
    fm_set(m, FM_NW_SRC, &ip, sizeof ip);
}

static inline void
fm_nw_dst(struct fmatch *m, ovs_be32 ip)
{
    fm_set(m, FM_NW_DST, &ip, sizeof ip);
}

static inline void
fm_ipv6_src_masked(struct fmatch *m, const struct in6_addr *ip, const struct in6_addr *mask)
{
    fm_set_masked(m, FM_IPV6_SRC, ip, mask, sizeof *ip);
}

static inline void
fm_ipv6_dst_masked(struct fmatch *m, const struct in6_addr *ip, const struct in6_addr *mask)
{
    fm_set_masked(m, FM_IPV6_DST, ip, mask, sizeof *ip);
}

static inline void
fm_ipv6_src(struct fmatch *m, const struct in6_addr *ip)
{
    fm_set(m, FM_IPV6_SRC, ip, sizeof *ip);
}

/* ARP's operation, too. */
static inline void
fm_nw_proto(struct fmatch *m, uint8_t proto)
{
    m->nw_proto = proto;
    m->has |= 1u << FM_NW_PROTO;
}

static inline void
fm_tp_src(struct fmatch *m, ovs_be16 port)
{
    fm_set(m, FM_TP_SRC, &port, sizeof port);
}

static inline void
fm_tp_dst(struct fmatch *m, ovs_be16 port)
{
    fm_set(m, FM_TP_DST, &port, sizeof port);
}

static inline void
fm_tp_dst_masked(struct fmatch *m, ovs_be16 port, ovs_be16 mask)
{
    fm_set_masked(m, FM_TP_DST, &port, &mask, sizeof port);
}

static inline void
fm_icmp_type(struct fmatch *m, uint8_t type)
{
    fm_tp_src(m, htons(type));
}

static inline void
fm_icmp_code(struct fmatch *m, uint8_t code)
{
    fm_tp_dst(m, htons(code));
}

static inline void
fm_nd_target_masked(struct fmatch *m, const struct in6_addr *ip, const struct in6_addr *mask)
{
    fm_set_masked(m, FM_ND_TARGET, ip, mask, sizeof *ip);
}

/* A solicitation's nd_sll, too. */
static inline void
fm_arp_sha(struct fmatch *m, struct eth_addr mac)
{
    fm_set(m, FM_ARP_SHA, &mac, sizeof mac);
}

/* An advertisement's nd_tll, too. */
static inline void
fm_arp_tha(struct fmatch *m, struct eth_addr mac)
{
    fm_set(m, FM_ARP_THA, &mac, sizeof mac);
}

static inline void
fm_tun_id(struct fmatch *m, ovs_be64 id)
{
    fm_set(m, FM_TUN_ID, &id, sizeof id);
}

static inline void
fm_tun_src(struct fmatch *m, ovs_be32 ip)
{
    fm_set(m, FM_TUN_SRC, &ip, sizeof ip);
}

static inline void
fm_tun_ipv6_src(struct fmatch *m, const struct in6_addr *ip)
{
    fm_set(m, FM_TUN_IPV6_SRC, ip, sizeof *ip);
}

static inline void
fm_reg(struct fmatch *m, unsigned reg, uint32_t value)
{
    m->regs |= 1u << reg;
    m->reg[reg] = value;
}

static inline void
fm_ct_state_masked(struct fmatch *m, uint32_t state, uint32_t mask)
{
    ovs_be32 v = htonl(state & UINT8_MAX), w = htonl(mask & UINT8_MAX);

    fm_set_masked(m, FM_CT_STATE, &v, &w, sizeof v);
}

static inline void
fm_ct_mark(struct fmatch *m, uint32_t mark)
{
    ovs_be32 v = htonl(mark);

    fm_set(m, FM_CT_MARK, &v, sizeof v);
}

static inline void
fm_ct_label_masked(struct fmatch *m, ovs_u128 label, ovs_u128 mask)
{
    ovs_be128 v = hton128(label), w = hton128(mask);

    fm_set_masked(m, FM_CT_LABEL, &v, &w, sizeof v);
}

static inline void
fm_metadata(struct fmatch *m, ovs_be64 metadata)
{
    fm_set(m, FM_METADATA, &metadata, sizeof metadata);
}

#endif
