/* A managed host against a real switch: what is configured, pushed, compared,
 * repaired and refused. */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ctl_switch.h"
#include "fatal-signal.h"
#include "host.h"
#include "openvswitch/match.h"
#include "openvswitch/ofp-actions.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "pflow.h"

#include "packets.h"
#include "timeval.h"
#include "util.h"

static struct ctl_switch sw;
static struct host *host;
static struct ftable want;
static int64_t generation;
static bool stock; /* the switch is not ours: WEFT_TEST_VSWITCHD is set */
static char ovsdb[96], openflow[96];

/* --- flows ----------------------------------------------------------------------- */

static struct pflow *
make_flow(enum flow_table table, uint16_t priority, uint32_t key, uint32_t ip, uint32_t out)
{
    struct match match;
    struct ofpbuf acts;
    struct pflow *flow;

    match_init_catchall(&match);
    match_set_dl_type(&match, htons(ETH_TYPE_IP));
    match_set_nw_dst(&match, htonl(ip));
    ofpbuf_init(&acts, 64);
    ofpact_put_OUTPUT(&acts)->port = OFP_PORT_C(out);
    flow = pflow_create(table, priority, flow_cookie(FLOW_RULE, key), &match, acts.data, acts.size);
    ofpbuf_uninit(&acts);
    return flow;
}

static void
set_flow(enum flow_table table, uint32_t key, uint32_t ip, uint32_t out)
{
    struct pflow *flow = make_flow(table, 100, key, ip, out);

    ftable_set(&want, flow);
    pflow_unref(flow);
}

static void
remove_flow(enum flow_table table, uint32_t ip)
{
    struct pflow *flow = make_flow(table, 100, 1, ip, 1);

    ftable_remove(&want, flow);
    pflow_unref(flow);
}

/* --- the loop ---------------------------------------------------------------------- */

static void
turn(struct host *h)
{
    host_run(h);
    host_wait(h);
    poll_timer_wait(20);
    poll_block();
}

/* Until 'cond', at most 'ms'. */
#define UNTIL(cond, ms) CTL_UNTIL(cond, ms, turn(host), explain(#cond))

static void
explain(const char *cond)
{
    struct ds ds = DS_EMPTY_INITIALIZER;

    host_format(host, &ds);
    printf("# %s\n# %s", cond, ds_cstr(&ds));
    ds_destroy(&ds);
}

static struct host_config
config(void)
{
    struct host_config c = {
        .name = "host1",
        .ovsdb = ovsdb,
        .openflow = openflow,
        .bridge = "xenbr0",
        .uplink = "",
        .tunnels = {[HOST_VXLAN] = true},
        .enabled = true,
    };

    in6_addr_set_mapped_ipv4(&c.tunnel_ip, htonl(0x7f000001));
    return c;
}

static void
start_host(uint64_t epoch)
{
    struct host_config c = config();

    host = host_create("host1");
    host_set_table(host, &want);
    host_configure(host, &c);
    host_set_epoch(host, epoch);
}

static const struct host_port *
find_port(const char *name)
{
    size_t n;
    const struct host_port *ports = host_get_ports(host, &n);

    for (size_t i = 0; i < n; i++) {
        if (!strcmp(ports[i].name, name)) {
            return &ports[i];
        }
    }
    return NULL;
}

/* States the table as it is now and waits until the switch has it. */
static bool
apply(void)
{
    host_commit(host, ++generation, MAX(1, host_get_ports_seqno(host)));
    return UNTIL(host_get_status(host)->applied_generation == generation, 20000);
}

/* The switch's flows in our tables, comparable with the wanted ones. */
static bool
switch_has_wanted(void)
{
    struct ds ds = DS_EMPTY_INITIALIZER;
    char file[128];
    bool same;
    FILE *f;

    ftable_format(&want, &ds);
    snprintf(file, sizeof file, "%s/want", sw.dir);
    f = fopen(file, "w");
    fputs(ds_cstr(&ds), f);
    fclose(f);
    ds_destroy(&ds);
    same =
        !ctl_sh(&sw, OFCTL "dump-flows --no-stats xenbr0 | grep -v 'table=99,' | sed 's/^ *//' | "
                           "grep -v '^OFPST' | sort >$DIR/have; sed -i 's/^ *//; s/ table=0,//' "
                           "$DIR/want; sort $DIR/want | diff - $DIR/have 2>&1 | head -n 5; "
                           "sort $DIR/want | cmp - $DIR/have 2>&1");
    if (!same) {
        printf("# %s\n", ctl_said);
    }
    return same;
}

