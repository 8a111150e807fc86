/* From a record in form to an object's fields. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "hex.h"
#include "model_impl.h"
#include "util.h"

#define OPENFLOW_PORT 6653

static void
set_text(char **to, const char *s)
{
    free(*to);
    *to = xstrdup(s);
}

static unsigned
choice(const char *s, const char *const *choices)
{
    unsigned i = 0;

    while (choices[i] && strcmp(s, choices[i])) {
        i++;
    }
    ovs_assert(choices[i]);
    return i;
}

static unsigned
choice_of(const struct rec *r, unsigned field)
{
    return choice(r->v[field].s, rec_tables[r->kind].fields[field].choices);
}

static void
parse_prefixes(struct model_prefixes *to, const struct rec_value *v)
{
    free(to->p);
    to->n = 0;
    to->p = v->n ? xcalloc(v->n, sizeof *to->p) : NULL;
    for (size_t i = 0; i < v->n; i++) {
        struct model_prefix *p = &to->p[to->n];

        to->n += rec_parse_prefix(v->list[i], p->addr.s6_addr, &p->plen);
    }
    ovs_assert(to->n == v->n);
}

/* Where a host's OpenFlow is if only its database is stated: beside it, or at the usual
 * port.  malloc'ed. */
static char *
openflow_beside(const struct model_host *host)
{
    const char *end = strrchr(host->ovsdb, strncmp(host->ovsdb, "unix:", 5) ? ':' : '/');

    if (!end) {
        return xstrdup("");
    }
    return *end == '/'
               ? xasprintf("%.*s/%s.mgmt", (int)(end - host->ovsdb), host->ovsdb, host->bridge)
               : xasprintf("%.*s:%d", (int)(end - host->ovsdb), host->ovsdb, OPENFLOW_PORT);
}

/* However it is written. */
static void
claim_target(struct model *m, struct model_host *host, const char *field, const char *target)
{
    const char *colon = strrchr(target, ':');
    bool v6 = target[4] == '[';
    uint8_t address[16], plen;
    unsigned port = atoi(colon + 1);
    char *ip = xmemdup0(target + 4 + v6, colon - target - 4 - 2 * v6);

    if (rec_parse_prefix(ip, address, &plen)) {
        uint8_t bytes[sizeof address + 2];

        memcpy(bytes, address, sizeof address);
        bytes[sizeof address] = port >> 8;
        bytes[sizeof address + 1] = port;
        model_claim(m, &host->obj, field, &(struct model_claimed){field, "", bytes, sizeof bytes});
    }
    free(ip);
}

/* A connection to an address is one to a host: its certificate names one, and a switch obeys
 * one host's flows.  (Sockets of one machine are left to who states them.) */
static void
claim_host(struct model *m, struct model_host *host, const struct rec *r)
{
    if (!strncmp(host->ovsdb, "ssl:", 4)) {
        claim_target(m, host, "ovsdb", host->ovsdb);
    }
    if (strncmp(host->openflow, "unix:", 5) != 0 && *host->openflow) {
        claim_target(m, host, "openflow", host->openflow);
    }
    if (*r->v[REC_HOST_TUNNEL_IP].s) {
        model_claim(
            m, &host->obj, "tunnel_ip",
            &(struct model_claimed){"tunnel_ip", "", &host->tunnel_ip, sizeof host->tunnel_ip});
    }
}

static void
parse_host(struct model *m, struct model_host *host, const struct rec *r)
{
    const char *ip = r->v[REC_HOST_TUNNEL_IP].s;
    uint8_t plen;

    set_text(&host->ovsdb, r->v[REC_HOST_OVSDB].s);
    set_text(&host->bridge, r->v[REC_HOST_BRIDGE].s);
    set_text(&host->openflow, r->v[REC_HOST_OPENFLOW].s);
    if (!*host->openflow) {
        free(host->openflow);
        host->openflow = openflow_beside(host);
    }
    set_text(&host->uplink, r->v[REC_HOST_UPLINK].s);
    memset(&host->tunnel_ip, 0, sizeof host->tunnel_ip);
    if (*ip) {
        rec_parse_prefix(ip, host->tunnel_ip.s6_addr, &plen);
    }
    host->enabled = r->v[REC_HOST_ENABLED].i;
    claim_host(m, host, r);
}

