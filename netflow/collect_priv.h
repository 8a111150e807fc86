/* collect_priv: what the files of the collector's decoders share (see collect.h).
 *
 *   collect.c          which protocol, v5, records to the sink, limits on records
 *   exporter.c         the table of exporters, bytes of state, sequence numbers
 *   decode_sets.c      messages of v9 and IPFIX: templates, data
 *   decode_options.c   options: sampling, names, type information, statistics
 *   decode_sflow.c     sFlow v5 */
#ifndef COLLECT_PRIV_H
#define COLLECT_PRIV_H

#include "collect.h"
#include "cursor.h"
#include "template.h"

#define BUCKETS 64u
#define BATCH 256u

struct link {
    struct link *prev, *next;
};

struct waiting { /* a set whose template has not come */
    struct waiting *next;
    uint64_t until_ms, export_ms;
    uint32_t uptime;
    uint16_t id, len;
    uint8_t data[];
};

struct interface {
    struct interface *next;
    uint32_t index;
    char name[FLOW_NAME_MAX + 1];
};

struct sampler {
    struct sampler *next;
    uint32_t id, rate;
};

struct element_type { /* RFC 5610 */
    struct element_type *next;
    uint32_t enterprise;
    uint16_t element;
    uint8_t type, semantics;
    char name[FLOW_NAME_MAX + 1];
};

struct sequence {
    uint32_t expected;
    uint32_t uptime_ms; /* of the exporter, if the protocol says it */
    uint32_t n_late;    /* in a row */
    bool known;
};

struct exporter_key {
    struct in6_addr address, agent;
    uint64_t connection;
    uint32_t domain;
    uint16_t port;
    uint8_t protocol, transport;
};

#define EXPORTER_COUNTERS(X)                                                                       \
    X(messages)                                                                                    \
    X(records)                                                                                     \
    X(lost)             /* units of the protocol's sequence that never came */                     \
    X(reordered)        /* messages that came late */                                              \
    X(restarts)         /* of the exporter, or of its numbering */                                 \
    X(malformed)        /* messages or sets that contradict themselves */                          \
    X(without_template) /* sets dropped because their template did not come */                     \
    X(limited)          /* records beyond the limit per second */                                  \
    X(refused)          /* templates and options beyond the limits */                              \
    X(template_changes) /* an id that came to mean something else */                               \
    X(withdrawals)                                                                                 \
    X(options)          /* options records */                                                      \
    X(not_flows)        /* records that count neither packets nor bytes */                         \
    X(counter_samples)  /* sFlow's, skipped */                                                     \
    X(exported_records) /* what it says itself of what it sent */                                  \
    X(exported_messages)                                                                           \
    X(not_sent)        /* flows that it could not send */                                          \
    X(ignored_packets) /* packets that it did not count */

struct exporter_counters {
#define X(name) uint64_t name;
    EXPORTER_COUNTERS(X)
#undef X
};

struct exporter {
    struct link idle; /* in collect's 'fresh' or 'lasting', the idlest first */
    struct exporter *next;
    struct host *host;
    struct exporter_key key;
    struct flow_source source;
    uint64_t odd; /* of bucket_in() */
    uint64_t first_ms, seen_ms;
    bool lasting;
    size_t bytes;
    unsigned n_templates, n_samplers, n_types, n_waiting;
    struct template *templates[BUCKETS];
    struct interface *interfaces[BUCKETS];
    struct sampler *samplers[BUCKETS];
    struct element_type *types;
    struct waiting *waiting, **waiting_end;
    size_t waiting_bytes;
    uint32_t sampling; /* of all its observation points; 0: not said */
    uint32_t assumed;  /* in its place, if it is not said */
    struct sequence sequence;
    uint64_t credit_ms, credit; /* records that it may still send in this second */
    struct exporter_counters n;
};

struct host { /* exporters of one address */
    struct host *next;
    struct in6_addr address;
    unsigned n;
};

#define COLLECT_COUNTERS(X)                                                                        \
    X(messages)                                                                                    \
    X(bytes)                                                                                       \
    X(records)                                                                                     \
    X(malformed)                                                                                   \
    X(unknown_protocol)                                                                            \
    X(evicted)      /* exporters that went for want of room */                                     \
    X(kernel_drops) /* datagrams that found the socket's buffer full */

