/* The processes that a supervisor starts: see spare.h and spare.c. */
#include <config.h>

#include "spare.h"
#include "spare_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend.h"
#include "daemon.h"
#include "dp.h"
#include "dpdk.h"
#include "dpif.h"
#include "fatal-signal.h"
#include "odp-util.h"
#include "openvswitch/json.h"
#include "openvswitch/vlog.h"
#include "ovs-numa.h"
#include "shadow.h"
#include "shadow_file.h"
#include "smap.h"
#include "svec.h"
#include "timeval.h"
#include "userspace-tso.h"
#include "util.h"
#include "wrap.h"

VLOG_DEFINE_THIS_MODULE(spare_child);

#define SPARE_NICE 19
/* A vif takes some five. */
#define FILES 16384

static int supervisor_fd = -1;
static bool has_pidfile;
static char *pidfile; /* NULL: the default */
static int usual_nice;
static bool child_detached, preparing;
static pid_t holder;          /* see hold_memory() */
static bool successor;        /* takes over from another */
static struct dpif *datapath; /* successor: held open until the bridges have it */

/* --- a child ------------------------------------------------------------------------------- */

void
spare_set_fd(const char *fd)
{
    supervisor_fd = atoi(fd);
    fcntl(supervisor_fd, F_SETFD, FD_CLOEXEC);
}

void
spare_set_pidfile(const char *name)
{
    has_pidfile = true;
    pidfile = name[0] ? xstrdup(name) : NULL;
}

void
spare_set_detached(void)
{
    child_detached = true;
}

/* As daemon.c does it, with the lock that says that the process lives. */
static void
make_pidfile(void)
{
    char *name = spare_pidfile_name(pidfile);
    char *tmp = xasprintf("%s.tmp%ld", name, (long)getpid());
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    FILE *f = fopen(tmp, "we");

    if (!f || fcntl(fileno(f), F_SETLK, &lock) || fprintf(f, "%ld\n", (long)getpid()) < 0 ||
        fflush(f) || rename(tmp, name)) {
        VLOG_ERR("%s: cannot be written (%s)", name, ovs_strerror(errno));
        unlink(tmp);
    } else {
        fatal_signal_add_file_to_unlink(name);
    }
    /* 'f' stays open: it holds the lock. */
    free(tmp);
    free(name);
}

static char *
config_path(void)
{
    return shadow_path("config");
}

void
spare_save_config(const struct smap *other_config)
{
    char *path, *text;
    struct json *json;

    if (supervisor_fd < 0 || preparing) {
        return;
    }
    path = config_path();
    json = smap_to_json(other_config);
    text = json_to_string(json, 0);

    char *tmp = xasprintf("%s.tmp", path);
    FILE *f = fopen(tmp, "we");
    if (!f || fputs(text, f) < 0 || fclose(f) || rename(tmp, path)) {
        VLOG_WARN("%s: cannot be written; a spare cannot prepare itself", path);
    }
    free(tmp);
    free(text);
    json_destroy(json);
    free(path);
}

/* DPDK probes devices as it starts: those that the other process has must be
 * left alone.  They are attached when their ports are added.  False if the
 * user's own choice of devices is in the way. */
static bool
leave_devices(struct smap *config)
{
    const char *extra = smap_get_def(config, "dpdk-extra", "");
    char *words = xasprintf(" %s ", extra), *ours;
    bool chosen = strstr(words, " -a") || strstr(words, " -b") || strstr(words, " --allow") ||
                  strstr(words, " --block") || strstr(words, " --vdev") ||
                  strstr(words, " --no-pci");

    if (!chosen) {
        ours = xasprintf("%s -a 0000:00:00.0", extra);
        smap_replace(config, "dpdk-extra", ours);
        free(ours);
    }
    free(words);
    return !chosen;
}

static void
prepare(void)
{
    char *path = config_path();
    struct json *json = json_from_file(path);
    struct smap config = SMAP_INITIALIZER(&config);

    if (json->type == JSON_OBJECT) {
        smap_from_json(&config, json);
        if (leave_devices(&config)) {
            ovs_numa_init();
            preparing = true;
            dpdk_init(&config);
            preparing = false;
            userspace_tso_init(&config);
            backend_prepare();
        }
    }
    smap_destroy(&config);
    json_destroy(json);
    free(path);
}

static bool
tell_supervisor(void)
{
    char ready = READY;

    return write(supervisor_fd, &ready, 1) == 1;
}

/* The supervisor's word, or the end if there is none any more. */
static char
hear_supervisor(void)
{
    char what = 0;
    ssize_t n;

    do {
        n = read(supervisor_fd, &what, 1);
    } while (n < 0 && errno == EINTR);
    if (n != 1) {
        exit(EXIT_SUCCESS);
    }
    return what;
}

/* As long as there is but one thread, the table of open files grows for
 * nothing; later, each time it is full, a thread waits for all other cores. */
static void
make_room_for_files(void)
{
    struct rlimit limit;
    int last;

    if (getrlimit(RLIMIT_NOFILE, &limit)) {
        return;
    }
    last = MIN(limit.rlim_cur, FILES) - 1;
    if (last > supervisor_fd && fcntl(last, F_GETFD) < 0 && dup2(supervisor_fd, last) == last) {
        close(last);
    }
}

/* In a process that shares our memory, and of our files has only the socket,
 * which says when the supervisor has closed its end.  It shares the thread
 * local storage, too: nothing here may write to it, not even errno. */
static int
hold(void *unused OVS_UNUSED)
{
    struct pollfd end = {.fd = supervisor_fd};

    if (supervisor_fd) {
        syscall(SYS_close_range, 0, supervisor_fd - 1, 0);
    }
    syscall(SYS_close_range, supervisor_fd + 1, ~0U, 0);
    syscall(SYS_prctl, PR_SET_NAME, "weft-memory");
    while (syscall(SYS_poll, &end, 1, -1) == 0) {
        continue;
    }
    return 0;
}

