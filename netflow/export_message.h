/* export_message: messages of NetFlow v5, v9 and IPFIX, being written.
 *
 * A message is at most EXPORT_MESSAGE_MAX bytes, so that with its headers it
 * is one frame.  Its sequence number is filled in when it is sent, as it is
 * the collector's.
 *
 * Threads: one at a time. */
#ifndef EXPORT_MESSAGE_H
#define EXPORT_MESSAGE_H

#include "export.h"

#define EXPORT_MESSAGE_MAX 1400u

struct export_message {
    enum export_version version;
    uint32_t domain;
    uint32_t sampling;
    bool mediator;            /* with each record is told whose it was: */
    struct in6_addr original; /* the exporter's address, IPv4 as ::ffff:a.b.c.d */
    uint32_t original_domain;
    uint64_t boot; /* Unix time of uptime 0, in ms */
    unsigned len;
    unsigned set;     /* offset of the open set; 0: none */
    uint16_t set_id;  /* of the open set */
    unsigned records; /* of all kinds: v5's and v9's count */
    unsigned data;    /* data records: IPFIX's sequence numbers count these */
    unsigned flows;
    uint64_t packets, octets; /* of the flows */
    uint8_t bytes[EXPORT_MESSAGE_MAX];
};

/* An empty one.  version, domain, sampling and boot are set. */
void export_message_start(struct export_message *);
bool export_message_is_empty(const struct export_message *);
/* False: no room.  '*cannot': the version has no form for it. */
bool export_message_flow(struct export_message *, const struct flow_record *, bool *cannot);
/* The part of '*rest' that one message can tell: all of it, but of v5 with its counters of 32
 * bits perhaps less; the remainder stays in '*rest'.  False: that was the last. */
bool export_message_part(const struct export_message *, struct flow_record *rest,
                         struct flow_record *part);
/* Closes it; 'now' Unix ms. */
void export_message_end(struct export_message *, uint64_t now);
/* Where the sequence number goes, and what one message adds to it. */
void export_message_sequence(struct export_message *, uint32_t sequence);
uint32_t export_message_step(const struct export_message *);
/* The length of a message of IPFIX; what flows it tells of, if we wrote it, added to the
 * counters. */
unsigned export_message_len(const uint8_t *message);
unsigned export_message_count(const uint8_t *message, uint64_t *flows, uint64_t *packets,
                              uint64_t *octets);

/* Templates of everything but v5; one message is enough. */
void export_message_templates(struct export_message *);
bool export_message_sampling(struct export_message *);
bool export_message_interface(struct export_message *, const struct export_interface *);
bool export_message_statistics(struct export_message *, const struct export_stats *,
                               const struct export_losses *);
/* The i-th description of an element or a drop reason (IPFIX); false: no room.
 * '*done': there are no more. */
bool export_message_describe(struct export_message *, unsigned i, bool *done);

#endif
