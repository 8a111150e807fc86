/* driver_xen: PV and PVH domains, by libxl and libxenguest (driver_xen_priv.h has
 * the theory of operation).
 *
 * Options: domid (source; else the domain with the VM's uuid), compress (auto,
 * none, lz4, zstd). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bytes.h"
#include "driver_list.h"
#include "driver_xen_priv.h"

/* --- libxl's log ------------------------------------------------------------------ */

static void
log_message(xentoollog_logger *logger, xentoollog_level level, int errnoval, const char *context,
            const char *format, va_list args)
{
    struct xen_log *log = (struct xen_log *)logger;
    char text[MIG_WHY];

    if (level < XTL_WARN) {
        return;
    }
    vsnprintf(text, sizeof text, format, args);
    fprintf(stderr, "%s: %s%s%s\n", context ? context : "xen", text, errnoval > 0 ? ": " : "",
            errnoval > 0 ? strerror(errnoval) : "");
    pthread_mutex_lock(&log->lock);
    if (level >= XTL_ERROR && !log->last[0]) {
        snprintf(log->last, sizeof log->last, "%s", text);
    }
    pthread_mutex_unlock(&log->lock);
}

static void
log_progress(xentoollog_logger *logger, const char *context, const char *doing, int percent,
             unsigned long done, unsigned long total)
{
}

static void
log_destroy(xentoollog_logger *logger)
{
}

void
xen_log_clear(struct xen_log *log)
{
    pthread_mutex_lock(&log->lock);
    log->last[0] = '\0';
    pthread_mutex_unlock(&log->lock);
}

void
xen_why(struct xen_guest *g, char why[MIG_WHY], const char *what)
{
    pthread_mutex_lock(&g->log.lock);
    snprintf(why, MIG_WHY, "%s%s%.160s", what, g->log.last[0] ? ": " : "", g->log.last);
    pthread_mutex_unlock(&g->log.lock);
}

/* --- keys --------------------------------------------------------------------------- */

static void
key_path(const struct xen_guest *g, const char *key, char path[64])
{
    snprintf(path, 64, "/libxl/%" PRIu32 "/weft/%s", g->domid, key);
}

int
xen_key_write(struct xen_guest *g, const char *key, uint64_t value)
{
    char path[64], text[24];

    key_path(g, key, path);
    snprintf(text, sizeof text, "%" PRIu64, value);
    return xs_write(g->xs, XBT_NULL, path, text, strlen(text)) ? 0 : errno;
}

uint64_t
xen_key_read(struct xen_guest *g, const char *key)
{
    char path[64], *text;
    uint64_t value;

    key_path(g, key, path);
    text = xs_read(g->xs, XBT_NULL, path, NULL);
    value = text ? strtoull(text, NULL, 10) : 0;
    free(text);
    return value;
}

void
xen_key_remove(struct xen_guest *g, const char *key)
{
    char path[64];

    key_path(g, key, path);
    xs_rm(g->xs, XBT_NULL, path);
}

/* --- the handle --------------------------------------------------------------------- */

void
xen_close(struct xen_guest *g)
{
    if (!g) {
        return;
    }
    xen_save_end(g);
    xen_load_end(g);
    if (g->cancel_fd >= 0) {
        close(g->cancel_fd);
    }
    if (g->xs) {
        xs_close(g->xs);
    }
    if (g->xch) {
        xc_interface_close(g->xch);
    }
    libxl_ctx_free(g->ctx);
    pthread_mutex_destroy(&g->log.lock);
    free(g->script);
    free(g->bridge);
    free(g);
}

static void
xen_detach(struct mig_guest *guest)
{
    xen_close(xen_guest_of(guest));
}

int
xen_open(const struct mig_guest_config *config, struct xen_guest **out, char why[MIG_WHY])
{
    struct xen_guest *g = calloc(1, sizeof *g);
    const char *compress = mig_option(config, "compress");
    const char *script = mig_option(config, "script"), *bridge = mig_option(config, "bridge");

    if (!g) {
        return ENOMEM;
    }
    g->guest.ops = &mig_driver_xen;
    g->domid = INVALID_DOMID;
    g->epoch = config->epoch;
    g->compress = !compress || !strcmp(compress, "auto") ? MIG_COMPRESS_AUTO
                  : !strcmp(compress, "lz4")             ? MIG_COMPRESS_LZ4
                  : !strcmp(compress, "zstd")            ? MIG_COMPRESS_ZSTD
                                                         : MIG_COMPRESS_NONE;
    g->script = strdup(script ? script : "vif-weft");
    g->bridge = bridge ? strdup(bridge) : NULL;
    g->log.logger = (xentoollog_logger){log_message, log_progress, log_destroy};
    pthread_mutex_init(&g->log.lock, NULL);
    g->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g->xs = xs_open(0);
    g->xch = xc_interface_open(&g->log.logger, NULL, 0);
    if (!g->script || (bridge && !g->bridge)) {
        xen_close(g);
        return ENOMEM;
    }
    if (g->cancel_fd < 0 || !g->xs || !g->xch ||
        libxl_ctx_alloc(&g->ctx, LIBXL_VERSION, 0, &g->log.logger)) {
        xen_why(g, why, "Xen's toolstack does not answer: is this a dom0?");
        xen_close(g);
        return ENODEV;
    }
    if (libxl_uuid_from_string(&g->uuid, config->vm ? config->vm : "")) {
        snprintf(why, MIG_WHY, "not a VM's uuid: %s", config->vm ? config->vm : "");
        xen_close(g);
        return EINVAL;
    }
    *out = g;
    return 0;
}

