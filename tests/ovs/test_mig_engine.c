/* The migration engine, both ends as processes, through real sockets: cut, killed and
 * damaged in every phase.  An observer in the hypervisor counts moments in which a
 * guest runs twice; at the end it runs exactly once and its memory is what its own
 * steps made of it.
 *
 *     test_mig_engine          all cases, the mix with seed 1
 *     test_mig_engine SEED     the mix with that seed
 */

#include "check.h"
#include "mig_both.h"

/* --- as it should be ----------------------------------------------------------------- */

static void
test_moves(void)
{
    struct pair p = prepare(0, RATE);

    CASE("engine_moves_running_guest");
    CHECK(start(&p));
    finish(&p);
    CHECK(p.s.result.status == MIG_OK && p.d.result.status == MIG_OK);
    CHECK(p.d.result.running && !p.s.result.running && p.s.result.blackout_us > 0);
    CHECK(settled(0) && runs_at(0) == 1);
    explain(&p);
}

/* What both ends have sent, read by somebody who knows docs/migration-stream.md alone. */
static void
capture(struct pair *p)
{
    static char dir[96];

    snprintf(dir, sizeof dir, "%s/capture%d", rig_dir, rig_serial);
    CHECK(!mkdir(dir, 0700));
    p->s.job.capture = p->d.job.capture = dir;
}

static bool
is_as_written(const struct pair *p, const char *option)
{
    static const char reader[] = "tests/migrate/stream_read.py";
    char command[400];

    if (access(reader, X_OK)) {
        printf("# %s is not there\n", reader);
        return true;
    }
    fflush(stdout);
    snprintf(command, sizeof command,
             "PYTHONDONTWRITEBYTECODE=1 %s %s %s >%s/said || { cat %s/said; false; }", reader,
             option, p->s.job.capture, rig_dir, rig_dir);
    return !system(command);
}

static uint64_t
steps(int host)
{
    uint64_t n;

    fake_lock(&fake->vms[host][0]);
    n = fake->vms[host][0].steps;
    fake_unlock(&fake->vms[host][0]);
    return n;
}

/* Between the last look at the dirty log and the pause the guest goes on writing. */
static void
test_last_writes(void)
{
    struct pair p = prepare(0, RATE);
    uint64_t before;

    CASE("engine_carries_writes_up_to_the_pause");
    strcpy(p.s.pause_at, "pause");
    CHECK(start(&p));
    CHECK(rig_until(&p.s, MIG_EVENT_STOPPED, -1));
    before = steps(0);
    for (int i = 0; i < 10000 && steps(0) < before + 200; i++) {
        usleep(1000);
    }
    CHECK(steps(0) >= before + 200);
    rig_tell(&p.s, 'c');
    finish(&p);
    CHECK(settled(0) && runs_at(0) == 1);
    explain(&p);
}

static void
test_offline(void)
{
    struct pair p = prepare(0, RATE);

    CASE("engine_stop_and_copy");
    p.s.job.offline = true;
    CHECK(start(&p));
    finish(&p);
    CHECK(p.s.result.status == MIG_OK && p.d.result.status == MIG_OK && !p.s.result.rounds);
    CHECK(settled(0) && runs_at(0) == 1);
    explain(&p);
}

static void
test_cancel(void)
{
    static const char *const phases[] = {"connect", "prepare", "precopy",
                                         "pause",   "final",   "commit"};

    CASE("engine_cancel_at_any_time_before_commit");
    for (size_t i = 0; i < sizeof phases / sizeof phases[0]; i++) {
        struct pair p = prepare(0, RATE);

        strcpy(p.s.pause_at, phases[i]);
        capture(&p);
        CHECK(start(&p));
        CHECK(rig_until(&p.s, MIG_EVENT_STOPPED, -1));
        rig_tell(&p.s, 'x');
        rig_finish(&p.s);
        CHECK(p.s.result.status == MIG_ROLLED_BACK && !strcmp(p.s.result.why, "cancelled"));
        if (i < 1) {
            rig_tell(&p.d, 'x');
        }
        finish(&p);
        CHECK(settled(0) && runs_at(0) == 0);
        CHECK(p.d.result.status == MIG_ROLLED_BACK);
        CHECK(i < 1 || is_as_written(&p, "--cut"));
        explain(&p);
    }
}

