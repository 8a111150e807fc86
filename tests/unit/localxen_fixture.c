/* See localxen_fixture.h. */
#include "localxen_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/local_broker.h"

static pid_t broker_pid;
static pid_t test_pid;
static char test_dir[64];

/* At exit, however the test ends short of a signal. */
static void
clean_up(void)
{
    if (getpid() == test_pid) { /* not in a child */
        fixture_remove(test_dir);
    }
}

void
fixture_dir(char *dir, size_t size)
{
    char private[] = "/tmp/weft-test-XXXXXX";

    if (!mkdtemp(private)) {
        perror("mkdtemp");
        exit(1);
    }
    snprintf(dir, size, "%s/xen", private);
    snprintf(test_dir, sizeof test_dir, "%s", dir);
    test_pid = getpid();
    atexit(clean_up);
}

static void
serve(const char *dir, int ready)
{
    struct local_broker *b;
    char why[256];
    sigset_t stops;

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigemptyset(&stops);
    sigaddset(&stops, SIGTERM);
    sigprocmask(SIG_BLOCK, &stops, NULL);
    if (local_broker_open(dir, false, &b, why, sizeof why)) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
    if (write(ready, "r", 1) != 1) {
        exit(1);
    }
    close(ready);
    int error = local_broker_run(b, signalfd(-1, &stops, SFD_CLOEXEC));
    local_broker_close(b);
    exit(error != 0);
}

bool
fixture_start(const char *dir)
{
    int ready[2];
    char byte;

    if (pipe(ready)) {
        return false;
    }
    fflush(stdout);
    broker_pid = fork();
    if (!broker_pid) {
        close(ready[0]);
        serve(dir, ready[1]);
    }
    close(ready[1]);
    bool ok = read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    return ok;
}

void
fixture_stop(int signal)
{
    int status;

    if (broker_pid <= 0) {
        return;
    }
    kill(broker_pid, signal);
    waitpid(broker_pid, &status, 0);
    broker_pid = 0;
    if (signal == SIGTERM && (!WIFEXITED(status) || WEXITSTATUS(status))) {
        printf("not ok broker: ended with status %#x\n", status);
        fixture_remove(test_dir);
        fflush(stdout);
        _exit(1);
    }
}

void
fixture_remove(const char *dir)
{
    char private[256];

    fixture_stop(SIGTERM);
    rmdir(dir); /* a broker that found it there leaves it */
    snprintf(private, sizeof private, "%s", dir);
    *strrchr(private, '/') = '\0';
    rmdir(private);
}

/* --- rig --------------------------------------------------------------------- */

static void
need(int error, const char *what)
{
    if (error) {
        printf("not ok rig: %s: %s\n", what, strerror(error));
        exit(1);
    }
}

void
rig_open_backend(struct rig *r, const char *dir)
{
    char spec[128], why[256] = "";

    snprintf(spec, sizeof spec, "local:%s", dir);
    need(hv_open(spec, &r->hv, why, sizeof why), why);
    need(r->hv->ops->grants_open(r->hv, &r->grants), "grants_open");
    need(r->hv->ops->evtchns_open(r->hv, &r->evtchns), "evtchns_open");
}

void
rig_open(struct rig *r, const char *dir)
{
    rig_open_backend(r, dir);
    need(local_domain_create(dir, RIG_DOMID, RIG_PAGES, RIG_GRANTS, &r->dom),
         "local_domain_create");
    r->memory = local_domain_memory(r->dom);
}

void
rig_close_backend(struct rig *r)
{
    r->hv->ops->grants_close(r->grants);
    r->hv->ops->evtchns_close(r->evtchns);
    hv_close(r->hv);
}

void
rig_close(struct rig *r)
{
    local_domain_destroy(r->dom);
    rig_close_backend(r);
}

bool
run_and_kill(void (*body)(void *), void *arg)
{
    int ready[2];
    char byte;
    pid_t pid;

    if (pipe(ready)) {
        return false;
    }
    fflush(stdout);
    pid = fork();
    if (!pid) {
        body(arg);
        if (write(ready[1], "x", 1) == 1) {
            pause();
        }
        _exit(0);
    }
    close(ready[1]);
    bool ok = read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return ok;
}
