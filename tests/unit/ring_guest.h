/* ring_guest: a guest for ring tests, friendly by default and as hostile as
 * a test wants, beside everything a queue has in netback.
 *
 * It owns a fake_hv, three ring pages, transmit and receive buffers, and the
 * backend's structures.  A test uses the friendly calls, or writes slots
 * itself.  Mempools and EAL are made once per process, and shared.
 *
 * Threads: one. */
#ifndef RING_GUEST_H
#define RING_GUEST_H

#include "fake_hv.h"
#include "ring.h"

#define GUEST_TX_PAGES 256u /* tx_ref[0..] grants page TX_PAGE + i */
#define GUEST_RX_PAGES 256u
#define GUEST_N_PAGES (4u + GUEST_TX_PAGES + GUEST_RX_PAGES)
#define GUEST_POISON 0xa5

struct ring_guest {
    struct fake_hv *hv;
    /* the guest's ends */
    netif_tx_front_ring_t tx;
    netif_rx_front_ring_t rx;
    struct xen_netif_ctrl_front_ring ctrl;
    uint8_t *scratch_page; /* for control messages */
    uint32_t scratch_ref;
    uint32_t tx_ref[GUEST_TX_PAGES], rx_ref[GUEST_RX_PAGES];
    uint8_t *tx_page[GUEST_TX_PAGES], *rx_page[GUEST_RX_PAGES];
    unsigned next_tx_page;
    uint16_t rx_id[256]; /* by ring slot: what was offered */
    uint16_t next_rx;

    /* the backend's */
    struct ring_port port;
    struct pkt_pool pool;
    struct gref_table grefs;
    struct hash_settings hash;
    struct mcast_list mcast;
    struct queue_stats stats;
    struct gtx gtx;
    struct grx grx;
    struct ctrl back_ctrl;
    unsigned mcast_changes, hash_changes;
};

/* Starts EAL once and makes the mempools.  Exits the program on failure. */
void ring_guest_env(void);
extern struct rte_mempool *ring_small, *ring_large;
/* Buffers outside the mempools, those of thread caches not counted; call
 * when no guest exists. */
unsigned ring_buffers_lost(void);

/* All features on, MTU 1500, connected. */
void guest_init(struct ring_guest *);
void guest_done(struct ring_guest *);
/* The backend's ends again from the pages' state, as a successor does. */
int guest_reattach(struct ring_guest *);
/* Grants every buffer statically through the control ring. */
bool guest_map_all(struct ring_guest *);

/* --- transmit --- */
/* A raw slot at the guest's producer index; its id is the index. */
void guest_tx_slot(struct ring_guest *, uint32_t ref, uint16_t offset, uint16_t size,
                   uint16_t flags);
void guest_tx_extra(struct ring_guest *, const netif_extra_info_t *);
void guest_tx_push(struct ring_guest *);
/* A whole packet, 'first' bytes at most in each slot; 'extra' may be NULL. */
void guest_tx_frame(struct ring_guest *, const uint8_t *frame, uint16_t len, uint16_t flags,
                    const netif_extra_info_t *extra, uint16_t per_slot);
/* Takes one response; false if there is none. */
bool guest_tx_response(struct ring_guest *, netif_tx_response_t *);
/* Takes all responses; returns how many had 'status'. */
unsigned guest_tx_responses(struct ring_guest *, int16_t status);
/* A burst of up to 64 packets. */
int guest_gtx_burst(struct ring_guest *, struct rte_mbuf **);

netif_extra_info_t guest_gso(uint8_t type, uint16_t mss);

/* --- receive --- */
void guest_rx_offer(struct ring_guest *, unsigned n);
struct guest_packet {
    uint32_t len;
    unsigned n_slots;
    uint16_t flags;               /* slot 0's */
    bool error;                   /* some slot has an error status */
    bool malformed;               /* breaks the protocol */
    netif_extra_info_t gso, hash; /* type 0: none */
    uint8_t data[65536];          /* 'len' bytes of it */
};
/* Takes one packet off the ring as a netfront does; false if there is none. */
bool guest_rx_packet(struct ring_guest *, struct guest_packet *);
/* An mbuf with these bytes, as the switch would hand over. */
struct rte_mbuf *guest_mbuf(struct ring_guest *, const void *frame, uint32_t len);

/* --- control --- */
struct xen_netif_ctrl_response guest_ctrl(struct ring_guest *, uint16_t type, uint32_t d0,
                                          uint32_t d1, uint32_t d2);

/* --- frames --- */
struct frame_spec {
    bool v6, udp, blank;
    unsigned payload;
    unsigned tags; /* 802.1Q tags */
    uint32_t seq;
    uint8_t tcp_flags; /* 0: ACK */
    uint16_t src_port;
};
/* Builds a frame with right lengths and checksums (or pseudo-header sums). */
uint32_t frame_build(uint8_t *frame, const struct frame_spec *);
/* True if IP header, lengths and transport checksum are right. */
bool frame_sound(const uint8_t *frame, uint32_t len);

#endif
