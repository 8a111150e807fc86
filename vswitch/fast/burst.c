/* burst: worker_run(), a burst's way from its frames to the ports.
 *
 *   1  parse and hash every frame, prefetch its bucket      parse.c
 *   2  match the bucket's tags, prefetch the entry
 *   3  compare the key and the generation, count, and go where the entry says
 *   4  what is more than a plain output                     later.c
 *
 * Each step runs over the whole burst before the next begins, so that memory
 * that a step has asked for arrives while others are at it.  Frames are
 * divided by the form of their keys into two lanes; odd ones and those the
 * cache does not know go to ops->miss() when the others are through.
 *
 * Packets of one flow take one way, so their order stays.
 *
 * Bursts of one key are looked up once, bursts of one flow counted once; the
 * last burst says what to expect of the next. */
#include "lane.h"

#define SLOTS_AHEAD 6u /* flows' counters */

static struct slot no_slot = {.gen = 1};
/* Matches no key: no port has this number; and is never valid. */
static struct exact_wide no_entry = {.e = {.key = {.in_port = PORT_DROP}, .slot = &no_slot}};

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

/* Returns whether packets seem to be of more than one entry. */
static inline __attribute__((always_inline)) bool
match(const struct exact *x, struct lane *l, const struct key *keys, bool wide)
{
    struct exact_entry *first = NULL;
    const unsigned n = l->n;
    bool diverse = false;

    for (unsigned i = 0; i < n && !l->hashed; i++) {
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
        first = i ? first : e;
        diverse |= e != first;
    }
    return diverse;
}

/* --- records ------------------------------------------------------------------- */

/* A packet's bytes as records count them, of a frame that is not odd. */
static inline __attribute__((always_inline)) uint32_t
record_bytes(const struct rte_mbuf *m, const struct key *k, bool wide, uint8_t *tos)
{
    const uint8_t *l3 = rte_pktmbuf_mtod(m, const uint8_t *) + (k->vlan_tci ? 18 : 14);

    *tos = k->nw_tos;
    if (wide) {
        return key_load_be16_(l3 + 4) + 40;
    }
    return k->eth_type == RTE_BE16(0x0800) ? key_load_be16_(l3 + 2) : m->data_len;
}

static inline bool
is_skipped(const struct record_lane *r, unsigned i)
{
    return r->skip[i / 64] >> i % 64 & 1;
}

/* Which packets of 'n' are not recorded: all but one in so many. */
static __attribute__((noinline)) void
sample(struct worker *w, struct record_lane *r, unsigned n, uint32_t rate)
{
    for (unsigned i = 0; i < n; i++) {
        if (--w->sample_left) {
            r->skip[i / 64] |= UINT64_C(1) << i % 64;
        } else {
            w->sample_left = rate;
        }
    }
    r->same = false;
}

/* Whole keys become the cache's and the records'.  Both tables are asked to
 * come near. */
