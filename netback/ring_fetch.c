/* ring_fetch: slots out of shared pages, each byte loaded once.
 *
 * The loads are volatile and of fixed width; everything else in the ring code
 * sees only the private copies.  In a file of their own so that no compiler
 * inlines them into code where the copy could be optimised away. */
#include "ring_priv.h"

/* Slots lie at multiples of 4 bytes. */
typedef uint64_t __attribute__((aligned(4), may_alias)) slot_u64;
typedef uint32_t __attribute__((may_alias)) slot_u32;

/* One load in the source is one in the machine code. */
#ifdef __clang__
#define AS_WRITTEN _Pragma("clang loop unroll(disable) vectorize(disable)")
#else
#define AS_WRITTEN _Pragma("GCC unroll 1")
#endif

#define PER_LINE 5u /* whole transmit slots */

_Static_assert(sizeof(union netif_tx_sring_entry) == 12, "transmit slot");
_Static_assert(sizeof(union netif_rx_sring_entry) == 8, "receive slot");
_Static_assert(sizeof(union xen_netif_ctrl_sring_entry) == 16, "control slot");

/* 'to' has one entry for each slot of the ring. */
void
ring_fetch_tx(netif_tx_request_t *to, const union netif_tx_sring_entry *ring, RING_IDX first,
              RING_IDX end)
{
    /* Responses will be written there. */
    for (RING_IDX i = first; (int32_t)(end - i) > 0; i += PER_LINE) {
        prefetch_write(&ring[i % RING_SLOTS]);
    }
    AS_WRITTEN
    for (RING_IDX i = first; i != end; i++) {
        const volatile slot_u64 *from = (const volatile void *)&ring[i % RING_SLOTS];
        slot_u64 *slot = (void *)&to[i % RING_SLOTS];

        slot[0] = from[0];
        *(slot_u32 *)&slot[1] = *(const volatile slot_u32 *)&from[1];
    }
}

void
ring_fetch_rx(netif_rx_request_t *to, const union netif_rx_sring_entry *ring, RING_IDX first,
              RING_IDX end)
{
    AS_WRITTEN
    for (RING_IDX i = first; i != end; i++) {
        const volatile slot_u64 *from = (const volatile void *)&ring[i % RING_SLOTS];

        *(slot_u64 *)&to[i % RING_SLOTS] = from[0];
    }
}

void
ring_fetch_ctrl(struct xen_netif_ctrl_request *to, const union xen_netif_ctrl_sring_entry *slot_)
{
    const volatile slot_u64 *from = (const volatile void *)slot_;
    slot_u64 *slot = (void *)to;

    slot[0] = from[0];
    slot[1] = from[1];
}
