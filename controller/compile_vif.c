/* A vif: what it may send as, on its host; how to reach it, there and elsewhere. */
#include <config.h>

#include "compile_impl.h"
#include "flow.h"
#include "util.h"

#define ND_NS 135
#define ND_NA 136
#define MLD2_REPORT 143

static void
from(struct build *b, const struct model_vif *v)
{
    fm_reg(&b->m, REG_SRC, v->obj.key);
    fm_dl_src(&b->m, v->mac);
}

static void
act_meter(struct build *b, uint32_t id)
{
    ofpact_put_METER(&b->acts)->meter_id = id;
}

static void
act_tagged_output(struct build *b, uint16_t tag, uint32_t ofport)
{
    ovs_be16 vid = htons(tag | VLAN_CFI);

    if (tag) {
        ofpact_put_PUSH_VLAN(&b->acts)->ethertype = htons(ETH_TYPE_VLAN_8021Q);
        act_field(b, MFF_VLAN_VID, &vid);
    }
    act_output(b, ofport);
    if (tag) {
        ofpact_put_STRIP_VLAN(&b->acts); /* other copies may come behind */
    }
}

/* A meter drops the packet for all that comes after it: with other copies of a
 * flooded one behind, only the clone ends. */
static void
act_metered_output(struct build *b, uint32_t meter, uint16_t tag, uint32_t ofport)
{
    size_t start = b->acts.size;
    struct ofpact_nest *clone = ofpact_put_CLONE(&b->acts);

    ofpbuf_pull(&b->acts, start + sizeof *clone);
    act_meter(b, meter);
    act_tagged_output(b, tag, ofport);
    clone = ofpbuf_push_uninit(&b->acts, sizeof *clone);
    b->acts.header = clone;
    ofpact_finish_CLONE(&b->acts, &clone);
    ofpbuf_push_uninit(&b->acts, start);
}

static void
make_classify(struct build *b, const struct model_vif *v, uint32_t ofport, bool shut)
{
    ovs_be64 network = htonll(v->network->obj.key);

    fm_in_port(&b->m, u16_to_ofp(ofport));
    if (v->tag) {
        fm_vlan_vid(&b->m, htons(v->tag | VLAN_CFI));
    }
    if (!shut) {
        if (v->limit[MODEL_OUT].kbps) {
            act_meter(b, pmeter_id(ofport, v->tag, MODEL_OUT));
        }
        if (v->tag) {
            ofpact_put_STRIP_VLAN(&b->acts);
        }
        act_field(b, MFF_METADATA, &network);
        act_reg(b, REG_ZONE, v->network->zone);
        act_reg(b, REG_SRC, v->obj.key);
        act_reg(b, REG_SRC_ISOLATED, v->isolated);
        act_goto(b, TBL_SPOOF);
    }
    emit(b, TBL_CLASSIFY, v->tag ? 1100 : 1000);
}

/* --- ARP and IPv4 ------------------------------------------------------------------- */

static void
make_arp(struct build *b, const struct model_vif *v, const struct model_prefix *ip)
{
    from(b, v);
    fm_dl_type(&b->m, htons(ETH_TYPE_ARP));
    fm_arp_sha(&b->m, v->mac);
    if (ip) {
        fm_nw_src_masked(&b->m, in6_addr_get_mapped_ipv4(&ip->addr),
                         be32_prefix_mask(ip->plen - 96));
    }
    act_goto(b, TBL_KIND);
    emit(b, TBL_SPOOF, 200);
}

/* Is the address free?  (RFC 5227) */
static void
make_arp_probe(struct build *b, const struct model_vif *v, const struct model_prefix *ip)
{
    from(b, v);
    fm_dl_type(&b->m, htons(ETH_TYPE_ARP));
    fm_nw_proto(&b->m, ARP_OP_REQUEST);
    fm_arp_sha(&b->m, v->mac);
    fm_nw_src(&b->m, 0);
    fm_nw_dst_masked(&b->m, in6_addr_get_mapped_ipv4(&ip->addr), be32_prefix_mask(ip->plen - 96));
    act_goto(b, TBL_KIND);
    emit(b, TBL_SPOOF, 200);
}

static void
make_locked_ipv4(struct build *b, const struct model_vif *v)
{
    for (size_t i = 0; i < v->ipv4_allowed.n; i++) {
        const struct model_prefix *ip = &v->ipv4_allowed.p[i];

        make_arp(b, v, ip);
        make_arp_probe(b, v, ip);
        from(b, v);
        match_prefix(&b->m, ip, true);
        act_goto(b, TBL_KIND);
        emit(b, TBL_SPOOF, 150);
    }
    if (v->ipv4_allowed.n) {
        /* A DHCP client that has no address yet. */
        from(b, v);
        fm_dl_type(&b->m, htons(ETH_TYPE_IP));
        fm_nw_proto(&b->m, IPPROTO_UDP);
        fm_nw_src(&b->m, 0);
        fm_nw_dst(&b->m, OVS_BE32_MAX);
        fm_tp_src(&b->m, htons(68));
        fm_tp_dst(&b->m, htons(67));
        act_goto(b, TBL_KIND);
        emit(b, TBL_SPOOF, 150);
    }
}

