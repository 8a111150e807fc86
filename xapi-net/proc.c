#include <config.h>

#include "proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "svec.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(proc);

/* Output is looked at this often while a process runs. */
#define TAIL_MS 100
/* The kernel takes no longer ones; the mark may be anywhere in it. */
#define ENVIRON_MAX (6 << 20)

static const char *const suffixes[] = {"pid", "out", "log", "in", "ctl", "dom", "stray"};

struct proc {
    char *name;
    pid_t pid;
    int pidfd; /* -1: it has ended */
    int out;   /* NAME.out, or -1 */
    char line[PROC_LINE_MAX];
    size_t n_line;
    const struct procs *procs;
};

struct procs {
    char *dir;
    struct shash map; /* by name: struct proc */
};

char *
proc_path(const struct procs *ps, const char *name, const char *suffix)
{
    return xasprintf("%s/%s.%s", ps->dir, name, suffix);
}

struct procs *
procs_create(const char *run_dir)
{
    struct procs *ps = xzalloc(sizeof *ps);

    ps->dir = xstrdup(run_dir);
    shash_init(&ps->map);
    return ps;
}

static void
free_proc(struct proc *p)
{
    if (p->pidfd >= 0) {
        close(p->pidfd);
    }
    if (p->out >= 0) {
        close(p->out);
    }
    free(p->name);
    free(p);
}

void
procs_destroy(struct procs *ps)
{
    struct shash_node *node;

    if (ps) {
        SHASH_FOR_EACH (node, &ps->map) {
            free_proc(node->data);
        }
        shash_destroy(&ps->map);
        free(ps->dir);
        free(ps);
    }
}

void
procs_wait(struct procs *ps)
{
    struct shash_node *node;

    SHASH_FOR_EACH (node, &ps->map) {
        struct proc *p = node->data;

        if (p->pidfd >= 0) {
            poll_fd_wait(p->pidfd, POLLIN);
            if (p->out >= 0) {
                poll_timer_wait(TAIL_MS);
            }
        }
    }
}

/* --- finding --------------------------------------------------------------------------- */

/* Pids are used again: the process itself says whose it is. */
static bool
is_it(const struct procs *ps, pid_t pid, const char *name)
{
    char *path = xasprintf("/proc/%d/environ", (int)pid);
    char *mark = xasprintf("WEFT_PROC=%s/%s", ps->dir, name);
    char *text = xmalloc(ENVIRON_MAX + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, ENVIRON_MAX) : -1;
    bool found = false;

    for (ssize_t i = 0; i < n && !found; i += (ssize_t)strlen(text + i) + 1) {
        text[n] = '\0';
        found = !strcmp(text + i, mark);
    }
    if (fd >= 0) {
        close(fd);
    }
    free(text);
    free(path);
    free(mark);
    return found;
}

static struct proc *
add(struct procs *ps, const char *name, pid_t pid, int pidfd)
{
    struct proc *p = xzalloc(sizeof *p);
    char *path = proc_path(ps, name, "out");

    *p = (struct proc){.name = xstrdup(name), .pid = pid, .pidfd = pidfd, .procs = ps};
    p->out = open(path, O_RDONLY | O_CLOEXEC);
    shash_add(&ps->map, name, p);
    free(path);
    return p;
}

struct proc *
proc_find(struct procs *ps, const char *name)
{
    struct proc *p = shash_find_data(&ps->map, name);
    char *path = NULL;
    int pidfd, pid = 0;
    FILE *f;

    if (p) {
        return p;
    }
    path = proc_path(ps, name, "pid");
    f = fopen(path, "re");
    free(path);
    if (!f) {
        return NULL;
    }
    if (fscanf(f, "%d", &pid) != 1 || pid <= 1) {
        pid = 0;
    }
    fclose(f);
    pidfd = pid ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (pidfd >= 0 && !is_it(ps, pid, name)) {
        close(pidfd);
        pidfd = -1;
    }
    return add(ps, name, pid, pidfd);
}

bool
proc_alive(struct proc *p)
{
    struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};

    if (p->pidfd >= 0 && poll(&pfd, 1, 0) == 1) {
        waitpid(p->pid, NULL, WNOHANG); /* if it is our child */
        close(p->pidfd);
        p->pidfd = -1;
    }
    return p->pidfd >= 0;
}

void
procs_each(struct procs *ps, const char *prefix, void (*f)(const char *name, void *aux), void *aux)
{
    struct svec names = SVEC_EMPTY_INITIALIZER;
    DIR *d = opendir(ps->dir);
    struct dirent *e;

    while (d && (e = readdir(d))) {
        size_t n = strlen(e->d_name);
        if (n > 4 && !strcmp(e->d_name + n - 4, ".pid") &&
            !strncmp(e->d_name, prefix, strlen(prefix))) {
            svec_add_nocopy(&names, xmemdup0(e->d_name, n - 4));
        }
    }
    if (d) {
        closedir(d);
    }
    for (size_t i = 0; i < names.n; i++) {
        f(names.names[i], aux);
    }
    svec_destroy(&names);
}

/* --- starting ---------------------------------------------------------------------------- */

/* The pid is on record before the program begins, and the file's making fails if
 * there is one: no two of a name, whenever we die. */
static const char starter[] = "set -C; echo $$ >\"$0\" && exec \"$@\"";

