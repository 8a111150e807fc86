/* Connections.  A stranger costs its listener's thread time and memory, never the
 * main loop:
 *
 *   - a bucket of connection attempts for each peer, before TLS;
 *   - HTTP_PEER_CONNECTIONS of a peer, HTTP_CONNECTIONS in all.  At either bound
 *     the oldest connection whose client has not yet said who he is goes, so that
 *     holding connections open keeps nobody out;
 *   - a deadline for each phase, however busily bytes trickle in.  The main loop
 *     shuts overdue sockets down, and libmicrohttpd's thread finds them closed. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "http_priv.h"

/* With the listener's mutex. */
static void
shut(struct http_conn *c)
{
    if (!c->closing) {
        c->closing = true;
        shutdown(c->fd, SHUT_RDWR);
    }
}

/* The oldest connection of a stranger, of the peer or of anyone (NULL). */
static bool
shut_a_stranger(struct http_listener *l, const struct sockaddr *peer)
{
    for (struct http_conn *c = l->first; c; c = c->next) {
        if (!c->known && !c->closing &&
            (!peer || rest_limit_same(peer, (struct sockaddr *)&c->from))) {
            shut(c);
            return true;
        }
    }
    return false;
}

enum MHD_Result
http_accept(void *listener, const struct sockaddr *peer, socklen_t length)
{
    struct http_listener *l = listener;
    bool ok;

    if (!l->tls) {
        return MHD_YES;
    }
    pthread_mutex_lock(&l->mutex);
    ok = rest_limit_try(l->limit, peer, http_now_ms());
    pthread_mutex_unlock(&l->mutex);
    return ok ? MHD_YES : MHD_NO;
}

static void
note_peer(struct http_conn *c, const struct sockaddr *sa)
{
    if (sa && sa->sa_family == AF_INET6) {
        memcpy(&c->from, sa, sizeof(struct sockaddr_in6));
    } else if (sa && sa->sa_family == AF_INET) {
        memcpy(&c->from, sa, sizeof(struct sockaddr_in));
    }
}

static void
enter(struct http_listener *l, struct http_conn *c)
{
    bool over = false;

    pthread_mutex_lock(&l->mutex);
    unsigned n = rest_limit_enter(l->limit, (struct sockaddr *)&c->from, http_now_ms());
    if (l->tls && n > HTTP_PEER_CONNECTIONS) {
        over = !shut_a_stranger(l, (struct sockaddr *)&c->from);
    } else if (l->n_conns >= HTTP_CONNECTIONS) {
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
started(struct http_listener *l, struct MHD_Connection *mhd, void **context)
{
    struct http_conn *c = calloc(1, sizeof *c);
    const union MHD_ConnectionInfo *info;

    *context = c;
    if (!c) { /* no request of it will be answered */
        return;
    }
    c->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    note_peer(c, info ? info->client_addr : NULL);
    if (l->tls) {
        info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
        c->creds = rest_tls_attach(l->http->tls, info->tls_session);
        rest_tls_ask_politely(info->tls_session);
    }
    c->deadline_ms = http_now_ms() + HTTP_HEAD_MS;
    enter(l, c);
}

static void
closed(struct http_listener *l, struct http_conn *c)
{
    if (!c) {
        return;
    }
    pthread_mutex_lock(&l->mutex);
    *(c->prev ? &c->prev->next : &l->first) = c->next;
    *(c->next ? &c->next->prev : &l->last) = c->prev;
    l->n_conns--;
    rest_limit_leave(l->limit, (struct sockaddr *)&c->from);
    pthread_mutex_unlock(&l->mutex);
    rest_tls_detach(c->creds);
    free(c);
}

void
http_notify(void *listener, struct MHD_Connection *mhd, void **context,
            enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        started(listener, mhd, context);
    } else {
        closed(listener, *context);
    }
}

void
http_conn_deadline(struct http_request *q, int64_t ms)
{
    pthread_mutex_lock(&q->listener->mutex);
    q->conn->deadline_ms = ms == INT64_MAX ? ms : http_now_ms() + ms;
    pthread_mutex_unlock(&q->listener->mutex);
}

void
http_vouch(struct http_request *q)
{
    pthread_mutex_lock(&q->listener->mutex);
    q->conn->known = true;
    pthread_mutex_unlock(&q->listener->mutex);
}

void
http_listener_reap(struct http_listener *l, int64_t now_ms)
{
    pthread_mutex_lock(&l->mutex);
    for (struct http_conn *c = l->first; c; c = c->next) {
        if (c->deadline_ms < now_ms) {
            shut(c);
        }
    }
    pthread_mutex_unlock(&l->mutex);
}

/* --- who it is ------------------------------------------------------------------ */

static void
identify_unix(struct http_conn *c)
{
    struct ucred cred;
    socklen_t size = sizeof cred;

    if (!getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &size)) {
        c->peer.local = cred.uid == 0 || cred.uid == geteuid();
        snprintf(c->peer.address, sizeof c->peer.address, "unix#%u", (unsigned)cred.uid);
    }
}

static void
identify_tls(struct http_request *q)
{
    struct http_conn *c = q->conn;
    char ip[INET6_ADDRSTRLEN] = "";
    unsigned port = 0;

    if (c->from.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&c->from;
        inet_ntop(AF_INET, &in->sin_addr, ip, sizeof ip);
        port = ntohs(in->sin_port);
    } else if (c->from.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&c->from;
        inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof ip);
        port = ntohs(in6->sin6_port);
    }
    snprintf(c->peer.address, sizeof c->peer.address, "%s#%u", ip, port);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(q->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    rest_tls_identity(info->tls_session, c->peer.cn, sizeof c->peer.cn, c->peer.ou,
                      sizeof c->peer.ou);
}

void
http_identify(struct http_request *q)
{
    if (q->conn->identified) {
        return;
    }
    q->conn->identified = true;
    if (q->listener->tls) {
        identify_tls(q);
    } else {
        identify_unix(q->conn);
    }
}

/* --- listening ------------------------------------------------------------------- */

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
parse_address(const char *text, struct sockaddr_storage *ss, socklen_t *length)
{
    char ip[INET6_ADDRSTRLEN + 2] = "::";
    char *end;
    unsigned long port = strtoul(text, &end, 10);
    struct sockaddr_in *in = (struct sockaddr_in *)ss;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;

    memset(ss, 0, sizeof *ss);
    if (end == text || port > 65535 || (*end && *end != ':') || strlen(end) > sizeof ip) {
        return EINVAL;
    }
    if (*end) {
        snprintf(ip, sizeof ip, "%s", end + (end[1] == '[' ? 2 : 1));
        ip[strcspn(ip, "]")] = '\0';
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
    int on = 1, off = 0, error = parse_address(address, &ss, &length);

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

int
http_listen(struct http_listener *l, int *fdp)
{
    int error = EINVAL;

    *fdp = -1;
    if (!strncmp(l->address, "ssl:", 4)) {
        l->tls = true;
        error = listen_tcp(l->address + 4, fdp);
    } else if (!strncmp(l->address, "unix:", 5) && l->address[5]) {
        *fdp = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        error = *fdp < 0 ? errno : bind_unix(*fdp, l->address + 5);
        if (!error && !(l->path = strdup(l->address + 5))) {
            error = ENOMEM;
        }
    }
    return error ? error : listen(*fdp, 256) ? errno : 0;
}
