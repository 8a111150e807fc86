/* nb_guest: see nb_guest.h. */
#include "nb_guest.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xenstore.h>

#include "nb_rig.h"

#define PAGE HV_PAGE_SIZE
/* Pages: control ring, control data, then of each queue both rings and data. */
#define QUEUE_PAGES (2u + 2 * NB_SLOTS)
#define FIRST_QUEUE_PAGE 2u
#define N_PAGES (FIRST_QUEUE_PAGE + NB_MAX_QUEUES * QUEUE_PAGES)

static void __attribute__((noreturn, format(printf, 2, 3)))
give_up(int error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "guest: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, ": %s\n", strerror(error));
    va_end(args);
    exit(2);
}

static uint8_t *
page_at(struct nb_guest *g, uint32_t page)
{
    return (uint8_t *)local_domain_memory(g->dom) + (size_t)page * PAGE;
}

static uint32_t
grant(struct nb_guest *g, const uint8_t *addr, bool readonly)
{
    uint32_t page = (uint32_t)((addr - page_at(g, 0)) / PAGE);
    uint32_t ref = local_grant_access(g->dom, 0, page, readonly);

    if (!ref) {
        give_up(ENOSPC, "grant table");
    }
    return ref;
}

/* --- life -------------------------------------------------------------------------- */

void
nb_guest_plug(uint16_t domid, const struct toolstack_vif *vif)
{
    struct toolstack_vif v = vif ? *vif : (struct toolstack_vif){.hotplug_connected = true};
    char mac[18];

    snprintf(mac, sizeof mac, "02:00:00:00:%02x:%02x", domid >> 8, domid & 0xff);
    v.domid = domid;
    v.mac = v.mac ? v.mac : mac;
    v.bridge = v.bridge ? v.bridge : "xenbr0";
    int error = toolstack_vif_create(rig_store(), &v);
    if (error) {
        give_up(error, "vif of domain %u", domid);
    }
}

struct nb_guest *
nb_guest_new_domain(uint16_t domid)
{
    struct nb_guest *g = calloc(1, sizeof *g);
    int error;

    if (!g) {
        give_up(ENOMEM, "domain %u", domid);
    }
    g->domid = domid;
    error = local_domain_create(rig_dir(), domid, N_PAGES, N_PAGES + 64, &g->dom);
    if (error) {
        give_up(error, "domain %u", domid);
    }
    error = local_store_open(g->dom, &g->xs);
    if (error) {
        give_up(error, "store of domain %u", domid);
    }
    /* The first watch starts a thread of libxenstore, xs_fileno() makes a pipe:
     * no test shall take those for something left behind. */
    (void)xs_fileno(g->xs);
    xs_watch(g->xs, "@releaseDomain", "unused");
    xs_unwatch(g->xs, "@releaseDomain", "unused");
    toolstack_frontend_path(domid, 0, g->frontend);
    toolstack_backend_path(domid, 0, g->backend);
    g->ctrl_data = page_at(g, 1);
    return g;
}

struct nb_guest *
nb_guest_new(uint16_t domid, const struct toolstack_vif *vif)
{
    struct nb_guest *g = nb_guest_new_domain(domid);

    nb_guest_plug(domid, vif);
    return g;
}

void
nb_guest_free(struct nb_guest *g)
{
    if (!g) {
        return;
    }
    /* Without netback, nobody closes it. */
    toolstack_vif_unplug(rig_store(), g->domid, 0, rig_nb ? RIG_PATIENCE_MS : 0);
    xs_close(g->xs);
    local_domain_destroy(g->dom);
    free(g);
}

/* --- XenBus ---------------------------------------------------------------------------- */

void
nb_set_state(struct nb_guest *g, int state)
{
    char path[TOOLSTACK_PATH_MAX + 16], text[8];

    snprintf(path, sizeof path, "%s/state", g->frontend);
    snprintf(text, sizeof text, "%d", state);
    xs_write(g->xs, XBT_NULL, path, text, strlen(text));
}

bool
nb_wait_backend(struct nb_guest *g, unsigned states, int ms)
{
    return !toolstack_wait_backend(g->xs, g->domid, 0, states, ms);
}

