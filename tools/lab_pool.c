#include "lab_pool.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "lab_build.h"
#include "lab_manage.h"
#include "lab_proc.h"
#include "lab_xapid.h"
#include "pool_client.h"

#define IMPORT_TIMEOUT_MS 120000
#define DOCUMENT "lab.json"
#define FLOWD_PORT "4739"
enum { FLOWS_S = 5 }; /* long flows are told of so often */
enum { LOOK_MS = 20 };

/* Both tenants use the same addresses; each has some that the other lacks,
 * which must not be reached. */
const struct lab_network lab_networks[LAB_N_NETWORKS] = {
    {.name = "red-lan", .tenant = "red", .id = 10, .subnet = 1, .first = 1},
    {.name = "blue-lan", .tenant = "blue", .id = 20, .subnet = 1, .first = 2},
    {.name = "red-cloud", .tenant = "red", .overlay = true, .id = 5010, .subnet = 2, .first = 1},
    {.name = "blue-cloud", .tenant = "blue", .overlay = true, .id = 5020, .subnet = 2, .first = 2},
};

/* --- daemons --------------------------------------------------------------- */

int
lab_pool_start_ovsdb(struct super *s)
{
    struct lab_pool *p = &s->lab->pool;

    return lab_start_ovsdb(s, &p->ovsdb, NULL, p->dir, "pool.db", "pool.sock", NULL, "the pool");
}

static bool
has_read_database(struct pool_client *client)
{
    json_t *status = NULL;
    bool has;

    pool_call(client, "GET", "/v1/status", NULL, NULL, 1, &status);
    has = json_is_true(json_object_get(status, "database"));
    json_decref(status);
    return has;
}

/* Before that it has nothing to say.  A database that is to be restarted is not waited for. */
static int
await_database(struct super *s)
{
    const struct lab_pool *p = &s->lab->pool;
    char url[LAB_PATH_MAX + 48], why[200];
    const struct pool_where where = {.controller = url, .no_session = true};
    int64_t end = lab_now_ms() + LAB_DAEMON_TIMEOUT_MS;
    struct pool_client *client;
    int error;

    snprintf(url, sizeof url, "unix:%s/run/weft-controllerd.rest", p->dir);
    if (pool_client_open(&where, &client, why, sizeof why)) {
        return lab_fail(s->lab, EPROTO, "weft-controllerd: %s", why);
    }
    do {
        error =
            has_read_database(client) || p->ovsdb.restart_at_ms ? 0 : super_wait(s, -1, LOOK_MS);
    } while (error == ETIMEDOUT && lab_now_ms() < end);
    pool_client_close(client);
    return error;
}

int
lab_pool_start_controllerd(struct super *s)
{
    struct lab_pool *p = &s->lab->pool;
    char db[LAB_PATH_MAX], run[LAB_PATH_MAX], rest[LAB_PATH_MAX + 48];
    struct lab_manage_args a = {.text = {""}};
    int error;

    snprintf(db, sizeof db, "--db=unix:%s/run/pool.sock", p->dir);
    lab_path(run, sizeof run, p->dir, "run");
    snprintf(rest, sizeof rest, "--rest=unix:%s/weft-controllerd.rest", run);
    lab_manage_controller_args(s->lab, &a);
    const char *argv[] = {"weft-controllerd", db,        "--pidfile", "-vconsole:info",
                          "-vsyslog:off",     rest,      a.text[0],   a.text[1],
                          a.text[2],          a.text[3], NULL};
    error = lab_start_daemon(s, &p->controllerd, &p->netns, p->dir, argv, -1);
    if (!error) {
        error = lab_await_file(s, run, "weft-controllerd.rest", LAB_DAEMON_TIMEOUT_MS);
    }
    if (!error) {
        error = await_database(s);
    }
    if (error == ETIMEDOUT) {
        error = lab_fail(s->lab, EPROTO, "weft-controllerd did not read the pool's database");
        snprintf(s->lab->why_log, sizeof s->lab->why_log, "%s", p->controllerd.log);
    }
    return error;
}

/* Where "weft flow" looks for it; the hosts export over their management
 * network. */
int
lab_pool_start_flowd(struct super *s)
{
    struct lab_pool *p = &s->lab->pool;
    char store[LAB_PATH_MAX + 32], run[LAB_PATH_MAX], http[LAB_PATH_MAX + 32];
    char names[LAB_PATH_MAX + 48];
    int error;

    lab_path(run, sizeof run, p->dir, "run");
    snprintf(store, sizeof store, "--store=%s/db/flows.db", p->dir);
    snprintf(http, sizeof http, "--http=unix:%s/weft-flowd.http", run);
    snprintf(names, sizeof names, "--controller=unix:%s/weft-controllerd.rest", run);
    const char *argv[] = {"weft-flowd", "--listen=udp:" FLOWD_PORT ":" LAB_MANAGE_CONTROLLER,
                          store,        http,
                          names,        "--keep-mb=1024",
                          NULL};
    error = lab_start_daemon(s, &p->flowd, &p->netns, p->dir, argv, -1);
    if (!error) {
        error = lab_await_file(s, run, "weft-flowd.http", LAB_DAEMON_TIMEOUT_MS);
    }
    if (error == ETIMEDOUT) {
        error = lab_fail(s->lab, EPROTO, "weft-flowd did not open its socket");
        snprintf(s->lab->why_log, sizeof s->lab->why_log, "%s", p->flowd.log);
    }
    return error;
}

