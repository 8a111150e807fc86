/* The flows of one host, and differences between such sets. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "openvswitch/dynamic-string.h"
#include "pflow.h"
#include "svec.h"
#include "util.h"

/* --- tables ------------------------------------------------------------------- */

/* With its hash: when the table takes it, the flow itself has left the cache. */
struct ffresh {
    struct pflow *flow;
    uint32_t hash;
};

void
ftable_init(struct ftable *ft)
{
    hmap_init(&ft->nodes);
    ovs_list_init(&ft->stale);
    ft->fresh = NULL;
    ft->n_fresh = ft->fresh_allocated = 0;
    ft->slabs = NULL;
    ft->spare = NULL;
    ft->delta = NULL;
    ft->n_crowded = 0;
    ft->crowd = 0;
}

void
ftable_destroy(struct ftable *ft)
{
    ftable_track(ft, false);
    ftable_clear(ft);
    hmap_destroy(&ft->nodes);
}

static struct fnode *
find_hashed(const struct ftable *ft, const struct pflow *key, uint32_t hash)
{
    struct fnode *n;

    HMAP_FOR_EACH_WITH_HASH (n, node, hash, &ft->nodes) {
        if (pflow_same_key(n->flow, key)) {
            return n;
        }
    }
    return NULL;
}

static struct fnode *
find_node(const struct ftable *ft, const struct pflow *key)
{
    return find_hashed(ft, key, key->hash);
}

struct pflow *
ftable_find(const struct ftable *ft, const struct pflow *key)
{
    struct fnode *n = find_node(ft, key);

    return n ? n->flow : NULL;
}

/* The givers of a key that has, or had, several. */
struct fshare {
    struct ovs_list stale_node; /* in the table's 'stale', or empty */
    struct fnode *n;
    struct pflow **given; /* references */
    size_t n_given, allocated;
    bool crowded;   /* is one of the table's n_crowded */
    uint64_t crowd; /* its part of the table's */
};

static void
free_share(struct fnode *n)
{
    struct fshare *s = n->share;

    if (s) {
        for (size_t i = 0; i < s->n_given; i++) {
            pflow_unref(s->given[i]);
        }
        ovs_list_remove(&s->stale_node);
        free(s->given);
        free(s);
        n->share = NULL;
    }
}

static void
note(struct ftable *ft, const struct pflow *before, const struct pflow *after)
{
    if (ft->delta) {
        fdelta_add(ft->delta, before, after);
    }
}

/* Nodes are made many at a time: a table has tens of thousands. */
struct fslab {
    struct fslab *next;
    struct fnode nodes[];
};

#define SLAB_NODES 64

static void
add_slab(struct ftable *ft, size_t n)
{
    struct fslab *slab = xmalloc(sizeof *slab + n * sizeof slab->nodes[0]);

    slab->next = ft->slabs;
    ft->slabs = slab;
    while (n) {
        slab->nodes[--n].next_spare = ft->spare;
        ft->spare = &slab->nodes[n];
    }
}

/* None of the nodes is in use. */
static void
free_slabs(struct ftable *ft)
{
    struct fslab *slab;

    while ((slab = ft->slabs)) {
        ft->slabs = slab->next;
        free(slab);
    }
    ft->spare = NULL;
}

/* Takes over the caller's reference of 'f', as replace_flow() does. */
static struct fnode *
insert_node(struct ftable *ft, struct pflow *f, uint32_t hash)
{
    struct fnode *n;

    if (!ft->spare) {
        add_slab(ft, SLAB_NODES);
    }
    n = ft->spare;
    ft->spare = n->next_spare;
    n->flow = f;
    n->share = NULL;
    hmap_insert(&ft->nodes, &n->node, hash);
    note(ft, NULL, f);
    return n;
}

static void
replace_flow(struct ftable *ft, struct fnode *n, struct pflow *f)
{
    struct pflow *old = n->flow;

    note(ft, old, f);
    n->flow = f;
    pflow_unref(old);
}

