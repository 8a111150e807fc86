/* classifier: the writer's side.  classifier_impl.h has the theory. */
#include "classifier.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "classifier_choose.h"
#include "epoch.h"

/* Rules grow or shrink by this factor until what finds them is built anew. */
#define REBUILD_FACTOR 4u

#define HIDDEN (-1) /* from insertion: equal to a rule that readers find already */

static int insert_at(struct classifier *, _Atomic(cls_ref) *where, uint64_t hash,
                     struct cls_node *);
static void remove_at(struct classifier *, _Atomic(cls_ref) *where, uint64_t hash,
                      struct cls_node *);

struct classifier *
cls_create(unsigned n_words)
{
    struct classifier *cls =
        n_words >= 2 && n_words <= CLS_WORDS_MAX ? calloc(1, sizeof *cls) : NULL;

    if (!cls) {
        return NULL;
    }
    cls->n_words = n_words;
    cls->chooser = cls_chooser_create();
    if (!cls->chooser ||
        getrandom(cls->seed, sizeof cls->seed, GRND_NONBLOCK) != sizeof cls->seed) {
        cls_chooser_destroy(cls->chooser);
        free(cls);
        return NULL;
    }
    return cls;
}

static struct cls_head *
head_of(cls_ref r)
{
    return cls_ptr(r);
}

static void
free_one_later(cls_ref r)
{
    epoch_defer(cls_free_one, (void *)r);
}

/* Publishes what replaces the child of a table's entry or any other. */
static void
publish(_Atomic(cls_ref) *where, uint64_t hash, cls_ref r)
{
    if (r && cls_kind(r) != CLS_RULE) {
        head_of(r)->hash = hash;
    }
    cls_store(where, r);
}

/* --- all rules below an object -------------------------------------------------- */

struct collection {
    struct cls_node **nodes;
    unsigned n;
};

static void
collect(cls_ref r, void *c_)
{
    struct collection *c = c_;

    if (cls_kind(r) == CLS_RULE) {
        c->nodes[c->n++] = cls_ptr(r);
    } else if (cls_kind(r) == CLS_LEAF) {
        for (const struct cls_leaf *l = cls_ptr(r); l; l = l->next) {
            for (unsigned i = 0; i < l->n; i++) {
                struct cls_node *n =
                    atomic_load_explicit(&cls_leaf_nodes(l)[i], memory_order_relaxed);
                if (n) {
                    c->nodes[c->n++] = n;
                }
            }
        }
    } else {
        cls_for_each_child(r, collect, c);
    }
}

/* Builds anew what is there, with one more rule unless that is NULL. */
static int
rebuild(struct classifier *cls, _Atomic(cls_ref) *where, uint64_t hash, struct cls_node *with)
{
    cls_ref old = cls_load(where), new;
    struct collection c = {malloc((head_of(old)->rules + 1ul) * sizeof *c.nodes), 0};

    if (!c.nodes) {
        return ENOMEM;
    }
    collect(old, &c);
    assert(c.n == head_of(old)->rules);
    if (with) {
        c.nodes[c.n++] = with;
    }
    int error = cls_build(cls, c.nodes, c.n, &new);
    free(c.nodes);
    if (!error) {
        publish(where, hash, new);
        epoch_defer(cls_free_all, (void *)old);
    }
    return error;
}

/* --- insertion ---------------------------------------------------------------------- */

static void
hide(struct cls_node *behind, struct cls_node *n)
{
    n->same_prev = behind;
    n->same_next = behind->same_next;
    if (n->same_next) {
        n->same_next->same_prev = n;
    }
    behind->same_next = n;
}

static int
insert_beside_rule(_Atomic(cls_ref) *where, uint64_t hash, struct cls_node *node)
{
    struct cls_node *two[] = {cls_ptr(cls_load(where)), node};

    if (cls_node_equal(two[0], node)) {
        hide(two[0], node);
        return HIDDEN;
    }
    cls_ref leaf = cls_leaf_create(two, 2);
    if (!leaf) {
        return ENOMEM;
    }
    publish(where, hash, leaf);
    return 0;
}

