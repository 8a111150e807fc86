/* flow_frame: a frame's headers as a struct flow_record: of sFlow's samples, of captures.
 *
 * Pure functions over bytes. */
#ifndef FLOW_FRAME_H
#define FLOW_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cursor.h"
#include "flow_record.h"

enum flow_frame_kind { FLOW_FRAME_ETHERNET, FLOW_FRAME_IP4, FLOW_FRAME_IP6 };

/* Fills in what the first bytes of a frame say: addresses, ports, tags, flags,
 * TTL.  'frame_len' is the length of the whole frame; bytes are the IP packet's
 * by its own word, never more than the frame holds.  'payload' (may be NULL) is
 * left on what follows the transport header, if that is UDP.  False: not even
 * its first header is whole, and nothing was filled in. */
bool flow_frame_read(enum flow_frame_kind, const uint8_t *p, size_t len, size_t frame_len,
                     struct flow_record *, struct cursor *payload);

#endif
