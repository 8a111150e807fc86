/* Theory of Operation
 * ===================
 *
 * A thread has a list of queues to receive from and of ports to send for.  The
 * main thread changes a copy under the thread's lock and waits until the
 * thread has taken it over, which it does between two rounds.  So when
 * poller_take_away() returns, the thread does not touch the port any more.
 *
 * A polled port is sent to by one thread, its owner.  Others push to the
 * port's queue and wake the owner if it sleeps.
 *
 * Rest.  After SPIN_US without a packet a polling thread sleeps for an eighth
 * of the time since the last one, from SLEEP_MIN_US to SLEEP_MAX_US: a packet
 * after a pause waits at most an eighth longer for it, or a millisecond; after
 * QUIET_US without any, SLEEP_QUIET_US.  Where packets may not wait
 * (pmd-maxsleep is 0), pauses of up to PAUSE_MAX_US are taken for traffic, and
 * the thread spins for twice the longest one of late.
 *
 * Naps.  Where other_config:pmd-maxsleep allows packets to wait so long, a
 * polling thread sleeps after each round that brought few packets, longer each
 * time until FEW_PACKETS have come when it wakes up.  Packets that ofproto has
 * treated do not end such a nap: otherwise a trickle of new flows would wake
 * the thread for each of them, and waking it costs more than the flow does.
 * Others' do, and then it does not nap for SPIN_US, as there may be more.
 *
 * The waiting thread sleeps in one poll() that also says which queues to ask,
 * where all its queues have descriptors: poll_block() would be five system
 * calls instead, and under Xen they are what a frame of a TAP costs most. */
#include <config.h>

#include "dp_poller.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_mbuf.h>
#include <rte_pause.h>

#include "coverage.h"
#include "dp.h"
#include "dpdk.h"
#include "fast/portq.h"
#include "netback.h"
#include "netdev-provider.h"
#include "offload_ports.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovs-numa.h"
#include "ovs-rcu.h"
#include "tap_recv.h"
#include "timeval.h"
#include "userspace-tso.h"
#include "util.h"
#include "wrap.h"

VLOG_DEFINE_THIS_MODULE(dp_poller);

/* Entries of a thread's exact-match cache, at most; it grows with use. */
#define WAIT_CACHE_MAX (1u << 16)
#define POLL_CACHE_MAX (1u << 20)

#define SPIN_US 50
#define PAUSE_MAX_US 250
#define SLEEP_MIN_US 10
#define SLEEP_MAX_US 1000
#define QUIET_US 2000000
#define SLEEP_QUIET_US 10000
/* If no queue has more, a nap may follow. */
#define FEW_PACKETS (ENGINE_BURST / 2)
/* What a thread's cache has grown to goes back after so long without a packet. */
#define TRIM_MS 1000
/* While some queues have packets, the waiting thread looks after the others
 * once in so many rounds. */
#define HOT_ROUNDS 8
/* A queue that was empty when it was asked again, right after a short burst, is
 * not asked again after the next so many. */
#define NOT_AGAIN 16
/* The waiting thread sleeps so long before it leaves RCU. */
#define BRIEF_MS 5
/* A descriptor whose device is gone is always readable. */
#define RETRY_MS 100

static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);

struct rxq {
    struct dp_port *port;
    struct netdev_rxq *rxq;
    long long retry_at; /* ms; not before, after an error (waiting thread) */
    int fd;             /* readable when there are packets, or -1: unknown (waiting thread) */
    bool tap;           /* of the kind that tap_recv() reads (waiting thread) */
    bool hot;           /* there may be packets (waiting thread) */
    uint8_t not_again;  /* bursts still to come that are taken to be all there is */
};

struct duty {
    struct rxq *rxqs;
    size_t n_rxqs;
    struct dp_port **owned;
    size_t n_owned;
};

/* How a polling thread sleeps.  Whoever wants it says which sleeps to end. */
enum sleep {
    AWAKE,
    NAP,  /* only as long as packets may wait anyway */
    IDLE, /* nothing has come for a while */
};

struct poller {
    struct dp *dp;
    char *name;
    unsigned core; /* or POLLER_WAITS */
    pthread_t thread;
    struct dp_worker *worker;

    struct duty duty; /* the thread's */

    struct ovs_mutex lock;
    pthread_cond_t taken;
    struct duty next OVS_GUARDED; /* what 'duty' is to become */
    bool exit OVS_GUARDED;
    _Atomic uint32_t wanted, seen; /* versions of the above: main's, the thread's */

