/* burst: worker_run(), a burst's way from its frames to the ports.
 *
 *   1  parse and hash every frame, prefetch its bucket
 *   2  match the bucket's tags, prefetch the entry
 *   3  compare the key and the generation, count, and go where the entry says
 *
 * Each step runs over the whole burst before the next begins, so that memory
 * that a step has asked for arrives while others are at it.  Frames are
 * divided by the form of their keys into two lanes; odd ones and those the
 * cache does not know go to ops->miss() when the others are through.
 *
 * Plain outputs and drops are done in step 3.  What costs more is collected
 * and done after it; packets of one flow take one way, so their order stays. */
#include "state.h"

#define AHEAD 8u       /* frames to prefetch ahead */
#define SLOTS_AHEAD 6u /* flows' counters */

/* Packets of one form of key. */
struct lane {
    unsigned n;
    bool same; /* all keys are equal */
    uint16_t tcp_flags_or;
    uint64_t bytes;
    struct rte_mbuf **pkts;
    struct exact_entry *entries[ENGINE_BURST];
    uint32_t hashes[ENGINE_BURST];
    uint16_t tcp_flags[ENGINE_BURST];
};

struct narrow_lane {
    struct lane l;
    struct key keys[ENGINE_BURST];
};

struct wide_lane {
    struct lane l;
    struct rte_mbuf *pkts[ENGINE_BURST];
    struct key_wide keys[ENGINE_BURST];
};

/* Packets for later. */
struct pile {
    unsigned n;
    struct rte_mbuf *pkts[ENGINE_BURST];
};

/* Packets whose entries want more than a plain output. */
struct entry_pile {
    unsigned n;
    struct rte_mbuf *pkts[ENGINE_BURST];
    struct exact_entry *entries[ENGINE_BURST];
    uint16_t tcp_flags[ENGINE_BURST];
};

static struct slot no_slot = {.gen = 1};
/* Matches no key: no port has this number; and is never valid. */
static struct exact_wide no_entry = {.e = {.key = {.in_port = PORT_DROP}, .slot = &no_slot}};

static inline void
pile_add(struct pile *p, struct rte_mbuf *m)
{
    p->pkts[p->n++] = m;
}

/* --- 1: parse --------------------------------------------------------------- */

struct parse {
    struct narrow_lane *narrow;
    struct wide_lane *wide;
    struct pile *odd, *brief;
    const struct key_masks *masks;
    uint16_t in_port;
};

/* Parses frames of the common form into places of the narrow lane that are
 * their own in the burst.  The others' indices go to 'others'; returns how
 * many there are.  While there are none, the lane is the burst. */
static inline __attribute__((always_inline)) unsigned
parse_common(const struct parse *p, struct rte_mbuf **pkts, unsigned n, uint8_t *others)
{
    const __m256i mask = _mm256_load_si256(&p->masks->narrow.v), port = key_port(p->in_port);
    struct key *keys = p->narrow->keys;
    uint16_t *tcp_flags = p->narrow->l.tcp_flags, flags_or = 0;
    __m256i differ = _mm256_setzero_si256();
    unsigned n_others = 0;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < n && i < AHEAD; i++) {
        __builtin_prefetch(rte_pktmbuf_mtod(pkts[i], void *));
    }
    for (unsigned i = 0; i < n; i++) {
        const struct rte_mbuf *m = pkts[i];
        uint32_t len = m->data_len;

        if (i + AHEAD < n) {
            __builtin_prefetch(rte_pktmbuf_mtod(pkts[i + AHEAD], void *));
        }
        bytes += len;
        if (likely_(key_parse_common(rte_pktmbuf_mtod(m, const uint8_t *), len, port, mask,
                                     &keys[i], &tcp_flags[i]))) {
            flags_or |= tcp_flags[i];
            differ = _mm256_or_si256(differ, _mm256_xor_si256(keys[i].v, keys[0].v));
        } else {
            others[n_others++] = i;
        }
    }
    p->narrow->l.n = n;
    p->narrow->l.pkts = pkts;
    p->narrow->l.same = _mm256_testz_si256(differ, differ);
    p->narrow->l.bytes = bytes;
    p->narrow->l.tcp_flags_or = flags_or;
    return n_others;
}

