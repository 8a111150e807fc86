#include "lab_build.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netlink/socket.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lab_link.h"
#include "lab_manage.h"
#include "lab_netns.h"
#include "lab_pool.h"
#include "lab_proc.h"
#include "lab_stock.h"
#include "lab_sweep.h"
#include "lab_xapid.h"

/* As in lab_build.h: bounds, not expectations. */
#define BRIDGE_TIMEOUT_MS 10000
#define GUEST_TIMEOUT_MS 60000
#define WIRE_BRIDGE "wire"

static const struct lab_config *
config_of(const struct super *s)
{
    return &s->lab->config;
}

bool
lab_program(const struct lab_config *c, const char *program, char *path, size_t size)
{
    snprintf(path, size, "%s/%s", c->bin, program);
    return !access(path, X_OK);
}

void
lab_env_of(const char *dir, struct lab_env *env)
{
    static const char *const names[] = {"OVS_RUNDIR=%s/run", "OVS_LOGDIR=%s/log", "OVS_DBDIR=%s/db",
                                        "OVS_SYSCONFDIR=%s/db", "XENSTORED_PATH=%s/xen/xenstored"};
    unsigned n = sizeof names / sizeof names[0];

    for (unsigned i = 0; i < n; i++) {
        const char *tail = strstr(names[i], "%s");
        snprintf(env->buf[i], sizeof env->buf[i], "%.*s%s%s", (int)(tail - names[i]), names[i], dir,
                 tail + 2);
        env->vars[i] = env->buf[i];
    }
    env->vars[n] = NULL;
}

int
lab_start_daemon(struct super *s, struct lab_proc *p, const struct lab_netns *netns,
                 const char *dir, const char *const *argv, int pass_fd)
{
    char program[LAB_PATH_MAX * 2];
    struct lab_env env;
    struct lab_spawn spawn = {.program = program,
                              .argv = argv,
                              .env = env.vars,
                              .log = p->log,
                              .netns_fd = -1,
                              .stdout_fd = -1,
                              .pass_fd = pass_fd};
    int error;

    if (p->kind == LAB_VSWITCHD && s->lab->hosts[p->owner].stock) {
        snprintf(program, sizeof program, "%s", config_of(s)->stock_vswitchd);
    } else if (!lab_program(config_of(s), p->name, program, sizeof program)) {
        return lab_fail(s->lab, ENOENT, "%s is missing: build it with make", program);
    }
    lab_env_of(dir, &env);
    if (netns) {
        spawn.netns_fd = lab_netns_open(netns);
        if (spawn.netns_fd < 0) {
            return lab_fail(s->lab, errno, "namespace %s is gone", netns->name);
        }
    }
    error = lab_proc_spawn(s->lab, p, &spawn);
    if (spawn.netns_fd >= 0) {
        close(spawn.netns_fd);
    }
    return error;
}

/* --- a host's daemons ------------------------------------------------------- */

static int
start_localxen(struct super *s, struct lab_host *h)
{
    char dir[LAB_PATH_MAX], fd_text[12], byte;
    int ready[2];
    int error;

    if (pipe2(ready, O_CLOEXEC)) {
        return lab_fail(s->lab, errno, "cannot make a pipe: %s", strerror(errno));
    }
    lab_path(dir, sizeof dir, h->dir, "xen");
    snprintf(fd_text, sizeof fd_text, "%d", ready[1]);
    const char *argv[] = {"weft-localxen", "--dir", dir, "--ready-fd", fd_text, NULL};
    error = lab_start_daemon(s, &h->localxen, &h->netns, h->dir, argv, ready[1]);
    close(ready[1]);
    if (!error) {
        error = super_wait(s, ready[0], LAB_DAEMON_TIMEOUT_MS);
    }
    if (error == ETIMEDOUT || (!error && read(ready[0], &byte, 1) != 1)) {
        error = lab_fail(s->lab, EPROTO, "weft-localxen of %s did not become ready", h->name);
        snprintf(s->lab->why_log, sizeof s->lab->why_log, "%s", h->localxen.log);
    }
    close(ready[0]);
    return error;
}

