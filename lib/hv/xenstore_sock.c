/* See xenstore_sock.h. */
#include "xenstore_sock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "xenstore.h"

/* Connections that one domain may have at a time. */
#define MAX_DOMAIN_CONNS 16u

struct xenstore_conn {
    struct local_source source;
    struct xenstore_listener *listener;
    struct xenstore_client *client;
    struct xenstore_conn *next, **link; /* of the listener */
    struct xenstore_conn *next_to_flush;
    bool to_flush;
};

struct xenstore_listener {
    struct local_source source;
    struct xenstore_server *server;
    struct sockaddr_un address;
    uint16_t domid;
    unsigned n_conns;
    struct xenstore_conn *conns;
};

struct xenstore_server {
    struct local_loop *loop;
    char *dir;
    struct xenstore *store;
    struct xenstore_listener *dom0;
    struct xenstore_conn *to_flush; /* have something to send */
    void (*log)(void *ctx, const char *line);
    void *log_ctx;
};

/* --- connections --------------------------------------------------------------- */

static void
destroy_conn(struct xenstore_conn *c)
{
    struct xenstore_server *s = c->listener->server;

    for (struct xenstore_conn **link = &s->to_flush; c->to_flush && *link;
         link = &(*link)->next_to_flush) {
        if (*link == c) {
            *link = c->next_to_flush;
            break;
        }
    }
    local_loop_remove(s->loop, &c->source);
    close(c->source.fd);
    xenstore_client_destroy(c->client);
    *c->link = c->next;
    if (c->next) {
        c->next->link = c->link;
    }
    c->listener->n_conns--;
    free(c);
}

static void
cut_off(struct xenstore_conn *c, const char *why)
{
    struct xenstore_server *s = c->listener->server;
    char line[128];

    snprintf(line, sizeof line, "xenstore client of domain %u: %s: cut off", c->listener->domid,
             why);
    s->log(s->log_ctx, line);
    destroy_conn(c);
}

/* A client has something to send.  Called in the middle of requests. */
static void
wake(void *conn)
{
    struct xenstore_conn *c = conn;
    struct xenstore_server *s = c->listener->server;

    if (!c->to_flush) {
        c->to_flush = true;
        c->next_to_flush = s->to_flush;
        s->to_flush = c;
    }
}

/* Sends as much as goes, and says what to wait for.  Returns false if the
 * connection is no more. */
static bool
flush(struct xenstore_conn *c)
{
    const void *bytes;
    size_t len, room;

    while ((bytes = xenstore_client_output(c->client, &len))) {
        ssize_t n = send(c->source.fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            break;
        }
        if (n < 0) {
            destroy_conn(c);
            return false;
        }
        if (xenstore_client_sent(c->client, n)) {
            break; /* and there is a fault */
        }
    }
    if (xenstore_client_fault(c->client)) {
        cut_off(c, xenstore_client_fault(c->client));
        return false;
    }
    xenstore_client_space(c->client, &room);
    local_loop_want(c->listener->server->loop, &c->source,
                    (room ? EPOLLIN : 0) | (bytes ? EPOLLOUT : 0));
    return true;
}

static void
conn_ready(struct local_source *source, uint32_t events)
{
    struct xenstore_conn *c = (struct xenstore_conn *)source;
    size_t room;
    void *space;

    if (events & EPOLLERR || (events & EPOLLHUP && !(events & EPOLLIN))) {
        destroy_conn(c);
        return;
    }
    space = xenstore_client_space(c->client, &room);
    if (events & EPOLLIN && room) {
        /* One read a turn, so that a busy client does not starve others. */
        ssize_t n = recv(source->fd, space, room, MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            destroy_conn(c);
            return;
        }
        if (n > 0) {
            xenstore_client_received(c->client, n); /* a fault is seen by flush() */
        }
    }
    flush(c);
}

void
xenstore_server_flush(struct xenstore_server *s)
{
    while (s->to_flush) {
        struct xenstore_conn *c = s->to_flush;

        s->to_flush = c->next_to_flush;
        c->to_flush = false;
        flush(c);
    }
}

