/* ct_format: the numbers of docs/conntrack-records.md.  For ct_export.c and
 * ct_import.c. */
#ifndef CT_FORMAT_H
#define CT_FORMAT_H

#define CT_MAGIC "WEFT-CT\n"
#define CT_VERSION 1u

#define RECORD_OPTIONAL 0x80000000u
enum { RECORD_CONNECTION = 1, RECORD_ZONE_LIMIT = 2 | RECORD_OPTIONAL };
#define RECORD_HEADER 8u
#define RECORD_ALIGN 8u

#define ATTR_OPTIONAL 0x8000u
enum {
    ATTR_TUPLES = 1,
    ATTR_LIFE,
    ATTR_MARK,
    ATTR_LABEL,
    ATTR_TCP,
    ATTR_STATE,
    ATTR_NAT,
    ATTR_ALG,
    ATTR_PARENT,
    ATTR_SEQ_SKEW,
    N_ATTRS
};
#define ATTR_HEADER 4u
#define ATTR_ALIGN 4u

#define TUPLE_LEN 40u
#define TUPLES_LEN (4 + 2 * TUPLE_LEN)
#define LIFE_LEN 8u
#define LABEL_LEN 16u
#define TCP_PEER_LEN 12u
#define TCP_LEN (2 * TCP_PEER_LEN)
#define PARENT_LEN (4 + TUPLE_LEN)
#define SEQ_SKEW_LEN 8u
#define ZONE_LIMIT_LEN 8u

/* Larger shifts than a packet's worth come from nowhere. */
#define SEQ_SKEW_MAX 65536

#endif
