/* The REST interface and clients that mean harm: bodies, certificates, floods. */
#include <sys/resource.h>

#include "rest_rig.h"

static long
peak_kb(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

/* --- clients that mean harm --------------------------------------------------------- */

static void
test_bodies(void)
{
    static const char *const bad[] = {
        "{\"name\": \"\x80\"}",
        "{\"name\": \"\xc0\xaf\"}",
        "{\"name\": \"\xed\xa0\x80\"}",
        "{\"name\": \"\xf4\x90\x80\x80\"}",
        "{\"name\": \"a\", \"name\": \"b\"}",
        "[1]",
        "\"x\"",
        "{",
        "{\"name\": \"a\"} {}",
        "{\"name\": nul}",
    };
    size_t n = 9 << 20;
    char *big = malloc(n), text[300];
    json_t *json;
    long before;
    struct client c;

    CASE("rest/bad JSON");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(ask("POST", "/v1/vms", bad[i], &json) == 400);
        CHECK(says(json, "error", "bad_request"));
        json_decref(json);
    }
    CHECK(unix_request("POST", "/v1/vms", JSON_TYPE, "{\"name\":\"a\0\"}", 13, NULL) == 400);

    CASE("rest/deep JSON");
    memset(big, '[', n);
    memcpy(big, "{\"a\":", 5);
    before = peak_kb();
    CHECK(unix_request("POST", "/v1/check", JSON_TYPE, big, 8 << 20, NULL) == 400);
    CHECK(unix_request("POST", "/v1/vms", JSON_TYPE, big, 100000, NULL) == 400);
    for (size_t i = 5; i + 1 < n; i += 2) { /* wide instead */
        memcpy(big + i, "[]", 2);
        big[i + 1] = i + 3 < n ? ',' : ']';
    }
    CHECK(unix_request("POST", "/v1/check", JSON_TYPE, big, 8 << 20, NULL) == 400);

    CASE("rest/huge bodies");
    CHECK(unix_request("POST", "/v1/check", JSON_TYPE, big, 8 << 20, NULL) == 400);
    CHECK(ask("POST", "/v1/vms", NULL, NULL) == 400);
    c = (struct client){connect_unix(paths[SOCK]), NULL, NULL};
    snprintf(text, sizeof text,
             "POST /v1/check HTTP/1.1\r\nHost: x\r\n" JSON_TYPE
             "Content-Length: 1073741824\r\n\r\n");
    client_send(&c, text, strlen(text));
    CHECK(client_answer(&c, NULL, NULL) == 413);
    client_close(&c);
    c = (struct client){connect_unix(paths[SOCK]), NULL, NULL};
    snprintf(text, sizeof text,
             "POST /v1/check HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" JSON_TYPE
             "Transfer-Encoding: chunked\r\n\r\n900000\r\n");
    client_send(&c, text, strlen(text));
    client_send(&c, big, n);
    client_send(&c, "\r\n0\r\n\r\n", 7);
    CHECK(client_answer(&c, NULL, NULL) == 413);
    client_close(&c);
    CHECK(unix_request("POST", "/v1/vms", JSON_TYPE, big, 300 << 10, NULL) == 413);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(peak_kb() - before < 16 << 10);
#else
    (void)before;
#endif

    CASE("rest/large documents of who may import them");
    struct cert vera = cert_make("v", "viewer", CERT_CLIENT, &ca);
    memset(big, ' ', n);
    memcpy(big, "{\"version\": 1}", 14);
    big[n - 1] = '\0';
    CHECK(ask("POST", "/v1/check", big, NULL) == 200);
    CHECK(tls_ask(&vera, "POST", "/v1/check", big, NULL) == 413);
    CHECK(tls_ask(&vera, "POST", "/v1/check", "{\"version\": 1}", NULL) == 200);
    cert_free(&vera);

    CASE("rest/what is not JSON by its type");
    CHECK(unix_request("POST", "/v1/vms", "", "{}", 2, NULL) == 415);
    CHECK(unix_request("POST", "/v1/vms", "Content-Type: text/plain\r\n", "{}", 2, NULL) == 415);
    CHECK(unix_request("POST", "/v1/vms", "Content-Type: application/jsonx\r\n", "{}", 2, NULL) ==
          415);

    CASE("rest/long heads");
    memset(big, 'a', 100000);
    c = (struct client){connect_unix(paths[SOCK]), NULL, NULL};
    client_send(&c, "GET /", 5);
    client_send(&c, big, 100000);
    client_send(&c, " HTTP/1.1\r\n\r\n", 13);
    CHECK(client_answer(&c, NULL, NULL) >= 400);
    client_close(&c);
    CHECK(ask("GET", "/v1/status", NULL, NULL) == 200);
    free(big);
}

