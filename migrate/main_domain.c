/* weft-domain: watches over one Xen domain, a PV or PVH one, from its start, or from
 * when it came here, to its end; a process per domain, as a cell is one.
 *
 * A domain that ended stays until somebody destroys it, one that wants to reboot
 * until it is made anew: that is done here.  The domain does not need the process:
 * killed, it is followed by another that watches.  What tells a domain that was made
 * from one whose making was cut off is the key weft/epoch (driver_xen_priv.h),
 * written before it runs.
 *
 * Threads: one, and libxl's own. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "driver_xen_priv.h"
#include "hex.h"
#include "ovs/jansson_ns.h"

enum {
    LINE_BYTES = 1 << 16,
    LOOK_MS = 1000,
    VIFS_MAX = 7,
    ORDER_BYTES = 256,
    MEMORY_WAIT_S = 5,
    VCPUS_MAX = 512
};

struct job {
    json_t *root; /* has the strings */
    const char *uuid, *name, *type, *kernel, *ramdisk, *cmdline, *tsc_mode;
    json_int_t epoch, memory_kb, vcpus;
    json_t *vifs;
    int start, watch;
};

struct watched {
    struct job job;
    struct xen_guest *g;
    char why[MIG_WHY];
    char input[ORDER_BYTES];
    size_t n_input;
    bool no_more; /* orders */
};

static int orders = STDIN_FILENO, events = STDOUT_FILENO;

static void
usage(FILE *f)
{
    fputs(
        "weft-domain: starts a Xen domain, or watches one, until it ends\n"
        "\n"
        "usage: weft-domain        the job, one line of JSON, comes on stdin\n"
        "\n"
        "  {\"start\": true,        makes it; else it is there, or came here\n"
        "   \"uuid\", \"epoch\": N,   the VM's, in the pool\n"
        "   \"name\", \"type\": \"pvh\"|\"pv\", \"kernel\", \"ramdisk\", \"cmdline\",\n"
        "   \"memory_kb\": N, \"vcpus\": N, \"tsc_mode\",\n"
        "   \"vifs\": [{\"device\": N, \"mac\", \"bridge\", \"script\", \"mtu\": N}]}\n"
        "\n"
        "Orders on stdin, one JSON object a line: {\"cmd\":\"shutdown\"}, {\"cmd\":\"destroy\"}.\n"
        "Events on stdout, one JSON object a line: running, ended (with \"why\").  Exit status:\n"
        "0 once it has ended, 1 if nobody knows, 2 if the job is wrong.\n",
        f);
}

/* --- the job ---------------------------------------------------------------------------- */

static int
refuse(char why[MIG_WHY], const char *what)
{
    snprintf(why, MIG_WHY, "%s", what);
    return EINVAL;
}

/* What is needed to make the domain; one that is there is watched without it. */
static int
check_job(const struct job *j, char why[MIG_WHY])
{
    if (!j->name) {
        return refuse(why, "a domain without a name");
    }
    if (strcmp(j->type, "pv") && strcmp(j->type, "pvh")) {
        return refuse(why, "type is pv or pvh");
    }
    if (!j->kernel || access(j->kernel, R_OK)) {
        return refuse(why, "there is no such kernel");
    }
    if (j->ramdisk && access(j->ramdisk, R_OK)) {
        return refuse(why, "there is no such ramdisk");
    }
    if (j->memory_kb < 4096 || j->memory_kb > (json_int_t)1 << 34 || j->vcpus < 1 ||
        j->vcpus > VCPUS_MAX) {
        return refuse(why, "a domain of an impossible size");
    }
    return json_array_size(j->vifs) > VIFS_MAX ? refuse(why, "too many vifs") : 0;
}

