#include <config.h>

#include "crowded.h"

#include <stdlib.h>
#include <string.h>

#include "compile.h"
#include "model.h"
#include "pflow.h"
#include "util.h"

#define WHY 512

/* Sorted, each once. */
struct keys {
    uint32_t *p;
    size_t n, allocated;
};

/* Where it is, or would be. */
static size_t
place_of(const uint32_t *p, size_t n, uint32_t key)
{
    size_t low = 0, high = n;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (p[mid] < key) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

static bool
has_key(const uint32_t *p, size_t n, uint32_t key)
{
    size_t i = place_of(p, n, key);

    return i < n && p[i] == key;
}

static void
add_key(struct keys *k, uint32_t key)
{
    size_t i = place_of(k->p, k->n, key);

    if (k->n == k->allocated) {
        k->p = x2nrealloc(k->p, &k->allocated, sizeof *k->p);
    }
    memmove(&k->p[i + 1], &k->p[i], (k->n - i) * sizeof *k->p);
    k->p[i] = key;
    k->n++;
}

static void
say(struct model *m, struct model_rule *rule, const struct model_host *host)
{
    char why[WHY];

    snprintf(why, sizeof why,
             "rules: on host \"%.120s\" more than %d rules of one order share a remote, a port or "
             "a vif (\"%.120s\" is one of them), and what these match is dropped: give some of "
             "them another order",
             host->obj.name, FTABLE_CLAUSES_MAX, rule->obj.name);
    model_set_error(m, &rule->policy->obj, why);
}

/* Another is another host, or another crowd at one. */
static uint64_t
crowd_of(struct model *m, struct compile *compile)
{
    struct model_obj *obj;
    uint64_t crowd = 0;

    MODEL_FOR_EACH (obj, m, REC_HOST) {
        const struct ftable *ft = compile_host_flows(compile, obj->key);

        if (ft && ft->n_crowded) {
            uint64_t one = (ft->crowd ^ obj->key) * UINT64_C(0x9e3779b97f4a7c15);

            crowd += one ^ one >> 29;
        }
    }
    return crowd;
}

static int
compare_rules(const void *a_, const void *b_)
{
    const struct crowded_rule *a = a_, *b = b_;

    return a->rule < b->rule   ? -1
           : a->rule > b->rule ? 1
           : a->host < b->host ? -1
                               : a->host > b->host;
}

/* Each once. */
static void
sort_rules(struct crowded *c)
{
    size_t n = 0;

    qsort(c->rules, c->n_rules, sizeof *c->rules, compare_rules);
    for (size_t i = 0; i < c->n_rules; i++) {
        if (!n || c->rules[n - 1].rule != c->rules[i].rule) {
            c->rules[n++] = c->rules[i];
        }
    }
    c->n_rules = n;
}

static void
walk(struct crowded *c, struct model *m, struct compile *compile)
{
    size_t allocated = c->n_rules;
    struct model_obj *obj;

    c->n_rules = 0;
    MODEL_FOR_EACH (obj, m, REC_HOST) {
        const struct ftable *ft = compile_host_flows(compile, obj->key);
        uint64_t *cookies = NULL;
        size_t n = 0;

        if (ft && ft->n_crowded) {
            n = ftable_crowded(ft, &cookies);
            c->walks++;
        }
        for (size_t i = 0; i < n; i++) {
            if (c->n_rules == allocated) {
                c->rules = x2nrealloc(c->rules, &allocated, sizeof *c->rules);
            }
            c->rules[c->n_rules++] = (struct crowded_rule){(uint32_t)cookies[i], obj->key};
        }
        free(cookies);
    }
    if (c->n_rules) {
        sort_rules(c);
    }
}

/* Each policy of the rules once, with a host and a rule.  Whose they are may have changed
 * though no flow has. */
static void
say_all(const struct crowded *c, struct model *m, struct keys *k)
{
    for (size_t i = 0; i < c->n_rules; i++) {
        struct model_obj *obj = model_by_key(m, c->rules[i].rule);
        struct model_obj *host = model_by_key(m, c->rules[i].host);

        if (obj && obj->kind == REC_RULE && host && host->kind == REC_HOST &&
            !has_key(k->p, k->n, model_rule(obj)->policy->obj.key)) {
            add_key(k, model_rule(obj)->policy->obj.key);
            say(m, model_rule(obj), model_host(host));
        }
    }
}

void
crowded_run(struct crowded *c, struct model *m, struct compile *compile)
{
    struct keys now = {NULL, 0, 0};
    struct model_obj *obj;
    uint64_t crowd;

    if (c->runs == compile_get_stats(compile)->runs) {
        return;
    }
    c->runs = compile_get_stats(compile)->runs;
    crowd = crowd_of(m, compile);
    if (crowd != c->crowd) {
        walk(c, m, compile);
        c->crowd = crowd;
    }
    say_all(c, m, &now);
    if (c->n) {
        MODEL_FOR_EACH (obj, m, REC_POLICY) { /* live or not */
            if (has_key(c->policies, c->n, obj->key) && !has_key(now.p, now.n, obj->key)) {
                model_set_error(m, obj, NULL);
            }
        }
    }
    free(c->policies);
    c->policies = now.p;
    c->n = now.n;
}

void
crowded_destroy(struct crowded *c)
{
    free(c->rules);
    free(c->policies);
    memset(c, 0, sizeof *c);
}
