/* Sessions: who gets a token, what it is good for, and when it ends; and, with a
 * token of each role, that each method, path and field is for whom it is for. */
#include "rest_rig.h"

#define BEGIN "/v1/sessions"

struct token {
    char id[REST_SESSION_ID], text[REST_SESSION_TOKEN];
};

static bool
take_token(int status, json_t *json, struct token *t)
{
    const char *id = json_string_value(json_object_get(json, "id"));
    const char *text = json_string_value(json_object_get(json, "token"));
    bool ok = status == 201 && id && text && strlen(text) == sizeof t->text - 1 &&
              !strncmp(text + 5, id, strlen(id));

    memset(t, 0, sizeof *t);
    if (ok) {
        snprintf(t->id, sizeof t->id, "%s", id);
        snprintf(t->text, sizeof t->text, "%s", text);
    }
    json_decref(json);
    return ok;
}

/* At the Unix socket, as root's. */
static bool
login(const char *body, struct token *t)
{
    json_t *json = NULL;
    int status = ask("POST", BEGIN, body, &json);

    return take_token(status, json, t);
}

/* With a token, at the Unix socket. */
static int
as(const char *token, const char *method, const char *path, const char *body, json_t **json)
{
    char headers[300];

    snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\n%s", token,
             body ? JSON_TYPE : "");
    return unix_request(method, path, headers, body, body ? strlen(body) : 0, json);
}

/* At the address for tokens, without a certificate; 0: no TLS. */
static int
from_outside(const char *headers, const char *method, const char *path, const char *priorities,
             json_t **json, char *head)
{
    struct client c = {connect_tcp(token_port, 1), NULL, NULL};
    int status = 0;

    if (json) {
        *json = NULL;
    }
    if (client_tls(&c, &ca, NULL, priorities)) {
        status = client_request(&c, method, path, headers, NULL, 0, json, head);
    }
    client_close(&c);
    return status;
}

static size_t
n_sessions(const char *token)
{
    json_t *json;
    size_t n;

    as(token, "GET", BEGIN, NULL, &json);
    n = json_array_size(json_object_get(json, "sessions"));
    json_decref(json);
    return n;
}

static bool
audit_says(const char *a, const char *b)
{
    char line[4096];
    FILE *f = fopen(paths[AUDIT], "r");
    bool found = false;

    while (f && !found && fgets(line, sizeof line, f)) {
        found = strstr(line, a) && strstr(line, b);
    }
    if (f) {
        fclose(f);
    }
    return found;
}

/* --- who gets one ---------------------------------------------------------------- */

