/* ctl_db: a pool database of a test's own, in a folder of its own.
 *
 *     struct ctl_db db;
 *     ctl_db_start(&db);      creates the folder and the database, starts the server
 *     ... db.remote ...
 *     ctl_db_stop(&db);       kills it and removes the folder
 *
 * The server dies with the test.  Runs from the top of the tree. */
#ifndef CTL_DB_H
#define CTL_DB_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CTL_DB_BIN "build/ovs/build/ovsdb/"

struct ctl_db {
    char dir[64];
    char remote[96]; /* unix:DIR/db.sock */
    pid_t pid;
};

/* Runs a program; 0 if it exits with 0. */
static inline int
ctl_db_exec(pid_t *background, char *const argv[])
{
    pid_t pid = fork(), parent = getppid();
    int status;

    (void)parent;
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr)) {
            _exit(126);
        }
        execv(argv[0], argv);
        _exit(127);
    }
    if (background) {
        *background = pid;
        return 0;
    }
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* (Re)starts the server on the database that is there. */
static inline void
ctl_db_run(struct ctl_db *db)
{
    char remote[128], file[96], ctl[96], sock[96];
    struct stat st;
    char *argv[] = {CTL_DB_BIN "ovsdb-server", remote, ctl, "--no-chdir",
                    "-vconsole:off",           file,   NULL};

    snprintf(remote, sizeof remote, "--remote=p%s", db->remote);
    snprintf(ctl, sizeof ctl, "--unixctl=%s/ctl", db->dir);
    snprintf(file, sizeof file, "%s/db", db->dir);
    snprintf(sock, sizeof sock, "%s", db->remote + strlen("unix:"));
    unlink(sock);
    ctl_db_exec(&db->pid, argv);
    for (int i = 0; i < 2000 && stat(sock, &st); i++) {
        usleep(5000);
    }
}

static inline void
ctl_db_kill(struct ctl_db *db)
{
    if (db->pid > 0) {
        kill(db->pid, SIGKILL);
        waitpid(db->pid, NULL, 0);
        db->pid = 0;
    }
}

static inline int
ctl_db_start(struct ctl_db *db)
{
    char file[96];
    char *argv[] = {CTL_DB_BIN "ovsdb-tool", "create", file, "controller/pool.ovsschema", NULL};

    memset(db, 0, sizeof *db);
    snprintf(db->dir, sizeof db->dir, "/tmp/ctl_db.XXXXXX");
    if (!mkdtemp(db->dir)) {
        return -1;
    }
    snprintf(file, sizeof file, "%s/db", db->dir);
    snprintf(db->remote, sizeof db->remote, "unix:%s/db.sock", db->dir);
    if (ctl_db_exec(NULL, argv)) {
        return -1;
    }
    ctl_db_run(db);
    return 0;
}

/* A transaction of somebody else, as JSON. */
static inline int
ctl_db_transact(struct ctl_db *db, const char *json)
{
    char *argv[] = {CTL_DB_BIN "ovsdb-client", "transact", db->remote, (char *)json, NULL};

    return ctl_db_exec(NULL, argv);
}

static inline void
ctl_db_stop(struct ctl_db *db)
{
    static const char *const names[] = {"db", ".db.~lock~", "db.sock", "ctl"};
    char path[128];

    ctl_db_kill(db);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", db->dir, names[i]);
        unlink(path);
    }
    rmdir(db->dir);
}

#endif
