/* Theory of operation.
 *
 * Each listener is one libmicrohttpd daemon with one thread and epoll.  A
 * stranger costs that thread time and memory, never the main loop:
 *
 *   - a bucket of connection attempts for each peer, before TLS;
 *   - REST_PEER_CONNECTIONS of a peer, REST_CONNECTIONS in all.  At either
 *     bound the oldest connection that has not yet made a request goes, so that
 *     holding connections open keeps nobody out;
 *   - a deadline for each phase, however busily bytes trickle in: the head, the
 *     body, the taking of the answer, the pause until the next request.  The
 *     main loop's rest_listener_reap() shuts overdue sockets down, and
 *     libmicrohttpd's thread finds them closed;
 *   - who may not do a thing is told so before the body is read; bodies are
 *     bounded, each and together.
 *
 * A whole request is parsed here, then its connection is suspended and the
 * request handed to the main loop; when that has answered it resumes the
 * connection and libmicrohttpd calls handle() once more. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "rest_json.h"
#include "rest_priv.h"

/* --- connections ------------------------------------------------------------------ */

/* With the listener's mutex. */
static void
shut(struct rest_conn *c)
{
    if (!c->closing) {
        c->closing = true;
        shutdown(c->fd, SHUT_RDWR);
    }
}

/* The oldest connection without a request, of the peer or of anyone (NULL). */
static bool
shut_a_stranger(struct rest_listener *l, const struct sockaddr *peer)
{
    for (struct rest_conn *c = l->first; c; c = c->next) {
        if (!c->known && !c->closing &&
            (!peer || rest_limit_same(peer, (struct sockaddr *)&c->peer))) {
            shut(c);
            return true;
        }
    }
    return false;
}

static enum MHD_Result
accept_policy(void *listener_, const struct sockaddr *peer, socklen_t length)
{
    struct rest_listener *l = listener_;
    bool ok;

    if (!l->tls) {
        return MHD_YES;
    }
    pthread_mutex_lock(&l->mutex);
    ok = rest_limit_try(l->limit, peer, rest_now_ms());
    pthread_mutex_unlock(&l->mutex);
    return ok ? MHD_YES : MHD_NO;
}

static void
conn_started(struct rest_listener *l, struct MHD_Connection *mhd, void **context)
{
    struct rest_conn *c = calloc(1, sizeof *c);
    const union MHD_ConnectionInfo *info;

    *context = c;
    if (!c) { /* no request of it will be answered */
        return;
    }
    c->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (info && info->client_addr && info->client_addr->sa_family == AF_INET6) {
        memcpy(&c->peer, info->client_addr, sizeof(struct sockaddr_in6));
    } else if (info && info->client_addr && info->client_addr->sa_family == AF_INET) {
        memcpy(&c->peer, info->client_addr, sizeof(struct sockaddr_in));
    }
    if (l->tls) {
        info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
        c->creds = rest_tls_attach(l->rest->tls, info->tls_session);
        if (l->tokens) {
            rest_tls_ask_nobody(info->tls_session);
        }
    }
    c->deadline_ms = rest_now_ms() + REST_HEAD_MS;

    pthread_mutex_lock(&l->mutex);
    unsigned n = rest_limit_enter(l->limit, (struct sockaddr *)&c->peer, rest_now_ms());
    bool over = false;
    if (l->tls && n > REST_PEER_CONNECTIONS) {
        over = !shut_a_stranger(l, (struct sockaddr *)&c->peer);
    } else if (l->n_conns >= REST_CONNECTIONS) {
        over = !shut_a_stranger(l, NULL);
    }
    c->prev = l->last;
    *(l->last ? &l->last->next : &l->first) = c;
    l->last = c;
    l->n_conns++;
    if (over) {
        shut(c);
    }
    pthread_mutex_unlock(&l->mutex);
}

