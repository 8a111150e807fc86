#include <config.h>

#include "pools.h"

#include <errno.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <sys/mman.h>

#include "dp-packet.h"
#include "fast/bundle.h"
#include "netback.h"
#include "openvswitch/vlog.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(weft_pools);

/* A stride of an odd number of cache lines spreads the packets' hot lines
 * over all sets of the cache; a power of two piles them onto a few. */
#define LINE 64u
#define ODD_LINES(bytes) ((((bytes) + LINE - 1) / LINE | 1) * LINE)
/* Large ones have a page to spare, for netback to move the data in (pkt_slide()),
 * beyond the 64 KiB that an mbuf can tell of. */
#define SPARE(frame) ((frame) > POOLS_SMALL_FRAME ? 4096u + LINE : 0)
#define ELEMENT(frame)                                                                             \
    ODD_LINES(sizeof(struct dp_packet) + NETBACK_HEADROOM + (frame) + SPARE(frame))
/* What a mempool puts in front of each element. */
#define OBJECT_HEADER LINE
#define TRANSPARENT_PAGE (2u << 20)

/* Elements that an lcore keeps at hand.  Large ones are few: a cache of them
 * must not hide a pool's worth from the other threads. */
#define SMALL_CACHE 256u
#define LARGE_CACHE 16u

static struct rte_mempool *small, *large;

static void
init_packet(struct rte_mempool *mp OVS_UNUSED, void *aux OVS_UNUSED, void *obj,
            unsigned i OVS_UNUSED)
{
    dp_packet_init_dpdk(obj);
}

static void
unmap(struct rte_mempool_memhdr *memory, void *start)
{
    munmap(start, (char *)memory->addr + memory->len - (char *)start);
}

/* Without hugepages, DPDK's memory is of small pages, and nearly every packet
 * misses the TLB.  The kernel makes large ones of ordinary memory if it is
 * asked to and can. */
static int
populate_transparent(struct rte_mempool *mp)
{
    size_t element = mp->header_size + mp->elt_size + mp->trailer_size;
    /* None lies across two pages. */
    size_t len = DIV_ROUND_UP(mp->size, TRANSPARENT_PAGE / element) * (size_t)TRANSPARENT_PAGE;
    char *map = mmap(NULL, len + TRANSPARENT_PAGE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *start = (char *)ROUND_UP((uintptr_t)map, TRANSPARENT_PAGE);
    int n;

    if (map == MAP_FAILED) {
        return -errno;
    }
    if (start > map) {
        munmap(map, start - map);
    }
    munmap(start + len, map + TRANSPARENT_PAGE - start);
    madvise(start, len, MADV_HUGEPAGE);
    n = rte_mempool_populate_virt(mp, start, len, TRANSPARENT_PAGE, unmap, start);
    if (n <= 0) {
        munmap(start, len);
    }
    return n;
}

/* Large buffers stay out of it: most of their memory is never touched. */
static int
populate(struct rte_mempool *mp, size_t frame)
{
    int n = rte_eal_has_hugepages() || frame > POOLS_SMALL_FRAME ? 0 : populate_transparent(mp);

    /* Adds what is still missing, if anything is. */
    return n == (int)mp->size ? n : rte_mempool_populate_default(mp);
}

static struct rte_mempool *
create(const char *name, unsigned n, size_t frame, unsigned cache)
{
    /* data_off and buf_len are 16 bits wide. */
    size_t room = MIN(ELEMENT(frame) - sizeof(struct dp_packet), UINT16_MAX);
    struct rte_pktmbuf_pool_private priv = {
        .mbuf_data_room_size = room,
        .mbuf_priv_size = sizeof(struct dp_packet) - sizeof(struct rte_mbuf),
    };
    struct rte_mempool *mp;
    int error;

    /* On ordinary pages no device needs elements to be contiguous anywhere but
     * here; without saying so, DPDK would let none lie across two of them. */
    mp = rte_mempool_create_empty(name, n, ELEMENT(frame), cache, sizeof priv, SOCKET_ID_ANY,
                                  rte_eal_has_hugepages() ? 0 : RTE_MEMPOOL_F_NO_IOVA_CONTIG);
    if (!mp) {
        VLOG_ERR("%s: cannot create a pool of %u buffers: %s", name, n, rte_strerror(rte_errno));
        return NULL;
    }
    /* Our threads may be preempted at any point, and nobody may spin for
     * them, so not DPDK's own. */
    error = rte_mempool_set_ops_byname(mp, bundle_ops_name(), NULL);
    if (error) {
        VLOG_ERR("%s: no mempool operations: %s", name, rte_strerror(-error));
        goto fail;
    }
    rte_pktmbuf_pool_init(mp, &priv);
    error = populate(mp, frame);
    if (error < 0) {
        VLOG_ERR("%s: no memory for %u buffers of %zu bytes: %s", name, n, (size_t)ELEMENT(frame),
                 rte_strerror(-error));
        goto fail;
    }
    rte_mempool_obj_iter(mp, rte_pktmbuf_init, NULL);
    rte_mempool_obj_iter(mp, init_packet, NULL);
    return mp;

fail:
    rte_mempool_free(mp);
    return NULL;
}

int
pools_create(unsigned n_small, unsigned n_large)
{
    BUILD_ASSERT_DECL(offsetof(struct dp_packet, mbuf) == 0);
    BUILD_ASSERT_DECL(NETBACK_HEADROOM + NETBACK_FRAME_MAX <= UINT16_MAX);
    BUILD_ASSERT_DECL((sizeof(struct dp_packet) - sizeof(struct rte_mbuf)) % RTE_MBUF_PRIV_ALIGN ==
                      0);

    small = create("weft-small", n_small, POOLS_SMALL_FRAME, SMALL_CACHE);
    if (!small) {
        return ENOMEM;
    }
    large = create("weft-large", n_large, NETBACK_FRAME_MAX, LARGE_CACHE);
    if (!large) {
        pools_destroy();
        return ENOMEM;
    }
    return 0;
}

void
pools_destroy(void)
{
    rte_mempool_free(large);
    rte_mempool_free(small);
    small = large = NULL;
}

struct rte_mempool *
pools_small(void)
{
    return small;
}

struct rte_mempool *
pools_large(void)
{
    return large;
}

size_t
pools_memory(unsigned n_small, unsigned n_large)
{
    return n_small * (ELEMENT(POOLS_SMALL_FRAME) + OBJECT_HEADER) +
           (size_t)n_large * (ELEMENT(NETBACK_FRAME_MAX) + OBJECT_HEADER);
}

struct dp_packet *
pools_alloc(size_t size)
{
    struct rte_mempool *mp = size <= POOLS_SMALL_FRAME ? small : large;
    struct rte_mbuf *m = NULL;
    struct dp_packet *b;

    if (mp && size <= NETBACK_FRAME_MAX) {
        m = rte_pktmbuf_alloc(mp);
    }
    if (!m) {
        return dp_packet_new_with_headroom(size, 128);
    }
    m->data_off = NETBACK_HEADROOM;
    b = CONTAINER_OF(m, struct dp_packet, mbuf);
    dp_packet_reset_offsets(b);
    dp_packet_reset_cutlen(b);
    b->packet_type = htonl(PT_ETH);
    return b;
}
