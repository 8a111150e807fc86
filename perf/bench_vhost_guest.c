/* A guest behind vhost-user: a virtio port joined to a TAP, offloads and all.
 *
 * The peer of weft-netfront's mode "tap", with the same outside: a namespace, a
 * TAP with virtio headers, TCP segments of up to 64 KiB with blank checksums
 * both ways.  The virtio port is DPDK's virtio-user, so that the switch serves
 * it like a virtual machine's.
 *
 * To the switch a frame is read into one buffer, which the ring points to.  From
 * the switch it comes in pieces, which one writev(2) hands to the TAP.  Looks at
 * the virtio ring, then at the TAP, and sleeps when both are empty: it is called
 * by the switch (eventfd) as a virtual machine is.
 *
 * usage: bench_vhost_guest SOCKET NETNS IFNAME ADDRESS/PREFIX MAC
 *   SOCKET  where the switch, vhost-user's client, connects to
 * Says "ready" on stdout when the switch has connected.  At SIGTERM prints how
 * many frames went each way, and how many of them were larger than the MTU, and
 * ends.
 *
 * Threads: one that moves packets, and DPDK's own. */
#include <errno.h>
#include <net/ethernet.h>
#include <netinet/ether.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "netfront_frame.h"
#include "netfront_tapdev.h"

#define PORT 0
#define RING 1024u
#define MTU 1500u
#define TURN 32u
/* Of the stack: what weft-netfront asks for, too. */
#define GSO_MAX 65000u
#define FRAME_MAX (GSO_MAX + ETH_HLEN + 8u)
/* From the switch: a piece is a page.  To the switch: a frame in one piece. */
#define RX_BUFFERS (4 * RING)
#define TX_BUFFERS 512u
#define PIECES_MAX 64
/* Sleep when the ring to the switch is full; DPDK cannot be called for that. */
#define FULL_NS 50000

#define CSUM_OFFLOADS (RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM)

struct guest {
    struct nf_tap tap;
    struct rte_mempool *rx_pool, *tx_pool;
    int call_fd;             /* the switch has put something */
    struct rte_mbuf *stuck;  /* read from the TAP, the ring was full */
    uint64_t tx, rx;         /* frames to and from the switch */
    uint64_t tx_big, rx_big; /* larger than the MTU */
    uint64_t tx_bad, rx_bad; /* dropped */
};

static volatile sig_atomic_t ended;

static void
end(int sig)
{
    ended = sig;
}

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "bench_vhost_guest: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

/* --- to the switch ---------------------------------------------------------------- */

/* What the TAP's header says, for the virtio port.  False if it cannot be said. */
static bool
mark_tx(struct rte_mbuf *m, const struct virtio_net_hdr *v)
{
    struct nf_headers h;

    if (!(v->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)) {
        return v->gso_type == VIRTIO_NET_HDR_GSO_NONE;
    }
    if (!nf_headers_find(rte_pktmbuf_mtod(m, uint8_t *), m->data_len, &h) ||
        v->csum_start != h.l4) {
        return false;
    }
    m->l2_len = h.l3;
    m->l3_len = h.l4 - h.l3;
    m->l4_len = h.payload - h.l4;
    m->ol_flags |= h.ip_version == 4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6;
    m->ol_flags |= h.proto == IPPROTO_TCP ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM;
    if (v->gso_type != VIRTIO_NET_HDR_GSO_NONE) {
        m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
        m->tso_segsz = v->gso_size;
    }
    return true;
}

/* A frame of the TAP, or NULL: there is none, or no buffer. */
static struct rte_mbuf *
read_frame(struct guest *g)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(g->tx_pool);
    struct virtio_net_hdr header;
    struct iovec iov[2];
    ssize_t n;

    if (!m) {
        return NULL;
    }
    iov[0] = (struct iovec){&header, sizeof header};
    iov[1] = (struct iovec){rte_pktmbuf_mtod(m, void *), FRAME_MAX};
    n = readv(g->tap.fd[0], iov, 2);
    if (n > (ssize_t)sizeof header) {
        m->data_len = n - sizeof header;
        m->pkt_len = m->data_len;
        if (mark_tx(m, &header)) {
            return m;
        }
        g->tx_bad++;
    }
    rte_pktmbuf_free(m);
    return NULL;
}

