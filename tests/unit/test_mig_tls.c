/* The migration's own TLS records: against RFC 8448, against each other, against OpenSSL at
 * the other end of the socket, and against whoever sends what nobody may send. */
#include <errno.h>
#include <ftw.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "pki_priv.h"
#include "tls_handshake.h"
#include "tls_stream.h"
#include "transport.h"

enum { BYTES = 300000 };

static uint8_t sent[BYTES], got[BYTES + TLS_RECORD];

static uint32_t
rnd(void)
{
    static __thread uint32_t seed = 2463534242;

    seed ^= seed << 13;
    seed ^= seed >> 17;
    return seed ^= seed << 5;
}

/* 'memory' in pieces of at most 'max' bytes, and some of none. */
static unsigned
scatter(uint8_t *memory, size_t len, size_t max, struct iovec *iov, unsigned room)
{
    unsigned n = 0;

    while (len && n < room - 1) {
        size_t take = rnd() % (max + 1);

        take = take < len ? take : len;
        iov[n++] = (struct iovec){.iov_base = memory, .iov_len = take};
        memory += take;
        len -= take;
    }
    iov[n] = (struct iovec){.iov_base = memory, .iov_len = len};
    return n + 1;
}

/* --- records ------------------------------------------------------------------- */

/* RFC 8448 3: what the client sends first. */
static void
test_rfc8448(enum tls_code code)
{
    static const uint8_t secret[32] = {
        0x9e, 0x40, 0x64, 0x6c, 0xe7, 0x9a, 0x7f, 0x9d, 0xc0, 0x5a, 0xf8,
        0x88, 0x9b, 0xce, 0x65, 0x52, 0x87, 0x5a, 0xfa, 0x0b, 0x06, 0xdf,
        0x00, 0x87, 0xf7, 0x92, 0xeb, 0xb7, 0xc1, 0x75, 0x04, 0xa5,
    };
    static const uint8_t expected[] = {
        0x17, 0x03, 0x03, 0x00, 0x43, 0xa2, 0x3f, 0x70, 0x54, 0xb6, 0x2c, 0x94, 0xd0, 0xaf, 0xfa,
        0xfe, 0x82, 0x28, 0xba, 0x55, 0xcb, 0xef, 0xac, 0xea, 0x42, 0xf9, 0x14, 0xaa, 0x66, 0xbc,
        0xab, 0x3f, 0x2b, 0x98, 0x19, 0xa8, 0xa5, 0xb4, 0x6b, 0x39, 0x5b, 0xd5, 0x4a, 0x9a, 0x20,
        0x44, 0x1e, 0x2b, 0x62, 0x97, 0x4e, 0x1f, 0x5a, 0x62, 0x92, 0xa2, 0x97, 0x70, 0x14, 0xbd,
        0x1e, 0x3d, 0xea, 0xe6, 0x3a, 0xee, 0xbb, 0x21, 0x69, 0x49, 0x15, 0xe4,
    };
    uint8_t text[50], record[TLS_SEALED_MAX];
    struct tls_keys *k = NULL;

    for (unsigned i = 0; i < sizeof text; i++) {
        text[i] = i;
    }
    CHECK(!tls_keys_create(secret, sizeof secret, code, &k));
    CHECK(k && tls_seal(k, TLS_DATA, &(struct iovec){text, sizeof text}, sizeof text, record) ==
                   sizeof expected);
    CHECK(!memcmp(record, expected, sizeof expected));
    tls_keys_destroy(k);
}

