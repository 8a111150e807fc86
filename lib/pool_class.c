#include "pool_class.h"

#include <string.h>

#define N(array) (sizeof(array) / sizeof(array)[0])

/* For the tables' sake. */
enum {
    SET = POOL_SET,
    REQUIRED = POOL_REQUIRED,
    STATUS = POOL_STATUS,
    OWNER = POOL_OWNER,
    COLUMN = POOL_COLUMN,
    TENANT = POOL_TENANT,
};

#define RATE_FIELDS                                                                                \
    {"rate_in_kbps", POOL_INTEGER, 0, NULL,                                                        \
     "limit to each vif; 0: as the wider scope says, 4000000000: none"},                           \
        {"rate_out_kbps", POOL_INTEGER, 0, NULL, "limit from each vif, likewise"},                 \
    {                                                                                              \
        "burst_kb", POOL_INTEGER, 0, NULL, "kbit of both these limits; 0: what suits the rate"     \
    }

static const struct pool_field pool_fields[] = {
    {"default_action", POOL_STRING, COLUMN, NULL, "allow or deny what no rule decides"},
    RATE_FIELDS,
    {"generation", POOL_INTEGER, STATUS | COLUMN, NULL, "counts changes of the configuration"},
    {"pending_deadline", POOL_INTEGER, STATUS, NULL,
     "when the unconfirmed commit rolls back, ms since 1970; 0: there is none"},
    {"pending_author", POOL_STRING, STATUS, NULL, "whose the unconfirmed commit is"},
    {"coordinator", POOL_STRING, STATUS, NULL, "the host whose weft-xapid speaks for the pool"},
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

static const struct pool_field host_fields[] = {
    {"ovsdb", POOL_STRING, REQUIRED | COLUMN, NULL, "its database: ssl:IP:PORT or unix:PATH"},
    {"openflow", POOL_STRING, 0, NULL, "its switch: ssl:IP:PORT or unix:PATH"},
    {"bridge", POOL_STRING, 0, NULL, "the bridge that is programmed"},
    {"uplink", POOL_STRING, COLUMN, NULL, "port of the physical NIC or bond"},
    {"tunnel_ip", POOL_STRING, COLUMN, NULL, "its end of overlay tunnels"},
    {"enabled", POOL_BOOLEAN, 0, NULL, "false: the host is left alone"},
    {"connected", POOL_BOOLEAN, STATUS | COLUMN, NULL, "database and switch both answer"},
    {"applied_generation", POOL_INTEGER, STATUS | COLUMN, NULL, "what its switch runs now"},
    {"drift", POOL_INTEGER, STATUS | COLUMN, NULL, "flows that were not as they should be"},
    {"last_seen", POOL_INTEGER, STATUS, NULL, "ms since 1970"},
    {"datapath_type", POOL_STRING, STATUS, NULL, "of its bridge"},
    {"switch", POOL_STRING, STATUS | COLUMN, NULL, "weft or ovs"},
    {"version", POOL_STRING, STATUS, NULL, "of its switch"},
    {"xapi_address", POOL_STRING, STATUS, NULL, "https URL of its weft-xapid"},
    {"xapi_seen", POOL_INTEGER, STATUS, NULL, "when that last ran, ms since 1970"},
    {"migration_address", POOL_STRING, STATUS, NULL, "where VMs that come are received"},
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

static const struct pool_field tenant_fields[] = {
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

static const struct pool_field network_fields[] = {
    {"tenant", POOL_REF, OWNER | COLUMN, "tenant", "whose it is"},
    {"type", POOL_STRING, REQUIRED | COLUMN, NULL, "vlan or overlay"},
    {"tag", POOL_INTEGER, COLUMN, NULL, "VLAN id of type vlan"},
    {"vni", POOL_INTEGER, COLUMN, NULL, "network id of type overlay"},
    {"encapsulation", POOL_STRING, 0, NULL, "vxlan, geneve or gre"},
    {"mtu", POOL_INTEGER, 0, NULL, "bytes"},
    {"default_locking_mode", POOL_STRING, COLUMN, NULL,
     "unlocked or disabled: vifs in mode network_default"},
    {"isolated_ports", POOL_BOOLEAN, 0, NULL, "every vif counts as isolated"},
    {"allow_dhcp_server", POOL_BOOLEAN, 0, NULL, "unlocked vifs may answer DHCP"},
    {"allow_ra", POOL_BOOLEAN, 0, NULL, "unlocked vifs may send router advertisements"},
    {"zone", POOL_INTEGER, STATUS, NULL, "of connection tracking"},
    {"policy_epoch", POOL_INTEGER, 0, NULL, "another one: every connection is judged anew"},
    RATE_FIELDS,
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

static const struct pool_field vm_fields[] = {
    {"tenant", POOL_REF, OWNER | COLUMN, "tenant", "whose it is"},
    RATE_FIELDS,
    {"power_state", POOL_STRING, STATUS | COLUMN, NULL,
     "Halted, Running, Paused or Suspended; empty: not weft-xapid's"},
    {"resident_on", POOL_STRING, STATUS | COLUMN, NULL, "the host that may run it"},
    {"epoch", POOL_INTEGER, STATUS, NULL, "one more with each move or move that was given up"},
    {"destination", POOL_STRING, STATUS | COLUMN, NULL, "the host that prepares to take it"},
    {"migration", POOL_STRING, STATUS, NULL, "uuid of the migration under way"},
    {"driver", POOL_STRING, STATUS, NULL, "cell or xen; empty: not weft-xapid's"},
    {"memory_bytes", POOL_INTEGER, STATUS, NULL, "its memory"},
    {"config", POOL_STRING, SET | STATUS, NULL, "KEY=VALUE, of its driver"},
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

static const struct pool_field vif_fields[] = {
    {"vm", POOL_REF, REQUIRED | OWNER | COLUMN, "vm", "whose it is"},
    {"network", POOL_REF, REQUIRED | COLUMN, "network", "where it is plugged"},
    {"host", POOL_REF, 0, "host", "where it is expected; empty: where it is found"},
    {"xs_uuid", POOL_STRING, 0, NULL, "the toolstack's uuid of it"},
    {"mac", POOL_STRING, REQUIRED | COLUMN, NULL, "hardware address"},
    {"locking_mode", POOL_STRING, COLUMN, NULL, "network_default, locked, unlocked or disabled"},
    {"ipv4_allowed", POOL_STRING, SET | COLUMN, NULL, "sources of a locked vif"},
    {"ipv6_allowed", POOL_STRING, SET, NULL, "sources of a locked vif"},
    {"addresses", POOL_STRING, SET, NULL, "known addresses of an unlocked vif, for groups"},
    {"isolated", POOL_BOOLEAN, 0, NULL, "reaches no other isolated vif"},
    RATE_FIELDS,
    {"parent", POOL_REF, 0, "vif", "the vif of the same VM in whose frames it is, by tag"},
    {"tag", POOL_INTEGER, 0, NULL, "VLAN id of its frames on the parent"},
    {"seen_host", POOL_STRING, STATUS | COLUMN, NULL, "the host it was found on"},
    {"ofport", POOL_INTEGER, STATUS, NULL, "its port number there"},
    {"device", POOL_STRING, STATUS, NULL, "its number in the VM"},
    {"confirmed_on", POOL_STRING, SET | STATUS, NULL,
     "hosts whose switches have its port and its policy, of a VM that weft-xapid runs"},
    {"warning", POOL_STRING, STATUS | COLUMN, NULL, "what looks wrong"},
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

static const struct pool_field group_fields[] = {
    {"tenant", POOL_REF, OWNER | TENANT | COLUMN, "tenant", "whose it is; empty: the pool's"},
    {"addresses", POOL_STRING, SET | TENANT | COLUMN, NULL, "prefixes, IPv4 and IPv6"},
    {"vifs", POOL_REF, SET | TENANT | COLUMN, "vif", "members"},
    {"vms", POOL_REF, SET | TENANT | COLUMN, "vm", "members with all their vifs"},
    {"groups", POOL_REF, SET | TENANT | COLUMN, "group", "members with all theirs"},
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

static const struct pool_field policy_fields[] = {
    {"author", POOL_STRING, TENANT | COLUMN, NULL, "who answers for it"},
    {"scope", POOL_STRING, REQUIRED | TENANT | COLUMN, NULL,
     "global, pool, network, group, vm or vif"},
    {"network", POOL_REF, OWNER | TENANT | COLUMN, "network", "of scope network"},
    {"group", POOL_REF, OWNER | TENANT | COLUMN, "group", "of scope group"},
    {"vm", POOL_REF, OWNER | TENANT | COLUMN, "vm", "of scope vm"},
    {"vif", POOL_REF, OWNER | TENANT | COLUMN, "vif", "of scope vif"},
    {"warning", POOL_STRING, STATUS, NULL, "what looks wrong"},
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

static const struct pool_field rule_fields[] = {
    {"policy", POOL_REF, REQUIRED | OWNER | TENANT | COLUMN, "policy", "whose part it is"},
    {"part", POOL_STRING, TENANT | COLUMN, NULL,
     "mandatory (wider scopes win) or default (narrower ones win)"},
    {"order", POOL_INTEGER, REQUIRED | TENANT | COLUMN, NULL, "0 to 2499, lower wins"},
    {"direction", POOL_STRING, REQUIRED | TENANT | COLUMN, NULL, "in: to the vif; out: from it"},
    {"action", POOL_STRING, REQUIRED | TENANT | COLUMN, NULL, "allow or deny"},
    {"ethertype", POOL_STRING, TENANT, NULL, "ipv4, ipv6 or any"},
    {"protocol", POOL_STRING, TENANT | COLUMN, NULL,
     "tcp, udp, icmp, icmpv6, sctp, any or a number"},
    {"remote_group", POOL_REF, TENANT | COLUMN, "group", "the other side"},
    {"remote_cidrs", POOL_STRING, SET | TENANT | COLUMN, NULL, "the other side; empty: anyone"},
    {"ports", POOL_STRING, SET | TENANT | COLUMN, NULL, "destination ports: 80, 1000-1999"},
    {"icmp_type", POOL_INTEGER, TENANT, NULL, "0 to 255; -1: all"},
    {"icmp_code", POOL_INTEGER, TENANT, NULL, "0 to 255; -1: all"},
    {"stateful", POOL_BOOLEAN, TENANT, NULL, "replies pass as well"},
    {"log", POOL_BOOLEAN, TENANT, NULL, "what it decides is logged: weft policy log"},
    {"sample", POOL_INTEGER, TENANT, NULL,
     "deny, stateless: collectors hear of one packet in so many; 0: none"},
    {"enabled", POOL_BOOLEAN, TENANT, NULL, "false: as if it were not there"},
    {"warning", POOL_STRING, STATUS, NULL, "conflicts, unreachable"},
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

static const struct pool_field user_fields[] = {
    {"role", POOL_STRING, REQUIRED | COLUMN, NULL, "viewer, tenant, operator or admin"},
    {"tenant", POOL_REF, COLUMN, "tenant", "of role tenant"},
    {"enabled", POOL_BOOLEAN, COLUMN, NULL, "false: turned away"},
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

static const struct pool_field mirror_fields[] = {
    {"vifs", POOL_REF, SET | COLUMN, "vif", "whose packets are copied"},
    {"networks", POOL_REF, SET | COLUMN, "network", "all of whose vifs' packets are copied"},
    {"direction", POOL_STRING, COLUMN, NULL, "in: to the vifs, out: from them, or both"},
    {"output_vif", POOL_REF, COLUMN, "vif", "the copies go to it, of vifs on its host"},
    {"output_vlan", POOL_INTEGER, COLUMN, NULL, "or by the uplink with this tag (RSPAN)"},
    {"output_ip", POOL_STRING, COLUMN, NULL, "or through a tunnel to this address"},
    {"encapsulation", POOL_STRING, 0, NULL, "of output_ip: gre or erspan"},
    {"session", POOL_INTEGER, 0, NULL, "of output_ip: ERSPAN session or GRE key, 0 to 1023"},
    {"snaplen", POOL_INTEGER, 0, NULL, "bytes of each packet; 0: all"},
    {"enabled", POOL_BOOLEAN, 0, NULL, "false: as if it were not there"},
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

static const struct pool_field bond_fields[] = {
    {"host", POOL_REF, REQUIRED | COLUMN, "host", "whose physical interfaces they are"},
    {"port", POOL_STRING, COLUMN, NULL, "its name as a port; the host's uplink has the same"},
    {"interfaces", POOL_STRING, SET | COLUMN, NULL, "two devices or more"},
    {"mode", POOL_STRING, COLUMN, NULL, "active-backup, balance-slb or balance-tcp"},
    {"lacp", POOL_STRING, COLUMN, NULL, "off, passive or active"},
    {"lacp_fast", POOL_BOOLEAN, 0, NULL, "LACP messages once a second"},
    {"primary", POOL_STRING, 0, NULL, "the device that is used if it can be (active-backup)"},
    {"updelay", POOL_INTEGER, 0, NULL, "ms until a link that came up is used"},
    {"downdelay", POOL_INTEGER, 0, NULL, "ms until a link that went down is not used"},
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

static const struct pool_field pif_fields[] = {
    {"host", POOL_REF, REQUIRED | COLUMN, "host", "whose physical interface it is"},
    {"device", POOL_STRING, REQUIRED | COLUMN, NULL, "its name on that host"},
    {"link", POOL_STRING, STATUS | COLUMN, NULL, "up or down; empty: at no bridge of the switch"},
    {"speed_mbps", POOL_INTEGER, STATUS | COLUMN, NULL, "of its link; 0: not known"},
    {"mac_in_use", POOL_STRING, STATUS | COLUMN, NULL, "its address"},
    {"at_bridge", POOL_STRING, STATUS | COLUMN, NULL, "where it is a port, alone or in a bond"},
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

static const struct pool_field exporter_fields[] = {
    {"protocol", POOL_STRING, REQUIRED | COLUMN, NULL, "netflow, sflow or ipfix"},
    {"host", POOL_REF, COLUMN, "host", "of this host; empty: of all that have none of their own"},
    {"networks", POOL_REF, SET | COLUMN, "network",
     "only packets of these are exported (ipfix); empty: all"},
    {"targets", POOL_STRING, SET | COLUMN, NULL, "collectors, IP:PORT"},
    {"sampling", POOL_INTEGER, COLUMN, NULL, "one packet of so many (sflow, ipfix)"},
    {"active_timeout", POOL_INTEGER, 0, NULL,
     "seconds after which a flow is reported (netflow, ipfix)"},
    {"cache_max_flows", POOL_INTEGER, 0, NULL, "flows that are remembered (ipfix)"},
    {"polling", POOL_INTEGER, 0, NULL, "seconds between reports of counters (sflow)"},
    {"header", POOL_INTEGER, 0, NULL, "bytes of each packet (sflow)"},
    {"options", POOL_STRING, SET, NULL, "KEY=VALUE, of weft-vswitchd's exporter (netflow, ipfix)"},
    {"enabled", POOL_BOOLEAN, 0, NULL, "false: as if it were not there"},
    {"error", POOL_STRING, STATUS | COLUMN, NULL, "what is wrong"},
};

#define FIELDS(array) .fields = array, .n_fields = N(array)
#define ROLES(r, w) .read = POOL_ROLE_##r, .write = POOL_ROLE_##w

const struct pool_class pool_classes[] = {
    {"pool", "pool", "what holds for the whole pool", .single = true, ROLES(VIEWER, ADMIN),
     FIELDS(pool_fields)},
    {"host", "hosts", "the pool's hosts and their switches", ROLES(VIEWER, ADMIN),
     FIELDS(host_fields)},
    {"tenant", "tenants", "who owns networks and VMs", ROLES(VIEWER, OPERATOR),
     FIELDS(tenant_fields)},
    {"network", "networks", "VLANs and overlays", ROLES(VIEWER, OPERATOR), FIELDS(network_fields)},
    {"vm", "vms", "virtual machines", ROLES(VIEWER, OPERATOR), FIELDS(vm_fields)},
    {"vif", "vifs", "virtual network interfaces", ROLES(VIEWER, OPERATOR), FIELDS(vif_fields)},
    {"group", "groups", "addresses, vifs and VMs that rules name together", ROLES(VIEWER, TENANT),
     FIELDS(group_fields)},
    {"policy", "policies", "rules by scope", ROLES(VIEWER, TENANT), FIELDS(policy_fields)},
    {"rule", "rules", "what a policy allows and denies", .within = "policy", ROLES(VIEWER, TENANT),
     FIELDS(rule_fields)},
    {"user", "users", "roles of certificates, by their common name", ROLES(ADMIN, ADMIN),
     FIELDS(user_fields)},
    {"mirror", "mirrors", "copies of vifs' packets", ROLES(VIEWER, OPERATOR),
     FIELDS(mirror_fields)},
    {"exporter", "exporters", "what switches tell flow collectors", ROLES(VIEWER, OPERATOR),
     FIELDS(exporter_fields)},
    {"bond", "bonds", "hosts' physical interfaces as one uplink", ROLES(VIEWER, ADMIN),
     FIELDS(bond_fields)},
    {"pif", "pifs", "hosts' physical interfaces", ROLES(VIEWER, ADMIN), FIELDS(pif_fields)},
};
const size_t n_pool_classes = N(pool_classes);

const struct pool_class *
pool_class_by_noun(const char *noun)
{
    for (size_t i = 0; i < n_pool_classes; i++) {
        if (!strcmp(pool_classes[i].noun, noun)) {
            return &pool_classes[i];
        }
    }
    return NULL;
}

const struct pool_class *
pool_class_by_plural(const char *plural)
{
    for (size_t i = 0; i < n_pool_classes; i++) {
        if (!strcmp(pool_classes[i].plural, plural)) {
            return &pool_classes[i];
        }
    }
    return NULL;
}

const struct pool_field *
pool_field_find(const struct pool_class *class, const char *name)
{
    for (size_t i = 0; i < class->n_fields; i++) {
        if (!strcmp(class->fields[i].name, name)) {
            return &class->fields[i];
        }
    }
    return NULL;
}

static const char *const role_names[] = {
    [POOL_ROLE_NONE] = "none",         [POOL_ROLE_VIEWER] = "viewer", [POOL_ROLE_TENANT] = "tenant",
    [POOL_ROLE_OPERATOR] = "operator", [POOL_ROLE_ADMIN] = "admin",
};

const char *
pool_role_name(enum pool_role role)
{
    return role_names[role];
}

enum pool_role
pool_role_from_name(const char *name)
{
    for (enum pool_role r = POOL_ROLE_VIEWER; r <= POOL_ROLE_ADMIN; r++) {
        if (!strcmp(role_names[r], name)) {
            return r;
        }
    }
    return POOL_ROLE_NONE;
}

bool
pool_may_read(const struct pool_class *class, enum pool_role role)
{
    return role >= class->read;
}

bool
pool_may_write(const struct pool_class *class, const struct pool_field *field, enum pool_role role)
{
    if (role < class->write) {
        return false;
    }
    if (!field) {
        return true;
    }
    return !(field->flags & POOL_STATUS) &&
           (role >= POOL_ROLE_OPERATOR || field->flags & POOL_TENANT);
}
