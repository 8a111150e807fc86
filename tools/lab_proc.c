/* Theory of Operation: starting a process
 *
 * fork() comes first, because the pid is not known before; the child then
 * waits at a gate (a pipe) until the parent has written pid and start time
 * to the state file.  If the parent dies in between, the child reads end of
 * file and exits without having done anything.  A second pipe, closed by a
 * successful exec, carries the errno of whatever went wrong up to there. */
#include "lab_proc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lab_netns.h"

int64_t
lab_now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool
read_file(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return false;
    }
    ssize_t n = read(fd, buf, size - 1);
    close(fd);
    if (n <= 0) {
        return false;
    }
    buf[n] = '\0';
    return true;
}

void
lab_boot_id(char *buf, size_t size)
{
    if (!read_file("/proc/sys/kernel/random/boot_id", buf, size)) {
        snprintf(buf, size, "unknown");
    }
    buf[strcspn(buf, "\n")] = '\0';
}

uint64_t
lab_proc_start_time(pid_t pid)
{
    char path[32], stat[1024];

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (!read_file(path, stat, sizeof stat)) {
        return 0;
    }
    /* Field 2 is the name in parentheses and may hold anything. */
    char *p = strrchr(stat, ')');
    for (int field = 2; p && field < 22; field++) {
        p = strchr(p + 1, ' ');
    }
    return p ? strtoull(p + 1, NULL, 10) : 0;
}

/* --- the child's side ---------------------------------------------------- */

