/* driver_cell: moves weft-cell's guests; see driver.h and lib/cell_proto.h.
 *
 * At both ends the cell is a process that is there before, with a control socket
 * (option "control"): the source's runs, the destination's was started with
 * --incoming and has its vif made and waiting.  Its memory is mapped here.
 *
 * What the bytes are: the identity is struct identity, the state struct cell_state,
 * both of this host's byte order, which every machine that can run the image has. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cell_proto.h"
#include "driver_list.h"

#define IDENTITY_MAGIC 0x64496c63u

struct identity {
    uint32_t magic;
    uint32_t version;
    uint64_t base, n_pages;
    uint8_t build_id[CELL_BUILD_ID_BYTES];
    uint32_t zero;
};
_Static_assert(sizeof(struct identity) == 48, "a wire format");

struct guest {
    struct mig_guest base;
    struct cell_client client;
    char *control; /* its path */
    uint64_t cell_base, n_pages;
    uint8_t *memory;
    size_t mapped_bytes;
    bool gone;

    uint64_t *dirty; /* the cell writes it */
    int dirty_fd;    /* -1: off */

    int fault_fd;      /* -1: no post-copy */
    uint64_t *missing; /* read-only from postcopy_start() on */
};

static struct guest *
guest_of(struct mig_guest *g)
{
    return (struct guest *)g;
}

static size_t
map_bytes(const struct guest *g)
{
    return (g->n_pages + 63) / 64 * sizeof(uint64_t);
}

/* --- attaching ---------------------------------------------------------------------- */

static int
map_memory(struct guest *g)
{
    struct cell_memory m;
    size_t n = sizeof m;
    int fd;

    int error = cell_call(&g->client, CELL_OP_MEMORY, 0, NULL, 0, -1, &m, &n, &fd);
    if (error) {
        return error;
    }
    if (fd < 0) {
        return EPROTO;
    }
    if (n != sizeof m || !m.n_pages || m.n_pages > CELL_PAGES_MAX || m.offset % CELL_PAGE_BYTES ||
        m.base % CELL_PAGE_BYTES) {
        error = EPROTO;
    } else {
        g->mapped_bytes = m.n_pages * CELL_PAGE_BYTES;
        void *p =
            mmap(NULL, g->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)m.offset);
        g->memory = p == MAP_FAILED ? NULL : p;
        error = g->memory ? 0 : errno;
        g->cell_base = m.base;
        g->n_pages = m.n_pages;
    }
    close(fd);
    return error;
}

static void
cell_detach(struct mig_guest *base)
{
    struct guest *g = guest_of(base);

    if (!g) {
        return;
    }
    if (g->memory) {
        munmap(g->memory, g->mapped_bytes);
    }
    if (g->dirty) {
        munmap(g->dirty, map_bytes(g));
    }
    if (g->dirty_fd >= 0) {
        close(g->dirty_fd);
    }
    if (g->fault_fd >= 0) {
        close(g->fault_fd);
    }
    free(g->missing);
    cell_disconnect(&g->client);
    free(g->control);
    free(g);
}

static int
open_guest(const struct mig_guest_config *config, struct guest **gp, char why[MIG_WHY])
{
    const char *path = mig_option(config, "control");
    struct guest *g;

    if (!path) {
        snprintf(why, MIG_WHY, "the job names no control socket (cell.control)");
        return EINVAL;
    }
    g = calloc(1, sizeof *g);
    if (!g) {
        return ENOMEM;
    }
    g->base.ops = &mig_driver_cell;
    g->dirty_fd = g->fault_fd = -1;
    g->client.fd = -1;
    g->control = strdup(path);
    int error = g->control ? cell_connect(&g->client, path) : ENOMEM;
    if (error) {
        snprintf(why, MIG_WHY, "%s: %s", path, strerror(error));
        error = error == ECONNREFUSED ? ENOENT : error; /* its process is gone */
    } else {
        error = map_memory(g);
        if (error) {
            snprintf(why, MIG_WHY, "cannot map the guest's memory: %s", strerror(error));
        }
    }
    if (error) {
        cell_detach(&g->base);
        return error;
    }
    *gp = g;
    return 0;
}

static int
cell_attach(const struct mig_guest_config *config, struct mig_guest **gp, char why[MIG_WHY])
{
    struct guest *g;

    int error = open_guest(config, &g, why);
    if (error) {
        return error;
    }
    *gp = &g->base;
    return 0;
}

