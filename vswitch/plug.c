/* Theory of Operation
 * ===================
 *
 * A reconciler: it compares what the hypervisor's store says (backend_list())
 * with what the database says, writes the difference as one transaction, and
 * starts over whenever either side has changed and no transaction is under
 * way.  It keeps no memory of what it did: a port is ours if its interface
 * says so in external_ids, so a restart finds its ports again, and vifs that
 * appear while a transaction is under way go together into the next.
 *
 * Bridges come from three kinds of names.  A bridge of that very name; a
 * "fake bridge", which is a VLAN of another bridge and exists as a port with
 * fake_bridge=true ("ovs-vsctl add-br xapi1 xenbr0 100"): then the port goes
 * to the parent, with the VLAN as its tag; or xl's "BRIDGE.TAG:TRUNKS".
 *
 * The connection to the database is our own, as bridge.c keeps its own to
 * itself, and is only made once netback runs.  A lock in the database keeps a
 * second daemon's reconciler quiet. */
#include <config.h>

#include "plug.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <poll.h>

#include "backend.h"
#include "lib/vswitch-idl.h"
#include "netback.h"
#include "netdev_netback.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "plug_want.h"
#include "settings.h"
#include "smap.h"
#include "timeval.h"
#include "unixctl.h"
#include "util.h"
#include "vif_move.h"

VLOG_DEFINE_THIS_MODULE(plug);

#define OURS "weft-plugged"
/* After the database refused a transaction. */
#define RETRY_MS 1000
/* After a start, before ports whose vifs are not in the store are removed: a
 * port must not flap because its vif was read late. */
#define REMOVE_AFTER_MS 2000
/* Each change of a bridge stops and restarts the polling threads: vifs that
 * come within this time of each other go together. */
#define SETTLE_MS 20
#define LINGER_CHECK_MS 100

static char *database;
static struct ovsdb_idl *idl;     /* NULL until netback runs */
static struct ovsdb_idl_txn *txn; /* under way, or NULL */
static unsigned int seen_seqno;
static bool dirty;
static long long int retry_at; /* 0: none */
static long long int remove_from;
static long long int settle_at; /* 0: the list of vifs has not changed */

/* Vif's port name to what became of it, malloc'ed.  Names with a complaint
 * are in 'complaints', so that each is logged once. */
static struct shash states = SHASH_INITIALIZER(&states);
static struct shash complaints = SHASH_INITIALIZER(&complaints);

/* --- what is there --------------------------------------------------------- */

struct have_port {
    const struct ovsrec_bridge *bridge;
    const struct ovsrec_port *port;
    bool ours;
    bool wanted;
};

struct view {
    struct shash bridges; /* name to struct plug_bridge */
    struct shash ports;   /* name to struct have_port */
    struct shash manual;  /* "DOMID.HANDLE" of others' netback ports to port's name */
};

static bool
is_ours(const struct ovsrec_port *port)
{
    return port->n_interfaces == 1 &&
           smap_get_bool(&port->interfaces[0]->external_ids, OURS, false);
}

static void
view_add_manual(struct view *v, const struct ovsrec_port *port)
{
    for (size_t i = 0; i < port->n_interfaces; i++) {
        const struct ovsrec_interface *iface = port->interfaces[i];
        char id[32];

        if (!strcmp(iface->type, "netback")) {
            snprintf(id, sizeof id, "%s.%s", smap_get_def(&iface->options, "domid", ""),
                     smap_get_def(&iface->options, "handle", ""));
            shash_add_once(&v->manual, id, iface->name);
        }
    }
}

static void
view_add_port(struct view *v, const struct ovsrec_bridge *br, const struct ovsrec_port *port)
{
    struct have_port *have = xmalloc(sizeof *have);

    *have = (struct have_port){.bridge = br, .port = port, .ours = is_ours(port)};
    if (!shash_add_once(&v->ports, port->name, have)) {
        free(have); /* on two bridges at once: Open vSwitch takes the first */
        return;
    }
    if (!have->ours) {
        view_add_manual(v, port);
    }
    if (port->fake_bridge && port->n_tag) {
        struct plug_bridge *fake = xmalloc(sizeof *fake);

        *fake = (struct plug_bridge){.parent = br, .fake_tag = *port->tag};
        if (!shash_add_once(&v->bridges, port->name, fake)) {
            free(fake);
        }
    }
}

