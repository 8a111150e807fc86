/* What a vif may not send: cases 19 and 20 of the plan (MAC, ARP, ND, DHCP and RA
 * spoofing; tags and protocols of bridges), one line each.
 *
 *   attacker, port 10 --+            +-- victim, port 11
 *                       +-- host 0 --+
 *         outside -- uplink, port 1  +-- VLAN 101's vif, port 12
 *
 * Everything is allowed by policy; what is not delivered is stopped as a lie. */
#include <config.h>

#include "check.h"
#include "compile.h"
#include "eval.h"
#include "packets.h"
#include "pflow.h"
#include "util.h"

#include "ctl_pool.h"
#include "openvswitch/ofp-flow.h"
#include "openvswitch/vlog.h"

static struct eval eval;
static struct model *model;
static struct compile *compile;
static struct pool pool;

/* Vif 0, the attacker, is 02:…:01 with 10.0.0.1 and fd00::1; vif 1, the victim,
 * 02:…:02 with 10.0.0.2 and fd00::2; vif 2 is in the other network. */
#define ME "dl_src=02:00:00:00:00:01"
#define TO ",dl_dst=02:00:00:00:00:02"
#define ALL ",dl_dst=ff:ff:ff:ff:ff:ff"
#define MINE "arp_sha=02:00:00:00:00:01"
#define V4 "ip," ME TO ",nw_src=10.0.0.1,nw_dst=10.0.0.2"
#define V6 "ipv6_src=fd00::1,ipv6_dst=fd00::2"
#define LL "ipv6_src=fe80::ff:fe00:1"

