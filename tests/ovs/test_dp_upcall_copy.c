/* Upcalls: what arrives of a packet and its flow.  Bounds, order, fairness and threads:
 * test_dp_upcall.c. */
#include <config.h>

#include "netlink.h"
#include "odp-netlink.h"
#include "tun-metadata.h"
#include "upcall_rig.h"

static void
random_bytes_of(void *p, size_t n)
{
    random_bytes(p, n);
}

static bool
one_in(unsigned n)
{
    return !random_range(n);
}

static void
random_tunnel(struct flow_tnl *tnl)
{
    if (one_in(3)) {
        random_bytes_of(&tnl->ipv6_src, 16);
        random_bytes_of(&tnl->ipv6_dst, 16);
    } else {
        tnl->ip_src = random_uint32() | 1;
        tnl->ip_dst = random_uint32() | 1;
    }
    if (one_in(2)) {
        tnl->tun_id = htonll(random_uint64());
        tnl->flags |= FLOW_TNL_F_KEY;
    }
    tnl->flags |= (one_in(2) ? FLOW_TNL_F_DONT_FRAGMENT : 0) | (one_in(2) ? FLOW_TNL_F_CSUM : 0) |
                  (one_in(2) ? FLOW_TNL_F_OAM : 0);
    tnl->ip_tos = random_uint32();
    tnl->ip_ttl = random_uint32();
    tnl->tp_src = random_uint32();
    tnl->tp_dst = random_uint32();
    switch (random_range(5)) {
    case 0:
        tnl->gbp_id = random_uint32();
        tnl->gbp_flags = random_uint32();
        break;
    case 1: {
        /* Geneve options as they come from the wire. */
        uint8_t *p = (uint8_t *)tnl->metadata.opts.gnv;
        size_t len = 0;

        for (size_t body; len + 4 + (body = 4 * random_range(12)) <= 252; len += 4 + body) {
            random_bytes_of(p + len, 4 + body);
            p[len + 3] = body / 4;
        }
        tnl->metadata.present.len = len;
        tnl->flags |= FLOW_TNL_F_UDPIF;
        break;
    }
    case 2:
        tnl->erspan_ver = 1;
        tnl->erspan_idx = random_range(1 << 20);
        break;
    case 3:
        tnl->erspan_ver = 2;
        tnl->erspan_dir = random_range(2);
        tnl->erspan_hwid = random_range(64);
        break;
    }
}

static void
random_l4(struct flow *flow)
{
    static const uint8_t protos[] = {IPPROTO_TCP,  IPPROTO_UDP, IPPROTO_SCTP,
                                     IPPROTO_ICMP, IPPROTO_GRE, 0};

    flow->nw_tos = random_uint32();
    flow->nw_ttl = random_uint32();
    flow->nw_proto = protos[random_range(ARRAY_SIZE(protos))];
    flow->tp_src = random_uint32();
    flow->tp_dst = random_uint32();
    flow->tcp_flags = one_in(4) ? 0 : htons(random_uint32() & 0xfff);
    if (one_in(4)) {
        flow->nw_frag = one_in(2) ? FLOW_NW_FRAG_ANY : FLOW_NW_FRAG_ANY | FLOW_NW_FRAG_LATER;
    }
    if (flow->nw_proto == IPPROTO_ICMP) {
        flow->tp_src &= htons(0xff);
        flow->tp_dst &= htons(0xff);
    }
}

static void
random_nd(struct flow *flow)
{
    flow->nw_proto = IPPROTO_ICMPV6;
    flow->nw_frag = 0;
    flow->tp_src = htons(one_in(2) ? 135 : 136);
    flow->tp_dst = 0;
    flow->tcp_flags = 0;
    random_bytes_of(&flow->nd_target, 16);
    if (one_in(2)) {
        random_bytes_of(&flow->arp_sha, 6);
    } else if (one_in(2)) {
        random_bytes_of(&flow->arp_tha, 6);
    }
    flow->igmp_group_ip4 = one_in(2) ? random_uint32() : 0;
}

