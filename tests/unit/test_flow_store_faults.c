/* The flow store on a disk that fails: whichever read or write it is, what is answered
 * is right or an error, and no row is added up twice or goes before it is. */
#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "store.h"

#define HOUR INT64_C(3600000)
enum { N = 3000, FAULTS_MAX = 2000 };

static char dir[] = "/tmp/weft-faults-XXXXXX";
static char good[200], path[200], why[300];
static struct flow_row rows[N];
static int64_t base; /* an hour's beginning, three hours ago */

/* --- a disk that fails ------------------------------------------------------------- */

enum what { READS, WRITES };

static struct {
    enum what of;
    int in;             /* so many from now on; 0: none fails */
    int code;           /* with that */
    bool all;           /* and all that come later */
    bool came;          /* it has failed */
    sqlite3_int64 page; /* this one of the database cannot be read; 0: all can */
} fault;

enum { PAGE = 8192 };

static sqlite3_vfs *real_vfs, faulty_vfs;
static const sqlite3_io_methods *real_io[4];
static sqlite3_io_methods faulty_io[4];

static const sqlite3_io_methods *
real_of(sqlite3_file *f)
{
    return real_io[f->pMethods - faulty_io];
}

static bool
fails(enum what of)
{
    if (fault.in && fault.of == of && !--fault.in) {
        fault.came = true;
        fault.in = fault.all;
        return true;
    }
    return false;
}

static int
faulty_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
    if (fault.page && n == PAGE && at == (fault.page - 1) * PAGE) {
        return SQLITE_IOERR_READ;
    }
    return fails(READS) ? fault.code : real_of(f)->xRead(f, to, n, at);
}

static int
faulty_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at)
{
    return fails(WRITES) ? fault.code : real_of(f)->xWrite(f, from, n, at);
}

/* Power does not fail here. */
static int
no_sync(sqlite3_file *f, int flags)
{
    (void)f, (void)flags;
    return SQLITE_OK;
}

static int
faulty_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out)
{
    int code = real_vfs->xOpen(vfs, name, f, flags, out), i = 0;

    if (code == SQLITE_OK && f->pMethods) {
        while (real_io[i] && real_io[i] != f->pMethods) {
            i++;
        }
        real_io[i] = f->pMethods;
        faulty_io[i] = *f->pMethods;
        faulty_io[i].xRead = faulty_read;
        faulty_io[i].xWrite = faulty_write;
        faulty_io[i].xSync = no_sync;
        f->pMethods = &faulty_io[i];
    }
    return code;
}

static void
fail_disk(void)
{
    real_vfs = sqlite3_vfs_find(NULL);
    faulty_vfs = *real_vfs;
    faulty_vfs.zName = "faulty";
    faulty_vfs.xOpen = faulty_open;
    CHECK(sqlite3_vfs_register(&faulty_vfs, 1) == SQLITE_OK);
}

/* --- a store ------------------------------------------------------------------------- */

static struct store *
open_limited(uint64_t max_bytes)
{
    struct store_options o = {.path = path,
                              .raw_hours = 48,
                              .keep_hours = {40 * 24, 48, 40 * 24},
                              .max_bytes = max_bytes};
    struct store *s;

    if (store_sqlite_open(&o, &s, why, sizeof why)) {
        printf("# %s\n", why);
        exit(1);
    }
    return s;
}

static struct store *
open_store(void)
{
    return open_limited(0);
}

static void
make_rows(void)
{
    for (unsigned i = 0; i < N; i++) {
        struct flow_row *r = &rows[i];

        *r = (struct flow_row){.time_ms = (uint64_t)(base + i * 7919 % 300 * 36000)};
        r->r.end_ms = r->time_ms;
        r->r.sport = (uint16_t)i;
        r->r.packets = i % 9 + 1;
        r->r.bytes = r->r.packets * 100;
        r->r.src.s6_addr[15] = (uint8_t)(i % 7);
    }
}

static int
put(struct store *s, size_t from, size_t n)
{
    return s->ops->put(s, rows + from, n, why, sizeof why);
}

static void
summed(void *to, const struct store_sum *sum)
{
    struct store_sum *s = to;

    s->bytes += sum->bytes;
    s->packets += sum->packets;
    s->flows += sum->flows;
}

