/* Theory of Operation
 * ===================
 *
 * A reconciler over the host's own database.  Whenever the database or the
 * configuration has changed and no transaction is under way, it compares the
 * bridge with what is stated (host_db_want.c) and writes the difference as one
 * transaction; a comparison that finds none makes the bridge ready, and only
 * then does OpenFlow start.  It keeps no memory of what it did: what is ours
 * says so in external_ids.
 *
 * The same pass reads the ports.  Only the columns below are monitored, so
 * that statistics cause no traffic. */
#include <config.h>

#include "host_priv.h"

#include <stdlib.h>
#include <string.h>

#include "lib/vswitch-idl.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "packets.h"
#include "smap.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(host_ovsdb);

/* After the database refused a transaction. */
#define RETRY_MS 1000
/* After the host sent more than a host's database can be, doubled each time it
 * does so again soon. */
#define REOPEN_MIN_MS 1000
#define REOPEN_MAX_MS 60000
/* Comparisons: so many at once, then one for each TOKENS_PER_LOOK ms.  A host
 * whose ports come and go faster, or that has many, is heard less often, for each
 * change may concern the whole pool. */
#define LOOKS 100
#define TOKENS_PER_LOOK 50
#define PORTS_PER_TOKEN 16
#define LOOK_LATER_MS 100
#define PROBE_MS 5000
/* A host that says it has more is not believed. */
#define MAX_PORTS 16384
#define OFPORT_END 0xff00

static void
add_columns(struct ovsdb_idl *idl)
{
    static const struct ovsdb_idl_column *const columns[] = {
        &ovsrec_open_vswitch_col_bridges,
        &ovsrec_open_vswitch_col_cur_cfg,
        &ovsrec_open_vswitch_col_datapath_types,
        &ovsrec_open_vswitch_col_ovs_version,
        &ovsrec_bridge_col_name,
        &ovsrec_bridge_col_ports,
        &ovsrec_bridge_col_fail_mode,
        &ovsrec_bridge_col_protocols,
        &ovsrec_bridge_col_datapath_type,
        &ovsrec_bridge_col_controller,
        &ovsrec_bridge_col_other_config,
        &ovsrec_bridge_col_external_ids,
        &ovsrec_bridge_col_mirrors,
        &ovsrec_bridge_col_netflow,
        &ovsrec_bridge_col_sflow,
        &ovsrec_bridge_col_ipfix,
        &ovsrec_mirror_col_name,
        &ovsrec_mirror_col_select_src_port,
        &ovsrec_mirror_col_select_dst_port,
        &ovsrec_mirror_col_select_vlan,
        &ovsrec_mirror_col_output_port,
        &ovsrec_mirror_col_snaplen,
        &ovsrec_mirror_col_external_ids,
        &ovsrec_netflow_col_targets,
        &ovsrec_netflow_col_active_timeout,
        &ovsrec_netflow_col_engine_id,
        &ovsrec_netflow_col_external_ids,
        &ovsrec_sflow_col_targets,
        &ovsrec_sflow_col_sampling,
        &ovsrec_sflow_col_polling,
        &ovsrec_sflow_col_header,
        &ovsrec_sflow_col_agent,
        &ovsrec_sflow_col_external_ids,
        &ovsrec_ipfix_col_targets,
        &ovsrec_ipfix_col_sampling,
        &ovsrec_ipfix_col_obs_domain_id,
        &ovsrec_ipfix_col_cache_active_timeout,
        &ovsrec_ipfix_col_cache_max_flows,
        &ovsrec_ipfix_col_other_config,
        &ovsrec_ipfix_col_external_ids,
        &ovsrec_flow_sample_collector_set_col_id,
        &ovsrec_flow_sample_collector_set_col_bridge,
        &ovsrec_flow_sample_collector_set_col_ipfix,
        &ovsrec_flow_sample_collector_set_col_external_ids,
        &ovsrec_controller_col_target,
        &ovsrec_controller_col_connection_mode,
        &ovsrec_controller_col_external_ids,
        &ovsrec_port_col_name,
        &ovsrec_port_col_interfaces,
        &ovsrec_port_col_external_ids,
        &ovsrec_port_col_bond_mode,
        &ovsrec_port_col_bond_updelay,
        &ovsrec_port_col_bond_downdelay,
        &ovsrec_port_col_lacp,
        &ovsrec_port_col_tag,
        &ovsrec_port_col_other_config,
        &ovsrec_interface_col_name,
        &ovsrec_interface_col_type,
        &ovsrec_interface_col_options,
        &ovsrec_interface_col_ofport,
        &ovsrec_interface_col_mac_in_use,
        &ovsrec_interface_col_link_state,
        &ovsrec_interface_col_link_speed,
        &ovsrec_interface_col_external_ids,
    };

    for (size_t i = 0; i < ARRAY_SIZE(columns); i++) {
        ovsdb_idl_add_column(idl, columns[i]);
    }
}

