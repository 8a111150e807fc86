/* burst: worker_run(), a burst's way from its frames to the ports.
 *
 *   1  parse and hash every frame, prefetch its bucket      parse.c
 *   2  match the bucket's tags, prefetch the entry          smc.h, exact.h
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
 * last burst says what to expect of the next.  A burst of the megaflow that the
 * port's last one was of is not looked up at all. */
#include "lane.h"

#define SLOTS_AHEAD 6u /* flows' counters */

static const struct key every_bit = {.w = {-1, -1, -1, -1}};
static struct slot no_slot = {.gen = 1};
/* Matches no key: no port has this number; and is never valid. */
static struct exact_wide no_entry = {.e = {.key = {.in_port = PORT_DROP}, .slot = &no_slot}};

/* What 'e' has of a key. */
static inline const struct key *
mask_of(const struct worker *w, const struct exact_entry *e)
{
    /* A difference wraps around where 'e' is no entry of smc's. */
    return (uintptr_t)e - (uintptr_t)w->smc.entries <
                   (uintptr_t)w->smc.capacity * sizeof(struct smc_entry)
               ? smc_mask(e)
               : &every_bit;
}

/* What the port's last burst was all of; NULL. */
static inline struct smc_entry *
hot(const struct worker *w, uint16_t in_port)
{
    uint16_t index = w->hot[in_port % HOT_PORTS];

    return index && index < w->smc.n_entries && w->smc.entries[index].e.key.in_port == in_port
               ? &w->smc.entries[index]
               : NULL;
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

/* The valid entry of a key that is not where it is looked for first; NULL. */
static __attribute__((noinline)) struct exact_entry *
look_again(struct worker *w, const struct key *k, uint32_t hash, bool wide)
{
    struct exact_entry *e = wide ? NULL : smc_find(&w->smc, k, hash);

    if (e) {
        return e;
    }
    e = exact_find(wide ? &w->wide : &w->narrow, k, hash);
    return e && exact_is_current(e) ? e : NULL;
}

/* The i-th packet's entry in the exact-match cache, or elsewhere. */
static inline __attribute__((always_inline)) void
match_exact(struct worker *w, struct lane *l, const struct key *keys, unsigned i, bool wide)
{
    const struct exact *x = wide ? &w->wide : &w->narrow;
    uint32_t hash = l->hashes[i];
    const struct exact_bucket *b = exact_bucket(x, hash);
    uint32_t m = exact_match(b, hash);
    struct exact_entry *e;

    if (likely_(m)) {
        e = exact_at(x, b->index[__builtin_ctz(m) / 2], wide);
        l->masks[i] = &every_bit;
    } else {
        e = look_again(w, key_at(keys, i, wide), hash, wide);
        e = e ? e : &no_entry.e;
        l->masks[i] = mask_of(w, e);
    }
    __builtin_prefetch(e);
    if (wide) {
        __builtin_prefetch((char *)e + 64);
    }
    l->entries[i] = e;
}

/* Keys' megaflows in the signature-match cache.  What it seems not to know goes
 * to 'rest'; returns how many. */
static inline unsigned
match_smc(const struct worker *w, struct lane *l, uint8_t *rest)
{
    const struct smc *s = &w->smc;
    const unsigned n = l->n;
    unsigned n_rest = 0;

    for (unsigned i = 0; i < n; i++) {
        uint32_t hash = l->hashes[i];
        const struct smc_bucket *b = smc_bucket(s, hash);
        uint32_t m = smc_match(b, hash);

        if (likely_(m)) {
            struct smc_entry *e = &s->entries[b->index[__builtin_ctz(m) / 2]];
            __builtin_prefetch(e);
            __builtin_prefetch(&e->mask);
            l->entries[i] = &e->e;
            l->masks[i] = &e->mask;
        } else {
            __builtin_prefetch(exact_bucket(&w->narrow, hash));
            if (s->old) {
                __builtin_prefetch(&s->old[hash & s->old_mask]);
            }
            rest[n_rest++] = i;
        }
    }
    return n_rest;
}

/* Returns whether keys seem to differ. */
static inline __attribute__((always_inline)) bool
match(struct worker *w, struct lane *l, const struct key *keys, bool wide)
{
    const bool smc = !wide && w->smc.mask;
    const unsigned n = l->n;
    uint8_t rest[ENGINE_BURST];
    unsigned n_rest;
    bool diverse = false;

    for (unsigned i = 0; i < n && !l->hashed; i++) {
        uint32_t hash = hash_of(key_at(keys, i, wide), wide);
        __builtin_prefetch(smc    ? (void *)smc_bucket(&w->smc, hash)
                           : wide ? exact_bucket(&w->wide, hash)
                                  : exact_bucket(&w->narrow, hash));
        l->hashes[i] = hash;
    }
    for (unsigned i = 0; i < n; i++) {
        diverse |= l->hashes[i] != l->hashes[0];
    }
    if (smc) {
        n_rest = match_smc(w, l, rest);
        for (unsigned i = 0; i < n_rest; i++) {
            match_exact(w, l, keys, rest[i], wide);
        }
    } else {
        for (unsigned i = 0; i < n; i++) {
            match_exact(w, l, keys, i, wide);
        }
    }
    return diverse;
}

/* Zero if the i-th packet is of the entry that was matched. */
static inline __attribute__((always_inline)) __m256i
differ_at(const struct lane *l, const struct key *keys, unsigned i, bool wide)
{
    return wide ? exact_differ(l->entries[i], key_at(keys, i, wide), wide)
                : smc_differ(l->entries[i], l->masks[i], &keys[i]);
}

/* --- records ------------------------------------------------------------------- */

/* A packet's bytes as records count them, of a frame that is not odd. */
static inline __attribute__((always_inline)) uint32_t
record_bytes(const struct rte_mbuf *m, const struct key *k, bool wide)
{
    const uint8_t *l3 = rte_pktmbuf_mtod(m, const uint8_t *) + (k->vlan_tci ? 18 : 14);

    if (wide) {
        return key_load_be16_(l3 + 4) + 40;
    }
    return likely_(k->eth_type == RTE_BE16(0x0800)) ? key_load_be16_(l3 + 2) : m->data_len;
}

/* A record's key, made of a whole one: without what does not make a record. */
struct record_key {
    __m256i v, v6; /* v6: of a wide one */
};

static inline __attribute__((always_inline)) struct record_key
record_key_at(const struct key *whole, unsigned i, bool wide)
{
    const struct key *k = key_at(whole, i, wide);

    return (struct record_key){
        .v = _mm256_and_si256(_mm256_load_si256(&k->v),
                              wide ? record_masks.wide.key.v : record_masks.narrow.v),
        .v6 =
            wide ? _mm256_load_si256(&((const struct key_wide *)k)->ip6.v) : _mm256_setzero_si256(),
    };
}

static inline __attribute__((always_inline)) __m128i
record_id_at(const struct key *whole, unsigned i, bool wide)
{
    const struct record_key k = record_key_at(whole, i, wide);

    return record_id(k.v, k.v6, wide);
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
        /* What is left may be of a lower rate, as in is_sampled(). */
        if (--w->sample_left && w->sample_left < rate) {
            r->skip[i / 64] |= UINT64_C(1) << i % 64;
        } else {
            w->sample_left = rate;
        }
    }
    r->same = false;
}

