/* "weft policy log": what rules with their log flag decided. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pool_cmd.h"

/* Between two questions of --follow. */
#define FOLLOW_S 1

static const char *
text(const json_t *entry, const char *member)
{
    const char *s = json_string_value(json_object_get(entry, member));

    return s ? s : "";
}

static void
print_entry(const json_t *e)
{
    int64_t ms = json_integer_value(json_object_get(e, "time"));
    const char *from = text(e, "from"), *to = text(e, "to");
    time_t seconds = ms / 1000;
    char when[40], line[900];
    struct tm tm;

    gmtime_r(&seconds, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(line, sizeof line, "%s.%03dZ %.64s %-5.8s %-3.4s %.260s: %.200s%s%.128s%s%.128s", when,
             (int)(ms % 1000), text(e, "host"), text(e, "action"), text(e, "direction"),
             text(e, "rule"), text(e, "packet"), *from ? ", from vif " : "", from,
             *to ? ", to vif " : "", to);
    pool_print_text(line);
    putchar('\n');
}

/* What has come after '*last'; -1: the latest. */
static int
show(const struct pool_args *a, struct pool_client *client, int64_t *last)
{
    json_t *answer, *entry;
    char query[40] = "";
    int64_t lost;
    size_t i;

    if (*last >= 0) {
        snprintf(query, sizeof query, "after=%lld", (long long)*last);
    }
    if (pool_call(client, "GET", "/v1/log", *query ? query : NULL, NULL, POOL_CALL_S, &answer)) {
        return pool_call_failed(a, client);
    }
    lost = json_integer_value(json_object_get(answer, "lost"));
    if (lost > 0) {
        fprintf(stderr, "%s: %lld entries were gone before they could be read\n", a->prefix,
                (long long)lost);
    }
    json_array_foreach(json_object_get(answer, "entries"), i, entry)
    {
        if (a->json) {
            json_dumpf(entry, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
            putchar('\n');
        } else {
            print_entry(entry);
        }
    }
    fflush(stdout);
    *last = json_integer_value(json_object_get(answer, "last"));
    json_decref(answer);
    return CLI_OK;
}

int
pool_log_main(int argc, char **argv)
{
    bool follow = false;
    const struct cli_opt opts[] = {
        {"follow", CLI_FLAG, &follow, NULL, "goes on until it is interrupted"}};
    struct pool_client *client;
    struct pool_args a;
    int64_t last = -1;
    int code;

    if (!pool_args_parse(&a, "policy", "log", "[OPTION...]",
                         "  weft rule set base/no-ssh log=true\n"
                         "  weft policy log --follow\n"
                         "  weft policy log --json | jq .rule\n",
                         opts, 1, argc, argv, &code)) {
        return code;
    }
    if (a.n) {
        return cli_usage_error(a.prefix, "takes options only");
    }
    client = pool_connect(&a);
    if (!client) {
        return CLI_FAILED;
    }
    code = show(&a, client, &last);
    while (follow && code == CLI_OK && !ferror(stdout)) {
        sleep(FOLLOW_S);
        code = show(&a, client, &last);
    }
    pool_client_close(client);
    return code;
}