static void
test_dirtying(void)
{
    struct pair p = prepare(0, 4000);
    struct timespec a, b;

    /* 4,000 writes per ms into 1,024 pages: all of it is dirty after each round. */
    CASE("engine_guest_dirtying_everything_is_throttled_or_given_up");
    p.s.job.max_blackout_ms = 4;
    p.s.job.limit_mbps = p.d.job.limit_mbps = 400;
    p.s.job.max_rounds = 12;
    clock_gettime(CLOCK_MONOTONIC, &a);
    CHECK(start(&p));
    finish(&p);
    clock_gettime(CLOCK_MONOTONIC, &b);
    CHECK(settled(0));
    CHECK(p.s.result.rounds <= 12 && b.tv_sec - a.tv_sec < 20);
    CHECK(p.s.result.status == MIG_OK || strstr(p.s.result.why, "faster"));
    CHECK(!fake->vms[runs_at(0) == 1][0].throttle);
    explain(&p);
}

/* --- cut and killed in every phase (36, 37) ---------------------------------------------- */

static const char *const source_phases[] = {"connect", "prepare", "precopy", "pause",
                                            "final",   "commit",  "handover"};
static const char *const destination_phases[] = {"prepare", "precopy", "load",
                                                 "ready",   "run",     "handover"};

enum { SETTLE_MS = 5000 }; /* for who survives, and for who comes back; it takes some 20 */

static uint64_t
now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static uint64_t slowest_ms;

static bool
in_time(uint64_t since_ms)
{
    uint64_t took = now_ms() - since_ms;

    slowest_ms = took > slowest_ms ? took : slowest_ms;
    return took < SETTLE_MS;
}

/* Stops one end in a phase, harms it, lets the rest finish, then recovers. */
static void
harm(bool source, const char *phase, bool cut, int n)
{
    struct pair p = prepare(0, RATE);
    struct party *victim = source ? &p.s : &p.d, *other = source ? &p.d : &p.s;
    uint64_t since;

    strcpy(victim->pause_at, phase);
    CHECK(start(&p));
    CHECK(rig_until(victim, MIG_EVENT_STOPPED, -1));
    since = now_ms();
    if (cut) {
        rig_cut(&p.w);
        rig_tell(victim, 'c');
        if (source && !strcmp(phase, "connect")) {
            rig_tell(&p.d, 'x');
        }
        finish(&p);
        CHECK(in_time(since));
    } else {
        rig_kill(victim);
        if (source && !strcmp(phase, "connect")) {
            rig_tell(&p.d, 'x');
        }
        rig_finish(other);
        CHECK(in_time(since) && !fake->violations);
        since = now_ms();
        CHECK(rig_recover(victim) != MIG_FAILED && in_time(since));
        rig_cut(&p.w);
    }
    CHECK(settled(0));
    explain(&p);
    if (check_failed_) {
        printf("# %s %s in %s\n", source ? "source" : "destination", cut ? "cut" : "killed", phase);
    }
}

static void
test_harm(bool cut)
{
    for (size_t i = 0; i < sizeof source_phases / sizeof source_phases[0]; i++) {
        harm(true, source_phases[i], cut, (int)i);
    }
    for (size_t i = 0; i < sizeof destination_phases / sizeof destination_phases[0]; i++) {
        harm(false, destination_phases[i], cut, (int)i);
    }
    printf("# %s: settled within %u ms\n", cut ? "cut" : "killed", (unsigned)slowest_ms);
}

