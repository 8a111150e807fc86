/* ctl_switch: a switch with a database of its own, for tests of the controller's
 * side: ovsdb-server and weft-vswitchd with dummy devices in a private folder.
 *
 * Processes that are started end with the test, whatever happens to it. */
#ifndef CTL_SWITCH_H
#define CTL_SWITCH_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util.h"

/* For ctl_sh(). */
#define VSCTL "$BIN/ovs-vsctl --db=unix:$DIR/db.sock --timeout=20 "
#define OFCTL "$BIN/ovs-ofctl -O OpenFlow15 --timeout=30 "
#define APPCTL "$BIN/ovs-appctl --target=$DIR/ctl --timeout=20 "

/* Goes on with 'turn' until 'cond' is true, 'ms' at most; 'otherwise' is done if it does not
 * become so.  The condition. */
#define CTL_UNTIL(cond, ms, turn, otherwise)                                                       \
    ({                                                                                             \
        long long int end_ = time_msec() + (ms);                                                   \
        while (!(cond) && time_msec() < end_) {                                                    \
            turn;                                                                                  \
        }                                                                                          \
        if (!(cond)) {                                                                             \
            otherwise;                                                                             \
        }                                                                                          \
        (cond);                                                                                    \
    })

struct ctl_switch {
    char dir[64];
    pid_t db, vswitchd; /* 0: not running */
};

static char ctl_bin_[PATH_MAX], ctl_own_bin_[PATH_MAX];
static char ctl_said[65536]; /* the last command's output */

/* build/VARIANT/tests/test_x: the tools are in build/bin, what else was built with the test in
 * build/VARIANT/bin. */
static inline void
ctl_find_bin(void)
{
    char self[PATH_MAX - 16];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    ovs_assert(n > 0);
    self[n] = '\0';
    for (int i = 0; i < 3; i++) {
        *strrchr(self, '/') = '\0';
        if (i == 1) {
            snprintf(ctl_own_bin_, sizeof ctl_own_bin_, "%s/bin", self);
        }
    }
    snprintf(ctl_bin_, sizeof ctl_bin_, "%s/bin", self);
}

/* Runs a shell command with $BIN, $DIR set; its status.  Leaves what it says in
 * ctl_said. */
static inline int __attribute__((format(printf, 2, 3)))
ctl_sh(const struct ctl_switch *s, const char *format, ...)
{
    char command[4096];
    size_t n = 0, got;
    va_list args;
    FILE *f;

    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    setenv("BIN", ctl_bin_, 1);
    setenv("DIR", s->dir, 1);
    setenv("OVS_RUNDIR", s->dir, 1);
    f = popen(command, "r");
    ovs_assert(f);
    while (n < sizeof ctl_said - 1 &&
           (got = fread(ctl_said + n, 1, sizeof ctl_said - 1 - n, f)) > 0) {
        n += got;
    }
    ctl_said[n] = '\0';
    return pclose(f);
}

static inline pid_t
ctl_spawn_(const struct ctl_switch *s, const char *log, const char *program, ...)
{
    char path[PATH_MAX + 32], *argv[16] = {path};
    va_list args;
    pid_t pid;
    int n = 1;

    /* The gate is what its tests are about; the switch and the database are only there. */
    snprintf(path, sizeof path, "%s/%s", ctl_own_bin_, program);
    if (strcmp(program, "weft-dbgate") != 0 || access(path, X_OK)) {
        snprintf(path, sizeof path, "%s/%s", ctl_bin_, program);
    }
    va_start(args, program);
    while (n < 15 && (argv[n] = va_arg(args, char *))) {
        n++;
    }
    va_end(args);
    argv[n] = NULL;
    pid = fork();
    if (!pid) {
        char name[128];
        int fd;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        snprintf(name, sizeof name, "%s/%s", s->dir, log);
        fd = open(name, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        setenv("OVS_RUNDIR", s->dir, 1);
        setenv("OVS_LOGDIR", s->dir, 1);
        setenv("OVS_DBDIR", s->dir, 1);
        setenv("OVS_SYSCONFDIR", s->dir, 1);
        execv(path, argv);
        _exit(127);
    }
    return pid;
}

static inline bool
ctl_wait_for_(const struct ctl_switch *s, const char *socket_name)
{
    char path[128];
    struct stat st;

    snprintf(path, sizeof path, "%s/%s", s->dir, socket_name);
    for (int i = 0; i < 1000; i++) {
        if (!stat(path, &st)) {
            return true;
        }
        usleep(10000);
    }
    return false;
}

static inline void
ctl_kill_(pid_t *pid)
{
    if (*pid > 0) {
        kill(*pid, SIGKILL);
        waitpid(*pid, NULL, 0);
        *pid = 0;
    }
}

static inline void
ctl_switch_kill(struct ctl_switch *s)
{
    ctl_kill_(&s->vswitchd);
    ctl_sh(s, "rm -f $DIR/*.mgmt $DIR/*.snoop $DIR/ctl");
}

static inline bool
ctl_switch_start(struct ctl_switch *s)
{
    char db[96], ctl[96];
    const char *program;

    snprintf(db, sizeof db, "unix:%s/db.sock", s->dir);
    snprintf(ctl, sizeof ctl, "--unixctl=%s/ctl", s->dir);
    /* WEFT_TEST_VSWITCHD=../ovs/build/vswitchd/ovs-vswitchd: the stock one. */
    program = getenv("WEFT_TEST_VSWITCHD");
    s->vswitchd = ctl_spawn_(s, "vswitchd.log", program ? program : "weft-vswitchd", db, ctl,
                             "--enable-dummy=override", "--disable-system",
                             "--disable-system-route", "-vsyslog:off", NULL);
    return ctl_wait_for_(s, "ctl");
}

/* A database with bridge xenbr0 (datapath type dummy), and its switch. */
static inline bool
ctl_switch_create(struct ctl_switch *s)
{
    char remote[96], file[96], ctl[96];

    memset(s, 0, sizeof *s);
    ctl_find_bin();
    snprintf(s->dir, sizeof s->dir, "/tmp/weft-ctl-XXXXXX");
    if (!mkdtemp(s->dir)) {
        return false;
    }
    if (ctl_sh(s, "$BIN/ovsdb-tool create $DIR/conf.db $BIN/../share/vswitch.ovsschema 2>&1")) {
        printf("# %s\n", ctl_said);
        return false;
    }
    snprintf(remote, sizeof remote, "--remote=punix:%s/db.sock", s->dir);
    snprintf(file, sizeof file, "%s/conf.db", s->dir);
    snprintf(ctl, sizeof ctl, "--unixctl=%s/dbctl", s->dir);
    s->db = ctl_spawn_(s, "ovsdb.log", "ovsdb-server", file, remote, ctl, "-vsyslog:off", NULL);
    return ctl_wait_for_(s, "db.sock") &&
           !ctl_sh(s, "$BIN/ovs-vsctl --db=unix:$DIR/db.sock --no-wait init") &&
           ctl_switch_start(s) &&
           !ctl_sh(s, "$BIN/ovs-vsctl --db=unix:$DIR/db.sock --timeout=20 add-br xenbr0 -- "
                      "set bridge xenbr0 datapath_type=dummy 2>&1");
}

static inline void
ctl_switch_destroy(struct ctl_switch *s)
{
    ctl_kill_(&s->vswitchd);
    ctl_kill_(&s->db);
    ctl_sh(s, "rm -rf \"$DIR\"");
}

#endif
