/* Compiled flows against the policy they were compiled from.
 *
 *   random pool > model > compiler > the hosts' flows > evaluator (eval.h)
 *        |                                                   ^  packets
 *        +------------> oracle (ctl_oracle.h) <---------------+
 *
 * Frames leave a vif, pass its host's tables, then the wire or the tunnels, then
 * the other hosts' tables; the vifs they reach must be those that the oracle
 * names, and so must be what leaves by the uplinks.
 *
 * POLICY_SECONDS bounds the run, POLICY_SEED makes it another one. */
#include <config.h>

#include "check.h"
#include "ctl_wire.h"
#include "openvswitch/vlog.h"
#include "timeval.h"
#include "trace.h"

static struct tracer *tracer; /* of the pool's first state */

static void
start_pool(void)
{
    model = model_create();
    compile = compile_create(model);
    random_pool(&pool);
    pool_state_all(&pool, model);
    compile_run(compile);
    model_changes_clear(model);
    load_flows();
    tracer = tracer_create(model, compile, NULL);
}

static void
end_pool(void)
{
    forget_conns();
    tracer_destroy(tracer);
    compile_destroy(compile);
    model_destroy(model);
}

static bool
same_trace(int v, const struct flow *f, const struct fate *should)
{
    const struct p_vif *root = &pool.vifs[vif_root(&pool, v)];
    struct trace_start start = {
        .host = pool_key(REC_HOST, root->host),
        .in_port = PORT_VIF(vif_root(&pool, v)),
        .packet = at_port(v, f),
    };
    struct fate is = {0};
    struct trace trace;
    bool good = true;

    if (root->host == NONE || !root->there || !pool.hosts[root->host].there) {
        return true;
    }
    /* One for this packet alone, now and then. */
    struct tracer *t = chance(10) ? tracer_create(model, compile, &start) : tracer;

    tracer_run(t, &start, true, &trace);
    for (size_t i = 0; i < trace.n_visits; i++) {
        const struct trace_visit *visit = &trace.visits[i];

        good &= visit->n_ends && !visit->broken;
        for (size_t j = 0; j < visit->n_ends; j++) {
            const struct trace_end *end = &visit->ends[j];

            good &= end->kind != TRACE_LOST && (end->kind == TRACE_DROPPED) == !!end->reason;
            if (end->kind == TRACE_TO_VIF) {
                is.vifs[end->key - pool_key(REC_VIF, 0)] = true;
            }
        }
    }
    good &= !memcmp(is.vifs, should->vifs, sizeof is.vifs);
    trace_uninit(&trace);
    if (t != tracer) {
        tracer_destroy(t);
    }
    return good;
}

/* Any packet, each as the first of its connection. */
static bool
check_single(unsigned n)
{
    bool good = true;

    for (unsigned i = 0; i < n; i++) {
        int v = pick(N_VIFS);
        struct fate is, should;
        struct flow f;

        random_packet(&f, v);
        forget_conns();
        should = expect(v, &f);
        is = send_from(v, &f);
        seen.packets++;
        if (!same_fate(&is, &should)) {
            explain("single", v, &f, &is, &should);
            good = false;
        }
        if (!same_trace(v, &f, &should)) {
            explain("traced otherwise", v, &f, &is, &should);
            good = false;
        }
    }
    return good;
}

/* --- connections while the pool changes --- */

#define N_STEPS 10

