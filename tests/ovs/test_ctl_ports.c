/* Rate limits, mirrors and trunks: from the model to a real switch and back out of it.
 * Exporters and bonds: test_ctl_uplink.c. */
#include <config.h>

#include "ctl_ports_rig.h"

/* --- rate limits ---------------------------------------------------------------------- */

/* Meters as "ID RATE BURST" in order, of ours; 3573547008 is what port 0 would have
 * to the vif, and 65536 more is from it. */
#define METERS                                                                                     \
    OFCTL "dump-meters xenbr0 | tr '\\n' ' ' | sed 's/meter=/\\n/g' | sed -n "                     \
          "'s/^\\([0-9]*\\) kbps burst bands= *type=drop rate=\\([0-9]*\\) "                       \
          "burst_size=\\([0-9]*\\).*/\\1 \\2 \\3/p' | sort"
#define IN_11 "3573547019"
#define OUT_11 "3573612555"
#define IN_12 "3573547020"
#define OUT_12 "3573612556"
#define OUT_13 "3573612557"

static void
limit(enum rec_kind kind, unsigned n, unsigned field, int64_t kbps, int64_t burst)
{
    struct rec *r =
        kind == REC_VIF ? vif_rec(n, n == 1 ? 1 : 2, n == 3 ? 2 : 1, n) : new_rec(kind, n);

    if (kind == REC_NETWORK) {
        rec_set_string(r, REC_NETWORK_TYPE, "vlan");
        rec_set_int(r, REC_NETWORK_TAG, 10 * n);
        r->zone = n;
    } else if (kind == REC_POOL) {
        free(r->name);
        r->name = xstrdup("pool");
    }
    rec_set_int(r, field, kbps);
    /* The burst comes behind both rates. */
    rec_set_int(r,
                kind == REC_VIF       ? REC_VIF_BURST
                : kind == REC_VM      ? REC_VM_BURST
                : kind == REC_NETWORK ? REC_NETWORK_BURST
                                      : REC_POOL_BURST,
                burst);
    put(r);
}

static void
test_limits(void)
{
    CASE("ctl_ports/limits: both ways, as meters before the flows");
    CHECK(UNTIL(status()->connected && ports_known(), 10000));
    ctl_sh(&sw, OFCTL "add-meter xenbr0 meter=7,kbps,band=type=drop,rate=1");
    limit(REC_VIF, 1, REC_VIF_RATE_OUT, 20000, 0);
    limit(REC_VIF, 2, REC_VIF_RATE_IN, 900000, 2000);
    CHECK(apply() && !status()->error[0]);
    CHECK(said(METERS, IN_12 " 900000 2000\n" OUT_11 " 20000 4000\n"));
    CHECK(said(OFCTL "dump-flows --no-stats xenbr0 | grep -o 'in_port=11 .*meter:[0-9]*'",
               "in_port=11 actions=meter:" OUT_11 "\n"));
    CHECK(said(OFCTL "dump-flows --no-stats xenbr0 table=60 | grep -o 'clone.*'",
               "clone(meter:" IN_12 ",output:12)\n"));

    CASE("ctl_ports/limits: a rate alone changes no flow");
    ctl_sh(&sw, OFCTL "dump-flows xenbr0 | grep -o 'duration=.*in_port=11' >$DIR/before");
    limit(REC_VIF, 1, REC_VIF_RATE_OUT, 1000, 100); /* a burst is at least a large packet */
    CHECK(apply());
    CHECK(said(METERS, IN_12 " 900000 2000\n" OUT_11 " 1000 530\n"));

    CASE("ctl_ports/limits: the narrowest scope that states one");
    limit(REC_POOL, 1, REC_POOL_RATE_OUT, 500, 1500);
    limit(REC_NETWORK, 2, REC_NETWORK_RATE_OUT, 600, 0);
    CHECK(apply());
    CHECK(said(METERS, IN_12 " 900000 2000\n" OUT_11 " 1000 530\n" OUT_12 " 500 1500\n" OUT_13
                             " 600 1000\n"));
    limit(REC_VM, 2, REC_VM_RATE_OUT, 700, 0); /* vifs 2 and 3 */
    limit(REC_VIF, 1, REC_VIF_RATE_OUT, REC_RATE_LIFTED, 0);
    CHECK(apply());
    CHECK(said(METERS, IN_12 " 900000 2000\n" OUT_12 " 700 1000\n" OUT_13 " 700 1000\n"));
}

