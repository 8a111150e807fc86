#include "transport_limit.h"

void
limit_init(struct limit *l)
{
    pthread_mutex_init(&l->lock, NULL);
    l->per_s = l->credit = 0;
    l->at_ns = 0;
}

static void
refill(struct limit *l, uint64_t now_ns)
{
    double most = l->per_s / 5;

    l->credit += l->per_s * (double)(int64_t)(now_ns - l->at_ns) / 1e9;
    l->credit = l->credit < most ? l->credit : most;
    l->at_ns = now_ns;
}

void
limit_set(struct limit *l, double per_s, uint64_t now_ns)
{
    pthread_mutex_lock(&l->lock);
    l->per_s = per_s;
    l->credit = 0; /* a debt at another rate is forgiven */
    l->at_ns = now_ns;
    pthread_mutex_unlock(&l->lock);
}

uint64_t
limit_take(struct limit *l, double amount, uint64_t now_ns)
{
    uint64_t wait = 0;

    pthread_mutex_lock(&l->lock);
    if (l->per_s > 0) {
        refill(l, now_ns);
        l->credit -= amount;
        wait = l->credit < 0 ? -l->credit / l->per_s * 1e9 : 0;
    }
    pthread_mutex_unlock(&l->lock);
    return wait;
}
