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

/* A cold start mostly waits for memory, and much of it can be asked for before it is needed.
 * Nothing is read: any address will do. */
static inline void
prefetch(const void *p, size_t n)
{
    for (size_t i = 0; i < n; i += 64) {
        OVS_PREFETCH((const char *)p + i);
    }
}

/* What will be looked up: the bucket, and when that has come the first node in it. */
static inline void
index_prefetch(const struct hmap *map, uint32_t hash)
{
    OVS_PREFETCH(&map->buckets[hash & map->mask]);
}

static inline void
index_prefetch_node(const struct hmap *map, uint32_t hash)
{
    OVS_PREFETCH(map->buckets[hash & map->mask]);
}

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
