/* Hostile guests on the rings: reliability tests 1, 3 to 8 and 10 to 12
 * (2 is test_ring_fetch.c, 9 is in test_ring_ctrl.c).
 *
 * The rule for each: no crash, no leak, nothing held, a named counter, and
 * the next good packet passes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "offload.h"
#include "ring_guest.h"

static struct ring_guest g;
static struct rte_mbuf *pkts[64];
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
    CHECK(g.hv->einval == 0); /* nothing unchecked went to the hypervisor */
    guest_done(&g);
    CHECK(ring_buffers_lost() == 0);
}

/* A good packet still passes, and nothing else does. */
static bool
good_packet_passes(void)
{
    guest_tx_responses(&g, 0);
    memset(frame, 2, 64);
    guest_tx_frame(&g, frame, 64, 0, NULL, 4096);
    int n = guest_gtx_burst(&g, pkts);
    bool passes = n == 1 && pkts[0]->data_len == 64;
    pkt_free_bulk(&g.pool, pkts, n > 0 ? n : 0);
    return passes && guest_tx_responses(&g, NETIF_RSP_OKAY) == 1;
}

/* Runs bursts to the end; true if they gave no packet, 'errors' error responses and
 * one drop under 'reason'. */
static bool
dropped(enum drop_reason reason, unsigned errors)
{
    uint64_t before = STAT_GET(g.stats.drops[reason]);
    int n = 0;

    guest_tx_push(&g);
    while (gtx_pending(&g.gtx) && n == 0) {
        n = guest_gtx_burst(&g, pkts);
    }
    pkt_free_bulk(&g.pool, pkts, n > 0 ? n : 0);
    return n == 0 && guest_tx_responses(&g, NETIF_RSP_ERROR) == errors &&
           g.tx.rsp_cons == g.tx.req_prod_pvt && STAT_GET(g.stats.drops[reason]) == before + 1;
}

static void
test_index_jumps(void)
{
    uint32_t jumps[] = {257, 300, 0x80000000, 0xffffffff, 0xfffffff0};
    bool notify = false;

    begin("1 index jumps: ring is broken at once, for good");
    for (unsigned i = 0; i < 5; i++) {
        CHECK(guest_reattach(&g) == 0);
        g.tx.sring->req_prod = g.gtx.ring.rsp_prod_pvt + jumps[i];
        g.rx.sring->req_prod = g.grx.ring.rsp_prod_pvt + jumps[i];
        CHECK(gtx_pending(&g.gtx));
        CHECK(gtx_burst(&g.gtx, pkts, 64, &notify) == -EPROTO);
        CHECK(grx_slots(&g.grx) == -EPROTO);
        CHECK(grx_arm(&g.grx, 18));
        CHECK(grx_burst(&g.grx, pkts, 0, &notify) == -EPROTO);
        CHECK(!gtx_pending(&g.gtx)); /* no polling for a broken ring */
        CHECK(guest_reattach(&g) == EPROTO);
        g.tx.sring->req_prod = g.gtx.ring.rsp_prod_pvt;
        g.rx.sring->req_prod = 0;
    }
    CHECK(!notify);
    end();

    begin("1 index taken back");
    guest_tx_slot(&g, 1, 0, 100, NETTXF_more_data);
    guest_tx_slot(&g, 1, 0, 10, NETTXF_more_data);
    guest_tx_push(&g);
    CHECK(guest_gtx_burst(&g, pkts) == 0);
    g.tx.sring->req_prod = 1;
    CHECK(guest_gtx_burst(&g, pkts) == -EPROTO);
    g.tx.sring->req_prod = 3;
    CHECK(guest_gtx_burst(&g, pkts) == -EPROTO);
    end();
}

