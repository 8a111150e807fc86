#include "netfront_peer.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "hv/local_broker.h"

/* --- broker --------------------------------------------------------------- */

static struct local_broker *broker;
static char broker_dir[64];
static pthread_t broker_thread;
static int broker_stop_fd;

static void *
broker_main(void *arg)
{
    local_broker_run(broker, broker_stop_fd);
    return NULL;
}

void
peer_broker_start(void)
{
    char why[256];

    strcpy(broker_dir, "/tmp/weft-netfront-XXXXXX");
    broker_stop_fd = eventfd(0, EFD_CLOEXEC);
    if (!mkdtemp(broker_dir) || broker_stop_fd < 0 ||
        local_broker_open(broker_dir, false, &broker, why, sizeof why) ||
        pthread_create(&broker_thread, NULL, broker_main, NULL)) {
        fprintf(stderr, "cannot start a broker: %s\n", why);
        exit(1);
    }
}

void
peer_broker_stop(void)
{
    eventfd_write(broker_stop_fd, 1);
    pthread_join(broker_thread, NULL);
    local_broker_close(broker);
    close(broker_stop_fd);
    rmdir(broker_dir);
}

const char *
peer_dir(void)
{
    return broker_dir;
}

/* --- backend half ----------------------------------------------------------- */

static void *
map_ring(struct peer *p, uint32_t ref)
{
    void *page = NULL;
    int error = p->hv->ops->grant_map(p->grants, p->domid, &ref, 1, true, &page);
    return error ? NULL : page;
}

int
peer_connect(struct peer *p, struct nf_queue *q)
{
    char spec[80], why[256];

    memset(p, 0, sizeof *p);
    p->domid = local_domain_id(q->dom);
    snprintf(spec, sizeof spec, "local:%s", broker_dir);
    int error = hv_open(spec, &p->hv, why, sizeof why);
    if (error) {
        return error;
    }
    error = p->hv->ops->grants_open(p->hv, &p->grants);
    error = error ? error : p->hv->ops->evtchns_open(p->hv, &p->events);
    if (error) {
        return error;
    }
    netif_tx_sring_t *tx = map_ring(p, nf_queue_tx_ref(q));
    netif_rx_sring_t *rx = map_ring(p, nf_queue_rx_ref(q));
    if (!tx || !rx) {
        return EIO;
    }
    BACK_RING_INIT(&p->tx, tx, HV_PAGE_SIZE);
    BACK_RING_INIT(&p->rx, rx, HV_PAGE_SIZE);
    error = p->hv->ops->evtchn_bind(p->events, p->domid, q->tx_port, &p->tx_port);
    p->rx_port = p->tx_port;
    if (!error && q->split) {
        error = p->hv->ops->evtchn_bind(p->events, p->domid, q->rx_port, &p->rx_port);
    }
    return error;
}

void
peer_disconnect(struct peer *p)
{
    if (!p->hv) {
        return;
    }
    p->hv->ops->evtchns_close(p->events);
    p->hv->ops->grants_close(p->grants);
    hv_close(p->hv);
    p->hv = NULL;
}

/* Copies between a local buffer and one page of the guest. */
static int16_t
copy(struct peer *p, uint32_t ref, uint16_t offset, void *local, uint16_t len, bool to_guest)
{
    xengnttab_grant_copy_segment_t seg = {.len = len, .flags = GNTCOPY_source_gref};

    if (to_guest) {
        seg.flags = GNTCOPY_dest_gref;
        seg.source.virt = local;
        seg.dest.foreign.ref = ref;
        seg.dest.foreign.offset = offset;
        seg.dest.foreign.domid = p->domid;
    } else {
        seg.source.foreign.ref = ref;
        seg.source.foreign.offset = offset;
        seg.source.foreign.domid = p->domid;
        seg.dest.virt = local;
    }
    int error = p->hv->ops->grant_copy(p->grants, &seg, 1);
    return error ? (int16_t)-error : seg.status;
}

static void
take_data(struct peer *p, struct peer_packet *pkt, const netif_tx_request_t *req, uint32_t at,
          uint16_t len)
{
    assert(req->offset + len <= HV_PAGE_SIZE && at + len <= sizeof pkt->data);
    assert(copy(p, req->gref, req->offset, pkt->data + at, len, false) == GNTST_okay);
}

