/* netfront_peer: a broker in a thread and half a backend, for tests of the
 * frontend.
 *
 * The peer maps a queue's rings and copies frames through hv.h, as netback
 * does, but says and does exactly what a test tells it to.
 *
 *   guest (nf_queue) ==rings== peer (this) <== test
 *
 * Threads: the test's, but for the broker. */
#ifndef NETFRONT_PEER_H
#define NETFRONT_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "hv/hv.h"
#include "hv/xen_abi.h"
#include "netfront_ring.h"

/* --- broker --------------------------------------------------------------- */

/* Exits the program on failure. */
void peer_broker_start(void);
void peer_broker_stop(void);
const char *peer_dir(void);

/* --- backend half ----------------------------------------------------------- */

struct peer {
    struct hv *hv;
    struct hv_grants *grants;
    struct hv_evtchns *events;
    uint16_t domid;
    uint32_t tx_port, rx_port;
    netif_tx_back_ring_t tx;
    netif_rx_back_ring_t rx;
};

struct peer_packet {
    uint8_t data[65536];
    uint32_t len;
    uint16_t flags; /* of the first slot */
    unsigned n_slots, n_extras;
    uint16_t id[18];
    struct netif_extra_info extra[4];
};

/* Maps the rings of a connected queue and binds its event channels. */
int peer_connect(struct peer *, struct nf_queue *);
void peer_disconnect(struct peer *);

/* Takes the next packet without answering it.  False if there is none;
 * a malformed one fails the program's assertion. */
bool peer_take(struct peer *, struct peer_packet *);
/* Answers all slots of a packet, extras in their place. */
void peer_answer(struct peer *, const struct peer_packet *, int16_t status);
/* One raw answer. */
void peer_answer_id(struct peer *, uint16_t id, int16_t status);
/* Shows answers; true if the guest asked to be notified (and was). */
bool peer_push_tx(struct peer *);
/* Asks for an event at the next request; true if there is one. */
bool peer_arm_tx(struct peer *);

/* Copies a frame into posted pages and answers their slots; 'gso' (or NULL)
 * is put second.  False if the guest has not posted enough. */
bool peer_give(struct peer *, const void *frame, uint32_t len, uint16_t flags,
               const struct netif_extra_info *extra);
/* One raw answer in the next slot; false if none is posted. */
bool peer_give_raw(struct peer *, const netif_rx_response_t *);
bool peer_push_rx(struct peer *);
/* Posted slots not used yet. */
unsigned peer_rx_room(const struct peer *);
/* True if the guest notified since the last call. */
bool peer_was_notified(struct peer *);

#endif
