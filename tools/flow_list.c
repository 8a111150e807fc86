/* "weft flow list" and "weft flow status". */
#include <stdlib.h>
#include <string.h>

#include "flow_cmd.h"
#include "pool_cmd.h"

#define N(array) (sizeof(array) / sizeof(array)[0])

const char *const flow_record_keys[] = {"time",
                                        "start",
                                        "end",
                                        "src",
                                        "sport",
                                        "dst",
                                        "dport",
                                        "proto",
                                        "packets",
                                        "bytes",
                                        "sampling",
                                        "src_vif",
                                        "dst_vif",
                                        "src_vm",
                                        "dst_vm",
                                        "src_tenant",
                                        "dst_tenant",
                                        "src_network",
                                        "dst_network",
                                        "src_groups",
                                        "dst_groups",
                                        "network",
                                        "host",
                                        "exporter",
                                        "domain",
                                        "rule_out",
                                        "rule_in",
                                        "dropped",
                                        "drop",
                                        "again",
                                        "tcp_flags",
                                        "tos",
                                        "vlan",
                                        "tunnel_key",
                                        "in_if",
                                        "out_if",
                                        "src_mac",
                                        "dst_mac",
                                        "eth_type",
                                        "end_reason",
                                        "direction",
                                        "fragments",
                                        "duration",
                                        "service",
                                        "customer_vlan",
                                        "forwarding",
                                        "min_ttl",
                                        "max_ttl",
                                        "rule_out_author",
                                        "rule_in_author"};
const size_t n_flow_record_keys = N(flow_record_keys);

/* "10.0.0.1:443" and the like, for tables. */
static void
add_ends(json_t *row)
{
    static const char *const keys[][4] = {{"src", "sport", "source", "src_vif"},
                                          {"dst", "dport", "destination", "dst_vif"}};
    char text[300];

    for (int i = 0; i < 2; i++) {
        const char *address = json_string_value(json_object_get(row, keys[i][0]));
        const char *mac = json_string_value(json_object_get(row, i ? "dst_mac" : "src_mac"));
        json_int_t port = json_integer_value(json_object_get(row, keys[i][1]));
        const char *proto = json_string_value(json_object_get(row, "proto"));
        if (address && proto && !strncmp(proto, "icmp", 4)) { /* type << 8 | code, once */
            snprintf(text, sizeof text, i ? "%s type %lld code %lld" : "%s", address,
                     (long long)port >> 8, (long long)port & 255);
        } else if (!address) {
            snprintf(text, sizeof text, "%s", mac ? mac : "");
        } else if (port) {
            snprintf(text, sizeof text, strchr(address, ':') ? "[%s]:%lld" : "%s:%lld", address,
                     (long long)port);
        } else {
            snprintf(text, sizeof text, "%s", address);
        }
        json_object_set_new(row, keys[i][2], json_string(text));
    }
}

/* What is not IP has an Ethernet type instead of a protocol. */
static void
add_type(json_t *row)
{
    json_int_t type = json_integer_value(json_object_get(row, "eth_type"));
    char text[24] = "arp";

    if (type && !json_object_get(row, "src") && !json_object_get(row, "proto")) {
        if (type != 0x0806) {
            snprintf(text, sizeof text, "0x%04llx", (unsigned long long)type);
        }
        json_object_set_new(row, "proto", json_string(text));
    }
}

/* Which rule let it pass or did not, and why it was dropped. */
static void
add_verdict(json_t *row)
{
    const char *in = json_string_value(json_object_get(row, "rule_in"));
    const char *out = json_string_value(json_object_get(row, "rule_out"));
    const char *drop = json_string_value(json_object_get(row, "drop"));
    char text[700];

    snprintf(text, sizeof text, "%s%s%s%s%s%s", drop ? "DROP " : "", drop ? drop : "",
             drop && (in || out) ? " " : "", out ? out : "", out && in ? " > " : "", in ? in : "");
    json_object_set_new(row, "verdict", json_string(text));
}

static void
print_rows(json_t *rows)
{
    static const struct flow_field fields[] = {
        {"time", "END (UTC)", FLOW_TIME},  {"duration", "MS", FLOW_INT},
        {"proto", "PROTO", FLOW_TEXT},     {"source", "SOURCE", FLOW_TEXT},
        {"src_vif", "FROM", FLOW_TEXT},    {"destination", "DESTINATION", FLOW_TEXT},
        {"dst_vif", "TO", FLOW_TEXT},      {"packets", "PACKETS", FLOW_INT},
        {"bytes", "BYTES", FLOW_INT},      {"vlan", "VLAN", FLOW_INT},
        {"network", "NETWORK", FLOW_TEXT}, {"host", "HOST", FLOW_TEXT},
        {"verdict", "VERDICT", FLOW_TEXT},
    };
    json_t *row;
    size_t i;

    json_array_foreach(rows, i, row)
    {
        add_ends(row);
        add_type(row);
        add_verdict(row);
    }
    flow_print_table(fields, N(fields), rows);
}

