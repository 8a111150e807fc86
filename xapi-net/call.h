/* call: the forms of a JSON-RPC request and of its answer.
 *
 *   POST /jsonrpc, "jsonrpc": "2.0"  {"jsonrpc", "result", "id"}, or
 *                                    {"jsonrpc", "error": {"code": 1, "message", "data"}, "id"}
 *   POST /jsonrpc, without           {"result", "error": null, "id"}, or
 *                                    {"result": null, "error": [CODE, ...], "id"}
 *   POST /json                       {"result": {"Status": "Success", "Value"}, ...}, or
 *                                    {"result": {"Status": "Failure", "ErrorDescription"}, ...}
 *
 * As xapi has them; /json is what its versions before JSON-RPC 2.0 answered.
 * No state; any thread. */
#ifndef XAPI_CALL_H
#define XAPI_CALL_H

#include <stdbool.h>
#include <stddef.h>

struct json;

enum { CALL_DEPTH = 24, CALL_VALUES = 8192, CALL_BODY_MAX = 256 << 10, CALL_METHOD_MAX = 120 };
enum call_form { CALL_V2, CALL_V1, CALL_STATUS };

/* "CODE", parameters... of a failure. */
enum { FAULT_PARAMS = 4, FAULT_TEXT = 400 };
struct fault {
    const char *code; /* a literal; NULL: none */
    unsigned n;
    char params[FAULT_PARAMS][FAULT_TEXT];
};

struct call {
    enum call_form form;
    struct json *id; /* NULL: a notification */
    char method[CALL_METHOD_MAX + 1];
    struct json *params; /* an array */
};

/* NULL, with a sentence in 'why': not JSON, or no request.  'body' need not be
 * terminated. */
struct call *call_decode(const char *path, const char *body, size_t n, char *why, size_t why_size);
void call_destroy(struct call *);

/* Texts, the caller's.  call_success() takes the value. */
char *call_success(const struct call *, struct json *value);
char *call_failure(const struct call *, const struct fault *);
/* The answer to what call_decode() refused. */
char *call_refusal(const char *why);

/* Code and parameters: strings, ended by NULL. */
#define fault_set(FAULT, CODE, ...) fault_fill((FAULT), (CODE), (const char *const[]){__VA_ARGS__})
void fault_fill(struct fault *, const char *code, const char *const *params);
void fault_add(struct fault *, const char *param);

#endif
