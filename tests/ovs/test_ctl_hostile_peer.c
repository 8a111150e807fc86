/* A host that has been taken over (case 23 of the plan): whatever its database
 * and its switch say, the controller lives, its turns stay short, its memory
 * bounded, and a host beside it gets its changes.
 *
 *   controller +--- host "good" --- ovsdb-server, weft-vswitchd
 *              +--- host "bad"  --- proxy that spoils --- the same of its own
 *
 * Each case has its seed.  FUZZ_SECONDS=N goes on for N seconds. */
#include <config.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "ctl_hostile.h"
#include "fatal-signal.h"
#include "host.h"
#include "host_limit.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/match.h"
#include "openvswitch/ofp-actions.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "packets.h"
#include "pflow.h"
#include "timeval.h"
#include "util.h"

#ifdef __SANITIZE_ADDRESS__
enum { SLOWER = 10, HAS_ASAN = true };
#else
enum { SLOWER = 1, HAS_ASAN = false };
#endif

/* CPU time of one turn of one host, and of all turns until a change is confirmed. */
#define TURN_MAX_MS (150 * SLOWER)
#define CONFIRM_MAX_MS (1000 * SLOWER)
/* Beyond what the controller needs for two hosts in order. */
#define MEMORY_MAX_MB 320

static struct ctl_switch good_switch, bad_switch;
static struct host *good, *bad;
static struct ftable good_want, bad_want;
static int64_t generation;
static char targets[4][128];
static double worst_turn_ms, worst_confirm_ms;
static long base_mb, worst_mb;

static double
cpu_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static long
rss_mb(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long pages = 0;

    ovs_assert(f && fscanf(f, "%*d %ld", &pages) == 1);
    fclose(f);
    return pages * sysconf(_SC_PAGESIZE) >> 20;
}

static void
set_flow(struct ftable *want, uint32_t ip, uint32_t out)
{
    struct match match = MATCH_CATCHALL_INITIALIZER;
    struct pflow *flow;
    struct ofpbuf acts;

    match_set_dl_type(&match, htons(ETH_TYPE_IP));
    match_set_nw_dst(&match, htonl(ip));
    ofpbuf_init(&acts, 64);
    ofpact_put_OUTPUT(&acts)->port = OFP_PORT_C(out);
    flow = pflow_create(TBL_OUTPUT, 100, flow_cookie(FLOW_RULE, 1), &match, acts.data, acts.size);
    ofpbuf_uninit(&acts);
    ftable_set(want, flow);
    pflow_unref(flow);
}

static struct host *
start(const char *name, const char *ovsdb, const char *openflow, struct ftable *want)
{
    struct host_config c = {.name = name,
                            .ovsdb = ovsdb,
                            .openflow = openflow,
                            .bridge = "xenbr0",
                            .uplink = "",
                            .enabled = true};
    struct host *h = host_create(name);

    host_set_table(h, want);
    host_configure(h, &c);
    host_set_epoch(h, 1);
    return h;
}

static void
turn(void)
{
    double before = cpu_ms(), ms;
    long mb;

    if (bad) {
        if (host_get_ports_seqno(bad)) {
            host_commit(bad, generation, host_get_ports_seqno(bad));
        }
        host_run(bad);
        ms = cpu_ms() - before;
        worst_turn_ms = MAX(worst_turn_ms, ms);
    }
    host_run(good);
    if (bad) {
        host_wait(bad);
    }
    host_wait(good);
    poll_timer_wait(20);
    poll_block();
    mb = rss_mb();
    worst_mb = MAX(worst_mb, mb);
}

/* A change of the good host's flows; whether it was confirmed. */
static bool
confirm_on_good(void)
{
    long long int end = time_msec() + 30000;
    double before = cpu_ms();

    set_flow(&good_want, 0x0a000001, 1 + generation % 7);
    if (bad) {
        set_flow(&bad_want, 0x0a000001, 1 + generation % 7);
    }
    host_commit(good, ++generation, MAX(1, host_get_ports_seqno(good)));
    while (host_get_status(good)->applied_generation != generation && time_msec() < end) {
        turn();
    }
    worst_confirm_ms = MAX(worst_confirm_ms, cpu_ms() - before);
    return host_get_status(good)->applied_generation == generation;
}

