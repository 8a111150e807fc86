/* Producer's and consumer's end of struct upcall. */
#include <config.h>

#include "dp_upcall_copy.h"

#include "coverage.h"
#include "dp-packet.h"
#include "dp.h"
#include "netlink.h"
#include "odp-util.h"
#include "offload_ports.h"
#include "openvswitch/ofpbuf.h"
#include "packets.h"
#include "util.h"

COVERAGE_DEFINE(weft_upcall_key_too_long);

/* Room in front of the packet, for tags that ofproto may push. */
#define UPCALL_HEADROOM 66u

/* --- allocations ----------------------------------------------------------------- */

#define POOLED_BYTES (sizeof(struct upcall) + 512)
#define POOL_MAX 1024u

void
upcall_pool_init(struct upcall_pool *pool)
{
    ovs_mutex_init(&pool->lock);
    pool->free = NULL;
    pool->n = 0;
}

static struct upcall *
pool_take(struct upcall_pool *pool)
{
    struct upcall *u = NULL;

    if (!ovs_mutex_trylock(&pool->lock)) {
        u = pool->free;
        if (u) {
            pool->free = u->next;
            pool->n--;
        }
        ovs_mutex_unlock(&pool->lock);
    }
    return u;
}

/* False: not taken. */
static bool
pool_give(struct upcall_pool *pool, struct upcall *u)
{
    bool room = false;

    if (!ovs_mutex_trylock(&pool->lock)) {
        room = pool->n < POOL_MAX;
        if (room) {
            u->next = pool->free;
            pool->free = u;
            pool->n++;
        }
        ovs_mutex_unlock(&pool->lock);
    }
    return room;
}

void
upcall_pool_destroy(struct upcall_pool *pool)
{
    struct upcall *u;

    while ((u = pool_take(pool))) {
        free(u->base);
    }
    ovs_mutex_destroy(&pool->lock);
}

static void *
allocate(struct upcall_pool *pool, size_t len)
{
    struct upcall *u;

    if (len > POOLED_BYTES) {
        return xmalloc(len);
    }
    u = pool_take(pool);
    return u ? u->base : xmalloc(POOLED_BYTES);
}

void
upcall_free(struct upcall_pool *pool, struct upcall *u)
{
    if (u && (!u->pooled || !pool_give(pool, u))) {
        free(u->base);
    }
}

/* --- in -------------------------------------------------------------------------- */

static size_t
attr_room(const struct nlattr *a)
{
    return a ? NLA_ALIGN(a->nla_len) : 0;
}

static const struct nlattr *
copy_attr(uint8_t **to, const struct nlattr *a)
{
    struct nlattr *copy = ALIGNED_CAST(struct nlattr *, *to);

    if (!a) {
        return NULL;
    }
    memcpy(copy, a, a->nla_len);
    memset(*to + a->nla_len, 0, attr_room(a) - a->nla_len);
    *to += attr_room(a);
    return copy;
}

/* What describes the frame.  A frame cut short is no longer what its offload
 * flags say. */
static void
copy_packet(struct upcall *u, const struct dp_packet *b)
{
    memcpy((uint8_t *)u->base + u->headroom, dp_packet_data(b), u->frame_len);
    u->packet_type = b->packet_type;
    u->ol_flags = *dp_packet_ol_flags_ptr(b) & DP_PACKET_OL_SUPPORTED_MASK &
                  ~(uint64_t)DP_PACKET_OL_FLOW_MARK;
    u->tx_offload = b->mbuf.tx_offload;
    u->rss_hash = dp_packet_rss_valid(b) ? dp_packet_get_rss_hash(b) : 0;
    if (u->frame_len < dp_packet_size(b)) {
        u->ol_flags &= ~(uint64_t)OFFLOAD_ALL;
    }
}

struct upcall *
upcall_create(struct upcall_pool *pool, const struct dp_packet *b, const struct flow *flow,
              enum dpif_upcall_type type, const struct nlattr *userdata,
              const struct nlattr *actions, const struct flow_tnl *out_tunnel)
{
    size_t size = dp_packet_get_send_len(b);
    size_t headroom = MIN(UPCALL_HEADROOM, UINT16_MAX - size);
    size_t offset = ROUND_UP(headroom + size, 8);
    size_t len = offset + sizeof(struct upcall) + attr_room(userdata) + attr_room(actions) +
                 (out_tunnel ? sizeof *out_tunnel + 8 : 0);
    uint8_t *base = allocate(pool, len);
    struct upcall *u = ALIGNED_CAST(struct upcall *, base + offset);
    uint8_t *behind = (uint8_t *)(u + 1);

    u->base = base;
    u->pooled = len <= POOLED_BYTES;
    u->size = u->pooled ? POOLED_BYTES : len;
    u->type = type;
    u->headroom = headroom;
    u->frame_len = size;
    u->out_tunnel = NULL;
    if (OVS_UNLIKELY(out_tunnel != NULL)) {
        u->out_tunnel = memcpy(behind, out_tunnel, sizeof *out_tunnel);
        behind += ROUND_UP(sizeof *out_tunnel, 8);
    }
    u->userdata = copy_attr(&behind, userdata);
    u->actions = copy_attr(&behind, actions);
    u->flow = *flow;
    copy_packet(u, b);
    return u;
}

/* --- out ------------------------------------------------------------------------- */

/* Appends a copy of 'a' and returns where it is in 'buf', or SIZE_MAX. */
static size_t
put_attr(struct ofpbuf *buf, const struct nlattr *a)
{
    size_t ofs = buf->size;

    if (!a) {
        return SIZE_MAX;
    }
    ofpbuf_put(buf, a, NLA_ALIGN(a->nla_len));
    return ofs;
}

