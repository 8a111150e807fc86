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

/* --- shared with lab_pool.c --------------------------------------------------- */

/* Bounds for a slow machine with sanitizers, not expectations. */
#define LAB_DAEMON_TIMEOUT_MS 30000
#define LAB_SWITCH_TIMEOUT_MS 120000

/* DIR and the directories in it that programs of the lab want. */
int lab_make_directories(struct super *, const char *dir);
/* Starts a daemon of the lab in 'netns' (NULL: the machine's own), with the
 * environment of 'dir'. */
int lab_start_daemon(struct super *, struct lab_proc *, const struct lab_netns *netns,
                     const char *dir, const char *const *argv, int pass_fd);
/* Makes DIR/FILE by a schema of the lab's share directory. */
int lab_create_database(struct super *, const char *dir, const char *file, const char *schema);
/* Starts an ovsdb-server of DIR/db/NAME.db that listens on DIR/run/NAME.sock,
 * and waits for it; 'owner' names it in messages.  'more': further options (NULL-
 * terminated), or NULL. */
int lab_start_ovsdb(struct super *, struct lab_proc *, const struct lab_netns *, const char *dir,
                    const char *file, const char *socket, const char *const *more,
                    const char *owner);
/* Runs ovs-vsctl on the host's database. */
int lab_vsctl(struct super *, struct lab_host *, const char *what, const char *const *args,
              unsigned n);
/* Waits for a file to appear in a directory. */
int lab_await_file(struct super *, const char *dir, const char *name, int timeout_ms);

/* Fills 'env' (of LAB_ENV_MAX entries, the last NULL) with what
 * programs that live in 'dir' and the ovs-* tools need; 'buf' holds the strings. */
#define LAB_ENV_MAX 8
struct lab_env {
    const char *vars[LAB_ENV_MAX];
    char buf[LAB_ENV_MAX][LAB_PATH_MAX + 32];
};
void lab_env_of(const char *dir, struct lab_env *);

/* True if 'program' can be run from the lab's programs. */
bool lab_program(const struct lab_config *, const char *program, char *path, size_t size);

#endif
