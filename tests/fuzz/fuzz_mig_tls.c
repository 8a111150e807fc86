/* Fuzzes the reader of TLS records on a socket that has them all, in this thread.
 *
 * The input is a list of pieces: what (1 byte), length (2), bytes.  What: 0 data, 1 a record of
 * the content that the first byte says, 2 data in a record that is damaged where the first two
 * bytes say, 3 the bytes as they are.  The first byte of all says how much is read at a time.
 * What is read must be what was sent as data, up to the first thing that nobody may send. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls_stream.h"

enum { ROOM = 1 << 17, DATA, CONTENT, DAMAGED };

static uint8_t wire[ROOM], sent[ROOM], got[ROOM + TLS_RECORD];

struct script {
    struct tls_keys *keys;
    size_t n_wire, n_sent;
    bool over; /* what follows is not to be read */
};

static bool
is_key_update(uint8_t content, const uint8_t *p, size_t len)
{
    return content == TLS_HANDSHAKE && len == 5 && !memcmp(p, "\30\0\0\1", 4) && p[4] <= 1;
}

static void
add(struct script *s, uint8_t what, uint8_t *p, size_t len)
{
    uint8_t content = what == CONTENT - DATA ? *p : TLS_DATA;
    size_t skip = what == CONTENT - DATA ? 1 : what == DAMAGED - DATA ? 2 : 0, n;

    if (what == 3 || len <= skip) {
        memcpy(wire + s->n_wire, p, len);
        s->n_wire += len;
        s->over |= len > 0;
        return;
    }
    n = tls_seal(s->keys, content, &(struct iovec){p + skip, len - skip}, len - skip,
                 wire + s->n_wire);
    if (skip == 2) {
        wire[s->n_wire + (p[0] | p[1] << 8) % n] ^= 1;
    }
    s->n_wire += n;
    if (is_key_update(content, p + skip, len - skip) && skip < 2) {
        tls_keys_update(s->keys);
    } else if (skip == 2 || content != TLS_DATA) {
        s->over = true;
    } else if (!s->over) {
        memcpy(sent + s->n_sent, p + skip, len - skip);
        s->n_sent += len - skip;
    }
}

static void
write_script(struct script *s, const uint8_t *in, size_t left)
{
    static uint8_t piece[TLS_RECORD];

    while (left >= 3) {
        uint8_t what = in[0] % 4;
        size_t len = (in[1] | in[2] << 8) % (sizeof piece + 1);

        in += 3;
        left -= 3;
        len = len < left ? len : left;
        if (s->n_wire + len + TLS_SEALED_MAX - TLS_RECORD > sizeof wire) {
            return;
        }
        memcpy(piece, in, len);
        add(s, what, piece, len);
        in += len;
        left -= len;
    }
}

static void
read_back(int fd, const struct tls_secrets *secrets, const struct script *s, size_t at_once)
{
    struct tls_stream *t = NULL;
    size_t total = 0, n = 1;
    int error = tls_stream_create(fd, secrets, NULL, 0, &t);

    while (!error && n) {
        struct iovec iov[2] = {{got + total, at_once}, {got + total + at_once, 2 * at_once}};

        error = tls_stream_read(t, iov, 3 * at_once, 0, &n);
        total += error ? 0 : n;
        if (total > s->n_sent || (!error && memcmp(got + total - n, sent + total - n, n))) {
            abort();
        }
    }
    if (!s->over && (error || total != s->n_sent)) {
        abort();
    }
    tls_stream_destroy(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *, size_t);

int
LLVMFuzzerTestOneInput(const uint8_t *in, size_t len)
{
    const struct tls_secrets secrets = {.n = 32, .read = {1}, .write = {2}};
    struct script s = {.n_wire = 0};
    int fd[2], room = 4 * ROOM;

    if (len < 1 || socketpair(AF_UNIX, SOCK_STREAM, 0, fd)) {
        return 0;
    }
    setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (tls_keys_create(secrets.read, secrets.n, TLS_FASTEST, &s.keys)) {
        abort();
    }
    write_script(&s, in + 1, len - 1);
    if (send(fd[1], wire, s.n_wire, MSG_DONTWAIT) == (ssize_t)s.n_wire) {
        shutdown(fd[1], SHUT_RDWR);
        read_back(fd[0], &secrets, &s, 1 + in[0] * 13);
    }
    tls_keys_destroy(s.keys);
    close(fd[0]);
    close(fd[1]);
    return 0;
}
