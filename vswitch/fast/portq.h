/* portq: packets of many threads on their way out of one shared port.
 *
 * A port that one thread sends for (a NIC's) gets a lane per producing
 * worker.  Producers push without ever waiting for each other or for the
 * sender; the sender takes by deficit round robin, so that each lane gets the
 * same share of the port's bytes no matter how many packets others pile up.
 * Each lane is bounded in buffer memory and drops at its tail.
 *
 * Threads: portq_push() on any thread, one at a time per lane; portq_pop() on
 * the sender's.  A lane that has been idle is given back. */
#ifndef PORTQ_H
#define PORTQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct portq;
struct rte_mbuf;

/* 'lane_bytes': bound of buffer memory per lane; 'quantum': bytes per turn. */
struct portq *portq_create(size_t lane_bytes, uint32_t quantum);
void portq_destroy(struct portq *, void (*free)(struct rte_mbuf **, unsigned n));

/* Takes as many of 'n' as the bound allows and returns how many; the rest
 * stays the caller's.  'producer' identifies the lane (a worker's address). */
unsigned portq_push(struct portq *, const void *producer, struct rte_mbuf **, unsigned n);
/* Up to 'n' packets in fair order. */
unsigned portq_pop(struct portq *, struct rte_mbuf **, unsigned n);
bool portq_empty(const struct portq *);
/* The producer is going away: its lane is freed when drained. */
void portq_forget(struct portq *, const void *producer);

#endif
