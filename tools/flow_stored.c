/* Stored flows as connections, the way POST /v1/shadow takes them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flow_cmd.h"

enum { FLOWS_MAX = 10000, ICMP = 1, ICMPV6 = 58 };

static const char *
string(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : "";
}

/* Whether the record is of who asked, not of who answered: a server's port is the
 * lower one; what answers a ping is no ping. */
static bool
asks(const json_t *row, bool icmp, json_int_t port)
{
    static const int replies[] = {0, 14, 129};

    if (!icmp) {
        return port && port == json_integer_value(json_object_get(row, "service"));
    }
    for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++) {
        if (port >> 8 == replies[i]) {
            return false;
        }
    }
    return true;
}

static json_t *
connection(const json_t *row)
{
    const char *from = string(row, "src_vif"), *to = string(row, "dst_vif");
    const char *proto = string(row, "proto"), *network = string(row, "network");
    json_int_t port = json_integer_value(json_object_get(row, "dport"));
    bool icmp = !strcmp(proto, "icmp") || !strcmp(proto, "icmpv6");
    bool ports = !strcmp(proto, "tcp") || !strcmp(proto, "udp") || !strcmp(proto, "sctp");
    json_t *o;

    /* Not IP, or what rules cannot name; of a vif that nobody can name, or of two
     * ends outside. */
    if (!*string(row, "src") || (!ports && !icmp && !(*proto >= '0' && *proto <= '9')) ||
        *from == '#' || *to == '#' || (!*from && !*to) ||
        ((icmp || ports) && !asks(row, icmp, port))) {
        return NULL;
    }
    o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:O}", "from", from, "to", to, "source",
                  string(row, "src"), "destination", string(row, "dst"), "protocol", proto, "count",
                  json_object_get(row, "flows"));
    if (*network && *network != '#') {
        json_object_set_new(o, "network", json_string(network));
    }
    if (icmp) {
        json_object_set_new(o, "icmp_type", json_integer(port >> 8));
        json_object_set_new(o, "icmp_code", json_integer(port & 0xff));
    } else if (ports) {
        json_object_set_new(o, "port", json_integer(port));
    }
    return o;
}

json_t *
flow_stored(const char *prefix, const char *last)
{
    struct flow_cli c;
    json_t *answer, *flows, *row, *o;
    char limit[16];
    size_t i;

    if (!flow_cli_begin(&c, prefix)) {
        return NULL;
    }
    c.last = last;
    c.metric = "flows";
    snprintf(limit, sizeof limit, "%d", FLOWS_MAX);
    answer = flow_cli_ask(
        &c, "/v1/top",
        (const char *const[][2]){{"by", "src_vif,dst_vif,network,src,dst,proto,dport,service"},
                                 {"limit", limit},
                                 {NULL, NULL}});
    flow_cli_close(&c);
    if (!answer) {
        return NULL;
    }
    if (json_array_size(json_object_get(answer, "top")) == FLOWS_MAX) {
        fprintf(stderr, "%s: more than %d connections; the most frequent ones are tried\n", prefix,
                FLOWS_MAX);
    }
    flows = json_array();
    json_array_foreach(json_object_get(answer, "top"), i, row)
    {
        o = connection(row);
        if (o) {
            json_array_append_new(flows, o);
        }
    }
    json_decref(answer);
    return flows;
}
