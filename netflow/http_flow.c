/* Each listener is a libmicrohttpd daemon with a thread for each connection, as
 * many as there may be.  Who holds one open is bounded by a deadline for each
 * phase, however busily bytes trickle in: the first request, the taking of an
 * answer, the pause until the next request; a thread of ours shuts down the
 * sockets of who is late, and their own threads find them closed. */
#include "http_flow.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "flow_answer.h"
#include "http_listen.h"
#include "http_tls.h"

enum {
    LISTENERS = 8,
    CONNECTIONS = 64,
    OF_ONE_PEER = 16,
    FIRST_MS = 10000, /* from connecting to the first request */
    SEND_MS = 30000,  /* of a watch: each piece */
    KEEP_MS = 20000,
    TICK_MS = 1000,
};

struct conn {
    struct conn *next, **prevp;
    int fd;
    int64_t deadline_ms;
    struct http_creds *creds; /* NULL: no TLS */
};

struct listener {
    struct flow_service *service;
    struct http_flow *http;
    struct MHD_Daemon *mhd;
    char *path; /* of a Unix socket */
    bool tls;
};

struct http_flow {
    struct listener listeners[LISTENERS];
    size_t n;
    struct http_tls *tls;
    pthread_t reaper;
    bool reaping; /* 'reaper' runs */

    pthread_mutex_t mutex; /* guards those below */
    pthread_cond_t stopped;
    bool stop;
    struct conn *conns;
};

/* --- connections ---------------------------------------------------------------------- */

/* A clock that nobody sets. */
static int64_t
steady_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

static void
set_deadline(struct http_flow *h, struct conn *c, int64_t ms)
{
    if (c) {
        pthread_mutex_lock(&h->mutex);
        c->deadline_ms = ms == INT64_MAX ? ms : steady_ms() + ms;
        pthread_mutex_unlock(&h->mutex);
    }
}

static struct conn *
conn_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? info->socket_context : NULL;
}

static void
conn_started(struct listener *l, struct MHD_Connection *mhd, void **context)
{
    struct conn *c = calloc(1, sizeof *c);

    *context = c;
    if (!c) { /* no request of it will be answered */
        return;
    }
    c->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    c->deadline_ms = steady_ms() + FIRST_MS;
    if (l->tls) {
        c->creds = http_tls_attach(
            l->http->tls,
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION)->tls_session);
    }
    pthread_mutex_lock(&l->http->mutex);
    c->next = l->http->conns;
    c->prevp = &l->http->conns;
    if (c->next) {
        c->next->prevp = &c->next;
    }
    l->http->conns = c;
    pthread_mutex_unlock(&l->http->mutex);
}

static void
conn_closed(struct listener *l, struct conn *c)
{
    if (c) {
        pthread_mutex_lock(&l->http->mutex);
        *c->prevp = c->next;
        if (c->next) {
            c->next->prevp = c->prevp;
        }
        pthread_mutex_unlock(&l->http->mutex);
        http_tls_detach(c->creds);
        free(c);
    }
}

static void
notify_connection(void *listener, struct MHD_Connection *mhd, void **context,
                  enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        conn_started(listener, mhd, context);
    } else {
        conn_closed(listener, *context);
    }
}

static void
completed(void *listener, struct MHD_Connection *mhd, void **context,
          enum MHD_RequestTerminationCode why)
{
    set_deadline(((struct listener *)listener)->http, conn_of(mhd), KEEP_MS);
}

/* Shuts down who is late; certificates that have been replaced count for new
 * connections. */
static void *
reap(void *http)
{
    struct http_flow *h = http;
    char why[200];

    pthread_mutex_lock(&h->mutex);
    while (!h->stop) {
        struct timespec end;
        int64_t now = steady_ms();
        for (struct conn *c = h->conns; c; c = c->next) {
            if (c->deadline_ms < now) {
                shutdown(c->fd, SHUT_RDWR);
            }
        }
        if (h->tls && http_tls_refresh(h->tls, why, sizeof why) < 0) {
            fprintf(stderr, "weft-flowd: the old certificates stay: %s\n", why);
        }
        clock_gettime(CLOCK_MONOTONIC, &end);
        end.tv_sec += TICK_MS / 1000;
        pthread_cond_timedwait(&h->stopped, &h->mutex, &end);
    }
    pthread_mutex_unlock(&h->mutex);
    return NULL;
}

/* --- who asks ------------------------------------------------------------------------ */

static bool
may_read(const char *role)
{
    return !strcmp(role, "viewer") || !strcmp(role, "operator") || !strcmp(role, "admin");
}

