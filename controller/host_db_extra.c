/* Mirrors and flow exporters of a bridge, against what is wanted.
 *
 * A row of ours says so in external_ids; another's is left alone, and where it
 * is in our way (a bridge has one NetFlow, sFlow and IPFIX row each) that is the
 * host's error.  A mirror goes to a port: a vif's, a tunnel's, or, for a VLAN,
 * a patch port whose other end is on the same bridge too, where a flow tags the
 * copies for the uplink (Open vSwitch's own output_vlan would show them to
 * every vif). */
#include <config.h>

#include "host_extra.h"
#include "host_priv.h"

#include <stdlib.h>
#include <string.h>

#include "lib/vswitch-idl.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "smap.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(host_db_extra);

static bool
is_role(const struct smap *external_ids, const char *role)
{
    return !strcmp(smap_get_def(external_ids, HOST_DB_OURS, ""), role);
}

/* --- the ports of mirrors ---------------------------------------------------------- */

static void
tunnel_port_name(const struct host_mirror *hm, char name[16])
{
    snprintf(name, 16, "weft-m%" PRIx32, hm->key);
}

bool
host_db_extra_wants(const struct host *h, const char *port)
{
    for (size_t i = 0; h->extra && i < h->extra->n_mirrors; i++) {
        const struct host_mirror *hm = &h->extra->mirrors[i];
        char in[16], out[16];

        if (hm->how == HOST_MIRROR_VLAN) {
            host_mirror_vlan_ports(hm->vlan, in, out);
            if (!strcmp(port, in) || !strcmp(port, out)) {
                return true;
            }
        } else if (hm->how != HOST_MIRROR_PORT) {
            tunnel_port_name(hm, in);
            if (!strcmp(port, in)) {
                return true;
            }
        }
    }
    return false;
}

bool
host_db_extra_has_ports(const struct host *h)
{
    for (size_t i = 0; h->extra && i < h->extra->n_mirrors; i++) {
        if (h->extra->mirrors[i].how != HOST_MIRROR_PORT) {
            return true;
        }
    }
    return false;
}

/* The port with this name, type and options; NULL if it cannot be had. */
static const struct ovsrec_port *
want_port(struct host *h, const struct ovsrec_bridge *br, const char *name, const char *type,
          const struct smap *options)
{
    const struct ovsrec_bridge *where = NULL;
    const struct ovsrec_port *port = host_db_find_port(h, name, &where);

    if (!port) {
        return host_db_add_port(h, br, name, type, options, "mirror");
    }
    if (where != br || !is_role(&port->external_ids, "mirror") || port->n_interfaces != 1) {
        host_set_error(h->db_error, sizeof h->db_error, "mirror: port %s of bridge %s is not ours",
                       name, where->name);
        return NULL;
    }
    ovsrec_interface_set_type(port->interfaces[0], type);
    ovsrec_interface_set_options(port->interfaces[0], options);
    return port;
}

static const struct ovsrec_port *
want_patch(struct host *h, const struct ovsrec_bridge *br, const char *name, const char *peer)
{
    struct smap options = SMAP_CONST1(&options, "peer", peer);

    return want_port(h, br, name, "patch", &options);
}

static const struct ovsrec_port *
want_tunnel_port(struct host *h, const struct ovsrec_bridge *br, const struct host_mirror *hm)
{
    bool erspan = hm->how == HOST_MIRROR_ERSPAN;
    struct smap options = SMAP_INITIALIZER(&options);
    const struct ovsrec_port *port;
    char name[16];

    tunnel_port_name(hm, name);
    smap_add(&options, "remote_ip", hm->remote_ip);
    if (hm->local_ip[0]) {
        smap_add(&options, "local_ip", hm->local_ip);
    }
    if (erspan || hm->session) {
        smap_add_format(&options, "key", "%u", hm->session);
    }
    if (erspan) {
        smap_add(&options, "erspan_ver", "1");
        smap_add_format(&options, "erspan_idx", "%" PRIu32, hm->key & 0xfffff);
    }
    port = want_port(h, br, name, erspan ? "erspan" : "gre", &options);
    smap_destroy(&options);
    return port;
}

static const struct ovsrec_port *
want_output(struct host *h, const struct ovsrec_bridge *br, const struct host_mirror *hm)
{
    const struct ovsrec_bridge *where;
    const struct ovsrec_port *port;
    char in[16], out[16];

    if (hm->how == HOST_MIRROR_PORT) {
        port = host_db_find_port(h, hm->output_port, &where);
        return port && where == br ? port : NULL;
    }
    if (hm->how == HOST_MIRROR_VLAN) {
        host_mirror_vlan_ports(hm->vlan, in, out);
        port = want_patch(h, br, in, out);
        return want_patch(h, br, out, in) ? port : NULL;
    }
    return want_tunnel_port(h, br, hm);
}

