/* hv "local": grant copy and grant map.
 *
 * A copy makes no system call: it pins the grant in the domain's state memory
 * (local_pin.h), copies, and unpins.  Domains are found in a small cache of
 * the handle, so without a lock.  A mapping is made by the broker, which then
 * knows what to take back if we die; here the granted pages are mapped from
 * the guest's memfd, one by one into one reserved range. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hv_local.h"
#include "local_pin.h"

#define CACHE_SIZE 16u

struct grant_mapping {
    struct grant_mapping *next;
    void *addr;
    unsigned n;
    struct attached_domain *domain;
    uint32_t *ids; /* the broker's, one for each LOCAL_MAP_MAX pages */
};

struct hv_grants {
    struct local_hv *l;
    uint16_t owner;                            /* in pin words */
    struct attached_domain *cache[CACHE_SIZE]; /* by domid; a reference each */
    /* Dropped from the cache, but perhaps still pinned by the segment that is
     * under way; its reference is given up after that. */
    struct attached_domain *retired;
    struct grant_mapping *maps;
    /* The last domain that was not there, and how many had been created then:
     * no need to ask again before there are more. */
    uint16_t absent_domid;
    uint64_t absent_at;
};

static unsigned
n_chunks(unsigned n)
{
    return (n + LOCAL_MAP_MAX - 1) / LOCAL_MAP_MAX;
}

int
hv_local_grants_open(struct hv *hv, struct hv_grants **gp)
{
    struct local_hv *l = (struct local_hv *)hv;
    struct local_req req = {.op = LOCAL_OP_OWNER_NEW};
    struct hv_grants *g = calloc(1, sizeof *g);
    struct local_rep rep;
    int error;

    if (!g) {
        return ENOMEM;
    }
    error = local_rpc_call(&l->rpc, &req, 0, &rep, NULL, 0);
    if (error) {
        free(g);
        return error;
    }
    g->l = l;
    g->owner = rep.a;
    g->absent_at = UINT64_MAX;
    *gp = g;
    return 0;
}

void
hv_local_grants_close(struct hv_grants *g)
{
    struct local_rep rep;

    if (!g) {
        return;
    }
    struct local_req req = {.op = LOCAL_OP_OWNER_FREE, .a = g->owner};
    while (g->maps) {
        hv_local_grant_unmap(g, g->maps->addr, g->maps->n);
    }
    for (unsigned i = 0; i < CACHE_SIZE; i++) {
        if (g->cache[i]) {
            hv_local_detach(g->l, g->cache[i]);
        }
    }
    local_rpc_call(&g->l->rpc, &req, 0, &rep, NULL, 0);
    free(g);
}

/* Imitates the hypercalls' cost. */
static void
charge(struct local_hv *l, unsigned n)
{
    if (l->cost_ns) {
        uint64_t until = hv_local_now_ns(&l->hv) + n * l->cost_ns;

        while (hv_local_now_ns(&l->hv) < until) {
            __builtin_ia32_pause();
        }
    }
}

/* --- copy ---------------------------------------------------------------------- */

static void
drop_retired(struct hv_grants *g)
{
    if (g->retired) {
        hv_local_detach(g->l, g->retired);
        g->retired = NULL;
    }
}

/* A segment has two domains at most, so calls this twice at most, and the one
 * it may still be using is the one retired last. */
static struct attached_domain *__attribute__((noinline))
find_domain_slowly(struct hv_grants *g, uint16_t domid)
{
    struct attached_domain **slot = &g->cache[domid % CACHE_SIZE];
    uint64_t n_created = __atomic_load_n(&g->l->host->n_created, __ATOMIC_ACQUIRE);

    if (g->absent_at == n_created && g->absent_domid == domid) {
        return NULL;
    }
    drop_retired(g);
    g->retired = *slot;
    *slot = NULL;
    int error = hv_local_attach(g->l, domid, slot);
    if (error) {
        *slot = NULL;
    }
    if (error == ENOENT) {
        g->absent_domid = domid;
        g->absent_at = n_created;
    }
    return *slot;
}