/* Both die, in the worst moment: READY is out. */
static void
test_both_die(void)
{
    for (int first = 0; first < 2; first++) {
        struct pair p = prepare(0, RATE);

        CASE(first ? "engine_both_killed_source_recovers_first"
                   : "engine_both_killed_destination_recovers_first");
        strcpy(p.s.pause_at, "commit");
        CHECK(start(&p));
        CHECK(rig_until(&p.s, MIG_EVENT_STOPPED, -1));
        /* The destination waits for COMMITTED. */
        fake->cut_off[1] = true;
        rig_kill(&p.d);
        rig_kill(&p.s);
        fake->cut_off[1] = false;
        CHECK(!fake->running[0]);
        CHECK(rig_recover(first ? &p.s : &p.d) != MIG_FAILED);
        CHECK(rig_recover(first ? &p.d : &p.s) != MIG_FAILED);
        rig_cut(&p.w);
        CHECK(settled(0) && runs_at(0) == !first);
        explain(&p);
    }
}

/* The destination's process died when the guest ran; others have begun and given up a
 * further migration of it, and only then it is recovered. */
static void
test_recovered_late(void)
{
    struct claim_file file;
    struct mig_claim claim;
    struct pair p = prepare(0, RATE);

    CASE("engine_late_recover_leaves_a_guest_that_lives_on");
    strcpy(p.d.pause_at, "handover");
    CHECK(start(&p));
    CHECK(rig_until(&p.d, MIG_EVENT_STOPPED, -1));
    rig_kill(&p.d);
    rig_finish(&p.s);
    file = (struct claim_file){.path = p.d.claim, .vm = p.d.job.vm};
    claim = claim_file(&file);
    CHECK(!claim.swap(claim.aux, "h1", 2, "h1", 3, 1000));
    fake_lock(&fake->vms[1][0]);
    fake->vms[1][0].epoch = 3;
    fake_unlock(&fake->vms[1][0]);
    CHECK(rig_recover(&p.d) == MIG_GONE);
    rig_cut(&p.w);
    CHECK(settled(0) && runs_at(0) == 1);
    explain(&p);
}

/* --- the database ------------------------------------------------------------------------- */

static void
test_database(void)
{
    struct pair p = prepare(0, RATE);
    uint64_t before, since;

    CASE("engine_stays_paused_until_database_is_back");
    strcpy(p.s.pause_at, "commit");
    CHECK(start(&p));
    CHECK(rig_until(&p.s, MIG_EVENT_STOPPED, -1));
    fake->cut_off[0] = fake->cut_off[1] = true;
    rig_cut(&p.w);
    rig_tell(&p.s, 'c');
    CHECK(rig_until(&p.s, MIG_EVENT_WAITING, -1) && rig_until(&p.d, MIG_EVENT_WAITING, -1));
    before = steps(0);
    CHECK(!fake->running[0]);
    usleep(50000);
    CHECK(!fake->running[0] && steps(0) == before);
    fake->cut_off[0] = fake->cut_off[1] = false;
    since = now_ms();
    finish(&p);
    CHECK(in_time(since) && settled(0));
    explain(&p);

    CASE("engine_old_row_decides_nothing");
    for (int cut = 0; cut < 2; cut++) {
        p = prepare(0, RATE);
        strcpy(p.s.pause_at, "commit");
        CHECK(start(&p));
        CHECK(rig_until(&p.s, MIG_EVENT_STOPPED, -1));
        fake->swaps_lost[0] = fake->swaps_lost[1] = 2;
        if (cut) {
            rig_cut(&p.w);
        }
        rig_tell(&p.s, 'c');
        finish(&p);
        CHECK(settled(0));
        explain(&p);
    }

    CASE("engine_answer_of_swap_lost");
    for (int host = 0; host < 2; host++) {
        p = prepare(0, RATE);
        strcpy(p.s.pause_at, "commit");
        CHECK(start(&p));
        CHECK(rig_until(&p.s, MIG_EVENT_STOPPED, -1));
        fake->answers_lost[host] = 1;
        if (host) {
            rig_cut(&p.w);
            CHECK(rig_until(&p.d, MIG_EVENT_PHASE, MIG_PHASE_RUN));
        }
        rig_tell(&p.s, 'c');
        finish(&p);
        CHECK(settled(0) && runs_at(0) == 1);
        explain(&p);
    }
}

/* --- damage (38) ---------------------------------------------------------------------------- */

static uint64_t seed;

