/* rest_client: HTTP requests as a test wants them, over a Unix socket or TLS,
 * and the certificates for that.  Single-threaded; one request a connection. */
#ifndef REST_CLIENT_H
#define REST_CLIENT_H

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "ovs/jansson_ns.h"

/* --- certificates --------------------------------------------------------------- */

struct cert {
    gnutls_x509_crt_t crt;
    gnutls_x509_privkey_t key;
};

enum { CERT_CA = 1, CERT_SERVER = 2, CERT_CLIENT = 4, CERT_EXPIRED = 8 };

/* 'ca' NULL: signed by itself. */
static inline struct cert
cert_make(const char *cn, const char *ou, unsigned flags, const struct cert *ca)
{
    static unsigned char serial[1];
    time_t now = time(NULL);
    struct cert c;

    serial[0]++;
    gnutls_x509_privkey_init(&c.key);
    gnutls_x509_privkey_generate(c.key, GNUTLS_PK_ECDSA,
                                 GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
    gnutls_x509_crt_init(&c.crt);
    gnutls_x509_crt_set_version(c.crt, 3);
    gnutls_x509_crt_set_serial(c.crt, serial, 1);
    gnutls_x509_crt_set_activation_time(c.crt, now - 7200);
    gnutls_x509_crt_set_expiration_time(c.crt, flags & CERT_EXPIRED ? now - 3600 : now + 86400);
    gnutls_x509_crt_set_dn_by_oid(c.crt, GNUTLS_OID_X520_COMMON_NAME, 0, cn, strlen(cn));
    if (*ou) {
        gnutls_x509_crt_set_dn_by_oid(c.crt, GNUTLS_OID_X520_ORGANIZATIONAL_UNIT_NAME, 0, ou,
                                      strlen(ou));
    }
    gnutls_x509_crt_set_basic_constraints(c.crt, !!(flags & CERT_CA), -1);
    if (flags & CERT_CA) {
        gnutls_x509_crt_set_key_usage(c.crt, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN);
    }
    if (flags & CERT_SERVER) {
        gnutls_x509_crt_set_key_purpose_oid(c.crt, GNUTLS_KP_TLS_WWW_SERVER, 0);
    }
    if (flags & CERT_CLIENT) {
        gnutls_x509_crt_set_key_purpose_oid(c.crt, GNUTLS_KP_TLS_WWW_CLIENT, 0);
    }
    gnutls_x509_crt_set_key(c.crt, c.key);
    gnutls_x509_crt_sign2(c.crt, ca ? ca->crt : c.crt, ca ? ca->key : c.key, GNUTLS_DIG_SHA256, 0);
    return c;
}

static inline void
cert_free(struct cert *c)
{
    gnutls_x509_crt_deinit(c->crt);
    gnutls_x509_privkey_deinit(c->key);
}

static inline void
write_file(const char *path, const void *data, size_t n)
{
    char fresh[300];
    FILE *f;

    snprintf(fresh, sizeof fresh, "%s.new", path);
    f = fopen(fresh, "w");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) || rename(fresh, path)) {
        abort();
    }
}

static inline void
cert_write(const struct cert *c, const char *crt_path, const char *key_path)
{
    gnutls_datum_t out;

    if (key_path) {
        gnutls_x509_privkey_export2(c->key, GNUTLS_X509_FMT_PEM, &out);
        write_file(key_path, out.data, out.size);
        gnutls_free(out.data);
    }
    gnutls_x509_crt_export2(c->crt, GNUTLS_X509_FMT_PEM, &out);
    write_file(crt_path, out.data, out.size);
    gnutls_free(out.data);
}

static inline void
crl_write(const struct cert *ca, const struct cert *revoked, const char *path)
{
    gnutls_x509_crl_t crl;
    gnutls_datum_t out;
    time_t now = time(NULL);

    gnutls_x509_crl_init(&crl);
    gnutls_x509_crl_set_version(crl, 2);
    gnutls_x509_crl_set_this_update(crl, now - 3600);
    gnutls_x509_crl_set_next_update(crl, now + 86400);
    gnutls_x509_crl_set_number(crl, "\1", 1);
    gnutls_x509_crl_set_crt(crl, revoked->crt, now - 60);
    gnutls_x509_crl_sign2(crl, ca->crt, ca->key, GNUTLS_DIG_SHA256, 0);
    gnutls_x509_crl_export2(crl, GNUTLS_X509_FMT_PEM, &out);
    write_file(path, out.data, out.size);
    gnutls_free(out.data);
    gnutls_x509_crl_deinit(crl);
}

