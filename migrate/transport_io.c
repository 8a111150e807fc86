#include "transport_io.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tls_handshake.h"
#include "tls_stream.h"

/* A peer that does not answer while nothing is under way to it; else transport_peer.c. */
static void
watch_peer(int fd, unsigned dead_peer_ms)
{
    int on = 1, probes = 2, seconds = dead_peer_ms / 1000 / (probes + 1);

    seconds = seconds ? seconds : 1;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void
io_init(struct io *io, int fd, unsigned dead_peer_ms)
{
    memset(io, 0, sizeof *io);
    io->fd = fd;
    io->capture_fd = -1;
    watch_peer(fd, dead_peer_ms);
}

void
io_destroy(struct io *io)
{
    mig_tls_destroy(io->tls);
    if (io->fd >= 0) {
        close(io->fd);
        if (io->capture_fd >= 0) {
            close(io->capture_fd);
        }
    }
    free(io->flat);
    io->fd = -1;
    io->tls = NULL;
    io->flat = NULL;
}

/* BBR spreads what it sends by a timer for every few segments: on a network of the migration's own
 * CPU time for nothing. */
int
io_congestion(int fd, const char *name)
{
    static const char *const unpaced[] = {"cubic", "reno" /* needs no privilege */};
    char now[64] = "";
    socklen_t len = sizeof now - 1;

    if (name) {
        return setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, strlen(name)) ? errno : 0;
    }
    if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, now, &len) || strncmp(now, "bbr", 3)) {
        return 0;
    }
    for (unsigned i = 0; i < sizeof unpaced / sizeof *unpaced; i++) {
        if (!io_congestion(fd, unpaced[i])) {
            return 0;
        }
    }
    return 0;
}

void
io_cut(struct io *io)
{
    if (io->fd >= 0) {
        shutdown(io->fd, SHUT_RDWR);
    }
}

struct iovec *
io_advance(struct iovec *iov, unsigned *n_iov, size_t n)
{
    while (*n_iov && n >= iov->iov_len) {
        n -= iov->iov_len;
        iov++;
        (*n_iov)--;
    }
    if (*n_iov) {
        iov->iov_base = (uint8_t *)iov->iov_base + n;
        iov->iov_len -= n;
    }
    return iov;
}

/* --- writing -------------------------------------------------------------- */

static int
write_plain(struct io *io, struct iovec *iov, unsigned n)
{
    while (n) {
        struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
        ssize_t sent = sendmsg(io->fd, &m, MSG_NOSIGNAL);

        if (sent < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno == EAGAIN ? ETIMEDOUT : errno;
        }
        iov = io_advance(iov, &n, sent);
    }
    return 0;
}

/* The guest may write its memory meanwhile: the file gets what the wire gets. */
static int
capture(struct io *io, struct iovec *iov, unsigned *n)
{
    size_t len = 0, at = 0;

    for (unsigned i = 0; i < *n; i++) {
        len += iov[i].iov_len;
    }
    if (len > io->flat_room) {
        free(io->flat);
        io->flat = malloc(len);
        io->flat_room = io->flat ? len : 0;
        if (!io->flat) {
            return ENOMEM;
        }
    }
    for (unsigned i = 0; i < *n; at += iov[i++].iov_len) {
        memcpy(io->flat + at, iov[i].iov_base, iov[i].iov_len);
    }
    iov[0] = (struct iovec){.iov_base = io->flat, .iov_len = len};
    *n = 1;
    for (at = 0; at < len;) {
        ssize_t wrote = write(io->capture_fd, io->flat + at, len - at);

        if (wrote <= 0) {
            return wrote < 0 ? errno : EIO;
        }
        at += wrote;
    }
    return 0;
}

int
io_write(struct io *io, struct iovec *iov, unsigned n)
{
    uint64_t len = 0;
    int error = 0;

    if (io->capture_fd >= 0) {
        error = capture(io, iov, &n);
    }
    for (unsigned i = 0; i < n; i++) {
        len += iov[i].iov_len;
    }
    if (!error) {
        error =
            io->tls ? tls_stream_write(mig_tls_stream(io->tls), iov, n) : write_plain(io, iov, n);
    }
    if (!error) {
        atomic_fetch_add_explicit(&io->sent, len, memory_order_relaxed);
    }
    return error;
}

/* --- reading -------------------------------------------------------------- */

static uint64_t
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

int
io_wait(int fd, short events, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now = deadline_ns ? now_ns() : 0;
        struct pollfd p = {.fd = fd, .events = events};
        int n;

        if (deadline_ns && now >= deadline_ns) {
            return ETIMEDOUT;
        }
        n = poll(&p, 1, deadline_ns ? (int)((deadline_ns - now) / 1000000 + 1) : -1);
        if (n > 0) {
            return 0;
        }
        if (n < 0 && errno != EINTR) {
            return errno;
        }
    }
}

/* At least one byte into 'iov', and what comes along into the spill, which is empty. */
static int
read_plain(struct io *io, const struct iovec *iov, unsigned n, size_t wanted, size_t *got)
{
    struct iovec v[IO_IOV_MAX];
    struct msghdr m = {.msg_iov = v, .msg_iovlen = n + 1};
    int error = io->deadline_ns ? io_wait(io->fd, POLLIN, io->deadline_ns) : 0;
    ssize_t r;

    if (error) {
        return error;
    }
    memcpy(v, iov, n * sizeof *iov);
    v[n] = (struct iovec){.iov_base = io->spill, .iov_len = sizeof io->spill};
    do {
        r = recvmsg(io->fd, &m, 0);
    } while (r < 0 && errno == EINTR);
    if (r <= 0) {
        return r ? errno : ECONNRESET;
    }
    *got = (size_t)r < wanted ? (size_t)r : wanted;
    io->spill_at = 0;
    io->spill_end = r - *got;
    return 0;
}

static int
read_some(struct io *io, const struct iovec *iov, unsigned n, size_t wanted, size_t *got)
{
    size_t have = io->spill_end - io->spill_at;
    int error;

    if (have) {
        *got = have < iov->iov_len ? have : iov->iov_len;
        memcpy(iov->iov_base, io->spill + io->spill_at, *got);
        io->spill_at += *got;
        return 0;
    }
    if (!io->tls) {
        return read_plain(io, iov, n, wanted, got);
    }
    error = tls_stream_read(mig_tls_stream(io->tls), iov, wanted, io->deadline_ns, got);
    return error ? error : *got ? 0 : ECONNRESET;
}

int
io_read(struct io *io, struct iovec *iov, unsigned n)
{
    size_t wanted = 0, got = 0;

    for (unsigned i = 0; i < n; i++) {
        wanted += iov[i].iov_len;
    }
    for (iov = io_advance(iov, &n, 0); n; iov = io_advance(iov, &n, got)) {
        int error = read_some(io, iov, n, wanted, &got);

        if (error) {
            return error;
        }
        wanted -= got;
        atomic_fetch_add_explicit(&io->received, got, memory_order_relaxed);
    }
    return 0;
}

int
io_read_bytes(struct io *io, void *p, size_t n)
{
    return io_read(io, &(struct iovec){.iov_base = p, .iov_len = n}, n ? 1 : 0);
}
