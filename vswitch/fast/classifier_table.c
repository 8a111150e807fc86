/* classifier_table: the objects that the classifier's tree is made of. */
#include <stdlib.h>
#include <string.h>

#include "classifier_impl.h"

/* --- leaves ------------------------------------------------------------------ */

/* The two words whose bits tell these rules apart best: those with most bits
 * that are 1 in some rule and 0 in another. */
static void
choose_words(struct cls_node *const *nodes, unsigned n, uint16_t word[2])
{
    uint64_t ones[CLS_WORDS_MAX], zeros[CLS_WORDS_MAX];
    uint8_t touched[CLS_WORDS_MAX];
    bool known[CLS_WORDS_MAX] = {false};
    unsigned n_touched = 0;
    int best[2] = {-1, -1};

    for (unsigned i = 0; i < n; i++) {
        const struct cls_mask *m = nodes[i]->mask;
        for (unsigned j = 0; j < 2 * m->n_pairs; j++) {
            unsigned w = m->at[j / 2] + j % 2;
            if (!m->bits[j]) {
                continue;
            }
            if (!known[w]) {
                known[w] = true;
                ones[w] = zeros[w] = 0;
                touched[n_touched++] = w;
            }
            ones[w] |= nodes[i]->value[j];
            zeros[w] |= m->bits[j] & ~nodes[i]->value[j];
        }
    }
    word[0] = word[1] = 0;
    for (unsigned i = 0; i < n_touched; i++) {
        unsigned w = touched[i];
        int bits = __builtin_popcountll(ones[w] & zeros[w]);
        if (bits > best[0]) {
            best[1] = best[0];
            word[1] = word[0];
            best[0] = bits;
            word[0] = w;
        } else if (bits > best[1]) {
            best[1] = bits;
            word[1] = w;
        }
    }
}

static struct cls_leaf *
leaf_alloc(unsigned n)
{
    unsigned groups = (n + 3) / 4;
    size_t lanes = groups * 8 * cls_leaf_words(groups) * sizeof(uint64_t);
    struct cls_leaf *l = malloc(sizeof *l + lanes + 4 * groups * sizeof(struct cls_node *));

    if (l) {
        l->head = (struct cls_head){.rules = n, .built = CLS_LEAF_MAX};
        l->next = NULL;
        l->n = n;
        l->word[0] = l->word[1] = 0;
    }
    return l;
}

/* Lane i of a leaf that no reader sees yet; without a rule, one that never matches. */
static void
leaf_set(struct cls_leaf *l, unsigned i, struct cls_node *node)
{
    unsigned n_words = cls_leaf_words(cls_leaf_groups(l));
    uint64_t *lane = l->lanes + i / 4 * 8 * n_words + i % 4;

    for (unsigned w = 0; w < n_words; w++, lane += 8) {
        lane[0] = node ? cls_node_bits(node, l->word[w]) : 0;
        lane[4] = node ? cls_node_value(node, l->word[w]) : 1;
    }
    atomic_store_explicit(&cls_leaf_nodes(l)[i], node, memory_order_relaxed);
}

/* By the words of 'like', or if that is NULL by the best ones. */
static struct cls_leaf *
leaf_fill(struct cls_node *const *nodes, unsigned n, const struct cls_leaf *like)
{
    struct cls_leaf *l = leaf_alloc(n);

    if (l) {
        if (like) {
            memcpy(l->word, like->word, sizeof l->word);
        } else {
            choose_words(nodes, n, l->word);
        }
        for (unsigned i = 0; i < (n + 3) / 4 * 4; i++) {
            leaf_set(l, i, i < n ? nodes[i] : NULL);
        }
    }
    return l;
}

