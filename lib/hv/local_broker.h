/* local_broker: weft-localxen as a library, so that tests can run one inside
 * a process of theirs.  See local.h for what it does and local_proto.h for
 * how it is spoken to.
 *
 * Threads: one runs it; local_broker_run()'s 'stop_fd' ends it from any. */
#ifndef LOCAL_BROKER_H
#define LOCAL_BROKER_H

#include <stdbool.h>
#include <stddef.h>

struct local_broker;

/* Serves 'dir', made if missing.  A directory that a dead broker left is
 * taken over; EBUSY if a live one serves it.  On failure 'why' says what to do. */
int local_broker_open(const char *dir, bool verbose, struct local_broker **, char *why,
                      size_t why_size);
/* Serves until 'stop_fd' becomes readable.  0 or an errno. */
int local_broker_run(struct local_broker *, int stop_fd);
/* Ends all domains and removes what is in the directory.  Accepts NULL. */
void local_broker_close(struct local_broker *);

#endif
