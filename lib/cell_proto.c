/* cell_proto: see cell_proto.h. */
#include "cell_proto.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* Room for more descriptors than are taken, so that a surplus is seen. */
#define FDS_ROOM 4

int
cell_send(int sock, const void *bytes, size_t n, int fd)
{
    struct iovec iov = {.iov_base = (void *)bytes, .iov_len = n};
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        msg.msg_control = control.room;
        msg.msg_controllen = sizeof control.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t sent;
    do {
        sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        return errno == ECONNRESET ? EPIPE : errno == EAGAIN ? ETIMEDOUT : errno;
    }
    return (size_t)sent == n ? 0 : EPROTO;
}

/* Keeps the first descriptor that came, closes the rest; returns how many. */
static unsigned
take_fds(struct msghdr *msg, int *fd)
{
    unsigned n = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        for (size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int got;
            memcpy(&got, CMSG_DATA(c) + at, sizeof got);
            if (n++) {
                close(got);
            } else {
                *fd = got;
            }
        }
    }
    return n;
}

int
cell_recv(int sock, void *bytes, size_t room, size_t *n, int *fd)
{
    struct iovec iov = {.iov_base = bytes, .iov_len = room};
    union {
        char room[CMSG_SPACE(FDS_ROOM * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.room,
        .msg_controllen = sizeof control.room,
    };
    ssize_t got;

    *fd = -1;
    do {
        got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return errno == ECONNRESET ? EPIPE : errno == EAGAIN ? ETIMEDOUT : errno;
    }
    if (take_fds(&msg, fd) > 1 || msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        got = -1;
    }
    if (got <= 0) {
        if (*fd >= 0) {
            close(*fd);
            *fd = -1;
        }
        return got ? EPROTO : EPIPE;
    }
    *n = (size_t)got;
    return 0;
}

static int
connect_to(const char *path, int flags, int *fdp)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct timeval wait = {.tv_sec = CELL_CALL_TIMEOUT_MS / 1000};

    if (strlen(path) >= sizeof to.sun_path) {
        return ENAMETOOLONG;
    }
    strcpy(to.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0);
    if (fd < 0) {
        return errno;
    }
    /* First, since a cell that does not accept holds connect() up as well. */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) ||
        connect(fd, (struct sockaddr *)&to, sizeof to)) {
        int error = errno;
        close(fd);
        return error;
    }
    *fdp = fd;
    return 0;
}

int
cell_connect(struct cell_client *c, const char *path)
{
    *c = (struct cell_client){.fd = -1};
    return connect_to(path, 0, &c->fd);
}

bool
cell_listens(const char *path)
{
    int fd = -1, error = connect_to(path, SOCK_NONBLOCK, &fd);

    if (fd >= 0) {
        close(fd);
    }
    return error != ECONNREFUSED && error != ENOENT; /* EAGAIN: it has not accepted others yet */
}

void
cell_disconnect(struct cell_client *c)
{
    if (c->fd >= 0) {
        close(c->fd);
        c->fd = -1;
    }
}

/* Checks an answer and copies it out; 'fd' is ours until here. */
static int
take_reply(const struct cell_client *c, const struct cell_rep *rep, size_t n, int fd, void *reply,
           size_t *n_reply, int *fd_out)
{
    int error = EPROTO;
    size_t room = n_reply ? *n_reply : 0;

    if (n >= CELL_REP_HDR && rep->magic == CELL_PROTO_MAGIC && rep->seq == c->seq &&
        rep->len == n - CELL_REP_HDR) {
        error = (int)rep->error;
        if (!error && rep->len > room) {
            error = EPROTO;
        }
    }
    if (!error && n_reply) {
        memcpy(reply, rep->data, rep->len);
        *n_reply = rep->len;
    }
    if (!error && fd_out) {
        *fd_out = fd;
    } else if (fd >= 0) {
        close(fd);
    }
    return error;
}

int
cell_call(struct cell_client *c, enum cell_op op, uint64_t arg, const void *data, size_t n,
          int fd_in, void *reply, size_t *n_reply, int *fd_out)
{
    struct cell_req req = {
        .magic = CELL_PROTO_MAGIC,
        .version = CELL_PROTO_VERSION,
        .op = (uint16_t)op,
        .seq = ++c->seq,
        .len = (uint32_t)n,
        .arg = arg,
    };
    struct cell_rep rep;
    size_t got = 0;
    int fd = -1;

    if (fd_out) {
        *fd_out = -1;
    }
    if (c->fd < 0) {
        return c->lost ? c->lost : EPIPE;
    }
    if (n > CELL_DATA_MAX) {
        return EMSGSIZE;
    }
    if (n) {
        memcpy(req.data, data, n);
    }
    int error = cell_send(c->fd, &req, CELL_REQ_HDR + n, fd_in);
    error = error ? error : cell_recv(c->fd, &rep, sizeof rep, &got, &fd);
    if (error) {
        /* What comes later would be taken for another's answer. */
        cell_disconnect(c);
        c->lost = error;
        return error;
    }
    return take_reply(c, &rep, got, fd, reply, n_reply, fd_out);
}

int
cell_ask(struct cell_client *c, enum cell_op op, uint64_t arg)
{
    return cell_call(c, op, arg, NULL, 0, -1, NULL, NULL, NULL);
}

int
cell_status(struct cell_client *c, struct cell_status *status)
{
    size_t n = sizeof *status;
    int error = cell_call(c, CELL_OP_STATUS, 0, NULL, 0, -1, status, &n, NULL);

    return error ? error : n == sizeof *status ? 0 : EPROTO;
}