static void
test_sizes(void)
{
    begin("3 sizes and offsets that cannot be");
    memset(g.tx_page[0], 2, 4096);
    uint32_t ref = g.tx_ref[0];
    guest_tx_slot(&g, ref, 4000, 97, 0);
    CHECK(dropped(DROP_GTX_BAD_SLOT, 1));
    guest_tx_slot(&g, ref, 65535, 65535, 0);
    CHECK(dropped(DROP_GTX_TOO_LONG, 1));
    guest_tx_slot(&g, ref, 65535, 100, 0);
    CHECK(dropped(DROP_GTX_BAD_SLOT, 1));
    guest_tx_slot(&g, ref, 0, 0, 0);
    CHECK(dropped(DROP_GTX_TOO_SHORT, 1));
    guest_tx_slot(&g, ref, 0, 13, 0);
    CHECK(dropped(DROP_GTX_TOO_SHORT, 1));
    guest_tx_slot(&g, ref, 0, 1523, 0);
    CHECK(dropped(DROP_GTX_TOO_LONG, 1));
    guest_tx_slot(&g, ref, 0, 100, NETTXF_more_data); /* first size < sum */
    guest_tx_slot(&g, ref, 0, 101, 0);
    CHECK(dropped(DROP_GTX_BAD_SLOT, 2));
    guest_tx_slot(&g, ref, 0, 100, NETTXF_more_data); /* first size == sum */
    guest_tx_slot(&g, ref, 0, 100, 0);
    CHECK(dropped(DROP_GTX_BAD_SLOT, 2));
    guest_tx_slot(&g, ref, 0, 100, NETTXF_more_data); /* 16-bit overflow of the sum */
    guest_tx_slot(&g, ref, 0, 4096, NETTXF_more_data);
    for (unsigned i = 0; i < 14; i++) {
        guest_tx_slot(&g, ref, 0, 4096, NETTXF_more_data);
    }
    guest_tx_slot(&g, ref, 0, 4095, 0);
    CHECK(dropped(DROP_GTX_BAD_SLOT, 17));
    guest_tx_slot(&g, ref, 0, 300, NETTXF_more_data); /* a later slot passes its page */
    guest_tx_slot(&g, ref, 4090, 7, 0);
    CHECK(dropped(DROP_GTX_BAD_SLOT, 2));
    CHECK(good_packet_passes());
    end();
}

/* Revokes the grant of the packet's third slot while the second is copied. */
static void
revoke_later(void *aux, const xengnttab_grant_copy_segment_t *seg)
{
    if (seg->source.foreign.ref == g.tx_ref[1]) {
        fake_revoke(g.hv, g.tx_ref[2]);
    }
}

static void
test_grants(void)
{
    begin("4 bad, revoked and changing grants: error, nothing held");
    guest_tx_slot(&g, 0xdeadbeef, 0, 100, 0);
    CHECK(dropped(DROP_GTX_BAD_GRANT, 1));
    guest_tx_slot(&g, 0, 0, 100, 0);
    CHECK(dropped(DROP_GTX_BAD_GRANT, 1));
    g.hv->before_segment = revoke_later;
    for (unsigned i = 0; i < 4; i++) {
        guest_tx_slot(&g, g.tx_ref[i], 0, i ? 100 : 400, i < 3 ? NETTXF_more_data : 0);
    }
    CHECK(dropped(DROP_GTX_BAD_GRANT, 4));
    g.hv->before_segment = NULL;
    /* A good, a bad and a good packet in one batch. */
    memset(g.tx_page[0], 2, 100);
    guest_tx_slot(&g, g.tx_ref[0], 0, 60, 0);
    guest_tx_slot(&g, 12345, 0, 60, 0);
    guest_tx_slot(&g, g.tx_ref[0], 0, 61, 0);
    guest_tx_push(&g);
    CHECK(guest_gtx_burst(&g, pkts) == 2 && pkts[1]->data_len == 61);
    pkt_free_bulk(&g.pool, pkts, 2);
    CHECK(guest_tx_responses(&g, NETIF_RSP_ERROR) == 1);
    /* The whole call failing spoils the batch, not the ring. */
    g.hv->fail_copy = ENOMEM;
    guest_tx_slot(&g, g.tx_ref[0], 0, 60, 0);
    CHECK(dropped(DROP_GTX_BAD_GRANT, 1));
    CHECK(good_packet_passes() && g.hv->maps_held == 0);
    end();

    begin("4 receive buffers bad, read-only, revoked");
    guest_rx_offer(&g, 4);
    RING_GET_REQUEST(&g.rx, 0)->gref = 0xdeadbeef;
    RING_GET_REQUEST(&g.rx, 1)->gref = g.tx_ref[3];
    memset(g.tx_page[3], GUEST_POISON, 4096);
    fake_revoke(g.hv, g.rx_ref[2]);
    for (unsigned i = 0; i < 4; i++) {
        pkts[i] = guest_mbuf(&g, frame, 64);
    }
    bool notify = false;
    CHECK(grx_burst(&g.grx, pkts, 4, &notify) == 4);
    CHECK(STAT_GET(g.stats.drops[DROP_GRX_BAD_GRANT]) == 3);
    for (unsigned i = 0; i < 4; i++) {
        CHECK(guest_rx_packet(&g, &got) && !got.malformed && got.error == (i < 3));
    }
    for (unsigned i = 0; i < 4096; i++) {
        CHECK(g.tx_page[3][i] == GUEST_POISON);
    }
    end();
}

