/* Migrations whose end is told by the row: a journal that is lost, a guest that died, a
 * word that was not heard; and the vifs' part of the end. */
#include "end.h"
#include "mig_both.h"
#include "mig_switch.h"

/* --- the journal is gone ----------------------------------------------------------------- */

static void
forget(struct party *p)
{
    CHECK(!truncate(p->journal, 0));
}

static bool
owned(const struct party *p, const char *host, uint64_t epoch)
{
    return !strcmp(p->result.owner, host) && p->result.epoch == epoch;
}

/* After both are done: what recover says is what the row says. */
static void
test_journal_lost_when_done(void)
{
    struct pair p = prepare(0, RATE);

    CASE("engine_journal_lost_after_the_end_says_what_the_row_says");
    CHECK(start(&p));
    finish(&p);
    CHECK(p.s.result.status == MIG_OK && owned(&p.s, "h1", 2) && owned(&p.d, "h1", 2));
    CHECK(rig_recover(&p.s) == MIG_OK && owned(&p.s, "h1", 2) && !p.s.result.running);
    CHECK(rig_recover(&p.d) == MIG_OK && owned(&p.d, "h1", 2) && p.d.result.running);
    forget(&p.s);
    forget(&p.d);
    CHECK(rig_recover(&p.s) == MIG_OK && owned(&p.s, "h1", 2));
    CHECK(rig_recover(&p.d) == MIG_OK && owned(&p.d, "h1", 2) && p.d.result.running);
    CHECK(settled(0) && runs_at(0) == 1);
    explain(&p);
}

/* The source dies in `phase` and loses its journal. */
static void
lose_source(const char *phase, int runs, const char *host, uint64_t epoch)
{
    struct pair p = prepare(0, RATE);

    strcpy(p.s.pause_at, phase);
    CHECK(start(&p));
    CHECK(rig_until(&p.s, MIG_EVENT_STOPPED, -1));
    fake->cut_off[1] = true; /* it decides nothing meanwhile */
    rig_kill(&p.s);
    forget(&p.s);
    CHECK(rig_recover(&p.s) == (runs ? MIG_OK : MIG_ROLLED_BACK) && owned(&p.s, host, epoch));
    fake->cut_off[1] = false;
    rig_finish(&p.d);
    rig_cut(&p.w);
    CHECK(settled(0) && runs_at(0) == runs);
    explain(&p);
}

static void
test_journal_lost_at_source(void)
{
    CASE("engine_journal_lost_at_source");
    lose_source("precopy", 0, "h0", 1);
    lose_source("commit", 0, "h0", 2);
    lose_source("handover", 1, "h1", 2);
}

/* READY is out, nothing decided: neither run nor discarded until the row has changed. */
static void
lose_destination(bool commits)
{
    struct pair p = prepare(0, RATE);

    strcpy(p.s.pause_at, "commit");
    CHECK(start(&p));
    CHECK(rig_until(&p.s, MIG_EVENT_STOPPED, -1));
    fake->cut_off[1] = true;
    rig_kill(&p.d);
    fake->cut_off[1] = false;
    forget(&p.d);
    CHECK(rig_recover(&p.d) == MIG_FAILED && owned(&p.d, "h0", 1));
    CHECK(rig_recover(&p.d) == MIG_FAILED && fake->vms[1][0].exists && !fake->running[0]);
    if (!commits) {
        rig_tell(&p.s, 'x');
    }
    rig_tell(&p.s, 'c');
    rig_finish(&p.s);
    CHECK(rig_recover(&p.d) == (commits ? MIG_OK : MIG_ROLLED_BACK));
    rig_cut(&p.w);
    CHECK(owned(&p.d, commits ? "h1" : "h0", 2) && settled(0) && runs_at(0) == commits);
    explain(&p);
}

static void
test_journal_lost_at_destination(void)
{
    CASE("engine_journal_lost_at_destination");
    lose_destination(true);
    lose_destination(false);
}

/* The destination's guest has died, the source has READY in hand: it may not commit. */
static void
die_behind_ready(bool journal_lost)
{
    struct pair p = prepare(0, RATE);

    strcpy(p.s.pause_at, "commit");
    CHECK(start(&p));
    CHECK(rig_until(&p.s, MIG_EVENT_STOPPED, -1));
    rig_kill(&p.d);
    fake_lock(&fake->vms[1][0]);
    fake->vms[1][0].exists = false;
    fake_unlock(&fake->vms[1][0]);
    if (journal_lost) {
        forget(&p.d);
    }
    CHECK(rig_recover(&p.d) == MIG_ROLLED_BACK && owned(&p.d, "h0", 2));
    rig_tell(&p.s, 'c');
    CHECK(rig_finish(&p.s) == MIG_ROLLED_BACK && p.s.result.running);
    rig_cut(&p.w);
    CHECK(settled(0) && runs_at(0) == 0);
    explain(&p);
}

