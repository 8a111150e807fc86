/* The page codec: whatever a page holds, and however it was sent, the other end has it
 * afterwards; what cannot be is refused; and noise is not compressed again and again. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "page.h"
#include "page_cache.h"
#include "page_choice.h"
#include "page_delta.h"

enum { PAGES = 600 };

static const uint64_t key[2] = {1, 2};
static uint64_t state = 88172645463325252ull;

static uint64_t
rnd(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

enum content { ZEROS, NOISE, TEXT, ONE_WORD, HALF, N_CONTENTS };

static void
fill(uint8_t *page, enum content what)
{
    static const char words[] =
        "the quick brown fox jumps over the lazy dog and runs away from it ";

    memset(page, 0, MIG_PAGE);
    for (unsigned i = 0; i < MIG_PAGE; i += 8) {
        if (what == NOISE || (what == HALF && i < MIG_PAGE / 2)) {
            put_le64(page + i, rnd());
        } else if (what == TEXT) {
            memcpy(page + i, words + rnd() % (sizeof words - 9), 8);
        }
    }
    if (what == ONE_WORD) {
        put_le64(page + rnd() % 512 * 8, rnd() | 1);
    }
}

/* --- both ends of a stream, without one ----------------------------------------------------- */

struct ends {
    uint8_t *source, *destination;
    struct mig_digest here, there;
    struct mig_encoder *encoder;
    struct mig_decoder *decoder;
    struct mig_sum placed;
    struct mig_batch batch;
    const void *payload[MIG_BATCH_PAGES];
    uint64_t bytes;
    bool failed;
};

static void
open_ends(struct ends *e, enum mig_compress compress, size_t cache)
{
    *e = (struct ends){.source = aligned_alloc(4096, PAGES * MIG_PAGE),
                       .destination = aligned_alloc(4096, PAGES * MIG_PAGE)};
    memset(e->source, 0, PAGES * MIG_PAGE);
    memset(e->destination, 0, PAGES * MIG_PAGE);
    e->failed = mig_digest_init(&e->here, PAGES, key) || mig_digest_init(&e->there, PAGES, key) ||
                mig_decoder_create(&e->decoder) ||
                mig_encoder_create(&(struct mig_encoder_options){.digest = &e->here,
                                                                 .compress = compress,
                                                                 .cache_bytes = cache},
                                   &e->encoder);
    CHECK(!e->failed);
}

static void
close_ends(struct ends *e)
{
    mig_encoder_destroy(e->encoder);
    mig_decoder_destroy(e->decoder);
    mig_digest_destroy(&e->here);
    mig_digest_destroy(&e->there);
    free(e->source);
    free(e->destination);
}

/* What the receiver does with a batch: bytes in, pages out. */
static void
deliver(struct ends *e)
{
    uint8_t head[MIG_BATCH_HEAD_MAX];
    size_t n = mig_batch_put(head, &e->batch);
    uint32_t length = (uint32_t)(n + e->batch.payload);
    static struct mig_batch got;
    const char *why = "";

    e->bytes += length;
    e->failed |= mig_batch_peek(head, length, &why) != n ||
                 mig_batch_get(head, n, length, PAGES, &got, &why) || got.n != e->batch.n;
    for (uint32_t i = 0; i < got.n && !e->failed; i++) {
        for (uint32_t j = 0; j < got.desc[i].count; j++) {
            uint64_t pfn = got.desc[i].pfn + j, hash;

            e->failed |= mig_decode(e->decoder, &got.desc[i], e->payload[i],
                                    e->destination + pfn * MIG_PAGE, &hash, &why) != 0;
            mig_digest_set(&e->there, &e->placed, pfn, hash);
        }
    }
    if (e->failed) {
        printf("# %s\n", why);
    }
}

