#include "receive.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "receive_priv.h"

#define EVENTS 16
#define ROUNDS 16 /* of DATAGRAMS, before other sockets have their turn */
#define BACKLOG 64
#define STEP_MS 2000 /* clocks are slewed by less */
#define REST_MS 5
#define REST_BYTES_PER_MS (4u << 20) /* of a socket's buffer: more than can come */

static int64_t
clock_ms(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

uint64_t
receive_now_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

void
receive_clocks(struct receive *r, int64_t wall_ms, int64_t steady_ms)
{
    int64_t by_ms = wall_ms - steady_ms - r->wall_ahead_ms;

    if (by_ms >= -STEP_MS && by_ms <= STEP_MS) {
        return;
    }
    r->wall_ahead_ms += by_ms;
    collect_clock_stepped(r->collect, by_ms);
    for (struct connection *c = r->connections; c; c = c->next) {
        c->opened_ms += by_ms;
    }
}

uint64_t
receive_time(struct receive *r)
{
    int64_t wall_ms = clock_ms(CLOCK_REALTIME);

    receive_clocks(r, wall_ms, clock_ms(CLOCK_BOOTTIME));
    return wall_ms;
}

void
receive_log(const struct receive *r, const char *format, ...)
{
    char line[512];
    va_list args;

    if (r->options.log) {
        va_start(args, format);
        vsnprintf(line, sizeof line, format, args);
        va_end(args);
        r->options.log(line);
    }
}

/* --- what one recvmmsg() fills ------------------------------------------------------ */

struct ring {
    struct mmsghdr headers[DATAGRAMS];
    struct iovec io[DATAGRAMS];
    union address from[DATAGRAMS];
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(uint32_t))];
    } control[DATAGRAMS];
    uint8_t datagrams[DATAGRAMS][DATAGRAM_STRIDE];
};

/* Makes the first 'n' headers ready to be filled again. */
static void
ring_reset(struct ring *ring, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct msghdr *h = &ring->headers[i].msg_hdr;

        h->msg_namelen = sizeof ring->from[i];
        h->msg_controllen = sizeof ring->control[i].bytes;
    }
}

static struct ring *
ring_create(void)
{
    struct ring *ring = calloc(1, sizeof *ring);

    for (unsigned i = 0; ring && i < DATAGRAMS; i++) {
        ring->io[i] = (struct iovec){.iov_base = ring->datagrams[i], .iov_len = DATAGRAM_MAX};
        ring->headers[i].msg_hdr = (struct msghdr){
            .msg_name = &ring->from[i],
            .msg_iov = &ring->io[i],
            .msg_iovlen = 1,
            .msg_control = ring->control[i].bytes,
        };
    }
    if (ring) {
        ring_reset(ring, DATAGRAMS);
    }
    return ring;
}

int
receive_create(struct collect *collect, const struct receive_options *options, struct receive **out)
{
    struct receive *r = calloc(1, sizeof *r);
    int error = ENOMEM;

    if (!r) {
        return ENOMEM;
    }
    r->collect = collect;
    r->options = *options;
    r->wall_ahead_ms = clock_ms(CLOCK_REALTIME) - clock_ms(CLOCK_BOOTTIME);
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (r->epoll < 0) {
        error = errno;
        goto fail;
    }
    r->rest_ms = REST_MS;
    if (!(r->ring = ring_create())) {
        goto fail;
    }
    *out = r;
    return 0;

fail:
    receive_destroy(r);
    return error;
}

void
receive_destroy(struct receive *r)
{
    if (!r) {
        return;
    }
    while (r->connections) {
        receive_close(r, r->connections);
    }
    for (struct listener *next, *l = r->listeners; l; l = next) {
        next = l->next;
        close(l->watched.fd);
        free(l);
    }
    if (r->epoll >= 0) {
        close(r->epoll);
    }
    free(r->ring);
    free(r);
}

