#include "tls_stream.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "digest.h"
#include "tls_record.h"
#include "transport_io.h"

/* Read from the socket at once, and written: many records a system call, few enough that they
 * stay in the core's own cache. */
#define READ_AHEAD (256u << 10)
#define WRITE_AHEAD (256u << 10)
/* AES-GCM may encrypt 2^24.5 full records with one key (RFC 8446 5.5). */
#define RECORDS_PER_KEY (1u << 23)
/* KeyUpdates that a peer may send with no data between: each costs more than it takes to make. */
#define UPDATES_IN_A_ROW 32u
/* Shorter ones than this are opened aside: alerts and KeyUpdate are among them. */
#define SHORT_RECORD 64u

struct tls_stream {
    int fd;
    atomic_bool update_asked; /* for a KeyUpdate of ours */
    /* The writer's. */
    struct tls_keys *tx;
    uint64_t records_per_key;
    size_t out_used;
    uint8_t out[WRITE_AHEAD];
    /* The reader's. */
    struct tls_keys *rx;
    unsigned updates; /* since the last data */
    size_t in_at, in_end;
    uint8_t in[READ_AHEAD];
    size_t plain_at, plain_end;
    uint8_t plain[TLS_RECORD]; /* of a record that was longer than what was wanted */
};

int
tls_stream_create(int fd, const struct tls_secrets *s, const void *ahead, size_t n,
                  struct tls_stream **out)
{
    struct tls_stream *t = n <= READ_AHEAD ? calloc(1, sizeof *t) : NULL;
    int error;

    *out = NULL;
    if (!t) {
        return ENOMEM;
    }
    t->fd = fd;
    t->records_per_key = RECORDS_PER_KEY;
    if (n) {
        memcpy(t->in, ahead, n);
        t->in_end = n;
    }
    error = tls_keys_create(s->write, s->n, TLS_FASTEST, &t->tx);
    error = error ? error : tls_keys_create(s->read, s->n, TLS_FASTEST, &t->rx);
    if (error) {
        tls_stream_destroy(t);
        return error;
    }
    *out = t;
    return 0;
}

void
tls_stream_destroy(struct tls_stream *t)
{
    if (t) {
        tls_keys_destroy(t->tx);
        tls_keys_destroy(t->rx);
        OPENSSL_cleanse(t->plain, sizeof t->plain);
        free(t);
    }
}

void
tls_stream_limit_key(struct tls_stream *t, uint64_t records)
{
    t->records_per_key = records;
}

/* --- writing -------------------------------------------------------------- */

static int
flush(struct tls_stream *t, bool more)
{
    const uint8_t *p = t->out;

    while (t->out_used) {
        ssize_t sent = send(t->fd, p, t->out_used, MSG_NOSIGNAL | (more ? MSG_MORE : 0));

        if (sent < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno == EAGAIN ? ETIMEDOUT : errno;
        }
        p += sent;
        t->out_used -= sent;
    }
    return 0;
}

/* As one record, behind those that are not yet sent. */
static int
seal(struct tls_stream *t, enum tls_content content, const struct iovec *iov, size_t len)
{
    int error = t->out_used + TLS_SEALED_MAX > sizeof t->out ? flush(t, true) : 0;

    if (!error) {
        t->out_used += tls_seal(t->tx, content, iov, len, t->out + t->out_used);
    }
    return error;
}

/* Another key from here on. */
static int
update_key(struct tls_stream *t)
{
    static uint8_t message[5] = {24, 0, 0, 1, 0}; /* update_not_requested */
    int error;

    /* First: one that is asked for from here on is another. */
    atomic_store(&t->update_asked, false);
    error = seal(t, TLS_HANDSHAKE, &(struct iovec){.iov_base = message, .iov_len = sizeof message},
                 sizeof message);
    return error ? error : tls_keys_update(t->tx);
}

/* What goes into the next record.  The first of some pages begins a record, so that the peer's
 * records are whole pages, which it opens where they belong. */
static size_t
record_of(const struct iovec *iov, unsigned n)
{
    size_t len = 0;

    for (unsigned i = 0; i < n && len < TLS_RECORD; i++) {
        if (iov[i].iov_len >= MIG_PAGE && len % MIG_PAGE) {
            break;
        }
        len += iov[i].iov_len;
    }
    return len < TLS_RECORD ? len : TLS_RECORD;
}