static int
parse_job(struct job *j, const char *line, char why[MIG_WHY])
{
    json_error_t e;

    *j = (struct job){.type = "pvh", .tsc_mode = "default", .vcpus = 1};
    j->root = json_loads(line, JSON_REJECT_DUPLICATES, &e);
    if (!j->root ||
        json_unpack_ex(
            j->root, &e, JSON_STRICT, "{s?b,s:s,s?I,s?s,s?s,s?s,s?s,s?s,s?s,s?I,s?I,s?o}", "start",
            &j->start, "uuid", &j->uuid, "epoch", &j->epoch, "name", &j->name, "type", &j->type,
            "kernel", &j->kernel, "ramdisk", &j->ramdisk, "cmdline", &j->cmdline, "tsc_mode",
            &j->tsc_mode, "memory_kb", &j->memory_kb, "vcpus", &j->vcpus, "vifs", &j->vifs)) {
        snprintf(why, MIG_WHY, "the job: %.200s", e.text);
        return EINVAL;
    }
    return 0;
}

/* The first line, NULL if there is none. */
static char *
read_line(void)
{
    char *line = malloc(LINE_BYTES);
    size_t n = 0;

    while (line && n < LINE_BYTES - 1) {
        ssize_t got = read(orders, line + n, 1);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0 || line[n] == '\n') {
            break;
        }
        n++;
    }
    if (line) {
        line[n] = '\0';
    }
    return line;
}

/* --- what libxl is told ------------------------------------------------------------------- */

static char *
copy(const char *text)
{
    return text ? strdup(text) : NULL;
}

static int
add_vif(libxl_domain_config *c, json_t *vif, char why[MIG_WHY])
{
    libxl_device_nic *nic = &c->nics[c->num_nics];
    const char *mac, *bridge, *script;
    int device, mtu = 0;
    json_error_t e;

    if (json_unpack_ex(vif, &e, JSON_STRICT, "{s:i,s:s,s:s,s:s,s?i}", "device", &device, "mac",
                       &mac, "bridge", &bridge, "script", &script, "mtu", &mtu)) {
        snprintf(why, MIG_WHY, "a vif: %.200s", e.text);
        return EINVAL;
    }
    libxl_device_nic_init(nic);
    c->num_nics++;
    nic->devid = device;
    nic->mtu = mtu;
    nic->nictype = LIBXL_NIC_TYPE_VIF;
    nic->bridge = strdup(bridge);
    nic->script = strdup(script);
    return hex_mac(mac, nic->mac) ? 0 : refuse(why, "a vif: that is no MAC address");
}

/* Its name, or if another domain here is called so the VM's uuid, as where it comes by a
 * migration: the guest runs, whatever it is called. */
static const char *
free_name(const struct watched *w)
{
    uint32_t other;

    return libxl_name_to_domid(w->g->ctx, w->job.name, &other) ? w->job.name : w->job.uuid;
}

static int
fill_config(struct watched *w, libxl_domain_config *c)
{
    const struct job *j = &w->job;
    libxl_domain_build_info *b = &c->b_info;
    json_t *vif;
    size_t i;
    int error = check_job(j, w->why);

    if (error) {
        return error;
    }
    c->c_info.type = strcmp(j->type, "pv") ? LIBXL_DOMAIN_TYPE_PVH : LIBXL_DOMAIN_TYPE_PV;
    c->c_info.name = strdup(free_name(w));
    c->c_info.uuid = w->g->uuid;
    libxl_domain_build_info_init_type(b, c->c_info.type);
    b->max_vcpus = (int)j->vcpus;
    if (libxl_cpu_bitmap_alloc(w->g->ctx, &b->avail_vcpus, b->max_vcpus)) {
        return ENOMEM;
    }
    libxl_bitmap_set_any(&b->avail_vcpus);
    b->max_memkb = b->target_memkb = (uint64_t)j->memory_kb;
    b->kernel = strdup(j->kernel);
    b->ramdisk = copy(j->ramdisk);
    b->cmdline = copy(j->cmdline);
    if (libxl_tsc_mode_from_string(j->tsc_mode, &b->tsc_mode)) {
        return refuse(w->why, "there is no such tsc_mode");
    }
    c->on_poweroff = c->on_crash = c->on_watchdog = LIBXL_ACTION_ON_SHUTDOWN_DESTROY;
    c->on_reboot = LIBXL_ACTION_ON_SHUTDOWN_RESTART;
    c->nics = calloc(VIFS_MAX, sizeof *c->nics);
    json_array_foreach(j->vifs, i, vif)
    {
        error = error ? error : add_vif(c, vif, w->why);
    }
    return error;
}

