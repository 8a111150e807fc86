/* ring: the guest's rings, pure protocol.
 *
 * gtx  takes packets out of a guest's transmit ring.
 * grx  puts packets into a guest's receive ring.
 * ctrl answers a guest's control ring.
 * Beside them the tables they use: static grants, hash settings, multicast
 * list, packet buffers, counters.
 *
 * This code starts no thread, takes no lock, sleeps never, and sees the
 * outside only through hv_ops and the hooks in struct ring_port and struct
 * ctrl.  Each gtx, grx, ctrl, pkt_pool and gref_table is used by one thread
 * at a time (its queue's); hash_settings and mcast_list are shared, their
 * rules stand with them.
 *
 * Shared ring pages are written by the guest at any moment: each slot is
 * copied once into private memory and checked before use. */
#ifndef RING_H
#define RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "hv/hv.h"
#include "hv/xen_abi.h"
#include "netback.h"

/* --- counters ---------------------------------------------------------- */

/* One writer (the queue's thread or, for a producer's counters, atomic adds); readers
 * see each value whole. */
struct queue_stats {
#define X(name) _Atomic uint64_t name;
    NETBACK_COUNTERS(X)
#undef X
    _Atomic uint64_t drops[DROP_N_REASONS];
};

/* For the single writer: no locked instruction. */
#define STAT_ADD(field, n)                                                                         \
    atomic_store_explicit(&(field), atomic_load_explicit(&(field), memory_order_relaxed) + (n),    \
                          memory_order_relaxed)
#define STAT_GET(field) atomic_load_explicit(&(field), memory_order_relaxed)

/* --- packet buffers ---------------------------------------------------- */

/* Buffers of a mempool at hand: so that it is asked for many at a time, and
 * not at all for a turn's packets that are freed on the thread that took them. */
#define PKT_STASH 256u
struct pkt_stash {
    struct rte_mempool *mp;
    unsigned n, most, bulk; /* 'bulk' are taken and given back at once */
    void *objects[PKT_STASH];
};

/* A thread's way to the two mempools: threads that are not DPDK lcores get no
 * caches from DPDK. */
struct pkt_pool {
    struct rte_mempool *small, *large;
    struct pkt_stash small_stash, large_stash;
    void (*free_foreign)(struct rte_mbuf *);
    uint16_t small_room; /* frame bytes that fit a small buffer after the headroom */
    uint16_t large_room;
    bool can_slide; /* large buffers have a page to spare: pkt_slide() */
};
void pkt_pool_init(struct pkt_pool *, struct rte_mempool *small, struct rte_mempool *large,
                   void (*free_foreign)(struct rte_mbuf *));
void pkt_pool_done(struct pkt_pool *);
/* Returns cached buffers to the mempools; for a thread about to sleep. */
void pkt_pool_trim(struct pkt_pool *);
/* A buffer for a frame of 'len' bytes, reset, data_len and pkt_len set,
 * NETBACK_HEADROOM in front.  NULL if exhausted or len does not fit. */
struct rte_mbuf *pkt_alloc(struct pkt_pool *, uint32_t len);
/* Moves the data of a fresh large buffer, if the pool has room for that, so
 * that the frame's byte 'ofs' lies 'page_ofs' into a page. */
void pkt_slide(struct pkt_pool *, struct rte_mbuf *, uint32_t ofs, uint32_t page_ofs);
/* Frees any packet the switch may hand over. */
void pkt_free(struct pkt_pool *, struct rte_mbuf *);
void pkt_free_bulk(struct pkt_pool *, struct rte_mbuf **, unsigned n);
/* Buffer memory a packet holds, bytes (not its payload). */
static inline uint32_t
pkt_footprint(const struct rte_mbuf *m)
{
    return m->buf_len + 128u;
}

/* --- static grants ----------------------------------------------------- */

/* Grants a frontend asked to keep mapped (XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING): reference
 * to page.  Open addressing, at most 'limit' entries. */
