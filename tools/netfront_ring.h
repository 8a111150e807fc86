/* netfront_ring: one queue of a guest's network interface, frontend's half.
 *
 * A queue is a transmit ring, a receive ring, one or two event channels and
 * the pages that hold frames.  All pages belong to the guest's memory, are
 * granted to the backend once per connection and reused for every packet, so
 * that a packet costs no grant and no revocation.
 *
 * Transmit: reserve pages, fill them, put the frame, push.
 *   page = nf_tx_reserve(); ... nf_tx_put(); ... nf_tx_push();
 * Receive: take frames, look at them, give their pages back, push.
 *   while (nf_rx_next(&frame) > 0) { ...; nf_rx_repost(); } nf_rx_push();
 *
 * Threads: a queue belongs to one thread at a time; only its statistics may
 * be read by others.  Errors: 0 or a positive errno unless said otherwise.
 * Source: xen/io/netif.h, xen/io/ring.h. */
#ifndef NETFRONT_RING_H
#define NETFRONT_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "hv/hv.h"
#include "hv/local.h"
#include "hv/xen_abi.h"

/* Transmit pages.  More than the ring has slots (256), so that a frame of 17
 * pages always finds them in one run without waiting for the wrap. */
#define NF_TX_PAGES 320u
/* Receive pages, one for each slot of the ring. */
#define NF_RX_PAGES 256u
/* One more transmit page for frames that are not the mode's own. */
#define NF_TX_AUX_ID NF_TX_PAGES
/* Requests without a page of their own (multicast list changes) in flight. */
#define NF_MCAST_IDS 32u
#define NF_TX_IDS (NF_TX_PAGES + 1u + NF_MCAST_IDS)
/* Guest pages one queue takes: both rings, transmit, auxiliary, receive. */
#define NF_QUEUE_PAGES (2u + NF_TX_PAGES + 1u + NF_RX_PAGES)
/* Largest frame: the first slot's size field is 16 bits wide. */
#define NF_FRAME_MAX 65535u
/* Where frames start in a transmit page unless the caller says otherwise:
 * room for a header in front, frames aligned to a cache line. */
#define NF_TX_OFFSET 64u
/* Pages that hold NF_FRAME_MAX bytes from NF_TX_OFFSET on. */
#define NF_TX_FRAME_PAGES 17u
/* Fragments a received frame may have. */
#define NF_RX_FRAGS_MAX 18u

#define NF_STATS(X)                                                                                \
    X(tx_packets)                                                                                  \
    X(tx_bytes)                                                                                    \
    X(tx_gso)                                                                                      \
    X(tx_csum_blank)                                                                               \
    X(tx_errors)                                                                                   \
    X(rx_packets)                                                                                  \
    X(rx_bytes)                                                                                    \
    X(rx_gso)                                                                                      \
    X(rx_csum_blank)                                                                               \
    X(rx_hash)                                                                                     \
    X(rx_errors)                                                                                   \
    X(rx_overruns)                                                                                 \
    X(mcast_errors)                                                                                \
    X(notifies)                                                                                    \
    X(wakeups)

/* Written by the queue's thread only. */
struct nf_stats {
#define X(name) _Atomic uint64_t name;
    NF_STATS(X)
#undef X
};

/* Single writer: no locked instruction. */
#define NF_ADD(field, n)                                                                           \
    atomic_store_explicit(&(field), atomic_load_explicit(&(field), memory_order_relaxed) + (n),    \
                          memory_order_relaxed)
#define NF_GET(field) atomic_load_explicit(&(field), memory_order_relaxed)

/* A request's place in flight. */
enum nf_tx_state {
    NF_TX_FREE,
    NF_TX_FIRST, /* first slot of a frame: its response decides the frame's fate */
    NF_TX_REST,  /* further slots of a frame */
    NF_TX_MCAST, /* multicast list change */
};

struct nf_queue {
    struct local_domain *dom;
    uint16_t backend;    /* domain that is granted access */
    uint32_t first_page; /* page number of the transmit ring */
    bool connected, split;
    uint32_t tx_port, rx_port; /* the same unless split */
    int tx_fd, rx_fd;

    uint32_t gref[NF_QUEUE_PAGES]; /* 0: not granted */

    netif_tx_front_ring_t tx;
    uint8_t *tx_pages;           /* NF_TX_PAGES + 1 consecutive pages */
    unsigned tx_cursor;          /* next page to reserve */
    uint8_t tx_state[NF_TX_IDS]; /* enum nf_tx_state */
    unsigned mcast_next;         /* next id to try, from 0 */

    netif_rx_front_ring_t rx;
    uint8_t *rx_pages; /* page i is always posted in slot i */

    struct nf_stats stats;
};

