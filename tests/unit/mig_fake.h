/* mig_fake: a hypervisor of two hosts and its guests, for the migration engine.
 *
 * Everything lies in one shared mapping, made before the test forks: the guests
 * outlive the processes that move them.  A process of its own (fake_hypervisor())
 * is the guests' CPU.  A guest's memory is a function of its seed and of the number
 * of steps it made, so that one lost or doubled write is found (fake_memory_right()).
 *
 * The observer: whoever starts a guest looks, in one atomic act, whether it runs at
 * the other host; fake->violations counts.  Epochs must grow. */
#ifndef MIG_FAKE_H
#define MIG_FAKE_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"

enum { FAKE_PAGES = 1024, FAKE_WORDS = FAKE_PAGES / 64, FAKE_VMS = 8, FAKE_WRITE = 64 };

struct fake_vm {
    pthread_mutex_t lock; /* guards all of it; robust: engines are killed */
    bool exists;
    enum mig_guest_state state;
    uint64_t epoch, seed, steps;
    unsigned int throttle, rate; /* steps per ms */
    bool logging, postcopy;
    uint64_t dirty[FAKE_WORDS], missing[FAKE_WORDS];
    uint64_t wanted; /* a page that the guest waits for; FAKE_PAGES: none */
    int fault_fd;
    uint8_t *memory;
};

struct fake {
    struct fake_vm vms[2][FAKE_VMS]; /* of host 0 and 1 */
    _Atomic int running[FAKE_VMS];   /* bit per host */
    _Atomic uint64_t last_epoch[FAKE_VMS];
    _Atomic int violations;
    atomic_bool stop;
    /* The database, as the hosts reach it. */
    atomic_bool cut_off[2];      /* no answer */
    _Atomic int answers_lost[2]; /* so many swaps are done and not answered */
    _Atomic int swaps_lost[2];   /* so many swaps are neither done nor answered */
    atomic_bool dies_complete;   /* the next process that ends a post-copy */
    _Atomic int told[2];         /* progress */
};

static struct fake *fake;

static inline void
fake_lock(struct fake_vm *vm)
{
    if (pthread_mutex_lock(&vm->lock) == EOWNERDEAD) {
        pthread_mutex_consistent(&vm->lock);
    }
}

static inline void
fake_unlock(struct fake_vm *vm)
{
    pthread_mutex_unlock(&vm->lock);
}

static inline uint64_t
fake_mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* What a guest's memory is before its first step. */
static inline void
fake_fill(uint8_t *memory, uint64_t seed)
{
    for (uint64_t pfn = 0; pfn < FAKE_PAGES; pfn++) {
        uint64_t *words = (uint64_t *)(memory + pfn * MIG_PAGE_BYTES);

        for (int i = 0; i < MIG_PAGE_BYTES / 8; i++) {
            uint64_t r = fake_mix(seed * 7919 + pfn * 512 + i);

            words[i] = pfn % 10 < 3 ? 0 : pfn % 10 < 7 ? r & 0xff : r;
        }
    }
}

/* The page that a step writes. */
static inline uint64_t
fake_target(uint64_t seed, uint64_t step)
{
    return fake_mix(seed ^ step * 2) % FAKE_PAGES;
}

static inline void
fake_write(uint8_t *memory, uint64_t seed, uint64_t step)
{
    uint64_t r = fake_mix(seed ^ (step * 2 + 1));
    uint8_t *at = memory + fake_target(seed, step) * MIG_PAGE_BYTES + r % (4096 - FAKE_WRITE);

    for (int i = 0; i < FAKE_WRITE; i++) {
        at[i] += (uint8_t)(r >> i % 57);
    }
}

static inline bool
fake_memory_right(const struct fake_vm *vm)
{
    uint8_t *want = malloc(FAKE_PAGES * MIG_PAGE_BYTES);
    bool right;

    fake_fill(want, vm->seed);
    for (uint64_t i = 0; i < vm->steps; i++) {
        fake_write(want, vm->seed, i);
    }
    right = !memcmp(want, vm->memory, FAKE_PAGES * MIG_PAGE_BYTES);
    free(want);
    return right;
}

/* --- CPU -------------------------------------------------------------------------- */

/* One step; false: it waits for a page. */
static inline bool
fake_step(struct fake_vm *vm)
{
    uint64_t pfn = fake_target(vm->seed, vm->steps);

    if (vm->missing[pfn / 64] >> pfn % 64 & 1) {
        if (vm->wanted != pfn) {
            vm->wanted = pfn;
            eventfd_write(vm->fault_fd, 1);
        }
        return false;
    }
    fake_write(vm->memory, vm->seed, vm->steps++);
    if (vm->logging) {
        vm->dirty[pfn / 64] |= 1ull << pfn % 64;
    }
    return true;
}