/* --- IPv6 and neighbour discovery ------------------------------------------------------ */

/* The link-layer address option of a message is our own or absent (zero). */
static void
make_nd(struct build *b, const struct model_vif *v, uint8_t type, const struct model_prefix *target)
{
    for (unsigned absent = 0; absent < 2; absent++) {
        from(b, v);
        fm_dl_type(&b->m, htons(ETH_TYPE_IPV6));
        fm_nw_proto(&b->m, IPPROTO_ICMPV6);
        fm_icmp_type(&b->m, type);
        if (type == ND_NS) {
            fm_arp_sha(&b->m, absent ? eth_addr_zero : v->mac); /* nd_sll */
        } else {
            fm_arp_tha(&b->m, absent ? eth_addr_zero : v->mac); /* nd_tll */
        }
        if (target) {
            struct in6_addr mask = ipv6_create_mask(target->plen);

            fm_nd_target_masked(&b->m, &target->addr, &mask);
        }
        act_goto(b, TBL_KIND);
        emit(b, TBL_SPOOF_ND, 200);
    }
}

/* An unspecified source: duplicate address detection (without a source link-layer
 * option, RFC 4861 4.3) and the multicast report that goes with it. */
static void
make_dad(struct build *b, const struct model_vif *v, const struct model_prefix *target)
{
    /* ff02::1:ff00:0/104 */
    static const struct in6_addr solicited = {{{0xff, 2, [11] = 1, [12] = 0xff}}};
    static const struct in6_addr mask = {{{[0 ... 12] = 0xff}}};
    struct in6_addr target_mask = ipv6_create_mask(target->plen);

    from(b, v);
    fm_dl_type(&b->m, htons(ETH_TYPE_IPV6));
    fm_nw_proto(&b->m, IPPROTO_ICMPV6);
    fm_icmp_type(&b->m, ND_NS);
    fm_ipv6_src(&b->m, &in6addr_any);
    fm_ipv6_dst_masked(&b->m, &solicited, &mask);
    fm_arp_sha(&b->m, eth_addr_zero);
    fm_nd_target_masked(&b->m, &target->addr, &target_mask);
    act_goto(b, TBL_SPOOF_ND);
    emit(b, TBL_SPOOF, 150);
}

static void
make_locked_ipv6_source(struct build *b, const struct model_vif *v, const struct model_prefix *ip)
{
    from(b, v);
    match_prefix(&b->m, ip, true);
    act_goto(b, TBL_SPOOF_ND);
    emit(b, TBL_SPOOF, 150);
    make_nd(b, v, ND_NA, ip);
    make_dad(b, v, ip);
}

static void
make_locked_ipv6(struct build *b, const struct model_vif *v)
{
    struct model_prefix local = {.plen = 128};

    if (!v->ipv6_allowed.n) {
        return;
    }
    for (size_t i = 0; i < v->ipv6_allowed.n; i++) {
        make_locked_ipv6_source(b, v, &v->ipv6_allowed.p[i]);
    }
    /* The link-local address that its MAC makes (RFC 4291, appendix A). */
    in6_generate_lla(v->mac, &local.addr);
    make_locked_ipv6_source(b, v, &local);
    make_nd(b, v, ND_NS, NULL);

    from(b, v);
    fm_dl_type(&b->m, htons(ETH_TYPE_IPV6));
    fm_nw_proto(&b->m, IPPROTO_ICMPV6);
    fm_icmp_type(&b->m, MLD2_REPORT);
    fm_ipv6_src(&b->m, &in6addr_any);
    act_goto(b, TBL_SPOOF_ND);
    emit(b, TBL_SPOOF, 150);
}

/* --- by locking mode --------------------------------------------------------------------- */

/* Any address, but no other's MAC, in no place where one is told. */
static void
make_unlocked(struct build *b, const struct model_vif *v)
{
    make_arp(b, v, NULL);
    from(b, v);
    fm_dl_type(&b->m, htons(ETH_TYPE_ARP));
    emit(b, TBL_SPOOF, 190);

    from(b, v);
    fm_dl_type(&b->m, htons(ETH_TYPE_IPV6));
    act_goto(b, TBL_SPOOF_ND);
    emit(b, TBL_SPOOF, 150);
    make_nd(b, v, ND_NS, NULL);
    make_nd(b, v, ND_NA, NULL);

    from(b, v);
    act_goto(b, TBL_KIND);
    emit(b, TBL_SPOOF, 100);
}

/* A connection's packets pass between the vifs whose it is, which are in the upper
 * half of its label; others are for policy to judge. */
