/* lab_stock: a lab's host that runs somebody else's Open vSwitch.
 *
 * The switch is an unmodified ovs-vswitchd with its userspace datapath, the
 * host has no hypervisor stand-in, and a guest's eth0 is one end of a veth
 * whose other end is the vif, with the external_ids that XenServer's scripts
 * set on one.  What the controller sees is the same.
 *
 * Called by the supervisor only.  Errors: 0 or a positive errno with lab->why
 * set. */
#ifndef LAB_STOCK_H
#define LAB_STOCK_H

#include "lab_super.h"

/* Starts config.stock_vswitchd. */
int lab_stock_start_vswitchd(struct super *, struct lab_host *);
/* Cables the guest to its host and makes the vif a port of the bridge. */
int lab_stock_start_guest(struct super *, struct lab_guest *);

#endif
