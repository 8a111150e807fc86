/* Hashes of pages and the sum over them (docs/migration-stream.md, "Digest"). */
#include "digest.h"

#include <errno.h>
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "bytes.h"

/* Loads of 256 bits: pages and their copies, or less aligned in a stream's buffer. */
bool
mig_page_is_zero(const void *page)
{
    const __m256i *p = page;

    for (unsigned i = 0; i < MIG_PAGE / sizeof *p; i += 4) {
        __m256i a = _mm256_or_si256(_mm256_loadu_si256(p + i), _mm256_loadu_si256(p + i + 1));
        __m256i b = _mm256_or_si256(_mm256_loadu_si256(p + i + 2), _mm256_loadu_si256(p + i + 3));

        a = _mm256_or_si256(a, b);
        if (!_mm256_testz_si256(a, a)) {
            return false;
        }
    }
    return true;
}

uint64_t
mig_page_hash(const void *page)
{
    uint64_t hash;

    if (mig_page_is_zero(page)) {
        return 0;
    }
    hash = XXH3_64bits(page, MIG_PAGE);
    return hash ? hash : 1; /* 0 is the hash of zeros */
}

void
mig_sum_add(struct mig_sum *sum, const uint64_t key[2], uint64_t position, uint64_t hash)
{
    uint8_t term[16];

    put_le64(term, position);
    put_le64(term + 8, hash);
    for (int i = 0; i < 2; i++) {
        sum->word[i] += XXH3_64bits_withSeed(term, sizeof term, key[i]);
    }
}

static void
sum_subtract(struct mig_sum *sum, const uint64_t key[2], uint64_t pfn, uint64_t hash)
{
    struct mig_sum term = {{0, 0}};

    mig_sum_add(&term, key, pfn, hash);
    sum->word[0] -= term.word[0];
    sum->word[1] -= term.word[1];
}

static size_t
table_bytes(const struct mig_digest *d)
{
    return (d->n_pages ? d->n_pages : 1) * sizeof *d->hash;
}

/* The table of a memory of a gigabyte and more lies in huge pages: an entry is read before it is
 * written, and with small ones that is two faults for 512 entries, the second of which interrupts
 * the other cores. */
int
mig_digest_init(struct mig_digest *d, uint64_t n_pages, const uint64_t key[2])
{
    size_t n;

    *d = (struct mig_digest){.key = {key[0], key[1]}, .n_pages = n_pages};
    n = table_bytes(d);
    if (n < MIG_HUGE_PAGE) {
        d->hash = calloc(1, n);
        return d->hash ? 0 : ENOMEM;
    }
    d->hash = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (d->hash == MAP_FAILED) {
        d->hash = NULL;
        return ENOMEM;
    }
    madvise(d->hash, n, MADV_HUGEPAGE); /* if the kernel has them */
    return 0;
}

void
mig_digest_destroy(struct mig_digest *d)
{
    size_t n = table_bytes(d);

    if (n < MIG_HUGE_PAGE) {
        free(d->hash);
    } else if (d->hash) {
        munmap(d->hash, n);
    }
    d->hash = NULL;
}

void
mig_digest_set(struct mig_digest *d, struct mig_sum *sum, uint64_t pfn, uint64_t hash)
{
    uint64_t old = d->hash[pfn];

    if (old == hash) {
        return;
    }
    if (old) {
        sum_subtract(sum, d->key, pfn, old);
    }
    if (hash) {
        mig_sum_add(sum, d->key, pfn, hash);
    }
    d->hash[pfn] = hash;
}

void
mig_digest_fold(struct mig_digest *d, struct mig_sum *sum)
{
    for (int i = 0; i < 2; i++) {
        __atomic_fetch_add(&d->base.word[i], sum->word[i], __ATOMIC_ACQ_REL);
        sum->word[i] = 0;
    }
}

struct mig_sum
mig_digest_value(const struct mig_digest *d)
{
    return (struct mig_sum){{__atomic_load_n(&d->base.word[0], __ATOMIC_ACQUIRE),
                             __atomic_load_n(&d->base.word[1], __ATOMIC_ACQUIRE)}};
}

void
mig_sum_put(uint8_t out[16], const struct mig_sum *sum)
{
    put_le64(out, sum->word[0]);
    put_le64(out + 8, sum->word[1]);
}

struct mig_sum
mig_digest_of(const void *memory, uint64_t n_pages, const uint64_t key[2])
{
    struct mig_sum sum = {{0, 0}};

    for (uint64_t pfn = 0; pfn < n_pages; pfn++) {
        uint64_t hash = mig_page_hash((const uint8_t *)memory + pfn * MIG_PAGE);

        if (hash) {
            mig_sum_add(&sum, key, pfn, hash);
        }
    }
    return sum;
}
