/* Theory of Operation
 * ===================
 *
 * netdev_send() is where a packet leaves the switch.  Ours looks at the
 * batch's offload flags first; without any it costs one load a packet, and so
 * does a batch with blank checksums that goes to a guest.
 *
 * Otherwise each packet, in order, is
 *   - passed, if the port takes the offload.  The checksum field then gets a
 *     fresh pseudo-header sum, because address translation on the way may
 *     have changed the addresses under the one it had;
 *   - summed, if it has a blank checksum and the port cannot;
 *   - cut, if it is a TCP packet of several segments and the port cannot, or
 *     would make larger ones than the sender wants, or
 *     if it went into a tunnel on the way (then no port here can: only we
 *     know where the inner TCP is).
 *
 * A tunnel is recognised from the packet alone (its flags say TCP, its
 * outermost L4 header is another): copies that Open vSwitch makes for floods
 * and mirrors have nothing else to go by.  See offload_tunnels.c.
 *
 * Segments are at most what the sender asked for (tso_segsz) and at most what
 * fits the port's MTU.
 *
 * A batch for a DPDK port must not mix mbufs with malloc'ed packets: it looks
 * at the first only.  So a batch is sent off whenever the kind changes. */
#include <config.h>

#include "offload_ports.h"

#include <linux/virtio_net.h>
#include <rte_mbuf.h>

#include "coverage.h"
#include "crc32c.h"
#include "netdev-provider.h"
#include "netdev_netback.h"
#include "openvswitch/vlog.h"
#include "packets.h"
#include "pools.h"
#include "util.h"
#include "wrap.h"

VLOG_DEFINE_THIS_MODULE(offload_ports);

COVERAGE_DEFINE(offload_cut);      /* packets cut into segments */
COVERAGE_DEFINE(offload_segments); /* segments that came of it */
COVERAGE_DEFINE(offload_sum);      /* checksums computed */
COVERAGE_DEFINE(offload_cut_drop); /* packets that could not be cut */

#define MTU_UNKNOWN 1500
/* TCP sends nothing smaller on purpose; one byte a segment would turn one packet
 * of a guest into 65,000 of ours. */
#define MSS_MIN 48

static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);

/* A batch on its way to one port. */
struct outlet {
    struct netdev *netdev;
    int qid;
    bool concurrent;
    int mtu; /* L3 bytes; 0 until asked for */
    int error;
    struct dp_packet_batch batch;
};

static void
outlet_flush(struct outlet *o)
{
    int error;

    if (dp_packet_batch_is_empty(&o->batch)) {
        return;
    }
    error = __real_netdev_send(o->netdev, o->qid, &o->batch, o->concurrent);
    o->error = o->error ? o->error : error;
    dp_packet_batch_init(&o->batch);
}

static void
outlet_add(struct outlet *o, struct dp_packet *b)
{
    if (dp_packet_batch_is_full(&o->batch) ||
        (!dp_packet_batch_is_empty(&o->batch) && o->batch.packets[0]->source != b->source)) {
        outlet_flush(o);
    }
    dp_packet_batch_add(&o->batch, b);
}

static int
outlet_mtu(struct outlet *o)
{
    if (!o->mtu && (netdev_get_mtu(o->netdev, &o->mtu) || o->mtu <= 0)) {
        o->mtu = MTU_UNKNOWN;
    }
    return o->mtu;
}

/* --- the way in ------------------------------------------------------------- */

/* Open vSwitch takes the virtio header off and forgets the size of segments;
 * but the header still lies in front of the frame.  A tag that the kernel had
 * taken off is put back by moving the frame's start into it. */
void
offload_received(struct dp_packet *b, const struct netdev *netdev)
{
    const struct eth_header *eth = dp_packet_data(b);
    const char *type = netdev_get_type(netdev);
    bool tap = !strcmp(type, "internal") || !strcmp(type, "tap");
    bool moved = !tap && eth_type_vlan(eth->eth_type);
    size_t back = sizeof(struct virtio_net_hdr) - (moved ? VLAN_HEADER_LEN : 0);
    struct virtio_net_hdr vnet;

    if (b->mbuf.tso_segsz || dp_packet_headroom(b) < back) {
        return;
    }
    memset(&vnet, 0, sizeof vnet);
    memcpy(&vnet, (char *)dp_packet_data(b) - back,
           offsetof(struct virtio_net_hdr, csum_start)); /* the rest may be overwritten */
    if (vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
        offload_segments_of(b, vnet.gso_size);
    }
}

void
offload_segments_of(struct dp_packet *b, uint16_t size)
{
    if (size >= MSS_MIN) {
        b->mbuf.tso_segsz = size;
    }
}

/* --- sums ------------------------------------------------------------------ */

uint16_t
offload_upper(const uint8_t *frame, const struct frame_layout *l)
{
    size_t ofs;

    if (!l->l3 || l->fragment || l->l4) {
        return l->l4;
    }
    if (l->ip_version == 4) {
        ofs = l->l3 + (frame[l->l3] & 0xf) * 4;
    } else {
        /* Without extension headers: tunnels have none, and SCTP then goes
         * out with the checksum it has. */
        ofs = frame[l->l3 + 6] == l->l4_proto ? l->l3 + IPV6_HEADER_LEN : 0;
    }
    return ofs < l->l3_end ? ofs : 0;
}

