/* agent: carries out on this host what rows say.
 *
 * Everything is decided anew in each turn from the rows and from what runs here,
 * so that a weft-xapid that was killed at any point goes on where things stand.
 *
 *   agent.c          work orders: start, shut down; what died, what strayed
 *   agent_guest.c    kinds of guests, and what they have in common
 *   agent_cell.c     cells as processes
 *   agent_xen.c      Xen's domains, each watched by a process
 *   agent_migrate.c  both ends of a migration
 *   agent_job.c      what their weft-migrate is told
 *   agent_move.c     evacuation of the host
 *   agent_vif.c      plugging of vifs
 *
 * A VM runs where its row says (resident_on, epoch), and nowhere else: its guest is
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
    bool told_postcopy;
    unsigned tries;

    /* Migrations. */
    double progress;
    char phase[32], stats[PROC_LINE_MAX];
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

/* --- kinds of guests ---------------------------------------------------------------------- */

/* What there is of a VM's guest on this host. */
enum guest_state {
    GUEST_NONE,
    GUEST_ALIVE, /* it runs, is being made, or nobody knows yet */
    GUEST_ENDED, /* what its process left has not been taken away */
};

enum guest_end {
    GUEST_CLEAN, /* it is asked to */
    GUEST_HARD,
    GUEST_KILL, /* that took too long */
};

/* How the guests of a kind are run: each has a process called PREFIX and the VM's
 * uuid.  'vm' is that uuid: the row may be gone. */
struct guest_driver {
    const char *name; /* VM.driver, and weft-migrate's */
    const char *prefix;
    int start_ms; /* it takes no longer to start */
    /* 'why' of one that has ended; "" if it was asked to. */
    enum guest_state (*state)(struct agent *, const char *vm, char why[200]);
    /* 0 or an errno.  There is nothing of it here. */
    int (*start)(struct agent *, const struct poolrec_vm *);
    /* The same, for what must be here before it comes; NULL: nothing. */
    int (*await)(struct agent *, const struct poolrec_vm *);
    /* One that is alive: it is up. */
    bool (*ready)(struct agent *, const char *vm);
    /* Finds a guest that has no process; NULL: there is no such guest. */
    int (*adopt)(struct agent *, const struct poolrec_vm *);
    void (*end)(struct agent *, const char *vm, enum guest_end);
    /* "vif5.0" of its interface; the caller's. */
    char *(*port)(struct agent *, const char *vm, const char *device);
    /* What weft-migrate's driver must know of it; NULL: nothing. */
    void (*describe)(struct agent *, const char *vm, struct json *job);
};

/* agent_guest.c */
extern const struct guest_driver *const guest_drivers[];
extern const size_t n_guest_drivers;
const struct guest_driver *guest_driver(const struct poolrec_vm *); /* NULL: unknown */
/* Its process's name; the caller's. */
char *guest_name(const struct guest_driver *, const char *vm);
struct proc *guest_proc(struct agent *, const struct guest_driver *, const char *vm);
/* Takes away what one that has ended left. */
void guest_forget(struct agent *, const struct guest_driver *, const char *vm);
/* state(), after looking for a guest without a process. */
enum guest_state guest_look(struct agent *, const struct guest_driver *, const struct poolrec_vm *,
                            char why[200]);
/* A file of --share, of which clients say the name; NULL: it is none there.  The caller's. */
char *guest_file(struct agent *, const char *name);

/* agent_cell.c, agent_xen.c */
extern const struct guest_driver guest_cell, guest_xen;

/* agent_job.c */
/* One line of JSON for that end of the migration; 'role' is send, receive or recover.
 * The caller's. */
char *migration_job(struct agent *, const struct poolrec_migration *, const struct poolrec_vm *,
                    const char *role);

/* agent_migrate.c */
void step_migrate(struct work *, const struct poolrec_task *, const struct poolrec_vm *);
void step_incoming(struct work *, const struct poolrec_migration *);
void look_at_migrate(const char *name, void *agent); /* for procs_each() */

/* agent_move.c */
void step_evacuate(struct work *, const struct poolrec_task *);
/* agent_vif.c */
void step_plug(struct work *, const struct poolrec_task *, const struct poolrec_vm *);

#endif
