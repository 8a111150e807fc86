/* dp: a datapath of type "weft", as its parts know it.
 *
 *   dpif_weft.c   the dpif class that ofproto and dpctl call
 *   dp.c          its parts put together
 *   dp_worker.c   what a thread needs to handle packets; packets' housekeeping
 *   dp_port.c     ports: netdevs, numbers, how to send
 *   dp_poll.c     threads that receive from ports which are not vifs;
 *   dp_poller.c   one of them
 *   dp_vif.c      vifs: their queue threads run packets to completion
 *   dp_flow.c     megaflows: put, del, get, dump
 *   dp_match.c    a megaflow's match as the classifier and the cache see it
 *   dp_actions.c  a megaflow's actions as a program of the engine
 *   dp_miss.c     packets that no cache knows
 *   dp_exec.c     actions through OVS's libraries: everything but the plainest
 *   dp_upcall.c   packets on their way to ofproto's handler threads
 *   dp_meter.c  dp_bond.c  dp_ct.c
 *   dp_record.c   what records of flows say of their packets' way
 *   shadow.h      flows that outlive the process
 *
 * A packet is a struct dp_packet whose first member is the mbuf.  In the
 * engine only the mbuf is valid, and mbuf.pool is NULL for a malloc'ed packet;
 * what enters OVS's libraries goes through dp_packet_adopt() first.
 *
 * Threads.  Whoever touches packets holds a dp_worker: a vif's queue thread
 * and a polling thread have one of their own, all others (handlers, main,
 * revalidators) borrow one (dp_borrow()).  Holders are online readers of
 * epoch.h while they work.  OVS's RCU: threads made by ovs_thread_create()
 * are in it as usual; a vif's queue thread enters with dp_worker_rcu() before
 * its first call into OVS and leaves before it sleeps.
 *
 * Lock order: ports_lock, flows_lock, epoch. Nobody waits for an epoch while
 * online. */
#ifndef DP_H
#define DP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cmap.h"
#include "dp-packet.h"
#include "dpif-provider.h"
#include "fast/engine.h"
#include "fast/record.h"
#include "flow.h"
#include "netdev.h"
#include "openvswitch/hmap.h"
#include "openvswitch/match.h"
#include "ovs-atomic.h"
#include "ovs-thread.h"

struct conntrack;
struct ctlog;
struct dp_actions;
struct dp_bonds;
struct dp_meters;
struct dp_upcalls;
struct odp_support;
struct pollers;
struct shadow;
struct shadow_table;
struct smap;

#define DP_TYPE "weft"
/* What a netlink key of this datapath contains: an upcall's, a dump's. */
extern const struct odp_support dp_odp_support;
/* Recirculations of one packet, as OVS's own datapath bounds them. */
#define DP_MAX_DEPTH 6u

struct dp {
    const struct dpif_class *class;
    char *name;
    struct ovs_refcount refs;
    atomic_flag destroyed;

    struct engine *engine; /* its aux is the dp */

    /* dp_port.c */
    struct ovs_rwlock ports_lock;
    struct hmap ports OVS_GUARDED_BY(ports_lock); /* struct dp_port by port_no */
    struct seq *port_seq;
    uint64_t last_tnl_conf_seq; /* main thread */

    struct pollers *pollers; /* dp_poll.c */

    /* dp_flow.c */
    struct ovs_mutex flows_lock;
    struct cmap flows;             /* struct dp_flow by ufid */
    struct classifier *classifier; /* all of them; writers hold flows_lock */
    struct dp_masks *masks;        /* dp_match.c: the masks in use, under flows_lock */

    struct dp_upcalls *upcalls;
    struct dp_meters *meters;
    struct dp_bonds *bonds;
    struct conntrack *conntrack;
    struct ctlog *ctlog; /* ctlog.h */

    /* dp_worker.c */
    struct ovs_mutex workers_lock;
    struct ovs_list spare OVS_GUARDED_BY(workers_lock);    /* free ones, for dp_borrow() */
    struct ovs_list workers OVS_GUARDED_BY(workers_lock);  /* all */
    struct worker_stats past OVS_GUARDED_BY(workers_lock); /* of workers that are gone */

