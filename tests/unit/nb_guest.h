/* nb_guest: a guest with one vif for whole-netback tests: a domain of its own,
 * its rings, its side of XenBus, friendly by default and as hostile as a test wants.
 *
 * Written against io/netif.h alone, on purpose without the project's own
 * netfront.  Slot i of a ring always uses data page i of its queue.
 *
 * Threads: a guest belongs to one at a time.  Waiting calls return false at
 * their deadline. */
#ifndef NB_GUEST_H
#define NB_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "hv/hv.h"
#include "hv/local.h"
#include "toolstack.h"

#define NB_MAX_QUEUES 5u /* one more than the rig offers */
#define NB_SLOTS 256u

struct nb_guest;
struct netback_vif;

struct nb_queue {
    struct nb_guest *g;
    netif_tx_front_ring_t tx;
    netif_rx_front_ring_t rx;
    uint32_t tx_ring_ref, rx_ring_ref;
    uint32_t tx_port, rx_port; /* the same unless split */
    int tx_fd, rx_fd;
    uint8_t *tx_data, *rx_data; /* NB_SLOTS pages each */
    uint32_t tx_ref[NB_SLOTS], rx_ref[NB_SLOTS];
    /* responses taken, by status */
    unsigned n_okay, n_error, n_dropped, n_null;
    unsigned n_wrong_id; /* of those, with an id that was not that request's */
};

struct nb_guest {
    uint16_t domid;
    struct local_domain *dom;
    struct xs_handle *xs;
    char frontend[TOOLSTACK_PATH_MAX], backend[TOOLSTACK_PATH_MAX];
    bool connected, split;
    unsigned n_queues;
    struct nb_queue q[NB_MAX_QUEUES];

    bool has_ctrl;
    struct xen_netif_ctrl_front_ring ctrl;
    uint32_t ctrl_ref, ctrl_port, ctrl_data_ref;
    int ctrl_fd;
    uint8_t *ctrl_data; /* one page for lists and tables */
};

/* What the frontend does and writes.  All zero: one queue, every feature. */
struct nb_options {
    unsigned n_queues; /* 0: 1 */
    bool split, ctrl, mcast_control;
    bool no_sg, no_gso, no_csum;
    const char *num_queues; /* written instead of the number */
    const char *omit;       /* a key left out */
    const char *instead;    /* or written with this value */
};

/* Makes domain 'domid' and, as a toolstack, its vif 0.  'vif' (or NULL) says
 * more about the latter.  Exits the program on failure. */
struct nb_guest *nb_guest_new(uint16_t domid, const struct toolstack_vif *vif);
/* Only the domain: its vif is there. */
struct nb_guest *nb_guest_new_domain(uint16_t domid);
/* Removes the vif as a toolstack does when the domain is gone, then the domain. */
void nb_guest_free(struct nb_guest *); /* accepts NULL */
/* Makes the vif's directories; also again after they were removed. */
void nb_guest_plug(uint16_t domid, const struct toolstack_vif *vif);

/* --- XenBus ----------------------------------------------------------------- */

void nb_set_state(struct nb_guest *, int state);
/* Waits until the backend's state is one of 'states' (bit n: state n). */
bool nb_wait_backend(struct nb_guest *, unsigned states, int ms);
/* Makes rings and event channels, grants and posts everything. */
void nb_make_rings(struct nb_guest *, const struct nb_options *);
/* Writes the keys in one transaction and goes to Connected. */
void nb_publish(struct nb_guest *, const struct nb_options *);
/* As Linux's netfront: waits for state 2, does all that, waits for state 4. */
bool nb_connect(struct nb_guest *, const struct nb_options *);
/* Closes event channels and revokes all grants.  Returns how many the backend
 * still holds. */
unsigned nb_release(struct nb_guest *);
/* States 5 and 6, each waiting for the backend, then nb_release(); true if
 * nothing was held. */
bool nb_close(struct nb_guest *);
/* State 1, as a driver that is loaded again. */
bool nb_reinit(struct nb_guest *);

/* --- transmit ------------------------------------------------------------------ */

/* A raw request in the next slot, and its id. */
void nb_tx_slot(struct nb_queue *, uint32_t ref, uint16_t offset, uint16_t size, uint16_t flags);
void nb_tx_extra(struct nb_queue *, const netif_extra_info_t *);
/* A whole packet, at most 'per_slot' bytes in each.  False if the ring has no
 * room.  'extra' may be NULL. */
bool nb_tx_frame(struct nb_queue *, const void *frame, uint32_t len, uint16_t flags,
                 const netif_extra_info_t *extra, unsigned per_slot);
/* Shows all that to the backend. */
void nb_tx_push(struct nb_queue *);
/* Takes the responses there are; returns how many. */
unsigned nb_tx_reap(struct nb_queue *);
/* Waits until everything pushed is answered; false also if ever an answer had
 * a wrong id. */
bool nb_tx_drain(struct nb_queue *, int ms);
static inline unsigned
nb_tx_in_flight(const struct nb_queue *q)
{
    return q->tx.req_prod_pvt - q->tx.rsp_cons;
}
/* One frame, pushed and answered; its status. */
int nb_tx_one(struct nb_queue *, const void *frame, uint32_t len, uint16_t flags,
              const netif_extra_info_t *extra);
/* The dummy request that changes the multicast list; its status. */
int nb_tx_mcast(struct nb_queue *, const uint8_t mac[6], bool add);
netif_extra_info_t nb_gso(uint8_t type, uint16_t mss);

/* --- receive --------------------------------------------------------------------- */

struct nb_packet {
    uint8_t data[65536];
    uint32_t len;
    unsigned n_slots;             /* extras included */
    uint16_t flags;               /* slot 0's */
    bool error;                   /* a slot has an error status */
    bool malformed;               /* breaks the protocol */
    netif_extra_info_t gso, hash; /* type 0: none */
};

/* Offers 'n' more buffers. */
void nb_rx_post(struct nb_queue *, unsigned n);
/* Buffers offered and not filled. */
static inline unsigned
nb_rx_posted(const struct nb_queue *q)
{
    return q->rx.req_prod_pvt - q->rx.rsp_cons;
}
/* Takes a packet; false if there is none. */
bool nb_rx_take(struct nb_queue *, struct nb_packet *);
/* Waits for one and offers its buffers again. */
bool nb_rx_wait(struct nb_queue *, struct nb_packet *, int ms);
/* Takes and offers again all there is; returns how many packets. */
unsigned nb_rx_discard(struct nb_queue *);

/* One frame from queue 'queue' to the switch and one back, which without hash
 * settings comes to queue 0; true if both arrive whole. */
bool nb_exchange(struct nb_guest *, unsigned queue, struct netback_vif *);

/* --- control ring ------------------------------------------------------------------- */

/* Sends a request and waits; the response's status, or UINT32_MAX if none
 * came or it was not to this request.  'data' may be NULL. */
uint32_t nb_ctrl(struct nb_guest *, uint16_t type, uint32_t d0, uint32_t d1, uint32_t d2,
                 uint32_t *data);
/* Adds (or deletes) static grants for all data pages of a queue, rings not.
 * Returns the number of pages or 0. */
unsigned nb_static_all(struct nb_guest *, unsigned queue, bool add);
/* Toeplitz over addresses and ports with a fixed key, and a mapping of 'n'
 * entries. */
bool nb_set_hash(struct nb_guest *, const uint32_t *mapping, unsigned n);

#endif
