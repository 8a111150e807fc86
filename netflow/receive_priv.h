/* receive_priv: what the files of the sockets share (see receive.h).
 *
 *   receive.c         addresses, the epoll descriptor, UDP
 *   receive_stream.c  TCP and TLS */
#ifndef RECEIVE_PRIV_H
#define RECEIVE_PRIV_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "receive.h"

#define DATAGRAMS 64u /* read at once */
#define DATAGRAM_MAX 65536u
/* From one to the next: not a power of two, so that the caches have room for all. */
#define DATAGRAM_STRIDE (DATAGRAM_MAX + 4096u + 128u)
#define MESSAGE_MAX 65535u
#define ALLOW_MAX 64u

enum watched_kind { WATCH_UDP, WATCH_STREAMS, WATCH_CONNECTION };

struct watched { /* what an epoll event points at */
    enum watched_kind kind;
    int fd;
};

struct listener {
    struct watched watched;
    struct listener *next;
    bool tls;
    uint32_t drops;    /* the kernel's counter, as last seen */
    uint64_t messages; /* datagrams, or connections */
    char spec[96];
};

struct connection {
    struct watched watched;
    struct connection *next;
    struct collect_peer peer;
    struct tls *tls; /* NULL: plain */
    uint64_t opened_ms;
    size_t have; /* bytes in 'buffer' */
    uint8_t buffer[MESSAGE_MAX];
};

struct prefix {
    struct in6_addr address; /* IPv4 as ::ffff:a.b.c.d */
    unsigned bits;           /* of 128 */
};

struct receive {
    struct collect *collect;
    struct receive_options options;
    int epoll;
    struct listener *listeners;
    struct connection *connections;
    unsigned n_connections;
    uint64_t last_connection;
    uint64_t refused;      /* connections beyond the limits */
    uint64_t not_allowed;  /* datagrams and connections */
    int64_t wall_ahead_ms; /* of CLOCK_BOOTTIME, when last looked */
    unsigned n_allow;      /* 0: anybody */
    struct prefix allow[ALLOW_MAX];
    struct ring *ring;
    unsigned rest_ms; /* see receive_run() */
};

union address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

/* Now.  Of a clock that was set the collector and the connections are told. */
uint64_t receive_time(struct receive *);
void receive_clocks(struct receive *, int64_t wall_ms, int64_t steady_ms);
void receive_peer(const union address *, struct collect_peer *);
/* Whether it may speak; counts it if not. */
bool receive_allows(struct receive *, const struct in6_addr *);
int receive_watch(struct receive *, struct watched *, uint32_t events);
void receive_log(const struct receive *, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

void receive_accept(struct receive *, struct listener *);
void receive_read(struct receive *, struct connection *);
void receive_close(struct receive *, struct connection *);
/* Ends handshakes that take too long. */
void receive_expire(struct receive *, uint64_t now_ms);

#endif
