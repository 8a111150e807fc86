/* cell_vcpu: the thread that runs the guest.
 *
 * Theory of Operation
 * ===================
 * The thread stands in one of two places.  Idle (made, loaded, paused, dead): it
 * waits for the main thread, and before the first run it also follows the store, so
 * that the backend is ready when the guest is.  Running: it continues the guest,
 * carries out the hypercall that ends the turn, and continues it again.  A guest
 * that waits is a ppoll(2) on its event channels, the store and 'wake_fd'.
 *
 * The result of CELL_HC_WAIT and CELL_HC_YIELD is the events that are pending, so a
 * guest that was stopped in one continues with whatever happened since.  The main
 * thread asks by setting a field under 'lock', then 'attention', then 'wake_fd'. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "cell_host.h"

/* A busy guest does not keep the store and its channels waiting longer. */
#define POLL_NS 1000000u
/* A guest that is asked something may yield this often before it answers. */
#define ASK_YIELDS 10000u
#define THROTTLE_MIN_NS 1000000u
/* A guest that is to end is not waited for longer. */
#define END_MS 500u

uint64_t
cell_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t
guest_now(const struct cell *c)
{
    return cell_now_ns() + (uint64_t)c->clock_offset;
}

/* --- evidence ------------------------------------------------------------------------ */

/* One line for each start and each stop: "start|stop EPOCH NS DOMID".  The start
 * stands there before the guest's first instruction, the stop after its last. */
static int
log_run(struct cell *c, const char *what)
{
    char line[96];

    if (c->run_log_fd < 0) {
        return 0;
    }
    int n = snprintf(line, sizeof line, "%s %llu %llu %u %d\n", what, (unsigned long long)c->epoch,
                     (unsigned long long)cell_now_ns(), c->cfg.domid, (int)getpid());
    return write(c->run_log_fd, line, (size_t)n) == n ? 0 : errno ? errno : EIO;
}

/* --- sleeping -------------------------------------------------------------------------- */

static void
drain(int fd)
{
    eventfd_t n;

    if (eventfd_read(fd, &n) && errno != EAGAIN) {
        cell_log("eventfd: %s", strerror(errno));
    }
}

/* Waits for whatever concerns a running guest and notes it in 'pending'. */
static void
wait_events(struct cell *c, int64_t timeout_ns)
{
    struct pollfd fds[2 + CELL_CHANNELS];
    unsigned n = 0, first;

    fds[n++] = (struct pollfd){.fd = c->wake_fd, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = c->store ? nf_bus_fd(&c->bus) : -1, .events = POLLIN};
    first = n;
    for (unsigned i = 0; i < CELL_CHANNELS; i++) {
        fds[n++] =
            (struct pollfd){.fd = c->channel[i].port ? c->channel[i].fd : -1, .events = POLLIN};
    }
    if (c->store && nf_bus_timeout_ms(&c->bus) >= 0) {
        int64_t bus_ns = nf_bus_timeout_ms(&c->bus) * INT64_C(1000000);
        timeout_ns = timeout_ns < 0 || bus_ns < timeout_ns ? bus_ns : timeout_ns;
    }
    struct timespec ts = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    int got = ppoll(fds, n, timeout_ns >= 0 ? &ts : NULL, NULL);
    for (unsigned i = first; got > 0 && i < n; i++) {
        if (fds[i].revents) {
            local_evtchn_clear(c->dom, c->channel[i - first].port);
            c->pending |= CELL_EV_RING;
        }
    }
    if (got > 0 && fds[0].revents) {
        drain(c->wake_fd);
    }
    if (c->store && ((got > 0 && fds[1].revents) || nf_bus_timeout_ms(&c->bus) == 0)) {
        cell_net_process(c);
    }
    c->poll_ns = cell_now_ns();
}

