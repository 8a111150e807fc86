/* The fixed part of the pipeline, and what a host has of its own.
 *
 * The fixed flows are written as ovs-ofctl has them, for they are read more
 * often than they are computed.  docs/controller.md says what registers and
 * kinds mean; the numbers are those of compile_impl.h. */
#include <config.h>

#include "compile_impl.h"
#include "flow.h"
#include "openvswitch/match.h"
#include "openvswitch/ofp-flow.h"
#include "util.h"

/* Whose the connection will be. */
#define BETWEEN "move:NXM_NX_REG14[]->NXM_NX_REG11[],move:NXM_NX_REG15[]->NXM_NX_REG12[],"

static const char *const pipeline[] = {
    /* A vif sends no tags and no protocols of bridges: 802.1D, LACP, EAPOL, LLDP,
     * GARP, CFM, pause frames, Cisco's; and whatever its address, not as itself. */
    "table=10,priority=65000,vlan_tci=0x1000/0x1000,actions=drop",
    "table=10,priority=64000,dl_dst=01:80:c2:00:00:00/ff:ff:ff:ff:ff:c0,actions=drop",
    "table=10,priority=64000,dl_dst=01:00:0c:cc:cc:cc/ff:ff:ff:ff:ff:fe,actions=drop",
    "table=10,priority=64000,dl_type=0x8808,actions=drop",
    "table=10,priority=64000,dl_type=0x8809,actions=drop",
    "table=10,priority=64000,dl_type=0x888e,actions=drop",
    "table=10,priority=64000,dl_type=0x8902,actions=drop",
    "table=10,priority=64000,dl_type=0x88cc,actions=drop",

    /* Neighbour discovery in fragments is never genuine (RFC 6980); a target of ::
     * is what the switch sees of a malformed message. */
    "table=11,priority=400,icmp6,icmp_type=133,nw_frag=yes,actions=drop",
    "table=11,priority=400,icmp6,icmp_type=134,nw_frag=yes,actions=drop",
    "table=11,priority=400,icmp6,icmp_type=135,nw_frag=yes,actions=drop",
    "table=11,priority=400,icmp6,icmp_type=136,nw_frag=yes,actions=drop",
    "table=11,priority=400,icmp6,icmp_type=137,nw_frag=yes,actions=drop",
    "table=11,priority=400,icmp6,nw_frag=later,actions=drop",
    "table=11,priority=400,icmp6,icmp_type=135,nd_target=::,actions=drop",
    "table=11,priority=400,icmp6,icmp_type=136,nd_target=::,actions=drop",
    "table=11,priority=100,icmp6,icmp_type=135,actions=drop",
    "table=11,priority=100,icmp6,icmp_type=136,actions=drop",
    "table=11,priority=1,actions=goto_table:15",

    /* What a tag hides is not looked into further. */
    "table=15,priority=400,vlan_tci=0x1000/0x1000,actions=drop",
    "table=15,priority=400,dl_type=0x8100,actions=drop",
    "table=15,priority=400,dl_type=0x88a8,actions=drop",
    /* Address resolution and multicast listeners: no rule speaks of them. */
    "table=15,priority=300,arp,actions=set_field:1->reg5,goto_table:20",
    "table=15,priority=300,rarp,actions=set_field:1->reg5,goto_table:20",
    "table=15,priority=300,icmp6,icmp_type=130,actions=set_field:1->reg5,goto_table:20",
    "table=15,priority=300,icmp6,icmp_type=131,actions=set_field:1->reg5,goto_table:20",
    "table=15,priority=300,icmp6,icmp_type=132,actions=set_field:1->reg5,goto_table:20",
    "table=15,priority=300,icmp6,icmp_type=133,actions=set_field:1->reg5,goto_table:20",
    "table=15,priority=300,icmp6,icmp_type=134,actions=set_field:1->reg5,goto_table:20",
    "table=15,priority=300,icmp6,icmp_type=135,actions=set_field:1->reg5,goto_table:20",
    "table=15,priority=300,icmp6,icmp_type=136,actions=set_field:1->reg5,goto_table:20",
    "table=15,priority=300,icmp6,icmp_type=137,actions=set_field:1->reg5,goto_table:20",
    "table=15,priority=300,icmp6,icmp_type=143,actions=set_field:1->reg5,goto_table:20",
    /* Multicast, and what is not IP, has no connections. */
    "table=15,priority=200,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,"
    "actions=set_field:2->reg5,resubmit(,50),goto_table:20",
    "table=15,priority=100,ip,actions=set_field:3->reg5,goto_table:20",
    "table=15,priority=100,ipv6,actions=set_field:3->reg5,goto_table:20",
    "table=15,priority=1,actions=set_field:2->reg5,resubmit(,50),goto_table:20",

    "table=22,priority=65000,reg0=3,reg5=2,actions=drop",

    /* Split horizon; isolated ports; then by kind. */
    "table=25,priority=400,reg14=0,reg15=0xffffff00,actions=drop",
    "table=25,priority=400,reg14=0,reg15=0xffffff01,actions=drop",
    "table=25,priority=300,reg6=1,reg7=1,actions=drop",
    "table=25,priority=100,reg5=1,actions=goto_table:60",
    "table=25,priority=100,reg5=2,actions=resubmit(,51),goto_table:55",
    "table=25,priority=100,reg5=3,ip,actions=ct(table=40,zone=NXM_NX_REG13[0..15])",
    "table=25,priority=100,reg5=3,ipv6,actions=ct(table=40,zone=NXM_NX_REG13[0..15])",

    /* Above these, at 150, each network passes connections of its present epoch. */
    "table=40,priority=200,ct_state=+inv+trk,actions=drop",
    "table=40,priority=110,ct_state=+new+trk,ip,nw_frag=later,"
    "actions=" BETWEEN "resubmit(,50,ct),resubmit(,51,ct),goto_table:55",
    "table=40,priority=110,ct_state=+new+trk,ipv6,nw_frag=later,"
    "actions=" BETWEEN "resubmit(,50,ct),resubmit(,51,ct),goto_table:55",
    "table=40,priority=100,ct_state=+new+trk,"
    "actions=" BETWEEN "resubmit(,50),resubmit(,51),goto_table:55",
    "table=40,priority=90,ct_state=+est+trk,actions=goto_table:43",

    /* A connection is that of the vifs in its label; each local vif has flows of
     * its own here.  Who is not on this host cannot be told apart. */
    "table=41,priority=100,reg14=0,ct_state=-rpl,"
    "ct_label=0/0xffffffff0000000000000000,actions=goto_table:42",
    "table=41,priority=100,reg14=0,ct_state=-rpl,"
    "ct_label=0xffffff000000000000000000/0xffffff000000000000000000,actions=goto_table:42",
    "table=41,priority=100,reg14=0,ct_state=+rpl,"
    "ct_label=0/0xffffffff000000000000000000000000,actions=goto_table:42",
    "table=41,priority=100,reg14=0,ct_state=+rpl,"
    "ct_label=0xffffff00000000000000000000000000/0xffffff00000000000000000000000000,"
    "actions=goto_table:42",
    "table=41,priority=1,actions=goto_table:43",
    "table=42,priority=100,reg15=0xffffff00/0xffffff00,ct_state=-rpl,"
    "ct_label=0/0xffffffff000000000000000000000000,actions=goto_table:60",
    "table=42,priority=100,reg15=0xffffff00/0xffffff00,ct_state=-rpl,"
    "ct_label=0xffffff00000000000000000000000000/0xffffff00000000000000000000000000,"
    "actions=goto_table:60",
    "table=42,priority=100,reg15=0xffffff00/0xffffff00,ct_state=+rpl,"
    "ct_label=0/0xffffffff0000000000000000,actions=goto_table:60",
    "table=42,priority=100,reg15=0xffffff00/0xffffff00,ct_state=+rpl,"
    "ct_label=0xffffff000000000000000000/0xffffff000000000000000000,actions=goto_table:60",
    "table=42,priority=1,actions=goto_table:43",

    /* An older epoch, or other vifs: what would policy say of the connection's first
     * packet? */
    "table=43,priority=100,ct_state=+est-rpl+trk,"
    "actions=" BETWEEN "resubmit(,50,ct),resubmit(,51,ct),goto_table:55",
    "table=43,priority=100,ct_state=+est+rpl+trk,"
    "actions=push:NXM_NX_REG14[],push:NXM_NX_REG15[],pop:NXM_NX_REG14[],pop:NXM_NX_REG15[]," BETWEEN
    "resubmit(,50,ct),resubmit(,51,ct),"
    "push:NXM_NX_REG14[],push:NXM_NX_REG15[],pop:NXM_NX_REG14[],pop:NXM_NX_REG15[],"
    "goto_table:55",
    "table=40,priority=80,ct_state=+rel-rpl+trk,"
    "actions=set_field:2->reg5,resubmit(,50,ct),resubmit(,51,ct),goto_table:55",
    "table=40,priority=80,ct_state=+rel+rpl+trk,"
    "actions=set_field:2->reg5,"
    "push:NXM_NX_REG14[],push:NXM_NX_REG15[],pop:NXM_NX_REG14[],pop:NXM_NX_REG15[],"
    "resubmit(,50,ct),resubmit(,51,ct),"
    "push:NXM_NX_REG14[],push:NXM_NX_REG15[],pop:NXM_NX_REG14[],pop:NXM_NX_REG15[],"
    "goto_table:55",

    /* A side that is no vif of this host has no say here. */
    "table=50,priority=65535,reg14=0,actions=set_field:4->reg0,set_field:0->reg1",
    "table=50,priority=65535,reg14=0xffffff00/0xffffff00,"
    "actions=set_field:4->reg0,set_field:0->reg1",
    "table=51,priority=65535,reg15=0,actions=set_field:4->reg3,set_field:0->reg2",
    "table=51,priority=65535,reg15=0xffffff00/0xffffff00,"
    "actions=set_field:4->reg3,set_field:0->reg2",

    /* At 101 and 100 each network commits what a stateful rule passes. */
    "table=55,priority=200,reg0=3,actions=drop",
    "table=55,priority=199,reg3=3,actions=drop",
    "table=55,priority=198,reg0=0,actions=drop",
    "table=55,priority=197,reg3=0,actions=drop",
    "table=55,priority=150,reg5=2,actions=goto_table:60",
    "table=55,priority=50,reg0=1,actions=drop",
    "table=55,priority=50,reg3=1,actions=drop",
    "table=55,priority=1,actions=goto_table:60",
};

