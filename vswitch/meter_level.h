/* meter_level: what is left in the buckets of a port's meters, for a vif that moves.
 *
 * The pool's controller numbers a port's meters so that the number's low 16 bits are
 * the port's (controller/pmeter.h).  Without them, as here, it names the same meter
 * where the vif has another port.  Meters of several datapaths, and numbers that two
 * bridges use, are left alone.
 *
 * Threads: the main thread. */
#ifndef METER_LEVEL_H
#define METER_LEVEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define METER_LEVEL_FIRST 0xa0000000u /* lower numbers are not the controller's */

struct meter_level {
    uint32_t id;    /* OpenFlow's, without the port */
    uint64_t level; /* 1/1000 packets or bits, of the first band */
};

/* Returns how many there are, 'max' at most. */
size_t meter_levels_get(uint16_t ofport, struct meter_level *, size_t max);
/* No bucket holds more than that any more; none gets more than it has.  Returns how many of
 * the meters are there. */
size_t meter_levels_lower(uint16_t ofport, const struct meter_level *, size_t n);

#endif
