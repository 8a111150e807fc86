/* Records of flows, each as it is told of: its times. */
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

static void
miss(struct worker *w, uint16_t in_port, struct rte_mbuf **pkts, unsigned n)
{
    (void)in_port;
    worker_drop(w, ENGINE_DROP_ACTION, pkts, n);
}

static const struct engine_ops ops = {.miss = miss, .free = fast_rig_mbuf_free};
static struct engine *engine;

static struct worker *
start(const struct record_settings *s)
{
    engine = engine_create(&ops, NULL);
    engine_record_port(engine, 1, true);
    engine_record(engine, s);
    n_told = 0;
    return worker_create(engine, 100, NULL);
}

static void
end(void)
{
    engine_destroy(engine);
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

int
main(void)
{
    test_ahead();
    return check_done();
}
