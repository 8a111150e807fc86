/* cell_fault: post-copy.  The guest runs here while some of its pages are still at
 * the source: they are taken out of its memory, and a userfaultfd stops whoever
 * touches one through the guest's mapping until it has been placed.  The client gets
 * that descriptor, reads the faults and places the pages itself; what it cannot be
 * told about, the backend's mapping, has its pages from the start (CELL_OP_PINNED). */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cell_host.h"

static int
drop_pages(struct cell *c, uint64_t first, uint64_t n)
{
    off_t at = (off_t)(c->memory_offset + first * CELL_PAGE_BYTES);

    return fallocate(c->memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
                     (off_t)(n * CELL_PAGE_BYTES))
               ? errno
               : 0;
}

static int
drop_missing(struct cell *c, int missing_fd)
{
    size_t words = (c->n_pages + 63) / 64;
    uint64_t *map = calloc(words + 1, sizeof *map);
    int error = map ? 0 : ENOMEM;

    /* Read, not mapped: the client may cut its file short. */
    if (!error &&
        pread(missing_fd, map, words * sizeof *map, 0) != (ssize_t)(words * sizeof *map)) {
        error = EINVAL;
    }
    for (uint64_t p = 0; !error && p < c->n_pages;) {
        uint64_t first = p;
        while (p < c->n_pages && map[p / 64] >> p % 64 & 1) {
            p++;
        }
        if (p > first) {
            error = drop_pages(c, first, p - first);
        }
        p++;
    }
    free(map);
    return error;
}

int
cell_postcopy_start(struct cell *c, int missing_fd)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register reg = {
        .range = {CELL_BASE, c->n_pages * CELL_PAGE_BYTES},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    int error;

    if (c->postcopy_fd >= 0) {
        /* Who waits looks again, and is reported again. */
        struct uffdio_range all = reg.range;
        return ioctl(c->postcopy_fd, UFFDIO_WAKE, &all) ? errno : 0;
    }
    if (missing_fd < 0) {
        return EINVAL;
    }
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return errno;
    }
    error = ioctl(fd, UFFDIO_API, &api) ? errno : drop_missing(c, missing_fd);
    if (!error && ioctl(fd, UFFDIO_REGISTER, &reg)) {
        error = errno;
    }
    if (error) {
        close(fd);
        return error;
    }
    c->postcopy_fd = fd;
    return 0;
}

void
cell_postcopy_end(struct cell *c)
{
    if (c->postcopy_fd >= 0) {
        struct uffdio_range all = {CELL_BASE, c->n_pages * CELL_PAGE_BYTES};
        ioctl(c->postcopy_fd, UFFDIO_UNREGISTER, &all);
        close(c->postcopy_fd);
        c->postcopy_fd = -1;
    }
}
