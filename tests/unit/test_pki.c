/* The pool's certificate authority: what it makes holds in a TLS handshake, and
 * what must be refused is. */
#include <errno.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "pki_priv.h"

static char dir[] = "/tmp/test_pki.XXXXXX";
static char ours[64], theirs[64];
static char why[700];

/* --- a handshake ------------------------------------------------------------------ */

struct side {
    const char *dir, *name; /* whose certificate */
    const char *trust;      /* directory of the authority it believes in */
    const char *expect;     /* the peer's name or address, or NULL */
    int version;            /* the newest it speaks; 0: any */
    int fd;
    bool server, ok;
};

static void *
shake(void *side_)
{
    struct side *s = side_;
    SSL_CTX *ctx = SSL_CTX_new(s->server ? TLS_server_method() : TLS_client_method());
    char crt[100], key[100], ca[100], crl[100], byte = 'x';
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    struct timeval patience = {5, 0};
    SSL *ssl;

    snprintf(crt, sizeof crt, "%s/%s.crt", s->dir, s->name);
    snprintf(key, sizeof key, "%s/%s.key", s->dir, s->name);
    snprintf(ca, sizeof ca, "%s/ca.crt", s->trust);
    snprintf(crl, sizeof crl, "%s/crl.pem", s->trust);
    s->ok = SSL_CTX_use_certificate_file(ctx, crt, SSL_FILETYPE_PEM) == 1 &&
            SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) == 1 &&
            SSL_CTX_load_verify_file(ctx, ca) == 1 && X509_STORE_load_file(store, crl) == 1;
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_min_proto_version(ctx, s->version ? s->version : TLS1_3_VERSION);
    SSL_CTX_set_max_proto_version(ctx, s->version);
    ssl = SSL_new(ctx);
    if (s->expect && !X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), s->expect)) {
        SSL_set1_host(ssl, s->expect);
    }
    setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    SSL_set_fd(ssl, s->fd);
    s->ok = s->ok && (s->server ? SSL_accept(ssl) : SSL_connect(ssl)) == 1;
    /* In TLS 1.3 a client learns only now that it was refused. */
    s->ok = s->ok && SSL_write(ssl, &byte, 1) == 1 && SSL_read(ssl, &byte, 1) == 1;
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(s->fd);
    return NULL;
}

/* Whether both sides are content, and how long it took them. */
static bool
one_handshake(struct side server, struct side client, long *ms)
{
    struct timespec from, to;
    pthread_t thread;
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds)) {
        return false;
    }
    server.server = true;
    server.fd = fds[0];
    client.fd = fds[1];
    clock_gettime(CLOCK_MONOTONIC, &from);
    pthread_create(&thread, NULL, shake, &server);
    shake(&client);
    pthread_join(thread, NULL);
    clock_gettime(CLOCK_MONOTONIC, &to);
    *ms = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
    return server.ok && client.ok;
}

/* Either way within a second, at the third try on a busy machine. */
static bool
handshake(struct side server, struct side client)
{
    long ms = 0;
    bool ok = one_handshake(server, client, &ms);

    for (int i = 0; i < 2 && ms >= 1000; i++) {
        CHECK(one_handshake(server, client, &ms) == ok);
    }
    CHECK(ms < 1000);
    return ok;
}

static bool
host_to_host(const char *server, const char *client, const char *expect)
{
    return handshake((struct side){.dir = ours, .name = server, .trust = ours},
                     (struct side){.dir = ours, .name = client, .trust = ours, .expect = expect});
}

/* --- what is made ------------------------------------------------------------------- */

static mode_t
mode_of(const char *d, const char *file)
{
    char path[200];
    struct stat st;

    snprintf(path, sizeof path, "%s/%s", d, file);
    return stat(path, &st) ? 0 : st.st_mode & 07777;
}

static int
issue(const char *name, const char *role, enum pki_key key, const char *a, const char *b)
{
    const char *addresses[] = {a, b};
    struct pki_request q = {.name = name,
                            .role = role,
                            .key = key,
                            .days = PKI_DAYS,
                            .addresses = addresses,
                            .n_addresses = !!a + !!b};

    return pki_issue(ours, &q, why, sizeof why);
}