int
xen_domain_info(struct xen_guest *g, libxl_dominfo *info)
{
    int rc;

    libxl_dominfo_init(info);
    rc = g->domid == INVALID_DOMID ? ERROR_DOMAIN_NOTFOUND
                                   : libxl_domain_info(g->ctx, info, g->domid);
    if (!rc && info->dying) {
        rc = ERROR_DOMAIN_NOTFOUND;
    }
    if (rc) {
        libxl_dominfo_dispose(info);
    }
    return rc == ERROR_DOMAIN_NOTFOUND ? ENOENT : rc ? EIO : 0;
}

int
xen_domain_by_uuid(struct xen_guest *g, uint32_t *domid)
{
    int n = 0;
    libxl_dominfo *list = libxl_list_domain(g->ctx, &n);

    *domid = INVALID_DOMID;
    if (!list) {
        return EIO; /* dom0 at least is in it */
    }
    for (int i = 0; i < n; i++) {
        if (!list[i].dying && !libxl_uuid_compare(&list[i].uuid, &g->uuid)) {
            *domid = list[i].domid;
        }
    }
    libxl_dominfo_list_free(list, n);
    return 0;
}

/* As libxl noted it; to Xen itself PVH and HVM are the same. */
static int
domain_kind(struct xen_guest *g, char why[MIG_WHY])
{
    char path[64], *kind;
    int error = 0;

    snprintf(path, sizeof path, "/libxl/%" PRIu32 "/type", g->domid);
    kind = xs_read(g->xs, XBT_NULL, path, NULL);
    if (!kind || (strcmp(kind, "pv") && strcmp(kind, "pvh"))) {
        snprintf(why, MIG_WHY, "neither PV nor PVH: a device model's state is not carried");
        error = EINVAL;
    }
    g->pv = kind && !strcmp(kind, "pv");
    free(kind);
    return error;
}

static int
find_domain(struct xen_guest *g, const char *domid, char why[MIG_WHY])
{
    libxl_dominfo info;
    xen_pfn_t last = 0;
    int error = xen_domain_by_uuid(g, &g->domid);

    if (error) {
        xen_why(g, why, "Xen does not say which domains there are");
        return error;
    }
    if (g->domid == INVALID_DOMID || (domid && strtoul(domid, NULL, 10) != g->domid)) {
        snprintf(why, MIG_WHY, "no such domain here");
        return ENOENT;
    }
    error = xen_domain_info(g, &info);
    if (error) {
        snprintf(why, MIG_WHY, "no such domain here");
        return error;
    }
    error = domain_kind(g, why);
    if (!error && xc_domain_maximum_gpfn(g->xch, g->domid, &last) < 0) {
        snprintf(why, MIG_WHY, "the domain's memory cannot be asked for");
        error = EIO;
    }
    g->max_memkb = info.max_memkb;
    g->pfn_limit = last + 2;
    libxl_dominfo_dispose(&info);
    return error;
}

static int
xen_attach(const struct mig_guest_config *config, struct mig_guest **out, char why[MIG_WHY])
{
    struct xen_guest *g;
    int error = xen_open(config, &g, why);

    if (error) {
        return error;
    }
    error = find_domain(g, mig_option(config, "domid"), why);
    if (error) {
        xen_close(g);
        return error;
    }
    *out = &g->guest;
    return 0;
}

bool
xen_is_incoming(struct xen_guest *g)
{
    char *name = libxl_domid_to_name(g->ctx, g->domid);
    size_t n = name ? strlen(name) : 0, suffix = strlen(XEN_INCOMING);
    bool incoming = n > suffix && !strcmp(name + n - suffix, XEN_INCOMING);

    free(name);
    return incoming;
}

