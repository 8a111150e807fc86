/* export_message: see export_message.h.
 *
 * Templates are tables of fields; a data record is written by the same table,
 * so that the two cannot disagree. */
#include "export_message.h"

#include <netinet/in.h>
#include <string.h>

#include "bytes.h"
#include "drop.h"
#include "ie.h"

#define V5_HEADER 24u
#define V5_RECORD 48u
#define V5_RECORDS_MAX 28u /* 1,400 bytes */
#define V9_HEADER 20u
#define IPFIX_HEADER 16u
#define SET_HEADER 4u
#define VARIABLE 65535u

enum template_id {
    TEMPLATE_IPV4 = 256,
    TEMPLATE_IPV6,
    TEMPLATE_ETHERNET,
    OPTIONS_SAMPLING,
    OPTIONS_INTERFACE,
    OPTIONS_STATISTICS,
    OPTIONS_TYPES,
    OPTIONS_DROPS,
    MEDIATED, /* and the next five: of exporters of IPv4 and of IPv6 */
};
enum { N_DATA = 3, N_MEDIATED = 2 * N_DATA };

struct field {
    uint16_t id;
    uint16_t len;
    bool weft; /* of our enterprise number */
};

/* X(element, length).  What both versions have. */
#define COMMON(X)                                                                                  \
    X(IE_OCTETS, 8)                                                                                \
    X(IE_PACKETS, 8)                                                                               \
    X(IE_IN_IF, 4)                                                                                 \
    X(IE_OUT_IF, 4)                                                                                \
    X(IE_SRC_MAC, 6)                                                                               \
    X(IE_DST_MAC, 6)                                                                               \
    X(IE_VLAN, 2)                                                                                  \
    X(IE_DOT1Q_VLAN, 2)                                                                            \
    X(IE_DOT1Q_CUSTOMER_VLAN, 2)                                                                   \
    X(IE_DIRECTION, 1) X(IE_FORWARDING, 1) X(IE_END_REASON, 1) X(IE_L2_SEGMENT, 8)
#define TRANSPORT(X) X(IE_PROTOCOL, 1) X(IE_TOS, 1) X(IE_TCP_FLAGS, 2) X(IE_SPORT, 2) X(IE_DPORT, 2)
#define V9_TIMES(X) X(IE_FIRST_SWITCHED, 4) X(IE_LAST_SWITCHED, 4)
#define IPFIX_TIMES(X) X(IE_START_MS, 8) X(IE_END_MS, 8)

#define F(ID, LEN) {ID, LEN, false},
#define OURS                                                                                       \
    {IE_WEFT_RULE_OUT, 4, true}, {IE_WEFT_RULE_IN, 4, true}, {IE_WEFT_NETWORK, 4, true},           \
        {IE_WEFT_IN_VIF, 4, true}, {IE_WEFT_OUT_VIF, 4, true}, {IE_WEFT_DROP, 2, true},            \
        {IE_WEFT_FRAGMENT, 1, true}, {IE_WEFT_TENANT, 4, true},

static const struct field v9_ipv4[] = {V9_TIMES(F) COMMON(F) TRANSPORT(F) F(IE_SRC4, 4)
                                           F(IE_DST4, 4) F(IE_ICMP4, 2)};
static const struct field v9_ipv6[] = {V9_TIMES(F) COMMON(F) TRANSPORT(F) F(IE_SRC6, 16)
                                           F(IE_DST6, 16) F(IE_ICMP4, 2)}; /* v9 has one for both */
static const struct field v9_ethernet[] = {V9_TIMES(F) COMMON(F) F(IE_ETHER_TYPE, 2)};
#define IPFIX_IPV4                                                                                 \
    IPFIX_TIMES(F)                                                                                 \
    COMMON(F) TRANSPORT(F) F(IE_SRC4, 4) F(IE_DST4, 4) F(IE_ICMP4, 2) F(IE_ETHER_TYPE, 2) OURS
