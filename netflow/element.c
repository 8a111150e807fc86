#include "element.h"

#include <stddef.h>

#include "ie.h"
#include "template.h"

#define SIZE_OF(STRUCT, MEMBER) sizeof(((struct STRUCT *)0)->MEMBER)
#define TO(OP, ROLE, MEMBER)                                                                       \
    {                                                                                              \
        .op = ELEMENT_##OP, .role = ELEMENT_##ROLE, .width = SIZE_OF(flow_record, MEMBER),         \
        .dst = offsetof(struct flow_record, MEMBER)                                                \
    }
#define ASIDE(OP, ROLE, MEMBER)                                                                    \
    {                                                                                              \
        .op = ELEMENT_##OP, .role = ELEMENT_##ROLE, .width = SIZE_OF(template_extra, MEMBER),      \
        .extra = true, .dst = offsetof(struct template_extra, MEMBER)                              \
    }

/* By number in IANA's registry; v9's field types are the same up to 127. */
static const struct element iana[] = {
    [1] = TO(UINT, COUNT, bytes),                /* octetDeltaCount */
    [2] = TO(UINT, COUNT, packets),              /* packetDeltaCount */
    [4] = TO(UINT, PLAIN, proto),                /* protocolIdentifier */
    [5] = TO(UINT, PLAIN, tos),                  /* ipClassOfService */
    [6] = TO(UINT, PLAIN, tcp_flags),            /* tcpControlBits */
    [7] = TO(UINT, PLAIN, sport),                /* sourceTransportPort */
    [8] = TO(IP4, PLAIN, src),                   /* sourceIPv4Address */
    [10] = TO(UINT, PLAIN, in_if),               /* ingressInterface */
    [11] = TO(UINT, PLAIN, dport),               /* destinationTransportPort */
    [12] = TO(IP4, PLAIN, dst),                  /* destinationIPv4Address */
    [14] = TO(UINT, PLAIN, out_if),              /* egressInterface */
    [21] = TO(UINT, UPTIME, end_ms),             /* flowEndSysUpTime, LAST_SWITCHED */
    [22] = TO(UINT, UPTIME, start_ms),           /* flowStartSysUpTime, FIRST_SWITCHED */
    [23] = TO(UINT, OTHER_COUNT, bytes),         /* postOctetDeltaCount */
    [24] = TO(UINT, OTHER_COUNT, packets),       /* postPacketDeltaCount */
    [27] = TO(IP6, PLAIN, src),                  /* sourceIPv6Address */
    [28] = TO(IP6, PLAIN, dst),                  /* destinationIPv6Address */
    [32] = ASIDE(UINT, PLAIN, icmp),             /* icmpTypeCodeIPv4 */
    [34] = TO(UINT, PLAIN, sampling),            /* samplingInterval */
    [48] = ASIDE(UINT, PLAIN, sampler),          /* FLOW_SAMPLER_ID */
    [52] = TO(UINT, PLAIN, min_ttl),             /* minimumTTL */
    [53] = TO(UINT, PLAIN, max_ttl),             /* maximumTTL */
    [56] = TO(MAC, PLAIN, src_mac),              /* sourceMacAddress */
    [57] = TO(MAC, SECOND, dst_mac),             /* postDestinationMacAddress */
    [58] = TO(VID, PLAIN, vlan),                 /* vlanId */
    [60] = ASIDE(UINT, PLAIN, ip_version),       /* ipVersion */
    [61] = TO(UINT, PLAIN, direction),           /* flowDirection */
    [80] = TO(MAC, PLAIN, dst_mac),              /* destinationMacAddress */
    [81] = TO(MAC, SECOND, src_mac),             /* postSourceMacAddress */
    [85] = TO(UINT, OTHER_COUNT, bytes),         /* octetTotalCount */
    [86] = TO(UINT, OTHER_COUNT, packets),       /* packetTotalCount */
    [88] = ASIDE(UINT, PLAIN, fragment),         /* fragmentOffset */
    [89] = TO(UINT, PLAIN, forwarding),          /* forwardingStatus */
    [136] = TO(UINT, PLAIN, end),                /* flowEndReason */
    [139] = ASIDE(UINT, PLAIN, icmp),            /* icmpTypeCodeIPv6 */
    [150] = TO(SECONDS, SECOND, start_ms),       /* flowStartSeconds */
    [151] = TO(SECONDS, SECOND, end_ms),         /* flowEndSeconds */
    [152] = TO(UINT, PLAIN, start_ms),           /* flowStartMilliseconds */
    [153] = TO(UINT, PLAIN, end_ms),             /* flowEndMilliseconds */
    [154] = TO(NTP, PLAIN, start_ms),            /* flowStartMicroseconds */
    [155] = TO(NTP, PLAIN, end_ms),              /* flowEndMicroseconds */
    [156] = TO(NTP, PLAIN, start_ms),            /* flowStartNanoseconds */
    [157] = TO(NTP, PLAIN, end_ms),              /* flowEndNanoseconds */
    [158] = TO(DELTA_US, PLAIN, start_ms),       /* flowStartDeltaMicroseconds */
    [159] = TO(DELTA_US, PLAIN, end_ms),         /* flowEndDeltaMicroseconds */
    [160] = ASIDE(UINT, PLAIN, init_ms),         /* systemInitTimeMilliseconds */
    [161] = ASIDE(UINT, PLAIN, duration_ms),     /* flowDurationMilliseconds */
    [176] = ASIDE(UINT, PLAIN, icmp_type),       /* icmpTypeIPv4 */
    [177] = ASIDE(UINT, PLAIN, icmp_code),       /* icmpCodeIPv4 */
    [178] = ASIDE(UINT, PLAIN, icmp_type),       /* icmpTypeIPv6 */
    [179] = ASIDE(UINT, PLAIN, icmp_code),       /* icmpCodeIPv6 */
    [180] = TO(UINT, PLAIN, sport),              /* udpSourcePort */
    [181] = TO(UINT, PLAIN, dport),              /* udpDestinationPort */
    [182] = TO(UINT, PLAIN, sport),              /* tcpSourcePort */
    [183] = TO(UINT, PLAIN, dport),              /* tcpDestinationPort */
    [192] = TO(UINT, SECOND, min_ttl),           /* ipTTL */
    [231] = TO(UINT, COUNT, bytes),              /* initiatorOctets */
    [232] = ASIDE(UINT, PLAIN, reverse_bytes),   /* responderOctets */
    [243] = TO(VID, SECOND, vlan),               /* dot1qVlanId */
    [245] = TO(VID, PLAIN, customer_vlan),       /* dot1qCustomerVlanId */
    [256] = TO(UINT, TYPE, eth_type),            /* ethernetType */
    [298] = TO(UINT, COUNT, packets),            /* initiatorPackets */
    [299] = ASIDE(UINT, PLAIN, reverse_packets), /* responderPackets */
    [302] = ASIDE(UINT, PLAIN, sampler),         /* selectorId */
    [305] = ASIDE(UINT, PLAIN, packet_interval), /* samplingPacketInterval */
    [306] = ASIDE(UINT, PLAIN, packet_space),    /* samplingPacketSpace */
    [351] = TO(SEGMENT, PLAIN, tunnel_key),      /* layer2SegmentId */
    [352] = TO(UINT, OTHER_COUNT, bytes),        /* layer2OctetDeltaCount */
};

