/* The filter language: what passes, what is refused and where the error points. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "flow_filter.h"

static struct flow_names *names;

static struct in6_addr
address(const char *s)
{
    struct in6_addr a = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

    if (inet_pton(AF_INET, s, &a.s6_addr[12]) != 1) {
        inet_pton(AF_INET6, s, &a);
    }
    return a;
}

static struct flow_row
row(void)
{
    struct flow_row r = {.r = {.packets = 10,
                               .bytes = 1500000,
                               .proto = 6,
                               .sport = 50000,
                               .dport = 443,
                               .eth_type = 0x800,
                               .vlan = 7,
                               .tcp_flags = 0x12,
                               .src_mac = {2, 0, 0, 0, 0, 1}},
                         .service = 443,
                         .dropped = 1};

    r.r.src = address("10.1.2.3");
    r.r.dst = address("10.2.0.9");
    r.src.vif = flow_names_id(names, NAME_VIF, "web1", "");
    r.dst.network = flow_names_id(names, NAME_NETWORK, "blue-lan", "");
    r.dst.groups = flow_names_id(names, NAME_GROUPS, "app,db,web", "");
    r.rule_in = flow_names_id(names, NAME_RULE, "base/no-ssh", "alice");
    r.rule_out = -77;
    r.host = flow_names_id(names, NAME_HOST, "h2", "");
    return r;
}

static bool
passes(const char *text)
{
    struct flow_filter_error error;
    struct flow_filter *f = flow_filter_parse(text, &error);
    struct flow_row r = row();
    bool ok;

    if (!f) {
        printf("# %s: %zu: %s\n", text, error.column, error.message);
        return false;
    }
    ok = !flow_filter_resolve(f, names) && flow_filter_match(f, &r);
    flow_filter_free(f);
    return ok;
}

static bool
passes_not(const char *text)
{
    char negated[FLOW_FILTER_LENGTH + 10];

    snprintf(negated, sizeof negated, "not (%s)", text);
    return !passes(text) && passes(negated);
}

/* Refused, at the column, with the words in the message. */
static bool
refused(const char *text, size_t column, const char *words)
{
    struct flow_filter_error error;
    struct flow_filter *f = flow_filter_parse(text, &error);
    bool ok = !f && error.column == column && strstr(error.message, words);

    if (!ok && !f) {
        printf("# %s: %zu: %s\n", text, error.column, error.message);
    }
    flow_filter_free(f);
    return ok;
}

static void
test_tests(void)
{
    CASE("addresses");
    CHECK(passes(""));
    CHECK(passes("src 10.1.0.0/16 and dst 10.2.0.9"));
    CHECK(passes("10.2.0.0/24") && passes("address 0.0.0.0/0"));
    CHECK(passes_not("dst 10.1.0.0/16") && passes_not("src 10.1.2.4"));
    CHECK(passes_not("2001:db8::/32") && passes("src ::/0"));
    CHECK(passes("ipv4") && passes_not("ipv6"));
    CASE("ports, protocols, numbers");
    CHECK(passes("dst port 443") && passes("port 443") && passes("port 440-450"));
    CHECK(passes_not("src port 443") && passes("service 443"));
    CHECK(passes("proto tcp") && passes("proto 6") && passes_not("proto udp"));
    CHECK(passes("bytes > 1M") && passes_not("bytes > 1Mi and bytes > 2M"));
    CHECK(passes("bytes >= 1500000") && passes_not("bytes > 1500000"));
    CHECK(passes("bytes <= 1500k") && passes_not("bytes < 1500k") && passes("packets = 10"));
    CHECK(passes("vlan 7") && passes_not("vlan 1-6") && passes_not("packets < 0"));
    CHECK(passes("flags syn") && passes("flags syn,ack") && passes_not("flags fin"));
    CHECK(passes("mac 02:00:00:00:00:01") && passes_not("dst mac 02:00:00:00:00:01"));
    CASE("names");
    CHECK(passes("vif web1") && passes("src vif web1") && passes_not("dst vif web1"));
    CHECK(passes("network blue-lan") && passes("network \"blue-lan\""));
    CHECK(passes_not("vif blue-lan") && passes_not("vm web1"));
    CHECK(passes("group db") && passes("group app") && passes_not("group d"));
    CHECK(passes("rule base/no-ssh") && passes("rule #77") && passes_not("rule #78"));
    CHECK(passes("host h2") && passes("dropped") && passes_not("forwarded"));
    CHECK(passes("drop unknown") && passes_not("drop grx_stalled"));
    CASE("and, or, not");
    CHECK(passes("src 10.1.0.0/16 and dst port 443 and (proto tcp or proto udp) and vif web1 "
                 "and dropped"));
    CHECK(passes("proto udp and vlan 1 or proto tcp"));
    CHECK(passes_not("proto udp and (vlan 1 or proto tcp)"));
    CHECK(passes("! proto udp") && passes("not not proto tcp") && passes("PROTO TCP AND IPV4"));
}