#define IPFIX_IPV6                                                                                 \
    IPFIX_TIMES(F)                                                                                 \
    COMMON(F) TRANSPORT(F) F(IE_SRC6, 16) F(IE_DST6, 16) F(IE_ICMP6, 2) F(IE_ETHER_TYPE, 2) OURS
#define IPFIX_ETHERNET IPFIX_TIMES(F) COMMON(F) F(IE_ETHER_TYPE, 2) OURS
#define ORIGINAL4 F(IE_ORIGINAL_EXPORTER4, 4) F(IE_ORIGINAL_DOMAIN, 4)
#define ORIGINAL6 F(IE_ORIGINAL_EXPORTER6, 16) F(IE_ORIGINAL_DOMAIN, 4)
static const struct field ipfix_ipv4[] = {IPFIX_IPV4};
static const struct field ipfix_ipv6[] = {IPFIX_IPV6};
static const struct field ipfix_ethernet[] = {IPFIX_ETHERNET};
static const struct field ipfix_ipv4_of4[] = {IPFIX_IPV4 ORIGINAL4};
static const struct field ipfix_ipv6_of4[] = {IPFIX_IPV6 ORIGINAL4};
static const struct field ipfix_ethernet_of4[] = {IPFIX_ETHERNET ORIGINAL4};
static const struct field ipfix_ipv4_of6[] = {IPFIX_IPV4 ORIGINAL6};
static const struct field ipfix_ipv6_of6[] = {IPFIX_IPV6 ORIGINAL6};
static const struct field ipfix_ethernet_of6[] = {IPFIX_ETHERNET ORIGINAL6};

/* Options: the first is the scope (v9 has scope types of its own). */
#define V9_SCOPE_SYSTEM 1u
#define V9_SCOPE_INTERFACE 2u
static const struct field v9_sampling[] = {{V9_SCOPE_SYSTEM, 4, false},
                                           F(IE_SAMPLING_INTERVAL, 4) F(IE_SAMPLING_ALGORITHM, 1)};
static const struct field v9_interface[] = {{V9_SCOPE_INTERFACE, 4, false},
                                            F(IE_IF_NAME, 32) F(IE_IF_DESCRIPTION, 64)};
static const struct field v9_statistics[] = {
    {V9_SCOPE_SYSTEM, 4, false},
    F(IE_EXPORTED_OCTETS, 8) F(IE_EXPORTED_MESSAGES, 8) F(IE_EXPORTED_FLOWS, 8)
        F(IE_NOT_SENT_FLOWS, 8) F(IE_NOT_SENT_PACKETS, 8) F(IE_NOT_SENT_OCTETS, 8)};
static const struct field ipfix_sampling[] = {F(IE_DOMAIN, 4) F(IE_SAMPLING_INTERVAL, 4) F(
    IE_SAMPLING_ALGORITHM, 1) F(IE_SELECTOR_ALGORITHM, 2) F(IE_SAMPLING_PACKET_INTERVAL, 4)
                                                  F(IE_SAMPLING_PACKET_SPACE, 4)};
static const struct field ipfix_interface[] = {
    F(IE_IN_IF, 4) F(IE_IF_NAME, VARIABLE)
        F(IE_IF_DESCRIPTION, VARIABLE){IE_WEFT_VIF_UUID, VARIABLE, true},
    {IE_WEFT_VM_UUID, VARIABLE, true},
    {IE_WEFT_NETWORK_UUID, VARIABLE, true}};
static const struct field ipfix_statistics[] = {
    F(IE_DOMAIN, 4) F(IE_EXPORTED_OCTETS, 8) F(IE_EXPORTED_MESSAGES, 8) F(IE_EXPORTED_FLOWS, 8)
        F(IE_NOT_SENT_FLOWS, 8) F(IE_NOT_SENT_PACKETS, 8) F(IE_NOT_SENT_OCTETS, 8)};
static const struct field ipfix_types[] = {F(IE_ENTERPRISE, 4) F(IE_ID, 2) F(IE_DATA_TYPE, 1) F(
    IE_SEMANTICS, 1) F(IE_UNITS, 2) F(IE_NAME, VARIABLE)};
