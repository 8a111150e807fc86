/* offload: see offload.h.
 *
 * Theory of Operation
 *
 * Sums.  The Internet checksum is a sum modulo 65535 of 16-bit words, and
 * 2^16 is 1 modulo 65535: words may be added in any width and folded at the
 * end, and in either byte order as long as the result is stored in the same
 * one.  So everything here adds words as they lie in memory, and a number
 * from this side of the wire (a length, a protocol) goes through htons()
 * before it is added.
 *
 * Segments.  A segment is the headers of the whole frame, copied and mended,
 * and a slice of its payload:
 *
 *     frame   [ outer | ] [ Ethernet IP TCP ] [ payload ............... ]
 *             0         inner_ofs            data_ofs   next_ofs    end_ofs
 *     out     [ outer | ] [ Ethernet IP TCP ] [ slice ]
 *
 * A summed tunnel (UDP with a checksum, GRE with one) covers the inner
 * payload a second time, but that work is not done twice: once the inner TCP
 * checksum is right, everything from the inner TCP header on sums to the
 * complement of the inner pseudo-header.  The outer sum is thus the sum of
 * the headers before the inner TCP header plus that complement.  It is also
 * what the outer checksum must be while the inner one is still blank, for
 * whoever fills in the inner one later. */
#include "offload.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "bytes.h"

#define ETH_HDR_LEN 14
#define ETH_TYPE_IPV4 0x0800
#define ETH_TYPE_IPV6 0x86dd
#define ETH_TYPE_8021Q 0x8100
#define ETH_TYPE_8021AD 0x88a8
#define VLAN_HDR_LEN 4
#define MAX_VLANS 4

#define IPV4_HDR_LEN 20
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFS 0x1fff
#define IPV6_HDR_LEN 40
#define MAX_IPV6_EXTS 8

#define TCP_HDR_LEN 20
#define TCP_CSUM_OFS 16
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_URG 0x20
#define TCP_CWR 0x80

#define UDP_HDR_LEN 8
#define UDP_CSUM_OFS 6
#define UDP_TUNNEL_HDR_LEN 8 /* VXLAN, and Geneve without options */

#define GRE_HDR_LEN 4
#define GRE_CSUM 0x8000
#define GRE_ROUTING 0x4000
#define GRE_KEY 0x2000
#define GRE_SEQ 0x1000
#define GRE_VERSION 0x0007

/* --- bytes ---------------------------------------------------------------- */

/* Stores a checksum as csum_fold() returns it. */
static void
put_csum(uint8_t *p, uint16_t csum)
{
    memcpy(p, &csum, sizeof csum);
}

/* --- parsing -------------------------------------------------------------- */

/* Sets '*ofs' to what follows the Ethernet header and its tags. */
static bool
parse_ethernet(const uint8_t *frame, size_t len, struct frame_layout *l, size_t *ofs)
{
    if (len < ETH_HDR_LEN) {
        return false;
    }
    l->eth_type = get_be16(frame + ETH_HDR_LEN - 2);
    *ofs = ETH_HDR_LEN;
    for (int i = 0; i < MAX_VLANS; i++) {
        if (l->eth_type != ETH_TYPE_8021Q && l->eth_type != ETH_TYPE_8021AD) {
            break;
        }
        if (len - *ofs < VLAN_HDR_LEN) {
            return false;
        }
        *ofs += VLAN_HDR_LEN;
        l->eth_type = get_be16(frame + *ofs - 2);
    }
    return true;
}

/* Sets '*ofs', at the IPv4 header, to what follows it. */
static bool
parse_ipv4(const uint8_t *frame, size_t len, struct frame_layout *l, size_t *ofs)
{
    size_t room = len - *ofs, header, total;
    const uint8_t *ip = frame + *ofs;
    uint16_t frag;

    if (room < IPV4_HDR_LEN || ip[0] >> 4 != 4) {
        return false;
    }
    header = (ip[0] & 0x0f) * 4u;
    total = get_be16(ip + 2);
    if (header < IPV4_HDR_LEN || header > total || total > room || *ofs + total > UINT16_MAX) {
        return false;
    }
    frag = get_be16(ip + 6);
    l->ip_version = 4;
    l->l3 = *ofs;
    l->l3_end = *ofs + total;
    l->l4_proto = ip[9];
    l->fragment = frag & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFS);
    *ofs = frag & IPV4_FRAGMENT_OFS ? 0 : *ofs + header;
    return true;
}

