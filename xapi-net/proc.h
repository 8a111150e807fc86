/* proc: the programs that weft-xapid starts, which outlive it.
 *
 * A process has a name, and by it files in the run directory: NAME.pid, NAME.out
 * (its standard output), NAME.log (standard error), NAME.in (a FIFO, its
 * standard input, which it holds open itself, so that it sees no end).  It has a
 * session of its own and nothing that ends with us; a weft-xapid that is started
 * again finds it by its files.  No two of one name are ever started.
 *
 * Threads: the daemon's main loop. */
#ifndef XAPI_PROC_H
#define XAPI_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Of a line of output, with what ends it: one that is longer is lost.  A result of weft-migrate
 * with 16 vifs and all that can be lost of a network has less than 5,000 bytes. */
#define PROC_LINE_MAX 8192

struct proc;
struct procs;

struct procs *procs_create(const char *run_dir);
/* Leaves the processes alone. */
void procs_destroy(struct procs *);
void procs_wait(struct procs *);

/* The process of that name, also one that an earlier weft-xapid started, and one
 * that has ended but has not been forgotten.  NULL: there is none. */
struct proc *proc_find(struct procs *, const char *name);
/* 'input' (or NULL: /dev/null) is the first line of its standard input.  0 or an
 * errno; EEXIST if there is one of that name. */
int proc_start(struct procs *, const char *name, char *const argv[], const char *input,
               struct proc **);
bool proc_alive(struct proc *);
int proc_signal(struct proc *, int signal);
/* One more line for its standard input. */
int proc_tell(struct proc *, const char *line);
/* The next whole line of its output; false: there is none yet. */
bool proc_line(struct proc *, char *line, size_t size);
/* The last words of its standard error. */
void proc_last_words(struct proc *, char *words, size_t size);
/* The last line of its output, whatever proc_line() has read. */
void proc_last_line(struct proc *, char *line, size_t size);
/* Takes away its files.  It must not be alive. */
void proc_forget(struct procs *, struct proc *);

/* "RUN_DIR/NAME.SUFFIX"; the caller's. */
char *proc_path(const struct procs *, const char *name, const char *suffix);
/* Calls f(name) for each name with that beginning that has a pid file. */
void procs_each(struct procs *, const char *prefix, void (*f)(const char *name, void *aux),
                void *aux);

#endif
