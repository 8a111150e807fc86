/* hash: the hash a guest configured over its control ring (ring.h).
 *
 * Toeplitz: bit i of the input, counted from the left, selects the 32 key
 * bits that start at bit i, and the selected words are XORed.  Per 32 input
 * bits that is a 64-bit window of the key, shifted left once for each bit;
 * four shifts are computed side by side in one vector register. */
#include "ring.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <rte_jhash.h>

#include "offload.h"

#define INPUT_WORDS_MAX 9u /* IPv6 addresses and ports */

typedef int64_t v4i64 __attribute__((vector_size(32)));
typedef uint64_t v4u64 __attribute__((vector_size(32)));

int
hash_settings_init(struct hash_settings *s)
{
    memset(s, 0, sizeof *s);
    s->mapping = calloc(HASH_MAPPING_MAX, sizeof *s->mapping);
    return s->mapping ? 0 : ENOMEM;
}

void
hash_settings_done(struct hash_settings *s)
{
    free((void *)s->mapping);
    s->mapping = NULL;
}

static uint32_t
load32(const _Atomic uint32_t *p)
{
    return atomic_load_explicit(p, memory_order_relaxed);
}

/* The part of the hash that 'word' of the input selects out of 'window'. */
static inline v4u64
toeplitz_word(uint64_t window, uint32_t word)
{
    const v4u64 steps = {0, 1, 2, 3};
    v4u64 key = (v4u64){window, window, window, window} << steps;
    uint64_t top = (uint64_t)word << 32;
    v4u64 input = (v4u64){top, top, top, top} << steps;
    v4u64 sum = {0};

    for (int i = 0; i < 8; i++) {
        sum ^= key & (v4u64)((v4i64)input < 0);
        key <<= 4;
        input <<= 4;
    }
    return sum;
}

/* 'input' is in network order. */
static uint32_t
toeplitz(const struct hash_settings *s, const uint8_t *input, unsigned n_words)
{
    uint64_t window = load32(&s->key[0]);
    v4u64 sum = {0};

    for (unsigned i = 0; i < n_words; i++) {
        uint32_t word;

        memcpy(&word, input + 4 * i, sizeof word);
        window = window << 32 | (i + 1 < HASH_KEY_MAX / 4 ? load32(&s->key[i + 1]) : 0);
        sum ^= toeplitz_word(window, ntohl(word));
    }
    return (sum[0] ^ sum[1] ^ sum[2] ^ sum[3]) >> 32;
}

static bool
has_addresses(const struct frame_layout *l, size_t len)
{
    unsigned header = l->ip_version == 4 ? 20 : 40;

    return (l->ip_version == 4 || l->ip_version == 6) && l->l3 && l->l3 + header <= len;
}

/* Gathers addresses and, if 'ports', the ports.  Returns 32-bit words. */
static unsigned
hash_input(const uint8_t *frame, const struct frame_layout *l, bool ports, uint8_t *input)
{
    unsigned ofs = l->ip_version == 4 ? 12 : 8, len = l->ip_version == 4 ? 8 : 32;

    memcpy(input, frame + l->l3 + ofs, len);
    if (ports) {
        memcpy(input + len, frame + l->l4, 4);
        len += 4;
    }
    return len / 4;
}

int
hash_frame(const struct hash_settings *s, const uint8_t *frame, size_t len, uint32_t *hash)
{
    uint32_t flags = load32(&s->flags);
    uint8_t input[INPUT_WORDS_MAX * 4];
    struct frame_layout l;
    int plain, with_tcp;

    if (load32(&s->algorithm) != XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ || !flags) {
        return -1;
    }
    /* A frame that contradicts itself further on still has addresses. */
    frame_parse(frame, len, &l);
    if (!has_addresses(&l, len)) {
        return -1;
    }
    plain = l.ip_version == 4 ? _XEN_NETIF_CTRL_HASH_TYPE_IPV4 : _XEN_NETIF_CTRL_HASH_TYPE_IPV6;
    with_tcp =
        l.ip_version == 4 ? _XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP : _XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP;
    bool tcp = l.l4_proto == IPPROTO_TCP && l.l4 && l.l4 + 4u <= len && !l.fragment;
    if (tcp && (flags & 1u << with_tcp)) {
        *hash = toeplitz(s, input, hash_input(frame, &l, true, input));
        return with_tcp;
    }
    if (flags & 1u << plain) {
        *hash = toeplitz(s, input, hash_input(frame, &l, false, input));
        return plain;
    }
    return -1;
}

/* Keeps a connection's packets together; fragments by their addresses only. */
static uint32_t
hash_flow(const uint8_t *frame, size_t len)
{
    uint32_t input[INPUT_WORDS_MAX];
    struct frame_layout l;
    bool ports;

    frame_parse(frame, len, &l);
    if (!has_addresses(&l, len)) {
        return 0;
    }
    ports = (l.l4_proto == IPPROTO_TCP || l.l4_proto == IPPROTO_UDP) && l.l4 && l.l4 + 4u <= len &&
            !l.fragment;
    return rte_jhash_32b(input, hash_input(frame, &l, ports, (uint8_t *)input), 0);
}

unsigned
hash_queue(const struct hash_settings *s, const uint8_t *frame, size_t len, unsigned n_queues,
           uint32_t spread)
{
    uint32_t hash = 0, size;

    if (n_queues < 2) {
        return 0;
    }
    if (load32(&s->algorithm) == XEN_NETIF_CTRL_HASH_ALGORITHM_NONE || !load32(&s->flags)) {
        return (spread ? spread : hash_flow(frame, len)) % n_queues;
    }
    /* Where no hash applies it counts as 0, as Linux has it. */
    hash_frame(s, frame, len, &hash);
    size = load32(&s->mapping_size);
    if (size > HASH_MAPPING_MAX) {
        size = HASH_MAPPING_MAX;
    }
    return (size ? load32(&s->mapping[hash % size]) : hash) % n_queues;
}
