/* ring_priv: what the ring code shares inside itself.
 *
 * Indices of Xen rings (xen/io/ring.h) read and published with the barriers
 * they need, the functions that copy slots out of shared pages, and the batch
 * of copies between guest and private memory.
 *
 * Threads: as ring.h says; a copy_batch belongs to one gtx or grx. */
#ifndef RING_PRIV_H
#define RING_PRIV_H

#include <string.h>

#include <rte_branch_prediction.h>
#include <rte_memcpy.h>
#include <rte_prefetch.h>

#include "offload.h"
#include "ring.h"

/* Tags that may stand beside an MTU-sized packet: Ethernet header and two. */
#define FRAME_OVERHEAD 22u

/* Fetches a line that another core has and that will be written here: once,
 * not first to be read and then to be owned.  (The compiler's own makes a
 * prefetch to read of it for this architecture level.  Where the instruction
 * is missing it does nothing.) */
static inline void
prefetch_write(const void *p)
{
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)p));
}

/* --- buffers -------------------------------------------------------------- */

/* How many buffers before its turn one is asked to come near: most were last
 * touched by another core. */
#define PKT_STASH_AHEAD 8u

/* Takes a bulk, or what an almost empty pool still has. */
bool pkt_stash_refill(struct pkt_stash *) __attribute__((noinline));

/* A buffer, as it was left, or NULL. */
static inline struct rte_mbuf *
pkt_stash_get(struct pkt_stash *s)
{
    if (unlikely(!s->n) && !pkt_stash_refill(s)) {
        return NULL;
    }
    if (likely(s->n > PKT_STASH_AHEAD)) {
        rte_prefetch0(s->objects[s->n - 1 - PKT_STASH_AHEAD]);
    }
    return s->objects[--s->n];
}

/* Makes it a packet of 'len' bytes.  What lies in a pool has one reference, one segment
 * and no next (rte_mbuf.h); the rest of the first cache line is ours to set.
 * The second is left alone until an offload needs it. */
static inline void
pkt_reset(struct rte_mbuf *m, uint32_t len)
{
    m->data_off = NETBACK_HEADROOM;
    m->port = RTE_MBUF_PORT_INVALID;
    m->ol_flags = 0;
    m->packet_type = 0;
    m->vlan_tci = 0;
    m->data_len = len;
    m->pkt_len = len;
}

/* --- indices ------------------------------------------------------------- */

