/* The source (engine.h has the theory). */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "end.h"
#include "policy.h"

enum {
    FIXED_MS = 3, /* of blackout, besides pages: drain, state, commit */
    PAUSED_FLUSH_MS = 60000,
};

struct source {
    struct mig_end *e;
    uint64_t *bitmap; /* to be sent */
    size_t words;
    struct policy_memory policy;
    struct policy_decision decision;
    bool begun;   /* the guest was running when we came: what stopped it was us */
    bool logging; /* dirty log is on */
    unsigned int throttle;
    bool may_be_final; /* FINAL may have been sent: the row decides */
    bool ready;        /* READY has come: commit */
    uint64_t *pending; /* post-copy: what is owed; NULL: none */
    uint64_t n_chunks;
    uint64_t carried; /* pages_carried() after the last round */
};

static uint64_t
count(const uint64_t *bitmap, size_t words)
{
    uint64_t n = 0;

    for (size_t i = 0; i < words; i++) {
        n += __builtin_popcountll(bitmap[i]);
    }
    return n;
}

/* The far end gave up: why. */
static int
aborted(struct mig_end *e, const struct mig_msg *m)
{
    return end_fail(e, ECONNABORTED, "the destination: %.200s", m->abort.text);
}

/* What the far end has said meanwhile, and the user. */
static int
look(struct mig_end *e)
{
    struct transport_message message;
    struct mig_msg m;
    int error;

    if (end_cancelled(e)) {
        return ECANCELED;
    }
    end_apply_limits(e);
    end_progress(e, false);
    while (!(error = end_take(e, &message, &m, 0))) {
        if (m.type == MIG_ABORT) {
            error = aborted(e, &m);
        }
        transport_message_done(&message);
        if (error) {
            return error;
        }
    }
    return error == ETIMEDOUT ? 0 : error;
}

/* Waits with one of the transport's two ways to wait, looking up meanwhile. */
static int
wait_sent(struct mig_end *e, int (*wait)(struct transport *, int timeout_ms))
{
    int error;

    while ((error = wait(e->transport, LOOK_MS)) == ETIMEDOUT) {
        error = look(e);
        if (error) {
            return error;
        }
    }
    return error;
}

/* --- connect, prepare ------------------------------------------------------------ */

static int
attach(struct mig_end *e)
{
    struct mig_guest_config config = end_guest_config(e);
    struct mig_guest_status status;
    char why[MIG_WHY] = "";
    int error;

    error = e->ops->attach(&config, &e->guest, why);
    if (error) {
        return end_fail(e, error, "guest: %s", *why ? why : strerror(error));
    }
    error = e->ops->status(e->guest, &status);
    if (!error && status.state != MIG_GUEST_RUNNING) {
        return end_fail(e, EINVAL, "the guest is not running");
    }
    if (!error && e->ops->kind == MIG_MEMORY) {
        error = e->ops->memory(e->guest, &e->memory);
    }
    return error ? end_fail(e, error, "guest: %s", strerror(error)) : 0;
}

static int
open_stream(struct mig_end *e)
{
    struct transport_tls tls;
    struct transport_config config = end_transport_config(e, &tls);
    char why[TRANSPORT_WHY] = "";
    struct transport *t;
    int error = transport_connect(e->job->connect, &config, &t, why);

    if (error) {
        return end_fail(e, error, "%s: %s", e->job->connect, *why ? why : strerror(error));
    }
    end_use_transport(e, t);
    return 0;
}

