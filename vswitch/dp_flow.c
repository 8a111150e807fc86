/* Megaflows: put, del, get.
 *
 * A flow is in two tables: dp->flows, by ufid, for ofproto, and the
 * classifier, for packets.  It lives in stages:
 *
 *   create   under flows_lock: mask in use, program, id, both tables
 *   unlink   under flows_lock: out of both tables, cache entries invalid
 *   (wait)   without the lock: an epoch, so that no worker has it any more
 *   finish   under flows_lock: statistics are final; id and mask given back
 *   free     after OVS's RCU: dumps show actions that callers still look at
 *
 * Any number of flows share one wait.  Whoever finds a flow in dp->flows under
 * flows_lock, or as an online reader, may use its id until it lets go of the
 * lock or goes offline: giving the id back comes after the epoch.
 *
 * Lookups of ofproto go by ufid.  A flow put without one gets a hash of its
 * key, so that the same key finds it again. */
#include <config.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "conntrack.h"
#include "dp_flow_entry.h"
#include "dp_record.h"
#include "odp-util.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/match.h"
#include "openvswitch/vlog.h"
#include "ovs-rcu.h"
#include "packets.h"
#include "shadow.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(dp_flow);

#define CT_STATES_KNOWN                                                                            \
    (CS_NEW | CS_ESTABLISHED | CS_RELATED | CS_INVALID | CS_REPLY_DIR | CS_TRACKED | CS_SRC_NAT |  \
     CS_DST_NAT)

/* --- keys --------------------------------------------------------------------- */

static void
log_bad_key(const char *what, const struct nlattr *key, size_t key_len, const struct nlattr *mask,
            size_t mask_len)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);

    if (!VLOG_DROP_ERR(&rl)) {
        struct ds s = DS_EMPTY_INITIALIZER;

        odp_flow_format(key, key_len, mask, mask_len, NULL, &s, true);
        VLOG_ERR("cannot parse flow %s: %s", what, ds_cstr(&s));
        ds_destroy(&s);
    }
}

static int
parse_key(const struct nlattr *key, size_t key_len, bool quiet, struct flow *flow)
{
    if (odp_flow_key_to_flow(key, key_len, flow, NULL)) {
        if (!quiet) {
            log_bad_key("key", key, key_len, NULL, 0);
        }
        return EINVAL;
    }
    return flow->ct_state & ~CT_STATES_KNOWN ? EINVAL : 0;
}

static int
parse_match(const struct dpif_flow_put *put, struct match *match)
{
    bool quiet = put->flags & DPIF_FP_PROBE;
    int error = parse_key(put->key, put->key_len, quiet, &match->flow);

    if (error) {
        return error;
    }
    if (odp_flow_key_to_mask(put->mask, put->mask_len, &match->wc, &match->flow, NULL)) {
        if (!quiet) {
            log_bad_key("mask", put->key, put->key_len, put->mask, put->mask_len);
        }
        return EINVAL;
    }
    if (match->wc.masks.in_port.odp_port != ODPP_NONE) {
        static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);

        if (!quiet) {
            VLOG_ERR_RL(&rl, "flow: in_port is not an exact match");
        }
        return EINVAL;
    }
    /* Netlink keys cannot say "with or without a tag": none given means that
     * there is none. */
    if (!match->wc.masks.vlans[0].tci) {
        match->wc.masks.vlans[0].tci = htons(VLAN_VID_MASK | VLAN_CFI);
    }
    return 0;
}

static uint32_t
ufid_hash(const ovs_u128 *ufid)
{
    return ufid->u32[0];
}

/* --- lookups ------------------------------------------------------------------ */

static struct dp_flow *
flow_of_rule(struct cls_rule *rule)
{
    return rule ? CONTAINER_OF(rule, struct dp_flow, fast.rule) : NULL;
}

struct dp_flow *
dp_flow_classify(const struct dp *dp, const struct flow *flow)
{
    return flow_of_rule(cls_lookup(dp->classifier, (const uint64_t *)flow));
}

void
dp_flow_classify_batch(const struct dp *dp, const struct flow *const flows[], unsigned n,
                       struct dp_flow *out[])
{
    struct cls_rule *rules[32];

    cls_lookup_batch(dp->classifier, (const uint64_t *const *)flows, n, rules);
    for (unsigned i = 0; i < n; i++) {
        out[i] = flow_of_rule(rules[i]);
    }
}