static void
make_owner(struct build *b, uint32_t key)
{
    for (unsigned i = 0; i < 4; i++) {
        bool reply = i & 1, receives = i & 2;
        unsigned shift = reply == receives ? 0 : 32;
        ovs_u128 label = {.u64.hi = (uint64_t)key << shift};
        ovs_u128 mask = {.u64.hi = (uint64_t)UINT32_MAX << shift};

        fm_reg(&b->m, receives ? REG_DST : REG_SRC, key);
        fm_ct_state_masked(&b->m, reply ? CS_REPLY_DIR : 0, CS_REPLY_DIR);
        fm_ct_label_masked(&b->m, label, mask);
        act_goto(b, receives ? TBL_OUTPUT : TBL_RECEIVER);
        emit(b, receives ? TBL_RECEIVER : TBL_SENDER, 100);
    }
}

/* One that comes is reached from the wire already, for nobody there knows the
 * moment before this host does; this host's own vifs are told with the change of
 * 'host'.  From one that went away nothing is taken, and nothing goes to it. */
void
make_vif(struct compile *c, const struct model_vif *v, uint32_t ofport, enum model_role role,
         struct flows *out)
{
    bool shut = v->locking == MODEL_DISABLED || role == MODEL_AWAY;
    struct build b;

    build_init(&b, c, out, flow_cookie(FLOW_VIF, v->obj.key));
    make_classify(&b, v, ofport, shut);
    if (shut) {
        build_uninit(&b);
        return;
    }
    if (v->locking == MODEL_LOCKED) {
        make_locked_ipv4(&b, v);
        make_locked_ipv6(&b, v);
    } else {
        make_unlocked(&b, v);
    }

    make_owner(&b, v->obj.key);

    match_network(&b.m, v->network->obj.key);
    fm_dl_dst(&b.m, v->mac);
    if (role == MODEL_COMING) {
        fm_reg(&b.m, REG_SRC, 0);
    }
    act_reg(&b, REG_DST, v->obj.key);
    act_reg(&b, REG_DST_ISOLATED, v->isolated);
    act_goto(&b, TBL_ISOLATE);
    emit(&b, TBL_LOOKUP, 100);

    if (v->coming) {
        /* What it sends from one of the two hosts floods to the other. */
        match_network(&b.m, v->network->obj.key);
        fm_reg(&b.m, REG_SRC, 0);
        fm_reg(&b.m, REG_DST, v->obj.key);
        fm_dl_src(&b.m, v->mac);
        emit(&b, TBL_ISOLATE, 300);
    }
    if (v->coming && v->isolated && role == MODEL_HERE) {
        /* It may run there by now; there make_remote() says so. */
        match_network(&b.m, v->network->obj.key);
        fm_reg(&b.m, REG_SRC, 0);
        fm_reg(&b.m, REG_DST_ISOLATED, 1);
        fm_dl_src(&b.m, v->mac);
        emit(&b, TBL_ISOLATE, 300);
    }

    fm_reg(&b.m, REG_DST, v->obj.key);
    if (v->limit[MODEL_IN].kbps) {
        act_metered_output(&b, pmeter_id(ofport, v->tag, MODEL_IN), v->tag, ofport);
    } else {
        act_tagged_output(&b, v->tag, ofport);
    }
    emit(&b, TBL_OUTPUT, 100);
    build_uninit(&b);
}

/* On a host where it is not, though it may have a port there: beyond a tunnel its address is known;
 * on a VLAN the physical network knows the way, and only isolated vifs are of interest. */
void
make_remote(struct compile *c, const struct model_vif *v, const struct chost *on, struct flows *out)
{
    bool overlay = v->network->type == MODEL_OVERLAY;
    struct build b;

    if (v->locking == MODEL_DISABLED || (!overlay && !v->isolated) || (!overlay && !on->uplink)) {
        return;
    }
    build_init(&b, c, out, flow_cookie(FLOW_REMOTE, v->obj.key));
    if (!overlay || (v->host && v->host->obj.live && v->host->obj.key != on->key)) {
        match_network(&b.m, v->network->obj.key);
        fm_dl_dst(&b.m, v->mac);
        act_reg(&b, REG_DST, overlay ? DST_TUNNEL : DST_UPLINK);
        act_reg(&b, REG_DST_ISOLATED, v->isolated);
        if (overlay) {
            act_reg(&b, REG_PEER, v->host->obj.key);
        }
        act_goto(&b, TBL_ISOLATE);
        emit(&b, TBL_LOOKUP, 90);
    }
    if (v->isolated) {
        match_network(&b.m, v->network->obj.key);
        fm_reg(&b.m, REG_SRC, 0);
        fm_reg(&b.m, REG_DST_ISOLATED, 1);
        fm_dl_src(&b.m, v->mac);
        emit(&b, TBL_ISOLATE, 300);
    }
    build_uninit(&b);
}