    /* shadow.h */
    struct shadow *shadow;                     /* under flows_lock */
    struct shadow_table *_Atomic shadow_table; /* NULL: none in use */

    atomic_uint64_t n_hit, n_missed, n_lost; /* of the slow path; the engine has its own */
};

/* One without ports and threads of its own, known to nobody; NULL: no memory.
 * Whoever destroys it has removed the ports, and given back or destroyed the
 * workers. */
struct dp *dp_create(const struct dpif_class *, const char *name);
void dp_destroy(struct dp *);

/* --- workers (dp_worker.c) ----------------------------------------------- */

struct dp_worker {
    struct dp *dp;
    struct worker *worker;  /* its aux is this */
    struct ovs_list node;   /* in dp->spare */
    struct ovs_list in_all; /* in dp->workers */
    char name[24];          /* for people; set by the creator, if it likes */
    bool borrowed;          /* dp_borrow(): for packets that come from ofproto */
    bool foreign;           /* a thread that OVS does not know */
    bool in_rcu;            /* 'foreign' only: between dp_worker_rcu() and its end */
    unsigned depth;         /* recirculations of the packets at hand */
    unsigned bursts;        /* since its last quiescent state */
    int64_t quiesced;       /* when that was; ms */
    void *ct_scratch;       /* dp_ct.c; freed with free() */
    void *miss_scratch;     /* dp_miss.c; the same */
    void *record_scratch;   /* dp_record.c; the same */
};

/* 'cache_max': see worker_create(). */
struct dp_worker *dp_worker_create(struct dp *, unsigned cache_max, bool foreign);
void dp_worker_destroy(struct dp_worker *);

/* A worker for a thread that has none, begun.  Give it back soon; a thread
 * that has borrowed one may not borrow another. */
struct dp_worker *dp_borrow(struct dp *);
void dp_return(struct dp_worker *);

void dp_workers_init(struct dp *);
void dp_workers_destroy(struct dp *); /* the spare ones; the others are gone */
/* The sum over all workers there are and were. */
void dp_workers_stats(struct dp *, struct worker_stats *);

/* Before any call into OVS that may take references under its RCU. */
void dp_worker_rcu_enter__(struct dp_worker *);
static inline void
dp_worker_rcu(struct dp_worker *w)
{
    if (w->foreign && !w->in_rcu) {
        dp_worker_rcu_enter__(w);
    }
}
/* Before the thread sleeps.  Harmless if it is not in. */
void dp_worker_rcu_leave(struct dp_worker *);
/* Once a burst while busy: a quiescent state of OVS's RCU, if the thread is in it. */
void dp_worker_rcu_quiesce(struct dp_worker *);

static inline struct dp_worker *
dp_worker_of(struct worker *w)
{
    return worker_aux(w);
}

/* --- packets --------------------------------------------------------------- */

static inline struct dp_packet *
dp_packet_of(struct rte_mbuf *m)
{
    return CONTAINER_OF(m, struct dp_packet, mbuf);
}

/* Makes a packet that came straight from a port fit for OVS's libraries:
 * offsets, cut length, type, metadata with 'in_port'. */
void dp_packet_adopt(struct dp_packet *, odp_port_t in_port);
/* Gives a malloc'ed packet the mbuf fields that those of a pool always have. */
void dp_packet_complete(struct dp_packet *);
/* engine_ops.free: of any kind, batched per pool. */
void dp_packets_free(struct rte_mbuf **, unsigned n);

/* --- ports ----------------------------------------------------------------- */

enum dp_port_kind {
    DP_PORT_VIF,    /* netback: run to completion on its queue threads */
    DP_PORT_POLLED, /* is_pmd: received and sent by a polling thread */
    DP_PORT_WAITED, /* has a file descriptor: received by the waiting thread, sent by anybody */
    DP_PORT_TUNNEL, /* no packets of its own */
};

