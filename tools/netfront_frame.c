/* netfront_frame: see netfront_frame.h. */
#include "netfront_frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "bytes.h"
#include "offload.h"

#define STAMP_MAGIC 0x57656674u /* "Weft" */
#define VLAN_TAGS_MAX 2
#define IPV6_EXTENSIONS_MAX 8
#define TCP_CSUM_OFS 16u
#define UDP_CSUM_OFS 6u
#define UDP_LEN 8u
#define TCP_LEN 20u

/* --- headers ------------------------------------------------------------------ */

static bool
find_ipv4(const uint8_t *f, size_t avail, struct nf_headers *h)
{
    const uint8_t *ip = f + h->l3;

    if (h->l3 + 20u > avail || ip[0] >> 4 != 4) {
        return false;
    }
    unsigned ihl = (ip[0] & 15u) * 4;
    h->ip_version = 4;
    h->l3_len = get_be16(ip + 2);
    h->proto = ip[9];
    h->l4 = (uint16_t)(h->l3 + ihl);
    return ihl >= 20 && h->l3_len >= ihl && !(get_be16(ip + 6) & 0x3fff);
}

static bool
find_ipv6(const uint8_t *f, size_t avail, struct nf_headers *h)
{
    size_t at = h->l3 + 40u;

    if (at > avail || f[h->l3] >> 4 != 6) {
        return false;
    }
    h->ip_version = 6;
    h->l3_len = 40u + get_be16(f + h->l3 + 4);
    h->proto = f[h->l3 + 6];
    for (int i = 0; i <= IPV6_EXTENSIONS_MAX; i++) {
        if (h->proto != IPPROTO_HOPOPTS && h->proto != IPPROTO_ROUTING &&
            h->proto != IPPROTO_DSTOPTS) {
            h->l4 = (uint16_t)at;
            return true;
        }
        if (at + 8 > avail) {
            return false;
        }
        h->proto = f[at];
        at += 8 + 8u * f[at + 1];
    }
    return false;
}

bool
nf_headers_find(const uint8_t *f, size_t avail, struct nf_headers *h)
{
    size_t at = 12;

    memset(h, 0, sizeof *h);
    if (avail < ETH_HLEN) {
        return false;
    }
    for (int i = 0; i < VLAN_TAGS_MAX && at + 6 <= avail; i++) {
        if (get_be16(f + at) != ETH_P_8021Q && get_be16(f + at) != ETH_P_8021AD) {
            break;
        }
        at += 4;
    }
    uint16_t type = get_be16(f + at);
    h->l3 = (uint16_t)(at + 2);
    if (!(type == ETH_P_IP     ? find_ipv4(f, avail, h)
          : type == ETH_P_IPV6 ? find_ipv6(f, avail, h)
                               : false)) {
        return false;
    }
    if (h->proto == IPPROTO_UDP && h->l4 + UDP_LEN <= avail) {
        h->payload = (uint16_t)(h->l4 + UDP_LEN);
        return true;
    }
    if (h->proto == IPPROTO_TCP && h->l4 + TCP_LEN <= avail) {
        unsigned len = (f[h->l4 + 12] >> 4) * 4u;
        h->payload = (uint16_t)(h->l4 + len);
        return len >= TCP_LEN;
    }
    return false;
}

static unsigned
csum_offset(const struct nf_headers *h)
{
    return h->proto == IPPROTO_TCP ? TCP_CSUM_OFS : UDP_CSUM_OFS;
}

/* --- virtio header -------------------------------------------------------------- */

/* The peer finds a blank checksum by parsing; it must then find the one that
 * our stack left blank (and not, say, the outer one of a tunnel). */
static bool
peer_can_fill(const struct virtio_net_hdr *v, const struct nf_headers *h, bool found,
              const struct nf_caps *caps)
{
    return found && v->csum_start == h->l4 && v->csum_offset == csum_offset(h) &&
           (h->ip_version == 4 ? caps->csum_v4 : caps->csum_v6);
}

static int
fill_csum(const struct virtio_net_hdr *v, uint8_t *frame, uint32_t len)
{
    uint32_t start = v->csum_start, at = start + v->csum_offset;

    if (start >= len || at + 2 > len) {
        return EINVAL;
    }
    uint16_t sum = csum_fold(csum_add(0, frame + start, len - start));
    if (!sum && v->csum_offset == UDP_CSUM_OFS) {
        sum = 0xffff;
    }
    memcpy(frame + at, &sum, sizeof sum);
    return 0;
}

