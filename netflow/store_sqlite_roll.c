/* Rollups.  The rows of a kind behind the mark are read once and added up in memory
 * by step and key (what rollups have of their columns); the sums are appended to the
 * next kind's table, in one transaction with the mark.
 *
 * A key is the columns' values one after the other as big-endian numbers with the
 * sign turned over. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "store_sqlite_priv.h"

#define KEY_MAX (FLOW_COLUMNS_MAX * sizeof(struct in6_addr))
/* Sums of one transaction: about 20 MB of memory. */
enum { SUMS_MAX = 65536, SLOTS_MIN = 1024 };

struct sum {
    int64_t time_ms, packets, bytes, flows;
    uint64_t hash;
    uint8_t key[]; /* fold.key_size */
};

struct fold {
    uint64_t seed; /* strangers choose the keys: they shall not choose who collides */
    size_t key_size, sum_size;
    uint8_t *sums;
    size_t n, cap;
    uint32_t *slots; /* number of a sum + 1; 0: none */
    size_t n_slots;  /* a power of two, at least twice n */
};

static struct sum *
sum_at(const struct fold *f, size_t i)
{
    return (struct sum *)(f->sums + i * f->sum_size);
}

static void
fold_init(struct fold *f)
{
    *f = (struct fold){.key_size = 0};
    if (getrandom(&f->seed, sizeof f->seed, 0) < 0) {
        f->seed = (uint64_t)(uintptr_t)f;
    }
    for (unsigned c = 0; c < n_flow_columns; c++) {
        if (flow_columns[c].rollup) {
            f->key_size += flow_columns[c].kind == FLOW_COL_ADDRESS ? sizeof(struct in6_addr) : 8;
        }
    }
    f->sum_size = (sizeof(struct sum) + f->key_size + 7) / 8 * 8;
}

static void
fold_free(struct fold *f)
{
    free(f->sums);
    free(f->slots);
}

static bool
fold_grow(struct fold *f)
{
    size_t cap = f->cap ? f->cap * 2 : SLOTS_MIN / 2, n_slots = cap * 2;
    uint8_t *sums = realloc(f->sums, cap * f->sum_size);
    uint32_t *slots;

    if (!sums) {
        return false;
    }
    f->sums = sums;
    slots = calloc(n_slots, sizeof *slots);
    if (!slots) {
        return false;
    }
    for (size_t i = 0; i < f->n; i++) {
        size_t slot = sum_at(f, i)->hash & (n_slots - 1);
        while (slots[slot]) {
            slot = (slot + 1) & (n_slots - 1);
        }
        slots[slot] = (uint32_t)i + 1;
    }
    free(f->slots);
    f->slots = slots;
    f->n_slots = n_slots;
    f->cap = cap;
    return true;
}

/* The sum of that time and key, perhaps a new one.  NULL: no memory. */
static struct sum *
fold_get(struct fold *f, int64_t time_ms, const uint8_t *key)
{
    uint64_t h = XXH3_64bits_withSeed(key, f->key_size, f->seed ^ (uint64_t)time_ms);
    struct sum *s;
    size_t slot;

    if (f->n == f->cap && !fold_grow(f)) {
        return NULL;
    }
    for (slot = h & (f->n_slots - 1); f->slots[slot]; slot = (slot + 1) & (f->n_slots - 1)) {
        s = sum_at(f, f->slots[slot] - 1);
        if (s->hash == h && s->time_ms == time_ms && !memcmp(s->key, key, f->key_size)) {
            return s;
        }
    }
    s = sum_at(f, f->n++);
    *s = (struct sum){.time_ms = time_ms, .hash = h};
    memcpy(s->key, key, f->key_size);
    f->slots[slot] = (uint32_t)f->n;
    return s;
}