/* RFC 5103: what went the other way. */
#define REVERSE 29305u
static const struct element reverse[] = {
    [1] = ASIDE(UINT, PLAIN, reverse_bytes),
    [2] = ASIDE(UINT, PLAIN, reverse_packets),
    [85] = ASIDE(UINT, PLAIN, reverse_bytes),
    [86] = ASIDE(UINT, PLAIN, reverse_packets),
};

static const struct element weft[] = {
    [IE_WEFT_RULE_OUT] = TO(UINT, PLAIN, rule_out),  [IE_WEFT_RULE_IN] = TO(UINT, PLAIN, rule_in),
    [IE_WEFT_NETWORK] = TO(UINT, PLAIN, network),    [IE_WEFT_IN_VIF] = TO(UINT, PLAIN, in_vif),
    [IE_WEFT_OUT_VIF] = TO(UINT, PLAIN, out_vif),    [IE_WEFT_DROP] = TO(UINT, PLAIN, drop),
    [IE_WEFT_FRAGMENT] = TO(UINT, PLAIN, fragments), [IE_WEFT_TENANT] = TO(UINT, PLAIN, tenant),
};

static const struct element skip = {.op = ELEMENT_SKIP};

static const struct element *
element_in(const struct element *table, size_t n, uint16_t id)
{
    return id < n ? &table[id] : &skip;
}

#define IN(TABLE, ID) element_in(TABLE, sizeof(TABLE) / sizeof(TABLE)[0], ID)

const struct element *
element_of(uint32_t enterprise, uint16_t id)
{
    switch (enterprise) {
    case 0:
        return IN(iana, id);
    case IE_PEN_WEFT:
        return IN(weft, id);
    case REVERSE:
        return IN(reverse, id);
    default:
        return &skip;
    }
}
