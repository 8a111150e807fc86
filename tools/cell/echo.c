/* echo: TCP and UDP echo on port 7. */
#include "guest.h"
#include "lwip/tcp.h"
#include "lwip/udp.h"

#define ECHO_PORT 7

struct echo_stats echo_stats;

/* What a connection received and could not send back yet is its callback
 * argument, a chain of pbufs.  The sender's window covers it. */
static void
send_back(struct tcp_pcb *pcb, struct pbuf *p)
{
    while (p) {
        u16_t n = LWIP_MIN(p->len, tcp_sndbuf(pcb));
        if (!n || tcp_write(pcb, p->payload, n, TCP_WRITE_FLAG_COPY) != ERR_OK) {
            break;
        }
        tcp_recved(pcb, n);
        echo_stats.tcp_bytes += n;
        p = pbuf_free_header(p, n);
    }
    tcp_arg(pcb, p);
    tcp_output(pcb);
}

static err_t
echo_sent(void *arg, struct tcp_pcb *pcb, u16_t n)
{
    if (arg) {
        send_back(pcb, arg);
    }
    return ERR_OK;
}

static err_t
echo_poll(void *arg, struct tcp_pcb *pcb)
{
    return echo_sent(arg, pcb, 0);
}

static void
echo_gone(void *arg, err_t why)
{
    echo_stats.tcp_open--;
    if (arg) {
        pbuf_free(arg);
    }
}

static err_t
echo_received(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
    struct pbuf *waiting = arg;

    if (p) {
        if (waiting) {
            pbuf_cat(waiting, p);
            p = waiting;
        }
        send_back(pcb, p);
        return ERR_OK;
    }
    /* The end; what has not gone back by now is of no use to a peer that closed. */
    if (waiting) {
        pbuf_free(waiting);
    }
    tcp_arg(pcb, NULL);
    tcp_err(pcb, NULL);
    tcp_recv(pcb, NULL);
    tcp_sent(pcb, NULL);
    tcp_poll(pcb, NULL, 0);
    echo_stats.tcp_open--;
    if (tcp_close(pcb) != ERR_OK) {
        tcp_abort(pcb);
        return ERR_ABRT;
    }
    return ERR_OK;
}

static err_t
echo_accepted(void *arg, struct tcp_pcb *pcb, err_t err)
{
    if (!pcb || err != ERR_OK) {
        return ERR_VAL;
    }
    echo_stats.tcp_open++;
    tcp_nagle_disable(pcb);
    tcp_arg(pcb, NULL);
    tcp_recv(pcb, echo_received);
    tcp_sent(pcb, echo_sent);
    tcp_err(pcb, echo_gone);
    tcp_poll(pcb, echo_poll, 10);
    return ERR_OK;
}

static void
echo_datagram(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *from, u16_t port)
{
    echo_stats.udp_datagrams++;
    udp_sendto(pcb, p, from, port);
    pbuf_free(p);
}

void
echo_init(void)
{
    struct tcp_pcb *tcp = tcp_new();
    struct udp_pcb *udp = udp_new();

    if (!tcp || !udp || tcp_bind(tcp, IP_ANY_TYPE, ECHO_PORT) != ERR_OK ||
        udp_bind(udp, IP_ANY_TYPE, ECHO_PORT) != ERR_OK) {
        guest_panic("no echo port");
    }
    tcp = tcp_listen(tcp);
    tcp_accept(tcp, echo_accepted);
    udp_recv(udp, echo_datagram, NULL);
}
