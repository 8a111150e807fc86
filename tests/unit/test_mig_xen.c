/* Xen's migration stream: what is cut and packed at one end is the same at the
 * other, and what is damaged goes no further. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "mig_xen_stream.h"
#include "xen_chunk.h"

enum { OUT_MAX = 16 << 20 };

/* --- both ends ---------------------------------------------------------------------- */

struct far_end {
    char config[64];
    unsigned int n_configs;
    uint8_t *out;
    size_t n;
};

static int
got_config(void *f_, const char *json, size_t n)
{
    struct far_end *f = f_;

    f->n_configs++;
    memcpy(f->config, json, n < sizeof f->config ? n : sizeof f->config);
    return 0;
}

static int
got_bytes(void *f_, const uint8_t *bytes, size_t n)
{
    struct far_end *f = f_;

    if (n > OUT_MAX - f->n) {
        return ENOSPC;
    }
    memcpy(f->out + f->n, bytes, n);
    f->n += n;
    return 0;
}

struct result {
    int error;
    const char *why;
    bool complete; /* and the digest was right */
    size_t n_chunks, n_wire, longest;
};

/* What a test does to a chunk on its way; false: it is not delivered. */
typedef bool tamper_func(void *aux, size_t index, uint8_t *chunk, size_t *n);

static size_t
next_chunk(struct xen_split *split, struct xen_pack *pack, const uint8_t **stream, size_t *left,
           size_t step, struct result *r)
{
    struct xen_piece piece;
    size_t n, announced;
    bool pages = false;

    xen_pack_begin(pack);
    while (!pages) {
        int error = xen_split_next(split, &piece, &r->why);

        if (error == EAGAIN && *left) {
            uint8_t *room = xen_split_room(split, &n);
            n = n < step ? n : step;
            n = n < *left ? n : *left;
            memcpy(room, *stream, n);
            xen_split_read(split, n);
            *stream += n;
            *left -= n;
            continue;
        }
        if (error || piece.kind == XEN_END) {
            r->error = error == EAGAIN ? ENODATA : error;
            return 0;
        }
        xen_pack_piece(pack, &piece);
        pages =
            piece.kind == XEN_PAGES || xen_stream_want(&split->stream, &announced) != XEN_WANT_PAGE;
    }
    xen_pack_bytes(pack, &n);
    return n;
}

/* A stream through both ends, read 'step' bytes at a time. */
static struct result
carry(const struct stream *s, struct far_end *far, size_t step, tamper_func *tamper, void *aux)
{
    struct xen_split split;
    struct xen_pack *pack;
    struct xen_unpack *unpack;
    struct xen_sink sink = {got_config, got_bytes, far};
    struct result r = {.why = ""};
    const uint8_t *stream = s->bytes;
    size_t left = s->n, n;
    uint8_t digest[MIG_DIGEST_BYTES], *copy = malloc(MIG_CHUNK_MAX);

    far->n = far->n_configs = 0;
    if (!copy || xen_split_init(&split, s->pv, STREAM_PFNS) ||
        xen_pack_create(MIG_COMPRESS_AUTO, &pack) ||
        xen_unpack_create(s->pv, STREAM_PFNS, &sink, &unpack)) {
        abort();
    }
    xen_pack_begin(pack);
    xen_pack_config(pack, "{}", 2);
    xen_pack_bytes(pack, &n);
    for (size_t i = 0; n && !r.error; i++) {
        memcpy(copy, xen_pack_bytes(pack, &n), n);
        r.n_chunks++;
        r.n_wire += n;
        r.longest = n > r.longest ? n : r.longest;
        if (!tamper || tamper(aux, i, copy, &n)) {
            r.error = xen_unpack_chunk(unpack, copy, n, &r.why);
        }
        n = r.error ? 0 : next_chunk(&split, pack, &stream, &left, step, &r);
    }
    if (!r.error) {
        xen_pack_digest(pack, digest);
        r.error = xen_unpack_finish(unpack, digest, &r.why);
        r.complete = !r.error;
    }
    xen_unpack_destroy(unpack);
    xen_pack_destroy(pack);
    xen_split_free(&split);
    free(copy);
    return r;
}

static bool
same_as(const struct far_end *far, const struct stream *s)
{
    return far->n == s->n - XEN_RECORD_HEADER_BYTES && !memcmp(far->out, s->bytes, far->n) &&
           !memcmp(s->bytes + far->n, xen_stream_end, XEN_RECORD_HEADER_BYTES);
}

