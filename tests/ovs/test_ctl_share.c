/* Hosts divided among controllers, and databases of which only the newest counts. */
#include <config.h>

#include "check.h"
#include "ctl_db.h"
#include "fence.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "pool_copy.h"
#include "share.h"
#include "timeval.h"
#include "util.h"
#include "uuid.h"

#define LEASE_MS 500
#define N_HOSTS 6

static struct ctl_db db;
static struct share *s[4];
static struct uuid hosts[N_HOSTS];
static uint64_t highest[N_HOSTS]; /* epoch that anybody led with */

static void
turn_all(long long int end)
{
    for (int i = 0; i < 4; i++) {
        if (s[i]) {
            share_run(s[i]);
            share_wait(s[i]);
        }
    }
    poll_timer_wait_until(end);
    poll_block();
}

/* How many hosts 'i' leads. */
static unsigned
n_led(int i)
{
    unsigned n = 0;

    for (int h = 0; h < N_HOSTS; h++) {
        n += s[i] && share_epoch(s[i], &hosts[h]) > 0;
    }
    return n;
}

/* No epoch of a host is anybody else's, and the newest only grows. */
static bool
epochs_ok(void)
{
    bool ok = true;

    for (int h = 0; h < N_HOSTS; h++) {
        for (int i = 0; i < 4; i++) {
            uint64_t epoch = s[i] ? share_epoch(s[i], &hosts[h]) : 0;

            highest[h] = MAX(highest[h], epoch);
            for (int j = 0; j < i; j++) {
                ok = ok && !(epoch && s[j] && epoch == share_epoch(s[j], &hosts[h]));
            }
        }
    }
    return ok;
}

/* Until each of them leads as many as stated (-1: any). */
static bool
until(int a, int b, int c, int d, int ms)
{
    const int want[] = {a, b, c, d};
    long long int end = time_msec() + ms;
    bool ok = true, there = false;

    while (ok && !there && time_msec() < end) {
        turn_all(end);
        ok = epochs_ok();
        there = true;
        for (int i = 0; i < 4; i++) {
            there = there && (want[i] < 0 || (int)n_led(i) == want[i]);
        }
    }
    return ok && there;
}

static bool
rest_as_is(int ms)
{
    long long int end = time_msec() + ms;
    uint64_t before[N_HOSTS];
    bool ok = true;

    epochs_ok();
    memcpy(before, highest, sizeof before);
    while (time_msec() < end) {
        turn_all(end);
        ok = ok && epochs_ok();
    }
    return ok && !memcmp(before, highest, sizeof before);
}

static void
make_rows(void)
{
    char text[2048];
    int n = snprintf(text, sizeof text,
                     "[\"Weft_Pool\",{\"op\":\"insert\",\"table\":\"Pool\",\"row\":{\"name\":\"p\","
                     "\"default_action\":\"deny\",\"lease_ms\":%d}}",
                     LEASE_MS);

    for (int h = 0; h < N_HOSTS; h++) {
        uuid_generate(&hosts[h]);
        n += snprintf(text + n, sizeof text - n,
                      ",{\"op\":\"insert\",\"table\":\"Host\",\"uuid\":\"" UUID_FMT
                      "\",\"row\":{\"name\":\"host%d\"}}",
                      UUID_ARGS(&hosts[h]), h);
    }
    snprintf(text + n, sizeof text - n, "]");
    ovs_assert(!ctl_db_transact(&db, text));
}

static void
test_share(void)
{
    static const char *const ids[] = {"c0", "c1", "c2", "c3"};
    struct share *twin;

    CASE("ctl_share/one leads all");
    s[0] = share_create(db.remote, ids[0]);
    CHECK(until(6, -1, -1, -1, 5000));

    CASE("ctl_share/those that come get their part, and nothing moves without need");
    s[1] = share_create(db.remote, ids[1]);
    s[2] = share_create(db.remote, ids[2]);
    CHECK(until(2, 2, 2, 0, 8000));
    CHECK(rest_as_is(2 * LEASE_MS));

    CASE("ctl_share/one that is gone: the others lead its hosts");
    share_destroy(s[1]);
    s[1] = NULL;
    CHECK(until(3, 0, 3, 0, 5 * LEASE_MS));

    CASE("ctl_share/back under its name it has them again at once");
    s[1] = share_create(db.remote, ids[1]);
    CHECK(until(2, 2, 2, 0, 3 * LEASE_MS));

    CASE("ctl_share/one that stood still leads nothing by a look at an old clock");
    twin = s[2];
    s[2] = NULL; /* paused: neither runs nor reads */
    CHECK(until(3, 3, 0, 0, 5 * LEASE_MS));
    s[2] = twin;
    CHECK(until(2, 2, 2, 0, 5 * LEASE_MS));

    CASE("ctl_share/a switch that obeys somebody newer: taken again with the next epoch");
    for (int h = 0; h < N_HOSTS; h++) {
        if (share_epoch(s[0], &hosts[h])) {
            share_deposed(s[0], &hosts[h]);
            CHECK(!share_epoch(s[0], &hosts[h]));
            break;
        }
    }
    CHECK(until(2, 2, 2, 0, 5000));
}

