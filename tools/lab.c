#include "lab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lab_pool.h"

#define DIV_UP(a, b) (((a) + (b)-1) / (b))

static void
proc_init(struct lab *lab, struct lab_proc *p, enum lab_proc_kind kind, unsigned owner,
          const char *name, const char *dir, const char *log)
{
    p->kind = kind;
    p->owner = owner;
    p->pidfd = -1;
    snprintf(p->name, sizeof p->name, "%s", name);
    snprintf(p->log, sizeof p->log, "%s/log/%s.log", dir, log);
    lab->procs[lab->n_procs++] = p;
}

static void
netns_init(struct lab *lab, struct lab_netns *ns, const char *name)
{
    snprintf(ns->name, sizeof ns->name, "%s-%s", lab->config.name, name);
    lab->netns[lab->n_netns++] = ns;
}

static void
host_init(struct lab *lab, unsigned i)
{
    struct lab_host *h = &lab->hosts[i];

    snprintf(h->name, sizeof h->name, "h%u", i + 1);
    h->stock = i >= lab->config.n_hosts - lab->config.n_stock;
    snprintf(h->dir, sizeof h->dir, "%s/%s", lab->config.dir, h->name);
    netns_init(lab, &h->netns, h->name);
    proc_init(lab, &h->localxen, LAB_LOCALXEN, i, "weft-localxen", h->dir, "weft-localxen");
    proc_init(lab, &h->ovsdb, LAB_OVSDB, i, "ovsdb-server", h->dir, "ovsdb-server");
    proc_init(lab, &h->vswitchd, LAB_VSWITCHD, i, h->stock ? "ovs-vswitchd" : "weft-vswitchd",
              h->dir, "weft-vswitchd");
    if (lab_host_has_xapid(lab, h)) {
        proc_init(lab, &h->xapid, LAB_XAPID, i, "weft-xapid", h->dir, "weft-xapid");
    }
}

static void
pool_init(struct lab *lab)
{
    struct lab_pool *p = &lab->pool;

    snprintf(p->dir, sizeof p->dir, "%s/pool", lab->config.dir);
    netns_init(lab, &p->netns, "pool");
    proc_init(lab, &p->ovsdb, LAB_POOLDB, 0, "ovsdb-server", p->dir, "ovsdb-server");
    proc_init(lab, &p->controllerd, LAB_CONTROLLERD, 0, "weft-controllerd", p->dir,
              "weft-controllerd");
    proc_init(lab, &p->flowd, LAB_FLOWD, 0, "weft-flowd", p->dir, "weft-flowd");
}

/* A guest of the pool: the networks in turn, each with its own subnet, and
 * the two tenants' subnets the same: only the controller's rules keep guests
 * of the same address apart. */
static void
guest_join_network(struct lab_guest *g, unsigned nth, unsigned nth_on_host)
{
    const struct lab_network *n = &lab_networks[nth_on_host % LAB_N_NETWORKS];

    g->network = nth_on_host % LAB_N_NETWORKS;
    g->vlan = n->overlay ? 0 : n->id;
    nth += n->first - 1;
    snprintf(g->ip, sizeof g->ip, "10.%u.%u.%u", n->subnet, nth / LAB_MAX_GUESTS % 256,
             nth % LAB_MAX_GUESTS + 1);
    snprintf(g->ip6, sizeof g->ip6, "fd77::%x:%x", n->subnet, nth + 1);
}

/* Guests of all VLANs share one subnet, so that only the switch keeps them
 * apart. */
static void
guest_init(struct lab *lab, unsigned i)
{
    const struct lab_config *c = &lab->config;
    struct lab_guest *g = &lab->guests[i];
    unsigned nth = i % c->guests_per_host;

    snprintf(g->name, sizeof g->name, "g%u", i + 1);
    g->host = i / c->guests_per_host;
    g->domid = nth + 1;
    g->vlan = c->n_vlans ? c->vlans[nth % c->n_vlans] : 0;
    snprintf(g->ip, sizeof g->ip, "10.0.%u.%u", i / LAB_MAX_GUESTS % 256, i % LAB_MAX_GUESTS + 1);
    if (c->pool) {
        guest_join_network(
            g, g->host * DIV_UP(c->guests_per_host, LAB_N_NETWORKS) + nth / LAB_N_NETWORKS, nth);
    }
    snprintf(g->mac, sizeof g->mac, "02:77:66:74:%02x:%02x", (i + 1) >> 8 & 0xff, (i + 1) & 0xff);
    netns_init(lab, &g->netns, g->name);
    proc_init(lab, &g->netfront, LAB_NETFRONT, i, "weft-netfront", lab->hosts[g->host].dir,
              g->name);
}

