/* What the kinds consist of, and what their fields may hold. */
#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hex.h"
#include "record.h"

#define COUNT(A) (sizeof(A) / sizeof(A)[0])

/* --- forms of strings -------------------------------------------------------------- */

/* Visible characters only: it stands in logs, in flows' comments, in URLs. */
static bool
is_plain(const char *s, size_t max)
{
    size_t len = strlen(s);

    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)s[i] < ' ' || s[i] == 0x7f) {
            return false;
        }
    }
    return len <= max;
}

static bool
is_name(const char *s)
{
    size_t len = strlen(s);

    return len && is_plain(s, 128) && !strchr(s, '/') && s[0] != ' ' && s[len - 1] != ' ' &&
           !rec_is_uuid(s);
}
#define NAME_SHOULD                                                                                \
    "must have 1 to 128 characters, none of them '/' or a control character, no blank at an end, " \
    "and must not look like a uuid"

static bool
is_host_name(const char *s)
{
    size_t len = strlen(s);

    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)s[i]) && s[i] != '.' && s[i] != '-') {
            return false;
        }
    }
    return len && len <= 253 && isalnum((unsigned char)s[0]) &&
           isalnum((unsigned char)s[len - 1]) && !strstr(s, "..") && !rec_is_uuid(s);
}

static bool
is_author(const char *s)
{
    return is_plain(s, 255);
}

static bool
is_port_name(const char *s, size_t max)
{
    for (const char *p = s; *p; p++) {
        if (*p <= ' ' || *p >= 0x7f || *p == '/') {
            return false;
        }
    }
    return strlen(s) <= max && strcmp(s, ".") && strcmp(s, "..");
}

static bool
is_bridge(const char *s)
{
    return *s && is_port_name(s, 15);
}

static bool
is_interface_or_none(const char *s)
{
    return is_port_name(s, 15);
}

static bool
is_uplink(const char *s)
{
    return is_port_name(s, 63);
}

/* "IP:PORT", IPv6 in brackets.  TCP is in the clear: only on the loopback. */
static bool
is_endpoint(const char *s, bool loopback)
{
    const char *colon = strrchr(s, ':');
    size_t len = colon ? (size_t)(colon - s) : 0;
    uint8_t addr[16], plen;
    uint16_t port, same;
    char ip[64];
    bool v6 = len > 2 && s[0] == '[' && s[len - 1] == ']';

    if (!len || len >= sizeof ip || !rec_parse_ports(colon + 1, &port, &same) ||
        strchr(colon + 1, '-')) {
        return false;
    }
    snprintf(ip, sizeof ip, "%.*s", (int)(v6 ? len - 2 : len), v6 ? s + 1 : s);
    if (strchr(ip, '/') || !rec_parse_prefix(ip, addr, &plen) || v6 != !!strchr(ip, ':')) {
        return false;
    }
    return !loopback || (v6 ? !strcmp(ip, "::1") : addr[12] == 127);
}

/* What weft-vswitchd sends IPFIX by; plain addresses are UDP. */
static const char *
after_transport(const char *s)
{
    return !strncmp(s, "udp:", 4) || !strncmp(s, "tcp:", 4) || !strncmp(s, "tls:", 4) ? s + 4 : s;
}

static bool
is_collector(const char *s)
{
    return is_endpoint(after_transport(s), false);
}

/* KEY=VALUE, of a column that holds a map. */
static bool
is_option(const char *s)
{
    const char *equals = strchr(s, '=');

    for (const char *p = s; equals && p < equals; p++) {
        if (!isalnum((unsigned char)*p) && *p != '-' && *p != '_') {
            return false;
        }
    }
    return equals && equals > s && is_plain(s, 255);
}

static bool
is_target(const char *s)
{
    if (!strncmp(s, "ssl:", 4)) {
        return is_endpoint(s + 4, false);
    } else if (!strncmp(s, "tcp:", 4)) {
        return is_endpoint(s + 4, true);
    }
    return !strncmp(s, "unix:/", 6) && is_plain(s, 255) && s[6];
}

static bool
is_target_or_none(const char *s)
{
    return !*s || is_target(s);
}
#define TARGET_SHOULD "must be ssl:IP:PORT, unix:/PATH or, on the loopback only, tcp:IP:PORT"

