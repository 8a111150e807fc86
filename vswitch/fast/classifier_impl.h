/* classifier_impl: what the classifier is made of.  For classifier_*.c only.
 *
 * Theory of operation
 *
 * The rules are leaves of a tree.  Inner objects:
 *
 *   HASH   a table of tuple space search, over a part of the key that its
 *          rules' masks have in common, at most four words of it.  Rules of
 *          many masks share one: that is the tuple merging.  An entry holds
 *          what has one value of that part.
 *   PATH   tells rules apart by how far they follow one value of a field, from
 *          the most significant bit: the child is chosen by the position of
 *          the first bit that differs.  Made for what an attacker turns a
 *          longest-prefix lookup into: OVS unwildcards just enough bits to
 *          prove that a packet left the path to a rule's value, so that the
 *          cells of one field have as many masks as the field has bits, and
 *          no hash over a common part tells more than two of them apart.
 *   GROUP  several of these side by side, all of which a lookup searches, and
 *          'rest' for the rules that fit none.
 *   LEAF   a few rules, compared four at a time by the two words that tell
 *          them apart best.
 *
 * A rule that "fits" a HASH or a PATH has exactly one child to be in; it is in
 * the first table of a group that it fits.  So the way to a rule follows from
 * the rule, and removal descends as insertion does.
 *
 * A leaf that grows too long becomes a table or a group
 * (classifier_build.c), by what a sample of its rules says.  An inner object
 * whose rules have become four times what it was built for, or a quarter, is
 * built anew, so that the cost is amortised.
 *
 * Concurrency.  Readers go down through references (cls_ref) that each are
 * one atomic word.  What a reference leads to is either immutable, or is
 * changed in one atomic step that replaces a child by one that has the same
 * rules, or one more, or one less.  A rule never moves from one object that a
 * reader may still search to another that it may have searched already:
 * objects that exchange rules are replaced together by a new parent, and the
 * old one stays as it was until an epoch later. */
#ifndef CLASSIFIER_IMPL_H
#define CLASSIFIER_IMPL_H

#include <immintrin.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "classifier.h"

#define CLS_LEAF_MAX 24u  /* rules; more are split if that helps */
#define CLS_HASH_WORDS 4u /* of the key that a table's hash covers */
#define CLS_BUCKET_SLOTS 7u
#define CLS_SAMPLE 256u /* rules that decide how all are split */

/* A pointer and, in its low bits, what it points to.  0: nothing. */
typedef uintptr_t cls_ref;

enum cls_kind {
    CLS_RULE,  /* struct cls_node */
    CLS_LEAF,  /* struct cls_leaf */
    CLS_HASH,  /* struct cls_hash */
    CLS_PATH,  /* struct cls_path */
    CLS_GROUP, /* struct cls_group */
    CLS_MORE,  /* struct cls_bucket that follows a full one */
    CLS_KINDS = 7
};

static inline enum cls_kind
cls_kind(cls_ref r)
{
    return r & CLS_KINDS;
}

static inline void *
cls_ptr(cls_ref r)
{
    return (void *)(r & ~(cls_ref)CLS_KINDS);
}

static inline cls_ref
cls_make(const void *p, enum cls_kind kind)
{
    return (cls_ref)p | kind;
}

static inline cls_ref
cls_load(const _Atomic(cls_ref) *r)
{
    return atomic_load_explicit((_Atomic(cls_ref) *)r, memory_order_acquire);
}

static inline void
cls_store(_Atomic(cls_ref) *r, cls_ref value)
{
    atomic_store_explicit(r, value, memory_order_release);
}

/* --- masks and rules (classifier_rule.c) ----------------------------------- */

/* A mask, shared by all rules that have it.  The words it touches are taken
 * in pairs of neighbours, so that comparing needs half the loads. */
struct cls_mask {
    struct cls_mask *next; /* in cls->masks; this and what follows are the writer's */
    uint32_t hash;
    uint32_t refs;
    uint8_t pos[CLS_WORDS_MAX]; /* of a word in bits[] and values; NO_POS: not touched */

    uint32_t n_pairs;              /* even: one may be empty */
    uint8_t at[CLS_WORDS_MAX / 2]; /* a pair's first word */
    uint64_t bits[];               /* 2 * n_pairs */
};
#define CLS_NO_POS 0xff

/* A rule as readers see it. */
struct cls_node {
    const struct cls_mask *mask;
    struct cls_rule *rule;
    struct cls_node *same_next, *same_prev; /* equal rules, hidden behind the first; writer's */
    uint64_t value[];                       /* 2 * mask->n_pairs */
};

