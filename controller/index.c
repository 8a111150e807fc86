#include <config.h>

#include "index.h"

#include <stdlib.h>
#include <string.h>

#include "slab.h"
#include "util.h"

/* Nodes asked for before they are needed: each lies somewhere else. */
#define AHEAD 16

void
index_grow(struct hmap *map)
{
    size_t mask = 4 * map->mask + 3;
    struct hmap_node **buckets = xmalloc((mask + 1) * sizeof *buckets), *node, *next;

    slab_touch(buckets, (mask + 1) * sizeof *buckets);
    memset(buckets, 0, (mask + 1) * sizeof *buckets);
    for (size_t i = 0; i <= map->mask; i++) {
        if (i + AHEAD <= map->mask) {
            OVS_PREFETCH(map->buckets[i + AHEAD]);
        }
        for (node = map->buckets[i]; node; node = next) {
            next = node->next;
            node->next = buckets[node->hash & mask];
            buckets[node->hash & mask] = node;
        }
    }
    if (map->buckets != &map->one) {
        free(map->buckets);
    }
    map->buckets = buckets;
    map->one = NULL;
    map->mask = mask;
}
