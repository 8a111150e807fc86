/* page_delta: what differs between two contents of a page.
 *
 * A list of runs of changed 8-byte words: skip (le16, words that stay), count (le16,
 * words that follow, at least 1), the words.  A run but the first skips at least one;
 * words after the last run stay.  No state, no threads. */
#ifndef MIG_PAGE_DELTA_H
#define MIG_PAGE_DELTA_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

/* Returns the length written to 'out' (MIG_PAGE bytes of room), 0 when both are equal,
 * SIZE_MAX when it would be longer than 'max' (< MIG_PAGE).  'page' may
 * change meanwhile: then the delta leads to something between. */
size_t mig_delta_make(const void *base, const void *page, size_t max, uint8_t *out);

/* Turns 'page' from the base to the new content.  0, or EPROTO for a delta that
 * is not in form; some of 'page' may be changed then. */
int mig_delta_apply(void *page, const uint8_t *delta, size_t length);

#endif