static void
make_queue(struct nb_guest *g, unsigned id)
{
    struct nb_queue *q = &g->q[id];
    uint8_t *base = page_at(g, FIRST_QUEUE_PAGE + id * QUEUE_PAGES);
    netif_tx_sring_t *txs = (void *)base;
    netif_rx_sring_t *rxs = (void *)(base + PAGE);
    int error;

    memset(q, 0, sizeof *q);
    memset(base, 0, 2 * PAGE);
    q->g = g;
    SHARED_RING_INIT(txs);
    FRONT_RING_INIT(&q->tx, txs, PAGE);
    SHARED_RING_INIT(rxs);
    FRONT_RING_INIT(&q->rx, rxs, PAGE);
    q->tx_ring_ref = grant(g, base, false);
    q->rx_ring_ref = grant(g, base + PAGE, false);
    q->tx_data = base + 2 * PAGE;
    q->rx_data = q->tx_data + NB_SLOTS * PAGE;
    for (unsigned i = 0; i < NB_SLOTS; i++) {
        q->tx_ref[i] = grant(g, q->tx_data + i * PAGE, true);
        q->rx_ref[i] = grant(g, q->rx_data + i * PAGE, false);
    }
    error = local_evtchn_alloc(g->dom, 0, &q->tx_port, &q->tx_fd);
    q->rx_port = q->tx_port;
    q->rx_fd = q->tx_fd;
    if (!error && g->split) {
        error = local_evtchn_alloc(g->dom, 0, &q->rx_port, &q->rx_fd);
    }
    if (error) {
        give_up(error, "event channel");
    }
}

static void
make_ctrl(struct nb_guest *g)
{
    struct xen_netif_ctrl_sring *sring = (void *)page_at(g, 0);

    memset(sring, 0, PAGE);
    SHARED_RING_INIT(sring);
    FRONT_RING_INIT(&g->ctrl, sring, PAGE);
    g->ctrl_ref = grant(g, page_at(g, 0), false);
    g->ctrl_data_ref = grant(g, g->ctrl_data, false);
    int error = local_evtchn_alloc(g->dom, 0, &g->ctrl_port, &g->ctrl_fd);
    if (error) {
        give_up(error, "event channel");
    }
}

void
nb_make_rings(struct nb_guest *g, const struct nb_options *o)
{
    g->n_queues = o->n_queues ? o->n_queues : 1;
    g->split = o->split;
    g->has_ctrl = o->ctrl;
    for (unsigned i = 0; i < g->n_queues; i++) {
        make_queue(g, i);
        nb_rx_post(&g->q[i], NB_SLOTS);
    }
    if (g->has_ctrl) {
        make_ctrl(g);
    }
    g->connected = true;
}

struct writer {
    struct nb_guest *g;
    xs_transaction_t t;
    const char *dir;
    const struct nb_options *o;
};

static void
put(const struct writer *w, const char *key, const char *value)
{
    char path[2 * TOOLSTACK_PATH_MAX];

    if (w->o->omit && !strcmp(w->o->omit, key)) {
        value = w->o->instead;
    }
    if (!value) {
        return;
    }
    snprintf(path, sizeof path, "%s/%s", w->dir, key);
    xs_write(w->g->xs, w->t, path, value, strlen(value));
}

static void
put_number(const struct writer *w, const char *key, uint32_t value)
{
    char text[12];

    snprintf(text, sizeof text, "%u", value);
    put(w, key, text);
}

static void
put_queue(const struct writer *top, const struct nb_queue *q, unsigned id)
{
    char dir[TOOLSTACK_PATH_MAX + 16];
    struct writer w = *top;

    if (q->g->n_queues > 1) {
        snprintf(dir, sizeof dir, "%s/queue-%u", w.dir, id);
        w.dir = dir;
    }
    put_number(&w, "tx-ring-ref", q->tx_ring_ref);
    put_number(&w, "rx-ring-ref", q->rx_ring_ref);
    if (q->g->split) {
        put_number(&w, "event-channel-tx", q->tx_port);
        put_number(&w, "event-channel-rx", q->rx_port);
    } else {
        put_number(&w, "event-channel", q->tx_port);
    }
}

/* A frontend removes what it wrote before, lest a key of another kind of
 * connection stays. */
static void
remove_old(const struct writer *w)
{
    static const char *const keys[] = {"tx-ring-ref",
                                       "rx-ring-ref",
                                       "event-channel",
                                       "event-channel-tx",
                                       "event-channel-rx",
                                       "ctrl-ring-ref",
                                       "queue-0",
                                       "event-channel-ctrl",
                                       "queue-1",
                                       "queue-2",
                                       "queue-3",
                                       "queue-4",
                                       "multi-queue-num-queues"};

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char path[2 * TOOLSTACK_PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", w->dir, keys[i]);
        xs_rm(w->g->xs, w->t, path);
    }
}

