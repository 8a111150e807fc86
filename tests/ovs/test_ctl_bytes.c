/* The quick encoders of flows (pflow_bytes.c) against libopenvswitch's: the same
 * bytes for random matches, of fields that they know and of others, and for
 * random lists of actions, the first time and again. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "flow.h"
#include "fmatch.h"
#include "nx-match.h"
#include "openvswitch/match.h"
#include "openvswitch/meta-flow.h"
#include "openvswitch/ofp-actions.h"
#include "openvswitch/ofpbuf.h"
#include "packets.h"
#include "pflow_bytes.h"
#include "random.h"
#include "util.h"

#define ROUNDS 200000

static bool
one_in(unsigned n)
{
    return !random_range(n);
}

static ovs_be32
mask32(void)
{
    return one_in(3) ? be32_prefix_mask(1 + random_range(32)) : OVS_BE32_MAX;
}

static struct eth_addr
mac(void)
{
    struct eth_addr ea;

    eth_addr_random(&ea);
    return ea;
}

static struct in6_addr
ip6(void)
{
    struct in6_addr a;

    random_bytes(&a, sizeof a);
    return a;
}

static void
set_transport(struct match *m, bool v4)
{
    static const uint8_t protocols[] = {IPPROTO_TCP,  IPPROTO_UDP,    IPPROTO_SCTP,
                                        IPPROTO_ICMP, IPPROTO_ICMPV6, 47};
    uint8_t protocol = protocols[random_range(ARRAY_SIZE(protocols))];
    bool icmp6 = protocol == IPPROTO_ICMPV6 && !v4;

    match_set_nw_proto(m, protocol);
    if (protocol == 47) {
        return;
    }
    if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) {
        if (one_in(2)) {
            match_set_icmp_type(m, one_in(2) ? 135 + random_range(2) : random_range(256));
        }
        if (one_in(4)) {
            match_set_icmp_code(m, one_in(2) ? 0 : random_range(256));
        }
    } else {
        if (one_in(3)) {
            match_set_tp_src(m, htons(random_uint16()));
        }
        if (one_in(2)) {
            match_set_tp_dst_masked(m, htons(random_uint16()), htons(0xffff << random_range(16)));
        }
    }
    if (icmp6 && one_in(2)) {
        struct in6_addr target = ip6(), mask = ipv6_create_mask(random_range(129));

        match_set_nd_target_masked(m, &target, &mask);
        match_set_arp_sha(m, mac());
        match_set_arp_tha(m, mac());
    }
}

static void
set_ip(struct match *m, bool v4)
{
    struct in6_addr a = ip6(), b = ip6(), mask = ipv6_create_mask(random_range(129));

    match_set_dl_type(m, htons(v4 ? ETH_TYPE_IP : ETH_TYPE_IPV6));
    if (v4 && one_in(2)) {
        match_set_nw_src_masked(m, htonl(random_uint32()), mask32());
        match_set_nw_dst_masked(m, htonl(random_uint32()), mask32());
    } else if (!v4 && one_in(2)) {
        match_set_ipv6_src(m, &a);
        match_set_ipv6_dst_masked(m, &b, &mask);
    }
    if (one_in(2)) {
        set_transport(m, v4);
    }
    if (one_in(20)) {
        match_set_nw_frag_masked(m, FLOW_NW_FRAG_ANY, FLOW_NW_FRAG_MASK);
    }
    if (one_in(20)) {
        match_set_nw_dscp(m, random_range(64) << 2);
    }
}

static void
set_arp(struct match *m)
{
    match_set_dl_type(m, htons(one_in(4) ? ETH_TYPE_RARP : ETH_TYPE_ARP));
    if (one_in(2)) {
        match_set_nw_proto(m, 1 + random_range(2));
    }
    if (one_in(2)) {
        match_set_nw_src_masked(m, htonl(random_uint32()), mask32());
    }
    if (one_in(2)) {
        match_set_nw_dst(m, htonl(random_uint32()));
    }
    if (one_in(2)) {
        match_set_arp_sha(m, mac());
    }
    if (one_in(2)) {
        match_set_arp_tha(m, mac());
    }
}

/* What no flow of ours has, or few have. */
static void
set_rare(struct match *m)
{
    ovs_u128 label = {.u64 = {.lo = random_uint64(), .hi = 1}};

    switch (random_range(8)) {
    case 0:
        match_set_dl_tci_masked(m, htons(random_uint16()), htons(VLAN_CFI | VLAN_VID_MASK));
        break;
    case 1:
        match_set_tun_src(m, htonl(random_uint32()));
        break;
    case 2:
        match_set_pkt_mark(m, random_uint32());
        break;
    case 3:
        match_set_ct_label(m, label);
        break;
    case 4:
        match_set_ct_zone(m, random_uint16());
        break;
    case 5:
        match_set_packet_type(m, htonl(PT_ETH));
        break;
    case 6:
        match_set_dl_dst_masked(m, mac(), mac());
        break;
    case 7:
        match_set_dl_type(m, htons(one_in(2) ? ETH_TYPE_MPLS : OFP_DL_TYPE_NOT_ETH_TYPE));
        break;
    }
}