int
nf_meta_from_vnet(const struct virtio_net_hdr *v, uint8_t *frame, uint32_t len,
                  const struct nf_caps *caps, struct nf_meta *meta)
{
    struct nf_headers h;

    *meta = (struct nf_meta){.data_validated = v->flags & VIRTIO_NET_HDR_F_DATA_VALID};
    if (!(v->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)) {
        return v->gso_type == VIRTIO_NET_HDR_GSO_NONE ? 0 : EINVAL;
    }
    bool found = nf_headers_find(frame, len < HV_PAGE_SIZE ? len : HV_PAGE_SIZE, &h);
    bool fillable = peer_can_fill(v, &h, found, caps);

    switch (v->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_NONE:
        if (!fillable) {
            return fill_csum(v, frame, len);
        }
        break;
    case VIRTIO_NET_HDR_GSO_TCPV4:
        meta->gso_type = XEN_NETIF_GSO_TYPE_TCPV4;
        break;
    case VIRTIO_NET_HDR_GSO_TCPV6:
        meta->gso_type = XEN_NETIF_GSO_TYPE_TCPV6;
        break;
    default:
        return EINVAL;
    }
    if (meta->gso_type) {
        if (!fillable || h.proto != IPPROTO_TCP || !v->gso_size) {
            return EINVAL;
        }
        meta->gso_size = v->gso_size;
    }
    meta->csum_blank = true;
    return 0;
}

int
nf_meta_to_vnet(const struct nf_meta *meta, const uint8_t *head, size_t head_len,
                struct virtio_net_hdr *v)
{
    struct nf_headers h;

    memset(v, 0, sizeof *v);
    if (!meta->csum_blank && !meta->gso_type) {
        v->flags = meta->data_validated ? VIRTIO_NET_HDR_F_DATA_VALID : 0;
        return 0;
    }
    if (!nf_headers_find(head, head_len, &h)) {
        return EINVAL;
    }
    v->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    v->csum_start = h.l4;
    v->csum_offset = (uint16_t)csum_offset(&h);
    v->hdr_len = h.payload;
    if (meta->gso_type) {
        unsigned version = meta->gso_type == XEN_NETIF_GSO_TYPE_TCPV4 ? 4 : 6;
        if (h.proto != IPPROTO_TCP || h.ip_version != version) {
            return EINVAL;
        }
        v->gso_type = version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
        v->gso_size = meta->gso_size;
        if (head[h.l4 + 13] & 0x80) { /* CWR: may be on the first segment only */
            v->gso_type |= VIRTIO_NET_HDR_GSO_ECN;
        }
    }
    return 0;
}

/* --- test stream ------------------------------------------------------------------ */

/* The byte at payload offset i.  A prime period, so that a page or a
 * fragment that landed elsewhere does not look right. */
#define PATTERN_PERIOD 251u
#define PATTERN_LEN (65536u + PATTERN_PERIOD)
static uint8_t pattern[PATTERN_LEN];

static void
pattern_init(void)
{
    for (uint32_t i = 0; i < PATTERN_LEN; i++) {
        pattern[i] = (uint8_t)(i % PATTERN_PERIOD);
    }
}

static const uint8_t *
pattern_at(uint32_t ofs)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, pattern_init);
    return pattern + ofs % PATTERN_PERIOD;
}

static uint32_t
header_len(const struct nf_stream *s)
{
    return ETH_HLEN + (s->vlan ? 4u : 0u) + (s->family == AF_INET6 ? 40u : 20u) +
           (s->mss ? TCP_LEN : UDP_LEN);
}

uint32_t
nf_stream_min_size(const struct nf_stream *s)
{
    return header_len(s) + (uint32_t)sizeof(struct nf_stamp);
}

