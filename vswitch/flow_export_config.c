/* Which bridges export flows, how, and whose ports are whose: see
 * flow_export.h.
 *
 * The database is read by a connection of its own, as the bridges' is private
 * to them. */
#include <config.h>

#include "flow_export.h"

#include <stdlib.h>
#include <string.h>

#include "dp.h"
#include "dpif.h"
#include "flow_export_priv.h"
#include "netdev-provider.h"
#include "netdev-vport.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "smap.h"
#include "timeval.h"
#include "util.h"
#include "vswitch-idl.h"

VLOG_DEFINE_THIS_MODULE(flow_export_config);

static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);

#define IDLE_S 15
#define ACTIVE_S 60
#define CACHE_MAX (1u << 16)
#define AGAIN_MS 5000 /* ports come and go without the database's doing */

static struct ovsdb_idl *idl;
static unsigned seen_seqno;
static long long again_at;
static struct dpif *dpif; /* open while flows are exported */

/* --- settings ------------------------------------------------------------------------ */

/* A row's own keys, then the bridge's. */
struct keys {
    const struct smap *row, *bridge;
    const char *name; /* the bridge's, for messages */
};

static const char *
get(const struct keys *k, const char *key)
{
    const char *v = smap_get(k->row, key);

    return v ? v : smap_get(k->bridge, key);
}

static unsigned
get_uint(const struct keys *k, const char *key, unsigned min, unsigned max, unsigned def)
{
    const char *text = get(k, key);
    unsigned value;

    if (!text) {
        return def;
    }
    if (!str_to_uint(text, 10, &value) || value < min || value > max) {
        VLOG_WARN_RL(&rl, "bridge %s: %s=%s is not a number from %u to %u: %u is used", k->name,
                     key, text, min, max, def);
        return def;
    }
    return value;
}

static enum export_version
get_version(const struct keys *k, enum export_version def)
{
    const char *v = get(k, "weft-version");

    if (!v) {
        return def;
    }
    if (!strcmp(v, "v5") || !strcmp(v, "5")) {
        return EXPORT_V5;
    } else if (!strcmp(v, "v9") || !strcmp(v, "9")) {
        return EXPORT_V9;
    } else if (!strcmp(v, "ipfix") || !strcmp(v, "10")) {
        return EXPORT_IPFIX;
    }
    VLOG_WARN_RL(&rl, "bridge %s: weft-version=%s is none of v5, v9 and ipfix", k->name, v);
    return def;
}

/* The file of that key; else the switch's own, as "ovs-vsctl set-ssl" states it. */
static void
copy_file(char to[EXPORT_FILE_MAX], const struct keys *k, const char *key, const char *own)
{
    const char *file = get(k, key);

    ovs_strlcpy(to, file ? file : own ? own : "", EXPORT_FILE_MAX);
}

/* The settings of the datapath's records are one for all bridges: who asks for
 * most gets it. */
static void
want(struct record_settings *s, const struct keys *k, unsigned active_s, unsigned max,
     unsigned sampling)
{
    unsigned idle = get_uint(k, "weft-idle-timeout", 1, 3600, IDLE_S) * 1000;
    unsigned active = get_uint(k, "weft-active-timeout", 1, 86400, active_s) * 1000;

    max = get_uint(k, "weft-cache-max", 64, 1u << 22, max);
    s->idle_ms = MIN(s->idle_ms, idle);
    s->active_ms = MIN(s->active_ms, active);
    s->max = MAX(s->max, max);
    s->sampling = MIN(s->sampling, sampling);
}

static void
set_targets(struct export_config *c, char *const *targets, size_t n)
{
    if (n > EXPORT_COLLECTORS_MAX) {
        VLOG_WARN_RL(&rl, "%zu collectors are more than %u: the last ones get nothing", n,
                     EXPORT_COLLECTORS_MAX);
        n = EXPORT_COLLECTORS_MAX;
    }
    c->n_targets = n;
    for (size_t i = 0; i < n; i++) {
        ovs_strlcpy(c->targets[i], targets[i], EXPORT_TARGET_MAX);
    }
}

static struct plan_export *
add_export(struct plan_bridge *b, const struct keys *k, enum export_version def)
{
    const struct ovsrec_open_vswitch *all = ovsrec_open_vswitch_first(idl);
    const struct ovsrec_ssl *own = all ? all->ssl : NULL;
    struct export_config *c;
    struct plan_export *e;

    b->exports = xrealloc(b->exports, (b->n_exports + 1) * sizeof *b->exports);
    e = &b->exports[b->n_exports++];
    memset(e, 0, sizeof *e);
    c = &e->config;
    c->version = get_version(k, def);
    c->refresh_s = get_uint(k, "weft-template-refresh", 1, 60, 60);
    c->source_port = get_uint(k, "weft-source-port", 0, 65535, 0);
    c->queue_bytes = get_uint(k, "weft-queue-bytes", 65536, 1u << 30, EXPORT_QUEUE_DEFAULT);
    copy_file(c->key, k, "weft-private-key", own ? own->private_key : NULL);
    copy_file(c->certificate, k, "weft-certificate", own ? own->certificate : NULL);
    copy_file(c->ca, k, "weft-ca-cert", own ? own->ca_cert : NULL);
    return e;
}

