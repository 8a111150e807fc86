/* export_collector: the way to one collector: a socket, a queue where the
 * transport is a stream, sequence numbers.
 *
 * Threads: one at a time; counters may be read from any. */
#ifndef EXPORT_COLLECTOR_H
#define EXPORT_COLLECTOR_H

#include "export_message.h"

struct export_collector;
struct tls_config;

/* EINVAL with a sentence in 'why'. */
int export_collector_create(const char *target, const struct export_config *, struct tls_config *,
                            struct export_collector **, char *why, size_t why_size);
/* For connections from now on. */
void export_collector_set_tls(struct export_collector *, struct tls_config *);
void export_collector_destroy(struct export_collector *); /* accepts NULL */

/* Connects, sends what is queued.  True: whatever the collector knew is gone,
 * templates come first. */
bool export_collector_run(struct export_collector *, uint64_t now);
/* Sends or queues the message, or drops and counts it. */
void export_collector_send(struct export_collector *, struct export_message *);
bool export_collector_is_stream(const struct export_collector *);
void export_collector_get_stats(const struct export_collector *, struct export_collector_stats *);

#endif
