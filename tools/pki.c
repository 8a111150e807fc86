#include "pki.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "pki_priv.h"

/* A DNS name is bounded, a certificate has some. */
#define NAMES_MAX 2048

static void
ca_free(struct pki_ca *ca)
{
    X509_free(ca->crt);
    EVP_PKEY_free(ca->key);
}

static int
days_ok(unsigned days, char *why, size_t why_size)
{
    if (days < 1 || days > PKI_DAYS_MAX) {
        snprintf(why, why_size, "a certificate lasts 1 to %d days", PKI_DAYS_MAX);
        return EINVAL;
    }
    return 0;
}

static int
name_ok(const char *name, char *why, size_t why_size)
{
    if (!pki_name_ok(name) || !strcmp(name, "ca") || !strcmp(name, "crl")) {
        snprintf(why, why_size,
                 "\"%.80s\" is no name: 1 to %d letters, digits, '.', '-', '_'; not ca or crl",
                 name, PKI_NAME_MAX);
        return EINVAL;
    }
    return 0;
}

/* The authority, able to sign. */
static int
ca_read(const char *dir, struct pki_ca *ca, char *why, size_t why_size)
{
    *ca = (struct pki_ca){NULL, NULL};
    if (!pki_exists(dir, "ca", ".crt")) {
        snprintf(why, why_size, "there is no authority in %s; \"weft pki init %s\" makes one", dir,
                 dir);
        return ENOENT;
    }
    ca->crt = pki_read_cert(dir, "ca", why, why_size);
    ca->key = ca->crt ? pki_read_key(dir, "ca", why, why_size) : NULL;
    if (!ca->key) {
        ca_free(ca);
        return EACCES;
    }
    if (X509_check_private_key(ca->crt, ca->key) != 1) {
        pki_library_error("ca.key is not the key of ca.crt", why, why_size);
    } else if (X509_cmp_current_time(X509_get0_notAfter(ca->crt)) < 0) {
        snprintf(why, why_size,
                 "the authority in %s has expired; make a new one in another directory, and new "
                 "certificates with it",
                 dir);
    } else {
        return 0;
    }
    ca_free(ca);
    return EINVAL;
}

int
pki_init(const char *dir, const char *name, enum pki_key kind, unsigned days, char *why,
         size_t why_size)
{
    struct pki_ca ca = {NULL, NULL};
    X509_CRL *crl = NULL;
    int lock, error = days_ok(days, why, why_size);

    if (error) {
        return error;
    }
    if (mkdir(dir, 0700) && errno != EEXIST) {
        error = errno;
        snprintf(why, why_size, "%s: %s", dir, strerror(error));
        return error;
    }
    lock = pki_lock(dir, why, why_size);
    if (lock < 0) {
        return EIO;
    }
    if (pki_exists(dir, "ca", ".key") || pki_exists(dir, "ca", ".crt")) {
        snprintf(why, why_size, "%s has an authority already; its certificates would be worthless",
                 dir);
        error = EEXIST;
        goto done;
    }
    ca.key = pki_key_make(kind);
    ca.crt = ca.key ? pki_cert_make(ca.key, name, "CA", NULL, days, NULL) : NULL;
    crl = ca.crt ? pki_crl_make(&ca, NULL, NULL) : NULL;
    if (!crl) {
        error = pki_library_error("the authority could not be made", why, why_size);
        goto done;
    }
    error = pki_write_crl(dir, crl, why, why_size);
    if (!error) {
        error = pki_write_pair(dir, "ca", ca.key, ca.crt, why, why_size);
    }

done:
    X509_CRL_free(crl);
    ca_free(&ca);
    close(lock);
    return error;
}

/* "DNS:name,IP:10.0.0.1" of a request. */
static int
names_of(const struct pki_request *q, char *to, size_t size, char *why, size_t why_size)
{
    size_t n = (size_t)snprintf(to, size, "DNS:%s", q->name);

    for (size_t i = 0; i < q->n_addresses; i++) {
        const char *a = q->addresses[i];
        unsigned char ip[16];
        bool is_ip = inet_pton(AF_INET, a, ip) == 1 || inet_pton(AF_INET6, a, ip) == 1;
        /* Digits and dots alone are an address that is none. */
        if (!is_ip && (!pki_name_ok(a) || !a[strspn(a, "0123456789.")])) {
            snprintf(why, why_size, "\"%.80s\" is neither an IP address nor a host's name", a);
            return EINVAL;
        }
        n += (size_t)snprintf(to + n, size - n, ",%s%s", is_ip ? "IP:" : "DNS:", a);
        if (n >= size) {
            snprintf(why, why_size, "too many addresses");
            return E2BIG;
        }
    }
    return 0;
}