static void
test_limits_again(void)
{
    CASE("ctl_ports/limits: a meter that others remove comes back, with its flows");
    uint64_t flows = number(OFCTL "dump-flows --no-stats xenbr0 | grep -c table");
    ctl_sh(&sw, OFCTL "del-meter xenbr0 meter=" OUT_12);
    CHECK(number(OFCTL "dump-flows --no-stats xenbr0 | grep -c table") == (int)flows - 1);
    ctl_sh(&sw, OFCTL "mod-meter xenbr0 meter=" OUT_13 ",kbps,band=type=drop,rate=1; " OFCTL
                      "add-meter xenbr0 meter=3573547999,kbps,band=type=drop,rate=1");
    fleet_audit(fleet, NULL);
    CHECK(UNTIL(status()->drift == 4, 10000));
    CHECK(UNTIL(number(OFCTL "dump-flows --no-stats xenbr0 | grep -c table") == (int)flows, 10000));
    CHECK(UNTIL(number(OFCTL "dump-meters xenbr0 | grep -c meter=3573547999") == 0, 10000));
    CHECK(said(METERS, IN_12 " 900000 2000\n" OUT_12 " 700 1000\n" OUT_13 " 700 1000\n"));

    CASE("ctl_ports/limits: a new controller changes nothing that is right");
    fleet_destroy(fleet);
    compile_destroy(compile);
    compile = compile_create(m);
    fleet = fleet_create(m, compile);
    put(new_rec(REC_TENANT, 2));
    compile_run(compile);
    put_host("up");
    CHECK(apply());
    struct ds ds = DS_EMPTY_INITIALIZER;
    fleet_format(fleet, NULL, &ds);
    CHECK(strstr(ds_cstr(&ds), "0 sent in 0 bundles") && strstr(ds_cstr(&ds), "meters: 3"));
    ds_destroy(&ds);

    CASE("ctl_ports/limits: OpenFlow 1.5 is allowed where it is needed");
    ctl_sh(&sw, VSCTL "set bridge xenbr0 protocols=OpenFlow10,OpenFlow13");
    CHECK(UNTIL(!status()->connected, 10000) || status()->connected);
    limit(REC_VIF, 1, REC_VIF_RATE_IN, 4000, 0);
    CHECK(apply());
    CHECK(said(VSCTL "get bridge xenbr0 protocols", "[OpenFlow10, OpenFlow13, OpenFlow15]\n"));
    ctl_sh(&sw, VSCTL "clear bridge xenbr0 protocols");
    CHECK(UNTIL(status()->connected, 10000));

    CASE("ctl_ports/limits: without limits no meter of ours is left, others' are");
    limit(REC_POOL, 1, REC_POOL_RATE_OUT, 0, 0);
    limit(REC_NETWORK, 2, REC_NETWORK_RATE_OUT, 0, 0);
    limit(REC_VM, 2, REC_VM_RATE_OUT, 0, 0);
    limit(REC_VIF, 1, REC_VIF_RATE_IN, 0, 0);
    limit(REC_VIF, 2, REC_VIF_RATE_IN, 0, 0);
    CHECK(apply());
    CHECK(said(OFCTL "dump-meters xenbr0 | grep -o 'meter=[0-9][0-9]*'", "meter=7\n"));
    CHECK(number(OFCTL "dump-flows --no-stats xenbr0 | grep -c meter:") == 0);
}

/* A packet to everybody: who gets it, and through which meter. */
static void
test_flood(void)
{
    CASE("ctl_ports/limits: of a flooded packet each vif's copy has its own meter");
    allow_all();
    vif(4, 1, 1, 4);
    ctl_sh(&sw, VSCTL "add-port xenbr0 p4 -- set interface p4 ofport_request=14 "
                      "external_ids:attached-mac=02:00:00:00:00:04");
    limit(REC_POOL, 1, REC_POOL_RATE_IN, 5000, 0);
    model_settle(m);
    CHECK(UNTIL(model_vif_port(model_vif(obj(REC_VIF, 4)), model_host(obj(REC_HOST, 1))), 10000));
    CHECK(apply());
    ctl_sh(&sw, APPCTL "ofproto/trace xenbr0 'in_port=11,dl_src=02:00:00:00:00:01,"
                       "dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_sha=02:00:00:00:00:01' | tail -n 1");
    CHECK(strstr(ctl_said, "clone(meter(") &&
          strstr(strstr(ctl_said, "clone(meter(") + 1, "meter("));
    limit(REC_POOL, 1, REC_POOL_RATE_IN, 0, 0);
    CHECK(apply());
}

