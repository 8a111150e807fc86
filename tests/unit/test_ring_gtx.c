/* Guest transmit, friendly guest: bytes, offloads, sizes, answers, notification,
 * rate limit, and resuming after our own death. */
#include <errno.h>
#include <string.h>

#include "check.h"
#include "offload.h"
#include "ring_guest.h"

static struct ring_guest g;
static struct rte_mbuf *pkts[64];
static uint8_t frame[70000];

static void
begin(const char *name)
{
    CASE(name);
    guest_init(&g);
}

static void
end(void)
{
    guest_done(&g);
    CHECK(ring_buffers_lost() == 0);
}

static bool
same(const struct rte_mbuf *m, const void *bytes, uint32_t len)
{
    return m->data_len == len && m->pkt_len == len && m->nb_segs == 1 &&
           m->data_off >= NETBACK_HEADROOM && !memcmp(rte_pktmbuf_mtod(m, void *), bytes, len);
}

static void
test_plain(bool mapped)
{
    begin(mapped ? "gtx/plain/static" : "gtx/plain");
    CHECK(!mapped || guest_map_all(&g));
    unsigned sizes[] = {14, 60, 64, 65, 1000, 1514, 1522};
    for (unsigned i = 0; i < 7; i++) {
        uint32_t len = frame_build(frame, &(struct frame_spec){.udp = true, .payload = 1480});
        len = sizes[i];
        guest_tx_frame(&g, frame, len, 0, NULL, 4096);
    }
    unsigned copies = g.hv->copies;
    CHECK(guest_gtx_burst(&g, pkts) == 7);
    for (unsigned i = 0; i < 7; i++) {
        CHECK(same(pkts[i], frame, sizes[i]));
        CHECK(pkts[i]->ol_flags == 0);
    }
    pkt_free_bulk(&g.pool, pkts, 7);
    CHECK(guest_tx_responses(&g, NETIF_RSP_OKAY) == 7);
    CHECK(g.hv->copies - copies == !mapped); /* one call for the burst, or none */
    CHECK(STAT_GET(g.stats.static_copies) == (mapped ? 7 : 0));
    CHECK(STAT_GET(g.stats.rx_packets) == 7 && STAT_GET(g.stats.rx_bytes) == 4239);
    CHECK(!gtx_pending(&g.gtx) && !gtx_arm(&g.gtx));
    end();
}

static void
test_split_everywhere(void)
{
    unsigned per_slot[] = {1, 7, 13, 14, 33, 100, 4096};

    begin("gtx/headers split at any byte");
    for (unsigned v6 = 0; v6 < 2; v6++) {
        for (unsigned k = 0; k < 7; k++) {
            unsigned headers = v6 ? 74 : 54;
            unsigned most = per_slot[k] * XEN_NETIF_NR_SLOTS_MIN;
            unsigned payload = most < headers + 1 ? 0 : most > 1000 ? 900 : most - headers - 1;
            uint32_t len = frame_build(
                frame, &(struct frame_spec){.v6 = v6, .payload = payload, .blank = true});
            bool fits = len <= most;
            guest_tx_frame(&g, frame, len, NETTXF_csum_blank, NULL, per_slot[k]);
            int n = guest_gtx_burst(&g, pkts);
            CHECK(n == fits);
            if (n == 1) {
                CHECK(same(pkts[0], frame, len));
                CHECK((pkts[0]->ol_flags & RTE_MBUF_F_TX_L4_MASK) == RTE_MBUF_F_TX_TCP_CKSUM);
                CHECK(pkts[0]->l2_len == 14 && pkts[0]->l4_len == 20);
                CHECK(pkts[0]->l3_len == (v6 ? 40 : 20));
                pkt_free(&g.pool, pkts[0]);
            }
            while (gtx_pending(&g.gtx)) {
                CHECK(guest_gtx_burst(&g, pkts) == 0); /* the rest of an overlong chain */
            }
            guest_tx_responses(&g, 0);
            CHECK(g.tx.rsp_cons == g.tx.req_prod_pvt);
        }
    }
    end();
}