/* The guest stands still for its share of the time it has just had. */
static void
throttle(struct cell *c)
{
    unsigned percent = atomic_load_explicit(&c->throttle, memory_order_relaxed);
    uint64_t now = cell_now_ns();

    if (!percent) {
        c->slice_ns = now;
        return;
    }
    uint64_t owed = (now - c->slice_ns) * percent / (100 - percent);
    if (owed < THROTTLE_MIN_NS) {
        return;
    }
    uint64_t until = now + owed;
    while (now < until && !atomic_load(&c->attention)) {
        struct pollfd wake = {.fd = c->wake_fd, .events = POLLIN};
        struct timespec ts = {.tv_sec = (time_t)((until - now) / 1000000000),
                              .tv_nsec = (long)((until - now) % 1000000000)};
        if (ppoll(&wake, 1, &ts, NULL) > 0) {
            drain(c->wake_fd);
        }
        now = cell_now_ns();
    }
    c->slice_ns = cell_now_ns();
}

/* --- hypercalls -------------------------------------------------------------------------- */

/* True: the guest shall be stopped here. */
static bool
attend(struct cell *c)
{
    bool stop = false;

    if (!atomic_exchange(&c->attention, false)) {
        return false;
    }
    if (atomic_exchange(&c->shutdown, false)) {
        if (c->store) {
            nf_bus_close(&c->bus);
        }
        c->pending |= CELL_EV_SHUTDOWN;
    }
    pthread_mutex_lock(&c->lock);
    stop = !c->want_run;
    pthread_mutex_unlock(&c->lock);
    return stop;
}

static void
watch_first_frame(struct cell *c)
{
    if (atomic_load_explicit(&c->connected, memory_order_relaxed) &&
        !atomic_load_explicit(&c->first_rx_ns, memory_order_relaxed) &&
        *(volatile uint64_t *)&cell_info(c)->rx_frames) {
        atomic_store(&c->first_rx_ns, cell_now_ns());
    }
}

/* CELL_HC_WAIT and CELL_HC_YIELD.  True: stop. */
static bool
yield(struct cell *c, bool wait, uint64_t deadline)
{
    watch_first_frame(c);
    c->told = false;
    if (attend(c)) {
        return true;
    }
    throttle(c);
    if (!wait) {
        if (cell_now_ns() - c->poll_ns > POLL_NS) {
            wait_events(c, 0);
        }
        return attend(c);
    }
    while (!c->pending && !c->told && c->state != CELL_DEAD) {
        uint64_t now = guest_now(c);
        int64_t left = deadline == UINT64_MAX ? -1 : deadline > now ? (int64_t)(deadline - now) : 0;
        if (left > INT64_C(3600000000000)) {
            left = INT64_C(3600000000000);
        }
        wait_events(c, left);
        if (attend(c)) {
            return true;
        }
        if (!left) {
            break;
        }
    }
    c->slice_ns = cell_now_ns(); /* waiting is not running */
    return false;
}

static uint64_t
alloc_channel(struct cell *c, uint64_t domid)
{
    uint32_t port;
    int fd;

    for (unsigned i = 0; i < CELL_CHANNELS; i++) {
        if (c->channel[i].port) {
            continue;
        }
        int error = local_evtchn_alloc(c->dom, (uint16_t)domid, &port, &fd);
        if (error) {
            cell_log("no event channel: %s", strerror(error));
            return 0;
        }
        c->channel[i].port = port;
        c->channel[i].fd = fd;
        return port;
    }
    return 0;
}

static int
find_channel(const struct cell *c, uint64_t port)
{
    for (unsigned i = 0; port && i < CELL_CHANNELS; i++) {
        if (c->channel[i].port == port) {
            return (int)i;
        }
    }
    return -1;
}

