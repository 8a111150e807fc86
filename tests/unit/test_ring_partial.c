/* Partial packets: from one guest's pages to another's, and whole for everybody
 * else.  One guest is both here: what it sends comes back to it. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ring_guest.h"

#define MSS 1448u
#define FRAME (20u * MSS + 66u)

static struct ring_guest g;
static struct guest_packet got;
static uint8_t frame[65536];
static struct rte_mbuf *pkts[64];
/* Revoked, or written to, before the copy number 'at' from now. */
static struct {
    unsigned at, page;
    uint32_t revoke;
} soon;

static void
hook(void *aux, const xengnttab_grant_copy_segment_t *seg)
{
    if (soon.at && !--soon.at) {
        if (soon.revoke) {
            fake_revoke(g.hv, soon.revoke);
        } else {
            memset(g.tx_page[soon.page], 0xee, HV_PAGE_SIZE);
        }
    }
}

static void
begin(const char *name)
{
    CASE(name);
    guest_init(&g);
    g.hv->before_segment = hook;
    g.gtx.may_defer = true;
    soon.at = soon.revoke = 0;
    guest_rx_offer(&g, 200);
}

static void
end(void)
{
    guest_done(&g);
    CHECK(ring_buffers_lost() == 0);
}

/* A segment of 'len' bytes in all with a blank checksum. */
static uint32_t
build(unsigned len)
{
    uint32_t built = frame_build(frame, &(struct frame_spec){.payload = len - 54, .blank = true});

    for (unsigned i = 54; i < built; i++) {
        frame[i] = rand();
    }
    return built;
}

static void
send_slots(uint32_t len, uint16_t per_slot)
{
    netif_extra_info_t e = guest_gso(XEN_NETIF_GSO_TYPE_TCPV4, MSS);

    guest_tx_frame(&g, frame, len, NETTXF_csum_blank, &e, per_slot);
}

/* Takes one packet from the guest; whether it is partial. */
static bool
take(void)
{
    return guest_gtx_burst(&g, pkts) == 1 && gtx_is_partial(&g.gtx, pkts[0]);
}

static int
deliver(unsigned n)
{
    bool notify = false;
    int done;

    g.grx.from = &g.gtx;
    done = grx_burst(&g.grx, pkts, n, &notify);
    g.grx.from = NULL;
    return done;
}

static void
settle(void)
{
    bool notify = false;

    gtx_settle(&g.gtx, &notify);
}

/* The frame has arrived with these bytes. */
static bool
arrived(const uint8_t *bytes, uint32_t len)
{
    return guest_rx_packet(&g, &got) && !got.malformed && !got.error && got.len == len &&
           !memcmp(got.data, bytes, len);
}

/* --- bytes ------------------------------------------------------------------- */

static void
test_whole_way(bool mapped)
{
    static const unsigned per_slot[] = {4096, 66, 4000, 3000, 2100};

    begin(mapped ? "partial/guest to guest by static grants"
                 : "partial/guest to guest by grant copies");
    CHECK(!mapped || guest_map_all(&g));
    for (unsigned i = 0; i < 40; i++) {
        uint32_t len = build(i % 2 ? FRAME : 4200 + rand() % 30000);
        unsigned first = per_slot[i % 5], copies = g.hv->copies, segments = g.hv->segments;

        if (len > 17u * first) {
            first = 4096;
        }
        guest_rx_offer(&g, g.rx.rsp_cons + 200 - g.rx.req_prod_pvt);
        send_slots(len, first);
        CHECK(take());
        CHECK(guest_tx_responses(&g, 0) == 0); /* its pages are still needed */
        CHECK(deliver(1) == 1);
        CHECK(mapped ? g.hv->copies == copies : g.hv->copies - copies == 2);
        CHECK(arrived(frame, len));
        CHECK(got.gso.type == XEN_NETIF_GSO_TYPE_TCPV4 && got.gso.u.gso.size == MSS);
        CHECK(got.n_slots - 1 <= 17); /* Linux takes no more */
        CHECK(!mapped || got.n_slots == 1 + (len + 4095) / 4096);
        /* The head goes in and out, each further slot's bytes across. */
        unsigned slots = (len + first - 1) / first;
        CHECK(mapped || g.hv->segments - segments == (first <= 512 ? 1 : 2) + slots);
        CHECK(guest_tx_responses(&g, 0) == 0);
        settle();
        CHECK(guest_tx_responses(&g, 0) > 0 && g.tx.rsp_cons == g.tx.req_prod_pvt);
    }
    CHECK(STAT_GET(g.stats.tx_one_copy) == 40);
    end();
}

