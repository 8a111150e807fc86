/* The pool's document: what is refused, and how it says so; what is accepted and
 * comes out again.  Without a database: a document is loaded into an empty
 * model. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "doc.h"
#include "model.h"
#include "plan.h"
#include "util.h"

#define BASE                                                                                       \
    "\"tenants\":[{\"name\":\"red\"},{\"name\":\"blue\"}],"                                        \
    "\"hosts\":[{\"name\":\"h1\",\"ovsdb\":\"unix:/run/h1.sock\"}],"                               \
    "\"networks\":[{\"name\":\"web\",\"type\":\"vlan\",\"tag\":10,\"tenant\":\"red\"}],"           \
    "\"vms\":[{\"name\":\"a\",\"tenant\":\"red\"}],"                                               \
    "\"vifs\":[{\"name\":\"a0\",\"vm\":\"a\",\"network\":\"web\",\"mac\":\"02:00:00:00:00:01\"}]"

/* A document that must be refused, with one error that names object and field
 * and has 'says' in its message. */
struct bad {
    const char *name, *text, *object, *field, *says;
};

#define NET(FIELDS) "{\"version\":1,\"networks\":[{\"name\":\"n\"," FIELDS "}]}"
#define VLAN "\"type\":\"vlan\",\"tag\":5"
#define HOST(FIELDS) "{\"version\":1,\"hosts\":[{\"name\":\"h\"," FIELDS "}]}"
#define VIF(FIELDS)                                                                                \
    "{\"version\":1,\"networks\":[{\"name\":\"n\"," VLAN "}],\"vms\":[{\"name\":\"m\"}],"          \
    "\"vifs\":[{\"name\":\"v\",\"vm\":\"m\",\"network\":\"n\"," FIELDS "}]}"
#define MAC "\"mac\":\"02:00:00:00:00:01\""
#define GROUP(FIELDS) "{\"version\":1,\"groups\":[{\"name\":\"g\"," FIELDS "}]}"
#define POLICY(FIELDS) "{\"version\":1,\"policies\":[{\"name\":\"p\"," FIELDS "}]}"
#define RULE(FIELDS)                                                                               \
    POLICY("\"scope\":\"global\",\"rules\":[{\"name\":\"r\",\"order\":1,\"direction\":\"in\","     \
           "\"action\":\"allow\"," FIELDS "}]")
#define MIRROR(FIELDS)                                                                             \
    "{\"version\":1,\"networks\":[{\"name\":\"n\"," VLAN "}],\"vms\":[{\"name\":\"m\"}],"          \
    "\"vifs\":[{\"name\":\"v\",\"vm\":\"m\",\"network\":\"n\"," MAC "}],"                          \
    "\"mirrors\":[{\"name\":\"m\"," FIELDS "}]}"
#define EXPORTER(FIELDS) "{\"version\":1,\"exporters\":[{\"name\":\"e\"," FIELDS "}]}"
#define BOND(FIELDS)                                                                               \
    "{\"version\":1,\"hosts\":[{\"name\":\"h\",\"ovsdb\":\"unix:/x\"}],"                           \
    "\"bonds\":[{\"name\":\"b\"," FIELDS "}]}"
#define PIF(FIELDS)                                                                                \
    "{\"version\":1,\"hosts\":[{\"name\":\"h\",\"ovsdb\":\"unix:/x\"}],"                           \
    "\"pifs\":[{\"name\":\"p\"," FIELDS "}]}"
#define TWO "\"host\":\"h\",\"interfaces\":[\"eth0\",\"eth1\"]"
#define TEN "[[[[[[[[[["

