/* cls_lookup: the readers' side. */
#include "classifier_impl.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

static struct cls_node *search(cls_ref, const uint64_t *key);

/* --- one object ---------------------------------------------------------------- */

/* Which of four rules' lanes of one word equal the key's word. */
static inline __m256i
equal_lanes(const uint64_t *lanes, __m256i word)
{
    __m256i mask = _mm256_loadu_si256((const __m256i *)lanes);
    __m256i value = _mm256_loadu_si256((const __m256i *)(lanes + 4));

    return _mm256_cmpeq_epi64(_mm256_and_si256(word, mask), value);
}

/* The rules of one leaf that may match: a bit each. */
static inline uint64_t
leaf_candidates(const struct cls_leaf *l, unsigned groups, const uint64_t *key)
{
    __m256i a = _mm256_set1_epi64x(key[l->word[0]]), b;
    uint64_t candidates = 0;

    if (groups == 1) {
        return _mm256_movemask_pd(_mm256_castsi256_pd(equal_lanes(l->lanes, a)));
    }
    b = _mm256_set1_epi64x(key[l->word[1]]);
    for (unsigned i = 0; i < groups; i++) {
        __m256i eq = _mm256_and_si256(equal_lanes(l->lanes + 16 * i, a),
                                      equal_lanes(l->lanes + 16 * i + 8, b));
        candidates |= (uint64_t)_mm256_movemask_pd(_mm256_castsi256_pd(eq)) << 4 * i;
    }
    return candidates;
}

static inline struct cls_node *
leaf_node(const struct cls_leaf *l, uint64_t candidates)
{
    return atomic_load_explicit(&cls_leaf_nodes(l)[__builtin_ctzll(candidates)],
                                memory_order_acquire);
}

static struct cls_node *
search_leaf(const struct cls_leaf *l, const uint64_t *key)
{
    do {
        uint64_t candidates = leaf_candidates(l, cls_leaf_groups(l), key);
        for (; candidates; candidates &= candidates - 1) {
            struct cls_node *n = leaf_node(l, candidates);
            if (n && cls_node_matches(n, key)) {
                return n;
            }
        }
        l = l->next;
    } while (l);
    return NULL;
}

/* A tag that a reader has seen may be older than the slot: what is there is
 * searched for what it is. */
static struct cls_node *
search_bucket(const struct cls_bucket *b, uint8_t tag, const uint64_t *key)
{
    for (;;) {
        uint64_t tags = atomic_load_explicit(&b->tags, memory_order_acquire);
        uint64_t match = cls_bucket_match(tags, tag);

        for (; match; match &= match - 1) {
            cls_ref r = cls_load(&b->slot[__builtin_ctzll(match) / 8]);
            if (cls_kind(r) == CLS_MORE) {
                tags |= CLS_BUCKET_MORE;
                break;
            }
            struct cls_node *n = search(r, key);
            if (n) {
                return n;
            }
        }
        if (!(tags & CLS_BUCKET_MORE)) {
            return NULL;
        }
        b = cls_ptr(cls_load(&b->slot[CLS_BUCKET_SLOTS - 1]));
    }
}

static inline struct cls_node *
search_hash(const struct cls_hash *t, const uint64_t *key)
{
    uint64_t h = cls_hash_key(t, key);

    return search_bucket(&t->bucket[h & t->bucket_mask], cls_tag(h), key);
}

/* --- the tree ---------------------------------------------------------------------- */

static struct cls_node *
search(cls_ref r, const uint64_t *key)
{
    while (r) {
        switch (cls_kind(r)) {
        case CLS_RULE:
            return cls_node_matches(cls_ptr(r), key) ? cls_ptr(r) : NULL;
        case CLS_LEAF:
            return search_leaf(cls_ptr(r), key);
        case CLS_HASH:
            return search_hash(cls_ptr(r), key);
        case CLS_PATH: {
            const struct cls_path *p = cls_ptr(r);
            r = cls_load(&p->slot[cls_path_index(p, key)]);
            continue;
        }
        case CLS_GROUP: {
            const struct cls_group *g = cls_ptr(r);
            for (uint32_t i = 0; i < g->n; i++) {
                struct cls_node *n = search(cls_load(&g->table[i]), key);
                if (n) {
                    return n;
                }
            }
            r = cls_load(&g->rest);
            continue;
        }
        default:
            return NULL;
        }
    }
    return NULL;
}

