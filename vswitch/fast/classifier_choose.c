/* classifier_choose: by what to split a list of rules.
 *
 * A sample of the rules is partitioned by each candidate.  What counts is how
 * many bits of choice a rule gains on average: log2 of how much shorter the
 * list becomes that it is in.  A rule that does not fit gains nothing, and
 * below a few rules a shorter list is no better.
 *
 * Candidates for a hash are parts of masks that occur: of a whole word, of its
 * halves and quarters (fields have these sizes), as far as the bits vary
 * among the rules.  They are added one by one, the best first.  Candidates for
 * a path are the same parts of words: from the most significant bit on, the
 * way that most rules go. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "classifier_choose.h"

#define N_PARTS 7u
#define PARTS_MAX 256u     /* distinct ones that are counted, a power of two */
#define TRIED_MAX 40u      /* the most frequent ones, that are tried */
#define COLUMNS 12u        /* words that are considered */
#define CELLS 1024u        /* of the table that counts, a power of two */
#define SHORT 2.0f         /* a list of this length is short enough */
#define WORD_PENALTY 0.12f /* bits that a further word of the hash must gain */
#define MIN_GAIN 0.8f      /* bits, for those that fit */
#define MIN_FIT 12u        /* rules */

struct part {
    uint16_t column;
    uint32_t seen;
    uint64_t mask;
};

struct cell {
    uint32_t stamp;
    uint16_t group, id;
    uint64_t value;
};

/* One word of all rules of the sample. */
struct column {
    uint16_t word;
    uint64_t vary, common; /* bits that differ among rules; that are in all masks */
    uint64_t bits[CLS_SAMPLE], value[CLS_SAMPLE];
};

struct cls_chooser {
    struct cls_node *sample[CLS_SAMPLE];
    unsigned n;
    float total; /* the list's length */

    struct column columns[COLUMNS];
    unsigned n_columns;

    struct part parts[PARTS_MAX], tried[TRIED_MAX];
    unsigned n_parts, n_tried;

    /* Partitions of the sample: each one's group, GONE if it does not fit. */
    uint16_t group[CLS_SAMPLE], trial[CLS_SAMPLE], best[CLS_SAMPLE];
    uint16_t count[CLS_SAMPLE];
    float gain[CLS_SAMPLE + 1]; /* of a rule in a group of that size */
    struct cell cells[CELLS];
    uint32_t stamp;
};
#define GONE UINT16_MAX

struct cls_chooser *
cls_chooser_create(void)
{
    return calloc(1, sizeof(struct cls_chooser));
}

void
cls_chooser_destroy(struct cls_chooser *c)
{
    free(c);
}

/* Every n-th rule, and what a group's size in the sample says about its size. */
static void
take_sample(struct cls_chooser *c, struct cls_node *const *nodes, unsigned n)
{
    c->n = n < CLS_SAMPLE ? n : CLS_SAMPLE;
    c->total = n;
    for (unsigned i = 0; i < c->n; i++) {
        c->sample[i] = nodes[(uint64_t)i * n / c->n];
    }
    float ratio = (float)(n - 1) / (c->n - 1);
    c->gain[0] = 0;
    for (unsigned i = 1; i <= c->n; i++) {
        float size = 1 + (i - 1) * ratio;
        c->gain[i] = size < c->total ? log2f(c->total / fmaxf(size, SHORT)) : 0;
    }
}

struct varying {
    uint16_t word;
    uint16_t having; /* masks */
    uint64_t ones, zeros, common;
};

static int
more_bits(const void *a_, const void *b_)
{
    const struct varying *a = a_, *b = b_;

    return __builtin_popcountll(b->ones & b->zeros) - __builtin_popcountll(a->ones & a->zeros);
}

/* Fills in the columns: the words that vary most. */
static void
find_columns(struct cls_chooser *c)
{
    uint8_t at[CLS_WORDS_MAX];
    struct varying words[CLS_WORDS_MAX];
    unsigned n_words = 0;

    memset(at, 0xff, sizeof at);
    for (unsigned i = 0; i < c->n; i++) {
        const struct cls_node *node = c->sample[i];
        const struct cls_mask *m = node->mask;
        for (unsigned j = 0; j < 2 * m->n_pairs; j++) {
            unsigned w = m->at[j / 2] + j % 2;
            if (!m->bits[j]) {
                continue;
            }
            if (at[w] == 0xff) {
                at[w] = n_words;
                words[n_words++] = (struct varying){.word = w, .common = UINT64_MAX};
            }
            struct varying *v = &words[at[w]];
            v->having++;
            v->ones |= node->value[j];
            v->zeros |= m->bits[j] & ~node->value[j];
            v->common &= m->bits[j];
        }
    }
    qsort(words, n_words, sizeof words[0], more_bits);
    c->n_columns = 0;
    for (unsigned i = 0; i < n_words && c->n_columns < COLUMNS; i++) {
        const struct varying *v = &words[i];
        struct column *col = &c->columns[c->n_columns];
        if (!(v->ones & v->zeros)) {
            break;
        }
        c->n_columns++;
        col->word = v->word;
        col->vary = v->ones & v->zeros;
        col->common = v->having == c->n ? v->common : 0;
        for (unsigned j = 0; j < c->n; j++) {
            col->bits[j] = cls_node_bits(c->sample[j], v->word);
            col->value[j] = cls_node_value(c->sample[j], v->word);
        }
    }
}

