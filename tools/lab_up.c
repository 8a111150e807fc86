/* "weft lab up" and "run": the starter's side of a lab's life. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli_cmd.h"
#include "cli_term.h"
#include "lab_build.h"
#include "lab_cmd.h"
#include "lab_netns.h"
#include "lab_proc.h"
#include "lab_super.h"
#include "lab_sweep.h"
#include "lab_tell.h"
#include "lab_view.h"

#define STOCK_VSWITCHD "/usr/lib/openvswitch-switch/ovs-vswitchd"

/* What the options of up and run say. */
struct up_options {
    struct lab_where where;
    const char *vlan, *datapath, *nic;
    unsigned hosts, guests, cells, maxsleep, queues, mtu;
    const char *pmd_mask, *stock_vswitchd;
    unsigned stock;
    bool no_spare, pool, static_grants, hash, multicast, force, no_color;
    bool once;
    unsigned seconds;
};

/* clang-format off */
#define UP_OPTIONS(o)                                                                              \
    {"hosts", CLI_UINT, &(o)->hosts, "N", "hosts (1)", 1, LAB_MAX_HOSTS},                          \
    {"guests", CLI_UINT, &(o)->guests, "N", "guests on each host (2)", 0, LAB_MAX_GUESTS},         \
    {"vlan", CLI_STRING, &(o)->vlan, "10,20", "VLANs, given to the guests of a host in turn; 0: none"}, \
    {"pool", CLI_FLAG, &(o)->pool, NULL, "a controller programs the hosts: 2 tenants, 4 networks"}, \
    {"cells", CLI_UINT, &(o)->cells, "N", "VMs on each host that can move, with --pool (0)", 0, LAB_MAX_CELLS}, \
    {"stock", CLI_UINT, &(o)->stock, "N", "the last N hosts run a stock ovs-vswitchd (0)", 0, LAB_MAX_HOSTS}, \
    {"stock-vswitchd", CLI_STRING, &(o)->stock_vswitchd, "FILE", "which one (/usr/lib/openvswitch-switch/ovs-vswitchd)"}, \
    {"datapath", CLI_STRING, &(o)->datapath, "TYPE", "datapath_type of the bridge (weft)"},      \
    {"no-spare", CLI_FLAG, &(o)->no_spare, NULL, "no second process that takes over from a killed switch"}, \
    {"nic", CLI_STRING, &(o)->nic, "veth|dpdk", "how a switch opens the wire between hosts (veth)"}, \
    {"queues", CLI_UINT, &(o)->queues, "N", "queues of each vif (as offered)", 1, 8},              \
    {"mtu", CLI_UINT, &(o)->mtu, "BYTES", "MTU of the guests (1500)", 68, 65000},                  \
    {"static-grants", CLI_FLAG, &(o)->static_grants, NULL, "guests ask for static grant mappings"}, \
    {"hash", CLI_FLAG, &(o)->hash, NULL, "guests choose queues by Toeplitz hash"},                 \
    {"multicast", CLI_FLAG, &(o)->multicast, NULL, "guests have multicast filtered for them"},     \
    {"pmd-cpu-mask", CLI_STRING, &(o)->pmd_mask, "HEX", "cores of polling threads (one each host)"}, \
    {"pmd-maxsleep", CLI_UINT, &(o)->maxsleep, "US", "longest sleep of an idle polling thread (500)", 0, 10000}, \
    {"force", CLI_FLAG, &(o)->force, NULL, "take a lab that is up down first"},                    \
    {"no-color", CLI_FLAG, &(o)->no_color, NULL, "no colors"},                                     \
    LAB_WHERE_OPTIONS(&(o)->where)
/* clang-format on */

/* --- options to configuration ---------------------------------------------- */

static int
parse_vlans(const char *text, struct lab_config *c, char *why, size_t size)
{
    while (text && *text) {
        char *end;
        unsigned long v = strtoul(text, &end, 10);
        if (end == text || (*end && *end != ',') || v > 4094 || *text < '0' || *text > '9') {
            snprintf(why, size, "--vlan takes VLANs from 0 to 4094 like 10,20, not \"%.40s\"",
                     text);
            return EINVAL;
        }
        if (c->n_vlans == LAB_MAX_VLANS) {
            snprintf(why, size, "--vlan takes at most %u VLANs", LAB_MAX_VLANS);
            return EINVAL;
        }
        c->vlans[c->n_vlans++] = (uint16_t)v;
        text = *end ? end + 1 : end;
    }
    return 0;
}

