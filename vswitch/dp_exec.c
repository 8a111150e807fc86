/* Actions through Open vSwitch's libraries.
 *
 * odp-execute does what can be done to a packet by itself and calls back here
 * for the rest.  The rules of its callback: with 'steal' the packets are
 * ours; without, they stay the caller's, so what keeps them works on clones;
 * a packet that is to go no further is freed and leaves the batch.
 *
 * A truncation is pending in the packets (cut length) until something is done
 * with them; it is over after that, whatever that was.
 *
 * Hashes.  odp-execute and tunnels take a packet's RSS hash where they hash
 * it, and otherwise compute something else, or take whatever is there.  So
 * where actions need one, every packet gets one first; only then, so that all
 * packets of a flow get theirs at the same point of their way. */
#include <config.h>

#include <errno.h>

#include "coverage.h"
#include "dp.h"
#include "dp_record.h"
#include "fast/program.h"
#include "netlink.h"
#include "odp-execute.h"
#include "odp-netlink.h"
#include "openvswitch/ofpbuf.h"
#include "openvswitch/vlog.h"
#include "packets.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(dp_exec);

COVERAGE_DEFINE(weft_drop_invalid_port);
COVERAGE_DEFINE(weft_drop_invalid_tnl_port);
COVERAGE_DEFINE(weft_drop_tunnel_push_error);
COVERAGE_DEFINE(weft_drop_tunnel_pop_error);
COVERAGE_DEFINE(weft_drop_recirc_depth);

static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);

/* In front of a packet that ofproto sends, for tags and tunnels. */
#define EXECUTE_HEADROOM 130u

/* What the callback gets: the worker, and all the actions (it sees only the
 * one it is called for). */
struct run {
    struct dp_worker *w;
    const struct nlattr *actions;
    size_t len;
};

/* --- hashes --------------------------------------------------------------------- */

static bool needs_hash(const struct nlattr *actions, size_t len);

static bool
nested_needs_hash(const struct nlattr *nest)
{
    return nest && needs_hash(nl_attr_get(nest), nl_attr_get_size(nest));
}

static bool
needs_hash(const struct nlattr *actions, size_t len)
{
    const struct nlattr *a;
    size_t left;

    NL_ATTR_FOR_EACH_UNSAFE(a, left, actions, len)
    {
        switch (nl_attr_type(a)) {
        case OVS_ACTION_ATTR_HASH:
        case OVS_ACTION_ATTR_LB_OUTPUT:
        case OVS_ACTION_ATTR_TUNNEL_PUSH:
            return true;
        case OVS_ACTION_ATTR_CLONE:
            if (nested_needs_hash(a)) {
                return true;
            }
            break;
        case OVS_ACTION_ATTR_SAMPLE:
            if (nested_needs_hash(nl_attr_find_nested(a, OVS_SAMPLE_ATTR_ACTIONS))) {
                return true;
            }
            break;
        case OVS_ACTION_ATTR_CHECK_PKT_LEN:
            if (nested_needs_hash(
                    nl_attr_find_nested(a, OVS_CHECK_PKT_LEN_ATTR_ACTIONS_IF_GREATER)) ||
                nested_needs_hash(
                    nl_attr_find_nested(a, OVS_CHECK_PKT_LEN_ATTR_ACTIONS_IF_LESS_EQUAL))) {
                return true;
            }
            break;
        default:
            break;
        }
    }
    return false;
}

/* Finds the packet's layers, and its hash if it is wanted and has none. */
static void
parse(struct dp_packet *b, bool hash)
{
    struct {
        struct miniflow mf;
        uint64_t values[FLOW_U64S];
    } key;

    miniflow_extract(b, &key.mf);
    if (hash && !dp_packet_rss_valid(b)) {
        dp_packet_set_rss_hash(b, miniflow_hash_5tuple(&key.mf, 0));
    }
}

/* --- one action each -------------------------------------------------------------- */

/* A copy in one allocation, with as much headroom.  Otherwise the same as
 * dp_packet_clone_with_headroom(), which makes two. */
static struct dp_packet *
clone_packet(const struct dp_packet *b)
{
    size_t headroom = dp_packet_headroom(b), size = dp_packet_size(b);
    struct dp_packet *clone = xmalloc(sizeof *clone + headroom + size);
    uint32_t mark;

    dp_packet_use_stub(clone, clone + 1, headroom + size);
    dp_packet_reserve(clone, headroom);
    dp_packet_put(clone, dp_packet_data(b), size);
    memcpy(&clone->l2_pad_size, &b->l2_pad_size,
           sizeof *b - offsetof(struct dp_packet, l2_pad_size));
    *dp_packet_ol_flags_ptr(clone) = *dp_packet_ol_flags_ptr(b) & DP_PACKET_OL_SUPPORTED_MASK;
    clone->mbuf.tx_offload = b->mbuf.tx_offload;
    if (dp_packet_rss_valid(b)) {
        dp_packet_set_rss_hash(clone, dp_packet_get_rss_hash(b));
    }
    if (dp_packet_has_flow_mark(b, &mark)) {
        dp_packet_set_flow_mark(clone, mark);
    }
    return clone;
}

