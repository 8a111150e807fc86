/* Late frames between a switch's socket (RUN_DIR/weft/move-PORT) and the
 * migration's stream: vif's rank (4 bytes, little-endian), 0 (4), the switch's
 * message as it is. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "bytes.h"
#include "network_priv.h"

#define PREFIX 8u
#define SEND_MS 1000
_Static_assert(sizeof((struct network_vif *)0)->port + 32 <=
                   sizeof((struct sockaddr_un *)0)->sun_path,
               "a short name fits");

static int
connect_vif(struct end_vif *v)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char dir[sizeof v->is.switch_dir + 8];
    int fd, at, error = 0;

    /* By a short name: run directories may be deeper than sun_path. */
    snprintf(dir, sizeof dir, "%s/weft", v->is.switch_dir);
    at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (at < 0) {
        return errno;
    }
    snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/move-%s", at, v->is.port);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a)) {
        error = errno;
        if (fd >= 0) {
            close(fd);
        }
    }
    close(at);
    v->socket = error ? -1 : fd;
    return error;
}

static void
close_vif(struct network *net, struct end_vif *v)
{
    if (v->socket >= 0) {
        close(v->socket); /* and out of the epoll set */
        v->socket = -1;
        if (net->n_open && !--net->n_open && net->all_closed >= 0) {
            (void)!eventfd_write(net->all_closed, 1);
        }
    }
}

void
late_close(struct network *net)
{
    for (size_t i = 0; i < net->n; i++) {
        close_vif(net, &net->vifs[i]);
    }
    if (net->all_closed >= 0) {
        close(net->all_closed);
    }
    if (net->epoll >= 0) {
        close(net->epoll);
    }
}

/* --- source ------------------------------------------------------------------------- */

static int
watch_vif(struct network *net, size_t i)
{
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = i};
    struct end_vif *v = &net->vifs[i];

    if (v->is.stock || connect_vif(v)) {
        return 0; /* its port is gone already */
    }
    net->n_open++;
    return epoll_ctl(net->epoll, EPOLL_CTL_ADD, v->socket, &e) ? errno : 0;
}

int
network_late_fd(struct network *net, int *fd)
{
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = NETWORK_VIFS_MAX};
    int error = 0;

    if (net->epoll < 0) {
        net->epoll = epoll_create1(EPOLL_CLOEXEC);
        net->all_closed = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (net->epoll < 0 || net->all_closed < 0 ||
            epoll_ctl(net->epoll, EPOLL_CTL_ADD, net->all_closed, &e)) {
            return errno;
        }
        for (size_t i = 0; i < net->n && !error; i++) {
            error = watch_vif(net, i);
        }
        if (!net->n_open) {
            (void)!eventfd_write(net->all_closed, 1);
        }
    }
    *fd = net->epoll;
    return error;
}

int
network_late(struct network *net, uint8_t *buf, size_t *len)
{
    struct epoll_event e[NETWORK_VIFS_MAX + 1];
    int n = epoll_wait(net->epoll, e, NETWORK_VIFS_MAX + 1, 0);

    for (int i = 0; i < n; i++) {
        struct end_vif *v = &net->vifs[e[i].data.u64];
        ssize_t got;

        if (e[i].data.u64 >= net->n) {
            continue;
        }
        got = recv(v->socket, buf + PREFIX, NETWORK_LATE_MAX - PREFIX, MSG_DONTWAIT);
        if (got > 0) {
            put_le32(buf, e[i].data.u64);
            put_le32(buf + 4, 0);
            *len = PREFIX + got;
            return 0;
        }
        if (!got || (errno != EAGAIN && errno != EINTR)) {
            close_vif(net, v);
        }
    }
    return net->n_open ? EAGAIN : ENOENT;
}

/* --- destination ---------------------------------------------------------------------- */

int
network_feed(struct network *net, const uint8_t *data, size_t len)
{
    const struct timeval most = {.tv_sec = SEND_MS / 1000};
    struct end_vif *v;
    int error;

    if (len <= PREFIX || len > NETWORK_LATE_MAX || get_le32(data) >= net->n || get_le32(data + 4)) {
        return EINVAL;
    }
    v = &net->vifs[get_le32(data)];
    if (v->is.stock) {
        network_lose(net, v, "late frames: Open vSwitch's guest takes none");
        return 0;
    }
    if (!v->fed) {
        v->fed = true;
        if (!connect_vif(v)) {
            net->n_open++;
            setsockopt(v->socket, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
        }
    }
    if (v->socket < 0) {
        return ENOTCONN;
    }
    error = send(v->socket, data + PREFIX, len - PREFIX, MSG_NOSIGNAL) < 0 ? errno : 0;
    if (error == EAGAIN) {
        /* Not once more for each frame: a guest may wait for its memory meanwhile. */
        network_lose(net, v, "late frames: the switch does not take them");
        close_vif(net, v);
    }
    return error;
}
