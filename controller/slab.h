/* slab: memory of small things that come by the million.
 *
 * A large pool has millions of flows and hundreds of thousands of objects, units and
 * claims.  Pieces of one size lie side by side in slabs of 64 KiB, without headers of
 * their own, in the order in which they came: less memory is touched than with malloc(),
 * and new memory, which the kernel clears page by page, is a fifth of a cold start.  A
 * slab without pieces can be of another size next; slabs are parts of regions of 2 MiB,
 * and a region without slabs goes back to the kernel.
 *
 * Huge pages are not asked for.  Cleared at once they cost a fifth of what small ones do,
 * but where a hypervisor takes free memory back (free page reporting) it does so in such
 * blocks, and has to find each anew: five times as much as small ones.
 *
 * Pieces larger than SLAB_MAX come from malloc(), and in builds with the address
 * sanitizer all of them do, so that it sees each piece.
 *
 * Threads: one; there is one pool of memory for the process.  Ownership: the caller's,
 * who remembers the size. */
#ifndef CTL_SLAB_H
#define CTL_SLAB_H

#include <stddef.h>

#define SLAB_MAX 1024

/* Never NULL; aligned to 16 bytes. */
void *slab_alloc(size_t size);
void *slab_zalloc(size_t size);
/* 'size' is what was asked for.  NULL is fine. */
void slab_free(void *, size_t size);

/* An array of 'n' bytes, of which there were 'before' (0: then 'p' is NULL), all of them soon
 * written to; NULL if 'n' is 0.  Large ones are pages of their own: they move without being
 * copied, and the kernel gives what is new of them at once. */
void *slab_resize(void *p, size_t before, size_t n);
/* The kernel is to give these pages of new memory from malloc() at once. */
void slab_touch(void *p, size_t n);

/* Memory that regions and large arrays take. */
size_t slab_bytes(void);

#endif
