/* What a migration leaves for whoever comes after it: the journal, torn and damaged at
 * every byte, locked, and the claim's file. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "claim.h"
#include "mig_journal.h"

#include "check.h"

#define VM "6f1f5c2e-7a1d-4c39-9d53-0c8f0c1f0a01"
#define MIGRATION "6f1f5c2e-7a1d-4c39-9d53-0c8f0c1f0b01"

static char dir[64], path[96];

static const struct mig_journal_head head = {
    .source = true, .migration = MIGRATION, .vm = VM, .epoch = 7};

static int
reopen(struct mig_journal_past *past)
{
    struct mig_journal *j;
    int error = mig_journal_open(path, &head, &j, past);

    mig_journal_close(j);
    return error;
}

static void
write_whole(void)
{
    struct mig_journal_past past;
    struct mig_journal *j;

    unlink(path);
    CHECK(!mig_journal_open(path, &head, &j, &past) && past.step == MIG_JOURNAL_NONE);
    CHECK(!mig_journal_write(j, MIG_JOURNAL_PAUSING, false));
    CHECK(!mig_journal_write(j, MIG_JOURNAL_COMMITTED, true));
    mig_journal_close(j);
}

static size_t
slurp(char *text, size_t room)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, text, room);

    close(fd);
    return n > 0 ? n : 0;
}

static void
spill(const char *text, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    CHECK(write(fd, text, n) == (ssize_t)n);
    close(fd);
}

static void
test_steps(void)
{
    struct mig_journal_past past;
    struct mig_journal *j;

    CASE("journal_tells_what_was_done");
    write_whole();
    CHECK(!reopen(&past));
    CHECK(past.step == MIG_JOURNAL_COMMITTED && past.pausing && past.committed && !past.ready &&
          !past.aborted);

    CASE("journal_is_one_process_at_a_time");
    CHECK(!mig_journal_open(path, &head, &j, &past));
    CHECK(reopen(&past) == EBUSY);
    mig_journal_close(j);
    CHECK(!reopen(&past));

    CASE("journal_is_of_one_migration");
    for (int i = 0; i < 4; i++) {
        struct mig_journal_head other = head;

        other.source ^= i == 0;
        other.epoch += i == 1;
        other.vm[0] = i == 2 ? '0' : other.vm[0];
        other.migration[0] = i == 3 ? '0' : other.migration[0];
        CHECK(mig_journal_open(path, &other, &j, &past) == ESTALE && !j);
    }
}

/* Another migration of the VM at this host, in a journal of its own. */
static void
test_vm_lock(void)
{
    struct mig_journal_head other = head;
    struct mig_journal_past past;
    struct mig_journal *j, *k;
    char second[128];

    CASE("journal_locks_the_vm");
    snprintf(second, sizeof second, "%s/second", dir);
    other.migration[0] = '0';
    CHECK(!mig_journal_open(path, &head, &j, &past));
    CHECK(mig_journal_open(second, &other, &k, &past) == EBUSY && !k);
    mig_journal_close(j);
    CHECK(!mig_journal_open(second, &other, &k, &past));
    mig_journal_close(k);
    unlink(second);

    CASE("journal_vm_lock_is_removed");
    snprintf(second, sizeof second, "%s/vm-" VM ".lock", dir);
    CHECK(access(second, F_OK) && errno == ENOENT);
}

enum { LOCK_TURNS = 3000 };
static atomic_int holders, most, turns;

static void *
take_turns(void *arg)
{
    struct mig_journal_head mine = head;
    struct mig_journal_past past;
    struct mig_journal *j;
    char name[128];

    mine.migration[0] = *(const char *)arg;
    snprintf(name, sizeof name, "%s/turns%c", dir, mine.migration[0]);
    while (atomic_load(&turns) < LOCK_TURNS) {
        if (!mig_journal_open(name, &mine, &j, &past)) {
            int now = atomic_fetch_add(&holders, 1) + 1;

            if (now > atomic_load(&most)) {
                atomic_store(&most, now);
            }
            atomic_fetch_add(&turns, 1);
            sched_yield();
            atomic_fetch_sub(&holders, 1);
            mig_journal_close(j);
        }
    }
    unlink(name);
    return NULL;
}

