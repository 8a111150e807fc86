/* engine: packets in, packets out, nothing of Open vSwitch in between.
 *
 * Per burst, one step a file:
 *
 *   gather (the caller)  up to ENGINE_BURST packets of one port
 *   key.h                headers to a 32- or 64-byte key, or "odd"
 *   smc.h, exact.h       signature- and exact-match cache, the worker's own
 *   act.c                drop, output, edits; verdicts of tracked connections
 *   out.c                scatter to ports
 *
 * A packet that the cache does not know goes to ops->miss(), which classifies
 * it (classifier.h), may teach the cache (worker_learn()), and runs the
 * program (worker_act()) or queues an upcall.
 *
 * A worker is what one thread needs to push packets through: its cache, its
 * counters, its output lists and its epoch reader.  Every thread that handles
 * packets has one.
 *
 * Flows.  Each worker counts a flow's packets in a slot of its own; a flow's
 * statistics are the sum over all workers, exact at any time, and never
 * decrease.  The slot also holds the flow's generation: a cache entry is
 * valid while it has the same one, so deleting or changing a flow invalidates
 * every entry of it without looking for them.
 *
 * Packets are struct rte_mbuf, single-segment, which inside vswitch/ are
 * always the first member of a struct dp_packet.  Ownership moves forward:
 * whatever takes a burst consumes it.
 *
 * Threads: functions named worker_* on the worker's own thread.  engine_flow_*
 * under the caller's one lock, except engine_flow_stats() from anywhere.
 * engine_port_set() from one thread at a time. */
#ifndef ENGINE_H
#define ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "classifier.h"
#include "epoch.h"
#include "program.h"

struct key_mask;
struct record_way;
struct rte_mbuf;
struct engine;
struct worker;

#define ENGINE_BURST 128u
#define ENGINE_PORTS_MAX 65533u /* indices 0..65,532 */
#define ENGINE_FLOWS_MAX (1u << 20)

/* What the key of a packet covers.  Fields a shape's key holds:
 *   all    in_port, Ethernet addresses and type, the one 802.1Q tag (TPID
 *          0x8100) or that there is none
 *   IPv4   addresses, protocol, TOS, L4 ports (ICMP: type and code as OVS
 *          has them); not a fragment, no options, lengths consistent
 *   IPv6   the same and the flow label; no extension headers
 * Anything else about such a packet is the same for all packets of the shape
 * (no tunnel, recirculation id 0, untracked) or not covered (TTL, TCP flags,
 * ARP, ND, ...). */
enum shape { SHAPE_L2, SHAPE_IPV4, SHAPE_IPV6, SHAPE_ODD /* never cached */ };

/* A megaflow.  Embedded in the adapter's flow. */
struct fast_flow {
    struct cls_rule rule;
    /* What it matches of the keys that it covers, no more than the union of
     * masks (engine_set_mask()), and as long-lived as the rule.  NULL: not
     * said; then each key gets an entry of its own. */
    const struct key_mask *mask;
    uint32_t id;       /* engine_flow_add() */
    uint8_t covers;    /* 1 << shape: its mask is covered by that shape's key */
    bool _Atomic gone; /* engine's: engine_flow_invalidate() was called */
    /* Replaced by engine_flow_set_program().  Never NULL once added. */
    struct program *_Atomic program;
};

struct flow_stats {
    uint64_t packets, bytes;
    int64_t used; /* ms of the caller's clock; 0: never */
    uint16_t tcp_flags;
};

/* Where packets leave.  Owned by the adapter; may go away an epoch after
 * engine_port_set(..., NULL). */
struct fast_port {
    /* Consumes n <= ENGINE_BURST packets.  Does not call worker_output() or
     * worker_act() of the same worker. */
    void (*send)(struct fast_port *, struct worker *, struct rte_mbuf **, unsigned n);
    bool takes_partial;     /* packets need not be complete */
    uint64_t _Atomic drops; /* the port was gone, its queue full, ... */
};

enum engine_drop {
    ENGINE_DROP_ACTION,   /* the flow's program says so */
    ENGINE_DROP_NO_PORT,  /* output to a port that is not there */
    ENGINE_DROP_HEADROOM, /* no room for a tag */
    ENGINE_DROP_SHORT,    /* shorter than an Ethernet header */
    ENGINE_N_DROPS
};

