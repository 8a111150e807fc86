/* Tables of blocks: raw rows into them, and they as a table that SQL can ask. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store_sqlite_priv.h"

int
store_sqlite_has(sqlite3 *db, const char *table, int64_t n, bool *has, char *why, size_t size)
{
    char name[40];
    int code;

    snprintf(name, sizeof name, "%s_%lld", table, (long long)n);
    code = sqlite3_table_column_metadata(db, NULL, name, NULL, NULL, NULL, NULL, NULL, NULL);
    *has = code == SQLITE_OK;
    return code == SQLITE_ERROR ? 0 : store_sqlite_error(db, code, why, size); /* it says so */
}

/* --- writing ---------------------------------------------------------------------- */

/* The index is how the newest are found. */
int
store_blocks_prepare(sqlite3 *db, unsigned kind, int64_t n, sqlite3_stmt **insert, char *why,
                     size_t size)
{
    const char *name = store_sqlite_kinds[kind].name;
    char sql[300];
    int error;

    *insert = NULL;
    snprintf(sql, sizeof sql,
             "CREATE TABLE IF NOT EXISTS %s_%lld (id INTEGER PRIMARY KEY, n, oldest, newest, data);"
             "CREATE INDEX IF NOT EXISTS t_%s_%lld ON %s_%lld (newest, oldest)",
             name, (long long)n, name, (long long)n, name, (long long)n);
    error = store_sqlite_exec(db, sql, why, size);
    if (error) {
        return error;
    }
    snprintf(sql, sizeof sql, "INSERT INTO %s_%lld (n, oldest, newest, data) VALUES (?,?,?,?)",
             name, (long long)n);
    return store_sqlite_error(db, sqlite3_prepare_v2(db, sql, -1, insert, NULL), why, size);
}

int
store_blocks_insert(sqlite3_stmt *insert, size_t rows, int64_t oldest_ms, int64_t newest_ms,
                    const uint8_t *block, size_t len, char *why, size_t size)
{
    int error;

    sqlite3_bind_int64(insert, 1, (int64_t)rows);
    sqlite3_bind_int64(insert, 2, oldest_ms);
    sqlite3_bind_int64(insert, 3, newest_ms);
    sqlite3_bind_blob64(insert, 4, block, len, SQLITE_STATIC);
    error = store_sqlite_error(sqlite3_db_handle(insert), sqlite3_step(insert), why, size);
    sqlite3_reset(insert);
    sqlite3_clear_bindings(insert);
    return error;
}

void
store_sqlite_put_anew(struct store_sqlite *s)
{
    sqlite3_finalize(s->insert);
    s->insert = NULL;
}

static int
insert_block(struct store_sqlite *s, int64_t hour, const struct flow_row *const *rows, size_t n,
             char *why, size_t size)
{
    int64_t oldest = INT64_MAX, newest = 0;
    size_t len = flow_block_encode(rows, n, s->block);

    if (!s->insert || s->insert_into != hour) {
        int error;

        store_sqlite_put_anew(s);
        error = store_blocks_prepare(s->db, 0, hour, &s->insert, why, size);
        if (error) {
            return error;
        }
        s->insert_into = hour;
    }
    for (size_t i = 0; i < n; i++) {
        int64_t ms = (int64_t)rows[i]->time_ms;
        oldest = ms < oldest ? ms : oldest;
        newest = ms > newest ? ms : newest;
    }
    return store_blocks_insert(s->insert, n, oldest, newest, s->block, len, why, size);
}

/* Those of the rows that are of the hour. */
static int
insert_rows(struct store_sqlite *s, int64_t hour, const struct flow_row *rows, size_t n, char *why,
            size_t size)
{
    const struct flow_row *of_hour[FLOW_BLOCK_ROWS];
    size_t k = 0;
    int error = 0;

    for (size_t i = 0; i < n && !error; i++) {
        if ((int64_t)rows[i].time_ms / STORE_HOUR_MS == hour) {
            of_hour[k++] = &rows[i];
        }
        if (k == FLOW_BLOCK_ROWS) {
            error = insert_block(s, hour, of_hour, k, why, size);
            k = 0;
        }
    }
    return k && !error ? insert_block(s, hour, of_hour, k, why, size) : error;
}

