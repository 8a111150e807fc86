/* The OpenAPI 3.0 description, from the tables of routes and classes. */
#include <stdio.h>
#include <string.h>

#include "rest_priv.h"

static json_t *
ref_to(const char *schema)
{
    return json_pack("{s:s+}", "$ref", "#/components/schemas/", schema);
}

static json_t *
content(json_t *schema)
{
    return json_pack("{s:{s:{s:o}}}", "content", "application/json", "schema", schema);
}

static json_t *
field_schema(const struct pool_field *f)
{
    static const char *const types[] = {"string", "integer", "boolean", "string"};
    json_t *s = json_pack("{s:s}", "type", types[f->type]);
    char text[200];

    if (f->flags & POOL_SET) {
        s = json_pack("{s:s, s:o, s:b}", "type", "array", "items", s, "uniqueItems", 1);
    }
    snprintf(text, sizeof text, "%s%s%s", f->help, f->ref ? "; the name of a " : "",
             f->ref ? f->ref : "");
    json_object_set_new(s, "description", json_string(text));
    if (f->flags & POOL_STATUS) {
        json_object_set_new(s, "readOnly", json_true());
    }
    return s;
}

static json_t *
class_schema(const struct pool_class *c)
{
    json_t *properties = json_object(), *required = json_array();
    json_t *schema = json_pack("{s:s, s:s, s:b, s:o}", "type", "object", "description", c->about,
                               "additionalProperties", 0, "properties", properties);

    if (!c->single) {
        json_object_set_new(properties, "name", json_pack("{s:s}", "type", "string"));
        json_array_append_new(required, json_string("name"));
    }
    json_object_set_new(
        properties, "uuid",
        json_pack("{s:s, s:s, s:b}", "type", "string", "format", "uuid", "readOnly", 1));
    json_object_set_new(properties, "key",
                        json_pack("{s:s, s:b}", "type", "integer", "readOnly", 1));
    for (size_t i = 0; i < c->n_fields; i++) {
        json_object_set_new(properties, c->fields[i].name, field_schema(&c->fields[i]));
        if (c->fields[i].flags & POOL_REQUIRED) {
            json_array_append_new(required, json_string(c->fields[i].name));
        }
    }
    if (json_array_size(required)) {
        json_object_set(schema, "required", required);
    }
    json_decref(required);
    return schema;
}

static json_t *
parameter(const char *name, const char *in, const char *about)
{
    bool path = !strcmp(in, "path");

    return json_pack("{s:s, s:s, s:b, s:s, s:{s:s}}", "name", name, "in", in, "required", path,
                     "description", about, "schema", "type", path ? "string" : "integer");
}

static json_t *
parameters_of(const struct rest_route *route, const struct pool_class *c)
{
    json_t *list = json_array();

    if (strstr(route->path, "{object}") && c && !c->single) {
        json_array_append_new(
            list,
            parameter("object", "path", c->within ? "POLICY/RULE, or the uuid" : "name or uuid"));
    }
    if (strstr(route->path, "{id}")) {
        json_array_append_new(list, parameter("id", "path", "a session's id, or current"));
    }
    if (!strcmp(route->path, "/v1/wait")) {
        json_array_append_new(list, parameter("generation", "query", "default: the present one"));
        json_array_append_new(list, parameter("timeout", "query", "seconds; default 60"));
    }
    if (!strcmp(route->path, "/v1/samples") && !strcmp(route->method, "POST")) {
        json_array_append_new(list, parameter("seconds", "query", "default 10; 0 stops"));
    }
    if (!strcmp(route->path, "/v1/capture") && !strcmp(route->method, "GET")) {
        json_array_append_new(list, parameter("after", "query", "a packet's number"));
    }
    if (!strcmp(route->path, "/v1/log")) {
        json_array_append_new(
            list, parameter("after", "query", "an entry's number; default: the latest 500"));
    }
    if (!strcmp(route->path, "/v1/commit")) {
        json_array_append_new(list, parameter("confirm", "query", "seconds; default 0: for good"));
    }
    return list;
}

