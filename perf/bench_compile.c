/* bench_compile: what the policy compiler costs.
 *
 * usage: bench_compile [HOSTS [VIFS_PER_HOST [RULES]]]     (64 1000 10000)
 *
 * Seconds and microseconds are CPU time of this one thread.  First the whole
 * pool, then changes of several kinds, each as a mean over rounds: the time
 * until the model is settled, until the hosts' tables are, and how many flows
 * the hosts would be sent.  ctl_big.h says what the pool looks like. */
#include <config.h>

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "compile.h"
#include "ctl_big.h"
#include "openvswitch/vlog.h"
#include "pflow.h"
#include "slab.h"

#define ROUNDS 200u

static double
cpu_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return ts.tv_sec + ts.tv_nsec / 1e9;
}

static double
used_mb(void)
{
    struct mallinfo2 mi = mallinfo2();

    return (mi.uordblks + mi.hblkhd + slab_bytes()) / 1e6;
}

static uint64_t
total_flows(const struct big *b, struct compile *c)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < b->n_hosts; i++) {
        n += ftable_count(compile_host_flows(c, big_key(REC_HOST, i)));
    }
    return n;
}

enum change { RULE_OF_VIF, RULE_OF_NETWORK, RULE_GLOBAL, VIF_MOVES, VIF_ADDRESS, N_CHANGES };

static void
make_change(enum change change, struct big *b, struct model *m, unsigned round)
{
    unsigned vif = 35;

    switch (change) {
    case RULE_OF_VIF:
        big_put_rule(b, m, 5 * 80 + 2, 1 + round);
        break;
    case RULE_OF_NETWORK:
        big_put_rule(b, m, 5 * 10 + 2, 1 + round);
        break;
    case RULE_GLOBAL:
        big_put_rule(b, m, 0, 1 + round);
        break;
    case VIF_MOVES:
        big_unplug(m, vif, round & 1);
        big_plug(m, vif, !(round & 1), 5000);
        break;
    case VIF_ADDRESS:
        big_put_vif(b, m, vif, 1 + round % 2);
        break;
    case N_CHANGES:
        break;
    }
}

static void
measure(enum change change, struct big *b, struct model *m, struct compile *c)
{
    static const char *const names[] = {"a rule of a vif", "a rule of a network", "a global rule",
                                        "a vif moves", "a vif's address"};
    double settle = 0, compile = 0;
    uint64_t sent = 0;

    for (unsigned round = 0; round < ROUNDS; round++) {
        double start = cpu_s(), settled;
        struct fdelta d;

        make_change(change, b, m, round);
        model_settle(m);
        settled = cpu_s();
        compile_run(c);
        compile += cpu_s() - settled;
        settle += settled - start;
        model_changes_clear(m);
        for (unsigned i = 0; i < b->n_hosts; i++) {
            fdelta_init(&d);
            ftable_take(compile_host_flows(c, big_key(REC_HOST, i)), &d);
            sent += fdelta_count(&d);
            fdelta_destroy(&d);
        }
    }
    printf("%-22s model %8.1f us   flows %8.1f us   %7.1f sent\n", names[change],
           settle / ROUNDS * 1e6, compile / ROUNDS * 1e6, (double)sent / ROUNDS);
}

int
main(int argc, char *argv[])
{
    struct big b = {.n_hosts = argc > 1 ? atoi(argv[1]) : 64,
                    .vifs_per_host = argc > 2 ? atoi(argv[2]) : 1000,
                    .n_rules = argc > 3 ? atoi(argv[3]) : 10000};
    struct model *m = model_create();
    struct compile *c = compile_create(m);
    double start, stated, compiled, mb0, mb1, mb2;

    if (!b.n_hosts || b.n_hosts > 250 || !b.vifs_per_host || b.n_rules < 1000) {
        fprintf(stderr, "usage: bench_compile [HOSTS (1..250) [VIFS_PER_HOST [RULES (1000..)]]]\n");
        return 1;
    }
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    mb0 = used_mb();
    start = cpu_s();
    big_state(&b, m);
    stated = cpu_s();
    mb1 = used_mb();
    compile_run(c);
    compiled = cpu_s();
    mb2 = used_mb();
    model_changes_clear(m);
    printf("%u hosts, %u vifs, %u networks, %u rules: %llu flows\n", b.n_hosts, big_n_vifs(&b),
           b.n_nets, b.n_rules, (unsigned long long)total_flows(&b, c));
    printf("model %.2f s, %.0f MB; flows %.2f s, %.0f MB\n", stated - start, mb1 - mb0,
           compiled - stated, mb2 - mb1);

    for (unsigned i = 0; i < b.n_hosts; i++) {
        ftable_track(compile_host_flows(c, big_key(REC_HOST, i)), true);
    }
    for (enum change change = 0; change < N_CHANGES; change++) {
        measure(change, &b, m, c);
    }
    compile_destroy(c);
    model_destroy(m);
    return 0;
}
