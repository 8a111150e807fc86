#include <config.h>

#include "host_peer.h"

#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "file_seen.h"
#include "hash.h"
#include "openvswitch/vlog.h"
#include "packets.h"
#include "socket-util.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(host_peer);

enum { AGAIN_MS = 1000 };

SSL *__real_SSL_new(SSL_CTX *);
SSL *__wrap_SSL_new(SSL_CTX *);
int __real_SSL_connect(SSL *);
int __wrap_SSL_connect(SSL *);

static struct hmap peers = HMAP_INITIALIZER(&peers);
static int min_version = TLS1_3_VERSION;

/* A file of revocation lists. */
struct crl {
    char *file;
    struct file_seen seen;
    long long again;   /* ms; when to try again one that cannot be read; 0: it could */
    X509_STORE *lists; /* what could be read of it last, or NULL */
};

static struct crl crls[HOST_PEER_CRLS];
static size_t n_crls;
static bool new_lists;     /* that host_peer_refresh() has not told */
static X509_STORE *joined; /* the context's authorities with the lists; a reference */
static SSL_CTX *context;   /* stream-ssl's, once it has made a connection */
static SSL *newest;        /* of the latest stream, which owns it */

static uint32_t
hash_address(const struct sockaddr_storage *ss)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)ss;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;

    return ss->ss_family == AF_INET ? hash_2words((uint32_t)in->sin_addr.s_addr, in->sin_port)
                                    : hash_bytes(&in6->sin6_addr, 16, in6->sin6_port);
}

static bool
same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    const struct sockaddr_in *a4 = (const struct sockaddr_in *)a;
    const struct sockaddr_in *b4 = (const struct sockaddr_in *)b;
    const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)a;
    const struct sockaddr_in6 *b6 = (const struct sockaddr_in6 *)b;

    if (a->ss_family != b->ss_family) {
        return false;
    }
    return a->ss_family == AF_INET
               ? a4->sin_addr.s_addr == b4->sin_addr.s_addr && a4->sin_port == b4->sin_port
               : IN6_ARE_ADDR_EQUAL(&a6->sin6_addr, &b6->sin6_addr) &&
                     a6->sin6_port == b6->sin6_port;
}

static const struct host_peer *
find(const struct sockaddr_storage *address)
{
    const struct host_peer *peer;

    HMAP_FOR_EACH_WITH_HASH (peer, node, hash_address(address), &peers) {
        if (same_address(&peer->address, address)) {
            return peer;
        }
    }
    return NULL;
}

void
host_peer_expect(struct host_peer *peer, const char *target, const char *name)
{
    host_peer_forget(peer);
    if (strncmp(target, "ssl:", 4) ||
        !inet_parse_active(target + 4, -1, &peer->address, false, NULL)) {
        return;
    }
    peer->name = xstrdup(name);
    hmap_insert(&peers, &peer->node, hash_address(&peer->address));
}

void
host_peer_forget(struct host_peer *peer)
{
    if (peer->name) {
        hmap_remove(&peers, &peer->node);
        free(peer->name);
    }
    memset(peer, 0, sizeof *peer);
}

bool
host_peer_add_crl(const char *file)
{
    if (n_crls == HOST_PEER_CRLS) {
        return false;
    }
    crls[n_crls++].file = xstrdup(file);
    return true;
}

void
host_peer_allow_tls12(void)
{
    min_version = TLS1_2_VERSION;
}

/* Whether the file is to be read; says in '*is_new' whether it is another than the last. */
static bool
is_to_be_read(struct crl *crl, bool *is_new)
{
    int error = file_seen_look(&crl->seen, crl->file, is_new);

    if (error) {
        VLOG_ERR_ONCE("%s: %s", crl->file, ovs_strerror(error));
    }
    return !error && (*is_new || (crl->again && time_msec() >= crl->again));
}

/* The file's lists take the place of those before; true if they do. */
static bool
read_lists(struct crl *crl)
{
    X509_STORE *store;
    X509_LOOKUP *lookup;
    bool is_new;

    if (!is_to_be_read(crl, &is_new)) {
        return false;
    }
    store = X509_STORE_new();
    lookup = store ? X509_STORE_add_lookup(store, X509_LOOKUP_file()) : NULL;
    if (!lookup || X509_load_crl_file(lookup, crl->file, X509_FILETYPE_PEM) <= 0) {
        if (is_new) {
            VLOG_ERR("%s: no revocation list could be read: %s", crl->file,
                     ERR_error_string(ERR_get_error(), NULL));
        }
        ERR_clear_error();
        X509_STORE_free(store);
        crl->again = time_msec() + AGAIN_MS;
        return false;
    }
    crl->again = 0;
    X509_STORE_free(crl->lists);
    crl->lists = store;
    return true;
}

static bool
add_lists(X509_STORE *store, X509_STORE *lists)
{
    STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(lists);
    bool ok = true;

    for (int i = 0; ok && i < sk_X509_OBJECT_num(objects); i++) {
        X509_CRL *list = X509_OBJECT_get0_X509_CRL(sk_X509_OBJECT_value(objects, i));

        ok = !list || X509_STORE_add_crl(store, list);
    }
    return ok;
}

/* These certificates and all files' lists.  Never a store with lists added: of two lists as
 * old as each other OpenSSL may take the former. */
static X509_STORE *
join(X509_STORE *authorities)
{
    STACK_OF(X509_OBJECT) *certs = X509_STORE_get0_objects(authorities);
    X509_STORE *store = X509_STORE_new();
    bool ok = store;

    for (int i = 0; ok && i < sk_X509_OBJECT_num(certs); i++) {
        X509 *cert = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(certs, i));

        ok = !cert || X509_STORE_add_cert(store, cert);
    }
    for (size_t i = 0; ok && i < n_crls; i++) {
        ok = !crls[i].lists || add_lists(store, crls[i].lists);
    }
    if (!ok) {
        X509_STORE_free(store);
        return NULL;
    }
    return store;
}

