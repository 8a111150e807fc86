/* A bare relay between two TAPs: the least that any switch of TAPs must do.
 *
 * The peer that TCP through Weft is measured against.  Each TAP carries a
 * virtio-net header and takes whole TCP segments of up to 64 KiB with blank
 * checksums, so a frame crosses as one read and one write, header and all,
 * and nothing ever looks inside.  One thread a direction, both blocking.
 *
 * usage: bench_tap_relay NETNS,IFNAME NETNS,IFNAME
 * Says "ready" on stdout when both TAPs exist; runs until it is killed, and
 * the TAPs go with it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define FRAME_MAX (65536 + 64)

struct direction {
    int from, to;
    char buf[FRAME_MAX];
};

static int
enter_netns(const char *name)
{
    char path[256];
    int fd, error;

    snprintf(path, sizeof path, "/run/netns/%s", name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno;
    }
    error = setns(fd, CLONE_NEWNET) ? errno : 0;
    close(fd);
    return error;
}

/* Makes a TAP with segmentation offload.  Returns its descriptor or -1. */
static int
open_tap(const char *ifname)
{
    unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    int header = sizeof(struct virtio_net_hdr);
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        return -1;
    }
    snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", ifname);
    if (ioctl(fd, TUNSETIFF, &ifr) || ioctl(fd, TUNSETVNETHDRSZ, &header) ||
        ioctl(fd, TUNSETOFFLOAD, offloads)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* 'where' is "NETNS,IFNAME"; it is cut in two. */
static int
open_tap_in(char *where)
{
    char *ifname = strchr(where, ',');
    int error, fd;

    if (!ifname) {
        fprintf(stderr, "bench_tap_relay: %s: expected NETNS,IFNAME\n", where);
        exit(2);
    }
    *ifname++ = '\0';
    error = enter_netns(where);
    if (error) {
        fprintf(stderr, "bench_tap_relay: namespace %s: %s\n", where, strerror(error));
        exit(1);
    }
    fd = open_tap(ifname);
    if (fd < 0) {
        fprintf(stderr, "bench_tap_relay: TAP %s: %s\n", ifname, strerror(errno));
        exit(1);
    }
    return fd;
}

static void *
relay(void *d_)
{
    struct direction *d = d_;

    for (;;) {
        ssize_t n = read(d->from, d->buf, sizeof d->buf);

        /* A TAP that is still down, or whose reader is slow, refuses the
         * frame: lost, as on a wire. */
        if (n > 0 && write(d->to, d->buf, n) < 0 && errno != EIO && errno != EINVAL) {
            fprintf(stderr, "bench_tap_relay: write: %s\n", strerror(errno));
            exit(1);
        }
        if (n < 0 && errno != EINTR) {
            fprintf(stderr, "bench_tap_relay: read: %s\n", strerror(errno));
            exit(1);
        }
    }
    return NULL;
}

int
main(int argc, char **argv)
{
    static struct direction there, back;
    pthread_t thread;

    if (argc != 3) {
        fprintf(stderr, "usage: bench_tap_relay NETNS,IFNAME NETNS,IFNAME\n");
        return 2;
    }
    there.from = back.to = open_tap_in(argv[1]);
    there.to = back.from = open_tap_in(argv[2]);
    if (pthread_create(&thread, NULL, relay, &back)) {
        perror("bench_tap_relay: pthread_create");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    relay(&there);
    return 0;
}
