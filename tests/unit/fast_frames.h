/* fast_frames: frames for tests of the fast path: well-formed ones, and random
 * ones that are nearly so. */
#ifndef FAST_FRAMES_H
#define FAST_FRAMES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define FRAME_MAX 256u

static inline uint32_t
frame_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (*state * UINT64_C(0x2545f4914f6cdd1d)) >> 32;
}

static inline void
frame_put16(uint8_t *p, unsigned v)
{
    p[0] = v >> 8;
    p[1] = v;
}

/* One in 'n'. */
static inline bool
frame_chance(uint64_t *s, unsigned n)
{
    return frame_random(s) % n == 0;
}

#define FRAME_PICK(s, ...)                                                                         \
    ((const unsigned[]){__VA_ARGS__})[frame_random(s) %                                            \
                                      (sizeof(const unsigned[]){__VA_ARGS__} / sizeof(unsigned))]

/* L4 of 'proto' at 'd'; returns its length. */
static inline unsigned
frame_l4(uint64_t *s, uint8_t *d, unsigned proto)
{
    unsigned words;

    switch (proto) {
    case 6:
        words = frame_chance(s, 8) ? FRAME_PICK(s, 0, 4, 5, 6, 8, 15) : 5;
        frame_put16(d, FRAME_PICK(s, 1, 2, 1000));
        frame_put16(d + 2, FRAME_PICK(s, 22, 80, 443));
        frame_put16(d + 12, words << 12 | (frame_random(s) & 0xfff));
        return (words < 5 ? 20 : words * 4) + frame_random(s) % 8;
    case 17:
        frame_put16(d, FRAME_PICK(s, 1, 2, 1000));
        frame_put16(d + 2, FRAME_PICK(s, 53, 4789));
        return 8 + frame_random(s) % 24;
    case 132:
        frame_put16(d, FRAME_PICK(s, 1, 2));
        frame_put16(d + 2, FRAME_PICK(s, 7, 9));
        return 12 + frame_random(s) % 8;
    case 1:
    case 2:
        d[0] = FRAME_PICK(s, 0, 3, 8);
        d[1] = FRAME_PICK(s, 0, 1);
        return 8 + frame_random(s) % 24;
    case 58:
        d[0] = FRAME_PICK(s, 128, 129, 135, 136, 1);
        d[1] = FRAME_PICK(s, 0, 0, 1);
        memset(d + 8, 0xfe, 24);
        d[24] = FRAME_PICK(s, 1, 2, 14);
        d[25] = FRAME_PICK(s, 0, 1, 2);
        return FRAME_PICK(s, 4, 8, 23, 24, 32, 40);
    default:
        return frame_random(s) % 32;
    }
}

static inline unsigned
frame_ip4(uint64_t *s, uint8_t *d)
{
    unsigned proto = FRAME_PICK(s, 6, 6, 6, 17, 17, 17, 1, 2, 132, 58, 47, 0, 255), len;
    unsigned header = frame_chance(s, 12) ? FRAME_PICK(s, 0, 16, 24, 60) : 20;

    d[0] = 0x40 | header / 4;
    d[1] = FRAME_PICK(s, 0, 0, 0x10, 0xb8, 3);
    frame_put16(d + 6, frame_chance(s, 8) ? FRAME_PICK(s, 0x2000, 1, 0x1fff, 0x8000, 0x3000)
                                          : FRAME_PICK(s, 0, 0x4000));
    d[8] = 64;
    d[9] = proto;
    for (unsigned i = 12; i < 20; i++) {
        d[i] = FRAME_PICK(s, 10, 11);
    }
    len = (header > 20 ? header : 20) + frame_l4(s, d + (header > 20 ? header : 20), proto);
    frame_put16(d + 2, frame_chance(s, 12) ? len + frame_random(s) % 40 - 20 : len);
    return len;
}

static inline unsigned
frame_ip6(uint64_t *s, uint8_t *d)
{
    unsigned next = FRAME_PICK(s, 6, 6, 17, 17, 58, 58, 132, 59, 0, 43, 44, 51, 60, 50, 135, 1, 2),
             len = 0, proto = next;

    d[0] = 0x60 | (frame_random(s) & 1);
    d[1] = FRAME_PICK(s, 0, 0x10, 0x81);
    frame_put16(d + 2, FRAME_PICK(s, 0, 0x1234));
    d[6] = next;
    d[7] = 255;
    for (unsigned i = 8; i < 40; i++) {
        d[i] = FRAME_PICK(s, 0, 0xfd);
    }
    if (next == 0 || next == 43 || next == 44 || next == 51 || next == 60) {
        proto = FRAME_PICK(s, 6, 17, 58);
        d[40] = proto;
        d[41] = next == 51 ? FRAME_PICK(s, 0, 1) : 0;
        frame_put16(d + 42, FRAME_PICK(s, 0, 1, 8));
        len = 8;
    }
    len += frame_l4(s, d + 40 + len, proto);
    frame_put16(d + 4, frame_chance(s, 12) ? len + frame_random(s) % 20 - 10 : len);
    return 40 + len;
}

