/* netfront_ring: see netfront_ring.h.
 *
 * Theory of Operation
 * ===================
 *
 * Pages of a queue, in guest memory:
 *
 *   +0          transmit ring         granted read-write
 *   +1          receive ring          granted read-write
 *   +2          NF_TX_PAGES pages     granted read-only; request id = page
 *   +2+320      auxiliary page        granted read-only; id NF_TX_AUX_ID
 *   +2+321      NF_RX_PAGES pages     granted read-write; page i in slot i
 *
 * Transmit pages are used in a circle.  A frame takes a run of consecutive
 * pages, because then its bytes are consecutive in the guest's address space
 * and one read(2) fills all of it; if the run would pass the last page it
 * starts at page 0.  In flight are at most 256 pages, plus up to 16 that
 * were left out at the end of the circle, so a run of 17 always fits the 320
 * as long as answers come in order.  A backend may answer out of order: then
 * the circle waits for the oldest page, and nf_tx_arm() asks for an event at
 * the very next answer.
 *
 * The receive ring is always full: 256 pages are posted, and a page that was
 * used goes back at once.  The slot that becomes free is then the slot whose
 * page became free, so page i stays in slot i for ever.  That is also what
 * the protocol leans on: extra-info slots overlay the id, and the frontend
 * knows the page by the slot's position alone.
 *
 * Every slot of the backend's is copied once and checked before use. */
#include "netfront_ring.h"

#include <errno.h>
#include <string.h>

/* Receive slots that may be reposted before the backend is shown them. */
#define RX_PUSH_SLOTS 48u

enum {
    PAGE_TX_RING = 0,
    PAGE_RX_RING = 1,
    PAGE_TX = 2,
    PAGE_RX = PAGE_TX + NF_TX_PAGES + 1,
};

