/* template: what a NetFlow v9 or IPFIX template says (RFC 3954, RFC 7011), and the
 * steps that turn a record in its form into a struct flow_record.
 *
 * Pure functions over bytes.  Threads: none of its own.  Ownership: a template is
 * one block of memory from malloc(); whoever holds the pointer frees it. */
#ifndef TEMPLATE_H
#define TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cursor.h"
#include "flow_record.h"

#define TEMPLATE_VARIABLE 0xffffu /* length of a field that says it in each record */
#define TEMPLATE_FIELDS_MAX 1024u

struct template_field {
    uint32_t enterprise; /* 0: IANA's */
    uint16_t element;    /* v9 scopes: their own numbers */
    uint16_t len;
};

/* What a record says that has no place in a struct flow_record. */
struct template_extra {
    uint64_t init_ms; /* systemInitTimeMilliseconds */
    uint64_t duration_ms, reverse_packets, reverse_bytes;
    uint32_t sampler;                        /* selectorId, FLOW_SAMPLER_ID */
    uint32_t packet_interval, packet_space;  /* of systematic sampling */
    uint16_t icmp;                           /* type << 8 | code */
    uint16_t icmp_type, icmp_code, fragment; /* fragment: its offset */
    uint8_t ip_version;
};

struct template_step {
    uint16_t src, len; /* in the record, if that is of fixed length */
    uint16_t field;
    uint16_t dst;
    uint8_t op, width;
    uint8_t quick; /* the same for many records in one go; 0: there is none */
    bool extra;    /* 'dst' is in the struct template_extra */
};

struct template
{
    struct template *next; /* of its holder */
    uint64_t seen_ms;      /* when last announced */
    uint32_t mem_bytes;
    uint16_t id, n_fields, n_scope, n_steps;
    uint16_t min_len; /* of a record; never 0 */
    bool variable;    /* some field is */
    bool options;
    bool is_flow;                  /* counts packets or bytes */
    bool start_uptime, end_uptime; /* the time is of the exporter's uptime */
    bool ip4, ip6;                 /* has addresses of */
    bool types;                    /* has ethernetType */
    bool extras;                   /* some step's 'dst' is in the struct template_extra */
    bool reverse;                  /* counts what went the other way, too */
    struct {
        uint16_t index, name; /* fields: an interface's number, and its name */
    } names[2];
    unsigned n_names;
    struct template_step *steps;
    struct template_field fields[];
};

enum template_dialect { TEMPLATE_V9, TEMPLATE_IPFIX };

/* Takes one template record from 'c' (an options template's if 'options').  0 and
 * *out, or: EPROTO it is malformed and what follows it is lost, EINVAL nothing of its form can be
 * read (no fields, or records of no length), E2BIG it has more than 'max_fields', ENOMEM; after
 * the last three 'c' is behind it.  A withdrawal is a template without fields: *out with
 * n_fields 0. */
int template_parse(struct cursor *c, enum template_dialect, bool options, unsigned max_fields,
                   struct template **out);

/* Whether both say the same. */
bool template_same(const struct template *, const struct template *);

/* Where the fields of one record are; enough for any template. */
struct template_layout {
    uint16_t ofs[TEMPLATE_FIELDS_MAX], len[TEMPLATE_FIELDS_MAX];
};

/* Takes one record from 'c': its fields' places, from its first byte.  False: it does not fit. */
bool template_layout(const struct template *, struct cursor *c, struct template_layout *);

/* Takes one record from 'c' into 'r' and 'extra'.  'export_ms' is the time in the
 * message's header.  False: what is left is no record. */
bool template_read(const struct template *, struct cursor *c, uint64_t export_ms,
                   struct flow_record *r, struct template_extra *extra);

/* The same for records of fixed length, field by field: at most 'max', as many as there are in
 * 'c'; how many.  'extra' is not touched unless the template has extras. */
unsigned template_read_many(const struct template *, struct cursor *c, uint64_t export_ms,
                            struct flow_record *r, struct template_extra *extra, unsigned max);

/* Big-endian number of 1 to 8 bytes; others read as 0. */
uint64_t template_uint(const uint8_t *p, size_t len);

#endif
