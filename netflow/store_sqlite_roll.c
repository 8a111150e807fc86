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

/* Rows from behind 'mark' to '*last', by minute; '*last' gets less if they are of
 * too many keys. */
static int
read_rows(sqlite3 *db, int64_t n, int64_t mark, int64_t *last, struct fold *to, char *why,
          size_t size)
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
    fprintf(f, " FROM raw_%lld WHERE rowid > %lld AND rowid <= %lld ORDER BY rowid", (long long)n,
            (long long)mark, (long long)*last);
    error = prepare(db, f, &sql, &q, why, size);
    while (!error && (code = sqlite3_step(q)) == SQLITE_ROW) {
        int64_t sampling = sqlite3_column_int64(q, SAMPLING);
        struct sum *s;

        if (to->n == SUMS_MAX) {
            *last = sqlite3_column_int64(q, ROW) - 1;
            code = SQLITE_DONE;
            break;
        }
        read_key(q, KEY, key);
        s = fold_get(to, sqlite3_column_int64(q, TIME) / 60000 * 60000, key);
        if (!s) {
            error = ENOMEM;
            break;
        }
        sampling = sampling > 1 ? sampling : 1;
        s->packets = add(s->packets, multiply(sqlite3_column_int64(q, PACKETS), sampling));
        s->bytes = add(s->bytes, multiply(sqlite3_column_int64(q, BYTES), sampling));
        s->flows++;
    }
    error = error ? error : store_sqlite_error(db, code, why, size);
    sqlite3_finalize(q);
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
    int error = sorted ? store_sqlite_create_partition(db, k, to, why, size) : ENOMEM;

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

/* Of raw table 'n' into all rollups; their spans are multiples of an hour, so that
 * it is of one partition of each. */
static int
roll_kinds(sqlite3 *db, int64_t n, int64_t mark, int64_t *last, char *why, size_t size)
{
    struct fold fold;
    int error;

    fold_init(&fold);
    error = read_rows(db, n, mark, last, &fold, why, size);
    for (unsigned k = 1; k < N_KINDS && !error; k++) {
        const struct kind *kind = &store_sqlite_kinds[k];

        if (k > 1) {
            struct fold longer;
            error = fold_again(&fold, kind->step_s * INT64_C(1000), &longer);
            fold_free(&fold);
            fold = longer;
        }
        if (!error) {
            error = write_sums(db, k, n * STORE_HOUR_MS / kind->span_ms, &fold, why, size);
        }
    }
    fold_free(&fold);
    return error;
}

int
store_sqlite_roll_rows(struct store_sqlite *s, int64_t n, int64_t mark, int64_t *last, char *why,
                       size_t size)
{
    char sql[100];
    int error;

    snprintf(why, size, "out of memory");
    error = store_sqlite_exec(s->db, "BEGIN IMMEDIATE", why, size);
    if (error) {
        return error;
    }
    error = roll_kinds(s->db, n, mark, last, why, size);
    if (!error) {
        snprintf(sql, sizeof sql, "INSERT OR REPLACE INTO rolled VALUES (%lld, %lld)", (long long)n,
                 (long long)*last);
        error = store_sqlite_exec(s->db, sql, why, size);
    }
    return store_sqlite_finish(s, error, why, size);
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
            int64_t to = last - mark > (int64_t)max ? mark + (int64_t)max : last;

            error = store_sqlite_roll_rows(s, p[i].n, mark, &to, why, size);
            *more = to < last;
        }
    }
    free(p);
    return error;
}
