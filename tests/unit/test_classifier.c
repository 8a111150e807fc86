/* The megaflow classifier against a linear search, alone and with readers on
 * other threads, and its bounds under rule sets made to break them. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "cls_shapes.h"
#include "fast/epoch.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SCALE 4u
#else
#define SCALE 1u
#endif

static uint64_t seed = 88172645463325252u;

/* A case whose name is put together; names live until the next but one. */
#define CASE_OF(...)                                                                               \
    do {                                                                                           \
        static char names[2][100];                                                                 \
        static unsigned turn;                                                                      \
        char *name = names[turn++ % 2];                                                            \
        snprintf(name, sizeof names[0], __VA_ARGS__);                                              \
        CASE(name);                                                                                \
    } while (0)

static unsigned
below(unsigned n)
{
    return shape_random(&seed) % n;
}

/* Rules that may be in, with a linear search over them. */
struct set {
    struct classifier *cls;
    struct shape_rule *rules;
    bool *in;
    unsigned n, n_in;
};

static void
set_init(struct set *s, enum cls_shape shape, unsigned n, unsigned n_masks)
{
    s->cls = cls_create(SHAPE_WORDS);
    s->rules = calloc(n, sizeof *s->rules);
    s->in = calloc(n, sizeof *s->in);
    s->n = n;
    s->n_in = 0;
    for (unsigned i = 0; i < n; i++) {
        shape_rule_make(&s->rules[i], shape, n_masks, &seed);
    }
}

static void
set_destroy(struct set *s)
{
    cls_destroy(s->cls);
    epoch_synchronize();
    free(s->rules);
    free(s->in);
}

static int
set_toggle(struct set *s, unsigned i)
{
    int error = 0;

    if (s->in[i]) {
        cls_remove(s->cls, &s->rules[i].rule);
    } else {
        error = cls_insert(s->cls, &s->rules[i].rule);
    }
    s->in[i] ^= !error;
    s->n_in += error ? 0 : s->in[i] ? 1 : -1;
    return error;
}

static int
set_fill(struct set *s)
{
    int error = 0;

    for (unsigned i = 0; i < s->n; i++) {
        error |= s->in[i] ? 0 : set_toggle(s, i);
        if (i % 1024 == 0) {
            epoch_reclaim();
        }
    }
    return error;
}

static bool
set_matches(const struct set *s, const uint64_t *key)
{
    for (unsigned i = 0; i < s->n; i++) {
        if (s->in[i] && shape_matches(&s->rules[i].rule, key)) {
            return true;
        }
    }
    return false;
}

/* The result is a rule that is in and matches, or there is none. */
static bool
right(const struct set *s, const uint64_t *key, const struct cls_rule *found)
{
    if (!found) {
        return !set_matches(s, key);
    }
    return s->in[(const struct shape_rule *)found - s->rules] && shape_matches(found, key);
}

static void
make_key(const struct set *s, uint64_t *key)
{
    unsigned kind = below(4), word;

    shape_key_of(key, &s->rules[below(s->n)], &seed);
    if (kind == 0) { /* almost */
        const struct cls_rule *r = &s->rules[below(s->n)].rule;
        word = r->n_words ? r->idx[below(r->n_words)] : 0;
        key[word] ^= UINT64_C(1) << below(64);
    }
}

static bool
set_agrees(const struct set *s, unsigned n_keys)
{
    static uint64_t keys[32][SHAPE_WORDS];
    const uint64_t *at[32];
    struct cls_rule *out[32];
    bool ok = true;

    for (unsigned done = 0; done < n_keys; done += 32) {
        unsigned n = 1 + below(32);
        for (unsigned i = 0; i < n; i++) {
            make_key(s, keys[i]);
            at[i] = keys[i];
            ok = ok && right(s, keys[i], cls_lookup(s->cls, keys[i]));
        }
        cls_lookup_batch(s->cls, at, n, out);
        for (unsigned i = 0; i < n; i++) {
            ok = ok && right(s, keys[i], out[i]);
        }
    }
    return ok;
}

/* All that are in are found by keys of theirs: by themselves, or by another
 * that matches the same key. */
static bool
all_found(const struct set *s)
{
    uint64_t key[SHAPE_WORDS];
    bool ok = true;

    for (unsigned i = 0; i < s->n && ok; i++) {
        if (s->in[i]) {
            shape_key_of(key, &s->rules[i], &seed);
            struct cls_rule *found = cls_lookup(s->cls, key);
            ok = found && right(s, key, found);
        }
    }
    return ok;
}

/* --- one thread ------------------------------------------------------------------ */