bool
offload_parse(const struct dp_packet *b, struct frame_layout *l)
{
    const uint8_t *frame = dp_packet_data(b);
    uint64_t wants = offload_wants(b);
    uint8_t proto = IPPROTO_TCP;

    if (!(wants & DP_PACKET_OL_TX_TCP_SEG)) {
        proto = wants == DP_PACKET_OL_TX_TCP_CKSUM   ? IPPROTO_TCP
                : wants == DP_PACKET_OL_TX_UDP_CKSUM ? IPPROTO_UDP
                                                     : IPPROTO_SCTP;
    }
    if (!dp_packet_is_eth(b) || !frame_parse(frame, dp_packet_size(b), l) || l->fragment ||
        l->l4_proto != proto) {
        return false;
    }
    l->l4 = offload_upper(frame, l);
    return l->l4;
}

static void
sum_sctp(uint8_t *frame, const struct frame_layout *l)
{
    struct sctp_header *sh = ALIGNED_CAST(struct sctp_header *, frame + l->l4);
    size_t len = l->l3_end - l->l4;

    if (len >= sizeof *sh) {
        put_16aligned_be32(&sh->sctp_csum, 0);
        put_16aligned_be32(&sh->sctp_csum, crc32c((uint8_t *)sh, len));
    }
}

void
offload_sum(struct dp_packet *b)
{
    struct frame_layout l;

    if (offload_parse(b, &l)) {
        if (l.l4_proto == IPPROTO_SCTP) {
            sum_sctp(dp_packet_data(b), &l);
        } else {
            csum_fill(dp_packet_data(b), &l);
        }
        COVERAGE_INC(offload_sum);
    }
    offload_clear(b);
}

/* --- cuts ------------------------------------------------------------------ */

/* The larger headers of a tunnelled packet, from the outer L3 header to the
 * inner payload, and where that payload starts.  False if there is none. */
static bool
measure(const struct dp_packet *b, uint16_t inner_ofs, uint16_t *l3_to_payload, uint16_t *headers)
{
    const uint8_t *frame = dp_packet_data(b);
    size_t len = dp_packet_size(b);
    struct frame_layout outer, inner;

    if (inner_ofs >= len || !frame_parse(frame, len, &outer) || !outer.l3 ||
        !frame_parse(frame + inner_ofs, len - inner_ofs, &inner) || !inner.payload) {
        return false;
    }
    *headers = inner_ofs + inner.payload;
    *l3_to_payload = *headers - outer.l3;
    return true;
}

/* What one segment of 'b' may carry on this port, or 0. */
static uint16_t
segment_size(struct outlet *o, const struct dp_packet *b, uint16_t l3_to_payload)
{
    int fits = outlet_mtu(o) - l3_to_payload;

    if (fits <= 0) {
        return 0;
    }
    if (b->mbuf.tso_segsz) {
        fits = MIN(fits, MAX(b->mbuf.tso_segsz, MSS_MIN));
    }
    return MIN(fits, UINT16_MAX);
}

/* Writes all of 'b''s segments to 'o'. */
static void
emit_segments(struct outlet *o, struct gso_iter *it, const struct dp_packet *b, uint16_t headers)
{
    size_t room = headers + it->mss;
    struct dp_packet *seg;
    size_t len;

    for (;;) {
        seg = pools_alloc(room);
        len = gso_next(it, dp_packet_data(seg), room);
        if (!len) {
            break;
        }
        dp_packet_set_size(seg, len);
        seg->l3_ofs = b->l3_ofs;
        seg->l4_ofs = b->l4_ofs;
        if (dp_packet_rss_valid(b)) {
            dp_packet_set_rss_hash(seg, dp_packet_get_rss_hash(b));
        }
        COVERAGE_INC(offload_segments);
        outlet_add(o, seg);
    }
    dp_packet_delete(seg);
}

/* Cuts 'b' into segments with complete checksums; consumes it. */
static void
cut(struct outlet *o, struct dp_packet *b, enum gso_tunnel tunnel, uint16_t inner_ofs)
{
    uint16_t l3_to_payload = 0, headers = 0, mss = 0;
    struct gso_iter it;

    if (measure(b, inner_ofs, &l3_to_payload, &headers)) {
        mss = segment_size(o, b, l3_to_payload);
    }
    if (mss &&
        gso_begin(&it, dp_packet_data(b), dp_packet_size(b), mss, tunnel, inner_ofs, false)) {
        emit_segments(o, &it, b, headers);
        COVERAGE_INC(offload_cut);
    } else {
        COVERAGE_INC(offload_cut_drop);
        VLOG_WARN_RL(&rl, "%s: dropped a TCP packet of %u bytes that cannot be cut to an MTU of %d",
                     netdev_get_name(o->netdev), dp_packet_size(b), outlet_mtu(o));
    }
    dp_packet_delete(b);
}

/* --- the way out ----------------------------------------------------------- */

