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
    struct partition partitions[PARTITIONS_MAX];
    size_t n_partitions;
    sqlite3_stmt *statement;
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
        free(x->params.v);
        free(x);
    }
}

/* The kind's partitions that the time has something in. */
static size_t
overlapping(struct question *x, unsigned kind, int64_t from, int64_t to)
{
    int64_t span = store_sqlite_kinds[kind].span_ms;
    size_t n = store_sqlite_partitions(x->db, kind, x->partitions, PARTITIONS_MAX), kept = 0;

    for (size_t i = 0; i < n; i++) {
        if (x->partitions[i].n * span < to && (x->partitions[i].n + 1) * span > from) {
            x->partitions[kept++] = x->partitions[i];
        }
    }
    return x->n_partitions = kept;
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

static int
list_partition(struct question *x, const struct store_query *q, const struct partition *p, FILE *f,
               char **sql, char *why, size_t size)
{
    x->params.n = 0;
    fprintf(f, "SELECT rowid, \"time\", ");
    store_sqlite_columns(f, false, "");
    fprintf(f, " FROM raw_%lld", (long long)p->n);
    write_where(f, &x->params, q, q->from_ms, q->to_ms);
    if (q->cursor_time) {
        fprintf(f, " AND (\"time\", rowid) < (%lld, %lld)", (long long)q->cursor_time,
                (long long)q->cursor_row);
    }
    fprintf(f, " ORDER BY \"time\" DESC, rowid DESC");
    return ask(x, f, sql, why, size);
}

int
store_sqlite_list(struct store *up, const struct store_query *q,
                  void (*row)(void *, const struct flow_row *, int64_t), void *aux, char *why,
                  size_t size)
{
    struct question *x;
    unsigned left = q->limit;
    int error = begin(up, q, &x, why, size), code;

    if (!error) {
        overlapping(x, 0, q->from_ms, q->to_ms);
    }
    while (!error && left && x->n_partitions) {
        const struct partition *p = &x->partitions[--x->n_partitions];
        char *sql = NULL;
        size_t length;
        FILE *f = open_memstream(&sql, &length);
        error = f ? list_partition(x, q, p, f, &sql, why, size) : ENOMEM;
        code = SQLITE_DONE;
        while (!error && left && (code = sqlite3_step(x->statement)) == SQLITE_ROW) {
            struct flow_row r = {.time_ms = (uint64_t)sqlite3_column_int64(x->statement, 1)};
            for (unsigned c = 0; c < n_flow_columns; c++) {
                struct flow_value v;
                store_sqlite_value(x->statement, (int)c + 2, c, &v);
                flow_row_set(&r, c, &v);
            }
            row(aux, &r, sqlite3_column_int64(x->statement, 0));
            left--;
        }
        error = error ? error : store_sqlite_error(x->db, code, why, size);
    }
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

/* One table's part of a sum; 'and' narrows it. */
static void
write_term(FILE *f, const struct store_query *q, const struct kind *k, int64_t n, const char *where,
           const char *and)
{
    const char *scale = k->step_s ? "" : " * MAX(sampling, 1)";

    fprintf(f, "SELECT ");
    if (q->step_s) {
        fprintf(f, "\"time\" / %u000 * %u000 AS t", q->step_s, q->step_s);
    } else {
        fprintf(f, "0 AS t");
    }
    fprintf(f, ", bytes%s AS b, packets%s AS p, %s AS n", scale, scale, k->step_s ? "flows" : "1");
    for (unsigned g = 0; g < q->n_group; g++) {
        fprintf(f, ", \"%s\" AS g%u", flow_columns[q->group[g]].name, g);
    }
    fprintf(f, " FROM %s_%lld%s%s", k->name, (long long)n, where, and);
}

/* The raw rows that rollups do not have yet. */
static size_t
write_tails(FILE *f, struct question *x, const struct store_query *q,
            const struct store_source *source, const char *where, size_t terms)
{
    int64_t mark, last;
    char and[60];

    overlapping(x, 0, source->from_ms, source->to_ms);
    for (size_t i = 0; i < x->n_partitions; i++) {
        if (store_sqlite_tail(x->db, x->partitions[i].n, &mark, &last)) {
            snprintf(and, sizeof and, " AND rowid > %lld", (long long)mark);
            fprintf(f, "%s", terms++ ? " UNION ALL " : "");
            write_term(f, q, &store_sqlite_kinds[0], x->partitions[i].n, where, and);
        }
    }
    return terms;
}

/* How many tables it is of; 0: there is nothing to ask. */
static size_t
write_sum(FILE *f, struct question *x, const struct store_query *q, unsigned kind,
          const struct store_source *source)
{
    static const char *const orders[] = {"2", "3", "4"};
    const struct kind *k = &store_sqlite_kinds[kind];
    char *where = NULL;
    size_t length, terms = 0;
    FILE *w = open_memstream(&where, &length);

    if (!w) {
        x->params.failed = true;
        return 0;
    }
    write_where(w, &x->params, q, source->from_ms, source->to_ms);
    x->params.failed |= fclose(w) != 0;
    fprintf(f, "SELECT t, CAST(TOTAL(b) AS INTEGER), CAST(TOTAL(p) AS INTEGER), "
               "CAST(TOTAL(n) AS INTEGER)");
    for (unsigned i = 0; i < q->n_group; i++) {
        fprintf(f, ", g%u", i);
    }
    fprintf(f, " FROM (");
    for (; terms < x->n_partitions; terms++) {
        fprintf(f, "%s", terms ? " UNION ALL " : "");
        write_term(f, q, k, x->partitions[terms].n, where, "");
    }
    if (k->step_s) {
        terms = write_tails(f, x, q, source, where, terms);
    }
    fprintf(f, ") GROUP BY t");
    for (unsigned i = 0; i < q->n_group; i++) {
        fprintf(f, ", g%u", i);
    }
    fprintf(f, " ORDER BY %s%s DESC LIMIT %u", q->step_s ? "1, " : "", orders[q->order], q->limit);
    free(where);
    return terms;
}

int
store_sqlite_sum(struct store *up, const struct store_query *q, struct store_source *source,
                 void (*sum)(void *, const struct store_sum *), void *aux, char *why, size_t size)
{
    unsigned kind = choose_kind((struct store_sqlite *)up, q);
    int64_t step_ms = store_sqlite_kinds[kind].step_s * INT64_C(1000);
    struct question *x;
    char *sql = NULL;
    size_t length;
    FILE *f;
    int error = begin(up, q, &x, why, size), code = SQLITE_DONE;

    *source = (struct store_source){store_sqlite_kinds[kind].step_s, q->from_ms, q->to_ms};
    if (step_ms) {
        source->from_ms = q->from_ms / step_ms * step_ms;
        source->to_ms = (q->to_ms + step_ms - 1) / step_ms * step_ms;
    }
    if (!error && overlapping(x, kind, source->from_ms, source->to_ms) > RAW_PARTITIONS) {
        snprintf(why, size,
                 "too long a time for what only single records have; ask for at most %d hours",
                 RAW_PARTITIONS);
        error = ERANGE;
    }
    f = error ? NULL : open_memstream(&sql, &length);
    if (f && !write_sum(f, x, q, kind, source) && !x->params.failed) {
        fclose(f);
        free(sql);
        end(x);
        return 0;
    }
    error = f ? ask(x, f, &sql, why, size) : error ? error : ENOMEM;
    while (!error && (code = sqlite3_step(x->statement)) == SQLITE_ROW) {
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