/* One hostile host from beginning to end: until its error names 'says', or, if
 * that is NULL, for some changes of the other host. */
static bool
play(enum hostile_mode of, enum hostile_mode db, unsigned seed, unsigned after, const char *says)
{
    long long int now = time_msec(), end = now + 30000;
    unsigned before = hostile_->n_spoilt;
    bool ok = true, said = !says;
    int n = 0;

    hostile_->of = of;
    hostile_->db = db;
    hostile_->seed = seed;
    hostile_->after = after;
    bad = start("bad", targets[2], targets[3], &bad_want);
    do {
        ok = confirm_on_good();
        said = said || strstr(host_get_status(bad)->error, says);
        n++;
    } while (ok && time_msec() < end && (!said || n < 8 || time_msec() < now + 100));
    if (!ok || !said) {
        struct ds ds = DS_EMPTY_INITIALIZER;

        host_format(good, &ds);
        host_format(bad, &ds);
        printf("# of %d db %d seed %u after %u, %u spoilt: %s", of, db, seed, after,
               hostile_->n_spoilt - before, ds_cstr(&ds));
        ds_destroy(&ds);
    }
    host_destroy(bad);
    bad = NULL;
    ftable_track(&bad_want, false);
    return ok && said;
}

/* --- cases --------------------------------------------------------------------------------- */

