/* The row that decides, in a real database server: swaps that race, answers that are lost,
 * servers that are gone, closed, or older, and a pair's copy. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "check.h"
#include "ctl_db.h"
#include "ovs/quiet.h"
#include "ovs/vm_claim.h"

#define VM "6f1f5c2e-7a1d-4c39-9d53-0c8f0c1f0a01"
#define NO_VM "6f1f5c2e-7a1d-4c39-9d53-0c8f0c1f0a02"

static struct ctl_db db;

static int
transact(struct ctl_db *to, const char *operations)
{
    char json[1024];

    snprintf(json, sizeof json, "[\"Weft_Pool\",%s]", operations);
    return ctl_db_transact(to, json);
}

static int
insert_vm(struct ctl_db *to)
{
    return transact(to, "{\"op\":\"insert\",\"table\":\"VM\",\"uuid\":\"" VM
                        "\",\"row\":{\"name\":\"a\","
                        "\"resident_on\":\"h1\",\"epoch\":7,"
                        "\"destination\":\"h2\",\"migration\":\"m\"}}");
}

static int
set_pool(struct ctl_db *to, int fence, bool closed, const char *copy)
{
    char operation[512];

    snprintf(operation, sizeof operation,
             "{\"op\":\"delete\",\"table\":\"Pool\",\"where\":[]},"
             "{\"op\":\"insert\",\"table\":\"Pool\",\"row\":{\"default_action\":\"deny\",\"fence\":"
             "%d,\"closed\":%s,\"copy\":"
             "\"%s\"}}",
             fence, closed ? "true" : "false", copy);
    return transact(to, operation);
}

static bool
says(struct vm_claim *c, const char *host, uint64_t epoch)
{
    char have[VM_CLAIM_HOST];
    uint64_t e;

    return !vm_claim_read(c, VM, have, &e, 5000) && !strcmp(have, host) && e == epoch;
}

static struct vm_claim *
open_claim(const char *remotes)
{
    struct vm_claim *c = NULL;

    return vm_claim_open(remotes, NULL, &c) ? NULL : c;
}

static void
test_swap(void)
{
    struct vm_claim *c = open_claim(db.remote);
    char host[VM_CLAIM_HOST];
    uint64_t epoch;

    CASE("claim_swaps_only_what_it_says");
    CHECK(says(c, "h1", 7));
    CHECK(vm_claim_swap(c, VM, "h1", 6, "h2", 8, 5000) == ESTALE);
    CHECK(vm_claim_swap(c, VM, "h2", 7, "h2", 8, 5000) == ESTALE);
    CHECK(vm_claim_swap(c, NO_VM, "h1", 7, "h2", 8, 5000) == ESTALE);
    CHECK(vm_claim_read(c, NO_VM, host, &epoch, 5000) == ENOENT);
    CHECK(says(c, "h1", 7));
    CHECK(vm_claim_swap(c, VM, "h1", 7, "h2", 7, 5000) == EINVAL);
    CHECK(!vm_claim_swap(c, VM, "h1", 7, "h2", 8, 5000));
    CHECK(says(c, "h2", 8));
    CHECK(vm_claim_swap(c, VM, "h1", 7, "h1", 8, 5000) == ESTALE);
    CHECK(says(c, "h2", 8));
    CHECK(!vm_claim_swap(c, VM, "h2", 8, "h2", 9, 5000));
    CHECK(says(c, "h2", 9));

    CASE("claim_leaves_nobody_else_named");
    CHECK(!transact(&db,
                    "{\"op\":\"wait\",\"timeout\":0,\"table\":\"VM\",\"where\":[],\"columns\":"
                    "[\"destination\",\"migration\"],\"until\":\"==\",\"rows\":"
                    "[{\"destination\":\"\",\"migration\":\"\"}]},"
                    "{\"op\":\"update\",\"table\":\"VM\",\"where\":[],\"row\":{\"epoch\":10}}"));
    CHECK(says(c, "h2", 10));
    vm_claim_close(c);

    CASE("claim_remotes");
    CHECK(!open_claim("") && !open_claim(" , "));
}

/* Source and destination at the same moment, often: one wins. */
static void
test_race(void)
{
    uint64_t epoch = 10;

    CASE("claim_race_has_one_winner");
    for (int round = 0; round < 20; round++, epoch++) {
        pid_t pid[2];
        int status[2], wins = 0;
        struct vm_claim *c;

        for (int side = 0; side < 2; side++) {
            pid[side] = fork();
            if (!pid[side]) {
                c = open_claim(db.remote);
                _exit(vm_claim_swap(c, VM, "h2", epoch, side ? "h2" : "h3", epoch + 1, 5000));
            }
        }
        for (int side = 0; side < 2; side++) {
            waitpid(pid[side], &status[side], 0);
            CHECK(WIFEXITED(status[side]) &&
                  (!WEXITSTATUS(status[side]) || WEXITSTATUS(status[side]) == ESTALE));
            wins += !WEXITSTATUS(status[side]);
        }
        CHECK(wins == 1);
        c = open_claim(db.remote);
        CHECK(says(c, WEXITSTATUS(status[0]) ? "h2" : "h3", epoch + 1));
        if (!WEXITSTATUS(status[0])) {
            CHECK(!vm_claim_swap(c, VM, "h3", epoch + 1, "h2", epoch + 2, 5000));
            epoch++;
        }
        vm_claim_close(c);
    }
}

