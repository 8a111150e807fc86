/* diff_ofproto: the part of ofproto in test_dp_differential.c: takes upcalls,
 * installs megaflows, revalidates them, and credits their counters to the
 * rules that they stand for.  As ofproto-dpif-upcall.c does it. */
#ifndef DIFF_OFPROTO_H
#define DIFF_OFPROTO_H

#include <errno.h>
#include <stdlib.h>

#include "check.h"
#include "dp.h"
#include "netlink.h"
#include "odp-netlink.h"
#include "odp-util.h"
#include "of_table.h"
#include "openvswitch/dynamic-string.h"

/* A rule's packets leave through a port of its own. */
#define SINK 999u
#define FIRST_PORT 1000u
#define PORT_OF(rule) (FIRST_PORT + (rule)->table * OF_RULES_MAX + (rule)->slot)
#define N_PORTS (OF_TABLES * OF_RULES_MAX)

/* A megaflow as ofproto remembers it. */
struct ukey {
    struct ofpbuf key, mask;
    ovs_u128 ufid;
    struct flow flow; /* what they mean */
    struct flow_wildcards wc;
    struct of_rule *rule;
    uint64_t packets, bytes; /* already credited */
};

static struct dp *dp;
static struct dpif_weft dpif;
static struct of_tables tables;
static struct ukey *ukeys;
static size_t n_ukeys, allocated_ukeys;

static struct {
    uint64_t upcalls, unfit, installed, revalidated, deleted, modified;
} of_seen;

/* As the datapath should see it. */
static bool
ukey_matches(const struct ukey *u, const struct flow *flow)
{
    /* A key without a tag demands that there is none. */
    ovs_be16 tag = u->wc.masks.vlans[0].tci ? 0 : htons(VLAN_VID_MASK | VLAN_CFI);

    return !((flow->vlans[0].tci ^ u->flow.vlans[0].tci) & tag) &&
           flow_equal_except(&u->flow, flow, &u->wc);
}

static void
report_ukey(const struct ukey *u, const struct flow *flow)
{
    struct ds s = DS_EMPTY_INITIALIZER;

    if (ukey_matches(u, flow)) {
        odp_flow_format(u->key.data, u->key.size, u->mask.data, u->mask.size, NULL, &s, false);
        printf("# megaflow of rule %u of table %u: %s\n", u->rule->slot, u->rule->table,
               ds_cstr(&s));
    }
    ds_destroy(&s);
}

static void
put_actions(const struct of_rule *r, struct ofpbuf *a)
{
    struct ovs_action_push_vlan vlan = {htons(ETH_TYPE_VLAN), r->tci};
    struct ovs_key_ethernet set[2];
    size_t ofs;

    switch (r->action) {
    case OF_DROP:
        return;
    case OF_DROP_EXPLICIT:
        nl_msg_put_u32(a, OVS_ACTION_ATTR_DROP, 1);
        return;
    case OF_PUSH_VLAN:
    case OF_PUSH_RECIRC:
        nl_msg_put_unspec(a, OVS_ACTION_ATTR_PUSH_VLAN, &vlan, sizeof vlan);
        break;
    case OF_POP_VLAN:
        nl_msg_put_flag(a, OVS_ACTION_ATTR_POP_VLAN);
        break;
    case OF_SET_ETH:
        memset(set, 0, sizeof set);
        set[0].eth_dst = r->eth_dst;
        set[1].eth_dst = eth_addr_exact;
        ofs = nl_msg_start_nested(a, OVS_ACTION_ATTR_SET_MASKED);
        nl_msg_put_unspec(a, OVS_KEY_ATTR_ETHERNET, set, sizeof set);
        nl_msg_end_nested(a, ofs);
        break;
    case OF_TWO_OUTPUTS:
        nl_msg_put_u32(a, OVS_ACTION_ATTR_OUTPUT, SINK);
        break;
    case OF_OUTPUT:
    case OF_RECIRC:
    case OF_N_ACTIONS:
        break;
    }
    if (r->action == OF_RECIRC || r->action == OF_PUSH_RECIRC) {
        nl_msg_put_u32(a, OVS_ACTION_ATTR_RECIRC, r->recirc_id);
    } else {
        nl_msg_put_u32(a, OVS_ACTION_ATTR_OUTPUT, PORT_OF(r));
    }
}