/* Slots of any size, headers split anywhere, tags put on; some go to the other guest,
 * some are completed, some dropped. */
static void
test_random(bool mapped)
{
    unsigned one_copy = 0, whole = 0;

    begin(mapped ? "partial/any slots, any way, by static grants" : "partial/any slots, any way");
    CHECK(!mapped || guest_map_all(&g));
    for (unsigned i = 0; i < 3000; i++) {
        uint32_t len = build(54 + rand() % 30000), done = 0;
        unsigned n = 1 + rand() % 17, page = rand() % 200;
        netif_extra_info_t e = guest_gso(XEN_NETIF_GSO_TYPE_TCPV4, MSS);
        bool small = len <= 1514;

        for (unsigned k = 0; done < len || !k; k++) {
            uint32_t left = len - done, size = RTE_MIN(left, 1 + rand() % HV_PAGE_SIZE);
            bool last = k == n || size == left;

            size = last || left > (17 - k) * 4000 ? RTE_MIN(left, HV_PAGE_SIZE) : size;
            uint16_t at = rand() % (HV_PAGE_SIZE - size + 1);
            bool more = done + size < len;
            memcpy(g.tx_page[page + k] + at, frame + done, size);
            guest_tx_slot(&g, g.tx_ref[page + k], at, k ? size : len,
                          (more ? NETTXF_more_data : 0) |
                              (k ? 0 : NETTXF_csum_blank | (small ? 0 : NETTXF_extra_info)));
            if (!k && !small) {
                guest_tx_extra(&g, &e);
            }
            done += size;
        }
        guest_tx_push(&g);
        if (guest_gtx_burst(&g, pkts) != 1) { /* more slots than there may be */
            CHECK(guest_tx_responses(&g, NETIF_RSP_ERROR) > 0);
            continue;
        }
        if (rand() & 1) {
            uint8_t *d = (uint8_t *)rte_pktmbuf_prepend(pkts[0], 4);
            memmove(d, d + 4, 12);
            memmove(frame + 16, frame + 12, len - 12);
            memcpy(d + 12, "\x81\0\0\5", 4);
            memcpy(frame + 12, "\x81\0\0\5", 4);
            len += 4;
        }
        unsigned way = rand() % 8;
        if (way == 0) {
            pkt_free(&g.pool, pkts[0]);
        } else if (way == 1) {
            CHECK(gtx_complete(&g.gtx, pkts, 1) == 1 && !gtx_is_partial(&g.gtx, pkts[0]));
            CHECK(!memcmp(rte_pktmbuf_mtod(pkts[0], void *), frame, len));
            pkt_free(&g.pool, pkts[0]);
        } else {
            guest_rx_offer(&g, g.rx.rsp_cons + 200 - g.rx.req_prod_pvt);
            one_copy += gtx_is_partial(&g.gtx, pkts[0]);
            whole += !gtx_is_partial(&g.gtx, pkts[0]);
            CHECK(deliver(1) == 1 && arrived(frame, len));
        }
        settle();
        CHECK(guest_tx_responses(&g, 0) > 0 && g.tx.rsp_cons == g.tx.req_prod_pvt);
    }
    CHECK(STAT_GET(g.stats.tx_one_copy) == one_copy && one_copy > 500 && whole > 100);
    CHECK(!g.hv->einval);
    end();
}

/* --- guests that are not friendly ---------------------------------------------- */

