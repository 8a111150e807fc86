/* nb_rig: see nb_rig.h. */
#include "nb_rig.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <rte_eal.h>
#include <xenstore.h>

#include "hv/local_broker.h"
#include "toolstack.h"

#define N_SMALL 8191u
#define N_LARGE 511u
#define SMALL_ROOM (NETBACK_HEADROOM + 1792u)
#define LARGE_ROOM (NETBACK_HEADROOM + NETBACK_FRAME_MAX)
#define LOG_LINES 512u

struct netback *rig_nb;
unsigned rig_expire_ms = RIG_EXPIRE_MS;
struct rte_mempool *rig_small, *rig_large;

static char dir[64], journal_dir[96], hv_spec[96];
static pid_t broker = -1;
static int broker_stop_fd = -1;
static struct xs_handle *store;

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_line[LOG_LINES][256]; /* under log_lock */
static unsigned n_log;                /* under log_lock */
static pthread_cond_t log_moved = PTHREAD_COND_INITIALIZER;
static const char *log_hold; /* under log_lock; NULL: nobody shall stand still */
static bool log_held;        /* under log_lock: somebody does */

static void __attribute__((noreturn)) give_up(const char *what, const char *why)
{
    fprintf(stderr, "rig: %s: %s\n", what, why);
    exit(2);
}

const char *
rig_dir(void)
{
    return dir;
}

/* --- the broker ------------------------------------------------------------- */

static void __attribute__((noreturn)) run_broker(int ready_fd, int stop_fd)
{
    struct local_broker *b;
    char why[256];
    int error = local_broker_open(dir, false, &b, why, sizeof why);

    if (error) {
        fprintf(stderr, "broker: %s\n", why);
        _exit(1);
    }
    (void)!write(ready_fd, "r", 1);
    close(ready_fd);
    local_broker_run(b, stop_fd);
    local_broker_close(b);
    exit(0); /* so that leaks are looked for */
}

/* A process of its own: it plays the hypervisor, and its threads and
 * descriptors shall not be counted as netback's. */
static void
start_broker(void)
{
    int ready[2], stop[2];
    pid_t parent = getpid();
    char byte;

    if (pipe(ready) || pipe(stop)) {
        give_up("pipe", strerror(errno));
    }
    broker = fork();
    if (broker < 0) {
        give_up("fork", strerror(errno));
    }
    if (broker == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
        close(ready[0]);
        close(stop[1]);
        run_broker(ready[1], stop[0]);
    }
    close(ready[1]);
    close(stop[0]);
    broker_stop_fd = stop[1];
    if (read(ready[0], &byte, 1) != 1) {
        give_up("broker", "does not start");
    }
    close(ready[0]);
}

/* --- DPDK --------------------------------------------------------------------- */

#ifdef __SANITIZE_THREAD__
/* DPDK's own pools are not instrumented, so that each buffer that one thread
 * frees and another takes would look like a race.  These say how they
 * synchronise. */
#define POOL_OPS "rig_stack"

struct rig_stack {
    pthread_mutex_t lock;
    unsigned n;
    void *objects[];
};

static int
rig_stack_alloc(struct rte_mempool *mp)
{
    struct rig_stack *s = calloc(1, sizeof *s + mp->size * sizeof s->objects[0]);

    if (!s) {
        return -ENOMEM;
    }
    pthread_mutex_init(&s->lock, NULL);
    mp->pool_data = s;
    return 0;
}

static void
rig_stack_free(struct rte_mempool *mp)
{
    free(mp->pool_data);
}

