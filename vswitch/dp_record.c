/* Records of flows, where the datapath knows more than the engine: which rules
 * decided, and where packets went that its programs do not move by themselves.
 *
 * Rules.  An allowed connection carries the keys of the rules that allowed it
 * in its ct_label: bits 0..31 of the source's side, 32..63 of the
 * destination's.  A flow that denies, or is stateless, has an OpenFlow action
 * sample() with the rule's key as observation point and observation domain 1
 * for the source's side, 2 for the destination's.  In the datapath that is a
 * userspace action with a cookie of its own, which here is not executed but
 * said in the record: the flow's program stays what it is without it.  A
 * sample() of another domain is Open vSwitch's. */
#include <config.h>

#include "dp_record.h"

#include "ct.h"
#include "dp_flow_entry.h"
#include "fast/record.h"
#include "netlink.h"
#include "odp-netlink.h"
#include "odp-util.h"
#include "packets.h"
#include "timeval.h"
#include "util.h"

enum { DOMAIN_SOURCE = 1, DOMAIN_DESTINATION = 2 };

/* --- actions ------------------------------------------------------------------ */

static bool
note_userspace(const struct nlattr *a, struct record_way *way)
{
    const struct nlattr *data = nl_attr_find_nested(a, OVS_USERSPACE_ATTR_USERDATA);
    struct user_action_cookie cookie;

    if (!data || nl_attr_get_size(data) != sizeof cookie) {
        return false;
    }
    memcpy(&cookie, nl_attr_get(data), sizeof cookie);
    if (cookie.type != USER_ACTION_COOKIE_FLOW_SAMPLE) {
        return false;
    }
    switch (cookie.flow_sample.obs_domain_id) {
    case DOMAIN_SOURCE:
        way->rule_out = cookie.flow_sample.obs_point_id;
        return true;
    case DOMAIN_DESTINATION:
        way->rule_in = cookie.flow_sample.obs_point_id;
        return true;
    default:
        return false;
    }
}

bool
dp_record_is_note(const struct nlattr *a, struct record_way *way)
{
    const struct nlattr *nested, *b;
    unsigned left;
    bool notes = false;

    switch (nl_attr_type(a)) {
    case OVS_ACTION_ATTR_USERSPACE:
        return note_userspace(a, way);
    case OVS_ACTION_ATTR_SAMPLE:
        nested = nl_attr_find_nested(a, OVS_SAMPLE_ATTR_ACTIONS);
        if (!nested) {
            return false;
        }
        NL_NESTED_FOR_EACH(b, left, nested)
        {
            if (nl_attr_type(b) != OVS_ACTION_ATTR_USERSPACE || !note_userspace(b, way)) {
                return false;
            }
            notes = true;
        }
        return notes;
    default:
        return false;
    }
}

static void find_way(const struct nlattr *actions, size_t len, struct record_way *way);

static void
find_way_nested(const struct nlattr *nest, struct record_way *way)
{
    if (nest) {
        find_way(nl_attr_get(nest), nl_attr_get_size(nest), way);
    }
}

static void
goes_out(struct record_way *way, odp_port_t port)
{
    way->status = RECORD_FORWARDED;
    way->out = odp_to_u32(port) < ENGINE_PORTS_MAX ? odp_to_u32(port) : 0;
}

/* The first port that packets go to; a later one is a mirror's, or one of
 * many. */
