/* Records of flows, each as it is told of: its times, its way and who decided on it, what
 * of it a meter dropped. */
#include <stdlib.h>

#include "check.h"
#include "fast/record.h"
#include "fast/state.h"
#include "fast_rig.h"

/* --- what was told ------------------------------------------------------------ */

#define TOLD_MAX 16u

struct told {
    struct record r;
    int64_t first, last;
};

static struct told told[TOLD_MAX];
static unsigned n_told;

static void
take(const struct record_block *b, void *aux)
{
    (void)aux;
    for (unsigned i = 0; i < b->n && n_told < TOLD_MAX; i++) {
        told[n_told++] = (struct told){.r = b->records[i],
                                       .first = record_time(b, b->records[i].first),
                                       .last = record_time(b, b->records[i].last)};
    }
}

/* --- an engine that records ------------------------------------------------------ */

enum { RULE_OUT = 7, RULE_IN = 9 };

static struct engine *engine;
static struct fast_flow flow;
static struct program *program;

static void
miss(struct worker *w, uint16_t in_port, struct rte_mbuf **pkts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        worker_learn(w, in_port, pkts[i], &flow);
        worker_record(w, in_port, pkts[i], NULL);
    }
    worker_drop(w, ENGINE_DROP_ACTION, pkts, n);
}

static void
slow(struct worker *w, uint16_t in_port, const struct program *p, struct rte_mbuf **pkts,
     unsigned n)
{
    (void)in_port, (void)p;
    worker_drop(w, ENGINE_DROP_ACTION, pkts, n);
}

/* The slow path puts packets out to port 0, as two rules allow. */
static void
way_of(struct worker *w, const struct program *p, const void *verdict, struct record_way *way)
{
    (void)w, (void)p, (void)verdict;
    *way = (struct record_way){
        .status = RECORD_FORWARDED, .out = 0, .rule_out = RULE_OUT, .rule_in = RULE_IN};
}

static const struct engine_ops ops = {
    .miss = miss, .slow = slow, .way = way_of, .free = fast_rig_mbuf_free};

static struct worker *
start(const struct record_settings *s)
{
    struct key_mask mask;

    engine = engine_create(&ops, NULL);
    memset(&mask, 0xff, sizeof mask);
    engine_set_mask(engine, &mask);
    program = fast_rig_program(PROGRAM_SLOW, 0);
    flow = (struct fast_flow){.covers = 1 << SHAPE_IPV4};
    engine_flow_add(engine, &flow, program);
    engine_record_port(engine, 1, true);
    engine_record(engine, s);
    n_told = 0;
    return worker_create(engine, 100, NULL);
}

static void
end(void)
{
    engine_destroy(engine);
    free(program);
    epoch_reclaim();
}

static struct rte_mbuf *
packet(uint16_t sport)
{
    const struct frame_udp f = {.src = 1, .dst = 1, .sport = sport, .dport = 9};
    uint8_t d[FRAME_MAX];
    unsigned len = frame_build_udp(d, &f);

    return fast_rig_mbuf(d, len);
}

/* --- times -------------------------------------------------------------------------- */

/* A turn of a worker to which packets come without worker_run(). */
static void
record_one(struct worker *w, int64_t now)
{
    struct rte_mbuf *m = packet(1);

    worker_begin(w);
    worker_set_now(w, now);
    worker_record_turn(w);
    worker_record(w, 1, m, NULL);
    worker_end(w);
    fast_rig_mbuf_free(&m, 1);
}

static void
test_ahead(void)
{
    const struct record_settings s = {.idle_ms = 1000, .active_ms = 2000, .max = 64, .sampling = 1};
    struct worker *w = start(&s);

    CASE("records: one newer than the collector's clock is not old");
    record_one(w, 100001);
    engine_record_collect(engine, 100000, take, NULL);
    CHECK(!n_told);
    engine_record_collect(engine, 101001, take, NULL);
    CHECK(n_told == 1 && told[0].r.end == RECORD_END_IDLE && told[0].r.packets == 1);
    CHECK(told[0].first == 100001 && told[0].last == 100001);

    CASE("records: one newer than the collector's clock, of a worker that has gone");
    n_told = 0;
    record_one(w, 200001);
    worker_destroy(w);
    engine_record_collect(engine, 200000, take, NULL);
    CHECK(n_told == 1 && told[0].r.end == RECORD_END_FORCED && told[0].r.packets == 1);
    CHECK(told[0].first == 200001 && told[0].last == 200001);
    end();
}

