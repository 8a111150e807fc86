/* Exporters and bonds: from the model to a real switch and back out of it. */
#include <config.h>

#include "ctl_ports_rig.h"

/* --- exporters ---------------------------------------------------------------------------- */

static struct rec *
exporter_rec(unsigned n, const char *protocol, const char *target)
{
    struct rec *r = new_rec(REC_EXPORTER, n);

    rec_set_string(r, REC_EXPORTER_PROTOCOL, protocol);
    rec_add(r, REC_EXPORTER_TARGETS, target);
    return r;
}

static void
test_exporters(void)
{
    struct rec *r;

    CASE("ctl_uplink/exporter: a row for each protocol");
    r = exporter_rec(1, "netflow", "192.0.2.1:9995");
    rec_set_int(r, REC_EXPORTER_ACTIVE_TIMEOUT, 60);
    rec_add(r, REC_EXPORTER_OPTIONS, "weft-version=v9");
    put(r);
    r = exporter_rec(2, "sflow", "192.0.2.1:6343");
    rec_set_int(r, REC_EXPORTER_SAMPLING, 64);
    rec_set_int(r, REC_EXPORTER_HEADER, 96);
    put(r);
    r = exporter_rec(3, "ipfix", "[2001:db8::1]:4739");
    rec_set_int(r, REC_EXPORTER_SAMPLING, 1);
    rec_set_int(r, REC_EXPORTER_ACTIVE_TIMEOUT, 30);
    rec_add(r, REC_EXPORTER_OPTIONS, "enable-tunnel-sampling=false");
    put(r);
    CHECK(apply());
    CHECK(said(VSCTL "--bare --columns=targets,active_timeout,engine_id list netflow; " VSCTL
                     "--bare --columns=targets,sampling,header,polling,agent list sflow; " VSCTL
                     "--bare --columns=targets,sampling,cache_active_timeout,obs_domain_id,"
                     "other_config list ipfix; " VSCTL
                     "--bare --columns=id list flow_sample_collector_set",
               "192.0.2.1:9995\n60\n101\n192.0.2.1:6343\n64\n96\n\nup\n"
               "[2001:db8::1]:4739\n1\n30\n101\nenable-tunnel-sampling=false\n1\n"));

    CHECK(said(VSCTL "get netflow . external_ids; " VSCTL "get interface p1 external_ids",
               "{weft-controller=exporter, weft-version=v9}\n{attached-mac=\"02:00:00:00:00:01\", "
               "weft-network-key=\"301\", weft-vif-key=\"501\"}\n"));

    CASE("ctl_uplink/exporter: the host's own comes before the pool's");
    r = exporter_rec(4, "ipfix", "192.0.2.7:4739");
    rec_set_string(r, REC_EXPORTER_HOST, ref(REC_HOST, 1));
    put(r);
    CHECK(apply());
    CHECK(said(VSCTL "--bare --columns=targets,sampling,other_config list ipfix",
               "192.0.2.7:4739\n\n\n"));
    r = exporter_rec(5, "ipfix", "192.0.2.8:4739");
    put(r);
    model_settle(m);
    CHECK(says(REC_EXPORTER, 5, "protocol: exporter \"exporter3\" has the same one"));
    take(REC_EXPORTER, 5);

    CASE("ctl_uplink/exporter: what others change is as stated again");
    ctl_sh(&sw, VSCTL "set ipfix . targets='\"192.0.2.66:1\"'");
    CHECK(UNTIL(says_now(VSCTL "--bare --columns=targets list ipfix", "192.0.2.7:4739\n"), 10000));

    CASE("ctl_uplink/exporter: all gone again");
    for (unsigned n = 1; n <= 4; n++) {
        take(REC_EXPORTER, n);
    }
    CHECK(apply());
    CHECK(said(VSCTL "list netflow; " VSCTL "list sflow; " VSCTL "list ipfix; " VSCTL
                     "list flow_sample_collector_set; " VSCTL "get interface p1 external_ids",
               "{attached-mac=\"02:00:00:00:00:01\"}\n"));

    CASE("ctl_uplink/exporter: others' settings stay, and the host says so");
    ctl_sh(&sw, VSCTL "-- --id=@n create netflow targets='\"192.0.2.5:1\"' -- "
                      "set bridge xenbr0 netflow=@n");
    put(exporter_rec(1, "netflow", "192.0.2.1:9995"));
    CHECK(apply());
    CHECK(UNTIL(strstr(status()->error, "NetFlow that are not ours"), 10000));
    CHECK(said(VSCTL "--bare --columns=targets list netflow", "192.0.2.5:1\n"));
    ctl_sh(&sw, VSCTL "clear bridge xenbr0 netflow");
    CHECK(
        UNTIL(says_now(VSCTL "--bare --columns=targets list netflow", "192.0.2.1:9995\n"), 10000));
    take(REC_EXPORTER, 1);
    CHECK(apply());
    CHECK(said(VSCTL "list netflow", ""));
}