static uint64_t
part_mask(unsigned part)
{
    return part == 0  ? UINT64_MAX
           : part < 3 ? UINT64_C(0xffffffff) << (part - 1) * 32
                      : UINT64_C(0xffff) << (part - 3) * 16;
}

static uint32_t
mix(uint64_t a, uint64_t b)
{
    return cls_mul(a ^ UINT64_C(0x9e3779b97f4a7c15), b ^ UINT64_C(0xc2b2ae3d27d4eb4f));
}

static void
count_part(struct cls_chooser *c, unsigned column, uint64_t mask)
{
    for (unsigned i = mix(mask, column);; i++) {
        struct part *p = &c->parts[i % PARTS_MAX];
        if (!p->mask) {
            if (c->n_parts < PARTS_MAX * 3 / 4) {
                *p = (struct part){column, 1, mask};
                c->n_parts++;
            }
            return;
        }
        if (p->mask == mask && p->column == column) {
            p->seen++;
            return;
        }
    }
}

static int
more_frequent(const void *a_, const void *b_)
{
    const struct part *a = a_, *b = b_;

    return a->seen != b->seen ? (a->seen < b->seen) - (a->seen > b->seen)
                              : __builtin_popcountll(b->mask) - __builtin_popcountll(a->mask);
}

static void
find_parts(struct cls_chooser *c)
{
    memset(c->parts, 0, sizeof c->parts);
    c->n_parts = 0;
    for (unsigned i = 0; i < c->n_columns; i++) {
        const struct column *col = &c->columns[i];
        if (col->common & col->vary) {
            count_part(c, i, col->common & col->vary);
        }
        for (unsigned j = 0; j < c->n; j++) {
            uint64_t bits = col->bits[j] & col->vary, last = 0;
            for (unsigned k = 0; k < N_PARTS && bits; k++) {
                uint64_t part = bits & part_mask(k);
                if (part && part != last) {
                    count_part(c, i, part);
                    last = part;
                }
            }
        }
    }
    unsigned n = 0;
    for (unsigned i = 0; i < PARTS_MAX; i++) {
        if (c->parts[i].mask) {
            c->parts[n++] = c->parts[i];
        }
    }
    qsort(c->parts, n, sizeof c->parts[0], more_frequent);
    c->n_tried = n < TRIED_MAX ? n : TRIED_MAX;
    memcpy(c->tried, c->parts, c->n_tried * sizeof c->tried[0]);
}

/* The average gain of a partition. */
static float
score(struct cls_chooser *c, const uint16_t group[], unsigned n_groups)
{
    float sum = 0;

    memset(c->count, 0, n_groups * sizeof c->count[0]);
    for (unsigned i = 0; i < c->n; i++) {
        if (group[i] != GONE) {
            c->count[group[i]]++;
        }
    }
    for (unsigned i = 0; i < n_groups; i++) {
        sum += c->count[i] * c->gain[c->count[i]];
    }
    return sum / c->n;
}

/* c->group, refined by one more part of the key, into c->trial.  Its score, or
 * 0 if that cannot be above 'best'. */
static float
try_part(struct cls_chooser *c, const struct part *p, float best)
{
    const struct column *col = &c->columns[p->column];
    unsigned n_groups = 0, fitting = 0;

    for (unsigned i = 0; i < c->n; i++) {
        fitting += c->group[i] != GONE && !(p->mask & ~col->bits[i]);
    }
    if (fitting * c->gain[1] <= best * c->n) {
        return 0;
    }
    c->stamp++;
    for (unsigned i = 0; i < c->n; i++) {
        if (c->group[i] == GONE || p->mask & ~col->bits[i]) {
            c->trial[i] = GONE;
            continue;
        }
        uint64_t value = col->value[i] & p->mask;
        for (unsigned j = mix(value, c->group[i]);; j++) {
            struct cell *cell = &c->cells[j % CELLS];
            if (cell->stamp != c->stamp) {
                *cell = (struct cell){c->stamp, c->group[i], n_groups++, value};
            } else if (cell->value != value || cell->group != c->group[i]) {
                continue;
            }
            c->trial[i] = cell->id;
            break;
        }
    }
    return score(c, c->trial, n_groups);
}

static bool
tuple_add(struct cls_tuple *u, unsigned word, uint64_t mask)
{
    for (unsigned i = 0; i < u->n_words; i++) {
        if (u->idx[i] == word) {
            bool more = mask & ~u->mask[i];
            u->mask[i] |= mask;
            return more;
        }
    }
    if (u->n_words == CLS_HASH_WORDS) {
        return false;
    }
    u->idx[u->n_words] = word;
    u->mask[u->n_words++] = mask;
    return true;
}

