/* netfront_ping: mode "blast --ping", round trips to a guest in mode "echo".
 *
 * One frame is in flight at a time, so each measures the path and not a
 * queue.  Times go into a histogram of 32 buckets per power of two: quantiles
 * are right within 3 %. */
#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "netfront.h"

#define LOST_AFTER_NS 1000000000u
#define RING_FULL_RETRY_NS 1000000
#define SUB_BITS 5u
#define N_BUCKETS (40u << SUB_BITS)

struct ping_state {
    struct nf_template tpl;
    uint64_t seq; /* of the frame in flight, or the next */
    bool in_flight;
    uint64_t sent_ns, next_ns;
    uint64_t interval_ns;
    uint64_t sent, received, lost, min_ns, max_ns, sum_ns;
    uint32_t bucket[N_BUCKETS];
};

static unsigned
bucket_of(uint64_t ns)
{
    if (ns < 1u << SUB_BITS) {
        return (unsigned)ns;
    }
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - SUB_BITS;
    unsigned b = (shift << SUB_BITS) + (unsigned)(ns >> shift);
    return b < N_BUCKETS ? b : N_BUCKETS - 1;
}

static uint64_t
bucket_ns(unsigned b)
{
    unsigned shift = b >> SUB_BITS ? (b >> SUB_BITS) - 1 : 0;
    return (uint64_t)(b - (shift << SUB_BITS)) << shift;
}

static uint64_t
quantile(const struct ping_state *s, double part)
{
    uint64_t want = (uint64_t)((double)s->received * part), seen = 0;

    for (unsigned b = 0; b < N_BUCKETS; b++) {
        seen += s->bucket[b];
        if (seen > want) {
            return bucket_ns(b);
        }
    }
    return s->max_ns;
}

static int
ping_open(struct nf_worker *w)
{
    const struct nf_config *cfg = w->guest->cfg;
    struct ping_state *s = calloc(1, sizeof *s);
    char why[128];

    if (!s) {
        return ENOMEM;
    }
    int error = nf_template_init(&s->tpl, &cfg->stream, cfg->domid, (uint8_t)w->index,
                                 (uint8_t)(nf_now_ns() >> 20), why, sizeof why);
    if (error) {
        nf_log("%s", why);
        free(s);
        return error;
    }
    s->min_ns = UINT64_MAX;
    s->interval_ns = cfg->rate_pps ? 1000000000u / cfg->rate_pps : 0;
    w->mode_state = s;
    return 0;
}

static void
ping_close(struct nf_worker *w)
{
    free(w->mode_state);
}

static void
ping_begin(struct nf_worker *w)
{
    struct ping_state *s = w->mode_state;
    s->in_flight = false; /* what was in flight went with the rings */
    s->next_ns = nf_now_ns() + (uint64_t)(w->guest->cfg->settle * 1e9);
}

static bool
ping_finished(struct nf_worker *w, const struct ping_state *s)
{
    uint64_t count = w->guest->cfg->count;
    return (count && s->received + s->lost >= count) || atomic_load(&w->guest->time_up);
}

static void
record(struct ping_state *s, uint64_t rtt)
{
    s->in_flight = false;
    s->received++;
    s->sum_ns += rtt;
    s->min_ns = rtt < s->min_ns ? rtt : s->min_ns;
    s->max_ns = rtt > s->max_ns ? rtt : s->max_ns;
    s->bucket[bucket_of(rtt)]++;
}

static int
take_replies(struct nf_worker *w, struct ping_state *s)
{
    struct nf_rx_frame f;
    struct nf_stamp stamp;
    int n = 0, got;

    while ((got = nf_rx_next(w->q, &f)) > 0) {
        n++;
        /* The echo swapped the ports. */
        if (nf_frame_check(&f, s->tpl.stream.src_port, &stamp) == NF_STAMPED &&
            stamp.sender == htons(s->tpl.sender) && stamp.run == s->tpl.run && s->in_flight &&
            nf_stamp_seq(&stamp) == s->seq) {
            record(s, nf_now_ns() - s->sent_ns);
            s->seq++;
        }
    }
    nf_rx_repost(w->q);
    nf_rx_push(w->q);
    return got < 0 ? got : n;
}