static bool
is_ipv6_ext(uint8_t proto)
{
    /* Not AH: behind it, neither checksum nor segment boundary is ours to
     * change. */
    return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_FRAGMENT ||
           proto == IPPROTO_DSTOPTS;
}

static size_t
ipv6_ext_len(uint8_t proto, const uint8_t *ext)
{
    return proto == IPPROTO_FRAGMENT ? 8 : (ext[1] + 1u) * 8;
}

/* Sets '*ofs', at the IPv6 header, to what follows it and its extensions. */
static bool
parse_ipv6(const uint8_t *frame, size_t len, struct frame_layout *l, size_t *ofs)
{
    const uint8_t *ip = frame + *ofs;
    size_t end;

    if (len - *ofs < IPV6_HDR_LEN || ip[0] >> 4 != 6) {
        return false;
    }
    end = *ofs + IPV6_HDR_LEN + get_be16(ip + 4);
    if (end > len || end > UINT16_MAX) {
        return false;
    }
    l->ip_version = 6;
    l->l3 = *ofs;
    l->l3_end = end;
    l->l4_proto = ip[6];
    *ofs += IPV6_HDR_LEN;

    for (int i = 0; is_ipv6_ext(l->l4_proto); i++) {
        const uint8_t *ext = frame + *ofs;
        uint8_t proto = l->l4_proto;

        if (i == MAX_IPV6_EXTS || end - *ofs < 8 || end - *ofs < ipv6_ext_len(proto, ext)) {
            return false;
        }
        l->l4_proto = ext[0];
        *ofs += ipv6_ext_len(proto, ext);
        if (proto == IPPROTO_FRAGMENT) {
            uint16_t frag = get_be16(ext + 2);

            /* Offset 0 and none to follow is a whole packet (RFC 6946). */
            l->fragment |= (frag & 0xfff9) != 0;
            if (frag & 0xfff8) {
                *ofs = 0;
                break;
            }
        }
    }
    return true;
}

static bool
parse_l4(const uint8_t *frame, struct frame_layout *l, size_t ofs)
{
    const uint8_t *l4 = frame + ofs;
    size_t room = l->l3_end - ofs, header;

    if (l->l4_proto == IPPROTO_TCP) {
        if (room < TCP_HDR_LEN) {
            return false;
        }
        header = (l4[12] >> 4) * 4u;
        if (header < TCP_HDR_LEN || header > room) {
            return false;
        }
    } else if (l->l4_proto == IPPROTO_UDP) {
        header = UDP_HDR_LEN;
        if (room < header) {
            return false;
        }
        /* A first fragment carries the length of the whole datagram. */
        if (!l->fragment && (get_be16(l4 + 4) < header || get_be16(l4 + 4) > room)) {
            return false;
        }
    } else {
        return true;
    }
    l->l4 = ofs;
    l->payload = ofs + header;
    return true;
}

/* frame_parse(), and in '*upper' what follows the IP headers whatever its
 * protocol: 0 if the frame is not IP or a later fragment. */
static bool
parse(const uint8_t *frame, size_t len, struct frame_layout *l, size_t *upper)
{
    size_t ofs;

    memset(l, 0, sizeof *l);
    *upper = 0;
    if (!parse_ethernet(frame, len, l, &ofs)) {
        return false;
    }
    if (l->eth_type == ETH_TYPE_IPV4) {
        if (!parse_ipv4(frame, len, l, &ofs)) {
            return false;
        }
    } else if (l->eth_type == ETH_TYPE_IPV6) {
        if (!parse_ipv6(frame, len, l, &ofs)) {
            return false;
        }
    } else {
        return true;
    }
    *upper = ofs;
    return !ofs || parse_l4(frame, l, ofs);
}

bool
frame_parse(const uint8_t *frame, size_t len, struct frame_layout *l)
{
    size_t upper;

    return parse(frame, len, l, &upper);
}

/* --- checksums ------------------------------------------------------------ */

/* Sums 'n' bytes, a multiple of 128, in 32-bit words: each 64-bit lane holds
 * 2^32 of them before it could overflow. */
static uint64_t
csum_blocks(const uint8_t *p, size_t n)
{
    typedef uint64_t lanes __attribute__((vector_size(32)));
    const lanes low = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
    lanes a = {0}, b = {0}, c = {0}, d = {0};

    for (const uint8_t *end = p + n; p != end; p += 128) {
        lanes w, x, y, z;

        memcpy(&w, p, 32);
        memcpy(&x, p + 32, 32);
        memcpy(&y, p + 64, 32);
        memcpy(&z, p + 96, 32);
        a += (w & low) + (w >> 32);
        b += (x & low) + (x >> 32);
        c += (y & low) + (y >> 32);
        d += (z & low) + (z >> 32);
    }
    a += b + c + d;
    a = (a & low) + (a >> 32);
    return a[0] + a[1] + a[2] + a[3];
}

