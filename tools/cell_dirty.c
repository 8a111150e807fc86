/* cell_dirty: which pages were written, by the guest and by the backend.
 *
 * Theory of Operation
 * ===================
 * The guest writes through the mapping at CELL_BASE, which a userfaultfd keeps
 * write-protected page by page; the backend writes through a mapping of its own,
 * of which no page table of ours knows: the local stand-in keeps a bitmap for
 * that (pages mapped for writing are in it every time).  A fetch is the union.
 *
 * async  the kernel takes the protection off at the first write and PAGEMAP_SCAN
 *        lists and protects such pages again, in one atomic step (Linux 6.7)
 * sync   every first write is a message to a thread here, which notes the page and
 *        takes the protection off (shared memory: Linux 5.19)
 *
 * Either way a page counts as written from its first write after the fetch that
 * protected it, so who reads a page after fetching its bit misses nothing. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cell_host.h"

/* linux/fs.h since 6.7; older headers build, and the kernel is asked. */
#ifndef PAGEMAP_SCAN
struct pm_scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted,
        category_mask, category_anyof_mask, return_mask;
};
struct page_region {
    uint64_t start, end, categories;
};
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_WRITTEN (1 << 1)
#define PM_SCAN_WP_MATCHING (1 << 0)
#define PM_SCAN_CHECK_WPASYNC (1 << 1)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

#define REGIONS 4096u

static uint64_t
n_words(const struct cell *c)
{
    return (c->n_pages + 63) / 64;
}

static void
mark(uint64_t *map, uint64_t page)
{
    map[page / 64] |= UINT64_C(1) << page % 64;
}

/* --- userfaultfd -------------------------------------------------------------------- */

static int
protect(const struct cell *c, int uffd, uint64_t first, uint64_t n, bool on)
{
    struct uffdio_writeprotect wp = {
        .range = {CELL_BASE + first * CELL_PAGE_BYTES, n * CELL_PAGE_BYTES},
        .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
    };

    return ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) ? errno : 0;
}

static int
open_uffd(const struct cell *c, uint64_t features, int *uffd)
{
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    struct uffdio_register reg = {
        .range = {CELL_BASE, c->n_pages * CELL_PAGE_BYTES},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };

    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return errno;
    }
    if (ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg)) {
        int error = errno;
        close(fd);
        return error;
    }
    *uffd = fd;
    return 0;
}

/* --- async -------------------------------------------------------------------------- */

static int
scan(struct cell *c, uint64_t *map)
{
    static struct page_region regions[REGIONS];
    uint64_t at = CELL_BASE, end = CELL_BASE + c->n_pages * CELL_PAGE_BYTES;

    while (at < end) {
        struct pm_scan_arg arg = {
            .size = sizeof arg,
            .flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
            .start = at,
            .end = end,
            .vec = (uint64_t)(uintptr_t)regions,
            .vec_len = REGIONS,
            .category_mask = PAGE_IS_WRITTEN,
            .return_mask = PAGE_IS_WRITTEN,
        };
        long n = ioctl(c->dirty.pagemap_fd, PAGEMAP_SCAN, &arg);
        if (n < 0) {
            return errno;
        }
        for (long i = 0; i < n; i++) {
            for (uint64_t p = regions[i].start; p < regions[i].end; p += CELL_PAGE_BYTES) {
                mark(map, (p - CELL_BASE) / CELL_PAGE_BYTES);
            }
        }
        if (arg.walk_end <= at) {
            return EIO;
        }
        at = arg.walk_end;
    }
    return 0;
}

static int
start_async(struct cell *c)
{
    struct cell_dirty *d = &c->dirty;

    int error = open_uffd(
        c, UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
        &d->uffd);
    if (error) {
        return error;
    }
    d->async = true;
    d->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    error = d->pagemap_fd < 0 ? errno : scan(c, d->map); /* protects all of it */
    if (error) {
        close(d->uffd);
        d->uffd = -1;
        if (d->pagemap_fd >= 0) {
            close(d->pagemap_fd);
        }
        d->pagemap_fd = -1;
    }
    return error;
}

/* --- sync --------------------------------------------------------------------------- */

static void
take_faults(struct cell *c)
{
    struct cell_dirty *d = &c->dirty;
    struct uffd_msg msg[16];

    ssize_t n = read(d->uffd, msg, sizeof msg);
    for (ssize_t i = 0; i < n / (ssize_t)sizeof msg[0]; i++) {
        uint64_t page = (msg[i].arg.pagefault.address - CELL_BASE) / CELL_PAGE_BYTES;
        if (msg[i].event != UFFD_EVENT_PAGEFAULT || page >= c->n_pages) {
            continue;
        }
        /* In one step, or a fetch between the two would forget the page. */
        pthread_mutex_lock(&d->lock);
        mark(d->noted, page);
        int error = protect(c, d->uffd, page, 1, false);
        pthread_mutex_unlock(&d->lock);
        if (error && error != ENOENT) { /* ENOENT: the log has just ended */
            cell_log("dirty log: page %llu: %s", (unsigned long long)page, strerror(error));
        }
    }
}

static void *
sync_main(void *c_)
{
    struct cell *c = c_;
    struct pollfd fds[2] = {{.fd = c->dirty.uffd, .events = POLLIN},
                            {.fd = c->dirty.stop_fd, .events = POLLIN}};

    while (poll(fds, 2, -1) >= 0 && !fds[1].revents) {
        if (fds[0].revents & POLLIN) {
            take_faults(c);
        }
    }
    return NULL;
}

