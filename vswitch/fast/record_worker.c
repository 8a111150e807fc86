/* record_worker: a worker's table of records, and who collects from it; see
 * record.h. */
#include <stdlib.h>

#include "state.h"

/* --- settings ----------------------------------------------------------------- */

void
engine_record(struct engine *e, const struct record_settings *s)
{
    struct recording *r = &e->recording;

    if (s) {
        atomic_store(&r->idle_ms, s->idle_ms);
        atomic_store(&r->active_ms, s->active_ms);
        atomic_store(&r->max, s->max <= RECORDS_MAX ? s->max : RECORDS_MAX);
        atomic_store(&r->sampling, s->sampling ? s->sampling : 1);
        record_answers_prepare(r);
    }
    atomic_store(&r->on, s != NULL);
}

void
engine_record_port(struct engine *e, uint16_t port, bool on)
{
    if (recording_of_port(&e->recording, port) == on) {
        return;
    }
    if (on) {
        atomic_fetch_or(&e->recording.ports[port / 64], UINT64_C(1) << port % 64);
    } else {
        atomic_fetch_and(&e->recording.ports[port / 64], ~(UINT64_C(1) << port % 64));
    }
}

void
engine_record_stats(const struct engine *e, struct record_stats *s)
{
    const struct recording *r = &e->recording;

    *s = (struct record_stats){
        .lost_records = atomic_load_explicit(&r->lost_records, memory_order_relaxed),
        .lost_packets = atomic_load_explicit(&r->lost_packets, memory_order_relaxed),
        .lost_bytes = atomic_load_explicit(&r->lost_bytes, memory_order_relaxed),
        .pushed_out = atomic_load_explicit(&r->pushed_out, memory_order_relaxed),
    };
}

bool
engine_records(const struct engine *e, uint16_t in_port)
{
    return atomic_load_explicit(&e->recording.on, memory_order_relaxed) &&
           recording_of_port(&e->recording, in_port);
}

void
engine_record_answer(struct engine *e, const struct key_wide *k, const struct record_way *way,
                     int64_t now)
{
    record_answer(&e->recording, k, way, now);
}

void
engine_record_alias(struct engine *e, const struct key_wide *k, const struct key_wide *of,
                    int64_t now)
{
    record_alias(&e->recording, k, of, now);
}

bool
engine_record_find_alias(struct engine *e, struct key_wide *k, int64_t now)
{
    return record_find_alias(&e->recording, k, now);
}

/* --- a worker's turns ------------------------------------------------------------ */

static void
orphan(struct recording *r, struct record_table *t)
{
    struct record_table *head = atomic_load(&r->orphans);

    do {
        record_table_set_next(t, head);
    } while (!atomic_compare_exchange_weak(&r->orphans, &head, t));
}

/* For a table of another size, or that is not wanted any more. */
static void
give_up(struct worker *w)
{
    orphan(&w->engine->recording, w->records);
    w->records = NULL;
}

void
record_turn(struct worker *w)
{
    struct recording *r = &w->engine->recording;
    bool on = atomic_load_explicit(&r->on, memory_order_relaxed);
    uint32_t max = atomic_load_explicit(&r->max, memory_order_relaxed);

    if (!w->records && on) {
        w->records = atomic_exchange(&w->parked, NULL);
    }
    if (w->records && (!on || record_table_max(w->records) != max)) {
        give_up(w);
    }
    if (!w->records && on) {
        w->records = record_table_create(max);
    }
}

void
worker_record_turn(struct worker *w)
{
    if (record_wanted(w)) {
        record_turn(w);
    }
}

void
record_turn_end(struct worker *w)
{
    if (w->records) {
        record_sweep(&w->engine->recording, w->records, w->now, false);
    }
}

void
record_park(struct worker *w)
{
    struct record_table *other = atomic_exchange(&w->parked, w->records);

    w->records = NULL;
    if (other) {
        orphan(&w->engine->recording, other);
    }
}

void
record_add_worker(struct worker *w)
{
    struct recording *r = &w->engine->recording;

    w->sample_left = 1;
    pthread_mutex_lock(&r->workers_lock);
    w->next_worker = r->workers;
    r->workers = w;
    pthread_mutex_unlock(&r->workers_lock);
}

void
record_remove_worker(struct worker *w)
{
    struct recording *r = &w->engine->recording;
    struct record_table *t;
    struct worker **p;

    pthread_mutex_lock(&r->workers_lock);
    for (p = &r->workers; *p != w; p = &(*p)->next_worker) {
    }
    *p = w->next_worker;
    pthread_mutex_unlock(&r->workers_lock);
    t = atomic_exchange(&w->parked, NULL);
    if (t) {
        orphan(r, t);
    }
}