/* An index the guest writes.  What it covers may be read afterwards. */
static inline RING_IDX
ring_index_load(const RING_IDX *index)
{
    return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

/* Publishes responses up to 'to'; the guest has seen those up to 'from'.
 * Returns true if it wants an event. */
static inline bool
ring_publish(RING_IDX *rsp_prod, const RING_IDX *rsp_event, RING_IDX from, RING_IDX to)
{
    __atomic_store_n(rsp_prod, to, __ATOMIC_RELEASE);
    xen_mb();
    return (RING_IDX)(to - __atomic_load_n(rsp_event, __ATOMIC_RELAXED)) < (RING_IDX)(to - from);
}

/* Asks for an event when the guest's index passes 'at' - 1.  The caller looks
 * at the index again afterwards. */
static inline void
ring_ask_event(RING_IDX *req_event, RING_IDX at)
{
    __atomic_store_n(req_event, at, __ATOMIC_RELAXED);
    xen_mb();
}

/* --- answers under way ---------------------------------------------------- */

/* Keeps the compiler from moving stores.  Nothing stronger is needed: a
 * successor runs after all stores of a process that is dead. */
#define log_order() atomic_signal_fence(memory_order_seq_cst)

/* True if answers up to 'log->to' are to be finished, 'answered' being the
 * ring's rsp_prod and 'prod' its req_prod. */
static inline bool
rsp_log_unfinished(const struct rsp_log *log, RING_IDX answered, RING_IDX prod)
{
    RING_IDX n = log->to - log->from;

    return n && log->from == answered && n <= prod - answered;
}

/* --- slots --------------------------------------------------------------- */

/* The only readers of slots in shared pages.  Each byte of a slot is loaded
 * once; the functions stay out of line so that a test can prove it from their
 * machine code. */
void ring_fetch_tx(netif_tx_request_t *to, const union netif_tx_sring_entry *ring, RING_IDX first,
                   RING_IDX end);
void ring_fetch_rx(netif_rx_request_t *to, const union netif_rx_sring_entry *ring, RING_IDX first,
                   RING_IDX end);
void ring_fetch_ctrl(struct xen_netif_ctrl_request *to,
                     const union xen_netif_ctrl_sring_entry *slot);

/* --- copies -------------------------------------------------------------- */

/* Copies at most a page's bytes.  Inline where that is shorter than the call. */
static inline void
copy_bytes(void *to, const void *from, uint32_t len)
{
    struct half_line {
        uint8_t bytes[32];
    } head, tail;

    if (len - 32 <= 32) { /* most small frames: two loads, two stores */
        memcpy(&head, from, 32);
        memcpy(&tail, (const char *)from + len - 32, 32);
        memcpy(to, &head, 32);
        memcpy((char *)to + len - 32, &tail, 32);
    } else if (len <= 256) {
        rte_memcpy(to, from, len);
    } else {
        memmove(to, from, len); /* a guest may grant one page twice */
    }
}

/* Copies to be made between guest and private memory.  Those through static
 * grants are plain copies, delayed only so that their cache lines can arrive;
 * the rest go to the hypervisor together. */
struct copy_batch {
    struct ring_port *port;
    unsigned n_grant, n_direct;
    bool use_static; /* any static grants at all? */
    xengnttab_grant_copy_segment_t grant[HV_COPY_MAX];
    uint16_t owner[HV_COPY_MAX]; /* of the segment of the same index */
    struct copy_direct {
        void *to;
        const void *from;
        uint32_t len;
    } direct[HV_COPY_MAX];
};

/* Starts a burst. */
static inline void
copy_begin(struct copy_batch *b, struct ring_port *port)
{
    b->port = port;
    b->n_grant = b->n_direct = 0;
    b->use_static = port->grefs && port->grefs->n;
}

/* True if 'n' more copies fit. */
static inline bool
copy_has_room(const struct copy_batch *b, unsigned n)
{
    return b->n_grant + n <= HV_COPY_MAX && b->n_direct + n <= HV_COPY_MAX;
}

/* Those through the hypervisor. */
void copy_from_grant(struct copy_batch *, void *to, uint32_t ref, uint16_t offset, uint16_t len,
                     uint16_t owner);
void copy_to_grant(struct copy_batch *, uint32_t ref, const void *from, uint16_t len,
                   uint16_t owner);
/* Adds a copy; 'offset' + 'len' lies within the page.  If it fails,
 * copy_run() sets 'failed[owner]'. */
static inline void
copy_from_guest(struct copy_batch *b, void *to, uint32_t ref, uint16_t offset, uint16_t len,
                uint16_t owner)
{
    const uint8_t *page = b->use_static ? gref_lookup(b->port->grefs, ref, false) : NULL;

    prefetch_write(to);
    if (page) {
        rte_prefetch0(page + offset);
        b->direct[b->n_direct++] = (struct copy_direct){to, page + offset, len};
    } else {
        copy_from_grant(b, to, ref, offset, len, owner);
    }
}
static inline void
copy_to_guest(struct copy_batch *b, uint32_t ref, const void *from, uint16_t len, uint16_t owner)
{
    uint8_t *page = b->use_static ? gref_lookup(b->port->grefs, ref, true) : NULL;

    if (page) {
        prefetch_write(page);
        b->direct[b->n_direct++] = (struct copy_direct){page, from, len};
    } else {
        copy_to_grant(b, ref, from, len, owner);
    }
}
/* From another guest's page ('from': its port, of the same thread) to 'to_offset' of
 * this one's. */
void copy_between(struct copy_batch *, const struct ring_port *from, uint32_t ref, uint16_t offset,
                  uint32_t to_ref, uint16_t to_offset, uint16_t len, uint16_t owner);
/* Makes all copies and empties the batch. */
void copy_run(struct copy_batch *, bool *failed);

/* --- parts of a TCP segment ---------------------------------------------- */

/* A run of a large TCP segment's payload that becomes a frame of its own. */
struct gso_part {
    uint32_t payload_ofs; /* bytes of the whole's payload before it */
    uint32_t payload_len;
    uint16_t n_before; /* wire segments before it: IPv4 ids to skip */
    bool last;
};
/* Turns a copy of the whole's headers into the part's: lengths, IPv4 id and
 * checksum, sequence number, flags, pseudo-header sum.  'l' is the whole's
 * layout and becomes the part's. */
void gso_part_headers(uint8_t *frame, struct frame_layout *l, const struct gso_part *);

#endif
