/* Theory of Operation
 * ===================
 *
 * The supervisor is small: one thread, a signalfd, a socket to each child.  It
 * says one byte to a child: GO, be the switch, or PREPARE, be ready to.  A child
 * says READY: prepared, or serving.  Children die with the supervisor, which
 * has nothing that could make it die.
 *
 * That the active process is gone the supervisor learns by waitid(): then no
 * thread of it is left that could touch a guest's ring, and its files are
 * closed.  Its memory is not gone yet, see hold_memory() in spare_child.c:
 * taking a switch's memory apart takes the kernel several milliseconds, and
 * guests wait.  For the same reason the successor is told before it is reaped.
 *
 * A process that dies young again and again is restarted with a pause. */
#include <config.h>

#include "spare.h"
#include "spare_priv.h"

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
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon.h"
#include "dirs.h"
#include "openvswitch/vlog.h"
#include "process.h"
#include "shadow_file.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(spare);

/* A process that lives shorter than this died young. */
#define YOUNG_MS 5000
#define PAUSE_MS 200
#define PAUSE_MAX_MS 10000
/* Between a switch's death and its reaping. */
#define LEAVE_MS 50
/* How long the end waits for the memory of the last switch to go. */
#define FINISH_MS 1000

/* --- who are we? ---------------------------------------------------------------------- */

static char **child_argv; /* supervisor: what its children are started with */
static size_t child_argc;
static bool supervises, detaches, has_pidfile;
static char *pidfile; /* NULL: the default */

static int usual_nice;

static bool
is_option(const char *arg, const char *name)
{
    size_t len = strlen(name);

    return !strncmp(arg, name, len) && (!arg[len] || arg[len] == '=');
}

void
spare_init(int *argc, char *argv[])
{
    int n = 0;

    for (int i = 1; i < *argc && strcmp(argv[i], "--"); i++) {
        supervises |= !strcmp(argv[i], "--spare");
    }
    if (!supervises) {
        return;
    }
    child_argv = xcalloc(*argc + 8, sizeof *child_argv);
    for (int i = 0; i < *argc; i++) {
        if (is_option(argv[i], "--pidfile")) {
            has_pidfile = true;
            pidfile = argv[i][9] ? argv[i] + 10 : NULL;
        } else if (!strcmp(argv[i], "--detach")) {
            detaches = true;
            argv[n++] = argv[i];
        } else if (strcmp(argv[i], "--spare") && strcmp(argv[i], "--monitor") &&
                   strcmp(argv[i], "--overwrite-pidfile")) {
            child_argv[child_argc++] = argv[i];
            argv[n++] = argv[i];
        }
        if (!i) {
            /* Before a "--", if there is one. */
            child_argv[child_argc++] = "--no-chdir";
        }
    }
    argv[n] = NULL;
    *argc = n;
}

/* --- the supervisor --------------------------------------------------------------------- */

struct child {
    pid_t pid; /* 0: none */
    int fd;
    bool ready;
    long long started;
};

struct super {
    struct child active, spare;
    int signals;
    bool stopping; /* was told to */
    unsigned restarts;
    unsigned young;     /* deaths of children that died young, one after another */
    long long spare_at; /* when a spare is due */
};

/* While guests wait: of the supervisor, and of whoever takes over.  Real-time,
 * because a nice value shortens no other thread's turn; what they start later
 * is not. */
static void
hurry(pid_t pid)
{
    struct sched_param first = {.sched_priority = 1};

    if (sched_setscheduler(pid, SCHED_RR | SCHED_RESET_ON_FORK, &first)) {
        setpriority(PRIO_PROCESS, pid, usual_nice + HURRY_NICE);
    }
}

static void
relax(void)
{
    struct sched_param none = {.sched_priority = 0};

    sched_setscheduler(0, SCHED_OTHER, &none);
    setpriority(PRIO_PROCESS, 0, usual_nice);
}

static void
say(struct child *c, char what)
{
    if (c->pid && write(c->fd, &what, 1) != 1) {
        VLOG_WARN("cannot tell process %ld what to do: %s", (long)c->pid, ovs_strerror(errno));
    }
}

