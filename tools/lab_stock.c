#include "lab_stock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lab_build.h"
#include "lab_link.h"
#include "lab_netns.h"
#include "lab_pool.h"

int
lab_stock_start_vswitchd(struct super *s, struct lab_host *h)
{
    char db[LAB_PATH_MAX + 16];

    snprintf(db, sizeof db, "unix:%s/run/db.sock", h->dir);
    const char *argv[] = {"ovs-vswitchd", db, "--pidfile", "-vconsole:info", "-vsyslog:off", NULL};
    return lab_start_daemon(s, &h->vswitchd, &h->netns, h->dir, argv, -1);
}

static int
cable(struct lab *lab, struct lab_guest *g, const char *vif)
{
    int host = lab_netns_open(&lab->hosts[g->host].netns);
    int guest = lab_netns_open(&g->netns);
    int error = host < 0 || guest < 0 ? errno : 0;
    char addresses[64], *next = addresses, *one;

    lab_guest_addresses(lab, g, addresses, sizeof addresses);
    if (!error) {
        error = lab_link_cable(guest, LAB_GUEST_IF, host, vif);
    }
    if (!error) {
        error = lab_link_silence(host, vif);
    }
    if (!error) {
        error = lab_link_identify(guest, LAB_GUEST_IF, g->mac, lab_guest_mtu(lab, g));
    }
    if (!error) {
        error = lab_link_plain(guest, LAB_GUEST_IF);
    }
    while (!error && (one = strsep(&next, ","))) {
        error = lab_link_address(guest, LAB_GUEST_IF, one);
    }
    if (host >= 0) {
        close(host);
    }
    if (guest >= 0) {
        close(guest);
    }
    return error ? lab_fail(lab, error, "cannot cable %s to %s: %s", g->name,
                            lab->hosts[g->host].name, strerror(error))
                 : 0;
}

int
lab_stock_start_guest(struct super *s, struct lab_guest *g)
{
    struct lab *lab = s->lab;
    unsigned number = (unsigned)(g - lab->guests) + 1;
    char vif[16], tag[16], uuid[40], ids[3][72], mac[48];
    int error;

    snprintf(vif, sizeof vif, "vif%u.0", g->domid);
    error = cable(lab, g, vif);
    if (error) {
        return error;
    }
    lab_uuid(LAB_UUID_VIF, number, uuid);
    snprintf(ids[0], sizeof ids[0], "external_ids:xs-vif-uuid=%s", uuid);
    lab_uuid(LAB_UUID_VM, number, uuid);
    snprintf(ids[1], sizeof ids[1], "external_ids:xs-vm-uuid=%s", uuid);
    lab_uuid(LAB_UUID_NETWORK, lab->config.pool ? g->network + 1 : g->vlan, uuid);
    snprintf(ids[2], sizeof ids[2], "external_ids:xs-network-uuid=%s", uuid);
    snprintf(mac, sizeof mac, "external_ids:attached-mac=\"%s\"", g->mac);
    snprintf(tag, sizeof tag, "tag=%u", g->vlan);
    const char *args[16] = {"add-port", LAB_BRIDGE, vif,    "--",   "set", "Interface",
                            vif,        ids[0],     ids[1], ids[2], mac};
    unsigned n = 11;
    if (g->vlan && !lab->config.pool) {
        const char *set[] = {"--", "set", "Port", vif, tag};
        memcpy(args + n, set, sizeof set);
        n += sizeof set / sizeof set[0];
    }
    return lab_vsctl(s, &lab->hosts[g->host], "adding a vif", args, n);
}
