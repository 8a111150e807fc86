/* gso_part: headers for a part of a large TCP segment that stays a large
 * segment itself (ring_priv.h).  Cutting into wire segments is offload.h's. */
#include "ring_priv.h"

#include <arpa/inet.h>
#include <string.h>

#define IPV4_LEN 2
#define IPV4_ID 4
#define IPV4_CSUM 10
#define IPV6_PLEN 4
#define IPV6_HDR 40
#define TCP_SEQ 4
#define TCP_FLAGS 13
#define TCP_FIN_PSH 0x09
#define TCP_CWR 0x80

static uint16_t
load16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof v);
    return ntohs(v);
}

static void
store16(uint8_t *p, uint16_t v)
{
    v = htons(v);
    memcpy(p, &v, sizeof v);
}

static void
ipv4_part(uint8_t *ip, const struct frame_layout *l, const struct gso_part *part)
{
    uint16_t sum;

    store16(ip + IPV4_LEN, l->l3_end - l->l3);
    store16(ip + IPV4_ID, load16(ip + IPV4_ID) + part->n_before);
    memset(ip + IPV4_CSUM, 0, 2);
    sum = csum_fold(csum_add(0, ip, (ip[0] & 15) * 4));
    memcpy(ip + IPV4_CSUM, &sum, sizeof sum);
}

static void
tcp_part(uint8_t *tcp, const struct gso_part *part)
{
    uint32_t seq;

    memcpy(&seq, tcp + TCP_SEQ, sizeof seq);
    seq = htonl(ntohl(seq) + part->payload_ofs);
    memcpy(tcp + TCP_SEQ, &seq, sizeof seq);
    if (!part->last) {
        tcp[TCP_FLAGS] &= ~TCP_FIN_PSH;
    }
    if (part->payload_ofs) {
        tcp[TCP_FLAGS] &= ~TCP_CWR; /* on the first segment only, RFC 3168 */
    }
}

void
gso_part_headers(uint8_t *frame, struct frame_layout *l, const struct gso_part *part)
{
    l->l3_end = l->payload + part->payload_len;
    if (l->ip_version == 4) {
        ipv4_part(frame + l->l3, l, part);
    } else {
        store16(frame + l->l3 + IPV6_PLEN, l->l3_end - l->l3 - IPV6_HDR);
    }
    tcp_part(frame + l->l4, part);
    csum_set_pseudo(frame, l);
}
