/* From an address to N connections whose two ends know that they mean the same. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls_handshake.h"
#include "transport_priv.h"

enum {
    HANDSHAKE_TIMEOUT_MS = 10000,
    CANDIDATES_MAX = 32, /* connections that have not yet said who they are */
    ADDRESS_TEXT = INET6_ADDRSTRLEN + 10,
};

struct transport_listener {
    int fd;
    char address[ADDRESS_TEXT];
};

static uint64_t
handshake_deadline(const struct transport_config *config)
{
    unsigned ms = config->handshake_timeout_ms;

    return transport_now() + (ms ? ms : HANDSHAKE_TIMEOUT_MS) * 1000000ull;
}

/* --- addresses ------------------------------------------------------------ */

/* "IP:PORT" or "[IP6]:PORT". */
static int
parse_address(const char *text, struct sockaddr_storage *ss, socklen_t *len)
{
    struct sockaddr_in *v4 = (void *)ss;
    struct sockaddr_in6 *v6 = (void *)ss;
    const char *colon = strrchr(text, ':');
    char host[ADDRESS_TEXT], *rest;
    unsigned long port;
    size_t n;

    memset(ss, 0, sizeof *ss);
    if (!colon || colon == text || !colon[1] || (n = colon - text) >= sizeof host) {
        return EINVAL;
    }
    port = strtoul(colon + 1, &rest, 10);
    if (*rest || port > 65535) {
        return EINVAL;
    }
    memcpy(host, text, n);
    host[n] = 0;
    if (host[0] == '[' && host[n - 1] == ']') {
        host[n - 1] = 0;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        *len = sizeof *v6;
        return inet_pton(AF_INET6, host + 1, &v6->sin6_addr) == 1 ? 0 : EINVAL;
    }
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    *len = sizeof *v4;
    return inet_pton(AF_INET, host, &v4->sin_addr) == 1 ? 0 : EINVAL;
}

static int
format_address(int fd, char out[ADDRESS_TEXT])
{
    struct sockaddr_storage ss;
    struct sockaddr_in *v4 = (void *)&ss;
    struct sockaddr_in6 *v6 = (void *)&ss;
    socklen_t len = sizeof ss;
    char host[INET6_ADDRSTRLEN];

    if (getsockname(fd, (struct sockaddr *)&ss, &len)) {
        return errno;
    }
    if (ss.ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        snprintf(out, ADDRESS_TEXT, "[%s]:%u", host, ntohs(v6->sin6_port));
    } else {
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(out, ADDRESS_TEXT, "%s:%u", host, ntohs(v4->sin_port));
    }
    return 0;
}

int
transport_listen(const char *address, struct transport_listener **out, char why[TRANSPORT_WHY])
{
    struct transport_listener *l = calloc(1, sizeof *l);
    struct sockaddr_storage ss;
    socklen_t len;
    int error, on = 1;

    *out = NULL;
    if (!l) {
        return ENOMEM;
    }
    l->fd = -1;
    error = parse_address(address, &ss, &len);
    if (!error) {
        l->fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        error = l->fd < 0 ? errno : 0;
    }
    if (!error) {
        setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        error = bind(l->fd, (struct sockaddr *)&ss, len) || listen(l->fd, 64)
                    ? errno
                    : format_address(l->fd, l->address);
    }
    if (error) {
        snprintf(why, TRANSPORT_WHY, "%s: %s", address, strerror(error));
        transport_listener_close(l);
        return error;
    }
    *out = l;
    return 0;
}

const char *
transport_listener_address(const struct transport_listener *l)
{
    return l->address;
}

bool
transport_listener_wait(const struct transport_listener *l, int timeout_ms)
{
    struct pollfd p = {.fd = l->fd, .events = POLLIN};

    return poll(&p, 1, timeout_ms) == 1;
}

void
transport_listener_close(struct transport_listener *l)
{
    if (l) {
        if (l->fd >= 0) {
            close(l->fd);
        }
        free(l);
    }
}

/* --- hello ---------------------------------------------------------------- */

static int
binder_of(struct io *io, const uint8_t hello[MIG_HELLO], uint8_t binder[MIG_BINDER])
{
    memset(binder, 0, MIG_BINDER);
    return io->tls ? mig_tls_export(io->tls, MIG_BINDER_LABEL, hello, MIG_HELLO_BOUND, binder,
                                    MIG_BINDER)
                   : 0;
}

