/* late: a frame on its way to a guest that has moved, as bytes.
 *
 *   source's switch > weft-migrate > weft-migrate > destination's switch
 *
 *   offset  bytes
 *   0       1      version: 1
 *   1       1      what is known or wanted (LATE_*), others 0
 *   2       2      segment size, little-endian; 0 unless LATE_GSO
 *   4       4      length of the frame, little-endian: 14..NETBACK_FRAME_MAX
 *   8              the frame; nothing behind it
 *
 * Threads: pure functions. */
#ifndef LATE_H
#define LATE_H

#include <stddef.h>
#include <stdint.h>

#include "netback.h"

#define LATE_VERSION 1u
#define LATE_HEADER 8u
#define LATE_MAX (LATE_HEADER + NETBACK_FRAME_MAX)
enum {
    LATE_SUM_GOOD = 1,  /* the L4 checksum has been checked */
    LATE_SUM_BLANK = 2, /* TCP or UDP, to be filled in */
    LATE_GSO = 4,       /* TCP, to be cut; with LATE_SUM_BLANK */
};

/* Writes a frame to 'buf' (LATE_MAX bytes); returns the message's length, 0 if it
 * cannot be one (too long, in several segments). */
size_t late_encode(const struct rte_mbuf *, uint8_t *buf);

/* Checks a message: hostile.  Length of its frame, which starts at LATE_HEADER, or 0
 * if it is none. */
size_t late_check(const uint8_t *msg, size_t len);
/* Fills an empty mbuf with a checked message's frame (EMSGSIZE: it has no room)
 * and its offloads. */
int late_decode(const uint8_t *msg, size_t frame_len, struct rte_mbuf *);

#endif
