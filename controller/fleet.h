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
#include <stddef.h>
#include <stdint.h>

struct compile;
struct ds;
struct fleet;
struct match;
struct model;
struct model_vif;
struct share;
struct uuid;

struct fleet *fleet_create(struct model *, struct compile *);
void fleet_destroy(struct fleet *);

/* Asks for each host with which epoch we lead it; 0: another controller does. */
void fleet_lead(struct fleet *, uint64_t (*epoch)(const struct share *, const struct uuid *host),
                const struct share *);
/* A host whose switch obeys a newer epoch than ours, or NULL. */
const struct uuid *fleet_stale(const struct fleet *);

/* In each turn, in this order, with compile_run() and model_changes_clear()
 * between the two if the model has changes: */
void fleet_sync(struct fleet *); /* from the change set to hosts, from ports to the model */
void fleet_run(struct fleet *);  /* the tables are as the model is */
void fleet_wait(struct fleet *);

/* Switches report new connections for so many seconds (host_tap()); how many do. */
size_t fleet_tap(struct fleet *, unsigned seconds);
/* Likewise of a vif's packets, on the host where it is (host_tap_port()). */
bool fleet_tap_vif(struct fleet *, const struct model_vif *, const struct match *filter,
                   unsigned seconds);
/* Compares a host's flows now; all hosts' for NULL.  False: there is none. */
bool fleet_audit(struct fleet *, const char *name);
void fleet_format(const struct fleet *, const char *name, struct ds *);

#endif
