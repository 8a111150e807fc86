/* export_collector: see export_collector.h. */
#include "export_collector.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls.h"

#define RETRY_MIN_MS 500u
#define RETRY_MAX_MS 30000u
#define CONNECT_MS 10000u /* for the connection and the handshake */
#define SEND_BUFFER (1 << 20)

enum transport { UDP, TCP, TLS };
enum state { AWAY, CONNECTING, CONNECTED };

struct export_collector {
    char target[EXPORT_TARGET_MAX];
    enum transport transport;
    struct sockaddr_storage address;
    socklen_t address_len;
    uint16_t source_port;
    int fd; /* -1 */
    enum state state;
    struct tls_config *tls_config; /* the exporter's */
    struct tls *tls;
    uint64_t retry_at, since;
    unsigned retry_ms;
    uint32_t sequence;

    /* Streams: what waits, from 'head' on, which is in the message that begins at 'whole'. */
    uint8_t *queue;
    size_t size, whole, head, tail;

    _Atomic uint64_t messages, records, connects;
    _Atomic uint64_t dropped_messages, dropped_records, dropped_packets, dropped_bytes;
    _Atomic size_t queued;
    atomic_int error;
    atomic_bool connected;
};

#define ADD(c, field, n) atomic_fetch_add_explicit(&(c)->field, n, memory_order_relaxed)
#define SUB(c, field, n) atomic_fetch_sub_explicit(&(c)->field, n, memory_order_relaxed)

/* --- targets ---------------------------------------------------------------------- */

static bool
parse_address(struct export_collector *c, const char *text)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_family = AF_UNSPEC};
    const char *colon = strrchr(text, ':');
    struct addrinfo *found;
    char host[EXPORT_TARGET_MAX];
    size_t len = colon ? colon - text : 0;

    if (!len || len >= sizeof host || !colon[1]) {
        return false;
    }
    if (text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    } else if (memchr(text, ':', len)) {
        return false;
    }
    memcpy(host, text, len);
    host[len] = '\0';
    hints.ai_socktype = c->transport == UDP ? SOCK_DGRAM : SOCK_STREAM;
    if (getaddrinfo(host, colon + 1, &hints, &found)) {
        return false;
    }
    memcpy(&c->address, found->ai_addr, found->ai_addrlen);
    c->address_len = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

static bool
parse_target(struct export_collector *c, const char *target)
{
    static const struct {
        const char *prefix;
        enum transport transport;
    } prefixes[] = {{"udp:", UDP}, {"tcp:", TCP}, {"tls:", TLS}};

    c->transport = UDP;
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        size_t len = strlen(prefixes[i].prefix);
        if (!strncmp(target, prefixes[i].prefix, len)) {
            c->transport = prefixes[i].transport;
            target += len;
            break;
        }
    }
    return parse_address(c, target);
}

int
export_collector_create(const char *target, const struct export_config *config,
                        struct tls_config *tls_config, struct export_collector **cp, char *why,
                        size_t why_size)
{
    struct export_collector *c = calloc(1, sizeof *c);

    if (!c) {
        return ENOMEM;
    }
    snprintf(c->target, sizeof c->target, "%s", target);
    c->fd = -1;
    c->source_port = config->source_port;
    c->tls_config = tls_config;
    if (!parse_target(c, target)) {
        snprintf(why, why_size, "'%s' is not ADDRESS:PORT, with udp:, tcp: or tls: in front",
                 target);
        free(c);
        return EINVAL;
    }
    if (c->transport != UDP && config->version != EXPORT_IPFIX) {
        snprintf(why, why_size, "'%s': only IPFIX goes over TCP and TLS", target);
        free(c);
        return EINVAL;
    }
    if (c->transport == TLS && !tls_config) {
        snprintf(why, why_size, "'%s': no certificate, private key and CA are given", target);
        free(c);
        return EINVAL;
    }
    if (c->transport != UDP) {
        c->size = config->queue_bytes ? config->queue_bytes : EXPORT_QUEUE_DEFAULT;
        c->queue = malloc(c->size);
        if (!c->queue) {
            free(c);
            return ENOMEM;
        }
    }
    *cp = c;
    return 0;
}

/* --- connections -------------------------------------------------------------------- */