/* --- mirrors ---------------------------------------------------------------------------- */

static struct rec *
mirror_rec(unsigned n, const char *vif_ref, const char *network_ref)
{
    struct rec *r = new_rec(REC_MIRROR, n);

    if (vif_ref) {
        rec_add(r, REC_MIRROR_VIFS, vif_ref);
    }
    if (network_ref) {
        rec_add(r, REC_MIRROR_NETWORKS, network_ref);
    }
    return r;
}

/* A row's ports by name: "COLUMN: p1 p2". */
#define MIRROR_PORTS(NAME)                                                                         \
    "for c in select_src_port select_dst_port output_port; do echo $c: $(for u in $(" VSCTL        \
    "get mirror " NAME " $c | tr -d '[],'); do " VSCTL "get port $u name; done | sort); done"

static void
test_mirrors(void)
{
    struct rec *r;

    CASE("ctl_ports/mirror: to a vif, of a network and a vif");
    ctl_sh(&sw, VSCTL "add-port xenbr0 tap -- --id=@p get port tap -- --id=@m create mirror "
                      "name=theirs output_port=@p -- set bridge xenbr0 mirrors=@m");
    r = mirror_rec(1, ref(REC_VIF, 1), ref(REC_NETWORK, 1));
    rec_set_string(r, REC_MIRROR_OUTPUT_VIF, ref(REC_VIF, 3));
    rec_set_int(r, REC_MIRROR_SNAPLEN, 200);
    put(r);
    CHECK(apply() && obj(REC_MIRROR, 1) && !status()->error[0]);
    CHECK(said(MIRROR_PORTS("mirror1"), "select_src_port: p1 p2 p4\nselect_dst_port: p1 p2 p4\n"
                                        "output_port: p3\n"));
    CHECK(said(VSCTL "get mirror mirror1 snaplen external_ids", "200\n{weft-controller=mirror}\n"));

    CASE("ctl_ports/mirror: a vif that moves away is mirrored there no longer");
    ctl_sh(&sw, VSCTL "del-port p4");
    CHECK(UNTIL(says_now(MIRROR_PORTS("mirror1"), "select_src_port: p1 p2\nselect_dst_port: p1 p2\n"
                                                  "output_port: p3\n"),
                10000));

    CASE("ctl_ports/mirror: of one direction, to a VLAN: tagged, by the uplink alone");
    r = mirror_rec(1, ref(REC_VIF, 1), NULL);
    rec_set_string(r, REC_MIRROR_DIRECTION, "out");
    rec_set_int(r, REC_MIRROR_OUTPUT_VLAN, 777);
    put(r);
    CHECK(apply());
    CHECK(said(MIRROR_PORTS("mirror1"), "select_src_port: p1\nselect_dst_port:\n"
                                        "output_port: weft-span-777\n"));
    ctl_sh(&sw, VSCTL "set interface up ofport_request=9");
    CHECK(UNTIL(number(OFCTL "dump-flows --no-stats xenbr0 table=0 | grep -c "
                             "'push_vlan.*set_field:4873->vlan_vid,output:9$'") == 1,
                10000));
    ctl_sh(&sw, APPCTL "ofproto/trace xenbr0 'in_port=11,dl_src=02:00:00:00:00:01,"
                       "dl_dst=02:00:00:00:00:99,dl_type=0x1234' | grep ^Datap");
    CHECK(strstr(ctl_said, "push_vlan(vid=777,pcp=0)"));

    CASE("ctl_ports/mirror: through tunnels");
    r = mirror_rec(1, ref(REC_VIF, 1), NULL);
    rec_set_string(r, REC_MIRROR_OUTPUT_IP, "192.0.2.9");
    rec_set_string(r, REC_MIRROR_ENCAPSULATION, "erspan");
    rec_set_int(r, REC_MIRROR_SESSION, 5);
    put(r);
    CHECK(apply());
    CHECK(said(VSCTL "list-ports xenbr0 | grep weft; " VSCTL "--bare --columns=type,options find "
                     "interface type=erspan",
               "weft-m3e9\nerspan\nerspan_idx=1001 erspan_ver=1 key=5 remote_ip=192.0.2.9\n"));
    r = mirror_rec(1, ref(REC_VIF, 1), NULL);
    rec_set_string(r, REC_MIRROR_OUTPUT_IP, "2001:db8::9");
    put(r);
    CHECK(apply());
    CHECK(said(VSCTL "--bare --columns=type,options find interface name=weft-m3e9",
               "gre\nremote_ip=2001:db8::9\n"));

    CASE("ctl_ports/mirror: one that goes takes its port along, and nothing else");
    take(REC_MIRROR, 1);
    CHECK(apply());
    CHECK(said(VSCTL "--bare --columns=name list mirror; " VSCTL "list-ports xenbr0",
               "theirs\np1\np2\np3\ntap\nup\n"));
}

