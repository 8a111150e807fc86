/* http: the guest's HTTP/1.1 server on port 80.  GET only:
 *
 *   /data/BYTES?seed=N     that many bytes of the pattern (pattern.h)
 *   /stats                 JSON
 *   /dirty?rate=MB&set=MB  sets the dirtier (MB/s; the set once)
 *   /check                 reads the whole working set; JSON when done
 *   /connect?to=IP:PORT&n=N&ms=MS   opens connections to an echo server
 *
 * A UDP datagram "/stats", "/check" or "/dirty?.." to the same port does the same; its
 * answer is /stats as it is then.
 *
 * A body is made while it is sent: data straight from the pattern, without a copy. */
#include "guest.h"
#include "lwip/tcp.h"
#include "lwip/udp.h"
#include "pattern.h"

#define HTTP_PORT 80
#define CONNS 768u
#define REQUEST_MAX 1024u
#define STATS_MAX 1200u
#define REPLY_MAX (STATS_MAX + 300u)
#define CHUNK 16384u

struct http_stats {
    uint64_t open, requests, bad, bytes, refused;
};

struct conn {
    struct tcp_pcb *pcb; /* NULL: free */
    bool close;          /* after this answer */
    bool waits;          /* for a check */
    uint16_t n_request;
    uint64_t at, left; /* of the body: place in the resource, bytes to go */
    char request[REQUEST_MAX];
};

static struct http_stats http_stats;
static struct conn conns[CONNS];
static uint8_t pattern[2 * CELL_PATTERN_BYTES]; /* twice, so that a chunk never wraps */

static void take_requests(struct conn *);

/* --- answers -------------------------------------------------------------------- */

static void
finish(struct conn *c)
{
    struct tcp_pcb *pcb = c->pcb;

    c->pcb = NULL;
    http_stats.open--;
    tcp_arg(pcb, NULL);
    tcp_recv(pcb, NULL);
    tcp_sent(pcb, NULL);
    tcp_err(pcb, NULL);
    tcp_poll(pcb, NULL, 0);
    tcp_close(pcb); /* without memory for a FIN it is lwIP's timer that sends it */
}

static void
pump(struct conn *c)
{
    while (c->left) {
        uint32_t room = tcp_sndbuf(c->pcb);
        uint32_t n = room < CHUNK ? room : CHUNK;
        n = n < c->left ? n : (uint32_t)c->left;
        uint32_t place = (uint32_t)(c->at % CELL_PATTERN_BYTES);
        uint8_t flags = n < c->left ? TCP_WRITE_FLAG_MORE : 0;
        if (!n || tcp_write(c->pcb, pattern + place, (u16_t)n, flags) != ERR_OK) {
            break;
        }
        c->at += n;
        c->left -= n;
        http_stats.bytes += n;
    }
    tcp_output(c->pcb);
}

static void
answer(struct conn *c, const char *status, const char *type, const char *body, uint64_t len)
{
    char head[REPLY_MAX];
    size_t n = guest_format(head, sizeof head,
                            "HTTP/1.1 %s\r\nServer: cell\r\nContent-Type: %s\r\n"
                            "Content-Length: %llu\r\nConnection: %s\r\n\r\n%s",
                            status, type, (unsigned long long)len,
                            c->close ? "close" : "keep-alive", body ? body : "");

    if (tcp_write(c->pcb, head, (u16_t)n, TCP_WRITE_FLAG_COPY) != ERR_OK) {
        c->close = true;
        c->left = 0;
    }
}

static size_t
format_stats(char *body, size_t size)
{
    const struct net_stats *n = &net_stats;
    const struct dirty_stats *d = &dirty_stats;
    const struct peer_stats *p = &peer_stats;
#define U(x) ((unsigned long long)(x))
    return guest_format(
        body, size,
        "{\"clock_ms\": %llu, \"moves\": %llu, \"rx_frames\": %llu, \"tx_frames\": %llu,"
        " \"tx_full\": %llu, \"resent\": %llu, \"http\": {\"open\": %llu, \"requests\": %llu,"
        " \"bad\": %llu, \"bytes\": %llu, \"refused\": %llu}, \"echo\": {\"open\": %llu,"
        " \"bytes\": %llu, \"datagrams\": %llu}, \"peers\": {\"open\": %llu, \"begun\": %llu,"
        " \"sent\": %llu, \"echoed\": %llu, \"corrupt\": %llu, \"broken\": %llu},"
        " \"dirty\": {\"rate_mbps\": %llu, \"set_pages\": %llu, \"written\": %llu,"
        " \"checks\": %llu, \"corrupt\": %llu, \"first_bad\": %llu}}\n",
        U(guest_clock() / 1000000), U(n->moves), U(n->rx_frames), U(n->tx_frames), U(n->tx_full),
        U(n->resent), U(http_stats.open), U(http_stats.requests), U(http_stats.bad),
        U(http_stats.bytes), U(http_stats.refused), U(echo_stats.tcp_open), U(echo_stats.tcp_bytes),
        U(echo_stats.udp_datagrams), U(p->open), U(p->begun), U(p->sent), U(p->echoed),
        U(p->corrupt), U(p->broken), U(d->rate_mbps), U(d->set_pages), U(d->written), U(d->checks),
        U(d->corrupt), U(d->first_bad));
}

