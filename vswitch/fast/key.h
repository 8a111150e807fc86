/* key: from a frame's bytes to what the exact-match cache is keyed by.
 *
 * Two frames of equal shape and key get equal treatment from any flow whose
 * mask the shape covers (enum shape in engine.h).  The reference is what OVS
 * makes of a frame, flow_extract() in its lib/flow.c: where OVS has an opinion
 * about a frame that the key does not show (an option, a fragment, a length
 * that contradicts another, a second tag), the frame is odd and is classified
 * each time.
 *
 * The Ethernet type and the port are always exact, whatever the masks say;
 * the type tells the shapes apart, so a key says its shape.
 *
 * Frames are hostile: nothing beyond 'len' bytes is read. */
#ifndef KEY_H
#define KEY_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "engine.h"

/* Network order but for in_port. */
struct key {
    union {
        struct {
            uint8_t eth_dst[6], eth_src[6];
            uint16_t eth_type;
            uint16_t vlan_tci; /* 0x1000 set if there is a tag, else 0 */
            union {
                struct {
                    uint32_t ip4_src, ip4_dst;
                };
                struct {
                    uint32_t ip6_label, zero;
                };
            };
            uint16_t tp_src, tp_dst;
            uint16_t in_port;
            uint8_t nw_proto, nw_tos;
        };
        uint64_t w[4];
        __m256i v;
    };
};
_Static_assert(sizeof(struct key) == 32, "one register");

/* What IPv6 adds. */
struct key_addr {
    union {
        struct {
            uint8_t src[16], dst[16];
        };
        uint64_t w[4];
        __m256i v;
    };
};

struct key_wide {
    struct key key;
    struct key_addr ip6;
};

/* The union of masks, once for each form of key. */
struct key_masks {
    struct key_wide wide;
    struct key narrow;
};

/* From engine.h's terms. */
void key_masks_init(struct key_masks *, const struct key_mask *);

/* Any frame of at least 14 bytes.  '*k' is masked; of it, k->ip6 is set for
 * SHAPE_IPV6 only, and nothing for SHAPE_ODD.  '*tcp_flags' is in host order,
 * the 12 bits OVS has; 0 unless TCP (and if odd). */
enum shape key_parse(const uint8_t *frame, uint32_t len, uint16_t in_port, const struct key_masks *,
                     struct key_wide *k, uint16_t *tcp_flags);

/* --- the common case ----------------------------------------------------- */

static inline uint32_t
key_load32_(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t
key_load_be16_(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof v);
    return __builtin_bswap16(v);
}

/* Of a TCP header's length in words: the least length of its IPv4 packet. */
static const uint32_t key_tcp_least_[16] = {-1, -1, -1, -1, -1, 40, 44, 48,
                                            52, 56, 60, 64, 68, 72, 76, 80};

/* The in_port as key_parse_common() wants it. */
static inline __m256i
key_port(uint16_t in_port)
{
    return _mm256_setr_epi64x(0, 0, 0, (int64_t)((uint64_t)in_port << 32));
}

/* TCP or UDP in IPv4 whose header is at 'l3', a constant 14 or 18. */
static inline __attribute__((always_inline)) bool
key_parse_ipv4_(const uint8_t *d, uint32_t len, const unsigned l3, __m256i port, __m256i mask,
                struct key *k, uint16_t *tcp_flags, uint16_t *l3_bytes)
{
    /* Bytes of the frame at 0 (addresses, TCI) and at l3 + 8 (TTL, protocol,
     * checksum, addresses, ports) go where the key has them; -1: zero.  TOS is
     * too far ahead and takes the checksum's place. */
    const __m256i narrow = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, -1, -1, 4,
                                            5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, -1, -1, 1, 2);
    const __m256i tagged = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, -1, -1, 14, 15, 4,
                                            5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, -1, -1, 1, 2);
    const __m256i tagged_fixed = _mm256_setr_epi64x(0, 0x0010000800000000, 0, 0);
    uint32_t type_tos = key_load32_(d + l3 - 2), frag_proto = key_load32_(d + l3 + 6);
    uint32_t total = key_load_be16_(d + l3 + 2), ctl = key_load_be16_(d + l3 + 32);
    uint32_t proto = frag_proto >> 24, least = proto == 17 ? 28 : (uint32_t)-1;

    least = proto == 6 ? key_tcp_least_[ctl >> 12] : least;
    *tcp_flags = proto == 6 ? ctl & 0xfff : 0;
    *l3_bytes = total;
    if ((type_tos & 0xffffff) != 0x450008 || (frag_proto & 0xff3f) || total > len - l3 ||
        total < least) {
        return false;
    }
    __m128i macs = _mm_loadu_si128((const __m128i *)d);
    __m128i rest = _mm_loadu_si128((const __m128i *)(d + l3 + 8));
    rest = _mm_insert_epi8(rest, d[l3 + 1], 2);
    __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(macs), rest, 1);
    v = _mm256_shuffle_epi8(v, l3 == 14 ? narrow : tagged);
    if (l3 != 14) {
        v = _mm256_or_si256(v, tagged_fixed);
    }
    v = _mm256_or_si256(v, port);
    _mm256_store_si256(&k->v, _mm256_and_si256(v, mask));
    return true;
}