/* --- listeners ------------------------------------------------------------------- */

static void
listener_ready(struct local_source *source, uint32_t events)
{
    struct xenstore_listener *l = (struct xenstore_listener *)source;
    struct xenstore_conn *c;
    int fd;

    fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE) {
            usleep(10000); /* the listener stays readable */
        }
        return;
    }
    if (l->domid && l->n_conns >= MAX_DOMAIN_CONNS) {
        close(fd);
        return;
    }
    c = calloc(1, sizeof *c);
    if (!c || !(c->client = xenstore_client_create(l->server->store, l->domid, c))) {
        free(c);
        close(fd);
        return;
    }
    c->source = (struct local_source){.fd = fd, .ready = conn_ready};
    c->listener = l;
    c->next = l->conns;
    c->link = &l->conns;
    if (c->next) {
        c->next->link = &c->next;
    }
    l->conns = c;
    l->n_conns++;
    if (local_loop_add(l->server->loop, &c->source, EPOLLIN)) {
        destroy_conn(c);
    }
}

static void
close_listener(struct xenstore_listener *l)
{
    if (!l) {
        return;
    }
    while (l->conns) {
        destroy_conn(l->conns);
    }
    local_loop_remove(l->server->loop, &l->source);
    close(l->source.fd);
    unlink(l->address.sun_path);
    free(l);
}

static int
open_listener(struct xenstore_server *s, const char *name, uint16_t domid,
              struct xenstore_listener **lp)
{
    struct xenstore_listener *l = calloc(1, sizeof *l);
    int error, fd;

    if (!l) {
        return ENOMEM;
    }
    l->server = s;
    l->domid = domid;
    l->address.sun_family = AF_UNIX;
    if (snprintf(l->address.sun_path, sizeof l->address.sun_path, "%s/%s", s->dir, name) >=
        sizeof l->address.sun_path) {
        free(l);
        return ENAMETOOLONG;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        error = errno;
        goto err_free;
    }
    l->source = (struct local_source){.fd = fd, .ready = listener_ready};
    unlink(l->address.sun_path);
    if (bind(fd, (struct sockaddr *)&l->address, sizeof l->address) ||
        chmod(l->address.sun_path, 0600) || listen(fd, SOMAXCONN)) {
        error = errno;
        goto err_close;
    }
    error = local_loop_add(s->loop, &l->source, EPOLLIN);
    if (error) {
        goto err_close;
    }
    *lp = l;
    return 0;

err_close:
    close(fd);
err_free:
    free(l);
    return error;
}

/* --- life ---------------------------------------------------------------------------- */

int
xenstore_server_open(struct local_loop *loop, const char *dir,
                     void (*log)(void *ctx, const char *line), void *ctx,
                     struct xenstore_server **sp)
{
    struct xenstore_server *s = calloc(1, sizeof *s);
    int error = ENOMEM;

    if (!s) {
        return ENOMEM;
    }
    s->loop = loop;
    s->log = log;
    s->log_ctx = ctx;
    s->dir = strdup(dir);
    s->store = xenstore_create(wake);
    if (s->dir && s->store) {
        error = open_listener(s, "xenstored", 0, &s->dom0);
    }
    if (error) {
        xenstore_server_close(s);
        return error;
    }
    *sp = s;
    return 0;
}

void
xenstore_server_close(struct xenstore_server *s)
{
    if (!s) {
        return;
    }
    close_listener(s->dom0);
    xenstore_destroy(s->store);
    free(s->dir);
    free(s);
}

int
xenstore_domain_add(struct xenstore_server *s, uint16_t domid, struct xenstore_listener **lp)
{
    char name[32];
    int error;

    snprintf(name, sizeof name, "dom%u-xenstored", domid);
    error = open_listener(s, name, domid, lp);
    if (!error) {
        xenstore_introduce(s->store, domid);
    }
    return error;
}

void
xenstore_domain_remove(struct xenstore_server *s, uint16_t domid, struct xenstore_listener *l)
{
    close_listener(l);
    xenstore_release(s->store, domid);
}