static int
xen_status(struct mig_guest *guest, struct mig_guest_status *status)
{
    struct xen_guest *g = xen_guest_of(guest);
    libxl_dominfo info;
    int error;

    if (g->load && g->domid == INVALID_DOMID) {
        *status = (struct mig_guest_status){MIG_GUEST_MADE, 0};
        return 0;
    }
    error = xen_domain_info(g, &info);
    if (error) {
        return error;
    }
    status->epoch = xen_key_read(g, "epoch");
    if (!status->epoch && xen_is_incoming(g)) {
        status->state = xen_key_read(g, "loaded") ? MIG_GUEST_LOADED : MIG_GUEST_MADE;
    } else if (info.shutdown && info.shutdown_reason == LIBXL_SHUTDOWN_REASON_SUSPEND) {
        status->state = MIG_GUEST_PAUSED;
    } else {
        status->state = MIG_GUEST_RUNNING;
    }
    libxl_dominfo_dispose(&info);
    return 0;
}

static int
xen_destroy(struct mig_guest *guest)
{
    struct xen_guest *g = xen_guest_of(guest);
    libxl_dominfo info;
    int error;

    xen_save_end(g);
    xen_load_end(g);
    error = xen_domain_info(g, &info);
    if (error) {
        return error == ENOENT ? 0 : error;
    }
    libxl_dominfo_dispose(&info);
    return libxl_domain_destroy(g->ctx, g->domid, NULL) ? EIO : 0;
}

/* --- source --------------------------------------------------------------------------- */

/* Identity, little-endian: version u32, kind u32 (xen_domain_type), Xen's major and
 * minor u32 each, memory in KiB u64, limit of frames u64. */
enum { IDENTITY_VERSION = 1, IDENTITY_BYTES = 32 };

static void
xen_version(struct xen_guest *g, uint32_t version[2])
{
    const libxl_version_info *info = libxl_get_version_info(g->ctx);

    version[0] = info ? info->xen_version_major : 0;
    version[1] = info ? info->xen_version_minor : 0;
}

static int
xen_describe(struct mig_guest *guest, uint8_t *bytes, size_t *n)
{
    struct xen_guest *g = xen_guest_of(guest);
    uint32_t version[2];

    if (*n < IDENTITY_BYTES) {
        return EMSGSIZE;
    }
    xen_version(g, version);
    put_le32(bytes, IDENTITY_VERSION);
    put_le32(bytes + 4, g->pv ? XEN_DOMAIN_PV : XEN_DOMAIN_PVH);
    put_le32(bytes + 8, version[0]);
    put_le32(bytes + 12, version[1]);
    put_le64(bytes + 16, g->max_memkb);
    put_le64(bytes + 24, g->pfn_limit);
    *n = IDENTITY_BYTES;
    return 0;
}

static int
xen_resume(struct mig_guest *guest, uint64_t epoch)
{
    struct xen_guest *g = xen_guest_of(guest);
    libxl_dominfo info;
    bool suspended;
    int error;

    xen_save_end(g);
    error = xen_domain_info(g, &info);
    if (error) {
        return error;
    }
    suspended = info.shutdown && info.shutdown_reason == LIBXL_SHUTDOWN_REASON_SUSPEND;
    libxl_dominfo_dispose(&info);
    error = xen_key_write(g, "epoch", epoch);
    if (error || !suspended) {
        return error;
    }
    /* The log may be on where a process was killed. */
    xc_shadow_control(g->xch, g->domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0);
    return libxl_domain_resume(g->ctx, g->domid, 1, NULL) ? EIO : 0;
}

/* --- destination ------------------------------------------------------------------------ */

static int
read_identity(struct xen_guest *g, const uint8_t *b, size_t n, char why[MIG_WHY])
{
    uint32_t ours[2], kind;
    uint64_t most;

    if (n != IDENTITY_BYTES || get_le32(b) != IDENTITY_VERSION) {
        snprintf(why, MIG_WHY, "the source describes its domain in another version");
        return EINVAL;
    }
    kind = get_le32(b + 4);
    xen_version(g, ours);
    if (kind != XEN_DOMAIN_PV && kind != XEN_DOMAIN_PVH) {
        snprintf(why, MIG_WHY, "a domain neither PV nor PVH");
        return EINVAL;
    }
    if (get_le32(b + 8) > ours[0] || (get_le32(b + 8) == ours[0] && get_le32(b + 12) > ours[1])) {
        snprintf(why, MIG_WHY, "from Xen %u.%u, which is newer than %u.%u here", get_le32(b + 8),
                 get_le32(b + 12), ours[0], ours[1]);
        return EINVAL;
    }
    g->pv = kind == XEN_DOMAIN_PV;
    g->max_memkb = get_le64(b + 16);
    g->pfn_limit = get_le64(b + 24);
    /* Below 4 GiB there is a hole for devices; nothing else is larger than memory. */
    most = (UINT64_C(4) << 20) / 4 + g->max_memkb / 4 + (1 << 16);
    if (!g->max_memkb || g->max_memkb > UINT64_C(1) << 34 || g->pfn_limit > most) {
        snprintf(why, MIG_WHY, "a domain of an impossible size");
        return EINVAL;
    }
    return 0;
}