bool
peer_take(struct peer *p, struct peer_packet *pkt)
{
    netif_tx_request_t req[18];
    RING_IDX prod = __atomic_load_n(&p->tx.sring->req_prod, __ATOMIC_ACQUIRE);
    RING_IDX at = p->tx.req_cons;
    uint32_t rest = 0;

    if (at == prod) {
        return false;
    }
    memset(pkt, 0, sizeof *pkt);
    for (;;) {
        assert(at != prod && pkt->n_slots < 18);
        RING_COPY_REQUEST(&p->tx, at++, &req[pkt->n_slots]);
        pkt->id[pkt->n_slots] = req[pkt->n_slots].id;
        if (pkt->n_slots) {
            rest += req[pkt->n_slots].size;
        } else if (req[0].flags & NETTXF_extra_info) {
            do {
                assert(at != prod && pkt->n_extras < 4);
                netif_tx_request_t raw;
                RING_COPY_REQUEST(&p->tx, at++, &raw);
                memcpy(&pkt->extra[pkt->n_extras], &raw, sizeof pkt->extra[0]);
            } while (pkt->extra[pkt->n_extras++].flags & XEN_NETIF_EXTRA_FLAG_MORE);
        }
        if (!(req[pkt->n_slots++].flags & NETTXF_more_data)) {
            break;
        }
    }
    p->tx.req_cons = at;
    pkt->len = req[0].size;
    pkt->flags = req[0].flags;
    assert(pkt->len >= rest);
    uint32_t ofs = pkt->len - rest;
    take_data(p, pkt, &req[0], 0, (uint16_t)ofs);
    for (unsigned i = 1; i < pkt->n_slots; i++) {
        take_data(p, pkt, &req[i], ofs, req[i].size);
        ofs += req[i].size;
    }
    return true;
}

void
peer_answer_id(struct peer *p, uint16_t id, int16_t status)
{
    netif_tx_response_t *rsp = RING_GET_RESPONSE(&p->tx, p->tx.rsp_prod_pvt);
    rsp->id = id;
    rsp->status = status;
    p->tx.rsp_prod_pvt++;
}

void
peer_answer(struct peer *p, const struct peer_packet *pkt, int16_t status)
{
    peer_answer_id(p, pkt->id[0], status);
    for (unsigned i = 0; i < pkt->n_extras; i++) {
        peer_answer_id(p, 0xffff, NETIF_RSP_NULL);
    }
    for (unsigned i = 1; i < pkt->n_slots; i++) {
        peer_answer_id(p, pkt->id[i], status);
    }
}

bool
peer_push_tx(struct peer *p)
{
    int notify;

    RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&p->tx, notify);
    if (notify) {
        p->hv->ops->evtchn_notify(p->events, p->tx_port);
    }
    return notify;
}

bool
peer_arm_tx(struct peer *p)
{
    int pending;

    RING_FINAL_CHECK_FOR_REQUESTS(&p->tx, pending);
    return pending != 0;
}

unsigned
peer_rx_room(const struct peer *p)
{
    return __atomic_load_n(&p->rx.sring->req_prod, __ATOMIC_ACQUIRE) - p->rx.req_cons;
}

bool
peer_give_raw(struct peer *p, const netif_rx_response_t *rsp)
{
    if (!peer_rx_room(p)) {
        return false;
    }
    p->rx.req_cons++;
    *RING_GET_RESPONSE(&p->rx, p->rx.rsp_prod_pvt) = *rsp;
    p->rx.rsp_prod_pvt++;
    return true;
}

static void
give_fragment(struct peer *p, const uint8_t *data, uint16_t len, uint16_t flags)
{
    netif_rx_request_t req;

    RING_COPY_REQUEST(&p->rx, p->rx.req_cons, &req);
    assert(copy(p, req.gref, 0, (void *)(uintptr_t)data, len, true) == GNTST_okay);
    peer_give_raw(p, &(netif_rx_response_t){.id = req.id, .flags = flags, .status = (int16_t)len});
}

bool
peer_give(struct peer *p, const void *frame, uint32_t len, uint16_t flags,
          const struct netif_extra_info *extra)
{
    const uint8_t *data = frame;
    unsigned slots = (len + HV_PAGE_SIZE - 1) / HV_PAGE_SIZE + (extra != NULL);

    if (peer_rx_room(p) < slots) {
        return false;
    }
    flags |= extra ? NETRXF_extra_info : 0;
    while (len) {
        uint16_t n = len < HV_PAGE_SIZE ? (uint16_t)len : (uint16_t)HV_PAGE_SIZE;
        len -= n;
        give_fragment(p, data, n, flags | (len ? NETRXF_more_data : 0));
        data += n;
        flags = 0;
        if (extra) {
            netif_rx_response_t raw;
            memcpy(&raw, extra, sizeof raw);
            peer_give_raw(p, &raw);
            extra = NULL;
        }
    }
    return true;
}

bool
peer_push_rx(struct peer *p)
{
    int notify;

    RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&p->rx, notify);
    if (notify) {
        p->hv->ops->evtchn_notify(p->events, p->rx_port);
    }
    return notify;
}

bool
peer_was_notified(struct peer *p)
{
    bool any = false;

    while (hv_evtchn_next(p->hv->ops, p->events) >= 0) {
        any = true;
    }
    return any;
}
