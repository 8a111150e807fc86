#include "http_serve.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "http_listen.h"
#include "http_priv.h"

enum { LOOK_MS = 1000, END_MS = 500, PATH_LENGTH = 512 };

int64_t
http_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- a request, in its listener's thread --------------------------------------------- */

void *
http_aux(const struct http_request *q)
{
    return q->server->config.aux;
}

const char *
http_header(const struct http_request *q, const char *name)
{
    return MHD_lookup_connection_value(q->mhd, MHD_HEADER_KIND, name);
}

struct each_arg {
    bool (*each)(void *aux, const char *name, const char *value);
    void *aux;
    bool ok;
};

static enum MHD_Result
one_arg(void *each_, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct each_arg *each = each_;

    each->ok = each->each(each->aux, name, value);
    return each->ok ? MHD_YES : MHD_NO;
}

bool
http_each_arg(const struct http_request *q,
              bool (*each)(void *aux, const char *name, const char *value), void *aux)
{
    struct each_arg all = {each, aux, true};

    MHD_get_connection_values(q->mhd, MHD_GET_ARGUMENT_KIND, one_arg, &all);
    return all.ok;
}

void
http_put(struct http_request *q, int status, char *text)
{
    free(q->text);
    q->text = text;
    q->status = text ? status : 500;
    q->answered = true;
}