static void
view_init(struct view *v)
{
    const struct ovsrec_bridge *br;

    shash_init(&v->bridges);
    shash_init(&v->ports);
    shash_init(&v->manual);
    OVSREC_BRIDGE_FOR_EACH (br, idl) {
        struct plug_bridge *real = xmalloc(sizeof *real);

        *real = (struct plug_bridge){.parent = br, .fake_tag = -1};
        shash_replace(&v->bridges, br->name, real);
    }
    OVSREC_BRIDGE_FOR_EACH (br, idl) {
        for (size_t i = 0; i < br->n_ports; i++) {
            view_add_port(v, br, br->ports[i]);
        }
    }
}

static void
view_destroy(struct view *v)
{
    shash_destroy_free_data(&v->bridges);
    shash_destroy_free_data(&v->ports);
    shash_destroy(&v->manual);
}

/* --- telling --------------------------------------------------------------- */

static void
set_state(const char *name, char *text)
{
    free(shash_replace(&states, name, text));
}

/* Notes why 'name' has no port; takes 'why'. */
static void
complain(const char *name, char *why)
{
    const char *before = shash_find_data(&complaints, name);

    if (!before || strcmp(before, why)) {
        VLOG_WARN("%s: %s", name, why);
        free(shash_replace(&complaints, name, xstrdup(why)));
    }
    set_state(name, why);
}

static void
settle(const char *name, char *text)
{
    free(shash_find_and_delete(&complaints, name));
    set_state(name, text);
}

static void
forget_vif(const char *name)
{
    free(shash_find_and_delete(&complaints, name));
    free(shash_find_and_delete(&states, name));
}

/* --- the difference -------------------------------------------------------- */

static struct ovsdb_idl_txn *
need_txn(void)
{
    if (!txn) {
        txn = ovsdb_idl_txn_create(idl);
        ovsdb_idl_txn_add_comment(txn, "weft-vswitchd: plug vifs");
    }
    return txn;
}

static bool
same_set(const int64_t *a, size_t n_a, const int64_t *b, size_t n_b)
{
    return n_a == n_b && (!n_a || !memcmp(a, b, n_a * sizeof *a));
}

static void
update_vlan(const struct ovsrec_port *port, const struct plug_want *w)
{
    const char *mode = port->vlan_mode ? port->vlan_mode : "";

    if (strcmp(mode, w->vlan_mode)) {
        need_txn();
        ovsrec_port_set_vlan_mode(port, w->vlan_mode[0] ? w->vlan_mode : NULL);
    }
    if (!same_set(port->tag, port->n_tag, &w->tag, w->n_tag)) {
        need_txn();
        ovsrec_port_set_tag(port, &w->tag, w->n_tag);
    }
    if (!same_set(port->trunks, port->n_trunks, w->trunks, w->n_trunks)) {
        need_txn();
        ovsrec_port_set_trunks(port, w->trunks, w->n_trunks);
    }
}

static void
put_id(struct smap *ids, const char *key, const char *value)
{
    if (value[0]) {
        smap_replace(ids, key, value);
    } else {
        smap_remove(ids, key);
    }
}

static void
update_interface(const struct ovsrec_interface *iface, const struct netback_vif_info *vif)
{
    struct smap options = SMAP_INITIALIZER(&options);
    struct smap ids;

    /* Other keys belong to others. */
    smap_clone(&ids, &iface->external_ids);
    put_id(&ids, "xs-vif-uuid", vif->vif_uuid);
    put_id(&ids, "xs-vm-uuid", vif->vm_uuid);
    put_id(&ids, "xs-network-uuid", vif->network_uuid);
    put_id(&ids, "attached-mac", vif->mac);
    put_id(&ids, OURS, "true");
    if (!smap_equal(&ids, &iface->external_ids)) {
        need_txn();
        ovsrec_interface_set_external_ids(iface, &ids);
    }

    smap_add_format(&options, "domid", "%" PRIu16, vif->domid);
    smap_add_format(&options, "handle", "%" PRIu32, vif->handle);
    if (!smap_equal(&options, &iface->options)) {
        need_txn();
        ovsrec_interface_set_options(iface, &options);
    }
    smap_destroy(&options);
    smap_destroy(&ids);
}

static void
create_port(const struct plug_want *w, const struct netback_vif_info *vif)
{
    struct ovsrec_interface *iface = ovsrec_interface_insert(need_txn());
    struct ovsrec_port *port = ovsrec_port_insert(need_txn());

    ovsrec_interface_set_name(iface, w->name);
    ovsrec_interface_set_type(iface, "netback");
    update_interface(iface, vif);
    ovsrec_port_set_name(port, w->name);
    ovsrec_port_set_interfaces(port, &iface, 1);
    update_vlan(port, w);
    ovsrec_bridge_update_ports_addvalue(w->bridge, port);
    VLOG_INFO("%s: plugged into %s", w->name, w->bridge->name);
}