static struct dp_flow *
find_ufid(const struct dp *dp, const ovs_u128 *ufid)
{
    struct dp_flow *flow;

    CMAP_FOR_EACH_WITH_HASH(flow, ufid_node, ufid_hash(ufid), &dp->flows)
    {
        if (ovs_u128_equals(flow->ufid, *ufid)) {
            return flow;
        }
    }
    return NULL;
}

static struct dp_flow *
find(const struct dp *dp, const ovs_u128 *ufid, const struct nlattr *key, size_t key_len)
{
    struct flow flow;
    ovs_u128 hashed;

    if (!ufid) {
        if (!key_len || parse_key(key, key_len, false, &flow)) {
            return NULL;
        }
        odp_flow_key_hash(&flow, sizeof flow, &hashed);
        ufid = &hashed;
    }
    return find_ufid(dp, ufid);
}

/* --- create ------------------------------------------------------------------- */

static void
free_flow(struct dp_flow_entry *e)
{
    dp_actions_free(atomic_load_explicit(&e->flow.fast.program, memory_order_relaxed));
    free(e);
}

/* For who debugs, and in the words that Open vSwitch's own tests look for. */
static void
log_add(const struct dp_flow *flow)
{
    struct ds s = DS_EMPTY_INITIALIZER;
    struct ofpbuf key, mask;
    struct dpif_flow f;

    ofpbuf_init(&key, 0);
    ofpbuf_init(&mask, 0);
    dp_flow_describe(flow, &key, &mask, false, &f);
    odp_format_ufid(&f.ufid, &s);
    ds_put_char(&s, ' ');
    odp_flow_format(f.key, f.key_len, f.mask, f.mask_len, NULL, &s, false);
    ds_put_cstr(&s, ", actions:");
    format_odp_actions(&s, f.actions, f.actions_len, NULL);
    VLOG_DBG("flow_add: %s", ds_cstr(&s));
    ofpbuf_uninit(&key);
    ofpbuf_uninit(&mask);
    ds_destroy(&s);
}

static struct dp_flow_entry *
new_entry(const struct flow *key)
{
    struct dp_flow_entry *e;
    struct miniflow mf;

    miniflow_map_init(&mf, key);
    e = xzalloc(sizeof *e + MINIFLOW_VALUES_SIZE(miniflow_n_values(&mf)));
    e->key.map = mf.map;
    miniflow_init(&e->key, key);
    return e;
}

static int
create(struct dp *dp, const struct match *match, const ovs_u128 *ufid,
       const struct dpif_flow_put *put) OVS_REQUIRES(dp->flows_lock)
{
    struct dp_flow_entry *e = new_entry(&match->flow);
    struct dp_flow *flow = &e->flow;
    struct program *program;
    int error;

    flow->dp = dp;
    flow->ufid = *ufid;
    flow->created = time_msec();

    /* From here on the union of masks has the flow's. */
    dp_match_init(dp, flow, match);
    program = dp_actions_compile(flow, put->actions, put->actions_len);
    error = engine_flow_add(dp->engine, &flow->fast, program);
    if (error) {
        goto error_add;
    }
    error = cls_insert(dp->classifier, &flow->fast.rule);
    if (error) {
        goto error_insert;
    }
    cmap_insert(&dp->flows, &flow->ufid_node, ufid_hash(ufid));
    if (!(put->flags & DPIF_FP_PROBE)) {
        shadow_flow_put(dp, flow);
    }
    if (VLOG_IS_DBG_ENABLED()) {
        log_add(flow);
    }
    return 0;

error_insert:
    engine_flow_invalidate(dp->engine, &flow->fast);
    engine_flow_free(dp->engine, &flow->fast);
error_add:
    dp_actions_free(program);
    dp_match_uninit(dp, flow);
    free(e);
    return error;
}

/* --- modify ------------------------------------------------------------------- */

