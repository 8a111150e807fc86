/* A frame's length is known only when it has been read.  So each is read into a small
 * buffer with a large one behind it; what has gone into both is put together in the
 * large one, which otherwise is there for the next frame. */
#include <config.h>

#include "tap_recv.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <sys/uio.h>

#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "coverage.h"
#include "dp.h"
#include "netback.h"
#include "offload_ports.h"
#include "pools.h"
#include "util.h"

COVERAGE_DEFINE(tap_truncated); /* frames longer than we can take, dropped */

/* In front of a large frame: what is left of 64 KiB by the largest that Linux makes. */
#define LARGE_HEADROOM 128
#define LARGE_FRAME (UINT16_MAX - LARGE_HEADROOM)
/* What is read at once, but for the last frame: a receive ring of netback's holds 1 MiB. */
#define BURST_BYTES (256u << 10)
/* Guests that take nothing may not keep all of a pool: what guests send lies there, too. */
#define PART_LEFT 4

static bool
has_spare(struct rte_mempool *mp)
{
    /* Not rte_mempool_avail_count(), which looks into the caches of 128 lcores. */
    return mp && rte_mempool_get_ops(mp->ops_index)->get_count(mp) >= mp->size / PART_LEFT;
}

static struct dp_packet *
alloc_small(void)
{
    return has_spare(pools_small())
               ? pools_alloc(POOLS_SMALL_FRAME)
               : dp_packet_new_with_headroom(POOLS_SMALL_FRAME, NETBACK_HEADROOM);
}

static struct dp_packet *
alloc_large(void)
{
    struct dp_packet *b;

    if (!has_spare(pools_large())) {
        return dp_packet_new_with_headroom(LARGE_FRAME, LARGE_HEADROOM);
    }
    b = pools_alloc(NETBACK_FRAME_MAX);
    if (b->source == DPBUF_DPDK) {
        b->mbuf.data_off = LARGE_HEADROOM;
    } else {
        dp_packet_prealloc_tailroom(b, LARGE_FRAME);
    }
    return b;
}

/* What the kernel has left to us. */
static void
take_offloads(struct dp_packet *b, const struct virtio_net_hdr *vnet)
{
    uint8_t gso = vnet->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
    struct frame_layout l;

    if (!vnet->flags && gso == VIRTIO_NET_HDR_GSO_NONE) {
        return;
    }
    frame_parse(dp_packet_data(b), dp_packet_size(b), &l);
    if (l.ip_version == 4) {
        dp_packet_hwol_set_tx_ipv4(b);
    } else if (l.ip_version == 6) {
        dp_packet_hwol_set_tx_ipv6(b);
    }
    if (vnet->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
        if (l.l4_proto == IPPROTO_TCP) {
            dp_packet_hwol_set_csum_tcp(b);
        } else if (l.l4_proto == IPPROTO_UDP) {
            dp_packet_hwol_set_csum_udp(b);
        } else if (l.l4_proto == IPPROTO_SCTP) {
            dp_packet_hwol_set_csum_sctp(b);
        }
    }
    if (l.l4_proto == IPPROTO_TCP &&
        (gso == VIRTIO_NET_HDR_GSO_TCPV4 || gso == VIRTIO_NET_HDR_GSO_TCPV6)) {
        dp_packet_hwol_set_tcp_seg(b);
        offload_segments_of(b, vnet->gso_size);
    }
}

unsigned
tap_recv(int fd, struct rte_mbuf **pkts, unsigned max, int *error)
{
    struct dp_packet *small = NULL, *large = NULL;
    size_t bytes = 0;
    unsigned n = 0;

    *error = 0;
    while (n < max && bytes < BURST_BYTES) {
        struct virtio_net_hdr vnet;
        struct dp_packet *b;
        ssize_t got;

        small = small ? small : alloc_small();
        large = large ? large : alloc_large();
        struct iovec iov[] = {
            {&vnet, sizeof vnet},
            {dp_packet_data(small), POOLS_SMALL_FRAME},
            {(char *)dp_packet_data(large) + POOLS_SMALL_FRAME, LARGE_FRAME - POOLS_SMALL_FRAME},
        };
        do {
            got = readv(fd, iov, ARRAY_SIZE(iov));
        } while (got < 0 && errno == EINTR);
        if (got < 0) {
            *error = errno;
            break;
        }
        if (got < (ssize_t)sizeof vnet) {
            *error = EAGAIN; /* not a frame */
            break;
        }
        got -= sizeof vnet;
        bytes += got;
        if (got <= POOLS_SMALL_FRAME) {
            b = small;
            small = NULL;
        } else if (got < LARGE_FRAME) {
            b = large;
            large = NULL;
            memcpy(dp_packet_data(b), dp_packet_data(small), POOLS_SMALL_FRAME);
        } else {
            COVERAGE_INC(tap_truncated);
            continue;
        }
        dp_packet_set_size(b, got);
        if (b->source != DPBUF_DPDK) {
            dp_packet_complete(b);
        }
        take_offloads(b, &vnet);
        pkts[n++] = &b->mbuf;
    }
    dp_packet_delete(small);
    dp_packet_delete(large);
    return n;
}