/* The first one later than 'after' that there are rows of; INT64_MAX: none. */
static int64_t
next_hour(const struct flow_row *rows, size_t n, int64_t after)
{
    int64_t next = INT64_MAX;

    for (size_t i = 0; i < n; i++) {
        int64_t hour = (int64_t)rows[i].time_ms / STORE_HOUR_MS;
        next = hour > after && hour < next ? hour : next;
    }
    return next;
}

int
store_sqlite_put(struct store *up, const struct flow_row *rows, size_t n, char *why, size_t size)
{
    struct store_sqlite *s = (struct store_sqlite *)up;
    int64_t hour = INT64_MIN;
    int error = store_sqlite_exec(s->db, "BEGIN IMMEDIATE", why, size);

    if (error) {
        return error;
    }
    while (!error && (hour = next_hour(rows, n, hour)) != INT64_MAX) {
        error = insert_rows(s, hour, rows, n, why, size);
    }
    error = store_sqlite_finish(s, error, why, size);
    if (error) { /* it may be of a table that is not there any more */
        store_sqlite_put_anew(s);
    }
    return error;
}

/* Of the size of a few blocks: free pages are used as they are by those. */
enum { PROBE_BYTES = 1 << 18 };

int
store_sqlite_check(struct store *up, char *why, size_t size)
{
    struct store_sqlite *s = (struct store_sqlite *)up;
    char sql[160];

    snprintf(sql, sizeof sql,
             "BEGIN IMMEDIATE; CREATE TABLE probe (data);"
             "INSERT INTO probe VALUES (zeroblob(%d)); DROP TABLE probe",
             PROBE_BYTES);
    return store_sqlite_finish(s, store_sqlite_exec(s->db, sql, why, size), why, size);
}

/* --- reading ----------------------------------------------------------------------- */

/* The number that the query gives of a table; 0 if there is no table. */
static int
number_in(sqlite3 *db, const char *table, int64_t n, const char *sql, int64_t *v, char *why,
          size_t size)
{
    bool has = false;
    int error = store_sqlite_has(db, table, n, &has, why, size);

    *v = 0;
    return error || !has ? error : store_sqlite_number(db, sql, v, why, size);
}

int
store_sqlite_tail(sqlite3 *db, const struct partition *p, int64_t *mark, int64_t *last, char *why,
                  size_t size)
{
    const struct kind *k = &store_sqlite_kinds[p->kind];
    char sql[160];
    int error;

    *last = 0;
    snprintf(sql, sizeof sql, "SELECT row FROM %s WHERE n = %lld", k->rolled, (long long)p->n);
    error = store_sqlite_number(db, sql, mark, why, size);
    if (!error) {
        snprintf(sql, sizeof sql,
                 "SELECT %lld + (id << 16) + n - 1 FROM %s_%lld ORDER BY id DESC LIMIT 1",
                 (long long)STORE_BLOCKS, k->name, (long long)p->n);
        error = number_in(db, k->name, p->n, sql, last, why, size);
    }
    if (!error && !*last && p->kind == 0) { /* sums of version 1 are in all kinds */
        snprintf(sql, sizeof sql, "SELECT MAX(rowid) FROM raw_%lld", (long long)p->n);
        error = number_in(db, k->rows, p->n, sql, last, why, size);
    }
    return error;
}

int
store_blocks_open(struct store_blocks *b, sqlite3 *db, const struct partition *of,
                  enum store_order order, int64_t first, int64_t from_ms, int64_t to_ms, char *why,
                  size_t size)
{
    const char *name = store_sqlite_kinds[of->kind].name;
    char sql[200];
    bool has = false;
    int error = store_sqlite_has(db, name, of->n, &has, why, size);

    b->s = NULL;
    if (error || !has) {
        return error;
    }
    snprintf(sql, sizeof sql,
             "SELECT id, newest, data, n, oldest FROM %s_%lld WHERE %s AND oldest < ?3 %s", name,
             (long long)of->n,
             order == STORE_BY_ID ? "id >= ?1 AND +newest >= ?2" : "+id >= ?1 AND newest >= ?2",
             order == STORE_BY_ID ? "ORDER BY id" : "ORDER BY newest DESC");
    error = store_sqlite_error(db, sqlite3_prepare_v2(db, sql, -1, &b->s, NULL), why, size);
    if (!error) {
        sqlite3_bind_int64(b->s, 1, first);
        sqlite3_bind_int64(b->s, 2, from_ms);
        sqlite3_bind_int64(b->s, 3, to_ms);
    }
    return error;
}

