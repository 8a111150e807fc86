/* "weft login", "weft logout", "weft session": tokens instead of certificates. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool_cmd.h"
#include "pool_session.h"

static const char *
text_of(const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));

    return text ? text : "";
}

static const char *
stated(const char *option, const char *env)
{
    const char *value = option ? option : getenv(env);

    return value ? value : "";
}

/* Where later commands go, and by whose word they know that they have arrived. */
static bool
prepare(const struct pool_args *a, const char *at, struct pool_session *s)
{
    const char *ca = stated(a->where.ca_cert, "WEFT_CA_CERT");
    const char *controller = at ? at : stated(a->where.controller, "WEFT_CONTROLLER");
    char full[PATH_MAX];

    memset(s, 0, sizeof *s);
    if (!strncmp(controller, "https://", 8) && !*ca) {
        pool_failed(a, "https needs --ca-cert FILE (or $WEFT_CA_CERT)");
        return false;
    }
    if (*ca && realpath(ca, full)) {
        ca = full;
    }
    if ((size_t)snprintf(s->controller, sizeof s->controller, "%s", controller) >=
            sizeof s->controller ||
        (size_t)snprintf(s->ca_cert, sizeof s->ca_cert, "%s", ca) >= sizeof s->ca_cert) {
        pool_failed(a, "the controller's URL, or the path of the CA's certificate, is too long");
        return false;
    }
    return true;
}

/* A session that cannot be kept is ended. */
static int
keep(const struct pool_args *a, struct pool_client *client, struct pool_session *s,
     const json_t *answer)
{
    char why[300], path[100];

    snprintf(s->token, sizeof s->token, "%s", text_of(answer, "token"));
    if (!pool_session_write(s, why, sizeof why)) {
        return CLI_OK;
    }
    snprintf(path, sizeof path, "/v1/sessions/%.60s", text_of(answer, "id"));
    pool_call(client, "DELETE", path, NULL, NULL, POOL_CALL_S, NULL);
    return pool_failed(a, why);
}

static int
begin(const struct pool_args *a, struct pool_client *client, const char *at, const json_t *body)
{
    struct pool_session s;
    json_t *answer;
    int code = CLI_OK;

    if (!a->json && !prepare(a, at, &s)) {
        return CLI_FAILED;
    }
    if (pool_call(client, "POST", "/v1/sessions", NULL, body, POOL_CALL_S, &answer)) {
        return pool_call_failed(a, client);
    }
    if (a->json) {
        pool_print_json(answer); /* for a program that keeps it by itself */
    } else if (!(code = keep(a, client, &s, answer))) {
        printf("session %s of ", text_of(answer, "id"));
        pool_print_text(text_of(answer, "user"));
        printf(", for %lld s, or %lld s without use\n",
               (long long)json_integer_value(json_object_get(answer, "expires_in")),
               (long long)json_integer_value(json_object_get(answer, "idle")));
    }
    json_decref(answer);
    return code;
}

int
pool_login_main(int argc, char **argv)
{
    const char *user = NULL, *at = NULL;
    unsigned lifetime = 0, idle = 0;
    const struct cli_opt more[] = {
        {"user", CLI_STRING, &user, "NAME", "of the pool; default: the certificate's"},
        {"lifetime", CLI_UINT, &lifetime, "SECONDS", "(43200)", 60, 604800},
        {"idle", CLI_UINT, &idle, "SECONDS", "ends when not used for so long (1800)", 60, 604800},
        {"at", CLI_STRING, &at, "URL", "where the session is for; default: where it begins"},
    };
    struct pool_client *client;
    struct pool_args a;
    json_t *body;
    int code;

    if (!pool_args_parse(&a, "login", "", "[OPTION...]",
                         "  weft login --user alice        at the controller's own machine\n"
                         "  weft login --controller https://10.0.0.2:8443 --certificate alice.crt "
                         "--private-key alice.key --ca-cert ca.crt --at https://10.0.0.2:8444\n"
                         "  weft status                    as alice from now on\n",
                         more, sizeof more / sizeof more[0], argc, argv, &code)) {
        return code;
    }
    if (a.n) {
        return cli_usage_error(a.prefix, "takes options only");
    }
    a.where.no_session = true;
    client = pool_connect(&a);
    if (!client) {
        return CLI_FAILED;
    }
    body = json_object();
    if (user) {
        json_object_set_new(body, "user", json_string(user));
    }
    if (lifetime) {
        json_object_set_new(body, "lifetime", json_integer(lifetime));
    }
    if (idle) {
        json_object_set_new(body, "idle", json_integer(idle));
    }
    code = begin(&a, client, at, body);
    json_decref(body);
    pool_client_close(client);
    return code;
}

