/* ie: the information elements that Weft's exporter writes and its collector
 * reads: IANA's registry of IPFIX, RFC 7012; NetFlow v9 has the same numbers
 * up to 127.  And our own, of an enterprise number that nobody is assigned.
 *
 * docs/flows.md describes each of ours; exporters describe them in-band by
 * RFC 5610. */
#ifndef IE_H
#define IE_H

enum ie {
    IE_OCTETS = 1,
    IE_PACKETS = 2,
    IE_PROTOCOL = 4,
    IE_TOS = 5,
    IE_TCP_FLAGS = 6,
    IE_SPORT = 7,
    IE_SRC4 = 8,
    IE_IN_IF = 10,
    IE_DPORT = 11,
    IE_DST4 = 12,
    IE_OUT_IF = 14,
    IE_LAST_SWITCHED = 21,  /* v9: ms of the exporter's uptime */
    IE_FIRST_SWITCHED = 22, /* v9 */
    IE_SRC6 = 27,
    IE_DST6 = 28,
    IE_ICMP4 = 32, /* type << 8 | code */
    IE_SAMPLING_INTERVAL = 34,
    IE_SAMPLING_ALGORITHM = 35, /* 1: every Nth */
    IE_EXPORTED_OCTETS = 40,
    IE_EXPORTED_MESSAGES = 41,
    IE_EXPORTED_FLOWS = 42,
    IE_MIN_TTL = 52,
    IE_MAX_TTL = 53,
    IE_SRC_MAC = 56,
    IE_VLAN = 58,
    IE_DIRECTION = 61,
    IE_DST_MAC = 80,
    IE_IF_NAME = 82,
    IE_IF_DESCRIPTION = 83,
    IE_FORWARDING = 89,
    IE_END_REASON = 136,
    IE_OBSERVATION_POINT = 138,
    IE_ICMP6 = 139,
    IE_DOMAIN = 149,
    IE_START_MS = 152,
    IE_END_MS = 153,
    IE_NOT_SENT_FLOWS = 166,
    IE_NOT_SENT_PACKETS = 167,
    IE_NOT_SENT_OCTETS = 168,
    IE_DOT1Q_VLAN = 243,
    IE_DOT1Q_CUSTOMER_VLAN = 245,
    IE_ETHER_TYPE = 256,
    IE_ID = 303,
    IE_SELECTOR_ALGORITHM = 304, /* 1: systematic count-based */
    IE_SAMPLING_PACKET_INTERVAL = 305,
    IE_SAMPLING_PACKET_SPACE = 306,
    IE_DATA_TYPE = 339,
    IE_NAME = 341,
    IE_SEMANTICS = 344,
    IE_UNITS = 345,
    IE_ENTERPRISE = 346,
    IE_L2_SEGMENT = 351,         /* type << 56 (1: VXLAN, 2: NVGRE) | key */
    IE_ORIGINAL_EXPORTER4 = 403, /* of mediators: RFC 7119 */
    IE_ORIGINAL_EXPORTER6 = 404,
    IE_ORIGINAL_DOMAIN = 405,
};

/* "WEFT"; numbers so large are not assigned. */
#define IE_PEN_WEFT 0x57454654u

/* X(constant, number, RFC 5610 data type, semantics, length, name)
 * Types: 1 u8, 2 u16, 3 u32, 4 u64, 13 string.  Semantics: 0 default,
 * 4 identifier.  Lengths are what the exporter writes; 65535: variable. */
#define IE_WEFT(X)                                                                                 \
    X(IE_WEFT_RULE_OUT, 1, 3, 4, 4, "weftRuleOut")                                                 \
    X(IE_WEFT_RULE_IN, 2, 3, 4, 4, "weftRuleIn")                                                   \
    X(IE_WEFT_NETWORK, 3, 3, 4, 4, "weftNetwork")                                                  \
    X(IE_WEFT_IN_VIF, 4, 3, 4, 4, "weftInVif")                                                     \
    X(IE_WEFT_OUT_VIF, 5, 3, 4, 4, "weftOutVif")                                                   \
    X(IE_WEFT_DROP, 6, 2, 4, 2, "weftDropReason")                                                  \
    X(IE_WEFT_FRAGMENT, 7, 1, 4, 1, "weftLaterFragment")                                           \
    X(IE_WEFT_TENANT, 8, 3, 4, 4, "weftTenant")                                                    \
    X(IE_WEFT_VIF_UUID, 9, 13, 0, 65535, "weftVifUuid")                                            \
    X(IE_WEFT_VM_UUID, 10, 13, 0, 65535, "weftVmUuid")                                             \
    X(IE_WEFT_NETWORK_UUID, 11, 13, 0, 65535, "weftNetworkUuid")                                   \
    X(IE_WEFT_DROP_NAME, 12, 13, 0, 65535, "weftDropReasonName")

enum ie_weft {
#define X(id, number, type, semantics, len, name) id = number,
    IE_WEFT(X)
#undef X
};

#endif