/* An absolute path, because the supervisor leaves the working directory. */
static bool
absolute(char *to, size_t size, const char *path)
{
    char *real = realpath(path, NULL);
    bool fits = real && (size_t)snprintf(to, size, "%s", real) < size;

    free(real);
    return fits;
}

/* The programs stand beside this one, the schema in share/ above them;
 * WEFT_BIN and WEFT_SHARE say otherwise. */
static int
find_programs(struct lab_config *c, char *why, size_t size)
{
    static const char *const shares[] = {"../share", "../../share"};
    const char *bin = getenv("WEFT_BIN"), *share = getenv("WEFT_SHARE");
    char path[LAB_PATH_MAX + 16];

    if (!absolute(c->bin, sizeof c->bin, bin ? bin : "/proc/self/exe")) {
        snprintf(why, size, "the programs' directory (WEFT_BIN) is not there or too long a path");
        return ENOENT;
    }
    if (!bin) {
        *strrchr(c->bin, '/') = '\0';
    }
    if (share) {
        if (!absolute(c->share, sizeof c->share, share)) {
            snprintf(why, size, "WEFT_SHARE names no directory: %.200s", share);
            return ENOENT;
        }
        return 0;
    }
    for (unsigned i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", c->bin, shares[i]);
        if (absolute(c->share, sizeof c->share, path)) {
            return 0;
        }
    }
    snprintf(c->share, sizeof c->share, "/usr/share/openvswitch");
    return 0;
}

static int
configure(const struct up_options *o, struct lab_config *c, char *why, size_t size)
{
    int error;

    memset(c, 0, sizeof *c);
    error = lab_where_resolve(&o->where, c, why, size);
    if (error) {
        return error;
    }
    if (o->nic && strcmp(o->nic, "veth") != 0 && strcmp(o->nic, "dpdk") != 0) {
        snprintf(why, size, "--nic takes veth or dpdk, not \"%.20s\"", o->nic);
        return EINVAL;
    }
    if (strlen(o->datapath) >= sizeof c->datapath) {
        snprintf(why, size, "--datapath takes a datapath type such as weft");
        return EINVAL;
    }
    if (o->pmd_mask && (strspn(o->pmd_mask, "0123456789abcdefABCDEFx") != strlen(o->pmd_mask) ||
                        strlen(o->pmd_mask) >= sizeof c->pmd_mask)) {
        snprintf(why, size, "--pmd-cpu-mask takes a hexadecimal mask of cores");
        return EINVAL;
    }
    if (o->pool && o->vlan) {
        snprintf(why, size, "--pool has networks of its own: leave --vlan out");
        return EINVAL;
    }
    if (o->stock > o->hosts) {
        snprintf(why, size, "--stock %u is more than --hosts %u", o->stock, o->hosts);
        return EINVAL;
    }
    if (o->stock && !absolute(c->stock_vswitchd, sizeof c->stock_vswitchd,
                              o->stock_vswitchd ? o->stock_vswitchd : STOCK_VSWITCHD)) {
        snprintf(why, size, "%s is not there: install openvswitch-switch, or --stock-vswitchd FILE",
                 o->stock_vswitchd ? o->stock_vswitchd : STOCK_VSWITCHD);
        return EINVAL;
    }
    if (o->cells && !o->pool) {
        snprintf(why, size, "--cells goes with --pool: weft-xapid keeps VMs in its database");
        return EINVAL;
    }
    if (o->cells && strlen(c->dir) > LAB_DIR_MAX - 8) {
        snprintf(why, size, "with --cells the path of --dir has at most %d characters",
                 LAB_DIR_MAX - 8);
        return EINVAL;
    }
    c->cells_per_host = o->cells;
    c->n_stock = o->stock;
    c->spare = !o->no_spare;
    c->pool = o->pool;
    c->n_hosts = o->hosts;
    c->guests_per_host = o->guests;
    c->nic = o->nic && !strcmp(o->nic, "dpdk") ? LAB_NIC_DPDK : LAB_NIC_VETH;
    c->pmd_maxsleep_us = o->maxsleep;
    c->queues = o->queues;
    c->guest_mtu = o->mtu;
    c->static_grants = o->static_grants;
    c->hash = o->hash;
    c->multicast = o->multicast;
    snprintf(c->datapath, sizeof c->datapath, "%s", o->datapath);
    snprintf(c->pmd_mask, sizeof c->pmd_mask, "%s", o->pmd_mask ? o->pmd_mask : "");
    error = find_programs(c, why, size);
    return error ? error : parse_vlans(o->vlan, c, why, size);
}

