/* Guests' offloads on their way out of the switch: netdev_send(),
 * netdev_push_header() and netdev_pop_header() as the datapath calls them,
 * against ports that take offloads and ports that do not.
 *
 *   packet > [VLAN push, clone] > [tunnel push] > [pop] > port "sink"
 *
 * Linked like weft-vswitchd, with its --wrap options. */
#include <config.h>

#include <linux/virtio_net.h>
#include <rte_eal.h>
#include <rte_mempool.h>
#include <stdlib.h>

#include "check.h"
#include "dp-packet.h"
#include "netback.h"
#include "netdev-provider.h"
#include "netdev-vport.h"
#include "odp-netlink.h"
#include "offload_ports.h"
#include "packets.h"
#include "pools.h"
#include "smap.h"
#include "tcp_frame.h"
#include "util.h"

#define MTU 1500
#define FULL ((size_t)NETBACK_FRAME_MAX)
#define MAX_SENT 4096

/* --- the port: keeps what it is sent ---------------------------------------- */

static struct dp_packet *sent[MAX_SENT];
static unsigned n_sent;
static unsigned n_mixed_batches; /* mbufs and malloc'ed packets in one */

static struct netdev *
sink_alloc(void)
{
    return xzalloc(sizeof(struct netdev));
}

static int
sink_construct(struct netdev *netdev OVS_UNUSED)
{
    return 0;
}

static void
sink_destruct(struct netdev *netdev OVS_UNUSED)
{
}

static void
sink_dealloc(struct netdev *netdev)
{
    free(netdev);
}

static int
sink_send(struct netdev *netdev OVS_UNUSED, int qid OVS_UNUSED, struct dp_packet_batch *batch,
          bool concurrent OVS_UNUSED)
{
    struct dp_packet *b;

    DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
        ovs_assert(n_sent < MAX_SENT);
        n_mixed_batches += b->source != batch->packets[0]->source;
        sent[n_sent++] = b;
    }
    return 0;
}

static int
sink_get_mtu(const struct netdev *netdev OVS_UNUSED, int *mtu)
{
    *mtu = MTU;
    return 0;
}

static int
sink_update_flags(struct netdev *netdev OVS_UNUSED, enum netdev_flags off OVS_UNUSED,
                  enum netdev_flags on OVS_UNUSED, enum netdev_flags *old)
{
    *old = NETDEV_UP;
    return 0;
}

static const struct netdev_class sink_class = {
    .type = "sink",
    .alloc = sink_alloc,
    .construct = sink_construct,
    .destruct = sink_destruct,
    .dealloc = sink_dealloc,
    .send = sink_send,
    .get_mtu = sink_get_mtu,
    .update_flags = sink_update_flags,
};

static struct netdev *plain, *capable;

static void
forget_sent(void)
{
    for (unsigned i = 0; i < n_sent; i++) {
        dp_packet_delete(sent[i]);
    }
    n_sent = n_mixed_batches = 0;
}

static void
send_to(struct netdev *port, struct dp_packet *b)
{
    struct dp_packet_batch batch;

    dp_packet_batch_init_packet(&batch, b);
    netdev_send(port, 0, &batch, false);
}

/* --- packets ------------------------------------------------------------------ */

static uint8_t *
bytes(struct dp_packet *b)
{
    uint8_t *data = dp_packet_data(b);

    ovs_assert(data);
    return data;
}

/* A guest's TCP packet, blank checksum, as netback hands it over. */
static struct dp_packet *
guest_tcp(int version, size_t size, uint16_t segsz)
{
    struct dp_packet *b = pools_alloc(size);

    dp_packet_set_size(b, size);
    tf_tcp(bytes(b), version, size);
    b->mbuf.ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM |
                        (version == 4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6) |
                        (segsz ? RTE_MBUF_F_TX_TCP_SEG : 0);
    b->mbuf.tso_segsz = segsz;
    pkt_metadata_init(&b->md, u32_to_odp(0));
    return b;
}

/* Where the TCP/IP packet of a frame starts, behind VLAN tags. */
static size_t
l3_of(const uint8_t *f)
{
    size_t ofs = 12;

    while (tf_get16(f + ofs) == 0x8100) {
        ofs += 4;
    }
    return ofs + 2;
}