static bool
is_prefix(const char *s)
{
    uint8_t addr[16], plen;

    return rec_parse_prefix(s, addr, &plen);
}

static bool
is_prefix4(const char *s)
{
    return is_prefix(s) && !strchr(s, ':');
}

static bool
is_prefix6(const char *s)
{
    return is_prefix(s) && strchr(s, ':');
}

/* A unicast address that is not unspecified. */
static bool
is_address_or_none(const char *s)
{
    uint8_t addr[16], plen;
    bool v6 = strchr(s, ':');

    if (!*s) {
        return true;
    }
    if (strchr(s, '/') || !rec_parse_prefix(s, addr, &plen)) {
        return false;
    }
    return v6 ? addr[0] != 0xff && memcmp(addr, &in6addr_any, 16) : addr[12] && addr[12] < 224;
}

static bool
is_unicast_mac(const char *s)
{
    uint8_t mac[6];

    return hex_mac(s, mac) && !(mac[0] & 1) && memcmp(mac, "\0\0\0\0\0\0", 6);
}

static bool
is_ports(const char *s)
{
    uint16_t first, last;

    return rec_parse_ports(s, &first, &last);
}

static bool
is_protocol(const char *s)
{
    return rec_parse_protocol(s) != -2;
}

static bool
is_uuid_or_none(const char *s)
{
    return !*s || rec_is_uuid(s);
}

/* --- the kinds ----------------------------------------------------------------------- */

static const char *const actions[] = {"allow", "deny", NULL};
static const char *const network_types[] = {"vlan", "overlay", NULL};
static const char *const encapsulations[] = {"vxlan", "geneve", "gre", NULL};
static const char *const network_locking[] = {"unlocked", "disabled", NULL};
static const char *const vif_locking[] = {"network_default", "locked", "unlocked", "disabled",
                                          NULL};
static const char *const scopes[] = {"global", "pool", "network", "group", "vm", "vif", NULL};
static const char *const parts[] = {"mandatory", "default", NULL};
static const char *const directions[] = {"in", "out", NULL};
static const char *const roles[] = {"viewer", "tenant", "operator", "admin", NULL};
static const char *const ethertypes[] = {"any", "ipv4", "ipv6", NULL};
static const char *const mirror_directions[] = {"both", "in", "out", NULL};
static const char *const mirror_encapsulations[] = {"gre", "erspan", NULL};
static const char *const bond_modes[] = {"active-backup", "balance-slb", "balance-tcp", NULL};
static const char *const lacp_modes[] = {"off", "passive", "active", NULL};
static const char *const protocols[] = {"netflow", "sflow", "ipfix", NULL};

#define ENUM(NAME, CHOICES, DEF)                                                                   \
    {                                                                                              \
        .name = NAME, .type = REC_ENUM, .choices = CHOICES, .def = DEF                             \
    }
#define STRING(NAME, DEF, CHECK, SHOULD)                                                           \
    {                                                                                              \
        .name = NAME, .type = REC_STRING, .def = DEF, .check = CHECK, .should = SHOULD             \
    }
#define INT(NAME, MIN, MAX, DEF)                                                                   \
    {                                                                                              \
        .name = NAME, .type = REC_INT, .min = MIN, .max = MAX, .def = DEF                          \
    }
#define OPT_INT(NAME, MIN, MAX)                                                                    \
    {                                                                                              \
        .name = NAME, .type = REC_OPT_INT, .min = MIN, .max = MAX, .def = "-1"                     \
    }
#define BOOL(NAME, DEF)                                                                            \
    {                                                                                              \
        .name = NAME, .type = REC_BOOL, .max = 1, .def = DEF                                       \
    }
#define STRINGS(NAME, MAX, CHECK, SHOULD)                                                          \
    {                                                                                              \
        .name = NAME, .type = REC_STRINGS, .max = MAX, .def = "", .check = CHECK, .should = SHOULD \
    }
#define REF(NAME, KIND, DEF)                                                                       \
    {                                                                                              \
        .name = NAME, .type = REC_REF, .ref = KIND, .def = DEF                                     \
    }
#define REFS(NAME, KIND)                                                                           \
    {                                                                                              \
        .name = NAME, .type = REC_REFS, .ref = KIND, .max = REC_MAX_LIST, .def = ""                \
    }