/* Of whole keys: the records', whose buckets are asked to come near, and whether they and
 * the cache's are all the same. */
static inline __attribute__((always_inline)) void
divide(struct worker *w, struct lane *l, const struct key *keys, struct record_lane *r, bool wide)
{
    const struct key_masks *masks = atomic_load_explicit(&w->engine->masks, memory_order_acquire);
    const struct record_view view = *record_view(w->records);
    __m256i differ = _mm256_setzero_si256(), differ6 = differ;
    const unsigned n = l->n;

    l->bytes = l->tcp_flags_or = 0;
    for (unsigned i = 0; i < n; i++) {
        const struct key *k = key_at(keys, i, wide);
        uint32_t bytes = record_bytes(l->pkts[i], k, wide);

        differ = _mm256_or_si256(differ, _mm256_xor_si256(k->v, keys->v));
        if (wide) {
            differ6 =
                _mm256_or_si256(differ6, _mm256_xor_si256(((const struct key_wide *)k)->ip6.v,
                                                          ((const struct key_wide *)keys)->ip6.v));
        }
        r->bytes_of[i] = bytes;
        r->ids[i] = record_id_at(keys, i, wide);
        r->hashes[i] = record_id_hash(r->ids[i]);
        record_prefetch(&view, r->hashes[i]);
        l->bytes += l->pkts[i]->data_len;
        l->tcp_flags_or |= l->tcp_flags[i];
    }
    l->same = _mm256_testz_si256(differ, wide ? masks->wide.key.v : masks->narrow.v) &&
              _mm256_testz_si256(differ6, masks->wide.ip6.v);
    l->hashed = false;
    r->same = _mm256_testz_si256(differ, wide ? record_masks.wide.key.v : record_masks.narrow.v) &&
              _mm256_testz_si256(differ6, differ6);
}