/* The file that one has locked may be the one that another has just removed. */
static void
test_vm_lock_turns(void)
{
    pthread_t threads[3];

    CASE("journal_vm_lock_has_one_holder_while_it_comes_and_goes");
    for (int i = 0; i < 3; i++) {
        pthread_create(&threads[i], NULL, take_turns, (void *)&"abc"[i]);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK(atomic_load(&most) == 1 && atomic_load(&turns) >= LOCK_TURNS);
}

/* Who recovers and finds no lines knows that they were lost, and so do those who
 * recover after it. */
static void
test_lost(void)
{
    struct mig_journal_head again = head;
    struct mig_journal_past past;
    struct mig_journal *j;

    CASE("journal_that_was_lost_stays_so");
    again.recovers = true;
    write_whole();
    CHECK(!mig_journal_open(path, &again, &j, &past) && !past.lost);
    mig_journal_close(j);
    for (int how = 0; how < 2; how++) {
        CHECK(how ? !truncate(path, 0) : !unlink(path));
        CHECK(!mig_journal_open(path, &again, &j, &past));
        CHECK(past.lost && past.step == MIG_JOURNAL_NONE);
        mig_journal_close(j);
        CHECK(!mig_journal_open(path, &again, &j, &past));
        CHECK(past.lost && past.step == MIG_JOURNAL_BEGIN);
        CHECK(!mig_journal_write(j, MIG_JOURNAL_DONE, true));
        mig_journal_close(j);
        CHECK(!reopen(&past) && past.lost && past.step == MIG_JOURNAL_DONE);
    }
}

/* A tail that was not written to its end is no step, whatever its length. */
static void
test_torn(void)
{
    char text[1024];
    struct mig_journal_past past;
    size_t n, lines[3] = {0}, k = 0;

    CASE("journal_torn_at_every_byte");
    write_whole();
    n = slurp(text, sizeof text);
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\n' && k < 3) {
            lines[k++] = i + 1;
        }
    }
    CHECK(k == 3 && lines[2] == n);
    for (size_t cut = 0; cut <= n && k == 3; cut++) {
        spill(text, cut);
        CHECK(!reopen(&past));
        CHECK(past.step == (cut >= lines[2]   ? MIG_JOURNAL_COMMITTED
                            : cut >= lines[1] ? MIG_JOURNAL_PAUSING
                            : cut >= lines[0] ? MIG_JOURNAL_BEGIN
                                              : MIG_JOURNAL_NONE));
    }
    /* What is appended after a tear is read again. */
    spill(text, lines[1] + 5);
    {
        struct mig_journal *j;

        CHECK(!mig_journal_open(path, &head, &j, &past) && past.step == MIG_JOURNAL_PAUSING);
        CHECK(!mig_journal_write(j, MIG_JOURNAL_ABORTED, false));
        mig_journal_close(j);
    }
    CHECK(!reopen(&past) && past.step == MIG_JOURNAL_ABORTED && past.aborted && !past.committed);

    CASE("journal_damaged_line_ends_it");
    for (size_t at = lines[0]; at < n; at++) {
        text[at] ^= 4;
        spill(text, n);
        CHECK(!reopen(&past) && !past.committed);
        text[at] ^= 4;
    }
    for (size_t at = 0; at + 1 < lines[0]; at++) {
        text[at] ^= 4;
        spill(text, n);
        CHECK(reopen(&past) == EBADMSG);
        text[at] ^= 4;
    }
}

/* A step that found the disk full is not there, and hides none that comes later. */
static void
test_full(void)
{
    struct mig_journal_past past;
    struct rlimit old, small;
    struct mig_journal *j;
    struct stat st;

    CASE("journal_goes_on_after_a_full_disk");
    write_whole();
    signal(SIGXFSZ, SIG_IGN);
    CHECK(!stat(path, &st) && !getrlimit(RLIMIT_FSIZE, &old));
    small = old;
    small.rlim_cur = st.st_size + 5;
    CHECK(!mig_journal_open(path, &head, &j, &past));
    CHECK(!setrlimit(RLIMIT_FSIZE, &small));
    CHECK(mig_journal_write(j, MIG_JOURNAL_PREPARED, false));
    CHECK(!setrlimit(RLIMIT_FSIZE, &old));
    CHECK(!mig_journal_write(j, MIG_JOURNAL_READY, false));
    mig_journal_close(j);
    CHECK(!reopen(&past) && past.ready && past.step == MIG_JOURNAL_READY);
}