static const struct bad bad[] = {
    /* the text */
    {"empty", "", "", "", "line"},
    {"no JSON", "{\"version\":1,", "", "", "line 1"},
    {"an array", "[]", "", "", "object"},
    {"bad UTF-8", "{\"version\":1,\"pool\":{\"name\":\"\xff\"}}", "", "", "decode"},
    {"a NUL", "{\"version\":1,\"tenants\":[{\"name\":\"a\\u0000b\"}]}", "", "", "\\u0000"},
    {"a member twice", "{\"version\":1,\"version\":1}", "", "", "duplicate"},
    {"deep", "{\"version\":1,\"x\":" TEN TEN TEN "1", "", "", "nested"},
    {"no version", "{}", "", "version", "must be 1"},
    {"another version", "{\"version\":2}", "", "version", "must be 1"},
    {"a version of text", "{\"version\":\"1\"}", "", "version", "must be 1"},
    {"an unknown member", "{\"version\":1,\"nets\":[]}", "", "nets", "no member"},
    {"rules on their own", "{\"version\":1,\"rules\":[]}", "", "rules", "in their policies"},
    {"a kind that is no array", "{\"version\":1,\"networks\":{}}", "", "networks", "array"},
    {"an object that is none", "{\"version\":1,\"networks\":[1]}", "network ", "", "object"},
    /* names */
    {"no name", "{\"version\":1,\"tenants\":[{}]}", "tenant ", "name", "1 to 128"},
    {"a name that is a number", "{\"version\":1,\"tenants\":[{\"name\":1}]}", "tenant ", "name",
     "string"},
    {"a name with a slash", "{\"version\":1,\"tenants\":[{\"name\":\"a/b\"}]}", "tenant a/b",
     "name", "'/'"},
    {"a name with a line end", "{\"version\":1,\"tenants\":[{\"name\":\"a\\nb\"}]}", "tenant a\nb",
     "name", "control"},
    {"a name like a uuid",
     "{\"version\":1,\"tenants\":[{\"name\":\"6f1ad0f4-2f2d-4e4b-9f57-5a2d3f9b0c11\"}]}",
     "tenant 6f1ad0f4-2f2d-4e4b-9f57-5a2d3f9b0c11", "name", "there is no tenant"},
    {"a name twice", "{\"version\":1,\"tenants\":[{\"name\":\"a\"},{\"name\":\"a\"}]}", "tenant a",
     "name", "twice"},
    {"an unknown field", NET(VLAN ",\"colour\":1"), "network n", "colour", "no field of a network"},
    /* hosts */
    {"a host's name", "{\"version\":1,\"hosts\":[{\"name\":\"a b\",\"ovsdb\":\"unix:/x\"}]}",
     "host a b", "name", "host name"},
    {"no target", "{\"version\":1,\"hosts\":[{\"name\":\"h\"}]}", "host h", "ovsdb", "missing"},
    {"a target without port", HOST("\"ovsdb\":\"ssl:10.0.0.1\""), "host h", "ovsdb", "ssl:IP:PORT"},
    {"a target by name", HOST("\"ovsdb\":\"ssl:host:6640\""), "host h", "ovsdb", "ssl:IP:PORT"},
    {"TCP in the clear", HOST("\"ovsdb\":\"tcp:10.0.0.1:6640\""), "host h", "ovsdb", "loopback"},
    {"a port range in a target", HOST("\"ovsdb\":\"ssl:10.0.0.1:1-2\""), "host h", "ovsdb",
     "must be"},
    {"a bridge's name", HOST("\"ovsdb\":\"unix:/x\",\"bridge\":\"a/b\""), "host h", "bridge",
     "bridge's name"},
    {"a long bridge name", HOST("\"ovsdb\":\"unix:/x\",\"bridge\":\"0123456789abcdef\""), "host h",
     "bridge", "bridge's name"},
    {"a tunnel address with a length", HOST("\"ovsdb\":\"unix:/x\",\"tunnel_ip\":\"10.0.0.1/24\""),
     "host h", "tunnel_ip", "unicast"},
    {"a multicast tunnel address", HOST("\"ovsdb\":\"unix:/x\",\"tunnel_ip\":\"ff02::1\""),
     "host h", "tunnel_ip", "unicast"},
    {"a database twice",
     "{\"version\":1,\"hosts\":[{\"name\":\"h\",\"ovsdb\":\"ssl:10.0.0.1:6640\"},"
     "{\"name\":\"i\",\"ovsdb\":\"ssl:10.0.0.1:6640\"}]}",
     "host i", "ovsdb", "host \"h\" has the same one"},
    {"a database twice, written otherwise",
     "{\"version\":1,\"hosts\":[{\"name\":\"h\",\"ovsdb\":\"ssl:[fd00::1]:6640\"},"
     "{\"name\":\"i\",\"ovsdb\":\"ssl:[fd00:0::1]:6640\",\"openflow\":\"ssl:[fd00::1]:1\"}]}",
     "host i", "ovsdb", "host \"h\" has the same one"},
    {"two databases of an address, and one OpenFlow",
     "{\"version\":1,\"hosts\":[{\"name\":\"h\",\"ovsdb\":\"ssl:10.0.0.1:6640\"},"
     "{\"name\":\"i\",\"ovsdb\":\"ssl:10.0.0.1:6641\"}]}",
     "host i", "openflow", "host \"h\" has the same one, ssl:10.0.0.1:6653"},
    {"an OpenFlow that is another's usual one",
     "{\"version\":1,\"hosts\":[{\"name\":\"h\",\"ovsdb\":\"ssl:10.0.0.1:6640\"},{\"name\":\"i\","
     "\"ovsdb\":\"ssl:10.0.0.2:6640\",\"openflow\":\"ssl:10.0.0.1:6653\"}]}",
     "host i", "openflow", "host \"h\" has the same one, ssl:10.0.0.1:6653"},
    {"two databases of an address, each with its OpenFlow",
     "{\"version\":1,\"hosts\":[{\"name\":\"h\",\"ovsdb\":\"ssl:10.0.0.1:6640\"},{\"name\":\"i\","
     "\"ovsdb\":\"ssl:10.0.0.1:6641\",\"openflow\":\"ssl:10.0.0.1:6654\"}]}",
     NULL, NULL, NULL},
    {"a tunnel address twice",
     "{\"version\":1,\"hosts\":[{\"name\":\"h\",\"ovsdb\":\"unix:/x\",\"tunnel_ip\":\"fd00::1\"},"
     "{\"name\":\"i\",\"ovsdb\":\"unix:/y\",\"tunnel_ip\":\"fd00:0::0:1\"}]}",
     "host i", "tunnel_ip", "host \"h\" has the same one"},
    {"enabled that is no boolean", HOST("\"ovsdb\":\"unix:/x\",\"enabled\":1"), "host h", "enabled",
     "true or false"},
    /* networks */
    {"no type", NET("\"tag\":5"), "network n", "type", "vlan, overlay"},
    {"an unknown type", NET("\"type\":\"flat\""), "network n", "type", "vlan, overlay"},
    {"no tag", NET("\"type\":\"vlan\""), "network n", "tag", "missing"},
    {"tag 0", NET("\"type\":\"vlan\",\"tag\":0"), "network n", "tag", "1..4094"},
    {"tag 4095", NET("\"type\":\"vlan\",\"tag\":4095"), "network n", "tag", "1..4094"},
    {"a tag of text", NET("\"type\":\"vlan\",\"tag\":\"5\""), "network n", "tag", "whole number"},
    {"a broken tag", NET("\"type\":\"vlan\",\"tag\":5.5"), "network n", "tag", "whole number"},
    {"a huge tag", NET("\"type\":\"vlan\",\"tag\":9223372036854775807"), "network n", "tag",
     "1..4094"},
    {"no vni", NET("\"type\":\"overlay\""), "network n", "vni", "missing"},
    {"vni 2^24", NET("\"type\":\"overlay\",\"vni\":16777216"), "network n", "vni", "1..16777215"},
    {"a tag in an overlay", NET("\"type\":\"overlay\",\"vni\":1,\"tag\":5"), "network n", "tag",
     "does not go"},
    {"an MTU", NET(VLAN ",\"mtu\":100"), "network n", "mtu", "576..65000"},
    {"an unknown tenant", NET(VLAN ",\"tenant\":\"nobody\""), "network n", "tenant",
     "there is no tenant \"nobody\""},
    {"overlapping tags",
     "{\"version\":1,\"networks\":[{\"name\":\"n\"," VLAN "},{\"name\":\"o\"," VLAN "}]}",
     "network o", "tag", "network \"n\" has the same one"},
    {"overlapping VNIs",
     "{\"version\":1,\"networks\":[{\"name\":\"n\",\"type\":\"overlay\",\"vni\":7},"
     "{\"name\":\"o\",\"type\":\"overlay\",\"vni\":7,\"encapsulation\":\"geneve\"}]}",
     "network o", "vni", "network \"n\" has the same one"},
    /* vifs */
    {"no MAC", VIF("\"isolated\":true"), "vif v", "mac", "missing"},
    {"a bad MAC", VIF("\"mac\":\"02:00:00:00:00:zz\""), "vif v", "mac", "unicast MAC"},
    {"a short MAC", VIF("\"mac\":\"02:00:00:00:00\""), "vif v", "mac", "unicast MAC"},
    {"a multicast MAC", VIF("\"mac\":\"01:00:5e:00:00:01\""), "vif v", "mac", "unicast MAC"},
    {"the MAC of nobody", VIF("\"mac\":\"00:00:00:00:00:00\""), "vif v", "mac", "unicast MAC"},
    {"a MAC twice in a network",
     "{\"version\":1,\"networks\":[{\"name\":\"n\"," VLAN "}],\"vms\":[{\"name\":\"m\"}],"
     "\"vifs\":[{\"name\":\"v\",\"vm\":\"m\",\"network\":\"n\"," MAC "},"
     "{\"name\":\"w\",\"vm\":\"m\",\"network\":\"n\",\"mac\":\"02:00:00:00:00:01\"}]}",
     "vif w", "mac", "vif \"v\" has the same one"},
    {"an unknown network",
     "{\"version\":1,\"vms\":[{\"name\":\"m\"}],"
     "\"vifs\":[{\"name\":\"v\",\"vm\":\"m\",\"network\":\"x\"," MAC "}]}",
     "vif v", "network", "there is no network \"x\""},
    {"a VIF of no VM", "{\"version\":1,\"vifs\":[{\"name\":\"v\"," MAC "}]}", "vif v", "vm",
     "missing"},
    {"an unknown host", VIF(MAC ",\"host\":\"h9\""), "vif v", "host", "there is no host \"h9\""},
    {"IPv6 among IPv4", VIF(MAC ",\"ipv4_allowed\":[\"fd00::1\"]"), "vif v", "ipv4_allowed",
     "(IPv4)"},
    {"a bad address", VIF(MAC ",\"ipv4_allowed\":[\"10.0.0.256\"]"), "vif v", "ipv4_allowed",
     "(IPv4)"},
    {"addresses that are no array", VIF(MAC ",\"addresses\":\"10.0.0.1\""), "vif v", "addresses",
     "array of strings"},
    {"a locking mode", VIF(MAC ",\"locking_mode\":\"open\""), "vif v", "locking_mode", "one of"},
    {"a negative rate", VIF(MAC ",\"rate_in_kbps\":-1"), "vif v", "rate_in_kbps", "0..4000000000"},
    {"a rate beyond what lifts",
     "{\"version\":1,\"pool\":{\"name\":\"x\",\"rate_out_kbps\":4000000001}}", "pool x",
     "rate_out_kbps", "0..4000000000"},
    {"a burst of text", NET(VLAN ",\"burst_kb\":\"1\""), "network n", "burst_kb", "whole number"},
    /* mirrors */
    {"a mirror of nothing", MIRROR("\"output_vlan\":7"), "mirror m", "vifs", "nothing to mirror"},
    {"a mirror to nowhere", MIRROR("\"vifs\":[\"v\"]"), "mirror m", "output_vif", "is missing"},
    {"a mirror to two places",
     MIRROR("\"vifs\":[\"v\"],\"output_vlan\":7,\"output_ip\":\"10.0.0.1\""), "mirror m",
     "output_ip", "does not go with output_vlan"},
    {"a mirror of an unknown vif", MIRROR("\"vifs\":[\"x\"],\"output_vlan\":7"), "mirror m", "vifs",
     "there is no vif \"x\""},
    {"a mirror to itself", MIRROR("\"vifs\":[\"v\"],\"output_vif\":\"v\""), "mirror m",
     "output_vif", "is one of those that are mirrored"},
    {"a mirror to its network", MIRROR("\"networks\":[\"n\"],\"output_vif\":\"v\""), "mirror m",
     "output_vif", "is in network \"n\""},
    {"a mirror to a network's tag", MIRROR("\"vifs\":[\"v\"],\"output_vlan\":5"), "mirror m",
     "output_vlan", "network \"n\" has the same one"},
    {"a mirror to a multicast address", MIRROR("\"vifs\":[\"v\"],\"output_ip\":\"224.0.0.1\""),
     "mirror m", "output_ip", "unicast"},
    {"a session without a tunnel", MIRROR("\"vifs\":[\"v\"],\"output_vlan\":7,\"session\":1"),
     "mirror m", "session", "output_ip only"},
    {"an ERSPAN session of 11 bits",
     MIRROR("\"vifs\":[\"v\"],\"output_ip\":\"10.0.0.1\",\"session\":1024"), "mirror m", "session",
     "0..1023"},
    {"a mirror's direction", MIRROR("\"vifs\":[\"v\"],\"output_vlan\":7,\"direction\":\"up\""),
     "mirror m", "direction", "both, in, out"},
    {"less than a header", MIRROR("\"vifs\":[\"v\"],\"output_vlan\":7,\"snaplen\":13"), "mirror m",
     "snaplen", "14..65535"},
    /* exporters */
    {"an exporter's protocol", EXPORTER("\"targets\":[\"10.0.0.1:1\"]"), "exporter e", "protocol",
     "netflow, sflow"},
    {"no collector", EXPORTER("\"protocol\":\"ipfix\""), "exporter e", "targets", "is empty"},
    {"a collector without port", EXPORTER("\"protocol\":\"ipfix\",\"targets\":[\"10.0.0.1\"]"),
     "exporter e", "targets", "IP:PORT"},
    {"sampling of NetFlow",
     EXPORTER("\"protocol\":\"netflow\",\"targets\":[\"10.0.0.1:1\"],\"sampling\":9"), "exporter e",
     "sampling", "sflow or ipfix only"},
    {"options of sFlow",
     EXPORTER("\"protocol\":\"sflow\",\"targets\":[\"10.0.0.1:1\"],\"options\":[\"a=b\"]"),
     "exporter e", "options", "ipfix only"},
    {"NetFlow over TCP", EXPORTER("\"protocol\":\"netflow\",\"targets\":[\"tcp:10.0.0.1:1\"]"),
     "exporter e", "targets", "ipfix only"},
    {"an option without a value",
     EXPORTER("\"protocol\":\"ipfix\",\"targets\":[\"10.0.0.1:1\"],\"options\":[\"a\"]"),
     "exporter e", "options", "KEY=VALUE"},
    {"a timeout of IPFIX",
     EXPORTER("\"protocol\":\"ipfix\",\"targets\":[\"10.0.0.1:1\"],\"active_timeout\":4201"),
     "exporter e", "active_timeout", "0..4200"},
    {"an exporter of an unknown host",
     EXPORTER("\"protocol\":\"ipfix\",\"targets\":[\"10.0.0.1:1\"],\"host\":\"h\""), "exporter e",
     "host", "there is no host \"h\""},
    {"two exporters of one protocol",
     "{\"version\":1,\"exporters\":["
     "{\"name\":\"e\",\"protocol\":\"sflow\",\"targets\":[\"10.0.0.1:1\"]},"
     "{\"name\":\"f\",\"protocol\":\"sflow\",\"targets\":[\"10.0.0.1:1\"]}]}",
     "exporter f", "protocol", "exporter \"e\" has the same one"},
    {"networks of NetFlow",
     "{\"version\":1,\"networks\":[{\"name\":\"n\",\"type\":\"vlan\",\"tag\":5}],\"exporters\":["
     "{\"name\":\"e\",\"protocol\":\"netflow\",\"targets\":[\"10.0.0.1:1\"],\"networks\":[\"n\"]}]"
     "}",
     "exporter e", "networks", "ipfix only"},
    {"an exporter of an unknown network",
     EXPORTER("\"protocol\":\"ipfix\",\"targets\":[\"10.0.0.1:1\"],\"networks\":[\"n\"]"),
     "exporter e", "networks", "there is no network \"n\""},
    /* bonds */
    {"a bond of no host", BOND("\"interfaces\":[\"eth0\",\"eth1\"]"), "bond b", "host", "missing"},
    {"a bond of one", BOND("\"host\":\"h\",\"interfaces\":[\"eth0\"]"), "bond b", "interfaces",
     "two or more"},
    {"a device's name", BOND("\"host\":\"h\",\"interfaces\":[\"eth0\",\"a/b\"]"), "bond b",
     "interfaces", "device's name"},
    {"a bond's mode", BOND(TWO ",\"mode\":\"fast\""), "bond b", "mode", "one of active-backup"},
    {"balance-tcp without LACP", BOND(TWO ",\"mode\":\"balance-tcp\""), "bond b", "lacp",
     "needs it"},
    {"fast LACP that is off", BOND(TWO ",\"lacp_fast\":true"), "bond b", "lacp_fast", "only"},
    {"a primary from elsewhere", BOND(TWO ",\"primary\":\"eth2\""), "bond b", "primary",
     "not one of the interfaces"},
    {"a primary of balance-slb", BOND(TWO ",\"primary\":\"eth0\",\"mode\":\"balance-slb\""),
     "bond b", "primary", "active-backup only"},
    {"a bond in itself", BOND(TWO ",\"port\":\"eth0\""), "bond b", "port", "one of the interfaces"},
    {"a delay of an hour", BOND(TWO ",\"updelay\":3600000"), "bond b", "updelay", "0..600000"},
    {"a device in two bonds",
     "{\"version\":1,\"hosts\":[{\"name\":\"h\",\"ovsdb\":\"unix:/x\"}],\"bonds\":["
     "{\"name\":\"b\"," TWO "},{\"name\":\"c\",\"host\":\"h\",\"port\":\"bond1\",\"interfaces\":"
     "[\"eth1\",\"eth2\"]}]}",
     "bond c", "interfaces", "bond \"b\" has the same one"},
    /* physical interfaces */
    {"a physical interface of no host", PIF("\"device\":\"eth0\""), "pif p", "host", "missing"},
    {"one without a device", PIF("\"host\":\"h\""), "pif p", "device", "missing"},
    {"one with a path", PIF("\"host\":\"h\",\"device\":\"a/b\""), "pif p", "device",
     "device's name"},
    {"one stated twice",
     PIF("\"host\":\"h\",\"device\":\"eth0\"},{\"name\":\"q\",\"host\":\"h\",\"device\":\"eth0\""),
     "pif q", "device", "pif \"p\" has the same one"},
    {"another tenant's network", "{\"version\":1," BASE ",\"groups\":[]}", NULL, NULL, NULL},
    {"a VM in another tenant's network",
     "{\"version\":1,\"tenants\":[{\"name\":\"red\"},{\"name\":\"blue\"}],"
     "\"networks\":[{\"name\":\"n\",\"tenant\":\"red\"," VLAN "}],"
     "\"vms\":[{\"name\":\"m\",\"tenant\":\"blue\"}],"
     "\"vifs\":[{\"name\":\"v\",\"vm\":\"m\",\"network\":\"n\"," MAC "}]}",
     "vif v", "network", "tenant \"red\"'s"},
    /* groups */
    {"a prefix with bits behind it", GROUP("\"addresses\":[\"10.0.0.1/24\"]"), "group g",
     "addresses", "behind the length"},
    {"a prefix too long", GROUP("\"addresses\":[\"10.0.0.0/33\"]"), "group g", "addresses",
     "must be"},
    {"a prefix with a sign", GROUP("\"addresses\":[\"10.0.0.0/+8\"]"), "group g", "addresses",
     "must be"},
    {"an empty prefix", GROUP("\"addresses\":[\"\"]"), "group g", "addresses", "empty member"},
    {"an IPv4-mapped prefix", GROUP("\"addresses\":[\"::ffff:10.0.0.1\"]"), "group g", "addresses",
     "must be"},
    {"a group in itself", GROUP("\"groups\":[\"g\"]"), "group g", "groups", "in itself"},
    {"an unknown member", GROUP("\"vifs\":[\"v9\"]"), "group g", "vifs", "there is no vif \"v9\""},
    /* policies */
    {"no scope", POLICY("\"author\":\"x\""), "policy p", "scope", "missing"},
    {"an unknown scope", POLICY("\"scope\":\"world\""), "policy p", "scope", "one of global"},
    {"a scope without object", POLICY("\"scope\":\"vm\""), "policy p", "vm", "missing"},
    {"an object without scope", POLICY("\"scope\":\"pool\",\"vm\":\"x\""), "policy p", "vm",
     "does not go with scope pool"},
    {"rules that are no array", POLICY("\"scope\":\"pool\",\"rules\":{}"), "policy p", "rules",
     "array"},
    {"no order",
     POLICY("\"scope\":\"pool\",\"rules\":[{\"name\":\"r\",\"direction\":\"in\",\"action\":"
            "\"deny\"}]"),
     "rule p/r", "order", "missing"},
    {"order 2500",
     POLICY("\"scope\":\"pool\",\"rules\":[{\"name\":\"r\",\"order\":2500,\"direction\":\"in\","
            "\"action\":\"deny\"}]"),
     "rule p/r", "order", "0..2499"},
    {"a protocol", RULE("\"protocol\":\"tpc\""), "rule p/r", "protocol", "must be any, tcp"},
    {"protocol 256", RULE("\"protocol\":\"256\""), "rule p/r", "protocol", "must be any, tcp"},
    {"ports of no protocol", RULE("\"ports\":[\"80\"]"), "rule p/r", "ports", "tcp, udp or sctp"},
    {"port 0", RULE("\"protocol\":\"tcp\",\"ports\":[\"0\"]"), "rule p/r", "ports", "1..65535"},
    {"a falling range", RULE("\"protocol\":\"tcp\",\"ports\":[\"20-10\"]"), "rule p/r", "ports",
     "ascending"},
    {"an ICMP type of TCP", RULE("\"protocol\":\"tcp\",\"icmp_type\":8"), "rule p/r", "icmp_type",
     "icmp or icmpv6"},
    {"an ICMP code alone", RULE("\"protocol\":\"icmp\",\"icmp_code\":0"), "rule p/r", "icmp_code",
     "icmp_type"},
    {"ICMP type 256", RULE("\"protocol\":\"icmp\",\"icmp_type\":256"), "rule p/r", "icmp_type",
     "0..255"},
    {"ICMP over IPv6", RULE("\"protocol\":\"icmp\",\"ethertype\":\"ipv6\""), "rule p/r", "protocol",
     "ethertype"},
    {"an address of another family",
     RULE("\"ethertype\":\"ipv6\",\"remote_cidrs\":[\"10.0.0.0/8\"]"), "rule p/r", "remote_cidrs",
     "ethertype ipv6"},
    {"an unknown group", RULE("\"remote_group\":\"x\""), "rule p/r", "remote_group",
     "there is no group \"x\""},
    {"a rule twice",
     POLICY("\"scope\":\"pool\",\"rules\":["
            "{\"name\":\"r\",\"order\":1,\"direction\":\"in\",\"action\":\"deny\"},"
            "{\"name\":\"r\",\"order\":2,\"direction\":\"in\",\"action\":\"deny\"}]"),
     "rule p/r", "name", "twice"},
    {"a rule that says it is elsewhere", RULE("\"policy\":\"q\""), "rule p/r", "policy",
     "stands in"},
    {"a role", "{\"version\":1,\"users\":[{\"name\":\"u\",\"role\":\"root\"}]}", "user u", "role",
     "one of viewer"},
};

