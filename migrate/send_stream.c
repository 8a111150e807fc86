/* The source of a stream driver: its toolstack makes the rounds and pauses. */
#include <errno.h>
#include <string.h>

#include "send.h"

static void
stream_paused(void *aux)
{
    struct source *s = aux;

    s->e->paused_ns = mig_now_ns();
    if (s->e->network) {
        s->hold_error = network_hold(s->e->network);
    }
}

static void
stream_progress(struct source *s)
{
    struct mig_end *e = s->e;
    struct mig_progress *p = &e->progress;
    struct mig_stream_stats st = {0};
    struct policy_seen seen;

    e->ops->stream_stats(e->guest, &st);
    p->round = e->result->rounds = st.round;
    p->bytes_guest = e->result->bytes_guest = st.bytes_guest;
    p->pages_left = st.pages_left;
    seen = (struct policy_seen){.round = st.round,
                                .pages_sent = st.bytes_guest / MIG_PAGE_BYTES,
                                .pages_left = st.pages_left,
                                .pages_dirty = st.pages_dirty,
                                .now_ns = mig_now_ns()};
    policy_rates(&seen, &s->rates);
    p->rate_mbps = s->rates.pages_per_s * MIG_PAGE_BYTES * 8 / 1000000;
    p->dirty_mbps = s->rates.dirty_per_s * MIG_PAGE_BYTES * 8 / 1000000;
    p->eta_s = s->rates.left_s;
    p->expected_blackout_ms = s->rates.blackout_ms;
    end_progress(e, false);
}

/* Until the far end has all of a round: queues that are full when the guest is paused
 * would be part of its blackout. */
static int
settle_stream(struct source *s)
{
    struct mig_end *e = s->e;
    int error = transport_tx_barrier(e->transport);

    while (!error && (error = transport_wait_placed(e->transport, LOOK_MS)) == ETIMEDOUT) {
        stream_progress(s);
        error = send_look(e);
    }
    return error;
}

int
send_stream(struct source *s)
{
    struct mig_end *e = s->e;
    struct mig_stream_start start = {.max_rounds = e->job->offline ? 1 : e->job->max_rounds,
                                     .max_left_ms = e->job->max_blackout_ms,
                                     .paused = stream_paused,
                                     .aux = s};
    const uint8_t *bytes;
    size_t n;
    int error = mig_journal_write(e->journal, MIG_JOURNAL_PAUSING, false);

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
    while (!(error = send_look(e))) {
        error = e->ops->stream_next(e->guest, &bytes, &n);
        if (error == EAGAIN) {
            error = settle_stream(s);
        } else if (!error) {
            error = transport_tx_chunk(e->transport, bytes, n);
            s->n_chunks++;
        }
        if (error) {
            break;
        }
        stream_progress(s);
    }
    pthread_mutex_lock(&e->control->lock);
    e->control->stream = NULL;
    pthread_mutex_unlock(&e->control->lock);
    if (error != ENODATA) {
        e->ops->stream_cancel(e->guest);
        return end_fail(e, error, "%s", end_transport_why(e, error));
    }
    if (s->hold_error) {
        /* A backend may have written behind the last look at what is dirty. */
        return end_fail(e, s->hold_error, "%s", network_why(e->network));
    }
    end_phase(e, MIG_PHASE_PAUSE);
    error = send_network(e);
    if (!error) {
        error = transport_tx_barrier(e->transport);
    }
    return error ? end_fail(e, error, "%s", end_transport_why(e, error)) : 0;
}
