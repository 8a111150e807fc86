/* trace_query: packets in words of the pool, and traces in JSON.
 *
 * Threads: the main loop.  Strings are borrowed. */
#ifndef CTL_TRACE_QUERY_H
#define CTL_TRACE_QUERY_H

#include "questions.h"
#include "trace.h"

struct json;

/* A packet in words of the pool.  Strings may be NULL where nothing is stated. */
struct trace_packet {
    const char *from, *to;            /* vif, or (to) address */
    const char *source, *destination; /* addresses */
    const char *family, *protocol, *state, *to_mac;
    int port, source_port, icmp_type, icmp_code; /* -1: not stated */
};

/* Where it starts.  False: see the fault. */
bool trace_packet_start(const struct model *, const struct trace_packet *, struct trace_start *,
                        struct trace_fault *);
void trace_fault_set(struct trace_fault *, const char *field, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "tcp 10.0.0.1:40000 > 10.0.0.2:80, MAC > MAC" */
void trace_put_packet(const struct flow *, struct ds *);
/* The trace as JSON, with a member "text" for people; the caller's. */
struct json *trace_json(const struct model *, const struct trace_start *, const struct trace *,
                        bool as_asked);

#endif
