/* key: see key.h. */
#include "key.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#define TYPE_IPV4 0x0800
#define TYPE_IPV6 0x86dd
#define TYPE_8021Q 0x8100
#define TYPE_8021AD 0x88a8
#define TYPE_MPLS 0x8847
#define TYPE_MPLS_MCAST 0x8848
#define TYPE_NSH 0x894f
#define TYPE_MIN 0x0600 /* below: a length, 802.2 follows */

#define ETH_LEN 14u
#define TAG_LEN 4u
#define IPV4_LEN 20u
#define IPV6_LEN 40u
#define TCP_LEN 20u
#define UDP_LEN 8u
#define SCTP_LEN 12u
#define ICMP_LEN 8u

/* Not in all versions of <netinet/in.h>. */
#define PROTO_MOBILITY 135

__m256i key_secret[4];

static bool
read_random(void *to, size_t bytes)
{
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    bool done = fd >= 0 && read(fd, to, bytes) == (ssize_t)bytes;

    if (fd >= 0) {
        close(fd);
    }
    return done;
}

/* Who could guess it could make up packets of many flows that count as one's. */
__attribute__((constructor)) static void
choose_secret(void)
{
    if (getrandom(key_secret, sizeof key_secret, 0) != sizeof key_secret &&
        !read_random(key_secret, sizeof key_secret)) {
        fputs("no random numbers: neither getrandom() nor /dev/urandom has any\n", stderr);
        abort();
    }
}

void
key_masks_init(struct key_masks *m, const struct key_mask *from)
{
    struct key *k = &m->narrow;

    memset(m, 0, sizeof *m);
    memcpy(k->eth_dst, from->eth_dst, 6);
    memcpy(k->eth_src, from->eth_src, 6);
    k->eth_type = UINT16_MAX;
    k->vlan_tci = from->vlan_tci;
    k->tp_src = from->tp_src;
    k->tp_dst = from->tp_dst;
    k->in_port = UINT16_MAX;
    k->nw_proto = from->nw_proto;
    k->nw_tos = from->nw_tos;
    m->wide.key = *k;

    k->ip4_src = from->ip4_src;
    k->ip4_dst = from->ip4_dst;
    m->wide.key.ip6_label = from->ip6_label;
    memcpy(m->wide.ip6.src, from->ip6_src, 16);
    memcpy(m->wide.ip6.dst, from->ip6_dst, 16);
}

/* The L4 header at 'd', of which the packet has 'len' bytes.  False: odd. */
static bool
parse_l4(const uint8_t *d, uint32_t len, bool ip6, struct key *k, uint16_t *tcp_flags)
{
    uint32_t least = 0;
    bool ports = true;

    switch (k->nw_proto) {
    case IPPROTO_TCP:
        least = TCP_LEN;
        break;
    case IPPROTO_UDP:
        least = UDP_LEN;
        break;
    case IPPROTO_SCTP:
        least = SCTP_LEN;
        break;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        /* OVS reads each within either version of IP. */
        if (ip6 != (k->nw_proto == IPPROTO_ICMPV6)) {
            return false;
        }
        least = ICMP_LEN;
        ports = false;
        break;
    case IPPROTO_IGMP:
        return false; /* OVS reads the group */
    default:
        return true; /* whatever follows */
    }
    if (len < least) {
        return false;
    }
    if (ports) {
        memcpy(&k->tp_src, d, 2);
        memcpy(&k->tp_dst, d + 2, 2);
    } else {
        k->tp_src = htons(d[0]);
        k->tp_dst = htons(d[1]);
    }
    if (k->nw_proto == IPPROTO_TCP) {
        uint32_t ctl = key_load_be16_(d + 12), header = (ctl >> 12) * 4;
        if (header < TCP_LEN || header > len) {
            return false;
        }
        *tcp_flags = ctl & 0xfff;
    }
    return true;
}