static int
cell_get_status(struct mig_guest *base, struct mig_guest_status *status)
{
    struct guest *g = guest_of(base);
    struct cell_status s;

    if (g->gone) {
        return ENOENT;
    }
    int error = cell_status(&g->client, &s);
    if (error) {
        return error == EPIPE ? ENOENT : error;
    }
    status->epoch = s.epoch;
    switch (s.state) {
    case CELL_MADE:
        status->state = MIG_GUEST_MADE;
        return 0;
    case CELL_LOADED:
        status->state = MIG_GUEST_LOADED;
        return 0;
    case CELL_RUNNING:
        status->state = MIG_GUEST_RUNNING;
        return 0;
    case CELL_PAUSED:
        status->state = MIG_GUEST_PAUSED;
        return 0;
    default:
        return ESRCH; /* dead by its own doing: nothing to move */
    }
}

static int
cell_destroy(struct mig_guest *base)
{
    struct guest *g = guest_of(base);

    if (g->gone) {
        return 0;
    }
    int error = cell_ask(&g->client, CELL_OP_DESTROY, 0);
    if (error && error != EPIPE) {
        return error;
    }
    g->gone = true;
    cell_disconnect(&g->client);
    return 0;
}

/* --- source ----------------------------------------------------------------------------- */

static int
make_identity(struct guest *g, struct identity *id)
{
    struct cell_status s;

    int error = cell_status(&g->client, &s);
    if (error) {
        return error;
    }
    *id = (struct identity){
        .magic = IDENTITY_MAGIC,
        .version = CELL_PROTO_VERSION,
        .base = s.base,
        .n_pages = s.n_pages,
    };
    memcpy(id->build_id, s.build_id, sizeof id->build_id);
    return 0;
}

static int
cell_describe(struct mig_guest *base, uint8_t *bytes, size_t *n)
{
    struct identity id;

    if (*n < sizeof id) {
        return EMSGSIZE;
    }
    int error = make_identity(guest_of(base), &id);
    if (error) {
        return error;
    }
    memcpy(bytes, &id, sizeof id);
    *n = sizeof id;
    return 0;
}

static int
cell_pause(struct mig_guest *base)
{
    return cell_ask(&guest_of(base)->client, CELL_OP_PAUSE, 0);
}

static int
cell_resume(struct mig_guest *base, uint64_t epoch)
{
    return cell_ask(&guest_of(base)->client, CELL_OP_RESUME, epoch);
}

static int
cell_throttle(struct mig_guest *base, unsigned int percent)
{
    return cell_ask(&guest_of(base)->client, CELL_OP_THROTTLE, percent);
}

/* --- destination ------------------------------------------------------------------------ */

static int
cell_create(const struct mig_guest_config *config, const uint8_t *identity, size_t n,
            struct mig_guest **gp, char why[MIG_WHY])
{
    struct identity theirs, ours;
    struct guest *g;

    if (n != sizeof theirs) {
        snprintf(why, MIG_WHY, "the source's description has %zu bytes, not %zu", n, sizeof theirs);
        return EINVAL;
    }
    memcpy(&theirs, identity, sizeof theirs);
    int error = open_guest(config, &g, why);
    if (error) {
        return error;
    }
    error = make_identity(g, &ours);
    if (error) {
        snprintf(why, MIG_WHY, "the waiting cell: %s", strerror(error));
    } else if (theirs.magic != ours.magic || theirs.version != ours.version ||
               theirs.base != ours.base || theirs.zero) {
        snprintf(why, MIG_WHY, "the source's guest is of another kind");
        error = EINVAL;
    } else if (theirs.n_pages != ours.n_pages) {
        snprintf(why, MIG_WHY, "the guest has %llu pages, the waiting cell %llu",
                 (unsigned long long)theirs.n_pages, (unsigned long long)ours.n_pages);
        error = EINVAL;
    } else if (memcmp(theirs.build_id, ours.build_id, sizeof ours.build_id)) {
        snprintf(why, MIG_WHY, "the guest runs another image than the waiting cell (build-id)");
        error = EINVAL;
    }
    if (error) {
        cell_detach(&g->base);
        return error;
    }
    *gp = &g->base;
    return 0;
}

static int
cell_run(struct mig_guest *base, uint64_t epoch)
{
    return cell_ask(&guest_of(base)->client, CELL_OP_RUN, epoch);
}

/* --- memory ------------------------------------------------------------------------------- */

static int
cell_memory(struct mig_guest *base, struct mig_memory *m)
{
    struct guest *g = guest_of(base);

    *m = (struct mig_memory){.base = g->memory, .n_pages = g->n_pages};
    return 0;
}

