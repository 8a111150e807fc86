/* A megaflow's actions as a program of the engine.
 *
 * The engine does itself what is plain: drop, output, a few edits of the
 * Ethernet header before one output, and a connection's fast track.  A program
 * of those kinds must treat a packet exactly as odp-execute.c would; whatever
 * is not certain to be that is PROGRAM_SLOW.
 *
 * Explicit drops.  Open vSwitch counts packets of a drop action by reason
 * (coverage/show, drop_action_*), inside odp_execute_actions().  The engine
 * drops without that call, so the counts are made good whenever the flow's
 * statistics are read: revalidators do that twice a second, and a flow's end
 * is the last time.  Until then the counters lag, they lose nothing. */
#include <config.h>

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "dp_flow_entry.h"
#include "dp_record.h"
#include "netlink.h"
#include "odp-execute.h"
#include "odp-netlink.h"
#include "openvswitch/dynamic-string.h"
#include "packets.h"
#include "util.h"

/* The compiler's state: what it has so far. */
struct compiler {
    enum program_kind kind;
    odp_port_t port;
    unsigned n_edits;
    struct edit edits[PROGRAM_EDITS_MAX];
    const struct nlattr *ct;
    uint32_t recirc_id;
    bool notes; /* actions that only name a rule */
};

static bool
has_size(const struct nlattr *a, size_t size)
{
    return nl_attr_get_size(a) == size;
}

static struct edit *
add_edit(struct compiler *c, enum edit_type type)
{
    struct edit *e;

    if (c->n_edits >= PROGRAM_EDITS_MAX) {
        return NULL;
    }
    e = &c->edits[c->n_edits++];
    memset(e, 0, sizeof *e);
    e->type = type;
    return e;
}

static bool
compile_push_vlan(struct compiler *c, const struct nlattr *a)
{
    const struct ovs_action_push_vlan *push;
    struct edit *e;

    if (!has_size(a, sizeof *push)) {
        return false;
    }
    push = nl_attr_get(a);
    if (!eth_type_vlan(push->vlan_tpid)) {
        return false;
    }
    e = add_edit(c, EDIT_PUSH_VLAN);
    if (!e) {
        return false;
    }
    /* In actions the CFI bit says "there is a tag"; it never leaves. */
    e->vlan.tpid = push->vlan_tpid;
    e->vlan.tci = push->vlan_tci & htons(~VLAN_CFI);
    return true;
}

/* A set action of Ethernet addresses; 'mask' NULL: all bits. */
static bool
compile_set_eth(struct compiler *c, const struct ovs_key_ethernet *key,
                const struct ovs_key_ethernet *mask)
{
    struct edit *e = add_edit(c, EDIT_SET_ETH);

    if (!e) {
        return false;
    }
    /* The key has the source first, a frame the destination. */
    memcpy(e->eth.value, &key->eth_dst, ETH_ADDR_LEN);
    memcpy(e->eth.value + ETH_ADDR_LEN, &key->eth_src, ETH_ADDR_LEN);
    if (mask) {
        memcpy(e->eth.mask, &mask->eth_dst, ETH_ADDR_LEN);
        memcpy(e->eth.mask + ETH_ADDR_LEN, &mask->eth_src, ETH_ADDR_LEN);
    } else {
        memset(e->eth.mask, 0xff, sizeof e->eth.mask);
    }
    for (unsigned i = 0; i < sizeof e->eth.value; i++) {
        e->eth.value[i] &= e->eth.mask[i];
    }
    return true;
}

static bool
compile_set(struct compiler *c, const struct nlattr *set)
{
    bool masked = nl_attr_type(set) == OVS_ACTION_ATTR_SET_MASKED;
    const struct nlattr *a = nl_attr_get(set);
    const struct ovs_key_ethernet *key;

    if (nl_attr_get_size(set) < NLA_HDRLEN || nl_attr_type(a) != OVS_KEY_ATTR_ETHERNET ||
        a->nla_len != NLA_HDRLEN + sizeof *key * (masked ? 2 : 1) ||
        nl_attr_get_size(set) < a->nla_len) {
        return false;
    }
    key = nl_attr_get(a);
    return compile_set_eth(c, key, masked ? key + 1 : NULL);
}

/* Tracking that neither creates nor changes a connection, so that what it says
 * about an established one may be known beforehand. */
static bool
ct_only_looks(const struct nlattr *ct)
{
    const struct nlattr *a;
    unsigned left;

    NL_NESTED_FOR_EACH_UNSAFE(a, left, ct)
    {
        if (nl_attr_type(a) != OVS_CT_ATTR_ZONE || !has_size(a, sizeof(uint16_t))) {
            return false;
        }
    }
    return true;
}

