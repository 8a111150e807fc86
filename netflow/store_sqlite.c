/* Theory of operation.
 *
 * A batch of rows goes into the hours' tables of blocks in one transaction, and
 * nowhere else: that is cheap, so that bursts are taken.  Later ("roll") the rows
 * behind a mark, which each hour has, are added up by minute and the mark moves, in
 * one transaction as well; they can be any rows of any time, late ones included.
 * Sums are appended as blocks of their own: those of one minute and key may be in
 * several.  Sums by minute are added up by 5 minutes in the same way, and those by
 * hour, each as often as its step is long.  A question to a kind adds what is behind
 * the marks of the finer ones, so that its answer is at any time the sum of all rows
 * put, and a crash leaves all of a batch or nothing of it.
 *
 * The database is synced with each commit (WAL, synchronous=FULL).  A full disk
 * fails the transaction and leaves what was committed; the writer tries again. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "store_sqlite_priv.h"

const struct kind store_sqlite_kinds[N_KINDS] = {
    {"blocks", "raw", "rolled", 0, STORE_HOUR_MS},
    {"s60", "r60", "rolled_s60", 60, 24 * STORE_HOUR_MS},
    {"s300", "r300", "rolled_s300", 300, 24 * STORE_HOUR_MS},
    {"s3600", "r3600", NULL, 3600, 16 * 24 * STORE_HOUR_MS},
};

int
store_sqlite_error(sqlite3 *db, int code, char *why, size_t size)
{
    if (code == SQLITE_OK || code == SQLITE_DONE || code == SQLITE_ROW) {
        return 0;
    }
    snprintf(why, size, "%s",
             db && (sqlite3_errcode(db) & 0xff) == (code & 0xff) ? sqlite3_errmsg(db)
                                                                 : sqlite3_errstr(code));
    switch (code & 0xff) {
    case SQLITE_FULL:
        return ENOSPC;
    case SQLITE_INTERRUPT:
        snprintf(why, size, "took too long; ask for a shorter time or less");
        return ETIME;
    case SQLITE_NOMEM:
        return ENOMEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return EBADMSG;
    default:
        return EIO;
    }
}

int
store_sqlite_exec(sqlite3 *db, const char *sql, char *why, size_t size)
{
    return store_sqlite_error(db, sqlite3_exec(db, sql, NULL, NULL, NULL), why, size);
}

static bool
append(struct partition **to, size_t *n, const struct partition *p)
{
    if (!(*n & (*n - 1))) { /* 0, 1, 2, 4, 8 ... */
        struct partition *more = reallocarray(*to, *n ? *n * 2 : 1, sizeof *more);

        if (!more) {
            return false;
        }
        *to = more;
    }
    (*to)[(*n)++] = *p;
    return true;
}

/* Of one kind, behind those that there are. */
static int
list_tables(sqlite3 *db, unsigned kind, struct partition **to, size_t *n, char *why, size_t size)
{
    char pattern[2][16];
    sqlite3_stmt *s = NULL;
    int code = sqlite3_prepare_v2(
        db,
        "SELECT DISTINCT CAST(substr(name, instr(name, '_') + 1) AS INTEGER) AS n "
        "FROM sqlite_master WHERE type = 'table' AND (name GLOB ?1 OR name GLOB ?2) "
        "ORDER BY n",
        -1, &s, NULL);

    snprintf(pattern[0], sizeof pattern[0], "%s_*", store_sqlite_kinds[kind].name);
    snprintf(pattern[1], sizeof pattern[1], "%s_*", store_sqlite_kinds[kind].rows);
    sqlite3_bind_text(s, 1, pattern[0], -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 2, pattern[1], -1, SQLITE_STATIC);
    while (!code && (code = sqlite3_step(s)) == SQLITE_ROW) {
        struct partition p = {kind, sqlite3_column_int64(s, 0)};

        code = append(to, n, &p) ? SQLITE_OK : SQLITE_NOMEM;
    }
    sqlite3_finalize(s);
    return store_sqlite_error(db, code, why, size);
}

int
store_sqlite_partitions(sqlite3 *db, unsigned kind, struct partition **to, size_t *n, char *why,
                        size_t size)
{
    int error = 0;

    *to = NULL;
    *n = 0;
    for (unsigned k = 0; k < N_KINDS && !error; k++) {
        if (kind == N_KINDS || kind == k) {
            error = list_tables(db, k, to, n, why, size);
        }
    }
    if (error) {
        free(*to);
        *to = NULL;
        *n = 0;
    }
    return error;
}

/* --- columns -------------------------------------------------------------------- */

