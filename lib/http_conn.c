/* Connections.  A stranger costs its listener's thread time and memory, never the
 * main loop:
 *
 *   - a bucket of connection attempts for each peer, before TLS;
 *   - a bound of connections of a peer, HTTP_CONNECTIONS in all.  At either bound
 *     the oldest connection whose client has not yet said who he is goes, so that
 *     holding connections open keeps nobody out;
 *   - a deadline for each phase, however busily bytes trickle in.  The main loop
 *     shuts overdue sockets down, and libmicrohttpd's thread finds them closed. */
#include <arpa/inet.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
            (!peer || http_limit_same(peer, (struct sockaddr *)&c->from))) {
            shut(c);
            return true;
        }
    }
    return false;
}

enum MHD_Result
http_conn_accept(void *listener, const struct sockaddr *peer, socklen_t length)
{
    struct http_listener *l = listener;
    bool ok;

    if (!l->tls) {
        return MHD_YES;
    }
    pthread_mutex_lock(&l->mutex);
    ok = http_limit_try(l->limit, peer, http_now_ms());
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
    unsigned n = http_limit_enter(l->limit, (struct sockaddr *)&c->from, http_now_ms());
    if (l->tls && n > l->server->config.peer_connections) {
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
    c->listener = l;
    c->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    note_peer(c, info ? info->client_addr : NULL);
    if (l->tls) {
        info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
        c->creds = http_tls_attach(l->server->tls, info->tls_session);
        if (l->tokens) {
            http_tls_ask_nobody(info->tls_session);
        } else if (l->server->config.politely) {
            http_tls_ask_politely(info->tls_session);
        }
    }
    c->deadline_ms = http_now_ms() + l->server->config.head_ms;
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
    http_limit_leave(l->limit, (struct sockaddr *)&c->from);
    pthread_mutex_unlock(&l->mutex);
    http_tls_detach(c->creds);
    http_tls_detach(c->checked);
    free(c);
}

void
http_conn_notify(void *listener, struct MHD_Connection *mhd, void **context,
                 enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        started(listener, mhd, context);
    } else {
        closed(listener, *context);
    }
}

struct http_conn *
http_conn_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? info->socket_context : NULL;
}

void
http_conn_deadline(struct http_conn *c, int64_t ms)
{
    pthread_mutex_lock(&c->listener->mutex);
    c->deadline_ms = ms == INT64_MAX ? ms : http_now_ms() + ms;
    pthread_mutex_unlock(&c->listener->mutex);
}

void
http_vouch(struct http_request *q)
{
    pthread_mutex_lock(&q->conn->listener->mutex);
    q->conn->known = true;
    pthread_mutex_unlock(&q->conn->listener->mutex);
}

void
http_conn_reap(struct http_listener *l, int64_t now_ms)
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
        c->peer.uid = cred.uid;
        c->peer.local = cred.uid == 0 || cred.uid == geteuid();
        snprintf(c->peer.address, sizeof c->peer.address, "unix#%u", (unsigned)cred.uid);
    }
}

static void
identify_tls(struct http_conn *c, struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
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
    c->peer.certified = http_tls_identity(info->tls_session, c->peer.cn, sizeof c->peer.cn,
                                          c->peer.ou, sizeof c->peer.ou);
}

void
http_conn_identify(struct http_conn *c, struct MHD_Connection *mhd)
{
    if (c->identified) {
        return;
    }
    c->identified = true;
    c->peer.uid = UINT_MAX;
    if (c->listener->tls) {
        identify_tls(c, mhd);
    } else {
        identify_unix(c);
    }
}

bool
http_conn_good(struct http_conn *c, struct MHD_Connection *mhd)
{
    struct http_tls *tls = c->listener->server->tls;
    gnutls_session_t session;

    if (!c->peer.certified) {
        return true;
    }
    session = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION)->tls_session;
    if (!http_tls_is_current(tls, c->checked ? c->checked : c->creds)) {
        struct http_creds *old = c->checked;

        c->checked = http_tls_attach(tls, session);
        http_tls_detach(old);
        c->refused = !http_tls_good(session);
    }
    return !c->refused && !http_tls_expired(session);
}
