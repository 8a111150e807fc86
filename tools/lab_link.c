#include "lab_link.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>
#include <netlink/socket.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lab_netns.h"

/* libnl's own error codes, as errno values. */
static int
nl_errno(int error)
{
    switch (-error) {
    case 0:
        return 0;
    case NLE_EXIST:
        return EEXIST;
    case NLE_NODEV:
    case NLE_OBJ_NOTFOUND:
        return ENODEV;
    case NLE_PERM:
    case NLE_NOACCESS:
        return EPERM;
    case NLE_OPNOTSUPP:
        return EOPNOTSUPP;
    case NLE_NOMEM:
        return ENOMEM;
    case NLE_INVAL:
        return EINVAL;
    case NLE_BUSY:
        return EBUSY;
    default:
        return EIO;
    }
}

struct open_args {
    struct nl_sock *sock;
};

static int
connect_here(void *args_)
{
    struct open_args *args = args_;

    return nl_errno(nl_connect(args->sock, NETLINK_ROUTE));
}

/* A netlink socket stays in the namespace that it was opened in. */
static int
sock_open(int netns, struct nl_sock **sockp)
{
    struct open_args args = {.sock = nl_socket_alloc()};
    int error;

    if (!args.sock) {
        return ENOMEM;
    }
    error = lab_netns_call(netns, connect_here, &args);
    if (error) {
        nl_socket_free(args.sock);
        return error;
    }
    *sockp = args.sock;
    return 0;
}

/* Applies 'change' to the device, both by name. */
static int
change_link(int netns, const char *name, struct rtnl_link *change)
{
    struct rtnl_link *link = NULL;
    struct nl_sock *sock;
    int error = sock_open(netns, &sock);

    if (error) {
        return error;
    }
    error = nl_errno(rtnl_link_get_kernel(sock, 0, name, &link));
    if (!error) {
        error = nl_errno(rtnl_link_change(sock, link, change, 0));
        rtnl_link_put(link);
    }
    nl_socket_free(sock);
    return error;
}

int
lab_link_up(int netns, const char *name)
{
    struct rtnl_link *change = rtnl_link_alloc();
    int error;

    if (!change) {
        return ENOMEM;
    }
    rtnl_link_set_flags(change, IFF_UP);
    error = change_link(netns, name, change);
    rtnl_link_put(change);
    return error;
}

int
lab_link_identify(int netns, const char *name, const char *mac, unsigned mtu)
{
    struct rtnl_link *change = rtnl_link_alloc();
    struct nl_addr *address = NULL;
    int error = change ? nl_errno(nl_addr_parse(mac, AF_LLC, &address)) : ENOMEM;

    if (!error) {
        rtnl_link_set_addr(change, address);
        if (mtu) {
            rtnl_link_set_mtu(change, mtu);
        }
        error = change_link(netns, name, change);
    }
    nl_addr_put(address);
    rtnl_link_put(change);
    return error;
}

static int
add_veth(int netns_a, const char *a, int netns_b, const char *b)
{
    struct rtnl_link *veth = rtnl_link_veth_alloc();
    struct rtnl_link *peer;
    struct nl_sock *sock;
    int error;

    if (!veth) {
        return ENOMEM;
    }
    error = sock_open(netns_a, &sock);
    if (error) {
        rtnl_link_put(veth);
        return error;
    }
    rtnl_link_set_name(veth, a);
    peer = rtnl_link_veth_get_peer(veth);
    rtnl_link_set_name(peer, b);
    rtnl_link_set_ns_fd(peer, netns_b);
    rtnl_link_put(peer);
    error = nl_errno(rtnl_link_add(sock, veth, NLM_F_CREATE | NLM_F_EXCL));
    rtnl_link_put(veth);
    nl_socket_free(sock);
    return error;
}

int
lab_link_cable(int netns_a, const char *a, int netns_b, const char *b)
{
    int error = add_veth(netns_a, a, netns_b, b);

    if (!error) {
        error = lab_link_up(netns_a, a);
    }
    if (!error) {
        error = lab_link_up(netns_b, b);
    }
    return error;
}

/* libnl has no setter for a bridge's snooping, so the request is put
 * together here: RTM_NEWLINK with IFLA_LINKINFO (linux/if_link.h). */