struct gref_entry {
    uint32_t ref;
    bool used, readonly;
    uint8_t *page;
};
struct gref_table {
    struct gref_entry *slots;
    unsigned mask, n, limit;
    bool unmapped; /* gref_table_unmap() */
};
/* Four neighbours share a cache line: frontends use their pages in turn. */
static inline unsigned
gref_home(const struct gref_table *t, uint32_t ref)
{
    return ((ref >> 2) * 0x9e3779b1u >> 12 << 2 | (ref & 3)) & t->mask;
}
/* The entry of 'ref', or NULL. */
static inline struct gref_entry *
gref_find(const struct gref_table *t, uint32_t ref)
{
    if (!t->n) {
        return NULL;
    }
    for (unsigned i = gref_home(t, ref); t->slots[i].used; i = (i + 1) & t->mask) {
        if (t->slots[i].ref == ref) {
            return &t->slots[i];
        }
    }
    return NULL;
}
/* The page of 'ref', or NULL; 'to_guest' wants it writable. */
static inline uint8_t *
gref_lookup(const struct gref_table *t, uint32_t ref, bool to_guest)
{
    const struct gref_entry *e = gref_find(t, ref);

    return e && !(to_guest && e->readonly) ? e->page : NULL;
}
/* Maps and adds all of 'list' or none.  EEXIST on a duplicate, ENOSPC past the limit, or
 * what the mapping failed with. */
int gref_table_add(struct gref_table *, const struct hv_ops *, struct hv_grants *, uint16_t domid,
                   const struct xen_netif_gref *list, unsigned n);
/* Unmaps; ENOENT if it is not there. */
int gref_table_del(struct gref_table *, const struct hv_ops *, struct hv_grants *, uint32_t ref);
/* Unmaps all. */
void gref_table_clear(struct gref_table *, const struct hv_ops *, struct hv_grants *);
/* Unmaps all but keeps them, and what is added: the frontend's list goes on, each is
 * copied by grant meanwhile (its page is NULL).  For a migration: Xen notes what is
 * written to a mapped page only when it is unmapped.  gref_table_map() ends that; returns
 * how many could not be mapped again, which go on being copied by grant. */
void gref_table_unmap(struct gref_table *, const struct hv_ops *, struct hv_grants *);
unsigned gref_table_map(struct gref_table *, const struct hv_ops *, struct hv_grants *,
                        uint16_t domid);

/* --- hash settings ----------------------------------------------------- */

#define HASH_KEY_MAX 40u
#define HASH_MAPPING_MAX 4096u

/* Per vif.  Written by the control ring's thread, read by any: each field is
 * read whole, a packet hashed during a change may take either queue. */
struct hash_settings {
    _Atomic uint32_t algorithm;             /* XEN_NETIF_CTRL_HASH_ALGORITHM_* */
    _Atomic uint32_t flags;                 /* XEN_NETIF_CTRL_HASH_TYPE_* */
    _Atomic uint32_t mapping_size;          /* entries; 0: modulo the queues */
    _Atomic uint32_t key[HASH_KEY_MAX / 4]; /* big-endian words */
    _Atomic uint32_t *mapping;              /* HASH_MAPPING_MAX entries */
};
int hash_settings_init(struct hash_settings *); /* ENOMEM */
void hash_settings_done(struct hash_settings *);
/* Computes the hash the guest asked for.  Returns its type (one of the _XEN_NETIF_CTRL_HASH_TYPE_*
 * bit numbers) or -1 if none applies to this frame. */
int hash_frame(const struct hash_settings *, const uint8_t *frame, size_t len, uint32_t *hash);
/* The guest's queue for a frame, below 'n_queues'.  When the guest set no hash
 * it is by 'spread', and if that is 0 by addresses and ports. */
unsigned hash_queue(const struct hash_settings *, const uint8_t *frame, size_t len,
                    unsigned n_queues, uint32_t spread);

/* --- multicast list ---------------------------------------------------- */

#define MCAST_MAX 64u /* as Linux's XEN_NETBK_MCAST_MAX */

