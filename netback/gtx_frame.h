/* gtx_frame: a guest's frame against what the guest says about it.
 *
 * A frame in private memory and the offloads its slots asked for become an
 * mbuf with DPDK's offload flags, or a reason to drop it.
 *
 * Threads: pure functions on their arguments. */
#ifndef GTX_FRAME_H
#define GTX_FRAME_H

#include "offload.h"
#include "ring.h"

struct gtx_request {
    bool csum_blank, data_validated;
    uint8_t gso_type; /* XEN_NETIF_GSO_TYPE_*; NONE: not asked for */
    uint16_t mss;     /* of the GSO extra */
    uint16_t size;    /* of the frame, bytes */
};

/* Checks the request against the frame in 'm' (its first NETBACK_FRAME_MAX
 * bytes) and sets the mbuf's offload fields.  '*layout' is set for frames
 * with offloads.  DROP_N_REASONS: the frame may pass. */
enum drop_reason gtx_frame_offloads(struct rte_mbuf *m, const struct gtx_request *, uint16_t mtu,
                                    struct frame_layout *layout);

/* Divides a frame with TSO that is larger than NETBACK_FRAME_MAX: 'm' holds
 * its first bytes and keeps as many whole segments as fit; '*rest' holds the
 * remaining bytes and becomes a frame of the remaining segments, in another
 * buffer if need be.  False, both unchanged in ownership, if there is no
 * buffer. */
bool gtx_frame_divide(struct pkt_pool *, struct rte_mbuf *m, struct rte_mbuf **rest,
                      const struct frame_layout *);

#endif
