/* driver_xen: the Xen driver's inside (driver_xen*.c).
 *
 * Theory of operation.
 *
 * Source.  A thread runs libxenguest's xc_domain_save(), which makes the rounds
 * and writes its image into a pipe; libxl_domain_suspend_only() suspends the guest
 * when libxenguest asks for it.  So the rounds are ours to stop, and the last look
 * at the dirty log comes after the network is held.  libxl's header goes before
 * the image, its END behind: for a domain without a device model (PV, PVH) that is
 * all libxl_domain_suspend() would add.  stream_next() reads the pipe, cuts the
 * stream (xen_stream.h) and packs it (xen_chunk.h).
 *
 * A PV guest on a hypervisor without shadow paging (Debian's) has no dirty log: it
 * is suspended first and copied then.
 *
 * Destination.  Chunks are unpacked, checked and written into a pipe that
 * libxl_domain_create_restore() reads in a thread of its own; the last record,
 * without which libxl does not finish, waits for the digest.  The domain is called
 * NAME--incoming, as by `xl`, until it runs.
 *
 * In xenstore, /libxl/DOMID/weft/epoch is the epoch with which the domain last
 * ran here, .../loaded exists between stream_finish() and run().  Guests cannot
 * see them; libxl removes them with the domain.
 *
 * Threads: the engine's, and one of the toolstack's; what both touch is atomic or
 * guarded as said.  libxl's context may be used by several. */
#ifndef WEFT_MIGRATE_DRIVER_XEN_PRIV_H
#define WEFT_MIGRATE_DRIVER_XEN_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include <libxl.h>
#include <libxl_utils.h>
#include <xenctrl.h>
#include <xenguest.h>
#include <xenstore.h>

#include "driver.h"
#include "xen_chunk.h"

struct xen_log {
    xentoollog_logger logger; /* first */
    pthread_mutex_t lock;
    char last[MIG_WHY]; /* under lock: the first error since xen_log_clear() */
};

struct xen_guest {
    struct mig_guest guest; /* first */
    struct xen_log log;
    libxl_ctx *ctx;
    xc_interface *xch;
    struct xs_handle *xs;
    libxl_uuid uuid;
    uint32_t domid; /* destination: INVALID_DOMID until libxl says */
    bool pv;
    uint64_t epoch;     /* of the configuration */
    uint64_t max_memkb; /* of the domain */
    uint64_t pfn_limit; /* frames are below */
    enum mig_compress compress;
    char *script; /* destination: plugs its vifs in */
    char *bridge; /* destination: where; NULL: as at the source */

    int cancel_fd;         /* eventfd, readable once cancelled */
    atomic_bool cancelled; /* written by stream_cancel() */
    struct xen_save *save; /* source, from stream_start() on */
    struct xen_load *load; /* destination, from stream_open() on */
};

static inline struct xen_guest *
xen_guest_of(struct mig_guest *g)
{
    return (struct xen_guest *)g;
}

/* A handle without a domain; xen_close() frees it and leaves the domain as it is. */
int xen_open(const struct mig_guest_config *, struct xen_guest **, char why[MIG_WHY]);
void xen_close(struct xen_guest *); /* accepts NULL */
/* The domain's state; ENOENT if there is none, or one that is about to go. */
int xen_domain_info(struct xen_guest *, libxl_dominfo *);
/* The live domain with our uuid; INVALID_DOMID if there is none.  EIO: nobody knows. */
int xen_domain_by_uuid(struct xen_guest *, uint32_t *domid);
/* Half made or complete, but not ours to run yet. */
bool xen_is_incoming(struct xen_guest *);

/* Fills 'why' with 'what', and what libxl complained about first. */
void xen_why(struct xen_guest *, char why[MIG_WHY], const char *what);
void xen_log_clear(struct xen_log *);

/* A key of /libxl/DOMID/weft.  Reading one that is not there is 0. */
int xen_key_write(struct xen_guest *, const char *key, uint64_t value);
uint64_t xen_key_read(struct xen_guest *, const char *key);
void xen_key_remove(struct xen_guest *, const char *key);

/* driver_xen_save.c */
int xen_save_start(struct mig_guest *, const struct mig_stream_start *);
int xen_save_next(struct mig_guest *, const uint8_t **bytes, size_t *n);
void xen_save_stats(struct mig_guest *, struct mig_stream_stats *);
int xen_save_digest(struct mig_guest *, uint8_t digest[MIG_DIGEST_BYTES]);
void xen_save_end(struct xen_guest *); /* stops what runs; the guest stays as it is */

/* driver_xen_load.c */
int xen_load_open(struct mig_guest *, char why[MIG_WHY]);
int xen_load_put(struct mig_guest *, const uint8_t *bytes, size_t n, char why[MIG_WHY]);
int xen_load_finish(struct mig_guest *, const uint8_t digest[MIG_DIGEST_BYTES], char why[MIG_WHY]);
void xen_load_end(struct xen_guest *); /* stops what runs; libxl discards what is not whole */

/* A destination's domain until it runs. */
#define XEN_INCOMING "--incoming"

#endif
