/* The fast path's keys against OVS's own idea of a frame: whatever key_parse()
 * gives a shape, flow_extract() sees the very fields that the key has, and
 * nothing that the key has no room for.  TCP flags are OVS's, too. */
#include <config.h>

#include <stdlib.h>

#include "check.h"
#include "dp-packet.h"
#include "fast/key.h"
#include "fast_frames.h"
#include "flow.h"
#include "packets.h"

#define N_FRAMES 300000

static unsigned n_shapes[SHAPE_ODD + 1];

static bool
same_l2(const struct key *k, const struct flow *f)
{
    ovs_be16 tpid = f->vlans[0].tpid;

    return !memcmp(k->eth_dst, &f->dl_dst, 6) && !memcmp(k->eth_src, &f->dl_src, 6) &&
           k->eth_type == f->dl_type && k->vlan_tci == f->vlans[0].tci &&
           tpid == (k->vlan_tci ? htons(ETH_TYPE_VLAN_8021Q) : 0) && !f->vlans[1].qtag &&
           !f->mpls_lse[0] && !f->nsh.path_hdr && !f->nw_frag;
}

static bool
same_l4(const struct key *k, const struct flow *f, uint16_t tcp_flags)
{
    return k->nw_proto == f->nw_proto && k->nw_tos == f->nw_tos && k->tp_src == f->tp_src &&
           k->tp_dst == f->tp_dst &&
           (f->nw_proto == IPPROTO_TCP ? tcp_flags == ntohs(f->tcp_flags) : !tcp_flags);
}

static bool
same(enum shape shape, const struct key_wide *k, const struct flow *f, uint16_t tcp_flags)
{
    switch (shape) {
    case SHAPE_L2:
        return same_l2(&k->key, f) && f->dl_type != htons(ETH_TYPE_IP) &&
               f->dl_type != htons(ETH_TYPE_IPV6) && !tcp_flags && !f->tp_src && !f->tp_dst;
    case SHAPE_IPV4:
        return same_l2(&k->key, f) && f->dl_type == htons(ETH_TYPE_IP) &&
               k->key.ip4_src == f->nw_src && k->key.ip4_dst == f->nw_dst && !f->ipv6_label &&
               !f->igmp_group_ip4 && same_l4(&k->key, f, tcp_flags);
    case SHAPE_IPV6:
        return same_l2(&k->key, f) && f->dl_type == htons(ETH_TYPE_IPV6) &&
               !memcmp(k->ip6.src, &f->ipv6_src, 16) && !memcmp(k->ip6.dst, &f->ipv6_dst, 16) &&
               k->key.ip6_label == f->ipv6_label && same_l4(&k->key, f, tcp_flags);
    case SHAPE_ODD:
        return true;
    }
    return false;
}

static bool
compare(uint64_t *seed, const struct key_masks *masks)
{
    uint8_t room[FRAME_MAX];
    unsigned len = frame_build_random(seed, room);
    struct dp_packet *packet = dp_packet_clone_data(room, len);
    struct key_wide k;
    uint16_t tcp_flags;
    struct flow flow;
    enum shape shape;

    pkt_metadata_init(&packet->md, u32_to_odp(7));
    flow_extract(packet, &flow);
    shape = key_parse(dp_packet_data(packet), len, 7, masks, &k, &tcp_flags);
    n_shapes[shape]++;
    dp_packet_delete(packet);
    return same(shape, &k, &flow, tcp_flags);
}

int
main(void)
{
    struct key_masks masks;
    struct key_mask all;
    uint64_t seed = 99;
    unsigned wrong = 0;

    memset(&all, 0xff, sizeof all);
    key_masks_init(&masks, &all);
    CASE("keys of random frames show what OVS's flows have");
    for (unsigned i = 0; i < N_FRAMES; i++) {
        wrong += !compare(&seed, &masks);
    }
    CHECK(!wrong);
    for (unsigned i = 0; i <= SHAPE_ODD; i++) {
        CHECK(n_shapes[i] > N_FRAMES / 50);
    }
    return check_done();
}