/* --- what a meter drops ---------------------------------------------------------------- */

static void
send(struct worker *w, unsigned n, int64_t now)
{
    struct rte_mbuf *pkts[ENGINE_BURST];

    for (unsigned i = 0; i < n; i++) {
        pkts[i] = packet(1);
    }
    worker_run(w, 1, pkts, n, now);
}

#define BIG_BYTES 64000u /* of IP */

/* Of the same flow as packet(1). */
static struct rte_mbuf *
big_packet(void)
{
    const struct frame_udp f = {.src = 1, .dst = 1, .sport = 1, .dport = 9};
    uint8_t *d = calloc(1, 14 + BIG_BYTES);
    struct rte_mbuf *m;

    frame_build_udp(d, &f);
    frame_put16(d + 16, BIG_BYTES);
    m = fast_rig_mbuf(d, 14 + BIG_BYTES);
    free(d);
    return m;
}

static bool
has_way(const struct record *r)
{
    return r->status == RECORD_FORWARDED && r->out == 0 && r->rule_out == RULE_OUT &&
           r->rule_in == RULE_IN;
}

static bool
is_metered(const struct record *r)
{
    return r->status == RECORD_DROPPED && r->drop == RECORD_DROP_METER;
}

static void
test_metered_much(void)
{
    const struct record_settings s = {
        .idle_ms = 60000, .active_ms = 60000, .max = 64, .sampling = 1};
    const unsigned n = UINT32_MAX / 2 / BIG_BYTES + 1;
    struct worker *w = start(&s);
    struct rte_mbuf *big = big_packet();
    struct record_ref ref;

    CASE("records: a meter drops 2 GiB, and the flow goes on with its rules");
    worker_begin(w);
    send(w, 2, 1000); /* learned */
    send(w, 1, 1001);
    for (unsigned i = 0; i < n; i++) {
        worker_record(w, 1, big, NULL);
    }
    CHECK(worker_record_find(w, 1, big, false, 0, &ref));
    for (unsigned i = 0; i < n; i++) {
        worker_record_metered(w, ref, BIG_BYTES);
    }
    send(w, 5, 1002);
    fast_rig_record_end(engine, w, 1003, take);
    CHECK(n_told == 3);
    CHECK(is_metered(&told[0].r) && told[0].r.packets == n &&
          told[0].r.bytes == (uint64_t)n * BIG_BYTES);
    CHECK(has_way(&told[1].r) && told[1].r.packets == 3 && told[1].r.end == RECORD_END_ACTIVE);
    CHECK(told[2].r.packets == 5 && told[2].first == 1002);
    CHECK(has_way(&told[2].r));
    fast_rig_mbuf_free(&big, 1);
    end();
}

/* Looks at all records of a worker that takes a rest. */
static void
look(struct worker *w, int64_t now)
{
    worker_end(w);
    engine_record_collect(engine, now, take, NULL);
    worker_begin(w);
    worker_run(w, 1, NULL, 0, now);
}

/* Where packet(1) is counted, its sums carried. */
static struct record_ref
carry(struct worker *w)
{
    struct rte_mbuf *m = packet(1);
    struct record_ref ref = {0};

    CHECK(worker_record_find(w, 1, m, false, 0, &ref));
    record_carry(w->records, record_at(w->records, ref.index, ref.hash));
    fast_rig_mbuf_free(&m, 1);
    return ref;
}

