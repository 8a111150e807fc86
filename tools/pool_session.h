/* pool_session: the session of "weft login", kept for the commands after it.
 *
 * A file that only its owner can read ($XDG_STATE_HOME/weft/session, or
 * ~/.local/state/weft/session).  The token in it goes to the controller that it
 * is for, and to nobody else.  Single-threaded. */
#ifndef POOL_SESSION_H
#define POOL_SESSION_H

#include <stddef.h>

struct pool_session {
    char controller[300]; /* as --controller has it; empty: the usual socket */
    char ca_cert[1024];   /* or empty */
    char token[128];
};

/* 0; ENOENT: there is none; or another errno with a sentence in 'why'. */
int pool_session_read(struct pool_session *, char *why, size_t why_size);
int pool_session_write(const struct pool_session *, char *why, size_t why_size);
/* The same; ENOENT if there was none. */
int pool_session_remove(char *why, size_t why_size);

#endif