static void
add_text(struct compile *c, const char *text, struct flows *out)
{
    enum ofputil_protocol usable;
    struct ofputil_flow_mod fm;
    struct match match;
    char *error = parse_ofp_str(&fm, OFPFC_ADD, text, NULL, NULL, &usable);

    if (error) {
        ovs_fatal(0, "%s: %s", text, error);
    }
    minimatch_expand(&fm.match, &match);
    /* ovs-ofctl adds it; to a switch it is another flow then. */
    match.wc.masks.packet_type = 0;
    flows_add(out, pflow_create(fm.table_id, fm.priority, flow_cookie(FLOW_BASE, 0), &match,
                                fm.ofpacts, fm.ofpacts_len));
    c->stats.flows++;
    minimatch_destroy(&fm.match);
    free(fm.ofpacts);
}

void
make_pipeline(struct compile *c, struct flows *out, enum model_action default_action)
{
    uint32_t verdict = default_action == MODEL_ALLOW ? PASS_STATEFUL : REFUSED;
    struct build b;

    for (size_t i = 0; i < ARRAY_SIZE(pipeline); i++) {
        add_text(c, pipeline[i], out);
    }
    build_init(&b, c, out, flow_cookie(FLOW_DEFAULT, 0));
    act_reg(&b, REG_OUT, verdict);
    act_reg(&b, REG_OUT_RULE, 0);
    emit(&b, TBL_POLICY_OUT, 0);
    act_reg(&b, REG_IN, verdict);
    act_reg(&b, REG_IN_RULE, 0);
    emit(&b, TBL_POLICY_IN, 0);
    build_uninit(&b);
}