void
ftable_set(struct ftable *ft, const struct pflow *f)
{
    struct fnode *n = find_node(ft, f);

    if (!n) {
        insert_node(ft, pflow_ref(f), f->hash);
    } else {
        replace_flow(ft, n, pflow_ref(f));
    }
}

static void
set_crowded(struct ftable *ft, struct fshare *s, bool crowded)
{
    ft->n_crowded += crowded - s->crowded;
    ft->crowd -= s->crowd;
    s->crowded = crowded;
    s->crowd = 0;
    for (size_t i = 0; crowded && i < s->n_given; i++) {
        s->crowd = (s->crowd ^ s->given[i]->cookie) * UINT64_C(0x9e3779b97f4a7c15);
        s->crowd ^= s->crowd >> 29;
    }
    ft->crowd += s->crowd;
}

static void
remove_node(struct ftable *ft, struct fnode *n)
{
    if (n->share) {
        set_crowded(ft, n->share, false);
    }
    note(ft, n->flow, NULL);
    hmap_remove(&ft->nodes, &n->node);
    pflow_unref(n->flow);
    free_share(n);
    n->next_spare = ft->spare;
    ft->spare = n;
}

void
ftable_remove(struct ftable *ft, const struct pflow *key)
{
    struct fnode *n = find_node(ft, key);

    if (n) {
        remove_node(ft, n);
    }
}

void
ftable_clear(struct ftable *ft)
{
    struct fnode *n, *next;

    for (size_t i = 0; i < ft->n_fresh; i++) {
        pflow_unref(ft->fresh[i].flow);
    }
    free(ft->fresh);
    ft->fresh = NULL;
    ft->n_fresh = ft->fresh_allocated = 0;
    HMAP_FOR_EACH_SAFE (n, next, node, &ft->nodes) {
        remove_node(ft, n);
    }
    free_slabs(ft);
}

/* --- several givers ----------------------------------------------------------- */

/* Takes over the caller's reference. */
static void
share_add(struct fshare *s, struct pflow *f)
{
    if (s->n_given == s->allocated) {
        s->given = x2nrealloc(s->given, &s->allocated, sizeof *s->given);
    }
    s->given[s->n_given++] = f;
}

static void
share_stale(struct ftable *ft, struct fshare *s)
{
    if (ovs_list_is_empty(&s->stale_node)) {
        ovs_list_push_back(&ft->stale, &s->stale_node);
    }
}

/* Takes over the caller's reference. */
static void
give(struct ftable *ft, struct pflow *f, uint32_t hash)
{
    struct fnode *n = find_hashed(ft, f, hash);

    if (!n) {
        insert_node(ft, f, hash);
        return;
    }
    if (!n->share) {
        n->share = xzalloc(sizeof *n->share);
        n->share->n = n;
        ovs_list_init(&n->share->stale_node);
        share_add(n->share, pflow_ref(n->flow));
    }
    share_add(n->share, f);
    share_stale(ft, n->share);
}

/* Buckets asked for before they are needed. */
#define AHEAD 16

/* One table after the other, each in a bucket array of its final size: while they
 * grow side by side, every step misses the cache. */
static void
take_fresh(struct ftable *ft)
{
    struct ffresh *fresh = ft->fresh;
    size_t n = ft->n_fresh;

    if (!n) {
        return;
    }
    ft->fresh = NULL;
    ft->n_fresh = ft->fresh_allocated = 0;
    hmap_reserve(&ft->nodes, 2 * n);
    add_slab(ft, n);
    for (size_t i = 0; i < n; i++) {
        if (i + AHEAD < n) {
            OVS_PREFETCH(&ft->nodes.buckets[fresh[i + AHEAD].hash & ft->nodes.mask]);
        }
        give(ft, fresh[i].flow, fresh[i].hash);
    }
    free(fresh);
}

void
ftable_give(struct ftable *ft, const struct pflow *f)
{
    if (!hmap_is_empty(&ft->nodes)) {
        give(ft, pflow_ref(f), f->hash);
        return;
    }
    if (ft->n_fresh == ft->fresh_allocated) {
        ft->fresh = x2nrealloc(ft->fresh, &ft->fresh_allocated, sizeof *ft->fresh);
    }
    ft->fresh[ft->n_fresh++] = (struct ffresh){pflow_ref(f), f->hash};
}

