/* The compiler between runs: whatever changes, the flows that are kept are those
 * that a fresh compilation makes, the recorded differences lead from one to the
 * other, and the work for a change does not grow with the pool. */
#include <config.h>

#include "check.h"
#include "compile.h"
#include "ctl_big.h"
#include "ctl_pool.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/match.h"
#include "openvswitch/ofp-actions.h"
#include "openvswitch/ofp-flow.h"
#include "openvswitch/ofp-msgs.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/vlog.h"
#include "pflow.h"
#include "timeval.h"

/* --- flows ----------------------------------------------------------------------- */

static bool
same_table(const struct ftable *a, const struct ftable *b)
{
    struct fdelta d;
    bool same;

    fdelta_init(&d);
    fdelta_diff(&d, a, b);
    same = fdelta_is_empty(&d) && ftable_count(a) == ftable_count(b);
    fdelta_destroy(&d);
    return same;
}

static void
apply(struct ftable *ft, const struct fdelta *d, bool *good)
{
    struct fchange *c;

    FDELTA_FOR_EACH (c, d) {
        struct pflow *has = ftable_find(ft, c->before ? c->before : c->after);

        *good &= c->before ? has && pflow_equal(has, c->before) : !has;
        if (c->after) {
            ftable_set(ft, c->after);
        } else {
            ftable_remove(ft, c->before);
        }
    }
}

/* A message that adds the flow, read back. */
static struct pflow *
through_message(const struct pflow *f, enum ofp_version version)
{
    struct ofpbuf *msg = pflow_encode_add(f, version);
    enum ofputil_protocol protocol = ofputil_protocol_from_ofp_version(version);
    uint64_t stub[1024 / 8];
    struct ofpbuf acts = OFPBUF_STUB_INITIALIZER(stub);
    struct ofputil_flow_mod fm;
    struct pflow *read = NULL;
    struct match match;

    if (!ofputil_decode_flow_mod(&fm, msg->data, protocol, NULL, NULL, &acts, OFPP_MAX, 255)) {
        minimatch_expand(&fm.match, &match);
        if (fm.command == OFPFC_ADD && !fm.idle_timeout && !fm.hard_timeout && !fm.flags) {
            read = pflow_create(fm.table_id, fm.priority, ntohll(fm.new_cookie), &match, fm.ofpacts,
                                fm.ofpacts_len);
        }
        minimatch_destroy(&fm.match);
    }
    ofpbuf_uninit(&acts);
    ofpbuf_delete(msg);
    return read;
}

static bool
all_through_messages(const struct ftable *ft)
{
    static const enum ofp_version versions[] = {OFP13_VERSION, OFP14_VERSION, OFP15_VERSION};
    bool good = true;
    const struct pflow *f;

    FTABLE_FOR_EACH (f, ft) {
        for (unsigned i = 0; i < ARRAY_SIZE(versions); i++) {
            struct pflow *read = through_message(f, versions[i]);

            good &= read && pflow_equal(read, f);
            if (!read || !pflow_equal(read, f)) {
                struct ds s = DS_EMPTY_INITIALIZER;

                pflow_format(f, &s);
                printf("# %#x: %s\n", versions[i], ds_cstr(&s));
                ds_destroy(&s);
            }
            pflow_unref(read);
        }
    }
    return good;
}

/* --- against a fresh compilation ----------------------------------------------------- */

struct twin {
    struct model *model;
    struct compile *compile;
};

static struct twin
fresh(const struct pool *p)
{
    struct twin t = {model_create(), NULL};

    pool_state_all(p, t.model);
    t.compile = compile_create(t.model);
    compile_run(t.compile);
    model_changes_clear(t.model);
    return t;
}

static void
free_twin(struct twin *t)
{
    compile_destroy(t->compile);
    model_destroy(t->model);
}

static void
print_difference(const struct ftable *kept, const struct ftable *want)
{
    struct fdelta d;
    struct fchange *c;
    unsigned n = 0;

    fdelta_init(&d);
    fdelta_diff(&d, kept, want);
    FDELTA_FOR_EACH (c, &d) {
        struct ds s = DS_EMPTY_INITIALIZER;

        ds_put_cstr(&s, "#  kept: ");
        if (c->before) {
            pflow_format(c->before, &s);
        }
        ds_put_cstr(&s, "\n#  want: ");
        if (c->after) {
            pflow_format(c->after, &s);
        }
        puts(ds_cstr(&s));
        ds_destroy(&s);
        if (++n > 3) {
            break;
        }
    }
    fdelta_destroy(&d);
}

