/* netfront_blast: mode "blast", frames at full speed or at a set rate.
 *
 * Theory of Operation
 * ===================
 *
 * Transmit pages are reserved in a circle, every frame takes the same number
 * of pages, and no one else takes any: so the same frame positions come back
 * for ever, and each is filled with the whole frame once per connection.  Per
 * packet only the source port and the 20-byte stamp change: one cache line.
 *
 * Frames that fit a page start at different offsets in different pages.  At
 * equal offsets all of them would compete for the same few sets of the L1
 * cache, here and in the backend. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "netfront.h"

#define BATCH 64u
/* With --rate: sleep for no less than this, and send what has become due. */
#define PACE_MIN_NS 50000u

struct blast_state {
    struct nf_template tpl;
    unsigned pages;   /* per frame */
    unsigned stagger; /* different start offsets, 64 bytes apart; 1: all the same */
    uint64_t limit;   /* frames to send; 0: no limit */
    uint64_t sent;
    uint32_t flow;
    uint64_t seq;         /* of the next frame of 'flow' */
    double rate;          /* frames per nanosecond; 0: as fast as possible */
    uint64_t start_ns;    /* of this connection's sending */
    uint64_t sent_before; /* this connection */
    uint64_t due_ns;      /* nothing to send before; 0: now */
    bool ring_full;
};

static int
blast_open(struct nf_worker *w)
{
    const struct nf_config *cfg = w->guest->cfg;
    struct blast_state *s = calloc(1, sizeof *s);
    char why[128];

    if (!s) {
        return ENOMEM;
    }
    uint8_t run = (uint8_t)(nf_now_ns() >> 20);
    int error = nf_template_init(&s->tpl, &cfg->stream, cfg->domid, (uint8_t)w->index, run, why,
                                 sizeof why);
    if (error) {
        nf_log("%s", why);
        free(s);
        return error;
    }
    uint32_t size = cfg->stream.size;
    uint32_t spare = HV_PAGE_SIZE - NF_TX_OFFSET - size;
    s->pages = (NF_TX_OFFSET + size + HV_PAGE_SIZE - 1) / HV_PAGE_SIZE;
    s->stagger = s->pages == 1 ? 1 + spare / 64 : 1;
    unsigned n = w->guest->n_queues;
    s->limit = cfg->count ? cfg->count / n + (w->index < cfg->count % n) : 0;
    s->rate = (double)cfg->rate_pps / n / 1e9;
    w->mode_state = s;
    return 0;
}

static void
blast_close(struct nf_worker *w)
{
    free(w->mode_state);
}

/* Where the frame starts in its first page. */
static inline uint32_t
frame_offset(const struct blast_state *s, unsigned page)
{
    return s->stagger == 1 ? NF_TX_OFFSET : NF_TX_OFFSET + page * 5 % s->stagger * 64;
}

static void
blast_begin(struct nf_worker *w)
{
    struct blast_state *s = w->mode_state;

    for (unsigned page = 0; page + s->pages <= NF_TX_PAGES; page += s->pages) {
        uint8_t *at = w->q->tx_pages + (size_t)page * HV_PAGE_SIZE;
        nf_template_fill(&s->tpl, at + frame_offset(s, page));
    }
    s->start_ns = nf_now_ns() + (uint64_t)(w->guest->cfg->settle * 1e9);
    s->due_ns = s->start_ns;
    s->ring_full = false;
    s->sent_before = s->sent;
}

/* How many frames may be sent now. */
static unsigned
allowance(struct nf_worker *w, struct blast_state *s)
{
    uint64_t n = BATCH;

    if (atomic_load_explicit(&w->guest->time_up, memory_order_relaxed)) {
        return 0;
    }
    if (s->limit && s->limit - s->sent < n) {
        n = s->limit - s->sent;
    }
    if (s->due_ns) {
        if (nf_now_ns() < s->due_ns) {
            return 0;
        }
        s->due_ns = 0;
    }
    if (s->rate > 0) {
        uint64_t now = nf_now_ns(), sent = s->sent - s->sent_before;
        uint64_t due = (uint64_t)((double)(now - s->start_ns) * s->rate) + 1;
        if (due <= sent) {
            uint64_t gap = (uint64_t)(1.0 / s->rate);
            s->due_ns = now + (gap > PACE_MIN_NS ? gap : PACE_MIN_NS);
            return 0;
        }
        n = due - sent < n ? due - sent : n;
    }
    return (unsigned)n;
}

static unsigned
send_batch(struct nf_worker *w, struct blast_state *s, unsigned n)
{
    struct nf_queue *q = w->q;
    uint32_t flows = w->guest->cfg->flows, size = s->tpl.stream.size;
    unsigned i;

    for (i = 0; i < n; i++) {
        uint8_t *at = nf_tx_reserve(q, s->pages);
        if (!at) {
            s->ring_full = true;
            break;
        }
        uint32_t ofs = frame_offset(s, nf_tx_page_index(q, at));
        nf_template_stamp(&s->tpl, at + ofs, s->flow, s->seq);
        nf_tx_put(q, ofs, size, &s->tpl.meta);
        if (++s->flow == flows) {
            s->flow = 0;
            s->seq++;
        }
        if (s->pages > 1) {
            nf_tx_push(q); /* large: the backend may start on it */
        }
    }
    nf_tx_push(q);
    s->sent += i;
    return i;
}

static bool
finished(struct nf_worker *w, const struct blast_state *s)
{
    return (s->limit && s->sent == s->limit) ||
           atomic_load_explicit(&w->guest->time_up, memory_order_relaxed);
}

static int
blast_turn(struct nf_worker *w)
{
    struct blast_state *s = w->mode_state;

    int rx = nf_drain_rx(w->q, BATCH);
    if (rx < 0) {
        return rx;
    }
    int reaped = nf_tx_reap(w->q);
    if (reaped < 0) {
        return reaped;
    }
    s->ring_full = false;
    unsigned n = allowance(w, s);
    n = n ? send_batch(w, s, n) : 0;
    if (!n && finished(w, s) && !nf_tx_in_flight(w->q)) {
        nf_worker_done(w);
    }
    return (int)n;
}

static bool
blast_arm(struct nf_worker *w, struct nf_nap *nap)
{
    struct blast_state *s = w->mode_state;
    bool draining = finished(w, s) && nf_tx_in_flight(w->q);

    if (nf_rx_arm(w->q)) {
        return true;
    }
    nf_nap_add(nap, w->q->rx_fd);
    if (s->ring_full || draining) {
        if (nf_tx_arm(w->q, draining ? RING_SIZE(&w->q->tx) : s->pages + 2)) {
            return true;
        }
        nf_nap_add(nap, w->q->tx_fd);
    } else if (!finished(w, s) && s->due_ns) {
        uint64_t now = nf_now_ns();
        nap->timeout_ns = s->due_ns > now ? (int64_t)(s->due_ns - now) : 0;
    }
    return false;
}

const struct nf_mode nf_mode_blast = {
    .name = "blast",
    .announces = true,
    .poll_us = 20,
    .open = blast_open,
    .close = blast_close,
    .begin = blast_begin,
    .turn = blast_turn,
    .arm = blast_arm,
};
