/* out: packets are collected by the port they leave through. */
#include "state.h"

void
out_init(struct worker *w)
{
    for (unsigned i = 0; i < OUT_HASH; i++) {
        w->out_of[i] = &w->out[0];
    }
}

static void
send_burst(struct worker *w, uint32_t index, struct rte_mbuf **pkts, unsigned n)
{
    struct fast_port *port;

    if (index == PORT_DROP) {
        worker_drop(w, ENGINE_DROP_ACTION, pkts, n);
        return;
    }
    port = engine_port(w->engine, index);
    if (port) {
        n = port->takes_partial ? n : worker_complete(w, pkts, n);
        if (likely_(n)) {
            port->send(port, w, pkts, n);
        }
    } else {
        worker_drop(w, ENGINE_DROP_NO_PORT, pkts, n);
    }
}

void
out_list_flush(struct worker *w, struct out_list *l)
{
    unsigned n = l->n, port = l->key - 1;

    l->n = 0;
    l->key = 0;
    w->out_used &= ~(1u << (l - w->out));
    for (unsigned i = 0; i < n; i += ENGINE_BURST) {
        send_burst(w, port, l->pkts + i, n - i < ENGINE_BURST ? n - i : ENGINE_BURST);
    }
}

struct out_list *
out_list_slow(struct worker *w, uint16_t port)
{
    struct out_list *l;

    for (uint32_t used = w->out_used; used; used &= used - 1) {
        l = &w->out[__builtin_ctz(used)];
        if (l->key == port + 1u) {
            w->out_of[port % OUT_HASH] = l;
            return l;
        }
    }
    if (w->out_used == UINT32_MAX) {
        worker_flush(w);
    }
    l = &w->out[__builtin_ctz(~w->out_used)];
    l->key = port + 1u;
    w->out_used |= 1u << (l - w->out);
    w->out_of[port % OUT_HASH] = l;
    return l;
}

void
out_burst(struct worker *w, uint16_t port, struct rte_mbuf **pkts, unsigned n)
{
    if (w->out_used) {
        worker_output(w, port, pkts, n);
    } else {
        send_burst(w, port, pkts, n);
    }
}

void
worker_output(struct worker *w, uint16_t port, struct rte_mbuf **pkts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct out_list *l = out_list(w, port);
        if (l->n >= ENGINE_BURST) {
            out_list_flush(w, l);
            l = out_list(w, port);
        }
        l->pkts[l->n++] = pkts[i];
    }
}

void
worker_flush(struct worker *w)
{
    while (w->out_used) {
        out_list_flush(w, &w->out[__builtin_ctz(w->out_used)]);
    }
}

void
worker_drop(struct worker *w, enum engine_drop reason, struct rte_mbuf **pkts, unsigned n)
{
    if (n) {
        WORKER_ADD(w, drops[reason], n);
        w->engine->ops->free(pkts, n);
    }
}
