#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "pki_priv.h"

/* So that a peer whose clock is behind takes a new certificate. */
#define BACK_S (24 * 3600)
#define SERIAL_BYTES 16

int
pki_library_error(const char *what, char *why, size_t why_size)
{
    char reason[200] = "out of memory";
    unsigned long error = ERR_peek_last_error();

    if (error) {
        ERR_error_string_n(error, reason, sizeof reason);
    }
    ERR_clear_error();
    snprintf(why, why_size, "%s: %s", what, reason);
    return EIO;
}

EVP_PKEY *
pki_key_make(enum pki_key kind)
{
    return kind == PKI_RSA_3072 ? EVP_RSA_gen(3072) : EVP_EC_gen("P-256");
}

enum pki_key
pki_key_kind(const EVP_PKEY *key)
{
    return EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA ? PKI_RSA_3072 : PKI_EC_P256;
}

static bool
random_serial(X509 *crt)
{
    unsigned char bytes[SERIAL_BYTES];
    BIGNUM *n;
    bool ok;

    if (RAND_bytes(bytes, sizeof bytes) != 1) {
        return false;
    }
    bytes[0] = (bytes[0] & 0x7f) | 0x40; /* positive, and of full length */
    n = BN_bin2bn(bytes, sizeof bytes, NULL);
    ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(crt));
    BN_free(n);
    return ok;
}

static bool
add_extension(X509 *crt, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;
    bool ok;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, crt, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    ok = ext && X509_add_ext(crt, ext, -1);
    X509_EXTENSION_free(ext);
    return ok;
}

static bool
add_extensions(X509 *crt, EVP_PKEY *key, bool host, const char *names, const struct pki_ca *ca)
{
    bool rsa = pki_key_kind(key) == PKI_RSA_3072;

    if (!ca) {
        return add_extension(crt, crt, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
               add_extension(crt, crt, NID_key_usage, "critical,keyCertSign,cRLSign") &&
               add_extension(crt, crt, NID_subject_key_identifier, "hash");
    }
    return add_extension(crt, ca->crt, NID_basic_constraints, "critical,CA:FALSE") &&
           add_extension(crt, ca->crt, NID_key_usage,
                         rsa ? "critical,digitalSignature,keyEncipherment"
                             : "critical,digitalSignature") &&
           add_extension(crt, ca->crt, NID_ext_key_usage,
                         host ? "serverAuth,clientAuth" : "clientAuth") &&
           add_extension(crt, ca->crt, NID_subject_key_identifier, "hash") &&
           add_extension(crt, ca->crt, NID_authority_key_identifier, "keyid:always") &&
           (!names || add_extension(crt, ca->crt, NID_subject_alt_name, names));
}

static bool
add_name(X509_NAME *name, int nid, const char *value)
{
    return X509_NAME_add_entry_by_NID(name, nid, MBSTRING_UTF8, (const unsigned char *)value, -1,
                                      -1, 0);
}

X509 *
pki_cert_make(EVP_PKEY *key, const char *cn, const char *ou, const char *names, unsigned days,
              const struct pki_ca *ca)
{
    X509 *crt = X509_new();
    X509_NAME *subject = crt ? X509_get_subject_name(crt) : NULL;

    if (crt && X509_set_version(crt, X509_VERSION_3) && random_serial(crt) &&
        X509_gmtime_adj(X509_getm_notBefore(crt), -BACK_S) &&
        X509_time_adj_ex(X509_getm_notAfter(crt), (int)days, 0, NULL) &&
        add_name(subject, NID_organizationName, "Weft") &&
        add_name(subject, NID_organizationalUnitName, ou) &&
        add_name(subject, NID_commonName, cn) &&
        X509_set_issuer_name(crt, ca ? X509_get_subject_name(ca->crt) : subject) &&
        X509_set_pubkey(crt, key) && add_extensions(crt, key, names != NULL, names, ca) &&
        X509_sign(crt, ca ? ca->key : key, EVP_sha256())) {
        return crt;
    }
    X509_free(crt);
    return NULL;
}

static bool
add_revoked(X509_CRL *crl, const X509 *revoked)
{
    X509_REVOKED *entry = X509_REVOKED_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, 0);
    bool ok =
        entry && now &&
        X509_REVOKED_set_serialNumber(entry, (ASN1_INTEGER *)X509_get0_serialNumber(revoked)) &&
        X509_REVOKED_set_revocationDate(entry, now) && X509_CRL_add0_revoked(crl, entry);

    ASN1_TIME_free(now);
    if (!ok) {
        X509_REVOKED_free(entry);
    }
    return ok;
}

