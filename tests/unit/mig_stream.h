/* mig_stream: a whole migration as bytes, without a transport: both directions of two
 * connections, with rounds, every kind of page and every record of a memory driver. */
#ifndef MIG_STREAM_H
#define MIG_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "record.h"

enum { STREAM_PAGES = 48, STREAM_CONNECTIONS = 2, STREAM_EPOCH = 7 };

extern const uint8_t stream_vm[16], stream_migration[16];

struct mig_stream {
    struct {
        char *p;
        size_t n;
    } source[STREAM_CONNECTIONS], destination[STREAM_CONNECTIONS];
    uint8_t memory[STREAM_PAGES][MIG_PAGE] __attribute__((aligned(4096))); /* at its end */
};

/* False: something could not be written, or some kind of page did not occur. */
bool mig_stream_make(struct mig_stream *, bool postcopy, unsigned seed);
void mig_stream_free(struct mig_stream *);

#endif