/* Its score. */
static float
choose_tuple(struct cls_chooser *c, struct cls_tuple *tuple)
{
    float reached = 0;

    *tuple = (struct cls_tuple){0};
    memset(c->group, 0, sizeof c->group);
    for (;;) {
        float best = reached + WORD_PENALTY;
        struct cls_tuple with = *tuple;
        bool better = false;

        for (unsigned i = 0; i < c->n_tried; i++) {
            const struct part *p = &c->tried[i];
            struct cls_tuple u = *tuple;
            float s = tuple_add(&u, c->columns[p->column].word, p->mask) ? try_part(c, p, best) : 0;
            if (s > best) {
                best = s;
                with = u;
                better = true;
                memcpy(c->best, c->trial, sizeof c->best);
            }
        }
        if (!better) {
            return reached;
        }
        *tuple = with;
        reached = best;
        memcpy(c->group, c->best, sizeof c->group);
    }
}

/* Steps along the majority, as far as that gains.  Rules that end on the way
 * do not fit. */
static float
choose_steps(struct cls_chooser *c, const struct column *col, struct cls_steps *s)
{
    uint16_t *on = c->trial; /* the rules still on the path */
    unsigned n_on = c->n, n_bits = s->n_bits;
    float before = 0, best = 0; /* of those that have left */

    for (unsigned i = 0; i < c->n; i++) {
        on[i] = i;
    }
    s->path = 0;
    for (unsigned b = 0; b < n_bits; b++) {
        uint64_t step = UINT64_C(1) << (63 - s->start - b);
        uint64_t bit = __builtin_bswap64(step); /* as it is in memory */
        unsigned going_on = 0, ones = 0, left;

        for (unsigned i = 0; i < n_on; i++) {
            on[going_on] = on[i];
            ones += (col->bits[on[i]] & col->value[on[i]] & bit) != 0;
            going_on += (col->bits[on[i]] & bit) != 0;
        }
        n_on = going_on;
        if (n_on < 2) {
            break;
        }
        bool one = ones > n_on / 2;
        left = one ? n_on - ones : ones;
        s->path |= one ? step : 0;
        if (left) {
            going_on = 0;
            for (unsigned i = 0; i < n_on; i++) {
                on[going_on] = on[i];
                going_on += ((col->value[on[i]] & bit) != 0) == one;
            }
            n_on = going_on;
        }
        before += left * c->gain[left];
        if (before + n_on * c->gain[n_on] > best) {
            best = before + n_on * c->gain[n_on];
            s->n_bits = b + 1;
        }
    }
    return best / c->n;
}

/* A path can only do better than a hash where masks differ in that part. */
static bool
masks_differ(const struct cls_chooser *c, const struct column *col, uint64_t part)
{
    for (unsigned i = 1; i < c->n; i++) {
        if ((col->bits[i] ^ col->bits[0]) & part) {
            return true;
        }
    }
    return false;
}

static float
choose_path(struct cls_chooser *c, struct cls_steps *steps)
{
    static const uint8_t start[N_PARTS] = {0, 0, 32, 0, 16, 32, 48};
    static const uint8_t n_bits[N_PARTS] = {64, 32, 32, 16, 16, 16, 16};
    float best = 0;

    for (unsigned i = 0; i < c->n_columns; i++) {
        const struct column *col = &c->columns[i];
        for (unsigned k = 0; k < N_PARTS; k++) {
            struct cls_steps s = {.word = col->word, .start = start[k], .n_bits = n_bits[k]};
            uint64_t used = __builtin_bswap64((UINT64_MAX << (64 - s.n_bits)) >> s.start);
            if (!(col->vary & used) || !masks_differ(c, col, used)) {
                continue;
            }
            float gain = choose_steps(c, col, &s);
            if (gain > best) {
                best = gain;
                *steps = s;
            }
        }
    }
    return best;
}

static unsigned
count_fitting(const struct cls_chooser *c, const struct cls_split *split)
{
    unsigned n = 0;

    for (unsigned i = 0; i < c->n; i++) {
        n += split->kind == CLS_HASH ? cls_tuple_fits(&split->tuple, c->sample[i])
                                     : cls_steps_child(&split->steps, c->sample[i]) >= 0;
    }
    return n;
}

bool
cls_choose(struct cls_chooser *c, struct cls_node *const *nodes, unsigned n,
           struct cls_split *split)
{
    if (n < 2) {
        return false;
    }
    take_sample(c, nodes, n);
    find_columns(c);
    find_parts(c);
    float by_hash = choose_tuple(c, &split->tuple);
    float by_path = choose_path(c, &split->steps);
    split->kind = by_path > by_hash ? CLS_PATH : CLS_HASH;

    unsigned fitting = count_fitting(c, split);
    return fitting * c->total / c->n >= MIN_FIT &&
           fmaxf(by_path, by_hash) * c->n >= MIN_GAIN * fitting;
}
