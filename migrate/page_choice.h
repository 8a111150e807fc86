/* page_choice: compress a page, and how?
 *
 * Pure arithmetic over what was measured; no clock, no page content but a number about it.
 *
 * A way of compression is worth what it saves on the wire less what it costs, both per
 * page and learned from pages that looked as if they could be compressed: moving
 * averages, so that the choice follows the wire and the guest.  What is not worth
 * it is tried now and then all the same, ever more rarely while the verdict stands.
 *
 * Which pages look so is a matter of their bytes (how many different ones there are in
 * a sample) and of their neighbours (what became of the last ones of the
 * same region), so that pages of noise cost next to nothing.
 *
 * One thread per struct. */
#ifndef MIG_PAGE_CHOICE_H
#define MIG_PAGE_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

enum { CHOICE_LZ4, CHOICE_ZSTD, CHOICE_WAYS };

struct choice_way {
    bool allowed;
    uint32_t measured; /* how often */
    double ns;         /* per page */
    double saved;      /* bytes per page */
    uint32_t wait;     /* pages until it is tried though it is not worth it */
    uint32_t period;   /* the last 'wait' */
};

#define CHOICE_REGIONS 4096u /* of 64 pages; others share an entry */

struct page_choice {
    double wire;   /* ns per byte */
    double judged; /* the wire when the ways were judged last */
    bool forced;   /* the user's wish, whatever it costs */
    uint32_t hard; /* pages that looked hopeless since one was tried */
    struct choice_way way[CHOICE_WAYS];
    uint8_t region[CHOICE_REGIONS]; /* 0 hopeless .. 15 good */
};

/* 'lz4', 'zstd': may be used; 'forced': must, where it makes a page smaller. */
void page_choice_init(struct page_choice *, bool lz4, bool zstd, bool forced);

/* A new cost of the wire; ways are reconsidered when it changed much. */
void page_choice_wire(struct page_choice *, double ns_per_byte);

/* The way to take if the page can be compressed at all, or CHOICE_WAYS: none; the
 * caller need not look at its bytes then. */
unsigned page_choice_way(struct page_choice *);

/* Is it worth trying with a page of which a sample of 64 bytes has 'distinct' values? */
bool page_choice_try(struct page_choice *, uint64_t pfn, unsigned distinct);

/* What a try cost, and saved: 0 when in vain. */
void page_choice_learn(struct page_choice *, unsigned way, uint64_t pfn, unsigned distinct,
                       double ns, unsigned saved);

/* The number of distinct values among 64 bytes spread over a page. */
unsigned page_distinct(const void *page);
#define CHOICE_NOISE 50u /* so many and more: random bytes have 57 of 64, give or take 5 */

#endif