static inline __attribute__((always_inline)) void
divide(struct worker *w, struct lane *l, struct key *keys, struct record_lane *r, bool wide)
{
    const struct key_masks *masks = atomic_load_explicit(&w->engine->masks, memory_order_acquire);
    const __m256i mask = wide ? masks->wide.key.v : masks->narrow.v, mask6 = masks->wide.ip6.v;
    const __m256i rmask = wide ? record_masks.wide.key.v : record_masks.narrow.v;
    const uint32_t rate =
        atomic_load_explicit(&w->engine->recording.sampling, memory_order_relaxed);
    __m256i differ = _mm256_setzero_si256(), rdiffer = differ, first = differ, rfirst = differ,
            first6 = differ, rfirst6 = differ;
    const unsigned n = l->n;

    r->bytes = l->bytes = l->tcp_flags_or = 0;
    for (unsigned i = 0; i < n; i++) {
        struct key *k = wide ? &((struct key_wide *)keys)[i].key : &keys[i];
        struct key_wide *rk = &r->keys[i];
        __m256i v = _mm256_load_si256(&k->v), rv = _mm256_and_si256(v, rmask);
        uint32_t bytes = record_bytes(l->pkts[i], k, wide, &r->tos[i]);

        v = _mm256_and_si256(v, mask);
        first = i ? first : v;
        rfirst = i ? rfirst : rv;
        differ = _mm256_or_si256(differ, _mm256_xor_si256(v, first));
        rdiffer = _mm256_or_si256(rdiffer, _mm256_xor_si256(rv, rfirst));
        _mm256_store_si256(&k->v, v);
        _mm256_store_si256(&rk->key.v, rv);
        if (wide) {
            __m256i *a = &((struct key_wide *)keys)[i].ip6.v;
            __m256i v6 = _mm256_load_si256(a), m6 = _mm256_and_si256(v6, mask6);

            first6 = i ? first6 : m6;
            rfirst6 = i ? rfirst6 : v6;
            differ = _mm256_or_si256(differ, _mm256_xor_si256(m6, first6));
            rdiffer = _mm256_or_si256(rdiffer, _mm256_xor_si256(v6, rfirst6));
            _mm256_store_si256(a, m6);
            _mm256_store_si256(&rk->ip6.v, v6);
        }
        r->bytes_of[i] = bytes;
        r->bytes += bytes;
        r->hashes[i] = hash_of(&rk->key, wide);
        record_prefetch(w->records, r->hashes[i]);
        l->bytes += l->pkts[i]->data_len;
        l->tcp_flags_or |= l->tcp_flags[i];
    }
    l->same = _mm256_testz_si256(differ, differ);
    l->hashed = false;
    r->same = l->same && _mm256_testz_si256(rdiffer, rdiffer);
    r->skip[0] = r->skip[1] = 0;
    if (unlikely_(rate != 1)) {
        sample(w, r, n, rate);
    }
    for (unsigned i = 0; i < n; i++) {
        r->records[i] = record_guess(w->records, r->hashes[i]);
    }
}

/* Counts packets that have the key of the lane's i-th in its record. */
static inline __attribute__((always_inline)) void
note(struct worker *w, const struct record_lane *r, unsigned i, const struct exact_entry *e,
     unsigned packets, uint64_t bytes, uint16_t tcp_flags, bool wide)
{
    struct record *rec = r->records[i];

    if (unlikely_(!rec || !record_is(rec, &r->keys[i], wide))) {
        rec = record_new(w, &r->keys[i], r->hashes[i], r->tos[i]);
        if (!rec) {
            record_lost(w, packets, bytes);
            return;
        }
    }
    if (unlikely_(rec->out != e->port || !rec->status)) {
        record_other_way(w, rec, e);
    }
    record_count(rec, packets, bytes, tcp_flags, w->now);
}

/* The same for all packets of a lane, which the cache has in one entry. */
static inline __attribute__((always_inline)) void
note_all(struct worker *w, const struct lane *l, const struct record_lane *r,
         const struct exact_entry *e, bool wide)
{
    if (r->same) {
        note(w, r, 0, e, l->n, r->bytes, l->tcp_flags_or, wide);
        return;
    }
    for (unsigned i = 0; i < l->n; i++) {
        if (!is_skipped(r, i)) {
            note(w, r, i, e, 1, r->bytes_of[i], l->tcp_flags[i], wide);
        }
    }
}

/* --- 3: compare, count, go ------------------------------------------------------ */

/* All packets have the same key: they are looked up, counted and handed over
 * as one.  False: not known, or a verdict has to see each; nothing was done. */
static bool
go_together(struct worker *w, uint16_t in_port, const struct exact *x, struct lane *l,
            const struct key *k, bool wide, const struct record_lane *r)
{
    struct exact_entry *e = exact_find(x, k, hash_of(k, wide));

    if (!e || (e->kind & ENTRY_VERDICT) || !exact_is_current(e)) {
        return false;
    }
    e->used = 1;
    if (r) {
        note_all(w, l, r, e, wide);
    }
    slot_count(e->slot, l->n, l->bytes, w->now, l->tcp_flags_or);
    act_run(w, in_port, e->program, l->pkts, l->n);
    return true;
}

/* A burst whose frames say the same: the least that records can cost.  False:
 * nothing was done. */
static inline __attribute__((always_inline)) bool
go_recorded_together(struct worker *w, uint16_t in_port, const struct exact *x, struct lane *l,
                     struct key *keys, struct record_lane *r, bool wide)
{
    const struct key_masks *masks = atomic_load_explicit(&w->engine->masks, memory_order_acquire);
    _Alignas(64) struct key_wide k = {.key = keys[0]};
    struct key_wide *rk = &r->keys[0];