static uint64_t
next(uint64_t below)
{
    seed = fake_mix(seed + 0x9e3779b97f4a7c15ull);
    return seed % below;
}

static void
test_damage(void)
{
    static const char *const names[] = {[RIG_FLIP] = "engine_damaged_stream_is_never_resumed_flip",
                                        [RIG_SWAP] = "engine_damaged_stream_is_never_resumed_swap",
                                        [RIG_DOUBLE] =
                                            "engine_damaged_stream_is_never_resumed_double",
                                        [RIG_DROP] = "engine_damaged_stream_is_never_resumed_drop"};

    for (int fault = RIG_FLIP; fault <= RIG_DROP; fault++) {
        int n_refused = 0;

        CASE(names[fault]);
        for (int i = 0; i < 6; i++) {
            struct pair p = prepare(0, RATE);

            p.w.fault = fault;
            /* In hello and config, and then anywhere in what certainly comes. */
            p.w.at = i < 2 ? next(400) : next(700000);
            p.s.job.compress = p.d.job.compress = MIG_COMPRESS_NONE;
            p.s.job.answer_ms = p.d.job.answer_ms = 250;
            p.d.job.accept_ms = 250;
            CHECK(start(&p));
            finish(&p);
            /* It may have hit a page that was sent again later. */
            CHECK(settled(0));
            n_refused += runs_at(0) == 0;
            if (check_failed_) {
                printf("# at byte %llu\n", (unsigned long long)p.w.at);
            }
            explain(&p);
        }
        CHECK(n_refused >= 3);
    }
}

/* What an end says in a phase is damaged: the first bytes after it was entered. */
static void
damage_in(bool source, const char *phase, enum rig_fault fault)
{
    struct pair p = prepare(0, RATE);
    struct party *victim = source ? &p.s : &p.d;
    /* FINAL whole and something behind it may come too late to matter. */
    bool decisive = source && (!strcmp(phase, "prepare") || !strcmp(phase, "pause") ||
                               (!strcmp(phase, "final") && fault != RIG_DOUBLE));

    p.w.next = fault;
    p.w.next_of_destination = !source;
    p.s.job.answer_ms = p.d.job.answer_ms = p.d.job.accept_ms = 1500;
    strcpy(victim->pause_at, phase);
    CHECK(start(&p));
    CHECK(rig_until(victim, MIG_EVENT_STOPPED, -1));
    rig_harm(&p.w);
    rig_tell(victim, 'c');
    finish(&p);
    CHECK(settled(0));
    CHECK(p.s.result.status != MIG_FAILED && p.d.result.status != MIG_FAILED);
    CHECK(!decisive || runs_at(0) == 0);
    explain(&p);
    if (check_failed_) {
        printf("# %s's bytes in %s, fault %d\n", source ? "source" : "destination", phase, fault);
    }
}

static void
test_damage_in_phases(void)
{
    /* What is dropped late is waited for, the longer the later. */
    static const enum rig_fault at_source[] = {RIG_SWAP,   RIG_DOUBLE, RIG_DROP, RIG_SWAP,
                                               RIG_DOUBLE, RIG_DROP,   RIG_SWAP};
    static const enum rig_fault at_destination[] = {RIG_SWAP, RIG_DOUBLE, RIG_DROP,
                                                    RIG_SWAP, RIG_DOUBLE, RIG_SWAP};

    CASE("engine_damaged_in_every_phase");
    for (size_t i = 0; i < sizeof source_phases / sizeof source_phases[0]; i++) {
        damage_in(true, source_phases[i], RIG_FLIP);
        damage_in(true, source_phases[i], at_source[i]);
    }
    for (size_t i = 0; i < sizeof destination_phases / sizeof destination_phases[0]; i++) {
        damage_in(false, destination_phases[i], RIG_FLIP);
        damage_in(false, destination_phases[i], at_destination[i]);
    }
}

/* --- refused before the pause (39) ------------------------------------------------------------ */