/* --- cases ---------------------------------------------------------------------------- */

static void
test_configure(void)
{
    char mac[64], expected[256];

    CASE("ctl_host/configure: bridge, tunnel and ports");
    ctl_sh(&sw, VSCTL "add-port xenbr0 p1 -- set interface p1 ofport_request=11 "
                      "external_ids:xs-vif-uuid=11111111-2222-3333-4444-555555555555 "
                      "external_ids:attached-mac=00:16:3e:00:00:01 -- "
                      "add-port xenbr0 other -- set bridge xenbr0 external_ids:keep=me "
                      "other_config:forward-bpdu=false");
    ctl_sh(&sw, APPCTL "dpif/show >/dev/null; " VSCTL "get interface xenbr0 mac_in_use");
    ovs_strlcpy(mac, ctl_said, sizeof mac);
    start_host(1);
    CHECK(UNTIL(find_port("weft-vxlan") && find_port("p1"), 10000));
    CHECK(find_port("p1") && find_port("p1")->ofport == 11 && find_port("p1")->has_uuid &&
          find_port("p1")->has_mac && find_port("p1")->mac.ea[5] == 1);
    CHECK(find_port("other") && !find_port("other")->has_uuid && !find_port("other")->has_mac);
    CHECK(!find_port("xenbr0"));

    ctl_sh(&sw, VSCTL "get-fail-mode xenbr0; " VSCTL
                      "get interface weft-vxlan type options:remote_ip options:key "
                      "options:local_ip; " VSCTL "list-ports xenbr0; " VSCTL
                      "get bridge xenbr0 external_ids");
    CHECK(!strcmp(ctl_said, "secure\nvxlan\nflow\nflow\n\"127.0.0.1\"\nother\np1\nweft-vxlan\n"
                            "{keep=me, weft-controller=hwaddr}\n"));
    ctl_sh(&sw, VSCTL "get interface xenbr0 mac_in_use; " VSCTL
                      "get bridge xenbr0 other_config:hwaddr other_config:forward-bpdu protocols "
                      "controller");
    snprintf(expected, sizeof expected, "%s%s\"false\"\n[]\n[]\n", mac, mac);
    CHECK(!strcmp(ctl_said, expected));
}

static void
test_first_push(void)
{
    struct match all = MATCH_CATCHALL_INITIALIZER;
    struct pflow *drop;

    CASE("ctl_host/wait: nothing is touched before the table is known");
    CHECK(UNTIL(host_get_status(host)->connected, 10000));
    ctl_sh(&sw, OFCTL "add-flow xenbr0 table=0,priority=5,actions=NORMAL && " OFCTL
                      "add-flow xenbr0 table=20,priority=9,cookie=0x77,actions=drop && " OFCTL
                      "add-flow xenbr0 table=99,priority=9,actions=drop");
    for (int i = 0; i < 10; i++) {
        turn(host);
    }
    ctl_sh(&sw, OFCTL "dump-flows --no-stats xenbr0 | grep -c priority");
    CHECK(!strcmp(ctl_said, "3\n"));

    CASE("ctl_host/push: wanted flows in, foreign ones out of our tables only");
    for (uint32_t i = 0; i < 50; i++) {
        set_flow(i % 2 ? TBL_CLASSIFY : TBL_POLICY_OUT, i + 1, 0x0a000000 + i, 11);
    }
    drop = pflow_create(TBL_CLASSIFY, 0, flow_cookie(FLOW_BASE, 0), &all, NULL, 0);
    ftable_set(&want, drop);
    pflow_unref(drop);
    CHECK(apply());
    CHECK(switch_has_wanted());
    ctl_sh(&sw, OFCTL "dump-flows --no-stats xenbr0 table=99 | grep -c priority");
    CHECK(!strcmp(ctl_said, "1\n"));
    CHECK(!host_get_status(host)->drift.missing && !host_get_status(host)->drift.foreign);
    CHECK(host_get_status(host)->n_pushes == 1 && host_get_status(host)->n_flow_mods == 53);
    CHECK(!strcmp(host_get_status(host)->switch_type, stock ? "ovs" : "weft"));

    CASE("ctl_host/push: only what changed is sent");
    set_flow(TBL_CLASSIFY, 2, 0x0a000001, 12); /* in place of what has the key */
    remove_flow(TBL_POLICY_OUT, 0x0a000002);
    set_flow(TBL_POLICY_OUT, 77, 0x0a000102, 11);
    CHECK(apply());
    CHECK(switch_has_wanted());
    CHECK(host_get_status(host)->n_flow_mods == 56 && host_get_status(host)->n_pushes == 2);
    CHECK(apply()); /* nothing changed but the generation */
    CHECK(host_get_status(host)->n_pushes == 2);
}