/* Says whether the engine can do all of it. */
static bool
compile(struct compiler *c, const struct nlattr *actions, size_t len)
{
    const struct nlattr *a;
    unsigned left;
    struct record_way ignored;
    bool ended = false;

    memset(c, 0, sizeof *c);
    c->kind = PROGRAM_DROP;
    NL_ATTR_FOR_EACH(a, left, actions, len)
    {
        if (dp_record_is_note(a, &ignored)) {
            c->notes = true;
            continue;
        }
        if (ended) {
            return false;
        }
        switch ((enum ovs_action_attr)nl_attr_type(a)) {
        case OVS_ACTION_ATTR_DROP:
            if (a != actions || !has_size(a, sizeof(uint32_t))) {
                return false;
            }
            ended = true;
            break;
        case OVS_ACTION_ATTR_OUTPUT:
            if (c->ct || !has_size(a, sizeof(uint32_t))) {
                return false;
            }
            c->port = nl_attr_get_odp_port(a);
            if (odp_to_u32(c->port) >= ENGINE_PORTS_MAX) {
                return false;
            }
            c->kind = c->n_edits ? PROGRAM_EDIT : PROGRAM_OUTPUT;
            ended = true;
            break;
        case OVS_ACTION_ATTR_PUSH_VLAN:
            if (c->ct || !compile_push_vlan(c, a)) {
                return false;
            }
            break;
        case OVS_ACTION_ATTR_POP_VLAN:
            if (c->ct || !add_edit(c, EDIT_POP_VLAN)) {
                return false;
            }
            break;
        case OVS_ACTION_ATTR_SET:
        case OVS_ACTION_ATTR_SET_MASKED:
            if (c->ct || !compile_set(c, a)) {
                return false;
            }
            break;
        case OVS_ACTION_ATTR_CT:
            if (c->ct || c->n_edits || !ct_only_looks(a)) {
                return false;
            }
            c->ct = a;
            break;
        case OVS_ACTION_ATTR_RECIRC:
            if (!c->ct || !has_size(a, sizeof(uint32_t))) {
                return false;
            }
            c->kind = PROGRAM_TRACK;
            c->recirc_id = nl_attr_get_u32(a);
            ended = true;
            break;
        default:
            return false;
        }
    }
    /* Edits or tracking that nothing follows have no effect that could be
     * seen, but are too rare to be thought about. */
    return !left && (ended || !len || (c->notes && !c->n_edits && !c->ct));
}

struct program *
dp_actions_compile(struct dp_flow *flow, const struct nlattr *actions, size_t len)
{
    struct compiler c;
    struct program *p;
    struct dp_actions *da;
    size_t edits_size;

    if (!compile(&c, actions, len)) {
        memset(&c, 0, sizeof c);
        c.kind = PROGRAM_SLOW;
    }

    /* All in one: whoever sets up many flows pays for each allocation. */
    edits_size = ROUND_UP(c.n_edits * sizeof p->edits[0], 8);
    p = xzalloc(sizeof *p + edits_size + sizeof *da + len);
    p->kind = c.kind;
    p->n_edits = c.n_edits;
    p->port = odp_to_u32(c.port);
    memcpy(p->edits, c.edits, c.n_edits * sizeof p->edits[0]);

    da = (struct dp_actions *)((char *)(p + 1) + edits_size);
    da->program = p;
    da->flow = flow;
    da->len = len;
    if (len) {
        da->actions = memcpy(da + 1, actions, len);
    }
    dp_record_find_way(da->actions, len, &da->way);
    if (c.ct) {
        da->ct = da->actions + ((const char *)c.ct - (const char *)actions) / sizeof *da->actions;
        da->recirc_id = c.recirc_id;
    }
    p->slow = da;
    return p;
}

void
dp_actions_free(struct program *p)
{
    free(p);
}

const struct dp_actions *
dp_flow_actions(const struct dp_flow *flow)
{
    const struct program *p = atomic_load_explicit(
        &CONST_CAST(struct dp_flow *, flow)->fast.program, memory_order_acquire);

    return p->slow;
}

/* --- explicit drops -------------------------------------------------------- */

/* Has odp-execute.c count 'n' packets of a drop action: with 'steal' false it
 * looks at nothing of the batch but its size. */
static void
count_drops(const struct dp_actions *da, uint64_t n)
{
    struct dp_packet_batch batch;

    dp_packet_batch_init(&batch);
    while (n) {
        batch.count = MIN(n, INT_MAX);
        odp_execute_actions(NULL, &batch, false, da->actions, da->len, NULL);
        n -= batch.count;
    }
}

static bool
is_explicit_drop(const struct dp_actions *da)
{
    return da->program->kind == PROGRAM_DROP && da->len &&
           nl_attr_type(da->actions) == OVS_ACTION_ATTR_DROP;
}

static void
tell_drops(const struct dp_flow *flow, uint64_t packets)
{
    struct dp_flow_entry *e = dp_flow_entry_of(flow);
    const struct dp_actions *da = dp_flow_actions(flow);
    uint64_t told = atomic_load_explicit(&e->drops_told, memory_order_relaxed);

    /* Whoever raises the count tells the difference. */
    do {
        if (told >= packets) {
            return;
        }
    } while (!atomic_compare_exchange_weak_explicit(&e->drops_told, &told, packets,
                                                    memory_order_relaxed, memory_order_relaxed));
    if (is_explicit_drop(da)) {
        count_drops(da, packets - told);
    }
}

void
dp_actions_tell_drops(const struct dp_flow *flow, uint64_t packets)
{
    const struct dp_actions *da = dp_flow_actions(flow);

    if (is_explicit_drop(da)) {
        tell_drops(flow, packets);
    }
}

void
dp_actions_switch_drops(const struct dp_flow *flow, uint64_t packets)
{
    tell_drops(flow, packets);
}
