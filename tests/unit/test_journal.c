/* The journal: what survives a process, and what an unanswered request leaves. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "journal.h"

static char dir[] = "/tmp/weft-journal-XXXXXX";

static void
test_survives(void)
{
    struct journal_connection c = {.n_queues = 2, .ctrl_ref = 9};
    struct journal *j;

    CASE("state written by a killed process is there");
    pid_t pid = fork();
    if (!pid) {
        uint8_t mac[6] = {1, 0, 0x5e, 0, 0, 7};
        if (journal_open(dir, 5, 1, &j)) {
            _exit(1);
        }
        journal_reset(j, &c);
        j->hash.algorithm = 1;
        j->hash.key[3] = 0xdeadbeef;
        j->hash.mapping_size = 4;
        j->hash.mapping[2] = 1;
        mcast_add(&j->mcast, mac);
        journal_gref_add(j, 1, 77, true, 0);
        kill(getpid(), SIGKILL);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    CHECK(!journal_open(dir, 5, 1, &j));
    CHECK(journal_matches(j, &c));
    CHECK(j->hash.algorithm == 1 && j->hash.key[3] == 0xdeadbeef);
    CHECK(j->hash.mapping_size == 4 && j->hash.mapping[2] == 1);
    CHECK(j->mcast.addr[0] != 0);
    CHECK(j->gref_top[1] == 1 && j->grefs[1][0].ref == 77 && j->grefs[1][0].readonly);
    c.queue[0].tx_ref = 12;
    CHECK(!journal_matches(j, &c));
    journal_reset(j, &c);
    CHECK(j->hash.algorithm == 0 && j->hash.mapping[2] == 0 && j->gref_top[1] == 0);
    CHECK(j->mcast.addr[0] == 0);
    journal_close(j);
}

static void
test_settle(void)
{
    struct journal_connection c = {.n_queues = 1};
    struct journal *j;

    CASE("an unanswered request is undone, an answered one kept");
    CHECK(!journal_open(dir, 6, 0, &j));
    journal_reset(j, &c);
    /* Indices wrap. */
    uint32_t first = UINT32_MAX;
    journal_gref_add(j, 0, 100, false, first);
    journal_gref_add(j, 0, 101, false, first + 1);
    journal_gref_add(j, 0, 102, false, first + 2);
    journal_gref_removing(j, 0, 100, first + 1); /* answered */
    journal_gref_removing(j, 0, 101, first + 2); /* not answered */
    journal_settle(j, first + 2);
    CHECK(j->grefs[0][0].state == JGREF_FREE);
    CHECK(j->grefs[0][1].state == JGREF_MAPPED);
    CHECK(j->grefs[0][2].state == JGREF_FREE);

    CASE("a full journal refuses");
    journal_reset(j, &c);
    bool all = true;
    for (unsigned i = 0; i < JOURNAL_GREFS_MAX; i++) {
        all &= !journal_gref_add(j, 0, i, false, 1);
    }
    CHECK(all);
    CHECK(journal_gref_add(j, 0, 1, false, 1) != 0);
    journal_close(j);
}

static void
test_foreign_file(void)
{
    struct journal *j;
    char path[128];

    CASE("a file that is no journal is replaced");
    snprintf(path, sizeof path, "%s/vif-7.0", dir);
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 100000; i++) {
        fputs("garbage!", f);
    }
    fclose(f);
    CHECK(!journal_open(dir, 7, 0, &j));
    CHECK(j->hash.mapping_size == 0 && j->hash.mapping == j->hash_mapping);
    journal_close(j);
    journal_remove(dir, 7, 0);
    CHECK(access(path, F_OK) != 0);
}

int
main(void)
{
    if (!mkdtemp(dir)) {
        return 1;
    }
    test_survives();
    test_settle();
    test_foreign_file();
    journal_remove(dir, 5, 1);
    journal_remove(dir, 6, 0);
    rmdir(dir);
    return check_done();
}
