/* worker: what a thread needs to push packets; its cache learns here. */
#include "state.h"

#include <stdlib.h>

/* Entries of each cache that survive worker_trim(). */
#define TRIM_KEEP 256u
/* Chunks of counters (2 KiB each) that a worker may keep over one. */
#define TRIM_CHUNKS 16u

static void
verdict_release(void *w_, struct verdict *v)
{
    struct worker *w = w_;

    if (v->verdict) {
        w->engine->ops->verdict_free(w, v->verdict);
    }
    free(v);
}

struct worker *
worker_create(struct engine *e, unsigned cache_max, void *aux)
{
    struct worker *w = reserve(sizeof *w); /* lists that are never used cost nothing */

    if (!w || slots_init(&w->slots)) {
        unreserve(w, sizeof *w);
        return NULL;
    }
    w->engine = e;
    w->aux = aux;
    out_init(w);
    cache_max = cache_max < ENGINE_FLOWS_MAX * 4 ? cache_max : ENGINE_FLOWS_MAX * 4;
    smc_init(&w->smc, cache_max);
    exact_init(&w->narrow, false, cache_max, verdict_release, w);
    exact_init(&w->wide, true, cache_max, verdict_release, w);
    epoch_register(&w->reader);
    record_add_worker(w);
    return w;
}

void
worker_destroy(struct worker *w)
{
    if (w) {
        worker_begin(w);
        worker_flush(w);
        smc_done(&w->smc);
        exact_done(&w->narrow);
        exact_done(&w->wide);
        worker_end(w);
        record_remove_worker(w);
        slots_done(&w->engine->counters, &w->slots);
        epoch_unregister(&w->reader);
        unreserve(w, sizeof *w);
    }
}

void *
worker_aux(const struct worker *w)
{
    return w->aux;
}

struct engine *
worker_engine(const struct worker *w)
{
    return w->engine;
}

void
worker_set_partial(struct worker *w)
{
    w->partial = true;
}

void
worker_begin(struct worker *w)
{
    if (epoch_is_online(&w->reader)) {
        epoch_quiesce(&w->reader);
    } else {
        epoch_online(&w->reader);
    }
}

void
worker_end(struct worker *w)
{
    worker_flush(w);
    if (unlikely_(w->records)) {
        record_park(w);
    }
    epoch_offline(&w->reader);
}

int64_t
worker_now(const struct worker *w)
{
    return w->now;
}

void
worker_set_now(struct worker *w, int64_t now)
{
    w->now = now;
}

/* --- learning -------------------------------------------------------------------- */

/* The entry of flow 'f' as a whole, where that may treat all of its packets
 * alike; NULL. */
static struct exact_entry *
learn_flow(struct worker *w, const struct fast_flow *f, const struct program *p,
           const struct key *k, uint32_t hash)
{
    uint16_t *note = slots_note(&w->slots, f->id);
    struct exact_entry *e;
    struct key_masks masks;

    if (!f->mask) {
        return NULL;
    }
    if (p->kind == PROGRAM_TRACK) {
        /* Its connections have entries of their own, and may have had none. */
        smc_forget(&w->smc, f->id, *note);
        return NULL;
    }
    key_masks_init(&masks, f->mask);
    e = smc_learn(&w->smc, k, hash, f->id, &masks.narrow, note);
    if (e) {
        /* More of it may come before its keys are known. */
        w->hot[k->in_port % HOT_PORTS] = *note;
    }
    return e;
}

/* The entry for packets like 'm', filled in for flow 'f' and its program '*p',
 * which must be 'only' unless that is NULL, and track connections if 'tracks': an
 * entry of a whole flow has no verdict.  NULL: not learned. */
static struct exact_entry *
learn(struct worker *w, uint16_t in_port, const struct rte_mbuf *m, struct fast_flow *f,
      const struct program *only, bool tracks, const struct program **p)
{
    /* After 'f' was found: engine_set_mask(). */
    const struct key_masks *masks = atomic_load_explicit(&w->engine->masks, memory_order_acquire);
    struct exact_entry *e;
    struct key_wide k;
    struct slot *slot;
    uint16_t tcp_flags;
    uint32_t gen, hash;
    enum shape shape = key_parse(rte_pktmbuf_mtod(m, const uint8_t *), m->data_len, in_port, masks,
                                 &k, &tcp_flags);

    if (shape == SHAPE_ODD || !(f->covers & 1u << shape) || !w->narrow.max) {
        return NULL;
    }
    slot = slots_get(&w->engine->counters, &w->slots, f->id);
    if (!slot) {
        return NULL;
    }
    /* The generation first, then what it stands for: counters.h. */
    gen = atomic_load(&slot->gen);
    *p = atomic_load(&f->program);
    if (atomic_load(&f->gone) || (only && *p != only) || (tracks && (*p)->kind != PROGRAM_TRACK)) {
        return NULL;
    }
    if (shape == SHAPE_IPV6) {
        e = exact_insert(&w->wide, &k.key, key_hash_wide(&k));
    } else {
        hash = key_hash(&k.key);
        e = learn_flow(w, f, *p, &k.key, hash);
        e = e ? e : exact_insert(&w->narrow, &k.key, hash);
    }
    if (e) {
        e->slot = slot;
        e->gen = gen;
        WORKER_ADD(w, learned, 1);
    }
    return e;
}

