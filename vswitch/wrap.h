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

#include "openvswitch/types.h"

struct bfd;
struct cfm;
struct dp_packet;
struct dp_packet_batch;
struct dpif;
struct lldp;
struct netdev;
struct netflow_options;
struct ofbundle;
struct ofport_dpif;
struct ofproto;
struct ofproto_dpif;
struct ofproto_ipfix_bridge_exporter_options;
struct ofproto_ipfix_flow_exporter_options;
struct ofproto_port_queue;
struct connmgr;
struct ofconn;
struct dpif_flow_dump;
struct dpif_flow_dump_types;
struct ofpbuf;
struct ofputil_requestforward;
struct ovs_action_push_tnl;
struct rconn;
struct rconn_packet_counter;
struct rstp_port;
struct rule;
struct rule_actions;
struct smap;
struct udpif;

/* dpdk_start.c */
void __real_dpdk_init(const struct smap *);
void __wrap_dpdk_init(const struct smap *);

/* dpif_weft_wrap.c */
bool __real_dpif_supports_tnl_push_pop(const struct dpif *);
bool __wrap_dpif_supports_tnl_push_pop(const struct dpif *);
bool __real_dpif_supports_explicit_drop_action(const struct dpif *);
bool __wrap_dpif_supports_explicit_drop_action(const struct dpif *);
bool __real_dpif_supports_lb_output_action(const struct dpif *);
bool __wrap_dpif_supports_lb_output_action(const struct dpif *);
const char *__real_ofproto_normalize_type(const char *);
const char *__wrap_ofproto_normalize_type(const char *);

/* flow_export_config.c */
int __real_ofproto_set_netflow(struct ofproto *, const struct netflow_options *);
int __wrap_ofproto_set_netflow(struct ofproto *, const struct netflow_options *);
int __real_ofproto_set_ipfix(struct ofproto *, const struct ofproto_ipfix_bridge_exporter_options *,
                             const struct ofproto_ipfix_flow_exporter_options *, size_t);
int __wrap_ofproto_set_ipfix(struct ofproto *, const struct ofproto_ipfix_bridge_exporter_options *,
                             const struct ofproto_ipfix_flow_exporter_options *, size_t);

/* spare.c */
void __real_daemonize_complete(void);
void __wrap_daemonize_complete(void);

/* pmd_nap.c */
void __real_xnanosleep_no_quiesce(uint64_t ns);
void __wrap_xnanosleep_no_quiesce(uint64_t ns);

/* dp_poller.c */
void __real_poll_fd_wait_at(int fd, short int events, const char *where);
void __wrap_poll_fd_wait_at(int fd, short int events, const char *where);

/* offload_ports.c */
int __real_netdev_send(struct netdev *, int qid, struct dp_packet_batch *, bool concurrent_txq);
int __wrap_netdev_send(struct netdev *, int qid, struct dp_packet_batch *, bool concurrent_txq);

/* offload_tunnels.c */
int __wrap_netdev_push_header(const struct netdev *, struct dp_packet_batch *,
                              const struct ovs_action_push_tnl *);
void __wrap_netdev_pop_header(struct netdev *, struct dp_packet_batch *);

/* ofstate.c.  Enumerations are passed as int, which they are. */
void __real_ofmonitor_report(struct connmgr *, struct rule *, int event, int reason,
                             const struct ofconn *abbrev_ofconn, ovs_be32 abbrev_xid,
                             const struct rule_actions *);
void __wrap_ofmonitor_report(struct connmgr *, struct rule *, int event, int reason,
                             const struct ofconn *abbrev_ofconn, ovs_be32 abbrev_xid,
                             const struct rule_actions *);
void __real_connmgr_send_requestforward(struct connmgr *, const struct ofconn *,
                                        const struct ofputil_requestforward *);
void __wrap_connmgr_send_requestforward(struct connmgr *, const struct ofconn *,
                                        const struct ofputil_requestforward *);
void __real_ofproto_set_flow_restore_wait(bool);
void __wrap_ofproto_set_flow_restore_wait(bool);

/* ofstate_hold.c */
void ofstate_hold_flow_changed(const struct rule *, const struct ofconn *);
void __real_ofproto_flush_flows(struct ofproto *);
void __wrap_ofproto_flush_flows(struct ofproto *);
bool __real_dpif_run(struct dpif *);
bool __wrap_dpif_run(struct dpif *);
void __real_xlate_ofport_set(struct ofproto_dpif *, struct ofbundle *, struct ofport_dpif *,
                             ofp_port_t, odp_port_t, const struct netdev *, const struct cfm *,
                             const struct bfd *, const struct lldp *, struct ofport_dpif *peer,
                             int stp_port, const struct rstp_port *,
                             const struct ofproto_port_queue *, size_t n_queues, int config,
                             int state, bool is_tunnel, bool may_enable);
void __wrap_xlate_ofport_set(struct ofproto_dpif *, struct ofbundle *, struct ofport_dpif *,
                             ofp_port_t, odp_port_t, const struct netdev *, const struct cfm *,
                             const struct bfd *, const struct lldp *, struct ofport_dpif *peer,
                             int stp_port, const struct rstp_port *,
                             const struct ofproto_port_queue *, size_t n_queues, int config,
                             int state, bool is_tunnel, bool may_enable);

/* confirm.c */
struct dpif_flow_dump *__real_dpif_flow_dump_create(const struct dpif *, bool terse,
                                                    struct dpif_flow_dump_types *);
struct dpif_flow_dump *__wrap_dpif_flow_dump_create(const struct dpif *, bool terse,
                                                    struct dpif_flow_dump_types *);
int __real_dpif_flow_dump_destroy(struct dpif_flow_dump *);
int __wrap_dpif_flow_dump_destroy(struct dpif_flow_dump *);
void __real_udpif_revalidate(struct udpif *);
void __wrap_udpif_revalidate(struct udpif *);
int __real_rconn_send(struct rconn *, struct ofpbuf *, struct rconn_packet_counter *);
int __wrap_rconn_send(struct rconn *, struct ofpbuf *, struct rconn_packet_counter *);
void __real_rconn_destroy(struct rconn *);
void __wrap_rconn_destroy(struct rconn *);

/* offload_ports.c */
struct dp_packet *__real_dp_packet_clone_with_headroom(const struct dp_packet *, size_t headroom);
struct dp_packet *__wrap_dp_packet_clone_with_headroom(const struct dp_packet *, size_t headroom);

#endif