static void
test_begin(void)
{
    static const struct {
        const char *what, *body;
        int status;
        const char *field;
    } cases[] = {
        {"nobody of that name", "{\"user\": \"nobody\"}", 422, "user"},
        {"a disabled user", "{\"user\": \"mallory\"}", 422, "user"},
        {"the socket's own name", NULL, 422, "user"},
        {"no name", "{\"user\": 5}", 422, "user"},
        {"too short", "{\"user\": \"alice\", \"lifetime\": 59}", 422, "lifetime"},
        {"too long", "{\"user\": \"alice\", \"lifetime\": 604801}", 422, "lifetime"},
        {"no number", "{\"user\": \"alice\", \"idle\": \"60\"}", 422, "idle"},
        {"what there is not", "{\"user\": \"alice\", \"role\": \"admin\"}", 422, "role"},
        {"no object", "[]", 400, NULL},
    };
    struct cert alice = cert_make("alice", "admin", CERT_CLIENT, &ca);
    struct cert viewer = cert_make("v", "viewer", CERT_CLIENT, &ca);
    struct cert admin = cert_make("a", "admin", CERT_CLIENT, &ca);
    struct token t, other;
    json_t *json;
    int status;

    CASE("rest_session/refused: the field is named, nothing begins");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        status = ask("POST", BEGIN, cases[i].body, &json);
        CHECK(status == cases[i].status && !json_object_get(json, "token"));
        CHECK(!cases[i].field || says(json, "field", cases[i].field));
        if (status != cases[i].status) {
            printf("# %s: %d\n", cases[i].what, status);
        }
        json_decref(json);
    }

    CASE("rest_session/begin: for oneself by certificate, for others as an admin");
    status = tls_ask(&alice, "POST", BEGIN, "{}", &json);
    CHECK(take_token(status, json, &t));
    CHECK(as(t.text, "GET", "/v1/whoami", NULL, &json) == 200);
    CHECK(says(json, "name", "alice") && says(json, "role", "tenant") &&
          says(json, "tenant", "red") && says(json, "session", t.id));
    json_decref(json);
    CHECK(tls_ask(&viewer, "POST", BEGIN, "{\"user\": \"alice\"}", NULL) == 403);
    CHECK(tls_ask(&viewer, "POST", BEGIN, "{}", NULL) == 422); /* by its OU, no user */
    status = tls_ask(&admin, "POST", BEGIN, "{\"user\": \"alice\"}", &json);
    CHECK(take_token(status, json, &other) && strcmp(t.text, other.text) != 0);

    CASE("rest_session/begin: not with a session");
    CHECK(as(t.text, "POST", BEGIN, "{}", NULL) == 403);
    CHECK(as(t.text, "DELETE", BEGIN "/current", NULL, NULL) == 200);
    CHECK(as(other.text, "DELETE", BEGIN "/current", NULL, NULL) == 200);
    cert_free(&alice);
    cert_free(&viewer);
    cert_free(&admin);
}

/* --- what it is good for -------------------------------------------------------------- */

static void
test_token(void)
{
    struct cert admin = cert_make("a", "admin", CERT_CLIENT, &ca);
    char header[300], head[2048], bad[REST_SESSION_TOKEN + 8];
    struct token t;
    json_t *json;

    CHECK(login("{\"user\": \"alice\"}", &t));
    snprintf(header, sizeof header, "Authorization: Bearer %s\r\n", t.text);

    CASE("rest_session/outside: TLS without a certificate, with a token");
    CHECK(from_outside(header, "GET", "/v1/networks", NULL, &json, NULL) == 200);
    CHECK(json_array_size(json_object_get(json, "networks")) == 1);
    json_decref(json);
    CHECK(from_outside(header, "GET", "/v1/users", NULL, NULL, NULL) == 403);
    CHECK(from_outside("", "GET", "/v1/openapi.json", NULL, NULL, head) == 401);
    CHECK(strstr(head, "WWW-Authenticate: Bearer"));
    CHECK(
        !from_outside(header, "GET", "/v1/networks", "NORMAL:-VERS-ALL:+VERS-TLS1.2", NULL, NULL));

    CASE("rest_session/bad tokens: refused, whatever certificate or socket they come by");
    for (size_t i = 0; i < sizeof t.text; i++) {
        /* One character is another, or (the last) there is one more. */
        snprintf(bad, sizeof bad, "%s0", t.text);
        bad[sizeof t.text - 1] = i + 1 < sizeof t.text ? '\0' : bad[sizeof t.text - 1];
        bad[i] ^= i + 1 < sizeof t.text ? 1 : 0;
        if (bad[i] == 0x7f) {
            continue;
        }
        int status = as(bad, "GET", "/v1/whoami", NULL, NULL);
        CHECK(status == 401);
    }
    snprintf(bad, sizeof bad, "%.60s", t.text);
    CHECK(as(bad, "GET", "/v1/whoami", NULL, NULL) == 401);
    CHECK(as("", "GET", "/v1/whoami", NULL, NULL) == 401);
    CHECK(unix_request("GET", "/v1/whoami", "Authorization: Basic YTpi\r\n", NULL, 0, NULL) == 401);
    CHECK(tls_ask_from(1, &admin, "GET", "/v1/whoami", "Authorization: Bearer x\r\n", NULL, NULL) ==
          401);
    CHECK(as(t.text, "GET", "/v1/whoami", NULL, NULL) == 200);

    CASE("rest_session/role: the one that the user has now");
    CHECK(as(t.text, "PATCH", "/v1/vms/r1", "{\"tenant\": \"red\"}", NULL) == 403);
    CHECK(ask("PATCH", "/v1/users/alice", "{\"role\": \"operator\", \"tenant\": null}", NULL) ==
          200);
    CHECK(as(t.text, "PATCH", "/v1/vms/r1", "{\"tenant\": \"red\"}", NULL) == 200);
    CHECK(ask("PATCH", "/v1/users/alice", "{\"enabled\": false}", NULL) == 200);
    CHECK(as(t.text, "GET", "/v1/whoami", NULL, &json) == 403);
    CHECK(json_object_get(json, "message") &&
          strstr(json_string_value(json_object_get(json, "message")), "alice"));
    json_decref(json);
    CHECK(ask("PATCH", "/v1/users/alice",
              "{\"enabled\": true, \"role\": \"tenant\", \"tenant\": \"red\"}", NULL) == 200);
    CHECK(as(t.text, "GET", "/v1/whoami", NULL, NULL) == 200);

    CASE("rest_session/audit: user and session, and no token");
    CHECK(as(t.text, "PATCH", "/v1/groups/gr", "{\"addresses\": []}", NULL) == 200);
    CHECK(audit_says("\"user\": \"alice\"", t.id));
    CHECK(audit_says("\"path\": \"" BEGIN "\"", t.id));
    CHECK(audit_says("\"status\": 401", "no session has this token"));
    CHECK(!audit_says(t.text + 5 + 17, ""));
    CHECK(as(t.text, "DELETE", BEGIN "/current", NULL, NULL) == 200);
    cert_free(&admin);
}

