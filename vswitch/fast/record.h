/* record: what flows' packets were, counted by each worker in records of its
 * own; the source of NetFlow and IPFIX.
 *
 * Theory of operation.  The exact-match cache knows packets by what flows look
 * at, which is often less than a 5-tuple; records know them by what people ask
 * for, and so have a table beside it: buckets of tags and indices, and an array
 * of what each packet needs of its record, 32 bytes; the rest is apart.  There the
 * key is a fingerprint of 128 bits under a secret of the process (record_id()),
 * which alone decides whose a packet is.  A burst is looked up in both tables at
 * once (burst.c), so that what the one waits for arrives while the other is at work.
 * What the cache does not know is recorded by who classifies it (worker_record()).
 *
 * A packet is counted once, where it came in, in the record of its port, its
 * Ethernet addresses, VLAN and 5-tuple.  TOS, priority and flow label do not
 * make records of their own.  Where a packet went is the record's, too: when
 * that changes, the record ends and a new one begins.  Packets that a meter takes
 * out are told of in a record of their own, when theirs ends.
 *
 * Records end when nobody has used them for a while, are told of when they
 * last long, and leave early when the table is full (the oldest of a few are
 * chosen).  A worker at work does that as it goes, a little each turn.  One at
 * rest has parked its table, and the collector (engine_record_collect()) takes
 * it for a look.  Nobody waits: a worker that finds no table parked makes a
 * new one, and the collector that finds one where it wants to put its own back
 * ends all records of that.
 *
 * What has ended goes to the collector in blocks, by a list that is pushed
 * with one compare-and-swap.  Their number is bounded: what finds no room
 * waits in the table, and is counted as lost if the table is full, too.
 *
 * Threads: a table belongs to one thread at a time, the worker's or the
 * collector's.  struct recording: settings by one thread, atomics. */
#ifndef RECORD_H
#define RECORD_H

#include <pthread.h>
#include <stddef.h>

#include "exact.h"

enum record_status { /* what became of its packets */
                     RECORD_UNKNOWN,
                     RECORD_FORWARDED,
                     RECORD_DROPPED,
};

enum record_end { /* as flowEndReason */
                  RECORD_END_IDLE = 1,
                  RECORD_END_ACTIVE = 2,
                  RECORD_END_DETECTED = 3,
                  RECORD_END_FORCED = 4,
                  RECORD_END_RESOURCES = 5,
};

/* Why a flow's packets go nowhere; the adapter maps it to lib/drop.h. */
enum record_drop { RECORD_DROP_NONE, RECORD_DROP_POLICY, RECORD_DROP_UPCALL, RECORD_DROP_METER };

/* In key.nw_tos of a record's key: what else makes it. */
enum { RECORD_FRAGMENT = 1 /* not the first one */, RECORD_INNER_VLAN = 2, RECORD_TUNNEL = 4 };

/* What makes a record's key beside struct key where one of those is set, or
 * for IPv6.  IPv6 has 'vlan' and 'tunnel' in key.zero and key.ip6_label. */
struct record_more {
    uint64_t tunnel;
    uint16_t vlan, pad[3];
    uint64_t rest[2];
};
_Static_assert(sizeof(struct record_more) == sizeof(struct key_addr), "in its place");

/* What every packet needs, two of them to a line.  The key stands here as a fingerprint of
 * 128 bits, record_id(): 'id' alone decides whose packet it is. */
struct record_hot {
    __m128i id;
    uint64_t sums; /* not yet in record_cold's: packets << 32 | bytes, both below 2^31 */
    uint32_t last; /* ms of the worker's clock, low bits; of a free one: the next, or none */
    uint16_t out;  /* what an entry's port must be, and no more to be asked; RECORD_OUT_... */
    uint16_t tcp_flags;
};
_Static_assert(sizeof(struct record_hot) == 32, "two to a line");

/* No entry's port. */
enum {
    RECORD_OUT_ASK = ENGINE_PORTS_MAX + 1u,  /* record_cold says, or has no packets yet */
    RECORD_OUT_FREE = ENGINE_PORTS_MAX + 2u, /* not in use */
};
_Static_assert(RECORD_OUT_FREE <= UINT16_MAX, "fits");

