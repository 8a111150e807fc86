/* lab_switch: which process is a host's switch.
 *
 * The lab starts one process a host.  With a spare (config.spare) that is a
 * supervisor, which says in a file who of its children is the switch, and which
 * waits to be; see docs/restart.md. */
#ifndef LAB_SWITCH_H
#define LAB_SWITCH_H

#include "lab.h"

struct lab_switch {
    pid_t pid;   /* 0: none */
    pid_t spare; /* that is ready; 0: none */
    unsigned restarts;
};

struct lab_switch lab_switch_of(const struct lab_config *, const struct lab_host *);

#endif
