/* mig_pair: both ends of a migration's transport in one process, over loopback.
 *
 * The ends are set up by mig_pair_open(): the source connects in a thread of its own,
 * the destination accepts in the caller's.  Single-threaded otherwise. */
#ifndef MIG_PAIR_H
#define MIG_PAIR_H

#include <stdarg.h>
#include <stdio.h>

#include "transport.h"

struct mig_pair {
    struct transport_config from, to; /* filled in by mig_pair_init(), may be changed */
    struct transport_listener *listener;
    struct transport *source, *destination;
    uint8_t *memory, *copy; /* of each end */
    uint64_t n_pages;
    int give_up; /* eventfd: the source could not connect */
    int from_error, to_error;
    char from_why[TRANSPORT_WHY], to_why[TRANSPORT_WHY];
};

/* Memories of 'n_pages' zero pages; 0: a stream driver's pair. */
void mig_pair_init(struct mig_pair *, unsigned n_connections, uint64_t n_pages);
/* With a listener of its own, unless there is one.  Returns soon also when the source is refused.
 * Both must succeed, and the destination then has its memory; or see from_error, to_error. */
bool mig_pair_open(struct mig_pair *);
void mig_pair_close(struct mig_pair *);

/* The name of a case that is made up; lives on. */
__attribute__((format(printf, 1, 2))) static inline const char *
named(const char *fmt, ...)
{
    static char names[64][64];
    static unsigned n;
    va_list args;

    va_start(args, fmt);
    vsnprintf(names[n % 64], sizeof names[0], fmt, args);
    va_end(args);
    return names[n++ % 64];
}

#endif