static int
room_for(struct xen_guest *g, char why[MIG_WHY])
{
    uint64_t free_kb = 0;
    uint32_t there;

    if (xen_domain_by_uuid(g, &there)) {
        snprintf(why, MIG_WHY, "Xen does not say which domains there are");
        return EIO;
    }
    if (there != INVALID_DOMID) {
        snprintf(why, MIG_WHY, "the domain exists here already");
        return EEXIST;
    }
    if (libxl_get_free_memory(g->ctx, &free_kb) || free_kb < g->max_memkb) {
        snprintf(why, MIG_WHY, "%" PRIu64 " MiB of memory are needed, %" PRIu64 " are free",
                 g->max_memkb >> 10, free_kb >> 10);
        return ENOMEM;
    }
    return 0;
}

static int
xen_create(const struct mig_guest_config *config, const uint8_t *identity, size_t n,
           struct mig_guest **out, char why[MIG_WHY])
{
    struct xen_guest *g;
    int error = xen_open(config, &g, why);

    if (error) {
        return error;
    }
    error = read_identity(g, identity, n, why);
    error = error ? error : room_for(g, why);
    if (error) {
        xen_close(g);
        return error;
    }
    *out = &g->guest;
    return 0;
}

/* NAME--incoming becomes NAME, or if another domain here is called so the VM's uuid: the
 * guest runs, whatever it is called. */
static void
take_name(struct xen_guest *g)
{
    char *name = libxl_domid_to_name(g->ctx, g->domid), uuid[40];
    char *plain = name ? strndup(name, strlen(name) - strlen(XEN_INCOMING)) : NULL;

    snprintf(uuid, sizeof uuid, LIBXL_UUID_FMT, LIBXL_UUID_BYTES(g->uuid));
    if (plain && libxl_domain_rename(g->ctx, g->domid, name, plain) &&
        libxl_domain_rename(g->ctx, g->domid, name, uuid)) {
        fprintf(stderr, "domain %" PRIu32 " stays %s\n", g->domid, name);
    }
    free(plain);
    free(name);
}

static int
xen_run(struct mig_guest *guest, uint64_t epoch)
{
    struct xen_guest *g = xen_guest_of(guest);
    struct mig_guest_status status;
    libxl_dominfo info;
    bool paused;
    int error = xen_status(guest, &status);

    if (error || (status.state != MIG_GUEST_LOADED && status.state != MIG_GUEST_RUNNING)) {
        return error ? error : EINVAL;
    }
    /* The evidence first, its name last: meanwhile it runs. */
    error = xen_key_write(g, "epoch", epoch);
    error = error ? error : xen_domain_info(g, &info);
    if (error) {
        return error;
    }
    /* Done again by whoever recovers; Xen refuses to unpause what is not paused. */
    paused = info.paused && xen_key_read(g, "loaded");
    libxl_dominfo_dispose(&info);
    if (paused && libxl_domain_unpause(g->ctx, g->domid, NULL)) {
        return EIO;
    }
    if (xen_is_incoming(g)) {
        take_name(g);
    }
    xen_key_remove(g, "loaded");
    return 0;
}

static uint32_t
xen_domid(struct mig_guest *guest)
{
    return xen_guest_of(guest)->domid;
}

static void
xen_cancel(struct mig_guest *guest)
{
    struct xen_guest *g = xen_guest_of(guest);

    atomic_store(&g->cancelled, true);
    eventfd_write(g->cancel_fd, 1);
}

const struct mig_driver mig_driver_xen = {
    .name = "xen",
    .kind = MIG_STREAM,
    .attach = xen_attach,
    .detach = xen_detach,
    .status = xen_status,
    .destroy = xen_destroy,
    .describe = xen_describe,
    .resume = xen_resume,
    .create = xen_create,
    .run = xen_run,
    .domid = xen_domid,
    .stream_start = xen_save_start,
    .stream_next = xen_save_next,
    .stream_cancel = xen_cancel,
    .stream_stats = xen_save_stats,
    .stream_digest = xen_save_digest,
    .stream_open = xen_load_open,
    .stream_put = xen_load_put,
    .stream_finish = xen_load_finish,
};