static void
plan_netflow(struct plan *p, struct plan_bridge *b, const struct ovsrec_bridge *br)
{
    const struct ovsrec_netflow *row = br->netflow;
    const struct keys k = {&row->external_ids, &br->other_config, br->name};
    struct export_config *c = &add_export(b, &k, EXPORT_V5)->config;
    uint8_t type = row->engine_type ? *row->engine_type : 0;
    uint8_t id = row->engine_id ? *row->engine_id : 0;

    c->domain = type << 8 | id;
    set_targets(c, row->targets, row->n_targets);
    want(&p->settings, &k, row->active_timeout > 0 ? row->active_timeout : ACTIVE_S, CACHE_MAX,
         get_uint(&k, "weft-sampling", 1, UINT16_MAX, 1));
}

/* 'networks': only these; NULL: all. */
static void
plan_ipfix(struct plan *p, struct plan_bridge *b, const struct ovsrec_bridge *br,
           const struct ovsrec_ipfix *row, const char *networks)
{
    const struct keys k = {&row->other_config, &br->other_config, br->name};
    struct plan_export *e = add_export(b, &k, EXPORT_IPFIX);
    struct export_config *c = &e->config;
    unsigned active = row->cache_active_timeout ? *row->cache_active_timeout : 0;
    unsigned max = row->cache_max_flows ? *row->cache_max_flows : 0;

    if (networks) {
        plan_scope(e, networks);
    }
    c->domain = row->obs_domain_id ? *row->obs_domain_id : 0;
    set_targets(c, row->targets, row->n_targets);
    want(&p->settings, &k, active ? active : ACTIVE_S, max ? MAX(max, 64) : CACHE_MAX,
         get_uint(&k, "weft-sampling", 1, UINT16_MAX, row->sampling ? *row->sampling : 1));
}

/* --- ports ----------------------------------------------------------------------------- */

static void
describe(struct export_interface *i, const struct ovsrec_interface *row)
{
    const struct smap *ids = &row->external_ids;

    memset(i, 0, sizeof *i);
    i->index = *row->ofport;
    ovs_strlcpy(i->name, row->name, sizeof i->name);
    ovs_strlcpy(i->description, smap_get_def(ids, "vm-name", ""), sizeof i->description);
    ovs_strlcpy(i->vif, smap_get_def(ids, "xs-vif-uuid", ""), sizeof i->vif);
    ovs_strlcpy(i->vm, smap_get_def(ids, "xs-vm-uuid", ""), sizeof i->vm);
    ovs_strlcpy(i->network, smap_get_def(ids, "xs-network-uuid", ""), sizeof i->network);
}

/* The datapath's port of an interface.  Tunnels of a kind (and UDP port) share one. */
static bool
find_port(const struct ovsrec_interface *row, odp_port_t *port_no)
{
    struct netdev *netdev = netdev_from_name(row->name);
    char name[NETDEV_VPORT_NAME_BUFSIZE];
    struct dpif_port port;
    int error;

    if (!netdev) {
        return false;
    }
    error =
        dpif_port_query_by_name(dpif, netdev_vport_get_dpif_port(netdev, name, sizeof name), &port);
    if (!error) {
        *port_no = port.port_no;
        dpif_port_destroy(&port);
    }
    netdev_close(netdev);
    return !error;
}

/* What comes in at a device comes in at the bridge's interface 'row'.  Returns the
 * datapath's port; UINT32_MAX: there is none. */
static uint32_t
plan_port(struct plan *p, size_t index, const struct ovsrec_interface *row,
          const struct ovsrec_interface *device)
{
    struct plan_port *port;
    odp_port_t port_no;

    if (!find_port(device, &port_no) || odp_to_u32(port_no) >= ENGINE_PORTS_MAX) {
        return UINT32_MAX;
    }
    port = &p->ports[odp_to_u32(port_no)];
    port->exists = true;
    port->bridge = index + 1;
    port->of_port = *row->ofport;
    port->vif = smap_get_uint(&row->external_ids, "weft-vif-key", 0);
    port->network = smap_get_uint(&row->external_ids, "weft-network-key", 0);
    port->since = time_wall_msec();
    plan_port_tags(port, smap_get_def(&row->external_ids, "weft-network-tags", ""));
    return odp_to_u32(port_no);
}

