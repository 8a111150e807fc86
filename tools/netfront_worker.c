/* netfront_worker: one thread per queue.
 *
 * Theory of Operation
 * ===================
 *
 * A worker calls its mode's turn() as long as that moves frames.  When it
 * does not, the worker polls for a short time (--poll-us), giving way to others, then arms the
 * rings' event indices, looks once more, and sleeps in ppoll(2) on its event channels, the mode's
 * descriptors and its wake descriptor.  While it is awake no event index is armed, so the backend
 * does not notify it.  With --poll it always is.
 *
 * Who gives way beside a process that never does is let in again after milliseconds, and has
 * forfeited as much (netback/queue.c has the same).  Then, for as long, a worker sleeps at once,
 * for who sleeps is let in when it is woken. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "netfront.h"

uint64_t
nf_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void
nf_nap_add(struct nf_nap *nap, int fd)
{
    for (unsigned i = 0; i < nap->n; i++) {
        if (nap->fd[i].fd == fd) {
            return;
        }
    }
    nap->fd[nap->n++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

int
nf_drain_rx(struct nf_queue *q, unsigned budget)
{
    struct nf_rx_frame f;
    unsigned n = 0;

    while (n < budget) {
        int got = nf_rx_next(q, &f);
        if (got < 0) {
            return got;
        }
        if (!got) {
            break;
        }
        nf_rx_recycle(q);
        n++;
    }
    nf_rx_repost(q);
    nf_rx_push(q);
    return (int)n;
}

/* --- sleeping ------------------------------------------------------------------- */

static void
clear_events(struct nf_worker *w, const struct nf_nap *nap)
{
    struct nf_queue *q = w->q;
    bool ring_event = false;

    for (unsigned i = 0; i < nap->n; i++) {
        if (!nap->fd[i].revents) {
            continue;
        }
        if (nap->fd[i].fd == w->wake_fd) {
            eventfd_t value;
            eventfd_read(w->wake_fd, &value);
        } else if (nap->fd[i].fd == q->rx_fd) {
            local_evtchn_clear(q->dom, q->rx_port);
            ring_event = true;
        } else if (nap->fd[i].fd == q->tx_fd) {
            local_evtchn_clear(q->dom, q->tx_port);
            ring_event = true;
        }
    }
    if (ring_event) {
        NF_ADD(q->stats.wakeups, 1);
    }
}

/* When the MAC is announced after connecting: at once, twice more for a
 * switch that is still adding the port, then before it forgets (300 s). */
static uint64_t
announce_gap_ns(unsigned n)
{
    static const uint64_t first[] = {100000000u, 900000000u};
    return n < 2 ? first[n] : 60000000000u;
}

static void
announce_if_due(struct nf_worker *w, uint64_t now)
{
    uint8_t frame[NF_ANNOUNCE_LEN];

    if (now < w->announce_at_ns) {
        return;
    }
    nf_announce_frame(w->guest->mac, frame);
    nf_tx_reap(w->q);
    nf_tx_put_aux(w->q, frame, sizeof frame); /* refused by a full ring: the next one will do */
    nf_tx_push(w->q);
    w->announce_at_ns = now + announce_gap_ns(w->n_announced++);
}

static void
nap(struct nf_worker *w)
{
    struct nf_nap nap = {.n = 0, .timeout_ns = -1};
    struct timespec timeout;

    nf_nap_add(&nap, w->wake_fd);
    announce_if_due(w, nf_now_ns());
    if (w->guest->cfg->mode->arm(w, &nap)) {
        return;
    }
    if (w->announce_at_ns != UINT64_MAX) {
        int64_t due = (int64_t)(w->announce_at_ns - nf_now_ns());
        due = due > 0 ? due : 0;
        nap.timeout_ns = nap.timeout_ns < 0 || due < nap.timeout_ns ? due : nap.timeout_ns;
    }
    timeout.tv_sec = nap.timeout_ns / 1000000000;
    timeout.tv_nsec = nap.timeout_ns % 1000000000;
    if (ppoll(nap.fd, nap.n, nap.timeout_ns >= 0 ? &timeout : NULL, NULL) > 0) {
        clear_events(w, &nap);
    }
}

/* --- the thread ------------------------------------------------------------------- */

/* Longer than who gives way to other workers waits for them. */
#define STRANGER_NS 1000000u
#define KEEP_MAX_NS 4000000u

/* A worker that may sleep found nothing to do: lets others run, unless that cost too much
 * the last time; then false.  '*keep_until' is the worker's own. */