static void
test_make(void)
{
    CASE("pki/init");
    CHECK(!pki_init(ours, "ours", PKI_EC_P256, PKI_CA_DAYS, why, sizeof why));
    CHECK(!pki_init(theirs, "theirs", PKI_RSA_3072, PKI_CA_DAYS, why, sizeof why));
    CHECK(mode_of(ours, "") == 0700 && mode_of(ours, "ca.key") == 0600);
    CHECK(pki_init(ours, "ours", PKI_EC_P256, PKI_CA_DAYS, why, sizeof why) == EEXIST);

    CASE("pki/hosts and users");
    CHECK(!issue("h1", NULL, PKI_EC_P256, "10.0.0.1", "fd00::1"));
    CHECK(!issue("h2", NULL, PKI_RSA_3072, NULL, NULL));
    CHECK(!issue("alice", "admin", PKI_EC_P256, NULL, NULL));
    CHECK(!issue("bob", "tenant:acme", PKI_EC_P256, NULL, NULL));
    CHECK(mode_of(ours, "h1.key") == 0600 && mode_of(ours, "h1.crt") == 0644);
    CHECK(issue("h1", NULL, PKI_EC_P256, NULL, NULL) == EEXIST);
    CHECK(strstr(why, "rotate"));
}

static void
test_requests(void)
{
    static const struct {
        const char *name, *role, *address;
    } bad[] = {
        {"", NULL, NULL},
        {"../x", NULL, NULL},
        {".x", NULL, NULL},
        {"a b", NULL, NULL},
        {"a\nb", NULL, NULL},
        {"a,DNS:b", NULL, NULL},
        {"ca", NULL, NULL},
        {"crl", NULL, NULL},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", NULL, NULL},
        {"x", "root", NULL},
        {"x", "tenant:", NULL},
        {"x", "", NULL},
        {"x", NULL, "10.0.0.1,DNS:y"},
        {"x", NULL, "10.0.0.1/8"},
        {"x", NULL, "300.1.1.1"},
        {"x", NULL, "10.0.0"},
        {"x", NULL, ""},
    };
    struct pki_request q = {.name = "x", .days = 0};
    char brief[64];

    CASE("pki/bad requests");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        why[0] = '\0';
        CHECK(issue(bad[i].name, bad[i].role, PKI_EC_P256, bad[i].address, NULL) == EINVAL);
        CHECK(*why);
    }
    CHECK(pki_issue(ours, &q, why, sizeof why) == EINVAL);
    q.days = PKI_DAYS;
    snprintf(brief, sizeof brief, "%s/brief", dir);
    CHECK(!pki_init(brief, "brief", PKI_EC_P256, 100, why, sizeof why));
    CHECK(pki_issue(brief, &q, why, sizeof why) == EINVAL && strstr(why, "--days"));
    CHECK(!pki_exists(ours, "x", ".crt") && !pki_exists(brief, "x", ".key"));
    CHECK(pki_rotate(ours, "nobody", PKI_DAYS, why, sizeof why));
    CHECK(pki_revoke(ours, "nobody", why, sizeof why));
    CHECK(pki_rotate(ours, "ca", PKI_DAYS, why, sizeof why) == EINVAL);
    CHECK(pki_issue(dir, &q, why, sizeof why) == ENOENT && strstr(why, "pki init"));
}