/* What an origin's page may have its browser do. */
static void
test_origin(void)
{
    struct cert admin = cert_make("root", "admin", CERT_CLIENT, &ca);

    CASE("rest/cross-origin");
    CHECK(tls_ask_from(1, &admin, "GET", "/v1/status", "Origin: https://evil.example\r\n", NULL,
                       NULL) == 403);
    CHECK(tls_ask_from(1, &admin, "GET", "/v1/status", "Origin: null\r\n", NULL, NULL) == 403);
    CHECK(tls_ask_from(1, &admin, "GET", "/v1/status", "Origin: https://controller\r\n", NULL,
                       NULL) == 200);
    cert_free(&admin);
}

/* Within a second, at the third try on a busy machine. */
static bool
refused_at_once(const struct cert *trust, const struct cert *cert, const char *priorities)
{
    for (int i = 0; i < 3; i++) {
        double start = now_s();
        struct client c = {connect_tcp(port, 1), NULL, NULL};
        int status = 0;

        if (client_tls(&c, trust, cert, priorities)) {
            status = client_request(&c, "GET", "/v1/whoami", "", NULL, 0, NULL, NULL);
        }
        client_close(&c);
        if (status || now_s() - start < 1) {
            return !status;
        }
    }
    return false;
}

/* Is answered within a second; on a busy machine, at the third try. */
static bool
served_at_once(unsigned from, const struct cert *cert)
{
    for (int i = 0; i < 3; i++) {
        double start = now_s();
        int status = cert ? tls_ask_from(from, cert, "GET", "/v1/status", "", NULL, NULL)
                          : ask("GET", "/v1/status", NULL, NULL);
        if (status == 200 && now_s() - start < 1) {
            return true;
        }
    }
    return false;
}

/* One more request of a connection that stays; its answer's status, 0: it was closed. */
static int
asks_again(struct client *c)
{
    static const char request[] = "GET /v1/whoami HTTP/1.1\r\nHost: controller\r\n\r\n";
    char text[2048] = "";
    ssize_t n, got = 0;
    int status = 0;

    if (!client_send(c, request, strlen(request))) {
        return 0;
    }
    while ((n = gnutls_record_recv(c->tls, text + got, sizeof text - 1 - got)) > 0) {
        got += n;
        if (strchr(text, '}')) {
            break;
        }
    }
    sscanf(text, "HTTP/1.1 %d", &status);
    return status;
}

static void
test_tls(void)
{
    struct cert other = cert_make("other CA", "", CERT_CA, NULL);
    struct cert good = cert_make("bob", "viewer", CERT_CLIENT, &ca);
    struct cert expired = cert_make("bob", "admin", CERT_CLIENT | CERT_EXPIRED, &ca);
    struct cert stranger = cert_make("bob", "admin", CERT_CLIENT, &other);
    struct cert self = cert_make("bob", "admin", CERT_CLIENT, NULL);
    struct cert host = cert_make("h1", "admin", CERT_SERVER, &ca);
    struct cert revoked = cert_make("eve", "admin", CERT_CLIENT, &ca);
    struct cert nobody = cert_make("h2", "host", CERT_CLIENT, &ca);
    struct cert server2 = cert_make("controller", "", CERT_SERVER, &other);
    struct client eve = {connect_tcp(port, 1), NULL, NULL},
                  bob = {connect_tcp(port, 1), NULL, NULL};
    json_t *json;

    CASE("rest/a connection that stays ends with its certificate");
    CHECK(client_tls(&eve, &ca, &revoked, NULL) && client_tls(&bob, &ca, &good, NULL));
    CHECK(asks_again(&eve) == 200 && asks_again(&eve) == 200 && asks_again(&bob) == 200);
    crl_write(&ca, &revoked, paths[CRL]);
    usleep(1500000); /* it is looked at once a second */
    CHECK(asks_again(&eve) == 0);
    CHECK(asks_again(&bob) == 200 && asks_again(&bob) == 200);
    client_close(&eve);
    client_close(&bob);

    CASE("rest/TLS client certificates");
    CHECK(tls_ask(&good, "GET", "/v1/whoami", NULL, &json) == 200);
    CHECK(says(json, "role", "viewer") && says(json, "name", "bob"));
    json_decref(json);
    CHECK(refused_at_once(&ca, NULL, NULL));
    CHECK(refused_at_once(&ca, &expired, NULL));
    CHECK(refused_at_once(&ca, &stranger, NULL));
    CHECK(refused_at_once(&ca, &self, NULL));
    CHECK(refused_at_once(&ca, &host, NULL));
    CHECK(refused_at_once(&ca, &revoked, NULL));
    CHECK(tls_ask(&nobody, "GET", "/v1/whoami", NULL, NULL) == 403);

    CASE("rest/TLS versions");
    CHECK(refused_at_once(&ca, &good, "NORMAL:-VERS-ALL:+VERS-TLS1.2"));
    CHECK(refused_at_once(&ca, &good, "NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0"));

    CASE("rest/a client sees through a wrong server");
    CHECK(refused_at_once(&other, &good, NULL));

    CASE("rest/certificates change while it runs");
    cert_write(&server2, paths[CRT], paths[KEY]);
    usleep(1500000);
    CHECK(refused_at_once(&ca, &good, NULL)); /* it shows the other CA's now */
    write_file(paths[CRT], "rubbish", 7);
    usleep(1500000);
    CHECK(refused_at_once(&ca, &good, NULL)); /* rubbish is not taken */
    cert_write(&server, paths[CRT], paths[KEY]);
    usleep(1500000);
    CHECK(tls_ask(&good, "GET", "/v1/whoami", NULL, NULL) == 200);

    struct cert *all[] = {&other, &good,    &expired, &stranger, &self,
                          &host,  &revoked, &nobody,  &server2};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        cert_free(all[i]);
    }
}