static void
conn_closed(struct rest_listener *l, struct rest_conn *c)
{
    if (!c) {
        return;
    }
    pthread_mutex_lock(&l->mutex);
    *(c->prev ? &c->prev->next : &l->first) = c->next;
    *(c->next ? &c->next->prev : &l->last) = c->prev;
    l->n_conns--;
    rest_limit_leave(l->limit, (struct sockaddr *)&c->peer);
    pthread_mutex_unlock(&l->mutex);
    rest_tls_detach(c->creds);
    free(c);
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
conn_deadline(struct rest_request *q, int64_t ms)
{
    pthread_mutex_lock(&q->listener->mutex);
    q->conn->known = true;
    q->conn->deadline_ms = ms == INT64_MAX ? ms : rest_now_ms() + ms;
    pthread_mutex_unlock(&q->listener->mutex);
}

void
rest_listener_reap(struct rest_listener *l, int64_t now_ms)
{
    pthread_mutex_lock(&l->mutex);
    for (struct rest_conn *c = l->first; c; c = c->next) {
        if (c->deadline_ms < now_ms) {
            shut(c);
        }
    }
    pthread_mutex_unlock(&l->mutex);
}

/* --- who it is ---------------------------------------------------------------------- */

static void
identify_unix(struct rest_conn *c, struct rest_user *u)
{
    struct ucred cred;
    socklen_t size = sizeof cred;

    if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &size)) {
        return;
    }
    if (cred.uid == 0 || cred.uid == geteuid()) {
        u->role = POOL_ROLE_ADMIN;
    }
    snprintf(u->name, sizeof u->name, "uid:%u", (unsigned)cred.uid);
    snprintf(u->address, sizeof u->address, "unix#%u", (unsigned)cred.uid);
}

static void
identify_tls(struct rest_request *q)
{
    struct rest_conn *c = q->conn;
    char ip[INET6_ADDRSTRLEN] = "";
    unsigned port = 0;

    if (c->peer.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&c->peer;
        inet_ntop(AF_INET, &in->sin_addr, ip, sizeof ip);
        port = ntohs(in->sin_port);
    } else if (c->peer.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&c->peer;
        inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof ip);
        port = ntohs(in6->sin6_port);
    }
    snprintf(q->user.address, sizeof q->user.address, "%s#%u", ip, port);
    if (!c->identified && !q->listener->tokens) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(q->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
        c->identified =
            rest_tls_identity(info->tls_session, c->cn, sizeof c->cn, c->ou, sizeof c->ou);
    }
    if (c->identified) {
        rest_identify(q->listener->rest, c->cn, c->ou, &q->user);
    }
}

/* --- the head ------------------------------------------------------------------------- */

static bool
number_arg(struct rest_request *q, const char *name, enum rest_arg arg, int64_t max,
           struct rest_fault *fault)
{
    const char *text = MHD_lookup_connection_value(q->mhd, MHD_GET_ARGUMENT_KIND, name);
    char *end;

    q->args[arg] = -1;
    if (!text) {
        return true;
    }
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || *text < '0' || *text > '9' || v > max) {
        rest_fault_set(fault, 400, "invalid", NULL, name, "must be a number from 0 to %lld",
                       (long long)max);
        return false;
    }
    q->args[arg] = v;
    return true;
}

/* A page of another origin that uses a browser's certificate. */
static bool
cross_origin(struct rest_request *q)
{
    const char *origin = MHD_lookup_connection_value(q->mhd, MHD_HEADER_KIND, "Origin");
    const char *host = MHD_lookup_connection_value(q->mhd, MHD_HEADER_KIND, "Host");
    const char *authority = origin ? strstr(origin, "://") : NULL;

    return origin && (!authority || !host || strcmp(authority + 3, host) != 0);
}

static bool
body_allowed(struct rest_request *q, struct rest_fault *fault)
{
    const char *length = MHD_lookup_connection_value(q->mhd, MHD_HEADER_KIND, "Content-Length");
    const char *type = MHD_lookup_connection_value(q->mhd, MHD_HEADER_KIND, "Content-Type");
    bool chunked = MHD_lookup_connection_value(q->mhd, MHD_HEADER_KIND, "Transfer-Encoding");
    unsigned long long n = length ? strtoull(length, NULL, 10) : 0;

    if (n > q->route->max_body) {
        rest_fault_set(fault, 413, "too_large", NULL, NULL, "the body may have %zu bytes",
                       q->route->max_body);
        return false;
    }
    if ((n || chunked) && (!type || strncasecmp(type, "application/json", 16) != 0 ||
                           (type[16] && type[16] != ';' && type[16] != ' '))) {
        rest_fault_set(fault, 415, "bad_request", NULL, NULL,
                       "the body's Content-Type must be application/json");
        return false;
    }
    return true;
}