static json_t *
operation(const struct rest_route *route, const struct pool_class *c)
{
    bool get = !strcmp(route->method, "GET"), post = !strcmp(route->method, "POST");
    json_t *ok = c && get && !strstr(route->path, "{object}")
                     ? json_pack("{s:s, s:{s:{s:s, s:o}}}", "type", "object", "properties",
                                 c->plural, "type", "array", "items", ref_to(c->noun))
                 : c && get      ? ref_to(c->noun)
                 : route->change ? ref_to("generation")
                                 : json_pack("{s:s}", "type", "object");
    json_t *answer = content(ok), *refusal = content(ref_to("error"));
    json_t *op =
        json_pack("{s:s, s:o}", "summary", route->about, "parameters", parameters_of(route, c));

    json_object_set_new(answer, "description", json_string("done"));
    json_object_set_new(refusal, "description", json_string("refused"));
    json_object_set_new(
        op, "responses",
        json_pack("{s:o, s:o}", c && post ? "201" : "200", answer, "default", refusal));
    if (route->max_body) {
        json_object_set_new(op, "requestBody",
                            content(ref_to(route->body ? route->body
                                           : c         ? c->noun
                                                       : "document")));
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

static json_t *
document_schema(void)
{
    json_t *properties = json_pack("{s:{s:s}}", "version", "type", "integer");

    for (size_t i = 0; i < n_pool_classes; i++) {
        const struct pool_class *c = &pool_classes[i];
        if (!c->within) {
            json_object_set_new(
                properties, c->plural,
                c->single ? ref_to(c->noun)
                          : json_pack("{s:s, s:o}", "type", "array", "items", ref_to(c->noun)));
        }
    }
    return json_pack("{s:s, s:s, s:o}", "type", "object", "description",
                     "see docs/policy.md; the rules of a policy stand in its member rules",
                     "properties", properties);
}

/* Of a question, or another body without a class: {name, type, description}. */
static json_t *
members_schema(const char *about, const char *const (*members)[3], size_t n)
{
    json_t *properties = json_object();

    for (size_t i = 0; i < n; i++) {
        json_object_set_new(
            properties, members[i][0],
            json_pack("{s:s, s:s}", "type", members[i][1], "description", members[i][2]));
    }
    return json_pack("{s:s, s:s, s:b, s:o}", "type", "object", "description", about,
                     "additionalProperties", 0, "properties", properties);
}

static json_t *
question_schema(void)
{
    static const char *const members[][3] = {
        {"from", "string", "the vif that sends it"},
        {"to", "string", "a vif, or an address in the sender's network"},
        {"to_mac", "string", "destination MAC, if it is not that of a vif in the network"},
        {"source", "string", "address; default: the sender's first known one"},
        {"destination", "string", "address; default: the receiver's first known one"},
        {"family", "string", "ipv4 or ipv6"},
        {"protocol", "string", "tcp, udp, sctp, icmp, icmpv6, a number; default: a ping"},
        {"port", "integer", "destination port"},
        {"source_port", "integer", "default 40000"},
        {"icmp_type", "integer", "default: echo request"},
        {"icmp_code", "integer", "default 0"},
        {"state", "string", "new (default), established, reply, older, invalid"},
        {"host", "string", "with flow: where the packet enters"},
        {"flow", "string", "the packet as ovs-fields(7) has it; in_port by name or number"},
    };

    return members_schema("a packet", members, sizeof members / sizeof members[0]);
}

static json_t *
login_schema(void)
{
    static const char *const members[][3] = {
        {"user", "string", "a user of the pool; default: who asks; others: for admins"},
        {"lifetime", "integer", "seconds; default 43200, at most 604800"},
        {"idle", "integer", "seconds without use after which it ends; default 1800"},
    };

    return members_schema("what a session is to be", members, sizeof members / sizeof members[0]);
}

static json_t *
security_schemes(void)
{
    return json_pack("{s:{s:s, s:s}, s:{s:s}}", "session", "type", "http", "scheme", "bearer",
                     "certificate", "type", "mutualTLS");
}

static json_t *
flow_schema(void)
{
    static const char *const members[][3] = {
        {"from", "string", "the vif that sends it; none: from outside, by the VLAN of 'to'"},
        {"to", "string", "the vif that it is for; none: what is not the pool's"},
        {"network", "string", "for people"},
        {"source", "string", "address"},
        {"destination", "string", "address"},
        {"protocol", "string", "tcp, udp, sctp, icmp, icmpv6, a number"},
        {"port", "integer", "destination port"},
        {"source_port", "integer", "default 40000"},
        {"icmp_type", "integer", "default: echo request"},
        {"icmp_code", "integer", "default 0"},
        {"count", "integer", "for people: how often it was seen"},
    };

    return members_schema("connections that were seen", members,
                          sizeof members / sizeof members[0]);
}

static json_t *
capture_schema(void)
{
    static const char *const members[][3] = {
        {"vif", "string", "that sends them"},
        {"seconds", "integer", "default 10, at most 300; 0 ends it"},
        {"protocol", "string", "only of this one"},
        {"port", "integer", "only to this one"},
        {"family", "string", "ipv4 or ipv6"},
    };

    return members_schema("packets to be captured", members, sizeof members / sizeof members[0]);
}

static json_t *
shadow_schema(void)
{
    return json_pack("{s:s, s:s, s:[s], s:{s:o, s:{s:s, s:i, s:o}}}", "type", "object",
                     "description", "without flows: the samples", "required", "document",
                     "properties", "document", ref_to("document"), "flows", "type", "array",
                     "maxItems", 10000, "items", ref_to("flow"));
}

json_t *
rest_openapi(void)
{
    json_t *paths = json_object(), *schemas = json_object(), *error = json_object();
    static const char *const members[] = {"error", "object", "field", "message"};

    for (size_t i = 0; i < n_rest_routes; i++) {
        add_route(paths, &rest_routes[i]);
    }
    for (size_t i = 0; i < n_pool_classes; i++) {
        json_object_set_new(schemas, pool_classes[i].noun, class_schema(&pool_classes[i]));
    }
    for (int i = 0; i < 4; i++) {
        json_object_set_new(error, members[i], json_pack("{s:s}", "type", "string"));
    }
    json_object_set_new(schemas, "document", document_schema());
    json_object_set_new(schemas, "question", question_schema());
    json_object_set_new(schemas, "flow", flow_schema());
    json_object_set_new(schemas, "capture", capture_schema());
    json_object_set_new(schemas, "shadow", shadow_schema());
    json_object_set_new(schemas, "login", login_schema());
    json_object_set_new(schemas, "error",
                        json_pack("{s:s, s:o}", "type", "object", "properties", error));
    json_object_set_new(schemas, "generation",
                        json_pack("{s:s, s:{s:{s:s}}}", "type", "object", "properties",
                                  "generation", "type", "integer"));
    return json_pack("{s:s, s:{s:s, s:s, s:s}, s:[{s:[]}], s:o, s:{s:o, s:o}}", "openapi", "3.0.3",
                     "info", "title", "Weft pool controller", "version", "1", "description",
                     "docs/rest.md says more. Requests are authenticated by client certificates, "
                     "or by the token of a session.",
                     "security", "session", "paths", paths, "components", "schemas", schemas,
                     "securitySchemes", security_schemes());
}