/* The bridge that the pool's controller joins to others for its bond alone, if the patch
 * port leads there; else NULL. */
static const struct ovsrec_bridge *
bond_behind(const struct ovsrec_interface *patch)
{
    const char *peer = smap_get_def(&patch->options, "peer", "");
    const struct ovsrec_bridge *br;

    OVSREC_BRIDGE_FOR_EACH (br, idl) {
        bool bond = !strcmp(smap_get_def(&br->external_ids, "weft-controller", ""), "uplink");

        for (size_t i = 0; bond && i < br->n_ports; i++) {
            if (!strcmp(br->ports[i]->name, peer)) {
                return br;
            }
        }
    }
    return NULL;
}

/* The bond's members are where packets come in; returns the port of one. */
static uint32_t
plan_bond(struct plan *p, size_t index, const struct ovsrec_interface *patch)
{
    const struct ovsrec_bridge *br = bond_behind(patch);
    uint32_t some = UINT32_MAX;

    for (size_t i = 0; br && i < br->n_ports; i++) {
        for (size_t j = 0; j < br->ports[i]->n_interfaces; j++) {
            const struct ovsrec_interface *device = br->ports[i]->interfaces[j];
            uint32_t port_no = strcmp(device->type, "patch") && strcmp(device->type, "internal")
                                   ? plan_port(p, index, patch, device)
                                   : UINT32_MAX;

            some = port_no != UINT32_MAX ? port_no : some;
        }
    }
    return some;
}

static void
plan_interface(struct plan *p, struct plan_bridge *b, size_t index,
               const struct ovsrec_interface *row)
{
    size_t n;

    if (!row->n_ofport || *row->ofport <= 0) {
        return;
    }
    n = b->n_interfaces++;
    b->interfaces = xrealloc(b->interfaces, (n + 1) * sizeof *b->interfaces);
    b->interface_ports = xrealloc(b->interface_ports, (n + 1) * sizeof *b->interface_ports);
    describe(&b->interfaces[n], row);
    b->interface_ports[n] =
        strcmp(row->type, "patch") ? plan_port(p, index, row, row) : plan_bond(p, index, row);
}

/* The networks whose packets the set's IPFIX row is for, "" for none; NULL: it is no
 * exporter of ours of this bridge, but Open vSwitch's own for sample actions. */
static const char *
scope_of(const struct ovsrec_flow_sample_collector_set *set, const struct ovsrec_bridge *br)
{
    return set->bridge == br && set->ipfix && set->ipfix->n_targets
               ? smap_get(&set->external_ids, "weft-networks")
               : NULL;
}

static bool
exports(const struct ovsrec_bridge *br)
{
    bool ours = br->datapath_type[0] ? !strcmp(br->datapath_type, DP_TYPE) : dpif_weft_is_default;
    bool any = (br->netflow && br->netflow->n_targets) || (br->ipfix && br->ipfix->n_targets);
    const struct ovsrec_flow_sample_collector_set *set;

    OVSREC_FLOW_SAMPLE_COLLECTOR_SET_FOR_EACH(set, idl)
    {
        any = any || scope_of(set, br);
    }
    return ours && any;
}

static void
plan_bridge(struct plan *p, size_t index, const struct ovsrec_bridge *br)
{
    const struct ovsrec_flow_sample_collector_set *set;
    struct plan_bridge *b = &p->bridges[index];

    ovs_strlcpy(b->name, br->name, sizeof b->name);
    plan_tenants(b, smap_get_def(&br->external_ids, "weft-tenants", ""));
    if (br->netflow && br->netflow->n_targets) {
        plan_netflow(p, b, br);
    }
    if (br->ipfix && br->ipfix->n_targets) {
        plan_ipfix(p, b, br, br->ipfix, NULL);
    }
    OVSREC_FLOW_SAMPLE_COLLECTOR_SET_FOR_EACH(set, idl)
    {
        if (scope_of(set, br)) {
            plan_ipfix(p, b, br, set->ipfix, scope_of(set, br));
        }
    }
    for (size_t i = 0; i < br->n_ports; i++) {
        for (size_t j = 0; j < br->ports[i]->n_interfaces; j++) {
            plan_interface(p, b, index, br->ports[i]->interfaces[j]);
        }
    }
}

/* What other ports there are: packets may leave through them, too. */
static void
plan_others(struct plan *p)
{
    struct dpif_port_dump dump;
    struct dpif_port port;

    DPIF_PORT_FOR_EACH(&port, &dump, dpif)
    {
        if (odp_to_u32(port.port_no) < ENGINE_PORTS_MAX) {
            p->ports[odp_to_u32(port.port_no)].exists = true;
        }
    }
}

