/* A network on a host: its uplink or tunnel, its connections, its flood list. */
#include <config.h>

#include <stdlib.h>

#include "compile_impl.h"
#include "flow.h"
#include "util.h"

/* Vifs in one flow's flood list.  A message holds about 1,300. */
#define FLOOD_CHUNK 500

static const struct eth_addr group_bit = ETH_ADDR_C(01, 00, 00, 00, 00, 00);

static void
enter(struct build *b, const struct model_network *n)
{
    ovs_be64 key = htonll(n->obj.key);

    act_field(b, MFF_METADATA, &key);
    act_reg(b, REG_ZONE, n->zone);
    act_goto(b, TBL_KIND);
}

static void
make_vlan(struct build *b, const struct model_network *n, const struct chost *on)
{
    ovs_be16 vid = htons(n->tag | VLAN_CFI);

    fm_in_port(&b->m, u16_to_ofp(on->uplink));
    fm_vlan_vid(&b->m, vid);
    ofpact_put_STRIP_VLAN(&b->acts);
    enter(b, n);
    emit(b, TBL_CLASSIFY, 1000);

    match_network(&b->m, n->obj.key);
    fm_dl_dst_masked(&b->m, eth_addr_zero, group_bit);
    act_reg(b, REG_DST, DST_UPLINK);
    act_goto(b, TBL_ISOLATE);
    emit(b, TBL_LOOKUP, 50);

    match_network(&b->m, n->obj.key);
    fm_reg(&b->m, REG_DST, DST_UPLINK);
    ofpact_put_PUSH_VLAN(&b->acts)->ethertype = htons(ETH_TYPE_VLAN_8021Q);
    act_field(b, MFF_VLAN_VID, &vid);
    act_output(b, on->uplink);
    emit(b, TBL_OUTPUT, 100);
}

static void
make_overlay(struct build *b, const struct model_network *n, uint32_t port)
{
    ovs_be64 vni = htonll(n->vni);

    fm_in_port(&b->m, u16_to_ofp(port));
    fm_tun_id(&b->m, vni);
    enter(b, n);
    emit(b, TBL_TUNNEL_IN, 100);

    match_network(&b->m, n->obj.key);
    act_field(b, MFF_TUN_ID, &vni);
    act_output(b, port);
    emit(b, TBL_TUNNEL_OUT, 100);
}

/* Connections of the present epoch pass, and new ones become so. */
static void
make_epoch(struct build *b, const struct model_network *n, uint32_t epoch)
{
    static const uint32_t states[] = {CS_ESTABLISHED, CS_RELATED};
    static const uint16_t types[] = {ETH_TYPE_IP, ETH_TYPE_IPV6};
    static const unsigned sides[] = {REG_OUT, REG_IN};

    for (unsigned i = 0; i < 2; i++) {
        match_network(&b->m, n->obj.key);
        fm_ct_state_masked(&b->m, CS_TRACKED | states[i],
                           CS_TRACKED | CS_INVALID | CS_NEW | states[i]);
        fm_ct_mark(&b->m, epoch);
        act_goto(b, states[i] == CS_ESTABLISHED ? TBL_SENDER : TBL_OUTPUT);
        emit(b, TBL_STATE, 150);
    }
    for (unsigned side = 0; side < 2; side++) {
        for (unsigned i = 0; i < 2; i++) {
            match_network(&b->m, n->obj.key);
            fm_reg(&b->m, REG_KIND, KIND_TRACKED);
            fm_reg(&b->m, sides[side], PASS_STATEFUL);
            fm_dl_type(&b->m, htons(types[i]));
            act_commit(b, epoch);
            act_goto(b, TBL_OUTPUT);
            emit(b, TBL_VERDICT, 101 - side);
        }
    }
}

/* No vif answers for a DHCP server, nor sends what only one sends to clients. */
static void
make_dhcp_guard(struct build *b, const struct model_network *n)
{
    static const struct {
        uint16_t type, server, client;
    } families[] = {{ETH_TYPE_IP, 67, 68}, {ETH_TYPE_IPV6, 547, 546}};

    for (unsigned i = 0; i < ARRAY_SIZE(families); i++) {
        for (unsigned to_client = 0; to_client < 2; to_client++) {
            match_network(&b->m, n->obj.key);
            fm_dl_type(&b->m, htons(families[i].type));
            fm_nw_proto(&b->m, IPPROTO_UDP);
            if (to_client) {
                fm_tp_dst(&b->m, htons(families[i].client));
            } else {
                fm_tp_src(&b->m, htons(families[i].server));
            }
            emit(b, TBL_SPOOF, 60000);
        }
    }
}