static int
send_hello(struct io *io, struct mig_hello *h)
{
    uint8_t bytes[MIG_HELLO];
    int error;

    mig_hello_put(bytes, h);
    error = binder_of(io, bytes, h->binder);
    mig_hello_put(bytes, h);
    return error ? error
                 : io_write(io, &(struct iovec){.iov_base = bytes, .iov_len = sizeof bytes}, 1);
}

/* EPROTO: it is not about what 'own' is about. */
static int
receive_hello(struct io *io, const struct mig_hello *own, struct mig_hello *got, const char **why)
{
    uint8_t bytes[MIG_HELLO], binder[MIG_BINDER], differ = 0;
    int error = io_read_bytes(io, bytes, sizeof bytes);

    *why = "no hello";
    error = error ? error : mig_hello_get(bytes, got, why);
    error = error ? error : mig_hello_match(own, got, why);
    error = error ? error : binder_of(io, bytes, binder);
    if (error) {
        return error;
    }
    for (unsigned i = 0; i < sizeof binder; i++) {
        differ |= binder[i] ^ got->binder[i];
    }
    *why = "hello: bound to another session";
    return differ ? EPROTO : 0;
}

static void
fill_hello(struct mig_hello *h, const struct transport_config *config, bool source)
{
    *h = (struct mig_hello){
        .version = MIG_VERSION,
        .flags = (source ? MIG_HELLO_SOURCE : 0) | (config->tls ? MIG_HELLO_TLS : 0) |
                 (config->chunks ? MIG_HELLO_CHUNKS : 0),
        .n_connections = config->n_connections,
        .epoch = config->identity.epoch,
        .n_pages = source && !config->chunks ? config->n_pages : 0,
    };
    memcpy(h->migration, config->identity.migration, sizeof h->migration);
    memcpy(h->vm, config->identity.vm, sizeof h->vm);
}

static unsigned
dead_peer_ms(const struct transport_config *config)
{
    return config->dead_peer_ms ? config->dead_peer_ms : DEAD_PEER_MS;
}

static int
open_capture(struct connection *c, const struct transport_config *config)
{
    char path[4096];

    if (!config->capture) {
        return 0;
    }
    snprintf(path, sizeof path, "%s/conn%u.%s", config->capture, c->index,
             c->t->source ? "source" : "destination");
    c->io.capture_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return c->io.capture_fd < 0 ? errno : 0;
}

/* --- the source ----------------------------------------------------------- */

/* The socket blocks from here on. */
static int
connect_by(int fd, const struct sockaddr_storage *ss, socklen_t len, uint64_t deadline_ns)
{
    int64_t left_ms = (int64_t)(deadline_ns - transport_now()) / 1000000;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    socklen_t size = sizeof(int);
    int error;

    if (connect(fd, (const struct sockaddr *)ss, len) && errno != EINPROGRESS) {
        return errno;
    }
    if (poll(&p, 1, left_ms > 0 ? left_ms : 0) != 1) {
        return ETIMEDOUT;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size)) {
        return errno;
    }
    return error ? error : fcntl(fd, F_SETFL, 0) ? errno : 0;
}

static int
connect_socket(const char *address, const char *congestion, uint64_t deadline_ns, int *out,
               char why[TRANSPORT_WHY])
{
    struct sockaddr_storage ss;
    socklen_t len;
    int fd, error = parse_address(address, &ss, &len);

    *out = -1;
    fd = error ? -1 : socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    error = error ? error : fd < 0 ? errno : io_congestion(fd, congestion);
    if (error && fd >= 0) {
        snprintf(why, TRANSPORT_WHY, "congestion control %s: %s", congestion, strerror(error));
        close(fd);
        return error;
    }
    error = error ? error : connect_by(fd, &ss, len, deadline_ns);
    if (error) {
        snprintf(why, TRANSPORT_WHY, "%s: %s", address, strerror(error));
        if (fd >= 0) {
            close(fd);
        }
        return error;
    }
    *out = fd;
    return 0;
}

