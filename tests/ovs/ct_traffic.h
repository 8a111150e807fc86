/* ct_traffic: packets for tests of connection tracking.
 *
 * A handful of connections whose ends mostly behave: handshakes, data,
 * acknowledgements, closing; and now and then do not: wrong sums, sequence
 * numbers out of window, resets, fragments, odd lengths. */
#ifndef CT_TRAFFIC_H
#define CT_TRAFFIC_H

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#include "conntrack.h"
#include "dp-packet.h"
#include "flow.h"
#include "packets.h"
#include "tcp_frame.h"
#include "util.h"

static inline uint32_t
ct_rand(uint64_t *seed)
{
    *seed += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = *seed;

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (z ^ z >> 31) >> 16;
}

static inline bool
one_in(uint64_t *seed, uint32_t n)
{
    return ct_rand(seed) % n == 0;
}

/* What a packet is to be. */
struct spec {
    bool v6, tagged, reply;
    uint8_t proto;
    unsigned conn; /* picks addresses and ports */
    uint16_t port; /* of the server; 0: by proto */
    uint8_t flags, wscale /* 0: no option */;
    uint32_t seq, ack;
    uint16_t win;
    unsigned payload, padding;
    uint8_t icmp_type; /* of a request; 0: echo */
    bool bad_l3, bad_l4, no_l4 /* UDP: sum 0 */, fragment, options, short_l4;
    uint64_t ol_flags;
};

static inline void
put_addr(uint8_t *p, bool v6, unsigned side, unsigned conn)
{
    if (v6) {
        memset(p, 0, 16);
        p[0] = 0xfd;
        p[1] = IPPROTO_TCP; /* the tracker takes it for a protocol behind a tag */
        p[13] = side;
        p[15] = conn;
    } else {
        p[0] = 10;
        p[1] = side;
        p[2] = 0;
        p[3] = conn;
    }
}

static inline size_t
put_l4(uint8_t *p, const struct spec *s, uint16_t sport, uint16_t dport)
{
    size_t len = 0;

    switch (s->proto) {
    case IPPROTO_TCP:
        tf_put16(p, sport);
        tf_put16(p + 2, dport);
        tf_put16(p + 4, s->seq >> 16);
        tf_put16(p + 6, s->seq);
        tf_put16(p + 8, s->ack >> 16);
        tf_put16(p + 10, s->ack);
        len = 20;
        if (s->wscale) {
            memcpy(p + 20, ((uint8_t[]){1, 3, 3, s->wscale}), 4);
            len = 24;
        }
        p[12] = len / 4 << 4;
        p[13] = s->flags;
        tf_put16(p + 14, s->win);
        break;
    case IPPROTO_UDP:
        tf_put16(p, sport);
        tf_put16(p + 2, dport);
        len = 8;
        tf_put16(p + 4, len + s->payload);
        break;
    case IPPROTO_ICMP:
        p[0] = s->icmp_type ? s->icmp_type + s->reply : s->reply ? 0 : 8;
        tf_put16(p + 4, s->conn);
        len = 8;
        break;
    case IPPROTO_ICMPV6:
        p[0] = s->reply ? 129 : 128;
        tf_put16(p + 4, s->conn);
        len = 8;
        break;
    default:
        break;
    }
    for (unsigned i = 0; i < s->payload; i++) {
        p[len++] = i * 7 + s->conn;
    }
    return len;
}

/* Where the protocol has its sum; 0: nowhere. */
static inline size_t
sum_ofs(uint8_t proto)
{
    return proto == IPPROTO_TCP                               ? 16
           : proto == IPPROTO_UDP                             ? 6
           : proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6 ? 2
                                                              : 0;
}

/* Makes 'b' the packet, as it comes from a port. */
static inline void
build(struct dp_packet *b, const struct spec *s)
{
    uint8_t frame[2048] = {2, 0, 0, 0, 0, s->reply, 2, 0, 0, 0, 0, !s->reply};
    size_t ip_ofs = s->tagged ? 18 : 14, ip_len = tf_ip_len(s->v6 ? 6 : 4), len;
    uint16_t client = 1024 + s->conn;
    uint16_t server = s->port ? s->port : s->proto == IPPROTO_TCP ? 80 : 53;
    uint8_t *ip = frame + ip_ofs, *l4 = ip + ip_len;
    size_t ofs = sum_ofs(s->proto);

    if (s->tagged) {
        tf_put16(frame + 12, 0x8100);
        tf_put16(frame + 14, 7);
    }
    tf_put16(ip - 2, s->v6 ? 0x86dd : 0x0800);
    if (!s->v6 && s->options) {
        memset(l4, 1, 4);
        l4 += 4;
        ip_len += 4;
    }
    len = put_l4(l4, s, s->reply ? server : client, s->reply ? client : server);
    if (s->short_l4) {
        len = MIN(len, 6);
    }
    if (s->v6) {
        ip[0] = 0x60;
        tf_put16(ip + 4, len);
        ip[6] = s->proto;
        ip[7] = 64;
        put_addr(ip + 8, true, s->reply, s->conn);
        put_addr(ip + 24, true, !s->reply, s->conn);
    } else {
        ip[0] = 0x40 | ip_len / 4;
        tf_put16(ip + 2, ip_len + len);
        tf_put16(ip + 6, s->fragment ? 0x2000 : 0x4000);
        ip[8] = 64;
        ip[9] = s->proto;
        put_addr(ip + 12, false, s->reply, s->conn);
        put_addr(ip + 16, false, !s->reply, s->conn);
        tf_put16(ip + 10, ~tf_sum(0, ip, ip_len));
        ip[10] ^= s->bad_l3;
    }
    if (ofs && len > ofs + 1) {
        uint16_t sum = s->proto == IPPROTO_ICMP ? ~tf_sum(0, l4, len)
                                                : ~tf_l4_sum(ip, s->v6 ? 6 : 4, s->proto, l4, len);

        if (s->proto == IPPROTO_UDP && !sum) {
            sum = 0xffff;
        }
        tf_put16(l4 + ofs, s->no_l4 ? 0 : sum);
        l4[ofs] ^= s->bad_l4 && !s->no_l4;
    }
    len += l4 - frame + s->padding;
    len = MAX(len, 60);

    dp_packet_clear(b);
    dp_packet_reserve(b, 128);
    dp_packet_put(b, frame, len);
    dp_packet_reset_offsets(b);
    dp_packet_reset_cutlen(b);
    dp_packet_reset_offload(b);
    *dp_packet_ol_flags_ptr(b) = s->ol_flags;
    b->packet_type = htonl(PT_ETH);
    pkt_metadata_init(&b->md, u32_to_odp(1));
}

