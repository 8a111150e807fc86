/* backend: the process's one netback instance.
 *
 * Started when it is first needed: by the main loop as soon as DPDK runs and
 * a hypervisor is set, or by the first port of type netback.  Lives until
 * the process ends.
 *
 * Threads: backend_attach() and backend_detach() from any (Open vSwitch
 * closes network devices on several); everything else from the main thread.
 * netback.h wants one thread at a time for these calls: a lock in here. */
#ifndef BACKEND_H
#define BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct netback;
struct netback_vif;
struct netback_vif_info;

/* Starts netback unless it runs already.  On failure returns a positive errno
 * and sets '*why' to a sentence for the user, which the caller frees. */
int backend_start(char **why);
/* Makes the packet buffers that backend_start() will need, with the settings
 * that are known, in a process that may have to start quickly (spare.h). */
void backend_prepare(void);
bool backend_running(void);

/* The main loop's part: starts when possible, retries once a second. */
void backend_run(void);
void backend_wait(void);

/* From here on, a port that goes leaves its vif attached to netback: the
 * process is about to end. */
void backend_keep_vifs(void);
/* Ends netback.  With 'close_vifs' guests see their vifs go, otherwise they
 * stay connected for a successor. */
void backend_stop(bool close_vifs);

/* netback_attach() and netback_detach(); ENOTCONN before the start. */
int backend_attach(uint16_t domid, uint32_t handle, struct netback_vif **);
void backend_detach(struct netback_vif *); /* accepts NULL */

/* The instance, or NULL.  Any thread; it lives as long as there are polling
 * threads. */
struct netback *backend_instance(void);

/* All vifs of the store in malloc'ed memory, '*n' of them. */
struct netback_vif_info *backend_list(size_t *n);
/* Readable when the list has changed; -1 before the start. */
int backend_list_fd(void);

#endif
