/* The broker's directory, sockets and requests; see local_broker.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "local_broker_impl.h"
#include "xenstore_sock.h"

void
broker_log(struct local_broker *b, const char *format, ...)
{
    static const unsigned most = 10; /* lines a second */
    uint64_t second = time(NULL);
    va_list args;

    if (b->log_second != second) {
        b->log_second = second;
        b->n_logged = 0;
    }
    if (b->n_logged++ >= most) {
        return;
    }
    fputs("weft-localxen: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

static void
log_line(void *b, const char *line)
{
    broker_log(b, "%s", line);
}

/* --- requests ------------------------------------------------------------------ */

static int
handle_new(struct broker_conn *conn, const struct local_req *req, struct broker_reply *r)
{
    switch (req->op) {
    case LOCAL_OP_BACKEND:
        conn->kind = CONN_BACKEND;
        r->fds[0] = conn->broker->host_fd;
        r->n_fds = 1;
        return 0;
    case LOCAL_OP_CREATE:
        return broker_domain_create(conn, req, r);
    default:
        return EPERM;
    }
}

static int
handle_backend(struct broker_conn *conn, const struct local_req *req, struct broker_reply *r)
{
    switch (req->op) {
    case LOCAL_OP_ATTACH:
        return broker_attach(conn, req, r);
    case LOCAL_OP_OWNER_NEW:
        return broker_owner_new(conn, r);
    case LOCAL_OP_OWNER_FREE:
        return broker_owner_free(conn, req->a);
    case LOCAL_OP_MAP:
        return broker_map(conn, req, r);
    case LOCAL_OP_UNMAP:
        return broker_unmap(conn, req->a);
    case LOCAL_OP_BIND:
        return broker_evtchn_bind(conn, req, r);
    case LOCAL_OP_UNBIND:
        return broker_evtchn_unbind(conn, req->a);
    default:
        return EPERM;
    }
}

static int
handle_domain(struct broker_conn *conn, const struct local_req *req, struct broker_reply *r)
{
    switch (req->op) {
    case LOCAL_OP_ALLOC:
        return broker_evtchn_alloc(conn->domain, req, r);
    case LOCAL_OP_CLOSE:
        return broker_evtchn_close(conn->domain, req->a);
    case LOCAL_OP_DIRTY:
        return broker_dirty(conn->domain, req, r);
    case LOCAL_OP_IN_USE:
        r->rep->a = local_pin_count(&conn->domain->view);
        return 0;
    case LOCAL_OP_DESTROY:
        broker_domain_destroy(conn->domain);
        return 0;
    default:
        return EPERM;
    }
}

int
broker_handle(struct broker_conn *conn, const struct local_req *req, size_t len,
              struct broker_reply *r)
{
    size_t n_refs = len < LOCAL_REQ_HDR ? 0 : (len - LOCAL_REQ_HDR) / sizeof req->refs[0];

    if (len < LOCAL_REQ_HDR || (req->op == LOCAL_OP_MAP && req->n != n_refs)) {
        return EINVAL;
    }
    switch (conn->kind) {
    case CONN_NEW:
        return handle_new(conn, req, r);
    case CONN_BACKEND:
        return handle_backend(conn, req, r);
    case CONN_DOMAIN:
        return handle_domain(conn, req, r);
    }
    return EINVAL;
}

/* --- connections ------------------------------------------------------------------ */

/* Returns false if the client does not take its replies. */
static bool
send_reply(struct broker_conn *conn, const struct broker_reply *r)
{
    union {
        char buf[CMSG_SPACE(LOCAL_MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec iov = {.iov_base = r->rep,
                        .iov_len = LOCAL_REP_HDR + r->rep->n * sizeof r->rep->words[0]};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (r->n_fds) {
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(r->n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(r->n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), r->fds, r->n_fds * sizeof(int));
    }
    return sendmsg(conn->source.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == iov.iov_len;
}

static void
conn_ready(struct local_source *source, uint32_t events)
{
    struct broker_conn *conn = (struct broker_conn *)source;
    struct local_rep rep = {0};
    struct broker_reply r = {.rep = &rep};
    struct local_req req;
    ssize_t len;

    /* No room for control data: descriptors sent to us are discarded. */
    len = recv(source->fd, &req, sizeof req, MSG_DONTWAIT | MSG_TRUNC);
    if (len < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (len <= 0 || len > sizeof req) {
        broker_conn_destroy(conn);
        return;
    }
    rep.error = broker_handle(conn, &req, len, &r);
    if (rep.error) {
        rep = (struct local_rep){.error = rep.error};
        r.n_fds = 0;
    }
    rep.seq = len >= LOCAL_REQ_HDR ? req.seq : 0;
    if (!send_reply(conn, &r)) {
        broker_log(conn->broker, "a client does not take its replies: cut off");
        broker_conn_destroy(conn);
    }
}

struct broker_conn *
broker_conn_create(struct local_broker *b, int fd)
{
    struct broker_conn *conn = calloc(1, sizeof *conn);

    if (!conn) {
        return NULL;
    }
    conn->broker = b;
    conn->source = (struct local_source){.fd = fd, .ready = conn_ready};
    conn->next = b->conns;
    conn->link = &b->conns;
    if (conn->next) {
        conn->next->link = &conn->next;
    }
    b->conns = conn;
    return conn;
}

void
broker_conn_destroy(struct broker_conn *conn)
{
    if (conn->domain) {
        broker_domain_destroy(conn->domain);
    }
    broker_release_grants(conn);
    broker_release_ports(conn);
    local_loop_remove(&conn->broker->loop, &conn->source);
    close(conn->source.fd);
    *conn->link = conn->next;
    if (conn->next) {
        conn->next->link = conn->link;
    }
    free(conn);
}

bool
broker_conn_reap(struct broker_conn *conn)
{
    struct pollfd p = {.fd = conn->source.fd, .events = POLLRDHUP};

    if (poll(&p, 1, 0) != 1 || !(p.revents & (POLLHUP | POLLRDHUP | POLLERR))) {
        return false;
    }
    broker_conn_destroy(conn);
    return true;
}

static void
listener_ready(struct local_source *source, uint32_t events)
{
    struct local_broker *b =
        (struct local_broker *)((char *)source - offsetof(struct local_broker, listener));
    struct broker_conn *conn;
    int fd;

    fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE) {
            broker_log(b, "out of descriptors: raise the limit (ulimit -n)");
            usleep(10000); /* the listener stays readable */
        }
        return;
    }
    conn = broker_conn_create(b, fd);
    if (!conn) {
        close(fd);
        return;
    }
    if (local_loop_add(&b->loop, &conn->source, EPOLLIN)) {
        broker_conn_destroy(conn);
    }
}

/* --- the directory ------------------------------------------------------------------ */

/* Takes DIR/lock, which the kernel frees when its holder dies. */
static int
lock_dir(struct local_broker *b, char *why, size_t why_size)
{
    char path[4096], pid[16] = "";

    snprintf(path, sizeof path, "%s/lock", b->dir);
    for (;;) {
        struct stat ours, named;

        b->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (b->lock_fd < 0) {
            int error = errno;

            snprintf(why, why_size, "cannot open %s: %s", path, strerror(error));
            return error;
        }
        if (flock(b->lock_fd, LOCK_EX | LOCK_NB)) {
            ssize_t len = read(b->lock_fd, pid, sizeof pid - 1);

            pid[len > 0 ? len : 0] = '\0';
            snprintf(why, why_size,
                     "%s is served by another weft-localxen (pid %s): stop it, or choose another "
                     "directory",
                     b->dir, pid);
            close(b->lock_fd);
            b->lock_fd = -1;
            return EBUSY;
        }
        /* Its last holder may have removed the file meanwhile. */
        if (!fstat(b->lock_fd, &ours) && !stat(path, &named) && ours.st_ino == named.st_ino) {
            break;
        }
        close(b->lock_fd);
    }
    int len = snprintf(pid, sizeof pid, "%d", (int)getpid());
    if (ftruncate(b->lock_fd, 0) || write(b->lock_fd, pid, len) != len) {
        broker_log(b, "cannot write %s: %s", path, strerror(errno)); /* only a help */
    }
    return 0;
}

/* Removes the sockets that we, or a dead broker, made. */
static void
remove_sockets(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    while (d && (e = readdir(d))) {
        size_t len = strlen(e->d_name);
        struct stat st;
        bool ours = !strcmp(e->d_name, "broker") || !strcmp(e->d_name, "xenstored") ||
                    (!strncmp(e->d_name, "dom", 3) && len > 10 &&
                     !strcmp(e->d_name + len - 10, "-xenstored"));

        if (ours && !fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
            S_ISSOCK(st.st_mode)) {
            unlinkat(dirfd(d), e->d_name, 0);
        }
    }
    if (d) {
        closedir(d);
    }
}

static int
open_listener(struct local_broker *b)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd;

    if (snprintf(sun.sun_path, sizeof sun.sun_path, "%s/broker", b->dir) >= sizeof sun.sun_path) {
        return ENAMETOOLONG;
    }
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return errno;
    }
    b->listener = (struct local_source){.fd = fd, .ready = listener_ready};
    if (bind(fd, (struct sockaddr *)&sun, sizeof sun) || chmod(sun.sun_path, 0600) ||
        listen(fd, SOMAXCONN)) {
        int error = errno;

        close(fd);
        b->listener.fd = -1;
        return error;
    }
    return local_loop_add(&b->loop, &b->listener, EPOLLIN);
}

/* --- life ------------------------------------------------------------------------------ */

static int
open_host_page(struct local_broker *b)
{
    void *page;

    b->host_fd = memfd_create("localxen-host", MFD_CLOEXEC);
    if (b->host_fd < 0) {
        return errno;
    }
    if (ftruncate(b->host_fd, LOCAL_PAGE)) {
        return errno;
    }
    page = mmap(NULL, LOCAL_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, b->host_fd, 0);
    if (page == MAP_FAILED) {
        return errno;
    }
    b->host = page;
    return 0;
}

static void
raise_fd_limit(void)
{
    struct rlimit limit;

    if (!getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int
open_all(struct local_broker *b, char *why, size_t why_size)
{
    int error;

    if (!mkdir(b->dir, 0700)) {
        b->made_dir = true;
    } else if (errno != EEXIST) {
        error = errno;
        snprintf(why, why_size, "cannot make %.200s: %s", b->dir, strerror(error));
        return error;
    }
    error = lock_dir(b, why, why_size);
    if (error) {
        return error;
    }
    remove_sockets(b->dir);
    error = local_loop_open(&b->loop);
    if (!error) {
        error = open_host_page(b);
    }
    if (!error) {
        error = xenstore_server_open(&b->loop, b->dir, log_line, b, &b->store);
    }
    if (!error) {
        error = open_listener(b); /* last: who sees it may use all the rest */
    }
    if (error) {
        snprintf(why, why_size, "cannot serve %.200s: %s%s", b->dir, strerror(error),
                 error == ENAMETOOLONG ? " (a socket's path has 107 bytes at most)" : "");
    }
    return error;
}

int
local_broker_open(const char *dir, bool verbose, struct local_broker **bp, char *why,
                  size_t why_size)
{
    struct local_broker *b = calloc(1, sizeof *b);
    int error;

    *bp = NULL;
    if (!b || !(b->dir = strdup(dir))) {
        free(b);
        snprintf(why, why_size, "out of memory");
        return ENOMEM;
    }
    b->verbose = verbose;
    b->lock_fd = b->host_fd = b->loop.epoll_fd = b->listener.fd = -1;
    raise_fd_limit();
    error = open_all(b, why, why_size);
    if (error) {
        local_broker_close(b);
        return error;
    }
    *bp = b;
    return 0;
}

static void
stop_ready(struct local_source *source, uint32_t events)
{
    source->fd = -1;
}

int
local_broker_run(struct local_broker *b, int stop_fd)
{
    struct local_source stop = {.fd = stop_fd, .ready = stop_ready};
    int error;

    error = local_loop_add(&b->loop, &stop, EPOLLIN);
    if (error) {
        return error;
    }
    while (!error && stop.fd >= 0) {
        error = local_loop_run_once(&b->loop, -1);
        xenstore_server_flush(b->store);
    }
    stop.fd = stop_fd;
    local_loop_remove(&b->loop, &stop);
    return error;
}

static void
close_fd(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

void
local_broker_close(struct local_broker *b)
{
    char path[4096];

    if (!b) {
        return;
    }
    while (b->conns) {
        broker_conn_destroy(b->conns);
    }
    close_fd(b->listener.fd);
    xenstore_server_close(b->store);
    if (b->host) {
        munmap(b->host, LOCAL_PAGE);
    }
    close_fd(b->host_fd);
    close_fd(b->loop.epoll_fd);
    if (b->lock_fd >= 0) {
        remove_sockets(b->dir);
        snprintf(path, sizeof path, "%s/lock", b->dir);
        unlink(path);
        close(b->lock_fd);
        if (b->made_dir) {
            rmdir(b->dir); /* if nobody else put something there */
        }
    }
    free(b->ports);
    free(b->dir);
    free(b);
}
