/* lab_link: network devices inside namespaces, by netlink.
 *
 * A namespace is given as a descriptor (lab_netns_open()).  Single-threaded,
 * like lab_netns.  Errors: 0 or a positive errno. */
#ifndef LAB_LINK_H
#define LAB_LINK_H

#include <stdbool.h>

struct nl_sock;

/* Gives the device an address with prefix ("10.0.0.1/24") and sets it up. */
int lab_link_address(int netns, const char *name, const char *address);
/* Gives the device a MAC ("02:00:00:00:00:01") and, unless 0, an MTU. */
int lab_link_identify(int netns, const char *name, const char *mac, unsigned mtu);
int lab_link_up(int netns, const char *name);

/* A virtual cable: 'a' in namespace 'netns_a', 'b' in 'netns_b', both up. */
int lab_link_cable(int netns_a, const char *a, int netns_b, const char *b);

/* A plain Linux bridge, up, that forwards every frame (tags included) and
 * learns nothing from multicast. */
int lab_link_bridge(int netns, const char *name);
int lab_link_enslave(int netns, const char *name, const char *bridge);

/* Has the kernel fill checksums and cut segments before the device gets a
 * packet: for one whose other end is a switch that cannot. */
int lab_link_plain(int netns, const char *name);

/* Keeps the kernel of the namespace from sending on the device by itself. */
int lab_link_silence(int netns, const char *name);

/* True if the device exists, is up and has carrier. */
bool lab_link_running(int netns, const char *name);

/* A pollable watch on the devices of a namespace: readable after any change.
 * NULL with errno set on failure. */
struct nl_sock *lab_link_watch(int netns, int *fd);
void lab_link_watch_drain(struct nl_sock *);
void lab_link_watch_close(struct nl_sock *); /* accepts NULL */

#endif