int
nf_template_init(struct nf_template *t, const struct nf_stream *s, uint16_t sender, uint8_t queue,
                 uint8_t run, char *why, size_t why_size)
{
    uint32_t min = nf_stream_min_size(s);

    if (s->size < min || s->size > NF_FRAME_MAX) {
        snprintf(why, why_size, "--size %u is out of range: these frames have %u to %u bytes",
                 s->size, min, NF_FRAME_MAX);
        return EINVAL;
    }
    if (s->mss && s->csum != NF_CSUM_BLANK) {
        snprintf(why, why_size, "--gso needs --csum blank: segments get theirs when cut");
        return EINVAL;
    }
    if (s->family == AF_INET6 && s->csum == NF_CSUM_ZERO) {
        snprintf(why, why_size, "UDP over IPv6 must have a checksum: use --csum blank or full");
        return EINVAL;
    }
    memset(t, 0, sizeof *t);
    t->stream = *s;
    t->sender = sender;
    t->queue = queue;
    t->run = run;
    t->l3 = (uint16_t)(ETH_HLEN + (s->vlan ? 4 : 0));
    t->l4 = (uint16_t)(t->l3 + (s->family == AF_INET6 ? 40 : 20));
    t->payload = (uint16_t)header_len(s);
    t->meta.csum_blank = s->csum == NF_CSUM_BLANK;
    if (s->mss && s->size - t->payload > s->mss) {
        t->meta.gso_type =
            s->family == AF_INET6 ? XEN_NETIF_GSO_TYPE_TCPV6 : XEN_NETIF_GSO_TYPE_TCPV4;
        t->meta.gso_size = s->mss;
    }
    return 0;
}

static void
fill_ethernet(const struct nf_template *t, uint8_t *f)
{
    const struct nf_stream *s = &t->stream;

    memcpy(f, s->dst_mac, 6);
    memcpy(f + 6, s->src_mac, 6);
    if (s->vlan) {
        put_be16(f + 12, ETH_P_8021Q);
        put_be16(f + 14, s->vlan);
    }
    put_be16(f + t->l3 - 2, s->family == AF_INET6 ? ETH_P_IPV6 : ETH_P_IP);
}

static void
fill_ip(const struct nf_template *t, uint8_t *ip)
{
    const struct nf_stream *s = &t->stream;
    uint16_t l4_len = (uint16_t)(s->size - t->l4);
    uint8_t proto = s->mss ? IPPROTO_TCP : IPPROTO_UDP;

    if (s->family == AF_INET6) {
        ip[0] = 0x60;
        put_be16(ip + 4, l4_len);
        ip[6] = proto;
        ip[7] = 64;
        memcpy(ip + 8, s->src_ip, 16);
        memcpy(ip + 24, s->dst_ip, 16);
        return;
    }
    ip[0] = 0x45;
    put_be16(ip + 2, (uint16_t)(20 + l4_len));
    put_be16(ip + 6, 0x4000); /* don't fragment */
    ip[8] = 64;
    ip[9] = proto;
    memcpy(ip + 12, s->src_ip, 4);
    memcpy(ip + 16, s->dst_ip, 4);
    uint16_t sum = csum_fold(csum_add(0, ip, 20));
    memcpy(ip + 10, &sum, sizeof sum);
}

/* Sum of the pseudo-header, not folded. */
static uint32_t
pseudo_sum(const struct nf_template *t)
{
    const struct nf_stream *s = &t->stream;
    size_t n = s->family == AF_INET6 ? 16 : 4;
    uint8_t tail[4] = {0, s->mss ? IPPROTO_TCP : IPPROTO_UDP};

    put_be16(tail + 2, (uint16_t)(s->size - t->l4));
    uint32_t sum = csum_add(0, s->src_ip, n);
    sum = csum_add(sum, s->dst_ip, n);
    return csum_add(sum, tail, sizeof tail);
}

static void
fill_l4(struct nf_template *t, uint8_t *f)
{
    const struct nf_stream *s = &t->stream;
    uint8_t *l4 = f + t->l4;

    put_be16(l4 + 2, s->dst_port);
    if (s->mss) {
        l4[12] = 5 << 4; /* header of 20 bytes */
        l4[13] = 0x10;   /* ACK */
        put_be16(l4 + 14, 0xffff);
    } else {
        put_be16(l4 + 4, (uint16_t)(s->size - t->l4));
    }
    memcpy(f + t->payload, pattern_at(0), s->size - t->payload);

    if (s->csum == NF_CSUM_BLANK) {
        uint16_t sum = (uint16_t)~csum_fold(pseudo_sum(t));
        memcpy(l4 + (s->mss ? TCP_CSUM_OFS : UDP_CSUM_OFS), &sum, sizeof sum);
    } else if (s->csum == NF_CSUM_FULL) {
        memset(f + t->payload, 0, sizeof(struct nf_stamp));
        t->base_sum = csum_add(pseudo_sum(t), l4, s->size - t->l4);
    }
}