static void
test_form(void)
{
    X509 *crt = pki_read_cert(ours, "h1", why, sizeof why);
    X509 *user = pki_read_cert(ours, "bob", why, sizeof why);
    X509 *ca = pki_read_cert(ours, "ca", why, sizeof why);
    char text[600];
    int days, secs;

    CASE("pki/what certificates are for");
    CHECK(X509_check_purpose(crt, X509_PURPOSE_SSL_SERVER, 0) == 1);
    CHECK(X509_check_purpose(crt, X509_PURPOSE_SSL_CLIENT, 0) == 1);
    CHECK(X509_check_purpose(user, X509_PURPOSE_SSL_SERVER, 0) == 0);
    CHECK(X509_check_purpose(user, X509_PURPOSE_SSL_CLIENT, 0) == 1);
    CHECK(X509_check_ca(crt) == 0 && X509_check_ca(user) == 0 && X509_check_ca(ca) == 1);
    CHECK(X509_get_pathlen(ca) == 0);
    CHECK(X509_get_key_usage(crt) == KU_DIGITAL_SIGNATURE);
    CHECK(X509_get_key_usage(ca) == (KU_KEY_CERT_SIGN | KU_CRL_SIGN));
    pki_names(crt, false, text, sizeof text);
    CHECK(!strcmp(text, "h1 10.0.0.1 fd00::1"));
    pki_subject(user, NID_organizationalUnitName, text, sizeof text);
    CHECK(!strcmp(text, "tenant:acme"));
    CHECK(ASN1_TIME_diff(&days, &secs, NULL, X509_get0_notAfter(crt)) && days >= PKI_DAYS - 1 &&
          days <= PKI_DAYS);
    CHECK(X509_cmp_current_time(X509_get0_notBefore(crt)) < 0);
    CHECK(ASN1_STRING_length(X509_get0_serialNumber(crt)) == 16);
    CHECK(ASN1_INTEGER_cmp(X509_get0_serialNumber(crt), X509_get0_serialNumber(user)));
    X509_free(crt);
    X509_free(user);
    X509_free(ca);
}

/* A certificate as pki would make it, but with an end in the past. */
static void
make_expired(void)
{
    struct pki_ca ca = {pki_read_cert(ours, "ca", why, sizeof why),
                        pki_read_key(ours, "ca", why, sizeof why)};
    EVP_PKEY *key = pki_key_make(PKI_EC_P256);
    X509 *crt = pki_cert_make(key, "old", "host", "DNS:old", 1, &ca);

    X509_gmtime_adj(X509_getm_notBefore(crt), -7200);
    X509_gmtime_adj(X509_getm_notAfter(crt), -3600);
    X509_sign(crt, ca.key, EVP_sha256());
    CHECK(!pki_write_pair(ours, "old", key, crt, why, sizeof why));
    X509_free(crt);
    EVP_PKEY_free(key);
    X509_free(ca.crt);
    EVP_PKEY_free(ca.key);
}

static void
test_handshakes(void)
{
    const struct pki_request other = {.name = "h1", .days = PKI_DAYS};

    CASE("pki/handshakes that hold");
    CHECK(host_to_host("h1", "h2", "h1"));
    CHECK(host_to_host("h1", "h2", "10.0.0.1"));
    CHECK(host_to_host("h1", "alice", "fd00::1"));
    CHECK(host_to_host("h2", "h1", "h2"));

    CASE("pki/handshakes that must not");
    CHECK(!host_to_host("h1", "h2", "h2"));       /* wrong name */
    CHECK(!host_to_host("h1", "h2", "10.0.0.2")); /* wrong address */
    CHECK(!host_to_host("alice", "h1", NULL));    /* a user does not serve */
    make_expired();
    CHECK(!host_to_host("h1", "old", "h1"));
    CHECK(!host_to_host("old", "h1", "old"));
    CHECK(!pki_issue(theirs, &other, why, sizeof why));
    CHECK(!handshake((struct side){.dir = ours, .name = "h1", .trust = ours},
                     (struct side){.dir = theirs, .name = "h1", .trust = ours, .expect = "h1"}));
    CHECK(!handshake((struct side){.dir = theirs, .name = "h1", .trust = ours},
                     (struct side){.dir = ours, .name = "h2", .trust = ours, .expect = "h1"}));
    CHECK(!handshake(
        (struct side){.dir = ours, .name = "h1", .trust = ours},
        (struct side){
            .dir = ours, .name = "h2", .trust = ours, .expect = "h1", .version = TLS1_1_VERSION}));
}

/* --- rotation and revocation ------------------------------------------------------------- */