static void
test_endless(void)
{
    netif_extra_info_t e = {.type = XEN_NETIF_EXTRA_TYPE_HASH, .flags = XEN_NETIF_EXTRA_FLAG_MORE};
    unsigned dropped_before;

    begin("5 endless more_data: answered slot by slot, one drop, bounded");
    for (unsigned i = 0; i < 1000; i++) {
        guest_tx_slot(&g, g.tx_ref[0], 0, i ? 10 : 9000, NETTXF_more_data);
        guest_tx_push(&g);
        if (i % 50 == 49) {
            while (gtx_pending(&g.gtx)) {
                CHECK(guest_gtx_burst(&g, pkts) == 0);
            }
            CHECK(guest_tx_responses(&g, NETIF_RSP_ERROR) == 50);
        }
    }
    CHECK(STAT_GET(g.stats.drops[DROP_GTX_TOO_MANY_SLOTS]) == 1);
    CHECK(STAT_GET(g.stats.errors_responded) == 1000);
    guest_tx_slot(&g, g.tx_ref[0], 0, 10, 0); /* the end of the chain */
    guest_tx_push(&g);
    CHECK(guest_gtx_burst(&g, pkts) == 0 && !gtx_pending(&g.gtx));
    CHECK(good_packet_passes());
    end();

    begin("5 endless extra-info: the same, then the packet's data");
    guest_tx_slot(&g, g.tx_ref[0], 0, 200, NETTXF_extra_info | NETTXF_more_data);
    for (unsigned i = 0; i < 1000; i++) {
        e.flags = i < 999 ? XEN_NETIF_EXTRA_FLAG_MORE : 0;
        guest_tx_extra(&g, &e);
        guest_tx_push(&g);
        if (i % 50 == 49) {
            while (gtx_pending(&g.gtx)) {
                CHECK(guest_gtx_burst(&g, pkts) == 0);
            }
            CHECK(guest_tx_responses(&g, NETIF_RSP_NULL) == 50);
        }
    }
    dropped_before = STAT_GET(g.stats.drops[DROP_GTX_BAD_EXTRA]);
    guest_tx_slot(&g, g.tx_ref[0], 0, 10, NETTXF_more_data);
    guest_tx_slot(&g, g.tx_ref[0], 0, 10, 0);
    guest_tx_push(&g);
    CHECK(guest_gtx_burst(&g, pkts) == 0);
    CHECK(guest_tx_responses(&g, NETIF_RSP_ERROR) == 2);
    CHECK(dropped_before == 1 && good_packet_passes());
    end();
}