/* --- mirrors ------------------------------------------------------------------------- */

static const struct ovsrec_mirror *
find_mirror(const struct ovsrec_bridge *br, const char *name)
{
    for (size_t i = 0; i < br->n_mirrors; i++) {
        if (!strcmp(br->mirrors[i]->name, name) &&
            is_role(&br->mirrors[i]->external_ids, "mirror")) {
            return br->mirrors[i];
        }
    }
    return NULL;
}

/* Ports of the bridge by their names; those that have gone are left out. */
static struct ovsrec_port **
find_ports(const struct ovsrec_bridge *br, const struct svec *names, size_t *n)
{
    struct ovsrec_port **ports = xmalloc((names->n + 1) * sizeof *ports);

    *n = 0;
    for (size_t i = 0; i < br->n_ports && names->n; i++) {
        if (svec_contains(names, br->ports[i]->name)) {
            ports[(*n)++] = br->ports[i];
        }
    }
    return ports;
}

/* The switch is to say when it has come to this transaction. */
static void
note_change(struct host *h)
{
    const struct ovsrec_open_vswitch *ovs = ovsrec_open_vswitch_first(h->db.idl);

    if (ovs && !h->db.mirrors_changed) {
        h->db.mirrors_changed = true;
        ovsdb_idl_txn_increment(h->db.txn, &ovs->header_, &ovsrec_open_vswitch_col_next_cfg, false);
    }
}

static bool
has_ports(struct ovsrec_port *const *ports, size_t n, const struct svec *names)
{
    for (size_t i = 0; i < n; i++) {
        if (!svec_contains(names, ports[i]->name)) {
            return false;
        }
    }
    return n == names->n;
}

static bool
is_as_wanted(const struct ovsrec_mirror *row, const struct host_mirror *hm,
             const struct ovsrec_port *output)
{
    return has_ports(row->select_src_port, row->n_select_src_port, &hm->out) &&
           has_ports(row->select_dst_port, row->n_select_dst_port, &hm->in) &&
           row->output_port == output && (row->n_snaplen ? *row->snaplen : 0) == hm->snaplen &&
           (row->n_select_vlan ? row->select_vlan[0] : -1) == hm->select && row->n_select_vlan < 2;
}

static void
want_mirror(struct host *h, const struct ovsrec_bridge *br, const struct host_mirror *hm,
            const struct ovsrec_port *output)
{
    const struct ovsrec_mirror *row = find_mirror(br, hm->name);
    struct ovsrec_port **from, **to;
    int64_t snaplen = hm->snaplen, select = hm->select;
    size_t n_from, n_to;

    if (row && output && is_as_wanted(row, hm, output)) {
        return;
    }
    if (!output) {
        if (row) {
            note_change(h);
            ovsrec_bridge_update_mirrors_delvalue(br, row);
        }
        return;
    }
    note_change(h);
    if (!row) {
        struct smap ids = SMAP_CONST1(&ids, HOST_DB_OURS, "mirror");

        row = ovsrec_mirror_insert(h->db.txn);
        ovsrec_mirror_set_name(row, hm->name);
        ovsrec_mirror_set_external_ids(row, &ids);
        ovsrec_bridge_update_mirrors_addvalue(br, row);
        VLOG_INFO("%s: mirror \"%s\" to port %s", h->name, hm->name, output->name);
    }
    from = find_ports(br, &hm->out, &n_from);
    to = find_ports(br, &hm->in, &n_to);
    ovsrec_mirror_set_select_src_port(row, from, n_from);
    ovsrec_mirror_set_select_dst_port(row, to, n_to);
    ovsrec_mirror_set_output_port(row, output);
    ovsrec_mirror_set_snaplen(row, &snaplen, snaplen ? 1 : 0);
    ovsrec_mirror_set_select_vlan(row, &select, select >= 0 ? 1 : 0);
    free(from);
    free(to);
}

