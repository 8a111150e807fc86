#include "flow_row.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "drop.h"

#define AT(field) offsetof(struct flow_row, field), sizeof((struct flow_row *)0)->field
#define UINT(name, field, rollup, help)                                                            \
    {                                                                                              \
        name, FLOW_COL_UINT, NAME_NONE, rollup, AT(field), help                                    \
    }
#define ADDRESS(name, field, help)                                                                 \
    {                                                                                              \
        name, FLOW_COL_ADDRESS, NAME_NONE, true, AT(field), help                                   \
    }
#define MAC(name, field, help)                                                                     \
    {                                                                                              \
        name, FLOW_COL_MAC, NAME_NONE, false, AT(field), help                                      \
    }
#define NAMED(name, field, class, help)                                                            \
    {                                                                                              \
        name, FLOW_COL_NAME, class, true, AT(field), help                                          \
    }

const struct flow_column flow_columns[] = {
    UINT("start", r.start_ms, false, "first packet, ms since 1970"),
    UINT("end", r.end_ms, false, "last packet, ms since 1970"),
    UINT("duration", duration_ms, false, "ms between them"),
    UINT("packets", r.packets, false, "as counted"),
    UINT("bytes", r.bytes, false, "as counted"),
    UINT("sampling", r.sampling, false, "one packet in so many was counted"),
    ADDRESS("src", r.src, "source address"),
    ADDRESS("dst", r.dst, "destination address"),
    UINT("proto", r.proto, true, "IP protocol"),
    UINT("sport", r.sport, false, "source port"),
    UINT("dport", r.dport, false, "destination port; ICMP: type << 8 | code"),
    UINT("service", service, true, "the lower of both ports; of ICMP 0"),
    NAMED("src_vif", src.vif, NAME_VIF, "source vif"),
    NAMED("dst_vif", dst.vif, NAME_VIF, "destination vif"),
    NAMED("src_vm", src.vm, NAME_VM, "source VM"),
    NAMED("dst_vm", dst.vm, NAME_VM, "destination VM"),
    NAMED("src_tenant", src.tenant, NAME_TENANT, "whose the source is"),
    NAMED("dst_tenant", dst.tenant, NAME_TENANT, "whose the destination is"),
    NAMED("src_network", src.network, NAME_NETWORK, "the source vif's network"),
    NAMED("dst_network", dst.network, NAME_NETWORK, "the destination vif's network"),
    NAMED("src_groups", src.groups, NAME_GROUPS, "the source vif's groups"),
    NAMED("dst_groups", dst.groups, NAME_GROUPS, "the destination vif's groups"),
    NAMED("network", network, NAME_NETWORK, "in which it was seen"),
    NAMED("host", host, NAME_HOST, "whose switch saw it"),
    ADDRESS("exporter", exporter, "address of the exporter"),
    UINT("domain", r.domain, false, "observation domain"),
    NAMED("rule_out", rule_out, NAME_RULE, "rule that decided at the source"),
    NAMED("rule_in", rule_in, NAME_RULE, "rule that decided at the destination"),
    UINT("dropped", dropped, true, "1: was dropped"),
    UINT("drop", r.drop, true, "why"),
    UINT("forwarding", r.forwarding, false, "forwardingStatus (IPFIX 89)"),
    UINT("again", again, true, "1: another exporter counts the same packets"),
    UINT("direction", r.direction, false, "0 as it came into the switch, 1 as it left"),
    UINT("end_reason", r.end, false, "flowEndReason (IPFIX 136)"),
    UINT("tcp_flags", r.tcp_flags, false, "of all packets"),
    UINT("tos", r.tos, false, "of the first packet"),
    UINT("min_ttl", r.min_ttl, false, ""),
    UINT("max_ttl", r.max_ttl, false, ""),
    UINT("fragments", r.fragments, false, "1: not the first fragment"),
    UINT("eth_type", r.eth_type, false, "Ethernet type"),
    UINT("vlan", r.vlan, false, "outer VLAN id"),
    UINT("customer_vlan", r.customer_vlan, false, "inner VLAN id"),
    UINT("tunnel_key", r.tunnel_key, false, "VNI or GRE key"),
    UINT("in_if", r.in_if, false, "port of the switch"),
    UINT("out_if", r.out_if, false, "port of the switch"),
    MAC("src_mac", r.src_mac, "source MAC"),
    MAC("dst_mac", r.dst_mac, "destination MAC"),
};
const unsigned n_flow_columns = sizeof flow_columns / sizeof flow_columns[0];
_Static_assert(sizeof flow_columns / sizeof flow_columns[0] <= FLOW_COLUMNS_MAX, "see flow_row.h");

unsigned
flow_column_find(const char *name)
{
    for (unsigned i = 0; i < n_flow_columns; i++) {
        if (!strcmp(flow_columns[i].name, name)) {
            return i;
        }
    }
    return FLOW_COLUMN_NONE;
}