    if (atomic_load_explicit(&w->engine->recording.sampling, memory_order_relaxed) != 1) {
        return false;
    }
    *rk = k;
    if (wide) {
        rk->ip6.v = k.ip6.v = ((struct key_wide *)keys)->ip6.v;
        k.ip6.v = _mm256_and_si256(k.ip6.v, masks->wide.ip6.v);
    }
    rk->key.v = _mm256_and_si256(k.key.v, wide ? record_masks.wide.key.v : record_masks.narrow.v);
    r->bytes = 0;
    for (unsigned i = 0; i < l->n; i++) {
        r->bytes += record_bytes(l->pkts[i], keys, wide, &r->tos[0]);
    }
    k.key.v = _mm256_and_si256(k.key.v, wide ? masks->wide.key.v : masks->narrow.v);
    r->same = true;
    r->hashes[0] = hash_of(&rk->key, wide);
    r->records[0] = record_guess(w->records, r->hashes[0]);
    return go_together(w, in_port, x, l, &k.key, wide, r);
}

/* A burst of several keys but one flow: a single update of its counters, where
 * one a packet would be a chain of loads and stores that wait for each other,
 * and a single run of its program.  False: it is not so, or too little is
 * known; nothing was done. */
static inline __attribute__((always_inline)) bool
go_flow(struct worker *w, uint16_t in_port, struct lane *l, const struct key *keys, bool wide,
        const struct record_lane *r)
{
    const __m256i what = _mm256_setr_epi64x(-1, -1, 0, -1); /* slot, program; gen, way */
    const struct exact_entry *first = l->entries[0];
    const __m256i rest = _mm256_load_si256((const __m256i *)first + 1);
    __m256i keys_differ = _mm256_setzero_si256(), rests_differ = keys_differ;
    const unsigned n = l->n;
    uint16_t tcp_flags = 0;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < n; i++) {
        const struct exact_entry *e = l->entries[i];
        keys_differ = _mm256_or_si256(keys_differ, exact_differ(e, key_at(keys, i, wide), wide));
        rests_differ = _mm256_or_si256(
            rests_differ, _mm256_xor_si256(_mm256_load_si256((const __m256i *)e + 1), rest));
        bytes += l->pkts[i]->data_len;
        tcp_flags |= l->tcp_flags[i];
    }
    if (!_mm256_testz_si256(keys_differ, keys_differ) || !_mm256_testz_si256(rests_differ, what) ||
        (first->kind & ENTRY_VERDICT) || !first->used || !exact_is_current(first)) {
        return false;
    }
    if (r) {
        note_all(w, l, r, first, wide);
    }
    slot_count(first->slot, n, bytes, w->now, tcp_flags);
    act_run(w, in_port, first->program, l->pkts, n);
    return true;
}

static inline __attribute__((always_inline)) void
go_apart(struct worker *w, const struct exact *x, struct lane *l, const struct key *keys,
         struct entry_pile *later, struct pile *misses, bool wide, const struct record_lane *r)
{
    const int64_t now = w->now;
    const unsigned n = l->n;
    const struct slot *first = l->entries[0]->slot;
    bool flows_differ = false;
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
        flows_differ |= e->slot != first;
        if (r && !is_skipped(r, i)) {
            note(w, r, i, e, 1, r->bytes_of[i], l->tcp_flags[i], wide);
        }
        slot_count(e->slot, 1, m->data_len, now, l->tcp_flags[i]);
        if (likely_((e->way & ENTRY_WAY_MASK) == ENTRY_WAY_PLAIN)) {
            out_one(w, e->port, m);
            continue;
        }
        e->used = 1;
        if (e->kind == ENTRY_PLAIN || (e->kind == ENTRY_PUSH && act_push_tag(m, e->tag))) {
            out_one(w, e->port, m);
        } else if (e->kind == ENTRY_PUSH) {
            worker_drop(w, ENGINE_DROP_HEADROOM, &m, 1);
        } else {
            later->pkts[n_later] = m;
            later->entries[n_later] = e;
            later->tcp_flags[n_later++] = l->tcp_flags[i];
        }
    }
    later->n = n_later;
    w->flows_differ = flows_differ;
}

static inline __attribute__((always_inline)) void
run_lane(struct worker *w, uint16_t in_port, const struct exact *x, struct lane *l,
         struct key *keys, struct pile *misses, bool wide, struct record_lane *r)
{
    struct entry_pile later;
    unsigned missed = misses->n;