void
ftable_withdraw(struct ftable *ft, const struct pflow *f)
{
    struct fnode *n;
    struct fshare *s;

    take_fresh(ft);
    n = find_node(ft, f);
    s = n ? n->share : NULL;
    if (!s) {
        ovs_assert(n && n->flow == f);
        remove_node(ft, n);
        return;
    }
    for (size_t i = s->n_given; i-- > 0;) {
        if (s->given[i] == f) {
            s->given[i] = s->given[--s->n_given];
            pflow_unref(CONST_CAST(struct pflow *, f));
            share_stale(ft, s);
            return;
        }
    }
    OVS_NOT_REACHED();
}

/* Plain flows first, then by cookie; the rest only makes the order complete. */
static int
compare_given(const void *a_, const void *b_)
{
    const struct pflow *a = *(struct pflow *const *)a_, *b = *(struct pflow *const *)b_;

    if (a->clause != b->clause) {
        return a->clause ? 1 : -1;
    }
    if (a->cookie != b->cookie) {
        return a->cookie < b->cookie ? -1 : 1;
    }
    if (a->actions_len != b->actions_len) {
        return a->actions_len < b->actions_len ? -1 : 1;
    }
    return memcmp(a->bytes, b->bytes, a->match_len + a->actions_len);
}

static bool
same_as_before(struct pflow *const *given, size_t i)
{
    return i && pflow_equal(given[i - 1], given[i]);
}

/* One flow with the actions of all.  Of too many it has none: it decides nothing,
 * and what is not decided is dropped.  crowded.h says so. */
static struct pflow *
join_clauses(struct pflow **given, size_t n)
{
    bool one_rule = given[0]->cookie == given[n - 1]->cookie;
    const struct pflow **unique = xmalloc(n * sizeof *unique);
    size_t n_unique = 0;
    struct pflow *f;

    for (size_t i = 0; i < n && n <= FTABLE_CLAUSES_MAX; i++) {
        if (!same_as_before(given, i)) {
            unique[n_unique++] = given[i];
        }
    }
    f = pflow_join(given[0], one_rule ? given[0]->cookie : flow_cookie(FLOW_RULE, 0), unique,
                   n_unique);
    free(unique);
    return f;
}

static void
settle(struct ftable *ft, struct fnode *n)
{
    struct fshare *s = n->share;

    ovs_list_remove(&s->stale_node);
    ovs_list_init(&s->stale_node);
    if (!s->n_given) {
        remove_node(ft, n);
        return;
    }
    qsort(s->given, s->n_given, sizeof *s->given, compare_given);
    set_crowded(ft, s, s->given[0]->clause && s->n_given > FTABLE_CLAUSES_MAX);
    if (s->given[0]->clause && s->n_given > 1) {
        replace_flow(ft, n, join_clauses(s->given, s->n_given));
    } else {
        replace_flow(ft, n, pflow_ref(s->given[0]));
    }
    if (s->n_given == 1) {
        free_share(n);
    }
}

void
ftable_settle(struct ftable *ft)
{
    take_fresh(ft);
    while (!ovs_list_is_empty(&ft->stale)) {
        struct fshare *s = CONTAINER_OF(ovs_list_front(&ft->stale), struct fshare, stale_node);

        settle(ft, s->n);
    }
}

size_t
ftable_crowded(const struct ftable *ft, uint64_t **cookies)
{
    size_t n_cookies = 0, allocated = 0;
    struct fnode *n;

    *cookies = NULL;
    if (ft->n_crowded) {
        FTABLE_FOR_EACH (n, ft) {
            for (size_t i = 0; n->share && n->share->crowded && i < n->share->n_given; i++) {
                if (n_cookies == allocated) {
                    *cookies = x2nrealloc(*cookies, &allocated, sizeof **cookies);
                }
                (*cookies)[n_cookies++] = n->share->given[i]->cookie;
            }
        }
    }
    return n_cookies;
}

/* --- changes ------------------------------------------------------------------- */

