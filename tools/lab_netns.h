/* lab_netns: named network namespaces, compatible with ip-netns(8).
 *
 * A name is a file in /run/netns with the namespace bind-mounted on it.
 *
 * Threads: these change the calling thread's namespace for a moment; a
 * single-threaded process only.  Errors: 0 or a positive errno. */
#ifndef LAB_NETNS_H
#define LAB_NETNS_H

#include <stdbool.h>

#include "lab.h"

/* Makes the namespace: its inode stands in the state file before its name
 * does.  Its loopback is up.  EEXIST if something else has the name. */
int lab_netns_make(struct lab *, struct lab_netns *);

/* Removes the name if it is still that namespace's.  The namespace itself
 * goes with its last process.  True if nothing of it is left under its name. */
bool lab_netns_remove(const struct lab_netns *);

/* True if a file of that name exists, whoever made it. */
bool lab_netns_name_taken(const struct lab_netns *);

/* A descriptor (close-on-exec) of the namespace, or -1 with errno set. */
int lab_netns_open(const struct lab_netns *);

/* Moves the calling process for good: into the namespace, with a mount
 * namespace of its own in which /sys shows it.  For a child before exec. */
int lab_netns_join(int netns_fd);

/* Runs 'fn' with the caller in namespace 'netns_fd' and comes back.  Returns
 * what 'fn' returns, or the errno of the switch. */
int lab_netns_call(int netns_fd, int (*fn)(void *), void *aux);

#endif
