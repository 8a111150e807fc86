#include <config.h>

#include "synth_flows.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packets.h"
#include "smap.h"
#include "util.h"

/* 10.0.0.0:32768 and up > 10.128.0.1:53: flows differ in source port, then
 * address. Never port 0, which connection tracking refuses. */
#define DEFAULT_SHAPES "0a0000000a80000180000035/0/00ffffff000000007fff0000"

/* Sequence numbers of the two directions: each acknowledges what the other
 * has sent, so that connection tracking finds any number of copies in order. */
#define SEQ_FORTH 1000000u
#define SEQ_BACK 2000000u

/* --- options ----------------------------------------------------------------- */

static int
hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Reads up to 24 hexadecimal digits, right-aligned; NULL if there are none. */
static const char *
parse_tuple(const char *p, struct synth_tuple *t)
{
    unsigned n;

    *t = (struct synth_tuple){.ip = 0};
    for (n = 0; hex_digit(*p) >= 0 && n < 24; n++, p++) {
        t->ip = t->ip << 4 | t->l4 >> 28;
        t->l4 = t->l4 << 4 | hex_digit(*p);
    }
    return n ? p : NULL;
}

/* BASE/ID/ANY */
static const char *
parse_shape(const char *p, struct synth_shape *s)
{
    p = parse_tuple(p, &s->base);
    p = p && *p == '/' ? parse_tuple(p + 1, &s->id) : NULL;
    p = p && *p == '/' ? parse_tuple(p + 1, &s->any) : NULL;
    if (!p || s->base.ip & (s->id.ip | s->any.ip) || s->base.l4 & (s->id.l4 | s->any.l4) ||
        s->id.ip & s->any.ip || s->id.l4 & s->any.l4) {
        return NULL;
    }
    s->id_l4_bits = count_1bits(s->id.l4);
    s->any_l4_bits = count_1bits(s->any.l4);
    return p;
}

static char *
parse_shapes(const char *port, const char *p, struct synth_flows *f)
{
    for (f->n_shapes = 0; p && f->n_shapes < SYNTH_MAX_SHAPES;) {
        p = parse_shape(p, &f->shapes[f->n_shapes++]);
        if (!p || *p != '+') {
            break;
        }
        p++;
    }
    return p && !*p ? NULL
                    : xasprintf("%s: options:shapes: up to %u of BASE/ID/ANY, joined by '+', each "
                                "up to 24 hexadecimal digits, and no bit in two of them",
                                port, SYNTH_MAX_SHAPES);
}

static unsigned
tuple_bits(const struct synth_tuple *t)
{
    return count_1bits(t->ip) + count_1bits(t->l4);
}

/* All flows must differ. */
static char *
check_bits(const char *port, const struct synth_flows *f)
{
    uint64_t n = f->order == SYNTH_FRESH ? UINT64_C(1) << 32 : f->n;
    uint64_t rest = DIV_ROUND_UP(n, (uint64_t)f->n_shapes * f->n_rules);

    for (unsigned i = 0; i < f->n_shapes; i++) {
        const struct synth_shape *s = &f->shapes[i];

        if (f->n_rules > UINT64_C(1) << MIN(tuple_bits(&s->id), 32) ||
            rest > UINT64_C(1) << MIN(tuple_bits(&s->any), 32)) {
            return xasprintf("%s: options:shapes: shape %u has too few bits for %" PRIu64
                             " different flows",
                             port, i, n);
        }
    }
    return NULL;
}

static bool
get_uint(const struct smap *options, const char *key, unsigned fallback, unsigned min, unsigned max,
         unsigned *value)
{
    const char *text = smap_get(options, key);

    *value = fallback;
    return !text || (text[strspn(text, "0123456789")] == '\0' && str_to_uint(text, 10, value) &&
                     *value >= min && *value <= max);
}

static uint64_t
inverse(unsigned n)
{
    return n > 1 ? UINT64_MAX / n + 1 : 0;
}

static uint32_t
sum_words(const uint8_t *p, unsigned n)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < n; i++) {
        sum += p[i] << (i & 1 ? 0 : 8);
    }
    return sum;
}

