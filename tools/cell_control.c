/* cell_control: the control socket, on the main thread; see lib/cell_proto.h.
 *
 * A client's message is copied once, checked, then acted upon; a client that sends
 * something else is cut off.  What a client began and must not outlive it (dirty
 * log, throttle) is bound to its connection. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cell_host.h"

#define CLIENTS 16u
#define SHUTDOWN_MS 5000

enum end { END_NOT, END_CLEAN, END_HARD };

struct client {
    int fd; /* -1: free */
    bool has_dirty_log, has_throttle;
};

struct control {
    struct cell *cell;
    struct client clients[CLIENTS];
    enum end end;
    uint64_t end_by_ns; /* of a clean end */
    int destroyer;      /* the client to answer; -1: none */
    uint32_t destroyer_seq;
};

struct answer {
    struct cell_rep rep;
    int fd; /* goes along; stays its owner's */
};

static int listen_fd = -1;

/* --- operations ---------------------------------------------------------------------- */

static void
put(struct answer *a, const void *data, size_t n)
{
    memcpy(a->rep.data, data, n);
    a->rep.len = (uint32_t)n;
}

static void
put_status(struct cell *c, struct answer *a)
{
    struct cell_status s = {
        .vif_state = atomic_load(&c->vif_state),
        .base = CELL_BASE,
        .n_pages = c->n_pages,
        .connected = atomic_load(&c->connected),
        .connected_ns = atomic_load(&c->connected_ns),
        .first_rx_ns = atomic_load(&c->first_rx_ns),
    };
    clockid_t clock;
    struct timespec cpu;

    memcpy(s.build_id, c->build_id, sizeof s.build_id);
    snprintf(s.dirty_log, sizeof s.dirty_log, "%s", cell_dirty_name(c));
    if (!pthread_getcpuclockid(c->thread, &clock) && !clock_gettime(clock, &cpu)) {
        s.cpu_ns = (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec;
    }
    pthread_mutex_lock(&c->lock);
    s.state = c->state;
    s.epoch = c->epoch;
    s.run_ns = c->run_ns;
    memcpy(s.why, c->why, sizeof s.why);
    pthread_mutex_unlock(&c->lock);
    put(a, &s, sizeof s);
}

static int
get_state(struct cell *c, struct answer *a)
{
    struct cell_state s = {
        .magic = CELL_PROTO_MAGIC,
        .version = CELL_PROTO_VERSION,
        .base = CELL_BASE,
        .n_pages = c->n_pages,
        .sp = c->sw.guest_sp,
        .clock_ns = c->clock_ns,
    };

    pthread_mutex_lock(&c->lock);
    bool paused = c->state == CELL_PAUSED;
    pthread_mutex_unlock(&c->lock);
    if (!paused) {
        return EINVAL;
    }
    memcpy(s.build_id, c->build_id, sizeof s.build_id);
    memcpy(s.mac, c->cfg.mac, sizeof s.mac);
    put(a, &s, sizeof s);
    return 0;
}

static int
set_state(struct cell *c, const struct cell_req *req)
{
    struct cell_state s;
    int error = EINVAL;

    if (req->len != sizeof s) {
        return EINVAL;
    }
    memcpy(&s, req->data, sizeof s);
    if (s.magic != CELL_PROTO_MAGIC || s.version != CELL_PROTO_VERSION || s.base != CELL_BASE ||
        s.n_pages != c->n_pages || s.zero ||
        !cell_switch_sp_ok(s.sp, c->n_pages * CELL_PAGE_BYTES) || s.clock_ns > INT64_MAX / 2) {
        return EINVAL;
    }
    if (memcmp(s.build_id, c->build_id, sizeof s.build_id)) {
        return ENOEXEC; /* another image */
    }
    if (c->cfg.has_vif && memcmp(s.mac, c->cfg.mac, sizeof s.mac)) {
        return EADDRNOTAVAIL;
    }
    pthread_mutex_lock(&c->lock);
    if (c->state == CELL_MADE || (c->state == CELL_LOADED && c->cfg.incoming)) {
        c->state = CELL_LOADED;
        c->sw.guest_sp = s.sp;
        c->clock_ns = s.clock_ns;
        c->pending = CELL_EV_MOVED;
        error = 0;
    }
    pthread_mutex_unlock(&c->lock);
    return error;
}

static enum cell_run_state
state_of(struct cell *c)
{
    pthread_mutex_lock(&c->lock);
    enum cell_run_state state = c->state;
    pthread_mutex_unlock(&c->lock);
    return state;
}

/* RESUME and RUN. */
static int
start(struct cell *c, enum cell_op op, uint64_t epoch)
{
    enum cell_run_state state = state_of(c);
    bool ok = op == CELL_OP_RUN ? state == CELL_LOADED : state == CELL_PAUSED;

    if (state == CELL_RUNNING && op == CELL_OP_RUN) {
        pthread_mutex_lock(&c->lock);
        ok = c->epoch == epoch;
        pthread_mutex_unlock(&c->lock);
    }
    return ok || (state == CELL_RUNNING && op == CELL_OP_RESUME) ? cell_vcpu_run(c, epoch) : EINVAL;
}

static int
postcopy_start(struct cell *c, int missing_fd, struct answer *a)
{
    enum cell_run_state state = state_of(c);

    if (state != CELL_LOADED && (state != CELL_RUNNING || c->postcopy_fd < 0)) {
        return EINVAL;
    }
    int error = cell_postcopy_start(c, missing_fd);
    a->fd = error ? -1 : c->postcopy_fd;
    return error;
}

static int
dirty_log(struct cell *c, struct client *client, enum cell_op op, struct answer *a)
{
    uint64_t n = 0;
    int error;

    if (op == CELL_OP_DIRTY_START) {
        client->has_dirty_log = true;
        error = cell_dirty_start(c);
        a->fd = error ? -1 : c->dirty.map_fd;
        return error;
    }
    if (!client->has_dirty_log) {
        return EINVAL;
    }
    if (op == CELL_OP_DIRTY_STOP) {
        client->has_dirty_log = false;
        cell_dirty_stop(c);
        return 0;
    }
    error = cell_dirty_fetch(c, &n);
    put(a, &n, sizeof n);
    return error;
}

static void
put_ranges(struct cell *c, enum cell_op op, struct answer *a)
{
    const struct cell_memory memory = {CELL_BASE, c->memory_offset, c->n_pages};

    if (op == CELL_OP_MEMORY) {
        put(a, &memory, sizeof memory);
        a->fd = c->memory_fd;
        return;
    }
    /* Of the guest's own page 0, so clamped. */
    const struct cell_info *info = cell_info(c);
    uint64_t start = info->net_start, bytes = info->net_bytes;
    struct cell_range range = {(start - CELL_BASE) / CELL_PAGE_BYTES, bytes / CELL_PAGE_BYTES};
    if (start < CELL_BASE || range.first > c->n_pages || range.n > c->n_pages - range.first) {
        range = (struct cell_range){0, c->n_pages};
    }
    put(a, &range, sizeof range);
}

static int
act(struct control *k, struct client *client, const struct cell_req *req, int fd, struct answer *a)
{
    struct cell *c = k->cell;

    switch (req->op) {
    case CELL_OP_STATUS:
        put_status(c, a);
        return 0;
    case CELL_OP_MEMORY:
    case CELL_OP_PINNED:
        if (req->op == CELL_OP_PINNED && c->postcopy_fd >= 0) {
            return EINVAL; /* page 0 may be missing, and this thread must not wait for it */
        }
        put_ranges(c, req->op, a);
        return 0;
    case CELL_OP_PAUSE:
        return state_of(c) == CELL_PAUSED ? 0 : cell_vcpu_pause(c, CELL_PAUSE_MS);
    case CELL_OP_RESUME:
    case CELL_OP_RUN:
        return start(c, req->op, req->arg);
    case CELL_OP_STATE_GET:
        return get_state(c, a);
    case CELL_OP_STATE_SET:
        return set_state(c, req);
    case CELL_OP_DIRTY_START:
    case CELL_OP_DIRTY_FETCH:
    case CELL_OP_DIRTY_STOP:
        return dirty_log(c, client, req->op, a);
    case CELL_OP_THROTTLE:
        if (req->arg > 99) {
            return EINVAL;
        }
        client->has_throttle = req->arg != 0;
        atomic_store(&c->throttle, (unsigned)req->arg);
        return 0;
    case CELL_OP_POSTCOPY_START:
        return postcopy_start(c, fd, a);
    case CELL_OP_POSTCOPY_END:
        cell_postcopy_end(c);
        return 0;
    case CELL_OP_SHUTDOWN:
        k->end = k->end ? k->end : END_CLEAN;
        return 0;
    case CELL_OP_DESTROY:
        k->end = END_HARD;
        k->destroyer = client->fd;
        k->destroyer_seq = req->seq;
        return 0;
    default:
        return ENOSYS;
    }
}

/* --- clients ------------------------------------------------------------------------- */

static void
drop_client(struct control *k, struct client *client)
{
    if (client->has_dirty_log) {
        cell_dirty_stop(k->cell);
    }
    if (client->has_throttle) {
        atomic_store(&k->cell->throttle, 0);
    }
    if (k->destroyer == client->fd) {
        k->destroyer = -1;
    }
    close(client->fd);
    *client = (struct client){.fd = -1};
}

static void
serve_client(struct control *k, struct client *client)
{
    struct answer a = {.fd = -1};
    struct cell_req req;
    size_t n = 0;
    int fd = -1;

    int error = cell_recv(client->fd, &req, sizeof req, &n, &fd);
    if (error || n < CELL_REQ_HDR || req.magic != CELL_PROTO_MAGIC ||
        req.version != CELL_PROTO_VERSION || req.len != n - CELL_REQ_HDR) {
        if (fd >= 0) {
            close(fd);
        }
        drop_client(k, client);
        return;
    }
    a.rep.error = (uint32_t)act(k, client, &req, fd, &a);
    if (fd >= 0) {
        close(fd);
    }
    if (k->destroyer == client->fd) {
        return; /* answered when it is done */
    }
    a.rep.magic = CELL_PROTO_MAGIC;
    a.rep.seq = req.seq;
    a.rep.len = a.rep.error ? 0 : a.rep.len;
    if (cell_send(client->fd, &a.rep, CELL_REP_HDR + a.rep.len, a.rep.error ? -1 : a.fd)) {
        drop_client(k, client);
    }
}

static void
accept_client(struct control *k)
{
    struct timeval patience = {.tv_sec = 1};

    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    /* One that does not take its answers must not hold the others up for long. */
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (k->clients[i].fd < 0) {
            k->clients[i] = (struct client){.fd = fd};
            return;
        }
    }
    close(fd);
}