static void
parse_other(const struct parse *p, struct rte_mbuf *m, unsigned *to)
{
    struct narrow_lane *narrow = p->narrow;
    struct wide_lane *wide = p->wide;
    struct key_wide *k = &wide->keys[wide->l.n];
    uint16_t tcp_flags;

    if (m->data_len < 14) {
        pile_add(p->brief, m);
        return;
    }
    switch (key_parse(rte_pktmbuf_mtod(m, uint8_t *), m->data_len, p->in_port, p->masks, k,
                      &tcp_flags)) {
    case SHAPE_L2:
    case SHAPE_IPV4:
        narrow->keys[*to] = k->key;
        narrow->l.tcp_flags[*to] = tcp_flags;
        narrow->l.pkts[(*to)++] = m;
        break;
    case SHAPE_IPV6:
        wide->pkts[wide->l.n] = m;
        wide->l.tcp_flags[wide->l.n++] = tcp_flags;
        break;
    case SHAPE_ODD:
        pile_add(p->odd, m);
        break;
    }
}

static void
sum_up(struct lane *l)
{
    l->bytes = l->tcp_flags_or = 0;
    for (unsigned i = 0; i < l->n; i++) {
        l->bytes += l->pkts[i]->data_len;
        l->tcp_flags_or |= l->tcp_flags[i];
    }
}

/* Gives each of the others its place, and closes the gaps in the narrow lane
 * ('kept' is its new list of packets). */
static __attribute__((noinline)) void
parse_others(const struct parse *p, struct rte_mbuf **pkts, unsigned n, const uint8_t *others,
             unsigned n_others, struct rte_mbuf **kept)
{
    struct narrow_lane *narrow = p->narrow;
    struct wide_lane *wide = p->wide;
    struct key_wide differ = {0};
    unsigned to = 0, at = 0;

    narrow->l.pkts = kept;
    for (unsigned i = 0; i < n; i++) {
        if (at < n_others && others[at] == i) {
            at++;
            parse_other(p, pkts[i], &to);
        } else {
            narrow->keys[to] = narrow->keys[i];
            narrow->l.tcp_flags[to] = narrow->l.tcp_flags[i];
            kept[to++] = pkts[i];
        }
    }
    narrow->l.n = to;
    narrow->l.same = false;
    wide->l.pkts = wide->pkts;
    for (unsigned i = 0; i < wide->l.n; i++) {
        const struct key_wide *k = &wide->keys[i];
        differ.key.v |= k->key.v ^ wide->keys[0].key.v;
        differ.ip6.v |= k->ip6.v ^ wide->keys[0].ip6.v;
    }
    differ.key.v |= differ.ip6.v;
    wide->l.same = _mm256_testz_si256(differ.key.v, differ.key.v);
    sum_up(&wide->l);
}

/* --- 2: find ------------------------------------------------------------------ */

static inline __attribute__((always_inline)) const struct key *
key_at(const struct key *keys, unsigned i, bool wide)
{
    return wide ? &((const struct key_wide *)keys)[i].key : &keys[i];
}

static inline __attribute__((always_inline)) uint32_t
hash_of(const struct key *k, bool wide)
{
    return wide ? key_hash_wide((const struct key_wide *)k) : key_hash(k);
}

