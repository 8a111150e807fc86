/* netfront_tapdev: see netfront_tapdev.h.
 *
 * Everything that belongs to a namespace (TAP descriptors, netlink sockets,
 * /proc files) is opened by a short-lived thread that has entered it:
 * setns(2) moves a thread, not the process. */
#include "netfront_tapdev.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* rtnetlink groups of kernels that announce multicast joins (6.15 and later);
 * older headers lack them and older kernels refuse them. */
#define GROUP_IPV4_MCADDR 37
#define GROUP_IPV6_MCADDR 38

struct opener {
    struct nf_tap *tap;
    const struct nf_tap_config *cfg;
    char *why;
    size_t why_size;
    int error;
};

static int __attribute__((format(printf, 3, 4)))
fail(struct opener *o, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(o->why, o->why_size, format, args);
    va_end(args);
    return error ? error : EIO;
}

static int
enter_netns(struct opener *o)
{
    char path[256];

    if (!o->cfg->netns) {
        return 0;
    }
    snprintf(path, sizeof path, "/run/netns/%s", o->cfg->netns);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fail(o, errno, "no network namespace %s (%s); create it with: ip netns add %s",
                    o->cfg->netns, strerror(errno), o->cfg->netns);
    }
    int error = setns(fd, CLONE_NEWNET) ? errno : 0;
    close(fd);
    if (error) {
        return fail(o, error, "cannot enter network namespace %s (%s); are you root?",
                    o->cfg->netns, strerror(error));
    }
    return 0;
}

static int
open_queue(struct opener *o, unsigned i)
{
    struct nf_tap *tap = o->tap;
    int header = sizeof(struct virtio_net_hdr);
    struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};

    if (o->cfg->n_queues > 1) {
        req.ifr_flags |= IFF_MULTI_QUEUE;
    }
    memcpy(req.ifr_name, tap->ifname, IFNAMSIZ);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return fail(o, errno, "cannot open /dev/net/tun (%s); load the module: modprobe tun",
                    strerror(errno));
    }
    tap->fd[i] = fd;
    tap->n = i + 1;
    if (ioctl(fd, TUNSETIFF, &req)) {
        return fail(o, errno, "cannot make TAP %s%s%s (%s)%s", tap->ifname,
                    o->cfg->netns ? " in namespace " : "", o->cfg->netns ? o->cfg->netns : "",
                    strerror(errno),
                    errno == EBUSY ? "; the name is taken: choose another with --ifname" : "");
    }
    if (ioctl(fd, TUNSETVNETHDRSZ, &header)) {
        return fail(o, errno, "the kernel refuses virtio headers on TAPs: %s", strerror(errno));
    }
    return 0;
}

/* Address, MTU, largest segment, and up, in one request.  The last is refused
 * by old kernels, then asked for again without. */
static int
configure_link(struct opener *o, bool with_gso_max)
{
    struct ifinfomsg link = {
        .ifi_index = o->tap->ifindex, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct nl_msg *msg = nlmsg_alloc_simple(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK);

    if (!msg || nlmsg_append(msg, &link, sizeof link, NLMSG_ALIGNTO) ||
        nla_put(msg, IFLA_ADDRESS, 6, o->cfg->mac) || nla_put_u32(msg, IFLA_MTU, o->cfg->mtu) ||
        (with_gso_max && nla_put_u32(msg, IFLA_GSO_MAX_SIZE, o->cfg->gso_max_bytes))) {
        nlmsg_free(msg);
        return fail(o, ENOMEM, "out of memory");
    }
    int error = nl_send_sync(o->tap->route, msg); /* frees msg */
    if (error && with_gso_max) {
        return configure_link(o, false);
    }
    if (error) {
        return fail(o, EINVAL, "cannot set MAC and MTU %u of %s: %s", o->cfg->mtu, o->tap->ifname,
                    nl_geterror(error));
    }
    return 0;
}

static int
add_address(struct opener *o, const char *text)
{
    struct nl_addr *local = NULL;
    struct rtnl_addr *addr = NULL;
    int error;

    if (nl_addr_parse(text, AF_UNSPEC, &local) || !(addr = rtnl_addr_alloc())) {
        nl_addr_put(local);
        return fail(o, EINVAL, "--ip: %s is not an address with prefix, as in 10.0.0.1/24", text);
    }
    rtnl_addr_set_ifindex(addr, o->tap->ifindex);
    rtnl_addr_set_local(addr, local);
    if (nl_addr_get_family(local) == AF_INET6) {
        rtnl_addr_set_flags(addr, IFA_F_NODAD); /* usable at once */
    }
    error = rtnl_addr_add(o->tap->route, addr, 0);
    rtnl_addr_put(addr);
    nl_addr_put(local);
    return error ? fail(o, EINVAL, "cannot give %s the address %s: %s", o->tap->ifname, text,
                        nl_geterror(error))
                 : 0;
}

static int
add_addresses(struct opener *o)
{
    const char *next = o->cfg->ip;
    char one[64];
    int error = 0;

    while (!error && next && *next) {
        size_t len = strcspn(next, ",");

        snprintf(one, sizeof one, "%.*s", (int)len, next);
        error = add_address(o, one);
        next += len + (next[len] == ',');
    }
    return error;
}

static int
open_group_socket(void)
{
    struct sockaddr_nl self = {.nl_family = AF_NETLINK};
    int groups[] = {GROUP_IPV4_MCADDR, GROUP_IPV6_MCADDR};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

    if (fd < 0 || bind(fd, (struct sockaddr *)&self, sizeof self)) {
        goto err;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof groups[i])) {
            goto err;
        }
    }
    return fd;