/* Checks one segment's lengths and sums; returns its payload's length or -1
 * and where it stands in the stream. */
static int
check_segment(const uint8_t *f, size_t len, int version, uint32_t *seq)
{
    size_t l3 = l3_of(f), l4 = l3 + tf_ip_len(version);
    const uint8_t *ip = f + l3;
    size_t n = len - l4;

    CHECK(ip[0] >> 4 == version);
    CHECK(tf_get16(ip + (version == 4 ? 2 : 4)) == (version == 4 ? len - l3 : n));
    CHECK(version == 6 || tf_sum(0, ip, 20) == 0xffff);
    CHECK(tf_l4_sum(ip, version, 6, f + l4, n) == 0xffff);
    *seq = (uint32_t)tf_get16(f + l4 + 4) << 16 | tf_get16(f + l4 + 6);
    for (size_t i = 20; i < n; i++) {
        if (f[l4 + i] != (uint8_t)((*seq + i - 20) * 7)) {
            return -1;
        }
    }
    return n - 20;
}

/* Checks that the sent packets, from 'skip' bytes on, are a stream of
 * 'payload' bytes in order. */
static void
check_stream(int version, size_t skip, size_t payload)
{
    uint32_t at = 0, seq;

    for (unsigned i = 0; i < n_sent; i++) {
        const uint8_t *f = bytes(sent[i]);
        int n = check_segment(f + skip, dp_packet_size(sent[i]) - skip, version, &seq);

        CHECK(n > 0);
        CHECK(seq == at);
        CHECK(dp_packet_size(sent[i]) <= MTU + 14 + 8);
        CHECK(!(sent[i]->mbuf.ol_flags & (RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_L4_MASK)));
        at += n;
    }
    CHECK(at == payload);
}

static size_t
payload_of(int version, size_t size)
{
    return size - 14 - tf_ip_len(version) - 20;
}

/* --- ports -------------------------------------------------------------------- */

static void
test_plain_port(void)
{
    for (int version = 4; version <= 6; version += 2) {
        CASE(version == 4 ? "offload-cut-v4" : "offload-cut-v6");
        send_to(plain, guest_tcp(version, FULL, 1400));
        check_stream(version, 0, payload_of(version, FULL));
        CHECK(n_mixed_batches == 0);
        forget_sent();
    }

    CASE("offload-cut-mss-unknown");
    send_to(plain, guest_tcp(4, FULL, 1));
    check_stream(4, 0, payload_of(4, FULL));
    CHECK(n_sent > 1000 && n_sent < 1500);
    forget_sent();

    CASE("offload-sum-tcp");
    send_to(plain, guest_tcp(4, 1000, 0));
    check_stream(4, 0, payload_of(4, 1000));
    CHECK(n_sent == 1);
    forget_sent();
}

static void
test_udp_sctp(void)
{
    struct dp_packet *b = pools_alloc(200);
    uint8_t *f = bytes(b);
    size_t l4;

    CASE("offload-sum-udp");
    dp_packet_set_size(b, 200);
    memset(f, 0x55, 200);
    l4 = tf_headers(f, 6, 17, 200 - 54);
    tf_put16(f + l4 + 4, 200 - 54);
    tf_put16(f + l4 + 6, tf_pseudo(f + 14, 6, 17, 200 - 54));
    b->mbuf.ol_flags |= RTE_MBUF_F_TX_UDP_CKSUM | RTE_MBUF_F_TX_IPV6;
    send_to(plain, b);
    CHECK(n_sent == 1);
    CHECK(tf_l4_sum(f + 14, 6, 17, f + l4, 200 - 54) == 0xffff);
    forget_sent();

    CASE("offload-sum-sctp");
    b = pools_alloc(100);
    f = bytes(b);
    dp_packet_set_size(b, 100);
    memset(f, 0, 100);
    l4 = tf_headers(f, 4, 132, 100 - 34);
    b->mbuf.ol_flags |= RTE_MBUF_F_TX_SCTP_CKSUM | RTE_MBUF_F_TX_IPV4;
    send_to(plain, b);
    CHECK(n_sent == 1);
    CHECK(tf_get16(f + l4 + 8) | tf_get16(f + l4 + 10));
    CHECK(!(b->mbuf.ol_flags & RTE_MBUF_F_TX_L4_MASK));
    forget_sent();
}