/* A server that takes requests and answers nothing: what a member without a majority
 * looks like. */
static pid_t
deaf_server(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    pid_t pid;

    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 8)) {
        abort();
    }
    pid = fork();
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            accept(fd, NULL, NULL);
        }
    }
    close(fd);
    return pid;
}

static void
test_servers(void)
{
    char remotes[512], host[VM_CLAIM_HOST], path[96];
    struct vm_claim *c;
    uint64_t epoch, e2;
    pid_t deaf;

    snprintf(path, sizeof path, "%s/deaf", db.dir);
    deaf = deaf_server(path);

    CASE("claim_nobody_answers");
    snprintf(remotes, sizeof remotes, "unix:%s/nothing", db.dir);
    c = open_claim(remotes);
    CHECK(vm_claim_read(c, VM, host, &epoch, 200) == ETIMEDOUT);
    CHECK(vm_claim_swap(c, VM, "h2", 1, "h3", 2, 200) == ETIMEDOUT);
    vm_claim_close(c);
    snprintf(remotes, sizeof remotes, "unix:%s", path);
    c = open_claim(remotes);
    CHECK(vm_claim_swap(c, VM, "h2", 1, "h3", 2, 200) == ETIMEDOUT);
    vm_claim_close(c);

    CASE("claim_next_server_is_asked");
    snprintf(remotes, sizeof remotes, "unix:%s/nothing,unix:%s,%s", db.dir, path, db.remote);
    c = open_claim(remotes);
    CHECK(!vm_claim_read(c, VM, host, &epoch, 10000));
    CHECK(!vm_claim_swap(c, VM, host, epoch, "h2", epoch + 1, 10000));

    CASE("claim_server_restarted");
    ctl_db_kill(&db);
    CHECK(vm_claim_swap(c, VM, "h2", epoch + 1, "h2", epoch + 2, 100) == ETIMEDOUT);
    ctl_db_run(&db);
    CHECK(!vm_claim_read(c, VM, host, &e2, 10000) && e2 == epoch + 1);
    CHECK(!vm_claim_swap(c, VM, "h2", e2, "h2", e2 + 1, 10000));
    vm_claim_close(c);
    kill(deaf, SIGKILL);
    waitpid(deaf, NULL, 0);
    unlink(path);
}