static bool
allowed(struct listener *l, struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *info;
    char cn[128], ou[128];

    if (l->tls) {
        info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_GNUTLS_SESSION);
        return info && http_tls_identity(info->tls_session, cn, sizeof cn, ou, sizeof ou) &&
               may_read(ou);
    }
    struct ucred cred;
    socklen_t size = sizeof cred;
    info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info && !getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) &&
           (cred.uid == 0 || cred.uid == geteuid());
}

/* --- answers --------------------------------------------------------------------------- */

static enum MHD_Result
send_text(struct MHD_Connection *c, int status, char *text)
{
    struct MHD_Response *r;
    enum MHD_Result result;

    r = text ? MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE) : NULL;
    if (!r) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(r, "Content-Type", "application/json");
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    result = MHD_queue_response(c, (unsigned)status, r);
    MHD_destroy_response(r);
    return result;
}

static const char *
get_arg(void *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, name);
}

/* --- watching: a line of JSON for each row, an empty one when there is none for a second --- */

struct watch {
    struct flow_service *service;
    struct http_flow *http;
    struct conn *conn;
    struct flow_watcher *watcher;
    char *text; /* what is not sent yet */
    size_t n, sent;
};

static void
more_lines(struct watch *w, const struct flow_row *rows, int n, uint64_t lost)
{
    FILE *f;

    free(w->text);
    w->text = NULL;
    w->n = w->sent = 0;
    f = open_memstream(&w->text, &w->n);
    if (!f) {
        return;
    }
    for (int i = 0; i < n; i++) {
        json_t *o = flow_answer_row(&rows[i], w->service->names);
        json_dumpf(o, f, JSON_COMPACT | JSON_PRESERVE_ORDER);
        fputc('\n', f);
        json_decref(o);
    }
    if (lost) {
        fprintf(f, "{\"lost\":%llu}\n", (unsigned long long)lost);
    }
    if (!n && !lost) {
        fputc('\n', f);
    }
    fclose(f);
}

static ssize_t
read_watch(void *watch, uint64_t position, char *to, size_t max)
{
    enum { AT_ONCE = 32 };
    struct watch *w = watch;
    struct flow_row rows[AT_ONCE];
    uint64_t lost;
    size_t n;

    set_deadline(w->http, w->conn, SEND_MS);
    if (w->sent == w->n) {
        int got = flow_watch_take(w->service, w->watcher, 1000, rows, AT_ONCE, &lost);
        if (got < 0) {
            return MHD_CONTENT_READER_END_OF_STREAM;
        }
        more_lines(w, rows, got, lost);
    }
    n = w->n - w->sent < max ? w->n - w->sent : max;
    if (!w->text || !n) {
        return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    memcpy(to, w->text + w->sent, n);
    w->sent += n;
    return (ssize_t)n;
}

static void
end_watch(void *watch)
{
    struct watch *w = watch;

    flow_watch_remove(w->service, w->watcher);
    free(w->text);
    free(w);
}

static enum MHD_Result
begin_watch(struct listener *l, struct MHD_Connection *c, const struct flow_args *args)
{
    struct flow_service *s = l->service;
    struct watch *w = calloc(1, sizeof *w);
    struct flow_filter *filter;
    struct MHD_Response *r;
    enum MHD_Result result;
    char *text = NULL;
    int status = 503, error;

    if (!w) {
        return MHD_NO;
    }
    *w = (struct watch){.service = s, .http = l->http, .conn = conn_of(c)};
    filter = flow_answer_filter(s, args, &status, &text);
    error = filter ? flow_watch_add(s, filter, &w->watcher) : EINVAL;
    if (error) {
        free(w);
        return send_text(c, filter ? 503 : status,
                         filter ? flow_answer_error("unavailable", NULL, "too many are watching")
                                : text);
    }
    r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_watch, w, end_watch);
    if (!r) {
        end_watch(w);
        return MHD_NO;
    }
    MHD_add_response_header(r, "Content-Type", "application/x-ndjson");
    result = MHD_queue_response(c, 200, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result
handle(void *listener, struct MHD_Connection *c, const char *path, const char *method,
       const char *version, const char *data, size_t *n_data, void **context)
{
    struct listener *l = listener;
    struct flow_args args = {get_arg, c};
    char *text;
    int status;

    if (!conn_of(c)) {
        return MHD_NO;
    }
    if (!allowed(l, c)) {
        return send_text(c, 403,
                         flow_answer_error("denied", NULL,
                                           "the certificate's OU must be viewer, operator or "
                                           "admin"));
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0) {
        return send_text(c, 405, flow_answer_error("bad_request", NULL, "only GET"));
    }
    if (MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Origin")) {
        return send_text(c, 403, flow_answer_error("denied", NULL, "no page of another origin"));
    }
    if (!strcmp(path, "/v1/watch")) {
        return begin_watch(l, c, &args);
    }
    set_deadline(l->http, conn_of(c), INT64_MAX);
    status = flow_answer(l->service, path, &args, &text);
    set_deadline(l->http, conn_of(c), SEND_MS);
    return send_text(c, status, text);
}

/* --- listening ---------------------------------------------------------------------------- */

static struct MHD_Daemon *
start(struct listener *l, int fd)
{
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION |
                     MHD_USE_POLL | (l->tls ? MHD_USE_TLS : 0);
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)HTTP_TLS_PRIORITIES},
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)(intptr_t)http_tls_no_certificate},
        {MHD_OPTION_PER_IP_CONNECTION_LIMIT, OF_ONE_PEER, NULL},
        {MHD_OPTION_END, 0, NULL},
    };
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};

    return MHD_start_daemon(
        flags, 0, NULL, NULL, handle, l, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)32 << 10,
        MHD_OPTION_NOTIFY_CONNECTION, notify_connection, l, MHD_OPTION_NOTIFY_COMPLETED, completed,
        l, MHD_OPTION_ARRAY, l->tls ? tls : none, MHD_OPTION_END);
}