/* Whatever was under way may or may not have happened. */
static void
drop_txn(struct db_conn *db)
{
    if (db->txn) {
        ovsdb_idl_txn_destroy(db->txn);
        db->txn = NULL;
    }
}

static void
create_idl(struct host *h)
{
    struct db_conn *db = &h->db;

    db->idl = ovsdb_idl_create(h->cfg.ovsdb, &ovsrec_idl_class, false, true);
    add_columns(db->idl);
    ovsdb_idl_set_write_changed_only_all(db->idl, true);
    ovsdb_idl_set_probe_interval(db->idl, PROBE_MS);
    db->seqno = 0;
    db->retry_at = 0;
    db->dirty = true;
    db->ready = false;
    db->limit.cost = 0;
    db->cfg_awaited = 0;
    db->opened_at = time_msec();
}

void
host_db_open(struct host *h)
{
    struct db_conn *db = &h->db;

    if (!db->idl) {
        create_idl(h);
        token_bucket_init(&db->looks, 1, LOOKS * TOKENS_PER_LOOK);
        db->reopen_at = 0;
        db->reopen_ms = 0;
        h->ports_seqno = 0;
        h->want_ports_seqno = 0;
    }
}

/* Gives back what the host's messages have led to and begins anew: at once if
 * that took its time, as changes of years do.  Ports are believed to be there
 * until they have been read again. */
static void
start_over(struct host *h)
{
    struct db_conn *db = &h->db;
    bool soon = time_msec() - db->opened_at < REOPEN_MAX_MS;

    db->reopen_ms = soon ? MAX(REOPEN_MIN_MS, MIN(2 * db->reopen_ms, REOPEN_MAX_MS)) : 0;
    db->reopen_at = time_msec() + db->reopen_ms;
    host_set_error(h->db_error, sizeof h->db_error, "ovsdb: %s: the host sends too much",
                   h->cfg.ovsdb);
    VLOG_WARN("%s: %s; next try in %u ms", h->name, h->db_error, db->reopen_ms);
    drop_txn(db);
    ovsdb_idl_destroy(db->idl);
    create_idl(h);
}

void
host_db_close(struct host *h)
{
    struct db_conn *db = &h->db;

    if (db->idl) {
        drop_txn(db);
        ovsdb_idl_destroy(db->idl);
        db->idl = NULL;
        db->ready = false;
        h->db_error[0] = '\0';
    }
}

void
host_db_again(struct host *h)
{
    drop_txn(&h->db);
    h->db.ready = false;
    h->db.dirty = true;
    h->db.retry_at = 0;
}

/* --- reading ------------------------------------------------------------------------ */

static uint32_t
ofport_of(const struct ovsrec_interface *iface)
{
    return iface->n_ofport && *iface->ofport > 0 && *iface->ofport < OFPORT_END ? *iface->ofport
                                                                                : 0;
}

static void
parse_port(const struct ovsrec_interface *iface, const char *name, struct host_port *port)
{
    const char *uuid = smap_get(&iface->external_ids, "xs-vif-uuid");
    const char *mac = smap_get(&iface->external_ids, "attached-mac");

    memset(port, 0, sizeof *port);
    port->name = xstrdup(name);
    port->ofport = ofport_of(iface);
    port->has_uuid = uuid && uuid_from_string(&port->uuid, uuid);
    port->has_mac = mac && eth_addr_from_string(mac, &port->mac);
}

