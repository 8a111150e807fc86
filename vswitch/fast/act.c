/* act: what programs do to packets. */
#include "state.h"

#define MACS_LEN 12u
#define TAG_LEN ACT_TAG_LEN
#define TPID_8021Q RTE_BE16(0x8100)
#define TPID_8021AD RTE_BE16(0x88a8)
#define L2_LEN_MAX 127
#define PUSH_AHEAD 12u

/* Who finishes the packet's checksum may look where its headers are.  The
 * field is narrow; what does not fit it is left for them to find out. */
void
act_move_l2_len(struct rte_mbuf *m, int by)
{
    int len = m->l2_len ? m->l2_len + by : 0;

    m->l2_len = len >= 0 && len <= L2_LEN_MAX ? len : 0;
}

static void
pop_tag(struct rte_mbuf *m)
{
    uint8_t *d = rte_pktmbuf_mtod(m, uint8_t *);
    uint16_t tpid;

    if (m->data_len < MACS_LEN + TAG_LEN + 2) {
        return;
    }
    memcpy(&tpid, d + MACS_LEN, sizeof tpid);
    if (tpid != TPID_8021Q && tpid != TPID_8021AD) {
        return;
    }
    memmove(d + TAG_LEN, d, MACS_LEN);
    m->data_off += TAG_LEN;
    m->data_len -= TAG_LEN;
    m->pkt_len -= TAG_LEN;
    if (m->ol_flags & ACT_TX_OFFLOADS) {
        act_move_l2_len(m, -(int)TAG_LEN);
    }
}

static void
set_eth(struct rte_mbuf *m, const struct edit *e)
{
    uint8_t *d = rte_pktmbuf_mtod(m, uint8_t *);

    for (unsigned i = 0; i < MACS_LEN; i++) {
        d[i] = (d[i] & ~e->eth.mask[i]) | (e->eth.value[i] & e->eth.mask[i]);
    }
}

bool
act_edit(struct rte_mbuf *m, const struct program *p)
{
    for (unsigned i = 0; i < p->n_edits; i++) {
        const struct edit *e = &p->edits[i];
        switch (e->type) {
        case EDIT_PUSH_VLAN:
            if (!act_push_tag(m, act_tag(e))) {
                return false;
            }
            break;
        case EDIT_POP_VLAN:
            pop_tag(m);
            break;
        case EDIT_SET_ETH:
            set_eth(m, e);
            break;
        }
    }
    return true;
}

void
act_slow(struct worker *w, uint16_t in_port, const struct program *p, struct rte_mbuf **pkts,
         unsigned n)
{
    const struct program *before = w->slow;

    n = worker_complete(w, pkts, n);
    if (!n) {
        return;
    }
    w->slow = p;
    w->engine->ops->slow(w, in_port, p, pkts, n);
    w->slow = before;
}

/* Returns how many are left. */
static unsigned
edit_burst(struct worker *w, const struct program *p, struct rte_mbuf **pkts, unsigned n)
{
    bool push = p->n_edits == 1 && p->edits[0].type == EDIT_PUSH_VLAN;
    uint32_t tag = push ? act_tag(&p->edits[0]) : 0;
    unsigned kept = 0;

    for (unsigned i = 0; i < n; i++) {
        struct rte_mbuf *m = pkts[i];
        if (push && i + PUSH_AHEAD < n) {
            /* What is in front of a frame nobody has touched yet. */
            __builtin_prefetch(rte_pktmbuf_mtod(pkts[i + PUSH_AHEAD], char *) - TAG_LEN, 1);
        }
        if (likely_(push ? act_push_tag(m, tag) : act_edit(m, p))) {
            pkts[kept++] = m;
        } else {
            worker_drop(w, ENGINE_DROP_HEADROOM, &m, 1);
        }
    }
    return kept;
}

void
act_run(struct worker *w, uint16_t in_port, const struct program *p, struct rte_mbuf **pkts,
        unsigned n)
{
    switch (p->kind) {
    case PROGRAM_DROP:
        worker_drop(w, ENGINE_DROP_ACTION, pkts, n);
        break;
    case PROGRAM_OUTPUT:
        out_burst(w, p->port, pkts, n);
        break;
    case PROGRAM_EDIT:
        n = edit_burst(w, p, pkts, n);
        if (n) {
            out_burst(w, p->port, pkts, n);
        }
        break;
    case PROGRAM_TRACK:
    case PROGRAM_SLOW:
        act_slow(w, in_port, p, pkts, n);
        break;
    }
}

void
worker_act(struct worker *w, uint16_t in_port, const struct fast_flow *f, struct rte_mbuf **pkts,
           unsigned n)
{
    act_run(w, in_port, atomic_load_explicit(&f->program, memory_order_acquire), pkts, n);
}