/* Until a list has been read, nobody is let in; from then on the last one of each file that
 * could be read holds, with other authorities too. */
static void
load_crl(SSL_CTX *ctx)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    bool fresh = false, any = false;

    for (size_t i = 0; i < n_crls; i++) {
        fresh |= read_lists(&crls[i]);
        any |= crls[i].lists != NULL;
    }
    new_lists |= fresh;
    if (any && (fresh || store != joined)) {
        store = join(store);
        if (store) {
            SSL_CTX_set_cert_store(ctx, store);
            X509_STORE_free(joined);
            X509_STORE_up_ref(store); /* or another might come to be where it was */
            joined = store;
        }
    }
    X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx), X509_V_FLAG_CRL_CHECK);
}

bool
host_peer_refresh(void)
{
    bool new;

    if (n_crls && context) {
        load_crl(context);
    }
    new = new_lists;
    new_lists = false;
    return new;
}

SSL *
__wrap_SSL_new(SSL_CTX *ctx)
{
    SSL *ssl;

    context = ctx;
    if (n_crls) {
        load_crl(ctx);
    }
    ssl = newest = __real_SSL_new(ctx);
    if (ssl) {
        if (n_crls) {
            /* Also if the context gets other authorities before it is verified. */
            X509_VERIFY_PARAM_set_flags(SSL_get0_param(ssl), X509_V_FLAG_CRL_CHECK);
        }
        /* A version that cannot be set leaves OpenSSL's own, which is older. */
        ovs_assert(SSL_set_min_proto_version(ssl, min_version));
    }
    return ssl;
}

/* stream-ssl makes one word of it all, "Protocol error".  OpenSSL's queue is its to read. */
static void
note_failure(struct host_peer *peer, SSL *ssl, int result)
{
    long verified = SSL_get_verify_result(ssl);
    unsigned long error = ERR_peek_error();

    if (result == 1) {
        peer->why[0] = '\0';
    } else if (verified == X509_V_ERR_HOSTNAME_MISMATCH) {
        snprintf(peer->why, sizeof peer->why, "its certificate does not name host \"%.64s\"",
                 peer->name);
    } else if (verified != X509_V_OK) {
        snprintf(peer->why, sizeof peer->why, "its certificate is refused: %s",
                 X509_verify_cert_error_string(verified));
    } else if (SSL_get_error(ssl, result) == SSL_ERROR_SSL && error) {
        const char *reason = ERR_reason_error_string(error);

        snprintf(peer->why, sizeof peer->why, "TLS: %s", reason ? reason : "protocol error");
    }
}

int
__wrap_SSL_connect(SSL *ssl)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    const struct host_peer *expected;
    struct host_peer *peer;
    int result;

    expected =
        getpeername(SSL_get_fd(ssl), (struct sockaddr *)&address, &len) ? NULL : find(&address);
    if (expected && !SSL_set1_host(ssl, expected->name)) {
        return -1;
    }
    result = __real_SSL_connect(ssl);
    if (expected) {
        /* A host's database and switch may be expected at one address. */
        HMAP_FOR_EACH_WITH_HASH (peer, node, hash_address(&address), &peers) {
            if (same_address(&peer->address, &address)) {
                note_failure(peer, ssl, result);
            }
        }
    }
    return result;
}

const char *
host_peer_error(const struct host_peer *peer, int error)
{
    return error == EPROTO && peer->why[0] ? peer->why : ovs_retval_to_string(error);
}

SSL *
host_peer_newest(void)
{
    return newest;
}

bool
host_peer_still_good(SSL *ssl)
{
    X509 *cert = SSL_get0_peer_certificate(ssl);
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    bool good;

    if (n_crls) {
        load_crl(SSL_get_SSL_CTX(ssl));
    }
    good = ctx && cert &&
           X509_STORE_CTX_init(ctx, SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl)), cert,
                               SSL_get_peer_cert_chain(ssl)) &&
           X509_STORE_CTX_set_default(ctx, SSL_is_server(ssl) ? "ssl_client" : "ssl_server") &&
           X509_verify_cert(ctx) == 1;
    X509_STORE_CTX_free(ctx);
    ERR_clear_error();
    return good;
}

long long int
host_peer_good_until(SSL *ssl)
{
    STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
    long long int now = time_wall_msec(), least = LLONG_MAX;
    int days, seconds;

    for (int i = 0; i < sk_X509_num(chain); i++) {
        const ASN1_TIME *end = X509_get0_notAfter(sk_X509_value(chain, i));

        if (!ASN1_TIME_diff(&days, &seconds, NULL, end)) {
            return now;
        }
        least = MIN(least, now + (days * 86400LL + seconds) * 1000);
    }
    return chain ? least : now;
}

void
host_peer_watch(SSL *ssl, int silent_ms)
{
    int fd = SSL_get_fd(ssl), on = 1, every_s = MAX(silent_ms / 1000, 1),
        between_s = 1 + every_s / 4;
    unsigned end_ms = (unsigned)silent_ms * 2;

    if (setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &every_s, sizeof every_s) ||
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between_s, sizeof between_s) ||
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &end_ms, sizeof end_ms) ||
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on)) {
        VLOG_WARN_ONCE("a peer that is gone will not be noticed: %s", ovs_strerror(errno));
    }
}

uint64_t
host_peer_taken(SSL *ssl)
{
    int unacknowledged = 0;

    ioctl(SSL_get_fd(ssl), SIOCOUTQ, &unacknowledged);
    return BIO_number_written(SSL_get_wbio(ssl)) - (uint64_t)unacknowledged;
}
