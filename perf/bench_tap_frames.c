/* Frames into a TAP port of the switch, at full speed.
 *
 * The peer of weft-netfront's blast mode.  The switch owns the TAP's file;
 * this program is the guest behind the TAP's interface: a packet socket that
 * skips the queueing discipline.  What arrives at the other TAP is counted by
 * the kernel, and no program takes it.
 *
 * usage: bench_tap_frames IFNAME SIZE GSO SRC-MAC DST-MAC SECONDS
 *   SIZE     bytes of a frame in memory, as blast's --size
 *   GSO      0, or the segment size of TCP frames larger than the MTU
 *   SECONDS  0: send one frame only, so that the switch learns SRC-MAC
 * Prints how many frames the socket took. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64u
#define FRAME_MAX 65536u
/* A single frame is tried for this long. */
#define ANNOUNCE_S 2

struct frame {
    size_t size;
    unsigned gso;
    struct virtio_net_hdr vnet;
    uint8_t bytes[FRAME_MAX];
};

static uint16_t
fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

/* Sum of 'n' (even) bytes as big-endian 16-bit words. */
static uint32_t
sum_words(const uint8_t *p, size_t n)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < n; i += 2) {
        sum += p[i] << 8 | p[i + 1];
    }
    return sum;
}

static void
build_ip(struct iphdr *ip, uint8_t protocol, size_t l3_bytes)
{
    *ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = protocol};
    ip->tot_len = htons(l3_bytes);
    ip->saddr = htonl(0x0a630001); /* 10.99.0.1 to 10.99.0.2: nobody's */
    ip->daddr = htonl(0x0a630002);
    ip->check = htons(~fold(sum_words((const uint8_t *)ip, sizeof *ip)));
}

/* TCP with a blank checksum, to be cut by whoever cannot take it whole. */
static void
build_tcp(struct frame *f, struct iphdr *ip)
{
    struct tcphdr *tcp = (struct tcphdr *)(ip + 1);
    size_t l4_bytes = f->size - ETH_HLEN - sizeof *ip;
    uint32_t pseudo = sum_words((const uint8_t *)&ip->saddr, 8) + IPPROTO_TCP + l4_bytes;

    *tcp = (struct tcphdr){.th_sport = htons(5001), .th_dport = htons(5001), .th_off = 5};
    tcp->th_flags = TH_ACK;
    tcp->th_win = htons(65535);
    tcp->th_sum = htons(fold(pseudo));
    f->vnet = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                      .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                      .hdr_len = ETH_HLEN + sizeof *ip + sizeof *tcp,
                                      .gso_size = f->gso,
                                      .csum_start = ETH_HLEN + sizeof *ip,
                                      .csum_offset = offsetof(struct tcphdr, th_sum)};
}

static void
build_udp(struct frame *f, struct iphdr *ip)
{
    struct udphdr *udp = (struct udphdr *)(ip + 1);

    *udp = (struct udphdr){.uh_sport = htons(5001), .uh_dport = htons(5001)};
    udp->uh_ulen = htons(f->size - ETH_HLEN - sizeof *ip);
}

static void
build_frame(struct frame *f, const struct ether_addr *src, const struct ether_addr *dst)
{
    struct ether_header *eth = (struct ether_header *)f->bytes;
    struct iphdr *ip = (struct iphdr *)(eth + 1);

    memcpy(eth->ether_shost, src, sizeof *src);
    memcpy(eth->ether_dhost, dst, sizeof *dst);
    eth->ether_type = htons(ETHERTYPE_IP);
    build_ip(ip, f->gso ? IPPROTO_TCP : IPPROTO_UDP, f->size - ETH_HLEN);
    if (f->gso) {
        build_tcp(f, ip);
    } else {
        build_udp(f, ip);
    }
}

static int
open_socket(const char *ifname, bool vnet)
{
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(ifname)};
    int one = 1;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

    if (fd < 0 || !to.sll_ifindex) {
        return -1;
    }
    if (setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one) ||
        (vnet && setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one)) ||
        bind(fd, (struct sockaddr *)&to, sizeof to)) {
        close(fd);
        return -1;
    }
    return fd;
}

static double
now_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec + ts.tv_nsec * 1e-9;
}

/* Returns how many frames were sent, or -1 with errno set. */
static int64_t
send_for(int fd, struct frame *f, double seconds)
{
    struct iovec iov[2] = {{&f->vnet, sizeof f->vnet}, {f->bytes, f->size}};
    struct mmsghdr msgs[BATCH] = {0};
    double end = now_s() + (seconds > 0 ? seconds : ANNOUNCE_S);
    int64_t sent = 0;

    for (unsigned i = 0; i < BATCH; i++) {
        msgs[i].msg_hdr.msg_iov = f->gso ? iov : iov + 1;
        msgs[i].msg_hdr.msg_iovlen = f->gso ? 2 : 1;
    }
    do {
        int n = sendmmsg(fd, msgs, seconds > 0 ? BATCH : 1, 0);

        /* A full TAP refuses with ENOBUFS: try again, as blast mode does
         * with a full ring. */
        if (n < 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR) {
            return -1;
        }
        sent += n > 0 ? n : 0;
    } while (now_s() < end && (seconds > 0 || !sent));
    if (!sent) {
        errno = ENOBUFS; /* the whole time */
        return -1;
    }
    return sent;
}

int
main(int argc, char **argv)
{
    static struct frame f;
    const struct ether_addr *parsed;
    struct ether_addr src, dst;
    int64_t sent;
    int fd;

    if (argc != 7) {
        fprintf(stderr, "usage: bench_tap_frames IFNAME SIZE GSO SRC-MAC DST-MAC SECONDS\n");
        return 2;
    }
    f.size = strtoul(argv[2], NULL, 10);
    f.gso = strtoul(argv[3], NULL, 10);
    parsed = ether_aton_r(argv[4], &src);
    if (!parsed || !ether_aton_r(argv[5], &dst) || f.size < 60 || f.size > FRAME_MAX - 256) {
        fprintf(stderr, "bench_tap_frames: bad MAC address or size\n");
        return 2;
    }
    build_frame(&f, &src, &dst);
    fd = open_socket(argv[1], f.gso);
    if (fd < 0) {
        fprintf(stderr, "bench_tap_frames: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    sent = send_for(fd, &f, atof(argv[6]));
    if (sent < 0) {
        fprintf(stderr, "bench_tap_frames: %s: send: %s\n", argv[1], strerror(errno));
        return 1;
    }
    printf("%lld\n", (long long)sent);
    close(fd);
    return 0;
}
