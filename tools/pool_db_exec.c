#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pool_db.h"

enum { OUT_MAX = 1 << 20, ASK_S = 3, ARGS_MAX = 24 };

/* --- programs -------------------------------------------------------------------- */

/* A file beside our program; false: the path would be too long. */
static bool
beside_us(const char *name, char path[PDB_PATH])
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self);

    if (n <= 0 || n == sizeof self) {
        return false;
    }
    self[n] = '\0';
    return snprintf(path, PDB_PATH, "%s/%s", dirname(self), name) < PDB_PATH;
}

void
pdb_program(const char *name, char path[PDB_PATH])
{
    if (!beside_us(name, path) || access(path, X_OK)) {
        snprintf(path, PDB_PATH, "%s", name);
    }
}

int
pdb_schema(char path[PDB_PATH], char *why)
{
    static const char installed[] = "/usr/share/weft/pool.ovsschema";

    if (beside_us("../share/pool.ovsschema", path) && !access(path, R_OK)) {
        return 0;
    }
    if (snprintf(path, PDB_PATH, "%s", installed) < PDB_PATH && !access(path, R_OK)) {
        return 0;
    }
    snprintf(why, PDB_WHY, "pool.ovsschema is missing: build it with make");
    return ENOENT;
}

/* In the child: what it prints goes to 'out'; it ends with us. */
static void
become(const char *const *argv, int out)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (out >= 0) {
        dup2(out, STDOUT_FILENO);
        dup2(out, STDERR_FILENO);
    }
    execvp(argv[0], (char *const *)argv);
    dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static int64_t
now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Everything up to the end of the file; false: it took too long, or too much. */
static bool
read_all(int fd, int64_t until, char *text, size_t *n)
{
    for (;;) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        int64_t left = until ? until - now_ms() : -1;
        ssize_t got;

        if (until && (left <= 0 || (poll(&pfd, 1, (int)left) < 0 && errno != EINTR))) {
            return false;
        }
        if (until && !pfd.revents) {
            continue;
        }
        got = read(fd, text + *n, OUT_MAX - *n);
        if (got <= 0) {
            return got == 0;
        }
        *n += got;
        if (*n == OUT_MAX) {
            return false;
        }
    }
}

int
pdb_run(const char *const *argv, unsigned timeout_s, char **out, char *why)
{
    int64_t until = timeout_s ? now_ms() + (int64_t)timeout_s * 1000 : 0;
    char *text = malloc(OUT_MAX + 1);
    int fds[2], status = 0;
    size_t n = 0;
    pid_t pid;
    bool whole;

    if (!text || pipe2(fds, O_CLOEXEC)) {
        snprintf(why, PDB_WHY, "%s: %s", argv[0], strerror(errno));
        free(text);
        return ENOMEM;
    }
    pid = fork();
    if (!pid) {
        become(argv, fds[1]);
    }
    close(fds[1]);
    whole = pid > 0 && read_all(fds[0], until, text, &n);
    close(fds[0]);
    if (pid > 0) {
        if (!whole) {
            kill(pid, SIGKILL);
        }
        waitpid(pid, &status, 0);
    }
    while (n > 0 && text[n - 1] == '\n') {
        n--;
    }
    text[n] = '\0';
    if (!whole || !WIFEXITED(status) || WEXITSTATUS(status)) {
        const char *line = strrchr(text, '\n');

        snprintf(why, PDB_WHY, "%.500s", whole ? line ? line + 1 : text : "no answer");
        free(text);
        return EIO;
    }
    if (out) {
        *out = text;
    } else {
        free(text);
    }
    return 0;
}

/* --- the server ---------------------------------------------------------------------- */

struct args {
    const char *v[ARGS_MAX + 1];
    char text[ARGS_MAX][PDB_PATH];
    unsigned n;
};

static void __attribute__((format(printf, 2, 3))) add(struct args *a, const char *format, ...)
{
    va_list va;

    va_start(va, format);
    vsnprintf(a->text[a->n], sizeof a->text[0], format, va);
    va_end(va);
    a->v[a->n] = a->text[a->n];
    a->v[++a->n] = NULL;
}

static void
add_tls(struct args *a, const struct pdb *p, const char *ca)
{
    add(a, "--private-key=%s", p->key);
    add(a, "--certificate=%s", p->certificate);
    add(a, "--ca-cert=%s", ca);
}

int
pdb_spawn(const char *const *argv, pid_t *pidp, char *why)
{
    *pidp = fork();
    if (!*pidp) {
        become(argv, -1);
    }
    if (*pidp < 0) {
        snprintf(why, PDB_WHY, "cannot start %s: %s", argv[0], strerror(errno));
        *pidp = 0;
        return errno;
    }
    return 0;
}

int
pdb_start(const struct pdb *p, pid_t *pidp, char *why)
{
    char path[PDB_PATH], ca[PDB_PATH];
    struct args a = {.n = 0};

    snprintf(ca, sizeof ca, "%s", p->ca);
    if (p->role == PDB_COPY && *p->hosts_ca && !*p->crl && pdb_both_authorities(p, ca, why)) {
        return EIO;
    }
    pdb_program("ovsdb-server", path);
    add(&a, "%s", path);
    pdb_path(p, "pool.db", path);
    add(&a, "%s", path);
    pdb_path(p, "db.sock", path);
    unlink(path);
    add(&a, "--remote=punix:%s", path);
    pdb_path(p, "ctl", path);
    unlink(path);
    add(&a, "--unixctl=%s", path);
    pdb_path(p, "ovsdb-server.log", path);
    add(&a, "--log-file=%s", path);
    add(&a, "-vconsole:off");
    add(&a, "-vsyslog:off");
    add_tls(&a, p, ca);
    /* It reads no lists of revoked certificates: with one the ports are weft-dbgate's. */
    if (p->role != PDB_COPY && !*p->crl) {
        add(&a, "--remote=pssl:%u:%s", p->port, p->ip);
    }
    if (p->role != PDB_MEMBER && !*p->crl) {
        add(&a, "--remote=pssl:%u:%s", p->port + 1, p->ip);
    }
    if (p->role == PDB_COPY) {
        /* Nobody is there: it can be read, and follows when pdb_follow() says so. */
        pdb_path(p, "primary.sock", path);
        add(&a, "--sync-from=unix:%s", path);
    }
    return pdb_spawn(a.v, pidp, why);
}