/* What one code seals the other opens, through changes of the key. */
static void
test_both(size_t secret_len, enum tls_code from, enum tls_code to)
{
    uint8_t secret[TLS_SECRET_MAX] = {1, 2, 3}, record[TLS_SEALED_MAX], content;
    struct tls_keys *seal = NULL, *open = NULL;
    struct iovec iov[64];

    CHECK(!tls_keys_create(secret, secret_len, from, &seal));
    CHECK(!tls_keys_create(secret, secret_len, to, &open));
    for (unsigned i = 0; i < 300 && seal && open; i++) {
        size_t len = i == 0 ? TLS_RECORD : 1 + rnd() % (i % 2 ? 100 : TLS_RECORD);
        size_t n;

        scatter(sent, len, 5000, iov, 64);
        n = tls_seal(seal, TLS_DATA, iov, len, record);
        CHECK(n == len + TLS_RECORD_HEAD + TLS_RECORD_EXTRA && tls_record_len(record) == n);
        memset(got, 0, len);
        scatter(got, len, 5000, iov, 64);
        CHECK(!tls_open(open, record, n, iov, &content) && content == TLS_DATA);
        CHECK(!memcmp(sent, got, len));
        if (i % 100 == 99) {
            CHECK(!tls_keys_update(seal) && !tls_keys_update(open));
            CHECK(!tls_keys_records(seal) && !tls_keys_records(open));
        }
    }
    tls_keys_destroy(seal);
    tls_keys_destroy(open);
}

static void
test_damaged(enum tls_code code)
{
    uint8_t secret[32] = {7}, record[64], copy[64], content;
    struct iovec from = {sent, 20}, to = {got, sizeof got};
    struct tls_keys *k[2] = {NULL, NULL};

    for (unsigned bit = 0; bit < 8 * 42; bit++) {
        CHECK(!tls_keys_create(secret, sizeof secret, code, &k[0]));
        CHECK(!tls_keys_create(secret, sizeof secret, code, &k[1]));
        CHECK(tls_seal(k[0], TLS_DATA, &from, 20, record) == 42);
        memcpy(copy, record, 42);
        copy[bit / 8] ^= 1 << bit % 8;
        CHECK(tls_record_len(copy) != 42 || tls_open(k[1], copy, 42, &to, &content) == EBADMSG);
        tls_keys_destroy(k[0]);
        tls_keys_destroy(k[1]);
    }
    CHECK(!tls_keys_create(secret, sizeof secret, code, &k[0]));
    CHECK(!tls_keys_create(secret, sizeof secret, code, &k[1]));
    tls_seal(k[0], TLS_DATA, &from, 20, record);
    CHECK(!tls_open(k[1], record, 42, &to, &content));
    CHECK(tls_open(k[1], record, 42, &to, &content) == EBADMSG); /* again */
    tls_seal(k[0], 0, &from, 20, record);                        /* as padding ends */
    tls_seal(k[0], 0, &from, 20, record);
    CHECK(tls_open(k[1], record, 42, &to, &content) == EBADMSG);
    tls_keys_destroy(k[0]);
    tls_keys_destroy(k[1]);
    CHECK(tls_keys_create(secret, 31, code, &k[0]) == EINVAL && !k[0]);
}

static void
test_lengths(void)
{
    static const struct {
        uint8_t head[5];
        size_t len;
    } cases[] = {
        {{23, 3, 3, 0, 17}, 0},      {{23, 3, 3, 0, 18}, 23},   {{23, 3, 3, 0x40, 0x11}, 16406},
        {{23, 3, 3, 0x40, 0x12}, 0}, {{23, 3, 3, 255, 255}, 0}, {{23, 3, 1, 0, 18}, 0},
        {{22, 3, 3, 0, 18}, 0},      {{21, 3, 3, 0, 18}, 0},    {{20, 3, 3, 0, 18}, 0},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(tls_record_len(cases[i].head) == cases[i].len);
    }
}

/* --- a stream's other end is ours to write ---------------------------------------- */

/* What a reader says to records of these contents and bytes, and then the end. */
static int
read_after(uint8_t content, const char *bytes, size_t len, size_t cut, size_t *n)
{
    struct tls_secrets s = {.n = 32, .read = {9}};
    struct tls_stream *t = NULL;
    struct tls_keys *k = NULL;
    uint8_t record[TLS_SEALED_MAX];
    int error, fd[2];

    *n = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) || tls_keys_create(s.read, s.n, TLS_FASTEST, &k) ||
        tls_stream_create(fd[0], &s, NULL, 0, &t)) {
        tls_keys_destroy(k);
        return ENOMEM;
    }
    len = tls_seal(k, content, &(struct iovec){(void *)bytes, len}, len, record);
    error = write(fd[1], record, len - cut) == (ssize_t)(len - cut) ? 0 : EIO;
    close(fd[1]);
    error = error ? error : tls_stream_read(t, &(struct iovec){got, sizeof got}, sizeof got, 0, n);
    tls_stream_destroy(t);
    tls_keys_destroy(k);
    close(fd[0]);
    return error;
}

