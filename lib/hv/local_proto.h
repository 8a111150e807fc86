/* local_proto: what weft-localxen's broker and its clients share: the
 * messages on DIR/broker and the layout of the memory handed out there.
 *
 * Messages: SOCK_SEQPACKET, one struct local_req a request, answered by one
 * struct local_rep with the same 'seq', in order; a client has at most one
 * request outstanding.  Both are cut after the last array element in use.
 * A connection's first request says what it is: LOCAL_OP_BACKEND makes it a
 * backend (dom0), LOCAL_OP_CREATE a domain.  The broker ends a domain, or
 * takes back all that a backend held, when the connection closes.
 *
 * Memory: a domain has two sealed memfds.
 *   guest  pages of grant table (v1 entries), then 'n_pages' pages of memory;
 *          shared with the guest, so hostile.
 *   state  struct local_state, then a pin word for each grant entry (see
 *          local_pin.h), then the dirty bitmap; never given to a guest. */
#ifndef LOCAL_PROTO_H
#define LOCAL_PROTO_H

#include <stddef.h>
#include <stdint.h>

#include "xen_abi.h"

#define LOCAL_PAGE 4096u
#define LOCAL_BACKEND_DOMID 0
#define LOCAL_MAX_DOMID 0x7fef      /* the last one below DOMID_FIRST_RESERVED */
#define LOCAL_MAX_PAGES (1u << 24)  /* 64 GiB */
#define LOCAL_MAX_GRANTS (1u << 20) /* four times Xen's highest usual limit */
#define LOCAL_MAX_PORTS 4096u       /* of one domain: Xen's 2-level limit */
#define LOCAL_MAP_MAX 512u          /* grants in one LOCAL_OP_MAP */
#define LOCAL_DIRTY_MAX 512u        /* bitmap words in one LOCAL_OP_DIRTY */
#define LOCAL_MAX_FDS 2u
#define LOCAL_RPC_TIMEOUT_S 10

enum local_op {
    /* From a backend. */
    LOCAL_OP_BACKEND = 1, /* fds: host page (struct local_host) */
    LOCAL_OP_ATTACH,      /* domid; fds: guest, state; a: n_pages, b: n_entries, generation */
    LOCAL_OP_OWNER_NEW,   /* a: a pin owner's id */
    LOCAL_OP_OWNER_FREE,  /* a: that id */
    LOCAL_OP_MAP, /* domid, a: writable, b: generation, refs[n]; a: mapping, b: n failed, maps[n] */
    LOCAL_OP_UNMAP,  /* a: mapping */
    LOCAL_OP_BIND,   /* domid, a: remote port; a: port, fds: in, out */
    LOCAL_OP_UNBIND, /* a: port */
    /* From a domain. */
    LOCAL_OP_CREATE, /* domid, a: n_pages, b: n_grants; fds: guest */
    LOCAL_OP_ALLOC,  /* domid: remote; a: port, fds: in, out */
    LOCAL_OP_CLOSE,  /* a: port */
    LOCAL_OP_DIRTY,  /* a: first word, n: words; words[n], fetched and cleared */
    LOCAL_OP_IN_USE, /* a: number of grants pinned */
    LOCAL_OP_DESTROY,
};

struct local_req {
    uint32_t op; /* enum local_op */
    uint32_t seq;
    uint32_t domid;
    uint32_t a, b;
    uint32_t n; /* elements in 'refs' (MAP), words wanted (DIRTY) */
    uint32_t refs[LOCAL_MAP_MAX];
};
#define LOCAL_REQ_HDR offsetof(struct local_req, refs)
_Static_assert(LOCAL_REQ_HDR == 24, "a wire format");

struct local_map_result {
    int32_t status; /* GNTST_* */
    uint32_t page;  /* number of the page in the domain's memory */
};

struct local_rep {
    uint32_t seq;
    uint32_t error; /* 0 or a positive errno */
    uint32_t a, b;
    uint32_t n; /* elements in the array */
    uint32_t generation;
    union {
        struct local_map_result maps[LOCAL_MAP_MAX];
        uint64_t words[LOCAL_DIRTY_MAX];
    };
};
#define LOCAL_REP_HDR offsetof(struct local_rep, maps)
_Static_assert(LOCAL_REP_HDR == 24, "a wire format");
_Static_assert(sizeof(struct local_map_result) == sizeof(uint64_t), "one size for both arrays");

/* One page of the broker's, read-only for backends. */
struct local_host {
    uint64_t n_created; /* domains ever created; written by the broker */
};

/* First page of a domain's state memfd.  Written by the broker. */
struct local_state {
    uint32_t dead; /* nonzero once the domain is gone; never 0 again */
};

static inline size_t
local_table_bytes(uint32_t n_entries)
{
    size_t bytes = n_entries * sizeof(grant_entry_v1_t);

    return (bytes + LOCAL_PAGE - 1) / LOCAL_PAGE * LOCAL_PAGE;
}

static inline size_t
local_guest_bytes(uint32_t n_pages, uint32_t n_entries)
{
    return local_table_bytes(n_entries) + (size_t)n_pages * LOCAL_PAGE;
}

static inline size_t
local_dirty_words(uint32_t n_pages)
{
    return ((size_t)n_pages + 63) / 64;
}

static inline size_t
local_state_bytes(uint32_t n_pages, uint32_t n_entries)
{
    return LOCAL_PAGE + ((size_t)n_entries + local_dirty_words(n_pages)) * sizeof(uint64_t);
}

/* What a domain's two memfds look like when mapped. */
struct local_view {
    uint8_t *guest; /* whole guest memfd; the table comes first */
    struct local_state *state;
    uint64_t *entries; /* = guest: v1 entries as words; guest-writable */
    uint8_t *memory;   /* page 0 of the domain's memory; guest-writable */
    uint64_t *pins;
    uint64_t *dirty;
    uint32_t n_entries;
    uint32_t n_pages;
};

/* Maps a domain's memfds.  The caller keeps the descriptors. */
int local_view_map(struct local_view *, int guest_fd, int state_fd, uint32_t n_pages,
                   uint32_t n_entries);
void local_view_unmap(struct local_view *); /* accepts one never mapped, if zeroed */

#endif
