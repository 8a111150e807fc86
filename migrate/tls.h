/* tls: TLS 1.3 with mutual authentication on one socket (OpenSSL).
 *
 * Bytes are encrypted out of and decrypted into the caller's memory, through OpenSSL's
 * own record buffer; the socket is read and written in large pieces.
 *
 * Threads: one may write while another reads; a lock inside keeps them apart, and no
 * one holds it while it waits for the socket.  shutdown(2) of the socket ends all
 * waiting.  Ownership: the socket stays the caller's.  Errors: positive errnos. */
#ifndef WEFT_MIGRATE_TLS_H
#define WEFT_MIGRATE_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct transport_tls;
struct tls_context;
struct tls;

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

/* All of 'p' as one record if n <= TLS_RECORD.  'more': something follows at once. */
#define TLS_RECORD 16384u
int mig_tls_write(struct tls *, const void *p, size_t n, bool more);
/* At least one byte; *got 0: the peer closed.  'deadline_ns': 0 for none. */
int mig_tls_read(struct tls *, void *p, size_t n, uint64_t deadline_ns, size_t *got);

#endif