static void
test_fence(void)
{
    struct vm_claim *c = open_claim(db.remote);
    char host[VM_CLAIM_HOST];
    uint64_t epoch;

    CASE("claim_closed_or_older_database_is_not_believed");
    CHECK(!set_pool(&db, 3, false, ""));
    CHECK(!vm_claim_read(c, VM, host, &epoch, 5000));
    CHECK(!set_pool(&db, 4, true, ""));
    CHECK(vm_claim_swap(c, VM, host, epoch, "h2", epoch + 1, 300) == ETIMEDOUT);
    CHECK(vm_claim_read(c, VM, host, &epoch, 300) == ETIMEDOUT);
    CHECK(!set_pool(&db, 2, false, ""));
    CHECK(vm_claim_swap(c, VM, host, epoch, "h2", epoch + 1, 300) == ETIMEDOUT);
    CHECK(!set_pool(&db, 4, false, ""));
    CHECK(!vm_claim_swap(c, VM, host, epoch, "h2", epoch + 1, 5000));
    vm_claim_close(c);
}

/* A pair: a swap counts once the copy has it. */
static void
test_copy(void)
{
    char host[VM_CLAIM_HOST], operation[512];
    struct ctl_db copy;
    struct vm_claim *c;
    uint64_t epoch;
    pid_t pid;

    CASE("claim_pair_counts_once_the_copy_has_it");
    CHECK(!ctl_db_start(&copy));
    c = open_claim(db.remote);
    CHECK(!vm_claim_read(c, VM, host, &epoch, 5000));
    CHECK(!set_pool(&copy, 4, false, copy.remote) && !insert_vm(&copy));
    CHECK(!set_pool(&db, 4, false, copy.remote));
    /* The copy is behind: unknown. */
    CHECK(vm_claim_swap(c, VM, host, epoch, "h2", epoch + 1, 300) == ETIMEDOUT);
    CHECK(vm_claim_read(c, VM, host, &epoch, 300) == ETIMEDOUT);
    /* It catches up while somebody waits. */
    pid = fork();
    if (!pid) {
        usleep(150000);
        snprintf(operation, sizeof operation,
                 "{\"op\":\"update\",\"table\":\"VM\",\"where\":[],\"row\":{\"resident_on\":\"h2\","
                 "\"epoch\":%llu}}",
                 (unsigned long long)epoch + 50);
        _exit(transact(&copy, operation));
    }
    CHECK(!vm_claim_read(c, VM, host, &epoch, 10000) && !strcmp(host, "h2"));
    waitpid(pid, NULL, 0);
    CHECK(!vm_claim_swap(c, VM, "h2", epoch, "h3", epoch + 1, 5000));

    CASE("claim_promoted_copy_ends_the_primary");
    CHECK(!set_pool(&copy, 5, false, ""));
    CHECK(vm_claim_swap(c, VM, "h3", epoch + 1, "h2", epoch + 2, 300) == ETIMEDOUT);
    CHECK(vm_claim_read(c, VM, host, &epoch, 300) == ETIMEDOUT);
    vm_claim_close(c);
    CHECK(!set_pool(&db, 6, false, ""));
    ctl_db_stop(&copy);
}

/* What comes back is somebody's: it is checked. */
static void
test_odd_rows(void)
{
    struct vm_claim *c = open_claim(db.remote);
    char host[VM_CLAIM_HOST];
    uint64_t epoch;

    CASE("claim_odd_row_is_no_answer");
    CHECK(!transact(
        &db, "{\"op\":\"update\",\"table\":\"VM\",\"where\":[],\"row\":{\"resident_on\":"
             "\"0123456789012345678901234567890123456789012345678901234567890123456789\"}}"));
    CHECK(vm_claim_read(c, VM, host, &epoch, 300) == ETIMEDOUT);
    CHECK(!transact(&db, "{\"op\":\"delete\",\"table\":\"VM\",\"where\":[]}"));
    CHECK(vm_claim_read(c, VM, host, &epoch, 5000) == ENOENT);
    vm_claim_close(c);
}

int
main(void)
{
    setlinebuf(stdout);
    ovs_quiet();
    signal(SIGPIPE, SIG_IGN);
    if (ctl_db_start(&db)) {
        printf("not ok claim_database: it does not start\n");
        return 1;
    }
    CASE("claim_row");
    CHECK(!insert_vm(&db));
    test_swap();
    test_race();
    test_servers();
    test_fence();
    test_copy();
    test_odd_rows();
    ctl_db_stop(&db);
    return check_done();
}