cls_ref
cls_leaf_create(struct cls_node *const *nodes, unsigned n)
{
    struct cls_leaf *first = NULL;

    for (unsigned done = 0; done < n;) {
        unsigned part = n - done < CLS_LEAF_LANES ? n - done : CLS_LEAF_LANES;
        struct cls_leaf *l = leaf_fill(nodes + done, part, NULL);
        if (!l) {
            cls_free_one((void *)cls_make(first, CLS_LEAF));
            return 0;
        }
        done += part;
        l->next = first;
        l->head.rules = done;
        first = l;
    }
    return cls_make(first, CLS_LEAF);
}

struct cls_leaf *
cls_leaf_with(struct cls_leaf *old, struct cls_node *node)
{
    struct cls_node *nodes[CLS_LEAF_LANES];
    struct cls_leaf *l, *next = old;
    unsigned n = 0;

    if (old->n < CLS_LEAF_LANES) {
        for (unsigned i = 0; i < old->n; i++) {
            struct cls_node *o =
                atomic_load_explicit(&cls_leaf_nodes(old)[i], memory_order_relaxed);
            if (o) {
                nodes[n++] = o;
            }
        }
        next = old->next;
    }
    nodes[n++] = node;
    l = leaf_fill(nodes, n, n % 4 == 1 ? NULL : old);
    if (l) {
        l->next = next;
        l->head = old->head;
        l->head.rules++;
    }
    return l;
}

/* --- HASH --------------------------------------------------------------------- */

static struct cls_hash *
hash_alloc(uint32_t n_buckets)
{
    size_t size = sizeof(struct cls_hash) + (size_t)n_buckets * sizeof(struct cls_bucket);
    struct cls_hash *t = aligned_alloc(_Alignof(struct cls_hash), size);

    if (t) {
        memset(t, 0, size);
        t->bucket_mask = n_buckets - 1;
    }
    return t;
}

struct cls_hash *
cls_hash_create(const struct classifier *cls, const struct cls_tuple *tuple, uint32_t entries)
{
    uint32_t n = 1;

    while (n * CLS_BUCKET_LOAD < entries + entries / 4) {
        n *= 2;
    }
    struct cls_hash *t = hash_alloc(n);
    if (t) {
        t->tuple = *tuple;
        memcpy(t->seed, cls->seed, sizeof t->seed);
    }
    return t;
}

uint64_t
cls_hash_node(const struct cls_hash *t, const struct cls_node *n)
{
    const struct cls_tuple *u = &t->tuple;
    uint64_t x[CLS_HASH_WORDS] = {0};

    for (unsigned i = 0; i < u->n_words; i++) {
        x[i] = cls_node_value(n, u->idx[i]) & u->mask[i];
    }
    return cls_hash_words(t, x[0], x[1], x[2], x[3]);
}

/* A bucket's slots that hold entries, given its last one. */
static unsigned
bucket_slots(cls_ref last)
{
    return CLS_BUCKET_SLOTS - (cls_kind(last) == CLS_MORE);
}

bool
cls_hash_put(struct cls_hash *t, uint64_t hash, cls_ref child)
{
    struct cls_bucket *b = &t->bucket[hash & t->bucket_mask];

    for (;;) {
        uint64_t tags = atomic_load_explicit(&b->tags, memory_order_relaxed);
        cls_ref last = cls_load(&b->slot[CLS_BUCKET_SLOTS - 1]);

        for (unsigned i = 0; i < bucket_slots(last); i++) {
            if (!(tags >> (8 * i) & 0xff)) {
                cls_store(&b->slot[i], child);
                tags |= (uint64_t)cls_tag(hash) << (8 * i);
                atomic_store_explicit(&b->tags, tags, memory_order_release);
                return true;
            }
        }
        if (cls_kind(last) != CLS_MORE) {
            /* The last entry moves; readers who come for it find either. */
            struct cls_bucket *more = aligned_alloc(_Alignof(struct cls_bucket), sizeof *more);
            if (!more) {
                return false;
            }
            memset(more, 0, sizeof *more);
            cls_store(&more->slot[0], last);
            atomic_store_explicit(&more->tags, tags >> 8 * (CLS_BUCKET_SLOTS - 1) & 0xff,
                                  memory_order_relaxed);
            last = cls_make(more, CLS_MORE);
            cls_store(&b->slot[CLS_BUCKET_SLOTS - 1], last);
            tags &= (UINT64_C(1) << 8 * (CLS_BUCKET_SLOTS - 1)) - 1;
            atomic_store_explicit(&b->tags, tags | CLS_BUCKET_MORE, memory_order_release);
        }
        b = cls_ptr(last);
    }
}

