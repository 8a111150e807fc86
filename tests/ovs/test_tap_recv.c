/* Frames of a TAP into packet buffers: a socket that keeps messages apart stands in for it.
 *
 *   virtio header and frame > socket > tap_recv() > packets
 *
 * Linked like weft-vswitchd. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <rte_eal.h>
#include <rte_mempool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "check.h"
#include "dp.h"
#include "netback.h"
#include "pools.h"
#include "tap_recv.h"
#include "tcp_frame.h"
#include "util.h"

#define N_LARGE 64u
#define N_SMALL 1024
#define BURST 32u
/* The most that fits 16 bits with some room in front. */
#define LONGEST 65406u

static int tap[2]; /* the kernel's end, ours */
static uint8_t frame[UINT16_MAX];

static void
put(const struct virtio_net_hdr *vnet, size_t len)
{
    struct iovec iov[] = {{(void *)vnet, sizeof *vnet}, {frame, len}};

    ovs_assert(writev(tap[0], iov, 2) == (ssize_t)(sizeof *vnet + len));
}

static void
put_plain(size_t len, uint8_t first)
{
    const struct virtio_net_hdr none = {.gso_type = VIRTIO_NET_HDR_GSO_NONE};

    for (size_t i = 0; i < len; i++) {
        frame[i] = first + i * 7 + i / 251;
    }
    put(&none, len);
}

static bool
is_plain(const struct rte_mbuf *m, size_t len, uint8_t first)
{
    const uint8_t *data = rte_pktmbuf_mtod(m, const uint8_t *);

    if (m->pkt_len != len || m->data_len != len || m->nb_segs != 1 || m->next ||
        rte_mbuf_refcnt_read(m) != 1 || m->ol_flags || m->data_off < 128) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (data[i] != (uint8_t)(first + i * 7 + i / 251)) {
            return false;
        }
    }
    return true;
}

/* One frame, the only one. */
static struct dp_packet *
take_one(void)
{
    struct rte_mbuf *pkts[BURST];
    int error;

    return tap_recv(tap[1], pkts, BURST, &error) == 1 && error == EAGAIN ? dp_packet_of(pkts[0])
                                                                         : NULL;
}

static void
test_sizes(void)
{
    static const size_t sizes[] = {14, 60, 1514, 1536, 1537, 1600, 9014, 65226, LONGEST};
    struct rte_mbuf *pkts[BURST];
    unsigned n = 0, sum = 0;
    int error;

    CASE("every byte of frames of all sizes, in order");
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        put_plain(sizes[i], i);
    }
    do {
        n = tap_recv(tap[1], pkts, BURST, &error);
        for (unsigned i = 0; i < n; i++, sum++) {
            CHECK(sum < ARRAY_SIZE(sizes) && is_plain(pkts[i], sizes[sum], sum));
            CHECK(pkts[i]->pool == (sizes[sum] <= 1536 ? pools_small() : pools_large()));
        }
        dp_packets_free(pkts, n);
    } while (!error);
    CHECK(error == EAGAIN && sum == ARRAY_SIZE(sizes));

    CASE("no frame, and what is too long for a packet or too short for a frame");
    CHECK(!tap_recv(tap[1], pkts, BURST, &error) && error == EAGAIN);
    put_plain(LONGEST + 1, 0);
    put_plain(100, 3);
    CHECK((n = tap_recv(tap[1], pkts, BURST, &error)) == 1 && is_plain(pkts[0], 100, 3));
    dp_packets_free(pkts, n);
    ovs_assert(write(tap[0], "short", 5) == 5);
    CHECK(!tap_recv(tap[1], pkts, BURST, &error) && error == EAGAIN);

    CASE("no more at once than asked for, or than 256 KiB and a frame");
    for (unsigned i = 0; i < 5; i++) {
        put_plain(60, i);
    }
    CHECK(tap_recv(tap[1], pkts, 3, &error) == 3 && !error);
    dp_packets_free(pkts, 3);
    CHECK(tap_recv(tap[1], pkts, 3, &error) == 2 && error == EAGAIN);
    dp_packets_free(pkts, 2);
    for (unsigned i = 0; i < 6; i++) {
        put_plain(65226, i);
    }
    CHECK((n = tap_recv(tap[1], pkts, BURST, &error)) == 5 && !error);
    dp_packets_free(pkts, n);
    CHECK((n = tap_recv(tap[1], pkts, BURST, &error)) == 1 && error == EAGAIN);
    dp_packets_free(pkts, n);

    CASE("a device that is gone is an error");
    CHECK(!tap_recv(-1, pkts, BURST, &error) && error == EBADF);
}

/* --- what the kernel leaves to us ------------------------------------------------ */

static const struct virtio_net_hdr blank = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM};

