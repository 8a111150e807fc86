/* network: a moving guest's vifs, at the switch of either end.
 *
 * What the engine asks of weft-vswitchd (docs/vif-move.md), or of a stock
 * ovs-vswitchd, about all vifs of one guest.  In the order of a migration:
 *
 *   source                                   destination
 *   network_open()                           network_open()
 *   network_watch()   before the rounds      network_find()    likewise
 *   network_gather()  in the last rounds
 *   (guest paused)                           network_keep()    once that is known
 *   network_hold()    then the last dirty    network_import()  before the guest runs
 *                     pages are fetched
 *   network_export()                         (commit)
 *   (commit)                                 (guest runs)
 *   network_late()    until network_late_    network_announce()  at once, and meanwhile
 *                     fd() says no more      network_feed()    for each late frame
 *   network_times()                          network_times()   once first_ns is set
 *   network_close()                          network_close()
 *
 * A cancelled migration: network_release() at the source before its guest goes
 * on, network_close() at the destination.  A source that dies leaves its vifs on
 * hold; who recovers it opens anew and goes on where it was (every call may be
 * repeated).
 *
 * With stock Open vSwitch at an end, calls do what it allows and answer 0;
 * network_lost() says what that was not.
 *
 * Errors: 0 or a positive errno, with a sentence in network_why().  Whatever a
 * call says, the guest may go on: a migration does not fail for lost network
 * state, unless hold did (EBUSY, EIO: the backend may still write the guest's memory).
 *
 * Threads: one at a time per struct network; network_late() and
 * network_feed() may run in another thread than the rest.
 * Ownership: buffers that are handed out are malloc'ed and the caller's. */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NETWORK_VIFS_MAX 16u
#define NETWORK_ZONES_MAX 9u
#define NETWORK_ADDRESSES_MAX 32u
#define NETWORK_CHILDREN_MAX 8u

struct network_vif {
    char uuid[40];
    char port[64]; /* of the switch at this end: "vif5.0" */
    uint8_t mac[6];
    uint16_t zones[NETWORK_ZONES_MAX]; /* of connection tracking; the same at both ends */
    unsigned n_zones;
    /* The pool's number for the vif (VIF.pool_key), which its connections carry; 0: they are
     * found by its addresses. */
    uint32_t key;
    /* The guest's, as far as known: "192.0.2.7" or "2001:db8::7".  Connections of
     * others are not its own, whatever their label says. */
    char addresses[NETWORK_ADDRESSES_MAX][52]; /* or "192.0.2.0/24" */
    unsigned n_addresses;
    /* Vifs that its frames with a tag are: other networks', with addresses of their own. */
    struct network_child {
        uint32_t key; /* or 0 */
        uint16_t tag;
        uint8_t mac[6];
    } children[NETWORK_CHILDREN_MAX];
    unsigned n_children;
    uint8_t used_by[NETWORK_ADDRESSES_MAX]; /* of each address: 0 the vif, 1 its first child.. */
    /* It may use others, too: its connections are found by its key alone. */
    bool any_address;
    bool trunk;          /* several of the pool's vifs: marks stay behind, key or not */
    char switch_dir[96]; /* run directory of this end's switch: pid file, control socket, db.sock */
    bool stock;          /* the switch at this end is not weft-vswitchd; else it is asked */
};

struct network;
/* Copies the vifs: the same ones at both ends, in any order.  Talks to nobody yet. */
int network_open(const struct network_vif *, size_t n, struct network **);
/* The domain is known now: the port "vifDOMID.0" is called "vif5.0". */
void network_name_ports(struct network *, uint32_t domid);
/* At the destination ends what network_keep() began.  Accepts NULL. */
void network_close(struct network *);
/* Why the last call failed; "" if it did not. */
const char *network_why(const struct network *);

/* --- source ---------------------------------------------------------------- */

/* From now on the switch notes when it moved the last packet. */
int network_watch(struct network *);
/* In one of the last rounds before the pause: looks where the guest is known (MAC
 * addresses and multicast groups learned by its ports).  Repeat as you like. */
int network_gather(struct network *);
/* The guest is paused.  Takes what it has sent already, lets what is in flight
 * finish and then touches the guest's memory no more: when this returns 0, its
 * dirty pages are final.  Frames for the guest are kept. */
int network_hold(struct network *);
/* The guest goes on here: kept frames are delivered, in order. */
int network_release(struct network *);
/* What of the switch's state belongs to the guest: one record's body, to be
 * handed to network_import() as it is.  Not while the guest is running. */
int network_export(struct network *, uint8_t **data, size_t *len);

/* Late frames: those kept, and those that came to the source after them, until
 * its port goes.  A descriptor that is readable when network_late() has
 * something; it stays the same.  Call once the commit is done. */
int network_late_fd(struct network *, int *fd);
/* The next one, as the body of a record: at most NETWORK_LATE_MAX bytes, '*len'.
 * EAGAIN: none yet.  ENOENT: no more will come, the ports are gone. */
#define NETWORK_LATE_MAX (65536u + 64u)
int network_late(struct network *, uint8_t *buf, size_t *len);

/* --- destination ------------------------------------------------------------- */

/* Looks up the ports that are there already: less to do while the guest stands still. */
void network_find(struct network *);
/* From now on frames for a guest that is not there yet are kept.  Not before it is
 * paused at the source: what is flooded comes to both. */
int network_keep(struct network *);
/* A record's body from the source; hostile.  EINVAL: nothing was taken over. */
int network_import(struct network *, const uint8_t *data, size_t len);
/* A late frame; hostile.  EINVAL: it was none.  Before the guest connects it is
 * kept in front of what came here directly. */
int network_feed(struct network *, const uint8_t *data, size_t len);
/* The guest runs here: tells switches and hosts, as if by the guest: RARP, ARP and
 * neighbour advertisements for its addresses, reports of its multicast groups.  Repeat
 * as you like. */
int network_announce(struct network *);

/* --- both ---------------------------------------------------------------------- */

/* CLOCK_MONOTONIC of this host, ns; 0: has not happened (yet), or is not known
 * (`untold').  The blackout of a vif is destination's first - source's last, less the
 * difference of the clocks. */
struct network_times {
    uint64_t last_ns;  /* source: last packet from or to the guest before the hold */
    uint64_t first_ns; /* destination: first packet from or to the guest */
    uint64_t kept;     /* frames kept here up to now */
    uint64_t late;     /* source: handed to network_late(); destination: fed */
    uint64_t dropped;  /* frames that the bound of what is kept had no room for */
    bool untold;       /* a stock switch: nothing of all this will ever be known */
};
/* 'times' has as many elements as there are vifs, in the order of network_open(). */
int network_times(struct network *, struct network_times *times);

/* What could not be carried, one sentence each, or NULL beyond the last. */
const char *network_lost(struct network *, size_t i);

#endif