static void
test_empty(void)
{
    uint64_t key[SHAPE_WORDS] = {0};
    struct cls_stats st;
    struct set s;

    CASE("classifier: empty, one rule, equal rules, a rule without words");
    set_init(&s, CLS_SHAPE_EXACT, 3, 0);
    CHECK(!cls_lookup(s.cls, key));
    s.rules[1] = s.rules[0];
    s.rules[1].rule.idx = s.rules[1].idx;
    s.rules[1].rule.mask = s.rules[1].mask;
    s.rules[1].rule.value = s.rules[1].value;
    CHECK(!set_toggle(&s, 0) && !set_toggle(&s, 1));
    shape_key_of(key, &s.rules[0], &seed);
    CHECK(cls_lookup(s.cls, key) == &s.rules[0].rule);
    cls_stats(s.cls, &st);
    CHECK(st.rules == 2 && st.masks == 1);
    set_toggle(&s, 0);
    CHECK(cls_lookup(s.cls, key) == &s.rules[1].rule);
    set_toggle(&s, 1);
    CHECK(!cls_lookup(s.cls, key));
    s.rules[2].rule.n_words = 0;
    CHECK(!set_toggle(&s, 2) && cls_lookup(s.cls, key) == &s.rules[2].rule);
    set_toggle(&s, 2);
    cls_stats(s.cls, &st);
    CHECK(!st.rules && !st.masks && !st.tables);
    set_destroy(&s);

    CASE("classifier: keys of 2 and of 128 words, their last words too");
    CHECK(!cls_create(1) && !cls_create(CLS_WORDS_MAX + 1));
    cls_destroy(NULL);
    for (unsigned n = 2; n <= 128; n += 126) {
        struct classifier *cls = cls_create(n);
        uint64_t *small = calloc(n, sizeof *small);
        uint16_t idx[] = {n - 2, n - 1};
        uint64_t mask[] = {0xff, ~UINT64_C(0)}, value[] = {7, 9};
        struct cls_rule both = {.n_words = 2, .idx = idx, .mask = mask, .value = value};
        struct cls_rule last = {.n_words = 1, .idx = idx + 1, .mask = mask + 1, .value = value + 1};
        small[n - 1] = 9;
        CHECK(!cls_insert(cls, &both));
        CHECK(!cls_lookup(cls, small));
        CHECK(!cls_insert(cls, &last));
        CHECK(cls_lookup(cls, small) == &last);
        cls_remove(cls, &last);
        small[n - 2] = 0x107;
        CHECK(cls_lookup(cls, small) == &both);
        free(small);
        cls_destroy(cls);
    }
}

static void
test_shapes(void)
{
    for (enum cls_shape shape = 0; shape < CLS_N_SHAPES; shape++) {
        for (unsigned n = 10; n <= 2500; n = n < 1000 ? n * 10 : n + 1500) {
            struct set s;
            CASE_OF("classifier: %s, %u rules agree with a linear search", cls_shape_names[shape],
                    n);
            set_init(&s, shape, n, 0);
            CHECK(!set_fill(&s));
            CHECK(all_found(&s));
            CHECK(set_agrees(&s, 3000 / SCALE));
            for (unsigned i = 0; i < n; i++) {
                set_toggle(&s, i);
            }
            struct cls_stats st;
            cls_stats(s.cls, &st);
            CHECK(!st.rules && !st.masks && !st.tables);
            set_destroy(&s);
        }
    }
}

/* Sizes that drift up and down, so that everything is split, grown, rebuilt
 * and shrunk. */
static void
test_churn(void)
{
    for (enum cls_shape shape = 0; shape < CLS_N_SHAPES; shape++) {
        struct set s;
        bool ok = true;

        CASE_OF("classifier: %s, rules coming and going", cls_shape_names[shape]);
        set_init(&s, shape, 1500, 0);
        for (unsigned turn = 0; turn < 60 / SCALE; turn++) {
            unsigned want = turn % 7 == 0 ? 0 : below(turn % 3 ? 1500 : 60);
            for (unsigned i = 0; i < 700 || s.n_in > want; i++) {
                unsigned k = below(s.n);
                if (s.in[k] == (s.n_in > want)) {
                    ok = ok && !set_toggle(&s, k);
                }
            }
            ok = ok && set_agrees(&s, 150);
            epoch_reclaim();
        }
        CHECK(ok && all_found(&s));
        set_destroy(&s);
    }
}

/* --- bounds ------------------------------------------------------------------------ */

