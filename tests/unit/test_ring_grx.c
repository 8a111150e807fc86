/* Guest receive, friendly guest: bytes, slots, flags, extras, cutting and
 * summing for guests that lack features, waiting for buffers. */
#include <errno.h>
#include <string.h>

#include "check.h"
#include "offload.h"
#include "ring_guest.h"

static struct ring_guest g;
static struct guest_packet got;
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

static int
burst(struct rte_mbuf **m, unsigned n)
{
    bool notify = false;

    return grx_burst(&g.grx, m, n, &notify);
}

static bool
got_is(const void *bytes, uint32_t len)
{
    return !got.malformed && !got.error && got.len == len && !memcmp(got.data, bytes, len);
}

/* A TCP segment as a guest's GSO packet arrives from the switch. */
static struct rte_mbuf *
gso_mbuf(const struct frame_spec *spec, uint16_t segsz, uint32_t *len)
{
    *len = frame_build(frame, spec);
    struct rte_mbuf *m = guest_mbuf(&g, frame, *len);

    m->ol_flags = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM |
                  (spec->v6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4);
    m->tso_segsz = segsz;
    return m;
}

static void
test_plain(bool mapped)
{
    unsigned sizes[] = {14, 60, 64, 1514, 1522, 4095, 4096, 4097, 8192, 9018, 9022};
    struct rte_mbuf *m[11];

    begin(mapped ? "grx/plain/static" : "grx/plain");
    CHECK(!mapped || guest_map_all(&g));
    atomic_store(&g.port.mtu, 9000);
    for (unsigned i = 0; i < sizeof frame; i++) {
        frame[i] = i * 7 + (i >> 8);
    }
    guest_rx_offer(&g, 200);
    for (unsigned i = 0; i < 11; i++) {
        m[i] = guest_mbuf(&g, frame + i, sizes[i]);
    }
    m[3]->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    unsigned copies = g.hv->copies;
    CHECK(burst(m, 11) == 11);
    CHECK(g.hv->copies - copies == !mapped);
    for (unsigned i = 0; i < 11; i++) {
        CHECK(guest_rx_packet(&g, &got));
        CHECK(got_is(frame + i, sizes[i]));
        CHECK(got.n_slots == (sizes[i] + 4095) / 4096);
        unsigned flags =
            (i == 3 ? NETRXF_data_validated : 0) | (got.n_slots > 1 ? NETRXF_more_data : 0);
        CHECK(got.flags == flags);
    }
    CHECK(!guest_rx_packet(&g, &got));
    CHECK(STAT_GET(g.stats.tx_packets) == 11);
    end();
}

static void
test_poison_stays(void)
{
    begin("grx/nothing but the frame is written");
    guest_rx_offer(&g, 2);
    memset(frame, 0x11, 100);
    struct rte_mbuf *m = guest_mbuf(&g, frame, 100);
    CHECK(burst(&m, 1) == 1);
    for (unsigned i = 100; i < 4096; i++) {
        CHECK(g.rx_page[0][i] == GUEST_POISON && g.rx_page[1][i] == GUEST_POISON);
    }
    const uint8_t *slot = (const uint8_t *)&g.rx.sring->ring[0];
    CHECK(!memcmp(slot, "\0\0\0\0\0\0\x64\0", 8));
    end();
}

static void
test_gso(bool v6, unsigned payload)
{
    struct frame_spec spec = {.v6 = v6, .payload = payload, .blank = true, .seq = 9};
    uint32_t len;
    struct rte_mbuf *m = gso_mbuf(&spec, 1400, &len);
    unsigned slots = (len + 4095) / 4096 + 1;

    guest_rx_offer(&g, slots - 1);
    CHECK(grx_slots_needed(&g.grx, m) == slots && grx_slots(&g.grx) == (int)slots - 1);
    CHECK(burst(&m, 1) == 0);
    CHECK(!grx_arm(&g.grx, slots));
    CHECK(g.rx.sring->req_event == g.rx.req_prod_pvt + 1);
    guest_rx_offer(&g, 1);
    CHECK(grx_arm(&g.grx, slots));
    CHECK(burst(&m, 1) == 1);
    CHECK(guest_rx_packet(&g, &got) && got_is(frame, len));
    CHECK(got.flags & NETRXF_csum_blank && got.flags & NETRXF_data_validated);
    CHECK(got.gso.type == XEN_NETIF_EXTRA_TYPE_GSO && got.gso.u.gso.size == 1400);
    CHECK(got.gso.u.gso.type == (v6 ? XEN_NETIF_GSO_TYPE_TCPV6 : XEN_NETIF_GSO_TYPE_TCPV4));
    CHECK(got.n_slots == slots && grx_slots(&g.grx) == 0);
}