static void
test_refusals(void)
{
    char text[FLOW_FILTER_LENGTH + 100];

    CASE("errors point at the column");
    CHECK(refused("src 10.1.0.0/33", 4, "an address"));
    CHECK(refused("proto tcpp", 6, "a protocol"));
    CHECK(refused("proto tcp and", 13, "a test"));
    CHECK(refused("proto tcp dropped", 10, "\"and\""));
    CHECK(refused("(proto tcp", 0, "not closed"));
    CHECK(refused("(proto tcp vlan 1)", 11, "\")\""));
    CHECK(refused("port 70000", 5, "up to 65535"));
    CHECK(refused("port 10-5", 5, "up to 65535"));
    CHECK(refused("bytes 5", 6, "<="));
    CHECK(refused("bytes > lots", 8, "1M"));
    CHECK(refused("vif", 3, "the name of a vif"));
    CHECK(refused("vif \"web", 4, "not closed"));
    CHECK(refused("vif )", 4, "the name of a vif"));
    CHECK(refused("src dropped", 4, "an address"));
    CHECK(refused("dst host h2", 4, "an address"));
    CHECK(refused("flags nak", 6, "TCP flags"));
    CHECK(refused("mac 1:2", 4, "a MAC"));
    CHECK(refused("mac -2:00:00:00:00:01", 4, "a MAC"));
    CHECK(refused("mac 0x:00:00:00:00:01", 4, "a MAC"));
    CHECK(refused("drop because", 5, "a reason"));
    CHECK(refused("bytes > 99999999999999999999", 8, "1M"));
    CASE("bounds");
    memset(text, '(', 100);
    strcpy(text + 100, "ipv4");
    CHECK(refused(text, FLOW_FILTER_DEPTH, "deeper"));
    *text = '\0';
    for (int i = 0; i < 60; i++) {
        strcat(text, "not ");
    }
    CHECK(refused(text, FLOW_FILTER_DEPTH * 4, "deeper"));
    *text = '\0';
    for (int i = 0; i < 210; i++) {
        strcat(text, i ? " or ipv4" : "ipv4");
    }
    CHECK(refused(text, 805, "too many"));
    memset(text, ' ', sizeof text);
    text[FLOW_FILTER_LENGTH + 1] = '\0';
    CHECK(refused(text, FLOW_FILTER_LENGTH, "longer"));
    memset(text, 'v', 300);
    text[300] = '\0';
    CHECK(refused(text, 0, "longer"));
}

static void
test_rollup(void)
{
    struct flow_filter_error error;
    struct flow_filter *f = flow_filter_parse("src 10.0.0.0/8 and ipv4 and not vif a", &error);
    struct flow_row r = row();

    CASE("rollups");
    CHECK(flow_filter_in_rollup(f));
    CHECK(flow_filter_require(f, "dropped", 1) && flow_filter_in_rollup(f));
    CHECK(!flow_filter_resolve(f, names) && flow_filter_match(f, &r));
    r.dropped = 0;
    CHECK(!flow_filter_match(f, &r));
    flow_filter_free(f);
    f = flow_filter_parse("src port 5", &error);
    CHECK(f && !flow_filter_in_rollup(f));
    flow_filter_free(f);
}

int
main(void)
{
    names = flow_names_create();
    test_tests();
    test_refusals();
    test_rollup();
    flow_names_destroy(names);
    return check_done();
}
