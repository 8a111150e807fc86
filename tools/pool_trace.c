/* "weft trace": the way of a packet over the pool's hosts. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pool_cmd.h"

enum { CAPTURE_S = 30, POLL_US = 300000 };

struct trace_args {
    const char *from, *to, *to_mac, *source, *destination, *protocol, *state, *host, *flow;
    const char *capture, *cookie;
    unsigned tcp, udp, sctp, source_port, seconds, count;
    bool ipv6;
};

static void
put(json_t *question, const char *member, const char *text)
{
    if (text) {
        json_object_set_new(question, member, json_string(text));
    }
}

/* Protocol, port and family, as both questions have them. */
static json_t *
transport_of(const struct trace_args *t)
{
    const struct {
        const char *protocol;
        unsigned port;
    } ports[] = {{"tcp", t->tcp}, {"udp", t->udp}, {"sctp", t->sctp}};
    json_t *q = json_object();

    put(q, "protocol", t->protocol);
    put(q, "family", t->ipv6 ? "ipv6" : NULL);
    for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
        if (ports[i].port) {
            put(q, "protocol", ports[i].protocol);
            json_object_set_new(q, "port", json_integer(ports[i].port));
        }
    }
    return q;
}

static json_t *
question_of(const struct trace_args *t)
{
    json_t *q = transport_of(t);

    put(q, "from", t->from);
    put(q, "to", t->to);
    put(q, "to_mac", t->to_mac);
    put(q, "source", t->source);
    put(q, "destination", t->destination);
    put(q, "state", t->state);
    put(q, "host", t->host);
    put(q, "flow", t->flow);
    if (t->source_port) {
        json_object_set_new(q, "source_port", json_integer(t->source_port));
    }
    return q;
}

static void
print_lines(const char *text)
{
    while (*text) {
        char line[2000];
        size_t n = strcspn(text, "\n");

        snprintf(line, sizeof line, "%.*s", (int)n, text);
        pool_print_text(line);
        putchar('\n');
        text += n + (text[n] == '\n');
    }
}

static int
answer_of(const struct pool_args *a, const json_t *answer)
{
    const char *text = json_string_value(json_object_get(answer, "text"));
    const char *verdict = json_string_value(json_object_get(answer, "verdict"));

    if (a->json) {
        pool_print_json(answer);
    } else {
        print_lines(text ? text : "");
    }
    return verdict && (!strcmp(verdict, "delivered") || !strcmp(verdict, "leaves")) ? CLI_OK
                                                                                    : CLI_FAILED;
}

/* --- packets of now ------------------------------------------------------------------------ */

