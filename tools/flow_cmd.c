#include "flow_cmd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli_env.h"

enum { CALL_S = 60 };

static const struct cli_cmd commands[] = {
    {"top", "who sends most: by address, vif, VM, tenant, rule, port ...", flow_top_main},
    {"list", "single records, newest first", flow_list_main},
    {"graph", "traffic over time, here or as SVG", flow_graph_main},
    {"why-dropped", "what was dropped: why, by which rule, whose", flow_why_main},
    {"matrix", "who talks to whom, by tenant, network, group, VM", flow_matrix_main},
    {"watch", "records as they come", flow_watch_main},
    {"status", "exporters, what was lost, the store", flow_status_main},
    {"help", "\"help filter\" explains filters, \"help columns\" what to sum by", flow_help_main},
};

static const struct cli_group group = {
    .prefix = "weft flow",
    .about = "recorded flows, from weft-flowd",
    .examples = "  weft flow top --by vm --last 10m\n"
                "  weft flow list src 10.1.0.0/16 and dst port 443\n"
                "  weft flow why-dropped --last 1h tenant red\n"
                "  weft flow graph --by tenant --last 24h --svg day.svg\n"
                "  weft flow help filter\n",
    .cmds = commands,
    .n_cmds = sizeof commands / sizeof commands[0],
};

int
flow_main(int argc, char **argv)
{
    /* "help" alone is the group's; with a subject, flow_help_main's. */
    if (argc > 1 && !strcmp(argv[0], "help")) {
        return flow_help_main(argc - 1, argv + 1);
    }
    return cli_dispatch(&group, argc, argv);
}

/* --- the command line ------------------------------------------------------------- */

static int
take_filter(struct flow_cli *c, int *argc, char ***argv, char *why, size_t why_size)
{
    size_t n = strlen(c->filter);
    int m = snprintf(c->filter + n, sizeof c->filter - n, "%s%s", n ? " " : "", **argv);

    if ((size_t)m >= sizeof c->filter - n) {
        snprintf(why, why_size, "the filter is too long");
        return EINVAL;
    }
    --*argc;
    ++*argv;
    return 0;
}

static void
print_help(const struct flow_cli *c, const char *about, const struct cli_opt *opts, size_t n,
           const char *examples)
{
    printf("Usage: %s [OPTION...] [FILTER]\n\n%s\n\nOptions:\n", c->prefix, about);
    cli_print_options(opts, n);
    printf("\nExamples:\n%s", examples);
}

/* False: why is said. */
static bool
connect_daemon(struct flow_cli *c)
{
    struct pool_where where = c->where;
    char url[300] = "unix:", why[300];

    where.daemon = "weft-flowd";
    where.controller = cli_env(where.controller, "WEFT_FLOWD");
    if (!where.controller) {
        cli_socket_path(url + 5, sizeof url - 5, "weft-flowd.http");
        where.controller = url;
    }
    if (pool_client_open(&where, &c->client, why, sizeof why)) {
        flow_cli_failed(c, why);
        return false;
    }
    return true;
}

bool
flow_cli_open(struct flow_cli *c, const char *verb, const char *about, const char *examples,
              const struct cli_opt *more, size_t n_more, int argc, char **argv, int *exit_code)
{
    struct cli_opt opts[24] = {
        {"last", CLI_STRING, &c->last, "TIME", "how far back: 90s, 10m, 24h, 7d (1h)"},
        {"from", CLI_STRING, &c->from, "TIME", "2026-11-20T20:00 (UTC), or seconds since 1970"},
        {"to", CLI_STRING, &c->to, "TIME", "likewise (now)"},
        {"json", CLI_FLAG, &c->json, NULL, "for programs"},
        {"csv", CLI_FLAG, &c->csv, NULL, "for spreadsheets"},
        {"no-color", CLI_FLAG, &c->no_color, NULL, "plain text"},
        {"flowd", CLI_STRING, &c->where.controller, "URL",
         "unix:PATH or https://HOST:PORT of weft-flowd ($WEFT_FLOWD)"},
        {"certificate", CLI_STRING, &c->where.certificate, "FILE", "ours, for https"},
        {"private-key", CLI_STRING, &c->where.private_key, "FILE", "of our certificate"},
        {"ca-cert", CLI_STRING, &c->where.ca_cert, "FILE", "of weft-flowd's certificate"},
    };
    size_t n = 10;
    char why[300];
    int error = 0;

    memset(c, 0, sizeof *c);
    snprintf(c->prefix, sizeof c->prefix, "weft flow %s", verb);
    for (size_t i = 0; i < n_more; i++) {
        opts[n++] = more[i];
    }
    while (!error && argc > 0) {
        error = cli_parse(opts, n, &argc, &argv, why, sizeof why);
        if (!error && argc > 0) {
            error = take_filter(c, &argc, &argv, why, sizeof why);
        }
    }
    if (error == ECANCELED) {
        print_help(c, about, opts, n, examples);
        *exit_code = CLI_OK;
        return false;
    }
    if (error) {
        *exit_code = cli_usage_error(c->prefix, why);
        return false;
    }
    *exit_code = CLI_FAILED;
    return connect_daemon(c);
}

