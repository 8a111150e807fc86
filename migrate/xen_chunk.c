/* xen_chunk: packing and unpacking. */
#include "xen_chunk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "bytes.h"
#include "cursor.h"
#include "page_delta.h"

enum { CONFIG = 1, BYTES = 2, PAGES = 3 };
enum {
    ITEM_HEAD = 8,
    BITMAP = XEN_PIECE_PAGES / 8,
    PAGES_HEAD = 8 + 2 * BITMAP,
    DELTA_MAX = MIG_PAGE_BYTES / 4, /* a longer one does not beat compression by much */
    /* Frames that do not ascend: a batch for each page at worst. */
    PAGES_MAX = PAGES_HEAD + XEN_PIECE_PAGES * (4 + MIG_BATCH_HEAD + MIG_DESC + MIG_PAGE_BYTES),
};
_Static_assert(XEN_PIECE_PAGES % 8 == 0, "whole bytes of bitmap");
_Static_assert(2 * ITEM_HEAD + XEN_PIECE_BYTES + PAGES_MAX <= MIG_CHUNK_MAX, "bytes and pages");
_Static_assert(ITEM_HEAD + XEN_CONFIG_MAX <= MIG_CHUNK_MAX, "configuration");
_Static_assert(XEN_PIECE_PAGES <= MIG_BATCH_PAGES, "pages of a batch");

/* Frame numbers are kept plus 1: 0 is an empty place. */
struct cache {
    uint64_t frame[XEN_CACHE_PAGES];
    uint8_t *pages;
};

static int
cache_init(struct cache *c)
{
    c->pages = malloc((size_t)XEN_CACHE_PAGES * MIG_PAGE_BYTES);
    return c->pages ? 0 : ENOMEM;
}

/* What the cache holds of the frame, or NULL. */
static const uint8_t *
cache_find(const struct cache *c, uint64_t pfn)
{
    size_t i = pfn % XEN_CACHE_PAGES;

    return c->frame[i] == pfn + 1 ? c->pages + i * MIG_PAGE_BYTES : NULL;
}

static void
cache_put(struct cache *c, uint64_t pfn, const uint8_t *page)
{
    size_t i = pfn % XEN_CACHE_PAGES;

    c->frame[i] = pfn + 1;
    memcpy(c->pages + i * MIG_PAGE_BYTES, page, MIG_PAGE_BYTES);
}

static bool
bit(const uint8_t *map, unsigned i)
{
    return map[i / 8] >> i % 8 & 1;
}

static void
digest_get(const XXH3_state_t *hash, uint8_t digest[MIG_DIGEST_BYTES])
{
    XXH128_canonical_t c;

    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(hash));
    _Static_assert(sizeof c == MIG_DIGEST_BYTES, "the digest");
    memcpy(digest, &c, sizeof c);
}

/* --- the sender ------------------------------------------------------------------ */

struct xen_pack {
    struct mig_encoder *encoder;
    struct cache cache;
    XXH3_state_t *hash;
    struct mig_batch batch;
    const void *payload[MIG_BATCH_PAGES];
    size_t n, n_deltas;
    uint8_t deltas[XEN_PIECE_PAGES * (2 + DELTA_MAX)];
    uint8_t chunk[MIG_CHUNK_MAX];
};

int
xen_pack_create(enum mig_compress compress, struct xen_pack **out)
{
    struct xen_pack *p = calloc(1, sizeof *p);

    if (!p) {
        return ENOMEM;
    }
    p->hash = XXH3_createState();
    if (!p->hash || cache_init(&p->cache) ||
        mig_encoder_create(&(struct mig_encoder_options){.compress = compress}, &p->encoder)) {
        xen_pack_destroy(p);
        return ENOMEM;
    }
    XXH3_128bits_reset(p->hash);
    *out = p;
    return 0;
}

void
xen_pack_destroy(struct xen_pack *p)
{
    if (p) {
        mig_encoder_destroy(p->encoder);
        XXH3_freeState(p->hash);
        free(p->cache.pages);
        free(p);
    }
}

void
xen_pack_begin(struct xen_pack *p)
{
    p->n = 0;
}

const uint8_t *
xen_pack_bytes(const struct xen_pack *p, size_t *n)
{
    *n = p->n;
    return p->chunk;
}

