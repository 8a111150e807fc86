/* lab_build: what a host, the wire and a guest are made of.
 *
 * A host is a namespace with weft-localxen, ovsdb-server and weft-vswitchd;
 * a guest is a namespace whose eth0 is weft-netfront's TAP; the wire is a
 * namespace with a bridge that joins the hosts' wire0.
 *
 * Called by the supervisor only.  Errors: 0 or a positive errno with
 * lab->why set. */
#ifndef LAB_BUILD_H
#define LAB_BUILD_H

#include "lab_super.h"

/* Builds everything; stops at the first failure. */
int lab_build(struct super *);

/* Starts a dead daemon again.  For weft-localxen, whose memory is the guests',
 * that means the whole host: its switch and guests are ended and due to
 * restart as well. */
int lab_build_restart(struct super *, struct lab_proc *);

/* Fills 'env' (of LAB_ENV_MAX entries, the last NULL) with what the host's
 * programs and the ovs-* tools need; 'buf' holds the strings. */
#define LAB_ENV_MAX 8
struct lab_env {
    const char *vars[LAB_ENV_MAX];
    char buf[LAB_ENV_MAX][LAB_PATH_MAX + 32];
};
void lab_host_env(const struct lab_host *, struct lab_env *);

/* True if 'program' can be run from the lab's programs. */
bool lab_program(const struct lab_config *, const char *program, char *path, size_t size);

#endif