static void
answer_stats(struct conn *c)
{
    char body[STATS_MAX];
    size_t len = format_stats(body, sizeof body);

    answer(c, "200 OK", "application/json", body, len);
}

void
http_answer_checks(void)
{
    for (unsigned i = 0; i < CONNS; i++) {
        struct conn *c = &conns[i];
        if (c->pcb && c->waits) {
            c->waits = false;
            answer_stats(c);
            tcp_output(c->pcb);
            take_requests(c);
        }
    }
}

/* --- requests --------------------------------------------------------------------- */

static bool
starts_with(const char *s, const char *with)
{
    return !strncmp(s, with, strlen(with));
}

/* "A.B.C.D:PORT" */
static bool
parse_target(const char *s, uint32_t *ip, uint16_t *port)
{
    uint32_t part[5] = {0};

    for (unsigned i = 0; i < 5; i++) {
        if (*s < '0' || *s > '9') {
            return false;
        }
        for (; *s >= '0' && *s <= '9' && part[i] < 65536; s++) {
            part[i] = part[i] * 10 + (uint32_t)(*s - '0');
        }
        if (i < 4 && (part[i] > 255 || *s++ != (i == 3 ? ':' : '.'))) {
            return false;
        }
    }
    *ip = lwip_htonl(part[0] << 24 | part[1] << 16 | part[2] << 8 | part[3]);
    *port = (uint16_t)part[4];
    return part[4] && part[4] < 65536;
}

static void
handle_connect(struct conn *c, const char *query)
{
    char body[64];
    uint32_t ip;
    uint16_t port;
    const char *to = query;

    while (*to && !starts_with(to, "to=")) {
        to++;
    }
    if (!*to || !parse_target(to + 3, &ip, &port)) {
        answer(c, "400 Bad Request", "text/plain", NULL, 0);
        return;
    }
    unsigned n = peer_connect(ip, port, (unsigned)guest_number(query, "n", 1),
                              (unsigned)guest_number(query, "ms", 1000));
    size_t len = guest_format(body, sizeof body, "{\"begun\": %u}\n", n);
    answer(c, "200 OK", "application/json", body, len);
}

static void
handle_dirty(struct conn *c, const char *query)
{
    char body[96];
    uint64_t rate = guest_number(query, "rate", dirty_stats.rate_mbps);
    uint64_t room = dirty_set(rate, guest_number(query, "set", 0));
    size_t len = guest_format(body, sizeof body, "{\"rate_mbps\": %llu, \"set_mb\": %llu}\n",
                              (unsigned long long)dirty_stats.rate_mbps, (unsigned long long)room);

    answer(c, "200 OK", "application/json", body, len);
}

static void
handle(struct conn *c, const char *path)
{
    http_stats.requests++;
    if (starts_with(path, "/data/")) {
        uint64_t bytes = 0, seed = guest_number(path, "seed", 0);
        for (const char *d = path + 6; *d >= '0' && *d <= '9' && bytes < UINT64_MAX / 100; d++) {
            bytes = bytes * 10 + (uint64_t)(*d - '0');
        }
        c->at = seed % CELL_PATTERN_BYTES * CELL_PATTERN_STEP;
        answer(c, "200 OK", "application/octet-stream", NULL, bytes);
        c->left = bytes;
        pump(c);
    } else if (!strcmp(path, "/stats")) {
        answer_stats(c);
    } else if (starts_with(path, "/dirty?")) {
        handle_dirty(c, path + 7);
    } else if (starts_with(path, "/connect?")) {
        handle_connect(c, path + 9);
    } else if (!strcmp(path, "/check")) {
        c->waits = true;
        dirty_check();
    } else {
        http_stats.bad++;
        answer(c, "404 Not Found", "text/plain", NULL, 0);
    }
}

/* The length of the first whole request, 0 if there is none yet. */
static unsigned
request_length(const struct conn *c)
{
    for (unsigned i = 3; i < c->n_request; i++) {
        if (!strncmp(c->request + i - 3, "\r\n\r\n", 4)) {
            return i + 1;
        }
    }
    return 0;
}

static bool
says_close(char *request)
{
    for (char *s = request; *s; s++) {
        if (starts_with(s, "\nConnection: close") || starts_with(s, "\nconnection: close")) {
            return true;
        }
    }
    return false;
}