static bool
copy_revoked(X509_CRL *crl, const X509_CRL *old)
{
    STACK_OF(X509_REVOKED) *list = old ? X509_CRL_get_REVOKED((X509_CRL *)old) : NULL;

    for (int i = 0; i < sk_X509_REVOKED_num(list); i++) {
        X509_REVOKED *entry = X509_REVOKED_dup(sk_X509_REVOKED_value(list, i));
        if (!entry || !X509_CRL_add0_revoked(crl, entry)) {
            X509_REVOKED_free(entry);
            return false;
        }
    }
    return true;
}

/* Whose it is: authorities may have the same name. */
static bool
add_authority(X509_CRL *crl, const struct pki_ca *ca)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;
    bool ok;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, ca->crt, NULL, NULL, crl, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, NID_authority_key_identifier, "keyid:always");
    ok = ext && X509_CRL_add_ext(crl, ext, -1);
    X509_EXTENSION_free(ext);
    return ok;
}

/* The list's number grows with each. */
static bool
number(X509_CRL *crl, const X509_CRL *old)
{
    ASN1_INTEGER *n = old ? X509_CRL_get_ext_d2i(old, NID_crl_number, NULL, NULL) : NULL;
    int64_t last = 0;
    bool ok;

    if (n && !ASN1_INTEGER_get_int64(&last, n)) {
        last = 0;
    }
    ASN1_INTEGER_free(n);
    n = ASN1_INTEGER_new();
    ok = n && ASN1_INTEGER_set_int64(n, last + 1) &&
         X509_CRL_add1_ext_i2d(crl, NID_crl_number, n, 0, 0);
    ASN1_INTEGER_free(n);
    return ok;
}

X509_CRL *
pki_crl_make(const struct pki_ca *ca, const X509_CRL *old, const X509 *revoked)
{
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, 0);

    /* Good as long as its authority is: nobody has to make new ones in time. */
    if (crl && now && X509_CRL_set_version(crl, X509_CRL_VERSION_2) &&
        X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->crt)) &&
        X509_CRL_set1_lastUpdate(crl, now) &&
        X509_CRL_set1_nextUpdate(crl, X509_get0_notAfter(ca->crt)) && copy_revoked(crl, old) &&
        (!revoked || add_revoked(crl, revoked)) && number(crl, old) && add_authority(crl, ca) &&
        X509_CRL_sort(crl) && X509_CRL_sign(crl, ca->key, EVP_sha256())) {
        ASN1_TIME_free(now);
        return crl;
    }
    ASN1_TIME_free(now);
    X509_CRL_free(crl);
    return NULL;
}

void
pki_subject(const X509 *crt, int nid, char *to, size_t size)
{
    if (X509_NAME_get_text_by_NID(X509_get_subject_name(crt), nid, to, (int)size) < 0) {
        *to = '\0';
    }
}

void
pki_names(const X509 *crt, bool for_make, char *to, size_t size)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(crt, NID_subject_alt_name, NULL, NULL);
    size_t n = 0;

    *to = '\0';
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && n < size; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        char text[256] = "";
        if (name->type == GEN_DNS) {
            snprintf(text, sizeof text, "%s", ASN1_STRING_get0_data(name->d.dNSName));
        } else if (name->type == GEN_IPADD) {
            int length = ASN1_STRING_length(name->d.iPAddress);
            inet_ntop(length == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(name->d.iPAddress),
                      text, sizeof text);
        }
        if (*text) {
            const char *kind = name->type == GEN_DNS ? "DNS:" : "IP:";
            n += (size_t)snprintf(to + n, size - n, "%s%s%s", n ? for_make ? "," : " " : "",
                                  for_make ? kind : "", text);
        }
    }
    GENERAL_NAMES_free(names);
}

bool
pki_sha256(const void *a, size_t n_a, const void *b, size_t n_b, char hex[65])
{
    unsigned char digest[32];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) && EVP_DigestUpdate(ctx, a, n_a) &&
              EVP_DigestUpdate(ctx, b, n_b) && EVP_DigestFinal_ex(ctx, digest, NULL);

    EVP_MD_CTX_free(ctx);
    for (unsigned i = 0; ok && i < sizeof digest; i++) {
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    }
    return ok;
}