static void
test_bad_extras(void)
{
    netif_extra_info_t e[3] = {{0}};

    begin("5 extra-info: unknown, twice, with packets where none belong");
    for (unsigned type = 0; type < 256; type++) {
        e[0] = (netif_extra_info_t){.type = type};
        if (type && type < XEN_NETIF_EXTRA_TYPE_MAX) {
            continue;
        }
        guest_tx_slot(&g, g.tx_ref[0], 0, 100, NETTXF_extra_info);
        guest_tx_extra(&g, &e[0]);
        CHECK(dropped(DROP_GTX_BAD_EXTRA, 1));
    }
    e[0] = e[1] = guest_gso(XEN_NETIF_GSO_TYPE_TCPV4, 1000);
    e[0].flags = XEN_NETIF_EXTRA_FLAG_MORE;
    guest_tx_slot(&g, g.tx_ref[0], 0, 100, NETTXF_extra_info);
    guest_tx_extra(&g, &e[0]);
    guest_tx_extra(&g, &e[1]);
    CHECK(dropped(DROP_GTX_BAD_EXTRA, 1));
    e[0] = (netif_extra_info_t){.type = XEN_NETIF_EXTRA_TYPE_MCAST_ADD, .u.mcast.addr = {1}};
    guest_tx_slot(&g, g.tx_ref[0], 0, 100, NETTXF_extra_info | NETTXF_more_data);
    guest_tx_extra(&g, &e[0]);
    guest_tx_slot(&g, g.tx_ref[0], 0, 10, 0);
    CHECK(dropped(DROP_GTX_BAD_EXTRA, 2));
    /* A hash is accepted and not believed. */
    e[0] = (netif_extra_info_t){.type = XEN_NETIF_EXTRA_TYPE_HASH, .u.hash = {200, 200, {1}}};
    memset(g.tx_page[0], 2, 100);
    guest_tx_slot(&g, g.tx_ref[0], 0, 100, NETTXF_extra_info);
    guest_tx_extra(&g, &e[0]);
    guest_tx_push(&g);
    CHECK(guest_gtx_burst(&g, pkts) == 1 && !(pkts[0]->ol_flags & RTE_MBUF_F_RX_RSS_HASH));
    pkt_free(&g.pool, pkts[0]);
    CHECK(good_packet_passes());
    end();
}

/* Sends frame_build(spec), changed at 'at' to 'value', with a GSO extra. */
static void
send_gso(struct frame_spec spec, uint8_t type, uint16_t mss, unsigned at, uint8_t value)
{
    netif_extra_info_t e = guest_gso(type, mss);
    uint32_t len = frame_build(frame, &spec);

    if (at) {
        frame[at] = value;
    }
    guest_tx_frame(&g, frame, len, NETTXF_csum_blank, &e, 4096);
}

