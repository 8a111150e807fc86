/* pattern: what /data serves, so that a client can check every byte.
 *
 * CELL_PATTERN_BYTES bytes, a prime number of them, repeat for ever; byte i of a
 * resource of seed s is pattern[(i + s * CELL_PATTERN_STEP) % CELL_PATTERN_BYTES].
 * The pattern is the top byte of each state of xorshift32 (13, 17, 5), the first
 * step taken from CELL_PATTERN_SEED included. */
#ifndef CELL_PATTERN_H
#define CELL_PATTERN_H

#include <stdint.h>

#define CELL_PATTERN_BYTES 65521u
#define CELL_PATTERN_STEP 7919u
#define CELL_PATTERN_SEED 2463534242u

static inline void
cell_pattern_fill(uint8_t pattern[CELL_PATTERN_BYTES])
{
    uint32_t x = CELL_PATTERN_SEED;

    for (uint32_t i = 0; i < CELL_PATTERN_BYTES; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        pattern[i] = (uint8_t)(x >> 24);
    }
}

#endif
