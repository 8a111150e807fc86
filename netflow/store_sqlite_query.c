/* Questions to the SQLite store.  Each has a connection of its own, sees one
 * state of the database, and is interrupted when its time is up.  What comes
 * from outside reaches SQL as bound parameters only. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store_sqlite_priv.h"

enum { RAW_PARTITIONS = 400 }; /* SQLite's bound is 500 terms in a compound */

struct params {
    struct {
        unsigned column;
        struct flow_value value;
    } * v;
    size_t n, cap;
    bool failed;
};

struct question {
    sqlite3 *db;
    int64_t deadline_ms;
    struct params params;
    struct partition *partitions;
    size_t n_partitions;
    sqlite3_stmt *statement;
    struct store_scan scan;
};

static int64_t
monotonic_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

static int
overdue(void *question)
{
    return monotonic_ms() > ((struct question *)question)->deadline_ms;
}

/* --- filters ------------------------------------------------------------------------ */

/* The number of a new parameter. */
static size_t
param(struct params *p, unsigned column, const struct flow_value *v)
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 64;
        void *more = realloc(p->v, cap * sizeof *p->v);
        if (!more) {
            p->failed = true;
            return 1;
        }
        p->v = more;
        p->cap = cap;
    }
    p->v[p->n].column = column;
    p->v[p->n].value = *v;
    return ++p->n;
}

static void
write_test(FILE *f, struct params *p, const struct flow_node *n)
{
    const char *name = flow_columns[n->column].name;

    if (n->op == FLOW_OP_NAME) {
        fprintf(f, "\"%s\" IN (", name);
        for (size_t i = 0; i < n->n_ids; i++) {
            struct flow_value v = {.number = n->ids[i]};
            fprintf(f, "%s?%zu", i ? "," : "", param(p, n->column, &v));
        }
        fprintf(f, ")");
    } else if (n->op == FLOW_OP_BITS) {
        size_t bits = param(p, n->column, &n->low);
        fprintf(f, "(\"%s\" & ?%zu) = ?%zu", name, bits, bits);
    } else {
        size_t low = param(p, n->column, &n->low);
        fprintf(f, "\"%s\" BETWEEN ?%zu AND ?%zu", name, low, param(p, n->column, &n->high));
    }
}

static void
write_node(FILE *f, struct params *p, const struct flow_filter *filter, unsigned i)
{
    const struct flow_node *n = &filter->nodes[i];

    if (n->op > FLOW_OP_NOT) {
        write_test(f, p, n);
        return;
    }
    fprintf(f, n->op == FLOW_OP_NOT ? "NOT (" : "(");
    write_node(f, p, filter, n->left);
    if (n->op != FLOW_OP_NOT) {
        fprintf(f, n->op == FLOW_OP_AND ? " AND " : " OR ");
        write_node(f, p, filter, n->right);
    }
    fprintf(f, ")");
}

/* " WHERE ..." of the query; the times are numbers of ours. */
static void
write_where(FILE *f, struct params *p, const struct store_query *q, int64_t from, int64_t to)
{
    fprintf(f, " WHERE \"time\" >= %lld AND \"time\" < %lld", (long long)from, (long long)to);
    if (!q->again) {
        fprintf(f, " AND \"again\" = 0");
    }
    if (q->filter->n) {
        fprintf(f, " AND ");
        write_node(f, p, q->filter, q->filter->root);
    }
}

/* --- a question's life ---------------------------------------------------------------- */