static inline RING_IDX
ring_load(const RING_IDX *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

/* --- set-up --------------------------------------------------------------- */

static uint8_t *
queue_page(const struct nf_queue *q, unsigned i)
{
    uint8_t *mem = local_domain_memory(q->dom);
    return mem + (size_t)(q->first_page + i) * HV_PAGE_SIZE;
}

static bool
page_is_readonly(unsigned i)
{
    return i >= PAGE_TX && i < PAGE_RX;
}

void
nf_queue_init(struct nf_queue *q, struct local_domain *dom, uint32_t first_page)
{
    memset(q, 0, sizeof *q);
    q->dom = dom;
    q->first_page = first_page;
    q->tx_fd = q->rx_fd = -1;
    q->tx_pages = queue_page(q, PAGE_TX);
    q->rx_pages = queue_page(q, PAGE_RX);
}

static int
grant_pages(struct nf_queue *q)
{
    for (unsigned i = 0; i < NF_QUEUE_PAGES; i++) {
        if (q->gref[i]) {
            continue; /* still held by an earlier connection */
        }
        q->gref[i] = local_grant_access(q->dom, q->backend, q->first_page + i, page_is_readonly(i));
        if (!q->gref[i]) {
            return ENOSPC;
        }
    }
    return 0;
}

static unsigned
revoke_pages(struct nf_queue *q)
{
    unsigned held = 0;

    for (unsigned i = 0; i < NF_QUEUE_PAGES; i++) {
        if (q->gref[i] && local_grant_end(q->dom, q->gref[i]) == EBUSY) {
            held++;
        } else {
            q->gref[i] = 0;
        }
    }
    return held;
}

static int
open_channels(struct nf_queue *q)
{
    int error = local_evtchn_alloc(q->dom, q->backend, &q->tx_port, &q->tx_fd);
    if (error) {
        return error;
    }
    if (!q->split) {
        q->rx_port = q->tx_port;
        q->rx_fd = q->tx_fd;
        return 0;
    }
    error = local_evtchn_alloc(q->dom, q->backend, &q->rx_port, &q->rx_fd);
    if (error) {
        local_evtchn_close(q->dom, q->tx_port);
    }
    return error;
}

static void
make_rings(struct nf_queue *q)
{
    netif_tx_sring_t *tx = (netif_tx_sring_t *)queue_page(q, PAGE_TX_RING);
    netif_rx_sring_t *rx = (netif_rx_sring_t *)queue_page(q, PAGE_RX_RING);

    memset(tx, 0, HV_PAGE_SIZE);
    memset(rx, 0, HV_PAGE_SIZE);
    XEN_FRONT_RING_INIT(&q->tx, tx, HV_PAGE_SIZE);
    XEN_FRONT_RING_INIT(&q->rx, rx, HV_PAGE_SIZE);
    q->tx_cursor = 0;
    q->mcast_next = 0;
    memset(q->tx_state, NF_TX_FREE, sizeof q->tx_state);

    for (unsigned i = 0; i < NF_RX_PAGES; i++) {
        netif_rx_request_t *req = RING_GET_REQUEST(&q->rx, i);
        req->id = (uint16_t)i;
        req->gref = q->gref[PAGE_RX + i];
    }
    q->rx.req_prod_pvt = NF_RX_PAGES;
    RING_PUSH_REQUESTS(&q->rx);
}

int
nf_queue_connect(struct nf_queue *q, uint16_t backend, bool split)
{
    q->backend = backend;
    q->split = split;

    int error = grant_pages(q);
    if (error) {
        goto err_grants;
    }
    error = open_channels(q);
    if (error) {
        goto err_grants;
    }
    make_rings(q);
    q->connected = true;
    return 0;

err_grants:
    revoke_pages(q);
    return error;
}

unsigned
nf_queue_disconnect(struct nf_queue *q)
{
    if (!q->connected) {
        return 0;
    }
    q->connected = false;
    if (q->split) {
        local_evtchn_close(q->dom, q->rx_port);
    }
    local_evtchn_close(q->dom, q->tx_port);
    q->tx_fd = q->rx_fd = -1;
    return revoke_pages(q);
}

uint32_t
nf_queue_tx_ref(const struct nf_queue *q)
{
    return q->gref[PAGE_TX_RING];
}

uint32_t
nf_queue_rx_ref(const struct nf_queue *q)
{
    return q->gref[PAGE_RX_RING];
}

unsigned
nf_queue_data_grefs(const struct nf_queue *q, struct xen_netif_gref *list, unsigned cap)
{
    unsigned n = NF_QUEUE_PAGES - PAGE_TX;

    for (unsigned i = 0; i < n && i < cap; i++) {
        list[i] = (struct xen_netif_gref){
            .ref = q->gref[PAGE_TX + i],
            .flags = page_is_readonly(PAGE_TX + i) ? XEN_NETIF_CTRLF_GREF_readonly : 0,
        };
    }
    return n;
}

/* --- transmit ------------------------------------------------------------- */

static inline unsigned
tx_free_slots(const struct nf_queue *q)
{
    return RING_FREE_REQUESTS(&q->tx);
}

uint8_t *
nf_tx_reserve(struct nf_queue *q, unsigned n)
{
    if (tx_free_slots(q) < n + 2) {
        return NULL;
    }
    unsigned first = q->tx_cursor + n <= NF_TX_PAGES ? q->tx_cursor : 0;
    for (unsigned i = 0; i < n; i++) {
        if (q->tx_state[first + i] != NF_TX_FREE) {
            return NULL;
        }
    }
    q->tx_cursor = first;
    return q->tx_pages + (size_t)first * HV_PAGE_SIZE;
}

static inline void
put_request(struct nf_queue *q, unsigned id, uint32_t gref, uint16_t offset, uint16_t flags,
            uint16_t size)
{
    netif_tx_request_t *req = RING_GET_REQUEST(&q->tx, q->tx.req_prod_pvt);

    *req = (netif_tx_request_t){
        .gref = gref,
        .offset = offset,
        .flags = flags,
        .id = (uint16_t)id,
        .size = size,
    };
    q->tx.req_prod_pvt++;
}

static inline void
put_extra(struct nf_queue *q, const struct netif_extra_info *extra)
{
    netif_tx_request_t *req = RING_GET_REQUEST(&q->tx, q->tx.req_prod_pvt);

    /* A transmit slot is longer than an extra: the rest is defined as well. */
    memset(req, 0, sizeof *req);
    memcpy(req, extra, sizeof *extra);
    q->tx.req_prod_pvt++;
}

static void
put_extras(struct nf_queue *q, const struct nf_meta *meta)
{
    if (meta->gso_type) {
        struct netif_extra_info e = {
            .type = XEN_NETIF_EXTRA_TYPE_GSO,
            .flags = meta->has_hash ? XEN_NETIF_EXTRA_FLAG_MORE : 0,
            .u.gso = {.size = meta->gso_size, .type = meta->gso_type},
        };
        put_extra(q, &e);
    }
    if (meta->has_hash) {
        struct netif_extra_info e = {
            .type = XEN_NETIF_EXTRA_TYPE_HASH,
            .u.hash = {.type = meta->hash_type, .algorithm = meta->hash_algorithm},
        };
        memcpy(e.u.hash.value, &meta->hash, sizeof meta->hash);
        put_extra(q, &e);
    }
}

static inline uint16_t
tx_flags(const struct nf_meta *meta)
{
    uint16_t flags = 0;

    if (meta->csum_blank) {
        /* Never crossed a wire: as good as validated (what Linux sends). */
        flags |= NETTXF_csum_blank | NETTXF_data_validated;
    } else if (meta->data_validated) {
        flags |= NETTXF_data_validated;
    }
    if (meta->gso_type || meta->has_hash) {
        flags |= NETTXF_extra_info;
    }
    return flags;
}

void
nf_tx_put(struct nf_queue *q, uint32_t offset, uint32_t len, const struct nf_meta *meta)
{
    unsigned page = q->tx_cursor;
    uint32_t here = HV_PAGE_SIZE - offset;
    uint32_t left = len > here ? len - here : 0;
    uint16_t flags = tx_flags(meta);

    put_request(q, page, q->gref[PAGE_TX + page], (uint16_t)offset,
                flags | (left ? NETTXF_more_data : 0), (uint16_t)len);
    q->tx_state[page++] = NF_TX_FIRST;
    if (flags & NETTXF_extra_info) {
        put_extras(q, meta);
    }
    while (left) {
        uint32_t n = left < HV_PAGE_SIZE ? left : HV_PAGE_SIZE;
        left -= n;
        put_request(q, page, q->gref[PAGE_TX + page], 0, left ? NETTXF_more_data : 0, (uint16_t)n);
        q->tx_state[page++] = NF_TX_REST;
    }
    q->tx_cursor = page < NF_TX_PAGES ? page : 0;

    NF_ADD(q->stats.tx_packets, 1);
    NF_ADD(q->stats.tx_bytes, len);
    if (meta->gso_type) {
        NF_ADD(q->stats.tx_gso, 1);
    }
    if (meta->csum_blank) {
        NF_ADD(q->stats.tx_csum_blank, 1);
    }
}

int
nf_tx_put_aux(struct nf_queue *q, const void *frame, uint32_t len)
{
    if (!tx_free_slots(q) || q->tx_state[NF_TX_AUX_ID] != NF_TX_FREE) {
        return EAGAIN;
    }
    memcpy(q->tx_pages + (size_t)NF_TX_AUX_ID * HV_PAGE_SIZE, frame, len);
    put_request(q, NF_TX_AUX_ID, q->gref[PAGE_TX + NF_TX_AUX_ID], 0, 0, (uint16_t)len);
    q->tx_state[NF_TX_AUX_ID] = NF_TX_FIRST;
    return 0;
}

int
nf_tx_put_mcast(struct nf_queue *q, const uint8_t mac[6], bool add)
{
    unsigned id = NF_TX_PAGES + 1 + q->mcast_next;

    if (tx_free_slots(q) < 2 || q->tx_state[id] != NF_TX_FREE) {
        return EAGAIN;
    }
    struct netif_extra_info e = {
        .type = add ? XEN_NETIF_EXTRA_TYPE_MCAST_ADD : XEN_NETIF_EXTRA_TYPE_MCAST_DEL,
    };
    memcpy(e.u.mcast.addr, mac, sizeof e.u.mcast.addr);
    /* The request is a dummy, yet names a real page and a plausible size. */
    put_request(q, id, q->gref[PAGE_TX + NF_TX_AUX_ID], 0, NETTXF_extra_info, 14);
    put_extra(q, &e);
    q->tx_state[id] = NF_TX_MCAST;
    q->mcast_next = (q->mcast_next + 1) % NF_MCAST_IDS;
    return 0;
}

void
nf_tx_push(struct nf_queue *q)
{
    int notify;

    if (q->tx.req_prod_pvt == q->tx.sring->req_prod) {
        return;
    }
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&q->tx, notify);
    if (notify) {
        local_evtchn_notify(q->dom, q->tx_port);
        NF_ADD(q->stats.notifies, 1);
    }
}

