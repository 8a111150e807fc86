/* Where a grant copy costs by the pages of ours that it touches: large frames
 * come to lie, and are cut, so that a copy touches one. */
#include <string.h>

#include "check.h"
#include "ring_guest.h"

static struct ring_guest g;
static struct guest_packet got;
static struct hv_ops by_page;
static uint8_t frame[65536];
static unsigned segments, crossings;

static void
count_segment(void *aux, const xengnttab_grant_copy_segment_t *seg)
{
    const void *ours = seg->flags & GNTCOPY_source_gref ? seg->dest.virt : seg->source.virt;

    segments++;
    crossings += (uintptr_t)ours % HV_PAGE_SIZE + seg->len > HV_PAGE_SIZE;
}

static void
begin(const char *name)
{
    CASE(name);
    guest_init(&g);
    by_page = *g.hv->hv.ops;
    by_page.copies_by_page = true;
    g.hv->hv.ops = &by_page;
    g.hv->before_segment = count_segment;
    segments = crossings = 0;
    for (unsigned i = 0; i < sizeof frame; i++) {
        frame[i] = i * 11 + (i >> 8);
    }
    memcpy(frame, "\2\0\0\0\0\1\2\0\0\0\0\2\x88\xb5", 14);
    atomic_store(&g.port.mtu, 65000);
}

static void
end(void)
{
    guest_done(&g);
    CHECK(ring_buffers_lost() == 0);
}

static void
test_slide(void)
{
    begin("pages/a buffer's data moves, again and again");
    for (unsigned i = 0; i < 5000; i += 37) {
        struct rte_mbuf *m = pkt_alloc(&g.pool, NETBACK_FRAME_MAX);
        uint32_t ofs = i * 13 % 200, page_ofs = i % HV_PAGE_SIZE;

        pkt_slide(&g.pool, m, ofs, page_ofs);
        CHECK(((uintptr_t)rte_pktmbuf_mtod(m, uint8_t *) + ofs) % HV_PAGE_SIZE == page_ofs);
        CHECK(m->data_off == NETBACK_HEADROOM);
        char *room = rte_mbuf_buf_addr(m, m->pool), *addr = m->buf_addr;
        CHECK(addr >= room && addr < room + HV_PAGE_SIZE);
        /* The last byte is the element's. */
        CHECK(rte_pktmbuf_mtod(m, char *) + NETBACK_FRAME_MAX <= (char *)m + m->pool->elt_size);
        pkt_free(&g.pool, m);
    }
    struct rte_mbuf *m = pkt_alloc(&g.pool, 100);
    void *addr = m->buf_addr;
    pkt_slide(&g.pool, m, 0, 5);
    CHECK(m->buf_addr == addr); /* a small one stays */
    pkt_free(&g.pool, m);
    end();
}

static bool
deliver(uint32_t len, uint32_t page_ofs, unsigned slots)
{
    struct rte_mbuf *m = pkt_alloc(&g.pool, len);
    bool notify = false;

    pkt_slide(&g.pool, m, 0, page_ofs);
    memcpy(rte_pktmbuf_mtod(m, void *), frame, len);
    guest_rx_offer(&g, slots ? slots : grx_slots_needed(&g.grx, m));
    if (grx_burst(&g.grx, &m, 1, &notify) != 1) {
        pkt_free(&g.pool, m);
        return false;
    }
    return guest_rx_packet(&g, &got) && !got.error && !got.malformed && got.len == len &&
           !memcmp(got.data, frame, len);
}

static void
test_to_guest(void)
{
    begin("pages/to the guest: each copy within a page");
    for (uint32_t page_ofs = 0; page_ofs < HV_PAGE_SIZE; page_ofs += 157) {
        for (uint32_t len = 4097; len <= 65000; len += 6113) {
            uint32_t here = HV_PAGE_SIZE - page_ofs;

            segments = crossings = 0;
            /* grx_slots_needed() says exactly what it takes. */
            CHECK(deliver(len, page_ofs, 0));
            CHECK(got.n_slots <= (len + 4095) / 4096 + 1);
            CHECK(segments == got.n_slots);
            /* Headers stay together, at the price of copies across pages. */
            CHECK(here < 256 ? crossings : !crossings);
        }
    }
    end();

    begin("pages/to the guest: what fits one buffer stays whole");
    CHECK(deliver(4096, 4000, 1) && got.n_slots == 1);
    end();
}

static void
test_from_guest(void)
{
    begin("pages/from the guest: a run of pages is copied page by page");
    for (unsigned ofs = 0; ofs < HV_PAGE_SIZE; ofs += 311) {
        struct rte_mbuf *m[64];
        unsigned left = 40000, at = 66;

        /* As Linux sends: headers in a page of their own, then the payload,
         * which begins somewhere in a page and goes on through others. */
        memcpy(g.tx_page[0] + 100, frame, 66);
        guest_tx_slot(&g, g.tx_ref[0], 100, 66 + left, NETTXF_more_data);
        for (unsigned page = 1; left; page++) {
            unsigned from = page == 1 ? ofs : 0, n = HV_PAGE_SIZE - from;

            n = n < left ? n : left;
            left -= n;
            memcpy(g.tx_page[page] + from, frame + at, n);
            guest_tx_slot(&g, g.tx_ref[page], from, n, left ? NETTXF_more_data : 0);
            at += n;
        }
        guest_tx_push(&g);
        segments = crossings = 0;
        CHECK(guest_gtx_burst(&g, m) == 1);
        CHECK(m[0]->pkt_len == 40066 && !memcmp(rte_pktmbuf_mtod(m[0], void *), frame, 40066));
        CHECK(segments >= 11 && crossings <= 1); /* the headers may */
        pkt_free(&g.pool, m[0]);
        CHECK(guest_tx_responses(&g, NETIF_RSP_OKAY) >= 11);
    }
    end();
}

int
main(void)
{
    ring_guest_env();
    test_slide();
    test_to_guest();
    test_from_guest();
    return check_done();
}
