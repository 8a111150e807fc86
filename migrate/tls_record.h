/* tls_record: the protection of TLS 1.3's records (RFC 8446 5.2), from and to where the
 * bytes lie.
 *
 * OpenSSL does the handshake (tls_handshake.c); one struct here has what follows from the traffic
 * secret of one direction.  No byte is copied.  AES-GCM is libipsec-mb's where that is
 * installed and the CPU has vector AES (three times as fast as OpenSSL 3.0), else OpenSSL's.
 *
 * Records carry no padding.
 *
 * Threads: one per struct.  Errors: positive errnos. */
#ifndef WEFT_MIGRATE_TLS_RECORD_H
#define WEFT_MIGRATE_TLS_RECORD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    TLS_RECORD = 16384,    /* bytes of plain text, at most */
    TLS_RECORD_HEAD = 5,   /* type, version, length */
    TLS_RECORD_EXTRA = 17, /* the type within, and the tag */
    TLS_SEALED_MAX = TLS_RECORD_HEAD + TLS_RECORD + TLS_RECORD_EXTRA,
    TLS_SECRET_MAX = 48,
};

enum tls_content { TLS_ALERT = 21, TLS_HANDSHAKE = 22, TLS_DATA = 23 };

struct tls_keys;

/* Of a traffic secret: 32 bytes with TLS_AES_128_GCM_SHA256, 48 with TLS_AES_256_GCM_SHA384.
 * EINVAL: of neither length. */
enum tls_code { TLS_FASTEST, TLS_OPENSSL /* for tests */ };
int tls_keys_create(const uint8_t *secret, size_t n, enum tls_code, struct tls_keys **);
/* Wipes them.  Accepts NULL. */
void tls_keys_destroy(struct tls_keys *);
/* To the next secret (RFC 8446 7.2): after a KeyUpdate was sealed, or was opened. */
int tls_keys_update(struct tls_keys *);
/* Sealed or opened with the key of now. */
uint64_t tls_keys_records(const struct tls_keys *);

/* The first 'len' bytes of 'from', 1 to TLS_RECORD, as one record.  Returns its length;
 * 'out' has room for TLS_SEALED_MAX. */
size_t tls_seal(struct tls_keys *, enum tls_content, const struct iovec *from, size_t len,
                uint8_t *out);

/* The length of the record that begins with these TLS_RECORD_HEAD bytes, head included; its
 * plain text is TLS_RECORD_HEAD + TLS_RECORD_EXTRA shorter, 1 to TLS_RECORD.  0: nobody may send
 * that. */
size_t tls_record_len(const uint8_t head[TLS_RECORD_HEAD]);

/* All of a record of 'len' bytes, as tls_record_len() said, into 'to', which has room, and
 * must not overlap it.  EBADMSG: forged, damaged, another's turn, or padded; what is in 'to'
 * then is undefined. */
int tls_open(struct tls_keys *, const uint8_t *record, size_t len, const struct iovec *to,
             uint8_t *content);

#endif
