#include "lab_sweep.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lab_netns.h"
#include "lab_proc.h"

struct sweep {
    struct lab *lab;
    bool graceful;
    void (*note)(void *aux, const char *line);
    void *aux;
    struct lab_swept *swept;
};

static void __attribute__((format(printf, 2, 3))) note(struct sweep *s, const char *format, ...)
{
    char line[400];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    s->note(s->aux, line);
}

/* --- processes ------------------------------------------------------------ */

static void
end_procs(struct sweep *s, struct lab_proc **procs, unsigned n, int timeout_ms)
{
    for (unsigned i = 0; i < n; i++) {
        s->swept->processes += lab_proc_alive(procs[i]);
    }
    if (!lab_proc_end(procs, n, s->graceful ? SIGTERM : SIGKILL, timeout_ms)) {
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        if (lab_proc_alive(procs[i])) {
            note(s, "process %d (%s) does not end", (int)procs[i]->pid, procs[i]->name);
            s->swept->left++;
        }
    }
}

static void
end_kind(struct sweep *s, enum lab_proc_kind kind, int timeout_ms)
{
    struct lab_proc **procs = calloc(s->lab->n_procs + 1, sizeof *procs);
    unsigned n = 0;

    if (!procs) {
        return;
    }
    for (unsigned i = 0; i < s->lab->n_procs; i++) {
        if (s->lab->procs[i]->kind == kind) {
            procs[n++] = s->lab->procs[i];
        }
    }
    end_procs(s, procs, n, timeout_ms);
    free(procs);
}

/* "PID.START", the name of a file in exec/.  False if it is not one. */
static bool
exec_entry(const char *name, struct lab_proc *p)
{
    char *end;
    long pid = strtol(name, &end, 10);

    if (pid <= 1 || pid > INT32_MAX || *end != '.' || !isdigit((unsigned char)end[1])) {
        return false;
    }
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "weft lab exec");
    p->pidfd = -1;
    p->pid = (pid_t)pid;
    p->start = strtoull(end + 1, NULL, 10);
    return true;
}

/* Forgets commands that have ended. */
static void
prune_execs(const char *path)
{
    struct dirent *entry;
    struct lab_proc p;
    int status;
    DIR *dir = opendir(path);

    while (dir && (entry = readdir(dir))) {
        if (!exec_entry(entry->d_name, &p)) {
            continue;
        }
        if (lab_proc_reap(&p, &status)) {
            unlinkat(dirfd(dir), entry->d_name, 0);
        } else {
            close(p.pidfd);
        }
    }
    if (dir) {
        closedir(dir);
    }
}

int
lab_exec_register(const char *dir)
{
    char path[LAB_PATH_MAX];
    int fd;

    lab_path(path, sizeof path, dir, "exec");
    if (mkdir(path, 0755) && errno != EEXIST) {
        return errno;
    }
    prune_execs(path);
    snprintf(path, sizeof path, "%s/exec/%d.%llu", dir, (int)getpid(),
             (unsigned long long)lab_proc_start_time(getpid()));
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        return errno;
    }
    close(fd);
    return 0;
}

/* Ends what "weft lab exec" started in the lab. */
static void
end_execs(struct sweep *s)
{
    char path[LAB_PATH_MAX];
    struct dirent *entry;
    struct lab_proc p, *one = &p;
    DIR *dir;

    lab_path(path, sizeof path, s->lab->config.dir, "exec");
    dir = opendir(path);
    while (dir && (entry = readdir(dir))) {
        if (exec_entry(entry->d_name, &p)) {
            end_procs(s, &one, 1, 1000);
        }
    }
    if (dir) {
        closedir(dir);
    }
}

/* --- what weft-xapid started, which outlives it and everything of the lab -------- */

/* weft-xapid marks what it starts, in the environment, with its run directory. */
static bool
is_marked(const char *dir, const char *pid)
{
    char path[300], text[16384], mark[LAB_PATH_MAX];
    size_t n = 0, len;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%s/environ", pid);
    len = (size_t)snprintf(mark, sizeof mark, "WEFT_PROC=%s/", dir);
    f = fopen(path, "re");
    if (f) {
        n = fread(text, 1, sizeof text - 1, f);
        fclose(f);
    }
    text[n] = '\0';
    for (size_t i = 0; i < n; i += strlen(text + i) + 1) {
        if (!strncmp(text + i, mark, len)) {
            return true;
        }
    }
    return false;
}

