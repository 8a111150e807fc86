#include "fast/bundle.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <rte_branch_prediction.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

/* In a free buffer's data room. */
struct bundle {
    struct bundle *next;
    uint64_t n_others;
    void *others[BUNDLE_MAX - 1];
};
_Static_assert(sizeof(struct bundle) == BUNDLE_ROOM, "as promised");

/* Replaced as a whole.  'changes' makes it differ from what it was when the
 * same bundle was on top before, so that 'next', read meanwhile, still holds. */
union top {
    struct {
        struct bundle *first;
        uint32_t n; /* buffers */
        uint32_t changes;
    };
    unsigned __int128 whole;
};

struct stack {
    _Alignas(64) union top top;
    _Alignas(64) size_t offset; /* of the data room in an object */
};

static struct bundle *
bundle_in(const struct stack *s, void *object)
{
    return (struct bundle *)((char *)object + s->offset);
}

static void *
object_of(const struct stack *s, struct bundle *b)
{
    return (char *)b - s->offset;
}

/* May be torn: then the swap fails. */
static union top
top_read(const struct stack *s)
{
    const uint64_t *words = (const uint64_t *)&s->top;
    union {
        uint64_t words[2];
        union top top;
    } seen;

    seen.words[0] = __atomic_load_n(&words[0], __ATOMIC_ACQUIRE);
    seen.words[1] = __atomic_load_n(&words[1], __ATOMIC_ACQUIRE);
    return seen.top;
}

/* On failure '*from' becomes what is there. */
static bool
top_swap(struct stack *s, union top *from, union top to)
{
    unsigned __int128 found;

    to.changes = from->changes + 1;
    found = __sync_val_compare_and_swap(&s->top.whole, from->whole, to.whole);
    if (likely(found == from->whole)) {
        return true;
    }
    from->whole = found;
    return false;
}

static void
push(struct stack *s, struct bundle *b)
{
    union top top = top_read(s), to;

    do {
        b->next = top.first;
        to.first = b;
        to.n = top.n + 1 + b->n_others;
    } while (!top_swap(s, &top, to));
}

/* Somebody else may have taken the bundle already and write into it: then what
 * is read here is not used. */
static inline struct bundle *__attribute__((no_sanitize("thread"))) next_of(const struct bundle *b)
{
    return *(struct bundle *const volatile *)&b->next;
}

static inline uint64_t __attribute__((no_sanitize("thread"))) others_of(const struct bundle *b)
{
    return *(const volatile uint64_t *)&b->n_others;
}

static struct bundle *
pop(struct stack *s)
{
    union top top = top_read(s), to;

    do {
        if (!top.first) {
            return NULL;
        }
        to.first = next_of(top.first);
        to.n = top.n - 1 - others_of(top.first);
    } while (!top_swap(s, &top, to));
    return top.first;
}

/* --- mempool operations ------------------------------------------------------- */

static int
bundle_alloc(struct rte_mempool *mp)
{
    struct stack *s;

    if (rte_pktmbuf_data_room_size(mp) < BUNDLE_ROOM) {
        return -EINVAL;
    }
    s = rte_zmalloc_socket(mp->name, sizeof *s, _Alignof(struct stack), mp->socket_id);
    if (!s) {
        return -ENOMEM;
    }
    s->offset = sizeof(struct rte_mbuf) + rte_pktmbuf_priv_size(mp);
    mp->pool_data = s;
    return 0;
}

static void
bundle_free(struct rte_mempool *mp)
{
    rte_free(mp->pool_data);
}

static int
bundle_enqueue(struct rte_mempool *mp, void *const *objects, unsigned n)
{
    struct stack *s = mp->pool_data;

    while (n) {
        unsigned some = RTE_MIN(n, BUNDLE_MAX);
        struct bundle *b = bundle_in(s, objects[some - 1]);

        memcpy(b->others, objects, (some - 1) * sizeof *objects);
        b->n_others = some - 1;
        push(s, b);
        objects += some;
        n -= some;
    }
    return 0;
}

static int
bundle_dequeue(struct rte_mempool *mp, void **objects, unsigned n)
{
    struct stack *s = mp->pool_data;
    unsigned got = 0;

    while (got < n) {
        struct bundle *b = pop(s);

        if (unlikely(!b)) {
            bundle_enqueue(mp, objects, got);
            return -ENOBUFS;
        }
        unsigned some = RTE_MIN((uint64_t)n - got, b->n_others);

        b->n_others -= some;
        memcpy(objects + got, b->others + b->n_others, some * sizeof *objects);
        got += some;
        if (got < n) {
            objects[got++] = object_of(s, b);
        } else {
            push(s, b);
        }
    }
    return 0;
}

static unsigned
bundle_count(const struct rte_mempool *mp)
{
    const struct stack *s = mp->pool_data;

    return top_read(s).n;
}

static const struct rte_mempool_ops bundle_ops = {
    .name = "weft_bundle",
    .alloc = bundle_alloc,
    .free = bundle_free,
    .enqueue = bundle_enqueue,
    .dequeue = bundle_dequeue,
    .get_count = bundle_count,
};
RTE_MEMPOOL_REGISTER_OPS(bundle_ops)

const char *
bundle_ops_name(void)
{
    return bundle_ops.name;
}
