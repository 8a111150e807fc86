/* flow: OpenFlow flows as the controller computes, compares and sends them.
 *
 * A "struct pflow" is one flow, immutable and reference-counted, in canonical
 * bytes: two flows are the same when their bytes are.  What the compiler makes
 * and what a switch reports (pflow_from_stats()) come from the same encoder,
 * so that a switch's table and the wanted one compare with memcmp().
 *
 * A "struct ftable" is a set of flows with one flow per key, the key being
 * (table, priority, match), as in a switch.  An "struct fdelta" is the
 * difference between two such sets: for each key that differs, the flow
 * before and the flow after.  Deltas merge, so that changes can pile up while
 * a push is under way.
 *
 * Threads: none of this locks; a flow, its table and its deltas belong to one
 * thread.  Ownership: tables and deltas hold references of their own;
 * functions that return a flow say who owns it. */
#ifndef PFLOW_H
#define PFLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "openflow/openflow-common.h"
#include "openvswitch/hmap.h"
#include "openvswitch/list.h"

struct ds;
struct fmatch;
struct match;
struct ofpact;
struct ofpbuf;
struct ofputil_flow_stats;

/* --- cookies ------------------------------------------------------------------ */

/* Bits 56..63 say that a flow is ours, 48..55 what kind of object it comes from
 * (enum flow_kind), 0..31 which: the object's key.  Bits 32..47 are 0. */
#define FLOW_COOKIE_OURS UINT64_C(0xd500000000000000)
#define FLOW_COOKIE_MASK UINT64_C(0xff00000000000000)

enum flow_kind {
    FLOW_BASE = 1, /* the pipeline itself; key 0 */
    FLOW_VIF,      /* a vif on its host */
    FLOW_REMOTE,   /* a vif on another host */
    FLOW_NETWORK,  /* a network on a host */
    FLOW_RULE,     /* a rule of a policy */
    FLOW_DEFAULT,  /* what no rule decides: the pool's default action; key 0 */
    FLOW_TAP,      /* reports packets for a while: has a timeout, and is in no table of ours */
};

static inline uint64_t
flow_cookie(enum flow_kind kind, uint32_t key)
{
    return FLOW_COOKIE_OURS | (uint64_t)kind << 48 | key;
}

/* The kind in a cookie of ours; 0: not ours. */
enum flow_kind flow_cookie_kind(uint64_t cookie);
const char *flow_kind_name(enum flow_kind);

/* --- tables ------------------------------------------------------------------- */

enum flow_table {
    TBL_CLASSIFY = 0,    /* which vif, or which network, a packet comes from */
    TBL_TUNNEL_IN = 5,   /* the network of a packet from a tunnel */
    TBL_SPOOF = 10,      /* what a vif may claim to be */
    TBL_SPOOF_ND = 11,   /* the same inside neighbour discovery */
    TBL_KIND = 15,       /* tracked, stateless, or none of policy's business */
    TBL_LOOKUP = 20,     /* where it goes */
    TBL_FLOOD = 22,      /* everywhere */
    TBL_ISOLATE = 25,    /* isolated ports; then conntrack, by kind */
    TBL_STATE = 40,      /* what conntrack says */
    TBL_SENDER = 41,     /* is the connection the sending vif's? */
    TBL_RECEIVER = 42,   /* and the receiving one's? */
    TBL_REJUDGE = 43,    /* policy decides about it again */
    TBL_POLICY_OUT = 50, /* the source's side; a subroutine */
    TBL_POLICY_IN = 51,  /* the destination's side; a subroutine */
    TBL_VERDICT = 55,
    TBL_OUTPUT = 60,
    TBL_TUNNEL_OUT = 61,
};

/* True for tables that are ours alone: a flow in one of them that is not wanted
 * is removed, whatever its cookie.  In other tables nothing is touched. */
bool flow_table_is_ours(uint8_t table);
/* NULL for a table that is not ours. */
const char *flow_table_name(uint8_t table);