static void
clone_batch(struct dp_packet_batch *to, const struct dp_packet_batch *from)
{
    struct dp_packet *b;

    dp_packet_batch_init(to);
    DP_PACKET_BATCH_FOR_EACH (i, b, from) {
        dp_packet_batch_add(to, clone_packet(b));
    }
    to->trunc = from->trunc;
}

/* What 'batch' means to an action that keeps packets: itself if they are to be
 * stolen, else clones in '*clones'.  Truncations are then done. */
static struct dp_packet_batch *
take(struct dp_packet_batch *batch, bool steal, struct dp_packet_batch *clones)
{
    if (!steal) {
        clone_batch(clones, batch);
        dp_packet_batch_reset_cutlen(batch);
        batch = clones;
    }
    dp_packet_batch_apply_cutlen(batch);
    return batch;
}

static void
output(struct dp_worker *w, struct dp_packet_batch *batch, bool steal, odp_port_t port)
{
    struct rte_mbuf *pkts[NETDEV_MAX_BURST];
    struct dp_packet_batch clones;
    struct dp_packet *b;
    unsigned n = 0;

    if (!dp_port_lookup(w->dp, port)) {
        COVERAGE_ADD(weft_drop_invalid_port, dp_packet_batch_size(batch));
        dp_packet_delete_batch(batch, steal);
        dp_packet_batch_reset_cutlen(batch);
        return;
    }
    batch = take(batch, steal, &clones);
    DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
        dp_packet_complete(b);
        pkts[n++] = &b->mbuf;
    }
    worker_output(w->worker, odp_to_u32(port), pkts, n);
}

/* The tunnel port, or NULL: what is there may be another by now. */
static struct dp_port *
tunnel_port(const struct dp *dp, odp_port_t port_no)
{
    struct dp_port *port = dp_port_lookup(dp, port_no);

    return port && port->kind == DP_PORT_TUNNEL && netdev_has_tunnel_push_pop(port->netdev) ? port
                                                                                            : NULL;
}

/* The packets stay in the batch, now those of the tunnel. */
static void
tunnel_push(struct dp_worker *w, struct dp_packet_batch *batch, bool steal,
            const struct ovs_action_push_tnl *data)
{
    struct dp_port *port = tunnel_port(w->dp, data->tnl_port);
    const size_t n = dp_packet_batch_size(batch);

    if (steal) {
        /* The last action: nobody wants what comes of it. */
        dp_packet_delete_batch(batch, true);
        return;
    }
    dp_packet_batch_apply_cutlen(batch);
    if (!port || netdev_push_header(port->netdev, batch, data)) {
        COVERAGE_ADD(weft_drop_tunnel_push_error, n);
        dp_packet_delete_batch(batch, true);
    }
}

static bool
may_recirculate(const struct dp_worker *w, struct dp_packet_batch *batch)
{
    if (w->depth < DP_MAX_DEPTH) {
        return true;
    }
    COVERAGE_ADD(weft_drop_recirc_depth, dp_packet_batch_size(batch));
    VLOG_WARN_RL(&rl, "%s: packets dropped that recirculated more than %u times", w->dp->name,
                 DP_MAX_DEPTH);
    return false;
}

static void
recirculate(struct dp_worker *w, struct dp_packet_batch *batch)
{
    struct dp_packet *b;

    DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
        dp_packet_complete(b);
    }
    w->depth++;
    dp_input(w, batch, false);
    w->depth--;
}

static void
tunnel_pop(struct dp_worker *w, struct dp_packet_batch *batch, bool steal, odp_port_t port_no)
{
    struct dp_port *port = tunnel_port(w->dp, port_no);
    struct dp_packet_batch clones;
    struct dp_packet *b;
    size_t n;

    if (!port) {
        COVERAGE_ADD(weft_drop_invalid_tnl_port, dp_packet_batch_size(batch));
    }
    if (!port || !may_recirculate(w, batch)) {
        dp_packet_delete_batch(batch, steal);
        return;
    }
    batch = take(batch, steal, &clones);
    n = dp_packet_batch_size(batch);
    netdev_pop_header(port->netdev, batch);
    COVERAGE_ADD(weft_drop_tunnel_pop_error, n - dp_packet_batch_size(batch));
    if (dp_packet_batch_is_empty(batch)) {
        return;
    }
    DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
        b->md.in_port.odp_port = port_no;
    }
    recirculate(w, batch);
}