static void
apply_mirrors(struct host *h, const struct ovsrec_bridge *br)
{
    const struct ovsrec_port *output = NULL;
    const struct host_extra *x = h->extra;
    size_t others = 0;

    for (size_t i = 0; i < br->n_mirrors; i++) {
        const struct ovsrec_mirror *row = br->mirrors[i];
        bool wanted = !is_role(&row->external_ids, "mirror");

        others += wanted;
        for (size_t j = 0; x && j < x->n_mirrors; j++) {
            wanted = wanted || !strcmp(x->mirrors[j].name, row->name);
        }
        if (!wanted) {
            VLOG_INFO("%s: mirror \"%s\" goes", h->name, row->name);
            note_change(h);
            ovsrec_bridge_update_mirrors_delvalue(br, row);
        }
    }
    if (x && x->n_mirrors && others + x->n_mirrors > HOST_MIRRORS_MAX) {
        host_set_error(h->db_error, sizeof h->db_error,
                       "mirrors: bridge %s has %" PRIuSIZE " of others, with the pool's %" PRIuSIZE
                       " more than the %d that a switch can have",
                       br->name, others, x->n_mirrors, HOST_MIRRORS_MAX);
    }
    for (size_t i = 0; x && i < x->n_mirrors; i++) {
        /* Parts of one mirror have one output. */
        if (!i || x->mirrors[i - 1].key != x->mirrors[i].key) {
            output = want_output(h, br, &x->mirrors[i]);
        }
        want_mirror(h, br, &x->mirrors[i], output);
    }
}

/* --- exporters ------------------------------------------------------------------------- */

static const struct smap *
exporter_ids(void)
{
    static struct smap ids = SMAP_INITIALIZER(&ids);

    if (smap_is_empty(&ids)) {
        smap_add(&ids, HOST_DB_OURS, "exporter");
    }
    return &ids;
}

static void
add_options(struct smap *to, const struct svec *options)
{
    for (size_t i = 0; i < options->n; i++) {
        const char *text = options->names[i], *equals = strchr(text, '=');
        char *key = xmemdup0(text, equals - text);

        if (strcmp(key, HOST_DB_OURS)) {
            smap_replace(to, key, equals + 1);
        }
        free(key);
    }
}

/* Whether the bridge's row may be made, set or removed; 'ids' are those of the
 * row that is there, or NULL. */
static bool
may_touch(struct host *h, const struct ovsrec_bridge *br, const struct smap *ids, bool wanted,
          const char *protocol)
{
    if (ids && !is_role(ids, "exporter")) {
        if (wanted) {
            host_set_error(h->db_error, sizeof h->db_error,
                           "exporter: bridge %s has settings of %s that are not ours", br->name,
                           protocol);
        }
        return false;
    }
    return wanted || ids;
}

#define TARGETS(EXPORTER) (const char **)(EXPORTER)->targets.names, (EXPORTER)->targets.n

static void
apply_netflow(struct host *h, const struct ovsrec_bridge *br, const struct host_exporter *e)
{
    const struct ovsrec_netflow *row = br->netflow;
    int64_t engine = e->domain & 0xff;
    struct smap ids;

    if (!may_touch(h, br, row ? &row->external_ids : NULL, e->targets.n, "NetFlow")) {
        return;
    }
    if (!e->targets.n) {
        ovsrec_bridge_set_netflow(br, NULL);
        return;
    }
    if (!row) {
        row = ovsrec_netflow_insert(h->db.txn);
        ovsrec_bridge_set_netflow(br, row);
    }
    smap_clone(&ids, exporter_ids());
    add_options(&ids, &e->options); /* it has no other_config */
    ovsrec_netflow_set_external_ids(row, &ids);
    smap_destroy(&ids);
    ovsrec_netflow_set_targets(row, TARGETS(e));
    ovsrec_netflow_set_active_timeout(row, e->active_timeout);
    ovsrec_netflow_set_engine_id(row, &engine, 1);
}

static void
apply_sflow(struct host *h, const struct ovsrec_bridge *br, const struct host_exporter *e)
{
    const struct ovsrec_sflow *row = br->sflow;
    int64_t sampling = e->sampling, polling = e->polling, header = e->header;

    if (!may_touch(h, br, row ? &row->external_ids : NULL, e->targets.n, "sFlow")) {
        return;
    }
    if (!e->targets.n) {
        ovsrec_bridge_set_sflow(br, NULL);
        return;
    }
    if (!row) {
        row = ovsrec_sflow_insert(h->db.txn);
        ovsrec_sflow_set_external_ids(row, exporter_ids());
        ovsrec_bridge_set_sflow(br, row);
    }
    ovsrec_sflow_set_targets(row, TARGETS(e));
    ovsrec_sflow_set_sampling(row, &sampling, sampling ? 1 : 0);
    ovsrec_sflow_set_polling(row, &polling, polling ? 1 : 0);
    ovsrec_sflow_set_header(row, &header, header ? 1 : 0);
    ovsrec_sflow_set_agent(row, e->sflow_agent);
}