static int
child_descriptors(const struct lab_spawn *s)
{
    int in = open("/dev/null", O_RDWR | O_CLOEXEC);
    int out = s->log ? open(s->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : in;

    if (in < 0 || out < 0 || dup2(in, 0) < 0 ||
        dup2(s->stdout_fd >= 0 ? s->stdout_fd : out, 1) < 0 || dup2(out, 2) < 0 ||
        close_range(3, ~0U, CLOSE_RANGE_CLOEXEC)) {
        return errno;
    }
    if (s->pass_fd >= 0 && fcntl(s->pass_fd, F_SETFD, 0)) {
        return errno;
    }
    return 0;
}

static void
child_signals(void)
{
    sigset_t none;

    for (int sig = 1; sig < 32; sig++) {
        signal(sig, SIG_DFL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void
child_run(const struct lab_spawn *s, pid_t parent, int gate, int report)
{
    char go;
    int error;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || read(gate, &go, 1) != 1) {
        _exit(127);
    }
    setpgid(0, 0); /* out of the reach of the terminal's Ctrl-C */
    child_signals();
    error = s->netns_fd >= 0 ? lab_netns_join(s->netns_fd) : 0;
    if (!error) {
        error = child_descriptors(s);
    }
    for (const char *const *e = s->env; !error && e && *e; e++) {
        error = putenv((char *)*e) ? errno : 0;
    }
    if (!error) {
        execvp(s->program, (char *const *)s->argv);
        error = errno;
    }
    if (write(report, &error, sizeof error) < 0) {
        _exit(126);
    }
    _exit(127);
}

/* --- the parent's side --------------------------------------------------- */

static int
spawn(struct lab *lab, struct lab_proc *p, const struct lab_spawn *s)
{
    int gate[2] = {-1, -1}, report[2] = {-1, -1};
    pid_t parent = getpid();
    int error = 0, child_error;

    if (pipe2(gate, O_CLOEXEC) || pipe2(report, O_CLOEXEC)) {
        error = errno;
        goto out;
    }
    pid_t pid = fork();
    if (pid < 0) {
        error = errno;
        goto out;
    }
    if (pid == 0) {
        close(gate[1]);
        close(report[0]);
        child_run(s, parent, gate[0], report[1]);
    }
    close(report[1]);
    report[1] = -1;
    p->pid = pid;
    p->start = lab_proc_start_time(pid);
    p->started_ms = lab_now_ms();
    p->pidfd = pidfd_open(pid, 0);
    error = p->pidfd < 0 ? errno : lab ? lab_save(lab) : 0;
    if (!error && write(gate[1], "g", 1) != 1) {
        error = errno;
    }
    close(gate[1]); /* without the byte, the child leaves */
    gate[1] = -1;
    if (!error && read(report[0], &child_error, sizeof child_error) == sizeof child_error) {
        error = child_error;
    }
    if (error) {
        waitpid(pid, NULL, 0);
        lab_proc_reap(p, &child_error);
    }
out:
    for (int i = 0; i < 2; i++) {
        if (gate[i] >= 0) {
            close(gate[i]);
        }
        if (report[i] >= 0) {
            close(report[i]);
        }
    }
    return error;
}

int
lab_proc_spawn(struct lab *lab, struct lab_proc *p, const struct lab_spawn *s)
{
    int error = spawn(lab, p, s);

    if (error) {
        lab_fail(lab, error, "cannot run %s: %s", s->program, strerror(error));
    }
    return error;
}

int
lab_proc_spawn_unlisted(struct lab_proc *p, const struct lab_spawn *s)
{
    return spawn(NULL, p, s);
}

int
lab_proc_spawn_read(struct lab_proc *p, const struct lab_netns *netns, const char *program,
                    const char *const *argv, const char *const *env, int *fd)
{
    struct lab_spawn s = {.program = program, .argv = argv, .env = env, .pass_fd = -1};
    int out[2], error;

    s.netns_fd = lab_netns_open(netns);
    if (s.netns_fd < 0) {
        return errno;
    }
    if (pipe2(out, O_CLOEXEC)) {
        error = errno;
        close(s.netns_fd);
        return error;
    }
    s.stdout_fd = out[1];
    error = lab_proc_spawn_unlisted(p, &s);
    close(out[1]);
    close(s.netns_fd);
    if (error) {
        close(out[0]);
        return error;
    }
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    *fd = out[0];
    return 0;
}

static void
forget(struct lab_proc *p)
{
    if (p->pidfd >= 0) {
        close(p->pidfd);
        p->pidfd = -1;
    }
    p->pid = 0;
    p->start = 0;
}

int
lab_proc_open(struct lab_proc *p)
{
    if (p->pid <= 1) {
        return ESRCH;
    }
    if (p->pidfd >= 0) {
        return 0;
    }
    int fd = pidfd_open(p->pid, 0);
    if (fd < 0) {
        return errno;
    }
    if (lab_proc_start_time(p->pid) != p->start) {
        close(fd);
        return ESRCH;
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    p->pidfd = fd;
    return 0;
}

bool
lab_proc_alive(struct lab_proc *p)
{
    struct pollfd pfd = {.events = POLLIN};

    if (lab_proc_open(p)) {
        return false;
    }
    pfd.fd = p->pidfd;
    return poll(&pfd, 1, 0) == 0;
}

void
lab_proc_signal(struct lab_proc *p, int sig)
{
    if (!lab_proc_open(p)) {
        pidfd_send_signal(p->pidfd, sig, NULL, 0);
    }
}

bool
lab_proc_reap(struct lab_proc *p, int *status)
{
    siginfo_t info = {0};

    *status = -1;
    if (p->pid == 0) {
        return true;
    }
    if (lab_proc_alive(p)) {
        return false;
    }
    if (p->pidfd >= 0 && !waitid(P_PIDFD, p->pidfd, &info, WEXITED | WNOHANG) && info.si_pid) {
        *status = info.si_code == CLD_EXITED ? W_EXITCODE(info.si_status, 0) : info.si_status;
    }
    forget(p);
    return true;
}

/* Waits until 'deadline' for the processes; returns how many live on. */
static unsigned
await_ends(struct lab_proc **procs, unsigned n, int64_t deadline)
{
    struct pollfd *fds = calloc(n + 1, sizeof *fds);
    unsigned alive = 0;
    int status;

    while (fds) {
        int64_t left = deadline - lab_now_ms();
        alive = 0;
        for (unsigned i = 0; i < n; i++) {
            if (!lab_proc_reap(procs[i], &status)) {
                fds[alive++] = (struct pollfd){.fd = procs[i]->pidfd, .events = POLLIN};
            }
        }
        if (!alive || left <= 0) {
            break;
        }
        poll(fds, alive, (int)left);
    }
    free(fds);
    return alive;
}

unsigned
lab_proc_end(struct lab_proc **procs, unsigned n, int sig, int timeout_ms)
{
    for (unsigned i = 0; i < n; i++) {
        lab_proc_signal(procs[i], sig);
    }
    unsigned alive = await_ends(procs, n, lab_now_ms() + timeout_ms);
    if (!alive) {
        return 0;
    }
    for (unsigned i = 0; i < n; i++) {
        lab_proc_signal(procs[i], SIGKILL);
    }
    return await_ends(procs, n, lab_now_ms() + 5000);
}

void
lab_proc_describe(int status, char *buf, size_t size)
{
    if (status == -1) {
        snprintf(buf, size, "ended");
    } else if (WIFEXITED(status)) {
        snprintf(buf, size, "exited with status %d", WEXITSTATUS(status));
    } else {
        snprintf(buf, size, "was killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    }
}