int
flow_list_main(int argc, char **argv)
{
    const char *limit = NULL, *cursor = NULL;
    const struct cli_opt more[] = {
        {"limit", CLI_STRING, &limit, "N", "records (100; at most 10000)"},
        {"cursor", CLI_STRING, &cursor, "NEXT", "go on where an answer said so"},
    };
    struct flow_cli c;
    json_t *answer;
    int code;

    if (!flow_cli_open(&c, "list", "Single records, newest first; times are UTC.",
                       "  weft flow list --last 10m src 10.1.0.0/16 and dst port 443\n"
                       "  weft flow list --limit 1000 --csv vif web1-0 and dropped\n",
                       more, N(more), argc, argv, &code)) {
        return code;
    }
    answer =
        flow_cli_ask(&c, "/v1/flows",
                     (const char *const[][2]){{"limit", limit}, {"cursor", cursor}, {NULL, NULL}});
    code = answer ? CLI_OK : CLI_FAILED;
    const char *next = json_string_value(json_object_get(answer, "next"));
    if (answer && c.json) {
        pool_print_json(answer);
    } else if (answer && c.csv) {
        flow_print_csv_rows(flow_record_keys, n_flow_record_keys, json_object_get(answer, "flows"));
    } else if (answer && !json_array_size(json_object_get(answer, "flows"))) {
        flow_cli_none(&c);
    } else if (answer) {
        print_rows(json_object_get(answer, "flows"));
    }
    if (next && !c.json) {
        fprintf(stderr, "there is more: --cursor %s\n", next);
    }
    json_decref(answer);
    flow_cli_close(&c);
    return code;
}

/* --- status ----------------------------------------------------------------------------- */

static long long
number(const json_t *o, const char *group, const char *key)
{
    return json_integer_value(json_object_get(json_object_get(o, group), key));
}

/* What never became a record. */
static void
print_lost(const json_t *collector)
{
    printf("datagrams %lld found the kernel's buffer full, %lld of no protocol, %lld malformed, "
           "%lld not allowed\n",
           number(collector, "totals", "kernel_drops"),
           number(collector, "totals", "unknown_protocol"),
           number(collector, "totals", "malformed"), number(collector, "receive", "not_allowed"));
}

static void
print_status(const json_t *o)
{
    static const struct flow_field fields[] = {
        {"address", "EXPORTER", FLOW_TEXT},     {"domain", "DOMAIN", FLOW_INT},
        {"protocol", "PROTOCOL", FLOW_TEXT},    {"transport", "OVER", FLOW_TEXT},
        {"records", "RECORDS", FLOW_COUNT},     {"templates", "TEMPLATES", FLOW_INT},
        {"sampling", "SAMPLING", FLOW_INT},     {"lost", "LOST", FLOW_COUNT},
        {"not_sent", "NOT SENT", FLOW_COUNT},   {"without_template", "NO TEMPLATE", FLOW_COUNT},
        {"limited", "OVER LIMIT", FLOW_COUNT},  {"refused", "REFUSED", FLOW_COUNT},
        {"malformed", "MALFORMED", FLOW_COUNT}, {"seen_ms_ago", "MS AGO", FLOW_INT},
    };
    const char *error = json_string_value(json_object_get(json_object_get(o, "store"), "error"));
    const char *upkeep = json_string_value(json_object_get(json_object_get(o, "store"), "upkeep"));
    const json_t *controller = json_object_get(o, "controller");
    char a[24], b[24];

    printf("records   %lld taken, %lld committed, %lld waiting\n", number(o, "records", "taken"),
           number(o, "records", "committed"), number(o, "records", "waiting"));
    printf("lost      %lld found the queue full; %lld had a time that cannot be\n",
           number(o, "records", "dropped"), number(o, "records", "wrong_time"));
    if (json_object_get(o, "collector")) {
        print_lost(json_object_get(o, "collector"));
    }
    printf("store     %s of %s, %lld tables%s",
           flow_human((double)number(o, "store", "bytes"), "B", a),
           number(o, "store", "max_bytes")
               ? flow_human((double)number(o, "store", "max_bytes"), "B", b)
               : "any size",
           number(o, "store", "partitions"), error && *error ? "; REFUSES: " : "\n");
    if (error && *error) {
        flow_put_text(stdout, error);
        putchar('\n');
    }
    if (upkeep && *upkeep) {
        printf("FAULT     %lld records lost to damaged tables; ", number(o, "records", "damaged"));
        flow_put_text(stdout, upkeep);
        putchar('\n');
    }
    if (controller) {
        printf("names     %lld, from the controller (%s), generation %lld\n",
               number(o, "names", "names"),
               json_is_true(json_object_get(controller, "connected")) ? "connected"
                                                                      : "NOT CONNECTED",
               (long long)json_integer_value(json_object_get(controller, "generation")));
    } else {
        printf("names     none: no controller\n");
    }
    const json_t *exporters = json_object_get(json_object_get(o, "collector"), "exporters");
    if (json_array_size(exporters)) {
        putchar('\n');
        flow_print_table(fields, N(fields), exporters);
    }
}

int
flow_status_main(int argc, char **argv)
{
    static const char *const keys[] = {
        "address",          "port",      "domain",   "protocol", "transport", "records",
        "messages",         "templates", "sampling", "lost",     "reordered", "restarts",
        "without_template", "limited",   "not_sent", "refused",  "malformed"};
    struct flow_cli c;
    json_t *answer;
    int code;

    if (!flow_cli_open(&c, "status", "Exporters, what was lost on the way, the store.",
                       "  weft flow status\n", NULL, 0, argc, argv, &code)) {
        return code;
    }
    answer = flow_cli_ask(&c, "/v1/status", NULL);
    code = answer ? CLI_OK : CLI_FAILED;
    if (answer && c.json) {
        pool_print_json(answer);
    } else if (answer && c.csv) {
        flow_print_csv_rows(keys, N(keys),
                            json_object_get(json_object_get(answer, "collector"), "exporters"));
    } else if (answer) {
        print_status(answer);
    }
    json_decref(answer);
    flow_cli_close(&c);
    return code;
}