int
receive_watch(struct receive *r, struct watched *w, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = w};

    return epoll_ctl(r->epoll, EPOLL_CTL_ADD, w->fd, &e) ? errno : 0;
}

/* --- addresses -------------------------------------------------------------------- */

void
receive_peer(const union address *a, struct collect_peer *peer)
{
    *peer = (struct collect_peer){.transport = FLOW_UDP};
    if (a->any.sa_family == AF_INET6) {
        peer->address = a->in6.sin6_addr;
        peer->port = ntohs(a->in6.sin6_port);
    } else {
        memset(peer->address.s6_addr + 10, 0xff, 2);
        memcpy(peer->address.s6_addr + 12, &a->in.sin_addr, 4);
        peer->port = ntohs(a->in.sin_port);
    }
}

/* "PORT", "PORT:IP" or "PORT:[IP]". */
static int
parse_address(const char *text, union address *a, socklen_t *len)
{
    char *end, ip[INET6_ADDRSTRLEN + 2] = "";
    long port = strtol(text, &end, 10);
    size_t n;

    memset(a, 0, sizeof *a);
    if (end == text || port < 0 || port > 65535 || (*end && *end != ':')) {
        return EINVAL;
    }
    if (*end == ':') {
        end += end[1] == '[' ? 2 : 1;
        n = strcspn(end, "]");
        if (!n || n >= sizeof ip) {
            return EINVAL;
        }
        memcpy(ip, end, n);
        ip[n] = '\0';
    }
    if (inet_pton(AF_INET, ip, &a->in.sin_addr) == 1) {
        a->in.sin_family = AF_INET;
        a->in.sin_port = htons(port);
        *len = sizeof a->in;
        return 0;
    }
    if (*ip && inet_pton(AF_INET6, ip, &a->in6.sin6_addr) != 1) {
        return EINVAL;
    }
    a->in6.sin6_family = AF_INET6;
    a->in6.sin6_port = htons(port);
    *len = sizeof a->in6;
    return 0;
}

static int
parse_prefix(const char *text, struct prefix *p)
{
    char address[INET6_ADDRSTRLEN], *end;
    size_t n = strcspn(text, "/");
    unsigned max = 128;
    unsigned long bits;
    struct in_addr ip4;

    if (n >= sizeof address) {
        return EINVAL;
    }
    memcpy(address, text, n);
    address[n] = '\0';
    memset(p, 0, sizeof *p);
    if (inet_pton(AF_INET, address, &ip4) == 1) {
        memset(p->address.s6_addr + 10, 0xff, 2);
        memcpy(p->address.s6_addr + 12, &ip4, 4);
        max = 32;
    } else if (inet_pton(AF_INET6, address, &p->address) != 1) {
        return EINVAL;
    }
    p->bits = 128;
    if (text[n] == '/') {
        bits = strtoul(text + n + 1, &end, 10);
        if (text[n + 1] < '0' || text[n + 1] > '9' || *end || bits > max) {
            return EINVAL;
        }
        p->bits = 128 - max + bits;
    }
    return 0;
}

int
receive_allow(struct receive *r, const char *spec, char *why, size_t why_size)
{
    if (r->n_allow == ALLOW_MAX) {
        snprintf(why, why_size, "%s: at most %u of them", spec, ALLOW_MAX);
        return ENOSPC;
    }
    if (parse_prefix(spec, &r->allow[r->n_allow])) {
        snprintf(why, why_size, "%s: not an address, or ADDRESS/BITS", spec);
        return EINVAL;
    }
    r->n_allow++;
    return 0;
}