static struct cls_node *
leaf_find_equal(const struct cls_leaf *l, const struct cls_node *node)
{
    for (; l; l = l->next) {
        for (unsigned i = 0; i < l->n; i++) {
            struct cls_node *n = atomic_load_explicit(&cls_leaf_nodes(l)[i], memory_order_relaxed);
            if (n && cls_node_equal(n, node)) {
                return n;
            }
        }
    }
    return NULL;
}

static int
insert_into_leaf(struct classifier *cls, _Atomic(cls_ref) *where, uint64_t hash,
                 struct cls_node *node)
{
    struct cls_leaf *l = cls_ptr(cls_load(where));
    struct cls_node *equal = leaf_find_equal(l, node);

    if (equal) {
        hide(equal, node);
        return HIDDEN;
    }
    if (l->head.rules >= l->head.built && !rebuild(cls, where, hash, node)) {
        return 0;
    }
    struct cls_leaf *with = cls_leaf_with(l, node);
    if (!with) {
        return ENOMEM;
    }
    publish(where, hash, cls_make(with, CLS_LEAF));
    if (with->next != l) {
        epoch_defer(free, l); /* 'with' goes on as it did */
    }
    return 0;
}

/* Into a HASH or PATH that the rule fits. */
static int
insert_into_table(struct classifier *cls, _Atomic(cls_ref) *where, struct cls_node *node)
{
    cls_ref r = cls_load(where);
    int error;

    if (cls_kind(r) == CLS_PATH) {
        struct cls_path *p = cls_ptr(r);
        error = insert_at(cls, &p->slot[cls_steps_child(&p->steps, node)], 0, node);
        p->head.rules += !error;
        return error;
    }

    struct cls_hash *t = cls_ptr(r);
    uint64_t h = cls_hash_node(t, node);
    unsigned slot;
    struct cls_bucket *b = cls_hash_find(t, h, &slot);

    if (b) {
        error = insert_at(cls, &b->slot[slot], h, node);
        t->head.rules += !error;
        return error;
    }
    if (t->entries >= CLS_BUCKET_LOAD * (t->bucket_mask + 1)) {
        struct cls_hash *bigger = cls_hash_grow(t);
        if (bigger) {
            cls_store(where, cls_make(bigger, CLS_HASH));
            free_one_later(r);
            t = bigger;
        }
    }
    if (!cls_hash_put(t, h, cls_make(node, CLS_RULE))) {
        return ENOMEM;
    }
    t->entries++;
    t->head.rules++;
    return 0;
}

/* A rule that does not fit the table here: it will have that for a sister. */
static int
insert_beside_table(_Atomic(cls_ref) *where, uint64_t hash, struct cls_node *node)
{
    cls_ref table = cls_load(where);
    struct cls_group *g = cls_group_create(1);

    if (!g) {
        return ENOMEM;
    }
    g->head.rules = head_of(table)->rules + 1;
    g->head.built = head_of(table)->built;
    cls_store(&g->table[0], table);
    cls_store(&g->rest, cls_make(node, CLS_RULE));
    publish(where, hash, cls_make(g, CLS_GROUP));
    return 0;
}

static int
insert_into_group(struct classifier *cls, struct cls_group *g, struct cls_node *node)
{
    uint32_t i = 0;

    while (i < g->n && !cls_fits(cls_load(&g->table[i]), node)) {
        i++;
    }
    int error =
        i < g->n ? insert_into_table(cls, &g->table[i], node) : insert_at(cls, &g->rest, 0, node);
    g->head.rules += !error;
    return error;
}

/* A table with hardly more than one rule an entry cannot be improved. */
static bool
is_good(cls_ref r)
{
    return cls_kind(r) == CLS_HASH &&
           ((struct cls_hash *)cls_ptr(r))->entries >= head_of(r)->rules / 2;
}

static void
consider_rebuild(struct classifier *cls, _Atomic(cls_ref) *where, uint64_t hash)
{
    cls_ref r = cls_load(where);
    struct cls_head *h = head_of(r);

    if (h->rules < h->built * REBUILD_FACTOR) {
        return;
    }
    if (is_good(r) || rebuild(cls, where, hash, NULL)) {
        h->built = h->rules;
    }
}