static const struct field ipfix_drops[] = {{IE_WEFT_DROP, 2, true},
                                           {IE_WEFT_DROP_NAME, VARIABLE, true}};
#undef F

struct template
{
    uint16_t id;
    uint8_t n_scopes; /* 0: of data */
    uint8_t n;
    const struct field *fields;
};
#define T(ID, SCOPES, FIELDS)                                                                      \
    {                                                                                              \
        ID, SCOPES, sizeof FIELDS / sizeof FIELDS[0], FIELDS                                       \
    }

static const struct template v9_templates[] = {
    T(TEMPLATE_IPV4, 0, v9_ipv4),          T(TEMPLATE_IPV6, 0, v9_ipv6),
    T(TEMPLATE_ETHERNET, 0, v9_ethernet),  T(OPTIONS_SAMPLING, 1, v9_sampling),
    T(OPTIONS_INTERFACE, 1, v9_interface), T(OPTIONS_STATISTICS, 1, v9_statistics),
};
static const struct template ipfix_templates[] = {
    T(TEMPLATE_IPV4, 0, ipfix_ipv4),          T(TEMPLATE_IPV6, 0, ipfix_ipv6),
    T(TEMPLATE_ETHERNET, 0, ipfix_ethernet),  T(OPTIONS_SAMPLING, 1, ipfix_sampling),
    T(OPTIONS_INTERFACE, 1, ipfix_interface), T(OPTIONS_STATISTICS, 1, ipfix_statistics),
    T(OPTIONS_TYPES, 2, ipfix_types),         T(OPTIONS_DROPS, 1, ipfix_drops),
};
static const struct template mediated[N_MEDIATED] = {
    T(MEDIATED, 0, ipfix_ipv4_of4),         T(MEDIATED + 1, 0, ipfix_ipv6_of4),
    T(MEDIATED + 2, 0, ipfix_ethernet_of4), T(MEDIATED + 3, 0, ipfix_ipv4_of6),
    T(MEDIATED + 4, 0, ipfix_ipv6_of6),     T(MEDIATED + 5, 0, ipfix_ethernet_of6),
};
#undef T

/* --- bytes ---------------------------------------------------------------------- */

static bool
has_room(const struct export_message *m, unsigned n)
{
    return m->len + n <= EXPORT_MESSAGE_MAX;
}

/* Big-endian, in 'len' bytes; what does not fit is as large as can be. */
static void
put(struct export_message *m, uint64_t v, unsigned len)
{
    if (len < 8 && v >> 8 * len) {
        v = (UINT64_C(1) << 8 * len) - 1;
    }
    for (unsigned i = 0; i < len; i++) {
        m->bytes[m->len + i] = v >> 8 * (len - 1 - i);
    }
    m->len += len;
}

static void
put_bytes(struct export_message *m, const void *bytes, unsigned len)
{
    memcpy(m->bytes + m->len, bytes, len);
    m->len += len;
}

/* Of variable length, below 255. */
static void
put_string(struct export_message *m, const char *s)
{
    unsigned len = strnlen(s, 254);

    put(m, len, 1);
    put_bytes(m, s, len);
}

/* Of fixed length, filled up with zeros. */
static void
put_fixed(struct export_message *m, const char *s, unsigned size)
{
    unsigned len = strnlen(s, size);

    memset(m->bytes + m->len, 0, size);
    memcpy(m->bytes + m->len, s, len);
    m->len += size;
}

/* --- sets -------------------------------------------------------------------------- */

static void
close_set(struct export_message *m)
{
    if (m->set) {
        /* IPFIX needs none, and three zeros could be a record. */
        while (m->version == EXPORT_V9 && m->len % 4) {
            m->bytes[m->len++] = 0;
        }
        put_be16(m->bytes + m->set + 2, m->len - m->set);
        m->set = 0;
    }
}

/* Room for a record of 'n' bytes in a set of that id; false: there is none. */
static bool
open_set(struct export_message *m, uint16_t id, unsigned n)
{
    unsigned pad = 3;

    if (m->set && m->set_id == id) {
        return has_room(m, n + pad);
    }
    if (!has_room(m, pad + SET_HEADER + n + pad)) {
        return false;
    }
    close_set(m);
    m->set = m->len;
    m->set_id = id;
    put(m, id, 2);
    put(m, 0, 2);
    return true;
}

