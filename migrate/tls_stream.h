/* tls_stream: what follows TLS 1.3's handshake on a socket.
 *
 * Scattered memory is encrypted from where it lies and decrypted into place; the socket is
 * read and written in large pieces.  Keys are changed in time (KeyUpdate), and when the peer
 * changes or asks for it.  There are application data, KeyUpdate and alerts; anything else is
 * refused, such as tickets and padded records.
 *
 * Threads: one may write while another reads; shutdown(2) of the socket ends all waiting.
 * Ownership: the socket stays the caller's.  Errors: positive errnos; EBADMSG: the peer, or
 * somebody in between, sent what it may not. */
#ifndef WEFT_MIGRATE_TLS_STREAM_H
#define WEFT_MIGRATE_TLS_STREAM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "tls_record.h"

struct tls_stream;

/* The traffic secrets of this end's writing and reading, of 'n' bytes each: tls_keys_create(). */
struct tls_secrets {
    size_t n;
    uint8_t write[TLS_SECRET_MAX], read[TLS_SECRET_MAX];
};

/* 'ahead': 'n' bytes that were read from the socket already.  EINVAL: no such secrets. */
int tls_stream_create(int fd, const struct tls_secrets *, const void *ahead, size_t n,
                      struct tls_stream **);
/* Accepts NULL. */
void tls_stream_destroy(struct tls_stream *);

/* All of it, n <= IO_IOV_MAX; the array is used up. */
int tls_stream_write(struct tls_stream *, struct iovec *, unsigned n);
/* At least one byte into an array of 'wanted' in all; *got 0: the peer closed.
 * 'deadline_ns': on CLOCK_MONOTONIC, or 0. */
int tls_stream_read(struct tls_stream *, const struct iovec *, size_t wanted, uint64_t deadline_ns,
                    size_t *got);
/* Another key after so many records; for tests.  Not while another thread writes. */
void tls_stream_limit_key(struct tls_stream *, uint64_t records);

#endif
