/* What the listeners' threads make of a request (http_serve.h): who asks, and
 * whether he may.  Who may not do a thing is told so before the body is read. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "rest_json.h"
#include "rest_priv.h"

/* --- who it is ---------------------------------------------------------------------- */

static void
identify_peer(struct rest_request *q)
{
    const struct http_peer *peer = q->http.peer;

    snprintf(q->user.address, sizeof q->user.address, "%s", peer->address);
    if (peer->certified) {
        rest_identify(rest_of(q), peer->cn, peer->ou, &q->user);
    } else if (peer->uid != UINT_MAX) {
        q->user.role = peer->local ? POOL_ROLE_ADMIN : POOL_ROLE_NONE;
        snprintf(q->user.name, sizeof q->user.name, "uid:%u", peer->uid);
    }
}

/* A token says who asks, whatever else does. */
static bool
identify_token(struct rest_request *q, const char *authorization, struct rest_fault *fault)
{
    struct rest *r = rest_of(q);
    char user[129];

    q->user.role = POOL_ROLE_NONE;
    q->user.name[0] = '\0';
    if (strncasecmp(authorization, "Bearer ", 7) != 0 ||
        !rest_session_use(r->sessions, authorization + 7, http_now_ms(), q->user.session, user)) {
        rest_fault_set(fault, 401, "denied", NULL, NULL,
                       "no session has this token: it has ended, or never was; \"weft login\" "
                       "begins one");
        return false;
    }
    rest_identify(r, user, "", &q->user);
    return true;
}

static bool
identify(struct rest_request *q, struct rest_fault *fault)
{
    const char *authorization = http_header(&q->http, "Authorization");

    identify_peer(q);
    if (authorization) {
        return identify_token(q, authorization, fault);
    }
    if (q->http.tokens) {
        rest_fault_set(fault, 401, "denied", NULL, NULL,
                       "a session's token is needed here; \"weft login\" begins one");
    }
    return !q->http.tokens;
}

/* --- the head ------------------------------------------------------------------------- */

const struct rest_arg_kind rest_args[REST_N_ARGS] = {
    [REST_ARG_GENERATION] = {"generation", INT64_MAX},
    [REST_ARG_TIMEOUT] = {"timeout", REST_WAIT_MAX_S},
    [REST_ARG_CONFIRM] = {"confirm", REST_CONFIRM_MAX_S},
    [REST_ARG_AFTER] = {"after", INT64_MAX},
    [REST_ARG_SECONDS] = {"seconds", REST_SAMPLE_MAX_S},
};

struct args {
    struct rest_request *q;
    struct rest_fault *fault;
};

static bool
number_arg(struct rest_request *q, enum rest_arg arg, const char *text, struct rest_fault *fault)
{
    const char *name = rest_args[arg].name;
    long long v;
    char *end;

    errno = 0;
    v = strtoll(text, &end, 10);
    if (errno || end == text || *end || *text < '0' || *text > '9' || v > rest_args[arg].max) {
        rest_fault_set(fault, 400, "invalid", NULL, name, "must be a number from 0 to %lld",
                       (long long)rest_args[arg].max);
        return false;
    }
    if (q->args[arg] >= 0) {
        rest_fault_set(fault, 400, "invalid", NULL, name, "is stated twice");
        return false;
    }
    q->args[arg] = v;
    return true;
}

/* One that nobody knows is an error: it may be a "confirm" that was meant. */
static bool
one_arg(void *args_, const char *name, const char *value)
{
    struct args *args = args_;

    for (enum rest_arg arg = 0; arg < REST_N_ARGS; arg++) {
        if (args->q->route->args & 1u << arg && !strcmp(name, rest_args[arg].name)) {
            return number_arg(args->q, arg, value ? value : "", args->fault);
        }
    }
    rest_fault_set(args->fault, 400, "invalid", NULL, NULL,
                   "\"%.60s\" is no parameter of %s %.200s", name, args->q->route->method,
                   args->q->http.path);
    return false;
}

static bool
args_ok(struct rest_request *q, struct rest_fault *fault)
{
    struct args args = {q, fault};

    for (size_t i = 0; i < REST_N_ARGS; i++) {
        q->args[i] = -1;
    }
    return http_each_arg(&q->http, one_arg, &args);
}

/* A page of another origin that uses a browser's certificate. */
static bool
cross_origin(struct rest_request *q)
{
    const char *origin = http_header(&q->http, "Origin");
    const char *host = http_header(&q->http, "Host");
    const char *authority = origin ? strstr(origin, "://") : NULL;

    return origin && (!authority || !host || strcmp(authority + 3, host) != 0);
}

/* A pool of 64 hosts with 1,000 vifs each is a document of 12 MiB. */
static size_t
body_max(const struct rest_request *q)
{
    bool document = q->route->max_body == REST_BODY_MAX && q->user.role >= POOL_ROLE_OPERATOR &&
                    http_header(&q->http, "Content-Length");

    return document ? REST_DOCUMENT_MAX : q->route->max_body;
}