/* What few packets need.  The second line counts only if 'more'; else it stands for zeros,
 * whatever is in it. */
struct record_cold {
    struct key key;
    uint32_t first;                  /* as record_hot.last */
    uint32_t rule_out, rule_in;      /* who decided, on the source's and destination's side */
    uint32_t metered, metered_bytes; /* of the packets: a meter dropped them; told of apart */
    uint16_t out;                    /* port */
    uint8_t status;                  /* enum record_status */
    uint8_t drop;                    /* enum record_drop */
    uint8_t tos;                     /* of the first packet */
    bool more;
    uint8_t pad[6];
    union {
        struct key_addr ip6;
        struct record_more tags;
    };
    uint64_t packets, bytes; /* L3's bytes, or the frame's if it is not IP */
    uint64_t pad2[2];
};
_Static_assert(sizeof(struct record_cold) == 128 && offsetof(struct record_cold, ip6) == 64,
               "two lines");

/* On its way to the collector. */
struct record {
    struct key key;
    uint64_t packets, bytes; /* as in record_cold */
    uint32_t last, first;
    uint16_t tcp_flags, out;
    uint8_t status, drop, tos;
    uint8_t end; /* enum record_end */
    union {
        struct key_addr ip6;
        struct record_more more;
    };
    uint32_t rule_out, rule_in;
    uint32_t hash;
    uint32_t pad[5];
};
_Static_assert(sizeof(struct record) == 128, "two lines");

#define RECORD_BLOCK 31u
struct record_block {
    struct record_block *next;
    int64_t now; /* of the clock that the records' times are in: record_time() */
    unsigned n;
    struct record records[RECORD_BLOCK];
};

/* One of its records' times in full; perhaps later than 'now', as a worker looked at the clock
 * after the collector. */
static inline int64_t
record_time(const struct record_block *b, uint32_t ms)
{
    return b->now - (int32_t)((uint32_t)b->now - ms);
}

/* Where a packet went, or will. */
struct record_way {
    uint8_t status, drop;
    uint16_t out;
    uint32_t rule_out, rule_in; /* 0: not said */
};

/* A line of slots: ten bits of the hash, of which the top one is set, and the record's
 * index; 0: free.  A key may be in two buckets, as in exact.h. */
#define RECORD_WAYS 16u
#define RECORD_INDEX_BITS 22u
#define RECORD_INDEX_MASK ((1u << RECORD_INDEX_BITS) - 1)
#define RECORDS_MAX (1u << RECORD_INDEX_BITS)
struct record_bucket {
    _Alignas(64) uint32_t slot[RECORD_WAYS];
};
_Static_assert(sizeof(struct record_bucket) == 64, "a line");

/* What a lookup needs of a table: all that stays as it is while a burst's packets
 * are looked up. */
struct record_view {
    struct record_hot *hot;   /* addresses for all, memory for those in use */
    struct record_cold *cold; /* of them; likewise */
    struct record_bucket *buckets;
    uint32_t mask;
};
struct record_table; /* begins with one */

#define RECORD_BLOCKS_MAX 8192u /* about 32 MiB on their way */

/* The engine's part: settings, and what has ended. */
struct recording {
    atomic_bool on;
    _Atomic uint32_t idle_ms, active_ms;
    _Atomic uint32_t max;      /* records of one table */
    _Atomic uint32_t sampling; /* one packet in so many; at least 1 */
    _Atomic uint64_t *ports;   /* ENGINE_PORTS_MAX bits: whose packets are recorded */
    struct record_block *_Atomic ended;
    struct record_table *_Atomic orphans;
    _Atomic uint32_t n_blocks;
    /* What could not be kept. */
    _Atomic uint64_t lost_records, lost_packets, lost_bytes;
    _Atomic uint64_t pushed_out; /* ended for lack of room */
    pthread_mutex_t workers_lock;
    struct worker *workers; /* under the lock */
    pthread_mutex_t answers_lock;
    struct record_answer *answers; /* record_answer.c; under the lock; NULL */
};

int recording_init(struct recording *); /* ENOMEM */
void recording_done(struct recording *);