/* Returns 0, HIDDEN, or ENOMEM. */
static int
insert_at(struct classifier *cls, _Atomic(cls_ref) *where, uint64_t hash, struct cls_node *node)
{
    cls_ref r = cls_load(where);

    if (!r) {
        cls_store(where, cls_make(node, CLS_RULE));
        return 0;
    }
    if (cls_kind(r) == CLS_RULE) {
        return insert_beside_rule(where, hash, node);
    }
    if (cls_kind(r) == CLS_LEAF) {
        return insert_into_leaf(cls, where, hash, node);
    }
    consider_rebuild(cls, where, hash);
    r = cls_load(where);
    if (cls_kind(r) == CLS_GROUP) {
        return insert_into_group(cls, cls_ptr(r), node);
    }
    if (cls_kind(r) == CLS_LEAF) {
        return insert_into_leaf(cls, where, hash, node);
    }
    return cls_fits(r, node) ? insert_into_table(cls, where, node)
                             : insert_beside_table(where, hash, node);
}

int
cls_insert(struct classifier *cls, struct cls_rule *rule)
{
    struct cls_node *node = cls_node_create(cls, rule);

    if (!node) {
        return ENOMEM;
    }
    rule->node = node;
    int error = insert_at(cls, &cls->root, 0, node);
    if (error == ENOMEM) {
        cls_node_destroy(cls, node, false);
        rule->node = NULL;
        return ENOMEM;
    }
    atomic_fetch_add_explicit(&cls->n_rules, 1, memory_order_relaxed);
    return 0;
}

/* --- removal ------------------------------------------------------------------------- */

/* A list of which at least half is gone. */
static void
leaf_compact(_Atomic(cls_ref) *where, uint64_t hash)
{
    cls_ref old = cls_load(where), new;
    struct cls_leaf *l = cls_ptr(old);
    struct collection c = {malloc(l->head.rules * sizeof *c.nodes), 0};

    if (!c.nodes) {
        return; /* longer than it could be */
    }
    collect(old, &c);
    new = c.n == 1 ? cls_make(c.nodes[0], CLS_RULE) : cls_leaf_create(c.nodes, c.n);
    free(c.nodes);
    if (new) {
        if (c.n > CLS_LEAF_MAX) {
            head_of(new)->built = 2 * c.n;
        }
        publish(where, hash, new);
        free_one_later(old);
    }
}

static void
remove_from_leaf(_Atomic(cls_ref) *where, uint64_t hash, struct cls_node *node)
{
    cls_ref r = cls_load(where);
    struct cls_leaf *first = cls_ptr(r);
    unsigned lanes = 0;

    for (struct cls_leaf *l = first; l; l = l->next) {
        lanes += l->n;
        for (unsigned i = 0; i < l->n; i++) {
            _Atomic(struct cls_node *) *at = &cls_leaf_nodes(l)[i];
            if (atomic_load_explicit(at, memory_order_relaxed) == node) {
                atomic_store_explicit(at, node->same_next, memory_order_release);
            }
        }
    }
    if (node->same_next) {
        return;
    }
    if (!--first->head.rules) {
        cls_store(where, 0);
        free_one_later(r);
    } else if (first->head.rules <= lanes / 2) {
        leaf_compact(where, hash);
    }
}

static void
remove_from_table(struct classifier *cls, cls_ref r, struct cls_node *node)
{
    if (cls_kind(r) == CLS_PATH) {
        struct cls_path *p = cls_ptr(r);
        remove_at(cls, &p->slot[cls_steps_child(&p->steps, node)], 0, node);
    } else {
        struct cls_hash *t = cls_ptr(r);
        uint64_t h = cls_hash_node(t, node);
        unsigned slot;
        struct cls_bucket *b = cls_hash_find(t, h, &slot);
        remove_at(cls, &b->slot[slot], h, node);
        if (!cls_load(&b->slot[slot])) {
            cls_hash_clear(t, b, slot);
        }
    }
    head_of(r)->rules -= !node->same_next;
}

static void
remove_from_group(struct classifier *cls, struct cls_group *g, struct cls_node *node)
{
    uint32_t i = 0;

    while (i < g->n && !cls_fits(cls_load(&g->table[i]), node)) {
        i++;
    }
    if (i == g->n) {
        remove_at(cls, &g->rest, 0, node);
    } else {
        cls_ref t = cls_load(&g->table[i]);
        remove_from_table(cls, t, node);
        if (!head_of(t)->rules) {
            cls_store(&g->table[i], 0);
            free_one_later(t);
        }
    }
    g->head.rules -= !node->same_next;
}

