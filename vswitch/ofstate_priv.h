/* What ofstate's files share: a bridge's OpenFlow state as text, and where it is. */
#ifndef OFSTATE_PRIV_H
#define OFSTATE_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

struct ds;

/* Asks the bridge behind 'target' ("unix:...") for all of its state and
 * appends it to 'out'.  A positive errno, with a sentence in '*why' that the
 * caller frees. */
int ofstate_dump(const char *target, struct ds *out, char **why);

#define OFSTATE_HEADER "weft-openflow 1"

/* The reverse: replaces the bridge's state by what 'text' says.  Everything is
 * parsed before anything is sent, and flows are replaced in one bundle.  May be
 * tried again after whatever error.
 * '*n_flows' becomes their number.  '*torn' tells of an error that flows may have changed, which is
 * only so with a bridge that has no bundles (before OpenFlow 1.3). */
int ofstate_load(const char *target, char *text, size_t *n_flows, bool *torn, char **why);

/* The bridge's flows stay although it gets its first controllers.  The main thread. */
bool ofstate_keeps_flows(const char *bridge);

/* --- ofstate_disk.c --- */

/* 0 and the text in '*text', which the caller frees, or a positive errno. */
int ofstate_read(const char *path, char **text);
int ofstate_replace(const char *path, const struct ds *text);
/* A second name for a file that cannot be used as it is: the first is written anew once the bridge
 * has other flows. */
void ofstate_keep_aside(const char *path);
/* All 0 if it cannot be told. */
struct stat ofstate_stat(const char *path);
bool ofstate_same_file(const struct stat *, const struct stat *);

/* Of the bridge's management connection; malloc'ed. */
char *ofstate_target(const char *bridge);
bool ofstate_is_up(const char *bridge);
/* A killed process leaves its sockets: they shall not be taken for those of bridges that are up. */
void ofstate_remove_dead_sockets(void);

#endif
