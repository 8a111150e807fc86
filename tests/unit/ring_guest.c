/* ring_guest: see ring_guest.h. */
#include "ring_guest.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>

#include "offload.h"

#define N_SMALL 2048u
#define N_LARGE 96u
#define SMALL_ROOM (NETBACK_HEADROOM + 1664u)
#define LARGE_ROOM (NETBACK_HEADROOM + NETBACK_FRAME_MAX)
#define N_GRANTS (GUEST_N_PAGES + 8u)

struct rte_mempool *ring_small, *ring_large;

/* With a page to spare in each element, as the switch's (pkt_slide()). */
static struct rte_mempool *
create_large(void)
{
    struct rte_pktmbuf_pool_private priv = {.mbuf_data_room_size = LARGE_ROOM};
    struct rte_mempool *mp = rte_mempool_create_empty(
        "large", N_LARGE, sizeof(struct rte_mbuf) + LARGE_ROOM + HV_PAGE_SIZE, 0, sizeof priv,
        SOCKET_ID_ANY, RTE_MEMPOOL_F_NO_IOVA_CONTIG);

    if (!mp || rte_mempool_set_ops_byname(mp, "lf_stack", NULL)) {
        return NULL;
    }
    rte_pktmbuf_pool_init(mp, &priv);
    if (rte_mempool_populate_default(mp) < 0) {
        return NULL;
    }
    rte_mempool_obj_iter(mp, rte_pktmbuf_init, NULL);
    return mp;
}

void
ring_guest_env(void)
{
    char *argv[] = {"ring",        "--no-huge",    "--no-pci", "--no-telemetry",
                    "--no-shconf", "-m",           "128",      "-l",
                    "0",           "--log-level",  "lib.*:1",  "--file-prefix",
                    "weft-test",   "--legacy-mem", NULL};

    if (ring_small) {
        return;
    }
    if (rte_eal_init(sizeof argv / sizeof argv[0] - 1, argv) < 0) {
        fprintf(stderr, "EAL does not start\n");
        exit(2);
    }
    ring_small = rte_pktmbuf_pool_create_by_ops("small", N_SMALL, 0, 0, SMALL_ROOM, SOCKET_ID_ANY,
                                                "lf_stack");
    ring_large = create_large();
    if (!ring_small || !ring_large) {
        fprintf(stderr, "no mempools\n");
        exit(2);
    }
}

unsigned
ring_buffers_lost(void)
{
    return N_SMALL - rte_mempool_avail_count(ring_small) + N_LARGE -
           rte_mempool_avail_count(ring_large);
}

/* --- the backend's hooks ----------------------------------------------------- */

static unsigned
hook_limit(void *g, unsigned queue)
{
    return ((struct ring_guest *)g)->grefs.limit;
}

static int
hook_add(void *g_, unsigned queue, const struct xen_netif_gref *list, unsigned n)
{
    struct ring_guest *g = g_;

    return gref_table_add(&g->grefs, g->hv->hv.ops, g->hv->grants, g->hv->domid, list, n);
}

static int
hook_del(void *g_, unsigned queue, uint32_t ref)
{
    struct ring_guest *g = g_;

    return gref_table_del(&g->grefs, g->hv->hv.ops, g->hv->grants, ref);
}

static void
hook_hash(void *g)
{
    ((struct ring_guest *)g)->hash_changes++;
}

static void
hook_mcast(void *g)
{
    ((struct ring_guest *)g)->mcast_changes++;
}

static const struct ctrl_hooks hooks = {hook_limit, hook_add, hook_del, hook_hash};

/* --- life -------------------------------------------------------------------- */

static void
guest_pages(struct ring_guest *g)
{
    for (unsigned i = 0; i < GUEST_TX_PAGES; i++) {
        g->tx_page[i] = fake_page(g->hv, 4 + i);
        g->tx_ref[i] = fake_grant(g->hv, 4 + i, true);
    }
    for (unsigned i = 0; i < GUEST_RX_PAGES; i++) {
        g->rx_page[i] = fake_page(g->hv, 4 + GUEST_TX_PAGES + i);
        g->rx_ref[i] = fake_grant(g->hv, 4 + GUEST_TX_PAGES + i, false);
    }
    g->scratch_page = fake_page(g->hv, 3);
    g->scratch_ref = fake_grant(g->hv, 3, false);
}

static void
guest_rings(struct ring_guest *g)
{
    memset(fake_page(g->hv, 0), GUEST_POISON, 3 * HV_PAGE_SIZE);
    XEN_FRONT_RING_INIT(&g->tx, (netif_tx_sring_t *)fake_page(g->hv, 0), HV_PAGE_SIZE);
    XEN_FRONT_RING_INIT(&g->rx, (netif_rx_sring_t *)fake_page(g->hv, 1), HV_PAGE_SIZE);
    XEN_FRONT_RING_INIT(&g->ctrl, (struct xen_netif_ctrl_sring *)fake_page(g->hv, 2), HV_PAGE_SIZE);
}

