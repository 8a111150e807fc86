/* tls_handshake: TLS 1.3 with mutual authentication on one socket.
 *
 * The handshake is OpenSSL's, what follows it tls_stream.h's.
 *
 * Threads: one at a time.  Ownership: the socket stays the caller's.  Errors: positive errnos. */
#ifndef WEFT_MIGRATE_TLS_HANDSHAKE_H
#define WEFT_MIGRATE_TLS_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct transport_tls;
struct tls_context;
struct tls;
struct tls_stream;

/* Reads the files.  'why' has room for 'n' bytes. */
int mig_tls_context_create(const struct transport_tls *, bool server, struct tls_context **,
                           char *why, size_t n);
void mig_tls_context_destroy(struct tls_context *);

/* 'deadline_ns': on CLOCK_MONOTONIC, of the handshake.  EPROTO: the peer is not who it
 * should be, or does not speak TLS 1.3. */
int mig_tls_handshake(struct tls_context *, int fd, uint64_t deadline_ns, struct tls **, char *why,
                      size_t n);
void mig_tls_destroy(struct tls *);

/* Exported keying material (RFC 8446 7.5). */
int mig_tls_export(struct tls *, const char *label, const uint8_t *context, size_t n, uint8_t *out,
                   size_t n_out);

/* Lives as long as the struct. */
struct tls_stream *mig_tls_stream(struct tls *);

#endif
