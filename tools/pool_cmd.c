#include "pool_cmd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int
parse_mixed(const struct cli_opt *opts, size_t n, struct pool_args *a, int argc, char **argv,
            char *why, size_t why_size)
{
    a->operands = argv;
    while (argc > 0) {
        char **before = argv;
        int error = cli_parse(opts, n, &argc, &argv, why, why_size);
        if (error) {
            return error;
        }
        bool all = argv > before && !strcmp(argv[-1], "--");
        do { /* operands gather in front, where options stood */
            if (argc > 0) {
                a->operands[a->n++] = *argv++;
                argc--;
            }
        } while (all && argc > 0);
    }
    return 0;
}

bool
pool_args_parse(struct pool_args *a, const char *noun, const char *verb, const char *usage,
                const char *examples, const struct cli_opt *more, size_t n_more, int argc,
                char **argv, int *exit_code)
{
    struct cli_opt opts[32] = {
        {"json", CLI_FLAG, &a->json, NULL, "for programs"},
        {"wait", CLI_FLAG, &a->wait, NULL, "until every connected host has it"},
        {"timeout", CLI_UINT, &a->timeout_s, "SECONDS", "of --wait (60)", 1, 600},
        POOL_WHERE_OPTIONS(&a->where),
    };
    size_t n = 7;
    char why[200];
    int error;

    memset(a, 0, sizeof *a);
    a->timeout_s = POOL_WAIT_S;
    snprintf(a->prefix, sizeof a->prefix, "weft %s%s%s", noun, *verb ? " " : "", verb);
    for (size_t i = 0; i < n_more; i++) {
        opts[n++] = more[i];
    }
    error = parse_mixed(opts, n, a, argc, argv, why, sizeof why);
    if (!error) {
        return true;
    }
    if (error == ECANCELED) {
        printf("Usage: %s %s\n\nOptions:\n", a->prefix, usage);
        cli_print_options(opts, n);
        printf("\nExamples:\n%s", examples);
        *exit_code = CLI_OK;
    } else {
        *exit_code = cli_usage_error(a->prefix, why);
    }
    return false;
}

int
pool_failed(const struct pool_args *a, const char *why)
{
    fprintf(stderr, "%s: %s\n", a->prefix, why);
    return CLI_FAILED;
}

struct pool_client *
pool_connect(const struct pool_args *a)
{
    struct pool_client *client;
    char why[300];

    if (pool_client_open(&a->where, &client, why, sizeof why)) {
        pool_failed(a, why);
    }
    return client;
}

void
pool_print_json(const json_t *json)
{
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);
    putchar('\n');
}

int
pool_call_failed(const struct pool_args *a, struct pool_client *client)
{
    const json_t *refusal = pool_client_refusal(client);
    const json_t *errors = json_object_get(refusal, "errors");

    if (a->json && refusal) {
        pool_print_json(refusal);
    }
    pool_failed(a, pool_client_why(client));
    for (size_t i = 1; i < json_array_size(errors); i++) {
        const json_t *e = json_array_get(errors, i);
        const char *object = json_string_value(json_object_get(e, "object"));
        const char *field = json_string_value(json_object_get(e, "field"));
        const char *message = json_string_value(json_object_get(e, "message"));
        fprintf(stderr, "  %s%s%s: %s\n", object ? object : "", field ? ": " : "",
                field ? field : "", message ? message : "");
    }
    return CLI_FAILED;
}

/* Nobody waits for a host that is not there, but one should know. */
static void
tell_absent(const struct pool_args *a, const json_t *hosts)
{
    size_t n = json_array_size(hosts);
    const char *first = json_string_value(json_array_get(hosts, 0));

    if (n) {
        fprintf(stderr, "%s: %.100s%s not connected, and will have it later\n", a->prefix,
                first ? first : "", n > 1 ? " and other hosts are" : " is");
    }
}

int
pool_wait(const struct pool_args *a, struct pool_client *client, int64_t generation)
{
    char query[80], why[200];
    json_t *answer;
    const char *late;
    bool applied;

    snprintf(query, sizeof query, "generation=%lld&timeout=%u", (long long)generation,
             a->timeout_s);
    if (pool_call(client, "GET", "/v1/wait", query, NULL, a->timeout_s + POOL_CALL_S, &answer)) {
        return pool_call_failed(a, client);
    }
    applied = json_is_true(json_object_get(answer, "applied"));
    if (!applied) {
        late = json_string_value(json_array_get(json_object_get(answer, "waiting_for"), 0));
        snprintf(why, sizeof why,
                 "generation %lld is stated, but after %u s not every host has it%s%.100s",
                 (long long)generation, a->timeout_s, late ? ": " : "", late ? late : "");
        pool_failed(a, why);
    }
    tell_absent(a, json_object_get(answer, "not_connected"));
    json_decref(answer);
    return applied ? CLI_OK : CLI_FAILED;
}

int
pool_changed(const struct pool_args *a, struct pool_client *client, json_t *answer)
{
    int64_t generation = json_integer_value(json_object_get(answer, "generation"));
    int code = CLI_OK;

    if (a->json) {
        pool_print_json(answer);
    } else {
        pool_print_report(answer, "warnings", "warning");
    }
    json_decref(answer);
    if (a->wait) {
        code = pool_wait(a, client, generation);
    }
    return code;
}