uint32_t
csum_add(uint32_t sum, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t acc = sum;
    uint32_t w32;
    uint16_t w16;

    if (len >= 128) {
        size_t n = len & ~(size_t)127;

        acc += csum_blocks(p, n);
        p += n;
        len -= n;
    }
    for (; len >= 4; p += 4, len -= 4) {
        memcpy(&w32, p, 4);
        acc += w32;
    }
    if (len & 2) {
        memcpy(&w16, p, 2);
        acc += w16;
        p += 2;
    }
    if (len & 1) {
        w16 = 0;
        memcpy(&w16, p, 1); /* the missing byte counts as 0, after this one in memory */
        acc += w16;
    }
    acc = (acc & UINT32_MAX) + (acc >> 32);
    acc = (acc & UINT32_MAX) + (acc >> 32);
    return (acc & 0xffff) + (acc >> 16);
}

uint16_t
csum_fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

/* The address that the pseudo-header of an IPv6 packet names: the last one of
 * a routing header that is not used up (RFC 8200, 8.1), else the header's own.
 * NULL if the routing header is of a kind we cannot read. */
static const uint8_t *
ipv6_final_dst(const uint8_t *frame, const struct frame_layout *l)
{
    const uint8_t *dst = frame + l->l3 + 24;
    uint8_t proto = frame[l->l3 + 6];

    for (size_t ofs = l->l3 + IPV6_HDR_LEN; ofs < l->l4;) {
        const uint8_t *ext = frame + ofs;
        size_t n = ipv6_ext_len(proto, ext);

        if (proto == IPPROTO_ROUTING && ext[3] > 0) {
            uint8_t type = ext[2];

            if (n < 24) {
                return NULL;
            }
            if (type == 0) { /* RFC 2460: in the order of the route */
                dst = ext + 8 + ((n - 8) / 16 - 1) * 16;
            } else if (type == 2 || type == 4) { /* RFC 6275, RFC 8754: last first */
                dst = ext + 8;
            } else {
                return NULL;
            }
        }
        proto = ext[0];
        ofs += n;
    }
    return dst;
}

/* Sums the pseudo-header into '*sum'; '*l4_len' becomes the number of bytes
 * from the TCP/UDP header on that the checksum covers.  False if the frame has
 * no checksum of this kind. */
static bool
pseudo_sum(const uint8_t *frame, const struct frame_layout *l, uint32_t *sum, size_t *l4_len)
{
    const uint8_t *src, *dst;
    size_t len = l->l3_end - l->l4, addr_len;

    if (!l->l4 || l->fragment) {
        return false;
    }
    if (l->l4_proto == IPPROTO_UDP) {
        size_t udp_len = get_be16(frame + l->l4 + 4);

        if (udp_len < UDP_HDR_LEN || udp_len > len) {
            return false;
        }
        len = udp_len;
    }
    if (l->ip_version == 4) {
        src = frame + l->l3 + 12;
        dst = src + 4;
        addr_len = 4;
    } else {
        src = frame + l->l3 + 8;
        dst = ipv6_final_dst(frame, l);
        addr_len = 16;
    }
    if (!dst) {
        return false;
    }
    *sum = csum_add(htons(l->l4_proto) + htons(len), src, addr_len);
    *sum = csum_add(*sum, dst, addr_len);
    *l4_len = len;
    return true;
}

static size_t
csum_ofs(const struct frame_layout *l)
{
    return l->l4 + (l->l4_proto == IPPROTO_TCP ? TCP_CSUM_OFS : UDP_CSUM_OFS);
}

bool
csum_set_pseudo(uint8_t *frame, const struct frame_layout *l)
{
    uint32_t sum;
    size_t len;

    if (!pseudo_sum(frame, l, &sum, &len)) {
        return false;
    }
    put_csum(frame + csum_ofs(l), ~csum_fold(sum));
    return true;
}

bool
csum_fill(uint8_t *frame, const struct frame_layout *l)
{
    uint8_t *field;
    uint32_t sum;
    uint16_t csum;
    size_t len;

    if (!pseudo_sum(frame, l, &sum, &len)) {
        return false;
    }
    field = frame + csum_ofs(l);
    put_csum(field, 0);
    csum = csum_fold(csum_add(sum, frame + l->l4, len));
    if (!csum && l->l4_proto == IPPROTO_UDP) {
        csum = 0xffff; /* 0 says that there is none */
    }
    put_csum(field, csum);
    return true;
}