static int
role_ok(const char *role, char *why, size_t why_size)
{
    if (!strcmp(role, "admin") || !strcmp(role, "operator") || !strcmp(role, "viewer")) {
        return 0;
    }
    if (!strncmp(role, "tenant:", 7) && role[7] && strlen(role) <= PKI_NAME_MAX) {
        return 0;
    }
    snprintf(why, why_size, "a role is admin, operator, viewer or tenant:NAME, not \"%.80s\"",
             role);
    return EINVAL;
}

/* Key and certificate, new, in place of what there may be. */
static int
make(const char *dir, const struct pki_ca *ca, const char *name, const char *ou, const char *names,
     enum pki_key kind, unsigned days, char *why, size_t why_size)
{
    EVP_PKEY *key = pki_key_make(kind);
    X509 *crt = key ? pki_cert_make(key, name, ou, names, days, ca) : NULL;
    int error;

    if (!crt) {
        error = pki_library_error("the certificate could not be made", why, why_size);
    } else if (ASN1_TIME_compare(X509_get0_notAfter(crt), X509_get0_notAfter(ca->crt)) > 0) {
        snprintf(why, why_size,
                 "the authority itself does not last %u days; take fewer with --days", days);
        error = EINVAL;
    } else {
        error = pki_write_pair(dir, name, key, crt, why, why_size);
    }
    X509_free(crt);
    EVP_PKEY_free(key);
    return error;
}

int
pki_issue(const char *dir, const struct pki_request *q, char *why, size_t why_size)
{
    char names[NAMES_MAX];
    struct pki_ca ca;
    int lock, error = name_ok(q->name, why, why_size);

    if (!error) {
        error = days_ok(q->days, why, why_size);
    }
    if (!error) {
        error = q->role ? role_ok(q->role, why, why_size)
                        : names_of(q, names, sizeof names, why, why_size);
    }
    if (error) {
        return error;
    }
    lock = pki_lock(dir, why, why_size);
    if (lock < 0) {
        return ENOENT;
    }
    if (pki_exists(dir, q->name, ".crt")) {
        snprintf(why, why_size,
                 "%s has a certificate: \"weft pki rotate %s\" makes a new one, \"weft pki revoke "
                 "%s\" ends it",
                 q->name, q->name, q->name);
        error = EEXIST;
    } else {
        error = ca_read(dir, &ca, why, why_size);
        if (!error) {
            error = make(dir, &ca, q->name, q->role ? q->role : "host", q->role ? NULL : names,
                         q->key, q->days, why, why_size);
            ca_free(&ca);
        }
    }
    close(lock);
    return error;
}

int
pki_rotate(const char *dir, const char *name, unsigned days, char *why, size_t why_size)
{
    char ou[PKI_NAME_MAX + 1], names[NAMES_MAX];
    X509 *old = NULL;
    struct pki_ca ca = {NULL, NULL};
    int lock, error = name_ok(name, why, why_size);

    if (!error) {
        error = days_ok(days, why, why_size);
    }
    if (error) {
        return error;
    }
    lock = pki_lock(dir, why, why_size);
    if (lock < 0) {
        return ENOENT;
    }
    old = pki_read_cert(dir, name, why, why_size);
    error = old ? ca_read(dir, &ca, why, why_size) : ENOENT;
    if (!error && X509_verify(old, X509_get0_pubkey(ca.crt)) != 1) {
        pki_library_error("the certificate there is, is of another authority", why, why_size);
        error = EINVAL;
    }
    if (!error) {
        pki_subject(old, NID_organizationalUnitName, ou, sizeof ou);
        pki_names(old, true, names, sizeof names);
        error = make(dir, &ca, name, ou, *names ? names : NULL, pki_key_kind(X509_get0_pubkey(old)),
                     days, why, why_size);
    }
    ca_free(&ca);
    X509_free(old);
    close(lock);
    return error;
}