int
cell_control_open(struct cell *c)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct cell_client probe;

    if (strlen(c->cfg.control) >= sizeof at.sun_path) {
        return ENAMETOOLONG;
    }
    strcpy(at.sun_path, c->cfg.control);
    if (!cell_connect(&probe, c->cfg.control)) {
        cell_disconnect(&probe);
        return EADDRINUSE;
    }
    unlink(c->cfg.control); /* a dead one's */
    listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(0077);
    int error = listen_fd < 0 || bind(listen_fd, (struct sockaddr *)&at, sizeof at) ||
                        listen(listen_fd, (int)CLIENTS)
                    ? errno
                    : 0;
    umask(mask);
    return error;
}

/* --- the end ------------------------------------------------------------------------- */

static void
remove_vif(struct cell *c)
{
    if (!c->cfg.has_vif) {
        return;
    }
    int error = toolstack_vif_unplug(c->toolstack, c->cfg.domid, c->cfg.vif.handle, SHUTDOWN_MS);
    if (error) {
        cell_log("vif %u/%u: %s", c->cfg.domid, c->cfg.vif.handle, strerror(error));
    }
}

static void
begin_shutdown(struct control *k)
{
    struct cell *c = k->cell;

    if (k->end != END_CLEAN || k->end_by_ns) {
        return;
    }
    k->end_by_ns = cell_now_ns() + SHUTDOWN_MS * UINT64_C(1000000);
    if (state_of(c) == CELL_RUNNING) {
        atomic_store(&c->shutdown, true);
        cell_vcpu_wake(c);
    } else {
        k->end = END_HARD;
    }
}