    if (r) {
        if (l->same && go_recorded_together(w, in_port, x, l, keys, r, wide)) {
            WORKER_ADD(w, hits, l->n);
            return;
        }
        divide(w, l, keys, r, wide);
    }
    if (!l->same || !go_together(w, in_port, x, l, keys, wide, r)) {
        w->keys_differ = match(x, l, keys, wide);
        if (w->flows_differ || !go_flow(w, in_port, l, keys, wide, r)) {
            go_apart(w, x, l, keys, &later, misses, wide, r);
            if (later.n) {
                go_later(w, in_port, &later);
            }
        }
    }
    WORKER_ADD(w, hits, l->n - (misses->n - missed));
}

/* --- all of it --------------------------------------------------------------------- */

/* A burst that is not all of the common form. */
static inline __attribute__((always_inline)) void
run_mixed(struct worker *w, const struct parse *p, struct rte_mbuf **pkts, unsigned n,
          const uint8_t *others, unsigned n_others, struct record_lane *r)
{
    struct rte_mbuf *kept[ENGINE_BURST];
    struct wide_lane *wide = p->wide;
    struct pile *misses = p->odd;

    parse_others(p, pkts, n, others, n_others, kept);
    if (misses->n) {
        WORKER_ADD(w, odd, misses->n);
    }
    if (p->narrow->l.n) {
        run_lane(w, p->in_port, &w->narrow, &p->narrow->l, p->narrow->keys, misses, false, r);
    }
    if (wide->l.n) {
        run_lane(w, p->in_port, &w->wide, &wide->l, &wide->keys[0].key, misses, true, r);
    }
    worker_drop(w, ENGINE_DROP_SHORT, p->brief->pkts, p->brief->n);
}

static __attribute__((noinline)) void
run_mixed_plain(struct worker *w, const struct parse *p, struct rte_mbuf **pkts, unsigned n,
                const uint8_t *others, unsigned n_others)
{
    run_mixed(w, p, pkts, n, others, n_others, NULL);
}

static inline void
run_misses(struct worker *w, uint16_t in_port, struct pile *misses)
{
    if (unlikely_(misses->n)) {
        WORKER_ADD(w, misses, misses->n);
        misses->n = worker_complete(w, misses->pkts, misses->n);
    }
    if (unlikely_(misses->n)) {
        w->engine->ops->miss(w, in_port, misses->pkts, misses->n);
    }
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

    narrow.l.n = wide.l.n = misses.n = brief.n = 0;
    narrow.l.same = wide.l.same = false;
    n_others = parse_common(&w->narrow, &p, pkts, n, others, w->keys_differ);
    if (likely_(!n_others)) {
        run_lane(w, in_port, &w->narrow, &narrow.l, narrow.keys, &misses, false, NULL);
    } else {
        run_mixed_plain(w, &p, pkts, n, others, n_others);
    }
    run_misses(w, in_port, &misses);
}

/* With records: frames are parsed to whole keys. */
static __attribute__((noinline)) void
run_recorded(struct worker *w, uint16_t in_port, struct rte_mbuf **pkts, unsigned n)
{
    struct record_lane records;
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
        .masks = &w->engine->exact,
        .in_port = in_port,
    };

    narrow.l.n = wide.l.n = misses.n = brief.n = 0;
    narrow.l.same = wide.l.same = false;
    n_others = parse_common(&w->narrow, &p, pkts, n, others, false);
    if (likely_(!n_others)) {
        run_lane(w, in_port, &w->narrow, &narrow.l, narrow.keys, &misses, false, &records);
    } else {
        run_mixed(w, &p, pkts, n, others, n_others, &records);
    }
    run_misses(w, in_port, &misses);
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
    run_misses(w, in_port, &all);
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
    if (record_wanted(w)) {
        record_turn(w);
    }
    if (n) {
        WORKER_ADD(w, packets, n);
        if (unlikely_(w->records != NULL) && worker_records(w, in_port) && w->narrow.max) {
            run_recorded(w, in_port, pkts, n);
        } else if (w->narrow.max) {
            run_cached(w, in_port, pkts, n);
        } else {
            run_uncached(w, in_port, pkts, n);
        }
        worker_flush(w);
    }
    keep_cache(w, &w->narrow);
    keep_cache(w, &w->wide);
    if (unlikely_(w->records != NULL)) {
        record_turn_end(w);
    }
    worker_publish(w);
}