/* What may be the records of a lane, whose keys are hashed, is asked to come near. */
static inline void
guess(struct worker *w, const struct lane *l, struct record_lane *r)
{
    const uint32_t rate =
        atomic_load_explicit(&w->engine->recording.sampling, memory_order_relaxed);
    const struct record_view view = *record_view(w->records);

    w->records_differ = !r->same;
    r->bytes = 0;
    for (unsigned i = 0; i < l->n && r->same; i++) {
        r->bytes += r->bytes_of[i];
    }
    r->skip[0] = r->skip[1] = 0;
    r->sampled = rate != 1;
    if (unlikely_(r->sampled)) {
        sample(w, r, l->n, rate);
    }
    for (unsigned i = 0; i < l->n; i++) {
        r->records[i] = record_guess(&view, r->hashes[i]);
    }
}

/* The cache's key of a whole one. */
static inline __attribute__((always_inline)) void
mask_key(struct key *to, const struct key *whole, const struct key_masks *masks, bool wide)
{
    to->v = _mm256_and_si256(whole->v, wide ? masks->wide.key.v : masks->narrow.v);
    if (wide) {
        ((struct key_wide *)to)->ip6.v =
            _mm256_and_si256(((const struct key_wide *)whole)->ip6.v, masks->wide.ip6.v);
    }
}

/* The cache's keys of the first 'n'. */
static inline __attribute__((always_inline)) struct key *
mask_keys(struct worker *w, struct record_lane *r, unsigned n, bool wide)
{
    const struct key_masks *masks = atomic_load_explicit(&w->engine->masks, memory_order_acquire);

    for (unsigned i = 0; i < n; i++) {
        mask_key(wide ? &r->masked[i].key : (struct key *)r->masked + i, key_at(r->whole, i, wide),
                 masks, wide);
    }
    return &r->masked[0].key;
}

/* The record of the lane's i-th packet, which goes where 'e' says, ready for it to be counted:
 * perhaps a new one, or with its first packet, or of another way until now.  NULL: no memory. */
static __attribute__((noinline)) struct record_hot *
note_first(struct worker *w, const struct record_lane *r, unsigned i, const struct exact_entry *e,
           bool wide)
{
    struct record_hot *h = r->records[i];
    struct record_cold *c;

    if (h->out == RECORD_OUT_FREE || !record_is(h, r->ids[i])) {
        struct record_key k = record_key_at(r->whole, i, wide);
        struct key_wide kw = {.key.v = k.v, .ip6.v = k.v6};

        h = record_new(w, &kw, r->ids[i], key_at(r->whole, i, wide)->nw_tos);
        if (!h) {
            return NULL;
        }
    }
    c = record_cold(record_view(w->records), h);
    if (c->out != e->port || !c->status) {
        record_other_way(w, h, e);
    }
    record_begin(h, c, w->now);
    h->out =
        c->status && c->out == e->port && e->port <= ENGINE_PORTS_MAX ? e->port : RECORD_OUT_ASK;
    return h;
}

/* Counts packets that have the key of the lane's i-th in its record.  'port', 'now': e's and
 * the worker's. */
static inline __attribute__((always_inline)) void
note(struct worker *w, const struct record_lane *r, unsigned i, const struct exact_entry *e,
     uint16_t port, unsigned packets, uint32_t bytes, uint16_t tcp_flags, uint32_t now, bool wide)
{
    struct record_hot *h = r->records[i];

    if (unlikely_(h->out != port || !record_is(h, r->ids[i]))) {
        h = note_first(w, r, i, e, wide);
        if (!h) {
            record_lost(w, packets, bytes);
            return;
        }
    }
    if (record_count(h, packets, bytes, tcp_flags, now)) {
        record_carry(w->records, h);
    }
}

