#include "cls_shapes.h"

#include <string.h>

const char *const cls_shape_names[CLS_N_SHAPES] = {"random", "structured", "vifs",       "exact",
                                                   "attack", "attack-acl", "attack-ip6", "bits"};

enum {
    IN_PORT = SHAPE_IN_PORT,
    RECIRC = 47,
    PACKET_TYPE = 48,
    ETH = 52,
    IP4 = 58,
    IP6 = 60,
    IP = 68,
    L4 = 80
};

struct wide {
    uint64_t mask[SHAPE_WORDS], value[SHAPE_WORDS];
};

/* 'n' bytes at an offset into a word, first byte first. */
static void
set(struct wide *w, unsigned word, unsigned offset, unsigned n, uint64_t value, uint64_t mask)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned shift = 8 * (n - 1 - i);
        ((uint8_t *)&w->mask[word])[offset + i] = mask >> shift;
        ((uint8_t *)&w->value[word])[offset + i] = (value & mask) >> shift;
    }
}

static uint64_t
prefix(unsigned bits, unsigned of)
{
    return bits ? (~UINT64_C(0) << (64 - bits)) >> (64 - of) : 0;
}

static void
finish(struct shape_rule *r, const struct wide *w)
{
    unsigned n = 0;

    memset(r, 0, sizeof *r);
    for (unsigned i = 0; i < SHAPE_WORDS; i++) {
        if (w->mask[i]) {
            r->idx[n] = i;
            r->mask[n] = w->mask[i];
            r->value[n++] = w->value[i];
        }
    }
    r->rule = (struct cls_rule){.n_words = n, .idx = r->idx, .mask = r->mask, .value = r->value};
}

static void
set_ip4(struct wide *w, uint32_t src, unsigned src_bits, uint32_t dst, unsigned dst_bits)
{
    set(w, IP4, 0, 4, src, prefix(src_bits, 32));
    set(w, IP4, 4, 4, dst, prefix(dst_bits, 32));
}

static void
prefixes(struct wide *w, bool structured, unsigned n_masks, uint64_t *s)
{
    unsigned k = shape_random(s) % (n_masks ? n_masks : 80);
    /* The k-th mask in an order that mixes them: of 80, or of all there are. */
    unsigned c = k * 37 % 80, src_bits = c % 5 * 8, dst_bits = (c / 5 % 4 + 1) * 8;
    uint32_t src = shape_random(s), dst = shape_random(s);
    uint16_t sport = shape_random(s), dport = shape_random(s);

    if (structured) {
        src = 10u << 24 | (src % 16) << 16 | ((src >> 8) % 32) << 8 | src >> 24;
        dst = 192u << 24 | 168u << 16 | (dst % 32) << 8 | dst >> 24;
        sport = 1024 + sport % 1024;
        dport = dport % 64;
    }
    if (n_masks > 80) {
        c = k * 20;
        src_bits = k * 7 % 33;
        dst_bits = 8 + k / 33 % 25;
    }
    set_ip4(w, src, src_bits, dst, dst_bits);
    set(w, L4, 0, 2, sport, c / 20 & 1 ? 0xffff : 0);
    set(w, L4, 2, 2, dport, c / 20 & 2 ? 0xffff : 0);
}

static void
tenant(struct wide *w, uint64_t *s)
{
    unsigned vif = shape_random(s) % 64, kind = shape_random(s) % 8;
    uint32_t far = shape_random(s);

    set(w, IN_PORT, 4, 4, vif + 1, 0xffffffff);
    set(w, ETH, 0, 6, UINT64_C(0x0016100000) + shape_random(s) % 256, prefix(48, 48));
    if (kind & 1) {
        set(w, ETH, 6, 2, 0x0016, 0xffff);
        set(w, ETH + 1, 0, 4, 0x20000000 + vif, 0xffffffff);
    }
    if (kind < 2) {
        return; /* layer 2 only */
    }
    set_ip4(w, 10u << 24 | vif << 8 | far % 8, 32, far, (kind & 3) * 8 + far % 9);
    if (kind > 3) {
        set(w, L4, 2, 2, (far >> 8) % 1024, kind > 5 ? 0xffff : 0xff80);
    }
    if (kind > 5) {
        set(w, L4, 0, 2, far >> 16, 0xffff);
    }
}

/* How many leading bits prove that a value of 'width' bits is none of the
 * 'n' others, or which it is. */
static unsigned
unwildcard(uint64_t value, unsigned width, const uint64_t others[], unsigned n)
{
    unsigned bits = 1;

    for (unsigned i = 0; i < n; i++) {
        uint64_t x = (value ^ others[i]) << (64 - width);
        unsigned same = x ? (unsigned)__builtin_clzll(x) : width;
        bits = same + 1 > bits ? same + 1 : bits;
    }
    return bits < width ? bits : width;
}

