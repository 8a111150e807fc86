/* dispatch: what a listener's thread makes of a request for the main loop.
 * See xapi.h for the rest. */
#ifndef XAPI_DISPATCH_H
#define XAPI_DISPATCH_H

#include "call.h"
#include "http_password.h"
#include "http_serve.h"

struct incoming {
    struct http_request http;
    struct call *call;
    struct password_check login; /* of session.login_with_password */
    bool unchecked;              /* it has not been made yet */
};

/* Its limits, and what listeners' threads do. */
void dispatch_config(struct http_config *);

#endif