/* --- what is said ---------------------------------------------------------------------------- */

static void
say(json_t *o)
{
    char line[1024];
    size_t n = json_dumpb(o, line, sizeof line - 1, JSON_COMPACT | JSON_ENSURE_ASCII);

    if (n < sizeof line) {
        line[n++] = '\n';
        if (write(events, line, n) < 0) {
            perror("weft-domain: write");
        }
    }
    json_decref(o);
}

static void
say_running(const struct watched *w)
{
    say(json_pack("{s:s,s:I}", "event", "running", "domid", (json_int_t)w->g->domid));
}

static int
say_ended(const struct watched *w, const char *why)
{
    char text[161];

    snprintf(text, sizeof text, "%.160s", why);
    for (char *c = text; *c; c++) { /* whatever it is, the line stays short */
        *c = *c < ' ' || *c > '~' ? '?' : *c;
    }
    say(json_pack("{s:s,s:I,s:s}", "event", "ended", "domid",
                  (json_int_t)(w->g && w->g->domid != (uint32_t)INVALID_DOMID ? w->g->domid : 0),
                  "why", text));
    return 0;
}

/* --- orders ----------------------------------------------------------------------------------- */

/* False: no whole line has come. */
static bool
next_order(struct watched *w, char order[ORDER_BYTES])
{
    char *end = memchr(w->input, '\n', w->n_input);

    if (!end && w->n_input == sizeof w->input) {
        w->n_input = 0; /* no order of ours is that long */
    }
    if (!end) {
        return false;
    }
    *end = '\0';
    snprintf(order, ORDER_BYTES, "%s", w->input);
    w->n_input -= (size_t)(end + 1 - w->input);
    memmove(w->input, end + 1, w->n_input);
    return true;
}

static void
obey(struct watched *w, const char *order)
{
    json_t *o = json_loads(order, JSON_REJECT_DUPLICATES, NULL);
    const char *cmd = json_string_value(json_object_get(o, "cmd"));

    if (cmd && !strcmp(cmd, "destroy")) {
        libxl_domain_destroy(w->g->ctx, w->g->domid, NULL);
    } else if (!cmd || strcmp(cmd, "shutdown") != 0) {
        fprintf(stderr, "weft-domain: an order is {\"cmd\": \"shutdown\"|\"destroy\"}\n");
    } else if (libxl_domain_shutdown(w->g->ctx, w->g->domid, NULL)) {
        fprintf(stderr, "weft-domain: the guest cannot be asked to shut down\n");
    }
    json_decref(o);
}

static void
take_orders(struct watched *w)
{
    char order[ORDER_BYTES];
    ssize_t n = read(orders, w->input + w->n_input, sizeof w->input - w->n_input);

    w->no_more = !n || (n < 0 && errno != EINTR && errno != EAGAIN);
    w->n_input += n > 0 ? (size_t)n : 0;
    while (next_order(w, order)) {
        obey(w, order);
    }
}

/* --- a reboot ----------------------------------------------------------------------------------
 *
 * Between the domain that ended and the new one there is none, and nothing would tell
 * whoever follows one of us that was killed then that the guest is to go on.  The key
 * with the VM's epoch does; the start of a later epoch takes it away. */

static void
reboot_path(const struct watched *w, char path[64])
{
    snprintf(path, 64, "/weft/reboot/%.36s", w->job.uuid);
}

static void
reboot_begin(struct watched *w)
{
    char path[64], text[24];

    reboot_path(w, path);
    snprintf(text, sizeof text, "%" PRIu64, (uint64_t)w->job.epoch);
    if (!xs_write(w->g->xs, XBT_NULL, path, text, strlen(text))) {
        perror("weft-domain: the reboot cannot be noted");
    }
}

