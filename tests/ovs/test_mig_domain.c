/* weft-domain on a hypervisor with one domain, which the test plays: what becomes of
 * it, also where somebody killed the one that watched.
 *
 * libxl's, libxenctrl's and libxenstore's functions that it calls are here; the
 * linker takes these. */
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>

int domain_main(int argc, char *argv[]);
#define main domain_main
#include "main_domain.c"
#undef main

#include "bytes.h"
#include "check.h"
#include "driver_list.h"
#include "xen_config.h"

#define UUID "00000000-0000-0000-0000-000000000001"
#define WATCH "{\"start\":false,\"uuid\":\"" UUID "\",\"epoch\":7" CONFIG
#define START "{\"start\":true,\"uuid\":\"" UUID "\",\"epoch\":7" CONFIG
#define CONFIG                                                                                     \
    ",\"name\":\"g\",\"type\":\"pv\",\"kernel\":\"/dev/null\",\"cmdline\":\"a=b c\","              \
    "\"memory_kb\":65536,\"vcpus\":2,\"tsc_mode\":\"native\",\"vifs\":[{\"device\":3,"             \
    "\"mac\":\"02:00:00:00:00:07\",\"bridge\":\"xenbr0\",\"script\":\"vif-weft\",\"mtu\":1400}]}"

enum { WAIT_MS = 20000 };

/* The hypervisor, shared with the child that the program runs in. */
static struct {
    bool there, paused, shut_down, loaded;
    bool silent; /* it does not list its domains */
    char name[64];
    char taken[2][64]; /* names of other domains */
    libxl_shutdown_reason reason;
    uint32_t domid;
    uint64_t cpu_time, key, memory_kb;
    uint64_t reboot; /* the key of one that has begun */
    unsigned created, unpaused, destroyed, asked;
    bool refuses, dies; /* while it makes the domain */
    bool as_told;       /* the configuration was the job's */
    char restored[200]; /* what libxl was to make: name, scripts and a bridge of its vifs */
} * xen;
static int release; /* eventfd: "@releaseDomain" */

/* --- the toolstack ---------------------------------------------------------------------- */

struct xs_handle *
xs_open(unsigned long flags)
{
    return (struct xs_handle *)xen;
}

void
xs_close(struct xs_handle *h)
{
}

bool
xs_watch(struct xs_handle *h, const char *path, const char *token)
{
    return !strcmp(path, "@releaseDomain");
}

int
xs_fileno(struct xs_handle *h)
{
    return release;
}

char **
xs_check_watch(struct xs_handle *h)
{
    uint64_t n;

    return read(release, &n, sizeof n) == sizeof n ? calloc(1, sizeof(char *)) : NULL;
}

void *
xs_read(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned int *n)
{
    uint64_t value = strstr(path, "/weft/epoch")           ? xen->key
                     : strstr(path, "/weft/loaded")        ? xen->loaded
                     : !strcmp(path, "/weft/reboot/" UUID) ? xen->reboot
                                                           : 0;
    char *text = NULL;

    if (!xen->there && !xen->reboot) {
        return NULL;
    }
    if (!strcmp(path, "/libxl/9/type")) {
        return strdup("pv");
    }
    return value && asprintf(&text, "%" PRIu64, value) > 0 ? text : NULL;
}

bool
xs_rm(struct xs_handle *h, xs_transaction_t t, const char *path)
{
    xen->loaded = xen->loaded && !strstr(path, "/weft/loaded");
    if (strstr(path, "/weft/reboot/")) {
        xen->reboot = 0;
    }
    return true;
}

bool
xs_write(struct xs_handle *h, xs_transaction_t t, const char *path, const void *data,
         unsigned int n)
{
    if (strstr(path, "/weft/epoch")) {
        xen->key = strtoull(data, NULL, 10);
    } else if (!strcmp(path, "/weft/reboot/" UUID)) {
        xen->reboot = strtoull(data, NULL, 10);
    }
    return true;
}

int
xc_domain_maximum_gpfn(xc_interface *xch, uint32_t domid, xen_pfn_t *last)
{
    *last = 16383;
    return 0;
}

xc_interface *
xc_interface_open(xentoollog_logger *logger, xentoollog_logger *builder, unsigned flags)
{
    return (xc_interface *)xen;
}

int
xc_interface_close(xc_interface *xch)
{
    return 0;
}

