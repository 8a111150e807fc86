/* agent: carries out on this host what rows say.
 *
 * Everything is decided anew in each turn from the rows and from what runs here,
 * so that a weft-xapid that was killed at any point goes on where things stand.
 *
 *   agent.c          work orders: start, shut down; what died, what strayed
 *   agent_cell.c     cells as processes
 *   agent_migrate.c  both ends of a migration
 *   agent_move.c     evacuation of the host
 *   agent_vif.c      plugging of vifs
 *
 * A VM runs where its row says (resident_on, epoch), and nowhere else: a cell is
 * started after the row says so, and the row is changed after it has ended.
 *
 * Threads: the daemon's main loop. */
#ifndef XAPI_AGENT_H
#define XAPI_AGENT_H

#include "openvswitch/hmap.h"
#include "proc.h"
#include "xapi.h"

/* One order, or one incoming migration, while it is under way. */
struct work {
    struct hmap_node node;
    char key[80];
    bool busy; /* a transaction is on its way */
    bool seen;
    struct agent *agent;
    long long int since; /* of the present step */
    bool told;           /* the process has been told */
    unsigned tries;

    /* Migrations. */
    double progress;
    char phase[32], stats[1500];
    bool fresh; /* they have not been written */
    long long int wrote;
    bool ended; /* a result came */
    char status[16], why[200];
    long long int confirm_since;
};

struct agent {
    struct xapi *x;
    struct procs *procs;
    struct hmap works;
    long long int look_at; /* at what died */
};

struct agent *agent_create(struct xapi *);
void agent_destroy(struct agent *);
void agent_run(struct xapi *);
void agent_wait(struct xapi *);

/* --- between its files ------------------------------------------------------------------ */

/* Transactions of a piece of work; NULL: not now. */
struct ovsdb_idl_txn *work_begin(struct work *);
void work_commit(struct work *, struct ovsdb_idl_txn *);
/* Looks again in so many ms, at the latest. */
void work_again(struct work *, int ms);
/* The order ends, and nothing else changes with it. */
void work_fail(struct work *, const struct poolrec_task *, const struct fault *);
struct work *work_get(struct agent *, const char *key);
/* Whether name is of the agent's own host. */
bool agent_is(const struct agent *, const char *host);
/* "VM.start" of "Async.VM.start". */
const char *task_method(const struct poolrec_task *);

/* agent_cell.c */
struct proc *cell_find(struct agent *, const char *vm);
int cell_start(struct agent *, const struct poolrec_vm *, bool incoming);
bool cell_ready(struct agent *, const char *vm);
void cell_end(struct agent *, const char *vm, bool hard);
/* "vif5.0" of its first interface; the caller's. */
char *cell_port(struct agent *, const char *vm, const char *device);

/* agent_migrate.c */
void step_migrate(struct work *, const struct poolrec_task *, const struct poolrec_vm *);
void step_incoming(struct work *, const struct poolrec_migration *);
void look_at_migrate(const char *name, void *agent); /* for procs_each() */

/* agent_move.c */
void step_evacuate(struct work *, const struct poolrec_task *);
/* agent_vif.c */
void step_plug(struct work *, const struct poolrec_task *, const struct poolrec_vm *);

#endif