void
xen_pack_wire(struct xen_pack *p, double ns_per_byte)
{
    mig_encoder_wire(p->encoder, ns_per_byte);
}

void
xen_pack_digest(const struct xen_pack *p, uint8_t digest[MIG_DIGEST_BYTES])
{
    digest_get(p->hash, digest);
}

static void
put(struct xen_pack *p, const void *bytes, size_t n)
{
    memcpy(p->chunk + p->n, bytes, n);
    p->n += n;
}

/* Reserves the head of something whose length is known later. */
static size_t
open_item(struct xen_pack *p, uint32_t kind)
{
    put_le32(p->chunk + p->n, kind);
    p->n += ITEM_HEAD;
    return p->n;
}

static void
close_item(struct xen_pack *p, size_t start)
{
    put_le32(p->chunk + start - 4, p->n - start);
}

void
xen_pack_config(struct xen_pack *p, const char *json, size_t n)
{
    size_t start = open_item(p, CONFIG);

    put(p, json, n);
    close_item(p, start);
}

static void
put_batch(struct xen_pack *p)
{
    size_t start = p->n + 4;

    if (!p->batch.n) {
        return;
    }
    p->n = start + mig_batch_put(p->chunk + start, &p->batch);
    for (uint32_t i = 0; i < p->batch.n; i++) {
        put(p, p->payload[i], p->batch.desc[i].length);
    }
    close_item(p, start);
}

/* Whether the page went as what differs from the cache's. */
static bool
put_delta(struct xen_pack *p, uint64_t pfn, const uint8_t *page)
{
    const uint8_t *cached = cache_find(&p->cache, pfn);
    uint8_t delta[MIG_PAGE_BYTES];
    size_t n = cached ? mig_delta_make(cached, page, DELTA_MAX, delta) : SIZE_MAX;

    if (n == SIZE_MAX) {
        return false;
    }
    put_le16(p->deltas + p->n_deltas, n);
    memcpy(p->deltas + p->n_deltas + 2, delta, n);
    p->n_deltas += 2 + n;
    return true;
}

static void
put_pages(struct xen_pack *p, const struct xen_piece *piece)
{
    size_t start = open_item(p, PAGES);
    uint8_t *zero = p->chunk + start + 8, *delta = zero + BITMAP;
    uint64_t last = 0;

    memset(zero, 0, 2 * BITMAP);
    p->n += PAGES_HEAD;
    p->n_deltas = 0;
    mig_encoder_begin(p->encoder, &p->batch, 0, 0);
    for (uint32_t i = 0; i < piece->n_pages; i++) {
        const uint8_t *page = piece->bytes + (size_t)i * MIG_PAGE_BYTES;
        uint64_t pfn = piece->pfns[i];

        if (mig_page_is_zero(page)) {
            zero[i / 8] |= 1u << i % 8;
            continue;
        }
        if (put_delta(p, pfn, page)) {
            delta[i / 8] |= 1u << i % 8;
        } else {
            if (p->batch.n && pfn <= last) {
                put_batch(p);
                mig_encoder_begin(p->encoder, &p->batch, 0, 0);
            }
            mig_encode(p->encoder, &p->batch, p->payload, pfn, page);
            last = pfn;
        }
        cache_put(&p->cache, pfn, page);
    }
    put_batch(p);
    put_le32(p->chunk + start, piece->n_pages);
    put_le32(p->chunk + start + 4, p->n_deltas);
    put(p, p->deltas, p->n_deltas);
    close_item(p, start);
}

void
xen_pack_piece(struct xen_pack *p, const struct xen_piece *piece)
{
    if (piece->kind == XEN_END) {
        return;
    }
    XXH3_128bits_update(p->hash, piece->bytes, piece->n_bytes);
    if (piece->kind == XEN_PAGES) {
        put_pages(p, piece);
        return;
    }
    size_t start = open_item(p, BYTES);

    put(p, piece->bytes, piece->n_bytes);
    close_item(p, start);
}

/* --- the receiver ----------------------------------------------------------------- */