/* --- ways ------------------------------------------------------------------------- */

struct record_hot *
record_new(struct worker *w, const struct key_wide *k, __m128i id, uint8_t tos)
{
    struct record_hot *h = record_get(&w->engine->recording, w->records, k, id, w->now);
    struct record_cold *c = h ? record_cold(record_view(w->records), h) : NULL;

    if (h && !c->status && !record_packets(c, h)) {
        c->tos = tos;
    }
    return h;
}

static void
set_way(struct worker *w, struct record_hot *h, const struct record_way *way)
{
    struct record_cold *c = record_cold(record_view(w->records), h);

    if (c->status && (c->status != way->status || c->out != way->out) && record_packets(c, h)) {
        record_split(&w->engine->recording, w->records, h, w->now, RECORD_END_FORCED);
    }
    h->out = RECORD_OUT_ASK;
    c->status = way->status;
    c->out = way->out;
    c->drop = way->drop;
    c->rule_out = way->rule_out ? way->rule_out : c->rule_out;
    c->rule_in = way->rule_in ? way->rule_in : c->rule_in;
}

/* What an entry says is what happens to its packets; of an entry for the slow path
 * ops->way() knows, if not a later flow does.  An entry with a verdict has the second
 * flow's program, which may have got another since: 'e' is current by the first
 * flow's generation alone. */
static bool
is_outdated(const struct exact_entry *e)
{
    const struct verdict *v = e->verdict;

    return e->kind & ENTRY_VERDICT &&
           (!v->verdict || atomic_load_explicit(&v->slot->gen, memory_order_relaxed) != v->gen);
}

void
record_other_way(struct worker *w, struct record_hot *h, const struct exact_entry *e)
{
    struct record_way way = {.status = RECORD_FORWARDED, .out = e->port};

    if (is_outdated(e)) {
        return;
    }
    if (e->kind & ENTRY_SLOW && !(e->kind & ENTRY_VERDICT)) {
        way = (struct record_way){.status = RECORD_UNKNOWN};
    } else if (e->port == PORT_DROP) {
        way.status = RECORD_DROPPED;
        way.drop = RECORD_DROP_POLICY;
    }
    if (w->engine->ops->way) {
        w->engine->ops->way(w, e->program, e->kind & ENTRY_VERDICT ? e->verdict->verdict : NULL,
                            &way);
    }
    if (way.status != RECORD_UNKNOWN) {
        set_way(w, h, &way);
    }
}

/* --- packets that the cache does not know --------------------------------------------- */

bool
worker_records(const struct worker *w, uint16_t in_port)
{
    return unlikely_(w->records != NULL) && recording_of_port(&w->engine->recording, in_port);
}

/* One packet in so many. */
static bool
is_sampled(struct worker *w)
{
    uint32_t rate = atomic_load_explicit(&w->engine->recording.sampling, memory_order_relaxed);

    /* What is left may be of a lower rate, which held until now. */
    if (--w->sample_left && w->sample_left < rate) {
        return false;
    }
    w->sample_left = rate;
    return true;
}

void
record_lost(struct worker *w, unsigned packets, uint64_t bytes)
{
    struct recording *r = &w->engine->recording;

    atomic_fetch_add_explicit(&r->lost_packets, packets, memory_order_relaxed);
    atomic_fetch_add_explicit(&r->lost_bytes, bytes, memory_order_relaxed);
}

static void
record_one(struct worker *w, uint16_t in_port, const struct rte_mbuf *m, uint64_t tunnel,
           bool tunneled, const struct record_way *way)
{
    struct record_hot *h;
    struct key_wide k;
    uint16_t tcp_flags;
    uint32_t bytes;
    uint8_t tos;

    if (m->data_len < 14 || !is_sampled(w)) {
        return;
    }
    bytes = record_parse(rte_pktmbuf_mtod(m, const uint8_t *), m->data_len, in_port, tunnel,
                         tunneled, &k, &tcp_flags, &tos);
    h = record_new(w, &k, record_id_of(&k), tos);
    if (!h) {
        record_lost(w, 1, bytes);
        return;
    }
    if (way) {
        set_way(w, h, way);
    }
    record_begin(h, record_cold(record_view(w->records), h), w->now);
    if (record_count(h, 1, bytes, tcp_flags, w->now)) {
        record_carry(w->records, h);
    }
}

void
worker_record(struct worker *w, uint16_t in_port, const struct rte_mbuf *m,
              const struct record_way *way)
{
    record_one(w, in_port, m, 0, false, way);
}

void
worker_record_tunnel(struct worker *w, uint16_t in_port, const struct rte_mbuf *m, uint64_t tunnel,
                     const struct record_way *way)
{
    record_one(w, in_port, m, tunnel, true, way);
}

