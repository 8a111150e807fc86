/* lab_pool: a lab's pool: its database, its controller, and what the
 * controller is told.
 *
 * Two tenants, each with a VLAN network and an overlay network, and the same
 * addresses in both tenants' networks, so that nothing but the controller's
 * rules keeps them apart.  The database and the controller are daemons of the
 * lab like a host's; the controller reaches the hosts as lab_manage.h says.
 *
 * Called by the supervisor only.  Errors: 0 or a positive errno with lab->why
 * set. */
#ifndef LAB_POOL_H
#define LAB_POOL_H

#include "lab_super.h"

#define LAB_N_NETWORKS 4u

struct lab_network {
    const char *name, *tenant;
    bool overlay;
    unsigned id;     /* VLAN tag or VNI */
    unsigned subnet; /* 10.SUBNET.0.0 */
    unsigned first;  /* number of its first guest */
};

extern const struct lab_network lab_networks[LAB_N_NETWORKS];

/* Bytes that an overlay's outer headers take of the hosts' MTU. */
#define LAB_OVERLAY_OVERHEAD 50u

int lab_pool_start_ovsdb(struct super *);
int lab_pool_start_controllerd(struct super *);
int lab_pool_start_flowd(struct super *);
/* Makes the pool's directories and database, starts both daemons. */
int lab_pool_build(struct super *);
/* Writes DIR/pool/lab.json, has the controller take it, and waits until each
 * host has the flows. */
int lab_pool_state(struct super *);

/* The VIF's and the VM's UUIDs, in place of a toolstack's: the same for the
 * same guest each time, so that a lab can be compared with another. */
void lab_uuid(char kind, unsigned number, char buf[40]);
#define LAB_UUID_VIF '1'
#define LAB_UUID_VM '2'
#define LAB_UUID_NETWORK '3'

#endif