static void
put_all(const struct writer *w, const struct nb_options *o)
{
    struct nb_guest *g = w->g;

    remove_old(w);
    if (o->num_queues) {
        put(w, "multi-queue-num-queues", o->num_queues);
    } else if (g->n_queues > 1) {
        put_number(w, "multi-queue-num-queues", g->n_queues);
    }
    for (unsigned i = 0; i < g->n_queues; i++) {
        put_queue(w, &g->q[i], i);
    }
    if (g->has_ctrl) {
        put_number(w, "ctrl-ring-ref", g->ctrl_ref);
        put_number(w, "event-channel-ctrl", g->ctrl_port);
    }
    put(w, "request-rx-copy", "1");
    put(w, "feature-rx-notify", "1");
    put(w, "feature-sg", o->no_sg ? "0" : "1");
    put(w, "feature-gso-tcpv4", o->no_gso ? "0" : "1");
    put(w, "feature-gso-tcpv6", o->no_gso ? "0" : "1");
    put(w, "feature-no-csum-offload", o->no_csum ? "1" : "0");
    put(w, "feature-ipv6-csum-offload", o->no_csum ? "0" : "1");
    put(w, "request-multicast-control", o->mcast_control ? "1" : "0");
}

void
nb_publish(struct nb_guest *g, const struct nb_options *o)
{
    bool done = false;

    for (int tries = 0; !done && tries < 50; tries++) {
        struct writer w = {.g = g, .t = xs_transaction_start(g->xs), .dir = g->frontend, .o = o};

        put_all(&w, o);
        done = xs_transaction_end(g->xs, w.t, false);
    }
    if (!done) {
        give_up(errno, "domain %u cannot write its keys", g->domid);
    }
    nb_set_state(g, XenbusStateConnected);
}

bool
nb_connect(struct nb_guest *g, const struct nb_options *o)
{
    static const struct nb_options plain;

    o = o ? o : &plain;
    if (!nb_wait_backend(g, 1u << XenbusStateInitWait, RIG_PATIENCE_MS)) {
        return false;
    }
    nb_make_rings(g, o);
    nb_publish(g, o);
    return nb_wait_backend(g, 1u << XenbusStateConnected, RIG_PATIENCE_MS);
}

static unsigned
revoke(struct nb_guest *g, uint32_t ref)
{
    return local_grant_end(g->dom, ref) != 0;
}

unsigned
nb_release(struct nb_guest *g)
{
    unsigned held = 0;

    if (!g->connected) {
        return 0;
    }
    for (unsigned i = 0; i < g->n_queues; i++) {
        struct nb_queue *q = &g->q[i];

        local_evtchn_close(g->dom, q->tx_port);
        if (g->split) {
            local_evtchn_close(g->dom, q->rx_port);
        }
        held += revoke(g, q->tx_ring_ref) + revoke(g, q->rx_ring_ref);
        for (unsigned s = 0; s < NB_SLOTS; s++) {
            held += revoke(g, q->tx_ref[s]) + revoke(g, q->rx_ref[s]);
        }
    }
    if (g->has_ctrl) {
        local_evtchn_close(g->dom, g->ctrl_port);
        held += revoke(g, g->ctrl_ref) + revoke(g, g->ctrl_data_ref);
    }
    g->connected = false;
    return held;
}

bool
nb_close(struct nb_guest *g)
{
    nb_set_state(g, XenbusStateClosing);
    if (!nb_wait_backend(g, 1u << XenbusStateClosing | 1u << XenbusStateClosed, RIG_PATIENCE_MS)) {
        return false;
    }
    nb_set_state(g, XenbusStateClosed);
    return nb_wait_backend(g, 1u << XenbusStateClosed, RIG_PATIENCE_MS) && nb_release(g) == 0;
}

bool
nb_reinit(struct nb_guest *g)
{
    nb_set_state(g, XenbusStateInitialising);
    return nb_wait_backend(g, 1u << XenbusStateInitWait, RIG_PATIENCE_MS);
}

/* --- transmit --------------------------------------------------------------------------------- */

void
nb_tx_slot(struct nb_queue *q, uint32_t ref, uint16_t offset, uint16_t size, uint16_t flags)
{
    RING_IDX i = q->tx.req_prod_pvt++;
    netif_tx_request_t *r = RING_GET_REQUEST(&q->tx, i);

    *r = (netif_tx_request_t){
        .gref = ref, .offset = offset, .flags = flags, .id = i % NB_SLOTS, .size = size};
}