int
lab_pool_build(struct super *s)
{
    struct lab_pool *p = &s->lab->pool;
    int error = lab_create_database(s, p->dir, "pool.db", "pool.ovsschema");

    if (!error) {
        error = lab_pool_start_ovsdb(s);
    }
    if (!error) {
        error = lab_pool_start_controllerd(s);
    }
    if (!error) {
        error = lab_pool_start_flowd(s);
    }
    if (!error) {
        super_tell(s, 'P',
                   "pool: database (ovsdb-server), controller (weft-controllerd) and flow "
                   "collector (weft-flowd)");
    }
    return error;
}

/* --- what the controller is told --------------------------------------------- */

static json_t *
hosts_json(const struct lab *lab)
{
    json_t *hosts = json_array();

    for (unsigned i = 0; i < lab->config.n_hosts; i++) {
        const struct lab_host *h = &lab->hosts[i];
        json_t *host =
            json_pack("{s:s, s:o, s:s}", "name", h->name, "ovsdb",
                      json_sprintf("ssl:" LAB_MANAGE_SUBNET ".%u:%d", i + 1, LAB_MANAGE_OVSDB_PORT),
                      "bridge", LAB_BRIDGE);

        if (lab->config.n_hosts > 1) {
            json_object_set_new(host, "uplink", json_string(LAB_WIRE_IF));
            json_object_set_new(host, "tunnel_ip", json_sprintf("%s.%u", LAB_TUNNEL_SUBNET, i + 1));
        }
        json_array_append_new(hosts, host);
    }
    return hosts;
}

static json_t *
networks_json(void)
{
    json_t *networks = json_array();

    for (unsigned i = 0; i < LAB_N_NETWORKS; i++) {
        const struct lab_network *n = &lab_networks[i];

        json_array_append_new(
            networks, n->overlay ? json_pack("{s:s, s:s, s:s, s:i, s:s}", "name", n->name, "tenant",
                                             n->tenant, "type", "overlay", "vni", (int)n->id,
                                             "encapsulation", "geneve")
                                 : json_pack("{s:s, s:s, s:s, s:i}", "name", n->name, "tenant",
                                             n->tenant, "type", "vlan", "tag", (int)n->id));
    }
    return networks;
}

static void
add_guests(const struct lab *lab, json_t *vms, json_t *vifs)
{
    for (unsigned i = 0; i < lab->n_guests; i++) {
        const struct lab_guest *g = &lab->guests[i];
        const struct lab_network *n = &lab_networks[g->network];

        json_array_append_new(vms, json_pack("{s:s, s:s}", "name", g->name, "tenant", n->tenant));
        json_array_append_new(vifs,
                              json_pack("{s:o, s:s, s:s, s:s, s:s, s:[s], s:[s]}", "name",
                                        json_sprintf("%s-eth0", g->name), "vm", g->name, "network",
                                        n->name, "mac", g->mac, "locking_mode", "locked",
                                        "ipv4_allowed", g->ip, "ipv6_allowed", g->ip6));
    }
}

/* Inside a tenant's networks everything may talk; what the lab's user adds
 * narrows it. */
static json_t *
document(const struct lab *lab)
{
    json_t *vms = json_array(), *vifs = json_array();

    add_guests(lab, vms, vifs);
    lab_xapid_add_cells(lab, vms, vifs);
    return json_pack("{s:i, s:{s:s, s:s}, s:o, s:[{s:s}, {s:s}], s:o, s:o, s:o, s:[o]}", "version",
                     1, "pool", "name", lab->config.name, "default_action", "allow", "hosts",
                     hosts_json(lab), "tenants", "name", "red", "name", "blue", "networks",
                     networks_json(), "vms", vms, "vifs", vifs, "exporters",
                     json_pack("{s:s, s:s, s:[s], s:i}", "name", "flows", "protocol", "ipfix",
                               "targets", LAB_MANAGE_CONTROLLER ":" FLOWD_PORT, "active_timeout",
                               FLOWS_S));
}

int
lab_pool_state(struct super *s)
{
    const struct lab_pool *p = &s->lab->pool;
    char program[LAB_PATH_MAX * 2], path[LAB_PATH_MAX], controller[LAB_PATH_MAX];
    json_t *root = document(s->lab);
    int error = 0;

    lab_path(path, sizeof path, p->dir, DOCUMENT);
    if (!root || json_dump_file(root, path, JSON_INDENT(1))) {
        error = lab_fail(s->lab, EIO, "cannot write %s", path);
    }
    json_decref(root);
    snprintf(controller, sizeof controller, "--controller=unix:%s/run/weft-controllerd.rest",
             p->dir);
    const char *argv[] = {"weft", "policy", "import", path, "--wait", controller, NULL};
    if (!error && !lab_program(&s->lab->config, argv[0], program, sizeof program)) {
        error = lab_fail(s->lab, ENOENT, "%s is missing: build it with make", program);
    }
    if (!error) {
        error = super_job(s, "telling the controller", program, argv, NULL, IMPORT_TIMEOUT_MS);
    }
    if (!error) {
        super_tell(s, 'P', "pool: 2 tenants, %u networks, %u vifs on every host's switch",
                   LAB_N_NETWORKS, s->lab->n_guests + s->lab->n_cells);
    }
    return error;
}
