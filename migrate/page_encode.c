/* The sender's half of the page codec (page.h).
 *
 * Theory of operation.  A page goes through at most five looks, the cheapest first:
 *
 *   zeros?       stops at the first that is not; known to be zeros there: not sent
 *   known base?  a delta, if it is much shorter; nothing differs: not sent
 *   worth it?    page_choice.h; mostly settled by a sample of 64 bytes
 *   compress     from a copy
 *   raw          from where it lies
 *
 * The guest may run meanwhile.  So what is compressed, and whose hash is told, was
 * copied first: hash and content then belong together, whatever the guest does.  A raw page of a
 * running guest is read twice, for the hash that this end keeps and by the kernel or the cipher:
 * both may see different things, but then the page is dirty again and comes once more.  For the
 * same reason it is no base for a delta: a page becomes one only by being copied into the cache and
 * sent from there, which is done for pages that are sent again (from round 1 on).
 *
 * Other encoders of the same memory may have sent a page since: the digest's table says
 * what was sent last, and a base with another hash is none. */
#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zstd.h>

#include "page.h"
#include "page_cache.h"
#include "page_choice.h"

#include "page_delta.h"

enum {
    DELTA_MAX = MIG_PAGE * 5 / 8, /* longer deltas gain too little */
    PACKED_MAX = MIG_PAGE - 256,  /* so do longer results of compression */
    ZSTD_LEVEL = 1,
    INSERT_WINDOW = 4096, /* look-ups after which the cache is judged */
};

struct mig_encoder {
    struct mig_encoder_options options;
    struct mig_encoder_stats stats;
    struct mig_sum sum;
    struct page_choice choice;
    struct page_cache cache;
    uint32_t generation;             /* of the batch, for the cache */
    uint32_t lookups, hits, evicted; /* since the cache was judged last */
    bool cache_useless;              /* one page in 16 is kept, to see whether that changes */
    ZSTD_CCtx *zstd;
    void *lz4;
    uint8_t *out; /* room for MIG_BATCH_PAGES results */
    size_t out_used;
    uint8_t *copy; /* of the page at hand */
};

int
mig_encoder_create(const struct mig_encoder_options *options, struct mig_encoder **encoder)
{
    const enum mig_compress how = options->compress;
    struct mig_encoder *e = calloc(1, sizeof *e);

    *encoder = NULL;
    if (!e) {
        return ENOMEM;
    }
    e->options = *options;
    page_choice_init(&e->choice, how == MIG_COMPRESS_AUTO || how == MIG_COMPRESS_LZ4,
                     how == MIG_COMPRESS_AUTO || how == MIG_COMPRESS_ZSTD,
                     how == MIG_COMPRESS_LZ4 || how == MIG_COMPRESS_ZSTD);
    e->zstd = ZSTD_createCCtx();
    e->lz4 = malloc(LZ4_sizeofState());
    e->out = malloc((size_t)MIG_BATCH_PAGES * MIG_PAGE);
    e->copy = aligned_alloc(MIG_PAGE, MIG_PAGE);
    if (!e->zstd || !e->lz4 || !e->out || !e->copy ||
        page_cache_init(&e->cache, options->cache_bytes)) {
        mig_encoder_destroy(e);
        return ENOMEM;
    }
    ZSTD_CCtx_setParameter(e->zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL);
    ZSTD_CCtx_setParameter(e->zstd, ZSTD_c_windowLog, 12);
    *encoder = e;
    return 0;
}

void
mig_encoder_destroy(struct mig_encoder *e)
{
    if (e) {
        page_cache_destroy(&e->cache);
        ZSTD_freeCCtx(e->zstd);
        free(e->lz4);
        free(e->out);
        free(e->copy);
        free(e);
    }
}

void
mig_encoder_wire(struct mig_encoder *e, double ns_per_byte)
{
    page_choice_wire(&e->choice, ns_per_byte);
}

void
mig_encoder_begin(struct mig_encoder *e, struct mig_batch *b, uint32_t round, uint32_t flags)
{
    b->n = 0;
    b->payload = 0;
    b->round = round;
    b->flags = flags;
    e->out_used = 0;
    e->generation++;
}

struct mig_sum *
mig_encoder_sum(struct mig_encoder *e)
{
    return &e->sum;
}

const struct mig_encoder_stats *
mig_encoder_stats(const struct mig_encoder *e)
{
    return &e->stats;
}