/* The destination's reason follows its hello. */
static void
read_refusal(struct io *io, char why[TRANSPORT_WHY])
{
    uint8_t head[MIG_RECORD_HEAD], body[MIG_TEXT_MAX + 64];
    struct mig_record r;
    struct mig_msg m;
    const char *fault;

    if (!io_read_bytes(io, head, sizeof head) && !mig_record_get(head, false, 0, &r, &fault) &&
        r.type == MIG_ABORT && r.length <= sizeof body && !io_read_bytes(io, body, r.length) &&
        mig_record_check_ok(head, body, r.length) &&
        !mig_msg_get(MIG_ABORT, body, r.length, &m, &fault)) {
        snprintf(why, TRANSPORT_WHY, "the destination refuses: %.200s", m.abort.text);
    }
}

static int
connect_one(struct connection *c, const char *address, const struct transport_config *config,
            struct tls_context *tls, uint64_t deadline_ns, char why[TRANSPORT_WHY])
{
    struct mig_hello own = c->t->hello, got;
    const char *fault = NULL;
    int fd, error = connect_socket(address, config->congestion, deadline_ns, &fd, why);

    if (error) {
        return error;
    }
    io_init(&c->io, fd, dead_peer_ms(config));
    c->io.deadline_ns = deadline_ns;
    error = tls ? mig_tls_handshake(tls, fd, deadline_ns, &c->io.tls, why, TRANSPORT_WHY) : 0;
    if (error) {
        return error;
    }
    own.index = c->index;
    error = open_capture(c, config);
    error = error ? error : send_hello(&c->io, &own);
    if (error) {
        snprintf(why, TRANSPORT_WHY, "%s: %s", address, strerror(error));
        return error;
    }
    error = receive_hello(&c->io, &own, &got, &fault);
    if (error) {
        snprintf(why, TRANSPORT_WHY, "%s: %s", address, error == EPROTO ? fault : strerror(error));
    } else if (got.flags & MIG_HELLO_REFUSED) {
        snprintf(why, TRANSPORT_WHY, "the destination refuses");
        read_refusal(&c->io, why);
        error = EPROTO;
    }
    c->io.deadline_ns = 0;
    return error;
}

int
transport_connect(const char *address, const struct transport_config *config,
                  struct transport **out, char why[TRANSPORT_WHY])
{
    uint64_t deadline = handshake_deadline(config);
    struct tls_context *tls = NULL;
    struct transport *t;
    int error;

    *out = NULL;
    snprintf(why, TRANSPORT_WHY, "cannot be set up");
    error = transport_create(config, true, &t);
    if (error) {
        return error;
    }
    fill_hello(&t->hello, config, true);
    if (getrandom(t->hello.key, sizeof t->hello.key, 0) != sizeof t->hello.key) {
        error = EAGAIN;
    }
    if (!error && !config->chunks) {
        error = mig_digest_init(&t->digest, t->n_pages, t->hello.key);
    }
    if (!error && config->tls) {
        error = mig_tls_context_create(config->tls, false, &tls, why, TRANSPORT_WHY);
    }
    for (unsigned i = 0; i < t->n && !error; i++) {
        error = connect_one(&t->c[i], address, config, tls, deadline, why);
    }
    mig_tls_context_destroy(tls);
    error = error ? error : transport_start(t);
    if (error) {
        transport_close(t);
        return error;
    }
    *out = t;
    return 0;
}

/* --- the destination ------------------------------------------------------ */

struct gathering;

/* Somebody who connected. */
struct candidate {
    struct gathering *g;
    pthread_t thread;
    struct io io;
    uint64_t since_ns;
    bool used;
    /* Under the gathering's lock: done; has a place among the connections; gives its own up to
     * another candidate. */
    bool done, admitted, evicted;
};

struct gathering {
    const struct transport_config *config;
    struct transport *t;
    struct tls_context *tls;
    pthread_mutex_t lock;
    int wake; /* eventfd: a candidate is done */
    bool claimed[TRANSPORT_CONNECTIONS_MAX];
    unsigned n_claimed, n_there; /* are somebody's; and have been greeted */
    char why[TRANSPORT_WHY];     /* the last one that was refused */
    struct candidate candidates[CANDIDATES_MAX];
};

static void
send_refusal(struct io *io, struct mig_hello *own, const struct mig_hello *got, const char *text)
{
    struct mig_msg m = {.type = MIG_ABORT, .abort = {.code = MIG_ABORT_REFUSED}};
    uint8_t head[MIG_RECORD_HEAD], body[MIG_TEXT_MAX + 64];
    struct iovec iov[2] = {{.iov_base = head, .iov_len = sizeof head}, {.iov_base = body}};

    /* What is the source's to say, so that it reads on. */
    own->flags |= MIG_HELLO_REFUSED;
    own->index = got->index;
    own->n_connections = got->n_connections;
    own->n_pages = got->n_pages;
    memcpy(own->key, got->key, sizeof own->key);
    snprintf(m.abort.text, sizeof m.abort.text, "%s", text);
    iov[1].iov_len = mig_msg_put(body, sizeof body, &m);
    mig_record_put(head, MIG_ABORT, iov[1].iov_len, 0, body, iov[1].iov_len);
    if (!send_hello(io, own)) {
        io_write(io, iov, 2);
    }
}

