/* page_cache: exact copies of pages as they were sent, the bases of deltas.
 *
 * Bounded, four places for each page; a page whose content the running batch still
 * points to (its generation) is not replaced.  One thread per struct. */
#ifndef MIG_PAGE_CACHE_H
#define MIG_PAGE_CACHE_H

#include <stddef.h>
#include <stdint.h>

struct page_slot {
    uint64_t pfn;  /* + 1; 0: empty */
    uint64_t hash; /* of the content */
    uint32_t used; /* generation of the last use */
};

struct page_cache {
    struct page_slot *slots; /* 'n', a power of two, in sets of four */
    uint8_t *pages;          /* of each slot */
    size_t n;
};

/* At most 'bytes' of pages; fewer than four pages: no cache.  0 or ENOMEM. */
int page_cache_init(struct page_cache *, size_t bytes);
void page_cache_destroy(struct page_cache *);

/* The page's slot, or NULL. */
struct page_slot *page_cache_find(struct page_cache *, uint64_t pfn);
/* A slot for a page that has none: empty, or the one of its set used longest ago, but not in
 * 'generation'; NULL: all are in use.  Its content is the caller's to write.  Counts in '*evicted'
 * when it held another page. */
struct page_slot *page_cache_take(struct page_cache *, uint64_t pfn, uint32_t generation,
                                  uint32_t *evicted);
uint8_t *page_cache_page(const struct page_cache *, const struct page_slot *);

#endif