int
libxl_ctx_alloc(libxl_ctx **ctx, int version, unsigned flags, xentoollog_logger *logger)
{
    *ctx = (libxl_ctx *)xen;
    return 0;
}

int
libxl_ctx_free(libxl_ctx *ctx)
{
    return 0;
}

int
libxl_cpu_bitmap_alloc(libxl_ctx *ctx, libxl_bitmap *map, int n)
{
    map->size = (uint32_t)(n + 7) / 8;
    map->map = calloc(1, map->size);
    return 0;
}

int
libxl_domain_need_memory(libxl_ctx *ctx, libxl_domain_config *c, uint32_t domid, uint64_t *kb)
{
    *kb = c->b_info.max_memkb;
    return 0;
}

int
libxl_wait_for_free_memory(libxl_ctx *ctx, uint32_t domid, uint64_t kb, int seconds)
{
    return kb <= xen->memory_kb ? 0 : ERROR_NOMEM;
}

int
libxl_get_free_memory(libxl_ctx *ctx, uint64_t *kb)
{
    *kb = xen->memory_kb;
    return 0;
}

int
libxl_name_to_domid(libxl_ctx *ctx, const char *name, uint32_t *domid)
{
    *domid = 1;
    return !strcmp(name, xen->taken[0]) ? 0 : ERROR_INVAL;
}

char *
libxl_domid_to_name(libxl_ctx *ctx, uint32_t domid)
{
    return xen->there ? strdup(xen->name) : NULL;
}

int
libxl_domain_rename(libxl_ctx *ctx, uint32_t domid, const char *from, const char *to)
{
    if (!xen->there || strcmp(from, xen->name) != 0 || !strcmp(to, xen->taken[0]) ||
        !strcmp(to, xen->taken[1])) {
        return ERROR_INVAL;
    }
    snprintf(xen->name, sizeof xen->name, "%s", to);
    return 0;
}

static void
tell(libxl_dominfo *info)
{
    *info = (libxl_dominfo){.domid = xen->domid,
                            .paused = xen->paused,
                            .shutdown = xen->shut_down,
                            .shutdown_reason = xen->reason,
                            .cpu_time = xen->cpu_time};
    libxl_uuid_from_string(&info->uuid, UUID);
}

int
libxl_domain_info(libxl_ctx *ctx, libxl_dominfo *info, uint32_t domid)
{
    if (!xen->there || domid != xen->domid) {
        return ERROR_DOMAIN_NOTFOUND;
    }
    tell(info);
    return 0;
}

libxl_dominfo *
libxl_list_domain(libxl_ctx *ctx, int *n)
{
    libxl_dominfo *list = xen->silent ? NULL : calloc(1, sizeof *list);

    if (!list) {
        return NULL;
    }
    *n = xen->there;
    tell(list);
    return list;
}

void
libxl_dominfo_list_free(libxl_dominfo *list, int n)
{
    free(list);
}

static bool
is_as_told(const libxl_domain_config *c)
{
    const libxl_device_nic *nic = c->nics;

    return c->c_info.type == LIBXL_DOMAIN_TYPE_PV &&
           !strcmp(c->c_info.name, xen->taken[0][0] ? UUID : "g") && c->b_info.max_memkb == 65536 &&
           c->b_info.max_vcpus == 2 && !strcmp(c->b_info.kernel, "/dev/null") &&
           !c->b_info.ramdisk && !strcmp(c->b_info.cmdline, "a=b c") &&
           c->b_info.tsc_mode == LIBXL_TSC_MODE_NATIVE && c->num_nics == 1 && nic->devid == 3 &&
           nic->mac[0] == 2 && nic->mac[5] == 7 && !strcmp(nic->bridge, "xenbr0") &&
           !strcmp(nic->script, "vif-weft") && nic->mtu == 1400;
}

int
libxl_domain_create_new(libxl_ctx *ctx, libxl_domain_config *c, uint32_t *domid,
                        const libxl_asyncop_how *how, const libxl_asyncprogress_how *console)
{
    xen->as_told = is_as_told(c);
    *domid = INVALID_DOMID;
    if (xen->refuses || xen->there || !strcmp(c->c_info.name, xen->taken[0])) {
        return ERROR_FAIL;
    }
    xen->there = xen->paused = true;
    xen->shut_down = false;
    xen->key = xen->cpu_time = 0;
    snprintf(xen->name, sizeof xen->name, "%s", c->c_info.name);
    *domid = xen->domid = 5 + xen->created++;
    if (xen->dies) {
        _exit(9);
    }
    return 0;
}