static int
finish(struct control *k)
{
    struct cell *c = k->cell;
    struct cell_rep rep = {.magic = CELL_PROTO_MAGIC, .seq = k->destroyer_seq};

    int error = cell_vcpu_end(c);
    if (error) {
        cell_log("the guest does not yield: it ends with the process");
    } else {
        /* Not before: a guest that waits for a page must not go on without it. */
        cell_dirty_stop(c);
        cell_postcopy_end(c);
    }
    remove_vif(c);
    if (k->destroyer >= 0) {
        unlink(c->cfg.control);
        cell_send(k->destroyer, &rep, CELL_REP_HDR, -1);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (k->clients[i].fd >= 0) {
            close(k->clients[i].fd);
        }
    }
    close(listen_fd);
    unlink(c->cfg.control);
    if (error) {
        /* Its thread still uses everything that would be freed now. */
        _exit(0);
    }
    return 0;
}

static int
poll_ms(const struct control *k)
{
    uint64_t now = cell_now_ns();

    if (!k->end_by_ns) {
        return -1;
    }
    return now >= k->end_by_ns ? 0 : (int)((k->end_by_ns - now) / 1000000 + 1);
}

static void
take_signal(struct control *k, int signal_fd)
{
    struct signalfd_siginfo info;

    if (read(signal_fd, &info, sizeof info) == sizeof info) {
        k->end = k->end == END_CLEAN ? END_HARD : k->end ? k->end : END_CLEAN;
    }
}