static void
test_gso_lies(void)
{
    struct frame_spec v4 = {.payload = 3000}, v6 = {.payload = 3000, .v6 = true};
    enum drop_reason bad = DROP_GTX_BAD_GSO;

    begin("6 GSO and checksum lies: dropped");
    send_gso(v4, XEN_NETIF_GSO_TYPE_TCPV4, 0, 0, 0);
    CHECK(dropped(bad, 1));
    send_gso(v4, XEN_NETIF_GSO_TYPE_TCPV4, 1, 0, 0);
    CHECK(dropped(bad, 1));
    send_gso(v4, XEN_NETIF_GSO_TYPE_TCPV6, 1000, 0, 0);
    CHECK(dropped(bad, 1));
    send_gso(v6, XEN_NETIF_GSO_TYPE_TCPV4, 1000, 0, 0);
    CHECK(dropped(bad, 1));
    send_gso(v4, XEN_NETIF_GSO_TYPE_NONE, 1000, 0, 0);
    CHECK(dropped(bad, 1));
    send_gso(v4, 77, 1000, 0, 0);
    CHECK(dropped(bad, 1));
    send_gso((struct frame_spec){.payload = 3000, .udp = true}, XEN_NETIF_GSO_TYPE_TCPV4, 1000, 0,
             0);
    CHECK(dropped(bad, 1));
    send_gso(v4, XEN_NETIF_GSO_TYPE_TCPV4, 1000, 14 + 20 + 12, 0xf0); /* other data offset: fine */
    guest_tx_push(&g);
    CHECK(guest_gtx_burst(&g, pkts) == 1);
    pkt_free(&g.pool, pkts[0]);
    guest_tx_responses(&g, 0);
    send_gso(v4, XEN_NETIF_GSO_TYPE_TCPV4, 1000, 14 + 20 + 12, 0x40); /* data offset < 20 */
    CHECK(dropped(bad, 1));
    send_gso(v4, XEN_NETIF_GSO_TYPE_TCPV4, 1000, 14, 0x44); /* IP header < 20 */
    CHECK(dropped(bad, 1));
    send_gso(v4, XEN_NETIF_GSO_TYPE_TCPV4, 1000, 14 + 2, 0xff); /* IP length past the end */
    CHECK(dropped(bad, 1));
    send_gso(v4, XEN_NETIF_GSO_TYPE_TCPV4, 1000, 14 + 3, 0); /* IP length short of the end */
    CHECK(dropped(bad, 1));
    send_gso(v4, XEN_NETIF_GSO_TYPE_TCPV4, 1000, 14 + 6, 0x20); /* fragment */
    CHECK(dropped(bad, 1));
    send_gso(v4, XEN_NETIF_GSO_TYPE_TCPV4, 1000, 14 + 9, 47); /* not TCP */
    CHECK(dropped(bad, 1));
    send_gso(v6, XEN_NETIF_GSO_TYPE_TCPV6, 1000, 14 + 6, 0); /* hop-by-hop that is not */
    CHECK(dropped(bad, 1));
    send_gso((struct frame_spec){.payload = 3000, .tcp_flags = 0x12}, XEN_NETIF_GSO_TYPE_TCPV4,
             1000, 0, 0); /* SYN */
    CHECK(dropped(bad, 1));
    send_gso(v4, XEN_NETIF_GSO_TYPE_TCPV4, 1469, 0, 0); /* segments above the MTU */
    CHECK(dropped(DROP_GTX_TOO_LONG, 1));
    send_gso(v4, XEN_NETIF_GSO_TYPE_TCPV4, 60000, 0, 0); /* one "segment" above the MTU */
    CHECK(dropped(DROP_GTX_TOO_LONG, 1));
    CHECK(good_packet_passes());
    end();
}

static void
test_blank_lies(void)
{
    begin("6 checksum start past the end, on what has none");
    uint32_t len = frame_build(frame, &(struct frame_spec){.udp = true, .payload = 0});
    for (unsigned n = 14; n < len; n++) { /* cut off anywhere */
        guest_tx_frame(&g, frame, n, NETTXF_csum_blank, NULL, 4096);
        CHECK(dropped(DROP_GTX_BAD_GSO, 1));
    }
    for (unsigned proto = 0; proto < 256; proto++) {
        frame[14 + 9] = proto;
        if (proto != 6 && proto != 17) {
            guest_tx_frame(&g, frame, len, NETTXF_csum_blank, NULL, 4096);
            CHECK(dropped(DROP_GTX_BAD_GSO, 1));
        }
    }
    memset(frame + 12, 0, 2); /* no IP */
    guest_tx_frame(&g, frame, len, NETTXF_csum_blank, NULL, 4096);
    CHECK(dropped(DROP_GTX_BAD_GSO, 1));
    /* Extension headers longer than an mbuf can say. */
    len = frame_build(frame, &(struct frame_spec){.v6 = true, .payload = 1200});
    memset(frame + 54, 0, 1000);
    frame[14 + 6] = 60; /* destination options */
    frame[54] = 6;
    frame[55] = 100; /* 808 bytes */
    frame[54 + 808 + 12] = 0x50;
    guest_tx_frame(&g, frame, len, NETTXF_csum_blank, NULL, 4096);
    CHECK(dropped(DROP_GTX_BAD_GSO, 1));
    CHECK(good_packet_passes());
    end();
}