/* 0 if the sums are those of so many of the rows; EPROTO if they are not; what went wrong. */
static int
sums(struct store *s, size_t n)
{
    struct flow_filter_error e;
    struct flow_filter *f = flow_filter_parse("", &e);
    struct store_query q = {.from_ms = base,
                            .to_ms = base + 3 * HOUR,
                            .filter = f,
                            .limit = 10000,
                            .timeout_ms = 20000,
                            .group = {flow_column_find("src")},
                            .n_group = 1};
    struct store_sum is = {0}, expected = {0};
    struct store_source source;
    int error = s->ops->sum(s, &q, &source, summed, &is, why, sizeof why);

    for (size_t i = 0; i < n; i++) {
        expected.bytes += (int64_t)rows[i].r.bytes;
        expected.packets += (int64_t)rows[i].r.packets;
    }
    flow_filter_free(f);
    return error                            ? error
           : is.flows != (int64_t)n         ? EPROTO
           : is.bytes != expected.bytes     ? EPROTO
           : is.packets != expected.packets ? EPROTO
           : source.step_s == 60            ? 0
                                            : EPROTO;
}

static void
count_row(void *n, const struct flow_row *row, int64_t id)
{
    (void)row, (void)id;
    ++*(size_t *)n;
}

/* 0 if all rows are listed; as sums(). */
static int
list(struct store *s)
{
    struct flow_filter_error e;
    struct flow_filter *f = flow_filter_parse("", &e);
    struct store_query q = {.to_ms = INT64_MAX, .filter = f, .limit = 10000, .timeout_ms = 20000};
    size_t n = 0;
    int error = s->ops->list(s, &q, count_row, &n, why, sizeof why);

    flow_filter_free(f);
    return error ? error : n == N - 500 ? 0 : EPROTO;
}