static void
take_request(struct conn *c, unsigned len)
{
    c->request[len - 1] = '\0';
    c->close = says_close(c->request) || !starts_with(c->request, "GET /");
    if (!starts_with(c->request, "GET /")) {
        http_stats.bad++;
        answer(c, "405 Method Not Allowed", "text/plain", NULL, 0);
    } else {
        char *path = c->request + 4, *end = path;
        while (*end && *end != ' ' && *end != '\r') {
            end++;
        }
        *end = '\0';
        handle(c, path);
    }
    c->n_request = (uint16_t)(c->n_request - len);
    memmove(c->request, c->request + len, c->n_request);
}

/* Serves what has come whole, one after the other. */
static void
take_requests(struct conn *c)
{
    while (!c->left && !c->waits && !c->close) {
        unsigned len = request_length(c);
        if (!len) {
            c->close = c->n_request == REQUEST_MAX;
            break;
        }
        take_request(c, len);
    }
    tcp_output(c->pcb);
    if (c->close && !c->left && !c->waits) {
        finish(c);
    }
}

/* --- connections -------------------------------------------------------------------- */

static err_t
http_sent(void *arg, struct tcp_pcb *pcb, u16_t n)
{
    struct conn *c = arg;

    if (c->left) {
        pump(c);
        if (!c->left) {
            take_requests(c);
        }
    }
    return ERR_OK;
}

/* Also after a write that found no memory. */
static err_t
http_poll(void *arg, struct tcp_pcb *pcb)
{
    return http_sent(arg, pcb, 0);
}

static void
http_gone(void *arg, err_t why)
{
    struct conn *c = arg;

    c->pcb = NULL;
    http_stats.open--;
}

static err_t
http_received(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
    struct conn *c = arg;

    if (!p) {
        c->left = 0;
        c->waits = false;
        finish(c);
        return ERR_OK;
    }
    u16_t n = p->tot_len;
    u16_t room = (u16_t)(REQUEST_MAX - c->n_request);
    if (n > room && (c->left || c->waits)) {
        return ERR_MEM; /* lwIP offers it again */
    }
    if (n > room) {
        tcp_recved(pcb, n);
        pbuf_free(p);
        finish(c);
        return ERR_OK;
    }
    pbuf_copy_partial(p, c->request + c->n_request, n, 0);
    c->n_request = (uint16_t)(c->n_request + n);
    tcp_recved(pcb, n);
    pbuf_free(p);
    take_requests(c);
    return ERR_OK;
}

static err_t
http_accepted(void *arg, struct tcp_pcb *pcb, err_t err)
{
    struct conn *c = conns;

    if (!pcb || err != ERR_OK) {
        return ERR_VAL;
    }
    while (c < conns + CONNS && c->pcb) {
        c++;
    }
    if (c == conns + CONNS) {
        http_stats.refused++;
        tcp_abort(pcb);
        return ERR_ABRT;
    }
    memset(c, 0, sizeof *c);
    c->pcb = pcb;
    http_stats.open++;
    tcp_arg(pcb, c);
    tcp_recv(pcb, http_received);
    tcp_sent(pcb, http_sent);
    tcp_err(pcb, http_gone);
    tcp_poll(pcb, http_poll, 2);
    return ERR_OK;
}

static void
http_datagram(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *from, u16_t port)
{
    char path[128] = "";

    pbuf_copy_partial(p, path, sizeof path - 1, 0);
    pbuf_free(p);
    if (!strcmp(path, "/check")) {
        dirty_check();
    } else if (starts_with(path, "/dirty?")) {
        dirty_set(guest_number(path + 7, "rate", dirty_stats.rate_mbps),
                  guest_number(path + 7, "set", 0));
    }
    p = pbuf_alloc(PBUF_TRANSPORT, STATS_MAX, PBUF_RAM);
    if (p) {
        pbuf_realloc(p, (u16_t)format_stats(p->payload, STATS_MAX));
        udp_sendto(pcb, p, from, port);
        pbuf_free(p);
    }
}

void
http_init(void)
{
    struct tcp_pcb *pcb = tcp_new();
    struct udp_pcb *udp = udp_new();

    cell_pattern_fill(pattern);
    memcpy(pattern + CELL_PATTERN_BYTES, pattern, CELL_PATTERN_BYTES);
    if (!pcb || tcp_bind(pcb, IP_ANY_TYPE, HTTP_PORT) != ERR_OK) {
        guest_panic("no HTTP port");
    }
    pcb = tcp_listen_with_backlog(pcb, 255);
    tcp_accept(pcb, http_accepted);
    if (!udp || udp_bind(udp, IP_ANY_TYPE, HTTP_PORT) != ERR_OK) {
        guest_panic("no UDP port");
    }
    udp_recv(udp, http_datagram, NULL);
}
