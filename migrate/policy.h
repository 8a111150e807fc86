/* policy: when does a guest's memory stop being copied while it runs?
 *
 * A pure function of what was measured: no clock, no state but what it is given
 * and gives back.  Asked after every pre-copy round.
 *
 *   pause     what is left goes over the wire within the allowed blackout, and
 *             another round would not make it much less
 *   go on     it does not yet, but rounds get smaller
 *   throttle  they do not: the guest writes nearly as fast as the wire takes it.
 *             It gets less time, in steps, the more the further off it is
 *   post-copy somebody asked for it
 *   give up   throttled as far as allowed and still not converging, or out of
 *             rounds: better no migration than an outage nobody agreed to
 *
 * Threads: none. */
#ifndef WEFT_MIGRATE_POLICY_H
#define WEFT_MIGRATE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum {
    POLICY_THROTTLE_FIRST = 20, /* percent */
    POLICY_THROTTLE_MAX = 99,
    POLICY_WELL_WITHIN = 5, /* so small a part of the allowed blackout is not worth another round */
    POLICY_MARGIN = 10,     /* percent of pages more than are left: it writes until it is paused */
    POLICY_STUCK_ROUNDS = 4, /* so many rounds at the greatest throttle without progress */
};

struct policy_limits {
    uint32_t max_blackout_ms;
    uint32_t max_rounds;   /* of pre-copy, the first included */
    uint32_t max_throttle; /* percent; 0: never */
};

struct policy_stats {
    uint32_t round;       /* that has just ended; 1: the first */
    uint64_t pages_sent;  /* in it, but for zeros */
    uint64_t pages_left;  /* dirty now */
    uint64_t round_us;    /* it took, until the last page was on the wire */
    uint32_t fixed_ms;    /* of blackout that no page accounts for: drain, state, commit */
    uint32_t throttle;    /* percent, now */
    bool postcopy_wanted; /* and possible */
};

/* Between two calls; zero at first. */
struct policy_memory {
    uint64_t pages_best;  /* the least that was ever left */
    uint32_t stuck;       /* rounds without progress at the greatest throttle */
    uint64_t pages_per_s; /* smoothed */
};

enum policy_action {
    POLICY_GO_ON,
    POLICY_THROTTLE, /* to `throttle` percent, and go on */
    POLICY_PAUSE,
    POLICY_POSTCOPY,
    POLICY_GIVE_UP,
};

struct policy_decision {
    enum policy_action action;
    uint32_t throttle;
    uint32_t blackout_ms; /* expected, were it paused now; UINT32_MAX: unknown */
};

/* Of a toolstack that makes its rounds itself: what it says, and what that means. */
struct policy_seen {
    uint32_t round;       /* under way; 0: none yet */
    uint64_t pages_sent;  /* in all */
    uint64_t pages_left;  /* of this round */
    uint64_t pages_dirty; /* when it began: what the last one left; 0 in the first */
    uint64_t now_ns;
};
struct policy_rates {
    uint64_t pages_per_s, dirty_per_s; /* of this round; while the last one went on */
    uint32_t left_s, blackout_ms;      /* UINT32_MAX: unknown */
    /* Between two calls; zero at first. */
    uint32_t round;
    uint64_t round_ns, round_from;
};
void policy_rates(const struct policy_seen *, struct policy_rates *);

struct policy_decision policy_decide(const struct policy_limits *, const struct policy_stats *,
                                     struct policy_memory *);

#endif