static void
random_l3(struct flow *flow)
{
    switch (random_range(7)) {
    case 0:
    case 1:
        flow->dl_type = htons(ETH_TYPE_IP);
        random_bytes_of(&flow->nw_src, 8);
        random_l4(flow);
        break;
    case 2:
    case 3:
        flow->dl_type = htons(ETH_TYPE_IPV6);
        random_bytes_of(&flow->ipv6_src, 32);
        flow->ipv6_label = htonl(random_uint32() & 0xfffff);
        random_l4(flow);
        if (one_in(3)) {
            random_nd(flow);
        }
        break;
    case 4:
        flow->dl_type = htons(one_in(2) ? ETH_TYPE_ARP : ETH_TYPE_RARP);
        random_bytes_of(&flow->nw_src, 8);
        flow->nw_proto = 1 + random_range(2);
        random_bytes_of(&flow->arp_sha, 12);
        break;
    case 5: {
        unsigned n = 1 + random_range(FLOW_MAX_MPLS_LABELS);

        flow->dl_type = htons(one_in(2) ? ETH_TYPE_MPLS : ETH_TYPE_MPLS_MCAST);
        for (unsigned i = 0; i < n; i++) {
            flow->mpls_lse[i] = random_uint32() & ~htonl(MPLS_BOS_MASK);
            flow->mpls_lse[i] |= i == n - 1 ? htonl(MPLS_BOS_MASK) : 0;
        }
        break;
    }
    default:
        flow->dl_type = htons(0x8900 + random_range(64));
        break;
    }
}

static void
random_metadata(struct dp_packet *b, ovs_be16 dl_type)
{
    struct pkt_metadata *md = &b->md;

    pkt_metadata_init(md, u32_to_odp(one_in(10) ? UINT32_MAX : random_range(60000)));
    if (one_in(3)) {
        memset(&md->tunnel, 0, sizeof md->tunnel);
        random_tunnel(&md->tunnel);
    }
    md->recirc_id = one_in(2) ? random_uint32() : 0;
    md->dp_hash = one_in(2) ? random_uint32() : 0;
    md->skb_priority = one_in(2) ? random_uint32() : 0;
    md->pkt_mark = one_in(2) ? random_uint32() : 0;
    if (one_in(2)) {
        return;
    }
    md->ct_state = CS_TRACKED | (random_uint32() & CS_SUPPORTED_MASK);
    md->ct_zone = random_uint32();
    md->ct_mark = random_uint32();
    md->ct_label.u64.lo = one_in(2) ? random_uint64() : 0;
    md->ct_label.u64.hi = one_in(2) ? random_uint64() : 0;
    memset(&md->ct_orig_tuple, 0, sizeof md->ct_orig_tuple);
    /* Only a connection's packet has its tuple. */
    if (!(md->ct_state & (CS_NEW | CS_ESTABLISHED | CS_REPLY_DIR))) {
        return;
    }
    if (dl_type == htons(ETH_TYPE_IP)) {
        random_bytes_of(&md->ct_orig_tuple.ipv4, sizeof md->ct_orig_tuple.ipv4);
        md->ct_orig_tuple.ipv4.ipv4_proto |= 1;
    } else if (dl_type == htons(ETH_TYPE_IPV6)) {
        md->ct_orig_tuple_ipv6 = true;
        random_bytes_of(&md->ct_orig_tuple.ipv6, sizeof md->ct_orig_tuple.ipv6);
        md->ct_orig_tuple.ipv6.ipv6_proto |= 1;
    }
}

static void
push_tags(struct dp_packet *b)
{
    unsigned n = one_in(2) ? 0 : 1 + random_range(3);

    for (unsigned i = 0; i < n; i++) {
        eth_push_vlan(b, htons(one_in(2) ? ETH_TYPE_VLAN_8021Q : ETH_TYPE_VLAN_8021AD),
                      htons(random_uint32() & ~VLAN_CFI));
    }
}

