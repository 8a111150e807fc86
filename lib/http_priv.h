/* http_priv: what http_serve.c (requests and the main loop) and http_conn.c
 * (connections and their limits) share.  See http_serve.h. */
#ifndef HTTP_PRIV_H
#define HTTP_PRIV_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "http_limit.h"
#include "http_serve.h"
#include "http_tls.h"

struct http_conn {
    struct http_conn *prev, *next; /* of the listener, oldest first */
    struct http_listener *listener;
    int fd;
    bool closing;        /* shut down, not yet gone */
    bool known;          /* http_vouch() */
    int64_t deadline_ms; /* monotonic; INT64_MAX: none */
    struct sockaddr_storage from;
    struct http_creds *creds;   /* of its handshake */
    struct http_creds *checked; /* newer ones, by which its client was looked at; or NULL */
    bool refused;               /* then */
    bool identified;
    struct http_peer peer;
};

struct http_listener {
    struct http_server *server;
    char *path; /* of a Unix socket, or NULL */
    bool tls;
    bool tokens; /* TLS without client certificates */
    struct MHD_Daemon *mhd;
    int quiesced;          /* its socket, when it takes no more; or -1 */
    pthread_mutex_t mutex; /* guards the connections, and limit */
    struct http_conn *first, *last;
    unsigned n_conns;
    struct http_limit *limit;
};

struct http_server {
    struct http_config config;
    struct http_listener *listeners;
    size_t n_listeners;
    struct http_tls *tls;
    int event; /* eventfd: the queue is not empty */
    atomic_size_t bodies_bytes;
    atomic_uint handed_over; /* requests, until they are done with */
    pthread_mutex_t mutex;   /* guards queue, closing */
    struct http_request *first, *last;
    bool closing;
    int64_t next_look_ms; /* the main loop's: at files and deadlines */
};

/* --- http_conn.c ------------------------------------------------------------------ */

/* libmicrohttpd's callbacks. */
enum MHD_Result http_conn_accept(void *listener, const struct sockaddr *, socklen_t);
void http_conn_notify(void *listener, struct MHD_Connection *, void **context,
                      enum MHD_ConnectionNotificationCode);
/* NULL: there was no memory for it, and no request of it is answered. */
struct http_conn *http_conn_of(struct MHD_Connection *);
/* A well-formed request came, or went: its connection has so long for what is next. */
void http_conn_deadline(struct http_conn *, int64_t ms);
void http_conn_reap(struct http_listener *, int64_t now_ms);
/* Once its handshake is done. */
void http_conn_identify(struct http_conn *, struct MHD_Connection *);
/* At each request: whether its client's certificate would do still. */
bool http_conn_good(struct http_conn *, struct MHD_Connection *);

#endif