/* --- when it ends --------------------------------------------------------------------------- */

static void
test_end(void)
{
    struct token a1, a2, boss;
    char path[100];
    json_t *json;
    char *text;

    CHECK(ask("POST", "/v1/users", "{\"name\": \"boss\", \"role\": \"admin\"}", NULL) == 201);
    CHECK(login("{\"user\": \"alice\"}", &a1) && login("{\"user\": \"alice\"}", &a2) &&
          login("{\"user\": \"boss\"}", &boss));

    CASE("rest_session/list: one's own, an admin's all; no secrets");
    CHECK(n_sessions(a1.text) == 2 && n_sessions(boss.text) == 3);
    ask("GET", BEGIN, NULL, &json);
    text = json_dumps(json, 0);
    CHECK(strstr(text, a1.id) && !strstr(text, a1.text + 22) && !strstr(text, "token"));
    free(text);
    json_decref(json);

    CASE("rest_session/revoke");
    snprintf(path, sizeof path, BEGIN "/%s", boss.id);
    CHECK(as(a1.text, "DELETE", path, NULL, NULL) == 404);
    CHECK(as(boss.text, "GET", "/v1/whoami", NULL, NULL) == 200);
    snprintf(path, sizeof path, BEGIN "/%s", a2.id);
    CHECK(as(a1.text, "DELETE", path, NULL, NULL) == 200);
    CHECK(as(a2.text, "GET", "/v1/whoami", NULL, NULL) == 401);
    CHECK(as(a1.text, "DELETE", path, NULL, NULL) == 404);
    snprintf(path, sizeof path, BEGIN "/%s", a1.id);
    CHECK(as(boss.text, "DELETE", path, NULL, NULL) == 200);
    CHECK(as(a1.text, "GET", "/v1/whoami", NULL, NULL) == 401);
    CHECK(ask("DELETE", BEGIN "/current", NULL, NULL) == 404); /* without a session */
    CHECK(ask("PUT", BEGIN "/x", NULL, NULL) == 405);
    CHECK(as(boss.text, "DELETE", BEGIN "/current", NULL, NULL) == 200);
    CHECK(ask("DELETE", "/v1/users/boss", NULL, NULL) == 200);
}