static uint64_t
child_hash(const struct cls_hash *t, cls_ref child)
{
    return cls_kind(child) == CLS_RULE ? cls_hash_node(t, cls_ptr(child))
                                       : ((struct cls_head *)cls_ptr(child))->hash;
}

struct cls_bucket *
cls_hash_find(const struct cls_hash *t, uint64_t hash, unsigned *slot)
{
    struct cls_bucket *b = (struct cls_bucket *)&t->bucket[hash & t->bucket_mask];

    for (;;) {
        uint64_t tags = atomic_load_explicit(&b->tags, memory_order_relaxed);
        for (uint64_t m = cls_bucket_match(tags, cls_tag(hash)); m; m &= m - 1) {
            *slot = __builtin_ctzll(m) / 8;
            cls_ref child = cls_load(&b->slot[*slot]);
            if (child && child_hash(t, child) == hash) {
                return b;
            }
        }
        if (!(tags & CLS_BUCKET_MORE)) {
            return NULL;
        }
        b = cls_ptr(cls_load(&b->slot[CLS_BUCKET_SLOTS - 1]));
    }
}

void
cls_hash_clear(struct cls_hash *t, struct cls_bucket *b, unsigned slot)
{
    uint64_t tags = atomic_load_explicit(&b->tags, memory_order_relaxed);

    atomic_store_explicit(&b->tags, tags & ~(UINT64_C(0xff) << (8 * slot)), memory_order_release);
    t->entries--;
}

struct grow {
    struct cls_hash *to;
    bool failed;
};

static void
grow_child(cls_ref child, void *g_)
{
    struct grow *g = g_;

    g->failed = g->failed || !cls_hash_put(g->to, child_hash(g->to, child), child);
}

struct cls_hash *
cls_hash_grow(const struct cls_hash *old)
{
    struct grow g = {hash_alloc(2 * (old->bucket_mask + 1)), false};

    if (!g.to) {
        return NULL;
    }
    g.to->head = old->head;
    g.to->entries = old->entries;
    g.to->tuple = old->tuple;
    memcpy(g.to->seed, old->seed, sizeof g.to->seed);
    cls_for_each_child(cls_make(old, CLS_HASH), grow_child, &g);
    if (g.failed) {
        cls_free_one((void *)cls_make(g.to, CLS_HASH));
        return NULL;
    }
    return g.to;
}

/* --- PATH and GROUP ------------------------------------------------------------ */

struct cls_path *
cls_path_create(const struct cls_steps *s)
{
    struct cls_path *p = calloc(1, sizeof *p + (s->n_bits + 1u) * sizeof p->slot[0]);

    if (p) {
        p->steps = *s;
        p->end = s->n_bits < 64 ? UINT64_C(1) << (63 - s->n_bits) : 0;
    }
    return p;
}

struct cls_group *
cls_group_create(unsigned n)
{
    struct cls_group *g = calloc(1, sizeof *g + n * sizeof g->table[0]);

    if (g) {
        g->n = n;
    }
    return g;
}

/* --- which rules fit ------------------------------------------------------------ */

bool
cls_tuple_fits(const struct cls_tuple *u, const struct cls_node *n)
{
    for (unsigned i = 0; i < u->n_words; i++) {
        if (u->mask[i] & ~cls_node_bits(n, u->idx[i])) {
            return false;
        }
    }
    return true;
}

