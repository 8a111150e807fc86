/* Leadership among controllers: one at a time, epochs that only grow, taken over
 * when the lease stands still. */
#include <config.h>

#include "check.h"
#include "ctl_switch.h"
#include "leader.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "timeval.h"
#include "util.h"

#define LEASE_MS 600

static struct ctl_switch sw;
static char db[96];
static struct leader *l[3];

static void
start_db(void)
{
    char remote[96], file[96], ctl[96];

    snprintf(remote, sizeof remote, "--remote=punix:%s/pool.sock", sw.dir);
    snprintf(file, sizeof file, "%s/pool.db", sw.dir);
    snprintf(ctl, sizeof ctl, "--unixctl=%s/dbctl", sw.dir);
    sw.db = ctl_spawn_(&sw, "ovsdb.log", "ovsdb-server", file, remote, ctl, "-vsyslog:off", NULL);
    ovs_assert(ctl_wait_for_(&sw, "dbctl"));
}

/* All of them for 'ms', or until 'leads' leads.  False if two ever led at once
 * with the same epoch. */
static bool
run(int leads, int ms)
{
    long long int end = time_msec() + ms;
    bool ok = true;

    while (time_msec() < end && !(leads >= 0 && l[leads] && leader_epoch(l[leads]))) {
        for (int i = 0; i < 3; i++) {
            if (l[i]) {
                leader_run(l[i]);
                leader_wait(l[i]);
            }
            for (int j = 0; j < i; j++) {
                ok = ok && !(l[i] && l[j] && leader_epoch(l[i]) &&
                             leader_epoch(l[i]) == leader_epoch(l[j]));
            }
        }
        poll_timer_wait_until(end);
        poll_block();
    }
    return ok;
}

static uint64_t
epoch(int i)
{
    return leader_epoch(l[i]);
}

int
main(int argc, char *argv[])
{
    uint64_t before;

    set_program_name(argv[0]);
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, getenv("V") ? VLL_DBG : VLL_OFF);
    ctl_find_bin();
    snprintf(sw.dir, sizeof sw.dir, "/tmp/weft-ctl-XXXXXX");
    ovs_assert(mkdtemp(sw.dir));
    snprintf(db, sizeof db, "unix:%s/pool.sock", sw.dir);
    ovs_assert(
        !ctl_sh(&sw, "$BIN/ovsdb-tool create $DIR/pool.db $BIN/../share/pool.ovsschema 2>&1"));
    start_db();
    ctl_sh(&sw,
           "$BIN/ovsdb-client transact unix:$DIR/pool.sock '[\"Weft_Pool\",{\"op\":\"insert\","
           "\"table\":\"Pool\",\"row\":{\"name\":\"p\",\"default_action\":\"deny\",\"lease_ms\":%d}"
           "}]'",
           LEASE_MS);

    CASE("ctl_leader/one of three leads, and stays");
    for (int i = 0; i < 3; i++) {
        char id[8];

        snprintf(id, sizeof id, "c%d", i);
        l[i] = leader_create(db, id);
    }
    CHECK(run(-1, 3 * LEASE_MS));
    CHECK((epoch(0) != 0) + (epoch(1) != 0) + (epoch(2) != 0) == 1);
    for (int i = 1; i < 3; i++) {
        if (epoch(i)) { /* whoever it was: the first from here on */
            struct leader *t = l[0];

            l[0] = l[i];
            l[i] = t;
        }
    }
    before = epoch(0);
    CHECK(run(-1, 4 * LEASE_MS) && epoch(0) == before);

    CASE("ctl_leader/another takes over when the leader is gone");
    leader_destroy(l[0]);
    l[0] = NULL;
    CHECK(run(-1, LEASE_MS / 2) && !epoch(1) && !epoch(2));
    CHECK(run(-1, 3 * LEASE_MS));
    CHECK((epoch(1) != 0) + (epoch(2) != 0) == 1 && epoch(1) + epoch(2) == before + 1);

    CASE("ctl_leader/the same id takes its lead back at once, with the next epoch");
    if (!epoch(1)) {
        struct leader *t = l[1];

        l[1] = l[2];
        l[2] = t;
    }
    before = epoch(1);
    leader_destroy(l[1]);
    leader_destroy(l[2]);
    l[1] = l[2] = NULL;
    l[0] = leader_create(db, "mine");
    CHECK(run(0, 4 * LEASE_MS) && epoch(0) == before + 1);
    leader_destroy(l[0]);
    l[0] = leader_create(db, "mine");
    CHECK(run(0, LEASE_MS / 2) && epoch(0) == before + 2);

    CASE("ctl_leader/a leader goes on without the database, and steps down for a newer one");
    ctl_kill_(&sw.db);
    CHECK(run(-1, 3 * LEASE_MS) && epoch(0) == before + 2);
    ctl_sh(&sw, "rm -f $DIR/pool.sock $DIR/dbctl $DIR/.pool.db.~lock~");
    start_db();
    ctl_sh(&sw,
           "$BIN/ovsdb-client transact unix:$DIR/pool.sock '[\"Weft_Pool\",{\"op\":\"update\","
           "\"table\":\"Pool\",\"where\":[],\"row\":{\"leader\":\"other\",\"leader_epoch\":%d}}]'",
           (int)before + 7);
    CHECK(run(-1, 2500));
    CHECK(epoch(0) == before + 8); /* "other" renewed nothing: ours again, later */

    leader_destroy(l[0]);
    ctl_switch_destroy(&sw);
    return check_done();
}
