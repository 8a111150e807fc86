/* Whether and how a page is compressed: page_choice.h has the rule. */
#include "page_choice.h"

#include <immintrin.h>
#include <string.h>

#include "digest.h"

enum {
    REGION_PAGES = 64,
    REGION_START = 8,
    REGION_MAX = 15,
    REGION_TRY = 4, /* below, only one page in so many is tried: */
    REGION_RARE = 16,
    NOISE_RARE = 64,  /* of pages that look like noise */
    RETRY_FIRST = 64, /* pages until a way that is not worth it is tried again */
    RETRY_MAX = 8192,
    FIRST_LOOKS = 4,
};

void
page_choice_init(struct page_choice *c, bool lz4, bool zstd, bool forced)
{
    memset(c, 0, sizeof *c);
    c->way[CHOICE_LZ4].allowed = lz4;
    c->way[CHOICE_ZSTD].allowed = zstd;
    c->forced = forced;
    memset(c->region, REGION_START, sizeof c->region);
}

void
page_choice_wire(struct page_choice *c, double ns_per_byte)
{
    c->wire = c->wire > 0 ? c->wire + (ns_per_byte - c->wire) / 4 : ns_per_byte;
    if (c->wire <= c->judged * 1.5 && c->wire * 1.5 >= c->judged) {
        return;
    }
    c->judged = c->wire;
    for (unsigned i = 0; i < CHOICE_WAYS; i++) {
        c->way[i].wait = c->way[i].period = 0;
    }
}

/* Nanoseconds gained per page.  Of the other end's time neither what decoding costs nor
 * what it saves by reading less is counted. */
static double
worth(const struct page_choice *c, const struct choice_way *w)
{
    return w->saved * c->wire - w->ns;
}

/* Is it time to try a way that is not known, or not worth it? */
static bool
due(struct choice_way *w)
{
    if (w->wait) {
        w->wait--;
        return false;
    }
    return true;
}

unsigned
page_choice_way(struct page_choice *c)
{
    unsigned best = CHOICE_WAYS;
    double gain = 0;

    for (unsigned i = 0; i < CHOICE_WAYS; i++) {
        struct choice_way *w = &c->way[i];

        if (!w->allowed) {
            continue;
        }
        if (c->forced) {
            return i;
        }
        if (w->measured && worth(c, w) > gain) {
            best = i;
            gain = worth(c, w);
        }
    }
    for (unsigned i = 0; i < CHOICE_WAYS; i++) {
        if (i != best && c->way[i].allowed && due(&c->way[i])) {
            return i;
        }
    }
    return best;
}

static uint8_t *
region_of(struct page_choice *c, uint64_t pfn)
{
    return &c->region[pfn / REGION_PAGES % CHOICE_REGIONS];
}

bool
page_choice_try(struct page_choice *c, uint64_t pfn, unsigned distinct)
{
    if (distinct >= CHOICE_NOISE) {
        return ++c->hard % NOISE_RARE == 0;
    }
    return *region_of(c, pfn) >= REGION_TRY || pfn % REGION_RARE == 0;
}

/* Averages move by an eighth.  The first measurements hit cold caches: the least of
 * them counts.  Later, what took very long was interrupted: it counts as four times
 * the average. */
static void
average(struct choice_way *w, double ns, unsigned saved)
{
    if (!w->measured) {
        w->ns = ns;
        w->saved = saved;
    } else if (w->measured < FIRST_LOOKS) {
        w->ns = ns < w->ns ? ns : w->ns;
        w->saved += (saved - w->saved) / (w->measured + 1);
    } else {
        w->ns += ((ns > 4 * w->ns ? 4 * w->ns : ns) - w->ns) / 8;
        w->saved += (saved - w->saved) / 8;
    }
    w->measured++;
}

void
page_choice_learn(struct page_choice *c, unsigned way, uint64_t pfn, unsigned distinct, double ns,
                  unsigned saved)
{
    struct choice_way *w = &c->way[way];
    uint8_t *region = region_of(c, pfn);

    w->period = w->measured < FIRST_LOOKS     ? RETRY_FIRST / 16
                : w->period * 2 < RETRY_FIRST ? RETRY_FIRST
                : w->period * 2 > RETRY_MAX   ? RETRY_MAX
                                              : w->period * 2;
    w->wait = w->period;
    if (saved) {
        *region = *region + 4 > REGION_MAX ? REGION_MAX : *region + 4;
    } else if (distinct >= CHOICE_NOISE) {
        return; /* as expected */
    } else {
        *region = *region < 2 ? 0 : *region - 2;
    }
    average(w, ns, saved);
}

unsigned
page_distinct(const void *page)
{
    const uint8_t *p = page;
    const __m256i first = _mm256_setr_epi64x(0, 64, 128, 192), one = _mm256_set1_epi64x(1);
    __m256i seen[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    uint64_t map[4];

    /* A bit of 256 per value; shifts of 64 and more, or of less than none, give 0.  The
     * offset within each line differs, lest a field of every record be all that is seen. */
    for (unsigned i = 0; i < MIG_PAGE / 64; i += 2) {
        __m256i a = _mm256_set1_epi64x(p[i * 64 + i]);
        __m256i b = _mm256_set1_epi64x(p[i * 64 + 64 + (i + 1) % 64]);

        seen[0] = _mm256_or_si256(seen[0], _mm256_sllv_epi64(one, _mm256_sub_epi64(a, first)));
        seen[1] = _mm256_or_si256(seen[1], _mm256_sllv_epi64(one, _mm256_sub_epi64(b, first)));
    }
    _mm256_storeu_si256((__m256i *)map, _mm256_or_si256(seen[0], seen[1]));
    return __builtin_popcountll(map[0]) + __builtin_popcountll(map[1]) +
           __builtin_popcountll(map[2]) + __builtin_popcountll(map[3]);
}