bool
worker_learns_in_vain(const struct worker *w)
{
    return w->smc.vain;
}

/* Where e's packets go, which is not SLOW. */
static void
set_way(struct exact_entry *e, const struct program *p)
{
    e->program = p;
    e->port = p->kind == PROGRAM_DROP ? PORT_DROP : p->port;
    e->kind = p->kind == PROGRAM_EDIT ? ENTRY_EDIT : ENTRY_PLAIN;
}

static bool
is_slow(const struct program *p)
{
    return p->kind == PROGRAM_SLOW || p->kind == PROGRAM_TRACK;
}

void
worker_learn(struct worker *w, uint16_t in_port, const struct rte_mbuf *m, struct fast_flow *f)
{
    const struct program *p;
    struct exact_entry *e = learn(w, in_port, m, f, NULL, false, &p);

    if (!e) {
        return;
    }
    set_way(e, p);
    if (is_slow(p)) {
        e->kind = ENTRY_SLOW;
    } else if (e->kind == ENTRY_EDIT && p->n_edits == 1 && p->edits[0].type == EDIT_PUSH_VLAN) {
        e->kind = ENTRY_PUSH;
        e->tag = act_tag(&p->edits[0]);
    }
}

void
worker_learn_verdict(struct worker *w, uint16_t in_port, const struct rte_mbuf *m,
                     struct fast_flow *f, struct fast_flow *second, void *verdict)
{
    const struct program *first, *p;
    struct verdict *v = malloc(sizeof *v);
    struct slot *slot = slots_get(&w->engine->counters, &w->slots, second->id);
    struct exact_entry *e;
    uint32_t gen;

    if (!v || !slot) {
        goto refuse;
    }
    gen = atomic_load(&slot->gen);
    p = atomic_load(&second->program);
    if (atomic_load(&second->gone) || is_slow(p)) {
        goto refuse;
    }
    /* What was decided by a program that the flow no longer has is of no use. */
    e = learn(w, in_port, m, f, w->slow, true, &first);
    if (!e) {
        goto refuse;
    }
    *v = (struct verdict){.verdict = verdict, .slot = slot, .first = first, .gen = gen};
    set_way(e, p);
    e->kind |= ENTRY_VERDICT;
    e->verdict = v;
    return;

refuse:
    free(v);
    w->engine->ops->verdict_free(w, verdict);
}

/* --- counting ------------------------------------------------------------------------ */

void
worker_count_n(struct worker *w, const struct fast_flow *f, unsigned packets, uint64_t bytes,
               uint16_t tcp_flags)
{
    struct slot *slot = slots_get(&w->engine->counters, &w->slots, f->id);

    if (slot) {
        slot_count(slot, packets, bytes, w->now, tcp_flags);
    }
}

void
worker_count(struct worker *w, const struct fast_flow *f, const struct rte_mbuf *m)
{
    struct key_wide k;
    uint16_t tcp_flags;

    key_parse(rte_pktmbuf_mtod(m, const uint8_t *), m->data_len, 0, &w->engine->exact, &k,
              &tcp_flags);
    worker_count_n(w, f, 1, m->data_len, tcp_flags);
}

/* --- memory and statistics -------------------------------------------------------------- */

void
worker_trim(struct worker *w)
{
    /* Counters can only go when no entry leads to them. */
    bool all = w->slots.n_chunks > TRIM_CHUNKS;

    smc_trim(&w->smc, all);
    exact_trim(&w->narrow, all ? 0 : TRIM_KEEP);
    exact_trim(&w->wide, all ? 0 : TRIM_KEEP);
    if (all) {
        slots_trim(&w->engine->counters, &w->slots);
    }
    worker_publish(w);
}

void
worker_publish(struct worker *w)
{
    const struct exact *a = &w->narrow, *b = &w->wide;

    atomic_store_explicit(&w->counts.entries, w->smc.n + a->n + b->n, memory_order_relaxed);
    atomic_store_explicit(&w->counts.size, smc_size(&w->smc) + a->capacity + b->capacity,
                          memory_order_relaxed);
    atomic_store_explicit(&w->counts.evicted, a->evicted + b->evicted, memory_order_relaxed);
}

void
worker_stats(const struct worker *w, struct worker_stats *s)
{
#define GET(field) atomic_load_explicit(&w->counts.field, memory_order_relaxed)
    *s = (struct worker_stats){
        .packets = GET(packets),
        .cache_hits = GET(hits),
        .misses = GET(misses),
        .verdicts = GET(verdicts),
        .odd = GET(odd),
        .learned = GET(learned),
        .evicted = GET(evicted),
        .cache_entries = GET(entries),
        .cache_size = GET(size),
    };
    for (unsigned i = 0; i < ENGINE_N_DROPS; i++) {
        s->drops[i] = GET(drops[i]);
    }
#undef GET
}
