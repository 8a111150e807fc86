/* xen_chunk: what the xen driver's two ends say to each other.
 *
 * A chunk (driver.h) is a sequence of items, numbers little-endian:
 *
 *   kind u32, length u32, then `length` bytes:
 *   1 CONFIG  the domain's configuration, libxl's JSON; first of all, once
 *   2 BYTES   of the stream, verbatim
 *   3 PAGES   n u32 | deltas u32 | zero, 24 bytes | delta, 24 bytes | batches | deltas
 *             the next n pages of the record that the stream is in.  Bit i of
 *             "zero" (byte i / 8, bit i % 8): page i is all zeros.  Of "delta":
 *             length u16 and that many bytes as page_delta.h has them, against
 *             what the cache holds; all these are the item's last `deltas` bytes.
 *             The other pages are in batches: length u32 and that many bytes as
 *             page.h's PAGES records have them.
 *
 * The receiver knows from the stream itself which frames a PAGES item is about.
 *
 * Both ends keep the same cache of pages that are not zero: XEN_CACHE_PAGES of
 * them, that of frame f in place f % XEN_CACHE_PAGES.  So a page that is sent again
 * costs what changed in it, which may be nothing: Xen's log has a page as written
 * when a grant of it was used.  The digest is XXH3's of 128 bits over the whole
 * stream as libxl wrote it and as libxl gets it.
 *
 * Threads: each object is used by one at a time. */
#ifndef WEFT_MIGRATE_XEN_CHUNK_H
#define WEFT_MIGRATE_XEN_CHUNK_H

#include "page.h"
#include "xen_stream.h"

enum {
    XEN_CONFIG_MAX = 256 << 10,
    XEN_CACHE_PAGES = 4096, /* 16 MiB at each end */
};

struct xen_pack;

/* ENOMEM. */
int xen_pack_create(enum mig_compress, struct xen_pack **);
void xen_pack_destroy(struct xen_pack *); /* accepts NULL */
/* An empty chunk.  Then, at most: one CONFIG, or one BYTES and one PAGES. */
void xen_pack_begin(struct xen_pack *);
void xen_pack_config(struct xen_pack *, const char *json, size_t n);
void xen_pack_piece(struct xen_pack *, const struct xen_piece *);
/* The chunk, valid until the next xen_pack_begin(). */
const uint8_t *xen_pack_bytes(const struct xen_pack *, size_t *n);
/* What a byte costs on the wire now; see mig_encoder_wire(). */
void xen_pack_wire(struct xen_pack *, double ns_per_byte);
void xen_pack_digest(const struct xen_pack *, uint8_t digest[MIG_DIGEST_BYTES]);

/* Where the receiver's results go; 0 or an errno that ends it. */
struct xen_sink {
    int (*config)(void *aux, const char *json, size_t n); /* not terminated */
    int (*bytes)(void *aux, const uint8_t *, size_t n);   /* of the stream, checked */
    void *aux;
};

struct xen_unpack;

/* For a domain of this kind whose frames are below 'pfn_limit'. */
int xen_unpack_create(bool pv, uint64_t pfn_limit, const struct xen_sink *, struct xen_unpack **);
void xen_unpack_destroy(struct xen_unpack *); /* accepts NULL */
/* EBADMSG with *why: nothing of the item that is wrong has been handed on. */
int xen_unpack_chunk(struct xen_unpack *, const uint8_t *chunk, size_t n, const char **why);
/* After the last chunk: whole, and as digested by the sender?  EBADMSG.  The sink
 * has got all but xen_stream_end. */
int xen_unpack_finish(struct xen_unpack *, const uint8_t digest[MIG_DIGEST_BYTES],
                      const char **why);

#endif