static struct plan *
make_plan(size_t n)
{
    const struct ovsrec_bridge *br;
    struct plan *p = xzalloc(sizeof *p);

    p->ports = xcalloc(ENGINE_PORTS_MAX, sizeof *p->ports);
    p->bridges = xcalloc(n, sizeof *p->bridges);
    p->settings = (struct record_settings){UINT32_MAX, UINT32_MAX, 0, UINT32_MAX};
    OVSREC_BRIDGE_FOR_EACH (br, idl) {
        if (exports(br) && p->n_bridges < n) {
            plan_bridge(p, p->n_bridges++, br);
        }
    }
    for (size_t i = 0; i < p->n_bridges; i++) { /* what is so, of which they tell */
        for (unsigned j = 0; j < p->bridges[i].n_exports; j++) {
            p->bridges[i].exports[j].config.sampling = p->settings.sampling;
        }
    }
    plan_others(p);
    return p;
}

void
plan_destroy(struct plan *p)
{
    if (p) {
        for (size_t i = 0; i < p->n_bridges; i++) {
            struct plan_bridge *b = &p->bridges[i];

            for (unsigned j = 0; j < b->n_exports; j++) {
                free(b->exports[j].networks);
            }
            free(b->exports);
            free(b->tenants);
            free(b->interfaces);
            free(b->interface_ports);
        }
        for (size_t i = 0; i < ENGINE_PORTS_MAX; i++) {
            free(p->ports[i].tags);
        }
        free(p->bridges);
        free(p->ports);
        free(p);
    }
}

/* --- driving it ----------------------------------------------------------------------------- */

static void
end(void)
{
    if (dpif) {
        flow_export_apply(NULL, NULL);
        dpif_close(dpif);
        dpif = NULL;
    }
}

static void
reconsider(void)
{
    const struct ovsrec_bridge *br;
    size_t n = 0;

    OVSREC_BRIDGE_FOR_EACH (br, idl) {
        n += exports(br);
    }
    if (!n) {
        end();
        return;
    }
    if (!dpif && dpif_open("ovs-" DP_TYPE, DP_TYPE, &dpif)) {
        dpif = NULL; /* not there yet */
        again_at = time_msec() + 100;
        return;
    }
    flow_export_apply(dp_of(dpif), make_plan(n));
}

void
flow_export_init(const char *database)
{
    static const struct ovsdb_idl_column *const columns[] = {
        &ovsrec_open_vswitch_col_ssl,
        &ovsrec_ssl_col_private_key,
        &ovsrec_ssl_col_certificate,
        &ovsrec_ssl_col_ca_cert,
        &ovsrec_bridge_col_name,
        &ovsrec_bridge_col_datapath_type,
        &ovsrec_bridge_col_ports,
        &ovsrec_bridge_col_netflow,
        &ovsrec_bridge_col_ipfix,
        &ovsrec_bridge_col_other_config,
        &ovsrec_bridge_col_external_ids,
        &ovsrec_port_col_name,
        &ovsrec_port_col_interfaces,
        &ovsrec_interface_col_name,
        &ovsrec_interface_col_type,
        &ovsrec_interface_col_ofport,
        &ovsrec_interface_col_options,
        &ovsrec_interface_col_external_ids,
        &ovsrec_netflow_col_targets,
        &ovsrec_netflow_col_engine_type,
        &ovsrec_netflow_col_engine_id,
        &ovsrec_netflow_col_active_timeout,
        &ovsrec_netflow_col_external_ids,
        &ovsrec_ipfix_col_targets,
        &ovsrec_ipfix_col_sampling,
        &ovsrec_ipfix_col_obs_domain_id,
        &ovsrec_ipfix_col_cache_active_timeout,
        &ovsrec_ipfix_col_cache_max_flows,
        &ovsrec_ipfix_col_other_config,
        &ovsrec_flow_sample_collector_set_col_bridge,
        &ovsrec_flow_sample_collector_set_col_ipfix,
        &ovsrec_flow_sample_collector_set_col_external_ids,
    };

    idl = ovsdb_idl_create(database, &ovsrec_idl_class, false, true);
    for (size_t i = 0; i < ARRAY_SIZE(columns); i++) {
        ovsdb_idl_add_column(idl, columns[i]);
    }
    flow_export_show_init();
}

void
flow_export_run(void)
{
    ovsdb_idl_run(idl);
    if (ovsdb_idl_has_ever_connected(idl) &&
        (ovsdb_idl_get_seqno(idl) != seen_seqno || time_msec() >= again_at)) {
        seen_seqno = ovsdb_idl_get_seqno(idl);
        again_at = time_msec() + AGAIN_MS;
        reconsider();
    }
}

void
flow_export_wait(void)
{
    ovsdb_idl_wait(idl);
    if (dpif) {
        poll_timer_wait_until(again_at);
    }
}

void
flow_export_exit(void)
{
    end();
    ovsdb_idl_destroy(idl);
    idl = NULL;
}