static int
send_new_bridge(struct nl_sock *sock, const char *name)
{
    struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct nl_msg *msg =
        nlmsg_alloc_simple(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
    struct nlattr *info, *data;
    int error = ENOMEM;

    if (!msg) {
        return ENOMEM;
    }
    if (nlmsg_append(msg, &ifi, sizeof ifi, NLMSG_ALIGNTO) ||
        nla_put_string(msg, IFLA_IFNAME, name) || !(info = nla_nest_start(msg, IFLA_LINKINFO)) ||
        nla_put_string(msg, IFLA_INFO_KIND, "bridge") ||
        !(data = nla_nest_start(msg, IFLA_INFO_DATA)) ||
        nla_put_u8(msg, IFLA_BR_MCAST_SNOOPING, 0) || nla_put_u32(msg, IFLA_BR_STP_STATE, 0) ||
        nla_put_u32(msg, IFLA_BR_FORWARD_DELAY, 0)) {
        goto out;
    }
    nla_nest_end(msg, data);
    nla_nest_end(msg, info);
    error = nl_send_auto(sock, msg);
    error = error < 0 ? nl_errno(error) : nl_errno(nl_wait_for_ack(sock));
out:
    nlmsg_free(msg);
    return error;
}

int
lab_link_bridge(int netns, const char *name)
{
    struct nl_sock *sock;
    int error = sock_open(netns, &sock);

    if (!error) {
        error = send_new_bridge(sock, name);
        nl_socket_free(sock);
    }
    return error ? error : lab_link_silence(netns, name);
}

int
lab_link_enslave(int netns, const char *name, const char *bridge)
{
    struct nl_sock *sock;
    int error = sock_open(netns, &sock);

    if (error) {
        return error;
    }
    struct rtnl_link *master = NULL, *slave = NULL;
    error = nl_errno(rtnl_link_get_kernel(sock, 0, bridge, &master));
    if (!error) {
        error = nl_errno(rtnl_link_get_kernel(sock, 0, name, &slave));
    }
    if (!error) {
        error = nl_errno(rtnl_link_enslave(sock, master, slave));
    }
    rtnl_link_put(slave);
    rtnl_link_put(master);
    nl_socket_free(sock);
    return error;
}

int
lab_link_address(int netns, const char *name, const char *address)
{
    struct rtnl_addr *addr = rtnl_addr_alloc();
    struct rtnl_link *link = NULL;
    struct nl_addr *local = NULL;
    struct nl_sock *sock;
    int error = sock_open(netns, &sock);

    if (error) {
        rtnl_addr_put(addr);
        return error;
    }
    error = addr ? nl_errno(nl_addr_parse(address, AF_UNSPEC, &local)) : ENOMEM;
    if (!error) {
        error = nl_errno(rtnl_link_get_kernel(sock, 0, name, &link));
    }
    if (!error) {
        rtnl_addr_set_ifindex(addr, rtnl_link_get_ifindex(link));
        rtnl_addr_set_local(addr, local);
        if (nl_addr_get_family(local) == AF_INET6) {
            rtnl_addr_set_flags(addr, IFA_F_NODAD); /* usable at once */
        }
        error = nl_errno(rtnl_addr_add(sock, addr, 0));
    }
    rtnl_link_put(link);
    nl_addr_put(local);
    rtnl_addr_put(addr);
    nl_socket_free(sock);
    return error ? error : lab_link_up(netns, name);
}

static int
disable_offloads_here(void *name)
{
    static const uint32_t commands[] = {ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int error = fd < 0 ? errno : 0;

    for (unsigned i = 0; !error && i < sizeof commands / sizeof commands[0]; i++) {
        struct ethtool_value off = {.cmd = commands[i]};
        struct ifreq req = {.ifr_data = (void *)&off};

        snprintf(req.ifr_name, sizeof req.ifr_name, "%s", (const char *)name);
        error = ioctl(fd, SIOCETHTOOL, &req) ? errno : 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    return error;
}

int
lab_link_plain(int netns, const char *name)
{
    return lab_netns_call(netns, disable_offloads_here, (void *)name);
}

static int
write_sysctl(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0) {
        return errno == ENOENT ? 0 : errno; /* a kernel without it is silent */
    }
    int error = write(fd, value, 1) == 1 ? 0 : errno;
    close(fd);
    return error;
}

/* /proc/sys/net shows the namespace of the one who opens it. */
static int
silence_here(void *name)
{
    char path[128];
    int error;

    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", (const char *)name);
    error = write_sysctl(path, "1");
    /* Else it answers ARP for addresses of the namespace's other devices. */
    snprintf(path, sizeof path, "/proc/sys/net/ipv4/conf/%s/arp_ignore", (const char *)name);
    return error ? error : write_sysctl(path, "8");
}

int
lab_link_silence(int netns, const char *name)
{
    return lab_netns_call(netns, silence_here, (void *)name);
}

bool
lab_link_running(int netns, const char *name)
{
    struct rtnl_link *link = NULL;
    struct nl_sock *sock;
    bool running = false;

    if (sock_open(netns, &sock)) {
        return false;
    }
    if (!rtnl_link_get_kernel(sock, 0, name, &link)) {
        unsigned flags = rtnl_link_get_flags(link);
        running = (flags & IFF_UP) && (flags & IFF_RUNNING);
        rtnl_link_put(link);
    }
    nl_socket_free(sock);
    return running;
}

struct nl_sock *
lab_link_watch(int netns, int *fd)
{
    struct nl_sock *sock;
    int error = sock_open(netns, &sock);

    if (!error) {
        error = nl_errno(nl_socket_add_memberships(sock, RTNLGRP_LINK, 0));
        if (!error) {
            error = nl_errno(nl_socket_set_nonblocking(sock));
        }
        if (error) {
            nl_socket_free(sock);
        }
    }
    if (error) {
        errno = error;
        return NULL;
    }
    *fd = nl_socket_get_fd(sock);
    return sock;
}

void
lab_link_watch_drain(struct nl_sock *sock)
{
    char buf[8192];

    /* An overrun (ENOBUFS) is a change as well: the caller looks again. */
    while (recv(nl_socket_get_fd(sock), buf, sizeof buf, MSG_DONTWAIT) > 0) {
        continue;
    }
}

void
lab_link_watch_close(struct nl_sock *sock)
{
    if (sock) {
        nl_socket_free(sock);
    }
}