/* --- one page ------------------------------------------------------------------------------- */

/* The page at hand and what is known of it so far. */
struct look {
    struct mig_batch *batch;
    const void **payload;
    uint64_t pfn;
    const void *page;   /* where it lies */
    const void *stable; /* a content that does not change: 'page' itself, a copy; or NULL */
    uint64_t hash;      /* of 'stable', once computed; else 0 */
    struct page_slot *slot;
};

static uint64_t
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void
append(struct mig_encoder *e, struct look *l, enum mig_page_kind kind, uint64_t hash,
       const void *payload, uint32_t length)
{
    struct mig_batch *b = l->batch;

    b->desc[b->n] =
        (struct mig_desc){.pfn = l->pfn, .hash = hash, .length = length, .count = 1, .kind = kind};
    l->payload[b->n++] = payload;
    e->stats.pages[kind]++;
    e->stats.bytes[kind] += length;
}

static void
note_hash(struct mig_encoder *e, const struct look *l, uint64_t hash)
{
    if (e->options.digest) {
        mig_digest_set(e->options.digest, &e->sum, l->pfn, hash);
    }
}

/* A content that stays as it is: a copy, while the guest runs. */
static const void *
stable(struct mig_encoder *e, struct look *l)
{
    if (!l->stable) {
        memcpy(e->copy, l->page, MIG_PAGE);
        l->stable = e->copy;
    }
    return l->stable;
}

/* 0: it has become zeros since it was looked at. */
static uint64_t
stable_hash(struct mig_encoder *e, struct look *l)
{
    if (!l->hash) {
        l->hash = mig_page_hash(stable(e, l));
    }
    return l->hash;
}

static void
send_zeros(struct mig_encoder *e, struct look *l)
{
    struct mig_batch *b = l->batch;
    struct mig_desc *last = b->n ? &b->desc[b->n - 1] : NULL;

    if (e->cache.n) {
        struct page_slot *s = page_cache_find(&e->cache, l->pfn);

        if (s) {
            s->pfn = 0;
        }
    }
    if (e->options.digest && !e->options.digest->hash[l->pfn] && !(b->flags & MIG_BATCH_POSTCOPY)) {
        e->stats.pages[0]++;
        return;
    }
    note_hash(e, l, 0);
    if (last && last->kind == MIG_ZERO && last->count < MIG_ZERO_RUN_MAX &&
        last->pfn + last->count == l->pfn) {
        last->count++;
        e->stats.pages[MIG_ZERO]++;
        return;
    }
    append(e, l, MIG_ZERO, 0, NULL, 0);
}

/* Is what the slot holds what the other end holds? */
static bool
is_base(const struct mig_encoder *e, const struct page_slot *s, uint64_t pfn)
{
    return s && (!e->options.digest || e->options.digest->hash[pfn] == s->hash);
}

/* Is a page that is sent again worth keeping?  A working set beyond the cache makes copies
 * in vain; every so many look-ups that is judged. */
static bool
worth_keeping(struct mig_encoder *e)
{
    if (e->lookups >= INSERT_WINDOW) {
        e->cache_useless = e->hits * 8 < e->evicted;
        e->lookups = e->hits = e->evicted = 0;
    }
    return !e->cache_useless || e->lookups % 16 == 0;
}

/* The slot's content becomes the page's, which is sent from there if it is sent raw. */
static void
keep(struct mig_encoder *e, struct look *l)
{
    uint8_t *to = page_cache_page(&e->cache, l->slot);

    memcpy(to, l->page, MIG_PAGE);
    l->stable = to;
    l->slot->used = e->generation;
    l->slot->hash = stable_hash(e, l);
}

/* True: dealt with.  The page is not copied: whatever was seen of it while the delta was
 * made, base and delta together are one content, here as there. */
static bool
delta_from(struct mig_encoder *e, struct look *l)
{
    uint8_t *out = e->out + e->out_used, *base = page_cache_page(&e->cache, l->slot);
    size_t length = mig_delta_make(base, l->page, DELTA_MAX, out);

    e->stats.tried[MIG_DELTA]++;
    if (length == SIZE_MAX) {
        return false;
    }
    l->slot->used = e->generation;
    if (!length) {
        e->stats.pages[0]++;
        return true;
    }
    mig_delta_apply(base, out, length);
    l->stable = base;
    if (!stable_hash(e, l)) {
        send_zeros(e, l);
        return true;
    }
    l->slot->hash = l->hash;
    note_hash(e, l, l->hash);
    append(e, l, MIG_DELTA, l->hash, out, (uint32_t)length);
    e->out_used += length;
    return true;
}