static void
test_time(void)
{
    struct rest_sessions *all = rest_sessions_create();
    char token[REST_SESSION_TOKEN], id[REST_SESSION_ID], user[129], first[REST_SESSION_TOKEN];
    int64_t now = 1000000;

    CASE("rest_session/time: idle, then the lifetime, whichever comes first");
    CHECK(!rest_session_begin(all, "u", "x#1", 3600, 600, now, token));
    for (int i = 1; i <= 6; i++) {
        CHECK(rest_session_use(all, token, now + i * 599000, id, user) && !strcmp(user, "u"));
    }
    CHECK(!rest_session_use(all, token, now + 3600000, id, user));
    CHECK(!rest_session_begin(all, "u", "x#1", 3600, 600, now, token));
    CHECK(rest_session_use(all, token, now + 599999, id, user));
    CHECK(!rest_session_use(all, token, now + 599999 + 600000, id, user));
    CHECK(!rest_session_end(all, id, NULL, now + 599999 + 600000));

    CASE("rest_session/number: bounded for each user, and in all; what ended makes room");
    now += 10000000;
    for (int i = 0; i < REST_SESSIONS_OF_USER; i++) {
        CHECK(!rest_session_begin(all, "u", "x#1", 3600, 600, now, i ? token : first));
    }
    CHECK(rest_session_begin(all, "u", "x#1", 3600, 600, now, token) == ENOSPC);
    CHECK(rest_session_use(all, first, now + 1, id, user) &&
          rest_session_end(all, id, "u", now + 1));
    CHECK(!rest_session_begin(all, "u", "x#1", 3600, 600, now + 2, token));
    for (int i = 0; i < REST_SESSIONS_MAX - REST_SESSIONS_OF_USER; i++) {
        snprintf(user, sizeof user, "u%d", i / 30);
        CHECK(!rest_session_begin(all, user, "x#1", 3600, 600, now, token));
    }
    CHECK(rest_session_begin(all, "last", "x#1", 3600, 600, now, token) == ENOSPC);
    CHECK(!rest_session_begin(all, "last", "x#1", 3600, 600, now + 600002, token));
    rest_sessions_destroy(all);
}

/* --- roles ---------------------------------------------------------------------------------- */

enum { V = 1, T = 2, O = 4, A = 8 };
static const char *const role_names[] = {"viewer", "tenant", "operator", "admin"};

static bool
allowed(struct token *tokens, int who, const char *method, const char *path, const char *body)
{
    bool ok = true;

    for (int i = 0; i < 4; i++) {
        int status = as(tokens[i].text, method, path, body, NULL);
        bool denied = status == 403 || (status == 404 && 1 << i == T && !(who & T));

        if (!status || denied != !(who & 1 << i)) {
            printf("# %s %s %s as %s: %d\n", method, path, body ? body : "", role_names[i], status);
            ok = false;
        }
    }
    return ok;
}

/* Who may do what a route does, stated once more. */
static const struct {
    const char *method, *path;
    int who;
} routes[] = {
    {"GET", "/v1/openapi.json", V | T | O | A},
    {"GET", "/v1/whoami", V | T | O | A},
    {"GET", "/v1/status", V | T | O | A},
    {"GET", "/v1/wait", V | T | O | A},
    {"GET", "/v1/export", V | O | A},
    {"GET", "/v1/check", V | O | A},
    {"POST", "/v1/check", V | O | A},
    {"POST", "/v1/trace", V | O | A},
    {"GET", "/v1/cookies/{cookie}", V | O | A},
    {"GET", "/v1/log", V | O | A},
    {"POST", "/v1/samples", O | A},
    {"GET", "/v1/samples", V | O | A},
    {"POST", "/v1/capture", O | A},
    {"GET", "/v1/capture", O | A},
    {"POST", "/v1/shadow", O | A},
    {"GET", "/v1/sessions", V | T | O | A},
    {"POST", "/v1/sessions", V | T | O | A},
    {"DELETE", "/v1/sessions/{id}", V | T | O | A},
    {"POST", "/v1/import", O | A},
    {"POST", "/v1/commit", O | A},
    {"POST", "/v1/confirm", O | A},
    {"POST", "/v1/rollback", O | A},
    {"GET", "/v1/{class}", -1},
    {"POST", "/v1/{class}", -1},
    {"GET", "/v1/{class}/{object}", -1},
    {"PATCH", "/v1/{class}/{object}", -1},
    {"DELETE", "/v1/{class}/{object}", -1},
};