/* A random frame into 'd' (FRAME_MAX bytes); returns its length.  Fields come
 * from few values, so that equal keys happen. */
static inline unsigned
frame_build_random(uint64_t *s, uint8_t *d)
{
    unsigned ofs = 12, len, type;

    memset(d, 0, FRAME_MAX);
    for (unsigned i = 0; i < 12; i++) {
        d[i] = FRAME_PICK(s, 0, 2, 2, 2);
    }
    for (unsigned tags = FRAME_PICK(s, 0, 0, 0, 1, 1, 2); tags; tags--) {
        frame_put16(d + ofs, frame_chance(s, 6) ? FRAME_PICK(s, 0x88a8, 0x9100) : 0x8100);
        frame_put16(d + ofs + 2, FRAME_PICK(s, 0, 1, 100, 0x1064, 0xe064, 0xffff));
        ofs += 4;
    }
    type = FRAME_PICK(s, 0x0800, 0x0800, 0x0800, 0x0800, 0x86dd, 0x86dd, 0x86dd, 0x0806, 0x8035,
                      0x8847, 0x8848, 0x894f, 0x88cc, 0x05ff, 0x0600, 40);
    frame_put16(d + ofs, type);
    ofs += 2;
    if (type == 0x0800) {
        len = ofs + frame_ip4(s, d + ofs);
    } else if (type == 0x86dd) {
        len = ofs + frame_ip6(s, d + ofs);
    } else {
        unsigned body = frame_random(s) % 64;
        for (unsigned i = 0; i < body; i++) {
            d[ofs + i] = FRAME_PICK(s, 0, 1, 6, 8, 0xaa, 3);
        }
        len = ofs + body;
    }
    if (frame_chance(s, 2)) {
        len = len < 60 ? 60 : len + frame_random(s) % 8; /* padding */
    }
    if (frame_chance(s, 12)) {
        len = frame_random(s) % (len + 1);
    }
    for (unsigned n = frame_chance(s, 8) ? 1 + frame_random(s) % 3 : 0; n && len; n--) {
        d[frame_random(s) % len] ^= 1u << frame_random(s) % 8;
    }
    return len;
}

/* What a plain UDP frame of 60 bytes says. */
struct frame_udp {
    uint32_t src, dst; /* host order */
    uint16_t sport, dport;
    uint16_t tci;  /* 0: no tag */
    uint8_t proto; /* 0: UDP */
    uint8_t tcp_flags;
    bool ip6; /* addresses end in 'src' and 'dst' */
};

/* A well-formed frame of 64 or more bytes; returns its length. */
static inline unsigned
frame_build_udp(uint8_t *d, const struct frame_udp *f)
{
    static const uint8_t macs[12] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};
    unsigned ofs = 12, proto = f->proto ? f->proto : 17;
    uint8_t *ip, *l4;

    memset(d, 0, FRAME_MAX);
    memcpy(d, macs, 12);
    if (f->tci) {
        frame_put16(d + 12, 0x8100);
        frame_put16(d + 14, f->tci);
        ofs = 16;
    }
    frame_put16(d + ofs, f->ip6 ? 0x86dd : 0x0800);
    ip = d + ofs + 2;
    l4 = ip + (f->ip6 ? 40 : 20);
    if (f->ip6) {
        ip[0] = 0x60;
        frame_put16(ip + 4, 24);
        ip[6] = proto;
        ip[8] = ip[24] = 0xfd;
        frame_put16(ip + 20, f->src >> 16);
        frame_put16(ip + 22, f->src);
        frame_put16(ip + 36, f->dst >> 16);
        frame_put16(ip + 38, f->dst);
    } else {
        ip[0] = 0x45;
        frame_put16(ip + 2, 20 + 24);
        ip[8] = 64;
        ip[9] = proto;
        frame_put16(ip + 12, f->src >> 16);
        frame_put16(ip + 14, f->src);
        frame_put16(ip + 16, f->dst >> 16);
        frame_put16(ip + 18, f->dst);
    }
    frame_put16(l4, f->sport);
    frame_put16(l4 + 2, f->dport);
    if (proto == 6) {
        frame_put16(l4 + 12, 0x5000 | f->tcp_flags);
    }
    return (l4 - d) + 24 < 64 ? 64 : (l4 - d) + 24;
}

#endif
