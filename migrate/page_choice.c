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
    IDLE_LOOK = 8,   /* while nothing is worth it, one page in so many is looked at */
    RETRY_SOON = 1,  /* pages until a way that is not worth it is tried again: after a gain, */
    RETRY_FIRST = 4, /* a loss, and so many times as many after each more */
    RETRY_GROWS = 4,
    RETRY_MAX = 8192,
    RETRY_SHARE = 800, /* a try because of a dearer wire costs so small a part of the wire's time */
    FIRST_LOOKS = 4,
};

/* --- the ways ------------------------------------------------------------- */

/* Nanoseconds gained per page.  Of the other end's time neither what decoding costs nor
 * what it saves by reading less is counted. */
static double
worth(const struct page_choice *c, const struct choice_way *w)
{
    return w->measured ? w->saved * c->wire - w->ns : 0;
}

/* After anything has changed by which they are judged. */
static void
judge(struct page_choice *c)
{
    c->worth = c->forced;
    c->due = UINT64_MAX;
    for (unsigned k = 0; k < CHOICE_CLASSES; k++) {
        for (unsigned i = 0; i < CHOICE_WAYS; i++) {
            const struct choice_way *w = &c->class[k].way[i];

            if (w->allowed) {
                c->worth |= worth(c, w) > 0;
                c->due = w->due < c->due ? w->due : c->due;
            }
        }
    }
}

void
page_choice_init(struct page_choice *c, bool lz4, bool zstd, bool forced)
{
    memset(c, 0, sizeof *c);
    c->forced = forced;
    for (unsigned k = 0; k < CHOICE_CLASSES; k++) {
        c->class[k].way[CHOICE_LZ4].allowed = lz4;
        c->class[k].way[CHOICE_ZSTD].allowed = zstd;
        memset(c->class[k].region, REGION_START, sizeof c->class[k].region);
    }
    judge(c);
}

/* The wire has become dearer: what was hardly worth it, or is compressed better by now than when it
 * was tried last, may be worth it. */
static void
retry(struct page_choice *c, struct choice_way *w)
{
    double pages = w->ns * RETRY_SHARE / (c->wire * MIG_PAGE);

    if (pages < RETRY_MAX && c->page + (uint64_t)pages < w->due) {
        w->due = c->page + (uint64_t)pages;
    }
}

void
page_choice_wire(struct page_choice *c, double ns_per_byte)
{
    c->wire = c->wire > 0 ? c->wire + (ns_per_byte - c->wire) / 4 : ns_per_byte;
    if (c->wire > c->judged * 1.5) {
        for (unsigned k = 0; k < CHOICE_CLASSES; k++) {
            for (unsigned i = 0; i < CHOICE_WAYS; i++) {
                retry(c, &c->class[k].way[i]);
            }
        }
        c->judged = c->wire;
    } else if (c->wire * 1.5 < c->judged) {
        c->judged = c->wire;
    }
    judge(c);
}

bool
page_choice_look(struct page_choice *c)
{
    c->page++;
    return c->worth || (c->page >= c->due && c->idle++ % IDLE_LOOK == 0);
}

/* What is due goes first: it is rare, and how else would it become known? */
static unsigned
way_of(const struct page_choice *c, const struct choice_class *class)
{
    unsigned best = CHOICE_WAYS;
    double gain = 0;

    for (unsigned i = 0; i < CHOICE_WAYS; i++) {
        const struct choice_way *w = &class->way[i];

        if (w->allowed && worth(c, w) > gain) {
            best = i;
            gain = worth(c, w);
        }
    }
    for (unsigned i = 0; i < CHOICE_WAYS; i++) {
        if (i != best && class->way[i].allowed && (c->forced || c->page >= class->way[i].due)) {
            return i;
        }
    }
    return best;
}

static unsigned
class_of(unsigned distinct)
{
    return distinct < CHOICE_NOISE ? CHOICE_PLAIN : CHOICE_NOISY;
}

static unsigned
region_of(uint64_t pfn)
{
    return pfn / REGION_PAGES % CHOICE_REGIONS;
}

unsigned
page_choice_pick(const struct page_choice *c, uint64_t pfn, unsigned distinct)
{
    const struct choice_class *class = &c->class[class_of(distinct)];

    if (class->region[region_of(pfn)] < REGION_TRY && pfn % REGION_RARE) {
        return CHOICE_WAYS;
    }
    return way_of(c, class);
}

/* The first measurements of time hit cold caches: the least of them counts.  Later,
 * what took very long was interrupted: it counts as four times the average.  What is saved
 * moves slowly, for good and bad pages come in runs, and runs are the regions' matter. */
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
        w->saved += (saved - w->saved) / 64;
    }
    w->measured++;
}

void
page_choice_learn(struct page_choice *c, unsigned way, uint64_t pfn, unsigned distinct, double ns,
                  unsigned saved)
{
    struct choice_class *class = &c->class[class_of(distinct)];
    uint8_t *region = &class->region[region_of(pfn)];
    struct choice_way *w = &class->way[way];

    if (saved) {
        *region = *region + 4 > REGION_MAX ? REGION_MAX : *region + 4;
    } else {
        *region = *region < 2 ? 0 : *region - 2;
    }
    average(w, ns, saved);
    if (worth(c, w) <= 0 && saved * c->wire > w->ns) {
        w->period = RETRY_SOON; /* better than it is thought to be */
    } else {
        w->period = w->period * RETRY_GROWS > RETRY_MAX ? RETRY_MAX : w->period * RETRY_GROWS;
    }
    if (!w->period) {
        w->period = RETRY_FIRST;
    }
    w->due = c->page + w->period;
    judge(c);
}

void
wire_cost_note(struct wire_cost *w, double ns_per_byte, bool preempted)
{
    if (preempted && w->preempted++ < WIRE_PREEMPTED_MAX) {
        return;
    }
    w->preempted = 0;
    if (w->ns_per_byte <= 0) {
        w->ns_per_byte = ns_per_byte;
    }
    /* One that took very long waited for the peer to be given a processor. */
    if (ns_per_byte > 3 * w->ns_per_byte) {
        ns_per_byte = 3 * w->ns_per_byte;
    }
    w->ns_per_byte += (ns_per_byte - w->ns_per_byte) / 8;
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
