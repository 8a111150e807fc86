/* element: which information elements (RFC 7012, IANA's registry; Weft's own) the
 * collector understands in flow records, and where each goes.
 *
 * Constant tables.  Any thread. */
#ifndef ELEMENT_H
#define ELEMENT_H

#include <stdbool.h>
#include <stdint.h>

enum element_op {
    ELEMENT_SKIP = 0,
    ELEMENT_UINT,     /* a number of 1 to 8 bytes into one of 'width' */
    ELEMENT_IP4,      /* 4 bytes into an address, ::ffff:a.b.c.d */
    ELEMENT_IP6,      /* 16 bytes */
    ELEMENT_MAC,      /* 6 bytes */
    ELEMENT_SECONDS,  /* Unix time */
    ELEMENT_NTP,      /* dateTimeMicroseconds, dateTimeNanoseconds: NTP's 64 bits */
    ELEMENT_DELTA_US, /* before the message's export */
    ELEMENT_VID,      /* low 12 bits */
    ELEMENT_SEGMENT,  /* layer2SegmentId: type, and 56 bits */
};

enum element_role {
    ELEMENT_PLAIN = 0,
    ELEMENT_COUNT,       /* of packets or bytes: makes a record one of a flow */
    ELEMENT_OTHER_COUNT, /* the same, but totals, at L2, or behind the switch: second choice */
    ELEMENT_UPTIME,      /* a time in ms of the exporter's uptime */
    ELEMENT_TYPE,        /* ethernetType */
    ELEMENT_SECOND,      /* another element says the same better */
};

struct element {
    uint8_t op, role;
    uint8_t width; /* bytes at 'dst' */
    bool extra;    /* 'dst' is in struct template_extra, not in struct flow_record */
    uint16_t dst;
};

/* Never NULL; ELEMENT_SKIP for what the collector does not use. */
const struct element *element_of(uint32_t enterprise, uint16_t id);

#endif