static bool
give_way(uint64_t now, uint64_t *keep_until)
{
    if (now < *keep_until) {
        return false;
    }
    sched_yield();
    uint64_t then = nf_now_ns(), took = then - now;
    if (took > STRANGER_NS) {
        *keep_until = then + (took < KEEP_MAX_NS ? took : KEEP_MAX_NS);
    }
    return true;
}

static void
mark_moved(struct nf_worker *w, uint64_t now)
{
    if (!NF_GET(w->first_ns)) {
        atomic_store_explicit(&w->first_ns, now, memory_order_relaxed);
    }
    atomic_store_explicit(&w->last_ns, now, memory_order_relaxed);
}

static void
work(struct nf_worker *w)
{
    const struct nf_mode *mode = w->guest->cfg->mode;
    uint64_t poll_ns = w->guest->cfg->poll_us * 1000ull;
    bool polls = w->guest->cfg->poll;
    uint64_t idle_since = 0, keep_until = 0;

    announce_if_due(w, nf_now_ns());
    while (!atomic_load_explicit(&w->stop, memory_order_acquire)) {
        int n = mode->turn(w);
        if (n < 0) {
            atomic_store(&w->broken, true);
            eventfd_write(w->guest->event_fd, 1);
            return;
        }
        if (w->index == 0 && nf_mcast_pending(&w->guest->mcast)) {
            nf_tx_reap(w->q);
            nf_mcast_flush(&w->guest->mcast, w->q);
        }
        if (n > 0) {
            uint64_t now = nf_now_ns();
            idle_since = 0;
            mark_moved(w, now);
            announce_if_due(w, now);
            continue;
        }
        if (polls) {
            announce_if_due(w, nf_now_ns());
            sched_yield();
            continue;
        }
        if (poll_ns) {
            uint64_t now = nf_now_ns();
            idle_since = idle_since ? idle_since : now;
            /* The core may be shared with who is about to bring work. */
            if (now - idle_since < poll_ns && give_way(now, &keep_until)) {
                continue;
            }
            idle_since = 0;
        }
        nap(w);
    }
}

static void *
worker_main(void *arg)
{
    struct nf_worker *w = arg;
    struct timespec cpu;
    char name[16];

    snprintf(name, sizeof name, "d%u-q%u", w->guest->cfg->domid, w->index);
    pthread_setname_np(pthread_self(), name);
    w->n_announced = 0;
    w->announce_at_ns = w->index == 0 && w->guest->cfg->mode->announces ? 0 : UINT64_MAX;
    if (w->guest->cfg->mode->begin) {
        w->guest->cfg->mode->begin(w);
    }
    work(w);
    if (w->guest->cfg->mode->end) {
        w->guest->cfg->mode->end(w);
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    NF_ADD(w->cpu_ns, (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec);
    return NULL;
}

int
nf_worker_init(struct nf_worker *w, struct nf_guest *g, unsigned index)
{
    memset(w, 0, sizeof *w);
    w->guest = g;
    w->index = index;
    w->q = &g->queue[index];
    w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (w->wake_fd < 0) {
        return errno;
    }
    int error = g->cfg->mode->open ? g->cfg->mode->open(w) : 0;
    if (error) {
        close(w->wake_fd);
        w->wake_fd = -1;
    }
    return error;
}

void
nf_worker_fini(struct nf_worker *w)
{
    if (!w->guest || w->wake_fd < 0) {
        return;
    }
    if (w->guest->cfg->mode->close) {
        w->guest->cfg->mode->close(w);
    }
    close(w->wake_fd);
}

int
nf_worker_start(struct nf_worker *w)
{
    atomic_store(&w->stop, false);
    atomic_store(&w->broken, false);
    int error = pthread_create(&w->thread, NULL, worker_main, w);
    w->started = !error;
    return error;
}

void
nf_worker_wake(struct nf_worker *w)
{
    eventfd_write(w->wake_fd, 1);
}

void
nf_worker_stop(struct nf_worker *w)
{
    if (!w->started) {
        return;
    }
    atomic_store_explicit(&w->stop, true, memory_order_release);
    nf_worker_wake(w);
    pthread_join(w->thread, NULL);
    w->started = false;
}

void
nf_worker_done(struct nf_worker *w)
{
    if (!atomic_exchange(&w->done, true)) {
        eventfd_write(w->guest->event_fd, 1);
    }
}

uint64_t
nf_worker_cpu_ns(struct nf_worker *w)
{
    uint64_t ns = NF_GET(w->cpu_ns);
    struct timespec cpu;
    clockid_t clock;

    if (w->started && !pthread_getcpuclockid(w->thread, &clock) && !clock_gettime(clock, &cpu)) {
        ns += (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec;
    }
    return ns;
}