static void
find_way(const struct nlattr *actions, size_t len, struct record_way *way)
{
    const struct ovs_action_push_tnl *tunnel;
    const struct nlattr *a;
    size_t left;

    NL_ATTR_FOR_EACH_UNSAFE(a, left, actions, len)
    {
        if (way->status == RECORD_FORWARDED) {
            return;
        }
        switch (nl_attr_type(a)) {
        case OVS_ACTION_ATTR_OUTPUT:
            goes_out(way, nl_attr_get_odp_port(a));
            break;
        case OVS_ACTION_ATTR_TUNNEL_PUSH:
            tunnel = nl_attr_get(a);
            goes_out(way, tunnel->tnl_port);
            break;
        case OVS_ACTION_ATTR_LB_OUTPUT: /* a bond: which member is not said */
            goes_out(way, ODPP_NONE);
            break;
        case OVS_ACTION_ATTR_USERSPACE:
            if (!dp_record_is_note(a, way)) {
                goes_out(way, ODPP_NONE);
            }
            break;
        case OVS_ACTION_ATTR_SAMPLE:
            if (!dp_record_is_note(a, way)) {
                find_way_nested(nl_attr_find_nested(a, OVS_SAMPLE_ATTR_ACTIONS), way);
            }
            break;
        case OVS_ACTION_ATTR_CLONE:
            find_way_nested(a, way);
            break;
        case OVS_ACTION_ATTR_CHECK_PKT_LEN:
            find_way_nested(nl_attr_find_nested(a, OVS_CHECK_PKT_LEN_ATTR_ACTIONS_IF_LESS_EQUAL),
                            way);
            break;
        case OVS_ACTION_ATTR_TUNNEL_POP: /* what was in it is counted there */
            goes_out(way, nl_attr_get_odp_port(a));
            break;
        case OVS_ACTION_ATTR_RECIRC: /* the next flow says */
            way->status = RECORD_UNKNOWN;
            return;
        default:
            break;
        }
    }
}

void
dp_record_find_way(const struct nlattr *actions, size_t len, struct record_way *way)
{
    memset(way, 0, sizeof *way);
    way->status = RECORD_DROPPED;
    find_way(actions, len, way);
    if (way->status == RECORD_DROPPED) {
        way->drop = RECORD_DROP_POLICY;
        way->out = ENGINE_PORTS_MAX;
    }
}

/* --- packets ---------------------------------------------------------------------- */

static void
add_label(struct record_way *way, uint64_t label)
{
    if ((uint32_t)label) {
        way->rule_out = label;
    }
    if (label >> 32) {
        way->rule_in = label >> 32;
    }
}

void
dp_record_way(struct worker *worker, const struct program *p, const void *verdict,
              struct record_way *way)
{
    const struct dp_actions *da = p->slow;
    uint64_t label;

    if (da) {
        if (p->kind == PROGRAM_SLOW || p->kind == PROGRAM_TRACK) {
            *way = da->way;
        } else {
            way->rule_out = da->way.rule_out;
            way->rule_in = da->way.rule_in;
        }
    }
    if (verdict) {
        dp_worker_rcu(dp_worker_of(worker));
        if (ct_ref_label(verdict, &label)) {
            add_label(way, label);
        }
    }
}

/* A packet that a tunnel had in it. */
static bool
came_by_tunnel(const struct dp_packet *b)
{
    return flow_tnl_dst_is_set(&b->md.tunnel);
}

static uint64_t
tunnel_key(const struct dp_packet *b)
{
    return came_by_tunnel(b) ? ntohll(b->md.tunnel.tun_id) : 0;
}

static void
record(struct dp_worker *w, uint16_t in_port, const struct dp_packet *b,
       const struct record_way *way)
{
    if (came_by_tunnel(b)) {
        worker_record_tunnel(w->worker, in_port, &b->mbuf, tunnel_key(b), way);
    } else {
        worker_record(w->worker, in_port, &b->mbuf, way);
    }
}

void
dp_record_packets(struct dp_worker *w, uint16_t in_port, const struct dp_flow *f,
                  struct dp_packet *const packets[], unsigned n)
{
    const struct record_way *way = f ? &dp_flow_actions(f)->way : NULL;

    for (unsigned i = 0; i < n; i++) {
        if (packets[i]->packet_type == htonl(PT_ETH)) {
            record(w, in_port, packets[i], way && way->status ? way : NULL);
        }
    }
}

/* The packets at hand, until others come in from a port.  By then a tag may be
 * gone from them, or an address translated. */