static void
test_bounds(void)
{
    static const struct {
        enum cls_shape shape;
        unsigned n, min_masks, max_probes, max_chain;
    } bounds[] = {
        {CLS_SHAPE_EXACT, 50000, 1, 1, 0},          {CLS_SHAPE_RANDOM, 1000, 64, 8, 40},
        {CLS_SHAPE_STRUCTURED, 1000, 64, 12, 40},   {CLS_SHAPE_VIFS, 8000, 15, 12, 40},
        {CLS_SHAPE_ATTACK, 8000, 4000, 8, 20},      {CLS_SHAPE_ATTACK_ACL, 8000, 500, 12, 40},
        {CLS_SHAPE_ATTACK_IP6, 8000, 1000, 12, 40},
    };
    for (unsigned i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        struct cls_stats st;
        struct set s;

        CASE_OF("classifier: %s, %u rules: probes and lists are bounded",
                cls_shape_names[bounds[i].shape], bounds[i].n);
        set_init(&s, bounds[i].shape, bounds[i].n, 0);
        CHECK(!set_fill(&s));
        cls_stats(s.cls, &st);
        printf("# %s: %zu rules, %zu masks, probes %zu, list %zu\n",
               cls_shape_names[bounds[i].shape], st.rules, st.masks, st.tables, st.longest_chain);
        CHECK(st.rules == bounds[i].n && st.masks >= bounds[i].min_masks);
        CHECK(st.tables <= bounds[i].max_probes);
        CHECK(st.longest_chain <= bounds[i].max_chain);
        set_destroy(&s);
    }
}

/* --- threads ------------------------------------------------------------------------- */

#define N_READERS 2u

struct shared {
    struct set s;
    unsigned n_stay; /* the first ones are never removed */
    _Atomic bool stop;
};

struct reader {
    struct shared *shared;
    uint64_t seed;
    unsigned lookups;
    bool missed, wrong;
};

/* Rules that stay must be found at any time, whatever the writer does. */
static void *
read_all_the_time(void *r_)
{
    struct reader *r = r_;
    struct set *s = &r->shared->s;
    struct epoch_reader er;
    static _Thread_local uint64_t keys[32][SHAPE_WORDS];
    const uint64_t *at[32];
    struct cls_rule *out[32];

    epoch_register(&er);
    epoch_online(&er);
    while (!atomic_load_explicit(&r->shared->stop, memory_order_relaxed) || !r->lookups) {
        for (unsigned i = 0; i < 32; i++) {
            shape_key_of(keys[i], &s->rules[shape_random(&r->seed) % r->shared->n_stay], &r->seed);
            at[i] = keys[i];
            out[i] = cls_lookup(s->cls, keys[i]);
            r->missed |= !out[i];
            r->wrong |= out[i] && !shape_matches(out[i], keys[i]);
        }
        cls_lookup_batch(s->cls, at, 32, out);
        for (unsigned i = 0; i < 32; i++) {
            r->missed |= !out[i];
            r->wrong |= out[i] && !shape_matches(out[i], keys[i]);
        }
        r->lookups += 64;
        epoch_quiesce(&er);
    }
    epoch_offline(&er);
    epoch_unregister(&er);
    return NULL;
}

static double
seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void
write_for(struct shared *sh, double duration)
{
    struct set *s = &sh->s;
    double end = seconds() + duration;
    unsigned more = s->n - sh->n_stay;
    bool up = true;

    for (unsigned i = 0; i % 64 || seconds() < end; i++) {
        unsigned k = sh->n_stay + below(more);
        if (s->in[k] != up) {
            set_toggle(s, k);
        }
        if (s->n_in >= sh->n_stay + more * 9 / 10) {
            up = false;
        } else if (s->n_in <= sh->n_stay + more / 50) {
            up = true;
        }
        if (i % 256 == 0) {
            epoch_reclaim();
        }
    }
}

static void
test_threads(void)
{
    for (enum cls_shape shape = 0; shape < CLS_N_SHAPES; shape++) {
        struct shared sh = {.n_stay = 150};
        struct reader readers[N_READERS];
        pthread_t threads[N_READERS];

        CASE_OF("classifier: %s, lookups find what stays while others change",
                cls_shape_names[shape]);
        set_init(&sh.s, shape, 4000, 0);
        for (unsigned i = 0; i < sh.n_stay; i++) {
            CHECK(!set_toggle(&sh.s, i));
        }
        for (unsigned i = 0; i < N_READERS; i++) {
            readers[i] = (struct reader){.shared = &sh, .seed = 1000 + i};
            pthread_create(&threads[i], NULL, read_all_the_time, &readers[i]);
        }
        write_for(&sh, 0.25);
        atomic_store(&sh.stop, true);
        for (unsigned i = 0; i < N_READERS; i++) {
            pthread_join(threads[i], NULL);
            CHECK(!readers[i].missed && !readers[i].wrong && readers[i].lookups);
        }
        CHECK(all_found(&sh.s));
        set_destroy(&sh.s);
    }
}

int
main(void)
{
    test_empty();
    test_shapes();
    test_churn();
    test_bounds();
    test_threads();
    return check_done();
}