static void
test_capable_port(void)
{
    struct dp_packet *b = guest_tcp(4, FULL, MTU - 40);
    uint8_t *f = bytes(b);

    CASE("offload-pass-mends-pseudo-sum");
    /* Address translation on the way. */
    f[14 + 12] = 192;
    send_to(capable, b);
    CHECK(n_sent == 1 && dp_packet_size(sent[0]) == FULL);
    CHECK(b->mbuf.ol_flags & RTE_MBUF_F_TX_TCP_SEG);
    CHECK(tf_get16(f + 34 + 16) == tf_pseudo(f + 14, 4, 6, FULL - 34));
    CHECK(b->l3_ofs == 14 && b->l4_ofs == 34);
    forget_sent();

    CASE("offload-pass-only-what-the-port-cuts-right");
    /* It would make segments of its own MTU: too large for the receiver. */
    send_to(capable, guest_tcp(4, FULL, MTU - 41));
    CHECK(n_sent > 1);
    check_stream(4, 0, payload_of(4, FULL));
    forget_sent();
}

/* As Open vSwitch's packet socket hands it over. */
static struct dp_packet *
received(uint16_t segsz, bool tagged)
{
    struct virtio_net_hdr vnet = {
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
        .gso_size = segsz,
        .csum_start = 0xffff,
        .csum_offset = 0xffff,
    };
    struct dp_packet *guest = guest_tcp(4, FULL, 1), *b = dp_packet_new_with_headroom(70000, 128);

    dp_packet_put(b, &vnet, sizeof vnet);
    dp_packet_put(b, dp_packet_data(guest), dp_packet_size(guest));
    dp_packet_delete(guest);
    dp_packet_pull(b, sizeof vnet);
    b->mbuf.ol_flags |= RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4;
    b->mbuf.tso_segsz = 0;
    if (tagged) {
        eth_push_vlan(b, htons(0x8100), htons(10));
    }
    return b;
}

static void
test_received(void)
{
    for (int tagged = 0; tagged < 2; tagged++) {
        struct dp_packet *b = received(1234, tagged);

        CASE(tagged ? "offload-received-segment-size-tagged" : "offload-received-segment-size");
        offload_received(b, plain);
        CHECK(b->mbuf.tso_segsz == 1234);
        dp_packet_delete(b);
        b = received(7, tagged);
        offload_received(b, plain);
        CHECK(b->mbuf.tso_segsz == 0); /* nobody means that */
        dp_packet_delete(b);
    }
}

static void
test_batch_order(void)
{
    struct dp_packet_batch batch;
    struct dp_packet *clone;
    struct dp_packet *b = guest_tcp(4, FULL, 1400);
    unsigned first, second;

    CASE("offload-batch-order");
    clone = dp_packet_clone_with_headroom(b, 64);
    CHECK(clone->mbuf.tso_segsz == 1400);
    dp_packet_batch_init(&batch);
    for (unsigned i = 0; i < 15; i++) {
        dp_packet_batch_add(&batch, guest_tcp(4, 100 + i, 0));
    }
    dp_packet_batch_add(&batch, b);
    dp_packet_batch_add(&batch, clone);
    for (unsigned i = 17; i < NETDEV_MAX_BURST; i++) {
        dp_packet_batch_add(
            &batch, dp_packet_clone_data_with_headroom(bytes(batch.packets[i - 17]), 100 + i, 0));
    }
    netdev_send(plain, 0, &batch, false);
    CHECK(n_mixed_batches == 0);
    for (unsigned i = 0; i < 15; i++) {
        CHECK(dp_packet_size(sent[i]) == 100 + i);
    }
    first = DIV_ROUND_UP(payload_of(4, FULL), 1400);
    second = 15 + 2 * first;
    CHECK(n_sent == NETDEV_MAX_BURST - 2 + 2 * first);
    for (unsigned i = 17; i < NETDEV_MAX_BURST; i++) {
        CHECK(dp_packet_size(sent[second + i - 17]) == 100 + i);
    }
    CHECK(dp_packet_batch_is_empty(&batch));
    forget_sent();
}