static void
test_rotate(void)
{
    X509 *old = pki_read_cert(ours, "h1", why, sizeof why), *crt;
    char before[300], after[300];

    CASE("pki/rotate");
    pki_names(old, true, before, sizeof before);
    CHECK(!pki_rotate(ours, "h1", PKI_DAYS, why, sizeof why));
    crt = pki_read_cert(ours, "h1", why, sizeof why);
    pki_names(crt, true, after, sizeof after);
    CHECK(!strcmp(before, after));
    CHECK(EVP_PKEY_eq(X509_get0_pubkey(old), X509_get0_pubkey(crt)) == 0);
    CHECK(host_to_host("h1", "h2", "10.0.0.1"));
    CHECK(mode_of(ours, "h1.key") == 0600);
    CHECK(!pki_exists(ours, "h1", ".key.new") && !pki_exists(ours, "h1", ".crt.new"));
    CHECK(!pki_rotate(ours, "bob", PKI_DAYS, why, sizeof why));
    X509_free(crt);
    crt = pki_read_cert(ours, "bob", why, sizeof why);
    CHECK(X509_check_purpose(crt, X509_PURPOSE_SSL_SERVER, 0) == 0);
    X509_free(crt);
    X509_free(old);
}

static void
copy(const char *from, const char *to)
{
    char a[100], b[100], data[8192] = "";
    FILE *in, *out;

    for (int i = 0; i < 2; i++) {
        snprintf(a, sizeof a, "%s/%s%s", ours, from, i ? ".key" : ".crt");
        snprintf(b, sizeof b, "%s/%s%s", ours, to, i ? ".key" : ".crt");
        in = fopen(a, "r");
        out = fopen(b, "w");
        fwrite(data, 1, fread(data, 1, sizeof data, in), out);
        fclose(in);
        fclose(out);
    }
}

static unsigned listed, wrong;

static void
count(const struct pki_cert *c, void *aux)
{
    listed++;
    wrong += c->wrong != NULL;
}

static void
test_revoke(void)
{
    CASE("pki/revoke");
    copy("h2", "stolen");
    copy("alice", "copied");
    CHECK(host_to_host("h1", "stolen", "h1"));
    CHECK(!pki_revoke(ours, "h2", why, sizeof why));
    CHECK(!pki_revoke(ours, "alice", why, sizeof why));
    CHECK(!host_to_host("h1", "stolen", "h1"));
    CHECK(!host_to_host("h1", "copied", "h1"));
    CHECK(!host_to_host("stolen", "h1", "h2"));
    CHECK(!pki_exists(ours, "h2", ".key"));
    CHECK(!issue("h2", NULL, PKI_EC_P256, NULL, NULL)); /* the name is free */
    CHECK(host_to_host("h1", "h2", "h1"));

    CASE("pki/list");
    CHECK(!pki_list(ours, count, NULL, why, sizeof why));
    CHECK(listed == 7); /* the CA, bob, copied, h1, h2, old, stolen */
    CHECK(wrong == 3);  /* copied, old, stolen */
}

/* Several at once each do their work whole. */
static void
test_at_once(void)
{
    pid_t pids[6];

    CASE("pki/at once");
    for (int i = 0; i < 6; i++) {
        pids[i] = fork();
        if (!pids[i]) {
            _exit(pki_rotate(ours, "h1", PKI_DAYS, why, sizeof why) != 0);
        }
    }
    for (int i = 0; i < 6; i++) {
        int status;
        CHECK(waitpid(pids[i], &status, 0) == pids[i] && !status);
    }
    CHECK(host_to_host("h1", "h2", "h1")); /* key and certificate are a pair */
}

static void
remove_dir(const char *path)
{
    char command[200];

    snprintf(command, sizeof command, "rm -rf '%s'", path);
    CHECK(!system(command));
}

int
main(void)
{
    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(dir)) {
        return 1;
    }
    snprintf(ours, sizeof ours, "%s/ours", dir);
    snprintf(theirs, sizeof theirs, "%s/theirs", dir);
    test_make();
    test_requests();
    test_form();
    test_handshakes();
    test_rotate();
    test_revoke();
    test_at_once();
    remove_dir(dir);
    return check_done();
}
