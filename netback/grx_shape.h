/* grx_shape: how a packet from the switch looks in a guest's receive ring.
 *
 * From a packet's offload flags, its headers and the guest's features follows
 * whether it goes in one piece or is cut, with which flags and extras, and
 * how many slots that takes.
 *
 * Threads: pure functions on their arguments; only grx_shape_apply() writes,
 * to the packet. */
#ifndef GRX_SHAPE_H
#define GRX_SHAPE_H

#include "offload.h"
#include "ring.h"

enum grx_way {
    GRX_WHOLE, /* as it is */
    GRX_CUT,   /* in wire segments */
    GRX_DROP,  /* the guest cannot take it: DROP_GRX_TOO_LONG */
};

struct grx_shape {
    enum grx_way way;
    uint16_t flags;    /* NETRXF_* of slot 0 */
    uint16_t mss;      /* for the GSO extra or for cutting; 0: neither */
    uint8_t gso_type;  /* XEN_NETIF_GSO_TYPE_* */
    bool blank_cut;    /* segments may keep a blank checksum */
    bool layout_valid; /* checksum is blank and there is one to mend */
    struct frame_layout layout;
};

/* Decides.  The packet is not changed. */
void grx_shape(struct grx_shape *, const struct rte_mbuf *, const struct guest_features *,
               uint16_t mtu);
/* Brings the checksum of a packet that goes whole into the form that 'flags'
 * promise.  True if the checksum was computed in full. */
bool grx_shape_apply(const struct grx_shape *, struct rte_mbuf *);

/* Bytes that go into the first of the pages for 'len' bytes: what lies in the
 * first page of ours, with 'by_page', so that each further copy stays within
 * one.  But frontends want the headers together. */
#define GRX_FIRST_MIN 256u
static inline uint16_t
grx_first_len(const uint8_t *data, uint32_t len, bool by_page)
{
    uint32_t here = HV_PAGE_SIZE - (uintptr_t)data % HV_PAGE_SIZE;

    if (len <= HV_PAGE_SIZE || !by_page || here < GRX_FIRST_MIN) {
        here = HV_PAGE_SIZE;
    }
    return len < here ? len : here;
}

/* Data slots for 'len' bytes. */
static inline unsigned
grx_data_slots(const uint8_t *data, uint32_t len, bool by_page)
{
    uint32_t rest = len - grx_first_len(data, len, by_page);

    return 1 + (rest + HV_PAGE_SIZE - 1) / HV_PAGE_SIZE;
}

#endif
