/* record_key: frames to the keys of records.
 *
 * The cache's own parser (key.h) gives up on a frame of which Open vSwitch
 * knows more than the cache's key shows.  Records want no more than the
 * 5-tuple, and of every frame: so this one goes on where that ends, with tags
 * in tags, options, extension headers, fragments and what is cut short.
 *
 * Frames are hostile: nothing beyond 'len' bytes is read. */
#include "record.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#define ETH_LEN 14u
#define TAG_LEN 4u
#define TAGS_MAX 8u
#define EXTENSIONS_MAX 8u
#define TYPE_MIN 0x0600

const struct key_masks record_masks = {
    .narrow.w = {-1, 0xff1fffffffffffff, -1, 0x00ffffffffffffff},
    .wide.key.w = {-1, 0xff1fffffffffffff, 0, 0x00ffffffffffffff},
    .wide.ip6.w = {-1, -1, -1, -1},
};

struct cursor_ {
    const uint8_t *d;
    uint32_t len;
};

static bool
is_tag(uint32_t type)
{
    return type == 0x8100 || type == 0x88a8;
}

/* Returns the type, the cursor at what follows; '*inner' the second tag's VID. */
static uint32_t
parse_l2(struct cursor_ *c, struct key *k, uint16_t *inner)
{
    uint32_t type = key_load_be16_(c->d + 12);
    unsigned tags = 0;

    memcpy(k->eth_dst, c->d, 6);
    memcpy(k->eth_src, c->d + 6, 6);
    c->d += ETH_LEN;
    c->len -= ETH_LEN;
    for (; is_tag(type) && c->len >= TAG_LEN && tags < TAGS_MAX; tags++) {
        uint16_t vid = key_load_be16_(c->d) & 0xfff;

        if (tags == 0) {
            k->vlan_tci = htons(vid | 0x1000);
        } else if (tags == 1) {
            *inner = vid;
            k->nw_tos |= RECORD_INNER_VLAN;
        }
        type = key_load_be16_(c->d + 2);
        c->d += TAG_LEN;
        c->len -= TAG_LEN;
    }
    k->eth_type = htons(type < TYPE_MIN ? 0 : type);
    return type;
}

static void
parse_l4(const struct cursor_ *c, struct key *k, uint16_t *tcp_flags)
{
    switch (k->nw_proto) {
    case IPPROTO_TCP:
        if (c->len >= 14) {
            *tcp_flags = key_load_be16_(c->d + 12) & 0xfff;
        }
        /* fall through */
    case IPPROTO_UDP:
    case IPPROTO_SCTP: /* as key.c has them, not more: a flow's packets come either way */
        if (c->len >= 4) {
            memcpy(&k->tp_src, c->d, 2);
            memcpy(&k->tp_dst, c->d + 2, 2);
        }
        break;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        if (c->len >= 2) {
            k->tp_src = htons(c->d[0]);
            k->tp_dst = htons(c->d[1]);
        }
        break;
    }
}

/* Returns the packet's length. */
static uint32_t
parse_ipv4(struct cursor_ c, struct key *k, uint16_t *tcp_flags, uint8_t *tos)
{
    uint32_t header = c.len ? (c.d[0] & 15) * 4u : 0, total = c.len;

    if (c.len < 20 || c.d[0] >> 4 != 4 || header < 20) {
        k->eth_type = 0;
        return c.len;
    }
    total = key_load_be16_(c.d + 2);
    total = total < header || total > c.len ? c.len : total;
    *tos = c.d[1];
    k->nw_proto = c.d[9];
    memcpy(&k->ip4_src, c.d + 12, 4);
    memcpy(&k->ip4_dst, c.d + 16, 4);
    if (key_load_be16_(c.d + 6) & 0x1fff) {
        k->nw_tos |= RECORD_FRAGMENT;
    } else if (total >= header) {
        parse_l4(&(struct cursor_){c.d + header, total - header}, k, tcp_flags);
    }
    return total;
}

/* Moves on to what is no extension header; returns its protocol.  '*later': a
 * fragment that is not the first. */
static uint8_t
skip_extensions(struct cursor_ *c, uint8_t next, bool *later)
{
    for (unsigned i = 0; i < EXTENSIONS_MAX && c->len >= 8 && !*later; i++) {
        uint32_t len;

        switch (next) {
        case IPPROTO_HOPOPTS:
        case IPPROTO_ROUTING:
        case IPPROTO_DSTOPTS:
            len = (c->d[1] + 1u) * 8;
            break;
        case IPPROTO_AH:
            len = (c->d[1] + 2u) * 4;
            break;
        case IPPROTO_FRAGMENT:
            len = 8;
            *later = key_load_be16_(c->d + 2) & 0xfff8;
            break;
        default:
            return next;
        }
        next = c->d[0];
        len = len < c->len ? len : c->len;
        c->d += len;
        c->len -= len;
    }
    return next;
}

static uint32_t
parse_ipv6(struct cursor_ c, struct key_wide *k, uint16_t *tcp_flags, uint8_t *tos)
{
    uint32_t payload;
    bool later = false;
    struct cursor_ l4;

    if (c.len < 40 || c.d[0] >> 4 != 6) {
        k->key.eth_type = 0;
        return c.len;
    }
    payload = key_load_be16_(c.d + 4);
    payload = payload > c.len - 40 ? c.len - 40 : payload;
    *tos = key_load_be16_(c.d) >> 4;
    memcpy(k->ip6.src, c.d + 8, 16);
    memcpy(k->ip6.dst, c.d + 24, 16);
    l4 = (struct cursor_){c.d + 40, payload};
    k->key.nw_proto = skip_extensions(&l4, c.d[6], &later);
    if (later) {
        k->key.nw_tos |= RECORD_FRAGMENT;
    } else {
        parse_l4(&l4, &k->key, tcp_flags);
    }
    return payload + 40;
}

uint32_t
record_parse(const uint8_t *frame, uint32_t len, uint16_t in_port, uint64_t tunnel, bool tunneled,
             struct key_wide *k, uint16_t *tcp_flags, uint8_t *tos)
{
    struct cursor_ c = {frame, len};
    uint16_t inner = 0;
    uint32_t bytes;

    memset(k, 0, sizeof *k);
    *tcp_flags = 0;
    *tos = 0;
    k->key.in_port = in_port;
    switch (parse_l2(&c, &k->key, &inner)) {
    case 0x0800:
        bytes = parse_ipv4(c, &k->key, tcp_flags, tos);
        break;
    case 0x86dd:
        bytes = parse_ipv6(c, k, tcp_flags, tos);
        break;
    default:
        bytes = len;
    }
    k->key.nw_tos |= tunneled ? RECORD_TUNNEL : 0;
    if (k->key.eth_type == htons(0x86dd)) {
        k->key.ip6_label = tunnel;
        k->key.zero = inner;
    } else if (k->key.nw_tos) {
        struct record_more more = {.tunnel = tunnel, .vlan = inner};
        memcpy(&k->ip6, &more, sizeof more);
    }
    return bytes;
}