struct collect_counters {
#define X(name) uint64_t name;
    COLLECT_COUNTERS(X)
#undef X
};

struct assumed { /* a rate that exporters do not say */
    struct in6_addr address;
    unsigned bits;
    uint32_t rate;
};

struct collect {
    struct collect_limits limits;
    struct assumed assumed[COLLECT_ASSUME_MAX];
    unsigned n_assumed;
    struct flow_sink sink;
    struct link fresh, lasting;
    struct exporter **table;
    struct host **hosts;
    unsigned table_mask;
    unsigned n_exporters;
    uint32_t next_id;
    uint64_t seed;
    size_t bytes;
    struct collect_counters n;
    unsigned n_batch;
    struct exporter *batch_of;
    struct flow_record batch[BATCH];
};

/* --- exporter.c --- */
int exporters_init(struct collect *);
void exporters_destroy(struct collect *);
/* The exporter, made if it is new; NULL: no room. */
struct exporter *exporter_get(struct collect *, const struct exporter_key *, uint64_t now_ms);
void exporter_drop(struct collect *, struct exporter *);
void exporter_expire(struct collect *, struct exporter *, uint64_t now_ms);
void exporter_shift(struct exporter *, int64_t by_ms); /* all its times */
/* Memory for an exporter's state within the limits; NULL: there is none. */
void *exporter_alloc(struct collect *, struct exporter *, size_t);
bool exporter_reserve(struct collect *, struct exporter *, size_t);
void exporter_free(struct collect *, struct exporter *, void *, size_t);
void exporter_forget_templates(struct collect *, struct exporter *);
struct template *exporter_template(const struct exporter *, uint16_t id);
/* Takes 't' over; false: no room, and 't' is gone. */
bool exporter_add_template(struct collect *, struct exporter *, struct template *);
void exporter_remove_template(struct collect *, struct exporter *, uint16_t id);
/* A message numbered 'number', which counts for 'units'; 'unknown' if nobody knows
 * how many.  'uptime_ms' of the exporter, 0 if the protocol has none.  True: it restarted. */
bool sequence_check(struct exporter *, uint32_t number, uint32_t units, bool unknown,
                    uint32_t uptime_ms);

/* --- collect.c --- */
struct exporter *collect_exporter(struct collect *, const struct collect_peer *, uint64_t now_ms,
                                  uint8_t protocol, uint32_t domain, const struct in6_addr *agent);
/* The next record of the batch, to be filled in, which then counts by collect_emit(). */
struct flow_record *collect_record(struct collect *, struct exporter *);
void collect_emit(struct collect *, struct exporter *);
/* The same for '*n' records, at least one: those that there is room for behind each other. */
struct flow_record *collect_records(struct collect *, struct exporter *, unsigned *n);
void collect_emit_many(struct collect *, struct exporter *, unsigned n);
void collect_flush(struct collect *);

/* --- decode_*.c: 0 or EPROTO, EPROTONOSUPPORT, ENOSPC --- */
int decode_sets(struct collect *, const struct collect_peer *, uint64_t now_ms, struct cursor);
int decode_sflow(struct collect *, const struct collect_peer *, uint64_t now_ms, struct cursor);

/* One record of options. */
void decode_options(struct collect *, struct exporter *, const struct template *,
                    const uint8_t *record, const struct template_layout *);
/* A record of flows that names its interfaces. */
void decode_names(struct collect *, struct exporter *, const struct template *,
                  const uint8_t *record, const struct template_layout *);
uint32_t exporter_rate(const struct exporter *, uint32_t sampler);

/* Of its templates, interfaces or samplers.  Exporters choose the ids, but not who shares a
 * bucket: 'odd' is a secret.  A product alone is not enough: with some factors the ids of
 * a row of equal steps share few buckets. */
static inline unsigned
bucket_in(const struct exporter *e, uint32_t id)
{
    uint64_t h = (id + (e->odd >> 32)) * e->odd;

    return (unsigned)((h ^ h >> 29) * UINT64_C(0x9e3779b97f4a7c15) >> 58);
}
_Static_assert(BUCKETS == 1u << (64 - 58), "what the shift leaves");

#endif