int
libxl_domain_unpause(libxl_ctx *ctx, uint32_t domid, const libxl_asyncop_how *how)
{
    if (!xen->there || domid != xen->domid || !xen->paused) {
        return ERROR_FAIL; /* Xen: -EINVAL if nobody paused it */
    }
    xen->paused = false;
    xen->cpu_time = 1;
    xen->unpaused++;
    return 0;
}

int
libxl_domain_destroy(libxl_ctx *ctx, uint32_t domid, const libxl_asyncop_how *how)
{
    if (!xen->there || domid != xen->domid) {
        return ERROR_DOMAIN_NOTFOUND;
    }
    xen->there = false;
    xen->destroyed++;
    return 0;
}

int
libxl_domain_shutdown(libxl_ctx *ctx, uint32_t domid, const libxl_asyncop_how *how)
{
    if (!xen->there || domid != xen->domid) {
        return ERROR_DOMAIN_NOTFOUND;
    }
    xen->asked++;
    xen->shut_down = true;
    xen->reason = LIBXL_SHUTDOWN_REASON_POWEROFF;
    return 0;
}

/* --- the program -------------------------------------------------------------------------- */

static struct {
    pid_t pid;
    int to, from;
} program;

/* A hypervisor without the domain. */
static void
begin(const char *name)
{
    CASE(name);
    memset(xen, 0, sizeof *xen);
    xen->memory_kb = 1 << 20;
}

/* One whose domain an earlier program made, in that epoch. */
static void
begin_with(const char *name, uint64_t key, bool paused, uint64_t cpu_time)
{
    begin(name);
    xen->there = true;
    xen->domid = 9;
    snprintf(xen->name, sizeof xen->name, "g");
    xen->key = key;
    xen->paused = paused;
    xen->cpu_time = cpu_time;
}

static void
tell_program(const char *line)
{
    CHECK(dprintf(program.to, "%s\n", line) > 0);
}

static void
run_program(const char *job)
{
    int in[2], out[2];
    char *argv[] = {"weft-domain", NULL};

    CHECK(!pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC));
    fflush(stdout);
    program.pid = fork();
    if (!program.pid) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        close(in[1]);
        _exit(domain_main(1, argv));
    }
    close(in[0]);
    close(out[1]);
    program.to = in[1];
    program.from = out[0];
    tell_program(job);
}

/* The next line is that event; 'why' is part of it. */
static bool
says(const char *event, const char *why)
{
    struct pollfd p = {.fd = program.from, .events = POLLIN};
    char line[1024], wanted[64];
    size_t n = 0;

    while (n < sizeof line - 1 && poll(&p, 1, WAIT_MS) == 1 &&
           read(program.from, line + n, 1) == 1 && line[n] != '\n') {
        n++;
    }
    line[n] = '\0';
    snprintf(wanted, sizeof wanted, "\"event\":\"%s\"", event);
    return strstr(line, wanted) && strstr(line, why);
}

