/* fleet: the pool's managed hosts.
 *
 * Keeps one "struct host" for each live host of the model, hands it its table
 * of flows, and carries back what the switches say: ports into the model before
 * the compiler runs, status after it.
 *
 * Threads: the daemon's main loop.  Ownership: borrows model and compiler. */
#ifndef CTL_FLEET_H
#define CTL_FLEET_H

#include <stdbool.h>
#include <stdint.h>

struct compile;
struct ds;
struct fleet;
struct model;

struct fleet *fleet_create(struct model *, struct compile *);
void fleet_destroy(struct fleet *);

/* 0: another controller leads. */
void fleet_set_epoch(struct fleet *, uint64_t epoch);
/* A switch obeys a newer epoch than ours. */
bool fleet_is_stale(const struct fleet *);

/* In each turn, in this order, with compile_run() and model_changes_clear()
 * between the two if the model has changes: */
void fleet_sync(struct fleet *); /* from the change set to hosts, from ports to the model */
void fleet_run(struct fleet *);  /* the tables are as the model is */
void fleet_wait(struct fleet *);

/* Compares a host's flows now; all hosts' for NULL.  False: there is none. */
bool fleet_audit(struct fleet *, const char *name);
void fleet_format(const struct fleet *, const char *name, struct ds *);

#endif