/* What goes with a frame besides its bytes. */
struct nf_meta {
    bool csum_blank;     /* L4 checksum field holds the pseudo-header sum */
    bool data_validated; /* L4 checksum is known right */
    uint8_t gso_type;    /* XEN_NETIF_GSO_TYPE_*, 0: none */
    uint16_t gso_size;   /* bytes of payload per segment */
    bool has_hash;
    uint8_t hash_type, hash_algorithm; /* as in struct netif_extra_info */
    uint32_t hash;
};

struct nf_rx_frame {
    struct iovec frag[NF_RX_FRAGS_MAX]; /* into the queue's receive pages */
    unsigned n_frags;
    uint32_t len; /* sum of the fragments */
    struct nf_meta meta;
};

/* Binds a queue to NF_QUEUE_PAGES pages of the guest's memory. */
void nf_queue_init(struct nf_queue *, struct local_domain *, uint32_t first_page);
/* Grants all pages to 'backend', allocates event channels, makes empty rings
 * and posts every receive page.  ENOSPC if the grant table is full. */
int nf_queue_connect(struct nf_queue *, uint16_t backend, bool split);
/* Closes the event channels and revokes the grants.  Returns how many pages
 * the backend still holds; those keep their grant and are reused as they are. */
unsigned nf_queue_disconnect(struct nf_queue *);

uint32_t nf_queue_tx_ref(const struct nf_queue *); /* of the ring page */
uint32_t nf_queue_rx_ref(const struct nf_queue *);
/* Grants of the pages that carry frames, transmit pages (read-only) first.
 * Fills at most 'cap' entries, returns how many there are. */
unsigned nf_queue_data_grefs(const struct nf_queue *, struct xen_netif_gref *, unsigned cap);

/* --- transmit ------------------------------------------------------------ */

/* 'n' <= NF_TX_FRAME_PAGES consecutive free pages, or NULL if the pages or
 * the slots (n + 2 for extras) are taken.  Reserving again without a put
 * returns the same pages. */
uint8_t *nf_tx_reserve(struct nf_queue *, unsigned n);
/* Number of a page returned by nf_tx_reserve(), below NF_TX_PAGES. */
static inline unsigned
nf_tx_page_index(const struct nf_queue *q, const uint8_t *page)
{
    return (unsigned)(page - q->tx_pages) / HV_PAGE_SIZE;
}
/* Queues the frame of 'len' <= NF_FRAME_MAX bytes that lies at 'offset' of
 * the pages just reserved and spans no more than them. */
void nf_tx_put(struct nf_queue *, uint32_t offset, uint32_t len, const struct nf_meta *);
/* Copies and queues a short frame (<= 1,514 bytes) through the auxiliary
 * page.  EAGAIN if the last one is still in flight or the ring is full. */
int nf_tx_put_aux(struct nf_queue *, const void *frame, uint32_t len);
/* Asks the backend to add to or remove from its multicast list.  EAGAIN if
 * the ring is full. */
int nf_tx_put_mcast(struct nf_queue *, const uint8_t mac[6], bool add);
/* Shows what was put to the backend and notifies it if it wants to know. */
void nf_tx_push(struct nf_queue *);
/* Takes the backend's answers.  Returns how many, or -EPROTO if they cannot be. */
int nf_tx_reap(struct nf_queue *);
/* Asks for an event once 'slots' are free (or half of what is in flight is
 * answered, if that is later).  True if there are answers to take already. */
bool nf_tx_arm(struct nf_queue *, unsigned slots);
static inline unsigned
nf_tx_in_flight(const struct nf_queue *q)
{
    return q->tx.req_prod_pvt - q->tx.rsp_cons;
}

/* --- receive ------------------------------------------------------------- */

/* Takes the next frame.  Returns 1; 0 when there is none; -EPROTO if the ring
 * is broken.  Frames that the backend marked or made bad are counted and
 * skipped. */
int nf_rx_next(struct nf_queue *, struct nf_rx_frame *);
/* Gives back the pages of all frames taken so far; the frames become invalid. */
void nf_rx_repost(struct nf_queue *);
/* Slots reposted since the last push. */
static inline unsigned
nf_rx_unpushed(const struct nf_queue *q)
{
    return q->rx.req_prod_pvt - q->rx.sring->req_prod;
}
/* Shows the backend what was reposted and notifies it if it wants to know. */
void nf_rx_push(struct nf_queue *);
/* Reposts, and pushes once enough has gathered: for use after each frame. */
void nf_rx_recycle(struct nf_queue *);
/* Asks for an event at the next frame; true if there is one already. */
bool nf_rx_arm(struct nf_queue *);
/* True if nf_rx_next() would find something. */
static inline bool
nf_rx_pending(const struct nf_queue *q)
{
    return *(volatile RING_IDX *)&q->rx.sring->rsp_prod != q->rx.rsp_cons;
}

#endif