static int
compare_ports(const void *a_, const void *b_)
{
    const struct host_port *a = a_, *b = b_;

    return strcmp(a->name, b->name);
}

static bool
same_ports(const struct host_port *a, size_t n_a, const struct host_port *b, size_t n_b)
{
    if (n_a != n_b) {
        return false;
    }
    for (size_t i = 0; i < n_a; i++) {
        if (strcmp(a[i].name, b[i].name) || a[i].ofport != b[i].ofport ||
            a[i].has_uuid != b[i].has_uuid || !uuid_equals(&a[i].uuid, &b[i].uuid) ||
            a[i].has_mac != b[i].has_mac || !eth_addr_equals(a[i].mac, b[i].mac)) {
            return false;
        }
    }
    return true;
}

void
host_db_free_ports(struct host_port *ports, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(CONST_CAST(char *, ports[i].name));
    }
    free(ports);
}

/* A bond's name stands for its first interface, and the uplink's for the port
 * that leads to its bond. */
static const char *
port_name(const struct host *h, const struct ovsrec_port *port, size_t i)
{
    return host_db_bond(h) && !strcmp(port->name, HOST_DB_BOND_PORT) ? h->cfg.uplink
           : i                                                       ? port->interfaces[i]->name
                                                                     : port->name;
}

static void
read_ports(struct host *h, const struct ovsrec_bridge *bridge)
{
    struct host_port *ports = NULL;
    size_t n = 0, allocated = 0;

    for (size_t i = 0; i < bridge->n_ports; i++) {
        const struct ovsrec_port *port = bridge->ports[i];

        for (size_t j = 0; j < port->n_interfaces && n < MAX_PORTS; j++) {
            const struct ovsrec_interface *iface = port->interfaces[j];

            if (ofport_of(iface)) {
                if (n == allocated) {
                    ports = x2nrealloc(ports, &allocated, sizeof *ports);
                }
                parse_port(iface, port_name(h, port, j), &ports[n++]);
            }
        }
    }
    if (n) {
        qsort(ports, n, sizeof *ports, compare_ports);
        host_limit_claims(ports, n);
    }
    if (h->ports_seqno && same_ports(ports, n, h->ports, h->n_ports)) {
        host_db_free_ports(ports, n);
        return;
    }
    host_db_free_ports(h->ports, h->n_ports);
    h->ports = ports;
    h->n_ports = n;
    h->ports_seqno++;
}

static void
read_switch(struct host *h, const struct ovsrec_bridge *bridge)
{
    const struct ovsrec_open_vswitch *ovs = ovsrec_open_vswitch_first(h->db.idl);
    struct host_status *s = &h->status;
    bool weft = !strcmp(bridge->datapath_type, "weft");

    ovs_strlcpy(s->datapath_type, bridge->datapath_type, sizeof s->datapath_type);
    for (size_t i = 0; ovs && i < ovs->n_datapath_types; i++) {
        weft = weft || !strcmp(ovs->datapath_types[i], "weft");
    }
    ovs_strlcpy(s->switch_type, weft ? "weft" : "ovs", sizeof s->switch_type);
    ovs_strlcpy(s->version, ovs && ovs->ovs_version ? ovs->ovs_version : "", sizeof s->version);
}

/* --- turns of the main loop ------------------------------------------------------------ */

static const struct ovsrec_bridge *
find_bridge(const struct host *h)
{
    const struct ovsrec_bridge *bridge;

    OVSREC_BRIDGE_FOR_EACH (bridge, h->db.idl) {
        if (!strcmp(bridge->name, h->cfg.bridge)) {
            return bridge;
        }
    }
    return NULL;
}

