#include <config.h>

#include "slab.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "openvswitch/list.h"
#include "util.h"

#ifdef __SANITIZE_ADDRESS__
#define EACH_BY_MALLOC true
#else
#define EACH_BY_MALLOC false
#endif

#define ALIGN 16
#define N_CLASSES (SLAB_MAX / ALIGN)
#define SLAB_BYTES 65536
#define REGION_BYTES (2u << 20)
#define REGION_SLABS (REGION_BYTES / SLAB_BYTES)

struct piece {
    struct piece *next;
};

/* At the start of its memory.  'freed' and 'n_freed' do not count what its class has as
 * its own while the slab is the class's current one. */
struct slab {
    struct ovs_list node; /* in its class's 'partial', unless it is current or full */
    struct region *region;
    struct piece *freed;
    uint32_t n_freed;
    uint32_t class;
};

struct region {
    struct ovs_list node; /* in 'regions' while it has a slab to give */
    uint8_t *memory;
    uint32_t unused; /* bits by slab */
};

/* Of each class one slab is current: pieces come from there, first those that were freed,
 * then those never used. */
static struct class
{
    struct piece *free;
    uint8_t *next, *end; /* never used */
    struct slab *current;
    struct ovs_list partial;
    size_t n_slabs;
} classes[N_CLASSES];

static struct ovs_list regions = OVS_LIST_INITIALIZER(&regions);
static size_t n_regions, n_idle; /* all; those without any slab in use */

