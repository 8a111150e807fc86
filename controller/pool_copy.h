/* pool_copy: the copy of a pool database that another server keeps.
 *
 * A copy follows a little behind.  So that no change that was acknowledged is
 * lost when it is promoted, a change is acknowledged only once the copy has it;
 * and since a promoted copy follows nobody, none is acknowledged any more by
 * way of the database that it replaced.
 *
 * Threads: the daemon's main loop; nothing blocks.  Owns its connection. */
#ifndef CTL_POOL_COPY_H
#define CTL_POOL_COPY_H

#include <stdbool.h>
#include <stdint.h>

struct pool_copy;

struct pool_copy *pool_copy_create(void);
void pool_copy_destroy(struct pool_copy *);

/* "": there is none. */
void pool_copy_set(struct pool_copy *, const char *target);
void pool_copy_run(struct pool_copy *);
void pool_copy_wait(struct pool_copy *);

/* The copy of the database that counts has this generation, with this deadline
 * of what is pending, or a later one.  True if there is no copy. */
bool pool_copy_has(const struct pool_copy *, int64_t generation, int64_t deadline);

#endif