/* Sends the pages that 'dirty' has (all: NULL). */
static void
send_round(struct ends *e, const bool *dirty, uint32_t round, uint32_t flags)
{
    mig_encoder_begin(e->encoder, &e->batch, round, flags);
    for (uint64_t pfn = 0; pfn < PAGES; pfn++) {
        if (dirty && !dirty[pfn]) {
            continue;
        }
        while (!mig_encode(e->encoder, &e->batch, e->payload, pfn, e->source + pfn * MIG_PAGE)) {
            deliver(e);
            mig_encoder_begin(e->encoder, &e->batch, round, flags);
        }
    }
    if (e->batch.n) {
        deliver(e);
    }
}

static bool
equal(struct ends *e)
{
    struct mig_sum a, b, c = mig_digest_of(e->source, PAGES, key);

    mig_digest_fold(&e->here, mig_encoder_sum(e->encoder));
    mig_digest_fold(&e->there, &e->placed);
    a = mig_digest_value(&e->here);
    b = mig_digest_value(&e->there);
    return !e->failed && !memcmp(e->source, e->destination, PAGES * MIG_PAGE) &&
           !memcmp(&a, &b, sizeof a) && !memcmp(&a, &c, sizeof a);
}

/* Some pages get other content, some change a little, some become what they were. */
static void
mutate(struct ends *e, bool *dirty)
{
    for (unsigned pfn = 0; pfn < PAGES; pfn++) {
        uint8_t *page = e->source + pfn * MIG_PAGE;

        dirty[pfn] = rnd() % 3 != 0;
        if (!dirty[pfn]) {
            continue;
        }
        switch (rnd() % 4) {
        case 0:
            fill(page, rnd() % N_CONTENTS);
            break;
        case 1:
            put_le64(page + rnd() % 512 * 8, rnd());
            break;
        case 2:
            for (unsigned i = rnd() % 2; i < 512; i += 2 + rnd() % 3) {
                page[i * 8 + rnd() % 8] ^= 1;
            }
            break;
        }
    }
}

static void
test_rounds(void)
{
    static const struct {
        const char *name;
        enum mig_compress compress;
        size_t cache;
        double wire;
    } ways[] = {
        {"raw only: every page arrives, rounds and digests agree", MIG_COMPRESS_NONE, 0, 0.2},
        {"deltas", MIG_COMPRESS_NONE, PAGES * MIG_PAGE * 4, 0.2},
        {"deltas with a cache too small", MIG_COMPRESS_NONE, PAGES / 2 * MIG_PAGE, 0.2},
        {"LZ4", MIG_COMPRESS_LZ4, 0, 0},
        {"zstd", MIG_COMPRESS_ZSTD, 0, 0},
        {"all of it, on a slow wire", MIG_COMPRESS_AUTO, PAGES * MIG_PAGE * 4, 100},
    };

    for (unsigned w = 0; w < sizeof ways / sizeof *ways; w++) {
        const struct mig_encoder_stats *s;
        bool dirty[PAGES];
        struct ends e;

        CASE(ways[w].name);
        open_ends(&e, ways[w].compress, ways[w].cache);
        mig_encoder_wire(e.encoder, ways[w].wire);
        for (unsigned pfn = 0; pfn < PAGES; pfn++) {
            fill(e.source + pfn * MIG_PAGE, rnd() % N_CONTENTS);
        }
        send_round(&e, NULL, 0, 0);
        CHECK(equal(&e));
        for (unsigned round = 1; round < 12; round++) {
            mutate(&e, dirty);
            send_round(&e, dirty, round, round > 8 ? MIG_BATCH_EXACT : 0);
            CHECK(equal(&e));
        }
        s = mig_encoder_stats(e.encoder);
        CHECK(s->pages[MIG_ZERO] && s->pages[MIG_RAW] && s->pages[0]);
        CHECK(!s->pages[MIG_DELTA] == !ways[w].cache);
        CHECK(!s->pages[MIG_LZ4] || ways[w].compress == MIG_COMPRESS_LZ4 ||
              ways[w].compress == MIG_COMPRESS_AUTO);
        CHECK(s->pages[MIG_LZ4] + s->pages[MIG_ZSTD] || ways[w].compress == MIG_COMPRESS_NONE);
        close_ends(&e);
    }

    CASE("nothing changed: nothing is sent");
    struct ends e;
    open_ends(&e, MIG_COMPRESS_NONE, PAGES * MIG_PAGE * 4);
    for (unsigned pfn = 0; pfn < PAGES; pfn++) {
        fill(e.source + pfn * MIG_PAGE, pfn % 2 ? NOISE : ZEROS);
    }
    send_round(&e, NULL, 0, 0);
    send_round(&e, NULL, 1, 0);
    e.bytes = 0;
    send_round(&e, NULL, 2, 0);
    CHECK(e.bytes == 0 && equal(&e));

    CASE("post-copy: every page is sent, zeros too, and no delta");
    send_round(&e, NULL, 3, MIG_BATCH_EXACT | MIG_BATCH_POSTCOPY);
    CHECK(mig_encoder_stats(e.encoder)->pages[MIG_ZERO] == PAGES / 2 && equal(&e));
    CHECK(!mig_encoder_stats(e.encoder)->pages[MIG_DELTA]);
    close_ends(&e);
}

