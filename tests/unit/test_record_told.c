/* Records of flows, each as it is told of: its times, its way and who decided on it, what
 * of it a meter dropped. */
#include <stdlib.h>

#include "check.h"
#include "fast/record.h"
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

/* All that is left is told of. */
static void
finish(struct worker *w, int64_t now)
{
    engine_record(engine, NULL);
    worker_run(w, 1, NULL, 0, now);
    worker_end(w);
    engine_record_collect(engine, now, take, NULL);
    worker_destroy(w);
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
    finish(w, 1003);
    CHECK(n_told == 3);
    CHECK(is_metered(&told[0].r) && told[0].r.packets == n &&
          told[0].r.bytes == (uint64_t)n * BIG_BYTES);
    CHECK(has_way(&told[1].r) && told[1].r.packets == 3 && told[1].r.end == RECORD_END_ACTIVE);
    CHECK(told[2].r.packets == 5 && told[2].first == 1002);
    CHECK(has_way(&told[2].r));
    fast_rig_mbuf_free(&big, 1);
    end();
}

int
main(void)
{
    test_ahead();
    test_metered_much();
    return check_done();
}