static int
cell_dirty_stop(struct mig_guest *base)
{
    struct guest *g = guest_of(base);

    if (g->dirty_fd < 0) {
        return 0;
    }
    if (g->dirty) {
        munmap(g->dirty, map_bytes(g));
        g->dirty = NULL;
    }
    close(g->dirty_fd);
    g->dirty_fd = -1;
    return cell_ask(&g->client, CELL_OP_DIRTY_STOP, 0);
}

static int
cell_dirty_start(struct mig_guest *base)
{
    struct guest *g = guest_of(base);

    int error = cell_dirty_stop(base);
    if (error) {
        return error;
    }
    error = cell_call(&g->client, CELL_OP_DIRTY_START, 0, NULL, 0, -1, NULL, NULL, &g->dirty_fd);
    if (error) {
        return error;
    }
    void *p = g->dirty_fd < 0 ? MAP_FAILED
                              : mmap(NULL, map_bytes(g), PROT_READ, MAP_SHARED, g->dirty_fd, 0);
    if (p == MAP_FAILED) {
        error = g->dirty_fd < 0 ? EPROTO : errno;
        cell_dirty_stop(base);
        return error;
    }
    g->dirty = p;
    return 0;
}

static int
cell_dirty_fetch(struct mig_guest *base, uint64_t *bitmap)
{
    struct guest *g = guest_of(base);
    size_t words = map_bytes(g) / sizeof *bitmap, n = sizeof(uint64_t);
    uint64_t count;

    if (!g->dirty) {
        return EINVAL;
    }
    int error = cell_call(&g->client, CELL_OP_DIRTY_FETCH, 0, NULL, 0, -1, &count, &n, NULL);
    if (error) {
        return error;
    }
    for (size_t i = 0; i < words; i++) {
        bitmap[i] |= g->dirty[i];
    }
    if (g->n_pages % 64) {
        bitmap[words - 1] &= (UINT64_C(1) << g->n_pages % 64) - 1;
    }
    return 0;
}

static int
cell_state_save(struct mig_guest *base, uint8_t **bytes, size_t *n)
{
    struct cell_state *state = malloc(sizeof *state);

    if (!state) {
        return ENOMEM;
    }
    *n = sizeof *state;
    int error =
        cell_call(&guest_of(base)->client, CELL_OP_STATE_GET, 0, NULL, 0, -1, state, n, NULL);
    error = error ? error : *n == sizeof *state ? 0 : EPROTO;
    if (error) {
        free(state);
        return error;
    }
    *bytes = (uint8_t *)state;
    return 0;
}

static int
cell_state_load(struct mig_guest *base, const uint8_t *bytes, size_t n, char why[MIG_WHY])
{
    if (n != sizeof(struct cell_state)) {
        snprintf(why, MIG_WHY, "the guest's state has %zu bytes, not %zu", n,
                 sizeof(struct cell_state));
        return EINVAL;
    }
    int error =
        cell_call(&guest_of(base)->client, CELL_OP_STATE_SET, 0, bytes, n, -1, NULL, NULL, NULL);
    if (error) {
        snprintf(why, MIG_WHY, "the cell refuses the guest's state: %s",
                 error == ENOEXEC         ? "another image (build-id)"
                 : error == EADDRNOTAVAIL ? "another MAC than its vif's"
                                          : strerror(error));
    }
    return error;
}

/* --- post-copy ---------------------------------------------------------------------------- */

static int
cell_postcopy_pinned(struct mig_guest *base, uint64_t *bitmap)
{
    struct guest *g = guest_of(base);
    struct cell_range r;
    size_t n = sizeof r;

    int error = cell_call(&g->client, CELL_OP_PINNED, 0, NULL, 0, -1, &r, &n, NULL);
    if (error) {
        return error;
    }
    if (n != sizeof r || r.first > g->n_pages || r.n > g->n_pages - r.first) {
        return EPROTO;
    }
    for (uint64_t p = r.first; p < r.first + r.n; p++) {
        bitmap[p / 64] |= UINT64_C(1) << p % 64;
    }
    return 0;
}

static int
cell_postcopy_start(struct mig_guest *base, const uint64_t *missing, int *fault_fd)
{
    struct guest *g = guest_of(base);
    size_t bytes = map_bytes(g);
    int error = 0, fd;

    uint64_t *copy = malloc(bytes);
    int map = memfd_create("missing", MFD_CLOEXEC);
    if (!copy || map < 0) {
        error = copy ? errno : ENOMEM;
    } else {
        memcpy(copy, missing, bytes);
        error = write(map, copy, bytes) == (ssize_t)bytes ? 0 : errno ? errno : EIO;
    }
    if (!error) {
        error = cell_call(&g->client, CELL_OP_POSTCOPY_START, 0, NULL, 0, map, NULL, NULL, &fd);
        error = error ? error : fd < 0 ? EPROTO : 0;
    }
    if (map >= 0) {
        close(map);
    }
    if (error) {
        free(copy);
        return error;
    }
    if (g->fault_fd >= 0) {
        close(g->fault_fd);
    }
    free(g->missing);
    g->missing = copy;
    g->fault_fd = *fault_fd = fd;
    return 0;
}

