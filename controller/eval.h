/* eval: a switch in a few hundred lines, for the flows of one host.
 *
 * Lookups are libopenvswitch's classifier, conjunctions included; actions, the
 * stack, resubmit(…,ct) and conntrack are done here as ovs-actions(7) and
 * ovs-fields(7) say.  An ICMP connection is told by addresses and types alone,
 * for a "struct flow" has no identifier.
 *
 * Threads: one at a time.  Ownership: a switch owns copies of its flows, its
 * connections and the last packet's outputs. */
#ifndef CTL_EVAL_H
#define CTL_EVAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "classifier.h"
#include "flow.h"
#include "openvswitch/meta-flow.h"
#include "openvswitch/ofp-actions.h"
#include "openvswitch/ofpbuf.h"

struct ftable;
struct pflow;

#define EVAL_MAX_STACK 8
/* ofproto-dpif-xlate.c gives up beyond these. */
#define EVAL_MAX_DEPTH 64
#define EVAL_MAX_LOOKUPS 4096

struct eval_rule {
    struct cls_rule cr;
    struct ofpbuf acts;
    uint64_t cookie;
    uint8_t table;
    uint64_t n_hits;
};

struct eval_tuple {
    uint16_t zone;
    uint8_t proto;
    bool v6;
    struct in6_addr src, dst;
    ovs_be16 sport, dport;
};

struct eval_conn {
    struct eval_tuple tuple;
    uint32_t mark;
    ovs_u128 label;
};

/* What conntrack is to say of a packet: ct_state without "trk", mark and label. */
struct eval_ct {
    uint32_t state, mark;
    ovs_u128 label;
};

struct eval_out {
    uint32_t port;
    struct flow flow;
};

struct eval {
    struct classifier cls[256];
    struct eval_rule **rules;
    size_t n_rules, allocated_rules;
    struct eval_conn *conns;
    size_t n_conns, allocated_conns;

    /* Called at each lookup, before the rule's actions; rule NULL: none matches. */
    void (*observe)(void *aux, uint8_t table, const struct eval_rule *, const struct flow *);
    void *observe_aux;

    /* The packet under way. */
    struct eval_out *out;
    size_t n_out, allocated_out;
    unsigned n_lookups, depth, max_depth;
    bool broken;                    /* did what a switch refuses to */
    const struct eval_ct *force_ct; /* or NULL: what is known */
    uint32_t force_state;           /* CS_INVALID, or CS_RELATED with 'force_conn' */
    size_t force_conn;
    bool force_reply;
    union mf_subvalue stack[EVAL_MAX_STACK];
    unsigned n_stack;
    int missed; /* the table without a match that ended it, or -1 */
};

void eval_init(struct eval *);
void eval_destroy(struct eval *);
/* In place of what it has; connections stay. */
void eval_set_flows(struct eval *, const struct ftable *);
/* Only those for which 'keep' says so. */
void eval_set_some_flows(struct eval *, const struct ftable *,
                         bool (*keep)(const struct pflow *, const void *aux), const void *aux);
void eval_forget_flows(struct eval *);
void eval_forget_conns(struct eval *);
/* Runs a packet through the tables; then see 'out'. */
void eval_packet(struct eval *, const struct flow *, uint32_t in_port);

struct eval_tuple eval_tuple(const struct flow *, uint16_t zone);
bool eval_same_tuple(const struct eval_tuple *, const struct eval_tuple *);

#endif