void
dp_flow_stats(const struct dp_flow *flow, struct dpif_flow_stats *stats)
{
    const struct flow_stats *zero = &flow->zero;
    /* What is subtracted was counted earlier, so it must be read first. */
    uint64_t packets = __atomic_load_n(&zero->packets, __ATOMIC_ACQUIRE);
    uint64_t bytes = __atomic_load_n(&zero->bytes, __ATOMIC_ACQUIRE);
    struct flow_stats now;

    engine_flow_stats(flow->dp->engine, &flow->fast, &now);
    dp_actions_tell_drops(flow, now.packets);
    memset(stats, 0, sizeof *stats);
    if (now.packets > packets) {
        stats->n_packets = now.packets - packets;
        stats->n_bytes = now.bytes > bytes ? now.bytes - bytes : 0;
        stats->used = now.used;
        stats->tcp_flags = now.tcp_flags;
    }
}

/* Begins to count from 0.  TCP flags seen before come back with the next
 * packet: the engine only adds to them. */
static void
zero_stats(struct dp_flow *flow) OVS_REQUIRES(flow->dp->flows_lock)
{
    struct flow_stats now;

    engine_flow_stats(flow->dp->engine, &flow->fast, &now);
    __atomic_store_n(&flow->zero.bytes, now.bytes, __ATOMIC_RELEASE);
    __atomic_store_n(&flow->zero.packets, now.packets, __ATOMIC_RELEASE);
}

static void
free_program_now(void *program)
{
    dp_actions_free(program);
}

/* Dumps that show the actions are through with them; workers may not be. */
static void
free_program_after_epoch(struct program *program)
{
    epoch_defer(free_program_now, program);
}

static void
modify(struct dp *dp, struct dp_flow *flow, const struct dpif_flow_put *put)
    OVS_REQUIRES(dp->flows_lock)
{
    const struct dp_actions *now = dp_flow_actions(flow);
    struct dpif_flow_stats stats;

    dp_flow_stats(flow, &stats);
    if (put->stats) {
        *put->stats = stats;
    }
    /* The same actions again: an answer with the statistics is wanted. */
    if (now->len != put->actions_len ||
        (now->len && memcmp(now->actions, put->actions, now->len))) {
        struct flow_stats counted;
        struct program *old;

        engine_flow_stats(dp->engine, &flow->fast, &counted);
        dp_actions_switch_drops(flow, counted.packets);
        old = engine_flow_set_program(dp->engine, &flow->fast,
                                      dp_actions_compile(flow, put->actions, put->actions_len));
        ovsrcu_postpone(free_program_after_epoch, old);
        shadow_flow_put(dp, flow);
    }
    if (put->flags & DPIF_FP_ZERO_STATS) {
        zero_stats(flow);
    }
}

/* --- put ---------------------------------------------------------------------- */

/* The flow that a put is about.  By ufid; but one that has none speaks about
 * whatever flow its key belongs to. */
static struct dp_flow *
find_for_put(const struct dp *dp, const struct dpif_flow_put *put, const struct flow *key,
             const ovs_u128 *ufid) OVS_REQUIRES(dp->flows_lock)
{
    struct dp_flow *flow = find_ufid(dp, ufid);

    return flow || put->ufid ? flow : dp_flow_classify(dp, key);
}

int
dp_flow_put(struct dp *dp, const struct dpif_flow_put *put)
{
    struct match match;
    struct dp_flow *flow;
    ovs_u128 ufid;
    int error;

    if (put->stats) {
        memset(put->stats, 0, sizeof *put->stats);
    }
    error = parse_match(put, &match);
    if (error) {
        return error;
    }
    dp_record_put(dp, &match.flow, put);
    if (put->ufid) {
        ufid = *put->ufid;
    } else {
        odp_flow_key_hash(&match.flow, sizeof match.flow, &ufid);
    }

    ovs_mutex_lock(&dp->flows_lock);
    flow = find_for_put(dp, put, &match.flow, &ufid);
    if (flow && put->flags & DPIF_FP_MODIFY) {
        modify(dp, flow, put);
    } else if (flow) {
        /* Not to be created and not to be changed: what, then? */
        error = put->flags & DPIF_FP_CREATE ? EEXIST : EINVAL;
    } else if (!(put->flags & DPIF_FP_CREATE)) {
        error = ENOENT;
    } else if (put->ufid && dp_flow_classify(dp, &match.flow)) {
        /* Several packets that missed at once lead to the same megaflow,
         * under a ufid each.  One is enough. */
        error = EEXIST;
    } else {
        error = create(dp, &match, &ufid, put);
    }
    ovs_mutex_unlock(&dp->flows_lock);
    return error;
}

/* --- del ---------------------------------------------------------------------- */

