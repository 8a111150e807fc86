/* bench_ring: what the ring code costs by itself.
 *
 * One thread plays both sides; only the backend's bursts are on the clock.
 * Frames of 64 and 1,500 bytes and GSO frames of about 64 KiB, through grant
 * copy (a memcpy behind the operations table: no hypercall) and through
 * static grants.  Guest pages are warm, as after a guest on the same core.
 * "across" is from guest to guest through a buffer, "one copy" as it is where
 * frames larger than a page may be partial (ring.h).
 *
 * Prints one line a case: direction, frame, path, TSC cycles and packets a
 * second of backend time, and Gb/s.  The best of several rounds counts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>

#include "ring_guest.h"

#define BURST 32u
#define ROUNDS 7u
#define ROUND_PACKETS 40000u

struct bench_case {
    const char *name;
    unsigned payload; /* TCP payload; GSO above the MSS */
    enum { FROM_GUEST, TO_GUEST, ACROSS, ACROSS_ONE_COPY } way;
    bool mapped;
};

static struct ring_guest g;
static uint8_t frame[70000];
static struct rte_mbuf *pkts[64];

static uint64_t
turn_from_guest(const struct bench_case *c, uint32_t len, unsigned n, unsigned *done)
{
    netif_extra_info_t e = guest_gso(XEN_NETIF_GSO_TYPE_TCPV4, 1448);
    bool gso = c->payload > 1448, notify = false;

    for (unsigned i = 0; i < n; i++) {
        guest_tx_frame(&g, frame, len, gso ? NETTXF_csum_blank : 0, gso ? &e : NULL, HV_PAGE_SIZE);
    }
    g.gtx.may_defer = false;
    uint64_t start = rte_rdtsc();
    int taken = gtx_burst(&g.gtx, pkts, 64, &notify);
    uint64_t cycles = rte_rdtsc() - start;

    *done = taken;
    pkt_free_bulk(&g.pool, pkts, taken);
    guest_tx_responses(&g, 0);
    return cycles;
}

static void
offer(unsigned slots)
{
    for (; (RING_IDX)(g.rx.req_prod_pvt - g.grx.ring.req_cons) < slots; g.next_rx++) {
        unsigned buffer = g.next_rx % GUEST_RX_PAGES;
        *RING_GET_REQUEST(&g.rx, g.rx.req_prod_pvt++) =
            (netif_rx_request_t){buffer, 0, g.rx_ref[buffer]};
    }
    RING_PUSH_REQUESTS(&g.rx);
}

static uint64_t
turn_across(const struct bench_case *c, uint32_t len, unsigned n, unsigned *done)
{
    netif_extra_info_t e = guest_gso(XEN_NETIF_GSO_TYPE_TCPV4, 1448);
    bool gso = c->payload > 1448, notify = false;

    for (unsigned i = 0; i < n; i++) {
        guest_tx_frame(&g, frame, len, NETTXF_csum_blank, gso ? &e : NULL, HV_PAGE_SIZE);
    }
    offer(n * ((len + HV_PAGE_SIZE - 1) / HV_PAGE_SIZE + 1));
    g.gtx.may_defer = c->way == ACROSS_ONE_COPY;
    g.grx.from = &g.gtx;
    uint64_t start = rte_rdtsc();
    int taken = gtx_burst(&g.gtx, pkts, 64, &notify);
    *done = grx_burst(&g.grx, pkts, taken, &notify);
    gtx_settle(&g.gtx, &notify);
    uint64_t cycles = rte_rdtsc() - start;
    guest_tx_responses(&g, 0);
    g.rx.rsp_cons = g.rx.sring->rsp_prod;
    return cycles;
}

static uint64_t
turn_to_guest(const struct bench_case *c, uint32_t len, unsigned n, unsigned *done)
{
    unsigned slots = n * ((len + HV_PAGE_SIZE - 1) / HV_PAGE_SIZE + 1);
    bool notify = false;

    for (unsigned i = 0; i < n; i++) {
        pkts[i] = guest_mbuf(&g, frame, len);
        if (c->payload > 1448) {
            pkts[i]->ol_flags = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM;
            pkts[i]->tso_segsz = 1448;
        }
    }
    offer(slots);
    uint64_t start = rte_rdtsc();
    *done = grx_burst(&g.grx, pkts, n, &notify);
    return rte_rdtsc() - start;
}

/* Cycles a packet in the best round. */
static double
measure(const struct bench_case *c)
{
    uint32_t len =
        frame_build(frame, &(struct frame_spec){.payload = c->payload, .blank = c->payload > 1448});
    unsigned n = RTE_MIN(BURST, 240 / (len / HV_PAGE_SIZE + 2));
    double best = 1e18;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t cycles = 0, packets = 0;
        while (packets < ROUND_PACKETS / (1 + len / 2000)) {
            unsigned done = 0;
            cycles += c->way == FROM_GUEST ? turn_from_guest(c, len, n, &done)
                      : c->way == TO_GUEST ? turn_to_guest(c, len, n, &done)
                                           : turn_across(c, len, n, &done);
            if (done < n) {
                fprintf(stderr, "%s: a burst of %u gave %u\n", c->name, n, done);
                exit(1);
            }
            packets += n;
        }
        best = RTE_MIN(best, (double)cycles / packets);
    }
    return best;
}

int
main(void)
{
    static const struct {
        const char *name;
        unsigned payload;
    } sizes[] = {{"64 B", 10}, {"1500 B", 1446}, {"64 KiB GSO", 44 * 1448}};
    static const char *const ways[] = {"from guest", "to guest", "across", "one copy"};
    double hz;

    guest_init(&g);
    hz = rte_get_tsc_hz();
    printf("%-10s %-11s %-11s %10s %12s %8s\n", "direction", "frame", "path", "cycles/pkt", "pkt/s",
           "Gb/s");
    for (unsigned mapped = 0; mapped < 2; mapped++) {
        if (mapped && !guest_map_all(&g)) {
            return 1;
        }
        for (unsigned way = 0; way < 4; way++) {
            for (unsigned i = 0; i < 3; i++) {
                struct bench_case c = {sizes[i].name, sizes[i].payload, way, mapped};
                double cycles = measure(&c);
                printf("%-10s %-11s %-11s %10.0f %12.0f %8.2f\n", ways[way], c.name,
                       mapped ? "static" : "grant copy", cycles, hz / cycles,
                       hz / cycles * (c.payload + 54) * 8 / 1e9);
            }
        }
    }
    guest_done(&g);
    return 0;
}