static void
set_ipfix(const struct ovsrec_ipfix *row, const struct host_exporter *e)
{
    int64_t sampling = e->sampling, domain = e->domain;
    int64_t timeout = e->active_timeout, max_flows = e->cache_max_flows;
    struct smap options = SMAP_INITIALIZER(&options);

    add_options(&options, &e->options);
    ovsrec_ipfix_set_targets(row, TARGETS(e));
    ovsrec_ipfix_set_sampling(row, &sampling, sampling ? 1 : 0);
    ovsrec_ipfix_set_obs_domain_id(row, &domain, 1);
    ovsrec_ipfix_set_cache_active_timeout(row, &timeout, timeout ? 1 : 0);
    ovsrec_ipfix_set_cache_max_flows(row, &max_flows, max_flows ? 1 : 0);
    ovsrec_ipfix_set_other_config(row, &options);
    smap_destroy(&options);
}

/* What sample actions of flows are exported by; NULL: nothing. */
static void
apply_collector_set(struct host *h, const struct ovsrec_bridge *br,
                    const struct ovsrec_ipfix *ipfix)
{
    const struct ovsrec_flow_sample_collector_set *row, *next, *ours = NULL;

    OVSREC_FLOW_SAMPLE_COLLECTOR_SET_FOR_EACH_SAFE(row, next, h->db.idl)
    {
        if (is_role(&row->external_ids, "exporter") && (row->bridge != br || !ipfix)) {
            ovsrec_flow_sample_collector_set_delete(row);
        } else if (row->bridge == br && row->id == HOST_COLLECTOR_SET) {
            ours = row;
        }
    }
    if (!ipfix || (ours && !is_role(&ours->external_ids, "exporter"))) {
        return;
    }
    if (!ours) {
        ours = ovsrec_flow_sample_collector_set_insert(h->db.txn);
        ovsrec_flow_sample_collector_set_set_external_ids(ours, exporter_ids());
        ovsrec_flow_sample_collector_set_set_id(ours, HOST_COLLECTOR_SET);
        ovsrec_flow_sample_collector_set_set_bridge(ours, br);
    }
    ovsrec_flow_sample_collector_set_set_ipfix(ours, ipfix);
}

static void
apply_ipfix(struct host *h, const struct ovsrec_bridge *br, const struct host_exporter *e)
{
    const struct ovsrec_ipfix *row = br->ipfix;

    if (!may_touch(h, br, row ? &row->external_ids : NULL, e->targets.n, "IPFIX")) {
        apply_collector_set(h, br, NULL);
        return;
    }
    if (!e->targets.n) {
        ovsrec_bridge_set_ipfix(br, NULL);
        apply_collector_set(h, br, NULL);
        return;
    }
    if (!row) {
        row = ovsrec_ipfix_insert(h->db.txn);
        ovsrec_ipfix_set_external_ids(row, exporter_ids());
        ovsrec_bridge_set_ipfix(br, row);
    }
    set_ipfix(row, e);
    apply_collector_set(h, br, row);
}

static const struct host_scope *
find_scope(const struct host_extra *x, int64_t set)
{
    for (size_t i = 0; x && i < x->n_scopes; i++) {
        if (HOST_SCOPE_SET(x->scopes[i].key) == set) {
            return &x->scopes[i];
        }
    }
    return NULL;
}

/* A row of IPFIX at a set that no flow names: the exporter that finds the networks
 * there is weft-vswitchd's, and to any other switch it means nothing. */