/* The same for all packets of a lane, which the cache has in one entry. */
static inline __attribute__((always_inline)) void
note_all(struct worker *w, const struct lane *l, const struct record_lane *r,
         const struct exact_entry *e, bool wide)
{
    const unsigned n = l->n;
    const uint16_t port = e->port;
    const uint32_t now = w->now;

    if (r->same) {
        note(w, r, 0, e, port, n, r->bytes, l->tcp_flags_or, now, wide);
    } else if (likely_(!r->sampled)) {
        for (unsigned i = 0; i < n; i++) {
            note(w, r, i, e, port, 1, r->bytes_of[i], l->tcp_flags[i], now, wide);
        }
    } else {
        for (unsigned i = 0; i < n; i++) {
            if (!is_skipped(r, i)) {
                note(w, r, i, e, port, 1, r->bytes_of[i], l->tcp_flags[i], now, wide);
            }
        }
    }
}

/* Runs e's program on a lane's packets.  Meanwhile their records come near; but a slow
 * one asks for the records, so they are there before it. */
static __attribute__((noinline)) void
act_noted(struct worker *w, uint16_t in_port, const struct lane *l, const struct record_lane *r,
          const struct exact_entry *e, bool wide)
{
    const struct program *p = e->program;

    if (e->kind & ENTRY_SLOW) {
        note_all(w, l, r, e, wide);
        act_run(w, in_port, p, l->pkts, l->n);
    } else {
        act_run(w, in_port, p, l->pkts, l->n);
        note_all(w, l, r, e, wide);
    }
}

/* --- 3: compare, count, go ------------------------------------------------------ */

/* The port's next burst may be of the same megaflow. */
static inline void
heat(struct worker *w, uint16_t in_port, const struct exact_entry *e)
{
    if (mask_of(w, e) != &every_bit) {
        w->hot[in_port % HOT_PORTS] = (const struct smc_entry *)e - w->smc.entries;
    }
}

/* All packets have the same key, or are of one megaflow: they are looked up,
 * counted and handed over as one.  False: not known, or a verdict has to see each; nothing was
 * done. */
static bool
go_together(struct worker *w, uint16_t in_port, struct lane *l, const struct key *k, bool wide,
            const struct record_lane *r)
{
    struct exact_entry *e = l->hot ? &l->hot->e : look_again(w, k, hash_of(k, wide), wide);

    if (!e || (e->kind & ENTRY_VERDICT) || !exact_is_current(e)) {
        return false;
    }
    if (!l->hot) {
        heat(w, in_port, e);
    }
    e->used = 1;
    slot_count(e->slot, l->n, l->bytes, w->now, l->tcp_flags_or);
    if (r) {
        act_noted(w, in_port, l, r, e, wide);
    } else {
        act_run(w, in_port, e->program, l->pkts, l->n);
    }
    return true;
}

/* A burst whose frames say the same: the least that records can cost.  False:
 * nothing was done. */
static inline __attribute__((always_inline)) bool
go_recorded_together(struct worker *w, uint16_t in_port, struct lane *l, struct key *keys,
                     struct record_lane *r, bool wide)
{
    const struct record_view *view = record_view(w->records);

    if (atomic_load_explicit(&w->engine->recording.sampling, memory_order_relaxed) != 1) {
        return false;
    }
    /* A narrow lane that is all the same is the burst, as it came from the parser. */
    r->bytes = wide ? 0 : l->l3_bytes;
    for (unsigned i = 0; i < l->n && wide; i++) {
        r->bytes += record_bytes(l->pkts[i], keys, wide);
    }
    r->same = true;
    w->records_differ = false;
    r->ids[0] = record_id_at(keys, 0, wide);
    r->records[0] = record_guess(view, record_id_hash(r->ids[0]));
    return go_together(w, in_port, l, mask_keys(w, r, 1, wide), wide, r);
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
        keys_differ = _mm256_or_si256(keys_differ, differ_at(l, keys, i, wide));
        rests_differ = _mm256_or_si256(
            rests_differ, _mm256_xor_si256(_mm256_load_si256((const __m256i *)e + 1), rest));
        bytes += l->pkts[i]->data_len;
        tcp_flags |= l->tcp_flags[i];
    }
    if (!_mm256_testz_si256(keys_differ, keys_differ) || !_mm256_testz_si256(rests_differ, what) ||
        (first->kind & ENTRY_VERDICT) || !first->used || !exact_is_current(first)) {
        return false;
    }
    heat(w, in_port, first);
    slot_count(first->slot, n, bytes, w->now, tcp_flags);
    if (r) {
        act_noted(w, in_port, l, r, first, wide);
    } else {
        act_run(w, in_port, first->program, l->pkts, n);
    }
    return true;
}