/* --- making a lab ------------------------------------------------------------ */

/* Everything that can be known before the first thing is made. */
static int
preflight(struct lab *lab)
{
    static const char *const programs[] = {"weft-localxen",    "weft-vswitchd", "weft-netfront",
                                           "ovsdb-server",     "ovsdb-tool",    "ovs-vsctl",
                                           "weft-controllerd", "weft-flowd",    "weft-xapid",
                                           "weft-migrate",     "weft-cell",     "ovsdb-client"};
    const struct lab_config *c = &lab->config;
    /* From the end: four are for cells, two for a pool. */
    unsigned n_programs = sizeof programs / sizeof programs[0] - (c->cells_per_host ? 0
                                                                  : c->pool         ? 4
                                                                                    : 6);
    char path[LAB_PATH_MAX * 2];

    for (unsigned i = 0; i < n_programs; i++) {
        if (!lab_program(c, programs[i], path, sizeof path)) {
            return lab_fail(lab, ENOENT, "%s is missing: build it with make", path);
        }
    }
    snprintf(path, sizeof path, "%s/vswitch.ovsschema", c->share);
    if (access(path, R_OK)) {
        return lab_fail(lab, ENOENT, "%s is missing: build it with make, or set WEFT_SHARE", path);
    }
    if (access("/dev/net/tun", R_OK | W_OK)) {
        return lab_fail(lab, errno, "/dev/net/tun cannot be used (%s): is the tun module loaded?",
                        strerror(errno));
    }
    for (unsigned i = 0; i < lab->n_netns; i++) {
        if (lab_netns_name_taken(lab->netns[i])) {
            return lab_fail(lab, EEXIST,
                            "a namespace %s exists and is not this lab's: take another --name, or "
                            "remove it with ip netns del",
                            lab->netns[i]->name);
        }
    }
    return 0;
}

/* A directory of somebody else's is not for us to fill. */
static int
check_directory(const char *dir, char *why, size_t size)
{
    struct dirent *entry;
    int error = 0;
    DIR *d = opendir(dir);

    while (d && (entry = readdir(d))) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strcmp(name, "lock") != 0) {
            snprintf(why, size, "%s is not empty and holds no lab: it has \"%.80s\"", dir, name);
            error = ENOTEMPTY;
        }
    }
    if (d) {
        closedir(d);
    }
    return error;
}

static int
refuse(const char *dir, char *why, size_t size)
{
    struct lab *lab;
    char since[16] = "?";
    struct tm tm;

    if (lab_load(dir, &lab, why, size)) {
        snprintf(why, size, "a lab is starting in %s", dir);
        return EBUSY;
    }
    if (localtime_r(&lab->since, &tm)) {
        strftime(since, sizeof since, "%H:%M:%S", &tm);
    }
    snprintf(why, size, "a lab is up since %s (%u hosts, %u guests): weft lab down%s%s", since,
             lab->config.n_hosts, lab->n_guests, strcmp(lab->config.name, "weft") ? " --name " : "",
             strcmp(lab->config.name, "weft") ? lab->config.name : "");
    lab_free(lab);
    return EBUSY;
}

/* Takes the lab's directory for ourselves, clearing what a dead lab left. */
static int
take_directory(const char *dir, bool force, int *lock_fd, char *why, size_t size)
{
    struct lab_swept swept;
    int error = lab_lock(dir, 0, lock_fd, why, size);

    if (error == EWOULDBLOCK && force) {
        error = lab_end(dir, why, size);
        if (!error || error == ENOENT) {
            printf("the lab that was up is down\n");
            error = lab_lock(dir, 0, lock_fd, why, size);
        }
    }
    if (error) {
        return error == EWOULDBLOCK ? refuse(dir, why, size) : error;
    }
    error = lab_sweep_leftover(dir, &swept, why, size);
    if (!error) {
        printf("cleaned up what a dead lab left: %u processes, %u namespaces\n", swept.processes,
               swept.namespaces);
    }
    if (error == ENOENT) {
        error = check_directory(dir, why, size);
    }
    if (error) {
        lab_sweep_lock(dir);
        close(*lock_fd);
    }
    return error;
}

