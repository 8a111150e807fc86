/* mig_pki: two authorities for a migration's ends, and what they have issued.
 *
 * "ours" has hosts h1 (also by its address 10.0.0.1), h2, old, old.copy, which is expired, gone,
 * which is revoked, with a copy of its files, gone.copy; "theirs" the same names, all valid. */
#ifndef MIG_PKI_H
#define MIG_PKI_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "pki_priv.h"
#include "transport.h"

/* Their directories, once there are authorities. */
static char ours[64], theirs[64];

static char pki_dir[] = "/tmp/mig_pki.XXXXXX";

/* The files of 'name' as 'authority' issued them, for an end that trusts 'trust' and expects
 * 'peer'.  Valid for the next 63 calls. */
static inline struct transport_tls
credentials(const char *authority, const char *name, const char *trust, const char *peer)
{
    static char paths[64][4][128];
    static unsigned n;
    char(*path)[128] = paths[n++ % 64];

    snprintf(path[0], 128, "%s/%s.key", authority, name);
    snprintf(path[1], 128, "%s/%s.crt", authority, name);
    snprintf(path[2], 128, "%s/ca.crt", trust);
    snprintf(path[3], 128, "%s/crl.pem", trust);
    return (struct transport_tls){.private_key = path[0],
                                  .certificate = path[1],
                                  .ca_cert = path[2],
                                  .crl = path[3],
                                  .peer_name = peer};
}

/* Revoking takes the files away. */
static inline bool
keep_copy(const char *name)
{
    static const char *const suffixes[] = {"key", "crt"};
    char from[128], to[128];
    bool ok = true;

    for (unsigned i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s/%s.%s", ours, name, suffixes[i]);
        snprintf(to, sizeof to, "%s/%s.copy.%s", ours, name, suffixes[i]);
        ok = ok && !link(from, to);
    }
    return ok;
}

/* "old", until yesterday. */
static inline bool
make_expired(void)
{
    char why[700];
    struct pki_ca ca = {.crt = pki_read_cert(ours, "ca", why, sizeof why),
                        .key = pki_read_key(ours, "ca", why, sizeof why)};
    EVP_PKEY *key = pki_key_make(PKI_EC_P256);
    X509 *crt =
        ca.crt && ca.key && key ? pki_cert_make(key, "old", "host", "DNS:old", -1, &ca) : NULL;
    bool ok = crt && !pki_write_pair(ours, "old.copy", key, crt, why, sizeof why);

    X509_free(ca.crt);
    EVP_PKEY_free(ca.key);
    X509_free(crt);
    EVP_PKEY_free(key);
    return ok;
}

static inline bool
make_authorities(void)
{
    static const char *const names[] = {"h1", "h2", "old", "gone"};
    char why[700];
    bool ok;

    if (!mkdtemp(pki_dir)) {
        return false;
    }
    snprintf(ours, sizeof ours, "%s/ours", pki_dir);
    snprintf(theirs, sizeof theirs, "%s/theirs", pki_dir);
    ok = !pki_init(ours, "ours", PKI_EC_P256, PKI_CA_DAYS, why, sizeof why) &&
         !pki_init(theirs, "theirs", PKI_EC_P256, PKI_CA_DAYS, why, sizeof why);
    for (unsigned i = 0; i < 4; i++) {
        const char *const addresses[] = {"10.0.0.1"};
        struct pki_request q = {.name = names[i],
                                .key = PKI_EC_P256,
                                .days = PKI_DAYS,
                                .addresses = addresses,
                                .n_addresses = i == 0};

        ok = ok && !pki_issue(ours, &q, why, sizeof why) && !pki_issue(theirs, &q, why, sizeof why);
    }
    return ok && keep_copy("gone") && !pki_revoke(ours, "gone", why, sizeof why) && make_expired();
}

static inline int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static inline void
remove_authorities(void)
{
    nftw(pki_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