/* Another encoder sent the page meanwhile: its copy here is no base any more. */
static void
test_two_encoders(void)
{
    struct mig_encoder *other;
    struct ends e;
    bool dirty[PAGES] = {[5] = true};

    CASE("a page that another encoder sent is not the base of a delta");
    open_ends(&e, MIG_COMPRESS_NONE, PAGES * MIG_PAGE);
    mig_encoder_create(&(struct mig_encoder_options){.digest = &e.here,
                                                     .compress = MIG_COMPRESS_NONE,
                                                     .cache_bytes = PAGES * MIG_PAGE},
                       &other);
    for (unsigned round = 1; round < 9; round++) {
        struct mig_encoder *first = e.encoder;

        fill(e.source + 5 * MIG_PAGE, NOISE);
        put_le64(e.source + 5 * MIG_PAGE, round);
        send_round(&e, dirty, round, 0);
        put_le64(e.source + 5 * MIG_PAGE, round + 100);
        e.encoder = other;
        other = first;
    }
    send_round(&e, dirty, 9, 0);
    mig_digest_fold(&e.here, mig_encoder_sum(other));
    CHECK(equal(&e));
    mig_encoder_destroy(other);
    close_ends(&e);
}

/* --- a guest that writes while its pages are sent -----------------------------------------------
 */

struct guest {
    uint8_t *memory;
    bool stop;
};

static void *
scribble(void *aux)
{
    struct guest *g = aux;
    uint64_t x = 1;

    while (!__atomic_load_n(&g->stop, __ATOMIC_RELAXED)) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        uint8_t *page = g->memory + (x >> 33) % 8 * MIG_PAGE;

        /* To zeros and back, a word, or all of it: never in one piece. */
        switch ((x >> 20) % 3) {
        case 0:
            memset(page, 0, MIG_PAGE);
            break;
        case 1:
            memset(page, (int)(x >> 40), MIG_PAGE);
            break;
        default:
            memcpy(page + (x >> 45) % 500 * 8, &x, 8);
        }
    }
    return NULL;
}