/* What the guest needs, and the destination's word that it has it. */
static int
agree(struct mig_end *e)
{
    uint8_t identity[MIG_IDENTITY_MAX];
    struct mig_msg m = {.type = MIG_CONFIG};
    struct transport_message message;
    size_t n = sizeof identity;
    int error = e->ops->describe(e->guest, identity, &n);

    if (error) {
        return end_fail(e, error, "guest: %s", strerror(error));
    }
    snprintf(m.config.driver, sizeof m.config.driver, "%s", e->ops->name);
    m.config.n_pages = e->memory.n_pages;
    m.config.data = (struct mig_bytes){.p = identity, .n = n};
    error = end_put(e, &m);
    if (!error) {
        error = end_wait(e, &message, &m, e->job->answer_ms, !e->past.committed);
    }
    if (error) {
        return end_fail(e, error, "%s", end_transport_why(e, error));
    }
    if (m.type == MIG_ABORT) {
        error = aborted(e, &m);
    } else if (m.type != MIG_ACCEPT || m.accept.n_pages != e->memory.n_pages) {
        error = end_fail(e, EPROTO, "the destination has not accepted the guest");
    }
    transport_message_done(&message);
    return error;
}

static int
prepare(struct mig_end *e)
{
    int error;

    end_phase(e, MIG_PHASE_CONNECT);
    error = attach(e);
    if (!error) {
        error = end_claim_check(e);
    }
    if (!error) {
        error = open_stream(e);
    }
    if (!error) {
        end_phase(e, MIG_PHASE_PREPARE);
        error = agree(e);
    }
    if (!error && e->network) {
        network_watch(e->network);
    }
    return error;
}

/* --- precopy ------------------------------------------------------------------------ */

/* Sends the pages of the bitmap while the guest runs. */
static int
send_round(struct source *s, uint32_t round)
{
    struct mig_end *e = s->e;
    struct mig_msg m = {.type = MIG_ROUND,
                        .round = {.round = round - 1, .pages_dirty = count(s->bitmap, s->words)}};
    int error;

    e->progress.round = round;
    e->progress.pages_left = m.round.pages_dirty;
    transport_tx_round(e->transport, round - 1, 0);
    error = end_put(e, &m);
    if (!error) {
        error = transport_tx_bitmap(e->transport, s->bitmap, e->memory.n_pages);
    }
    if (!error) {
        error = transport_tx_barrier(e->transport);
    }
    if (!error) {
        /* Placed, not only sent: what lies in sockets' buffers when the guest is paused
         * would be part of its blackout. */
        error = wait_sent(e, transport_wait_placed);
    }
    if (!error && e->network && round > 1) {
        /* So that little is left to ask for in the pause. */
        network_gather(e->network);
    }
    return error;
}

static int
fetch_dirty(struct source *s)
{
    memset(s->bitmap, 0, s->words * sizeof *s->bitmap);
    return s->e->ops->dirty_fetch(s->e->guest, s->bitmap);
}

/* Pages that went out with their content, so far: zeros cost the wire nothing, and
 * what is dirty is hardly ever zeros. */
static uint64_t
pages_carried(struct mig_end *e)
{
    struct transport_stats stats;
    uint64_t n = 0;

    transport_get_stats(e->transport, &stats);
    for (int k = MIG_RAW; k < MIG_KINDS; k++) {
        n += stats.pages_by_kind[k];
    }
    return n;
}

