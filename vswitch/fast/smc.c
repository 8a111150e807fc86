/* smc: see smc.h. */
#include "smc.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BUCKETS_MIN 16u
#define BUCKETS_KEPT 64u   /* survive smc_trim(), and so do ... */
#define ENTRIES_KEPT 128u  /* entries */
#define ENTRIES_MIN 32u    /* a page's worth */
#define BUCKETS_SMALL 256u /* as many and fewer share pages with others */
#define GROWTH 4u          /* seldom, for keys that are not met between two turns are lost */
#define BUCKETS_FREE 4096u /* to grow beyond, keys must have been met again */
#define TURN_MS 10000
#define NO_PORT UINT16_MAX /* no packet comes from there */

static struct smc_bucket no_buckets[1];

/* --- memory ---------------------------------------------------------------- */

static struct smc_bucket *
buckets_create(uint32_t n)
{
    size_t bytes = n * sizeof(struct smc_bucket);
    struct smc_bucket *b;

    if (n > BUCKETS_SMALL) {
        return reserve(bytes);
    }
    b = aligned_alloc(64, bytes);
    return b ? memset(b, 0, bytes) : NULL;
}

static void
buckets_destroy(struct smc_bucket *b, uint32_t mask)
{
    if (!b || b == no_buckets) {
        return;
    }
    if (mask >= BUCKETS_SMALL) {
        unreserve(b, ((size_t)mask + 1) * sizeof *b);
    } else {
        free(b);
    }
}

/* As exact.c's: addresses at once and without access, memory as it is used. */
static bool
entries_extend(struct smc *s)
{
    uint32_t n = s->capacity ? 2 * s->capacity : ENTRIES_MIN;

    if (!s->entries) {
        s->entries = reserve_aligned(SMC_ENTRIES_MAX * sizeof *s->entries, PROT_NONE);
        if (!s->entries) {
            return false;
        }
    }
    if (n > SMC_ENTRIES_MAX ||
        mprotect(s->entries, n * sizeof *s->entries, PROT_READ | PROT_WRITE)) {
        return false;
    }
    if (n * sizeof *s->entries > HUGE_PAGE) {
        madvise(s->entries, n * sizeof *s->entries, MADV_HUGEPAGE);
    }
    s->capacity = n;
    return true;
}

void
smc_init(struct smc *s, uint32_t max)
{
    *s = (struct smc){.buckets = no_buckets, .n_entries = 1, .turned = INT64_MAX};
    while (s->buckets_max * (SMC_WAYS / 2) < max) {
        s->buckets_max = s->buckets_max ? 2 * s->buckets_max : BUCKETS_MIN;
    }
}

void
smc_done(struct smc *s)
{
    buckets_destroy(s->buckets, s->mask);
    buckets_destroy(s->old, s->old_mask);
    unreserve(s->entries, SMC_ENTRIES_MAX * sizeof *s->entries);
}

/* --- keys ------------------------------------------------------------------------ */

static bool
matches(const struct exact_entry *e, const struct key *k)
{
    __m256i differ = smc_differ(e, smc_mask(e), k);

    return _mm256_testz_si256(differ, differ);
}

/* The place in 'b' of an entry that 'k' is of; SMC_WAYS: none. */
static unsigned
look_in(const struct smc *s, const struct smc_bucket *b, const struct key *k, uint32_t hash)
{
    for (uint32_t m = smc_match(b, hash); m; m &= m - 1, m &= m - 1) {
        unsigned way = __builtin_ctz(m) / 2;

        if (matches(&s->entries[b->index[way]].e, k)) {
            return way;
        }
    }
    return SMC_WAYS;
}

/* False: the bucket is full. */
static bool
put(struct smc *s, const struct key *k, uint32_t hash, uint16_t index)
{
    struct smc_bucket *b = smc_bucket(s, hash);
    unsigned way = look_in(s, b, k, hash);
    uint32_t free;

    if (way == SMC_WAYS) {
        free = smc_match(b, 0);
        if (!free || s->buckets == no_buckets) {
            return false;
        }
        way = __builtin_ctz(free) / 2;
        s->n++;
    }
    b->tag[way] = hash >> 16;
    b->index[way] = index;
    return true;
}

/* An entry that no key is of. */
static void
kill(struct smc_entry *e)
{
    e->e.key.in_port = NO_PORT;
    e->mask.in_port = 0;
}

