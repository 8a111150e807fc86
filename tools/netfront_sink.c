/* netfront_sink: mode "sink", counts frames and with --verify checks them.
 *
 * Every test frame names its stream (sender, its queue, its run, flow) and
 * its number in it.  A gap in the numbers is loss until the missing frame
 * comes late, which then is reordering instead.  Bytes are compared with the
 * pattern that the sender filled in. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "netfront.h"

#define BATCH 64u
#define STREAMS_MIN 64u
#define STREAMS_MAX (1u << 22)

struct stream {
    uint64_t key; /* 0: free */
    uint64_t next;
};

struct sink_state {
    struct stream *streams; /* open addressing, at most half full */
    size_t n_slots, n_streams;
    struct stream *last; /* the one of the last frame */
    uint64_t last_ns;    /* when frames came last; --gaps */
    uint64_t stamped, segments, foreign, corrupt, lost, late, unfollowed;
};

/* --- streams --------------------------------------------------------------------------- */

static uint64_t
stream_key(const struct nf_stamp *s)
{
    /* Bytes as they stand, plus a bit so that no key is 0. */
    return (uint64_t)s->flow << 32 | (uint64_t)s->sender << 16 | (uint64_t)s->run << 8 |
           (uint64_t)(s->queue & 0x7f) << 1 | 1u;
}

static struct stream *
slot_of(struct stream *slots, size_t n_slots, uint64_t key)
{
    size_t i = (size_t)((key * 0x9e3779b97f4a7c15u) >> 20) & (n_slots - 1);

    while (slots[i].key && slots[i].key != key) {
        i = (i + 1) & (n_slots - 1);
    }
    return &slots[i];
}

static bool
grow(struct sink_state *s)
{
    size_t n = s->n_slots ? 2 * s->n_slots : STREAMS_MIN;
    struct stream *slots = n <= STREAMS_MAX ? calloc(n, sizeof *slots) : NULL;

    if (!slots) {
        return false;
    }
    for (size_t i = 0; i < s->n_slots; i++) {
        if (s->streams[i].key) {
            *slot_of(slots, n, s->streams[i].key) = s->streams[i];
        }
    }
    free(s->streams);
    s->streams = slots;
    s->n_slots = n;
    s->last = NULL;
    return true;
}

/* The stream with this key; '*is_new' if it was just made.  NULL: no memory. */
static struct stream *
find_stream(struct sink_state *s, uint64_t key, bool *is_new)
{
    *is_new = false;
    if (s->last && s->last->key == key) {
        return s->last;
    }
    if (2 * (s->n_streams + 1) > s->n_slots && !grow(s)) {
        return NULL;
    }
    s->last = slot_of(s->streams, s->n_slots, key);
    if (!s->last->key) {
        s->last->key = key;
        s->n_streams++;
        *is_new = true;
    }
    return s->last;
}

static void
follow(struct sink_state *s, const struct nf_stamp *stamp)
{
    uint64_t seq = nf_stamp_seq(stamp);
    bool is_new;

    struct stream *st = find_stream(s, stream_key(stamp), &is_new);
    if (!st) {
        s->unfollowed++;
        return;
    }
    if (!is_new && seq < st->next) {
        s->late++;
        if (s->lost) {
            s->lost--;
        }
        return;
    }
    if (!is_new) {
        s->lost += seq - st->next;
    }
    st->next = seq + 1;
}

static void
check_frame(struct sink_state *s, const struct nf_rx_frame *f, uint16_t port)
{
    struct nf_stamp stamp;

    switch (nf_frame_check(f, port, &stamp)) {
    case NF_FOREIGN:
        s->foreign++;
        break;
    case NF_CORRUPT:
        s->corrupt++;
        break;
    case NF_SEGMENT:
        s->segments++;
        break;
    case NF_STAMPED:
        s->stamped++;
        follow(s, &stamp);
        break;
    }
}

/* --- mode -------------------------------------------------------------------------------- */

static int
sink_open(struct nf_worker *w)
{
    w->mode_state = calloc(1, sizeof(struct sink_state));
    return w->mode_state ? 0 : ENOMEM;
}

static void
sink_close(struct nf_worker *w)
{
    struct sink_state *s = w->mode_state;

    if (s) {
        free(s->streams);
        free(s);
    }
}