/* Three hours of all but the last 500 rows, of which a part is added up by minute. */
static void
make_store(void)
{
    struct store *s;
    bool more;

    snprintf(path, sizeof path, "%s", good);
    s = open_store();
    for (size_t i = 0; i < N - 500; i += 500) {
        CHECK(put(s, i, 500) == 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK(s->ops->roll(s, 300, &more, why, sizeof why) == 0 && more);
    }
    CHECK(sums(s, N - 500) == 0 && list(s) == 0);
    s->ops->close(s);
    snprintf(path, sizeof path, "%s/tried", dir);
}

static struct store *
open_copy(void)
{
    char command[1000];

    snprintf(command, sizeof command, "rm -f %s %s-*; cp %s %s", path, path, good, path);
    CHECK(system(command) == 0);
    return open_store();
}

/* --- faults --------------------------------------------------------------------------- */

static int
roll_all(struct store *s)
{
    bool more = true;
    int error = 0;

    while (more && !error) {
        error = s->ops->roll(s, 700, &more, why, sizeof why);
    }
    return error;
}

/* The first two hours are too old then. */
static int
expire(struct store *s)
{
    return s->ops->expire(s, base + 50 * HOUR, why, sizeof why);
}

static int
sum_all(struct store *s)
{
    return sums(s, N - 500);
}

static int
put_more(struct store *s)
{
    return put(s, N - 500, 500);
}

/* With each read that the work does failing, once a turn, or each fifth write. */
static void
try_faults(int (*work)(struct store *), enum what of, int code, bool again)
{
    int n = 0, failed = 0;

    for (bool came = true; came && n < FAULTS_MAX; n += of == WRITES ? 5 : 1) {
        struct store *s = open_copy();
        size_t there = work == put_more ? N : N - 500;
        int error;

        fault.of = of;
        fault.code = code;
        fault.came = false;
        fault.in = n + 1;
        error = work(s);
        came = fault.came;
        fault.in = 0;
        failed += error != 0;
        if (error == EPROTO || (error && !came)) {
            printf("# %d: %s\n", n, error == EPROTO ? "is wrong" : why);
            CHECK(!"right, or an error");
            came = false;
        }
        error = error && again ? work(s) : 0;
        if (error || sums(s, there) != 0) {
            printf("# %d: later: %s\n", n, error ? why : "is wrong");
            CHECK(!"right afterwards");
            came = false;
        }
        s->ops->close(s);
    }
    printf("# %d, %d failed\n", n, failed);
    CHECK(n > 3 && n < FAULTS_MAX && failed > 2);
}

static void
test_faults(void)
{
    CASE("sums are right or an error, whichever read fails");
    try_faults(sum_all, READS, SQLITE_IOERR_READ, false);
    CASE("lists are right or an error, whichever read fails");
    try_faults(list, READS, SQLITE_IOERR_READ, false);
    CASE("nothing is added up twice or not at all, whichever read fails");
    try_faults(roll_all, READS, SQLITE_IOERR_READ, true);
    CASE("nothing goes before it is added up, whichever read fails");
    try_faults(expire, READS, SQLITE_IOERR_READ, true);
    CASE("rows are there once or not at all, whichever read fails");
    try_faults(put_more, READS, SQLITE_IOERR_READ, true);
    CASE("nothing is added up twice, wherever the disk is full");
    try_faults(roll_all, WRITES, SQLITE_FULL, true);
    CASE("rows are there once or not at all, wherever the disk is full");
    try_faults(put_more, WRITES, SQLITE_FULL, true);
    CASE("nothing goes before it is added up, whichever write fails");
    try_faults(expire, WRITES, SQLITE_IOERR_WRITE, true);
}

/* After a process was killed, or ended in order. */
static void
test_open_full(void)
{
    struct store *s = open_copy();
    char command[1000];

    CASE("a store on a full disk opens, answers, and goes on when there is room");
    fault.of = WRITES;
    fault.code = SQLITE_FULL;
    fault.all = true;
    for (int killed = 0; killed < 2; killed++) {
        if (killed) {
            CHECK(put_more(s) == 0);
            snprintf(command, sizeof command, "for e in '' -wal -shm; do cp %s$e %s.k$e; done",
                     path, path);
            CHECK(system(command) == 0);
        }
        s->ops->close(s);
        snprintf(path, sizeof path, "%s/tried%s", dir, killed ? ".k" : "");
        fault.came = false;
        fault.in = 1;
        s = open_store();
        CHECK(sums(s, killed ? N : N - 500) == 0);
        CHECK(roll_all(s) == ENOSPC && fault.came);
        fault.in = 0;
        CHECK(roll_all(s) == 0 && sums(s, killed ? N : N - 500) == 0);
    }
    fault.all = false;
    s->ops->close(s);
    snprintf(path, sizeof path, "%s/tried", dir);
}

/* --- marks that cannot be read --------------------------------------------------------------- */

static void
exec(const char *sql)
{
    sqlite3 *db;

    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    CHECK(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(db);
}

static int64_t
number(const char *sql)
{
    int64_t v;
    sqlite3_stmt *q = NULL;
    sqlite3 *db;

    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    CHECK(sqlite3_prepare_v2(db, sql, -1, &q, NULL) == SQLITE_OK);
    CHECK(sqlite3_step(q) == SQLITE_ROW);
    v = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    sqlite3_close(db);
    return v;
}

static void
test_marks(void)
{
    struct store *s = open_copy();
    static const char hours[] = "SELECT COUNT(*) FROM sqlite_master WHERE name GLOB 'blocks_*'";

    CASE("without its marks a store neither adds up nor forgets");
    CHECK(number(hours) == 3);
    exec("ALTER TABLE rolled RENAME TO lost");
    CHECK(sum_all(s) == EIO && strstr(why, "rolled"));
    CHECK(roll_all(s) == EIO && expire(s) == EIO);
    CHECK(number(hours) == 3);
    exec("ALTER TABLE lost RENAME TO rolled");
    CHECK(sum_all(s) == 0 && expire(s) == 0 && sum_all(s) == 0);
    CHECK(number(hours) == 1);
    s->ops->close(s);
}

/* --- a page that cannot be read --------------------------------------------------------------- */

/* A page of the first hour's table. */
static int64_t
page_of(const char *type)
{
    char sql[160];

    snprintf(sql, sizeof sql,
             "SELECT MAX(pageno) FROM dbstat WHERE name = 'blocks_%lld' AND pagetype = '%s'",
             (long long)(base / HOUR), type);
    return number(sql);
}

/* With rows in the first hour that fill pages. */
static struct store *
open_large(uint64_t max_bytes)
{
    static struct flow_row large[1000];
    struct store *s = open_copy();

    srandom(1);
    for (unsigned i = 0; i < 1000; i++) {
        large[i] = rows[0];
        large[i].time_ms = (uint64_t)base;
        for (unsigned b = 0; b < 16; b++) {
            large[i].r.src.s6_addr[b] = (uint8_t)random();
            large[i].r.dst.s6_addr[b] = (uint8_t)random();
        }
    }
    CHECK(s->ops->put(s, large, 1000, why, sizeof why) == 0);
    s->ops->close(s);
    return open_limited(max_bytes);
}

static void
test_bad_page(void)
{
    struct store *s = open_large(0);
    char sql[100];
    bool more = true;

    CASE("an hour of which a page cannot be read keeps no later one from being added up");
    CHECK((fault.page = page_of("overflow")) > 0);
    for (int i = 0; i < 20 && more; i++) {
        CHECK(s->ops->roll(s, 700, &more, why, sizeof why) == EIO);
    }
    snprintf(sql, sizeof sql, "SELECT COUNT(*) FROM rolled WHERE n > %lld",
             (long long)(base / HOUR));
    CHECK(!more && number(sql) == 2);
    CHECK(number("SELECT COUNT(*) FROM rolled_s60") > 0);
    s->ops->close(s);
    fault.page = 0;
}

/* By age, then for room. */
static void
test_bad_page_goes(void)
{
    static const char hours[] = "SELECT COUNT(*) FROM sqlite_master WHERE name GLOB 'blocks_*'";
    struct store *s = open_large(0);

    CASE("an hour of which a page cannot be read goes a day past its time, not before");
    CHECK((fault.page = page_of("overflow")) > 0);
    CHECK(s->ops->expire(s, base + 72 * HOUR, why, sizeof why) == EIO && number(hours) == 1);
    CHECK(s->ops->expire(s, base + 73 * HOUR, why, sizeof why) == 0 && number(hours) == 0);
    s->ops->close(s);
    fault.page = 0;

    CASE("an hour of which a page cannot be read goes when room is needed");
    s = open_large(PAGE);
    CHECK((fault.page = page_of("overflow")) > 0 && number(hours) == 3);
    CHECK(s->ops->expire(s, base, why, sizeof why) == 0 && number(hours) == 1);
    s->ops->close(s);
    fault.page = 0;
}

/* In the first hour's last block: the beginning of the row, which says where its columns are. */
static void
break_row(void)
{
    unsigned char page[PAGE];
    int64_t at = (page_of("leaf") - 1) * PAGE;
    unsigned cell;
    FILE *f = fopen(path, "r+");

    CHECK(f && !fseek(f, at, SEEK_SET) && fread(page, sizeof page, 1, f) == 1);
    CHECK(page[0] == 13);
    cell = 8 + 2 * ((unsigned)page[3] << 8 | page[4]) - 2;
    cell = (unsigned)page[cell] << 8 | page[cell + 1];
    while (page[cell++] & 0x80) {
    } /* the length */
    while (page[cell++] & 0x80) {
    } /* the rowid */
    memcpy(page + cell, "\xff\xff\x7f", 3);
    CHECK(!fseek(f, at, SEEK_SET) && fwrite(page, sizeof page, 1, f) == 1 && !fclose(f));
}

static void
test_broken_row(void)
{
    static const char hours[] = "SELECT COUNT(*) FROM sqlite_master WHERE name GLOB 'blocks_*'";
    struct store *s = open_large(0);
    bool more;

    CASE("an hour whose end is not known, as its last row is damaged, goes");
    s->ops->close(s);
    break_row();
    s = open_store();
    CHECK(s->ops->roll(s, 700, &more, why, sizeof why) == EBADMSG);
    CHECK(expire(s) == 0 && number(hours) == 1);
    s->ops->close(s);
}

/* --- many tables -------------------------------------------------------------------------------
 */

static void
test_many_hours(void)
{
    enum { HOURS = 4200 };
    struct store *s = open_copy();
    struct store_status st;
    char sql[120];
    sqlite3 *db;

    CASE("half a year of hours: the newest are answered and added up, all are counted");
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    CHECK(sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) == SQLITE_OK);
    for (int i = 1; i <= HOURS; i++) {
        snprintf(sql, sizeof sql,
                 "CREATE TABLE blocks_%lld (id INTEGER PRIMARY KEY, n, oldest, newest, data)",
                 (long long)(base / HOUR - i));
        CHECK(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
    }
    CHECK(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(db);
    CHECK(sum_all(s) == 0 && list(s) == 0 && roll_all(s) == 0 && sum_all(s) == 0);
    s->ops->status(s, &st);
    CHECK(st.partitions > HOURS && st.oldest_ms == base - HOURS * HOUR);
    s->ops->close(s);
}

int
main(void)
{
    char command[100];

    if (!mkdtemp(dir)) {
        return 1;
    }
    snprintf(good, sizeof good, "%s/good", dir);
    base = (int64_t)time(NULL) * 1000 / HOUR * HOUR - 3 * HOUR;
    CASE("a disk that fails");
    fail_disk();
    make_rows();
    make_store();
    test_faults();
    test_open_full();
    test_marks();
    test_bad_page();
    test_bad_page_goes();
    test_broken_row();
    test_many_hours();
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return check_done() | (system(command) != 0);
}