/* The networks in turn, as of guests, and addresses beside theirs. */
static void
cell_init(struct lab *lab, unsigned i)
{
    struct lab_cell *cell = &lab->cells[i];
    unsigned nth = i % lab->config.cells_per_host;

    snprintf(cell->name, sizeof cell->name, "cell%u", i + 1);
    cell->host = i / lab->config.cells_per_host;
    cell->network = nth % LAB_N_NETWORKS;
    snprintf(cell->ip, sizeof cell->ip, "10.%u.200.%u", lab_networks[cell->network].subnet,
             i % 250 + 1);
    snprintf(cell->mac, sizeof cell->mac, "02:77:66:63:%02x:%02x", (i + 1) >> 8 & 0xff,
             (i + 1) & 0xff);
}

struct lab *
lab_new(const struct lab_config *config)
{
    struct lab *lab = calloc(1, sizeof *lab);
    unsigned n_guests = config->n_hosts * config->guests_per_host;
    unsigned n_cells = (config->n_hosts - config->n_stock) * config->cells_per_host;

    if (!lab) {
        return NULL;
    }
    lab->config = *config;
    lab->lock_fd = -1;
    lab->supervisor.pidfd = -1;
    lab->n_guests = n_guests;
    lab->n_cells = n_cells;
    lab->cells = calloc(n_cells + 1, sizeof *lab->cells);
    lab->hosts = calloc(config->n_hosts, sizeof *lab->hosts);
    lab->guests = calloc(n_guests + 1, sizeof *lab->guests);
    lab->procs = calloc(4 * config->n_hosts + n_guests + 4, sizeof *lab->procs);
    lab->netns = calloc(config->n_hosts + n_guests + 2, sizeof *lab->netns);
    if (!lab->hosts || !lab->guests || !lab->cells || !lab->procs || !lab->netns) {
        lab_free(lab);
        return NULL;
    }
    proc_init(lab, &lab->job, LAB_JOB, 0, "", config->dir, "job");
    for (unsigned i = 0; i < config->n_hosts; i++) {
        host_init(lab, i);
    }
    if (config->pool) {
        pool_init(lab);
    }
    for (unsigned i = 0; i < n_guests; i++) {
        guest_init(lab, i);
    }
    for (unsigned i = 0; i < n_cells; i++) {
        cell_init(lab, i);
    }
    if (config->n_hosts > 1) {
        netns_init(lab, &lab->wire, "wire");
    }
    return lab;
}

void
lab_free(struct lab *lab)
{
    if (lab) {
        free(lab->netns);
        free(lab->procs);
        free(lab->guests);
        free(lab->cells);
        free(lab->hosts);
        free(lab);
    }
}

int
lab_fail(struct lab *lab, int error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(lab->why, sizeof lab->why, format, args);
    va_end(args);
    return error;
}

void
lab_guest_addresses(const struct lab *lab, const struct lab_guest *g, char *buf, size_t size)
{
    if (lab->config.pool) {
        snprintf(buf, size, "%s/8,%s/32", g->ip, g->ip6);
    } else {
        snprintf(buf, size, "%s/16", g->ip);
    }
}

bool
lab_host_has_xapid(const struct lab *lab, const struct lab_host *h)
{
    return lab->config.cells_per_host && !h->stock;
}

unsigned
lab_guest_mtu(const struct lab *lab, const struct lab_guest *g)
{
    const struct lab_config *c = &lab->config;
    bool overlay = c->pool && lab_networks[g->network].overlay;

    return c->guest_mtu || !overlay ? c->guest_mtu : 1500 - LAB_OVERLAY_OVERHEAD;
}

static const char *
bare_name(const struct lab *lab, const char *name)
{
    size_t len = strlen(lab->config.name);

    return !strncmp(name, lab->config.name, len) && name[len] == '-' ? name + len + 1 : name;
}

struct lab_host *
lab_find_host(struct lab *lab, const char *name)
{
    for (unsigned i = 0; i < lab->config.n_hosts; i++) {
        if (!strcmp(lab->hosts[i].name, bare_name(lab, name))) {
            return &lab->hosts[i];
        }
    }
    return NULL;
}

struct lab_guest *
lab_find_guest(struct lab *lab, const char *name)
{
    for (unsigned i = 0; i < lab->n_guests; i++) {
        if (!strcmp(lab->guests[i].name, bare_name(lab, name))) {
            return &lab->guests[i];
        }
    }
    return NULL;
}

bool
lab_same_network(const struct lab_guest *a, const struct lab_guest *b)
{
    return a->vlan == b->vlan && a->network == b->network;
}

bool
lab_same_address(const struct lab *lab, const struct lab_guest *from, const struct lab_guest *to)
{
    for (unsigned i = 0; i < lab->n_guests; i++) {
        const struct lab_guest *g = &lab->guests[i];

        if (lab_same_network(from, g) && !lab_same_network(from, to) && !strcmp(g->ip, to->ip)) {
            return true;
        }
    }
    return false;
}