struct dp_port {
    struct fast_port fast; /* first; engine index = port_no */
    struct dp *dp;
    odp_port_t port_no; /* < ENGINE_PORTS_MAX */
    enum dp_port_kind kind;
    struct hmap_node node; /* in dp->ports */
    struct netdev *netdev;
    struct netdev_saved_flags *sf;
    char *type;               /* as asked for */
    struct netdev_rxq **rxqs; /* POLLED and WAITED */
    unsigned n_rxq;
    struct poller *_Atomic owner; /* POLLED: the thread that sends (dp_poll.c) */
    struct portq *queue;          /* POLLED: from other threads to the owner (fast/portq.h) */
    void *vif;                    /* VIF: dp_vif.c */
    atomic_uint64_t upcalls_lost; /* dp_upcall.c */
};

/* The port for an online reader; NULL if there is none. */
static inline struct dp_port *
dp_port_lookup(const struct dp *dp, odp_port_t port_no)
{
    struct fast_port *p = odp_to_u32(port_no) < ENGINE_PORTS_MAX
                              ? engine_port(dp->engine, odp_to_u32(port_no))
                              : NULL;

    return p ? CONTAINER_OF(p, struct dp_port, fast) : NULL;
}

int dp_port_add(struct dp *, struct netdev *, odp_port_t *port_no);
int dp_port_del(struct dp *, odp_port_t);
void dp_ports_init(struct dp *);
void dp_ports_clear(struct dp *); /* deletes all, the local one included */
void dp_ports_destroy(struct dp *);
/* Applies what netdevs have asked for (queues, MTU); and its wait. */
void dp_ports_run(struct dp *);
void dp_ports_wait(struct dp *);
/* The class's functions. */
int dp_port_query_by_number(const struct dpif *, odp_port_t, struct dpif_port *);
int dp_port_query_by_name(const struct dpif *, const char *, struct dpif_port *);
int dp_port_dump_start(const struct dpif *, void **state);
int dp_port_dump_next(const struct dpif *, void *state, struct dpif_port *);
int dp_port_dump_done(const struct dpif *, void *state);
/* netdev_send() for any thread: chunks of NETDEV_MAX_BURST; consumes.  The
 * packets' mbufs are complete, and truncations are done. */
void dp_port_send(struct dp_port *, struct rte_mbuf **, unsigned n, int qid, bool concurrent);

/* dp_poll.c.  Main thread. */
int pollers_create(struct dp *);
void pollers_destroy(struct dp *);
void pollers_set_config(struct dp *, const struct smap *other_config);
void pollers_add(struct dp *, struct dp_port *);    /* port is complete */
void pollers_remove(struct dp *, struct dp_port *); /* returns when no thread uses its queues */
/* fast_port.send of POLLED ports: directly on the owner's thread, else through the queue. */
void pollers_send(struct fast_port *, struct worker *, struct rte_mbuf **, unsigned n);

/* dp_vif.c: connects a netback port's queue threads to the datapath, and cuts
 * them off again.  Main thread.  After dp_vif_stop() no queue thread runs
 * packets into the datapath. */
int dp_vif_start(struct dp_port *);
void dp_vif_stop(struct dp_port *);
/* fast_port.send of a vif. */
void dp_vif_send(struct fast_port *, struct worker *, struct rte_mbuf **, unsigned n);

/* --- flows ----------------------------------------------------------------- */

struct dp_flow {
    struct fast_flow fast; /* first */
    struct dp *dp;
    struct cmap_node ufid_node; /* in dp->flows */
    ovs_u128 ufid;
    uint8_t covers_tracked; /* 1 << shape: as fast.covers, for a packet that came from
                             * conntrack: ct_* and recirc_id may be matched, too */
    bool dead;              /* left dp->flows */
    uint32_t shadow_slot;   /* shadow.c; 0: none */
    long long created;      /* ms */
    struct flow_stats zero; /* subtracted from what the engine counts (DPIF_FP_ZERO_STATS) */
    struct dp_mask *mask;   /* dp_match.c */
    uint64_t value[16];     /* the rule's, if it has no more words */
};