err:
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

static int
open_in_netns(struct opener *o)
{
    struct nf_tap *tap = o->tap;
    int error = enter_netns(o);

    for (unsigned i = 0; !error && i < o->cfg->n_queues; i++) {
        error = open_queue(o, i);
    }
    if (error) {
        return error;
    }
    tap->ifindex = (int)if_nametoindex(tap->ifname);
    tap->route = nl_socket_alloc();
    if (!tap->route || nl_connect(tap->route, NETLINK_ROUTE)) {
        return fail(o, ENOMEM, "cannot open a netlink socket");
    }
    int down = 0;
    ioctl(tap->fd[0], TUNSETCARRIER, &down); /* until the backend is connected */
    error = configure_link(o, true);
    error = error ? error : add_addresses(o);
    if (error) {
        return error;
    }
    tap->mcast_fd = open("/proc/thread-self/net/dev_mcast", O_RDONLY | O_CLOEXEC);
    tap->group_fd = open_group_socket();
    return 0;
}

static void *
opener_main(void *arg)
{
    struct opener *o = arg;
    o->error = open_in_netns(o);
    return NULL;
}

int
nf_tap_open(struct nf_tap *tap, const struct nf_tap_config *cfg, char *why, size_t why_size)
{
    struct opener o = {.tap = tap, .cfg = cfg, .why = why, .why_size = why_size};
    pthread_t thread;

    memset(tap, 0, sizeof *tap);
    tap->mcast_fd = tap->group_fd = -1;
    snprintf(tap->ifname, sizeof tap->ifname, "%s", cfg->ifname ? cfg->ifname : "eth0");
    int error = pthread_create(&thread, NULL, opener_main, &o);
    if (error) {
        return fail(&o, error, "cannot start a thread: %s", strerror(error));
    }
    pthread_join(thread, NULL);
    if (o.error) {
        nf_tap_close(tap);
    }
    return o.error;
}

void
nf_tap_close(struct nf_tap *tap)
{
    for (unsigned i = 0; i < tap->n; i++) {
        close(tap->fd[i]);
    }
    if (tap->mcast_fd >= 0) {
        close(tap->mcast_fd);
    }
    if (tap->group_fd >= 0) {
        close(tap->group_fd);
    }
    nl_socket_free(tap->route);
    memset(tap, 0, sizeof *tap);
    tap->mcast_fd = tap->group_fd = -1;
}

int
nf_tap_set_offload(struct nf_tap *tap, bool csum, bool tso4, bool tso6)
{
    unsigned offload = 0;

    if (csum) {
        offload = TUN_F_CSUM | (tso4 ? TUN_F_TSO4 : 0) | (tso6 ? TUN_F_TSO6 : 0);
    }
    for (unsigned i = 0; i < tap->n; i++) {
        if (ioctl(tap->fd[i], TUNSETOFFLOAD, offload)) {
            return errno;
        }
    }
    tap->offload = offload;
    return 0;
}

int
nf_tap_set_carrier(struct nf_tap *tap, bool up)
{
    int value = up;

    if (!tap->n) {
        return 0;
    }
    if (ioctl(tap->fd[0], TUNSETCARRIER, &value)) {
        return errno;
    }
    tap->carrier = up;
    return 0;
}
