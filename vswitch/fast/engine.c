/* engine: see engine.h. */
#include "state.h"

#include <errno.h>
#include <stdlib.h>

static struct key_masks *
masks_create(const struct key_mask *from)
{
    struct key_masks *m = aligned_alloc(64, (sizeof *m + 63) / 64 * 64);

    if (m) {
        key_masks_init(m, from);
    }
    return m;
}

struct engine *
engine_create(const struct engine_ops *ops, void *aux)
{
    struct engine *e = aligned_alloc(64, (sizeof *e + 63) / 64 * 64);
    struct key_mask exact;

    if (!e) {
        return NULL;
    }
    memset(e, 0, sizeof *e);
    if (counters_init(&e->counters)) {
        goto no_memory;
    }
    if (recording_init(&e->recording)) {
        goto no_recording;
    }
    e->ports = reserve(ENGINE_PORTS_MAX * sizeof *e->ports);
    if (!e->ports) {
        goto no_ports;
    }
    e->ops = ops;
    e->aux = aux;
    memset(&exact, 0xff, sizeof exact);
    key_masks_init(&e->exact, &exact);
    atomic_init(&e->masks, &e->exact);
    engine_set_mask(e, &(struct key_mask){0});
    return e;

no_ports:
    recording_done(&e->recording);
no_recording:
    counters_done(&e->counters);
no_memory:
    free(e);
    return NULL;
}

void
engine_destroy(struct engine *e)
{
    if (e) {
        struct key_masks *masks = atomic_load_explicit(&e->masks, memory_order_acquire);
        if (masks != &e->exact) {
            free(masks);
        }
        recording_done(&e->recording);
        counters_done(&e->counters);
        unreserve(e->ports, ENGINE_PORTS_MAX * sizeof *e->ports);
        free(e);
    }
}

void *
engine_aux(const struct engine *e)
{
    return e->aux;
}

void
engine_port_set(struct engine *e, uint16_t index, struct fast_port *p)
{
    if (index < ENGINE_PORTS_MAX) {
        atomic_store_explicit(&e->ports[index], p, memory_order_release);
    }
}

struct fast_port *
engine_port(const struct engine *e, uint16_t index)
{
    return index < ENGINE_PORTS_MAX ? atomic_load_explicit(&e->ports[index], memory_order_acquire)
                                    : NULL;
}

/* Keys that were stored under other masks stay in the caches, and right.  Let
 * a valid entry have been stored for flow f under masks A, and a packet be
 * looked up under B.  f's own mask is within A, because who learns takes the
 * masks after it has found f, and they were set before f could be found.  It
 * is within B: if B is the later one, because f is still there, or the entry
 * would not be valid; and B is never the earlier one, because a worker takes
 * the masks anew for each burst and learns after it has looked up.  So where
 * f looks, both keys show the packet's own bits, and if they are equal the
 * packet matches f like the one that was learned from. */
void
engine_set_mask(struct engine *e, const struct key_mask *mask)
{
    struct key_masks *new = masks_create(mask), *old;

    if (!new) {
        new = &e->exact; /* right for any flows, if more entries */
    }
    old = atomic_exchange(&e->masks, new);
    if (old != &e->exact) {
        epoch_defer(free, old);
    }
}

int
engine_flow_add(struct engine *e, struct fast_flow *f, struct program *p)
{
    int error = counters_id_alloc(&e->counters, &f->id);

    if (!error) {
        atomic_store(&f->gone, false);
        atomic_store(&f->program, p);
    }
    return error;
}

struct program *
engine_flow_set_program(struct engine *e, struct fast_flow *f, struct program *p)
{
    struct program *old = atomic_exchange(&f->program, p);

    counters_raise_gen(&e->counters, f->id);
    return old;
}

void
engine_flow_invalidate(struct engine *e, struct fast_flow *f)
{
    atomic_store(&f->gone, true);
    counters_raise_gen(&e->counters, f->id);
}

void
engine_flow_free(struct engine *e, struct fast_flow *f)
{
    counters_id_free(&e->counters, f->id);
}

void
engine_flow_stats(const struct engine *e, const struct fast_flow *f, struct flow_stats *stats)
{
    counters_sum(&e->counters, f->id, stats);
}
