/* Connection tracking on the packets' way.
 *
 * Two ways lead through the tracker.  The general one is an action among
 * others (dp_ct_action()).  The other is the program TRACK, ct and
 * recirculation with nothing else, as the first of a packet's two flows
 * (dp_ct_run()): there the cache can learn what comes of it.  For a packet
 * that the tracker calls established, the second lookup depends on the packet
 * and on what the tracker said; as long as a reference to the connection
 * (ct.h) goes on saying the same, the second flow is the same, too. */
#include <config.h>

#include "conntrack.h"
#include "coverage.h"
#include "ct.h"
#include "dp.h"
#include "dp_verdict.h"
#include "flow.h"
#include "netlink.h"
#include "odp-netlink.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "packets.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(dp_ct);

COVERAGE_DEFINE(dp_ct_learned);
COVERAGE_DEFINE(dp_ct_drop_depth); /* recirculated too often */
COVERAGE_DEFINE(dp_ct_drop_full);  /* reassembly gave back more than fits a batch */

/* --- the action's attributes ------------------------------------------------- */

/* OVS_ACTION_ATTR_CT taken apart; pointers into the attribute. */
struct ct_args {
    bool force, commit;
    uint16_t zone;
    uint32_t timeout_policy;
    const char *helper;
    const uint32_t *mark;                  /* value, mask */
    const struct ovs_key_ct_labels *label; /* value, mask */
    bool has_nat;
    struct nat_action_info_t nat;
};

static void
parse_nat(const struct nlattr *nested, struct nat_action_info_t *nat)
{
    bool ip_min = false, ip_max = false, port_min = false, port_max = false;
    const struct nlattr *a;
    unsigned left;

    memset(nat, 0, sizeof *nat);
    NL_NESTED_FOR_EACH_UNSAFE(a, left, nested)
    {
        switch ((enum ovs_nat_attr)nl_attr_type(a)) {
        case OVS_NAT_ATTR_SRC:
            nat->nat_action |= NAT_ACTION_SRC;
            break;
        case OVS_NAT_ATTR_DST:
            nat->nat_action |= NAT_ACTION_DST;
            break;
        case OVS_NAT_ATTR_IP_MIN:
            memcpy(&nat->min_addr, nl_attr_get(a), MIN(nl_attr_get_size(a), sizeof nat->min_addr));
            ip_min = true;
            break;
        case OVS_NAT_ATTR_IP_MAX:
            memcpy(&nat->max_addr, nl_attr_get(a), MIN(nl_attr_get_size(a), sizeof nat->max_addr));
            ip_max = true;
            break;
        case OVS_NAT_ATTR_PROTO_MIN:
            nat->min_port = nl_attr_get_u16(a);
            port_min = true;
            break;
        case OVS_NAT_ATTR_PROTO_MAX:
            nat->max_port = nl_attr_get_u16(a);
            port_max = true;
            break;
        case OVS_NAT_ATTR_PERSISTENT:
        case OVS_NAT_ATTR_PROTO_HASH:
        case OVS_NAT_ATTR_PROTO_RANDOM:
            break;
        case OVS_NAT_ATTR_UNSPEC:
        case __OVS_NAT_ATTR_MAX:
            OVS_NOT_REACHED();
        }
    }
    if (ip_min && !ip_max) {
        nat->max_addr = nat->min_addr;
    }
    if (port_min && !port_max) {
        nat->max_port = nat->min_port;
    }
    if (port_min || port_max) {
        if (nat->nat_action & NAT_ACTION_SRC) {
            nat->nat_action |= NAT_ACTION_SRC_PORT;
        } else if (nat->nat_action & NAT_ACTION_DST) {
            nat->nat_action |= NAT_ACTION_DST_PORT;
        }
    }
}