static void
test_contents(void)
{
    static const struct {
        uint8_t content;
        const char *bytes;
        size_t len, cut;
        int error;
        size_t got;
    } cases[] = {
        {TLS_DATA, "hello", 5, 0, 0, 5},
        {TLS_DATA, "hello", 5, 1, 0, 0},            /* cut */
        {TLS_ALERT, "\1\0", 2, 0, 0, 0},            /* close_notify */
        {TLS_ALERT, "\2\24", 2, 0, EBADMSG, 0},     /* bad_record_mac */
        {TLS_ALERT, "\1", 1, 0, EBADMSG, 0},        /* half of one */
        {TLS_HANDSHAKE, "\30\0\0\1\0", 5, 0, 0, 0}, /* KeyUpdate, then the end */
        {TLS_HANDSHAKE, "\30\0\0\1\2", 5, 0, EBADMSG, 0},
        {TLS_HANDSHAKE, "\30\0\0\1\0\30", 6, 0, EBADMSG, 0},
        {TLS_HANDSHAKE, "\4\0\0\1\0", 5, 0, EBADMSG, 0}, /* NewSessionTicket */
        {24, "hello", 5, 0, EBADMSG, 0},
    };
    static char page[MIG_PAGE];
    size_t n;

    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(read_after(cases[i].content, cases[i].bytes, cases[i].len, cases[i].cut, &n) ==
              cases[i].error);
        CHECK(n == cases[i].got);
    }
    CHECK(read_after(TLS_HANDSHAKE, page, sizeof page, 0, &n) == EBADMSG);
    CHECK(!read_after(TLS_DATA, page, sizeof page, 0, &n) && n == sizeof page);
}

/* So many KeyUpdates, twice, with a byte of data between if there is to be. */
static int
read_after_updates(unsigned n, bool data)
{
    static const uint8_t update[] = {24, 0, 0, 1, 0};
    const struct iovec from = {(void *)update, sizeof update}, to = {got, 1};
    struct tls_secrets s = {.n = 32, .read = {9}};
    struct tls_stream *t = NULL;
    struct tls_keys *k = NULL;
    uint8_t record[TLS_SEALED_MAX];
    size_t len, had;
    int error, fd[2];

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd)) {
        return errno;
    }
    error = tls_keys_create(s.read, s.n, TLS_FASTEST, &k);
    error = error ? error : tls_stream_create(fd[0], &s, NULL, 0, &t);
    for (unsigned i = 0; !error && i < 2 * n; i++) {
        if (i == n && data) {
            len = tls_seal(k, TLS_DATA, &from, 1, record);
            error = write(fd[1], record, len) == (ssize_t)len ? 0 : EIO;
        }
        len = tls_seal(k, TLS_HANDSHAKE, &from, sizeof update, record);
        error = error ? error : tls_keys_update(k);
        error = error ? error : write(fd[1], record, len) == (ssize_t)len ? 0 : EIO;
    }
    close(fd[1]);
    if (!error && data) {
        error = tls_stream_read(t, &to, 1, 0, &had);
        error = error ? error : had == 1 ? 0 : EIO;
    }
    error = error ? error : tls_stream_read(t, &to, 1, 0, &had);
    tls_stream_destroy(t);
    tls_keys_destroy(k);
    close(fd[0]);
    return error;
}

static void
test_updates(void)
{
    CHECK(!read_after_updates(16, false));
    CHECK(!read_after_updates(32, true));
    CHECK(read_after_updates(33, true) == EBADMSG);
    CHECK(read_after_updates(17, false) == EBADMSG);
}