/* Its exit status; -1 if it was killed. */
static int
ends(void)
{
    int status = 0;

    close(program.to);
    close(program.from);
    waitpid(program.pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void
guest_ends(libxl_shutdown_reason reason)
{
    uint64_t one = 1;

    xen->reason = reason;
    xen->shut_down = true;
    CHECK(write(release, &one, sizeof one) == sizeof one);
}

static void
goes(void)
{
    uint64_t one = 1;

    xen->there = false;
    CHECK(write(release, &one, sizeof one) == sizeof one);
}

/* --- cases ----------------------------------------------------------------------------------- */

static void
test_life(void)
{
    begin("domain_shutdown");
    run_program(START);
    CHECK(says("running", "\"domid\":5"));
    CHECK(xen->as_told && xen->key == 7 && xen->unpaused == 1);
    tell_program("{\"cmd\":\"nonsense\"}\n{\"cmd\":\"shutdown\"}");
    CHECK(says("ended", "\"why\":\"\"") && !ends());
    CHECK(xen->asked == 1 && xen->destroyed == 1 && !xen->there);

    begin("domain_destroy");
    run_program(START "\n{\"cmd\":\"destroy\"}"); /* while it is made */
    CHECK(says("running", "") && says("ended", "\"why\":\"\"") && !ends() && !xen->there);

    begin("domain_crash");
    run_program(START);
    CHECK(says("running", ""));
    guest_ends(LIBXL_SHUTDOWN_REASON_CRASH);
    CHECK(says("ended", "crashed") && !ends() && !xen->there && xen->created == 1);

    begin("domain_reboot_move");
    run_program(START);
    CHECK(says("running", "\"domid\":5"));
    guest_ends(LIBXL_SHUTDOWN_REASON_REBOOT);
    CHECK(says("running", "\"domid\":6") && xen->key == 7);
    guest_ends(LIBXL_SHUTDOWN_REASON_SUSPEND); /* weft-migrate's, which then destroys it */
    goes();
    CHECK(says("ended", "\"domid\":6,\"why\":\"\"") && !ends() && xen->destroyed == 1);
}

/* Whoever watched is killed while there is no domain, or half of one. */
static void
test_reboot(void)
{
    begin("domain_reboot_cut_off");
    run_program(START);
    CHECK(says("running", "\"domid\":5"));
    xen->dies = true;
    guest_ends(LIBXL_SHUTDOWN_REASON_REBOOT);
    CHECK(ends() == 9 && xen->there && xen->paused && xen->created == 2 && xen->reboot == 7);
    xen->dies = false;
    run_program(WATCH);
    CHECK(says("running", "\"domid\":7") && xen->as_told && xen->key == 7 && !xen->reboot);
    goes();
    CHECK(says("ended", "") && !ends());

    begin("domain_reboot_before_it_was_made");
    xen->reboot = 7;
    run_program(WATCH);
    CHECK(says("running", "\"domid\":5") && !xen->reboot);
    goes();
    CHECK(says("ended", "") && !ends());

    begin_with("domain_reboot_of_before", 7, false, 5); /* what was cut off is only the note */
    xen->reboot = 7;
    run_program(WATCH);
    CHECK(says("running", "\"domid\":9") && !xen->reboot);
    kill(program.pid, SIGKILL);
    CHECK(ends() == -1);
    xen->there = false; /* it was switched off, and destroyed by one that was killed then */
    run_program(WATCH);
    CHECK(says("ended", "not here any more") && !ends() && !xen->created);

    begin_with("domain_reboot_begun_anew", 7, false, 5); /* killed before the old one went */
    xen->reboot = 7;
    xen->shut_down = true;
    xen->reason = LIBXL_SHUTDOWN_REASON_REBOOT;
    run_program(WATCH);
    CHECK(says("running", "\"domid\":9") && says("running", "\"domid\":5") && !xen->reboot);
    goes();
    CHECK(says("ended", "") && !ends());

    begin("domain_reboot_of_another_epoch"); /* it has moved since, or was started anew */
    xen->reboot = 6;
    run_program(WATCH);
    CHECK(says("ended", "not here any more") && !ends() && !xen->created);

    begin("domain_reboot_refused"); /* that is its end, also for who comes after */
    run_program(START);
    CHECK(says("running", ""));
    xen->refuses = true;
    guest_ends(LIBXL_SHUTDOWN_REASON_REBOOT);
    CHECK(says("ended", "libxl does not make") && !ends() && !xen->reboot);

    begin("domain_name_taken"); /* at its start, and at a reboot */
    snprintf(xen->taken[0], sizeof xen->taken[0], "g");
    run_program(START);
    CHECK(says("running", "") && xen->as_told && !strcmp(xen->name, UUID));
    guest_ends(LIBXL_SHUTDOWN_REASON_REBOOT);
    CHECK(says("running", "") && xen->as_told && !strcmp(xen->name, UUID));
    goes();
    CHECK(says("ended", "") && !ends());
}

static void
test_adopt(void)
{
    begin("domain_watch_none");
    run_program(WATCH);
    CHECK(says("ended", "not here any more") && !ends());

    begin_with("domain_watch", 7, false, 5);
    run_program(WATCH);
    CHECK(says("running", "\"domid\":9"));
    kill(program.pid, SIGKILL);
    CHECK(ends() == -1 && xen->there);
    run_program(WATCH);
    CHECK(says("running", "\"domid\":9"));
    tell_program("{\"cmd\":\"destroy\"}");
    CHECK(says("ended", "") && !ends() && !xen->there && !xen->unpaused);

    begin_with("domain_watch_paused", 7, true, 5); /* by somebody else */
    run_program(WATCH);
    CHECK(says("running", "") && !xen->unpaused);
    goes();
    CHECK(says("ended", "") && !ends());

    begin_with("domain_watch_incoming", 0, true, 0);
    snprintf(xen->name, sizeof xen->name, "g" XEN_INCOMING);
    run_program(WATCH);
    CHECK(says("running", "") && !xen->destroyed && !xen->unpaused);
    goes();
    CHECK(says("ended", "") && !ends());

    begin_with("domain_watch_foreign", 0, true, 5); /* none of ours made it, and it has run */
    run_program(WATCH);
    CHECK(says("running", "") && !xen->destroyed && !xen->unpaused);
    goes();
    CHECK(says("ended", "") && !ends());

    begin_with("domain_watch_silence", 7, false, 5); /* nobody knows: that is no end */
    xen->silent = true;
    run_program(WATCH);
    CHECK(!says("", "") && ends() == 1 && xen->there);
    xen->silent = false;
    run_program(WATCH);
    CHECK(says("running", "\"domid\":9"));
    goes();
    CHECK(says("ended", "") && !ends());

    begin_with("domain_made_not_begun", 7, true, 0);
    run_program(WATCH);
    CHECK(says("running", "") && xen->unpaused == 1);
    goes();
    CHECK(says("ended", "") && !ends());
}

static void
test_start(void)
{
    begin("domain_cut_off");
    xen->dies = true;
    run_program(START);
    CHECK(ends() == 9 && xen->there && xen->paused);
    xen->dies = false;
    run_program(WATCH);
    CHECK(says("ended", "not here any more") && !ends() && !xen->there);

    begin_with("domain_start_again", 7, false, 5); /* the same start */
    run_program(START);
    CHECK(says("running", "\"domid\":9") && !xen->created);
    goes();
    CHECK(says("ended", "") && !ends());

    begin_with("domain_in_the_way", 6, false, 5);
    run_program(START);
    CHECK(says("ended", "exists here already") && !ends() && xen->there && !xen->destroyed);

    begin("domain_refused");
    xen->refuses = true;
    run_program(START);
    CHECK(says("ended", "libxl does not make") && !ends());
    xen->memory_kb = 1024;
    run_program(START);
    CHECK(says("ended", "64 MiB of memory are needed, 1 are free") && !ends());
    CHECK(!xen->there && !xen->unpaused);
}

/* weft-migrate's driver finds the domain, and runs it in epoch 8. */
static int
run_here(void)
{
    static const struct mig_guest_config config = {.vm = UUID, .epoch = 7};
    struct mig_guest *guest;
    char why[MIG_WHY];
    int error = mig_driver_xen.attach(&config, &guest, why);

    if (!error) {
        error = mig_driver_xen.run(guest, 8);
        mig_driver_xen.detach(guest);
    }
    return error;
}

/* One that has been received whole. */
static void
begin_loaded(const char *name)
{
    begin_with(name, 0, true, 0);
    snprintf(xen->name, sizeof xen->name, "g" XEN_INCOMING);
    xen->loaded = true;
}

static bool
runs_as(const char *name)
{
    return xen->there && !xen->paused && xen->unpaused == 1 && xen->key == 8 && !xen->loaded &&
           !strcmp(xen->name, name);
}

static void
test_run(void)
{
    begin_loaded("domain_run");
    CHECK(!run_here() && runs_as("g"));
    CHECK(!run_here() && runs_as("g"));
    xen->paused = true; /* by somebody else */
    CHECK(!run_here() && xen->paused && xen->unpaused == 1);

    begin_loaded("domain_run_key_only"); /* killed before it ran */
    xen->key = 8;
    CHECK(!run_here() && runs_as("g"));

    begin_loaded("domain_run_no_name_yet"); /* killed behind that */
    xen->key = 8;
    xen->paused = false;
    xen->unpaused = 1;
    CHECK(!run_here() && runs_as("g"));

    begin_loaded("domain_run_name_taken");
    snprintf(xen->taken[0], sizeof xen->taken[0], "g");
    CHECK(!run_here() && runs_as(UUID));
    begin_loaded("domain_run_no_name");
    snprintf(xen->taken[0], sizeof xen->taken[0], "g");
    snprintf(xen->taken[1], sizeof xen->taken[1], UUID);
    CHECK(!run_here() && runs_as("g" XEN_INCOMING));

    begin_loaded("domain_run_half");
    xen->loaded = false;
    CHECK(run_here() == EINVAL && xen->paused && !xen->unpaused);

    begin_loaded("domain_run_silence");
    xen->silent = true;
    CHECK(run_here() == EIO && xen->paused);
    begin("domain_run_none");
    CHECK(run_here() == ENOENT);
}

/* --- what a source may say of its domain -------------------------------------------------------
 */

#define NIC                                                                                        \
    "\"devid\":0,\"mac\":\"00:16:3e:00:00:0b\",\"bridge\":\"xenbr0.10\",\"mtu\":1500,"             \
    "\"script\":\"/bin/sh\",\"ip\":\"192.0.2.1/24\",\"nictype\":\"vif\",\"model\":\"rtl8139\""
#define C_INFO                                                                                     \
    "\"type\":\"pvh\",\"name\":\"g 1\",\"uuid\":\"" UUID "\",\"hap\":\"True\",\"domid\":7,"        \
    "\"run_hotplug_scripts\":\"True\",\"driver_domain\":\"False\",\"passthrough\":\"disabled\""
#define B_INFO                                                                                     \
    "\"max_vcpus\":2,\"avail_vcpus\":[0,1],\"max_memkb\":65536,\"target_memkb\":65536,"            \
    "\"tsc_mode\":\"native\",\"kernel\":\"/etc/shadow\",\"cmdline\":\"a b\",\"shadow_memkb\":99,"  \
    "\"sched_params\":{\"weight\":512},\"type.pvh\":{},\"arch_arm\":{},\"acpi\":\"<default>\""

/* The configuration with these members besides; they must not be among those above. */
static char *
config_with(const char *c_info, const char *b_info, const char *nic, const char *root)
{
    char *text;

    CHECK(asprintf(&text,
                   "{\"c_info\":{" C_INFO "%s},\"b_info\":{" B_INFO "%s},\"nics\":[{" NIC
                   "%s}],\"disks\":[],\"on_crash\":\"destroy\"%s}",
                   c_info, b_info, nic, root) > 0);
    return text;
}

static void
test_config_passes(void)
{
    char *text = config_with("", "", "", ""), *out, *again, why[XEN_CONFIG_WHY];
    json_t *o, *nic, *b;

    CASE("config_what_is_carried");
    CHECK(!xen_config_check(text, strlen(text), 65536, &out, why));
    o = json_loads(out, 0, NULL);
    b = json_object_get(o, "b_info");
    nic = json_array_get(json_object_get(o, "nics"), 0);
    CHECK(!json_object_get(nic, "script") && !json_object_get(nic, "ip"));
    CHECK(!strcmp(json_string_value(json_object_get(nic, "bridge")), "xenbr0.10"));
    CHECK(json_integer_value(json_object_get(b, "max_memkb")) == 65536);
    CHECK(json_array_size(json_object_get(b, "avail_vcpus")) == 2);
    CHECK(json_object_get(json_object_get(b, "sched_params"), "weight"));
    CHECK(json_object_get(b, "type.pvh")); /* libxl takes the kind from it */
    CHECK(!json_object_get(b, "kernel") && !json_object_get(b, "shadow_memkb"));
    CHECK(!json_object_get(json_object_get(o, "c_info"), "domid") && !json_object_get(o, "disks"));
    CHECK(!xen_config_check(out, strlen(out), 65536, &again, why) && !strcmp(out, again));
    json_decref(o);
    free(again);
    free(out);
    free(text);
}

static void
test_config_refuses(void)
{
    static const struct {
        const char *c_info, *b_info, *nic, *root, *why;
    } bad[] = {
        {"", "", "", ",\"disks\":[{\"pdev_path\":\"/dev/sda\"}]", "JSON"}, /* a second one */
        {"", "", "", ",\"p9s\":[{\"path\":\"/\"}]", "p9s"},
        {"", "", "", ",\"pcidevs\":[{\"dev\":1}]", "pcidevs"},
        {"", "", "", ",\"channels\":[{\"name\":\"x\"}]", "channels"},
        {"", "", "", ",\"vfbs\":[{}]", "vfbs"},
        {"", "", "", ",\"on_reboot\":\"a;b\"", "on_reboot"},
        {",\"xsdata\":{\"a\":\"b\"}", "", "", "", "c_info.xsdata"},
        {",\"ssid_label\":\"dom0\"", "", "", "", "c_info.ssid_label"},
        {"", ",\"ioports\":[{\"first\":112}]", "", "", "b_info.ioports"},
        {"", ",\"iomem\":[{\"start\":0}]", "", "", "b_info.iomem"},
        {"", ",\"device_model\":\"/bin/sh\"", "", "", "b_info.device_model"},
        {"", ",\"extra\":[\"-drive\"]", "", "", "b_info.extra"},
        {"", ",\"event_channels\":999999999", "", "", "b_info.event_channels"},
        {"", ",\"nested_hvm\":\"True\"", "", "", "b_info.nested_hvm"},
        {"", ",\"video_memkb\":1,\"type.hvm\":{\"bios\":\"x\"}", "", "", "b_info.type.hvm"},
        {"", ",\"type.pv\":{}", "", "", "b_info.type.pv and"}, /* one of them is the kind */
        {"", "", ",\"backend_domid\":3", "", "nics.backend_domid"},
        {"", "", ",\"backend_domname\":\"other\"", "", "nics.backend_domname"},
        {"", "", ",\"ifname\":\"eth0\"", "", "nics.ifname"},
        {"", "", ",\"coloft_forwarddev\":\"eth0\"", "", "nics.coloft_forwarddev"},
        {"", "", ",\"vlan\":\"12\"", "", "nics.vlan"},
    };
    char *text, *out, why[XEN_CONFIG_WHY];

    CASE("config_what_is_refused");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        text = config_with(bad[i].c_info, bad[i].b_info, bad[i].nic, bad[i].root);
        CHECK(xen_config_check(text, strlen(text), 65536, &out, why) == EINVAL && !out);
        CHECK(strstr(why, bad[i].why));
        free(text);
    }
    text = config_with("", "", "", "");
    CHECK(xen_config_check(text, strlen(text), 65535, &out, why) == EINVAL);
    CHECK(strstr(why, "memkb"));
    CHECK(xen_config_check(text, strlen(text) - 1, 65536, &out, why) == EINVAL);
    free(text);
}

/* --- what libxl gets of it ------------------------------------------------------------------- */

const libxl_version_info *
libxl_get_version_info(libxl_ctx *ctx)
{
    static const libxl_version_info info = {.xen_version_major = 4, .xen_version_minor = 17};

    return &info;
}

/* libxl's own needs a context of its own; as much of it as is asked for here. */
int
libxl_domain_config_from_json(libxl_ctx *ctx, libxl_domain_config *c, const char *text)
{
    json_t *o = json_loads(text, 0, NULL), *c_info = json_object_get(o, "c_info"), *nic;
    bool pv = json_object_get(json_object_get(o, "b_info"), "type.pv");
    const char *bridge, *script;
    size_t i;

    c->c_info.name = strdup(json_string_value(json_object_get(c_info, "name")));
    libxl_domain_type_from_string(json_string_value(json_object_get(c_info, "type")),
                                  &c->c_info.type);
    libxl_uuid_from_string(&c->c_info.uuid, json_string_value(json_object_get(c_info, "uuid")));
    libxl_domain_build_info_init_type(&c->b_info,
                                      pv ? LIBXL_DOMAIN_TYPE_PV : LIBXL_DOMAIN_TYPE_PVH);
    c->num_nics = (int)json_array_size(json_object_get(o, "nics"));
    c->nics = calloc((size_t)c->num_nics, sizeof *c->nics);
    json_array_foreach(json_object_get(o, "nics"), i, nic)
    {
        bridge = json_string_value(json_object_get(nic, "bridge"));
        script = json_string_value(json_object_get(nic, "script"));
        c->nics[i].bridge = bridge ? strdup(bridge) : NULL;
        c->nics[i].script = script ? strdup(script) : NULL;
    }
    json_decref(o);
    return 0;
}

int
libxl_domain_create_restore(libxl_ctx *ctx, libxl_domain_config *c, uint32_t *domid, int restore_fd,
                            int send_back_fd, const libxl_domain_restore_params *params,
                            const libxl_asyncop_how *how, const libxl_asyncprogress_how *console)
{
    snprintf(xen->restored, sizeof xen->restored, "%s %s %s %s", c->c_info.name, c->nics[0].script,
             c->nics[0].bridge, c->nics[1].script);
    return ERROR_FAIL;
}

/* A configuration comes for a PVH domain; 0 or the errno that refuses it, 'why'. */
static int
load_config(struct mig_option *options, size_t n_options, const char *json, char why[MIG_WHY])
{
    struct mig_guest_config config = {
        .vm = UUID, .epoch = 7, .options = options, .n_options = n_options};
    uint8_t identity[32] = {[0] = 1, [4] = XEN_DOMAIN_PVH};
    struct mig_guest *guest;
    struct xen_pack *pack;
    const uint8_t *chunk;
    size_t n;
    int error;

    put_le64(identity + 16, 65536);
    put_le64(identity + 24, 16384);
    CHECK(!xen_pack_create(MIG_COMPRESS_NONE, &pack));
    xen_pack_begin(pack);
    xen_pack_config(pack, json, strlen(json));
    chunk = xen_pack_bytes(pack, &n);
    error = mig_driver_xen.create(&config, identity, sizeof identity, &guest, why);
    CHECK(!error);
    error = mig_driver_xen.stream_open(guest, why);
    error = error ? error : mig_driver_xen.stream_put(guest, chunk, n, why);
    mig_driver_xen.detach(guest); /* which waits for libxl */
    xen_pack_destroy(pack);
    return error;
}

static void
test_load(void)
{
    struct mig_option own[] = {{"bridge", "weft-br"}, {"script", "vif-own"}};
    char *text = config_with("", "", "},{\"devid\":1,\"bridge\":\"b\"", ""), *wrong, why[MIG_WHY];

    begin("domain_load_vifs");
    CHECK(!load_config(NULL, 0, text, why));
    CHECK(!strcmp(xen->restored, "g 1" XEN_INCOMING " vif-weft xenbr0.10 vif-weft"));
    begin("domain_load_vifs_of_the_pool");
    CHECK(!load_config(own, 2, text, why));
    CHECK(!strcmp(xen->restored, "g 1" XEN_INCOMING " vif-own weft-br vif-own"));
    begin("domain_load_of_two_kinds");
    wrong = strstr(text, "type.pvh");
    CHECK(wrong);
    wrong[strlen("type.pv")] = '"';
    wrong[strlen("type.pvh")] = ' ';
    CHECK(load_config(NULL, 0, text, why) == EINVAL && strstr(why, "another domain"));
    CHECK(!xen->restored[0]);
    free(text);
}

static void
test_jobs(void)
{
    static const struct {
        const char *job, *why;
    } bad[] = {
        {"{\"start\":true,\"uuid\":\"" UUID "\"}", "without a name"},
        {"{\"start\":true,\"uuid\":\"" UUID "\",\"name\":\"g\"}", "kernel"},
        {"{\"start\":true,\"uuid\":\"" UUID "\",\"name\":\"g\",\"type\":\"hvm\"}", "pv or pvh"},
        {"{\"start\":true,\"uuid\":\"" UUID "\",\"name\":\"g\",\"kernel\":\"/dev/null\"}", "size"},
        {"{\"start\":true,\"uuid\":\"" UUID "\",\"name\":\"g\",\"kernel\":\"/dev/null\","
         "\"memory_kb\":65536,\"vifs\":[{\"device\":0,\"mac\":\"02:00:00:00:00:0\","
         "\"bridge\":\"b\",\"script\":\"s\"}]}",
         "MAC"},
        {"{\"start\":true,\"uuid\":\"x\"}", "uuid"},
    };

    begin("domain_jobs");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        run_program(bad[i].job);
        CHECK(says("ended", bad[i].why) && !ends());
    }
    run_program("{\"uuid\":5}");
    CHECK(ends() == 2);
    CHECK(!xen->created);
}

int
main(void)
{
    setlinebuf(stdout);
    signal(SIGPIPE, SIG_IGN);
    xen = mmap(NULL, sizeof *xen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    release = eventfd(0, EFD_NONBLOCK);
    test_life();
    test_reboot();
    test_load();
    test_adopt();
    test_start();
    test_run();
    test_config_passes();
    test_config_refuses();
    test_jobs();
    return check_done();
}