void
nb_tx_extra(struct nb_queue *q, const netif_extra_info_t *e)
{
    memcpy(RING_GET_REQUEST(&q->tx, q->tx.req_prod_pvt), e, sizeof *e);
    q->tx.req_prod_pvt++;
}

netif_extra_info_t
nb_gso(uint8_t type, uint16_t mss)
{
    return (netif_extra_info_t){.type = XEN_NETIF_EXTRA_TYPE_GSO,
                                .u.gso = {.size = mss, .type = type}};
}

bool
nb_tx_frame(struct nb_queue *q, const void *frame, uint32_t len, uint16_t flags,
            const netif_extra_info_t *extra, unsigned per_slot)
{
    unsigned n = (len + per_slot - 1) / per_slot;

    if (RING_FREE_REQUESTS(&q->tx) < n + (extra != NULL)) {
        nb_tx_reap(q);
        if (RING_FREE_REQUESTS(&q->tx) < n + (extra != NULL)) {
            return false;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        unsigned slot = q->tx.req_prod_pvt % NB_SLOTS;
        uint32_t piece = len - i * per_slot < per_slot ? len - i * per_slot : per_slot;
        bool more = i + 1 < n;

        memcpy(q->tx_data + slot * PAGE, (const uint8_t *)frame + i * per_slot, piece);
        /* The first slot says the size of all. */
        nb_tx_slot(q, q->tx_ref[slot], 0, i ? piece : len,
                   (i ? 0 : flags | (extra ? NETTXF_extra_info : 0)) |
                       (more ? NETTXF_more_data : 0));
        if (i == 0 && extra) {
            nb_tx_extra(q, extra);
        }
    }
    return true;
}

void
nb_tx_push(struct nb_queue *q)
{
    int notify;

    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&q->tx, notify);
    if (notify) {
        local_evtchn_notify(q->g->dom, q->tx_port);
    }
}

unsigned
nb_tx_reap(struct nb_queue *q)
{
    unsigned n = 0;
    int more;

    do {
        RING_IDX prod = __atomic_load_n(&q->tx.sring->rsp_prod, __ATOMIC_ACQUIRE);

        for (; q->tx.rsp_cons != prod; n++) {
            netif_tx_response_t *r = RING_GET_RESPONSE(&q->tx, q->tx.rsp_cons);
            int16_t status = r->status;
            q->n_wrong_id += status != NETIF_RSP_NULL && r->id != q->tx.rsp_cons % NB_SLOTS;
            q->tx.rsp_cons++;
            unsigned *count = status == NETIF_RSP_OKAY      ? &q->n_okay
                              : status == NETIF_RSP_ERROR   ? &q->n_error
                              : status == NETIF_RSP_DROPPED ? &q->n_dropped
                                                            : &q->n_null;
            ++*count;
        }
        RING_FINAL_CHECK_FOR_RESPONSES(&q->tx, more);
    } while (more);
    return n;
}

static void
wait_event(struct nb_queue *q, uint32_t port, int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    if (poll(&p, 1, ms) > 0) {
        local_evtchn_clear(q->g->dom, port);
    }
}

bool
nb_tx_drain(struct nb_queue *q, int ms)
{
    uint64_t until = rig_now_ms() + ms;

    while (nb_tx_reap(q), nb_tx_in_flight(q)) {
        uint64_t now = rig_now_ms();
        if (now >= until) {
            return false;
        }
        wait_event(q, q->tx_port, q->tx_fd, until - now);
    }
    return !q->n_wrong_id;
}

/* The status of what was pushed last, which had one data slot to tell. */
static int
last_status(struct nb_queue *q)
{
    unsigned okay = q->n_okay, error = q->n_error;

    nb_tx_push(q);
    if (!nb_tx_drain(q, RIG_PATIENCE_MS)) {
        return INT16_MIN;
    }
    return q->n_error > error ? NETIF_RSP_ERROR
           : q->n_okay > okay ? NETIF_RSP_OKAY
                              : NETIF_RSP_DROPPED;
}

int
nb_tx_one(struct nb_queue *q, const void *frame, uint32_t len, uint16_t flags,
          const netif_extra_info_t *extra)
{
    return nb_tx_frame(q, frame, len, flags, extra, PAGE) ? last_status(q) : INT16_MIN;
}