static inline bool
recording_of_port(const struct recording *r, uint16_t port)
{
    return atomic_load_explicit(&r->ports[port / 64], memory_order_relaxed) >> port % 64 & 1;
}

/* --- one table -------------------------------------------------------------- */

struct record_table *record_table_create(uint32_t max); /* NULL: no memory */
/* Its records end, for 'end'; frees it. */
void record_table_end(struct recording *, struct record_table *, int64_t now, enum record_end);
uint32_t record_table_count(const struct record_table *);
uint32_t record_table_max(const struct record_table *);
/* A list of tables, for whoever has them. */
struct record_table *record_table_next(const struct record_table *);
void record_table_set_next(struct record_table *, struct record_table *next);

static inline const struct record_view *
record_view(const struct record_table *t)
{
    return (const struct record_view *)t;
}

static inline struct record_cold *
record_cold(const struct record_view *v, const struct record_hot *h)
{
    return &v->cold[h - v->hot];
}

/* Prefetches what record_guess() and record_find() will want. */
static inline void
record_prefetch(const struct record_view *v, uint32_t hash)
{
    __builtin_prefetch(&v->buckets[hash & v->mask]);
}

/* Which slots have the tag of 'hash', a bit for each; of 0: which are free. */
static inline uint32_t
record_match(const struct record_bucket *b, uint32_t hash)
{
    const __m256i mask = _mm256_set1_epi32((int)~RECORD_INDEX_MASK);
    const __m256i tag = _mm256_set1_epi32((int)(hash & ~RECORD_INDEX_MASK));
    const __m256i *s = (const __m256i *)b->slot;
    __m256i low = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_load_si256(s), mask), tag);
    __m256i high = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_load_si256(s + 1), mask), tag);

    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(low)) |
           (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(high)) << 8;
}

/* Has no key, and is free. */
extern struct record_hot record_none;

/* Perhaps the record of a key with that hash, prefetched; or record_none. */
static inline struct record_hot *
record_guess(const struct record_view *v, uint32_t hash)
{
    const struct record_bucket *b = &v->buckets[hash & v->mask];
    uint32_t m = record_match(b, hash);
    struct record_hot *h;

    if (__builtin_expect(!m, 0)) {
        return &record_none;
    }
    h = &v->hot[b->slot[__builtin_ctz(m)] & RECORD_INDEX_MASK];
    __builtin_prefetch(h, 1);
    return h;
}

/* NULL: there is none. */
struct record_hot *record_find(const struct record_table *, __m128i id);
/* Its place, and what is there now if it has that hash; NULL. */
uint32_t record_index(const struct record_table *, const struct record_hot *);
struct record_hot *record_at(const struct record_table *, uint32_t index, uint32_t hash);
/* record_find() of k's id, or a new one without packets; one may have to leave.  NULL: no
 * memory. */
struct record_hot *record_get(struct recording *, struct record_table *, const struct key_wide *k,
                              __m128i id, int64_t now);
/* Ends those that are due; 'all': looks at all of them, else at some, by the
 * time that has passed. */
void record_sweep(struct recording *, struct record_table *, int64_t now, bool all);
/* Hands over what has been gathered. */
void record_flush(struct recording *, struct record_table *);
/* What has its packets so far ends, and it goes on. */
void record_split(struct recording *, struct record_table *, struct record_hot *, int64_t now,
                  enum record_end);
/* Sums go where there is more room for them. */
void record_carry(const struct record_table *, struct record_hot *);

/* A key has its ip6 (or more) part. */
static inline bool
record_is_wide(const struct key *k)
{
    return k->eth_type == 0xdd86 || k->nw_tos;
}

static inline uint32_t
record_hash(const struct key_wide *k)
{
    return record_is_wide(&k->key) ? key_hash_wide(k) : key_hash(&k->key);
}

/* Sums of products with the first and with the second secret of each half of a key. */
static inline __m128i
record_id_end_(__m256i a, __m256i b)
{
    __m256i s = _mm256_add_epi64(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));

    return _mm_add_epi64(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}

/* The fingerprint of a record's key, of which 'v6' is its ip6 part if it is 'wide'.  For any
 * two keys one secret in 2^64 gives the same (NH, twice with secrets of their own). */
