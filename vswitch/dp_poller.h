/* dp_poller: one thread that receives from ports which are not vifs.
 *
 * Threads: all functions on the main thread; those that change what the thread
 * does return when it has taken that over. */
#ifndef DP_POLLER_H
#define DP_POLLER_H

#include <limits.h>

struct dp;
struct dp_port;
struct poller;

/* As 'core': the waiting thread, on any CPU. */
#define POLLER_WAITS UINT_MAX

struct poller *poller_create(struct dp *, unsigned core);
void poller_destroy(struct poller *); /* accepts NULL */

/* Receives from the port's queue number 'rxq', too. */
void poller_give_rxq(struct poller *, struct dp_port *, unsigned rxq);
/* Becomes the port's owner. */
void poller_give_port(struct poller *, struct dp_port *);
/* Has nothing to do with the port any more.  Its owner is NULL already. */
void poller_take_away(struct poller *, const struct dp_port *);
/* How long packets may wait so that several come at once. */
void poller_set_max_nap(struct poller *, unsigned us);
/* How many queues and ports it has to look after. */
unsigned poller_load(const struct poller *);

#endif
