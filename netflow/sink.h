/* sink: where the collector's decoders hand flow records.
 *
 * The collector calls a sink from its one thread, never two calls at a time; a
 * call must not block for longer than the sockets' buffers last (a store
 * queues).  What is passed is the caller's and is valid during the call: a
 * sink copies what it keeps.  An exporter's 'id' is never used again, so it
 * is good as a key; the same exporter after a restart of either side has
 * another. */
#ifndef SINK_H
#define SINK_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#include "flow_record.h"

enum flow_protocol { FLOW_NETFLOW5 = 5, FLOW_NETFLOW9 = 9, FLOW_IPFIX = 10, FLOW_SFLOW = 105 };
enum flow_transport { FLOW_UDP, FLOW_TCP, FLOW_TLS, FLOW_FILE };

/* Whom records come from: one observation domain of one exporting process. */
struct flow_source {
    uint32_t id;
    uint32_t domain;         /* observation domain, source id, engine, sub-agent */
    struct in6_addr address; /* IPv4 as ::ffff:a.b.c.d; sFlow: of the agent */
    uint16_t port;
    uint8_t protocol;  /* enum flow_protocol */
    uint8_t transport; /* enum flow_transport */
};

struct flow_sink {
    void *context;
    /* 1 to 256 records, of one exporter, in the order of their export. */
    void (*records)(void *context, const struct flow_source *from,
                    const struct flow_record *records, size_t n);
    /* The exporter calls its interface 'index' so: when first said and when it changes.
     * At most FLOW_NAME_MAX printable bytes.  May be NULL. */
    void (*interface)(void *context, const struct flow_source *from, uint32_t index,
                      const char *name);
};

#endif
