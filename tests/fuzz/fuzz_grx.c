/* Fuzzes the guest receive ring: any packet the switch may hand over, to any
 * combination of guest features, buffers good and bad; what a netfront would
 * read is checked against the protocol. */
#include <errno.h>
#include <stdio.h>

#include "offload.h"
#include "ring_fuzz.h"

static struct ring_guest g;
static struct guest_packet got;
static struct fuzz_input in;
static uint8_t frame[70000];
static bool mutate, ring_trusted;

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    ring_guest_env();
    return 0;
}

static void
mutate_guest(void *aux, const xengnttab_grant_copy_segment_t *seg)
{
    if (mutate) {
        fake_page(g.hv, 1)[fuzz_u16(&in) % HV_PAGE_SIZE] = fuzz_u8(&in);
        ring_trusted = false;
    }
}

static struct rte_mbuf *
any_packet(void)
{
    uint32_t len = fuzz_frame(&in, frame, NETBACK_FRAME_MAX);
    uint8_t flags = fuzz_u8(&in);
    struct rte_mbuf *m;

    if (flags & 0x80) {
        len = 1 + fuzz_u16(&in) % (len - 1);
    }
    m = guest_mbuf(&g, frame, len);
    m->ol_flags |= flags & 1 ? RTE_MBUF_F_TX_TCP_SEG : 0;
    m->ol_flags |= flags & 2 ? RTE_MBUF_F_TX_TCP_CKSUM : 0;
    m->ol_flags |= flags & 4 ? RTE_MBUF_F_TX_UDP_CKSUM : 0;
    m->ol_flags |= flags & 8 ? RTE_MBUF_F_RX_L4_CKSUM_GOOD : 0;
    m->tso_segsz = flags & 16 ? fuzz_u16(&in) : 0;
    return m;
}

static void
run_burst(void)
{
    struct rte_mbuf *m[8];
    unsigned n = fuzz_u8(&in) % 9;
    bool notify = false;

    for (unsigned i = 0; i < n; i++) {
        m[i] = any_packet();
    }
    int done = grx_burst(&g.grx, m, n, &notify);
    MUST(done == -EPROTO || (done >= 0 && done <= (int)n));
    if (done >= 0 && done < (int)n) {
        int slots = grx_slots(&g.grx);
        MUST(slots < 0 || !ring_trusted || grx_slots_needed(&g.grx, m[done]) > (unsigned)slots);
    }
    if (done < 0) {
        done = 0;
    }
    grx_arm(&g.grx, fuzz_u8(&in));
    pkt_free_bulk(&g.pool, m + done, n - done);
}

static void
take_packets(void)
{
    while (guest_rx_packet(&g, &got)) {
        MUST(!ring_trusted || !got.malformed);
        MUST(!ring_trusted || !got.gso.type || (got.flags & NETRXF_csum_blank));
        MUST(!ring_trusted || !got.gso.type || got.gso.u.gso.size);
    }
}

static void
change_settings(void)
{
    uint8_t what = fuzz_u8(&in), value = fuzz_u8(&in);

    switch (what % 8) {
    case 0:
        g.port.features =
            (struct guest_features){value & 1, value & 2, value & 4, value & 8, value & 16};
        break;
    case 1:
        atomic_store(&g.port.mtu, 68 + fuzz_u16(&in) % 64932);
        break;
    case 2:
        atomic_store(&g.hash.algorithm, value & 1);
        atomic_store(&g.hash.flags, value >> 1 & 15);
        break;
    case 3:
        fake_revoke(g.hv, g.rx_ref[value]);
        break;
    case 4:
        if (!g.grefs.n) {
            guest_map_all(&g);
        }
        break;
    case 5:
        mutate = !mutate;
        break;
    case 6:
        g.hv->fail_copy = ENOMEM;
        break;
    default:
        g.rx.sring->req_prod = fuzz_u32(&in);
        ring_trusted = false;
        break;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    in = (struct fuzz_input){data, data + size};
    mutate = false;
    ring_trusted = true;
    guest_init(&g);
    g.hv->before_segment = mutate_guest;
    while (in.at < in.end) {
        switch (fuzz_u8(&in) % 6) {
        case 0:
        case 1: {
            unsigned space = 256 - (g.rx.req_prod_pvt - g.rx.rsp_cons), n = fuzz_u8(&in);
            guest_rx_offer(&g, space > 256 ? 0 : n < space ? n : space);
            break;
        }
        case 2:
            change_settings();
            break;
        case 3:
            take_packets();
            break;
        default:
            run_burst();
            break;
        }
    }
    take_packets();
    MUST(g.hv->einval == 0 && g.hv->double_unmaps == 0);
    guest_done(&g);
    MUST(ring_buffers_lost() == 0);
    return 0;
}