static void
test_slivers(void)
{
    begin("7 one byte per slot, zero fragments, tiny packet over max slots");
    for (unsigned i = 0; i < 18; i++) { /* 18 bytes in 18 slots: the most there may be */
        g.tx_page[i][4095] = i * 2;
        guest_tx_slot(&g, g.tx_ref[i], 4095, i ? 1 : 18, i < 17 ? NETTXF_more_data : 0);
    }
    guest_tx_push(&g);
    CHECK(guest_gtx_burst(&g, pkts) == 1 && pkts[0]->data_len == 18);
    for (unsigned i = 0; i < 18; i++) {
        CHECK(rte_pktmbuf_mtod(pkts[0], uint8_t *)[i] == i * 2);
    }
    pkt_free(&g.pool, pkts[0]);
    CHECK(guest_tx_responses(&g, NETIF_RSP_OKAY) == 18);
    for (unsigned i = 0; i < 19; i++) {
        guest_tx_slot(&g, g.tx_ref[i], 4095, i ? 1 : 19, i < 18 ? NETTXF_more_data : 0);
    }
    CHECK(dropped(DROP_GTX_TOO_MANY_SLOTS, 19));
    for (unsigned i = 0; i < 18; i++) { /* zero-length fragments are legal */
        guest_tx_slot(&g, g.tx_ref[0], 0, i ? 0 : 60, i < 17 ? NETTXF_more_data : 0);
    }
    guest_tx_push(&g);
    CHECK(guest_gtx_burst(&g, pkts) == 1 && pkts[0]->data_len == 60);
    pkt_free(&g.pool, pkts[0]);
    CHECK(guest_tx_responses(&g, NETIF_RSP_OKAY) == 18);
    for (unsigned i = 0; i < 18; i++) { /* all-zero packet */
        guest_tx_slot(&g, g.tx_ref[0], 0, 0, i < 17 ? NETTXF_more_data : 0);
    }
    CHECK(dropped(DROP_GTX_TOO_SHORT, 18));
    CHECK(good_packet_passes());
    end();
}

static void
test_reconnects(void)
{
    begin("8 malformed packet, then disconnect, 10,000 times");
    srandom(8);
    for (unsigned round = 0; round < 10000; round++) {
        for (unsigned i = 0; i < 1 + round % 24; i++) {
            guest_tx_slot(&g, random() % 300, random() % 5000, random() % 3000, random() & 15);
        }
        guest_tx_push(&g);
        guest_rx_offer(&g, round % 3);
        pkts[0] = guest_mbuf(&g, frame, 64 + round % 1000);
        bool notify = false;
        int taken = grx_burst(&g.grx, pkts, 1, &notify);
        pkt_free_bulk(&g.pool, pkts, taken ? 0 : 1);
        int n = gtx_burst(&g.gtx, pkts, 1 + round % 64, &notify);
        CHECK(n >= 0);
        pkt_free_bulk(&g.pool, pkts, n);
        XEN_FRONT_RING_INIT(&g.tx, g.tx.sring, HV_PAGE_SIZE);
        XEN_FRONT_RING_INIT(&g.rx, g.rx.sring, HV_PAGE_SIZE);
        CHECK(guest_reattach(&g) == 0);
    }
    CHECK(good_packet_passes());
    end();
}

static void
test_poison(void)
{
    netif_extra_info_t e = guest_gso(XEN_NETIF_GSO_TYPE_TCPV4, 1400);

    begin("10 every response byte is defined, no other byte is written");
    uint32_t len = frame_build(frame, &(struct frame_spec){.payload = 5000, .blank = true});
    memset(g.tx.sring->ring, GUEST_POISON, HV_PAGE_SIZE - 64);
    memset(g.rx.sring->ring, GUEST_POISON, HV_PAGE_SIZE - 64);
    guest_tx_frame(&g, frame, len, NETTXF_csum_blank, &e, 4096);
    guest_tx_slot(&g, 1, 0, 100, 0);
    guest_tx_push(&g);
    guest_rx_offer(&g, 5);
    CHECK(guest_gtx_burst(&g, pkts) == 1);
    bool notify = false;
    CHECK(grx_burst(&g.grx, pkts, 1, &notify) == 1);
    /* transmit: OKAY, NULL, OKAY, ERROR; ids 0, 0, 2, 3 */
    uint32_t tx[4][3] = {{0}, {NETIF_RSP_NULL << 16}, {2}, {3 | 0xffff0000}};
    const uint8_t *slots = (const uint8_t *)g.tx.sring->ring;
    CHECK(!memcmp(slots, tx, sizeof tx));
    for (unsigned i = sizeof tx; i < HV_PAGE_SIZE - 64; i++) {
        CHECK(slots[i] == GUEST_POISON);
    }
    /* receive: page, GSO, page */
    netif_rx_response_t first = {0}, last = {2, 0, 0, 0};
    first.flags = NETRXF_csum_blank | NETRXF_data_validated | NETRXF_more_data | NETRXF_extra_info;
    first.status = 4096;
    last.status = len - 4096;
    slots = (const uint8_t *)g.rx.sring->ring;
    CHECK(!memcmp(slots, &first, 8) && !memcmp(slots + 8, &e, 8) && !memcmp(slots + 16, &last, 8));
    CHECK(!memcmp(g.rx_page[0], frame, 4096) && !memcmp(g.rx_page[2], frame + 4096, len - 4096));
    for (unsigned i = 0; i < 4096; i++) {
        CHECK(g.rx_page[1][i] == GUEST_POISON && g.rx_page[3][i] == GUEST_POISON);
        CHECK(i < len - 4096 || g.rx_page[2][i] == GUEST_POISON);
    }
    end();
}

