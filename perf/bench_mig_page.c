/* The migration's page codec, alone and in one thread: what a page costs each end, by
 * what it holds and how it is sent.  Nanoseconds of CPU time per page; the pages lie in
 * memory that no cache holds, as a guest's do.
 *
 * usage: bench_mig_page [MIBYTES]     default 256 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bytes.h"
#include "page.h"
#include "page_choice.h"

static uint64_t state = 88172645463325252ull;

static uint64_t
rnd(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static double
cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

struct ends {
    uint8_t *source, *destination;
    size_t pages;
    struct mig_digest here, there;
    struct mig_encoder *encoder;
    struct mig_decoder *decoder;
    struct mig_sum placed;
    double encode_ns, decode_ns;
    uint64_t bytes, encoded;
};

static void
round_of(struct ends *e, uint32_t round, uint32_t flags)
{
    static struct mig_batch b;
    static const void *payload[MIG_BATCH_PAGES];
    uint8_t head[MIG_BATCH_HEAD_MAX];
    const char *why = "";

    e->encode_ns = e->decode_ns = 0;
    e->bytes = 0;
    e->encoded = 0;
    for (uint64_t pfn = 0; pfn < e->pages;) {
        double start = cpu_ns(), middle;

        mig_encoder_begin(e->encoder, &b, round, flags);
        for (unsigned i = 0; i < MIG_BATCH_PAGES && pfn < e->pages; i++, pfn++) {
            mig_encode(e->encoder, &b, payload, pfn, e->source + pfn * MIG_PAGE);
            e->encoded++;
        }
        e->bytes += mig_batch_put(head, &b) + b.payload;
        middle = cpu_ns();
        for (uint32_t i = 0; i < b.n; i++) {
            for (uint32_t j = 0; j < b.desc[i].count; j++) {
                uint64_t at = b.desc[i].pfn + j, hash;
                uint8_t *page = e->destination + at * MIG_PAGE;
                /* A raw page would be read into place by the kernel. */
                const uint8_t *from = b.desc[i].kind == MIG_RAW ? page : payload[i];

                if (b.desc[i].kind == MIG_RAW) {
                    b.desc[i].hash = 0;
                }
                if (mig_decode(e->decoder, &b.desc[i], from, page, &hash, &why)) {
                    fprintf(stderr, "bench_mig_page: %s\n", why);
                    exit(1);
                }
                mig_digest_set(&e->there, &e->placed, at, hash);
            }
        }
        e->encode_ns += middle - start;
        e->decode_ns += cpu_ns() - middle;
        /* What was raw is there, too: later rounds have it as their base. */
        for (uint32_t i = 0; i < b.n; i++) {
            if (b.desc[i].kind == MIG_RAW) {
                memcpy(e->destination + b.desc[i].pfn * MIG_PAGE, payload[i], MIG_PAGE);
            }
        }
    }
}

static void
show(const char *what, const struct ends *e)
{
    printf("%-34s %7.0f %7.0f %8.0f\n", what, e->encode_ns / e->encoded, e->decode_ns / e->encoded,
           (double)e->bytes / e->encoded);
}

static void
fill(struct ends *e, unsigned what)
{
    static const char words[] =
        "the quick brown fox jumps over the lazy dog and runs away from it ";

    for (size_t i = 0; i < e->pages * MIG_PAGE; i += 8) {
        switch (what) {
        case 0:
            put_le64(e->source + i, 0);
            break;
        case 1:
            put_le64(e->source + i, rnd());
            break;
        case 2: /* text */
            memcpy(e->source + i, words + rnd() % (sizeof words - 9), 8);
            break;
        case 3: /* a record again and again */
            put_le64(e->source + i, i / 64 % 7 * 0x0101010101010101ull + i % 64);
            break;
        }
    }
}

static void
run(size_t pages, const char *what, unsigned content, enum mig_compress compress, double wire,
    unsigned changes)
{
    struct ends e = {.pages = pages};

    e.source = aligned_alloc(4096, pages * MIG_PAGE);
    e.destination = aligned_alloc(4096, pages * MIG_PAGE);
    if (mig_digest_init(&e.here, pages, (uint64_t[2]){1, 2}) ||
        mig_digest_init(&e.there, pages, (uint64_t[2]){1, 2}) || mig_decoder_create(&e.decoder) ||
        mig_encoder_create(
            &(struct mig_encoder_options){&e.here, compress, changes ? 2 * pages * MIG_PAGE : 0},
            &e.encoder)) {
        exit(1);
    }
    memset(e.destination, 0, pages * MIG_PAGE);
    mig_encoder_wire(e.encoder, wire);
    fill(&e, content);
    round_of(&e, changes ? 1 : 0, 0);
    if (changes) {
        for (size_t i = 0; i < pages; i++) {
            for (unsigned j = 0; j < changes; j++) {
                e.source[i * MIG_PAGE + rnd() % MIG_PAGE]++;
            }
        }
        round_of(&e, 2, 0);
    } else {
        round_of(&e, 0, 0); /* again: now all memory has been touched */
    }
    show(what, &e);
    mig_encoder_destroy(e.encoder);
    mig_decoder_destroy(e.decoder);
    mig_digest_destroy(&e.here);
    mig_digest_destroy(&e.there);
    free(e.source);
    free(e.destination);
}

int
main(int argc, char **argv)
{
    size_t pages = (size_t)(argc > 1 ? atoi(argv[1]) : 256) * 256;

    printf("%-34s %7s %7s %8s\n", "page", "send ns", "recv ns", "bytes");
    run(pages, "zeros", 0, MIG_COMPRESS_AUTO, 0.2, 0);
    run(pages, "noise, raw", 1, MIG_COMPRESS_NONE, 0.2, 0);
    run(pages, "noise, fast wire (0.2 ns/byte)", 1, MIG_COMPRESS_AUTO, 0.2, 0);
    run(pages, "noise, TLS (1 ns/byte)", 1, MIG_COMPRESS_AUTO, 1, 0);
    run(pages, "noise, 1 Gb/s (8 ns/byte)", 1, MIG_COMPRESS_AUTO, 8, 0);
    run(pages, "text, fast wire", 2, MIG_COMPRESS_AUTO, 0.2, 0);
    run(pages, "text, TLS", 2, MIG_COMPRESS_AUTO, 1, 0);
    run(pages, "text, 1 Gb/s", 2, MIG_COMPRESS_AUTO, 8, 0);
    run(pages, "text, LZ4", 2, MIG_COMPRESS_LZ4, 0, 0);
    run(pages, "text, zstd", 2, MIG_COMPRESS_ZSTD, 0, 0);
    run(pages, "records, fast wire", 3, MIG_COMPRESS_AUTO, 0.2, 0);
    run(pages, "records, TLS", 3, MIG_COMPRESS_AUTO, 1, 0);
    run(pages, "delta of 4 words", 1, MIG_COMPRESS_NONE, 0.2, 4);
    run(pages, "delta of 60 words", 1, MIG_COMPRESS_NONE, 0.2, 60);
    run(pages, "delta of 150 words", 1, MIG_COMPRESS_NONE, 0.2, 150);
    return 0;
}
