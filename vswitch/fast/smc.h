/* smc: the signature-match cache of one worker: which megaflow a key is of.
 *
 * Theory of operation.  A megaflow has one entry here, however many
 * connections it stands for: what it matches, where to count and where to go,
 * in two lines.  A key leads there by its hash, through a bucket of one line:
 * sixteen tags (half of a hash) and sixteen indices of entries.  So a key costs
 * four bytes, where one in exact.h costs eighty, and what 100,000 connections
 * need stays in the core's own cache.
 *
 * A tag is a hint.  Whether the packet is of the megaflow is seen by comparing
 * the key with what the megaflow matches: megaflows that overlap agree, so any
 * that matches is right, and places of buckets that point to what has left
 * harm nobody.  So there is nothing to be kept in step: a megaflow that changes
 * or goes has another generation (counters.h), its entry is made unmatchable
 * when it is met, and made anew for the next that has its number.
 *
 * A key that finds its bucket full is the exact-match cache's, and so are those
 * whose entries say more than the megaflow does: verdicts of connections.
 *
 * The table is replaced when it gets too small, and after a while in any case.
 * Keys that are met again move over from the old one; the others are gone with
 * the next.  A table that few keys have moved to holds keys that do not come
 * again: unless it is small, the next is not larger, and 'vain' says that little
 * should be learned.  A table lasts the longer the less is learned, so that keys
 * which come again after long are met again, too, and then have it grow.
 *
 * Only keys of 32 bytes; those of IPv6 are the exact-match cache's.
 *
 * Threads: all on the worker's. */
#ifndef SMC_H
#define SMC_H

#include "exact.h"

#define SMC_WAYS 16u
#define SMC_ENTRIES_MAX 65536u

struct smc_bucket {
    _Alignas(64) uint16_t tag[SMC_WAYS]; /* 0: free */
    uint16_t index[SMC_WAYS];
};
_Static_assert(sizeof(struct smc_bucket) == 64, "a line");

struct smc_entry {
    struct exact_entry e; /* its key: what the megaflow matches; never of a verdict */
    struct key mask;      /* of the key, which has no other bits */
    uint32_t flow;        /* id */
    uint32_t pad[7];
};
_Static_assert(sizeof(struct smc_entry) == 128, "two lines");

struct smc {
    struct smc_bucket *buckets; /* never NULL: empty ones if the cache is */
    uint32_t mask;              /* number of buckets - 1 */
    uint32_t n;                 /* places taken since the table is new */
    uint32_t moved;             /* of them, by keys of the old one */
    bool vain;                  /* few keys are met again: learn little */
    struct smc_bucket *old;     /* NULL */
    uint32_t old_mask;
    uint32_t buckets_max; /* 0: never takes a key */
    int64_t turned;       /* ms: when the table was new */
    struct smc_entry *entries;
    uint32_t capacity;  /* entries that have memory */
    uint32_t n_entries; /* that have been used; the first never is */
};

/* Room for about 'max' keys.  Takes no memory yet. */
void smc_init(struct smc *, uint32_t max);
void smc_done(struct smc *);

/* The valid entry of 'k' wherever it is; NULL. */
struct exact_entry *smc_find(struct smc *, const struct key *k, uint32_t hash);
/* From now on finds for 'k' the entry of flow 'id', which matches k's bits in
 * 'mask' (it has no bits that k was not masked with).  '*index' is the worker's
 * note of where the flow's entry is, 0 at first.  Returns the entry, whose key
 * and mask are set, for all else to be filled in; NULL: no room. */
struct exact_entry *smc_learn(struct smc *, const struct key *k, uint32_t hash, uint32_t id,
                              const struct key *mask, uint16_t *index);
/* The flow's packets are no longer to be found here. */
void smc_forget(struct smc *, uint32_t id, uint16_t index);
/* A new table when it is time; call now and then, 'now' in ms. */
void smc_age(struct smc *, int64_t now);
/* Gives back memory if there is some to speak of, or 'all'.  Then notes of
 * where entries are mean nothing any more, which smc_learn() finds out. */
void smc_trim(struct smc *, bool all);

/* Places. */
static inline uint32_t
smc_size(const struct smc *s)
{
    return s->mask ? (s->mask + 1) * SMC_WAYS : 0;
}

static inline struct smc_bucket *
smc_bucket(const struct smc *s, uint32_t hash)
{
    return &s->buckets[hash & s->mask];
}

/* Which places of 'b' have the tag of 'hash': two bits for each. */
static inline uint32_t
smc_match(const struct smc_bucket *b, uint32_t hash)
{
    __m256i tags = _mm256_load_si256((const __m256i *)b->tag);

    return _mm256_movemask_epi8(_mm256_cmpeq_epi16(tags, _mm256_set1_epi16((short)(hash >> 16))));
}

/* The mask of a smc_entry's exact_entry. */
static inline const struct key *
smc_mask(const struct exact_entry *e)
{
    return &((const struct smc_entry *)e)->mask;
}

/* Zero if 'k' is of the megaflow that an entry stands for. */
static inline __m256i
smc_differ(const struct exact_entry *e, const struct key *mask, const struct key *k)
{
    return _mm256_xor_si256(_mm256_and_si256(_mm256_load_si256(&k->v), _mm256_load_si256(&mask->v)),
                            _mm256_load_si256(&e->key.v));
}

#endif
