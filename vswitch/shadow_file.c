/* Theory of Operation
 * ===================
 *
 * After one page of header come slots, each a multiple of UNIT bytes, each for
 * ever of the size it was made with.  A slot that is given back goes on a list
 * of free slots of its size, in the process; a record takes one of those, or a
 * new one at the top.  So records come and go without the file ever having to
 * be compacted.
 *
 * A kill can come between any two stores, and stores are seen in their order.
 * A slot's size is written before the top is raised over it, its state last of
 * all.  What is torn all the same (a machine that lost its memory) fails the
 * checksum.
 *
 * The file's blocks are allocated before they are touched: storing into a hole
 * of a full tmpfs would be a SIGBUS. */
#include <config.h>

#include "shadow_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dirs.h"
#include "openvswitch/util.h"
#include "util.h"

#define FILE_MAGIC UINT64_C(0x776f646168736677) /* "wfshadow" */
#define FILE_VERSION 1u
#define UNIT 64u
#define FIRST 4096u /* offset of the first slot */
#define GROW_BYTES (1u << 20)
#define FILE_BYTES_MAX (256u << 20)

enum slot_state { SLOT_FREE = 0, SLOT_LIVE = 0x4556494c };

struct file_header {
    uint64_t magic;
    uint32_t version, kind, layout, unused;
    char boot[40];
    _Atomic uint64_t top; /* offset behind the last slot */
};

struct slot {
    uint32_t units; /* its size */
    uint32_t len;   /* of the body */
    uint32_t crc;   /* of 'len' and the body */
    _Atomic uint32_t state;
    uint8_t body[];
};
BUILD_ASSERT_DECL(sizeof(struct slot) == 16);

#define UNITS_MAX ((sizeof(struct slot) + SHADOW_BODY_MAX) / UNIT)
BUILD_ASSERT_DECL(UNITS_MAX *UNIT == sizeof(struct slot) + SHADOW_BODY_MAX);

struct shadow_file {
    char *path;
    int fd;
    uint8_t *map; /* FILE_BYTES_MAX, of which 'size' are there */
    size_t size, top;
    /* Free slots by size: numbers (offset / UNIT), as stacks. */
    struct {
        uint32_t *slots;
        size_t n, allocated;
    } free[UNITS_MAX + 1];
};

static uint32_t
checksum(uint32_t len, const uint8_t *p)
{
    uint64_t crc = __builtin_ia32_crc32si(~0u, len);
    size_t n = len;

    for (; n >= 8; n -= 8, p += 8) {
        uint64_t v;

        memcpy(&v, p, 8);
        crc = __builtin_ia32_crc32di(crc, v);
    }
    for (; n; n--, p++) {
        crc = __builtin_ia32_crc32qi(crc, *p);
    }
    return ~(uint32_t)crc;
}

static void
boot_id(char id[40])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    memset(id, 0, 40);
    if (fd >= 0) {
        ignore(read(fd, id, 39));
        close(fd);
    }
}

char *
shadow_path(const char *name)
{
    char *dir = xasprintf("%s/weft", ovs_rundir()), *path;

    mkdir(dir, 0700);
    path = xasprintf("%s/%s", dir, name);
    free(dir);
    return path;
}

/* --- writing ------------------------------------------------------------------ */

static struct file_header *
header_of(struct shadow_file *f)
{
    return (struct file_header *)f->map;
}

static struct slot *
slot_at(struct shadow_file *f, uint32_t slot)
{
    return (struct slot *)(f->map + (size_t)slot * UNIT);
}

static int
grow(struct shadow_file *f, size_t need)
{
    size_t size = ROUND_UP(need, GROW_BYTES);
    int error;

    if (size > FILE_BYTES_MAX) {
        return ENOSPC;
    }
    do {
        error = posix_fallocate(f->fd, f->size, size - f->size);
    } while (error == EINTR);
    if (!error) {
        f->size = size;
    }
    return error;
}

struct shadow_file *
shadow_file_create(const char *path, uint32_t kind, uint32_t layout)
{
    struct shadow_file *f = xzalloc(sizeof *f);
    int error;

    /* Not truncated but replaced: the old one may be somebody's. */
    unlink(path);
    f->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f->fd < 0) {
        error = errno;
        goto error_open;
    }
    error = grow(f, FIRST);
    if (error) {
        goto error_grow;
    }
    f->map = mmap(NULL, FILE_BYTES_MAX, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    if (f->map == MAP_FAILED) {
        error = errno;
        goto error_grow;
    }
    f->path = xstrdup(path);
    f->top = FIRST;

    struct file_header *h = header_of(f);
    h->version = FILE_VERSION;
    h->kind = kind;
    h->layout = layout;
    boot_id(h->boot);
    atomic_store(&h->top, f->top);
    h->magic = FILE_MAGIC;
    return f;

error_grow:
    unlink(path);
    close(f->fd);
error_open:
    free(f);
    errno = error;
    return NULL;
}