int
pdb_tool(const char *command, const char *const *args, char **out, char *why)
{
    const char *argv[12] = {NULL, command};
    char path[PDB_PATH];
    unsigned n = 2;

    pdb_program("ovsdb-tool", path);
    argv[0] = path;
    while (*args) {
        argv[n++] = *args++;
    }
    argv[n] = NULL;
    return pdb_run(argv, 0, out, why);
}

int
pdb_appctl(const struct pdb *p, const char *const *args, char **out, char *why)
{
    char path[PDB_PATH];
    struct args a = {.n = 0};

    pdb_program("ovs-appctl", path);
    add(&a, "%s", path);
    pdb_path(p, "ctl", path);
    add(&a, "--target=%s", path);
    add(&a, "--timeout=10");
    for (; *args; args++) {
        add(&a, "%s", *args);
    }
    return pdb_run(a.v, 12, out, why);
}

int
pdb_follow(const struct pdb *p, char *why)
{
    char target[PDB_PATH];
    int error;

    pdb_peer_target(p, target);
    error = pdb_appctl(p, (const char *[]){"ovsdb-server/set-active-ovsdb-server", target, NULL},
                       NULL, why);
    return error ? error
                 : pdb_appctl(p, (const char *[]){"ovsdb-server/connect-active-ovsdb-server", NULL},
                              NULL, why);
}

/* --- the row -------------------------------------------------------------------------- */

/* One transaction, and the answer to its last operation. */
static int
transact(const struct pdb *p, const char *target, const char *json, bool writes, json_t **last,
         char *why)
{
    char path[PDB_PATH], *out;
    struct args a = {.n = 0};
    json_t *root;
    int error;

    pdb_path(p, "db.sock", path);
    if (target || (pdb_runner(p) && !access(path, F_OK))) {
        char program[PDB_PATH];

        pdb_program("ovsdb-client", program);
        add(&a, "%s", program);
        add(&a, "--timeout=%d", ASK_S);
        add_tls(&a, p, p->ca);
        add(&a, "-vconsole:off");
        add(&a, "transact");
        add(&a, target ? "%s" : "unix:%s", target ? target : path);
        a.v[a.n] = json;
        a.v[a.n + 1] = NULL;
        error = pdb_run(a.v, ASK_S + 2, &out, why);
    } else {
        error = pdb_file_transact(p, json, writes, &out, why);
    }
    if (error) {
        return error;
    }
    root = json_loads(out, 0, NULL);
    *last = json_incref(json_array_get(root, json_array_size(root) - 1));
    json_decref(root);
    if (!json_is_object(*last) || json_object_get(*last, "error")) {
        snprintf(why, PDB_WHY, "%.500s", out);
        json_decref(*last);
        error = EIO;
    }
    free(out);
    return error;
}

int
pdb_read_row(const struct pdb *p, const char *target, struct pdb_row *row, char *why)
{
    json_t *answer, *r;
    int error = transact(p, target,
                         "[\"Weft_Pool\",{\"op\":\"select\",\"table\":\"Pool\",\"where\":[],"
                         "\"columns\":[\"fence\",\"closed\",\"primary\",\"copy\"]}]",
                         false, &answer, why);

    memset(row, 0, sizeof *row);
    if (error) {
        return error;
    }
    r = json_array_get(json_object_get(answer, "rows"), 0);
    if (r) {
        const char *primary = json_string_value(json_object_get(r, "primary"));
        const char *copy = json_string_value(json_object_get(r, "copy"));

        row->fence = json_integer_value(json_object_get(r, "fence"));
        row->closed = json_is_true(json_object_get(r, "closed"));
        snprintf(row->primary, sizeof row->primary, "%.64s", primary ? primary : "");
        snprintf(row->copy, sizeof row->copy, "%.127s", copy ? copy : "");
    } else {
        snprintf(why, PDB_WHY, "the database is empty");
        error = ENOENT;
    }
    json_decref(answer);
    return error;
}

int
pdb_write_row(const struct pdb *p, const char *target, const struct pdb_row *was,
              const char *columns, char *why)
{
    char json[1200], condition[300] = "";
    json_t *answer;
    int error;

    if (was) {
        snprintf(condition, sizeof condition,
                 "{\"op\":\"wait\",\"timeout\":0,\"table\":\"Pool\",\"where\":[],\"columns\":"
                 "[\"fence\",\"closed\"],\"until\":\"==\",\"rows\":[{\"fence\":%lld,"
                 "\"closed\":%s}]},",
                 (long long)was->fence, was->closed ? "true" : "false");
    }
    snprintf(json, sizeof json,
             "[\"Weft_Pool\",%s{\"op\":\"update\",\"table\":\"Pool\",\"where\":[],\"row\":{%s}},"
             "{\"op\":\"commit\",\"durable\":true}]",
             condition, columns);
    error = transact(p, target, json, true, &answer, why);
    if (!error) {
        json_decref(answer);
    }
    return error;
}
