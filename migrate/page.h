/* page: how pages travel in a PAGES record (docs/migration-stream.md, "Pages").
 *
 * Descriptors first, in ascending order of page, then the payloads in the same order:
 * a raw page is written from where it lies and read into place.
 *
 * An encoder and a decoder belong to one connection's thread; a page is sent over the
 * same connection as long as the encoder may hold a base of it (deltas refer to what
 * that encoder sent).  Guest memory may change while it is encoded: whatever carries a
 * hash was copied once, first.  A raw page without a hash may be torn; the dirty log has it then.
 *
 * Choice: each way of sending has a measured cost, and is taken when it saves more time
 * on the wire than it costs.  page_choice.h has the policy as a pure function. */
#ifndef MIG_PAGE_H
#define MIG_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "digest.h"

#define MIG_BATCH_PAGES 256u /* descriptors in a batch, at most */
#define MIG_BATCH_HEAD 24u   /* bytes before the descriptors */
#define MIG_DESC 24u         /* bytes of a descriptor */
#define MIG_BATCH_HEAD_MAX (MIG_BATCH_HEAD + MIG_BATCH_PAGES * MIG_DESC)
#define MIG_ZERO_RUN_MAX 65535u

enum mig_page_kind {
    MIG_ZERO = 1,  /* 'count' pages of zeros, no payload */
    MIG_RAW = 2,   /* the page */
    MIG_DELTA = 3, /* what differs from what the page holds */
    MIG_LZ4 = 4,   /* an LZ4 block */
    MIG_ZSTD = 5,  /* a zstd frame */
    MIG_KINDS
};

enum {
    MIG_BATCH_EXACT = 1,    /* the guest is paused: every descriptor has its hash */
    MIG_BATCH_POSTCOPY = 2, /* the guest may run at the destination: places where nothing is */
};

struct mig_desc {
    uint64_t pfn;
    uint64_t hash;   /* of the page afterwards; 0: zeros, or (raw only) not told */
    uint32_t length; /* of the payload */
    uint16_t count;  /* pages; 1 unless zeros */
    uint8_t kind;
};

struct mig_batch {
    uint32_t n;     /* descriptors, 1..MIG_BATCH_PAGES */
    uint32_t flags; /* MIG_BATCH_* */
    uint32_t round;
    uint64_t payload; /* bytes: the sum of the lengths */
    struct mig_desc desc[MIG_BATCH_PAGES];
};

/* Bytes before the payload of a batch of 'n' descriptors. */
static inline size_t
mig_batch_head_len(uint32_t n)
{
    return MIG_BATCH_HEAD + (size_t)n * MIG_DESC;
}

/* Writes head and descriptors ('out' has room for MIG_BATCH_HEAD_MAX) and sets
 * b->payload.  Returns their length; the payloads follow, the record's length is both. */
size_t mig_batch_put(uint8_t *out, struct mig_batch *);

/* Looks at the first MIG_BATCH_HEAD bytes of a PAGES record of 'length' bytes: how long
 * are head and descriptors?  0: 'why' says what is wrong. */
size_t mig_batch_peek(const uint8_t *p, uint32_t length, const char **why);

/* Checks head and descriptors ('n' bytes, as mig_batch_peek() said) of a record of
 * 'length' bytes for a memory of 'n_pages' pages.  0 or EPROTO with 'why'. */
int mig_batch_get(const uint8_t *p, size_t n, uint32_t length, uint64_t n_pages, struct mig_batch *,
                  const char **why);

/* --- sending -------------------------------------------------------------------------- */

struct mig_encoder;

enum mig_compress { MIG_COMPRESS_AUTO, MIG_COMPRESS_NONE, MIG_COMPRESS_LZ4, MIG_COMPRESS_ZSTD };

struct mig_encoder_options {
    struct mig_digest *digest; /* the whole memory's; NULL: hashes are only told */
    enum mig_compress compress;
    size_t cache_bytes; /* of pages sent, for deltas; 0: no deltas */
};

struct mig_encoder_stats {
    uint64_t pages[MIG_KINDS], bytes[MIG_KINDS]; /* sent, payload; [0]: unchanged, not sent */
    uint64_t tried[MIG_KINDS];                   /* times a way was tried, in vain or not */
    uint64_t ns;                                 /* spent encoding, where it was measured */
    uint64_t cache_hits, cache_misses;
};

/* 0 or ENOMEM. */
int mig_encoder_create(const struct mig_encoder_options *, struct mig_encoder **);
void mig_encoder_destroy(struct mig_encoder *);

/* What a byte on the wire costs now, in nanoseconds, with what its encryption costs:
 * the time the sender was busy or blocked in writing, divided by the bytes. */
void mig_encoder_wire(struct mig_encoder *, double ns_per_byte);

/* Begins a batch; what was encoded for the last one is no longer needed.  'exact': the
 * memory does not change any more (the guest is paused). */
void mig_encoder_begin(struct mig_encoder *, struct mig_batch *, uint32_t round, uint32_t flags);

/* Appends a page, greater than the last one, to the batch.  payload[i] of its descriptor i is
 * 'page' itself, or memory of the encoder that stays until mig_encoder_begin().  Nothing
 * is appended for a page that the other end has already.  False: the batch is full;
 * send it, begin another, and call again. */
bool mig_encode(struct mig_encoder *, struct mig_batch *, const void *payload[MIG_BATCH_PAGES],
                uint64_t pfn, const void *page);

/* The thread's share of the digest; fold it (mig_digest_fold) when the thread has sent all
 * that counts. */
struct mig_sum *mig_encoder_sum(struct mig_encoder *);
const struct mig_encoder_stats *mig_encoder_stats(const struct mig_encoder *);

/* --- receiving ------------------------------------------------------------------------ */

struct mig_decoder;

/* 0 or ENOMEM. */
int mig_decoder_create(struct mig_decoder **);
void mig_decoder_destroy(struct mig_decoder *);

/* Makes 'page' (MIG_PAGE bytes, holding what was placed there last) what descriptor 'd',
 * checked by mig_batch_get(), and its payload say.  For raw pages 'payload' may be
 * 'page' itself: they were read into place.  Zeros: one page of them ('d->count' calls).  Returns
 * 0 and the page's hash, or EPROTO with 'why': damaged, or not what the hash says; the
 * page's content is then undefined. */
int mig_decode(struct mig_decoder *, const struct mig_desc *d, const uint8_t *payload, void *page,
               uint64_t *hash, const char **why);

#endif
