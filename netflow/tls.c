#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tls_config {
    SSL_CTX *ctx;
};

struct tls {
    SSL *ssl;
    bool wants_write, broken;
    char error[160];
};

static int
config_fail(char *why, size_t size, const char *what, const char *file)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(code);

    snprintf(why, size, "%s %s: %s", what, file, reason ? reason : "cannot be used");
    ERR_clear_error();
    return EINVAL;
}

static int
load(SSL_CTX *ctx, const char *private_key, const char *certificate, const char *ca_cert,
     const char *crl, char *why, size_t size)
{
    if (SSL_CTX_use_certificate_chain_file(ctx, certificate) != 1) {
        return config_fail(why, size, "certificate", certificate);
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, private_key, SSL_FILETYPE_PEM) != 1) {
        return config_fail(why, size, "private key", private_key);
    }
    if (SSL_CTX_check_private_key(ctx) != 1) { /* one of another kind is taken until then */
        return config_fail(why, size, "private key", private_key);
    }
    if (SSL_CTX_load_verify_locations(ctx, ca_cert, NULL) != 1) {
        return config_fail(why, size, "CA certificate", ca_cert);
    }
    if (crl) {
        X509_STORE *store = SSL_CTX_get_cert_store(ctx);
        X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());

        if (!lookup || X509_load_crl_file(lookup, crl, X509_FILETYPE_PEM) < 1) {
            return config_fail(why, size, "revocation list", crl);
        }
        X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
    }
    return 0;
}

int
tls_config_create(const char *private_key, const char *certificate, const char *ca_cert,
                  const char *crl, struct tls_config **out, char *why, size_t why_size)
{
    struct tls_config *config = calloc(1, sizeof *config);
    int error = ENOMEM;

    snprintf(why, why_size, "out of memory");
    if (!config || !(config->ctx = SSL_CTX_new(TLS_method()))) {
        goto fail;
    }
    SSL_CTX_set_min_proto_version(config->ctx, TLS1_3_VERSION);
    SSL_CTX_set_verify(config->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_session_cache_mode(config->ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(config->ctx, 0);
    SSL_CTX_set_mode(config->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
    error = load(config->ctx, private_key, certificate, ca_cert, crl, why, why_size);
    if (error) {
        goto fail;
    }
    *out = config;
    return 0;

fail:
    tls_config_destroy(config);
    return error;
}

void
tls_config_destroy(struct tls_config *config)
{
    if (config) {
        SSL_CTX_free(config->ctx);
        free(config);
    }
}

static struct tls *
open_on(struct tls_config *config, int fd)
{
    struct tls *tls = calloc(1, sizeof *tls);

    if (tls && (!(tls->ssl = SSL_new(config->ctx)) || SSL_set_fd(tls->ssl, fd) != 1)) {
        tls_close(tls);
        tls = NULL;
    }
    return tls;
}

struct tls *
tls_accept(struct tls_config *config, int fd)
{
    struct tls *tls = open_on(config, fd);

    if (tls) {
        SSL_set_accept_state(tls->ssl);
    }
    return tls;
}

static bool
expect_name(SSL *ssl, const char *name)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    struct in6_addr any;

    if (inet_pton(AF_INET, name, &any) == 1 || inet_pton(AF_INET6, name, &any) == 1) {
        return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1;
    }
    return SSL_set_tlsext_host_name(ssl, name) == 1 &&
           X509_VERIFY_PARAM_set1_host(param, name, 0) == 1;
}

struct tls *
tls_connect(struct tls_config *config, int fd, const char *name)
{
    struct tls *tls = open_on(config, fd);

    if (tls && name && !expect_name(tls->ssl, name)) {
        tls_close(tls);
        return NULL;
    }
    if (tls) {
        SSL_set_connect_state(tls->ssl);
    }
    return tls;
}

void
tls_close(struct tls *tls)
{
    if (tls) {
        if (tls->ssl && !tls->broken && SSL_is_init_finished(tls->ssl)) {
            SSL_shutdown(tls->ssl);
            ERR_clear_error();
        }
        SSL_free(tls->ssl);
        free(tls);
    }
}

static ssize_t
outcome(struct tls *tls, int n)
{
    int saved = errno, kind = SSL_get_error(tls->ssl, n);
    long verified = SSL_get_verify_result(tls->ssl);
    const char *reason;

    tls->wants_write = kind == SSL_ERROR_WANT_WRITE;
    switch (kind) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    }
    reason = verified != X509_V_OK ? X509_verify_cert_error_string(verified)
                                   : ERR_reason_error_string(ERR_peek_last_error());
    snprintf(tls->error, sizeof tls->error, "%s",
             reason  ? reason
             : saved ? strerror(saved)
                     : "the connection was cut");
    ERR_clear_error();
    tls->broken = true;
    return kind == SSL_ERROR_SYSCALL && saved ? -saved : -EPROTO;
}

ssize_t
tls_read(struct tls *tls, void *to, size_t size)
{
    int n;

    ERR_clear_error();
    errno = 0;
    n = SSL_read(tls->ssl, to, size < INT32_MAX ? size : INT32_MAX);
    return n > 0 ? n : outcome(tls, n);
}

ssize_t
tls_write(struct tls *tls, const void *from, size_t size)
{
    int n;

    ERR_clear_error();
    errno = 0;
    n = SSL_write(tls->ssl, from, size < INT32_MAX ? size : INT32_MAX);
    return n > 0 ? n : outcome(tls, n);
}

bool
tls_wants_write(const struct tls *tls)
{
    return tls->wants_write;
}

bool
tls_established(const struct tls *tls)
{
    return SSL_is_init_finished(tls->ssl);
}

const char *
tls_error(const struct tls *tls)
{
    return tls->error[0] ? tls->error : "closed";
}