void
nf_template_fill(struct nf_template *t, uint8_t *f)
{
    memset(f, 0, t->payload);
    fill_ethernet(t, f);
    fill_ip(t, f + t->l3);
    fill_l4(t, f);
}

void
nf_template_stamp(const struct nf_template *t, uint8_t *f, uint32_t flow, uint64_t seq)
{
    struct nf_stamp stamp = {
        .magic = htonl(STAMP_MAGIC),
        .sender = htons(t->sender),
        .queue = t->queue,
        .run = t->run,
        .flow = htonl(flow),
        .seq_high = htonl((uint32_t)(seq >> 32)),
        .seq_low = htonl((uint32_t)seq),
    };
    uint16_t port = (uint16_t)(t->stream.src_port + flow % NF_STREAM_PORTS);

    /* More flows than ports: from more addresses, which no checksum is about. */
    f[8] = (uint8_t)(t->stream.src_mac[2] + flow / NF_STREAM_PORTS);
    put_be16(f + t->l4, port);
    memcpy(f + t->payload, &stamp, sizeof stamp);
    if (t->stream.csum == NF_CSUM_FULL) {
        uint32_t sum = csum_add(csum_add(t->base_sum, &stamp, sizeof stamp), f + t->l4, 2);
        uint16_t folded = csum_fold(sum);
        folded = folded ? folded : 0xffff;
        memcpy(f + t->l4 + UDP_CSUM_OFS, &folded, sizeof folded);
    }
}

/* --- looking at received frames ---------------------------------------------------- */

/* Compares the frame's bytes from 'skip' on with the pattern from 'ofs' on. */
static bool
pattern_matches(const struct nf_rx_frame *f, size_t skip, uint32_t ofs)
{
    for (unsigned i = 0; i < f->n_frags; i++) {
        size_t len = f->frag[i].iov_len;
        if (skip >= len) {
            skip -= len;
            continue;
        }
        const uint8_t *p = (const uint8_t *)f->frag[i].iov_base + skip;
        if (memcmp(p, pattern_at(ofs), len - skip)) {
            return false;
        }
        ofs += (uint32_t)(len - skip);
        skip = 0;
    }
    return true;
}

enum nf_verdict
nf_frame_check(const struct nf_rx_frame *f, uint16_t dst_port, struct nf_stamp *stamp)
{
    const uint8_t *head = f->frag[0].iov_base;
    size_t avail = f->frag[0].iov_len;
    struct nf_headers h;
    uint32_t ofs;

    if (!nf_headers_find(head, avail, &h) || get_be16(head + h.l4 + 2) != dst_port) {
        return NF_FOREIGN;
    }
    ofs = h.proto == IPPROTO_TCP ? get_be32(head + h.l4 + 4) : 0;
    if (h.l3 + h.l3_len != f->len || h.payload > f->len || ofs > NF_FRAME_MAX) {
        return NF_CORRUPT;
    }
    if (ofs) {
        return pattern_matches(f, h.payload, ofs) ? NF_SEGMENT : NF_CORRUPT;
    }
    if (h.payload + sizeof *stamp > avail) {
        return NF_FOREIGN;
    }
    memcpy(stamp, head + h.payload, sizeof *stamp);
    if (stamp->magic != htonl(STAMP_MAGIC)) {
        return NF_FOREIGN;
    }
    return pattern_matches(f, h.payload + sizeof *stamp, sizeof *stamp) ? NF_STAMPED : NF_CORRUPT;
}

void
nf_announce_frame(const uint8_t mac[6], uint8_t frame[NF_ANNOUNCE_LEN])
{
    static const uint8_t body[] = {0, 1, 8, 0, 6, 4, 0, 3}; /* Ethernet, IPv4, reverse request */

    memset(frame, 0, NF_ANNOUNCE_LEN);
    memset(frame, 0xff, 6);
    memcpy(frame + 6, mac, 6);
    put_be16(frame + 12, ETHERTYPE_REVARP);
    memcpy(frame + 14, body, sizeof body);
    memcpy(frame + 22, mac, 6);
    memcpy(frame + 32, mac, 6);
}
