/* A whole netback against a whole guest: packets and the control ring.
 *
 *   guest ==rings, store== netback ==bursts== this test, as the switch
 *
 * How they meet and part is in test_netback_bus.c, what a hostile guest does
 * in test_netback_hostile.c, what follows a death in test_netback_restart.c. */
#include <errno.h>
#include <string.h>

#include "check.h"
#include "nb_guest.h"
#include "nb_rig.h"
#include "ring_guest.h" /* frame_build(), frame_sound() */

#define SUCCESS XEN_NETIF_CTRL_STATUS_SUCCESS

static uint8_t frame[65536];
static struct nb_packet got;

/* A TCP frame with 'payload' bytes that differ from call to call. */
static uint32_t
tcp_frame(unsigned payload, bool v6, bool blank)
{
    static uint32_t seq;

    seq += 777;
    return frame_build(
        frame, &(struct frame_spec){.v6 = v6, .blank = blank, .payload = payload, .seq = seq});
}

static struct rte_mbuf *
tcp_mbuf(uint32_t len, bool v6, uint16_t mss)
{
    struct rte_mbuf *m = rig_mbuf(frame, len);

    m->ol_flags = RTE_MBUF_F_TX_TCP_CKSUM | (v6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4);
    m->ol_flags |= mss ? RTE_MBUF_F_TX_TCP_SEG : 0;
    m->tso_segsz = mss;
    m->l2_len = 14;
    m->l3_len = v6 ? 40 : 20;
    m->l4_len = 20;
    return m;
}

/* --- packets ------------------------------------------------------------------------ */

/* Sends what is in 'frame' from the guest; true if it arrives as it was. */
static bool
to_switch(struct netback_vif *v, struct nb_queue *q, uint32_t len, uint16_t flags,
          const netif_extra_info_t *gso, unsigned per_slot, uint64_t want_flags)
{
    struct rte_mbuf *m;

    if (!nb_tx_frame(q, frame, len, flags, gso, per_slot)) {
        return false;
    }
    nb_tx_push(q);
    if (!nb_tx_drain(q, RIG_PATIENCE_MS) || rig_collect(v, &m, NULL, 1, RIG_PATIENCE_MS) != 1) {
        return false;
    }
    bool good = m->data_len == len && m->pkt_len == len && m->nb_segs == 1 &&
                rte_pktmbuf_headroom(m) >= NETBACK_HEADROOM &&
                (m->ol_flags & want_flags) == want_flags &&
                (!gso || m->tso_segsz == gso->u.gso.size) &&
                !memcmp(rte_pktmbuf_mtod(m, void *), frame, len);
    rig_free(&m, 1);
    return good;
}

static void
test_from_guest(struct netback_vif *v, struct nb_guest *g)
{
    struct nb_queue *q = &g->q[0];
    uint32_t len;

    CASE("from the guest: smallest and largest plain frames");
    memset(frame, 7, 14);
    CHECK(to_switch(v, q, 14, 0, NULL, 4096, 0));
    len = tcp_frame(1522 - 54, false, false);
    CHECK(to_switch(v, q, len, NETTXF_data_validated, NULL, 4096, RTE_MBUF_F_RX_L4_CKSUM_GOOD));

    CASE("from the guest: scatter-gather, 18 slots");
    len = tcp_frame(1446, false, false);
    CHECK(to_switch(v, q, len, 0, NULL, (len + 17) / 18, 0));

    for (int v6 = 0; v6 < 2; v6++) {
        uint64_t ip = v6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4;
        netif_extra_info_t gso =
            nb_gso(v6 ? XEN_NETIF_GSO_TYPE_TCPV6 : XEN_NETIF_GSO_TYPE_TCPV4, 1400);

        CASE(v6 ? "from the guest: blank checksum, 64,000 bytes of GSO (IPv6)"
                : "from the guest: blank checksum, 64,000 bytes of GSO (IPv4)");
        len = tcp_frame(1000, v6, true);
        CHECK(to_switch(v, q, len, NETTXF_csum_blank | NETTXF_data_validated, NULL, 4096,
                        RTE_MBUF_F_TX_TCP_CKSUM | ip));
        len = tcp_frame(64000, v6, true);
        CHECK(to_switch(v, q, len, NETTXF_csum_blank | NETTXF_data_validated, &gso, 4096,
                        RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | ip));
    }

    CASE("from the guest: 65,535 bytes of GSO come in parts, nothing lost");
    netif_extra_info_t gso = nb_gso(XEN_NETIF_GSO_TYPE_TCPV4, 1448);
    struct rte_mbuf *m[2];
    len = tcp_frame(65535 - 54, false, true);
    CHECK(nb_tx_one(q, frame, len, NETTXF_csum_blank, &gso) == NETIF_RSP_OKAY);
    CHECK(rig_collect(v, m, NULL, 2, RIG_PATIENCE_MS) == 2);
    CHECK(m[0]->data_len <= NETBACK_FRAME_MAX);
    CHECK(m[0]->data_len + m[1]->data_len == len + 54u);
    CHECK((m[0]->data_len - 54) % 1448 == 0);
    CHECK(!memcmp(rte_pktmbuf_mtod_offset(m[0], void *, 54), frame + 54, m[0]->data_len - 54));
    CHECK(!memcmp(rte_pktmbuf_mtod_offset(m[1], void *, 54), frame + m[0]->data_len,
                  m[1]->data_len - 54));
    rig_free(m, 2);
    struct netback_stats s = rig_stats(v);
    CHECK(s.rx_gso == 3 && s.rx_csum_blank == 5 && s.errors_responded == 0);
}