int
receive_assume(struct receive *r, const char *spec, char *why, size_t why_size)
{
    const char *equal = strchr(spec, '=');
    size_t n = equal ? (size_t)(equal - spec) : 0;
    char text[INET6_ADDRSTRLEN + 5], *end = NULL;
    struct prefix p;
    unsigned long rate = 0;

    if (n && n < sizeof text) {
        memcpy(text, spec, n);
        text[n] = '\0';
        rate = equal[1] >= '0' && equal[1] <= '9' ? strtoul(equal + 1, &end, 10) : 0;
    }
    if (!rate || *end || rate > 1000000 || parse_prefix(text, &p)) {
        snprintf(why, why_size, "%s: not ADDRESS=N or ADDRESS/BITS=N, N up to 1000000", spec);
        return EINVAL;
    }
    if (!collect_assume(r->collect, &p.address, p.bits, rate)) {
        snprintf(why, why_size, "%s: at most %d of them", spec, COLLECT_ASSUME_MAX);
        return ENOSPC;
    }
    return 0;
}

static bool
in_prefix(const struct prefix *p, const struct in6_addr *a)
{
    unsigned bytes = p->bits / 8, rest = p->bits % 8;

    return !memcmp(p->address.s6_addr, a->s6_addr, bytes) &&
           (!rest || !((p->address.s6_addr[bytes] ^ a->s6_addr[bytes]) >> (8 - rest)));
}

bool
receive_allows(struct receive *r, const struct in6_addr *a)
{
    for (unsigned i = 0; i < r->n_allow; i++) {
        if (in_prefix(&r->allow[i], a)) {
            return true;
        }
    }
    r->not_allowed += r->n_allow != 0;
    return !r->n_allow;
}

static void
size_buffer(struct receive *r, int fd)
{
    int bytes = r->options.buffer_bytes;
    unsigned ms;
    socklen_t len = sizeof bytes;

    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes)) {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    }
    ms = getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, &len) ? 0 : bytes / REST_BYTES_PER_MS;
    r->rest_ms = ms < r->rest_ms ? ms : r->rest_ms;
}

static int
open_socket(struct receive *r, int type, union address *a, socklen_t len, int *out)
{
    int on = 1, off = 0, error;
    int fd = socket(a->any.sa_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 && errno == EAFNOSUPPORT && IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr)) {
        /* A host without IPv6. */
        a->in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = a->in6.sin6_port};
        len = sizeof a->in;
        fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    }
    if (fd < 0) {
        return errno;
    }
    if (a->any.sa_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    if (type == SOCK_STREAM) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    } else {
        setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on);
        size_buffer(r, fd);
    }
    if (bind(fd, &a->any, len) || (type == SOCK_STREAM && listen(fd, BACKLOG))) {
        error = errno;
        close(fd);
        return error;
    }
    *out = fd;
    return 0;
}

/* As asked for, with the port that it became. */
static void
describe(struct listener *l, const char *kind, const char *rest)
{
    union address a;
    socklen_t len = sizeof a;
    const char *ip = strchr(rest, ':');

    if (getsockname(l->watched.fd, &a.any, &len)) {
        a.in.sin_port = 0;
    }
    snprintf(l->spec, sizeof l->spec, "%s:%u%s", kind, ntohs(a.in.sin_port), ip ? ip : "");
}

int
receive_listen(struct receive *r, const char *spec, char *why, size_t why_size)
{
    static const char *const kinds[] = {"udp", "tcp", "tls"};
    struct listener *l;
    union address a;
    socklen_t len;
    unsigned kind = 0;
    int error;

    while (kind < 3 && (strncmp(spec, kinds[kind], 3) || spec[3] != ':')) {
        kind++;
    }
    if (kind == 3 || parse_address(spec + 4, &a, &len)) {
        snprintf(why, why_size, "%s: not udp:PORT[:IP], tcp:PORT[:IP] or tls:PORT[:IP]", spec);
        return EINVAL;
    }
    if (kind == 2 && !r->options.tls) {
        snprintf(why, why_size, "%s: needs a private key, a certificate and a CA certificate",
                 spec);
        return EINVAL;
    }
    if (!(l = calloc(1, sizeof *l))) {
        snprintf(why, why_size, "out of memory");
        return ENOMEM;
    }
    error = open_socket(r, kind ? SOCK_STREAM : SOCK_DGRAM, &a, len, &l->watched.fd);
    if (error) {
        free(l);
        snprintf(why, why_size, "%s: %s", spec, strerror(error));
        return error;
    }
    l->watched.kind = kind ? WATCH_STREAMS : WATCH_UDP;
    l->tls = kind == 2;
    describe(l, kinds[kind], spec + 4);
    l->next = r->listeners;
    r->listeners = l;
    error = receive_watch(r, &l->watched, EPOLLIN);
    snprintf(why, why_size, "%s: %s", spec, strerror(error));
    return error;
}