static void
unlink_flow(struct dp *dp, struct dp_flow *flow) OVS_REQUIRES(dp->flows_lock)
{
    flow->dead = true;
    shadow_flow_del(dp, flow);
    cmap_remove(&dp->flows, &flow->ufid_node, ufid_hash(&flow->ufid));
    cls_remove(dp->classifier, &flow->fast.rule);
    engine_flow_invalidate(dp->engine, &flow->fast);
}

/* An epoch after unlink_flow(). */
static void
finish_flow(struct dp *dp, struct dp_flow *flow, struct dpif_flow_stats *stats)
    OVS_REQUIRES(dp->flows_lock)
{
    struct dpif_flow_stats final;

    dp_flow_stats(flow, &final);
    if (stats) {
        *stats = final;
    }
    engine_flow_free(dp->engine, &flow->fast);
    dp_match_uninit(dp, flow);
    ovsrcu_postpone(free_flow, dp_flow_entry_of(flow));
}

void
dp_flow_del_batch(struct dp *dp, struct dpif_op **ops, size_t n)
{
    struct dp_flow **flows = xmalloc(n * sizeof *flows);
    bool any = false;

    ovs_mutex_lock(&dp->flows_lock);
    for (size_t i = 0; i < n; i++) {
        const struct dpif_flow_del *del = &ops[i]->flow_del;

        flows[i] = find(dp, del->ufid, del->key, del->key_len);
        if (flows[i]) {
            unlink_flow(dp, flows[i]);
            any = true;
        }
        ops[i]->error = flows[i] ? 0 : ENOENT;
    }
    ovs_mutex_unlock(&dp->flows_lock);

    if (any) {
        epoch_synchronize();
        ovs_mutex_lock(&dp->flows_lock);
        for (size_t i = 0; i < n; i++) {
            if (flows[i]) {
                finish_flow(dp, flows[i], ops[i]->flow_del.stats);
            }
        }
        ovs_mutex_unlock(&dp->flows_lock);
    }
    free(flows);
}

int
dp_flow_del(struct dp *dp, const struct dpif_flow_del *del)
{
    struct dpif_op op = {.type = DPIF_OP_FLOW_DEL, .flow_del = *del};
    struct dpif_op *ops[] = {&op};

    dp_flow_del_batch(dp, ops, 1);
    return op.error;
}

void
dp_flow_flush(struct dp *dp)
{
    struct dp_flow **flows, *flow;
    size_t n = 0;

    ovs_mutex_lock(&dp->flows_lock);
    flows = xmalloc(MAX(cmap_count(&dp->flows), 1) * sizeof *flows);
    CMAP_FOR_EACH(flow, ufid_node, &dp->flows)
    {
        unlink_flow(dp, flow);
        flows[n++] = flow;
    }
    ovs_mutex_unlock(&dp->flows_lock);

    if (n) {
        epoch_synchronize();
        ovs_mutex_lock(&dp->flows_lock);
        for (size_t i = 0; i < n; i++) {
            finish_flow(dp, flows[i], NULL);
        }
        ovs_mutex_unlock(&dp->flows_lock);
    }
    free(flows);
}

/* --- get ---------------------------------------------------------------------- */

int
dp_flow_get(struct dp *dp, const struct dpif_flow_get *get)
{
    const struct dp_flow *flow;

    ovs_mutex_lock(&dp->flows_lock);
    flow = find(dp, get->ufid, get->key, get->key_len);
    if (flow) {
        dp_flow_describe(flow, get->buffer, get->buffer, false, get->flow);
    }
    ovs_mutex_unlock(&dp->flows_lock);
    return flow ? 0 : ENOENT;
}

size_t
dp_flow_count(const struct dp *dp)
{
    return cmap_count(&dp->flows);
}

/* --- the table ------------------------------------------------------------------ */

void
dp_flows_init(struct dp *dp)
{
    ovs_mutex_init(&dp->flows_lock);
    cmap_init(&dp->flows);
    dp->classifier = cls_create(FLOW_U64S);
    if (!dp->classifier) {
        out_of_memory();
    }
}

void
dp_flows_destroy(struct dp *dp)
{
    dp_flow_flush(dp);
    cls_destroy(dp->classifier);
    cmap_destroy(&dp->flows);
    ovs_mutex_destroy(&dp->flows_lock);
}