static inline __attribute__((always_inline)) void
match(const struct exact *x, struct lane *l, const struct key *keys, bool wide)
{
    const unsigned n = l->n;

    for (unsigned i = 0; i < n; i++) {
        uint32_t hash = hash_of(key_at(keys, i, wide), wide);
        __builtin_prefetch(exact_bucket(x, hash));
        l->hashes[i] = hash;
    }
    for (unsigned i = 0; i < n; i++) {
        uint32_t hash = l->hashes[i];
        const struct exact_bucket *b = exact_bucket(x, hash);
        uint32_t m = exact_match(b, hash);
        struct exact_entry *e;

        if (likely_(m)) {
            e = exact_at(x, b->index[__builtin_ctz(m) / 2], wide);
        } else {
            e = exact_find(x, key_at(keys, i, wide), hash);
            e = e ? e : &no_entry.e;
        }
        __builtin_prefetch(e);
        if (wide) {
            __builtin_prefetch((char *)e + 64);
        }
        l->entries[i] = e;
    }
}

/* --- 3: compare, count, go ------------------------------------------------------ */

/* A program's edits and output on one packet. */
static void
edit_one(struct worker *w, const struct exact_entry *e, struct rte_mbuf *m)
{
    if (likely_(e->kind & ENTRY_PUSH ? act_push_tag(m, e->tag) : act_edit(m, e->program))) {
        out_one(w, e->port, m);
    } else {
        worker_drop(w, ENGINE_DROP_HEADROOM, &m, 1);
    }
}

/* All packets have the same key: they are looked up, counted and handed over
 * as one.  False: not known, or a verdict has to see each; nothing was done. */
static bool
go_together(struct worker *w, uint16_t in_port, const struct exact *x, struct lane *l,
            const struct key *k, bool wide)
{
    struct exact_entry *e = exact_find(x, k, hash_of(k, wide));

    if (!e || (e->kind & ENTRY_VERDICT) || !exact_is_current(e)) {
        return false;
    }
    e->used = 1;
    slot_count(e->slot, l->n, l->bytes, w->now, l->tcp_flags_or);
    act_run(w, in_port, e->program, l->pkts, l->n);
    return true;
}

static inline __attribute__((always_inline)) void
go_apart(struct worker *w, const struct exact *x, struct lane *l, const struct key *keys,
         struct entry_pile *later, struct pile *misses, bool wide)
{
    const int64_t now = w->now;
    const unsigned n = l->n;
    unsigned n_later = 0;

    for (unsigned i = 0; i < n; i++) {
        struct rte_mbuf *m = l->pkts[i];
        struct exact_entry *e = l->entries[i];
        const struct key *k = key_at(keys, i, wide);

        if (i + SLOTS_AHEAD < n) {
            __builtin_prefetch(l->entries[i + SLOTS_AHEAD]->slot);
        }
        if (unlikely_(!exact_is(e, k, wide))) {
            e = e == &no_entry.e ? NULL : exact_find(x, k, l->hashes[i]);
            if (!e) {
                pile_add(misses, m);
                continue;
            }
        }
        if (unlikely_(!exact_is_current(e))) {
            pile_add(misses, m);
            continue;
        }
        slot_count(e->slot, 1, m->data_len, now, l->tcp_flags[i]);
        if (likely_((e->way & ENTRY_WAY_MASK) == ENTRY_WAY_PLAIN)) {
            out_one(w, e->port, m);
            continue;
        }
        e->used = 1;
        if (e->kind == ENTRY_PLAIN) {
            out_one(w, e->port, m);
        } else {
            later->pkts[n_later] = m;
            later->entries[n_later] = e;
            later->tcp_flags[n_later++] = l->tcp_flags[i];
        }
    }
    later->n = n_later;
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
    if (e->kind & (ENTRY_EDIT | ENTRY_PUSH)) {
        act_edit(m, e->program) ? out_one(w, e->port, m)
                                : worker_drop(w, ENGINE_DROP_HEADROOM, &m, 1);
    } else {
        out_one(w, e->port, m);
    }
    return true;
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

static __attribute__((noinline)) void
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