int
pool_logout_main(int argc, char **argv)
{
    struct pool_client *client;
    struct pool_args a;
    char why[300];
    int code, error;

    if (!pool_args_parse(&a, "logout", "", "[OPTION...]", "  weft logout\n", NULL, 0, argc, argv,
                         &code)) {
        return code;
    }
    if (a.n) {
        return cli_usage_error(a.prefix, "takes options only");
    }
    client = pool_connect(&a);
    if (!client) {
        return CLI_FAILED;
    }
    /* It may have ended; but not to have asked must be known. */
    error = pool_call(client, "DELETE", "/v1/sessions/current", NULL, NULL, POOL_CALL_S, NULL);
    code = error == EIO ? pool_call_failed(&a, client) : CLI_OK;
    pool_client_close(client);
    if (pool_session_remove(why, sizeof why)) {
        code = pool_failed(&a, why);
    }
    return code;
}

static int
list(int argc, char **argv)
{
    struct pool_client *client;
    struct pool_args a;
    json_t *answer, *s;
    size_t i;
    int code;

    if (!pool_args_parse(&a, "session", "list", "[OPTION...]", "  weft session list\n", NULL, 0,
                         argc, argv, &code)) {
        return code;
    }
    if (a.n) {
        return cli_usage_error(a.prefix, "takes options only");
    }
    client = pool_connect(&a);
    if (!client) {
        return CLI_FAILED;
    }
    if (pool_call(client, "GET", "/v1/sessions", NULL, NULL, POOL_CALL_S, &answer)) {
        code = pool_call_failed(&a, client);
        pool_client_close(client);
        return code;
    }
    if (a.json) {
        pool_print_json(answer);
    } else {
        json_array_foreach(json_object_get(answer, "sessions"), i, s)
        {
            pool_print_text(text_of(s, "id"));
            printf("  ");
            pool_print_text(text_of(s, "user"));
            printf("  from ");
            pool_print_text(text_of(s, "address"));
            printf("  since %s, ends in %lld s\n", text_of(s, "began"),
                   (long long)json_integer_value(json_object_get(s, "idle_in")));
        }
    }
    json_decref(answer);
    pool_client_close(client);
    return CLI_OK;
}

static int
end(int argc, char **argv)
{
    struct pool_client *client;
    struct pool_args a;
    char path[100];
    int code;

    if (!pool_args_parse(&a, "session", "end", "ID [OPTION...]",
                         "  weft session end 1f00c0ffee012345\n", NULL, 0, argc, argv, &code)) {
        return code;
    }
    if (a.n != 1 || strlen(a.operands[0]) > 60) {
        return cli_usage_error(a.prefix, "needs the session's ID; \"weft session list\" has them");
    }
    client = pool_connect(&a);
    if (!client) {
        return CLI_FAILED;
    }
    snprintf(path, sizeof path, "/v1/sessions/%s", a.operands[0]);
    code = pool_call(client, "DELETE", path, NULL, NULL, POOL_CALL_S, NULL)
               ? pool_call_failed(&a, client)
               : CLI_OK;
    pool_client_close(client);
    return code;
}

int
pool_session_main(int argc, char **argv)
{
    static const struct cli_cmd commands[] = {
        {"list", "who is logged in; an admin sees all", list},
        {"end", "revoke a session", end},
    };
    static const struct cli_group group = {
        .prefix = "weft session",
        .about = "sessions that weft login began",
        .examples = "  weft session list\n  weft session end 1f00c0ffee012345\n",
        .cmds = commands,
        .n_cmds = sizeof commands / sizeof commands[0],
    };

    return cli_dispatch(&group, argc, argv);
}