static bool
check_error(const struct talk *t, bool from_b)
{
    int v = from_b ? t->b : t->a, w = from_b ? t->a : t->b, h = vif_host(&pool, v);
    struct eval *e = &evals[MAX(h, 0)];
    struct eval_tuple tuple;
    struct flow f, first;
    struct fate is;
    struct subject s;
    bool should;

    if (h == NONE || h != vif_host(&pool, w) || v == w || t->v6) {
        return true;
    }
    talk_packet(t, false, &first);
    tuple = eval_tuple(&first, pool.vifs[t->a].net + 1);
    for (e->force_conn = 0; e->force_conn < e->n_conns; e->force_conn++) {
        if (eval_same_tuple(&e->conns[e->force_conn].tuple, &tuple)) {
            break;
        }
    }
    if (e->force_conn == e->n_conns) {
        return true;
    }
    talk_packet(t, from_b, &f);
    f.nw_proto = IPPROTO_ICMP;
    f.tp_src = htons(3);
    f.tp_dst = htons(1);
    s = subject_of(&first);
    should = may_send(&pool, v, &f) && is_addressee(&pool, v, w, &f) &&
             both_say(&pool, t->a, t->b, &s) != SAYS_DENY;
    e->force_state = CS_RELATED;
    e->force_reply = from_b;
    is = send_from(v, &f);
    e->force_state = 0;
    if (is.vifs[w] != should || is.broken) {
        struct fate expected = {0};

        expected.vifs[w] = should;
        explain("error", v, &f, &is, &expected);
        return false;
    }
    return true;
}

/* Connections while everything about them changes. */
static bool
check_changes(void)
{
    struct talk talks[N_TALKS];
    bool good = true;

    forget_conns();
    for (unsigned i = 0; i < N_TALKS; i++) {
        random_talk(&talks[i]);
    }
    for (unsigned step = 0; step < N_STEPS; step++) {
        for (unsigned i = 0; i < 2 * N_TALKS; i++) {
            good &= check_talk(&talks[pick(N_TALKS)], chance(50));
            good &= check_error(&talks[pick(N_TALKS)], chance(50));
        }
        for (unsigned n = 1 + pick(3); n; n--) {
            pool_change(&pool, model);
        }
        compile_run(compile);
        model_changes_clear(model);
        load_flows();
    }
    for (unsigned h = 0; h < N_HOSTS; h++) {
        free(known[h].c);
        known[h] = (struct o_conns){0};
    }
    return good;
}

/* --- run
 * ---------------------------------------------------------------------------------------------- */

static void
report(void)
{
    printf("# %u pools, %u packets: %u spoofed, %u refused, %u delivered (%u replies), "
           "%u mismatches; free/stateless/tracked %u/%u/%u; %u lookups at most\n",
           seen.pools, seen.packets, seen.spoofed, seen.refused, seen.delivered, seen.replies,
           seen.mismatches, seen.kinds[0], seen.kinds[1], seen.kinds[2], seen.most_lookups);
}

int
main(void)
{
    const char *seconds = getenv("POLICY_SECONDS"), *seed = getenv("POLICY_SEED");
    long long budget = 1000 * (seconds ? atoi(seconds) : 3), end;

    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    pool_seed = seed ? strtoull(seed, NULL, 0) * 2 + 1 : 12345;
    for (unsigned h = 0; h < N_HOSTS; h++) {
        eval_init(&evals[h]);
    }

    CASE("policy: any packet, as the first of its connection");
    for (end = time_msec() + budget; time_msec() < end || seen.pools < 20; seen.pools++) {
        start_pool();
        CHECK(check_single(200));
        end_pool();
    }
    report();
    CHECK(seen.delivered > 100 && seen.refused > 100 && seen.spoofed > 100);
    CHECK(seen.kinds[0] > 100 && seen.kinds[1] > 100 && seen.kinds[2] > 100);

    CASE("policy: connections, replies and errors while policy and pool change");
    memset(&seen, 0, sizeof seen);
    for (end = time_msec() + budget; time_msec() < end || seen.pools < 10; seen.pools++) {
        start_pool();
        CHECK(check_changes());
        end_pool();
    }
    report();
    CHECK(seen.delivered > 100 && seen.replies > 50);

    for (unsigned h = 0; h < N_HOSTS; h++) {
        eval_destroy(&evals[h]);
    }
    return check_done();
}
