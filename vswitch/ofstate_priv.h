/* What ofstate.c and ofstate_file.c share: a bridge's OpenFlow state as text. */
#ifndef OFSTATE_PRIV_H
#define OFSTATE_PRIV_H

#include <stddef.h>

struct ds;

/* Asks the bridge behind 'target' ("unix:...") for all of its state and
 * appends it to 'out'.  A positive errno, with a sentence in '*why' that the
 * caller frees. */
int ofstate_dump(const char *target, struct ds *out, char **why);

#define OFSTATE_HEADER "weft-openflow 1"
/* The state of a bridge that has no flows. */
#define OFSTATE_NOTHING OFSTATE_HEADER "\nend 0\n"

/* The reverse: replaces the bridge's state by what 'text' says.  Everything is
 * parsed before anything is sent, and flows are replaced in one bundle.
 * '*n_flows' becomes their number. */
int ofstate_load(const char *target, char *text, size_t *n_flows, char **why);

#endif