static void
test_payload_changes(void)
{
    begin("partial/what was checked is delivered, only payload can change");
    uint32_t len = build(FRAME);
    send_slots(len, 4096);
    CHECK(take());
    for (unsigned i = 0; i < 8; i++) {
        memset(g.tx_page[i], 0xee, HV_PAGE_SIZE);
    }
    CHECK(deliver(1) == 1);
    settle();
    CHECK(guest_rx_packet(&g, &got) && got.len == len && !got.error && !got.malformed);
    CHECK(!memcmp(got.data, frame, 256) && got.data[256] == 0xee && got.data[len - 1] == 0xee);
    end();
}

static void
test_sender_revokes(bool before)
{
    begin(before ? "partial/sender revokes before the copy: it is told, the receiver gets an error"
                 : "partial/sender revokes in the middle of the copies");
    uint32_t len = build(FRAME);
    send_slots(len, 4096);
    CHECK(take());
    if (before) {
        fake_revoke(g.hv, g.tx_ref[3]);
    } else {
        soon.at = 4;
        soon.revoke = g.tx_ref[3];
    }
    CHECK(deliver(1) == 1);
    settle();
    CHECK(guest_rx_packet(&g, &got) && got.error && !got.malformed);
    CHECK(guest_tx_responses(&g, NETIF_RSP_ERROR) == 8 && g.tx.rsp_cons == g.tx.req_prod_pvt);
    CHECK(STAT_GET(g.stats.drops[DROP_GTX_BAD_GRANT]) == 1);
    CHECK(STAT_GET(g.stats.drops[DROP_GRX_BAD_GRANT]) == 0);
    CHECK(STAT_GET(g.stats.tx_packets) == 0 && STAT_GET(g.stats.tx_one_copy) == 0);

    g.next_tx_page = 16;
    send_slots(len, 4096);
    CHECK(guest_gtx_burst(&g, pkts) == 1 && deliver(1) == 1 && arrived(frame, len));
    settle();
    CHECK(guest_tx_responses(&g, 0) == 8);
    end();
}

static void
test_receiver_revokes(void)
{
    begin("partial/the receiver's bad grant is its own, the sender's packet is sent");
    uint32_t len = build(FRAME);
    fake_revoke(g.hv, g.rx_ref[2]);
    send_slots(len, 4096);
    CHECK(take() && deliver(1) == 1);
    settle();
    CHECK(guest_rx_packet(&g, &got) && got.error && !got.malformed);
    CHECK(guest_tx_responses(&g, 0) == 8);
    CHECK(STAT_GET(g.stats.drops[DROP_GRX_BAD_GRANT]) == 1);
    CHECK(STAT_GET(g.stats.drops[DROP_GTX_BAD_GRANT]) == 0);
    end();
}

static void
test_complete_fails(void)
{
    begin("partial/a packet that cannot be completed is dropped, those beside it are not");
    uint32_t len = build(FRAME);
    for (unsigned i = 0; i < 3; i++) {
        send_slots(len, 4096);
    }
    CHECK(guest_gtx_burst(&g, pkts) == 3 && g.gtx.n_partial == 3);
    fake_revoke(g.hv, g.tx_ref[9]); /* the second's */
    unsigned copies = g.hv->copies;
    CHECK(gtx_complete(&g.gtx, pkts, 3) == 2 && g.hv->copies == copies + 1);
    for (unsigned i = 0; i < 2; i++) {
        CHECK(!memcmp(rte_pktmbuf_mtod(pkts[i], void *), frame, len));
    }
    pkt_free_bulk(&g.pool, pkts, 2);
    settle();
    CHECK(guest_tx_responses(&g, NETIF_RSP_ERROR) == 8 && g.tx.rsp_cons == g.tx.req_prod_pvt);
    CHECK(STAT_GET(g.stats.drops[DROP_GTX_BAD_GRANT]) == 1);
    end();
}