/* TCP or UDP in IPv6 whose header is at 'l3', a constant 14 or 18. */
static inline __attribute__((always_inline)) bool
key_parse_ipv6_(const uint8_t *d, uint32_t len, const unsigned l3, uint16_t port,
                const struct key_wide *mask, struct key_wide *k, uint16_t *tcp_flags)
{
    const __m128i tagged = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, -1, -1, 14, 15);
    uint32_t first = __builtin_bswap32(key_load32_(d + l3)), ports = key_load32_(d + l3 + 40);
    uint32_t payload = key_load_be16_(d + l3 + 4), ctl = key_load_be16_(d + l3 + 52);
    uint32_t proto = d[l3 + 6], least = proto == 17 ? 8 : (uint32_t)-1;

    least = proto == 6 ? key_tcp_least_[ctl >> 12] - 20 : least;
    *tcp_flags = proto == 6 ? ctl & 0xfff : 0;
    if (first >> 28 != 6 || payload > len - l3 - 40 || payload < least) {
        return false;
    }
    __m128i macs = _mm_loadu_si128((const __m128i *)d);
    if (l3 == 14) {
        macs = _mm_insert_epi16(macs, 0, 7);
    } else {
        macs = _mm_or_si128(_mm_shuffle_epi8(macs, tagged),
                            _mm_set_epi64x((int64_t)0x0010dd8600000000, 0));
    }
    __m128i rest = _mm_set_epi64x((int64_t)(ports | (uint64_t)port << 32 | (uint64_t)proto << 48 |
                                            (uint64_t)(first >> 20 & 0xff) << 56),
                                  __builtin_bswap32(first & 0xfffff));
    __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(macs), rest, 1);
    __m256i addresses = _mm256_loadu_si256((const __m256i *)(d + l3 + 8));
    _mm256_store_si256(&k->key.v, _mm256_and_si256(v, mask->key.v));
    _mm256_store_si256(&k->ip6.v, _mm256_and_si256(addresses, mask->ip6.v));
    return true;
}

/* As key_parse_common() for TCP or UDP in IPv6. */
static inline __attribute__((always_inline)) bool
key_parse_common6(const uint8_t *d, uint32_t len, uint16_t port, const struct key_wide *mask,
                  struct key_wide *k, uint16_t *tcp_flags)
{
    uint32_t type = len >= 72 ? key_load32_(d + 12) & 0xffff : 0;

    if (type == 0xdd86) {
        return key_parse_ipv6_(d, len, 14, port, mask, k, tcp_flags);
    }
    return type == 0x0081 && (key_load32_(d + 16) & 0xffff) == 0xdd86 &&
           key_parse_ipv6_(d, len, 18, port, mask, k, tcp_flags);
}

/* key_parse_common() that tells the IP packet's length, too, as its header has it. */
static inline __attribute__((always_inline)) bool
key_parse_sized(const uint8_t *d, uint32_t len, __m256i port, __m256i mask, struct key *k,
                uint16_t *tcp_flags, uint16_t *l3_bytes)
{
    uint32_t type = len >= 58 ? key_load32_(d + 12) & 0xffff : 0;

    if (__builtin_expect(type == 0x0008, 1)) {
        return key_parse_ipv4_(d, len, 14, port, mask, k, tcp_flags, l3_bytes);
    }
    return type == 0x0081 && key_parse_ipv4_(d, len, 18, port, mask, k, tcp_flags, l3_bytes);
}

/* Parses the shape that nearly all frames have, TCP or UDP in IPv4 with one
 * tag or none; false if this is not one.  '*k' is masked by 'mask' (narrow). */
static inline __attribute__((always_inline)) bool
key_parse_common(const uint8_t *d, uint32_t len, __m256i port, __m256i mask, struct key *k,
                 uint16_t *tcp_flags)
{
    uint16_t l3_bytes;

    return key_parse_sized(d, len, port, mask, k, tcp_flags, &l3_bytes);
}

/* --- hash --------------------------------------------------------------- */

/* Random, chosen once when the process starts: who sends packets cannot choose
 * flows that share a bucket. */
extern __m256i key_secret[4];

/* NH (of UMAC, Black et al. 1999): sums of products of pairs of words, each
 * with a secret added. */
static inline __m256i
key_nh_(__m256i v, __m256i secret)
{
    __m256i sums = _mm256_add_epi32(v, secret);

    return _mm256_mul_epu32(sums, _mm256_srli_epi64(sums, 32));
}

/* The top bit of a hash is set: tags in exact.h are never 0. */
static inline uint32_t
key_nh_end_sum_(uint64_t sum)
{
    /* A sum of products is linear where only one word of the keys varies: a run
     * of addresses would be an even stride through the buckets, or a bad one.
     * CRC32C is linear in another way, and both together are not. */
    return (uint32_t)_mm_crc32_u64(0, sum) | 1u << 31;
}

static inline uint32_t
key_nh_end_(__m256i products)
{
    __m128i half =
        _mm_add_epi64(_mm256_castsi256_si128(products), _mm256_extracti128_si256(products, 1));

    return key_nh_end_sum_(_mm_cvtsi128_si64(_mm_add_epi64(half, _mm_unpackhi_epi64(half, half))));
}

static inline uint32_t
key_hash(const struct key *k)
{
    return key_nh_end_(key_nh_(_mm256_load_si256(&k->v), key_secret[0]));
}

static inline uint32_t
key_hash_wide(const struct key_wide *k)
{
    return key_nh_end_(_mm256_add_epi64(key_nh_(_mm256_load_si256(&k->key.v), key_secret[0]),
                                        key_nh_(_mm256_load_si256(&k->ip6.v), key_secret[1])));
}

#endif
