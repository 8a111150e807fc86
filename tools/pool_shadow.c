/* "weft policy shadow": a document, tried on connections that are seen now. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "flow_cmd.h"
#include "pool_cmd.h"

enum { SECONDS = 10 };

static const char *
text(const json_t *object, const char *member)
{
    const char *s = json_string_value(json_object_get(object, member));

    return s ? s : "";
}

static long long
number(const json_t *object, const char *member)
{
    return json_integer_value(json_object_get(object, member));
}

/* --- what came of it -------------------------------------------------------------------- */

static void
print_line(const char *line)
{
    pool_print_text(line);
    putchar('\n');
}

static void
print_change(const json_t *change)
{
    const json_t *flow = json_object_get(change, "flow"), *port = json_object_get(flow, "port");
    const json_t *now = json_object_get(change, "now"), *then = json_object_get(change, "then");
    const char *from = text(flow, "from"), *to = text(flow, "to");
    long long count = number(flow, "count");
    char where[20] = "", line[900];

    if (port) {
        snprintf(where, sizeof where, " port %lld", (long long)json_integer_value(port));
    }
    snprintf(line, sizeof line, "%.10s%s %.60s (%.128s) > %.60s (%.128s)", text(flow, "protocol"),
             where, text(flow, "source"), *from ? from : "outside", text(flow, "destination"),
             *to ? to : "outside");
    putchar('\n');
    pool_print_text(line);
    if (count > 1) {
        printf(", %lld times", count);
    }
    putchar('\n');
    snprintf(line, sizeof line, "  now:  %.8s, %.600s", text(now, "action"), text(now, "by"));
    print_line(line);
    snprintf(line, sizeof line, "  then: %.8s, %.600s", text(then, "action"), text(then, "by"));
    print_line(line);
}

/* A row for each connection of which something would change. */
static void
print_csv(const json_t *changes)
{
    static const char *const keys[] = {"protocol",   "port",   "icmp_type",   "icmp_code", "from",
                                       "source",     "to",     "destination", "network",   "count",
                                       "now_action", "now_by", "then_action", "then_by"};
    static const char *const verdicts[] = {"now", "then"}, *const parts[] = {"action", "by"};
    const json_t *change;
    char key[20];
    size_t i;

    flow_print_csv_header(keys, sizeof keys / sizeof keys[0]);
    json_array_foreach(changes, i, change)
    {
        json_t *row = json_copy(json_object_get(change, "flow"));
        for (int k = 0; row && k < 4; k++) {
            snprintf(key, sizeof key, "%s_%s", verdicts[k / 2], parts[k % 2]);
            json_object_set(
                row, key, json_object_get(json_object_get(change, verdicts[k / 2]), parts[k % 2]));
        }
        flow_print_csv(keys, sizeof keys / sizeof keys[0], row);
        json_decref(row);
    }
}

static int
report(const struct pool_args *a, bool csv, const json_t *answer)
{
    long long denied = number(answer, "newly_denied");
    const json_t *changes = json_object_get(answer, "changes"), *change;
    size_t all = (size_t)(denied + number(answer, "newly_allowed") + number(answer, "other_rule"));
    size_t i;

    if (a->json) {
        pool_print_json(answer);
    } else if (csv) {
        print_csv(changes);
    } else {
        printf("%lld flows: %lld as now, %lld newly denied, %lld newly allowed, %lld decided "
               "otherwise, %lld unknown to the pool\n",
               number(answer, "flows"), number(answer, "same"), denied,
               number(answer, "newly_allowed"), number(answer, "other_rule"),
               number(answer, "unknown"));
        json_array_foreach(changes, i, change)
        {
            print_change(change);
        }
        if (all > json_array_size(changes)) {
            printf("\nThe %zu others are not listed.\n", all - json_array_size(changes));
        }
    }
    return denied ? CLI_FAILED : CLI_OK;
}

/* --- the question ------------------------------------------------------------------------ */