void
ftable_track(struct ftable *ft, bool on)
{
    if (ft->delta) {
        fdelta_destroy(ft->delta);
        free(ft->delta);
        ft->delta = NULL;
    }
    if (on) {
        ft->delta = xmalloc(sizeof *ft->delta);
        fdelta_init(ft->delta);
    }
}

void
ftable_take(struct ftable *ft, struct fdelta *into)
{
    if (ft->delta) {
        fdelta_merge(into, ft->delta);
    }
}

void
ftable_format(const struct ftable *ft, struct ds *s)
{
    struct svec lines = SVEC_EMPTY_INITIALIZER;
    struct fnode *n;
    const char *line;
    size_t i;

    FTABLE_FOR_EACH (n, ft) {
        struct ds d = DS_EMPTY_INITIALIZER;

        /* Sorted by table, then from the highest priority down. */
        ds_put_format(&d, "%03u%05u ", n->flow->table, UINT16_MAX - n->flow->priority);
        pflow_format(n->flow, &d);
        svec_add_nocopy(&lines, ds_steal_cstr(&d));
    }
    svec_sort(&lines);
    SVEC_FOR_EACH(i, line, &lines)
    {
        ds_put_format(s, "%s\n", line + strlen("00000000 "));
    }
    svec_destroy(&lines);
}

/* --- differences -------------------------------------------------------------- */

void
fdelta_init(struct fdelta *d)
{
    hmap_init(&d->nodes);
}

void
fdelta_destroy(struct fdelta *d)
{
    fdelta_clear(d);
    hmap_destroy(&d->nodes);
}

static void
drop(struct fdelta *d, struct fchange *c)
{
    hmap_remove(&d->nodes, &c->node);
    pflow_unref(c->before);
    pflow_unref(c->after);
    free(c);
}

void
fdelta_clear(struct fdelta *d)
{
    struct fchange *c, *next;

    HMAP_FOR_EACH_SAFE (c, next, node, &d->nodes) {
        drop(d, c);
    }
}

void
fdelta_swap(struct fdelta *a, struct fdelta *b)
{
    hmap_swap(&a->nodes, &b->nodes);
}

static struct fchange *
find_change(struct fdelta *d, const struct pflow *key)
{
    struct fchange *c;

    HMAP_FOR_EACH_WITH_HASH (c, node, key->hash, &d->nodes) {
        if (pflow_same_key(c->before ? c->before : c->after, key)) {
            return c;
        }
    }
    return NULL;
}

static bool
same(const struct pflow *a, const struct pflow *b)
{
    return a && b ? pflow_equal(a, b) : a == b;
}

void
fdelta_add(struct fdelta *d, const struct pflow *before, const struct pflow *after)
{
    if (same(before, after)) {
        return;
    }

    const struct pflow *key = before ? before : after;
    struct fchange *c = find_change(d, key);

    if (!c) {
        c = xmalloc(sizeof *c);
        c->before = pflow_ref(before);
        c->after = pflow_ref(after);
        hmap_insert(&d->nodes, &c->node, key->hash);
        return;
    }
    struct pflow *old = c->after;

    c->after = pflow_ref(after);
    if (same(c->before, c->after)) {
        drop(d, c);
    }
    pflow_unref(old); /* last: 'before' may be it */
}

void
fdelta_merge(struct fdelta *d, struct fdelta *later)
{
    struct fchange *c;

    if (fdelta_is_empty(d)) {
        fdelta_swap(d, later);
        return;
    }
    HMAP_FOR_EACH (c, node, &later->nodes) {
        fdelta_add(d, c->before, c->after);
    }
    fdelta_clear(later);
}

void
fdelta_diff(struct fdelta *d, const struct ftable *have, const struct ftable *want)
{
    struct fnode *n;

    FTABLE_FOR_EACH (n, have) {
        fdelta_add(d, n->flow, ftable_find(want, n->flow));
    }
    FTABLE_FOR_EACH (n, want) {
        if (!ftable_find(have, n->flow)) {
            fdelta_add(d, NULL, n->flow);
        }
    }
}