/* Returns the living domain, or NULL. */
static inline struct attached_domain *
find_domain(struct hv_grants *g, uint16_t domid)
{
    struct attached_domain *d = g->cache[domid % CACHE_SIZE];

    if (__builtin_expect(d && d->domid == domid &&
                             !__atomic_load_n(&d->view.state->dead, __ATOMIC_ACQUIRE),
                         true)) {
        return d;
    }
    return find_domain_slowly(g, domid);
}

/* One side of a segment, made accessible. */
struct copy_side {
    void *data;
    const struct local_view *view; /* NULL if local memory */
    struct local_pin pin;
};

static inline int
open_side(struct hv_grants *g, const union xengnttab_copy_ptr *ptr, bool foreign, bool write,
          struct copy_side *side)
{
    struct attached_domain *d;
    int status;

    side->view = NULL;
    if (!foreign) {
        side->data = ptr->virt;
        return GNTST_okay;
    }
    d = find_domain(g, ptr->foreign.domid);
    if (!d) {
        return GNTST_bad_domain;
    }
    status = local_pin_acquire(&d->view, ptr->foreign.ref, LOCAL_BACKEND_DOMID, g->owner, write,
                               &side->pin);
    if (status == GNTST_okay) {
        side->view = &d->view;
        side->data = d->view.memory + (size_t)side->pin.page * LOCAL_PAGE + ptr->foreign.offset;
    }
    return status;
}

static inline void
close_side(struct hv_grants *g, const struct copy_side *side)
{
    if (side->view) {
        local_pin_release(side->view, &side->pin, g->owner);
    }
}

static inline int
copy_segment(struct hv_grants *g, const xengnttab_grant_copy_segment_t *seg)
{
    struct copy_side from, to;
    int status;

    status = open_side(g, &seg->source, seg->flags & GNTCOPY_source_gref, false, &from);
    if (status != GNTST_okay) {
        return status;
    }
    status = open_side(g, &seg->dest, seg->flags & GNTCOPY_dest_gref, true, &to);
    if (status == GNTST_okay) {
        /* Two grants may be of one page. */
        if (from.view && to.view) {
            memmove(to.data, from.data, seg->len);
        } else {
            memcpy(to.data, from.data, seg->len);
        }
        close_side(g, &to);
    }
    close_side(g, &from);
    return status;
}

/* What gntdev refuses for the whole call. */
static bool
is_bad_segment(const xengnttab_grant_copy_segment_t *seg)
{
    bool from = seg->flags & GNTCOPY_source_gref;
    bool to = seg->flags & GNTCOPY_dest_gref;

    return (!from && !to) || (from && seg->source.foreign.offset + seg->len > LOCAL_PAGE) ||
           (to && seg->dest.foreign.offset + seg->len > LOCAL_PAGE);
}

/* Starts to load the entry and pin word that a later segment will need. */
static inline void
prefetch_grant(const struct hv_grants *g, const union xengnttab_copy_ptr *ptr)
{
    const struct attached_domain *d = g->cache[ptr->foreign.domid % CACHE_SIZE];

    if (d && ptr->foreign.ref < d->view.n_entries) {
        __builtin_prefetch(&d->view.entries[ptr->foreign.ref], 1);
        __builtin_prefetch(&d->view.pins[ptr->foreign.ref], 1);
    }
}

static inline void
prefetch_segment(const struct hv_grants *g, const xengnttab_grant_copy_segment_t *seg)
{
    if (seg->flags & GNTCOPY_source_gref) {
        prefetch_grant(g, &seg->source);
    }
    if (seg->flags & GNTCOPY_dest_gref) {
        prefetch_grant(g, &seg->dest);
    }
}

int
hv_local_grant_copy(struct hv_grants *g, xengnttab_grant_copy_segment_t *segs, unsigned n)
{
    static const unsigned ahead = 4;

    for (unsigned i = 0; i < n; i++) {
        if (is_bad_segment(&segs[i])) {
            return EINVAL;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        if (i + ahead < n) {
            prefetch_segment(g, &segs[i + ahead]);
        }
        segs[i].status = copy_segment(g, &segs[i]);
    }
    drop_retired(g);
    charge(g->l, n);
    return 0;
}

/* --- map -------------------------------------------------------------------------- */

static void
unmap_ids(struct local_hv *l, const uint32_t *ids, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct local_req req = {.op = LOCAL_OP_UNMAP, .a = ids[i]};
        struct local_rep rep;

        local_rpc_call(&l->rpc, &req, 0, &rep, NULL, 0);
    }
}

