#include "pool_client.h"

#include "pool_session.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_env.h"

#define ANSWER_MAX ((size_t)256 << 20)

struct pool_client {
    CURL *curl;
    const char *daemon;
    char base[300]; /* "http://localhost" or "https://HOST:PORT" */
    char socket[200];
    struct pool_session session; /* its token is empty: none */
    char curl_error[CURL_ERROR_SIZE];
    char why[1200];
    json_t *refusal;
};

struct answer {
    char *text;
    size_t n, cap;
};

static int
find_controller(struct pool_client *c, const char *url, char *why, size_t why_size)
{
    int n = 0;

    url = cli_env(url, "WEFT_CONTROLLER");
    if (!url) {
        n = cli_socket_path(c->socket, sizeof c->socket, "weft-controllerd.rest");
    } else if (!strncmp(url, "unix:", 5) && url[5]) {
        n = snprintf(c->socket, sizeof c->socket, "%s", url + 5);
    } else if (!strncmp(url, "https://", 8) && url[8]) {
        size_t length = strlen(url);
        length -= url[length - 1] == '/';
        if (length >= sizeof c->base) {
            snprintf(why, why_size, "the URL of %s is too long", c->daemon);
            return EINVAL;
        }
        memcpy(c->base, url, length);
        return 0;
    } else {
        snprintf(why, why_size, "%s is unix:PATH or https://HOST:PORT, not \"%.80s\"", c->daemon,
                 url);
        return EINVAL;
    }
    if ((size_t)n > 107) {
        snprintf(why, why_size, "the path of %s's socket is too long", c->daemon);
        return EINVAL;
    }
    strcpy(c->base, "http://localhost");
    return 0;
}

static int
use_certificates(struct pool_client *c, const struct pool_where *w, char *why, size_t why_size)
{
    const struct {
        CURLoption option;
        const char *file, *name, *env;
    } files[] = {
        {CURLOPT_SSLCERT, w->certificate, "certificate", "WEFT_CERTIFICATE"},
        {CURLOPT_SSLKEY, w->private_key, "private-key", "WEFT_PRIVATE_KEY"},
        {CURLOPT_CAINFO, w->ca_cert, "ca-cert", "WEFT_CA_CERT"},
    };

    for (int i = *c->session.token ? 2 : 0; i < 3; i++) {
        const char *file = cli_env(files[i].file, files[i].env);
        file = *c->session.token ? c->session.ca_cert : file;
        if (!file || !*file) {
            snprintf(why, why_size,
                     "https needs --%s FILE (or $%s); \"weft pki user\" makes certificates",
                     files[i].name, files[i].env);
            return EINVAL;
        }
        curl_easy_setopt(c->curl, files[i].option, file);
    }
    curl_easy_setopt(c->curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
    return 0;
}

/* A certificate that is stated comes first, and a session is for one controller. */
static int
find_session(struct pool_client *c, const struct pool_where *w, char *why, size_t why_size)
{
    const char *url = cli_env(w->controller, "WEFT_CONTROLLER");
    int error;

    if (w->no_session || w->daemon || cli_env(w->certificate, "WEFT_CERTIFICATE")) {
        return 0;
    }
    error = pool_session_read(&c->session, why, why_size);
    if (error || (url && strcmp(url, c->session.controller) != 0)) {
        memset(&c->session, 0, sizeof c->session);
    }
    return error == ENOENT || url ? 0 : error;
}

int
pool_client_open(const struct pool_where *w, struct pool_client **cp, char *why, size_t why_size)
{
    struct pool_client *c = calloc(1, sizeof *c);
    int error = ENOMEM;

    *cp = NULL;
    if (!c || curl_global_init(CURL_GLOBAL_DEFAULT) || !(c->curl = curl_easy_init())) {
        snprintf(why, why_size, "out of memory");
        goto error;
    }
    c->daemon = w->daemon ? w->daemon : "weft-controllerd";
    error = find_session(c, w, why, why_size);
    if (!error) {
        error = find_controller(c, *c->session.controller ? c->session.controller : w->controller,
                                why, why_size);
    }
    if (!error && !*c->socket) {
        error = use_certificates(c, w, why, why_size);
    }
    if (error) {
        goto error;
    }
    if (*c->socket) {
        curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, c->socket);
    }
    curl_easy_setopt(c->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_PATH_AS_IS, 1L); /* ".." may be a name */
    curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT, 10L);
    curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, c->curl_error);
    *cp = c;
    return 0;

error:
    pool_client_close(c);
    return error;
}

void
pool_client_close(struct pool_client *c)
{
    if (c) {
        curl_easy_cleanup(c->curl);
        curl_global_cleanup();
        json_decref(c->refusal);
        explicit_bzero(&c->session, sizeof c->session);
        free(c);
    }
}

const char *
pool_client_why(const struct pool_client *c)
{
    return c->why;
}

const json_t *
pool_client_refusal(const struct pool_client *c)
{
    return c->refusal;
}

static size_t
take(char *data, size_t size, size_t n, void *answer_)
{
    struct answer *a = answer_;

    n *= size;
    if (a->n + n > ANSWER_MAX) {
        return 0;
    }
    if (a->n + n > a->cap) {
        size_t cap = a->cap * 2 > a->n + n ? a->cap * 2 : a->n + n + 4096;
        char *text = realloc(a->text, cap);
        if (!text) {
            return 0;
        }
        a->text = text;
        a->cap = cap;
    }
    memcpy(a->text + a->n, data, n);
    a->n += n;
    return n;
}

