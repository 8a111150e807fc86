/* dp_flow_entry: what dp_flow.c, dp_flow_dump.c and dp_actions.c share of a
 * megaflow, beyond what all parts of the datapath know (dp.h). */
#ifndef DP_FLOW_ENTRY_H
#define DP_FLOW_ENTRY_H

#include "dp.h"

struct ofpbuf;

struct dp_flow_entry {
    struct dp_flow flow; /* first */
    /* Packets already told to OVS's counters of drop reasons, dp_actions.c. */
    uint64_t _Atomic drops_told;
    /* The key as it was put: dumps show it, ofproto translates it again.  Its
     * values follow the struct. */
    struct miniflow key;
};

static inline struct dp_flow_entry *
dp_flow_entry_of(const struct dp_flow *flow)
{
    return CONTAINER_OF(CONST_CAST(struct dp_flow *, flow), struct dp_flow_entry, flow);
}

/* The flow's statistics as ofproto sees them.  The flow must be in dp->flows
 * under flows_lock, or found there by an online reader that is still online,
 * or not yet given to engine_flow_free(). */
void dp_flow_stats(const struct dp_flow *, struct dpif_flow_stats *);

/* Describes the flow; key and mask are appended to the buffers, which may be
 * one and the same.  Actions are not copied: they live until the thread's next
 * quiescent state of OVS's RCU.  As dp_flow_stats() otherwise. */
void dp_flow_describe(const struct dp_flow *, struct ofpbuf *key, struct ofpbuf *mask, bool terse,
                      struct dpif_flow *);

/* Tells OVS's counters of drop reasons about what the flow's program dropped
 * since the last call; 'packets' is the flow's count, never less than before.
 * Without effect for flows that do not drop explicitly.  Any thread that may
 * call dp_flow_stats(). */
void dp_actions_tell_drops(const struct dp_flow *, uint64_t packets);
/* The flow, which counts 'packets', is about to get another program. */
void dp_actions_switch_drops(const struct dp_flow *, uint64_t packets);

/* The actions of a flow's current program. */
const struct dp_actions *dp_flow_actions(const struct dp_flow *);

#endif