__attribute__((unused)) static void
test_live(void)
{
    bool dirty[PAGES] = {true, true, true, true, true, true, true, true};
    struct guest g = {.stop = false};
    struct ends e;
    pthread_t thread;

    CASE("a guest that writes meanwhile: no hash is told that is not the content's");
    open_ends(&e, MIG_COMPRESS_LZ4, PAGES * MIG_PAGE);
    g.memory = e.source;
    pthread_create(&thread, NULL, scribble, &g);
    for (unsigned round = 0; round < 3000 && !e.failed; round++) {
        send_round(&e, dirty, round, 0);
    }
    __atomic_store_n(&g.stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    CHECK(!e.failed);
    CASE("once it is paused, the last round makes both ends equal");
    send_round(&e, dirty, 4000, MIG_BATCH_EXACT);
    CHECK(equal(&e));
    close_ends(&e);
}

/* --- what a hostile source may say
 * ---------------------------------------------------------------- */

static void
test_batches(void)
{
    static struct mig_batch b, got;
    static const struct mig_desc good[4] = {
        {10, 0, 0, 3, MIG_ZERO},
        {13, 0, MIG_PAGE, 1, MIG_RAW},
        {14, 7, 100, 1, MIG_DELTA},
        {20, 8, 4095, 1, MIG_LZ4},
    };
    static const struct {
        unsigned at;
        struct mig_desc d;
        uint32_t flags;
    } bad[] = {
        {0, {10, 1, 0, 3, MIG_ZERO}, 0},
        {0, {10, 0, 1, 3, MIG_ZERO}, 0},
        {0, {10, 0, 0, 0, MIG_ZERO}, 0},
        {0, {10, 0, 0, 4, MIG_ZERO}, 0},
        {0, {10, 0, 0, 3, 0}, 0},
        {0, {10, 0, 0, 3, MIG_KINDS}, 0},
        {1, {13, 0, 4095, 1, MIG_RAW}, 0},
        {1, {13, 0, MIG_PAGE, 2, MIG_RAW}, 0},
        {1, {12, 0, MIG_PAGE, 1, MIG_RAW}, 0},
        {1, {13, 0, MIG_PAGE, 1, MIG_RAW}, MIG_BATCH_EXACT},
        {2, {14, 0, 100, 1, MIG_DELTA}, 0},
        {2, {14, 7, 0, 1, MIG_DELTA}, 0},
        {2, {14, 7, MIG_PAGE, 1, MIG_ZSTD}, 0},
        {2, {14, 7, 100, 2, MIG_LZ4}, 0},
        {2, {13, 7, 100, 1, MIG_DELTA}, 0},
        {3, {PAGES, 7, 100, 1, MIG_LZ4}, 0},
        {3, {~0ull, 7, 100, 1, MIG_LZ4}, 0},
        {3, {PAGES - 1, 0, 0, 2, MIG_ZERO}, 0},
        {2, {14, 7, 100, 1, MIG_DELTA}, MIG_BATCH_POSTCOPY},
        {2, {14, 7, 100, 1, MIG_LZ4}, 4},
    };
    uint8_t head[MIG_BATCH_HEAD_MAX];
    const char *why;
    size_t n;

    CASE("a batch is read as it was written");
    b.n = 4;
    b.round = 9;
    memcpy(b.desc, good, sizeof good);
    n = mig_batch_put(head, &b);
    CHECK(n == mig_batch_head_len(4) && b.payload == MIG_PAGE + 100 + 4095);
    CHECK(mig_batch_peek(head, n + b.payload, &why) == n);
    CHECK(!mig_batch_get(head, n, n + b.payload, PAGES, &got, &why));
    CHECK(got.n == 4 && got.round == 9 && !memcmp(got.desc, good, sizeof good));

    CASE("descriptors that cannot be are refused");
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        memcpy(b.desc, good, sizeof good);
        b.desc[bad[i].at] = bad[i].d;
        b.flags = bad[i].flags;
        n = mig_batch_put(head, &b);
        why = NULL;
        CHECK(mig_batch_get(head, n, n + b.payload, PAGES, &got, &why) == EPROTO && why);
    }

    CASE("lengths and counts that do not fit are refused");
    memcpy(b.desc, good, sizeof good);
    b.flags = 0;
    n = mig_batch_put(head, &b);
    CHECK(mig_batch_get(head, n, n + b.payload - 1, PAGES, &got, &why) == EPROTO);
    CHECK(mig_batch_get(head, n, n + b.payload + 1, PAGES, &got, &why) == EPROTO);
    CHECK(mig_batch_get(head, n - MIG_DESC, n + b.payload, PAGES, &got, &why) == EPROTO);
    CHECK(!mig_batch_peek(head, n - 1, &why));
    put_le32(head, 0);
    CHECK(!mig_batch_peek(head, n + b.payload, &why));
    put_le32(head, MIG_BATCH_PAGES + 1);
    CHECK(!mig_batch_peek(head, ~0u, &why));
    mig_batch_put(head, &b);
    put_le64(head + 16, b.payload + 1);
    CHECK(mig_batch_get(head, n, n + b.payload + 1, PAGES, &got, &why) == EPROTO);
    mig_batch_put(head, &b);
    head[12] = 1;
    CHECK(mig_batch_get(head, n, n + b.payload, PAGES, &got, &why) == EPROTO);
    mig_batch_put(head, &b);
    head[MIG_BATCH_HEAD + 23] = 1;
    CHECK(mig_batch_get(head, n, n + b.payload, PAGES, &got, &why) == EPROTO);
}