static struct rec *
scoped_rec(unsigned n, const char *target, unsigned network, unsigned network2)
{
    struct rec *r = exporter_rec(n, "ipfix", target);

    rec_add(r, REC_EXPORTER_NETWORKS, ref(REC_NETWORK, network));
    if (network2) {
        rec_add(r, REC_EXPORTER_NETWORKS, ref(REC_NETWORK, network2));
    }
    rec_normalize(r);
    return r;
}

/* Of the set of exporter 'n': whose it is, and where its packets go. */
#define SCOPE(KEY)                                                                                 \
    "u=$(" VSCTL "--bare --columns=ipfix find flow_sample_collector_set id=" KEY "); " VSCTL       \
    "--bare --columns=external_ids find flow_sample_collector_set id=" KEY "; " VSCTL              \
    "--bare --columns=targets,other_config list ipfix $u"
#define TENANTS VSCTL "--if-exists get bridge xenbr0 external_ids:weft-tenants"
#define TAGS(PORT) VSCTL "--if-exists get interface " PORT " external_ids:weft-network-tags"

/* Which host it is about, and both ways out. */
static bool
says_what_to_do(unsigned n)
{
    const char *error = any(REC_EXPORTER, n)->refused;

    return strstr(error, "networks: nothing is exported on host \"host1\"") &&
           strstr(error, "(hosts like that: 1)") &&
           strstr(error, "run weft-vswitchd with datapath_type weft there, or give it an exporter "
                         "without networks");
}

