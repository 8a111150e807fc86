/* What the collector knows of itself and of its exporters, as JSON. */
#include <arpa/inet.h>
#include <string.h>

#include "collect_priv.h"

#define TYPES_SHOWN 32u

static const char *
protocol_name(uint8_t protocol)
{
    switch (protocol) {
    case FLOW_NETFLOW5:
        return "netflow5";
    case FLOW_NETFLOW9:
        return "netflow9";
    case FLOW_IPFIX:
        return "ipfix";
    default:
        return "sflow5";
    }
}

static json_t *
address_json(const struct in6_addr *a)
{
    char text[INET6_ADDRSTRLEN];

    if (IN6_IS_ADDR_V4MAPPED(a)) {
        inet_ntop(AF_INET, a->s6_addr + 12, text, sizeof text);
    } else {
        inet_ntop(AF_INET6, a, text, sizeof text);
    }
    return json_string(text);
}

static json_t *
types_json(const struct exporter *e)
{
    json_t *all = json_array();
    unsigned n = 0;

    for (const struct element_type *t = e->types; t && n < TYPES_SHOWN; t = t->next, n++) {
        json_array_append_new(all, json_pack("{s:I, s:i, s:i, s:s}", "enterprise",
                                             (json_int_t)t->enterprise, "element", t->element,
                                             "type", t->type, "name", t->name));
    }
    return all;
}

static void
set_u64(json_t *o, const char *key, uint64_t v)
{
    json_object_set_new(o, key, json_integer((json_int_t)v));
}

static json_t *
exporter_json(const struct exporter *e, uint64_t now_ms)
{
    static const char *const transports[] = {"udp", "tcp", "tls", "file"};
    json_t *o = json_object();

    json_object_set_new(o, "address", address_json(&e->source.address));
    set_u64(o, "port", e->source.port);
    set_u64(o, "domain", e->source.domain);
    json_object_set_new(o, "protocol", json_string(protocol_name(e->source.protocol)));
    json_object_set_new(o, "transport", json_string(transports[e->source.transport & 3]));
    set_u64(o, "id", e->source.id);
    set_u64(o, "seen_ms_ago", now_ms > e->seen_ms ? now_ms - e->seen_ms : 0);
    set_u64(o, "templates", e->n_templates);
    set_u64(o, "state_bytes", e->bytes);
    set_u64(o, "waiting_bytes", e->waiting_bytes);
    set_u64(o, "sampling", e->sampling ? e->sampling : e->assumed);
#define X(name) set_u64(o, #name, e->n.name);
    EXPORTER_COUNTERS(X)
#undef X
    if (e->types) {
        json_object_set_new(o, "elements", types_json(e));
    }
    return o;
}

json_t *
collect_status(const struct collect *c, uint64_t now_ms)
{
    const struct link *lists[] = {&c->lasting, &c->fresh};
    json_t *totals = json_object(), *exporters = json_array();

#define X(name) set_u64(totals, #name, c->n.name);
    COLLECT_COUNTERS(X)
#undef X
    set_u64(totals, "exporters", c->n_exporters);
    set_u64(totals, "state_bytes", c->bytes);
    for (int i = 0; i < 2; i++) {
        for (const struct link *l = lists[i]->prev; l != lists[i]; l = l->prev) {
            const struct exporter *e =
                (const struct exporter *)((const char *)l - offsetof(struct exporter, idle));

            json_array_append_new(exporters, exporter_json(e, now_ms));
        }
    }
    return json_pack("{s:o, s:o}", "totals", totals, "exporters", exporters);
}