/* Bytes 'at' to 'at' + n - 1 of the frame come from byte 'from' of the fields. */
static void
place(struct synth_flows *f, unsigned at, unsigned n, unsigned from)
{
    uint8_t *map = (uint8_t *)f->place;

    for (unsigned i = 0; i < n; i++) {
        map[at + i] = from + i;
    }
}

static void
put16(uint8_t *p, uint16_t v)
{
    p[0] = v >> 8;
    p[1] = v;
}

static void
put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

/* The L4 header without ports and checksum. */
static void
put_l4(struct synth_flows *f, uint8_t *l4)
{
    unsigned bytes = f->l3_bytes - IP_HEADER_LEN;

    if (!f->tcp) {
        put16(l4 + 4, bytes);
        return;
    }
    put32(l4 + 4, f->reverse ? SEQ_BACK : SEQ_FORTH);
    put32(l4 + 8, f->reverse ? SEQ_FORTH : SEQ_BACK);
    l4[12] = TCP_HEADER_LEN / 4 << 4;
    l4[13] = TCP_ACK;
    put16(l4 + 14, 0x8000);
}

/* Everything that all frames have in common; vlan < 0: untagged. */
static void
make_template(struct synth_flows *f, struct eth_addr dst, struct eth_addr src, int vlan)
{
    uint8_t *l3 = f->frame + ETH_HEADER_LEN + (vlan >= 0 ? VLAN_HEADER_LEN : 0);
    uint8_t *l4 = l3 + IP_HEADER_LEN;
    unsigned at = l3 - f->frame;

    memset(f->frame, 0, sizeof f->frame);
    memcpy(f->frame, &dst, sizeof dst);
    memcpy(f->frame + ETH_ADDR_LEN, &src, sizeof src);
    if (vlan >= 0) {
        put16(f->frame + 12, ETH_TYPE_VLAN_8021Q);
        put16(f->frame + 14, vlan);
    }
    put16(l3 - 2, ETH_TYPE_IP);
    /* TCP carries nothing: the rest of its frame is Ethernet padding. */
    f->l3_bytes = f->tcp ? IP_HEADER_LEN + TCP_HEADER_LEN : f->size - at;
    l3[0] = 0x45;
    put16(l3 + 2, f->l3_bytes);
    put16(l3 + 6, IP_DONT_FRAGMENT);
    l3[8] = 64;
    l3[9] = f->tcp ? IPPROTO_TCP : IPPROTO_UDP;
    put_l4(f, l4);
    f->l3_sum = sum_words(l3, IP_HEADER_LEN);
    f->l4_sum = sum_words(l4, f->l3_bytes - IP_HEADER_LEN) + l3[9] + f->l3_bytes - IP_HEADER_LEN;

    memset(f->place, 0x80, sizeof f->place);
    place(f, at + 12, 8, 0);            /* addresses */
    place(f, at + IP_HEADER_LEN, 4, 8); /* ports */
    place(f, at + 10, 2, 12);           /* IP checksum */
    place(f, at + IP_HEADER_LEN + (f->tcp ? 16 : 6), 2, 14);
}

