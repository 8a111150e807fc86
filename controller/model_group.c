/* Groups, flattened.
 *
 * Walks mark what they have seen with a number of their own ('round') and keep
 * their own stack: nesting is as deep as somebody states it. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "byte-order.h"
#include "model_impl.h"
#include "util.h"

struct walk {
    struct model *m;
    unsigned long long int round;
    struct model_group **stack;
    size_t n, cap;
};

static void
walk_init(struct walk *w, struct model *m)
{
    *w = (struct walk){.m = m, .round = ++m->round};
}

static void
walk_push(struct walk *w, struct model_group *group)
{
    if (group->obj.round == w->round) {
        return;
    }
    group->obj.round = w->round;
    if (w->n == w->cap) {
        w->stack = x2nrealloc(w->stack, &w->cap, sizeof *w->stack);
    }
    w->stack[w->n++] = group;
}

static struct model_group *
walk_pop(struct walk *w)
{
    return w->n ? w->stack[--w->n] : NULL;
}

/* Groups by a list of references to what they hold. */
static void
walk_push_holders(struct walk *w, struct ovs_list *refs)
{
    struct model_ref *ref;

    MODEL_FOR_EACH_REF (ref, refs) {
        walk_push(w, model_group(ref->from));
    }
}

/* --- up -------------------------------------------------------------------------------- */

static void
touch_all(struct walk *w)
{
    struct model_group *group;

    while ((group = walk_pop(w))) {
        group->flat_good = false;
        model_mark(w->m, &group->obj, MODEL_MEMBERS);
        walk_push_holders(w, &group->groups);
    }
    free(w->stack);
}

void
model_group_touch(struct model *m, struct model_group *group)
{
    struct walk w;

    walk_init(&w, m);
    walk_push(&w, group);
    touch_all(&w);
}

void
model_vif_touch_groups(struct model *m, struct model_vif *vif)
{
    struct walk w;

    walk_init(&w, m);
    walk_push_holders(&w, &vif->groups);
    if (vif->vm) {
        walk_push_holders(&w, &vif->vm->groups);
    }
    touch_all(&w);
}

void
model_vif_groups(struct model *m, struct model_vif *vif,
                 void (*found)(struct model_group *, void *aux), void *aux)
{
    struct model_group *group;
    struct walk w;

    walk_init(&w, m);
    walk_push_holders(&w, &vif->groups);
    walk_push_holders(&w, &vif->vm->groups);
    while ((group = walk_pop(&w))) {
        walk_push_holders(&w, &group->groups);
        found(group, aux);
    }
    free(w.stack);
}

bool
model_group_has_vif(struct model *m, const struct model_group *wanted, const struct model_vif *vif)
{
    struct model_group *group;
    bool found = false;
    struct walk w;

    walk_init(&w, m);
    walk_push_holders(&w, CONST_CAST(struct ovs_list *, &vif->groups));
    walk_push_holders(&w, &vif->vm->groups);
    while (!found && (group = walk_pop(&w))) {
        walk_push_holders(&w, &group->groups);
        found = group == wanted;
    }
    free(w.stack);
    return found;
}

/* --- down ---------------------------------------------------------------------------------- */

bool
model_group_loops(struct model *m, struct model_group *start, struct model_group **via)
{
    struct model_group *group;
    struct model_ref *ref;
    bool loops = false;
    struct walk w;

    walk_init(&w, m);
    walk_push(&w, start);
    while (!loops && (group = walk_pop(&w))) {
        LIST_FOR_EACH (ref, from_node, &group->obj.refs_out) {
            struct model_group *to;

            if (ref->field != FIELD_GROUP_GROUP) {
                continue;
            }
            to = model_group(model_ref_any(ref));
            to = to && to->obj.present ? to : NULL;
            if (to == start) {
                *via = group;
                loops = true;
                break;
            }
            if (to) {
                walk_push(&w, to);
            }
        }
    }
    free(w.stack);
    return loops;
}

static void
add_prefixes(struct model_prefixes *all, size_t *cap, const struct model_prefixes *some)
{
    while (all->n + some->n > *cap) {
        all->p = x2nrealloc(all->p, cap, sizeof *all->p);
    }
    if (some->n) {
        memcpy(all->p + all->n, some->p, some->n * sizeof *some->p);
        all->n += some->n;
    }
}

static int
compare_vifs(const void *a, const void *b)
{
    uint32_t x = (*(struct model_vif *const *)a)->obj.key;
    uint32_t y = (*(struct model_vif *const *)b)->obj.key;

    return x < y ? -1 : x > y;
}

