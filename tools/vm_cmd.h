/* vm_cmd: "weft vm start|shutdown|migrate|postcopy", "weft host evacuate": what hosts do,
 * through weft-xapid.
 *
 * Each takes what follows its name and returns an exit code (cli_cmd.h).
 * Single-threaded. */
#ifndef VM_CMD_H
#define VM_CMD_H

#include "cli_cmd.h"

extern const struct cli_cmd vm_cmds[], host_cmds[];
extern const size_t n_vm_cmds, n_host_cmds;
extern const char vm_examples[], host_examples[];

#endif