void
guest_init(struct ring_guest *g)
{
    memset(g, 0, sizeof *g);
    ring_guest_env();
    g->hv = fake_hv_new(GUEST_N_PAGES, N_GRANTS);
    guest_pages(g);
    guest_rings(g);
    g->grefs.limit = 1024;
    pkt_pool_init(&g->pool, ring_small, ring_large, NULL);
    if (hash_settings_init(&g->hash)) {
        abort();
    }
    g->port = (struct ring_port){
        .hv = &g->hv->hv,
        .grants = g->hv->grants,
        .domid = g->hv->domid,
        .features = {true, true, true, true, true},
        .mtu = 1500,
        .pool = &g->pool,
        .grefs = &g->grefs,
        .hash = &g->hash,
        .mcast = &g->mcast,
        .stats = &g->stats,
        .mcast_changed = hook_mcast,
        .aux = g,
    };
    g->back_ctrl = (struct ctrl){
        .hv = &g->hv->hv,
        .grants = g->hv->grants,
        .domid = g->hv->domid,
        .n_queues = 4,
        .hash = &g->hash,
        .stats = &g->stats,
        .hooks = &hooks,
        .aux = g,
    };
    if (guest_reattach(g)) {
        abort();
    }
}

int
guest_reattach(struct ring_guest *g)
{
    int error;

    gtx_done(&g->gtx);
    grx_done(&g->grx);
    error = gtx_init(&g->gtx, &g->port, g->tx.sring);
    error = error ? error : grx_init(&g->grx, &g->port, g->rx.sring);
    return error ? error : ctrl_init(&g->back_ctrl, g->ctrl.sring);
}

void
guest_done(struct ring_guest *g)
{
    gtx_done(&g->gtx);
    grx_done(&g->grx);
    gref_table_clear(&g->grefs, g->hv->hv.ops, g->hv->grants);
    hash_settings_done(&g->hash);
    pkt_pool_done(&g->pool);
    fake_hv_free(g->hv);
}

bool
guest_map_all(struct ring_guest *g)
{
    struct xen_netif_gref *list = (void *)g->scratch_page;

    for (unsigned i = 0; i < GUEST_TX_PAGES; i++) {
        list[i] = (struct xen_netif_gref){g->tx_ref[i], XEN_NETIF_CTRLF_GREF_readonly, 0};
        list[GUEST_TX_PAGES + i] = (struct xen_netif_gref){g->rx_ref[i], 0, 0};
    }
    return guest_ctrl(g, XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING, 0, g->scratch_ref,
                      GUEST_TX_PAGES + GUEST_RX_PAGES)
               .status == XEN_NETIF_CTRL_STATUS_SUCCESS;
}

/* --- transmit ------------------------------------------------------------------ */

void
guest_tx_slot(struct ring_guest *g, uint32_t ref, uint16_t offset, uint16_t size, uint16_t flags)
{
    RING_IDX i = g->tx.req_prod_pvt++;

    *RING_GET_REQUEST(&g->tx, i) = (netif_tx_request_t){ref, offset, flags, i, size};
}

void
guest_tx_extra(struct ring_guest *g, const netif_extra_info_t *e)
{
    memcpy(RING_GET_REQUEST(&g->tx, g->tx.req_prod_pvt++), e, sizeof *e);
}

void
guest_tx_push(struct ring_guest *g)
{
    RING_PUSH_REQUESTS(&g->tx);
}

void
guest_tx_frame(struct ring_guest *g, const uint8_t *frame, uint16_t len, uint16_t flags,
               const netif_extra_info_t *extra, uint16_t per_slot)
{
    unsigned done = 0;

    do {
        unsigned page = g->next_tx_page++ % GUEST_TX_PAGES;
        unsigned n = len - done < per_slot ? len - done : per_slot;
        unsigned offset = HV_PAGE_SIZE - n; /* ends on the page's last byte */
        bool more = done + n < len;

        memcpy(g->tx_page[page] + offset, frame + done, n);
        guest_tx_slot(g, g->tx_ref[page], offset, done ? n : len,
                      (done ? 0 : flags) | (more ? NETTXF_more_data : 0) |
                          (!done && extra ? NETTXF_extra_info : 0));
        if (!done && extra) {
            guest_tx_extra(g, extra);
        }
        done += n;
    } while (done < len);
    guest_tx_push(g);
}

/* True if there is a response to take.  A guest that forged its own page's
 * index has none. */
