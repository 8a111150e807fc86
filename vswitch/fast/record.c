/* record: tables of records; see record.h. */
#include "record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NONE UINT32_MAX
#define BUCKETS_MIN 8u
#define RECORDS_MIN 64u
#define LOAD_MAX 8u       /* records a bucket, on average */
#define MOVES 1u          /* old buckets an insertion moves */
#define LOOKS 32u         /* records looked at for the oldest, when one has to leave */
#define SWEEP_STEP_MS 4   /* between two looks at some */
#define SWEEP_AHEAD 16u   /* records to prefetch ahead */
#define ROUND_MIN_MS 250u /* a round of looks at all, at least and at most */
#define ROUND_MAX_MS 4000u
#define CLOSED_MS 1000u /* of silence after TCP's FIN or RST: it was the last */
#define HUGE_FROM ((size_t)2 << 20)
#define TCP_FIN_RST 0x005

struct record_hot record_none = {.out = RECORD_OUT_FREE};

struct record_table {
    struct record_view v; /* hot, cold: addresses for 'max', memory for 'capacity' */
    uint32_t max, capacity, n;
    uint32_t fresh;            /* from here on never used */
    uint32_t free;             /* list through 'last'; NONE */
    uint32_t hand;             /* next to look at */
    struct record_bucket *old; /* being moved from; NULL */
    uint32_t old_mask, old_next;
    int64_t swept;
    struct record_block *block; /* being filled */
    struct record_table *next;  /* of recording.orphans */
};

/* --- the engine's part --------------------------------------------------------- */

#define PORT_WORDS ((ENGINE_PORTS_MAX + 63u) / 64u + 1u)

int
recording_init(struct recording *r)
{
    memset(r, 0, sizeof *r);
    r->ports = calloc(PORT_WORDS, sizeof *r->ports);
    if (!r->ports) {
        return ENOMEM;
    }
    atomic_init(&r->sampling, 1);
    atomic_init(&r->max, 1u << 16);
    atomic_init(&r->idle_ms, 15000);
    atomic_init(&r->active_ms, 60000);
    pthread_mutex_init(&r->workers_lock, NULL);
    pthread_mutex_init(&r->answers_lock, NULL);
    return 0;
}

void
recording_done(struct recording *r)
{
    struct record_block *b = atomic_exchange(&r->ended, NULL);
    struct record_table *t = atomic_exchange(&r->orphans, NULL);

    while (t) {
        struct record_table *next = t->next;
        record_table_end(r, t, 0, RECORD_END_FORCED);
        t = next;
    }
    while (b) {
        struct record_block *next = b->next;
        free(b);
        b = next;
    }
    b = atomic_exchange(&r->ended, NULL);
    while (b) {
        struct record_block *next = b->next;
        free(b);
        b = next;
    }
    free(r->ports);
    record_answers_done(r);
    pthread_mutex_destroy(&r->workers_lock);
}

/* --- what ends -------------------------------------------------------------------- */

static void
push(struct recording *r, struct record_block *b)
{
    b->next = atomic_load_explicit(&r->ended, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&r->ended, &b->next, b, memory_order_release,
                                                  memory_order_relaxed)) {
    }
}

void
record_flush(struct recording *r, struct record_table *t)
{
    if (t->block) {
        push(r, t->block);
        t->block = NULL;
    }
}

/* Says whether there is room for one that ends. */
static bool
have_room(struct recording *r, struct record_table *t, int64_t now)
{
    if (t->block) {
        return true;
    }
    if (atomic_fetch_add_explicit(&r->n_blocks, 1, memory_order_relaxed) < RECORD_BLOCKS_MAX) {
        t->block = aligned_alloc(64, (sizeof *t->block + 63) / 64 * 64);
        if (t->block) {
            t->block->n = 0;
            t->block->now = now;
            return true;
        }
    }
    atomic_fetch_sub_explicit(&r->n_blocks, 1, memory_order_relaxed);
    return false;
}

/* The second line of 'c' is in use from now on. */
static void
use_more(struct record_cold *c)
{
    if (!c->more) {
        memset(&c->ip6, 0, sizeof *c - offsetof(struct record_cold, ip6));
        c->more = true;
    }
}

void
record_carry(const struct record_table *t, struct record_hot *h)
{
    struct record_cold *c = record_cold(&t->v, h);

    use_more(c);
    c->packets += h->sums >> 32;
    c->bytes += (uint32_t)h->sums;
    h->sums = 0;
}