static int
rig_stack_put(struct rte_mempool *mp, void *const *objects, unsigned n)
{
    struct rig_stack *s = mp->pool_data;

    pthread_mutex_lock(&s->lock);
    memcpy(s->objects + s->n, objects, n * sizeof objects[0]);
    s->n += n;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int
rig_stack_get(struct rte_mempool *mp, void **objects, unsigned n)
{
    struct rig_stack *s = mp->pool_data;

    pthread_mutex_lock(&s->lock);
    bool enough = s->n >= n;
    if (enough) {
        s->n -= n;
        memcpy(objects, s->objects + s->n, n * sizeof objects[0]);
    }
    pthread_mutex_unlock(&s->lock);
    return enough ? 0 : -ENOBUFS;
}

static unsigned
rig_stack_count(const struct rte_mempool *mp)
{
    struct rig_stack *s = mp->pool_data;

    pthread_mutex_lock(&s->lock);
    unsigned n = s->n;
    pthread_mutex_unlock(&s->lock);
    return n;
}

static const struct rte_mempool_ops rig_stack_ops = {
    .name = POOL_OPS,
    .alloc = rig_stack_alloc,
    .free = rig_stack_free,
    .enqueue = rig_stack_put,
    .dequeue = rig_stack_get,
    .get_count = rig_stack_count,
};
RTE_MEMPOOL_REGISTER_OPS(rig_stack_ops);
#else
#define POOL_OPS "lf_stack"
#endif

static void
start_dpdk(void)
{
    char *argv[] = {"rig",           "--no-huge",   "--legacy-mem", "-m",      "192",
                    "--no-pci",      "--no-shconf", "-l",           "0",       "--no-telemetry",
                    "--file-prefix", "weft-test",   "--log-level",  "lib.*:1", NULL};
    cpu_set_t cpus;

    /* EAL nails its caller to a CPU, and every thread made later with it. */
    sched_getaffinity(0, sizeof cpus, &cpus);
    if (rte_eal_init(sizeof argv / sizeof argv[0] - 1, argv) < 0) {
        give_up("EAL", "does not start");
    }
    sched_setaffinity(0, sizeof cpus, &cpus);
    rig_small =
        rte_pktmbuf_pool_create_by_ops("small", N_SMALL, 0, 0, SMALL_ROOM, SOCKET_ID_ANY, POOL_OPS);
    rig_large =
        rte_pktmbuf_pool_create_by_ops("large", N_LARGE, 0, 0, LARGE_ROOM, SOCKET_ID_ANY, POOL_OPS);
    if (!rig_small || !rig_large) {
        give_up("mempools", "no memory");
    }
}

/* --- begin and end --------------------------------------------------------------- */

static void
join(void)
{
    snprintf(journal_dir, sizeof journal_dir, "%s/journals", dir);
    snprintf(hv_spec, sizeof hv_spec, "local:%s", dir);
    if (toolstack_open(dir, &store)) {
        give_up("store", strerror(errno));
    }
    /* Now, lest the thread and the pipe of the first watch look like leaks. */
    xs_watch(store, "@releaseDomain", "unused");
    xs_unwatch(store, "@releaseDomain", "unused");
    (void)xs_fileno(store);
}

void
rig_join(const char *where)
{
    snprintf(dir, sizeof dir, "%s", where);
    join();
}

void
rig_begin(void)
{
    snprintf(dir, sizeof dir, "/tmp/weft-rig-XXXXXX");
    if (!mkdtemp(dir)) {
        give_up(dir, strerror(errno));
    }
    signal(SIGPIPE, SIG_IGN);
    start_broker();
    join();
    start_dpdk();
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

void
rig_end(void)
{
    rig_netback_stop(false);
    xs_close(store);
    store = NULL;
    if (broker > 0) {
        int status;
        close(broker_stop_fd);
        waitpid(broker, &status, 0);
        if (status) {
            printf("not ok the broker ends cleanly: status %#x\n", status);
        }
        nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    }
    rte_mempool_free(rig_small);
    rte_mempool_free(rig_large);
    rte_eal_cleanup();
}

/* --- netback ------------------------------------------------------------------------ */

static void
keep_line(int level, const char *msg)
{
    pthread_mutex_lock(&log_lock);
    if (n_log < LOG_LINES) {
        snprintf(log_line[n_log], sizeof log_line[n_log], "%s", msg);
    }
    n_log++;
    if (log_hold && strstr(msg, log_hold)) {
        log_held = true;
        while (log_hold) {
            pthread_cond_wait(&log_moved, &log_lock);
        }
        log_held = false;
    }
    pthread_mutex_unlock(&log_lock);
    if (getenv("RIG_VERBOSE")) {
        fprintf(stderr, "[%d] %s\n", level, msg);
    }
}

void
rig_log_hold(const char *text)
{
    pthread_mutex_lock(&log_lock);
    log_hold = text;
    pthread_mutex_unlock(&log_lock);
}

static bool
is_held(void)
{
    pthread_mutex_lock(&log_lock);
    bool held = log_held;
    pthread_mutex_unlock(&log_lock);
    return held;
}

bool
rig_log_wait(void)
{
    return RIG_UNTIL(is_held(), RIG_PATIENCE_MS);
}

void
rig_log_go(void)
{
    pthread_mutex_lock(&log_lock);
    log_hold = NULL;
    pthread_cond_broadcast(&log_moved);
    pthread_mutex_unlock(&log_lock);
}

void
rig_log_clear(void)
{
    pthread_mutex_lock(&log_lock);
    n_log = 0;
    pthread_mutex_unlock(&log_lock);
}

unsigned
rig_log_lines(void)
{
    pthread_mutex_lock(&log_lock);
    unsigned n = n_log;
    pthread_mutex_unlock(&log_lock);
    return n;
}

bool
rig_logged(const char *text)
{
    bool found = false;

    pthread_mutex_lock(&log_lock);
    for (unsigned i = 0; i < n_log && i < LOG_LINES; i++) {
        found |= strstr(log_line[i], text) != NULL;
    }
    pthread_mutex_unlock(&log_lock);
    return found;
}

void
rig_netback(void)
{
    if (!rig_small) {
        start_dpdk();
    }
    struct netback_config config = {
        .hv = hv_spec,
        .journal_dir = journal_dir,
        .small = rig_small,
        .large = rig_large,
        .max_queues = RIG_MAX_QUEUES,
        .gref_budget = RIG_GREF_BUDGET,
        .gref_per_queue = RIG_GREF_PER_QUEUE,
        .grx_queue_bytes = RIG_QUEUE_BYTES,
        .grx_expire_ms = rig_expire_ms,
        .grx_stall_ms = RIG_STALL_MS,
        .log = keep_line,
    };
    char why[256];

    if (netback_start(&config, &rig_nb, why, sizeof why)) {
        give_up("netback", why);
    }
    /* Once it answers, all its threads and descriptors are there. */
    struct netback_vif *v;
    if (netback_attach(rig_nb, 1, 99, &v)) {
        give_up("netback", "does not attach");
    }
    netback_detach(v);
}

void
rig_netback_stop(bool close_vifs)
{
    netback_stop(rig_nb, close_vifs);
    rig_nb = NULL;
}

struct xs_handle *
rig_store(void)
{
    return store;
}

void
rig_write(const char *path, const char *key, const char *value)
{
    char full[256];

    snprintf(full, sizeof full, "%s/%s", path, key);
    if (!xs_write(store, XBT_NULL, full, value, strlen(value))) {
        give_up(full, strerror(errno));
    }
}

bool
rig_key_is(const char *path, const char *key, const char *value)
{
    char full[256];

    snprintf(full, sizeof full, "%s/%s", path, key);
    char *is = xs_read(store, XBT_NULL, full, NULL);
    bool same = is && !strcmp(is, value);
    free(is);
    return same;
}

/* --- time ------------------------------------------------------------------------------ */

uint64_t
rig_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
}

void
rig_yield(void)
{
    struct timespec ts = {.tv_nsec = 100000};

    nanosleep(&ts, NULL);
}

/* --- resources ----------------------------------------------------------------------------- */

static unsigned
count_entries(const char *path)
{
    DIR *d = opendir(path);
    unsigned n = 0;

    while (d && readdir(d)) {
        n++;
    }
    if (d) {
        closedir(d);
    }
    return n;
}

struct rig_resources
rig_resources(void)
{
    return (struct rig_resources){
        .fds = count_entries("/proc/self/fd"),
        .threads = count_entries("/proc/self/task"),
        .buffers = rte_mempool_in_use_count(rig_small) + rte_mempool_in_use_count(rig_large),
    };
}

static bool
no_more_than(const struct rig_resources *base)
{
    struct rig_resources r = rig_resources();

    return r.fds <= base->fds && r.threads <= base->threads && r.buffers <= base->buffers;
}

bool
rig_settles(const struct rig_resources *base)
{
    bool settled = RIG_UNTIL(no_more_than(base), RIG_PATIENCE_MS);

    if (!settled) {
        struct rig_resources r = rig_resources();
        fprintf(stderr, "rig: fds %u (was %u), threads %u (%u), buffers %u (%u)\n", r.fds,
                base->fds, r.threads, base->threads, r.buffers, base->buffers);
    }
    return settled;
}

static bool
is_thread(const char *tid, const char *name)
{
    char path[64 + 256], comm[32] = "";
    FILE *f;

    snprintf(path, sizeof path, "/proc/self/task/%s/comm", tid);
    f = fopen(path, "re");
    if (!f) {
        return false;
    }
    bool got = fgets(comm, sizeof comm, f) != NULL;
    fclose(f);
    comm[strcspn(comm, "\n")] = '\0';
    return got && !strcmp(comm, name);
}

/* The id of this process's thread called 'name'; false if there is none. */
static bool
find_thread(const char *name, char *tid, size_t size)
{
    DIR *d = opendir("/proc/self/task");
    bool found = false;
    struct dirent *e;

    while (d && !found && (e = readdir(d))) {
        found = is_thread(e->d_name, name);
        if (found) {
            snprintf(tid, size, "%s", e->d_name);
        }
    }
    if (d) {
        closedir(d);
    }
    return found;
}

bool
rig_has_thread(const char *name)
{
    char tid[256];

    return find_thread(name, tid, sizeof tid);
}

uint64_t
rig_thread_cpu_ns(const char *name)
{
    char tid[256], path[64 + sizeof tid];
    unsigned long long ns = 0;

    if (!find_thread(name, tid, sizeof tid)) {
        return 0;
    }
    snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", tid);
    FILE *f = fopen(path, "re");
    if (f) {
        ns = fscanf(f, "%llu", &ns) == 1 ? ns : 0;
        fclose(f);
    }
    return ns;
}

/* --- the switch ------------------------------------------------------------------------------- */

struct netback_vif *
rig_attach(uint16_t domid)
{
    struct netback_vif *v;
    int error = netback_attach(rig_nb, domid, 0, &v);

    if (error) {
        give_up("attach", strerror(error));
    }
    return v;
}

struct rte_mbuf *
rig_mbuf(const void *frame, uint32_t len)
{
    struct rte_mbuf *m =
        rte_pktmbuf_alloc(len <= SMALL_ROOM - NETBACK_HEADROOM ? rig_small : rig_large);

    if (!m) {
        give_up("rig_mbuf", "pool is empty");
    }
    m->data_off = NETBACK_HEADROOM;
    m->data_len = m->pkt_len = len;
    memcpy(rte_pktmbuf_mtod(m, void *), frame, len);
    return m;
}

unsigned
rig_collect(struct netback_vif *v, struct rte_mbuf **pkts, unsigned *queue_of, unsigned want,
            int ms)
{
    uint64_t until = rig_now_ms() + ms;
    unsigned n = 0;

    for (;;) {
        unsigned before = n;

        for (unsigned q = 0; q < netback_n_queues(v); q++) {
            unsigned room = want - n < NETBACK_MAX_BURST ? want - n : NETBACK_MAX_BURST;
            unsigned got = room ? netback_rx_burst(v, q, pkts + n, room) : 0;

            for (unsigned i = 0; queue_of && i < got; i++) {
                queue_of[n + i] = q;
            }
            n += got;
        }
        if (n >= want || rig_now_ms() >= until) {
            return n;
        }
        if (n == before) {
            rig_yield();
        }
    }
}

unsigned
rig_discard(struct netback_vif *v)
{
    struct rte_mbuf *pkts[256];
    unsigned n, sum = 0, rounds = 0;

    /* As often as empties all that may wait, not for as long as more comes. */
    do {
        n = rig_collect(v, pkts, NULL, 256, 0);
        rig_free(pkts, n);
        sum += n;
    } while (n && ++rounds < 16);
    return sum;
}

void
rig_free(struct rte_mbuf **pkts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        rte_pktmbuf_free(pkts[i]);
    }
}

struct netback_stats
rig_stats(const struct netback_vif *v)
{
    struct netback_stats s;

    netback_stats(v, &s);
    return s;
}

uint64_t
rig_drops(const struct netback_vif *v, enum drop_reason reason)
{
    return rig_stats(v).drops[reason];
}

struct netback_status
rig_status(const struct netback_vif *v)
{
    struct netback_status s;

    netback_status(v, &s);
    return s;
}
