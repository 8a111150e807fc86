/* driver_xen_save: the source's end (driver_xen_priv.h). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "driver_xen_priv.h"

enum {
    PIPE_BYTES = 1 << 20,
    COST_CHUNKS = 8, /* over which the wire's cost is measured */
};

struct xen_save {
    struct xen_guest *g;
    struct mig_stream_start start;
    bool live;
    pthread_t thread;
    int pipe[2];       /* [0] the engine's thread, [1] the toolstack's, which closes it */
    int settle_fd;     /* eventfd, readable when the toolstack's thread waits until all has */
    sem_t settled;     /* arrived; posted by the engine's thread */
    atomic_int result; /* written by the toolstack's thread: 0 or an errno */

    /* Written by the toolstack's thread, for the statistics. */
    _Atomic uint64_t round, pages_dirty, round_pages, round_from, paused_at_ns;
    _Atomic uint64_t pages; /* written by the engine's thread */
    uint64_t round_at_ns;   /* the toolstack's thread's own */

    /* The engine's thread's own. */
    struct xen_split split;
    struct xen_pack *pack;
    bool ended, settling;
    uint64_t returned_ns, cost_ns, cost_bytes;
    unsigned int cost_chunks;
};

static uint64_t
now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

static int
write_all(int fd, const uint8_t *bytes, size_t n)
{
    while (n) {
        ssize_t done = write(fd, bytes, n);

        if (done < 0 && errno != EINTR) {
            return errno;
        }
        bytes += done > 0 ? done : 0;
        n -= done > 0 ? done : 0;
    }
    return 0;
}

/* --- the toolstack's thread ------------------------------------------------------------ */

/* Whether the guest is to stop now: few pages enough are left to be sent in the
 * time that is allowed, at the rate of the last round; or it has been long enough. */
static bool
time_to_stop(struct xen_save *s, unsigned int round, uint64_t dirty)
{
    uint64_t ns = now_ns() - s->round_at_ns;
    uint64_t sent = atomic_load(&s->pages) - atomic_load(&s->round_from);

    return round >= s->start.max_rounds ||
           (sent && dirty * ns / sent <= s->start.max_left_ms * UINT64_C(1000000));
}

/* Waits until what has been written has arrived at the far end: what is under way
 * when the guest is suspended is part of its blackout, and a round that begins
 * earlier finds less that has changed. */
static void
settle(struct xen_save *s)
{
    eventfd_write(s->settle_fd, 1);
    while (sem_wait(&s->settled) && errno == EINTR) {
    }
}

/* Called before each round, with how many pages it has, and after it, without. */
static int
policy(struct precopy_stats stats, void *s_)
{
    struct xen_save *s = s_;
    uint64_t all = s->g->max_memkb * 1024 / MIG_PAGE_BYTES;
    bool stop;

    if (atomic_load(&s->g->cancelled)) {
        return XGS_POLICY_ABORT;
    }
    if (stats.dirty_count < 0) {
        settle(s);
        return XGS_POLICY_CONTINUE_PRECOPY;
    }
    stop = stats.iteration && time_to_stop(s, stats.iteration, stats.dirty_count);
    atomic_store(&s->round, stats.iteration + 1);
    atomic_store(&s->pages_dirty, stats.iteration ? stats.dirty_count : 0);
    /* The first time it is the number of frames, few of which have a page. */
    atomic_store(&s->round_pages, stats.dirty_count < all ? stats.dirty_count : all);
    atomic_store(&s->round_from, atomic_load(&s->pages));
    s->round_at_ns = now_ns();
    return stop ? XGS_POLICY_STOP_AND_COPY : XGS_POLICY_CONTINUE_PRECOPY;
}

static int
suspend(void *s_)
{
    struct xen_save *s = s_;

    settle(s);
    if (atomic_load(&s->g->cancelled) || libxl_domain_suspend_only(s->g->ctx, s->g->domid, NULL)) {
        return 0;
    }
    atomic_store(&s->paused_at_ns, now_ns());
    if (s->start.paused) {
        s->start.paused(s->start.aux);
    }
    return 1;
}

/* There is no device model. */
static int
no_logdirty(uint32_t domid, unsigned enable, void *s)
{
    return 0;
}

