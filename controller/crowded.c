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

/* Policies that have not been named yet are, with this host. */
static void
look_at(struct model *m, const struct ftable *ft, const struct model_host *host, struct keys *k)
{
    uint64_t *cookies;
    size_t n = ftable_crowded(ft, &cookies);

    for (size_t i = 0; i < n; i++) {
        struct model_obj *obj = model_by_key(m, (uint32_t)cookies[i]);

        if (obj && obj->kind == REC_RULE &&
            !has_key(k->p, k->n, model_rule(obj)->policy->obj.key)) {
            add_key(k, model_rule(obj)->policy->obj.key);
            say(m, model_rule(obj), host);
        }
    }
    free(cookies);
}

void
crowded_run(struct crowded *c, struct model *m, struct compile *compile)
{
    struct keys now = {NULL, 0, 0};
    struct model_obj *obj;

    if (c->runs == compile_get_stats(compile)->runs) {
        return;
    }
    c->runs = compile_get_stats(compile)->runs;
    MODEL_FOR_EACH (obj, m, REC_HOST) {
        const struct ftable *ft = compile_host_flows(compile, obj->key);

        if (ft && ft->n_crowded) {
            look_at(m, ft, model_host(obj), &now);
        }
    }
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
    free(c->policies);
    memset(c, 0, sizeof *c);
}
