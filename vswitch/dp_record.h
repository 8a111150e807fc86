/* dp_record: what records of flows (fast/record.h) get from the datapath.
 *
 * Threads: those with a worker, on it; and who compiles actions. */
#ifndef DP_RECORD_H
#define DP_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dp_flow;
struct dp_packet;
struct dp_worker;
struct nlattr;
struct program;
struct record_way;
struct worker;

/* An action that only names a rule; '*way' gets its key. */
bool dp_record_is_note(const struct nlattr *action, struct record_way *way);
/* What actions say of their packets' way; status RECORD_UNKNOWN if a later
 * flow decides. */
void dp_record_find_way(const struct nlattr *actions, size_t len, struct record_way *way);

/* engine_ops.way. */
void dp_record_way(struct worker *, const struct program *, const void *verdict,
                   struct record_way *way);

/* Where worker_records(in_port): counts packets of 'f' (NULL: none yet) as
 * they came, before anything changes them. */
void dp_record_packets(struct dp_worker *, uint16_t in_port, const struct dp_flow *f,
                       struct dp_packet *const packets[], unsigned n);
/* Remembers where packets were counted, before actions change them: at most
 * NETDEV_MAX_BURST.  What was remembered before is forgotten. */
void dp_record_remember(struct dp_worker *, uint16_t in_port, struct dp_packet *const packets[],
                        unsigned n);
/* What a later flow made of packets that were counted. */
void dp_record_outcome(struct dp_worker *, uint16_t in_port, const struct dp_flow *f,
                       struct dp_packet *const packets[], unsigned n);
/* Ofproto executes 'actions' on a packet that was counted without a way: what
 * they, or flows that they lead to, make of it is said, until dp_record_executed(). */
void dp_record_execute(struct dp_worker *, const struct dp_packet *, const struct nlattr *actions,
                       size_t len);
void dp_record_executed(struct dp_worker *);
/* The same, of a flow that ofproto installs: packets that are dropped it does
 * not execute anything on. */
struct dp;
struct dpif_flow_put;
struct flow;
void dp_record_put(struct dp *, const struct flow *, const struct dpif_flow_put *);
/* It goes to ofproto again, and may not be what it was when it came in. */
void dp_record_again(struct dp_worker *, struct dp_packet *);
/* A packet is dropped by a meter. */
void dp_record_metered(struct dp_worker *, struct dp_packet *);
/* A packet that was counted found no room on its way to ofproto. */
void dp_record_lost(struct dp_worker *, uint16_t in_port, const struct dp_packet *);

#endif
