/* "weft lab status": a table, or JSON for programs. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli_cmd.h"
#include "lab_cmd.h"
#include "lab_link.h"
#include "lab_netns.h"
#include "lab_pool.h"
#include "lab_proc.h"
#include "lab_switch.h"
#include "lab_xapid.h"

static const char *
proc_state(struct lab_proc *p)
{
    return p->failed ? "failed" : lab_proc_alive(p) ? "running" : "down";
}

static const char *
host_state(const struct lab *lab, struct lab_host *h)
{
    struct lab_proc *all[] = {&h->vswitchd, &h->ovsdb, &h->localxen, &h->xapid};

    for (unsigned i = 0; i < (h->stock ? 2 : lab_host_has_xapid(lab, h) ? 4 : 3); i++) {
        const char *state = proc_state(all[i]);
        if (strcmp(state, "running") != 0) {
            return state;
        }
    }
    return "running";
}

/* "up" with carrier, "no carrier", or "down" without a frontend. */
static const char *
guest_link(struct lab_guest *g)
{
    int netns = lab_netns_open(&g->netns);
    bool running = netns >= 0 && lab_link_running(netns, LAB_GUEST_IF);

    if (netns >= 0) {
        close(netns);
    }
    return running ? "up" : lab_proc_alive(&g->netfront) ? "no carrier" : "down";
}

struct pool_proc {
    const char *name;
    struct lab_proc *proc;
};
enum { POOL_PROCS = 3 };

static void
pool_procs(struct lab *lab, struct pool_proc all[POOL_PROCS])
{
    all[0] = (struct pool_proc){"database", &lab->pool.ovsdb};
    all[1] = (struct pool_proc){"controller", &lab->pool.controllerd};
    all[2] = (struct pool_proc){"flowd", &lab->pool.flowd};
}

/* --- JSON ------------------------------------------------------------------- */

static json_t *
host_json(const struct lab *lab, struct lab_host *h)
{
    struct lab_switch sw = lab_switch_of(&lab->config, h);

    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i}", "name",
                     h->name, "state", host_state(lab, h), "netns", h->netns.name, "dir", h->dir,
                     "bridge", LAB_BRIDGE, "datapath", h->stock ? "netdev" : lab->config.datapath,
                     "vswitchd_pid", (int)sw.pid, "spare_pid", (int)sw.spare, "restarts",
                     (int)sw.restarts, "ovsdb_pid", (int)h->ovsdb.pid, "localxen_pid",
                     (int)h->localxen.pid, "xapid_pid", (int)h->xapid.pid);
}

static json_t *
guest_json(const struct lab *lab, struct lab_guest *g)
{
    char vif[16];

    snprintf(vif, sizeof vif, "vif%u.0", g->domid);
    return json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:s, s:s, s:s, s:i, s:i}", "name", g->name,
                     "host", lab->hosts[g->host].name, "ip", g->ip, "mac", g->mac, "vlan",
                     (int)g->vlan, "domid", (int)g->domid, "vif", vif, "netns", g->netns.name,
                     "link", guest_link(g), "pid", (int)g->netfront.pid, "restarts",
                     (int)g->netfront.restarts);
}

/* A column of a VM's, "" if there is no answer. */
static const char *
where(const json_t *vm, const char *column)
{
    const char *text = json_string_value(json_object_get(vm, column));

    return text ? text : "";
}

static json_t *
cell_json(const struct lab *lab, const struct lab_cell *cell, const json_t *vms)
{
    const json_t *vm = lab_cell_where(vms, cell);

    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "name", cell->name, "state",
                     where(vm, "power_state"), "host", where(vm, "resident_on"), "destination",
                     where(vm, "destination"), "ip", cell->ip, "mac", cell->mac, "network",
                     lab_networks[cell->network].name);
}

static json_t *
cells_json(const struct lab *lab)
{
    json_t *cells = json_array(), *vms = lab_cells_where(lab);

    for (unsigned i = 0; i < lab->n_cells; i++) {
        json_array_append_new(cells, cell_json(lab, &lab->cells[i], vms));
    }
    json_decref(vms);
    return cells;
}

static json_t *
pool_json(struct lab *lab)
{
    struct pool_proc all[POOL_PROCS];
    json_t *pool = json_array();

    pool_procs(lab, all);
    for (unsigned i = 0; i < POOL_PROCS; i++) {
        struct lab_proc *p = all[i].proc;
        json_array_append_new(pool, json_pack("{s:s, s:s, s:i, s:i}", "name", all[i].name, "state",
                                              proc_state(p), "pid", (int)p->pid, "restarts",
                                              (int)p->restarts));
    }
    return pool;
}

static int
print_json(struct lab *lab)
{
    json_t *root = json_object(), *hosts = json_array(), *guests = json_array();

    json_object_set_new(root, "hosts", hosts);
    json_object_set_new(root, "guests", guests);
    for (unsigned i = 0; lab && i < lab->config.n_hosts; i++) {
        json_array_append_new(hosts, host_json(lab, &lab->hosts[i]));
    }
    for (unsigned i = 0; lab && i < lab->n_guests; i++) {
        json_array_append_new(guests, guest_json(lab, &lab->guests[i]));
    }
    if (lab && lab->config.pool) {
        json_object_set_new(root, "pool", pool_json(lab));
        json_object_set_new(root, "cells", cells_json(lab));
    }
    int error = json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
    return error ? CLI_FAILED : CLI_OK;
}

