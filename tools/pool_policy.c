/* "weft policy": the pool's configuration as a whole: documents, checks, and
 * commits that wait for a confirmation. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool_cmd.h"

/* --- files ------------------------------------------------------------------------ */

json_t *
pool_read_document(const struct pool_args *a, const char *file)
{
    json_error_t error;
    char why[700];
    bool in = !strcmp(file, "-");
    FILE *f = in ? stdin : fopen(file, "r");
    json_t *json;

    if (!f) {
        snprintf(why, sizeof why, "%.300s: %s", file, strerror(errno));
        pool_failed(a, why);
        return NULL;
    }
    json = json_loadf(f, JSON_REJECT_DUPLICATES, &error);
    if (!json) {
        snprintf(why, sizeof why, "%.300s: line %d, column %d: %s", file, error.line, error.column,
                 error.text);
        pool_failed(a, why);
    }
    if (!in) {
        fclose(f);
    }
    return json;
}

/* A document, and a newline; 'f' is closed. */
static int
put_document(FILE *f, const json_t *json)
{
    int error = 0;

    if (!f || json_dumpf(json, f, JSON_INDENT(2) | JSON_PRESERVE_ORDER) || fputc('\n', f) < 0) {
        error = errno ? errno : EIO;
    }
    if (f && fclose(f) && !error) {
        error = errno;
    }
    return error;
}

/* A file whole, or not at all; what is none (a pipe, a terminal) as it comes. */
static int
write_document(const struct pool_args *a, const char *file, const json_t *json)
{
    char fresh[PATH_MAX], why[700];
    struct stat st;
    int error;

    if (!stat(file, &st) && !S_ISREG(st.st_mode)) {
        error = put_document(fopen(file, "w"), json);
    } else if ((size_t)snprintf(fresh, sizeof fresh, "%s.new", file) >= sizeof fresh) {
        error = ENAMETOOLONG;
    } else {
        error = put_document(fopen(fresh, "w"), json);
        if (!error && rename(fresh, file)) {
            error = errno;
        }
        if (error) {
            unlink(fresh);
        }
    }
    if (!error) {
        return CLI_OK;
    }
    snprintf(why, sizeof why, "%.300s: %s", file, strerror(error));
    return pool_failed(a, why);
}

/* --- commands ------------------------------------------------------------------------ */

/* "120", "120s", "2m", "1h"; 0 if it is none of them or more than a day. */
static unsigned
seconds_of(const char *text)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    unsigned unit = !*end || !strcmp(end, "s") ? 1
                    : !strcmp(end, "m")        ? 60
                    : !strcmp(end, "h")        ? 3600
                                               : 0;

    return *text >= '0' && *text <= '9' && n <= 86400 && n * unit <= 86400 ? (unsigned)n * unit : 0;
}

/* A file goes to 'path': import, commit. */
static int
send_document(const struct pool_args *a, const char *path, const char *query)
{
    json_t *document = pool_read_document(a, a->operands[0]), *answer;
    struct pool_client *client;
    int code = CLI_FAILED;

    if (!document) {
        return CLI_FAILED;
    }
    client = pool_connect(a);
    if (client) {
        code = pool_call(client, "POST", path, query, document, POOL_CALL_S, &answer)
                   ? pool_call_failed(a, client)
                   : pool_changed(a, client, answer);
    }
    pool_client_close(client);
    json_decref(document);
    return code;
}

static int
import_main(int argc, char **argv)
{
    struct pool_args a;
    int code;

    if (!pool_args_parse(&a, "policy", "import", "FILE [OPTION...]",
                         "  weft policy import pool.json --wait\n"
                         "  weft policy export | weft policy import -\n",
                         NULL, 0, argc, argv, &code)) {
        return code;
    }
    return a.n == 1 ? send_document(&a, "/v1/import", NULL)
                    : cli_usage_error(a.prefix, "takes one file, or - for stdin");
}

static int
commit_main(int argc, char **argv)
{
    const char *confirm = NULL;
    const struct cli_opt opts[] = {{"confirm", CLI_STRING, &confirm, "TIME",
                                    "roll back after it (120s, 5m) unless confirmed"}};
    struct pool_args a;
    char query[40] = "";
    int code;

    if (!pool_args_parse(&a, "policy", "commit", "FILE [OPTION...]",
                         "  weft policy commit pool.json --confirm 120s --wait\n"
                         "  weft policy confirm\n",
                         opts, 1, argc, argv, &code)) {
        return code;
    }
    if (a.n != 1) {
        return cli_usage_error(a.prefix, "takes one file, or - for stdin");
    }
    if (confirm && !seconds_of(confirm)) {
        return cli_usage_error(a.prefix, "--confirm takes a time of 1s to 24h: 120s, 5m, 1h");
    }
    if (confirm) {
        snprintf(query, sizeof query, "confirm=%u", seconds_of(confirm));
    }
    code = send_document(&a, "/v1/commit", *query ? query : NULL);
    if (confirm && !a.json && code == CLI_OK) {
        printf("rolls back in %u s unless you say: weft policy confirm\n", seconds_of(confirm));
    }
    return code;
}

