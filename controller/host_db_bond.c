/* The uplink as a bond.
 *
 * Open vSwitch bonds what its own learning switch sends; an OpenFlow output goes
 * to one interface, and what comes twice (floods, on both links of an active and
 * a backup one) is kept from flows by nobody.  So the bond is a port of a small
 * bridge of ours that does nothing else, "weft-uplink", which patch ports join
 * to the managed bridge; in that, the patch port has the uplink's name and
 * place.  All of it is translated at once: packets do not pass a second switch.
 *
 * The bridge says in external_ids that it is ours, its ports do not: they go
 * with it. */
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

VLOG_DEFINE_THIS_MODULE(host_db_bond);

#define BRIDGE "weft-uplink"
#define OUT_PORT "weft-uplink-out" /* the other end of HOST_DB_BOND_PORT */

const struct host_bond *
host_db_bond(const struct host *h)
{
    const struct host_bond *bond = h->extra ? &h->extra->bond : NULL;

    return bond && bond->port && !strcmp(bond->port, h->cfg.uplink) ? bond : NULL;
}

static bool
is_ours(const struct smap *external_ids)
{
    return !strcmp(smap_get_def(external_ids, HOST_DB_OURS, ""), "uplink");
}

static const struct ovsrec_bridge *
find_bridge(const struct host *h)
{
    const struct ovsrec_bridge *br;

    OVSREC_BRIDGE_FOR_EACH (br, h->db.idl) {
        if (!strcmp(br->name, BRIDGE)) {
            return br;
        }
    }
    return NULL;
}

static const struct ovsrec_port *
port_of(const struct ovsrec_bridge *br, const char *name)
{
    for (size_t i = 0; i < br->n_ports; i++) {
        if (!strcmp(br->ports[i]->name, name)) {
            return br->ports[i];
        }
    }
    return NULL;
}

/* Whether nobody else has the bond's name or a device of it; else that is the
 * host's error. */
static bool
may_take(struct host *h, const struct ovsrec_bridge *ours, const struct host_bond *bond)
{
    const struct ovsrec_bridge *br;

    OVSREC_BRIDGE_FOR_EACH (br, h->db.idl) {
        for (size_t i = 0; br != ours && i < br->n_ports; i++) {
            const struct ovsrec_port *port = br->ports[i];
            bool taken = !strcmp(port->name, bond->port);

            for (size_t j = 0; j < port->n_interfaces; j++) {
                taken = taken || svec_contains(&bond->interfaces, port->interfaces[j]->name);
            }
            if (taken && !is_ours(&port->external_ids)) {
                host_set_error(h->db_error, sizeof h->db_error,
                               "bond: port %s of bridge %s is not ours, and in the way", port->name,
                               br->name);
                return false;
            }
        }
    }
    return true;
}

/* --- the bridge and its ports --------------------------------------------------------- */

static const struct ovsrec_port *
add_port(struct host *h, const char *name, const char *type, const struct smap *options)
{
    struct ovsrec_interface *iface = ovsrec_interface_insert(h->db.txn);
    struct ovsrec_port *port = ovsrec_port_insert(h->db.txn);

    ovsrec_interface_set_name(iface, name);
    ovsrec_interface_set_type(iface, type);
    ovsrec_interface_set_options(iface, options);
    ovsrec_port_set_name(port, name);
    ovsrec_port_set_interfaces(port, &iface, 1);
    return port;
}

static const struct ovsrec_port *
add_patch(struct host *h, const char *name, const char *peer)
{
    struct smap options = SMAP_CONST1(&options, "peer", peer);

    return add_port(h, name, "patch", &options);
}

static const struct ovsrec_bridge *
add_bridge(struct host *h)
{
    const struct ovsrec_open_vswitch *ovs = ovsrec_open_vswitch_first(h->db.idl);
    const struct ovsrec_bridge *br = ovsrec_bridge_insert(h->db.txn);
    struct smap ids = SMAP_CONST1(&ids, HOST_DB_OURS, "uplink");

    ovsrec_bridge_set_name(br, BRIDGE);
    ovsrec_bridge_set_fail_mode(br, "standalone");
    ovsrec_bridge_set_external_ids(br, &ids);
    ovsrec_open_vswitch_update_bridges_addvalue(ovs, br);
    VLOG_INFO("%s: adds bridge %s for the bond", h->name, BRIDGE);
    return br;
}