static int
put_flow(const struct ukey *u, enum dpif_flow_put_flags flags)
{
    uint64_t stub[256 / 8];
    struct ofpbuf actions;
    int error;

    ofpbuf_use_stub(&actions, stub, sizeof stub);
    put_actions(u->rule, &actions);
    error = dp_flow_put(dp, &(struct dpif_flow_put){
                                .flags = flags,
                                .key = u->key.data,
                                .key_len = u->key.size,
                                .mask = u->mask.data,
                                .mask_len = u->mask.size,
                                .actions = actions.data,
                                .actions_len = actions.size,
                                .ufid = &u->ufid,
                                .pmd_id = PMD_ID_NULL,
                            });
    ofpbuf_uninit(&actions);
    return error;
}

static void
ukey_uninit(struct ukey *u)
{
    ofpbuf_uninit(&u->key);
    ofpbuf_uninit(&u->mask);
}

static void
install(const struct dpif_upcall *up, const struct flow *flow, struct flow_wildcards *wc,
        struct of_rule *r)
{
    struct odp_flow_key_parms parms = {.flow = flow, .mask = &wc->masks, .support = dp_odp_support};
    struct ukey u = {.rule = r, .flow = *flow};
    int error;

    ofpbuf_init(&u.key, 256);
    ofpbuf_init(&u.mask, 256);
    ofpbuf_put(&u.key, up->key, up->key_len);
    parms.key_buf = &u.key;
    odp_flow_key_from_mask(&parms, &u.mask);
    CHECK(odp_flow_key_to_mask(u.mask.data, u.mask.size, &u.wc, flow, NULL) != ODP_FIT_ERROR);
    odp_flow_key_hash(u.key.data, u.key.size, &u.ufid);
    error = put_flow(&u, DPIF_FP_CREATE);
    if (error) {
        CHECK(error == EEXIST);
        ukey_uninit(&u);
        return;
    }
    if (n_ukeys == allocated_ukeys) {
        ukeys = x2nrealloc(ukeys, &allocated_ukeys, sizeof *ukeys);
    }
    ukeys[n_ukeys++] = u;
    of_seen.installed++;
}

static void
credit(struct ukey *u, const struct dpif_flow_stats *s)
{
    CHECK(s->n_packets >= u->packets && s->n_bytes >= u->bytes);
    u->rule->got_packets += s->n_packets - u->packets;
    u->rule->got_bytes += s->n_bytes - u->bytes;
    u->packets = s->n_packets;
    u->bytes = s->n_bytes;
}

static void
credit_all(void)
{
    uint64_t stub[DPIF_FLOW_BUFSIZE / 8];

    for (size_t i = 0; i < n_ukeys; i++) {
        struct dpif_flow f;
        struct ofpbuf buf;
        ofpbuf_use_stub(&buf, stub, sizeof stub);
        int error = dp_flow_get(dp, &(struct dpif_flow_get){.key = ukeys[i].key.data,
                                                            .key_len = ukeys[i].key.size,
                                                            .ufid = &ukeys[i].ufid,
                                                            .pmd_id = PMD_ID_NULL,
                                                            .buffer = &buf,
                                                            .flow = &f});
        CHECK(!error);
        if (!error) {
            credit(&ukeys[i], &f.stats);
        }
        ofpbuf_uninit(&buf);
    }
}

/* Whether the megaflow may stay; with the rule it now stands for. */
static bool
revalidate(struct ukey *u)
{
    struct flow_wildcards wc;
    struct of_rule *r = of_translate(&tables, &u->flow, &wc);

    of_seen.revalidated++;
    if (flow_wildcards_has_extra(&u->wc, &wc)) {
        return false;
    }
    if (r != u->rule) {
        u->rule = r;
        CHECK(!put_flow(u, DPIF_FP_MODIFY));
        of_seen.modified++;
    }
    return true;
}