static inline uint64_t
cls_node_bits(const struct cls_node *n, unsigned word)
{
    uint8_t pos = n->mask->pos[word];

    return pos == CLS_NO_POS ? 0 : n->mask->bits[pos];
}

/* 0 where the mask is. */
static inline uint64_t
cls_node_value(const struct cls_node *n, unsigned word)
{
    uint8_t pos = n->mask->pos[word];

    return pos == CLS_NO_POS ? 0 : n->value[pos];
}

static inline bool
cls_node_matches(const struct cls_node *n, const uint64_t *key)
{
    const struct cls_mask *m = n->mask;
    __m256i differs = _mm256_setzero_si256();

    for (unsigned i = 0; i < m->n_pairs; i += 2) {
        __m256i k = _mm256_loadu2_m128i((const __m128i *)(key + m->at[i + 1]),
                                        (const __m128i *)(key + m->at[i]));
        k = _mm256_and_si256(k, _mm256_loadu_si256((const __m256i *)(m->bits + 2 * i)));
        k = _mm256_xor_si256(k, _mm256_loadu_si256((const __m256i *)(n->value + 2 * i)));
        differs = _mm256_or_si256(differs, k);
    }
    return _mm256_testz_si256(differs, differs);
}

bool cls_node_equal(const struct cls_node *, const struct cls_node *);

/* NULL: no memory.  Neither is visible to readers yet. */
struct cls_node *cls_node_create(struct classifier *, struct cls_rule *);
/* Unshares the mask and frees the node, an epoch later if 'seen' by readers. */
void cls_node_destroy(struct classifier *, struct cls_node *, bool seen);

/* --- objects ----------------------------------------------------------------- */

/* What all objects below start with; writer's. */
struct cls_head {
    uint64_t hash;  /* in the HASH whose entry this is the child of */
    uint32_t rules; /* below, without hidden ones */
    uint32_t built; /* 'rules' when it was built; LEAF: above this, try to split */
};

/* Groups of four lanes: masks of four rules for the first word, their values,
 * the same for the second word unless there is only one group; an unused lane
 * never matches.  Then the rules, which the writer may set to NULL or to an
 * equal one. */
struct cls_leaf {
    struct cls_head head;
    struct cls_leaf *next; /* a long one continues */
    uint16_t n;            /* lanes in use, at most CLS_LEAF_LANES */
    uint16_t word[2];
    uint64_t lanes[];
};
#define CLS_LEAF_LANES 64u

static inline unsigned
cls_leaf_groups(const struct cls_leaf *l)
{
    return (l->n + 3u) / 4;
}

static inline unsigned
cls_leaf_words(unsigned groups)
{
    return groups > 1 ? 2 : 1;
}

static inline _Atomic(struct cls_node *) *
cls_leaf_nodes(const struct cls_leaf *l)
{
    unsigned groups = cls_leaf_groups(l);

    return (_Atomic(struct cls_node *) *)(l->lanes + groups * 8 * cls_leaf_words(groups));
}

struct cls_bucket {
    _Alignas(64) _Atomic uint64_t tags; /* a byte a slot, 0: empty; CLS_BUCKET_MORE */
    /* The last one may be CLS_MORE. */
    _Atomic(cls_ref) slot[CLS_BUCKET_SLOTS];
};
#define CLS_BUCKET_MORE (UINT64_C(1) << 56)
#define CLS_BUCKET_LOAD 4u /* entries a bucket, on average, at most */

/* Which part of the key a table's hash covers; idx 0 and mask 0 if unused. */
struct cls_tuple {
    uint16_t n_words;
    uint16_t idx[CLS_HASH_WORDS];
    uint64_t mask[CLS_HASH_WORDS];
};

struct cls_hash {
    struct cls_head head;
    uint32_t entries;     /* writer's */
    uint32_t bucket_mask; /* their number - 1 */
    struct cls_tuple tuple;
    uint64_t seed[CLS_HASH_WORDS];
    struct cls_bucket bucket[];
};

/* Of a word as a number whose most significant byte comes first in memory,
 * 'n_bits' from the bit 'start' on. */
struct cls_steps {
    uint16_t word;
    uint8_t start, n_bits; /* n_bits >= 1; start 0 is the most significant one */
    uint64_t path;
};

struct cls_path {
    struct cls_head head;
    struct cls_steps steps;
    uint64_t end;            /* the bit after the last step, if there is one */
    _Atomic(cls_ref) slot[]; /* steps.n_bits + 1; the last one: on the path to the end */
};