bool
worker_record_find(struct worker *w, uint16_t in_port, const struct rte_mbuf *m, bool tunneled,
                   uint64_t tunnel, struct record_ref *ref)
{
    const struct record_hot *h;
    struct key_wide k;
    uint16_t tcp_flags;
    uint8_t tos;
    __m128i id;

    if (m->data_len < 14) {
        return false;
    }
    record_parse(rte_pktmbuf_mtod(m, const uint8_t *), m->data_len, in_port, tunnel, tunneled, &k,
                 &tcp_flags, &tos);
    id = record_id_of(&k);
    h = record_find(w->records, id);
    if (h) {
        ref->hash = record_id_hash(id);
        ref->index = record_index(w->records, h);
    }
    return h;
}

bool
worker_record_key(const struct worker *w, struct record_ref ref, struct key_wide *k)
{
    const struct record_hot *h = record_at(w->records, ref.index, ref.hash);

    if (h) {
        const struct record_cold *c = record_cold(record_view(w->records), h);

        *k = (struct key_wide){.key = c->key};
        if (c->more) {
            k->ip6 = c->ip6;
        }
    }
    return h;
}

void
worker_record_metered(struct worker *w, struct record_ref ref, uint32_t bytes)
{
    struct record_hot *h = record_at(w->records, ref.index, ref.hash);
    struct record_cold *c;
    uint32_t rate = atomic_load_explicit(&w->engine->recording.sampling, memory_order_relaxed);

    /* Whether this one was sampled nobody knows any more: one in so many was. */
    if (rate != 1 && ++w->metered % rate) {
        return;
    }
    c = h ? record_cold(record_view(w->records), h) : NULL;
    /* Else they have been told of, as what they were until then. */
    if (h && record_packets(c, h) > c->metered && c->metered_bytes <= UINT32_MAX - bytes) {
        uint64_t most = record_bytes_of(c, h) - c->metered_bytes;

        /* It may be longer than what was counted: another packet, or with another tag. */
        bytes = bytes < most ? bytes : most;
        c->metered++;
        c->metered_bytes += bytes;
        if (c->metered_bytes > UINT32_MAX / 2) {
            record_split(&w->engine->recording, w->records, h, w->now, RECORD_END_ACTIVE);
            c->status = RECORD_UNKNOWN; /* asked again, as its rules are gone */
        }
    }
}

void
worker_record_way(struct worker *w, struct record_ref ref, const struct record_way *way)
{
    struct record_hot *h = record_at(w->records, ref.index, ref.hash);

    if (h) {
        set_way(w, h, way);
    }
}

/* --- collecting ----------------------------------------------------------------------- */

/* Of a worker at rest. */
static void
visit(struct recording *r, struct worker *w, int64_t now, bool on)
{
    struct record_table *t = atomic_exchange(&w->parked, NULL), *none = NULL;

    if (!t) {
        return;
    }
    if (!on || record_table_max(t) != atomic_load_explicit(&r->max, memory_order_relaxed)) {
        record_table_end(r, t, now, RECORD_END_FORCED);
        return;
    }
    record_sweep(r, t, now, true);
    if (!record_table_count(t) || !atomic_compare_exchange_strong(&w->parked, &none, t)) {
        record_table_end(r, t, now, RECORD_END_FORCED);
    }
}

static void
take_ended(struct recording *r, void (*fn)(const struct record_block *, void *aux), void *aux)
{
    struct record_block *b = atomic_exchange(&r->ended, NULL), *first = NULL, *next;

    for (; b; b = next) { /* the oldest first */
        next = b->next;
        b->next = first;
        first = b;
    }
    for (b = first; b; b = next) {
        next = b->next;
        record_answer_block(r, b);
        fn(b, aux);
        free(b);
        atomic_fetch_sub_explicit(&r->n_blocks, 1, memory_order_relaxed);
    }
}

void
engine_record_collect(struct engine *e, int64_t now,
                      void (*fn)(const struct record_block *, void *aux), void *aux)
{
    struct recording *r = &e->recording;
    bool on = atomic_load(&r->on);
    struct record_table *t;

    take_ended(r, fn, aux); /* makes room */
    pthread_mutex_lock(&r->workers_lock);
    for (struct worker *w = r->workers; w; w = w->next_worker) {
        visit(r, w, now, on);
    }
    pthread_mutex_unlock(&r->workers_lock);
    t = atomic_exchange(&r->orphans, NULL);
    while (t) {
        struct record_table *next = record_table_next(t);
        record_table_end(r, t, now, RECORD_END_FORCED);
        t = next;
    }
    take_ended(r, fn, aux);
}
