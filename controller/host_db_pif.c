/* Physical interfaces: what the switch says of those that the pool names, as
 * ports of the managed bridge or of any other.  Nothing is changed. */
#include <config.h>

#include "host_extra.h"
#include "host_priv.h"

#include <stdlib.h>
#include <string.h>

#include "lib/vswitch-idl.h"
#include "ovsdb-idl.h"
#include "util.h"

static void
look_at(struct host_pif *pifs, size_t n, const struct ovsrec_bridge *br,
        const struct ovsrec_interface *iface)
{
    for (size_t i = 0; i < n; i++) {
        struct host_pif *p = &pifs[i];

        if (!strcmp(p->device, iface->name)) {
            p->there = true;
            p->up = iface->link_state && !strcmp(iface->link_state, "up");
            p->speed_mbps = iface->n_link_speed ? *iface->link_speed / 1000000 : 0;
            ovs_strlcpy(p->mac, iface->mac_in_use ? iface->mac_in_use : "", sizeof p->mac);
            ovs_strlcpy(p->bridge, br->name, sizeof p->bridge);
        }
    }
}

static bool
same(const struct host_pif *a, size_t n_a, const struct host_pif *b, size_t n_b)
{
    if (n_a != n_b) {
        return false;
    }
    for (size_t i = 0; i < n_a; i++) {
        if (strcmp(a[i].device, b[i].device) || a[i].there != b[i].there || a[i].up != b[i].up ||
            a[i].speed_mbps != b[i].speed_mbps || strcmp(a[i].mac, b[i].mac) ||
            strcmp(a[i].bridge, b[i].bridge)) {
            return false;
        }
    }
    return true;
}

void
host_db_free_pifs(struct host_pif *pifs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(pifs[i].device);
    }
    free(pifs);
}

void
host_db_read_pifs(struct host *h)
{
    size_t n = h->extra ? h->extra->pifs.n : 0;
    const struct ovsrec_bridge *br;
    struct host_pif *pifs;

    if (!n && !h->n_pifs) {
        return;
    }
    pifs = xcalloc(n + 1, sizeof *pifs);
    for (size_t i = 0; i < n; i++) {
        pifs[i].device = xstrdup(h->extra->pifs.names[i]);
    }
    OVSREC_BRIDGE_FOR_EACH (br, h->db.idl) {
        for (size_t i = 0; i < br->n_ports; i++) {
            for (size_t j = 0; j < br->ports[i]->n_interfaces; j++) {
                look_at(pifs, n, br, br->ports[i]->interfaces[j]);
            }
        }
    }
    if (same(pifs, n, h->pifs, h->n_pifs)) {
        host_db_free_pifs(pifs, n);
        return;
    }
    host_db_free_pifs(h->pifs, h->n_pifs);
    h->pifs = pifs;
    h->n_pifs = n;
    h->pifs_seqno++;
}