int
shadow_file_rename(struct shadow_file *f, const char *path)
{
    if (rename(f->path, path)) {
        return errno;
    }
    free(f->path);
    f->path = xstrdup(path);
    return 0;
}

void
shadow_file_close(struct shadow_file *f)
{
    if (f) {
        munmap(f->map, FILE_BYTES_MAX);
        close(f->fd);
        for (size_t i = 0; i <= UNITS_MAX; i++) {
            free(f->free[i].slots);
        }
        free(f->path);
        free(f);
    }
}

static uint32_t
take_free(struct shadow_file *f, uint32_t units)
{
    return f->free[units].n ? f->free[units].slots[--f->free[units].n] : 0;
}

static uint32_t
take_top(struct shadow_file *f, uint32_t units)
{
    size_t end = f->top + (size_t)units * UNIT;
    uint32_t slot = f->top / UNIT;

    if (end > f->size && grow(f, end)) {
        return 0;
    }
    slot_at(f, slot)->units = units;
    f->top = end;
    atomic_store_explicit(&header_of(f)->top, end, memory_order_release);
    return slot;
}

void *
shadow_file_reserve(struct shadow_file *f, size_t len, uint32_t *slotp)
{
    uint32_t units = DIV_ROUND_UP(sizeof(struct slot) + len, UNIT), slot = 0;

    if (len <= SHADOW_BODY_MAX) {
        slot = take_free(f, units);
        slot = slot ? slot : take_top(f, units);
    }
    *slotp = slot;
    if (!slot) {
        return NULL;
    }
    slot_at(f, slot)->len = len;
    return slot_at(f, slot)->body;
}

void
shadow_file_commit(struct shadow_file *f, uint32_t slot)
{
    struct slot *s = slot_at(f, slot);

    s->crc = checksum(s->len, s->body);
    atomic_store_explicit(&s->state, SLOT_LIVE, memory_order_release);
}

void
shadow_file_drop(struct shadow_file *f, uint32_t slot)
{
    struct slot *s = slot_at(f, slot);
    uint32_t units = s->units;

    if (!slot) {
        return;
    }
    atomic_store_explicit(&s->state, SLOT_FREE, memory_order_release);
    if (f->free[units].n >= f->free[units].allocated) {
        f->free[units].slots = x2nrealloc(f->free[units].slots, &f->free[units].allocated,
                                          sizeof *f->free[units].slots);
    }
    f->free[units].slots[f->free[units].n++] = slot;
}

/* --- reading -------------------------------------------------------------------- */

static bool
header_valid(const struct file_header *h, uint32_t kind, uint32_t layout)
{
    char boot[40];

    boot_id(boot);
    return h->magic == FILE_MAGIC && h->version == FILE_VERSION && h->kind == kind &&
           h->layout == layout && !memcmp(h->boot, boot, sizeof boot);
}

static int
read_all(int fd, uint8_t *p, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(fd, p + done, n - done, done);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got ? errno : EINVAL;
        }
        done += got;
    }
    return 0;
}

int
shadow_image_load(const char *path, uint32_t kind, uint32_t layout, struct shadow_image *image)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct file_header h;
    struct stat st;
    size_t top;
    int error;

    image->data = NULL;
    image->size = 0;
    if (fd < 0) {
        return errno;
    }
    if (fstat(fd, &st)) {
        error = errno;
        goto out;
    }
    error = EINVAL;
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 077 ||
        st.st_size < (off_t)FIRST || read_all(fd, (uint8_t *)&h, sizeof h) ||
        !header_valid(&h, kind, layout)) {
        goto out;
    }
    top = atomic_load(&h.top);
    if (top < FIRST || top > MIN((size_t)st.st_size, FILE_BYTES_MAX)) {
        goto out;
    }
    image->data = xmalloc(top);
    error = read_all(fd, image->data, top);
    if (error) {
        shadow_image_free(image);
        goto out;
    }
    image->size = top;
out:
    close(fd);
    return error;
}

void
shadow_image_free(struct shadow_image *image)
{
    free(image->data);
    image->data = NULL;
    image->size = 0;
}

void *
shadow_image_next(const struct shadow_image *image, size_t *pos, size_t *len)
{
    size_t ofs = *pos ? *pos : FIRST;

    while (image->size >= sizeof(struct slot) && ofs <= image->size - sizeof(struct slot)) {
        struct slot *s = (struct slot *)(image->data + ofs);
        size_t bytes = (size_t)s->units * UNIT;

        if (!s->units || s->units > UNITS_MAX || bytes > image->size - ofs) {
            break; /* no telling where the next one is */
        }
        ofs += bytes;
        if (atomic_load_explicit(&s->state, memory_order_relaxed) == SLOT_LIVE &&
            s->len <= bytes - sizeof *s && s->crc == checksum(s->len, s->body)) {
            *pos = ofs;
            *len = s->len;
            return s->body;
        }
    }
    *pos = image->size;
    return NULL;
}
