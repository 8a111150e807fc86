/* Live migration as the switches see it: a VM's vifs on two hosts, at every step
 * of a move.
 *
 * The flows are evaluated (ctl_wire.h) against what policy means (ctl_oracle.h)
 * while it is at the source, while the destination is ready for it, while it runs
 * at the destination and no controller has noticed, when they have, when the old
 * port is gone; and when the move was given up.  At no step may a frame reach a
 * port of a vif that policy keeps it from.
 *
 * POLICY_SECONDS bounds the run, POLICY_SEED makes it another one. */
#include <config.h>

#include "check.h"
#include "ctl_wire.h"
#include "openvswitch/vlog.h"
#include "timeval.h"

#define N_TALKS_MOVING 24

static struct {
    unsigned moves, undone, ahead, late;
} did;
static int vm, source, target;
static struct talk talks[N_TALKS_MOVING];

/* --- the pool -------------------------------------------------------------------------- */

static bool
moving(int v)
{
    return pool.vifs[v].vm == vm;
}

static void
compile_all(void)
{
    compile_run(compile);
    model_changes_clear(model);
    load_flows();
}

/* The moving VM as it is now. */
static void
state_move(unsigned resident, unsigned destination)
{
    pool.resident[vm] = resident;
    pool.destination[vm] = destination;
    pool_state(&pool, model, REC_VM, vm);
    model_settle(model);
    pool_state_ports(&pool, model);
    model_settle(model);
    compile_all();
}

static void
place_vifs(int host, int also)
{
    for (int v = 0; v < N_VIFS; v++) {
        if (moving(v)) {
            memset(pool.vifs[v].also, 0, sizeof pool.vifs[v].also);
            pool.vifs[v].host = host;
            if (also != NONE) {
                pool.vifs[v].also[also] = true;
            }
        }
    }
}

/* A VM with two vifs or more, that goes from one host to another. */
static void
start_move(void)
{
    bool some = false;

    model = model_create();
    compile = compile_create(model);
    random_pool(&pool);
    vm = pick(N_VMS);
    source = pick(N_HOSTS);
    target = (source + 1 + pick(N_HOSTS - 1)) % N_HOSTS;
    pool.vms[vm] = pool.hosts[source].there = pool.hosts[target].there = true;
    for (int v = 0; v < N_VIFS; v++) {
        if (moving(v) || (!some && v >= N_VIFS - 2)) {
            pool.vifs[v].vm = vm;
            pool.vifs[v].there = some = true;
        }
    }
    place_vifs(source, NONE);
    pool.resident[vm] = source + 1;
    pool_state_all(&pool, model);
    compile_all();
}

static void
end_move(void)
{
    forget_conns();
    for (unsigned h = 0; h < N_HOSTS; h++) {
        free(known[h].c);
        known[h] = (struct o_conns){0};
    }
    compile_destroy(compile);
    model_destroy(model);
}

static void
change_policy(void)
{
    for (unsigned i = 0; i < 3; i++) {
        unsigned rule = pick(N_RULES);

        random_rule(&pool.rules[rule]);
        pool_state(&pool, model, REC_RULE, rule);
    }
    model_settle(model);
    compile_all();
}

/* Another controller, that finds the pool as it is. */
static void
restart_controller(void)
{
    compile_destroy(compile);
    model_destroy(model);
    model = model_create();
    compile = compile_create(model);
    pool_state_all(&pool, model);
    compile_all();
}

/* --- any packet ------------------------------------------------------------------------- */

/* Policy and addresses would let it, wherever the two are. */
static bool
may_reach(int from, int to, const struct flow *f)
{
    struct subject s = subject_of(f);
    int rule;

    return may_send(&pool, from, f) && from != to && pool.vifs[from].net == pool.vifs[to].net &&
           vif_live(&pool, to) && vif_mode(&pool, to) != MODEL_DISABLED &&
           !(vif_isolated(&pool, from) && vif_isolated(&pool, to)) &&
           (eth_addr_is_multicast(f->dl_dst) || eth_addr_equals(f->dl_dst, pool.vifs[to].mac)) &&
           (is_free(f) || (say(&pool, from, false, &s, &rule) != SAYS_DENY &&
                           say(&pool, to, true, &s, &rule) != SAYS_DENY));
}

