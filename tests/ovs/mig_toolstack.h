/* mig_toolstack: libxl's, libxenctrl's and libxenstore's functions that Weft's programs for
 * Xen's domains call, over a hypervisor with one domain, which the test plays.
 *
 *     toolstack_setup();      before anything forks
 *     begin("case");          a hypervisor without the domain; *xen is what it has
 *
 * A definition here takes the place of the library's; include it in one file of a program. */
#ifndef MIG_TOOLSTACK_H
#define MIG_TOOLSTACK_H

#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "driver_xen_priv.h"
#include "ovs/jansson_ns.h"

#define UUID "00000000-0000-0000-0000-000000000001"

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

static inline void
toolstack_setup(void)
{
    xen = mmap(NULL, sizeof *xen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    release = eventfd(0, EFD_NONBLOCK);
}

/* A hypervisor without the domain. */
static inline void
begin(const char *name)
{
    CASE(name);
    memset(xen, 0, sizeof *xen);
    xen->memory_kb = 1 << 20;
}

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

#endif