/* After a round: what next? */
static void
decide(struct source *s, uint32_t round, uint64_t pages_sent, uint64_t round_us)
{
    struct mig_end *e = s->e;
    struct policy_limits limits = {.max_blackout_ms = e->job->max_blackout_ms,
                                   .max_rounds = e->job->max_rounds,
                                   .max_throttle = e->ops->throttle ? e->job->max_throttle : 0};
    struct policy_stats stats = {.round = round,
                                 .pages_left = count(s->bitmap, s->words),
                                 .round_us = round_us ? round_us : 1,
                                 .fixed_ms = FIXED_MS,
                                 .throttle = s->throttle,
                                 .postcopy_wanted = e->control->postcopy && e->job->postcopy &&
                                                    e->ops->postcopy_pinned};
    struct mig_progress *p = &e->progress;
    uint64_t carried = pages_carried(e);

    stats.pages_sent = carried - s->carried;
    s->carried = carried;
    s->decision = policy_decide(&limits, &stats, &s->policy);
    e->result->rounds = round;
    p->pages_left = stats.pages_left;
    p->rate_mbps = pages_sent * MIG_PAGE_BYTES * 8 / stats.round_us;
    p->dirty_mbps = round > 1 || stats.pages_left < e->memory.n_pages
                        ? stats.pages_left * MIG_PAGE_BYTES * 8 / stats.round_us
                        : 0;
    p->expected_blackout_ms = s->decision.blackout_ms;
    /* Rounds shrink by the ratio of the rates, if they do. */
    p->eta_s = p->rate_mbps > p->dirty_mbps ? stats.pages_left * MIG_PAGE_BYTES * 8 / 1000000 /
                                                  (p->rate_mbps - p->dirty_mbps)
                                            : UINT32_MAX;
    if (s->decision.action == POLICY_THROTTLE &&
        !e->ops->throttle(e->guest, s->decision.throttle)) {
        s->throttle = s->decision.throttle;
    }
    p->throttle = s->throttle;
    end_progress(e, true);
}

/* Rounds until the policy says that it is time. */
static int
precopy(struct source *s)
{
    struct mig_end *e = s->e;
    uint64_t begin, sent;
    int error;

    end_phase(e, MIG_PHASE_PRECOPY);
    s->words = (e->memory.n_pages + 63) / 64;
    s->bitmap = malloc(s->words * sizeof *s->bitmap);
    if (!s->bitmap) {
        return end_fail(e, ENOMEM, "no memory");
    }
    error = e->ops->dirty_start(e->guest);
    if (error) {
        return end_fail(e, error, "dirty log: %s", strerror(error));
    }
    s->logging = true;
    memset(s->bitmap, 0xff, s->words * sizeof *s->bitmap);
    if (e->memory.n_pages % 64) {
        s->bitmap[s->words - 1] = (1ull << e->memory.n_pages % 64) - 1;
    }
    if (e->job->offline) {
        return 0;
    }
    for (uint32_t round = 1;; round++) {
        begin = mig_now_ns();
        sent = count(s->bitmap, s->words);
        error = send_round(s, round);
        if (!error) {
            error = fetch_dirty(s);
        }
        if (error) {
            return end_fail(e, error, "%s", end_transport_why(e, error));
        }
        decide(s, round, sent, (mig_now_ns() - begin) / 1000);
        if (s->decision.action == POLICY_GIVE_UP) {
            return end_fail(
                e, EAGAIN,
                "the guest writes its memory faster than it can be sent: %llu pages left "
                "after %u rounds, %u %% throttled",
                (unsigned long long)e->progress.pages_left, round, s->throttle);
        }
        if (s->decision.action == POLICY_PAUSE || s->decision.action == POLICY_POSTCOPY) {
            return 0;
        }
    }
}

/* --- pause --------------------------------------------------------------------------- */

/* What a backend may write stays in the bitmap, the rest is owed. */
static int
split_pending(struct source *s)
{
    struct mig_end *e = s->e;
    uint64_t *pinned = calloc(s->words, sizeof *pinned);
    int error;

    s->pending = malloc(s->words * sizeof *s->pending);
    if (!pinned || !s->pending) {
        error = ENOMEM;
        goto out;
    }
    error = e->ops->postcopy_pinned(e->guest, pinned);
    for (size_t i = 0; i < s->words; i++) {
        s->pending[i] = s->bitmap[i] & ~pinned[i];
        s->bitmap[i] &= pinned[i];
    }
    if (!error) {
        error = journal_save_pending(e->journal, s->pending, e->memory.n_pages);
    }
out:
    free(pinned);
    return error;
}