/* A copy of it on its way; NULL: no room. */
static struct record *
tell_next(struct recording *r, struct record_table *t, const struct record_hot *h, int64_t now,
          enum record_end end)
{
    const struct record_cold *c = record_cold(&t->v, h);
    struct record *to;

    if (t->block && t->block->n == RECORD_BLOCK) {
        record_flush(r, t);
    }
    if (!have_room(r, t, now)) {
        return NULL;
    }
    t->block->now = now;
    to = &t->block->records[t->block->n++];
    *to = (struct record){
        .key = c->key,
        .packets = record_packets(c, h),
        .bytes = record_bytes_of(c, h),
        .last = h->last,
        .first = c->first,
        .tcp_flags = h->tcp_flags,
        .out = c->out,
        .status = c->status,
        .drop = c->drop,
        .tos = c->tos,
        .end = end,
        .rule_out = c->rule_out,
        .rule_in = c->rule_in,
        .hash = record_id_hash(h->id),
    };
    if (c->more) {
        to->ip6 = c->ip6;
    }
    return to;
}

/* Those that a meter dropped; from now on they are not the record's. */
static bool
tell_metered(struct recording *r, struct record_table *t, struct record_hot *h, int64_t now,
             enum record_end end)
{
    struct record_cold *c = record_cold(&t->v, h);
    struct record *to = tell_next(r, t, h, now, end);

    if (!to) {
        return false;
    }
    to->packets = c->metered;
    to->bytes = c->metered_bytes;
    to->status = RECORD_DROPPED;
    to->drop = RECORD_DROP_METER;
    to->out = ENGINE_PORTS_MAX;
    record_carry(t, h);
    c->packets -= c->metered;
    c->bytes -= c->metered_bytes;
    c->metered = c->metered_bytes = 0;
    h->out = RECORD_OUT_ASK; /* perhaps none are left */
    return true;
}

/* False: no room. */
static bool
tell(struct recording *r, struct record_table *t, struct record_hot *h, int64_t now,
     enum record_end end)
{
    const struct record_cold *c = record_cold(&t->v, h);

    if (__builtin_expect(c->metered, 0) && !tell_metered(r, t, h, now, end)) {
        return false;
    }
    if (record_packets(c, h) && !tell_next(r, t, h, now, end)) {
        return false;
    }
    if (t->block && t->block->n == RECORD_BLOCK) {
        record_flush(r, t);
    }
    return true;
}

static void
tell_or_lose(struct recording *r, struct record_table *t, struct record_hot *h, int64_t now,
             enum record_end end)
{
    const struct record_cold *c = record_cold(&t->v, h);

    if (record_packets(c, h) && !tell(r, t, h, now, end)) {
        atomic_fetch_add_explicit(&r->lost_records, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&r->lost_packets, record_packets(c, h), memory_order_relaxed);
        atomic_fetch_add_explicit(&r->lost_bytes, record_bytes_of(c, h), memory_order_relaxed);
    }
}

/* The next period of a flow that goes on. */
static void
begin_again(const struct record_table *t, struct record_hot *h)
{
    struct record_cold *c = record_cold(&t->v, h);

    h->sums = 0;
    h->tcp_flags = 0;
    h->out = RECORD_OUT_ASK; /* its next packet is its first */
    c->metered = c->metered_bytes = 0;
    if (c->more) {
        c->packets = c->bytes = 0;
    }
}

void
record_split(struct recording *r, struct record_table *t, struct record_hot *h, int64_t now,
             enum record_end end)
{
    struct record_cold *c = record_cold(&t->v, h);

    tell_or_lose(r, t, h, now, end);
    begin_again(t, h);
    c->rule_out = c->rule_in = 0;
    c->drop = 0;
}

/* --- buckets ------------------------------------------------------------------------ */

static struct record_bucket *
buckets_create(uint32_t n)
{
    size_t bytes = n * sizeof(struct record_bucket);
    struct record_bucket *b;

    if (bytes >= HUGE_FROM) {
        b = reserve(bytes);
        if (b) {
            madvise(b, bytes, MADV_HUGEPAGE);
        }
        return b;
    }
    b = aligned_alloc(64, bytes);
    return b ? memset(b, 0, bytes) : NULL;
}

static void
buckets_destroy(struct record_bucket *b, uint32_t mask)
{
    size_t bytes = ((size_t)mask + 1) * sizeof *b;

    if (b && bytes >= HUGE_FROM) {
        unreserve(b, bytes);
    } else {
        free(b);
    }
}