static const struct {
    const char *what, *packet;
    bool locked, unlocked; /* delivered in this mode? */
} cases[] = {
    {"own IPv4", V4, true, true},
    {"own IPv6", "ipv6," ME TO "," V6, true, true},
    {"own link-local", "icmp6," ME TO "," LL ",ipv6_dst=fd00::2,icmp_type=128", true, true},
    {"another's MAC", "ip,dl_src=02:00:00:00:00:02" TO ",nw_src=10.0.0.1,nw_dst=10.0.0.2", false,
     false},
    {"a MAC nobody has", "ip,dl_src=02:00:00:00:00:99" TO ",nw_src=10.0.0.1,nw_dst=10.0.0.2", false,
     false},
    {"a group MAC as source", "ip,dl_src=03:00:00:00:00:01" TO ",nw_src=10.0.0.1", false, false},
    {"another's IPv4", "ip," ME TO ",nw_src=10.0.0.9,nw_dst=10.0.0.2", false, true},
    {"another's IPv6", "ipv6," ME TO ",ipv6_src=fd00::9,ipv6_dst=fd00::2", false, true},
    {"another link-local", "icmp6," ME TO ",ipv6_src=fe80::99,ipv6_dst=fd00::2,icmp_type=128",
     false, true},
    {"source 0.0.0.0", "ip," ME TO ",nw_src=0.0.0.0,nw_dst=10.0.0.2", false, true},

    {"ARP of its own", "arp," ME ALL "," MINE ",arp_op=1,arp_spa=10.0.0.1", true, true},
    {"ARP reply of its own", "arp," ME TO "," MINE ",arp_op=2,arp_spa=10.0.0.1", true, true},
    {"ARP probe for its own", "arp," ME ALL "," MINE ",arp_op=1,arp_spa=0.0.0.0,arp_tpa=10.0.0.1",
     true, true},
    {"ARP probe for another's", "arp," ME ALL "," MINE ",arp_op=1,arp_spa=0.0.0.0,arp_tpa=10.0.0.2",
     false, true},
    {"ARP: another's address", "arp," ME ALL "," MINE ",arp_op=2,arp_spa=10.0.0.9", false, true},
    {"ARP: another's MAC inside",
     "arp," ME ALL ",arp_sha=02:00:00:00:00:02,arp_op=2,arp_spa=10.0.0.1", false, false},
    {"ARP: no MAC inside", "arp," ME ALL ",arp_op=2,arp_spa=10.0.0.1", false, false},
    {"RARP", "rarp," ME ALL ",arp_op=3", false, true},

    {"NS of its own",
     "icmp6," ME ALL "," V6 ",icmp_type=135,nd_target=fd00::2,nd_sll=02:00:00:00:00:01", true,
     true},
    {"NS without its MAC", "icmp6," ME TO "," V6 ",icmp_type=135,nd_target=fd00::2", true, true},
    {"NS: another's MAC inside",
     "icmp6," ME ALL "," V6 ",icmp_type=135,nd_target=fd00::2,nd_sll=02:00:00:00:00:02", false,
     false},
    {"NS: another's address", "icmp6," ME ALL ",ipv6_src=fd00::9,icmp_type=135,nd_target=fd00::2",
     false, true},
    {"NS malformed (no target)", "icmp6," ME ALL "," V6 ",icmp_type=135", false, false},
    {"DAD for its own",
     "icmp6," ME ALL ",ipv6_src=::,ipv6_dst=ff02::1:ff00:1,icmp_type=135,nd_target=fd00::1", true,
     true},
    {"DAD for another's",
     "icmp6," ME ALL ",ipv6_src=::,ipv6_dst=ff02::1:ff00:2,icmp_type=135,nd_target=fd00::2", false,
     true},
    {"NA of its own",
     "icmp6," ME TO "," V6 ",icmp_type=136,nd_target=fd00::1,nd_tll=02:00:00:00:00:01", true, true},
    {"NA for another's",
     "icmp6," ME TO "," V6 ",icmp_type=136,nd_target=fd00::9,nd_tll=02:00:00:00:00:01", false,
     true},
    {"NA: another's MAC inside",
     "icmp6," ME TO "," V6 ",icmp_type=136,nd_target=fd00::1,nd_tll=02:00:00:00:00:02", false,
     false},
    {"NA in fragments", "icmp6," ME TO "," V6 ",nw_frag=first,icmp_type=136,nd_target=fd00::1",
     false, false},
    {"RS", "icmp6," ME ALL "," LL ",icmp_type=133", true, true},
    {"RA", "icmp6," ME ALL "," LL ",icmp_type=134", false, false},
    {"RA in fragments", "icmp6," ME ALL "," LL ",nw_frag=first,icmp_type=134", false, false},
    {"redirect", "icmp6," ME TO "," LL ",icmp_type=137", false, false},
    {"later fragment of ICMPv6", "icmp6," ME TO "," V6 ",nw_frag=later", false, false},

    {"DHCP client", "udp," ME ALL ",nw_src=0.0.0.0,nw_dst=255.255.255.255,tp_src=68,tp_dst=67",
     true, true},
    {"DHCP client at another's address",
     "udp," ME ALL ",nw_src=10.0.0.9,nw_dst=255.255.255.255,tp_src=68,tp_dst=67", false, true},
    {"DHCP server", "udp," ME TO ",nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=67,tp_dst=68", false,
     false},
    {"DHCP to a client from another port",
     "udp," ME TO ",nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=4000,tp_dst=68", false, false},
    {"DHCPv6 server", "udp6," ME TO "," LL ",tp_src=547,tp_dst=546", false, false},
    {"DHCPv6 to a client from another port", "udp6," ME TO "," LL ",tp_src=4000,tp_dst=546", false,
     false},

    {"a tag", "ip,dl_vlan=101," ME TO ",nw_src=10.0.0.1", false, false},
    {"a priority tag", "ip,vlan_tci=0x1000," ME TO ",nw_src=10.0.0.1", false, false},
    {"its own network's tag", "ip,dl_vlan=100," ME TO ",nw_src=10.0.0.1", false, false},
    {"a service tag", "dl_type=0x88a8," ME TO, false, false},
    {"an inner tag", "dl_type=0x8100," ME TO, false, false},
    {"STP", ME ",dl_dst=01:80:c2:00:00:00,dl_type=0x05ff", false, false},
    {"LACP", ME ",dl_dst=01:80:c2:00:00:02,dl_type=0x8809", false, false},
    {"LACP to an address", ME TO ",dl_type=0x8809", false, false},
    {"EAPOL", ME ",dl_dst=01:80:c2:00:00:03,dl_type=0x888e", false, false},
    {"EAPOL to an address", ME TO ",dl_type=0x888e", false, false},
    {"LLDP", ME ",dl_dst=01:80:c2:00:00:0e,dl_type=0x88cc", false, false},
    {"LLDP to an address", ME TO ",dl_type=0x88cc", false, false},
    {"GVRP", ME ",dl_dst=01:80:c2:00:00:21,dl_type=0x05ff", false, false},
    {"CFM", ME ",dl_dst=01:80:c2:00:00:31,dl_type=0x8902", false, false},
    {"pause", ME ",dl_dst=01:80:c2:00:00:01,dl_type=0x8808", false, false},
    {"CDP, VTP, DTP", ME ",dl_dst=01:00:0c:cc:cc:cc,dl_type=0x05ff", false, false},
    {"PVST", ME ",dl_dst=01:00:0c:cc:cc:cd,dl_type=0x05ff", false, false},
    {"another ethertype", ME TO ",dl_type=0x8847", false, true},
    {"the other network's vif", "ip," ME ",dl_dst=02:00:00:00:00:03,nw_src=10.0.0.1", false, false},
};

