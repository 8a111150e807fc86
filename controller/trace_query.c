/* From a question to a packet. */
#include <config.h>

#include "trace_query.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "model.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/json.h"
#include "openvswitch/ofp-flow.h"
#include "openvswitch/ofp-port.h"
#include "openvswitch/shash.h"
#include "packets.h"
#include "record.h"
#include "tun-metadata.h"
#include "util.h"
#include "uuid.h"

#define SOURCE_PORT 40000

void
trace_fault_set(struct trace_fault *fault, const char *field, const char *format, ...)
{
    va_list args;

    snprintf(fault->field, sizeof fault->field, "%s", field);
    va_start(args, format);
    vsnprintf(fault->message, sizeof fault->message, format, args);
    va_end(args);
}

/* --- addresses and vifs ------------------------------------------------------------------ */

static struct model_vif *
find_vif(const struct model *m, const char *name)
{
    struct uuid uuid;
    struct model_obj *obj = model_by_name(m, REC_VIF, name);

    if (!obj && uuid_from_string(&uuid, name)) {
        obj = model_by_uuid(m, REC_VIF, &uuid);
    }
    return model_vif(obj);
}

static bool
parse_address(const char *text, struct in6_addr *addr)
{
    ovs_be32 ip;

    if (ip_parse(text, &ip)) {
        in6_addr_set_mapped_ipv4(addr, ip);
        return true;
    }
    return ipv6_parse(text, addr);
}

/* The vif's first known address of a family. */
static bool
address_of(const struct model_vif *vif, bool v6, struct in6_addr *addr)
{
    const struct model_prefixes *lists[] = {&vif->effective, &vif->ipv4_allowed, &vif->ipv6_allowed,
                                            &vif->addresses};

    for (size_t l = 0; l < ARRAY_SIZE(lists); l++) {
        for (size_t i = 0; i < lists[l]->n; i++) {
            if (model_prefix_is_v4(&lists[l]->p[i]) != v6) {
                *addr = lists[l]->p[i].addr;
                return true;
            }
        }
    }
    return false;
}

static struct model_vif *
vif_by_address(const struct model_vif *from, const struct in6_addr *addr)
{
    const struct model_prefix single = {*addr, 128};
    struct model_ref *ref;

    MODEL_FOR_EACH_REF (ref, &from->network->vifs) {
        struct model_vif *vif = model_vif(ref->from);

        for (size_t i = 0; i < vif->effective.n; i++) {
            if (model_prefix_contains(&vif->effective.p[i], &single)) {
                return vif;
            }
        }
    }
    return NULL;
}

/* --- the packet ------------------------------------------------------------------------------ */

struct ends {
    const struct model_vif *from, *to;
    bool v6;
    struct in6_addr src, dst;
    struct eth_addr mac; /* of the destination */
};

static bool
get_from(const struct model *m, const struct trace_packet *q, struct ends *e,
         struct trace_fault *fault)
{
    e->from = q->from ? find_vif(m, q->from) : NULL;
    if (!e->from) {
        trace_fault_set(fault, "from", q->from ? "there is no vif \"%.200s\"" : "must be given%s",
                        q->from ? q->from : "");
        return false;
    }
    if (!e->from->host || !model_vif_port(e->from, e->from->host)) {
        trace_fault_set(fault, "from", "vif %s has no port on any host", e->from->obj.name);
        return false;
    }
    return true;
}

static bool
get_address(const char *field, const char *text, struct in6_addr *addr, struct trace_fault *fault)
{
    if (!parse_address(text, addr)) {
        trace_fault_set(fault, field, "\"%.100s\" is not an IP address", text);
        return false;
    }
    return true;
}

/* Of which family the packet is: as stated, else by what is known of both ends. */
static bool
choose_family(const struct trace_packet *q, const struct ends *e, bool *v6,
              struct trace_fault *fault)
{
    struct in6_addr addr;

