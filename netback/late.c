#include "late.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include <rte_mbuf.h>

#include "bytes.h"
#include "offload.h"

#define FRAME_MIN 14u

static bool
is_l4(const struct frame_layout *l)
{
    return l->payload && !l->fragment && (l->l4_proto == IPPROTO_TCP || l->l4_proto == IPPROTO_UDP);
}

size_t
late_encode(const struct rte_mbuf *m, uint8_t *buf)
{
    const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
    uint64_t l4 = m->ol_flags & RTE_MBUF_F_TX_L4_MASK;
    bool gso = m->ol_flags & RTE_MBUF_F_TX_TCP_SEG;
    struct frame_layout l;
    uint8_t flags = 0;

    if (m->nb_segs != 1 || m->data_len < FRAME_MIN || m->data_len > NETBACK_FRAME_MAX) {
        return 0;
    }
    if (gso || l4 == RTE_MBUF_F_TX_TCP_CKSUM || l4 == RTE_MBUF_F_TX_UDP_CKSUM) {
        /* A wish that the frame cannot have is nobody's, as on the way to the guest. */
        if (frame_parse(frame, m->data_len, &l) && is_l4(&l)) {
            flags = LATE_SUM_BLANK;
            flags |= gso && m->tso_segsz && l.l4_proto == IPPROTO_TCP ? LATE_GSO : 0;
        }
    } else if ((m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD) {
        flags = LATE_SUM_GOOD;
    }
    buf[0] = LATE_VERSION;
    buf[1] = flags;
    put_le16(buf + 2, flags & LATE_GSO ? m->tso_segsz : 0);
    put_le32(buf + 4, m->data_len);
    memcpy(buf + LATE_HEADER, frame, m->data_len);
    return LATE_HEADER + m->data_len;
}

size_t
late_check(const uint8_t *msg, size_t len)
{
    struct frame_layout l;
    size_t frame_len;

    if (len < LATE_HEADER + FRAME_MIN || len > LATE_MAX) {
        return 0;
    }
    frame_len = len - LATE_HEADER;
    if (msg[0] != LATE_VERSION || msg[1] & ~(LATE_SUM_GOOD | LATE_SUM_BLANK | LATE_GSO) ||
        get_le32(msg + 4) != frame_len || !(msg[1] & LATE_GSO) != !get_le16(msg + 2)) {
        return 0;
    }
    if (msg[1] & LATE_SUM_GOOD && msg[1] != LATE_SUM_GOOD) {
        return 0;
    }
    if (msg[1] & (LATE_SUM_BLANK | LATE_GSO) &&
        (!(msg[1] & LATE_SUM_BLANK) || !frame_parse(msg + LATE_HEADER, frame_len, &l) ||
         !is_l4(&l) || (msg[1] & LATE_GSO && l.l4_proto != IPPROTO_TCP))) {
        return 0;
    }
    return frame_len;
}

int
late_decode(const uint8_t *msg, size_t frame_len, struct rte_mbuf *m)
{
    struct frame_layout l;
    char *frame = rte_pktmbuf_append(m, frame_len);

    if (!frame) {
        return EMSGSIZE;
    }
    memcpy(frame, msg + LATE_HEADER, frame_len);
    m->ol_flags = 0;
    if (msg[1] & LATE_SUM_GOOD) {
        m->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    }
    if (msg[1] & LATE_SUM_BLANK && frame_parse((uint8_t *)frame, frame_len, &l)) {
        m->l2_len = l.l3;
        m->l3_len = l.l4 - l.l3;
        m->l4_len = l.payload - l.l4;
        m->ol_flags = l.l4_proto == IPPROTO_TCP ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM;
        m->ol_flags |= l.ip_version == 4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6;
    }
    if (msg[1] & LATE_GSO) {
        m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
        m->tso_segsz = get_le16(msg + 2);
    }
    return 0;
}