/* What a program's 'slow' points to: the flow's actions as ofproto gave them. */
struct dp_actions {
    struct program *program; /* back pointer; freed together */
    struct dp_flow *flow;    /* whose they are; lives as long */
    size_t len;
    struct nlattr *actions;
    /* TRACK only: the two actions taken apart. */
    const struct nlattr *ct;
    uint32_t recirc_id;
    struct record_way way; /* as far as these actions say */
};

void dp_flows_init(struct dp *);
void dp_flows_destroy(struct dp *);
int dp_flow_put(struct dp *, const struct dpif_flow_put *);
int dp_flow_del(struct dp *, const struct dpif_flow_del *);
int dp_flow_get(struct dp *, const struct dpif_flow_get *);
/* Deletes several at the price of one wait; results in each op's 'error'. */
void dp_flow_del_batch(struct dp *, struct dpif_op **, size_t n);
void dp_flow_flush(struct dp *);
/* The dump functions of the class. */
struct dpif_flow_dump *dp_flow_dump_create(const struct dpif *, bool terse,
                                           struct dpif_flow_dump_types *);
int dp_flow_dump_destroy(struct dpif_flow_dump *);
struct dpif_flow_dump_thread *dp_flow_dump_thread_create(struct dpif_flow_dump *);
void dp_flow_dump_thread_destroy(struct dpif_flow_dump_thread *);
int dp_flow_dump_next(struct dpif_flow_dump_thread *, struct dpif_flow *, int max_flows);
size_t dp_flow_count(const struct dp *);

/* A flow that the packet described by 'flow' belongs to, or NULL.  Online
 * readers.  The second: out[i] for n <= 32. */
struct dp_flow *dp_flow_classify(const struct dp *, const struct flow *);
void dp_flow_classify_batch(const struct dp *, const struct flow *const flows[], unsigned n,
                            struct dp_flow *out[]);

/* dp_match.c.  Fills fast.rule, fast.covers and covers_tracked, and adds the
 * mask to those in use.  Under flows_lock. */
void dp_match_init(struct dp *, struct dp_flow *, const struct match *);
void dp_match_uninit(struct dp *, struct dp_flow *);
/* The flow's whole mask, as long as the flow is not given back: see
 * dp_flow_stats(). */
const struct flow_wildcards *dp_match_wc(const struct dp_flow *);
void dp_masks_init(struct dp *);
void dp_masks_destroy(struct dp *);
size_t dp_masks_count(const struct dp *);
/* The shape (fast/engine.h) that the cache would give a packet with these
 * headers, from OVS's point of view; SHAPE_ODD if the engine would not cache. */

/* dp_actions.c.  Compiles; the result owns a copy of the actions.  Never NULL. */
struct program *dp_actions_compile(struct dp_flow *, const struct nlattr *actions, size_t len);
void dp_actions_free(struct program *); /* an epoch after its last use */

/* --- packets on their way ------------------------------------------------ */

/* engine_ops (dp_miss.c, dp_exec.c, dp_ct.c). */
void dp_miss(struct worker *, uint16_t in_port, struct rte_mbuf **, unsigned n);
void dp_slow(struct worker *, uint16_t in_port, const struct program *, struct rte_mbuf **,
             unsigned n);
bool dp_track(struct worker *, void *verdict, struct rte_mbuf *);
void dp_track_soon(const void *verdict);
void dp_verdict_free(struct worker *, void *verdict);

/* Looks adopted packets up and runs them; for first and recirculated ones.
 * Consumes.  'first': straight from a port, the cache may learn (dp_miss.c). */
void dp_input(struct dp_worker *, struct dp_packet_batch *, bool first);

/* Runs OVS actions on adopted packets (dp_exec.c).  Consumes them if 'steal'. */
void dp_execute(struct dp_worker *, struct dp_packet_batch *, bool steal,
                const struct nlattr *actions, size_t len);
/* Those of the operations that are DPIF_OP_EXECUTE, from a thread without a
 * worker. */
