/* fake_hv: see fake_hv.h.  Guest memory is a memfd, so that mapping grants at
 * consecutive addresses is what it is on Xen: other page tables. */
#include "fake_hv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct hv_grants {
    struct fake_hv *hv;
};

static const struct hv_ops fake_ops;

struct fake_hv *
fake_hv_new(unsigned n_pages, unsigned n_grants)
{
    struct fake_hv *f = calloc(1, sizeof *f);

    f->hv.ops = &fake_ops;
    f->grants = calloc(1, sizeof *f->grants);
    f->grants->hv = f;
    f->domid = 7;
    f->n_pages = n_pages;
    f->n_grants = n_grants;
    f->maps_left = -1;
    f->now_ns = 1000000000;
    f->table = calloc(n_grants, sizeof *f->table);
    f->fd = memfd_create("guest", MFD_CLOEXEC);
    if (f->fd < 0 || ftruncate(f->fd, (off_t)n_pages * HV_PAGE_SIZE)) {
        abort();
    }
    f->memory =
        mmap(NULL, (size_t)n_pages * HV_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    if (f->memory == MAP_FAILED) {
        abort();
    }
    return f;
}

void
fake_hv_free(struct fake_hv *f)
{
    munmap(f->memory, (size_t)f->n_pages * HV_PAGE_SIZE);
    close(f->fd);
    free(f->table);
    free(f->grants);
    free(f);
}

uint8_t *
fake_page(struct fake_hv *f, uint32_t page)
{
    return f->memory + (size_t)page * HV_PAGE_SIZE;
}

uint32_t
fake_grant(struct fake_hv *f, uint32_t page, bool readonly)
{
    for (unsigned k = 0; k < f->n_grants; k++) {
        unsigned i = f->next_grant++ % f->n_grants;
        if (!f->table[i].used) {
            f->table[i] = (struct fake_grant){.used = true, .readonly = readonly, .page = page};
            return FAKE_FIRST_REF + i;
        }
    }
    abort();
}

static struct fake_grant *
find_grant(struct fake_hv *f, uint32_t ref)
{
    uint32_t i = ref - FAKE_FIRST_REF;

    return i < f->n_grants && f->table[i].used ? &f->table[i] : NULL;
}

int
fake_revoke(struct fake_hv *f, uint32_t ref)
{
    struct fake_grant *g = find_grant(f, ref);

    if (!g) {
        return ENOENT;
    }
    if (g->maps) {
        return EBUSY;
    }
    g->used = false;
    return 0;
}

/* --- operations ------------------------------------------------------------ */

/* One side of a segment: where its bytes are, or why it may not be. */
static int16_t
open_side(struct fake_hv *f, const union xengnttab_copy_ptr *ptr, bool foreign, bool write,
          uint8_t **bytes)
{
    struct fake_grant *g = foreign ? find_grant(f, ptr->foreign.ref) : NULL;

    if (!foreign) {
        *bytes = ptr->virt;
        return GNTST_okay;
    }
    if (ptr->foreign.domid != f->domid) {
        return GNTST_bad_domain;
    }
    if (!g) {
        return GNTST_bad_gntref;
    }
    *bytes = fake_page(f, g->page) + ptr->foreign.offset;
    return write && g->readonly ? GNTST_general_error : GNTST_okay;
}

static int16_t
copy_segment(struct fake_hv *f, xengnttab_grant_copy_segment_t *seg)
{
    uint8_t *from, *to;
    int16_t status = open_side(f, &seg->source, seg->flags & GNTCOPY_source_gref, false, &from);

    if (status == GNTST_okay) {
        status = open_side(f, &seg->dest, seg->flags & GNTCOPY_dest_gref, true, &to);
    }
    if (status == GNTST_okay) {
        memmove(to, from, seg->len);
    }
    return status;
}

/* A part that passes the end of a page. */
static bool
leaves_page(const xengnttab_grant_copy_segment_t *seg)
{
    return (seg->flags & GNTCOPY_source_gref &&
            seg->source.foreign.offset + seg->len > HV_PAGE_SIZE) ||
           (seg->flags & GNTCOPY_dest_gref && seg->dest.foreign.offset + seg->len > HV_PAGE_SIZE);
}

static int
fake_grant_copy(struct hv_grants *grants, xengnttab_grant_copy_segment_t *segs, unsigned n)
{
    struct fake_hv *f = grants->hv;
    int error = f->fail_copy;

    f->copies++;
    f->segments += n;
    f->fail_copy = 0;
    if (n > HV_COPY_MAX) {
        abort();
    }
    for (unsigned i = 0; i < n; i++) {
        if (leaves_page(&segs[i])) {
            f->einval++;
            error = EINVAL;
        }
    }
    for (unsigned i = 0; !error && i < n; i++) {
        if (f->before_segment) {
            f->before_segment(f->aux, &segs[i]);
        }
        segs[i].status = copy_segment(f, &segs[i]);
    }
    if (f->after_copy) {
        f->after_copy(f->aux);
    }
    return error;
}

/* The entry that holds 'addr' (NULL: a free one), looked for from where a
 * mapping at 'near' would be. */
static struct fake_mapping *
find_mapping(struct fake_hv *f, const void *addr, const void *near)
{
    uintptr_t home = (uintptr_t)near / HV_PAGE_SIZE;

    for (unsigned i = 0; i < FAKE_MAPPINGS_MAX; i++) {
        struct fake_mapping *m = &f->mapping[(home + i) % FAKE_MAPPINGS_MAX];
        if (m->addr == addr) {
            return m;
        }
    }
    return NULL;
}

static void
note_mapping(struct fake_hv *f, uint8_t *addr, const uint32_t *refs, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint8_t *at = addr + (size_t)i * HV_PAGE_SIZE;
        struct fake_mapping *m = find_mapping(f, NULL, at);
        if (!m) {
            abort();
        }
        *m = (struct fake_mapping){at, refs[i]};
        find_grant(f, refs[i])->maps++;
    }
    f->maps_held += n;
}