/* False if there are errors. */
static bool
load(const char *text, struct model *m, struct doc_errors *errors)
{
    struct doc *doc = doc_parse(text, strlen(text), errors);
    bool ok = doc && model_load_doc(m, doc, errors);

    doc_free(doc);
    return ok;
}

static bool
check_bad(const struct bad *b)
{
    struct doc_errors errors = {NULL, 0, false};
    struct model *m = model_create();
    bool loaded = load(b->text, m, &errors), as_said = false;

    for (size_t i = 0; b->says && i < errors.n && !as_said; i++) {
        const struct doc_error *e = &errors.e[i];

        as_said = !strcmp(e->object, b->object) && !strcmp(e->field, b->field) &&
                  strstr(e->message, b->says);
    }
    if (b->says && !as_said) {
        printf("# %s: %s\n", b->name, errors.n ? "" : "no error");
        for (size_t i = 0; i < errors.n; i++) {
            printf("#   [%s] [%s] %s\n", errors.e[i].object, errors.e[i].field,
                   errors.e[i].message);
        }
    }
    doc_errors_clear(&errors);
    model_destroy(m);
    return b->says ? as_said && !loaded : loaded;
}

static void
test_bad(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        CASE(bad[i].name);
        CHECK(check_bad(&bad[i]));
    }
}

