/* http_priv: what http.c (requests and the main loop) and http_conn.c
 * (connections and their limits) share.  See http.h. */
#ifndef XAPI_HTTP_PRIV_H
#define XAPI_HTTP_PRIV_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "http.h"
#include "http_tls.h"
#include "rest_limit.h"

struct http_conn {
    struct http_conn *prev, *next; /* of the listener, oldest first */
    int fd;
    bool closing;        /* shut down, not yet gone */
    bool known;          /* http_vouch() */
    int64_t deadline_ms; /* monotonic; INT64_MAX: none */
    struct sockaddr_storage from;
    struct rest_creds *creds;
    bool identified;
    struct http_peer peer;
};

struct http_listener {
    struct http *http;
    const char *address; /* as stated */
    char *path;          /* of a Unix socket, or NULL */
    bool tls;
    struct MHD_Daemon *mhd;
    int quiesced;          /* its socket, when it takes no more; or -1 */
    pthread_mutex_t mutex; /* guards the connections, and limit */
    struct http_conn *first, *last;
    unsigned n_conns;
    struct rest_limit *limit;
};

struct http_request {
    struct http_listener *listener;
    struct http_conn *conn;
    struct MHD_Connection *mhd;
    struct http_request *next; /* in the queue */
    char *path;
    char *body;
    size_t n_body, cap_body;
    void *prepared;
    bool answered, handed_over;
    int status;
    char *text; /* malloc'ed */
};

struct http {
    struct http_config config;
    struct http_listener listeners[HTTP_MAX_LISTEN];
    size_t n_listeners;
    struct rest_tls *tls;
    int event; /* eventfd: the queue is not empty */
    atomic_size_t bodies_bytes;
    atomic_uint handed_over; /* requests, until they are done with */
    pthread_mutex_t mutex;   /* guards queue, closing */
    struct http_request *first, *last;
    bool closing;
    int64_t next_look_ms; /* the main loop's: at files and deadlines */
};

int64_t http_now_ms(void);

/* --- http_conn.c: libmicrohttpd's callbacks, and listening -------------------- */

enum MHD_Result http_accept(void *listener, const struct sockaddr *, socklen_t);
void http_notify(void *listener, struct MHD_Connection *, void **context,
                 enum MHD_ConnectionNotificationCode);
/* A well-formed request came, or went: its connection has so long for what is next. */
void http_conn_deadline(struct http_request *, int64_t ms);
void http_listener_reap(struct http_listener *, int64_t now_ms);
void http_identify(struct http_request *);
/* A listening socket for l->address. */
int http_listen(struct http_listener *, int *fd);

#endif