static unsigned
fixed_length(const struct field *fields, unsigned n)
{
    unsigned len = 0;

    for (unsigned i = 0; i < n; i++) {
        len += fields[i].len == VARIABLE ? 0 : fields[i].len;
    }
    return len;
}

void
export_message_start(struct export_message *m)
{
    m->len = m->version == EXPORT_V5   ? V5_HEADER
             : m->version == EXPORT_V9 ? V9_HEADER
                                       : IPFIX_HEADER;
    m->set = m->records = m->data = m->flows = 0;
    m->packets = m->octets = 0;
}

bool
export_message_is_empty(const struct export_message *m)
{
    return !m->records;
}

static void
put_templates(struct export_message *m, const struct template *t)
{
    const bool v9 = m->version == EXPORT_V9;
    unsigned most = 6 + t->n * 8u;

    open_set(m, (v9 ? 0 : 2) + (t->n_scopes ? 1 : 0), most);
    put(m, t->id, 2);
    if (v9 && t->n_scopes) {
        put(m, t->n_scopes * 4, 2);
        put(m, (t->n - t->n_scopes) * 4, 2);
    } else {
        put(m, t->n, 2);
        if (t->n_scopes) {
            put(m, t->n_scopes, 2);
        }
    }
    for (unsigned i = 0; i < t->n; i++) {
        const struct field *f = &t->fields[i];
        put(m, f->id | (f->weft ? 0x8000 : 0), 2);
        put(m, f->len, 2);
        if (f->weft) {
            put(m, IE_PEN_WEFT, 4);
        }
    }
    m->records++;
}

void
export_message_templates(struct export_message *m)
{
    bool v9 = m->version == EXPORT_V9;
    const struct template *t = v9 ? v9_templates : ipfix_templates;
    size_t n = v9 ? sizeof v9_templates / sizeof *t : sizeof ipfix_templates / sizeof *t;

    for (size_t i = 0; i < N_MEDIATED && m->mediator; i++) {
        put_templates(m, &mediated[i]);
    }
    for (size_t i = m->mediator ? N_DATA : 0; i < n && m->version != EXPORT_V5; i++) {
        put_templates(m, &t[i]);
    }
}

/* --- flows ---------------------------------------------------------------------------- */

static bool
is_icmp(const struct flow_record *r)
{
    return r->proto == IPPROTO_ICMP || r->proto == IPPROTO_ICMPV6;
}

/* Ms of uptime, for 32 bits. */
static uint32_t
uptime(const struct export_message *m, uint64_t ms)
{
    return ms > m->boot ? ms - m->boot : 0;
}

static uint64_t
number(const struct export_message *m, const struct flow_record *r, enum ie id)
{
    switch (id) {
    case IE_OCTETS:
        return r->bytes;
    case IE_PACKETS:
        return r->packets;
    case IE_PROTOCOL:
        return r->proto;
    case IE_TOS:
        return r->tos;
    case IE_TCP_FLAGS:
        return r->tcp_flags;
    case IE_SPORT:
        return r->sport;
    case IE_DPORT:
        return r->dport;
    case IE_IN_IF:
        return r->in_if;
    case IE_OUT_IF:
        return r->out_if;
    case IE_FIRST_SWITCHED:
        return uptime(m, r->start_ms);
    case IE_LAST_SWITCHED:
        return uptime(m, r->end_ms);
    case IE_START_MS:
        return r->start_ms;
    case IE_END_MS:
        return r->end_ms;
    case IE_ICMP4:
    case IE_ICMP6:
        return is_icmp(r) ? r->dport : 0;
    case IE_VLAN:
    case IE_DOT1Q_VLAN:
        return r->vlan;
    case IE_DOT1Q_CUSTOMER_VLAN:
        return r->customer_vlan;
    case IE_DIRECTION:
        return r->direction;
    case IE_FORWARDING:
        return r->forwarding;
    case IE_END_REASON:
        return r->end;
    case IE_ETHER_TYPE:
        return r->eth_type;
    case IE_L2_SEGMENT:
        return r->tunnel_key;
    case IE_ORIGINAL_DOMAIN:
        return m->original_domain;
    default:
        return 0;
    }
}