/* Sees the transaction under way through; true when there is none. */
static bool
finish_txn(struct host *h)
{
    struct db_conn *db = &h->db;
    enum ovsdb_idl_txn_status status;

    if (!db->txn) {
        return true;
    }
    status = ovsdb_idl_txn_commit(db->txn);
    if (status == TXN_INCOMPLETE) {
        return false;
    }
    if (status == TXN_UNCHANGED) {
        if (!db->ready) {
            VLOG_INFO("%s: bridge %s is as stated", h->name, h->cfg.bridge);
        }
        db->ready = true;
    } else if (status == TXN_SUCCESS) {
        host_step(h, "configured");
        db->dirty = true;
        if (db->mirrors_changed) {
            db->cfg_awaited = ovsdb_idl_txn_get_increment_new_value(db->txn);
        }
    } else {
        if (status != TXN_TRY_AGAIN) {
            const char *error = ovsdb_idl_txn_get_error(db->txn);

            host_set_error(h->db_error, sizeof h->db_error, "ovsdb: %s", error);
            VLOG_WARN("%s: %s", h->name, h->db_error);
            db->retry_at = time_msec() + RETRY_MS;
        }
        db->dirty = true;
    }
    drop_txn(db);
    return true;
}

/* Open vSwitch does not look at its datapath's flows again when mirrors change,
 * but it does when a flow is added: once it has the mirrors, it gets one. */
static void
await_mirrors(struct host *h)
{
    const struct ovsrec_open_vswitch *ovs = ovsrec_open_vswitch_first(h->db.idl);

    if (h->db.cfg_awaited && ovs && ovs->cur_cfg >= h->db.cfg_awaited) {
        h->db.cfg_awaited = 0;
        h->retouch = true;
    }
}

static void
reconcile(struct host *h)
{
    struct db_conn *db = &h->db;
    const struct ovsrec_bridge *bridge = find_bridge(h);

    if (!token_bucket_withdraw(&db->looks, TOKENS_PER_LOOK + h->n_ports / PORTS_PER_TOKEN)) {
        db->dirty = true;
        db->retry_at = time_msec() + LOOK_LATER_MS;
        return;
    }
    h->db_error[0] = '\0';
    db->retry_at = 0;
    db->dirty = false;
    db->seqno = ovsdb_idl_get_seqno(db->idl);
    if (!bridge) {
        host_set_error(h->db_error, sizeof h->db_error, "bridge: there is no bridge %s",
                       h->cfg.bridge);
        db->ready = false;
        return;
    }
    read_ports(h, bridge);
    host_db_read_pifs(h);
    read_switch(h, bridge);
    if (!h->epoch) {
        return;
    }
    await_mirrors(h);
    db->mirrors_changed = false;
    db->txn = ovsdb_idl_txn_create(db->idl);
    ovsdb_idl_txn_add_comment(db->txn, "weft-controllerd: bridge %s as stated", h->cfg.bridge);
    host_db_apply(h, bridge);
    finish_txn(h);
}

void
host_db_run(struct host *h)
{
    struct db_conn *db = &h->db;

    if (!db->idl || time_msec() < db->reopen_at) {
        return;
    }
    ovsdb_idl_run(db->idl);
    if (host_limit_exceeded(&db->limit)) {
        start_over(h);
        return;
    }
    if (!ovsdb_idl_is_connected(db->idl) || !ovsdb_idl_has_ever_connected(db->idl)) {
        int error = ovsdb_idl_get_last_error(db->idl);

        db->ready = false;
        host_set_error(h->db_error, sizeof h->db_error, "ovsdb: %s: %s", h->cfg.ovsdb,
                       error ? host_peer_error(&h->ovsdb_peer, error) : "connecting");
        drop_txn(db);
        db->dirty = true;
        return;
    }
    if (finish_txn(h) && time_msec() >= db->retry_at &&
        (db->dirty || db->seqno != ovsdb_idl_get_seqno(db->idl))) {
        reconcile(h);
    }
}

bool
host_db_is_settled(const struct host *h)
{
    return h->db.ready && !h->db.dirty && !h->db.txn && !h->db.cfg_awaited && !h->retouch;
}

void
host_db_wait(struct host *h)
{
    struct db_conn *db = &h->db;

    if (!db->idl) {
        return;
    }
    if (time_msec() < db->reopen_at) {
        poll_timer_wait_until(db->reopen_at);
        return;
    }
    ovsdb_idl_wait(db->idl);
    if (db->txn) {
        ovsdb_idl_txn_wait(db->txn);
    } else if (db->retry_at) {
        poll_timer_wait_until(db->retry_at);
    } else if (db->ready && db->dirty) {
        poll_immediate_wake();
    }
}
