/* xenstore_sock: the sockets of the xenstore server: dom0's and one for each
 * domain, over the protocol core in xenstore.h.
 *
 * Threads: the one of the loop. */
#ifndef XENSTORE_SOCK_H
#define XENSTORE_SOCK_H

#include <stddef.h>
#include <stdint.h>

#include "local_loop.h"

struct xenstore_server;
struct xenstore_listener;

/* Listens on DIR/xenstored.  'log' gets one line each time a client is cut
 * off for what it does. */
int xenstore_server_open(struct local_loop *, const char *dir,
                         void (*log)(void *ctx, const char *line), void *ctx,
                         struct xenstore_server **);
void xenstore_server_close(struct xenstore_server *); /* accepts NULL */
/* Sends what is queued to clients other than the one that caused it.  Call
 * after each round of the loop. */
void xenstore_server_flush(struct xenstore_server *);

/* A domain comes: its nodes, its socket DIR/domN-xenstored, @introduceDomain. */
int xenstore_domain_add(struct xenstore_server *, uint16_t domid, struct xenstore_listener **);
/* A domain goes: its connections are closed, @releaseDomain; its nodes stay. */
void xenstore_domain_remove(struct xenstore_server *, uint16_t domid, struct xenstore_listener *);

#endif
