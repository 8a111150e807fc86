/* host_peer: who may be at the other end of a TLS connection to or from a host.
 *
 * Open vSwitch's stream-ssl checks a peer's certificate against the CA and
 * nothing else: any host of the pool could pose as any other.  This stands in
 * for OpenSSL's SSL_new() and SSL_connect() at link time and has OpenSSL check,
 * within the handshake, that the certificate names the host that the address
 * belongs to (of hosts that we connect to), that it is not on the revocation
 * list, and that the protocol is new enough.
 *
 * Threads: expectations are set by the main loop, which is also the only thread
 * that opens streams to hosts. */
#ifndef CTL_HOST_PEER_H
#define CTL_HOST_PEER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "openvswitch/hmap.h"

struct ssl_st;

/* One expectation; zero-initialised means none. */
struct host_peer {
    struct hmap_node node;
    struct sockaddr_storage address;
    char *name;    /* NULL: not in the map */
    char why[160]; /* the latest handshake failed; empty: it did not */
};

/* From now on the certificate of a server at 'target' ("ssl:IP:PORT"; nothing is
 * expected of others) must name 'name', as DNS name or, having none, as CN. */
void host_peer_expect(struct host_peer *, const char *target, const char *name);
void host_peer_forget(struct host_peer *);
/* An error of the connection in words: of EPROTO what was wrong in the handshake. */
const char *host_peer_error(const struct host_peer *, int error);

/* Certificates on the lists of these files (PEM) are refused, and so are those of a CA
 * without a valid list.  A file is read again when it has changed.  False: too many files. */
#define HOST_PEER_CRLS 2
bool host_peer_add_crl(const char *file);
/* Looks at them now; true if there is a new one since the last call. */
bool host_peer_refresh(void);
/* TLS 1.2 is fine, too; otherwise 1.3 only. */
void host_peer_allow_tls12(void);

/* The connection of the stream that was made last, as long as there is that stream. */
struct ssl_st *host_peer_newest(void);
/* Whether its certificate, good in the handshake, would be good now: by the authorities and
 * the list that there are. */
bool host_peer_still_good(struct ssl_st *);
/* When it or one of those that vouch for it expires, by time_wall_msec(). */
long long int host_peer_good_until(struct ssl_st *);
/* The connection ends, with ETIMEDOUT, when the other end's machine has been gone, or has taken
 * nothing of what is there for it, for about twice the time. */
void host_peer_watch(struct ssl_st *, int silent_ms);
/* Bytes, as they were on the wire, that the other end's machine has taken so far. */
uint64_t host_peer_taken(struct ssl_st *);

#endif