/* Router advertisements and redirects. */
static void
make_ra_guard(struct build *b, const struct model_network *n)
{
    for (uint8_t type = 134; type <= 137; type += 3) {
        match_network(&b->m, n->obj.key);
        fm_dl_type(&b->m, htons(ETH_TYPE_IPV6));
        fm_nw_proto(&b->m, IPPROTO_ICMPV6);
        fm_icmp_type(&b->m, type);
        emit(b, TBL_SPOOF_ND, 300);
    }
}

void
make_network(struct compile *c, const struct model_network *n, const struct cpresence *p,
             struct flows *out)
{
    const struct chost *on = p->host;
    struct build b;

    build_init(&b, c, out, flow_cookie(FLOW_NETWORK, n->obj.key));
    if (n->type == MODEL_VLAN && on->uplink) {
        make_vlan(&b, n, on);
    } else if (n->type == MODEL_OVERLAY && on->tunnel[n->encap]) {
        make_overlay(&b, n, on->tunnel[n->encap]);
    }
    make_epoch(&b, n, network_epoch(c, p));
    if (!n->allow_dhcp_server) {
        make_dhcp_guard(&b, n);
    }
    if (!n->allow_ra) {
        make_ra_guard(&b, n);
    }

    match_network(&b.m, n->obj.key);
    fm_dl_dst_masked(&b.m, group_bit, group_bit);
    act_goto(&b, TBL_FLOOD);
    emit(&b, TBL_LOOKUP, 50);
    build_uninit(&b);
}

/* --- flooding --------------------------------------------------------------------------- */

static void
copy_to(struct build *b, uint32_t dst, bool isolated)
{
    act_reg(b, REG_DST, dst);
    act_reg(b, REG_DST_ISOLATED, isolated);
    act_resubmit(b, TBL_ISOLATE);
}

static int
compare_places(const void *a_, const void *b_)
{
    const struct cplace *a = *(struct cplace *const *)a_, *b = *(struct cplace *const *)b_;

    return a->vif->key < b->vif->key ? -1 : a->vif->key > b->vif->key;
}

static int
compare_hosts(const void *a_, const void *b_)
{
    const struct chost *a = *(struct chost *const *)a_, *b = *(struct chost *const *)b_;

    return a->key < b->key ? -1 : a->key > b->key;
}

/* To each peer that has the network.  A copy that came from elsewhere ends at
 * the split horizon. */
static void
flood_peers(struct build *b, const struct cpresence *here)
{
    size_t n = 0, max = ovs_list_size(&here->net->presences);
    struct chost **peers = xmalloc(max * sizeof *peers);
    struct cpresence *p;

    LIST_FOR_EACH (p, net_node, &here->net->presences) {
        if (is_peer(here->host, p->host)) {
            peers[n++] = p->host;
        }
    }
    qsort(peers, n, sizeof *peers, compare_hosts);
    for (size_t i = 0; i < n; i++) {
        act_reg(b, REG_PEER, peers[i]->key);
        copy_to(b, DST_TUNNEL, false);
    }
    free(peers);
}

void
make_flood(struct compile *c, const struct model_network *n, const struct cpresence *here,
           struct flows *out)
{
    struct cplace **places = xmalloc(here->n_places * sizeof *places), *place;
    uint32_t chunk = 0;
    size_t n_places = 0;
    struct build b;

    LIST_FOR_EACH (place, presence_node, &here->places) {
        if (place->reachable) {
            places[n_places++] = place;
        }
    }
    qsort(places, n_places, sizeof *places, compare_places);

    build_init(&b, c, out, flow_cookie(FLOW_NETWORK, n->obj.key));
    for (size_t i = 0; i < n_places; i++) {
        if (i && !(i % FLOOD_CHUNK)) {
            act_reg(&b, REG_CHUNK, ++chunk);
            act_resubmit(&b, TBL_FLOOD);
            match_network(&b.m, n->obj.key);
            fm_reg(&b.m, REG_CHUNK, chunk - 1);
            emit(&b, TBL_FLOOD, 100);
        }
        copy_to(&b, places[i]->vif->key, places[i]->isolated);
    }
    if (n->type == MODEL_OVERLAY && here->host->tunnel[n->encap]) {
        flood_peers(&b, here);
    }
    if (n->type == MODEL_VLAN && here->host->uplink) {
        copy_to(&b, DST_UPLINK, false); /* last, for it adds a tag */
    }
    match_network(&b.m, n->obj.key);
    fm_reg(&b.m, REG_CHUNK, chunk);
    emit(&b, TBL_FLOOD, 100);
    build_uninit(&b);
    free(places);
}