static void
parse_ct(const struct nlattr *ct, struct ct_args *args)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(5, 5);
    const struct nlattr *a;
    unsigned left;

    memset(args, 0, sizeof *args);
    NL_NESTED_FOR_EACH_UNSAFE(a, left, ct)
    {
        switch ((enum ovs_ct_attr)nl_attr_type(a)) {
        case OVS_CT_ATTR_FORCE_COMMIT:
            args->force = args->commit = true;
            break;
        case OVS_CT_ATTR_COMMIT:
            args->commit = true;
            break;
        case OVS_CT_ATTR_ZONE:
            args->zone = nl_attr_get_u16(a);
            break;
        case OVS_CT_ATTR_HELPER:
            args->helper = nl_attr_get_string(a);
            break;
        case OVS_CT_ATTR_MARK:
            args->mark = nl_attr_get(a);
            break;
        case OVS_CT_ATTR_LABELS:
            args->label = nl_attr_get(a);
            break;
        case OVS_CT_ATTR_EVENTMASK: /* there are no events here */
            break;
        case OVS_CT_ATTR_TIMEOUT:
            if (!str_to_uint(nl_attr_get_string(a), 10, &args->timeout_policy)) {
                VLOG_WARN_RL(&rl, "%s is no timeout policy's number", nl_attr_get_string(a));
                args->timeout_policy = DEFAULT_TP_ID;
            }
            break;
        case OVS_CT_ATTR_NAT:
            parse_nat(a, &args->nat);
            args->has_nat = true;
            break;
        case OVS_CT_ATTR_UNSPEC:
        case __OVS_CT_ATTR_MAX:
            OVS_NOT_REACHED();
        }
    }
    if (args->has_nat && args->nat.nat_action && !args->commit) {
        VLOG_WARN_RL(&rl, "NAT without commit");
    }
    if (args->has_nat && !args->nat.nat_action && args->commit) {
        /* A new connection keeps its address, and its port if it can.  Left as
         * it is, the tracker would expect answers at port 0. */
        args->nat.nat_action = NAT_ACTION_SRC;
    }
}

/* For a connection without NAT, that does what ct() with nothing but a zone
 * would do to a packet that is established already. */
static bool
only_looks(const struct ct_args *args)
{
    return !args->force && !args->helper && !args->mark && !args->label;
}

/* --- the tracker ---------------------------------------------------------------- */

/* What the tracker has to be told about a packet.  A batch is of one flow, and
 * a flow is of one Ethernet type; ports matter to ALGs. */
struct kind {
    ovs_be16 dl_type, tp_src, tp_dst;
};

static struct kind
kind_of(struct dp_packet *b, const struct ct_args *args)
{
    struct kind kind = {.dl_type = htons(FLOW_DL_TYPE_NONE)};
    const uint8_t *l4;

    if (b->l3_ofs == UINT16_MAX) {
        parse_tcp_flags(b, NULL, NULL, NULL); /* sets the offsets */
    }
    if (!dp_packet_is_eth(b)) {
        kind.dl_type = pt_ns_type_be(b->packet_type);
    } else if (b->l3_ofs != UINT16_MAX && b->l3_ofs >= ETH_HEADER_LEN) {
        memcpy(&kind.dl_type, (uint8_t *)dp_packet_l3(b) - 2, 2);
    }
    l4 = dp_packet_l4(b);
    if (args->helper && l4 && dp_packet_l4_size(b) >= 4) {
        memcpy(&kind.tp_src, l4, 2);
        memcpy(&kind.tp_dst, l4 + 2, 2);
    }
    return kind;
}

static void
track(struct dp_worker *w, struct dp_packet_batch *batch, const struct ct_args *args,
      const struct kind *kind)
{
    conntrack_execute(w->dp->conntrack, batch, kind->dl_type, args->force, args->commit, args->zone,
                      args->mark, args->label, kind->tp_src, kind->tp_dst, args->helper,
                      args->has_nat ? &args->nat : NULL, worker_now(w->worker),
                      args->timeout_policy);
}

static void
append(struct dp_packet_batch *to, struct dp_packet_batch *from)
{
    struct dp_packet *b;

    DP_PACKET_BATCH_FOR_EACH (i, b, from) {
        if (dp_packet_batch_is_full(to)) {
            COVERAGE_INC(dp_ct_drop_full);
            dp_packet_delete(b);
        } else {
            dp_packet_batch_add(to, b);
        }
    }
}

static void
track_all(struct dp_worker *w, struct dp_packet_batch *batch, const struct ct_args *args)
{
    struct kind kinds[NETDEV_MAX_BURST];
    struct dp_packet_batch in;
    size_t n = dp_packet_batch_size(batch), end;

    for (size_t i = 0; i < n; i++) {
        kinds[i] = kind_of(batch->packets[i], args);
    }
    for (end = 1; end < n && !memcmp(&kinds[end], &kinds[0], sizeof kinds[0]); end++) {
        continue;
    }
    if (end >= n) {
        if (n) {
            track(w, batch, args, &kinds[0]);
        }
        return;
    }

    in = *batch;
    dp_packet_batch_init(batch);
    for (size_t i = 0; i < n; i = end) {
        struct dp_packet_batch run;

        dp_packet_batch_init(&run);
        for (end = i; end < n && !memcmp(&kinds[end], &kinds[i], sizeof kinds[0]); end++) {
            dp_packet_batch_add(&run, in.packets[end]);
        }
        track(w, &run, args, &kinds[i]);
        append(batch, &run);
    }
}