/* With the lock.  Of the first hello that fits we take what is the source's to say. */
static const char *
claim_place(struct gathering *g, const struct mig_hello *got)
{
    struct transport *t = g->t;

    if (got->n_connections != t->n) {
        return "another number of connections";
    }
    if (g->claimed[got->index]) {
        return "this connection is there already";
    }
    if (!g->n_claimed) {
        t->hello.n_pages = got->n_pages;
        memcpy(t->hello.key, got->key, sizeof got->key);
    } else if (t->hello.n_pages != got->n_pages ||
               memcmp(t->hello.key, got->key, sizeof got->key)) {
        return "another memory than the first connection's";
    }
    g->claimed[got->index] = true;
    g->n_claimed++;
    return NULL;
}

/* The connection becomes the transport's, as number own->index. */
static int
take_place(struct candidate *k, struct mig_hello *own)
{
    struct gathering *g = k->g;
    struct connection *c = &g->t->c[own->index];
    int error;

    pthread_mutex_lock(&g->lock);
    c->io = k->io;
    k->io.fd = -1;
    k->io.tls = NULL;
    pthread_mutex_unlock(&g->lock);
    error = open_capture(c, g->config);
    error = error ? error : send_hello(&c->io, own);
    c->io.deadline_ns = 0;
    if (error) {
        io_destroy(&c->io);
        pthread_mutex_lock(&g->lock);
        g->claimed[own->index] = false;
        g->n_claimed--;
        pthread_mutex_unlock(&g->lock);
    }
    return error;
}

static int
greet(struct candidate *k, char why[TRANSPORT_WHY])
{
    struct gathering *g = k->g;
    struct mig_hello own, got = {0};
    const char *fault = NULL;
    int error = 0;

    pthread_mutex_lock(&g->lock);
    own = g->t->hello; /* another candidate may fill it in */
    pthread_mutex_unlock(&g->lock);
    if (g->tls) {
        error =
            mig_tls_handshake(g->tls, k->io.fd, k->io.deadline_ns, &k->io.tls, why, TRANSPORT_WHY);
        if (error) {
            return error;
        }
    }
    error = receive_hello(&k->io, &own, &got, &fault);
    if (!error) {
        pthread_mutex_lock(&g->lock);
        fault = k->evicted ? "too many connections at once" : claim_place(g, &got);
        k->admitted = !fault;
        own = g->t->hello;
        pthread_mutex_unlock(&g->lock);
        error = fault ? EPROTO : 0;
    }
    if (error) {
        snprintf(why, TRANSPORT_WHY, "%s", fault);
        /* Who does not even speak our language gets no answer. */
        if (error == EPROTO && got.version) {
            send_refusal(&k->io, &own, &got, fault);
        }
        return error;
    }
    own.index = got.index;
    return take_place(k, &own);
}

static void *
candidate_main(void *aux)
{
    struct candidate *k = aux;
    struct gathering *g = k->g;
    char why[TRANSPORT_WHY] = "";
    int error = greet(k, why);

    pthread_mutex_lock(&g->lock);
    if (error) {
        snprintf(g->why, sizeof g->why, "%s", *why ? why : strerror(error));
    } else {
        g->n_there++;
    }
    k->done = true;
    pthread_mutex_unlock(&g->lock);
    eventfd_write(g->wake, 1);
    return NULL;
}

/* Frees the places of those who are done; with 'all', of everybody. */
static void
collect(struct gathering *g, bool all)
{
    for (unsigned i = 0; i < CANDIDATES_MAX; i++) {
        struct candidate *k = &g->candidates[i];
        bool done;

        if (!k->used) {
            continue;
        }
        pthread_mutex_lock(&g->lock);
        done = k->done;
        if (all && !done) {
            io_cut(&k->io);
        }
        pthread_mutex_unlock(&g->lock);
        if (done || all) {
            pthread_join(k->thread, NULL);
            io_destroy(&k->io);
            k->used = false;
        }
    }
}