static void
test_receiver_full(void)
{
    begin("partial/no room: nothing is taken of the ring, and the packet can wait once whole");
    uint32_t len = build(FRAME);
    guest_done(&g);
    guest_init(&g);
    g.gtx.may_defer = true;
    guest_rx_offer(&g, 5);
    send_slots(len, 4096);
    CHECK(take() && deliver(1) == 0 && grx_slots(&g.grx) == 5);
    CHECK(gtx_is_partial(&g.gtx, pkts[0]) && gtx_complete(&g.gtx, pkts, 1) == 1);
    settle();
    CHECK(guest_tx_responses(&g, 0) == 8);
    memset(g.tx_page[0], 0xee, HV_PAGE_SIZE); /* its own again */
    guest_rx_offer(&g, 20);
    CHECK(deliver(1) == 1 && arrived(frame, len));
    CHECK(STAT_GET(g.stats.tx_one_copy) == 0);
    end();
}

/* --- who needs all bytes -------------------------------------------------------- */

static void
test_features(void)
{
    begin("partial/a guest that needs sums or wire segments gets them right");
    for (unsigned i = 0; i < 2; i++) {
        uint32_t len = build(FRAME);
        g.port.features = (struct guest_features){.sg = true, .gso_tcpv4 = i, .csum_blank_v4 = !i};
        guest_rx_offer(&g, g.rx.rsp_cons + 200 - g.rx.req_prod_pvt);
        send_slots(len, 4096);
        CHECK(take() == !i && deliver(1) == 1); /* it learns */
        settle();
        uint32_t ofs = 54;
        for (unsigned n = 0; n < 20 || ofs < len; n++) {
            CHECK(guest_rx_packet(&g, &got) && !got.error);
            CHECK(!memcmp(got.data + 54, frame + ofs, got.len - 54));
            CHECK(!i || frame_sound(got.data, got.len));
            ofs += got.len - 54;
        }
        CHECK(ofs == len);
    }
    CHECK(STAT_GET(g.stats.tx_one_copy) == 0);
    end();
}

static void
test_who_is_not(void)
{
    uint32_t len;

    begin("partial/not: small, with a checksum, headers beyond the head, not asked for");
    len = build(1500);
    guest_tx_frame(&g, frame, len, NETTXF_csum_blank, NULL, 4096);
    CHECK(!take() && guest_tx_responses(&g, 0) == 1);
    pkt_free(&g.pool, pkts[0]);

    atomic_store(&g.port.mtu, 9000);
    len = build(9000);
    guest_tx_frame(&g, frame, len, 0, NULL, 4096);
    CHECK(!take() && guest_tx_responses(&g, 0) == 3);
    pkt_free(&g.pool, pkts[0]);

    send_slots(len, 4096 - 1);
    CHECK(take());
    pkt_free(&g.pool, pkts[0]);
    settle();
    CHECK(guest_tx_responses(&g, 0) == 3);

    g.gtx.may_defer = false;
    send_slots(len, 4096);
    CHECK(!take() && guest_tx_responses(&g, 0) == 3);
    pkt_free(&g.pool, pkts[0]);
    g.gtx.may_defer = true;

    unsigned first = 40; /* in the middle of the TCP header */
    memcpy(g.tx_page[100], frame, first);
    memcpy(g.tx_page[101], frame + first, 4000);
    guest_tx_slot(&g, g.tx_ref[100], 0, first + 4000, NETTXF_csum_blank | NETTXF_more_data);
    guest_tx_slot(&g, g.tx_ref[101], 0, 4000, 0);
    frame[16] = (first + 4000 - 14) >> 8; /* the IP header's length, for the parser */
    frame[17] = (first + 4000 - 14) & 0xff;
    memcpy(g.tx_page[100], frame, first);
    guest_tx_push(&g);
    CHECK(!take() && guest_tx_responses(&g, 0) == 2);
    CHECK(!memcmp(rte_pktmbuf_mtod(pkts[0], void *), frame, first + 4000));
    CHECK(pkts[0]->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM && pkts[0]->l4_len == 20);
    pkt_free(&g.pool, pkts[0]);
    end();
}