static int
post_main(const char *verb, const char *path, const char *examples, int argc, char **argv)
{
    struct pool_args a;
    struct pool_client *client;
    json_t *answer;
    int code;

    if (!pool_args_parse(&a, "policy", verb, "[OPTION...]", examples, NULL, 0, argc, argv, &code)) {
        return code;
    }
    if (a.n) {
        return cli_usage_error(a.prefix, "takes options only");
    }
    client = pool_connect(&a);
    if (!client) {
        return CLI_FAILED;
    }
    code = pool_call(client, "POST", path, NULL, NULL, POOL_CALL_S, &answer)
               ? pool_call_failed(&a, client)
               : pool_changed(&a, client, answer);
    pool_client_close(client);
    return code;
}

static int
confirm_main(int argc, char **argv)
{
    return post_main("confirm", "/v1/confirm", "  weft policy confirm\n", argc, argv);
}

static int
rollback_main(int argc, char **argv)
{
    return post_main("rollback", "/v1/rollback", "  weft policy rollback --wait\n", argc, argv);
}

static int
export_main(int argc, char **argv)
{
    struct pool_args a;
    struct pool_client *client;
    json_t *answer;
    int code;

    if (!pool_args_parse(&a, "policy", "export", "[FILE] [OPTION...]",
                         "  weft policy export pool.json\n  weft policy export | jq .policies\n",
                         NULL, 0, argc, argv, &code)) {
        return code;
    }
    if (a.n > 1) {
        return cli_usage_error(a.prefix, "takes one file, or none for stdout");
    }
    client = pool_connect(&a);
    if (!client) {
        return CLI_FAILED;
    }
    if (pool_call(client, "GET", "/v1/export", NULL, NULL, POOL_CALL_S, &answer)) {
        code = pool_call_failed(&a, client);
    } else {
        code = CLI_OK;
        if (a.n && strcmp(a.operands[0], "-") != 0) {
            code = write_document(&a, a.operands[0], answer);
        } else {
            pool_print_json(answer);
        }
        json_decref(answer);
    }
    pool_client_close(client);
    return code;
}

/* A document's findings, or those of what stands ('document' NULL): fails if
 * there are errors, or, if 'strict', warnings. */
static int
report_on(const struct pool_args *a, const json_t *document, bool strict)
{
    struct pool_client *client = pool_connect(a);
    size_t errors, warnings;
    json_t *answer;
    int code;

    if (!client) {
        return CLI_FAILED;
    }
    if (pool_call(client, document ? "POST" : "GET", "/v1/check", NULL, document, POOL_CALL_S,
                  &answer)) {
        code = pool_call_failed(a, client);
    } else {
        errors = json_array_size(json_object_get(answer, "errors"));
        warnings = json_array_size(json_object_get(answer, "warnings"));
        if (a->json) {
            pool_print_json(answer);
        } else {
            pool_print_report(answer, "errors", "error");
            pool_print_report(answer, "warnings", "warning");
            printf("%zu errors, %zu warnings\n", errors, warnings);
        }
        code = errors || (strict && warnings) ? CLI_FAILED : CLI_OK;
        json_decref(answer);
    }
    pool_client_close(client);
    return code;
}

static int
check_main(int argc, char **argv)
{
    struct pool_args a;
    json_t *document;
    int code;

    if (!pool_args_parse(&a, "policy", "check", "FILE [OPTION...]",
                         "  weft policy check pool.json\n", NULL, 0, argc, argv, &code)) {
        return code;
    }
    if (a.n != 1) {
        return cli_usage_error(a.prefix, "takes one file, or - for stdin");
    }
    document = pool_read_document(&a, a.operands[0]);
    if (!document) {
        return CLI_FAILED;
    }
    code = report_on(&a, document, false);
    json_decref(document);
    return code;
}

static int
lint_main(int argc, char **argv)
{
    struct pool_args a;
    int code;

    if (!pool_args_parse(&a, "policy", "lint", "[OPTION...]", "  weft policy lint --json\n", NULL,
                         0, argc, argv, &code)) {
        return code;
    }
    return a.n ? cli_usage_error(a.prefix, "takes options only") : report_on(&a, NULL, true);
}

const struct cli_cmd pool_policy_cmds[] = {
    {"lint", "conflicts, unreachable rules and errors of what stands", lint_main},
    {"check", "what a document would do; nothing changes", check_main},
    {"commit", "a document replaces the classes it holds, for a trial", commit_main},
    {"shadow", "what a document would do with connections of now", pool_shadow_main},
    {"confirm", "a commit made with --confirm stays", confirm_main},
    {"rollback", "a commit made with --confirm is taken back", rollback_main},
    {"log", "what rules with their log flag decided", pool_log_main},
    {"export", "the configuration as a document", export_main},
    {"import", "a document replaces the classes it holds", import_main},
};
const size_t n_pool_policy_cmds = sizeof pool_policy_cmds / sizeof pool_policy_cmds[0];