int
cls_steps_child(const struct cls_steps *s, const struct cls_node *n)
{
    uint64_t used = (UINT64_MAX << (64 - s->n_bits)) >> s->start;
    uint64_t bits = __builtin_bswap64(cls_node_bits(n, s->word)) & used;
    uint64_t differs = (__builtin_bswap64(cls_node_value(n, s->word)) ^ s->path) & bits;
    uint64_t open = used & ~bits; /* steps at which the rule goes both ways */
    unsigned child = s->n_bits;

    if (differs) {
        child = __builtin_clzll(differs) - s->start;
    }
    return open && __builtin_clzll(open) - s->start < child ? -1 : (int)child;
}

bool
cls_fits(cls_ref table, const struct cls_node *n)
{
    if (cls_kind(table) == CLS_HASH) {
        return cls_tuple_fits(&((struct cls_hash *)cls_ptr(table))->tuple, n);
    }
    return cls_kind(table) == CLS_PATH &&
           cls_steps_child(&((struct cls_path *)cls_ptr(table))->steps, n) >= 0;
}

/* --- walking and freeing ---------------------------------------------------------- */

static void
for_each_in(const _Atomic(cls_ref) *slot, unsigned n, void (*fn)(cls_ref, void *), void *aux)
{
    for (unsigned i = 0; i < n; i++) {
        cls_ref child = cls_load(&slot[i]);
        if (child && cls_kind(child) != CLS_MORE) {
            fn(child, aux);
        }
    }
}

static void
for_each_in_bucket(const struct cls_bucket *b, void (*fn)(cls_ref, void *), void *aux)
{
    while (b) {
        cls_ref last = cls_load(&b->slot[CLS_BUCKET_SLOTS - 1]);
        for_each_in(b->slot, CLS_BUCKET_SLOTS, fn, aux);
        b = cls_kind(last) == CLS_MORE ? cls_ptr(last) : NULL;
    }
}

void
cls_for_each_child(cls_ref r, void (*fn)(cls_ref, void *aux), void *aux)
{
    void *p = cls_ptr(r);

    if (cls_kind(r) == CLS_HASH) {
        const struct cls_hash *t = p;
        for (uint32_t i = 0; i <= t->bucket_mask; i++) {
            for_each_in_bucket(&t->bucket[i], fn, aux);
        }
    } else if (cls_kind(r) == CLS_PATH) {
        const struct cls_path *t = p;
        for_each_in(t->slot, t->steps.n_bits + 1u, fn, aux);
    } else if (cls_kind(r) == CLS_GROUP) {
        const struct cls_group *g = p;
        for_each_in(g->table, g->n, fn, aux);
        for_each_in(&g->rest, 1, fn, aux);
    }
}

static void
free_overflow(struct cls_bucket *b)
{
    cls_ref last = cls_load(&b->slot[CLS_BUCKET_SLOTS - 1]);

    while (cls_kind(last) == CLS_MORE) {
        struct cls_bucket *more = cls_ptr(last);
        last = cls_load(&more->slot[CLS_BUCKET_SLOTS - 1]);
        free(more);
    }
}

void
cls_free_one(void *ref)
{
    cls_ref r = (cls_ref)ref;
    void *p = cls_ptr(r);

    if (!p || cls_kind(r) == CLS_RULE) {
        return;
    }
    if (cls_kind(r) == CLS_LEAF) {
        for (struct cls_leaf *l = ((struct cls_leaf *)p)->next; l;) {
            struct cls_leaf *next = l->next;
            free(l);
            l = next;
        }
    } else if (cls_kind(r) == CLS_HASH) {
        struct cls_hash *t = p;
        for (uint32_t i = 0; i <= t->bucket_mask; i++) {
            free_overflow(&t->bucket[i]);
        }
    }
    free(p);
}

static void
free_child(cls_ref child, void *aux)
{
    cls_free_all((void *)child);
}

void
cls_free_all(void *ref)
{
    cls_for_each_child((cls_ref)ref, free_child, NULL);
    cls_free_one(ref);
}
