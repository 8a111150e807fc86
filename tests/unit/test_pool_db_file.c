/* The pool's row, read and written in a file that no server has. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "pool_db.h"

enum { ROOM = 1 << 16 };

static struct pdb p = {.name = "db1", .role = PDB_PRIMARY};
static char path[PDB_PATH], why[PDB_WHY];

struct text {
    char at[ROOM];
    size_t n;
};

static bool
load(struct text *t)
{
    FILE *f = fopen(path, "r");

    t->n = f ? fread(t->at, 1, ROOM, f) : 0;
    return f && !fclose(f) && t->n < ROOM;
}

static bool
save(const struct text *t)
{
    FILE *f = fopen(path, "w");

    return f && fwrite(t->at, 1, t->n, f) == t->n && !fclose(f);
}

static bool
is_still(const struct text *t)
{
    static struct text now;

    return load(&now) && now.n == t->n && !memcmp(now.at, t->at, t->n);
}

static void
record(struct text *t, const char *json)
{
    unsigned char sum[EVP_MAX_MD_SIZE];

    EVP_Digest(json, strlen(json), sum, NULL, EVP_sha1(), NULL);
    t->n += snprintf(t->at + t->n, ROOM - t->n, "OVSDB JSON %zu ", strlen(json));
    for (unsigned i = 0; i < 20; i++) {
        t->n += snprintf(t->at + t->n, ROOM - t->n, "%02x", sum[i]);
    }
    t->n += snprintf(t->at + t->n, ROOM - t->n, "\n%s", json);
}

static long long
fence(void)
{
    struct pdb_row row;

    return pdb_read_row(&p, NULL, &row, why) ? -1 : (long long)row.fence;
}

static bool
writes(const char *columns)
{
    return !pdb_write_row(&p, NULL, NULL, columns, why);
}

static void
test_torn(void)
{
    static struct text whole, t;

    CASE("pool_db_file/the row is read and written");
    CHECK(fence() == 1 && writes("\"fence\":2") && fence() == 2);
    CHECK(load(&whole) && writes("\"fence\":3,\"primary\":\"somebody\"") && load(&t));

    CASE("pool_db_file/what a crash has left of a last record does not count");
    for (size_t n = whole.n + 1; n < t.n; n += 1 + (t.n - whole.n) / 4) {
        struct text cut = t;

        cut.n = n;
        CHECK(save(&cut) && fence() == 2 && is_still(&cut));
        CHECK(writes("\"fence\":4") && fence() == 4);
    }
    memset(t.at + whole.n, 0, t.n - whole.n);
    CHECK(save(&t) && fence() == 2);

    CASE("pool_db_file/other damage is not passed over");
    CHECK(save(&whole) && writes("\"fence\":5") && load(&t));
    t.at[whole.n - 3] ^= 1;
    CHECK(save(&t) && fence() < 0 && strstr(why, "damaged"));
    CHECK(!writes("\"fence\":6") && is_still(&t));
    CHECK(save(&whole));
}

static void
test_not_replayed(void)
{
    static struct text t;

    CASE("pool_db_file/nothing is cut off that cannot be replayed");
    CHECK(load(&t));
    record(&t,
           "{\"VIF\":{\"11111111-0000-4000-8000-000000000001\":{\"name\":\"x\",\"vm\":[\"uuid\","
           "\"22222222-0000-4000-8000-000000000002\"]}}}\n");
    CHECK(save(&t));
    CHECK(!writes("\"fence\":7") && strstr(why, "replayed") && is_still(&t));
    /* Also by what is longer than the record. */
    CHECK(!writes("\"copy\":\"ssl:127.0.0.1:6642\",\"leader\":\"a long name\",\"primary\":"
                  "\"a name that makes this longer than what comes before\"") &&
          strstr(why, "replayed") && is_still(&t));
}

static void
test_locked(void)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    static struct text t;
    char name[PDB_PATH], byte;
    int ready[2];
    pid_t pid;

    CASE("pool_db_file/a file that a server has is left alone");
    pdb_path(&p, ".pool.db.~lock~", name);
    CHECK(load(&t) && !pipe(ready));
    pid = fork();
    if (!pid) {
        int fd = open(name, O_RDWR | O_CREAT, 0600);

        (void)!write(ready[1], fcntl(fd, F_SETLK, &all) ? "n" : "y", 1);
        pause();
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1 && byte == 'y');
    CHECK(pdb_write_row(&p, NULL, NULL, "\"fence\":8", why) == EBUSY && strstr(why, "in use"));
    CHECK(is_still(&t));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

int
main(void)
{
    static const char row[] =
        "[\"Weft_Pool\",{\"op\":\"insert\",\"table\":\"Pool\",\"row\":{\"name\":\"pool\","
        "\"default_action\":\"deny\",\"fence\":1,\"primary\":\"db1\"}}]";
    char dir[] = "/tmp/weft-pool-file-XXXXXX", command[200];

    if (!mkdtemp(dir) || setenv("PATH", "build/ovs/build/ovsdb:/usr/bin:/bin", 1)) {
        printf("not ok pool_db_file: no folder\n");
        return 1;
    }
    snprintf(p.dir, sizeof p.dir, "%s", dir);
    pdb_path(&p, "pool.db", path);
    if (pdb_tool("create", (const char *[]){path, "controller/pool.ovsschema", NULL}, NULL, why) ||
        pdb_tool("transact", (const char *[]){path, row, NULL}, NULL, why)) {
        printf("not ok pool_db_file: %s\n", why);
        return 1;
    }
    test_torn();
    test_not_replayed();
    test_locked();
    snprintf(command, sizeof command, "rm -r %s", dir);
    CHECK(!system(command));
    return check_done();
}
