/* ofstate_hold: a bridge that waits for its policy decides nothing for guests.
 *
 * A bridge is held from the moment its saved state turns out not to come back at
 * once until it has come, or until somebody gives the bridge flows by OpenFlow.
 * Meanwhile no port takes or gets a packet but the host's own (the local port and
 * internal ones) and its uplinks, and packets of uplinks go to the host alone: the
 * host is managed and controllers reach the bridge, guests and tunnels are cut
 * off.  This does not depend on what the flow tables hold, nor on a transaction
 * that could fail.
 *
 * Threads: as each function says. */
#ifndef OFSTATE_HOLD_H
#define OFSTATE_HOLD_H

#include <stdbool.h>

struct ds;
struct ovsdb_idl;
struct ovsrec_bridge;

/* --- any thread --- */

/* Holds the bridge, which need not be there yet. */
void ofstate_hold(const char *bridge, const char *why);
/* If it is held, that is why. */
void ofstate_hold_why(const char *bridge, const char *why);
/* Each that was held when it was last run is held in the datapath's translation, too. */
bool ofstate_hold_in_effect(void);
/* Changes of a held bridge's flows are ours from here on.  False: it is not held, or somebody
 * else has given it flows, which are not to be replaced. */
bool ofstate_hold_loads(const char *bridge);
/* They are not any more. */
enum ofstate_hold_end {
    OFSTATE_HOLD_STAYS,   /* none of its flows has changed, or somebody else has given it some */
    OFSTATE_HOLD_TORN,    /* held still, but any of its flows may have changed */
    OFSTATE_HOLD_LOADED,  /* it has its policy: controllers read it again */
    OFSTATE_HOLD_NOTHING, /* it has none: default flows; one that was forgotten is there again */
};
void ofstate_hold_loaded(const char *bridge, enum ofstate_hold_end);
/* Is no longer in the database: held until it has gone. */
void ofstate_hold_forget(const char *bridge);
void ofstate_hold_show(const char *bridge, struct ds *);

/* --- the main thread --- */

/* The IDL has bridges' ports and ports' names and interfaces, with type, options and external_ids.
 */
void ofstate_hold_init(const struct ovsdb_idl *);
/* Whether the bridge joins others to one uplink and has nothing else, like the controller's for a
 * bond: it is not to be held, because they are, and the host may be behind one of them. */
bool ofstate_is_uplink_bridge(const struct ovsrec_bridge *);
/* In each turn, after bridge_run(); calls 'taken' for each bridge that somebody else has given
 * flows: it is held no longer. */
void ofstate_hold_run(void (*taken)(const char *bridge));
void ofstate_hold_wait(void);
void ofstate_hold_exit(void);

#endif