struct model_rates
model_parse_rates(const struct rec *r, unsigned first)
{
    return (struct model_rates){
        .in = r->v[first].i, .out = r->v[first + 1].i, .burst = r->v[first + 2].i};
}

/* Into '*rates'; those who take them over hear of it. */
static void
parse_rates(struct model *m, struct model_obj *obj, struct model_rates *rates, const struct rec *r,
            unsigned first)
{
    struct model_rates now = model_parse_rates(r, first);

    if (memcmp(&now, rates, sizeof now)) {
        *rates = now;
        model_dirty_referrers(m, obj);
    }
}

static void
parse_network(struct model *m, struct model_network *net, const struct rec *r)
{
    bool disabled = !strcmp(r->v[REC_NETWORK_LOCKING].s, "disabled");
    bool isolated = r->v[REC_NETWORK_ISOLATED].i;

    if (net->default_disabled != disabled || net->isolated_ports != isolated) {
        model_dirty_referrers(m, &net->obj);
    }
    net->default_disabled = disabled;
    net->isolated_ports = isolated;
    net->type = choice_of(r, REC_NETWORK_TYPE);
    net->encap = choice_of(r, REC_NETWORK_ENCAPSULATION);
    net->tag = net->type == MODEL_VLAN ? r->v[REC_NETWORK_TAG].i : 0;
    net->vni = net->type == MODEL_OVERLAY ? r->v[REC_NETWORK_VNI].i : 0;
    net->mtu = r->v[REC_NETWORK_MTU].i;
    net->allow_dhcp_server = r->v[REC_NETWORK_DHCP_SERVER].i;
    net->allow_ra = r->v[REC_NETWORK_RA].i;
    net->policy_epoch = r->v[REC_NETWORK_POLICY_EPOCH].i;
    net->zone = net->zone ? net->zone : r->zone;
    parse_rates(m, &net->obj, &net->rates, r, REC_NETWORK_RATE_IN);
    if (net->type == MODEL_VLAN) {
        model_claim_printed(m, &net->obj, "tag", "tag %u", net->tag);
    } else {
        model_claim_printed(m, &net->obj, "vni", "vni %u", net->vni);
    }
    if (net->zone) {
        model_claim_number(m, &net->obj, "zone", net->zone);
    }
}

/* False: it was the same. */
static bool
set_host_name(char **to, const char *name)
{
    name = name && *name ? name : NULL;
    if (nullable_string_is_equal(*to, name)) {
        return false;
    }
    free(*to);
    *to = nullable_xstrdup(name);
    return true;
}

static void
parse_vm(struct model *m, struct model_vm *vm, const struct rec *r)
{
    bool moved = set_host_name(&vm->resident_on, r->resident_on);

    moved = set_host_name(&vm->destination, r->destination) || moved;
    parse_rates(m, &vm->obj, &vm->rates, r, REC_VM_RATE_IN);
    ovs_list_remove(&vm->resident_node);
    ovs_list_init(&vm->resident_node);
    if (vm->resident_on) {
        ovs_list_push_back(&m->residents, &vm->resident_node);
    }
    if (moved) {
        model_dirty_referrers(m, &vm->obj);
    }
}

