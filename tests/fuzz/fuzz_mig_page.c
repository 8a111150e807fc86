/* Feeds hostile payloads to the page decoder, and odd pages to the encoder.
 *
 * Input: a byte says which.  Bit 7 clear: payloads, each behind a byte with its kind
 * and two with its length, decoded one after another into the same page.  Set: pages made
 * of the input's bytes, sent one after another by encoder and decoder: the other end must have
 * them, bits 0 and 1: how they may be compressed, bit 2: with deltas, bit 3: paused. */
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "page.h"
#include "page_delta.h"

static void
require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void
decode_all(const uint8_t *data, size_t len)
{
    uint8_t *page = calloc(1, MIG_PAGE);
    struct mig_decoder *decoder;

    require(page && !mig_decoder_create(&decoder));
    while (len >= 3) {
        struct mig_desc d = {.pfn = 1, .count = 1};
        uint8_t kind = data[0] % (MIG_KINDS + 1), *payload;
        const char *why = NULL;
        uint64_t hash;
        size_t n = get_le16(data + 1) % MIG_PAGE;

        data += 3;
        len -= 3;
        n = n < len ? n : len;
        payload = calloc(1, kind == MIG_RAW ? MIG_PAGE : n + !n);
        memcpy(payload, data, n);
        d.kind = kind;
        d.length = kind == MIG_RAW ? MIG_PAGE : (uint32_t)n;
        /* Without a hash, as no batch has them, so that contents are compared with it. */
        if (mig_decode(decoder, &d, payload, page, &hash, &why)) {
            require(why != NULL);
        } else {
            require(hash == mig_page_hash(page));
            d.hash = hash ^ 1;
            require(kind == MIG_ZERO || !d.hash ||
                    mig_decode(decoder, &d, payload, page, &hash, &why));
        }
        free(payload);
        data += n;
        len -= n;
    }
    mig_decoder_destroy(decoder);
    free(page);
}

/* A page of runs of the input's bytes: length, byte, whether it goes up. */
static size_t
make_page(uint8_t *page, const uint8_t *data, size_t len)
{
    size_t used = 0;

    for (unsigned at = 0; at < MIG_PAGE && used + 2 <= len; used += 2) {
        unsigned n = (data[used] & 0x7f) * 8u + 1;

        for (unsigned i = 0; i < n && at < MIG_PAGE; i++, at++) {
            page[at] =
                data[used] & 0x80 ? (uint8_t)(data[used + 1] * (i * i + at)) : data[used + 1];
        }
    }
    return used;
}

static void
send_all(uint8_t how, const uint8_t *data, size_t len)
{
    struct mig_encoder_options options = {.compress = how & 3,
                                          .cache_bytes = how & 4 ? 8 * MIG_PAGE : 0};
    uint8_t *page = calloc(1, MIG_PAGE), *far = calloc(1, MIG_PAGE);
    uint32_t flags = how & 8 ? MIG_BATCH_EXACT : 0, round = 0;
    static struct mig_batch b;
    const void *payload[MIG_BATCH_PAGES];
    struct mig_digest digest;
    struct mig_encoder *encoder;
    struct mig_decoder *decoder;
    const char *why;

    require(!mig_digest_init(&digest, 1, (uint64_t[2]){3, 4}));
    options.digest = how & 16 ? &digest : NULL;
    require(!mig_encoder_create(&options, &encoder) && !mig_decoder_create(&decoder));
    mig_encoder_wire(encoder, how & 32 ? 10 : 0.1);
    while (len >= 2 && round < 16) {
        size_t used = make_page(page, data, len < 64 ? len : 64);
        uint64_t hash;

        data += used;
        len -= used;
        mig_encoder_begin(encoder, &b, round++, flags);
        require(mig_encode(encoder, &b, payload, 0, page) && b.n <= 1);
        if (b.n) {
            uint8_t head[MIG_BATCH_HEAD_MAX];
            size_t n = mig_batch_put(head, &b);
            uint32_t whole = (uint32_t)(n + b.payload);

            require(!mig_batch_get(head, n, whole, 1, &b, &why));
            require(!mig_decode(decoder, &b.desc[0], payload[0], far, &hash, &why));
            require(!options.digest || hash == digest.hash[0]);
        }
        require(!memcmp(page, far, MIG_PAGE));
    }
    mig_encoder_destroy(encoder);
    mig_decoder_destroy(decoder);
    mig_digest_destroy(&digest);
    free(page);
    free(far);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1) {
        return 0;
    }
    if (data[0] & 0x80) {
        send_all(data[0], data + 1, len - 1);
    } else {
        decode_all(data + 1, len - 1);
    }
    return 0;
}