void
flow_row_get(const struct flow_row *row, unsigned column, struct flow_value *v)
{
    const struct flow_column *c = &flow_columns[column];
    const uint8_t *p = (const uint8_t *)row + c->offset;
    uint64_t n = 0;

    if (c->kind == FLOW_COL_ADDRESS) {
        v->number = 0;
        memcpy(&v->address, p, sizeof v->address);
        return;
    }
    memset(&v->address, 0, sizeof v->address);
    if (c->kind == FLOW_COL_MAC) {
        for (int i = 0; i < 6; i++) {
            n = n << 8 | p[i];
        }
    } else { /* little endian, as all we run on */
        memcpy(&n, p, c->size);
    }
    v->number = c->kind == FLOW_COL_UINT && n > INT64_MAX ? INT64_MAX : (int64_t)n;
}

void
flow_row_set(struct flow_row *row, unsigned column, const struct flow_value *v)
{
    const struct flow_column *c = &flow_columns[column];
    uint8_t *p = (uint8_t *)row + c->offset;

    if (c->kind == FLOW_COL_ADDRESS) {
        memcpy(p, &v->address, sizeof v->address);
    } else if (c->kind == FLOW_COL_MAC) {
        for (int i = 0; i < 6; i++) {
            p[i] = (uint8_t)(v->number >> (40 - 8 * i));
        }
    } else {
        memcpy(p, &v->number, c->size);
    }
}

/* --- values for people ---------------------------------------------------------- */

static const struct {
    const char *name;
    uint8_t number;
} protos[] = {
    {"icmp", 1},  {"igmp", 2},   {"tcp", 6},     {"udp", 17},      {"gre", 47},
    {"esp", 50},  {"ah", 51},    {"icmpv6", 58}, {"icmp6", 58},    {"ospf", 89},
    {"pim", 103}, {"vrrp", 112}, {"sctp", 132},  {"udplite", 136},
};

int
flow_proto_number(const char *name)
{
    for (size_t i = 0; i < sizeof protos / sizeof protos[0]; i++) {
        if (!strcasecmp(protos[i].name, name)) {
            return protos[i].number;
        }
    }
    return -1;
}

const char *
flow_proto_name(unsigned number)
{
    for (size_t i = 0; i < sizeof protos / sizeof protos[0]; i++) {
        if (protos[i].number == number) {
            return protos[i].name;
        }
    }
    return NULL;
}

int
flow_drop_number(const char *name)
{
    if (!strcmp(name, "unknown")) {
        return 0;
    }
    for (int i = 0; i < DROP_N_REASONS; i++) {
        if (!strcmp(drop_reason_name(i), name)) {
            return i + 1;
        }
    }
    return -1;
}

static void
address_text(const struct in6_addr *a, char *text)
{
    static const struct in6_addr none;

    *text = '\0';
    if (IN6_IS_ADDR_V4MAPPED(a)) {
        inet_ntop(AF_INET, &a->s6_addr[12], text, INET6_ADDRSTRLEN);
    } else if (memcmp(a, &none, sizeof none)) {
        inet_ntop(AF_INET6, a, text, INET6_ADDRSTRLEN);
    }
}

static void
name_text(int64_t id, const struct flow_names *names, char *text)
{
    struct flow_name name;

    if (id < 0) {
        snprintf(text, FLOW_TEXT_MAX, "#%lld", -(long long)id);
    } else if (flow_names_get(names, id, &name)) {
        snprintf(text, FLOW_TEXT_MAX, "%s", name.text);
    } else {
        *text = '\0';
    }
}

const char *
flow_value_text(unsigned column, const struct flow_value *v, const struct flow_names *names,
                char text[FLOW_TEXT_MAX])
{
    const struct flow_column *c = &flow_columns[column];
    const char *proto;

    if (c->kind == FLOW_COL_ADDRESS) {
        address_text(&v->address, text);
    } else if (c->kind == FLOW_COL_NAME) {
        name_text(v->number, names, text);
    } else if (c->kind == FLOW_COL_MAC) {
        const uint64_t m = (uint64_t)v->number;
        snprintf(text, FLOW_TEXT_MAX, "%02x:%02x:%02x:%02x:%02x:%02x", (unsigned)(m >> 40 & 255),
                 (unsigned)(m >> 32 & 255), (unsigned)(m >> 24 & 255), (unsigned)(m >> 16 & 255),
                 (unsigned)(m >> 8 & 255), (unsigned)(m & 255));
    } else if (!strcmp(c->name, "proto") && (proto = flow_proto_name((unsigned)v->number))) {
        snprintf(text, FLOW_TEXT_MAX, "%s", proto);
    } else if (!strcmp(c->name, "drop") && v->number > 0) {
        snprintf(text, FLOW_TEXT_MAX, "%s", drop_reason_name((enum drop_reason)(v->number - 1)));
    } else {
        snprintf(text, FLOW_TEXT_MAX, "%lld", (long long)v->number);
    }
    return text;
}