static void
test_to_guest(struct netback_vif *v, struct nb_guest *g)
{
    const uint16_t blank = NETRXF_csum_blank | NETRXF_data_validated;
    struct rte_mbuf *m;
    uint32_t len;

    CASE("to the guest: plain, validated, blank");
    len = tcp_frame(500, false, false);
    m = rig_mbuf(frame, len);
    m->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    netback_tx_burst(v, &m, 1);
    CHECK(nb_rx_wait(&g->q[0], &got, RIG_PATIENCE_MS) && !got.malformed);
    CHECK(got.len == len && !memcmp(got.data, frame, len) && got.flags == NETRXF_data_validated);
    len = tcp_frame(500, false, true);
    m = tcp_mbuf(len, false, 0);
    netback_tx_burst(v, &m, 1);
    CHECK(nb_rx_wait(&g->q[0], &got, RIG_PATIENCE_MS) && !got.malformed);
    CHECK(got.len == len && !memcmp(got.data, frame, len) && got.flags == blank);

    for (int v6 = 0; v6 < 2; v6++) {
        CASE(v6 ? "to the guest: 64,000 bytes of GSO whole (IPv6)"
                : "to the guest: 64,000 bytes of GSO whole (IPv4)");
        len = tcp_frame(64000, v6, true);
        m = tcp_mbuf(len, v6, 1400);
        netback_tx_burst(v, &m, 1);
        CHECK(nb_rx_wait(&g->q[0], &got, RIG_PATIENCE_MS) && !got.malformed && !got.error);
        CHECK(got.len == len && !memcmp(got.data, frame, len));
        CHECK(got.gso.type && got.gso.u.gso.size == 1400);
        CHECK(got.gso.u.gso.type == (v6 ? XEN_NETIF_GSO_TYPE_TCPV6 : XEN_NETIF_GSO_TYPE_TCPV4));
        CHECK((got.flags & blank) == blank && got.n_slots == 17);
    }
}

static void
test_packets(void)
{
    struct nb_guest *g = nb_guest_new(7, NULL);
    struct netback_vif *v = rig_attach(7);

    CASE("connects for packets");
    CHECK(nb_connect(g, &(struct nb_options){.split = true}));
    test_from_guest(v, g);
    test_to_guest(v, g);
    CHECK(nb_close(g) && nb_reinit(g));

    CASE("to a guest without features: cut and summed here");
    CHECK(nb_connect(g, &(struct nb_options){.no_sg = true, .no_gso = true, .no_csum = true}));
    uint32_t len = tcp_frame(30000, false, true), payload = 0, n = 0;
    struct rte_mbuf *m = tcp_mbuf(len, false, 1400);
    bool sound = true;
    netback_tx_burst(v, &m, 1);
    while (payload < 30000 && nb_rx_wait(&g->q[0], &got, RIG_PATIENCE_MS)) {
        sound &= !got.malformed && got.flags == NETRXF_data_validated && got.n_slots == 1;
        sound &= got.len <= 1514 && frame_sound(got.data, got.len);
        sound &= !memcmp(got.data + 54, frame + 54 + payload, got.len - 54);
        payload += got.len - 54;
        n++;
    }
    CHECK(sound && payload == 30000 && n == 22);
    CHECK(RIG_UNTIL(rig_stats(v).segments_cut == 22, RIG_PATIENCE_MS));

    CASE("the MTU bounds plain frames both ways, and can be raised");
    len = tcp_frame(1523 - 54, false, false);
    CHECK(nb_tx_one(&g->q[0], frame, len, 0, NULL) == NETIF_RSP_ERROR);
    CHECK(rig_drops(v, DROP_GTX_TOO_LONG) == 1);
    m = rig_mbuf(frame, len);
    netback_tx_burst(v, &m, 1);
    CHECK(RIG_UNTIL(rig_drops(v, DROP_GRX_TOO_LONG) == 1, RIG_PATIENCE_MS));
    CHECK(netback_set_mtu(v, 67) == EINVAL && netback_set_mtu(v, 3000) == 0);
    CHECK(rig_status(v).mtu == 3000);
    CHECK(to_switch(v, &g->q[0], len, 0, NULL, 4096, 0));
    len = tcp_frame(3022 - 54, false, false);
    CHECK(to_switch(v, &g->q[0], len, 0, NULL, 4096, 0));
    m = rig_mbuf(frame, len);
    netback_tx_burst(v, &m, 1);
    CHECK(nb_rx_wait(&g->q[0], &got, RIG_PATIENCE_MS) && got.len == len);
    netback_detach(v);
    nb_guest_free(g);
}

