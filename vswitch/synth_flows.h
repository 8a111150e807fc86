/* synth_flows: the frames that a benchmark port hands out.
 *
 * A frame is an IPv4 UDP or TCP packet whose 5-tuple is computed from a flow
 * number.  Nothing is looked up per flow, so a million flows cost no more
 * cache than one, and the datapath has its own to itself.
 *
 * A tuple is 96 bits: source and destination address, source and destination
 * port, in host byte order.  It is made of a shape, a rule of the shape and
 * the rest of the flow number n:
 *
 *   shape = n % n_shapes, rule = n / n_shapes % n_rules, rest = what is left
 *   tuple = shape.base | deposit(rule, shape.id) | deposit(rest, shape.any)
 *
 * where deposit() puts the bits of a number, lowest first, into the places
 * that are set in a mask (first of the ports, then of the addresses).  An
 * access rule for (shape, rule) thus matches all bits but those of 'any'.
 *
 * Threads: a struct synth_source belongs to one thread; it and its peers
 * share a struct synth_flows that does not change. */
#ifndef SYNTH_FLOWS_H
#define SYNTH_FLOWS_H

#include <stdbool.h>
#include <stdint.h>

#include <immintrin.h>

struct smap;

#define SYNTH_MAX_SHAPES 64u
#define SYNTH_SIZE_MIN 64u
#define SYNTH_SIZE_MAX 1518u

struct synth_tuple {
    uint64_t ip; /* source << 32 | destination */
    uint32_t l4; /* source << 16 | destination */
};

struct synth_shape {
    struct synth_tuple base, id, any;
    uint8_t id_l4_bits, any_l4_bits; /* bits set in id.l4 and any.l4 */
};

enum synth_order {
    SYNTH_RANDOM, /* each flow once, then at random */
    SYNTH_FRESH,  /* no flow twice, until 2^32 have been */
};

struct synth_flows {
    uint32_t n;        /* 0: none, the port only takes */
    unsigned size;     /* of a frame, bytes in memory, without frame check sequence */
    unsigned l3_bytes; /* of that, from the IP header on */
    enum synth_order order;
    bool reverse; /* source and destination change places */
    bool tcp;     /* else UDP; TCP: bare ACKs of an established connection */
    uint32_t hash_seed;
    bool plain; /* one shape with one rule */
    unsigned n_shapes, n_rules;
    uint64_t inverse_shapes, inverse_rules; /* 2^64 / number, rounded up; 0 for 1 */
    struct synth_shape shapes[SYNTH_MAX_SHAPES];
    uint32_t attack_rate; /* packets a second, in place of others; 0: none */
    struct synth_tuple attacked;

    uint32_t l3_sum, l4_sum; /* of what does not change */
    __m128i place[4];        /* of the changing fields in the first 64 bytes */
    uint8_t frame[(SYNTH_SIZE_MAX + 63) / 64 * 64] __attribute__((aligned(64)));
};

/* Reads flows, size, order, shapes, rules, proto, reverse, vlan, src_mac,
 * dst_mac, hash_seed, attack and attacked (docs/performance.md) of a port.  Returns NULL, or a
 * sentence for the user, which the caller frees. */
char *synth_flows_parse(const char *port, const struct smap *options, struct synth_flows *);

struct synth_source {
    uint64_t random;
    uint64_t turn;         /* frames so far */
    uint32_t first, count; /* the flows of this source */
};

/* Source 'i' of 'n' takes every flow that its peers do not. */
void synth_source_init(struct synth_source *, const struct synth_flows *, unsigned i, unsigned n);

/* --- per frame ---------------------------------------------------------------- */

static inline uint32_t
synth_next(struct synth_source *s, const struct synth_flows *f)
{
    uint64_t turn = s->turn++;

    s->random = s->random * 6364136223846793005u + 1442695040888963407u;
    if (f->order != SYNTH_RANDOM) {
        /* An odd factor is a permutation of the 32-bit numbers. */
        return (uint32_t)(s->first + turn) * 0x9e3779b1u;
    }
    if (__builtin_expect(turn < s->count, 0)) {
        return s->first + turn;
    }
    return s->first + (uint32_t)((s->random >> 32) * s->count >> 32);
}

static inline struct synth_tuple
synth_deposit(uint64_t n, const struct synth_tuple *mask, unsigned l4_bits)
{
    return (struct synth_tuple){.ip = _pdep_u64(n >> l4_bits, mask->ip),
                                .l4 = _pdep_u32(n, mask->l4)};
}

/* The general case of synth_tuple(). */
struct synth_tuple synth_shaped_tuple(const struct synth_flows *, uint32_t n);

/* Packet 'n' of a tuple-space attack on rules that match 'attacked': leaves it
 * at bit i of the source address, j of the source and k of the destination
 * port, for all i, j, k in turn, so that what tells it from the rules is as
 * many different sets of bits.  'random' fills what is below. */
struct synth_tuple synth_attack_tuple(const struct synth_flows *, uint64_t random, uint32_t n);

static inline struct synth_tuple
synth_tuple(const struct synth_flows *f, uint32_t n)
{
    const struct synth_shape *shape = &f->shapes[0];
    struct synth_tuple any;

    if (!f->plain) {
        return synth_shaped_tuple(f, n);
    }
    any = synth_deposit(n, &shape->any, shape->any_l4_bits);
    return (struct synth_tuple){.ip = shape->base.ip | any.ip, .l4 = shape->base.l4 | any.l4};
}

/* What a NIC would write as RSS hash: well mixed, one value a flow. */
static inline uint32_t
synth_hash(const struct synth_flows *f, uint32_t n)
{
    return _mm_crc32_u32(f->hash_seed, n);
}

/* The checksum field for a sum of words, below 2^48. */
static inline uint16_t
synth_fold(uint64_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum += sum >> 16;
    return __builtin_bswap16(~sum);
}

/* Writes the first 64 bytes of a frame, which hold all headers, with correct
 * checksums (UDP goes without, as it may).  In registers first: a reader that
 * loads vectors right behind narrow stores would wait for them, which it
 * never does behind a NIC. */
static inline void
synth_write(const struct synth_flows *f, struct synth_tuple t, uint8_t *frame)
{
    const __m128i *from = (const __m128i *)f->frame;
    __m128i *to = (__m128i *)frame;
    uint64_t addresses, sums;
    __m128i fields;

    if (f->reverse) {
        t.ip = t.ip >> 32 | t.ip << 32;
        t.l4 = t.l4 >> 16 | t.l4 << 16;
    }
    /* 2^16 is 1 in ones' complement, so wider words add up to the same. */
    addresses = (t.ip >> 32) + (uint32_t)t.ip;
    sums = synth_fold(f->l3_sum + addresses);
    if (f->tcp) {
        sums |= (uint64_t)synth_fold(f->l4_sum + addresses + t.l4) << 16;
    }
    fields = _mm_set_epi64x(sums << 32 | __builtin_bswap32(t.l4), __builtin_bswap64(t.ip));
    _mm_storeu_si128(&to[0], from[0]);
    _mm_storeu_si128(&to[1], _mm_or_si128(from[1], _mm_shuffle_epi8(fields, f->place[1])));
    _mm_storeu_si128(&to[2], _mm_or_si128(from[2], _mm_shuffle_epi8(fields, f->place[2])));
    _mm_storeu_si128(&to[3], _mm_or_si128(from[3], _mm_shuffle_epi8(fields, f->place[3])));
}

#endif