/* --- one flow ----------------------------------------------------------------- */

struct pflow {
    uint64_t cookie;
    uint32_t hash; /* of the key */
    uint32_t n_refs;
    uint16_t priority;
    uint8_t table;
    bool clause;          /* has conjunction() actions and no others */
    uint16_t match_len;   /* OXM fields as OpenFlow 1.5 has them, not padded */
    uint16_t actions_len; /* OpenFlow 1.5 instructions */
    uint8_t bytes[];      /* the match, then the instructions */
};

/* A new flow with one reference, the caller's.  'ofpacts' are 'len' bytes of
 * actions, the goto_table among them last. */
struct pflow *pflow_create(uint8_t table, uint16_t priority, uint64_t cookie, const struct match *,
                           const struct ofpact *ofpacts, size_t len);

/* The same from the compiler's form of a match. */
struct pflow *pflow_make(uint8_t table, uint16_t priority, uint64_t cookie, const struct fmatch *,
                         const struct ofpact *ofpacts, size_t len);

/* The flow with the key of 'key' that does what all of these do, one after the other;
 * each of them is a clause. */
struct pflow *pflow_join(const struct pflow *key, uint64_t cookie, const struct pflow *const *,
                         size_t n);

/* The flow that a switch reports; NULL if it has what no flow of ours has (a
 * timeout, flags, importance; then it is a foreign flow in any case, and
 * pflow_create() on its parts still gives its key).  The caller owns it. */
struct pflow *pflow_from_stats(const struct ofputil_flow_stats *);

struct pflow *pflow_ref(const struct pflow *);
void pflow_unref(struct pflow *); /* NULL is fine */

/* Of a flow with that key. */
uint32_t pflow_key_hash(uint8_t table, uint16_t priority, const uint8_t *match, size_t len);
bool pflow_same_key(const struct pflow *, const struct pflow *);
bool pflow_equal(const struct pflow *, const struct pflow *); /* key, cookie, actions */

/* The flow's parts as libopenvswitch has them; 'ofpacts' is appended to. */
void pflow_get_match(const struct pflow *, struct match *);
void pflow_get_ofpacts(const struct pflow *, struct ofpbuf *ofpacts);

/* An OpenFlow message (1.3 to 1.5) that adds the flow (replacing what has its
 * key, counters included), or that deletes the flow with its key.  The caller
 * owns it.  pflow_encode_delete() with 'any_cookie' false deletes only a flow of
 * the same cookie. */
struct ofpbuf *pflow_encode_add(const struct pflow *, enum ofp_version);
struct ofpbuf *pflow_encode_delete(const struct pflow *, bool any_cookie, enum ofp_version);

/* As ovs-ofctl prints flows: "cookie=0x…, table=…, priority=…,MATCH actions=…" */
void pflow_format(const struct pflow *, struct ds *);

/* --- the flows of one host ------------------------------------------------------ */

struct fdelta;

/* Slots by hash, with the next ones in place of those that are taken. */
struct ftable {
    uintptr_t *slots; /* private: a flow, or what several gave for its key */
    uint32_t *hashes; /* by slot; 0: it is empty */
    size_t n, n_slots;
    struct ovs_list stale; /* of struct fshare: ftable_settle() has not seen them */
    /* Given to the table when it was empty; ftable_settle() puts them in all at once. */
    struct ffresh *fresh;
    size_t n_fresh, fresh_allocated;
    struct fdelta *delta; /* changes since the last ftable_take(), or NULL: not tracked */
    size_t n_crowded;     /* keys for which more clauses are given than a flow holds */
    uint64_t crowd;       /* a sum over these clauses: another is another crowd */
};

/* Over the flows, a struct pflow * each, while the table stays as it is. */
#define FTABLE_FOR_EACH(FLOW, FTABLE)                                                              \
    for (size_t ftable_at_ = 0; ((FLOW) = ftable_next(FTABLE, &ftable_at_));)
/* The next one from '*at' on, which starts at 0; NULL: there is none. */
struct pflow *ftable_next(const struct ftable *, size_t *at);

