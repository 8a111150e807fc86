/* IPFIX over TCP and TLS: streams of messages, each with its length in its header. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "receive_priv.h"

#define HANDSHAKE_MS 10000u
#define READS 8 /* of a connection, before others have their turn */
#define KEEPALIVE_S 60

static const char *
peer_name(const struct collect_peer *peer, char text[INET6_ADDRSTRLEN])
{
    bool ip4 = IN6_IS_ADDR_V4MAPPED(&peer->address);

    return inet_ntop(ip4 ? AF_INET : AF_INET6, peer->address.s6_addr + (ip4 ? 12 : 0), text,
                     INET6_ADDRSTRLEN)
               ? text
               : "?";
}

static bool
has_room(const struct receive *r, const struct in6_addr *address)
{
    unsigned n = 0;

    for (const struct connection *c = r->connections; c; c = c->next) {
        n += IN6_ARE_ADDR_EQUAL(&c->peer.address, address);
    }
    return r->n_connections < r->options.connections && n < r->options.connections_per_host;
}

static void
keep_alive(int fd)
{
    int on = 1, idle = KEEPALIVE_S;

    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
}

static struct connection *
open_connection(struct receive *r, const struct listener *l, int fd, const union address *from)
{
    struct connection *c = malloc(sizeof *c);

    if (!c) {
        return NULL;
    }
    memset(c, 0, offsetof(struct connection, buffer));
    receive_peer(from, &c->peer);
    c->peer.transport = l->tls ? FLOW_TLS : FLOW_TCP;
    c->peer.connection = ++r->last_connection;
    c->opened_ms = receive_time(r);
    c->watched = (struct watched){.kind = WATCH_CONNECTION, .fd = fd};
    if (l->tls && !(c->tls = tls_accept(r->options.tls, fd))) {
        free(c);
        return NULL;
    }
    keep_alive(fd);
    if (receive_watch(r, &c->watched, EPOLLIN)) {
        tls_close(c->tls);
        free(c);
        return NULL;
    }
    c->next = r->connections;
    r->connections = c;
    r->n_connections++;
    return c;
}

void
receive_accept(struct receive *r, struct listener *l)
{
    for (int i = 0; i < 16; i++) {
        union address from;
        socklen_t len = sizeof from;
        struct collect_peer peer;
        int fd = accept4(l->watched.fd, &from.any, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0) {
            return;
        }
        receive_peer(&from, &peer);
        if (!receive_allows(r, &peer.address)) {
            close(fd);
            continue;
        }
        if (!has_room(r, &peer.address) || !open_connection(r, l, fd, &from)) {
            r->refused++;
            close(fd);
            continue;
        }
        l->messages++;
    }
}

void
receive_close(struct receive *r, struct connection *c)
{
    struct connection **at = &r->connections;

    while (*at != c) {
        at = &(*at)->next;
    }
    *at = c->next;
    r->n_connections--;
    collect_closed(r->collect, c->peer.connection);
    tls_close(c->tls);
    close(c->watched.fd);
    free(c);
}

/* What has come whole; false: this is not IPFIX. */
static bool
take_messages(struct receive *r, struct connection *c)
{
    uint64_t now_ms = receive_time(r);
    size_t at = 0, len;

    while (c->have - at >= 4) {
        if (!(len = collect_message_len(c->buffer + at))) {
            return false;
        }
        if (c->have - at < len) {
            break;
        }
        /* Whose lengths contradict themselves has lost its place in the stream. */
        if (collect_message(r->collect, &c->peer, now_ms, c->buffer + at, len) == EPROTO) {
            return false;
        }
        at += len;
    }
    c->have -= at;
    memmove(c->buffer, c->buffer + at, c->have);
    return true;
}

static ssize_t
read_some(struct connection *c, size_t room)
{
    ssize_t n;

    if (c->tls) {
        return tls_read(c->tls, c->buffer + c->have, room);
    }
    n = recv(c->watched.fd, c->buffer + c->have, room, 0);
    return n < 0 ? -errno : n;
}

void
receive_read(struct receive *r, struct connection *c)
{
    char name[INET6_ADDRSTRLEN];

    for (int i = 0;; i++) {
        size_t room = sizeof c->buffer - c->have;
        ssize_t n = read_some(c, room);

        if (n == -EAGAIN || n == -EINTR) {
            return;
        }
        if (n <= 0) {
            if (c->tls && n < 0) {
                receive_log(r, "%s: TLS: %s", peer_name(&c->peer, name), tls_error(c->tls));
            }
            break;
        }
        c->have += n;
        if (!take_messages(r, c)) {
            receive_log(r, "%s: not a stream of IPFIX, closed", peer_name(&c->peer, name));
            break;
        }
        /* With room left, TLS holds nothing back that the socket does not show. */
        if (i >= READS && (size_t)n < room) {
            return;
        }
    }
    receive_close(r, c);
}

void
receive_expire(struct receive *r, uint64_t now_ms)
{
    for (struct connection *next, *c = r->connections; c; c = next) {
        next = c->next;
        if (c->tls && !tls_established(c->tls) && c->opened_ms + HANDSHAKE_MS <= now_ms) {
            receive_close(r, c);
        }
    }
}