static int
begin(struct store *up, const struct store_query *q, struct question **qp, char *why, size_t size)
{
    struct store_sqlite *s = (struct store_sqlite *)up;
    struct question *x = calloc(1, sizeof *x);
    int error;

    *qp = x;
    if (!x) {
        return ENOMEM;
    }
    error = sqlite3_open_v2(s->path, &x->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    error = store_sqlite_error(x->db, error, why, size);
    if (error) {
        return error;
    }
    x->deadline_ms = monotonic_ms() + q->timeout_ms;
    sqlite3_busy_timeout(x->db, 1000);
    sqlite3_progress_handler(x->db, 10000, overdue, x);
    /* LIKE, attachments and the like are not asked for by anyone. */
    sqlite3_db_config(x->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    return store_sqlite_exec(x->db, "BEGIN", why, size);
}

static void
end(struct question *x)
{
    if (x) {
        sqlite3_finalize(x->statement);
        sqlite3_close(x->db);
        free(x->partitions);
        free(x->scan.tables);
        free(x->params.v);
        free(x);
    }
}

/* The kind's partitions that the time has something in. */
static int
overlapping(struct question *x, unsigned kind, int64_t from, int64_t to, char *why, size_t size)
{
    int64_t span = store_sqlite_kinds[kind].span_ms;
    size_t n, kept = 0;
    int error;

    free(x->partitions);
    error = store_sqlite_partitions(x->db, kind, &x->partitions, &n, why, size);
    for (size_t i = 0; i < n; i++) {
        if (x->partitions[i].n * span < to && (x->partitions[i].n + 1) * span > from) {
            x->partitions[kept++] = x->partitions[i];
        }
    }
    x->n_partitions = kept;
    return error;
}

/* Prepares the text of the memstream 'f' and binds; frees it. */
static int
ask(struct question *x, FILE *f, char **sql, char *why, size_t size)
{
    int error;

    if (fclose(f) || x->params.failed) {
        snprintf(why, size, "out of memory");
        free(*sql);
        return ENOMEM;
    }
    sqlite3_finalize(x->statement);
    x->statement = NULL;
    error = sqlite3_prepare_v2(x->db, *sql, -1, &x->statement, NULL);
    error = store_sqlite_error(x->db, error, why, size);
    free(*sql);
    for (size_t i = 0; i < x->params.n && !error; i++) {
        store_sqlite_bind(x->statement, (int)i + 1, x->params.v[i].column, &x->params.v[i].value);
    }
    return error;
}

/* --- rows ------------------------------------------------------------------------------- */

/* The newest rows of an hour, at most 'max': a heap, the oldest on top. */
struct page {
    struct listed {
        int64_t time_ms, id;
        struct flow_row row;
    } * v;
    size_t n, cap, max;
};

static bool
older(const struct listed *a, const struct listed *b)
{
    return a->time_ms != b->time_ms ? a->time_ms < b->time_ms : a->id < b->id;
}

static int
newest_first(const void *a, const void *b)
{
    return older(a, b) ? 1 : older(b, a) ? -1 : 0;
}

static void
swap(struct listed *a, struct listed *b)
{
    struct listed t = *a;

    *a = *b;
    *b = t;
}

static void
sink_down(struct page *p)
{
    for (size_t i = 0, least;; i = least) {
        least = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < p->n; child++) {
            least = older(&p->v[child], &p->v[least]) ? child : least;
        }
        if (least == i) {
            return;
        }
        swap(&p->v[i], &p->v[least]);
    }
}

/* Whether the page has place for a row of that time and number. */
static bool
page_takes(const struct page *p, int64_t time_ms, int64_t id)
{
    return p->n < p->max ||
           (p->max && (p->v->time_ms != time_ms ? p->v->time_ms < time_ms : p->v->id < id));
}

/* A row that the page takes. */
static int
page_put(struct page *p, const struct listed *l)
{
    if (p->n == p->max) {
        *p->v = *l;
        sink_down(p);
        return 0;
    }
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 64;
        struct listed *v = realloc(p->v, cap * sizeof *v);
        if (!v) {
            return ENOMEM;
        }
        p->v = v;
        p->cap = cap;
    }
    p->v[p->n] = *l;
    for (size_t i = p->n++; i && older(&p->v[i], &p->v[(i - 1) / 2]); i = (i - 1) / 2) {
        swap(&p->v[i], &p->v[(i - 1) / 2]);
    }
    return 0;
}

static bool
behind_cursor(const struct store_query *q, int64_t time_ms, int64_t id)
{
    return !q->cursor_time || time_ms < q->cursor_time ||
           (time_ms == q->cursor_time && id < q->cursor_row);
}

/* The columns that decide whether a row passes: filled in before the others are. */
static size_t
deciding(const struct store_query *q, uint16_t columns[FLOW_COLUMNS_MAX])
{
    bool used[FLOW_COLUMNS_MAX] = {false};
    size_t n = 0;

    used[flow_column_find("again")] = !q->again;
    for (unsigned i = 0; i < q->filter->n; i++) {
        if (q->filter->nodes[i].op >= FLOW_OP_RANGE) {
            used[q->filter->nodes[i].column] = true;
        }
    }
    for (uint16_t c = 0; c < n_flow_columns; c++) {
        if (used[c]) {
            columns[n++] = c;
        }
    }
    return n;
}

