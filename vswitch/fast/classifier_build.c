/* classifier_build: from a list of rules to something that finds them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "classifier_choose.h"

#define TABLES_MAX 24u /* side by side */
#define DEPTH_MAX 12u

static int build(struct classifier *, struct cls_node **, unsigned n, unsigned depth, cls_ref *);

/* Reorders 'nodes' so that those that fit come first; returns how many. */
static unsigned
partition(const struct cls_split *s, struct cls_node **nodes, unsigned n)
{
    unsigned fitting = 0;

    for (unsigned i = 0; i < n; i++) {
        struct cls_node *node = nodes[i];
        if (s->kind == CLS_HASH ? cls_tuple_fits(&s->tuple, node)
                                : cls_steps_child(&s->steps, node) >= 0) {
            nodes[i] = nodes[fitting];
            nodes[fitting++] = node;
        }
    }
    return fitting;
}

/* --- HASH: bring equal hashes together, then build a child of each run ----- */

struct hashed {
    uint64_t hash;
    struct cls_node *node;
    uint32_t next;
};
#define END UINT32_MAX

/* Fills 'out' with 'nodes' and their hashes, equal hashes side by side. */
static bool
group_by_hash(const struct cls_hash *t, struct cls_node **nodes, unsigned n, struct hashed *out)
{
    uint32_t mask = 1;
    struct hashed *in = malloc(n * sizeof *in);
    uint32_t *heads;

    while (mask < n) {
        mask = mask * 2 + 1;
    }
    heads = malloc((mask + 1ul) * sizeof *heads);
    if (!in || !heads) {
        free(in);
        free(heads);
        return false;
    }
    memset(heads, 0xff, (mask + 1ul) * sizeof *heads);
    for (unsigned i = n; i-- > 0;) {
        uint64_t h = cls_hash_node(t, nodes[i]);
        in[i] = (struct hashed){h, nodes[i], heads[h & mask]};
        heads[h & mask] = i;
    }
    unsigned done = 0;
    for (uint32_t b = 0; b <= mask; b++) {
        while (heads[b] != END) {
            uint64_t h = in[heads[b]].hash;
            for (uint32_t *at = &heads[b]; *at != END;) {
                struct hashed *e = &in[*at];
                if (e->hash == h) {
                    out[done++] = *e;
                    *at = e->next;
                } else {
                    at = &e->next;
                }
            }
        }
    }
    free(in);
    free(heads);
    return true;
}

static int
build_runs(struct classifier *cls, struct cls_hash *t, struct cls_node **nodes,
           const struct hashed *by_hash, unsigned n, unsigned depth)
{
    for (unsigned i = 0; i < n; i++) {
        nodes[i] = by_hash[i].node;
    }
    for (unsigned i = 0, end; i < n; i = end) {
        uint64_t h = by_hash[i].hash;
        cls_ref child;
        for (end = i + 1; end < n && by_hash[end].hash == h; end++) {
        }
        if (build(cls, nodes + i, end - i, depth + 1, &child)) {
            return ENOMEM;
        }
        if (cls_kind(child) != CLS_RULE) {
            ((struct cls_head *)cls_ptr(child))->hash = h;
        }
        if (!cls_hash_put(t, h, child)) {
            cls_free_all((void *)child);
            return ENOMEM;
        }
        t->entries++;
    }
    return 0;
}

static unsigned
count_runs(const struct hashed *h, unsigned n)
{
    unsigned runs = 0;

    for (unsigned i = 0; i < n; i++) {
        runs += !i || h[i].hash != h[i - 1].hash;
    }
    return runs;
}

static cls_ref
build_hash(struct classifier *cls, const struct cls_tuple *tuple, struct cls_node **nodes,
           unsigned n, unsigned depth)
{
    struct hashed *by_hash = malloc(n * sizeof *by_hash);
    struct cls_hash *seeded = cls_hash_create(cls, tuple, 1), *t = NULL;
    cls_ref result = 0;

    if (by_hash && seeded && group_by_hash(seeded, nodes, n, by_hash)) {
        t = cls_hash_create(cls, tuple, count_runs(by_hash, n));
    }
    if (t) {
        t->head.rules = t->head.built = n;
        result = cls_make(t, CLS_HASH);
        if (build_runs(cls, t, nodes, by_hash, n, depth)) {
            cls_free_all((void *)result);
            result = 0;
        }
    }
    free(seeded);
    free(by_hash);
    return result;
}

/* --- PATH --------------------------------------------------------------------- */