/* --- floods ----------------------------------------------------------------------------- */

#define SLOW 5000
/* What this server gives its clients, for tests to be short. */
enum { HEAD_MS = 2000, BODY_MS = 2000 };

/* Half-open requests from one address, with a byte now and then; others on the
 * same port and on the Unix socket are served. */
static void
test_slowloris(void)
{
    struct cert v = cert_make("v", "viewer", CERT_CLIENT, &ca);
    struct rlimit limit = {8192, 8192};
    unsigned before = count_fds(), worst = 0;
    int *fds = malloc(SLOW * sizeof *fds);

    CASE("rest/slowloris");
    CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
    for (int i = 0; i < SLOW; i++) {
        fds[i] = connect_tcp(port, 3);
        if (fds[i] >= 0) {
            (void)!send(fds[i], "\x16\x03\x01\x02", 4, MSG_NOSIGNAL);
        }
        if (i % 500 == 499) {
            unsigned ours = 0;
            for (int j = 0; j <= i; j++) {
                ours += fds[j] >= 0;
            }
            unsigned theirs = count_fds() - before - ours;
            worst = theirs > worst ? theirs : worst;
            for (int j = 0; j <= i; j++) {
                (void)!send(fds[j], "\0", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
            }
        }
    }
    CHECK(worst <= 3 * REST_PEER_CONNECTIONS);
    CHECK(served_at_once(0, NULL));
    CHECK(served_at_once(2, &v));

    CASE("rest/slowloris is cut off");
    /* The few that were let in lose their connections by themselves. */
    for (double end = now_s() + HEAD_MS / 1000 + 5; now_s() < end; usleep(100000)) {
        if (count_fds() <= before + SLOW) {
            break;
        }
        for (int j = 0; j < SLOW; j++) {
            (void)!send(fds[j], "\0", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
    }
    CHECK(count_fds() <= before + SLOW);
    for (int i = 0; i < SLOW; i++) {
        close(fds[i]);
    }
    CHECK(fds_back_to(before));
    CHECK(served_at_once(3, &v)); /* and its bucket has filled again */
    free(fds);

    CASE("rest/aborted handshakes leave nothing");
    before = count_fds();
    for (int i = 0; i < 2000; i++) {
        int fd = connect_tcp(port, 4);
        if (i % 2 && fd >= 0) {
            (void)!send(fd, "\x16\x03\x01\x00\x05hello", 10, MSG_NOSIGNAL);
        }
        close(fd);
    }
    CHECK(fds_back_to(before));
    CHECK(tls_ask_from(2, &v, "GET", "/v1/status", "", NULL, NULL) == 200);
    cert_free(&v);
}

/* A request on a connection that stays; the answer's status, 0 if there was none. */
static int
ask_and_stay(struct client *c)
{
    static const char request[] = "GET /v1/whoami HTTP/1.1\r\nHost: controller\r\n\r\n";
    char text[4096] = "", *end = NULL, *length;
    size_t n = 0, whole = sizeof text - 1;
    int status = 0;

    client_send(c, request, sizeof request - 1);
    while (n < whole) {
        ssize_t got = gnutls_record_recv(c->tls, text + n, whole - n);
        if (got <= 0) {
            return 0;
        }
        n += (size_t)got;
        text[n] = '\0';
        length = strstr(text, "Content-Length: ");
        if (!end && length && (end = strstr(text, "\r\n\r\n"))) {
            whole = (size_t)(end + 4 - text) + strtoul(length + 16, NULL, 10);
        }
    }
    sscanf(text, "HTTP/1.1 %d", &status);
    return status;
}

enum { STRANGERS = HTTP_CONNECTIONS + 2 * REST_PEER_CONNECTIONS };

/* Every place is a stranger's, those of the client's own address too.  One who has
 * shown who he is keeps his; another who can gets one. */
static void
test_strangers(void)
{
    struct cert v = cert_make("v", "viewer", CERT_CLIENT, &ca);
    struct cert nobody = cert_make("h2", "host", CERT_CLIENT, &ca);
    unsigned before = count_fds();
    struct client known = {connect_tcp(port, 5), NULL, NULL}, refused[2 * REST_PEER_CONNECTIONS];
    int fds[STRANGERS];

    CASE("rest/strangers keep nobody out");
    CHECK(client_tls(&known, &ca, &v, NULL));
    CHECK(ask_and_stay(&known) == 200);
    for (int i = 0; i < STRANGERS; i++) {
        fds[i] = connect_tcp(port, 5 + i / (REST_PEER_CONNECTIONS + 2));
    }
    CHECK(served_at_once(5, &v));
    CHECK(served_at_once(6, &v));
    CHECK(served_at_once(99, &v));
    CHECK(ask_and_stay(&known) == 200);
    for (int i = 0; i < STRANGERS; i++) {
        close(fds[i]);
    }
    client_close(&known);
    CHECK(fds_back_to(before));

    /* Having asked does not make a client known: none has a place any more, though
     * it keeps its end open and reads nothing. */
    CASE("rest/who was refused has no place");
    for (int i = 0; i < 2 * REST_PEER_CONNECTIONS; i++) {
        static const char request[] = "GET /v1/whoami HTTP/1.1\r\nHost: controller\r\n\r\n";
        refused[i] = (struct client){connect_tcp(i % 2 ? port : token_port, 7), NULL, NULL};
        CHECK(client_tls(&refused[i], &ca, i % 2 ? &nobody : NULL, NULL));
        CHECK(client_send(&refused[i], request, sizeof request - 1));
    }
    CHECK(served_at_once(7, &v));
    CHECK(fds_back_to(before + 2 * REST_PEER_CONNECTIONS));
    for (int i = 0; i < 2 * REST_PEER_CONNECTIONS; i++) {
        CHECK(client_answer(&refused[i], NULL, NULL) == (i % 2 ? 403 : 401));
        client_close(&refused[i]);
    }
    cert_free(&nobody);
    cert_free(&v);
}

/* A body that trickles in is cut off as well, whatever else its sender may. */
static void
test_slow_body(void)
{
    struct client c = {connect_unix(paths[SOCK]), NULL, NULL};
    static const char head[] =
        "POST /v1/check HTTP/1.1\r\nHost: x\r\n" JSON_TYPE "Content-Length: 1000000\r\n\r\n";
    double start = now_s();
    char byte;

    CASE("rest/a slow body");
    client_send(&c, head, sizeof head - 1);
    while (now_s() - start < BODY_MS / 1000 + 10 && client_send(&c, " ", 1)) {
        usleep(100000);
        if (recv(c.fd, &byte, 1, MSG_DONTWAIT) == 0) {
            break;
        }
    }
    CHECK(now_s() - start < BODY_MS / 1000 + 5);
    CHECK(now_s() - start > BODY_MS / 1000 - 0.2);
    client_close(&c);
}

int
main(void)
{
    struct rest_config config;

    CASE("rest/start");
    if (rig_start(&config)) {
        CHECK(!"starts");
        return check_done();
    }
    test_bodies();
    test_tls();
    test_origin();
    test_strangers();
    fake_stop(&pool);

    CASE("rest/start with less patience");
    config.head_ms = HEAD_MS;
    config.body_ms = BODY_MS;
    if (fake_start(&pool, &config, OBJECTS)) {
        CHECK(!"starts");
        rig_end();
        return check_done();
    }
    test_slowloris();
    test_slow_body();
    fake_stop(&pool);
    rig_end();
    return check_done();
}
