/* Batches of pages: descriptors written and checked, payloads decoded (page.h). */
#include "page.h"

#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "bytes.h"
#include "page_delta.h"

enum {
    HEAD_N = 0,
    HEAD_FLAGS = 4,
    HEAD_ROUND = 8,
    HEAD_RESERVED = 12,
    HEAD_PAYLOAD = 16,

    DESC_PFN = 0,
    DESC_HASH = 8,
    DESC_LENGTH = 16,
    DESC_COUNT = 20,
    DESC_KIND = 22,
    DESC_RESERVED = 23,
};
_Static_assert(HEAD_PAYLOAD + 8 == MIG_BATCH_HEAD && DESC_RESERVED + 1 == MIG_DESC,
               "head and descriptor are as the document has them");

size_t
mig_batch_put(uint8_t *out, struct mig_batch *b)
{
    uint8_t *p = out + MIG_BATCH_HEAD;

    b->payload = 0;
    for (uint32_t i = 0; i < b->n; i++, p += MIG_DESC) {
        const struct mig_desc *d = &b->desc[i];

        put_le64(p + DESC_PFN, d->pfn);
        put_le64(p + DESC_HASH, d->hash);
        put_le32(p + DESC_LENGTH, d->length);
        put_le16(p + DESC_COUNT, d->count);
        p[DESC_KIND] = d->kind;
        p[DESC_RESERVED] = 0;
        b->payload += d->length;
    }
    put_le32(out + HEAD_N, b->n);
    put_le32(out + HEAD_FLAGS, b->flags);
    put_le32(out + HEAD_ROUND, b->round);
    put_le32(out + HEAD_RESERVED, 0);
    put_le64(out + HEAD_PAYLOAD, b->payload);
    return (size_t)(p - out);
}

size_t
mig_batch_peek(const uint8_t *p, uint32_t length, const char **why)
{
    uint32_t n = get_le32(p + HEAD_N);

    if (n < 1 || n > MIG_BATCH_PAGES || mig_batch_head_len(n) > length) {
        *why = "PAGES: number of descriptors";
        return 0;
    }
    return mig_batch_head_len(n);
}

/* A descriptor by itself, in a batch with 'flags'. */
static const char *
desc_fault(const struct mig_desc *d, uint32_t flags)
{
    switch (d->kind) {
    case MIG_ZERO:
        return d->length || d->hash || !d->count ? "PAGES: zeros" : NULL;
    case MIG_RAW:
        return d->length != MIG_PAGE || d->count != 1  ? "PAGES: length of a raw page"
               : (flags & MIG_BATCH_EXACT) && !d->hash ? "PAGES: a raw page without a hash"
                                                       : NULL;
    case MIG_DELTA:
        if (flags & MIG_BATCH_POSTCOPY) {
            return "PAGES: a delta of what is not there";
        }
        break;
    case MIG_LZ4:
    case MIG_ZSTD:
        break;
    default:
        return "PAGES: kind of a page";
    }
    return !d->length || d->length >= MIG_PAGE || d->count != 1 ? "PAGES: length of a page"
           : !d->hash                                           ? "PAGES: a page without a hash"
                                                                : NULL;
}

static const char *
batch_fault(const uint8_t *p, uint64_t n_pages, struct mig_batch *b)
{
    uint64_t next = 0, payload = 0;

    for (uint32_t i = 0; i < b->n; i++, p += MIG_DESC) {
        struct mig_desc *d = &b->desc[i];
        const char *fault;

        *d = (struct mig_desc){
            .pfn = get_le64(p + DESC_PFN),
            .hash = get_le64(p + DESC_HASH),
            .length = get_le32(p + DESC_LENGTH),
            .count = get_le16(p + DESC_COUNT),
            .kind = p[DESC_KIND],
        };
        fault = p[DESC_RESERVED] ? "PAGES: reserved bytes are not zero" : desc_fault(d, b->flags);
        if (fault) {
            return fault;
        }
        if (d->pfn < next) {
            return "PAGES: pages are not ascending";
        }
        if (d->pfn >= n_pages || d->count > n_pages - d->pfn) {
            return "PAGES: a page beyond the memory";
        }
        next = d->pfn + d->count;
        payload += d->length;
    }
    return payload != b->payload ? "PAGES: length of the payload" : NULL;
}

int
mig_batch_get(const uint8_t *p, size_t n, uint32_t length, uint64_t n_pages, struct mig_batch *b,
              const char **why)
{
    if (n < MIG_BATCH_HEAD || mig_batch_peek(p, length, why) != n) {
        *why = "PAGES: number of descriptors";
        return EPROTO;
    }
    b->n = get_le32(p + HEAD_N);
    b->flags = get_le32(p + HEAD_FLAGS);
    b->round = get_le32(p + HEAD_ROUND);
    b->payload = get_le64(p + HEAD_PAYLOAD);
    *why = NULL;
    if ((b->flags & ~(uint32_t)(MIG_BATCH_EXACT | MIG_BATCH_POSTCOPY)) ||
        b->flags == MIG_BATCH_POSTCOPY) {
        *why = "PAGES: flags";
    } else if (get_le32(p + HEAD_RESERVED)) {
        *why = "PAGES: reserved bytes are not zero";
    } else if (b->payload != length - n) {
        *why = "PAGES: length of the payload";
    } else {
        *why = batch_fault(p + MIG_BATCH_HEAD, n_pages, b);
    }
    return *why ? EPROTO : 0;
}

/* --- receiving ------------------------------------------------------------------------ */

struct mig_decoder {
    ZSTD_DCtx *zstd;
};

int
mig_decoder_create(struct mig_decoder **decoder)
{
    struct mig_decoder *d = calloc(1, sizeof *d);

    *decoder = d;
    if (!d) {
        return ENOMEM;
    }
    d->zstd = ZSTD_createDCtx();
    if (!d->zstd) {
        free(d);
        *decoder = NULL;
        return ENOMEM;
    }
    return 0;
}

void
mig_decoder_destroy(struct mig_decoder *d)
{
    if (d) {
        ZSTD_freeDCtx(d->zstd);
        free(d);
    }
}

static bool
decompress(struct mig_decoder *decoder, const struct mig_desc *d, const uint8_t *payload,
           void *page)
{
    switch (d->kind) {
    case MIG_DELTA:
        return !mig_delta_apply(page, payload, d->length);
    case MIG_LZ4:
        return LZ4_decompress_safe((const char *)payload, page, (int)d->length, MIG_PAGE) ==
               MIG_PAGE;
    case MIG_ZSTD:
        return ZSTD_decompressDCtx(decoder->zstd, page, MIG_PAGE, payload, d->length) == MIG_PAGE;
    default:
        return false;
    }
}

int
mig_decode(struct mig_decoder *decoder, const struct mig_desc *d, const uint8_t *payload,
           void *page, uint64_t *hash, const char **why)
{
    *hash = 0;
    if (d->kind == MIG_ZERO) {
        /* Looked at first: most are zeros already, and untouched memory stays so. */
        if (!mig_page_is_zero(page)) {
            memset(page, 0, MIG_PAGE);
        }
        return 0;
    }
    if (d->kind == MIG_RAW) {
        if (payload != page) {
            memcpy(page, payload, MIG_PAGE);
        }
    } else if (!decompress(decoder, d, payload, page)) {
        *why = "PAGES: a page cannot be decoded";
        return EPROTO;
    }
    *hash = mig_page_hash(page);
    if (d->hash && d->hash != *hash) {
        *why = "PAGES: a page's hash differs";
        return EPROTO;
    }
    return 0;
}