    bool trimmed; /* since the last packet */

    int wake_fd;                 /* eventfd; waiting thread */
    struct pollfd *fds;          /* as many as 'duty' has queues, and 'wake_fd' */
    _Atomic uint32_t sleep;      /* enum sleep; polling thread */
    _Atomic unsigned max_nap_us; /* polling thread; main's */
    uint64_t spin_us;            /* without a packet, before it sleeps */
    unsigned nap_us;             /* after the next round that brings little */
    uint64_t nap_from;           /* TSC; no naps before */
};

static bool
is_waiter(const struct poller *p)
{
    return p->core == POLLER_WAITS;
}

/* --- handing over ------------------------------------------------------------- */

static void
duty_copy(struct duty *to, const struct duty *from)
{
    free(to->rxqs);
    free(to->owned);
    *to = *from;
    to->rxqs = xmemdup(from->rxqs, MAX(from->n_rxqs, 1) * sizeof *from->rxqs);
    to->owned = xmemdup(from->owned, MAX(from->n_owned, 1) * sizeof *from->owned);
}

static void
duty_init(struct duty *d)
{
    d->rxqs = xcalloc(1, sizeof *d->rxqs);
    d->owned = xcalloc(1, sizeof *d->owned);
    d->n_rxqs = d->n_owned = 0;
}

static void
duty_destroy(struct duty *d)
{
    free(d->rxqs);
    free(d->owned);
}

/* Ends its sleep, unless that is lighter.  Some time after a port got a packet
 * for 'p'. */