static void
test_in_flight(void)
{
    begin("11 disconnect with N in flight, every N: each grant released once");
    for (unsigned n = 0; n <= 256; n++) {
        CHECK(guest_map_all(&g));
        for (unsigned i = 0; i < n; i++) {
            guest_tx_slot(&g, g.tx_ref[i % 256], 0, i % 7 ? 60 : 160, i % 5 ? 0 : NETTXF_more_data);
        }
        guest_tx_push(&g);
        guest_rx_offer(&g, n);
        int taken = guest_gtx_burst(&g, pkts);
        CHECK(taken >= 0 && g.hv->maps_held == 512);
        pkt_free_bulk(&g.pool, pkts, taken);
        gtx_done(&g.gtx);
        grx_done(&g.grx);
        gref_table_clear(&g.grefs, g.hv->hv.ops, g.hv->grants);
        CHECK(g.hv->maps_held == 0 && g.hv->double_unmaps == 0);
        XEN_FRONT_RING_INIT(&g.tx, g.tx.sring, HV_PAGE_SIZE);
        XEN_FRONT_RING_INIT(&g.rx, g.rx.sring, HV_PAGE_SIZE);
        CHECK(guest_reattach(&g) == 0);
    }
    CHECK(good_packet_passes());
    end();
}

static void
test_frozen(void)
{
    bool notify = false;

    begin("12 receive ring frozen with 0 and 1 free slots");
    for (unsigned offer = 0; offer < 2; offer++) {
        uint32_t len = frame_build(frame, &(struct frame_spec){.payload = 60000, .blank = true});
        struct rte_mbuf *big = guest_mbuf(&g, frame, len);
        big->ol_flags = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM;
        big->tso_segsz = 1400;
        guest_rx_offer(&g, offer);
        for (unsigned i = 0; i < 1000; i++) {
            CHECK(grx_burst(&g.grx, &big, 1, &notify) == 0); /* nothing taken, nothing held */
        }
        CHECK(!notify && g.rx.sring->rsp_prod == 0);
        CHECK(grx_slots(&g.grx) == (int)offer && grx_slots_needed(&g.grx, big) == 16);
        CHECK(!grx_arm(&g.grx, 16) && g.rx.sring->req_event == 16);
        pkt_free(&g.pool, big); /* the queue's clock drops it; the ring does not mind */
    }
    struct rte_mbuf *m = guest_mbuf(&g, frame, 64);
    CHECK(grx_burst(&g.grx, &m, 1, &notify) == 1 && guest_rx_packet(&g, &got) && got.len == 64);
    end();
}

int
main(void)
{
    test_index_jumps();
    test_sizes();
    test_grants();
    test_endless();
    test_bad_extras();
    test_gso_lies();
    test_blank_lies();
    test_slivers();
    test_reconnects();
    test_poison();
    test_in_flight();
    test_frozen();
    return check_done();
}
