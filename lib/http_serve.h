/* http_serve: requests from clients, over TLS or a Unix socket, to a main loop.
 *
 * Each address has a thread of libmicrohttpd's that takes connections, enforces
 * the limits that hold before anybody has said who he is (attempts, connections,
 * time for each phase, size of the body) and lets the server's owner look at a
 * request's head, and at the whole of it.  Then the connection is suspended and
 * the request belongs to the main loop, from http_take() to http_answer(), however
 * long that takes; libmicrohttpd's thread sends the answer. */
#ifndef HTTP_SERVE_H
#define HTTP_SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HTTP_CONNECTIONS = 400, /* of one address that is listened at */
    HTTP_HEAD_MS = 10000,   /* from the connection's beginning to the head's end */
    HTTP_SEND_MS = 60000,   /* for the answer to be taken */
};

struct http_server;
struct http_conn;
struct MHD_Connection;

struct http_peer {
    char address[80];      /* "192.0.2.1#40000", or "unix#0" with the peer's user id */
    bool local;            /* at the Unix socket, root or the daemon's own user */
    unsigned uid;          /* there; UINT_MAX: not known */
    bool certified;        /* has shown a good certificate, these are its names */
    char cn[129], ou[160]; /* else empty */
};

/* The first member of the owner's own struct. */
struct http_request {
    struct http_server *server;
    struct http_conn *conn;
    struct MHD_Connection *mhd;
    const struct http_peer *peer;
    bool tokens;               /* came to a token: address */
    struct http_request *next; /* of http_take() */
    char *path;
    char *body; /* NULL: none */
    size_t n_body, cap_body;
    size_t max_body; /* http_config's, unless head() says otherwise */

    /* The answer: http_put(). */
    bool answered, handed_over;
    int status;
    char *text;
    const char *allow; /* methods, with status 405 */
};

struct http_config {
    const char *const *listen; /* "ssl:PORT[:IP]", "unix:PATH" */
    size_t n_listen;
    bool tokens;   /* "token:PORT[:IP]", too: TLS that asks for no certificate */
    bool politely; /* ssl: asks for one, but it need not be shown */
    /* For TLS, in PEM; read again when they change.  'crl' may be NULL. */
    const char *private_key, *certificate, *ca_cert, *crl;
    unsigned peer_connections;   /* of one peer */
    int64_t head_ms;             /* from the connection's beginning; 0: HTTP_HEAD_MS */
    int64_t body_ms, keep_ms;    /* for the body; between two requests */
    size_t max_body, max_bodies; /* one; all clients' together */
    size_t request_size;         /* of the owner's struct; it is zeroed */
    void *aux;

    /* In a listener's thread; false: the answer was put. */
    bool (*head)(struct http_request *, const char *method);
    bool (*whole)(struct http_request *); /* the body is dropped after it */
    /* Puts the answer to a body that is too large (413) or one too many (503); it is
     * read to its end and thrown away.  NULL: who sends that is cut off. */
    void (*too_much)(struct http_request *, int status);
    /* In any thread: puts the answer that the server is ending. */
    void (*turn_away)(struct http_request *);
    void (*discard)(struct http_request *); /* what the owner's struct holds */
    void (*log)(void *aux, bool warning, const char *line);
};

/* 0, or an errno with a sentence in 'why'.  Strings are borrowed. */
int http_create(const struct http_config *, struct http_server **, char *why, size_t why_size);
/* Requests that the main loop took must be answered before. */
void http_destroy(struct http_server *);

/* --- for both threads ------------------------------------------------------------- */

int64_t http_now_ms(void); /* monotonic */
void *http_aux(const struct http_request *);
const char *http_header(const struct http_request *, const char *name);
/* What stands behind the '?', in turn ('value' NULL: a name alone), until 'each' returns
 * false; then false. */
bool http_each_arg(const struct http_request *,
                   bool (*each)(void *aux, const char *name, const char *value), void *aux);
/* Takes 'text' (malloc'ed; NULL: out of memory). */
void http_put(struct http_request *, int status, char *text);
/* It has been taken, and comes to http_take() once more; it is the main loop's again. */
void http_again(struct http_request *);
/* Its client has said who he is: the connection gives place to no stranger's. */
void http_vouch(struct http_request *);

/* --- the main loop's ---------------------------------------------------------- */

/* Deadlines and certificates; call it when http_fd() is readable and at http_until_ms(),
 * and http_take() after it. */
void http_run(struct http_server *);
int http_fd(const struct http_server *);
int64_t http_until_ms(const struct http_server *); /* by the clock of http_now_ms() */
/* The requests that have come, linked by 'next', or NULL. */
struct http_request *http_take(struct http_server *);
/* What was put is sent.  The request must not be used afterwards. */
void http_resume(struct http_request *);
void http_answer(struct http_request *, int status, char *text);

#endif