/* --- connections ------------------------------------------------------------------ */

static inline double
now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static inline int
connect_unix(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(sun.sun_path, path);
    if (connect(fd, (struct sockaddr *)&sun, sizeof sun)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* From 127.0.0.'from'. */
static inline int
connect_tcp(unsigned port, unsigned from)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct timeval patience = {5, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    in.sin_addr.s_addr = htonl(0x7f000000 + from);
    if (fd < 0 || bind(fd, (struct sockaddr *)&in, sizeof in)) {
        abort();
    }
    in.sin_addr.s_addr = htonl(0x7f000001);
    in.sin_port = htons((uint16_t)port);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&in, sizeof in)) {
        close(fd);
        return -1;
    }
    return fd;
}

struct client {
    int fd;
    gnutls_session_t tls; /* NULL: plain */
    gnutls_certificate_credentials_t creds;
};

static inline void
client_close(struct client *c)
{
    if (c->tls) {
        gnutls_deinit(c->tls);
        gnutls_certificate_free_credentials(c->creds);
    }
    close(c->fd);
}

/* TLS on c->fd.  'cert' may be NULL, 'priorities' too.  The server's own
 * certificate must be of 'ca' and for "controller". */
static inline bool
client_tls(struct client *c, const struct cert *ca, const struct cert *cert, const char *priorities)
{
    int error;

    gnutls_certificate_allocate_credentials(&c->creds);
    gnutls_certificate_set_x509_trust(c->creds, (gnutls_x509_crt_t *)&ca->crt, 1);
    if (cert) {
        gnutls_certificate_set_x509_key(c->creds, (gnutls_x509_crt_t *)&cert->crt, 1, cert->key);
    }
    gnutls_init(&c->tls, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);
    gnutls_priority_set_direct(c->tls, priorities ? priorities : "NORMAL", NULL);
    gnutls_credentials_set(c->tls, GNUTLS_CRD_CERTIFICATE, c->creds);
    gnutls_session_set_verify_cert(c->tls, "controller", 0);
    gnutls_transport_set_int(c->tls, c->fd);
    do {
        error = gnutls_handshake(c->tls);
    } while (error < 0 && !gnutls_error_is_fatal(error) && error != GNUTLS_E_AGAIN);
    return !error;
}

static inline bool
client_send(struct client *c, const void *data, size_t n)
{
    const char *p = data;

    while (n) {
        ssize_t sent = c->tls ? gnutls_record_send(c->tls, p, n) : send(c->fd, p, n, MSG_NOSIGNAL);
        if (sent <= 0) {
            return false;
        }
        p += sent;
        n -= (size_t)sent;
    }
    return true;
}

/* The answer's status, 0 if there was none; its JSON (NULL if none) in 'json',
 * the head in 'head' (at least 2048 bytes), if they are not NULL. */
static inline int
client_answer(struct client *c, json_t **json, char *head)
{
    size_t n = 0, cap = 65536;
    char *text = malloc(cap), *body;
    int status = 0;

    for (;;) {
        ssize_t got;
        if (n + 1 >= cap) {
            text = realloc(text, cap *= 2);
        }
        got = c->tls ? gnutls_record_recv(c->tls, text + n, cap - n - 1)
                     : recv(c->fd, text + n, cap - n - 1, 0);
        if (got <= 0) {
            break;
        }
        n += (size_t)got;
    }
    text[n] = '\0';
    sscanf(text, "HTTP/1.1 %d", &status);
    body = strstr(text, "\r\n\r\n");
    if (head) {
        snprintf(head, 2048, "%.*s", body ? (int)(body - text) : 0, text);
    }
    if (json) {
        *json = body ? json_loads(body + 4, JSON_DECODE_ANY, NULL) : NULL;
    }
    free(text);
    return status;
}

/* Head, body, answer.  'body' NULL: none. */
static inline int
client_request(struct client *c, const char *method, const char *path, const char *headers,
               const void *body, size_t n, json_t **json, char *head)
{
    char text[2048];

    snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: controller\r\nConnection: close\r\n%s",
             method, path, headers);
    if (body) {
        snprintf(text + strlen(text), sizeof text - strlen(text), "Content-Length: %zu\r\n", n);
    }
    strcat(text, "\r\n");
    client_send(c, text, strlen(text));
    if (body) {
        client_send(c, body, n);
    }
    return client_answer(c, json, head);
}

#define JSON_TYPE "Content-Type: application/json\r\n"

#endif
