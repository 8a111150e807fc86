/* netdev_netback: the interface type "netback", a guest's vif as a port.
 *
 *   ovs-vsctl add-port br0 vif1.0 -- set interface vif1.0 type=netback \
 *       options:domid=1 options:handle=0
 *
 * Threads: as lib/netdev-provider.h says; register once, before the bridges. */
#ifndef NETDEV_NETBACK_H
#define NETDEV_NETBACK_H

#include <stdbool.h>

struct netdev;

void netdev_netback_register(void);
/* True for a port that takes every offload and mends pseudo-header sums. */
bool netdev_is_netback(const struct netdev *);

#endif
