/* What of a moving vif comes as bytes from another host: late frames and what the
 * guest asked its backend for.  Both hostile. */
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "late.h"
#include "nb_guest.h"
#include "nb_rig.h"
#include "ring_guest.h" /* frame_build() */

static uint8_t frame[65536], msg[LATE_MAX], again[LATE_MAX];

static struct rte_mbuf *
tcp(unsigned payload, bool v6, uint16_t mss)
{
    uint32_t len =
        frame_build(frame, &(struct frame_spec){.v6 = v6, .blank = true, .payload = payload});
    struct rte_mbuf *m = rig_mbuf(frame, len);

    m->ol_flags = RTE_MBUF_F_TX_TCP_CKSUM | (v6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4);
    m->ol_flags |= mss ? RTE_MBUF_F_TX_TCP_SEG : 0;
    m->tso_segsz = mss;
    return m;
}

/* True if the mbuf comes back as it was. */
static bool
round_trip(struct rte_mbuf *m)
{
    size_t len = late_encode(m, msg), frame_len = late_check(msg, len);
    struct rte_mbuf *back = rte_pktmbuf_alloc(m->data_len > 1500 ? rig_large : rig_small);
    bool good = len == LATE_HEADER + m->data_len && frame_len == m->data_len &&
                !late_decode(msg, frame_len, back) && back->data_len == m->data_len &&
                back->pkt_len == m->data_len && back->ol_flags == m->ol_flags &&
                (!(m->ol_flags & RTE_MBUF_F_TX_TCP_SEG) || back->tso_segsz == m->tso_segsz) &&
                !memcmp(rte_pktmbuf_mtod(back, void *), rte_pktmbuf_mtod(m, void *), m->data_len);

    rte_pktmbuf_free(back);
    rte_pktmbuf_free(m);
    return good;
}

static void
test_late(void)
{
    struct rte_mbuf *m;

    CASE("late frames: there and back with their offloads");
    memset(frame, 0x5a, sizeof frame);
    CHECK(round_trip(rig_mbuf(frame, 14)));
    CHECK(round_trip(tcp(1000, false, 0)) && round_trip(tcp(1000, true, 0)));
    CHECK(round_trip(tcp(60000, false, 1448)) && round_trip(tcp(60000, true, 1428)));
    m = tcp(200, false, 0);
    m->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    CHECK(round_trip(m));

    CASE("late frames: a wish that the frame cannot have is dropped on the way out");
    memset(frame, 0, 100);
    m = rig_mbuf(frame, 100);
    m->ol_flags = RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4;
    CHECK(late_encode(m, msg) == 108 && msg[1] == 0 && late_check(msg, 108) == 100);

    CASE("late frames: what is none is refused");
    msg[1] = LATE_SUM_BLANK; /* of no TCP or UDP */
    CHECK(!late_check(msg, 108));
    msg[1] = LATE_SUM_GOOD | LATE_SUM_BLANK;
    CHECK(!late_check(msg, 108));
    msg[1] = 8;
    CHECK(!late_check(msg, 108));
    msg[1] = 0;
    CHECK(!late_check(msg, 107) && !late_check(msg, 7) && !late_check(msg, 0));
    put_le16(msg + 2, 1448); /* a segment size of nothing */
    CHECK(!late_check(msg, 108));
    put_le16(msg + 2, 0);
    msg[0] = 2;
    CHECK(!late_check(msg, 108));
    rte_pktmbuf_free(m);

    CASE("late frames: too large for the buffer at hand");
    m = tcp(3000, false, 1000);
    size_t len = late_encode(m, msg);
    struct rte_mbuf *small = rte_pktmbuf_alloc(rig_small);
    CHECK(late_check(msg, len) && late_decode(msg, len - LATE_HEADER, small));
    rte_pktmbuf_free(small);

    CASE("late frames: any bytes changed: taken or refused, and what is taken is sound");
    unsigned taken = 0;
    bool good = true;
    srandom(3);
    for (int i = 0; i < 30000; i++) {
        memcpy(again, msg, len);
        for (long k = random() % 4; k >= 0; k--) {
            again[random() % (random() % 2 ? 64 : len)] = random();
        }
        uint8_t *exact = malloc(len);
        memcpy(exact, again, len);
        size_t n = late_check(exact, len);
        if (n) {
            struct rte_mbuf *back = rte_pktmbuf_alloc(rig_large);

            taken++;
            good &= !late_decode(exact, n, back) && back->data_len == n &&
                    (!(back->ol_flags & RTE_MBUF_F_TX_TCP_SEG) || back->tso_segsz) &&
                    late_encode(back, again) == len;
            rte_pktmbuf_free(back);
        }
        free(exact);
    }
    CHECK(good && taken > 1000 && taken < 30000);
    rte_pktmbuf_free(m);
}