/* Tells which pages are owed. */
static int
put_pending(struct source *s)
{
    uint8_t *ranges = malloc(MIG_RANGES_MAX * 16);
    struct mig_msg m = {.type = MIG_PENDING};
    uint64_t n_pages = s->e->memory.n_pages, pfn = 0, end;
    int error = ranges ? 0 : ENOMEM;

    while (!error && !m.pending.last) {
        for (m.pending.n = 0; m.pending.n < MIG_RANGES_MAX && pfn < n_pages; pfn = end) {
            end = pfn + 1;
            if (!(s->pending[pfn / 64] >> pfn % 64 & 1)) {
                continue;
            }
            while (end < n_pages && s->pending[end / 64] >> end % 64 & 1) {
                end++;
            }
            mig_range_put(ranges + 16 * m.pending.n++, (struct mig_range){pfn, end - pfn});
        }
        m.pending.last = pfn >= n_pages;
        m.pending.data = (struct mig_bytes){.p = ranges, .n = 16 * m.pending.n};
        error = end_put(s->e, &m);
    }
    free(ranges);
    return error;
}

static int
hold_network(struct mig_end *e)
{
    int error = e->network ? network_hold(e->network) : 0;

    return error ? end_fail(e, error, "%s", network_why(e->network)) : 0;
}

/* Lost network state fails no migration. */
static int
put_network(struct mig_end *e)
{
    struct network_times times[NETWORK_VIFS_MAX] = {0};
    uint8_t *state = NULL;
    size_t n = 0;
    int error;

    if (!e->network) {
        return 0;
    }
    network_times(e->network, times);
    if (network_export(e->network, &state, &n) ||
        n > MIG_NETWORK_TOTAL_MAX - 4 - 24 * NETWORK_VIFS_MAX) {
        n = 0;
    }
    error = end_network_put(e, times, state ? state : (const uint8_t *)"", n);
    free(state);
    return error;
}

static int
put_state(struct mig_end *e)
{
    uint8_t *state = NULL;
    size_t n;
    int error = e->ops->state_save(e->guest, &state, &n);

    if (error) {
        return end_fail(e, error, "guest's state: %s", strerror(error));
    }
    error = end_put_parts(e, MIG_STATE, state, n);
    free(state);
    return error;
}

/* The guest stops; its last pages and all that is not memory go out. */
static int
stop_and_copy(struct source *s)
{
    struct mig_end *e = s->e;
    int error;

    /* From here on a later process asks the row: written before the guest stops, so
     * that it costs no blackout. */
    s->may_be_final = false;
    error = journal_write(e->journal, JOURNAL_PAUSING, false);
    if (error) {
        return end_fail(e, error, "journal: %s", strerror(error));
    }
    end_phase(e, MIG_PHASE_PAUSE);
    if (end_cancelled(e)) {
        return ECANCELED;
    }
    s->e->paused_ns = mig_now_ns();
    error = e->ops->pause(e->guest);
    if (error) {
        return end_fail(e, error, "pause: %s", strerror(error));
    }
    error = hold_network(e);
    if (!error) {
        /* On top of what the last fetch found: that has not been sent either. */
        error = e->ops->dirty_fetch(e->guest, s->bitmap);
    }
    if (!error && s->decision.action == POLICY_POSTCOPY) {
        error = split_pending(s);
    }
    if (!error) {
        transport_tx_round(e->transport, e->result->rounds, MIG_BATCH_EXACT);
        error = transport_tx_bitmap(e->transport, s->bitmap, e->memory.n_pages);
    }
    if (!error) {
        error = put_state(e);
    }
    if (!error) {
        error = put_network(e);
    }
    if (!error && s->pending) {
        error = put_pending(s);
    }
    if (!error) {
        error = transport_tx_barrier(e->transport);
    }
    if (!error) {
        error = wait_sent(e, transport_flush);
    }
    return error ? end_fail(e, error, "%s", end_transport_why(e, error)) : 0;
}

/* --- stream drivers: rounds and pause are their toolstack's --------------------------- */

static void
stream_paused(void *aux)
{
    struct source *s = aux;

    s->e->paused_ns = mig_now_ns();
    if (s->e->network) {
        network_hold(s->e->network);
    }
}