struct flattening {
    struct walk walk;
    struct model_group *into;
    size_t cap_prefixes, cap_vifs;
};

static void
flatten_vif(struct flattening *f, struct model_vif *vif)
{
    if (vif->obj.round == f->walk.round) {
        return;
    }
    vif->obj.round = f->walk.round;
    if (f->into->n_flat_vifs == f->cap_vifs) {
        f->into->flat_vifs =
            x2nrealloc(f->into->flat_vifs, &f->cap_vifs, sizeof *f->into->flat_vifs);
    }
    f->into->flat_vifs[f->into->n_flat_vifs++] = vif;
    add_prefixes(&f->into->flat, &f->cap_prefixes, &vif->effective);
}

static void
flatten_member(struct flattening *f, struct model_obj *member)
{
    struct model_ref *ref;

    switch (member->kind) {
    case REC_VIF:
        flatten_vif(f, model_vif(member));
        break;
    case REC_VM:
        MODEL_FOR_EACH_REF (ref, &model_vm(member)->vifs) {
            flatten_vif(f, model_vif(ref->from));
        }
        break;
    case REC_GROUP:
        walk_push(&f->walk, model_group(member));
        break;
    default:
        break;
    }
}

static void
flatten(struct model *m, struct model_group *into)
{
    struct flattening f = {.into = into};
    struct model_group *group;
    struct model_ref *ref;

    if (into->flat_good) {
        return;
    }
    free(into->flat.p);
    free(into->flat_vifs);
    into->flat = (struct model_prefixes){NULL, 0};
    into->flat_vifs = NULL;
    into->n_flat_vifs = 0;
    walk_init(&f.walk, m);
    walk_push(&f.walk, into);
    while ((group = walk_pop(&f.walk))) {
        add_prefixes(&into->flat, &f.cap_prefixes, &group->own);
        LIST_FOR_EACH (ref, from_node, &group->obj.refs_out) {
            if (ref->to) {
                flatten_member(&f, ref->to);
            }
        }
    }
    free(f.walk.stack);
    model_prefixes_reduce(&into->flat);
    if (into->n_flat_vifs) {
        qsort(into->flat_vifs, into->n_flat_vifs, sizeof *into->flat_vifs, compare_vifs);
    }
    into->flat_good = true;
}

const struct model_prefixes *
model_group_prefixes(struct model *m, struct model_group *group)
{
    flatten(m, group);
    return &group->flat;
}

struct model_vif **
model_group_vifs(struct model *m, struct model_group *group, size_t *n)
{
    flatten(m, group);
    *n = group->n_flat_vifs;
    return group->flat_vifs;
}

/* --- prefixes -------------------------------------------------------------------------------- */

static int
compare_prefixes(const void *a_, const void *b_)
{
    const struct model_prefix *a = a_, *b = b_;
    int cmp = memcmp(&a->addr, &b->addr, sizeof a->addr);

    return cmp ? cmp : (int)a->plen - (int)b->plen;
}

/* The first 'n' of 64 bits, or all of them. */
static ovs_be64
first_bits(unsigned n)
{
    return n ? htonll(UINT64_MAX << (64 - MIN(n, 64))) : 0;
}

bool
model_prefix_contains(const struct model_prefix *p, const struct model_prefix *in)
{
    ovs_be64 a[2], b[2];

    memcpy(a, &p->addr, sizeof a);
    memcpy(b, &in->addr, sizeof b);
    return in->plen >= p->plen && !((a[1] ^ b[1]) & first_bits(p->plen > 64 ? p->plen - 64 : 0)) &&
           !((a[0] ^ b[0]) & first_bits(p->plen)) &&
           model_prefix_is_v4(p) == model_prefix_is_v4(in);
}

void
model_prefixes_reduce(struct model_prefixes *all)
{
    struct model_prefix last[2];
    bool has_last[2] = {false, false};
    size_t n = 0;

    if (all->n < 2) {
        return;
    }
    /* A prefix sorts right before all of its family that is in it. */
    qsort(all->p, all->n, sizeof *all->p, compare_prefixes);
    for (size_t i = 0; i < all->n; i++) {
        bool v4 = model_prefix_is_v4(&all->p[i]);

        if (!has_last[v4] || !model_prefix_contains(&last[v4], &all->p[i])) {
            last[v4] = all->p[i];
            has_last[v4] = true;
            all->p[n++] = all->p[i];
        }
    }
    all->n = n;
}

bool
model_prefixes_equal(const struct model_prefixes *a, const struct model_prefixes *b)
{
    if (a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        if (compare_prefixes(&a->p[i], &b->p[i])) {
            return false;
        }
    }
    return true;
}