int
nb_tx_mcast(struct nb_queue *q, const uint8_t mac[6], bool add)
{
    netif_extra_info_t e = {.type = add ? XEN_NETIF_EXTRA_TYPE_MCAST_ADD
                                        : XEN_NETIF_EXTRA_TYPE_MCAST_DEL};

    memcpy(e.u.mcast.addr, mac, 6);
    nb_tx_slot(q, 0, 0, 0, NETTXF_extra_info);
    nb_tx_extra(q, &e);
    return last_status(q);
}

/* --- receive -------------------------------------------------------- */

void
nb_rx_post(struct nb_queue *q, unsigned n)
{
    int notify;

    for (unsigned i = 0; i < n; i++) {
        unsigned slot = q->rx.req_prod_pvt % NB_SLOTS;
        netif_rx_request_t *r = RING_GET_REQUEST(&q->rx, q->rx.req_prod_pvt++);

        *r = (netif_rx_request_t){.id = slot, .gref = q->rx_ref[slot]};
    }
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&q->rx, notify);
    if (notify) {
        local_evtchn_notify(q->g->dom, q->rx_port);
    }
}

/* One extra-info response; true if more follow. */
static bool
take_extra(struct nb_queue *q, struct nb_packet *p)
{
    netif_extra_info_t e;

    memcpy(&e, RING_GET_RESPONSE(&q->rx, q->rx.rsp_cons), sizeof(netif_rx_response_t));
    q->rx.rsp_cons++;
    p->n_slots++;
    if (e.type == XEN_NETIF_EXTRA_TYPE_GSO) {
        p->gso = e;
    } else if (e.type == XEN_NETIF_EXTRA_TYPE_HASH) {
        p->hash = e;
    } else {
        p->malformed = true;
    }
    return e.flags & XEN_NETIF_EXTRA_FLAG_MORE;
}

/* One data response; its flags. */
static uint16_t
take_data(struct nb_queue *q, struct nb_packet *p)
{
    unsigned slot = q->rx.rsp_cons % NB_SLOTS;
    netif_rx_response_t r = *RING_GET_RESPONSE(&q->rx, q->rx.rsp_cons);

    q->rx.rsp_cons++;
    p->n_slots++;
    p->malformed |= r.id != slot || r.status > (int)PAGE || r.offset > PAGE - RTE_MAX(r.status, 0);
    if (r.status < 0) {
        p->error = true;
    } else if (!p->malformed && p->len + r.status <= sizeof p->data) {
        memcpy(p->data + p->len, q->rx_data + slot * PAGE + r.offset, r.status);
        p->len += r.status;
    }
    return r.flags;
}

bool
nb_rx_take(struct nb_queue *q, struct nb_packet *p)
{
    int more;

    RING_FINAL_CHECK_FOR_RESPONSES(&q->rx, more);
    if (!more) {
        return false;
    }
    xen_rmb();
    p->len = p->n_slots = 0;
    p->error = p->malformed = false;
    p->gso.type = p->hash.type = 0;
    p->flags = take_data(q, p);
    for (bool extra = p->flags & NETRXF_extra_info; extra;) {
        extra = take_extra(q, p);
    }
    for (uint16_t flags = p->flags; flags & NETRXF_more_data;) {
        flags = take_data(q, p);
        p->malformed |= p->n_slots > NB_SLOTS;
        if (p->malformed) {
            break;
        }
    }
    return true;
}

bool
nb_rx_wait(struct nb_queue *q, struct nb_packet *p, int ms)
{
    uint64_t until = rig_now_ms() + ms;

    while (!nb_rx_take(q, p)) {
        uint64_t now = rig_now_ms();
        if (now >= until) {
            return false;
        }
        wait_event(q, q->rx_port, q->rx_fd, until - now);
    }
    nb_rx_post(q, p->n_slots);
    return true;
}

unsigned
nb_rx_discard(struct nb_queue *q)
{
    static _Thread_local struct nb_packet p;
    unsigned n = 0, slots = 0;

    while (nb_rx_take(q, &p)) {
        slots += p.n_slots;
        n++;
    }
    nb_rx_post(q, slots);
    return n;
}