static void
print_captured(const struct pool_args *a, const json_t *packet)
{
    int64_t ms = json_integer_value(json_object_get(packet, "time"));
    const json_t *trace = json_object_get(packet, "trace");
    const char *text = json_string_value(json_object_get(trace, "text"));
    time_t seconds = ms / 1000;
    char when[40];
    struct tm tm;

    if (a->json) {
        json_dumpf(packet, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
        putchar('\n');
    } else {
        gmtime_r(&seconds, &tm);
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
        printf("%s.%03dZ\n", when, (int)(ms % 1000));
        print_lines(text ? text : "");
        putchar('\n');
    }
    fflush(stdout);
}

/* What has come; '*going': more may. */
static int
show_captured(const struct pool_args *a, struct pool_client *client, int64_t *last, unsigned *left,
              bool *going)
{
    json_t *answer, *packet;
    char query[40];
    size_t i;

    snprintf(query, sizeof query, "after=%lld", (long long)*last);
    if (pool_call(client, "GET", "/v1/capture", query, NULL, POOL_CALL_S, &answer)) {
        return pool_call_failed(a, client);
    }
    json_array_foreach(json_object_get(answer, "packets"), i, packet)
    {
        if (*left) {
            print_captured(a, packet);
            --*left;
        }
    }
    *last = json_integer_value(json_object_get(answer, "last"));
    *going = *left && json_is_true(json_object_get(answer, "going"));
    json_decref(answer);
    return CLI_OK;
}

static int
capture(const struct pool_args *a, struct pool_client *client, const struct trace_args *t)
{
    json_t *question = transport_of(t);
    unsigned left = t->count;
    int64_t last = 0;
    bool going = true;
    int code = CLI_OK;

    put(question, "vif", t->capture);
    json_object_set_new(question, "seconds", json_integer(t->seconds));
    if (pool_call(client, "POST", "/v1/capture", NULL, question, POOL_CALL_S, NULL)) {
        json_decref(question);
        return pool_call_failed(a, client);
    }
    while (going && code == CLI_OK) {
        usleep(POLL_US);
        code = show_captured(a, client, &last, &left, &going);
    }
    if (code == CLI_OK) {
        json_object_set_new(question, "seconds", json_integer(0));
        pool_call(client, "POST", "/v1/capture", NULL, question, POOL_CALL_S, NULL);
    }
    json_decref(question);
    if (code == CLI_OK && left == t->count) {
        return pool_failed(a, "no such packet was seen");
    }
    return code;
}

/* Whose a flow is, by its cookie. */
static int
explain(const struct pool_args *a, struct pool_client *client, const char *cookie)
{
    unsigned long long number;
    const char *from;
    char path[60], *end;
    json_t *answer;

    errno = 0;
    number = strtoull(cookie, &end, 0);
    if (errno || end == cookie || *end || !isdigit((unsigned char)*cookie)) {
        return pool_failed(a, "cookie: is no number like 0xd505000000000007");
    }
    snprintf(path, sizeof path, "/v1/cookies/0x%llx", number);
    if (pool_call(client, "GET", path, NULL, NULL, POOL_CALL_S, &answer)) {
        return pool_call_failed(a, client);
    }
    from = json_string_value(json_object_get(answer, "from"));
    if (a->json) {
        pool_print_json(answer);
    } else {
        pool_print_text(from ? from : "");
        putchar('\n');
    }
    json_decref(answer);
    return CLI_OK;
}

static int
ask(const struct pool_args *a, struct pool_client *client, const struct trace_args *t)
{
    json_t *question = question_of(t), *answer;
    int code;

    if (pool_call(client, "POST", "/v1/trace", NULL, question, POOL_CALL_S, &answer)) {
        code = pool_call_failed(a, client);
    } else {
        code = answer_of(a, answer);
        json_decref(answer);
    }
    json_decref(question);
    return code;
}

/* What cannot be meant together; NULL: all can. */
static const char *
contradiction(const struct trace_args *t)
{
    bool ways = t->from || t->to || t->to_mac || t->source || t->destination || t->source_port ||
                t->state || t->host || t->flow;
    int protocols = !!t->tcp + !!t->udp + !!t->sctp + !!t->protocol;

    return protocols > 1 ? "takes one of --tcp, --udp, --sctp and --protocol"
           : t->cookie && (ways || t->capture || protocols || t->ipv6)
               ? "--cookie is a question by itself"
           : t->capture && ways
               ? "--capture goes with --tcp, --udp, --sctp, --protocol, --ipv6, --seconds and "
                 "--count only"
               : NULL;
}

int
pool_trace_main(int argc, char **argv)
{
    struct trace_args t = {.seconds = CAPTURE_S, .count = 1};
    const struct cli_opt opts[] = {
        {"from", CLI_STRING, &t.from, "VIF", "that sends it"},
        {"to", CLI_STRING, &t.to, "VIF|ADDRESS", "that it is for"},
        {"tcp", CLI_UINT, &t.tcp, "PORT", "to this port; likewise:", 1, 65535},
        {"udp", CLI_UINT, &t.udp, "PORT", "", 1, 65535},
        {"sctp", CLI_UINT, &t.sctp, "PORT", "", 1, 65535},
        {"protocol", CLI_STRING, &t.protocol, "NAME", "icmp (default), icmpv6, or a number"},
        {"ipv6", CLI_FLAG, &t.ipv6, NULL, "if both are known"},
        {"source", CLI_STRING, &t.source, "ADDRESS", "if not the vif's first"},
        {"destination", CLI_STRING, &t.destination, "ADDRESS", "if not the vif's first"},
        {"source-port", CLI_UINT, &t.source_port, "PORT", "if not 40000", 1, 65535},
        {"to-mac", CLI_STRING, &t.to_mac, "MAC", "of a router, or of what is not the pool's"},
        {"state", CLI_STRING, &t.state, "STATE",
         "of its connection: new (default), established, reply, older, invalid"},
        {"host", CLI_STRING, &t.host, "NAME", "where --flow enters"},
        {"capture", CLI_STRING, &t.capture, "VIF",
         "instead: its next packets, of --tcp, --udp, --protocol if given"},
        {"seconds", CLI_UINT, &t.seconds, "N", "of --capture (30)", 1, 300},
        {"count", CLI_UINT, &t.count, "N", "packets of --capture (1)", 1, 100},
        {"flow", CLI_STRING, &t.flow, "FLOW", "the packet as ovs-fields(7) has it"},
        {"cookie", CLI_STRING, &t.cookie, "COOKIE",
         "instead: whose a flow is that ovs-ofctl dump-flows shows"},
    };
    struct pool_client *client;
    struct pool_args a;
    int code;

    if (!pool_args_parse(
            &a, "trace", "", "--from VIF --to VIF|ADDRESS [OPTION...]",
            "  weft trace --from web-0 --to db-0 --tcp 5432\n"
            "  weft trace --from web-0 --to 192.0.2.9 --to-mac 02:00:00:00:00:fe --udp 53\n"
            "  weft trace --from web-0 --to db-0 --tcp 5432 --state older\n"
            "  weft trace --host h1 --flow 'in_port=eth1,dl_vlan=10,dl_vlan_pcp=0,tcp,...'\n"
            "  weft trace --capture web-0 --tcp 5432 --count 3\n"
            "  weft trace --cookie 0xd505000000000007\n"
            "\nFails if it is not delivered.\n",
            opts, sizeof opts / sizeof opts[0], argc, argv, &code)) {
        return code;
    }
    if (a.n) {
        return cli_usage_error(a.prefix, "takes options only");
    }
    if (contradiction(&t)) {
        return cli_usage_error(a.prefix, contradiction(&t));
    }
    client = pool_connect(&a);
    if (!client) {
        return CLI_FAILED;
    }
    code = t.cookie    ? explain(&a, client, t.cookie)
           : t.capture ? capture(&a, client, &t)
                       : ask(&a, client, &t);
    pool_client_close(client);
    return code;
}