/* 'tag': a hash, or a slot of it. */
static uint32_t
alternate(uint32_t bucket, uint32_t tag, uint32_t mask)
{
    return (bucket ^ ((tag >> RECORD_INDEX_BITS) * 0x5bd1e995u | 1)) & mask;
}

static uint32_t
slot_of(uint32_t hash, uint32_t index)
{
    return (hash & ~RECORD_INDEX_MASK) | index;
}

static bool
put_in(struct record_bucket *b, uint32_t slot)
{
    uint32_t free = record_match(b, 0);

    if (free) {
        b->slot[__builtin_ctz(free)] = slot;
    }
    return free;
}

static void
release(struct record_table *t, uint32_t index)
{
    struct record_hot *h = &t->v.hot[index];

    h->out = RECORD_OUT_FREE; /* a guess made before finds nothing here */
    h->last = t->free;
    t->free = index;
    t->n--;
}

/* Moves one of the slots of the full bucket 'b' to its other bucket. */
static bool
make_room(struct record_table *t, uint32_t b, unsigned *way)
{
    const struct record_bucket *full = &t->v.buckets[b];

    for (unsigned i = 0; i < RECORD_WAYS; i++) {
        uint32_t slot = full->slot[i];
        if (put_in(&t->v.buckets[alternate(b, slot, t->v.mask)], slot)) {
            *way = i;
            return true;
        }
    }
    return false;
}

/* At LOAD_MAX it is about never that one has to leave. */
static void
put(struct recording *r, struct record_table *t, uint32_t hash, uint32_t index, int64_t now)
{
    uint32_t b = hash & t->v.mask, b2 = alternate(b, hash, t->v.mask);
    uint32_t slot = slot_of(hash, index), gone;
    unsigned way = hash >> 8 & (RECORD_WAYS - 1);

    if (put_in(&t->v.buckets[b], slot) || put_in(&t->v.buckets[b2], slot)) {
        return;
    }
    if (make_room(t, b, &way)) {
        t->v.buckets[b].slot[way] = slot;
        return;
    }
    gone = t->v.buckets[b].slot[way] & RECORD_INDEX_MASK;
    tell_or_lose(r, t, &t->v.hot[gone], now, RECORD_END_RESOURCES);
    atomic_fetch_add_explicit(&r->pushed_out, 1, memory_order_relaxed);
    release(t, gone);
    t->v.buckets[b].slot[way] = slot;
}

/* The hashes of a bucket's records come near. */
static void
prefetch_hashes(const struct record_table *t, const struct record_bucket *b)
{
    for (unsigned i = 0; i < RECORD_WAYS; i++) {
        if (b->slot[i]) {
            __builtin_prefetch(&t->v.hot[b->slot[i] & RECORD_INDEX_MASK]);
        }
    }
}

static void
move_old(struct recording *r, struct record_table *t, uint32_t n, int64_t now)
{
    for (; n && t->old_next <= t->old_mask; n--, t->old_next++) {
        struct record_bucket *b = &t->old[t->old_next];

        prefetch_hashes(t, b);
        for (unsigned i = 0; i < RECORD_WAYS; i++) {
            uint32_t index = b->slot[i] & RECORD_INDEX_MASK;
            if (b->slot[i]) {
                b->slot[i] = 0;
                put(r, t, record_id_hash(t->v.hot[index].id), index, now);
            }
        }
    }
    if (t->old_next > t->old_mask) {
        buckets_destroy(t->old, t->old_mask);
        t->old = NULL;
    }
}

static void
grow(struct recording *r, struct record_table *t, int64_t now)
{
    uint32_t n = 2 * (t->v.mask + 1);
    struct record_bucket *new = buckets_create(n);

    if (new) {
        if (t->old) {
            move_old(r, t, UINT32_MAX, now);
        }
        t->old = t->v.buckets;
        t->old_mask = t->v.mask;
        t->old_next = 0;
        t->v.buckets = new;
        t->v.mask = n - 1;
    }
}

/* --- finding ---------------------------------------------------------------------------- */

static struct record_bucket *
look_in(const struct record_table *t, struct record_bucket *buckets, uint32_t mask, __m128i id,
        uint32_t hash, unsigned *way)
{
    uint32_t b = hash & mask;

    for (unsigned turn = 0; turn < 2; turn++, b = alternate(b, hash, mask)) {
        for (uint32_t m = record_match(&buckets[b], hash); m; m &= m - 1) {
            *way = __builtin_ctz(m);
            if (record_is(&t->v.hot[buckets[b].slot[*way] & RECORD_INDEX_MASK], id)) {
                return &buckets[b];
            }
        }
    }
    return NULL;
}