/* A token says who asks, whatever else does. */
static bool
identify_token(struct rest_request *q, const char *authorization, struct rest_fault *fault)
{
    struct rest *r = q->listener->rest;
    char user[129];

    q->user.role = POOL_ROLE_NONE;
    q->user.name[0] = '\0';
    if (strncasecmp(authorization, "Bearer ", 7) != 0 ||
        !rest_session_use(r->sessions, authorization + 7, rest_now_ms(), q->user.session, user)) {
        rest_fault_set(fault, 401, "denied", NULL, NULL,
                       "no session has this token: it has ended, or never was; \"weft login\" "
                       "begins one");
        return false;
    }
    rest_identify(r, user, "", &q->user);
    return true;
}

static bool
identify(struct rest_request *q, struct rest_fault *fault)
{
    const char *authorization =
        MHD_lookup_connection_value(q->mhd, MHD_HEADER_KIND, "Authorization");

    if (q->listener->tls) {
        identify_tls(q);
    } else {
        identify_unix(q->conn, &q->user);
    }
    if (authorization) {
        return identify_token(q, authorization, fault);
    }
    if (q->listener->tokens) {
        rest_fault_set(fault, 401, "denied", NULL, NULL,
                       "a session's token is needed here; \"weft login\" begins one");
    }
    return !q->listener->tokens;
}

static bool
head_ok(struct rest_request *q, const char *method, struct rest_fault *fault)
{
    if (!identify(q, fault)) {
        return false;
    }
    if (q->user.role == POOL_ROLE_NONE && *q->user.session) {
        rest_fault_set(fault, 403, "denied", NULL, NULL,
                       "user \"%.128s\" of this session is not there, or not enabled, any more",
                       q->user.name);
        return false;
    }
    if (q->user.role == POOL_ROLE_NONE) {
        rest_fault_set(fault, 403, "denied", NULL, NULL,
                       "no role: the certificate's name is no (enabled) user of the pool, and its "
                       "OU names no role");
        return false;
    }
    if (cross_origin(q)) {
        rest_fault_set(fault, 403, "denied", NULL, NULL, "requests of other origins are refused");
        return false;
    }
    return rest_route_find(q, method, fault) &&
           number_arg(q, "generation", REST_ARG_GENERATION, INT64_MAX, fault) &&
           number_arg(q, "timeout", REST_ARG_TIMEOUT, REST_WAIT_MAX_S, fault) &&
           number_arg(q, "confirm", REST_ARG_CONFIRM, REST_CONFIRM_MAX_S, fault) &&
           number_arg(q, "after", REST_ARG_AFTER, INT64_MAX, fault) &&
           number_arg(q, "seconds", REST_ARG_SECONDS, REST_SAMPLE_MAX_S, fault) &&
           body_allowed(q, fault);
}

/* --- the answer -------------------------------------------------------------------------- */

