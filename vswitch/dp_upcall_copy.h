/* dp_upcall_copy: a packet and its flow on their way to ofproto, as one
 * allocation; what a producer puts in and what dpif_recv() takes out.
 *
 * Allocations for small packets go round in a pool: what one thread allocates
 * and another frees costs both the lock of malloc()'s arena.
 *
 * Threads: upcall_create() on any; then whoever owns the upcall. */
#ifndef DP_UPCALL_COPY_H
#define DP_UPCALL_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "dpif.h"
#include "flow.h"
#include "ovs-thread.h"

struct ofpbuf;

struct upcall_pool {
    struct ovs_mutex lock; /* only tried: who does not get it does without the pool */
    struct upcall *free OVS_GUARDED;
    unsigned n OVS_GUARDED;
};

void upcall_pool_init(struct upcall_pool *);
void upcall_pool_destroy(struct upcall_pool *);

/* A packet on its way.  Lies behind the frame, in one allocation. */
struct upcall {
    /* The queue's (dp_upcall.c). */
    struct upcall *next;
    uint16_t quota; /* index */
    uint8_t bucket;

    void *base;    /* the allocation */
    uint32_t size; /* of it */
    bool pooled;
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
struct upcall *upcall_create(struct upcall_pool *, const struct dp_packet *, const struct flow *,
                             enum dpif_upcall_type, const struct nlattr *userdata,
                             const struct nlattr *actions, const struct flow_tnl *out_tunnel);
void upcall_free(struct upcall_pool *, struct upcall *); /* accepts NULL */

/* Fills in all of '*up', with attributes in 'buf', and consumes the upcall.  A
 * small packet is in 'buf', too; of others the allocation becomes the packet's.
 * False, and the upcall is freed, if ofproto could not take it. */
bool upcall_deliver(struct upcall_pool *, struct upcall *, struct dpif_upcall *up,
                    struct ofpbuf *buf);

#endif
