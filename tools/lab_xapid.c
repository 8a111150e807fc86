#include "lab_xapid.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lab_build.h"
#include "lab_link.h"
#include "lab_manage.h"
#include "lab_netns.h"
#include "lab_pool.h"
#include "pool_client.h"

#define BRIDGE "migrate"
#define SOCKET "weft-xapid.sock"
#define TRUSTED "trusted.crt"
#define CA_CERT "WEFT_CA_CERT="
#define START_TIMEOUT_MS 120000
enum { MEMORY = 64 << 20 };

static unsigned
number(const struct lab *lab, const struct lab_host *h)
{
    return (unsigned)(h - lab->hosts) + 1;
}

/* --- the network ------------------------------------------------------------- */

int
lab_xapid_build_network(struct super *s)
{
    struct lab *lab = s->lab;
    char end[16], address[32];
    int wire = lab_netns_open(&lab->wire);
    int error = wire < 0 ? errno : lab_link_bridge(wire, BRIDGE);

    for (unsigned i = 0; !error && i < lab->config.n_hosts; i++) {
        int host = lab_netns_open(&lab->hosts[i].netns);

        snprintf(end, sizeof end, "m%u", i + 1);
        snprintf(address, sizeof address, LAB_MIGRATE_SUBNET ".%u/24", i + 1);
        error = host < 0 ? errno : lab_link_cable(wire, end, host, LAB_MIGRATE_IF);
        error = error ? error : lab_link_enslave(wire, end, BRIDGE);
        error = error ? error : lab_link_address(host, LAB_MIGRATE_IF, address);
        if (host >= 0) {
            close(host);
        }
    }
    if (wire >= 0) {
        close(wire);
    }
    return error ? lab_fail(lab, error, "cannot build the network for migrations: %s",
                            strerror(error))
                 : 0;
}

/* --- the daemons ---------------------------------------------------------------- */

#define SAY(I, ...) snprintf(text[I], sizeof text[I], __VA_ARGS__)

int
lab_xapid_start(struct super *s, struct lab_host *h)
{
    const struct lab *lab = s->lab;
    const char *pki = lab->pool.dir;
    unsigned n = number(lab, h);
    char run[LAB_PATH_MAX], xapi[LAB_PATH_MAX], text[13][LAB_PATH_MAX + 64];
    int error;

    lab_path(run, sizeof run, h->dir, "run");
    lab_path(xapi, sizeof xapi, h->dir, "xapi");
    if (mkdir(xapi, 0700) && errno != EEXIST) {
        return lab_fail(s->lab, errno, "cannot make %s: %s", xapi, strerror(errno));
    }
    SAY(0, "--db=unix:%s/run/pool.sock", lab->pool.dir);
    SAY(1, "--host=%s", h->name);
    SAY(2, "--listen=unix:%s/" SOCKET, run);
    SAY(3, "--listen=ssl:443:" LAB_MANAGE_SUBNET ".%u", n);
    SAY(4, "--advertise=https://" LAB_MANAGE_SUBNET ".%u", n);
    SAY(5, "--migration-address=%s.%u",
        lab->config.n_hosts > 1 ? LAB_MIGRATE_SUBNET : LAB_MANAGE_SUBNET, n);
    SAY(6, "--private-key=%s/pki/%s.key", pki, h->name);
    SAY(7, "--certificate=%s/pki/%s.crt", pki, h->name);
    SAY(8, "--ca-cert=%s/pki/ca.crt", pki);
    SAY(9, "--run-dir=%s", xapi);
    SAY(10, "--switch-dir=%s", run);
    SAY(11, "--localxen-dir=%s/xen", h->dir);
    SAY(12, "--share=%s", lab->config.share);
    const char *argv[] = {
        "weft-xapid", "--pidfile", "-vconsole:info", "-vsyslog:off", text[0],  text[1],
        text[2],      text[3],     text[4],          text[5],        text[6],  text[7],
        text[8],      text[9],     text[10],         text[11],       text[12], NULL};
    /* One that was killed left it behind. */
    unlink(text[2] + strlen("--listen=unix:"));
    error = lab_start_daemon(s, &h->xapid, &h->netns, h->dir, argv, -1);
    if (!error) {
        error = lab_await_file(s, run, SOCKET, LAB_DAEMON_TIMEOUT_MS);
    }
    if (error == ETIMEDOUT) {
        error = lab_fail(s->lab, EPROTO, "weft-xapid of %s did not open its socket", h->name);
        snprintf(s->lab->why_log, sizeof s->lab->why_log, "%s", h->xapid.log);
    }
    return error;
}

/* --- the cells -------------------------------------------------------------------- */

void
lab_xapid_add_cells(const struct lab *lab, json_t *vms, json_t *vifs)
{
    for (unsigned i = 0; i < lab->n_cells; i++) {
        const struct lab_cell *cell = &lab->cells[i];
        const struct lab_network *n = &lab_networks[cell->network];

        json_array_append_new(vms,
                              json_pack("{s:s, s:s}", "name", cell->name, "tenant", n->tenant));
        json_array_append_new(vifs, json_pack("{s:o, s:s, s:s, s:s, s:s, s:[s]}", "name",
                                              json_sprintf("%s-0", cell->name), "vm", cell->name,
                                              "network", n->name, "mac", cell->mac, "locking_mode",
                                              "locked", "ipv4_allowed", cell->ip));
    }
}

/* {"op": "update", ...} of the row of that name. */
static json_t *
update(const char *table, json_t *name, json_t *row)
{
    return json_pack("{s:s, s:s, s:[[s, s, o]], s:o}", "op", "update", "table", table, "where",
                     "name", "==", name, "row", row);
}

