/* lab_super: the supervisor, the process that a lab lives by.
 *
 * It builds the lab, starts daemons again that die, and takes everything
 * down when it is told to (SIGTERM) or when the one who wanted it is gone.
 * It tells its starter what happens in lines through a pipe:
 *   P text   progress          N text   something that happened later
 *   R        the lab is up     E text   it failed; T lines of a log follow
 *
 * Threads: one.  Errors: 0 or a positive errno with lab->why set. */
#ifndef LAB_SUPER_H
#define LAB_SUPER_H

#include <poll.h>

#include "lab.h"

struct super {
    struct lab *lab;
    int signal_fd;
    int tell_fd;  /* -1: nobody listens any more */
    bool tied;    /* ends when the listener is gone, also once it is up */
    bool settled; /* built: a dead daemon is started again */
    bool stop;    /* told to end */
    struct pollfd *fds;
    struct lab_proc **fd_procs;
};

/* Starts a supervisor for a lab whose lock the caller holds (it passes to the
 * supervisor).  '*tell_fd' is the reading end of the pipe. */
int lab_super_launch(struct lab *, bool tied, struct lab_proc *supervisor, int *tell_fd);

/* --- for the building steps (lab_build.c) ----------------------------------- */

/* Waits until 'fd' is readable (-1: just waits), at most 'timeout_ms', while
 * looking after everything else.  ETIMEDOUT; ECANCELED when told to stop;
 * ECHILD when a daemon died that the lab cannot do without. */
int super_wait(struct super *, int fd, int timeout_ms);
/* Runs a command to its end.  EPROTO if it did not succeed; its output is
 * then in lab->why_log. */
int super_job(struct super *, const char *what, const char *program, const char *const *argv,
              const char *const *env, int timeout_ms);
/* The same in a namespace (NULL: the machine's own). */
int super_job_in(struct super *, const struct lab_netns *, const char *what, const char *program,
                 const char *const *argv, const char *const *env, int timeout_ms);
void super_tell(struct super *, char kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