static uint64_t
number_of_ours(const struct flow_record *r, enum ie_weft id)
{
    switch (id) {
    case IE_WEFT_RULE_OUT:
        return r->rule_out;
    case IE_WEFT_RULE_IN:
        return r->rule_in;
    case IE_WEFT_NETWORK:
        return r->network;
    case IE_WEFT_TENANT:
        return r->tenant;
    case IE_WEFT_IN_VIF:
        return r->in_vif;
    case IE_WEFT_OUT_VIF:
        return r->out_vif;
    case IE_WEFT_DROP:
        return r->drop;
    case IE_WEFT_FRAGMENT:
        return r->fragments;
    default:
        return 0;
    }
}

static void
put_field(struct export_message *m, const struct flow_record *r, const struct field *f)
{
    if (f->weft) {
        put(m, number_of_ours(r, f->id), f->len);
        return;
    }
    switch (f->id) {
    case IE_SRC4:
        put_bytes(m, r->src.s6_addr + 12, 4);
        break;
    case IE_DST4:
        put_bytes(m, r->dst.s6_addr + 12, 4);
        break;
    case IE_SRC6:
        put_bytes(m, r->src.s6_addr, 16);
        break;
    case IE_DST6:
        put_bytes(m, r->dst.s6_addr, 16);
        break;
    case IE_ORIGINAL_EXPORTER4:
        put_bytes(m, m->original.s6_addr + 12, 4);
        break;
    case IE_ORIGINAL_EXPORTER6:
        put_bytes(m, m->original.s6_addr, 16);
        break;
    case IE_SRC_MAC:
        put_bytes(m, r->src_mac, 6);
        break;
    case IE_DST_MAC:
        put_bytes(m, r->dst_mac, 6);
        break;
    default:
        put(m, number(m, r, f->id), f->len);
    }
}

static void
put_v5(struct export_message *m, const struct flow_record *r, uint32_t packets, uint32_t bytes)
{
    put_bytes(m, r->src.s6_addr + 12, 4);
    put_bytes(m, r->dst.s6_addr + 12, 4);
    put(m, 0, 4); /* next hop */
    put(m, r->in_if, 2);
    put(m, r->out_if, 2);
    put(m, packets, 4);
    put(m, bytes, 4);
    put(m, uptime(m, r->start_ms), 4);
    put(m, uptime(m, r->end_ms), 4);
    put(m, r->sport, 2);
    put(m, r->dport, 2);
    put(m, 0, 1);
    put(m, r->tcp_flags & 0xff, 1);
    put(m, r->proto, 1);
    put(m, r->tos, 1);
    put(m, 0, 8); /* AS numbers, prefix lengths, padding */
    m->records++;
    m->flows++;
}

/* How many records of v5 it takes, with counters of 32 bits. */
static uint64_t
parts_v5(const struct flow_record *r)
{
    return (r->bytes > r->packets ? r->bytes : r->packets) / UINT32_MAX + 1;
}

bool
export_message_part(const struct export_message *m, struct flow_record *rest,
                    struct flow_record *part)
{
    uint64_t messages = m->version == EXPORT_V5 ? (parts_v5(rest) - 1) / V5_RECORDS_MAX + 1 : 1;

    *part = *rest;
    part->packets = rest->packets / messages;
    part->bytes = rest->bytes / messages;
    rest->packets -= part->packets;
    rest->bytes -= part->bytes;
    return messages > 1;
}

static bool
flow_v5(struct export_message *m, const struct flow_record *r)
{
    uint64_t parts = parts_v5(r), packets = r->packets, bytes = r->bytes;

    if (m->records + parts > V5_RECORDS_MAX) {
        return false;
    }
    for (; parts; parts--) {
        uint64_t p = packets / parts, b = bytes / parts;

        put_v5(m, r, p, b);
        packets -= p;
        bytes -= b;
    }
    return true;
}

