/* nb_neighbour: a well-behaved guest with steady traffic, to be run beside a
 * hostile one: it must not notice.
 *
 *   neighbour's guest > netback > echo > netback > neighbour's guest
 *
 * A thread of its own is guest and switch at once. */
#ifndef NB_NEIGHBOUR_H
#define NB_NEIGHBOUR_H

#include <stdbool.h>
#include <stdint.h>

struct nb_neighbour;

/* Connects vif 'domid'.0 and starts the traffic. */
struct nb_neighbour *nb_neighbour_start(uint16_t domid);
/* Packets that made the round so far. */
uint64_t nb_neighbour_received(const struct nb_neighbour *);
/* Ends the traffic and frees all.  Returns how many in a thousand packets were
 * lost, times 1,000; 'min' packets at least must have made the round, or it
 * is UINT64_MAX. */
uint64_t nb_neighbour_stop(struct nb_neighbour *, uint64_t min);
/* Packet buffers it may hold at any moment. */
#define NB_NEIGHBOUR_BUFFERS 256u
/* What the tests demand: 0.1 %. */
#define NB_NEIGHBOUR_LOSS_MAX 1000u

#endif
