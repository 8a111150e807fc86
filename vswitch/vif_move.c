#include <config.h>

#include "vif_move.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <rte_mbuf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dirs.h"
#include "dp-packet.h"
#include "late.h"
#include "netback.h"
#include "netdev_netback.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/vlog.h"
#include "ovs-rcu.h"
#include "ovs-thread.h"
#include "pools.h"
#include "socket-util.h"
#include "timeval.h"
#include "unixctl.h"
#include "util.h"
#include "vif_state.h"

VLOG_DEFINE_THIS_MODULE(vif_move);

#define LINGER_MS 2000
#define FLUSH_MS 200
/* Frames that can be said for a guest, and how often it is looked whether they can. */
#define SAYS_MAX 256
#define SAY_MS 20
/* For a weft-migrate that is not quick enough for every frame of a burst. */
#define SOCKET_BYTES (4 << 20)

struct vif_move {
    struct netback_vif *vif;
    char *socket; /* its path */
    int listener, stop_fd;
    pthread_t thread;
    atomic_bool sends; /* kept frames leave */
    atomic_bool stop;
    long long int linger_until; /* 0: not asked yet; main thread */

    struct ovs_mutex lock;
    struct rte_mbuf *says[SAYS_MAX] OVS_GUARDED; /* for the guest, once it is connected */
    unsigned n_says OVS_GUARDED;

    /* the thread's */
    int peer;       /* -1: nobody */
    size_t waiting; /* length of the message in 'buf' that has not gone yet */
    uint8_t buf[LATE_MAX];
};

/* --- the thread ------------------------------------------------------------------ */

static void
drop_peer(struct vif_move *m)
{
    if (m->peer >= 0) {
        close(m->peer);
        m->peer = -1;
    }
}

static void
accept_peer(struct vif_move *m)
{
    int fd = accept4(m->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), size = SOCKET_BYTES;

    if (fd >= 0) {
        /* Whoever comes last has taken over from one that died. */
        drop_peer(m);
        m->peer = fd;
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    }
}

/* Takes the next frame into 'buf'.  False if there is none. */
static bool
next_frame(struct vif_move *m)
{
    struct rte_mbuf *pkt;

    while (!m->waiting && netback_kept_take(m->vif, &pkt, 1)) {
        m->waiting = late_encode(pkt, m->buf);
        dp_packet_delete(CONTAINER_OF(pkt, struct dp_packet, mbuf));
    }
    return m->waiting > 0;
}

/* Sends what there is, as far as the peer takes it. */
static void
send_kept(struct vif_move *m)
{
    while (m->peer >= 0 && next_frame(m)) {
        if (send(m->peer, m->buf, m->waiting, MSG_NOSIGNAL) < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                drop_peer(m); /* the next one gets the frame */
            }
            return;
        }
        m->waiting = 0;
    }
}

/* An empty one with every field that netback looks at. */
static struct dp_packet *
new_packet(size_t len)
{
    struct dp_packet *b = pools_alloc(len);

    if (b->source != DPBUF_DPDK) {
        b->mbuf.pool = NULL;
        b->mbuf.next = NULL;
        b->mbuf.nb_segs = 1;
        rte_mbuf_refcnt_set(&b->mbuf, 1);
    }
    return b;
}

static void
feed(struct vif_move *m, const uint8_t *msg, size_t frame_len)
{
    struct dp_packet *b = new_packet(frame_len);
    struct rte_mbuf *pkt = &b->mbuf;

    if (late_decode(msg, frame_len, pkt)) {
        dp_packet_delete(b);
    } else {
        netback_feed(m->vif, &pkt, 1);
    }
}

static void
receive(struct vif_move *m)
{
    uint8_t too_long;
    uint8_t *msg = xmalloc(LATE_MAX);

    while (m->peer >= 0) {
        struct iovec parts[] = {{msg, LATE_MAX}, {&too_long, 1}};
        struct msghdr hdr = {.msg_iov = parts, .msg_iovlen = 2};
        ssize_t n = recvmsg(m->peer, &hdr, MSG_DONTWAIT);
        size_t frame_len = n > 0 ? late_check(msg, n) : 0;

        if (frame_len) {
            feed(m, msg, frame_len);
        } else if (n > 0) {
            static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);

            VLOG_WARN_RL(&rl, "%s: a message that is no frame", m->socket);
        } else {
            if (!n || (errno != EAGAIN && errno != EINTR)) {
                drop_peer(m);
            }
            break;
        }
    }
    free(msg);
}