/* --- UDP ---------------------------------------------------------------------------- */

static void
note_drops(struct receive *r, struct listener *l, struct msghdr *h)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
            uint32_t drops;

            memcpy(&drops, CMSG_DATA(c), sizeof drops);
            collect_kernel_drops(r->collect, drops - l->drops);
            l->drops = drops;
        }
    }
}

/* Whether it has read all there was. */
static bool
receive_datagrams(struct receive *r, struct listener *l)
{
    struct ring *ring = r->ring;

    for (int round = 0; round < ROUNDS; round++) {
        int n = recvmmsg(l->watched.fd, ring->headers, DATAGRAMS, MSG_DONTWAIT, NULL);
        uint64_t now_ms;

        if (n <= 0) {
            return true; /* errors of earlier sends are of no use here */
        }
        now_ms = receive_time(r);
        l->messages += n;
        note_drops(r, l, &ring->headers[n - 1].msg_hdr);
        for (int i = 0; i < n; i++) {
            struct collect_peer peer;

            receive_peer(&ring->from[i], &peer);
            if (receive_allows(r, &peer.address)) {
                collect_message(r->collect, &peer, now_ms, ring->datagrams[i],
                                ring->headers[i].msg_len);
            }
        }
        ring_reset(ring, n);
        if (n < (int)DATAGRAMS) {
            return true;
        }
    }
    return false;
}

/* --- events ------------------------------------------------------------------------- */

int
receive_fd(const struct receive *r)
{
    return r->epoll;
}

void
receive_set_tls(struct receive *r, struct tls_config *tls)
{
    r->options.tls = tls;
}

unsigned
receive_run(struct receive *r)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(r->epoll, events, EVENTS, 0);
    bool rest = n > 0; /* streams do not: they would be slowed down */

    for (int i = 0; i < n; i++) {
        struct watched *w = events[i].data.ptr;

        switch (w->kind) {
        case WATCH_UDP:
            rest &= receive_datagrams(r, (struct listener *)w);
            break;
        case WATCH_STREAMS:
            receive_accept(r, (struct listener *)w);
            rest = false;
            break;
        case WATCH_CONNECTION:
            receive_read(r, (struct connection *)w);
            rest = false;
            break;
        }
    }
    return rest ? r->rest_ms : 0;
}

void
receive_tick(struct receive *r)
{
    uint64_t now_ms = receive_time(r);

    receive_expire(r, now_ms);
    collect_tick(r->collect, now_ms);
}

json_t *
receive_status(const struct receive *r)
{
    json_t *all = json_array();

    for (const struct listener *l = r->listeners; l; l = l->next) {
        json_array_append_new(
            all, json_pack("{s:s, s:I, s:I}", "listen", l->spec,
                           l->watched.kind == WATCH_UDP ? "datagrams" : "connections",
                           (json_int_t)l->messages, "kernel_drops", (json_int_t)l->drops));
    }
    return json_pack("{s:o, s:I, s:I, s:I}", "sockets", all, "connections",
                     (json_int_t)r->n_connections, "connections_refused", (json_int_t)r->refused,
                     "not_allowed", (json_int_t)r->not_allowed);
}
