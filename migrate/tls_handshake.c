/* The handshake is OpenSSL's, through a BIO of ours that reads ahead and never blocks; the records
 * behind it are ours (tls_record.h), from the guest's memory and into it.
 *
 * OpenSSL hands out the traffic secrets for a log of keys.  Behind the handshake there are
 * application data, KeyUpdate and alerts: the server sends no tickets, nobody asks for a
 * certificate later. */
#include "tls_handshake.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tls_stream.h"
#include "transport.h"
#include "transport_io.h"

struct tls_context {
    SSL_CTX *ssl;
    bool server;
};

struct tls {
    SSL *ssl;
    int fd;
    struct tls_stream *stream; /* behind the handshake */
    /* Of the handshake: what was read ahead, and the secrets of the client's and the server's
     * traffic. */
    size_t in_at, in_end;
    uint8_t in[32768];
    size_t secret_len[2];
    uint8_t secret[2][TLS_SECRET_MAX];
};

/* --- the BIO -------------------------------------------------------------- */

static int
bio_write(BIO *bio, const char *p, int n)
{
    const struct tls *t = BIO_get_data(bio);
    ssize_t sent = send(t->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);

    BIO_clear_retry_flags(bio);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
        BIO_set_retry_write(bio);
    }
    return sent;
}

static int
bio_read(BIO *bio, char *p, int n)
{
    struct tls *t = BIO_get_data(bio);
    size_t have = t->in_end - t->in_at;

    BIO_clear_retry_flags(bio);
    if (!have) {
        ssize_t got = recv(t->fd, t->in, sizeof t->in, MSG_DONTWAIT);

        if (got <= 0) {
            if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
                BIO_set_retry_read(bio);
            }
            return got;
        }
        t->in_at = 0;
        t->in_end = have = got;
    }
    n = (size_t)n < have ? n : (int)have;
    memcpy(p, t->in + t->in_at, n);
    t->in_at += n;
    return n;
}

static long
bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;

static void
make_bio_method(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "migration socket");
    if (bio_method) {
        BIO_meth_set_write(bio_method, bio_write);
        BIO_meth_set_read(bio_method, bio_read);
        BIO_meth_set_ctrl(bio_method, bio_ctrl);
    }
}

/* --- secrets -------------------------------------------------------------- */

/* The bytes of 'hex', to its end; 0: it is none. */
static size_t
bytes_of(const char *hex, uint8_t *out, size_t room)
{
    long n = 0;
    uint8_t *bytes = OPENSSL_hexstr2buf(hex, &n);

    if (!bytes || (size_t)n > room) {
        n = 0;
    } else {
        memcpy(out, bytes, n);
    }
    OPENSSL_clear_free(bytes, n);
    return n;
}

/* A line is a label, the client's random number and the secret (draft-ietf-tls-keylogfile). */
static void
take_secret(const SSL *ssl, const char *line)
{
    static const char *const labels[2] = {"CLIENT_TRAFFIC_SECRET_0 ", "SERVER_TRAFFIC_SECRET_0 "};
    struct tls *t = BIO_get_data(SSL_get_rbio(ssl));
    const char *secret = strrchr(line, ' ');

    for (unsigned i = 0; i < 2; i++) {
        if (secret && !strncmp(line, labels[i], strlen(labels[i]))) {
            t->secret_len[i] = bytes_of(secret + 1, t->secret[i], TLS_SECRET_MAX);
        }
    }
}

/* --- context -------------------------------------------------------------- */

static void
explain(char *why, size_t n, const char *what)
{
    unsigned long e = ERR_peek_last_error();
    const char *reason = e ? ERR_reason_error_string(e) : NULL;

    snprintf(why, n, "%s: %s", what, reason ? reason : "failed");
    ERR_clear_error();
}

static const char *
configure(SSL_CTX *ctx, const struct transport_tls *files)
{
    X509_VERIFY_PARAM *verify = SSL_CTX_get0_param(ctx);

    if (!SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384")) {
        return "TLS 1.3";
    }
    if (SSL_CTX_use_certificate_chain_file(ctx, files->certificate) != 1) {
        return files->certificate;
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, files->private_key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(ctx) != 1) {
        return files->private_key;
    }
    if (SSL_CTX_load_verify_file(ctx, files->ca_cert) != 1) {
        return files->ca_cert;
    }
    if (files->crl) {
        X509_STORE *store = SSL_CTX_get_cert_store(ctx);

        if (X509_STORE_load_file(store, files->crl) != 1 ||
            !X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK)) {
            return files->crl;
        }
    }
    X509_VERIFY_PARAM_set_hostflags(verify, X509_CHECK_FLAG_NO_WILDCARDS);
    if (!files->peer_name || !*files->peer_name ||
        (!X509_VERIFY_PARAM_set1_ip_asc(verify, files->peer_name) &&
         !X509_VERIFY_PARAM_set1_host(verify, files->peer_name, 0))) {
        return "the peer's name";
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_keylog_callback(ctx, take_secret);
    return NULL;
}