struct cls_rule *
cls_lookup(const struct classifier *cls, const uint64_t *key)
{
    struct cls_node *n = search(cls_load(&cls->root), key);

    return n ? n->rule : NULL;
}

/* --- batches -------------------------------------------------------------------------
 *
 * All keys go through one table of the root at a time, level by level.  At
 * each level, keys are dealt out by the kind of what they have to search next,
 * so that the code for each kind runs without branches that depend on a key:
 * those would be mispredicted half the time, which is most of what a lookup in
 * warm tables costs. */

#define BATCH_MAX 32u

/* Keys, by number, and what each has to search. */
struct work {
    unsigned n;
    cls_ref ref[BATCH_MAX];
    uint8_t key[BATCH_MAX];
};

struct batch {
    const uint64_t *const *keys;
    struct cls_rule **out;
    struct work next;         /* the level below */
    struct work missed;       /* not found in this table */
    struct work kinds[8];     /* of this level; the last: nothing to search */
    struct work by_groups[4]; /* leaves of 1, 2, 3, more groups of lanes */
    struct work verify;       /* leaves with candidates */
    uint64_t candidates[BATCH_MAX];
};

static inline void
work_add(struct work *w, unsigned key, cls_ref r)
{
    w->ref[w->n] = r;
    w->key[w->n++] = key;
}

static inline void
descend(struct batch *b, unsigned key, cls_ref r)
{
    __builtin_prefetch(cls_ptr(r));
    __builtin_prefetch((const char *)cls_ptr(r) + 64);
    work_add(&b->next, key, r);
}

static void
search_alone(struct batch *b, unsigned key, cls_ref r)
{
    struct cls_node *n = search(r, b->keys[key]);

    if (n) {
        b->out[key] = n->rule;
    } else {
        work_add(&b->missed, key, 0);
    }
}

static inline bool
settle(struct batch *b, unsigned key, const struct cls_node *n)
{
    bool matches = cls_node_matches(n, b->keys[key]);

    b->out[key] = matches ? n->rule : NULL;
    b->missed.key[b->missed.n] = key;
    b->missed.n += !matches;
    return matches;
}

static void
batch_rules(struct batch *b, const struct work *w)
{
    for (unsigned i = 0; i < w->n; i++) {
        settle(b, w->key[i], cls_ptr(w->ref[i]));
    }
}

/* Finds the candidates in leaves of 'groups' groups. */
static inline void
batch_scan(struct batch *b, const struct work *w, unsigned groups)
{
    struct work *v = &b->verify;

    for (unsigned i = 0; i < w->n; i++) {
        const struct cls_leaf *l = cls_ptr(w->ref[i]);
        unsigned k = w->key[i];
        uint64_t c = leaf_candidates(l, groups ? groups : cls_leaf_groups(l), b->keys[k]);
        b->candidates[v->n] = c;
        v->ref[v->n] = w->ref[i];
        v->key[v->n] = k;
        v->n += c != 0;
        b->missed.key[b->missed.n] = k;
        b->missed.n += c == 0;
    }
}

static void
batch_leaves(struct batch *b, const struct work *w)
{
    for (unsigned i = 0; i < 4; i++) {
        b->by_groups[i].n = 0;
    }
    b->verify.n = 0;
    for (unsigned i = 0; i < w->n; i++) {
        const struct cls_leaf *l = cls_ptr(w->ref[i]);
        unsigned groups = cls_leaf_groups(l);
        if (unlikely(l->next)) {
            search_alone(b, w->key[i], w->ref[i]);
            continue;
        }
        work_add(&b->by_groups[groups < 4 ? groups - 1 : 3], w->key[i], w->ref[i]);
    }
    batch_scan(b, &b->by_groups[0], 1);
    batch_scan(b, &b->by_groups[1], 2);
    batch_scan(b, &b->by_groups[2], 3);
    batch_scan(b, &b->by_groups[3], 0);
    for (unsigned i = 0; i < b->verify.n; i++) {
        const struct cls_node *n = leaf_node(cls_ptr(b->verify.ref[i]), b->candidates[i]);
        unsigned k = b->verify.key[i];
        if (unlikely(!n) || (!settle(b, k, n) && b->candidates[i] & (b->candidates[i] - 1))) {
            b->missed.n -= n != NULL;
            search_alone(b, k, b->verify.ref[i]);
        }
    }
}

