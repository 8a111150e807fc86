/* record: tables of records; see record.h. */
#include "record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NONE UINT32_MAX
#define BUCKETS_MIN 16u
#define RECORDS_MIN 64u
#define MOVES 2u          /* old buckets an insertion moves */
#define LOOKS 32u         /* records looked at for the oldest, when one has to leave */
#define SWEEP_STEP_MS 4   /* between two looks at some */
#define ROUND_MIN_MS 250u /* a round of looks at all, at least and at most */
#define ROUND_MAX_MS 4000u
#define CLOSED_MS 1000u /* of silence after TCP's FIN or RST: it was the last */
#define HUGE_FROM ((size_t)2 << 20)
#define TCP_FIN_RST 0x005

enum { FREE = 0x80, IN_USE = 0 }; /* record.end */

struct record_table {
    struct record_view v; /* records: addresses for 'max', memory for 'capacity' */
    uint32_t max, capacity, n;
    uint32_t fresh;           /* from here on never used */
    uint32_t free;            /* list through 'first'; NONE */
    uint32_t hand;            /* next to look at */
    struct exact_bucket *old; /* being moved from; NULL */
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

/* A copy of it on its way; NULL: no room. */
static struct record *
tell_next(struct recording *r, struct record_table *t, const struct record *rec, int64_t now,
          enum record_end end)
{
    struct record *to;

    if (t->block && t->block->n == RECORD_BLOCK) {
        record_flush(r, t);
    }
    if (!have_room(r, t, now)) {
        return NULL;
    }
    t->block->now = now;
    to = &t->block->records[t->block->n++];
    *to = *rec;
    to->end = end;
    return to;
}

/* Those that a meter dropped; from now on they are not the record's. */
static bool
tell_metered(struct recording *r, struct record_table *t, struct record *rec, int64_t now,
             enum record_end end)
{
    struct record *to = tell_next(r, t, rec, now, end);

