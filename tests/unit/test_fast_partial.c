/* engine: packets that are not complete are completed before anybody sees them who
 * may want more than headers, and not otherwise. */
#include <stdlib.h>

#include "check.h"
#include "fast/state.h"
#include "fast_rig.h"

#define PARTIAL 7u /* in mbuf.port */
#define HOPELESS 8u

static struct engine *engine;
static struct worker *worker;
static struct fast_port plain, vif;
static struct fast_flow flow;
/* Packets that came by each way, and those of them that were partial. */
static struct seen {
    unsigned n, partial;
} missed, slow_ones, to_plain, to_vif;

static void
see(struct seen *s, struct rte_mbuf *const *pkts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        s->partial += pkts[i]->port != 0;
    }
    s->n += n;
}

static unsigned
complete(struct rte_mbuf **pkts, unsigned n)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < n; i++) {
        if (pkts[i]->port == HOPELESS) {
            fast_rig_mbuf_free(&pkts[i], 1);
        } else {
            pkts[i]->port = 0;
            pkts[kept++] = pkts[i];
        }
    }
    return kept;
}

static void
miss(struct worker *w, uint16_t in_port, struct rte_mbuf **pkts, unsigned n)
{
    see(&missed, pkts, n);
    for (unsigned i = 0; i < n; i++) {
        worker_learn(w, in_port, pkts[i], &flow);
        worker_act(w, in_port, &flow, &pkts[i], 1);
    }
}

static void
slow(struct worker *w, uint16_t in_port, const struct program *p, struct rte_mbuf **pkts,
     unsigned n)
{
    see(&slow_ones, pkts, n);
    fast_rig_mbuf_free(pkts, n);
}

static void
send_plain(struct fast_port *port, struct worker *w, struct rte_mbuf **pkts, unsigned n)
{
    see(&to_plain, pkts, n);
    CHECK(n);
    fast_rig_mbuf_free(pkts, n);
}

static void
send_vif(struct fast_port *port, struct worker *w, struct rte_mbuf **pkts, unsigned n)
{
    see(&to_vif, pkts, n);
    fast_rig_mbuf_free(pkts, n);
}

static const struct engine_ops ops = {
    .miss = miss,
    .slow = slow,
    .free = fast_rig_mbuf_free,
    .complete = complete,
};

static void
set_program(struct program *p)
{
    free(engine_flow_set_program(engine, &flow, p));
}

/* A burst of 'n' packets marked so, and as many without a mark. */
static void
send_marked(unsigned mark, unsigned n)
{
    struct rte_mbuf *pkts[ENGINE_BURST];
    uint8_t d[FRAME_MAX];
    unsigned len = frame_build_udp(d, &(struct frame_udp){.src = 1, .dst = 9, .dport = 1});

    missed = slow_ones = to_plain = to_vif = (struct seen){0};
    for (unsigned i = 0; i < 2 * n; i++) {
        pkts[i] = fast_rig_mbuf(d, len);
        pkts[i]->port = i & 1 ? mark : 0;
    }
    worker_run(worker, 1, pkts, 2 * n, 5);
}

static void
test_ways(void)
{
    CASE("a packet that the cache does not know is completed");
    send_marked(PARTIAL, 5);
    CHECK(missed.n == 10 && !missed.partial && to_vif.n == 10 && !to_vif.partial);

    CASE("to a port that takes partial packets it goes as it is, edited or not");
    send_marked(PARTIAL, 5);
    CHECK(!missed.n && to_vif.n == 10 && to_vif.partial == 5);
    set_program(fast_rig_program_push(1, 5));
    send_marked(PARTIAL, 5); /* the entry is stale */
    send_marked(PARTIAL, 5);
    CHECK(!missed.n && to_vif.n == 10 && to_vif.partial == 5);

    CASE("to another port it is completed; what cannot be is dropped");
    set_program(fast_rig_program(PROGRAM_OUTPUT, 0));
    send_marked(PARTIAL, 5);
    send_marked(PARTIAL, 5);
    CHECK(!missed.n && to_plain.n == 10 && !to_plain.partial);
    send_marked(HOPELESS, 5);
    CHECK(to_plain.n == 5);

    CASE("so it is before the slow path, by whichever way it comes there");
    set_program(fast_rig_program(PROGRAM_SLOW, 0));
    send_marked(PARTIAL, 5);
    send_marked(PARTIAL, 5);
    CHECK(!missed.n && slow_ones.n == 10 && !slow_ones.partial);
    send_marked(HOPELESS, 5);
    CHECK(slow_ones.n == 5);
}

/* All of a burst can go that way. */
static void
test_none_left(void)
{
    struct rte_mbuf *pkts[2];
    uint8_t d[FRAME_MAX];

    CASE("a burst of which nothing is left is no call");
    set_program(fast_rig_program(PROGRAM_OUTPUT, 0));
    for (unsigned round = 0; round < 3; round++) {
        unsigned len = frame_build_udp(
            d, &(struct frame_udp){.src = 1, .dst = 9, .dport = round == 2 ? 2 : 1});
        for (unsigned i = 0; i < 2; i++) {
            pkts[i] = fast_rig_mbuf(d, len);
            pkts[i]->port = round ? HOPELESS : PARTIAL;
        }
        missed = to_plain = (struct seen){0};
        worker_run(worker, 1, pkts, 2, 5);
        CHECK(round == 0 ? to_plain.n == 2 && !to_plain.partial : !to_plain.n && !missed.n);
    }
}

/* Without a cache all packets are misses. */
static void
test_no_cache(void)
{
    struct worker *cached = worker;

    CASE("a worker without a cache completes packets, too");
    set_program(fast_rig_program(PROGRAM_OUTPUT, 1));
    worker_end(cached);
    worker = worker_create(engine, 0, &worker);
    worker_set_partial(worker);
    worker_begin(worker);
    send_marked(PARTIAL, 5);
    CHECK(missed.n == 10 && !missed.partial && to_vif.n == 10 && !to_vif.partial);
    send_marked(HOPELESS, 5);
    CHECK(missed.n == 5 && to_vif.n == 5);
    worker_end(worker);
    worker_destroy(worker);
    worker = cached;
    worker_begin(worker);
}

int
main(void)
{
    struct key_mask mask = {.tp_dst = UINT16_MAX};

    engine = engine_create(&ops, &engine);
    worker = worker_create(engine, 1024, &worker);
    worker_set_partial(worker);
    plain.send = send_plain;
    vif.send = send_vif;
    vif.takes_partial = true;
    engine_port_set(engine, 0, &plain);
    engine_port_set(engine, 1, &vif);
    engine_set_mask(engine, &mask);
    flow.covers = 7;
    engine_flow_add(engine, &flow, fast_rig_program(PROGRAM_OUTPUT, 1));
    worker_begin(worker);
    test_ways();
    test_none_left();
    test_no_cache();
    worker_end(worker);
    worker_destroy(worker);
    free(atomic_load(&flow.program));
    engine_flow_invalidate(engine, &flow);
    engine_flow_free(engine, &flow);
    engine_port_set(engine, 0, NULL);
    engine_port_set(engine, 1, NULL);
    engine_destroy(engine);
    epoch_reclaim();
    CHECK(!fast_rig_mbufs_alive());
    return check_done();
}