int
pki_revoke(const char *dir, const char *name, char *why, size_t why_size)
{
    char path[600];
    X509 *crt = NULL;
    X509_CRL *old = NULL, *crl = NULL;
    struct pki_ca ca = {NULL, NULL};
    int lock, error = name_ok(name, why, why_size);

    if (error) {
        return error;
    }
    lock = pki_lock(dir, why, why_size);
    if (lock < 0) {
        return ENOENT;
    }
    crt = pki_read_cert(dir, name, why, why_size);
    error = crt ? ca_read(dir, &ca, why, why_size) : ENOENT;
    if (!error) {
        old = pki_read_crl(dir);
        if (!old && pki_exists(dir, "crl", ".pem")) { /* do not forget what it holds */
            error = pki_library_error("crl.pem cannot be read", why, why_size);
        }
    }
    if (!error) {
        crl = pki_crl_make(&ca, old, crt);
        error = crl ? pki_write_crl(dir, crl, why, why_size)
                    : pki_library_error("the revocation list could not be made", why, why_size);
    }
    for (int i = 0; !error && i < 2; i++) {
        if (!pki_path(dir, name, i ? ".crt" : ".key", path, sizeof path)) {
            unlink(path);
        }
    }
    X509_CRL_free(crl);
    X509_CRL_free(old);
    X509_free(crt);
    ca_free(&ca);
    close(lock);
    return error;
}

/* --- listing -------------------------------------------------------------------------- */

static int64_t
seconds(const ASN1_TIME *t)
{
    struct tm tm;

    return ASN1_TIME_to_tm(t, &tm) ? timegm(&tm) : 0;
}

static const char *
what_is_wrong(X509 *crt, X509 *ca, X509_CRL *crl)
{
    X509_REVOKED *entry;

    if (X509_verify(crt, X509_get0_pubkey(ca)) != 1) {
        return "of another CA";
    }
    if (crl && X509_CRL_get0_by_cert(crl, &entry, crt) == 1) {
        return "revoked";
    }
    if (X509_cmp_current_time(X509_get0_notAfter(crt)) < 0) {
        return "expired";
    }
    return X509_cmp_current_time(X509_get0_notBefore(crt)) > 0 ? "not valid yet" : NULL;
}

static void
describe(const char *dir, const char *name, X509 *crt, X509 *ca, X509_CRL *crl, struct pki_cert *c)
{
    EVP_PKEY *key = X509_get0_pubkey(crt);

    memset(c, 0, sizeof *c);
    c->ca = crt == ca;
    if (c->ca) {
        pki_subject(crt, NID_commonName, c->name, sizeof c->name);
    } else {
        snprintf(c->name, sizeof c->name, "%s", name);
    }
    pki_subject(crt, NID_organizationalUnitName, c->ou, sizeof c->ou);
    pki_names(crt, false, c->names, sizeof c->names);
    snprintf(c->key, sizeof c->key, "%s %d", key ? EVP_PKEY_get0_type_name(key) : "?",
             key ? EVP_PKEY_get_bits(key) : 0);
    c->not_before = seconds(X509_get0_notBefore(crt));
    c->not_after = seconds(X509_get0_notAfter(crt));
    c->key_there = pki_exists(dir, name, ".key");
    c->wrong = what_is_wrong(crt, ca, crl);
}

static int
is_cert(const struct dirent *e)
{
    size_t n = strlen(e->d_name);

    return n > 4 && !strcmp(e->d_name + n - 4, ".crt") && strcmp(e->d_name, "ca.crt") != 0;
}

int
pki_list(const char *dir, void (*report)(const struct pki_cert *, void *), void *aux, char *why,
         size_t why_size)
{
    struct dirent **entries = NULL;
    X509 *ca = pki_read_cert(dir, "ca", why, why_size);
    X509_CRL *crl = pki_read_crl(dir);
    struct pki_cert c;
    int n = ca ? scandir(dir, &entries, is_cert, alphasort) : -1;

    if (ca) {
        describe(dir, "ca", ca, ca, crl, &c);
        report(&c, aux);
    }
    for (int i = 0; i < n; i++) {
        char name[PKI_NAME_MAX + 1], unused[100];
        size_t length = strlen(entries[i]->d_name) - 4;
        X509 *crt = NULL;
        if (length <= PKI_NAME_MAX) {
            snprintf(name, sizeof name, "%.*s", (int)length, entries[i]->d_name);
            crt = pki_read_cert(dir, name, unused, sizeof unused);
        }
        if (crt) {
            describe(dir, name, crt, ca, crl, &c);
            report(&c, aux);
        }
        X509_free(crt);
        free(entries[i]);
    }
    free(entries);
    X509_CRL_free(crl);
    X509_free(ca);
    return ca ? 0 : ENOENT;
}
