/* Deltas of pages: page_delta.h has the form. */
#include "page_delta.h"

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"

enum { WORD = 8, WORDS = MIG_PAGE / WORD, RUN = 4 };

/* Bit i of word i / 64: word i differs.  Returns how many do. */
static unsigned
differing(const uint8_t *base, const uint8_t *page, uint64_t map[WORDS / 64])
{
    unsigned n = 0;

    for (unsigned m = 0; m < WORDS / 64; m++) {
        uint64_t same = 0;

        for (unsigned i = 0; i < 64; i += 4) {
            const size_t at = (m * 64 + i) * WORD;
            __m256i equal = _mm256_cmpeq_epi64(_mm256_loadu_si256((const __m256i *)(base + at)),
                                               _mm256_loadu_si256((const __m256i *)(page + at)));

            same |= (uint64_t)(unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(equal)) << i;
        }
        map[m] = ~same;
        n += __builtin_popcountll(map[m]);
    }
    return n;
}

/* The first word at or after 'i' whose bit is 'wanted'; WORDS if there is none. */
static unsigned
next_word(const uint64_t map[WORDS / 64], unsigned i, bool wanted)
{
    while (i < WORDS) {
        uint64_t bits = (wanted ? map[i / 64] : ~map[i / 64]) >> (i % 64);

        if (bits) {
            return i + __builtin_ctzll(bits);
        }
        i = (i / 64 + 1) * 64;
    }
    return WORDS;
}

size_t
mig_delta_make(const void *base, const void *page, size_t max, uint8_t *out)
{
    uint64_t map[WORDS / 64];
    unsigned n = differing(base, page, map), end = 0;
    size_t length = 0;

    if (!n) {
        return 0;
    }
    if ((size_t)n * WORD + RUN > max) {
        return SIZE_MAX;
    }
    for (unsigned at = next_word(map, 0, true); at < WORDS; at = next_word(map, end, true)) {
        unsigned skip = at - end;

        end = next_word(map, at, false);
        if (length + RUN + (size_t)(end - at) * WORD > max) {
            return SIZE_MAX;
        }
        put_le16(out + length, skip);
        put_le16(out + length + 2, end - at);
        length += RUN;
        memcpy(out + length, (const uint8_t *)page + (size_t)at * WORD, (size_t)(end - at) * WORD);
        length += (size_t)(end - at) * WORD;
    }
    return length;
}

int
mig_delta_apply(void *page, const uint8_t *delta, size_t length)
{
    const uint8_t *const end = delta + length;
    unsigned at = 0;

    while (end - delta >= RUN + WORD) {
        unsigned skip = get_le16(delta), count = get_le16(delta + 2);
        bool first = at == 0;

        delta += RUN;
        at += skip;
        if (!count || (!skip && !first) || at > WORDS || count > WORDS - at ||
            (size_t)count * WORD > (size_t)(end - delta)) {
            return EPROTO;
        }
        if (count == 1) { /* as most are */
            memcpy((uint8_t *)page + (size_t)at * WORD, delta, WORD);
        } else {
            memcpy((uint8_t *)page + (size_t)at * WORD, delta, (size_t)count * WORD);
        }
        delta += (size_t)count * WORD;
        at += count;
    }
    return delta == end && at ? 0 : EPROTO;
}