int
mig_tls_context_create(const struct transport_tls *files, bool server, struct tls_context **out,
                       char *why, size_t n)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct tls_context *c = calloc(1, sizeof *c);
    const char *fault;

    *out = NULL;
    pthread_once(&once, make_bio_method);
    if (!c || !bio_method) {
        free(c);
        return ENOMEM;
    }
    c->server = server;
    c->ssl = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    fault = c->ssl ? configure(c->ssl, files) : "TLS";
    if (fault) {
        explain(why, n, fault);
        mig_tls_context_destroy(c);
        return EINVAL;
    }
    *out = c;
    return 0;
}

void
mig_tls_context_destroy(struct tls_context *c)
{
    if (c) {
        SSL_CTX_free(c->ssl);
        free(c);
    }
}

/* --- one connection ------------------------------------------------------- */

/* What to do after OpenSSL said 'ret': 0 after waiting (call it again), EPIPE when the
 * peer closed, or an error. */
static int
after(struct tls *t, int ret, int saved_errno, uint64_t deadline_ns)
{
    int what = SSL_get_error(t->ssl, ret);

    switch (what) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return io_wait(t->fd, what == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN, deadline_ns);
    case SSL_ERROR_ZERO_RETURN:
        return EPIPE;
    case SSL_ERROR_SYSCALL:
        return saved_errno ? saved_errno : EPIPE;
    default:
        /* An unexpected end of file is one of these since OpenSSL 3. */
        return ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING ? EPIPE
                                                                                      : EBADMSG;
    }
}

static void
explain_handshake(const struct tls *t, char *why, size_t n)
{
    long verdict = SSL_get_verify_result(t->ssl);

    if (verdict != X509_V_OK) {
        snprintf(why, n, "TLS: the peer's certificate: %s", X509_verify_cert_error_string(verdict));
        ERR_clear_error();
    } else {
        explain(why, n, "TLS handshake");
    }
}

static int
attach(struct tls *t, struct tls_context *c)
{
    BIO *bio;

    t->ssl = SSL_new(c->ssl);
    bio = t->ssl ? BIO_new(bio_method) : NULL;
    if (!bio) {
        return ENOMEM;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    if (c->server) {
        SSL_set_accept_state(t->ssl);
    } else {
        SSL_set_connect_state(t->ssl);
    }
    return 0;
}

/* From here on we read and write.  OpenSSL takes single records from the BIO: what else came along
 * is still in 'in'. */
static int
take_over(struct tls *t, bool server)
{
    struct tls_secrets s = {.n = t->secret_len[server]};
    int error = EPROTO;

    memcpy(s.write, t->secret[server], sizeof s.write);
    memcpy(s.read, t->secret[!server], sizeof s.read);
    if (s.n && s.n == t->secret_len[!server] && !SSL_has_pending(t->ssl)) {
        error = tls_stream_create(t->fd, &s, t->in + t->in_at, t->in_end - t->in_at, &t->stream);
    }
    OPENSSL_cleanse(&s, sizeof s);
    OPENSSL_cleanse(t->secret, sizeof t->secret);
    return error;
}

int
mig_tls_handshake(struct tls_context *c, int fd, uint64_t deadline_ns, struct tls **out, char *why,
                  size_t n)
{
    struct tls *t = calloc(1, sizeof *t);
    int error, ret;

    *out = NULL;
    if (!t) {
        return ENOMEM;
    }
    t->fd = fd;
    error = attach(t, c);
    while (!error) {
        ERR_clear_error();
        errno = 0;
        ret = SSL_do_handshake(t->ssl);
        if (ret == 1) {
            break;
        }
        error = after(t, ret, errno, deadline_ns);
    }
    if (error == EBADMSG) {
        explain_handshake(t, why, n);
        error = EPROTO;
    } else {
        error = error ? error : take_over(t, c->server);
        if (error) {
            snprintf(why, n, "TLS handshake: %s", strerror(error));
        }
    }
    if (error) {
        mig_tls_destroy(t);
        return error;
    }
    *out = t;
    return 0;
}

void
mig_tls_destroy(struct tls *t)
{
    if (t) {
        SSL_free(t->ssl);
        tls_stream_destroy(t->stream);
        OPENSSL_cleanse(t->secret, sizeof t->secret);
        free(t);
    }
}

int
mig_tls_export(struct tls *t, const char *label, const uint8_t *context, size_t n, uint8_t *out,
               size_t n_out)
{
    return SSL_export_keying_material(t->ssl, out, n_out, label, strlen(label), context, n, 1) == 1
               ? 0
               : EPROTO;
}

struct tls_stream *
mig_tls_stream(struct tls *t)
{
    return t->stream;
}
