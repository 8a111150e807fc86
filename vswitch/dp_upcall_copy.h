/* dp_upcall_copy: a packet and its flow on their way to ofproto, as one
 * allocation; what a producer puts in and what dpif_recv() takes out.
 *
 * Threads: upcall_create() on any; then whoever owns the upcall. */
#ifndef DP_UPCALL_COPY_H
#define DP_UPCALL_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "dpif.h"
#include "flow.h"

struct ofpbuf;

/* A packet on its way.  Lies behind the frame, in the allocation that becomes
 * the dp_packet's. */
struct upcall {
    /* The queue's (dp_upcall.c). */
    struct upcall *next;
    uint16_t quota; /* index */
    uint8_t bucket;

    void *base;    /* the allocation */
    uint32_t size; /* of it */
    enum dpif_upcall_type type;

    uint16_t headroom, frame_len; /* the frame is at base + headroom */
    ovs_be32 packet_type;
    uint64_t ol_flags, tx_offload;
    uint32_t rss_hash;

    const struct nlattr *userdata, *actions; /* NULL, or behind this struct */
    const struct flow_tnl *out_tunnel;
    struct flow flow;
};

/* Copies a packet, truncated as its cut length says; its flow; and what may be
 * NULL.  The queue's fields are the caller's. */
struct upcall *upcall_create(const struct dp_packet *, const struct flow *, enum dpif_upcall_type,
                             const struct nlattr *userdata, const struct nlattr *actions,
                             const struct flow_tnl *out_tunnel);
void upcall_free(struct upcall *);

/* Fills in all of '*up', with attributes in 'buf', and consumes the upcall,
 * whose allocation becomes the packet's.  False, and the upcall is freed, if
 * ofproto could not take it. */
bool upcall_deliver(struct upcall *, struct dpif_upcall *up, struct ofpbuf *buf);

#endif