static void
test_gso_whole(void)
{
    begin("grx/GSO passes whole");
    test_gso(false, 1401);
    test_gso(true, 1401);
    test_gso(false, 20000);
    test_gso(true, NETBACK_FRAME_MAX - 74);
    test_gso(false, NETBACK_FRAME_MAX - 54);
    /* A clone has lost its segment size. */
    guest_rx_offer(&g, 20);
    uint32_t len;
    struct rte_mbuf *m = gso_mbuf(&(struct frame_spec){.payload = 5000, .blank = true}, 0, &len);
    CHECK(burst(&m, 1) == 1 && guest_rx_packet(&g, &got) && got.gso.u.gso.size == 1460);
    /* One segment is no GSO. */
    m = gso_mbuf(&(struct frame_spec){.payload = 1000, .blank = true}, 1400, &len);
    CHECK(burst(&m, 1) == 1 && guest_rx_packet(&g, &got) && got.gso.type == 0);
    CHECK(got.flags == (NETRXF_csum_blank | NETRXF_data_validated));
    end();
}

/* Receives all segments of what 'm' becomes, 'offer' buffers at a time. */
static void
take_cut(struct rte_mbuf *m, unsigned payload, unsigned mss, unsigned offer, bool blank)
{
    uint32_t seq = 5;
    unsigned n = 0, turns = 0;
    int done = 0;

    while (!done && turns++ < 5000) {
        unsigned space = 256 - (g.rx.req_prod_pvt - g.rx.rsp_cons);
        guest_rx_offer(&g, offer < space ? offer : space);
        done = burst(&m, 1);
        CHECK(done || grx_slots_needed(&g.grx, m) > (unsigned)grx_slots(&g.grx));
        while (guest_rx_packet(&g, &got)) {
            struct frame_layout l;
            CHECK(!got.malformed && !got.error && !got.gso.type);
            CHECK(frame_parse(got.data, got.len, &l));
            CHECK((got.flags & NETRXF_csum_blank) == (blank ? NETRXF_csum_blank : 0));
            CHECK(got.flags & NETRXF_data_validated);
            CHECK(!blank || csum_fill(got.data, &l));
            CHECK(frame_sound(got.data, got.len) && got.len - l.payload <= mss);
            const uint8_t *t = got.data + l.l4;
            CHECK(((uint32_t)t[4] << 24 | t[5] << 16 | t[6] << 8 | t[7]) == seq);
            CHECK(((t[13] & 9) == 9) == (seq + (got.len - l.payload) == 5 + payload));
            CHECK(((t[13] & 0x80) != 0) == (n == 0));
            for (unsigned i = l.payload; i < got.len; i++) {
                CHECK(got.data[i] == (uint8_t)((seq + i - l.payload) * 31 >> 3));
            }
            CHECK(l.ip_version == 6 ||
                  (got.data[l.l3 + 4] << 8 | got.data[l.l3 + 5]) == 0x1234 + n);
            seq += got.len - l.payload;
            n++;
        }
    }
    CHECK(done == 1 && seq == 5 + payload && n == (payload + mss - 1) / mss);
}

static void
test_cut(void)
{
    begin("grx/guest without GSO or checksums: cut, summed, resumed");
    g.port.features = (struct guest_features){.sg = true};
    for (unsigned blank = 0; blank < 2; blank++) {
        g.port.features.csum_blank_v4 = g.port.features.csum_blank_v6 = blank;
        for (unsigned v6 = 0; v6 < 2; v6++) {
            unsigned offers[] = {1, 3, 17, 60};
            for (unsigned k = 0; k < 4; k++) {
                uint32_t len;
                struct frame_spec spec = {
                    .v6 = v6, .payload = 60000, .blank = true, .seq = 5, .tcp_flags = 0x99};
                struct rte_mbuf *m = gso_mbuf(&spec, 1400, &len);
                take_cut(m, 60000, 1400, offers[k], blank);
            }
        }
    }
    /* The last segment of a packet cut in turns passes whole. */
    CHECK(STAT_GET(g.stats.segments_cut) > 16 * 42);
    CHECK(STAT_GET(g.stats.csum_computed) >= 8 * 42);
    uint32_t len; /* more segments than the ring has slots */
    struct rte_mbuf *m =
        gso_mbuf(&(struct frame_spec){.payload = 60000, .blank = true, .seq = 5, .tcp_flags = 0x99},
                 48, &len);
    take_cut(m, 60000, 48, 256, true);
    end();
}

