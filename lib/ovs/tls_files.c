#include <config.h>

#include "ovs/tls_files.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "stream-ssl.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(tls_files);

enum { LOOK_MS = 1000 };
enum { KEY, CERTIFICATE, CA }; /* in 'seen', 'respelt' */
enum { PAIR, AUTHORITIES };    /* in 'unusable' */

/* Nobody is asked for one. */
static int
no_password(char *to, int size, int writing, void *aux)
{
    return -1;
}

static EVP_PKEY *
read_key(const char *name)
{
    FILE *f = fopen(name, "re");
    EVP_PKEY *key = f ? PEM_read_PrivateKey(f, NULL, no_password, NULL) : NULL;

    if (f) {
        fclose(f);
    }
    return key;
}

static X509 *
read_certificate(const char *name)
{
    FILE *f = fopen(name, "re");
    X509 *crt = f ? PEM_read_X509(f, NULL, no_password, NULL) : NULL;

    if (f) {
        fclose(f);
    }
    return crt;
}

/* NULL, or why they cannot be used. */
static const char *
judge_pair(struct tls_files *t)
{
    EVP_PKEY *key = read_key(t->private_key);
    X509 *crt = read_certificate(t->certificate);
    const char *why = !key                                ? "the key cannot be read"
                      : !crt                              ? "it cannot be read"
                      : !X509_check_private_key(crt, key) ? "it is not the key's"
                                                          : NULL;

    if (!why && t->kind && t->kind != EVP_PKEY_get_base_id(key)) {
        why = "a key of another kind needs a restart";
    } else if (!why) {
        t->kind = EVP_PKEY_get_base_id(key);
    }
    X509_free(crt);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return why;
}

/* Open vSwitch's library would be left with no authority at all. */
static bool
has_authority(const char *name)
{
    X509_STORE *store = X509_STORE_new();
    X509_LOOKUP *lookup = store ? X509_STORE_add_lookup(store, X509_LOOKUP_file()) : NULL;
    bool has = lookup && X509_load_cert_crl_file(lookup, name, X509_FILETYPE_PEM) > 0;

    X509_STORE_free(store);
    ERR_clear_error();
    return has;
}

static bool
is_new(struct tls_files *t, int file, const char *name)
{
    bool new;

    return !file_seen_look(&t->seen[file], name, &new) && new;
}

/* stream-ssl does not read a file again that has the name and the time of change that it knows:
 * it is told the same file by another name each time. */
static void
take_up(struct tls_files *t, int file, const char *name, void (*take)(const char *))
{
    char *other = xasprintf("%s%s", name[0] == '/' ? "/." : "./", name);

    t->respelt[file] = !t->respelt[file];
    take(t->respelt[file] ? other : name);
    free(other);
}

static void
take_authorities(const char *name)
{
    stream_ssl_set_ca_cert_file(name, false);
}

static bool
refresh_pair(struct tls_files *t)
{
    bool key = is_new(t, KEY, t->private_key);
    bool certificate = is_new(t, CERTIFICATE, t->certificate);
    const char *why;

    if (!key && !certificate && !t->unusable[PAIR]) {
        return false;
    }
    why = judge_pair(t);
    if (why && (key || certificate)) {
        VLOG_WARN("%s: %s", t->certificate, why);
    }
    t->unusable[PAIR] = why != NULL;
    if (why) {
        return false;
    }
    /* Never by stream_ssl_set_key_and_cert(): asked when only one of them is new, it would
     * not look at that one again.  The certificate first: it takes a key that is not its
     * own away, and a key that is not the certificate's is refused. */
    take_up(t, CERTIFICATE, t->certificate, stream_ssl_set_certificate_file);
    take_up(t, KEY, t->private_key, stream_ssl_set_private_key_file);
    return true;
}

static bool
refresh_ca(struct tls_files *t)
{
    bool new = is_new(t, CA, t->ca_cert);

    if (!new && !t->unusable[AUTHORITIES]) {
        return false;
    }
    t->unusable[AUTHORITIES] = !has_authority(t->ca_cert);
    if (t->unusable[AUTHORITIES]) {
        if (new) {
            VLOG_WARN("%s: there is no certificate in it", t->ca_cert);
        }
        return false;
    }
    take_up(t, CA, t->ca_cert, take_authorities);
    return true;
}

unsigned
tls_files_refresh(struct tls_files *t)
{
    unsigned new = 0;

    if (time_msec() < t->next_look) {
        return 0;
    }
    t->next_look = time_msec() + LOOK_MS;
    if (t->private_key && t->certificate && refresh_pair(t)) {
        new |= TLS_FILES_OWN;
    }
    if (t->ca_cert && refresh_ca(t)) {
        new |= TLS_FILES_CA;
    }
    return new;
}

void
tls_files_wait(const struct tls_files *t)
{
    if (t->private_key || t->ca_cert) {
        poll_timer_wait_until(t->next_look);
    }
}