/* One connection's ends. */
struct talk {
    bool v6, tagged;
    uint8_t proto;
    unsigned phase; /* TCP: 0 new, 1 SYN sent, 2 SYN-ACK sent, 3 open */
    uint32_t seq[2];
    uint8_t wscale;
};

static inline void
talk_init(struct talk *t, unsigned i)
{
    static const uint8_t protos[] = {IPPROTO_TCP, IPPROTO_TCP,  IPPROTO_UDP,
                                     IPPROTO_TCP, IPPROTO_ICMP, IPPROTO_SCTP};

    memset(t, 0, sizeof *t);
    t->proto = protos[i % ARRAY_SIZE(protos)];
    t->v6 = i % 5 == 1 || i % 5 == 3;
    t->tagged = i % 7 == 3;
    if (t->v6 && t->proto == IPPROTO_ICMP) {
        t->proto = IPPROTO_ICMPV6;
    }
}

static inline void
talk_tcp(struct talk *t, struct spec *s, uint64_t *seed)
{
    bool reply = s->reply;

    s->win = 1000 + ct_rand(seed) % 60000;
    switch (t->phase) {
    case 0:
        t->seq[0] = ct_rand(seed);
        t->seq[1] = ct_rand(seed);
        t->wscale = ct_rand(seed) % 9;
        s->reply = false;
        s->flags = TCP_SYN;
        s->seq = t->seq[0]++;
        s->wscale = t->wscale;
        t->phase = 1;
        return;
    case 1:
        s->reply = true;
        s->flags = TCP_SYN | TCP_ACK;
        s->seq = t->seq[1]++;
        s->ack = t->seq[0];
        s->wscale = one_in(seed, 4) ? 0 : t->wscale;
        t->phase = 2;
        return;
    case 2:
        s->reply = false;
        s->flags = TCP_ACK;
        t->phase = 3;
        break;
    default:
        s->flags = TCP_ACK | (one_in(seed, 3) ? TCP_PSH : 0);
        s->payload = one_in(seed, 3) ? 0 : ct_rand(seed) % 1400;
        if (one_in(seed, 60)) {
            s->flags |= one_in(seed, 2) ? TCP_FIN : TCP_RST;
            t->phase = one_in(seed, 3) ? 0 : 3;
        } else if (one_in(seed, 100)) {
            s->flags = ct_rand(seed);
        }
        break;
    }
    reply = s->reply;
    s->seq = t->seq[reply];
    s->ack = t->seq[!reply];
    if (one_in(seed, 20)) {
        s->seq += (int32_t)ct_rand(seed) >> ct_rand(seed) % 31; /* out of window, mostly */
    } else if (one_in(seed, 20)) {
        s->ack += (int32_t)ct_rand(seed) >> ct_rand(seed) % 31;
    } else {
        t->seq[reply] += s->payload + !!(s->flags & (TCP_SYN | TCP_FIN));
    }
}

/* The next packet. */
static inline void
talk_next(struct talk *t, unsigned i, struct spec *s, uint64_t *seed)
{
    static const uint64_t flags[] = {
        DP_PACKET_OL_RX_L4_CKSUM_GOOD | DP_PACKET_OL_RX_IP_CKSUM_GOOD,
        DP_PACKET_OL_RX_L4_CKSUM_GOOD,
        DP_PACKET_OL_RX_L4_CKSUM_BAD,
        DP_PACKET_OL_RX_IP_CKSUM_BAD,
        DP_PACKET_OL_TX_TCP_CKSUM | DP_PACKET_OL_TX_IPV4,
        DP_PACKET_OL_TX_UDP_CKSUM,
    };

    memset(s, 0, sizeof *s);
    s->v6 = t->v6;
    s->tagged = t->tagged;
    s->proto = t->proto;
    s->conn = i;
    s->reply = one_in(seed, 2);
    s->payload = ct_rand(seed) % 100;
    if (t->proto == IPPROTO_TCP) {
        s->port = i % 10 == 9 ? 21 : 0;
        talk_tcp(t, s, seed);
    }
    if (one_in(seed, 4)) {
        s->ol_flags = flags[ct_rand(seed) % ARRAY_SIZE(flags)];
    }
    s->padding = one_in(seed, 4) ? ct_rand(seed) % 40 : 0;
    s->bad_l3 = one_in(seed, 50);
    s->bad_l4 = one_in(seed, 30);
    s->no_l4 = t->proto == IPPROTO_UDP && one_in(seed, 10);
    s->options = one_in(seed, 50);
    s->short_l4 = one_in(seed, 100);
}

#endif