static void
test_cut_many_turns(void)
{
    begin("grx/no scatter-gather: segments fit a page, jumbo MTU");
    g.port.features = (struct guest_features){.csum_blank_v4 = true};
    atomic_store(&g.port.mtu, 9000);
    uint32_t len;
    struct frame_spec spec = {.payload = 30000, .blank = true, .seq = 5, .tcp_flags = 0x99};
    struct rte_mbuf *m = gso_mbuf(&spec, 8900, &len);
    take_cut(m, 30000, 4096 - 54, 2, true);
    m = guest_mbuf(&g, frame, 4097);
    guest_rx_offer(&g, 4);
    CHECK(burst(&m, 1) == 1 && !guest_rx_packet(&g, &got));
    CHECK(STAT_GET(g.stats.drops[DROP_GRX_TOO_LONG]) == 1);
    end();
}

static void
test_checksums(void)
{
    begin("grx/blank checksums filled or passed on");
    for (unsigned k = 0; k < 8; k++) {
        bool v6 = k & 1, udp = k & 2, takes = k & 4;
        struct frame_spec spec = {.v6 = v6, .udp = udp, .payload = 333, .blank = true};
        uint32_t len = frame_build(frame, &spec);
        struct rte_mbuf *m = guest_mbuf(&g, frame, len);
        struct frame_layout l;

        m->ol_flags = udp ? RTE_MBUF_F_TX_UDP_CKSUM : RTE_MBUF_F_TX_TCP_CKSUM;
        /* Rewritten addresses leave a pseudo-header sum behind that is wrong. */
        rte_pktmbuf_mtod(m, uint8_t *)[v6 ? 14 + 39 : 14 + 19] ^= 0x55;
        if (!v6) {
            uint8_t *ip = rte_pktmbuf_mtod(m, uint8_t *) + 14;
            memset(ip + 10, 0, 2);
            uint16_t sum = csum_fold(csum_add(0, ip, 20));
            memcpy(ip + 10, &sum, 2);
        }
        g.port.features.csum_blank_v4 = g.port.features.csum_blank_v6 = takes;
        guest_rx_offer(&g, 1);
        CHECK(burst(&m, 1) == 1 && guest_rx_packet(&g, &got) && got.len == len);
        CHECK(got.flags ==
              (takes ? NETRXF_csum_blank | NETRXF_data_validated : NETRXF_data_validated));
        CHECK(frame_parse(got.data, len, &l));
        if (takes) { /* what a device does with the field: sum from the transport header on */
            unsigned at = l.l4 + (udp ? 6 : 16);
            uint16_t sum = csum_fold(csum_add(0, got.data + l.l4, l.l3_end - l.l4));
            memcpy(got.data + at, &sum, 2);
        }
        CHECK(frame_sound(got.data, len));
    }
    CHECK(STAT_GET(g.stats.csum_computed) == 4 && STAT_GET(g.stats.tx_csum_blank) == 4);
    end();
}

static void
test_hash_extra(void)
{
    uint8_t key[40];

    begin("grx/hash extra, behind a GSO extra too");
    for (unsigned i = 0; i < 40; i++) {
        key[i] = i * 11 + 3;
    }
    memcpy(g.scratch_page, key, 40);
    CHECK(guest_ctrl(&g, XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM, 1, 0, 0).status == 0);
    CHECK(guest_ctrl(&g, XEN_NETIF_CTRL_TYPE_SET_HASH_KEY, g.scratch_ref, 40, 0).status == 0);
    CHECK(guest_ctrl(&g, XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS, 15, 0, 0).status == 0);
    for (unsigned k = 0; k < 4; k++) {
        bool v6 = k & 1, gso = k & 2;
        uint32_t len, hash;
        struct frame_spec spec = {.v6 = v6, .payload = gso ? 5000 : 1000, .blank = true};
        struct rte_mbuf *m = gso_mbuf(&spec, 1400, &len);
        unsigned needed = grx_slots_needed(&g.grx, m);
        guest_rx_offer(&g, needed);
        CHECK(burst(&m, 1) == 1 && guest_rx_packet(&g, &got) && got_is(frame, len));
        CHECK(got.n_slots == needed && (got.gso.type != 0) == gso);
        int type = hash_frame(&g.hash, frame, len, &hash);
        CHECK(got.hash.u.hash.type == type && got.hash.u.hash.algorithm == 1);
        CHECK(type ==
              (v6 ? _XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP : _XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP));
        CHECK(!memcmp(got.hash.u.hash.value, &hash, 4));
    }
    end();
}