static void
wake(struct poller *p, enum sleep lightest)
{
    if (is_waiter(p)) {
        (void)!eventfd_write(p->wake_fd, 1);
    } else if (atomic_load_explicit(&p->sleep, memory_order_relaxed) >= lightest &&
               atomic_exchange(&p->sleep, AWAKE)) {
        syscall(SYS_futex, &p->sleep, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}

/* Makes the thread take over 'next', and waits until it has. */
static void
commit(struct poller *p) OVS_REQUIRES(p->lock)
{
    uint32_t version = atomic_load(&p->wanted) + 1;

    atomic_store(&p->wanted, version);
    wake(p, NAP);
    while (atomic_load(&p->seen) != version) {
        ovs_mutex_cond_wait(&p->taken, &p->lock);
    }
}

/* On the thread: takes over what main wants.  False: the thread is to end. */
static bool
take_over(struct poller *p)
{
    bool go_on = true;

    if (OVS_UNLIKELY(atomic_load_explicit(&p->wanted, memory_order_acquire) !=
                     atomic_load_explicit(&p->seen, memory_order_relaxed))) {
        worker_end(p->worker->worker);
        ovs_mutex_lock(&p->lock);
        duty_copy(&p->duty, &p->next);
        p->fds = xrealloc(p->fds, (p->duty.n_rxqs + 1) * sizeof *p->fds);
        go_on = !p->exit;
        atomic_store(&p->seen, atomic_load(&p->wanted));
        xpthread_cond_signal(&p->taken);
        ovs_mutex_unlock(&p->lock);
    }
    return go_on;
}

/* --- packets -------------------------------------------------------------------- */

static void
receive_failed(struct rxq *q, int error)
{
    if (error && error != EAGAIN && error != EOPNOTSUPP) {
        VLOG_ERR_RL(&rl, "error receiving data from %s: %s", netdev_rxq_get_name(q->rxq),
                    ovs_strerror(error));
        q->retry_at = time_msec() + RETRY_MS;
    }
}

/* Up to ENGINE_BURST packets of one queue. */
static unsigned
gather(struct rxq *q, struct rte_mbuf *pkts[ENGINE_BURST])
{
    unsigned n = 0;

    do {
        struct dp_packet_batch batch;
        struct dp_packet *b;
        int error;

        dp_packet_batch_init(&batch);
        error = netdev_rxq_recv(q->rxq, &batch, NULL);
        if (error) {
            receive_failed(q, error);
            break;
        }
        /* A port's packets are all of one kind, and a cold line tells which.  There are
         * none if the device has dropped them all: too long, or of a bad header. */
        if (batch.count && batch.packets[0]->source != DPBUF_DPDK) {
            DP_PACKET_BATCH_FOR_EACH (i, b, &batch) {
                dp_packet_complete(b);
                if (OVS_UNLIKELY(dp_packet_hwol_is_tso(b))) {
                    offload_received(b, q->port->netdev);
                }
            }
        }
        DP_PACKET_BATCH_FOR_EACH (i, b, &batch) {
            pkts[n++] = &b->mbuf;
        }
        if (batch.count < NETDEV_MAX_BURST) {
            break;
        }
    } while (n + NETDEV_MAX_BURST <= ENGINE_BURST);
    return n;
}

/* The same of a TAP's; sets '*empty' if there are no more. */
static unsigned
gather_tap(struct rxq *q, struct rte_mbuf *pkts[ENGINE_BURST], bool *empty)
{
    int error;
    unsigned n = tap_recv(q->fd, pkts, NETDEV_MAX_BURST, &error);

    receive_failed(q, error);
    *empty = error;
    return n;
}

/* Receives once from 'q' and runs what came.  Sets '*empty' if that is known to be all. */
static unsigned
receive(struct poller *p, struct rxq *q, bool *empty)
{
    struct rte_mbuf *pkts[ENGINE_BURST];
    unsigned n;

    *empty = false;
    if (!netdev_rxq_enabled(q->rxq)) {
        return 0;
    }
    n = q->tap ? gather_tap(q, pkts, empty) : gather(q, pkts);
    if (n) {
        worker_run(p->worker->worker, odp_to_u32(q->port->port_no), pkts, n, time_msec());
    }
    return n;
}

/* Sends what other threads have for the port; one burst. */
static unsigned
send_queued(struct dp_port *port)
{
    struct rte_mbuf *pkts[ENGINE_BURST];
    unsigned n = portq_pop(port->queue, pkts, ENGINE_BURST);

    if (n) {
        dp_port_send(port, pkts, n, 0, false);
    }
    return n;
}

void
pollers_send(struct fast_port *fast, struct worker *worker, struct rte_mbuf **pkts, unsigned n)
{
    struct dp_port *port = CONTAINER_OF(fast, struct dp_port, fast);
    struct poller *owner = atomic_load_explicit(&port->owner, memory_order_acquire);
    unsigned taken;

    if (owner && owner->worker->worker == worker) {
        dp_port_send(port, pkts, n, 0, false);
        return;
    }
    taken = portq_push(port->queue, worker, pkts, n);
    if (taken && owner) {
        /* The owner says that it sleeps before it looks at the queue. */
        atomic_thread_fence(memory_order_seq_cst);
        wake(owner, dp_worker_of(worker)->borrowed ? IDLE : NAP);
    }
    if (taken < n) {
        atomic_fetch_add_explicit(&fast->drops, n - taken, memory_order_relaxed);
        dp_packets_free(pkts + taken, n - taken);
    }
}

/* --- the threads -------------------------------------------------------------- */

/* The waiting thread delivers to guests itself what is done sooner than another thread
 * is woken, and all where no other could run meanwhile. */
static void
choose_deliveries(void)
{
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    sched_getaffinity(0, sizeof cpus, &cpus);
    netback_deliver_here(CPU_COUNT(&cpus) == 1 ? NETBACK_DELIVER_ALL : NETBACK_DELIVER_LITTLE);
}

static void
trim(struct poller *p)
{
    if (!p->trimmed) {
        worker_trim(p->worker->worker);
        if (is_waiter(p)) {
            netback_deliver_trim();
            choose_deliveries();
        }
        p->trimmed = true;
    }
}

static void
wait_for(struct rxq *q)
{
    if (q->retry_at && time_msec() < q->retry_at) {
        poll_timer_wait_until(q->retry_at);
    } else {
        q->retry_at = 0;
        netdev_rxq_wait(q->rxq);
    }
}

static __thread int *caught_fd;

void
__wrap_poll_fd_wait_at(int fd, short int events, const char *where)
{
    if (caught_fd) {
        *caught_fd = fd;
    } else {
        __real_poll_fd_wait_at(fd, events, where);
    }
}

/* What netdev_rxq_wait() waits for, of devices known to have a descriptor of
 * their own: others wait by a sequence number, whose descriptor is the thread's. */
static int
fd_of(const struct netdev *netdev, struct netdev_rxq *rxq)
{
    const char *type = netdev_get_type(netdev);
    int fd = -1;

    if (strcmp(type, "system") != 0 && strcmp(type, "tap") != 0) {
        return -1;
    }
    caught_fd = &fd;
    netdev_rxq_wait(rxq);
    caught_fd = NULL;
    return fd;
}

/* Finds out which queues have packets, and waits for that up to 'ms', or for ever
 * (-1), or until somebody wakes us; false: for nothing.  Asking a queue that has
 * none costs a system call as well, and with a socket a burst of buffers. */
static bool
find_hot(struct poller *p, int ms)
{
    struct pollfd *fds = p->fds;
    size_t n = p->duty.n_rxqs;
    eventfd_t ignored;

    for (size_t i = 0; i < n; i++) {
        fds[i] = (struct pollfd){.fd = p->duty.rxqs[i].fd, .events = POLLIN};
    }
    fds[n] = (struct pollfd){.fd = p->wake_fd, .events = POLLIN};
    if (poll(fds, n + 1, ms) <= 0) {
        /* Those without a descriptor stay as they are. */
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        p->duty.rxqs[i].hot = fds[i].fd < 0 || fds[i].revents;
    }
    if (fds[n].revents) {
        (void)!eventfd_read(p->wake_fd, &ignored);
    }
    return true;
}

/* Whether to ask a queue that gave 'n' packets, and may have more, again at once. */
static bool
again(struct rxq *q, unsigned n)
{
    if (!n) {
        q->not_again = NOT_AGAIN;
        return false;
    }
    if (n % NETDEV_MAX_BURST && q->not_again) {
        q->not_again--;
        return false;
    }
    return true;
}

/* Receives from the queues that have packets, as far as known.  Sets '*more' if one
 * of them may have more. */
static unsigned
receive_hot(struct poller *p, bool *more)
{
    unsigned got = 0;

    *more = false;
    for (size_t i = 0; i < p->duty.n_rxqs; i++) {
        struct rxq *q = &p->duty.rxqs[i];

        if (q->hot) {
            bool empty;
            unsigned n = receive(p, q, &empty);

            q->hot = !empty && again(q, n);
            *more |= q->hot;
            got += n;
        }
    }
    return got;
}

/* All by descriptors, and none of them has an error to wait for. */
static bool
by_descriptors(const struct poller *p)
{
    for (size_t i = 0; i < p->duty.n_rxqs; i++) {
        if (p->duty.rxqs[i].fd < 0 || p->duty.rxqs[i].retry_at) {
            return false;
        }
    }
    return true;
}

/* Waits until a queue has packets, somebody wakes us, or it is time to trim. */
static void
wait_for_any(struct poller *p, long long busy)
{
    long long trim_in = p->trimmed ? -1 : MAX(busy + TRIM_MS - time_msec(), 0);

    if (by_descriptors(p)) {
        if (!find_hot(p, BRIEF_MS)) {
            coverage_clear();
            ovsrcu_quiesce_start();
            find_hot(p, trim_in);
            ovsrcu_quiesce_end();
        }
        return;
    }
    if (!p->trimmed) {
        poll_timer_wait_until(busy + TRIM_MS);
    }
    for (size_t i = 0; i < p->duty.n_rxqs; i++) {
        wait_for(&p->duty.rxqs[i]);
        p->duty.rxqs[i].hot = p->duty.rxqs[i].fd < 0;
    }
    poll_fd_wait(p->wake_fd, POLLIN);
    poll_block();
    find_hot(p, 0);
}

static void *
wait_main(void *p_)
{
    struct poller *p = p_;
    long long busy = time_msec();
    unsigned round = 0;
    bool more = false;

    set_subprogram_name(p->name);
    choose_deliveries();

    while (take_over(p)) {
        unsigned got;

        worker_begin(p->worker->worker);
        got = receive_hot(p, &more);
        worker_end(p->worker->worker);
        if (got) {
            busy = time_msec();
            p->trimmed = false;
        } else if (!p->trimmed && time_msec() >= busy + TRIM_MS) {
            trim(p);
        }
        /* Also without packets: a wait that ends at once does not leave RCU, and devices
         * may have dropped what woke us. */
        dp_worker_rcu_quiesce(p->worker);
        /* Both may take a wake-up that take_over() is meant for. */
        if (!more) {
            wait_for_any(p, busy);
        } else if (++round % HOT_ROUNDS == 0) {
            find_hot(p, 0);
        }
    }
    netback_deliver_here(NETBACK_DELIVER_NONE);
    return NULL;
}

static bool
has_work(const struct poller *p)
{
    for (size_t i = 0; i < p->duty.n_owned; i++) {
        if (!portq_empty(p->duty.owned[i]->queue)) {
            return true;
        }
    }
    return atomic_load(&p->wanted) != atomic_load(&p->seen);
}

/* Sleeps until somebody wakes us, at most 'us'.  True if somebody did. */
static bool
sleep_for(struct poller *p, enum sleep how, unsigned us)
{
    struct timespec ts = {.tv_nsec = us * 1000L};

    /* At most a few milliseconds: not worth leaving RCU, which takes locks and
     * memory each time.  Among packets poll_main() sees to RCU; a quiescent
     * state wakes whoever waits for it. */
    if (how == IDLE) {
        ovsrcu_quiesce();
    }
    atomic_store(&p->sleep, how);
    if (!has_work(p)) {
        syscall(SYS_futex, &p->sleep, FUTEX_WAIT_PRIVATE, how, &ts, NULL, 0);
    }
    return atomic_exchange_explicit(&p->sleep, AWAKE, memory_order_relaxed) == AWAKE;
}

/* Sleeps for good until main has something for the thread to do. */
static void
rest(struct poller *p)
{
    ovsrcu_quiesce_start();
    atomic_store(&p->sleep, IDLE);
    while (!has_work(p) && atomic_load(&p->sleep)) {
        syscall(SYS_futex, &p->sleep, FUTEX_WAIT_PRIVATE, IDLE, NULL, NULL, 0);
    }
    atomic_store(&p->sleep, AWAKE);
    ovsrcu_quiesce_end();
}

/* How long to nap after a round in which no queue had more than 'most' packets;
 * 0: not at all. */
static unsigned
nap_after(struct poller *p, unsigned most)
{
    unsigned max = atomic_load_explicit(&p->max_nap_us, memory_order_relaxed);

    if (most > FEW_PACKETS) {
        p->nap_us /= 2;
        return 0;
    }
    p->nap_us = MIN(p->nap_us + p->nap_us / 8 + 1, max);
    return p->nap_us < SLEEP_MIN_US || rte_rdtsc() < p->nap_from ? 0 : p->nap_us;
}

/* How long to spin for the next packet, now that some have come, one every 'pause_us':
 * after a sleep, or when the core was another thread's, it may be several. */
static uint64_t
spin_after(const struct poller *p, uint64_t pause_us)
{
    if (atomic_load_explicit(&p->max_nap_us, memory_order_relaxed)) {
        return SPIN_US;
    }
    if (pause_us > PAUSE_MAX_US) {
        return MAX(SPIN_US, p->spin_us - p->spin_us / 4);
    }
    return MAX(MAX(SPIN_US, 2 * pause_us), p->spin_us - p->spin_us / 64);
}

/* Nothing has come for 'idle_us'; 'nap_us' is what nap_after() says. */
static void
idle(struct poller *p, uint64_t idle_us, unsigned nap_us)
{
    if (!p->duty.n_rxqs && !p->duty.n_owned) {
        rest(p);
    } else if (idle_us > MAX(p->spin_us, nap_us)) {
        unsigned us = MIN(MAX(idle_us / 8, SLEEP_MIN_US), SLEEP_MAX_US);

        if (idle_us > TRIM_MS * 1000) {
            trim(p);
        }
        sleep_for(p, IDLE, idle_us > QUIET_US ? SLEEP_QUIET_US : MAX(us, nap_us));
    } else if (nap_us) {
        if (sleep_for(p, NAP, nap_us)) {
            p->nap_from = rte_rdtsc() + rte_get_tsc_hz() / 1000000 * SPIN_US;
        }
        /* RCU's turn comes by time, and who only sends has no other clock. */
        worker_set_now(p->worker->worker, time_msec());
    } else {
        rte_pause();
    }
}

static void *
poll_main(void *p_)
{
    struct poller *p = p_;
    uint64_t tsc_per_us = MAX(rte_get_tsc_hz() / 1000000, 1);
    uint64_t busy = rte_rdtsc();
    bool attached;

    set_subprogram_name(p->name);
    ovs_numa_thread_setaffinity_core(p->core);
    attached = dpdk_attach_thread(p->core);
    /* Sleeps of microseconds are meant. */
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);

    while (take_over(p)) {
        unsigned most = 0, nap_us;

        /* Stays online while there is work: going off and on again each round
         * costs a fence. */
        worker_begin(p->worker->worker);
        for (size_t i = 0; i < p->duty.n_rxqs; i++) {
            bool empty;
            unsigned n = receive(p, &p->duty.rxqs[i], &empty);

            most = MAX(most, n);
        }
        for (size_t i = 0; i < p->duty.n_owned; i++) {
            unsigned n = send_queued(p->duty.owned[i]);

            most = MAX(most, n);
        }
        nap_us = nap_after(p, most);
        if (most) {
            uint64_t now = rte_rdtsc();

            p->spin_us = spin_after(p, (now - busy) / tsc_per_us / most);
            busy = now;
            p->trimmed = false;
            dp_worker_rcu_quiesce(p->worker);
        }
        if (!most || nap_us) {
            worker_end(p->worker->worker);
            idle(p, most ? 0 : (rte_rdtsc() - busy) / tsc_per_us, nap_us);
        }
    }
    if (attached) {
        dpdk_detach_thread();
    }
    return NULL;
}

struct poller *
poller_create(struct dp *dp, unsigned core)
{
    struct poller *p = xzalloc(sizeof *p);

    p->dp = dp;
    p->core = core;
    p->spin_us = SPIN_US;
    ovs_mutex_init(&p->lock);
    xpthread_cond_init(&p->taken, NULL);
    duty_init(&p->duty);
    duty_init(&p->next);
    p->fds = xmalloc(sizeof *p->fds);
    p->wake_fd = -1;
    if (is_waiter(p) && (p->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0) {
        VLOG_FATAL("eventfd: %s", ovs_strerror(errno));
    }
    p->worker = dp_worker_create(dp, is_waiter(p) ? WAIT_CACHE_MAX : POLL_CACHE_MAX, false);
    p->name = is_waiter(p) ? xstrdup("weft-wait") : xasprintf("weft-poll-%u", core);
    ovs_strlcpy(p->worker->name, p->name, sizeof p->worker->name);
    p->thread = ovs_thread_create(p->name, is_waiter(p) ? wait_main : poll_main, p);
    return p;
}

void
poller_destroy(struct poller *p)
{
    if (!p) {
        return;
    }
    ovs_mutex_lock(&p->lock);
    p->exit = true;
    commit(p);
    ovs_mutex_unlock(&p->lock);
    xpthread_join(p->thread, NULL);
    dp_worker_destroy(p->worker);
    duty_destroy(&p->duty);
    duty_destroy(&p->next);
    if (p->wake_fd >= 0) {
        close(p->wake_fd);
    }
    xpthread_cond_destroy(&p->taken);
    ovs_mutex_destroy(&p->lock);
    free(p->fds);
    free(p->name);
    free(p);
}

/* --- what it does -------------------------------------------------------------- */

void
poller_give_rxq(struct poller *p, struct dp_port *port, unsigned i)
{
    int fd = is_waiter(p) ? fd_of(port->netdev, port->rxqs[i]) : -1;

    ovs_mutex_lock(&p->lock);
    p->next.rxqs = xrealloc(p->next.rxqs, (p->next.n_rxqs + 1) * sizeof *p->next.rxqs);
    p->next.rxqs[p->next.n_rxqs++] =
        (struct rxq){.port = port,
                     .rxq = port->rxqs[i],
                     .fd = fd,
                     .tap = fd >= 0 && userspace_tso_enabled() &&
                            port->netdev->netdev_class == &netdev_tap_class};
    commit(p);
    ovs_mutex_unlock(&p->lock);
}

void
poller_give_port(struct poller *p, struct dp_port *port)
{
    ovs_mutex_lock(&p->lock);
    p->next.owned = xrealloc(p->next.owned, (p->next.n_owned + 1) * sizeof *p->next.owned);
    p->next.owned[p->next.n_owned++] = port;
    commit(p);
    ovs_mutex_unlock(&p->lock);
    atomic_store_explicit(&port->owner, p, memory_order_release);
    /* What was queued before there was an owner. */
    wake(p, NAP);
}

void
poller_take_away(struct poller *p, const struct dp_port *port)
{
    struct duty *d = &p->next;
    size_t n;

    ovs_mutex_lock(&p->lock);
    n = d->n_rxqs;
    d->n_rxqs = 0;
    for (size_t i = 0; i < n; i++) {
        if (d->rxqs[i].port != port) {
            d->rxqs[d->n_rxqs++] = d->rxqs[i];
        }
    }
    n = d->n_owned;
    d->n_owned = 0;
    for (size_t i = 0; i < n; i++) {
        if (d->owned[i] != port) {
            d->owned[d->n_owned++] = d->owned[i];
        }
    }
    commit(p);
    ovs_mutex_unlock(&p->lock);
}

void
poller_set_max_nap(struct poller *p, unsigned us)
{
    atomic_store_explicit(&p->max_nap_us, us, memory_order_relaxed);
}

unsigned
poller_load(const struct poller *p)
{
    /* Only the main thread writes 'next'. */
    return p->next.n_rxqs + p->next.n_owned;
}