static void
test_offloads(void)
{
    struct virtio_net_hdr gso = {
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN,
        .gso_size = 1448,
    };
    struct dp_packet *b;

    CASE("TCP to be cut, IPv4 and IPv6, and the size of its segments");
    tf_tcp(frame, 4, 30000);
    put(&gso, 30000);
    CHECK((b = take_one()) && dp_packet_hwol_is_tso(b) && b->mbuf.tso_segsz == 1448);
    CHECK(b && dp_packet_hwol_is_ipv4(b) && dp_packet_size(b) == 30000 &&
          !memcmp(dp_packet_data(b), frame, 30000));
    dp_packet_delete(b);
    gso.gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
    tf_tcp(frame, 6, 1500);
    put(&gso, 1500);
    CHECK((b = take_one()) && dp_packet_hwol_is_tso(b) && b->mbuf.tso_segsz == 1448);
    CHECK(b && *dp_packet_ol_flags_ptr(b) & DP_PACKET_OL_TX_IPV6);
    dp_packet_delete(b);

    CASE("a segment size that nobody wants is not taken over");
    gso.gso_size = 1;
    put(&gso, 1500);
    CHECK((b = take_one()) && dp_packet_hwol_is_tso(b) && b->mbuf.tso_segsz != 1);
    dp_packet_delete(b);

    CASE("blank checksums of TCP, UDP and SCTP");
    for (unsigned i = 0; i < 3; i++) {
        static const uint8_t protos[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP};
        static const uint64_t flags[] = {DP_PACKET_OL_TX_TCP_CKSUM, DP_PACKET_OL_TX_UDP_CKSUM,
                                         DP_PACKET_OL_TX_SCTP_CKSUM};
        size_t len = tf_headers(frame, 4, protos[i], 100) + 100;

        memset(frame + len - 100, 0, 100);
        frame[len - 100 + 12] = 0x50; /* TCP's header length */
        frame[len - 100 + 5] = 100;   /* UDP's */
        put(&blank, len);
        CHECK((b = take_one()) && dp_packet_hwol_l4_mask(b) == flags[i] &&
              !dp_packet_hwol_is_tso(b) && dp_packet_hwol_is_ipv4(b));
        dp_packet_delete(b);
    }

    CASE("what is not IP has nothing to be done, whatever the header says");
    memset(frame, 2, 60);
    put(&gso, 60);
    CHECK((b = take_one()) && !*dp_packet_ol_flags_ptr(b));
    dp_packet_delete(b);
    put(&blank, 10);
    CHECK((b = take_one()) && !*dp_packet_ol_flags_ptr(b) && dp_packet_size(b) == 10);
    dp_packet_delete(b);
}

/* --- memory ------------------------------------------------------------------------- */

/* Holds 'n' frames of that length, as many as the pool has buffers; they leave it 'bulk' at a
 * time. */
static void
hold(size_t len, unsigned n, struct rte_mempool *mp, unsigned bulk)
{
    struct rte_mbuf **held = xcalloc(n, sizeof *held), *pkts[BURST];
    unsigned n_held = 0, n_pooled = 0;
    int error;

    for (unsigned i = 0; i < n; i++) {
        put_plain(len, i);
        if (tap_recv(tap[1], pkts, BURST, &error) == 1 && is_plain(pkts[0], len, i)) {
            held[n_held++] = pkts[0];
            n_pooled += pkts[0]->pool != NULL;
        }
    }
    CHECK(n_held == n && n_pooled >= n / 2 && n_pooled <= n * 3 / 4 + bulk);
    CHECK(rte_mempool_avail_count(mp) >= n / 4 - bulk);
    dp_packets_free(held, n_held);
    free(held);
}

static void
test_exhaustion(void)
{
    CASE("a quarter of the buffers is not taken, and frames arrive all the same");
    hold(2000, N_LARGE, pools_large(), 1);
    hold(60, N_SMALL, pools_small(), 64);

    CASE("nothing stays behind");
    CHECK(rte_mempool_avail_count(pools_large()) == N_LARGE);
    CHECK(rte_mempool_in_use_count(pools_small()) == 0);
}

int
main(void)
{
    char *argv[] = {"test",           "--no-huge", "--legacy-mem", "--no-shconf", "--no-pci",
                    "--no-telemetry", "-m",        "64",           "--log-level", "1"};
    int size = 4 << 20;

    ovs_assert(rte_eal_init(ARRAY_SIZE(argv), argv) >= 0);
    ovs_assert(!pools_create(N_SMALL, N_LARGE));
    ovs_assert(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, tap));
    setsockopt(tap[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    test_sizes();
    test_offloads();
    test_exhaustion();
    close(tap[0]);
    close(tap[1]);
    return check_done();
}