void
store_sqlite_columns(FILE *f, bool rollup, const char *before)
{
    const char *comma = "";

    for (unsigned i = 0; i < n_flow_columns; i++) {
        if (!rollup || flow_columns[i].rollup) {
            fprintf(f, "%s%s\"%s\"", comma, before, flow_columns[i].name);
            comma = ", ";
        }
    }
}

void
store_sqlite_bind(sqlite3_stmt *s, int index, unsigned column, const struct flow_value *v)
{
    if (flow_columns[column].kind == FLOW_COL_ADDRESS) {
        sqlite3_bind_blob(s, index, &v->address, sizeof v->address, SQLITE_TRANSIENT);
    } else {
        sqlite3_bind_int64(s, index, v->number);
    }
}

void
store_sqlite_value(sqlite3_stmt *s, int index, unsigned column, struct flow_value *v)
{
    memset(v, 0, sizeof *v);
    if (flow_columns[column].kind == FLOW_COL_ADDRESS) {
        const void *blob = sqlite3_column_blob(s, index);
        if (blob && sqlite3_column_bytes(s, index) == sizeof v->address) {
            memcpy(&v->address, blob, sizeof v->address);
        }
    } else {
        v->number = sqlite3_column_int64(s, index);
    }
}

/* --- writing --------------------------------------------------------------------- */

int
store_sqlite_finish(struct store_sqlite *s, int error, char *why, size_t size)
{
    if (!error) {
        error = store_sqlite_exec(s->db, "COMMIT", why, size);
    }
    if (error && !sqlite3_get_autocommit(s->db)) {
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    }
    return error;
}

int
store_sqlite_number(sqlite3 *db, const char *sql, int64_t *v, char *why, size_t size)
{
    sqlite3_stmt *q = NULL;
    int code = sqlite3_prepare_v2(db, sql, -1, &q, NULL), error;

    *v = 0;
    if (!code && (code = sqlite3_step(q)) == SQLITE_ROW) {
        *v = sqlite3_column_int64(q, 0);
    }
    error = store_sqlite_error(db, code, why, size);
    sqlite3_finalize(q);
    return error;
}

/* --- names ------------------------------------------------------------------------- */

static int
save_names(struct store *up, int64_t first, const struct flow_name *names, size_t n, char *why,
           size_t size)
{
    struct store_sqlite *s = (struct store_sqlite *)up;
    sqlite3_stmt *insert = NULL;
    int error = store_sqlite_exec(s->db, "BEGIN IMMEDIATE", why, size);

    if (error) {
        return error;
    }
    error =
        store_sqlite_error(s->db,
                           sqlite3_prepare_v2(s->db, "INSERT OR REPLACE INTO name VALUES (?,?,?,?)",
                                              -1, &insert, NULL),
                           why, size);
    for (size_t i = 0; i < n && !error; i++) {
        sqlite3_bind_int64(insert, 1, first + (int64_t)i);
        sqlite3_bind_int64(insert, 2, names[i].class);
        sqlite3_bind_text(insert, 3, names[i].text, -1, SQLITE_STATIC);
        sqlite3_bind_text(insert, 4, names[i].extra, -1, SQLITE_STATIC);
        error = store_sqlite_error(s->db, sqlite3_step(insert), why, size);
        sqlite3_reset(insert);
    }
    sqlite3_finalize(insert);
    return store_sqlite_finish(s, error, why, size);
}

static int
load_names(struct store *up, void (*name)(void *, const struct flow_name *), void *aux, char *why,
           size_t size)
{
    struct store_sqlite *s = (struct store_sqlite *)up;
    sqlite3_stmt *q = NULL;
    int code =
        sqlite3_prepare_v2(s->db, "SELECT class, name, extra FROM name ORDER BY id", -1, &q, NULL);

    while (!code && (code = sqlite3_step(q)) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(q, 1);
        const char *extra = (const char *)sqlite3_column_text(q, 2);
        name(aux, &(struct flow_name){(enum name_class)sqlite3_column_int(q, 0), text ? text : "",
                                      extra ? extra : ""});
        code = SQLITE_OK;
    }
    sqlite3_finalize(q);
    return store_sqlite_error(s->db, code, why, size);
}

