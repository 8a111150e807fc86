/* synth_latency: a histogram of times, in eighths of powers of two.
 *
 * Threads: any may add; reading meanwhile is harmless. */
#ifndef SYNTH_LATENCY_H
#define SYNTH_LATENCY_H

#include <stdint.h>

#define SYNTH_LATENCY_BUCKETS (62u * 8)

struct synth_latency {
    uint64_t n[SYNTH_LATENCY_BUCKETS];
};

/* Below 8 exact, then 8 buckets from each power of two to the next. */
static inline unsigned
synth_latency_bucket(uint64_t cycles)
{
    unsigned shift = cycles < 8 ? 0 : 60 - __builtin_clzll(cycles);

    return shift * 8 + (cycles >> shift);
}

static inline void
synth_latency_add(struct synth_latency *l, uint64_t cycles)
{
    __atomic_fetch_add(&l->n[synth_latency_bucket(cycles)], 1, __ATOMIC_RELAXED);
}

uint64_t synth_latency_count(const struct synth_latency *);
/* The time that a part 'p' (0 to 1) of all stayed below, to an eighth; 0 if
 * there are none. */
uint64_t synth_latency_quantile(const struct synth_latency *, double p);
void synth_latency_clear(struct synth_latency *);

#endif