static void
test_offload_flags(void)
{
    begin("gtx/offload flags");
    uint32_t len = frame_build(frame, &(struct frame_spec){.udp = true, .payload = 100, .tags = 2});
    guest_tx_frame(&g, frame, len, NETTXF_csum_blank | NETTXF_data_validated, NULL, 4096);
    guest_tx_frame(&g, frame, len, NETTXF_data_validated, NULL, 4096);
    len = frame_build(frame, &(struct frame_spec){.v6 = true, .payload = 100});
    guest_tx_frame(&g, frame, len, NETTXF_csum_blank, NULL, 4096);
    CHECK(guest_gtx_burst(&g, pkts) == 3);
    CHECK(pkts[0]->ol_flags == (RTE_MBUF_F_TX_UDP_CKSUM | RTE_MBUF_F_TX_IPV4));
    CHECK(pkts[0]->l2_len == 22 && pkts[0]->l4_len == 8);
    CHECK(pkts[1]->ol_flags == RTE_MBUF_F_RX_L4_CKSUM_GOOD);
    CHECK(pkts[2]->ol_flags == (RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV6));
    CHECK(STAT_GET(g.stats.rx_csum_blank) == 2);
    pkt_free_bulk(&g.pool, pkts, 3);
    end();
}

/* The frame's segments, by the software that ports without TSO use. */
static bool
segments_add_up(const struct rte_mbuf *m, uint16_t wire_mss, uint32_t *seq, uint16_t *id,
                unsigned *n_segs)
{
    static uint8_t out[70000];
    struct gso_iter it;
    size_t len;

    const uint8_t *f = rte_pktmbuf_mtod(m, const uint8_t *);
    uint16_t mss = m->tso_segsz ? m->tso_segsz : wire_mss;
    if (!gso_begin(&it, f, m->data_len, mss, GSO_TUNNEL_NONE, 0, false)) {
        return false;
    }
    while ((len = gso_next(&it, out, sizeof out))) {
        unsigned l4 = it.inner.l4, payload = it.inner.payload;
        uint32_t at =
            (uint32_t)out[l4 + 4] << 24 | out[l4 + 5] << 16 | out[l4 + 6] << 8 | out[l4 + 7];
        if (!frame_sound(out, len) || at != *seq) {
            return false;
        }
        for (unsigned i = 0; i < len - payload; i++) {
            if (out[payload + i] != (uint8_t)((at + i) * 31 >> 3)) {
                return false;
            }
        }
        if (it.inner.ip_version == 4 && (out[it.inner.l3 + 4] << 8 | out[it.inner.l3 + 5]) != *id) {
            return false;
        }
        *seq += len - payload;
        (*id)++;
        (*n_segs)++;
    }
    return true;
}

static void
test_gso(unsigned payload, uint16_t mss, bool v6, unsigned burst)
{
    netif_extra_info_t e = guest_gso(v6 ? XEN_NETIF_GSO_TYPE_TCPV6 : XEN_NETIF_GSO_TYPE_TCPV4, mss);
    uint32_t seq = 77, len;
    unsigned n_segs = 0, n_pkts = 0;
    uint16_t id = 0x1234;

    /* FIN, PSH and CWR must end up on the right parts. */
    len = frame_build(
        frame, &(struct frame_spec){.v6 = v6, .payload = payload, .seq = 77, .tcp_flags = 0x99});
    guest_tx_frame(&g, frame, len, NETTXF_csum_blank | NETTXF_data_validated, &e, 4096);
    while (gtx_pending(&g.gtx)) {
        bool notify = false;
        int n = gtx_burst(&g.gtx, pkts, burst, &notify);
        CHECK(n >= 0 && n <= (int)burst);
        for (int i = 0; i < n; i++, n_pkts++) {
            const uint8_t *f = rte_pktmbuf_mtod(pkts[i], uint8_t *);
            uint8_t flags = f[(v6 ? 54 : 34) + 13];
            bool last = seq + (pkts[i]->data_len - (v6 ? 74 : 54)) == 77 + payload;
            CHECK(pkts[i]->data_len <= NETBACK_FRAME_MAX && pkts[i]->data_off >= NETBACK_HEADROOM);
            CHECK(((flags & 0x80) != 0) == (seq == 77) && ((flags & 0x09) == 0x09) == last);
            CHECK(segments_add_up(pkts[i], mss, &seq, &id, &n_segs));
            pkt_free(&g.pool, pkts[i]);
        }
    }
    CHECK(n_pkts == 1u + (len > NETBACK_FRAME_MAX));
    CHECK(seq == 77 + payload && n_segs == (payload + mss - 1) / mss);
    guest_tx_responses(&g, 0);
    CHECK(g.tx.rsp_cons == g.tx.req_prod_pvt);
}