/* A truncation goes along, as in Open vSwitch's own datapath. */
static void
recirc(struct dp_worker *w, struct dp_packet_batch *batch, bool steal, uint32_t recirc_id)
{
    struct dp_packet_batch clones;
    struct dp_packet *b;

    if (!may_recirculate(w, batch)) {
        dp_packet_delete_batch(batch, steal);
        return;
    }
    if (!steal) {
        clone_batch(&clones, batch);
        batch = &clones;
    }
    DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
        b->md.recirc_id = recirc_id;
    }
    recirculate(w, batch);
}

/* The actions of the flow as one attribute, for an action that asks for them;
 * NULL if it does not, or if they do not fit one. */
static const struct nlattr *
actions_attr(const struct run *run, const struct nlattr *userspace, struct ofpbuf *buf)
{
    if (!nl_attr_find_nested(userspace, OVS_USERSPACE_ATTR_ACTIONS) ||
        nl_attr_oversized(run->len)) {
        return NULL;
    }
    nl_msg_put_unspec(buf, OVS_USERSPACE_ATTR_ACTIONS, run->actions, run->len);
    return buf->data;
}

static void
userspace(const struct run *run, struct dp_packet_batch *batch, bool steal, const struct nlattr *a)
{
    const struct nlattr *userdata = nl_attr_find_nested(a, OVS_USERSPACE_ATTR_USERDATA);
    const struct nlattr *actions;
    uint64_t stub[512 / 8];
    struct ofpbuf buf;
    struct record_way ignored;
    struct dp_packet *b;
    struct flow flow;

    if (dp_record_is_note(a, &ignored)) {
        dp_packet_delete_batch(batch, steal);
        return;
    }
    ofpbuf_use_stub(&buf, stub, sizeof stub);
    actions = actions_attr(run, a, &buf);
    DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
        flow_extract(b, &flow);
        dp_upcall(run->w, b, &flow, DPIF_UC_ACTION, userdata, actions, NULL);
    }
    ofpbuf_uninit(&buf);
    dp_packet_batch_reset_cutlen(batch);
    dp_packet_delete_batch(batch, steal);
}

static void
execute_cb(void *run_, struct dp_packet_batch *batch, const struct nlattr *a, bool steal)
{
    const struct run *run = run_;
    struct dp_worker *w = run->w;

    switch ((enum ovs_action_attr)nl_attr_type(a)) {
    case OVS_ACTION_ATTR_OUTPUT:
        output(w, batch, steal, nl_attr_get_odp_port(a));
        break;
    case OVS_ACTION_ATTR_LB_OUTPUT:
        dp_bond_output(w, batch, nl_attr_get_u32(a), steal);
        break;
    case OVS_ACTION_ATTR_TUNNEL_PUSH:
        tunnel_push(w, batch, steal, nl_attr_get(a));
        break;
    case OVS_ACTION_ATTR_TUNNEL_POP:
        tunnel_pop(w, batch, steal, nl_attr_get_odp_port(a));
        break;
    case OVS_ACTION_ATTR_USERSPACE:
        userspace(run, batch, steal, a);
        break;
    case OVS_ACTION_ATTR_RECIRC:
        recirc(w, batch, steal, nl_attr_get_u32(a));
        break;
    case OVS_ACTION_ATTR_CT:
        dp_ct_action(w, batch, a);
        dp_packet_delete_batch(batch, steal);
        break;
    case OVS_ACTION_ATTR_METER:
        dp_meter_run(w, batch, nl_attr_get_u32(a), worker_now(w->worker));
        dp_packet_delete_batch(batch, steal);
        break;

    case OVS_ACTION_ATTR_PUSH_VLAN:
    case OVS_ACTION_ATTR_POP_VLAN:
    case OVS_ACTION_ATTR_PUSH_MPLS:
    case OVS_ACTION_ATTR_POP_MPLS:
    case OVS_ACTION_ATTR_SET:
    case OVS_ACTION_ATTR_SET_MASKED:
    case OVS_ACTION_ATTR_SAMPLE:
    case OVS_ACTION_ATTR_HASH:
    case OVS_ACTION_ATTR_UNSPEC:
    case OVS_ACTION_ATTR_TRUNC:
    case OVS_ACTION_ATTR_PUSH_ETH:
    case OVS_ACTION_ATTR_POP_ETH:
    case OVS_ACTION_ATTR_CLONE:
    case OVS_ACTION_ATTR_PUSH_NSH:
    case OVS_ACTION_ATTR_POP_NSH:
    case OVS_ACTION_ATTR_CT_CLEAR:
    case OVS_ACTION_ATTR_CHECK_PKT_LEN:
    case OVS_ACTION_ATTR_DROP:
    case OVS_ACTION_ATTR_ADD_MPLS:
    case __OVS_ACTION_ATTR_MAX:
        OVS_NOT_REACHED();
    }
}

