#include "flow_frame.h"

#include <string.h>

#include "bytes.h"

#define TYPE_IP4 0x0800u
#define TYPE_IP6 0x86ddu
#define TYPE_VLAN 0x8100u
#define TYPE_QINQ 0x88a8u
#define IP6_OPTIONS_MAX 8

static bool
read_ethernet(struct cursor *c, struct flow_record *r)
{
    const uint8_t *p = cursor_take(c, 14);

    if (!p) {
        return false;
    }
    memcpy(r->dst_mac, p, 6);
    memcpy(r->src_mac, p + 6, 6);
    r->eth_type = get_be16(p + 12);
    for (int i = 0; i < 2 && (r->eth_type == TYPE_VLAN || r->eth_type == TYPE_QINQ); i++) {
        if (!(p = cursor_take(c, 4))) {
            break;
        }
        *(i ? &r->customer_vlan : &r->vlan) = get_be16(p) & 0x0fff;
        r->eth_type = get_be16(p + 2);
    }
    return true;
}

static void
read_transport(struct cursor *c, struct flow_record *r, struct cursor *payload)
{
    const uint8_t *p;

    switch (r->proto) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_SCTP:
    case IPPROTO_UDPLITE:
        if (!(p = cursor_take(c, 4))) {
            return;
        }
        r->sport = get_be16(p);
        r->dport = get_be16(p + 2);
        if (r->proto == IPPROTO_TCP && (p = cursor_take(c, 10))) {
            r->tcp_flags = get_be16(p + 8) & 0x0fff;
        } else if (r->proto == IPPROTO_UDP && (p = cursor_take(c, 4)) && payload) {
            size_t said = get_be16(p);

            *payload = *c;
            if (said >= 8 && said - 8 < payload->left) {
                payload->left = said - 8;
            }
        }
        break;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        if ((p = cursor_take(c, 2))) {
            r->dport = get_be16(p);
        }
        break;
    }
}

static bool
read_ip4(struct cursor *c, struct flow_record *r, struct cursor *payload)
{
    const uint8_t *p = cursor_take(c, 20);
    unsigned header, len, fragment;

    if (!p || p[0] >> 4 != 4 || (header = (p[0] & 15) * 4) < 20 ||
        (len = get_be16(p + 2)) < header) {
        return false;
    }
    memset(r->src.s6_addr + 10, 0xff, 2);
    memcpy(r->src.s6_addr + 12, p + 12, 4);
    memset(r->dst.s6_addr + 10, 0xff, 2);
    memcpy(r->dst.s6_addr + 12, p + 16, 4);
    r->bytes = len < r->bytes ? len : r->bytes;
    r->tos = p[1];
    r->min_ttl = r->max_ttl = p[8];
    r->proto = p[9];
    fragment = get_be16(p + 6);
    r->fragments = (fragment & 0x1fff) != 0;
    if (cursor_take(c, header - 20) && !r->fragments) {
        if (len - header < c->left) {
            c->left = len - header; /* the rest pads the frame */
        }
        /* The first of several fragments has ports, but not all of its payload. */
        read_transport(c, r, fragment & 0x2000 ? NULL : payload);
    }
    return true;
}

/* Behind the extension headers; false: a later fragment, or cut off. */
static bool
skip_extensions(struct cursor *c, struct flow_record *r)
{
    const uint8_t *p;

    for (int i = 0; i < IP6_OPTIONS_MAX; i++) {
        switch (r->proto) {
        case IPPROTO_HOPOPTS:
        case IPPROTO_ROUTING:
        case IPPROTO_DSTOPTS:
            if (!(p = cursor_take(c, 8)) || !cursor_take(c, p[1] * 8u)) {
                return false;
            }
            r->proto = p[0];
            break;
        case IPPROTO_FRAGMENT:
            if (!(p = cursor_take(c, 8))) {
                return false;
            }
            r->proto = p[0];
            r->fragments = (get_be16(p + 2) & 0xfff8) != 0;
            if (r->fragments) {
                return false;
            }
            break;
        default:
            return true;
        }
    }
    return false;
}

static bool
read_ip6(struct cursor *c, struct flow_record *r, struct cursor *payload)
{
    const uint8_t *p = cursor_take(c, 40);
    uint64_t len;

    if (!p || p[0] >> 4 != 6) {
        return false;
    }
    len = get_be16(p + 4) + 40u;
    memcpy(&r->src, p + 8, 16);
    memcpy(&r->dst, p + 24, 16);
    /* A payload length of 0 is a jumbogram's. */
    r->bytes = get_be16(p + 4) && len < r->bytes ? len : r->bytes;
    r->tos = get_be16(p) >> 4;
    r->proto = p[6];
    r->min_ttl = r->max_ttl = p[7];
    if (skip_extensions(c, r)) {
        read_transport(c, r, payload);
    }
    return true;
}

bool
flow_frame_read(enum flow_frame_kind kind, const uint8_t *p, size_t len, size_t frame_len,
                struct flow_record *r, struct cursor *payload)
{
    struct cursor c = cursor_on(p, len);

    r->bytes = frame_len;
    if (kind != FLOW_FRAME_ETHERNET) {
        r->eth_type = kind == FLOW_FRAME_IP4 ? TYPE_IP4 : TYPE_IP6;
    } else if (!read_ethernet(&c, r)) {
        r->bytes = 0;
        return false;
    } else if (r->eth_type == TYPE_IP4 || r->eth_type == TYPE_IP6) {
        size_t l2 = c.p - p;

        r->bytes = frame_len > l2 ? frame_len - l2 : 0;
    }
    if (r->eth_type == TYPE_IP4) {
        return read_ip4(&c, r, payload) || kind == FLOW_FRAME_ETHERNET;
    }
    if (r->eth_type == TYPE_IP6) {
        return read_ip6(&c, r, payload) || kind == FLOW_FRAME_ETHERNET;
    }
    return true;
}
