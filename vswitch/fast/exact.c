/* exact: see exact.h. */
#include "exact.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NONE UINT32_MAX
#define BUCKETS_MIN 16u
#define ENTRIES_MIN 64u                /* a page's worth */
#define MOVES 2u                       /* old buckets an insertion moves; 1 keeps up */
#define SETTLES 4u                     /* old buckets a call of exact_settle() moves */
#define LOOKS 128u                     /* entries looked at for one to replace */
#define AGE_MS 10000                   /* a round of exact_age() */
#define AGE_STEP_MS 16                 /* between two looks */
#define AGE_MOST 256u                  /* entries a look takes at most */
#define BUCKETS_SMALL (HUGE_PAGE / 16) /* bytes of those that malloc() makes */

static struct exact_bucket no_buckets[1];

static size_t
entry_size(const struct exact *x)
{
    return x->wide ? sizeof(struct exact_wide) : sizeof(struct exact_entry);
}

static struct exact_entry *
at(const struct exact *x, uint32_t index)
{
    return exact_at(x, index, x->wide);
}

/* --- memory ---------------------------------------------------------------- */

void *
reserve_aligned(size_t bytes, int prot)
{
    char *p =
        mmap(NULL, bytes + HUGE_PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    size_t before = -(uintptr_t)p % HUGE_PAGE, page = 4096;

    if (p == MAP_FAILED) {
        return NULL;
    }
    bytes = (bytes + page - 1) / page * page;
    if (before) {
        munmap(p, before);
    }
    munmap(p + before + bytes, HUGE_PAGE - before);
    return p + before;
}

/* Small tables share pages with others; large ones cost as they fill, and no
 * time to clear. */
static struct exact_bucket *
buckets_create(uint32_t n)
{
    size_t bytes = n * sizeof(struct exact_bucket);
    struct exact_bucket *b;

    if (bytes < BUCKETS_SMALL) {
        b = aligned_alloc(64, bytes);
        return b ? memset(b, 0, bytes) : NULL;
    }
    if (bytes < HUGE_PAGE) {
        return reserve(bytes);
    }
    b = reserve_aligned(bytes, PROT_READ | PROT_WRITE);
    if (b) {
        madvise(b, bytes, MADV_HUGEPAGE);
    }
    return b;
}

static void
buckets_destroy(struct exact_bucket *b, uint32_t mask)
{
    size_t bytes = ((size_t)mask + 1) * sizeof *b;

    if (b == no_buckets) {
        return;
    }
    if (bytes < BUCKETS_SMALL) {
        free(b);
    } else {
        unreserve(b, bytes);
    }
}

/* Makes the first 'n' entries usable.  Addresses for all of them are taken at
 * once, so that entries stay where they are; without access, so that this
 * costs nothing even where memory is locked. */
static bool
entries_extend(struct exact *x, uint32_t n)
{
    size_t want, size = entry_size(x);

    if (!x->entries) {
        x->entries = reserve_aligned(x->max * size, PROT_NONE);
        if (!x->entries) {
            return false;
        }
    }
    n = n > x->max ? x->max : n;
    want = n * size;
    if (mprotect(x->entries, want, PROT_READ | PROT_WRITE)) {
        return false;
    }
    if (want > HUGE_PAGE) {
        /* The kernel can make one of the small pages in the front, too. */
        madvise(x->entries, want, MADV_HUGEPAGE);
    }
    x->capacity = n;
    return true;
}

void
exact_init(struct exact *x, bool wide, uint32_t max,
           void (*verdict_free)(void *aux, struct verdict *), void *aux)
{
    *x = (struct exact){
        .buckets = no_buckets,
        .wide = wide,
        .max = max,
        .free = NONE,
        .aged = INT64_MAX, /* the clock starts with the first look */
        .verdict_free = verdict_free,
        .aux = aux,
    };
}

/* --- slots of buckets -------------------------------------------------------- */

static uint32_t
alternate(uint32_t bucket, uint32_t tag, uint32_t mask)
{
    /* Its own inverse; odd, so that the two differ. */
    return (bucket ^ (tag * 0x5bd1e995u | 1)) & mask;
}

struct place {
    struct exact_bucket *bucket;
    unsigned way;
};

static bool
look_in(const struct exact *x, struct exact_bucket *buckets, uint32_t mask, const struct key *k,
        uint32_t hash, struct place *p)
{
    uint32_t bucket = hash & mask;

    for (unsigned turn = 0; turn < 2; turn++, bucket = alternate(bucket, hash >> 16, mask)) {
        struct exact_bucket *b = &buckets[bucket];
        for (uint32_t m = exact_match(b, hash); m; m &= m - 1, m &= m - 1) {
            unsigned way = __builtin_ctz(m) / 2;
            if (exact_is(at(x, b->index[way]), k, x->wide)) {
                *p = (struct place){b, way};
                return true;
            }
        }
    }
    return false;
}

static bool
look(const struct exact *x, const struct key *k, uint32_t hash, struct place *p)
{
    return look_in(x, x->buckets, x->mask, k, hash, p) ||
           (x->old && look_in(x, x->old, x->old_mask, k, hash, p));
}

struct exact_entry *
exact_find(const struct exact *x, const struct key *k, uint32_t hash)
{
    struct place p;

    return look(x, k, hash, &p) ? at(x, p.bucket->index[p.way]) : NULL;
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

/* Moves one of the slots of the full bucket 'b' to its other bucket. */
static bool
make_room(struct exact *x, uint32_t b, unsigned *way)
{
    struct exact_bucket *full = &x->buckets[b];

    for (unsigned i = 0; i < EXACT_WAYS; i++) {
        uint32_t hash = (uint32_t)full->tag[i] << 16 | full->low[i];
        if (put_in(&x->buckets[alternate(b, full->tag[i], x->mask)], hash, full->index[i])) {
            *way = i;
            return true;
        }
    }
    return false;
}

static void
release(struct exact *x, uint32_t index)
{
    struct exact_entry *e = at(x, index);

    if (e->kind & ENTRY_VERDICT) {
        x->verdict_free(x->aux, e->verdict);
    }
    e->kind = ENTRY_FREE;
    e->gen = x->free;
    x->free = index;
    x->n--;
}

/* At a load of one half it is rare that neither a slot is free in one of the
 * two buckets nor one step from there; then an entry leaves. */
static void
put(struct exact *x, uint32_t hash, uint32_t index)
{
    uint32_t b = hash & x->mask, b2 = alternate(b, hash >> 16, x->mask);
    unsigned way;

    if (put_in(&x->buckets[b], hash, index) || put_in(&x->buckets[b2], hash, index)) {
        return;
    }
    if (!make_room(x, b, &way)) {
        if (make_room(x, b2, &way)) {
            b = b2;
        } else {
            way = hash >> 8 & (EXACT_WAYS - 1);
            release(x, x->buckets[b].index[way]);
            x->evicted++;
        }
    }
    fill(&x->buckets[b], way, hash, index);
}

/* Returns the hash of e's key, which goes to '*k'. */
static uint32_t
entry_key(const struct exact *x, const struct exact_entry *e, struct key_wide *k)
{
    k->key = e->key;
    if (!x->wide) {
        return key_hash(&k->key);
    }
    k->ip6 = ((const struct exact_wide *)e)->ip6;
    return key_hash_wide(k);
}

static void
remove_entry(struct exact *x, uint32_t index)
{
    struct key_wide k;
    struct place p;
    uint32_t hash = entry_key(x, at(x, index), &k);

    if (look(x, &k.key, hash, &p)) {
        p.bucket->tag[p.way] = 0;
    }
    release(x, index);
}

/* --- growth -------------------------------------------------------------------- */

static void
move_old(struct exact *x, uint32_t n)
{
    for (; n && x->old_next <= x->old_mask; n--, x->old_next++) {
        struct exact_bucket *b = &x->old[x->old_next];
        for (unsigned i = 0; i < EXACT_WAYS; i++) {
            if (b->tag[i]) {
                uint32_t tag = b->tag[i];
                b->tag[i] = 0;
                put(x, tag << 16 | b->low[i], b->index[i]);
            }
        }
    }
    if (x->old_next > x->old_mask) {
        buckets_destroy(x->old, x->old_mask);
        x->old = NULL;
    }
}

void
exact_settle(struct exact *x)
{
    if (x->old) {
        move_old(x, SETTLES);
    }
}

/* Room for one entry more at a load of one half, if there is memory: without
 * it the buckets get fuller. */
static void
grow(struct exact *x)
{
    uint32_t n = x->buckets == no_buckets ? BUCKETS_MIN : 2 * (x->mask + 1);
    struct exact_bucket *new = buckets_create(n);

    if (!new) {
        return;
    }
    if (x->buckets != no_buckets) {
        if (x->old) {
            move_old(x, UINT32_MAX);
        }
        x->old = x->buckets;
        x->old_mask = x->mask;
        x->old_next = 0;
    }
    x->buckets = new;
    x->mask = n - 1;
}

static bool
evict_one(struct exact *x)
{
    struct exact_entry *e;
    unsigned looks = 0;

    if (!x->n) {
        return false;
    }
    for (;; x->hand++) {
        x->hand = x->hand < x->fresh ? x->hand : 0;
        e = at(x, x->hand);
        if (e->kind == ENTRY_FREE) {
            continue;
        }
        if (!e->used || !exact_is_current(e) || ++looks == LOOKS) {
            break;
        }
        e->used = 0;
    }
    remove_entry(x, x->hand++);
    x->evicted++;
    return true;
}

/* An entry that nobody uses; NONE. */
static uint32_t
take_entry(struct exact *x)
{
    uint32_t index;

    if (x->n == x->max && !evict_one(x)) {
        return NONE;
    }
    if (x->free == NONE && x->fresh == x->capacity &&
        !entries_extend(x, x->capacity ? 2 * x->capacity : ENTRIES_MIN) && !evict_one(x)) {
        return NONE;
    }
    x->n++;
    if (x->free == NONE) {
        return x->fresh++;
    }
    index = x->free;
    x->free = at(x, index)->gen;
    return index;
}

struct exact_entry *
exact_insert(struct exact *x, const struct key *k, uint32_t hash)
{
    struct exact_entry *e = exact_find(x, k, hash);
    uint32_t index;

    if (e) {
        if (e->kind & ENTRY_VERDICT) {
            x->verdict_free(x->aux, e->verdict);
        }
        e->kind = ENTRY_PLAIN;
        return e;
    }
    if (!x->max) {
        return NULL;
    }
    if (x->buckets == no_buckets || x->n >= (x->mask + 1) * (EXACT_WAYS / 2)) {
        grow(x);
        if (x->buckets == no_buckets) {
            return NULL;
        }
    }
    if (x->old) {
        move_old(x, MOVES);
    }
    index = take_entry(x);
    if (index == NONE) {
        return NULL;
    }
    e = at(x, index);
    e->key = *k;
    if (x->wide) {
        ((struct exact_wide *)e)->ip6 = ((const struct key_wide *)k)->ip6;
    }
    e->kind = ENTRY_PLAIN;
    e->used = 0; /* so that flows of one packet are the first to leave */
    put(x, hash, index);
    return e;
}

/* --- entries that are not used --------------------------------------------------- */

void
exact_age(struct exact *x, int64_t now)
{
    uint64_t looks;

    if (now - x->aged < AGE_STEP_MS || now < x->aged) {
        x->aged = now < x->aged ? now : x->aged;
        return;
    }
    looks = 1 + (uint64_t)x->fresh * (now - x->aged) / AGE_MS;
    looks = looks < AGE_MOST ? looks : AGE_MOST;
    /* After a long rest, too: the second look at an entry would be its last. */
    looks = looks < x->fresh ? looks : x->fresh;
    x->aged = now;
    for (; looks && x->n; looks--, x->hand++) {
        struct exact_entry *e;

        x->hand = x->hand < x->fresh ? x->hand : 0;
        e = at(x, x->hand);
        if (e->kind == ENTRY_FREE) {
            continue;
        }
        if (e->used && exact_is_current(e)) {
            e->used = 0;
        } else {
            remove_entry(x, x->hand);
        }
    }
}

void
exact_done(struct exact *x)
{
    for (uint32_t i = 0; i < x->fresh; i++) {
        if (at(x, i)->kind != ENTRY_FREE) {
            release(x, i);
        }
    }
    buckets_destroy(x->buckets, x->mask);
    if (x->old) {
        buckets_destroy(x->old, x->old_mask);
    }
    unreserve(x->entries, (size_t)x->max * entry_size(x));
    exact_init(x, x->wide, x->max, x->verdict_free, x->aux);
}

void
exact_trim(struct exact *x, uint32_t keep)
{
    struct exact old = *x;

    if (x->capacity <= keep || !x->capacity) {
        return;
    }
    /* A small cache of the same addresses would have to move entries within
     * them: simpler to move them to new ones. */
    exact_init(x, x->wide, x->max, x->verdict_free, x->aux);
    x->evicted = old.evicted;
    x->aged = old.aged;
    for (uint32_t i = 0; i < old.fresh && x->n < keep; i++) {
        struct exact_entry *from = at(&old, i), *to;
        struct key_wide k;
        uint32_t hash;

        if (from->kind == ENTRY_FREE || !from->used || !exact_is_current(from)) {
            continue;
        }
        hash = entry_key(x, from, &k);
        to = exact_insert(x, &k.key, hash);
        if (to) {
            *to = *from;
            to->used = 0;
            from->kind = ENTRY_PLAIN; /* the verdict has moved */
        }
    }
    exact_done(&old);
}