struct exact_entry *
smc_find(struct smc *s, const struct key *k, uint32_t hash)
{
    struct smc_bucket *tables[] = {s->buckets, s->old};
    uint32_t masks[] = {s->mask, s->old_mask};

    for (unsigned i = 0; i < 2 && tables[i]; i++) {
        struct smc_bucket *b = &tables[i][hash & masks[i]];
        unsigned way;

        while ((way = look_in(s, b, k, hash)) != SMC_WAYS) {
            uint16_t index = b->index[way];
            struct smc_entry *e = &s->entries[index];

            if (exact_is_current(&e->e)) {
                if (i) {
                    s->moved += put(s, k, hash, index);
                }
                return &e->e;
            }
            kill(e);
        }
    }
    return NULL;
}

/* --- the table's size ---------------------------------------------------------------- */

/* A new table of 'n' buckets, if there is memory; keys move over as they come. */
static void
turn(struct smc *s, uint32_t n)
{
    struct smc_bucket *new = buckets_create(n);

    if (new) {
        buckets_destroy(s->old, s->old_mask);
        s->old = s->buckets == no_buckets ? NULL : s->buckets;
        s->old_mask = s->mask;
        s->buckets = new;
        s->mask = n - 1;
        s->n = s->moved = 0;
    }
}

static void
make_room(struct smc *s)
{
    uint32_t n = s->buckets == no_buckets ? 0 : s->mask + 1;

    /* Five eighths: of 16 places few buckets then lack one. */
    if (s->n < n * (SMC_WAYS * 5 / 8)) {
        return;
    }
    s->vain = (n >= BUCKETS_FREE || n == s->buckets_max) && s->moved < s->n / 4;
    if (s->vain) {
        turn(s, n);
    } else if (n < s->buckets_max) {
        n = n ? GROWTH * n : BUCKETS_MIN;
        turn(s, n < s->buckets_max ? n : s->buckets_max);
        s->turned = INT64_MAX; /* the clock starts anew */
    }
}

void
smc_age(struct smc *s, int64_t now)
{
    uint32_t n = BUCKETS_MIN;

    if (now - s->turned < TURN_MS || now < s->turned) {
        s->turned = now < s->turned ? now : s->turned;
        return;
    }
    s->turned = now;
    if (s->buckets != no_buckets) {
        while (n < s->buckets_max && s->n > n * (SMC_WAYS / 2)) {
            n *= 2;
        }
        turn(s, s->vain ? s->mask + 1 : n); /* or it may have been new a moment ago */
        s->vain = false;                    /* other keys may come now */
    }
}

void
smc_trim(struct smc *s, bool all)
{
    if (all || s->mask >= BUCKETS_KEPT || s->capacity > ENTRIES_KEPT || s->old) {
        uint32_t max = s->buckets_max * (SMC_WAYS / 2);

        smc_done(s);
        smc_init(s, max);
    }
}

/* --- megaflows -------------------------------------------------------------------- */

/* Whether it is filled in, and for what the flow is now. */
static bool
is_valid(const struct smc_entry *e)
{
    return e->e.slot && e->e.key.in_port != NO_PORT && exact_is_current(&e->e);
}

/* The index of the flow's entry, which may be that of a flow before it; 0: none. */
static uint16_t
entry_of(struct smc *s, uint32_t id, uint16_t index)
{
    if (index && index < s->n_entries && s->entries[index].flow == id) {
        return index;
    }
    if (s->n_entries >= s->capacity && !entries_extend(s)) {
        return 0;
    }
    index = s->n_entries++;
    s->entries[index].flow = id;
    kill(&s->entries[index]);
    return index;
}

struct exact_entry *
smc_learn(struct smc *s, const struct key *k, uint32_t hash, uint32_t id, const struct key *mask,
          uint16_t *index)
{
    struct smc_entry *e;

    if (!s->buckets_max) {
        return NULL;
    }
    *index = entry_of(s, id, *index);
    if (!*index) {
        return NULL;
    }
    e = &s->entries[*index];
    if (is_valid(e) && !matches(&e->e, k)) {
        return NULL; /* the flow's key has bits that the mask is said to have more of */
    }
    make_room(s);
    e->mask = *mask;
    e->e.key.v = _mm256_and_si256(k->v, mask->v);
    e->e.used = 1;
    if (!put(s, k, hash, *index)) {
        if (!is_valid(e)) {
            kill(e);
        }
        return NULL;
    }
    return &e->e;
}

void
smc_forget(struct smc *s, uint32_t id, uint16_t index)
{
    if (index && index < s->n_entries && s->entries[index].flow == id) {
        kill(&s->entries[index]);
    }
}