/* Rate limits of a scope: see REC_RATE_LIFTED. */
#define RATE_FIELDS(SCOPE)                                                                         \
    [REC_##SCOPE##_RATE_IN] = INT("rate_in_kbps", 0, REC_RATE_LIFTED, "0"),                        \
    [REC_##SCOPE##_RATE_OUT] = INT("rate_out_kbps", 0, REC_RATE_LIFTED, "0"),                      \
    [REC_##SCOPE##_BURST] = INT("burst_kb", 0, REC_RATE_LIFTED, "0")

static const struct rec_field pool_fields[] = {
    [REC_POOL_DEFAULT_ACTION] = ENUM("default_action", actions, "deny"),
    RATE_FIELDS(POOL),
};
static const struct rec_field host_fields[] = {
    [REC_HOST_OVSDB] = STRING("ovsdb", NULL, is_target, TARGET_SHOULD),
    [REC_HOST_OPENFLOW] = STRING("openflow", "", is_target_or_none, TARGET_SHOULD),
    [REC_HOST_BRIDGE] = STRING("bridge", "xenbr0", is_bridge,
                               "must be a bridge's name: 1 to 15 visible characters without '/'"),
    [REC_HOST_UPLINK] =
        STRING("uplink", "", is_uplink, "must be a port's name: visible characters without '/'"),
    [REC_HOST_TUNNEL_IP] = STRING("tunnel_ip", "", is_address_or_none,
                                  "must be a unicast IPv4 or IPv6 address without a length"),
    [REC_HOST_ENABLED] = BOOL("enabled", "1"),
};
static const struct rec_field network_fields[] = {
    [REC_NETWORK_TENANT] = REF("tenant", REC_TENANT, ""),
    [REC_NETWORK_TYPE] = ENUM("type", network_types, NULL),
    [REC_NETWORK_TAG] = OPT_INT("tag", 1, 4094),
    [REC_NETWORK_VNI] = OPT_INT("vni", 1, 0xffffff),
    [REC_NETWORK_ENCAPSULATION] = ENUM("encapsulation", encapsulations, "vxlan"),
    [REC_NETWORK_MTU] = INT("mtu", 576, 65000, "1500"),
    [REC_NETWORK_LOCKING] = ENUM("default_locking_mode", network_locking, "unlocked"),
    [REC_NETWORK_ISOLATED] = BOOL("isolated_ports", "0"),
    [REC_NETWORK_DHCP_SERVER] = BOOL("allow_dhcp_server", "0"),
    [REC_NETWORK_RA] = BOOL("allow_ra", "0"),
    [REC_NETWORK_POLICY_EPOCH] = INT("policy_epoch", 1, 0xffffffff, "1"),
    RATE_FIELDS(NETWORK),
};
static const struct rec_field vm_fields[] = {
    [REC_VM_TENANT] = REF("tenant", REC_TENANT, ""),
    RATE_FIELDS(VM),
};
#define PREFIX_SHOULD "must be an address or ADDRESS/LENGTH with no bits set behind the length"
static const struct rec_field vif_fields[] = {
    [REC_VIF_VM] = REF("vm", REC_VM, NULL),
    [REC_VIF_NETWORK] = REF("network", REC_NETWORK, NULL),
    [REC_VIF_HOST] = REF("host", REC_HOST, ""),
    [REC_VIF_XS_UUID] = STRING("xs_uuid", "", is_uuid_or_none, "must be a uuid"),
    [REC_VIF_MAC] = STRING("mac", NULL, is_unicast_mac,
                           "must be a unicast MAC address, as in 02:00:00:00:00:01"),
    [REC_VIF_LOCKING] = ENUM("locking_mode", vif_locking, "network_default"),
    [REC_VIF_IPV4] = STRINGS("ipv4_allowed", 1024, is_prefix4, "(IPv4) " PREFIX_SHOULD),
    [REC_VIF_IPV6] = STRINGS("ipv6_allowed", 1024, is_prefix6, "(IPv6) " PREFIX_SHOULD),
    [REC_VIF_ADDRESSES] = STRINGS("addresses", 1024, is_prefix, PREFIX_SHOULD),
    [REC_VIF_ISOLATED] = BOOL("isolated", "0"),
    RATE_FIELDS(VIF),
    [REC_VIF_PARENT] = REF("parent", REC_VIF, ""),
    [REC_VIF_TAG] = OPT_INT("tag", 1, 4094),
};
static const struct rec_field group_fields[] = {
    [REC_GROUP_TENANT] = REF("tenant", REC_TENANT, ""),
    [REC_GROUP_ADDRESSES] = STRINGS("addresses", REC_MAX_LIST, is_prefix, PREFIX_SHOULD),
    [REC_GROUP_VIFS] = REFS("vifs", REC_VIF),
    [REC_GROUP_VMS] = REFS("vms", REC_VM),
    [REC_GROUP_GROUPS] = REFS("groups", REC_GROUP),
};
static const struct rec_field policy_fields[] = {
    [REC_POLICY_AUTHOR] = STRING("author", "", is_author,
                                 "must have at most 255 characters and no control character"),
    [REC_POLICY_SCOPE] = ENUM("scope", scopes, NULL),
    [REC_POLICY_NETWORK] = REF("network", REC_NETWORK, ""),
    [REC_POLICY_GROUP] = REF("group", REC_GROUP, ""),
    [REC_POLICY_VM] = REF("vm", REC_VM, ""),
    [REC_POLICY_VIF] = REF("vif", REC_VIF, ""),
};
static const struct rec_field rule_fields[] = {
    [REC_RULE_POLICY] = REF("policy", REC_POLICY, NULL),
    [REC_RULE_PART] = ENUM("part", parts, "default"),
    [REC_RULE_ORDER] = INT("order", 0, 2499, NULL),
    [REC_RULE_DIRECTION] = ENUM("direction", directions, NULL),
    [REC_RULE_ACTION] = ENUM("action", actions, NULL),
    [REC_RULE_ETHERTYPE] = ENUM("ethertype", ethertypes, "any"),
    [REC_RULE_PROTOCOL] = STRING("protocol", "any", is_protocol,
                                 "must be any, tcp, udp, icmp, icmpv6, sctp or a number to 255"),
    [REC_RULE_REMOTE_GROUP] = REF("remote_group", REC_GROUP, ""),
    [REC_RULE_REMOTE_CIDRS] = STRINGS("remote_cidrs", 4096, is_prefix, PREFIX_SHOULD),
    [REC_RULE_PORTS] = STRINGS("ports", 256, is_ports,
                               "must be a port of 1..65535 or an ascending range, as in 1000-1999"),
    [REC_RULE_ICMP_TYPE] = OPT_INT("icmp_type", 0, 255),
    [REC_RULE_ICMP_CODE] = OPT_INT("icmp_code", 0, 255),
    [REC_RULE_STATEFUL] = BOOL("stateful", "1"),
    [REC_RULE_LOG] = BOOL("log", "0"),
    [REC_RULE_SAMPLE] = INT("sample", 0, 65535, "1"),
    [REC_RULE_ENABLED] = BOOL("enabled", "1"),
};
static const struct rec_field user_fields[] = {
    [REC_USER_ROLE] = ENUM("role", roles, NULL),
    [REC_USER_TENANT] = REF("tenant", REC_TENANT, ""),
    [REC_USER_ENABLED] = BOOL("enabled", "1"),
};

static const struct rec_field mirror_fields[] = {
    [REC_MIRROR_VIFS] = REFS("vifs", REC_VIF),
    [REC_MIRROR_NETWORKS] = REFS("networks", REC_NETWORK),
    [REC_MIRROR_DIRECTION] = ENUM("direction", mirror_directions, "both"),
    [REC_MIRROR_OUTPUT_VIF] = REF("output_vif", REC_VIF, ""),
    [REC_MIRROR_OUTPUT_VLAN] = OPT_INT("output_vlan", 1, 4094),
    [REC_MIRROR_OUTPUT_IP] = STRING("output_ip", "", is_address_or_none,
                                    "must be a unicast IPv4 or IPv6 address without a length"),
    [REC_MIRROR_ENCAPSULATION] = ENUM("encapsulation", mirror_encapsulations, "gre"),
    [REC_MIRROR_SESSION] = INT("session", 0, 1023, "0"),
    [REC_MIRROR_SNAPLEN] = INT("snaplen", 0, 65535, "0"),
    [REC_MIRROR_ENABLED] = BOOL("enabled", "1"),
};
static const struct rec_field exporter_fields[] = {
    [REC_EXPORTER_PROTOCOL] = ENUM("protocol", protocols, NULL),
    [REC_EXPORTER_HOST] = REF("host", REC_HOST, ""),
    [REC_EXPORTER_NETWORKS] = REFS("networks", REC_NETWORK),
    [REC_EXPORTER_TARGETS] = STRINGS("targets", 16, is_collector,
                                     "must be IP:PORT, of ipfix also udp:, tcp: or tls:IP:PORT"),
    [REC_EXPORTER_SAMPLING] = INT("sampling", 0, 4000000000, "0"),
    [REC_EXPORTER_ACTIVE_TIMEOUT] = INT("active_timeout", 0, 4200, "0"),
    [REC_EXPORTER_CACHE_MAX_FLOWS] = INT("cache_max_flows", 0, 4000000000, "0"),
    [REC_EXPORTER_POLLING] = INT("polling", 0, 86400, "0"),
    [REC_EXPORTER_HEADER] = INT("header", 0, 1500, "0"),
    [REC_EXPORTER_OPTIONS] = STRINGS("options", 64, is_option,
                                     "must be KEY=VALUE, the key of letters, digits, '-' and '_'"),
    [REC_EXPORTER_ENABLED] = BOOL("enabled", "1"),
};

#define DEVICE_SHOULD "must be a device's name: 1 to 15 visible characters without '/'"
static const struct rec_field bond_fields[] = {
    [REC_BOND_HOST] = REF("host", REC_HOST, NULL),
    [REC_BOND_PORT] = STRING("port", "bond0", is_bridge, DEVICE_SHOULD),
    [REC_BOND_INTERFACES] = STRINGS("interfaces", 16, is_bridge, DEVICE_SHOULD),
    [REC_BOND_MODE] = ENUM("mode", bond_modes, "active-backup"),
    [REC_BOND_LACP] = ENUM("lacp", lacp_modes, "off"),
    [REC_BOND_LACP_FAST] = BOOL("lacp_fast", "0"),
    [REC_BOND_PRIMARY] = STRING("primary", "", is_interface_or_none, DEVICE_SHOULD),
    [REC_BOND_UPDELAY] = INT("updelay", 0, 600000, "0"),
    [REC_BOND_DOWNDELAY] = INT("downdelay", 0, 600000, "0"),
};

static const struct rec_field pif_fields[] = {
    [REC_PIF_HOST] = REF("host", REC_HOST, NULL),
    [REC_PIF_DEVICE] = STRING("device", NULL, is_bridge, DEVICE_SHOULD),
};

#define FIELDS(A) .fields = A, .n_fields = COUNT(A)
const struct rec_table rec_tables[REC_N_KINDS] = {
    [REC_POOL] = {"Pool", "pool", "pool", FIELDS(pool_fields)},
    [REC_HOST] = {"Host", "hosts", "host", FIELDS(host_fields)},
    [REC_TENANT] = {"Tenant", "tenants", "tenant", 0, NULL},
    [REC_NETWORK] = {"Network", "networks", "network", FIELDS(network_fields)},
    [REC_VM] = {"VM", "vms", "vm", FIELDS(vm_fields)},
    [REC_VIF] = {"VIF", "vifs", "vif", FIELDS(vif_fields)},
    [REC_GROUP] = {"Group", "groups", "group", FIELDS(group_fields)},
    [REC_POLICY] = {"Policy", "policies", "policy", FIELDS(policy_fields)},
    [REC_RULE] = {"Rule", "rules", "rule", FIELDS(rule_fields)},
    [REC_USER] = {"User", "users", "user", FIELDS(user_fields)},
    [REC_MIRROR] = {"Mirror", "mirrors", "mirror", FIELDS(mirror_fields)},
    [REC_EXPORTER] = {"Exporter", "exporters", "exporter", FIELDS(exporter_fields)},
    [REC_BOND] = {"Bond", "bonds", "bond", FIELDS(bond_fields)},
    [REC_PIF] = {"PIF", "pifs", "pif", FIELDS(pif_fields)},
};

/* --- checks ---------------------------------------------------------------------------- */

struct fault {
    const char **field;
    char *why;
    size_t size;
};

static bool fail(struct fault *, const char *field, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool
fail(struct fault *fault, const char *field, const char *format, ...)
{
    va_list args;

    *fault->field = field;
    va_start(args, format);
    vsnprintf(fault->why, fault->size, format, args);
    va_end(args);
    return false;
}

/* Text of others in a message: short, so that a message stays readable. */
#define SHOWN "\"%.60s\""

static bool
check_string(const struct rec_field *field, const char *s, struct fault *fault)
{
    if (field->check && !field->check(s)) {
        return fail(fault, field->name, SHOWN " %s", s, field->should);
    }
    return true;
}

static bool
check_enum(const struct rec_field *field, const char *s, struct fault *fault)
{
    char all[128] = "";

    for (size_t i = 0; field->choices[i]; i++) {
        if (!strcmp(s, field->choices[i])) {
            return true;
        }
    }
    for (size_t i = 0; field->choices[i]; i++) {
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "",
                 field->choices[i]);
    }
    return *s ? fail(fault, field->name, SHOWN " must be one of %s", s, all)
              : fail(fault, field->name, "is missing; must be one of %s", all);
}

static bool
check_list(const struct rec_field *field, const struct rec_value *v, struct fault *fault)
{
    if (v->n > (size_t)field->max) {
        return fail(fault, field->name, "has %zu members, at most %" PRId64 " are possible", v->n,
                    field->max);
    }
    for (size_t i = 0; i < v->n; i++) {
        if (!*v->list[i]) {
            return fail(fault, field->name, "has an empty member");
        }
        if (!check_string(field, v->list[i], fault)) {
            return false;
        }
    }
    return true;
}

static bool
check_field(const struct rec *r, unsigned f, struct fault *fault)
{
    const struct rec_field *field = &rec_tables[r->kind].fields[f];
    const struct rec_value *v = &r->v[f];
    bool text = field->type == REC_STRING || field->type == REC_REF || field->type == REC_ENUM;

    if (!field->def && !(text ? *v->s : r->given & 1u << f) && field->type != REC_ENUM) {
        return fail(fault, field->name, "is missing");
    }
    switch (field->type) {
    case REC_STRING:
        return check_string(field, v->s, fault);
    case REC_ENUM:
        return check_enum(field, v->s, fault);
    case REC_REF:
        return true;
    case REC_STRINGS:
    case REC_REFS:
        return check_list(field, v, fault);
    case REC_OPT_INT:
        if (v->i == -1) {
            return true;
        }
    /* fall through */
    case REC_INT:
    case REC_BOOL:
        if (v->i < field->min || v->i > field->max) {
            return fail(fault, field->name, "%" PRId64 " must be %" PRId64 "..%" PRId64, v->i,
                        field->min, field->max);
        }
        return true;
    }
    return true;
}

static bool
check_network(const struct rec *r, struct fault *fault)
{
    bool vlan = !strcmp(r->v[REC_NETWORK_TYPE].s, "vlan");

    if (vlan && r->v[REC_NETWORK_TAG].i < 0) {
        return fail(fault, "tag", "is missing; a network of type vlan has one");
    }
    if (!vlan && r->v[REC_NETWORK_VNI].i < 0) {
        return fail(fault, "vni", "is missing; a network of type overlay has one");
    }
    if (vlan && r->v[REC_NETWORK_VNI].i >= 0) {
        return fail(fault, "vni", "does not go with type vlan");
    }
    if (!vlan && r->v[REC_NETWORK_TAG].i >= 0) {
        return fail(fault, "tag", "does not go with type overlay");
    }
    return true;
}

static bool
check_policy(const struct rec *r, struct fault *fault)
{
    static const unsigned objects[] = {REC_POLICY_NETWORK, REC_POLICY_GROUP, REC_POLICY_VM,
                                       REC_POLICY_VIF};
    const char *scope = r->v[REC_POLICY_SCOPE].s;

    for (size_t i = 0; i < COUNT(objects); i++) {
        const char *name = policy_fields[objects[i]].name;
        bool stated = *r->v[objects[i]].s, wanted = !strcmp(scope, name);

        if (wanted && !stated) {
            return fail(fault, name, "is missing; scope %s names one", scope);
        }
        if (stated && !wanted) {
            return fail(fault, name, "does not go with scope %s", scope);
        }
    }
    return true;
}

/* The family that a rule's protocol and remote_cidrs leave, against its ethertype. */
static bool
check_family(const struct rec *r, int protocol, struct fault *fault)
{
    const char *type = r->v[REC_RULE_ETHERTYPE].s;
    const struct rec_value *cidrs = &r->v[REC_RULE_REMOTE_CIDRS];
    const char *by = "ethertype ";

    if (!strcmp(type, "any") && (protocol == 1 || protocol == 58)) {
        by = "protocol ";
        type = protocol == 1 ? "icmp" : "icmpv6";
    }
    if ((protocol == 1 && !strcmp(type, "ipv6")) || (protocol == 58 && !strcmp(type, "ipv4"))) {
        return fail(fault, "protocol", "does not go with ethertype %s", type);
    }
    for (size_t i = 0; i < cidrs->n && strcmp(type, "any"); i++) {
        bool v6 = strchr(cidrs->list[i], ':');

        if (v6 != (!strcmp(type, "ipv6") || !strcmp(type, "icmpv6"))) {
            return fail(fault, "remote_cidrs", SHOWN " does not go with %s%s", cidrs->list[i], by,
                        type);
        }
    }
    return true;
}

static bool
check_rule(const struct rec *r, struct fault *fault)
{
    int protocol = rec_parse_protocol(r->v[REC_RULE_PROTOCOL].s);
    bool icmp = protocol == 1 || protocol == 58;

    if (r->v[REC_RULE_PORTS].n && protocol != 6 && protocol != 17 && protocol != 132) {
        return fail(fault, "ports", "go with protocol tcp, udp or sctp only");
    }
    if (r->v[REC_RULE_ICMP_TYPE].i >= 0 && !icmp) {
        return fail(fault, "icmp_type", "goes with protocol icmp or icmpv6 only");
    }
    if (r->v[REC_RULE_ICMP_CODE].i >= 0 && r->v[REC_RULE_ICMP_TYPE].i < 0) {
        return fail(fault, "icmp_code", "goes with an icmp_type only");
    }
    if (*r->v[REC_RULE_REMOTE_GROUP].s && r->v[REC_RULE_REMOTE_CIDRS].n) {
        return fail(fault, "remote_cidrs", "does not go with remote_group");
    }
    return check_family(r, protocol, fault);
}

/* Something to mirror, and one place to send it to. */
static bool
check_mirror(const struct rec *r, struct fault *fault)
{
    bool vif = *r->v[REC_MIRROR_OUTPUT_VIF].s, ip = *r->v[REC_MIRROR_OUTPUT_IP].s;
    bool vlan = r->v[REC_MIRROR_OUTPUT_VLAN].i >= 0;
    int64_t snaplen = r->v[REC_MIRROR_SNAPLEN].i;

    if (!r->v[REC_MIRROR_VIFS].n && !r->v[REC_MIRROR_NETWORKS].n) {
        return fail(fault, "vifs", "is empty, and so is networks: there is nothing to mirror");
    }
    if (!vif && !vlan && !ip) {
        return fail(fault, "output_vif",
                    "is missing, and so are output_vlan and output_ip; a mirror has one of them");
    }
    if (vif + vlan + ip > 1) {
        return fail(fault, ip ? "output_ip" : "output_vlan", "does not go with %s",
                    vif ? "output_vif" : "output_vlan");
    }
    if (!ip && r->v[REC_MIRROR_SESSION].i) {
        return fail(fault, "session", "goes with output_ip only");
    }
    if (snaplen && snaplen < 14) {
        return fail(fault, "snaplen", "%" PRId64 " must be 0 or 14..65535", snaplen);
    }
    return true;
}

/* One of a trunk is where the trunk is. */
static bool
check_vif(const struct rec *r, struct fault *fault)
{
    static const unsigned parents[] = {REC_VIF_HOST, REC_VIF_XS_UUID};
    bool parent = *r->v[REC_VIF_PARENT].s, tag = r->v[REC_VIF_TAG].i > 0;

    if (parent != tag) {
        return fail(fault, parent ? "tag" : "parent", "is missing; parent and tag go together");
    }
    for (size_t i = 0; parent && i < COUNT(parents); i++) {
        if (*r->v[parents[i]].s) {
            return fail(fault, vif_fields[parents[i]].name, "is the parent's; state none");
        }
    }
    return true;
}

/* Of the settings each protocol has some. */
static bool
check_exporter(const struct rec *r, struct fault *fault)
{
    static const struct {
        unsigned field;
        const char *protocols;
    } settings[] = {
        {REC_EXPORTER_NETWORKS, "ipfix"},
        {REC_EXPORTER_SAMPLING, "sflow or ipfix"},
        {REC_EXPORTER_ACTIVE_TIMEOUT, "netflow or ipfix"},
        {REC_EXPORTER_CACHE_MAX_FLOWS, "ipfix"},
        {REC_EXPORTER_POLLING, "sflow"},
        {REC_EXPORTER_HEADER, "sflow"},
        {REC_EXPORTER_OPTIONS, "netflow or ipfix"},
    };
    const char *protocol = r->v[REC_EXPORTER_PROTOCOL].s;

    if (!r->v[REC_EXPORTER_TARGETS].n) {
        return fail(fault, "targets", "is empty; state IP:PORT of a collector");
    }
    for (size_t i = 0; i < r->v[REC_EXPORTER_TARGETS].n; i++) {
        const char *target = r->v[REC_EXPORTER_TARGETS].list[i];

        if (after_transport(target) != target && strcmp(protocol, "ipfix")) {
            return fail(fault, "targets", SHOWN " goes with protocol ipfix only", target);
        }
    }
    for (size_t i = 0; i < COUNT(settings); i++) {
        const struct rec_value *v = &r->v[settings[i].field];

        if ((v->i || v->n) && !strstr(settings[i].protocols, protocol)) {
            return fail(fault, exporter_fields[settings[i].field].name,
                        "goes with protocol %s only", settings[i].protocols);
        }
    }
    return true;
}

static bool
check_bond(const struct rec *r, struct fault *fault)
{
    const struct rec_value *interfaces = &r->v[REC_BOND_INTERFACES];
    const char *mode = r->v[REC_BOND_MODE].s, *primary = r->v[REC_BOND_PRIMARY].s;
    bool lacp = strcmp(r->v[REC_BOND_LACP].s, "off"), member = false;

    for (size_t i = 0; i < interfaces->n; i++) {
        member = member || !strcmp(interfaces->list[i], primary);
        if (!strcmp(interfaces->list[i], r->v[REC_BOND_PORT].s)) {
            return fail(fault, "port", SHOWN " is one of the interfaces", r->v[REC_BOND_PORT].s);
        }
    }
    if (interfaces->n < 2) {
        return fail(fault, "interfaces", "has %zu members; a bond has two or more", interfaces->n);
    }
    if (!strcmp(mode, "balance-tcp") && !lacp) {
        return fail(fault, "lacp", "is off; mode balance-tcp needs it active or passive");
    }
    if (r->v[REC_BOND_LACP_FAST].i && !lacp) {
        return fail(fault, "lacp_fast", "goes with lacp active or passive only");
    }
    if (*primary && strcmp(mode, "active-backup")) {
        return fail(fault, "primary", "goes with mode active-backup only");
    }
    if (*primary && !member) {
        return fail(fault, "primary", SHOWN " is not one of the interfaces", primary);
    }
    return true;
}

bool
rec_check(const struct rec *r, const char **field, char *why, size_t why_size)
{
    struct fault fault = {field, why, why_size};

    if (r->kind == REC_HOST ? !is_host_name(r->name) : !is_name(r->name)) {
        return fail(&fault, "name", SHOWN " %s", r->name,
                    r->kind == REC_HOST ? "must be a host name: letters, digits, '-' and '.'"
                                        : NAME_SHOULD);
    }
    for (unsigned f = 0; f < rec_tables[r->kind].n_fields; f++) {
        if (!check_field(r, f, &fault)) {
            return false;
        }
    }
    switch (r->kind) {
    case REC_NETWORK:
        return check_network(r, &fault);
    case REC_POLICY:
        return check_policy(r, &fault);
    case REC_RULE:
        return check_rule(r, &fault);
    case REC_VIF:
        return check_vif(r, &fault);
    case REC_MIRROR:
        return check_mirror(r, &fault);
    case REC_EXPORTER:
        return check_exporter(r, &fault);
    case REC_BOND:
        return check_bond(r, &fault);
    case REC_USER:
        if (!strcmp(r->v[REC_USER_ROLE].s, "tenant") && !*r->v[REC_USER_TENANT].s) {
            return fail(&fault, "tenant", "is missing; role tenant is of one");
        }
        return true;
    default:
        return true;
    }
}