static void
stream_progress(struct mig_end *e)
{
    struct mig_stream_stats st = {0};

    e->ops->stream_stats(e->guest, &st);
    e->progress.round = e->result->rounds = st.round;
    e->progress.bytes_guest = e->result->bytes_guest = st.bytes_guest;
    e->progress.pages_left = st.pages_left;
    end_progress(e, false);
}

/* Until the far end has all of a round: queues that are full when the guest is paused
 * would be part of its blackout. */
static int
settle_stream(struct mig_end *e)
{
    int error = transport_tx_barrier(e->transport);

    while (!error && (error = transport_wait_placed(e->transport, LOOK_MS)) == ETIMEDOUT) {
        stream_progress(e);
        error = look(e);
    }
    return error;
}

static int
send_stream(struct source *s)
{
    struct mig_end *e = s->e;
    struct mig_stream_start start = {.max_rounds = e->job->offline ? 1 : e->job->max_rounds,
                                     .max_left_ms = e->job->max_blackout_ms,
                                     .paused = stream_paused,
                                     .aux = s};
    const uint8_t *bytes;
    size_t n;
    int error = journal_write(e->journal, JOURNAL_PAUSING, false);

    end_phase(e, MIG_PHASE_PRECOPY);
    if (!error) {
        error = e->ops->stream_start(e->guest, &start);
    }
    if (error) {
        return end_fail(e, error, "toolstack: %s", strerror(error));
    }
    pthread_mutex_lock(&e->control->lock);
    e->control->stream = e->guest;
    pthread_mutex_unlock(&e->control->lock);
    while (!(error = look(e))) {
        error = e->ops->stream_next(e->guest, &bytes, &n);
        if (error == EAGAIN) {
            error = settle_stream(e);
        } else if (!error) {
            error = transport_tx_chunk(e->transport, bytes, n);
            s->n_chunks++;
        }
        if (error) {
            break;
        }
        stream_progress(e);
    }
    pthread_mutex_lock(&e->control->lock);
    e->control->stream = NULL;
    pthread_mutex_unlock(&e->control->lock);
    if (error != ENODATA) {
        e->ops->stream_cancel(e->guest);
        return end_fail(e, error, "%s", end_transport_why(e, error));
    }
    end_phase(e, MIG_PHASE_PAUSE);
    error = put_network(e);
    if (!error) {
        error = transport_tx_barrier(e->transport);
    }
    return error ? end_fail(e, error, "%s", end_transport_why(e, error)) : 0;
}

/* --- final, commit --------------------------------------------------------------------- */

static int
put_final(struct source *s)
{
    struct mig_end *e = s->e;
    struct mig_msg m = {.type = MIG_FINAL};
    struct mig_sum sum;
    int error = 0;

    if (e->ops->kind == MIG_STREAM) {
        error = e->ops->stream_digest(e->guest, m.final.digest);
    } else {
        if (s->pending) {
            transport_forget(e->transport, s->pending);
        }
        sum = transport_digest(e->transport);
        mig_sum_put(m.final.digest, &sum);
    }
    m.final.epoch = e->job->epoch;
    m.final.n_chunks = s->n_chunks;
    m.final.n_pending = s->pending ? count(s->pending, s->words) : 0;
    m.final.paused_ns = mig_now_ns() - e->paused_ns;
    return error ? error : end_put(e, &m);
}

/* The destination's word that it could run the guest. */
static int
await_ready(struct mig_end *e)
{
    struct transport_message message;
    struct mig_msg m;
    int error;

    for (;;) {
        error = end_wait(e, &message, &m, e->job->answer_ms, true);
        if (error == ETIMEDOUT) {
            return end_fail(e, error, "the destination has not got ready in time");
        }
        if (error) {
            return end_fail(e, error, "%s", end_transport_why(e, error));
        }
        if (m.type == MIG_ABORT) {
            error = aborted(e, &m);
        }
        transport_message_done(&message);
        if (error || m.type == MIG_READY) {
            return error;
        }
    }
}

