/* pool_client: requests to the controller's REST interface.
 *
 * The controller is "unix:PATH" or "https://HOST:PORT" (then with a client
 * certificate).  Single-threaded.  Strings of the options are borrowed. */
#ifndef POOL_CLIENT_H
#define POOL_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool_where {
    const char *controller; /* NULL: $WEFT_CONTROLLER, or the socket in the run directory */
    /* NULL: $WEFT_CERTIFICATE, $WEFT_PRIVATE_KEY, $WEFT_CA_CERT */
    const char *certificate, *private_key, *ca_cert;
    const char *daemon; /* whose socket it is; NULL: weft-controllerd */
    /* Otherwise the session of "weft login" is used, if it is for this controller
     * and no certificate is stated. */
    bool no_session;
};
#define POOL_WHERE_OPTIONS(w)                                                                      \
    {"controller", CLI_STRING, &(w)->controller, "URL",                                            \
     "unix:PATH or https://HOST:PORT ($WEFT_CONTROLLER)"},                                         \
        {"certificate", CLI_STRING, &(w)->certificate, "FILE", "ours, for https"},                 \
        {"private-key", CLI_STRING, &(w)->private_key, "FILE", "of our certificate"},              \
    {                                                                                              \
        "ca-cert", CLI_STRING, &(w)->ca_cert, "FILE", "of the controller's certificate"            \
    }

struct pool_client;

/* 0, or an errno with a sentence in 'why'.  Connects with the first request. */
int pool_client_open(const struct pool_where *, struct pool_client **, char *why, size_t why_size);
void pool_client_close(struct pool_client *);

/* 'path' is escaped but for slashes; 'query' is not ("timeout=5", or NULL).
 * 'body' may be NULL.  Returns 0 with the answer in '*answer' (if not NULL, the
 * caller's reference), or an errno with a sentence in pool_client_why(): ENOENT
 * (404), EPERM (403), EEXIST (409), EINVAL (other refusals), EIO (no answer). */
int pool_call(struct pool_client *, const char *method, const char *path, const char *query,
              const json_t *body, unsigned timeout_s, json_t **answer);
/* Hands the answer over in pieces as they come, until it ends or 'piece' returns
 * false (then ECANCELED).  A refusal is as of pool_call(). */
int pool_stream(struct pool_client *, const char *path, const char *query,
                bool (*piece)(void *aux, const char *data, size_t n), void *aux);
const char *pool_client_why(const struct pool_client *);
/* What a refusal said, or NULL. */
const json_t *pool_client_refusal(const struct pool_client *);

#endif