bool
flow_cli_begin(struct flow_cli *c, const char *prefix)
{
    memset(c, 0, sizeof *c);
    snprintf(c->prefix, sizeof c->prefix, "%s", prefix);
    return connect_daemon(c);
}

void
flow_cli_close(struct flow_cli *c)
{
    pool_client_close(c->client);
}

int
flow_cli_failed(const struct flow_cli *c, const char *why)
{
    fprintf(stderr, "%s: %s\n", c->prefix, why);
    return CLI_FAILED;
}

/* --- questions ---------------------------------------------------------------------- */

static void
put_pair(FILE *f, const char *name, const char *value)
{
    if (!value || !*value) {
        return;
    }
    fprintf(f, "%s%s=", ftell(f) ? "&" : "", name);
    for (const char *p = value; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || strchr("-._~", *p);
        fprintf(f, plain ? "%c" : "%%%02X", (unsigned char)*p);
    }
}

char *
flow_cli_query(const struct flow_cli *c, const char *const pairs[][2])
{
    char *query = NULL;
    size_t n;
    FILE *f = open_memstream(&query, &n);

    if (!f) {
        return NULL;
    }
    put_pair(f, "last", c->last);
    put_pair(f, "from", c->from);
    put_pair(f, "to", c->to);
    put_pair(f, "metric", c->metric);
    put_pair(f, "filter", c->filter);
    for (; pairs && (*pairs)[0]; pairs++) {
        put_pair(f, (*pairs)[0], (*pairs)[1]);
    }
    fclose(f);
    return query;
}

/* The filter with a caret below what stands at the object's "column". */
static void
point_at(const struct flow_cli *c, const json_t *o)
{
    const json_t *column = json_object_get(o, "column");
    size_t at = (size_t)json_integer_value(column), width = 0;

    if (!json_is_integer(column) || at > strlen(c->filter)) {
        return;
    }
    for (size_t i = 0; i < at; i++) { /* characters, not bytes */
        width += (c->filter[i] & 0xc0) != 0x80;
    }
    fprintf(stderr, "    ");
    flow_put_text(stderr, c->filter);
    fprintf(stderr, "\n    %*s^\n", (int)width, "");
}

int
flow_cli_refused(struct flow_cli *c)
{
    const json_t *refusal = pool_client_refusal(c->client);
    const char *field = json_string_value(json_object_get(refusal, "field"));

    flow_cli_failed(c, pool_client_why(c->client));
    if (field && !strcmp(field, "filter")) {
        point_at(c, refusal);
        fprintf(stderr, "\"weft flow help filter\" explains filters\n");
    }
    return CLI_FAILED;
}

/* Names that nobody has are no error, but perhaps misspelt. */
static void
say_unknown(const struct flow_cli *c, const json_t *answer)
{
    const json_t *o;
    size_t i;

    json_array_foreach(json_object_get(answer, "unknown"), i, o)
    {
        const char *name = json_string_value(json_object_get(o, "name"));

        fprintf(stderr, "%s: nothing is called \"", c->prefix);
        flow_put_text(stderr, name ? name : "");
        fprintf(stderr, "\", or ever was\n");
        point_at(c, o);
    }
}

void
flow_cli_none(const struct flow_cli *c)
{
    puts(*c->filter ? "no flows in that time pass the filter" : "no flows in that time");
}

json_t *
flow_cli_ask(struct flow_cli *c, const char *path, const char *const pairs[][2])
{
    char *query = flow_cli_query(c, pairs);
    json_t *answer = NULL;

    if (!query) {
        flow_cli_failed(c, "out of memory");
    } else if (pool_call(c->client, "GET", path, query, NULL, CALL_S, &answer)) {
        flow_cli_refused(c);
        answer = NULL;
    }
    say_unknown(c, answer);
    free(query);
    return answer;
}