static void
update_port(struct have_port *have, const struct plug_want *w, const struct netback_vif_info *vif)
{
    if (have->bridge != w->bridge) {
        need_txn();
        ovsrec_bridge_update_ports_delvalue(have->bridge, have->port);
        ovsrec_bridge_update_ports_addvalue(w->bridge, have->port);
        VLOG_INFO("%s: moved from %s to %s", w->name, have->bridge->name, w->bridge->name);
    }
    update_vlan(have->port, w);
    update_interface(have->port->interfaces[0], vif);
}

/* Brings the port of one vif about, or says why not. */
static void
reconcile_vif(struct view *v, const struct netback_vif_info *vif)
{
    struct have_port *have;
    struct plug_want want;
    const char *other;
    char why[256];
    char id[32];

    plug_port_name(vif, want.name);
    have = shash_find_data(&v->ports, want.name);
    if (have && !have->ours) {
        settle(want.name, xasprintf("port of %s that was made by hand", have->bridge->name));
        return;
    }
    snprintf(id, sizeof id, "%" PRIu16 ".%" PRIu32, vif->domid, vif->handle);
    /* A vif has one port: the one it has already, else the one made by hand. */
    other = have ? NULL : shash_find_data(&v->manual, id);
    if (other) {
        settle(want.name, xasprintf("port %s was made by hand for this vif", other));
        return;
    }
    if (!vif->bridge[0]) {
        /* The toolstack is still writing, or means to do it by hand. */
        settle(want.name, xstrdup("the store names no bridge"));
    } else if (!plug_want(vif, &v->bridges, &want, why, sizeof why)) {
        /* A port that must not be what it was goes. */
        complain(want.name, xstrdup(why));
    } else {
        settle(want.name, plug_want_format(&want));
        if (have) {
            have->wanted = true;
            update_port(have, &want, vif);
        } else {
            create_port(&want, vif);
        }
        plug_want_destroy(&want);
    }
}

static void
ask_lingers(const char *port OVS_UNUSED, struct netback_vif *vif OVS_UNUSED, struct vif_move **move,
            void *lingers_)
{
    bool *lingers = lingers_;

    *lingers = vif_move_lingers(*move);
}

/* True while frames may still be on their way to a guest that has moved away. */
static bool
lingers(const char *port)
{
    bool yes = false;

    netdev_netback_visit(port, ask_lingers, &yes);
    return yes;
}

static void
remove_unwanted(struct view *v)
{
    struct shash_node *node;

    SHASH_FOR_EACH (node, &v->ports) {
        const struct have_port *have = node->data;

        if (have->ours && !have->wanted) {
            if (time_msec() < remove_from) {
                retry_at = remove_from;
                continue;
            }
            if (lingers(node->name)) {
                retry_at = time_msec() + LINGER_CHECK_MS;
                continue;
            }
            need_txn();
            ovsrec_bridge_update_ports_delvalue(have->bridge, have->port);
            VLOG_INFO("%s: unplugged from %s", node->name, have->bridge->name);
        }
    }
}

static void
forget_absent(const struct netback_vif_info *list, size_t n)
{
    struct shash present = SHASH_INITIALIZER(&present);
    struct shash_node *node;
    char name[PLUG_NAME_SIZE];

    for (size_t i = 0; i < n; i++) {
        plug_port_name(&list[i], name);
        shash_add_once(&present, name, NULL);
    }
    SHASH_FOR_EACH_SAFE (node, &states) {
        if (!shash_find(&present, node->name)) {
            ovs_strlcpy(name, node->name, sizeof name);
            forget_vif(name);
        }
    }
    shash_destroy(&present);
}

static void
reconcile(void)
{
    struct netback_vif_info *list;
    struct view view;
    size_t n;

    list = backend_list(&n);
    view_init(&view);
    forget_absent(list, n);
    for (size_t i = 0; i < n; i++) {
        reconcile_vif(&view, &list[i]);
    }
    remove_unwanted(&view);
    view_destroy(&view);
    free(list);
}

/* --- driving it -------------------------------------------------------------- */