static void
test_without_db(void)
{
    CASE("ctl_share/without the database each goes on with its hosts");
    ctl_db_kill(&db);
    CHECK(rest_as_is(2 * LEASE_MS));
    CHECK(n_led(0) == 2 && n_led(1) == 2 && n_led(2) == 2);
    ctl_db_run(&db);
    CHECK(until(2, 2, 2, 0, 5000));
    CHECK(rest_as_is(LEASE_MS));
}

/* --- databases ------------------------------------------------------------------------- */

static void
set_pool(struct ctl_db *which, const char *columns)
{
    char text[512];

    snprintf(text, sizeof text,
             "[\"Weft_Pool\",{\"op\":\"update\",\"table\":\"Pool\",\"where\":[],\"row\":{%s}}]",
             columns);
    ovs_assert(!ctl_db_transact(which, text));
}

static bool
copy_has(struct pool_copy *copy, int64_t generation, bool want, int ms)
{
    long long int end = time_msec() + ms;

    do {
        pool_copy_run(copy);
        if (pool_copy_has(copy, generation, 0) == want) {
            return true;
        }
        pool_copy_wait(copy);
        poll_timer_wait_until(end);
        poll_block();
    } while (time_msec() < end);
    return false;
}

static void
test_copy(void)
{
    struct pool_copy *copy = pool_copy_create();

    CASE("ctl_share/copy: without one everything is confirmed");
    CHECK(pool_copy_has(copy, 7, 0));

    CASE("ctl_share/copy: confirmed when it is there, and not before");
    set_pool(&db, "\"generation\":6");
    pool_copy_set(copy, db.remote);
    CHECK(!pool_copy_has(copy, 6, 0));
    CHECK(copy_has(copy, 6, true, 5000));
    CHECK(!pool_copy_has(copy, 7, 0) && !pool_copy_has(copy, 6, 1));
    set_pool(&db, "\"generation\":7");
    CHECK(copy_has(copy, 7, true, 5000));

    CASE("ctl_share/copy: one that is not reached confirms nothing");
    ctl_db_kill(&db);
    CHECK(copy_has(copy, 7, false, 5000));
    ctl_db_run(&db);
    CHECK(copy_has(copy, 7, true, 10000));
    pool_copy_destroy(copy);
}

static void
test_fence(void)
{
    struct ctl_db newer;
    char both[256], file[128], text[64];
    FILE *f;

    snprintf(file, sizeof file, "%s/fence", db.dir);
    fence_open(file);

    CASE("ctl_share/fence: a closed database is used no more");
    set_pool(&db, "\"fence\":1,\"closed\":true");
    for (int i = 1; i < 3; i++) {
        share_destroy(s[i]);
        s[i] = NULL;
    }
    ovs_assert(!ctl_db_start(&newer));
    for (long long int end = time_msec() + 15000; fence_newest() != 1 && time_msec() < end;) {
        turn_all(end);
    }
    CHECK(fence_newest() == 1);
    CHECK(rest_as_is(2 * LEASE_MS));

    CASE("ctl_share/fence: an empty one neither, nor an older one");
    share_destroy(s[0]);
    snprintf(both, sizeof both, "%s,%s", db.remote, newer.remote);
    s[0] = share_create(both, "c0");
    CHECK(!until(6, -1, -1, -1, 2 * LEASE_MS));
    {
        struct ctl_db right = db;

        db = newer; /* where make_rows() writes */
        make_rows();
        db = right;
    }
    memset(highest, 0, sizeof highest);
    CHECK(!until(6, -1, -1, -1, 3 * LEASE_MS));
    CHECK(fence_newest() == 1);

    CASE("ctl_share/fence: the newest is found among several, its epochs above all before");
    set_pool(&newer, "\"fence\":2");
    CHECK(until(6, -1, -1, -1, 10000));
    for (int h = 0; h < N_HOSTS; h++) {
        CHECK(share_epoch(s[0], &hosts[h]) > 2ull << 40);
    }

    CASE("ctl_share/fence: the number outlives the process");
    f = fopen(file, "r");
    CHECK(f && fgets(text, sizeof text, f) && !strcmp(text, "2\n"));
    if (f) {
        fclose(f);
    }
    unlink(file);
    ctl_db_stop(&newer);
}

int
main(int argc, char *argv[])
{
    set_program_name(argv[0]);
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, getenv("V") ? VLL_DBG : VLL_OFF);
    if (ctl_db_start(&db)) {
        printf("skip ctl_share: no database\n");
        return 0;
    }
    make_rows();
    test_share();
    test_without_db();
    test_copy();
    test_fence();
    for (int i = 0; i < 4; i++) {
        share_destroy(s[i]);
    }
    ctl_db_stop(&db);
    return check_done();
}