static enum MHD_Result
send_answer(struct http_request *q)
{
    size_t n = q->text ? strlen(q->text) : 0;
    struct MHD_Response *response = MHD_create_response_from_buffer(
        n, q->text, q->text ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    enum MHD_Result result;

    if (!response) {
        return MHD_NO;
    }
    q->text = NULL;
    MHD_add_response_header(response, "Content-Type", "application/json");
    MHD_add_response_header(response, "Cache-Control", "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (q->allow) {
        MHD_add_response_header(response, "Allow", q->allow);
    }
    if (q->status == 401) {
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    }
    if (q->status >= 400) { /* what follows of its body is not read */
        MHD_add_response_header(response, "Connection", "close");
    }
    http_conn_deadline(q->conn, HTTP_SEND_MS);
    result = MHD_queue_response(q->mhd, (unsigned)q->status, response);
    MHD_destroy_response(response);
    return result;
}

static void
drop_body(struct http_request *q)
{
    atomic_fetch_sub(&q->server->bodies_bytes, q->cap_body);
    free(q->body);
    q->body = NULL;
    q->n_body = q->cap_body = 0;
}

/* False: whoever sends more than he may is cut off. */
static bool
too_much(struct http_request *q, int status)
{
    if (!q->server->config.too_much) {
        return false;
    }
    drop_body(q);
    q->server->config.too_much(q, status);
    return true;
}

static bool
take_body(struct http_request *q, const char *data, size_t n)
{
    if (q->answered) {
        return true;
    }
    if (n > q->max_body - q->n_body) {
        return too_much(q, 413);
    }
    if (q->n_body + n > q->cap_body) {
        struct http_server *h = q->server;
        size_t cap = q->cap_body ? q->cap_body * 2 : 4096;
        cap = cap < q->n_body + n ? q->n_body + n : cap;
        size_t more = cap - q->cap_body;
        char *body;
        if (atomic_fetch_add(&h->bodies_bytes, more) + more > h->config.max_bodies ||
            !(body = realloc(q->body, cap))) {
            atomic_fetch_sub(&h->bodies_bytes, more);
            return too_much(q, 503);
        }
        q->body = body;
        q->cap_body = cap;
    }
    memcpy(q->body + q->n_body, data, n);
    q->n_body += n;
    return true;
}

static bool
enqueue(struct http_server *h, struct http_request *q)
{
    uint64_t one = 1;
    bool open;

    pthread_mutex_lock(&h->mutex);
    open = !h->closing;
    if (open) {
        q->next = NULL;
        *(h->last ? &h->last->next : &h->first) = q;
        h->last = q;
        /* The counter cannot overflow: whatever is left of it is read at once. */
        (void)!write(h->event, &one, sizeof one);
    }
    pthread_mutex_unlock(&h->mutex);
    return open;
}

void
http_again(struct http_request *q)
{
    if (!enqueue(q->server, q)) {
        q->server->config.turn_away(q);
        http_resume(q);
    }
}

/* The request is whole: to the main loop with it. */
static enum MHD_Result
hand_over(struct http_request *q)
{
    struct http_server *h = q->server;
    bool good = h->config.whole(q);

    drop_body(q);
    if (!good) {
        return send_answer(q);
    }
    http_conn_deadline(q->conn, INT64_MAX);
    q->handed_over = true;
    atomic_fetch_add(&h->handed_over, 1);
    MHD_suspend_connection(q->mhd);
    if (!enqueue(h, q)) {
        h->config.turn_away(q);
        MHD_resume_connection(q->mhd);
    }
    return MHD_YES;
}

/* NULL: the connection closes. */
static struct http_request *
begin(struct http_listener *l, struct MHD_Connection *mhd, const char *path)
{
    struct http_conn *c = http_conn_of(mhd);
    struct http_request *q;

    if (!c) {
        return NULL;
    }
    http_conn_identify(c, mhd);
    if (!http_conn_good(c, mhd) || !(q = calloc(1, l->server->config.request_size))) {
        return NULL;
    }
    q->path = strndup(path, PATH_LENGTH);
    if (!q->path) {
        free(q);
        return NULL;
    }
    http_conn_deadline(c, l->server->config.body_ms);
    q->server = l->server;
    q->conn = c;
    q->mhd = mhd;
    q->peer = &c->peer;
    q->tokens = l->tokens;
    q->max_body = l->server->config.max_body;
    return q;
}

static enum MHD_Result
handle(void *listener, struct MHD_Connection *mhd, const char *path, const char *method,
       const char *version, const char *data, size_t *n_data, void **context)
{
    struct http_request *q = *context;

    if (!q) {
        q = *context = begin(listener, mhd, path);
        if (!q) {
            return MHD_NO;
        }
        return q->server->config.head(q, method) ? MHD_YES : send_answer(q);
    }
    if (*n_data) {
        bool taken = take_body(q, data, *n_data);
        *n_data = 0;
        return taken ? MHD_YES : MHD_NO;
    }
    return q->answered ? send_answer(q) : hand_over(q);
}

static void
completed(void *listener, struct MHD_Connection *mhd, void **context,
          enum MHD_RequestTerminationCode why)
{
    struct http_request *q = *context;

    if (q) {
        *context = NULL;
        http_conn_deadline(q->conn, q->server->config.keep_ms);
        atomic_fetch_sub(&q->server->handed_over, q->handed_over);
        drop_body(q);
        q->server->config.discard(q);
        free(q->text);
        free(q->path);
        free(q);
    }
}

/* --- the main loop ------------------------------------------------------------------- */

struct http_request *
http_take(struct http_server *h)
{
    struct http_request *q;

    pthread_mutex_lock(&h->mutex);
    q = h->first;
    h->first = h->last = NULL;
    pthread_mutex_unlock(&h->mutex);
    return q;
}

void
http_resume(struct http_request *q)
{
    MHD_resume_connection(q->mhd);
}

void
http_answer(struct http_request *q, int status, char *text)
{
    http_put(q, status, text);
    http_resume(q);
}

void
http_run(struct http_server *h)
{
    int64_t now = http_now_ms();
    char why[300], line[360];
    uint64_t count;

    (void)!read(h->event, &count, sizeof count);
    if (now < h->next_look_ms) {
        return;
    }
    h->next_look_ms = now + LOOK_MS;
    for (size_t i = 0; i < h->n_listeners; i++) {
        http_conn_reap(&h->listeners[i], now);
    }
    switch (h->tls ? http_tls_refresh(h->tls, why, sizeof why) : 0) {
    case 1:
        h->config.log(h->config.aux, false, "new certificates are in use");
        break;
    case -1:
        snprintf(line, sizeof line, "new certificates cannot be used, the old ones stay: %s", why);
        h->config.log(h->config.aux, true, line);
        break;
    }
}

int
http_fd(const struct http_server *h)
{
    return h->event;
}

int64_t
http_until_ms(const struct http_server *h)
{
    return h->next_look_ms;
}

/* --- life ------------------------------------------------------------------------------ */

static struct MHD_Daemon *
start(struct http_listener *l, int fd)
{
    unsigned flags = MHD_USE_EPOLL | MHD_USE_INTERNAL_POLLING_THREAD | MHD_ALLOW_SUSPEND_RESUME |
                     (l->tls ? MHD_USE_TLS : 0);
    /* http_tls_attach() gives each session its own credentials; those of the
     * daemon are never used, but it insists on a source of some. */
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)HTTP_TLS_PRIORITIES},
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)(intptr_t)http_tls_no_certificate},
        {MHD_OPTION_END, 0, NULL},
    };
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};

    return MHD_start_daemon(flags, 0, http_conn_accept, l, handle, l, MHD_OPTION_LISTEN_SOCKET, fd,
                            MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS + 200,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)32 << 10,
                            MHD_OPTION_NOTIFY_CONNECTION, http_conn_notify, l,
                            MHD_OPTION_NOTIFY_COMPLETED, completed, l, MHD_OPTION_ARRAY,
                            l->tls ? tls : none, MHD_OPTION_END);
}

