/* store_sqlite_priv: what the files of the SQLite store share.
 *
 * One database file in WAL mode.  A table for each kind and span of time:
 * raw_N, r60_N, r300_N, r3600_N, where N is the time divided by the kind's span;
 * to forget is to drop a table. */
#ifndef STORE_SQLITE_PRIV_H
#define STORE_SQLITE_PRIV_H

#include <sqlite3.h>
#include <stdio.h>

#include "store.h"

#define STORE_HOUR_MS INT64_C(3600000) /* span of a raw table */
enum { N_KINDS = 4 };
struct kind {
    const char *name;
    unsigned step_s; /* 0: raw rows */
    int64_t span_ms;
};
extern const struct kind store_sqlite_kinds[N_KINDS];

struct store_sqlite {
    struct store up;
    sqlite3 *db; /* the writer's */
    int lock;    /* of the file beside it: ids of names are one process's to give */
    char *path;
    int64_t keep_ms[N_KINDS];
    uint64_t max_bytes;
    sqlite3_stmt *insert; /* into raw_N, N = 'insert_into'; or NULL */
    int64_t insert_into;
    struct flow_row bound; /* the last row that 'insert' had */
    bool binds;            /* there was one */
};

struct partition {
    unsigned kind;
    int64_t n;
};
enum { PARTITIONS_MAX = 4096 };

int store_sqlite_error(sqlite3 *, int code, char *why, size_t size);
int store_sqlite_exec(sqlite3 *, const char *sql, char *why, size_t size);
/* Of a transaction: commits, or takes back what it did if there is an error. */
int store_sqlite_finish(struct store_sqlite *, int error, char *why, size_t size);
int store_sqlite_create_partition(sqlite3 *, unsigned kind, int64_t n, char *why, size_t size);
/* Of the kind (or N_KINDS: all), oldest first; how many. */
size_t store_sqlite_partitions(sqlite3 *, unsigned kind, struct partition *, size_t max);
/* Whether the raw table 'n' has rows that the rollups do not have: those behind
 * 'mark' to 'last'. */
bool store_sqlite_tail(sqlite3 *, int64_t n, int64_t *mark, int64_t *last);
/* "a", "b" ...: the columns' names, quoted; of rollups those they have. */
void store_sqlite_columns(FILE *, bool rollup, const char *before);
void store_sqlite_bind(sqlite3_stmt *, int index, unsigned column, const struct flow_value *);
void store_sqlite_value(sqlite3_stmt *, int index, unsigned column, struct flow_value *);

/* Rollups (store_sqlite_roll.c): rows of raw_N behind 'mark', to '*last' or less,
 * which is said. */
int store_sqlite_roll_rows(struct store_sqlite *, int64_t n, int64_t mark, int64_t *last, char *why,
                           size_t size);
int store_sqlite_roll(struct store *, size_t max, bool *more, char *why, size_t size);

int store_sqlite_list(struct store *, const struct store_query *,
                      void (*)(void *, const struct flow_row *, int64_t), void *, char *, size_t);
int store_sqlite_sum(struct store *, const struct store_query *, struct store_source *,
                     void (*)(void *, const struct store_sum *), void *, char *, size_t);

#endif