/* What arrived, at whichever port, was allowed to. */
static bool
nothing_denied(int from, const struct flow *f, const struct fate *is)
{
    bool good = !is->broken;

    for (int w = 0; w < N_VIFS; w++) {
        good &= !(is->vifs[w] || is->astray[w]) || may_reach(from, w, f);
    }
    return good;
}

enum where {
    SETTLED, /* one port, or one that counts: exactly what the oracle says */
    AHEAD,   /* the destination's port is there: it may get copies */
    UNTOLD,  /* it runs at the destination, and the flows are those of AHEAD */
};

static bool
same_elsewhere(const struct fate *is, const struct fate *should)
{
    for (int w = 0; w < N_VIFS; w++) {
        if (!moving(w) && (is->vifs[w] != should->vifs[w] || is->astray[w])) {
            return false;
        }
    }
    return true;
}

static bool
check_packets(unsigned n, enum where where, const char *what)
{
    bool good = true;

    for (unsigned i = 0; i < n; i++) {
        int v = pick(N_VIFS);
        struct fate is, should, fair;
        struct flow f;
        bool ok;

        random_packet(&f, v);
        forget_conns();
        should = expect(v, &f);
        is = send_from(v, &f);
        fair = is;
        if (where == AHEAD) {
            memset(fair.astray, 0, sizeof fair.astray);
        }
        ok = nothing_denied(v, &f, &is) &&
             (where == UNTOLD ? same_elsewhere(&is, &should) : same_fate(&fair, &should));
        for (int w = 0; w < N_VIFS; w++) {
            did.ahead += where == AHEAD && is.astray[w];
            did.late += where == UNTOLD && is.astray[w];
            ok &= !is.astray[w] || moving(w);
        }
        if (!ok) {
            explain(what, v, &f, &is, &should);
            good = false;
        }
    }
    return good;
}

/* From the port that the VM has left, or has not come to. */
static bool
check_shut(int host, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct fate fate = {0}, none = {0};
        struct flow f;
        int v = pick(N_VIFS);

        if (moving(v) && pool.vifs[v].there) {
            random_packet(&f, v);
            f = at_port(v, &f);
            forget_conns();
            run_host(&fate, host, &f, PORT_VIF(vif_root(&pool, v)), 0);
            if (!same_fate(&fate, &none)) {
                explain("from a port that is shut", v, &f, &fate, &none);
                return false;
            }
        }
    }
    return true;
}

/* --- connections ---------------------------------------------------------------------------- */

static void
start_talks(void)
{
    for (unsigned i = 0; i < N_TALKS_MOVING; i++) {
        random_talk(&talks[i]);
    }
}

static bool
check_talks(void)
{
    bool good = true;

    for (unsigned i = 0; i < 3 * N_TALKS_MOVING; i++) {
        good &= check_talk(&talks[pick(N_TALKS_MOVING)], chance(50));
    }
    return good;
}

/* As weft-migrate does it: the connections whose label names one of the vifs, as
 * they are; and the oracle's, by address. */
static void
move_connections(void)
{
    struct eval *from = &evals[source], *to = &evals[target];
    struct o_conns *mine = &known[source], *theirs = &known[target];

    for (size_t i = 0; i < from->n_conns; i++) {
        uint32_t keys[] = {from->conns[i].label.u64.hi, from->conns[i].label.u64.hi >> 32};

        for (int v = 0; v < N_VIFS; v++) {
            uint32_t key = pool_key(REC_VIF, v);

            if (moving(v) && (keys[0] == key || keys[1] == key)) {
                if (to->n_conns == to->allocated_conns) {
                    to->conns = x2nrealloc(to->conns, &to->allocated_conns, sizeof *to->conns);
                }
                to->conns[to->n_conns++] = from->conns[i];
                break;
            }
        }
    }
    for (size_t i = 0; i < mine->n; i++) {
        for (int v = 0; v < N_VIFS; v++) {
            unsigned number = pool.vifs[v].mac.ea[5]; /* as talk_packet() has it */
            struct in6_addr a4 = address4(number), a6 = address6(number);
            const struct subject *s = &mine->c[i].s;
            const struct in6_addr *a = s->v6 ? &a6 : &a4;

            if (moving(v) && vif_live(&pool, v) && mine->c[i].net == pool.vifs[v].net &&
                (ipv6_addr_equals(&s->src, a) || ipv6_addr_equals(&s->dst, a))) {
                theirs->c = xrealloc(theirs->c, (theirs->n + 1) * sizeof *theirs->c);
                theirs->c[theirs->n++] = mine->c[i];
                break;
            }
        }
    }
}