static struct region *
add_region(void)
{
    struct region *r = xmalloc(sizeof *r);
    uint8_t *p = mmap(NULL, REGION_BYTES + SLAB_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t before;

    if (p == MAP_FAILED) {
        out_of_memory();
    }
    before = ROUND_UP((uintptr_t)p, SLAB_BYTES) - (uintptr_t)p;
    r->memory = p + before;
    if (before) {
        munmap(p, before);
    }
    munmap(r->memory + REGION_BYTES, SLAB_BYTES - before);
    r->unused = UINT32_MAX >> (32 - REGION_SLABS);
    ovs_list_push_front(&regions, &r->node);
    n_regions++;
    n_idle++;
    return r;
}

static bool
is_idle(const struct region *r)
{
    return r->unused == UINT32_MAX >> (32 - REGION_SLABS);
}

static struct slab *
take_slab(unsigned class)
{
    struct region *r = ovs_list_is_empty(&regions)
                           ? add_region()
                           : CONTAINER_OF(ovs_list_front(&regions), struct region, node);
    unsigned i = raw_ctz(r->unused);
    struct slab *s = (struct slab *)(r->memory + i * SLAB_BYTES);

    n_idle -= is_idle(r);
    r->unused &= r->unused - 1;
    if (!r->unused) {
        ovs_list_remove(&r->node);
    }
    /* Where there are some there will be more pieces: the kernel gives all pages at once. */
    if (++classes[class].n_slabs > 4) {
        madvise(s, SLAB_BYTES, MADV_POPULATE_WRITE);
    }
    *s = (struct slab){.region = r, .class = class};
    return s;
}

/* One region is kept that nobody needs, so that what comes and goes does not map memory. */
static void
return_slab(struct slab *s)
{
    struct region *r = s->region;

    classes[s->class].n_slabs--;
    if (!r->unused) {
        ovs_list_push_back(&regions, &r->node);
    }
    r->unused |= 1u << ((uint8_t *)s - r->memory) / SLAB_BYTES;
    if (!is_idle(r)) {
        return;
    }
    if (n_idle) {
        ovs_list_remove(&r->node);
        munmap(r->memory, REGION_BYTES);
        free(r);
        n_regions--;
    } else {
        n_idle++;
    }
}

static size_t
piece_size(unsigned class)
{
    return (class + 1) * ALIGN;
}

static size_t
n_pieces(unsigned class)
{
    return (SLAB_BYTES - ROUND_UP(sizeof(struct slab), ALIGN)) / piece_size(class);
}

static void
use_freed(struct class *c)
{
    c->free = c->current->freed;
    c->current->freed = NULL;
    c->current->n_freed = 0;
}

/* The class's own pieces are all in use. */
static void
refill(struct class *c, unsigned class)
{
    if (c->current && c->current->freed) {
        use_freed(c);
        return;
    }
    if (!c->partial.next) {
        ovs_list_init(&c->partial);
    }
    if (!ovs_list_is_empty(&c->partial)) {
        c->current = CONTAINER_OF(ovs_list_pop_front(&c->partial), struct slab, node);
        use_freed(c);
        return;
    }
    c->current = take_slab(class);
    c->next = (uint8_t *)c->current + ROUND_UP(sizeof(struct slab), ALIGN);
    c->end = c->next + n_pieces(class) * piece_size(class);
}

void *
slab_alloc(size_t size)
{
    struct piece *p;

    if (EACH_BY_MALLOC || size > SLAB_MAX) {
        return xmalloc(size);
    }

    unsigned class = size ? (size - 1) / ALIGN : 0;
    struct class *c = &classes[class];

    if (!c->free && c->next == c->end) {
        refill(c, class);
    }
    if (c->free) {
        p = c->free;
        c->free = p->next;
    } else {
        p = (struct piece *)c->next;
        c->next += piece_size(class);
    }
    return p;
}

void *
slab_zalloc(size_t size)
{
    return memset(slab_alloc(size), 0, size);
}

void
slab_free(void *p_, size_t size)
{
    struct slab *s = (struct slab *)((uintptr_t)p_ & ~(uintptr_t)(SLAB_BYTES - 1));
    struct piece *p = p_;

    if (EACH_BY_MALLOC || size > SLAB_MAX) {
        free(p);
        return;
    }
    if (!p) {
        return;
    }

    struct class *c = &classes[s->class];

    p->next = s->freed;
    s->freed = p;
    s->n_freed++;
    if (s == c->current) {
        return;
    }
    if (s->n_freed == n_pieces(s->class)) {
        ovs_list_remove(&s->node);
        return_slab(s);
    } else if (s->n_freed == 1) {
        ovs_list_push_back(&c->partial, &s->node);
    }
}

/* --- arrays -------------------------------------------------------------------- */

#define PAGE_BYTES 4096 /* or a multiple of it is the kernel's */
#define ARRAY_BYTES SLAB_BYTES

static size_t array_bytes; /* of large ones */

static bool
is_large(size_t n)
{
    return !EACH_BY_MALLOC && n >= ARRAY_BYTES;
}

static size_t
whole_pages(size_t n)
{
    return ROUND_UP(n, ARRAY_BYTES);
}

static void *
resize_large(void *p, size_t before, size_t n)
{
    before = whole_pages(before);
    n = whole_pages(n);
    if (before != n) {
        p = before ? mremap(p, before, n, MREMAP_MAYMOVE)
                   : mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            out_of_memory();
        }
    }
    if (before < n) {
        madvise((uint8_t *)p + before, n - before, MADV_POPULATE_WRITE);
    }
    array_bytes += n - before;
    return p;
}

static void
free_array(void *p, size_t n)
{
    if (is_large(n)) {
        munmap(p, whole_pages(n));
        array_bytes -= whole_pages(n);
    } else {
        free(p);
    }
}

void *
slab_resize(void *p, size_t before, size_t n)
{
    void *new;

    if (!n) {
        free_array(p, before);
        return NULL;
    }
    if (is_large(n) && (!before || is_large(before))) {
        return resize_large(p, before, n);
    }
    if (!is_large(n) && !is_large(before)) {
        return xrealloc(p, n);
    }
    new = is_large(n) ? resize_large(NULL, 0, n) : xmalloc(n);
    memcpy(new, p, MIN(before, n));
    free_array(p, before);
    return new;
}

void
slab_touch(void *p, size_t n)
{
    uintptr_t start = ROUND_UP((uintptr_t)p, PAGE_BYTES);
    uintptr_t end = ROUND_DOWN((uintptr_t)p + n, PAGE_BYTES);

    if (is_large(n)) {
        madvise((void *)start, end - start, MADV_POPULATE_WRITE);
    }
}

size_t
slab_bytes(void)
{
    return n_regions * (size_t)REGION_BYTES + array_bytes;
}