static inline __attribute__((always_inline)) void
go_apart(struct worker *w, struct lane *l, const struct key *keys, struct entry_pile *later,
         struct pile *misses, bool wide, const struct record_lane *r)
{
    const int64_t now = w->now;
    const unsigned n = l->n;
    const struct slot *first = l->entries[0]->slot;
    bool flows_differ = false;
    unsigned n_later = 0;

    for (unsigned i = 0; i < n; i++) {
        struct rte_mbuf *m = l->pkts[i];
        struct exact_entry *e = l->entries[i];
        __m256i differ = differ_at(l, keys, i, wide);

        if (i + SLOTS_AHEAD < n) {
            __builtin_prefetch(l->entries[i + SLOTS_AHEAD]->slot);
        }
        if (unlikely_(!_mm256_testz_si256(differ, differ) || !exact_is_current(e))) {
            e = e == &no_entry.e ? NULL : look_again(w, key_at(keys, i, wide), l->hashes[i], wide);
            if (!e) {
                pile_add(misses, m);
                continue;
            }
        }
        flows_differ |= e->slot != first;
        if (r && !is_skipped(r, i)) {
            note(w, r, i, e, e->port, 1, r->bytes_of[i], l->tcp_flags[i], now, wide);
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
run_lane(struct worker *w, uint16_t in_port, struct lane *l, struct key *keys, struct pile *misses,
         bool wide, struct record_lane *r)
{
    struct entry_pile later;
    unsigned missed = misses->n;

    if (r) {
        r->whole = keys;
        if (wide || !r->hashed) {
            if (l->same && go_recorded_together(w, in_port, l, keys, r, wide)) {
                WORKER_ADD(w, hits, l->n);
                return;
            }
            divide(w, l, keys, r, wide);
        }
        guess(w, l, r);
        keys = mask_keys(w, r, l->same ? 1 : l->n, wide);
    }
    if (!l->same || !go_together(w, in_port, l, keys, wide, r)) {
        if (l->hot) {
            w->hot[in_port % HOT_PORTS] = 0;
        }
        if (r && l->same) {
            mask_keys(w, r, l->n, wide);
        }
        w->keys_differ = match(w, l, keys, wide);
        if (w->flows_differ || !go_flow(w, in_port, l, keys, wide, r)) {
            go_apart(w, l, keys, &later, misses, wide, r);
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
        run_lane(w, p->in_port, &p->narrow->l, p->narrow->keys, misses, false, r);
    }
    if (wide->l.n) {
        run_lane(w, p->in_port, &wide->l, &wide->keys[0].key, misses, true, r);
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
        .hot = hot(w, in_port),
        .in_port = in_port,
    };

    narrow.l.n = wide.l.n = misses.n = brief.n = 0;
    narrow.l.same = wide.l.same = false;
    wide.l.hot = NULL;
    n_others = parse_common(w, &p, pkts, n, others, !p.hot && w->keys_differ);
    if (likely_(!n_others)) {
        run_lane(w, in_port, &narrow.l, narrow.keys, &misses, false, NULL);
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
        .records = w->records_differ ? &records : NULL,
        .sized = true,
        .in_port = in_port,
    };

    narrow.l.n = wide.l.n = misses.n = brief.n = 0;
    narrow.l.same = wide.l.same = records.hashed = false;
    wide.l.hot = NULL;
    n_others = parse_common(w, &p, pkts, n, others, false);
    if (likely_(!n_others)) {
        run_lane(w, in_port, &narrow.l, narrow.keys, &misses, false, &records);
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
    smc_age(&w->smc, now);
    keep_cache(w, &w->narrow);
    keep_cache(w, &w->wide);
    if (unlikely_(w->records != NULL)) {
        record_turn_end(w);
    }
    worker_publish(w);
}
