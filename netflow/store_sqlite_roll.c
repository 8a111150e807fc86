/* Rollups.  The raw rows behind the mark are read once and added up in memory by
 * minute and key (what rollups have of their columns); those sums once more by 5
 * minutes, and by hour; and each goes to its table in the order of the table's own
 * key, in one transaction with the mark.
 *
 * A key is the columns' values one after the other as big-endian numbers with the
 * sign turned over, so that memcmp() orders keys as the table does. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

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

static void
bind_key(sqlite3_stmt *s, int index, const uint8_t *key)
{
    for (unsigned c = 0; c < n_flow_columns; c++) {
        if (!flow_columns[c].rollup) {
            continue;
        }
        if (flow_columns[c].kind == FLOW_COL_ADDRESS) {
            sqlite3_bind_blob(s, index, key, sizeof(struct in6_addr), SQLITE_STATIC);
            key += sizeof(struct in6_addr);
        } else {
            sqlite3_bind_int64(s, index, key_take(key));
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
    struct fold fold; /* by minute */
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
         int64_t bytes, int64_t sampling)
{
    struct sum *s = fold_get(&r->fold, time_ms / 60000 * 60000, key);

    if (!s) {
        return ENOMEM;
    }
    sampling = sampling > 1 ? sampling : 1;
    s->packets = add(s->packets, multiply(packets, sampling));
    s->bytes = add(s->bytes, multiply(bytes, sampling));
    s->flows++;
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
                         sqlite3_column_int64(q, SAMPLING));
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
                         flow_block_number(b, parts[1], i), flow_block_number(b, parts[2], i));
    }
    return error;
}

