/* leader: which of the pool's controllers does what is the pool's rather than a
 * host's: keys, zones, status of everything but hosts, warnings.
 *
 * Leadership is the row Pool in the pool database: holder, epoch, and a lease
 * that the holder renews.  It changes hands by compare-and-swap: whoever has
 * seen the lease stand still for one and a half times its length, by its own
 * monotonic clock, writes its name and the next epoch on condition that nobody
 * did so before.  Wall clocks play no part.
 *
 * Nothing is wrong while two believe to lead: what they write is conditional in
 * itself.  Who leads which host is share.h's.
 *
 * Threads: the daemon's main loop.  Owns a connection to the database of its
 * own, so that renewals wait for nothing else. */
#ifndef CTL_LEADER_H
#define CTL_LEADER_H

#include <stdint.h>

struct ds;
struct leader;

/* 'id' tells this controller from others; one that is started again under the
 * same id takes its leadership back without waiting for the lease to end. */
struct leader *leader_create(const char *database, const char *id);
/* Leaves the lease to run out. */
void leader_destroy(struct leader *);

void leader_run(struct leader *);
void leader_wait(struct leader *);

/* 0: somebody else leads, or nobody yet. */
uint64_t leader_epoch(const struct leader *);
void leader_format(const struct leader *, struct ds *);

#endif