/* --- OpenSSL at the other end ----------------------------------------------------- */

static char dir[] = "/tmp/test_mig_tls.XXXXXX";

/* Sends BYTES and expects them back. */
struct peer {
    const char *ciphers;
    bool server, update, pad, close;
    int fd;
    bool ok;
    uint8_t exported[32];
    uint8_t back[BYTES];
};

static SSL *
peer_session(struct peer *p, SSL_CTX *ctx)
{
    const char *name = p->server ? "h1" : "h2";
    char key[64], crt[64], ca[64];
    SSL *ssl;

    snprintf(key, sizeof key, "%s/%s.key", dir, name);
    snprintf(crt, sizeof crt, "%s/%s.crt", dir, name);
    snprintf(ca, sizeof ca, "%s/ca.crt", dir);
    if (!ctx || !SSL_CTX_set_ciphersuites(ctx, p->ciphers) ||
        SSL_CTX_use_certificate_file(ctx, crt, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_load_verify_file(ctx, ca) != 1) {
        return NULL;
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_num_tickets(ctx, 0);
    if (p->pad) {
        SSL_CTX_set_block_padding(ctx, 512);
    }
    ssl = SSL_new(ctx);
    if (ssl) {
        SSL_set_fd(ssl, p->fd);
    }
    return ssl;
}

static bool
peer_send(const struct peer *p, SSL *ssl)
{
    for (size_t at = 0, n; at < BYTES; at += n) {
        n = 1 + rnd() % 30000;
        n = n < BYTES - at ? n : BYTES - at;
        if (p->update && at > BYTES / 2 && SSL_get_key_update_type(ssl) == SSL_KEY_UPDATE_NONE &&
            SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED) != 1) {
            return false;
        }
        if (SSL_write(ssl, sent + at, n) != (int)n) {
            return false;
        }
    }
    return true;
}

static void *
peer_main(void *aux)
{
    struct peer *p = aux;
    SSL_CTX *ctx = SSL_CTX_new(p->server ? TLS_server_method() : TLS_client_method());
    SSL *ssl = peer_session(p, ctx);
    size_t at = 0;
    int n = 1;

    p->ok = ssl && (p->server ? SSL_accept(ssl) : SSL_connect(ssl)) == 1 &&
            SSL_export_keying_material(ssl, p->exported, 32, "label", 5, sent, 9, 1) == 1 &&
            peer_send(p, ssl);
    while (p->ok && at < BYTES && n > 0) {
        n = SSL_read(ssl, p->back + at, BYTES - at);
        at += n > 0 ? n : 0;
    }
    p->ok = p->ok && at == BYTES;
    if (p->close && ssl) {
        SSL_shutdown(ssl);
    }
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    shutdown(p->fd, SHUT_RDWR);
    return NULL;
}

static int
read_all(struct tls_stream *t)
{
    size_t at = 0, n;
    int error = 0;

    while (at < BYTES && !error) {
        size_t wanted = BYTES - at < 200000 ? BYTES - at : 200000;
        struct iovec iov[100];

        scatter(got + at, wanted, 9000, iov, 100);
        /* The first piece may be of none, a caller's never is. */
        iov[0] = iov[0].iov_len ? iov[0] : (struct iovec){got + at, 1};
        if (iov[0].iov_len == 1) {
            scatter(got + at + 1, wanted - 1, 9000, iov + 1, 99);
        }
        error = tls_stream_read(t, iov, wanted, 0, &n);
        error = error || n ? error : ECONNRESET;
        at += n;
    }
    return error;
}

static int
echo(struct peer *p, struct tls *t)
{
    struct tls_stream *s = mig_tls_stream(t);
    uint8_t exported[32];
    struct iovec iov[100];
    size_t n = 1;
    int error = mig_tls_export(t, "label", sent, 9, exported, sizeof exported);

    error = error ? error : read_all(s);
    if (error) {
        return error;
    }
    CHECK(!memcmp(got, sent, BYTES));
    tls_stream_limit_key(s, 4);
    error = tls_stream_write(s, iov, scatter(got, BYTES, 9000, iov, 100));
    if (!error && p->close) {
        error = tls_stream_read(s, &(struct iovec){got, 1}, 1, 0, &n);
        CHECK(!n);
    }
    CHECK(error || !memcmp(exported, p->exported, sizeof exported));
    return error;
}

static void
test_openssl(struct peer p, int expected)
{
    const char *us = p.server ? "h2" : "h1", *them = p.server ? "h1" : "h2";
    char key[64], crt[64], ca[64], why[256] = "";
    struct transport_tls files = {
        .private_key = key, .certificate = crt, .ca_cert = ca, .peer_name = them};
    struct tls_context *ctx = NULL;
    struct tls *t = NULL;
    pthread_t thread;
    int fd[2];

    snprintf(key, sizeof key, "%s/%s.key", dir, us);
    snprintf(crt, sizeof crt, "%s/%s.crt", dir, us);
    snprintf(ca, sizeof ca, "%s/ca.crt", dir);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) ||
        mig_tls_context_create(&files, !p.server, &ctx, why, sizeof why)) {
        CHECK(!"set up");
        return;
    }
    p.fd = fd[1];
    CHECK(!pthread_create(&thread, NULL, peer_main, &p));
    CHECK(!mig_tls_handshake(ctx, fd[0], 0, &t, why, sizeof why));
    CHECK(t && echo(&p, t) == expected);
    shutdown(fd[0], SHUT_RDWR);
    pthread_join(thread, NULL);
    CHECK(expected || (p.ok && !memcmp(p.back, sent, BYTES)));
    mig_tls_destroy(t);
    mig_tls_context_destroy(ctx);
    close(fd[0]);
    close(fd[1]);
}

