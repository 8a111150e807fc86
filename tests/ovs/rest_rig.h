/* rest_rig: a REST server on a Unix socket and on TLS, with a pool in memory
 * behind it, and requests to it. */
#ifndef REST_RIG_H
#define REST_RIG_H

#include <dirent.h>
#include <signal.h>

#include "check.h"
#include "rest_fake.h"
#include "rest_priv.h"
#include "tcp_port.h"

#define OBJECTS                                                                                    \
    "{\"pool\": [{\"default_action\": \"deny\", \"generation\": 1}],"                              \
    " \"host\": [{\"name\": \"h1\", \"ovsdb\": \"unix:/x\"}],"                                     \
    " \"tenant\": [{\"name\": \"red\", \"uuid\": \"8a2f1d6e-0000-4000-8000-000000000002\"},"       \
    "   {\"name\": \"green\"}],"                                                                   \
    " \"network\": [{\"name\": \"nr\", \"tenant\": \"red\", \"uuid\":"                             \
    "   \"8a2f1d6e-0000-4000-8000-000000000001\"}, {\"name\": \"ng\", \"tenant\": \"green\"}],"    \
    " \"vm\": [{\"name\": \"r1\", \"tenant\": \"red\"}, {\"name\": \"g1\", \"tenant\": "           \
    "\"green\"}],"                                                                                 \
    " \"vif\": [{\"name\": \"r1-0\", \"vm\": \"r1\", \"network\": \"nr\"},"                        \
    "   {\"name\": \"g1-0\", \"vm\": \"g1\", \"network\": \"ng\"}],"                               \
    " \"group\": [{\"name\": \"all\", \"addresses\": [\"10.0.0.0/8\"]},"                           \
    "   {\"name\": \"gr\", \"tenant\": \"red\", \"vms\": [\"r1\"]},"                               \
    "   {\"name\": \"gg\", \"tenant\": \"green\"}],"                                               \
    " \"policy\": [{\"name\": \"base\", \"scope\": \"global\"},"                                   \
    "   {\"name\": \"pr\", \"scope\": \"vm\", \"vm\": \"r1\"},"                                    \
    "   {\"name\": \"pg\", \"scope\": \"vif\", \"vif\": \"g1-0\"}],"                               \
    " \"rule\": [{\"name\": \"ssh\", \"policy\": \"base\", \"order\": 1},"                         \
    "   {\"name\": \"web\", \"policy\": \"pr\", \"order\": 1}],"                                   \
    " \"mirror\": [{\"name\": \"m1\"}], \"exporter\": [{\"name\": \"e1\"}], \"bond\": "            \
    "[{\"name\": \"b1\"}], \"pif\": [{\"name\": \"p1\"}],"                                         \
    " \"user\": [{\"name\": \"alice\", \"role\": \"tenant\", \"tenant\": \"red\"},"                \
    "   {\"name\": \"mallory\", \"role\": \"admin\", \"enabled\": false}]}"

static char dir[] = "/tmp/test_ctl_rest.XXXXXX";
static char paths[9][120];
enum { SOCK, AUDIT, CRT, KEY, CA, CRL, UNIX, SSL, TOKEN };
static struct cert ca, server;
static unsigned port, token_port;
static struct fake pool;

/* --- helpers --------------------------------------------------------------------- */

static inline int
unix_request(const char *method, const char *path, const char *headers, const void *body, size_t n,
             json_t **json)
{
    struct client c = {connect_unix(paths[SOCK]), NULL, NULL};
    int status = client_request(&c, method, path, headers, body, n, json, NULL);

    client_close(&c);
    return status;
}

/* With a JSON text as body, or NULL. */
static inline int
ask(const char *method, const char *path, const char *body, json_t **json)
{
    return unix_request(method, path, body ? JSON_TYPE : "", body, body ? strlen(body) : 0, json);
}

static inline int
tls_ask_from(unsigned from, const struct cert *cert, const char *method, const char *path,
             const char *headers, const char *body, json_t **json)
{
    struct client c = {connect_tcp(port, from), NULL, NULL};
    int status = 0;

    if (client_tls(&c, &ca, cert, NULL)) {
        status =
            client_request(&c, method, path, headers, body, body ? strlen(body) : 0, json, NULL);
    } else if (json) {
        *json = NULL;
    }
    client_close(&c);
    return status;
}

static inline int
tls_ask(const struct cert *cert, const char *method, const char *path, const char *body,
        json_t **json)
{
    return tls_ask_from(1, cert, method, path, body ? JSON_TYPE : "", body, json);
}

static inline bool
says(json_t *json, const char *key, const char *value)
{
    const char *s = json_string_value(json_object_get(json, key));

    return s && !strcmp(s, value);
}

static inline unsigned
count_fds(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");

    while (d && readdir(d)) {
        n++;
    }
    closedir(d);
    return n;
}

static inline bool
fds_back_to(unsigned n)
{
    for (double end = now_s() + 5; now_s() < end; usleep(20000)) {
        if (count_fds() <= n) {
            return true;
        }
    }
    return false;
}

static inline void
remove_all(void)
{
    char path[200];

    for (int i = SOCK; i <= CRL; i++) {
        unlink(paths[i]);
    }
    snprintf(path, sizeof path, "%s.1", paths[AUDIT]);
    unlink(path);
    rmdir(dir);
}

static inline int
rig_start(struct rest_config *config)
{
    static const char *const names[] = {"sock", "audit", "crt", "key", "ca", "crl"};
    static const char *listen[3] = {paths[UNIX], paths[SSL], paths[TOKEN]};
    struct cert none;

    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(dir)) {
        return errno;
    }
    for (int i = SOCK; i <= CRL; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/%s", dir, names[i]);
    }
    port = tcp_port_free();
    do {
        token_port = tcp_port_free();
    } while (token_port == port);
    snprintf(paths[UNIX], sizeof paths[UNIX], "unix:%.100s", paths[SOCK]);
    snprintf(paths[SSL], sizeof paths[SSL], "ssl:%u:127.0.0.1", port);
    snprintf(paths[TOKEN], sizeof paths[TOKEN], "token:%u:127.0.0.1", token_port);
    ca = cert_make("test CA", "", CERT_CA, NULL);
    server = cert_make("controller", "", CERT_SERVER, &ca);
    none = cert_make("none", "", CERT_CLIENT, &ca);
    cert_write(&ca, paths[CA], NULL);
    cert_write(&server, paths[CRT], paths[KEY]);
    crl_write(&ca, &none, paths[CRL]);
    cert_free(&none);
    *config = (struct rest_config){.listen = listen,
                                   .n_listen = 3,
                                   .private_key = paths[KEY],
                                   .certificate = paths[CRT],
                                   .ca_cert = paths[CA],
                                   .crl = paths[CRL],
                                   .audit = paths[AUDIT]};
    return fake_start(&pool, config, OBJECTS);
}

/* After fake_stop(). */
static inline void
rig_end(void)
{
    remove_all();
    cert_free(&ca);
    cert_free(&server);
}

#endif
