/* counters: see counters.h. */
#include "counters.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NONE UINT32_MAX

void *
reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void
unreserve(void *p, size_t bytes)
{
    if (p) {
        munmap(p, bytes);
    }
}

static struct chunk *
chunk_create(void)
{
    struct chunk *c = aligned_alloc(64, (sizeof *c + 63) / 64 * 64);

    if (c) {
        memset(c, 0, sizeof *c);
    }
    return c;
}

static void
list_push(struct chunk *_Atomic *list, struct chunk *c)
{
    struct chunk *head = atomic_load_explicit(list, memory_order_acquire);

    do {
        atomic_store_explicit(&c->next, head, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak(list, &head, c));
}

/* Others may push meanwhile, nobody else removes. */
static void
list_remove(struct chunk *_Atomic *list, struct chunk *c)
{
    struct chunk *next = atomic_load_explicit(&c->next, memory_order_relaxed);
    struct chunk *head = c;

    if (atomic_compare_exchange_strong(list, &head, next)) {
        return;
    }
    for (struct chunk *p = head; p; p = atomic_load_explicit(&p->next, memory_order_relaxed)) {
        if (atomic_load_explicit(&p->next, memory_order_relaxed) == c) {
            atomic_store_explicit(&p->next, next, memory_order_relaxed);
            return;
        }
    }
}

/* --- the engine's side --------------------------------------------------- */

int
counters_init(struct counters *c)
{
    pthread_rwlockattr_t attr;

    *c = (struct counters){.free_id = NONE};
    c->lists = reserve(N_CHUNKS * sizeof *c->lists);
    c->base = reserve(N_CHUNKS * sizeof *c->base);
    if (!c->lists || !c->base) {
        unreserve(c->lists, N_CHUNKS * sizeof *c->lists);
        unreserve(c->base, N_CHUNKS * sizeof *c->base);
        return ENOMEM;
    }
    /* Who sums statistics does so all the time: a worker that leaves must not
     * wait until nobody does. */
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&c->leave, &attr);
    pthread_rwlockattr_destroy(&attr);
    return 0;
}

void
counters_done(struct counters *c)
{
    for (uint32_t i = 0; i * CHUNK_SLOTS < c->n_ids; i++) {
        free(c->base[i]);
    }
    unreserve(c->lists, N_CHUNKS * sizeof *c->lists);
    unreserve(c->base, N_CHUNKS * sizeof *c->base);
    pthread_rwlock_destroy(&c->leave);
}

static struct slot *
base_slot(const struct counters *c, uint32_t id)
{
    return &c->base[id / CHUNK_SLOTS]->slots[id % CHUNK_SLOTS];
}

int
counters_id_alloc(struct counters *c, uint32_t *id)
{
    uint32_t i = c->n_ids / CHUNK_SLOTS;

    if (c->free_id != NONE) {
        struct slot *s = base_slot(c, c->free_id);
        *id = c->free_id;
        c->free_id = atomic_load_explicit(&s->bytes, memory_order_relaxed);
        atomic_store_explicit(&s->bytes, 0, memory_order_relaxed);
        return 0;
    }
    if (c->n_ids == ENGINE_FLOWS_MAX) {
        return ENOSPC;
    }
    if (!c->base[i]) {
        c->base[i] = chunk_create();
        if (!c->base[i]) {
            return ENOMEM;
        }
        list_push(&c->lists[i], c->base[i]);
    }
    *id = c->n_ids++;
    return 0;
}

#define FOR_EACH_SLOT(s, c, id)                                                                    \
    for (struct chunk *k_ = atomic_load(&(c)->lists[(id) / CHUNK_SLOTS]);                          \
         k_ && (s = &k_->slots[(id) % CHUNK_SLOTS], true);                                         \
         k_ = atomic_load_explicit(&k_->next, memory_order_relaxed))

