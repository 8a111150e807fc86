/* Clients of the pool's database that come by TLS, as tests hold them. */
#ifndef TESTS_CTL_CLIENT_H
#define TESTS_CTL_CLIENT_H

#include <config.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include "ctl_switch.h"
#include "openvswitch/json.h"
#include "openvswitch/shash.h"
#include "timeval.h"
#include "util.h"

static struct ctl_switch files; /* the test's folder; 'db' is the pool's database */
static int port;                /* where clients come */

#define READ "{\"op\":\"select\",\"table\":\"Host\",\"where\":[],\"columns\":[\"name\"]}"
#define ASK(ID) "{\"method\":\"transact\",\"params\":[\"Weft_Pool\"," READ "],\"id\":" ID "}"

struct client {
    SSL_CTX *ctx;
    SSL *ssl;
    int fd;
    struct json_parser *parser;
    char buffer[32768];
    size_t at, n;
};

static inline void
client_close(struct client *c)
{
    if (c->parser) {
        json_destroy(json_parser_finish(c->parser));
    }
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
    close(c->fd);
    free(c);
}

/* With the certificate of 'name' in that folder. */
static inline struct client *
client_connect(const char *folder, const char *name, int receive_buffer)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval timeout = {.tv_sec = 10};
    struct client *c = xzalloc(sizeof *c);
    char key[128], certificate[128];

    snprintf(key, sizeof key, "%s/%s/%s.key", files.dir, folder, name);
    snprintf(certificate, sizeof certificate, "%s/%s/%s.crt", files.dir, folder, name);
    c->ctx = SSL_CTX_new(TLS_client_method());
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    in.sin_port = htons(port);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (receive_buffer) {
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    ovs_assert(SSL_CTX_use_certificate_file(c->ctx, certificate, SSL_FILETYPE_PEM) == 1 &&
               SSL_CTX_use_PrivateKey_file(c->ctx, key, SSL_FILETYPE_PEM) == 1);
    c->ssl = SSL_new(c->ctx);
    SSL_set_fd(c->ssl, c->fd);
    connect(c->fd, (struct sockaddr *)&in, sizeof in);
    return c;
}

/* Whether it is let in shows by an answer. */
static inline struct client *
client_open(const char *folder, const char *name, int receive_buffer)
{
    struct client *c = client_connect(folder, name, receive_buffer);

    SSL_connect(c->ssl);
    return c;
}

/* All that was to be written but the last 'keep' bytes goes out. */
static inline void
let_out(struct client *c, BIO *held, size_t keep)
{
    size_t n = BIO_pending(held);
    char *bytes = xmalloc(n + 1);

    n = n > keep ? n - keep : 0;
    ovs_assert(BIO_read(held, bytes, (int)n) == (int)n);
    ovs_assert(send(c->fd, bytes, n, 0) == (ssize_t)n);
    free(bytes);
}

/* The last byte of its handshake is not sent before client_finish(). */
static inline struct client *
client_open_but_one(const char *folder, const char *name)
{
    struct client *c = client_connect(folder, name, 0);
    BIO *held = BIO_new(BIO_s_mem());
    struct pollfd in = {.fd = c->fd, .events = POLLIN};

    SSL_set0_wbio(c->ssl, held);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    while (SSL_connect(c->ssl) != 1 && SSL_want_read(c->ssl)) {
        let_out(c, held, 0);
        if (poll(&in, 1, 10000) != 1) {
            break;
        }
    }
    fcntl(c->fd, F_SETFL, 0);
    let_out(c, held, 1);
    return c;
}

static inline void
client_finish(struct client *c)
{
    let_out(c, SSL_get_wbio(c->ssl), 0);
    SSL_set_fd(c->ssl, c->fd);
}

static inline void
say(struct client *c, const char *text)
{
    SSL_write(c->ssl, text, (int)strlen(text));
}

enum got { MESSAGE, CLOSED, NOTHING };

/* The next message, the caller's; 'pause_ms' before each piece of it. */
static inline enum got
hear(struct client *c, struct json **message, int pause_ms)
{
    *message = NULL;
    for (;;) {
        if (c->at == c->n) {
            int n;

            poll(NULL, 0, pause_ms);
            n = SSL_read(c->ssl, c->buffer, sizeof c->buffer);
            if (n <= 0) {
                return SSL_get_error(c->ssl, n) == SSL_ERROR_WANT_READ ? NOTHING : CLOSED;
            }
            c->at = 0;
            c->n = (size_t)n;
        }
        if (!c->parser) {
            c->parser = json_parser_create(0);
        }
        c->at += json_parser_feed(c->parser, c->buffer + c->at, c->n - c->at);
        if (json_parser_is_done(c->parser)) {
            *message = json_parser_finish(c->parser);
            c->parser = NULL;
            return MESSAGE;
        }
    }
}

static inline const struct json *
member(const struct json *object, const char *name)
{
    return object->type == JSON_OBJECT ? shash_find_data(json_object(object), name) : NULL;
}

/* An answer to what has the id 1, after probes, which are answered. */
static inline enum got
answer(struct client *c, struct json **message, int pause_ms)
{
    for (;;) {
        enum got got = hear(c, message, pause_ms);
        const struct json *method = got == MESSAGE ? member(*message, "method") : NULL;

        if (!method) {
            return got;
        }
        say(c, "{\"id\":\"echo\",\"result\":[],\"error\":null}");
        json_destroy(*message);
    }
}

/* One that is let in, and served. */
static inline bool
served(struct client *c)
{
    struct json *message;
    bool is;

    say(c, ASK("1"));
    is = answer(c, &message, 0) == MESSAGE && member(message, "result") &&
         member(message, "result")->type == JSON_ARRAY;
    json_destroy(message);
    return is;
}

/* The gate closes the connection; whatever it says before. */
static inline bool
is_closed(struct client *c)
{
    struct json *message;
    enum got got;

    while ((got = hear(c, &message, 0)) == MESSAGE) {
        json_destroy(message);
    }
    return got == CLOSED;
}

static inline bool
is_served(const char *folder, const char *name)
{
    struct client *c = client_open(folder, name, 0);
    bool is = served(c);

    client_close(c);
    return is;
}

/* From another address than the clients, and never says a word. */
static inline int
stranger(void)
{
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002)};
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    ovs_assert(!bind(fd, (struct sockaddr *)&from, sizeof from) &&
               !connect(fd, (struct sockaddr *)&to, sizeof to));
    return fd;
}

/* Within ten seconds. */
static inline bool
until(bool (*is)(const void *), const void *aux)
{
    long long int end = time_msec() + 10000;

    while (!is(aux)) {
        if (time_msec() > end) {
            return false;
        }
        usleep(20000);
    }
    return true;
}

#endif