/* --- entries ---------------------------------------------------------------------- */

void
dp_execute(struct dp_worker *w, struct dp_packet_batch *batch, bool steal,
           const struct nlattr *actions, size_t len)
{
    struct run run = {w, actions, len};
    struct dp_packet *b;

    dp_worker_rcu(w);
    if (needs_hash(actions, len)) {
        DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
            if (!dp_packet_rss_valid(b)) {
                parse(b, true);
            }
        }
    }
    odp_execute_actions(&run, batch, steal, actions, len, execute_cb);
}

static void
slow_batch(struct dp_worker *w, uint16_t in_port, const struct program *program,
           struct dp_packet_batch *batch)
{
    const struct dp_actions *a = program->slow;

    if (program->kind == PROGRAM_TRACK) {
        dp_ct_run(w, in_port, a, batch);
    } else {
        dp_execute(w, batch, true, a->actions, a->len);
    }
}

void
dp_slow(struct worker *worker, uint16_t in_port, const struct program *program,
        struct rte_mbuf **pkts, unsigned n)
{
    struct dp_worker *w = dp_worker_of(worker);
    struct dp_packet_batch batch;

    dp_worker_rcu(w);
    for (unsigned i = 0; i < n;) {
        dp_packet_batch_init(&batch);
        do {
            struct dp_packet *b = dp_packet_of(pkts[i]);

            dp_packet_adopt(b, u32_to_odp(in_port));
            parse(b, false);
            dp_packet_batch_add(&batch, b);
        } while (++i < n && !dp_packet_batch_is_full(&batch));
        if (worker_records(worker, in_port)) {
            dp_record_remember(w, in_port, batch.packets, dp_packet_batch_size(&batch));
        }
        slow_batch(w, in_port, program, &batch);
    }
}

/* What the actions left of the packet becomes the caller's.  If it is several
 * by now (fragments of one that was reassembled), it has no place for them. */
static void
give_back(struct dp_packet *to, struct dp_packet_batch *batch)
{
    if (dp_packet_batch_size(batch) == 1) {
        dp_packet_swap(to, batch->packets[0]);
    }
    dp_packet_delete_batch(batch, true);
}

/* Nothing but outputs, which leave the packet as it is. */
static bool
only_outputs(const struct nlattr *actions, size_t len)
{
    const struct nlattr *a;
    size_t left;

    NL_ATTR_FOR_EACH_UNSAFE(a, left, actions, len)
    {
        if (nl_attr_type(a) != OVS_ACTION_ATTR_OUTPUT) {
            return false;
        }
    }
    return true;
}

static int
execute_op(struct dp_worker *w, struct dpif_execute *execute)
{
    size_t size = dp_packet_size(execute->packet);
    struct dp_packet_batch batch;
    struct dp_packet *clone;

    if (size < ETH_HEADER_LEN || size > UINT16_MAX) {
        return EINVAL;
    }
    if (execute->probe) {
        /* A question whether we could.  The packet goes nowhere. */
        return 0;
    }
    w->depth = 0;
    dp_record_execute(w, execute->packet, execute->actions, execute->actions_len);
    if (only_outputs(execute->actions, execute->actions_len)) {
        dp_packet_batch_init_packet(&batch, execute->packet);
        dp_execute(w, &batch, false, execute->actions, execute->actions_len);
        dp_record_executed(w);
        return 0;
    }
    clone =
        dp_packet_clone_with_headroom(execute->packet, MIN(EXECUTE_HEADROOM, UINT16_MAX - size));
    if (execute->hash && !dp_packet_rss_valid(clone)) {
        dp_packet_set_rss_hash(clone, execute->hash);
    }
    dp_packet_batch_init_packet(&batch, clone);
    dp_execute(w, &batch, false, execute->actions, execute->actions_len);
    dp_record_executed(w);
    give_back(execute->packet, &batch);
    return 0;
}

void
dp_execute_ops(struct dp *dp, struct dpif_op **ops, size_t n)
{
    struct dp_worker *w = NULL;

    for (size_t i = 0; i < n; i++) {
        if (ops[i]->type == DPIF_OP_EXECUTE) {
            w = w ? w : dp_borrow(dp);
            ops[i]->error = execute_op(w, &ops[i]->execute);
        }
    }
    if (w) {
        dp_return(w);
    }
}
