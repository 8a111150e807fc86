#include "announce.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <string.h>

#include "bytes.h"

#define FRAME_MIN 60u

/* --- parts -------------------------------------------------------------------- */

static size_t
put_ethernet(uint8_t *p, const uint8_t *dst, const uint8_t *src, uint16_t vlan, uint16_t type)
{
    size_t at = 12;

    memset(p, 0, ANNOUNCE_MAX);
    memcpy(p, dst, 6);
    memcpy(p + 6, src, 6);
    if (vlan) {
        put_be16(p + at, 0x8100);
        put_be16(p + at + 2, vlan & 0xfff);
        at += 4;
    }
    put_be16(p + at, type);
    return at + 2;
}

static size_t
padded(size_t len)
{
    return len < FRAME_MIN ? FRAME_MIN : len;
}

static uint32_t
sum(uint32_t s, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i + 1 < len; i += 2) {
        s += get_be16(p + i);
    }
    return s;
}

static uint16_t
fold(uint32_t s)
{
    while (s >> 16) {
        s = (s & 0xffff) + (s >> 16);
    }
    return ~s;
}

static size_t
put_arp(uint8_t *frame, const uint8_t mac[6], uint16_t vlan, uint16_t type, uint16_t op,
        const uint8_t ip[4])
{
    static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    size_t at = put_ethernet(frame, all, mac, vlan, type);
    uint8_t *p = frame + at;

    put_be16(p, 1);
    put_be16(p + 2, 0x0800);
    p[4] = 6;
    p[5] = 4;
    put_be16(p + 6, op);
    memcpy(p + 8, mac, 6);
    memcpy(p + 14, ip, 4);
    if (op == 3) {
        memcpy(p + 18, mac, 6);
    }
    memcpy(p + 24, ip, 4);
    return padded(at + 28);
}

/* IPv6 with, if 'alert', the router alert of MLD in front of ICMPv6. */
static size_t
put_ipv6(uint8_t *p, const uint8_t src[16], const uint8_t dst[16], size_t payload, bool alert)
{
    static const uint8_t option[8] = {58, 0, 5, 2, 0, 0, 1, 0};

    p[0] = 0x60;
    put_be16(p + 4, payload + (alert ? 8 : 0));
    p[6] = alert ? 0 : 58;
    p[7] = alert ? 1 : 255;
    memcpy(p + 8, src, 16);
    memcpy(p + 24, dst, 16);
    if (alert) {
        memcpy(p + 40, option, 8);
    }
    return alert ? 48 : 40;
}

static void
put_icmp6_sum(uint8_t *icmp, size_t len, const uint8_t *ip)
{
    put_be16(icmp + 2, fold(sum(sum(len + 58, ip + 8, 32), icmp, len)));
}

/* --- frames -------------------------------------------------------------------- */

size_t
announce_rarp(uint8_t *frame, const uint8_t mac[6], uint16_t vlan)
{
    static const uint8_t none[4];

    return put_arp(frame, mac, vlan, 0x8035, 3, none);
}

static size_t
put_advertisement(uint8_t *frame, const uint8_t mac[6], uint16_t vlan, const uint8_t ip[16])
{
    static const uint8_t all_mac[6] = {0x33, 0x33, 0, 0, 0, 1};
    static const uint8_t all[16] = {0xff, 2, [15] = 1};
    size_t at = put_ethernet(frame, all_mac, mac, vlan, 0x86dd);
    uint8_t *header = frame + at, *icmp;

    at += put_ipv6(header, ip, all, 32, false);
    icmp = frame + at;
    icmp[0] = 136;
    icmp[4] = 0x20; /* override: what is known of the address is old */
    memcpy(icmp + 8, ip, 16);
    icmp[24] = 2;
    icmp[25] = 1;
    memcpy(icmp + 26, mac, 6);
    put_icmp6_sum(icmp, 32, header);
    return at + 32;
}

size_t
announce_address(uint8_t *frame, const uint8_t mac[6], uint16_t vlan, const char *address)
{
    uint8_t ip[16];

    if (inet_pton(AF_INET, address, ip) == 1) {
        return put_arp(frame, mac, vlan, 0x0806, 1, ip);
    }
    if (inet_pton(AF_INET6, address, ip) == 1 && ip[0] != 0xff) {
        return put_advertisement(frame, mac, vlan, ip);
    }
    return 0;
}

static size_t
put_igmp(uint8_t *frame, const uint8_t mac[6], uint16_t vlan, const uint8_t group[4])
{
    uint8_t to[6] = {1, 0, 0x5e, group[1] & 0x7f, group[2], group[3]};
    size_t at = put_ethernet(frame, to, mac, vlan, 0x0800);
    uint8_t *p = frame + at, *igmp = p + 24;

    p[0] = 0x46;
    put_be16(p + 2, 32);
    p[8] = 1;
    p[9] = 2;
    memcpy(p + 16, group, 4);
    p[20] = 0x94; /* router alert */
    p[21] = 4;
    put_be16(p + 10, fold(sum(0, p, 24)));
    igmp[0] = 0x16;
    memcpy(igmp + 4, group, 4);
    put_be16(igmp + 2, fold(sum(0, igmp, 8)));
    return padded(at + 32);
}

static size_t
put_mld(uint8_t *frame, const uint8_t mac[6], uint16_t vlan, const uint8_t group[16])
{
    const uint8_t from[16] = {0xfe,       0x80,   0,      0,    0,    0,      0,      0,
                              mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]};
    uint8_t to[6] = {0x33, 0x33, group[12], group[13], group[14], group[15]};
    size_t at = put_ethernet(frame, to, mac, vlan, 0x86dd);
    uint8_t *header = frame + at, *icmp;

    at += put_ipv6(header, from, group, 24, true);
    icmp = frame + at;
    icmp[0] = 131;
    memcpy(icmp + 8, group, 16);
    put_icmp6_sum(icmp, 24, header);
    return at + 24;
}

size_t
announce_group(uint8_t *frame, const uint8_t mac[6], uint16_t vlan, const char *group)
{
    uint8_t ip[16];

    if (inet_pton(AF_INET, group, ip) == 1) {
        bool link = !memcmp(ip, (uint8_t[]){224, 0, 0}, 3);

        return (ip[0] & 0xf0) == 0xe0 && !link ? put_igmp(frame, mac, vlan, ip) : 0;
    }
    /* Interface-local groups, and all nodes, are not reported. */
    if (inet_pton(AF_INET6, group, ip) == 1 && ip[0] == 0xff && (ip[1] & 0xf) > 1 &&
        memcmp(ip, (uint8_t[16]){0xff, 2, [15] = 1}, 16) != 0) {
        return put_mld(frame, mac, vlan, ip);
    }
    return 0;
}