static void
set_pipeline(struct match *m)
{
    if (one_in(4)) {
        match_set_conj_id(m, random_uint32());
    }
    if (one_in(4)) {
        match_set_in_port(m, one_in(4) ? OFPP_LOCAL : u16_to_ofp(random_range(0xff00)));
    }
    if (one_in(2)) {
        match_set_metadata(m, htonll(random_uint64()));
    }
    for (unsigned i = 0; i < FLOW_N_REGS; i++) {
        if (one_in(6)) {
            match_set_reg_masked(m, i, random_uint32(), ntohl(mask32()));
        }
    }
    if (one_in(4)) {
        match_set_ct_state_masked(m, random_range(256), random_range(256));
        match_set_ct_mark(m, random_uint32());
    }
    if (one_in(6)) {
        match_set_tun_id(m, htonll(random_range(1 << 24)));
    }
}

static void
random_match(struct match *m)
{
    unsigned kind = random_range(5);

    match_init_catchall(m);
    if (one_in(2)) {
        match_set_dl_src(m, mac());
    }
    if (one_in(3)) {
        match_set_dl_dst(m, mac());
    }
    if (kind < 3) {
        set_ip(m, kind != 1);
    } else if (kind == 3) {
        set_arp(m);
    } else if (one_in(2)) {
        match_set_dl_type(m, htons(random_uint16()));
    }
    set_pipeline(m);
    if (one_in(8)) {
        set_rare(m);
    }
}

static bool
same_bytes(const struct ofpbuf *a, const struct ofpbuf *b)
{
    return a->size == b->size && (!a->size || !memcmp(a->data, b->data, a->size));
}

static void
test_matches(void)
{
    struct ofpbuf quick, slow;
    struct match m;
    unsigned n_different = 0;

    CASE("random matches have the bytes that libopenvswitch gives them");
    ofpbuf_init(&quick, 0);
    ofpbuf_init(&slow, 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        random_match(&m);
        ofpbuf_clear(&quick);
        ofpbuf_clear(&slow);
        pflow_put_match(&quick, &m);
        oxm_put_raw(&slow, &m, OFP15_VERSION);
        if (!same_bytes(&quick, &slow) && !n_different++) {
            char *text = match_to_string(&m, NULL, 0);

            printf("# %s\n", text);
            free(text);
        }
    }
    CHECK(!n_different);
    ofpbuf_uninit(&quick);
    ofpbuf_uninit(&slow);
}

/* The same of a match in both forms; what is set is evaluated twice. */
#define BOTH(FIELD, ...) (match_set_##FIELD(m, __VA_ARGS__), fm_##FIELD(f, __VA_ARGS__))