/* True: dealt with.  Else, if the page is kept from now on, 'stable' is its copy in
 * the cache. */
static bool
try_delta(struct mig_encoder *e, struct look *l)
{
    l->slot = page_cache_find(&e->cache, l->pfn);
    e->lookups++;
    if (is_base(e, l->slot, l->pfn)) {
        e->stats.cache_hits++;
        e->hits++;
        if (delta_from(e, l)) {
            return true;
        }
    } else {
        e->stats.cache_misses++;
        if (!l->slot && worth_keeping(e)) {
            l->slot = page_cache_take(&e->cache, l->pfn, e->generation, &e->evicted);
        }
    }
    if (l->slot) {
        keep(e, l);
    }
    return false;
}

/* Length, or 0: not shorter. */
static uint32_t
compress(struct mig_encoder *e, unsigned way, const void *from, uint8_t *out)
{
    size_t n;

    if (way == CHOICE_LZ4) {
        return (uint32_t)LZ4_compress_fast_extState(e->lz4, from, (char *)out, MIG_PAGE, PACKED_MAX,
                                                    1);
    }
    n = ZSTD_compress2(e->zstd, out, PACKED_MAX, from, MIG_PAGE);
    return ZSTD_isError(n) ? 0 : (uint32_t)n;
}

static bool
try_compression(struct mig_encoder *e, struct look *l)
{
    static const enum mig_page_kind kinds[CHOICE_WAYS] = {MIG_LZ4, MIG_ZSTD};
    unsigned way, distinct;
    uint8_t *out = e->out + e->out_used;
    uint64_t start, ns;
    uint32_t length;

    if (!page_choice_look(&e->choice)) {
        return false;
    }
    distinct = page_distinct(l->page);
    way = page_choice_pick(&e->choice, l->pfn, distinct);
    if (way == CHOICE_WAYS) {
        return false;
    }
    start = now_ns();
    length = compress(e, way, stable(e, l), out);
    ns = now_ns() - start;
    e->stats.tried[kinds[way]]++;
    e->stats.ns += ns;
    page_choice_learn(&e->choice, way, l->pfn, distinct, (double)ns,
                      length ? MIG_PAGE - length : 0);
    if (!length) {
        return false;
    }
    if (!stable_hash(e, l)) {
        send_zeros(e, l);
        return true;
    }
    note_hash(e, l, l->hash);
    append(e, l, kinds[way], l->hash, out, length);
    e->out_used += length;
    return true;
}

/* From where it lies, or from the cache: exact only there, while the guest runs. */
static void
send_raw(struct mig_encoder *e, struct look *l)
{
    bool kept = l->slot && l->stable == page_cache_page(&e->cache, l->slot);

    if (kept || (l->batch->flags & MIG_BATCH_EXACT)) {
        if (!stable_hash(e, l)) {
            send_zeros(e, l);
            return;
        }
        note_hash(e, l, l->hash);
        append(e, l, MIG_RAW, l->hash, l->stable, MIG_PAGE);
        return;
    }
    if (e->options.digest) {
        /* Whatever it is, it is not known to be zeros there. */
        uint64_t hash = l->stable ? stable_hash(e, l) : mig_page_hash(l->page);

        note_hash(e, l, hash ? hash : 1);
    }
    append(e, l, MIG_RAW, 0, l->page, MIG_PAGE);
}

bool
mig_encode(struct mig_encoder *e, struct mig_batch *b, const void *payload[MIG_BATCH_PAGES],
           uint64_t pfn, const void *page)
{
    struct look l = {.batch = b, .payload = payload, .pfn = pfn, .page = page};

    if (b->n == MIG_BATCH_PAGES) {
        return false;
    }
    if (mig_page_is_zero(page)) {
        send_zeros(e, &l);
        return true;
    }
    if (b->flags & MIG_BATCH_EXACT) {
        l.stable = page;
    }
    if (e->cache.n && b->round && !(b->flags & MIG_BATCH_POSTCOPY) && try_delta(e, &l)) {
        return true;
    }
    if (!try_compression(e, &l)) {
        send_raw(e, &l);
    }
    return true;
}
