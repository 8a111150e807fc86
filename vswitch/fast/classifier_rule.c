/* classifier_rule: rules as readers see them, and the masks they share. */
#include <stdlib.h>
#include <string.h>

#include "classifier_impl.h"
#include "epoch.h"

/* Masks are the attacker's choice, too: the seed is secret. */
static uint32_t
mask_hash(const struct classifier *cls, const struct cls_rule *r)
{
    uint64_t h = r->n_words;

    for (unsigned i = 0; i < r->n_words; i++) {
        h = cls_mul(h ^ r->mask[i] ^ cls->seed[0], r->idx[i] ^ cls->seed[1]);
    }
    return h;
}

/* Lays the mask's words out in pairs; returns their number, which is even. */
static unsigned
mask_pairs(const struct classifier *cls, const struct cls_rule *r, uint8_t at[CLS_WORDS_MAX / 2])
{
    unsigned n = 0;

    for (unsigned i = 0; i < r->n_words; i++) {
        if (!n || r->idx[i] > at[n - 1] + 1u) {
            at[n++] = r->idx[i] < cls->n_words - 1 ? r->idx[i] : cls->n_words - 2;
        }
    }
    if (n % 2) {
        at[n++] = 0; /* of no bits */
    }
    return n;
}

/* The position of a word, when words come in ascending order. */
static unsigned
pair_pos(const uint8_t at[], unsigned *pair, unsigned word)
{
    while (word > at[*pair] + 1u) {
        ++*pair;
    }
    return 2 * *pair + (word - at[*pair]);
}

static bool
mask_is(const struct cls_mask *m, const struct cls_rule *r)
{
    unsigned n = 0;

    for (unsigned i = 0; i < r->n_words; i++) {
        uint8_t pos = m->pos[r->idx[i]];
        if (pos == CLS_NO_POS || m->bits[pos] != r->mask[i]) {
            return false;
        }
    }
    for (unsigned i = 0; i < 2 * m->n_pairs; i++) {
        n += m->bits[i] != 0;
    }
    return n == r->n_words;
}

static void
masks_grow(struct classifier *cls)
{
    uint32_t n = cls->mask_buckets ? 2 * cls->mask_buckets : 16;
    struct cls_mask **masks = calloc(n, sizeof *masks);

    if (!masks) {
        return; /* longer chains */
    }
    for (uint32_t i = 0; i < cls->mask_buckets; i++) {
        struct cls_mask *m = cls->masks[i];
        while (m) {
            struct cls_mask *next = m->next;
            m->next = masks[m->hash & (n - 1)];
            masks[m->hash & (n - 1)] = m;
            m = next;
        }
    }
    free(cls->masks);
    cls->masks = masks;
    cls->mask_buckets = n;
}

static struct cls_mask *
mask_get(struct classifier *cls, const struct cls_rule *r)
{
    uint32_t hash = mask_hash(cls, r);
    uint8_t at[CLS_WORDS_MAX / 2];
    struct cls_mask *m;

    if (atomic_load_explicit(&cls->n_masks, memory_order_relaxed) >= cls->mask_buckets) {
        masks_grow(cls);
        if (!cls->mask_buckets) {
            return NULL;
        }
    }
    struct cls_mask **head = &cls->masks[hash & (cls->mask_buckets - 1)];
    for (m = *head; m; m = m->next) {
        if (m->hash == hash && mask_is(m, r)) {
            m->refs++;
            return m;
        }
    }
    unsigned n_pairs = mask_pairs(cls, r, at);
    m = calloc(1, sizeof *m + 2 * n_pairs * sizeof *m->bits);
    if (!m) {
        return NULL;
    }
    m->hash = hash;
    m->refs = 1;
    m->n_pairs = n_pairs;
    memcpy(m->at, at, n_pairs);
    memset(m->pos, CLS_NO_POS, sizeof m->pos);
    for (unsigned i = 0, pair = 0; i < r->n_words; i++) {
        unsigned pos = pair_pos(at, &pair, r->idx[i]);
        m->pos[r->idx[i]] = pos;
        m->bits[pos] = r->mask[i];
    }
    m->next = *head;
    *head = m;
    atomic_fetch_add_explicit(&cls->n_masks, 1, memory_order_relaxed);
    return m;
}

static void
free_now_or_later(void *p, bool later)
{
    if (later) {
        epoch_defer(free, p);
    } else {
        free(p);
    }
}

static void
mask_put(struct classifier *cls, struct cls_mask *m, bool seen)
{
    if (--m->refs) {
        return;
    }
    struct cls_mask **at = &cls->masks[m->hash & (cls->mask_buckets - 1)];
    while (*at != m) {
        at = &(*at)->next;
    }
    *at = m->next;
    atomic_fetch_sub_explicit(&cls->n_masks, 1, memory_order_relaxed);
    free_now_or_later(m, seen);
}

struct cls_node *
cls_node_create(struct classifier *cls, struct cls_rule *r)
{
    struct cls_mask *m = mask_get(cls, r);

    if (!m) {
        return NULL;
    }
    struct cls_node *n = calloc(1, sizeof *n + 2 * m->n_pairs * sizeof *n->value);
    if (!n) {
        mask_put(cls, m, false);
        return NULL;
    }
    n->mask = m;
    n->rule = r;
    for (unsigned i = 0; i < r->n_words; i++) {
        n->value[m->pos[r->idx[i]]] = r->value[i];
    }
    return n;
}

void
cls_node_destroy(struct classifier *cls, struct cls_node *n, bool seen)
{
    mask_put(cls, (struct cls_mask *)n->mask, seen);
    free_now_or_later(n, seen);
}

bool
cls_node_equal(const struct cls_node *a, const struct cls_node *b)
{
    return a->mask == b->mask &&
           !memcmp(a->value, b->value, 2 * a->mask->n_pairs * sizeof a->value[0]);
}
