/* "weft flow help filter|columns". */
#include <stdio.h>
#include <string.h>

#include "flow_cmd.h"

static const char filter_help[] =
    "A filter says which flows: tests joined by and, or, not and parentheses.\n"
    "\n"
    "    src 10.1.0.0/16 and dst port 443 and (proto tcp or proto udp)\n"
    "    vif web1-0 and dropped\n"
    "    network blue-lan and not tenant red and bytes > 1M\n"
    "\n"
    "Of either end, or of one with src or dst before it:\n"
    "    ADDRESS, ADDRESS/LENGTH     10.0.0.1, 10.0.0.0/8, 2001:db8::/32\n"
    "    port N, port N-M            source or destination port\n"
    "    vif NAME, vm NAME           names as they were when the flow was seen;\n"
    "    tenant NAME, group NAME     \"quoted\" if they have blanks; #N is the key\n"
    "    network NAME                of something that had no name\n"
    "    rule POLICY/RULE            src: decided at the source, dst: at the destination\n"
    "    mac 02:00:00:00:00:01\n"
    "    interface N                 port number of the switch: src in, dst out\n"
    "\n"
    "Of the flow:\n"
    "    proto tcp                   udp icmp icmpv6 sctp ... or a number\n"
    "    service N                   the lower of both ports\n"
    "    dropped, forwarded          and: drop REASON (dp_policy, grx_queue_full, unknown ...)\n"
    "    bytes > 1M                  < <= = >= >; k M G T are thousands, Ki Mi 1024s;\n"
    "    packets >= 10k, duration > 500   (ms)\n"
    "    flags syn,ack               TCP flags that were all set\n"
    "    ipv4, ipv6, fragment\n"
    "    vlan N, customer-vlan N, tunnel N, ethertype N, tos N, ttl N\n"
    "    ingress, egress             seen as it came into the switch, as it left\n"
    "\n"
    "Of who saw it:\n"
    "    host NAME                   of the pool\n"
    "    exporter ADDRESS, domain N\n"
    "    again                       another switch counts the same packets, too\n";

static const char columns_help[] =
    "What to sum by, several with commas (--by src,dst,port):\n"
    "\n"
    "    address vif vm tenant group network rule    of either end; alone only\n"
    "    src dst src_vif dst_vif src_vm dst_vm src_tenant dst_tenant\n"
    "    src_network dst_network src_groups dst_groups network\n"
    "    proto port host exporter rule_out rule_in dropped drop\n"
    "\n"
    "port is the lower of both ports.  These are kept for long (a year by the hour).\n"
    "Only while single records are kept (a week, if not said otherwise):\n"
    "\n"
    "    sport dport vlan customer_vlan tunnel_key tcp_flags tos eth_type\n"
    "    in_if out_if src_mac dst_mac domain direction end_reason fragments\n"
    "    forwarding min_ttl max_ttl sampling\n";

int
flow_help_main(int argc, char **argv)
{
    if (argc > 0 && !strcmp(argv[0], "filter")) {
        fputs(filter_help, stdout);
    } else if (argc > 0 && !strcmp(argv[0], "columns")) {
        fputs(columns_help, stdout);
    } else if (argc > 0 && (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))) {
        fputs("Usage: weft flow help filter|columns\n\n"
              "filter says how to choose flows, columns what --by can sum them by.\n",
              stdout);
    } else {
        return cli_usage_error("weft flow help", "help on what? filter or columns");
    }
    return CLI_OK;
}
