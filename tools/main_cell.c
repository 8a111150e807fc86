/* weft-cell: a guest that is a process; see cell_host.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <xenstore.h>

#include "cell_host.h"
#include "cli_opt.h"
#include "hex.h"

#define DEFAULT_MEMORY "128M"
/* The queue's pages, and some to spare. */
#define GRANTS 1024u

void
cell_log(const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "weft-cell: %s\n", text);
}

/* --- options ----------------------------------------------------------------------- */

struct raw {
    const char *memory, *vif, *dirty_log;
    unsigned domid, epoch;
    unsigned ready;
};

static bool
parse_size(const char *text, uint64_t *bytes)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    unsigned shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;

    if (end == text || end[shift ? 1 : 0] || n > (UINT64_MAX >> 1) >> shift) {
        return false;
    }
    *bytes = (uint64_t)n << shift;
    return *bytes >= (32u << 20) && *bytes / CELL_PAGE_BYTES <= CELL_PAGES_MAX &&
           *bytes % CELL_PAGE_BYTES == 0;
}

static bool
parse_cidr(struct cell_config *cfg, const char *text)
{
    char ip[INET_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    char *end;

    if (!slash || (size_t)(slash - text) >= sizeof ip) {
        return false;
    }
    snprintf(ip, sizeof ip, "%.*s", (int)(slash - text), text);
    unsigned long len = strtoul(slash + 1, &end, 10);
    if (end == slash + 1 || *end || len > 32 || inet_pton(AF_INET, ip, &cfg->ip) != 1) {
        return false;
    }
    cfg->netmask = htonl(len ? UINT32_MAX << (32 - len) : 0);
    return true;
}

/* One "key=value" of --vif. */
static bool
parse_vif_key(struct cell_config *cfg, const char *key, const char *value)
{
    struct toolstack_vif *v = &cfg->vif;
    const struct {
        const char *key;
        const char **to;
    } texts[] = {
        {"bridge", &v->bridge},
        {"rate", &v->rate},
        {"vif-uuid", &v->vif_uuid},
        {"vm-uuid", &v->vm_uuid},
        {"network-uuid", &v->network_uuid},
        {"vlan", &v->vlan},
    };
    char end;

    for (unsigned i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (!strcmp(key, texts[i].key)) {
            *texts[i].to = value;
            return true;
        }
    }
    if (!strcmp(key, "mac")) {
        v->mac = value;
        return hex_mac(value, cfg->mac);
    }
    if (!strcmp(key, "ip")) {
        return parse_cidr(cfg, value);
    }
    if (!strcmp(key, "gw")) {
        return inet_pton(AF_INET, value, &cfg->gateway) == 1;
    }
    if (!strcmp(key, "handle")) {
        return sscanf(value, "%u%c", &v->handle, &end) == 1;
    }
    return !strcmp(key, "mtu") && sscanf(value, "%u%c", &v->mtu, &end) == 1 && v->mtu >= 68 &&
           v->mtu <= 1500;
}

static int
parse_vif(struct cell_config *cfg, const char *spec, char *why, size_t why_size)
{
    /* Kept for as long as the process lives: the config points into it. */
    char *text = strdup(spec), *save;

    for (char *part = text ? strtok_r(text, ",", &save) : NULL; part;
         part = strtok_r(NULL, ",", &save)) {
        char *value = strchr(part, '=');
        if (value) {
            *value++ = '\0';
        }
        if (!value || !parse_vif_key(cfg, part, value)) {
            snprintf(why, why_size, "--vif: %s is not known or has no such value", part);
            return EINVAL;
        }
    }
    if (!text || !cfg->vif.mac) {
        snprintf(why, why_size, "--vif needs mac=");
        return EINVAL;
    }
    cfg->has_vif = true;
    cfg->vif.domid = cfg->domid;
    cfg->vif.hotplug_connected = true;
    return 0;
}

static int
check(struct cell_config *cfg, const struct raw *raw, char *why, size_t why_size)
{
    if (!cfg->image || !cfg->dir || !cfg->control || !raw->domid) {
        snprintf(why, why_size, "--image, --dir, --domid and --control are needed");
        return EINVAL;
    }
    if (!parse_size(raw->memory, &cfg->memory_bytes)) {
        snprintf(why, why_size, "--memory: at least 32M, at most 64G, in whole pages");
        return EINVAL;
    }
    if (cfg->cmdline && strlen(cfg->cmdline) >= CELL_CMDLINE_MAX) {
        snprintf(why, why_size, "--cmdline is too long");
        return EINVAL;
    }
    if (!strcmp(raw->dirty_log, "async") || !strcmp(raw->dirty_log, "sync")) {
        cfg->dirty_log = raw->dirty_log[0] == 'a' ? CELL_DIRTY_ASYNC : CELL_DIRTY_SYNC;
    } else if (strcmp(raw->dirty_log, "auto")) {
        snprintf(why, why_size, "--dirty-log is auto, async or sync");
        return EINVAL;
    }
    cfg->domid = (uint16_t)raw->domid;
    cfg->epoch = raw->epoch;
    cfg->ready_fd = raw->ready ? (int)raw->ready : -1;
    return raw->vif ? parse_vif(cfg, raw->vif, why, why_size) : 0;
}

/* -1: go on; else the exit code. */
static int
parse(struct cell_config *cfg, int argc, char **argv)
{
    struct raw raw = {.memory = DEFAULT_MEMORY, .dirty_log = "auto", .epoch = 1};
    const struct cli_opt options[] = {
        {"image", CLI_STRING, &cfg->image, "FILE", "the guest (share/cell.img)", 0, 0},
        {"memory", CLI_STRING, &raw.memory, "SIZE", "of the guest (" DEFAULT_MEMORY ")", 0, 0},
        {"dir", CLI_STRING, &cfg->dir, "DIR", "of weft-localxen", 0, 0},
        {"domid", CLI_UINT, &raw.domid, "N", "the domain to be", 1, 0x7fef},
        {"control", CLI_STRING, &cfg->control, "SOCK", "the control socket to make", 0, 0},
        {"vif", CLI_STRING, &raw.vif, "KEYS",
         "mac=..,ip=A.B.C.D/LEN[,gw=..][,handle=N][,mtu=N][,bridge=..][,vlan=..][,rate=..]"
         "[,vif-uuid=..][,vm-uuid=..][,network-uuid=..]",
         0, 0},
        {"cmdline", CLI_STRING, &cfg->cmdline, "WORDS", "to the guest: rate=MB/s set=MB fill=MB", 0,
         0},
        {"incoming", CLI_FLAG, &cfg->incoming, NULL, "wait for memory and state, then run", 0, 0},
        {"epoch", CLI_UINT, &raw.epoch, "N", "under which it runs first (1)", 0, UINT32_MAX},
        {"run-log", CLI_STRING, &cfg->run_log, "FILE", "append when it runs and stops", 0, 0},
        {"dirty-log", CLI_STRING, &raw.dirty_log, "HOW", "auto, async or sync", 0, 0},
        {"ready-fd", CLI_UINT, &raw.ready, "N", "write \"ready\" there when it is", 3, 1023},
    };
    const size_t n = sizeof options / sizeof options[0];
    char why[256];

    argc--, argv++;
    int error = cli_parse(options, n, &argc, &argv, why, sizeof why);
    if (error == ECANCELED) {
        puts("weft-cell: a guest that is a process: one memory region, one network interface\n\n"
             "usage: weft-cell --image FILE --dir DIR --domid N --control SOCK [OPTIONS]\n");
        cli_print_options(options, n);
        return 0;
    }
    if (!error && argc) {
        snprintf(why, sizeof why, "%s is not an option", argv[0]);
        error = EINVAL;
    }
    error = error ? error : check(cfg, &raw, why, sizeof why);
    if (error) {
        cell_log("%s", why);
        return 2;
    }
    return -1;
}

/* --- start --------------------------------------------------------------------------- */

static int
make_memory(struct cell *c)
{
    uint64_t bytes = c->cfg.memory_bytes;

    c->n_pages = bytes / CELL_PAGE_BYTES;
    int error =
        local_domain_create(c->cfg.dir, c->cfg.domid, (uint32_t)c->n_pages, GRANTS, &c->dom);
    if (error) {
        cell_log("cannot create domain %u in %s: %s", c->cfg.domid, c->cfg.dir, strerror(error));
        return error;
    }
    c->memory_fd = local_domain_memory_fd(c->dom, &c->memory_offset);
    void *p = mmap((void *)(uintptr_t)CELL_BASE, bytes, PROT_READ | PROT_WRITE | PROT_EXEC,
                   MAP_SHARED | MAP_FIXED_NOREPLACE, c->memory_fd, (off_t)c->memory_offset);
    if (p == MAP_FAILED) {
        error = errno;
        cell_log("cannot map the guest at 0x%llx: %s", (unsigned long long)CELL_BASE,
                 strerror(error));
        return error;
    }
    if ((uintptr_t)p != CELL_BASE) {
        munmap(p, bytes); /* a kernel that takes the flag for a hint */
        return EEXIST;
    }
    c->ram = p;
    return 0;
}

static void
fill_info(struct cell *c)
{
    struct cell_info *info = cell_info(c);

    info->ip = c->cfg.ip;
    info->netmask = c->cfg.netmask;
    info->gateway = c->cfg.gateway;
    info->memory_bytes = c->cfg.memory_bytes;
    info->mtu = (uint16_t)(c->cfg.vif.mtu ? c->cfg.vif.mtu : 1500);
    memcpy(info->mac, c->cfg.mac, sizeof info->mac);
    snprintf(info->cmdline, sizeof info->cmdline, "%s", c->cfg.cmdline ? c->cfg.cmdline : "");
}

static int
load_guest(struct cell *c)
{
    uint64_t entry;
    uint64_t bytes = c->cfg.memory_bytes;

    int error =
        cell_image_load(c->cfg.image, c->cfg.incoming ? NULL : c->ram, bytes, c->build_id, &entry);
    if (error) {
        cell_log("%s: %s", c->cfg.image, error == EINVAL ? "not a cell's image" : strerror(error));
        return error;
    }
    c->state = c->cfg.incoming ? CELL_MADE : CELL_LOADED;
    if (!c->cfg.incoming) {
        fill_info(c);
        c->sw.guest_sp = cell_switch_start(cell_info(c)->stack_top, entry);
    }
    return 0;
}

static int
make_vif(struct cell *c)
{
    if (!c->cfg.has_vif) {
        return 0;
    }
    int error = toolstack_open(c->cfg.dir, &c->toolstack);
    error = error ? error : toolstack_vif_create(c->toolstack, &c->cfg.vif);
    if (error == EEXIST) {
        /* Our domain is new, so this is what a cell left that was killed. */
        toolstack_vif_unplug(c->toolstack, c->cfg.domid, c->cfg.vif.handle, 5000);
        error = toolstack_vif_create(c->toolstack, &c->cfg.vif);
    }
    if (error) {
        cell_log("cannot create vif %u/%u: %s", c->cfg.domid, c->cfg.vif.handle, strerror(error));
    }
    return error;
}

static int
open_log(struct cell *c)
{
    if (!c->cfg.run_log) {
        return 0;
    }
    c->run_log_fd = open(c->cfg.run_log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (c->run_log_fd < 0) {
        cell_log("%s: %s", c->cfg.run_log, strerror(errno));
        return errno;
    }
    return 0;
}

static int
init(struct cell *c)
{
    pthread_condattr_t attr;

    c->run_log_fd = c->postcopy_fd = -1;
    c->dirty = (struct cell_dirty){.map_fd = -1, .uffd = -1, .pagemap_fd = -1, .stop_fd = -1};
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &attr);
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return c->wake_fd < 0 || c->event_fd < 0 ? errno : 0;
}

static int
open_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    /* Before any thread exists, so that all of them block these. */
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int
open_cell(struct cell *c)
{
    int error = init(c);

    error = error ? error : open_log(c);
    error = error ? error : make_memory(c);
    error = error ? error : load_guest(c);
    if (!error) {
        error = cell_control_open(c);
        if (error) {
            cell_log("%s: %s", c->cfg.control, strerror(error));
        }
    }
    error = error ? error : make_vif(c);
    return error ? error : cell_net_init(c);
}

int
main(int argc, char **argv)
{
    static struct cell cell;
    struct cell *c = &cell;

    int status = parse(&c->cfg, argc, argv);
    if (status >= 0) {
        return status;
    }
    int signal_fd = open_signals();
    if (signal_fd < 0 || open_cell(c) || cell_vcpu_start(c)) {
        return 1;
    }
    if (!c->cfg.incoming && cell_vcpu_run(c, c->cfg.epoch)) {
        return 1;
    }
    if (c->cfg.ready_fd >= 0) {
        dprintf(c->cfg.ready_fd, "ready\n");
        close(c->cfg.ready_fd);
    }
    status = cell_control_run(c, signal_fd);
    if (c->store) {
        xs_close(c->store);
    }
    if (c->toolstack) {
        xs_close(c->toolstack);
    }
    local_domain_destroy(c->dom);
    return status;
}
