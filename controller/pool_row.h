/* pool_row: records from rows of the pool database, and back.
 *
 * By the table that describes the kinds, not by the generated structs.  Threads:
 * one.  Needs no state but a map of columns, made once. */
#ifndef POOL_ROW_H
#define POOL_ROW_H

#include "pool-idl.h"
#include "record.h"

struct uuid;

const struct ovsdb_idl_table_class *pool_row_table(enum rec_kind);
const struct ovsdb_idl_row *pool_row_find(struct ovsdb_idl *, enum rec_kind, const struct uuid *);
/* Has the columns of stated fields, keys and zones tracked, and those of status
 * not wake anybody. */
void pool_row_monitor(struct ovsdb_idl *);

/* Everything stated, key and zone.  References are uuids. */
void pool_row_read(const struct ovsdb_idl_row *, enum rec_kind, struct rec *);
/* Writes what differs from 'before' (NULL: everything), in the open transaction. */
void pool_row_write(const struct ovsdb_idl_row *, const struct rec *before,
                    const struct rec *after);

/* Status columns, by name; a write of the same does nothing. */
const char *pool_row_get_string(const struct ovsdb_idl_row *, enum rec_kind, const char *column);
int64_t pool_row_get_int(const struct ovsdb_idl_row *, enum rec_kind, const char *column);
/* A set's members, or a map's as "KEY=VALUE"; all of it the caller's. */
char **pool_row_get_list(const struct ovsdb_idl_row *, enum rec_kind, const char *column,
                         size_t *n);
void pool_row_set_string(const struct ovsdb_idl_row *, enum rec_kind, const char *column,
                         const char *);
void pool_row_set_int(const struct ovsdb_idl_row *, enum rec_kind, const char *column, int64_t);
/* A member of a set of strings comes or goes, whatever others write of the set. */
void pool_row_set_member(const struct ovsdb_idl_row *, enum rec_kind, const char *column,
                         const char *member, bool there);
void pool_row_verify(const struct ovsdb_idl_row *, enum rec_kind, const char *column);
const struct ovsdb_idl_column *pool_row_column(enum rec_kind, const char *column);
/* The database's schema has the column; one from before it reads as its default, and a
 * transaction that writes it is refused. */
bool pool_row_has(const struct ovsdb_idl *, enum rec_kind, const char *column);

#endif
