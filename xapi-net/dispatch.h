/* dispatch: what a listener's thread makes of a request for the main loop.
 * See xapi.h for the rest. */
#ifndef XAPI_DISPATCH_H
#define XAPI_DISPATCH_H

#include "call.h"
#include "http.h"
#include "http_password.h"

struct incoming {
    struct call *call;
    enum password_verdict verdict; /* of a login */
    enum pool_role role;           /* with PASSWORD_RIGHT */
};

/* For http_config; the listener's thread. */
bool dispatch_prepare(void *aux, const char *path, const struct http_peer *, const char *body,
                      size_t n, void **prepared, char **refusal);
void dispatch_discard(void *prepared);

#endif
