/* trace: the way that a packet takes through the pool's hosts.
 *
 * The packet is run through the flows that each host should have (eval.h), from
 * host to host over VLANs and tunnels, and each step says from whom its flow
 * comes.  No switch is asked.
 *
 * A tracer sees model and compiler as they are while it lives; create one for a
 * question and destroy it.  Threads: the main loop.  Ownership: a tracer borrows
 * model and compiler; a trace owns its strings. */
#ifndef CTL_TRACE_H
#define CTL_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flow.h"

struct compile;
struct ds;
struct model;
struct model_host;
struct model_rule;
struct tracer;

/* What conntrack knows of the packet on each host that it passes. */
enum trace_state {
    TRACE_NEW,         /* nothing */
    TRACE_ESTABLISHED, /* a connection that the present policy passed */
    TRACE_REPLY,       /* the same, and the packet is a reply */
    TRACE_OLDER,       /* a connection that another policy passed */
    TRACE_INVALID,
    TRACE_SEEN, /* what trace_start.seen says */
};

/* Where a copy of the packet ends on a host. */
enum trace_end_kind {
    TRACE_TO_VIF,
    TRACE_TO_HOST,  /* another visit shows how it goes on */
    TRACE_TO_WIRE,  /* the physical network; what is there is not the pool's */
    TRACE_TO_STACK, /* the host itself */
    TRACE_TO_PORT,  /* a port that is no vif's */
    TRACE_LOST,     /* left for where nobody takes it */
    TRACE_DROPPED,
};

struct trace_end {
    enum trace_end_kind kind;
    uint32_t key;       /* of the vif or the host; TRACE_DROPPED: of the rule that denies, or 0 */
    uint32_t dst;       /* of the vif that a dropped copy was for, or 0 */
    const char *reason; /* TRACE_DROPPED: one word */
    char *text;
};

struct trace_step {
    uint8_t table;
    bool miss; /* no flow matched */
    uint16_t priority;
    uint64_t cookie;
    char *match, *actions; /* as ovs-ofctl prints them; NULL in a brief trace */
};

/* A side's verdict, as on the host where the verdict was used. */
struct trace_side {
    bool asked;    /* policy was asked about this side here */
    bool allowed;  /* if it was */
    uint32_t rule; /* 0: the default action */
};

struct trace_visit {
    uint32_t host;
    char *in;                    /* "from vif web1-0", "by tunnel from h1" */
    const char *state;           /* of conntrack, or NULL: not asked */
    struct trace_side out, into; /* the source's and the destination's side */
    bool flooded;
    bool broken; /* the packet does what a switch gives up at */
    struct trace_step *steps;
    size_t n_steps, allocated_steps;
    struct trace_end *ends;
    size_t n_ends, allocated_ends;
};

struct trace {
    struct trace_visit *visits;
    size_t n_visits, allocated;
    bool more; /* it goes to more hosts than are followed */
};

struct trace_start {
    uint32_t host; /* key */
    uint32_t in_port;
    struct flow packet;
    enum trace_state state;
    struct trace_seen {             /* of TRACE_SEEN: on the first host; the others say the like */
        uint32_t ct_state, ct_mark; /* as in struct flow */
        ovs_u128 ct_label;
        uint32_t network; /* key */
    } seen;
};

/* With 'only' it is for that packet alone, and costs less. */
struct tracer *tracer_create(struct model *, struct compile *, const struct trace_start *only);
void tracer_destroy(struct tracer *);
/* Into 'trace', which is initialised by it; trace_uninit() it.  'brief': without
 * the texts of flows.  False: a connection was asked for, and the packet that
 * would open it does not arrive; then 'trace' shows that one. */
bool tracer_run(struct tracer *, const struct trace_start *, bool brief, struct trace *);
void trace_uninit(struct trace *);
/* The packet's only tag; 0: none. */
void trace_set_tag(struct flow *, uint16_t tag);
/* The first end of this kind; NULL: there is none. */
const struct trace_end *trace_first(const struct trace *, enum trace_end_kind);

/* --- in words (trace_explain.c) --------------------------------------------------------- */

/* "rule web/no-ssh of policy web, by alice; mandatory part, scope pool" */
void explain_rule(const struct model_rule *, struct ds *);
/* The same by a rule's key; 0: the default action. */
void explain_rule_key(const struct model *, uint32_t key, struct ds *);
/* From whom a flow comes. */
void explain_cookie(const struct model *, uint64_t cookie, struct ds *);
/* Why a packet that looks like 'f' ends in a table, at a flow of this cookie and
 * priority or (miss) at none: one word, and a sentence into 'ds'. */
const char *explain_drop(const struct model *, const struct model_host *, uint8_t table, bool miss,
                         uint16_t priority, uint64_t cookie, const struct flow *f, struct ds *);

#endif