static enum MHD_Result
send_answer(struct rest_request *q)
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
    conn_deadline(q, REST_SEND_MS);
    result = MHD_queue_response(q->mhd, (unsigned)q->status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result
send_fault(struct rest_request *q, const struct rest_fault *fault)
{
    if (fault->status == 401 || fault->status == 403 || (q->route && q->route->change)) {
        rest_audit_request(q->listener->rest, q, fault, 0);
    }
    rest_put_fault(q, fault);
    return send_answer(q);
}

/* --- the body ------------------------------------------------------------------------------ */

static void
drop_body(struct rest_request *q)
{
    atomic_fetch_sub(&q->listener->rest->bodies_bytes, q->cap_body);
    free(q->body);
    q->body = NULL;
    q->n_body = q->cap_body = 0;
}

/* The rest of the body is read and thrown away, then this is the answer. */
static void
discard(struct rest_request *q, int status, const char *message)
{
    struct rest_fault fault;

    rest_fault_set(&fault, status, status == 413 ? "too_large" : "unavailable", NULL, NULL, "%s",
                   message);
    drop_body(q);
    rest_put_fault(q, &fault);
}

static void
take_body(struct rest_request *q, const char *data, size_t n)
{
    if (q->answered) {
        return;
    }
    if (n > q->route->max_body - q->n_body) {
        discard(q, 413, "the body is too large");
        return;
    }
    if (q->n_body + n > q->cap_body) {
        size_t cap = q->cap_body ? q->cap_body * 2 : 4096;
        cap = cap < q->n_body + n ? q->n_body + n : cap;
        size_t more = cap - q->cap_body;
        char *body;
        if (atomic_fetch_add(&q->listener->rest->bodies_bytes, more) + more > REST_BODIES_MAX ||
            !(body = realloc(q->body, cap))) {
            atomic_fetch_sub(&q->listener->rest->bodies_bytes, more);
            discard(q, 503, "too many requests are being read; try again");
            return;
        }
        q->body = body;
        q->cap_body = cap;
    }
    memcpy(q->body + q->n_body, data, n);
    q->n_body += n;
}

/* The request is whole: to the main loop with it. */
static enum MHD_Result
hand_over(struct rest_request *q)
{
    struct rest_fault fault;
    char why[200];

    if (q->n_body) {
        q->json = rest_json_parse(q->body, q->n_body, why, sizeof why);
        drop_body(q);
        if (!q->json) {
            rest_fault_set(&fault, 400, "bad_request", NULL, NULL, "%s", why);
            return send_fault(q, &fault);
        }
    }
    conn_deadline(q, INT64_MAX);
    q->handed_over = true;
    atomic_fetch_add(&q->listener->rest->handed_over, 1);
    MHD_suspend_connection(q->mhd);
    if (!rest_hand_over(q->listener->rest, q)) {
        rest_fault_set(&fault, 503, "unavailable", NULL, NULL, "the controller is going down");
        rest_put_fault(q, &fault);
        MHD_resume_connection(q->mhd);
    }
    return MHD_YES;
}

/* --- libmicrohttpd's callbacks ---------------------------------------------------------------- */

static struct rest_request *
begin(struct rest_listener *l, struct MHD_Connection *mhd, const char *path)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct rest_request *q;

    if (!info || !info->socket_context || !(q = calloc(1, sizeof *q))) {
        return NULL;
    }
    q->listener = l;
    q->conn = info->socket_context;
    q->mhd = mhd;
    q->path = strndup(path, 512);
    if (!q->path) {
        free(q);
        return NULL;
    }
    return q;
}

static enum MHD_Result
handle(void *listener, struct MHD_Connection *mhd, const char *path, const char *method,
       const char *version, const char *data, size_t *n_data, void **context)
{
    struct rest_request *q = *context;
    struct rest_fault fault;

    if (!q) {
        q = *context = begin(listener, mhd, path);
        if (!q) {
            return MHD_NO;
        }
        conn_deadline(q, REST_BODY_MS);
        return head_ok(q, method, &fault) ? MHD_YES : send_fault(q, &fault);
    }
    if (*n_data) {
        take_body(q, data, *n_data);
        *n_data = 0;
        return MHD_YES;
    }
    return q->answered ? send_answer(q) : hand_over(q);
}

static void
completed(void *listener, struct MHD_Connection *mhd, void **context,
          enum MHD_RequestTerminationCode why)
{
    struct rest_request *q = *context;

    if (q) {
        *context = NULL;
        conn_deadline(q, REST_KEEP_MS);
        atomic_fetch_sub(&q->listener->rest->handed_over, q->handed_over);
        drop_body(q);
        json_decref(q->json);
        free(q->text);
        free(q->path);
        free(q);
    }
}

/* --- listening ---------------------------------------------------------------------------------
 */

/* Of a socket that somebody answers, EADDRINUSE; what a dead process left is
 * removed. */
static int
bind_unix(int fd, const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct stat st;
    mode_t mask;
    int error = 0;

    if (strlen(path) >= sizeof sun.sun_path) {
        return ENAMETOOLONG;
    }
    strcpy(sun.sun_path, path);
    if (!lstat(path, &st) && S_ISSOCK(st.st_mode)) {
        int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool alive = probe >= 0 && !connect(probe, (struct sockaddr *)&sun, sizeof sun);
        if (probe >= 0) {
            close(probe);
        }
        if (alive) {
            return EADDRINUSE;
        }
        unlink(path);
    }
    mask = umask(0177);
    if (bind(fd, (struct sockaddr *)&sun, sizeof sun)) {
        error = errno;
    }
    umask(mask);
    return error;
}