OVS_NO_RETURN static void
run_child(int fd, pid_t parent)
{
    char *fd_option = xasprintf("--spare-fd=%d", fd);
    char *pid_option = xasprintf("--spare-pidfile=%s", pidfile ? pidfile : "");
    char **argv = xcalloc(child_argc + 4, sizeof *argv);
    size_t n = 0;
    sigset_t none;

    /* Options may not come after what is not one. */
    argv[n++] = child_argv[0];
    argv[n++] = fd_option;
    if (has_pidfile) {
        argv[n++] = pid_option;
    }
    if (detaches) {
        argv[n++] = "--spare-detached";
    }
    memcpy(argv + n, child_argv + 1, (child_argc - 1) * sizeof *argv);

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpriority(PRIO_PROCESS, 0, usual_nice); /* and not real-time: see hurry() */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent) {
        execv("/proc/self/exe", argv);
    }
    _exit(127);
}

static bool
start_child(struct child *c)
{
    pid_t parent = getpid();
    int fds[2];

    memset(c, 0, sizeof *c);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds)) {
        VLOG_ERR("cannot make a socket pair: %s", ovs_strerror(errno));
        return false;
    }
    fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    c->pid = fork();
    if (!c->pid) {
        run_child(fds[1], parent);
    }
    close(fds[1]);
    if (c->pid < 0) {
        VLOG_ERR("cannot fork: %s", ovs_strerror(errno));
        close(fds[0]);
        c->pid = 0;
        return false;
    }
    c->fd = fds[0];
    c->started = time_msec();
    return true;
}

static void
forget_child(struct child *c)
{
    if (c->pid) {
        close(c->fd);
        c->pid = 0;
        c->ready = false;
    }
}

static void
end_child(struct child *c)
{
    if (c->pid) {
        kill(c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
        forget_child(c);
    }
}

/* For people and tests: who is who. */
static void
write_state(const struct super *s)
{
    char *path = shadow_path("spare"), *tmp = xasprintf("%s.tmp", path);
    FILE *f = fopen(tmp, "we");

    if (f) {
        fprintf(f, "active %ld %s\n", (long)s->active.pid, s->active.ready ? "ready" : "starting");
        if (s->spare.pid) {
            fprintf(f, "spare %ld %s\n", (long)s->spare.pid, s->spare.ready ? "ready" : "starting");
        }
        fprintf(f, "restarts %u\n", s->restarts);
        if (fclose(f) || rename(tmp, path)) {
            unlink(tmp);
        }
    }
    free(tmp);
    free(path);
}

OVS_NO_RETURN static void
finish(struct super *s, int status)
{
    char *path = shadow_path("spare");

    unlink(path);
    end_child(&s->spare);
    /* The memory of the one that died may take a moment. */
    for (int i = 0; i < FINISH_MS / 10 && waitpid(-1, NULL, WNOHANG) >= 0; i++) {
        poll(NULL, 0, 10);
    }
    if (WIFSIGNALED(status)) {
        sigset_t none;

        sigemptyset(&none);
        signal(WTERMSIG(status), SIG_DFL);
        sigprocmask(SIG_SETMASK, &none, NULL);
        raise(WTERMSIG(status));
    }
    exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE);
}

/* A signal that says "end", rather than one that says that something is wrong. */
static bool
is_order(int sig)
{
    return sig == SIGTERM || sig == SIGINT || sig == SIGHUP;
}

static long long
pause_ms(const struct super *s)
{
    return s->young > 1 ? MIN(PAUSE_MS << MIN(s->young - 2, 10), PAUSE_MAX_MS) : 0;
}

static void
note_life(struct super *s, const struct child *c)
{
    s->young = time_msec() - c->started < YOUNG_MS ? s->young + 1 : 0;
}

/* The kernel says how it died; it is still to be reaped. */
static void
active_died(struct super *s, const siginfo_t *info)
{
    bool ordered = info->si_code == CLD_EXITED || s->stopping || is_order(info->si_status);
    struct child dead = s->active;
    int status;
    char *how;

    s->active.pid = 0;
    if (!ordered && s->spare.pid) {
        s->active = s->spare;
        s->spare.pid = 0;
        s->active.ready = false;
        hurry(s->active.pid); /* if it was not ready yet */
        say(&s->active, GO);
        s->restarts++;
        write_state(s);
    }
    /* While its last threads are still leaving /proc, waitpid() spins in the
     * kernel until they have: not at their expense, nor the successor's. */
    relax();
    poll(NULL, 0, s->active.pid ? LEAVE_MS : 0);
    waitpid(dead.pid, &status, 0);
    hurry(0);
    close(dead.fd);
    if (ordered) {
        finish(s, status);
    }
    note_life(s, &dead);
    how = process_status_msg(status);
    VLOG_ERR("the switch (pid %ld) died (%s), %s", (long)dead.pid, how,
             s->active.pid ? "the spare takes over" : "starting another");
    free(how);
    if (!s->active.pid) {
        poll(NULL, 0, pause_ms(s));
        if (!start_child(&s->active)) {
            finish(s, W_EXITCODE(EXIT_FAILURE, 0));
        }
        say(&s->active, GO);
        s->restarts++;
    }
}

