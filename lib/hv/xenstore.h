/* xenstore: a xenstore without sockets: bytes of xen/io/xs_wire.h in, bytes
 * out.
 *
 * It holds the tree, permissions, transactions, watches and quotas, and does
 * what xenstored does (docs/misc/xenstore.txt in Xen's source), for any
 * number of clients with dom0's rights or a domain's.  xenstore_sock.h puts
 * sockets in front of it.
 *
 * Hostile by default: a client's bytes are in a private buffer before they
 * are looked at.  What a domain can make the server hold is bounded by its
 * quotas; a client that does not read is first not listened to, and cut off
 * when its watch events pile up.
 *
 * Threads: one.  Ownership: clients and domains must be gone before the
 * store. */
#ifndef XENSTORE_H_
#define XENSTORE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xenstore;
struct xenstore_client;

/* 'wake' is called with a client's 'ctx' when it has something to send; it may
 * be called in the middle of another client's request, and must only note it. */
struct xenstore *xenstore_create(void (*wake)(void *ctx));
void xenstore_destroy(struct xenstore *); /* accepts NULL */

/* A domain comes: makes the nodes that a toolstack would make, and fires
 * @introduceDomain. */
void xenstore_introduce(struct xenstore *, uint16_t domid);
/* A domain has gone: fires @releaseDomain.  Its clients must be gone. */
void xenstore_release(struct xenstore *, uint16_t domid);

/* A connection with the rights of 'domid'; 0 may do everything. */
struct xenstore_client *xenstore_client_create(struct xenstore *, uint16_t domid, void *ctx);
void xenstore_client_destroy(struct xenstore_client *);

/* Input: where the next bytes go, and room for how many (0: do not read from
 * this client now).  Then say how many came; what is complete is carried out.
 * Returns 0, or EPROTO if the client must be cut off. */
void *xenstore_client_space(struct xenstore_client *, size_t *room);
int xenstore_client_received(struct xenstore_client *, size_t n);

/* Output: what is to be sent next (NULL: nothing), and how much of it was.
 * xenstore_client_sent() may carry out requests that had to wait. */
const void *xenstore_client_output(const struct xenstore_client *, size_t *len);
int xenstore_client_sent(struct xenstore_client *, size_t n);

/* Why the client must be cut off, or NULL. */
const char *xenstore_client_fault(const struct xenstore_client *);

#endif