static void
test_reconnect(void)
{
    CASE("ctl_host/reconnect: a new controller changes nothing that is right");
    host_destroy(host);
    start_host(1);
    CHECK(UNTIL(host_get_ports_seqno(host), 10000));
    CHECK(apply());
    CHECK(host_get_status(host)->n_flow_mods == 0 && switch_has_wanted());

    CASE("ctl_host/restart: a switch that was killed has its flows within 5 s of its return");
    ctl_switch_kill(&sw);
    CHECK(UNTIL(!host_get_status(host)->connected, 10000));
    CHECK(ctl_switch_start(&sw));
    generation++;
    host_commit(host, generation, host_get_ports_seqno(host));
    CHECK(UNTIL(host_get_status(host)->applied_generation == generation, 9000));
    CHECK(switch_has_wanted());

    CASE("ctl_host/versions: a bridge that speaks OpenFlow 1.3 only");
    ctl_sh(&sw, VSCTL "set bridge xenbr0 protocols=OpenFlow10,OpenFlow13");
    CHECK(UNTIL(!host_get_status(host)->connected, 10000));
    ctl_sh(&sw, "$BIN/ovs-ofctl -O OpenFlow13 del-flows xenbr0");
    CHECK(UNTIL(host_get_status(host)->connected, 10000));
    set_flow(TBL_CLASSIFY, 300, 0x0a000301, 12);
    CHECK(apply());
    ctl_sh(&sw, VSCTL "clear bridge xenbr0 protocols");
    CHECK(UNTIL(!host_get_status(host)->connected, 10000));
    CHECK(UNTIL(host_get_status(host)->connected, 10000));
    CHECK(apply());
    CHECK(switch_has_wanted());
}

/* The datapath's flow of the packet below, without statistics. */
static void
dump_megaflow(void)
{
    ctl_sh(&sw, APPCTL "dpctl/dump-flows | grep -o 'dst=10.0.0.3.*' | sed 's/.*actions://'");
}

static void
test_confirm(void)
{
    CASE("ctl_host/confirm: on our switch, when packets meet the new rules");
    ctl_sh(&sw, VSCTL "set interface other ofport_request=12");
    CHECK(UNTIL(find_port("other")->ofport == 12, 10000));
    set_flow(TBL_CLASSIFY, 4, 0x0a000003, 12);
    CHECK(apply());
    ctl_sh(&sw, APPCTL "netdev-dummy/receive p1 'in_port(1),eth(src=00:16:3e:00:00:01,"
                       "dst=00:16:3e:00:00:02),eth_type(0x0800),ipv4(src=10.0.0.9,dst=10.0.0.3,"
                       "proto=17,tos=0,ttl=64,frag=no),udp(src=1,dst=2)'");
    dump_megaflow();
    CHECK(atoi(ctl_said) > 0);
    ctl_sh(&sw, APPCTL "revalidator/pause");
    set_flow(TBL_CLASSIFY, 4, 0x0a000003, 77);
    host_commit(host, ++generation, host_get_ports_seqno(host));
    for (long long int end = time_msec() + 400; time_msec() < end;) {
        turn(host);
    }
    CHECK(host_get_status(host)->applied_generation == generation - 1);
    dump_megaflow();
    CHECK(atoi(ctl_said) > 0);
    ctl_sh(&sw, APPCTL "revalidator/resume");
    CHECK(UNTIL(host_get_status(host)->applied_generation == generation, 500));
    dump_megaflow();
    CHECK(!strcmp(ctl_said, "drop\n") || !ctl_said[0]);
    ctl_sh(&sw, APPCTL "coverage/read-counter confirm_timeout");
    CHECK(atoi(ctl_said) == 0);

    CASE("ctl_host/confirm: without revalidators, a second later");
    ctl_sh(&sw, APPCTL "revalidator/pause");
    set_flow(TBL_CLASSIFY, 4, 0x0a000003, 11);
    CHECK(apply());
    ctl_sh(&sw, APPCTL "revalidator/resume; " APPCTL "coverage/read-counter confirm_timeout");
    CHECK(atoi(ctl_said) == 1);
}

