/* http: requests from clients, over TLS or a Unix socket, to the main loop.
 *
 * Each address has a thread of libmicrohttpd's that takes connections, enforces
 * the limits that hold before anybody has said who he is (attempts, connections,
 * time for each phase, size of the body) and lets http_config.prepare look at a
 * whole request.  Then the connection is suspended and the request belongs to
 * the main loop, from http_take() to http_answer(), however long that takes. */
#ifndef XAPI_HTTP_H
#define XAPI_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HTTP_BODY_MAX = 256 << 10,
    HTTP_BODIES_MAX = 16 << 20, /* all clients' together */
    HTTP_CONNECTIONS = 400,     /* of one address */
    HTTP_PEER_CONNECTIONS = 64, /* of one peer */
    HTTP_HEAD_MS = 10000,       /* from the connection's beginning to the head's end */
    HTTP_BODY_MS = 20000,       /* for the body */
    HTTP_SEND_MS = 60000,       /* for the answer to be taken */
    HTTP_KEEP_MS = 120000,      /* between two requests */
    HTTP_MAX_LISTEN = 8,
};

struct http;
struct http_request;

struct http_peer {
    char address[80];      /* "192.0.2.1#40000", or "unix#0" with the peer's user id */
    bool local;            /* at the Unix socket, root or the daemon's own user */
    char cn[129], ou[160]; /* of the verified client certificate; empty: none */
};

struct http_config {
    const char *listen[HTTP_MAX_LISTEN]; /* "ssl:PORT[:IP]", "unix:PATH" */
    size_t n_listen;
    const char *private_key, *certificate, *ca_cert, *crl; /* for ssl: */
    /* In a listener's thread.  False: '*refusal' (malloc'ed) is the answer;
     * else '*prepared' goes with the request. */
    bool (*prepare)(void *aux, const char *path, const struct http_peer *, const char *body,
                    size_t n, void **prepared, char **refusal);
    void (*discard)(void *prepared);             /* of a request that nobody took */
    void (*log)(bool warning, const char *line); /* any thread */
    void *aux;
};

/* 0, or an errno with a sentence in 'why'.  The strings are borrowed. */
int http_create(const struct http_config *, struct http **, char *why, size_t why_size);
/* Requests that the main loop has must be answered before. */
void http_destroy(struct http *);

/* --- the main loop's ---------------------------------------------------------- */

/* Deadlines and certificates; call it when http_fd() is readable and after
 * http_timeout_ms(). */
void http_run(struct http *);
int http_fd(const struct http *);
int http_timeout_ms(const struct http *);
/* The next whole request, or NULL. */
struct http_request *http_take(struct http *);
const struct http_peer *http_peer(const struct http_request *);
void *http_prepared(struct http_request *);
/* Its client has said who he is: the connection gives place to no stranger's. */
void http_vouch(struct http_request *);
/* Takes 'text' (malloc'ed) and the request. */
void http_answer(struct http_request *, int status, char *text);

#endif