static void
test_deltas(void)
{
    uint8_t base[MIG_PAGE], page[MIG_PAGE], copy[MIG_PAGE], out[MIG_PAGE];
    static const struct {
        uint16_t run[6];
        unsigned length;
    } bad[] = {
        {{0, 0}, 12},   /* an empty run */
        {{512, 1}, 12}, /* behind the page */
        {{510, 3}, 28}, /* across its end */
        {{0xffff, 0xffff}, 4000},
        {{0, 2}, 12},             /* longer than the delta */
        {{0, 1, 0, 0, 0, 0}, 14}, /* rest of a run */
        {{0, 1, 0, 0, 0, 0}, 4},
        {{0, 1}, 0},
        {{0, 1, 0, 0, 0, 0}, 24}, /* two runs, nothing between */
    };

    CASE("deltas: what is made is applied, whatever differs");
    fill(base, NOISE);
    for (unsigned i = 0; i < 3000; i++) {
        unsigned changes = i < 512 ? 1 : rnd() % 400;
        size_t n;

        memcpy(page, base, MIG_PAGE);
        for (unsigned j = 0; j < changes; j++) {
            page[i < 512 ? i * 8 + rnd() % 8 : rnd() % MIG_PAGE] ^= 1u << rnd() % 8;
        }
        n = mig_delta_make(base, page, MIG_PAGE - 1, out);
        CHECK((n == 0) == !memcmp(base, page, MIG_PAGE));
        if (n && n != SIZE_MAX) {
            memcpy(copy, base, MIG_PAGE);
            CHECK(!mig_delta_apply(copy, out, n) && !memcmp(copy, page, MIG_PAGE));
            CHECK(mig_delta_make(base, page, n - 1, copy) == SIZE_MAX);
        }
        CHECK(changes != 1 || n == 12);
    }
    CASE("deltas that cannot be are refused");
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint8_t *delta = calloc(1, bad[i].length ? bad[i].length : 1);

        for (unsigned j = 0; j < 6 && 2 * j + 2 <= bad[i].length; j++) {
            put_le16(delta + 2 * j, bad[i].run[j]);
        }
        CHECK(mig_delta_apply(page, delta, bad[i].length) == EPROTO);
        free(delta);
    }
}

static void
test_decode(void)
{
    struct mig_desc d = {.pfn = 1, .hash = 5, .count = 1};
    uint8_t payload[MIG_PAGE], page[MIG_PAGE] = {0};
    struct mig_decoder *decoder;
    const char *why;
    uint64_t hash;

    CASE("payloads that are none, or not the hash's, are refused");
    CHECK(!mig_decoder_create(&decoder));
    for (unsigned i = 0; i < 3000; i++) {
        d.kind = MIG_DELTA + rnd() % 3;
        d.length = 1 + rnd() % (MIG_PAGE - 1);
        for (unsigned j = 0; j < d.length; j++) {
            payload[j] = rnd() % 4 ? rnd() : 0;
        }
        if (d.kind == MIG_ZSTD && d.length > 6) {
            memcpy(payload, "\x28\xb5\x2f\xfd\x60\x00", 6);
        }
        CHECK(mig_decode(decoder, &d, payload, page, &hash, &why) == EPROTO);
    }
    d.kind = MIG_RAW;
    d.length = MIG_PAGE;
    CHECK(mig_decode(decoder, &d, payload, page, &hash, &why) == EPROTO);
    d.hash = 0;
    CHECK(!mig_decode(decoder, &d, payload, page, &hash, &why) && hash == mig_page_hash(payload));
    mig_decoder_destroy(decoder);
}

