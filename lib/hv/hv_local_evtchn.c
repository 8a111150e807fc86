/* hv "local": event channels.
 *
 * A channel is a pair of eventfds that the broker keeps: one for each
 * direction.  A handle is an epoll set of the incoming ones, edge-triggered:
 * every write to an eventfd is an edge, so there is nothing to read back, a
 * notification costs the receiver one epoll_wait(), and many before that are
 * one.  A port that is bound anew is pending at once, as in Xen, because the
 * broker writes to it.
 *
 * The counter of an eventfd that is never read could only fill after 2^64
 * notifications, and is then still pending. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "hv_local.h"

struct channel {
    uint32_t port;
    int in, out;
};

struct hv_evtchns {
    struct local_hv *l;
    int epoll_fd;
    struct channel *channels; /* few: a queue's thread has two */
    unsigned n;
    unsigned cap;
};

int
hv_local_evtchns_open(struct hv *hv, struct hv_evtchns **ep)
{
    struct hv_evtchns *e = calloc(1, sizeof *e);

    if (!e) {
        return ENOMEM;
    }
    e->l = (struct local_hv *)hv;
    e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (e->epoll_fd < 0) {
        int error = errno;

        free(e);
        return error;
    }
    *ep = e;
    return 0;
}

void
hv_local_evtchns_close(struct hv_evtchns *e)
{
    if (!e) {
        return;
    }
    while (e->n) {
        hv_local_evtchn_unbind(e, e->channels[e->n - 1].port);
    }
    close(e->epoll_fd);
    free(e->channels);
    free(e);
}

static int
reserve(struct hv_evtchns *e)
{
    if (e->n == e->cap) {
        unsigned cap = e->cap ? e->cap * 2 : 4;
        struct channel *bigger = realloc(e->channels, cap * sizeof *bigger);

        if (!bigger) {
            return ENOMEM;
        }
        e->channels = bigger;
        e->cap = cap;
    }
    return 0;
}

static void
unbind_port(struct hv_evtchns *e, uint32_t port)
{
    struct local_req req = {.op = LOCAL_OP_UNBIND, .a = port};
    struct local_rep rep;

    local_rpc_call(&e->l->rpc, &req, 0, &rep, NULL, 0);
}

int
hv_local_evtchn_bind(struct hv_evtchns *e, uint16_t domid, uint32_t remote_port, uint32_t *port)
{
    struct local_req req = {.op = LOCAL_OP_BIND, .domid = domid, .a = remote_port};
    struct local_rep rep;
    int fds[2];
    int error;

    error = reserve(e);
    if (error) {
        return error;
    }
    error = local_rpc_call(&e->l->rpc, &req, 0, &rep, fds, 2);
    if (error) {
        return error;
    }
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u32 = rep.a};
    if (epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, fds[0], &ev)) {
        error = errno;
        close(fds[0]);
        close(fds[1]);
        unbind_port(e, rep.a);
        return error;
    }
    e->channels[e->n++] = (struct channel){.port = rep.a, .in = fds[0], .out = fds[1]};
    *port = rep.a;
    return 0;
}

static struct channel *
find(struct hv_evtchns *e, uint32_t port)
{
    for (unsigned i = 0; i < e->n; i++) {
        if (e->channels[i].port == port) {
            return &e->channels[i];
        }
    }
    return NULL;
}

void
hv_local_evtchn_unbind(struct hv_evtchns *e, uint32_t port)
{
    struct channel *c = find(e, port);

    if (!c) {
        return;
    }
    /* The broker and the guest have the eventfd open too, so closing ours
     * does not take it out of the set. */
    epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, c->in, NULL);
    close(c->in);
    close(c->out);
    *c = e->channels[--e->n];
    unbind_port(e, port);
}

void
hv_local_evtchn_notify(struct hv_evtchns *e, uint32_t port)
{
    const uint64_t one = 1;
    struct channel *c = find(e, port);

    /* A full counter means that a notification is pending anyway. */
    if (c && write(c->out, &one, sizeof one) < 0) {
        return;
    }
}

int
hv_local_evtchn_fd(struct hv_evtchns *e)
{
    return e->epoll_fd;
}

unsigned
hv_local_evtchn_take(struct hv_evtchns *e, uint32_t *ports, unsigned max)
{
    struct epoll_event ev[HV_PORTS_MAX];
    /* No more than asked for: what is not taken must keep the descriptor
     * readable. */
    int n = epoll_wait(e->epoll_fd, ev, max, 0);

    for (int i = 0; i < n; i++) {
        ports[i] = ev[i].data.u32;
    }
    return n < 0 ? 0 : n;
}
