/* hv "xen": grants, event channels and the store of a real Xen, through
 * libxengnttab, libxenevtchn and libxenstore.  Each struct hv_grants is one
 * handle of libxengnttab, each struct hv_evtchns one of libxenevtchn. */
#include "hv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <xenevtchn.h>
#include <xenstore.h>
#include <xentoollog.h>

#include "xen_stage.h"

#define BACKEND_BUS "/sys/bus/xen-backend"

struct xen_hv {
    struct hv hv;
    /* Swallows the libraries' messages: a guest can cause one for each bad
     * grant it offers, and the caller has the error anyway. */
    xentoollog_logger quiet;
    struct xen_stages *stages; /* or NULL */
};

struct hv_grants {
    struct xen_hv *xen;
    xengnttab_handle *gnttab;
    struct grant_mapping *maps;
};

struct grant_mapping {
    struct grant_mapping *next;
    void *addr;
    unsigned n;
};

struct hv_evtchns {
    xenevtchn_handle *evtchn;
};

static void
quiet_message(struct xentoollog_logger *logger, xentoollog_level level, int errnoval,
              const char *context, const char *format, va_list al)
{
}

static void
quiet_progress(struct xentoollog_logger *logger, const char *context, const char *doing_what,
               int percent, unsigned long done, unsigned long total)
{
}

static void
quiet_destroy(struct xentoollog_logger *logger)
{
}

static void
xen_close(struct hv *hv)
{
    struct xen_hv *xen = (struct xen_hv *)hv;

    xen_stages_close(xen->stages);
    free(xen);
}

/* --- grants ------------------------------------------------------------- */

static int
xen_grants_open(struct hv *hv, struct hv_grants **gp)
{
    struct xen_hv *xen = (struct xen_hv *)hv;
    struct hv_grants *g = calloc(1, sizeof *g);

    if (!g) {
        return ENOMEM;
    }
    g->xen = xen;
    g->gnttab = xengnttab_open(&xen->quiet, 0);
    if (!g->gnttab) {
        int error = errno;

        free(g);
        return error;
    }
    *gp = g;
    return 0;
}

static void
xen_grants_close(struct hv_grants *g)
{
    if (!g) {
        return;
    }
    while (g->maps) {
        struct grant_mapping *m = g->maps;

        g->maps = m->next;
        xengnttab_unmap(g->gnttab, m->addr, m->n);
        free(m);
    }
    xengnttab_close(g->gnttab);
    free(g);
}

static int
xen_grant_copy(struct hv_grants *g, xengnttab_grant_copy_segment_t *segs, unsigned n)
{
    return xen_staged_copy(g->xen->stages, g->gnttab, segs, n) ? errno : 0;
}

static int
xen_grant_map(struct hv_grants *g, uint16_t domid, const uint32_t *refs, unsigned n, bool writable,
              void **addr)
{
    struct grant_mapping *m = malloc(sizeof *m);
    uint32_t *mutable_refs = malloc(n * sizeof *refs);
    int error = ENOMEM;

    if (!m || !mutable_refs) {
        goto out;
    }
    /* The library's prototype lacks a const. */
    memcpy(mutable_refs, refs, n * sizeof *refs);
    m->addr = xengnttab_map_domain_grant_refs(g->gnttab, n, domid, mutable_refs,
                                              PROT_READ | (writable ? PROT_WRITE : 0));
    error = m->addr ? 0 : errno;
out:
    free(mutable_refs);
    if (error) {
        free(m);
        return error;
    }
    m->n = n;
    m->next = g->maps;
    g->maps = m;
    *addr = m->addr;
    return 0;
}

static void
xen_grant_unmap(struct hv_grants *g, void *addr, unsigned n)
{
    for (struct grant_mapping **mp = &g->maps; *mp; mp = &(*mp)->next) {
        struct grant_mapping *m = *mp;

        if (m->addr == addr) {
            *mp = m->next;
            xengnttab_unmap(g->gnttab, m->addr, m->n);
            free(m);
            return;
        }
    }
}

/* --- event channels ------------------------------------------------------ */

static void
xen_evtchns_close(struct hv_evtchns *e)
{
    if (e) {
        xenevtchn_close(e->evtchn); /* the kernel unbinds what is bound */
        free(e);
    }
}

static int
xen_evtchns_open(struct hv *hv, struct hv_evtchns **ep)
{
    struct xen_hv *xen = (struct xen_hv *)hv;
    struct hv_evtchns *e = malloc(sizeof *e);

    if (!e) {
        return ENOMEM;
    }
    e->evtchn = xenevtchn_open(&xen->quiet, 0);
    if (!e->evtchn) {
        int error = errno;

        free(e);
        return error;
    }
    int fd = xenevtchn_fd(e->evtchn);
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK)) {
        int error = errno;

        xen_evtchns_close(e);
        return error;
    }
    *ep = e;
    return 0;
}

static int
xen_evtchn_bind(struct hv_evtchns *e, uint16_t domid, uint32_t remote_port, uint32_t *port)
{
    int local = xenevtchn_bind_interdomain(e->evtchn, domid, remote_port);

    if (local < 0) {
        return errno;
    }
    *port = local;
    return 0;
}

static void
xen_evtchn_unbind(struct hv_evtchns *e, uint32_t port)
{
    xenevtchn_unbind(e->evtchn, port);
}

static void
xen_evtchn_notify(struct hv_evtchns *e, uint32_t port)
{
    xenevtchn_notify(e->evtchn, port);
}

