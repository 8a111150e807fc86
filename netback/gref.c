/* gref: static grants, from grant reference to mapped page (ring.h).
 *
 * Each grant is mapped by itself: the kernel unmaps what was mapped together
 * only together, and a frontend that deletes one reference must get that page
 * back at once. */
#include "ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_MIN 64u

static void
gref_insert(struct gref_table *t, struct gref_entry entry)
{
    unsigned i = gref_home(t, entry.ref);

    while (t->slots[i].used) {
        i = (i + 1) & t->mask;
    }
    t->slots[i] = entry;
    t->n++;
}

/* Room for 'n' entries at a load of at most one half. */
static int
gref_reserve(struct gref_table *t, unsigned n)
{
    struct gref_table bigger = {.limit = t->limit, .unmapped = t->unmapped};
    unsigned old_size = t->slots ? t->mask + 1 : 0;
    unsigned size = old_size ? old_size : TABLE_MIN;

    while (size < 2 * n) {
        size *= 2;
    }
    if (size == old_size) {
        return 0;
    }
    if (posix_memalign((void **)&bigger.slots, 64, size * sizeof *bigger.slots)) {
        return ENOMEM;
    }
    memset(bigger.slots, 0, size * sizeof *bigger.slots);
    bigger.mask = size - 1;
    for (unsigned i = 0; i < old_size; i++) {
        if (t->slots[i].used) {
            gref_insert(&bigger, t->slots[i]);
        }
    }
    free(t->slots);
    *t = bigger;
    return 0;
}

int
gref_table_add(struct gref_table *t, const struct hv_ops *ops, struct hv_grants *grants,
               uint16_t domid, const struct xen_netif_gref *list, unsigned n)
{
    unsigned done = 0;
    int error;

    if (n > t->limit || t->n > t->limit - n) {
        return ENOSPC;
    }
    error = gref_reserve(t, t->n + n);
    for (; !error && done < n; done += !error) {
        bool readonly = list[done].flags & XEN_NETIF_CTRLF_GREF_readonly;
        void *page = NULL;

        error = gref_find(t, list[done].ref)
                    ? EEXIST
                    : ops->grant_map(grants, domid, &list[done].ref, 1, !readonly, &page);
        if (!error && t->unmapped) { /* it can be mapped, which is all that is asked for now */
            ops->grant_unmap(grants, page, 1);
            page = NULL;
        }
        if (!error) {
            gref_insert(t, (struct gref_entry){list[done].ref, true, readonly, page});
        }
    }
    while (error && done) {
        gref_table_del(t, ops, grants, list[--done].ref);
    }
    return error;
}

int
gref_table_del(struct gref_table *t, const struct hv_ops *ops, struct hv_grants *grants,
               uint32_t ref)
{
    struct gref_entry *e = gref_find(t, ref);

    if (!e) {
        return ENOENT;
    }
    if (e->page) {
        ops->grant_unmap(grants, e->page, 1);
    }

    /* Close the gap: move up each later entry whose probe passes it. */
    unsigned gap = e - t->slots;
    for (unsigned i = (gap + 1) & t->mask; t->slots[i].used; i = (i + 1) & t->mask) {
        unsigned probe = (i - gref_home(t, t->slots[i].ref)) & t->mask;
        if (probe >= ((i - gap) & t->mask)) {
            t->slots[gap] = t->slots[i];
            gap = i;
        }
    }
    t->slots[gap].used = false;
    t->n--;
    return 0;
}

void
gref_table_unmap(struct gref_table *t, const struct hv_ops *ops, struct hv_grants *grants)
{
    for (unsigned i = 0; t->slots && i <= t->mask; i++) {
        struct gref_entry *e = &t->slots[i];

        if (e->used && e->page) {
            ops->grant_unmap(grants, e->page, 1);
            e->page = NULL;
        }
    }
    t->unmapped = true;
}

unsigned
gref_table_map(struct gref_table *t, const struct hv_ops *ops, struct hv_grants *grants,
               uint16_t domid)
{
    unsigned failed = 0;

    for (unsigned i = 0; t->slots && i <= t->mask; i++) {
        struct gref_entry *e = &t->slots[i];
        void *page = NULL;

        if (e->used && !e->page) {
            failed += ops->grant_map(grants, domid, &e->ref, 1, !e->readonly, &page) != 0;
            e->page = page;
        }
    }
    t->unmapped = false;
    return failed;
}

void
gref_table_clear(struct gref_table *t, const struct hv_ops *ops, struct hv_grants *grants)
{
    gref_table_unmap(t, ops, grants);
    free(t->slots);
    *t = (struct gref_table){.limit = t->limit};
}