static bool
make_certificates(void)
{
    static const char *const names[] = {"h1", "h2"};
    char why[700];
    bool ok = mkdtemp(dir) && !pki_init(dir, "ours", PKI_EC_P256, PKI_CA_DAYS, why, sizeof why);

    for (unsigned i = 0; i < 2; i++) {
        struct pki_request q = {.name = names[i], .key = PKI_EC_P256, .days = PKI_DAYS};

        ok = ok && !pki_issue(dir, &q, why, sizeof why);
    }
    return ok;
}

static int
remove_it(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

int
main(void)
{
    static const char *const aes[] = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"};
    static struct peer p;

    signal(SIGPIPE, SIG_IGN); /* the peer writes through OpenSSL's own BIO, to who may be gone */
    for (unsigned i = 0; i < BYTES; i++) {
        sent[i] = rnd();
    }
    CASE("mig_tls/RFC 8448");
    test_rfc8448(TLS_FASTEST);
    test_rfc8448(TLS_OPENSSL);
    CASE("mig_tls/both codes, both suites");
    for (unsigned i = 0; i < 4; i++) {
        test_both(32, i & 1, i >> 1);
        test_both(48, i & 1, i >> 1);
    }
    CASE("mig_tls/damaged, repeated, padded");
    test_damaged(TLS_FASTEST);
    test_damaged(TLS_OPENSSL);
    CASE("mig_tls/lengths");
    test_lengths();
    CASE("mig_tls/alerts, KeyUpdate, others");
    test_contents();
    CASE("mig_tls/KeyUpdates without end");
    test_updates();
    CASE("mig_tls/certificates");
    CHECK(make_certificates());
    CASE("mig_tls/OpenSSL at the other end, both suites, keys change");
    for (unsigned i = 0; i < 8; i++) {
        p = (struct peer){
            .ciphers = aes[i & 1], .server = i >> 1 & 1, .update = i >> 2, .close = true};
        test_openssl(p, 0);
    }
    CASE("mig_tls/OpenSSL at the other end, padding");
    p = (struct peer){.ciphers = aes[0], .pad = true};
    test_openssl(p, EBADMSG);
    nftw(dir, remove_it, 8, FTW_DEPTH | FTW_PHYS);
    return check_done();
}