/* Rows of blocks_N behind 'mark'. */
static int
read_blocks(sqlite3 *db, int64_t n, int64_t mark, struct reading *r, char *why, size_t size)
{
    uint8_t *keys = malloc(FLOW_BLOCK_ROWS * r->fold.key_size);
    struct store_blocks b;
    int error = keys ? 0 : ENOMEM, code = SQLITE_DONE;

    b.s = NULL;
    if (!error) {
        error = store_blocks_open(&b, db, n, STORE_BY_ID, store_row_block(mark), INT64_MIN,
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

static int
compare(const void *a, const void *b, void *fold)
{
    const struct sum *x = *(struct sum *const *)a, *y = *(struct sum *const *)b;

    if (x->time_ms != y->time_ms) {
        return x->time_ms < y->time_ms ? -1 : 1;
    }
    return memcmp(x->key, y->key, ((const struct fold *)fold)->key_size);
}

static int
prepare_upsert(sqlite3 *db, unsigned k, int64_t to, sqlite3_stmt **s, char *why, size_t size)
{
    char *sql = NULL;
    size_t length;
    FILE *f = open_memstream(&sql, &length);

    if (!f) {
        return ENOMEM;
    }
    fprintf(f, "INSERT INTO %s_%lld VALUES (?4", store_sqlite_kinds[k].name, (long long)to);
    for (unsigned c = 0, i = 5; c < n_flow_columns; c++) {
        if (flow_columns[c].rollup) {
            fprintf(f, ",?%u", i++);
        }
    }
    fprintf(f, ",?1,?2,?3) ON CONFLICT DO UPDATE SET packets = packets + ?1, bytes = bytes + ?2, "
               "flows = flows + ?3");
    return prepare(db, f, &sql, s, why, size);
}

/* All sums into the partition 'to'. */
static int
write_sums(sqlite3 *db, unsigned k, int64_t to, struct fold *from, char *why, size_t size)
{
    struct sum **sorted = calloc(from->n + 1, sizeof *sorted);
    sqlite3_stmt *s = NULL;
    int error = sorted ? store_sqlite_create_rollup(db, k, to, why, size) : ENOMEM;

    error = error ? error : prepare_upsert(db, k, to, &s, why, size);
    for (size_t i = 0; i < from->n && !error; i++) {
        sorted[i] = sum_at(from, i);
    }
    if (!error) {
        qsort_r(sorted, from->n, sizeof *sorted, compare, from);
    }
    for (size_t i = 0; i < from->n && !error; i++) {
        sqlite3_bind_int64(s, 1, sorted[i]->packets);
        sqlite3_bind_int64(s, 2, sorted[i]->bytes);
        sqlite3_bind_int64(s, 3, sorted[i]->flows);
        sqlite3_bind_int64(s, 4, sorted[i]->time_ms);
        bind_key(s, 5, sorted[i]->key);
        error = store_sqlite_error(db, sqlite3_step(s), why, size);
        sqlite3_reset(s);
    }
    sqlite3_finalize(s);
    free(sorted);
    return error;
}

/* The sums of 'from' by a longer step. */
static int
fold_again(const struct fold *from, int64_t step_ms, struct fold *to)
{
    fold_init(to);
    for (size_t i = 0; i < from->n; i++) {
        const struct sum *s = sum_at(from, i);
        struct sum *t = fold_get(to, s->time_ms / step_ms * step_ms, s->key);

        if (!t) {
            return ENOMEM;
        }
        t->packets = add(t->packets, s->packets);
        t->bytes = add(t->bytes, s->bytes);
        t->flows += s->flows;
    }
    return 0;
}

/* Of hour 'n' into all rollups; their spans are multiples of an hour, so that
 * it is of one partition of each. */
static int
roll_kinds(sqlite3 *db, int64_t n, int64_t mark, struct reading *r, char *why, size_t size)
{
    int error = 0;

    if (mark < STORE_BLOCKS && store_sqlite_has(db, "raw", n)) {
        error = read_rows(db, n, mark, r, why, size);
    }
    error = error ? error : read_blocks(db, n, mark, r, why, size);
    for (unsigned k = 1; k < N_KINDS && !error; k++) {
        const struct kind *kind = &store_sqlite_kinds[k];

        if (k > 1) {
            struct fold longer;
            error = fold_again(&r->fold, kind->step_s * INT64_C(1000), &longer);
            fold_free(&r->fold);
            r->fold = longer;
        }
        if (!error) {
            error = write_sums(db, k, n * STORE_HOUR_MS / kind->span_ms, &r->fold, why, size);
        }
    }
    return error;
}

int
store_sqlite_roll_rows(struct store_sqlite *s, int64_t n, int64_t mark, size_t max, int64_t *last,
                       char *why, size_t size)
{
    struct reading r = {.left = max, .last = mark};
    char sql[100];
    int error;

    snprintf(why, size, "out of memory");
    error = store_sqlite_exec(s->db, "BEGIN IMMEDIATE", why, size);
    if (error) {
        return error;
    }
    fold_init(&r.fold);
    error = roll_kinds(s->db, n, mark, &r, why, size);
    fold_free(&r.fold);
    if (!error && r.last == mark) {
        snprintf(why, size, "the rows of an hour are not those that it says it has");
        error = EIO;
    }
    if (!error) {
        snprintf(sql, sizeof sql, "INSERT OR REPLACE INTO rolled VALUES (%lld, %lld)", (long long)n,
                 (long long)r.last);
        error = store_sqlite_exec(s->db, sql, why, size);
    }
    error = store_sqlite_finish(s, error, why, size);
    *last = error ? mark : r.last;
    return error;
}

int
store_sqlite_roll(struct store *up, size_t max, bool *more, char *why, size_t size)
{
    struct store_sqlite *s = (struct store_sqlite *)up;
    struct partition *p = calloc(PARTITIONS_MAX, sizeof *p);
    size_t n = p ? store_sqlite_partitions(s->db, 0, p, PARTITIONS_MAX) : 0;
    int64_t mark, last;
    int error = 0;

    *more = false;
    for (size_t i = 0; i < n && !error && !*more; i++) {
        if (store_sqlite_tail(s->db, p[i].n, &mark, &last)) {
            int64_t to;

            error = store_sqlite_roll_rows(s, p[i].n, mark, max, &to, why, size);
            *more = to < last;
        }
    }
    free(p);
    return error;
}