static void
both_transport(struct match *m, struct fmatch *f, bool v4)
{
    static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP, 47};
    bool icmp = one_in(2);
    uint8_t type = one_in(2) ? 135 + random_range(2) : random_range(256), code = random_range(2);
    struct in6_addr target = ip6(), mask = ipv6_create_mask(random_range(129));
    struct eth_addr a = mac(), b = mac();
    ovs_be16 port = htons(random_uint16()), bits = htons((uint16_t)(0xffffu << random_range(17)));
    uint8_t protocol = v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;

    protocol = icmp ? protocol : protocols[random_range(ARRAY_SIZE(protocols))];
    BOTH(nw_proto, protocol);
    if (!icmp) {
        if (one_in(2)) {
            BOTH(tp_src, port);
        }
        if (one_in(2)) {
            BOTH(tp_dst_masked, port, bits);
        } else if (one_in(2)) {
            BOTH(tp_dst, port);
        }
        return;
    }
    if (one_in(2)) {
        BOTH(icmp_type, type);
    }
    if (one_in(3)) {
        BOTH(icmp_code, code);
    }
    if (!v4 && one_in(2)) {
        BOTH(nd_target_masked, &target, &mask);
        BOTH(arp_sha, a);
        BOTH(arp_tha, b);
    }
}

static void
both_network(struct match *m, struct fmatch *f)
{
    static const uint16_t types[] = {ETH_TYPE_IP, ETH_TYPE_IPV6, ETH_TYPE_ARP, ETH_TYPE_RARP,
                                     0x88cc};
    uint16_t type = types[random_range(5)];
    bool v4 = type == ETH_TYPE_IP, v6 = type == ETH_TYPE_IPV6, arp = type >> 8 == 0x08 && !v4;
    struct in6_addr a = ip6(), b = ip6(), mask = ipv6_create_mask(random_range(129));
    ovs_be32 x = htonl(random_uint32()), y = htonl(random_uint32()),
             bits = one_in(8) ? 0 : mask32();
    struct eth_addr ea = mac(), eb = mac();

    BOTH(dl_type, htons(type));
    if ((v4 || arp) && one_in(2)) {
        BOTH(nw_src, x);
        BOTH(nw_dst_masked, y, bits);
    } else if ((v4 || arp) && one_in(2)) {
        BOTH(nw_src_masked, x, bits);
        BOTH(nw_dst, y);
    } else if (v6 && one_in(2)) {
        BOTH(ipv6_src, &a);
        BOTH(ipv6_dst_masked, &b, &mask);
    } else if (v6) {
        BOTH(ipv6_src_masked, &a, &mask);
    }
    if (arp && one_in(2)) {
        uint8_t op = 1 + random_range(2);

        BOTH(nw_proto, op);
        BOTH(arp_sha, ea);
        BOTH(arp_tha, eb);
    }
    if ((v4 || v6) && one_in(2)) {
        both_transport(m, f, v4);
    }
}

static void
both_pipeline(struct match *m, struct fmatch *f)
{
    ovs_u128 label = {.u64 = {random_uint64(), random_uint64()}};
    ovs_u128 bits = {.u64 = {one_in(2) ? 0 : UINT64_MAX, one_in(2) ? UINT32_MAX : UINT64_MAX}};
    uint32_t state = random_uint32(), states = random_uint32(), n = random_uint32();
    struct in6_addr a = ip6();

    for (unsigned i = 0; i < FLOW_N_REGS; i++) {
        if (one_in(6)) {
            BOTH(reg, i, n + i);
        }
    }
    if (one_in(4)) {
        BOTH(conj_id, n);
    }
    if (one_in(4)) {
        ofp_port_t port = one_in(4) ? OFPP_LOCAL : u16_to_ofp(random_range(0xff00));

        BOTH(in_port, port);
    }
    if (one_in(4)) {
        BOTH(vlan_vid, htons(n & (VLAN_VID_MASK | VLAN_CFI)));
    } else if (one_in(4)) {
        match_set_dl_tci_masked(m, 0, htons(VLAN_CFI));
        fm_no_vlan(f);
    }
    if (one_in(4)) {
        BOTH(ct_state_masked, state, states);
        BOTH(ct_mark, n);
        BOTH(ct_label_masked, label, bits);
    }
    if (one_in(4)) {
        BOTH(metadata, htonll(n));
        BOTH(tun_id, htonll(n));
    }
    if (one_in(8)) {
        BOTH(tun_src, htonl(n));
    } else if (one_in(8)) {
        BOTH(tun_ipv6_src, &a);
    }
}

