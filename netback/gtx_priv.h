/* gtx_priv: a gtx's inside, shared by its files. */
#ifndef GTX_PRIV_H
#define GTX_PRIV_H

#include <string.h>

#include "gtx_frame.h"
#include "ring_priv.h"

#define ETH_HDR_LEN 14u

/* Slots without an entry of 'packets': a frame that crosses two buffers
 * takes one copy more than it has slots. */
#define COPIES_MAX (XEN_NETIF_NR_SLOTS_MIN + 1u)

enum discard {
    DISCARD_NONE,
    DISCARD_DATA,       /* data slots follow */
    DISCARD_EXTRA,      /* extras follow, then the end */
    DISCARD_EXTRA_DATA, /* extras follow, then data slots */
};

struct gtx_packet {
    RING_IDX first; /* slot 0 */
    uint8_t n_extras;
    uint8_t n_data;      /* data slots, slot 0 included */
    uint16_t first_size; /* bytes in slot 0's page */
    int16_t status;      /* NETIF_RSP_* */
    uint16_t head;       /* of a partial packet: bytes that are there; else 0 */
    enum discard then;   /* what of an overlong chain comes after */
    struct gtx_request request;
    struct rte_mbuf *m, *rest;
};

struct gtx_scratch {
    RING_IDX fetched;
    RING_IDX idle_at; /* req_prod at which there is nothing to do */
    enum discard discard;
    bool broken;
    uint16_t mtu;
    uint32_t credit_needed; /* bytes that wait for credit; 0: none */
    struct rte_mbuf *spill; /* second part of a packet, no room in the last burst */
    unsigned n_packets;
    bool deferred;     /* this burst's answers wait: some packets are partial */
    RING_IDX answered; /* those before it do not */
    /* What became of partial packets, and how many large frames are copied whole
     * for it: gtx_partial.c. */
    unsigned n_brought, pause, pause_left;
    bool spoilt;         /* a grant failed that a packet had been partial for */
    struct rsp_log *log; /* the port's, or 'own_log' */
    bool failed[GTX_BURST_MAX];
    struct gtx_packet packets[GTX_BURST_MAX];
    netif_tx_request_t slot[RING_SLOTS];
    struct rsp_log own_log;
    struct copy_batch batch;
};

static inline const netif_tx_request_t *
slot_at(const struct gtx_scratch *s, RING_IDX i)
{
    return &s->slot[i % RING_SLOTS];
}

/* Prepares the next response. */
static inline void
gtx_respond(struct gtx *g, uint16_t id, int16_t status)
{
    const netif_tx_response_t rsp = {.id = id, .status = status};
    uint64_t word = 0;

    memcpy(&word, &rsp, sizeof rsp);
    g->scratch->log->rsp[g->ring.rsp_prod_pvt++ % RING_SLOTS] = word;
}

/* --- gtx.c --------------------------------------------------------------- */

void gtx_drop(struct gtx *, struct gtx_packet *, enum drop_reason);
/* Answers the burst's packets and what waits before them. */
void gtx_answer_burst(struct gtx *, bool *notify);

/* --- gtx_single.c -------------------------------------------------------- */

/* Takes the packets at the ring's head that are of one slot in a page under a static
 * grant, 'room' at most and while 'turn_left' lasts, and prepares their
 * answers; returns how many packets it put to 'pkts'. */
unsigned gtx_single(struct gtx *, struct rte_mbuf **pkts, unsigned room);

/* --- gtx_partial.c ------------------------------------------------------- */

/* A smaller frame is one copy either way. */
#define DEFER_MIN (HV_PAGE_SIZE + 1u)
/* How many bytes of a checked packet to copy at first; 0: all. */
uint16_t gtx_head(struct gtx *, const struct gtx_packet *);
/* Lists the copies of the bytes from 'from' to 'to'; there is room. */
void gtx_list_range(struct gtx_scratch *, const struct gtx_packet *, uint32_t from, uint32_t to);
/* The offloads of a packet of which the head is there; brings the rest if headers do
 * not end in it. */
enum drop_reason gtx_head_offloads(struct gtx *, struct gtx_packet *, struct frame_layout *);

#endif
