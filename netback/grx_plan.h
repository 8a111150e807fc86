/* grx_plan: which bytes of a partial packet go where in a guest's pages.
 *
 * The head comes first in the first page, the sender's pieces follow.  Where
 * each copy costs by itself (by grant), a piece is not divided between two pages
 * if slots suffice for that.
 *
 * Threads: a pure function on its arguments. */
#ifndef GRX_PLAN_H
#define GRX_PLAN_H

#include "ring.h"

/* Linux's frontend has 17 fragments for a packet: of 18 slots it takes the first into
 * linear memory only if that has 256 bytes at most, and drops the packet else. */
#define PLAN_SLOTS_MAX (XEN_NETIF_NR_SLOTS_MIN - 1u)
/* The head, the pieces, and those that go on in the next page. */
#define PLAN_COPIES_MAX (1u + XEN_NETIF_NR_SLOTS_MIN + PLAN_SLOTS_MAX)

struct grx_plan {
    unsigned n_slots, n_copies;
    uint16_t len[PLAN_SLOTS_MAX]; /* bytes in each slot */
    struct plan_copy {
        uint32_t ref; /* the sender's */
        uint16_t offset, len, to;
        uint8_t slot;
    } copy[PLAN_COPIES_MAX]; /* all but the head's */
};

/* 'head' bytes, which fit a page, and 'n' pieces; together NETBACK_FRAME_MAX and a
 * few tags at most. */
void grx_plan(struct grx_plan *, uint32_t head, const struct gtx_piece *, unsigned n,
              bool by_grant);

#endif