/* Deletes those that fail, or all.  Their counters are final and credited. */
static void
revalidate_all(bool all)
{
    struct dpif_op *ops = xmalloc(n_ukeys * sizeof *ops), **opsp = xmalloc(n_ukeys * sizeof *opsp);
    struct dpif_flow_stats *stats = xmalloc(n_ukeys * sizeof *stats);
    struct ukey *gone = xmalloc(n_ukeys * sizeof *gone);
    size_t kept = 0, n = 0;

    for (size_t i = 0; i < n_ukeys; i++) {
        if (!all && revalidate(&ukeys[i])) {
            ukeys[kept++] = ukeys[i];
            continue;
        }
        gone[n] = ukeys[i];
        ops[n] = (struct dpif_op){.type = DPIF_OP_FLOW_DEL,
                                  .flow_del = {.key = gone[n].key.data,
                                               .key_len = gone[n].key.size,
                                               .ufid = &gone[n].ufid,
                                               .pmd_id = PMD_ID_NULL,
                                               .stats = &stats[n]}};
        opsp[n] = &ops[n];
        n++;
    }
    dp_flow_del_batch(dp, opsp, n);
    for (size_t i = 0; i < n; i++) {
        CHECK(!ops[i].error);
        CHECK(stats[i].n_packets == gone[i].packets);
        ukey_uninit(&gone[i]);
    }
    n_ukeys = kept;
    of_seen.deleted += n;
    free(ops);
    free(opsp);
    free(stats);
    free(gone);
}

/* One packet that missed: its megaflow, its rule's count, and its way on. */
static void
handle(struct dpif_upcall *up)
{
    struct flow_wildcards wc;
    struct flow flow, extracted;
    uint64_t stub[256 / 8];
    struct ofpbuf actions;
    struct of_rule *r;

    of_seen.upcalls++;
    CHECK(up->type == DPIF_UC_MISS);
    enum odp_key_fitness fit = odp_flow_key_to_flow(up->key, up->key_len, &flow, NULL);
    pkt_metadata_from_flow(&up->packet.md, &flow);
    flow_extract(&up->packet, &extracted);
    r = of_translate(&tables, &flow, &wc);
    if (fit == ODP_FIT_PERFECT) {
        install(up, &flow, &wc, r);
    } else {
        of_seen.unfit++;
    }
    /* Netlink keys cannot say all that a truncated packet may be: MPLS without
     * the last label, the type of a tag without a tag.  The latter's flow gets
     * a megaflow that no packet matches. */
    if (fit != ODP_FIT_PERFECT || (eth_type_vlan(extracted.dl_type) && !flow.dl_type)) {
        r = of_translate(&tables, &extracted, &wc);
    }
    if (r != of_linear(&tables, &extracted)) {
        char *a = flow_to_string(&flow, NULL), *b = flow_to_string(&extracted, NULL);
        printf("# upcall's flow:  %s\n# packet's: %s\n", a, b);
        free(a);
        free(b);
        CHECK(!"the slow path agrees with the linear search");
    }
    r->got_packets++;
    r->got_bytes += dp_packet_size(&up->packet);

    ofpbuf_use_stub(&actions, stub, sizeof stub);
    put_actions(r, &actions);
    if (actions.size) {
        struct dpif_op op = {.type = DPIF_OP_EXECUTE,
                             .execute = {.actions = actions.data,
                                         .actions_len = actions.size,
                                         .packet = &up->packet,
                                         .flow = &flow}};

        dp_execute_ops(dp, (struct dpif_op *[]){&op}, 1);
        CHECK(!op.error);
    }
    ofpbuf_uninit(&actions);
}

static void
handle_all(void)
{
    for (;;) {
        struct dpif_upcall up;
        uint64_t stub[1024 / 8];
        struct ofpbuf buf;

        ofpbuf_use_stub(&buf, stub, sizeof stub);
        if (dp_upcall_recv(&dpif.dpif, 0, &up, &buf)) {
            ofpbuf_uninit(&buf);
            return;
        }
        handle(&up);
        dp_packet_uninit(&up.packet);
        ofpbuf_uninit(&buf);
    }
}

#endif