void dp_execute_ops(struct dp *, struct dpif_op **, size_t n);

/* Packets of one flow whose program is TRACK and that no verdict decided:
 * conntrack, second lookup, learning, output (dp_ct.c).  Adopted; consumes. */
void dp_ct_run(struct dp_worker *, uint16_t in_port, const struct dp_actions *,
               struct dp_packet_batch *);
/* OVS_ACTION_ATTR_CT of the general path.  The batch may change. */
void dp_ct_action(struct dp_worker *, struct dp_packet_batch *, const struct nlattr *ct);
void dp_ct_init(struct dp *);
void dp_ct_destroy(struct dp *);

/* --- upcalls (dp_upcall.c) -------------------------------------------------- */

void dp_upcalls_init(struct dp *);
void dp_upcalls_destroy(struct dp *);
/* Queues a copy of an adopted packet for a handler thread.  'userdata' and
 * 'actions' (may be NULL) only with DPIF_UC_ACTION.  Drops and counts when the
 * port's bound is reached or nobody receives: false. */
bool dp_upcall(struct dp_worker *, const struct dp_packet *, const struct flow *,
               enum dpif_upcall_type, const struct nlattr *userdata, const struct nlattr *actions,
               const struct flow_tnl *out_tunnel);
/* The class's functions. */
int dp_upcall_recv_set(struct dpif *, bool enable);
int dp_upcall_handlers_set(struct dpif *, uint32_t n);
int dp_upcall_recv(struct dpif *, uint32_t handler, struct dpif_upcall *, struct ofpbuf *);
void dp_upcall_recv_wait(struct dpif *, uint32_t handler);
void dp_upcall_recv_purge(struct dpif *);

/* --- meters, bonds -------------------------------------------------------- */

void dp_meters_init(struct dp *);
void dp_meters_destroy(struct dp *);
/* Drops what the meter forbids; what passes stays in the batch. */
void dp_meter_run(struct dp_worker *, struct dp_packet_batch *, uint32_t meter_id, long long now);
void dp_meter_get_features(const struct dpif *, struct ofputil_meter_features *);
int dp_meter_set(struct dpif *, ofproto_meter_id, struct ofputil_meter_config *);
int dp_meter_get(const struct dpif *, ofproto_meter_id, struct ofputil_meter_stats *,
                 uint16_t n_bands);
int dp_meter_del(struct dpif *, ofproto_meter_id, struct ofputil_meter_stats *, uint16_t n_bands);

void dp_bonds_init(struct dp *);
void dp_bonds_destroy(struct dp *);
/* OVS_ACTION_ATTR_LB_OUTPUT: consumes the batch if 'steal'. */
void dp_bond_output(struct dp_worker *, struct dp_packet_batch *, uint32_t bond, bool steal);
int dp_bond_add(struct dpif *, uint32_t bond_id, odp_port_t *member_map);
int dp_bond_del(struct dpif *, uint32_t bond_id);
int dp_bond_stats_get(struct dpif *, uint32_t bond_id, uint64_t *n_bytes);

/* --- the dpif (dpif_weft.c) ------------------------------------------------- */

struct dpif_weft {
    struct dpif dpif;
    struct dp *dp;
    uint64_t last_port_seq;
};

extern const struct dpif_class dpif_weft_class;
/* Before the bridges.  With 'dummy', also the class "weft-dummy", whose
 * internal ports are dummies and whose port numbers follow ports' names, for
 * tests. */
void dpif_weft_register(bool dummy);
/* Ends the datapaths that nobody has open, which an exit of the process would
 * otherwise leave, threads and all.  Vifs and whatever else sends to them must
 * have come to rest.  What outlives the process stays if shadow_keep() said so. */
void dpif_weft_exit(void);
/* Bridges without a datapath_type are of type weft.  Set before the bridges. */
extern bool dpif_weft_is_default;
/* Of this class or "weft-dummy". */
bool dpif_is_weft(const struct dpif *);
struct dp *dp_of(const struct dpif *);
#endif