static void
test_scoped_exporters(void)
{
    struct rec *r;

    if (getenv("WEFT_TEST_VSWITCHD")) {
        CASE(
            "ctl_uplink/exporter: a stock switch exports nothing of some networks, and it says so");
        put(scoped_rec(2, "192.0.2.2:4739", 1, 0));
        CHECK(apply() && UNTIL(any(REC_EXPORTER, 2)->refused, 10000));
        CHECK(says_what_to_do(2));
        CHECK(said(VSCTL "list ipfix; " VSCTL "list flow_sample_collector_set", ""));
        take(REC_EXPORTER, 2);
        return;
    }
    CASE("ctl_uplink/exporter: of some networks, beside the pool's");
    put(exporter_rec(1, "ipfix", "192.0.2.1:4739"));
    r = scoped_rec(2, "192.0.2.2:4739", 1, 0);
    rec_add(r, REC_EXPORTER_OPTIONS, "weft-version=v9");
    put(r);
    put(scoped_rec(3, "192.0.2.3:4739", 1, 2));
    CHECK(apply() && obj(REC_EXPORTER, 2) && obj(REC_EXPORTER, 3));
    CHECK(said(VSCTL "--bare --columns=id list flow_sample_collector_set | grep . | sort -n; " VSCTL
                     "--bare get bridge xenbr0 ipfix | xargs " VSCTL "--bare --columns=targets "
                     "list ipfix",
               "1\n1358\n1359\n192.0.2.1:4739\n"));
    CHECK(said(SCOPE("1358"), "weft-controller=scope weft-networks=301\n192.0.2.2:4739\n"
                              "weft-version=v9\n"));
    CHECK(said(SCOPE("1359"), "weft-controller=scope weft-networks=301 302\n192.0.2.3:4739\n\n"));
    CHECK(said(TAGS("up") "; " VSCTL "get interface p1 external_ids:weft-network-key; " TAGS("p1"),
               "\"10=301 20=302\"\n\"301\"\n\n"));

    CASE("ctl_uplink/exporter: tags of a trunk's port are their networks'");
    put(child_rec(100));
    CHECK(apply() && said(TAGS("p1"), "\"100=302\"\n"));
    take(REC_VIF, 5);
    CHECK(apply() && said(TAGS("p1"), "\n"));

    CASE("ctl_uplink/exporter: what others change, and another tag");
    ctl_sh(&sw, VSCTL "--bare --columns=_uuid find flow_sample_collector_set id=1358 | xargs "
                      "-I@ " VSCTL "set flow_sample_collector_set @ external_ids:weft-networks=9");
    CHECK(UNTIL(says_now(SCOPE("1358"), "weft-controller=scope weft-networks=301\n192.0.2.2:4739\n"
                                        "weft-version=v9\n"),
                10000));
    network(2, 25, "");
    CHECK(apply() && said(TAGS("up"), "\"10=301 25=302\"\n"));
    network(2, 20, "");

    CASE("ctl_uplink/exporter: whose the networks are");
    CHECK(said(TENANTS, "\n"));
    network(2, 20, ref(REC_TENANT, 2));
    CHECK(apply() && said(TENANTS, "\"302=202\"\n"));
    network(2, 20, "");
    CHECK(apply() && said(TENANTS, "\n"));

    CASE("ctl_uplink/exporter: a host whose datapath cannot exports nothing, and it says so");
    CHECK(apply() && !any(REC_EXPORTER, 2)->refused);
    ctl_sh(&sw, VSCTL "set bridge xenbr0 datapath_type=netdev");
    CHECK(UNTIL(any(REC_EXPORTER, 2)->refused && any(REC_EXPORTER, 3)->refused, 10000) &&
          says_what_to_do(2) && says_what_to_do(3) && !any(REC_EXPORTER, 1)->refused);
    CHECK(
        UNTIL(says_now(VSCTL "--bare --columns=id list flow_sample_collector_set", "1\n"), 10000));
    ctl_sh(&sw, VSCTL "set bridge xenbr0 datapath_type=dummy");
    CHECK(UNTIL(!any(REC_EXPORTER, 2)->refused, 10000));
    CHECK(UNTIL(number(VSCTL "--bare --columns=id list flow_sample_collector_set | grep -c .") == 3,
                10000));

    CASE("ctl_uplink/exporter: the pool's goes, that of networks stays; no network is left of one");
    take(REC_EXPORTER, 1);
    take(REC_EXPORTER, 3);
    CHECK(apply());
    CHECK(said(VSCTL "--bare --columns=id list flow_sample_collector_set; " VSCTL
                     "get bridge xenbr0 ipfix; " TAGS("up"),
               "1358\n[]\n\"10=301\"\n"));
    network(3, 10, ""); /* network 1 has that tag */
    put(scoped_rec(2, "192.0.2.2:4739", 3, 0));
    CHECK(apply() && obj(REC_EXPORTER, 2) && !obj(REC_NETWORK, 3));
    CHECK(said(SCOPE("1358"), "weft-controller=scope weft-networks=\n192.0.2.2:4739\n\n"));
    take(REC_EXPORTER, 2);
    take(REC_NETWORK, 3);
    CHECK(apply());
    CHECK(said(VSCTL "list ipfix; " VSCTL "list flow_sample_collector_set; " TAGS("up"), "\n"));
}