/* The same for a tunnel's key: the inner of the two attributes of a
 * set(tunnel(...)) action. */
static size_t
put_tunnel(struct ofpbuf *buf, const struct flow_tnl *tunnel)
{
    size_t ofs = buf->size;

    if (!tunnel) {
        return SIZE_MAX;
    }
    odp_put_tunnel_action(tunnel, buf, NULL);
    return ofs + NLA_HDRLEN;
}

static struct nlattr *
attr_at(const struct ofpbuf *buf, size_t ofs)
{
    return ofs == SIZE_MAX ? NULL : ofpbuf_at_assert(buf, ofs, NLA_HDRLEN);
}

/* ofproto keeps a key and a mask in buffers of ODPUTIL_FLOW_KEY_BYTES, without
 * a look at the key's length, and aborts on a longer mask.  That is too short
 * for the worst of packets: two tags, neighbour discovery and a tracked
 * connection's tuple in an IPv6 tunnel with all the options Geneve has room
 * for.  So no such key leaves here, nor one whose mask could be as long. */
static bool
key_fits(const struct upcall *u, const struct ofpbuf *key)
{
    /* What a mask may have that its key has not: the tunnel's other
     * attributes. */
    const size_t mask_extra = 192;
    uint64_t stub[1024 / 8];
    struct flow ones;
    struct odp_flow_key_parms parms = {
        .flow = &u->flow, .mask = &ones, .support = dp_odp_support, .key_buf = key};
    struct ofpbuf mask;
    bool fits;

    if (OVS_LIKELY(key->size + mask_extra <= ODPUTIL_FLOW_KEY_BYTES)) {
        return true;
    }
    memset(&ones, 0xff, sizeof ones);
    ones.tunnel.metadata.tab = NULL;
    ofpbuf_use_stub(&mask, stub, sizeof stub);
    odp_flow_key_from_mask(&parms, &mask);
    fits = key->size <= ODPUTIL_FLOW_KEY_BYTES && mask.size <= ODPUTIL_FLOW_KEY_BYTES;
    ofpbuf_uninit(&mask);
    return fits;
}

/* False if ofproto could not take it.  '*base' is where the packet is to be. */
static bool
fill_buffer(const struct upcall *u, struct dpif_upcall *up, struct ofpbuf *buf, void **base)
{
    /* A TCP packet's flags are in its key even if they are all zero, as the
     * kernel's datapath has it. */
    static const struct flow exact = {.tcp_flags = OVS_BE16_MAX};
    struct odp_flow_key_parms parms = {.flow = &u->flow, .mask = &exact, .support = dp_odp_support};
    size_t userdata, actions, out_tunnel, packet;

    ofpbuf_clear(buf);
    odp_flow_key_from_flow(&parms, buf);
    if (!key_fits(u, buf)) {
        return false;
    }
    up->key_len = buf->size;
    odp_flow_key_hash(buf->data, buf->size, &up->ufid);
    userdata = put_attr(buf, u->userdata);
    actions = put_attr(buf, u->actions);
    out_tunnel = put_tunnel(buf, u->out_tunnel);
    packet = buf->size;
    if (u->pooled) {
        ofpbuf_put(buf, u->base, u->headroom + u->frame_len);
    }

    /* The buffer no longer moves. */
    up->key = buf->data;
    up->userdata = attr_at(buf, userdata);
    up->actions = attr_at(buf, actions);
    up->out_tun_key = attr_at(buf, out_tunnel);
    *base = u->pooled ? ofpbuf_at_assert(buf, packet, u->headroom + u->frame_len) : u->base;
    return true;
}

/* Makes what is at 'base' the packet of 'up'; '*u' is behind its end, if that is
 * the upcall's allocation. */
static void
fill_packet(const struct upcall *u, struct dpif_upcall *up, void *base)
{
    struct dp_packet *b = &up->packet;
    size_t size = u->headroom + u->frame_len;

    if (u->pooled) {
        dp_packet_use_stub(b, base, size);
    } else {
        dp_packet_use(b, base, size);
    }
    dp_packet_reserve(b, u->headroom);
    dp_packet_set_size(b, u->frame_len);
    b->packet_type = u->packet_type;
    if (!dp_packet_is_eth(b)) {
        dp_packet_set_l3(b, dp_packet_data(b));
    }
    *dp_packet_ol_flags_ptr(b) = u->ol_flags;
    b->mbuf.tx_offload = u->tx_offload;
    if (dp_packet_rss_valid(b)) {
        dp_packet_set_rss_hash(b, u->rss_hash);
    }
    /* A controller must see what the guest meant.  TCP packets of several
     * segments keep their flags; they are cut on their way out. */
    if (offload_wants(b) && !dp_packet_hwol_is_tso(b)) {
        offload_sum(b);
    }
}

bool
upcall_deliver(struct upcall_pool *pool, struct upcall *u, struct dpif_upcall *up,
               struct ofpbuf *buf)
{
    void *base;

    if (!fill_buffer(u, up, buf, &base)) {
        COVERAGE_INC(weft_upcall_key_too_long);
        upcall_free(pool, u);
        return false;
    }
    up->type = u->type;
    up->mru = NULL;
    up->hash = NULL; /* the packet itself has it */
    up->cutlen = NULL;
    fill_packet(u, up, base);
    if (u->pooled) {
        upcall_free(pool, u);
    }
    return true;
}
