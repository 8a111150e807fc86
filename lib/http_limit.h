/* http_limit: how much one peer may take before it has said who it is.
 *
 * A peer is an IPv4 address or an IPv6 /64.  Each has a bucket of connection
 * attempts that refills with time, and a count of connections.  The table is
 * bounded; when it is full of peers that are using it, new ones are refused.
 *
 * Not thread-safe: the owner's lock covers it. */
#ifndef HTTP_LIMIT_H
#define HTTP_LIMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum { HTTP_PEER_RATE = 100, HTTP_PEER_BURST = 400, HTTP_PEERS_MAX = 4096 };

struct http_limit;

struct http_limit *http_limit_create(void);
void http_limit_destroy(struct http_limit *);

/* Takes an attempt from the peer's bucket; false: it has none left. */
bool http_limit_try(struct http_limit *, const struct sockaddr *, int64_t now_ms);
/* A connection of the peer began: how many it has now. */
unsigned http_limit_enter(struct http_limit *, const struct sockaddr *, int64_t now_ms);
void http_limit_leave(struct http_limit *, const struct sockaddr *);

/* Whether both are the same peer. */
bool http_limit_same(const struct sockaddr *, const struct sockaddr *);

#endif