/* A value that leaves the way to one of the others at a random bit, and how
 * much of it must be looked at. */
static uint64_t
stray(unsigned width, unsigned salt, unsigned n, unsigned *bits, uint64_t *s)
{
    uint64_t others[32], fixed = salt * UINT64_C(0x9e3779b97f4a7c15) + 1;
    unsigned at = shape_random(s) % width;

    for (unsigned i = 0; i < n; i++) {
        others[i] = shape_random(&fixed) >> (64 - width);
    }
    uint64_t value = others[shape_random(s) % n] ^ UINT64_C(1) << at;
    value ^= shape_random(s) & ((UINT64_C(1) << at) - 1);
    *bits = unwildcard(value, width, others, n);
    return value;
}

static void
attack(struct wide *w, unsigned n, uint64_t *s)
{
    unsigned src_bits, sport_bits, dport_bits;
    uint32_t src = stray(32, 1, n, &src_bits, s);
    uint16_t sport = stray(16, 2, n, &sport_bits, s), dport = stray(16, 3, n, &dport_bits, s);

    set_ip4(w, src, src_bits, 0, 0);
    set(w, L4, 0, 2, sport, prefix(sport_bits, 16));
    set(w, L4, 2, 2, dport, prefix(dport_bits, 16));
}

static void
attack_ip6(struct wide *w, uint64_t *s)
{
    for (unsigned i = 0; i < 2; i++) {
        unsigned bits;
        bool second = shape_random(s) % 2;
        uint64_t a = stray(64, 10 + 2 * i, 1, &bits, s);
        if (second) {
            uint64_t fixed = (10 + 2 * i) * UINT64_C(0x9e3779b97f4a7c15) + 1;
            set(w, IP6 + 2 * i, 0, 8, shape_random(&fixed), ~UINT64_C(0));
            a = stray(64, 11 + 2 * i, 1, &bits, s);
        }
        set(w, IP6 + 2 * i + second, 0, 8, a, prefix(bits, 64));
    }
    unsigned bits;
    uint16_t port = stray(16, 20, 1, &bits, s);
    set(w, L4, 2, 2, port, prefix(bits, 16));
}

static void
any_bits(struct wide *w, uint64_t *s)
{
    static const uint8_t words[] = {ETH, IP4, L4};

    for (unsigned i = 0; i < 3; i++) {
        uint64_t mask = shape_random(s) & shape_random(s) & shape_random(s);
        set(w, words[i], 0, 8, shape_random(s), shape_random(s) % 4 ? mask : 0);
    }
}

void
shape_rule_make(struct shape_rule *r, enum cls_shape shape, unsigned n_masks, uint64_t *seed)
{
    struct wide w = {0};

    set(&w, IN_PORT, 4, 4, 1, 0xffffffff);
    set(&w, RECIRC, 0, 4, 0, 0xffffffff);
    set(&w, PACKET_TYPE, 4, 4, 0, 0xffffffff);
    set(&w, ETH + 1, 4, 2, shape == CLS_SHAPE_ATTACK_IP6 ? 0x86dd : 0x0800, 0xffff);
    set(&w, IP, 4, 1, 0, 0xff);
    set(&w, IP, 7, 1, shape_random(seed) % 8 && shape != CLS_SHAPE_ATTACK ? 6 : 17, 0xff);
    switch (shape) {
    case CLS_SHAPE_VIFS:
        tenant(&w, seed);
        break;
    case CLS_SHAPE_EXACT:
        set_ip4(&w, shape_random(seed), 32, shape_random(seed), 32);
        set(&w, L4, 0, 4, shape_random(seed), 0xffffffff);
        break;
    case CLS_SHAPE_ATTACK:
        attack(&w, 1, seed);
        break;
    case CLS_SHAPE_ATTACK_ACL:
        attack(&w, 20, seed);
        break;
    case CLS_SHAPE_ATTACK_IP6:
        attack_ip6(&w, seed);
        break;
    case CLS_SHAPE_BITS:
        any_bits(&w, seed);
        break;
    default:
        prefixes(&w, shape == CLS_SHAPE_STRUCTURED, n_masks, seed);
        break;
    }
    finish(r, &w);
}

void
shape_key_of(uint64_t key[SHAPE_WORDS], const struct shape_rule *r, uint64_t *seed)
{
    for (unsigned i = 0; i < SHAPE_WORDS; i++) {
        key[i] = shape_random(seed);
    }
    for (unsigned i = 0; i < r->rule.n_words; i++) {
        key[r->idx[i]] = (key[r->idx[i]] & ~r->mask[i]) | r->value[i];
    }
}

bool
shape_matches(const struct cls_rule *r, const uint64_t *key)
{
    for (unsigned i = 0; i < r->n_words; i++) {
        if ((key[r->idx[i]] & r->mask[i]) != r->value[i]) {
            return false;
        }
    }
    return true;
}