static void
test_multicast(void)
{
    static const uint8_t listed[6] = {0x01, 0, 0x5e, 1, 2, 3}, other[6] = {0x33, 0x33, 0, 0, 0, 9};
    struct nb_guest *g = nb_guest_new(8, NULL);
    struct netback_vif *v = rig_attach(8);
    struct nb_queue *q = &g->q[0];
    uint32_t len = 64;
    struct rte_mbuf *m;

    CASE("multicast control: the list filters, broadcast passes");
    CHECK(nb_connect(g, &(struct nb_options){.mcast_control = true}));
    CHECK(rig_status(v).multicast_control);
    memset(frame, 0, len);
    CHECK(nb_tx_mcast(q, listed, true) == NETIF_RSP_OKAY);
    memcpy(frame, other, 6);
    m = rig_mbuf(frame, len);
    netback_tx_burst(v, &m, 1);
    CHECK(rig_drops(v, DROP_GRX_MULTICAST) == 1);
    memcpy(frame, listed, 6);
    m = rig_mbuf(frame, len);
    netback_tx_burst(v, &m, 1);
    CHECK(nb_rx_wait(q, &got, RIG_PATIENCE_MS) && !memcmp(got.data, listed, 6));
    memset(frame, 0xff, 6);
    m = rig_mbuf(frame, len);
    netback_tx_burst(v, &m, 1);
    CHECK(nb_rx_wait(q, &got, RIG_PATIENCE_MS) && got.data[0] == 0xff);
    CHECK(nb_tx_mcast(q, listed, false) == NETIF_RSP_OKAY);
    memcpy(frame, listed, 6);
    m = rig_mbuf(frame, len);
    netback_tx_burst(v, &m, 1);
    CHECK(rig_drops(v, DROP_GRX_MULTICAST) == 2);

    CASE("the multicast list is bounded");
    uint8_t mac[6] = {0x01};
    unsigned added = 0;
    for (unsigned i = 0; i < 70; i++) {
        mac[5] = i;
        added += nb_tx_mcast(q, mac, true) == NETIF_RSP_OKAY;
    }
    CHECK(added == 64);
    CHECK(rig_discard(v) == 0);

    CASE("request-multicast-control may change while connected");
    rig_write(g->frontend, "request-multicast-control", "0");
    CHECK(RIG_UNTIL(!rig_status(v).multicast_control, RIG_PATIENCE_MS));
    memcpy(frame, other, 6);
    m = rig_mbuf(frame, len);
    netback_tx_burst(v, &m, 1);
    CHECK(nb_rx_wait(q, &got, RIG_PATIENCE_MS) && !memcmp(got.data, other, 6));
    rig_write(g->frontend, "request-multicast-control", "1");
    CHECK(RIG_UNTIL(rig_status(v).multicast_control, RIG_PATIENCE_MS));
    netback_detach(v);
    nb_guest_free(g);
}

/* --- control ring ---------------------------------------------------------------------- */

