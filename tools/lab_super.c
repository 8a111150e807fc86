/* Theory of Operation
 *
 * One process, one poll() over: a signalfd (being told to stop), the pipe to
 * the listener (its end), a pidfd of every daemon (deaths), and whatever the
 * present step waits for.  While the lab is being built a daemon's death ends
 * the attempt; afterwards ("settled") it makes the daemon due for a restart,
 * at once the first time, later and later when it keeps dying young.
 *
 * Whatever way it ends, the last thing is lab_sweep(): nothing of a failed
 * attempt stays. */
#include "lab_super.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lab_build.h"
#include "lab_netns.h"
#include "lab_proc.h"
#include "lab_sweep.h"

/* A daemon that lives shorter than this died young. */
#define YOUNG_MS 5000
#define MAX_YOUNG_DEATHS 6u
#define FIRST_BACKOFF_MS 100
#define LOG_TAIL_LINES 15

enum { FD_SIGNAL, FD_TELL, FD_WANTED, FD_PROCS };

/* --- telling --------------------------------------------------------------- */

static void
tell_line(struct super *s, char kind, const char *text)
{
    char line[600];
    struct tm tm;
    struct timespec now;
    int len = snprintf(line, sizeof line, "%c %s\n", kind, text);

    len = len < (int)sizeof line ? len : (int)sizeof line - 1;
    line[len - 1] = '\n';
    /* A listener that does not read misses lines; one that is gone shows in
     * wait_once(). */
    if (s->tell_fd >= 0 && write(s->tell_fd, line, len) < 0 && errno != EAGAIN && errno != EPIPE) {
        perror("telling the listener");
    }
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &tm);
    printf("%02d:%02d:%02d.%03ld %s\n", tm.tm_hour, tm.tm_min, tm.tm_sec, now.tv_nsec / 1000000,
           text);
    fflush(stdout);
}

void
super_tell(struct super *s, char kind, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    tell_line(s, kind, text);
}

static void
tell_tail(struct super *s, const char *path)
{
    char buf[8192];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return;
    }
    off_t size = lseek(fd, 0, SEEK_END);
    off_t from = size > (off_t)sizeof buf - 1 ? size - (off_t)sizeof buf + 1 : 0;
    ssize_t n = pread(fd, buf, sizeof buf - 1, from);
    close(fd);
    if (n <= 0) {
        return;
    }
    buf[n] = '\0';
    char *start = buf + n;
    for (unsigned lines = 0; start > buf; start--) {
        if (start[-1] == '\n' && start < buf + n && ++lines == LOG_TAIL_LINES) {
            break;
        }
    }
    for (char *line = strtok(start, "\n"); line; line = strtok(NULL, "\n")) {
        tell_line(s, 'T', line);
    }
}

static void
tell_failure(struct super *s)
{
    tell_line(s, 'E', s->lab->why);
    if (s->lab->why_log[0]) {
        tell_tail(s, s->lab->why_log);
    }
}

static void
note_remains(void *s, const char *line)
{
    tell_line(s, 'N', line);
}

/* --- deaths --------------------------------------------------------------- */

static const char *
owner_name(const struct lab *lab, const struct lab_proc *p)
{
    switch (p->kind) {
    case LAB_NETFRONT:
        return lab->guests[p->owner].name;
    case LAB_POOLDB:
    case LAB_CONTROLLERD:
    case LAB_FLOWD:
        return "the pool";
    default:
        return lab->hosts[p->owner].name;
    }
}

static void
give_up(struct super *s, struct lab_proc *p)
{
    p->failed = true;
    p->restart_at_ms = 0;
    lab_save(s->lab);
    super_tell(s, 'N', "gave up on %s of %s: it died %u times within %d s each; its log is %s",
               p->name, owner_name(s->lab, p), p->quick_deaths, YOUNG_MS / 1000, p->log);
    tell_tail(s, p->log);
}

/* A daemon has died, or could not be started, after the lab was built. */
static void
schedule_restart(struct super *s, struct lab_proc *p)
{
    int64_t now = lab_now_ms();
    int64_t delay = 0;

    p->quick_deaths = now - p->started_ms < YOUNG_MS ? p->quick_deaths + 1 : 0;
    if (p->quick_deaths >= MAX_YOUNG_DEATHS) {
        give_up(s, p);
        return;
    }
    if (p->quick_deaths > 1) {
        delay = FIRST_BACKOFF_MS << (p->quick_deaths - 2);
    }
    p->restart_at_ms = now + delay;
}

static int
note_death(struct super *s, struct lab_proc *p, int status)
{
    char how[80];

    lab_proc_describe(status, how, sizeof how);
    if (!s->settled) {
        snprintf(s->lab->why_log, sizeof s->lab->why_log, "%s", p->log);
        return lab_fail(s->lab, ECHILD, "%s of %s %s", p->name, owner_name(s->lab, p), how);
    }
    super_tell(s, 'N', "%s of %s %s", p->name, owner_name(s->lab, p), how);
    schedule_restart(s, p);
    return 0;
}

