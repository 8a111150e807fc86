/* The OpenAPI 3.0 description, from the tables of routes and classes. */
#include <stdio.h>
#include <string.h>

#include "rest_priv.h"

static json_t *
content(json_t *schema)
{
    return json_pack("{s:{s:{s:o}}}", "content", "application/json", "schema", schema);
}

/* --- parameters --------------------------------------------------------------------- */

static json_t *
path_parameter(const char *name, const char *about)
{
    return json_pack("{s:s, s:s, s:b, s:s, s:{s:s}}", "name", name, "in", "path", "required", 1,
                     "description", about, "schema", "type", "string");
}

static const char *
about_arg(const struct rest_route *route, enum rest_arg arg)
{
    switch (arg) {
    case REST_ARG_GENERATION:
        return "default: the present one";
    case REST_ARG_TIMEOUT:
        return "seconds; default 60";
    case REST_ARG_CONFIRM:
        return "seconds; default 0: for good";
    case REST_ARG_AFTER:
        return !strcmp(route->path, "/v1/log") ? "an entry's number; default: the latest 500"
                                               : "a packet's number";
    case REST_ARG_SECONDS:
        return "default 10; 0 stops";
    case REST_N_ARGS:
        break;
    }
    return "";
}

static json_t *
parameters_of(const struct rest_route *route, const struct pool_class *c)
{
    json_t *list = json_array();

    if (strstr(route->path, "{object}") && c && !c->single) {
        json_array_append_new(list, path_parameter("object", c->within ? "POLICY/RULE, or the uuid"
                                                                       : "name or uuid"));
    }
    if (strstr(route->path, "{id}")) {
        json_array_append_new(list, path_parameter("id", "a session's id, or current"));
    }
    if (strstr(route->path, "{cookie}")) {
        json_array_append_new(
            list, path_parameter("cookie", "as ovs-ofctl prints it, 0xd505000000000007"));
    }
    for (enum rest_arg arg = 0; arg < REST_N_ARGS; arg++) {
        if (route->args & 1u << arg) {
            json_array_append_new(
                list, json_pack("{s:s, s:s, s:b, s:s, s:{s:s, s:s, s:i, s:I}}", "name",
                                rest_args[arg].name, "in", "query", "required", 0, "description",
                                about_arg(route, arg), "schema", "type", "integer", "format",
                                "int64", "minimum", 0, "maximum", (json_int_t)rest_args[arg].max));
        }
    }
    return list;
}

/* --- operations ------------------------------------------------------------------------ */

static json_t *
answer_schema(const struct rest_route *route, const struct pool_class *c)
{
    bool all = !strstr(route->path, "{object}");

    if (route->answer) {
        return rest_schema_ref(route->answer, "");
    }
    if (route->change) {
        return rest_schema_ref("generation", "");
    }
    return all ? json_pack("{s:s, s:[s], s:{s:{s:s, s:o}}}", "type", "object", "required",
                           c->plural, "properties", c->plural, "type", "array", "items",
                           rest_schema_ref(c->noun, ""))
               : rest_schema_ref(c->noun, "");
}

static json_t *
body_schema(const struct rest_route *route, const struct pool_class *c)
{
    return route->body ? rest_schema_ref(route->body, "")
                       : rest_schema_ref(c->noun, strcmp(route->method, "PATCH") != 0 ? "_stated"
                                                                                      : "_change");
}

static json_t *
operation(const struct rest_route *route, const struct pool_class *c)
{
    bool post = !strcmp(route->method, "POST");
    bool created = post && (c || !strcmp(route->path, "/v1/sessions"));
    json_t *answer = content(answer_schema(route, c));
    json_t *refusal = content(rest_schema_ref("error", ""));
    json_t *op =
        json_pack("{s:s, s:o}", "summary", route->about, "parameters", parameters_of(route, c));

    json_object_set_new(answer, "description", json_string("done"));
    json_object_set_new(refusal, "description", json_string("refused"));
    json_object_set_new(
        op, "responses",
        json_pack("{s:o, s:o}", created ? "201" : "200", answer, "default", refusal));
    if (route->max_body) {
        json_t *body = content(body_schema(route, c));
        json_object_set_new(body, "required", json_boolean(strcmp(route->path, "/v1/sessions")));
        json_object_set_new(op, "requestBody", body);
    }
    if (c) {
        json_object_set_new(op, "tags", json_pack("[s]", c->plural));
    }
    return op;
}

static void
add_operation(json_t *paths, const char *path, const struct rest_route *route,
              const struct pool_class *c)
{
    json_t *item = json_object_get(paths, path);
    char method[8];
    size_t n = strlen(route->method);

    if (!item) {
        item = json_object();
        json_object_set_new(paths, path, item);
    }
    for (size_t i = 0; i <= n && i < sizeof method; i++) {
        method[i] = route->method[i] | (route->method[i] ? 0x20 : 0);
    }
    json_object_set_new(item, method, operation(route, c));
}

/* "/v1/{class}..." once for each class. */
static void
add_route(json_t *paths, const struct rest_route *route)
{
    static const char placeholder[] = "/v1/{class}";
    char path[100];

    if (strncmp(route->path, placeholder, sizeof placeholder - 1) != 0) {
        add_operation(paths, route->path, route, NULL);
        return;
    }
    for (size_t i = 0; i < n_pool_classes; i++) {
        const struct pool_class *c = &pool_classes[i];
        const char *rest = route->path + sizeof placeholder - 1;
        if (c->single && (!*rest || !strcmp(route->method, "DELETE"))) {
            continue;
        }
        snprintf(path, sizeof path, "/v1/%s%s", c->plural, c->single ? "" : rest);
        add_operation(paths, path, route, c);
    }
}

json_t *
rest_openapi(void)
{
    json_t *paths = json_object();

    for (size_t i = 0; i < n_rest_routes; i++) {
        add_route(paths, &rest_routes[i]);
    }
    /* OpenAPI 3.0 has no word for client certificates: to it that is no scheme. */
    return json_pack(
        "{s:s, s:{s:s, s:s, s:s}, s:[{}, {s:[]}], s:o, s:{s:o, s:{s:{s:s, s:s}}}}", "openapi",
        "3.0.3", "info", "title", "Weft pool controller", "version", "1", "description",
        "docs/rest.md says more. Requests are authenticated by TLS client certificates, by the "
        "credentials of the Unix socket's peer, or by the token of a session.",
        "security", "session", "paths", paths, "components", "schemas", rest_schemas(),
        "securitySchemes", "session", "type", "http", "scheme", "bearer");
}