static void
test_metered_carried(void)
{
    const struct record_settings s = {
        .idle_ms = 60000, .active_ms = 2000, .max = 64, .sampling = 1};
    struct worker *w = start(&s);
    struct record_ref ref;

    CASE("records: a meter drops some of what was carried");
    worker_begin(w);
    send(w, 4, 1000);
    send(w, 6, 1001);
    ref = carry(w);
    for (unsigned i = 0; i < 4; i++) {
        worker_record_metered(w, ref, 44);
    }
    send(w, 1, 1002);
    look(w, 3500);
    CHECK(n_told == 2);
    CHECK(is_metered(&told[0].r) && told[0].r.packets == 4 && told[0].r.bytes == 4 * 44);
    CHECK(has_way(&told[1].r) && told[1].r.packets == 7 && told[1].r.bytes == 7 * 44);
    CHECK(told[0].first == 1000 && told[1].first == 1000 && told[1].last == 1002);

    CASE("records: a meter drops all of what was carried");
    n_told = 0;
    send(w, 5, 4000);
    ref = carry(w);
    for (unsigned i = 0; i < 7; i++) { /* two are not its any more */
        worker_record_metered(w, ref, 44);
    }
    look(w, 6500);
    CHECK(n_told == 1 && is_metered(&told[0].r));
    CHECK(told[0].r.packets == 5 && told[0].r.bytes == 5 * 44 && told[0].first == 4000);

    CASE("records: one packet after all the others were dropped");
    n_told = 0;
    send(w, 1, 7000);
    fast_rig_record_end(engine, w, 7001, take);
    CHECK(n_told == 1 && has_way(&told[0].r) && told[0].r.packets == 1 && told[0].r.bytes == 44);
    CHECK(told[0].first == 7000 && told[0].last == 7000);
    end();
}

/* --- places --------------------------------------------------------------------------- */

static void
count(struct recording *r, struct record_table *t, const struct key_wide *k, uint32_t packets,
      uint32_t bytes, int64_t now)
{
    struct record_hot *h = record_get(r, t, k, record_id_of(k), now);

    record_begin(h, record_cold(record_view(t), h), now);
    if (record_count(h, packets, bytes, 0, now)) {
        record_carry(t, h);
    }
}

static void
take_all(struct recording *r)
{
    struct record_block *b = atomic_exchange(&r->ended, NULL), *next;

    for (; b; b = next) {
        next = b->next;
        take(b, NULL);
        free(b);
        atomic_fetch_sub(&r->n_blocks, 1);
    }
}

/* Records that follow each other in one place; 'kept': beside one that stays. */
static void
test_places(const char *name, bool kept)
{
    static const struct record_more tunnel = {.tunnel = 42};
    static const struct key_wide stays = {.key = {.eth_type = 0x0008, .tp_src = 99}};
    struct key_wide keys[] = {
        {.key = {.eth_type = 0x0008, .tp_src = 1}},
        {.key = {.eth_type = 0x0008, .tp_src = 2}},
        {.key = {.eth_type = 0x0008, .tp_src = 3, .nw_tos = RECORD_TUNNEL}},
        {.key = {.eth_type = 0x0008, .tp_src = 4}},
        {.key = {.eth_type = 0x0008, .tp_src = 5, .nw_tos = RECORD_TUNNEL}},
    };
    /* Of these, those of two are carried. */
    static const uint32_t bytes[] = {0x7fffffff, 60, 61, 0x7ffffffe, 62};
    struct recording *r = malloc(sizeof *r);
    struct record_table *t = record_table_create(64);
    int64_t now = 1000;

    CASE(name);
    CHECK(!recording_init(r));
    atomic_store(&r->active_ms, 1000000);
    memcpy(&keys[2].ip6, &tunnel, sizeof tunnel);
    memcpy(&keys[4].ip6, &tunnel, sizeof tunnel);
    for (unsigned i = 0; i < 5; i++, now += 20000) {
        const struct record_hot *h;

        n_told = 0;
        if (kept) {
            count(r, t, &stays, 1, 60, now);
        }
        count(r, t, &keys[i], 1, bytes[i], now);
        count(r, t, &keys[i], 2, bytes[i], now + 1);
        h = record_find(t, record_id_of(&keys[i]));
        CHECK(h && record_index(t, h) == kept);
        if (kept) {
            count(r, t, &stays, 1, 60, now + 15001);
        }
        record_sweep(r, t, now + 15001, true);
        take_all(r);
        CHECK(n_told == 1 && told[0].r.end == RECORD_END_IDLE);
        CHECK(!memcmp(&told[0].r.key, &keys[i].key, sizeof keys[i].key));
        CHECK(told[0].r.packets == 3 && told[0].r.bytes == 2 * (uint64_t)bytes[i]);
        CHECK(told[0].first == now && told[0].last == now + 1);
        CHECK(!record_is_wide(&keys[i].key) || told[0].r.more.tunnel == 42);
    }
    record_table_end(r, t, now, RECORD_END_FORCED);
    recording_done(r);
    free(r);
}

int
main(void)
{
    test_ahead();
    test_metered_much();
    test_metered_carried();
    test_places("records: in the place of one that was carried", false);
    test_places("records: in the place of one that was carried, beside others", true);
    return check_done();
}
