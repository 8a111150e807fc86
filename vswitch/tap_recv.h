/* tap_recv: frames of a TAP straight into our own packet buffers.
 *
 * Open vSwitch's way allocates 64 KiB from malloc() for each large frame and reads until
 * the TAP says that it is empty.  The former goes back to the kernel when several are
 * freed at once and costs a page fault a page, the latter a system call a burst.
 *
 * Threads: any; a TAP's frames keep their order if one thread reads them. */
#ifndef TAP_RECV_H
#define TAP_RECV_H

struct rte_mbuf;

/* Reads up to 'max' frames of a TAP with IFF_VNET_HDR, as far as there are any; returns
 * how many.  '*error' is EAGAIN if there are no more, 0 if there may be, or what reading
 * failed with. */
unsigned tap_recv(int fd, struct rte_mbuf **, unsigned max, int *error);

#endif
