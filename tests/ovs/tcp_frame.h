/* tcp_frame: frames for tests, built byte by byte.
 *
 * Independent of the code under test: sums are computed the slow way. */
#ifndef TCP_FRAME_H
#define TCP_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TF_ETH 14u

static inline void
tf_put16(uint8_t *p, uint16_t v)
{
    p[0] = v >> 8;
    p[1] = v;
}

static inline uint16_t
tf_get16(const uint8_t *p)
{
    return p[0] << 8 | p[1];
}

/* One's complement sum of 16-bit words, folded, not complemented. */
static inline uint32_t
tf_sum(uint32_t sum, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

static inline size_t
tf_ip_len(int version)
{
    return version == 4 ? 20 : 40;
}

/* Sum of the pseudo header for 'n' bytes of 'proto'. */
static inline uint16_t
tf_pseudo(const uint8_t *ip, int version, uint8_t proto, size_t n)
{
    uint8_t tail[4] = {0, proto, n >> 8, n};
    uint32_t sum = version == 4 ? tf_sum(0, ip + 12, 8) : tf_sum(0, ip + 8, 32);

    return tf_sum(sum, tail, 4);
}

/* The same and 'n' bytes at 'l4': 0xffff if the checksum in there is right. */
static inline uint16_t
tf_l4_sum(const uint8_t *ip, int version, uint8_t proto, const uint8_t *l4, size_t n)
{
    return tf_sum(tf_pseudo(ip, version, proto, n), l4, n);
}

/* Ethernet and IP header for 'n' bytes of 'proto'. */
static inline size_t
tf_headers(uint8_t *f, int version, uint8_t proto, size_t n)
{
    uint8_t *ip = f + TF_ETH;

    memset(f, 0, TF_ETH + tf_ip_len(version));
    memcpy(f, "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02", 12);
    if (version == 4) {
        tf_put16(f + 12, 0x0800);
        ip[0] = 0x45;
        tf_put16(ip + 2, 20 + n);
        tf_put16(ip + 4, 7);
        ip[8] = 64;
        ip[9] = proto;
        memcpy(ip + 12, "\x0a\x00\x00\x01\x0a\x00\x00\x02", 8);
        tf_put16(ip + 10, ~tf_sum(0, ip, 20));
    } else {
        tf_put16(f + 12, 0x86dd);
        ip[0] = 0x60;
        tf_put16(ip + 4, n);
        ip[6] = proto;
        ip[7] = 64;
        ip[8] = ip[24] = 0xfd;
        ip[23] = 1;
        ip[39] = 2;
    }
    return TF_ETH + tf_ip_len(version);
}

/* A TCP frame of 'size' bytes with the pseudo-header sum in the checksum
 * field.  Payload byte i is i * 7. */
static inline void
tf_tcp(uint8_t *f, int version, size_t size)
{
    size_t l4 = TF_ETH + tf_ip_len(version);
    size_t n = size - l4;

    tf_headers(f, version, 6, n);
    memset(f + l4, 0, 20);
    tf_put16(f + l4, 1000);
    tf_put16(f + l4 + 2, 2000);
    f[l4 + 12] = 0x50;
    f[l4 + 13] = 0x18; /* PSH, ACK */
    for (size_t i = l4 + 20; i < size; i++) {
        f[i] = (i - l4 - 20) * 7;
    }
    tf_put16(f + l4 + 16, tf_pseudo(f + TF_ETH, version, 6, n));
}

#endif