static void
test_drops(void)
{
    begin("grx/too long, bad grants, multi-segment");
    guest_rx_offer(&g, 8);
    struct rte_mbuf *m[4] = {guest_mbuf(&g, frame, 1523), guest_mbuf(&g, frame, 60),
                             guest_mbuf(&g, frame, 61), guest_mbuf(&g, frame, 62)};
    m[1]->next = pkt_alloc(&g.pool, 9);
    m[1]->nb_segs = 2;
    CHECK(fake_revoke(g.hv, g.rx_ref[0]) == 0);
    CHECK(burst(m, 4) == 4);
    CHECK(STAT_GET(g.stats.drops[DROP_GRX_TOO_LONG]) == 2);
    CHECK(STAT_GET(g.stats.drops[DROP_GRX_BAD_GRANT]) == 1);
    CHECK(guest_rx_packet(&g, &got) && got.error && !got.malformed);
    CHECK(guest_rx_packet(&g, &got) && got_is(frame, 62));
    CHECK(STAT_GET(g.stats.tx_packets) == 1 && STAT_GET(g.stats.tx_bytes) == 62);
    /* A segment whose headers alone pass the MTU, and one nobody may cut. */
    uint32_t len;
    struct rte_mbuf *odd = gso_mbuf(&(struct frame_spec){.v6 = true, .payload = 900}, 100, &len);
    atomic_store(&g.port.mtu, 60);
    CHECK(grx_slots_needed(&g.grx, odd) == 1 && burst(&odd, 1) == 1);
    atomic_store(&g.port.mtu, 1500);
    g.port.features.gso_tcpv4 = false;
    odd = gso_mbuf(&(struct frame_spec){.payload = 3000, .tcp_flags = 2}, 1000, &len);
    CHECK(burst(&odd, 1) == 1 && STAT_GET(g.stats.drops[DROP_GRX_TOO_LONG]) == 4);
    /* One bad page of several spoils the packet, not its neighbours. */
    atomic_store(&g.port.mtu, 9000);
    CHECK(fake_revoke(g.hv, g.rx_ref[4]) == 0);
    m[0] = guest_mbuf(&g, frame, 9000);
    m[1] = guest_mbuf(&g, frame, 63);
    CHECK(burst(m, 2) == 2);
    CHECK(guest_rx_packet(&g, &got) && got.error && !got.malformed && got.n_slots == 3);
    CHECK(guest_rx_packet(&g, &got) && got_is(frame, 63));
    end();
}

static void
test_batches(void)
{
    struct rte_mbuf *m[64];

    begin("grx/batches, notification, resume");
    guest_rx_offer(&g, 100);
    for (unsigned i = 0; i < 64; i++) {
        m[i] = guest_mbuf(&g, frame, 60 + i);
    }
    g.rx.sring->rsp_event = 65;
    bool notify = false;
    CHECK(grx_burst(&g.grx, m, 64, &notify) == 64 && !notify && g.hv->copies == 1);
    m[0] = guest_mbuf(&g, frame, 200);
    CHECK(guest_reattach(&g) == 0);
    CHECK(grx_burst(&g.grx, m, 1, &notify) == 1 && notify);
    for (unsigned i = 0; i < 65; i++) {
        CHECK(guest_rx_packet(&g, &got) && got_is(frame, i < 64 ? 60 + i : 200));
    }
    CHECK(grx_slots(&g.grx) == 35);
    end();
}

static void
test_no_buffers_to_cut(void)
{
    static struct rte_mbuf *hold[4096];
    unsigned n = 0;
    uint32_t len;

    begin("grx/buffers exhausted while cutting");
    g.port.features.gso_tcpv4 = false;
    struct rte_mbuf *m = gso_mbuf(&(struct frame_spec){.payload = 9000, .blank = true}, 1400, &len);
    while ((hold[n] = pkt_alloc(&g.pool, 100))) {
        n++;
    }
    guest_rx_offer(&g, 20);
    CHECK(burst(&m, 1) == 1);
    CHECK(STAT_GET(g.stats.drops[DROP_GRX_NO_BUFFER]) == 1);
    pkt_free_bulk(&g.pool, hold, n);
    end();
}

int
main(void)
{
    test_plain(false);
    test_plain(true);
    test_poison_stays();
    test_gso_whole();
    test_cut();
    test_cut_many_turns();
    test_checksums();
    test_hash_extra();
    test_drops();
    test_batches();
    test_no_buffers_to_cut();
    return check_done();
}