static void
connect_database(void)
{
    static const struct ovsdb_idl_column *const columns[] = {
        &ovsrec_bridge_col_name,       &ovsrec_bridge_col_ports,
        &ovsrec_port_col_name,         &ovsrec_port_col_interfaces,
        &ovsrec_port_col_tag,          &ovsrec_port_col_trunks,
        &ovsrec_port_col_vlan_mode,    &ovsrec_port_col_fake_bridge,
        &ovsrec_interface_col_name,    &ovsrec_interface_col_type,
        &ovsrec_interface_col_options, &ovsrec_interface_col_external_ids,
    };

    idl = ovsdb_idl_create(database, &ovsrec_idl_class, false, true);
    for (size_t i = 0; i < ARRAY_SIZE(columns); i++) {
        ovsdb_idl_add_column(idl, columns[i]);
    }
    ovsdb_idl_set_lock(idl, "weft_plug");
    remove_from = time_msec() + REMOVE_AFTER_MS;
    dirty = true;
}

/* Drives the transaction under way.  True if there is none (any more). */
static bool
finish_txn(void)
{
    enum ovsdb_idl_txn_status status;

    if (!txn) {
        return true;
    }
    status = ovsdb_idl_txn_commit(txn);
    if (status == TXN_INCOMPLETE) {
        return false;
    }
    if (status == TXN_ERROR) {
        static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(5, 5);

        VLOG_ERR_RL(&rl, "the database refused to plug vifs: %s", ovsdb_idl_txn_get_error(txn));
        retry_at = time_msec() + RETRY_MS;
    } else if (status != TXN_SUCCESS && status != TXN_UNCHANGED) {
        dirty = true;
    }
    ovsdb_idl_txn_destroy(txn);
    txn = NULL;
    return true;
}

/* True once the list of vifs has changed and had time to settle. */
static bool
list_changed(void)
{
    struct pollfd pfd = {.fd = backend_list_fd(), .events = POLLIN};

    if (!settle_at && poll(&pfd, 1, 0) > 0) {
        settle_at = time_msec() + SETTLE_MS;
    }
    return settle_at && time_msec() >= settle_at;
}

void
plug_run(void)
{
    if (!idl) {
        if (!backend_running() || !settings()->plug) {
            return;
        }
        connect_database();
    }
    ovsdb_idl_run(idl);
    if (!ovsdb_idl_has_ever_connected(idl) || !ovsdb_idl_has_lock(idl) || !settings()->plug) {
        return;
    }
    if (!finish_txn()) {
        return;
    }
    if (ovsdb_idl_get_seqno(idl) != seen_seqno || list_changed() ||
        (retry_at && time_msec() >= retry_at)) {
        dirty = true;
    }
    if (dirty) {
        dirty = false;
        retry_at = settle_at = 0;
        seen_seqno = ovsdb_idl_get_seqno(idl);
        reconcile();
        finish_txn();
    }
}

void
plug_wait(void)
{
    if (!idl) {
        return;
    }
    ovsdb_idl_wait(idl);
    if (txn) {
        ovsdb_idl_txn_wait(txn);
    } else if (settings()->plug && ovsdb_idl_has_lock(idl)) {
        if (settle_at) {
            poll_timer_wait_until(settle_at);
        } else {
            poll_fd_wait(backend_list_fd(), POLLIN);
        }
        if (retry_at) {
            poll_timer_wait_until(retry_at);
        }
        if (dirty) {
            poll_immediate_wake();
        }
    }
}

static void
plug_show(struct unixctl_conn *conn, int argc OVS_UNUSED, const char *argv[] OVS_UNUSED,
          void *aux OVS_UNUSED)
{
    const struct shash_node **nodes = shash_sort(&states);
    struct ds out = DS_EMPTY_INITIALIZER;

    if (!settings()->plug) {
        ds_put_cstr(&out, "off: other_config:weft-plug=false\n");
    } else if (!backend_running()) {
        ds_put_cstr(&out, "netback does not run\n");
    }
    for (size_t i = 0; i < shash_count(&states); i++) {
        ds_put_format(&out, "%s: %s\n", nodes[i]->name, (const char *)nodes[i]->data);
    }
    free(nodes);
    unixctl_command_reply(conn, ds_cstr(&out));
    ds_destroy(&out);
}

void
plug_init(const char *database_)
{
    database = xstrdup(database_);
    unixctl_command_register("plug/show", "", 0, 0, plug_show, NULL);
}

void
plug_exit(void)
{
    if (txn) {
        ovsdb_idl_txn_destroy(txn);
    }
    ovsdb_idl_destroy(idl);
    shash_destroy_free_data(&states);
    shash_destroy_free_data(&complaints);
    free(database);
    txn = NULL;
    idl = NULL;
    database = NULL;
}
