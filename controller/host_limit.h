/* host_limit: how much of the controller a host may take.
 *
 * A host that has been taken over holds a valid certificate.  Open vSwitch's
 * library bounds the size of an OpenFlow message, but neither that of a JSON-RPC
 * message, nor what a database may hold, nor for how long one connection can
 * have the main loop.  This stands in for its stream_recv() and
 * json_parser_feed() at link time: a connection is read for some milliseconds a
 * turn, and one whose database costs more memory than a host's can is refused.
 * What is read outside host_limit_begin() and host_limit_end() is not limited.
 *
 * Threads: the main loop. */
#ifndef CTL_HOST_LIMIT_H
#define CTL_HOST_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct host_port;

/* Bytes of flows that a switch may answer with, and what it may have for each
 * flow that it should have. */
#define HOST_LIMIT_FLOW_BYTES (64u << 20)
#define HOST_LIMIT_PER_FLOW 1024
/* Bytes that may wait for a switch that does not read. */
#define HOST_LIMIT_UNREAD (1u << 20)

struct host_limit {
    uint64_t cost; /* about the bytes of memory that the database's messages led to */
};

/* The turn of one connection; NULL: its memory is bounded elsewhere. */
void host_limit_begin(struct host_limit *);
void host_limit_end(void);
bool host_limit_exceeded(const struct host_limit *);

/* A vif has a port or two on a host (the guest's and the device model's); where
 * more name it, the rest lose their claim, the last by name first. */
void host_limit_claims(struct host_port *, size_t n);

#endif
