/* hv "local": the backend's side of weft-localxen; see local.h for the whole
 * and hv_local.h for the parts. */
#include "hv_local.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* --- domains --------------------------------------------------------------- */

static struct attached_domain **
bucket(struct local_hv *l, uint16_t domid)
{
    return &l->domains[domid % (sizeof l->domains / sizeof l->domains[0])];
}

static bool
is_dead(const struct attached_domain *d)
{
    return __atomic_load_n(&d->view.state->dead, __ATOMIC_ACQUIRE);
}

/* Asks the broker for the domain and maps it.  Caller holds 'l->lock'. */
static int
attach_new(struct local_hv *l, uint16_t domid, struct attached_domain **dp)
{
    struct local_req req = {.op = LOCAL_OP_ATTACH, .domid = domid};
    struct attached_domain *d;
    struct local_rep rep;
    int error, fds[2];

    d = calloc(1, sizeof *d);
    if (!d) {
        return ENOMEM;
    }
    error = local_rpc_call(&l->rpc, &req, 0, &rep, fds, 2);
    if (error) {
        free(d);
        return error;
    }
    error = local_view_map(&d->view, fds[0], fds[1], rep.a, rep.b);
    close(fds[1]);
    if (error) {
        close(fds[0]);
        free(d);
        return error;
    }
    d->domid = domid;
    d->generation = rep.generation;
    d->guest_fd = fds[0];
    d->next = *bucket(l, domid);
    *bucket(l, domid) = d;
    *dp = d;
    return 0;
}

int
hv_local_attach(struct local_hv *l, uint16_t domid, struct attached_domain **dp)
{
    struct attached_domain *d;
    int error = 0;

    pthread_mutex_lock(&l->lock);
    for (d = *bucket(l, domid); d; d = d->next) {
        if (d->domid == domid && !is_dead(d)) {
            break;
        }
    }
    if (!d) {
        error = attach_new(l, domid, &d);
    }
    if (!error) {
        d->refs++;
        *dp = d;
    }
    pthread_mutex_unlock(&l->lock);
    return error;
}

void
hv_local_detach(struct local_hv *l, struct attached_domain *d)
{
    pthread_mutex_lock(&l->lock);
    if (--d->refs) {
        d = NULL;
    } else {
        struct attached_domain **link = bucket(l, d->domid);

        while (*link != d) {
            link = &(*link)->next;
        }
        *link = d->next;
    }
    pthread_mutex_unlock(&l->lock);
    if (d) {
        local_view_unmap(&d->view);
        close(d->guest_fd);
        free(d);
    }
}

/* --- store, clock, life ------------------------------------------------------- */

/* There is no other backend. */
static bool
vif_is_ours(struct hv *hv, uint16_t domid, uint32_t handle, bool fresh, const char *script)
{
    return true;
}

static int
store_open(struct hv *hv, struct xs_handle **xs)
{
    return local_xs_open(((struct local_hv *)hv)->dir, "xenstored", xs);
}

uint64_t
hv_local_now_ns(struct hv *hv)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

static void
close_hv(struct hv *hv)
{
    struct local_hv *l = (struct local_hv *)hv;

    local_rpc_close(&l->rpc);
    munmap((void *)l->host, LOCAL_PAGE);
    pthread_mutex_destroy(&l->lock);
    free(l->dir);
    free(l);
}

static const struct hv_ops local_ops = {
    .name = "local",
    .close = close_hv,
    .grants_open = hv_local_grants_open,
    .grants_close = hv_local_grants_close,
    .grant_copy = hv_local_grant_copy,
    .grant_map = hv_local_grant_map,
    .grant_unmap = hv_local_grant_unmap,
    .evtchns_open = hv_local_evtchns_open,
    .evtchns_close = hv_local_evtchns_close,
    .evtchn_bind = hv_local_evtchn_bind,
    .evtchn_unbind = hv_local_evtchn_unbind,
    .evtchn_notify = hv_local_evtchn_notify,
    .evtchn_fd = hv_local_evtchn_fd,
    .evtchn_take = hv_local_evtchn_take,
    .store_open = store_open,
    .vif_is_ours = vif_is_ours,
    .now_ns = hv_local_now_ns,
};

/* Introduces us to the broker as a backend. */
static int
say_hello(struct local_hv *l)
{
    struct local_req req = {.op = LOCAL_OP_BACKEND};
    struct local_rep rep;
    int error, fd;

    error = local_rpc_call(&l->rpc, &req, 0, &rep, &fd, 1);
    if (error) {
        return error;
    }
    void *page = mmap(NULL, LOCAL_PAGE, PROT_READ, MAP_SHARED, fd, 0);
    error = page == MAP_FAILED ? errno : 0;
    close(fd);
    if (!error) {
        l->host = page;
    }
    return error;
}

int
hv_local_open(const char *dir, struct hv **hvp, char *why, size_t why_size)
{
    struct local_hv *l = calloc(1, sizeof *l);
    int error = ENOMEM;

    *hvp = NULL;
    if (!l || !(l->dir = strdup(dir))) {
        snprintf(why, why_size, "out of memory");
        goto err_free;
    }
    error = local_rpc_open(&l->rpc, dir);
    if (error) {
        snprintf(why, why_size,
                 "no weft-localxen serves %.200s (%s): start \"weft-localxen --dir %.200s\"", dir,
                 strerror(error), dir);
        goto err_free;
    }
    error = say_hello(l);
    if (error) {
        snprintf(why, why_size, "weft-localxen at %.200s does not answer (%s): restart it", dir,
                 strerror(error));
        goto err_rpc;
    }
    pthread_mutex_init(&l->lock, NULL);
    l->hv.ops = &local_ops;
    l->cost_ns = hv_grant_cost_ns();
    *hvp = &l->hv;
    return 0;

err_rpc:
    local_rpc_close(&l->rpc);
err_free:
    if (l) {
        free(l->dir);
    }
    free(l);
    return error;
}