/* Follows a lab's building. */
struct progress {
    struct term *term;
    int64_t started_ms;
    bool up, failed;
};

static void
on_progress(void *p_, char kind, const char *text)
{
    struct progress *p = p_;
    const struct term *t = p->term;
    double s = (double)(lab_now_ms() - p->started_ms) / 1000.0;

    switch (kind) {
    case 'P':
        printf("%s%5.1f s%s  %s\n", term_dim(t), s, term_off(t), text);
        break;
    case 'R':
        p->up = true;
        break;
    case 'E':
        p->failed = true;
        fflush(stdout);
        fprintf(stderr, "%sweft lab: %s%s\n", term_red(t), text, term_off(t));
        return;
    case 'T':
        fprintf(stderr, "    %s\n", text);
        return;
    default:
        printf("%s\n", text);
        break;
    }
    fflush(stdout);
}

/* Relays until the lab is up or gone.  A signal sends the supervisor home. */
static void
follow(struct progress *p, struct lab_tell *tell, struct lab_proc *supervisor, int signal_fd,
       bool until_up)
{
    struct signalfd_siginfo info;

    while (tell->fd >= 0 && !(until_up && p->up)) {
        struct pollfd fds[] = {{.fd = signal_fd, .events = POLLIN},
                               {.fd = tell->fd, .events = POLLIN}};
        if (poll(fds, 2, -1) < 0) {
            continue;
        }
        if (fds[0].revents && read(signal_fd, &info, sizeof info) == sizeof info &&
            info.ssi_signo != SIGWINCH && until_up) {
            printf("stopping ...\n");
            fflush(stdout);
            lab_proc_signal(supervisor, SIGTERM);
            until_up = false;
        }
        if (fds[1].revents) {
            lab_tell_read(tell, on_progress, p);
        }
    }
}

static int
catch_signals(void)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static void
print_summary(const struct lab *lab, double seconds, bool hints)
{
    char where[40] = "";

    if (strcmp(lab->config.name, "weft") != 0) {
        snprintf(where, sizeof where, " --name %s", lab->config.name);
    }
    printf("the lab is up: %u host%s, %u guests, %.1f s\n", lab->config.n_hosts,
           lab->config.n_hosts == 1 ? "" : "s", lab->n_guests, seconds);
    if (!hints) {
        return;
    }
    for (unsigned i = 1; i < lab->n_guests; i++) {
        if (lab_same_network(&lab->guests[0], &lab->guests[i])) {
            printf("  weft lab exec%s g1 -- ping %s\n", where, lab->guests[i].ip);
            break;
        }
    }
    printf("  weft lab exec%s h1 -- ovs-vsctl show\n  weft lab down%s\n", where, where);
}

/* One who starts a lab and follows what becomes of it. */
struct starter {
    const char *command; /* "up" or "run" */
    bool tied;           /* the lab ends with us */
    struct term term;
    struct lab_config config;
    struct lab_tell tell;
    struct lab_proc supervisor;
    int signal_fd;
    struct lab *lab; /* once it is up */
};

/* The directory is ours: starts a supervisor in it.  0 or a positive errno. */
static int
launch(struct starter *s, struct lab *lab)
{
    int tell_fd;
    int error = preflight(lab);

    if (!error) {
        error = lab_super_launch(lab, s->tied, &s->supervisor, &tell_fd);
    }
    if (error) {
        lab_cmd_failed(s->command, lab->why);
        lab_sweep_lock(s->config.dir);
    } else {
        lab_tell_open(&s->tell, tell_fd);
    }
    close(lab->lock_fd);
    return error;
}

/* Starts a lab and follows it until it is up.  On failure nothing is left. */
static int
bring_up(struct starter *s, bool force)
{
    struct progress progress = {.term = &s->term, .started_ms = lab_now_ms()};
    struct lab_proc *supervisor = &s->supervisor;
    struct lab *lab = lab_new(&s->config);
    char why[400];
    int error;

    if (!lab) {
        return lab_cmd_failed(s->command, "no memory");
    }
    error = take_directory(s->config.dir, force, &lab->lock_fd, why, sizeof why);
    if (error) {
        lab_cmd_failed(s->command, why);
    } else {
        s->signal_fd = catch_signals();
        error = launch(s, lab);
    }
    lab_free(lab);
    if (error) {
        return CLI_FAILED;
    }
    follow(&progress, &s->tell, supervisor, s->signal_fd, true);
    if (!progress.up) {
        lab_proc_end(&supervisor, 1, 0, LAB_DOWN_TIMEOUT_MS);
        return lab_cmd_failed(s->command, "the lab is not up; nothing of it remains");
    }
    if (lab_load(s->config.dir, &s->lab, why, sizeof why)) {
        return lab_cmd_failed(s->command, why);
    }
    print_summary(s->lab, (double)(lab_now_ms() - progress.started_ms) / 1000.0, !s->tied);
    return CLI_OK;
}

