/* Theory of Operation
 * ===================
 *
 * A TCP packet of several segments enters a tunnel whole: the tunnel header
 * is pushed in front of it, its offload flags stay, and netdev_send() cuts it
 * when the port and so the MTU are known (offload_ports.c).  That costs one
 * header and one trip through the underlay's flows for up to 64 KiB.
 *
 * At the cut, the encapsulation must be read back from the packet.  For UDP
 * its kind follows from the destination port, which is noted here at each
 * push; for GRE the header says it all.  What cannot be cut later (layer-3
 * tunnels, GTP-U, a tunnel in a tunnel) is dropped at the push, counted.
 *
 * Blank checksums of other packets are computed before the push, so behind a
 * tunnel header a UDP flag always means the outermost header, and
 * TCP_SEG on a packet whose outermost L4 is not TCP always means a tunnel.
 *
 * A tunnel that ends on this very host is popped without having been cut: the
 * flags are then put back onto the inner packet, once it has been parsed
 * again. */
#include <config.h>

#include "offload_ports.h"

#include "bytes.h"
#include "coverage.h"
#include "flow.h"
#include "netdev-provider.h"
#include "odp-netlink.h"
#include "openvswitch/vlog.h"
#include "ovs-atomic.h"
#include "packets.h"
#include "util.h"
#include "wrap.h"

VLOG_DEFINE_THIS_MODULE(offload_tunnels);

COVERAGE_DEFINE(offload_push_whole); /* packets of several segments tunnelled */
COVERAGE_DEFINE(offload_push_drop);  /* packets that their tunnel cannot take */
COVERAGE_DEFINE(offload_pop_whole);  /* packets of several segments popped */
COVERAGE_DEFINE(offload_pop_drop);

static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);

/* Room to leave for tags that follow the tunnel header. */
#define SPARE_HEADROOM 128u

/* --- what is inside -------------------------------------------------------- */

enum udp_tunnel { UDP_NONE, UDP_VXLAN, UDP_GENEVE };

/* UDP destination port (host order) to enum udp_tunnel.  Written by whoever
 * pushes a header, each value once and then the same again. */
static atomic_uint8_t udp_tunnels[65536];

#define VXLAN_LEN 8u
#define GENEVE_LEN 8u /* and options, in words of 4 */
#define GRE_LEN 4u    /* and 4 for each of checksum, key, sequence number */
#define PROTO_TEB 0x6558u
#define PROTO_ERSPAN_II 0x88beu
#define PROTO_ERSPAN_III 0x22ebu
#define ERSPAN_II_LEN 8u
#define ERSPAN_III_LEN 12u /* and 8 if its last bit is set */

/* The offset of the inner Ethernet frame behind a GRE header of 'len' bytes
 * at most, or 0. */
static size_t
gre_inner(const uint8_t *gre, size_t len)
{
    size_t ofs = GRE_LEN;
    uint16_t flags, proto;

    if (len < GRE_LEN) {
        return 0;
    }
    flags = get_be16(gre);
    proto = get_be16(gre + 2);
    ofs += (flags & GRE_CSUM ? 4 : 0) + (flags & GRE_KEY ? 4 : 0) + (flags & GRE_SEQ ? 4 : 0);
    if (proto == PROTO_TEB) {
        return ofs;
    }
    if (proto == PROTO_ERSPAN_II) {
        return ofs + ERSPAN_II_LEN;
    }
    if (proto == PROTO_ERSPAN_III && len >= ofs + ERSPAN_III_LEN) {
        return ofs + ERSPAN_III_LEN + (gre[ofs + ERSPAN_III_LEN - 1] & 1 ? 8 : 0);
    }
    return 0;
}

