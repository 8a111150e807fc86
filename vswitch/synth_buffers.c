#include <config.h>

#include "synth_buffers.h"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_mempool.h>
#include <stdio.h>
#include <string.h>

#include "netback.h"
#include "openvswitch/list.h"
#include "openvswitch/vlog.h"
#include "ovs-thread.h"
#include "synth_flows.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(synth_buffers);

/* An odd number of lines from one element to the next, as in pools.c: an
 * element and the line that a mempool puts in front of it.  On ordinary pages
 * that takes a flag: without it, DPDK would let none lie across two pages, so
 * that each would start one, and all of them share a set of the cache. */
#define LINE 64u
#define ROOM (NETBACK_HEADROOM + SYNTH_SIZE_MAX)
#define ELEMENT (((sizeof(struct dp_packet) + ROOM + LINE - 1) / LINE + 1) / 2 * 2 * LINE)
#define OPS_NAME "weft-synth"

struct retired {
    struct ovs_list node;
    struct synth_buffers *buffers;
};

static struct ovs_mutex retired_mutex = OVS_MUTEX_INITIALIZER;
static struct ovs_list retired OVS_GUARDED_BY(retired_mutex) = OVS_LIST_INITIALIZER(&retired);

/* --- mempool operations --------------------------------------------------------- */

static int
op_alloc(struct rte_mempool *mp)
{
    mp->pool_data = mp->pool_config;
    return 0;
}

static void
op_free(struct rte_mempool *mp OVS_UNUSED)
{
}

static int
op_enqueue(struct rte_mempool *mp OVS_UNUSED, void *const *objects, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct rte_mbuf *m = objects[i];

        __atomic_store_n(&m->refcnt, 0, __ATOMIC_RELEASE);
    }
    return 0;
}

/* Only the receive queue takes from the pool. */
static int
op_dequeue(struct rte_mempool *mp OVS_UNUSED, void **objects OVS_UNUSED, unsigned n OVS_UNUSED)
{
    return -ENOBUFS;
}

static unsigned
op_count(const struct rte_mempool *mp)
{
    const struct synth_buffers *b = mp->pool_data;
    unsigned n = 0;

    for (unsigned i = 0; b->ring && i < b->n && b->ring[i]; i++) {
        n += !__atomic_load_n(&b->ring[i]->mbuf.refcnt, __ATOMIC_ACQUIRE);
    }
    return n;
}

static const struct rte_mempool_ops ops = {
    .name = OPS_NAME,
    .alloc = op_alloc,
    .free = op_free,
    .enqueue = op_enqueue,
    .dequeue = op_dequeue,
    .get_count = op_count,
};

int synth_buffers_ops = -1;

/* DPDK wants operations before its start, as its own plugins do it. */
RTE_INIT(register_ops)
{
    synth_buffers_ops = rte_mempool_register_ops(&ops);
}

/* --- life cycle ------------------------------------------------------------------ */

struct filling {
    struct synth_buffers *buffers;
    const void *frame;
    unsigned size;
};

static void
fill(struct rte_mempool *mp OVS_UNUSED, void *filling_, void *object, unsigned i)
{
    const struct filling *filling = filling_;
    struct dp_packet *p = object;

    dp_packet_init_dpdk(p);
    memcpy((uint8_t *)p->mbuf.buf_addr + NETBACK_HEADROOM, filling->frame, filling->size);
    __atomic_store_n(&p->mbuf.refcnt, 0, __ATOMIC_RELEASE);
    filling->buffers->ring[i] = p;
}

static bool
populate(struct synth_buffers *b, const void *frame, unsigned size)
{
    struct rte_pktmbuf_pool_private priv = {
        .mbuf_data_room_size = ELEMENT - sizeof(struct dp_packet),
        .mbuf_priv_size = sizeof(struct dp_packet) - sizeof(struct rte_mbuf),
    };
    struct filling filling = {b, frame, size};

    if (rte_mempool_set_ops_byname(b->mp, OPS_NAME, b)) {
        return false;
    }
    rte_pktmbuf_pool_init(b->mp, &priv);
    if (rte_mempool_populate_default(b->mp) < (int)b->n) {
        return false;
    }
    rte_mempool_obj_iter(b->mp, rte_pktmbuf_init, NULL);
    rte_mempool_obj_iter(b->mp, fill, &filling);
    return true;
}

static void
destroy(struct synth_buffers *b)
{
    rte_mempool_free(b->mp);
    free(b->ring);
    free(b);
}

struct synth_buffers *
synth_buffers_create(unsigned n, const void *frame, unsigned size)
{
    struct synth_buffers *b = xzalloc(sizeof *b);
    unsigned flags =
        RTE_MEMPOOL_F_NO_SPREAD | (rte_eal_has_hugepages() ? 0 : RTE_MEMPOOL_F_NO_IOVA_CONTIG);
    char name[RTE_MEMPOOL_NAMESIZE];
    static unsigned serial;

    b->n = n;
    b->ring = xcalloc(n, sizeof *b->ring);
    snprintf(name, sizeof name, "synth-%u", serial++);
    b->mp = rte_mempool_create_empty(name, n, ELEMENT, 0, sizeof(struct rte_pktmbuf_pool_private),
                                     SOCKET_ID_ANY, flags);
    if (!b->mp || !populate(b, frame, size)) {
        VLOG_ERR("no pool of %u buffers: %s", n, rte_strerror(rte_errno));
        destroy(b);
        return NULL;
    }
    return b;
}

void
synth_buffers_retire(struct synth_buffers *b)
{
    struct retired *r;

    if (b) {
        r = xmalloc(sizeof *r);
        r->buffers = b;
        ovs_mutex_lock(&retired_mutex);
        ovs_list_push_back(&retired, &r->node);
        ovs_mutex_unlock(&retired_mutex);
        synth_buffers_reap();
    }
}

void
synth_buffers_reap(void)
{
    struct retired *r = NULL;

    ovs_mutex_lock(&retired_mutex);
    LIST_FOR_EACH_SAFE (r, node, &retired) {
        if (op_count(r->buffers->mp) == r->buffers->n) {
            ovs_list_remove(&r->node);
            destroy(r->buffers);
            free(r);
        }
    }
    ovs_mutex_unlock(&retired_mutex);
}