static void
test_compiler_matches(void)
{
    uint8_t bytes[PFLOW_MATCH_BYTES];
    struct ofpbuf slow;
    struct fmatch f;
    struct match m;
    unsigned n_different = 0;

    CASE("matches in the compiler's form, too");
    ofpbuf_init(&slow, 0);
    memset(&f, 0xa5, sizeof f); /* what is not set is not read */
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct eth_addr src = mac(), dst = mac(), bits = mac();

        match_init_catchall(&m);
        fm_init(&f);
        if (one_in(2)) {
            match_set_dl_src(&m, src);
            fm_dl_src(&f, src);
        }
        if (one_in(3)) {
            match_set_dl_dst_masked(&m, dst, bits);
            fm_dl_dst_masked(&f, dst, bits);
        } else if (one_in(2)) {
            match_set_dl_dst(&m, dst);
            fm_dl_dst(&f, dst);
        }
        if (one_in(2)) {
            both_network(&m, &f);
        }
        both_pipeline(&m, &f);
        ofpbuf_clear(&slow);
        oxm_put_raw(&slow, &m, OFP15_VERSION);
        size_t n = pflow_encode_fmatch(bytes, &f);
        if ((n != slow.size || memcmp(bytes, slow.data, n)) && !n_different++) {
            char *text = match_to_string(&m, NULL, 0);

            printf("# %s\n", text);
            free(text);
        }
    }
    CHECK(!n_different);
    ofpbuf_uninit(&slow);
}

static enum mf_field_id
any_field(void)
{
    static const enum mf_field_id fields[] = {MFF_METADATA, MFF_TUN_ID,   MFF_CT_MARK, MFF_CT_LABEL,
                                              MFF_ETH_DST,  MFF_VLAN_VID, MFF_XREG0,   MFF_IPV4_DST,
                                              MFF_IPV6_DST, MFF_TCP_DST};

    return fields[random_range(ARRAY_SIZE(fields))];
}

static void
random_actions(struct ofpbuf *acts)
{
    unsigned n_kinds = one_in(2) ? 4 : 6;

    for (unsigned n = one_in(8) ? random_range(20) : random_range(5); n; n--) {
        ovs_be32 value = htonl(random_range(8)), mask = htonl(random_range(2) - 1);
        uint8_t long_value[16] = {n, [15] = 1};
        struct ofpact_conjunction *conj;

        switch (random_range(n_kinds)) {
        case 0:
            ofpact_put_set_field(acts, mf_from_id(MFF_REG0 + random_range(16)), &value, NULL);
            break;
        case 1:
            ofpact_put_OUTPUT(acts)->port = one_in(4) ? OFPP_LOCAL : u16_to_ofp(random_range(999));
            break;
        case 2:
            ofpact_put_set_field(acts, mf_from_id(any_field()), long_value, NULL);
            break;
        case 3:
            ofpact_put_set_field(acts, mf_from_id(MFF_REG0 + random_range(16)), &value, &mask);
            break;
        case 4:
            ofpact_put_RESUBMIT(acts)->table_id = random_range(60);
            break;
        case 5:
            conj = ofpact_put_CONJUNCTION(acts);
            conj->id = random_range(16);
            conj->n_clauses = 2;
            break;
        }
    }
    if (one_in(2)) {
        ofpact_put_GOTO_TABLE(acts)->table_id = 1 + random_range(60);
    }
}

static void
test_actions(void)
{
    struct ofpbuf acts, quick, slow;
    unsigned n_different = 0;

    CASE("random actions, too, the first time and again");
    ofpbuf_init(&acts, 0);
    ofpbuf_init(&quick, 0);
    ofpbuf_init(&slow, 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        ofpbuf_clear(&acts);
        random_actions(&acts);
        for (unsigned again = 0; again < 2; again++) {
            ofpbuf_clear(&quick);
            ofpbuf_clear(&slow);
            pflow_put_instructions(&quick, acts.data, acts.size);
            if (acts.size) {
                ofpacts_put_openflow_instructions(acts.data, acts.size, &slow, OFP15_VERSION);
            }
            n_different += !same_bytes(&quick, &slow);
        }
    }
    CHECK(!n_different);
    ofpbuf_uninit(&acts);
    ofpbuf_uninit(&quick);
    ofpbuf_uninit(&slow);
}

int
main(void)
{
    random_set_seed(20);
    test_matches();
    test_compiler_matches();
    test_actions();
    return check_done();
}
