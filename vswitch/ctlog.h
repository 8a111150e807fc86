/* ctlog: the datapath's connections outlive the process.
 *
 * A stateful rule lets an established connection through because the tracker
 * knows it.  A successor of a killed switch must know it, too, and must not
 * know one that was cut.  So a thread writes all connections to a file now and
 * then, and those that begin, change or end meanwhile go to a log as they do.
 * See docs/restart.md.
 *
 * Threads: open and close on the main thread. */
#ifndef CTLOG_H
#define CTLOG_H

#include <stdbool.h>

struct conntrack;
struct ctlog;

/* Puts the connections of the previous process into the tracker, and keeps
 * them in files from now on.  Before the first packet.  NULL if that cannot be
 * (another tracker has it already). */
struct ctlog *ctlog_open(const char *dp_name, struct conntrack *);
/* Before the tracker goes.  Accepts NULL.  'keep': the files stay. */
void ctlog_close(struct ctlog *, bool keep);

#endif
