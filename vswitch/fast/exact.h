/* exact: the exact-match cache of one worker.
 *
 * Theory of operation.  A bucket is one line: eight tags (half of an entry's
 * hash), the hashes' other halves, and eight indices into an array of entries.
 * A key may be in two buckets, its primary one and an alternate that either
 * bucket's number and the tag lead to; the load is kept at or below one half,
 * so that nearly all are in the primary one.  An entry is one line too (two
 * for IPv6) and has all that the common packet needs: the key, where to count
 * and where to go.
 *
 * Growth doubles the buckets.  Each insertion then moves two of the old ones,
 * as their slots hold whole hashes no entry is touched for that, and a lookup
 * that fails in the new ones goes on in the old.  Entries never move while the
 * cache grows: their array has its addresses reserved and takes memory as it
 * is used.
 *
 * Entries leave when their generation is old and the space is needed, when the
 * cache is full (second chance: not those used since the last look), when
 * nobody used them for a while (exact_age()), and with exact_trim().
 *
 * Threads: all on the worker's. */
#ifndef EXACT_H
#define EXACT_H

#include "counters.h"
#include "key.h"

#define EXACT_WAYS 8u
#define HUGE_PAGE ((size_t)2 << 20)

struct exact_bucket {
    _Alignas(64) uint16_t tag[EXACT_WAYS]; /* 0: free */
    uint16_t low[EXACT_WAYS];
    uint32_t index[EXACT_WAYS];
};
_Static_assert(sizeof(struct exact_bucket) == 64, "a line");

/* How an entry's packets are treated; bits. */
enum {
    ENTRY_PLAIN = 0,   /* to 'port', which may be PORT_DROP */
    ENTRY_EDIT = 1,    /* program's edits, then to 'port' */
    ENTRY_PUSH = 2,    /* 'tag' is pushed, then to 'port' */
    ENTRY_SLOW = 4,    /* program's kind is SLOW or TRACK */
    ENTRY_VERDICT = 8, /* if the verdict accepts, as other bits say */
    ENTRY_FREE = 0xff, /* 'gen': the next free one */
};

/* A verdict that the cache has, and what else packets need that it decides. */
struct verdict {
    void *verdict;               /* the adapter's; NULL: has said no */
    struct slot *slot;           /* the second flow's */
    const struct program *first; /* the first flow's: TRACK */
    uint32_t gen;                /* the second flow's */
};

struct exact_entry {
    struct key key;
    struct slot *slot;
    const struct program *program;
    union {
        struct verdict *verdict;
        uint32_t tag; /* as in a frame: TPID, TCI */
    };
    uint32_t gen;
    union {
        struct {
            uint8_t kind;
            uint8_t used; /* since the last look */
            uint16_t port;
        };
        uint32_t way; /* all three, for one look at the common case */
    };
};
_Static_assert(sizeof(struct exact_entry) == 64, "a line");

#define ENTRY_WAY_MASK 0xffffu
#define ENTRY_WAY_PLAIN (ENTRY_PLAIN | 1u << 8) /* and used lately */

struct exact_wide {
    struct exact_entry e;
    _Alignas(64) struct key_addr ip6;
};

struct exact {
    struct exact_bucket *buckets; /* never NULL: empty ones if the cache is */
    uint32_t mask;                /* number of buckets - 1 */
    bool wide;                    /* exact_wide */
    char *entries;
    uint32_t capacity; /* entries that have memory */
    uint32_t n;        /* in use */
    uint32_t max;
    uint32_t fresh; /* entries from here on have never been used */
    uint32_t free;  /* list; UINT32_MAX */
    struct exact_bucket *old;
    uint32_t old_mask, old_next; /* next to move */
    uint32_t hand;               /* next entry to look at */
    int64_t aged;                /* ms */
    uint64_t evicted;
    void (*verdict_free)(void *aux, struct verdict *);
    void *aux;
};

/* 'max' entries at most (0: never takes one).  Takes no memory yet.
 * 'verdict_free' gets the verdicts of entries that leave. */
void exact_init(struct exact *, bool wide, uint32_t max,
                void (*verdict_free)(void *aux, struct verdict *), void *aux);
void exact_done(struct exact *);

/* Finds the entry of 'k' wherever it is; NULL.  'k' points to a struct
 * key_wide if the cache is wide. */
struct exact_entry *exact_find(const struct exact *, const struct key *k, uint32_t hash);
/* The entry of 'k', a new one if there is none, to be filled in; its verdict
 * is gone and its kind PLAIN.  NULL: no memory. */
struct exact_entry *exact_insert(struct exact *, const struct key *k, uint32_t hash);
/* Moves what is left in old buckets a little; call now and then. */
void exact_settle(struct exact *);
/* Lets entries go that were not used for 10 s or more, a few per call; 'now'
 * in ms. */
void exact_age(struct exact *, int64_t now);
/* Keeps up to 'keep' of the entries used since the last look and gives back
 * memory, if there is memory for more than that. */
void exact_trim(struct exact *, uint32_t keep);

/* Reserves 'bytes' at an address that a huge page can start at; unreserve() gives them back. */
void *reserve_aligned(size_t bytes, int prot);

static inline struct exact_entry *
exact_at(const struct exact *x, uint32_t index, bool wide)
{
    return (struct exact_entry *)(x->entries + ((size_t)index << (wide ? 7 : 6)));
}

/* Zero if e's key is 'k'. */
static inline __m256i
exact_differ(const struct exact_entry *e, const struct key *k, bool wide)
{
    __m256i differ = _mm256_xor_si256(_mm256_load_si256(&e->key.v), _mm256_load_si256(&k->v));

    if (wide) {
        const __m256i *a = &((const struct exact_wide *)e)->ip6.v;
        const __m256i *b = &((const struct key_wide *)k)->ip6.v;
        differ =
            _mm256_or_si256(differ, _mm256_xor_si256(_mm256_load_si256(a), _mm256_load_si256(b)));
    }
    return differ;
}

static inline bool
exact_is(const struct exact_entry *e, const struct key *k, bool wide)
{
    __m256i differ = exact_differ(e, k, wide);

    return _mm256_testz_si256(differ, differ);
}

static inline bool
exact_is_current(const struct exact_entry *e)
{
    return atomic_load_explicit(&e->slot->gen, memory_order_relaxed) == e->gen;
}

static inline struct exact_bucket *
exact_bucket(const struct exact *x, uint32_t hash)
{
    return &x->buckets[hash & x->mask];
}

/* Which slots of 'b' have the tag of 'hash': two bits for each. */
static inline uint32_t
exact_match(const struct exact_bucket *b, uint32_t hash)
{
    __m128i tags = _mm_load_si128((const __m128i *)b->tag);

    return _mm_movemask_epi8(_mm_cmpeq_epi16(tags, _mm_set1_epi16((short)(hash >> 16))));
}

#endif