static inline __attribute__((always_inline)) __m128i
record_id(__m256i v, __m256i v6, bool wide)
{
    __m256i a = key_nh_(v, key_secret[0]), b = key_nh_(v, key_secret[2]);

    if (wide) {
        a = _mm256_add_epi64(a, key_nh_(v6, key_secret[1]));
        b = _mm256_add_epi64(b, key_nh_(v6, key_secret[3]));
    }
    return record_id_end_(a, b);
}

static inline __m128i
record_id_of(const struct key_wide *k)
{
    return record_id(k->key.v, k->ip6.v, record_is_wide(&k->key));
}

/* record_hash() of its key. */
static inline uint32_t
record_id_hash(__m128i id)
{
    return key_nh_end_sum_(_mm_cvtsi128_si64(id));
}

static inline bool
record_is(const struct record_hot *h, __m128i id)
{
    __m128i differ = _mm_xor_si128(_mm_load_si128(&h->id), id);

    return _mm_testz_si128(differ, differ);
}

static inline uint64_t
record_packets(const struct record_cold *c, const struct record_hot *h)
{
    return (c->more ? c->packets : 0) + (h->sums >> 32);
}

static inline uint64_t
record_bytes_of(const struct record_cold *c, const struct record_hot *h)
{
    return (c->more ? c->bytes : 0) + (uint32_t)h->sums;
}

/* Before it counts what may be its first packet. */
static inline void
record_begin(const struct record_hot *h, struct record_cold *c, uint32_t now)
{
    if (!record_packets(c, h)) {
        c->first = now;
    }
}

/* 'packets' and 'bytes' are below 2^31.  True: record_carry() is due. */
static inline bool
record_count(struct record_hot *h, uint32_t packets, uint32_t bytes, uint16_t tcp_flags,
             uint32_t now)
{
    h->sums += (uint64_t)packets << 32 | bytes;
    h->last = now;
    h->tcp_flags |= tcp_flags;
    return __builtin_expect(!!(h->sums & UINT64_C(0x8000000080000000)), 0);
}

/* --- answers (record_answer.c) -------------------------------------------------- */

void record_answers_prepare(struct recording *); /* from now on there is room for them */
void record_answers_done(struct recording *);
/* Packets of that key, which have been counted without a way, go this way.  'now':
 * of the workers' clock, low bits. */
void record_answer(struct recording *, const struct key_wide *, const struct record_way *,
                   uint32_t now);
/* Packets with that key, on their way to ofproto, have been counted as 'of'. */
void record_alias(struct recording *, const struct key_wide *, const struct key_wide *of,
                  uint32_t now);
/* Makes of the key the one that they were counted as; false: none is known. */
bool record_find_alias(struct recording *, struct key_wide *, uint32_t now);
/* Completes the block's records that have no way. */
void record_answer_block(struct recording *, struct record_block *);
/* record_answer() of an engine. */
struct engine;
void engine_record_answer(struct engine *, const struct key_wide *, const struct record_way *,
                          int64_t now);
void engine_record_alias(struct engine *, const struct key_wide *, const struct key_wide *of,
                         int64_t now);
bool engine_record_find_alias(struct engine *, struct key_wide *, int64_t now);
/* The key of the packets counted there; false: it is gone. */
bool worker_record_key(const struct worker *, struct record_ref, struct key_wide *);
/* A meter drops one of the packets counted there. */
void worker_record_metered(struct worker *, struct record_ref, uint32_t bytes);
/* Whether packets of a port are recorded; any thread. */
bool engine_records(const struct engine *, uint16_t in_port);
/* For a worker that packets come to without worker_run(): its turn begins. */
void worker_record_turn(struct worker *);

/* --- frames to keys (record_key.c) -------------------------------------------- */

/* What of a parsed key makes a record: all but TOS, priority and label. */
extern const struct key_masks record_masks;

/* Any frame of at least 14 bytes; 'k' is whole.  Returns its bytes as a record
 * counts them. */
uint32_t record_parse(const uint8_t *frame, uint32_t len, uint16_t in_port, uint64_t tunnel,
                      bool tunneled, struct key_wide *k, uint16_t *tcp_flags, uint8_t *tos);

#endif