static int
verify_rx(struct nf_worker *w, struct sink_state *s)
{
    uint16_t port = w->guest->cfg->stream.dst_port;
    struct nf_rx_frame f;
    unsigned n = 0;
    int got = 0;

    while (n < BATCH && (got = nf_rx_next(w->q, &f)) > 0) {
        check_frame(s, &f, port);
        nf_rx_recycle(w->q);
        n++;
    }
    nf_rx_repost(w->q);
    nf_rx_push(w->q);
    return got < 0 ? got : (int)n;
}

/* With --count: the frames of all queues together. */
static void
check_count(struct nf_guest *g)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < g->n_queues; i++) {
        n += NF_GET(g->queue[i].stats.rx_packets);
    }
    for (unsigned i = 0; n >= g->cfg->count && i < g->n_queues; i++) {
        nf_worker_done(&g->worker[i]);
    }
}

/* Frames have come, after a pause perhaps. */
static void
check_gap(const struct nf_config *cfg, struct sink_state *s)
{
    uint64_t now = nf_now_ns();

    if (s->last_ns && now - s->last_ns >= cfg->gaps_ms * UINT64_C(1000000)) {
        printf("gap of %.3f ms ends at %.6f\n", (double)(now - s->last_ns) / 1e6,
               (double)now / 1e9);
        fflush(stdout);
    }
    s->last_ns = now;
}

static int
sink_turn(struct nf_worker *w)
{
    const struct nf_config *cfg = w->guest->cfg;

    int n = cfg->verify ? verify_rx(w, w->mode_state) : nf_drain_rx(w->q, BATCH);
    int reaped = nf_tx_reap(w->q);
    if (n > 0 && cfg->gaps_ms) {
        check_gap(cfg, w->mode_state);
    }
    if (n > 0 && cfg->count) {
        check_count(w->guest);
    }
    if (atomic_load_explicit(&w->guest->time_up, memory_order_relaxed)) {
        nf_worker_done(w);
    }
    return n < 0 ? n : reaped < 0 ? reaped : n;
}

static bool
sink_arm(struct nf_worker *w, struct nf_nap *nap)
{
    nf_nap_add(nap, w->q->rx_fd);
    return nf_rx_arm(w->q);
}

/* --- results ------------------------------------------------------------------------------- */

static void
sum_workers(struct nf_guest *g, struct sink_state *sum)
{
    memset(sum, 0, sizeof *sum);
    for (unsigned i = 0; i < g->n_queues; i++) {
        const struct sink_state *s = g->worker[i].mode_state;
        sum->n_streams += s->n_streams;
        sum->stamped += s->stamped;
        sum->segments += s->segments;
        sum->foreign += s->foreign;
        sum->corrupt += s->corrupt;
        sum->lost += s->lost;
        sum->late += s->late;
        sum->unfollowed += s->unfollowed;
    }
}

static void
sink_text(struct nf_guest *g, FILE *out)
{
    struct sink_state s;

    if (!g->cfg->verify) {
        return;
    }
    sum_workers(g, &s);
    fprintf(out,
            "verify: %ju frames of %zu streams, %ju later segments, %ju lost, %ju late or double, "
            "%ju corrupt, %ju foreign%s\n",
            (uintmax_t)s.stamped, s.n_streams, (uintmax_t)s.segments, (uintmax_t)s.lost,
            (uintmax_t)s.late, (uintmax_t)s.corrupt, (uintmax_t)s.foreign,
            s.unfollowed ? " (more streams than can be followed)" : "");
}

static void *
sink_json(struct nf_guest *g, const char **key)
{
    struct sink_state s;

    if (!g->cfg->verify) {
        return NULL;
    }
    sum_workers(g, &s);
    *key = "verify";
    return json_pack("{sI sI sI sI sI sI sI}", "streams", (json_int_t)s.n_streams, "frames",
                     (json_int_t)s.stamped, "segments", (json_int_t)s.segments, "lost",
                     (json_int_t)s.lost, "late", (json_int_t)s.late, "corrupt",
                     (json_int_t)s.corrupt, "foreign", (json_int_t)s.foreign);
}

const struct nf_mode nf_mode_sink = {
    .name = "sink",
    .announces = true,
    .poll_us = 20,
    .open = sink_open,
    .close = sink_close,
    .turn = sink_turn,
    .arm = sink_arm,
    .report_text = sink_text,
    .report_json = sink_json,
};
