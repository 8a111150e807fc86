/* store_sqlite_priv: what the files of the SQLite store share.
 *
 * One database file in WAL mode.  A table for each kind and span of time, raw
 * rows and sums by minute, 5 minutes and hour: blocks_N, s60_N, s300_N, s3600_N,
 * where N is the time divided by the kind's span; to forget is to drop a table.
 * Each has blocks of up to FLOW_BLOCK_ROWS rows (flow_block.h), which are written
 * once and stay.
 *
 * Version 1 of the file had a table row for each: raw_N with an index on its time,
 * r60_N, r300_N, r3600_N with a primary key.  Version 2 had raw rows in blocks, 3 the
 * sums, too, and all without checks.  What is left of those is read, and goes with
 * its time. */
#ifndef STORE_SQLITE_PRIV_H
#define STORE_SQLITE_PRIV_H

#include <sqlite3.h>
#include <stdio.h>

#include "flow_block.h"
#include "store.h"

#define STORE_HOUR_MS INT64_C(3600000) /* span of a raw table */

/* A row's number in its table: in raw_N the rowid, then those of the blocks. */
#define STORE_BLOCKS (INT64_C(1) << 40)
#define STORE_BLOCK_IDS (INT64_C(1) << 46) /* a block's is less */
static inline int64_t
store_row_id(int64_t block, unsigned i)
{
    return STORE_BLOCKS + (block << 16) + i;
}
static inline int64_t
store_row_block(int64_t row) /* 0: it is of raw_N */
{
    return row < STORE_BLOCKS ? 0 : (row - STORE_BLOCKS) >> 16;
}
static inline unsigned
store_row_index(int64_t row)
{
    return (unsigned)(row & 0xffff);
}

enum { N_KINDS = 4 };
struct kind {
    const char *name;   /* of tables of blocks */
    const char *rows;   /* of tables of version 1 */
    const char *rolled; /* which has how far it is rolled up */
    unsigned step_s;    /* 0: raw rows */
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
    sqlite3_stmt *insert; /* into blocks_N, N = 'insert_into'; or NULL */
    int64_t insert_into;
    uint8_t *block;             /* FLOW_BLOCK_BYTES: the one that is being written */
    int64_t rolled_ms[N_KINDS]; /* when rows of the kind were rolled up last */
};

struct partition {
    unsigned kind;
    int64_t n;
};

int store_sqlite_error(sqlite3 *, int code, char *why, size_t size);
int store_sqlite_exec(sqlite3 *, const char *sql, char *why, size_t size);
/* Of a transaction: commits, or takes back what it did if there is an error. */
int store_sqlite_finish(struct store_sqlite *, int error, char *why, size_t size);
/* Of the kind (or N_KINDS: all), oldest first, of either version; free() them. */
int store_sqlite_partitions(sqlite3 *, unsigned kind, struct partition **, size_t *n, char *why,
                            size_t size);
int store_sqlite_has(sqlite3 *, const char *table, int64_t n, bool *has, char *why, size_t size);
/* The number that the query gives; 0 if it has no row.  What could not be read is no 0: rows
 * would be added up again, or go before they are. */
int store_sqlite_number(sqlite3 *, const char *sql, int64_t *, char *why, size_t size);
/* "a", "b" ...: the columns' names, quoted; of rollups those they have. */
void store_sqlite_columns(FILE *, bool rollup, const char *before);
void store_sqlite_bind(sqlite3_stmt *, int index, unsigned column, const struct flow_value *);
void store_sqlite_value(sqlite3_stmt *, int index, unsigned column, struct flow_value *);

/* Blocks (store_sqlite_blocks.c). */
int store_sqlite_put(struct store *, const struct flow_row *, size_t n, char *why, size_t size);
int store_sqlite_check(struct store *, char *why, size_t size);
/* Forgets which table rows went to. */
void store_sqlite_put_anew(struct store_sqlite *);
/* An INSERT into the table, which is made; sqlite3_finalize() is the caller's. */
int store_blocks_prepare(sqlite3 *, unsigned kind, int64_t n, sqlite3_stmt **, char *why,
                         size_t size);
int store_blocks_insert(sqlite3_stmt *, size_t rows, int64_t oldest_ms, int64_t newest_ms,
                        const uint8_t *block, size_t len, char *why, size_t size);
/* The rows of the table that the next kind does not have: those behind 'mark' to 'last';
 * none if it is not behind it. */
int store_sqlite_tail(sqlite3 *, const struct partition *, int64_t *mark, int64_t *last, char *why,
                      size_t size);

/* Blocks of a table that may have rows of from <= time < to. */
enum store_order { STORE_BY_ID, STORE_NEWEST_FIRST };
struct store_blocks {
    sqlite3_stmt *s;
    int64_t id, newest_ms; /* of the one that is open */
    struct flow_block block;
};
/* From block 'first' on.  Closed by store_blocks_close() only, also if it fails. */
int store_blocks_open(struct store_blocks *, sqlite3 *, const struct partition *, enum store_order,
                      int64_t first, int64_t from_ms, int64_t to_ms, char *why, size_t size);
/* SQLITE_ROW: the next one, until the next call; SQLITE_DONE; or what went wrong. */
int store_blocks_next(struct store_blocks *);
void store_blocks_close(struct store_blocks *);

/* All rows of some tables' blocks as a table "flow_blocks": "time", the columns,
 * "flows". */
struct store_scan {
    sqlite3 *db;
    int64_t from_ms, to_ms;
    struct store_scan_table {
        struct partition of;
        int64_t mark; /* rows behind it */
    } * tables;
    size_t n;
};
/* The scan is the caller's, and stays until the database is closed. */
int store_scan_module(sqlite3 *, struct store_scan *, char *why, size_t size);

/* Rollups (store_sqlite_roll.c): at most 'max' rows of the table behind 'mark', to
 * '*last', into the next kind. */
int store_sqlite_roll_rows(struct store_sqlite *, const struct partition *, int64_t mark,
                           size_t max, int64_t *last, char *why, size_t size);
int store_sqlite_roll(struct store *, size_t max, bool *more, char *why, size_t size);

int store_sqlite_list(struct store *, const struct store_query *,
                      void (*)(void *, const struct flow_row *, int64_t), void *, char *, size_t);
int store_sqlite_sum(struct store *, const struct store_query *, struct store_source *,
                     void (*)(void *, const struct store_sum *), void *, char *, size_t);

#endif
