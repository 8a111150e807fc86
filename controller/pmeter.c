#include <config.h>

#include "pmeter.h"

#include <stdlib.h>

#include "hash.h"
#include "util.h"

/* 64 KiB and headers, in kbit: what TCP segmentation offload makes of a stream. */
#define BURST_MIN 530u
/* A fifth of a second: TCP gets near its rate with losses that far apart. */
#define BURST_DIVISOR 5u
#define BURST_DEFAULT_MIN 1000u

uint32_t
pmeter_burst(uint32_t kbps, uint32_t stated)
{
    return stated ? MAX(stated, BURST_MIN) : MAX(kbps / BURST_DIVISOR, BURST_DEFAULT_MIN);
}

void
mtable_init(struct mtable *mt)
{
    hmap_init(&mt->meters);
    mt->version = 1;
}

void
mtable_clear(struct mtable *mt)
{
    struct pmeter *m;

    HMAP_FOR_EACH_POP (m, node, &mt->meters) {
        free(m);
    }
    mt->version++;
}

void
mtable_destroy(struct mtable *mt)
{
    mtable_clear(mt);
    hmap_destroy(&mt->meters);
}

struct pmeter *
mtable_find(const struct mtable *mt, uint32_t id)
{
    struct pmeter *m;

    HMAP_FOR_EACH_WITH_HASH (m, node, hash_int(id, 0), &mt->meters) {
        if (m->id == id) {
            return m;
        }
    }
    return NULL;
}

void
mtable_set(struct mtable *mt, uint32_t id, uint32_t kbps, uint32_t burst, uint32_t owner)
{
    struct pmeter *m = mtable_find(mt, id);

    if (!m) {
        m = xzalloc(sizeof *m);
        m->id = id;
        hmap_insert(&mt->meters, &m->node, hash_int(id, 0));
    } else if (m->kbps == kbps && m->burst == burst && m->owner == owner) {
        return;
    }
    m->kbps = kbps;
    m->burst = burst;
    m->owner = owner;
    mt->version++;
}

void
mtable_remove(struct mtable *mt, uint32_t id, uint32_t owner)
{
    struct pmeter *m = mtable_find(mt, id);

    if (m && m->owner == owner) {
        hmap_remove(&mt->meters, &m->node);
        free(m);
        mt->version++;
    }
}

void
mtable_copy(struct mtable *mt, const struct mtable *from)
{
    const struct pmeter *m;

    mtable_clear(mt);
    MTABLE_FOR_EACH(m, from)
    {
        mtable_set(mt, m->id, m->kbps, m->burst, m->owner);
    }
}

bool
mtable_has(const struct mtable *mt, const struct pmeter *meter)
{
    const struct pmeter *m = mtable_find(mt, meter->id);

    return m && m->kbps == meter->kbps && m->burst == meter->burst;
}