static void
test_carried(void)
{
    static const uint8_t group[6] = {1, 0, 0x5e, 1, 2, 3};
    const struct nb_options o = {.n_queues = 2, .ctrl = true, .mcast_control = true};
    struct nb_guest *g = nb_guest_new(30, NULL), *h = nb_guest_new(31, NULL);
    struct netback_vif *v = rig_attach(30), *w = rig_attach(31);
    uint8_t there[NETBACK_CARRY_MAX], back[NETBACK_CARRY_MAX];
    uint32_t data;

    CASE("settings: what the guest had asked for, at its new backend");
    CHECK(nb_connect(g, &o) && nb_tx_mcast(&g->q[0], group, true) == NETIF_RSP_OKAY);
    CHECK(!nb_ctrl(g, XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM,
                   XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ, 0, 0, &data));
    CHECK(!nb_ctrl(g, XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS, XEN_NETIF_CTRL_HASH_TYPE_IPV4, 0, 0,
                   &data));
    CHECK(!nb_ctrl(g, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE, 4, 0, 0, &data));
    size_t len = netback_export(v, there);
    CHECK(len == 60 + 2 * 4 + 6 && get_le32(there + 4) == 1 && get_le32(there + 52) == 4);
    CHECK(!memcmp(there + len - 6, group, 6));
    CHECK(netback_import(v, there, len)); /* it is connected */
    CHECK(netback_import(w, there, len) == 0);
    CHECK(nb_connect(h, &o) && netback_export(w, back) == len && !memcmp(there, back, len));

    CASE("settings: for that connection only");
    CHECK(nb_close(h) && nb_reinit(h) && nb_connect(h, &o));
    CHECK(netback_export(w, back) == 60);

    CASE("settings: hostile ones are refused whole");
    bool good = true;
    for (size_t n = 0; n < len; n++) {
        uint8_t *cut = malloc(n + 1);
        memcpy(cut, there, n);
        good &= !netback_import_check(cut, n);
        free(cut);
    }
    CHECK(good && netback_import_check(there, len));
    static const struct {
        uint8_t at, value;
    } bad[] = {{0, 2}, {4, 9}, {8, 16}, {52, 5}, {53, 0xff}, {56, 2}, {58, 1}, {60, 8}, {68, 2}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        memcpy(back, there, len);
        back[bad[i].at] = bad[i].value;
        CHECK(!netback_import_check(back, len));
    }

    CASE("counters go on where they were");
    netback_continue_stats(w, &(struct netback_stats){.rx_packets = 1000, .tx_bytes = 5000});
    struct netback_stats s = rig_stats(w);
    CHECK(s.rx_packets >= 1000 && s.tx_bytes >= 5000 && s.rx_packets < 1100);
    CHECK(nb_close(g) && nb_close(h));
    netback_detach(v);
    netback_detach(w);
    nb_guest_free(g);
    nb_guest_free(h);
}

static void
test_inject(void)
{
    struct nb_guest *g = nb_guest_new(32, NULL);
    struct netback_vif *v = rig_attach(32);
    uint8_t data[60] = {1, 2, 3};
    struct rte_mbuf *m = rig_mbuf(data, sizeof data), *back;

    CASE("frames said for the guest reach the switch, once it is there");
    CHECK(netback_inject(v, &m, 1));
    CHECK(nb_connect(g, NULL) && netback_inject(v, &m, 1) == 0);
    CHECK(rig_collect(v, &back, NULL, 1, RIG_PATIENCE_MS) == 1 && back == m);
    CHECK(netback_hold(v) == 0 && netback_inject(v, &m, 1));
    CHECK(netback_release(v) == 0 && netback_inject(v, &m, 1) == 0);
    CHECK(rig_collect(v, &back, NULL, 1, RIG_PATIENCE_MS) == 1);
    rig_free(&back, 1);
    CHECK(nb_close(g));
    netback_detach(v);
    nb_guest_free(g);
}

int
main(void)
{
    rig_begin();
    rig_netback();
    test_late();
    test_carried();
    test_inject();
    int failed = check_done();
    rig_end();
    return failed;
}
