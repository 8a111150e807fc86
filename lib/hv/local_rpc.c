/* See local_rpc.h. */
#include "local_rpc.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <xenstore.h>

int
local_rpc_open(struct local_rpc *rpc, const char *dir)
{
    const struct timeval timeout = {.tv_sec = LOCAL_RPC_TIMEOUT_S};
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int error;

    if (snprintf(sun.sun_path, sizeof sun.sun_path, "%s/broker", dir) >= sizeof sun.sun_path) {
        return ENAMETOOLONG;
    }
    rpc->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (rpc->fd < 0) {
        return errno;
    }
    if (setsockopt(rpc->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) ||
        setsockopt(rpc->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) ||
        connect(rpc->fd, (struct sockaddr *)&sun, sizeof sun)) {
        error = errno == EAGAIN ? ETIMEDOUT : errno;
        close(rpc->fd);
        return error;
    }
    pthread_mutex_init(&rpc->lock, NULL);
    rpc->seq = 0;
    return 0;
}

void
local_rpc_close(struct local_rpc *rpc)
{
    close(rpc->fd);
    pthread_mutex_destroy(&rpc->lock);
}

/* Takes the descriptors out of 'msg'.  Returns how many there were; those
 * past 'n_fds' are closed. */
static unsigned
take_fds(struct msghdr *msg, int *fds, unsigned n_fds)
{
    unsigned n = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        unsigned got = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        for (unsigned i = 0; i < got; i++, n++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (n < n_fds) {
                fds[n] = fd;
            } else {
                close(fd);
            }
        }
    }
    return n;
}

static void
close_fds(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        close(fds[i]);
    }
}

/* Receives one reply.  '*n_fds' is room on entry, the number on return. */
static int
receive(struct local_rpc *rpc, struct local_rep *rep, int *fds, unsigned *n_fds)
{
    union {
        char buf[CMSG_SPACE(LOCAL_MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = rep, .iov_len = sizeof *rep};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.buf,
                         .msg_controllen = sizeof control.buf};
    unsigned room = *n_fds;
    ssize_t len;

    do {
        len = recvmsg(rpc->fd, &msg, MSG_CMSG_CLOEXEC);
    } while (len < 0 && errno == EINTR);
    *n_fds = 0;
    if (len <= 0) {
        return len == 0 || errno == ECONNRESET     ? EPIPE
               : errno == EAGAIN || errno == EINTR ? ETIMEDOUT
                                                   : errno;
    }
    unsigned n = take_fds(&msg, fds, room);
    *n_fds = n < room ? n : room;
    if (len < LOCAL_REP_HDR || rep->n > LOCAL_MAP_MAX ||
        len != LOCAL_REP_HDR + rep->n * sizeof rep->words[0] || n > room) {
        close_fds(fds, *n_fds);
        *n_fds = 0;
        return EPROTO;
    }
    return 0;
}

int
local_rpc_call(struct local_rpc *rpc, struct local_req *req, unsigned n_refs, struct local_rep *rep,
               int *fds, unsigned n_fds)
{
    size_t len = LOCAL_REQ_HDR + n_refs * sizeof req->refs[0];
    int late_fds[LOCAL_MAX_FDS];
    int error = 0;

    pthread_mutex_lock(&rpc->lock);
    req->seq = ++rpc->seq;
    ssize_t sent;
    do {
        sent = send(rpc->fd, req, len, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent != len) {
        error = errno == EAGAIN ? ETIMEDOUT : errno == ECONNRESET ? EPIPE : errno;
    }
    while (!error) {
        unsigned got = LOCAL_MAX_FDS;

        error = receive(rpc, rep, late_fds, &got);
        if (error) {
            break;
        }
        if (rep->seq != req->seq) {
            close_fds(late_fds, got); /* the answer to a call that timed out */
            continue;
        }
        error = rep->error;
        if (!error && got != n_fds) {
            error = EPROTO;
        }
        if (error) {
            close_fds(late_fds, got);
        } else if (n_fds) {
            memcpy(fds, late_fds, n_fds * sizeof *fds);
        }
        break;
    }
    pthread_mutex_unlock(&rpc->lock);
    return error;
}

/* --- the store --------------------------------------------------------------- */

/* libxenstore takes its socket from the environment only.  The variable is
 * put there once, as a buffer of ours that is rewritten in place: setenv()
 * would reallocate the environment under other threads' getenv(). */
static pthread_mutex_t xs_path_lock = PTHREAD_MUTEX_INITIALIZER;
static char xs_path_env[sizeof "XENSTORED_PATH=" + PATH_MAX] = "XENSTORED_PATH=";

/* Is there a server?  Without one xs_open() would go on to a real Xen's. */
static int
probe_socket(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int error, fd;

    if (snprintf(sun.sun_path, sizeof sun.sun_path, "%s", path) >= sizeof sun.sun_path) {
        return ENAMETOOLONG;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno;
    }
    error = connect(fd, (struct sockaddr *)&sun, sizeof sun) ? errno : 0;
    close(fd);
    return error;
}

int
local_xs_open(const char *dir, const char *name, struct xs_handle **xs)
{
    char *path = strchr(xs_path_env, '=') + 1;
    int error;

    *xs = NULL;
    pthread_mutex_lock(&xs_path_lock);
    snprintf(path, PATH_MAX, "%s/%s", dir, name);
    if (getenv("XENSTORED_PATH") != path) {
        putenv(xs_path_env);
    }
    error = probe_socket(path);
    if (!error) {
        errno = 0;
        *xs = xs_open(0);
        error = *xs ? 0 : errno ? errno : ECONNREFUSED;
    }
    pthread_mutex_unlock(&xs_path_lock);
    return error;
}