/* A packet of some kind with metadata of some kind, whole or cut short. */
static struct dp_packet *
random_packet(void)
{
    struct dp_packet *b = dp_packet_new_with_headroom(512, 128);
    uint8_t junk[100];
    struct flow flow;

    memset(&flow, 0, sizeof flow);
    flow.packet_type = htonl(PT_ETH);
    random_bytes_of(&flow.dl_dst, 12);
    random_l3(&flow);
    random_bytes_of(junk, sizeof junk);
    if (one_in(8)) {
        /* Not Ethernet: from a layer 3 tunnel. */
        flow.dl_type = htons(one_in(2) ? ETH_TYPE_IP : ETH_TYPE_IPV6);
        flow.packet_type = PACKET_TYPE_BE(OFPHTN_ETHERTYPE, ntohs(flow.dl_type));
        memset(&flow.dl_dst, 0, 12);
        random_l4(&flow);
    }
    flow_compose(b, &flow, junk, random_range(sizeof junk));
    b->packet_type = flow.packet_type;
    if (dp_packet_is_eth(b)) {
        push_tags(b);
    }
    if (one_in(8) && dp_packet_size(b) > 60) {
        dp_packet_set_size(b, 60 + random_range(dp_packet_size(b) - 60));
    }
    random_metadata(b, flow.dl_type);
    return b;
}

/* Geneve options beyond their length are nobody's. */
static void
forget_unused(struct flow *flow)
{
    struct tun_metadata *md = &flow->tunnel.metadata;

    if (flow->tunnel.flags & FLOW_TNL_F_UDPIF) {
        memset((uint8_t *)md->opts.gnv + md->present.len, 0, sizeof md->opts - md->present.len);
        if (!md->present.len) {
            flow->tunnel.flags &= ~FLOW_TNL_F_UDPIF;
        }
    }
}

static bool
flows_equal(const struct flow *a_, const struct flow *b_)
{
    struct flow a = *a_, b = *b_;

    forget_unused(&a);
    forget_unused(&b);
    return flow_equal(&a, &b);
}

/* What no key has attributes for: ICMP's type where IPv6 says ICMP.  Parsing
 * the packet again finds it. */
static void
forget_unspeakable(struct flow *flow)
{
    if (flow->dl_type == htons(ETH_TYPE_IPV6) && flow->nw_proto == IPPROTO_ICMP) {
        flow->tp_src = flow->tp_dst = 0;
    }
}

static bool
key_equals(const struct flow *sent_, const struct flow *key)
{
    struct flow sent = *sent_;

    forget_unspeakable(&sent);
    return flows_equal(&sent, key);
}

static void
print_difference(const struct flow *a, const struct flow *b)
{
    char *as = flow_to_string(a, NULL), *bs = flow_to_string(b, NULL);

    for (size_t i = 0; i < sizeof *a / 8; i++) {
        if (((const uint64_t *)a)[i] != ((const uint64_t *)b)[i]) {
            printf("# differ at byte %zu\n", i * 8);
        }
    }
    printf("# sent %s\n# came %s\n", as, bs);
    free(as);
    free(bs);
}

/* The longer of the flow's key and the mask of a rule that looks at all. */
static size_t
longest_key(const struct flow *flow)
{
    struct flow ones;
    struct odp_flow_key_parms parms = {
        .flow = flow,
        .mask = &ones,
        .support = dp_odp_support,
    };
    struct ofpbuf key, mask;
    size_t longest;

    memset(&ones, 0xff, sizeof ones);
    ofpbuf_init(&key, 0);
    ofpbuf_init(&mask, 0);
    odp_flow_key_from_flow(&parms, &key);
    parms.key_buf = &key;
    odp_flow_key_from_mask(&parms, &mask);
    longest = MAX(key.size, mask.size);
    ofpbuf_uninit(&key);
    ofpbuf_uninit(&mask);
    return longest;
}

/* Sends a packet through; true if its flow came out as it was, before and
 * after ofproto parses the packet again. */