/* A process is gone for its parent when the kernel has taken its memory apart:
 * thousands of pages, a thousand mappings, five to ten milliseconds in which
 * guests wait.  So another one has that memory as well, which the kernel then
 * takes apart when it ends, after the supervisor has made the spare go on.  At no
 * low priority: it takes locks of files that others map, too.  It is the
 * supervisor's child. */
static void
hold_memory(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* know threads only */
    static char stack[16384] __attribute__((aligned(16)));
    sigset_t all, old;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old);
    holder = clone(hold, stack + sizeof stack, CLONE_VM | CLONE_PARENT, NULL);
    if (holder < 0) {
        VLOG_WARN("nobody holds the memory (%s): guests wait longer after a kill",
                  ovs_strerror(errno));
    }
    sigprocmask(SIG_SETMASK, &old, NULL);
#else
    (void)hold;
#endif
}

void
spare_wait(void)
{
    if (supervisor_fd < 0) {
        return;
    }
    make_room_for_files();
    usual_nice = getpriority(PRIO_PROCESS, 0);
    if (hear_supervisor() == PREPARE) {
        /* Not at the expense of the guests; the supervisor takes it back. */
        setpriority(PRIO_PROCESS, 0, SPARE_NICE);
        prepare();
        tell_supervisor();
        hear_supervisor();
        successor = true;
    }
    hold_memory();
    if (has_pidfile) {
        make_pidfile();
    }
}

/* The bridges are there.  A datapath that none of them has is in the way. */
static void
let_go(void)
{
    if (datapath) {
        /* Its own reference and ours. */
        if (ovs_refcount_read(&dp_of(datapath)->refs) <= 2) {
            dpif_delete(datapath);
        }
        dpif_close(datapath);
        datapath = NULL;
    }
}

/* Of all threads. */
static void
set_nice(int nice)
{
    DIR *d = opendir("/proc/self/task");
    struct dirent *e;

    while (d && (e = readdir(d))) {
        int tid = atoi(e->d_name);

        if (tid > 0) {
            setpriority(PRIO_PROCESS, tid, nice);
        }
    }
    if (d) {
        closedir(d);
    }
}

/* The main thread goes first, as the supervisor has arranged, no longer than
 * guests wait for it; a database that does not answer must not prolong it. */
static void
hurry_less(void)
{
    struct sched_param none = {.sched_priority = 0};

    sched_setscheduler(0, SCHED_OTHER, &none);
    set_nice(usual_nice + HURRY_NICE);
}

/* The switch serves. */
void
__wrap_daemonize_complete(void)
{
    static bool told;

    __real_daemonize_complete();
    if (supervisor_fd >= 0 && !told) {
        told = true;
        if (successor) {
            set_nice(usual_nice);
        }
        if (child_detached) {
            int null = open("/dev/null", O_RDWR | O_CLOEXEC);

            for (int fd = 0; null >= 0 && fd < 3; fd++) {
                dup2(null, fd);
            }
            vlog_set_levels(NULL, VLF_CONSOLE, VLL_OFF);
        }
        tell_supervisor();
        let_go();
    }
}

/* --- taking over ------------------------------------------------------------------------------ */

struct ports {
    struct svec names, options;
};

static void
note_port(void *ports_, const char *name, const char *type, const char *options)
{
    struct ports *ports = ports_;

    /* Others die with the process, or are the bridge's to configure. */
    if (!strcmp(type, "netback")) {
        svec_add(&ports->names, name);
        svec_add(&ports->options, options);
    }
}

static void
add_port(struct dpif *dpif, const char *name, const char *options)
{
    struct smap config = SMAP_INITIALIZER(&config);
    struct netdev *netdev;
    char *copy, *save = NULL;
    odp_port_t port_no = ODPP_NONE;
    int error;

    copy = xstrdup(options);
    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *value = strchr(word, '=');

        if (value) {
            *value++ = '\0';
            smap_replace(&config, word, value);
        }
    }
    error = netdev_open(name, "netback", &netdev);
    if (!error) {
        error = netdev_set_config(netdev, &config, NULL);
        error = error ? error : dpif_port_add(dpif, netdev, &port_no);
        netdev_close(netdev);
    }
    if (error) {
        VLOG_WARN("%s: cannot be added at once: %s", name, ovs_strerror(error));
    }
    free(copy);
    smap_destroy(&config);
}

void
spare_forward(void)
{
    struct ports ports = {SVEC_EMPTY_INITIALIZER, SVEC_EMPTY_INITIALIZER};
    long long start = time_msec();

    if (successor && dpdk_available()) {
        shadow_for_each_port("ovs-" DP_TYPE, note_port, &ports);
    }
    if (ports.names.n && !dpif_create_and_open("ovs-" DP_TYPE, DP_TYPE, &datapath)) {
        for (size_t i = 0; i < ports.names.n; i++) {
            add_port(datapath, ports.names.names[i], ports.options.names[i]);
            if (!i) {
                set_nice(usual_nice + HURRY_NICE); /* netback's threads are there now */
            }
        }
        netdev_run();
        VLOG_INFO("took over %" PRIuSIZE " vifs in %lld ms", ports.names.n, time_msec() - start);
    }
    if (successor) {
        hurry_less();
    }
    svec_destroy(&ports.names);
    svec_destroy(&ports.options);
}

void
spare_exit(void)
{
    if (holder > 0) {
        kill(holder, SIGKILL); /* nobody waits for us now */
    }
    dpif_close(datapath);
    datapath = NULL;
}
