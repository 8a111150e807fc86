/* sFlow version 5 (sflow.org, "sFlow Version 5", 2004): samples of packets as flow records of one
 * packet each; counter samples are counted and skipped. */
#include <errno.h>
#include <string.h>

#include "bytes.h"
#include "collect_priv.h"
#include "flow_frame.h"

enum {
    SAMPLE_FLOW = 1,
    SAMPLE_COUNTERS,
    SAMPLE_FLOW_EXPANDED,
    SAMPLE_COUNTERS_EXPANDED,
    SAMPLE_DROP
};
enum {
    RECORD_HEADER = 1,
    RECORD_ETHERNET,
    RECORD_IP4,
    RECORD_IP6,
    RECORD_SWITCH = 1001,
    RECORD_VNI_OUT = 1029,
    RECORD_VNI_IN = 1030,
};
enum { HEADER_ETHERNET = 1, HEADER_IP4 = 11, HEADER_IP6 = 12 };
enum { PORT_INDEX = 0, PORT_DROPPED = 1, PORT_SEVERAL = 2 };
#define PORT_VALUE 0x3fffffffu
#define FORWARDED 0x40u
#define DROPPED 0x80u

struct datagram {
    struct collect *c;
    struct exporter *e;
    uint64_t now_ms;
};

static uint32_t
take32(struct cursor *c)
{
    const uint8_t *p = cursor_take(c, 4);

    return p ? get_be32(p) : 0;
}

/* Opaque data, padded to a multiple of 4; some agents forget it at the end. */
static struct cursor
take_opaque(struct cursor *c, size_t len)
{
    const uint8_t *p = cursor_take(c, len);
    size_t pad = -len & 3;

    if (!p) {
        return (struct cursor){.failed = true};
    }
    cursor_take(c, pad < c->left ? pad : c->left);
    return cursor_on(p, len);
}

/* --- records of a sample ------------------------------------------------------- */

static bool
read_header(struct cursor *c, struct flow_record *r)
{
    uint32_t protocol = take32(c), frame_len = take32(c), stripped = take32(c), len = take32(c);
    struct cursor head = take_opaque(c, len);
    enum flow_frame_kind kind = protocol == HEADER_IP4   ? FLOW_FRAME_IP4
                                : protocol == HEADER_IP6 ? FLOW_FRAME_IP6
                                                         : FLOW_FRAME_ETHERNET;

    if (head.failed ||
        (protocol != HEADER_ETHERNET && protocol != HEADER_IP4 && protocol != HEADER_IP6)) {
        return false;
    }
    frame_len = stripped < frame_len ? frame_len - stripped : 0;
    return flow_frame_read(kind, head.p, head.left, frame_len, r, NULL);
}

static bool
read_ethernet(struct cursor *c, struct flow_record *r)
{
    uint32_t len = take32(c);
    const uint8_t *src = cursor_take(c, 8), *dst = cursor_take(c, 8);

    if (!dst) {
        return false;
    }
    memcpy(r->src_mac, src, 6);
    memcpy(r->dst_mac, dst, 6);
    r->eth_type = take32(c);
    r->bytes = r->bytes ? r->bytes : len;
    return true;
}

static bool
read_ip(struct cursor *c, bool ip6, struct flow_record *r)
{
    uint32_t len = take32(c), proto = take32(c);
    unsigned bytes = ip6 ? 16 : 4;
    const uint8_t *src = cursor_take(c, bytes), *dst = cursor_take(c, bytes);
    uint32_t sport = take32(c), dport = take32(c), flags = take32(c), tos = take32(c);

    if (c->failed) {
        return false;
    }
    memcpy(r->src.s6_addr + 16 - bytes, src, bytes);
    memcpy(r->dst.s6_addr + 16 - bytes, dst, bytes);
    if (!ip6) {
        memset(r->src.s6_addr + 10, 0xff, 2);
        memset(r->dst.s6_addr + 10, 0xff, 2);
    }
    r->eth_type = ip6 ? 0x86dd : 0x0800;
    r->bytes = len;
    r->proto = proto;
    r->sport = sport;
    r->dport = dport;
    r->tcp_flags = flags;
    r->tos = tos;
    return true;
}

/* True: it told of the packet itself. */
static bool
read_record(uint32_t tag, struct cursor c, struct flow_record *r)
{
    uint32_t vlan;

    switch (tag) {
    case RECORD_HEADER:
        return read_header(&c, r);
    case RECORD_ETHERNET:
        return read_ethernet(&c, r);
    case RECORD_IP4:
    case RECORD_IP6:
        return read_ip(&c, tag == RECORD_IP6, r);
    case RECORD_SWITCH:
        vlan = take32(&c) & 0x0fff; /* a frame's own tag counts for more */
        r->vlan = r->vlan ? r->vlan : vlan;
        return false;
    case RECORD_VNI_IN:
    case RECORD_VNI_OUT:
        r->tunnel_key = take32(&c);
        return false;
    default:
        return false;
    }
}

