/* transport_peer: gives up a peer that is dead, or that takes nothing.
 *
 * The two are told apart by whether its machine still answers.  One that is alive and
 * slow (stopped, swapping) closes its window and acknowledges every probe of it:
 * TCP_USER_TIMEOUT would end its connection like a dead one's.  So a thread looks at the
 * connections from time to time.  Where nothing is under way, keepalive sees to it.
 *
 * Threads: one of its own, from transport_start() to transport_close(). */
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "transport_priv.h"

enum {
    LOOK_MIN_MS = 50,
    LOOKS = 5,      /* in the shorter one of both times */
    UNANSWERED = 2, /* one may just have been sent */
};

/* Bytes are on their way and their peer's machine has said nothing since. */
static bool
is_dead(const struct tcp_info *i, unsigned dead_peer_ms)
{
    return (i->tcpi_probes >= UNANSWERED || i->tcpi_retransmits >= UNANSWERED) &&
           i->tcpi_last_ack_recv >= dead_peer_ms;
}

static bool
takes_nothing(struct connection *c, const struct tcp_info *i, uint64_t now, unsigned stall_ms)
{
    bool waits = i->tcpi_unacked || i->tcpi_notsent_bytes;

    if (!waits || i->tcpi_bytes_acked != c->acked || !c->acked_ns) {
        c->acked = i->tcpi_bytes_acked;
        c->acked_ns = now;
    }
    return waits && now - c->acked_ns >= stall_ms * 1000000ull;
}

static void
look(struct connection *c)
{
    struct transport *t = c->t;
    struct tcp_info i = {0};
    socklen_t len = sizeof i;

    if (getsockopt(c->io.fd, IPPROTO_TCP, TCP_INFO, &i, &len)) {
        return;
    }
    if (is_dead(&i, t->dead_peer_ms)) {
        transport_fail(t, ETIMEDOUT, "connection %u: the peer does not answer", c->index);
    } else if (takes_nothing(c, &i, transport_now(), t->stall_ms)) {
        transport_fail(t, ETIMEDOUT, "connection %u: the peer has taken nothing for %u ms",
                       c->index, t->stall_ms);
    }
}

void *
transport_peer_main(void *transport)
{
    struct transport *t = transport;
    unsigned shorter = t->dead_peer_ms < t->stall_ms ? t->dead_peer_ms : t->stall_ms;
    unsigned ms = shorter / LOOKS > LOOK_MIN_MS ? shorter / LOOKS : LOOK_MIN_MS;
    struct pollfd closing = {.fd = t->closing_fd, .events = POLLIN};

    while (poll(&closing, 1, ms) <= 0 && !atomic_load(&t->error)) { /* a signal ends no watch */
        for (unsigned i = 0; i < t->n; i++) {
            look(&t->c[i]);
        }
    }
    return NULL;
}
