/* rule_log: what rules with their log flag have decided lately.
 *
 * A ring of the last RULE_LOG_ENTRIES packets that switches reported, each also
 * a line in the daemon's log (at a bounded rate).  Entries are named when they
 * are made, so that they outlive their rules.
 *
 * Threads: the main loop.  Ownership: borrows the model. */
#ifndef CTL_RULE_LOG_H
#define CTL_RULE_LOG_H

#include <stdint.h>

#define RULE_LOG_ENTRIES 2000u

struct host_packet;
struct model;
struct rule_log;

struct rule_log *rule_log_create(const struct model *);
void rule_log_destroy(struct rule_log *);
/* Nothing, if the packet's flow is not a rule's. */
void rule_log_packet(struct rule_log *, const char *host, const struct host_packet *);
/* JSON: {"entries": [...], "last": N, "lost": N}: those after number 'after',
 * oldest first, the last 'max' of them; "lost" have gone already.  malloc'ed. */
char *rule_log_read(const struct rule_log *, int64_t after, unsigned max);

#endif
