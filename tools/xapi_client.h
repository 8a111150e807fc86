/* xapi_client: calls of XenAPI, to the pool's coordinator.
 *
 * weft-xapid is "unix:PATH" or "https://HOST[:PORT]"; one that is not the
 * coordinator says who is, and the client goes there.  Who has a certificate of
 * the pool is its user, or has --user and $WEFT_PASSWORD; root at the Unix socket
 * needs neither.  Single-threaded.  Strings of the options are borrowed. */
#ifndef XAPI_CLIENT_H
#define XAPI_CLIENT_H

#include <jansson.h>
#include <stddef.h>

struct xapi_where {
    const char *xapi; /* NULL: $WEFT_XAPI, or the socket in the run directory */
    /* NULL: $WEFT_CERTIFICATE, $WEFT_PRIVATE_KEY, $WEFT_CA_CERT */
    const char *certificate, *private_key, *ca_cert;
    const char *user;
};
#define XAPI_WHERE_OPTIONS(w)                                                                      \
    {"xapi", CLI_STRING, &(w)->xapi, "URL", "unix:PATH or https://HOST[:PORT] ($WEFT_XAPI)"},      \
        {"certificate", CLI_STRING, &(w)->certificate, "FILE", "ours, for https"},                 \
        {"private-key", CLI_STRING, &(w)->private_key, "FILE", "of our certificate"},              \
        {"ca-cert", CLI_STRING, &(w)->ca_cert, "FILE", "of weft-xapid's certificate"},             \
    {                                                                                              \
        "user", CLI_STRING, &(w)->user, "NAME", "with a password, in $WEFT_PASSWORD"               \
    }

struct xapi_client;

/* Logs in.  0, or an errno with a sentence in 'why'. */
int xapi_open(const struct xapi_where *, struct xapi_client **, char *why, size_t why_size);
/* Logs out. */
void xapi_close(struct xapi_client *);

/* Takes 'params' (an array; the session is put before it).  0 with '*result' (if
 * not NULL; the caller's), EREMOTEIO: a failure, see xapi_error(); EIO: no
 * answer.  xapi_why() says it in words. */
int xapi_call(struct xapi_client *, const char *method, json_t *params, json_t **result);
const char *xapi_why(const struct xapi_client *);
/* The failure's code, or "". */
const char *xapi_error(const struct xapi_client *);
/* The one object of the class with that name; NULL: xapi_why(). */
char *xapi_find(struct xapi_client *, const char *class, const char *name);

#endif