static void
build_pool(int mode)
{
    memset(&pool, 0, sizeof pool);
    pool.allow = true;
    pool.hosts[0] = (struct p_host){.there = true, .uplink = true};
    pool.nets[0] = (struct p_net){.there = true, .id = 100};
    pool.nets[1] = (struct p_net){.there = true, .id = 101};
    pool.vms[0] = true;
    for (unsigned i = 0; i < 3; i++) {
        random_vif(&pool.vifs[i], i);
        pool.vifs[i].there = true;
        pool.vifs[i].vm = 0;
        pool.vifs[i].host = 0;
        pool.vifs[i].net = i == 2;
        pool.vifs[i].isolated = false;
        pool.vifs[i].locking = i ? MODEL_LOCKED : mode;
        pool.vifs[i].v4 = (struct cidrs){.c = {make_cidr(address4(i + 1), 32)}, .n = 1};
        pool.vifs[i].v6 = (struct cidrs){.c = {make_cidr(address6(i + 1), 128)}, .n = 1};
    }
}

static void
load(void)
{
    model = model_create();
    compile = compile_create(model);
    pool_state_all(&pool, model);
    compile_run(compile);
    model_changes_clear(model);
    eval_set_flows(&eval, compile_host_flows(compile, pool_key(REC_HOST, 0)));
}

static void
unload(void)
{
    compile_destroy(compile);
    model_destroy(model);
    eval_forget_conns(&eval);
}

/* The packet as the switch's parser would fill it in. */
static struct flow
parse(const char *text)
{
    enum ofputil_protocol usable;
    struct ofputil_flow_mod fm;
    char *line = xasprintf("%s,actions=drop", text);
    char *error = parse_ofp_str(&fm, OFPFC_ADD, line, NULL, NULL, &usable);
    struct match match;

    if (error) {
        ovs_fatal(0, "%s: %s", text, error);
    }
    minimatch_expand(&fm.match, &match);
    minimatch_destroy(&fm.match);
    free(fm.ofpacts);
    free(line);
    return match.flow;
}

/* Where it got: bit p for port p. */
static uint32_t
sent_to(const char *text, uint32_t in_port)
{
    struct flow f = parse(text);
    uint32_t ports = 0;

    eval_packet(&eval, &f, in_port);
    CHECK(!eval.broken);
    for (size_t i = 0; i < eval.n_out; i++) {
        ports |= 1u << (eval.out[i].port & 31);
    }
    return ports;
}

static void
test_mode(int mode, const char *name)
{
    build_pool(mode);
    load();
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        bool expected = mode == MODEL_LOCKED     ? cases[i].locked
                        : mode == MODEL_UNLOCKED ? cases[i].unlocked
                                                 : false;
        char *title = xasprintf("spoof: %s: %s", name, cases[i].what);
        uint32_t ports;

        CASE(title);
        ports = sent_to(cases[i].packet, PORT_VIF(0));
        CHECK(!(ports & 1u << PORT_VIF(2)) && !(ports & 1u << PORT_VIF(0)));
        CHECK(!!(ports & 1u << PORT_VIF(1)) == expected);
        check_end_case_();
        check_case_ = NULL;
        free(title);
    }
    unload();
}