int
lab_await_file(struct super *s, const char *dir, const char *name, int timeout_ms)
{
    char path[LAB_PATH_MAX], events[4096];
    int error = 0;
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

    lab_path(path, sizeof path, dir, name);
    if (fd < 0 || inotify_add_watch(fd, dir, IN_CREATE | IN_MOVED_TO) < 0) {
        error = lab_fail(s->lab, errno, "cannot watch %s: %s", dir, strerror(errno));
    }
    while (!error && access(path, F_OK)) {
        error = super_wait(s, fd, timeout_ms);
        if (!error && read(fd, events, sizeof events) < 0 && errno != EAGAIN) {
            error = lab_fail(s->lab, errno, "cannot watch %s: %s", dir, strerror(errno));
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return error;
}

int
lab_start_ovsdb(struct super *s, struct lab_proc *p, const struct lab_netns *netns, const char *dir,
                const char *file, const char *socket, const char *const *more, const char *owner)
{
    char run[LAB_PATH_MAX], db[LAB_PATH_MAX], remote[LAB_PATH_MAX + 64];
    int error;

    lab_path(run, sizeof run, dir, "run");
    snprintf(db, sizeof db, "%s/db/%s", dir, file);
    snprintf(remote, sizeof remote, "--remote=punix:%s/%s", run, socket);
    const char *argv[12] = {"ovsdb-server", db, remote, "--pidfile", "-vconsole:info",
                            "-vsyslog:off"};
    for (unsigned n = 6; more && *more && n < 11; n++) {
        argv[n] = *more++;
    }
    error = lab_start_daemon(s, p, netns, dir, argv, -1);
    if (!error) {
        error = lab_await_file(s, run, socket, LAB_DAEMON_TIMEOUT_MS);
    }
    if (error == ETIMEDOUT) {
        error = lab_fail(s->lab, EPROTO, "ovsdb-server of %s did not open its socket", owner);
        snprintf(s->lab->why_log, sizeof s->lab->why_log, "%s", p->log);
    }
    return error;
}

static int
start_ovsdb(struct super *s, struct lab_host *h)
{
    struct lab_manage_args a = {.text = {""}};
    const char *const more[] = {a.text[0], a.text[1], a.text[2], a.text[3], NULL};

    if (config_of(s)->pool) {
        lab_manage_host_args(s->lab, h, &a);
    }
    return lab_start_ovsdb(s, &h->ovsdb, &h->netns, h->dir, "conf.db", "db.sock",
                           config_of(s)->pool ? more : NULL, h->name);
}

int
lab_create_database(struct super *s, const char *dir, const char *file, const char *schema_name)
{
    char program[LAB_PATH_MAX * 2], db[LAB_PATH_MAX], schema[LAB_PATH_MAX * 2];

    snprintf(db, sizeof db, "%s/db/%s", dir, file);
    snprintf(schema, sizeof schema, "%s/%s", config_of(s)->share, schema_name);
    const char *argv[] = {"ovsdb-tool", "-vsyslog:off", "create", db, schema, NULL};
    if (!lab_program(config_of(s), argv[0], program, sizeof program)) {
        return lab_fail(s->lab, ENOENT, "%s is missing: build it with make", program);
    }
    return super_job(s, "creating a database", program, argv, NULL, LAB_DAEMON_TIMEOUT_MS);
}

/* Runs ovs-vsctl on the host's database. */
static int
vsctl(struct super *s, struct lab_host *h, const char *what, const char *const *args, unsigned n,
      int timeout_ms)
{
    char program[LAB_PATH_MAX * 2], timeout[24];
    const char *argv[48] = {"ovs-vsctl", "--retry", "-vsyslog:off", timeout};
    struct lab_env env;

    if (n + 5 > sizeof argv / sizeof argv[0]) {
        return lab_fail(s->lab, E2BIG, "%s: too many arguments", what);
    }
    memcpy(argv + 4, args, n * sizeof *args);
    snprintf(timeout, sizeof timeout, "--timeout=%d", timeout_ms / 1000);
    if (!lab_program(config_of(s), argv[0], program, sizeof program)) {
        return lab_fail(s->lab, ENOENT, "%s is missing: build it with make", program);
    }
    lab_env_of(h->dir, &env);
    return super_job(s, what, program, argv, env.vars, timeout_ms + 5000);
}

int
lab_vsctl(struct super *s, struct lab_host *h, const char *what, const char *const *args,
          unsigned n)
{
    return vsctl(s, h, what, args, n, LAB_DAEMON_TIMEOUT_MS);
}

/* Each host's polling threads get one core, from the machine's last one down,
 * away from where interrupts usually go. */
static void
pmd_mask(const struct super *s, const struct lab_host *h, char *buf, size_t size)
{
    const struct lab_config *c = config_of(s);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned index = (unsigned)(h - s->lab->hosts);

    cores = cores < 1 ? 1 : cores > 64 ? 64 : cores;
    if (c->pmd_mask[0]) {
        snprintf(buf, size, "other_config:pmd-cpu-mask=%s", c->pmd_mask);
    } else {
        snprintf(buf, size, "other_config:pmd-cpu-mask=%llx", 1ULL << (cores - 1 - index % cores));
    }
}

/* Everything the switch needs to know, written before it starts. */
static int
configure_switch(struct super *s, struct lab_host *h)
{
    const struct lab_config *c = config_of(s);
    char maxsleep[48], mask[64], hv[LAB_PATH_MAX + 48], hostname[48], system_id[64], type[48],
        hwaddr[64];
    struct lab_manage_args ssl = {.text = {""}};
    const char *args[44];
    unsigned n = 0;

    snprintf(maxsleep, sizeof maxsleep, "other_config:pmd-maxsleep=%u", c->pmd_maxsleep_us);
    pmd_mask(s, h, mask, sizeof mask);
    snprintf(hv, sizeof hv, "other_config:weft-hv=\"local:%s/xen\"", h->dir);
    snprintf(hostname, sizeof hostname, "external_ids:hostname=%s", h->name);
    snprintf(system_id, sizeof system_id, "external_ids:system-id=%s-%s", c->name, h->name);
    /* Else the bridge takes the lowest MAC of its ports, and another one
     * whenever that changes. */
    snprintf(hwaddr, sizeof hwaddr, "other_config:hwaddr=\"02:77:66:68:00:%02x\"",
             (unsigned)(h - s->lab->hosts) + 1);
    snprintf(type, sizeof type, "datapath_type=%s", h->stock ? "netdev" : c->datapath);
    /* Another's switch has no DPDK and no netback; what it does not know it ignores. */
    const char *dpdk_init =
        h->stock ? "other_config:dpdk-init=false" : "other_config:dpdk-init=true";
    const char *tso = h->stock ? "other_config:userspace-tso-enable=false"
                               : "other_config:userspace-tso-enable=true";
    const char *base[] = {
        "--no-wait", "init", "--",     "set",      "Open_vSwitch", ".",   dpdk_init, tso,
        maxsleep,    mask,   hv,       hostname,   system_id,      "--",  "add-br",  LAB_BRIDGE,
        "--",        "set",  "Bridge", LAB_BRIDGE, type,           hwaddr};
    const char *wire[] = {"--", "add-port", LAB_BRIDGE, LAB_WIRE_IF};
    /* Without per-port-memory a DPDK port takes three quarters of a GiB, and
     * the memory of a DPDK without hugepages is all there is. */
    const char *dpdk[] = {"--",
                          "set",
                          "Interface",
                          LAB_WIRE_IF,
                          "type=dpdk",
                          ("options:dpdk-devargs=eth_af_packet0,iface=" LAB_WIRE_IF),
                          "--",
                          "set",
                          "Open_vSwitch",
                          ".",
                          "other_config:per-port-memory=true"};

    memcpy(args, base, sizeof base);
    n = sizeof base / sizeof base[0];
    if (c->n_hosts > 1) {
        memcpy(args + n, wire, sizeof wire);
        n += sizeof wire / sizeof wire[0];
        if (c->nic == LAB_NIC_DPDK && !h->stock) {
            memcpy(args + n, dpdk, sizeof dpdk);
            n += sizeof dpdk / sizeof dpdk[0];
        }
    }
    if (c->pool) {
        lab_manage_ssl(s->lab, h, &ssl);
        args[n++] = "--";
        for (unsigned i = 0; i < LAB_MANAGE_N_ARGS; i++) {
            args[n++] = ssl.text[i];
        }
    }
    return vsctl(s, h, "configuring the switch", args, n, LAB_DAEMON_TIMEOUT_MS);
}

/* Under the name ovs-vswitchd its control files are where ovs-appctl and
 * other tools look for them. */
static int
start_vswitchd(struct super *s, struct lab_host *h)
{
    char db[LAB_PATH_MAX + 16];

    if (h->stock) {
        return lab_stock_start_vswitchd(s, h);
    }
    snprintf(db, sizeof db, "unix:%s/run/db.sock", h->dir);
    const char *argv[] = {"ovs-vswitchd",
                          db,
                          "--pidfile",
                          "-vconsole:info",
                          "-vsyslog:off",
                          config_of(s)->spare ? "--spare" : NULL,
                          NULL};
    return lab_start_daemon(s, &h->vswitchd, &h->netns, h->dir, argv, -1);
}

/* The host's address in the overlays, on the bridge's own port. */
static int
add_tunnel_endpoint(struct super *s, struct lab_host *h)
{
    int netns = lab_netns_open(&h->netns);
    char address[32];
    int error;

    snprintf(address, sizeof address, LAB_TUNNEL_SUBNET ".%u/24",
             (unsigned)(h - s->lab->hosts) + 1);
    error = netns < 0 ? errno : lab_link_address(netns, LAB_BRIDGE, address);
    if (netns >= 0) {
        close(netns);
    }
    return error ? lab_fail(s->lab, error, "%s: cannot give " LAB_BRIDGE " the address %s: %s",
                            h->name, address, strerror(error))
                 : 0;
}

/* ovs-vsctl returns when the switch has taken over its change. */
static int
await_switch(struct super *s, struct lab_host *h)
{
    char id[48];
    int error;

    snprintf(id, sizeof id, "external_ids:weft-lab=%s", config_of(s)->name);
    const char *settle[] = {"set", "Open_vSwitch", ".", id};
    const char *bridge[] = {"wait-until", "Bridge", LAB_BRIDGE, "datapath_id!=[]"};
    const char *wire[] = {"wait-until", "Interface", LAB_WIRE_IF, "link_state=up"};

    error = vsctl(s, h, "waiting for the switch", settle, 4, LAB_SWITCH_TIMEOUT_MS);
    if (!error) {
        error = vsctl(s, h, "waiting for bridge " LAB_BRIDGE, bridge, 4, BRIDGE_TIMEOUT_MS);
    }
    if (!error && config_of(s)->n_hosts > 1) {
        error = vsctl(s, h, "waiting for the switch's wire port", wire, 4, LAB_DAEMON_TIMEOUT_MS);
    }
    if (error == EPROTO) {
        snprintf(s->lab->why_log, sizeof s->lab->why_log, "%s", h->vswitchd.log);
    }
    return error ? error : config_of(s)->pool ? add_tunnel_endpoint(s, h) : 0;
}

/* --- guests -------------------------------------------------------------- */

void
lab_uuid(char kind, unsigned number, char buf[40])
{
    snprintf(buf, 40, "77656674-0000-4000-800%c-%012x", kind, number);
}

static int
start_guest(struct super *s, struct lab_guest *g)
{
    const struct lab_config *c = config_of(s);
    struct lab_host *h = &s->lab->hosts[g->host];

    if (h->stock) {
        return lab_stock_start_guest(s, g);
    }
    char dir[LAB_PATH_MAX], domid[12], ip[64], vlan[12], queues[12], mtu[12];
    char vif[40], vm[40], network[40];
    const char *argv[40];
    unsigned n = 0;

    lab_uuid(LAB_UUID_VIF, (unsigned)(g - s->lab->guests) + 1, vif);
    lab_uuid(LAB_UUID_VM, (unsigned)(g - s->lab->guests) + 1, vm);
    lab_uuid(LAB_UUID_NETWORK, c->pool ? g->network + 1 : g->vlan, network);
    lab_path(dir, sizeof dir, h->dir, "xen");
    snprintf(domid, sizeof domid, "%u", g->domid);
    lab_guest_addresses(s->lab, g, ip, sizeof ip);
    snprintf(vlan, sizeof vlan, "%u", g->vlan);
    snprintf(queues, sizeof queues, "%u", c->queues);
    snprintf(mtu, sizeof mtu, "%u", lab_guest_mtu(s->lab, g));
    const char *base[] = {
        "weft-netfront", "--create",    "--dir",     dir,          "--domid",        domid,
        "--mac",         g->mac,        "--bridge",  LAB_BRIDGE,   "--mode",         "tap",
        "--netns",       g->netns.name, "--ifname",  LAB_GUEST_IF, "--ip",           ip,
        "--vif-uuid",    vif,           "--vm-uuid", vm,           "--network-uuid", network};
    memcpy(argv, base, sizeof base);
    n = sizeof base / sizeof base[0];
    if (g->vlan && !c->pool) {
        argv[n++] = "--vlan";
        argv[n++] = vlan;
    }
    if (c->queues) {
        argv[n++] = "--queues";
        argv[n++] = queues;
    }
    if (lab_guest_mtu(s->lab, g)) {
        argv[n++] = "--mtu";
        argv[n++] = mtu;
    }
    if (c->hash) {
        argv[n++] = "--hash";
    }
    if (c->multicast) {
        argv[n++] = "--multicast";
    }
    if (c->static_grants) {
        argv[n++] = "--static-grants";
    }
    argv[n] = NULL;
    return lab_start_daemon(s, &g->netfront, NULL, h->dir, argv, -1);
}

/* Shows the log of the frontend if it has something to say, else the
 * switch's. */
static void
blame(struct super *s, const struct lab_proc *first, const struct lab_proc *second)
{
    struct stat st;
    bool silent = stat(first->log, &st) || st.st_size == 0;

    snprintf(s->lab->why_log, sizeof s->lab->why_log, "%s", silent ? second->log : first->log);
}

/* A guest is there when its eth0 has carrier: the backend has connected. */
static int
await_guest(struct super *s, struct lab_guest *g)
{
    int64_t deadline = lab_now_ms() + GUEST_TIMEOUT_MS;
    int netns = lab_netns_open(&g->netns);
    struct nl_sock *watch = NULL;
    int watch_fd = -1;
    int error = 0;

    if (netns < 0 || !(watch = lab_link_watch(netns, &watch_fd))) {
        error = lab_fail(s->lab, errno, "cannot watch %s: %s", g->netns.name, strerror(errno));
    }
    while (!error && !lab_link_running(netns, LAB_GUEST_IF)) {
        error = super_wait(s, watch_fd, (int)(deadline - lab_now_ms()));
        lab_link_watch_drain(watch);
    }
    if (error == ETIMEDOUT) {
        error = lab_fail(s->lab, EPROTO, "%s: " LAB_GUEST_IF " got no carrier within %d s", g->name,
                         GUEST_TIMEOUT_MS / 1000);
        blame(s, &g->netfront, &s->lab->hosts[g->host].vswitchd);
    }
    lab_link_watch_close(watch);
    if (netns >= 0) {
        close(netns);
    }
    return error;
}

/* --- the whole ------------------------------------------------------------- */

int
lab_make_directories(struct super *s, const char *dir)
{
    static const char *const parts[] = {"", "xen", "run", "log", "db"};
    char path[LAB_PATH_MAX];

    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        lab_path(path, sizeof path, dir, parts[i]);
        if (mkdir(path, 0755) && errno != EEXIST) {
            return lab_fail(s->lab, errno, "cannot make %s: %s", path, strerror(errno));
        }
    }
    return 0;
}

/* A bridge in a namespace of its own, a cable from it to each host. */
static int
build_wire(struct super *s)
{
    struct lab *lab = s->lab;
    int error = lab_netns_make(lab, &lab->wire);
    int wire = -1, host;

    if (error) {
        return error;
    }
    wire = lab_netns_open(&lab->wire);
    error = wire < 0 ? errno : lab_link_bridge(wire, WIRE_BRIDGE);
    for (unsigned i = 0; !error && i < lab->config.n_hosts; i++) {
        const char *end = lab->hosts[i].name;
        host = lab_netns_open(&lab->hosts[i].netns);
        error = host < 0 ? errno : lab_link_cable(wire, end, host, LAB_WIRE_IF);
        if (!error) {
            error = lab_link_silence(wire, end);
        }
        if (!error) {
            error = lab_link_silence(host, LAB_WIRE_IF);
        }
        /* A veth would hand blank checksums and uncut segments to a switch
         * that takes them for what a wire carries. */
        if (!error && lab->config.n_stock) {
            error = lab_link_plain(host, LAB_WIRE_IF);
        }
        if (!error) {
            error = lab_link_enslave(wire, end, WIRE_BRIDGE);
        }
        if (host >= 0) {
            close(host);
        }
    }
    if (wire >= 0) {
        close(wire);
    }
    if (error) {
        return lab_fail(lab, error, "cannot build the wire between the hosts: %s", strerror(error));
    }
    super_tell(s, 'P', "wire: %u hosts joined by a VLAN trunk", lab->config.n_hosts);
    return 0;
}

static int
build_host(struct super *s, struct lab_host *h)
{
    int error = 0;

    if (!h->stock) {
        error = start_localxen(s, h);
    }
    if (!error && !h->stock) {
        super_tell(s, 'P', "%s: hypervisor stand-in (weft-localxen)", h->name);
    }
    if (!error) {
        error = lab_create_database(s, h->dir, "conf.db", "vswitch.ovsschema");
    }
    if (!error) {
        error = start_ovsdb(s, h);
    }
    if (!error) {
        error = configure_switch(s, h);
    }
    if (!error) {
        super_tell(s, 'P', "%s: switch database (ovsdb-server)", h->name);
        error = start_vswitchd(s, h);
    }
    return error;
}

static int
build_hosts(struct super *s)
{
    struct lab *lab = s->lab;
    int error = 0;

    for (unsigned i = 0; !error && i < lab->config.n_hosts; i++) {
        error = lab_make_directories(s, lab->hosts[i].dir);
        if (!error) {
            error = lab_netns_make(lab, &lab->hosts[i].netns);
        }
    }
    if (!error && lab->config.n_hosts > 1) {
        error = build_wire(s);
    }
    if (!error && lab->config.n_hosts > 1 && lab->n_cells) {
        error = lab_xapid_build_network(s);
    }
    if (!error && lab->config.pool) {
        error = lab_make_directories(s, lab->pool.dir);
    }
    if (!error && lab->config.pool) {
        error = lab_manage_build(s);
    }
    for (unsigned i = 0; !error && i < lab->config.n_hosts; i++) {
        error = build_host(s, &lab->hosts[i]);
    }
    for (unsigned i = 0; !error && i < lab->config.n_hosts; i++) {
        error = await_switch(s, &lab->hosts[i]);
        if (!error) {
            super_tell(s, 'P', "%s: switch (%s, bridge %s, datapath %s)", lab->hosts[i].name,
                       lab->hosts[i].vswitchd.name, LAB_BRIDGE,
                       lab->hosts[i].stock ? "netdev" : lab->config.datapath);
        }
    }
    return error;
}

int
lab_build(struct super *s)
{
    struct lab *lab = s->lab;
    int error = build_hosts(s);

    if (!error && lab->config.pool) {
        error = lab_pool_build(s);
    }
    for (unsigned i = 0; !error && i < lab->n_guests; i++) {
        error = lab_netns_make(lab, &lab->guests[i].netns);
        if (!error) {
            error = start_guest(s, &lab->guests[i]);
        }
    }
    for (unsigned i = 0; !error && i < lab->n_guests; i++) {
        const struct lab_guest *g = &lab->guests[i];
        error = await_guest(s, &lab->guests[i]);
        if (!error && lab->config.pool) {
            const struct lab_network *n = &lab_networks[g->network];
            super_tell(s, 'P', "%s: %s on %s (%s %u of %s) of %s", g->name, g->ip, n->name,
                       n->overlay ? "overlay" : "VLAN", n->id, n->tenant, lab->hosts[g->host].name);
        } else if (!error && g->vlan) {
            super_tell(s, 'P', "%s: %s on VLAN %u of %s", g->name, g->ip, g->vlan,
                       lab->hosts[g->host].name);
        } else if (!error) {
            super_tell(s, 'P', "%s: %s on %s", g->name, g->ip, lab->hosts[g->host].name);
        }
    }
    if (!error && lab->config.pool) {
        error = lab_pool_state(s);
    }
    if (!error && lab->n_cells) {
        error = lab_xapid_build(s);
    }
    return error;
}

/* A killed switch leaves its control socket behind, named after its pid. */
static void
remove_control_sockets(const struct lab_host *h)
{
    char path[LAB_PATH_MAX];
    struct dirent *entry;
    DIR *run;

    lab_path(path, sizeof path, h->dir, "run");
    run = opendir(path);
    while (run && (entry = readdir(run))) {
        size_t len = strlen(entry->d_name);
        if (!strncmp(entry->d_name, "ovs-vswitchd.", 13) && len > 17 &&
            !strcmp(entry->d_name + len - 4, ".ctl")) {
            unlinkat(dirfd(run), entry->d_name, 0);
        }
    }
    if (run) {
        closedir(run);
    }
}

static int
restart_host(struct super *s, struct lab_host *h)
{
    struct lab *lab = s->lab;
    unsigned index = (unsigned)(h - lab->hosts);
    int64_t now = lab_now_ms();

    for (unsigned i = 0; i < lab->n_procs; i++) {
        struct lab_proc *p = lab->procs[i];
        bool of_host =
            p == &h->vswitchd || (p->kind == LAB_NETFRONT && lab->guests[p->owner].host == index);
        if (of_host) {
            lab_proc_end(&p, 1, SIGKILL, 1000);
            p->restart_at_ms = now;
        }
    }
    lab_sweep_host(h);
    return start_localxen(s, h);
}

int
lab_build_restart(struct super *s, struct lab_proc *p)
{
    struct lab *lab = s->lab;

    switch (p->kind) {
    case LAB_LOCALXEN:
        return restart_host(s, &lab->hosts[p->owner]);
    case LAB_OVSDB:
        return start_ovsdb(s, &lab->hosts[p->owner]);
    case LAB_VSWITCHD:
        remove_control_sockets(&lab->hosts[p->owner]);
        return start_vswitchd(s, &lab->hosts[p->owner]);
    case LAB_POOLDB:
        return lab_pool_start_ovsdb(s);
    case LAB_CONTROLLERD:
        return lab_pool_start_controllerd(s);
    case LAB_FLOWD:
        return lab_pool_start_flowd(s);
    case LAB_XAPID:
        return lab_xapid_start(s, &lab->hosts[p->owner]);
    case LAB_NETFRONT:
        return start_guest(s, &lab->guests[p->owner]);
    case LAB_JOB:
        break;
    }
    return 0;
}