/* The block's rows onto the page. */
static int
list_block(const struct store_blocks *b, const struct store_query *q, const uint16_t *columns,
           size_t n_columns, struct page *page)
{
    struct flow_row some = {.time_ms = 0};
    struct listed l;
    int error = 0;

    for (unsigned i = 0; i < b->block.n && !error; i++) {
        l.time_ms = flow_block_time(&b->block, i);
        l.id = store_row_id(b->id, i);
        if (l.time_ms < q->from_ms || l.time_ms >= q->to_ms || !behind_cursor(q, l.time_ms, l.id) ||
            !page_takes(page, l.time_ms, l.id)) {
            continue;
        }
        for (size_t c = 0; c < n_columns; c++) {
            struct flow_value v;
            flow_block_get(&b->block, columns[c], i, &v);
            flow_row_set(&some, columns[c], &v);
        }
        if ((q->again || !some.again) && flow_filter_match(q->filter, &some)) {
            flow_block_row(&b->block, i, &l.row);
            error = page_put(page, &l);
        }
    }
    return error;
}

static int
list_blocks(struct question *x, const struct store_query *q, int64_t hour, struct page *page,
            char *why, size_t size)
{
    int64_t to = q->cursor_time && q->cursor_time < q->to_ms ? q->cursor_time + 1 : q->to_ms;
    uint16_t columns[FLOW_COLUMNS_MAX];
    size_t n_columns = deciding(q, columns);
    struct store_blocks b;
    int code = SQLITE_DONE;
    int error = store_blocks_open(&b, x->db, &(struct partition){0, hour}, STORE_NEWEST_FIRST, 0,
                                  q->from_ms, to, why, size);

    while (!error && (code = store_blocks_next(&b)) == SQLITE_ROW) {
        if (!page_takes(page, b.newest_ms, INT64_MAX)) {
            code = SQLITE_DONE;
            break;
        }
        if (overdue(x)) {
            code = SQLITE_INTERRUPT;
            break;
        }
        error = list_block(&b, q, columns, n_columns, page);
    }
    error = error ? error : store_sqlite_error(x->db, code, why, size);
    store_blocks_close(&b);
    return error;
}

/* Of raw_N. */
static int
ask_rows(struct question *x, const struct store_query *q, int64_t hour, size_t limit, char *why,
         size_t size)
{
    char *sql = NULL;
    size_t length;
    FILE *f = open_memstream(&sql, &length);

    if (!f) {
        return ENOMEM;
    }
    x->params.n = 0;
    fprintf(f, "SELECT rowid, \"time\", ");
    store_sqlite_columns(f, false, "");
    fprintf(f, " FROM raw_%lld", (long long)hour);
    write_where(f, &x->params, q, q->from_ms, q->to_ms);
    if (q->cursor_time) {
        fprintf(f, " AND (\"time\", rowid) < (%lld, %lld)", (long long)q->cursor_time,
                (long long)q->cursor_row);
    }
    fprintf(f, " ORDER BY \"time\" DESC, rowid DESC LIMIT %zu", limit);
    return ask(x, f, &sql, why, size);
}

static int
list_rows(struct question *x, const struct store_query *q, int64_t hour, struct page *page,
          char *why, size_t size)
{
    bool has = false;
    int code = SQLITE_DONE, error = store_sqlite_has(x->db, "raw", hour, &has, why, size);

    if (!error && has) {
        error = ask_rows(x, q, hour, page->max, why, size);
        while (!error && (code = sqlite3_step(x->statement)) == SQLITE_ROW) {
            struct listed l = {.id = sqlite3_column_int64(x->statement, 0),
                               .time_ms = sqlite3_column_int64(x->statement, 1)};
            l.row.time_ms = (uint64_t)l.time_ms;
            for (unsigned c = 0; c < n_flow_columns; c++) {
                struct flow_value v;
                store_sqlite_value(x->statement, (int)c + 2, c, &v);
                flow_row_set(&l.row, c, &v);
            }
            error = page_takes(page, l.time_ms, l.id) ? page_put(page, &l) : 0;
        }
    }
    return error ? error : store_sqlite_error(x->db, code, why, size);
}

int
store_sqlite_list(struct store *up, const struct store_query *q,
                  void (*row)(void *, const struct flow_row *, int64_t), void *aux, char *why,
                  size_t size)
{
    struct page page = {.max = q->limit};
    struct question *x;
    int error = begin(up, q, &x, why, size);

    if (!error) {
        error = overlapping(x, 0, q->from_ms, q->to_ms, why, size);
    }
    while (!error && page.max && x->n_partitions) {
        int64_t hour = x->partitions[--x->n_partitions].n;

        page.n = 0;
        error = list_rows(x, q, hour, &page, why, size);
        error = error ? error : list_blocks(x, q, hour, &page, why, size);
        if (!error && page.n) {
            qsort(page.v, page.n, sizeof *page.v, newest_first);
        }
        for (size_t i = 0; i < page.n && !error; i++) {
            row(aux, &page.v[i].row, page.v[i].id);
        }
        page.max -= page.n;
    }
    free(page.v);
    end(x);
    return error;
}

