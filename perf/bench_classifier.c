/* bench_classifier: what a lookup in the megaflow table costs.
 *
 * usage: bench_classifier [RULES]
 *
 * One line a rule set: TSC cycles a lookup, minimum and median over rounds, of
 * the classifier in batches of 32 and one by one, and of plain tuple space
 * search (one probe a mask) over the same rules and keys; for keys that a rule
 * matches and for keys that hardly any does.  Keys are in the cache, as they
 * are when a packet has just been parsed.  Then what insertion and memory
 * cost at 200,000 rules. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#include "cls_shapes.h"
#include "fast/epoch.h"

#define BURST 32u
#define BURSTS 128u
#define ROUNDS 15u

static uint64_t seed = 88172645463325252u;

/* --- tuple space search ------------------------------------------------------- */

struct tuple {
    const struct shape_rule *like; /* has the mask */
    const struct shape_rule **slot;
    uint32_t *hash;
    uint32_t size, n; /* size: a power of two */
};

static struct tuple *tuples;
static unsigned n_tuples;

static uint32_t
mul(uint64_t a, uint64_t b)
{
    unsigned __int128 p = (unsigned __int128)a * b;

    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static uint32_t
tuple_hash(const struct tuple *t, const uint64_t *key)
{
    const struct shape_rule *r = t->like;
    uint32_t h = 0;

    for (unsigned i = 0; i < r->rule.n_words; i++) {
        h += mul((key[r->idx[i]] & r->mask[i]) ^ 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93 + 2 * i);
    }
    return h;
}

static void
tuple_put(struct tuple *t, const struct shape_rule *r, uint32_t h)
{
    uint32_t i = h;

    while (t->slot[i & (t->size - 1)]) {
        i++;
    }
    t->slot[i & (t->size - 1)] = r;
    t->hash[i & (t->size - 1)] = h;
    t->n++;
}

static void
tuple_grow(struct tuple *t)
{
    struct tuple old = *t;

    t->size = old.size ? 2 * old.size : 8;
    t->slot = calloc(t->size, sizeof *t->slot);
    t->hash = calloc(t->size, sizeof *t->hash);
    t->n = 0;
    for (uint32_t i = 0; i < old.size; i++) {
        if (old.slot[i]) {
            tuple_put(t, old.slot[i], old.hash[i]);
        }
    }
    free(old.slot);
    free(old.hash);
}

static void
tss_insert(const struct shape_rule *r)
{
    uint64_t key[SHAPE_WORDS];
    unsigned i;

    for (i = 0; i < n_tuples; i++) {
        const struct shape_rule *l = tuples[i].like;
        if (l->rule.n_words == r->rule.n_words && !memcmp(l->idx, r->idx, sizeof l->idx) &&
            !memcmp(l->mask, r->mask, sizeof l->mask)) {
            break;
        }
    }
    if (i == n_tuples) {
        struct tuple *more = realloc(tuples, ++n_tuples * sizeof *tuples);
        if (!more) {
            abort();
        }
        tuples = more;
        tuples[i] = (struct tuple){.like = r};
    }
    if (2 * tuples[i].n >= tuples[i].size) {
        tuple_grow(&tuples[i]);
    }
    shape_key_of(key, r, &seed);
    tuple_put(&tuples[i], r, tuple_hash(&tuples[i], key));
}

static const struct shape_rule *
tss_lookup(const uint64_t *key)
{
    for (unsigned i = 0; i < n_tuples; i++) {
        const struct tuple *t = &tuples[i];
        uint32_t h = tuple_hash(t, key);
        for (uint32_t j = h; t->slot[j & (t->size - 1)]; j++) {
            const struct shape_rule *r = t->slot[j & (t->size - 1)];
            if (t->hash[j & (t->size - 1)] == h && shape_matches(&r->rule, key)) {
                return r;
            }
        }
    }
    return NULL;
}

static void
tss_clear(void)
{
    for (unsigned i = 0; i < n_tuples; i++) {
        free(tuples[i].slot);
        free(tuples[i].hash);
    }
    free(tuples);
    tuples = NULL;
    n_tuples = 0;
}

/* --- lookups -------------------------------------------------------------------- */

static uint64_t keys[BURSTS][BURST][SHAPE_WORDS], hot[BURST][SHAPE_WORDS];
static const uint64_t *hot_at[BURST];
static struct cls_rule *found[BURST];

static void
run_batch(const struct classifier *cls)
{
    cls_lookup_batch(cls, hot_at, BURST, found);
}

static void
run_single(const struct classifier *cls)
{
    for (unsigned i = 0; i < BURST; i++) {
        found[i] = cls_lookup(cls, hot[i]);
    }
}

static void
run_tss(const struct classifier *cls)
{
    for (unsigned i = 0; i < BURST; i++) {
        found[i] = (struct cls_rule *)tss_lookup(hot[i]);
    }
}

struct result {
    double min, median;
    unsigned hits; /* of BURSTS * BURST */
};

static int
ascending(const void *a_, const void *b_)
{
    const double *a = a_, *b = b_;

    return (*a > *b) - (*a < *b);
}

static struct result
measure(void (*run)(const struct classifier *), const struct classifier *cls)
{
    double rounds[ROUNDS];
    unsigned hits = 0;

    for (unsigned r = 0; r < ROUNDS; r++) {
        uint64_t cycles = 0;
        hits = 0;
        for (unsigned b = 0; b < BURSTS; b++) {
            memcpy(hot, keys[b], sizeof hot);
            uint64_t start = __rdtsc();
            run(cls);
            cycles += __rdtsc() - start;
            for (unsigned i = 0; i < BURST; i++) {
                hits += found[i] != NULL;
            }
        }
        rounds[r] = (double)cycles / (BURSTS * BURST);
    }
    qsort(rounds, ROUNDS, sizeof rounds[0], ascending);
    return (struct result){rounds[0], rounds[ROUNDS / 2], hits};
}

/* Of a rule that is in, or of one of the same kind that is not and whose keys
 * no other rule matches, if there are such. */
static void
make_key(uint64_t *key, const struct classifier *cls, struct shape_rule *rules, unsigned n,
         enum cls_shape shape, unsigned n_masks, bool hit)
{
    struct shape_rule other;

    if (hit) {
        shape_key_of(key, &rules[shape_random(&seed) % n], &seed);
        return;
    }
    for (unsigned tries = 0; tries < 20; tries++) {
        shape_rule_make(&other, shape, n_masks, &seed);
        shape_key_of(key, &other, &seed);
        if (!cls_lookup(cls, key)) {
            return;
        }
    }
    key[SHAPE_IN_PORT] ^= UINT64_C(1) << 63;
}

static void
print_row(const struct classifier *cls, bool hit)
{
    struct result batch = measure(run_batch, cls), single = measure(run_single, cls),
                  tss = measure(run_tss, cls);

    printf("  %-4s %6.1f /%6.1f  %6.1f /%6.1f  %8.1f /%8.1f  %5.1f x  %3.0f %%\n",
           hit ? "hit" : "miss", batch.min, batch.median, single.min, single.median, tss.min,
           tss.median, tss.median / batch.median, 100.0 * batch.hits / (BURSTS * BURST));
    if (batch.hits != tss.hits || single.hits != tss.hits) {
        printf("  the searches disagree: %u %u %u\n", batch.hits, single.hits, tss.hits);
        exit(1);
    }
}

static void
bench(enum cls_shape shape, unsigned n_masks, unsigned n)
{
    struct classifier *cls = cls_create(SHAPE_WORDS);
    struct shape_rule *rules = calloc(n, sizeof *rules);
    struct cls_stats st;

    for (unsigned i = 0; i < n; i++) {
        shape_rule_make(&rules[i], shape, n_masks, &seed);
        tss_insert(&rules[i]);
        if (cls_insert(cls, &rules[i].rule)) {
            exit(1);
        }
    }
    epoch_reclaim();
    cls_stats(cls, &st);
    printf("%s: %u rules, %zu masks; at most %zu probes, lists of %zu\n", cls_shape_names[shape], n,
           st.masks, st.tables, st.longest_chain);
    for (int hit = 1; hit >= 0; hit--) {
        for (unsigned i = 0; i < BURSTS * BURST; i++) {
            make_key(keys[i / BURST][i % BURST], cls, rules, n, shape, n_masks, hit);
        }
        print_row(cls, hit);
    }
    cls_destroy(cls);
    tss_clear();
    free(rules);
}

/* --- insertion ------------------------------------------------------------------- */

static double
cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void
bench_insert(enum cls_shape shape, unsigned n_masks, unsigned n)
{
    struct shape_rule *rules = calloc(n, sizeof *rules);

    for (unsigned i = 0; i < n; i++) {
        shape_rule_make(&rules[i], shape, n_masks, &seed);
    }
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    struct classifier *cls = cls_create(SHAPE_WORDS);
    struct cls_stats st;
    double start = cpu_seconds(), longest = 0;
    for (unsigned i = 0; i < n; i++) {
        double at = cpu_seconds();
        if (cls_insert(cls, &rules[i].rule)) {
            exit(1);
        }
        at = cpu_seconds() - at;
        longest = at > longest ? at : longest;
        if (i % 256 == 0) {
            epoch_reclaim();
        }
    }
    double inserted = cpu_seconds();
    epoch_reclaim();
    size_t after = mallinfo2().uordblks + mallinfo2().hblkhd;
    cls_stats(cls, &st);
    printf("%-11s %6zu masks: insert %5.0f ns a rule (longest %5.1f ms), %4.0f B a rule, ",
           cls_shape_names[shape], st.masks, (inserted - start) / n * 1e9, longest * 1e3,
           (double)(after - before) / n);
    printf("%zu probes, lists of %zu; ", st.tables, st.longest_chain);
    start = cpu_seconds();
    for (unsigned i = 0; i < n; i++) {
        cls_remove(cls, &rules[i].rule);
        if (i % 256 == 0) {
            epoch_reclaim();
        }
    }
    printf("remove %4.0f ns\n", (cpu_seconds() - start) / n * 1e9);
    cls_destroy(cls);
    epoch_synchronize();
    free(rules);
}

int
main(int argc, char *argv[])
{
    static const unsigned masks[] = {1, 10, 64, 500};
    unsigned n = argc > 1 ? strtoul(argv[1], NULL, 0) : 1000;

    for (unsigned i = 0; i < BURST; i++) {
        hot_at[i] = hot[i];
    }
    printf("TSC cycles a lookup, min / median of %u rounds; %u rules unless said otherwise\n"
           "       batch of %u     one by one       one probe a mask    ratio  found\n",
           ROUNDS, n, BURST);
    for (unsigned i = 0; i < 4; i++) {
        bench(CLS_SHAPE_RANDOM, masks[i], n);
        bench(CLS_SHAPE_STRUCTURED, masks[i], n);
    }
    bench(CLS_SHAPE_VIFS, 0, 8 * n);
    bench(CLS_SHAPE_EXACT, 0, 100 * n);
    bench(CLS_SHAPE_ATTACK, 0, 8 * n);
    bench(CLS_SHAPE_ATTACK_ACL, 0, 8 * n);
    bench(CLS_SHAPE_ATTACK_IP6, 0, 8 * n);
    printf("\n200,000 rules\n");
    bench_insert(CLS_SHAPE_EXACT, 0, 200000);
    bench_insert(CLS_SHAPE_RANDOM, 500, 200000);
    bench_insert(CLS_SHAPE_STRUCTURED, 500, 200000);
    bench_insert(CLS_SHAPE_VIFS, 0, 200000);
    bench_insert(CLS_SHAPE_ATTACK_ACL, 0, 200000);
    bench_insert(CLS_SHAPE_ATTACK_IP6, 0, 200000);
    return 0;
}
