/* frames: random frames for tests, few values per field so that many of them
 * are alike in all but one thing, and some of everything that is malformed. */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FRAME_MAX 256u

struct frames {
    uint64_t state; /* seed; not 0 */
};

static inline uint32_t
frames_random(struct frames *f)
{
    f->state ^= f->state << 13;
    f->state ^= f->state >> 7;
    f->state ^= f->state << 17;
    return f->state >> 32;
}

static inline uint32_t
frames_below(struct frames *f, uint32_t n)
{
    return frames_random(f) % n;
}

static inline bool
frames_chance(struct frames *f, unsigned percent)
{
    return frames_below(f, 100) < percent;
}

#define FRAMES_PICK(f, ...)                                                                        \
    (((const uint32_t[]){__VA_ARGS__})[frames_below(f, sizeof((const uint32_t[]){__VA_ARGS__}) /   \
                                                           sizeof(uint32_t))])

struct frame {
    uint8_t data[FRAME_MAX];
    size_t len;
};

static inline void
frame_put(struct frame *fr, uint64_t value, unsigned bytes)
{
    while (bytes--) {
        fr->data[fr->len++] = value >> (bytes * 8);
    }
}

static inline void
frame_tcp(struct frames *f, struct frame *fr)
{
    frame_put(fr, FRAMES_PICK(f, 80, 443), 2);
    frame_put(fr, FRAMES_PICK(f, 80, 1024), 2);
    frame_put(fr, frames_random(f), 4);
    frame_put(fr, frames_random(f), 4);
    frame_put(fr,
              (frames_chance(f, 85) ? 5 : FRAMES_PICK(f, 4, 6, 8, 15)) << 12 |
                  FRAMES_PICK(f, 0x02, 0x10, 0x11, 0x800),
              2);
    frame_put(fr, 8192, 2);
    frame_put(fr, 0, 4);
}

/* An ND option: link-layer addresses of both kinds, others, lengths of 0. */
static inline void
frame_nd_option(struct frames *f, struct frame *fr)
{
    frame_put(fr, FRAMES_PICK(f, 1, 2, 1, 2, 5), 1);
    frame_put(fr, FRAMES_PICK(f, 1, 1, 1, 0, 2), 1);
    frame_put(fr, FRAMES_PICK(f, 0, 0x02000000), 4);
    frame_put(fr, FRAMES_PICK(f, 0, 1), 2);
}

static inline void
frame_icmp6(struct frames *f, struct frame *fr)
{
    frame_put(fr, FRAMES_PICK(f, 128, 129, 135, 136), 1);
    frame_put(fr, frames_chance(f, 90) ? 0 : 1, 1);
    frame_put(fr, frames_random(f), 2);
    frame_put(fr, FRAMES_PICK(f, 0, 0xe0ff00ff), 4);
    if (frames_chance(f, 80)) {
        frame_put(fr, 0xfe800000, 4);
        frame_put(fr, 0, 8);
        frame_put(fr, FRAMES_PICK(f, 1, 2), 4);
        for (unsigned n = frames_below(f, 3); n; n--) {
            frame_nd_option(f, fr);
        }
    }
}

static inline void
frame_l4(struct frames *f, struct frame *fr, uint8_t proto)
{
    switch (proto) {
    case 6:
        frame_tcp(f, fr);
        break;
    case 58:
        frame_icmp6(f, fr);
        break;
    case 1:
    case 2:
        frame_put(fr, FRAMES_PICK(f, 0, 8, 0x11, 0x16), 1);
        frame_put(fr, FRAMES_PICK(f, 0, 1), 1);
        frame_put(fr, frames_random(f), 2);
        frame_put(fr, FRAMES_PICK(f, 0xe0000001, 0xe0000002), 4);
        break;
    default:
        frame_put(fr, FRAMES_PICK(f, 80, 53), 2);
        frame_put(fr, FRAMES_PICK(f, 80, 53), 2);
        frame_put(fr, frames_random(f), 4);
        frame_put(fr, frames_random(f), 4);
        break;
    }
}

static inline uint8_t
frames_proto(struct frames *f)
{
    return FRAMES_PICK(f, 6, 6, 6, 17, 17, 17, 1, 1, 58, 58, 2, 132, 47, 0, 50, 44, 60, 51, 59);
}

/* Writes the length that the IP header says at 'at': mostly 'len'. */
static inline void
frame_ip_length(struct frames *f, struct frame *fr, size_t at, uint32_t len)
{
    len += frames_chance(f, 92) ? 0 : FRAMES_PICK(f, 1, 8, (uint32_t)-1, (uint32_t)-9, -len);
    fr->data[at] = len >> 8;
    fr->data[at + 1] = len;
}

static inline void
frame_ipv4(struct frames *f, struct frame *fr)
{
    size_t start = fr->len;
    unsigned ihl = frames_chance(f, 92) ? 5 : FRAMES_PICK(f, 4, 6, 7, 15);
    uint8_t proto = frames_proto(f);

    frame_put(fr, (frames_chance(f, 97) ? 0x40 : 0x50) | ihl, 1);
    frame_put(fr, FRAMES_PICK(f, 0, 0, 0xb8, 1), 1);
    frame_put(fr, 0, 2);
    frame_put(fr, frames_random(f), 2);
    frame_put(fr,
              frames_chance(f, 85) ? FRAMES_PICK(f, 0, 0x4000)
                                   : FRAMES_PICK(f, 0x2000, 0x2001, 0x0010, 0x8000),
              2);
    frame_put(fr, FRAMES_PICK(f, 64, 63, 1), 1);
    frame_put(fr, proto, 1);
    frame_put(fr, frames_random(f), 2);
    frame_put(fr, FRAMES_PICK(f, 0x0a000001, 0x0a000002, 0x0a010001), 4);
    frame_put(fr, FRAMES_PICK(f, 0x0a000001, 0x0a000002, 0xe0000001), 4);
    for (unsigned i = 5; i < ihl && i < 8; i++) {
        frame_put(fr, 0x01010101, 4);
    }
    frame_l4(f, fr, proto);
    frame_ip_length(f, fr, start + 2, fr->len - start);
}

