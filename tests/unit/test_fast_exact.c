/* exact: against a plain array that remembers what was put where. */
#include <stdlib.h>

#include "check.h"
#include "fast/exact.h"
#include "fast_frames.h"

#define N_KEYS 30000u

static struct slot slots[2] = {{.gen = 7}, {.gen = 9}};
static unsigned n_freed;

static void
verdict_free(void *aux, struct verdict *v)
{
    (void)aux;
    n_freed++;
    free(v);
}

/* Key number i of a few that differ in little. */
static struct key_wide
key_of(unsigned i, bool wide)
{
    struct key_wide k = {.key = {.eth_type = 8, .in_port = 1, .tp_dst = i}};

    k.key.ip4_src = (i >> 16) * 0x01000000;
    if (wide) {
        k.key.tp_dst = 0;
        memcpy(k.ip6.dst + 12, &i, 4);
    }
    return k;
}

static uint32_t
hash_of(const struct key_wide *k, bool wide)
{
    return wide ? key_hash_wide(k) : key_hash(&k->key);
}

static struct exact_entry *
find(const struct exact *x, unsigned i)
{
    struct key_wide k = key_of(i, x->wide);

    return exact_find(x, &k.key, hash_of(&k, x->wide));
}

static struct exact_entry *
insert_hashed(struct exact *x, unsigned i, uint32_t hash)
{
    struct key_wide k = key_of(i, x->wide);
    struct exact_entry *e = exact_insert(x, &k.key, hash);

    if (e) {
        e->slot = &slots[0];
        e->gen = 7;
        e->port = i % 60000;
        e->used = 1;
    }
    return e;
}

static struct exact_entry *
insert(struct exact *x, unsigned i)
{
    struct key_wide k = key_of(i, x->wide);

    return insert_hashed(x, i, hash_of(&k, x->wide));
}

/* The entries that can be found are those in use, and of the right keys. */
static bool
consistent(const struct exact *x, unsigned n_keys)
{
    unsigned found = 0;

    for (unsigned i = 0; i < n_keys; i++) {
        struct exact_entry *e = find(x, i);
        if (e) {
            if (e->kind == ENTRY_FREE || e->port != i % 60000) {
                return false;
            }
            found++;
        }
    }
    return found == x->n;
}

static void
test_growth(bool wide)
{
    struct exact x;
    unsigned lost = 0;
    bool steady = true, all = true;

    exact_init(&x, wide, 1000000, verdict_free, NULL);
    CHECK(!find(&x, 0));
    for (unsigned i = 0; i < N_KEYS; i++) {
        struct exact_entry *e = insert(&x, i);
        all &= e && find(&x, i) == e && insert(&x, i) == e;
        /* Those put in long ago are there while buckets move. */
        if (i % 97 == 0) {
            struct exact_entry *old = find(&x, i / 2);
            steady &= old && old->port == i / 2 % 60000;
        }
    }
    CHECK(all);
    CHECK(steady);
    for (unsigned i = 0; i < N_KEYS; i++) {
        lost += !find(&x, i);
    }
    CHECK(lost == 0);
    CHECK(x.evicted == 0);
    CHECK(consistent(&x, N_KEYS));
    CHECK((x.mask + 1) * EXACT_WAYS >= 2 * N_KEYS - 10 && (x.mask + 1) * EXACT_WAYS < 8 * N_KEYS);
    for (unsigned i = 0; i < 100000 && x.old; i++) {
        exact_settle(&x);
    }
    CHECK(!x.old && consistent(&x, N_KEYS));

    exact_trim(&x, 50);
    CHECK(x.n == 50 && consistent(&x, N_KEYS));
    CHECK(x.capacity <= 64);
    exact_trim(&x, 64);
    CHECK(x.n == 50); /* small enough */
    exact_trim(&x, 50);
    CHECK(x.n == 0); /* nobody has used them since */
    exact_done(&x);
    CHECK(!find(&x, 1) && !x.n);
}

static void
test_full(void)
{
    struct exact x;
    unsigned hot_lost = 0;

    exact_init(&x, false, 1000, verdict_free, NULL);
    CASE("a full cache keeps what is used and drops the rest");
    for (unsigned i = 0; i < N_KEYS; i++) {
        insert(&x, i)->used = 0;
        /* The first 100 are in use all the time. */
        for (unsigned j = 0; j < 100 && i % 8 == 0; j++) {
            struct exact_entry *e = find(&x, j);
            if (e) {
                e->used = 1;
            } else {
                hot_lost += i > 100;
                insert(&x, j);
            }
        }
    }
    CHECK(x.n <= 1000 && x.n > 990);
    CHECK(consistent(&x, N_KEYS));
    CHECK(hot_lost < 20);
    exact_done(&x);

    CASE("a cache of one entry, and of none");
    exact_init(&x, false, 1, verdict_free, NULL);
    for (unsigned i = 0; i < 100; i++) {
        CHECK(insert(&x, i) && find(&x, i) && x.n == 1);
    }
    exact_done(&x);
    exact_init(&x, false, 0, verdict_free, NULL);
    CHECK(!insert(&x, 1) && !find(&x, 1));
    exact_done(&x);
}