static void
test_gso_sizes(void)
{
    begin("gtx/GSO, large frames divided");
    atomic_store(&g.port.mtu, 9000);
    for (unsigned v6 = 0; v6 < 2; v6++) {
        unsigned max = 65535 - (v6 ? 74 : 54);
        test_gso(1449, 1448, v6, 64);
        test_gso(max, 1448, v6, 64);
        test_gso(max, 1448, v6, 1);
        test_gso(max, 48, v6, 1);
        test_gso(max, 8940, v6, 2);
        test_gso(NETBACK_FRAME_MAX - (v6 ? 74 : 54), 1448, v6, 1);
        test_gso(NETBACK_FRAME_MAX - (v6 ? 74 : 54) + 1, 1448, v6, 1);
    }
    atomic_store(&g.port.mtu, 65000);
    test_gso(65535 - 54, 64900, false, 64);
    test_gso(65535 - 54, 40000, false, 64);
    end();
}

static void
test_answers(void)
{
    netif_extra_info_t e = guest_gso(XEN_NETIF_GSO_TYPE_TCPV4, 1448);
    netif_tx_response_t rsp;

    begin("gtx/answers: ids, extras, every byte");
    uint32_t len = frame_build(frame, &(struct frame_spec){.payload = 9000});
    guest_tx_frame(&g, frame, len, NETTXF_csum_blank, &e, 4096);
    CHECK(guest_gtx_burst(&g, pkts) == 1);
    pkt_free(&g.pool, pkts[0]);
    const uint8_t *slots = (const uint8_t *)g.tx.sring->ring;
    for (unsigned i = 0; guest_tx_response(&g, &rsp); i++) {
        int16_t want = i == 1 ? NETIF_RSP_NULL : NETIF_RSP_OKAY;
        CHECK(rsp.status == want && (i == 1 || rsp.id == i));
        for (unsigned b = 4; b < 12; b++) {
            CHECK(slots[12 * i + b] == 0);
        }
    }
    CHECK(g.tx.rsp_cons == 4);
    end();
}

static void
test_partial(void)
{
    bool notify = false;

    begin("gtx/partial packets wait");
    memset(g.tx_page[0], 2, 4096);
    guest_tx_slot(&g, g.tx_ref[0], 0, 300, NETTXF_more_data);
    guest_tx_push(&g);
    CHECK(gtx_pending(&g.gtx));
    CHECK(guest_gtx_burst(&g, pkts) == 0);
    CHECK(!gtx_pending(&g.gtx) && !gtx_arm(&g.gtx));
    CHECK(g.tx.sring->rsp_prod == 0);
    guest_tx_slot(&g, g.tx_ref[0], 0, 100, NETTXF_more_data);
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&g.tx, notify);
    CHECK(notify && gtx_pending(&g.gtx)); /* the event is armed past what was seen */
    CHECK(guest_gtx_burst(&g, pkts) == 0);
    guest_tx_slot(&g, g.tx_ref[0], 0, 100, 0);
    guest_tx_push(&g);
    CHECK(guest_gtx_burst(&g, pkts) == 1);
    CHECK(pkts[0]->data_len == 300);
    pkt_free(&g.pool, pkts[0]);
    CHECK(guest_tx_responses(&g, NETIF_RSP_OKAY) == 3);
    end();
}

