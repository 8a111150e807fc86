#include "policy.h"

/* A round of few pages says nothing about the wire: its time is that of the
 * round's fixed work. */
#define SAMPLE_PAGES 64u

static void
note_rate(const struct policy_stats *s, struct policy_memory *m)
{
    uint64_t rate;

    if (!s->round_us || (s->pages_sent < SAMPLE_PAGES && m->pages_per_s)) {
        return;
    }
    rate = s->pages_sent * 1000000 / s->round_us;
    m->pages_per_s = m->pages_per_s ? (m->pages_per_s + 3 * rate) / 4 : rate;
}

static uint32_t
expected_blackout(const struct policy_stats *s, const struct policy_memory *m)
{
    uint64_t ms;

    if (!s->pages_left) {
        return s->fixed_ms;
    }
    if (!m->pages_per_s) {
        return UINT32_MAX;
    }
    ms = s->fixed_ms + s->pages_left * (1000 + 10 * POLICY_MARGIN) / m->pages_per_s;
    return ms < UINT32_MAX ? ms : UINT32_MAX;
}

/* How much of its time the guest must lose so that the next round leaves half of
 * this one's: it wrote pages_left while pages_sent went out. */
static uint32_t
next_throttle(const struct policy_limits *l, const struct policy_stats *s)
{
    uint64_t running = 100 - s->throttle, keep, want;

    keep = s->pages_left ? running * s->pages_sent / 2 / s->pages_left : running;
    want = keep >= running ? s->throttle + 10 : 100 - keep;
    if (want < POLICY_THROTTLE_FIRST) {
        want = POLICY_THROTTLE_FIRST;
    }
    /* Not all at once: one round may have been an exception. */
    if (want > s->throttle + 40) {
        want = s->throttle + 40;
    }
    return want < l->max_throttle ? want : l->max_throttle;
}

/* Within what is allowed: now, or is another round worth its while? */
static bool
is_time(const struct policy_limits *l, const struct policy_stats *s, uint32_t blackout_ms)
{
    bool shrinks = s->round == 1 || s->pages_left < s->pages_sent / 2;

    return !shrinks || s->round + 1 >= l->max_rounds ||
           blackout_ms <= s->fixed_ms + l->max_blackout_ms / POLICY_WELL_WITHIN;
}

struct policy_decision
policy_decide(const struct policy_limits *l, const struct policy_stats *s, struct policy_memory *m)
{
    struct policy_decision d = {.action = POLICY_GO_ON, .throttle = s->throttle};
    bool progress;

    note_rate(s, m);
    d.blackout_ms = expected_blackout(s, m);
    progress = !m->pages_best || s->pages_left < m->pages_best - m->pages_best / 8;
    if (!m->pages_best || s->pages_left < m->pages_best) {
        m->pages_best = s->pages_left ? s->pages_left : 1;
    }

    if (s->postcopy_wanted) {
        d.action = POLICY_POSTCOPY;
    } else if (d.blackout_ms <= l->max_blackout_ms && is_time(l, s, d.blackout_ms)) {
        d.action = POLICY_PAUSE;
    } else if (s->round >= l->max_rounds) {
        d.action = POLICY_GIVE_UP;
    } else if (s->round > 1 && s->pages_left * 4 > s->pages_sent * 3) {
        if (s->throttle < l->max_throttle) {
            d.action = POLICY_THROTTLE;
            d.throttle = next_throttle(l, s);
            m->stuck = 0;
        } else if (progress) {
            m->stuck = 0;
        } else if (++m->stuck >= POLICY_STUCK_ROUNDS) {
            d.action = POLICY_GIVE_UP;
        }
    }
    return d;
}

void
policy_rates(const struct policy_seen *s, struct policy_rates *r)
{
    uint64_t us = (s->now_ns - r->round_ns) / 1000;

    if (s->round != r->round) {
        r->dirty_per_s = r->round && us ? s->pages_dirty * 1000000 / us : 0;
        r->round = s->round;
        r->round_ns = s->now_ns;
        r->round_from = s->pages_sent;
        us = 0;
    }
    if (us && s->pages_sent > r->round_from) { /* until then it is the last round's */
        r->pages_per_s = (s->pages_sent - r->round_from) * 1000000 / us;
    }
    r->left_s = r->pages_per_s > r->dirty_per_s ? s->pages_left / (r->pages_per_s - r->dirty_per_s)
                                                : UINT32_MAX;
    r->blackout_ms = r->pages_per_s && s->round > 1 && s->pages_dirty < UINT32_MAX / 1000
                         ? s->pages_dirty * 1000 / r->pages_per_s
                         : UINT32_MAX;
}