static bool
round_trip(struct dp_packet *b, unsigned *imperfect, unsigned *too_long)
{
    struct flow sent, key, again;
    enum odp_key_fitness fitness;
    struct received r;
    ovs_u128 ufid;
    bool same;

    flow_extract(b, &sent);
    worker_begin(worker->worker);
    dp_upcall(worker, b, &sent, DPIF_UC_MISS, NULL, NULL, NULL);
    worker_end(worker->worker);
    if (!receive(0, &r)) {
        *too_long += 1;
        return longest_key(&sent) > ODPUTIL_FLOW_KEY_BYTES;
    }

    fitness = odp_flow_key_to_flow(r.up.key, r.up.key_len, &key, NULL);
    *imperfect += fitness != ODP_FIT_PERFECT;
    odp_flow_key_hash(r.up.key, r.up.key_len, &ufid);
    pkt_metadata_from_flow(&r.up.packet.md, &key);
    flow_extract(&r.up.packet, &again);
    same = fitness != ODP_FIT_ERROR && key_equals(&sent, &key) && flows_equal(&sent, &again) &&
           ovs_u128_equals(ufid, r.up.ufid) && r.up.type == DPIF_UC_MISS && !r.up.userdata &&
           !r.up.actions && !r.up.out_tun_key && longest_key(&sent) <= ODPUTIL_FLOW_KEY_BYTES &&
           dp_packet_size(&r.up.packet) == dp_packet_size(b) &&
           !memcmp(dp_packet_data(&r.up.packet), dp_packet_data(b), dp_packet_size(b));
    if (!same) {
        print_difference(&sent, key_equals(&sent, &key) ? &again : &key);
    }
    done(&r);
    return same;
}

static void
test_round_trip(void)
{
    unsigned different = 0, imperfect = 0, too_long = 0;
    uint64_t before = lost();

    CASE("upcall-round-trip");
    flow_limit_vlans(FLOW_MAX_VLAN_HEADERS);
    for (unsigned i = 0; i < 50000 && different < 3; i++) {
        struct dp_packet *b = random_packet();

        different += !round_trip(b, &imperfect, &too_long);
        dp_packet_delete(b);
    }
    CHECK(different == 0);
    CHECK(imperfect == 0);

    CASE("upcall-key-too-long");
    CHECK(too_long > 0 && too_long < 2500);
    CHECK(lost() - before == too_long);
}

static void
test_attributes(void)
{
    struct dp_packet *b = udp_packet(1, 1, 5, 20);
    struct ofpbuf userdata, actions;
    struct flow_tnl tunnel, came;
    uint8_t junk[700];
    struct received r;

    CASE("upcall-attributes");
    random_bytes_of(junk, sizeof junk);
    ofpbuf_init(&userdata, 0);
    ofpbuf_init(&actions, 0);
    nl_msg_put_unspec(&userdata, OVS_USERSPACE_ATTR_USERDATA, junk, 33);
    nl_msg_put_unspec(&actions, OVS_USERSPACE_ATTR_ACTIONS, junk, sizeof junk);
    memset(&tunnel, 0, sizeof tunnel);
    random_tunnel(&tunnel);
    worker_begin(worker->worker);
    upcall(worker, b, DPIF_UC_ACTION, userdata.data, actions.data, &tunnel);
    worker_end(worker->worker);
    CHECK(receive(0, &r));
    CHECK(r.up.type == DPIF_UC_ACTION);
    CHECK(nl_attr_get_size(r.up.userdata) == 33);
    CHECK(!memcmp(nl_attr_get(r.up.userdata), junk, 33));
    CHECK(nl_attr_get_size(r.up.actions) == sizeof junk);
    CHECK(!memcmp(nl_attr_get(r.up.actions), junk, sizeof junk));
    CHECK(odp_tun_key_from_attr(r.up.out_tun_key, &came, NULL) == ODP_FIT_PERFECT);
    CHECK(!memcmp(&came, &tunnel, sizeof came));
    CHECK(seq_of(&r.up.packet) == 5);
    /* What ofproto pushes has room, and nothing but the packet moves. */
    eth_push_vlan(&r.up.packet, htons(ETH_TYPE_VLAN), htons(5));
    dp_packet_push_zeros(&r.up.packet, 200);
    CHECK(!memcmp(nl_attr_get(r.up.actions), junk, sizeof junk));
    done(&r);
    ofpbuf_uninit(&userdata);
    ofpbuf_uninit(&actions);
    dp_packet_delete(b);
}

