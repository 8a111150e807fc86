#include "xapi_client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_env.h"

#define ANSWER_MAX ((size_t)64 << 20)
#define HOPS 4

struct xapi_client {
    CURL *curl;
    struct xapi_where where;
    char base[300];   /* "http://localhost" or "https://HOST:PORT" */
    char socket[108]; /* "": https */
    char session[80];
    char code[80], why[700];
    char curl_error[CURL_ERROR_SIZE];
};

struct answer {
    char *text;
    size_t n;
};

static size_t
take(char *data, size_t size, size_t n, void *answer_)
{
    struct answer *a = answer_;
    char *text;

    n *= size;
    if (a->n + n > ANSWER_MAX || !(text = realloc(a->text, a->n + n + 1))) {
        return 0;
    }
    a->text = text;
    memcpy(a->text + a->n, data, n);
    a->n += n;
    return n;
}

/* --- where ------------------------------------------------------------------------ */

static int
use_https(struct xapi_client *c, const char *url, char *why, size_t why_size)
{
    const struct xapi_where *w = &c->where;
    const char *ca = cli_env(w->ca_cert, "WEFT_CA_CERT");
    const char *certificate = cli_env(w->certificate, "WEFT_CERTIFICATE");
    const char *key = cli_env(w->private_key, "WEFT_PRIVATE_KEY");
    size_t n = strlen(url);

    n -= n && url[n - 1] == '/';
    if (n >= sizeof c->base) {
        snprintf(why, why_size, "the URL is too long");
        return EINVAL;
    }
    if (!ca || (!w->user && (!certificate || !key))) {
        snprintf(why, why_size,
                 "https needs --ca-cert ($WEFT_CA_CERT), and either --certificate and "
                 "--private-key, or --user");
        return EINVAL;
    }
    snprintf(c->base, sizeof c->base, "%.*s", (int)n, url);
    *c->socket = '\0';
    curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, NULL);
    curl_easy_setopt(c->curl, CURLOPT_CAINFO, ca);
    curl_easy_setopt(c->curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
    if (certificate && key) {
        curl_easy_setopt(c->curl, CURLOPT_SSLCERT, certificate);
        curl_easy_setopt(c->curl, CURLOPT_SSLKEY, key);
    }
    return 0;
}

static int
go_to(struct xapi_client *c, const char *url, char *why, size_t why_size)
{
    int n;

    if (url && !strncmp(url, "https://", 8) && url[8]) {
        return use_https(c, url, why, why_size);
    }
    if (url && (strncmp(url, "unix:", 5) || !url[5])) {
        snprintf(why, why_size, "weft-xapid is unix:PATH or https://HOST[:PORT], not \"%.80s\"",
                 url);
        return EINVAL;
    }
    n = url ? snprintf(c->socket, sizeof c->socket, "%s", url + 5)
            : cli_socket_path(c->socket, sizeof c->socket, "weft-xapid.sock");
    if ((size_t)n >= sizeof c->socket) {
        snprintf(why, why_size, "the path of weft-xapid's socket is too long");
        return EINVAL;
    }
    curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, c->socket);
    strcpy(c->base, "http://localhost");
    return 0;
}

/* "https://old:8443" and another host: the same port there. */
static int
follow(struct xapi_client *c, const char *host, char *why, size_t why_size)
{
    const char *old = strstr(c->base, "://");
    const char *port = old && !strncmp(c->base, "https", 5) ? strrchr(old + 3, ':') : NULL;
    bool v6 = strchr(host, ':');
    char url[300];

    if (port && strchr(port, ']')) {
        port = NULL;
    }
    snprintf(url, sizeof url, "https://%s%.200s%s%s", v6 ? "[" : "", host, v6 ? "]" : "",
             port ? port : "");
    return go_to(c, url, why, why_size);
}

/* --- calls -------------------------------------------------------------------------- */

static int
failed(struct xapi_client *c, const json_t *error)
{
    const char *code = json_string_value(json_object_get(error, "message"));
    const json_t *data = json_object_get(error, "data");
    size_t n, i;
    json_t *word;

    snprintf(c->code, sizeof c->code, "%s", code ? code : "no code");
    n = (size_t)snprintf(c->why, sizeof c->why, "%s", c->code);
    json_array_foreach(data, i, word)
    {
        const char *s = json_string_value(word);
        if (s && *s && n < sizeof c->why) {
            n += (size_t)snprintf(c->why + n, sizeof c->why - n, "%s %.300s", i ? "," : ":", s);
        }
    }
    return EREMOTEIO;
}

static int
read_answer(struct xapi_client *c, const struct answer *a, json_t **result)
{
    json_t *json = json_loadb(a->text ? a->text : "", a->n, 0, NULL);
    const json_t *error = json_object_get(json, "error");
    json_t *value = json_object_get(json, "result");
    int code = 0;

    if (error) {
        code = failed(c, error);
    } else if (!value) {
        snprintf(c->why, sizeof c->why, "%s does not answer as weft-xapid does",
                 *c->socket ? c->socket : c->base);
        code = EIO;
    } else if (result) {
        *result = json_incref(value);
    }
    json_decref(json);
    return code;
}