struct engine_ops {
    /* Packets that the cache does not know; all came in on 'in_port'. */
    void (*miss)(struct worker *, uint16_t in_port, struct rte_mbuf **, unsigned n);
    /* Packets of one flow whose program is SLOW, or TRACK and not decided by a
     * cached verdict.  Already counted. */
    void (*slow)(struct worker *, uint16_t in_port, const struct program *, struct rte_mbuf **,
                 unsigned n);
    /* Decides a packet of a tracked connection by the verdict cached in its
     * entry: see worker_learn_verdict().  Advances the connection's state. */
    bool (*track)(struct worker *, void *verdict, struct rte_mbuf *);
    /* A few packets before track(): may fetch what that will read.  May be
     * NULL. */
    void (*track_soon)(const void *verdict);
    void (*verdict_free)(struct worker *, void *verdict);
    /* Completes what a flow's record says of its way: by the program that its
     * packets take, and the verdict ('NULL': none) that sent them there.  May
     * be NULL. */
    void (*way)(struct worker *, const struct program *, const void *verdict, struct record_way *);
    void (*free)(struct rte_mbuf **, unsigned n);
    /* Packets of a worker that says so (worker_set_partial()) have their headers, up
     * to L4, and perhaps nothing else.  Before anyone but the engine, track() and a
     * port that takes such packets sees them, this brings the rest; returns
     * how many are left, for some may be dropped. */
    unsigned (*complete)(struct rte_mbuf **, unsigned n);
};

struct engine *engine_create(const struct engine_ops *, void *aux); /* NULL: no memory */
void engine_destroy(struct engine *);                               /* no workers left */
void *engine_aux(const struct engine *);

void engine_port_set(struct engine *, uint16_t index, struct fast_port *); /* NULL: gone */
struct fast_port *engine_port(const struct engine *, uint16_t index);      /* online readers */

/* The words of the wide key that the cache's keys cover, as the adapter lays
 * them out, are the adapter's business; what the engine needs is the union of
 * the masks in use, in terms of its own keys, so that fields nobody looks at
 * do not multiply entries.  Bits may be set before the flow is visible and
 * cleared after it is gone. */
struct key_mask {
    uint8_t eth_dst[6], eth_src[6];
    uint16_t eth_type, vlan_tci;
    uint32_t ip4_src, ip4_dst;
    uint8_t ip6_src[16], ip6_dst[16];
    uint32_t ip6_label;
    uint16_t tp_src, tp_dst;
    uint8_t nw_proto, nw_tos;
}; /* network order throughout; in_port is always exact */
void engine_set_mask(struct engine *, const struct key_mask *);

/* --- flows ------------------------------------------------------------- */

/* Gives 'f' an id and its program.  ENOSPC, ENOMEM.  The caller then inserts
 * f->rule into its classifier. */
int engine_flow_add(struct engine *, struct fast_flow *, struct program *);
/* Returns the old program, to be let go of an epoch later. */
struct program *engine_flow_set_program(struct engine *, struct fast_flow *, struct program *);
/* After the rule has left the classifier: invalidates cache entries.  Once an
 * epoch has passed the statistics are final and engine_flow_free() may give
 * back the id. */
void engine_flow_invalidate(struct engine *, struct fast_flow *);
void engine_flow_free(struct engine *, struct fast_flow *);
void engine_flow_stats(const struct engine *, const struct fast_flow *, struct flow_stats *);

/* --- workers ------------------------------------------------------------- */

/* 'cache_max' entries at most; 0: no cache (threads that only execute).  The
 * cache starts at a few KiB and grows with use.  NULL: no memory. */
struct worker *worker_create(struct engine *, unsigned cache_max, void *aux);
/* Flushes, folds its counters, frees.  Any thread, once its own has ended. */
void worker_destroy(struct worker *);
void *worker_aux(const struct worker *);
struct engine *worker_engine(const struct worker *);

/* Its packets may be partial: engine_ops.complete. */
void worker_set_partial(struct worker *);
/* Before and after a stretch of work: the worker's epoch reader goes online
 * and offline.  worker_end() sends what is still in the output lists.
 * worker_begin() of a worker that is online already says, like each
 * worker_run(), that references from before are no longer held. */
void worker_begin(struct worker *);
void worker_end(struct worker *);
/* Is about to sleep for long: gives back memory.  A few hundred cache entries
 * used lately stay, the rest is learned again when needed.  Not while a
 * worker_run() is under way; waits for a lock. */
void worker_trim(struct worker *);

/* Pushes n <= ENGINE_BURST packets from 'in_port' through.  Between
 * worker_begin() and worker_end(); not from the engine's callbacks.  'now' in
 * ms.  Output lists are sent at the end of each call.  What epochs protect
 * (flows, programs, ports) must not be held across a call: the worker comes
 * round at its start; n may be 0 to do just that. */