static unsigned
forward_tx(struct guest *g)
{
    unsigned n;

    for (n = 0; n < TURN; n++) {
        struct rte_mbuf *m = g->stuck ? g->stuck : read_frame(g);
        bool big;

        if (!m) {
            break;
        }
        big = m->pkt_len > MTU + ETH_HLEN;
        g->stuck = rte_eth_tx_burst(PORT, 0, &m, 1) ? NULL : m;
        if (g->stuck) {
            break;
        }
        g->tx++;
        g->tx_big += big;
    }
    return n;
}

/* --- from the switch -------------------------------------------------------------- */

static bool
make_header(const struct rte_mbuf *m, struct virtio_net_hdr *v)
{
    bool lro = m->ol_flags & RTE_MBUF_F_RX_LRO;
    struct nf_headers h;

    memset(v, 0, sizeof *v);
    if (!lro && (m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) != RTE_MBUF_F_RX_L4_CKSUM_NONE) {
        return true;
    }
    if (!nf_headers_find(rte_pktmbuf_mtod(m, uint8_t *), m->data_len, &h)) {
        return !lro;
    }
    v->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    v->csum_start = h.l4;
    v->csum_offset = h.proto == IPPROTO_TCP ? 16 : 6;
    if (lro) {
        v->gso_type = h.ip_version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
        v->gso_size = m->tso_segsz;
        v->hdr_len = h.payload;
    }
    return true;
}

static void
deliver(struct guest *g, struct rte_mbuf *m)
{
    struct iovec iov[1 + PIECES_MAX];
    struct virtio_net_hdr header;
    int n = 1;

    g->rx++;
    g->rx_big += m->pkt_len > MTU + ETH_HLEN;
    if (m->nb_segs > PIECES_MAX || !make_header(m, &header)) {
        g->rx_bad++;
        return;
    }
    iov[0] = (struct iovec){&header, sizeof header};
    for (struct rte_mbuf *piece = m; piece; piece = piece->next) {
        iov[n++] = (struct iovec){rte_pktmbuf_mtod(piece, void *), piece->data_len};
    }
    if (writev(g->tap.fd[0], iov, n) < 0) {
        g->rx_bad++;
    }
}

static unsigned
forward_rx(struct guest *g)
{
    struct rte_mbuf *pkts[TURN];
    unsigned n = rte_eth_rx_burst(PORT, 0, pkts, TURN);

    for (unsigned i = 0; i < n; i++) {
        deliver(g, pkts[i]);
        rte_pktmbuf_free(pkts[i]);
    }
    return n;
}

/* --- the loop --------------------------------------------------------------------- */

static void
nap(struct guest *g)
{
    struct pollfd fds[2] = {{.fd = g->call_fd, .events = POLLIN},
                            {.fd = g->stuck ? -1 : g->tap.fd[0], .events = POLLIN}};
    /* The longer one so that an end that came just now is seen. */
    struct timespec timeout = {.tv_sec = g->stuck ? 0 : 1, .tv_nsec = g->stuck ? FULL_NS : 0};
    uint64_t calls;

    rte_eth_dev_rx_intr_enable(PORT, 0);
    /* Did something come before the switch could know? */
    if (!forward_rx(g)) {
        ppoll(fds, 2, &timeout, NULL);
    }
    rte_eth_dev_rx_intr_disable(PORT, 0);
    if (fds[0].revents && read(g->call_fd, &calls, sizeof calls) < 0 && errno != EAGAIN) {
        die("eventfd: %s", strerror(errno));
    }
}

static void
run(struct guest *g)
{
    while (!ended) {
        unsigned rx = forward_rx(g);

        if (!(rx + forward_tx(g))) {
            nap(g);
        }
    }
    printf("to the switch %llu frames, %llu large, %llu dropped; "
           "from it %llu frames, %llu large, %llu dropped\n",
           (unsigned long long)g->tx, (unsigned long long)g->tx_big, (unsigned long long)g->tx_bad,
           (unsigned long long)g->rx, (unsigned long long)g->rx_big, (unsigned long long)g->rx_bad);
}

/* --- start ------------------------------------------------------------------------ */