    *v6 = q->family && !strcmp(q->family, "ipv6");
    if (q->family) {
        if (!*v6 && strcmp(q->family, "ipv4")) {
            trace_fault_set(fault, "family", "must be ipv4 or ipv6");
            return false;
        }
        return true;
    }
    if (q->protocol && (!strcmp(q->protocol, "icmpv6") || !strcmp(q->protocol, "icmp"))) {
        *v6 = !strcmp(q->protocol, "icmpv6");
    } else if (q->source || q->destination) {
        const char *text = q->destination ? q->destination : q->source;

        *v6 = parse_address(text, &addr) && !IN6_IS_ADDR_V4MAPPED(&addr);
    } else {
        *v6 = !(address_of(e->from, false, &addr) && (!e->to || address_of(e->to, false, &addr)));
    }
    return true;
}

static bool
get_destination(const struct model *m, const struct trace_packet *q, struct ends *e,
                struct in6_addr *stated, struct trace_fault *fault)
{
    bool is_address = parse_address(q->to, stated);

    e->to = is_address ? vif_by_address(e->from, stated) : find_vif(m, q->to);
    if (!is_address && !e->to) {
        trace_fault_set(fault, "to", "\"%.200s\" is neither a vif nor an IP address", q->to);
        return false;
    }
    if (q->to_mac) {
        if (!eth_addr_from_string(q->to_mac, &e->mac)) {
            trace_fault_set(fault, "to_mac", "\"%.60s\" is not a MAC", q->to_mac);
            return false;
        }
    } else if (!e->to) {
        trace_fault_set(fault, "to",
                        "no vif of network %s has address %.60s; state the MAC that it is sent to "
                        "(to_mac), its router's for instance",
                        e->from->network->obj.name, q->to);
        return false;
    } else if (e->to->network != e->from->network) {
        trace_fault_set(fault, "to",
                        "vif %s is in network %s, vif %s in %s: state the MAC of the router "
                        "between them (to_mac)",
                        e->to->obj.name, e->to->network->obj.name, e->from->obj.name,
                        e->from->network->obj.name);
        return false;
    } else {
        e->mac = e->to->mac;
    }
    return true;
}

static bool
get_addresses(const struct trace_packet *q, struct ends *e, const struct in6_addr *stated,
              bool is_address, struct trace_fault *fault)
{
    if (is_address) {
        e->dst = *stated;
        e->v6 = !IN6_IS_ADDR_V4MAPPED(stated);
    } else if (!choose_family(q, e, &e->v6, fault)) {
        return false;
    } else if (q->destination) {
        if (!get_address("destination", q->destination, &e->dst, fault)) {
            return false;
        }
    } else if (!address_of(e->to, e->v6, &e->dst)) {
        trace_fault_set(fault, "destination", "no %s address of vif %s is known; state one",
                        e->v6 ? "IPv6" : "IPv4", e->to->obj.name);
        return false;
    }
    if (q->source) {
        if (!get_address("source", q->source, &e->src, fault)) {
            return false;
        }
    } else if (!address_of(e->from, e->v6, &e->src)) {
        trace_fault_set(fault, "source", "no %s address of vif %s is known; state one",
                        e->v6 ? "IPv6" : "IPv4", e->from->obj.name);
        return false;
    }
    if (e->v6 == IN6_IS_ADDR_V4MAPPED(&e->src) || e->v6 == IN6_IS_ADDR_V4MAPPED(&e->dst)) {
        trace_fault_set(fault, "source", "source and destination are of different families");
        return false;
    }
    return true;
}

static bool
in_range(const char *field, int value, int max, struct trace_fault *fault)
{
    if (value < -1 || value > max) {
        trace_fault_set(fault, field, "must be 0..%d", max);
        return false;
    }
    return true;
}