    if (!to) {
        return false;
    }
    to->packets = rec->metered;
    to->bytes = rec->metered_bytes;
    to->status = RECORD_DROPPED;
    to->drop = RECORD_DROP_METER;
    to->out = ENGINE_PORTS_MAX;
    rec->packets -= rec->metered;
    rec->bytes -= rec->metered_bytes;
    rec->metered = rec->metered_bytes = 0;
    return true;
}

/* False: no room. */
static bool
tell(struct recording *r, struct record_table *t, struct record *rec, int64_t now,
     enum record_end end)
{
    if (__builtin_expect(rec->metered, 0) && !tell_metered(r, t, rec, now, end)) {
        return false;
    }
    if (rec->packets && !tell_next(r, t, rec, now, end)) {
        return false;
    }
    if (t->block && t->block->n == RECORD_BLOCK) {
        record_flush(r, t);
    }
    return true;
}

static void
tell_or_lose(struct recording *r, struct record_table *t, struct record *rec, int64_t now,
             enum record_end end)
{
    if (rec->packets && !tell(r, t, rec, now, end)) {
        atomic_fetch_add_explicit(&r->lost_records, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&r->lost_packets, rec->packets, memory_order_relaxed);
        atomic_fetch_add_explicit(&r->lost_bytes, rec->bytes, memory_order_relaxed);
    }
}

/* The next period of a flow that goes on. */
static void
begin_again(struct record *rec)
{
    rec->packets = rec->bytes = rec->metered = rec->metered_bytes = 0;
    rec->tcp_flags = 0;
}

void
record_split(struct recording *r, struct record_table *t, struct record *rec, int64_t now,
             enum record_end end)
{
    tell_or_lose(r, t, rec, now, end);
    begin_again(rec);
    rec->rule_out = rec->rule_in = 0;
    rec->drop = 0;
}

/* --- buckets ------------------------------------------------------------------------ */

static struct exact_bucket *
buckets_create(uint32_t n)
{
    size_t bytes = n * sizeof(struct exact_bucket);
    struct exact_bucket *b;

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
buckets_destroy(struct exact_bucket *b, uint32_t mask)
{
    size_t bytes = ((size_t)mask + 1) * sizeof *b;

    if (b && bytes >= HUGE_FROM) {
        unreserve(b, bytes);
    } else {
        free(b);
    }
}

static uint32_t
alternate(uint32_t bucket, uint32_t hash, uint32_t mask)
{
    return (bucket ^ ((hash >> 16) * 0x5bd1e995u | 1)) & mask;
}

static void
fill(struct exact_bucket *b, unsigned way, uint32_t hash, uint32_t index)
{
    b->tag[way] = hash >> 16;
    b->low[way] = hash;
    b->index[way] = index;
}

static bool
put_in(struct exact_bucket *b, uint32_t hash, uint32_t index)
{
    uint32_t free = exact_match(b, 0);

    if (free) {
        fill(b, __builtin_ctz(free) / 2, hash, index);
    }
    return free;
}

static void
release(struct record_table *t, uint32_t index)
{
    struct record *rec = &t->v.records[index];

    rec->end = FREE;
    rec->key.in_port = UINT16_MAX; /* a guess made before finds nothing here */
    rec->first = t->free;
    t->free = index;
    t->n--;
}

/* Moves one of the slots of the full bucket 'b' to its other bucket. */
static bool
make_room(struct record_table *t, uint32_t b, unsigned *way)
{
    struct exact_bucket *full = &t->v.buckets[b];

    for (unsigned i = 0; i < EXACT_WAYS; i++) {
        uint32_t hash = (uint32_t)full->tag[i] << 16 | full->low[i];
        if (put_in(&t->v.buckets[alternate(b, hash, t->v.mask)], hash, full->index[i])) {
            *way = i;
            return true;
        }
    }
    return false;
}

/* At a load of one half it is about never that one has to leave. */
static void
put(struct recording *r, struct record_table *t, uint32_t hash, uint32_t index, int64_t now)
{
    uint32_t b = hash & t->v.mask, b2 = alternate(b, hash, t->v.mask);
    unsigned way = hash >> 8 & (EXACT_WAYS - 1);
    uint32_t gone;

    if (put_in(&t->v.buckets[b], hash, index) || put_in(&t->v.buckets[b2], hash, index)) {
        return;
    }
    if (make_room(t, b, &way)) {
        fill(&t->v.buckets[b], way, hash, index);
        return;
    }
    gone = t->v.buckets[b].index[way];
    tell_or_lose(r, t, &t->v.records[gone], now, RECORD_END_RESOURCES);
    atomic_fetch_add_explicit(&r->pushed_out, 1, memory_order_relaxed);
    release(t, gone);
    fill(&t->v.buckets[b], way, hash, index);
}

static void
move_old(struct recording *r, struct record_table *t, uint32_t n, int64_t now)
{
    for (; n && t->old_next <= t->old_mask; n--, t->old_next++) {
        struct exact_bucket *b = &t->old[t->old_next];
        for (unsigned i = 0; i < EXACT_WAYS; i++) {
            if (b->tag[i]) {
                uint32_t hash = (uint32_t)b->tag[i] << 16 | b->low[i];
                b->tag[i] = 0;
                put(r, t, hash, b->index[i], now);
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
    struct exact_bucket *new = buckets_create(n);

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

static struct exact_bucket *
look_in(const struct record_table *t, struct exact_bucket *buckets, uint32_t mask,
        const struct key_wide *k, uint32_t hash, unsigned *way)
{
    uint32_t b = hash & mask;
    bool wide = record_is_wide(&k->key);

    for (unsigned turn = 0; turn < 2; turn++, b = alternate(b, hash, mask)) {
        for (uint32_t m = exact_match(&buckets[b], hash); m; m &= m - 1, m &= m - 1) {
            *way = __builtin_ctz(m) / 2;
            if (record_is(&t->v.records[buckets[b].index[*way]], k, wide)) {
                return &buckets[b];
            }
        }
    }
    return NULL;
}

static struct exact_bucket *
look(const struct record_table *t, const struct key_wide *k, uint32_t hash, unsigned *way)
{
    struct exact_bucket *b = look_in(t, t->v.buckets, t->v.mask, k, hash, way);

    return b || !t->old ? b : look_in(t, t->old, t->old_mask, k, hash, way);
}

struct record *
record_find(const struct record_table *t, const struct key_wide *k, uint32_t hash)
{
    unsigned way;
    struct exact_bucket *b = look(t, k, hash, &way);

    return b ? &t->v.records[b->index[way]] : NULL;
}

uint32_t
record_index(const struct record_table *t, const struct record *rec)
{
    return rec - t->v.records;
}

struct record *
record_at(const struct record_table *t, uint32_t index, uint32_t hash)
{
    struct record *rec = &t->v.records[index];

    return index < t->fresh && rec->end == IN_USE && rec->hash == hash ? rec : NULL;
}

static void
leave(struct record_table *t, uint32_t index)
{
    struct record *rec = &t->v.records[index];
    struct key_wide k = {.key = rec->key, .ip6 = rec->ip6};
    unsigned way;
    struct exact_bucket *b = look(t, &k, rec->hash, &way);

    if (b) {
        b->tag[way] = 0;
    }
    release(t, index);
}

/* The oldest of the next few leaves. */
static void
push_out_one(struct recording *r, struct record_table *t, int64_t now)
{
    uint32_t oldest = NONE, age = 0;

    for (unsigned looks = 0; looks < LOOKS || oldest == NONE; t->hand++, looks++) {
        struct record *rec;

        t->hand = t->hand < t->fresh ? t->hand : 0;
        rec = &t->v.records[t->hand];
        if (rec->end != FREE && (oldest == NONE || (uint32_t)now - rec->last > age)) {
            oldest = t->hand;
            age = (uint32_t)now - rec->last;
        }
    }
    tell_or_lose(r, t, &t->v.records[oldest], now, RECORD_END_RESOURCES);
    atomic_fetch_add_explicit(&r->pushed_out, 1, memory_order_relaxed);
    leave(t, oldest);
}

/* More of the records get memory: no more than is used, even where it is
 * locked. */
static bool
extend(struct record_table *t)
{
    uint32_t n = t->capacity ? 2 * t->capacity : RECORDS_MIN;
    size_t bytes;

    n = n < t->max ? n : t->max;
    bytes = n * sizeof *t->v.records;
    if (mprotect(t->v.records, bytes, PROT_READ | PROT_WRITE)) {
        return false;
    }
    if (bytes > 2 * HUGE_FROM) {
        madvise((char *)t->v.records + HUGE_FROM, bytes - HUGE_FROM, MADV_HUGEPAGE);
    }
    t->capacity = n;
    return true;
}

struct record *
record_get(struct recording *r, struct record_table *t, const struct key_wide *k, uint32_t hash,
           int64_t now)
{
    struct record *rec = record_find(t, k, hash);
    uint32_t index;

    if (rec) {
        return rec;
    }
    if (t->n >= (t->v.mask + 1) * (EXACT_WAYS / 2)) {
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
        t->free = t->v.records[index].first;
    }
    t->n++;
    rec = &t->v.records[index];
    memset(rec, 0, sizeof *rec);
    rec->key = k->key;
    if (record_is_wide(&k->key)) {
        rec->ip6 = k->ip6;
    }
    rec->hash = hash;
    rec->first = rec->last = now;
    put(r, t, hash, index, now);
    return rec;
}

/* --- time --------------------------------------------------------------------------------- */

/* Looks at one; false: there is no room for what ends. */
static bool
look_at(struct recording *r, struct record_table *t, uint32_t index, int64_t now, uint32_t idle,
        uint32_t active)
{
    struct record *rec = &t->v.records[index];
    uint32_t silent = (uint32_t)now - rec->last;
    bool closed = rec->tcp_flags & TCP_FIN_RST && silent >= CLOSED_MS && silent < idle;

    if (rec->end == FREE) {
        return true;
    }
    if (silent >= idle || closed) {
        if (rec->packets && !tell(r, t, rec, now, closed ? RECORD_END_DETECTED : RECORD_END_IDLE)) {
            return false;
        }
        leave(t, index);
    } else if (rec->packets && (uint32_t)now - rec->first >= active) {
        if (!tell(r, t, rec, now, RECORD_END_ACTIVE)) {
            return false;
        }
        begin_again(rec);
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

struct record_table *
record_table_create(uint32_t max)
{
    struct record_table *t = calloc(1, sizeof *t);
    size_t bytes = max * sizeof *t->v.records;

    if (!t) {
        return NULL;
    }
    t->max = max;
    t->free = NONE;
    t->v.mask = BUCKETS_MIN - 1;
    t->v.buckets = buckets_create(BUCKETS_MIN);
    t->v.records = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    t->v.records = t->v.records == MAP_FAILED ? NULL : t->v.records;
    if (!t->v.buckets || !t->v.records) {
        buckets_destroy(t->v.buckets, t->v.mask);
        unreserve(t->v.records, bytes);
        free(t);
        return NULL;
    }
    return t;
}

void
record_table_end(struct recording *r, struct record_table *t, int64_t now, enum record_end end)
{
    for (uint32_t i = 0; i < t->fresh; i++) {
        if (t->v.records[i].end != FREE) {
            tell_or_lose(r, t, &t->v.records[i], now, end);
        }
    }
    record_flush(r, t);
    buckets_destroy(t->v.buckets, t->v.mask);
    if (t->old) {
        buckets_destroy(t->old, t->old_mask);
    }
    unreserve(t->v.records, t->max * sizeof *t->v.records);
    free(t);
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