static int64_t
add(int64_t a, int64_t b)
{
    int64_t sum;

    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static int64_t
multiply(int64_t a, int64_t b)
{
    int64_t product;

    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

/* --- keys ------------------------------------------------------------------------- */

static void
key_put(uint8_t *to, int64_t v)
{
    uint64_t n = __builtin_bswap64((uint64_t)v ^ UINT64_C(1) << 63);

    memcpy(to, &n, sizeof n);
}

static int64_t
key_take(const uint8_t *from)
{
    uint64_t n;

    memcpy(&n, from, sizeof n);
    return (int64_t)(__builtin_bswap64(n) ^ UINT64_C(1) << 63);
}

/* Of the query's columns from 'index' on. */
static void
read_key(sqlite3_stmt *q, int index, uint8_t *key)
{
    for (unsigned c = 0; c < n_flow_columns; c++) {
        if (!flow_columns[c].rollup) {
            continue;
        }
        if (flow_columns[c].kind == FLOW_COL_ADDRESS) {
            struct flow_value v;
            store_sqlite_value(q, index, c, &v);
            memcpy(key, &v.address, sizeof v.address);
            key += sizeof v.address;
        } else {
            key_put(key, sqlite3_column_int64(q, index));
            key += sizeof(int64_t);
        }
        index++;
    }
}

/* --- reading ------------------------------------------------------------------------ */

/* Prepares the text of the memstream; frees it. */
static int
prepare(sqlite3 *db, FILE *f, char **sql, sqlite3_stmt **s, char *why, size_t size)
{
    int error = fclose(f) ? ENOMEM : 0;

    if (!error) {
        error = store_sqlite_error(db, sqlite3_prepare_v2(db, *sql, -1, s, NULL), why, size);
    }
    free(*sql);
    return error;
}

/* What one transaction reads: until 'left' rows are read, or there are SUMS_MAX keys. */
struct reading {
    struct fold fold;
    int64_t step_ms; /* by which it adds up */
    size_t left;
    int64_t last; /* the row that was read last */
};

static bool
is_full(const struct reading *r)
{
    return !r->left || r->fold.n == SUMS_MAX;
}

static int
read_row(struct reading *r, int64_t row, int64_t time_ms, const uint8_t *key, int64_t packets,
         int64_t bytes, int64_t sampling, int64_t flows)
{
    struct sum *s = fold_get(&r->fold, time_ms / r->step_ms * r->step_ms, key);

    if (!s) {
        return ENOMEM;
    }
    sampling = sampling > 1 ? sampling : 1;
    s->packets = add(s->packets, multiply(packets, sampling));
    s->bytes = add(s->bytes, multiply(bytes, sampling));
    s->flows = add(s->flows, flows ? flows : 1);
    r->left--;
    r->last = row;
    return 0;
}

/* Rows of raw_N behind 'mark'. */
static int
read_rows(sqlite3 *db, int64_t n, int64_t mark, struct reading *r, char *why, size_t size)
{
    enum { ROW, TIME, PACKETS, BYTES, SAMPLING, KEY };
    sqlite3_stmt *q = NULL;
    uint8_t key[KEY_MAX];
    char *sql = NULL;
    size_t length;
    FILE *f = open_memstream(&sql, &length);
    int code = SQLITE_DONE, error;

    if (!f) {
        return ENOMEM;
    }
    fprintf(f, "SELECT rowid, \"time\", packets, bytes, sampling, ");
    store_sqlite_columns(f, true, "");
    fprintf(f, " FROM raw_%lld WHERE rowid > %lld ORDER BY rowid", (long long)n, (long long)mark);
    error = prepare(db, f, &sql, &q, why, size);
    while (!error && !is_full(r) && (code = sqlite3_step(q)) == SQLITE_ROW) {
        read_key(q, KEY, key);
        error = read_row(r, sqlite3_column_int64(q, ROW), sqlite3_column_int64(q, TIME), key,
                         sqlite3_column_int64(q, PACKETS), sqlite3_column_int64(q, BYTES),
                         sqlite3_column_int64(q, SAMPLING), 1);
    }
    error = error ? error : store_sqlite_error(db, code, why, size);
    sqlite3_finalize(q);
    return error;
}

/* The keys of a block's rows, key_size bytes each; a column at a time. */
static void
block_keys(const struct fold *f, const struct flow_block *b, uint8_t *keys)
{
    for (unsigned c = 0; c < n_flow_columns; c++) {
        unsigned part = flow_block_of(c);
        bool address = flow_columns[c].kind == FLOW_COL_ADDRESS;

        if (!flow_columns[c].rollup) {
            continue;
        }
        for (unsigned half = 0; half < (address ? 2 : 1); half++, keys += sizeof(int64_t)) {
            /* key_put() turns the sign over; addresses are to stay as they are */
            uint64_t turn = address ? UINT64_C(1) << 63 : 0;
            uint8_t *to = keys;

            for (unsigned i = 0; i < b->n; i++, to += f->key_size) {
                key_put(to, (int64_t)((uint64_t)flow_block_number(b, part + half, i) ^ turn));
            }
        }
    }
}

static int
read_block(const struct store_blocks *blocks, unsigned from, uint8_t *keys, struct reading *r)
{
    static const char *const names[] = {"packets", "bytes", "sampling"};
    const struct flow_block *b = &blocks->block;
    unsigned parts[3];
    int error = 0;

    for (int i = 0; i < 3; i++) {
        parts[i] = flow_block_of(flow_column_find(names[i]));
    }
    block_keys(&r->fold, b, keys);
    for (unsigned i = from; i < b->n && !is_full(r) && !error; i++) {
        error = read_row(r, store_row_id(blocks->id, i), flow_block_time(b, i),
                         keys + i * r->fold.key_size, flow_block_number(b, parts[0], i),
                         flow_block_number(b, parts[1], i), flow_block_number(b, parts[2], i),
                         flow_block_number(b, FLOW_BLOCK_FLOWS, i));
    }
    return error;
}

/* Rows of the table's blocks behind 'mark'. */
static int
read_blocks(sqlite3 *db, const struct partition *p, int64_t mark, struct reading *r, char *why,
            size_t size)
{
    uint8_t *keys = malloc(FLOW_BLOCK_ROWS * r->fold.key_size);
    struct store_blocks b;
    int error = keys ? 0 : ENOMEM, code = SQLITE_DONE;

    b.s = NULL;
    if (!error) {
        error = store_blocks_open(&b, db, p, STORE_BY_ID, store_row_block(mark), INT64_MIN,
                                  INT64_MAX, why, size);
    }
    while (!error && !is_full(r) && (code = store_blocks_next(&b)) == SQLITE_ROW) {
        bool half_done = b.id == store_row_block(mark);

        error = read_block(&b, half_done ? store_row_index(mark) + 1 : 0, keys, r);
    }
    error = error ? error : store_sqlite_error(db, code, why, size);
    store_blocks_close(&b);
    free(keys);
    return error;
}

/* --- writing ------------------------------------------------------------------------- */

/* Sums from number 'at' on, at most a block of them; how many. */
static size_t
put_sums(const struct fold *f, size_t at, uint8_t *block, size_t *len, int64_t *oldest,
         int64_t *newest)
{
    size_t n = f->n - at < FLOW_BLOCK_ROWS ? f->n - at : FLOW_BLOCK_ROWS, offset = 0;
    int64_t v[FLOW_BLOCK_ROWS] = {0};
    struct flow_block_writer w;

    flow_block_begin(&w, n, block);
    *oldest = INT64_MAX;
    *newest = INT64_MIN;
    for (size_t i = 0; i < n; i++) {
        v[i] = sum_at(f, at + i)->time_ms;
        *oldest = v[i] < *oldest ? v[i] : *oldest;
        *newest = v[i] > *newest ? v[i] : *newest;
    }
    flow_block_put(&w, 0, v);
    for (unsigned c = 0; c < n_flow_columns; c++) {
        bool address = flow_columns[c].kind == FLOW_COL_ADDRESS;
        uint64_t turn = address ? UINT64_C(1) << 63 : 0; /* as in block_keys() */

        for (unsigned half = 0; flow_columns[c].rollup && half < (address ? 2 : 1); half++) {
            for (size_t i = 0; i < n; i++) {
                v[i] = (int64_t)((uint64_t)key_take(sum_at(f, at + i)->key + offset) ^ turn);
            }
            flow_block_put(&w, flow_block_of(c) + half, v);
            offset += sizeof(int64_t);
        }
    }
    for (size_t i = 0; i < n; i++) {
        v[i] = sum_at(f, at + i)->packets;
    }
    flow_block_put(&w, flow_block_of(flow_column_find("packets")), v);
    for (size_t i = 0; i < n; i++) {
        v[i] = sum_at(f, at + i)->bytes;
    }
    flow_block_put(&w, flow_block_of(flow_column_find("bytes")), v);
    for (size_t i = 0; i < n; i++) {
        v[i] = sum_at(f, at + i)->flows;
    }
    flow_block_put(&w, FLOW_BLOCK_FLOWS, v);
    *len = flow_block_end(&w);
    return n;
}

/* All sums into the partition. */
static int
write_sums(struct store_sqlite *s, unsigned kind, int64_t n, const struct fold *from, char *why,
           size_t size)
{
    sqlite3_stmt *insert = NULL;
    int error = store_blocks_prepare(s->db, kind, n, &insert, why, size);

    for (size_t i = 0, rows; i < from->n && !error; i += rows) {
        int64_t oldest, newest;
        size_t len;

        rows = put_sums(from, i, s->block, &len, &oldest, &newest);
        error = store_blocks_insert(insert, rows, oldest, newest, s->block, len, why, size);
    }
    sqlite3_finalize(insert);
    return error;
}

/* Into the next kind, whose span is a multiple of this one's: one table of it. */
static int
roll_table(struct store_sqlite *s, const struct partition *p, int64_t mark, struct reading *r,
           char *why, size_t size)
{
    const struct kind *from = &store_sqlite_kinds[p->kind], *to = from + 1;
    bool rows = false;
    int error = 0;

    if (p->kind == 0 && mark < STORE_BLOCKS) {
        error = store_sqlite_has(s->db, from->rows, p->n, &rows, why, size);
    }
    if (!error && rows) {
        error = read_rows(s->db, p->n, mark, r, why, size);
    }
    error = error ? error : read_blocks(s->db, p, mark, r, why, size);
    if (!error && r->last == mark) {
        snprintf(why, size, "a table's rows are not those that it says it has");
        error = EBADMSG;
    }
    return error ? error
                 : write_sums(s, p->kind + 1, p->n * from->span_ms / to->span_ms, &r->fold, why,
                              size);
}

int
store_sqlite_roll_rows(struct store_sqlite *s, const struct partition *p, int64_t mark, size_t max,
                       int64_t *last, char *why, size_t size)
{
    struct reading r = {.step_ms = store_sqlite_kinds[p->kind + 1].step_s * INT64_C(1000),
                        .left = max,
                        .last = mark};
    char sql[100];
    int error;

    snprintf(why, size, "out of memory");
    error = store_sqlite_exec(s->db, "BEGIN IMMEDIATE", why, size);
    if (error) {
        return error;
    }
    fold_init(&r.fold);
    error = roll_table(s, p, mark, &r, why, size);
    fold_free(&r.fold);
    if (!error) {
        snprintf(sql, sizeof sql, "INSERT OR REPLACE INTO %s VALUES (%lld, %lld)",
                 store_sqlite_kinds[p->kind].rolled, (long long)p->n, (long long)r.last);
        error = store_sqlite_exec(s->db, sql, why, size);
    }
    error = store_sqlite_finish(s, error, why, size);
    *last = error ? mark : r.last;
    return error;
}

/* Of all tables, not of one. */
static bool
is_general(int error)
{
    return error == ENOSPC || error == ENOMEM;
}

/* Each table of the kind, until there is one with more than that.  What is wrong with
 * one does not keep the others from it; the first error is told. */
static int
roll_kind(struct store_sqlite *s, unsigned kind, size_t max, bool *more, char *why, size_t size)
{
    struct partition *p;
    size_t n;
    int64_t mark, last, to;
    int error = store_sqlite_partitions(s->db, kind, &p, &n, why, size), failed = 0;
    char text[200];

    for (size_t i = 0; i < n && !*more && !is_general(failed); i++) {
        failed = store_sqlite_tail(s->db, &p[i], &mark, &last, text, sizeof text);
        if (!failed && mark < last) {
            failed = store_sqlite_roll_rows(s, &p[i], mark, max, &to, text, sizeof text);
            *more = !failed && to < last;
        }
        if (failed && !error) {
            error = failed;
            snprintf(why, size, "%s", text);
        }
    }
    free(p);
    return error;
}

/* Sums are added up when their time has passed: seldom, each in few pieces. */
int
store_sqlite_roll(struct store *up, size_t max, bool *more, char *why, size_t size)
{
    struct store_sqlite *s = (struct store_sqlite *)up;
    struct timespec now;
    int error = 0, failed = 0;
    char text[200];

    clock_gettime(CLOCK_MONOTONIC, &now);
    *more = false;
    for (unsigned k = 0; store_sqlite_kinds[k].rolled && !*more && !is_general(failed); k++) {
        int64_t ms = now.tv_sec * INT64_C(1000) + 1,
                due = s->rolled_ms[k] + store_sqlite_kinds[k + 1].step_s * INT64_C(1000);

        if (k == 0 || !s->rolled_ms[k] || ms >= due) {
            failed = roll_kind(s, k, max, more, text, sizeof text);
            s->rolled_ms[k] = failed || *more ? 0 : ms;
        }
        if (failed && !error) {
            error = failed;
            snprintf(why, size, "%s", text);
        }
    }
    return error;
}