struct xen_unpack {
    struct xen_sink sink;
    struct mig_decoder *decoder;
    struct cache cache;
    XXH3_state_t *hash;
    struct xen_stream stream;
    uint64_t pfn_limit;
    bool configured;
    struct mig_batch batch;
    uint64_t pfns[XEN_PIECE_PAGES];
    uint8_t pages[XEN_PIECE_PAGES * MIG_PAGE_BYTES];
};

int
xen_unpack_create(bool pv, uint64_t pfn_limit, const struct xen_sink *sink, struct xen_unpack **out)
{
    struct xen_unpack *u = calloc(1, sizeof *u);

    if (!u) {
        return ENOMEM;
    }
    u->sink = *sink;
    u->pfn_limit = pfn_limit;
    xen_stream_init(&u->stream, pv, pfn_limit);
    u->hash = XXH3_createState();
    if (!u->hash || cache_init(&u->cache) || mig_decoder_create(&u->decoder)) {
        xen_unpack_destroy(u);
        return ENOMEM;
    }
    XXH3_128bits_reset(u->hash);
    *out = u;
    return 0;
}

void
xen_unpack_destroy(struct xen_unpack *u)
{
    if (u) {
        mig_decoder_destroy(u->decoder);
        XXH3_freeState(u->hash);
        free(u->cache.pages);
        free(u);
    }
}

static int
refuse(const char **why, const char *text)
{
    *why = text;
    return EBADMSG;
}

static int
hand_on(struct xen_unpack *u, const struct xen_piece *piece, const char **why)
{
    size_t n;
    int error = xen_join(&u->stream, piece, &n, why);

    if (error) {
        return error;
    }
    XXH3_128bits_update(u->hash, piece->bytes, piece->n_bytes);
    return n ? u->sink.bytes(u->sink.aux, piece->bytes, n) : 0;
}

/* The next batch of an item, checked; *payload is its first. */
static int
next_batch(struct xen_unpack *u, struct cursor *c, const uint8_t **payload, const char **why)
{
    const uint8_t *p = cursor_take(c, 4);
    uint32_t length = p ? get_le32(p) : 0;
    size_t head;

    p = cursor_take(c, length);
    if (!p || length < MIG_BATCH_HEAD) {
        return refuse(why, "batch of pages cut short");
    }
    head = mig_batch_peek(p, length, why);
    if (!head || head > length) {
        return EBADMSG;
    }
    *payload = p + head;
    return mig_batch_get(p, head, length, u->pfn_limit, &u->batch, why) ? EBADMSG : 0;
}

struct unpack_pages {
    struct cursor batches, deltas;
    const uint8_t *payload;
    uint32_t at; /* descriptor of u->batch that is next */
};

/* The page of the next descriptor, which must be that of 'pfn'. */
static int
batched_page(struct xen_unpack *u, struct unpack_pages *from, uint64_t pfn, uint8_t *page,
             const char **why)
{
    const struct mig_desc *d;
    uint64_t hash;
    int error;

    if (from->at == u->batch.n) {
        error = next_batch(u, &from->batches, &from->payload, why);
        if (error) {
            return error;
        }
        from->at = 0;
    }
    d = &u->batch.desc[from->at++];
    /* A delta here would have no base, zeros are in the bitmap. */
    if (d->pfn != pfn || d->count != 1 || d->kind == MIG_DELTA || d->kind == MIG_ZERO) {
        return refuse(why, "page that the stream does not want");
    }
    error = mig_decode(u->decoder, d, from->payload, page, &hash, why);
    from->payload += d->length;
    return error ? EBADMSG : 0;
}

static int
delta_page(struct xen_unpack *u, struct unpack_pages *from, uint64_t pfn, uint8_t *page,
           const char **why)
{
    const uint8_t *cached = cache_find(&u->cache, pfn);
    const uint8_t *head = cursor_take(&from->deltas, 2);
    uint16_t length = head ? get_le16(head) : 0;
    const uint8_t *delta = cursor_take(&from->deltas, length);

    if (!cached || !delta) {
        return refuse(why, cached ? "deltas cut short" : "delta to a page that was not sent");
    }
    memcpy(page, cached, MIG_PAGE_BYTES);
    /* An empty one: nothing has changed. */
    return length && mig_delta_apply(page, delta, length) ? refuse(why, "delta out of form") : 0;
}