struct cls_group {
    struct cls_head head;
    uint32_t n;
    _Atomic(cls_ref) rest;
    _Atomic(cls_ref) table[]; /* HASH or PATH; 0: was one, is empty */
};

/* Hashes are universal, with secret seeds: which rules share a bucket is not
 * the attacker's choice. */
static inline uint64_t
cls_mul(uint64_t a, uint64_t b)
{
    unsigned __int128 p = (unsigned __int128)a * b;

    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static inline uint64_t
cls_hash_words(const struct cls_hash *t, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t h = cls_mul(a ^ t->seed[0], b ^ t->seed[1]);

    if (t->tuple.n_words > 2) {
        h += cls_mul(c ^ t->seed[2], d ^ t->seed[3]);
    }
    return h;
}

static inline uint64_t
cls_hash_key(const struct cls_hash *t, const uint64_t *key)
{
    const struct cls_tuple *u = &t->tuple;

    return cls_hash_words(t, key[u->idx[0]] & u->mask[0], key[u->idx[1]] & u->mask[1],
                          key[u->idx[2]] & u->mask[2], key[u->idx[3]] & u->mask[3]);
}

static inline uint8_t
cls_tag(uint64_t hash)
{
    return (hash >> 57) + 1;
}

/* The slots of a bucket that may hold 'tag': bit 8 * i + 7 for slot i. */
static inline uint64_t
cls_bucket_match(uint64_t tags, uint8_t tag)
{
    uint64_t x = tags ^ (tag * UINT64_C(0x0101010101010101));

    return (x - UINT64_C(0x0101010101010101)) & ~x & UINT64_C(0x0080808080808080);
}

static inline unsigned
cls_path_index(const struct cls_path *p, const uint64_t *key)
{
    uint64_t differs = __builtin_bswap64(key[p->steps.word]) ^ p->steps.path;

    return _lzcnt_u64(differs << p->steps.start | p->end);
}

struct classifier {
    /* Readers'. */
    _Atomic(cls_ref) root;

    /* Writer's. */
    unsigned n_words;
    _Atomic size_t n_rules, n_masks;
    struct cls_mask **masks; /* hash table, mask_buckets of them */
    uint32_t mask_buckets;
    uint64_t seed[CLS_HASH_WORDS];
    struct cls_chooser *chooser; /* scratch of classifier_build.c */
};

/* --- leaves and tables (classifier_table.c) ----------------------------------- */

/* A list of 'n' >= 1 rules.  0: no memory. */
cls_ref cls_leaf_create(struct cls_node *const *, unsigned n);
/* A leaf that has 'n' >= 1 more.  Shares the others of a long one. */
struct cls_leaf *cls_leaf_with(struct cls_leaf *, struct cls_node *);

struct cls_hash *cls_hash_create(const struct classifier *, const struct cls_tuple *,
                                 uint32_t entries);
/* Adds an entry.  False: no memory.  Not yet in its counters. */
bool cls_hash_put(struct cls_hash *, uint64_t hash, cls_ref child);
/* The bucket and slot of the child with this hash; NULL: none. */
struct cls_bucket *cls_hash_find(const struct cls_hash *, uint64_t hash, unsigned *slot);
/* After the child has become 0. */
void cls_hash_clear(struct cls_hash *, struct cls_bucket *, unsigned slot);
/* The same entries in twice the space; NULL: no memory. */
struct cls_hash *cls_hash_grow(const struct cls_hash *);
/* The rule must fit. */
uint64_t cls_hash_node(const struct cls_hash *, const struct cls_node *);

struct cls_path *cls_path_create(const struct cls_steps *);
struct cls_group *cls_group_create(unsigned n);

bool cls_tuple_fits(const struct cls_tuple *, const struct cls_node *);
/* The child a rule belongs to, or -1 if it does not fit. */
int cls_steps_child(const struct cls_steps *, const struct cls_node *);
/* 'table' is HASH or PATH. */
bool cls_fits(cls_ref table, const struct cls_node *);

/* Calls fn() for each child of HASH, PATH, GROUP. */
void cls_for_each_child(cls_ref, void (*fn)(cls_ref, void *aux), void *aux);
/* Frees one object, or it and all below but the rules; the second also for
 * epoch_defer(), with a cls_ref as argument. */
void cls_free_one(void *ref);
void cls_free_all(void *ref);

/* --- building (classifier_build.c) --------------------------------------------- */

/* Something that finds the 'n' rules, whose order it changes.  ENOMEM. */
int cls_build(struct classifier *, struct cls_node **, unsigned n, cls_ref *);

#endif
