/* The broker's event channels; see local_broker_impl.h.
 *
 * The broker owns both eventfds of a channel, so what a guest notifies while
 * no backend is there stays pending for the next one that binds. */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "local_broker_impl.h"

static struct broker_channel *
find_channel(struct broker_domain *d, uint32_t port)
{
    return port < d->n_channels ? d->channels[port] : NULL;
}

/* Finds a free port number of the domain, making room if need be. */
static int
new_port(struct broker_domain *d, uint32_t *port)
{
    uint32_t i;

    for (i = 1; i < d->n_channels; i++) {
        if (!d->channels[i]) {
            *port = i;
            return 0;
        }
    }
    if (d->n_channels == LOCAL_MAX_PORTS) {
        return ENOSPC;
    }
    uint32_t n = d->n_channels ? d->n_channels * 2 : 8;
    struct broker_channel **bigger = realloc(d->channels, n * sizeof *bigger);
    if (!bigger) {
        return ENOMEM;
    }
    for (i = d->n_channels; i < n; i++) {
        bigger[i] = NULL;
    }
    *port = d->n_channels ? d->n_channels : 1;
    d->channels = bigger;
    d->n_channels = n;
    return 0;
}

int
broker_evtchn_alloc(struct broker_domain *d, const struct local_req *req, struct broker_reply *r)
{
    struct broker_channel *c;
    uint32_t port;
    int error;

    if (req->domid > LOCAL_MAX_DOMID) {
        return ESRCH;
    }
    error = new_port(d, &port);
    if (error) {
        return error;
    }
    c = calloc(1, sizeof *c);
    if (!c) {
        return ENOMEM;
    }
    c->remote = req->domid;
    c->to_domain = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->to_backend = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->to_domain < 0 || c->to_backend < 0) {
        error = errno;
        if (c->to_domain >= 0) {
            close(c->to_domain);
        }
        free(c);
        return error;
    }
    d->channels[port] = c;
    r->rep->a = port;
    r->fds[0] = c->to_domain;
    r->fds[1] = c->to_backend;
    r->n_fds = 2;
    return 0;
}

int
broker_evtchn_close(struct broker_domain *d, uint32_t port)
{
    struct broker_channel *c = find_channel(d, port);

    if (!c) {
        return EINVAL;
    }
    if (c->local_port) {
        /* The backend keeps its port, with nothing at the other end. */
        d->broker->ports[c->local_port].domain = NULL;
    }
    close(c->to_domain);
    close(c->to_backend);
    free(c);
    d->channels[port] = NULL;
    return 0;
}

void
broker_evtchn_close_all(struct broker_domain *d)
{
    for (uint32_t port = 0; port < d->n_channels; port++) {
        broker_evtchn_close(d, port);
    }
    free(d->channels);
    d->channels = NULL;
    d->n_channels = 0;
}

/* --- dom0's ports ------------------------------------------------------------- */

/* Port numbers go round, so that one just unbound is not soon another. */
static int
new_local_port(struct local_broker *b, uint32_t *port)
{
    for (uint32_t i = 0; i < b->n_ports; i++) {
        uint32_t candidate = (b->next_port + i) % b->n_ports;

        if (candidate && !b->ports[candidate].conn) {
            b->next_port = candidate + 1;
            *port = candidate;
            return 0;
        }
    }
    uint32_t n = b->n_ports ? b->n_ports * 2 : 1024;
    struct broker_port *bigger = realloc(b->ports, n * sizeof *bigger);
    if (!bigger) {
        return ENOMEM;
    }
    for (uint32_t i = b->n_ports; i < n; i++) {
        bigger[i] = (struct broker_port){0};
    }
    *port = b->n_ports ? b->n_ports : 1;
    b->next_port = *port + 1;
    b->ports = bigger;
    b->n_ports = n;
    return 0;
}

int
broker_evtchn_bind(struct broker_conn *conn, const struct local_req *req, struct broker_reply *r)
{
    struct broker_domain *d = broker_domain_find(conn->broker, req->domid);
    struct broker_channel *c = d ? find_channel(d, req->a) : NULL;
    const uint64_t one = 1;
    uint32_t port;
    int error;

    if (!d) {
        return ESRCH;
    }
    if (!c || c->remote != LOCAL_BACKEND_DOMID) {
        return EINVAL;
    }
    if (c->local_port && (conn->broker->ports[c->local_port].conn == conn ||
                          !broker_conn_reap(conn->broker->ports[c->local_port].conn))) {
        return EINVAL; /* as Xen for a channel that is not unbound */
    }
    error = new_local_port(conn->broker, &port);
    if (error) {
        return error;
    }
    conn->broker->ports[port] =
        (struct broker_port){.conn = conn, .domain = d, .remote_port = req->a};
    c->local_port = port;
    /* As Xen: pending at once, for notifications may have been lost before. */
    if (write(c->to_backend, &one, sizeof one) < 0 && errno != EAGAIN) {
        broker_log(conn->broker, "event channel %u of domain %u: write failed", req->a, d->domid);
    }
    r->rep->a = port;
    r->fds[0] = c->to_backend;
    r->fds[1] = c->to_domain;
    r->n_fds = 2;
    return 0;
}

static void
unbind(struct local_broker *b, struct broker_port *p)
{
    struct broker_channel *c = p->domain ? find_channel(p->domain, p->remote_port) : NULL;

    if (c) {
        c->local_port = 0; /* unbound again, and bindable */
    }
    *p = (struct broker_port){0};
}

int
broker_evtchn_unbind(struct broker_conn *conn, uint32_t port)
{
    struct local_broker *b = conn->broker;

    if (port >= b->n_ports || b->ports[port].conn != conn) {
        return EINVAL;
    }
    unbind(b, &b->ports[port]);
    return 0;
}

void
broker_release_ports(struct broker_conn *conn)
{
    struct local_broker *b = conn->broker;

    for (uint32_t port = 0; port < b->n_ports; port++) {
        if (b->ports[port].conn == conn) {
            unbind(b, &b->ports[port]);
        }
    }
}