static void
test_drift(void)
{
    const struct host_status *s = host_get_status(host);

    CASE("ctl_host/drift: what others change is found, counted and repaired");
    uint64_t before = s->n_drift;
    ctl_sh(&sw, OFCTL "del-flows xenbr0 ip,nw_dst=10.0.0.1,table=0; " OFCTL
                      "add-flow xenbr0 table=20,priority=9,actions=drop; " OFCTL
                      "mod-flows xenbr0 ip,nw_dst=10.0.0.3,table=0,actions=drop; " OFCTL
                      "add-flow xenbr0 table=10,idle_timeout=300,actions=drop");
    host_audit(host);
    CHECK(UNTIL(s->n_drift == before + 4, 10000));
    CHECK(s->drift.missing == 2 && s->drift.foreign == 2);
    CHECK(apply());
    CHECK(switch_has_wanted());
    host_audit(host);
    CHECK(UNTIL(s->drift.missing == 0 && s->drift.foreign == 0, 10000));
    CHECK(s->n_drift == before + 4);
}

static void
test_refused(void)
{
    const struct host_status *s = host_get_status(host);
    struct ofpbuf acts;
    struct match match;
    struct pflow *bad;
    int64_t applied = s->applied_generation;

    CASE("ctl_host/refused: a bundle with one bad flow changes nothing and names the flow");
    ctl_sh(&sw, OFCTL "dump-flows --no-stats xenbr0 | sort >$DIR/before");
    match_init_catchall(&match);
    ofpbuf_init(&acts, 64);
    ofpact_put_GROUP(&acts)->group_id = 4711; /* there is none */
    bad = pflow_create(TBL_LOOKUP, 7, flow_cookie(FLOW_RULE, 99), &match, acts.data, acts.size);
    ofpbuf_uninit(&acts);
    ftable_set(&want, bad);
    for (uint32_t i = 0; i < 20; i++) {
        set_flow(TBL_VERDICT, i + 1, 0x0a000000 + i, 11);
    }
    host_commit(host, ++generation, host_get_ports_seqno(host));
    CHECK(UNTIL(s->n_refused >= 2, 10000));
    CHECK(s->refused_cookie == flow_cookie(FLOW_RULE, 99) && strstr(s->error, "4711"));
    CHECK(s->applied_generation == applied && s->connected);
    ctl_sh(&sw, OFCTL "dump-flows --no-stats xenbr0 | sort | cmp - $DIR/before && echo same");
    CHECK(!strcmp(ctl_said, "same\n"));

    CASE("ctl_host/refused: the next good table goes in");
    ftable_remove(&want, bad);
    pflow_unref(bad);
    CHECK(apply());
    CHECK(switch_has_wanted() && !s->refused_cookie && !s->error[0]);
}

static void
test_epoch(void)
{
    struct ftable empty;
    struct host_config c = config();
    struct host *newer = host_create("host1");
    long long int end = time_msec() + 10000;

    CASE("ctl_host/epoch: a controller of an older epoch cannot write");
    ftable_init(&empty);
    host_set_table(newer, &empty);
    host_configure(newer, &c);
    host_set_epoch(newer, 9);
    while (!host_get_status(newer)->connected && time_msec() < end) {
        turn(newer);
    }
    CHECK(host_get_status(newer)->connected);
    set_flow(TBL_CLASSIFY, 301, 0x0a000401, 12);
    host_commit(host, ++generation, host_get_ports_seqno(host));
    CHECK(UNTIL(host_get_status(host)->stale, 10000));
    CHECK(host_get_status(host)->applied_generation != generation);
    ctl_sh(&sw, OFCTL "dump-flows --no-stats xenbr0 | grep -c 10.0.4.1");
    CHECK(!strcmp(ctl_said, "0\n"));
    host_destroy(newer);
    ftable_destroy(&empty);

    CASE("ctl_host/epoch: the next epoch can");
    host_set_epoch(host, 10);
    CHECK(apply());
    CHECK(switch_has_wanted());
}