static struct record_bucket *
look(const struct record_table *t, __m128i id, unsigned *way)
{
    uint32_t hash = record_id_hash(id);
    struct record_bucket *b = look_in(t, t->v.buckets, t->v.mask, id, hash, way);

    return b || !t->old ? b : look_in(t, t->old, t->old_mask, id, hash, way);
}

struct record_hot *
record_find(const struct record_table *t, __m128i id)
{
    unsigned way;
    struct record_bucket *b = look(t, id, &way);

    return b ? &t->v.hot[b->slot[way] & RECORD_INDEX_MASK] : NULL;
}

uint32_t
record_index(const struct record_table *t, const struct record_hot *h)
{
    return h - t->v.hot;
}

struct record_hot *
record_at(const struct record_table *t, uint32_t index, uint32_t hash)
{
    struct record_hot *h = &t->v.hot[index];

    return index < t->fresh && h->out != RECORD_OUT_FREE && record_id_hash(h->id) == hash ? h
                                                                                          : NULL;
}

static void
leave(struct record_table *t, uint32_t index)
{
    unsigned way;
    struct record_bucket *b = look(t, t->v.hot[index].id, &way);

    if (b) {
        b->slot[way] = 0;
    }
    release(t, index);
}

/* Ms between two times, low bits.  None if 'then' is later: a worker may have looked at the
 * clock after the collector. */
static uint32_t
since(uint32_t now, uint32_t then)
{
    uint32_t ms = now - then;

    return (int32_t)ms < 0 ? 0 : ms;
}

/* The oldest of the next few leaves. */
static void
push_out_one(struct recording *r, struct record_table *t, int64_t now)
{
    uint32_t oldest = NONE, age = 0;

    for (unsigned looks = 0; looks < LOOKS || oldest == NONE; t->hand++, looks++) {
        const struct record_hot *h;

        t->hand = t->hand < t->fresh ? t->hand : 0;
        h = &t->v.hot[t->hand];
        if (h->out != RECORD_OUT_FREE && (oldest == NONE || since(now, h->last) > age)) {
            oldest = t->hand;
            age = since(now, h->last);
        }
    }
    tell_or_lose(r, t, &t->v.hot[oldest], now, RECORD_END_RESOURCES);
    atomic_fetch_add_explicit(&r->pushed_out, 1, memory_order_relaxed);
    leave(t, oldest);
}

/* The first 'bytes' get memory, in huge pages if they are many. */
static bool
memory_to(void *from, size_t bytes)
{
    if (mprotect(from, bytes, PROT_READ | PROT_WRITE)) {
        return false;
    }
    if (bytes > HUGE_FROM) {
        madvise((char *)from + HUGE_FROM, bytes - HUGE_FROM, MADV_HUGEPAGE);
    }
    return true;
}

/* More of the records get memory: no more than is used, even where it is
 * locked. */
static bool
extend(struct record_table *t)
{
    uint32_t n = t->capacity ? 2 * t->capacity : RECORDS_MIN;

    n = n < t->max ? n : t->max;
    if (!memory_to(t->v.hot, n * sizeof *t->v.hot) ||
        !memory_to(t->v.cold, n * sizeof *t->v.cold)) {
        return false;
    }
    t->capacity = n;
    return true;
}

struct record_hot *
record_get(struct recording *r, struct record_table *t, const struct key_wide *k, __m128i id,
           int64_t now)
{
    struct record_hot *h = record_find(t, id);
    struct record_cold *c;
    uint32_t index;

    if (h) {
        return h;
    }
    if (t->n >= (t->v.mask + 1) * LOAD_MAX) {
        grow(r, t, now);
    }
    if (t->old) {
        move_old(r, t, MOVES, now);
    }
    if (t->n == t->max) {
        push_out_one(r, t, now);
    } else if (t->free == NONE && t->fresh == t->capacity && !extend(t)) {
        if (!t->n) {
            return NULL;
        }
        push_out_one(r, t, now);
    }
    if (t->free == NONE) {
        index = t->fresh++;
    } else {
        index = t->free;
        t->free = t->v.hot[index].last;
    }
    t->n++;
    h = &t->v.hot[index];
    c = &t->v.cold[index];
    *h = (struct record_hot){.id = id, .last = now, .out = RECORD_OUT_ASK};
    memset(c, 0, offsetof(struct record_cold, ip6));
    c->key = k->key;
    c->first = now;
    if (record_is_wide(&k->key)) {
        use_more(c);
        c->ip6 = k->ip6;
    }
    put(r, t, record_id_hash(id), index, now);
    return h;
}

