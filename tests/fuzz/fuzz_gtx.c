/* Fuzzes the guest transmit ring: slots, extras, page contents, indices,
 * revoked grants, changes in the middle of a copy, rate limits, reconnects. */
#include <errno.h>
#include <stdio.h>

#include "offload.h"
#include "ring_fuzz.h"

static struct ring_guest g;
static struct fuzz_input in;
static struct rte_mbuf *pkts[64];
static uint8_t frame[70000];
static bool mutate;
/* The MTU under which a second half was accepted that still waits. */
static uint16_t mtu_before;

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    ring_guest_env();
    return 0;
}

/* The guest writes while its memory is being copied. */
static void
mutate_guest(void *aux, const xengnttab_grant_copy_segment_t *seg)
{
    if (mutate) {
        unsigned at = fuzz_u16(&in);
        fake_page(g.hv, 0)[at % HV_PAGE_SIZE] = fuzz_u8(&in);
        g.tx_page[at % 8][fuzz_u16(&in) % HV_PAGE_SIZE] = fuzz_u8(&in);
    }
}

/* What the switch may rely on. */
static void
check_packet(const struct rte_mbuf *m)
{
    static uint8_t out[70000];
    const uint8_t *f = rte_pktmbuf_mtod(m, const uint8_t *);
    struct frame_layout l;
    struct gso_iter it;

    MUST(m->data_len == m->pkt_len && m->nb_segs == 1 && !m->next);
    MUST(m->data_len >= 14 && m->data_len <= NETBACK_FRAME_MAX);
    MUST(m->data_off >= NETBACK_HEADROOM && m->data_off + m->data_len <= m->buf_len);
    if (!(m->ol_flags & RTE_MBUF_F_TX_TCP_SEG)) {
        MUST(m->data_len <= RTE_MAX(atomic_load(&g.port.mtu), mtu_before) + 22 || mutate);
    }
    if (m->ol_flags & RTE_MBUF_F_TX_L4_MASK) {
        MUST(frame_parse(f, m->data_len, &l) && l.payload && !l.fragment);
        MUST(m->l2_len == l.l3 && m->l2_len + m->l3_len == l.l4);
        MUST(m->l2_len + m->l3_len + m->l4_len == l.payload);
    }
    if (m->ol_flags & RTE_MBUF_F_TX_TCP_SEG) {
        MUST(m->tso_segsz >= 48 && l.l3_end == m->data_len);
        MUST(gso_begin(&it, f, m->data_len, m->tso_segsz, GSO_TUNNEL_NONE, 0, false));
        MUST(gso_count(&it) <= 1400 && gso_next(&it, out, sizeof out) > 0);
    }
}

/* To the same guest, if it has room; the rest as to anybody else. */
static unsigned
hand_on(unsigned n, uint8_t how)
{
    bool notify = false;
    int done = 0;

    if (how & 1) {
        unsigned taken = g.rx.sring->rsp_prod - g.rx.rsp_cons;
        g.rx.rsp_cons += RTE_MIN(taken, RING_SLOTS);
        guest_rx_offer(&g, RTE_MIN(how, RING_SLOTS - (g.rx.req_prod_pvt - g.rx.rsp_cons)));
        g.grx.from = &g.gtx;
        done = grx_burst(&g.grx, pkts, n, &notify);
        MUST(done >= 0 && done <= (int)n);
    }
    memmove(pkts, pkts + done, (n - done) * sizeof *pkts);
    n -= done;
    if (how & 2) {
        n = gtx_complete(&g.gtx, pkts, n);
        for (unsigned i = 0; i < n; i++) {
            MUST(!gtx_is_partial(&g.gtx, pkts[i]));
        }
    }
    return n;
}

