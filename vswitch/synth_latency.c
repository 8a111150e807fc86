#include <config.h>

#include "synth_latency.h"

#include <math.h>

static uint64_t
get(const struct synth_latency *l, unsigned i)
{
    return __atomic_load_n(&l->n[i], __ATOMIC_RELAXED);
}

uint64_t
synth_latency_count(const struct synth_latency *l)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < SYNTH_LATENCY_BUCKETS; i++) {
        n += get(l, i);
    }
    return n;
}

/* The smallest number of the bucket behind 'i'. */
static uint64_t
bucket_end(unsigned i)
{
    unsigned shift = i + 1 < 16 ? 0 : (i + 1) / 8 - 1;

    return (uint64_t)(i + 1 - shift * 8) << shift;
}

uint64_t
synth_latency_quantile(const struct synth_latency *l, double p)
{
    uint64_t left = ceil(synth_latency_count(l) * p);

    for (unsigned i = 0; left && i < SYNTH_LATENCY_BUCKETS; i++) {
        uint64_t n = get(l, i);

        if (n >= left) {
            return bucket_end(i);
        }
        left -= n;
    }
    return 0;
}

void
synth_latency_clear(struct synth_latency *l)
{
    for (unsigned i = 0; i < SYNTH_LATENCY_BUCKETS; i++) {
        __atomic_store_n(&l->n[i], 0, __ATOMIC_RELAXED);
    }
}