/* Does the row say of its block what that is?  It is by that that blocks are found.  Those
 * of before there were checks are taken as they are. */
static bool
is_as_told(const struct store_blocks *b, const uint8_t *data)
{
    int64_t newest = INT64_MIN, oldest = INT64_MAX;

    if (!(get_le16(data) & FLOW_BLOCK_CHECKED)) {
        return true;
    }
    for (unsigned i = 0; i < b->block.n; i++) {
        int64_t ms = flow_block_time(&b->block, i);

        newest = ms > newest ? ms : newest;
        oldest = ms < oldest ? ms : oldest;
    }
    return newest == b->newest_ms && sqlite3_column_int64(b->s, 3) == (int64_t)b->block.n &&
           sqlite3_column_int64(b->s, 4) == oldest;
}

int
store_blocks_next(struct store_blocks *b)
{
    int code = b->s ? sqlite3_step(b->s) : SQLITE_DONE;

    if (code == SQLITE_ROW) {
        const void *data = sqlite3_column_blob(b->s, 2);

        b->id = sqlite3_column_int64(b->s, 0);
        b->newest_ms = sqlite3_column_int64(b->s, 1);
        if (b->id < 1 || b->id >= STORE_BLOCK_IDS) {
            return SQLITE_CORRUPT;
        }
        if (!data) {
            return sqlite3_errcode(sqlite3_db_handle(b->s)) == SQLITE_NOMEM ? SQLITE_NOMEM
                                                                            : SQLITE_CORRUPT;
        }
        if (flow_block_open(&b->block, data, (size_t)sqlite3_column_bytes(b->s, 2)) ||
            !is_as_told(b, data)) {
            return SQLITE_CORRUPT;
        }
    }
    return code;
}

void
store_blocks_close(struct store_blocks *b)
{
    sqlite3_finalize(b->s);
    b->s = NULL;
}

/* --- blocks as a table ---------------------------------------------------------------- */

struct scan_table {
    sqlite3_vtab up;
    const struct store_scan *scan;
};

struct scan_cursor {
    sqlite3_vtab_cursor up;
    const struct store_scan *scan;
    size_t next; /* table */
    int64_t mark;
    struct store_blocks blocks; /* of the table before */
    unsigned i;                 /* row of the block */
    bool open, end;             /* open: there is a block */
};

static int
scan_connect(sqlite3 *db, void *scan, int argc, const char *const *argv, sqlite3_vtab **vtab,
             char **why)
{
    struct scan_table *t;
    char *sql = NULL;
    size_t length;
    FILE *f = open_memstream(&sql, &length);
    int code;

    (void)argc, (void)argv, (void)why;
    if (!f) {
        return SQLITE_NOMEM;
    }
    fprintf(f, "CREATE TABLE x (\"time\", ");
    store_sqlite_columns(f, false, "");
    fprintf(f, ", flows)");
    code = fclose(f) ? SQLITE_NOMEM : sqlite3_declare_vtab(db, sql);
    free(sql);
    if (code) {
        return code;
    }
    t = calloc(1, sizeof *t);
    if (!t) {
        return SQLITE_NOMEM;
    }
    t->scan = scan;
    *vtab = &t->up;
    return SQLITE_OK;
}

static int
scan_disconnect(sqlite3_vtab *t)
{
    free(t);
    return SQLITE_OK;
}

/* There is one way only: from the first to the last. */
static int
scan_best_index(sqlite3_vtab *t, sqlite3_index_info *info)
{
    (void)t;
    info->estimatedCost = 1e9;
    info->estimatedRows = 1000000;
    return SQLITE_OK;
}

static int
scan_open(sqlite3_vtab *t, sqlite3_vtab_cursor **cursor)
{
    struct scan_cursor *c = calloc(1, sizeof *c);

    if (!c) {
        return SQLITE_NOMEM;
    }
    c->scan = ((struct scan_table *)t)->scan;
    *cursor = &c->up;
    return SQLITE_OK;
}