/* Of those that have not said who they are the one that has had most time for it makes room: a
 * source needs little, and strangers who say nothing shall not keep it out. */
static struct candidate *
evict(struct gathering *g)
{
    struct candidate *oldest = NULL;

    pthread_mutex_lock(&g->lock);
    for (unsigned i = 0; i < CANDIDATES_MAX; i++) {
        struct candidate *k = &g->candidates[i];

        if (!k->admitted && (!oldest || k->since_ns < oldest->since_ns)) {
            oldest = k;
        }
    }
    if (oldest) {
        oldest->evicted = true;
        io_cut(&oldest->io);
    }
    pthread_mutex_unlock(&g->lock);
    if (oldest) {
        pthread_join(oldest->thread, NULL);
        io_destroy(&oldest->io);
        oldest->used = false;
    }
    return oldest;
}

static void
admit(struct gathering *g, int fd)
{
    struct candidate *k = NULL;

    for (unsigned i = 0; i < CANDIDATES_MAX && !k; i++) {
        k = g->candidates[i].used ? NULL : &g->candidates[i];
    }
    k = k ? k : evict(g);
    if (!k || fcntl(fd, F_SETFL, 0)) {
        close(fd);
        return;
    }
    io_init(&k->io, fd, dead_peer_ms(g->config));
    k->io.deadline_ns = handshake_deadline(g->config);
    k->since_ns = transport_now();
    k->g = g;
    k->done = k->admitted = k->evicted = false;
    k->used = !pthread_create(&k->thread, NULL, candidate_main, k);
    if (!k->used) {
        io_destroy(&k->io);
    }
}

/* Until all connections are there. */
static int
gather(struct gathering *g, int listener, int timeout_ms, int cancel_fd)
{
    struct pollfd p[3] = {{.fd = listener, .events = POLLIN},
                          {.fd = g->wake, .events = POLLIN},
                          {.fd = cancel_fd, .events = POLLIN}};
    uint64_t deadline = transport_now() + (timeout_ms > 0 ? timeout_ms : 0) * 1000000ull;

    for (;;) {
        int64_t left_ms = ((int64_t)(deadline - transport_now()) + 999999) / 1000000;
        eventfd_t drain;
        unsigned n;
        int fd;

        pthread_mutex_lock(&g->lock);
        n = g->n_there;
        pthread_mutex_unlock(&g->lock);
        if (n == g->t->n) {
            return 0;
        }
        if (timeout_ms >= 0 && left_ms <= 0) {
            return ETIMEDOUT;
        }
        poll(p, 3, timeout_ms < 0 ? -1 : left_ms);
        if (cancel_fd >= 0 && p[2].revents) {
            return ECANCELED;
        }
        if (p[1].revents) {
            eventfd_read(g->wake, &drain);
        }
        collect(g, false);
        if (p[0].revents && (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
            admit(g, fd);
        }
    }
}

int
transport_accept(struct transport_listener *l, const struct transport_config *config,
                 int timeout_ms, int cancel_fd, struct transport **out, char why[TRANSPORT_WHY])
{
    struct gathering *g = calloc(1, sizeof *g);
    int error;

    *out = NULL;
    snprintf(why, TRANSPORT_WHY, "cannot be set up");
    if (!g) {
        return ENOMEM;
    }
    g->config = config;
    pthread_mutex_init(&g->lock, NULL);
    g->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    error = g->wake < 0 ? errno : transport_create(config, false, &g->t);
    if (error) {
        goto out;
    }
    fill_hello(&g->t->hello, config, false);
    if (config->tls) {
        error = mig_tls_context_create(config->tls, true, &g->tls, why, TRANSPORT_WHY);
    }
    if (!error) {
        error = gather(g, l->fd, timeout_ms, cancel_fd);
        collect(g, true);
        if (error) {
            snprintf(why, TRANSPORT_WHY, "%s%s%.200s", strerror(error),
                     *g->why ? "; refused: " : "", g->why);
        }
    }
    error = error ? error : transport_start(g->t);
    if (error) {
        transport_close(g->t);
    } else {
        *out = g->t;
    }
    mig_tls_context_destroy(g->tls);
out:
    if (g->wake >= 0) {
        close(g->wake);
    }
    pthread_mutex_destroy(&g->lock);
    free(g);
    return error;
}