void
counters_id_free(struct counters *c, uint32_t id)
{
    struct slot *s;

    pthread_rwlock_rdlock(&c->leave);
    FOR_EACH_SLOT(s, c, id)
    {
        atomic_store_explicit(&s->packets, 0, memory_order_relaxed);
        atomic_store_explicit(&s->bytes, 0, memory_order_relaxed);
        atomic_store_explicit(&s->used, 0, memory_order_relaxed);
        atomic_store_explicit(&s->tcp_flags, 0, memory_order_relaxed);
    }
    pthread_rwlock_unlock(&c->leave);
    atomic_store_explicit(&base_slot(c, id)->bytes, c->free_id, memory_order_relaxed);
    c->free_id = id;
}

void
counters_raise_gen(struct counters *c, uint32_t id)
{
    struct slot *s;

    pthread_rwlock_rdlock(&c->leave);
    FOR_EACH_SLOT(s, c, id)
    {
        atomic_fetch_add(&s->gen, 1);
    }
    pthread_rwlock_unlock(&c->leave);
}

static void
add(struct flow_stats *sum, const struct slot *s)
{
    int64_t used = atomic_load_explicit(&s->used, memory_order_relaxed);

    sum->packets += atomic_load_explicit(&s->packets, memory_order_relaxed);
    sum->bytes += atomic_load_explicit(&s->bytes, memory_order_relaxed);
    sum->used = used > sum->used ? used : sum->used;
    sum->tcp_flags |= atomic_load_explicit(&s->tcp_flags, memory_order_relaxed);
}

void
counters_sum(const struct counters *c, uint32_t id, struct flow_stats *sum)
{
    pthread_rwlock_t *leave = (pthread_rwlock_t *)&c->leave;
    struct slot *s;

    *sum = (struct flow_stats){0};
    pthread_rwlock_rdlock(leave);
    FOR_EACH_SLOT(s, c, id)
    {
        add(sum, s);
    }
    pthread_rwlock_unlock(leave);
}

/* --- a worker's side ------------------------------------------------------- */

int
slots_init(struct slots *s)
{
    s->n_chunks = 0;
    s->chunks = reserve(N_CHUNKS * sizeof *s->chunks);
    return s->chunks ? 0 : ENOMEM;
}

struct slot *
slots_get(struct counters *c, struct slots *s, uint32_t id)
{
    uint32_t i = id / CHUNK_SLOTS;

    if (!s->chunks[i]) {
        struct chunk *new = chunk_create();
        if (!new) {
            return NULL;
        }
        s->chunks[i] = new;
        s->n_chunks++;
        list_push(&c->lists[i], new);
    }
    return &s->chunks[i]->slots[id % CHUNK_SLOTS];
}

/* Adds a chunk's counts to the base and frees it.  Who sums sees each packet
 * once, before or after. */
static void
fold(struct counters *c, struct slots *s, uint32_t i)
{
    struct chunk *gone = s->chunks[i], *base = c->base[i];

    for (unsigned j = 0; j < CHUNK_SLOTS; j++) {
        struct flow_stats sum = {0};
        struct slot *b = &base->slots[j];
        add(&sum, &gone->slots[j]);
        if (sum.packets) {
            int64_t used = atomic_load_explicit(&b->used, memory_order_relaxed);
            slot_count(b, sum.packets, sum.bytes, sum.used > used ? sum.used : used, sum.tcp_flags);
        }
    }
    list_remove(&c->lists[i], gone);
    s->chunks[i] = NULL;
    s->n_chunks--;
    free(gone);
}

void
slots_trim(struct counters *c, struct slots *s)
{
    pthread_rwlock_wrlock(&c->leave);
    for (uint32_t i = 0; i < N_CHUNKS && s->n_chunks; i++) {
        if (s->chunks[i]) {
            fold(c, s, i);
        }
    }
    pthread_rwlock_unlock(&c->leave);
}

void
slots_done(struct counters *c, struct slots *s)
{
    if (s->chunks) {
        slots_trim(c, s);
        unreserve(s->chunks, N_CHUNKS * sizeof *s->chunks);
    }
}
