/* The flow store's raw rows: what is listed and added up is what a plain look at
 * all of them says, of blocks, of a file of version 1, and of both together. */
#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "flow_block.h"
#include "store.h"

#define HOUR INT64_C(3600000)
enum { N = 5000 };

static char dir[] = "/tmp/weft-raw-XXXXXX";
static char path[200], why[300];
static struct flow_row rows[N];
static int64_t base; /* an hour's beginning, three hours ago */
static uint64_t state = 88172645463325252u;

static uint64_t
random64(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static struct store *
open_store(void)
{
    struct store_options o = {.path = path, .raw_hours = 48, .keep_hours = {48, 48, 40 * 24}};
    struct store *s;

    if (store_sqlite_open(&o, &s, why, sizeof why)) {
        printf("# %s\n", why);
        exit(1);
    }
    return s;
}

/* Times of three hours in no order, many of them the same. */
static void
make_rows(void)
{
    for (int i = 0; i < N; i++) {
        struct flow_row *r = &rows[i];

        *r = (struct flow_row){.time_ms = (uint64_t)base + random64() % 300 * 36000};
        r->r.end_ms = r->time_ms;
        r->r.sport = (uint16_t)i;
        r->r.packets = random64() % 9 + 1;
        r->r.bytes = r->r.packets * 100;
        r->r.sampling = random64() % 3;
        r->r.proto = random64() % 2 ? 6 : 17;
        r->r.src.s6_addr[15] = (uint8_t)(random64() % 7);
        r->r.dst.s6_addr32[0] = (uint32_t)random64();
        r->again = random64() % 4 == 0;
        r->src.vif = (int64_t)(random64() % 5) - 2;
    }
}

static void
put(struct store *s, size_t from, size_t n)
{
    CHECK(s->ops->put(s, rows + from, n, why, sizeof why) == 0);
}

/* --- lists ------------------------------------------------------------------------- */

struct list {
    bool seen[N];
    size_t n;
    bool ok;
    int64_t time_ms, id; /* of the last one */
};

static void
listed(void *list, const struct flow_row *row, int64_t id)
{
    struct list *l = list;
    const struct flow_row *was = &rows[row->r.sport % N];

    l->ok &= !l->seen[row->r.sport % N] && row->time_ms == was->time_ms &&
             row->r.bytes == was->r.bytes && row->src.vif == was->src.vif &&
             !memcmp(&row->r.dst, &was->r.dst, sizeof was->r.dst);
    l->ok &= !l->time_ms || (int64_t)row->time_ms < l->time_ms ||
             ((int64_t)row->time_ms == l->time_ms && id < l->id);
    l->seen[row->r.sport % N] = true;
    l->time_ms = (int64_t)row->time_ms;
    l->id = id;
    l->n++;
}

/* Pages of that many rows hold those of 'from' to 'to' that pass, once each. */
static bool
lists(struct store *s, const char *expression, bool again, unsigned limit, int64_t from, int64_t to)
{
    static struct list l;
    struct flow_filter_error e;
    struct flow_filter *f = flow_filter_parse(expression, &e);
    struct store_query q = {.from_ms = from,
                            .to_ms = to,
                            .filter = f,
                            .again = again,
                            .limit = limit,
                            .timeout_ms = 20000};
    size_t expected = 0, before;
    bool ok = true;

    l = (struct list){.ok = true};
    do {
        before = l.n;
        ok &= s->ops->list(s, &q, listed, &l, why, sizeof why) == 0 && l.n - before <= limit;
        q.cursor_time = l.time_ms;
        q.cursor_row = l.id;
    } while (ok && l.n > before);
    for (int i = 0; i < N; i++) {
        const struct flow_row *r = &rows[i];
        bool passes = (int64_t)r->time_ms >= from && (int64_t)r->time_ms < to &&
                      (again || !r->again) && flow_filter_match(f, r);
        expected += passes;
        ok &= l.seen[i] == passes;
    }
    flow_filter_free(f);
    return ok && l.ok && l.n == expected && expected > 0;
}

static void
check_lists(struct store *s)
{
    CHECK(lists(s, "", true, 10000, base, base + 3 * HOUR));
    CHECK(lists(s, "", true, 7, base + HOUR / 2, base + HOUR));
    CHECK(lists(s, "proto tcp", false, 100, base, base + 2 * HOUR));
    CHECK(lists(s, "not proto tcp and port 1-3000", true, 999, base + 1, base + 3 * HOUR - 1));
}

/* --- sums -------------------------------------------------------------------------- */

struct sums {
    int64_t bytes[7], packets[7], flows[7];
};

static void
summed(void *sums, const struct store_sum *sum)
{
    struct sums *s = sums;
    unsigned i = sum->value[0].address.s6_addr[15] % 7;

    s->bytes[i] += sum->bytes;
    s->packets[i] += sum->packets;
    s->flows[i] += sum->flows;
}

/* By source, over some minutes; of raw rows if the filter is of what only they have. */
static bool
sums(struct store *s, const char *expression, unsigned step, int64_t from, int64_t to)
{
    struct flow_filter_error e;
    struct flow_filter *f = flow_filter_parse(expression, &e);
    struct store_query q = {.from_ms = from,
                            .to_ms = to,
                            .filter = f,
                            .limit = 10000,
                            .timeout_ms = 20000,
                            .group = {flow_column_find("src")},
                            .n_group = 1};
    struct sums is = {0}, expected = {0};
    struct store_source source;
    bool ok =
        s->ops->sum(s, &q, &source, summed, &is, why, sizeof why) == 0 && source.step_s == step;

    for (int i = 0; i < N; i++) {
        const struct flow_row *r = &rows[i];
        unsigned src = r->r.src.s6_addr[15], sampling = r->r.sampling > 1 ? r->r.sampling : 1;
        if (r->again || (int64_t)r->time_ms < from || (int64_t)r->time_ms >= to ||
            !flow_filter_match(f, r)) {
            continue;
        }
        expected.bytes[src] += (int64_t)(r->r.bytes * sampling);
        expected.packets[src] += (int64_t)(r->r.packets * sampling);
        expected.flows[src]++;
    }
    flow_filter_free(f);
    return ok && !memcmp(&is, &expected, sizeof is) && is.flows[0] > 0;
}

static void
check_sums(struct store *s)
{
    CHECK(sums(s, "src port 0-60000", 0, base, base + HOUR));
    CHECK(sums(s, "src port 100-4000 and proto udp", 0, base + HOUR / 2, base + 5 * HOUR / 2));
    CHECK(sums(s, "proto udp", 60, base, base + 3 * HOUR));
    CHECK(sums(s, "", 60, base + HOUR / 2, base + 3 * HOUR));
    CHECK(sums(s, "proto tcp", 300, base - 30 * HOUR, base + 2 * HOUR));
    CHECK(sums(s, "", 3600, base - 20 * 24 * HOUR, base + 3 * HOUR));
}

/* With each step of making rollups; they are to be made in several. */
static void
check_rolling(struct store *s)
{
    bool more = true;
    int steps = 0;

    check_sums(s);
    for (; more && steps < 100; steps++) {
        CHECK(s->ops->roll(s, 700, &more, why, sizeof why) == 0);
        check_sums(s);
    }
    CHECK(steps > 3 && steps < 100);
}

static void
test_blocks(void)
{
    struct store *s;
    bool more = true;

    snprintf(path, sizeof path, "%s/blocks", dir);
    s = open_store();
    CASE("pages of blocks hold each row once, newest first");
    for (size_t i = 0; i < N / 2; i += 50) {
        put(s, i, 50);
    }
    while (more) {
        CHECK(s->ops->roll(s, 10000, &more, why, sizeof why) == 0);
    }
    for (size_t i = N / 2; i < N; i += 50) {
        put(s, i, 50);
    }
    check_lists(s);
    CASE("sums of blocks are right at each step of rolling up by minute");
    check_rolling(s);
    s->ops->close(s);
    s = open_store();
    CASE("sums of blocks are right at each step of rolling up sums");
    check_rolling(s);
    s->ops->close(s);
}

/* --- version 1 ------------------------------------------------------------------------ */

static void
exec(sqlite3 *db, const char *sql)
{
    CHECK(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
}

/* The table as version 1 had it, with all rows of the hour up to 'n'. */
static void
write_hour(sqlite3 *db, int64_t hour, size_t n)
{
    char sql[4000], *p = sql;
    sqlite3_stmt *insert = NULL;

    p += sprintf(p, "CREATE TABLE raw_%lld (\"time\"", (long long)hour);
    for (unsigned c = 0; c < n_flow_columns; c++) {
        p += sprintf(p, ", \"%s\"", flow_columns[c].name);
    }
    sprintf(p, "); CREATE INDEX t_raw_%lld ON raw_%lld (\"time\")", (long long)hour,
            (long long)hour);
    exec(db, sql);
    p = sql + sprintf(sql, "INSERT INTO raw_%lld VALUES (?", (long long)hour);
    for (unsigned c = 0; c < n_flow_columns; c++) {
        p += sprintf(p, ",?");
    }
    sprintf(p, ")");
    CHECK(sqlite3_prepare_v2(db, sql, -1, &insert, NULL) == SQLITE_OK);
    for (size_t i = 0; i < n; i++) {
        if ((int64_t)rows[i].time_ms / HOUR != hour) {
            continue;
        }
        sqlite3_bind_int64(insert, 1, (int64_t)rows[i].time_ms);
        for (unsigned c = 0; c < n_flow_columns; c++) {
            struct flow_value v;
            flow_row_get(&rows[i], c, &v);
            if (flow_columns[c].kind == FLOW_COL_ADDRESS) {
                sqlite3_bind_blob(insert, (int)c + 2, &v.address, 16, SQLITE_TRANSIENT);
            } else {
                sqlite3_bind_int64(insert, (int)c + 2, v.number);
            }
        }
        CHECK(sqlite3_step(insert) == SQLITE_DONE);
        sqlite3_reset(insert);
    }
    sqlite3_finalize(insert);
}

/* Version 1's sums of a minute, 5 minutes and an hour of the first 'n' rows, where
 * they are of the hour; in the table of its day, or 16 of them. */
static void
roll_hour(sqlite3 *db, int64_t hour, size_t n)
{
    static const int steps[] = {60, 300, 3600}, days[] = {1, 1, 16};
    char sql[9000], columns[2000] = "", *c = columns;
    int64_t mark = 0;

    for (size_t i = 0; i < n; i++) {
        mark += (int64_t)rows[i].time_ms / HOUR == hour;
    }
    for (unsigned i = 0; i < n_flow_columns; i++) {
        if (flow_columns[i].rollup) {
            c += sprintf(c, ", \"%s\"", flow_columns[i].name);
        }
    }
    for (int k = 0; k < 3; k++) {
        long long table = hour / 24 / days[k];
        sprintf(sql,
                "CREATE TABLE IF NOT EXISTS r%d_%lld (\"time\"%s, packets, bytes, flows,"
                " PRIMARY KEY (\"time\"%s)) WITHOUT ROWID;"
                "INSERT INTO r%d_%lld SELECT \"time\" / %d000 * %d000 AS t%s,"
                " SUM(packets * MAX(sampling, 1)), SUM(bytes * MAX(sampling, 1)), COUNT(*)"
                " FROM raw_%lld WHERE rowid <= %lld GROUP BY t%s",
                steps[k], table, columns, columns, steps[k], table, steps[k], steps[k], columns,
                (long long)hour, (long long)mark, columns);
        exec(db, sql);
    }
    sprintf(sql, "INSERT INTO rolled VALUES (%lld, %lld)", (long long)hour, (long long)mark);
    exec(db, sql);
}

static int64_t
number(const char *sql)
{
    sqlite3_stmt *q = NULL;
    sqlite3 *db = NULL;
    int64_t n = -1;

    if (!sqlite3_open(path, &db) && !sqlite3_prepare_v2(db, sql, -1, &q, NULL) &&
        sqlite3_step(q) == SQLITE_ROW) {
        n = sqlite3_column_int64(q, 0);
    }
    sqlite3_finalize(q);
    sqlite3_close(db);
    return n;
}

/* A file as versions 1 and 2 began it; in a transaction. */
static sqlite3 *
begin_old(const char *name, int version)
{
    char sql[60];
    sqlite3 *db;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    exec(db, "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;"
             "PRAGMA application_id = 1466336305");
    snprintf(sql, sizeof sql, "PRAGMA user_version = %d; BEGIN", version);
    exec(db, sql);
    exec(db, "CREATE TABLE name (id INTEGER PRIMARY KEY, class, name, extra);"
             "CREATE TABLE rolled (n INTEGER PRIMARY KEY, row);"
             "CREATE TABLE binding (kind, key, since, until, value,"
             " PRIMARY KEY (kind, key, since)) WITHOUT ROWID");
    return db;
}

static void
test_version1(void)
{
    struct store *s;
    sqlite3 *db;

    CASE("a file of version 1 is read, and written on");
    db = begin_old("version1", 1);
    for (int64_t hour = base / HOUR; hour < base / HOUR + 3; hour++) {
        write_hour(db, hour, N / 2);
        roll_hour(db, hour, N / 4);
    }
    exec(db, "COMMIT");
    sqlite3_close(db);
    s = open_store();
    put(s, N / 2, N - N / 2);
    check_lists(s);
    check_rolling(s);
    check_lists(s);
    CHECK(number("PRAGMA user_version") == 4);
    s->ops->close(s);
    s = open_store();
    check_sums(s);

    CASE("rows of version 1 go with their hour");
    CHECK(number("SELECT COUNT(*) FROM sqlite_master WHERE name GLOB 'raw_*'") == 3);
    CHECK(s->ops->expire(s, base + 50 * HOUR, why, sizeof why) == 0);
    CHECK(number("SELECT COUNT(*) FROM sqlite_master WHERE name GLOB 'raw_*'") == 1);
    CHECK(number("SELECT COUNT(*) FROM sqlite_master WHERE name GLOB 'blocks_*'") == 1);
    CHECK(number("SELECT COUNT(*) FROM rolled") == 1);
    CHECK(lists(s, "", true, 100, base + 2 * HOUR, base + 3 * HOUR));
    CHECK(sums(s, "", 3600, base - 20 * 24 * HOUR, base + 3 * HOUR));
    s->ops->close(s);

    CASE("a file of a later version is not touched");
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    exec(db, "PRAGMA user_version = 5");
    sqlite3_close(db);
    struct store_options o = {.path = path, .raw_hours = 48};
    CHECK(store_sqlite_open(&o, &s, why, sizeof why) == EINVAL);
}

/* --- blocks without checks -------------------------------------------------------------- */

enum { OLD_ROWS = 300 }; /* of a block */

/* Blocks as they were before version 4. */
static void
uncheck(uint8_t *block, size_t len)
{
    CHECK(block[1] & 0x80);
    block[1] &= 0x7f;
    memset(block + len - 8, 0, 8);
}

static void
write_block(sqlite3 *db, int64_t hour, const struct flow_row **of, size_t n)
{
    static uint8_t block[FLOW_BLOCK_BYTES];
    size_t len = flow_block_encode(of, n, block);
    uint64_t oldest = UINT64_MAX, newest = 0;
    sqlite3_stmt *insert = NULL;
    char sql[100];

    uncheck(block, len);
    for (size_t i = 0; i < n; i++) {
        oldest = of[i]->time_ms < oldest ? of[i]->time_ms : oldest;
        newest = of[i]->time_ms > newest ? of[i]->time_ms : newest;
    }
    snprintf(sql, sizeof sql, "INSERT INTO blocks_%lld (n, oldest, newest, data) VALUES (?,?,?,?)",
             (long long)hour);
    CHECK(sqlite3_prepare_v2(db, sql, -1, &insert, NULL) == SQLITE_OK);
    sqlite3_bind_int64(insert, 1, (int64_t)n);
    sqlite3_bind_int64(insert, 2, (int64_t)oldest);
    sqlite3_bind_int64(insert, 3, (int64_t)newest);
    sqlite3_bind_blob64(insert, 4, block, len, SQLITE_STATIC);
    CHECK(sqlite3_step(insert) == SQLITE_DONE);
    sqlite3_finalize(insert);
}

/* The hour's rows, up to 'n', as version 2 had them. */
static void
write_blocks(sqlite3 *db, int64_t hour, size_t n)
{
    const struct flow_row *of[OLD_ROWS];
    size_t k = 0;
    char sql[300];

    snprintf(sql, sizeof sql,
             "CREATE TABLE blocks_%lld (id INTEGER PRIMARY KEY, n, oldest, newest, data);"
             "CREATE INDEX t_blocks_%lld ON blocks_%lld (newest, oldest)",
             (long long)hour, (long long)hour, (long long)hour);
    exec(db, sql);
    for (size_t i = 0; i < n; i++) {
        if ((int64_t)rows[i].time_ms / HOUR == hour) {
            of[k++] = &rows[i];
        }
        if (k == OLD_ROWS || (k && i + 1 == n)) {
            write_block(db, hour, of, k);
            k = 0;
        }
    }
}

static void
test_version2(void)
{
    struct store *s;
    sqlite3 *db;
    char sql[200];

    CASE("a file of version 2 is read, and written on");
    db = begin_old("version2", 2);
    for (int64_t hour = base / HOUR; hour < base / HOUR + 3; hour++) {
        write_hour(db, hour, N / 2); /* of which its sums are made, as they were in version 1 */
        roll_hour(db, hour, N / 4);
        snprintf(sql, sizeof sql, "DROP TABLE raw_%lld", (long long)hour);
        exec(db, sql);
        write_blocks(db, hour, N / 2);
    }
    snprintf(sql, sizeof sql,
             "UPDATE rolled SET row = (1 << 40) + ((row - 1) / %d + 1 << 16) + (row - 1) %% %d;"
             "COMMIT",
             OLD_ROWS, OLD_ROWS);
    exec(db, sql);
    sqlite3_close(db);
    CHECK(number("SELECT MIN(row & 65535) FROM rolled") > 0); /* in the midst of blocks */
    s = open_store();
    put(s, N / 2, N - N / 2);
    check_lists(s);
    check_rolling(s);
    check_lists(s);
    CHECK(number("PRAGMA user_version") == 4);
    CHECK(number("SELECT COUNT(*) FROM sqlite_master WHERE name GLOB 'r60_*'") > 0);
    CHECK(number("SELECT COUNT(*) FROM sqlite_master WHERE name GLOB 's60_*'") > 0);
    s->ops->close(s);
}

static void
uncheck_value(sqlite3_context *to, int argc, sqlite3_value **v)
{
    size_t len = (size_t)sqlite3_value_bytes(v[0]);
    uint8_t *block = malloc(len);

    (void)argc;
    memcpy(block, sqlite3_value_blob(v[0]), len);
    uncheck(block, len);
    sqlite3_result_blob64(to, block, len, free);
}

/* Makes a file of version 3 of one of version 4, which differs by its checks. */
static void
uncheck_all(void)
{
    sqlite3_stmt *tables = NULL;
    char sql[200];
    sqlite3 *db;
    int n = 0;

    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    CHECK(sqlite3_create_function(db, "uncheck", 1, SQLITE_UTF8, NULL, uncheck_value, NULL, NULL) ==
          SQLITE_OK);
    exec(db, "CREATE TEMP TABLE t AS SELECT name FROM sqlite_master WHERE type = 'table' AND "
             "(name GLOB 'blocks_*' OR name GLOB 's[0-9]*_*')");
    CHECK(sqlite3_prepare_v2(db, "SELECT name FROM t", -1, &tables, NULL) == SQLITE_OK);
    for (; sqlite3_step(tables) == SQLITE_ROW; n++) {
        snprintf(sql, sizeof sql, "UPDATE %s SET data = uncheck(data)",
                 (const char *)sqlite3_column_text(tables, 0));
        exec(db, sql);
    }
    sqlite3_finalize(tables);
    exec(db, "PRAGMA user_version = 3");
    sqlite3_close(db);
    CHECK(n > 5); /* raw ones of three hours, and sums */
}

static void
test_version3(void)
{
    struct store *s;
    bool more = true;

    CASE("a file of version 3 is read, and written on");
    snprintf(path, sizeof path, "%s/version3", dir);
    s = open_store();
    put(s, 0, N / 2);
    while (more) {
        CHECK(s->ops->roll(s, 1000, &more, why, sizeof why) == 0);
    }
    put(s, N / 2, N / 4);
    s->ops->close(s);
    uncheck_all();
    s = open_store();
    put(s, N / 2 + N / 4, N - N / 2 - N / 4);
    check_lists(s);
    check_rolling(s);
    CHECK(number("PRAGMA user_version") == 4);
    s->ops->close(s);
}

static void
test_begun(void)
{
    static const char *const begun[] = {"PRAGMA user_version = 0",
                                        "PRAGMA application_id = 1466336305", "CREATE TABLE x (y)"};

    CASE("a file that was only begun is a new one; a stranger's is not touched");
    for (int i = 0; i < 3; i++) {
        struct store_options o = {.path = path, .raw_hours = 48};
        struct store *s;
        sqlite3 *db;

        snprintf(path, sizeof path, "%s/begun%d", dir, i);
        CHECK(sqlite3_open(path, &db) == SQLITE_OK);
        exec(db, "PRAGMA journal_mode = WAL");
        exec(db, begun[i]);
        sqlite3_close(db);
        CHECK(store_sqlite_open(&o, &s, why, sizeof why) == (i < 2 ? 0 : EINVAL));
        if (s) {
            put(s, 0, 10);
            s->ops->close(s);
        }
    }
}

/* --- damage ------------------------------------------------------------------------------ */

static void
ignore_row(void *aux, const struct flow_row *row, int64_t id)
{
    (void)aux, (void)row, (void)id;
}

static void
test_damage(void)
{
    static const char *const damage[] = {
        "x'00'", "NULL", "'text'", "zeroblob(100000)", "substr(data, 1, length(data) - 1)",
        /* of values: they could be read */
        "CAST(substr(data, 1, 30) || x'a5c35a' || substr(data, 34) AS BLOB)"};
    struct flow_filter_error e;
    struct flow_filter *f = flow_filter_parse("src port 0-60000", &e);
    struct store_query q = {.to_ms = INT64_MAX, .filter = f, .limit = 100, .timeout_ms = 20000};
    struct store_source source;
    struct sums is;
    struct store *s;
    char sql[200];
    bool more;

    CASE("a damaged block is an error, not rows");
    for (size_t i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        sqlite3 *db;

        snprintf(path, sizeof path, "%s/damage%zu", dir, i);
        s = open_store();
        put(s, 0, 100);
        CHECK(sqlite3_open(path, &db) == SQLITE_OK);
        for (int h = 0; h < 3; h++) {
            snprintf(sql, sizeof sql, "UPDATE blocks_%lld SET data = %s",
                     (long long)(base / HOUR + h), damage[i]);
            exec(db, sql);
        }
        sqlite3_close(db);
        CHECK(s->ops->list(s, &q, ignore_row, NULL, why, sizeof why) == EBADMSG && strlen(why) > 5);
        CHECK(s->ops->sum(s, &q, &source, summed, &is, why, sizeof why) == EBADMSG);
        why[0] = '\0';
        CHECK(s->ops->roll(s, 1000, &more, why, sizeof why) == EBADMSG && !more && strlen(why) > 5);
        s->ops->close(s);
    }
    flow_filter_free(f);
}

/* What a row says of its block is not under the block's check. */
static void
test_forged_columns(void)
{
    static const char *const forged[] = {"n = n + 1", "n = n - 1", "oldest = oldest - 1",
                                         "newest = newest + 1"};
    struct flow_filter_error e;
    struct flow_filter *f = flow_filter_parse("src port 0-60000", &e);
    struct store_query q = {.to_ms = INT64_MAX, .filter = f, .limit = 100, .timeout_ms = 20000};
    struct store *s;
    char sql[200];
    bool more;

    CASE("a block that is not as its row says is an error, not rows");
    for (size_t i = 0; i < sizeof forged / sizeof forged[0]; i++) {
        sqlite3 *db;

        snprintf(path, sizeof path, "%s/columns%zu", dir, i);
        s = open_store();
        put(s, 0, 100);
        CHECK(sqlite3_open(path, &db) == SQLITE_OK);
        for (int h = 0; h < 3; h++) {
            snprintf(sql, sizeof sql, "UPDATE blocks_%lld SET %s", (long long)(base / HOUR + h),
                     forged[i]);
            exec(db, sql);
        }
        sqlite3_close(db);
        CHECK(s->ops->list(s, &q, ignore_row, NULL, why, sizeof why) == EBADMSG);
        CHECK(s->ops->roll(s, 1000, &more, why, sizeof why) == EBADMSG);
        s->ops->close(s);
    }
    flow_filter_free(f);
}

static void
test_forged_ids(void)
{
    static const char *const ids[] = {"0", "1 << 46", "9223372036854775807"};
    struct flow_filter_error e;
    struct flow_filter *f = flow_filter_parse("src port 0-60000", &e);
    struct store_query q = {.to_ms = INT64_MAX, .filter = f, .limit = 100, .timeout_ms = 20000};
    struct store_source source;
    struct sums is;
    struct store *s;
    char sql[200];

    CASE("a block with a number that none has is an error, not rows");
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        sqlite3 *db;

        snprintf(path, sizeof path, "%s/ids%zu", dir, i);
        s = open_store();
        put(s, 0, 100);
        CHECK(sqlite3_open(path, &db) == SQLITE_OK);
        snprintf(sql, sizeof sql, "UPDATE blocks_%lld SET id = %s", (long long)(base / HOUR),
                 ids[i]);
        exec(db, sql);
        sqlite3_close(db);
        CHECK(s->ops->list(s, &q, ignore_row, NULL, why, sizeof why) == EBADMSG);
        CHECK(s->ops->sum(s, &q, &source, summed, &is, why, sizeof why) == EBADMSG);
        s->ops->close(s);
    }
    flow_filter_free(f);
}

static void
test_damaged_hour(void)
{
    sqlite3 *db;
    struct store *s;
    char sql[200];
    bool more = true;

    CASE("a damaged hour does not keep later ones from being added up");
    snprintf(path, sizeof path, "%s/hour", dir);
    s = open_store();
    put(s, 0, 3000);
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    snprintf(sql, sizeof sql, "UPDATE blocks_%lld SET data = x'00'", (long long)(base / HOUR));
    exec(db, sql);
    sqlite3_close(db);
    for (int i = 0; i < 20 && more; i++) {
        CHECK(s->ops->roll(s, 500, &more, why, sizeof why) == EBADMSG);
    }
    CHECK(!more && number("SELECT COUNT(*) FROM rolled") == 2);
    CHECK(number("SELECT COUNT(*) FROM rolled_s60") > 0);
    s->ops->close(s);
}

int
main(void)
{
    char command[100];

    if (!mkdtemp(dir)) {
        return 1;
    }
    base = (int64_t)time(NULL) * 1000 / HOUR * HOUR - 3 * HOUR;
    make_rows();
    test_blocks();
    test_version1();
    test_version2();
    test_version3();
    test_begun();
    test_damage();
    test_forged_columns();
    test_forged_ids();
    test_damaged_hour();
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return check_done() | (system(command) != 0);
}