static void
start_dpdk(const char *socket)
{
    char vdev[200], prefix[40], cores[40];
    char *argv[] = {"bench_vhost_guest",
                    "--no-huge",
                    "--legacy-mem",
                    "-m",
                    "192",
                    "--no-pci",
                    "--no-shconf",
                    "--no-telemetry",
                    "--file-prefix",
                    prefix,
                    "--lcores",
                    cores,
                    "--log-level=error",
                    "--vdev",
                    vdev,
                    NULL};

    snprintf(prefix, sizeof prefix, "weft-bench-%ld", (long)getpid());
    /* Wherever the scheduler likes. */
    snprintf(cores, sizeof cores, "0@(0-%ld)", sysconf(_SC_NPROCESSORS_ONLN) - 1);
    snprintf(vdev, sizeof vdev, "net_virtio_user0,path=%s,server=1,queues=1,queue_size=%u", socket,
             RING);
    /* Returns when the switch has connected. */
    if (rte_eal_init((int)(sizeof argv / sizeof argv[0]) - 1, argv) < 0) {
        die("DPDK does not start: %s", rte_strerror(rte_errno));
    }
    if (!rte_eth_dev_is_valid_port(PORT)) {
        die("no virtio-user port");
    }
}

static void
start_port(struct guest *g)
{
    struct rte_eth_conf conf = {
        .rxmode.offloads = RTE_ETH_RX_OFFLOAD_TCP_LRO | RTE_ETH_RX_OFFLOAD_TCP_CKSUM |
                           RTE_ETH_RX_OFFLOAD_UDP_CKSUM | RTE_ETH_RX_OFFLOAD_SCATTER,
        .txmode.offloads =
            RTE_ETH_TX_OFFLOAD_TCP_TSO | RTE_ETH_TX_OFFLOAD_MULTI_SEGS | CSUM_OFFLOADS,
        .intr_conf.rxq = 1,
    };
    /* Takes back what the switch has copied as soon as it is a turn's worth, so
     * that few buffers go round and stay in the cache. */
    struct rte_eth_txconf tx = {.tx_free_thresh = RING - TURN, .offloads = conf.txmode.offloads};
    int error;

    g->rx_pool = rte_pktmbuf_pool_create("rx", RX_BUFFERS, 64, 0, 4096 + RTE_PKTMBUF_HEADROOM, 0);
    g->tx_pool = rte_pktmbuf_pool_create("tx", TX_BUFFERS, 128, 0, UINT16_MAX, 0);
    if (!g->rx_pool || !g->tx_pool) {
        die("no memory for buffers: %s", rte_strerror(rte_errno));
    }
    error = rte_eth_dev_configure(PORT, 1, 1, &conf);
    error = error ? error : rte_eth_rx_queue_setup(PORT, 0, RING, 0, NULL, g->rx_pool);
    error = error ? error : rte_eth_tx_queue_setup(PORT, 0, RING, 0, &tx);
    error = error ? error : rte_eth_dev_start(PORT);
    if (error) {
        die("the virtio port does not start: %s", rte_strerror(-error));
    }
    g->call_fd = rte_eth_dev_rx_intr_ctl_q_get_fd(PORT, 0);
    if (g->call_fd < 0) {
        die("the virtio port does not call");
    }
}

static void
open_tap(struct guest *g, char **argv)
{
    struct nf_tap_config cfg = {.netns = argv[2],
                                .ifname = argv[3],
                                .ip = argv[4],
                                .gso_max_bytes = GSO_MAX,
                                .n_queues = 1,
                                .mtu = MTU};
    struct ether_addr mac;
    char why[300];

    if (!ether_aton_r(argv[5], &mac)) {
        die("%s is no MAC address", argv[5]);
    }
    memcpy(cfg.mac, &mac, sizeof cfg.mac);
    if (nf_tap_open(&g->tap, &cfg, why, sizeof why)) {
        die("%s", why);
    }
    if (nf_tap_set_offload(&g->tap, true, true, true)) {
        die("the TAP refuses offloads: %s", strerror(errno));
    }
}

int
main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = end}; /* without SA_RESTART: ends a nap */
    static struct guest g;

    if (argc != 6) {
        fprintf(stderr, "usage: bench_vhost_guest SOCKET NETNS IFNAME ADDRESS/PREFIX MAC\n");
        return 2;
    }
    open_tap(&g, argv);
    start_dpdk(argv[1]);
    start_port(&g);
    nf_tap_set_carrier(&g.tap, true);
    sigaction(SIGTERM, &action, NULL);
    puts("ready");
    fflush(stdout);
    run(&g);
    nf_tap_close(&g.tap);
    rte_eth_dev_stop(PORT);
    rte_eal_cleanup();
    return 0;
}
