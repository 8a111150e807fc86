/* bundle: mempool operations for packet buffers that one thread allocates and
 * another frees.
 *
 * Such a pool sees a bulk of buffers come back here and a bulk go out there,
 * all the time.  DPDK's stacks and rings pay for each buffer: a list element
 * or a slot that another core wrote last.  Here the free buffers of one put
 * stay together: the last of them holds pointers to the others, and is itself
 * an element of a lock-free stack.  A bulk costs one compare-and-swap and a few
 * cache lines, which are read one after the other.
 *
 * Last in, first out, so what goes out has been in use lately.  Gets and puts
 * of BUNDLE_MAX or fewer are cheapest if all are of the same size.  Nobody
 * waits for a preempted peer.
 *
 * Pools must be of mbufs, with at least BUNDLE_ROOM bytes of data room, and
 * get their private data (rte_pktmbuf_pool_init()) before they are populated.
 *
 * Threads: any. */
#ifndef BUNDLE_H
#define BUNDLE_H

#define BUNDLE_MAX 64u
#define BUNDLE_ROOM (8u * (BUNDLE_MAX + 1u))

/* The name for rte_mempool_set_ops_byname(). */
const char *bundle_ops_name(void);

#endif