static void
test_guest_dies_behind_ready(void)
{
    CASE("engine_guest_that_died_behind_ready_is_the_sources");
    die_behind_ready(false);
    CASE("engine_guest_that_died_behind_ready_is_the_sources_without_journal_too");
    die_behind_ready(true);
}

/* The row is the destination's, and no word of RUNNING comes: the source does not wait
 * for it for ever, and says so; the destination needs nothing of it. */
static void
test_running_unheard(void)
{
    struct pair p = prepare(0, RATE);

    CASE("engine_running_unheard_by_the_source");
    strcpy(p.d.pause_at, "run");
    CHECK(start(&p));
    CHECK(rig_until(&p.d, MIG_EVENT_STOPPED, -1));
    rig_kill(&p.d);
    CHECK(rig_finish(&p.s) == MIG_OK && strstr(p.s.result.why, "has not said that it runs"));
    CHECK(!fake->vms[0][0].exists && !fake->running[0]);
    CHECK(rig_recover(&p.d) == MIG_OK);
    rig_cut(&p.w);
    CHECK(settled(0) && runs_at(0) == 1);
    explain(&p);
}

/* The destination takes longer than late frames are waited for: the source still hears when the
 * guest runs, and so how long it did not. */
static void
test_running_late(void)
{
    struct pair p = prepare(0, RATE);
    struct pollfd ended;

    CASE("engine_running_heard_late");
    strcpy(p.d.pause_at, "run");
    CHECK(start(&p));
    CHECK(rig_until(&p.d, MIG_EVENT_STOPPED, -1));
    CHECK(rig_until(&p.s, MIG_EVENT_PHASE, MIG_PHASE_HANDOVER));
    ended = (struct pollfd){.fd = p.s.out, .events = POLLIN};
    CHECK(!poll(&ended, 1, HANDOVER_MS + 300));
    rig_tell(&p.d, 'c');
    finish(&p);
    CHECK(p.s.result.status == MIG_OK && !*p.s.result.why);
    CHECK(p.s.result.blackout_us > HANDOVER_MS * 1000);
    CHECK(settled(0) && runs_at(0) == 1);
    explain(&p);
}

/* --- a guest that dies in post-copy ---------------------------------------------------------- */

static void
die(int host)
{
    struct fake_vm *vm = &fake->vms[host][0];

    fake_lock(vm);
    vm->exists = false;
    fake->running[0] &= ~(1 << host);
    fake_unlock(vm);
}

/* Somebody who always connects anew, and says nothing. */
static pid_t
begin_stranger(const struct party *p)
{
    pid_t parent = getpid(), pid = fork();

    while (!pid) {
        int fd = rig_dial(p->address);
        char byte;

        rig_die_with_parent(parent);
        if (fd >= 0) {
            while (read(fd, &byte, 1) > 0) {
                continue;
            }
            close(fd);
        }
    }
    return pid;
}

/* Its host's agent has found it dead: the VM is nobody's. */
static void
halt(const struct party *p)
{
    struct claim_file file = {.path = p->claim, .vm = p->job.vm};
    struct mig_claim claim = claim_file(&file);

    CHECK(!claim.swap(claim.aux, "h1", 2, "nobody", 3, 1000));
}

/* Nobody waits for the memory of a dead guest, whether its source is there or not. */
static void
test_guest_dies_in_postcopy(void)
{
    for (int away = 0; away < 2; away++) {
        struct pair p = prepare_postcopy();

        CASE(away ? "engine_postcopy_ends_with_its_guest_while_the_source_is_away"
                  : "engine_postcopy_ends_with_its_guest");
        strcpy(p.d.pause_at, "postcopy");
        CHECK(start(&p));
        rig_tell(&p.s, 'p');
        CHECK(rig_until(&p.d, MIG_EVENT_STOPPED, -1));
        if (away) {
            rig_cut(&p.w);
            rig_tell(&p.d, 'c');
            CHECK(rig_until(&p.d, MIG_EVENT_WAITING, -1));
        }
        die(1);
        rig_tell(&p.d, 'c');
        CHECK(rig_finish(&p.d) == MIG_GONE && strstr(p.d.result.why, "died"));
        if (away) {
            halt(&p.s);
        }
        CHECK(rig_finish(&p.s) == MIG_OK && !fake->vms[0][0].exists && !fake->running[0]);
        CHECK(strstr(p.s.result.why, away ? "others" : "died"));
        rig_cut(&p.w);
        explain(&p);
    }
}