/* Per vif.  Any queue's thread may change it (lock-free), any thread reads. */
struct mcast_list {
    _Atomic bool enabled;             /* request-multicast-control */
    _Atomic uint64_t addr[MCAST_MAX]; /* MAC in the low 48 bits; 0: free */
};
int mcast_add(struct mcast_list *, const uint8_t mac[6]); /* ENOSPC */
int mcast_del(struct mcast_list *, const uint8_t mac[6]); /* ENOENT */
/* True if a frame to 'mac' may pass: unicast, broadcast, listed, or off. */
bool mcast_pass(const struct mcast_list *, const uint8_t mac[6]);

/* --- answers under way ---------------------------------------------------- */

#define RING_SLOTS 256u /* of guest transmit and receive rings */

/* Answers overlay requests in the ring: whoever is killed between the first
 * of them and the new rsp_prod leaves neither.  So they are written here
 * first, outside the process (journal.h), and its successor finishes them.
 *
 * 'from' == 'to' == rsp_prod between bursts.  In a burst: answers, 'to', the
 * ring's slots, rsp_prod, 'from', in this order. */
struct rsp_log {
    uint32_t from, to;        /* ring indices */
    uint64_t rsp[RING_SLOTS]; /* by slot; a transmit response and 4 bytes, or a receive response */
};

/* The same for the control ring, whose requests are answered one by one. */
struct ctrl_log {
    uint32_t index; /* of the request */
    uint32_t under_way;
    struct xen_netif_ctrl_response rsp;
};

/* --- what the rings of one queue share ---------------------------------- */

/* The frontend's feature keys, read at connect. */
struct guest_features {
    bool sg;            /* feature-sg */
    bool gso_tcpv4;     /* feature-gso-tcpv4 */
    bool gso_tcpv6;     /* feature-gso-tcpv6 */
    bool csum_blank_v4; /* not feature-no-csum-offload */
    bool csum_blank_v6; /* feature-ipv6-csum-offload */
};

struct ring_port {
    struct hv *hv;
    struct hv_grants *grants;
    uint16_t domid;
    struct guest_features features;
    _Atomic uint16_t mtu; /* L3 bytes */
    struct pkt_pool *pool;
    struct gref_table *grefs;
    const struct hash_settings *hash;
    struct mcast_list *mcast;
    struct queue_stats *stats;
    struct rsp_log *tx_log, *rx_log; /* NULL: nobody will succeed us */
    /* The guest changed its multicast list. */
    void (*mcast_changed)(void *aux);
    void *aux;
};

/* --- guest transmit ----------------------------------------------------- */

struct gtx {
    netif_tx_back_ring_t ring;
    struct ring_port *port;
    /* rate limit: 'credit' bytes left, refilled every 'credit_period_ns' */
    uint64_t credit_bytes, credit_left, credit_period_ns, credit_refill_at_ns;
    /* What further bursts may take, bytes; the owner sets it before each turn.
     * A frame in a large buffer counts as GTX_LARGE_COST at least, for those
     * are few. */
    size_t turn_left;
    /* The owner hands a burst's packets on at once and then calls gtx_settle(). */
    bool may_defer;
    unsigned n_partial;          /* packets of the last burst that are partial */
    struct gtx_scratch *scratch; /* private copies of slots, copy segments */
};

#define GTX_LARGE_COST 8192u
#define GTX_BURST_MAX 64u

/* Attaches to a ring page and resumes at its rsp_prod: on a fresh ring that is 0, after
 * our own death it is where the last process stopped answering, once what it
 * had under way by its log is finished.  EPROTO if the page's indices cannot be. */
int gtx_init(struct gtx *, struct ring_port *, void *page);
void gtx_done(struct gtx *);
/* "rate" key: 'bytes' per 'usecs'; 0 bytes: unlimited. */
void gtx_set_rate(struct gtx *, uint64_t bytes, uint64_t usecs);
/* Takes up to 'n' <= 64 packets (a packet too large for one buffer may give
 * several) while 'turn_left' lasts, answers their slots, and sets '*notify' if
 * the guest wants to know.  Returns the number of packets, or -EPROTO if the ring is broken and
 * the vif must be switched off. */