/* --- bonds -------------------------------------------------------------------------------- */

static struct rec *
bond_rec(const char *second, const char *mode, const char *lacp)
{
    struct rec *r = new_rec(REC_BOND, 1);

    rec_set_string(r, REC_BOND_HOST, ref(REC_HOST, 1));
    rec_set_string(r, REC_BOND_PORT, "bond0");
    rec_add(r, REC_BOND_INTERFACES, "e1");
    rec_add(r, REC_BOND_INTERFACES, second);
    rec_normalize(r);
    rec_set_string(r, REC_BOND_MODE, mode);
    rec_set_string(r, REC_BOND_LACP, lacp);
    return r;
}

#define BOND_INTERFACES                                                                            \
    "for u in $(" VSCTL "get port bond0 interfaces | tr -d '[],'); do " VSCTL                      \
    "get interface $u name; done | sort | tr '\\n' ' '"
/* The datapath's port of a device. */
#define DP_PORT(DEVICE) APPCTL "dpif/show | sed -n 's|.* " DEVICE " [0-9]*/\\([0-9]*\\):.*|\\1|p'"

/* What vif 1 sends to the outside leaves by this device. */
static bool
leaves_by(const char *dp_port_command)
{
    char expected[64];

    snprintf(expected, sizeof expected, "push_vlan(vid=10,pcp=0),%d\n", number(dp_port_command));
    ctl_sh(&sw, APPCTL "ofproto/trace xenbr0 'in_port=11,dl_src=02:00:00:00:00:01,"
                       "dl_dst=02:00:00:00:00:99,dl_type=0x1234' | grep ^Datap");
    return strstr(ctl_said, expected);
}

static const struct model_pif_status *
pif(unsigned n)
{
    return &model_pif(obj(REC_PIF, n))->status;
}

