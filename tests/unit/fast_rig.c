/* fast_rig: see fast_rig.h. */
#include "fast_rig.h"

#include <stdlib.h>

static _Atomic long alive;

struct rte_mbuf *
fast_rig_mbuf(const void *frame, unsigned len)
{
    struct rte_mbuf *m = aligned_alloc(64, sizeof *m);
    char *buf = malloc(FAST_RIG_HEADROOM + len);

    memset(m, 0, sizeof *m);
    memcpy(buf + FAST_RIG_HEADROOM, frame, len);
    m->buf_addr = buf;
    m->data_off = FAST_RIG_HEADROOM;
    m->buf_len = FAST_RIG_HEADROOM + len;
    m->data_len = m->pkt_len = len;
    m->nb_segs = 1;
    atomic_fetch_add(&alive, 1);
    return m;
}

void
fast_rig_mbuf_free(struct rte_mbuf **pkts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        free(pkts[i]->buf_addr);
        free(pkts[i]);
    }
    atomic_fetch_sub(&alive, n);
}

long
fast_rig_mbufs_alive(void)
{
    return atomic_load(&alive);
}

static void
port_send(struct fast_port *port, struct worker *w, struct rte_mbuf **pkts, unsigned n)
{
    struct fast_rig_port *p = (struct fast_rig_port *)port;
    uint64_t bytes = 0;

    (void)w;
    for (unsigned i = 0; i < n; i++) {
        bytes += pkts[i]->data_len;
    }
    atomic_fetch_add(&p->packets, n);
    atomic_fetch_add(&p->bytes, bytes);
    atomic_fetch_add(&p->sends, 1);
    if (p->keep) {
        if (p->last) {
            fast_rig_mbuf_free(&p->last, 1);
        }
        p->last = pkts[--n];
    }
    fast_rig_mbuf_free(pkts, n);
}

void
fast_rig_port_init(struct fast_rig_port *p, struct engine *e, uint16_t index)
{
    *p = (struct fast_rig_port){.port.send = port_send, .index = index};
    engine_port_set(e, index, &p->port);
}

void
fast_rig_port_done(struct fast_rig_port *p, struct engine *e)
{
    engine_port_set(e, p->index, NULL);
    if (p->last) {
        fast_rig_mbuf_free(&p->last, 1);
        p->last = NULL;
    }
}

void
fast_rig_record_end(struct engine *e, struct worker *w, int64_t now,
                    void (*take)(const struct record_block *, void *aux))
{
    engine_record(e, NULL);
    worker_run(w, 1, NULL, 0, now);
    worker_end(w);
    engine_record_collect(e, now, take, NULL);
    worker_destroy(w);
}

struct program *
fast_rig_program(enum program_kind kind, uint16_t port)
{
    struct program *p = calloc(1, sizeof *p);

    p->kind = kind;
    p->port = port;
    return p;
}

struct program *
fast_rig_program_push(uint16_t port, uint16_t tci)
{
    struct program *p = calloc(1, sizeof *p + sizeof p->edits[0]);

    p->kind = PROGRAM_EDIT;
    p->port = port;
    p->n_edits = 1;
    p->edits[0].type = EDIT_PUSH_VLAN;
    p->edits[0].vlan.tpid = RTE_BE16(0x8100);
    p->edits[0].vlan.tci = __builtin_bswap16(tci);
    return p;
}