static void
test_notify(void)
{
    bool notify = false;

    begin("gtx/notification only when asked for");
    memset(g.tx_page[0], 2, 64);
    g.tx.sring->rsp_event = 3;
    for (unsigned i = 1; i <= 4; i++) {
        guest_tx_slot(&g, g.tx_ref[0], 0, 64, 0);
        guest_tx_push(&g);
        notify = false;
        CHECK(gtx_burst(&g.gtx, pkts, 64, &notify) == 1);
        CHECK(notify == (i == 3));
        pkt_free(&g.pool, pkts[0]);
    }
    end();
}

static void
test_rate(void)
{
    bool notify = false;
    unsigned sent = 0;

    begin("gtx/rate limit");
    memset(g.tx_page[0], 2, 1000);
    gtx_set_rate(&g.gtx, 10000, 50000); /* 10 packets every 50 ms */
    for (unsigned ms = 0; ms < 1000; ms += 10) {
        while (g.tx.req_prod_pvt - g.tx.rsp_cons < 200) {
            guest_tx_slot(&g, g.tx_ref[0], 0, 1000, 0);
        }
        guest_tx_push(&g);
        int n = gtx_burst(&g.gtx, pkts, 64, &notify);
        pkt_free_bulk(&g.pool, pkts, n);
        sent += n;
        if (ms == 0) {
            uint64_t at = gtx_credit_wait(&g.gtx);
            CHECK(n == 10 && at == g.hv->now_ns + 50000000);
            CHECK(!gtx_pending(&g.gtx) && !gtx_arm(&g.gtx));
            CHECK(STAT_GET(g.stats.rate_limited) == 1);
        }
        guest_tx_responses(&g, 0);
        g.hv->now_ns += 10000000;
    }
    CHECK(sent == 200);
    g.hv->now_ns += 3600000000000ull; /* a long pause earns one burst, no more */
    CHECK(gtx_credit_wait(&g.gtx) == 0 && gtx_pending(&g.gtx));
    unsigned burst = 0;
    for (int n = 1; n > 0; burst += n) {
        while (g.tx.req_prod_pvt - g.tx.rsp_cons < 200) {
            guest_tx_slot(&g, g.tx_ref[0], 0, 1000, 0);
        }
        guest_tx_push(&g);
        n = gtx_burst(&g.gtx, pkts, 64, &notify);
        pkt_free_bulk(&g.pool, pkts, n);
        guest_tx_responses(&g, 0);
    }
    CHECK(burst == 131);
    gtx_set_rate(&g.gtx, 0, 0);
    CHECK(gtx_pending(&g.gtx) && gtx_burst(&g.gtx, pkts, 64, &notify) == 64);
    pkt_free_bulk(&g.pool, pkts, 64);
    gtx_set_rate(&g.gtx, UINT64_MAX, UINT64_MAX);
    CHECK(gtx_burst(&g.gtx, pkts, 64, &notify) == 64);
    pkt_free_bulk(&g.pool, pkts, 64);
    gtx_set_rate(&g.gtx, 1, UINT64_MAX);
    CHECK(gtx_burst(&g.gtx, pkts, 64, &notify) == 0 && gtx_credit_wait(&g.gtx) > g.hv->now_ns);
    end();
}