static int
xen_evtchn_fd(struct hv_evtchns *e)
{
    return xenevtchn_fd(e->evtchn);
}

static unsigned
xen_evtchn_take(struct hv_evtchns *e, uint32_t *ports, unsigned max)
{
    /* libxenevtchn has a system call for each port, and two more to ask
     * whether there is one.  The device hands out and unmasks any number at
     * once (xen/sys/evtchn.h). */
    int fd = xenevtchn_fd(e->evtchn);
    ssize_t got = read(fd, ports, max * sizeof *ports);

    if (got <= 0) {
        return 0;
    }
    while (write(fd, ports, got) < 0 && errno == EINTR) {
    }
    return got / sizeof *ports;
}

/* --- store and clock ------------------------------------------------------ */

static int
xen_store_open(struct hv *hv, struct xs_handle **xs)
{
    *xs = xs_open(0);
    return *xs ? 0 : errno;
}

/* Where the kernel's xen-netback is loaded it takes the vifs that come, or
 * (xen-backend/drivers_autoprobe is 0) those that somebody binds to it.  Two
 * backends for one vif would be a mess: those it has are its own, and of new
 * ones only those with our hotplug script are ours.  What somebody serves and
 * the kernel does not, we do, or did until a moment ago. */
static bool
xen_vif_is_ours(struct hv *hv, uint16_t domid, uint32_t handle, bool fresh, const char *script)
{
    const char *name = script ? strrchr(script, '/') : NULL;
    char driver[80];

    if (access(BACKEND_BUS "/drivers/vif", F_OK)) {
        return true;
    }
    snprintf(driver, sizeof driver, BACKEND_BUS "/devices/vif-%" PRIu16 "-%" PRIu32 "/driver",
             domid, handle);
    if (!access(driver, F_OK)) {
        return false;
    }
    name = name ? name + 1 : script;
    return !fresh || (name && !strcmp(name, "vif-weft"));
}

static uint64_t
xen_now_ns(struct hv *hv)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

static const struct hv_ops xen_ops = {
    .name = "xen",
    .copies_by_page = true, /* gntdev pins a page and makes a copy of each part */
    .close = xen_close,
    .grants_open = xen_grants_open,
    .grants_close = xen_grants_close,
    .grant_copy = xen_grant_copy,
    .grant_map = xen_grant_map,
    .grant_unmap = xen_grant_unmap,
    .evtchns_open = xen_evtchns_open,
    .evtchns_close = xen_evtchns_close,
    .evtchn_bind = xen_evtchn_bind,
    .evtchn_unbind = xen_evtchn_unbind,
    .evtchn_notify = xen_evtchn_notify,
    .evtchn_fd = xen_evtchn_fd,
    .evtchn_take = xen_evtchn_take,
    .store_open = xen_store_open,
    .vif_is_ours = xen_vif_is_ours,
    .now_ns = xen_now_ns,
};

/* Stages, if this domain's number (0, unless it is a driver domain) is known: pages
 * granted to another one would be that one's. */
static struct xen_stages *
open_stages(struct xen_hv *xen, struct xs_handle *xs)
{
    char *text = xs_read(xs, XBT_NULL, "domid", NULL), *end = text;
    unsigned long domid = text ? strtoul(text, &end, 10) : 0;
    bool known = text && end != text && !*end && domid < DOMID_FIRST_RESERVED;

    free(text);
    return known ? xen_stages_open(&xen->quiet, (uint16_t)domid) : NULL;
}

/* Opens and closes each device once, so that a machine without Xen is told
 * here and not at the first guest. */
static int
probe(struct xen_hv *xen, char *why, size_t why_size)
{
    static const char hint[] = "run in a Xen dom0 as root with the modules xen-gntdev and "
                               "xen-evtchn loaded, or use \"local:DIR\" with weft-localxen";
    struct hv_evtchns *evtchns = NULL;
    struct hv_grants *grants = NULL;
    struct xs_handle *xs = NULL;
    int error;

    error = xen_grants_open(&xen->hv, &grants);
    if (error) {
        snprintf(why, why_size, "cannot open /dev/xen/gntdev (%s): %s", strerror(error), hint);
        return error;
    }
    xen_grants_close(grants);
    error = xen_evtchns_open(&xen->hv, &evtchns);
    if (error) {
        snprintf(why, why_size, "cannot open /dev/xen/evtchn (%s): %s", strerror(error), hint);
        return error;
    }
    xen_evtchns_close(evtchns);
    error = xen_store_open(&xen->hv, &xs);
    if (error) {
        snprintf(why, why_size, "cannot reach xenstore (%s): start xenstored", strerror(error));
        return error;
    }
    xen->stages = open_stages(xen, xs);
    xs_close(xs);
    return 0;
}

int
hv_xen_open(struct hv **hvp, char *why, size_t why_size)
{
    struct xen_hv *xen = calloc(1, sizeof *xen);
    int error;

    *hvp = NULL;
    if (!xen) {
        snprintf(why, why_size, "out of memory");
        return ENOMEM;
    }
    xen->hv.ops = &xen_ops;
    xen->quiet.vmessage = quiet_message;
    xen->quiet.progress = quiet_progress;
    xen->quiet.destroy = quiet_destroy;
    error = probe(xen, why, why_size);
    if (error) {
        free(xen);
        return error;
    }
    *hvp = &xen->hv;
    return 0;
}