static void
test_truncated(void)
{
    struct dp_packet *b = guest_tcp(4, FULL, 1400);

    CASE("offload-truncated-copy");
    dp_packet_set_size(b, 128);
    send_to(plain, b);
    CHECK(n_sent == 1 && dp_packet_size(sent[0]) == 128);
    forget_sent();
}

static void
test_hostile(void)
{
    struct dp_packet *b = guest_tcp(4, FULL, 1400);
    uint8_t *f = bytes(b);

    CASE("offload-nonsense-dropped");
    f[14 + 9] = 17; /* UDP, says the header; TCP, say the flags */
    send_to(plain, b);
    CHECK(n_sent == 0);
    b = guest_tcp(4, FULL, 1400);
    f = bytes(b);
    f[34 + 12] = 0xf0; /* a TCP header of 60 bytes is fine */
    send_to(plain, b);
    CHECK(n_sent > 40);
    forget_sent();
    b = guest_tcp(4, FULL, 1400);
    f = bytes(b);
    f[34 + 12] = 0x10; /* of 4 is not */
    send_to(plain, b);
    CHECK(n_sent == 0);
    forget_sent();
}

/* --- tunnels --------------------------------------------------------------------- */

struct tunnel {
    const char *name, *type;
    uint32_t tnl_type;
    int outer;      /* IP version */
    uint16_t port;  /* UDP; 0: GRE */
    size_t hdr;     /* behind IP (and UDP) */
    bool csum;      /* UDP checksum, GRE checksum */
    uint8_t first;  /* first byte of that header */
    uint16_t proto; /* at its bytes 2 and 3 */
};

static const struct tunnel tunnels[] = {
    {"vxlan", "vxlan", OVS_VPORT_TYPE_VXLAN, 4, 4789, 8, false, 0x08, 0},
    {"vxlan-csum-v6", "vxlan", OVS_VPORT_TYPE_VXLAN, 6, 4790, 8, true, 0x08, 0},
    {"geneve", "geneve", OVS_VPORT_TYPE_GENEVE, 4, 6081, 8, false, 0, 0x6558},
    {"geneve-options-v6", "geneve", OVS_VPORT_TYPE_GENEVE, 6, 6081, 8 + 252, true, 63, 0x6558},
    {"gre", "gre", OVS_VPORT_TYPE_GRE, 4, 0, 4, false, 0, 0x6558},
    {"gre-key-v6", "ip6gre", OVS_VPORT_TYPE_IP6GRE, 6, 0, 8, false, 0x20, 0x6558},
    {"erspan-2", "erspan", OVS_VPORT_TYPE_ERSPAN, 4, 0, 8 + 8, false, 0x10, 0x88be},
};

static void
build_header(const struct tunnel *t, struct ovs_action_push_tnl *data)
{
    uint8_t *h = (uint8_t *)data->header;
    size_t ofs;

    memset(data, 0, sizeof *data);
    ofs = tf_headers(h, t->outer, t->port ? 17 : 47, 0);
    /* The lengths are filled in at the push; the sum goes without them. */
    if (t->outer == 4) {
        uint8_t *ip = h + TF_ETH;

        memset(ip + 2, 0, 2);
        memset(ip + 10, 0, 2);
        tf_put16(ip + 10, ~tf_sum(0, ip, 20));
    }
    if (t->port) {
        tf_put16(h + ofs + 2, t->port);
        tf_put16(h + ofs + 6, t->csum ? 0xffff : 0);
        ofs += 8;
    }
    h[ofs] = t->first;
    tf_put16(h + ofs + 2, t->proto);
    data->header_len = ofs + t->hdr;
    data->tnl_type = t->tnl_type;
}

static struct netdev *
tunnel_port(const struct tunnel *t)
{
    struct netdev *netdev = NULL;
    char name[32];

    snprintf(name, sizeof name, "t_%s", t->name);
    CHECK(!netdev_open(name, t->type, &netdev));
    return netdev;
}

/* Pushes one packet through 't'; NULL if it was dropped. */
static struct dp_packet *
push(const struct tunnel *t, struct dp_packet *b)
{
    struct ovs_action_push_tnl data;
    struct dp_packet_batch batch;
    struct netdev *netdev = tunnel_port(t);

    build_header(t, &data);
    dp_packet_batch_init_packet(&batch, b);
    netdev_push_header(netdev, &batch, &data);
    netdev_close(netdev);
    return batch.count ? batch.packets[0] : NULL;
}