static void
test_limits(void)
{
    static const struct {
        const char *what;
        enum hostile_mode of, db;
        unsigned after;
        const char *says;
    } cases[] = {
        {"ctl_hostile_peer/echo-of: echo requests, answers not read", HOSTILE_ECHO, HOSTILE_HONEST,
         2, "does not read"},
        {"ctl_hostile_peer/endless-of: flows without end", HOSTILE_ENDLESS, HOSTILE_HONEST, 2,
         "too many flows"},
        {"ctl_hostile_peer/nested-of: actions nested 4,000 deep", HOSTILE_NESTED, HOSTILE_HONEST, 2,
         NULL},
        {"ctl_hostile_peer/echo-db: echo requests, answers not read", HOSTILE_HONEST, HOSTILE_ECHO,
         4, "too much"},
        {"ctl_hostile_peer/endless-db: a string without end", HOSTILE_HONEST, HOSTILE_ENDLESS, 4,
         "too much"},
        {"ctl_hostile_peer/nested-db: arrays nested without end", HOSTILE_HONEST, HOSTILE_NESTED, 4,
         "ovsdb"},
        {"ctl_hostile_peer/rows: rows without end", HOSTILE_HONEST, HOSTILE_ROWS, 4, "too much"},
        {"ctl_hostile_peer/sets: a set of 100,000 that changes without end", HOSTILE_HONEST,
         HOSTILE_SET, 4, "too much"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CASE(cases[i].what);
        worst_turn_ms = worst_confirm_ms = 0;
        worst_mb = 0;
        CHECK(play(cases[i].of, cases[i].db, 1, cases[i].after, cases[i].says));
        CHECK(worst_turn_ms < TURN_MAX_MS);
        CHECK(worst_confirm_ms < CONFIRM_MAX_MS);
        CHECK(HAS_ASAN || worst_mb - base_mb < MEMORY_MAX_MB);
        printf("# turn <= %.0f ms, a neighbour's change <= %.0f ms of CPU, %ld MB more\n",
               worst_turn_ms, worst_confirm_ms, worst_mb - base_mb);
    }
}

/* Each change of a port may concern the whole pool. */
static void
test_flapping(void)
{
    long long int end;
    uint64_t first;

    CASE("ctl_hostile_peer/ports: a port that changes without end is heard 20 times a second");
    ctl_sh(&bad_switch, "$BIN/ovs-vsctl --db=unix:$DIR/db.sock --timeout=20 add-port xenbr0 p1");
    hostile_->of = HOSTILE_HONEST;
    hostile_->db = HOSTILE_PORTS;
    hostile_->after = 4;
    bad = start("bad", targets[2], targets[3], &bad_want);
    end = time_msec() + 10000;
    while (host_get_ports_seqno(bad) < 50 && time_msec() < end) {
        turn();
    }
    CHECK(host_get_ports_seqno(bad) >= 50);
    /* The burst that is allowed to an honest host is over soon. */
    end = time_msec() + 1000;
    while (time_msec() < end) {
        turn();
    }
    first = host_get_ports_seqno(bad);
    end = time_msec() + 500;
    while (time_msec() < end) {
        turn();
    }
    CHECK(host_get_ports_seqno(bad) - first <= 15);
    CHECK(confirm_on_good());
    host_destroy(bad);
    bad = NULL;
    ftable_track(&bad_want, false);
}

static void
test_mutations(void)
{
    static const enum hostile_mode modes[] = {HOSTILE_FLIP,   HOSTILE_LENGTH, HOSTILE_REORDER,
                                              HOSTILE_FIELDS, HOSTILE_SILENT, HOSTILE_SLOW,
                                              HOSTILE_REFUSE, HOSTILE_UNASKED};
    const char *env = getenv("FUZZ_SECONDS");
    long long int end = time_msec() + (env ? atoi(env) * 1000LL : 0);
    unsigned n = 0, spoilt = hostile_->n_spoilt;

    CASE("ctl_hostile_peer/mutations: spoilt answers of switch and database");
    worst_turn_ms = worst_confirm_ms = 0;
    worst_mb = 0;
    for (unsigned seed = 1; n < 4 * ARRAY_SIZE(modes) || time_msec() < end; seed++, n++) {
        enum hostile_mode mode = modes[n % ARRAY_SIZE(modes)];
        bool of = n / ARRAY_SIZE(modes) % 2;

        CHECK(play(of ? mode : HOSTILE_HONEST, of ? HOSTILE_HONEST : mode, seed,
                   seed * 7 % (of ? 6 : 4), NULL));
    }
    CHECK(worst_turn_ms < TURN_MAX_MS);
    CHECK(worst_confirm_ms < CONFIRM_MAX_MS);
    CHECK(HAS_ASAN || worst_mb - base_mb < MEMORY_MAX_MB);
    CHECK(hostile_->n_spoilt > spoilt);
    printf("# %u hosts, %u messages spoilt, turn <= %.0f ms, a neighbour's change <= %.0f ms of "
           "CPU, %ld MB more\n",
           n, hostile_->n_spoilt - spoilt, worst_turn_ms, worst_confirm_ms, worst_mb - base_mb);
}

/* --- the other way around: a hostile controller of our switch ------------------------------ */

/* Sends OpenFlow 1.3 messages until the switch takes no more for 1.5 s;
 * how many it took. */
static unsigned
send_until_full(int fd, const uint8_t *msg, size_t size, unsigned most)
{
    long long int end = time_msec() + 1500;
    unsigned n = 0;

    while (n < most && time_msec() < end) {
        ssize_t sent = send(fd, msg, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent == (ssize_t)size) {
            n++;
            end = time_msec() + 1500;
        } else if (sent >= 0 || errno != EAGAIN) {
            break; /* it does not want to hear us at all */
        } else {
            usleep(1000);
        }
    }
    return n;
}

/* weft-vswitchd keeps a master's barriers until its datapath has followed. */
static void
test_barriers(void)
{
    static const uint8_t hello[] = {4, 0, 0, 8, 0, 0, 0, 1};
    static const uint8_t master[24] = {4, 24, 0, 24, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0x7f};
    static const uint8_t barrier[] = {4, 20, 0, 8, 0, 0, 0, 3};
    int fd = hostile_connect_(bad_switch.dir, "xenbr0.mgmt");
    unsigned held;

    CASE("ctl_hostile_peer/barriers: a master's barriers without end are not kept without end");
    CHECK(send(fd, hello, sizeof hello, MSG_NOSIGNAL) == sizeof hello &&
          send(fd, master, sizeof master, MSG_NOSIGNAL) == sizeof master);
    ctl_sh(&bad_switch, "$BIN/ovs-appctl --target=$DIR/ctl revalidator/pause; "
                        "$BIN/ovs-ofctl -O OpenFlow15 --timeout=10 add-flow xenbr0 "
                        "table=99,actions=drop");
    send_until_full(fd, barrier, sizeof barrier, 1000000);
    /* The first ones have gone out by time; what waits is bounded. */
    ctl_sh(&bad_switch, "$BIN/ovs-appctl --target=$DIR/ctl coverage/read-counter confirm_timeout");
    held = atoi(ctl_said);
    ctl_sh(&bad_switch, "$BIN/ovs-appctl --target=$DIR/ctl revalidator/resume; "
                        "$BIN/ovs-ofctl -O OpenFlow15 --timeout=10 dump-flows xenbr0 table=0 "
                        ">/dev/null && echo answers");
    CHECK(!strcmp(ctl_said, "answers\n"));
    CHECK(held && held < 2000);
    printf("# %u barriers were held for as long as can be\n", held);
    close(fd);
}

static void
test_claims(void)
{
    struct host_port ports[40];
    size_t n_uuid = 0, n_mac = 0;

    CASE("ctl_hostile_peer/claims: four ports of a host may name a vif, the rest may not");
    memset(ports, 0, sizeof ports);
    for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
        ports[i].name = "p";
        ports[i].has_uuid = ports[i].has_mac = true;
        ports[i].uuid.parts[0] = i < 30 ? 7 : i;
        ports[i].mac.ea[5] = i < 20 ? 7 : 100 + i;
    }
    host_limit_claims(ports, ARRAY_SIZE(ports));
    for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
        n_uuid += ports[i].has_uuid;
        n_mac += ports[i].has_mac;
    }
    CHECK(n_uuid == 4 + 10 && n_mac == 4 + 20);
    CHECK(ports[0].has_uuid && ports[3].has_uuid && !ports[4].has_uuid && !ports[29].has_uuid);
    CHECK(ports[30].has_uuid && ports[0].has_mac && !ports[19].has_mac && ports[39].has_mac);
}