static bool
set_transport(const struct trace_packet *q, bool v6, struct flow *f, struct trace_fault *fault)
{
    const char *name = q->protocol ? q->protocol : v6 ? "icmpv6" : "icmp";
    int protocol = rec_parse_protocol(name);

    if (protocol < 0) {
        trace_fault_set(fault, "protocol",
                        "\"%.40s\" is not tcp, udp, sctp, icmp, icmpv6 or a number", name);
        return false;
    }
    if (!in_range("port", q->port, 65535, fault) ||
        !in_range("source_port", q->source_port, 65535, fault) ||
        !in_range("icmp_type", q->icmp_type, 255, fault) ||
        !in_range("icmp_code", q->icmp_code, 255, fault)) {
        return false;
    }
    f->nw_proto = protocol;
    f->nw_ttl = 64;
    if (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP) {
        if (q->port < 0) {
            trace_fault_set(fault, "port", "must be given");
            return false;
        }
        f->tp_dst = htons(q->port);
        f->tp_src = htons(q->source_port < 0 ? SOURCE_PORT : q->source_port);
        f->tcp_flags = protocol == IPPROTO_TCP ? htons(TCP_SYN) : 0;
    } else if (protocol == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
        f->tp_src = htons(q->icmp_type < 0 ? (v6 ? 128 : 8) : q->icmp_type);
        f->tp_dst = htons(MAX(q->icmp_code, 0));
    }
    return true;
}

static bool
get_state(const char *name, enum trace_state *state, struct trace_fault *fault)
{
    static const char *const names[] = {
        [TRACE_NEW] = "new",     [TRACE_ESTABLISHED] = "established", [TRACE_REPLY] = "reply",
        [TRACE_OLDER] = "older", [TRACE_INVALID] = "invalid",
    };

    *state = TRACE_NEW;
    for (size_t i = 0; name && i < ARRAY_SIZE(names); i++) {
        if (!strcmp(name, names[i])) {
            *state = i;
            return true;
        }
    }
    if (name) {
        trace_fault_set(fault, "state", "must be new, established, reply, older or invalid");
    }
    return !name;
}

bool
trace_packet_start(const struct model *m, const struct trace_packet *q, struct trace_start *s,
                   struct trace_fault *fault)
{
    struct flow *f = &s->packet;
    struct in6_addr stated;
    struct ends e;

    memset(s, 0, sizeof *s);
    memset(&e, 0, sizeof e);
    if (!get_from(m, q, &e, fault) || !get_state(q->state, &s->state, fault)) {
        return false;
    }
    if (!q->to) {
        trace_fault_set(fault, "to", "must be given");
        return false;
    }
    if (!get_destination(m, q, &e, &stated, fault) ||
        !get_addresses(q, &e, &stated, parse_address(q->to, &stated), fault) ||
        !set_transport(q, e.v6, f, fault)) {
        return false;
    }
    s->host = e.from->host->obj.key;
    s->in_port = model_vif_port(e.from, e.from->host)->ofport;
    trace_set_tag(f, e.from->tag);
    f->dl_src = e.from->mac;
    f->dl_dst = e.mac;
    f->dl_type = htons(e.v6 ? ETH_TYPE_IPV6 : ETH_TYPE_IP);
    if (e.v6) {
        f->ipv6_src = e.src;
        f->ipv6_dst = e.dst;
    } else {
        f->nw_src = in6_addr_get_mapped_ipv4(&e.src);
        f->nw_dst = in6_addr_get_mapped_ipv4(&e.dst);
    }
    return true;
}

/* --- the expert's form ---------------------------------------------------------------------- */

static bool
expert_start(const struct model *m, const char *host_name, const char *text, const char *state,
             struct trace_start *s, struct trace_fault *fault)
{
    const struct model_host *host =
        host_name ? model_host(model_by_name(m, REC_HOST, host_name)) : NULL;
    struct ofputil_port_map ports = OFPUTIL_PORT_MAP_INITIALIZER(&ports);
    const struct model_port *port;
    char *error;