static int
take_page(struct xen_unpack *u, struct unpack_pages *from, const uint8_t *zero, uint32_t i,
          const char **why)
{
    uint8_t *page = u->pages + (size_t)i * MIG_PAGE_BYTES;
    uint64_t pfn = u->pfns[i] = u->stream.pfns[u->stream.next_page + i];
    int error;

    if (bit(zero, i)) {
        memset(page, 0, MIG_PAGE_BYTES);
        return 0;
    }
    error = bit(zero + BITMAP, i) ? delta_page(u, from, pfn, page, why)
                                  : batched_page(u, from, pfn, page, why);
    if (!error) {
        cache_put(&u->cache, pfn, page);
    }
    return error;
}

static int
take_pages(struct xen_unpack *u, const uint8_t *item, size_t length, const char **why)
{
    struct cursor c = cursor_on(item, length);
    const uint8_t *head = cursor_take(&c, PAGES_HEAD);
    uint32_t n = head ? get_le32(head) : 0, n_deltas = head ? get_le32(head + 4) : 0;
    struct unpack_pages from;
    size_t announced;
    int error = 0;

    if (xen_stream_want(&u->stream, &announced) != XEN_WANT_PAGE || !n || n > XEN_PIECE_PAGES ||
        n > announced || n_deltas > c.left) {
        return refuse(why, "pages that no batch announced");
    }
    from = (struct unpack_pages){.batches = cursor_on(c.p, c.left - n_deltas),
                                 .deltas = cursor_on(c.p + c.left - n_deltas, n_deltas)};
    u->batch.n = 0;
    for (uint32_t i = 0; !error && i < n; i++) {
        error = take_page(u, &from, head + 8, i, why);
    }
    if (error) {
        return error;
    }
    if (from.batches.left || from.deltas.left || from.at != u->batch.n) {
        return refuse(why, "more pages than were said");
    }
    return hand_on(u,
                   &(struct xen_piece){.kind = XEN_PAGES,
                                       .bytes = u->pages,
                                       .n_bytes = (size_t)n * MIG_PAGE_BYTES,
                                       .pfns = u->pfns,
                                       .n_pages = n},
                   why);
}

static int
take_config(struct xen_unpack *u, const uint8_t *item, size_t length, const char **why)
{
    if (u->configured || !length || length > XEN_CONFIG_MAX || memchr(item, 0, length)) {
        return refuse(why, "no configuration, or one more");
    }
    u->configured = true;
    return u->sink.config(u->sink.aux, (const char *)item, length);
}

static int
take_item(struct xen_unpack *u, uint32_t kind, const uint8_t *item, size_t length, const char **why)
{
    if (kind == CONFIG) {
        return take_config(u, item, length, why);
    }
    if (!u->configured) {
        return refuse(why, "stream before its configuration");
    }
    switch (kind) {
    case BYTES:
        if (!length) {
            return refuse(why, "empty item");
        }
        return hand_on(u, &(struct xen_piece){.kind = XEN_BYTES, .bytes = item, .n_bytes = length},
                       why);
    case PAGES:
        return take_pages(u, item, length, why);
    default:
        return refuse(why, "unknown item");
    }
}

int
xen_unpack_chunk(struct xen_unpack *u, const uint8_t *chunk, size_t n, const char **why)
{
    struct cursor c = cursor_on(chunk, n);
    int error = 0;

    *why = "";
    while (!error && c.left) {
        const uint8_t *head = cursor_take(&c, ITEM_HEAD);
        uint32_t length = head ? get_le32(head + 4) : 0;
        const uint8_t *item = cursor_take(&c, length);

        if (c.failed) {
            return refuse(why, "chunk cut short");
        }
        error = take_item(u, get_le32(head), item, length, why);
    }
    return error;
}

int
xen_unpack_finish(struct xen_unpack *u, const uint8_t digest[MIG_DIGEST_BYTES], const char **why)
{
    uint8_t ours[MIG_DIGEST_BYTES];

    digest_get(u->hash, ours);
    if (!xen_join_complete(&u->stream)) {
        return refuse(why, "the stream ends before its end");
    }
    return memcmp(ours, digest, sizeof ours)
               ? refuse(why, "what arrived is not what was sent: digests differ")
               : 0;
}
