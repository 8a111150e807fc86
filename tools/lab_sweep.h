/* lab_sweep: taking a lab down, one's own or a dead one's.
 *
 * Works from the model alone, so the supervisor ends its lab the same way as
 * "weft lab down" clears one that a crash left.  Repeatable: what is gone
 * already is skipped, and the state file goes last.  Caller holds the lock. */
#ifndef LAB_SWEEP_H
#define LAB_SWEEP_H

#include "lab.h"

struct lab_swept {
    unsigned processes; /* found alive */
    unsigned namespaces;
    unsigned left; /* could not be ended or removed */
};

/* Ends all processes (gracefully: guests leave the switch first, then the
 * switch, then the rest; else at once), removes namespaces and directories,
 * at last the state file.  'note' gets a line about each thing that
 * remains. */
void lab_sweep(struct lab *, bool graceful, void (*note)(void *aux, const char *line), void *aux,
               struct lab_swept *);

/* Ends what a host's weft-xapid has started, which goes by no ledger: its memory
 * is gone. */
void lab_sweep_host(const struct lab_host *);

/* Removes the lock file, and DIR if it is empty.  The last thing of all. */
void lab_sweep_lock(const char *dir);

/* The file by which "weft lab exec" tells the sweep about itself: the calling
 * process is ended with the lab.  0 or a positive errno. */
int lab_exec_register(const char *dir);

#endif