static int
take_response(struct nf_queue *q, const netif_tx_response_t *rsp)
{
    if (rsp->status == NETIF_RSP_NULL) {
        return 0; /* answers an extra */
    }
    if (rsp->id >= NF_TX_IDS || q->tx_state[rsp->id] == NF_TX_FREE) {
        return EPROTO;
    }
    if (rsp->status != NETIF_RSP_OKAY) {
        if (q->tx_state[rsp->id] == NF_TX_FIRST) {
            NF_ADD(q->stats.tx_errors, 1);
        } else if (q->tx_state[rsp->id] == NF_TX_MCAST) {
            NF_ADD(q->stats.mcast_errors, 1);
        }
    }
    q->tx_state[rsp->id] = NF_TX_FREE;
    return 0;
}

int
nf_tx_reap(struct nf_queue *q)
{
    RING_IDX prod = ring_load(&q->tx.sring->rsp_prod);
    RING_IDX cons = q->tx.rsp_cons;
    unsigned n = prod - cons;

    if (n > nf_tx_in_flight(q)) {
        return -EPROTO;
    }
    for (; cons != prod; cons++) {
        netif_tx_response_t rsp;
        RING_COPY_RESPONSE(&q->tx, cons, &rsp);
        if (take_response(q, &rsp)) {
            return -EPROTO;
        }
    }
    q->tx.rsp_cons = cons;
    return (int)n;
}