static int
spawn(struct procs *ps, const char *name, char *const argv[], int in, pid_t *pid)
{
    char *pid_file = proc_path(ps, name, "pid"), *out = proc_path(ps, name, "out");
    char *log = proc_path(ps, name, "log"), *mark = xasprintf("WEFT_PROC=%s/%s", ps->dir, name);
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    size_t n = 0, n_env = 0;
    const char **args, **env;
    sigset_t none, all;
    int error;

    while (argv[n]) {
        n++;
    }
    while (environ[n_env]) {
        n_env++;
    }
    args = xcalloc(n + 5, sizeof *args);
    args[0] = "/bin/sh";
    args[1] = "-c";
    args[2] = starter;
    args[3] = pid_file;
    memcpy(args + 4, argv, n * sizeof *argv);
    env = xcalloc(n_env + 2, sizeof *env);
    memcpy(env, environ, n_env * sizeof *env);
    env[n_env] = mark;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in, 0);
    posix_spawn_file_actions_addopen(&files, 1, out, O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_addopen(&files, 2, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_addclosefrom_np(&files, 3);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setflags(&attr,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    error = posix_spawn(pid, args[0], &files, &attr, (char *const *)args, (char *const *)env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    free(args);
    free(env);
    free(mark);
    free(log);
    free(out);
    free(pid_file);
    return error;
}

/* Its standard input: held open for reading and writing by the process itself.
 * A line that the FIFO has no room for is refused: nobody reads it yet, and the
 * main loop would wait for ever. */
static int
open_input(struct procs *ps, const char *name, const char *input, int *fdp)
{
    char *path, *line;
    ssize_t n;
    int error = 0;

    if (!input) {
        *fdp = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return *fdp < 0 ? errno : 0;
    }
    path = proc_path(ps, name, "in");
    line = xasprintf("%s\n", input);
    unlink(path); /* of one whose pid was never on record */
    *fdp = mkfifo(path, 0600) ? -1 : open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (*fdp < 0) {
        error = errno;
    } else if ((n = write(*fdp, line, strlen(line))) != (ssize_t)strlen(line)) {
        error = n < 0 ? errno : EMSGSIZE;
        close(*fdp);
    } else {
        fcntl(*fdp, F_SETFL, O_RDWR);
    }
    free(line);
    free(path);
    return error;
}

int
proc_start(struct procs *ps, const char *name, char *const argv[], const char *input,
           struct proc **pp)
{
    struct proc *p = proc_find(ps, name);
    int fd, error, pidfd;
    pid_t pid;

    if (pp) {
        *pp = NULL;
    }
    if (p) {
        return EEXIST;
    }
    error = open_input(ps, name, input, &fd);
    if (error) {
        return error;
    }
    error = spawn(ps, name, argv, fd, &pid);
    close(fd);
    if (error) {
        VLOG_WARN("%s: cannot start %s: %s", name, argv[0], ovs_strerror(error));
        return error;
    }
    VLOG_INFO("%s: started %s, pid %d", name, argv[0], (int)pid);
    pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    p = add(ps, name, pid, pidfd);
    if (pp) {
        *pp = p;
    }
    return 0;
}

/* --- talking ------------------------------------------------------------------------------- */

int
proc_signal(struct proc *p, int signal)
{
    return p->pidfd < 0                                                ? ESRCH
           : syscall(SYS_pidfd_send_signal, p->pidfd, signal, NULL, 0) ? errno
                                                                       : 0;
}

int
proc_tell(struct proc *p, const char *text)
{
    char *path = proc_path(p->procs, p->name, "in"), *line = xasprintf("%s\n", text);
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    int error = fd < 0 || write(fd, line, strlen(line)) != (ssize_t)strlen(line) ? errno : 0;

    if (fd >= 0) {
        close(fd);
    }
    free(line);
    free(path);
    return error;
}

bool
proc_line(struct proc *p, char *line, size_t size)
{
    char *end = memchr(p->line, '\n', p->n_line);

    if (!end && p->out >= 0 && p->n_line < sizeof p->line) {
        ssize_t n = read(p->out, p->line + p->n_line, sizeof p->line - p->n_line);
        p->n_line += n > 0 ? (size_t)n : 0;
        end = memchr(p->line, '\n', p->n_line);
    }
    if (!end && p->n_line == sizeof p->line) {
        p->n_line = 0; /* no line of ours is that long */
    }
    if (!end) {
        return false;
    }
    *end = '\0';
    ovs_strlcpy(line, p->line, size);
    p->n_line -= (size_t)(end + 1 - p->line);
    memmove(p->line, end + 1, p->n_line);
    return true;
}

static void
last_line(struct proc *p, const char *suffix, char *words, size_t size)
{
    char *path = proc_path(p->procs, p->name, suffix), text[PROC_LINE_MAX];
    off_t most = sizeof text - 1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    ssize_t n = fd >= 0 ? pread(fd, text, (size_t)most, end > most ? end - most : 0) : 0;

    text[n > 0 ? n : 0] = '\0';
    while (n > 0 && text[n - 1] == '\n') {
        text[--n] = '\0';
    }
    ovs_strlcpy(words, strrchr(text, '\n') ? strrchr(text, '\n') + 1 : text, size);
    if (fd >= 0) {
        close(fd);
    }
    free(path);
}

void
proc_last_words(struct proc *p, char *words, size_t size)
{
    last_line(p, "log", words, size);
}

void
proc_last_line(struct proc *p, char *line, size_t size)
{
    last_line(p, "out", line, size);
}

void
proc_forget(struct procs *ps, struct proc *p)
{
    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
        char *path = proc_path(ps, p->name, suffixes[i]);

        unlink(path);
        free(path);
    }
    shash_find_and_delete(&ps->map, p->name);
    free_proc(p);
}
