/* tls: mutual TLS 1.3 over a non-blocking TCP socket, both sides: of exporters and of the
 * collector (RFC 7011, 10.4 and 11).
 *
 * Both ends show a certificate that the CA of the pool has signed; a client looks
 * at the server's name or address as well if it is given one.
 *
 * A struct tls is one connection; it does not own its socket.  Handshakes are
 * part of the first read or write.  Writes may raise SIGPIPE, which a program
 * ignores.  Threads: a configuration by any, a connection by one at a time. */
#ifndef TLS_H
#define TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct tls_config;
struct tls;

/* PEM files; 'crl' may be NULL.  0, or an errno with a sentence in 'why'. */
int tls_config_create(const char *private_key, const char *certificate, const char *ca_cert,
                      const char *crl, struct tls_config **, char *why, size_t why_size);
void tls_config_destroy(struct tls_config *);

struct tls *tls_accept(struct tls_config *, int fd);
/* 'name': a DNS name or an address that must be in the server's certificate; NULL: any
 * that the CA signed. */
struct tls *tls_connect(struct tls_config *, int fd, const char *name);
/* Says good-bye if that can be said at once; NULL is fine. */
void tls_close(struct tls *);

/* Bytes, 0 at the end of the stream (reads), or a negative errno: -EAGAIN (tls_wants_write()
 * says for what to wait), -EPROTO and others: the connection is over.  After a write's -EAGAIN the
 * next write begins with the same bytes; it may be shorter or longer. */
ssize_t tls_read(struct tls *, void *, size_t);
ssize_t tls_write(struct tls *, const void *, size_t);
bool tls_wants_write(const struct tls *);
/* The handshake is done. */
bool tls_established(const struct tls *);
/* Why the connection is over, for a log line. */
const char *tls_error(const struct tls *);

#endif