static void
refused(struct pair *p)
{
    p->d.job.accept_ms = 250;
    p->d.job.answer_ms = p->s.job.answer_ms = 250;
    CHECK(start(p));
    finish(p);
    CHECK(p->s.result.status != MIG_OK && p->d.result.status != MIG_OK);
    CHECK(p->s.last_phase == MIG_PHASE_DONE && p->s.result.rounds == 0);
    CHECK(runs_at(0) == 0 && fake->vms[0][0].epoch == 1);
    explain(p);
}

static void
test_refused(void)
{
    struct pair p = prepare(0, RATE);

    CASE("engine_refuses_other_vm");
    rig_uuid(p.d.job.vm, 77);
    refused(&p);

    CASE("engine_refuses_other_migration");
    p = prepare(0, RATE);
    rig_uuid(p.d.job.migration, 7777);
    refused(&p);

    CASE("engine_refuses_other_epoch");
    p = prepare(0, RATE);
    p.d.job.epoch = 2;
    refused(&p);
    p = prepare(0, RATE);
    p.d.job.epoch = p.s.job.epoch = 2;
    refused(&p);

    CASE("engine_refuses_other_host");
    p = prepare(0, RATE);
    strcpy(p.s.job.from, "h7");
    refused(&p);
    p = prepare(0, RATE);
    strcpy(p.d.job.from, "h7");
    refused(&p);

    CASE("engine_refuses_other_number_of_connections");
    p = prepare(0, RATE);
    p.d.job.connections = 3;
    refused(&p);
}

/* --- at once (40)
 * --------------------------------------------------------------------------------- */

static void
test_twice(void)
{
    struct pair p = prepare(0, RATE), q;

    CASE("engine_same_vm_twice_is_refused_at_one_host");
    strcpy(p.s.pause_at, "precopy");
    CHECK(start(&p));
    CHECK(rig_until(&p.s, MIG_EVENT_STOPPED, -1));
    q = p;
    q.s.pid = q.d.pid = 0;
    rig_uuid(q.s.job.migration, 5000);
    strcat(q.s.journal, "b");
    rig_start(&q.s);
    rig_finish(&q.s);
    CHECK(q.s.result.status == MIG_FAILED && strstr(q.s.result.why, "another migration"));
    rig_tell(&p.s, 'c');
    finish(&p);
    CHECK(settled(0) && runs_at(0) == 1);
    explain(&p);
}

static void
test_many(void)
{
    struct pair p[FAKE_VMS];

    CASE("engine_eight_at_once");
    for (int i = 0; i < FAKE_VMS; i++) {
        p[i] = prepare(i, RATE);
        CHECK(start(&p[i]));
    }
    for (int i = 0; i < FAKE_VMS; i++) {
        finish(&p[i]);
        CHECK(p[i].s.result.status == MIG_OK && p[i].d.result.status == MIG_OK);
        CHECK(settled(i) && runs_at(i) == 1);
        explain(&p[i]);
    }
}

/* --- post-copy
 * --------------------------------------------------------------------------------------- */

static void
test_postcopy(void)
{
    struct pair p = prepare_postcopy();

    CASE("engine_postcopy");
    capture(&p);
    CHECK(start(&p));
    rig_tell(&p.s, 'p');
    CHECK(rig_until(&p.s, MIG_EVENT_PHASE, MIG_PHASE_POSTCOPY));
    finish(&p);
    CHECK(p.s.result.status == MIG_OK && p.d.result.status == MIG_OK);
    CHECK(settled(0) && runs_at(0) == 1);
    CHECK(p.s.result.postcopy && p.s.result.postcopy_pages);
    CHECK(is_as_written(&p, ""));
    explain(&p);
}

static void
test_postcopy_cut(void)
{
    struct pair p = prepare_postcopy();

    CASE("engine_postcopy_goes_on_after_cut");
    strcpy(p.d.pause_at, "postcopy");
    CHECK(start(&p));
    rig_tell(&p.s, 'p');
    CHECK(rig_until(&p.d, MIG_EVENT_STOPPED, -1));
    rig_break(&p.w);
    rig_tell(&p.d, 'c');
    CHECK(rig_until(&p.s, MIG_EVENT_WAITING, -1));
    finish(&p);
    CHECK(p.s.result.status == MIG_OK && p.d.result.status == MIG_OK);
    CHECK(settled(0) && runs_at(0) == 1);
    explain(&p);
}

