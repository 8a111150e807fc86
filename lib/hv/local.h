/* local: a memory-backed stand-in for Xen, seen from a guest.
 *
 * weft-localxen (the broker) plays the hypervisor on any Linux machine.  In
 * its directory DIR it listens on
 *   DIR/xenstored         the xenstore wire protocol with dom0's rights
 *                         (set XENSTORED_PATH to it; libxenstore is the client)
 *   DIR/broker            domains, grants' mappings, event channels (private)
 *   DIR/domN-xenstored    the xenstore wire protocol with domain N's rights,
 *                         from the moment domain N exists
 * A domain is a region of shared memory (sealed memfd) that starts with a
 * grant table in Xen's v1 layout; grants and event channels behave exactly
 * as Xen's.  A domain lives as long as the connection of the process that
 * created it; event channels and memory survive the death of a backend.
 *
 * This header is the guest's side.  A backend uses hv.h with "local:DIR".
 * Threads: creation and destruction from one thread; everything else from
 * any.  Errors: 0 or a positive errno unless said otherwise. */
#ifndef LOCAL_H
#define LOCAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xs_handle;
struct local_domain;

/* Creates domain 'domid' (1..0x7fef) with 'n_pages' pages of memory for its
 * own use and room for 'n_grants' grants.  EEXIST if it exists. */
int local_domain_create(const char *dir, uint16_t domid, uint32_t n_pages, uint32_t n_grants,
                        struct local_domain **);
void local_domain_destroy(struct local_domain *); /* accepts NULL */
uint16_t local_domain_id(const struct local_domain *);

/* The domain's memory: 'n_pages' consecutive pages, zeroed at creation. */
void *local_domain_memory(struct local_domain *);
/* The memfd that holds it, from '*offset' on; stays the domain's.  For who maps the
 * memory elsewhere (migration, guests linked at an address). */
int local_domain_memory_fd(const struct local_domain *, uint64_t *offset);

/* Grants 'remote' access to page number 'page' of the domain's memory.
 * Returns the grant reference (>= 8, as on Xen) or 0 when the table is full. */
uint32_t local_grant_access(struct local_domain *, uint16_t remote, uint32_t page, bool readonly);
/* Revokes.  EBUSY while the remote side maps or copies it (as
 * gnttab_end_foreign_access would find); the grant then stays. */
int local_grant_end(struct local_domain *, uint32_t ref);

/* Allocates an event channel that 'remote' may bind.  '*fd' becomes readable
 * when the remote side notifies; drain with local_evtchn_clear(). */
int local_evtchn_alloc(struct local_domain *, uint16_t remote, uint32_t *port, int *fd);
void local_evtchn_close(struct local_domain *, uint32_t port);
void local_evtchn_notify(struct local_domain *, uint32_t port);
/* Consumes pending notifications; true if there were any. */
bool local_evtchn_clear(struct local_domain *, uint32_t port);

/* A libxenstore connection with this domain's rights. */
int local_store_open(struct local_domain *, struct xs_handle **);

/* --- for tests and for migration ------------------------------------- */

/* The path of the xenstore socket that dom0 uses. */
void local_store_path(const char *dir, char *buf, size_t size);

/* The domain's hypervisor-side dirty bitmap: one bit for each page of the
 * domain's memory that a backend has written since the last call.  Copies
 * (n_pages + 63) / 64 words into 'bitmap' and clears them. */
void local_dirty_fetch_clear(struct local_domain *, uint64_t *bitmap);

/* Number of grants of this domain that a remote domain now maps or copies. */
unsigned local_grants_in_use(struct local_domain *);

#endif