/* --- the choice ------------------------------------------------------------------------ */

/* A memory whose pages are, in runs, text, noise, and what looks like noise and is not. */
struct memory_mix {
    unsigned noise, looks; /* tenths */
};

struct tries {
    uint64_t ways[CHOICE_WAYS], noise, looks, n_looks;
    uint64_t looked; /* pages whose bytes were looked at */
};

/* What the choice spends on it if compression costs and saves so much. */
static struct tries
simulate(double wire, struct memory_mix mix)
{
    static const double cost[CHOICE_WAYS] = {1200, 9000};
    static const unsigned saves[CHOICE_WAYS] = {2300, 2900};
    struct page_choice *c = malloc(sizeof *c);
    struct tries t = {{0}};

    page_choice_init(c, true, true, false);
    page_choice_wire(c, wire);
    for (uint64_t pfn = 0; pfn < 100000; pfn++) {
        unsigned kind = pfn / 256 * 7 % 10, distinct, way;
        bool noise = kind < mix.noise, looks = !noise && kind < mix.noise + mix.looks;

        t.n_looks += looks;
        if (!page_choice_look(c)) {
            continue;
        }
        t.looked++;
        distinct = noise || looks ? 57 : 30;
        way = page_choice_pick(c, pfn, distinct);
        if (way < CHOICE_WAYS) {
            t.ways[way]++;
            t.noise += noise;
            t.looks += looks;
            page_choice_learn(c, way, pfn, distinct, cost[way] + (double)(rnd() % 300),
                              noise ? 0 : saves[way]);
        }
    }
    free(c);
    return t;
}

/* What tries cost, in parts of the wire's time, where nothing is worth it and the wire's cost
 * wavers by a factor of three. */
static double
waver(void)
{
    static const double cost[CHOICE_WAYS] = {1200, 9000};
    struct page_choice *c = malloc(sizeof *c);
    double tries = 0, wire = 0;

    page_choice_init(c, true, true, false);
    for (uint64_t pfn = 0; pfn < 100000; pfn++) {
        double now = pfn / 1024 % 2 ? 0.36 : 0.12;
        unsigned distinct = pfn / 256 % 2 ? 57 : 30, way;

        if (pfn % 128 == 0) {
            page_choice_wire(c, now);
        }
        wire += now * MIG_PAGE;
        if (page_choice_look(c)) {
            way = page_choice_pick(c, pfn, distinct);
            if (way < CHOICE_WAYS) {
                tries += cost[way];
                page_choice_learn(c, way, pfn, distinct, cost[way], 2300);
            }
        }
    }
    free(c);
    return tries / wire;
}