/* What is no configuration, and so not for the controller to be told. */
static int
write_rows(struct super *s)
{
    const struct lab *lab = s->lab;
    char program[LAB_PATH_MAX * 2], db[LAB_PATH_MAX + 16], *text;
    json_t *txn = json_pack("[s]", "Weft_Pool");
    int error;

    for (unsigned i = 0; i < lab->n_cells; i++) {
        const struct lab_cell *cell = &lab->cells[i];
        json_t *config = json_pack("[s, [[s, o]]]", "map", "ip", json_sprintf("%s/8", cell->ip));

        json_array_append_new(
            txn, update("VM", json_string(cell->name),
                        json_pack("{s:s, s:s, s:i, s:o}", "power_state", "Halted", "driver", "cell",
                                  "memory_bytes", MEMORY, "config", config)));
        json_array_append_new(txn, update("VIF", json_sprintf("%s-0", cell->name),
                                          json_pack("{s:s}", "device", "0")));
    }
    text = json_dumps(txn, JSON_COMPACT);
    json_decref(txn);
    snprintf(db, sizeof db, "unix:%s/run/pool.sock", lab->pool.dir);
    const char *argv[] = {"ovsdb-client", "transact", db, text, NULL};
    lab_program(&lab->config, argv[0], program, sizeof program);
    error =
        text ? super_job(s, "writing the cells' rows", program, argv, NULL, LAB_DAEMON_TIMEOUT_MS)
             : lab_fail(s->lab, ENOMEM, "no memory");
    free(text);
    return error;
}

static int
start_cell(struct super *s, const struct lab_cell *cell)
{
    struct lab *lab = s->lab;
    const struct lab_host *h = &lab->hosts[cell->host];
    const char *argv[] = {"weft", "vm", "start", cell->name, "--on", h->name, NULL};
    char program[LAB_PATH_MAX * 2];
    struct lab_xapid_env env;
    int error;

    lab_xapid_environment(lab, &env);
    lab_program(&lab->config, argv[0], program, sizeof program);
    error = super_job_in(s, &lab->pool.netns, "starting a cell", program, argv, env.vars,
                         START_TIMEOUT_MS);
    if (!error) {
        super_tell(s, 'P', "%s: %s on %s of %s", cell->name, cell->ip,
                   lab_networks[cell->network].name, h->name);
    }
    return error;
}

static int
write_trusted(struct lab *lab)
{
    static const char *const authorities[] = {"pki/ca.crt", "pki-control/ca.crt"};
    char path[LAB_PATH_MAX], text[16384];
    FILE *from, *to;
    bool good;

    lab_path(path, sizeof path, lab->pool.dir, TRUSTED);
    to = fopen(path, "we");
    good = to;
    for (unsigned i = 0; good && i < sizeof authorities / sizeof authorities[0]; i++) {
        size_t n = 0;

        lab_path(path, sizeof path, lab->pool.dir, authorities[i]);
        from = fopen(path, "re");
        if (from) {
            n = fread(text, 1, sizeof text, from);
            fclose(from);
        }
        good = n && fwrite(text, 1, n, to) == n;
    }
    if (to && fclose(to)) {
        good = false;
    }
    return good ? 0 : lab_fail(lab, EIO, "cannot write %s/" TRUSTED, lab->pool.dir);
}

int
lab_xapid_build(struct super *s)
{
    struct lab *lab = s->lab;
    int error = write_trusted(lab);

    error = error ? error : write_rows(s);

    for (unsigned i = 0; !error && i < lab->config.n_hosts; i++) {
        if (lab_host_has_xapid(lab, &lab->hosts[i])) {
            error = lab_xapid_start(s, &lab->hosts[i]);
        }
    }
    if (!error) {
        super_tell(s, 'P', "hosts: weft-xapid, for VMs that start, stop and move");
    }
    for (unsigned i = 0; !error && i < lab->n_cells; i++) {
        error = start_cell(s, &lab->cells[i]);
    }
    return error;
}

/* --- who asks -------------------------------------------------------------------------- */

void
lab_xapid_environment(const struct lab *lab, struct lab_xapid_env *e)
{
    unsigned n;

    lab_manage_environment(lab, &e->manage);
    snprintf(e->xapi, sizeof e->xapi, "WEFT_XAPI=https://" LAB_MANAGE_SUBNET ".1");
    for (n = 0; n < LAB_MANAGE_N_ARGS; n++) {
        if (!strncmp(e->manage.text[n], CA_CERT, strlen(CA_CERT))) {
            snprintf(e->manage.text[n], sizeof e->manage.text[n], CA_CERT "%s/" TRUSTED,
                     lab->pool.dir);
        }
        e->vars[n] = e->manage.text[n];
    }
    e->vars[n++] = e->xapi;
    e->vars[n] = NULL;
}

json_t *
lab_cells_where(const struct lab *lab)
{
    char url[LAB_PATH_MAX + 48], why[200];
    const struct pool_where where = {.controller = url, .no_session = true};
    struct pool_client *client;
    json_t *answer = NULL, *vms;

    snprintf(url, sizeof url, "unix:%s/run/weft-controllerd.rest", lab->pool.dir);
    if (pool_client_open(&where, &client, why, sizeof why)) {
        return NULL;
    }
    pool_call(client, "GET", "/v1/vms", NULL, NULL, 5, &answer);
    pool_client_close(client);
    vms = json_incref(json_object_get(answer, "vms"));
    json_decref(answer);
    return vms;
}

const json_t *
lab_cell_where(const json_t *vms, const struct lab_cell *cell)
{
    json_t *vm;
    size_t i;

    json_array_foreach(vms, i, vm)
    {
        const char *name = json_string_value(json_object_get(vm, "name"));

        if (name && !strcmp(name, cell->name)) {
            return vm;
        }
    }
    return NULL;
}