static int
save(struct xen_save *s)
{
    struct save_callbacks callbacks = {.suspend = suspend,
                                       .precopy_policy = policy,
                                       .switch_qemu_logdirty = no_logdirty,
                                       .data = s};
    xc_interface *xch = xc_interface_open(&s->g->log.logger, NULL, 0);
    int error;

    if (!xch) {
        return errno ? errno : EIO;
    }
    error = write_all(s->pipe[1], xen_stream_prologue, sizeof xen_stream_prologue);
    errno = 0;
    if (!error && xc_domain_save(xch, s->pipe[1], s->g->domid, s->live ? XCFLAGS_LIVE : 0,
                                 &callbacks, XC_STREAM_PLAIN, -1)) {
        error = errno ? errno : EIO;
    }
    error = error ? error : write_all(s->pipe[1], xen_stream_end, sizeof xen_stream_end);
    xc_interface_close(xch);
    return error;
}

static void *
save_thread(void *s_)
{
    struct xen_save *s = s_;
    sigset_t pipe;

    /* A reader that is gone is an error of write(). */
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, NULL);
    atomic_store(&s->result, save(s));
    close(s->pipe[1]);
    return NULL;
}

/* --- the engine's thread ---------------------------------------------------------------- */

/* Whether Xen can keep a log of dirty pages for the domain. */
static bool
has_log(struct xen_guest *g)
{
    if (!g->pv) {
        return true;
    }
    if (xc_shadow_control(g->xch, g->domid, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0) < 0) {
        return false;
    }
    xc_shadow_control(g->xch, g->domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0);
    return true;
}

/* The configuration from which the far end makes the domain, packed. */
static int
pack_config(struct xen_guest *g, struct xen_pack *pack)
{
    libxl_domain_config config;
    char *json = NULL;
    int error = EIO;

    libxl_domain_config_init(&config);
    if (!libxl_retrieve_domain_configuration(g->ctx, g->domid, &config, NULL)) {
        json = libxl_domain_config_to_json(g->ctx, &config);
    }
    if (json && strlen(json) <= XEN_CONFIG_MAX) {
        xen_pack_begin(pack);
        xen_pack_config(pack, json, strlen(json));
        error = 0;
    }
    free(json);
    libxl_domain_config_dispose(&config);
    return error;
}

int
xen_save_start(struct mig_guest *guest, const struct mig_stream_start *start)
{
    struct xen_guest *g = xen_guest_of(guest);
    struct xen_save *s = calloc(1, sizeof *s);
    int error = ENOMEM;

    if (!s || g->save) {
        free(s);
        return s ? EINVAL : ENOMEM;
    }
    s->g = g;
    s->start = *start;
    s->live = has_log(g);
    if (xen_pack_create(g->compress, &s->pack)) {
        goto free_save;
    }
    error = xen_split_init(&s->split, g->pv, g->pfn_limit);
    if (error) {
        goto free_pack;
    }
    error = pack_config(g, s->pack);
    if (error) {
        goto free_split;
    }
    if (pipe2(s->pipe, O_CLOEXEC)) {
        error = errno;
        goto free_split;
    }
    sem_init(&s->settled, 0, 0);
    s->settle_fd = eventfd(0, EFD_CLOEXEC);
    if (s->settle_fd < 0) {
        error = errno;
        goto close_pipe;
    }
    fcntl(s->pipe[0], F_SETPIPE_SZ, PIPE_BYTES); /* more is faster; less works, too */
    error = pthread_create(&s->thread, NULL, save_thread, s);
    if (error) {
        goto close_settle;
    }
    g->save = s;
    return 0;

close_settle:
    close(s->settle_fd);
close_pipe:
    close(s->pipe[0]);
    close(s->pipe[1]);
free_split:
    xen_split_free(&s->split);
free_pack:
    xen_pack_destroy(s->pack);
free_save:
    free(s);
    return error;
}

/* More of the stream into the splitter: 0, ENODATA at its end, EAGAIN when there is
 * no more until all has arrived, ECANCELED. */
static int
read_more(struct xen_save *s)
{
    struct pollfd fds[] = {{.fd = s->pipe[0], .events = POLLIN},
                           {.fd = s->g->cancel_fd, .events = POLLIN},
                           {.fd = s->settle_fd, .events = POLLIN}};
    size_t room;
    uint8_t *to = xen_split_room(&s->split, &room);
    ssize_t n;

    while (poll(fds, 3, -1) < 0 && errno == EINTR) {
    }
    if (fds[1].revents) {
        return ECANCELED;
    }
    /* It wrote first: look at the pipe once more. */
    if (fds[2].revents && poll(fds, 1, 0) == 0) {
        eventfd_t v;

        eventfd_read(s->settle_fd, &v);
        s->settling = true;
        return EAGAIN;
    }
    n = read(s->pipe[0], to, room);
    if (n < 0) {
        return errno == EINTR ? 0 : errno;
    }
    xen_split_read(&s->split, n);
    return n ? 0 : ENODATA;
}