bool
nf_tx_arm(struct nf_queue *q, unsigned slots)
{
    unsigned in_flight = nf_tx_in_flight(q);
    unsigned free = RING_SIZE(&q->tx) - in_flight;
    RING_IDX event = q->tx.rsp_cons + 1;

    if (free < slots) {
        unsigned half = in_flight / 2;
        unsigned missing = slots - free;
        event = q->tx.rsp_cons + (half > missing ? half : missing);
    }
    q->tx.sring->rsp_event = event;
    xen_mb(); /* the backend sees the event index before we look once more */
    return (int32_t)(ring_load(&q->tx.sring->rsp_prod) - event) >= 0;
}

/* --- receive -------------------------------------------------------------- */

/* No type at all is not the same as no extra. */
#define GSO_TYPE_BAD 0xffu

/* Takes the chain of extras that follows a first slot.  Returns how many
 * slots it took, or -1 if it ends beyond 'prod' or is malformed. */
static int
rx_extras(struct nf_queue *q, RING_IDX at, RING_IDX prod, struct nf_meta *meta)
{
    int n = 0;
    struct netif_extra_info e;

    do {
        netif_rx_response_t raw;
        if (at + (RING_IDX)n == prod) {
            return -1;
        }
        RING_COPY_RESPONSE(&q->rx, at + (RING_IDX)n, &raw);
        _Static_assert(sizeof raw == sizeof e, "an extra fills a receive slot");
        memcpy(&e, &raw, sizeof e);
        n++;
        if (e.type == XEN_NETIF_EXTRA_TYPE_GSO) {
            meta->gso_type = e.u.gso.type ? e.u.gso.type : GSO_TYPE_BAD;
            meta->gso_size = e.u.gso.size;
        } else if (e.type == XEN_NETIF_EXTRA_TYPE_HASH) {
            meta->has_hash = true;
            meta->hash_type = e.u.hash.type;
            meta->hash_algorithm = e.u.hash.algorithm;
            memcpy(&meta->hash, e.u.hash.value, sizeof meta->hash);
        } else {
            return -1;
        }
    } while (e.flags & XEN_NETIF_EXTRA_FLAG_MORE);
    return n;
}

static bool
meta_is_sane(const struct nf_meta *meta)
{
    if (!meta->gso_type) {
        return true;
    }
    return meta->gso_size && (meta->gso_type == XEN_NETIF_GSO_TYPE_TCPV4 ||
                              meta->gso_type == XEN_NETIF_GSO_TYPE_TCPV6);
}

/* Adds slot 'idx' to the frame; false if its range or length is bad. */
static inline bool
rx_add_fragment(struct nf_queue *q, RING_IDX idx, const netif_rx_response_t *rsp,
                struct nf_rx_frame *f)
{
    unsigned slot = idx & (RING_SIZE(&q->rx) - 1);

