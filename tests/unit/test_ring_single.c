/* Packets of one slot take a short way where pages are under static grants: two
 * guests do the same, one of them without static grants, and get the same. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ring_guest.h"

#define N_TURNS 400u
#define SENT_MAX 512u

/* [0] has static grants, [1] has none. */
static struct ring_guest g[2];
static uint8_t frame[70000];
static struct rte_mbuf *out[2][SENT_MAX];
static unsigned n_out[2];

static void
begin(const char *name)
{
    CASE(name);
    srand(7);
    guest_init(&g[0]);
    guest_init(&g[1]);
    CHECK(guest_map_all(&g[0]));
}

static void
end(void)
{
    guest_done(&g[0]);
    guest_done(&g[1]);
    CHECK(ring_buffers_lost() == 0);
}

/* Of how copies were made they may not say the same. */
static bool
counter_matters(const char *name)
{
    return strcmp(name, "grant_copies") && strcmp(name, "grant_copy_segs") &&
           strcmp(name, "static_copies") && strcmp(name, "ctrl_requests");
}

static bool
same_counters(void)
{
    bool same = true;

#define X(name)                                                                                    \
    same &= !counter_matters(#name) || STAT_GET(g[0].stats.name) == STAT_GET(g[1].stats.name);
    NETBACK_COUNTERS(X)
#undef X
    for (unsigned i = 0; i < DROP_N_REASONS; i++) {
        same &= STAT_GET(g[0].stats.drops[i]) == STAT_GET(g[1].stats.drops[i]);
    }
    return same;
}

/* --- from the guest ------------------------------------------------------------ */

static uint32_t
any_frame(bool blank)
{
    return frame_build(frame, &(struct frame_spec){.v6 = rand() & 1,
                                                   .udp = rand() & 1,
                                                   .blank = blank,
                                                   .payload = rand() % (rand() & 1 ? 30 : 1400),
                                                   .seq = rand()});
}

/* One slot, all of it or not what it should be. */
static void
send_slot(uint32_t len, uint16_t flags, int bad)
{
    unsigned offset = rand() % (HV_PAGE_SIZE - len), page = g[0].next_tx_page % GUEST_TX_PAGES;

    for (unsigned i = 0; i < 2; i++) {
        uint32_t ref = bad == 1 ? 60000 : g[i].tx_ref[page];

        g[i].next_tx_page++;
        memcpy(g[i].tx_page[page] + offset, frame, len);
        guest_tx_slot(&g[i], ref, bad == 2 ? HV_PAGE_SIZE - len + 1 : offset,
                      bad == 3   ? rand() % 14
                      : bad == 4 ? 1523
                                 : len,
                      flags);
    }
}

static void
send_chain(uint32_t len, const netif_extra_info_t *e, uint16_t flags, uint16_t per_slot)
{
    guest_tx_frame(&g[0], frame, len, flags, e, per_slot);
    guest_tx_frame(&g[1], frame, len, flags, e, per_slot);
}

static void
send_any(void)
{
    netif_extra_info_t e = guest_gso(XEN_NETIF_GSO_TYPE_TCPV4, 1000);
    unsigned kind = rand() % 16;
    uint32_t len = any_frame(kind & 1);

    switch (kind) {
    case 12: /* blank, but nothing to fill in */
        frame[12] = 0x12;
        send_slot(len, NETTXF_csum_blank, 0);
        break;
    case 13:
        send_slot(len, 0, 1 + rand() % 4);
        break;
    case 14:
        send_chain(len, NULL, 0, 30);
        break;
    case 15:
        len = frame_build(frame, &(struct frame_spec){.payload = 9000, .blank = true});
        send_chain(len, &e, NETTXF_csum_blank, 4000);
        break;
    default:
        send_slot(len, (kind & 1 ? NETTXF_csum_blank : 0) | (kind & 2 ? NETTXF_data_validated : 0),
                  0);
        break;
    }
}

/* Takes all there is, in bursts and turns of any size. */
static void
drain(unsigned i, unsigned seed)
{
    int n = 0, idle = 0;

    n_out[i] = 0;
    srand(seed);
    while (n >= 0 && idle < 3) {
        bool notify = false;

        g[i].gtx.turn_left = rand() % 3 ? SIZE_MAX : 1 + rand() % 5000;
        n = gtx_burst(&g[i].gtx, out[i] + n_out[i], 1 + rand() % 64, &notify);
        n_out[i] += n > 0 ? n : 0;
        idle = n || gtx_pending(&g[i].gtx) ? 0 : idle + 1;
    }
    CHECK(n == 0);
}

static bool
same_packet(const struct rte_mbuf *a, const struct rte_mbuf *b)
{
    return a->data_len == b->data_len && a->pkt_len == b->pkt_len && a->ol_flags == b->ol_flags &&
           a->nb_segs == 1 && a->data_off == b->data_off && a->packet_type == b->packet_type &&
           a->vlan_tci == b->vlan_tci && a->port == b->port &&
           (!(a->ol_flags & RTE_MBUF_F_TX_L4_MASK) || a->tx_offload == b->tx_offload) &&
           !memcmp(rte_pktmbuf_mtod(a, void *), rte_pktmbuf_mtod(b, void *), a->data_len);
}

static bool
same_answers(void)
{
    netif_tx_response_t a, b;

    while (guest_tx_response(&g[0], &a)) {
        if (!guest_tx_response(&g[1], &b) || a.id != b.id || a.status != b.status) {
            return false;
        }
    }
    return !guest_tx_response(&g[1], &b);
}

static void
test_from_guest(void)
{
    begin("single/from the guest, as the long way");
    for (unsigned turn = 0; turn < N_TURNS; turn++) {
        while (RING_FREE_REQUESTS(&g[0].tx) > 60) {
            send_any();
        }
        guest_tx_push(&g[0]);
        guest_tx_push(&g[1]);
        unsigned seed = rand();
        drain(0, seed);
        drain(1, seed);
        srand(seed);
        CHECK(n_out[0] == n_out[1]);
        for (unsigned i = 0; i < n_out[0] && n_out[0] == n_out[1]; i++) {
            CHECK(same_packet(out[0][i], out[1][i]));
        }
        CHECK(same_answers());
        pkt_free_bulk(&g[0].pool, out[0], n_out[0]);
        pkt_free_bulk(&g[1].pool, out[1], n_out[1]);
    }
    CHECK(same_counters());
    /* What this is about has been, and so have errors. */
    CHECK(STAT_GET(g[0].stats.static_copies) > 100 * N_TURNS / 2);
    CHECK(STAT_GET(g[0].stats.drops[DROP_GTX_BAD_GSO]) && STAT_GET(g[0].stats.rx_gso));
    CHECK(STAT_GET(g[0].stats.drops[DROP_GTX_BAD_GRANT]));
    end();
}

static void
test_no_buffer(void)
{
    struct rte_mbuf *all[4096], *got[64];
    netif_tx_response_t rsp;
    unsigned n = 0;

    CASE("single/no buffer: dropped and answered");
    guest_init(&g[0]);
    CHECK(guest_map_all(&g[0]));
    while (n < 4096 && (all[n] = pkt_alloc(&g[0].pool, 60))) {
        n++;
    }
    CHECK(n > 2);
    pkt_free(&g[0].pool, all[--n]);
    uint32_t len = frame_build(frame, &(struct frame_spec){.payload = 10});
    guest_tx_frame(&g[0], frame, len, 0, NULL, HV_PAGE_SIZE);
    guest_tx_frame(&g[0], frame, len, 0, NULL, HV_PAGE_SIZE);
    CHECK(guest_gtx_burst(&g[0], got) == 1);
    CHECK(guest_tx_response(&g[0], &rsp) && rsp.status == NETIF_RSP_OKAY);
    CHECK(guest_tx_response(&g[0], &rsp) && rsp.status == NETIF_RSP_DROPPED);
    CHECK(STAT_GET(g[0].stats.drops[DROP_GTX_NO_BUFFER]) == 1);
    pkt_free_bulk(&g[0].pool, got, 1);
    pkt_free_bulk(&g[0].pool, all, n);
    guest_done(&g[0]);
    CHECK(ring_buffers_lost() == 0);
}

/* --- to the guest --------------------------------------------------------------- */

static struct guest_packet got[2];

static struct rte_mbuf *
any_packet(struct ring_guest *to, uint32_t len, unsigned how)
{
    struct rte_mbuf *m = guest_mbuf(to, frame, len);

    if (how < 3) { /* blank; or what says so, and is not */
        m->ol_flags = RTE_MBUF_F_TX_TCP_CKSUM | (how == 2 ? RTE_MBUF_F_TX_TCP_SEG : 0);
        m->tso_segsz = how == 2 ? 1400 : 0;
    } else if (how == 3) {
        m->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    }
    return m;
}

/* The guest's next packet takes one slot; nothing else was written to its page. */
static bool
page_is_clean(struct ring_guest *to)
{
    netif_rx_response_t rsp = *RING_GET_RESPONSE(&to->rx, to->rx.rsp_cons);
    const uint8_t *page = to->rx_page[rsp.id % GUEST_RX_PAGES];

    for (unsigned i = 0; i < HV_PAGE_SIZE; i++) {
        if ((i < rsp.offset || i >= rsp.offset + rsp.status) && page[i] != GUEST_POISON) {
            return false;
        }
    }
    return rsp.offset + rsp.status <= HV_PAGE_SIZE;
}

static bool
same_received(void)
{
    while (g[0].rx.rsp_cons != g[0].rx.sring->rsp_prod) {
        uint16_t flags = RING_GET_RESPONSE(&g[0].rx, g[0].rx.rsp_cons)->flags;
        if (!(flags & (NETRXF_more_data | NETRXF_extra_info)) && !page_is_clean(&g[0])) {
            return false;
        }
        if (!guest_rx_packet(&g[0], &got[0]) || !guest_rx_packet(&g[1], &got[1]) ||
            got[0].malformed || got[0].error || got[0].flags != got[1].flags ||
            got[0].n_slots != got[1].n_slots || got[0].len != got[1].len ||
            memcmp(&got[0].gso, &got[1].gso, sizeof got[0].gso) ||
            memcmp(got[0].data, got[1].data, got[0].len)) {
            return false;
        }
    }
    return !guest_rx_packet(&g[1], &got[1]);
}

static void
deliver_any(unsigned n)
{
    struct rte_mbuf *pkts[2][64];
    bool notify = false;

    for (unsigned k = 0; k < n; k++) {
        unsigned how = rand() % 24;
        uint32_t len =
            how == 2 ? frame_build(frame, &(struct frame_spec){.payload = 5000, .blank = true})
                     : any_frame(how < 3);
        len = how == 4 ? 1523 : how == 5 ? 1 : len;
        pkts[0][k] = any_packet(&g[0], len, how);
        pkts[1][k] = any_packet(&g[1], len, how);
    }
    int done[2] = {grx_burst(&g[0].grx, pkts[0], n, &notify),
                   grx_burst(&g[1].grx, pkts[1], n, &notify)};
    CHECK(done[0] >= 0 && done[0] == done[1]);
    pkt_free_bulk(&g[0].pool, pkts[0] + done[0], n - done[0]);
    pkt_free_bulk(&g[1].pool, pkts[1] + done[1], n - done[1]);
}

static void
test_to_guest(void)
{
    begin("single/to the guest, as the long way");
    for (unsigned turn = 0; turn < N_TURNS; turn++) {
        struct guest_features f = {rand() & 1, rand() & 1, rand() & 1, rand() & 1, rand() & 1};
        unsigned room = 256 - (g[0].rx.req_prod_pvt - g[0].rx.rsp_cons), n = rand() % 80;

        g[0].port.features = g[1].port.features = f;
        n = n < room ? n : room;
        guest_rx_offer(&g[0], n);
        guest_rx_offer(&g[1], n);
        deliver_any(rand() % 64);
        CHECK(same_received());
    }
    CHECK(same_counters());
    CHECK(STAT_GET(g[0].stats.static_copies) > 5 * N_TURNS);
    CHECK(STAT_GET(g[0].stats.csum_computed) && STAT_GET(g[0].stats.tx_gso));
    end();
}

/* A burst's first lines must not share a set of the first cache. */
static void
test_places(void)
{
    struct rte_mbuf *pkts[64];
    unsigned lines[64] = {0}, most = 0;
    bool notify = false;

    CASE("single/frames to the guest do not lie at one place of all pages");
    guest_init(&g[0]);
    CHECK(guest_map_all(&g[0]));
    guest_rx_offer(&g[0], 64);
    uint32_t len = frame_build(frame, &(struct frame_spec){.payload = 10});
    for (unsigned i = 0; i < 64; i++) {
        pkts[i] = guest_mbuf(&g[0], frame, len);
    }
    CHECK(grx_burst(&g[0].grx, pkts, 64, &notify) == 64);
    for (unsigned i = 0; i < 64; i++) {
        netif_rx_response_t rsp = *RING_GET_RESPONSE(&g[0].rx, i);

        CHECK(rsp.offset % 64 == 0 && rsp.offset + len <= HV_PAGE_SIZE);
        most = RTE_MAX(most, ++lines[rsp.offset / 64 % 64]);
    }
    CHECK(most <= 2);
    guest_done(&g[0]);
    CHECK(ring_buffers_lost() == 0);
}

int
main(void)
{
    ring_guest_env();
    test_from_guest();
    test_no_buffer();
    test_to_guest();
    test_places();
    return check_done();
}