static void
close_listener(struct http_listener *l)
{
    if (l->mhd) {
        MHD_stop_daemon(l->mhd); /* its socket, too, unless quiesced */
    }
    if (l->quiesced >= 0) {
        close(l->quiesced);
    }
    if (l->path) {
        unlink(l->path);
    }
    http_limit_destroy(l->limit);
    pthread_mutex_destroy(&l->mutex);
    free(l->path);
}

static bool
is(const char *address, const char *kind)
{
    return !strncmp(address, kind, strlen(kind));
}

static int
listen_at(struct http_listener *l, const char *address, int *fd)
{
    int error = EINVAL;

    if (is(address, "ssl:")) {
        l->tls = true;
        error = http_listen_tcp(address + 4, fd);
    } else if (l->server->config.tokens && is(address, "token:")) {
        l->tls = l->tokens = true;
        error = http_listen_tcp(address + 6, fd);
    } else if (is(address, "unix:") && address[5]) {
        error = http_listen_unix(address + 5, fd);
        if (!error && !(l->path = strdup(address + 5))) {
            error = ENOMEM;
        }
    }
    return error;
}

static int
open_listener(struct http_server *h, struct http_listener *l, const char *address, char *why,
              size_t why_size)
{
    int fd = -1, error;

    *l = (struct http_listener){.server = h, .quiesced = -1};
    pthread_mutex_init(&l->mutex, NULL);
    l->limit = http_limit_create();
    error = l->limit ? listen_at(l, address, &fd) : ENOMEM;
    if (!error && !(l->mhd = start(l, fd))) {
        error = EIO;
    }
    if (error) {
        snprintf(why, why_size, "cannot listen on %s: %s%s", address,
                 error == EINVAL ? "neither unix:PATH nor ssl:PORT[:IP]" : strerror(error),
                 error == EINVAL && h->config.tokens ? " nor token:PORT[:IP]" : "");
        if (fd >= 0) {
            close(fd);
        }
        close_listener(l);
    }
    return error;
}

int
http_create(const struct http_config *config, struct http_server **hp, char *why, size_t why_size)
{
    struct http_server *h = calloc(1, sizeof *h);
    bool tls = false;
    int error = 0;

    *hp = NULL;
    if (!h || !(h->listeners = calloc(config->n_listen + 1, sizeof *h->listeners))) {
        free(h);
        snprintf(why, why_size, "out of memory");
        return ENOMEM;
    }
    h->config = *config;
    h->config.head_ms = config->head_ms ? config->head_ms : HTTP_HEAD_MS;
    pthread_mutex_init(&h->mutex, NULL);
    h->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (h->event < 0) {
        error = errno;
        snprintf(why, why_size, "eventfd: %s", strerror(error));
    }
    for (size_t i = 0; i < config->n_listen; i++) {
        tls |= is(config->listen[i], "ssl:") || (config->tokens && is(config->listen[i], "token:"));
    }
    if (!error && tls) {
        error = http_tls_create(config->private_key, config->certificate, config->ca_cert,
                                config->crl, &h->tls, why, why_size);
    }
    for (size_t i = 0; !error && i < config->n_listen; i++) {
        error = open_listener(h, &h->listeners[i], config->listen[i], why, why_size);
        h->n_listeners += !error;
    }
    if (error) {
        http_destroy(h);
        return error;
    }
    *hp = h;
    return 0;
}

void
http_destroy(struct http_server *h)
{
    struct http_request *q, *next;

    if (!h) {
        return;
    }
    pthread_mutex_lock(&h->mutex);
    h->closing = true;
    pthread_mutex_unlock(&h->mutex);
    for (q = http_take(h); q; q = next) {
        next = q->next;
        h->config.turn_away(q);
        http_resume(q);
    }
    for (size_t i = 0; i < h->n_listeners; i++) {
        h->listeners[i].quiesced = MHD_quiesce_daemon(h->listeners[i].mhd);
    }
    /* What was answered is sent, if its client takes it. */
    for (int64_t end = http_now_ms() + END_MS;
         atomic_load(&h->handed_over) && http_now_ms() < end;) {
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
    for (size_t i = 0; i < h->n_listeners; i++) {
        close_listener(&h->listeners[i]);
    }
    http_tls_destroy(h->tls);
    if (h->event >= 0) {
        close(h->event);
    }
    pthread_mutex_destroy(&h->mutex);
    free(h->listeners);
    free(h);
}
