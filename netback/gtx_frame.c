/* gtx_frame: see gtx_frame.h. */
#include "gtx_frame.h"

#include <netinet/in.h>
#include <string.h>

#include "ring_priv.h"

/* No sender's stack asks for less (Linux refuses to go below), and one frame
 * must not become tens of thousands. */
#define GSO_MSS_MIN 48u

#define TCP_FLAGS 13
#define TCP_SYN_RST 0x06

/* The mbuf's own fields for header lengths are this narrow. */
#define L2_LEN_MAX 127u
#define L3_LEN_MAX 511u

static bool
has_transport(const struct frame_layout *l)
{
    return l->payload && !l->fragment &&
           (l->l4_proto == IPPROTO_TCP || l->l4_proto == IPPROTO_UDP) && l->l3 <= L2_LEN_MAX &&
           (unsigned)(l->l4 - l->l3) <= L3_LEN_MAX;
}

static void
set_checksum(struct rte_mbuf *m, const struct frame_layout *l)
{
    m->tx_offload = 0;
    m->l2_len = l->l3;
    m->l3_len = l->l4 - l->l3;
    m->l4_len = l->payload - l->l4;
    m->ol_flags |= l->l4_proto == IPPROTO_TCP ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM;
    m->ol_flags |= l->ip_version == 4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6;
}

static enum drop_reason
set_segmentation(struct rte_mbuf *m, const struct gtx_request *r, uint16_t mtu,
                 const struct frame_layout *l)
{
    uint8_t version = r->gso_type == XEN_NETIF_GSO_TYPE_TCPV4   ? 4
                      : r->gso_type == XEN_NETIF_GSO_TYPE_TCPV6 ? 6
                                                                : 0;

    if (l->l4_proto != IPPROTO_TCP || l->ip_version != version || r->mss < GSO_MSS_MIN) {
        return DROP_GTX_BAD_GSO;
    }
    if (l->l3_end - l->payload <= r->mss) {
        /* One segment already; what it may weigh is its own size. */
        return r->size > mtu + FRAME_OVERHEAD ? DROP_GTX_TOO_LONG : DROP_N_REASONS;
    }
    if (l->l3_end != r->size || (rte_pktmbuf_mtod(m, uint8_t *)[l->l4 + TCP_FLAGS] & TCP_SYN_RST)) {
        return DROP_GTX_BAD_GSO;
    }
    if (l->payload + (uint32_t)r->mss > mtu + FRAME_OVERHEAD) {
        return DROP_GTX_TOO_LONG;
    }
    m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
    m->tso_segsz = r->mss;
    return DROP_N_REASONS;
}

enum drop_reason
gtx_frame_offloads(struct rte_mbuf *m, const struct gtx_request *r, uint16_t mtu,
                   struct frame_layout *l)
{
    bool gso = r->gso_type != XEN_NETIF_GSO_TYPE_NONE;

    if (!gso && r->size > mtu + FRAME_OVERHEAD) {
        return DROP_GTX_TOO_LONG;
    }
    if (!gso && !r->csum_blank) {
        if (r->data_validated) {
            m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
        }
        return DROP_N_REASONS;
    }
    if (!frame_parse(rte_pktmbuf_mtod(m, uint8_t *), r->size, l) || !has_transport(l)) {
        return DROP_GTX_BAD_GSO;
    }
    set_checksum(m, l);
    return gso ? set_segmentation(m, r, mtu, l) : DROP_N_REASONS;
}

/* Puts headers, the 'tail' bytes left over in 'm' and the bytes of 'rest'
 * into one buffer. */
static struct rte_mbuf *
join_rest(struct pkt_pool *pool, struct rte_mbuf *m, struct rte_mbuf *rest, uint16_t headers,
          uint16_t tail)
{
    uint32_t len = headers + tail + rest->data_len;
    struct rte_mbuf *joined = len <= pool->small_room ? rest : pkt_alloc(pool, len);

    if (!joined) {
        return NULL;
    }
    uint8_t *to = rte_pktmbuf_mtod(joined, uint8_t *);
    const uint8_t *from = rte_pktmbuf_mtod(m, const uint8_t *);
    memmove(to + headers + tail, rte_pktmbuf_mtod(rest, uint8_t *), rest->data_len);
    memcpy(to, from, headers);
    memcpy(to + headers, from + m->data_len - tail, tail);
    joined->data_len = len;
    joined->pkt_len = len;
    if (joined != rest) {
        pkt_free(pool, rest);
    }
    return joined;
}

bool
gtx_frame_divide(struct pkt_pool *pool, struct rte_mbuf *m, struct rte_mbuf **rest,
                 const struct frame_layout *whole)
{
    uint16_t headers = whole->payload, room = m->data_len - headers, n = room / m->tso_segsz;
    uint32_t kept = (uint32_t)n * m->tso_segsz, total = whole->l3_end - headers;
    struct frame_layout l = *whole;
    struct rte_mbuf *second = join_rest(pool, m, *rest, headers, room - kept);

    if (!second) {
        return false;
    }
    *rest = second;
    second->ol_flags |= m->ol_flags;
    second->tx_offload = m->tx_offload;
    gso_part_headers(rte_pktmbuf_mtod(second, uint8_t *), &l,
                     &(struct gso_part){kept, total - kept, n, true});
    if (total - kept <= m->tso_segsz) {
        second->ol_flags &= ~RTE_MBUF_F_TX_TCP_SEG;
        second->tso_segsz = 0;
    }
    l = *whole;
    gso_part_headers(rte_pktmbuf_mtod(m, uint8_t *), &l, &(struct gso_part){0, kept, 0, false});
    m->data_len = headers + kept;
    m->pkt_len = headers + kept;
    return true;
}