/* "PORT" or "PORT:IP", IP in brackets or not. */
static int
parse_ssl(const char *text, struct sockaddr_storage *ss, socklen_t *length)
{
    char ip[INET6_ADDRSTRLEN + 2] = "::";
    char *end;
    unsigned long port = strtoul(text, &end, 10);
    struct sockaddr_in *in = (struct sockaddr_in *)ss;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;
    size_t n;

    memset(ss, 0, sizeof *ss);
    if (end == text || port > 65535 || (*end && *end != ':') || strlen(end) > sizeof ip) {
        return EINVAL;
    }
    if (*end) {
        end += end[1] == '[' ? 2 : 1;
        snprintf(ip, sizeof ip, "%s", end);
        n = strlen(ip);
        if (n && ip[n - 1] == ']') {
            ip[n - 1] = '\0';
        }
    }
    if (inet_pton(AF_INET, ip, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        *length = sizeof *in;
    } else if (inet_pton(AF_INET6, ip, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons((uint16_t)port);
        *length = sizeof *in6;
    } else {
        return EINVAL;
    }
    return 0;
}

static int
listen_tcp(const char *address, int *fdp)
{
    struct sockaddr_storage ss;
    socklen_t length;
    int on = 1, off = 0, error = parse_ssl(address, &ss, &length);

    if (error) {
        return error;
    }
    *fdp = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fdp < 0) {
        return errno;
    }
    setsockopt(*fdp, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (ss.ss_family == AF_INET6) {
        setsockopt(*fdp, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    return bind(*fdp, (struct sockaddr *)&ss, length) ? errno : 0;
}

static int
listen_on(struct rest_listener *l, int *fdp)
{
    int error;

    *fdp = -1;
    if (!strncmp(l->address, "ssl:", 4)) {
        l->tls = true;
        error = listen_tcp(l->address + 4, fdp);
    } else if (!strncmp(l->address, "token:", 6)) {
        l->tls = l->tokens = true;
        error = listen_tcp(l->address + 6, fdp);
    } else if (!strncmp(l->address, "unix:", 5) && l->address[5]) {
        *fdp = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        error = *fdp < 0 ? errno : bind_unix(*fdp, l->address + 5);
        if (!error && !(l->path = strdup(l->address + 5))) {
            error = ENOMEM;
        }
    } else {
        error = EINVAL;
    }
    return error ? error : listen(*fdp, 256) ? errno : 0;
}

static struct MHD_Daemon *
start(struct rest_listener *l, int fd)
{
    unsigned flags = MHD_USE_EPOLL | MHD_USE_INTERNAL_POLLING_THREAD | MHD_ALLOW_SUSPEND_RESUME |
                     (l->tls ? MHD_USE_TLS : 0);
    /* TLS: rest_tls_attach() gives each session its own credentials; those of
     * the daemon are never used, but it insists on a source of some. */
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)REST_TLS_PRIORITIES},
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)(intptr_t)rest_tls_no_certificate},
        {MHD_OPTION_END, 0, NULL},
    };
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};

    return MHD_start_daemon(flags, 0, accept_policy, l, handle, l, MHD_OPTION_LISTEN_SOCKET, fd,
                            MHD_OPTION_CONNECTION_LIMIT, (unsigned)REST_CONNECTIONS + 200,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)32 << 10,
                            MHD_OPTION_NOTIFY_CONNECTION, notify_connection, l,
                            MHD_OPTION_NOTIFY_COMPLETED, completed, l, MHD_OPTION_ARRAY,
                            l->tls ? tls : none, MHD_OPTION_END);
}

int
rest_listener_open(struct rest *r, struct rest_listener *l, const char *address, char *why,
                   size_t why_size)
{
    int fd = -1, error = 0;

    *l = (struct rest_listener){.rest = r, .address = strdup(address), .quiesced = -1};
    pthread_mutex_init(&l->mutex, NULL);
    l->limit = rest_limit_create();
    if (!l->address || !l->limit) {
        error = ENOMEM;
    } else {
        error = listen_on(l, &fd);
    }
    if (!error && !(l->mhd = start(l, fd))) {
        error = EIO;
    }
    if (error) {
        snprintf(why, why_size, "cannot listen on %s: %s", address,
                 error == EINVAL ? "neither unix:PATH nor ssl:PORT[:IP] nor token:PORT[:IP]"
                                 : strerror(error));
        if (fd >= 0) {
            close(fd);
        }
        rest_listener_close(l);
    }
    return error;
}

void
rest_listener_quiesce(struct rest_listener *l)
{
    l->quiesced = MHD_quiesce_daemon(l->mhd);
}

void
rest_listener_close(struct rest_listener *l)
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
    rest_limit_destroy(l->limit);
    pthread_mutex_destroy(&l->mutex);
    free(l->path);
    free(l->address);
}