/* --- trunks ----------------------------------------------------------------------------- */

/* To everybody, from a port, with a tag ("" or "dl_vlan=N,"): what the switch does. */
#define SHOUT(PORT, TAG, MAC)                                                                      \
    APPCTL "ofproto/trace xenbr0 'in_port=" PORT "," TAG "dl_src=02:00:00:00:00:" MAC              \
           ",dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_sha=02:00:00:00:00:" MAC "' | tail -n 1 | "          \
           "sed 's/set(.*)//;s/^Datapath actions: //'; "

/* What SHOUT says, in names of ports. */
static bool
shouts(const char *command, const char *expected)
{
    char names[64][32] = {{0}}, *save = NULL;
    struct ds ds = DS_EMPTY_INITIALIZER;

    ctl_sh(&sw, APPCTL "dpif/show");
    for (char *l = strtok_r(ctl_said, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        char name[32];
        unsigned dp;

        if (sscanf(l, " %31s %*u/%u:", name, &dp) == 2 && dp < ARRAY_SIZE(names)) {
            strcpy(names[dp], name);
        }
    }
    ctl_sh(&sw, "%s", command);
    for (char *act = strtok_r(ctl_said, ",\n", &save); act; act = strtok_r(NULL, ",\n", &save)) {
        unsigned dp = act[strspn(act, "0123456789")] ? 0 : atoi(act);

        ds_put_format(&ds, "%s ", dp && dp < ARRAY_SIZE(names) ? names[dp] : act);
    }
    bool same = !strcmp(ds_cstr(&ds), expected);

    if (!same) {
        printf("# %s\n# does: %s\n# not: %s\n", command, ds_cstr(&ds), expected);
    }
    ds_destroy(&ds);
    return same;
}

static bool
copied(const char *command, const char *tag)
{
    ctl_sh(&sw, "%s", command);
    return strstr(ctl_said, tag);
}

/* Of a connection's first packet from p1 all that the switch does, behind conntrack, too. */
#define OPENS(TAG, TO)                                                                             \
    APPCTL "ofproto/trace xenbr0 'in_port=11," TAG "dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:"  \
           "00:" TO ",tcp,nw_src=10.0.0.1,nw_dst=10.0.0.3,nw_ttl=64,tp_src=40000,tp_dst=80' "      \
           "--ct-next 'trk,new' --ct-next 'trk,new'; "

static void
test_trunk(void)
{
    struct rec *r;

    CASE("ctl_ports/trunk: a tag of a vif's port is a vif of its own, in another network");
    put(child_rec(100));
    CHECK(apply() && obj(REC_VIF, 5) && !status()->error[0]);
    CHECK(shouts(SHOUT("11", "dl_vlan=100,", "01"), "pop_vlan p3 push_vlan(vid=20 pcp=0) up "));
    CHECK(shouts(SHOUT("11", "", "01"), "p2 push_vlan(vid=10 pcp=0) up "));
    CHECK(shouts(SHOUT("11", "dl_vlan=101,", "01"), "drop "));
    CHECK(shouts(SHOUT("12", "dl_vlan=100,", "02"), "drop "));
    CHECK(shouts(SHOUT("13", "", "03"),
                 "push_vlan(vid=100 pcp=0) p1 pop_vlan push_vlan(vid=20 pcp=0) up "));
    CHECK(shouts(SHOUT("12", "", "02"), "p1 push_vlan(vid=10 pcp=0) up "));

    CASE("ctl_ports/trunk: limits, and mirrors of it alone");
    r = child_rec(100);
    rec_set_int(r, REC_VIF_RATE_IN, 5000);
    rec_set_int(r, REC_VIF_RATE_OUT, 6000);
    put(r);
    r = mirror_rec(1, ref(REC_VIF, 2), ref(REC_NETWORK, 2));
    rec_set_int(r, REC_MIRROR_OUTPUT_VLAN, 777);
    put(r);
    CHECK(apply());
    CHECK(said(OFCTL "dump-meters xenbr0 | tr '\\n' ' ' | grep -o 'meter=[0-9]* kbps burst "
                     "bands= type=drop rate=[0-9]*' | cut -d' ' -f1,6 | grep -v =7 | sort",
               "meter=2690908171 rate=5000\nmeter=2959343627 rate=6000\n"));
    CHECK(said(VSCTL "--bare --columns=name,select_vlan list mirror | grep . | LC_ALL=C sort",
               "100\nmirror1\nmirror1/100\ntheirs\n"));
    CHECK(said(MIRROR_PORTS("mirror1/100"), "select_src_port: p1\nselect_dst_port: p1\n"
                                            "output_port: weft-span-777\n"));
    CHECK(said(MIRROR_PORTS("mirror1"), "select_src_port: p2 p3\nselect_dst_port: p2 p3\n"
                                        "output_port: weft-span-777\n"));
    CHECK(UNTIL(copied(SHOUT("11", "dl_vlan=100,", "01"), "vid=777"), 10000));
    CHECK(copied(OPENS("dl_vlan=100,", "03"), "vid=777") && !copied(OPENS("", "02"), "vid=777"));

    CASE("ctl_ports/trunk: a mirror of the parent copies nothing of its trunk");
    take(REC_MIRROR, 1);
    r = mirror_rec(2, ref(REC_VIF, 1), NULL);
    rec_set_int(r, REC_MIRROR_OUTPUT_VLAN, 778);
    put(r);
    CHECK(apply());
    CHECK(said(MIRROR_PORTS("mirror2/0"),
               "select_src_port:\nselect_dst_port: p1\noutput_port: weft-span-778\n"));
    CHECK(!copied(OPENS("dl_vlan=100,", "03"), "vid=778") && strstr(ctl_said, "ct_state=new"));
    CHECK(UNTIL(any(REC_MIRROR, 2)->refused &&
                    strstr(any(REC_MIRROR, 2)->refused, "\"vif5\" in its trunk is not mirrored"),
                5000));
    r = mirror_rec(2, ref(REC_VIF, 1), NULL);
    rec_set_int(r, REC_MIRROR_OUTPUT_VLAN, 778);
    rec_add(r, REC_MIRROR_VIFS, ref(REC_VIF, 5));
    put(r);
    CHECK(apply() && !any(REC_MIRROR, 2)->refused);
    CHECK(UNTIL(copied(SHOUT("11", "", "01"), "vid=778"), 10000));
    CHECK(UNTIL(copied(OPENS("dl_vlan=100,", "03"), "vid=778"), 10000));
    CHECK(!strstr(strstr(ctl_said, "vid=778") + 1, "vid=778"));

    CASE("ctl_ports/trunk: another tag, and none any more");
    take(REC_MIRROR, 2);
    put(child_rec(200));
    CHECK(apply());
    CHECK(shouts(SHOUT("11", "dl_vlan=100,", "01"), "drop "));
    CHECK(shouts(SHOUT("11", "dl_vlan=200,", "01"), "pop_vlan p3 push_vlan(vid=20 pcp=0) up "));
    CHECK(number(OFCTL "dump-flows --no-stats xenbr0 | grep -c meter:") == 0);
    ctl_sh(&sw, VSCTL "set interface p1 ofport_request=21");
    CHECK(UNTIL(model_vif_port(model_vif(obj(REC_VIF, 5)), model_host(obj(REC_HOST, 1)))->ofport ==
                    21,
                10000));
    CHECK(apply());
    CHECK(shouts(SHOUT("21", "dl_vlan=200,", "01"), "pop_vlan p3 push_vlan(vid=20 pcp=0) up "));
    ctl_sh(&sw, VSCTL "set interface p1 ofport_request=11");
    CHECK(UNTIL(model_vif_port(model_vif(obj(REC_VIF, 5)), model_host(obj(REC_HOST, 1)))->ofport ==
                    11,
                10000));
    take(REC_VIF, 5);
    CHECK(apply());
    CHECK(shouts(SHOUT("11", "dl_vlan=200,", "01"), "drop "));
}

static void
test_bad_mirrors(void)
{
    struct rec *r;

    CASE("ctl_ports/mirror: one that includes its own output is an error");
    r = mirror_rec(2, ref(REC_VIF, 1), NULL);
    rec_set_string(r, REC_MIRROR_OUTPUT_VIF, ref(REC_VIF, 1));
    put(r);
    model_settle(m);
    CHECK(says(REC_MIRROR, 2, "output_vif: vif \"vif1\" is one of those"));
    r = mirror_rec(2, NULL, ref(REC_NETWORK, 1));
    rec_set_string(r, REC_MIRROR_OUTPUT_VIF, ref(REC_VIF, 1));
    put(r);
    model_settle(m);
    CHECK(says(REC_MIRROR, 2, "output_vif: vif \"vif1\" is in network \"network1\""));
    r = mirror_rec(2, ref(REC_VIF, 1), NULL);
    rec_set_int(r, REC_MIRROR_OUTPUT_VLAN, 20);
    put(r);
    model_settle(m);
    CHECK(says(REC_MIRROR, 2, "output_vlan: network \"network2\" has the same one"));
    CHECK(apply());
    CHECK(said(VSCTL "--bare --columns=name list mirror", "theirs\n"));

    CASE("ctl_ports/mirror: sources on another host than the output are said");
    host(2);
    r = vif_rec(5, 1, 1, 5);
    rec_set_string(r, REC_VIF_HOST, ref(REC_HOST, 2));
    put(r);
    r = mirror_rec(2, ref(REC_VIF, 5), NULL);
    rec_set_string(r, REC_MIRROR_OUTPUT_VIF, ref(REC_VIF, 1));
    put(r);
    model_settle(m);
    CHECK(UNTIL(any(REC_MIRROR, 2)->refused &&
                    strstr(any(REC_MIRROR, 2)->refused, "output_vif: 1 of the mirrored vifs"),
                5000));
    take(REC_MIRROR, 2);
    take(REC_VIF, 5);
    take(REC_HOST, 2);

    CASE("ctl_ports/mirror: more than a switch can have are said, and the oldest are made");
    for (unsigned n = 40; n < 73; n++) {
        r = mirror_rec(n, ref(REC_VIF, 1), NULL);
        rec_set_string(r, REC_MIRROR_OUTPUT_VIF, ref(REC_VIF, 3));
        put(r);
    }
    model_settle(m);
    CHECK(UNTIL(any(REC_MIRROR, 72)->refused &&
                    strstr(any(REC_MIRROR, 72)->refused, "vifs: is not made on host \"host1\""),
                5000));
    CHECK(!any(REC_MIRROR, 71)->refused);
    CHECK(UNTIL(strstr(status()->error, "1 of others"), 5000));
    CHECK(UNTIL(number(VSCTL "--bare --columns=name list mirror | grep -c mirror") == 32, 5000));
    take(REC_MIRROR, 50);
    CHECK(UNTIL(!any(REC_MIRROR, 72)->refused, 5000));
    for (unsigned n = 40; n < 73; n++) {
        if (n != 50) {
            take(REC_MIRROR, n);
        }
    }
    ctl_sh(&sw, VSCTL "clear bridge xenbr0 mirrors");
}

int
main(int argc, char *argv[])
{
    if (!ports_begin(argc, argv)) {
        return 1;
    }
    test_limits();
    test_limits_again();
    test_flood();
    test_mirrors();
    test_trunk();
    test_bad_mirrors();
    return ports_end();
}