static void
test_learns(void)
{
    unsigned partial = 0;

    begin("partial/where packets are completed anyway, most are copied at once");
    for (unsigned i = 0; i < 3000; i++) {
        uint32_t len = build(6000);
        send_slots(len, 4096);
        partial += take();
        CHECK(gtx_complete(&g.gtx, pkts, 1) == 1);
        pkt_free(&g.pool, pkts[0]);
        settle();
        CHECK(guest_tx_responses(&g, 0) == 2);
    }
    CHECK(partial > 5 && partial < 30);
    partial = 0;
    for (unsigned i = 0; i < 3000; i++) {
        uint32_t len = build(6000);
        guest_rx_offer(&g, g.rx.rsp_cons + 200 - g.rx.req_prod_pvt);
        send_slots(len, 4096);
        partial += take();
        CHECK(deliver(1) == 1 && arrived(frame, len));
        settle();
        guest_tx_responses(&g, 0);
    }
    CHECK(partial > 1500);
    end();
}

/* Where pages stay whole the guest gets a slot more than its frontend has room for. */
static void
test_most_slots(void)
{
    begin("partial/18 slots become 17 at most");
    uint32_t len = build(18 * 3072);

    send_slots(len, 3072);
    CHECK(take() && deliver(1) == 1);
    CHECK(arrived(frame, len) && got.n_slots - 1 <= 17);
    settle();
    end();
}

/* A guest that revokes what it sends costs another its buffers, but not each time. */
static void
test_spoiler_waits(void)
{
    begin("partial/a guest whose grants fail is copied at once for a while");
    uint32_t len = build(6000);

    send_slots(len, 4096);
    CHECK(take());
    fake_revoke(g.hv, g.tx_ref[1]);
    CHECK(deliver(1) == 1);
    settle();
    CHECK(guest_rx_packet(&g, &got) && got.error);
    CHECK(guest_tx_responses(&g, NETIF_RSP_ERROR) == 2);
    g.next_tx_page = 16;
    for (unsigned i = 0; i < 40; i++) {
        guest_rx_offer(&g, g.rx.rsp_cons + 200 - g.rx.req_prod_pvt);
        send_slots(len, 4096);
        CHECK(!take());
        CHECK(deliver(1) == 1 && arrived(frame, len));
        settle();
        CHECK(guest_tx_responses(&g, 0) == 2);
    }
    end();
}

/* A packet in two parts is never partial, and one that is keeps its place. */
static void
test_mixed(void)
{
    begin("partial/small and large in one burst: all answered, in order, after the last copy");
    static uint8_t small[100];
    uint32_t len = build(FRAME);
    netif_tx_response_t rsp;
    uint16_t id = 0;

    memcpy(small, frame, 54);
    for (unsigned i = 0; i < 3; i++) {
        guest_tx_frame(&g, small, sizeof small, 0, NULL, 4096);
        send_slots(len, 4096);
    }
    CHECK(guest_gtx_burst(&g, pkts) == 6 && g.gtx.n_partial == 3);
    CHECK(!guest_tx_response(&g, &rsp));
    CHECK(deliver(6) == 6);
    settle();
    for (unsigned i = 0; i < 3; i++) {
        CHECK(arrived(small, sizeof small) && arrived(frame, len));
    }
    for (; guest_tx_response(&g, &rsp); id++) {
        CHECK(rsp.status == NETIF_RSP_NULL || (rsp.status == 0 && rsp.id == id));
    }
    CHECK(id == 3 * 10);
    end();
}

int
main(void)
{
    test_whole_way(false);
    test_whole_way(true);
    test_random(false);
    test_random(true);
    test_payload_changes();
    test_sender_revokes(true);
    test_sender_revokes(false);
    test_receiver_revokes();
    test_complete_fails();
    test_receiver_full();
    test_features();
    test_who_is_not();
    test_learns();
    test_most_slots();
    test_spoiler_waits();
    test_mixed();
    return check_done();
}
