/* appctl: asks a daemon of Open vSwitch's kind to do something, as ovs-appctl does.
 *
 * No header of Open vSwitch, so that programs which know none can use it.
 *
 * Threads: any; calls block up to their timeout.
 * Ownership: texts that are handed out are malloc'ed and the caller's. */
#ifndef OVS_APPCTL_H
#define OVS_APPCTL_H

#include <stddef.h>

/* Sends "command args.." to the daemon 'program' whose pid file and control socket
 * are in 'run_dir'.  0 with its answer in '*reply'; EREMOTEIO if it refused, with
 * its words in '*reply'; ENOENT, ECONNREFUSED: it does not run; ETIMEDOUT; else a
 * positive errno ('*reply' is then NULL).  'args' ends with NULL. */
int appctl(const char *run_dir, const char *program, const char *command, const char *const *args,
           int timeout_ms, char **reply);

#endif