/* Says what there is to say for the guest.  False if it has to wait. */
static bool
say(struct vif_move *m)
{
    unsigned done = 0, n;
    int error = 0;

    ovs_mutex_lock(&m->lock);
    while (done < m->n_says && !error) {
        n = MIN(m->n_says - done, NETBACK_MAX_BURST);
        error = netback_inject(m->vif, m->says + done, n);
        done += error ? 0 : n;
    }
    m->n_says -= done;
    memmove(m->says, m->says + done, m->n_says * sizeof m->says[0]);
    n = m->n_says;
    ovs_mutex_unlock(&m->lock);
    return !n;
}

static void
serve_once(struct vif_move *m)
{
    int timeout_ms = say(m) ? -1 : SAY_MS;
    bool sends, out;

    atomic_read(&m->sends, &sends);
    out = sends && m->peer >= 0;
    struct pollfd fds[] = {
        {.fd = m->stop_fd, .events = POLLIN},
        {.fd = m->listener, .events = POLLIN},
        {.fd = m->peer, .events = POLLIN | (out && m->waiting ? POLLOUT : 0)},
        {.fd = out && !m->waiting ? netback_kept_fd(m->vif) : -1, .events = POLLIN},
    };

    if (poll(fds, ARRAY_SIZE(fds), timeout_ms) <= 0) {
        return;
    }
    if (fds[0].revents) {
        eventfd_t ignored;

        (void)!eventfd_read(m->stop_fd, &ignored); /* or 'sends' has changed */
    }
    if (fds[2].revents & (POLLIN | POLLHUP | POLLERR)) {
        receive(m);
    }
    if (fds[1].revents) {
        accept_peer(m);
    }
    if (sends) {
        send_kept(m);
    }
}

static void *
move_main(void *move)
{
    struct vif_move *m = move;
    bool stop, sends;

    /* Nothing here is under RCU's protection. */
    ovsrcu_quiesce_start();
    for (;;) {
        atomic_read(&m->stop, &stop);
        if (stop) {
            break;
        }
        serve_once(m);
    }
    atomic_read(&m->sends, &sends);
    for (long long int until = time_msec() + FLUSH_MS;
         sends && m->peer >= 0 && time_msec() < until && next_frame(m);) {
        send_kept(m);
        if (m->waiting) {
            struct pollfd out = {.fd = m->peer, .events = POLLOUT};

            poll(&out, 1, 10);
        }
    }
    drop_peer(m);
    return NULL;
}

/* --- life ------------------------------------------------------------------------ */

static void
wake(struct vif_move *m)
{
    (void)!eventfd_write(m->stop_fd, 1);
}

static int
vif_move_create(const char *port, struct netback_vif *vif, struct vif_move **out, char **why)
{
    struct vif_move *m = xzalloc(sizeof *m);
    int error;

    m->vif = vif;
    m->peer = m->listener = -1;
    m->socket = xasprintf("%s/weft/move-%s", ovs_rundir(), port);
    atomic_init(&m->sends, false);
    atomic_init(&m->stop, false);
    ovs_mutex_init(&m->lock);
    m->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (m->stop_fd < 0) {
        error = errno;
        goto fail;
    }
    unlink(m->socket);
    m->listener = make_unix_socket(SOCK_SEQPACKET, true, m->socket, NULL);
    if (m->listener < 0) {
        error = -m->listener;
        goto fail_stop;
    }
    if (listen(m->listener, 4)) {
        error = errno;
        goto fail_socket;
    }
    m->thread = ovs_thread_create("weft-move", move_main, m);
    *out = m;
    return 0;

fail_socket:
    close(m->listener);
    unlink(m->socket);
fail_stop:
    close(m->stop_fd);
fail:
    *why = xasprintf("%s: %s", m->socket, ovs_strerror(error));
    ovs_mutex_destroy(&m->lock);
    free(m->socket);
    free(m);
    return error;
}

void
vif_move_destroy(struct vif_move *m)
{
    if (m) {
        atomic_store(&m->stop, true);
        wake(m);
        xpthread_join(m->thread, NULL);
        ovs_mutex_lock(&m->lock);
        for (unsigned i = 0; i < m->n_says; i++) {
            dp_packet_delete(CONTAINER_OF(m->says[i], struct dp_packet, mbuf));
        }
        ovs_mutex_unlock(&m->lock);
        ovs_mutex_destroy(&m->lock);
        unlink(m->socket);
        close(m->listener);
        close(m->stop_fd);
        free(m->socket);
        free(m);
    }
}

bool
vif_move_lingers(struct vif_move *m)
{
    bool sends = false;

    if (m) {
        atomic_read(&m->sends, &sends);
        m->linger_until = m->linger_until ? m->linger_until : time_msec() + LINGER_MS;
    }
    return sends && time_msec() < m->linger_until;
}