/* --- the table -------------------------------------------------------------- */

static void
print_pool(struct lab *lab)
{
    struct pool_proc all[POOL_PROCS];

    pool_procs(lab, all);
    printf("\n%-11s %-8s %-8s %s\n", "POOL", "STATE", "PROCESS", "RESTARTS");
    for (unsigned i = 0; i < POOL_PROCS; i++) {
        printf("%-11s %-8s %-8d %u\n", all[i].name, proc_state(all[i].proc), (int)all[i].proc->pid,
               all[i].proc->restarts);
    }
}

static void
print_cells(const struct lab *lab)
{
    json_t *vms = lab_cells_where(lab);

    printf("\n%-6s %-5s %-8s %-10s %-12s %-18s %s\n", "CELL", "HOST", "STATE", "NETWORK", "ADDRESS",
           "MAC", "MOVES TO");
    for (unsigned i = 0; i < lab->n_cells; i++) {
        const struct lab_cell *cell = &lab->cells[i];
        const json_t *vm = lab_cell_where(vms, cell);

        printf("%-6s %-5s %-8s %-10s %-12s %-18s %s\n", cell->name, where(vm, "resident_on"),
               vm ? where(vm, "power_state") : "?", lab_networks[cell->network].name, cell->ip,
               cell->mac, where(vm, "destination"));
    }
    json_decref(vms);
}

static void
print_table(struct lab *lab)
{
    static const char *const phases[] = {"is being built", "is up", "is being taken down"};
    char since[16] = "?";
    struct tm tm;

    if (localtime_r(&lab->since, &tm)) {
        strftime(since, sizeof since, "%H:%M:%S", &tm);
    }
    printf("lab %s %s since %s in %s\n\n", lab->config.name, phases[lab->phase], since,
           lab->config.dir);
    printf("%-6s %-8s %-8s %-9s %-8s %s\n", "HOST", "STATE", "BRIDGE", "DATAPATH", "SWITCH",
           "RESTARTS");
    for (unsigned i = 0; i < lab->config.n_hosts; i++) {
        struct lab_host *h = &lab->hosts[i];
        struct lab_switch sw = lab_switch_of(&lab->config, h);
        printf("%-6s %-8s %-8s %-9s %-8d %u\n", h->name, host_state(lab, h), LAB_BRIDGE,
               h->stock ? "netdev" : lab->config.datapath, (int)sw.pid, sw.restarts);
    }
    if (lab->config.pool) {
        print_pool(lab);
    }
    if (lab->n_guests) {
        printf("\n%-6s %-5s %-5s %-12s %-18s %-8s %s\n", "GUEST", "HOST", "VLAN", "ADDRESS", "MAC",
               "VIF", "LINK");
    }
    for (unsigned i = 0; i < lab->n_guests; i++) {
        struct lab_guest *g = &lab->guests[i];
        char vlan[8] = "-", vif[16];
        if (g->vlan) {
            snprintf(vlan, sizeof vlan, "%u", g->vlan);
        }
        snprintf(vif, sizeof vif, "vif%u.0", g->domid);
        printf("%-6s %-5s %-5s %-12s %-18s %-8s %s\n", g->name, lab->hosts[g->host].name, vlan,
               g->ip, g->mac, vif, guest_link(g));
    }
    if (lab->n_cells) {
        print_cells(lab);
    }
}

int
lab_status_main(int argc, char **argv)
{
    struct lab_where where = {0};
    bool json = false;
    const struct cli_opt opts[] = {{"json", CLI_FLAG, &json, NULL, "for programs"},
                                   LAB_WHERE_OPTIONS(&where)};
    struct lab_config config = {0};
    struct lab *lab = NULL;
    char why[400];
    int code;

    if (!lab_cmd_options("status", "[OPTION...]", "  weft lab status --json | jq .guests\n", opts,
                         sizeof opts / sizeof opts[0], &argc, &argv, &code)) {
        return code;
    }
    if (argc > 0 || lab_where_resolve(&where, &config, why, sizeof why)) {
        return cli_usage_error("weft lab status", argc > 0 ? "takes options only" : why);
    }
    code = lab_load(config.dir, &lab, why, sizeof why);
    if (!code && !lab_proc_alive(&lab->supervisor)) {
        snprintf(why, sizeof why, "the lab is dead (its supervisor is gone): weft lab down");
        lab_free(lab);
        lab = NULL;
        code = ESRCH;
    }
    if (json) {
        int printed = print_json(lab);
        code = code ? CLI_FAILED : printed;
    } else if (code == ENOENT) {
        printf("no lab is up\n");
        code = CLI_FAILED;
    } else if (code) {
        code = lab_cmd_failed("status", why);
    } else {
        print_table(lab);
    }
    lab_free(lab);
    return code;
}