int gtx_burst(struct gtx *, struct rte_mbuf **, unsigned n, bool *notify);
/* Partial packets.  With 'may_defer', of a large frame only the headers may have been
 * copied: the rest is in the guest's pages, where whoever delivers to another
 * guest takes it from (grx.from).  The buffer has room for it; everyone else has it
 * brought there first.  Such a packet's slots are answered by gtx_settle(). */
#define PKT_PARTIAL 0xff00u /* in mbuf.port, + the packet's index in its burst */
/* True for a packet of the last burst. */
bool gtx_is_partial(const struct gtx *, const struct rte_mbuf *);
/* Where the rest is, in order, its first byte being that at '*at' in the buffer;
 * returns how many pieces, at most XEN_NETIF_NR_SLOTS_MIN. */
struct gtx_piece {
    uint32_t ref;
    uint16_t offset, len;
};
unsigned gtx_pieces(const struct gtx *, const struct rte_mbuf *, struct gtx_piece *,
                    const uint8_t **at);
/* Brings the rest.  False if the guest's grants do not allow it: counted as a drop and
 * told to the guest; the packet is the caller's to free. */
bool gtx_bring(struct gtx *, struct rte_mbuf *);
/* The same for the partial ones among 'pkts'; frees those that failed and returns
 * how many are left. */
unsigned gtx_complete(struct gtx *, struct rte_mbuf **pkts, unsigned n);
/* Nobody has partial packets of the last burst any more: answers what waits for that. */
void gtx_settle(struct gtx *, bool *notify);
/* True if a burst would find a request now. */
bool gtx_pending(const struct gtx *);
/* Asks for an event at the next request; true if there is one already. */
bool gtx_arm(struct gtx *);
/* When the rate limit lets the next packet through (now_ns clock); 0: now. */
uint64_t gtx_credit_wait(const struct gtx *);

/* --- guest receive ------------------------------------------------------ */

struct grx {
    netif_rx_back_ring_t ring;
    struct ring_port *port;
    struct gtx *from; /* whose packets may be partial, on this thread; or NULL */
    struct grx_scratch *scratch;
};

int grx_init(struct grx *, struct ring_port *, void *page); /* as gtx_init */
void grx_done(struct grx *);
/* Delivers packets in order while the guest has buffers.  Consumes the first
 * 'return value' of 'pkts' (delivered, or dropped and counted); the rest stay the caller's.
 * Frames the guest cannot take are cut or summed here.
 * Returns -EPROTO if the ring is broken. */
int grx_burst(struct grx *, struct rte_mbuf **, unsigned n, bool *notify);
/* Free buffers the guest offers, in slots; -EPROTO as above. */
int grx_slots(const struct grx *);
/* Slots that delivering 'm' takes. */
unsigned grx_slots_needed(const struct grx *, const struct rte_mbuf *m);
/* Asks for an event when 'slots' are free; true if they are already. */
bool grx_arm(struct grx *, unsigned slots);

/* --- control ring ------------------------------------------------------- */

/* What a control request changes outside hash_settings.  Calls come on the thread
 * that runs ctrl_run(); all return 0 or a positive errno. */
struct ctrl_hooks {
    unsigned (*gref_limit)(void *aux, unsigned queue);
    int (*gref_add)(void *aux, unsigned queue, const struct xen_netif_gref *, unsigned n);
    int (*gref_del)(void *aux, unsigned queue, uint32_t ref);
    void (*hash_changed)(void *aux);
};

struct ctrl {
    struct xen_netif_ctrl_back_ring ring;
    struct hv *hv;
    struct hv_grants *grants;
    uint16_t domid;
    unsigned n_queues;
    struct hash_settings *hash;
    struct queue_stats *stats;
    const struct ctrl_hooks *hooks;
    void *aux;
    struct ctrl_log *log; /* may be NULL */
};

/* The caller fills every field but 'ring' first. */
int ctrl_init(struct ctrl *, void *page);
/* Answers at most 'budget' requests.  Returns how many, or -EPROTO. */
int ctrl_run(struct ctrl *, unsigned budget, bool *notify);
bool ctrl_arm(struct ctrl *);

#endif