static void
test_choice(void)
{
    uint8_t page[MIG_PAGE];
    struct page_choice *c = malloc(sizeof *c);
    struct wire_cost cost = {0};
    unsigned tried = 0, seen = 0;
    struct tries t;

    CASE("what a wire is worth decides: raw on a fast one, LZ4, zstd on a slow one");
    t = simulate(0.2, (struct memory_mix){3, 0});
    CHECK(t.ways[CHOICE_LZ4] < 500 && t.ways[CHOICE_ZSTD] < 500 && t.looked < 20000);
    t = simulate(1.0, (struct memory_mix){3, 0});
    CHECK(t.ways[CHOICE_LZ4] > 65000 && t.ways[CHOICE_ZSTD] < 500);
    t = simulate(100, (struct memory_mix){3, 0});
    CHECK(t.ways[CHOICE_ZSTD] > 65000 && t.ways[CHOICE_LZ4] < 500);

    CASE("a wire whose cost wavers is no reason to try again and again");
    CHECK(waver() < 0.008);

    CASE("what was not worth it on a fast wire is found when the wire becomes dear");
    page_choice_init(c, true, true, false);
    for (uint64_t pfn = 0; pfn < 40000; pfn++) {
        unsigned way = CHOICE_WAYS;

        if (pfn % 128 == 0) {
            page_choice_wire(c, pfn < 20000 ? 0.2 : 100);
        }
        /* Noise at first: all that was saved is forgotten by and by. */
        if (page_choice_look(c)) {
            way = page_choice_pick(c, pfn, 30);
        }
        if (way < CHOICE_WAYS) {
            page_choice_learn(c, way, pfn, 30, way == CHOICE_LZ4 ? 1200 : 9000,
                              pfn < 20000 ? 0 : 2300 + 600 * way);
        }
        tried += pfn >= 21000 && way < CHOICE_WAYS;
    }
    CHECK(tried == 19000);
    tried = 0;

    CASE("pages of noise are hardly tried");
    CHECK(simulate(1.0, (struct memory_mix){10, 0}).noise < 200);
    CHECK(simulate(100, (struct memory_mix){5, 0}).noise < 1000);
    CHECK(simulate(0.2, (struct memory_mix){5, 0}).noise < 200);

    CASE("pages that only look like noise are found, beside noise too");
    t = simulate(1.0, (struct memory_mix){0, 6});
    CHECK(t.looks > t.n_looks * 9 / 10);
    t = simulate(1.0, (struct memory_mix){3, 4});
    CHECK(t.looks > t.n_looks * 6 / 10 && t.noise < 30000 / 3);

    CASE("a region whose tries are in vain is given up, and found again when it changes");
    page_choice_init(c, true, false, true);
    for (unsigned i = 0; i < 16; i++) {
        page_choice_learn(c, CHOICE_LZ4, 64 + i, 30, 1000, 0);
    }
    for (unsigned i = 0; i < 64; i++) {
        tried += page_choice_pick(c, 64 + i, 30) == CHOICE_LZ4;
    }
    CHECK(tried == 4);
    CHECK(page_choice_pick(c, 128 + 1, 30) == CHOICE_LZ4);
    page_choice_learn(c, CHOICE_LZ4, 64, 30, 1000, 2000);
    CHECK(page_choice_pick(c, 64 + 1, 30) == CHOICE_LZ4);
    free(c);

    CASE("what a wire costs is learned from samples in which nobody else had the processor");
    for (unsigned i = 0; i < 100; i++) {
        wire_cost_note(&cost, i % 4 ? 0.4 : 50, i % 4 == 0);
    }
    CHECK(cost.ns_per_byte > 0.39 && cost.ns_per_byte < 0.41);
    for (unsigned i = 0; i < 100 * WIRE_PREEMPTED_MAX; i++) {
        wire_cost_note(&cost, 2, true); /* and from others where there are none */
    }
    CHECK(cost.ns_per_byte > 1.9 && cost.ns_per_byte < 2.1);

    CASE("the sample tells noise from what can be compressed");
    for (unsigned i = 0; i < 200; i++) {
        fill(page, TEXT);
        CHECK(page_distinct(page) < CHOICE_NOISE);
        fill(page, HALF);
        CHECK(page_distinct(page) < CHOICE_NOISE);
    }
    for (unsigned i = 0; i < 1000; i++) {
        fill(page, NOISE);
        seen += page_distinct(page) >= CHOICE_NOISE;
    }
    CHECK(seen > 980);
}

int
main(void)
{
    test_rounds();
    test_two_encoders();
#ifdef __SANITIZE_THREAD__
    printf("skip a guest that writes meanwhile: it races on purpose\n");
#else
    test_live();
#endif
    test_batches();
    test_deltas();
    test_decode();
    test_choice();
    return check_done();
}