int
tls_stream_write(struct tls_stream *t, struct iovec *iov, unsigned n)
{
    int error = 0;

    for (iov = io_advance(iov, &n, 0); n && !error;) {
        size_t len = record_of(iov, n);

        if (tls_keys_records(t->tx) >= t->records_per_key || atomic_load(&t->update_asked)) {
            error = update_key(t);
        }
        error = error ? error : seal(t, TLS_DATA, iov, len);
        iov = io_advance(iov, &n, len);
    }
    return error ? error : flush(t, false);
}

/* --- reading -------------------------------------------------------------- */

/* A whole record at in + in_at, of *len bytes; 0: the peer closed. */
static int
next_record(struct tls_stream *t, uint64_t deadline_ns, size_t *len)
{
    for (;;) {
        size_t have = t->in_end - t->in_at;
        ssize_t got;
        int error;

        *len = have < TLS_RECORD_HEAD ? 0 : tls_record_len(t->in + t->in_at);
        if (have >= TLS_RECORD_HEAD && (!*len || *len <= have)) {
            return *len ? 0 : EBADMSG;
        }
        memmove(t->in, t->in + t->in_at, have);
        t->in_at = 0;
        t->in_end = have;
        error = deadline_ns ? io_wait(t->fd, POLLIN, deadline_ns) : 0;
        if (error) {
            return error;
        }
        got = recv(t->fd, t->in + have, sizeof t->in - have, 0);
        if (got <= 0 && (!got || errno != EINTR)) {
            *len = 0;
            return got ? errno : 0;
        }
        t->in_end += got > 0 ? got : 0;
    }
}

/* A record that is not data.  *closed: nothing follows. */
static int
obey(struct tls_stream *t, uint8_t content, const uint8_t *p, size_t len, bool *closed)
{
    if (content == TLS_ALERT && len == 2 && !p[1]) { /* close_notify */
        *closed = true;
        return 0;
    }
    if (content == TLS_HANDSHAKE && len == 5 && p[0] == 24 && !p[1] && !p[2] && p[3] == 1 &&
        p[4] <= 1 && ++t->updates <= UPDATES_IN_A_ROW) {
        if (p[4]) {
            atomic_store(&t->update_asked, true);
        }
        return tls_keys_update(t->rx);
    }
    return EBADMSG;
}

/* One record: to where it belongs, if all of it does, or into 'plain'. */
static int
open_record(struct tls_stream *t, size_t len, const struct iovec *iov, size_t wanted, size_t *got,
            bool *closed)
{
    const size_t n = len - TLS_RECORD_HEAD - TLS_RECORD_EXTRA;
    const struct iovec plain = {.iov_base = t->plain, .iov_len = sizeof t->plain};
    bool direct = n <= wanted && n >= SHORT_RECORD;
    uint8_t content;
    int error = tls_open(t->rx, t->in + t->in_at, len, direct ? iov : &plain, &content);

    t->in_at += len;
    if (error) {
        return error;
    }
    if (content != TLS_DATA) {
        return direct ? EBADMSG : obey(t, content, t->plain, n, closed);
    }
    t->updates = 0;
    if (direct) {
        *got = n;
    } else {
        t->plain_at = 0;
        t->plain_end = n;
    }
    return 0;
}

int
tls_stream_read(struct tls_stream *t, const struct iovec *iov, size_t wanted, uint64_t deadline_ns,
                size_t *got)
{
    bool closed = false;
    size_t len;
    int error = 0;

    *got = 0;
    while (!error && !*got && !closed && t->plain_at == t->plain_end) {
        error = next_record(t, deadline_ns, &len);
        if (!error) {
            closed = !len;
            error = len ? open_record(t, len, iov, wanted, got, &closed) : 0;
        }
    }
    if (!error && !*got && t->plain_at < t->plain_end) {
        size_t have = t->plain_end - t->plain_at;

        *got = have < iov->iov_len ? have : iov->iov_len;
        memcpy(iov->iov_base, t->plain + t->plain_at, *got);
        t->plain_at += *got;
    }
    return error;
}