static int
scan_close(sqlite3_vtab_cursor *cursor)
{
    store_blocks_close(&((struct scan_cursor *)cursor)->blocks);
    free(cursor);
    return SQLITE_OK;
}

/* To the next block, or the end. */
static int
scan_next_block(struct scan_cursor *c)
{
    const struct store_scan *s = c->scan;
    char why[200];
    int code;

    while ((code = store_blocks_next(&c->blocks)) == SQLITE_DONE) {
        const struct store_scan_table *t;

        store_blocks_close(&c->blocks);
        if (c->next == s->n) {
            c->end = true;
            return SQLITE_OK;
        }
        t = &s->tables[c->next++];
        c->mark = t->mark;
        if (store_blocks_open(&c->blocks, s->db, &t->of, STORE_BY_ID, store_row_block(t->mark),
                              s->from_ms, s->to_ms, why, sizeof why)) {
            return SQLITE_ERROR;
        }
    }
    if (code != SQLITE_ROW) {
        return code;
    }
    c->i = c->blocks.id == store_row_block(c->mark) ? store_row_index(c->mark) + 1 : 0;
    return SQLITE_OK;
}

/* From row 'i' on to one of the time asked for. */
static int
scan_settle(struct scan_cursor *c)
{
    const struct flow_block *b = &c->blocks.block;

    for (;; c->i++) {
        while (!c->open || c->i >= b->n) {
            int code = scan_next_block(c);

            if (code || c->end) {
                return code;
            }
            c->open = true;
        }
        int64_t ms = flow_block_time(b, c->i);
        if (ms >= c->scan->from_ms && ms < c->scan->to_ms) {
            return SQLITE_OK;
        }
    }
}

static int
scan_filter(sqlite3_vtab_cursor *cursor, int index, const char *text, int argc, sqlite3_value **v)
{
    struct scan_cursor *c = (struct scan_cursor *)cursor;

    (void)index, (void)text, (void)argc, (void)v;
    store_blocks_close(&c->blocks);
    c->next = 0;
    c->i = 0;
    c->open = c->end = false;
    return scan_settle(c);
}

static int
scan_next(sqlite3_vtab_cursor *cursor)
{
    struct scan_cursor *c = (struct scan_cursor *)cursor;

    c->i++;
    return scan_settle(c);
}

static int
scan_eof(sqlite3_vtab_cursor *cursor)
{
    return ((struct scan_cursor *)cursor)->end;
}

static int
scan_column(sqlite3_vtab_cursor *cursor, sqlite3_context *to, int column)
{
    const struct scan_cursor *c = (struct scan_cursor *)cursor;
    const struct flow_block *b = &c->blocks.block;
    unsigned i = (unsigned)column - 1;

    if (column == 0) {
        sqlite3_result_int64(to, flow_block_time(b, c->i));
    } else if (i == n_flow_columns) { /* a raw row does not say that it is one */
        int64_t flows = flow_block_number(b, FLOW_BLOCK_FLOWS, c->i);
        sqlite3_result_int64(to, flows ? flows : 1);
    } else if (flow_columns[i].kind == FLOW_COL_ADDRESS) {
        struct flow_value v;
        flow_block_get(b, i, c->i, &v);
        sqlite3_result_blob(to, &v.address, sizeof v.address, SQLITE_TRANSIENT);
    } else {
        sqlite3_result_int64(to, flow_block_number(b, flow_block_of(i), c->i));
    }
    return SQLITE_OK;
}

static int
scan_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *id)
{
    const struct scan_cursor *c = (struct scan_cursor *)cursor;

    *id = store_row_id(c->blocks.id, c->i);
    return SQLITE_OK;
}

int
store_scan_module(sqlite3 *db, struct store_scan *scan, char *why, size_t size)
{
    static const sqlite3_module module = {
        .xConnect = scan_connect,
        .xBestIndex = scan_best_index,
        .xDisconnect = scan_disconnect,
        .xOpen = scan_open,
        .xClose = scan_close,
        .xFilter = scan_filter,
        .xNext = scan_next,
        .xEof = scan_eof,
        .xColumn = scan_column,
        .xRowid = scan_rowid,
    };

    return store_sqlite_error(db, sqlite3_create_module(db, "flow_blocks", &module, scan), why,
                              size);
}