static void
restart(struct super *s, struct lab_proc *p)
{
    p->restart_at_ms = 0;
    p->restarts++;
    p->started_ms = lab_now_ms();
    if (lab_build_restart(s, p)) {
        if (!s->stop) {
            super_tell(s, 'N', "%s of %s does not start: %s", p->name, owner_name(s->lab, p),
                       s->lab->why);
            schedule_restart(s, p);
        }
        return;
    }
    super_tell(s, 'N', "%s of %s runs again (pid %d)", p->name, owner_name(s->lab, p), (int)p->pid);
}

/* --- the event loop ---------------------------------------------------------- */

static unsigned
gather(struct super *s, int fd)
{
    unsigned n = FD_PROCS;

    s->fds[FD_SIGNAL] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
    s->fds[FD_TELL] = (struct pollfd){.fd = s->tell_fd};
    s->fds[FD_WANTED] = (struct pollfd){.fd = fd, .events = POLLIN};
    for (unsigned i = 0; i < s->lab->n_procs; i++) {
        struct lab_proc *p = s->lab->procs[i];
        if (p->kind != LAB_JOB && p->pid) {
            s->fds[n] = (struct pollfd){.fd = p->pidfd, .events = POLLIN};
            s->fd_procs[n++] = p;
        }
    }
    return n;
}

/* One poll.  0 if 'fd' is readable, EAGAIN if something else happened. */
static int
wait_once(struct super *s, int fd, int timeout_ms)
{
    unsigned n = gather(s, fd);
    int ready = poll(s->fds, n, timeout_ms);
    int error = 0, status;

    if (ready < 0) {
        return errno == EINTR ? EAGAIN : errno;
    }
    if (ready == 0) {
        return ETIMEDOUT;
    }
    if (s->fds[FD_SIGNAL].revents) {
        s->stop = true;
        return lab_fail(s->lab, ECANCELED, "told to stop");
    }
    if (s->fds[FD_TELL].revents & (POLLERR | POLLHUP)) {
        close(s->tell_fd);
        s->tell_fd = -1;
        if (s->tied || !s->settled) {
            s->stop = true;
            return lab_fail(s->lab, ECANCELED, "the one who wanted the lab is gone");
        }
    }
    for (unsigned i = FD_PROCS; i < n && !error; i++) {
        if (s->fds[i].revents && lab_proc_reap(s->fd_procs[i], &status)) {
            error = note_death(s, s->fd_procs[i], status);
        }
    }
    return error ? error : s->fds[FD_WANTED].revents ? 0 : EAGAIN;
}

int
super_wait(struct super *s, int fd, int timeout_ms)
{
    int64_t deadline = lab_now_ms() + timeout_ms;
    int error;

    if (s->stop) {
        return lab_fail(s->lab, ECANCELED, "told to stop");
    }
    do {
        int64_t left = deadline - lab_now_ms();
        error = wait_once(s, fd, left > 0 ? (int)left : 0);
    } while (error == EAGAIN);
    return error;
}

int
super_job(struct super *s, const char *what, const char *program, const char *const *argv,
          const char *const *env, int timeout_ms)
{
    return super_job_in(s, NULL, what, program, argv, env, timeout_ms);
}

int
super_job_in(struct super *s, const struct lab_netns *netns, const char *what, const char *program,
             const char *const *argv, const char *const *env, int timeout_ms)
{
    struct lab *lab = s->lab;
    struct lab_proc *job = &lab->job;
    struct lab_spawn spawn = {.program = program,
                              .argv = argv,
                              .env = env,
                              .log = job->log,
                              .netns_fd = -1,
                              .stdout_fd = -1,
                              .pass_fd = -1};
    int status = -1;
    int error;

    if (netns && (spawn.netns_fd = lab_netns_open(netns)) < 0) {
        return lab_fail(lab, errno, "namespace %s is gone", netns->name);
    }
    snprintf(job->name, sizeof job->name, "%s", argv[0]);
    unlink(job->log);
    error = lab_proc_spawn(lab, job, &spawn);
    if (spawn.netns_fd >= 0) {
        close(spawn.netns_fd);
    }
    if (!error) {
        error = super_wait(s, job->pidfd, timeout_ms);
    }
    if (error) {
        lab_proc_end(&job, 1, SIGKILL, 1000);
    } else {
        lab_proc_reap(job, &status);
    }
    if (error == ETIMEDOUT || (!error && status != 0)) {
        char how[80] = "took too long";
        if (!error) {
            lab_proc_describe(status, how, sizeof how);
        }
        error = lab_fail(lab, EPROTO, "%s: %s %s", what, argv[0], how);
        snprintf(lab->why_log, sizeof lab->why_log, "%s", job->log);
    }
    return error;
}

/* Milliseconds until the next restart is due, -1 for none. */
static int
next_restart_ms(const struct lab *lab)
{
    int64_t now = lab_now_ms(), next = -1;

    for (unsigned i = 0; i < lab->n_procs; i++) {
        int64_t at = lab->procs[i]->restart_at_ms;
        if (at && (next < 0 || at - now < next)) {
            next = at > now ? at - now : 0;
        }
    }
    return (int)next;
}