/* --- whole streams -------------------------------------------------------------------- */

static void
test_round_trips(struct stream *s, struct far_end *far)
{
    static const size_t steps[] = {1 << 20, 4096, 97};

    for (int pv = 0; pv < 2; pv++) {
        CASE(pv ? "pv stream arrives as it was" : "pvh stream arrives as it was");
        stream_typical(s, pv);
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
            struct result r = carry(s, far, steps[i], NULL, NULL);

            CHECK(r.complete);
            CHECK(same_as(far, s));
            CHECK(far->n_configs == 1 && !memcmp(far->config, "{}", 3));
            CHECK(r.longest <= MIG_CHUNK_MAX);
        }
    }
}

static void
test_dedup(struct stream *s, struct far_end *far)
{
    CASE("zero and repeated pages cost next to nothing");
    stream_begin(s, false);
    stream_pages(s, 0, 512, PAGE_ZERO);
    stream_pages(s, 1000, 256, PAGE_RANDOM);
    size_t once = 256 * MIG_PAGE_BYTES; /* beside it there are registers and frame numbers */
    stream_again(s, 1000, 256);
    stream_again(s, 1000, 256);
    stream_finish(s);
    struct result r = carry(s, far, 1 << 20, NULL, NULL);
    CHECK(r.complete && same_as(far, s));
    CHECK(r.n_wire > once && r.n_wire < once + once / 2);

    CASE("frames in any order, and more than the cache holds");
    stream_begin(s, false);
    stream_pages_down(s, 700, 300);
    stream_pages(s, 0, XEN_CACHE_PAGES / 4, PAGE_TEXT);
    stream_again(s, 0, XEN_CACHE_PAGES / 4);
    stream_pages(s, XEN_CACHE_PAGES + 600, 500, PAGE_TEXT);
    stream_pages_down(s, 700, 300);
    stream_finish(s);
    r = carry(s, far, 1 << 20, NULL, NULL);
    CHECK(r.complete && same_as(far, s));
    CHECK(r.n_wire < s->n - XEN_CACHE_PAGES / 4 * (MIG_PAGE_BYTES - 64));
}

static void
test_largest(struct stream *s, struct far_end *far)
{
    CASE("a batch of the most pages, none of which compress or ascend");
    stream_begin(s, false);
    stream_pages_down(s, XEN_BATCH_PAGES, XEN_BATCH_PAGES / 2);
    stream_finish(s);
    struct result r = carry(s, far, 1 << 20, NULL, NULL);
    CHECK(r.complete && same_as(far, s) && r.longest <= MIG_CHUNK_MAX);
}

/* --- damaged streams ------------------------------------------------------------------ */

/* How the splitter ends that gets all of it.  (The far end has the same state machine.) */
static int
refused(struct stream *s)
{
    struct xen_split split;
    struct xen_piece piece = {XEN_BYTES};
    const char *why = "";
    size_t n, left = s->n;
    const uint8_t *from = s->bytes;
    int error;

    if (xen_split_init(&split, s->pv, STREAM_PFNS)) {
        abort();
    }
    do {
        error = xen_split_next(&split, &piece, &why);
        if (error == EAGAIN && left) {
            uint8_t *room = xen_split_room(&split, &n);
            n = n < left ? n : left;
            memcpy(room, from, n);
            xen_split_read(&split, n);
            from += n;
            left -= n;
            error = 0;
            piece.kind = XEN_BYTES;
        }
    } while (!error && piece.kind != XEN_END);
    CHECK(error == EAGAIN || why[0]);
    xen_split_free(&split);
    return error;
}

static void
test_damaged(struct stream *s)
{
    for (const struct damage *d = stream_damages; d->name; d++) {
        stream_typical(s, d->pv);
        CASE(d->name);
        CHECK(d->apply(s));
        CHECK(refused(s) == (d->cut ? EAGAIN : EBADMSG));
    }
}

struct flip {
    size_t index, at;
};

static bool
flip_bit(void *f_, size_t index, uint8_t *chunk, size_t *n)
{
    struct flip *f = f_;

    if (index == f->index) {
        chunk[f->at % *n] ^= 1 << f->at % 8;
    }
    return true;
}

static bool
cut_short(void *index, size_t i, uint8_t *chunk, size_t *n)
{
    *n -= i == *(size_t *)index;
    return true;
}

