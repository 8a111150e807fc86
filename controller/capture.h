/* capture: the next packets of a vif, explained (weft trace --capture).
 *
 * The vif's host reports packets (host_tap_port()) until the time is over: as they
 * enter, and what its conntrack says of them.  Each is traced when it is read.
 * One capture at a time: a new one takes the place of what there is.
 *
 * Threads: the main loop.  Ownership: borrows what it is made with. */
#ifndef CTL_CAPTURE_H
#define CTL_CAPTURE_H

#include <stdint.h>

#include "questions.h"

#define CAPTURE_MAX 100u /* packets kept */

struct capture;
struct fleet;
struct host_packet;

struct capture *capture_create(struct model *, struct compile *, struct fleet *);
void capture_destroy(struct capture *);
/* {"vif": NAME, "seconds": N (10; 0 ends it), "protocol": ..., "port": N,
 *  "family": ...}: JSON of what began, malloc'ed.  NULL: see the fault. */
char *capture_start(struct capture *, const char *question, struct trace_fault *);
/* Nothing, if the packet is not from the capture's tap. */
void capture_packet(struct capture *, const char *host, const struct host_packet *);
/* {"packets": [{"number", "time", "trace": {...}}], "last": N, "going": bool}: those
 * after number 'after', at most 20; malloc'ed. */
char *capture_read(struct capture *, int64_t after);

#endif