static void
test_collisions(void)
{
    struct exact x;

    exact_init(&x, false, 1000, verdict_free, NULL);
    CASE("keys that all have one hash: as many as two buckets hold, no more, no harm");
    for (unsigned i = 0; i < 100; i++) {
        struct key_wide k = key_of(i, false);
        CHECK(insert_hashed(&x, i, 0x80001234));
        CHECK(exact_find(&x, &k.key, 0x80001234));
        CHECK(x.n <= 2 * EXACT_WAYS);
    }
    CHECK(x.n == 2 * EXACT_WAYS);
    exact_done(&x);
}

static void
test_leaving(void)
{
    struct exact x;
    struct exact_entry *e;
    unsigned left;

    exact_init(&x, false, 100000, verdict_free, NULL);
    CASE("entries that are old or not used leave with age, verdicts with them");
    n_freed = 0;
    for (unsigned i = 0; i < 300; i++) {
        e = insert(&x, i);
        e->kind = ENTRY_VERDICT;
        e->verdict = calloc(1, sizeof *e->verdict);
        e->used = i >= 100;
    }
    /* 100..199: of a flow that is gone. */
    for (unsigned i = 100; i < 200; i++) {
        find(&x, i)->slot = &slots[1];
    }
    exact_age(&x, 1);
    for (int64_t now = 100; now < 11000; now += 100) {
        exact_age(&x, now);
        for (unsigned i = 200; i < 300; i++) {
            find(&x, i)->used = 1;
        }
    }
    CHECK(x.n == 100 && n_freed == 200);
    CHECK(!find(&x, 0) && !find(&x, 150) && find(&x, 250));

    CASE("a clock that jumps either way does no harm");
    exact_age(&x, INT64_MAX / 2);
    exact_age(&x, 5);
    exact_age(&x, 6);
    CHECK(x.n <= 100);

    CASE("a new entry takes the place and frees the verdict of the one it replaces");
    left = x.n;
    n_freed = 0;
    e = insert(&x, 250);
    CHECK(e->kind == ENTRY_PLAIN && n_freed == 1 && x.n == left);

    CASE("trimming passes verdicts on, once each");
    e->kind = ENTRY_VERDICT;
    e->verdict = calloc(1, sizeof *e->verdict);
    n_freed = 0;
    for (unsigned i = 0; i < 300; i++) {
        if (find(&x, i)) {
            find(&x, i)->used = i >= 250;
        }
    }
    exact_trim(&x, 30);
    CHECK(x.n == 30 && n_freed == left - 30);
    exact_done(&x);
    CHECK(n_freed == left);
}

static void
test_rest(void)
{
    const int64_t boot = 1000000000;
    struct exact x;

    CASE("neither the first look nor one after a long rest takes what is in use");
    exact_init(&x, false, 1000, verdict_free, NULL);
    for (unsigned i = 0; i < 100; i++) {
        insert(&x, i);
    }
    exact_age(&x, boot);
    CHECK(x.n == 100);
    for (unsigned i = 0; i < 100; i++) {
        find(&x, i)->used = i < 50;
    }
    exact_age(&x, boot + 3600000);
    CHECK(x.n == 50);
    exact_age(&x, boot + 2 * 3600000);
    CHECK(x.n == 0);
    exact_done(&x);
}

/* Any of what a worker does, in any order. */
static void
test_random(bool wide)
{
    uint64_t seed = 4;
    struct exact x;
    bool right = true;

    exact_init(&x, wide, 3000, verdict_free, NULL);
    for (unsigned step = 0; step < 200000; step++) {
        unsigned i = frame_random(&seed) % 5000;
        struct exact_entry *e;
        switch (frame_random(&seed) % 16) {
        case 0:
            exact_age(&x, step);
            break;
        case 1:
            exact_settle(&x);
            break;
        case 2:
            if (frame_chance(&seed, 3000)) {
                exact_trim(&x, 200);
            }
            break;
        case 3:
        case 4:
        case 5:
        case 6:
            e = insert(&x, i);
            if (e && frame_chance(&seed, 4)) {
                e->kind = ENTRY_VERDICT;
                e->verdict = calloc(1, sizeof *e->verdict);
            }
            right &= e != NULL;
            break;
        default:
            e = find(&x, i);
            if (e) {
                e->used = 1;
                right &= e->port == i;
                if (frame_chance(&seed, 50)) {
                    e->gen++; /* its flow has changed */
                }
            }
        }
        if (step % 20000 == 0) {
            right &= consistent(&x, 5000);
        }
    }
    CHECK(right && consistent(&x, 5000));
    exact_done(&x);
}

int
main(void)
{
    CASE("growth, by one line an entry");
    test_growth(false);
    CASE("growth, by two lines an entry");
    test_growth(true);
    test_full();
    test_collisions();
    test_leaving();
    test_rest();
    CASE("random operations, narrow and wide");
    test_random(false);
    test_random(true);
    return check_done();
}