static int
save_bindings(struct store *up, const struct store_binding *b, size_t n, int64_t forget_ms,
              char *why, size_t size)
{
    struct store_sqlite *s = (struct store_sqlite *)up;
    sqlite3_stmt *insert = NULL;
    char sql[80];
    int error = store_sqlite_exec(s->db, "BEGIN IMMEDIATE", why, size);

    if (error) {
        return error;
    }
    snprintf(sql, sizeof sql, "DELETE FROM binding WHERE until < %lld", (long long)forget_ms);
    error = store_sqlite_exec(s->db, sql, why, size);
    if (!error) {
        error = store_sqlite_error(
            s->db,
            sqlite3_prepare_v2(s->db, "INSERT OR REPLACE INTO binding VALUES (?,?,?,?,?)", -1,
                               &insert, NULL),
            why, size);
    }
    for (size_t i = 0; i < n && !error; i++) {
        sqlite3_bind_int64(insert, 1, b[i].kind);
        sqlite3_bind_blob(insert, 2, b[i].key, sizeof b[i].key, SQLITE_STATIC);
        sqlite3_bind_int64(insert, 3, b[i].since_ms);
        sqlite3_bind_int64(insert, 4, b[i].until_ms);
        sqlite3_bind_blob(insert, 5, b[i].value, sizeof b[i].value, SQLITE_STATIC);
        error = store_sqlite_error(s->db, sqlite3_step(insert), why, size);
        sqlite3_reset(insert);
    }
    sqlite3_finalize(insert);
    return store_sqlite_finish(s, error, why, size);
}

static int
load_bindings(struct store *up, void (*binding)(void *, const struct store_binding *), void *aux,
              char *why, size_t size)
{
    struct store_sqlite *s = (struct store_sqlite *)up;
    struct store_binding b;
    sqlite3_stmt *q = NULL;
    int code = sqlite3_prepare_v2(s->db, "SELECT kind, key, since, until, value FROM binding", -1,
                                  &q, NULL);

    while (!code && (code = sqlite3_step(q)) == SQLITE_ROW) {
        if (sqlite3_column_bytes(q, 1) == sizeof b.key &&
            sqlite3_column_bytes(q, 4) == sizeof b.value) {
            b.kind = (uint8_t)sqlite3_column_int(q, 0);
            memcpy(b.key, sqlite3_column_blob(q, 1), sizeof b.key);
            b.since_ms = sqlite3_column_int64(q, 2);
            b.until_ms = sqlite3_column_int64(q, 3);
            memcpy(b.value, sqlite3_column_blob(q, 4), sizeof b.value);
            binding(aux, &b);
        }
        code = SQLITE_OK;
    }
    sqlite3_finalize(q);
    return store_sqlite_error(s->db, code, why, size);
}

/* --- retention ----------------------------------------------------------------------- */

/* Of each of the names its number. */
static int
pragmas(sqlite3 *db, const char *const *names, size_t n, int64_t *v, char *why, size_t size)
{
    char sql[60];
    int error = 0;

    for (size_t i = 0; i < n && !error; i++) {
        snprintf(sql, sizeof sql, "PRAGMA %s", names[i]);
        error = store_sqlite_number(db, sql, &v[i], why, size);
    }
    return error;
}

static int
used_bytes(sqlite3 *db, uint64_t *bytes, char *why, size_t size)
{
    static const char *const names[] = {"page_count", "freelist_count", "page_size"};
    int64_t v[3] = {0};
    int error = pragmas(db, names, 3, v, why, size);

    *bytes = error ? 0 : (uint64_t)((v[0] - v[1]) * v[2]);
    return error;
}

/* What the next kind does not have yet goes there.  What there is no room for or what is
 * damaged cannot, and is given up; 'unread': so is what cannot be read. */
static int
roll_rest(struct store_sqlite *s, const struct partition *p, bool unread, char *why, size_t size)
{
    int64_t mark, last;
    int error = store_sqlite_tail(s->db, p, &mark, &last, why, size), failed = 0;

    while (!error && !failed && mark < last) {
        failed = store_sqlite_roll_rows(s, p, mark, SIZE_MAX, &mark, why, size);
    }
    error = error ? error : failed;
    return error == ENOSPC || error == EBADMSG || (error == EIO && unread) ? 0 : error;
}

static int
drop(struct store_sqlite *s, const struct partition *p, bool unread, char *why, size_t size)
{
    const struct kind *kind = &store_sqlite_kinds[p->kind];
    char sql[300];
    int n, error = kind->rolled ? roll_rest(s, p, unread, why, size) : 0;

    if (error) {
        return error;
    }
    store_sqlite_put_anew(s);
    n = snprintf(sql, sizeof sql,
                 "BEGIN IMMEDIATE; DROP TABLE IF EXISTS %s_%lld; DROP TABLE IF EXISTS %s_%lld;",
                 kind->name, (long long)p->n, kind->rows, (long long)p->n);
    if (kind->rolled) {
        snprintf(sql + n, sizeof sql - (size_t)n, " DELETE FROM %s WHERE n = %lld", kind->rolled,
                 (long long)p->n);
    }
    return store_sqlite_finish(s, store_sqlite_exec(s->db, sql, why, size), why, size);
}

