/* transport_limit: how much of something may be used per second.
 *
 * What is used is taken off a credit that grows with time, up to a fifth of a second's;
 * whoever finds it below zero waits until it is not.  Any number of threads. */
#ifndef WEFT_MIGRATE_TRANSPORT_LIMIT_H
#define WEFT_MIGRATE_TRANSPORT_LIMIT_H

#include <pthread.h>
#include <stdint.h>

struct limit {
    pthread_mutex_t lock;
    double per_s; /* 0: none */
    double credit;
    uint64_t at_ns;
};

void limit_init(struct limit *);
void limit_set(struct limit *, double per_s, uint64_t now_ns);
/* Takes 'amount'.  Returns how long to wait, in nanoseconds, before going on. */
uint64_t limit_take(struct limit *, double amount, uint64_t now_ns);

#endif