void ftable_init(struct ftable *);
void ftable_destroy(struct ftable *);
static inline size_t
ftable_count(const struct ftable *ft)
{
    return ft->n;
}

/* The flow with the key of 'key', or NULL.  Still the table's. */
struct pflow *ftable_find(const struct ftable *, const struct pflow *key);
/* The flow that is next in a switch's answer (OpenFlow 1.5; 'msg' begins with it), or NULL:
 * the table has none that is the same byte for byte, although one that means the same may be
 * there.  If there is one it is taken from 'msg'; still the table's. */
struct pflow *ftable_pull(const struct ftable *, struct ofpbuf *msg);

/* Puts a flow in place of what has its key; takes a reference of its own. */
void ftable_set(struct ftable *, const struct pflow *);
/* Removes the flow with the key of 'key', if there is one. */
void ftable_remove(struct ftable *, const struct pflow *key);
void ftable_clear(struct ftable *);

/* A table whose flows come from several givers, who may give different flows for
 * one key: conjunction() clauses are put together into one flow, of other flows
 * the one with the lowest cookie stands, and these win over clauses.  A table is
 * fed either with these or with ftable_set() and _remove(), not with both.  The
 * flow that is withdrawn is the very one that was given.  ftable_settle() makes
 * it so; until then the table is as it was for keys with several givers. */
void ftable_give(struct ftable *, const struct pflow *);
void ftable_withdraw(struct ftable *, const struct pflow *);
void ftable_settle(struct ftable *);
/* Memory that settled tables left for more of them. */
void ftable_drop_spare(void);

/* Clauses that one flow holds: an OpenFlow message has room for so many conjunction() actions
 * of 16 bytes, and some more.  Of more it has none: what it matches is dropped. */
#define FTABLE_CLAUSES_MAX 4000

/* The cookies of the clauses for keys that have too many, in no order, the caller's to free. */
size_t ftable_crowded(const struct ftable *, uint64_t **cookies);

/* From now on changes are recorded, until ftable_track(…, false).  Starting
 * forgets what was recorded before. */
void ftable_track(struct ftable *, bool on);
/* Merges what was recorded since the last call into 'into', which must be
 * initialised, and forgets it.  Nothing if the table is not tracked. */
void ftable_take(struct ftable *, struct fdelta *into);

/* All flows as sorted text, one a line. */
void ftable_format(const struct ftable *, struct ds *);

/* --- differences -------------------------------------------------------------- */

struct fdelta {
    struct hmap nodes; /* of struct fchange */
};

/* One key whose flow differs.  Never both NULL, never equal. */
struct fchange {
    struct hmap_node node;
    struct pflow *before; /* NULL: there was none */
    struct pflow *after;  /* NULL: it goes */
};

#define FDELTA_FOR_EACH(CHANGE, FDELTA) HMAP_FOR_EACH (CHANGE, node, &(FDELTA)->nodes)

void fdelta_init(struct fdelta *);
void fdelta_destroy(struct fdelta *);
static inline bool
fdelta_is_empty(const struct fdelta *d)
{
    return hmap_is_empty(&d->nodes);
}
static inline size_t
fdelta_count(const struct fdelta *d)
{
    return hmap_count(&d->nodes);
}
void fdelta_clear(struct fdelta *);
void fdelta_swap(struct fdelta *, struct fdelta *);

/* Records that the flow of one key went from 'before' to 'after', either of
 * which may be NULL, after what is recorded already: the first 'before' and the
 * last 'after' stay; a key that ends as it began is forgotten. */
void fdelta_add(struct fdelta *, const struct pflow *before, const struct pflow *after);

/* Appends 'later' to 'd'; 'later' ends empty. */
void fdelta_merge(struct fdelta *d, struct fdelta *later);

/* Appends what turns 'have' into 'want' to 'd'. */
void fdelta_diff(struct fdelta *d, const struct ftable *have, const struct ftable *want);

#endif
