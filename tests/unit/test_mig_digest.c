/* The digest of a memory: a sum that needs no order, forgets what was replaced and
 * tells apart what must be told apart. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "digest.h"

enum { PAGES = 300 };

static const uint64_t key[2] = {0x1122334455667788, 99};

static void
fill(uint8_t *page, uint32_t seed)
{
    for (unsigned i = 0; i < MIG_PAGE; i += 4) {
        seed = seed * 1664525 + 1013904223;
        put_le32(page + i, seed);
    }
}

static bool
same(struct mig_sum a, struct mig_sum b)
{
    return a.word[0] == b.word[0] && a.word[1] == b.word[1];
}

static void
test_hash(void)
{
    uint8_t page[MIG_PAGE + 1] = {0};

    CASE("the hash of zeros is 0, wherever they lie, and of nothing else");
    CHECK(mig_page_is_zero(page) && mig_page_is_zero(page + 1));
    CHECK(!mig_page_hash(page) && !mig_page_hash(page + 1));
    for (unsigned bit = 0; bit < MIG_PAGE * 8; bit += 7) {
        page[bit / 8] = 1u << (bit % 8);
        CHECK(!mig_page_is_zero(page) && mig_page_hash(page));
        page[bit / 8] = 0;
    }

    CASE("the hash is the document's: XXH3-64");
    memset(page, 0x5a, MIG_PAGE);
    CHECK(mig_page_hash(page) == 0xb7886b5fd99dda4eu);
}

/* Pages placed in any order and several times, by threads of their own sums. */
static void
test_sum(void)
{
    uint8_t *memory = calloc(PAGES, MIG_PAGE);
    struct mig_sum sums[3] = {{{0, 0}}}, before;
    struct mig_digest d;

    CHECK(!mig_digest_init(&d, PAGES, key));
    CASE("the digest of untouched memory is 0");
    CHECK(same(mig_digest_value(&d), (struct mig_sum){{0, 0}}));
    CHECK(same(mig_digest_of(memory, PAGES, key), (struct mig_sum){{0, 0}}));

    CASE("what was placed last counts, in whatever order and by whom");
    srandom(7);
    for (unsigned i = 0; i < 5 * PAGES; i++) {
        unsigned pfn = random() % PAGES;
        uint8_t *page = memory + pfn * MIG_PAGE;

        if (random() % 4) {
            fill(page, random());
        } else {
            memset(page, 0, MIG_PAGE);
        }
        mig_digest_set(&d, &sums[random() % 3], pfn, mig_page_hash(page));
    }
    for (unsigned i = 0; i < 3; i++) {
        mig_digest_fold(&d, &sums[i]);
    }
    CHECK(same(mig_digest_value(&d), mig_digest_of(memory, PAGES, key)));

    CASE("two pages exchanged, or one bit, change the digest");
    before = mig_digest_of(memory, PAGES, key);
    fill(memory, 1);
    fill(memory + MIG_PAGE, 2);
    before = mig_digest_of(memory, PAGES, key);
    fill(memory, 2);
    fill(memory + MIG_PAGE, 1);
    CHECK(!same(before, mig_digest_of(memory, PAGES, key)));
    fill(memory, 1);
    fill(memory + MIG_PAGE, 2);
    CHECK(same(before, mig_digest_of(memory, PAGES, key)));
    memory[12345] ^= 4;
    CHECK(!same(before, mig_digest_of(memory, PAGES, key)));
    memory[12345] ^= 4;

    CASE("the same content twice does not cancel out, and the key counts");
    fill(memory, 3);
    fill(memory + MIG_PAGE, 3);
    before = mig_digest_of(memory, PAGES, key);
    fill(memory, 4);
    fill(memory + MIG_PAGE, 4);
    CHECK(!same(before, mig_digest_of(memory, PAGES, key)));
    before = mig_digest_of(memory, PAGES, key);
    CHECK(!same(before, mig_digest_of(memory, PAGES, (uint64_t[2]){1, 2})));
    mig_digest_destroy(&d);
    free(memory);
}

/* Tables that lie in pages of their own, up to their last entry, and back. */
static void
test_table(void)
{
    const uint64_t sizes[] = {1 << 18, (1 << 18) + 1, 3 << 18};
    const uint64_t key[2] = {3, 9};
    struct mig_digest d;

    CASE("the table of a large memory begins with zeros and counts to its end");
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const uint64_t at[] = {0, 511, 512, sizes[i] / 2, sizes[i] - 1};
        struct mig_sum sum = {{0, 0}}, expected = {{0, 0}}, zeros = {{0, 0}};

        CHECK(!mig_digest_init(&d, sizes[i], key));
        for (uint64_t pfn = 0; pfn < sizes[i]; pfn += 256) {
            CHECK(!d.hash[pfn]);
        }
        for (unsigned k = 0; k < sizeof at / sizeof *at; k++) {
            CHECK(!d.hash[at[k]]);
            mig_digest_set(&d, &sum, at[k], 5 + k);
            mig_sum_add(&expected, key, at[k], 5 + k);
        }
        mig_digest_fold(&d, &sum);
        CHECK(same(mig_digest_value(&d), expected));
        for (unsigned k = 0; k < sizeof at / sizeof *at; k++) {
            mig_digest_set(&d, &sum, at[k], 0);
        }
        mig_digest_fold(&d, &sum);
        CHECK(same(mig_digest_value(&d), zeros));
        mig_digest_destroy(&d);
        CHECK(!d.hash);
    }
    CHECK(mig_digest_init(&d, UINT64_MAX / 64, key) == ENOMEM && !d.hash);
    mig_digest_destroy(&d);
}

int
main(void)
{
    test_hash();
    test_sum();
    test_table();
    return check_done();
}
