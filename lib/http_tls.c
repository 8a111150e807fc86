#include "http_tls.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "file_seen.h"

enum { KEY, CERTIFICATE, CA, CRL, N_FILES };

struct http_creds {
    gnutls_certificate_credentials_t x509;
    atomic_uint references;
};

struct http_tls {
    char *file[N_FILES]; /* CRL may be NULL */
    struct file_seen seen[N_FILES];
    bool unusable; /* as last read */
    pthread_mutex_t mutex;
    struct http_creds *current; /* guarded by mutex */
};

/* GnuTLS's verify callback: non-zero ends the handshake. */
static int
verify_client(gnutls_session_t session)
{
    gnutls_typed_vdata_st purpose = {GNUTLS_DT_KEY_PURPOSE_OID,
                                     (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT, 0};
    unsigned status;
    int error = gnutls_certificate_verify_peers(session, &purpose, 1, &status);

    return error < 0 || status ? GNUTLS_E_CERTIFICATE_ERROR : 0;
}

bool
http_tls_good(gnutls_session_t session)
{
    return !verify_client(session);
}

bool
http_tls_expired(gnutls_session_t session)
{
    return gnutls_certificate_expiration_time_peers(session) <= time(NULL);
}

void
http_tls_detach(struct http_creds *c)
{
    if (c && atomic_fetch_sub(&c->references, 1) == 1) {
        gnutls_certificate_free_credentials(c->x509);
        free(c);
    }
}

static struct http_creds *
load(const struct http_tls *t, char *why, size_t why_size)
{
    struct http_creds *c = calloc(1, sizeof *c);
    const char *what = NULL;
    int n;

    if (!c || gnutls_certificate_allocate_credentials(&c->x509)) {
        free(c);
        snprintf(why, why_size, "out of memory");
        return NULL;
    }
    atomic_init(&c->references, 1);
    n = gnutls_certificate_set_x509_trust_file(c->x509, t->file[CA], GNUTLS_X509_FMT_PEM);
    if (n <= 0) {
        what = t->file[CA];
    }
    if (!what && t->file[CRL]) {
        n = gnutls_certificate_set_x509_crl_file(c->x509, t->file[CRL], GNUTLS_X509_FMT_PEM);
        what = n < 0 ? t->file[CRL] : NULL;
    }
    if (!what) {
        n = gnutls_certificate_set_x509_key_file(c->x509, t->file[CERTIFICATE], t->file[KEY],
                                                 GNUTLS_X509_FMT_PEM);
        what = n < 0 ? t->file[CERTIFICATE] : NULL;
    }
    if (what) {
        snprintf(why, why_size, "%s: %s", what,
                 n < 0 ? gnutls_strerror(n) : "no certificate in it");
        http_tls_detach(c);
        return NULL;
    }
    gnutls_certificate_set_verify_function(c->x509, verify_client);
    return c;
}

/* Whether a file is another than when it was last looked at. */
static bool
look(struct http_tls *t)
{
    bool changed = false, is_new;

    for (int i = 0; i < N_FILES; i++) {
        if (t->file[i] && !file_seen_look(&t->seen[i], t->file[i], &is_new)) {
            changed |= is_new;
        }
    }
    return changed;
}

int
http_tls_refresh(struct http_tls *t, char *why, size_t why_size)
{
    struct http_creds *fresh, *old;
    bool changed = look(t);

    if (!changed && !t->unusable) {
        return 0;
    }
    fresh = load(t, why, why_size);
    t->unusable = !fresh;
    if (!fresh) {
        return changed ? -1 : 0; /* it was said */
    }
    pthread_mutex_lock(&t->mutex);
    old = t->current;
    t->current = fresh;
    pthread_mutex_unlock(&t->mutex);
    http_tls_detach(old);
    return 1;
}

int
http_tls_create(const char *key, const char *certificate, const char *ca, const char *crl,
                struct http_tls **tp, char *why, size_t why_size)
{
    const char *files[N_FILES] = {key, certificate, ca, crl};
    static const char *const options[] = {"private key", "certificate", "CA certificate"};
    struct http_tls *t = calloc(1, sizeof *t);

    *tp = NULL;
    if (!t) {
        snprintf(why, why_size, "out of memory");
        return ENOMEM;
    }
    pthread_mutex_init(&t->mutex, NULL);
    for (int i = 0; i < N_FILES; i++) {
        if (!files[i] && i != CRL) {
            snprintf(why, why_size, "ssl: needs a %s; \"weft pki\" makes one", options[i]);
            goto error;
        }
        if (files[i] && !(t->file[i] = strdup(files[i]))) {
            snprintf(why, why_size, "out of memory");
            goto error;
        }
    }
    look(t);
    t->current = load(t, why, why_size);
    if (!t->current) {
        goto error;
    }
    *tp = t;
    return 0;

error:
    http_tls_destroy(t);
    return EINVAL;
}

void
http_tls_destroy(struct http_tls *t)
{
    if (t) {
        http_tls_detach(t->current);
        for (int i = 0; i < N_FILES; i++) {
            free(t->file[i]);
        }
        pthread_mutex_destroy(&t->mutex);
        free(t);
    }
}

bool
http_tls_is_current(struct http_tls *t, const struct http_creds *c)
{
    bool is;

    pthread_mutex_lock(&t->mutex);
    is = c == t->current;
    pthread_mutex_unlock(&t->mutex);
    return is;
}

struct http_creds *
http_tls_attach(struct http_tls *t, gnutls_session_t session)
{
    struct http_creds *c;

    pthread_mutex_lock(&t->mutex);
    c = t->current;
    atomic_fetch_add(&c->references, 1);
    pthread_mutex_unlock(&t->mutex);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, c->x509);
    gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
    return c;
}