/* A switch that gets only differences, several runs merged now and then. */
struct follower {
    struct ftable flows;
    struct fdelta queued;
    bool follows, good;
};

static struct follower followers[N_HOSTS];

static void
follow(struct compile *c, unsigned h)
{
    struct follower *f = &followers[h];
    struct ftable *ft = compile_host_flows(c, pool_key(REC_HOST, h));

    if (!ft) {
        if (f->follows) {
            ftable_clear(&f->flows);
            fdelta_clear(&f->queued);
            f->follows = false;
        }
        return;
    }
    if (!f->follows || !ft->delta) {
        struct fdelta all;

        fdelta_init(&all);
        fdelta_clear(&f->queued);
        fdelta_diff(&all, &f->flows, ft);
        apply(&f->flows, &all, &f->good);
        fdelta_destroy(&all);
        ftable_track(ft, true);
        f->follows = true;
        return;
    }
    ftable_take(ft, &f->queued);
    if (chance(50)) {
        apply(&f->flows, &f->queued, &f->good);
        fdelta_clear(&f->queued);
        f->good &= same_table(&f->flows, ft);
    }
}

static bool
check_step(struct twin *kept, const struct pool *p)
{
    struct twin want = fresh(p);
    bool good = true;

    for (unsigned h = 0; h < N_HOSTS; h++) {
        struct ftable *a = compile_host_flows(kept->compile, pool_key(REC_HOST, h));
        struct ftable *b = compile_host_flows(want.compile, pool_key(REC_HOST, h));

        if (!!a != !!b || !!a != p->hosts[h].there) {
            good = false;
        } else if (a && !same_table(a, b)) {
            print_difference(a, b);
            good = false;
        }
        follow(kept->compile, h);
        good &= followers[h].good;
    }
    free_twin(&want);
    return good;
}

static void
test_incremental(void)
{
    unsigned n_pools = 0, n_steps = 0;
    long long end = time_msec() + 4000;
    bool messages = true;

    CASE("compile: kept flows are those of a fresh compilation");
    while ((time_msec() < end || n_pools < 10) && !check_failed_) {
        struct pool p;
        struct twin kept;

        random_pool(&p);
        pool_moves = n_pools & 1;
        kept = fresh(&p);
        for (unsigned h = 0; h < N_HOSTS; h++) {
            followers[h].good = true;
            ftable_init(&followers[h].flows);
            fdelta_init(&followers[h].queued);
        }
        for (unsigned step = 0; step < 30 && !check_failed_; step++, n_steps++) {
            CHECK(check_step(&kept, &p));
            for (unsigned n = 1 + pick(4); n; n--) {
                pool_change(&p, kept.model);
            }
            compile_run(kept.compile);
            model_changes_clear(kept.model);
        }
        for (unsigned h = 0; h < N_HOSTS; h++) {
            struct ftable *ft = compile_host_flows(kept.compile, pool_key(REC_HOST, h));

            messages &= !ft || n_pools > 3 || all_through_messages(ft);
            ftable_destroy(&followers[h].flows);
            fdelta_destroy(&followers[h].queued);
        }
        free_twin(&kept);
        n_pools++;
    }
    printf("# %u pools, %u steps\n", n_pools, n_steps);

    CASE("flow: every flow survives OpenFlow 1.3, 1.4 and 1.5");
    CHECK(messages);
}

static void
test_nothing_left(void)
{
    struct twin t = {model_create(), NULL};
    struct pool p;

    CASE("compile: what goes takes its flows along");
    random_pool(&p);
    for (unsigned h = 0; h < N_HOSTS; h++) {
        p.hosts[h].there = true;
    }
    t.compile = compile_create(t.model);
    pool_state_all(&p, t.model);
    compile_run(t.compile);
    model_changes_clear(t.model);
    size_t full = ftable_count(compile_host_flows(t.compile, pool_key(REC_HOST, 0)));
    for (int k = REC_RULE; k >= REC_NETWORK; k--) {
        for (unsigned i = 0; i < pool_counts[k]; i++) {
            struct uuid uuid = pool_uuid(k, i);

            model_remove(t.model, k, &uuid);
        }
    }
    model_settle(t.model);
    compile_run(t.compile);
    model_changes_clear(t.model);

    struct pool empty = {.allow = p.allow};
    memcpy(empty.hosts, p.hosts, sizeof p.hosts);
    struct twin want = fresh(&empty);
    struct ftable *left = compile_host_flows(t.compile, pool_key(REC_HOST, 0));
    CHECK(same_table(left, compile_host_flows(want.compile, pool_key(REC_HOST, 0))));
    CHECK(ftable_count(left) < full);
    free_twin(&want);
    free_twin(&t);
}

