/* sink_forward: flow records on to another collector, as IPFIX.
 *
 * Counters of sampled records are multiplied by their rate, and what is sent on
 * says that it is unsampled.  All goes out as one observation domain of ours; each
 * record says which exporter it came from, and of which domain there (RFC 7119).
 * Threads: one at a time. */
#ifndef SINK_FORWARD_H
#define SINK_FORWARD_H

#include "sink.h"

struct forward;

/* 'targets': "ADDRESS:PORT", or with "udp:", "tcp:" or "tls:" in front; the files are for
 * the last, or NULL.  0, or an errno with a sentence in 'why'. */
int forward_open(const char *const *targets, size_t n, const char *private_key,
                 const char *certificate, const char *ca_cert, struct forward **, char *why,
                 size_t why_size);
/* Reads the files again, for connections from now on.  An errno with a sentence in 'why':
 * what was there before stays. */
int forward_reload_tls(struct forward *, char *why, size_t why_size);
void forward_close(struct forward *); /* sends what is gathered; accepts NULL */

struct flow_sink forward_sink(struct forward *);
/* Some times a second. */
void forward_run(struct forward *, uint64_t now_ms);

#endif
