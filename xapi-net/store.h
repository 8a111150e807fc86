/* store: weft-xapid's replica of the pool's database, and its writes.
 *
 * The replica lags behind: what was read may have changed.  So every write is a
 * transaction that names what it was computed from (verify) and is judged by the
 * database; one that is overtaken ends with STORE_CONFLICT.  The same is said
 * when the connection broke and nobody knows: whoever wrote looks again at what
 * stands there.
 *
 * Threads: the daemon's main loop.  Nothing blocks. */
#ifndef XAPI_STORE_H
#define XAPI_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "pool-idl.h"
#include "uuid.h"

struct store;
struct ovsdb_idl_txn;

enum store_result { STORE_DONE, STORE_CONFLICT, STORE_FAILED };
/* 'why' says what went wrong, or is empty. */
typedef void store_done(enum store_result, const char *why, void *aux);

struct store *store_open(const char *remotes);
void store_close(struct store *);
/* Ends transactions, which calls their 'done'. */
void store_run(struct store *);
void store_wait(struct store *);

/* The replica shows the database as it was once; it may be out of reach now. */
bool store_ready(const struct store *);
/* It can be written: connected, and no other server has taken over from it. */
bool store_writable(const struct store *);
struct ovsdb_idl *store_idl(struct store *);
/* Changes when the replica does. */
unsigned store_seqno(const struct store *);

/* NULL: not writable.  Between the two calls nothing else is done with the store. */
struct ovsdb_idl_txn *store_begin(struct store *);
/* 'done' (or NULL) is called from a later store_run(). */
void store_commit(struct store *, struct ovsdb_idl_txn *, store_done *done, void *aux);

/* NULL if there is none. */
const struct poolrec_host *store_host(struct store *, const char *name);
const struct poolrec_vm *store_vm(struct store *, const char *uuid);
const struct poolrec_task *store_task(struct store *, const char *uuid);
const struct poolrec_migration *store_migration(struct store *, const char *migration);
const struct poolrec_pool *store_pool(struct store *);

/* "8a2f..." of a row, in one of a few static buffers. */
const char *store_uuid(const struct uuid *);

#endif
