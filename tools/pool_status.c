/* "weft status": is every host as it should be? */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "pool_cmd.h"

static long long
number(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static void
print_status(const json_t *status, const json_t *hosts)
{
    const json_t *pending = json_object_get(status, "pending");

    printf("generation %lld", number(status, "generation"));
    if (json_object_get(status, "hosts")) {
        printf(": on %lld of %lld connected hosts, %lld in all", number(status, "applied"),
               number(status, "connected"), number(status, "hosts"));
    }
    putchar('\n');
    if (json_is_false(json_object_get(status, "database"))) {
        printf("the controller is not connected to its database\n");
    }
    if (pending) {
        long long left = number(pending, "deadline") / 1000 - (long long)time(NULL);
        const char *author = json_string_value(json_object_get(pending, "author"));
        printf("a commit by ");
        pool_print_text(author && *author ? author : "somebody");
        printf(" rolls back in %lld s unless confirmed\n", left > 0 ? left : 0);
    }
    if (json_array_size(hosts)) {
        putchar('\n');
        pool_print_table(pool_class_by_noun("host"), hosts);
    }
    if (json_array_size(json_object_get(status, "errors")) ||
        json_array_size(json_object_get(status, "warnings"))) {
        putchar('\n');
    }
    pool_print_report(status, "errors", "error");
    pool_print_report(status, "warnings", "warning");
}

int
pool_status_main(int argc, char **argv)
{
    struct pool_args a;
    struct pool_client *client;
    json_t *status = NULL, *hosts = NULL;
    int code;

    if (!pool_args_parse(&a, "status", "", "[OPTION...]",
                         "  weft status\n"
                         "  weft status --wait --timeout 10   fails if a host lags behind\n",
                         NULL, 0, argc, argv, &code)) {
        return code;
    }
    if (a.n) {
        return cli_usage_error(a.prefix, "takes options only");
    }
    client = pool_connect(&a);
    if (!client) {
        return CLI_FAILED;
    }
    if (pool_call(client, "GET", "/v1/status", NULL, NULL, POOL_CALL_S, &status) ||
        pool_call(client, "GET", "/v1/hosts", NULL, NULL, POOL_CALL_S, &hosts)) {
        code = pool_call_failed(&a, client);
    } else {
        code = a.wait ? pool_wait(&a, client, number(status, "generation")) : CLI_OK;
        if (a.json) {
            pool_print_json(status);
        } else {
            print_status(status, json_object_get(hosts, "hosts"));
        }
    }
    json_decref(status);
    json_decref(hosts);
    pool_client_close(client);
    return code;
}
