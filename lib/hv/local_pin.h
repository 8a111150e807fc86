/* local_pin: the part of a hypervisor's grant code that must hold between
 * processes: pins a grant while it is copied or mapped.
 *
 * Theory of Operation
 * ===================
 * Xen keeps, for each grant, an active entry that only it can see: a lock and
 * counts of who maps or copies the grant.  The guest sees just the summary,
 * GTF_reading and GTF_writing in its own entry, and may revoke a grant only
 * while both are clear.  Here the active entry is one 64-bit pin word in the
 * domain's state memory, shared by the broker and all backends:
 *
 *   bits 0-13   owner id of who holds the word's lock, 0 if unlocked
 *   bits 14-58  three copiers: owner id (14 bits, 0 if none), writes (1 bit)
 *   bit 60, 61  some mapping reads; some mapping writes (the broker counts)
 *
 * Every change of a word and of the two flags that follow from it happens
 * under the word's lock, which is held for a few instructions and never
 * during a copy.  A copier is entered by name and not counted, so a process
 * may die anywhere: the broker walks the words, takes over locks of the dead,
 * strikes dead copiers out and sets the flags to what the rest needs
 * (local_pin_heal()).  Nothing has to be journalled on the way.
 *
 * A waiter spins briefly, then yields.  A holder that was stopped for a whole
 * second (by a debugger, say) loses the lock rather than stop others.
 *
 * The guest's entry is read as one word and changed by compare-and-swap on
 * the whole of it, so flags, domain and frame belong together; a guest that
 * keeps changing it is refused after a few tries, as in Xen.
 *
 * Threads: any, any process.  An owner id belongs to one thread at a time. */
#ifndef LOCAL_PIN_H
#define LOCAL_PIN_H

#include <stdbool.h>

#include "local_proto.h"

#define LOCAL_OWNER_BITS 14
#define LOCAL_OWNER_BROKER 0x3fffu /* the highest id; others are 1..0x3ffe */
#define LOCAL_N_COPIERS 3u

#define LOCAL_PIN_LOCK ((uint64_t)LOCAL_OWNER_BROKER)
#define LOCAL_PIN_MAP_R (UINT64_C(1) << 60)
#define LOCAL_PIN_MAP_W (UINT64_C(1) << 61)

/* A pin held for a copy. */
struct local_pin {
    uint32_t ref;
    uint32_t page;   /* of the domain's memory; checked */
    uint64_t copier; /* the field set in the pin word */
    bool write;
};

/* Pins grant 'ref' of the domain for a copy by 'owner', which acts for
 * 'domid'.  Returns GNTST_okay, or a negative GNTST_* and nothing is pinned. */
int local_pin_acquire(const struct local_view *, uint32_t ref, uint16_t domid, uint16_t owner,
                      bool write, struct local_pin *);
/* Ends the copy; marks the page dirty if it was for writing. */
void local_pin_release(const struct local_view *, const struct local_pin *, uint16_t owner);

/* The broker's: sets the bit of a first mapping (idempotent).  'page' as
 * above.  Returns a GNTST_*. */
int local_pin_map(const struct local_view *, uint32_t ref, uint16_t domid, bool write,
                  uint32_t *page);
/* Says which kinds of mapping are left, and clears flags accordingly. */
void local_pin_unmap(const struct local_view *, uint32_t ref, bool still_read, bool still_written);

/* Strikes out all pins of owners for which dead(ctx, owner) is true. */
void local_pin_heal(const struct local_view *, bool (*dead)(void *ctx, uint16_t owner), void *ctx);
/* Number of grants pinned now. */
uint32_t local_pin_count(const struct local_view *);

void local_mark_dirty(const struct local_view *, uint32_t page);

#endif
