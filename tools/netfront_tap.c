/* netfront_tap: mode "tap", the rings joined to a TAP.
 *
 * Theory of Operation
 * ===================
 *
 * From the guest's stack: a run of granted transmit pages is reserved, and
 * one read(2) puts virtio header and frame there; the header falls in front
 * of the frame, which so starts at a cache line.  No byte is copied here.
 * From the backend: one writev(2) hands virtio header and receive pages to
 * the TAP.  Each frame costs one system call.
 *
 * Large frames are pushed one by one, so that the backend can copy one while
 * the next is read; small ones once per batch.  If the transmit ring is full
 * the TAP is not read and not waited for: the stack's queue then fills and
 * its senders are slowed down.
 *
 * By default it does not poll before it sleeps: looking at a TAP is a system
 * call, and the CPU time is the guest's applications'. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "netfront.h"

/* Frames per direction and turn. */
#define TURN_FRAMES 32u
/* A frame at least this long is worth a push of its own. */
#define LARGE_FRAME 8192u
/* Where the virtio header goes, so that the frame starts at NF_TX_OFFSET. */
#define HEADER_OFFSET (NF_TX_OFFSET - (uint32_t)sizeof(struct virtio_net_hdr))

struct tap_state {
    int fd;
    unsigned pages; /* to reserve for a read */
    uint32_t frame_max;
    size_t room; /* bytes a read may fill: header, frame and one more */
    struct nf_caps caps;
    bool ring_full; /* the last turn stopped because of it */
};

static int
tap_open(struct nf_worker *w)
{
    struct tap_state *s = calloc(1, sizeof *s);

    if (!s) {
        return ENOMEM;
    }
    s->fd = w->guest->tap.fd[w->index];
    w->mode_state = s;
    return 0;
}

static void
tap_close(struct nf_worker *w)
{
    free(w->mode_state);
}

static void
tap_begin(struct nf_worker *w)
{
    struct tap_state *s = w->mode_state;
    const struct nf_link *link = &w->guest->link;
    bool gso = link->gso_v4 || link->gso_v6;
    size_t frame_max = gso ? NF_FRAME_MAX : link->mtu + 14u + 8u; /* two tags */

    if (!link->sg && frame_max > HV_PAGE_SIZE - NF_TX_OFFSET - 1) {
        frame_max = HV_PAGE_SIZE - NF_TX_OFFSET - 1;
    }
    s->frame_max = (uint32_t)frame_max;
    s->room = sizeof(struct virtio_net_hdr) + frame_max + 1; /* the TAP cuts in silence */
    s->pages = (unsigned)((NF_TX_OFFSET + frame_max + HV_PAGE_SIZE) / HV_PAGE_SIZE);
    s->caps = (struct nf_caps){.csum_v4 = link->csum_v4, .csum_v6 = link->csum_v6};
    s->ring_full = false;
}

/* --- guest's stack to backend ------------------------------------------------------ */

/* Reads and puts one frame.  Returns its length, 0 if there is none to read
 * (EAGAIN, or an interface that is down), or the ring is full. */
static size_t
forward_one(struct nf_worker *w, struct tap_state *s)
{
    struct virtio_net_hdr header;
    struct nf_meta meta;

    uint8_t *page = nf_tx_reserve(w->q, s->pages);
    if (!page) {
        s->ring_full = true;
        return 0;
    }
    ssize_t n = read(s->fd, page + HEADER_OFFSET, s->room);
    if (n <= (ssize_t)sizeof header) {
        return 0;
    }
    uint32_t len = (uint32_t)n - (uint32_t)sizeof header;
    memcpy(&header, page + HEADER_OFFSET, sizeof header);
    if (len > s->frame_max ||
        nf_meta_from_vnet(&header, page + NF_TX_OFFSET, len, &s->caps, &meta)) {
        NF_ADD(w->q->stats.tx_errors, 1);
        return len; /* the pages were not put: the next read reuses them */
    }
    nf_tx_put(w->q, NF_TX_OFFSET, len, &meta);
    return len;
}

static int
forward_tx(struct nf_worker *w, struct tap_state *s)
{
    unsigned n = 0;
    int reaped = nf_tx_reap(w->q);

    if (reaped < 0) {
        return reaped;
    }
    s->ring_full = false;
    while (n < TURN_FRAMES) {
        size_t len = forward_one(w, s);
        if (!len) {
            break;
        }
        n++;
        if (len >= LARGE_FRAME) {
            nf_tx_push(w->q);
        }
    }
    nf_tx_push(w->q);
    return (int)n;
}

/* --- backend to guest's stack ------------------------------------------------------ */

static void
deliver_one(struct nf_worker *w, struct tap_state *s, const struct nf_rx_frame *f)
{
    struct virtio_net_hdr header;
    struct iovec iov[1 + NF_RX_FRAGS_MAX];

    if (nf_meta_to_vnet(&f->meta, f->frag[0].iov_base, f->frag[0].iov_len, &header)) {
        NF_ADD(w->q->stats.rx_errors, 1);
        return;
    }
    iov[0] = (struct iovec){.iov_base = &header, .iov_len = sizeof header};
    memcpy(&iov[1], f->frag, f->n_frags * sizeof iov[0]);
    if (writev(s->fd, iov, (int)f->n_frags + 1) < 0) {
        NF_ADD(w->q->stats.rx_overruns, 1); /* the interface is down, or out of memory */
    }
}

static int
forward_rx(struct nf_worker *w, struct tap_state *s)
{
    struct nf_rx_frame f;
    unsigned n = 0;

    while (n < TURN_FRAMES) {
        int got = nf_rx_next(w->q, &f);
        if (got < 0) {
            return got;
        }
        if (!got) {
            break;
        }
        n++;
        deliver_one(w, s, &f);
        nf_rx_recycle(w->q);
    }
    nf_rx_repost(w->q);
    nf_rx_push(w->q);
    return (int)n;
}

static int
tap_turn(struct nf_worker *w)
{
    struct tap_state *s = w->mode_state;

    int rx = forward_rx(w, s);
    if (rx < 0) {
        return rx;
    }
    int tx = forward_tx(w, s);
    return tx < 0 ? tx : rx + tx;
}

static bool
tap_arm(struct nf_worker *w, struct nf_nap *nap)
{
    struct tap_state *s = w->mode_state;

    if (nf_rx_arm(w->q)) {
        return true;
    }
    nf_nap_add(nap, w->q->rx_fd);
    if (s->ring_full) {
        if (nf_tx_arm(w->q, s->pages + 2)) {
            return true;
        }
        nf_nap_add(nap, w->q->tx_fd);
    } else {
        nf_nap_add(nap, s->fd);
    }
    return false;
}

const struct nf_mode nf_mode_tap = {
    .name = "tap",
    .open = tap_open,
    .close = tap_close,
    .begin = tap_begin,
    .turn = tap_turn,
    .arm = tap_arm,
};