/* The same behind a UDP header. */
static size_t
udp_inner(const uint8_t *udp, size_t len)
{
    uint8_t kind;

    if (len < UDP_HEADER_LEN + GENEVE_LEN) {
        return 0;
    }
    atomic_read_relaxed(&udp_tunnels[get_be16(udp + 2)], &kind);
    switch (kind) {
    case UDP_VXLAN:
        return UDP_HEADER_LEN + VXLAN_LEN;
    case UDP_GENEVE:
        return UDP_HEADER_LEN + GENEVE_LEN + 4 * (udp[UDP_HEADER_LEN] & 0x3f);
    default:
        return 0;
    }
}

bool
offload_tunnel_inner(const struct dp_packet *b, enum gso_tunnel *tunnel, uint16_t *inner_ofs)
{
    const uint8_t *frame = dp_packet_data(b);
    size_t len = dp_packet_size(b);
    struct frame_layout l;
    size_t inner = 0;

    if (!dp_packet_is_eth(b) || !frame_parse(frame, len, &l)) {
        return false;
    }
    l.l4 = offload_upper(frame, &l);
    if (!l.l4) {
        return false;
    }
    if (l.l4_proto == IPPROTO_UDP) {
        *tunnel = GSO_TUNNEL_UDP;
        inner = udp_inner(frame + l.l4, len - l.l4);
    } else if (l.l4_proto == IPPROTO_GRE) {
        *tunnel = GSO_TUNNEL_GRE;
        inner = gre_inner(frame + l.l4, len - l.l4);
    }
    *inner_ofs = l.l4 + inner;
    return inner && *inner_ofs < len;
}

/* --- push ------------------------------------------------------------------ */

/* Notes what the tunnel's packets look like.  False if packets of several
 * segments cannot be cut behind its header. */
static bool
note_tunnel(const struct ovs_action_push_tnl *data)
{
    const uint8_t *header = (const uint8_t *)data->header;
    uint8_t kind;
    size_t l4;

    if (data->tnl_type == OVS_VPORT_TYPE_GRE || data->tnl_type == OVS_VPORT_TYPE_IP6GRE ||
        data->tnl_type == OVS_VPORT_TYPE_ERSPAN || data->tnl_type == OVS_VPORT_TYPE_IP6ERSPAN) {
        return true;
    }
    kind = data->tnl_type == OVS_VPORT_TYPE_VXLAN    ? UDP_VXLAN
           : data->tnl_type == OVS_VPORT_TYPE_GENEVE ? UDP_GENEVE
                                                     : UDP_NONE;
    l4 = ETH_HEADER_LEN +
         (get_be16(header + ETH_HEADER_LEN - 2) == ETH_TYPE_IPV6 ? IPV6_HEADER_LEN : IP_HEADER_LEN);
    if (kind == UDP_NONE || data->header_len < l4 + UDP_HEADER_LEN) {
        return false;
    }
    atomic_store_relaxed(&udp_tunnels[get_be16(header + l4 + 2)], kind);
    return true;
}

/* Returns a packet like 'b' (which it may consume) that has 'need' bytes of
 * headroom, or NULL if its size would pass 16 bits: Open vSwitch gives a
 * malloc'ed packet more headroom by itself, and asserts for an mbuf. */
static struct dp_packet *
ensure_headroom(struct dp_packet *b, size_t need)
{
    struct dp_packet *copy;

    if (dp_packet_size(b) + need > UINT16_MAX) {
        dp_packet_delete(b);
        return NULL;
    }
    if (b->source == DPBUF_MALLOC || dp_packet_headroom(b) >= need) {
        return b;
    }
    copy = __wrap_dp_packet_clone_with_headroom(
        b, MIN(need + SPARE_HEADROOM, UINT16_MAX - dp_packet_size(b)));
    dp_packet_delete(b);
    return copy;
}

/* The tunnel's source port is made of the packet's hash, which the shortest
 * way through the datapath does not compute. */
static void
ensure_hash(struct dp_packet *b)
{
    struct flow flow;

    if (!dp_packet_rss_valid(b)) {
        flow_extract(b, &flow);
        dp_packet_set_rss_hash(b, flow_hash_5tuple(&flow, 0));
    }
}