static void
test_pending(void)
{
    uint64_t bitmap[3] = {5, 0, 1ull << 63}, *got = NULL, n_pages = 0;
    struct mig_journal_past past;
    char pending[128];
    struct mig_journal *j;
    int fd;

    CASE("journal_keeps_what_postcopy_owes");
    unlink(path);
    CHECK(!mig_journal_open(path, &head, &j, &past));
    CHECK(mig_journal_load_pending(j, &got, &n_pages) == ENOENT);
    CHECK(!mig_journal_save_pending(j, bitmap, 192));
    CHECK(!mig_journal_load_pending(j, &got, &n_pages) && n_pages == 192 &&
          !memcmp(got, bitmap, sizeof bitmap));
    free(got);
    snprintf(pending, sizeof pending, "%s.pending", path);
    fd = open(pending, O_WRONLY);
    CHECK(pwrite(fd, "x", 1, 30) == 1);
    close(fd);
    CHECK(mig_journal_load_pending(j, &got, &n_pages) == EBADMSG);
    CHECK(!truncate(pending, 20) && mig_journal_load_pending(j, &got, &n_pages) == EBADMSG);
    CHECK(!mig_journal_complete(j));
    CHECK(!mig_journal_write(j, MIG_JOURNAL_DONE, true) && access(pending, F_OK));
    mig_journal_close(j);
    CHECK(!reopen(&past) && past.postcopy && past.complete && past.step == MIG_JOURNAL_DONE);
    unlink(path);
}

static void
test_claim(void)
{
    static const char *const bad[] = {"",
                                      "{}",
                                      "{\"vm\":\"" VM "\",\"host\":\"h1\",\"epoch\":}\n",
                                      "{\"vm\":\"" VM "\",\"host\":\"h1\",\"epoch\":7}x\n",
                                      "{\"vm\":\"" VM "\",\"host\":\"\",\"epoch\":7}\n",
                                      "{\"vm\":\"" VM "\",\"host\":\"h1\",\"epoch\":-7}\n"};
    struct claim_file f = {.path = path, .vm = VM};
    struct mig_claim c = claim_file(&f);
    char host[MIG_HOST], extra[112];
    uint64_t epoch;
    int wins = 0, status;

    CASE("claim_file_swaps_only_what_it_says");
    CHECK(c.read(c.aux, host, &epoch, 100) == ENOENT);
    CHECK(!claim_file_create(&f, "h1", 7) && claim_file_create(&f, "h1", 8) == EEXIST);
    CHECK(c.swap(c.aux, "h1", 6, "h2", 8, 100) == ESTALE &&
          c.swap(c.aux, "h2", 7, "h2", 8, 100) == ESTALE);
    CHECK(!c.swap(c.aux, "h1", 7, "h2", 8, 100));
    CHECK(!c.read(c.aux, host, &epoch, 100) && !strcmp(host, "h2") && epoch == 8);
    CHECK(c.swap(c.aux, "h2", 8, "h\"2", 9, 100) == EINVAL);

    CASE("claim_file_race_has_one_winner");
    for (int i = 0; i < 8; i++) {
        if (!fork()) {
            _exit(c.swap(c.aux, "h2", 8, i % 2 ? "h1" : "h2", 9, 5000) != 0);
        }
    }
    while (wait(&status) > 0) {
        wins += WIFEXITED(status) && !WEXITSTATUS(status);
    }
    CHECK(wins == 1);

    CASE("claim_file_damaged_is_no_answer");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        spill(bad[i], strlen(bad[i]));
        CHECK(c.read(c.aux, host, &epoch, 100) == EBADMSG);
        CHECK(c.swap(c.aux, "h1", 7, "h2", 8, 100) == EBADMSG);
    }
    unlink(path);
    snprintf(extra, sizeof extra, "%s.lock", path);
    unlink(extra);
}

int
main(void)
{
    char lock[128];

    snprintf(dir, sizeof dir, "/tmp/test_mig_journal.XXXXXX");
    if (!mkdtemp(dir)) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/journal", dir);
    setlinebuf(stdout);
    test_steps();
    test_vm_lock();
    test_vm_lock_turns();
    test_lost();
    test_torn();
    test_full();
    test_pending();
    test_claim();
    snprintf(lock, sizeof lock, "%s/vm-" VM ".lock", dir);
    unlink(lock);
    snprintf(lock, sizeof lock, "%s/vm-0%s.lock", dir, VM + 1);
    unlink(lock);
    unlink(path);
    if (rmdir(dir)) {
        printf("not ok journal_leaves_nothing: %s\n", dir);
        return 1;
    }
    return check_done();
}