static void
run(struct super *s)
{
    struct lab *lab = s->lab;

    while (!s->stop) {
        for (unsigned i = 0; i < lab->n_procs && !s->stop; i++) {
            struct lab_proc *p = lab->procs[i];
            if (p->restart_at_ms && p->restart_at_ms <= lab_now_ms()) {
                restart(s, p);
            }
        }
        int timeout = next_restart_ms(lab);
        if (!s->stop && timeout) {
            wait_once(s, -1, timeout);
        }
    }
}

/* --- beginning and end ------------------------------------------------------ */

static int
prepare(struct super *s)
{
    struct lab *lab = s->lab;
    unsigned n = FD_PROCS + lab->n_procs;
    sigset_t set;

    s->fds = calloc(n, sizeof *s->fds);
    s->fd_procs = calloc(n, sizeof *s->fd_procs);
    if (!s->fds || !s->fd_procs) {
        return lab_fail(lab, ENOMEM, "no memory");
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    if (s->signal_fd < 0) {
        return lab_fail(lab, errno, "cannot make a signalfd: %s", strerror(errno));
    }
    lab->supervisor.pid = getpid();
    lab->supervisor.start = lab_proc_start_time(getpid());
    snprintf(lab->supervisor.name, sizeof lab->supervisor.name, "weft-lab");
    lab_boot_id(lab->boot, sizeof lab->boot);
    lab->since = time(NULL);
    lab->phase = LAB_BUILDING;
    return lab_save(lab);
}

static void
take_down(struct super *s, bool graceful)
{
    struct lab *lab = s->lab;
    struct lab_swept swept;
    char dir[LAB_DIR_MAX + 1];

    lab->phase = LAB_STOPPING;
    lab_save(lab);
    lab_sweep(lab, graceful, note_remains, s, &swept);
    if (swept.left) {
        super_tell(s, 'N', "%u things remain; try weft lab down again", swept.left);
        return;
    }
    snprintf(dir, sizeof dir, "%s", lab->config.dir);
    lab_sweep_lock(dir);
}

static int
supervise(struct super *s)
{
    struct lab *lab = s->lab;
    int error = prepare(s);

    if (!error) {
        error = lab_build(s);
    }
    if (!error) {
        lab->phase = LAB_UP;
        error = lab_save(lab);
    }
    if (error) {
        if (!s->stop) {
            tell_failure(s);
        }
        take_down(s, false);
        return 1;
    }
    s->settled = true;
    tell_line(s, 'R', "up");
    if (!s->tied && s->tell_fd >= 0) {
        close(s->tell_fd);
        s->tell_fd = -1;
    }
    run(s);
    take_down(s, true);
    return 0;
}

/* Leaves the terminal and everything else that the starter had open; the
 * supervisor's own log takes the terminal's place. */
static void
detach(const struct lab *lab, int tell_fd)
{
    unsigned low = lab->lock_fd < tell_fd ? lab->lock_fd : tell_fd;
    unsigned high = lab->lock_fd < tell_fd ? tell_fd : lab->lock_fd;
    char path[LAB_PATH_MAX];

    if (low > 3) {
        close_range(3, low - 1, 0);
    }
    if (high > low + 1) {
        close_range(low + 1, high - 1, 0);
    }
    close_range(high + 1, ~0U, 0);
    setsid();
    if (chdir("/")) {
        return;
    }
    lab_path(path, sizeof path, lab->config.dir, "log");
    mkdir(path, 0755);
    lab_path(path, sizeof path, lab->config.dir, "log/lab.log");
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int out = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (in >= 0) {
        dup2(in, 0);
    }
    if (out >= 0) {
        dup2(out, 1);
        dup2(out, 2);
    }
}

int
lab_super_launch(struct lab *lab, bool tied, struct lab_proc *supervisor, int *tell_fd)
{
    int pipe_fds[2];
    pid_t pid;

    if (pipe2(pipe_fds, O_CLOEXEC)) {
        return lab_fail(lab, errno, "cannot make a pipe: %s", strerror(errno));
    }
    fcntl(pipe_fds[1], F_SETFL, O_NONBLOCK);
    fflush(NULL);
    pid = fork();
    if (pid < 0) {
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        return lab_fail(lab, errno, "cannot fork: %s", strerror(errno));
    }
    if (pid == 0) {
        struct super s = {.lab = lab, .tell_fd = pipe_fds[1], .signal_fd = -1, .tied = tied};
        close(pipe_fds[0]);
        prctl(PR_SET_NAME, "weft-lab");
        detach(lab, pipe_fds[1]);
        _exit(supervise(&s));
    }
    close(pipe_fds[1]);
    memset(supervisor, 0, sizeof *supervisor);
    snprintf(supervisor->name, sizeof supervisor->name, "weft-lab");
    supervisor->pid = pid;
    supervisor->start = lab_proc_start_time(pid);
    supervisor->pidfd = -1;
    *tell_fd = pipe_fds[0];
    return 0;
}