static void
test_mcast(void)
{
    netif_extra_info_t e = {.type = XEN_NETIF_EXTRA_TYPE_MCAST_ADD,
                            .u.mcast.addr = {1, 0, 0x5e, 0, 0, 0}};

    begin("gtx/multicast list");
    for (unsigned i = 0; i < MCAST_MAX + 2; i++) {
        e.u.mcast.addr[5] = i;
        guest_tx_slot(&g, 0, 0, 0, NETTXF_extra_info);
        guest_tx_extra(&g, &e);
        guest_tx_push(&g);
        CHECK(guest_gtx_burst(&g, pkts) == 0);
        CHECK(guest_tx_responses(&g, i < MCAST_MAX ? NETIF_RSP_OKAY : NETIF_RSP_ERROR) == 1);
    }
    CHECK(mcast_pass(&g.mcast, (uint8_t[6]){1, 0, 0x5e, 0, 0, 99}));
    atomic_store(&g.mcast.enabled, true);
    CHECK(!mcast_pass(&g.mcast, (uint8_t[6]){1, 0, 0x5e, 0, 0, 99}));
    CHECK(mcast_pass(&g.mcast, (uint8_t[6]){1, 0, 0x5e, 0, 0, 7}));
    CHECK(mcast_pass(&g.mcast, (uint8_t[6]){2, 0, 0x5e, 0, 0, 99}));
    CHECK(mcast_pass(&g.mcast, (uint8_t[6]){255, 255, 255, 255, 255, 255}));
    e.type = XEN_NETIF_EXTRA_TYPE_MCAST_DEL;
    e.u.mcast.addr[5] = 7;
    guest_tx_slot(&g, 0, 0, 0, NETTXF_extra_info);
    guest_tx_extra(&g, &e);
    guest_tx_push(&g);
    CHECK(guest_gtx_burst(&g, pkts) == 0 && guest_tx_responses(&g, NETIF_RSP_OKAY) == 1);
    CHECK(!mcast_pass(&g.mcast, (uint8_t[6]){1, 0, 0x5e, 0, 0, 7}));
    CHECK(mcast_del(&g.mcast, (uint8_t[6]){1, 0, 0x5e, 0, 0, 7}) == ENOENT);
    CHECK(mcast_add(&g.mcast, (uint8_t[6]){0}) == EINVAL);
    CHECK(mcast_del(&g.mcast, (uint8_t[6]){0}) == ENOENT);
    CHECK(g.mcast_changes == MCAST_MAX + 1);
    end();
}

static void
test_resume(void)
{
    begin("gtx/resume at rsp_prod, indices wrap");
    g.tx.sring->req_prod = g.tx.sring->rsp_prod = g.tx.rsp_cons = g.tx.req_prod_pvt = 0xffffff00;
    CHECK(guest_reattach(&g) == 0);
    for (unsigned i = 0; i < 600; i++) {
        memset(frame, i, 100);
        guest_tx_frame(&g, frame, 100, 0, NULL, 30);
        if (i % 7 == 3) {
            CHECK(guest_reattach(&g) == 0);
        }
        CHECK(guest_gtx_burst(&g, pkts) == 1);
        CHECK(same(pkts[0], frame, 100));
        pkt_free(&g.pool, pkts[0]);
        CHECK(guest_tx_responses(&g, NETIF_RSP_OKAY) == 4);
    }
    end();
}

static void
test_full_batch(void)
{
    begin("gtx/more slots than one call copies");
    uint32_t len = frame_build(frame, &(struct frame_spec){.payload = 900});
    for (unsigned i = 0; i < 13 + 8; i++) {
        guest_tx_frame(&g, frame, len, 0, NULL, i < 13 ? (len + 17) / 18 : 4096);
    }
    CHECK(g.tx.req_prod_pvt == 13 * 18 + 8);
    CHECK(guest_gtx_burst(&g, pkts) == 21 && g.hv->copies == 2);
    for (unsigned i = 0; i < 21; i++) {
        CHECK(same(pkts[i], frame, len));
    }
    pkt_free_bulk(&g.pool, pkts, 21);
    CHECK(guest_tx_responses(&g, NETIF_RSP_OKAY) == 13 * 18 + 8);
    end();
}

static unsigned n_foreign;

static void
free_foreign(struct rte_mbuf *m)
{
    n_foreign++;
    rte_pktmbuf_free(m);
}