/* Maps up to LOCAL_MAP_MAX grants at 'at'.  '*id' names them to the broker. */
static int
map_chunk(struct local_hv *l, const struct attached_domain *d, const uint32_t *refs, unsigned n,
          bool writable, uint8_t *at, uint32_t *id)
{
    struct local_req req = {
        .op = LOCAL_OP_MAP, .domid = d->domid, .a = writable, .b = d->generation, .n = n};
    const int prot = PROT_READ | (writable ? PROT_WRITE : 0);
    struct local_rep rep;
    int error;

    memcpy(req.refs, refs, n * sizeof *refs);
    error = local_rpc_call(&l->rpc, &req, n, &rep, NULL, 0);
    if (error) {
        return error;
    }
    if (rep.b) {
        return EINVAL; /* as gntdev, whichever the status */
    }
    *id = rep.a;
    for (unsigned i = 0, run; i < n && !error; i += run) {
        uint32_t page = rep.maps[i].page;
        off_t where = local_table_bytes(d->view.n_entries) + (off_t)page * LOCAL_PAGE;

        /* Pages in order take one mapping: the kernel limits their number. */
        for (run = 1; i + run < n && rep.maps[i + run].page == page + run; run++) {
        }
        if (mmap(at + i * LOCAL_PAGE, run * LOCAL_PAGE, prot, MAP_SHARED | MAP_FIXED, d->guest_fd,
                 where) == MAP_FAILED) {
            error = errno;
        }
    }
    if (error) {
        unmap_ids(l, id, 1);
    }
    return error;
}

static int
map_all(struct local_hv *l, struct grant_mapping *m, const uint32_t *refs, bool writable)
{
    int error = 0;
    unsigned chunk;

    for (chunk = 0; chunk < n_chunks(m->n); chunk++) {
        unsigned first = chunk * LOCAL_MAP_MAX;
        unsigned n = m->n - first < LOCAL_MAP_MAX ? m->n - first : LOCAL_MAP_MAX;

        error = map_chunk(l, m->domain, refs + first, n, writable,
                          (uint8_t *)m->addr + (size_t)first * LOCAL_PAGE, &m->ids[chunk]);
        if (error) {
            unmap_ids(l, m->ids, chunk);
            break;
        }
    }
    return error;
}

int
hv_local_grant_map(struct hv_grants *g, uint16_t domid, const uint32_t *refs, unsigned n,
                   bool writable, void **addr)
{
    struct grant_mapping *m;
    int error = ENOMEM;

    if (!n) {
        return EINVAL;
    }
    m = calloc(1, sizeof *m);
    if (!m || !(m->ids = malloc(n_chunks(n) * sizeof *m->ids))) {
        goto err_free;
    }
    m->n = n;
    error = hv_local_attach(g->l, domid, &m->domain);
    if (error) {
        error = error == ENOENT ? EINVAL : error; /* as gntdev for GNTST_bad_domain */
        goto err_free;
    }
    m->addr = mmap(NULL, (size_t)n * LOCAL_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m->addr == MAP_FAILED) {
        error = errno;
        goto err_detach;
    }
    error = map_all(g->l, m, refs, writable);
    if (error) {
        goto err_region;
    }
    m->next = g->maps;
    g->maps = m;
    *addr = m->addr;
    charge(g->l, n);
    return 0;

err_region:
    munmap(m->addr, (size_t)n * LOCAL_PAGE);
err_detach:
    hv_local_detach(g->l, m->domain);
err_free:
    if (m) {
        free(m->ids);
    }
    free(m);
    return error;
}

void
hv_local_grant_unmap(struct hv_grants *g, void *addr, unsigned n)
{
    for (struct grant_mapping **link = &g->maps; *link; link = &(*link)->next) {
        struct grant_mapping *m = *link;

        if (m->addr != addr) {
            continue;
        }
        *link = m->next;
        /* First the access, then the right to it. */
        munmap(m->addr, (size_t)m->n * LOCAL_PAGE);
        unmap_ids(g->l, m->ids, n_chunks(m->n));
        charge(g->l, m->n);
        hv_local_detach(g->l, m->domain);
        free(m->ids);
        free(m);
        return;
    }
}