static int
finalise(struct source *s)
{
    struct mig_end *e = s->e;
    int error;

    end_phase(e, MIG_PHASE_FINAL);
    if (end_cancelled(e)) {
        return ECANCELED;
    }
    s->may_be_final = true;
    error = put_final(s);
    if (error) {
        return end_fail(e, error, "%s", end_transport_why(e, error));
    }
    error = await_ready(e);
    if (!error) {
        end_phase(e, MIG_PHASE_COMMIT);
        s->ready = !end_cancelled(e);
        error = s->ready ? 0 : ECANCELED;
    }
    return error;
}

/* --- afterwards --------------------------------------------------------------------------- */

static void
quieten(struct source *s)
{
    struct mig_end *e = s->e;

    if (s->logging) {
        e->ops->dirty_stop(e->guest);
        s->logging = false;
    }
    if (s->throttle) {
        e->ops->throttle(e->guest, 0);
    }
}

/* The guest goes on here. */
static void
resume(struct mig_end *e, uint64_t epoch)
{
    struct mig_result *r = e->result;
    int error;

    if (e->network) {
        network_release(e->network);
    }
    error = e->ops->resume(e->guest, epoch);
    if (error) {
        end_fail(e, error, "resume: %s", strerror(error));
        return;
    }
    journal_write(e->journal, JOURNAL_DONE, true);
    r->running = true;
    r->epoch = epoch;
    r->status = MIG_ROLLED_BACK;
}

void
send_resume(struct mig_end *e)
{
    journal_write(e->journal, JOURNAL_ABORTED, false);
    resume(e, e->job->epoch + 1);
}

void
send_destroy(struct mig_end *e)
{
    int error = e->guest ? e->ops->destroy(e->guest) : 0;

    if (error) {
        end_fail(e, error, "destroy: %s", strerror(error));
        return;
    }
    journal_write(e->journal, JOURNAL_DONE, true);
    *e->result->why = '\0';
    e->result->status = MIG_OK;
}

void
send_running(struct mig_end *e)
{
    if (!e->result->blackout_us && e->paused_ns) {
        e->result->blackout_us = (mig_now_ns() - e->paused_ns) / 1000;
    }
}

int
send_late(struct mig_end *e, int *left)
{
    uint8_t frame[NETWORK_LATE_MAX];
    struct mig_msg m = {.type = MIG_LATE};
    size_t n = sizeof frame;
    int error;

    while (!(error = network_late(e->network, frame, &n))) {
        m.late.data = (struct mig_bytes){.p = frame, .n = n};
        e->result->late_packets++;
        error = end_put(e, &m);
        if (error) {
            return error;
        }
        n = sizeof frame;
    }
    *left = error == EAGAIN;
    return 0;
}

int
send_reconnect(struct mig_end *e)
{
    int error = open_stream(e);

    *e->result->why = '\0';
    if (!error) {
        error = agree(e);
    }
    return error;
}

/* Waits for RUNNING and forwards what still comes here. */
static void
hand_over(struct mig_end *e)
{
    struct transport_message message;
    struct mig_msg m;
    uint64_t deadline = mig_now_ns() + HANDOVER_MS * 1000000ull;
    int late = e->network ? 1 : 0, error = 0, fd = -1;
    bool running = false, destroyed = false;

    if (late && network_late_fd(e->network, &fd)) {
        late = 0;
    }
    while (!error && (!running || late) && mig_now_ns() < deadline && !e->control->quit) {
        struct pollfd p[] = {{.fd = transport_rx_fd(e->transport), .events = POLLIN},
                             {.fd = late ? fd : -1, .events = POLLIN}};

        poll(p, 2, LOOK_MS);
        while (!(error = end_take(e, &message, &m, 0))) {
            if (m.type == MIG_RUNNING && !running) {
                running = true;
                send_running(e);
            }
            transport_message_done(&message);
        }
        error = error == ETIMEDOUT ? 0 : error;
        /* Its port goes some time after the guest: late frames end then. */
        if (running && !destroyed) {
            destroyed = !e->ops->destroy(e->guest);
        }
        if (!error && late) {
            error = send_late(e, &late);
        }
    }
}