struct remembered {
    /* Ofproto executes on a packet of this key, counted elsewhere. */
    struct key_wide asked;
    bool executes;
    bool asks; /* and a later flow says where it goes */
    unsigned n;
    struct {
        const struct dp_packet *packet;
        struct record_ref ref;
    } packets[NETDEV_MAX_BURST];
};

static bool
find_record(struct dp_worker *w, uint16_t in_port, const struct dp_packet *b,
            struct record_ref *ref)
{
    return b->packet_type == htonl(PT_ETH) &&
           worker_record_find(w->worker, in_port, &b->mbuf, came_by_tunnel(b), tunnel_key(b), ref);
}

static struct remembered *
remembered_get(struct dp_worker *w)
{
    if (!w->record_scratch) {
        size_t size = ROUND_UP(sizeof(struct remembered), CACHE_LINE_SIZE);

        w->record_scratch = aligned_alloc(CACHE_LINE_SIZE, size);
        if (!w->record_scratch) {
            out_of_memory();
        }
        memset(w->record_scratch, 0, size);
    }
    return w->record_scratch;
}

void
dp_record_remember(struct dp_worker *w, uint16_t in_port, struct dp_packet *const packets[],
                   unsigned n)
{
    struct remembered *r = remembered_get(w);

    r->n = 0;
    for (unsigned i = 0; i < n && i < NETDEV_MAX_BURST; i++) {
        if (find_record(w, in_port, packets[i], &r->packets[r->n].ref)) {
            r->packets[r->n++].packet = packets[i];
        }
    }
}

static void
say_way(struct dp_worker *w, uint16_t in_port, const struct dp_packet *b,
        const struct record_way *way)
{
    const struct remembered *r = w->record_scratch;
    struct record_ref ref;

    for (unsigned i = 0; r && i < r->n; i++) {
        if (r->packets[i].packet == b) {
            worker_record_way(w->worker, r->packets[i].ref, way);
            return;
        }
    }
    if (r && r->asks) {
        engine_record_answer(w->dp->engine, &r->asked, way, worker_now(w->worker));
        return;
    }
    /* A copy, say. */
    if (find_record(w, in_port, b, &ref)) {
        worker_record_way(w->worker, ref, way);
    }
}

void
dp_record_outcome(struct dp_worker *w, uint16_t in_port, const struct dp_flow *f,
                  struct dp_packet *const packets[], unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const struct dp_packet *b = packets[i];
        struct record_way way = dp_flow_actions(f)->way;

        if (b->packet_type != htonl(PT_ETH) || !way.status) {
            continue;
        }
        if (b->md.ct_state) {
            add_label(&way, b->md.ct_label.u64.lo);
        }
        say_way(w, in_port, b, &way);
    }
}

/* --- ofproto's answers -------------------------------------------------------- */

static uint32_t
parse_asked(struct dp_packet *b, const struct pkt_metadata *md, struct key_wide *k)
{
    bool tunneled = flow_tnl_dst_is_set(&md->tunnel);
    uint16_t tcp_flags;
    uint8_t tos;

    return record_parse(dp_packet_data(b), dp_packet_size(b), odp_to_u32(md->in_port.odp_port),
                        tunneled ? ntohll(md->tunnel.tun_id) : 0, tunneled, k, &tcp_flags, &tos);
}

/* As the packet came in, if it has been elsewhere since. */
static void
find_asked(struct dp *dp, uint32_t recirc_id, struct key_wide *k, int64_t now)
{
    if (recirc_id) {
        engine_record_find_alias(dp->engine, k, now);
    }
}

void
dp_record_again(struct dp_worker *w, struct dp_packet *b)
{
    const struct remembered *r = w->record_scratch;
    struct key_wide seen, of;
    bool known = false;

    if (!r || b->packet_type != htonl(PT_ETH)) {
        return;
    }
    for (unsigned i = 0; !known && i < r->n; i++) {
        known = r->packets[i].packet == b && worker_record_key(w->worker, r->packets[i].ref, &of);
    }
    if (!known && r->asks) {
        of = r->asked;
        known = true;
    }
    if (known) {
        parse_asked(b, &b->md, &seen);
        engine_record_alias(w->dp->engine, &seen, &of, worker_now(w->worker));
    }
}

