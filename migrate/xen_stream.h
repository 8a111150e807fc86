/* xen_stream: checks and cuts a Xen domain's migration stream.
 *
 * The stream is libxl's (version 2: header, records) with one image of libxc's
 * (version 2 or 3: two headers, records) behind its LIBXC_CONTEXT record.
 * Source of the formats: Xen, docs/specs/libxl-migration-stream.pandoc and
 * libxc-migration-stream.pandoc.
 *
 * Three layers, none of which knows the toolstack:
 *
 *   xen_stream  the state machine: says what comes next and checks it.  It keeps
 *               no bytes but the frame numbers of the PAGE_DATA record it is in.
 *   xen_split   at the source: bytes as they are read -> pieces
 *   xen_join    at the destination: pieces -> bytes that may be handed on
 *
 * All bytes count as hostile.  Refused are: lengths and counts out of bounds or
 * at odds with each other, frame numbers beyond the domain's, page types and
 * mandatory records that are unknown or of another kind of domain, records out of
 * order, checkpointed streams, anything behind the end.  The contents of records
 * (registers, policies) are Xen's to check, which does.
 *
 * Threads: each object is used by one at a time.  Ownership: pieces point into
 * the splitter's buffer and are valid until its next call. */
#ifndef WEFT_MIGRATE_XEN_STREAM_H
#define WEFT_MIGRATE_XEN_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "driver.h"

enum {
    XEN_PIECE_PAGES = 192,
    XEN_PIECE_BYTES = 192 << 10, /* with a piece of pages it fits into a chunk */
    XEN_BATCH_PAGES = 4096,      /* most in one PAGE_DATA record; libxc writes 1,024 */
    XEN_RECORD_BYTES = 64 << 20,
    XEN_HEADER_BYTES = 16, /* of libxl's stream */
    XEN_RECORD_HEADER_BYTES = 8,
};

/* As the image's domain header has them. */
enum xen_domain_type { XEN_DOMAIN_PV = 1, XEN_DOMAIN_HVM = 2, XEN_DOMAIN_PVH = 3 };

enum xen_want {
    XEN_WANT_FIXED, /* exactly n bytes at once */
    XEN_WANT_BODY,  /* n bytes, in pieces of any size */
    XEN_WANT_PAGE,  /* exactly one page, of frame xen_stream_pfn(); n such follow each other */
    XEN_WANT_END,   /* nothing: the stream is complete */
};

struct xen_stream {
    uint8_t state;  /* enum of xen_stream.c */
    bool pv;        /* the domain's kind, as expected */
    bool image_end; /* libxc's END was there */
    uint32_t seen;  /* libxc's records, by type */
    uint32_t version;
    uint64_t pfn_limit;
    uint32_t type; /* of the record that is under way */
    uint64_t left; /* of its body, with padding */
    uint32_t n_pfns, n_pages, next_page;
    uint64_t pfns[XEN_BATCH_PAGES]; /* of those with data */
};

/* A domain of this kind whose frames are below 'pfn_limit'. */
void xen_stream_init(struct xen_stream *, bool pv, uint64_t pfn_limit);
enum xen_want xen_stream_want(const struct xen_stream *, size_t *n);
uint64_t xen_stream_pfn(const struct xen_stream *);
/* What was wanted, n bytes of it.  EBADMSG: refused, for good; *why says why. */
int xen_stream_take(struct xen_stream *, const uint8_t *bytes, size_t n, const char **why);

/* The bytes that libxl puts before and behind libxc's image for a domain without
 * a device model: header and LIBXC_CONTEXT; END. */
enum { XEN_PROLOGUE_BYTES = XEN_HEADER_BYTES + XEN_RECORD_HEADER_BYTES };
extern const uint8_t xen_stream_prologue[XEN_PROLOGUE_BYTES];
extern const uint8_t xen_stream_end[XEN_RECORD_HEADER_BYTES];

enum xen_piece_kind { XEN_BYTES, XEN_PAGES, XEN_END };
struct xen_piece {
    enum xen_piece_kind kind;
    const uint8_t *bytes;
    size_t n_bytes;       /* BYTES: at most XEN_PIECE_BYTES, PAGES: of all pages */
    const uint64_t *pfns; /* PAGES: of each, n_pages <= XEN_PIECE_PAGES */
    uint32_t n_pages;
};

struct xen_split {
    struct xen_stream stream;
    uint8_t *buffer;
    size_t size, from, to; /* [from, to) has been read but not cut */
    uint64_t pfns[XEN_PIECE_PAGES];
};

/* ENOMEM. */
int xen_split_init(struct xen_split *, bool pv, uint64_t pfn_limit);
void xen_split_free(struct xen_split *);
/* Where the next bytes of the stream are to be read to, and how many fit (at
 * least one after xen_split_next() said EAGAIN). */
uint8_t *xen_split_room(struct xen_split *, size_t *n);
void xen_split_read(struct xen_split *, size_t n);
/* The next piece; END behind the last, again and again.  EAGAIN: more
 * bytes are needed.  EBADMSG: see xen_stream_take(). */
int xen_split_next(struct xen_split *, struct xen_piece *, const char **why);

/* The piece's bytes come next in the stream; the first *n of them may be handed
 * on now.  libxl's END record is kept back: what was joined is complete when
 * xen_join_complete(), and xen_stream_end goes to libxl once everybody agrees. */
int xen_join(struct xen_stream *, const struct xen_piece *, size_t *n, const char **why);
static inline bool
xen_join_complete(const struct xen_stream *s)
{
    size_t n;

    return xen_stream_want(s, &n) == XEN_WANT_END;
}

#endif