static void
test_postcopy_killed(bool source)
{
    struct pair p = prepare_postcopy();
    struct party *victim = source ? &p.s : &p.d;

    CASE(source ? "engine_postcopy_source_killed" : "engine_postcopy_destination_killed");
    strcpy(victim->pause_at, "postcopy");
    CHECK(start(&p));
    rig_tell(&p.s, 'p');
    CHECK(rig_until(victim, MIG_EVENT_STOPPED, -1));
    CHECK(!source || rig_until(&p.d, MIG_EVENT_PHASE, MIG_PHASE_POSTCOPY));
    rig_kill(victim);
    CHECK(fake->running[0] == 2);
    CHECK(rig_recover(victim) == MIG_OK);
    finish(&p);
    CHECK(p.s.result.status == MIG_OK && p.d.result.status == MIG_OK);
    CHECK(settled(0) && runs_at(0) == 1);
    explain(&p);
}

/* All memory is there, and the source has not heard of it. */
static void
test_postcopy_killed_complete(void)
{
    struct pair p = prepare_postcopy();

    CASE("engine_postcopy_destination_killed_when_complete");
    fake->dies_complete = true;
    CHECK(start(&p));
    rig_tell(&p.s, 'p');
    rig_finish(&p.d);
    rig_reap(&p.d);
    CHECK(!fake->dies_complete && fake->running[0] == 2);
    CHECK(rig_recover(&p.d) == MIG_OK);
    finish(&p);
    CHECK(p.s.result.status == MIG_OK && p.d.result.status == MIG_OK);
    CHECK(settled(0) && runs_at(0) == 1);
    explain(&p);
}

/* --- a long mix (42)
 * ------------------------------------------------------------------------------------ */

static void
test_mix(int n)
{
    CASE("engine_seeded_mix");
    for (int i = 0; i < n && !check_failed_; i++) {
        uint64_t begun_with = seed;
        struct pair p = prepare(0, 1 + (unsigned int)next(40));
        int what = (int)next(4);
        bool source = next(2);
        struct party *victim = source ? &p.s : &p.d;

        p.s.job.connections = p.d.job.connections = 1 + (unsigned int)next(4);
        p.s.job.answer_ms = p.d.job.answer_ms = 700;
        p.d.job.accept_ms = 700;
        p.w.at = next(6000000);
        p.w.fault = what == 0 ? RIG_CUT : what == 1 ? RIG_FLIP + next(4) : RIG_NONE;
        CHECK(start(&p));
        if (what == 2) {
            usleep((useconds_t)next(60000));
            rig_kill(victim);
        }
        if (what == 3) {
            usleep((useconds_t)next(40000));
            rig_tell(victim, 'x');
        }
        finish(&p);
        if (what == 2) {
            CHECK(rig_recover(victim) != MIG_FAILED);
        }
        CHECK(settled(0));
        explain(&p);
        if (check_failed_) {
            printf("# replay with seed %llu (mix %d, what %d, %s, byte %llu)\n",
                   (unsigned long long)begun_with, i, what, source ? "source" : "destination",
                   (unsigned long long)p.w.at);
        }
    }
}

int
main(int argc, char *argv[])
{
    seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    rig_setup();
    if (argc > 1) {
        test_mix(200);
        rig_teardown();
        return check_done();
    }
    test_moves();
    test_last_writes();
    test_offline();
    test_cancel();
    test_dirtying();
    CASE("engine_killed_in_every_phase");
    test_harm(false);
    CASE("engine_cut_in_every_phase");
    test_harm(true);
    test_both_die();
    test_recovered_late();
    test_database();
    test_damage();
    test_damage_in_phases();
    test_refused();
    test_twice();
    test_many();
    test_postcopy();
    test_postcopy_cut();
    test_postcopy_killed(true);
    test_postcopy_killed(false);
    test_postcopy_killed_complete();
    test_mix(15);
    rig_teardown();
    return check_done();
}