/* --- samples ------------------------------------------------------------------- */

static void
set_ports(struct flow_record *r, uint32_t in_kind, uint32_t in, uint32_t out_kind, uint32_t out)
{
    r->in_if = in_kind == PORT_INDEX && in != PORT_VALUE ? in : 0;
    r->out_if = out_kind == PORT_INDEX && out != PORT_VALUE ? out : 0;
    r->forwarding = out_kind == PORT_DROPPED ? DROPPED : FORWARDED;
}

static void
read_sample_head(uint32_t tag, struct cursor *c, struct flow_record *r)
{
    uint32_t in, out, in_kind, out_kind;

    switch (tag) {
    case SAMPLE_FLOW:
        cursor_take(c, 8); /* sequence number, source */
        r->sampling = take32(c);
        cursor_take(c, 8); /* pool, drops */
        in = take32(c);
        out = take32(c);
        set_ports(r, in >> 30, in & PORT_VALUE, out >> 30, out & PORT_VALUE);
        break;
    case SAMPLE_FLOW_EXPANDED:
        cursor_take(c, 12);
        r->sampling = take32(c);
        cursor_take(c, 8);
        in_kind = take32(c);
        in = take32(c);
        out_kind = take32(c);
        out = take32(c);
        set_ports(r, in_kind, in, out_kind, out);
        break;
    case SAMPLE_DROP:
        cursor_take(c, 16); /* sequence number, source, drops */
        r->sampling = 1;
        in = take32(c);
        out = take32(c);
        cursor_take(c, 4); /* reason */
        set_ports(r, PORT_INDEX, in, PORT_INDEX, out);
        r->forwarding = DROPPED;
        break;
    }
}

static void
take_sample(const struct datagram *d, uint32_t tag, struct cursor c)
{
    struct flow_record *r = collect_record(d->c, d->e);
    bool told = false;
    uint32_t n;

    memset(r, 0, sizeof *r);
    read_sample_head(tag, &c, r);
    n = take32(&c);
    while (n-- && c.left) {
        uint32_t kind = take32(&c), len = take32(&c);
        struct cursor body = take_opaque(&c, len);

        if (body.failed) {
            c.failed = true;
            break;
        }
        told |= read_record(kind, body, r);
    }
    if (c.failed) {
        d->e->n.malformed++;
    } else if (!told) {
        d->e->n.not_flows++;
    } else {
        r->packets = 1;
        r->start_ms = r->end_ms = d->now_ms;
        r->domain = d->e->key.domain;
        collect_emit(d->c, d->e);
    }
}

static int
take_samples(const struct datagram *d, struct cursor *in, uint32_t n)
{
    while (n-- && in->left) {
        uint32_t tag = take32(in), len = take32(in);
        struct cursor body = take_opaque(in, len);

        if (body.failed) {
            d->e->n.malformed++;
            return EPROTO;
        }
        switch (tag) {
        case SAMPLE_FLOW:
        case SAMPLE_FLOW_EXPANDED:
        case SAMPLE_DROP:
            take_sample(d, tag, body);
            break;
        default: /* counters, and what enterprises add */
            d->e->n.counter_samples++;
        }
    }
    return 0;
}

int
decode_sflow(struct collect *c, const struct collect_peer *peer, uint64_t now_ms, struct cursor in)
{
    uint32_t address_type, sub_agent, sequence, uptime, n;
    struct datagram d = {.c = c, .now_ms = now_ms};
    struct in6_addr agent = {0};
    unsigned agent_bytes;
    const uint8_t *p;

    cursor_take(&in, 4);
    address_type = take32(&in);
    if (address_type != 1 && address_type != 2) {
        return EPROTO;
    }
    agent_bytes = address_type == 1 ? 4 : 16;
    if ((p = cursor_take(&in, agent_bytes))) {
        memset(agent.s6_addr + 10, 0xff, 2);
        memcpy(agent.s6_addr + 16 - agent_bytes, p, agent_bytes);
    }
    sub_agent = take32(&in);
    sequence = take32(&in);
    uptime = take32(&in);
    n = take32(&in);
    if (in.failed) {
        return EPROTO;
    }
    if (!(d.e = collect_exporter(c, peer, now_ms, FLOW_SFLOW, sub_agent, &agent))) {
        return ENOSPC;
    }
    sequence_check(d.e, sequence, 1, false, uptime);
    return take_samples(&d, &in, n);
}