/* --- commands ---------------------------------------------------------------------- */

struct call {
    struct unixctl_conn *conn;
    int argc;
    const char **argv;
    /* Returns NULL and perhaps text in '*reply', or malloc'ed what is wrong. */
    char *(*fn)(struct call *, const char *port, struct netback_vif *, struct vif_move **);
    struct ds reply;
    char *why;
    bool done;
};

static void
visit(const char *port, struct netback_vif *vif, struct vif_move **move, void *call_)
{
    struct call *call = call_;

    call->done = true;
    call->why = vif ? call->fn(call, port, vif, move) : xasprintf("%s has no vif", port);
}

static char *
errno_text(const char *what, int error)
{
    return error ? xasprintf("%s: %s", what, ovs_strerror(error)) : NULL;
}

/* The move's thread, which sends or does not. */
static char *
begin(const char *port, struct netback_vif *vif, struct vif_move **move, bool sends)
{
    char *why = NULL;

    if (!*move && vif_move_create(port, vif, move, &why)) {
        return why;
    }
    atomic_store(&(*move)->sends, sends);
    wake(*move);
    return NULL;
}

static char *
do_watch(struct call *call OVS_UNUSED, const char *port OVS_UNUSED, struct netback_vif *vif,
         struct vif_move **move OVS_UNUSED)
{
    netback_watch(vif, true);
    netback_static_grants(vif, false);
    return NULL;
}

static char *
do_hold(struct call *call OVS_UNUSED, const char *port, struct netback_vif *vif,
        struct vif_move **move)
{
    char *why = errno_text("cannot be held", netback_hold(vif));

    return why ? why : begin(port, vif, move, true);
}

static void
end(struct netback_vif *vif, struct vif_move **move)
{
    if (*move) {
        atomic_store(&(*move)->sends, false);
        vif_move_destroy(*move);
        *move = NULL;
    }
    netback_release(vif);
    netback_watch(vif, false);
    netback_static_grants(vif, true);
}

static char *
do_release(struct call *call OVS_UNUSED, const char *port OVS_UNUSED, struct netback_vif *vif,
           struct vif_move **move)
{
    end(vif, move);
    return NULL;
}

static char *
do_keep(struct call *call OVS_UNUSED, const char *port, struct netback_vif *vif,
        struct vif_move **move)
{
    int error = netback_keep(vif);

    /* One that is there already takes late frames as they come. */
    return error && error != EISCONN ? errno_text("cannot keep", error)
                                     : begin(port, vif, move, false);
}

static char *
parse_scope(struct call *call, struct vif_scope *scope)
{
    memset(scope, 0, sizeof *scope);
    for (int i = 3; i < call->argc; i++) {
        if (!vif_scope_add(scope, call->argv[i])) {
            return xasprintf("%s: expected zone=N, key=N, address=A, ofport=N or unmark",
                             call->argv[i]);
        }
    }
    return NULL;
}

static void
put_result(struct ds *reply, const struct vif_state_result *r)
{
    ds_put_format(reply,
                  "connections=%zu existing=%zu refused=%zu settings=%d counters=%d meters=%zu\n",
                  r->connections, r->existing, r->refused, r->settings, r->counters, r->meters);
}

static char *
do_export(struct call *call, const char *port OVS_UNUSED, struct netback_vif *vif,
          struct vif_move **move OVS_UNUSED)
{
    struct vif_state_result result;
    struct vif_scope scope;
    char *why = parse_scope(call, &scope);
    size_t len, done;
    uint8_t *data;
    int error, fd;

    if (why) {
        return why;
    }
    error = vif_state_export(vif, &scope, &data, &len, &result);
    if (error) {
        return errno_text("too much state", error);
    }
    fd = open(call->argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    error = fd < 0 ? errno : write_fully(fd, data, len, &done);
    if (fd >= 0) {
        close(fd);
    }
    free(data);
    put_result(&call->reply, &result);
    return errno_text(call->argv[2], error);
}

static int
read_file(const char *name, uint8_t **data, size_t *len)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK), error = 0;
    struct stat s;

    *data = NULL;
    if (fd < 0) {
        return errno;
    }
    if (fstat(fd, &s)) {
        error = errno;
    } else if (!S_ISREG(s.st_mode) || s.st_size > VIF_STATE_MAX) {
        error = EFBIG;
    } else {
        *data = xmalloc(s.st_size + 1);
        error = read_fully(fd, *data, s.st_size, len);
    }
    close(fd);
    return error == EOF ? EIO : error;
}

