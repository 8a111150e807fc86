/* quiet: Open vSwitch's libraries log nothing to stderr in this process, for programs that use
 * a part of them and have words of their own for what goes wrong. */
#ifndef OVS_QUIET_H
#define OVS_QUIET_H

void ovs_quiet(void);

#endif