/* Of a socket curl would name a port of localhost. */
static void
no_answer(struct xapi_client *c, CURLcode code)
{
    bool socket = *c->socket;

    snprintf(c->why, sizeof c->why, "no answer from weft-xapid at %s: %s%s",
             socket ? c->socket : c->base,
             socket || !*c->curl_error ? curl_easy_strerror(code) : c->curl_error,
             code == CURLE_COULDNT_CONNECT ? "; is it running? --xapi or $WEFT_XAPI say where"
                                           : "");
}

/* Without a session. */
static int
call(struct xapi_client *c, const char *method, json_t *params, json_t **result)
{
    json_t *body = json_pack("{s:s, s:s, s:o, s:i}", "jsonrpc", "2.0", "method", method, "params",
                             params, "id", 1);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL, url[320];
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    struct answer answer = {NULL, 0};
    int error = ENOMEM;

    *c->code = '\0';
    json_decref(body);
    snprintf(url, sizeof url, "%s/jsonrpc", c->base);
    if (text && headers) {
        curl_easy_setopt(c->curl, CURLOPT_URL, url);
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, text);
        curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, take);
        curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &answer);
        CURLcode code = curl_easy_perform(c->curl);
        if (code) {
            no_answer(c, code);
            error = EIO;
        } else {
            error = read_answer(c, &answer, result);
        }
    } else {
        snprintf(c->why, sizeof c->why, "out of memory");
    }
    free(answer.text);
    curl_slist_free_all(headers);
    free(text);
    return error;
}

int
xapi_call(struct xapi_client *c, const char *method, json_t *params, json_t **result)
{
    json_array_insert_new(params, 0, json_string(c->session));
    return call(c, method, params, result);
}

const char *
xapi_why(const struct xapi_client *c)
{
    return c->why;
}

const char *
xapi_error(const struct xapi_client *c)
{
    return c->code;
}

char *
xapi_find(struct xapi_client *c, const char *class, const char *name)
{
    char method[60], *ref = NULL;
    json_t *refs;

    snprintf(method, sizeof method, "%s.get_by_name_label", class);
    if (xapi_call(c, method, json_pack("[s]", name), &refs)) {
        return NULL;
    }
    if (json_array_size(refs) == 1) {
        ref = strdup(json_string_value(json_array_get(refs, 0)));
    } else {
        snprintf(c->why, sizeof c->why, "there %s %s \"%.100s\"",
                 json_array_size(refs) ? "is more than one" : "is no", class, name);
    }
    json_decref(refs);
    return ref;
}

/* --- life ------------------------------------------------------------------------------ */

/* The parameter of HOST_IS_SLAVE is in 'why', behind the code. */
static int
login(struct xapi_client *c, char *why, size_t why_size)
{
    const char *password = getenv("WEFT_PASSWORD");
    int error = 0;

    for (int i = 0; i < HOPS && !error; i++) {
        const char *user = c->where.user ? c->where.user : "";
        json_t *params = json_pack("[s, s, s, s]", user, c->where.user && password ? password : "",
                                   "2.21", "weft");
        json_t *session = NULL;

        if (!call(c, "session.login_with_password", params, &session)) {
            const char *ref = json_string_value(session);
            snprintf(c->session, sizeof c->session, "%s", ref ? ref : "");
            json_decref(session);
            return 0;
        }
        if (strcmp(c->code, "HOST_IS_SLAVE") != 0) {
            snprintf(why, why_size, "%s", c->why);
            return EACCES;
        }
        error = follow(c, c->why + strlen("HOST_IS_SLAVE: "), why, why_size);
    }
    if (!error) {
        snprintf(why, why_size, "no host says that it is the coordinator");
    }
    return error ? error : EACCES;
}

int
xapi_open(const struct xapi_where *w, struct xapi_client **cp, char *why, size_t why_size)
{
    struct xapi_client *c = calloc(1, sizeof *c);
    int error = ENOMEM;

    *cp = NULL;
    if (!c || curl_global_init(CURL_GLOBAL_DEFAULT) || !(c->curl = curl_easy_init())) {
        snprintf(why, why_size, "out of memory");
        goto error;
    }
    c->where = *w;
    curl_easy_setopt(c->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT, 10L);
    curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, c->curl_error);
    error = go_to(c, cli_env(w->xapi, "WEFT_XAPI"), why, why_size);
    if (!error) {
        error = login(c, why, why_size);
    }
    if (error) {
        goto error;
    }
    *cp = c;
    return 0;

error:
    xapi_close(c);
    return error;
}

void
xapi_close(struct xapi_client *c)
{
    if (c) {
        if (*c->session) {
            xapi_call(c, "session.logout", json_array(), NULL);
        }
        curl_easy_cleanup(c->curl);
        curl_global_cleanup();
        free(c);
    }
}
