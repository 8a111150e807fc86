/* xenstore_map: a small intrusive hash map from strings.
 *
 * Threads: one.  Ownership: entries and their keys are the caller's; an entry
 * embeds a struct xsmap_node. */
#ifndef XENSTORE_MAP_H
#define XENSTORE_MAP_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "xenstore_tree.h"

struct xsmap_node {
    struct xsmap_node *next;
    uint32_t hash;
    uint32_t key_len;
    const char *key; /* not terminated */
};

struct xsmap {
    struct xsmap_node **buckets; /* NULL while empty; their number a power of 2 */
    uint32_t n_buckets;
    uint32_t n;
};

/* FNV-1a from a seed of the process's own: guests choose the strings. */
extern uint32_t xsmap_seed;

static inline uint32_t
xsmap_hash(const char *key, size_t len)
{
    uint32_t h = xsmap_seed;

    for (size_t i = 0; i < len; i++) {
        h = (h ^ (uint8_t)key[i]) * 16777619u;
    }
    return h ^ h >> 15;
}

static inline struct xsmap_node *
xsmap_find(const struct xsmap *m, const char *key, size_t len)
{
    if (!m->n) {
        return NULL;
    }
    uint32_t hash = xsmap_hash(key, len);
    struct xsmap_node *e = m->buckets[hash & (m->n_buckets - 1)];

    while (e && (e->hash != hash || e->key_len != len || memcmp(e->key, key, len))) {
        e = e->next;
    }
    return e;
}

static inline void
xsmap_grow(struct xsmap *m)
{
    uint32_t n = m->n_buckets ? m->n_buckets * 2 : 16;
    struct xsmap_node **buckets = xs_alloc(n * sizeof *buckets);

    memset(buckets, 0, n * sizeof *buckets);
    for (uint32_t i = 0; i < m->n_buckets; i++) {
        for (struct xsmap_node *e = m->buckets[i], *next; e; e = next) {
            next = e->next;
            e->next = buckets[e->hash & (n - 1)];
            buckets[e->hash & (n - 1)] = e;
        }
    }
    free(m->buckets);
    m->buckets = buckets;
    m->n_buckets = n;
}

/* The key is not in the map yet. */
static inline void
xsmap_insert(struct xsmap *m, struct xsmap_node *e, const char *key, size_t len)
{
    if (m->n >= m->n_buckets) {
        xsmap_grow(m);
    }
    e->key = key;
    e->key_len = len;
    e->hash = xsmap_hash(key, len);
    e->next = m->buckets[e->hash & (m->n_buckets - 1)];
    m->buckets[e->hash & (m->n_buckets - 1)] = e;
    m->n++;
}

static inline void
xsmap_remove(struct xsmap *m, struct xsmap_node *e)
{
    struct xsmap_node **link = &m->buckets[e->hash & (m->n_buckets - 1)];

    while (*link != e) {
        link = &(*link)->next;
    }
    *link = e->next;
    m->n--;
}

#endif
