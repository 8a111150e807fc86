/* peer: connections that the guest opens to an echo server, a message on each
 * every so often, compared when it comes back. */
#include "guest.h"
#include "lwip/tcp.h"

#define PEERS 256u
#define MESSAGE 32u

struct peer_stats peer_stats;

struct peer {
    struct tcp_pcb *pcb; /* NULL: free */
    bool connected;
    uint64_t period_ns, next_ns;
    uint64_t sent, echoed; /* bytes */
};

static struct peer peers[PEERS];

static uint8_t
message_byte(const struct peer *p, uint64_t i)
{
    return (uint8_t)((i * 31 + (uint64_t)(p - peers) * 7) ^ (i >> 8));
}

static void
drop(struct peer *p)
{
    if (p->pcb) {
        p->pcb = NULL;
        peer_stats.open -= p->connected;
        p->connected = false;
    }
}

static void
peer_gone(void *arg, err_t why)
{
    if (arg) {
        peer_stats.broken++;
        drop(arg);
    }
}

static err_t
peer_received(void *arg, struct tcp_pcb *pcb, struct pbuf *data, err_t err)
{
    struct peer *p = arg;

    if (!data) {
        peer_stats.broken++;
        drop(p);
        tcp_arg(pcb, NULL);
        tcp_abort(pcb);
        return ERR_ABRT;
    }
    for (struct pbuf *b = data; b; b = b->next) {
        for (unsigned i = 0; i < b->len; i++, p->echoed++) {
            peer_stats.corrupt += ((uint8_t *)b->payload)[i] != message_byte(p, p->echoed);
        }
    }
    peer_stats.echoed += data->tot_len;
    tcp_recved(pcb, data->tot_len);
    pbuf_free(data);
    return ERR_OK;
}

static err_t
peer_connected(void *arg, struct tcp_pcb *pcb, err_t err)
{
    struct peer *p = arg;

    p->connected = true;
    p->next_ns = guest_clock();
    peer_stats.open++;
    return ERR_OK;
}

static bool
open_peer(struct peer *p, uint32_t ip, uint16_t port, unsigned ms)
{
    ip_addr_t to = {ip};

    *p = (struct peer){.pcb = tcp_new(), .period_ns = ms * 1000000ull, .next_ns = UINT64_MAX};
    if (!p->pcb) {
        return false;
    }
    tcp_arg(p->pcb, p);
    tcp_err(p->pcb, peer_gone);
    tcp_recv(p->pcb, peer_received);
    tcp_nagle_disable(p->pcb);
    if (tcp_connect(p->pcb, &to, port, peer_connected) != ERR_OK) {
        tcp_arg(p->pcb, NULL);
        tcp_abort(p->pcb);
        p->pcb = NULL;
        return false;
    }
    peer_stats.begun++;
    return true;
}

unsigned
peer_connect(uint32_t ip, uint16_t port, unsigned n, unsigned ms)
{
    unsigned begun = 0;

    for (unsigned i = 0; i < PEERS && begun < n; i++) {
        if (!peers[i].pcb) {
            if (!open_peer(&peers[i], ip, port, ms ? ms : 1000)) {
                break;
            }
            begun++;
        }
    }
    return begun;
}

void
peer_poll(uint64_t now)
{
    uint8_t message[MESSAGE];

    for (unsigned i = 0; i < PEERS; i++) {
        struct peer *p = &peers[i];
        if (!p->connected || p->next_ns > now) {
            continue;
        }
        p->next_ns = now + p->period_ns;
        if (tcp_sndbuf(p->pcb) < MESSAGE) {
            continue;
        }
        for (unsigned b = 0; b < MESSAGE; b++) {
            message[b] = message_byte(p, p->sent + b);
        }
        if (tcp_write(p->pcb, message, MESSAGE, TCP_WRITE_FLAG_COPY) == ERR_OK) {
            p->sent += MESSAGE;
            peer_stats.sent += MESSAGE;
            tcp_output(p->pcb);
        }
    }
}

uint64_t
peer_deadline(void)
{
    uint64_t next = UINT64_MAX;

    for (unsigned i = 0; i < PEERS; i++) {
        if (peers[i].connected && peers[i].next_ns < next) {
            next = peers[i].next_ns;
        }
    }
    return next;
}
