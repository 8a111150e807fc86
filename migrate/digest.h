/* digest: do both ends hold the same memory?
 *
 * A page has a hash (XXH3, 64 bits; 0 for a page of zeros).  The digest of a memory is
 * the sum, modulo 2^64 and twice with keys of the migration's own, of a term per page
 * that is not zero: XXH3 over page number and hash.  A sum needs no order, so every
 * thread keeps one of its own and what it placed last is what counts: a page's old
 * term is taken out, its new one added.  docs/migration-stream.md, "Digest".
 *
 * The table of hashes is shared; a page's entry is changed by one thread at a time
 * (whoever sends or places that page; barriers order the rounds).  A sum is its
 * thread's; mig_digest_fold() may be called by any. */
#ifndef MIG_DIGEST_H
#define MIG_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MIG_PAGE 4096u
#define MIG_HUGE_PAGE (2u << 20) /* the kernel's, where it has them */

/* What is added up; both words are sums of their own. */
struct mig_sum {
    uint64_t word[2];
};

struct mig_digest {
    uint64_t key[2];
    uint64_t n_pages;
    uint64_t *hash;      /* of each page, as last sent or placed; 0: zeros */
    struct mig_sum base; /* of the threads that folded */
};

/* A memory of zeros.  0 or ENOMEM. */
int mig_digest_init(struct mig_digest *, uint64_t n_pages, const uint64_t key[2]);
void mig_digest_destroy(struct mig_digest *);

/* Never 0 unless 'page' is all zeros; MIG_PAGE bytes, of any alignment. */
uint64_t mig_page_hash(const void *page);
bool mig_page_is_zero(const void *page);

/* The page holds content with that hash now.  'pfn' < n_pages. */
void mig_digest_set(struct mig_digest *, struct mig_sum *, uint64_t pfn, uint64_t hash);

/* Adds what a thread has to the whole and clears it.  Atomic. */
void mig_digest_fold(struct mig_digest *, struct mig_sum *);

/* The sum of all that was folded. */
struct mig_sum mig_digest_value(const struct mig_digest *);

/* A term by itself: what a stream driver's chunks are added up of. */
void mig_sum_add(struct mig_sum *, const uint64_t key[2], uint64_t position, uint64_t hash);

/* As FINAL and READY carry it. */
void mig_sum_put(uint8_t out[16], const struct mig_sum *);

/* The digest of a memory as it lies, for checks that trust no table. */
struct mig_sum mig_digest_of(const void *memory, uint64_t n_pages, const uint64_t key[2]);

#endif