/* Whoever connects meanwhile does not keep it from being looked at. */
static void
test_guest_dies_among_strangers(void)
{
    struct pair p = prepare_postcopy();
    pid_t stranger;

    CASE("engine_postcopy_ends_with_its_guest_among_strangers");
    strcpy(p.d.pause_at, "postcopy");
    CHECK(start(&p));
    rig_tell(&p.s, 'p');
    CHECK(rig_until(&p.d, MIG_EVENT_STOPPED, -1));
    rig_kill(&p.d);
    rig_cut(&p.w);
    stranger = begin_stranger(&p.d);
    *p.d.pause_at = '\0';
    p.d.job.role = MIG_RECOVER;
    p.d.job.accept_ms = 1000;
    rig_start(&p.d);
    CHECK(rig_until(&p.d, MIG_EVENT_WAITING, -1));
    die(1);
    CHECK(rig_finish(&p.d) == MIG_GONE && strstr(p.d.result.why, "died"));
    kill(stranger, SIGKILL);
    waitpid(stranger, NULL, 0);
    halt(&p.s);
    CHECK(rig_finish(&p.s) == MIG_OK && !fake->vms[0][0].exists && !fake->running[0]);
    explain(&p);
}

/* --- vifs ----------------------------------------------------------------------------------- */

/* The port at the source stays, and frames come to it for a while. */
static void
test_handover(void)
{
    struct pair p = prepare(0, RATE);
    struct fake_switch sw;
    uint64_t begun;

    CASE("engine_handover_ends_when_no_late_frame_comes_any_more");
    switch_start(&sw, 5, false);
    switch_vif(&sw, &p.s, false);
    p.s.job.vifs[0].trunk = true;
    CHECK(start(&p));
    CHECK(rig_until(&p.s, MIG_EVENT_PHASE, MIG_PHASE_HANDOVER));
    begun = mig_now_ns();
    rig_finish(&p.s);
    CHECK(mig_now_ns() - begun < 4500000000ull); /* it has 5 s */
    finish(&p);
    CHECK(p.s.result.status == MIG_OK && !*p.s.result.why);
    CHECK(p.s.result.late_packets == 5);
    CHECK(switch_asked(&sw, "weft/vif-release") && switch_asked(&sw, "weft/vif-export unmark"));
    CHECK(settled(0) && runs_at(0) == 1);
    explain(&p);
    switch_stop(&sw);
}

/* The switch does not answer when it is told where the guest is now: pages come. */
static void
test_postcopy_announces(void)
{
    struct pair p = prepare_postcopy();
    struct pollfd client = {.events = POLLIN};
    struct fake_switch sw;

    CASE("engine_postcopy_announces_at_once_and_does_not_wait_for_it");
    switch_start(&sw, 0, true);
    switch_vif(&sw, &p.d, true);
    CHECK(start(&p));
    rig_tell(&p.s, 'p');
    /* Where the port is was asked before the pages came, and not for long. */
    client.fd = switch_db(&sw);
    CHECK(client.fd >= 0 && poll(&(struct pollfd){.fd = client.fd}, 1, RIG_PATIENCE_MS) == 1);
    close(client.fd);
    client.fd = switch_db(&sw);
    CHECK(client.fd >= 0);
    CHECK(rig_finish(&p.s) == MIG_OK);
    /* Its question is there, and it has not given up waiting. */
    CHECK(poll(&client, 1, 0) == 1 && !(client.revents & POLLHUP));
    close(client.fd);
    finish(&p);
    CHECK(p.d.result.status == MIG_OK && settled(0) && runs_at(0) == 1);
    explain(&p);
    switch_stop(&sw);
}

/* Frames get lost, and switches learn old ways anew: that the guest is here is said again. */
static void
test_announces_again(void)
{
    struct pair p = prepare(0, RATE);
    struct fake_switch sw;
    int client;

    CASE("engine_announces_again");
    switch_start(&sw, 0, true);
    switch_vif(&sw, &p.d, false);
    CHECK(start(&p));
    /* Where the port is, is asked once before, and for each announcement until it is told. */
    for (int i = 0; i < 5; i++) {
        client = switch_db(&sw);
        CHECK(client >= 0);
        close(client);
    }
    finish(&p);
    CHECK(p.d.result.status == MIG_OK && settled(0) && runs_at(0) == 1);
    explain(&p);
    switch_stop(&sw);
}

int
main(void)
{
    rig_setup();
    test_journal_lost_when_done();
    test_journal_lost_at_source();
    test_journal_lost_at_destination();
    test_guest_dies_behind_ready();
    test_running_unheard();
    test_running_late();
    test_guest_dies_in_postcopy();
    test_guest_dies_among_strangers();
    test_handover();
    test_postcopy_announces();
    test_announces_again();
    rig_teardown();
    return check_done();
}
