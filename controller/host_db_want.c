/* What a bridge should be, against what it is.
 *
 * Ours is: fail_mode, that our OpenFlow versions are among the protocols, a
 * listener for ourselves, the uplink (if no bridge has it yet), one port for
 * each kind of tunnel and, with tunnels, that the bridge keeps its MAC; mirrors
 * and exporters are host_db_extra.c's.  Rows of ours that are not wanted any more
 * go; nothing else is touched. */
#include <config.h>

#include "host_priv.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "lib/vswitch-idl.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "packets.h"
#include "smap.h"
#include "socket-util.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(host_db_want);

static const struct {
    const char *port, *type;
} tunnel_names[HOST_N_TUNNELS] = {
    [HOST_VXLAN] = {"weft-vxlan", "vxlan"},
    [HOST_GENEVE] = {"weft-geneve", "geneve"},
    [HOST_GRE] = {"weft-gre", "gre"},
};

static const char *
ours(const struct smap *external_ids)
{
    return smap_get_def(external_ids, HOST_DB_OURS, "");
}

/* --- settings of the bridge ----------------------------------------------------------- */

static void
want_settings(const struct host *h, const struct ovsrec_bridge *br)
{
    bool bundles = !br->n_protocols; /* empty: all versions */
    bool v15 = !br->n_protocols;

    if (!br->fail_mode || strcmp(br->fail_mode, "secure")) {
        ovsrec_bridge_set_fail_mode(br, "secure");
    }
    for (size_t i = 0; i < br->n_protocols; i++) {
        bundles = bundles || !strcmp(br->protocols[i], "OpenFlow13") ||
                  !strcmp(br->protocols[i], "OpenFlow15");
        v15 = v15 || !strcmp(br->protocols[i], "OpenFlow15");
    }
    if (!bundles) {
        ovsrec_bridge_update_protocols_addvalue(br, "OpenFlow13");
    }
    if (!bundles || (h->limits && !v15)) {
        ovsrec_bridge_update_protocols_addvalue(br, "OpenFlow15");
    }
}

/* A bridge goes by the lowest MAC of its ports unless told otherwise: a port
 * that comes would change it, and peers would send their tunnels' packets to
 * the old one until they ask again.  So it stays what it is.  False: not known
 * yet. */
static bool
want_mac(const struct host *h, const struct ovsrec_bridge *br)
{
    const struct ovsrec_interface *iface;

    if (smap_get(&br->other_config, "hwaddr")) {
        return true;
    }
    OVSREC_INTERFACE_FOR_EACH (iface, h->db.idl) {
        if (!strcmp(iface->name, br->name) && iface->mac_in_use) {
            ovsrec_bridge_update_other_config_setkey(br, "hwaddr", iface->mac_in_use);
            ovsrec_bridge_update_external_ids_setkey(br, HOST_DB_OURS, "hwaddr");
            VLOG_INFO("%s: %s keeps its MAC %s", h->name, br->name, iface->mac_in_use);
            return true;
        }
    }
    return false;
}

/* "pssl:6653:192.0.2.1" for "ssl:192.0.2.1:6653", malloc'ed.  NULL for a Unix
 * domain socket: BRIDGE.mgmt is always there. */
static char *
listener_of(const char *openflow)
{
    bool ssl = !strncmp(openflow, "ssl:", 4);
    struct sockaddr_storage ss;
    struct ds ip = DS_EMPTY_INITIALIZER;
    char *listener;

    if ((!ssl && strncmp(openflow, "tcp:", 4)) ||
        !inet_parse_active(openflow + 4, -1, &ss, false, NULL)) {
        return NULL;
    }
    ss_format_address(&ss, &ip);
    listener = xasprintf("%s:%d:%s", ssl ? "pssl" : "ptcp", ss_get_port(&ss), ds_cstr(&ip));
    ds_destroy(&ip);
    return listener;
}

static void
want_listener(struct host *h, const struct ovsrec_bridge *br)
{
    char *target = listener_of(h->cfg.openflow);
    bool found = !target;

    for (size_t i = 0; i < br->n_controller; i++) {
        const struct ovsrec_controller *c = br->controller[i];

        if (target && !strcmp(c->target, target)) {
            found = true;
        } else if (!strcmp(ours(&c->external_ids), "listener")) {
            ovsrec_bridge_update_controller_delvalue(br, c);
        }
    }
    if (!found) {
        const struct ovsrec_controller *c = ovsrec_controller_insert(h->db.txn);
        struct smap ids = SMAP_CONST1(&ids, HOST_DB_OURS, "listener");

        ovsrec_controller_set_target(c, target);
        ovsrec_controller_set_connection_mode(c, "out-of-band");
        ovsrec_controller_set_external_ids(c, &ids);
        ovsrec_bridge_update_controller_addvalue(br, c);
        VLOG_INFO("%s: %s listens on %s for us", h->name, br->name, target);
    }
    free(target);
}

/* --- ports ------------------------------------------------------------------------------ */

/* The port of that name, and its bridge; NULL if there is none. */
const struct ovsrec_port *
host_db_find_port(const struct host *h, const char *name, const struct ovsrec_bridge **bridge)
{
    const struct ovsrec_bridge *br;

    OVSREC_BRIDGE_FOR_EACH (br, h->db.idl) {
        for (size_t i = 0; i < br->n_ports; i++) {
            if (!strcmp(br->ports[i]->name, name)) {
                *bridge = br;
                return br->ports[i];
            }
        }
    }
    return NULL;
}

