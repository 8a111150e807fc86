/* host_wire: an OpenFlow connection that writes many messages at once.
 *
 * libopenvswitch's own connections make a system call, and under TLS a record, of
 * each message; a bundle has one for each flow.  This one gathers what is sent,
 * and writes it when there is much of it or when vconn_run() is called, which
 * rconn_run() does: whoever sends calls it when his turn ends.
 *
 * Threads: the caller's.  Ownership: the vconn is closed by vconn_close(), or by
 * the rconn that it is given to. */
#ifndef CTL_HOST_WIRE_H
#define CTL_HOST_WIRE_H

#include <stdint.h>

struct vconn;

/* As vconn_open(): 'target' is "unix:PATH", "tcp:IP:PORT" or "ssl:IP:PORT", 'versions'
 * the bitmap of those that may be agreed on. */
int host_wire_open(const char *target, uint32_t versions, uint8_t dscp, struct vconn **);

#endif