/* What is wrong with one table does not keep others from going. */
struct expiry {
    size_t dropped;
    int error; /* the first one */
    char *why;
    size_t size;
};

static void
note(struct expiry *x, int error, const char *why)
{
    if (error && !x->error) {
        x->error = error;
        snprintf(x->why, x->size, "%s", why);
    }
}

static void
drop_or_note(struct store_sqlite *s, const struct partition *p, bool unread, struct expiry *x)
{
    char why[200];
    int error = drop(s, p, unread, why, sizeof why);

    note(x, error, why);
    x->dropped += !error;
}

/* What cannot be read then may be read another time, for a day. */
static void
drop_old(struct store_sqlite *s, int64_t now_ms, struct expiry *x)
{
    struct partition *p;
    char why[200];
    size_t n;

    note(x, store_sqlite_partitions(s->db, N_KINDS, &p, &n, why, sizeof why), why);
    for (size_t i = 0; i < n; i++) {
        int64_t late =
            now_ms - s->keep_ms[p[i].kind] - (p[i].n + 1) * store_sqlite_kinds[p[i].kind].span_ms;

        if (late >= 0) {
            drop_or_note(s, &p[i], late >= 24 * STORE_HOUR_MS, x);
        }
    }
    free(p);
}

/* The oldest of raw rows go first, then those of the finest rollup; of each kind the
 * newest stay. */
static void
drop_much(struct store_sqlite *s, struct expiry *x)
{
    struct partition *p;
    uint64_t bytes;
    char why[200];
    size_t n;
    int error = store_sqlite_partitions(s->db, N_KINDS, &p, &n, why, sizeof why);

    for (size_t i = 0; i + 1 < n && !error; i++) {
        error = used_bytes(s->db, &bytes, why, sizeof why);
        if (error || bytes <= s->max_bytes) {
            break;
        }
        if (p[i + 1].kind == p[i].kind) {
            drop_or_note(s, &p[i], true, x);
        }
    }
    note(x, error, why);
    free(p);
}

static int
expire(struct store *up, int64_t now_ms, char *why, size_t size)
{
    struct store_sqlite *s = (struct store_sqlite *)up;
    struct expiry x = {.why = why, .size = size};
    char text[200];

    drop_old(s, now_ms, &x);
    if (s->max_bytes) {
        drop_much(s, &x);
    }
    if (x.dropped) {
        note(&x, store_sqlite_exec(s->db, "PRAGMA incremental_vacuum(100000)", text, sizeof text),
             text);
    }
    return x.error;
}

/* --- opening ---------------------------------------------------------------------------- */

#define APPLICATION "1466336305" /* "Wft1" */
#define VERSION "4" /* what is older can be read, and is of this version from then on */

/* A file of another layout is not touched.  One without tables is of a process that
 * ended while it made it.  '*ours': it is of this version. */
static int
check_version(sqlite3 *db, bool *ours, char *why, size_t size)
{
    static const char *const names[] = {"page_count", "application_id", "user_version"};
    int64_t v[3] = {0}, tables = 0;
    int error = pragmas(db, names, 3, v, why, size);
    const int64_t pages = v[0], id = v[1], version = v[2];
    bool begun;

    *ours = pages && id == atoll(APPLICATION) && version == atoll(VERSION);
    if (!error) {
        error = store_sqlite_number(db, "SELECT COUNT(*) FROM sqlite_master", &tables, why, size);
    }
    if (error) {
        return error;
    }
    begun = (id == 0 || id == atoll(APPLICATION)) && version == 0 && !tables;
    if (pages && !begun && (id != atoll(APPLICATION) || version < 1 || version > atoll(VERSION))) {
        snprintf(why, size, "is no flow store of this version");
        return EINVAL;
    }
    return 0;
}

static void
status(struct store *up, struct store_status *st)
{
    struct store_sqlite *s = (struct store_sqlite *)up;
    struct partition *p = NULL;
    sqlite3 *db = NULL;
    char why[100];
    size_t n;

    *st = (struct store_status){.max_bytes = s->max_bytes};
    if (!sqlite3_open_v2(s->path, &db, SQLITE_OPEN_READONLY, NULL)) {
        used_bytes(db, &st->bytes, why, sizeof why);
        store_sqlite_partitions(db, N_KINDS, &p, &n, why, sizeof why);
        st->partitions = (unsigned)n;
        if (n && p[0].kind == 0) {
            st->oldest_ms = p[0].n * store_sqlite_kinds[0].span_ms;
        }
    }
    sqlite3_close(db);
    free(p);
}