void
dp_record_execute(struct dp_worker *w, const struct dp_packet *b, const struct nlattr *actions,
                  size_t len)
{
    uint32_t in_port = odp_to_u32(b->md.in_port.odp_port);
    struct record_way way;
    struct remembered *r;

    if (in_port >= ENGINE_PORTS_MAX || !worker_records(w->worker, in_port) ||
        b->packet_type != htonl(PT_ETH)) {
        return;
    }
    r = remembered_get(w);
    r->n = 0;
    r->executes = true;
    parse_asked(CONST_CAST(struct dp_packet *, b), &b->md, &r->asked);
    find_asked(w->dp, b->md.recirc_id, &r->asked, worker_now(w->worker));
    dp_record_find_way(actions, len, &way);
    if (!way.status) {
        r->asks = true;
        return;
    }
    if (b->md.ct_state) {
        add_label(&way, b->md.ct_label.u64.lo);
    }
    engine_record_answer(w->dp->engine, &r->asked, &way, worker_now(w->worker));
}

void
dp_record_executed(struct dp_worker *w)
{
    struct remembered *r = w->record_scratch;

    if (r) {
        r->asks = r->executes = false;
    }
}

void
dp_record_put(struct dp *dp, const struct flow *flow, const struct dpif_flow_put *put)
{
    uint32_t in_port = odp_to_u32(flow->in_port.odp_port);
    struct pkt_metadata md;
    struct record_way way;
    struct dp_packet b;
    struct key_wide k;

    if (in_port >= ENGINE_PORTS_MAX || !engine_records(dp->engine, in_port) ||
        !(put->flags & DPIF_FP_CREATE) || put->flags & DPIF_FP_PROBE ||
        flow->packet_type != htonl(PT_ETH)) {
        return;
    }
    dp_record_find_way(put->actions, put->actions_len, &way);
    if (way.status != RECORD_DROPPED) {
        return;
    }
    if (flow->ct_state) {
        add_label(&way, flow->ct_label.u64.lo);
    }
    dp_packet_init(&b, 0);
    flow_compose(&b, flow, NULL, 0);
    pkt_metadata_from_flow(&md, flow);
    parse_asked(&b, &md, &k);
    find_asked(dp, flow->recirc_id, &k, time_msec());
    engine_record_answer(dp->engine, &k, &way, time_msec());
    dp_packet_uninit(&b);
}

void
dp_record_metered(struct dp_worker *w, struct dp_packet *b)
{
    static const struct record_way way = {
        .status = RECORD_DROPPED, .drop = RECORD_DROP_METER, .out = ENGINE_PORTS_MAX};
    uint32_t in_port = odp_to_u32(b->md.in_port.odp_port);
    const struct remembered *r = w->record_scratch;
    struct key_wide k;

    if (!r || in_port >= ENGINE_PORTS_MAX || !worker_records(w->worker, in_port) ||
        b->packet_type != htonl(PT_ETH)) {
        return;
    }
    if (r->executes) {
        engine_record_answer(w->dp->engine, &r->asked, &way, worker_now(w->worker));
        return;
    }
    for (unsigned i = 0; i < r->n; i++) { /* a copy is not there, and goes on as another */
        if (r->packets[i].packet == b) {
            worker_record_metered(w->worker, r->packets[i].ref, parse_asked(b, &b->md, &k));
            return;
        }
    }
}

void
dp_record_lost(struct dp_worker *w, uint16_t in_port, const struct dp_packet *b)
{
    static const struct record_way way = {
        .status = RECORD_DROPPED, .drop = RECORD_DROP_UPCALL, .out = ENGINE_PORTS_MAX};

    say_way(w, in_port, b, &way);
}
