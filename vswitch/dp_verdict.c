/* Verdicts: see dp_verdict.h; and engine_ops.track. */
#include <config.h>

#include "dp_verdict.h"

#include "ct.h"
#include "dp.h"
#include "util.h"

#define BLOCK_SIZE 16384u /* its own alignment: a verdict's block is found by its address */

union cell {
    struct ct_ref ref;
    union cell *next_free;
    char line[CACHE_LINE_SIZE];
};
BUILD_ASSERT_DECL(sizeof(union cell) == CACHE_LINE_SIZE);

#define BLOCK_CELLS (BLOCK_SIZE / sizeof(union cell) - 1)

struct block {
    struct ovs_list node; /* in pool.blocks if it has a free cell */
    union cell *free;
    unsigned n_used;
    char pad[CACHE_LINE_SIZE - sizeof(struct ovs_list) - sizeof(void *) - sizeof(unsigned) - 4];
    union cell cells[BLOCK_CELLS];
};
BUILD_ASSERT_DECL(sizeof(struct block) == BLOCK_SIZE);

/* dp_worker.ct_scratch, while there are verdicts. */
struct pool {
    struct ovs_list blocks;
    size_t n_used;
};

static struct block *
block_of(const void *cell)
{
    return (struct block *)((uintptr_t)cell & ~(uintptr_t)(BLOCK_SIZE - 1));
}

static struct block *
block_create(struct pool *pool)
{
    struct block *b = xmalloc_size_align(sizeof *b, BLOCK_SIZE);

    b->n_used = 0;
    b->free = NULL;
    for (size_t i = BLOCK_CELLS; i-- > 0;) {
        b->cells[i].next_free = b->free;
        b->free = &b->cells[i];
    }
    ovs_list_push_back(&pool->blocks, &b->node);
    return b;
}

struct ct_ref *
dp_verdict_alloc(struct dp_worker *w)
{
    struct pool *pool = w->ct_scratch;
    struct block *b;
    union cell *cell;

    if (!pool) {
        pool = w->ct_scratch = xmalloc(sizeof *pool);
        ovs_list_init(&pool->blocks);
        pool->n_used = 0;
    }
    b = ovs_list_is_empty(&pool->blocks)
            ? block_create(pool)
            : CONTAINER_OF(ovs_list_front(&pool->blocks), struct block, node);
    cell = b->free;
    b->free = cell->next_free;
    b->n_used++;
    pool->n_used++;
    if (!b->free) {
        ovs_list_remove(&b->node);
    }
    return &cell->ref;
}

void
dp_verdict_free(struct worker *worker, void *verdict)
{
    struct dp_worker *w = dp_worker_of(worker);
    struct pool *pool = w->ct_scratch;
    struct block *b = block_of(verdict);
    union cell *cell = verdict;

    if (!b->free) {
        ovs_list_push_front(&pool->blocks, &b->node);
    }
    cell->next_free = b->free;
    b->free = cell;
    if (!--b->n_used) {
        ovs_list_remove(&b->node);
        free_size_align(b);
    }
    if (!--pool->n_used) {
        free(pool);
        w->ct_scratch = NULL;
    }
}

bool
dp_track(struct worker *worker, void *verdict, struct rte_mbuf *m)
{
    struct dp_worker *w = dp_worker_of(worker);

    dp_worker_rcu(w);
    return ct_ref_track(w->dp->conntrack, verdict, dp_packet_of(m), worker_now(worker));
}

void
dp_track_soon(const void *verdict)
{
    ct_ref_prefetch(verdict);
}
