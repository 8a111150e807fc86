/* keep: frames for a guest that is on its way to or from another host.
 *
 * Theory of operation
 * -------------------
 * A vif that keeps has no connected queues as far as producers see
 * (n_connected is 0), so the fast path has nothing to ask: what finds no queue
 * looks here (vif_keep_burst()).
 *
 *   OFF      as if this file were not there
 *   WAITING  the guest is not there yet (destination); its connecting ends it
 *   HELD     the guest is connected and paused (source): its queues' threads touch
 *            no ring; a release or another connection ends it
 *
 * What was in the queues when the hold began, or was pushed there by a producer
 * that had not seen it, and what was handed in by netback_feed(), is 'first';
 * what came by netback_tx_burst() is 'rest' and is delivered, or taken, after it.
 * So a flow's packets stay in order: its producer pushes to a queue before it
 * sees the hold, and here after it.
 *
 * When the state ends, the frames go to the queues' inboxes before n_connected
 * says that there are any.
 *
 * Threads: producers and takers any, under 'lock', which nobody holds for longer
 * than a burst's list work; changes of state on the xenbus thread.
 * Ownership: kept frames are the vif's. */
#ifndef KEEP_H
#define KEEP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct netback_vif;
struct queue;
struct rte_mbuf;

enum keep_state { KEEP_OFF, KEEP_WAITING, KEEP_HELD };

struct keep_list {
    struct rte_mbuf *head, *tail; /* linked by inbox_next(); 'tail' holds if 'head' does */
};

struct vif_keep {
    _Atomic int state; /* enum keep_state; written under 'lock' */
    int fd;            /* eventfd, readable when there is something to take; -1: none */
    pthread_mutex_t lock;
    struct keep_list first, rest;       /* under lock, and all below */
    size_t bytes, bytes_max;            /* buffer memory */
    uint64_t kept, fed, taken, dropped; /* frames since the state began */
    uint64_t held_ns;
    _Atomic unsigned n_held; /* queues on hold */
};

void vif_keep_init(struct netback_vif *);
void vif_keep_done(struct netback_vif *);

/* For a producer that found no connected queue.  Returns how many there are after
 * all; 0 if it consumed the packets. */
unsigned vif_keep_burst(struct netback_vif *, struct rte_mbuf **, unsigned n);
/* A frame that waited in a queue on hold. */
void vif_keep_first(struct netback_vif *, struct rte_mbuf **, unsigned n);
/* The xenbus thread: the queues run.  Hands over what is kept and lets producers
 * see 'n_queues'. */
void vif_keep_end(struct netback_vif *, unsigned n_queues);
/* The xenbus thread, before a connection or detachment: forgets the hold, not the
 * frames. */
void vif_keep_unhold(struct netback_vif *);
/* Drops what is kept and keeps nothing more. */
void vif_keep_drop(struct netback_vif *);

#endif