/* --- sums -------------------------------------------------------------------------------- */

/* The finest kind that can answer and still has the time, but of a long time no
 * finer one than it is worth. */
static unsigned
choose_kind(const struct store_sqlite *s, const struct store_query *q)
{
    static const int64_t worth_ms[N_KINDS] = {2 * 3600000LL, 24 * 3600000LL, 14 * 24 * 3600000LL,
                                              INT64_MAX};
    bool rollup = flow_filter_in_rollup(q->filter);
    unsigned kind = 0;

    for (unsigned i = 0; i < q->n_group; i++) {
        rollup &= flow_columns[q->group[i]].rollup;
    }
    if (!rollup) {
        return 0;
    }
    while (kind + 1 < N_KINDS &&
           (q->to_ms - q->from_ms > worth_ms[kind] ||
            q->from_ms < (int64_t)time(NULL) * 1000 - s->keep_ms[kind]) &&
           (!q->step_s || q->step_s % store_sqlite_kinds[kind + 1].step_s == 0)) {
        kind++;
    }
    return kind;
}

/* A table's part of a sum; 'scale' and 'flows' are of its rows, 'and' narrows it. */
static void
write_term(FILE *f, const struct store_query *q, const char *table, const char *scale,
           const char *flows, const char *where, const char *and, size_t *terms)
{
    fprintf(f, "%sSELECT ", (*terms)++ ? " UNION ALL " : "");
    if (q->step_s) {
        fprintf(f, "\"time\" / %u000 * %u000 AS t", q->step_s, q->step_s);
    } else {
        fprintf(f, "0 AS t");
    }
    fprintf(f, ", bytes%s AS b, packets%s AS p, %s AS n", scale, scale, flows);
    for (unsigned g = 0; g < q->n_group; g++) {
        fprintf(f, ", \"%s\" AS g%u", flow_columns[q->group[g]].name, g);
    }
    fprintf(f, " FROM %s%s%s", table, where, and);
}

/* One table; of 'tails' what is behind its mark. */
static int
write_table(FILE *f, struct question *x, const struct store_query *q, const struct partition *p,
            bool tails, const char *where, size_t *terms, char *why, size_t size)
{
    const struct kind *k = &store_sqlite_kinds[p->kind];
    int64_t mark = 0, last = INT64_MAX;
    char table[40], and[60];
    bool rows = false;
    int error = tails ? store_sqlite_tail(x->db, p, &mark, &last, why, size) : 0;

    if (error || last <= mark) {
        return error;
    }
    if (p->kind == 0 ? mark < STORE_BLOCKS : !tails) {
        error = store_sqlite_has(x->db, k->rows, p->n, &rows, why, size);
    }
    if (!error && rows) {
        snprintf(table, sizeof table, "%s_%lld", k->rows, (long long)p->n);
        snprintf(and, sizeof and, " AND rowid > %lld", (long long)mark);
        write_term(f, q, table, p->kind ? "" : " * MAX(sampling, 1)", p->kind ? "flows" : "1",
                   where, p->kind ? "" : and, terms);
    }
    x->scan.tables[x->scan.n++] = (struct store_scan_table){*p, mark};
    return error;
}

/* The kind's tables; of a finer one than is asked for what is behind the marks. */
static int
write_kind(FILE *f, struct question *x, const struct store_query *q, unsigned kind, bool tails,
           const char *where, size_t *terms, char *why, size_t size)
{
    struct store_scan *scan = &x->scan;
    struct store_scan_table *tables;
    int error = overlapping(x, kind, scan->from_ms, scan->to_ms, why, size);

    if (error) {
        return error;
    }
    tables = reallocarray(scan->tables, scan->n + x->n_partitions + 1, sizeof *tables);
    if (!tables) {
        return store_sqlite_error(NULL, SQLITE_NOMEM, why, size);
    }
    scan->tables = tables;
    for (size_t i = 0; i < x->n_partitions && !error; i++) {
        error = write_table(f, x, q, &x->partitions[i], tails, where, terms, why, size);
    }
    return error;
}

