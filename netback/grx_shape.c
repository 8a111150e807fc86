/* grx_shape: see grx_shape.h. */
#include "grx_shape.h"

#include <netinet/in.h>

#include "ring_priv.h"

static bool
wants_checksum(const struct rte_mbuf *m)
{
    uint64_t l4 = m->ol_flags & RTE_MBUF_F_TX_L4_MASK;

    return l4 == RTE_MBUF_F_TX_TCP_CKSUM || l4 == RTE_MBUF_F_TX_UDP_CKSUM ||
           (m->ol_flags & RTE_MBUF_F_TX_TCP_SEG);
}

/* True if the guest fills in checksums itself. */
static bool
takes_blank(const struct guest_features *f, const struct frame_layout *l)
{
    return l->ip_version == 4 ? f->csum_blank_v4 : f->csum_blank_v6;
}

static bool
takes_gso(const struct guest_features *f, const struct frame_layout *l)
{
    return f->sg && takes_blank(f, l) && (l->ip_version == 4 ? f->gso_tcpv4 : f->gso_tcpv6);
}

/* Decides about a TCP segment larger than a wire segment. */
static void
shape_segment(struct grx_shape *s, const struct rte_mbuf *m, const struct guest_features *f,
              uint16_t mtu)
{
    const struct frame_layout *l = &s->layout;
    /* The frame that the MTU allows; a guest without scatter-gather has one
     * page for it. */
    uint32_t largest = l->l3 + (uint32_t)mtu;
    bool whole = takes_gso(f, l);

    if (!whole && !f->sg) {
        largest = RTE_MIN(largest, HV_PAGE_SIZE);
    }
    if (largest <= l->payload) {
        s->way = GRX_DROP;
        return;
    }
    /* OVS's clones lose the segment size; the MTU then says it. */
    s->mss = largest - l->payload;
    if (m->tso_segsz && m->tso_segsz < s->mss) {
        s->mss = m->tso_segsz;
    }
    if (l->l3_end - l->payload <= s->mss) {
        s->mss = 0;
        return;
    }
    if (whole) {
        s->gso_type = l->ip_version == 4 ? XEN_NETIF_GSO_TYPE_TCPV4 : XEN_NETIF_GSO_TYPE_TCPV6;
        return;
    }
    s->way = GRX_CUT;
    s->blank_cut = takes_blank(f, l);
}

void
grx_shape(struct grx_shape *s, const struct rte_mbuf *m, const struct guest_features *f,
          uint16_t mtu)
{
    *s = (struct grx_shape){.way = GRX_WHOLE};
    if (wants_checksum(m)) {
        const struct frame_layout *l = &s->layout;
        bool sound = frame_parse(rte_pktmbuf_mtod(m, uint8_t *), m->data_len, &s->layout);

        s->layout_valid = sound && l->payload && !l->fragment &&
                          (l->l4_proto == IPPROTO_TCP || l->l4_proto == IPPROTO_UDP);
        if (s->layout_valid) {
            s->flags = NETRXF_data_validated;
            s->flags |= takes_blank(f, l) ? NETRXF_csum_blank : 0;
        }
        if (s->layout_valid && l->l4_proto == IPPROTO_TCP &&
            (m->ol_flags & RTE_MBUF_F_TX_TCP_SEG)) {
            shape_segment(s, m, f, mtu);
        }
    } else if ((m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD) {
        s->flags = NETRXF_data_validated;
    }
    if (unlikely(m->nb_segs != 1)) {
        s->way = GRX_DROP;
    }
    if (s->way == GRX_WHOLE && !s->mss &&
        (m->data_len > mtu + FRAME_OVERHEAD || (!f->sg && m->data_len > HV_PAGE_SIZE))) {
        s->way = GRX_DROP;
    }
}

bool
grx_shape_apply(const struct grx_shape *s, struct rte_mbuf *m)
{
    uint8_t *frame = rte_pktmbuf_mtod(m, uint8_t *);

    if (!s->layout_valid) {
        return false;
    }
    if (s->flags & NETRXF_csum_blank) {
        csum_set_pseudo(frame, &s->layout);
        return false;
    }
    return csum_fill(frame, &s->layout);
}