static bool
leave_out(void *index, size_t i, uint8_t *chunk, size_t *n)
{
    return i != *(size_t *)index;
}

static void
test_on_the_way(struct stream *s, struct far_end *far)
{
    stream_typical(s, false);
    struct result whole = carry(s, far, 1 << 20, NULL, NULL);

    CASE("a flipped bit is found before the stream is complete, or changed nothing");
    unsigned int found = 0;
    for (size_t i = 0; i < 300; i++) {
        struct flip f = {i % whole.n_chunks, i * 7919};
        struct result r = carry(s, far, 1 << 20, flip_bit, &f);

        CHECK(far->n < s->n);
        /* The configuration is libxl's to read. */
        CHECK(!f.index || !r.complete || same_as(far, s));
        found += !r.complete;
    }
    CHECK(found > 200);

    CASE("a chunk cut short or left out");
    for (size_t i = 0; i < whole.n_chunks; i++) {
        struct result r = carry(s, far, 1 << 20, cut_short, &i);
        CHECK(!r.complete && r.error == EBADMSG);
        r = carry(s, far, 1 << 20, leave_out, &i);
        CHECK(!r.complete && r.error == EBADMSG);
    }

    CASE("a source that ends early");
    s->n -= XEN_RECORD_HEADER_BYTES;
    CHECK(!carry(s, far, 1 << 20, NULL, NULL).complete);
}

/* --- chunks that no packer makes --------------------------------------------------------- */

static int
unpack_one(const uint8_t *chunk, size_t n, struct far_end *far)
{
    struct xen_sink sink = {got_config, got_bytes, far};
    struct xen_unpack *u;
    const char *why;
    int error;

    if (xen_unpack_create(false, STREAM_PFNS, &sink, &u)) {
        abort();
    }
    far->n = far->n_configs = 0;
    error = xen_unpack_chunk(u, chunk, n, &why);
    xen_unpack_destroy(u);
    return error;
}

static void
test_items(struct far_end *far)
{
    static const uint8_t config[] = {1, 0, 0, 0, 2, 0, 0, 0, '{', '}'};
    uint8_t chunk[256] = {0};

    CASE("items out of place");
    CHECK(unpack_one(config, sizeof config, far) == 0 && far->n_configs == 1);
    memcpy(chunk, config, sizeof config);
    memcpy(chunk + sizeof config, config, sizeof config);
    CHECK(unpack_one(chunk, 2 * sizeof config, far) == EBADMSG);

    memcpy(chunk, (uint8_t[]){2, 0, 0, 0, XEN_PROLOGUE_BYTES}, 5);
    memcpy(chunk + 8, xen_stream_prologue, XEN_PROLOGUE_BYTES);
    CHECK(unpack_one(chunk, 8 + XEN_PROLOGUE_BYTES, far) == EBADMSG); /* no configuration */

    memset(chunk, 0, sizeof chunk);
    memcpy(chunk, config, sizeof config);
    memcpy(chunk + sizeof config, (uint8_t[]){3, 0, 0, 0, 52, 0, 0, 0, 1}, 9);
    CHECK(unpack_one(chunk, sizeof config + 60, far) == EBADMSG); /* nothing announced */
    chunk[sizeof config] = 4;
    CHECK(unpack_one(chunk, sizeof config + 60, far) == EBADMSG); /* unknown */
    chunk[sizeof config] = 2;
    chunk[sizeof config + 4] = 0;
    CHECK(unpack_one(chunk, sizeof config + 8, far) == EBADMSG); /* empty */
    CHECK(unpack_one(chunk, sizeof config + 7, far) == EBADMSG); /* half a head */

    memcpy(chunk, config, sizeof config);
    chunk[8] = 0;
    CHECK(unpack_one(chunk, sizeof config, far) == EBADMSG); /* 0 in text */
    CHECK(far->n == 0);
}

int
main(void)
{
    struct stream s = {.bytes = malloc(STREAM_MAX)};
    struct far_end far = {.out = malloc(OUT_MAX)};

    if (!s.bytes || !far.out) {
        return 1;
    }
    test_round_trips(&s, &far);
    test_dedup(&s, &far);
    test_largest(&s, &far);
    test_damaged(&s);
    test_on_the_way(&s, &far);
    test_items(&far);
    free(far.out);
    free(s.bytes);
    return check_done();
}