static size_t
tunnel_len(const struct tunnel *t)
{
    return TF_ETH + tf_ip_len(t->outer) + (t->port ? 8 : 0) + t->hdr;
}

/* The largest guest packet that goes through 't' whole: sizes have 16 bits, and
 * the longest Geneve header over IPv6 feels it. */
static size_t
largest(const struct tunnel *t)
{
    return MIN(FULL, UINT16_MAX - tunnel_len(t));
}

static void
check_outer(const struct tunnel *t)
{
    for (unsigned i = 0; i < n_sent; i++) {
        const uint8_t *f = bytes(sent[i]);
        size_t len = dp_packet_size(sent[i]);
        const uint8_t *ip = f + TF_ETH;
        size_t l4 = TF_ETH + tf_ip_len(t->outer);

        CHECK(len <= MTU + TF_ETH);
        CHECK(tf_get16(ip + (t->outer == 4 ? 2 : 4)) == (t->outer == 4 ? len - TF_ETH : len - l4));
        CHECK(t->outer == 6 || tf_sum(0, ip, 20) == 0xffff);
        if (t->port) {
            CHECK(tf_get16(f + l4 + 4) == len - l4);
            CHECK(!t->csum == !tf_get16(f + l4 + 6));
            CHECK(!t->csum || tf_l4_sum(ip, t->outer, 17, f + l4, len - l4) == 0xffff);
        }
    }
}

static void
test_tunnel(const struct tunnel *t)
{
    static char names[ARRAY_SIZE(tunnels)][2][64];
    size_t full = largest(t);
    struct dp_packet *b;

    for (int i = 0; i < 2; i++) {
        char *name = names[t - tunnels][i];
        int version = i ? 6 : 4;

        snprintf(name, sizeof names[0][0], "offload-tunnel-%s-v%d", t->name, version);
        CASE(name);
        b = push(t, guest_tcp(version, full, 1400));
        CHECK(b);
        CHECK(b && dp_packet_size(b) == full + tunnel_len(t));
        /* A copy's metadata says nothing of tunnels. */
        if (b && i) {
            struct dp_packet *clone = dp_packet_clone_with_headroom(b, dp_packet_headroom(b));

            dp_packet_delete(b);
            b = clone;
        }
        if (b) {
            send_to(i ? plain : capable, b);
            check_outer(t);
            check_stream(version, tunnel_len(t), payload_of(version, full));
            CHECK(n_sent > 45);
        }
        forget_sent();
    }
}

static void
test_tunnel_small(void)
{
    struct dp_packet *b;

    CASE("offload-tunnel-sums-first");
    b = push(&tunnels[0], guest_tcp(4, 1000, 0));
    CHECK(b);
    send_to(plain, b);
    CHECK(n_sent == 1);
    check_stream(4, tunnel_len(&tunnels[0]), payload_of(4, 1000));
    forget_sent();
}

static void
test_tunnel_refused(void)
{
    static const struct tunnel gtpu = {"gtpu", "gtpu", OVS_VPORT_TYPE_GTPU, 4, 2152, 8, false,
                                       0x30,   0};
    struct dp_packet *b;

    CASE("offload-tunnel-not-cuttable");
    CHECK(!push(&gtpu, guest_tcp(4, FULL, 1400)));

    /* Sizes are 16 bits wide; this header takes the largest frame past that. */
    CASE("offload-tunnel-too-large");
    CHECK(largest(&tunnels[3]) == FULL || !push(&tunnels[3], guest_tcp(4, FULL, 1400)));

    CASE("offload-tunnel-in-tunnel");
    b = push(&tunnels[0], guest_tcp(4, FULL, 1400));
    CHECK(b);
    CHECK(!push(&tunnels[2], b));
}

static void
test_tunnel_headroom(void)
{
    struct dp_packet *b = guest_tcp(4, 200, 0);

    CASE("offload-tunnel-no-headroom");
    /* As from a NIC with 128 bytes, some of them used. */
    memmove((uint8_t *)bytes(b) - 200, bytes(b), 200);
    b->mbuf.data_off -= 200;
    b = push(&tunnels[3], b);
    CHECK(b && dp_packet_size(b) == 200 + tunnel_len(&tunnels[3]));
    send_to(plain, b);
    check_outer(&tunnels[3]);
    check_stream(4, tunnel_len(&tunnels[3]), payload_of(4, 200));
    forget_sent();
}

