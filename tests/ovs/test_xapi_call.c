/* JSON-RPC's forms, and what hostile requests make of them. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "check.h"
#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "random.h"
#include "util.h"

static struct call *
decode(const char *body)
{
    char why[200];

    return call_decode("/jsonrpc", body, strlen(body), why, sizeof why);
}

static bool
refused(const char *body, size_t n)
{
    char why[200] = "";
    struct call *c = call_decode("/jsonrpc", body, n, why, sizeof why);
    char *answer = call_refusal(why);
    struct json *json = json_from_string(answer);
    bool good = !c && *why && json->type == JSON_OBJECT;

    call_destroy(c);
    json_destroy(json);
    free(answer);
    return good;
}

static void
test_forms(void)
{
    struct call *c = decode("{\"jsonrpc\":\"2.0\",\"method\":\"VM.start\",\"params\":[\"a\",true],"
                            "\"id\":\"x\"}");
    struct fault f;
    char *text;

    CASE("a call, and its answers in three forms");
    CHECK(c && c->form == CALL_V2 && !strcmp(c->method, "VM.start"));
    CHECK(json_array(c->params)->n == 2);
    text = call_success(c, json_string_create(""));
    CHECK(strstr(text, "\"id\":\"x\"") && strstr(text, "\"jsonrpc\":\"2.0\"") &&
          strstr(text, "\"result\":\"\""));
    free(text);
    fault_set(&f, "HANDLE_INVALID", "VM", "a\"b", NULL);
    text = call_failure(c, &f);
    CHECK(strstr(text, "\"message\":\"HANDLE_INVALID\"") && strstr(text, "\"a\\\"b\""));
    free(text);
    call_destroy(c);

    c = decode("{\"method\":\"m\",\"params\":{\"a\":1},\"id\":5}");
    CHECK(c && c->form == CALL_V1 && json_array(c->params)->n == 1);
    text = call_failure(c, &f);
    CHECK(strstr(text, "\"result\":null") && strstr(text, "[\"HANDLE_INVALID\",\"VM\""));
    free(text);
    call_destroy(c);

    c = decode("{\"method\":\"m\"}");
    CHECK(c && !c->id && json_array(c->params)->n == 0);
    call_destroy(c);
}

/* A parameter that is cut is not cut inside a character. */
static void
test_long_parameters(void)
{
    struct fault f;
    char text[FAULT_TEXT * 2];
    size_t n = 0;

    CASE("a long parameter is not cut inside a character");
    while (n + 3 < sizeof text) {
        memcpy(text + n, "\xe2\x82\xac", 3);
        n += 3;
    }
    text[n] = '\0';
    fault_set(&f, "INTERNAL_ERROR", text, "2", "3", "4", "5", NULL);
    CHECK(f.n == FAULT_PARAMS && strlen(f.params[0]) % 3 == 0 && strlen(f.params[0]) > 390);
}

static void
test_hostile(void)
{
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "5",
        "{\"method\":5}",
        "{\"method\":\"a\",\"id\":[]}",
        "{\"method\":\"a\",\"jsonrpc\":\"1.0\"}",
        "{\"method\":\"a\"}{}",
        "{\"method\":\"\\u0000\"}",
        "{\"method\":\"\xc0\xaf\"}",
        "{\"method\":\"\xed\xa0\x80\"}",
        "{\"method\":\"a\" \x01}",
    };
    size_t n = 300000;
    char *deep = xmalloc(n);

    CASE("hostile requests are refused");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        CHECK(refused(bad[i], strlen(bad[i])));
    }
    CHECK(refused("{\"method\":\"a\0b\"}", 16));
    memset(deep, '[', n);
    CHECK(refused(deep, n) && refused(deep, CALL_BODY_MAX));
    memset(deep, ' ', n);
    CHECK(refused(deep, CALL_BODY_MAX));
    /* Brackets inside a string are none, however it is escaped. */
    CHECK(snprintf(deep, n, "{\"method\":\"a\\\\\",\"params\":[\"\\\"%0100d\"]}", 0) < 200);
    for (char *p = strchr(deep, '0'); *p == '0'; p++) {
        *p = '[';
    }
    CHECK(!refused(deep, strlen(deep)));
    free(deep);
}

/* Bytes changed, taken out and doubled: an answer, or a refusal, and no more. */
static void
test_mutations(void)
{
    static const char seed[] =
        "{\"jsonrpc\":\"2.0\",\"method\":\"VM.pool_migrate\",\"params\":[\"OpaqueRef:x\",{\"live\":"
        "\"true\",\"n\":[1,2.5e3,-7,null,\"\\u20ac\\\\\"]}],\"id\":1}";
    size_t good = 0;

    CASE("30,000 damaged requests");
    random_set_seed(7);
    for (int i = 0; i < 30000; i++) {
        char body[2 * sizeof seed];
        size_t n = sizeof seed - 1;
        char why[200];

        memcpy(body, seed, n);
        for (unsigned j = random_range(4) + 1; j; j--) {
            size_t at = random_range(n), len = random_range(8) + 1;

            len = MIN(len, n - at);

            if (random_range(3) == 0) {
                memmove(body + at, body + at + len, n - at - len);
                n = n > len ? n - len : 1;
            } else if (random_range(2) && n + len < sizeof body) {
                memmove(body + at + len, body + at, n - at);
                n += len;
            } else {
                body[at] = random_range(4) ? "{}[]\",:\\0\x80\xff"[random_range(12)]
                                           : (char)random_uint8();
            }
        }
        char *copy = xmemdup(body, n); /* so that a sanitizer sees its end */
        struct call *c = call_decode("/jsonrpc", copy, n, why, sizeof why);

        if (c) {
            free(call_success(c, json_clone(c->params)));
            good++;
        }
        call_destroy(c);
        free(copy);
    }
    CHECK(good > 300 && good < 29000);
}

int
main(void)
{
    test_forms();
    test_long_parameters();
    test_hostile();
    test_mutations();
    return check_done();
}