static int
start_sync(struct cell *c)
{
    struct cell_dirty *d = &c->dirty;

    d->async = false;
    d->noted = calloc(n_words(c), sizeof *d->noted);
    d->stop_fd = eventfd(0, EFD_CLOEXEC);
    int error = !d->noted ? ENOMEM : d->stop_fd < 0 ? errno : 0;
    if (error) {
        goto err_memory;
    }
    error =
        open_uffd(c, UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM, &d->uffd);
    if (error) {
        goto err_memory;
    }
    /* Where no page is mapped there is nothing to protect: map all of them. */
    for (uint64_t i = 0; i < c->n_pages; i++) {
        (void)*(volatile uint8_t *)(c->ram + i * CELL_PAGE_BYTES);
    }
    pthread_mutex_init(&d->lock, NULL);
    error = pthread_create(&d->thread, NULL, sync_main, c);
    if (error) {
        goto err_lock;
    }
    error = protect(c, d->uffd, 0, c->n_pages, true);
    if (!error) {
        return 0;
    }
    eventfd_write(d->stop_fd, 1);
    pthread_join(d->thread, NULL);

err_lock:
    pthread_mutex_destroy(&d->lock);
    close(d->uffd);
    d->uffd = -1;
err_memory:
    if (d->stop_fd >= 0) {
        close(d->stop_fd);
    }
    free(d->noted);
    d->noted = NULL;
    return error;
}

static int
fetch_sync(struct cell *c, uint64_t *map)
{
    struct cell_dirty *d = &c->dirty;
    int error = 0;

    for (uint64_t i = 0; i < n_words(c) && !error; i++) {
        pthread_mutex_lock(&d->lock);
        uint64_t bits = d->noted[i];
        d->noted[i] = 0;
        map[i] |= bits;
        while (bits && !error) {
            unsigned first = (unsigned)__builtin_ctzll(bits);
            uint64_t rest = ~(bits >> first);
            unsigned n = rest ? (unsigned)__builtin_ctzll(rest) : 64;
            error = protect(c, d->uffd, i * 64 + first, n, true);
            bits = first + n >= 64 ? 0 : bits & (UINT64_MAX << (first + n));
        }
        pthread_mutex_unlock(&d->lock);
    }
    return error;
}

/* --- both ----------------------------------------------------------------------------- */

static int
make_map(struct cell *c)
{
    struct cell_dirty *d = &c->dirty;
    size_t bytes = n_words(c) * sizeof *d->map;

    d->map_fd = memfd_create("cell-dirty", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (d->map_fd < 0) {
        return errno;
    }
    /* The client cannot take it away under our feet. */
    if (ftruncate(d->map_fd, (off_t)bytes) ||
        fcntl(d->map_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
        return errno;
    }
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, d->map_fd, 0);
    d->map = p == MAP_FAILED ? NULL : p;
    return d->map ? 0 : errno;
}

int
cell_dirty_start(struct cell *c)
{
    uint64_t ignored;
    int error;

    cell_dirty_stop(c);
    error = make_map(c);
    if (!error) {
        error = c->cfg.dirty_log == CELL_DIRTY_SYNC ? ENOTSUP : start_async(c);
        if (error && c->cfg.dirty_log != CELL_DIRTY_ASYNC) {
            error = start_sync(c);
        }
    }
    if (!error) {
        error = cell_dirty_fetch(c, &ignored); /* what was written before */
    }
    if (error) {
        cell_log("no dirty log: %s", strerror(error));
        cell_dirty_stop(c);
    }
    return error;
}

int
cell_dirty_fetch(struct cell *c, uint64_t *n)
{
    struct cell_dirty *d = &c->dirty;

    if (d->map_fd < 0) {
        return EINVAL;
    }
    local_dirty_fetch_clear(c->dom, d->map);
    int error = d->async ? scan(c, d->map) : fetch_sync(c, d->map);
    *n = 0;
    for (uint64_t i = 0; i < n_words(c); i++) {
        *n += (uint64_t)__builtin_popcountll(d->map[i]);
    }
    return error;
}

void
cell_dirty_stop(struct cell *c)
{
    struct cell_dirty *d = &c->dirty;

    if (d->uffd >= 0) {
        struct uffdio_range all = {CELL_BASE, c->n_pages * CELL_PAGE_BYTES};
        ioctl(d->uffd, UFFDIO_UNREGISTER, &all); /* wakes who waits */
        if (!d->async) {
            eventfd_write(d->stop_fd, 1);
            pthread_join(d->thread, NULL);
            pthread_mutex_destroy(&d->lock);
            close(d->stop_fd);
            free(d->noted);
            d->noted = NULL;
        }
        close(d->uffd);
        d->uffd = -1;
    }
    if (d->pagemap_fd >= 0) {
        close(d->pagemap_fd);
        d->pagemap_fd = -1;
    }
    if (d->map) {
        munmap(d->map, n_words(c) * sizeof *d->map);
        d->map = NULL;
    }
    if (d->map_fd >= 0) {
        close(d->map_fd);
        d->map_fd = -1;
    }
}

const char *
cell_dirty_name(const struct cell *c)
{
    return c->dirty.uffd < 0 ? "" : c->dirty.async ? "async" : "sync";
}