bool
nb_exchange(struct nb_guest *g, unsigned queue, struct netback_vif *v)
{
    static struct nb_packet got;
    static uint8_t seed;
    uint8_t frame[154];
    struct rte_mbuf *m;

    for (unsigned i = 0; i < sizeof frame; i++) {
        frame[i] = i < 6 ? 2 : seed++;
    }
    if (nb_tx_one(&g->q[queue], frame, sizeof frame, 0, NULL) != NETIF_RSP_OKAY ||
        rig_collect(v, &m, NULL, 1, RIG_PATIENCE_MS) != 1) {
        return false;
    }
    bool same =
        m->data_len == sizeof frame && !memcmp(rte_pktmbuf_mtod(m, void *), frame, sizeof frame);
    netback_tx_burst(v, &m, 1);
    return same && nb_rx_wait(&g->q[0], &got, RIG_PATIENCE_MS) && !got.malformed && !got.error &&
           got.len == sizeof frame && !memcmp(got.data, frame, sizeof frame);
}

/* --- control ring -------------------------------------------------------- */

uint32_t
nb_ctrl(struct nb_guest *g, uint16_t type, uint32_t d0, uint32_t d1, uint32_t d2, uint32_t *data)
{
    uint64_t until = rig_now_ms() + RIG_PATIENCE_MS;
    RING_IDX i = g->ctrl.req_prod_pvt++;
    struct xen_netif_ctrl_response r;
    int notify, more;

    *RING_GET_REQUEST(&g->ctrl, i) =
        (struct xen_netif_ctrl_request){.id = (uint16_t)i, .type = type, .data = {d0, d1, d2}};
    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&g->ctrl, notify);
    if (notify) {
        local_evtchn_notify(g->dom, g->ctrl_port);
    }
    for (;;) {
        RING_FINAL_CHECK_FOR_RESPONSES(&g->ctrl, more);
        uint64_t now = rig_now_ms();
        if (more || now >= until) {
            break;
        }
        struct pollfd p = {.fd = g->ctrl_fd, .events = POLLIN};
        if (poll(&p, 1, until - now) > 0) {
            local_evtchn_clear(g->dom, g->ctrl_port);
        }
    }
    if (!more) {
        return UINT32_MAX;
    }
    xen_rmb();
    r = *RING_GET_RESPONSE(&g->ctrl, g->ctrl.rsp_cons++);
    if (data) {
        *data = r.data;
    }
    return r.id == (uint16_t)i && r.type == type ? r.status : UINT32_MAX;
}

/* One request for the pages of one kind. */
static unsigned
static_grants(struct nb_guest *g, unsigned queue, bool add, const uint32_t *refs, bool readonly)
{
    struct xen_netif_gref *list = (void *)g->ctrl_data;
    uint16_t type =
        add ? XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING : XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING;

    for (unsigned i = 0; i < NB_SLOTS; i++) {
        list[i] = (struct xen_netif_gref){.ref = refs[i],
                                          .flags = readonly ? XEN_NETIF_CTRLF_GREF_readonly : 0};
    }
    return nb_ctrl(g, type, queue, g->ctrl_data_ref, NB_SLOTS, NULL) ==
                   XEN_NETIF_CTRL_STATUS_SUCCESS
               ? NB_SLOTS
               : 0;
}

unsigned
nb_static_all(struct nb_guest *g, unsigned queue, bool add)
{
    unsigned n = static_grants(g, queue, add, g->q[queue].tx_ref, true);

    return n ? n + static_grants(g, queue, add, g->q[queue].rx_ref, false) : 0;
}

bool
nb_set_hash(struct nb_guest *g, const uint32_t *mapping, unsigned n)
{
    const uint32_t ok = XEN_NETIF_CTRL_STATUS_SUCCESS;
    bool set = nb_ctrl(g, XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM,
                       XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ, 0, 0, NULL) == ok;

    set = set && nb_ctrl(g, XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS,
                         XEN_NETIF_CTRL_HASH_TYPE_IPV4 | XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP, 0, 0,
                         NULL) == ok;
    for (unsigned i = 0; i < 40; i++) {
        g->ctrl_data[i] = (uint8_t)(i * 37 + 11);
    }
    set = set && nb_ctrl(g, XEN_NETIF_CTRL_TYPE_SET_HASH_KEY, g->ctrl_data_ref, 40, 0, NULL) == ok;
    set = set && nb_ctrl(g, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE, n, 0, 0, NULL) == ok;
    memcpy(g->ctrl_data, mapping, n * sizeof *mapping);
    return set &&
           nb_ctrl(g, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING, g->ctrl_data_ref, n, 0, NULL) == ok;
}