static bool
reboot_begun(struct watched *w)
{
    char path[64], *text;
    bool begun;

    reboot_path(w, path);
    text = xs_read(w->g->xs, XBT_NULL, path, NULL);
    begun = text && strtoull(text, NULL, 10) == (uint64_t)w->job.epoch;
    free(text);
    return begun;
}

static void
reboot_end(struct watched *w)
{
    char path[64];

    reboot_path(w, path);
    xs_rm(w->g->xs, XBT_NULL, path);
}

/* --- its life ------------------------------------------------------------------------------------
 */

/* Nothing runs, and nothing was made, if it fails; 'why' says so. */
static int
make(struct watched *w)
{
    uint64_t need_kb = 0, free_kb = 0;
    libxl_domain_config c;
    int error;

    libxl_domain_config_init(&c);
    error = fill_config(w, &c);
    /* One that ended just now, as for a reboot, gives its memory back little by little. */
    if (!error && (libxl_domain_need_memory(w->g->ctx, &c, INVALID_DOMID, &need_kb) ||
                   libxl_wait_for_free_memory(w->g->ctx, INVALID_DOMID, need_kb, MEMORY_WAIT_S))) {
        libxl_get_free_memory(w->g->ctx, &free_kb);
        snprintf(w->why, MIG_WHY, "%" PRIu64 " MiB of memory are needed, %" PRIu64 " are free",
                 need_kb >> 10, free_kb >> 10);
        error = ENOMEM;
    }
    if (!error) {
        xen_log_clear(&w->g->log);
        if (libxl_domain_create_new(w->g->ctx, &c, &w->g->domid, NULL, NULL) ||
            xen_key_write(w->g, "epoch", (uint64_t)w->job.epoch) ||
            libxl_domain_unpause(w->g->ctx, w->g->domid, NULL)) {
            xen_why(w->g, w->why, "libxl does not make the domain");
            error = EIO;
        }
    }
    if (error && w->g->domid != (uint32_t)INVALID_DOMID) {
        libxl_domain_destroy(w->g->ctx, w->g->domid, NULL);
        w->g->domid = INVALID_DOMID;
    }
    libxl_domain_config_dispose(&c);
    reboot_end(w);
    return error;
}

static const char *
reason(const libxl_dominfo *info)
{
    return info->shutdown_reason == LIBXL_SHUTDOWN_REASON_CRASH ? "the guest has crashed"
           : info->shutdown_reason == LIBXL_SHUTDOWN_REASON_WATCHDOG
               ? "the guest's watchdog ended it"
               : "";
}

/* The guest has ended, its domain has not.  True: it runs anew. */
static bool
bury(struct watched *w, const libxl_dominfo *info)
{
    bool again = info->shutdown_reason == LIBXL_SHUTDOWN_REASON_REBOOT;

    snprintf(w->why, sizeof w->why, "%s", reason(info));
    if (again) {
        reboot_begin(w);
    }
    if (libxl_domain_destroy(w->g->ctx, w->g->domid, NULL)) {
        return true; /* it is looked at again */
    }
    if (!again) {
        return false;
    }
    w->g->domid = INVALID_DOMID;
    if (make(w)) {
        return false;
    }
    say_running(w);
    return true;
}

/* Until something may have happened: a domain that ended, an order. */
static void
wait_for_news(struct watched *w)
{
    struct pollfd p[] = {{.fd = xs_fileno(w->g->xs), .events = POLLIN},
                         {.fd = w->no_more ? -1 : orders, .events = POLLIN}};
    char **event;

    if (poll(p, 2, LOOK_MS) < 0) {
        return;
    }
    while ((event = xs_check_watch(w->g->xs))) {
        free(event);
    }
    if (p[1].revents) {
        take_orders(w);
    }
}