/* Hosts that come and go in one run with the first rule, or the last, that is about all
 * of them: then the scope of these rules is made, or freed, in that run. */
static void
test_hosts_and_first_rule(void)
{
    CASE("compile: a host goes, or comes, as the first or last pool-wide rule does");
    for (unsigned way = 0; way < 16; way++) {
        struct pool p;
        struct twin kept;

        random_pool(&p);
        for (unsigned i = 0; i < N_POLICIES; i++) {
            p.policies[i].there = false;
        }
        for (unsigned i = 0; i < N_HOSTS; i++) {
            p.hosts[i].there = true;
        }
        p.policies[0] = (struct p_policy){.there = way & 4, .scope = way & 8 ? 0 : 1, NONE};
        p.rules[0] = (struct p_rule){
            .there = true, .protocol = -1, .remote_group = NONE, .icmp_type = -1, .icmp_code = -1};
        p.hosts[1].there = way & 2;
        kept = fresh(&p);
        for (unsigned step = 0; step < 4; step++) {
            p.hosts[1].there ^= step != 1;
            p.policies[0].there ^= step != 2;
            pool_state(&p, kept.model, way & 1 ? REC_HOST : REC_POLICY, way & 1);
            pool_state(&p, kept.model, way & 1 ? REC_POLICY : REC_HOST, !(way & 1));
            pool_state(&p, kept.model, REC_RULE, 0);
            model_settle(kept.model);
            pool_state_ports(&p, kept.model);
            model_settle(kept.model);
            compile_run(kept.compile);
            model_changes_clear(kept.model);

            struct twin want = fresh(&p);

            for (unsigned h = 0; h < N_HOSTS; h++) {
                struct ftable *a = compile_host_flows(kept.compile, pool_key(REC_HOST, h));
                struct ftable *b = compile_host_flows(want.compile, pool_key(REC_HOST, h));

                CHECK(!a == !b && (!a || same_table(a, b)));
            }
            free_twin(&want);
        }
        free_twin(&kept);
    }
}

/* --- work ----------------------------------------------------------------------------------- */

enum { CHANGE_RULE, CHANGE_MOVE, CHANGE_ADDRESS, N_CHANGES };

static struct compile_stats
work_of(struct big *b, struct model *m, struct compile *c, int change)
{
    struct compile_stats before = *compile_get_stats(c), after;
    unsigned vif = 35; /* in the third network, on the first host */

    switch (change) {
    case CHANGE_RULE:
        big_put_rule(b, m, 5 * 80 + 1, 7); /* of a vif */
        break;
    case CHANGE_MOVE:
        big_unplug(m, vif, 0);
        big_plug(m, vif, 1, 2000);
        break;
    case CHANGE_ADDRESS:
        big_put_vif(b, m, vif, 50);
        break;
    }
    model_settle(m);
    compile_run(c);
    model_changes_clear(m);
    after = *compile_get_stats(c);
    return (struct compile_stats){.units = after.units - before.units,
                                  .flows = after.flows - before.flows,
                                  .moves = after.moves - before.moves};
}

static void
test_work(void)
{
    static const char *const names[] = {"a rule", "a vif moved", "an address"};
    struct compile_stats work[2][N_CHANGES];

    for (unsigned size = 0; size < 2; size++) {
        struct big b = {.n_hosts = size ? 32 : 8, .vifs_per_host = 128, .n_rules = 1000};
        struct model *m = model_create();
        struct compile *c = compile_create(m);

        big_state(&b, m);
        compile_run(c);
        model_changes_clear(m);
        for (int change = 0; change < N_CHANGES; change++) {
            work[size][change] = work_of(&b, m, c, change);
        }
        compile_destroy(c);
        model_destroy(m);
    }
    CASE("compile: the work for a change is the same in a pool four times as large");
    for (int i = 0; i < N_CHANGES; i++) {
        const struct compile_stats *a = &work[0][i], *b = &work[1][i];

        printf("# %s: units %d %d, flows %d %d, moves %d %d\n", names[i], (int)a->units,
               (int)b->units, (int)a->flows, (int)b->flows, (int)a->moves, (int)b->moves);
        CHECK(a->units && a->flows && a->moves);
        CHECK(b->units <= a->units && b->flows <= a->flows && b->moves <= a->moves);
    }
}

int
main(void)
{
    const char *seed = getenv("COMPILE_SEED");

    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    pool_seed = seed ? strtoull(seed, NULL, 0) * 2 + 1 : 4711;
    test_incremental();
    test_nothing_left();
    test_hosts_and_first_rule();
    test_work();
    return check_done();
}
