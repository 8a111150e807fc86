#include "cli_env.h"

#include <stdio.h>
#include <stdlib.h>

#define RUNDIR "/usr/local/var/run/openvswitch" /* as libopenvswitch is configured */

const char *
cli_env(const char *given, const char *name)
{
    const char *env = getenv(name);

    return given ? given : env && *env ? env : NULL;
}

int
cli_socket_path(char *path, size_t size, const char *name)
{
    const char *rundir = cli_env(NULL, "OVS_RUNDIR");

    return snprintf(path, size, "%s/%s", rundir ? rundir : RUNDIR, name);
}