static int
open_listener(struct http_flow *h, struct listener *l, const char *address, char *why, size_t size)
{
    const struct flow_service_config *c = &l->service->config;
    int fd = -1, error = EINVAL;

    if (!strncmp(address, "ssl:", 4)) {
        l->tls = true;
        if (!h->tls) {
            error = http_tls_create(c->private_key, c->certificate, c->ca_cert, c->crl, &h->tls,
                                    why, size);
            if (error) {
                return error;
            }
        }
        error = http_listen_tcp(address + 4, &fd);
    } else if (!strncmp(address, "unix:", 5) && address[5]) {
        error = http_listen_unix(address + 5, &fd);
        if (!error && !(l->path = strdup(address + 5))) {
            error = ENOMEM;
        }
    }
    if (!error && !(l->mhd = start(l, fd))) {
        error = EIO;
    }
    if (error) {
        snprintf(why, size, "cannot listen on %s: %s", address,
                 error == EINVAL ? "neither unix:PATH nor ssl:PORT[:IP]" : strerror(error));
        if (fd >= 0) {
            close(fd);
        }
    }
    return error;
}

int
http_flow_start(struct flow_service *s, struct http_flow **hp, char *why, size_t why_size)
{
    struct http_flow *h = calloc(1, sizeof *h);
    pthread_condattr_t attr;
    int error = h ? 0 : ENOMEM;

    *hp = NULL;
    if (h) {
        pthread_mutex_init(&h->mutex, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&h->stopped, &attr);
        pthread_condattr_destroy(&attr);
    }
    for (size_t i = 0; i < s->config.n_listen && !error; i++) {
        if (i == LISTENERS) {
            snprintf(why, why_size, "at most %d addresses", LISTENERS);
            error = EINVAL;
            break;
        }
        struct listener *l = &h->listeners[h->n++];
        *l = (struct listener){.service = s, .http = h};
        error = open_listener(h, l, s->config.listen[i], why, why_size);
    }
    if (!error) {
        error = pthread_create(&h->reaper, NULL, reap, h);
        h->reaping = !error;
    }
    if (error) {
        http_flow_stop(h);
        return error;
    }
    *hp = h;
    return 0;
}

void
http_flow_stop(struct http_flow *h)
{
    if (!h) {
        return;
    }
    pthread_mutex_lock(&h->mutex);
    h->stop = true;
    pthread_cond_signal(&h->stopped);
    pthread_mutex_unlock(&h->mutex);
    if (h->reaping) {
        pthread_join(h->reaper, NULL);
    }
    for (size_t i = 0; i < h->n; i++) {
        if (h->listeners[i].mhd) {
            MHD_stop_daemon(h->listeners[i].mhd); /* and its socket */
        }
        if (h->listeners[i].path) {
            unlink(h->listeners[i].path);
        }
        free(h->listeners[i].path);
    }
    http_tls_destroy(h->tls);
    pthread_cond_destroy(&h->stopped);
    pthread_mutex_destroy(&h->mutex);
    free(h);
}