static void
test_hash(void)
{
    enum { N = 64 };
    static const uint32_t to_one[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    static const uint32_t spread[8] = {0, 1, 2, 3, 3, 2, 1, 0};
    struct nb_guest *g = nb_guest_new(9, NULL);
    struct netback_vif *v = rig_attach(9);
    uint32_t hash[N] = {0};
    struct rte_mbuf *m;
    bool right = true;
    uint32_t data;

    CASE("hash requests answer as io/netif.h says");
    CHECK(nb_connect(g, &(struct nb_options){.n_queues = 4, .ctrl = true}));
    CHECK(nb_ctrl(g, XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS, 0, 0, 0, &data) != SUCCESS);
    CHECK(nb_ctrl(g, XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE, 0, 0, 0, &data) == SUCCESS);
    CHECK(data >= 128);
    CHECK(nb_ctrl(g, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE, data + 1, 0, 0, NULL) ==
          XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER);
    CHECK(nb_ctrl(g, XEN_NETIF_CTRL_TYPE_SET_HASH_KEY, g->ctrl_data_ref, 41, 0, NULL) ==
          XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW);
    CHECK(nb_ctrl(g, 77, 0, 0, 0, NULL) == XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED);

    CASE("the guest's mapping chooses the queue, and the hash is told");
    CHECK(nb_set_hash(g, to_one, 8));
    for (unsigned i = 0; i < N; i++) {
        uint32_t len =
            frame_build(frame, &(struct frame_spec){.payload = 10, .src_port = 1000 + i});
        m = rig_mbuf(frame, len);
        netback_tx_burst(v, &m, 1);
        right &= nb_rx_wait(&g->q[1], &got, RIG_PATIENCE_MS) && got.len == len;
        right &= got.hash.type == XEN_NETIF_EXTRA_TYPE_HASH &&
                 got.hash.u.hash.type == _XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP;
        memcpy(&hash[i], got.hash.u.hash.value, 4);
    }
    CHECK(right);
    CHECK(nb_set_hash(g, spread, 8));
    for (unsigned i = 0; i < N; i++) {
        uint32_t len =
            frame_build(frame, &(struct frame_spec){.payload = 10, .src_port = 1000 + i});
        m = rig_mbuf(frame, len);
        netback_tx_burst(v, &m, 1);
        right &= nb_rx_wait(&g->q[spread[hash[i] % 8]], &got, RIG_PATIENCE_MS) && got.len == len;
    }
    CHECK(right);

    CASE("a mapping to a queue that is not there is refused whole");
    uint32_t *table = (void *)g->ctrl_data;
    table[0] = 0, table[1] = 4;
    CHECK(nb_ctrl(g, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, g->ctrl_data_ref, 2, 0, NULL) ==
          XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER);
    CHECK(nb_ctrl(g, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, g->ctrl_data_ref, 1, UINT32_MAX, NULL) !=
          SUCCESS);
    netback_detach(v);
    nb_guest_free(g);
}

/* All data of both ways went through static grants, if 'copied' is false. */
static bool
traffic_copies_grants(struct netback_vif *v, struct nb_guest *g, unsigned queue)
{
    uint64_t before = rig_stats(v).grant_copy_segs;

    for (unsigned i = 0; i < 20; i++) {
        CHECK(nb_exchange(g, queue, v));
    }
    return rig_stats(v).grant_copy_segs != before;
}

static void
test_static_grants(void)
{
    struct nb_guest *g = nb_guest_new(10, NULL), *h = nb_guest_new(11, NULL);
    struct netback_vif *v = rig_attach(10), *w = rig_attach(11);
    struct nb_options o = {.n_queues = 2, .ctrl = true};
    uint32_t data;

    CASE("static grants: the data path copies without grant operations");
    CHECK(nb_connect(g, &o) && nb_connect(h, &o));
    CHECK(nb_ctrl(g, XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE, 0, 0, 0, &data) == SUCCESS);
    CHECK(data == RIG_GREF_PER_QUEUE);
    CHECK(traffic_copies_grants(v, g, 0));
    CHECK(nb_static_all(g, 0, true) == 2 * NB_SLOTS);
    CHECK(rig_status(v).static_grants);
    CHECK(!traffic_copies_grants(v, g, 0));

    CASE("static grants: copied by grant while a migration runs");
    netback_static_grants(v, false);
    CHECK(local_grants_in_use(g->dom) == 5);
    CHECK(traffic_copies_grants(v, g, 0));
    netback_static_grants(v, true);
    CHECK(!traffic_copies_grants(v, g, 0));

    CASE("static grants: cannot be revoked while mapped");
    CHECK(local_grant_end(g->dom, g->q[0].tx_ref[7]) == EBUSY);
    CHECK(local_grant_end(g->dom, g->q[0].rx_ref[7]) == EBUSY);
    CHECK(local_grants_in_use(g->dom) == 5 + 2 * NB_SLOTS);

    CASE("static grants: a second mapping and a bad one are refused whole");
    CHECK(nb_static_all(g, 0, true) == 0);
    CHECK(nb_ctrl(g, XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING, 2, g->ctrl_data_ref, 1, NULL) !=
          SUCCESS);
    CHECK(nb_ctrl(g, XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING, 0, g->ctrl_data_ref, 513, NULL) !=
          SUCCESS);
    CHECK(local_grants_in_use(g->dom) == 5 + 2 * NB_SLOTS);

    CASE("static grants: another queue's, on its own thread");
    CHECK(nb_ctrl(g, XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE, 1, 0, 0, &data) == SUCCESS);
    CHECK(data == RIG_GREF_BUDGET - 2 * NB_SLOTS);
    CHECK(nb_static_all(g, 1, true) == 2 * NB_SLOTS);

    CASE("static grants: the budget is the host's");
    CHECK(nb_ctrl(h, XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE, 0, 0, 0, &data) == SUCCESS);
    CHECK(data == 0);
    CHECK(nb_static_all(h, 0, true) == 0);
    CHECK(nb_exchange(h, 0, w));

    CASE("static grants: deleted ones are released and the data path copies again");
    CHECK(nb_static_all(g, 0, false) == 2 * NB_SLOTS);
    CHECK(local_grants_in_use(g->dom) == 5 + 2 * NB_SLOTS);
    CHECK(traffic_copies_grants(v, g, 0));
    CHECK(nb_static_all(g, 1, false) == 2 * NB_SLOTS);
    CHECK(!rig_status(v).static_grants);
    CHECK(nb_ctrl(h, XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE, 0, 0, 0, &data) == SUCCESS);
    CHECK(data == RIG_GREF_PER_QUEUE);

    CASE("static grants: added and deleted for ever");
    bool all = true;
    for (unsigned i = 0; i < 12; i++) {
        all &= nb_static_all(g, 0, true) && nb_static_all(g, 0, false);
    }
    CHECK(all && nb_static_all(g, 0, true) == 2 * NB_SLOTS);
    netback_detach(v);
    v = rig_attach(10);
    CHECK(RIG_UNTIL(rig_status(v).connected, RIG_PATIENCE_MS));
    CHECK(local_grants_in_use(g->dom) == 5 + 2 * NB_SLOTS);
    CHECK(nb_close(g) && nb_close(h));
    netback_detach(v);
    netback_detach(w);
    nb_guest_free(g);
    nb_guest_free(h);
}

/* --- rate --------------------------------------------------------------------------------- */

/* Bytes a second that the guest gets through in 'ms', ring always full. */
static double
measure_rate(struct netback_vif *v, struct nb_guest *g, unsigned ms)
{
    uint32_t len = tcp_frame(1400, false, false);
    struct nb_queue *q = &g->q[0];
    uint64_t start = rig_now_ns(), end = start + ms * 1000000ull;
    uint64_t before = rig_stats(v).rx_bytes;

    while (rig_now_ns() < end) {
        while (nb_tx_frame(q, frame, len, 0, NULL, 4096)) {
        }
        nb_tx_push(q);
        rig_discard(v);
        rig_yield();
    }
    before = rig_stats(v).rx_bytes - before; /* the time after it */
    return before * 1e9 / (rig_now_ns() - start);
}

static void
test_rate(void)
{
    struct nb_guest *g =
        nb_guest_new(12, &(struct toolstack_vif){.hotplug_connected = true, .rate = "40000,10000"});
    struct netback_vif *v = rig_attach(12);

    CASE("the rate key is kept within 20 %");
    CHECK(nb_connect(g, NULL));
    measure_rate(v, g, 100); /* what may be sent at once is gone */
    /* Never more; less only while somebody else has the processor. */
    double rate, highest = 0;
    CHECK(RIG_UNTIL(
        (rate = measure_rate(v, g, 500), highest = rate > highest ? rate : highest, rate > 3.2e6),
        RIG_PATIENCE_MS));
    CHECK(highest < 4.8e6);
    CHECK(rig_stats(v).rate_limited > 0);

    CASE("a guest that keeps the store busy gets no more");
    uint64_t before = rig_stats(v).rx_bytes, start = rig_now_ns();
    while (rig_now_ns() - start < 500000000) {
        measure_rate(v, g, 10);
        nb_set_state(g, XenbusStateConnected);
    }
    before = rig_stats(v).rx_bytes - before;
    rate = before * 1e9 / (rig_now_ns() - start);
    CHECK(rate < 4.8e6);

    CASE("the rate may change while connected");
    rig_write(g->backend, "rate", "80000,10000");
    CHECK(RIG_UNTIL((rate = measure_rate(v, g, 500)) > 6.4e6, RIG_PATIENCE_MS));
    CHECK(rate < 9.6e6);
    netback_detach(v);
    nb_guest_free(g);
}

int
main(void)
{
    rig_begin();
    rig_netback();
    test_packets();
    test_multicast();
    test_hash();
    test_static_grants();
    test_rate();
    int failed = check_done();
    rig_end();
    return failed;
}