static bool
port_sums(const struct netdev *netdev, const struct dp_packet *b)
{
    uint64_t l4 = dp_packet_hwol_l4_mask(b);

    return l4 == DP_PACKET_OL_TX_TCP_CKSUM    ? netdev->ol_flags & NETDEV_TX_OFFLOAD_TCP_CKSUM
           : l4 == DP_PACKET_OL_TX_UDP_CKSUM  ? netdev->ol_flags & NETDEV_TX_OFFLOAD_UDP_CKSUM
           : l4 == DP_PACKET_OL_TX_SCTP_CKSUM ? netdev->ol_flags & NETDEV_TX_OFFLOAD_SCTP_CKSUM
                                              : false;
}

/* Leaves the offload to the port, with all that it may look at in order. */
static void
pass(struct outlet *o, struct dp_packet *b, const struct frame_layout *l)
{
    if (l->l4_proto != IPPROTO_SCTP) {
        csum_set_pseudo(dp_packet_data(b), l);
    }
    *dp_packet_ol_flags_ptr(b) &= ~(uint64_t)(DP_PACKET_OL_TX_IPV4 | DP_PACKET_OL_TX_IPV6);
    *dp_packet_ol_flags_ptr(b) |= l->ip_version == 4 ? DP_PACKET_OL_TX_IPV4 : DP_PACKET_OL_TX_IPV6;
    b->l3_ofs = l->l3;
    b->l4_ofs = l->l4;
    outlet_add(o, b);
}

/* True if the port would make segments of the sender's size.  Open vSwitch's
 * devices go by their own MTU: a trunk with jumbo frames would send pieces
 * that the receiver cannot take.  To the host's own stack it does not matter. */
static bool
port_cuts_right(struct outlet *o, const struct dp_packet *b, const struct frame_layout *l)
{
    const char *type = netdev_get_type(o->netdev);
    int l3_to_payload = l->payload - l->l3;

    return (o->netdev->ol_flags & NETDEV_TX_OFFLOAD_TCP_TSO) &&
           (!b->mbuf.tso_segsz || netdev_is_netback(o->netdev) || !strcmp(type, "internal") ||
            !strcmp(type, "tap") || outlet_mtu(o) <= b->mbuf.tso_segsz + l3_to_payload);
}

/* Sends a TCP packet of several segments. */
static void
send_tso(struct outlet *o, struct dp_packet *b)
{
    enum gso_tunnel tunnel;
    struct frame_layout l;
    uint16_t inner_ofs;

    if (offload_parse(b, &l)) {
        if (port_cuts_right(o, b, &l)) {
            pass(o, b, &l);
        } else {
            cut(o, b, GSO_TUNNEL_NONE, 0);
        }
    } else if (offload_tunnel_inner(b, &tunnel, &inner_ofs)) {
        cut(o, b, tunnel, inner_ofs);
    } else if (dp_packet_size(b) <= outlet_mtu(o) + VLAN_ETH_HEADER_LEN) {
        /* Truncated on purpose, for a mirror or a sample. */
        offload_clear(b);
        outlet_add(o, b);
    } else {
        cut(o, b, GSO_TUNNEL_NONE, 0);
    }
}

static void
send_one(struct outlet *o, struct dp_packet *b)
{
    struct frame_layout l;

    if (!offload_wants(b)) {
        outlet_add(o, b);
    } else if (dp_packet_hwol_is_tso(b)) {
        send_tso(o, b);
    } else if (port_sums(o->netdev, b) && offload_parse(b, &l)) {
        pass(o, b, &l);
    } else {
        offload_sum(b);
        outlet_add(o, b);
    }
}

/* True if the whole batch may go as it is. */
static bool
takes_all(const struct netdev *netdev, const struct dp_packet_batch *batch)
{
    const struct dp_packet *b;
    bool plain = true;
    uint64_t wants = 0;

    DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
        wants |= offload_wants(b);
        plain &= offload_netback_takes(*dp_packet_ol_flags_ptr(b));
    }
    return OVS_LIKELY(!wants) || (plain && netdev_is_netback(netdev));
}

int
__wrap_netdev_send(struct netdev *netdev, int qid, struct dp_packet_batch *batch, bool concurrent)
{
    struct outlet o = {.netdev = netdev, .qid = qid, .concurrent = concurrent};
    struct dp_packet *b;

    if (takes_all(netdev, batch)) {
        return __real_netdev_send(netdev, qid, batch, concurrent);
    }
    dp_packet_batch_apply_cutlen(batch);
    dp_packet_batch_init(&o.batch);
    DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
        send_one(&o, b);
    }
    outlet_flush(&o);
    dp_packet_batch_init(batch);
    return o.error;
}

/* Copies keep the segment size that their sender asked for. */
struct dp_packet *
__wrap_dp_packet_clone_with_headroom(const struct dp_packet *b, size_t headroom)
{
    struct dp_packet *clone = __real_dp_packet_clone_with_headroom(b, headroom);

    if (dp_packet_hwol_is_tso(b)) {
        clone->mbuf.tx_offload = b->mbuf.tx_offload;
    }
    return clone;
}
