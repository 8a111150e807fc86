/* host_peer: who may be at the other end of a TLS connection to a host.
 *
 * Open vSwitch's stream-ssl checks a peer's certificate against the CA and
 * nothing else: any host of the pool could pose as any other.  This stands in
 * for OpenSSL's SSL_new() and SSL_connect() at link time and has OpenSSL check,
 * within the handshake, that the certificate names the host that the address
 * belongs to, that it is not on the revocation list, and that the protocol is
 * new enough.
 *
 * Threads: expectations are set by the main loop, which is also the only thread
 * that opens streams to hosts. */
#ifndef CTL_HOST_PEER_H
#define CTL_HOST_PEER_H

#include <stdbool.h>
#include <sys/socket.h>

#include "openvswitch/hmap.h"

/* One expectation; zero-initialised means none. */
struct host_peer {
    struct hmap_node node;
    struct sockaddr_storage address;
    char *name; /* NULL: not in the map */
};

/* From now on the certificate of a server at 'target' ("ssl:IP:PORT"; nothing is
 * expected of others) must name 'name', as DNS name or, having none, as CN. */
void host_peer_expect(struct host_peer *, const char *target, const char *name);
void host_peer_forget(struct host_peer *);

/* Certificates on this list (PEM) are refused, and so are those of a CA without
 * a valid list.  The file is read again when it has changed. */
void host_peer_set_crl(const char *file);
/* TLS 1.2 is fine, too; otherwise 1.3 only. */
void host_peer_allow_tls12(void);

#endif