static void
print_guest(struct cell *c, uint64_t at, uint64_t n)
{
    char text[CELL_LOG_MAX];

    if (at < CELL_BASE || n > sizeof text - 1 ||
        at - CELL_BASE > c->n_pages * CELL_PAGE_BYTES - n) {
        return;
    }
    memcpy(text, (const void *)(uintptr_t)at, n);
    for (uint64_t i = 0; i < n; i++) {
        text[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    }
    text[n] = '\0';
    cell_log("guest: %s", text);
}

/* Those that are answered at once. */
static uint64_t
serve(struct cell *c, const struct cell_switch *sw)
{
    uint64_t a = sw->args[0], b = sw->args[1];

    switch (sw->nr) {
    case CELL_HC_CLOCK:
        return guest_now(c);
    case CELL_HC_GRANT:
        return b < c->n_pages ? local_grant_access(c->dom, (uint16_t)a, (uint32_t)b, sw->args[2])
                              : 0;
    case CELL_HC_GRANT_END:
        return a <= UINT32_MAX ? (uint64_t)local_grant_end(c->dom, (uint32_t)a) : EINVAL;
    case CELL_HC_EVTCHN_ALLOC:
        return alloc_channel(c, a);
    case CELL_HC_EVTCHN_CLOSE:
        if (find_channel(c, a) >= 0) {
            c->channel[find_channel(c, a)].port = 0;
            local_evtchn_close(c->dom, (uint32_t)a);
        }
        return 0;
    case CELL_HC_EVTCHN_NOTIFY:
        if (find_channel(c, a) >= 0) {
            local_evtchn_notify(c->dom, (uint32_t)a);
        }
        return 0;
    case CELL_HC_NET_DONE:
        c->answered = true;
        c->answer = a < 4096 ? (int)a : EINVAL;
        return 0;
    case CELL_HC_LOG:
        print_guest(c, a, b);
        return 0;
    default:
        return 0;
    }
}

static void
die(struct cell *c, const struct cell_switch *sw)
{
    pthread_mutex_lock(&c->lock);
    c->state = CELL_DEAD;
    if (sw->nr == CELL_HC_FAULT) {
        snprintf(c->why, sizeof c->why, "%s at 0x%llx, address 0x%llx", strsignal((int)sw->args[0]),
                 (unsigned long long)sw->args[1], (unsigned long long)sw->args[2]);
    } else {
        c->halted = !sw->args[0];
        snprintf(c->why, sizeof c->why, "%s", c->halted ? "shut down" : "gave up");
    }
    pthread_mutex_unlock(&c->lock);
}

/* Continues the guest until its next hypercall that is not answered at once. */
static uint64_t
step(struct cell *c, uint64_t result)
{
    for (;;) {
        cell_enter(&c->sw, result);
        if (c->sw.nr == CELL_HC_FAULT || c->sw.nr == CELL_HC_HALT || c->sw.nr == CELL_HC_WAIT ||
            c->sw.nr == CELL_HC_YIELD) {
            return c->sw.nr;
        }
        result = serve(c, &c->sw);
        if (c->asking && c->answered) {
            return c->sw.nr;
        }
    }
}

static uint64_t
take_pending(struct cell *c)
{
    uint64_t events = c->pending;
    c->pending = 0;
    return events;
}

/* The guest stands in a WAIT or YIELD here: nobody else calls this.  It goes on to
 * its next one after it has answered. */
int
cell_vcpu_tell(struct cell *c, enum cell_event event)
{
    unsigned yields = 0;

    if (c->asking || c->state == CELL_DEAD) {
        return EBUSY;
    }
    c->told = true; /* whatever it waited for, it does so no more */
    c->asking = true;
    c->answered = false;
    c->answer = 0;
    uint64_t result = take_pending(c) | event, nr = step(c, result);
    while (!c->answered && nr != CELL_HC_FAULT && nr != CELL_HC_HALT && yields++ < ASK_YIELDS) {
        nr = step(c, 0);
    }
    bool answered = c->answered;
    /* From the answer's return on to where it may be stopped again. */
    c->asking = false;
    while (answered && nr == CELL_HC_NET_DONE) {
        nr = step(c, 0);
    }
    if (nr == CELL_HC_FAULT || nr == CELL_HC_HALT) {
        die(c, &c->sw);
        return EIO;
    }
    return answered ? c->answer : ETIMEDOUT;
}

/* --- the thread ---------------------------------------------------------------------------- */

/* Until the guest is stopped, or dead. */
static void
run_guest(struct cell *c)
{
    c->slice_ns = c->poll_ns = cell_now_ns();
    cell_info(c)->entry = cell_switch_entry(&c->sw);
    while (c->state != CELL_DEAD) {
        uint64_t nr = step(c, take_pending(c));
        if (nr == CELL_HC_FAULT || nr == CELL_HC_HALT) {
            die(c, &c->sw);
            break;
        }
        cell_net_start(c); /* once; not before it stands where it can be told something */
        if (yield(c, nr == CELL_HC_WAIT, c->sw.args[0])) {
            break;
        }
    }
}

static void
run(struct cell *c)
{
    /* 'lock' is held on entry and at the end. */
    int error = log_run(c, "start");
    c->state = CELL_RUNNING;
    c->run_ns = cell_now_ns();
    atomic_store(&c->first_rx_ns, 0);
    if (!atomic_load(&c->connected)) {
        atomic_store(&c->connected_ns, 0);
    }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (error) {
        cell_log("%s: %s", c->cfg.run_log, strerror(error));
    }
    c->clock_offset = (int64_t)(c->clock_ns - cell_now_ns());
    run_guest(c);
    c->clock_ns = guest_now(c);
    pthread_mutex_lock(&c->lock);
    error = log_run(c, "stop");
    if (error) {
        cell_log("%s: %s", c->cfg.run_log, strerror(error));
    }
    if (c->state == CELL_DEAD) {
        cell_log("the guest %s: %s", c->halted ? "ended" : "is dead", c->why);
        c->want_run = false;
        eventfd_write(c->event_fd, 1);
    } else {
        c->state = CELL_PAUSED;
    }
    pthread_cond_broadcast(&c->changed);
}

static void
idle(struct cell *c)
{
    struct pollfd fds[2] = {{.fd = c->wake_fd, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    bool follow = c->state == CELL_MADE || c->state == CELL_LOADED;

    pthread_mutex_unlock(&c->lock);
    fds[1].fd = follow && c->store ? nf_bus_fd(&c->bus) : -1;
    if (poll(fds, 2, -1) > 0) {
        if (fds[0].revents) {
            drain(c->wake_fd);
        }
        if (fds[1].revents) {
            cell_net_process(c);
        }
    }
    pthread_mutex_lock(&c->lock);
}

static void *
vcpu_main(void *c_)
{
    struct cell *c = c_;

    int error = cell_switch_catch_faults();
    if (error) {
        cell_log("cannot catch the guest's faults: %s", strerror(error));
    }
    pthread_mutex_lock(&c->lock);
    while (!c->quit) {
        if (c->want_run) {
            run(c);
        } else {
            idle(c);
        }
    }
    pthread_mutex_unlock(&c->lock);
    cell_switch_release_faults();
    return NULL;
}

int
cell_vcpu_start(struct cell *c)
{
    return pthread_create(&c->thread, NULL, vcpu_main, c);
}

void
cell_vcpu_wake(struct cell *c)
{
    atomic_store(&c->attention, true);
    eventfd_write(c->wake_fd, 1);
}

/* --- the main thread's ----------------------------------------------------------------------- */

static struct timespec
in_ms(unsigned ms)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += ms / 1000;
    ts.tv_nsec += ms % 1000 * 1000000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000;
    }
    return ts;
}

int
cell_vcpu_run(struct cell *c, uint64_t epoch)
{
    int error = 0;

    pthread_mutex_lock(&c->lock);
    if (c->state == CELL_MADE || c->state == CELL_DEAD) {
        error = EINVAL;
    } else {
        c->epoch = epoch;
        c->want_run = true;
        cell_vcpu_wake(c);
        while (c->state != CELL_RUNNING && c->state != CELL_DEAD) {
            pthread_cond_wait(&c->changed, &c->lock);
        }
    }
    pthread_mutex_unlock(&c->lock);
    return error;
}

int
cell_vcpu_pause(struct cell *c, unsigned ms)
{
    struct timespec until = in_ms(ms);
    int error = 0;

    pthread_mutex_lock(&c->lock);
    if (c->state == CELL_RUNNING) {
        c->want_run = false;
        cell_vcpu_wake(c);
        while (c->state == CELL_RUNNING && !error) {
            error = pthread_cond_timedwait(&c->changed, &c->lock, &until);
        }
        if (c->state == CELL_RUNNING) {
            c->want_run = true; /* a later yield shall not stop it behind our back */
        }
    }
    error = c->state == CELL_PAUSED ? 0 : error ? error : EINVAL;
    pthread_mutex_unlock(&c->lock);
    return error;
}

int
cell_vcpu_end(struct cell *c)
{
    int error = cell_vcpu_pause(c, END_MS);
    if (error == ETIMEDOUT) {
        return error;
    }
    pthread_mutex_lock(&c->lock);
    c->quit = true;
    pthread_mutex_unlock(&c->lock);
    cell_vcpu_wake(c);
    return pthread_join(c->thread, NULL);
}
