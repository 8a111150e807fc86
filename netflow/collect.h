/* collect: decodes NetFlow v5 and v9, IPFIX and sFlow v5 into flow records.
 *
 * Bytes in, struct flow_record out to a sink; no sockets, no clock of its own.
 * Per exporter (struct flow_source: address, port or connection, observation
 * domain) it keeps templates, sampling rates, interface names, sequence
 * numbers and, for a while, data whose template has not come yet.
 *
 * Hostile exporters: what one exporter keeps here, and all of them together, is
 * bounded in bytes, also templates and fields, exporters of one address, and
 * records per second.  When all is full, the idlest exporter goes, one that has
 * not lasted yet first.  Nobody reaches another's templates.
 *
 * Threads: one at a time.  The caller keeps what it passes; times are
 * milliseconds of the Unix epoch and may stand still, but not go far back. */
#ifndef COLLECT_H
#define COLLECT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sink.h"

struct collect_limits {
    unsigned exporters;          /* in all */
    unsigned exporters_per_host; /* of one address */
    unsigned templates;          /* of one exporter */
    unsigned fields;             /* of one template */
    size_t exporter_bytes;       /* state of one exporter */
    size_t total_bytes;          /* state of all */
    uint64_t records_per_s;      /* of one exporter; 0: any number */
    uint32_t template_ms;        /* over UDP: forgotten when not announced for so long */
    uint32_t idle_ms;            /* an exporter, when silent for so long */
    uint32_t wait_ms;            /* data waits so long for its template */
    size_t wait_bytes;           /* of one exporter */
};
extern const struct collect_limits collect_limits_default;

/* The other end of a socket. */
struct collect_peer {
    struct in6_addr address; /* IPv4 as ::ffff:a.b.c.d */
    uint64_t connection;     /* 0: none (UDP); else never used twice */
    uint16_t port;
    uint8_t transport; /* enum flow_transport */
};

struct collect;

/* NULL: no memory. */
struct collect *collect_create(const struct collect_limits *, const struct flow_sink *);
void collect_destroy(struct collect *);

/* Of exporters of v9 and IPFIX with addresses of so many leading 'bits' one packet in 'rate' was
 * counted, where they do not say.  The first that fits counts, for exporters heard of from then
 * on.  False: there are COLLECT_ASSUME_MAX. */
enum { COLLECT_ASSUME_MAX = 16 };
bool collect_assume(struct collect *, const struct in6_addr *, unsigned bits, uint32_t rate);

/* One datagram, or one IPFIX message of a stream.  Records go to the sink before it
 * returns.  0, or EPROTO: it is not what it says, EPROTONOSUPPORT: none of the protocols, ENOSPC:
 * its exporter has no room. What was good before the fault has been used; all is counted. */
int collect_message(struct collect *, const struct collect_peer *, uint64_t now_ms,
                    const uint8_t *data, size_t len);

/* The bytes of the IPFIX message that begins here: 16 to 65535; 0: it is none.
 * Looks at 4 bytes. */
size_t collect_message_len(const uint8_t data[4]);

/* The connection is over: its exporters go. */
void collect_closed(struct collect *, uint64_t connection);

/* Forgets what is too old.  Once a second or so. */
void collect_tick(struct collect *, uint64_t now_ms);

/* The clock that 'now_ms' comes from was set: what was at T is now to be taken as at
 * T + 'by_ms', so that nothing ends early or lasts too long for it. */
void collect_clock_stepped(struct collect *, int64_t by_ms);

/* The kernel says so many datagrams were lost for want of buffers. */
void collect_kernel_drops(struct collect *, uint64_t n);

/* The name of an exporter's interface; NULL: not said. */
const char *collect_interface(const struct collect *, uint32_t source_id, uint32_t index);

/* {"totals": {...}, "exporters": [{...}]}; the caller's. */
json_t *collect_status(const struct collect *, uint64_t now_ms);

#endif