static bool
responses_wait(RING_IDX cons, const RING_IDX *prod)
{
    RING_IDX n = __atomic_load_n(prod, __ATOMIC_ACQUIRE) - cons;

    return n && n <= 256;
}

bool
guest_tx_response(struct ring_guest *g, netif_tx_response_t *rsp)
{
    if (!responses_wait(g->tx.rsp_cons, &g->tx.sring->rsp_prod)) {
        return false;
    }
    *rsp = *RING_GET_RESPONSE(&g->tx, g->tx.rsp_cons++);
    return true;
}

unsigned
guest_tx_responses(struct ring_guest *g, int16_t status)
{
    netif_tx_response_t rsp;
    unsigned n = 0;

    while (guest_tx_response(g, &rsp)) {
        n += rsp.status == status;
    }
    return n;
}

int
guest_gtx_burst(struct ring_guest *g, struct rte_mbuf **pkts)
{
    bool notify = false;

    return gtx_burst(&g->gtx, pkts, 64, &notify);
}

netif_extra_info_t
guest_gso(uint8_t type, uint16_t mss)
{
    return (netif_extra_info_t){.type = XEN_NETIF_EXTRA_TYPE_GSO, .u.gso = {mss, type, 0, 0}};
}

/* --- receive --------------------------------------------------------------------- */

void
guest_rx_offer(struct ring_guest *g, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        RING_IDX at = g->rx.req_prod_pvt++;
        unsigned buffer = g->next_rx++ % GUEST_RX_PAGES;

        memset(g->rx_page[buffer], GUEST_POISON, HV_PAGE_SIZE);
        g->rx_id[at % 256] = buffer;
        *RING_GET_REQUEST(&g->rx, at) = (netif_rx_request_t){buffer, 0, g->rx_ref[buffer]};
    }
    RING_PUSH_REQUESTS(&g->rx);
}

static bool
rx_next(struct ring_guest *g, netif_rx_response_t *rsp, unsigned *buffer)
{
    if (!responses_wait(g->rx.rsp_cons, &g->rx.sring->rsp_prod)) {
        return false;
    }
    *buffer = g->rx_id[g->rx.rsp_cons % 256];
    *rsp = *RING_GET_RESPONSE(&g->rx, g->rx.rsp_cons++);
    return true;
}

/* Reads the extras after slot 0. */
static void
rx_extras(struct ring_guest *g, struct guest_packet *p)
{
    netif_rx_response_t rsp;
    netif_extra_info_t e;
    unsigned buffer;

    do {
        if (!rx_next(g, &rsp, &buffer)) {
            p->malformed = true;
            return;
        }
        p->n_slots++;
        memcpy(&e, &rsp, sizeof e);
        if (e.type == XEN_NETIF_EXTRA_TYPE_GSO && !p->gso.type) {
            p->gso = e;
        } else if (e.type == XEN_NETIF_EXTRA_TYPE_HASH && !p->hash.type) {
            p->hash = e;
        } else {
            p->malformed = true;
        }
    } while (e.flags & XEN_NETIF_EXTRA_FLAG_MORE);
}

bool
guest_rx_packet(struct ring_guest *g, struct guest_packet *p)
{
    netif_rx_response_t rsp;
    unsigned buffer;
    bool more;

    memset(p, 0, offsetof(struct guest_packet, data));
    if (!rx_next(g, &rsp, &buffer)) {
        return false;
    }
    p->flags = rsp.flags;
    do {
        more = rsp.flags & NETRXF_more_data;
        p->n_slots++;
        p->malformed |= rsp.id != buffer;
        p->malformed |= p->n_slots > 1 && (rsp.flags & ~NETRXF_more_data);
        if (rsp.status < 0) {
            p->error = true;
        } else if (rsp.offset + rsp.status > HV_PAGE_SIZE || p->len + rsp.status > sizeof p->data) {
            p->malformed = true;
        } else {
            memcpy(p->data + p->len, g->rx_page[buffer] + rsp.offset, rsp.status);
            p->len += rsp.status;
        }
        if (p->n_slots == 1 && (rsp.flags & NETRXF_extra_info)) {
            rx_extras(g, p);
        }
        if (more && !rx_next(g, &rsp, &buffer)) {
            p->malformed = true;
            more = false;
        }
    } while (more);
    return true;
}

struct rte_mbuf *
guest_mbuf(struct ring_guest *g, const void *frame, uint32_t len)
{
    struct rte_mbuf *m = pkt_alloc(&g->pool, len);

    if (!m) {
        abort();
    }
    memcpy(rte_pktmbuf_mtod(m, void *), frame, len);
    return m;
}

/* --- control ------------------------------------------------------------------------ */

