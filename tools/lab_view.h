/* lab_view: watching a lab live, and checking it once.
 *
 * Pings between all guests each second, iperf3 between two of them in short
 * bursts, CPU of the switches; drawn as a table on a terminal, as lines
 * elsewhere.  Single-threaded. */
#ifndef LAB_VIEW_H
#define LAB_VIEW_H

#include "cli_term.h"
#include "lab.h"
#include "lab_tell.h"

struct lab_view_options {
    bool once;        /* check, print a verdict, end */
    unsigned seconds; /* end after so many; 0: never */
    int signal_fd;    /* signalfd; readable: end */
};

/* Runs until the end that the options say, or the supervisor's.  The lab is
 * the caller's own copy of the state.  True if all was as it should be. */
bool lab_view(struct lab *, struct term *, struct lab_tell *, const struct lab_view_options *);

#endif