static void
test_local_loop(void)
{
    struct netdev *netdev = tunnel_port(&tunnels[0]);
    struct dp_packet *b = push(&tunnels[0], guest_tcp(6, FULL, 1400));
    struct dp_packet_batch batch;

    CASE("offload-tunnel-local-loop");
    CHECK(b);
    dp_packet_batch_init_packet(&batch, b);
    netdev_pop_header(netdev, &batch);
    CHECK(batch.count == 1);
    b = batch.packets[0];
    CHECK(dp_packet_size(b) == FULL);
    CHECK(b->mbuf.ol_flags & RTE_MBUF_F_TX_TCP_SEG && b->mbuf.ol_flags & RTE_MBUF_F_TX_IPV6);
    CHECK(b->mbuf.tso_segsz == 1400);
    send_to(plain, b);
    check_stream(6, 0, payload_of(6, FULL));
    forget_sent();
    netdev_close(netdev);
}

/* Two tags, a flood's copies, a mirror's tunnel: the largest frame there is. */
static void
test_largest(void)
{
    struct dp_packet *b = guest_tcp(4, FULL, MTU - 40);
    struct dp_packet *copies[3];

    CASE("offload-largest-vlan-flood-mirror");
    eth_push_vlan(b, htons(0x8100), htons(0x1064));
    eth_push_vlan(b, htons(0x8100), htons(0x10c8));
    CHECK(dp_packet_size(b) == FULL + 8);
    for (int i = 0; i < 3; i++) {
        copies[i] = dp_packet_clone_with_headroom(b, dp_packet_headroom(b));
    }
    send_to(capable, b);
    CHECK(n_sent == 1 && sent[0]->l3_ofs == 22);
    forget_sent();
    send_to(plain, copies[0]);
    check_stream(4, 0, payload_of(4, FULL));
    forget_sent();
    copies[1] = push(&tunnels[0], copies[1]);
    CHECK(copies[1] && dp_packet_size(copies[1]) <= UINT16_MAX);
    send_to(plain, copies[1]);
    check_outer(&tunnels[0]);
    check_stream(4, tunnel_len(&tunnels[0]), payload_of(4, FULL));
    forget_sent();
    eth_pop_vlan(copies[2]);
    send_to(plain, copies[2]);
    check_stream(4, 0, payload_of(4, FULL));
    forget_sent();
}

static void
start(void)
{
    char *argv[] = {"test",           "--no-huge", "--legacy-mem", "--no-shconf", "--no-pci",
                    "--no-telemetry", "-m",        "64",           "--log-level", "1"};

    ovs_assert(rte_eal_init(ARRAY_SIZE(argv), argv) >= 0);
    ovs_assert(!pools_create(4096, 64));
    netdev_vport_tunnel_register();
    netdev_register_provider(&sink_class);
    ovs_assert(!netdev_open("plain", "sink", &plain));
    ovs_assert(!netdev_open("capable", "sink", &capable));
    capable->ol_flags =
        NETDEV_TX_OFFLOAD_TCP_TSO | NETDEV_TX_OFFLOAD_TCP_CKSUM | NETDEV_TX_OFFLOAD_UDP_CKSUM;
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    set_program_name(argv[0]);
    start();
    test_plain_port();
    test_udp_sctp();
    test_capable_port();
    test_received();
    test_batch_order();
    test_truncated();
    test_hostile();
    for (size_t i = 0; i < ARRAY_SIZE(tunnels); i++) {
        test_tunnel(&tunnels[i]);
    }
    test_tunnel_small();
    test_tunnel_refused();
    test_tunnel_headroom();
    test_local_loop();
    test_largest();
    CASE("offload-no-leak");
    CHECK(rte_mempool_in_use_count(pools_small()) == 0);
    CHECK(rte_mempool_in_use_count(pools_large()) == 0);
    netdev_close(plain);
    netdev_close(capable);
    pools_destroy();
    return check_done();
}