static void
test_many(void)
{
    size_t before = host_get_status(host)->n_flow_mods;

    CASE("ctl_host/many: 30,000 flows in one bundle");
    for (uint32_t i = 0; i < 30000; i++) {
        set_flow(TBL_POLICY_IN, i, 0x0b000000 + i, 11);
    }
    CHECK(apply());
    CHECK(host_get_status(host)->n_flow_mods - before == 30000);
    CHECK(switch_has_wanted());

    CASE("ctl_host/many: compared again, and gone again");
    before = host_get_status(host)->n_flow_mods;
    host_audit(host);
    long long int at = host_get_status(host)->drift.at_ms;
    CHECK(UNTIL(host_get_status(host)->drift.at_ms != at, 20000));
    CHECK(!host_get_status(host)->drift.missing && !host_get_status(host)->drift.foreign);
    for (uint32_t i = 0; i < 30000; i++) {
        remove_flow(TBL_POLICY_IN, 0x0b000000 + i);
    }
    CHECK(apply());
    CHECK(host_get_status(host)->n_flow_mods - before == 30000);
}

static void
test_config_faults(void)
{
    struct host_config c = config();

    CASE("ctl_host/faults: what cannot be is said, with its field");
    c.bridge = "nobr0";
    host_configure(host, &c);
    CHECK(UNTIL(!strcmp(host_get_status(host)->error, "bridge: there is no bridge nobr0"), 10000));
    c = config();
    c.ovsdb = "tcp:192.0.2.1:6640";
    host_configure(host, &c);
    turn(host);
    CHECK(strstr(host_get_status(host)->error, "not encrypted"));
    host_allow_plain();
    host_configure(host, &c);
    turn(host);
    CHECK(strstr(host_get_status(host)->error, "not on loopback"));
    c.ovsdb = "ssl:somewhere";
    host_configure(host, &c);
    turn(host);
    CHECK(strstr(host_get_status(host)->error, "needs an IP address and a port"));

    CASE("ctl_host/tunnel: one that is not wanted any more goes, nothing else");
    c = config();
    c.tunnels[HOST_VXLAN] = false;
    host_configure(host, &c);
    CHECK(UNTIL(host_get_ports_seqno(host) && !find_port("weft-vxlan"), 10000));
    ctl_sh(&sw, VSCTL "list-ports xenbr0");
    CHECK(!strcmp(ctl_said, "other\np1\n"));

    CASE("ctl_host/port: a vif that goes is reported");
    ctl_sh(&sw, VSCTL "del-port p1");
    CHECK(UNTIL(!find_port("p1"), 10000));
}

int
main(int argc, char *argv[])
{
    set_program_name(argv[0]);
    fatal_ignore_sigpipe();
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, getenv("V") ? VLL_DBG : VLL_OFF);
    stock = getenv("WEFT_TEST_VSWITCHD") != NULL;
    if (!ctl_switch_create(&sw)) {
        printf("not ok ctl_host: no switch: %s\n", ctl_said);
        ctl_switch_destroy(&sw);
        return 1;
    }
    snprintf(ovsdb, sizeof ovsdb, "unix:%s/db.sock", sw.dir);
    snprintf(openflow, sizeof openflow, "unix:%s/xenbr0.mgmt", sw.dir);
    ftable_init(&want);

    test_configure();
    test_first_push();
    test_reconnect();
    if (!stock) {
        test_confirm();
    }
    test_drift();
    test_refused();
    test_epoch();
    test_many();
    test_config_faults();

    host_destroy(host);
    ftable_destroy(&want);
    ctl_switch_destroy(&sw);
    return check_done();
}
