/* index: hash tables whose chains are kept short.
 *
 * Half of what a cold start looks up is not there, and then a lookup walks the whole
 * chain, each step of it a cache miss.  An hmap has up to two nodes for a bucket; these
 * have two to eight buckets for a node, and grow four times at once.
 *
 * Threads: none of its own. */
#ifndef CTL_INDEX_H
#define CTL_INDEX_H

#include "openvswitch/hmap.h"

/* Four times the buckets. */
void index_grow(struct hmap *);

/* As hmap_insert(). */
static inline void
index_insert(struct hmap *map, struct hmap_node *node, uint32_t hash)
{
    if (hmap_count(map) > map->mask / 2) {
        index_grow(map);
    }
    hmap_insert_fast(map, node, hash);
}

#endif