void worker_run(struct worker *, uint16_t in_port, struct rte_mbuf **, unsigned n, int64_t now);
int64_t worker_now(const struct worker *); /* of the running worker_run() or worker_set_now() */
void worker_set_now(struct worker *, int64_t now);

/* From ops->miss() and friends: */

/* Teaches the cache that packets like this one belong to 'f'.  Without effect
 * unless f covers the packet's shape.  Before the packet is changed. */
void worker_learn(struct worker *, uint16_t in_port, const struct rte_mbuf *, struct fast_flow *f);
/* Hardly any key is met again after it was learned: learn from few. */
bool worker_learns_in_vain(const struct worker *);
/* Like worker_learn() for a packet of 'f' (TRACK) whose second lookup ended
 * in 'second': from now on ops->track(verdict) decides, and a packet it
 * accepts is counted in both flows and treated by second's program.  That the
 * key and the verdict cover second's mask too is the caller's to know; its
 * program must be DROP, OUTPUT or EDIT.  The cache owns 'verdict' and gives it
 * back through ops->verdict_free(): at once when it cannot learn (within
 * ops->slow(): also when f's program is no longer the one that runs), when
 * ops->track() has said no, when either flow has changed and the entry is met
 * or swept, at the latest in worker_destroy(). */
void worker_learn_verdict(struct worker *, uint16_t in_port, const struct rte_mbuf *,
                          struct fast_flow *f, struct fast_flow *second, void *verdict);
/* Counts one packet in 'f' (bytes, time, TCP flags are taken from it; flags of
 * odd packets are not seen, worker_count_n() takes them from who knows). */
void worker_count(struct worker *, const struct fast_flow *f, const struct rte_mbuf *);
void worker_count_n(struct worker *, const struct fast_flow *f, unsigned packets, uint64_t bytes,
                    uint16_t tcp_flags);
/* Runs f's program on packets that are counted already, with ops->slow() for
 * SLOW and TRACK. */
void worker_act(struct worker *, uint16_t in_port, const struct fast_flow *f, struct rte_mbuf **,
                unsigned n);
/* Appends to the output list of 'port'. */
void worker_output(struct worker *, uint16_t port, struct rte_mbuf **, unsigned n);
void worker_flush(struct worker *);
void worker_drop(struct worker *, enum engine_drop, struct rte_mbuf **, unsigned n);

/* --- records of flows (record.h) -------------------------------------------- */

struct record_settings {
    uint32_t idle_ms, active_ms; /* at least 250 */
    uint32_t max;                /* records of one worker; 64 to 4 Mi */
    uint32_t sampling;           /* one packet in so many; at least 1 */
};
/* One thread at a time.  NULL: off; what there is ends. */
void engine_record(struct engine *, const struct record_settings *);
/* Whether packets of a port are recorded; off at first. */
void engine_record_port(struct engine *, uint16_t port, bool);
/* Ends what is due of workers at rest, and calls fn for each block of records
 * that have ended; the collector's thread, now and then.  'now' of the
 * workers' clock. */
struct record_block;
void engine_record_collect(struct engine *, int64_t now,
                           void (*fn)(const struct record_block *, void *aux), void *aux);
struct record_stats {
    uint64_t lost_records, lost_packets, lost_bytes; /* no room for them */
    uint64_t pushed_out;                             /* told of before their time: a full table */
};
void engine_record_stats(const struct engine *, struct record_stats *); /* any thread */

/* For packets that come to ops->miss(), and that a tunnel had in it. */
bool worker_records(const struct worker *, uint16_t in_port);
/* Counts one packet, before it is changed.  'way' NULL: not known yet. */
void worker_record(struct worker *, uint16_t in_port, const struct rte_mbuf *,
                   const struct record_way *way);
void worker_record_tunnel(struct worker *, uint16_t in_port, const struct rte_mbuf *,
                          uint64_t tunnel, const struct record_way *way);
/* Where a packet was counted, found by what it is as it came; good for the same
 * turn, and checked when it is used. */
struct record_ref {
    uint32_t index, hash;
};
bool worker_record_find(struct worker *, uint16_t in_port, const struct rte_mbuf *, bool tunneled,
                        uint64_t tunnel, struct record_ref *);
/* Says the way of the packets counted there. */
void worker_record_way(struct worker *, struct record_ref, const struct record_way *way);

struct worker_stats {
    uint64_t packets, cache_hits, misses, verdicts, odd, learned, evicted;
    uint64_t drops[ENGINE_N_DROPS];
    uint64_t cache_entries, cache_size; /* now */
};
void worker_stats(const struct worker *, struct worker_stats *); /* any thread; approximate */

#endif