    memset(s, 0, sizeof *s);
    if (!host) {
        trace_fault_set(fault, "host",
                        host_name ? "there is no host \"%.200s\"" : "must be given%s",
                        host_name ? host_name : "");
        return false;
    }
    LIST_FOR_EACH (port, host_node, &host->ports) {
        ofputil_port_map_put(&ports, u16_to_ofp(port->ofport), port->name);
    }
    error = parse_ofp_exact_flow(&s->packet, NULL, NULL, text, &ports);
    ofputil_port_map_destroy(&ports);
    if (error) {
        trace_fault_set(fault, "flow", "%.300s", error);
        free(error);
        return false;
    }
    s->host = host->obj.key;
    s->in_port = ofp_to_u16(s->packet.in_port.ofp_port);
    return get_state(state, &s->state, fault);
}

/* --- questions -------------------------------------------------------------------------------- */

struct question {
    struct trace_packet packet;
    const char *host, *flow;
};

static bool
take_member(struct question *q, const char *name, const struct json *value,
            struct trace_fault *fault)
{
    const struct {
        const char *name, **text;
        int *number;
    } members[] = {
        {"from", &q->packet.from},
        {"to", &q->packet.to},
        {"source", &q->packet.source},
        {"destination", &q->packet.destination},
        {"family", &q->packet.family},
        {"protocol", &q->packet.protocol},
        {"state", &q->packet.state},
        {"to_mac", &q->packet.to_mac},
        {"host", &q->host},
        {"flow", &q->flow},
        {"port", NULL, &q->packet.port},
        {"source_port", NULL, &q->packet.source_port},
        {"icmp_type", NULL, &q->packet.icmp_type},
        {"icmp_code", NULL, &q->packet.icmp_code},
    };

    for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
        if (strcmp(name, members[i].name)) {
            continue;
        }
        if (value->type != (members[i].text ? JSON_STRING : JSON_INTEGER)) {
            trace_fault_set(fault, name, members[i].text ? "must be a string" : "must be a number");
            return false;
        }
        if (members[i].text) {
            *members[i].text = json_string(value);
        } else if (json_integer(value) < 0 || json_integer(value) > UINT16_MAX) {
            trace_fault_set(fault, name, "must be 0..65535");
            return false;
        } else {
            *members[i].number = json_integer(value);
        }
        return true;
    }
    trace_fault_set(fault, name, "nobody knows this member");
    return false;
}

static bool
parse_question(const struct json *json, struct question *q, struct trace_fault *fault)
{
    struct shash_node *node;

    *q = (struct question){
        .packet = {.port = -1, .source_port = -1, .icmp_type = -1, .icmp_code = -1}};
    if (json->type != JSON_OBJECT) {
        trace_fault_set(fault, "", "the question is not a JSON object");
        return false;
    }
    SHASH_FOR_EACH (node, json_object(json)) {
        if (!take_member(q, node->name, node->data, fault)) {
            return false;
        }
    }
    if (q->flow && (q->packet.from || q->packet.to)) {
        trace_fault_set(fault, "flow", "goes with host and state only");
        return false;
    }
    return true;
}

char *
trace_answer(struct model *m, struct compile *c, const char *text, bool people,
             struct trace_fault *fault)
{
    struct json *json = json_from_string(text), *answer;
    struct trace_start start;
    struct tracer *tracer;
    struct trace trace;
    struct question q;
    char *said = NULL;
    bool ok;

    ok = parse_question(json, &q, fault) &&
         (q.flow ? expert_start(m, q.host, q.flow, q.packet.state, &start, fault)
                 : trace_packet_start(m, &q.packet, &start, fault));
    if (ok) {
        tracer = tracer_create(m, c, &start);
        ok = tracer_run(tracer, &start, false, &trace);
        answer = trace_json(m, &start, &trace, ok);
        said = people ? xstrdup(json_string(shash_find_data(json_object(answer), "text")))
                      : json_to_string(answer, JSSF_SORT);
        json_destroy(answer);
        trace_uninit(&trace);
        tracer_destroy(tracer);
    }
    json_destroy(json);
    return said;
}
