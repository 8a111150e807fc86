/* netfront_tapdev: a multi-queue TAP with virtio headers in a network namespace.
 *
 * What a guest's kernel sees as its network card: everything a guest needs is set up from
 * outside, so that nothing has to run inside the namespace.
 *
 * Threads: open and close from one thread; each queue's descriptor is its
 * reader's; the setters from any one thread at a time.
 * Errors: 0 or a positive errno. */
#ifndef NETFRONT_TAPDEV_H
#define NETFRONT_TAPDEV_H

#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NF_TAP_QUEUES_MAX 8u

struct nl_sock;

struct nf_tap_config {
    const char *netns;      /* a name under /run/netns; NULL: our own namespace */
    const char *ifname;     /* NULL: "eth0" */
    const char *ip;         /* "10.0.0.1/24", "fd00::1/64"; NULL: none */
    unsigned gso_max_bytes; /* largest frame the stack may make */
    /* Filled by the opener's caller. */
    unsigned n_queues, mtu;
    uint8_t mac[6];
};

struct nf_tap {
    char ifname[IFNAMSIZ];
    unsigned n;
    int fd[NF_TAP_QUEUES_MAX]; /* non-blocking */
    int ifindex;
    int mcast_fd;          /* /proc/net/dev_mcast of the namespace */
    int group_fd;          /* readable when a group was joined or left; -1: kernel does not say */
    struct nl_sock *route; /* netlink socket in the namespace */
    unsigned offload;      /* TUN_F_*, as set */
    bool carrier;          /* as set */
};

/* Makes the interface, up, without carrier.  On failure leaves a sentence
 * that says what to do next in 'why'. */
int nf_tap_open(struct nf_tap *, const struct nf_tap_config *, char *why, size_t why_size);
void nf_tap_close(struct nf_tap *);
/* What the stack may leave to us. */
int nf_tap_set_offload(struct nf_tap *, bool csum, bool tso4, bool tso6);
int nf_tap_set_carrier(struct nf_tap *, bool up);

#endif