/* --- time --------------------------------------------------------------------------------- */

/* Looks at one; false: there is no room for what ends. */
static bool
look_at(struct recording *r, struct record_table *t, uint32_t index, int64_t now, uint32_t idle,
        uint32_t active)
{
    struct record_hot *h = &t->v.hot[index];
    const struct record_cold *c = &t->v.cold[index];
    uint32_t silent = since(now, h->last);
    bool closed = h->tcp_flags & TCP_FIN_RST && silent >= CLOSED_MS && silent < idle;

    if (h->out == RECORD_OUT_FREE) {
        return true;
    }
    if (silent >= idle || closed) {
        if (record_packets(c, h) &&
            !tell(r, t, h, now, closed ? RECORD_END_DETECTED : RECORD_END_IDLE)) {
            return false;
        }
        leave(t, index);
    } else if (since(now, c->first) >= active && record_packets(c, h)) {
        if (!tell(r, t, h, now, RECORD_END_ACTIVE)) {
            return false;
        }
        begin_again(t, h);
    }
    return true;
}

void
record_sweep(struct recording *r, struct record_table *t, int64_t now, bool all)
{
    uint32_t idle = atomic_load_explicit(&r->idle_ms, memory_order_relaxed);
    uint32_t active = atomic_load_explicit(&r->active_ms, memory_order_relaxed);
    uint32_t round = (idle < active ? idle : active) / 4;
    uint64_t looks = t->fresh;

    round = round < ROUND_MIN_MS ? ROUND_MIN_MS : round > ROUND_MAX_MS ? ROUND_MAX_MS : round;
    if (now - t->swept < (all ? round : SWEEP_STEP_MS)) {
        return;
    }
    if (!all) {
        looks = 1 + looks * (now - t->swept) / round;
        looks = looks < t->fresh ? looks : t->fresh;
    }
    t->swept = now;
    for (; looks && t->n; looks--, t->hand++) {
        t->hand = t->hand < t->fresh ? t->hand : 0;
        __builtin_prefetch(&t->v.hot[t->hand + SWEEP_AHEAD]); /* harmless beyond the end */
        __builtin_prefetch(&t->v.cold[t->hand + SWEEP_AHEAD]);
        if (!look_at(r, t, t->hand, now, idle, active)) {
            break;
        }
    }
    record_flush(r, t);
    if (!t->n) {
        /* From the start again: memory near the front is there already. */
        t->fresh = t->hand = 0;
        t->free = NONE;
    }
}

/* --- life ------------------------------------------------------------------------------------ */

static void
destroy(struct record_table *t)
{
    buckets_destroy(t->v.buckets, t->v.mask);
    if (t->old) {
        buckets_destroy(t->old, t->old_mask);
    }
    unreserve(t->v.hot, t->max * sizeof *t->v.hot);
    unreserve(t->v.cold, t->max * sizeof *t->v.cold);
    free(t);
}

struct record_table *
record_table_create(uint32_t max)
{
    struct record_table *t = calloc(1, sizeof *t);

    if (!t) {
        return NULL;
    }
    t->max = max;
    t->free = NONE;
    t->v.mask = BUCKETS_MIN - 1;
    t->v.buckets = buckets_create(BUCKETS_MIN);
    t->v.hot = reserve_aligned(max * sizeof *t->v.hot, PROT_NONE);
    t->v.cold = reserve_aligned(max * sizeof *t->v.cold, PROT_NONE);
    if (!t->v.buckets || !t->v.hot || !t->v.cold) {
        destroy(t);
        return NULL;
    }
    return t;
}

void
record_table_end(struct recording *r, struct record_table *t, int64_t now, enum record_end end)
{
    for (uint32_t i = 0; i < t->fresh; i++) {
        if (t->v.hot[i].out != RECORD_OUT_FREE) {
            tell_or_lose(r, t, &t->v.hot[i], now, end);
        }
    }
    record_flush(r, t);
    destroy(t);
}

uint32_t
record_table_count(const struct record_table *t)
{
    return t->n;
}

uint32_t
record_table_max(const struct record_table *t)
{
    return t->max;
}

struct record_table *
record_table_next(const struct record_table *t)
{
    return t->next;
}

void
record_table_set_next(struct record_table *t, struct record_table *next)
{
    t->next = next;
}
