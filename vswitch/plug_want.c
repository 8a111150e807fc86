#include <config.h>

#include "plug_want.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/vswitch-idl.h"
#include "netback.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/shash.h"
#include "util.h"
#include "vlan.h"

void
plug_port_name(const struct netback_vif_info *vif, char name[PLUG_NAME_SIZE])
{
    snprintf(name, PLUG_NAME_SIZE, "vif%" PRIu16 ".%" PRIu32, vif->domid, vif->handle);
}

/* What the backend's keys "vlan-mode", "vlan" and "trunks" say. */
static bool
keys_say_vlan(const struct netback_vif_info *vif)
{
    return vif->vlan_mode[0] || vif->vlan_tag[0] || vif->vlan_trunks[0];
}

/* Finds the bridge that 'vif' names.  '*has_vlan' says whether the name goes
 * on with VLAN settings, which are then in 'in_name'. */
static const struct plug_bridge *
find_bridge(const struct netback_vif_info *vif, const struct shash *bridges,
            struct vlan_port *in_name, bool *has_vlan, char *why, size_t why_size)
{
    const struct plug_bridge *bridge = shash_find_data(bridges, vif->bridge);
    char name[sizeof vif->bridge];

    *has_vlan = false;
    if (bridge) {
        return bridge;
    }
    if (!vlan_bridge_parse(vif->bridge, name, sizeof name, in_name, why, why_size)) {
        return NULL;
    }
    *has_vlan = strcmp(name, vif->bridge) != 0;
    bridge = shash_find_data(bridges, name);
    if (!bridge) {
        snprintf(why, why_size, "bridge %s does not exist (the port is made when it does)", name);
    }
    return bridge;
}

static void
copy_settings(const struct vlan_port *port, struct plug_want *want)
{
    ovs_strlcpy(want->vlan_mode, vlan_mode_name(port->mode), sizeof want->vlan_mode);
    want->n_tag = port->tag >= 0;
    want->tag = want->n_tag ? port->tag : 0;
    for (unsigned vid = 0; vid < 4096; vid++) {
        if (vlan_set_has(port->trunks, vid)) {
            want->trunks = xrealloc(want->trunks, (want->n_trunks + 1) * sizeof *want->trunks);
            want->trunks[want->n_trunks++] = vid;
        }
    }
}

bool
plug_want(const struct netback_vif_info *vif, const struct shash *bridges, struct plug_want *want,
          char *why, size_t why_size)
{
    const struct plug_bridge *bridge;
    struct vlan_port keys, in_name;
    bool name_says_vlan;

    bridge = find_bridge(vif, bridges, &in_name, &name_says_vlan, why, why_size);
    if (!bridge) {
        return false;
    }
    if (keys_say_vlan(vif) &&
        !vlan_port_parse(&keys, vif->vlan_mode, vif->vlan_tag, vif->vlan_trunks, why, why_size)) {
        return false;
    }
    if (keys_say_vlan(vif) && name_says_vlan) {
        snprintf(why, why_size, "both the bridge's name %s and the VLAN keys set a VLAN: use one",
                 vif->bridge);
        return false;
    }
    if (bridge->fake_tag >= 0 && (keys_say_vlan(vif) || name_says_vlan)) {
        snprintf(why, why_size,
                 "bridge %s is VLAN %" PRId64 " of %s: remove the vif's own VLAN settings",
                 vif->bridge, bridge->fake_tag, bridge->parent->name);
        return false;
    }

    want->bridge = bridge->parent;
    want->vlan_mode[0] = '\0';
    want->tag = want->n_tag = want->n_trunks = 0;
    want->trunks = NULL;
    if (bridge->fake_tag >= 0) {
        want->tag = bridge->fake_tag;
        want->n_tag = 1;
    } else if (keys_say_vlan(vif)) {
        copy_settings(&keys, want);
    } else if (name_says_vlan) {
        copy_settings(&in_name, want);
    }
    return true;
}

void
plug_want_destroy(struct plug_want *want)
{
    free(want->trunks);
}

char *
plug_want_format(const struct plug_want *want)
{
    struct ds s = DS_EMPTY_INITIALIZER;

    ds_put_format(&s, "on %s", want->bridge->name);
    if (want->vlan_mode[0]) {
        ds_put_format(&s, ", %s", want->vlan_mode);
    }
    if (want->n_tag) {
        ds_put_format(&s, ", tag %" PRId64, want->tag);
    }
    for (size_t i = 0; i < want->n_trunks; i++) {
        ds_put_format(&s, "%s%" PRId64, i ? "," : ", trunks ", want->trunks[i]);
    }
    return ds_steal_cstr(&s);
}
