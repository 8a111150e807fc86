/* lab_xapid: VMs of a lab that can move, and the host daemons that move them.
 *
 * Cells (tools/cell) are VMs of the pool's database; weft-xapid on each host
 * starts and moves them.  The lab writes their rows and asks for their start;
 * what weft-xapid starts outlives it, and ends with the lab (lab_sweep.c).
 *
 * Called by the supervisor, but for lab_cells_where().  Errors: 0 or a positive
 * errno with lab->why set. */
#ifndef LAB_XAPID_H
#define LAB_XAPID_H

#include <jansson.h>

#include "lab_manage.h"
#include "lab_super.h"

#define LAB_MIGRATE_IF "mig0"

/* The network between the hosts that guests' memory goes by. */
int lab_xapid_build_network(struct super *);
int lab_xapid_start(struct super *, struct lab_host *);
/* All of them, and the cells. */
int lab_xapid_build(struct super *);
/* The cells' VMs and vifs, into a document's lists. */
void lab_xapid_add_cells(const struct lab *, json_t *vms, json_t *vifs);
/* For "weft vm" in the pool's namespace, "NAME=VALUE": which weft-xapid, who asks,
 * and whom to trust: both authorities, for the one is of hosts and the other of
 * the controller.  The last of 'vars' is NULL. */
struct lab_xapid_env {
    struct lab_manage_args manage;
    char xapi[80];
    const char *vars[LAB_MANAGE_N_ARGS + 2];
};
void lab_xapid_environment(const struct lab *, struct lab_xapid_env *);
/* What the controller says of all VMs, [{"name", "power_state", "resident_on",
 * "destination", ...}]; NULL if it does not answer. */
json_t *lab_cells_where(const struct lab *);
/* That of one of them; NULL if there is none. */
const json_t *lab_cell_where(const json_t *vms, const struct lab_cell *);

#endif