static inline void
frame_ipv6(struct frames *f, struct frame *fr)
{
    size_t start = fr->len;
    uint8_t proto = frames_proto(f);

    frame_put(fr,
              (frames_chance(f, 97) ? 0x60000000 : 0x40000000) |
                  FRAMES_PICK(f, 0, 0x0b800000, 0x00012345),
              4);
    frame_put(fr, 0, 2);
    frame_put(fr, proto, 1);
    frame_put(fr, FRAMES_PICK(f, 64, 255), 1);
    for (unsigned i = 0; i < 2; i++) {
        frame_put(fr, 0xfe800000, 4);
        frame_put(fr, 0, 4);
        frame_put(fr, FRAMES_PICK(f, 0, 0x02000000), 4);
        frame_put(fr, FRAMES_PICK(f, 1, 2), 4);
    }
    if (proto == 0 || proto == 60 || proto == 44 || proto == 51) {
        uint8_t next = FRAMES_PICK(f, 6, 17, 58);

        frame_put(fr, next, 1);
        frame_put(fr, FRAMES_PICK(f, 0, 0, 1), 1);
        frame_put(fr, FRAMES_PICK(f, 0, 1, 8, 9), 2);
        frame_put(fr, 0, 4);
        frame_l4(f, fr, next);
    } else {
        frame_l4(f, fr, proto);
    }
    frame_ip_length(f, fr, start + 4, fr->len - start - 40);
}

static inline void
frame_arp(struct frames *f, struct frame *fr)
{
    frame_put(fr, frames_chance(f, 95) ? 1 : 2, 2);
    frame_put(fr, 0x0800, 2);
    frame_put(fr, 0x0604, 2);
    frame_put(fr, FRAMES_PICK(f, 1, 2, 0x0101), 2);
    for (unsigned i = 0; i < 2; i++) {
        frame_put(fr, 0x0200, 2);
        frame_put(fr, FRAMES_PICK(f, 1, 2), 4);
        frame_put(fr, FRAMES_PICK(f, 0x0a000001, 0x0a000002), 4);
    }
}

static inline void
frame_payload(struct frames *f, struct frame *fr, uint16_t type)
{
    switch (type) {
    case 0x0800:
        frame_ipv4(f, fr);
        break;
    case 0x86dd:
        frame_ipv6(f, fr);
        break;
    case 0x0806:
    case 0x8035:
        frame_arp(f, fr);
        break;
    case 0x8847:
        frame_put(fr, FRAMES_PICK(f, 0x00010140, 0x00020040), 4);
        frame_put(fr, FRAMES_PICK(f, 0x00030140, 0x00040140), 4);
        frame_ipv4(f, fr);
        break;
    case 0x894f:
        frame_put(fr, FRAMES_PICK(f, 0x0fc60103, 0x0fc20203), 4);
        frame_put(fr, FRAMES_PICK(f, 0x00000101, 0x000001ff), 4);
        for (unsigned i = 0; i < 4; i++) {
            frame_put(fr, FRAMES_PICK(f, 0, 1), 4);
        }
        break;
    case 0x0040: /* a length: 802.2, SNAP or not */
        frame_put(fr, FRAMES_PICK(f, 0xaaaa0300, 0x42420300), 4);
        frame_put(fr, 0, 2);
        type = FRAMES_PICK(f, 0x0800, 0x0806, 0x88cc, 0x0100);
        frame_put(fr, type, 2);
        if (type != 0x0040) {
            frame_payload(f, fr, type);
        }
        break;
    default:
        frame_put(fr, frames_random(f), 4);
        frame_put(fr, frames_random(f), 4);
        break;
    }
}

static inline uint16_t
frames_type(struct frames *f)
{
    return FRAMES_PICK(f, 0x0800, 0x0800, 0x0800, 0x0800, 0x0800, 0x86dd, 0x86dd, 0x86dd, 0x86dd,
                       0x0806, 0x8035, 0x0040, 0x8847, 0x894f, 0x88cc, 0x9000);
}

/* At least an Ethernet header. */
static inline void
frame_random(struct frames *f, struct frame *fr)
{
    uint16_t type = frames_type(f);

    memset(fr, 0, sizeof *fr);
    frame_put(fr, 0x0200, 2);
    frame_put(fr, FRAMES_PICK(f, 1, 2), 4);
    frame_put(fr, 0x0200, 2);
    frame_put(fr, FRAMES_PICK(f, 1, 0x100), 4);
    if (frames_chance(f, 35)) {
        frame_put(fr, frames_chance(f, 92) ? 0x8100 : 0x88a8, 2);
        frame_put(fr, FRAMES_PICK(f, 0x0005, 0x1005, 0x2005, 0x0006, 0), 2);
        if (frames_chance(f, 10)) {
            frame_put(fr, FRAMES_PICK(f, 0x8100, 0x88a8), 2);
            frame_put(fr, FRAMES_PICK(f, 7, 8), 2);
        }
    }
    frame_put(fr, type, 2);
    frame_payload(f, fr, type);
    if (frames_chance(f, 5)) {
        fr->len -= frames_below(f, fr->len - 14 + 1);
    } else if (frames_chance(f, 20)) {
        frame_put(fr, 0, 1 + frames_below(f, 4)); /* padding; bytes of 0 */
    }
}

#endif