static void
spare_died(struct super *s)
{
    int status;
    char *how;

    waitpid(s->spare.pid, &status, 0);
    how = process_status_msg(status);
    VLOG_WARN("the spare (pid %ld) died (%s)", (long)s->spare.pid, how);
    free(how);
    note_life(s, &s->spare);
    forget_child(&s->spare);
    s->spare_at = time_msec() + MAX(PAUSE_MS, pause_ms(s));
}

static void
reap(struct super *s)
{
    for (;;) {
        siginfo_t info = {.si_pid = 0};

        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) || !info.si_pid) {
            return;
        }
        if (info.si_pid == s->active.pid) {
            active_died(s, &info);
            write_state(s);
        } else if (info.si_pid == s->spare.pid) {
            spare_died(s);
            write_state(s);
        } else {
            waitpid(info.si_pid, NULL, 0); /* what held a dead one's memory */
        }
    }
}

static void
take_signal(struct super *s)
{
    struct signalfd_siginfo info;

    if (read(s->signals, &info, sizeof info) != sizeof info || info.ssi_signo == SIGCHLD) {
        return;
    }
    s->stopping = true;
    end_child(&s->spare);
    kill(s->active.pid, info.ssi_signo);
}

static void
hear(struct super *s, struct child *c)
{
    char what;

    if (read(c->fd, &what, 1) == 1 && what == READY) {
        c->ready = true;
        write_state(s);
        if (c == &s->spare) {
            hurry(c->pid); /* it sleeps until it is needed */
        } else {
            static bool complete;

            if (!complete) {
                complete = true;
                daemonize_complete();
            }
            /* What the switch has still to do at its start comes first. */
            s->spare_at = time_msec() + PAUSE_MS;
        }
    }
}

OVS_NO_RETURN static void
supervise(struct super *s)
{
    for (;;) {
        struct pollfd fds[3] = {
            {.fd = s->signals, .events = POLLIN},
            {.fd = s->active.ready ? -1 : s->active.fd, .events = POLLIN},
            {.fd = s->spare.pid && !s->spare.ready ? s->spare.fd : -1, .events = POLLIN},
        };
        bool wants_spare = !s->spare.pid && s->active.ready && !s->stopping;
        long long left = s->spare_at - time_msec();

        if (wants_spare && left <= 0) {
            if (start_child(&s->spare)) {
                say(&s->spare, PREPARE);
            } else {
                s->spare_at = time_msec() + PAUSE_MAX_MS;
            }
            write_state(s);
            continue;
        }
        poll(fds, ARRAY_SIZE(fds), wants_spare ? left : -1);
        if (fds[0].revents) {
            take_signal(s);
            reap(s);
            continue; /* who was whose may have changed */
        }
        if (fds[1].revents & POLLIN) {
            hear(s, &s->active);
        }
        if (fds[2].revents & POLLIN) {
            hear(s, &s->spare);
        }
        if ((fds[1].revents | fds[2].revents) & (POLLHUP | POLLERR)) {
            /* It is dying; its end is told by SIGCHLD. */
            poll(NULL, 0, 1);
        }
    }
}

char *
spare_pidfile_name(const char *name)
{
    return name ? abs_file_name(ovs_rundir(), name)
                : xasprintf("%s/%s.pid", ovs_rundir(), program_name);
}

/* As daemon.c does. */
static void
refuse_second(void)
{
    char *name = spare_pidfile_name(pidfile);
    pid_t pid = has_pidfile && !access(name, F_OK) ? read_pidfile(name) : 0;

    if (pid > 0) {
        ovs_fatal(0, "%s: already running as pid %ld, aborting", name, (long)pid);
    }
    free(name);
}

void
spare_supervise(void)
{
    struct super s = {.signals = -1};
    sigset_t set;

    if (!supervises) {
        return;
    }
    refuse_second();
    usual_nice = getpriority(PRIO_PROCESS, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s.signals < 0 || !start_child(&s.active)) {
        ovs_fatal(errno, "cannot start the switch");
    }
    say(&s.active, GO);
    write_state(&s);
    hurry(0);
    supervise(&s);
}
