/* spare: a second process that takes over when the first one is killed.
 *
 * With --spare, weft-vswitchd is three processes of one program: a supervisor,
 * which starts the others and watches; the active one, which is the switch;
 * and a spare, which has done what takes long and does not depend on the first
 * (DPDK's memory, packet pools) and waits on a pipe.  When the active one dies
 * by a signal that was not meant as an order to end, the spare goes on: it
 * opens the datapath, adds the vifs under their old names, and forwards by
 * what the dead one left (shadow.h, ctlog.h, netback's journals) before it has
 * read the database.  A new spare is started.  An exit of the active process
 * ends all three, with its status.
 *
 * The pid file names the active process.  See docs/restart.md.
 *
 * Threads: the main thread. */
#ifndef SPARE_H
#define SPARE_H

#include <stdbool.h>

/* First of all.  Takes the options that concern the three processes out of
 * argv, as far as the one that was started is to be the supervisor. */
void spare_init(int *argc, char *argv[]);
/* After options are parsed and the process is a daemon.  Does not return in
 * the supervisor. */
void spare_supervise(void);
/* In a process that a supervisor started, before anything else is: returns
 * when this one is to be the switch.  Elsewhere at once. */
void spare_wait(void);
/* This process takes over from another: makes its ports forward.  After the
 * providers are registered.  Elsewhere without effect. */
void spare_forward(void);
/* Before bridge_exit(). */
void spare_exit(void);

/* Hidden options, by which a supervisor tells its children who they are. */
void spare_set_fd(const char *fd);
void spare_set_pidfile(const char *pidfile);
void spare_set_detached(void);

/* dpdk_start.c: DPDK runs with this configuration. */
struct smap;
void spare_save_config(const struct smap *other_config);

#endif