/* The next piece of the stream; ENODATA behind its end. */
static int
next_piece(struct xen_save *s, struct xen_piece *piece)
{
    const char *why = "";
    int error;

    for (;;) {
        error = xen_split_next(&s->split, piece, &why);
        if (!error && piece->kind != XEN_END) {
            return 0;
        }
        if (error && error != EAGAIN) {
            xtl_log(&s->g->log.logger, XTL_ERROR, -1, "xen", "libxl's stream: %s", why);
            return error;
        }
        bool whole = !error;
        error = read_more(s);
        if (error == ENODATA) {
            pthread_join(s->thread, NULL);
            s->ended = true;
            error = atomic_load(&s->result);
            return error ? error : whole ? ENODATA : EPROTO;
        }
        if (error) {
            return error;
        }
    }
}

/* The time that the engine took for the last chunks is what their bytes cost. */
static void
tell_cost(struct xen_save *s, size_t last_bytes)
{
    if (s->returned_ns) {
        s->cost_ns += now_ns() - s->returned_ns;
        s->cost_bytes += last_bytes;
        s->cost_chunks++;
    }
    if (s->cost_chunks == COST_CHUNKS) {
        xen_pack_wire(s->pack, (double)s->cost_ns / s->cost_bytes);
        s->cost_ns = s->cost_bytes = s->cost_chunks = 0;
    }
}

int
xen_save_next(struct mig_guest *guest, const uint8_t **bytes, size_t *n)
{
    struct xen_save *s = xen_guest_of(guest)->save;
    struct xen_piece piece;
    size_t announced;
    int error;

    if (!s) {
        return EINVAL;
    }
    if (s->ended) {
        return ENODATA;
    }
    *bytes = xen_pack_bytes(s->pack, n);
    if (!s->returned_ns) { /* the configuration is first */
        s->returned_ns = now_ns();
        return 0;
    }
    if (s->settling) {
        s->settling = false;
        s->returned_ns = now_ns(); /* waiting was no cost of bytes */
        sem_post(&s->settled);
        *n = 0;
    }
    tell_cost(s, *n);
    xen_pack_begin(s->pack);
    error = next_piece(s, &piece);
    if (error) {
        return error;
    }
    xen_pack_piece(s->pack, &piece);
    if (piece.kind == XEN_BYTES && xen_stream_want(&s->split.stream, &announced) == XEN_WANT_PAGE) {
        error = next_piece(s, &piece);
        if (error) {
            return error;
        }
        xen_pack_piece(s->pack, &piece);
    }
    if (piece.kind == XEN_PAGES) {
        atomic_fetch_add(&s->pages, piece.n_pages);
    }
    *bytes = xen_pack_bytes(s->pack, n);
    s->returned_ns = now_ns();
    return 0;
}

void
xen_save_stats(struct mig_guest *guest, struct mig_stream_stats *stats)
{
    struct xen_guest *g = xen_guest_of(guest);
    struct xen_save *s = g->save;
    uint64_t pages, round_pages, done;

    memset(stats, 0, sizeof *stats);
    stats->pages_total = g->max_memkb * 1024 / MIG_PAGE_BYTES;
    if (!s) {
        return;
    }
    pages = atomic_load(&s->pages);
    round_pages = atomic_load(&s->round_pages);
    done = pages - atomic_load(&s->round_from);
    stats->round = atomic_load(&s->round);
    stats->bytes_guest = pages * MIG_PAGE_BYTES;
    stats->pages_left = round_pages > done ? round_pages - done : 0;
    stats->pages_dirty = atomic_load(&s->pages_dirty);
    stats->paused_at_ns = atomic_load(&s->paused_at_ns);
}

int
xen_save_digest(struct mig_guest *guest, uint8_t digest[MIG_DIGEST_BYTES])
{
    struct xen_save *s = xen_guest_of(guest)->save;

    if (!s || !s->ended) {
        return EINVAL;
    }
    xen_pack_digest(s->pack, digest);
    return 0;
}

void
xen_save_end(struct xen_guest *g)
{
    struct xen_save *s = g->save;

    if (!s) {
        return;
    }
    if (!s->ended) {
        atomic_store(&g->cancelled, true);
        close(s->pipe[0]); /* ends a write of the toolstack's */
        sem_post(&s->settled);
        sem_post(&s->settled); /* after a round and before the pause */
        pthread_join(s->thread, NULL);
    } else {
        close(s->pipe[0]);
    }
    close(s->settle_fd);
    sem_destroy(&s->settled);
    xen_split_free(&s->split);
    xen_pack_destroy(s->pack);
    free(s);
    g->save = NULL;
}
