/* lab_proc: processes that a lab starts, watches and ends.
 *
 * A process is known by its pid and start time; a signal goes out through a
 * pidfd opened first and compared with the start time after, so it can never
 * reach another process that got the same pid.  Every process dies with the
 * one that started it (PR_SET_PDEATHSIG).
 *
 * Threads: one.  Errors: 0 or a positive errno. */
#ifndef LAB_PROC_H
#define LAB_PROC_H

#include <stdbool.h>
#include <stdint.h>

#include "lab.h"

struct lab_spawn {
    const char *program;     /* a path, or a name to look up in PATH */
    const char *const *argv; /* NULL-terminated; argv[0] may differ from 'program' */
    const char *const *env;  /* further NAME=VALUE, NULL-terminated; or NULL */
    const char *log;         /* file that stdout and stderr are appended to; NULL: discarded */
    int netns_fd;            /* namespace to run in, -1: the caller's */
    int stdout_fd;           /* instead of 'log' for stdout, -1: no */
    int pass_fd;             /* stays open in the program under its number, -1: none */
};

/* Starts a program.  Its pid stands in the state file before it runs.  If it
 * cannot be executed, that is the error returned. */
int lab_proc_spawn(struct lab *, struct lab_proc *, const struct lab_spawn *);
/* The same without a lab's ledger, for helpers that end with their caller. */
int lab_proc_spawn_unlisted(struct lab_proc *, const struct lab_spawn *);
/* The same in a namespace, its stdout to be read, without waiting, from '*fd', which
 * is the caller's. */
int lab_proc_spawn_read(struct lab_proc *, const struct lab_netns *, const char *program,
                        const char *const *argv, const char *const *env, int *fd);

/* Opens p->pidfd unless open.  ESRCH if the process is gone. */
int lab_proc_open(struct lab_proc *);
bool lab_proc_alive(struct lab_proc *);
void lab_proc_signal(struct lab_proc *, int signal);
/* Takes note that the process has ended: true if it has.  '*status' becomes
 * its wait status if it was our child, else -1. */
bool lab_proc_reap(struct lab_proc *, int *status);
/* Sends 'signal' to all, waits, kills what is left after 'timeout_ms'.
 * Returns how many still live then. */
unsigned lab_proc_end(struct lab_proc **, unsigned n, int signal, int timeout_ms);

/* "exited with status 1", "was killed by signal 9 (Killed)". */
void lab_proc_describe(int status, char *buf, size_t size);

/* Clock ticks since boot at which 'pid' started; 0 if there is no such. */
uint64_t lab_proc_start_time(pid_t);
/* This boot's id. */
void lab_boot_id(char *buf, size_t size);
/* Milliseconds of the monotonic clock. */
int64_t lab_now_ms(void);

#endif
