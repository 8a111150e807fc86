/* The source of a memory driver: rounds of pages, pause, the last pages. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "send.h"

enum { FIXED_MS = 3 }; /* of blackout, besides pages: drain, state, commit */

uint64_t
send_count(const uint64_t *bitmap, size_t words)
{
    uint64_t n = 0;

    for (size_t i = 0; i < words; i++) {
        n += __builtin_popcountll(bitmap[i]);
    }
    return n;
}

/* --- precopy ------------------------------------------------------------------------ */

/* Sends the pages of the bitmap while the guest runs. */
static int
send_round(struct source *s, uint32_t round)
{
    struct mig_end *e = s->e;
    struct mig_msg m = {
        .type = MIG_ROUND,
        .round = {.round = round - 1, .pages_dirty = send_count(s->bitmap, s->words)}};
    int error;

    e->progress.round = round;
    e->progress.pages_left = e->round_pages = m.round.pages_dirty;
    e->round_ns = mig_now_ns();
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
        error = send_wait(e, transport_wait_placed);
    }
    e->round_pages = 0;
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
                                 .pages_left = send_count(s->bitmap, s->words),
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
int
send_precopy(struct source *s)
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
        sent = send_count(s->bitmap, s->words);
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
        error = mig_journal_save_pending(e->journal, s->pending, e->memory.n_pages);
    }
    e->result->postcopy = !error;
    e->result->postcopy_pages = send_count(s->pending, s->words);
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
int
send_stop_and_copy(struct source *s)
{
    struct mig_end *e = s->e;
    int error;

    /* From here on a later process asks the row: written before the guest stops, so
     * that it costs no blackout. */
    s->may_be_final = false;
    error = mig_journal_write(e->journal, MIG_JOURNAL_PAUSING, false);
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
        error = send_network(e);
    }
    if (!error && s->pending) {
        error = put_pending(s);
    }
    if (!error) {
        error = transport_tx_barrier(e->transport);
    }
    if (!error) {
        error = send_wait(e, transport_flush);
    }
    return error ? end_fail(e, error, "%s", end_transport_why(e, error)) : 0;
}