static void
take_vcpu_event(struct control *k)
{
    eventfd_t n;

    if (!eventfd_read(k->cell->event_fd, &n) && state_of(k->cell) == CELL_DEAD) {
        pthread_mutex_lock(&k->cell->lock);
        bool halted = k->cell->halted;
        pthread_mutex_unlock(&k->cell->lock);
        if (halted) {
            k->end = END_HARD;
        }
        /* A crashed one stays to be looked at until it is destroyed. */
    }
}

int
cell_control_run(struct cell *c, int signal_fd)
{
    struct control k = {.cell = c, .destroyer = -1};
    struct pollfd fds[3 + CLIENTS];

    for (unsigned i = 0; i < CLIENTS; i++) {
        k.clients[i].fd = -1;
    }
    while (k.end == END_NOT || k.end == END_CLEAN) {
        fds[0] = (struct pollfd){.fd = listen_fd, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = signal_fd, .events = POLLIN};
        fds[2] = (struct pollfd){.fd = c->event_fd, .events = POLLIN};
        for (unsigned i = 0; i < CLIENTS; i++) {
            fds[3 + i] = (struct pollfd){.fd = k.clients[i].fd, .events = POLLIN};
        }
        int n = poll(fds, 3 + CLIENTS, poll_ms(&k));
        if (n < 0 && errno != EINTR) {
            return errno;
        }
        for (unsigned i = 0; n > 0 && i < CLIENTS; i++) {
            if (fds[3 + i].revents) {
                serve_client(&k, &k.clients[i]);
            }
        }
        if (n > 0 && fds[0].revents) {
            accept_client(&k);
        }
        if (n > 0 && fds[1].revents) {
            take_signal(&k, signal_fd);
        }
        if (n > 0 && fds[2].revents) {
            take_vcpu_event(&k);
        }
        begin_shutdown(&k);
        if (k.end == END_CLEAN && !poll_ms(&k)) {
            cell_log("the guest did not shut down within %d ms", SHUTDOWN_MS);
            k.end = END_HARD;
        }
    }
    return finish(&k);
}