static void
test_many_errors(void)
{
    struct doc_errors errors = {NULL, 0, false};
    struct model *m = model_create();
    char *text = xstrdup("{\"version\":1,\"tenants\":[{}"), *longer;

    CASE("every error is named, up to a bound");
    for (int i = 0; i < 200; i++) {
        longer = xasprintf("%s,{\"name\":%d}", text, i);
        free(text);
        text = longer;
    }
    longer = xasprintf("%s]}", text);
    CHECK(!load(longer, m, &errors));
    CHECK(errors.n == DOC_MAX_ERRORS && errors.more);
    free(text);
    free(longer);
    doc_errors_clear(&errors);
    model_destroy(m);
}

static const char sound[] =
    "{\"version\":1,\"pool\":{\"name\":\"lab\",\"default_action\":\"allow\"}," BASE ","
    "\"groups\":[{\"name\":\"g\",\"vifs\":[\"a0\"],\"addresses\":[\"10.0.0.0/8\",\"10.0.0.0/8\"]}],"
    "\"policies\":[{\"name\":\"p\",\"scope\":\"vif\",\"vif\":\"a0\",\"rules\":["
    "{\"order\":5,\"direction\":\"in\",\"action\":\"allow\",\"protocol\":\"tcp\",\"ports\":[\"80\"]"
    "},"
    "{\"order\":5,\"direction\":\"in\",\"action\":\"deny\",\"icmp_type\":null}]}]}";

