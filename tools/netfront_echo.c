/* netfront_echo: modes "echo" and "idle".
 *
 * Echo sends every frame that came for its MAC back where it came from: MACs,
 * IP addresses and ports swapped, offload flags kept.  Swapping leaves every
 * checksum and pseudo-header sum as it is.  Idle drops what it gets. */
#include <stdlib.h>
#include <string.h>

#include "netfront.h"

#define TURN_FRAMES 32u

static void
swap(uint8_t *a, uint8_t *b, size_t n)
{
    uint8_t tmp[16];

    memcpy(tmp, a, n);
    memcpy(a, b, n);
    memcpy(b, tmp, n);
}

static void
turn_around(uint8_t *f, size_t avail)
{
    struct nf_headers h;

    swap(f, f + 6, 6);
    if (!nf_headers_find(f, avail, &h)) {
        return;
    }
    swap(f + h.l4, f + h.l4 + 2, 2);
    if (h.ip_version == 4) {
        swap(f + h.l3 + 12, f + h.l3 + 16, 4);
    } else {
        swap(f + h.l3 + 8, f + h.l3 + 24, 16);
    }
}

static void
send_back(struct nf_worker *w, uint8_t *page, const struct nf_rx_frame *f)
{
    uint8_t *at = page + NF_TX_OFFSET;
    const uint8_t *head = f->frag[0].iov_base;

    if (f->frag[0].iov_len < 14 || f->len > NF_FRAME_MAX || memcmp(head, w->guest->mac, 6)) {
        return;
    }
    for (unsigned i = 0; i < f->n_frags; i++) {
        memcpy(at, f->frag[i].iov_base, f->frag[i].iov_len);
        at += f->frag[i].iov_len;
    }
    turn_around(page + NF_TX_OFFSET, f->frag[0].iov_len);
    nf_tx_put(w->q, NF_TX_OFFSET, f->len, &f->meta);
}

static int
echo_turn(struct nf_worker *w)
{
    struct nf_rx_frame f;
    unsigned n = 0;

    int got = nf_tx_reap(w->q);
    while (got >= 0 && n < TURN_FRAMES) {
        uint8_t *page = nf_tx_reserve(w->q, NF_TX_FRAME_PAGES);
        if (!page) {
            break;
        }
        got = nf_rx_next(w->q, &f);
        if (got <= 0) {
            break;
        }
        n++;
        f.meta.has_hash = false; /* it is the backend's, of the other direction */
        send_back(w, page, &f);
    }
    nf_rx_repost(w->q);
    nf_rx_push(w->q);
    nf_tx_push(w->q);
    return got < 0 ? got : (int)n;
}

static bool
echo_arm(struct nf_worker *w, struct nf_nap *nap)
{
    bool ring_full = !nf_tx_reserve(w->q, NF_TX_FRAME_PAGES);

    if (ring_full) {
        if (nf_tx_arm(w->q, NF_TX_FRAME_PAGES + 2)) {
            return true;
        }
        nf_nap_add(nap, w->q->tx_fd);
        return false;
    }
    nf_nap_add(nap, w->q->rx_fd);
    return nf_rx_arm(w->q);
}

static int
idle_turn(struct nf_worker *w)
{
    int n = nf_drain_rx(w->q, TURN_FRAMES);
    int reaped = nf_tx_reap(w->q);
    return n < 0 ? n : reaped < 0 ? reaped : n;
}

static bool
idle_arm(struct nf_worker *w, struct nf_nap *nap)
{
    nf_nap_add(nap, w->q->rx_fd);
    return nf_rx_arm(w->q);
}

const struct nf_mode nf_mode_echo = {
    .name = "echo",
    .announces = true,
    .poll_us = 20,
    .turn = echo_turn,
    .arm = echo_arm,
};

const struct nf_mode nf_mode_idle = {
    .name = "idle",
    .announces = true,
    .turn = idle_turn,
    .arm = idle_arm,
};