/* A domain that suspends is being moved or saved by another process. */
static int
follow(struct watched *w)
{
    for (;;) {
        libxl_dominfo info;
        int error = xen_domain_info(w->g, &info);

        if (error == ENOENT) {
            return say_ended(w, w->why);
        }
        if (!error) {
            bool over = info.shutdown && info.shutdown_reason != LIBXL_SHUTDOWN_REASON_SUSPEND;
            bool on = !over || bury(w, &info);

            libxl_dominfo_dispose(&info);
            if (!on) {
                return say_ended(w, w->why);
            }
        }
        wait_for_news(w);
    }
}

/* Nobody knows whether the domain runs: who starts another of us shall not spin. */
static int
give_up(const char *why)
{
    fprintf(stderr, "weft-domain: %s\n", why);
    nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    return 1;
}

/* What an earlier one of us left that was killed: a domain that it had not finished
 * never ran, one that it had finished shall run.  0 or an errno. */
static int
tidy(struct watched *w)
{
    bool made = xen_key_read(w->g, "epoch"), stands;
    libxl_dominfo info;
    int error = xen_domain_info(w->g, &info);

    if (error == ENOENT) {
        w->g->domid = INVALID_DOMID;
        return 0;
    }
    if (error) {
        return error; /* nobody knows */
    }
    /* One that has run is nobody's half-made one: somebody has paused it. */
    stands = info.paused && !info.shutdown && !info.cpu_time && !xen_is_incoming(w->g);
    if (stands && !made) {
        error = libxl_domain_destroy(w->g->ctx, w->g->domid, NULL) ? EIO : 0;
        w->g->domid = error ? w->g->domid : (uint32_t)INVALID_DOMID;
    } else if (stands) {
        error = libxl_domain_unpause(w->g->ctx, w->g->domid, NULL) ? EIO : 0;
    }
    libxl_dominfo_dispose(&info);
    return error;
}

static int
run(struct watched *w)
{
    bool here;

    if (xen_domain_by_uuid(w->g, &w->g->domid) || tidy(w)) {
        return give_up("what is left of the domain cannot be taken up");
    }
    here = w->g->domid != (uint32_t)INVALID_DOMID;
    if (w->job.start && here && xen_key_read(w->g, "epoch") != (uint64_t)w->job.epoch) {
        return say_ended(w, "the domain exists here already");
    }
    /* Made anew by one that was killed before it could say so; or to be, as bury() notes
     * again.  Else its end, whatever that is, would pass for a reboot cut off. */
    if (here) {
        reboot_end(w);
    }
    if (!w->job.start && !here && !reboot_begun(w)) {
        return say_ended(w, "the domain is not here any more");
    }
    if (!here && make(w)) {
        return say_ended(w, w->why);
    }
    say_running(w);
    return follow(w);
}

/* Orders and events are no business of the scripts that libxl runs. */
static int
keep_channels(void)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    orders = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    events = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (null < 0 || orders < 0 || events < 0 || dup2(null, STDIN_FILENO) < 0 ||
        dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        return errno;
    }
    close(null);
    return 0;
}

static int
run_job(struct watched *w)
{
    struct mig_guest_config config = {.vm = w->job.uuid, .epoch = (uint64_t)w->job.epoch};
    int error = xen_open(&config, &w->g, w->why);

    if (!error && !xs_watch(w->g->xs, "@releaseDomain", "end")) {
        error = refuse(w->why, "xenstore does not answer");
    }
    if (!error) {
        return run(w);
    }
    return w->job.start ? say_ended(w, w->why) : give_up(w->why); /* nothing was made */
}

int
main(int argc, char *argv[])
{
    struct watched w = {.g = NULL};
    char *line;
    int error;

    signal(SIGPIPE, SIG_IGN);
    if (argc > 1) {
        bool asked = !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h");

        usage(asked ? stdout : stderr);
        return asked ? 0 : 2;
    }
    if (keep_channels()) {
        perror("weft-domain");
        return 1;
    }
    line = read_line();
    error = line ? parse_job(&w.job, line, w.why) : ENOMEM;
    if (error) {
        fprintf(stderr, "weft-domain: %s\n", w.why);
        error = 2;
    } else {
        error = run_job(&w);
        xen_close(w.g);
    }
    free(line);
    json_decref(w.job.root);
    return error;
}