bool
export_message_flow(struct export_message *m, const struct flow_record *r, bool *cannot)
{
    unsigned which = r->eth_type == 0x0800 ? 0 : r->eth_type == 0x86dd ? 1 : 2;
    const struct template *t;

    *cannot = m->version == EXPORT_V5 && which;
    if (*cannot) {
        return true;
    }
    if (m->version == EXPORT_V5) {
        if (!flow_v5(m, r)) {
            return false;
        }
        m->packets += r->packets;
        m->octets += r->bytes;
        return true;
    }
    if (m->mediator) {
        t = &mediated[which + (IN6_IS_ADDR_V4MAPPED(&m->original) ? 0 : N_DATA)];
    } else {
        t = m->version == EXPORT_V9 ? &v9_templates[which] : &ipfix_templates[which];
    }
    if (!open_set(m, t->id, fixed_length(t->fields, t->n))) {
        return false;
    }
    for (unsigned i = 0; i < t->n; i++) {
        put_field(m, r, &t->fields[i]);
    }
    m->records++;
    m->data++;
    m->flows++;
    m->packets += r->packets;
    m->octets += r->bytes;
    return true;
}

/* --- options ---------------------------------------------------------------------------- */

static bool
start_option(struct export_message *m, uint16_t id, unsigned most)
{
    if (m->version == EXPORT_V5 || !open_set(m, id, most)) {
        return false;
    }
    m->records++;
    m->data++;
    return true;
}

bool
export_message_sampling(struct export_message *m)
{
    if (!start_option(m, OPTIONS_SAMPLING, 32)) {
        return false;
    }
    put(m, m->version == EXPORT_V9 ? 0 : m->domain, 4);
    put(m, m->sampling, 4);
    put(m, 1, 1);
    if (m->version == EXPORT_IPFIX) {
        put(m, 1, 2); /* systematic, count-based: one packet, then so many not */
        put(m, 1, 4);
        put(m, m->sampling - 1, 4);
    }
    return true;
}

bool
export_message_interface(struct export_message *m, const struct export_interface *i)
{
    if (!start_option(m, OPTIONS_INTERFACE, 4 + sizeof *i)) {
        return false;
    }
    put(m, i->index, 4);
    if (m->version == EXPORT_V9) {
        put_fixed(m, i->name, 32);
        put_fixed(m, i->description, 64);
    } else {
        put_string(m, i->name);
        put_string(m, i->description);
        put_string(m, i->vif);
        put_string(m, i->vm);
        put_string(m, i->network);
    }
    return true;
}

bool
export_message_statistics(struct export_message *m, const struct export_stats *s,
                          const struct export_losses *losses)
{
    if (!start_option(m, OPTIONS_STATISTICS, 52)) {
        return false;
    }
    put(m, m->version == EXPORT_V9 ? 0 : m->domain, 4);
    put(m, s->bytes, 8);
    put(m, s->messages, 8);
    put(m, s->records, 8);
    put(m, losses->records + s->dropped_records, 8);
    put(m, losses->packets + s->dropped_packets, 8);
    put(m, losses->bytes + s->dropped_bytes, 8);
    return true;
}

static const struct {
    uint16_t id;
    uint8_t type, semantics;
    const char *name;
} described[] = {
#define X(id, number, type, semantics, len, name) {number, type, semantics, name},
    IE_WEFT(X)
#undef X
};
#define N_DESCRIBED (sizeof described / sizeof described[0])

