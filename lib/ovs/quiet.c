#include <config.h>

#include "ovs/quiet.h"

#include "openvswitch/vlog.h"

void
ovs_quiet(void)
{
    vlog_set_levels(NULL, VLF_CONSOLE, VLL_OFF);
}