/* A mirror's copies, to the uplink and nowhere else. */
static void
make_span(struct build *b, const struct cspan *span, uint32_t uplink)
{
    ovs_be16 vid = htons(span->vlan | VLAN_CFI);

    fm_in_port(&b->m, u16_to_ofp(span->ofport));
    ofpact_put_PUSH_VLAN(&b->acts)->ethertype = htons(ETH_TYPE_VLAN_8021Q);
    act_field(b, MFF_VLAN_VID, &vid);
    act_output(b, uplink);
    emit(b, TBL_CLASSIFY, 1000);
}

/* The host's own traffic, tunnels' outer packets among it: untagged between
 * its stack and the uplink, and nowhere else. */
void
make_base(struct compile *c, const struct chost *h, struct flows *out)
{
    uint32_t ports[2] = {ofp_to_u16(OFPP_LOCAL), h->uplink};
    struct build b;

    if (!h->uplink) {
        return;
    }
    build_init(&b, c, out, flow_cookie(FLOW_BASE, h->key));
    for (unsigned i = 0; i < 2; i++) {
        fm_in_port(&b.m, u16_to_ofp(ports[i]));
        fm_no_vlan(&b.m);
        act_output(&b, ports[!i]);
        emit(&b, TBL_CLASSIFY, 900);
    }
    for (size_t i = 0; i < h->n_spans; i++) {
        make_span(&b, &h->spans[i], h->uplink);
    }
    build_uninit(&b);
}

/* Packets come through tunnels from hosts of the pool only, and go to those. */
void
make_peer(struct compile *c, const struct chost *h, const struct chost *peer, struct flows *out)
{
    bool v4 = IN6_IS_ADDR_V4MAPPED(&peer->tunnel_ip);
    ovs_be32 ip4 = v4 ? in6_addr_get_mapped_ipv4(&peer->tunnel_ip) : 0;
    struct build b;

    build_init(&b, c, out, flow_cookie(FLOW_BASE, peer->key));
    for (unsigned i = 0; i < ARRAY_SIZE(h->tunnel); i++) {
        if (h->tunnel[i]) {
            fm_in_port(&b.m, u16_to_ofp(h->tunnel[i]));
            if (v4) {
                fm_tun_src(&b.m, ip4);
            } else {
                fm_tun_ipv6_src(&b.m, &peer->tunnel_ip);
            }
            act_goto(&b, TBL_TUNNEL_IN);
            emit(&b, TBL_CLASSIFY, 1000);
        }
    }
    fm_reg(&b.m, REG_DST, DST_TUNNEL);
    fm_reg(&b.m, REG_PEER, peer->key);
    if (v4) {
        act_field(&b, MFF_TUN_DST, &ip4);
    } else {
        act_field(&b, MFF_TUN_IPV6_DST, &peer->tunnel_ip);
    }
    act_goto(&b, TBL_TUNNEL_OUT);
    emit(&b, TBL_OUTPUT, 100);
    build_uninit(&b);
}