/* Calls 'end' for each of a directory's; how many there were. */
static unsigned
each_marked(const char *dir, void (*end)(struct lab_proc *, void *aux), void *aux)
{
    struct dirent *entry;
    DIR *proc = opendir("/proc");
    unsigned n = 0;

    while (proc && (entry = readdir(proc))) {
        struct lab_proc p = {.name = "of weft-xapid", .pidfd = -1};

        p.pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (p.pid > 1 && (p.start = lab_proc_start_time(p.pid)) && is_marked(dir, entry->d_name)) {
            end(&p, aux);
            n++;
        }
    }
    if (proc) {
        closedir(proc);
    }
    return n;
}

static void
end_one(struct lab_proc *p, void *s)
{
    end_procs(s, &p, 1, 3000);
}

static void
kill_one(struct lab_proc *p, void *aux)
{
    lab_proc_end(&p, 1, SIGKILL, 1000);
}

void
lab_sweep_host(const struct lab_host *h)
{
    each_marked(h->dir, kill_one, NULL);
}

/* Nobody starts more: weft-xapid has ended. */
static void
end_moved(struct sweep *s)
{
    for (unsigned i = 0; s->lab->n_cells && i < 3 && each_marked(s->lab->config.dir, end_one, s);
         i++) {
        continue;
    }
}

/* Tells about processes of others that still live in the lab's namespaces:
 * they are not ours to kill, and keep a namespace alive without its name. */
static void
report_strangers(struct sweep *s)
{
    struct dirent *entry;
    DIR *proc = opendir("/proc");

    while (proc && (entry = readdir(proc))) {
        char path[300], name[32] = "?";
        struct stat st;
        if (!isdigit((unsigned char)entry->d_name[0])) {
            continue;
        }
        snprintf(path, sizeof path, "/proc/%s/ns/net", entry->d_name);
        if (stat(path, &st)) {
            continue;
        }
        for (unsigned i = 0; i < s->lab->n_netns; i++) {
            if (s->lab->netns[i]->inode != st.st_ino || !st.st_ino) {
                continue;
            }
            snprintf(path, sizeof path, "/proc/%s/comm", entry->d_name);
            FILE *f = fopen(path, "re");
            if (f && fgets(name, sizeof name, f)) {
                name[strcspn(name, "\n")] = '\0';
            }
            if (f) {
                fclose(f);
            }
            note(s, "process %s (%s) was not started by the lab and runs on in %s", entry->d_name,
                 name, s->lab->netns[i]->name);
        }
    }
    if (proc) {
        closedir(proc);
    }
}

/* --- files ---------------------------------------------------------------- */

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    remove(path);
    return 0;
}

static void
remove_tree(const char *dir, const char *name)
{
    char path[LAB_PATH_MAX];

    lab_path(path, sizeof path, dir, name);
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static void
remove_files(struct lab *lab)
{
    const char *dir = lab->config.dir;

    for (unsigned i = 0; i < lab->config.n_hosts; i++) {
        remove_tree(dir, lab->hosts[i].name);
    }
    remove_tree(dir, "pool");
    remove_tree(dir, "exec");
    remove_tree(dir, "log");
    remove_tree(dir, "state.json.new");
}

void
lab_sweep_lock(const char *dir)
{
    char path[LAB_PATH_MAX];

    lab_path(path, sizeof path, dir, "lock");
    unlink(path);
    rmdir(dir);
}

void
lab_sweep(struct lab *lab, bool graceful, void (*note_fn)(void *, const char *), void *aux,
          struct lab_swept *swept)
{
    struct sweep s = {lab, graceful, note_fn, aux, swept};
    char boot[40], path[LAB_PATH_MAX];

    memset(swept, 0, sizeof *swept);
    lab_boot_id(boot, sizeof boot);
    if (!strcmp(boot, lab->boot)) {
        end_execs(&s);
        end_kind(&s, LAB_JOB, 1000);
        end_kind(&s, LAB_XAPID, 3000);
        end_moved(&s);
        end_kind(&s, LAB_FLOWD, 3000);
        end_kind(&s, LAB_CONTROLLERD, 3000);
        end_kind(&s, LAB_POOLDB, 3000);
        end_kind(&s, LAB_NETFRONT, 3000);
        end_kind(&s, LAB_VSWITCHD, 5000);
        end_kind(&s, LAB_OVSDB, 3000);
        end_kind(&s, LAB_LOCALXEN, 3000);
        report_strangers(&s);
        for (unsigned i = 0; i < lab->n_netns; i++) {
            swept->namespaces += lab->netns[i]->inode != 0;
            if (!lab_netns_remove(lab->netns[i])) {
                note(&s, "cannot remove the name of namespace %s: %s", lab->netns[i]->name,
                     strerror(errno));
                swept->left++;
            }
        }
        /* Those that came in while the rest was ending; no more can. */
        end_execs(&s);
    }
    if (swept->left) {
        return; /* the ledger stays for another try */
    }
    remove_files(lab);
    lab_path(path, sizeof path, lab->config.dir, "state.json");
    unlink(path);
}