static void
test_bonds(void)
{
    char bridge[512];
    struct rec *r;

    CASE("ctl_uplink/bond: the uplink becomes one, and the bridge stays");
    ctl_sh(&sw, VSCTL "get bridge xenbr0 _uuid; " VSCTL "get interface xenbr0 mac_in_use ofport");
    ovs_strlcpy(bridge, ctl_said, sizeof bridge);
    ctl_sh(&sw, VSCTL "add-port xenbr0 tap -- del-port up");
    put_host("e1");
    CHECK(apply());
    CHECK(UNTIL(leaves_by(DP_PORT("e1")), 10000));
    r = bond_rec("e2", "active-backup", "off");
    rec_set_string(r, REC_BOND_PRIMARY, "e1");
    put(r);
    model_settle(m);
    CHECK(
        UNTIL(any(REC_BOND, 1)->refused && strstr(any(REC_BOND, 1)->refused, "port: is not in use"),
              5000));
    put_host("bond0");
    CHECK(apply());
    CHECK(UNTIL(!any(REC_BOND, 1)->refused, 5000) && !status()->error[0]);
    CHECK(said(VSCTL "list-ports xenbr0 | grep -v '^p[0-9]'; " VSCTL
                     "list-ports weft-uplink; " VSCTL
                     "get port bond0 bond_mode lacp other_config; " BOND_INTERFACES,
               "tap\nweft-uplink-in\nbond0\nweft-uplink-out\nactive-backup\noff\n"
               "{bond-primary=e1}\ne1 e2 "));
    CHECK(UNTIL(leaves_by(DP_PORT("e1")), 10000));

    CASE("ctl_uplink/bond: a link that goes down is not used");
    ctl_sh(&sw, APPCTL "netdev-dummy/set-admin-state e1 down");
    CHECK(UNTIL(leaves_by(DP_PORT("e2")), 10000));
    ctl_sh(&sw, APPCTL "netdev-dummy/set-admin-state e1 up");

    CASE("ctl_uplink/bond: other interfaces, another mode");
    r = bond_rec("e3", "balance-tcp", "active");
    rec_set_int(r, REC_BOND_LACP_FAST, 1);
    rec_set_int(r, REC_BOND_UPDELAY, 100);
    put(r);
    CHECK(apply());
    CHECK(said(VSCTL "get port bond0 bond_mode lacp other_config bond_updelay; " BOND_INTERFACES,
               "balance-tcp\nactive\n{lacp-time=fast}\n100\ne1 e3 "));

    CASE("ctl_uplink/bond: a device of somebody else's port is not taken");
    put(bond_rec("p2", "balance-slb", "off"));
    CHECK(apply());
    CHECK(UNTIL(
        !strcmp(status()->error, "bond: port p2 of bridge xenbr0 is not ours, and in the way"),
        5000));
    CHECK(said(VSCTL "get port bond0 bond_mode; " BOND_INTERFACES, "balance-tcp\ne1 e3 "));
    put(bond_rec("e2", "balance-slb", "off"));
    CHECK(apply() && UNTIL(!status()->error[0], 5000));

    CASE("ctl_uplink/pif: what the switch says of it, by itself and in a bond");
    for (unsigned n = 1; n <= 3; n++) {
        r = new_rec(REC_PIF, n);
        rec_set_string(r, REC_PIF_HOST, ref(REC_HOST, 1));
        rec_set_string(r, REC_PIF_DEVICE, n == 1 ? "e1" : n == 2 ? "p2" : "e9");
        put(r);
    }
    CHECK(apply());
    CHECK(UNTIL(!strcmp(pif(1)->link, "up") && !strcmp(pif(1)->bridge, "weft-uplink"), 5000));
    CHECK(!strcmp(pif(2)->bridge, "xenbr0") && strlen(pif(2)->mac) == 17);
    CHECK(!*pif(3)->link && !*pif(3)->bridge);
    CHECK(UNTIL(any(REC_BOND, 1)->refused &&
                    strstr(any(REC_BOND, 1)->refused, "interfaces: \"e2\" is no physical"),
                5000));
    ctl_sh(&sw, APPCTL "netdev-dummy/set-admin-state e1 down");
    CHECK(UNTIL(!strcmp(pif(1)->link, "down"), 10000));
    ctl_sh(&sw, APPCTL "netdev-dummy/set-admin-state e1 up");
    CHECK(UNTIL(!strcmp(pif(1)->link, "up"), 10000));
    take(REC_PIF, 1); /* another object of the same device: nothing changes at the switch */
    r = new_rec(REC_PIF, 4);
    rec_set_string(r, REC_PIF_HOST, ref(REC_HOST, 1));
    rec_set_string(r, REC_PIF_DEVICE, "e1");
    put(r);
    CHECK(apply() && UNTIL(!strcmp(pif(4)->link, "up"), 5000));
    for (unsigned n = 2; n <= 4; n++) {
        take(REC_PIF, n);
    }
    CHECK(apply() && UNTIL(!any(REC_BOND, 1)->refused, 5000));

    CASE("ctl_uplink/bond: back to one device");
    put_host("e1");
    CHECK(apply());
    CHECK(
        said(VSCTL "list-br; " VSCTL "list-ports xenbr0 | grep -v '^p[0-9]'", "xenbr0\ne1\ntap\n"));
    CHECK(UNTIL(leaves_by(DP_PORT("e1")), 10000));
    take(REC_BOND, 1);
    CHECK(said(VSCTL "get bridge xenbr0 _uuid; " VSCTL "get interface xenbr0 mac_in_use ofport",
               bridge));
}

int
main(int argc, char *argv[])
{
    if (!ports_begin(argc, argv)) {
        return 1;
    }
    allow_all();
    test_exporters();
    test_scoped_exporters();
    test_bonds();
    return ports_end();
}