static void
test_buffer_ends(void)
{
    netif_extra_info_t e = guest_gso(XEN_NETIF_GSO_TYPE_TCPV4, 1448);
    bool notify = false;

    begin("gtx/detached with a half handed out; a gone second half; foreign packets");
    struct frame_spec spec = {.payload = 65400};
    uint32_t len = frame_build(frame, &spec);
    guest_tx_frame(&g, frame, len, NETTXF_csum_blank, &e, 4096);
    frame[14 + 20 + 12] = 0x40; /* a lie that shows only after the copy */
    guest_tx_frame(&g, frame, len, NETTXF_csum_blank, &e, 4096);
    CHECK(gtx_burst(&g.gtx, pkts, 1, &notify) == 1);
    CHECK(gtx_pending(&g.gtx) && pkts[0]->data_len < len);
    pkt_free(&g.pool, pkts[0]);
    CHECK(guest_reattach(&g) == 0); /* drops the half that waits */
    CHECK(gtx_burst(&g.gtx, pkts, 64, &notify) == 0);
    CHECK(STAT_GET(g.stats.drops[DROP_GTX_BAD_GSO]) == 1);

    struct rte_mempool *other = rte_pktmbuf_pool_create("other", 4, 0, 0, 512, SOCKET_ID_ANY);
    pkts[0] = rte_pktmbuf_alloc(other);
    pkt_free(&g.pool, pkts[0]);
    g.pool.free_foreign = free_foreign;
    pkts[0] = rte_pktmbuf_alloc(other);
    pkt_free(&g.pool, pkts[0]);
    CHECK(n_foreign == 1 && rte_mempool_full(other));
    rte_mempool_free(other);
    CHECK(!pkt_alloc(&g.pool, NETBACK_FRAME_MAX + 1));
    end();
}

static void
test_exhaustion(void)
{
    static struct rte_mbuf *hold[4096];
    unsigned n = 0;

    begin("gtx/buffers exhausted");
    while ((hold[n] = pkt_alloc(&g.pool, 100))) {
        n++;
    }
    memset(frame, 2, 100);
    guest_tx_frame(&g, frame, 100, 0, NULL, 4096);
    CHECK(guest_gtx_burst(&g, pkts) == 0);
    CHECK(guest_tx_responses(&g, NETIF_RSP_DROPPED) == 1);
    CHECK(STAT_GET(g.stats.drops[DROP_GTX_NO_BUFFER]) == 1);
    /* A large frame's rest has none; then, none for its second part. */
    netif_extra_info_t e = guest_gso(XEN_NETIF_GSO_TYPE_TCPV4, 1449);
    uint32_t len = frame_build(frame, &(struct frame_spec){.payload = 65400});
    guest_tx_frame(&g, frame, len, NETTXF_csum_blank, &e, 4096);
    CHECK(guest_gtx_burst(&g, pkts) == 0);
    pkt_free(&g.pool, hold[--n]);
    struct rte_mbuf *large[256];
    unsigned n_large = 0;
    while (n_large < 256 && (large[n_large] = pkt_alloc(&g.pool, 4000))) {
        n_large++;
    }
    pkt_free(&g.pool, large[--n_large]);
    guest_tx_frame(&g, frame, len, NETTXF_csum_blank, &e, 4096);
    CHECK(guest_gtx_burst(&g, pkts) == 0);
    CHECK(STAT_GET(g.stats.drops[DROP_GTX_NO_BUFFER]) == 3);
    pkt_free_bulk(&g.pool, large, n_large);
    pkt_free_bulk(&g.pool, hold, n);
    pkt_pool_trim(&g.pool);
    CHECK(ring_buffers_lost() == 0);
    end();
}

int
main(void)
{
    test_plain(false);
    test_plain(true);
    test_split_everywhere();
    test_offload_flags();
    test_gso_sizes();
    test_answers();
    test_partial();
    test_notify();
    test_rate();
    test_mcast();
    test_resume();
    test_full_batch();
    test_buffer_ends();
    test_exhaustion();
    return check_done();
}
