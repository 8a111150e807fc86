/* page_choice: compress a page, and how?
 *
 * Pure arithmetic over what was measured; no clock, no page content but a number about it.
 *
 * A way of compression is worth what it saves on the wire less what it costs, both per
 * page and learned from the pages it was tried on: moving averages, so that the choice
 * follows the wire and the guest.  What is not worth it is tried now and then all the
 * same, ever more rarely while the verdict stands; sooner when the wire becomes dearer, but never
 * so often that tries would cost much beside it.
 *
 * Pages are of two classes, told apart by a sample of their bytes: those that look like
 * noise and the others.  Each class has averages of its own, so that noise costs next to
 * nothing, but is compressed if it only looked so.  Within a class, a page's neighbours
 * count: a region whose last tries were in vain is tried rarely.
 *
 * One thread per struct. */
#ifndef MIG_PAGE_CHOICE_H
#define MIG_PAGE_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

enum { CHOICE_LZ4, CHOICE_ZSTD, CHOICE_WAYS };
enum { CHOICE_PLAIN, CHOICE_NOISY, CHOICE_CLASSES };

struct choice_way {
    bool allowed;
    uint32_t measured; /* how often */
    double ns;         /* per page that was tried */
    double saved;      /* bytes per page that was tried */
    uint64_t due;      /* the page at which it is tried though it is not worth it */
    uint32_t period;   /* pages from the last try to 'due' */
};

#define CHOICE_REGIONS 4096u /* of 64 pages; others share an entry */

struct choice_class {
    struct choice_way way[CHOICE_WAYS];
    uint8_t region[CHOICE_REGIONS]; /* 0 hopeless .. 15 good */
};

struct page_choice {
    double wire;   /* ns per byte */
    double judged; /* the wire when the ways were judged last */
    bool forced;   /* the user's wish, whatever it costs */
    bool worth;    /* some way is */
    uint64_t due;  /* the first of the ways' */
    uint64_t page; /* how many were asked about */
    uint32_t idle; /* of these, while nothing was worth it and something due */
    struct choice_class class[CHOICE_CLASSES];
};

/* 'lz4', 'zstd': may be used; 'forced': must, where it makes a page smaller. */
void page_choice_init(struct page_choice *, bool lz4, bool zstd, bool forced);

/* A new cost of the wire; ways are reconsidered when it changed much. */
void page_choice_wire(struct page_choice *, double ns_per_byte);

/* Once per page: is there a way that may be worth looking at its bytes? */
bool page_choice_look(struct page_choice *);

/* The way to try with a page of which a sample of 64 bytes has 'distinct' values, or
 * CHOICE_WAYS: none. */
unsigned page_choice_pick(const struct page_choice *, uint64_t pfn, unsigned distinct);

/* What a try cost, and saved: 0 when in vain. */
void page_choice_learn(struct page_choice *, unsigned way, uint64_t pfn, unsigned distinct,
                       double ns, unsigned saved);

/* What a byte on the wire costs: an average of what writing took.  A sample in which somebody else
 * had the processor says nothing about the wire; only where there are no others it counts. */
struct wire_cost {
    double ns_per_byte; /* 0: not known */
    unsigned preempted; /* samples since one counted */
};
#define WIRE_PREEMPTED_MAX 16u /* so many in a row: the next counts whatever it is */

void wire_cost_note(struct wire_cost *, double ns_per_byte, bool preempted);

/* The number of distinct values among 64 bytes spread over a page. */
unsigned page_distinct(const void *page);
#define CHOICE_NOISE 50u /* so many and more: random bytes have 57 of 64, give or take 5 */

#endif