static void
close_store(struct store *up)
{
    struct store_sqlite *s = (struct store_sqlite *)up;

    if (s) {
        sqlite3_finalize(s->insert);
        sqlite3_close(s->db);
        free(s->block);
        if (s->lock >= 0) {
            close(s->lock);
        }
        free(s->path);
        free(s);
    }
}

static const struct store_ops ops = {
    .close = close_store,
    .put = store_sqlite_put,
    .check = store_sqlite_check,
    .roll = store_sqlite_roll,
    .save_names = save_names,
    .save_bindings = save_bindings,
    .load_names = load_names,
    .load_bindings = load_bindings,
    .expire = expire,
    .list = store_sqlite_list,
    .sum = store_sqlite_sum,
    .status = status,
};

/* For its owner only: who talks to whom is nobody else's business. */
static int
create_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    return fd < 0 ? errno : close(fd);
}

/* Of who writes to the store, until it is closed or the process ends. */
static int
lock_store(struct store_sqlite *s, char *why, size_t size)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s-lock", s->path);
    s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock < 0) {
        int error = errno;
        snprintf(why, size, "%s", strerror(error));
        return error;
    }
    if (flock(s->lock, LOCK_EX | LOCK_NB)) {
        snprintf(why, size, "another process uses it");
        return EBUSY;
    }
    return 0;
}

/* What is there already is not written again: a store on a full disk opens. */
static int
open_database(struct store_sqlite *s, char *why, size_t size)
{
    static const struct {
        const char *sql;
        bool once; /* not if it is of this version */
    } setup[] = {
        {"PRAGMA page_size = 8192", true}, /* before the first table */
        {"PRAGMA auto_vacuum = INCREMENTAL", true},
        {"PRAGMA journal_mode = WAL", false},
        {"PRAGMA synchronous = FULL", false},
        {"PRAGMA temp_store = MEMORY", false},
        {"PRAGMA secure_delete = FAST", false}, /* a page need not be read to go */
        {"PRAGMA journal_size_limit = 33554432", false},
        {"PRAGMA cache_size = -65536", false},
        {"PRAGMA application_id = " APPLICATION, true},
        {"PRAGMA user_version = " VERSION, true},
        {"CREATE TABLE IF NOT EXISTS name (id INTEGER PRIMARY KEY, class, name, extra)", false},
        {"CREATE TABLE IF NOT EXISTS rolled (n INTEGER PRIMARY KEY, row)", false},
        {"CREATE TABLE IF NOT EXISTS rolled_s60 (n INTEGER PRIMARY KEY, row)", false},
        {"CREATE TABLE IF NOT EXISTS rolled_s300 (n INTEGER PRIMARY KEY, row)", false},
        {"CREATE TABLE IF NOT EXISTS binding (kind, key, since, until, value,"
         " PRIMARY KEY (kind, key, since)) WITHOUT ROWID",
         false},
    };
    bool ours = false;
    int code =
        create_file(s->path)
            ? SQLITE_CANTOPEN
            : sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    int error = store_sqlite_error(s->db, code, why, size);

    if (!error) {
        sqlite3_busy_timeout(s->db, 5000);
        error = check_version(s->db, &ours, why, size);
    }
    for (size_t i = 0; i < sizeof setup / sizeof setup[0] && !error; i++) {
        error = ours && setup[i].once ? 0 : store_sqlite_exec(s->db, setup[i].sql, why, size);
    }
    return error;
}

int
store_sqlite_open(const struct store_options *o, struct store **storep, char *why, size_t why_size)
{
    struct store_sqlite *s = calloc(1, sizeof *s);
    char text[200];
    int error;

    *storep = NULL;
    if (!s || !(s->path = strdup(o->path)) || !(s->block = malloc(FLOW_BLOCK_BYTES))) {
        free(s ? s->path : NULL);
        free(s);
        snprintf(why, why_size, "out of memory");
        return ENOMEM;
    }
    s->up.ops = &ops;
    s->lock = -1;
    s->max_bytes = o->max_bytes;
    s->keep_ms[0] = o->raw_hours * STORE_HOUR_MS;
    for (int i = 0; i < 3; i++) {
        s->keep_ms[i + 1] = o->keep_hours[i] * STORE_HOUR_MS;
    }
    error = lock_store(s, text, sizeof text);
    error = error ? error : open_database(s, text, sizeof text);
    if (error) {
        snprintf(why, why_size, "%s: %s", o->path, text);
        close_store(&s->up);
        return error;
    }
    *storep = &s->up;
    return 0;
}