/* What waits belongs to the session that ends: it had been counted as sent. */
static void
drop_queue(struct export_collector *c)
{
    uint64_t messages = 0, records = 0, packets = 0, bytes = 0;

    for (; c->whole < c->tail; messages++) {
        c->whole += export_message_count(c->queue + c->whole, &records, &packets, &bytes);
    }
    c->whole = c->head = c->tail = 0;
    SUB(c, messages, messages);
    SUB(c, records, records);
    ADD(c, dropped_messages, messages);
    ADD(c, dropped_records, records);
    ADD(c, dropped_packets, packets);
    ADD(c, dropped_bytes, bytes);
}

static void
hang_up(struct export_collector *c, int error, uint64_t now)
{
    tls_close(c->tls);
    c->tls = NULL;
    if (c->fd >= 0) {
        close(c->fd);
    }
    c->fd = -1;
    c->state = AWAY;
    c->retry_ms = c->retry_ms ? c->retry_ms * 2 : RETRY_MIN_MS;
    c->retry_ms = c->retry_ms < RETRY_MAX_MS ? c->retry_ms : RETRY_MAX_MS;
    c->retry_at = now + c->retry_ms;
    drop_queue(c);
    atomic_store(&c->queued, 0);
    atomic_store(&c->connected, false);
    if (error) {
        atomic_store(&c->error, error);
    }
}

/* So that the source port stays the same from process to process, if it is
 * given. */
static int
bind_source(struct export_collector *c)
{
    struct sockaddr_storage a = {.ss_family = c->address.ss_family};
    int one = 1;

    if (!c->source_port) {
        return 0;
    }
    if (a.ss_family == AF_INET6) {
        ((struct sockaddr_in6 *)&a)->sin6_port = htons(c->source_port);
    } else {
        ((struct sockaddr_in *)&a)->sin_port = htons(c->source_port);
    }
    setsockopt(c->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    return bind(c->fd, (struct sockaddr *)&a, c->address_len) ? errno : 0;
}

static int
open_socket(struct export_collector *c)
{
    int type = c->transport == UDP ? SOCK_DGRAM : SOCK_STREAM, size = SEND_BUFFER, error;

    c->fd = socket(c->address.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        return errno;
    }
    setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    error = c->transport == UDP ? bind_source(c) : 0;
    if (!error && connect(c->fd, (struct sockaddr *)&c->address, c->address_len) &&
        errno != EINPROGRESS) {
        error = errno;
    }
    return error;
}

static void
now_connected(struct export_collector *c)
{
    c->state = CONNECTED;
    c->sequence = 0;
    c->retry_ms = 0;
    atomic_store(&c->connected, true);
    ADD(c, connects, 1);
}

/* Whether the connection is up; an errno: it will not be. */
static int
finish(struct export_collector *c, bool *up)
{
    struct tcp_info info;
    int error = 0;
    socklen_t len = sizeof error;
    ssize_t n;
    char byte;

    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    len = sizeof info;
    *up = !error && !getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) &&
          info.tcpi_state == TCP_ESTABLISHED;
    if (error || !*up || c->transport != TLS) {
        return error;
    }
    if (!c->tls) {
        c->tls = tls_connect(c->tls_config, c->fd, NULL);
        if (!c->tls) {
            return ENOMEM;
        }
    }
    n = tls_read(c->tls, &byte, 1); /* does the handshake; collectors say nothing */
    *up = tls_established(c->tls);
    return n == 0 ? ECONNRESET : n < 0 && n != -EAGAIN ? -n : 0;
}

static void
go_on_connecting(struct export_collector *c, uint64_t now)
{
    bool up = false;
    int error;

    if (c->state == AWAY) {
        if (now < c->retry_at) {
            return;
        }
        error = open_socket(c);
        c->state = CONNECTING;
        c->since = now;
        if (error) {
            hang_up(c, error, now);
            return;
        }
        if (c->transport == UDP) {
            now_connected(c);
            return;
        }
    }
    error = finish(c, &up);
    if (error || (!up && now - c->since > CONNECT_MS)) {
        hang_up(c, error ? error : ETIMEDOUT, now);
    } else if (up) {
        now_connected(c);
    }
}

/* --- streams ----------------------------------------------------------------------------- */