static void
parse_vif(struct model *m, struct model_vif *vif, const struct rec *r)
{
    const char *xs = r->v[REC_VIF_XS_UUID].s;
    struct uuid xs_uuid = vif->obj.uuid;
    struct eth_addr mac;
    unsigned locking = choice_of(r, REC_VIF_LOCKING);

    hex_mac(r->v[REC_VIF_MAC].s, mac.ea);
    if (*xs) {
        uuid_from_string(&xs_uuid, xs);
    }
    if (vif->indexed &&
        (!eth_addr_equals(mac, vif->mac) || !uuid_equals(&xs_uuid, &vif->xs_uuid))) {
        model_vif_leave(m, vif); /* it enters again when it is found good */
    }
    if (!vif->remembered && r->seen_host && *r->seen_host && vif->obj.state == NONE) {
        vif->remembered = xstrdup(r->seen_host);
    }
    vif->mac = mac;
    vif->xs_uuid = xs_uuid;
    parse_prefixes(&vif->ipv4_allowed, &r->v[REC_VIF_IPV4]);
    parse_prefixes(&vif->ipv6_allowed, &r->v[REC_VIF_IPV6]);
    parse_prefixes(&vif->addresses, &r->v[REC_VIF_ADDRESSES]);
    vif->network_default = !locking;
    vif->stated_locking = locking ? (enum model_locking)(locking - 1) : MODEL_UNLOCKED;
    vif->stated_isolated = r->v[REC_VIF_ISOLATED].i;
    vif->rates = model_parse_rates(r, REC_VIF_RATE_IN);
    vif->tag = r->v[REC_VIF_TAG].i > 0 ? r->v[REC_VIF_TAG].i : 0;
    if (vif->tag) {
        const char *parent = r->v[REC_VIF_PARENT].s;

        model_claim_printed(m, &vif->obj, "tag", "trunk %s tag %u", parent, vif->tag);
        model_claim_printed(m, &vif->obj, "network", "trunk %s network %s", parent,
                            r->v[REC_VIF_NETWORK].s);
    }
    model_claim(m, &vif->obj, "mac",
                &(struct model_claimed){"mac", r->v[REC_VIF_NETWORK].s, &mac, sizeof mac});
    model_claim(m, &vif->obj, "xs_uuid",
                &(struct model_claimed){"uuid", "", &xs_uuid, sizeof xs_uuid});
}

static void
parse_group(struct model *m, struct model_group *group, const struct rec *r)
{
    parse_prefixes(&group->own, &r->v[REC_GROUP_ADDRESSES]);
    model_group_touch(m, group);
}

static void
parse_policy(struct model_policy *policy, const struct rec *r)
{
    set_text(&policy->author, r->v[REC_POLICY_AUTHOR].s);
    policy->scope = choice_of(r, REC_POLICY_SCOPE);
}

static void
parse_mirror(struct model *m, struct model_mirror *mirror, const struct rec *r)
{
    const char *ip = r->v[REC_MIRROR_OUTPUT_IP].s;
    int64_t vlan = r->v[REC_MIRROR_OUTPUT_VLAN].i;
    uint8_t plen;

    mirror->in = strcmp(r->v[REC_MIRROR_DIRECTION].s, "out");
    mirror->out = strcmp(r->v[REC_MIRROR_DIRECTION].s, "in");
    mirror->output_vlan = vlan > 0 ? vlan : 0;
    memset(&mirror->output_ip, 0, sizeof mirror->output_ip);
    if (*ip) {
        rec_parse_prefix(ip, mirror->output_ip.s6_addr, &plen);
    }
    mirror->erspan = choice_of(r, REC_MIRROR_ENCAPSULATION) == 1;
    mirror->session = r->v[REC_MIRROR_SESSION].i;
    mirror->snaplen = r->v[REC_MIRROR_SNAPLEN].i;
    mirror->obj.enabled = r->v[REC_MIRROR_ENABLED].i;
    if (vlan > 0) {
        model_claim_printed(m, &mirror->obj, "output_vlan", "tag %u", mirror->output_vlan);
    }
}

static void
parse_list(struct svec *to, const struct rec_value *v)
{
    svec_clear(to);
    for (size_t i = 0; i < v->n; i++) {
        svec_add(to, v->list[i]);
    }
}