static void
send_next(struct nf_worker *w, struct ping_state *s, uint64_t now)
{
    unsigned pages = (NF_TX_OFFSET + s->tpl.stream.size + HV_PAGE_SIZE - 1) / HV_PAGE_SIZE;

    uint8_t *page = nf_tx_reserve(w->q, pages);
    if (!page) {
        return; /* lost frames fill the ring of a backend that takes none */
    }
    nf_template_fill(&s->tpl, page + NF_TX_OFFSET);
    nf_template_stamp(&s->tpl, page + NF_TX_OFFSET, 0, s->seq);
    nf_tx_put(w->q, NF_TX_OFFSET, s->tpl.stream.size, &s->tpl.meta);
    s->in_flight = true;
    s->sent++;
    s->sent_ns = nf_now_ns();
    s->next_ns = now + s->interval_ns;
    nf_tx_push(w->q);
}

static int
ping_turn(struct nf_worker *w)
{
    struct ping_state *s = w->mode_state;

    int n = take_replies(w, s);
    int reaped = nf_tx_reap(w->q);
    if (n < 0 || reaped < 0) {
        return -EPROTO;
    }
    uint64_t now = nf_now_ns();
    if (s->in_flight && now - s->sent_ns > LOST_AFTER_NS) {
        s->in_flight = false;
        s->lost++;
        s->seq++;
    }
    if (ping_finished(w, s)) {
        nf_worker_done(w);
        return n;
    }
    if (s->in_flight || now < s->next_ns) {
        return n;
    }
    send_next(w, s, now);
    return n + (s->in_flight ? 1 : 0);
}

static bool
ping_arm(struct nf_worker *w, struct nf_nap *nap)
{
    struct ping_state *s = w->mode_state;

    if (nf_rx_arm(w->q)) {
        return true;
    }
    nf_nap_add(nap, w->q->rx_fd);
    if (ping_finished(w, s)) {
        return false;
    }
    uint64_t now = nf_now_ns(), wake = s->in_flight ? s->sent_ns + LOST_AFTER_NS : s->next_ns;
    nap->timeout_ns = wake > now ? (int64_t)(wake - now) : RING_FULL_RETRY_NS;
    return false;
}

/* --- results ------------------------------------------------------------------------ */

static double
us(uint64_t ns)
{
    return (double)ns / 1e3;
}

static void
ping_text(struct nf_guest *g, FILE *out)
{
    const struct ping_state *s = g->worker[0].mode_state;

    fprintf(out, "ping: %ju sent, %ju received, %ju lost\n", (uintmax_t)s->sent,
            (uintmax_t)s->received, (uintmax_t)s->lost);
    if (s->received) {
        fprintf(out, "rtt:  min %.1f  p50 %.1f  p99 %.1f  p99.9 %.1f  max %.1f us\n", us(s->min_ns),
                us(quantile(s, 0.5)), us(quantile(s, 0.99)), us(quantile(s, 0.999)), us(s->max_ns));
    }
}

static void *
ping_json(struct nf_guest *g, const char **key)
{
    const struct ping_state *s = g->worker[0].mode_state;
    bool any = s->received != 0;

    *key = "ping";
    return json_pack("{sI sI sI sf sf sf sf sf sf}", "sent", (json_int_t)s->sent, "received",
                     (json_int_t)s->received, "lost", (json_int_t)s->lost, "min_us",
                     any ? us(s->min_ns) : 0, "p50_us", any ? us(quantile(s, 0.5)) : 0, "p99_us",
                     any ? us(quantile(s, 0.99)) : 0, "p999_us", any ? us(quantile(s, 0.999)) : 0,
                     "max_us", us(s->max_ns), "mean_us", any ? us(s->sum_ns / s->received) : 0);
}

const struct nf_mode nf_mode_ping = {
    .name = "ping",
    .announces = true,
    .poll_us = 20,
    .open = ping_open,
    .close = ping_close,
    .begin = ping_begin,
    .turn = ping_turn,
    .arm = ping_arm,
    .report_text = ping_text,
    .report_json = ping_json,
};