void
dp_ct_action(struct dp_worker *w, struct dp_packet_batch *batch, const struct nlattr *ct)
{
    struct ct_args args;

    dp_worker_rcu(w);
    parse_ct(ct, &args);
    track_all(w, batch, &args);
}

/* --- TRACK ------------------------------------------------------------------------ */

/* The flow of an established connection's packet after the tracker, if packets
 * may go there without it. */
static struct dp_flow *
second_flow(struct dp_worker *w, struct dp_packet *b)
{
    struct flow flow;
    struct dp_flow *second;
    const struct program *p;
    enum shape shape;

    flow_extract(b, &flow);
    second = dp_flow_classify(w->dp, &flow);
    if (!second) {
        return NULL;
    }
    shape = flow.dl_type == htons(ETH_TYPE_IP) ? SHAPE_IPV4 : SHAPE_IPV6;
    p = atomic_load_explicit(&second->fast.program, memory_order_acquire);
    return second->covers_tracked & (1u << shape) &&
                   (p->kind == PROGRAM_DROP || p->kind == PROGRAM_OUTPUT || p->kind == PROGRAM_EDIT)
               ? second
               : NULL;
}

/* 'last': what was learned before, in this batch. */
static void
learn(struct dp_worker *w, uint16_t in_port, const struct dp_actions *da, struct dp_packet *b,
      const struct ct_args *args, struct ct_ref *last)
{
    struct ct_verdict said;
    struct dp_flow *second;
    struct ct_ref ref, *verdict;

    if (!(b->md.ct_state & CS_ESTABLISHED) || b->md.in_port.odp_port != u32_to_odp(in_port) ||
        !ct_ref_take(w->dp->conntrack, b, args->zone, worker_now(w->worker), &ref, &said) ||
        !memcmp(&ref, last, sizeof ref)) {
        return;
    }
    *last = ref;
    second = second_flow(w, b);
    if (second) {
        COVERAGE_INC(dp_ct_learned);
        verdict = dp_verdict_alloc(w);
        *verdict = ref;
        worker_learn_verdict(w->worker, in_port, &b->mbuf, &da->flow->fast, &second->fast, verdict);
    }
}

void
dp_ct_run(struct dp_worker *w, uint16_t in_port, const struct dp_actions *da,
          struct dp_packet_batch *batch)
{
    struct ct_ref last = {.conn = NULL};
    struct ct_args args;
    struct dp_packet *b;

    dp_worker_rcu(w);
    parse_ct(da->ct, &args);
    track_all(w, batch, &args);
    DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
        b->md.recirc_id = da->recirc_id;
        dp_packet_complete(b);
        if (only_looks(&args)) {
            learn(w, in_port, da, b, &args, &last);
        }
    }
    if (w->depth < DP_MAX_DEPTH) {
        w->depth++;
        dp_input(w, batch, false);
        w->depth--;
    } else {
        COVERAGE_ADD(dp_ct_drop_depth, dp_packet_batch_size(batch));
        dp_packet_delete_batch(batch, true);
    }
}

/* --- life ---------------------------------------------------------------------------- */

/* Who has which tracker, for the commands. */
static struct ovs_mutex trackers_lock = OVS_MUTEX_INITIALIZER;
static struct shash trackers OVS_GUARDED_BY(trackers_lock) = SHASH_INITIALIZER(&trackers);

static struct conntrack *
find_tracker(const char *name)
{
    struct conntrack *ct = NULL;
    size_t len = strlen(DP_TYPE);

    if (name && !strncmp(name, DP_TYPE "@", len + 1)) {
        name += len + 1;
    }
    ovs_mutex_lock(&trackers_lock);
    if (name) {
        ct = shash_find_data(&trackers, name);
    } else if (shash_count(&trackers) == 1) {
        ct = shash_first(&trackers)->data;
    }
    ovs_mutex_unlock(&trackers_lock);
    return ct;
}

void
dp_ct_init(struct dp *dp)
{
    static struct ovsthread_once once = OVSTHREAD_ONCE_INITIALIZER;

    dp->conntrack = conntrack_init();
    ovs_mutex_lock(&trackers_lock);
    shash_add(&trackers, dp->name, dp->conntrack);
    ovs_mutex_unlock(&trackers_lock);
    if (ovsthread_once_start(&once)) {
        ct_unixctl_init(find_tracker);
        ovsthread_once_done(&once);
    }
}

void
dp_ct_destroy(struct dp *dp)
{
    ovs_mutex_lock(&trackers_lock);
    shash_find_and_delete(&trackers, dp->name);
    ovs_mutex_unlock(&trackers_lock);
    conntrack_destroy(dp->conntrack);
    dp->conntrack = NULL;
}