static bool
parse_ipv4(const uint8_t *d, uint32_t len, struct key *k, uint16_t *tcp_flags)
{
    uint32_t total;

    if (len < IPV4_LEN || d[0] != 0x45) {
        return false;
    }
    total = key_load_be16_(d + 2);
    if (total < IPV4_LEN || total > len || (key_load_be16_(d + 6) & 0x3fff)) {
        return false;
    }
    k->nw_tos = d[1];
    k->nw_proto = d[9];
    memcpy(&k->ip4_src, d + 12, 4);
    memcpy(&k->ip4_dst, d + 16, 4);
    return parse_l4(d + IPV4_LEN, total - IPV4_LEN, false, k, tcp_flags);
}

static bool
is_extension(uint8_t next_header)
{
    switch (next_header) {
    case IPPROTO_HOPOPTS:
    case IPPROTO_ROUTING:
    case IPPROTO_FRAGMENT:
    case IPPROTO_DSTOPTS:
    case IPPROTO_AH:
    case IPPROTO_ESP:
    case PROTO_MOBILITY:
        return true;
    default:
        return false;
    }
}

static bool
parse_ipv6(const uint8_t *d, uint32_t len, struct key_wide *k, uint16_t *tcp_flags)
{
    uint32_t flow, payload;

    if (len < IPV6_LEN || d[0] >> 4 != 6) {
        return false;
    }
    flow = __builtin_bswap32(key_load32_(d));
    payload = key_load_be16_(d + 4);
    if (payload > len - IPV6_LEN || is_extension(d[6])) {
        return false;
    }
    k->key.nw_tos = flow >> 20;
    k->key.ip6_label = htonl(flow & 0xfffff);
    k->key.nw_proto = d[6];
    memcpy(k->ip6.src, d + 8, 16);
    memcpy(k->ip6.dst, d + 24, 16);
    return parse_l4(d + IPV6_LEN, payload, true, &k->key, tcp_flags);
}

/* Type and tag; returns where the next header is, 0 if odd. */
static uint32_t
parse_l2(const uint8_t *d, uint32_t len, struct key *k)
{
    uint32_t type = key_load_be16_(d + 12), ofs = ETH_LEN;

    if (type == TYPE_8021Q) {
        if (len < ETH_LEN + TAG_LEN) {
            return 0;
        }
        memcpy(&k->vlan_tci, d + 14, 2);
        k->vlan_tci |= htons(0x1000); /* as OVS marks that there is a tag */
        type = key_load_be16_(d + 16);
        ofs += TAG_LEN;
    }
    switch (type) {
    case TYPE_8021Q:
    case TYPE_8021AD:
    case TYPE_MPLS:
    case TYPE_MPLS_MCAST:
    case TYPE_NSH:
        return 0;
    }
    memcpy(k->eth_dst, d, 6);
    memcpy(k->eth_src, d + 6, 6);
    k->eth_type = htons(type);
    return type < TYPE_MIN ? 0 : ofs;
}

enum shape
key_parse(const uint8_t *d, uint32_t len, uint16_t in_port, const struct key_masks *masks,
          struct key_wide *k, uint16_t *tcp_flags)
{
    uint32_t ofs;

    memset(k, 0, sizeof *k);
    *tcp_flags = 0;
    k->key.in_port = in_port;
    ofs = len < ETH_LEN ? 0 : parse_l2(d, len, &k->key);
    if (!ofs) {
        return SHAPE_ODD;
    }
    if (k->key.eth_type == htons(TYPE_IPV6)) {
        if (!parse_ipv6(d + ofs, len - ofs, k, tcp_flags)) {
            return SHAPE_ODD;
        }
        k->key.v = _mm256_and_si256(k->key.v, masks->wide.key.v);
        k->ip6.v = _mm256_and_si256(k->ip6.v, masks->wide.ip6.v);
        return SHAPE_IPV6;
    }
    if (k->key.eth_type == htons(TYPE_IPV4) &&
        !parse_ipv4(d + ofs, len - ofs, &k->key, tcp_flags)) {
        return SHAPE_ODD;
    }
    k->key.v = _mm256_and_si256(k->key.v, masks->narrow.v);
    return k->key.eth_type == htons(TYPE_IPV4) ? SHAPE_IPV4 : SHAPE_L2;
}