static void
remove_at(struct classifier *cls, _Atomic(cls_ref) *where, uint64_t hash, struct cls_node *node)
{
    cls_ref r = cls_load(where);

    if (cls_kind(r) == CLS_RULE) {
        assert(cls_ptr(r) == node);
        cls_store(where, cls_make(node->same_next, CLS_RULE));
        return;
    }
    if (cls_kind(r) == CLS_LEAF) {
        remove_from_leaf(where, hash, node);
        return;
    }
    if (cls_kind(r) == CLS_GROUP) {
        remove_from_group(cls, cls_ptr(r), node);
    } else {
        remove_from_table(cls, r, node);
    }
    struct cls_head *h = head_of(r);
    if (!h->rules) {
        cls_store(where, 0);
        epoch_defer(cls_free_all, (void *)r);
    } else if (h->rules < h->built / REBUILD_FACTOR && rebuild(cls, where, hash, NULL)) {
        h->built = h->rules;
    }
}

void
cls_remove(struct classifier *cls, struct cls_rule *rule)
{
    struct cls_node *node = rule->node;
    struct cls_node *prev = node->same_prev, *next = node->same_next;

    if (prev) {
        prev->same_next = next;
    } else {
        remove_at(cls, &cls->root, 0, node);
    }
    if (next) {
        next->same_prev = prev;
    }
    cls_node_destroy(cls, node, !prev);
    rule->node = NULL;
    atomic_fetch_sub_explicit(&cls->n_rules, 1, memory_order_relaxed);
}

/* --- the end ------------------------------------------------------------------------- */

static void
free_rules(cls_ref r, void *aux)
{
    if (cls_kind(r) == CLS_LEAF) {
        for (const struct cls_leaf *l = cls_ptr(r); l; l = l->next) {
            for (unsigned i = 0; i < l->n; i++) {
                free_rules(cls_make(cls_leaf_nodes(l)[i], CLS_RULE), aux);
            }
        }
    } else if (cls_kind(r) == CLS_RULE) {
        for (struct cls_node *n = cls_ptr(r); n;) {
            struct cls_node *next = n->same_next;
            free(n);
            n = next;
        }
    } else {
        cls_for_each_child(r, free_rules, aux);
    }
}

void
cls_destroy(struct classifier *cls)
{
    if (!cls) {
        return;
    }
    cls_ref root = cls_load(&cls->root);
    free_rules(root, NULL);
    cls_free_all((void *)root);
    for (uint32_t i = 0; i < cls->mask_buckets; i++) {
        for (struct cls_mask *m = cls->masks[i]; m;) {
            struct cls_mask *next = m->next;
            free(m);
            m = next;
        }
    }
    free(cls->masks);
    cls_chooser_destroy(cls->chooser);
    free(cls);
}

/* --- statistics ------------------------------------------------------------------------ */

struct walk {
    size_t sum, max; /* of the probes below children */
    size_t longest;
};

static void
walk(cls_ref r, void *above_)
{
    struct walk *above = above_, w = {0};
    size_t probes = 0, length = 0;

    if (cls_kind(r) == CLS_LEAF) {
        for (const struct cls_leaf *l = cls_ptr(r); l; l = l->next) {
            length += l->n;
        }
    } else if (cls_kind(r) != CLS_RULE) {
        cls_for_each_child(r, walk, &w);
        probes = cls_kind(r) == CLS_GROUP ? w.sum : 1 + w.max;
        length = w.longest;
    }
    above->sum += probes;
    above->max = probes > above->max ? probes : above->max;
    above->longest = length > above->longest ? length : above->longest;
}

void
cls_stats(const struct classifier *cls, struct cls_stats *s)
{
    cls_ref root = cls_load(&cls->root);
    struct walk w = {0};

    if (root) {
        walk(root, &w);
    }
    *s = (struct cls_stats){
        .rules = atomic_load_explicit(&cls->n_rules, memory_order_relaxed),
        .masks = atomic_load_explicit(&cls->n_masks, memory_order_relaxed),
        .tables = w.max,
        .longest_chain = w.longest,
    };
}