static const struct {
    const char *noun, *object;
    int read, write;
} classes[] = {
    {"pool", "", V | T | O | A, A},
    {"host", "/h1", V | T | O | A, A},
    {"tenant", "/red", V | T | O | A, O | A},
    {"network", "/nr", V | T | O | A, O | A},
    {"vm", "/r1", V | T | O | A, O | A},
    {"vif", "/r1-0", V | T | O | A, O | A},
    {"group", "/gr", V | T | O | A, T | O | A},
    {"policy", "/pr", V | T | O | A, T | O | A},
    {"rule", "/pr/web", V | T | O | A, T | O | A},
    {"user", "/alice", A, A},
    {"mirror", "/m1", V | T | O | A, O | A},
    {"exporter", "/e1", V | T | O | A, O | A},
    {"bond", "/b1", V | T | O | A, A},
    {"pif", "/p1", V | T | O | A, A},
};

static void
test_routes(struct token *tokens)
{
    CASE("rest_session/roles: each method and path");
    for (size_t i = 0; i < n_rest_routes; i++) {
        const struct rest_route *route = &rest_routes[i];
        /* Nothing that would be done: the role is checked before the body is read. */
        const char *body = route->max_body ? "{" : NULL;
        char path[100];
        size_t j = 0;

        while (j < sizeof routes / sizeof routes[0] &&
               (strcmp(routes[j].method, route->method) || strcmp(routes[j].path, route->path))) {
            j++;
        }
        if (j == sizeof routes / sizeof routes[0]) {
            printf("# %s %s: for whom?\n", route->method, route->path);
            CHECK(!"the test knows the route");
        } else if (routes[j].who > 0) {
            size_t n = strcspn(route->path, "{");
            snprintf(path, sizeof path, "%.*s%s%s", (int)n, route->path,
                     route->path[n] ? "none" : "",
                     strcmp(route->path, "/v1/wait") ? "" : "?timeout=0");
            CHECK(allowed(tokens, routes[j].who, route->method, path, body));
        }
    }
}

static void
test_fields(struct token *tokens)
{
    size_t n_fields = 0;

    CASE("rest_session/roles: each class and field");
    CHECK(sizeof classes / sizeof classes[0] == n_pool_classes);
    for (size_t i = 0; i < n_pool_classes; i++) {
        const struct pool_class *c = &pool_classes[i];
        char path[100], body[100];
        size_t j = 0;

        while (j < sizeof classes / sizeof classes[0] && strcmp(classes[j].noun, c->noun) != 0) {
            j++;
        }
        if (j == sizeof classes / sizeof classes[0]) {
            printf("# class %s: for whom?\n", c->noun);
            CHECK(!"the test knows the class");
            continue;
        }
        snprintf(path, sizeof path, "/v1/%s", c->plural);
        if (!c->single) {
            CHECK(allowed(tokens, classes[j].read, "GET", path, NULL));
            CHECK(allowed(tokens, classes[j].write, "POST", path, "{"));
        }
        snprintf(path, sizeof path, "/v1/%s/none", c->plural);
        if (!c->single) {
            CHECK(allowed(tokens, classes[j].write, "DELETE", path, NULL));
        }
        snprintf(path, sizeof path, "/v1/%s%s", c->plural, classes[j].object);
        for (size_t k = 0; k < c->n_fields; k++, n_fields++) {
            bool status = c->fields[k].flags & POOL_STATUS;
            /* Of no field's type: nothing that would be done. */
            snprintf(body, sizeof body, "{\"%s\": {\"x\": 1}}", c->fields[k].name);
            CHECK(allowed(tokens, status ? 0 : classes[j].write, "PATCH", path, body));
        }
    }
    CHECK(n_fields > 60);
}

