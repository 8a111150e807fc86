/* rest_limit: how much one peer may take before it has said who it is.
 *
 * A peer is an IPv4 address or an IPv6 /64.  Each has a bucket of connection
 * attempts that refills with time, and a count of connections.  The table is
 * bounded; when it is full of peers that are using it, new ones are refused.
 *
 * Not thread-safe: the owner's lock covers it. */
#ifndef REST_LIMIT_H
#define REST_LIMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum { REST_PEER_RATE = 100, REST_PEER_BURST = 400, REST_PEERS_MAX = 4096 };

struct rest_limit;

struct rest_limit *rest_limit_create(void);
void rest_limit_destroy(struct rest_limit *);

/* Takes an attempt from the peer's bucket; false: it has none left. */
bool rest_limit_try(struct rest_limit *, const struct sockaddr *, int64_t now_ms);
/* A connection of the peer began: how many it has now. */
unsigned rest_limit_enter(struct rest_limit *, const struct sockaddr *, int64_t now_ms);
void rest_limit_leave(struct rest_limit *, const struct sockaddr *);

/* Whether both are the same peer. */
bool rest_limit_same(const struct sockaddr *, const struct sockaddr *);

#endif