int
main(int argc, char *argv[])
{
    pid_t proxy = 0;

    (void)argc;
    set_program_name(argv[0]);
    fatal_ignore_sigpipe();
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, getenv("WEFT_TEST_VERBOSE") ? VLL_INFO : VLL_OFF);
    ftable_init(&good_want);
    ftable_init(&bad_want);
    test_claims();

    CASE("ctl_hostile_peer/start: two switches");
    if (!ctl_switch_create(&good_switch) || !ctl_switch_create(&bad_switch)) {
        CHECK(!"switches");
        goto out;
    }
    proxy = hostile_start(&bad_switch);
    snprintf(targets[0], sizeof targets[0], "unix:%s/db.sock", good_switch.dir);
    snprintf(targets[1], sizeof targets[1], "unix:%s/xenbr0.mgmt", good_switch.dir);
    snprintf(targets[2], sizeof targets[2], "unix:%s/bad.db", bad_switch.dir);
    snprintf(targets[3], sizeof targets[3], "unix:%s/bad.of", bad_switch.dir);
    for (uint32_t i = 0; i < 300; i++) {
        set_flow(&bad_want, 0x0a010000 + i, 1);
    }
    good = start("good", targets[0], targets[1], &good_want);
    CHECK(confirm_on_good());
    base_mb = rss_mb();

    test_limits();
    test_flapping();
    test_mutations();
    test_barriers();
    host_destroy(good);
out:
    ctl_kill_(&proxy);
    ctl_switch_destroy(&good_switch);
    ctl_switch_destroy(&bad_switch);
    ftable_destroy(&good_want);
    ftable_destroy(&bad_want);
    return check_done();
}
