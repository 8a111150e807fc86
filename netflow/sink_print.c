#include "sink_print.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

static const char *
address_text(const struct in6_addr *a, char text[INET6_ADDRSTRLEN])
{
    bool ip4 = IN6_IS_ADDR_V4MAPPED(a);

    return inet_ntop(ip4 ? AF_INET : AF_INET6, a->s6_addr + (ip4 ? 12 : 0), text, INET6_ADDRSTRLEN)
               ? text
               : "?";
}

static void
put_address(FILE *out, const char *key, const struct in6_addr *a)
{
    char text[INET6_ADDRSTRLEN];

    if (!IN6_IS_ADDR_UNSPECIFIED(a)) {
        fprintf(out, ",\"%s\":\"%s\"", key, address_text(a, text));
    }
}

static void
put_number(FILE *out, const char *key, uint64_t v)
{
    if (v) {
        fprintf(out, ",\"%s\":%" PRIu64, key, v);
    }
}

static void
put_mac(FILE *out, const char *key, const uint8_t mac[6])
{
    static const uint8_t none[6];

    if (memcmp(mac, none, 6)) {
        fprintf(out, ",\"%s\":\"%02x:%02x:%02x:%02x:%02x:%02x\"", key, mac[0], mac[1], mac[2],
                mac[3], mac[4], mac[5]);
    }
}

static void
print_one(FILE *out, const struct flow_source *from, const struct flow_record *r)
{
    char text[INET6_ADDRSTRLEN];

    fprintf(out, "{\"exporter\":\"%s\",\"domain\":%" PRIu32 ",\"protocol\":%u",
            address_text(&from->address, text), from->domain, from->protocol);
    put_number(out, "start_ms", r->start_ms);
    put_number(out, "end_ms", r->end_ms);
    fprintf(out, ",\"packets\":%" PRIu64 ",\"bytes\":%" PRIu64, r->packets, r->bytes);
    put_number(out, "eth_type", r->eth_type);
    put_mac(out, "src_mac", r->src_mac);
    put_mac(out, "dst_mac", r->dst_mac);
    put_number(out, "vlan", r->vlan);
    put_number(out, "customer_vlan", r->customer_vlan);
    put_address(out, "src", &r->src);
    put_address(out, "dst", &r->dst);
    put_number(out, "proto", r->proto);
    put_number(out, "sport", r->sport);
    put_number(out, "dport", r->dport);
    put_number(out, "tcp_flags", r->tcp_flags);
    put_number(out, "tos", r->tos);
    put_number(out, "min_ttl", r->min_ttl);
    put_number(out, "max_ttl", r->max_ttl);
    put_number(out, "fragments", r->fragments);
    put_number(out, "in_if", r->in_if);
    put_number(out, "out_if", r->out_if);
    put_number(out, "direction", r->direction);
    put_number(out, "end", r->end);
    put_number(out, "forwarding", r->forwarding);
    put_number(out, "drop", r->drop);
    put_number(out, "tunnel_key", r->tunnel_key);
    put_number(out, "network", r->network);
    put_number(out, "tenant", r->tenant);
    put_number(out, "in_vif", r->in_vif);
    put_number(out, "out_vif", r->out_vif);
    put_number(out, "rule_out", r->rule_out);
    put_number(out, "rule_in", r->rule_in);
    put_number(out, "sampling", r->sampling);
    fputs("}\n", out);
}

static void
print_records(void *out, const struct flow_source *from, const struct flow_record *records,
              size_t n)
{
    for (size_t i = 0; i < n; i++) {
        print_one(out, from, &records[i]);
    }
}

struct flow_sink
sink_print(FILE *out)
{
    return (struct flow_sink){.context = out, .records = print_records};
}

static void
discard_records(void *context, const struct flow_source *from, const struct flow_record *records,
                size_t n)
{
}

struct flow_sink
sink_discard(void)
{
    return (struct flow_sink){.records = discard_records};
}