/* base + path (escaped but for slashes) + query. */
static char *
url_of(struct pool_client *c, const char *path, const char *query)
{
    size_t cap = strlen(c->base) + 3 * strlen(path) + (query ? strlen(query) : 0) + 3;
    char *url = malloc(cap), *end = url;

    if (!url) {
        return NULL;
    }
    end += sprintf(end, "%s", c->base);
    for (const char *p = path; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || strchr("/-._~", *p);
        end += sprintf(end, plain ? "%c" : "%%%02X", (unsigned char)*p);
    }
    sprintf(end, "%s%s", query ? "?" : "", query ? query : "");
    return url;
}

/* "OBJECT: FIELD: MESSAGE" of a refusal. */
static int
refused(struct pool_client *c, long status, json_t *json)
{
    const char *const keys[] = {"object", "field", "message"};
    size_t n = 0;

    c->why[0] = '\0';
    for (int i = 0; i < 3; i++) {
        const char *s = json_string_value(json_object_get(json, keys[i]));
        if (s && n < sizeof c->why) {
            n += snprintf(c->why + n, sizeof c->why - n, "%s%s", n ? ": " : "", s);
        }
    }
    if (!n) {
        snprintf(c->why, sizeof c->why, "%s answered with HTTP status %ld", c->daemon, status);
    }
    c->refusal = json_incref(json);
    return status == 404   ? ENOENT
           : status == 403 ? EPERM
           : status == 409 ? EEXIST
           : status == 503 ? EAGAIN
                           : EINVAL;
}

static int
perform(struct pool_client *c, struct answer *answer, json_t **json)
{
    CURLcode code = curl_easy_perform(c->curl);
    long status = 0;
    json_error_t error;
    int result = 0;

    if (code) {
        snprintf(c->why, sizeof c->why, "no answer from %s at %s: %s%s", c->daemon,
                 *c->socket ? c->socket : c->base,
                 /* of a socket curl's own words speak of a port */
                 *c->curl_error && !*c->socket ? c->curl_error : curl_easy_strerror(code),
                 *c->socket ? "; is it running?" : "");
        return EIO;
    }
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    *json = json_loadb(answer->text ? answer->text : "", answer->n, 0, &error);
    if (status < 200 || status > 299) {
        result = refused(c, status, *json);
    } else if (!*json) {
        snprintf(c->why, sizeof c->why, "the answer of %s is not JSON: %s", c->daemon, error.text);
        result = EIO;
    }
    return result;
}

int
pool_call(struct pool_client *c, const char *method, const char *path, const char *query,
          const json_t *body, unsigned timeout_s, json_t **answerp)
{
    char *url = url_of(c, path, query);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    struct answer answer = {NULL, 0, 0};
    json_t *json = NULL;
    int error = ENOMEM;

    json_decref(c->refusal);
    c->refusal = NULL;
    snprintf(c->why, sizeof c->why, "out of memory");
    if (!url || !headers || (body && !text)) {
        goto done;
    }
    headers = curl_slist_append(headers, "Expect:");
    if (*c->session.token) {
        char header[160];
        snprintf(header, sizeof header, "Authorization: Bearer %s", c->session.token);
        headers = curl_slist_append(headers, header);
    }
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, (long)timeout_s);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &answer);
    if (text) {
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(text));
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, text);
    } else {
        curl_easy_setopt(c->curl, CURLOPT_HTTPGET, 1L);
    }
    error = perform(c, &answer, &json);

done:
    if (answerp && !error) {
        *answerp = json;
    } else {
        json_decref(json);
    }
    curl_slist_free_all(headers);
    free(answer.text);
    free(text);
    free(url);
    return error;
}

struct stream {
    struct pool_client *client;
    struct answer refusal;
    bool (*piece)(void *aux, const char *data, size_t n);
    void *aux;
    bool stopped;
};

static size_t
take_piece(char *data, size_t size, size_t n, void *stream_)
{
    struct stream *s = stream_;
    long status = 0;

    curl_easy_getinfo(s->client->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        return take(data, size, n, &s->refusal);
    }
    s->stopped = !s->piece(s->aux, data, size * n);
    return s->stopped ? 0 : size * n;
}

int
pool_stream(struct pool_client *c, const char *path, const char *query,
            bool (*piece)(void *, const char *, size_t), void *aux)
{
    struct stream s = {.client = c, .piece = piece, .aux = aux};
    char *url = url_of(c, path, query);
    CURLcode code;
    long status = 0;
    json_t *json;
    int error = 0;

    if (!url) {
        return ENOMEM;
    }
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    curl_easy_setopt(c->curl, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, 0L);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, take_piece);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &s);
    code = curl_easy_perform(c->curl);
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status && status != 200) {
        json = json_loadb(s.refusal.text ? s.refusal.text : "", s.refusal.n, 0, NULL);
        error = refused(c, status, json);
        json_decref(json);
    } else if (s.stopped) {
        error = ECANCELED;
    } else if (code) {
        snprintf(c->why, sizeof c->why,
                 status ? "%s at %s has ended: %s" : "no answer from %s at %s: %s", c->daemon,
                 *c->socket ? c->socket : c->base, curl_easy_strerror(code));
        error = EIO;
    }
    free(s.refusal.text);
    free(url);
    return error;
}