static void
want_scope(struct host *h, const struct ovsrec_bridge *br, const struct host_scope *scope)
{
    const struct ovsrec_flow_sample_collector_set *row = NULL, *other;
    const struct ovsrec_ipfix *ipfix;
    struct smap ids = SMAP_INITIALIZER(&ids);

    OVSREC_FLOW_SAMPLE_COLLECTOR_SET_FOR_EACH(other, h->db.idl)
    {
        if (other->bridge == br && other->id == HOST_SCOPE_SET(scope->key)) {
            row = other;
        }
    }
    if (row && !is_role(&row->external_ids, "scope")) {
        host_set_error(h->db_error, sizeof h->db_error,
                       "exporter: collector set %" PRId64 " of bridge %s is not ours", row->id,
                       br->name);
        return;
    }
    if (!row) {
        row = ovsrec_flow_sample_collector_set_insert(h->db.txn);
        ovsrec_flow_sample_collector_set_set_id(row, HOST_SCOPE_SET(scope->key));
        ovsrec_flow_sample_collector_set_set_bridge(row, br);
    }
    ipfix = row->ipfix;
    if (!ipfix) {
        ipfix = ovsrec_ipfix_insert(h->db.txn);
        ovsrec_ipfix_set_external_ids(ipfix, exporter_ids());
        ovsrec_flow_sample_collector_set_set_ipfix(row, ipfix);
    }
    smap_add(&ids, HOST_DB_OURS, "scope");
    smap_add(&ids, "weft-networks", scope->networks);
    ovsrec_flow_sample_collector_set_set_external_ids(row, &ids);
    smap_destroy(&ids);
    set_ipfix(ipfix, &scope->exporter);
}

static void
apply_scopes(struct host *h, const struct ovsrec_bridge *br)
{
    const struct host_extra *x =
        fleet_scope_can(h->status.switch_type, h->status.datapath_type) ? h->extra : NULL;
    const struct ovsrec_flow_sample_collector_set *row, *next;

    OVSREC_FLOW_SAMPLE_COLLECTOR_SET_FOR_EACH_SAFE(row, next, h->db.idl)
    {
        if (is_role(&row->external_ids, "scope") &&
            (row->bridge != br || !find_scope(x, row->id))) {
            ovsrec_flow_sample_collector_set_delete(row);
        }
    }
    for (size_t i = 0; x && i < x->n_scopes; i++) {
        want_scope(h, br, &x->scopes[i]);
    }
}

static void
set_id(const struct ovsrec_interface *iface, const char *name, const char *text)
{
    const char *has = smap_get(&iface->external_ids, name);

    if (*text && (!has || strcmp(has, text))) {
        ovsrec_interface_update_external_ids_setkey(iface, name, text);
    } else if (!*text && has) {
        ovsrec_interface_update_external_ids_delkey(iface, name);
    }
}

/* Which vif of which network a port is, for the records of weft-vswitchd. */
static void
set_key(const struct ovsrec_interface *iface, const char *name, uint32_t key)
{
    char text[16] = "";

    if (key) {
        snprintf(text, sizeof text, "%" PRIu32, key);
    }
    set_id(iface, name, text);
}

/* Whose the networks are. */
static void
apply_tenants(const struct host_extra *x, const struct ovsrec_bridge *br)
{
    const char *has = smap_get(&br->external_ids, "weft-tenants");
    char *text = x && x->tenants.n ? svec_join(&x->tenants, " ", "") : NULL;

    if (text && (!has || strcmp(has, text))) {
        ovsrec_bridge_update_external_ids_setkey(br, "weft-tenants", text);
    } else if (!text && has) {
        ovsrec_bridge_update_external_ids_delkey(br, "weft-tenants");
    }
    free(text);
}

static int
compare_port(const void *name, const void *keys)
{
    return strcmp(name, ((const struct host_port_keys *)keys)->port);
}

static void
apply_keys(struct host *h, const struct ovsrec_bridge *br)
{
    const struct host_extra *x = h->extra;

    for (size_t i = 0; i < br->n_ports; i++) {
        const struct ovsrec_port *port = br->ports[i];
        const struct host_port_keys *keys =
            x && x->n_keys ? bsearch(port->name, x->keys, x->n_keys, sizeof *x->keys, compare_port)
                           : NULL;

        if (port->n_interfaces == 1) {
            set_key(port->interfaces[0], "weft-vif-key", keys ? keys->vif : 0);
            set_key(port->interfaces[0], "weft-network-key", keys ? keys->network : 0);
        }
        for (size_t j = 0; j < port->n_interfaces; j++) {
            set_id(port->interfaces[j], "weft-network-tags", keys ? keys->tags : "");
        }
    }
}

void
host_db_apply_extra(struct host *h, const struct ovsrec_bridge *br)
{
    static const struct host_exporter none = {.sampling = 0};
    const struct host_exporter *e = h->extra ? h->extra->exporters : NULL;

    apply_mirrors(h, br);
    apply_keys(h, br);
    apply_tenants(h->extra, br);
    apply_netflow(h, br, e ? &e[HOST_NETFLOW] : &none);
    apply_sflow(h, br, e ? &e[HOST_SFLOW] : &none);
    apply_ipfix(h, br, e ? &e[HOST_IPFIX] : &none);
    apply_scopes(h, br);
}