static char *
do_import(struct call *call, const char *port OVS_UNUSED, struct netback_vif *vif,
          struct vif_move **move OVS_UNUSED)
{
    struct vif_state_result result;
    struct vif_scope scope;
    char text[256], *why = parse_scope(call, &scope);
    uint8_t *data;
    size_t len;

    if (why) {
        return why;
    }
    why = errno_text(call->argv[2], read_file(call->argv[2], &data, &len));
    if (!why) {
        if (vif_state_import(vif, &scope, data, len, &result, text, sizeof text)) {
            why = xstrdup(text);
        } else {
            put_result(&call->reply, &result);
        }
    }
    free(data);
    return why;
}

/* A frame in hexadecimal digits, or NULL. */
static struct dp_packet *
frame_of(const char *hex)
{
    size_t len = strlen(hex) / 2;
    struct dp_packet *b;

    if (len < ETH_HEADER_LEN || len > POOLS_SMALL_FRAME || hex[strspn(hex, "0123456789abcdef")]) {
        return NULL;
    }
    b = new_packet(len);
    if (dp_packet_put_hex(b, hex, NULL)[0]) {
        dp_packet_delete(b);
        return NULL;
    }
    return b;
}

static char *
do_say(struct call *call, const char *port, struct netback_vif *vif, struct vif_move **move)
{
    bool sends = false;
    char *why = NULL;

    if (*move) {
        atomic_read(&(*move)->sends, &sends);
    }
    why = begin(port, vif, move, sends);
    for (int i = 2; !why && i < call->argc; i++) {
        struct dp_packet *b = frame_of(call->argv[i]);

        if (!b) {
            why = xstrdup("expected a frame in hexadecimal digits");
            break;
        }
        ovs_mutex_lock(&(*move)->lock);
        if ((*move)->n_says < SAYS_MAX) {
            (*move)->says[(*move)->n_says++] = &b->mbuf;
            b = NULL;
        }
        ovs_mutex_unlock(&(*move)->lock);
        if (b) {
            dp_packet_delete(b);
            why = xstrdup("too many frames wait already");
        }
    }
    if (*move) {
        wake(*move);
    }
    return why;
}

static char *
do_show(struct call *call, const char *port, struct netback_vif *vif,
        struct vif_move **move OVS_UNUSED)
{
    static const char *const states[] = {"-", "waiting", "held"};
    struct netback_move_status s;

    netback_move_status(vif, &s);
    ds_put_format(&call->reply,
                  "%s: %s last_ns=%" PRIu64 " first_ns=%" PRIu64 " held_ns=%" PRIu64
                  " kept=%" PRIu64 " fed=%" PRIu64 " taken=%" PRIu64 " dropped=%" PRIu64
                  " bytes=%zu\n",
                  port, states[s.state], s.last_ns, s.first_ns, s.held_ns, s.kept, s.fed, s.taken,
                  s.dropped, s.bytes);
    return NULL;
}

static void
command(struct unixctl_conn *conn, int argc, const char *argv[], void *fn)
{
    struct call call = {.conn = conn, .argc = argc, .argv = argv, .reply = DS_EMPTY_INITIALIZER};

    call.fn = fn;
    netdev_netback_visit(argv[1], visit, &call);
    if (!call.done) {
        unixctl_command_reply_error(conn, "no such port of type netback");
    } else if (call.why) {
        unixctl_command_reply_error(conn, call.why);
    } else {
        unixctl_command_reply(conn, ds_cstr(&call.reply));
    }
    free(call.why);
    ds_destroy(&call.reply);
}

void
vif_move_init(void)
{
    static const struct {
        const char *name, *usage;
        int min, max;
        char *(*fn)(struct call *, const char *, struct netback_vif *, struct vif_move **);
    } commands[] = {
        {"weft/vif-watch", "PORT", 1, 1, do_watch},
        {"weft/vif-hold", "PORT", 1, 1, do_hold},
        {"weft/vif-release", "PORT", 1, 1, do_release},
        {"weft/vif-keep", "PORT", 1, 1, do_keep},
        {"weft/vif-export", "PORT FILE [zone=N|key=N|address=A|ofport=N|unmark]...", 2, 64,
         do_export},
        {"weft/vif-import", "PORT FILE [zone=N|key=N|address=A|ofport=N|unmark]...", 2, 64,
         do_import},
        {"weft/vif-say", "PORT FRAME...", 2, SAYS_MAX, do_say},
        {"weft/vif-show", "PORT", 1, 1, do_show},
    };

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        unixctl_command_register(commands[i].name, commands[i].usage, commands[i].min,
                                 commands[i].max, command, commands[i].fn);
    }
}