/* True if 'b' can go whole into a tunnel that we can cut. */
static bool
may_push_whole(const struct dp_packet *b)
{
    struct frame_layout l;

    return offload_parse(b, &l);
}

static struct dp_packet *
push_one(const struct netdev *netdev, struct dp_packet *b, const struct ovs_action_push_tnl *data,
         bool can_cut)
{
    if (dp_packet_hwol_is_tso(b)) {
        if (!can_cut || !may_push_whole(b)) {
            dp_packet_delete(b);
            return NULL;
        }
        COVERAGE_INC(offload_push_whole);
    } else if (offload_wants(b)) {
        offload_sum(b);
    }
    ensure_hash(b);
    b = ensure_headroom(b, data->header_len);
    if (b) {
        netdev->netdev_class->push_header(netdev, b, data);
        pkt_metadata_init(&b->md, data->out_port);
    }
    return b;
}

int
__wrap_netdev_push_header(const struct netdev *netdev, struct dp_packet_batch *batch,
                          const struct ovs_action_push_tnl *data)
{
    size_t i, size = dp_packet_batch_size(batch);
    bool can_cut = note_tunnel(data);
    struct dp_packet *b;

    DP_PACKET_BATCH_REFILL_FOR_EACH (i, size, b, batch) {
        b = push_one(netdev, b, data, can_cut);
        if (b) {
            dp_packet_batch_refill(batch, b, i);
        } else {
            COVERAGE_INC(offload_push_drop);
            VLOG_WARN_RL(&rl, "%s: dropped a packet that cannot go through this tunnel whole",
                         netdev_get_name(netdev));
        }
    }
    return 0;
}

/* --- pop ------------------------------------------------------------------- */

/* Gives the inner packet the flags that it had before the push. */
static bool
restore_flags(struct dp_packet *b)
{
    uint64_t *flags = dp_packet_ol_flags_ptr(b);
    struct frame_layout l;

    *flags |= DP_PACKET_OL_TX_TCP_SEG | DP_PACKET_OL_TX_TCP_CKSUM;
    if (!offload_parse(b, &l)) {
        return false;
    }
    *flags |= l.ip_version == 4 ? DP_PACKET_OL_TX_IPV4 : DP_PACKET_OL_TX_IPV6;
    return true;
}

static struct dp_packet *
pop_one(struct netdev *netdev, struct dp_packet *b)
{
    bool whole = dp_packet_hwol_is_tso(b);

    if (offload_wants(b)) {
        /* It never left this host, so nothing can have damaged it; and the
         * outer checksum may be a guest's blank one. */
        *dp_packet_ol_flags_ptr(b) &= ~(uint64_t)DP_PACKET_OL_RX_L4_CKSUM_MASK;
        *dp_packet_ol_flags_ptr(b) |= DP_PACKET_OL_RX_L4_CKSUM_GOOD;
    }
    b = netdev->netdev_class->pop_header(b);
    if (!b) {
        return NULL;
    }
    /* The rest described the outer headers. */
    dp_packet_reset_offload(b);
    pkt_metadata_init_conn(&b->md);
    if (whole) {
        if (!restore_flags(b)) {
            dp_packet_delete(b);
            COVERAGE_INC(offload_pop_drop);
            return NULL;
        }
        COVERAGE_INC(offload_pop_whole);
    }
    return b;
}

void
__wrap_netdev_pop_header(struct netdev *netdev, struct dp_packet_batch *batch)
{
    size_t i, size = dp_packet_batch_size(batch);
    struct dp_packet *b;

    DP_PACKET_BATCH_REFILL_FOR_EACH (i, size, b, batch) {
        b = pop_one(netdev, b);
        if (b) {
            dp_packet_batch_refill(batch, b, i);
        }
    }
}
