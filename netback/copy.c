/* copy: batches of copies between guest and private memory (ring_priv.h). */
#include "ring_priv.h"

static void
grant_run(struct copy_batch *b, bool *failed)
{
    struct ring_port *port = b->port;
    int error = port->hv->ops->grant_copy(port->grants, b->grant, b->n_grant);

    /* The whole call fails only for reasons of ours (memory, a descriptor):
     * lengths were checked.  Nothing is known to have been copied then. */
    for (unsigned i = 0; i < b->n_grant; i++) {
        if (unlikely(error || b->grant[i].status != GNTST_okay)) {
            failed[b->owner[i]] = true;
        }
    }
    STAT_ADD(port->stats->grant_copies, 1);
    STAT_ADD(port->stats->grant_copy_segs, b->n_grant);
}

static void
direct_run(struct copy_batch *b)
{
    for (unsigned i = 0; i < b->n_direct; i++) {
        const struct copy_direct *d = &b->direct[i];

        copy_bytes(d->to, d->from, d->len);
    }
    STAT_ADD(b->port->stats->static_copies, b->n_direct);
}

static inline xengnttab_grant_copy_segment_t *
grant_add(struct copy_batch *b, uint16_t len, uint16_t owner)
{
    xengnttab_grant_copy_segment_t *seg = &b->grant[b->n_grant];

    b->owner[b->n_grant++] = owner;
    seg->len = len;
    seg->status = GNTST_general_error;
    return seg;
}

void
copy_from_grant(struct copy_batch *b, void *to, uint32_t ref, uint16_t offset, uint16_t len,
                uint16_t owner)
{
    xengnttab_grant_copy_segment_t *seg = grant_add(b, len, owner);

    seg->source.foreign.ref = ref;
    seg->source.foreign.offset = offset;
    seg->source.foreign.domid = b->port->domid;
    seg->dest.virt = to;
    seg->flags = GNTCOPY_source_gref;
}

void
copy_to_grant(struct copy_batch *b, uint32_t ref, const void *from, uint16_t len, uint16_t owner)
{
    xengnttab_grant_copy_segment_t *seg = grant_add(b, len, owner);

    seg->source.virt = (void *)from;
    seg->dest.foreign.ref = ref;
    seg->dest.foreign.offset = 0;
    seg->dest.foreign.domid = b->port->domid;
    seg->flags = GNTCOPY_dest_gref;
}

void
copy_between(struct copy_batch *b, const struct ring_port *from, uint32_t ref, uint16_t offset,
             uint32_t to_ref, uint16_t to_offset, uint16_t len, uint16_t owner)
{
    const uint8_t *page = gref_lookup(from->grefs, ref, false);
    uint8_t *to = b->use_static ? gref_lookup(b->port->grefs, to_ref, true) : NULL;

    if (page && to) {
        b->direct[b->n_direct++] = (struct copy_direct){to + to_offset, page + offset, len};
        return;
    }
    /* One of them alone does not help: gntdev cannot copy from or to what it maps. */
    xengnttab_grant_copy_segment_t *seg = grant_add(b, len, owner);
    seg->source.foreign.ref = ref;
    seg->source.foreign.offset = offset;
    seg->source.foreign.domid = from->domid;
    seg->dest.foreign.ref = to_ref;
    seg->dest.foreign.offset = to_offset;
    seg->dest.foreign.domid = b->port->domid;
    seg->flags = GNTCOPY_source_gref | GNTCOPY_dest_gref;
}

void
copy_run(struct copy_batch *b, bool *failed)
{
    if (b->n_grant) {
        grant_run(b, failed);
    }
    if (b->n_direct) {
        direct_run(b);
    }
    b->n_grant = b->n_direct = 0;
}