        if (i + 4 < p->n && (p->entries[i + 4]->kind & ENTRY_VERDICT)) {
            __builtin_prefetch(p->entries[i + 4]->verdict->verdict);
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

static inline __attribute__((always_inline)) void
run_lane(struct worker *w, uint16_t in_port, const struct exact *x, struct lane *l,
         const struct key *keys, struct pile *misses, bool wide)
{
    struct entry_pile later;
    unsigned missed = misses->n;

    if (!l->same || !go_together(w, in_port, x, l, keys, wide)) {
        match(x, l, keys, wide);
        go_apart(w, x, l, keys, &later, misses, wide);
        if (later.n) {
            go_later(w, in_port, &later);
        }
    }
    WORKER_ADD(w, hits, l->n - (misses->n - missed));
}

/* --- all of it --------------------------------------------------------------------- */

/* A burst that is not all of the common form. */
static __attribute__((noinline)) void
run_mixed(struct worker *w, const struct parse *p, struct rte_mbuf **pkts, unsigned n,
          const uint8_t *others, unsigned n_others)
{
    struct rte_mbuf *kept[ENGINE_BURST];
    struct wide_lane *wide = p->wide;
    struct pile *misses = p->odd;

    parse_others(p, pkts, n, others, n_others, kept);
    if (misses->n) {
        WORKER_ADD(w, odd, misses->n);
    }
    if (p->narrow->l.n) {
        run_lane(w, p->in_port, &w->narrow, &p->narrow->l, p->narrow->keys, misses, false);
    }
    if (wide->l.n) {
        run_lane(w, p->in_port, &w->wide, &wide->l, &wide->keys[0].key, misses, true);
    }
    worker_drop(w, ENGINE_DROP_SHORT, p->brief->pkts, p->brief->n);
}

static void
run_cached(struct worker *w, uint16_t in_port, struct rte_mbuf **pkts, unsigned n)
{
    struct narrow_lane narrow;
    struct wide_lane wide;
    struct pile misses, brief;
    uint8_t others[ENGINE_BURST];
    unsigned n_others;
    const struct parse p = {
        .narrow = &narrow,
        .wide = &wide,
        .odd = &misses,
        .brief = &brief,
        .masks = atomic_load_explicit(&w->engine->masks, memory_order_acquire),
        .in_port = in_port,
    };

    wide.l.n = misses.n = brief.n = 0;
    n_others = parse_common(&p, pkts, n, others);
    if (likely_(!n_others)) {
        run_lane(w, in_port, &w->narrow, &narrow.l, narrow.keys, &misses, false);
    } else {
        run_mixed(w, &p, pkts, n, others, n_others);
    }
    if (unlikely_(misses.n)) {
        WORKER_ADD(w, misses, misses.n);
        w->engine->ops->miss(w, in_port, misses.pkts, misses.n);
    }
}

/* Without a cache. */
static void
run_uncached(struct worker *w, uint16_t in_port, struct rte_mbuf **pkts, unsigned n)
{
    struct pile all = {0}, brief = {0};

    for (unsigned i = 0; i < n; i++) {
        pile_add(pkts[i]->data_len < 14 ? &brief : &all, pkts[i]);
    }
    worker_drop(w, ENGINE_DROP_SHORT, brief.pkts, brief.n);
    if (all.n) {
        WORKER_ADD(w, misses, all.n);
        w->engine->ops->miss(w, in_port, all.pkts, all.n);
    }
}

static void
keep_cache(struct worker *w, struct exact *x)
{
    exact_settle(x);
    exact_age(x, w->now);
}

void
worker_run(struct worker *w, uint16_t in_port, struct rte_mbuf **pkts, unsigned n, int64_t now)
{
    w->now = now;
    epoch_quiesce(&w->reader);
    if (n) {
        WORKER_ADD(w, packets, n);
        if (w->narrow.max) {
            run_cached(w, in_port, pkts, n);
        } else {
            run_uncached(w, in_port, pkts, n);
        }
        worker_flush(w);
    }
    keep_cache(w, &w->narrow);
    keep_cache(w, &w->wide);
    worker_publish(w);
}
