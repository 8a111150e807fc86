/* netdev_netback: the interface type "netback", a guest's vif as a port.
 *
 *   ovs-vsctl add-port br0 vif1.0 -- set interface vif1.0 type=netback \
 *       options:domid=1 options:handle=0
 *
 * Threads: as lib/netdev-provider.h says; register once, before the bridges. */
#ifndef NETDEV_NETBACK_H
#define NETDEV_NETBACK_H

#include <stdbool.h>

struct netback_receiver;
struct netback_vif;
struct vif_move;
struct netdev;
struct rte_mbuf;

void netdev_netback_register(void);
/* True for a port that takes every offload and mends pseudo-header sums. */
bool netdev_is_netback(const struct netdev *);

/* From the main loop's next round on, when ofproto knows the port, gives the
 * guest's packets to 'receiver' (netback.h), across changes of the port's
 * options.  With NULL returns when no call of it is under way and none will
 * come; nobody may hold what its calls wait for.  Main thread. */
void netdev_netback_set_receiver(struct netdev *, const struct netback_receiver *, void *aux);
/* Cuts all ports off their vifs; before the backend stops.  Main thread. */
void netdev_netback_exit(void);
/* Calls cb() for the port of that name, with its vif (or NULL) and the slot of what
 * moves it (vif_move.h).  False if there is no such port.  Main thread. */
bool netdev_netback_visit(const char *port,
                          void (*cb)(const char *port, struct netback_vif *, struct vif_move **,
                                     void *aux),
                          void *aux);
/* Hands any number of packets to the guest; consumes.  They are of a pool or
 * have 'pool' NULL and complete mbufs, are not to be cut short, and want at
 * most TCP's and UDP's checksums.  An online reader of fast/epoch.h. */
void netdev_netback_tx(struct netdev *, struct rte_mbuf **, unsigned n);

#endif
