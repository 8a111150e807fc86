/* Copies of pages sent: page_cache.h. */
#include "page_cache.h"

#include <errno.h>
#include <stdlib.h>

#include "digest.h"

enum { WAYS = 4 };

int
page_cache_init(struct page_cache *c, size_t bytes)
{
    size_t n = WAYS;

    *c = (struct page_cache){.n = 0};
    if (bytes < (size_t)WAYS * MIG_PAGE) {
        return 0;
    }
    while (n * 2 <= bytes / MIG_PAGE) {
        n *= 2;
    }
    c->slots = calloc(n, sizeof *c->slots);
    c->pages = aligned_alloc(MIG_PAGE, n * MIG_PAGE); /* untouched, it costs nothing */
    if (!c->slots || !c->pages) {
        page_cache_destroy(c);
        return ENOMEM;
    }
    c->n = n;
    return 0;
}

void
page_cache_destroy(struct page_cache *c)
{
    free(c->slots);
    free(c->pages);
    *c = (struct page_cache){.n = 0};
}

static struct page_slot *
set_of(struct page_cache *c, uint64_t pfn)
{
    uint64_t hash = pfn * 0x9e3779b97f4a7c15ull;

    return &c->slots[((hash >> 32) * WAYS) & (c->n - 1)];
}

struct page_slot *
page_cache_find(struct page_cache *c, uint64_t pfn)
{
    struct page_slot *set = set_of(c, pfn);

    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].pfn == pfn + 1) {
            return &set[i];
        }
    }
    return NULL;
}

struct page_slot *
page_cache_take(struct page_cache *c, uint64_t pfn, uint32_t generation, uint32_t *evicted)
{
    struct page_slot *set = set_of(c, pfn), *best = NULL;

    for (unsigned i = 0; i < WAYS; i++) {
        struct page_slot *s = &set[i];

        if (s->pfn && s->used == generation) {
            continue;
        }
        if (!best || (best->pfn && (!s->pfn || generation - s->used > generation - best->used))) {
            best = s;
        }
    }
    if (best) {
        *evicted += best->pfn != 0;
        *best = (struct page_slot){.pfn = pfn + 1, .used = generation};
    }
    return best;
}

uint8_t *
page_cache_page(const struct page_cache *c, const struct page_slot *s)
{
    return c->pages + (size_t)(s - c->slots) * MIG_PAGE;
}
