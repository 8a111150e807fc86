/* flow_record: one flow record, in the form in which the exporter hands it to its
 * encoders and the collector's decoders hand it to the store.
 *
 * A record counts the packets of one 5-tuple, in one direction, at one switch
 * or router, from 'start_ms' to 'end_ms'.  What an exporter did not say is 0.
 * Plain data: may be copied; owns nothing.  Threads: none of its own.
 *
 * Terms are IPFIX's (RFC 7011, RFC 7012; elements of the IANA registry are
 * named where they are not obvious). */
#ifndef FLOW_RECORD_H
#define FLOW_RECORD_H

#include <netinet/in.h>
#include <stdint.h>

#define FLOW_NAME_MAX 63u /* bytes of a name of ours in a record */

enum flow_direction {
    FLOW_INGRESS = 0, /* seen as it came into the switch: flowDirection (61) */
    FLOW_EGRESS = 1,
};

enum flow_end { /* flowEndReason (136) */
                FLOW_END_UNKNOWN = 0,
                FLOW_END_IDLE = 1,
                FLOW_END_ACTIVE = 2,    /* goes on: the active timeout */
                FLOW_END_DETECTED = 3,  /* TCP's FIN or RST */
                FLOW_END_FORCED = 4,    /* the exporter ends, or the port goes */
                FLOW_END_RESOURCES = 5, /* pushed out of a full cache */
};

struct flow_record {
    uint64_t start_ms, end_ms; /* Unix time of its first and its last packet */
    uint64_t packets,
        bytes; /* bytes: IP header and payload (octetDeltaCount); L2 for what is not IP */
    struct in6_addr src, dst; /* IPv4 as ::ffff:a.b.c.d; :: if it is not IP */
    uint64_t tunnel_key;      /* layer2SegmentId (351) without its type: VNI, GRE key */

    uint32_t in_if, out_if; /* ingressInterface, egressInterface: OpenFlow port numbers of Weft's */
    uint32_t rule_out,
        rule_in; /* keys of the rules of source's and destination's side that decided */
    uint32_t network, tenant, in_vif, out_vif; /* keys of the pool's objects */
    uint32_t sampling; /* one packet in so many was counted; 0: not said; 1: all */
    uint32_t domain;   /* observation domain (source id of v9, engine of v5) */

    uint16_t eth_type;            /* 0x0800, 0x86dd, ... */
    uint16_t sport, dport;        /* host order; ICMP: 0 and type << 8 | code */
    uint16_t vlan, customer_vlan; /* VID of the outer tag (58) and of the inner one; 0: none */
    uint16_t tcp_flags;           /* of all packets (tcpControlBits) */
    uint8_t src_mac[6], dst_mac[6];
    uint8_t proto, tos; /* tos: of the first packet, with ECN bits */
    uint8_t min_ttl, max_ttl;
    uint8_t direction;  /* enum flow_direction */
    uint8_t end;        /* enum flow_end */
    uint8_t forwarding; /* forwardingStatus (89): 0x40 forwarded, 0x80 dropped, and a reason */
    uint8_t fragments;  /* 1: not the first fragment, so without ports */
    uint16_t drop;      /* why: 1 + enum drop_reason of lib/drop.h; 0: was not dropped */
};

#endif