static void
parse_exporter(struct model *m, struct model_exporter *e, const struct rec *r)
{
    e->protocol = choice_of(r, REC_EXPORTER_PROTOCOL);
    parse_list(&e->targets, &r->v[REC_EXPORTER_TARGETS]);
    parse_list(&e->options, &r->v[REC_EXPORTER_OPTIONS]);
    e->sampling = r->v[REC_EXPORTER_SAMPLING].i;
    e->active_timeout = r->v[REC_EXPORTER_ACTIVE_TIMEOUT].i;
    e->cache_max_flows = r->v[REC_EXPORTER_CACHE_MAX_FLOWS].i;
    e->polling = r->v[REC_EXPORTER_POLLING].i;
    e->header = r->v[REC_EXPORTER_HEADER].i;
    e->obj.enabled = r->v[REC_EXPORTER_ENABLED].i;
    e->scoped = r->v[REC_EXPORTER_NETWORKS].n;
    if (!e->scoped) {
        model_claim_printed(m, &e->obj, "protocol", "exporter %s %s", r->v[REC_EXPORTER_PROTOCOL].s,
                            r->v[REC_EXPORTER_HOST].s);
    }
}

static void
parse_pif(struct model *m, struct model_pif *pif, const struct rec *r)
{
    set_text(&pif->device, r->v[REC_PIF_DEVICE].s);
    model_claim_printed(m, &pif->obj, "device", "pif %s %s", r->v[REC_PIF_HOST].s, pif->device);
}

/* A device is in one bond. */
static void
parse_bond(struct model *m, struct model_bond *bond, const struct rec *r)
{
    const char *host = r->v[REC_BOND_HOST].s;

    set_text(&bond->port, r->v[REC_BOND_PORT].s);
    set_text(&bond->primary, r->v[REC_BOND_PRIMARY].s);
    parse_list(&bond->interfaces, &r->v[REC_BOND_INTERFACES]);
    bond->mode = choice_of(r, REC_BOND_MODE);
    bond->lacp = choice_of(r, REC_BOND_LACP);
    bond->lacp_fast = r->v[REC_BOND_LACP_FAST].i;
    bond->updelay = r->v[REC_BOND_UPDELAY].i;
    bond->downdelay = r->v[REC_BOND_DOWNDELAY].i;
    model_claim_printed(m, &bond->obj, "port", "bond %s %s", host, bond->port);
    for (size_t i = 0; i < bond->interfaces.n; i++) {
        model_claim_printed(m, &bond->obj, "interfaces", "interface %s %s", host,
                            bond->interfaces.names[i]);
    }
}

/* What the rule's protocol and remote side leave of its ethertype. */
static enum model_ethertype
rule_ethertype(const struct model_rule *rule, enum model_ethertype stated)
{
    size_t n_v4 = 0, n = rule->remote_cidrs.n;

    if (stated != MODEL_ETH_ANY) {
        return stated;
    }
    if (rule->protocol == IPPROTO_ICMP || rule->protocol == IPPROTO_ICMPV6) {
        return rule->protocol == IPPROTO_ICMP ? MODEL_ETH_IPV4 : MODEL_ETH_IPV6;
    }
    for (size_t i = 0; i < n; i++) {
        n_v4 += model_prefix_is_v4(&rule->remote_cidrs.p[i]);
    }
    return !n || (n_v4 && n_v4 < n) ? MODEL_ETH_ANY : n_v4 ? MODEL_ETH_IPV4 : MODEL_ETH_IPV6;
}

static void
parse_rule(struct model_rule *rule, const struct rec *r)
{
    const struct rec_value *ports = &r->v[REC_RULE_PORTS];

    rule->mandatory = !strcmp(r->v[REC_RULE_PART].s, "mandatory");
    rule->order = r->v[REC_RULE_ORDER].i;
    rule->in = !strcmp(r->v[REC_RULE_DIRECTION].s, "in");
    rule->action = !strcmp(r->v[REC_RULE_ACTION].s, "allow") ? MODEL_ALLOW : MODEL_DENY;
    rule->protocol = rec_parse_protocol(r->v[REC_RULE_PROTOCOL].s);
    parse_prefixes(&rule->remote_cidrs, &r->v[REC_RULE_REMOTE_CIDRS]);
    model_prefixes_reduce(&rule->remote_cidrs);
    rule->ethertype = rule_ethertype(rule, choice_of(r, REC_RULE_ETHERTYPE));
    free(rule->ports);
    rule->n_ports = ports->n;
    rule->ports = ports->n ? xcalloc(ports->n, sizeof *rule->ports) : NULL;
    for (size_t i = 0; i < ports->n; i++) {
        rec_parse_ports(ports->list[i], &rule->ports[i].first, &rule->ports[i].last);
    }
    rule->icmp_type = r->v[REC_RULE_ICMP_TYPE].i;
    rule->icmp_code = r->v[REC_RULE_ICMP_CODE].i;
    rule->stateful = r->v[REC_RULE_STATEFUL].i;
    rule->log = r->v[REC_RULE_LOG].i;
    rule->sample = r->v[REC_RULE_SAMPLE].i;
    rule->obj.enabled = r->v[REC_RULE_ENABLED].i;
}