/* Options of up and run to a starter: true to go on, else '*code' is set. */
static bool
prepare(struct starter *s, const struct up_options *o, int argc, int *code)
{
    char prefix[24], why[400] = "takes options only";

    if (argc > 0 || configure(o, &s->config, why, sizeof why)) {
        snprintf(prefix, sizeof prefix, "weft lab %s", s->command);
        *code = cli_usage_error(prefix, why);
        return false;
    }
    *code = lab_cmd_root(s->command);
    term_open(&s->term, o->no_color);
    return *code == 0;
}

int
lab_up_main(int argc, char **argv)
{
    struct up_options o = {.hosts = 1, .guests = 2, .maxsleep = 500, .datapath = "weft"};
    const struct cli_opt opts[] = {UP_OPTIONS(&o)};
    struct starter s = {.command = "up", .tell.fd = -1};
    int code;

    if (!lab_cmd_options("up", "[OPTION...]",
                         "  weft lab up --guests 4 --vlan 10,20\n"
                         "  weft lab up --hosts 2 --guests 2 --nic dpdk\n",
                         opts, sizeof opts / sizeof opts[0], &argc, &argv, &code) ||
        !prepare(&s, &o, argc, &code)) {
        return code;
    }
    code = bring_up(&s, o.force);
    lab_tell_close(&s.tell);
    lab_free(s.lab);
    return code;
}

/* Ends the lab that is ours; the supervisor does the work. */
static int
bring_down(struct starter *s)
{
    struct progress progress = {.term = &s->term, .started_ms = lab_now_ms()};
    struct lab_proc *supervisor = &s->supervisor;
    char why[400];

    printf("taking the lab down ...\n");
    fflush(stdout);
    lab_proc_signal(supervisor, SIGTERM);
    follow(&progress, &s->tell, supervisor, s->signal_fd, false);
    lab_proc_end(&supervisor, 1, SIGTERM, LAB_DOWN_TIMEOUT_MS);
    if (lab_end(s->config.dir, why, sizeof why) != ENOENT) {
        return lab_cmd_failed("run", "the supervisor did not end its lab by itself");
    }
    printf("the lab is down\n");
    return CLI_OK;
}

int
lab_run_main(int argc, char **argv)
{
    struct up_options o = {.hosts = 1, .guests = 4, .maxsleep = 500, .datapath = "weft"};
    const struct cli_opt opts[] = {
        {"seconds", CLI_UINT, &o.seconds, "N", "end after N seconds", 1, 1000000},
        {"once", CLI_FLAG, &o.once, NULL, "check it once and end: exit code 0 if all is well"},
        UP_OPTIONS(&o)};
    struct starter s = {.command = "run", .tied = true, .tell.fd = -1};
    struct lab_view_options view = {0};
    bool good;
    int code;

    if (!lab_cmd_options("run", "[OPTION...]",
                         "  weft lab run                   four guests on two VLANs, until Ctrl-C\n"
                         "  weft lab run --pool --hosts 3  12 guests of two tenants, a controller\n"
                         "  weft lab run --once            a check, for scripts\n",
                         opts, sizeof opts / sizeof opts[0], &argc, &argv, &code)) {
        return code;
    }
    if (!o.vlan && !o.pool) {
        o.vlan = "10,20";
    }
    if (!prepare(&s, &o, argc, &code)) {
        return code;
    }
    code = bring_up(&s, o.force);
    if (code) {
        return code;
    }
    view.once = o.once;
    view.seconds = o.seconds;
    view.signal_fd = s.signal_fd;
    good = lab_view(s.lab, &s.term, &s.tell, &view);
    lab_free(s.lab);
    code = bring_down(&s);
    return good ? code : CLI_FAILED;
}