/* Reorders 'nodes' by their child and fills in where each child's begin. */
static bool
sort_by_child(const struct cls_steps *s, struct cls_node **nodes, unsigned n, unsigned begin[66])
{
    struct cls_node **sorted = malloc(n * sizeof *sorted);
    unsigned at[66];

    if (!sorted) {
        return false;
    }
    memset(begin, 0, 66 * sizeof *begin);
    for (unsigned i = 0; i < n; i++) {
        begin[cls_steps_child(s, nodes[i]) + 1]++;
    }
    for (unsigned i = 1; i < 66; i++) {
        begin[i] += begin[i - 1];
    }
    memcpy(at, begin, sizeof at);
    for (unsigned i = 0; i < n; i++) {
        sorted[at[cls_steps_child(s, nodes[i])]++] = nodes[i];
    }
    memcpy(nodes, sorted, n * sizeof *nodes);
    free(sorted);
    return true;
}

static cls_ref
build_path(struct classifier *cls, const struct cls_steps *steps, struct cls_node **nodes,
           unsigned n, unsigned depth)
{
    struct cls_path *p = cls_path_create(steps);
    unsigned begin[66];

    if (!p) {
        return 0;
    }
    p->head.rules = p->head.built = n;
    if (!sort_by_child(steps, nodes, n, begin)) {
        free(p);
        return 0;
    }
    for (unsigned i = 0; i <= steps->n_bits; i++) {
        unsigned size = begin[i + 1] - begin[i];
        cls_ref child = 0;
        if (size && build(cls, nodes + begin[i], size, depth + 1, &child)) {
            cls_free_all((void *)cls_make(p, CLS_PATH));
            return 0;
        }
        cls_store(&p->slot[i], child);
    }
    return cls_make(p, CLS_PATH);
}

/* --- the whole ------------------------------------------------------------------ */

/* Takes tables off the rules until the rest is short or does not split. */
static int
build_tables(struct classifier *cls, struct cls_node ***nodes, unsigned *n, unsigned depth,
             cls_ref tables[TABLES_MAX], unsigned *n_tables)
{
    struct cls_split split;

    while (*n > CLS_LEAF_MAX && *n_tables < TABLES_MAX &&
           cls_choose(cls->chooser, *nodes, *n, &split)) {
        unsigned fitting = partition(&split, *nodes, *n);
        cls_ref t = split.kind == CLS_HASH ? build_hash(cls, &split.tuple, *nodes, fitting, depth)
                                           : build_path(cls, &split.steps, *nodes, fitting, depth);
        if (!t) {
            return ENOMEM;
        }
        tables[(*n_tables)++] = t;
        *nodes += fitting;
        *n -= fitting;
    }
    return 0;
}

static cls_ref
build_list(struct cls_node *const *nodes, unsigned n)
{
    if (n <= 1) {
        return n ? cls_make(nodes[0], CLS_RULE) : 0;
    }
    cls_ref r = cls_leaf_create(nodes, n);
    if (r && n > CLS_LEAF_MAX) {
        ((struct cls_leaf *)cls_ptr(r))->head.built = 2 * n;
    }
    return r;
}

static int
build(struct classifier *cls, struct cls_node **nodes, unsigned n, unsigned depth, cls_ref *result)
{
    cls_ref tables[TABLES_MAX], rest = 0;
    unsigned n_tables = 0, left = n;
    struct cls_group *g = NULL;

    int error = depth < DEPTH_MAX ? build_tables(cls, &nodes, &left, depth, tables, &n_tables) : 0;
    if (!error) {
        rest = build_list(nodes, left);
        error = left && !rest ? ENOMEM : 0;
    }
    if (!error && !n_tables) {
        *result = rest;
        return 0;
    }
    if (!error && n_tables == 1 && !rest) {
        *result = tables[0];
        return 0;
    }
    g = error ? NULL : cls_group_create(n_tables);
    if (!g) {
        for (unsigned i = 0; i < n_tables; i++) {
            cls_free_all((void *)tables[i]);
        }
        cls_free_all((void *)rest);
        return ENOMEM;
    }
    g->head.rules = g->head.built = n;
    cls_store(&g->rest, rest);
    for (unsigned i = 0; i < n_tables; i++) {
        cls_store(&g->table[i], tables[i]);
    }
    *result = cls_make(g, CLS_GROUP);
    return 0;
}

int
cls_build(struct classifier *cls, struct cls_node **nodes, unsigned n, cls_ref *result)
{
    return build(cls, nodes, n, 0, result);
}