static void
test_packet(void)
{
    struct dp_packet *b = udp_packet(1, 1, 0, 500);
    struct received r;
    struct udp_header *udp;

    CASE("upcall-blank-checksum");
    dp_packet_set_rss_hash(b, 0x12345678);
    dp_packet_hwol_set_tx_ipv4(b);
    dp_packet_hwol_set_csum_udp(b);
    udp = (void *)((uint8_t *)dp_packet_data(b) + 34);
    const ovs_be16 right = udp->udp_csum;

    udp->udp_csum = htons(0x1234);
    worker_begin(worker->worker);
    upcall(worker, b, DPIF_UC_MISS, NULL, NULL, NULL);
    CHECK(receive(0, &r));
    udp = (void *)((uint8_t *)dp_packet_data(&r.up.packet) + 34);
    CHECK(udp->udp_csum == right);
    CHECK(!dp_packet_hwol_l4_mask(&r.up.packet));
    CHECK(dp_packet_rss_valid(&r.up.packet));
    CHECK(dp_packet_get_rss_hash(&r.up.packet) == 0x12345678);
    done(&r);

    CASE("upcall-segments");
    dp_packet_hwol_set_tcp_seg(b);
    b->mbuf.tso_segsz = 1234;
    upcall(worker, b, DPIF_UC_MISS, NULL, NULL, NULL);
    CHECK(receive(0, &r));
    CHECK(dp_packet_hwol_is_tso(&r.up.packet));
    CHECK(r.up.packet.mbuf.tso_segsz == 1234);
    done(&r);

    CASE("upcall-truncated");
    dp_packet_set_cutlen(b, 100);
    upcall(worker, b, DPIF_UC_ACTION, NULL, NULL, NULL);
    CHECK(receive(0, &r));
    CHECK(dp_packet_size(&r.up.packet) == 100);
    CHECK(!dp_packet_hwol_is_tso(&r.up.packet));
    CHECK(!memcmp(dp_packet_data(&r.up.packet), dp_packet_data(b), 100));
    CHECK(dp_packet_size(b) == 542);
    done(&r);
    worker_end(worker->worker);
    dp_packet_delete(b);

    CASE("upcall-largest");
    b = dp_packet_new(UINT16_MAX);
    dp_packet_put_zeros(b, UINT16_MAX);
    pkt_metadata_init(&b->md, u32_to_odp(1));
    memset(dp_packet_data(b), 0x5a, UINT16_MAX);
    worker_begin(worker->worker);
    upcall(worker, b, DPIF_UC_MISS, NULL, NULL, NULL);
    worker_end(worker->worker);
    CHECK(receive(0, &r));
    CHECK(dp_packet_size(&r.up.packet) == UINT16_MAX);
    CHECK(!memcmp(dp_packet_data(&r.up.packet), dp_packet_data(b), UINT16_MAX));
    done(&r);
    dp_packet_delete(b);
}

/* What was received stays as it is while small packets' buffers go round. */
static void
test_reuse(void)
{
    static const size_t payloads[] = {20, 200, 430, 600, 1400};
    static struct received r[64];

    CASE("upcall-reuse");
    for (unsigned size = 0; size < ARRAY_SIZE(payloads); size++) {
        for (uint32_t i = 0; i < ARRAY_SIZE(r); i++) {
            send_type(1, i, 1000 * size + i, payloads[size], DPIF_UC_ACTION);
            CHECK(receive(0, &r[i]));
        }
        for (uint32_t i = 0; i < ARRAY_SIZE(r); i++) {
            struct dp_packet *b = &r[i].up.packet;
            struct flow flow;

            CHECK(dp_packet_size(b) == 42 + payloads[size]);
            CHECK(seq_of(b) == 1000 * size + i);
            CHECK(odp_flow_key_to_flow(r[i].up.key, r[i].up.key_len, &flow, NULL) ==
                  ODP_FIT_PERFECT);
            CHECK((ntohl(flow.nw_src) & 0xff) == i);
            /* As far as its headroom goes, and beyond. */
            memset(dp_packet_push_uninit(b, 60), 0x5a, 60);
            memset(dp_packet_push_uninit(b, 60), 0x5a, 60);
            dp_packet_pull(b, 120);
            CHECK(seq_of(b) == 1000 * size + i);
            CHECK(odp_flow_key_to_flow(r[i].up.key, r[i].up.key_len, &flow, NULL) ==
                  ODP_FIT_PERFECT);
            done(&r[i]);
        }
    }
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    upcall_begin(argv);
    test_round_trip();
    test_attributes();
    test_packet();
    test_reuse();
    return upcall_end();
}
