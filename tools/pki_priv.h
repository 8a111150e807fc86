/* pki_priv: what the pki_*.c files share: pki.c decides, pki_x509.c makes
 * certificates, pki_file.c keeps them. */
#ifndef PKI_PRIV_H
#define PKI_PRIV_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "pki.h"

/* Who signs; 'key' NULL unless it is needed. */
struct pki_ca {
    X509 *crt;
    EVP_PKEY *key;
};

/* "WHAT: the library's reason" to 'why'; EIO. */
int pki_library_error(const char *what, char *why, size_t why_size);

/* --- pki_x509.c ------------------------------------------------------------------ */

EVP_PKEY *pki_key_make(enum pki_key);
enum pki_key pki_key_kind(const EVP_PKEY *);
/* 'names': value of the subject's alternative names, or NULL.  'ca' NULL: an
 * authority that signs itself. */
X509 *pki_cert_make(EVP_PKEY *, const char *cn, const char *ou, const char *names, unsigned days,
                    const struct pki_ca *ca);
/* A list like 'old' (or empty, if NULL) with 'revoked' (or nothing, if NULL). */
X509_CRL *pki_crl_make(const struct pki_ca *, const X509_CRL *old, const X509 *revoked);
/* The subject's attribute, empty if there is none. */
void pki_subject(const X509 *, int nid, char *to, size_t size);
/* "DNS:..., IP Address:...", or as pki_cert_make() takes it. */
void pki_names(const X509 *, bool for_make, char *to, size_t size);

/* --- pki_file.c ------------------------------------------------------------------- */

/* Letters, digits, '.', '-' and '_'; no dot first. */
bool pki_name_ok(const char *);
/* The directory's lock; a descriptor to close, or -1. */
int pki_lock(const char *dir, char *why, size_t why_size);
int pki_path(const char *dir, const char *name, const char *suffix, char *to, size_t size);
bool pki_exists(const char *dir, const char *name, const char *suffix);
X509 *pki_read_cert(const char *dir, const char *name, char *why, size_t why_size);
EVP_PKEY *pki_read_key(const char *dir, const char *name, char *why, size_t why_size);
X509_CRL *pki_read_crl(const char *dir);
/* Writes beside, syncs, renames.  Key and certificate: both or none. */
int pki_write_pair(const char *dir, const char *name, EVP_PKEY *, X509 *, char *why,
                   size_t why_size);
int pki_write_crl(const char *dir, X509_CRL *, char *why, size_t why_size);

#endif