static void
test_sound(void)
{
    struct doc_errors errors = {NULL, 0, false};
    struct doc *doc = doc_parse(sound, strlen(sound), &errors);
    struct model *m = model_create();
    struct model_vif *vif;

    CASE("a sound document becomes a model");
    CHECK(doc && !errors.n);
    CHECK(doc && model_load_doc(m, doc, &errors));
    for (size_t i = 0; i < errors.n; i++) {
        printf("# [%s] [%s] %s\n", errors.e[i].object, errors.e[i].field, errors.e[i].message);
    }
    vif = model_vif(model_by_name(m, REC_VIF, "a0"));
    CHECK(vif && vif->network->tag == 10 && !strcmp(vif->vm->obj.name, "a"));
    CHECK(m->default_action == MODEL_ALLOW && !strcmp(m->pool_name, "lab"));

    CASE("rules without a name get one from their place");
    CHECK(doc && doc->n > 2 && !strcmp(doc->items[doc->n - 2].rec.name, "default-5-in") &&
          !strcmp(doc->items[doc->n - 1].rec.name, "default-5-in-2"));
    CASE("members of lists are sorted and single");
    for (size_t i = 0; doc && i < doc->n; i++) {
        CHECK(doc->items[i].rec.kind != REC_GROUP ||
              doc->items[i].rec.v[REC_GROUP_ADDRESSES].n == 1);
    }
    doc_free(doc);
    doc_errors_clear(&errors);
    model_destroy(m);
}