static void
test_roles(void)
{
    struct token tokens[4];
    char body[200];
    int64_t before;

    for (int i = 0; i < 4; i++) {
        snprintf(body, sizeof body, "{\"name\": \"r-%s\", \"role\": \"%s\"%s}", role_names[i],
                 role_names[i], i == 1 ? ", \"tenant\": \"red\"" : "");
        CHECK(ask("POST", "/v1/users", body, NULL) == 201);
        snprintf(body, sizeof body, "{\"user\": \"r-%s\"}", role_names[i]);
        CHECK(login(body, &tokens[i]));
    }
    before = atomic_load(&pool.submitted);
    test_routes(tokens);
    test_fields(tokens);
    CHECK(atomic_load(&pool.submitted) - before < 10); /* checks, and removals of "none" */
}

static void
test_meanwhile(void)
{
    struct client c = {connect_unix(paths[SOCK]), NULL, NULL};
    char path[60], text[400];
    struct token t;
    json_t *json;

    CASE("rest_session/ends while its request waits");
    CHECK(login("{\"user\": \"r-operator\"}", &t));
    atomic_store(&pool.hold, true);
    snprintf(text, sizeof text,
             "DELETE /v1/vms/r1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
             "Authorization: Bearer %s\r\n\r\n",
             t.text);
    CHECK(client_send(&c, text, strlen(text)));
    for (int i = 0; i < 5000 && !atomic_load(&pool.holds); i++) {
        usleep(1000);
    }
    CHECK(atomic_load(&pool.holds));
    snprintf(path, sizeof path, BEGIN "/%s", t.id);
    CHECK(ask("DELETE", path, NULL, NULL) == 200);
    atomic_store(&pool.hold, false);
    CHECK(client_answer(&c, &json, NULL) == 401);
    CHECK(says(json, "error", "denied"));
    json_decref(json);
    client_close(&c);
    CHECK(ask("GET", "/v1/vms/r1", NULL, NULL) == 200);
}

/* One who begins a session for an admin, and is shut out before he has said so to the end. */
static void
test_slow_body(void)
{
    static const char body[] = "{\"user\": \"r-admin\"}";
    struct cert dora = cert_make("dora", "admin", CERT_CLIENT, &ca);
    struct client c = {connect_tcp(port, 1), NULL, NULL};
    char text[300];
    json_t *json;

    CASE("rest_session/who is shut out before the body has come begins none");
    CHECK(client_tls(&c, &ca, &dora, NULL));
    snprintf(text, sizeof text,
             "POST " BEGIN " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" JSON_TYPE
             "Expect: 100-continue\r\nContent-Length: %zu\r\n\r\n",
             strlen(body));
    CHECK(client_send(&c, text, strlen(text)));
    /* His head has been looked at. */
    CHECK(gnutls_record_recv(c.tls, text, sizeof text) > 12 && !strncmp(text + 9, "100", 3));
    CHECK(ask("POST", "/v1/users", "{\"name\": \"dora\", \"role\": \"admin\", \"enabled\": false}",
              NULL) == 201);
    CHECK(client_send(&c, body, strlen(body)));
    CHECK(client_answer(&c, &json, NULL) == 403);
    CHECK(!json_object_get(json, "token"));
    json_decref(json);
    client_close(&c);
    CHECK(ask("DELETE", "/v1/users/dora", NULL, NULL) == 200);
    cert_free(&dora);
}

int
main(void)
{
    struct rest_config config;

    CASE("rest_session/start");
    if (rig_start(&config)) {
        CHECK(!"starts");
        return check_done();
    }
    test_begin();
    test_token();
    test_end();
    test_time();
    test_roles();
    test_meanwhile();
    test_slow_body();
    fake_stop(&pool);
    rig_end();
    return check_done();
}