bool
csum_verify(const uint8_t *frame, const struct frame_layout *l)
{
    uint32_t sum;
    size_t len;

    if (!pseudo_sum(frame, l, &sum, &len)) {
        return false;
    }
    if (l->l4_proto == IPPROTO_UDP && !get_be16(frame + csum_ofs(l))) {
        return l->ip_version == 4;
    }
    return csum_fold(csum_add(sum, frame + l->l4, len)) == 0;
}

/* --- segmentation --------------------------------------------------------- */

/* Length of a GRE header of 'room' bytes at most; 0 if it is none we know. */
static size_t
gre_header_len(const uint8_t *gre, size_t room)
{
    size_t len = GRE_HDR_LEN;
    uint16_t flags;

    if (room < len) {
        return 0;
    }
    flags = get_be16(gre);
    if (flags & (GRE_ROUTING | GRE_VERSION)) {
        return 0;
    }
    len += (flags & GRE_CSUM ? 4 : 0) + (flags & GRE_KEY ? 4 : 0) + (flags & GRE_SEQ ? 4 : 0);
    return len <= room ? len : 0;
}

/* Reads the encapsulation before 'it->inner_ofs'; '*end' becomes where the
 * inner frame ends. */
static bool
begin_tunnel(struct gso_iter *it, size_t len, size_t *end)
{
    struct frame_layout *outer = &it->outer;
    size_t upper, header, l4_len;
    uint32_t sum;

    if (!parse(it->frame, len, outer, &upper) || outer->fragment) {
        return false;
    }
    if (it->tunnel == GSO_TUNNEL_UDP) {
        if (outer->l4_proto != IPPROTO_UDP || !pseudo_sum(it->frame, outer, &sum, &l4_len)) {
            return false;
        }
        header = UDP_HDR_LEN + UDP_TUNNEL_HDR_LEN;
        *end = upper + l4_len;
    } else {
        if (outer->l4_proto != IPPROTO_GRE) {
            return false;
        }
        header = gre_header_len(it->frame + upper, outer->l3_end - upper);
        if (!header) {
            return false;
        }
        outer->l4 = upper;
        outer->payload = upper + header;
        *end = outer->l3_end;
    }
    /* Headers come in even sizes; the outer sums lean on that. */
    return it->inner_ofs >= upper + header && it->inner_ofs < *end &&
           (it->inner_ofs - upper) % 2 == 0;
}

bool
gso_begin(struct gso_iter *it, const uint8_t *frame, size_t len, uint16_t mss,
          enum gso_tunnel tunnel, uint16_t inner_ofs, bool keep_blank)
{
    struct gso_iter g = {
        .frame = frame,
        .inner_ofs = inner_ofs,
        .mss = mss,
        .tunnel = tunnel,
        .keep_blank = keep_blank,
    };
    const uint8_t *inner = frame + inner_ofs;
    size_t end = len, l4_len;
    uint32_t sum;

    if (!mss || (tunnel == GSO_TUNNEL_NONE) != !inner_ofs) {
        return false;
    }
    if (tunnel != GSO_TUNNEL_NONE && !begin_tunnel(&g, len, &end)) {
        return false;
    }
    if (!frame_parse(inner, end - inner_ofs, &g.inner) || g.inner.l4_proto != IPPROTO_TCP ||
        !pseudo_sum(inner, &g.inner, &sum, &l4_len)) {
        return false;
    }
    g.next_ofs = inner_ofs + g.inner.payload;
    g.end_ofs = inner_ofs + g.inner.l3_end;
    /* A connection is opened or reset by one segment, not by a row of them. */
    if (gso_count(&g) > 1 && inner[g.inner.l4 + 13] & (TCP_SYN | TCP_RST)) {
        return false;
    }
    *it = g;
    return true;
}

unsigned
gso_count(const struct gso_iter *it)
{
    unsigned len = it->inner.l3_end - it->inner.payload;

    return len ? (len + it->mss - 1) / it->mss : 1;
}

/* Sets length, IPv4 id and IPv4 checksum of the IP header at 'l->l3' for a
 * packet that ends at 'end'. */
