/* pki: the pool's certificate authority, a directory of PEM files.
 *
 *   ca.crt, ca.key, crl.pem   the authority
 *   NAME.crt, NAME.key        a host's, a controller's or a user's
 *
 * The directory and the keys are for their owner only.  Files are replaced by
 * renaming, so that who reads one sees the old or the new one whole; commands
 * on one directory wait for each other.
 *
 * A host's certificate (controllers are hosts) serves and connects; it names
 * the host and its addresses.  A user's only connects; its OU is a role of the
 * REST interface: admin, operator, viewer, tenant:NAME.
 *
 * Functions return 0 or an errno with a sentence in 'why' that says what to do.
 * Single-threaded. */
#ifndef PKI_H
#define PKI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pki_key { PKI_EC_P256, PKI_RSA_3072 };

enum { PKI_CA_DAYS = 3650, PKI_DAYS = 397, PKI_DAYS_MAX = 3650, PKI_NAME_MAX = 64 };

struct pki_request {
    const char *name;
    const char *role; /* a user's OU; NULL: a host */
    enum pki_key key;
    unsigned days;
    const char *const *addresses; /* a host's: IPv4, IPv6, or further DNS names */
    size_t n_addresses;
};

/* A new authority in 'dir', which is made unless it is there. */
int pki_init(const char *dir, const char *name, enum pki_key, unsigned days, char *why,
             size_t why_size);
int pki_issue(const char *dir, const struct pki_request *, char *why, size_t why_size);
/* A new key and certificate for whom there is one, like the one there is. */
int pki_rotate(const char *dir, const char *name, unsigned days, char *why, size_t why_size);
/* Onto the revocation list; its files go, so that the name is free. */
int pki_revoke(const char *dir, const char *name, char *why, size_t why_size);

struct pki_cert {
    char name[PKI_NAME_MAX + 1];
    char ou[PKI_NAME_MAX + 1];
    char names[512]; /* what it is good for as a server: "DNS:h1, IP Address:10.0.0.1" */
    char key[24];
    int64_t not_before, not_after; /* s since 1970 */
    bool ca, key_there;
    const char *wrong; /* "expired", "of another CA", ... or NULL */
};
/* Calls for the authority, then for each certificate in order of names. */
int pki_list(const char *dir, void (*)(const struct pki_cert *, void *aux), void *aux, char *why,
             size_t why_size);

/* 64 hexadecimal digits and a NUL to 'hex': SHA-256 of 'a' and 'b', one behind
 * the other. */
bool pki_sha256(const void *a, size_t n_a, const void *b, size_t n_b, char hex[65]);

#endif
