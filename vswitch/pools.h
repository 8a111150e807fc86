/* pools: the packet buffers that netback and our own segmentation fill.
 *
 * Each element is a struct dp_packet (whose first member is the mbuf) with
 * NETBACK_HEADROOM bytes and a frame behind it, so that a packet is at once
 * what DPDK, netback and Open vSwitch expect.
 *
 * Threads: create once, from the main thread; pools_alloc() from any. */
#ifndef POOLS_H
#define POOLS_H

#include <stddef.h>

struct dp_packet;
struct rte_mempool;

/* Frame bytes that fit a small buffer. */
#define POOLS_SMALL_FRAME 1536u

/* Creates both pools.  ENOMEM if DPDK has too little memory for them. */
int pools_create(unsigned n_small, unsigned n_large);
void pools_destroy(void); /* harmless without pools_create() */
struct rte_mempool *pools_small(void);
struct rte_mempool *pools_large(void);

/* Bytes of DPDK memory that so many buffers take. */
size_t pools_memory(unsigned n_small, unsigned n_large);

/* An empty packet with room for 'size' bytes behind at least 128 bytes of
 * headroom: from the pools, or from malloc() when they are exhausted or were
 * never made.  Never NULL. */
struct dp_packet *pools_alloc(size_t size);

#endif