static int
fake_grant_map(struct hv_grants *grants, uint16_t domid, const uint32_t *refs, unsigned n,
               bool writable, void **addr)
{
    struct fake_hv *f = grants->hv;
    uint8_t *at;

    for (unsigned i = 0; i < n; i++) {
        struct fake_grant *g = find_grant(f, refs[i]);
        if (domid != f->domid || !g || (writable && g->readonly)) {
            return EINVAL;
        }
    }
    if (f->maps_left == 0) {
        return ENOMEM;
    }
    f->maps_left -= f->maps_left > 0;
    at = mmap(NULL, (size_t)n * HV_PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        return ENOMEM;
    }
    for (unsigned i = 0; i < n; i++) {
        struct fake_grant *g = find_grant(f, refs[i]);
        void *page =
            mmap(at + i * HV_PAGE_SIZE, HV_PAGE_SIZE, PROT_READ | (writable ? PROT_WRITE : 0),
                 MAP_SHARED | MAP_FIXED, f->fd, (off_t)g->page * HV_PAGE_SIZE);
        if (page == MAP_FAILED) {
            abort();
        }
    }
    note_mapping(f, at, refs, n);
    *addr = at;
    return 0;
}

static void
fake_grant_unmap(struct hv_grants *grants, void *addr, unsigned n)
{
    struct fake_hv *f = grants->hv;

    for (unsigned k = 0; k < n; k++) {
        void *at = (uint8_t *)addr + (size_t)k * HV_PAGE_SIZE;
        struct fake_mapping *m = find_mapping(f, at, at);
        if (!m) {
            f->double_unmaps++;
            continue;
        }
        munmap(m->addr, HV_PAGE_SIZE);
        find_grant(f, m->ref)->maps--;
        m->addr = NULL;
        f->maps_held--;
    }
    f->unmaps += n;
}

static uint64_t
fake_now_ns(struct hv *hv)
{
    return ((struct fake_hv *)hv)->now_ns;
}

static const struct hv_ops fake_ops = {
    .name = "fake",
    .grant_copy = fake_grant_copy,
    .grant_map = fake_grant_map,
    .grant_unmap = fake_grant_unmap,
    .now_ns = fake_now_ns,
};
