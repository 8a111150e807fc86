/* What is taken of a member's log when a cluster is to be made of it alone. */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "pool_db.h"

enum { ROOM = 4096 };

static char dir[] = "/tmp/weft-pool-rescue-XXXXXX";
static char from[PDB_PATH], to[PDB_PATH], why[PDB_WHY];
static size_t torn;

struct text {
    char at[ROOM];
    size_t n;
};

static void
record(struct text *t, const char *json)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    char body[400];
    int len = snprintf(body, sizeof body, "%s\n", json);

    EVP_Digest(body, len, sum, NULL, EVP_sha1(), NULL);
    t->n += snprintf(t->at + t->n, ROOM - t->n, "OVSDB CLUSTER %d ", len);
    for (unsigned i = 0; i < 20; i++) {
        t->n += snprintf(t->at + t->n, ROOM - t->n, "%02x", sum[i]);
    }
    t->n += snprintf(t->at + t->n, ROOM - t->n, "\n%s", body);
}

static void
entry(struct text *t, unsigned index, unsigned term)
{
    char json[100];

    snprintf(json, sizeof json, "{\"term\":%u,\"index\":%u,\"data\":[null,{}]}", term, index);
    record(t, json);
}

static void
header(struct text *t)
{
    t->n = 0;
    record(t, "{\"name\":\"Weft_Pool\",\"prev_index\":1,\"prev_data\":[{},{}]}");
}

static bool
save(const char *at, size_t n)
{
    FILE *f = fopen(from, "w");

    return f && fwrite(at, 1, n, f) == n && !fclose(f);
}

static int
copy(const char *at, size_t n)
{
    why[0] = '\0';
    unlink(to);
    return save(at, n) ? pdb_log_copy(from, to, &torn, why) : EIO;
}

static bool
holds(const struct text *want)
{
    char got[ROOM];
    FILE *f = fopen(to, "r");
    size_t n = f ? fread(got, 1, sizeof got, f) : 0;

    return f && !fclose(f) && n == want->n && !memcmp(got, want->at, n);
}

static void
test_replaced(void)
{
    struct text t, want;

    CASE("pool_db_rescue/what another leader replaced is left out");
    header(&t);
    for (unsigned i = 2; i <= 5; i++) {
        entry(&t, i, 1);
    }
    record(&t, "{\"term\":2}");
    entry(&t, 4, 2);
    record(&t, "{\"commit_index\":4}");
    entry(&t, 5, 2);
    entry(&t, 6, 2);
    entry(&t, 6, 3);
    header(&want);
    entry(&want, 2, 1);
    entry(&want, 3, 1);
    entry(&want, 4, 2);
    entry(&want, 5, 2);
    entry(&want, 6, 3);
    CHECK(!copy(t.at, t.n) && !torn && holds(&want));

    CASE("pool_db_rescue/all of it");
    header(&t);
    header(&want);
    CHECK(!copy(t.at, t.n) && !torn && holds(&want));
    entry(&t, 2, 1);
    entry(&t, 2, 2);
    entry(&want, 2, 2);
    CHECK(!copy(t.at, t.n) && !torn && holds(&want));
}

static void
test_wrong(void)
{
    static const char *const json[] = {
        "{\"term\":1,\"index\":5}",     "{\"term\":1,\"index\":1}",
        "{\"term\":1,\"index\":0}",     "[]",
        "{\"term\":1,\"index\":\"4\"}", "{\"term\":",
    };
    struct text t;

    CASE("pool_db_rescue/a gap, and what is no entry's place");
    for (size_t i = 0; i < sizeof json / sizeof *json; i++) {
        header(&t);
        entry(&t, 2, 1);
        entry(&t, 3, 1);
        record(&t, json[i]);
        CHECK(copy(t.at, t.n) == EINVAL && strstr(why, "entry") && access(to, F_OK));
    }
    CASE("pool_db_rescue/no log of a member");
    CHECK(copy("", 0) == EINVAL && strstr(why, from));
    CHECK(copy("OVSDB JSON 3 x\n{}\n", 18) == EINVAL && strstr(why, from));
    CHECK(copy("OVSDB CLUSTER ", 14) == EINVAL);
    unlink(from);
    CHECK(pdb_log_copy(from, to, &torn, why) == ENOENT && strstr(why, from));
}

/* A process that is killed while it writes leaves a part; a machine's death may leave less. */
static void
test_torn(void)
{
    struct text t, first, want;

    header(&want);
    first = want;
    for (unsigned i = 2; i <= 4; i++) {
        entry(&want, i, 1);
    }
    t = want;
    entry(&t, 5, 1);

    CASE("pool_db_rescue/an end that is not whole");
    for (size_t n = want.n; n < t.n; n++) {
        CHECK(!copy(t.at, n) && torn == n - want.n && holds(&want));
    }
    CASE("pool_db_rescue/any byte is another");
    for (size_t i = 0; i < t.n; i++) {
        int error;

        t.at[i] ^= 1 << i % 5; /* not the case of a hexadecimal digit */
        error = copy(t.at, t.n);
        CHECK(i < first.n ? error == EINVAL : !error && torn);
        CHECK(i < want.n || holds(&want));
        t.at[i] ^= 1 << i % 5;
    }
    CASE("pool_db_rescue/a length beyond all bounds");
    t.n = want.n + snprintf(t.at + want.n, ROOM - want.n,
                            "OVSDB CLUSTER 99999999999999999999999999 "
                            "0000000000000000000000000000000000000000\n{}\n");
    CHECK(!copy(t.at, t.n) && torn == t.n - want.n && holds(&want));
}

int
main(void)
{
    if (!mkdtemp(dir)) {
        printf("not ok pool_db_rescue: no directory\n");
        return 1;
    }
    snprintf(from, sizeof from, "%s/pool.db", dir);
    snprintf(to, sizeof to, "%s/log", dir);
    test_replaced();
    test_wrong();
    test_torn();
    unlink(from);
    unlink(to);
    rmdir(dir);
    return check_done();
}