static bool
body_allowed(struct rest_request *q, struct rest_fault *fault)
{
    const char *length = http_header(&q->http, "Content-Length");
    const char *type = http_header(&q->http, "Content-Type");
    bool chunked = http_header(&q->http, "Transfer-Encoding");
    unsigned long long n = length ? strtoull(length, NULL, 10) : 0;

    if (n > body_max(q)) {
        rest_fault_set(fault, 413, "too_large", NULL, NULL, "the body may have %zu bytes",
                       body_max(q));
        return false;
    }
    if ((n || chunked) && (!type || strncasecmp(type, "application/json", 16) != 0 ||
                           (type[16] && type[16] != ';' && type[16] != ' '))) {
        rest_fault_set(fault, 415, "bad_request", NULL, NULL,
                       "the body's Content-Type must be application/json");
        return false;
    }
    return true;
}

static bool
has_role(const struct rest_request *q, struct rest_fault *fault)
{
    /* Perhaps by his row. */
    if (q->user.role == POOL_ROLE_NONE && !atomic_load(&rest_of(q)->known)) {
        rest_fault_unknown(fault);
        return false;
    }
    if (q->user.role == POOL_ROLE_NONE && *q->user.session) {
        rest_fault_set(fault, 403, "denied", NULL, NULL,
                       "user \"%.128s\" of this session is not there, or not enabled, any more",
                       q->user.name);
        return false;
    }
    if (q->user.role == POOL_ROLE_NONE) {
        rest_fault_set(fault, 403, "denied", NULL, NULL,
                       "no role: the certificate's name is no (enabled) user of the pool, and its "
                       "OU names no role");
        return false;
    }
    return true;
}

bool
rest_still_may(struct rest_request *q, struct rest_fault *fault)
{
    struct rest *r = rest_of(q);
    char user[sizeof q->user.name];

    if (!*q->user.session) {
        identify_peer(q);
    } else if (rest_session_has(r->sessions, q->user.session, http_now_ms())) {
        memcpy(user, q->user.name, sizeof user);
        rest_identify(r, user, "", &q->user);
    } else {
        rest_fault_set(fault, 401, "denied", NULL, NULL, "the session has ended meanwhile");
        return false;
    }
    return has_role(q, fault) && rest_route_allows(q, fault);
}

static bool
head_ok(struct rest_request *q, const char *method, struct rest_fault *fault)
{
    if (!identify(q, fault) || !has_role(q, fault)) {
        return false;
    }
    http_vouch(&q->http);
    if (cross_origin(q)) {
        rest_fault_set(fault, 403, "denied", NULL, NULL, "requests of other origins are refused");
        return false;
    }
    return rest_route_find(q, method, fault) && args_ok(q, fault) && body_allowed(q, fault);
}

/* --- http_serve's hooks ------------------------------------------------------------- */

static bool
refuse(struct rest_request *q, const struct rest_fault *fault)
{
    if (fault->status == 401 || fault->status == 403 || (q->route && q->route->change)) {
        rest_audit_request(rest_of(q), q, fault, 0);
    }
    rest_put_fault(q, fault);
    return false;
}

static bool
head(struct http_request *http, const char *method)
{
    struct rest_request *q = (struct rest_request *)http;
    struct rest_fault fault;

    if (!head_ok(q, method, &fault)) {
        return refuse(q, &fault);
    }
    http->max_body = body_max(q);
    return true;
}

static bool
whole(struct http_request *http)
{
    struct rest_request *q = (struct rest_request *)http;
    struct rest_fault fault;
    char why[200];

    if (http->n_body && !(q->json = rest_json_parse(http->body, http->n_body, why, sizeof why))) {
        rest_fault_set(&fault, 400, "bad_request", NULL, NULL, "%s", why);
        return refuse(q, &fault);
    }
    return true;
}

static void
too_much(struct http_request *q, int status)
{
    struct rest_fault fault;

    rest_fault_set(&fault, status, status == 413 ? "too_large" : "unavailable", NULL, NULL, "%s",
                   status == 413 ? "the body is too large"
                                 : "too many requests are being read; try again");
    rest_put_fault((struct rest_request *)q, &fault);
}

static void
turn_away(struct http_request *q)
{
    struct rest_fault fault;

    rest_fault_set(&fault, 503, "unavailable", NULL, NULL, "the controller is going down");
    rest_put_fault((struct rest_request *)q, &fault);
}

static void
discard(struct http_request *q)
{
    json_decref(((struct rest_request *)q)->json);
}

static void
log_line(void *rest, bool warning, const char *line)
{
    rest_logf(rest, warning ? REST_LOG_WARN : REST_LOG_INFO, "%s", line);
}

int
rest_listen(struct rest *r, char *why, size_t why_size)
{
    struct http_config config = {
        .listen = r->config.listen,
        .n_listen = r->config.n_listen,
        .tokens = true,
        .private_key = r->config.private_key,
        .certificate = r->config.certificate,
        .ca_cert = r->config.ca_cert,
        .crl = r->config.crl,
        .peer_connections = REST_PEER_CONNECTIONS,
        .head_ms = r->config.head_ms,
        .body_ms = r->config.body_ms ? r->config.body_ms : REST_BODY_MS,
        .keep_ms = REST_KEEP_MS,
        .max_bodies = REST_BODIES_MAX,
        .request_size = sizeof(struct rest_request),
        .aux = r,
        .head = head,
        .whole = whole,
        .too_much = too_much,
        .turn_away = turn_away,
        .discard = discard,
        .log = log_line,
    };

    return http_create(&config, &r->http, why, why_size);
}