const struct ovsrec_port *
host_db_add_port(struct host *h, const struct ovsrec_bridge *br, const char *name, const char *type,
                 const struct smap *options, const char *role)
{
    struct ovsrec_interface *iface = ovsrec_interface_insert(h->db.txn);
    struct ovsrec_port *port = ovsrec_port_insert(h->db.txn);
    struct smap ids = SMAP_CONST1(&ids, HOST_DB_OURS, role);

    ovsrec_interface_set_name(iface, name);
    ovsrec_interface_set_type(iface, type);
    ovsrec_interface_set_options(iface, options);
    ovsrec_port_set_name(port, name);
    ovsrec_port_set_interfaces(port, &iface, 1);
    ovsrec_port_set_external_ids(port, &ids);
    ovsrec_bridge_update_ports_addvalue(br, port);
    VLOG_INFO("%s: adds %s %s to %s", h->name, role, name, br->name);
    return port;
}

static void
want_uplink(struct host *h, const struct ovsrec_bridge *br)
{
    static const struct smap none = SMAP_INITIALIZER(&none);
    const char *name = h->cfg.uplink;
    const struct ovsrec_bridge *where;
    const struct ovsrec_port *port;

    if (!name[0] || host_db_bond(h)) {
        return;
    }
    port = host_db_find_port(h, name, &where);
    if (!port) {
        host_db_add_port(h, br, name, "", &none, "uplink");
    } else if (where != br) {
        host_set_error(h->db_error, sizeof h->db_error, "uplink: %s is a port of bridge %s", name,
                       where->name);
    } else if (port->n_interfaces != 1) {
        host_set_error(h->db_error, sizeof h->db_error,
                       "uplink: %s is a bond of %" PRIuSIZE " interfaces; one of them is used",
                       name, port->n_interfaces);
    }
}

static void
want_tunnel(struct host *h, const struct ovsrec_bridge *br, enum host_tunnel t)
{
    const char *name = tunnel_names[t].port;
    char ip[INET6_ADDRSTRLEN];
    struct smap options = SMAP_INITIALIZER(&options);
    const struct ovsrec_bridge *where;
    const struct ovsrec_port *port = host_db_find_port(h, name, &where);

    ipv6_string_mapped(ip, &h->cfg.tunnel_ip);
    smap_add(&options, "local_ip", ip);
    smap_add(&options, "remote_ip", "flow");
    smap_add(&options, "key", "flow");
    if (!port) {
        host_db_add_port(h, br, name, tunnel_names[t].type, &options, "tunnel");
    } else if (where != br || strcmp(ours(&port->external_ids), "tunnel") ||
               port->n_interfaces != 1) {
        host_set_error(h->db_error, sizeof h->db_error,
                       "tunnel_ip: port %s of bridge %s is not ours", name, where->name);
    } else if (!smap_equal(&port->interfaces[0]->options, &options)) {
        ovsrec_interface_set_options(port->interfaces[0], &options);
    }
    smap_destroy(&options);
}

static bool
is_wanted(const struct host *h, const struct ovsrec_bridge *br, const struct ovsrec_port *port)
{
    const char *role = ours(&port->external_ids);

    if (strcmp(br->name, h->cfg.bridge)) {
        return false;
    }
    if (!strcmp(role, "uplink")) {
        return !strcmp(port->name, host_db_bond(h) ? HOST_DB_BOND_PORT : h->cfg.uplink);
    }
    if (!strcmp(role, "mirror")) {
        return host_db_extra_wants(h, port->name);
    }
    for (enum host_tunnel t = 0; t < HOST_N_TUNNELS; t++) {
        if (!strcmp(port->name, tunnel_names[t].port)) {
            return h->cfg.tunnels[t] && ipv6_addr_is_set(&h->cfg.tunnel_ip);
        }
    }
    return false;
}

static void
remove_unwanted(struct host *h)
{
    const struct ovsrec_bridge *br;

    OVSREC_BRIDGE_FOR_EACH (br, h->db.idl) {
        for (size_t i = 0; i < br->n_ports; i++) {
            const struct ovsrec_port *port = br->ports[i];

            if (ours(&port->external_ids)[0] && !is_wanted(h, br, port)) {
                VLOG_INFO("%s: removes port %s from %s", h->name, port->name, br->name);
                ovsrec_bridge_update_ports_delvalue(br, port);
            }
        }
    }
}

void
host_db_apply(struct host *h, const struct ovsrec_bridge *br)
{
    want_settings(h, br);
    want_listener(h, br);
    if ((ipv6_addr_is_set(&h->cfg.tunnel_ip) || host_db_extra_has_ports(h) || host_db_bond(h)) &&
        !want_mac(h, br)) {
        host_set_error(h->db_error, sizeof h->db_error, "bridge: the MAC of %s is not known yet",
                       br->name);
        return;
    }
    remove_unwanted(h);
    host_db_apply_bond(h, br);
    want_uplink(h, br);
    for (enum host_tunnel t = 0; t < HOST_N_TUNNELS; t++) {
        if (h->cfg.tunnels[t] && ipv6_addr_is_set(&h->cfg.tunnel_ip)) {
            want_tunnel(h, br, t);
        }
    }
    host_db_apply_extra(h, br);
}
