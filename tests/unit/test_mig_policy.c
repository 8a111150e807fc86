/* The pre-copy policy, by simulation: guests that write at all rates into working sets
 * of all sizes, wires of all speeds, up to a guest that dirties everything faster than
 * the wire takes it. */
#include <math.h>

#include "policy.h"

#include "check.h"

struct guest {
    double pages, working_set; /* pages */
    double writes_per_s;       /* unthrottled */
    double wire_pages_per_s;
    double stops_s; /* from the look at its log to the pause */
    double slower;  /* part by which the wire is, in the pause */
};

struct outcome {
    enum policy_action action;
    unsigned int rounds, throttle;
    double blackout_ms, seconds, pages_sent;
};

/* Pages dirtied in `seconds` by random writes into the working set. */
static double
dirtied(const struct guest *g, double seconds, unsigned int throttle)
{
    double writes = g->writes_per_s * (100 - throttle) / 100 * seconds;

    return g->working_set > 0 ? g->working_set * (1 - exp(-writes / g->working_set)) : 0;
}

static struct outcome
simulate(const struct guest *g, const struct policy_limits *l, unsigned int postcopy_at)
{
    struct outcome o = {.action = POLICY_GO_ON};
    struct policy_memory m = {0};
    double left = g->pages;

    while (o.action == POLICY_GO_ON || o.action == POLICY_THROTTLE) {
        double took = left / g->wire_pages_per_s + 0.0005;
        struct policy_stats s = {.round = ++o.rounds,
                                 .pages_sent = (uint64_t)left,
                                 .round_us = (uint64_t)(took * 1e6),
                                 .fixed_ms = 3,
                                 .throttle = o.throttle,
                                 .postcopy_wanted = postcopy_at && o.rounds >= postcopy_at};
        struct policy_decision d;

        o.pages_sent += left;
        o.seconds += took;
        left = dirtied(g, took, o.throttle);
        s.pages_left = (uint64_t)left;
        d = policy_decide(l, &s, &m);
        o.action = d.action;
        o.throttle = d.throttle;
    }
    if (g->working_set > 0) {
        left += (1 - left / g->working_set) * dirtied(g, g->stops_s, o.throttle);
    }
    o.blackout_ms = 3 + left / (g->wire_pages_per_s * (1 - g->slower)) * 1000;
    return o;
}

static const struct policy_limits usual = {
    .max_blackout_ms = 10, .max_rounds = 30, .max_throttle = 99};

static void
test_idle(void)
{
    struct guest g = {.pages = 524288, .wire_pages_per_s = 262144};
    struct outcome o = simulate(&g, &usual, 0);

    CASE("policy_idle_guest_is_paused_after_one_round");
    CHECK(o.action == POLICY_PAUSE && o.rounds == 1 && o.throttle == 0);

    CASE("policy_some_writing_converges_without_throttle");
    g.working_set = 50000;
    g.writes_per_s = 50000;
    o = simulate(&g, &usual, 0);
    CHECK(o.action == POLICY_PAUSE && o.throttle == 0 && o.rounds > 1 && o.rounds < 10);
    CHECK(o.blackout_ms <= 11);
}

static void
test_everything(void)
{
    /* 2 GiB, all of it written again and again at 8 GB/s, a wire of 1 GB/s. */
    struct guest g = {
        .pages = 524288, .working_set = 524288, .writes_per_s = 2e6, .wire_pages_per_s = 262144};
    struct policy_limits gentle = {.max_blackout_ms = 10, .max_rounds = 30, .max_throttle = 30};
    struct policy_limits never = {.max_blackout_ms = 10, .max_rounds = 30};
    struct outcome o = simulate(&g, &usual, 0);

    CASE("policy_full_dirtying_is_throttled_until_it_fits");
    CHECK(o.action == POLICY_PAUSE && o.throttle > 50 && o.throttle <= 99);
    CHECK(o.blackout_ms <= 11 && o.rounds <= 30);

    CASE("policy_full_dirtying_gives_up_where_throttle_is_bounded");
    o = simulate(&g, &gentle, 0);
    CHECK(o.action == POLICY_GIVE_UP && o.throttle <= 30 && o.rounds <= 12);
    o = simulate(&g, &never, 0);
    CHECK(o.action == POLICY_GIVE_UP && o.throttle == 0 && o.rounds <= 12);

    CASE("policy_postcopy_only_when_asked");
    o = simulate(&g, &never, 3);
    CHECK(o.action == POLICY_POSTCOPY && o.rounds == 3);
    CHECK(simulate(&g, &usual, 1).action == POLICY_POSTCOPY);
}