bool
export_message_describe(struct export_message *m, unsigned i, bool *done)
{
    unsigned drop = i - N_DESCRIBED;

    *done = m->version != EXPORT_IPFIX || i >= N_DESCRIBED + DROP_N_REASONS;
    if (*done) {
        return true;
    }
    if (i < N_DESCRIBED) {
        if (!start_option(m, OPTIONS_TYPES, 11 + strlen(described[i].name))) {
            return false;
        }
        put(m, IE_PEN_WEFT, 4);
        put(m, described[i].id, 2);
        put(m, described[i].type, 1);
        put(m, described[i].semantics, 1);
        put(m, 0, 2); /* no units */
        put_string(m, described[i].name);
        return true;
    }
    if (!start_option(m, OPTIONS_DROPS, 3 + strlen(drop_reason_name(drop)))) {
        return false;
    }
    put(m, drop + 1, 2);
    put_string(m, drop_reason_name(drop));
    return true;
}

/* --- the end ------------------------------------------------------------------------------- */

void
export_message_end(struct export_message *m, uint64_t now)
{
    /* v9 tells its clock in seconds, and times by the uptime at that second: the next one, so that
     * no record is ahead of it. */
    uint64_t second = (now + 999) / 1000;
    uint32_t up = uptime(m, m->version == EXPORT_V9 ? second * 1000 : now);
    unsigned len;

    close_set(m);
    len = m->len;
    m->len = 0;
    put(m, m->version, 2);
    switch (m->version) {
    case EXPORT_V5:
        put(m, m->records, 2);
        put(m, up, 4);
        put(m, now / 1000, 4);
        put(m, now % 1000 * 1000000, 4);
        put(m, 0, 4);
        put(m, m->domain & 0xffff, 2);
        /* Deterministic; unsampled is 1, and no mode: some read all 16 bits as the interval. */
        put(m, m->sampling > 1 ? 1u << 14 | (m->sampling < 0x3fff ? m->sampling : 0x3fff) : 1, 2);
        break;
    case EXPORT_V9:
        put(m, m->records, 2);
        put(m, up, 4);
        put(m, second, 4);
        put(m, 0, 4);
        put(m, m->domain, 4);
        break;
    case EXPORT_IPFIX:
        put(m, len, 2);
        put(m, now / 1000, 4);
        put(m, 0, 4);
        put(m, m->domain, 4);
        break;
    }
    m->len = len;
}

void
export_message_sequence(struct export_message *m, uint32_t sequence)
{
    static const unsigned offset[] = {[EXPORT_V5] = 16, [EXPORT_V9] = 12, [EXPORT_IPFIX] = 8};

    put_be32(m->bytes + offset[m->version], sequence);
}

uint32_t
export_message_step(const struct export_message *m)
{
    return m->version == EXPORT_V5 ? m->flows : m->version == EXPORT_V9 ? 1 : m->data;
}

/* --- read again ---------------------------------------------------------------------------- */

static void
count_set(const struct template *t, const uint8_t *p, unsigned len, uint64_t *flows,
          uint64_t *packets, uint64_t *octets)
{
    /* Behind two times of 8 bytes (IPFIX_TIMES, COMMON). */
    const unsigned record = fixed_length(t->fields, t->n), octets_at = 16, packets_at = 24;

    for (; len >= record; p += record, len -= record) {
        ++*flows;
        *octets += (uint64_t)get_be32(p + octets_at) << 32 | get_be32(p + octets_at + 4);
        *packets += (uint64_t)get_be32(p + packets_at) << 32 | get_be32(p + packets_at + 4);
    }
}

unsigned
export_message_len(const uint8_t *message)
{
    return get_be16(message + 2);
}

unsigned
export_message_count(const uint8_t *message, uint64_t *flows, uint64_t *packets, uint64_t *octets)
{
    unsigned total = export_message_len(message);

    for (unsigned at = IPFIX_HEADER; at + SET_HEADER <= total; at += get_be16(message + at + 2)) {
        unsigned id = get_be16(message + at), len = get_be16(message + at + 2);

        const struct template *t =
            id >= TEMPLATE_IPV4 && id <= TEMPLATE_ETHERNET ? &ipfix_templates[id - TEMPLATE_IPV4]
            : id >= MEDIATED && id < MEDIATED + N_MEDIATED ? &mediated[id - MEDIATED]
                                                           : NULL;

        if (t) {
            count_set(t, message + at + SET_HEADER, len - SET_HEADER, flows, packets, octets);
        }
    }
    return total;
}