static void
batch_paths(struct batch *b, const struct work *w)
{
    for (unsigned i = 0; i < w->n; i++) {
        const struct cls_path *p = cls_ptr(w->ref[i]);
        descend(b, w->key[i], cls_load(&p->slot[cls_path_index(p, b->keys[w->key[i]])]));
    }
}

static void
batch_hashes(struct batch *b, const struct work *w)
{
    const struct cls_bucket *bucket[BATCH_MAX];
    uint8_t tag[BATCH_MAX];

    for (unsigned i = 0; i < w->n; i++) {
        const struct cls_hash *t = cls_ptr(w->ref[i]);
        uint64_t h = cls_hash_key(t, b->keys[w->key[i]]);
        bucket[i] = &t->bucket[h & t->bucket_mask];
        tag[i] = cls_tag(h);
        __builtin_prefetch(bucket[i]);
    }
    for (unsigned i = 0; i < w->n; i++) {
        uint64_t tags = atomic_load_explicit(&bucket[i]->tags, memory_order_acquire);
        uint64_t match = cls_bucket_match(tags, tag[i]);
        cls_ref r = cls_load(&bucket[i]->slot[_tzcnt_u64(match) / 8 % 8]);
        r = match ? r : 0;
        if (unlikely(match & (match - 1) || tags & CLS_BUCKET_MORE || cls_kind(r) == CLS_MORE)) {
            search_alone(b, w->key[i], w->ref[i]);
            continue;
        }
        descend(b, w->key[i], r);
    }
}

/* Searches 'top' for the keys in 'missed', and leaves there what is still not
 * found. */
static void
batch_search(struct batch *b, cls_ref top)
{
    b->next.n = 0;
    for (unsigned i = 0; i < b->missed.n; i++) {
        work_add(&b->next, b->missed.key[i], top);
    }
    b->missed.n = 0;
    while (b->next.n) {
        for (unsigned i = 0; i < 8; i++) {
            b->kinds[i].n = 0;
        }
        for (unsigned i = 0; i < b->next.n; i++) {
            cls_ref r = b->next.ref[i];
            work_add(&b->kinds[r ? cls_kind(r) : 7], b->next.key[i], r);
        }
        b->next.n = 0;
        for (unsigned i = 0; i < b->kinds[7].n; i++) {
            work_add(&b->missed, b->kinds[7].key[i], 0);
        }
        batch_hashes(b, &b->kinds[CLS_HASH]);
        batch_paths(b, &b->kinds[CLS_PATH]);
        batch_rules(b, &b->kinds[CLS_RULE]);
        batch_leaves(b, &b->kinds[CLS_LEAF]);
        for (unsigned i = 0; i < b->kinds[CLS_GROUP].n; i++) {
            search_alone(b, b->kinds[CLS_GROUP].key[i], b->kinds[CLS_GROUP].ref[i]);
        }
    }
}

void
cls_lookup_batch(const struct classifier *cls, const uint64_t *const keys[], unsigned n,
                 struct cls_rule *out[])
{
    struct batch b;
    cls_ref r = cls_load(&cls->root);

    b.keys = keys;
    b.out = out;
    b.missed.n = 0;
    for (unsigned i = 0; i < n; i++) {
        out[i] = NULL;
        work_add(&b.missed, i, 0);
    }
    while (cls_kind(r) == CLS_GROUP && b.missed.n) {
        const struct cls_group *g = cls_ptr(r);
        for (uint32_t i = 0; i < g->n && b.missed.n; i++) {
            batch_search(&b, cls_load(&g->table[i]));
        }
        r = cls_load(&g->rest);
    }
    if (r && b.missed.n) {
        batch_search(&b, r);
    }
}