static void
test_outside(void)
{
    build_pool(MODEL_LOCKED);
    load();
    CASE("spoof: outside: each tag reaches its own network only");
    CHECK(sent_to("ip,dl_vlan=100,dl_dst=02:00:00:00:00:02,nw_src=1.1.1.1", PORT_UPLINK) ==
          1u << PORT_VIF(1));
    CHECK(sent_to("ip,dl_vlan=101,dl_dst=02:00:00:00:00:02,nw_src=1.1.1.1", PORT_UPLINK) == 0);
    CHECK(sent_to("arp,dl_vlan=101,dl_dst=ff:ff:ff:ff:ff:ff", PORT_UPLINK) == 1u << PORT_VIF(2));
    CHECK(sent_to("arp,dl_vlan=102,dl_dst=ff:ff:ff:ff:ff:ff", PORT_UPLINK) == 0);
    CASE("spoof: outside: a native or priority tag reaches no vif");
    CHECK(!(sent_to("arp,vlan_tci=0,dl_dst=ff:ff:ff:ff:ff:ff", PORT_UPLINK) & (7u << PORT_VIF(0))));
    CHECK(sent_to("arp,vlan_tci=0x1000,dl_dst=ff:ff:ff:ff:ff:ff", PORT_UPLINK) == 0);
    CASE("spoof: outside: a second tag reaches no vif");
    struct flow f = parse("ip,dl_vlan=100,dl_dst=02:00:00:00:00:02,nw_src=1.1.1.1");
    f.vlans[1].tpid = htons(ETH_TYPE_VLAN);
    f.vlans[1].tci = htons(VLAN_CFI | 101);
    eval_packet(&eval, &f, PORT_UPLINK);
    CHECK(!eval.n_out && !eval.broken);
    CASE("spoof: outside: unknown ports and destinations end here");
    CHECK(sent_to("arp,dl_dst=ff:ff:ff:ff:ff:ff", 9) == 0);
    CHECK(sent_to("ip,dl_vlan=100,dl_dst=02:00:00:00:00:77", PORT_UPLINK) == 0);
    unload();
}

static void
test_allowed_services(void)
{
    build_pool(MODEL_LOCKED);
    pool.nets[0].dhcp = pool.nets[0].ra = true;
    load();
    CASE("spoof: a network may have DHCP servers and routers, with their own addresses");
    CHECK(
        sent_to("udp," ME TO ",nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=67,tp_dst=68", PORT_VIF(0)));
    CHECK(
        !sent_to("udp," ME TO ",nw_src=10.0.0.9,nw_dst=10.0.0.2,tp_src=67,tp_dst=68", PORT_VIF(0)));
    CHECK(sent_to("icmp6," ME ALL "," LL ",icmp_type=134", PORT_VIF(0)));
    CHECK(!sent_to("icmp6," ME ALL ",ipv6_src=fe80::99,icmp_type=134", PORT_VIF(0)));
    unload();

    build_pool(MODEL_LOCKED);
    pool.vifs[0].v4.n = pool.vifs[0].v6.n = 0;
    load();
    CASE("spoof: locked without addresses sends nothing");
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CHECK(!sent_to(cases[i].packet, PORT_VIF(0)));
    }
    unload();
}

/* --- another's connection ---------------------------------------------------------- */

#define OWNER "02:00:00:00:00:04"
#define ATTACKER "02:00:00:00:00:01"
#define SERVER "02:00:00:00:00:02"
#define SHUT "02:00:00:00:00:05"

/* A packet of the connection from 'from' port 4000 to 'to' port 80, or a reply. */
static uint32_t
sent(unsigned in_port, const char *src_mac, const char *dst_mac, const char *from, const char *to,
     bool reply)
{
    char *text = xasprintf("tcp,dl_src=%s,dl_dst=%s,nw_src=%s,nw_dst=%s,tp_src=%d,tp_dst=%d%s",
                           src_mac, dst_mac, from, to, reply ? 80 : 4000, reply ? 4000 : 80,
                           in_port == PORT_UPLINK ? ",dl_vlan=100" : "");
    uint32_t ports = sent_to(text, in_port);

    free(text);
    return ports;
}

static uint32_t
from_vif(unsigned vif, const char *src_mac, const char *dst_mac)
{
    return sent(PORT_VIF(vif), src_mac, dst_mac, "10.0.0.4", "10.0.0.2", false);
}

static uint32_t
reply_of_vif(unsigned vif, const char *src_mac, const char *dst_mac)
{
    return sent(PORT_VIF(vif), src_mac, dst_mac, "10.0.0.2", "10.0.0.4", true);
}

/* Vif 3 owns connections to vif 1; vif 0, unlocked, may send and receive nothing
 * by policy, and vif 4 receive nothing. */