/* Those that are there stay the rows they are. */
static void
set_interfaces(struct host *h, const struct ovsrec_port *port, const struct svec *names)
{
    struct ovsrec_interface **ifaces = xmalloc(names->n * sizeof *ifaces);

    for (size_t i = 0; i < names->n; i++) {
        ifaces[i] = NULL;
        for (size_t j = 0; j < port->n_interfaces; j++) {
            if (!strcmp(port->interfaces[j]->name, names->names[i])) {
                ifaces[i] = port->interfaces[j];
            }
        }
        if (!ifaces[i]) {
            ifaces[i] = ovsrec_interface_insert(h->db.txn);
            ovsrec_interface_set_name(ifaces[i], names->names[i]);
        }
    }
    ovsrec_port_set_interfaces(port, ifaces, names->n);
    free(ifaces);
}

static const struct ovsrec_port *
want_bond(struct host *h, const struct ovsrec_bridge *br, const struct host_bond *bond)
{
    const struct ovsrec_port *port = port_of(br, bond->port);
    struct smap config = SMAP_INITIALIZER(&config);

    if (!port) {
        port = ovsrec_port_insert(h->db.txn);
        ovsrec_port_set_name(port, bond->port);
        VLOG_INFO("%s: adds bond %s", h->name, bond->port);
    }
    if (bond->lacp_fast) {
        smap_add(&config, "lacp-time", "fast");
    }
    if (bond->primary[0]) {
        smap_add(&config, "bond-primary", bond->primary);
    }
    set_interfaces(h, port, &bond->interfaces);
    ovsrec_port_set_bond_mode(port, bond->mode);
    ovsrec_port_set_lacp(port, bond->lacp);
    ovsrec_port_set_bond_updelay(port, bond->updelay);
    ovsrec_port_set_bond_downdelay(port, bond->downdelay);
    ovsrec_port_set_other_config(port, &config);
    smap_destroy(&config);
    return port;
}

/* Every bridge has one; floods are not for it. */
static const struct ovsrec_port *
add_local(struct host *h)
{
    static const struct smap none = SMAP_INITIALIZER(&none);
    const struct ovsrec_port *port = add_port(h, BRIDGE, "internal", &none);
    const int64_t no_vlan = 4095;

    ovsrec_port_set_tag(port, &no_vlan, 1);
    return port;
}

/* Its own port, the patch port and the bond, and no others. */
static void
want_bridge(struct host *h, const struct ovsrec_bridge *br, const struct host_bond *bond,
            const char *datapath_type)
{
    const struct ovsrec_port *local = port_of(br, BRIDGE), *out = port_of(br, OUT_PORT);
    struct ovsrec_port *ports[3];

    ports[0] = CONST_CAST(struct ovsrec_port *, local ? local : add_local(h));
    ports[1] =
        CONST_CAST(struct ovsrec_port *, out ? out : add_patch(h, OUT_PORT, HOST_DB_BOND_PORT));
    ports[2] = CONST_CAST(struct ovsrec_port *, want_bond(h, br, bond));
    ovsrec_bridge_set_datapath_type(br, datapath_type);
    ovsrec_bridge_set_ports(br, ports, ARRAY_SIZE(ports));
}

void
host_db_apply_bond(struct host *h, const struct ovsrec_bridge *managed)
{
    const struct host_bond *bond = host_db_bond(h);
    const struct ovsrec_bridge *br = find_bridge(h);

    if (br && !is_ours(&br->external_ids)) {
        if (bond) {
            host_set_error(h->db_error, sizeof h->db_error, "bond: bridge %s is not ours", BRIDGE);
        }
        return;
    }
    if (!bond) {
        if (br) {
            VLOG_INFO("%s: removes bridge %s", h->name, BRIDGE);
            ovsrec_open_vswitch_update_bridges_delvalue(ovsrec_open_vswitch_first(h->db.idl), br);
        }
        return;
    }
    if (!may_take(h, br, bond)) {
        return;
    }
    want_bridge(h, br ? br : add_bridge(h), bond, managed->datapath_type);
    if (!port_of(managed, HOST_DB_BOND_PORT)) {
        const struct ovsrec_port *in = add_patch(h, HOST_DB_BOND_PORT, OUT_PORT);
        struct smap ids = SMAP_CONST1(&ids, HOST_DB_OURS, "uplink");

        ovsrec_port_set_external_ids(in, &ids);
        ovsrec_bridge_update_ports_addvalue(managed, in);
    }
}
