/* later: packets that want more than a plain output.
 *
 * They have been found and counted; what is left is to edit them, to ask the
 * verdict that their entry has, or to give them to the slow path. */
#include "lane.h"

/* A program's edits and output on one packet. */
static void
edit_one(struct worker *w, const struct exact_entry *e, struct rte_mbuf *m)
{
    if (likely_(act_edit(m, e->program))) {
        out_one(w, e->port, m);
    } else {
        worker_drop(w, ENGINE_DROP_HEADROOM, &m, 1);
    }
}

/* What a cached verdict makes of its packet; false: nothing, the slow path has
 * to. */
static bool
go_by_verdict(struct worker *w, struct exact_entry *e, struct rte_mbuf *m, uint16_t tcp_flags)
{
    struct verdict *v = e->verdict;
    uint32_t bytes = m->data_len;

    if (!v->verdict) {
        return false;
    }
    if (atomic_load_explicit(&v->slot->gen, memory_order_relaxed) != v->gen ||
        !w->engine->ops->track(w, v->verdict, m)) {
        /* What follows it in this burst must not overtake it. */
        w->engine->ops->verdict_free(w, v->verdict);
        v->verdict = NULL;
        return false;
    }
    WORKER_ADD(w, verdicts, 1);
    slot_count(v->slot, 1, bytes, w->now, tcp_flags);
    if (e->kind & ENTRY_EDIT) {
        edit_one(w, e, m);
    } else {
        out_one(w, e->port, m);
    }
    return true;
}

static void
track_soon(const struct worker *w, const struct verdict *v)
{
    if (v->verdict && w->engine->ops->track_soon) {
        w->engine->ops->track_soon(v->verdict);
    }
}

/* Hands over packets by program, those of each in their order. */
static void
go_slow(struct worker *w, uint16_t in_port, struct rte_mbuf **pkts, const struct program **programs,
        unsigned n)
{
    struct rte_mbuf *batch[ENGINE_BURST];

    while (n) {
        const struct program *p = programs[0];
        unsigned rest = 0, taken = 0;

        for (unsigned i = 0; i < n; i++) {
            if (programs[i] == p) {
                batch[taken++] = pkts[i];
            } else {
                pkts[rest] = pkts[i];
                programs[rest++] = programs[i];
            }
        }
        act_slow(w, in_port, p, batch, taken);
        n = rest;
    }
}

void
go_later(struct worker *w, uint16_t in_port, const struct entry_pile *p)
{
    struct rte_mbuf *slow[ENGINE_BURST];
    const struct program *programs[ENGINE_BURST];
    unsigned n_slow = 0;

    for (unsigned i = 0; i < p->n; i++) {
        if (p->entries[i]->kind & ENTRY_VERDICT) {
            __builtin_prefetch(p->entries[i]->verdict);
        }
    }
    for (unsigned i = 0; i < p->n; i++) {
        struct exact_entry *e = p->entries[i];
        struct rte_mbuf *m = p->pkts[i];

        if (i + 8 < p->n && (p->entries[i + 8]->kind & ENTRY_VERDICT)) {
            __builtin_prefetch(p->entries[i + 8]->verdict->verdict);
        }
        if (i + 4 < p->n && (p->entries[i + 4]->kind & ENTRY_VERDICT)) {
            track_soon(w, p->entries[i + 4]->verdict);
        }
        if (e->kind & ENTRY_VERDICT) {
            if (!go_by_verdict(w, e, m, p->tcp_flags[i])) {
                slow[n_slow] = m;
                programs[n_slow++] = e->verdict->first;
            }
        } else if (e->kind & ENTRY_SLOW) {
            slow[n_slow] = m;
            programs[n_slow++] = e->program;
        } else {
            edit_one(w, e, m);
        }
    }
    go_slow(w, in_port, slow, programs, n_slow);
}