/* The row says: the destination's. */
static void
hand_away(struct source *s)
{
    struct mig_end *e = s->e;
    struct mig_msg m = {.type = MIG_COMMITTED, .committed.epoch = e->job->epoch + 1};
    bool up = e->transport && !transport_error(e->transport, NULL);

    if (up) {
        end_put(e, &m);
    }
    journal_write(e->journal, JOURNAL_COMMITTED, false);
    e->past.committed = true;
    quieten(s);
    if (s->pending) {
        end_phase(e, MIG_PHASE_POSTCOPY);
        if (postcopy_send(e, s->pending)) {
            return;
        }
    } else if (up) {
        end_phase(e, MIG_PHASE_HANDOVER);
        hand_over(e);
    }
    end_finish(e);
    send_destroy(e);
}

static enum mig_abort_code
abort_code(const struct mig_end *e, int error)
{
    return e->control->cancel                    ? MIG_ABORT_CANCELLED
           : error == EPROTO || error == EBADMSG ? MIG_ABORT_PROTOCOL
                                                 : MIG_ABORT_INTERNAL;
}

/* No FINAL went out: the guest is ours without asking anybody. */
static void
roll_back(struct source *s, int error)
{
    struct mig_end *e = s->e;
    struct mig_guest_status status;

    end_put_abort(e, abort_code(e, error), e->result->why);
    if (e->guest) {
        quieten(s);
        if (s->begun && !e->ops->status(e->guest, &status) && status.state != MIG_GUEST_RUNNING) {
            resume(e, e->job->epoch);
            return;
        }
        if (e->network) {
            network_release(e->network);
        }
        e->result->running = s->begun;
        e->result->status = MIG_ROLLED_BACK;
    }
    journal_write(e->journal, JOURNAL_DONE, true);
}

static void
settle(struct source *s, int error)
{
    struct mig_end *e = s->e;

    if (error) {
        end_fail(e, error, "%s", strerror(error));
    }
    switch (end_decide(e, s->ready)) {
    case VERDICT_DESTINATION:
        hand_away(s);
        break;
    case VERDICT_SOURCE:
        end_fail(e, ECANCELED, "the destination's commit was too late");
        end_put_abort(e, error ? abort_code(e, error) : MIG_ABORT_LOST, e->result->why);
        quieten(s);
        send_resume(e);
        break;
    case VERDICT_OTHER:
        end_fail(e, ESTALE, "the VM was moved on by others (epoch %llu)",
                 (unsigned long long)e->result->epoch);
        end_put_abort(e, MIG_ABORT_LOST, e->result->why);
        send_destroy(e);
        e->result->status = e->result->status == MIG_OK ? MIG_GONE : MIG_FAILED;
        break;
    case VERDICT_NONE:
        break;
    }
}

void
mig_send(struct mig_end *e)
{
    struct source s = {.e = e};
    int error = prepare(e);

    if (!error) {
        s.begun = true;
        if (e->ops->kind == MIG_STREAM) {
            error = send_stream(&s);
        } else {
            error = precopy(&s);
            if (!error) {
                error = stop_and_copy(&s);
            }
        }
    }
    if (!error) {
        error = finalise(&s);
    }
    if (e->control->cancel && error == ECANCELED) {
        end_fail(e, error, "cancelled");
    }
    if (e->control->quit) {
        end_fail(e, ECANCELED, "told to leave it as it is");
    } else if (s.may_be_final) {
        settle(&s, error);
    } else {
        roll_back(&s, error);
    }
    end_phase(e, MIG_PHASE_DONE);
    free(s.bitmap);
    free(s.pending);
}