char *
synth_flows_parse(const char *port, const struct smap *options, struct synth_flows *f)
{
    const char *order = smap_get_def(options, "order", "random");
    const char *proto = smap_get_def(options, "proto", "udp");
    struct eth_addr src, dst;
    const char *attacked;
    unsigned vlan;
    char *error;

    if (!get_uint(options, "flows", 0, 0, UINT32_MAX, &f->n) ||
        !get_uint(options, "size", SYNTH_SIZE_MIN, SYNTH_SIZE_MIN, SYNTH_SIZE_MAX, &f->size) ||
        !get_uint(options, "rules", 1, 1, 1u << 20, &f->n_rules) ||
        !get_uint(options, "attack", 0, 0, 1000000, &f->attack_rate) ||
        !get_uint(options, "vlan", 0, 0, 4095, &vlan)) {
        return xasprintf("%s: options: flows (0 or more), size (%u to %u), rules (1 to 1048576), "
                         "attack (0 to 1000000) and vlan (0 to 4095) are numbers",
                         port, SYNTH_SIZE_MIN, SYNTH_SIZE_MAX);
    }
    if (strcmp(order, "random") && strcmp(order, "fresh")) {
        return xasprintf("%s: options:order is random or fresh", port);
    }
    if (strcmp(proto, "udp") && strcmp(proto, "tcp")) {
        return xasprintf("%s: options:proto is udp or tcp", port);
    }
    if (!eth_addr_from_string(smap_get_def(options, "src_mac", "02:00:00:00:00:01"), &src) ||
        !eth_addr_from_string(smap_get_def(options, "dst_mac", "02:00:00:00:00:02"), &dst)) {
        return xasprintf("%s: options: src_mac and dst_mac are Ethernet addresses", port);
    }
    f->order = order[0] == 'r' ? SYNTH_RANDOM : SYNTH_FRESH;
    f->tcp = proto[0] == 't';
    f->reverse = smap_get_bool(options, "reverse", false);
    f->hash_seed = smap_get_uint(options, "hash_seed", 0);
    attacked = parse_tuple(smap_get_def(options, "attacked", "0"), &f->attacked);
    if (!attacked || *attacked) {
        return xasprintf("%s: options:attacked is a tuple of up to 24 hexadecimal digits", port);
    }
    error = parse_shapes(port, smap_get_def(options, "shapes", DEFAULT_SHAPES), f);
    error = error ? error : check_bits(port, f);
    if (!error) {
        f->plain = f->n_shapes == 1 && f->n_rules == 1;
        f->inverse_shapes = inverse(f->n_shapes);
        f->inverse_rules = inverse(f->n_rules);
        make_template(f, dst, src, smap_get(options, "vlan") ? (int)vlan : -1);
    }
    return error;
}

/* --- flows -------------------------------------------------------------------- */

void
synth_source_init(struct synth_source *s, const struct synth_flows *f, unsigned i, unsigned n)
{
    uint64_t all = f->order == SYNTH_FRESH ? UINT64_C(1) << 32 : f->n;

    s->first = all * i / n;
    s->count = all * (i + 1) / n - s->first;
    s->random = 88172645463325252u + i;
    s->turn = 0;
}

/* 'value' with bit 'at' of 'width', counted from the top, flipped and random
 * ones below; 'width' itself leaves the value alone. */
static uint32_t
leave_at(uint32_t value, unsigned width, unsigned at, uint32_t random)
{
    uint32_t flip = at < width ? 1u << (width - 1 - at) : 0;

    return value ^ flip ^ (flip ? random & (flip - 1) : 0);
}

struct synth_tuple
synth_attack_tuple(const struct synth_flows *f, uint64_t random, uint32_t n)
{
    struct synth_tuple t = f->attacked;
    unsigned i = n % 33, j = n / 33 % 17, k = n / (33 * 17) % 17;

    t.ip = (uint64_t)leave_at(t.ip >> 32, 32, i, random) << 32 | (uint32_t)t.ip;
    t.l4 = leave_at(t.l4 >> 16, 16, j, random >> 16) << 16 |
           leave_at(t.l4 & 0xffff, 16, k, random >> 32);
    return t;
}

static uint32_t
divide(uint32_t n, uint64_t inverse)
{
    return inverse ? (uint32_t)((unsigned __int128)n * inverse >> 64) : n;
}

struct synth_tuple
synth_shaped_tuple(const struct synth_flows *f, uint32_t n)
{
    uint32_t above = divide(n, f->inverse_shapes);
    const struct synth_shape *shape = &f->shapes[n - above * f->n_shapes];
    uint32_t rest = divide(above, f->inverse_rules);
    struct synth_tuple id, any;

    id = synth_deposit(above - rest * f->n_rules, &shape->id, shape->id_l4_bits);
    any = synth_deposit(rest, &shape->any, shape->any_l4_bits);
    return (struct synth_tuple){.ip = shape->base.ip | id.ip | any.ip,
                                .l4 = shape->base.l4 | id.l4 | any.l4};
}
