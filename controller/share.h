/* share: which of the pool's controllers leads which host.
 *
 * Each controller has a row Controller whose 'lease' it changes a few times per
 * lease; one whose number stands still for one and a half leases, by the
 * watcher's own monotonic clock, counts as gone.  The hosts are divided among
 * the others: each host goes to the controller that ranks highest for it by a
 * hash of both names and has room (hosts / controllers, rounded up).  Everybody
 * who sees the same controllers arrives at the same division, and one that
 * comes or goes moves few hosts.
 *
 * That says who should lead a host.  Who does stands in the row Host:
 * 'controller' and 'controller_epoch', changed by compare-and-swap, one more
 * each time.  The epoch is the OpenFlow generation id, so a host's switch obeys
 * the newest whatever the division of others; see leader.h, whose lead is about
 * what is the pool's.
 *
 * Threads: the daemon's main loop.  Owns a connection to the database. */
#ifndef CTL_SHARE_H
#define CTL_SHARE_H

#include <stdint.h>

struct ds;
struct share;
struct uuid;

struct share *share_create(const char *database, const char *id);
/* Leaves the lease to run out. */
void share_destroy(struct share *);

void share_run(struct share *);
void share_wait(struct share *);

/* With which epoch we lead the host of this row; 0: we do not. */
uint64_t share_epoch(const struct share *, const struct uuid *host);
/* Its switch obeys a newer epoch: we do not lead it, whatever the database said. */
void share_deposed(struct share *, const struct uuid *host);
void share_format(const struct share *, struct ds *);

#endif