static int
wake_page(struct guest *g, uint64_t pfn)
{
    struct uffdio_range r = {g->cell_base + pfn * CELL_PAGE_BYTES, CELL_PAGE_BYTES};

    return ioctl(g->fault_fd, UFFDIO_WAKE, &r) ? errno : 0;
}

/* A page of the guest's that nobody ever wrote: the memory has no page there. */
static int
place_zero(struct guest *g, uint64_t pfn)
{
    struct uffdio_zeropage z = {
        .range = {g->cell_base + pfn * CELL_PAGE_BYTES, CELL_PAGE_BYTES},
    };

    if (!ioctl(g->fault_fd, UFFDIO_ZEROPAGE, &z)) {
        return 0;
    }
    return errno == EEXIST ? wake_page(g, pfn) : errno;
}

static int
cell_fault_next(struct mig_guest *base, uint64_t *pfn)
{
    struct guest *g = guest_of(base);
    struct uffd_msg msg;

    if (g->fault_fd < 0) {
        return EINVAL;
    }
    for (;;) {
        ssize_t n = read(g->fault_fd, &msg, sizeof msg);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno;
        }
        if (n != sizeof msg) {
            return EPROTO;
        }
        uint64_t page = (msg.arg.pagefault.address - g->cell_base) / CELL_PAGE_BYTES;
        if (msg.event != UFFD_EVENT_PAGEFAULT || page >= g->n_pages) {
            continue;
        }
        if (g->missing[page / 64] >> page % 64 & 1) {
            *pfn = page;
            return 0;
        }
        int error = place_zero(g, page);
        if (error) {
            return error;
        }
    }
}

static int
cell_place(struct mig_guest *base, uint64_t pfn, const uint8_t page[MIG_PAGE_BYTES])
{
    struct guest *g = guest_of(base);
    struct uffdio_copy copy = {
        .dst = g->cell_base + pfn * CELL_PAGE_BYTES,
        .src = (uint64_t)(uintptr_t)page,
        .len = CELL_PAGE_BYTES,
    };

    if (g->fault_fd < 0 || pfn >= g->n_pages) {
        return EINVAL;
    }
    while (ioctl(g->fault_fd, UFFDIO_COPY, &copy)) {
        if (errno == EEXIST) {
            return wake_page(g, pfn);
        }
        if (errno != EAGAIN) {
            return errno == ESRCH ? ENOENT : errno; /* the cell is gone */
        }
        copy.copy = 0;
    }
    return 0;
}

static int
cell_postcopy_end(struct mig_guest *base)
{
    struct guest *g = guest_of(base);

    int error = cell_ask(&g->client, CELL_OP_POSTCOPY_END, 0);
    if (!error && g->fault_fd >= 0) {
        close(g->fault_fd);
        g->fault_fd = -1;
        free(g->missing);
        g->missing = NULL;
    }
    return error;
}

/* Its end of our connection is closed, and nobody answers where it did. */
static bool
cell_is_gone(struct mig_guest *base)
{
    struct guest *g = guest_of(base);
    struct pollfd p = {.fd = g->client.fd};

    if (g->gone || (p.fd < 0 && g->client.lost != EPIPE)) {
        return g->gone;
    }
    if (p.fd >= 0 && (poll(&p, 1, 0) != 1 || !(p.revents & POLLHUP))) {
        return false;
    }
    return !cell_listens(g->control);
}

const struct mig_driver mig_driver_cell = {
    .name = "cell",
    .kind = MIG_MEMORY,
    .attach = cell_attach,
    .detach = cell_detach,
    .status = cell_get_status,
    .destroy = cell_destroy,
    .describe = cell_describe,
    .pause = cell_pause,
    .resume = cell_resume,
    .throttle = cell_throttle,
    .create = cell_create,
    .run = cell_run,
    .memory = cell_memory,
    .dirty_start = cell_dirty_start,
    .dirty_fetch = cell_dirty_fetch,
    .dirty_stop = cell_dirty_stop,
    .state_save = cell_state_save,
    .state_load = cell_state_load,
    .postcopy_pinned = cell_postcopy_pinned,
    .postcopy_start = cell_postcopy_start,
    .fault_next = cell_fault_next,
    .place = cell_place,
    .postcopy_end = cell_postcopy_end,
    .is_gone = cell_is_gone,
};