void
http_tls_ask_nobody(gnutls_session_t session)
{
    gnutls_certificate_server_set_request(session, GNUTLS_CERT_IGNORE);
}

static int
verify_if_any(gnutls_session_t session)
{
    unsigned n = 0;

    return gnutls_certificate_get_peers(session, &n) && n ? verify_client(session) : 0;
}

void
http_tls_ask_politely(gnutls_session_t session)
{
    gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUEST);
    gnutls_session_set_verify_function(session, verify_if_any);
}

int
http_tls_no_certificate(gnutls_session_t session, const gnutls_datum_t *names, int n_names,
                        const gnutls_pk_algorithm_t *algorithms, int n_algorithms,
                        gnutls_pcert_st **certificate, unsigned *n, gnutls_privkey_t *key)
{
    return -1;
}

/* A name's only attribute of this kind: two would let its holder choose. */
static bool
attribute(gnutls_x509_crt_t crt, const char *oid, char *to, size_t size)
{
    char second[4];
    size_t n = size, m = sizeof second;

    if (gnutls_x509_crt_get_dn_by_oid(crt, oid, 0, 0, to, &n) || strlen(to) != n ||
        gnutls_x509_crt_get_dn_by_oid(crt, oid, 1, 0, second, &m) !=
            GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
        *to = '\0';
        return false;
    }
    return true;
}

bool
http_tls_identity(gnutls_session_t session, char *cn, size_t cn_size, char *ou, size_t ou_size)
{
    unsigned n = 0;
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &n);
    gnutls_x509_crt_t crt;
    bool ok;

    *cn = *ou = '\0';
    if (!chain || !n || gnutls_x509_crt_init(&crt)) {
        return false;
    }
    ok = !gnutls_x509_crt_import(crt, &chain[0], GNUTLS_X509_FMT_DER) &&
         attribute(crt, GNUTLS_OID_X520_COMMON_NAME, cn, cn_size);
    if (ok) {
        attribute(crt, GNUTLS_OID_X520_ORGANIZATIONAL_UNIT_NAME, ou, ou_size);
    }
    gnutls_x509_crt_deinit(crt);
    return ok;
}