/* 0, EAGAIN, or what ended the connection. */
static int
push(struct export_collector *c)
{
    while (c->head < c->tail) {
        size_t n = c->tail - c->head;
        ssize_t sent = c->tls ? tls_write(c->tls, c->queue + c->head, n)
                              : send(c->fd, c->queue + c->head, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        int error = sent >= 0 ? 0 : c->tls ? -sent : errno;

        if (error) {
            return error;
        }
        c->head += sent;
        while (c->whole < c->tail &&
               c->whole + export_message_len(c->queue + c->whole) <= c->head) {
            c->whole += export_message_len(c->queue + c->whole);
        }
    }
    c->whole = c->head = c->tail = 0;
    return 0;
}

/* The collector has closed it. */
static bool
is_closed(struct export_collector *c)
{
    char byte;
    ssize_t n = c->tls ? tls_read(c->tls, &byte, 1) : recv(c->fd, &byte, 1, MSG_DONTWAIT);
    int error = n >= 0 ? 0 : c->tls ? -n : errno;

    return !n || (error && error != EAGAIN && error != EINTR);
}

static bool
enqueue(struct export_collector *c, const struct export_message *m)
{
    if (c->tail + m->len > c->size && c->whole) {
        memmove(c->queue, c->queue + c->whole, c->tail - c->whole);
        c->tail -= c->whole;
        c->head -= c->whole;
        c->whole = 0;
    }
    if (c->tail + m->len > c->size) {
        return false;
    }
    memcpy(c->queue + c->tail, m->bytes, m->len);
    c->tail += m->len;
    return true;
}

/* --- all transports ------------------------------------------------------------------------ */

bool
export_collector_run(struct export_collector *c, uint64_t now)
{
    enum state before = c->state;
    int error;

    if (c->state != CONNECTED) {
        go_on_connecting(c, now);
    } else if (c->transport != UDP) {
        error = push(c);
        if ((error && error != EAGAIN) || is_closed(c)) {
            hang_up(c, error ? error : ECONNRESET, now);
        }
        atomic_store(&c->queued, c->tail - c->head);
    }
    return c->state == CONNECTED && before != CONNECTED;
}

void
export_collector_send(struct export_collector *c, struct export_message *m)
{
    bool sent = false;

    if (c->state == CONNECTED) {
        export_message_sequence(m, c->sequence);
        if (c->transport == UDP) {
            /* What ICMP said of an earlier one is told once, instead. */
            sent = send(c->fd, m->bytes, m->len, MSG_DONTWAIT) >= 0 ||
                   (errno == ECONNREFUSED && send(c->fd, m->bytes, m->len, MSG_DONTWAIT) >= 0);
            if (!sent) {
                atomic_store(&c->error, errno);
            }
        } else {
            sent = enqueue(c, m);
        }
        /* What is lost on the way is missed by its number. */
        c->sequence += export_message_step(m);
    }
    if (sent) {
        ADD(c, messages, 1);
        ADD(c, records, m->flows);
    } else {
        ADD(c, dropped_messages, 1);
        ADD(c, dropped_records, m->flows);
        ADD(c, dropped_packets, m->packets);
        ADD(c, dropped_bytes, m->octets);
    }
}

bool
export_collector_is_stream(const struct export_collector *c)
{
    return c->transport != UDP;
}

void
export_collector_get_stats(const struct export_collector *c, struct export_collector_stats *s)
{
#define GET(field) atomic_load_explicit(&c->field, memory_order_relaxed)
    *s = (struct export_collector_stats){
        .target = c->target,
        .connected = GET(connected),
        .messages = GET(messages),
        .records = GET(records),
        .dropped_messages = GET(dropped_messages),
        .dropped_records = GET(dropped_records),
        .dropped_packets = GET(dropped_packets),
        .dropped_bytes = GET(dropped_bytes),
        .connects = GET(connects),
        .queued = GET(queued),
        .error = GET(error),
    };
#undef GET
}

void
export_collector_set_tls(struct export_collector *c, struct tls_config *config)
{
    c->tls_config = config;
}

void
export_collector_destroy(struct export_collector *c)
{
    if (c) {
        if (c->state == CONNECTED && c->transport != UDP) {
            push(c);
        }
        tls_close(c->tls);
        if (c->fd >= 0) {
            close(c->fd);
        }
        free(c->queue);
        free(c);
    }
}