/* Every guest and wire: an end within the rounds, and a pause only if it is short. */
static void
test_sweep(void)
{
    unsigned int paused = 0, all = 0;

    CASE("policy_sweep_is_bounded_and_keeps_the_blackout");
    for (double ws = 0.01; ws <= 1; ws *= 2.15) {
        for (double rate = 0.01; rate < 20; rate *= 1.9) {
            for (double wire = 3000; wire < 3e6; wire *= 3.1) {
                struct guest g = {.pages = 262144,
                                  .working_set = 262144 * ws,
                                  .writes_per_s = rate * wire,
                                  .wire_pages_per_s = wire};
                struct outcome o = simulate(&g, &usual, 0);

                all++;
                paused += o.action == POLICY_PAUSE;
                CHECK(o.action == POLICY_PAUSE || o.action == POLICY_GIVE_UP);
                CHECK(o.rounds <= usual.max_rounds && o.throttle <= 99);
                /* The rate is measured, not known: a little more than allowed. */
                CHECK(o.action != POLICY_PAUSE || o.blackout_ms <= 14);
                /* Slow writers are left alone. */
                CHECK(rate > 0.3 || !o.throttle);
            }
        }
    }
    CHECK(paused * 10 > all * 8);
}

/* What the last look says is a little less than what the pause has to send. */
static void
test_margin(void)
{
    const struct policy_limits l = {.max_blackout_ms = 50, .max_rounds = 30, .max_throttle = 99};
    unsigned int near = 0;

    CASE("policy_keeps_the_blackout_of_a_guest_that_writes_until_it_is_paused");
    for (double ws = 1000; ws <= 262144; ws *= 1.1) {
        for (double rate = 0.1; rate < 1; rate *= 1.2) {
            struct guest g = {.pages = 262144,
                              .working_set = ws,
                              .writes_per_s = rate * 150000,
                              .wire_pages_per_s = 150000,
                              .stops_s = 0.001,
                              .slower = 0.05};
            struct outcome o = simulate(&g, &l, 0);

            CHECK(o.action == POLICY_PAUSE && o.blackout_ms <= l.max_blackout_ms);
            near += o.blackout_ms > 40;
        }
    }
    CHECK(near > 0);
}

static void
test_edges(void)
{
    struct policy_memory m = {0};
    struct policy_stats s = {.round = 1};
    struct policy_decision d;

    CASE("policy_empty_rounds");
    d = policy_decide(&usual, &s, &m);
    CHECK(d.action == POLICY_PAUSE);
    /* Nothing was measured yet: no promise is made. */
    m = (struct policy_memory){0};
    s = (struct policy_stats){.round = 1, .pages_left = 1000};
    d = policy_decide(&usual, &s, &m);
    CHECK(d.action == POLICY_GO_ON && d.blackout_ms == UINT32_MAX);
    /* The last round allowed. */
    s = (struct policy_stats){
        .round = 30, .pages_sent = 1000000, .pages_left = 900000, .round_us = 1000000};
    d = policy_decide(&usual, &s, &m);
    CHECK(d.action == POLICY_GIVE_UP);
    /* Numbers as large as they come. */
    s = (struct policy_stats){
        .round = 2, .pages_sent = 1ull << 36, .pages_left = 1ull << 36, .round_us = 1000000000};
    m = (struct policy_memory){0};
    d = policy_decide(&usual, &s, &m);
    CHECK(d.action == POLICY_THROTTLE && d.throttle > 0 && d.throttle <= 99);
}

/* A toolstack's rounds: 100,000 pages at 50,000/s, of which 10,000 are written meanwhile. */
static void
test_rates(void)
{
    const uint64_t s = 1000000000;
    struct policy_rates r = {0};

    CASE("policy_rates_of_rounds_that_others_make");
    policy_rates(&(struct policy_seen){1, 0, 100000, 0, 5 * s}, &r);
    CHECK(!r.pages_per_s && r.left_s == UINT32_MAX && r.blackout_ms == UINT32_MAX);
    policy_rates(&(struct policy_seen){1, 50000, 50000, 0, 6 * s}, &r);
    CHECK(r.pages_per_s == 50000 && !r.dirty_per_s && r.left_s == 1);
    CHECK(r.blackout_ms == UINT32_MAX);
    policy_rates(&(struct policy_seen){2, 100000, 10000, 10000, 7 * s}, &r);
    CHECK(r.dirty_per_s == 5000 && r.pages_per_s == 50000);
    CHECK(r.left_s == 0 && r.blackout_ms == 200);
    policy_rates(&(struct policy_seen){2, 101000, 9000, 10000, 8 * s}, &r);
    CHECK(r.pages_per_s == 1000 && r.left_s == UINT32_MAX && r.blackout_ms == 10000);
    policy_rates(&(struct policy_seen){2, 101000, 9000, UINT64_MAX, 8 * s}, &r);
    CHECK(r.blackout_ms == UINT32_MAX);
}

int
main(void)
{
    test_idle();
    test_everything();
    test_sweep();
    test_margin();
    test_edges();
    test_rates();
    return check_done();
}
