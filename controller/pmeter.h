/* pmeter: the OpenFlow meters that hold vifs to their rates, as the controller
 * computes, compares and sends them.
 *
 * A "struct mtable" is the set of meters of one switch.  A vif's port, or what of
 * it has a tag, has one for each way; the id says which port, tag and way, so
 * that flows need not change with a rate.  Ids of ours are ranges of their own:
 * meters outside of them are others' and left alone.
 *
 * Threads: none of this locks; a table belongs to one thread. */
#ifndef PMETER_H
#define PMETER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "openvswitch/hmap.h"

#define PMETER_ID_FIRST 0xd5000000u
#define PMETER_ID_LAST 0xd501ffffu

/* Of those with a tag: 0xa0000000 to 0xbfffffff. */
#define PMETER_ID_TAGGED 0xa0000000u
#define PMETER_ID_TAGGED_MASK 0xe0000000u

/* 'tag' 0: none. */
static inline uint32_t
pmeter_id(uint32_t ofport, uint16_t tag, unsigned way)
{
    return tag ? PMETER_ID_TAGGED | way << 28 | (uint32_t)(tag & 0xfff) << 16 | (ofport & 0xffff)
               : PMETER_ID_FIRST | way << 16 | (ofport & 0xffff);
}

static inline bool
pmeter_is_ours(uint32_t id)
{
    return (id >= PMETER_ID_FIRST && id <= PMETER_ID_LAST) ||
           (id & PMETER_ID_TAGGED_MASK) == PMETER_ID_TAGGED;
}

/* The bucket for a rate, in kbit: 'stated' if that is not 0, but never less than
 * a guest's largest packet. */
uint32_t pmeter_burst(uint32_t kbps, uint32_t stated);

struct pmeter {
    struct hmap_node node; /* by id */
    uint32_t id;
    uint32_t kbps, burst;
    uint32_t owner; /* key of the vif; 0: not known, as of what a switch reports */
};

struct mtable {
    struct hmap meters;
    uint64_t version; /* counts changes; never 0 */
};
#define MTABLE_FOR_EACH(METER, MTABLE) HMAP_FOR_EACH (METER, node, &(MTABLE)->meters)

void mtable_init(struct mtable *);
void mtable_destroy(struct mtable *);
void mtable_clear(struct mtable *);
static inline size_t
mtable_count(const struct mtable *mt)
{
    return hmap_count(&mt->meters);
}
struct pmeter *mtable_find(const struct mtable *, uint32_t id);
/* In place of what has the id. */
void mtable_set(struct mtable *, uint32_t id, uint32_t kbps, uint32_t burst, uint32_t owner);
/* If it is the owner's. */
void mtable_remove(struct mtable *, uint32_t id, uint32_t owner);
void mtable_copy(struct mtable *, const struct mtable *from);
/* Whether 'mt' has a meter that does the same. */
bool mtable_has(const struct mtable *mt, const struct pmeter *);

#endif