/* --- moves --------------------------------------------------------------------------------------
 */

static bool
prepare(void)
{
    bool good;

    place_vifs(source, NONE);
    state_move(source + 1, target + 1);
    good = check_packets(20, AHEAD, "no port yet");
    place_vifs(source, target);
    state_move(source + 1, target + 1);
    good &= check_packets(60, AHEAD, "prepared");
    change_policy();
    good &= check_packets(60, AHEAD, "prepared, with another policy");
    return good;
}

static bool
check_move(void)
{
    bool good = true;

    start_move();
    good &= check_packets(40, SETTLED, "at the source") && prepare();

    place_vifs(target, source);
    good &= check_packets(60, UNTOLD, "at the destination, and nobody knows");
    if (chance(50)) {
        restart_controller();
    }
    state_move(target + 1, target + 1);
    good &= check_packets(60, SETTLED, "at the destination") && check_shut(source, 30);
    change_policy();
    good &= check_packets(60, SETTLED, "at the destination, with another policy");
    state_move(target + 1, 0);
    good &= check_packets(20, SETTLED, "done") && check_shut(source, 30);
    place_vifs(target, NONE);
    state_move(target + 1, 0);
    good &= check_packets(40, SETTLED, "the old port is gone");
    end_move();
    did.moves++;
    return good;
}

static bool
check_undone(void)
{
    bool good = true;

    start_move();
    good &= prepare();
    if (chance(50)) {
        restart_controller();
    }
    state_move(source + 1, 0);
    good &= check_packets(60, SETTLED, "given up") && check_shut(target, 30);
    place_vifs(source, NONE);
    state_move(source + 1, 0);
    good &= check_packets(40, SETTLED, "given up, the port is gone");
    end_move();
    did.undone++;
    return good;
}

/* Connections that were open go on at the destination as policy has it there. */
static bool
check_connections(void)
{
    bool good = true;

    start_move();
    start_talks();
    good &= check_talks();
    state_move(source + 1, target + 1);
    good &= check_talks();
    move_connections();
    if (chance(30)) {
        change_policy();
    }
    place_vifs(target, source);
    state_move(target + 1, target + 1);
    good &= check_talks();
    place_vifs(target, NONE);
    state_move(target + 1, 0);
    good &= check_talks();
    change_policy();
    good &= check_talks();
    end_move();
    return good;
}

/* --- run ----------------------------------------------------------------------------------------
 */

static void
run(const char *name, bool (*check)(void), long long int ms, unsigned at_least)
{
    long long int end = time_msec() + ms;

    CASE(name);
    memset(&seen, 0, sizeof seen);
    for (unsigned n = 0; (n < at_least || time_msec() < end) && !check_failed_; n++) {
        CHECK(check());
    }
    printf("# %u moves, %u undone; copies to a port not there yet %u, to one left %u; "
           "%u delivered, %u replies\n",
           did.moves, did.undone, did.ahead, did.late, seen.delivered, seen.replies);
}

int
main(void)
{
    const char *seconds = getenv("POLICY_SECONDS"), *seed = getenv("POLICY_SEED");
    long long budget = 1000 * (seconds ? atoi(seconds) : 2);

    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    pool_seed = seed ? strtoull(seed, NULL, 0) * 2 + 1 : 4711;
    for (unsigned h = 0; h < N_HOSTS; h++) {
        eval_init(&evals[h]);
    }
    run("migrate: policy at every step of a move", check_move, budget, 25);
    CHECK(did.ahead > 10 && did.late > 10);
    run("migrate: policy at every step of a move that is given up", check_undone, budget / 2, 10);
    run("migrate: connections come along", check_connections, budget, 20);
    CHECK(seen.delivered > 50 && seen.replies > 20);
    for (unsigned h = 0; h < N_HOSTS; h++) {
        eval_destroy(&evals[h]);
    }
    return check_done();
}