    if (rsp->status <= 0 || rsp->id != slot || f->n_frags == NF_RX_FRAGS_MAX ||
        (uint32_t)rsp->offset + (uint32_t)rsp->status > HV_PAGE_SIZE) {
        return false;
    }
    f->frag[f->n_frags++] = (struct iovec){
        .iov_base = q->rx_pages + (size_t)slot * HV_PAGE_SIZE + rsp->offset,
        .iov_len = (size_t)rsp->status,
    };
    f->len += (uint32_t)rsp->status;
    return true;
}

/* Reads one frame at rsp_cons, all of whose slots lie before 'prod'.  Always
 * moves rsp_cons past what it looked at; false if the frame is bad. */
static bool
rx_take(struct nf_queue *q, RING_IDX prod, struct nf_rx_frame *f)
{
    RING_IDX at = q->rx.rsp_cons;
    netif_rx_response_t rsp;
    bool good;

    RING_COPY_RESPONSE(&q->rx, at, &rsp);
    f->n_frags = 0;
    f->len = 0;
    f->meta = (struct nf_meta){
        .csum_blank = rsp.flags & NETRXF_csum_blank,
        .data_validated = rsp.flags & NETRXF_data_validated,
    };
    good = rx_add_fragment(q, at, &rsp, f);
    at++;
    if (rsp.flags & NETRXF_extra_info) {
        int n = rx_extras(q, at, prod, &f->meta);
        /* Where a malformed chain ends nobody can say: drop all there is. */
        good = good && n > 0;
        at = n > 0 ? at + (RING_IDX)n : prod;
    }
    while (rsp.flags & NETRXF_more_data) {
        if (at == prod) {
            good = false;
            break;
        }
        RING_COPY_RESPONSE(&q->rx, at, &rsp);
        good = good && rx_add_fragment(q, at, &rsp, f);
        at++;
    }
    q->rx.rsp_cons = at;
    return good && meta_is_sane(&f->meta);
}

int
nf_rx_next(struct nf_queue *q, struct nf_rx_frame *f)
{
    RING_IDX prod = ring_load(&q->rx.sring->rsp_prod);

    if (prod - q->rx.rsp_cons > q->rx.req_prod_pvt - q->rx.rsp_cons) {
        return -EPROTO;
    }
    while (q->rx.rsp_cons != prod) {
        if (rx_take(q, prod, f)) {
            NF_ADD(q->stats.rx_packets, 1);
            NF_ADD(q->stats.rx_bytes, f->len);
            NF_ADD(q->stats.rx_gso, f->meta.gso_type != 0);
            NF_ADD(q->stats.rx_csum_blank, f->meta.csum_blank);
            NF_ADD(q->stats.rx_hash, f->meta.has_hash);
            return 1;
        }
        NF_ADD(q->stats.rx_errors, 1);
    }
    return 0;
}

void
nf_rx_repost(struct nf_queue *q)
{
    RING_IDX end = q->rx.rsp_cons + RING_SIZE(&q->rx);

    while (q->rx.req_prod_pvt != end) {
        unsigned slot = q->rx.req_prod_pvt & (RING_SIZE(&q->rx) - 1);
        netif_rx_request_t *req = RING_GET_REQUEST(&q->rx, slot);
        *req = (netif_rx_request_t){.id = (uint16_t)slot, .gref = q->gref[PAGE_RX + slot]};
        q->rx.req_prod_pvt++;
    }
}

void
nf_rx_push(struct nf_queue *q)
{
    int notify;

    if (!nf_rx_unpushed(q)) {
        return;
    }
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&q->rx, notify);
    if (notify) {
        local_evtchn_notify(q->dom, q->rx_port);
        NF_ADD(q->stats.notifies, 1);
    }
}

void
nf_rx_recycle(struct nf_queue *q)
{
    nf_rx_repost(q);
    if (nf_rx_unpushed(q) >= RX_PUSH_SLOTS) {
        nf_rx_push(q);
    }
}

bool
nf_rx_arm(struct nf_queue *q)
{
    int pending;

    RING_FINAL_CHECK_FOR_RESPONSES(&q->rx, pending);
    return pending != 0;
}