/* --- references ------------------------------------------------------------------------- */

static int
compare_uuids(const void *a, const void *b)
{
    return uuid_compare_3way(a, b);
}

/* One target has room in place, at 'one'. */
static struct model_edges
parse_refs(const struct rec_value *v, enum rec_type type, unsigned field, struct uuid *one)
{
    size_t n = type == REC_REF ? *v->s != '\0' : v->n, n_unique = 0;
    struct uuid *targets = n > 1 ? xcalloc(n, sizeof *targets) : one;

    for (size_t i = 0; i < n; i++) {
        bool ok = uuid_from_string(&targets[i], type == REC_REF ? v->s : v->list[i]);

        ovs_assert(ok);
    }
    if (n > 1) {
        qsort(targets, n, sizeof *targets, compare_uuids);
    }
    for (size_t i = 0; i < n; i++) {
        if (!n_unique || !uuid_equals(&targets[n_unique - 1], &targets[i])) {
            targets[n_unique++] = targets[i];
        }
    }
    return (struct model_edges){field, targets, n_unique};
}

static void
parse_edges(struct model *m, struct model_obj *obj, const struct rec *r)
{
    struct model_edges edges[N_FIELDS];
    struct uuid ones[N_FIELDS];
    size_t n = 0;

    for (unsigned f = 0; f < N_FIELDS; f++) {
        unsigned rec_field = model_fields[f].rec_field;

        if (model_fields[f].kind == obj->kind) {
            edges[n] = parse_refs(&r->v[rec_field], rec_tables[obj->kind].fields[rec_field].type, f,
                                  &ones[n]);
            n++;
        }
    }
    model_set_refs(m, obj, edges, n);
    for (size_t i = 0; i < n; i++) {
        if (edges[i].targets != &ones[i]) {
            free(CONST_CAST(struct uuid *, edges[i].targets));
        }
    }
}

void
model_parse(struct model *m, struct model_obj *obj, const struct rec *r)
{
    struct uuid policy = UUID_ZERO;
    struct model_claimed name;

    model_drop_claims(m, obj);
    set_text(&obj->name, r->name);
    obj->enabled = true;
    /* A key once given stays, or what carries it would have no owner. */
    obj->key = obj->key ? obj->key : r->key;
    parse_edges(m, obj, r);
    switch (obj->kind) {
    case REC_HOST:
        parse_host(m, model_host(obj), r);
        break;
    case REC_NETWORK:
        parse_network(m, model_network(obj), r);
        break;
    case REC_VM:
        parse_vm(m, model_vm(obj), r);
        break;
    case REC_VIF:
        parse_vif(m, model_vif(obj), r);
        break;
    case REC_GROUP:
        parse_group(m, model_group(obj), r);
        break;
    case REC_POLICY:
        parse_policy(model_policy(obj), r);
        break;
    case REC_RULE:
        uuid_from_string(&policy, r->v[REC_RULE_POLICY].s);
        parse_rule(model_rule(obj), r);
        break;
    case REC_MIRROR:
        parse_mirror(m, model_mirror(obj), r);
        break;
    case REC_EXPORTER:
        parse_exporter(m, model_exporter(obj), r);
        break;
    case REC_BOND:
        parse_bond(m, model_bond(obj), r);
        break;
    case REC_PIF:
        parse_pif(m, model_pif(obj), r);
        break;
    default:
        break;
    }
    name = model_claimed_name(obj->kind, obj->name, &policy);
    model_claim(m, obj, "name", &name);
    if (obj->key) {
        model_claim_number(m, obj, "key", obj->key);
    }
    model_claims_end(m, obj);
}