static void
mend_ip(uint8_t *frame, const struct frame_layout *l, size_t end, uint16_t id_step)
{
    uint8_t *ip = frame + l->l3;

    if (l->ip_version == 4) {
        put_be16(ip + 2, end - l->l3);
        put_be16(ip + 4, get_be16(ip + 4) + id_step);
        put_csum(ip + 10, 0);
        put_csum(ip + 10, csum_fold(csum_add(0, ip, (ip[0] & 0x0f) * 4u)));
    } else {
        put_be16(ip + 4, end - l->l3 - IPV6_HDR_LEN);
    }
}

/* Makes of the whole frame's TCP header that of the segment whose payload
 * starts 'ofs' bytes into the whole. */
static void
mend_tcp(uint8_t *tcp, uint16_t ofs, bool last)
{
    uint16_t urgent = get_be16(tcp + 18);

    put_be32(tcp + 4, get_be32(tcp + 4) + ofs);
    if (!last) {
        tcp[13] &= ~(TCP_FIN | TCP_PSH);
    }
    if (ofs) {
        tcp[13] &= ~TCP_CWR;
        if (tcp[13] & TCP_URG) { /* the pointer counts from the sequence number */
            if (urgent > ofs) {
                put_be16(tcp + 18, urgent - ofs);
            } else {
                put_be16(tcp + 18, 0);
                tcp[13] &= ~TCP_URG;
            }
        }
    }
}

/* Writes the checksum at 'field' over the bytes from 'from' up to the inner
 * TCP header at 'inner_tcp', and from there on by the inner pseudo-header's
 * complement (see the top of this file). */
static void
fill_outer_csum(uint8_t *field, uint32_t sum, const uint8_t *from, const uint8_t *inner_tcp,
                uint32_t inner_pseudo)
{
    put_csum(field, 0);
    sum = csum_add(sum + csum_fold(inner_pseudo), from, inner_tcp - from);
    put_csum(field, csum_fold(sum));
}

static void
mend_outer(const struct gso_iter *it, uint8_t *out, size_t len, uint32_t inner_pseudo)
{
    struct frame_layout outer = it->outer;
    uint8_t *l4 = out + outer.l4;
    const uint8_t *inner_tcp = out + it->inner_ofs + it->inner.l4;

    outer.l3_end = len;
    mend_ip(out, &outer, len, it->n_done);
    if (it->tunnel == GSO_TUNNEL_UDP) {
        uint32_t sum;
        size_t l4_len;

        put_be16(l4 + 4, len - outer.l4);
        if (get_be16(l4 + UDP_CSUM_OFS) && pseudo_sum(out, &outer, &sum, &l4_len)) {
            fill_outer_csum(l4 + UDP_CSUM_OFS, sum, l4, inner_tcp, inner_pseudo);
            if (!get_be16(l4 + UDP_CSUM_OFS)) {
                put_be16(l4 + UDP_CSUM_OFS, 0xffff);
            }
        }
    } else {
        uint16_t flags = get_be16(l4);
        uint8_t *seq = l4 + GRE_HDR_LEN + (flags & GRE_CSUM ? 4 : 0) + (flags & GRE_KEY ? 4 : 0);

        if (flags & GRE_SEQ) {
            put_be32(seq, get_be32(seq) + it->n_done);
        }
        if (flags & GRE_CSUM) {
            fill_outer_csum(l4 + GRE_HDR_LEN, 0, l4, inner_tcp, inner_pseudo);
        }
    }
}

size_t
gso_next(struct gso_iter *it, uint8_t *out, size_t cap)
{
    size_t data_ofs = it->inner_ofs + it->inner.payload, left = it->end_ofs - it->next_ofs;
    size_t n = left < it->mss ? left : it->mss, len = data_ofs + n, l4_len;
    struct frame_layout segment = it->inner;
    uint8_t *inner = out + it->inner_ofs;
    uint32_t pseudo;

    if ((it->n_done && !left) || cap < len) {
        return 0;
    }
    memcpy(out, it->frame, data_ofs);
    memcpy(out + data_ofs, it->frame + it->next_ofs, n);

    segment.l3_end = segment.payload + n;
    mend_ip(inner, &segment, segment.l3_end, it->n_done);
    mend_tcp(inner + segment.l4, it->next_ofs - data_ofs, n == left);
    if (it->keep_blank) {
        csum_set_pseudo(inner, &segment);
    } else {
        csum_fill(inner, &segment);
    }
    if (it->tunnel != GSO_TUNNEL_NONE && pseudo_sum(inner, &segment, &pseudo, &l4_len)) {
        mend_outer(it, out, len, pseudo);
    }
    it->next_ofs += n;
    it->n_done++;
    return len;
}
