/* wrap: functions of Open vSwitch's libraries that ours stand in front of.
 *
 * The linker's --wrap=NAME sends the libraries' calls of NAME to
 * __wrap_NAME(), which may call the original as __real_NAME().  The build
 * finds the definitions by their names, at the start of a line. */
#ifndef WRAP_H
#define WRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dp_packet;
struct dp_packet_batch;
struct netdev;
struct ovs_action_push_tnl;
struct smap;

/* dpdk_start.c */
void __real_dpdk_init(const struct smap *);
void __wrap_dpdk_init(const struct smap *);

/* pmd_nap.c */
void __real_xnanosleep_no_quiesce(uint64_t ns);
void __wrap_xnanosleep_no_quiesce(uint64_t ns);

/* offload_ports.c */
int __real_netdev_send(struct netdev *, int qid, struct dp_packet_batch *, bool concurrent_txq);
int __wrap_netdev_send(struct netdev *, int qid, struct dp_packet_batch *, bool concurrent_txq);

/* offload_tunnels.c */
int __wrap_netdev_push_header(const struct netdev *, struct dp_packet_batch *,
                              const struct ovs_action_push_tnl *);
void __wrap_netdev_pop_header(struct netdev *, struct dp_packet_batch *);

/* offload_ports.c */
struct dp_packet *__real_dp_packet_clone_with_headroom(const struct dp_packet *, size_t headroom);
struct dp_packet *__wrap_dp_packet_clone_with_headroom(const struct dp_packet *, size_t headroom);

#endif
