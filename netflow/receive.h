/* receive: the collector's sockets: NetFlow, IPFIX and sFlow over UDP, IPFIX over TCP and TLS.
 *
 * Any of the protocols on any UDP port: a datagram says which it is.  One epoll
 * descriptor holds them all; the caller waits on it and calls receive_run().
 *
 * Streams are bounded: in all and of one address; a handshake must end within 10 s.
 *
 * Threads: one.  Ownership: the collector stays the caller's and outlives it. */
#ifndef RECEIVE_H
#define RECEIVE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "collect.h"
#include "tls.h"

struct receive;

struct receive_options {
    unsigned buffer_bytes; /* of each UDP socket */
    unsigned connections;  /* in all */
    unsigned connections_per_host;
    struct tls_config *tls;        /* for tls:, the caller's; NULL: there is none */
    void (*log)(const char *line); /* one line, no end */
};

int receive_create(struct collect *, const struct receive_options *, struct receive **);
void receive_destroy(struct receive *);

/* "udp:PORT[:IP]", "tcp:PORT[:IP]", "tls:PORT[:IP]"; an IPv6 address in brackets or bare;
 * without one, all addresses of both families.  Port 0 picks one.  0, or an errno with a sentence
 * in 'why'. */
int receive_listen(struct receive *, const char *spec, char *why, size_t why_size);

/* "ADDRESS" or "ADDRESS/BITS": from then on nothing else is heard than what was allowed by one
 * of these.  0, or an errno with a sentence in 'why'. */
int receive_allow(struct receive *, const char *spec, char *why, size_t why_size);

/* "ADDRESS=N", "ADDRESS/BITS=N": see collect_assume(). */
int receive_assume(struct receive *, const char *spec, char *why, size_t why_size);

/* For connections from now on. */
void receive_set_tls(struct receive *, struct tls_config *);

/* Readable when there is something to do. */
int receive_fd(const struct receive *);
/* Does it, for a bounded time.  Returns for how many ms it is best left alone then: a few
 * datagrams each time cost more than many at once, and the sockets' buffers hold them. */
unsigned receive_run(struct receive *);
/* Once a second: handshakes that take too long, the collector's own clock. */
void receive_tick(struct receive *);

/* Array of {"listen": "udp:2055", ...}; the caller's. */
json_t *receive_status(const struct receive *);

/* Milliseconds of the Unix epoch. */
uint64_t receive_now_ms(void);

#endif