/* The hypervisor's process: never returns. */
static inline void
fake_hypervisor(void)
{
    while (!fake->stop) {
        for (int i = 0; i < 2 * FAKE_VMS; i++) {
            struct fake_vm *vm = &fake->vms[i % 2][i / 2];

            fake_lock(vm);
            if (vm->exists && vm->state == MIG_GUEST_RUNNING) {
                unsigned int n = vm->rate * (100 - vm->throttle) / 100;

                for (unsigned int s = 0; s < (n ? n : 1) && fake_step(vm); s++) {
                }
            }
            fake_unlock(vm);
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    _exit(0);
}

/* --- driver ------------------------------------------------------------------------- */

struct fake_guest {
    struct mig_guest base;
    struct fake_vm *vm;
    int host, index;
};

extern const struct mig_driver fake_driver;

static inline int
fake_open(const struct mig_guest_config *c, struct mig_guest **out)
{
    struct fake_guest *g = calloc(1, sizeof *g);

    g->base.ops = &fake_driver;
    g->host = atoi(mig_option(c, "host"));
    g->index = atoi(mig_option(c, "index"));
    g->vm = &fake->vms[g->host][g->index];
    *out = &g->base;
    return 0;
}

static inline struct fake_guest *
fake_of(struct mig_guest *g)
{
    return (struct fake_guest *)g;
}

/* The observer. */
static inline void
fake_started(struct fake_guest *g)
{
    if (atomic_fetch_or(&fake->running[g->index], 1 << g->host) & ~(1 << g->host)) {
        atomic_fetch_add(&fake->violations, 1);
    }
    if (g->vm->epoch < atomic_exchange(&fake->last_epoch[g->index], g->vm->epoch)) {
        atomic_fetch_add(&fake->violations, 1);
    }
    g->vm->state = MIG_GUEST_RUNNING;
}

static inline void
fake_stopped(struct fake_guest *g)
{
    atomic_fetch_and(&fake->running[g->index], ~(1 << g->host));
}

static inline int
fake_attach(const struct mig_guest_config *c, struct mig_guest **out, char why[MIG_WHY])
{
    struct fake_vm *vm;
    bool exists;

    fake_open(c, out);
    vm = fake_of(*out)->vm;
    fake_lock(vm);
    exists = vm->exists;
    vm->logging = false;
    vm->throttle = 0;
    fake_unlock(vm);
    if (!exists) {
        free(*out);
        *out = NULL;
        snprintf(why, MIG_WHY, "no such guest");
    }
    return exists ? 0 : ENOENT;
}

static inline void
fake_detach(struct mig_guest *g)
{
    free(g);
}

static inline int
fake_status(struct mig_guest *g, struct mig_guest_status *s)
{
    struct fake_vm *vm = fake_of(g)->vm;

    fake_lock(vm);
    *s = (struct mig_guest_status){.state = vm->state, .epoch = vm->epoch};
    fake_unlock(vm);
    return vm->exists ? 0 : ENOENT;
}

static inline int
fake_destroy(struct mig_guest *g)
{
    struct fake_vm *vm = fake_of(g)->vm;

    fake_lock(vm);
    fake_stopped(fake_of(g));
    vm->exists = false;
    fake_unlock(vm);
    return 0;
}

static inline int
fake_describe(struct mig_guest *g, uint8_t *bytes, size_t *n)
{
    *n = (size_t)snprintf((char *)bytes, *n, "fake %d", FAKE_PAGES);
    return 0;
}

static inline int
fake_pause(struct mig_guest *g)
{
    struct fake_vm *vm = fake_of(g)->vm;

    fake_lock(vm);
    vm->state = MIG_GUEST_PAUSED;
    fake_stopped(fake_of(g));
    fake_unlock(vm);
    return 0;
}

static inline int
fake_go(struct mig_guest *g, uint64_t epoch)
{
    struct fake_vm *vm = fake_of(g)->vm;

    fake_lock(vm);
    vm->epoch = epoch;
    fake_started(fake_of(g));
    fake_unlock(vm);
    return 0;
}

static inline int
fake_throttle(struct mig_guest *g, unsigned int percent)
{
    fake_lock(fake_of(g)->vm);
    fake_of(g)->vm->throttle = percent;
    fake_unlock(fake_of(g)->vm);
    return 0;
}

static inline int
fake_create(const struct mig_guest_config *c, const uint8_t *identity, size_t n,
            struct mig_guest **out, char why[MIG_WHY])
{
    char want[32];
    struct fake_vm *vm;

    snprintf(want, sizeof want, "fake %d", FAKE_PAGES);
    if (n != strlen(want) || memcmp(identity, want, n)) {
        snprintf(why, MIG_WHY, "another machine");
        return EINVAL;
    }
    fake_open(c, out);
    vm = fake_of(*out)->vm;
    fake_lock(vm);
    vm->exists = true;
    vm->state = MIG_GUEST_MADE;
    vm->logging = vm->postcopy = false;
    vm->throttle = 0;
    vm->wanted = FAKE_PAGES;
    memset(vm->missing, 0, sizeof vm->missing);
    memset(vm->memory, 0, FAKE_PAGES * MIG_PAGE_BYTES);
    fake_unlock(vm);
    return 0;
}

static inline int
fake_memory(struct mig_guest *g, struct mig_memory *m)
{
    *m = (struct mig_memory){.base = fake_of(g)->vm->memory, .n_pages = FAKE_PAGES};
    return 0;
}

static inline int
fake_dirty_start(struct mig_guest *g)
{
    struct fake_vm *vm = fake_of(g)->vm;

    fake_lock(vm);
    vm->logging = true;
    for (int i = 0; i < FAKE_WORDS; i++) {
        vm->dirty[i] = 0;
    }
    fake_unlock(vm);
    return 0;
}

static inline int
fake_dirty_fetch(struct mig_guest *g, uint64_t *bitmap)
{
    struct fake_vm *vm = fake_of(g)->vm;

    fake_lock(vm);
    for (int i = 0; i < FAKE_WORDS; i++) {
        bitmap[i] |= vm->dirty[i];
        vm->dirty[i] = 0;
    }
    fake_unlock(vm);
    return 0;
}

static inline int
fake_dirty_stop(struct mig_guest *g)
{
    fake_lock(fake_of(g)->vm);
    fake_of(g)->vm->logging = false;
    fake_unlock(fake_of(g)->vm);
    return 0;
}

struct fake_state {
    uint64_t seed, steps, rate;
};

static inline int
fake_state_save(struct mig_guest *g, uint8_t **bytes, size_t *n)
{
    struct fake_vm *vm = fake_of(g)->vm;
    struct fake_state s = {vm->seed, vm->steps, vm->rate};

    *n = sizeof s;
    *bytes = malloc(*n);
    memcpy(*bytes, &s, *n);
    return 0;
}

static inline int
fake_state_load(struct mig_guest *g, const uint8_t *bytes, size_t n, char why[MIG_WHY])
{
    struct fake_vm *vm = fake_of(g)->vm;
    struct fake_state s;

    if (n != sizeof s) {
        snprintf(why, MIG_WHY, "not a state");
        return EINVAL;
    }
    memcpy(&s, bytes, n);
    fake_lock(vm);
    vm->seed = s.seed;
    vm->steps = s.steps;
    vm->rate = (unsigned int)s.rate;
    vm->state = MIG_GUEST_LOADED;
    fake_unlock(vm);
    return 0;
}

static inline int
fake_run(struct mig_guest *g, uint64_t epoch)
{
    struct fake_vm *vm = fake_of(g)->vm;
    bool runs;

    fake_lock(vm);
    runs = vm->state == MIG_GUEST_RUNNING && vm->epoch == epoch;
    fake_unlock(vm);
    return runs ? 0 : fake_go(g, epoch);
}

/* Pages 0 to 15 are a backend's. */
static inline int
fake_pinned(struct mig_guest *g, uint64_t *bitmap)
{
    bitmap[0] |= 0xffff;
    return 0;
}

static inline int
fake_postcopy_start(struct mig_guest *g, const uint64_t *missing, int *fault_fd)
{
    struct fake_vm *vm = fake_of(g)->vm;

    fake_lock(vm);
    if (!vm->postcopy) {
        for (uint64_t pfn = 0; pfn < FAKE_PAGES; pfn++) {
            if (missing[pfn / 64] >> pfn % 64 & 1) {
                memset(vm->memory + pfn * MIG_PAGE_BYTES, 0, MIG_PAGE_BYTES);
            }
        }
        memcpy(vm->missing, missing, sizeof vm->missing);
        vm->postcopy = true;
    }
    vm->wanted = FAKE_PAGES;
    *fault_fd = vm->fault_fd;
    fake_unlock(vm);
    return 0;
}

static inline int
fake_fault_next(struct mig_guest *g, uint64_t *pfn)
{
    struct fake_vm *vm = fake_of(g)->vm;
    eventfd_t n;
    int error = EAGAIN;

    if (!eventfd_read(vm->fault_fd, &n)) {
        fake_lock(vm);
        *pfn = vm->wanted;
        error = *pfn < FAKE_PAGES ? 0 : EAGAIN;
        fake_unlock(vm);
    }
    return error;
}

static inline int
fake_place(struct mig_guest *g, uint64_t pfn, const uint8_t *page)
{
    struct fake_vm *vm = fake_of(g)->vm;

    fake_lock(vm);
    if (vm->missing[pfn / 64] >> pfn % 64 & 1) {
        memcpy(vm->memory + pfn * MIG_PAGE_BYTES, page, MIG_PAGE_BYTES);
        vm->missing[pfn / 64] &= ~(1ull << pfn % 64);
    }
    fake_unlock(vm);
    return 0;
}

static inline int
fake_postcopy_end(struct mig_guest *g)
{
    struct fake_vm *vm = fake_of(g)->vm;
    int left = 0;

    fake_lock(vm);
    for (int i = 0; i < FAKE_WORDS; i++) {
        left |= vm->missing[i] != 0;
    }
    vm->postcopy = false;
    fake_unlock(vm);
    if (!left && atomic_exchange(&fake->dies_complete, false)) {
        kill(getpid(), SIGKILL);
    }
    return left ? EINVAL : 0;
}

static inline bool
fake_is_gone(struct mig_guest *g)
{
    return !fake_of(g)->vm->exists;
}

const struct mig_driver fake_driver = {
    .name = "fake",
    .kind = MIG_MEMORY,
    .attach = fake_attach,
    .detach = fake_detach,
    .status = fake_status,
    .destroy = fake_destroy,
    .describe = fake_describe,
    .pause = fake_pause,
    .resume = fake_go,
    .throttle = fake_throttle,
    .create = fake_create,
    .run = fake_run,
    .memory = fake_memory,
    .dirty_start = fake_dirty_start,
    .dirty_fetch = fake_dirty_fetch,
    .dirty_stop = fake_dirty_stop,
    .state_save = fake_state_save,
    .state_load = fake_state_load,
    .postcopy_pinned = fake_pinned,
    .postcopy_start = fake_postcopy_start,
    .fault_next = fake_fault_next,
    .place = fake_place,
    .postcopy_end = fake_postcopy_end,
    .is_gone = fake_is_gone,
};

/* --- life ----------------------------------------------------------------------------- */

static inline void
fake_setup(void)
{
    size_t memory = FAKE_PAGES * MIG_PAGE_BYTES;
    size_t head = (sizeof *fake + MIG_PAGE_BYTES - 1) / MIG_PAGE_BYTES * MIG_PAGE_BYTES;
    pthread_mutexattr_t attr;
    uint8_t *p = mmap(NULL, head + 2 * FAKE_VMS * memory, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        abort();
    }
    fake = (struct fake *)p;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    for (int i = 0; i < 2 * FAKE_VMS; i++) {
        struct fake_vm *vm = &fake->vms[i % 2][i / 2];

        pthread_mutex_init(&vm->lock, &attr);
        vm->fault_fd = eventfd(0, EFD_NONBLOCK);
        vm->memory = p + head + i * memory;
    }
}

/* A guest that runs at host 0, in epoch 1, and none at host 1. */
static inline void
fake_boot(int index, uint64_t seed, unsigned int rate)
{
    struct fake_vm *vm = &fake->vms[0][index];

    for (int host = 0; host < 2; host++) {
        fake_lock(&fake->vms[host][index]);
        fake->vms[host][index].exists = false;
        fake_unlock(&fake->vms[host][index]);
    }
    fake_lock(vm);
    fake_fill(vm->memory, seed);
    vm->seed = seed;
    vm->steps = vm->throttle = 0;
    vm->rate = rate;
    vm->epoch = 1;
    vm->logging = vm->postcopy = false;
    vm->wanted = FAKE_PAGES;
    memset(vm->missing, 0, sizeof vm->missing);
    vm->state = MIG_GUEST_RUNNING;
    fake->running[index] = 1;
    fake->last_epoch[index] = 1;
    vm->exists = true;
    fake_unlock(vm);
}

#endif