static void
test_parts(void)
{
    struct doc_errors errors = {NULL, 0, false};
    struct doc *doc = doc_create();

    CASE("a rule is named POLICY/RULE");
    CHECK(doc_add_removal(doc, REC_RULE, "p/r", &errors));
    CHECK(doc->n == 1 && doc->items[0].remove && !strcmp(doc->items[0].rec.name, "r") &&
          !strcmp(doc->items[0].rec.v[REC_RULE_POLICY].s, "p"));
    CASE("the pool cannot be removed");
    CHECK(!doc_add_removal(doc, REC_POOL, "pool", &errors) && errors.n == 1);
    doc_errors_clear(&errors);
    doc_free(doc);
}

/* The next block of docs/policy.md that is a whole document, without the
 * margin; NULL at the end. */
static char *
next_example(FILE *page)
{
    char line[512], text[16384] = "";

    while (fgets(line, sizeof line, page)) {
        bool code = !strncmp(line, "    ", 4);

        if (code && (*text || line[4] == '{')) {
            ovs_assert(strlen(text) + strlen(line) < sizeof text);
            strcat(text, line + 4);
        } else if (*text && strcmp(line, "\n")) {
            if (!strstr(text, "…")) {
                return xstrdup(text);
            }
            text[0] = '\0';
        }
    }
    return NULL;
}

static void
test_examples(void)
{
    FILE *page = fopen("docs/policy.md", "r");
    unsigned n = 0;
    char *text;

    CASE("the examples of docs/policy.md are sound");
    CHECK(page);
    while (page && (text = next_example(page))) {
        struct doc_errors errors = {NULL, 0, false};
        struct model *m = model_create();

        CHECK(load(text, m, &errors));
        for (size_t i = 0; i < errors.n; i++) {
            printf("# [%s] [%s] %s\n", errors.e[i].object, errors.e[i].field, errors.e[i].message);
        }
        doc_errors_clear(&errors);
        model_destroy(m);
        free(text);
        n++;
    }
    CHECK(n == 2);
    if (page) {
        fclose(page);
    }
}

int
main(void)
{
    test_examples();
    test_bad();
    test_many_errors();
    test_sound();
    test_parts();
    return check_done();
}
