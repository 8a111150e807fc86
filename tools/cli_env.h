/* cli_env: what a command takes from the environment where no option says it.
 *
 * Not thread-safe: reads the environment. */
#ifndef CLI_ENV_H
#define CLI_ENV_H

#include <stddef.h>

/* An option's value if it is given, else the variable's; NULL: neither, or the variable is
 * empty.  Strings are the environment's and argv's. */
const char *cli_env(const char *given, const char *name);

/* The path of socket 'name' in the daemons' run directory ($OVS_RUNDIR, or where
 * libopenvswitch has it), cut to 'size'; returns what snprintf() does. */
int cli_socket_path(char *path, size_t size, const char *name);

#endif