/* '*terms': how many tables it is of; 0: there is nothing to ask. */
static int
write_sum(FILE *f, struct question *x, const struct store_query *q, unsigned kind,
          const struct store_source *source, size_t *terms, char *why, size_t size)
{
    static const char *const orders[] = {"2", "3", "4"};
    char *where = NULL;
    size_t length;
    FILE *w = open_memstream(&where, &length);
    int error = 0;

    *terms = 0;
    if (!w) {
        return store_sqlite_error(NULL, SQLITE_NOMEM, why, size);
    }
    write_where(w, &x->params, q, source->from_ms, source->to_ms);
    x->params.failed |= fclose(w) != 0;
    fprintf(f, "SELECT t, CAST(TOTAL(b) AS INTEGER), CAST(TOTAL(p) AS INTEGER), "
               "CAST(TOTAL(n) AS INTEGER)");
    for (unsigned i = 0; i < q->n_group; i++) {
        fprintf(f, ", g%u", i);
    }
    fprintf(f, " FROM (");
    x->scan.db = x->db;
    x->scan.from_ms = source->from_ms;
    x->scan.to_ms = source->to_ms;
    for (unsigned k = kind + 1; k-- && !error && !x->params.failed;) {
        error = write_kind(f, x, q, k, k < kind, where, terms, why, size);
    }
    error = error ? error : store_scan_module(x->db, &x->scan, why, size);
    if (x->scan.n) {
        write_term(f, q, "flow_blocks", " * MAX(sampling, 1)", "flows", where, "", terms);
    }
    fprintf(f, ") GROUP BY t");
    for (unsigned i = 0; i < q->n_group; i++) {
        fprintf(f, ", g%u", i);
    }
    fprintf(f, " ORDER BY %s%s DESC LIMIT %u", q->step_s ? "1, " : "", orders[q->order], q->limit);
    free(where);
    return error;
}

/* The question in SQL, ready to be asked; x->statement is NULL if there is nothing to ask. */
static int
ask_sum(struct question *x, const struct store_query *q, unsigned kind,
        const struct store_source *source, char *why, size_t size)
{
    char *sql = NULL;
    size_t length, terms;
    FILE *f = open_memstream(&sql, &length);
    int error;

    if (!f) {
        return store_sqlite_error(NULL, SQLITE_NOMEM, why, size);
    }
    error = write_sum(f, x, q, kind, source, &terms, why, size);
    if (error || (!terms && !x->params.failed)) {
        fclose(f);
        free(sql);
        return error;
    }
    return ask(x, f, &sql, why, size);
}

int
store_sqlite_sum(struct store *up, const struct store_query *q, struct store_source *source,
                 void (*sum)(void *, const struct store_sum *), void *aux, char *why, size_t size)
{
    unsigned kind = choose_kind((struct store_sqlite *)up, q);
    int64_t step_ms = store_sqlite_kinds[kind].step_s * INT64_C(1000);
    struct question *x;
    int error = begin(up, q, &x, why, size), code = SQLITE_DONE;

    *source = (struct store_source){store_sqlite_kinds[kind].step_s, q->from_ms, q->to_ms};
    if (step_ms) {
        source->from_ms = q->from_ms / step_ms * step_ms;
        source->to_ms = (q->to_ms + step_ms - 1) / step_ms * step_ms;
    }
    if (!error) {
        error = overlapping(x, kind, source->from_ms, source->to_ms, why, size);
    }
    if (!error && x->n_partitions > RAW_PARTITIONS) {
        snprintf(why, size,
                 "too long a time for what only single records have; ask for at most %d hours",
                 RAW_PARTITIONS);
        error = ERANGE;
    }
    error = error ? error : ask_sum(x, q, kind, source, why, size);
    while (!error && x->statement && (code = sqlite3_step(x->statement)) == SQLITE_ROW) {
        struct store_sum r = {.time_ms = sqlite3_column_int64(x->statement, 0),
                              .bytes = sqlite3_column_int64(x->statement, 1),
                              .packets = sqlite3_column_int64(x->statement, 2),
                              .flows = sqlite3_column_int64(x->statement, 3)};
        for (unsigned g = 0; g < q->n_group; g++) {
            store_sqlite_value(x->statement, (int)g + 4, q->group[g], &r.value[g]);
        }
        sum(aux, &r);
    }
    error = error ? error : store_sqlite_error(x->db, code, why, size);
    end(x);
    return error;
}