/* CLI_OK after the hosts have reported for a while. */
static int
gather(const struct pool_args *a, bool quiet, struct pool_client *client, unsigned seconds)
{
    char query[40];
    json_t *answer;
    long long hosts;

    snprintf(query, sizeof query, "seconds=%u", seconds);
    if (pool_call(client, "POST", "/v1/samples", query, NULL, POOL_CALL_S, &answer)) {
        return pool_call_failed(a, client);
    }
    hosts = number(answer, "hosts");
    json_decref(answer);
    if (!hosts) {
        return pool_failed(a, "no host can report connections now");
    }
    if (!quiet) {
        printf("%lld hosts report new connections for %u s\n", hosts, seconds);
        fflush(stdout);
    }
    sleep(seconds);
    return CLI_OK;
}

/* Takes 'flows', NULL: the samples. */
static int
score(const struct pool_args *a, bool csv, struct pool_client *client, json_t *document,
      json_t *flows)
{
    json_t *question = json_pack("{s:O}", "document", document), *answer;
    int code;

    if (flows) {
        json_object_set_new(question, "flows", flows);
    }
    if (pool_call(client, "POST", "/v1/shadow", NULL, question, POOL_CALL_S, &answer)) {
        code = pool_call_failed(a, client);
    } else {
        code = report(a, csv, answer);
        json_decref(answer);
    }
    json_decref(question);
    return code;
}

/* A file that was saved from GET /v1/samples, or the array alone. */
static json_t *
read_flows(const struct pool_args *a, const char *file)
{
    json_t *json = pool_read_document(a, file), *flows = json_object_get(json, "flows");

    if (json_is_array(json)) {
        return json;
    }
    if (json && !flows) {
        pool_failed(a, "the file of flows has none");
    }
    flows = json_incref(flows);
    json_decref(json);
    return flows;
}

static int
shadow(const struct pool_args *a, bool csv, unsigned seconds, const char *file, const char *stored)
{
    json_t *document = pool_read_document(a, a->operands[0]), *flows = NULL;
    struct pool_client *client = NULL;
    int code = CLI_FAILED;

    if (!document || (file && !(flows = read_flows(a, file))) ||
        (stored && !(flows = flow_stored(a->prefix, stored)))) {
        goto done;
    }
    client = pool_connect(a);
    if (!client) {
        goto done;
    }
    code = flows ? CLI_OK : gather(a, a->json || csv, client, seconds);
    if (code == CLI_OK) {
        code = score(a, csv, client, document, json_incref(flows));
    }

done:
    pool_client_close(client);
    json_decref(flows);
    json_decref(document);
    return code;
}

int
pool_shadow_main(int argc, char **argv)
{
    unsigned seconds = SECONDS;
    const char *file = NULL, *stored = NULL;
    bool csv = false;
    const struct cli_opt opts[] = {
        {"seconds", CLI_UINT, &seconds, "N", "hosts report new connections so long (10)", 1, 300},
        {"flows", CLI_STRING, &file, "FILE", "these instead: {\"flows\": [...]} (docs/rest.md)"},
        {"stored", CLI_STRING, &stored, "TIME", "what weft-flowd has of the last 24h, 7d ..."},
        {"csv", CLI_FLAG, &csv, NULL, "a row for each connection that would change"},
    };
    struct pool_args a;
    int code;

    if (!pool_args_parse(&a, "policy", "shadow", "FILE [OPTION...]",
                         "  weft policy shadow pool.json --seconds 60\n"
                         "  weft policy shadow pool.json --flows seen.json --json\n"
                         "  weft policy shadow pool.json --stored 24h\n"
                         "\nFails if something that is allowed now would be denied.\n",
                         opts, sizeof opts / sizeof opts[0], argc, argv, &code)) {
        return code;
    }
    if (a.n != 1) {
        return cli_usage_error(a.prefix, "takes one file, or - for stdin");
    }
    if (file && stored) {
        return cli_usage_error(a.prefix, "--flows or --stored, not both");
    }
    return shadow(&a, csv, seconds, file, stored);
}