static void
keep_field(struct rec *to, const struct rec *from, unsigned field)
{
    const struct rec_value *v = &from->v[field];

    switch (rec_tables[from->kind].fields[field].type) {
    case REC_STRING:
    case REC_REF:
    case REC_ENUM:
        rec_set_string(to, field, v->s);
        break;
    case REC_INT:
    case REC_OPT_INT:
    case REC_BOOL:
        rec_set_int(to, field, v->i);
        break;
    case REC_STRINGS:
    case REC_REFS:
        for (size_t i = 0; i < v->n; i++) {
            rec_add(to, field, v->list[i]);
        }
        break;
    }
}

bool
model_parse_widened(struct model *m, struct model_obj *obj, const struct rec *r)
{
    static const unsigned of_rule[] = {REC_RULE_POLICY,    REC_RULE_PART,   REC_RULE_ORDER,
                                       REC_RULE_DIRECTION, REC_RULE_ACTION, REC_RULE_ENABLED};
    static const unsigned of_group[] = {REC_GROUP_TENANT, REC_GROUP_VIFS, REC_GROUP_VMS,
                                        REC_GROUP_GROUPS};
    const unsigned *kept = r->kind == REC_RULE ? of_rule : of_group;
    size_t n = r->kind == REC_RULE ? ARRAY_SIZE(of_rule) : ARRAY_SIZE(of_group);
    const char *field;
    struct rec wide;
    char why[512];
    bool ok;

    if ((r->kind != REC_RULE || strcmp(r->v[REC_RULE_ACTION].s, "deny")) && r->kind != REC_GROUP) {
        return false;
    }
    rec_init(&wide, r->kind);
    free(wide.name);
    wide.name = xstrdup(r->name);
    wide.key = r->key;
    for (size_t i = 0; i < n; i++) {
        keep_field(&wide, r, kept[i]);
    }
    rec_normalize(&wide);
    ok = rec_check(&wide, &field, why, sizeof why);
    if (ok) {
        model_parse(m, obj, &wide);
    }
    rec_destroy(&wide);
    return ok;
}

void
model_free_fields(struct model_obj *obj)
{
    switch (obj->kind) {
    case REC_HOST:
        free(model_host(obj)->ovsdb);
        free(model_host(obj)->openflow);
        free(model_host(obj)->bridge);
        free(model_host(obj)->uplink);
        break;
    case REC_VM:
        free(model_vm(obj)->resident_on);
        free(model_vm(obj)->destination);
        ovs_list_remove(&model_vm(obj)->resident_node);
        break;
    case REC_VIF:
        free(model_vif(obj)->ipv4_allowed.p);
        free(model_vif(obj)->ipv6_allowed.p);
        free(model_vif(obj)->addresses.p);
        free(model_vif(obj)->effective.p);
        free(model_vif(obj)->remembered);
        ovs_list_remove(&model_vif(obj)->remembered_node);
        break;
    case REC_GROUP:
        free(model_group(obj)->own.p);
        free(model_group(obj)->flat.p);
        free(model_group(obj)->flat_vifs);
        break;
    case REC_POLICY:
        free(model_policy(obj)->author);
        break;
    case REC_RULE:
        free(model_rule(obj)->remote_cidrs.p);
        free(model_rule(obj)->ports);
        break;
    case REC_EXPORTER:
        svec_destroy(&model_exporter(obj)->targets);
        svec_destroy(&model_exporter(obj)->options);
        break;
    case REC_BOND:
        svec_destroy(&model_bond(obj)->interfaces);
        free(model_bond(obj)->port);
        free(model_bond(obj)->primary);
        break;
    case REC_PIF:
        free(model_pif(obj)->device);
        break;
    default:
        break;
    }
}
