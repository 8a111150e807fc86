/* offload_ports: guests' offloads where the way out of the switch lacks them.
 *
 * Open vSwitch drops a packet with a blank checksum or of more than one
 * segment where the port or the tunnel cannot take it.  Here it is summed and
 * cut instead.  The entry points are the functions in wrap.h.
 *
 * Threads: any of Open vSwitch's. */
#ifndef OFFLOAD_PORTS_H
#define OFFLOAD_PORTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dp-packet.h"
#include "offload.h"

/* What a packet still wants done. */
#define OFFLOAD_FLAGS (DP_PACKET_OL_TX_TCP_SEG | DP_PACKET_OL_TX_L4_MASK)
/* What describes those wishes. */
#define OFFLOAD_ALL (OFFLOAD_FLAGS | DP_PACKET_OL_TX_IPV4 | DP_PACKET_OL_TX_IPV6)

static inline uint64_t
offload_wants(const struct dp_packet *b)
{
    return *dp_packet_ol_flags_ptr(b) & OFFLOAD_FLAGS;
}

/* True if netback takes a packet with these mbuf flags as it is: it mends the
 * sums of plain TCP and UDP itself, but must not see TCP in a tunnel, and knows
 * nothing of SCTP. */
static inline bool
offload_netback_takes(uint64_t ol_flags)
{
    return !(ol_flags & DP_PACKET_OL_TX_TCP_SEG) &&
           (ol_flags & DP_PACKET_OL_TX_L4_MASK) != DP_PACKET_OL_TX_SCTP_CKSUM;
}

static inline void
offload_clear(struct dp_packet *b)
{
    *dp_packet_ol_flags_ptr(b) &= ~(uint64_t)OFFLOAD_ALL;
}

/* Parses the frame as far as offloads care.  True if it is a whole packet
 * whose L4 protocol is the one that its flags name. */
bool offload_parse(const struct dp_packet *, struct frame_layout *);

/* What follows the IP header of a parsed frame where that is neither TCP nor
 * UDP (frame_parse() leaves l4 at 0), or 0. */
uint16_t offload_upper(const uint8_t *frame, const struct frame_layout *);

/* Computes a packet's checksum and clears its flags; without effect on the
 * bytes of a packet that is not what its flags say (a mirror's truncated
 * copy, say). */
void offload_sum(struct dp_packet *);

/* Where the inner frame of a tunnelled packet starts, and how the outer
 * headers are mended when it is cut.  False if we cannot cut it. */
bool offload_tunnel_inner(const struct dp_packet *, enum gso_tunnel *, uint16_t *inner_ofs);

/* A packet just received from 'netdev', a TAP or a packet socket of Open
 * vSwitch's: notes what size of segments came with it. */
void offload_received(struct dp_packet *, const struct netdev *netdev);
/* Notes it. */
void offload_segments_of(struct dp_packet *, uint16_t size);

#endif