static void
build_borrowed(bool denied)
{
    build_pool(MODEL_UNLOCKED);
    for (unsigned i = 3; i <= 4; i++) {
        pool.vifs[i] = pool.vifs[1];
        pool.vifs[i].mac = (struct eth_addr)ETH_ADDR_C(02, 00, 00, 00, 00, 00);
        pool.vifs[i].mac.ea[5] = i + 1;
        pool.vifs[i].v4.c[0] = make_cidr(address4(i + 1), 32);
        pool.vifs[i].v6.c[0] = make_cidr(address6(i + 1), 128);
    }
    for (unsigned i = 0; denied && i < 3; i++) {
        pool.policies[i] =
            (struct p_policy){.there = true, .scope = MODEL_SCOPE_VIF, .object = i < 2 ? 0 : 4};
        pool.rules[i] = (struct p_rule){.there = true,
                                        .policy = i,
                                        .in = i > 0,
                                        .order = 1,
                                        .protocol = -1,
                                        .remote_group = NONE,
                                        .icmp_type = -1,
                                        .icmp_code = -1,
                                        .sample = 1};
    }
}

static void
test_borrowed(void)
{
    build_borrowed(true);
    load();
    CASE("spoof: borrowed: a connection's own packets pass");
    CHECK(from_vif(3, OWNER, SERVER) == 1u << PORT_VIF(1));
    CHECK(from_vif(3, OWNER, SERVER) == 1u << PORT_VIF(1));
    CHECK(reply_of_vif(1, SERVER, OWNER) == 1u << PORT_VIF(3));
    CASE("spoof: borrowed: another vif's packets inside it do not");
    CHECK(!from_vif(0, ATTACKER, SERVER));
    CHECK(!reply_of_vif(0, ATTACKER, OWNER));
    CASE("spoof: borrowed: nor do its owner's to another vif");
    CHECK(!from_vif(3, OWNER, SHUT));
    CHECK(!from_vif(3, OWNER, ATTACKER));
    CASE("spoof: borrowed: it goes on all the same, by one look at the state");
    CHECK(from_vif(3, OWNER, SERVER) == 1u << PORT_VIF(1));
    CHECK(eval.n_conns == 1 && eval.n_lookups < 12);
    CHECK(reply_of_vif(1, SERVER, OWNER) == 1u << PORT_VIF(3));

    CASE("spoof: borrowed: with one who is elsewhere, in both directions");
    for (unsigned i = 0; i < 2; i++) {
        CHECK(sent(PORT_UPLINK, "02:00:00:00:00:99", SERVER, "10.0.0.9", "10.0.0.2", false) ==
              1u << PORT_VIF(1));
        CHECK(sent(PORT_VIF(1), SERVER, "02:00:00:00:00:99", "10.0.0.2", "10.0.0.9", true) ==
              1u << PORT_UPLINK);
        CHECK(!sent(PORT_VIF(0), ATTACKER, SERVER, "10.0.0.9", "10.0.0.2", false));
        CHECK(sent(PORT_VIF(3), OWNER, "02:00:00:00:00:99", "10.0.0.4", "10.0.0.9", false) ==
              1u << PORT_UPLINK);
        CHECK(sent(PORT_UPLINK, "02:00:00:00:00:99", OWNER, "10.0.0.9", "10.0.0.4", true) ==
              1u << PORT_VIF(3));
        CHECK(!sent(PORT_VIF(0), ATTACKER, "02:00:00:00:00:99", "10.0.0.4", "10.0.0.9", false));
        CHECK(!sent(PORT_UPLINK, "02:00:00:00:00:99", SHUT, "10.0.0.9", "10.0.0.2", false));
    }
    unload();

    build_borrowed(false);
    load();
    CASE("spoof: borrowed: an address that changes hands takes it along if policy allows");
    CHECK(from_vif(3, OWNER, SERVER) == 1u << PORT_VIF(1));
    CHECK(from_vif(0, ATTACKER, SERVER) == 1u << PORT_VIF(1));
    CHECK(from_vif(0, ATTACKER, SERVER) == 1u << PORT_VIF(1) && eval.n_lookups < 12);
    CHECK(reply_of_vif(1, SERVER, ATTACKER) == 1u << PORT_VIF(0) && eval.n_lookups < 12);
    CHECK(from_vif(3, OWNER, SERVER) == 1u << PORT_VIF(1) && eval.n_conns == 1);
    unload();
}

int
main(void)
{
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_OFF);
    eval_init(&eval);
    test_mode(MODEL_LOCKED, "locked");
    test_mode(MODEL_UNLOCKED, "unlocked");
    test_mode(MODEL_DISABLED, "disabled");
    test_outside();
    test_allowed_services();
    test_borrowed();
    eval_destroy(&eval);
    return check_done();
}