static void
run_burst(void)
{
    bool notify = false;
    unsigned room = fuzz_u8(&in) % 65;
    uint8_t how = fuzz_u8(&in);

    g.gtx.may_defer = how & 4;
    int n = gtx_burst(&g.gtx, pkts, room, &notify);

    MUST(n >= 0 || n == -EPROTO);
    for (int i = 0; i < n; i++) {
        check_packet(pkts[i]);
    }
    mtu_before = room ? 0 : mtu_before;
    n = n > 0 ? (int)hand_on(n, how) : 0;
    pkt_free_bulk(&g.pool, pkts, n);
    gtx_settle(&g.gtx, &notify);
    MUST(!g.gtx.n_partial);
    if (fuzz_u8(&in) & 1) {
        guest_tx_responses(&g, 0);
    }
}

static void
put_slot(void)
{
    uint16_t choice = fuzz_u16(&in), size = fuzz_u16(&in), offset = fuzz_u16(&in);
    uint32_t ref = choice & 0x8000 ? choice : g.tx_ref[choice % GUEST_TX_PAGES];

    guest_tx_slot(&g, ref, choice & 0x4000 ? offset : offset % HV_PAGE_SIZE,
                  choice & 0x2000 ? size : size % 2000, fuzz_u8(&in));
}

static void
put_extra(void)
{
    netif_extra_info_t e = {.type = fuzz_u8(&in), .flags = fuzz_u8(&in)};

    for (unsigned i = 0; i < 3; i++) {
        e.u.pad[i] = fuzz_u16(&in);
    }
    if (e.flags & 0x40) {
        e.type %= XEN_NETIF_EXTRA_TYPE_MAX;
    }
    guest_tx_extra(&g, &e);
}

static void
put_frame(void)
{
    uint32_t len = fuzz_frame(&in, frame, 65535);
    uint8_t how = fuzz_u8(&in);
    netif_extra_info_t e = guest_gso(how & 3, fuzz_u16(&in));

    if (g.tx.req_prod_pvt - g.tx.rsp_cons < 200) {
        guest_tx_frame(&g, frame, len, how >> 4, how & 8 ? &e : NULL, how & 4 ? 4096 : 40 + how);
    }
}

static void
poke(void)
{
    unsigned page = fuzz_u8(&in) % 16, at = fuzz_u16(&in), n = fuzz_u8(&in);

    for (unsigned i = 0; i < n; i++) {
        (page ? g.tx_page[page] : fake_page(g.hv, 0))[(at + i) % HV_PAGE_SIZE] = fuzz_u8(&in);
    }
}

static void
change_settings(void)
{
    uint8_t what = fuzz_u8(&in);

    switch (what % 8) {
    case 0:
        mtu_before = RTE_MAX(atomic_load(&g.port.mtu), mtu_before);
        atomic_store(&g.port.mtu, 68 + fuzz_u16(&in) % 64932);
        break;
    case 1:
        gtx_set_rate(&g.gtx, fuzz_u32(&in), fuzz_u32(&in));
        break;
    case 2:
        g.hv->now_ns += (uint64_t)fuzz_u32(&in) << (what >> 3);
        break;
    case 3:
        fake_revoke(g.hv, g.tx_ref[fuzz_u8(&in)]);
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
        g.hv->fail_copy = EFAULT;
        break;
    default:
        guest_reattach(&g);
        break;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    in = (struct fuzz_input){data, data + size};
    mutate = false;
    mtu_before = 0;
    guest_init(&g);
    g.hv->before_segment = mutate_guest;
    while (in.at < in.end && g.gtx.scratch) {
        switch (fuzz_u8(&in) % 10) {
        case 0:
        case 1:
            put_slot();
            break;
        case 2:
            put_extra();
            break;
        case 3:
        case 4:
            put_frame();
            break;
        case 5:
            poke();
            break;
        case 6:
            g.tx.sring->req_prod = fuzz_u32(&in);
            break;
        case 7:
            change_settings();
            break;
        default:
            guest_tx_push(&g);
            run_burst();
            gtx_arm(&g.gtx);
            break;
        }
    }
    MUST(g.hv->einval == 0 && g.hv->double_unmaps == 0);
    guest_done(&g);
    MUST(ring_buffers_lost() == 0);
    return 0;
}