struct xen_netif_ctrl_response
guest_ctrl(struct ring_guest *g, uint16_t type, uint32_t d0, uint32_t d1, uint32_t d2)
{
    RING_IDX i = g->ctrl.req_prod_pvt++;
    struct xen_netif_ctrl_response none = {.status = UINT32_MAX};
    bool notify = false;

    *RING_GET_REQUEST(&g->ctrl, i) =
        (struct xen_netif_ctrl_request){.id = i, .type = type, .data = {d0, d1, d2}};
    RING_PUSH_REQUESTS(&g->ctrl);
    if (ctrl_run(&g->back_ctrl, 16, &notify) != 1 || g->ctrl.rsp_cons == g->ctrl.sring->rsp_prod) {
        return none;
    }
    struct xen_netif_ctrl_response rsp = *RING_GET_RESPONSE(&g->ctrl, g->ctrl.rsp_cons++);
    g->ctrl.sring->rsp_event = g->ctrl.rsp_cons + 1;
    return rsp.id == (uint16_t)i && rsp.type == type && notify ? rsp : none;
}

/* --- frames ---------------------------------------------------------------------------- */

static void
put16(uint8_t *p, uint16_t v)
{
    p[0] = v >> 8;
    p[1] = v;
}

static uint32_t
build_ip(uint8_t *ip, const struct frame_spec *f, uint16_t l4_len)
{
    uint8_t proto = f->udp ? IPPROTO_UDP : IPPROTO_TCP;

    if (f->v6) {
        ip[0] = 0x60;
        put16(ip + 4, l4_len);
        ip[6] = proto;
        ip[7] = 64;
        for (int i = 8; i < 40; i++) {
            ip[i] = i * 7;
        }
        return 40;
    }
    ip[0] = 0x45;
    put16(ip + 2, 20 + l4_len);
    put16(ip + 4, 0x1234);
    ip[6] = 0x40; /* don't fragment */
    ip[8] = 64;
    ip[9] = proto;
    memcpy(ip + 12, "\x0a\x00\x00\x01\x0a\x00\x00\x02", 8);
    uint16_t sum = csum_fold(csum_add(0, ip, 20));
    memcpy(ip + 10, &sum, 2);
    return 20;
}

static uint32_t
build_l4(uint8_t *l4, const struct frame_spec *f, uint16_t l4_len)
{
    put16(l4, f->src_port ? f->src_port : 40000);
    put16(l4 + 2, 80);
    if (f->udp) {
        put16(l4 + 4, l4_len);
        return 8;
    }
    put16(l4 + 4, f->seq >> 16);
    put16(l4 + 6, f->seq);
    l4[12] = 0x50;
    l4[13] = f->tcp_flags ? f->tcp_flags : 0x10;
    put16(l4 + 14, 512);
    return 20;
}

/* Byte i is (seq + i) * 31 >> 3, which repeats every 2,048 bytes; copied
 * because loops are slow under a fuzzer's instrumentation. */
static void
fill_payload(uint8_t *to, uint32_t seq, unsigned n)
{
    static uint8_t pattern[4096];
    static bool made;

    if (!made) {
        for (unsigned i = 0; i < sizeof pattern; i++) {
            pattern[i] = i * 31 >> 3;
        }
        made = true;
    }
    for (unsigned done = 0; done < n; done += 2048) {
        memcpy(to + done, pattern + (seq + done) % 2048, n - done < 2048 ? n - done : 2048);
    }
}

uint32_t
frame_build(uint8_t *frame, const struct frame_spec *f)
{
    uint32_t at = 12, headers = f->udp ? 8 : 20;
    struct frame_layout l;

    memset(frame, 0, 14 + 4 * f->tags + 40 + 20);
    memcpy(frame, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01", 12);
    for (unsigned i = 0; i < f->tags; i++, at += 4) {
        put16(frame + at, 0x8100);
        put16(frame + at + 2, 100 + i);
    }
    put16(frame + at, f->v6 ? 0x86dd : 0x0800);
    at += 2;
    at += build_ip(frame + at, f, headers + f->payload);
    at += build_l4(frame + at, f, headers + f->payload);
    fill_payload(frame + at, f->seq, f->payload);
    at += f->payload;
    if (frame_parse(frame, at, &l)) {
        f->blank ? csum_set_pseudo(frame, &l) : csum_fill(frame, &l);
    }
    return at;
}

bool
frame_sound(const uint8_t *frame, uint32_t len)
{
    struct frame_layout l;

    if (!frame_parse(frame, len, &l) || !l.l3 || l.l3_end != len) {
        return false;
    }
    if (l.ip_version == 4 && csum_fold(csum_add(0, frame + l.l3, (frame[l.l3] & 15) * 4))) {
        return false;
    }
    return csum_verify(frame, &l);
}
