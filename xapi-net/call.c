#include <config.h>

#include "call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "unicode.h"
#include "util.h"

/* What the parser would build of deep nesting costs memory before it is refused, and
 * members by the thousand, named so that their hashes collide, cost time.  Returns
 * what there is too much of, or NULL. */
static const char *
too_much(const char *s, size_t n)
{
    bool in_string = false;
    unsigned depth = 0, values = 0;

    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            if (s[i] == '\\') {
                i++;
            } else if (s[i] == '"') {
                in_string = false;
            }
        } else if (s[i] == '"') {
            in_string = true;
        } else if (s[i] == '{' || s[i] == '[') {
            if (++depth > CALL_DEPTH) {
                return "levels";
            }
        } else if (s[i] == ',') {
            if (++values > CALL_VALUES) {
                return "values";
            }
        } else if ((s[i] == '}' || s[i] == ']') && depth) {
            depth--;
        }
    }
    return NULL;
}

/* Open vSwitch's parser takes any bytes for characters. */
static bool
is_utf8(const char *body, size_t n)
{
    char *text = xmemdup0(body, n), *error = NULL;
    bool ok = !memchr(body, '\0', n) && !(error = utf8_validate(text, NULL));

    free(error);
    free(text);
    return ok;
}

static struct json *
parse(const char *body, size_t n, char *why, size_t why_size)
{
    const char *much = n > CALL_BODY_MAX ? "bytes" : too_much(body, n);
    struct json_parser *parser;
    struct json *json;
    size_t used;

    if (much) {
        snprintf(why, why_size, "too many %s", much);
        return NULL;
    }
    if (!is_utf8(body, n)) {
        snprintf(why, why_size, "not UTF-8");
        return NULL;
    }
    parser = json_parser_create(JSPF_TRAILER);
    used = json_parser_feed(parser, body, n);
    json = json_parser_finish(parser);
    if (json->type == JSON_STRING) { /* what is wrong, or a bare string */
        snprintf(why, why_size, "%.200s", json_string(json));
    } else if (json->type != JSON_OBJECT || used != n) {
        snprintf(why, why_size, "a request is a JSON object");
    } else {
        return json;
    }
    json_destroy(json);
    return NULL;
}

static bool
is_string(const struct json *json, const char *value)
{
    return json && json->type == JSON_STRING && !strcmp(json_string(json), value);
}

struct call *
call_decode(const char *path, const char *body, size_t n, char *why, size_t why_size)
{
    struct json *json = parse(body, n, why, why_size);
    struct call *c;

    if (!json) {
        return NULL;
    }
    const struct shash *o = json_object(json);
    const struct json *version = shash_find_data(o, "jsonrpc");
    const struct json *method = shash_find_data(o, "method");
    const struct json *params = shash_find_data(o, "params");
    const struct json *id = shash_find_data(o, "id");

    if (!method || method->type != JSON_STRING || strlen(json_string(method)) > CALL_METHOD_MAX) {
        snprintf(why, why_size, "a request has a \"method\", a string");
    } else if (version && !is_string(version, "2.0")) {
        snprintf(why, why_size, "\"jsonrpc\" can only be \"2.0\"");
    } else if (id && (id->type == JSON_OBJECT || id->type == JSON_ARRAY)) {
        snprintf(why, why_size, "\"id\" can only be a string, a number or null");
    } else {
        c = xzalloc(sizeof *c);
        c->form = !strcmp(path, "/json") ? CALL_STATUS : version ? CALL_V2 : CALL_V1;
        c->id = json_nullable_clone(id);
        snprintf(c->method, sizeof c->method, "%s", json_string(method));
        /* Parameters by name do not exist: xapi takes an object as the only one. */
        c->params = !params                      ? json_array_create_empty()
                    : params->type == JSON_ARRAY ? json_clone(params)
                                                 : json_array_create_1(json_clone(params));
        json_destroy(json);
        return c;
    }
    json_destroy(json);
    return NULL;
}

void
call_destroy(struct call *c)
{
    if (c) {
        json_destroy(c->id);
        json_destroy(c->params);
        free(c);
    }
}

void
fault_add(struct fault *f, const char *param)
{
    size_t n = MIN(strlen(param), FAULT_TEXT - 1);

    if (f->n == FAULT_PARAMS) {
        return;
    }
    while (n && ((unsigned char)param[n] & 0xc0) == 0x80) {
        n--; /* not in the middle of a character */
    }
    memcpy(f->params[f->n], param, n);
    f->params[f->n++][n] = '\0';
}

void
fault_fill(struct fault *f, const char *code, const char *const *params)
{
    f->code = code;
    f->n = 0;
    while (*params) {
        fault_add(f, *params++);
    }
}

/* --- answers ------------------------------------------------------------------- */

static char *
put(const struct call *c, struct json *answer)
{
    char *text;

    if (c->form == CALL_V2) {
        json_object_put_string(answer, "jsonrpc", "2.0");
    }
    json_object_put(answer, "id", c->id ? json_clone(c->id) : json_null_create());
    text = json_to_string(answer, 0);
    json_destroy(answer);
    return text;
}

char *
call_success(const struct call *c, struct json *value)
{
    struct json *answer = json_object_create();

    if (c->form == CALL_STATUS) {
        struct json *result = json_object_create();

        json_object_put_string(result, "Status", "Success");
        json_object_put(result, "Value", value);
        value = result;
    }
    json_object_put(answer, "result", value);
    if (c->form != CALL_V2) {
        json_object_put(answer, "error", json_null_create());
    }
    return put(c, answer);
}

char *
call_failure(const struct call *c, const struct fault *f)
{
    struct json *answer = json_object_create(), *list = json_array_create_empty(), *inner;

    if (c->form != CALL_V2) {
        json_array_add(list, json_string_create(f->code));
    }
    for (unsigned i = 0; i < f->n; i++) {
        json_array_add(list, json_string_create(f->params[i]));
    }
    inner = json_object_create();
    if (c->form == CALL_V2) {
        json_object_put(inner, "code", json_integer_create(1));
        json_object_put_string(inner, "message", f->code);
        json_object_put(inner, "data", list);
        json_object_put(answer, "error", inner);
    } else if (c->form == CALL_V1) {
        json_destroy(inner);
        json_object_put(answer, "result", json_null_create());
        json_object_put(answer, "error", list);
    } else {
        json_object_put_string(inner, "Status", "Failure");
        json_object_put(inner, "ErrorDescription", list);
        json_object_put(answer, "result", inner);
        json_object_put(answer, "error", json_null_create());
    }
    return put(c, answer);
}

char *
call_refusal(const char *why)
{
    struct json *answer = json_object_create(), *error = json_object_create();
    char *text;

    json_object_put(error, "code", json_integer_create(-32700));
    json_object_put_string(error, "message", why);
    json_object_put_string(answer, "jsonrpc", "2.0");
    json_object_put(answer, "error", error);
    json_object_put(answer, "id", json_null_create());
    text = json_to_string(answer, 0);
    json_destroy(answer);
    return text;
}
