/* The frontend's rings and control ring, against half a backend that does
 * what each case says. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "check.h"
#include "netfront.h"
#include "netfront_peer.h"

/* --- rings -------------------------------------------------------------------------- */

struct rig {
    struct local_domain *dom;
    struct nf_queue q;
    struct nf_ctrl ctrl;
    struct peer peer;
};

#define CTRL_FIRST_PAGE NF_QUEUE_PAGES

static void
rig_up(struct rig *r, bool split)
{
    memset(r, 0, sizeof *r);
    CHECK(!local_domain_create(peer_dir(), 9, NF_QUEUE_PAGES + NF_CTRL_PAGES,
                               NF_QUEUE_PAGES + NF_CTRL_PAGES, &r->dom));
    nf_queue_init(&r->q, r->dom, 0);
    nf_ctrl_init(&r->ctrl, r->dom, CTRL_FIRST_PAGE);
    CHECK(!nf_queue_connect(&r->q, 0, split));
    CHECK(!peer_connect(&r->peer, &r->q));
}

static void
rig_down(struct rig *r)
{
    peer_disconnect(&r->peer);
    CHECK(nf_queue_disconnect(&r->q) == 0);
    CHECK(local_grants_in_use(r->dom) == 0);
    local_domain_destroy(r->dom);
}

static void
fill(uint8_t *p, uint32_t len, unsigned seed)
{
    for (uint32_t i = 0; i < len; i++) {
        p[i] = (uint8_t)(i * 7 + i / 251 + seed);
    }
}

static bool
readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static bool
put_frame(struct nf_queue *q, uint32_t len, unsigned seed, const struct nf_meta *meta)
{
    unsigned pages = (NF_TX_OFFSET + len + HV_PAGE_SIZE - 1) / HV_PAGE_SIZE;
    uint8_t *page = nf_tx_reserve(q, pages);

    if (page) {
        fill(page + NF_TX_OFFSET, len, seed);
        nf_tx_put(q, NF_TX_OFFSET, len, meta);
    }
    return page != NULL;
}

static void
test_tx_shapes(struct rig *r)
{
    static const uint32_t lens[] = {14, 60, 1514, 4032, 4033, 9014, 65226, 65535};
    static struct peer_packet pkt;
    static uint8_t want[65536];
    struct nf_meta gso = {.csum_blank = true,
                          .gso_type = XEN_NETIF_GSO_TYPE_TCPV4,
                          .gso_size = 1448,
                          .has_hash = true,
                          .hash = 0x11223344};

    CASE("transmit: every shape arrives whole");
    for (unsigned i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        CHECK(put_frame(&r->q, lens[i], i, i < 6 ? &(struct nf_meta){0} : &gso));
        nf_tx_push(&r->q);
        CHECK(peer_take(&r->peer, &pkt));
        fill(want, lens[i], i);
        CHECK(pkt.len == lens[i] && !memcmp(pkt.data, want, lens[i]));
        CHECK(pkt.n_slots == (NF_TX_OFFSET + lens[i] + 4095) / 4096);
        if (i >= 6) {
            CHECK(pkt.flags & NETTXF_csum_blank && pkt.n_extras == 2);
            CHECK(pkt.extra[0].type == XEN_NETIF_EXTRA_TYPE_GSO &&
                  pkt.extra[0].u.gso.size == 1448 &&
                  pkt.extra[1].type == XEN_NETIF_EXTRA_TYPE_HASH &&
                  pkt.extra[1].u.hash.value[0] == 0x44);
        } else {
            CHECK(!pkt.n_extras && !(pkt.flags & NETTXF_csum_blank));
        }
        peer_answer(&r->peer, &pkt, NETIF_RSP_OKAY);
        peer_push_tx(&r->peer);
        CHECK(nf_tx_reap(&r->q) == (int)(pkt.n_slots + pkt.n_extras));
    }
    CHECK(!nf_tx_in_flight(&r->q) && NF_GET(r->q.stats.tx_errors) == 0);
}

static void
test_tx_full(struct rig *r)
{
    static struct peer_packet pkt;
    unsigned n = 0, taken = 0;

    CASE("transmit: full ring, errors, notification at the half");
    while (put_frame(&r->q, 60, n, &(struct nf_meta){0})) {
        n++;
    }
    CHECK(n == 254); /* two slots stay free for extras */
    nf_tx_push(&r->q);
    CHECK(!nf_tx_arm(&r->q, 3));
    local_evtchn_clear(r->dom, r->q.tx_port);
    while (peer_take(&r->peer, &pkt)) {
        peer_answer(&r->peer, &pkt, taken % 10 ? NETIF_RSP_OKAY : NETIF_RSP_ERROR);
        taken++;
        bool notified = peer_push_tx(&r->peer);
        CHECK(notified == (taken == 127));
        CHECK(readable(r->q.tx_fd) == (taken >= 127));
    }
    CHECK(taken == n && nf_tx_reap(&r->q) == (int)n);
    CHECK(NF_GET(r->q.stats.tx_errors) == 26);
    CHECK(!nf_tx_arm(&r->q, 3) && !nf_tx_in_flight(&r->q));
    local_evtchn_clear(r->dom, r->q.tx_port);
}

static void
test_tx_out_of_order(struct rig *r)
{
    static struct peer_packet pkt[16];
    unsigned n = 0;

    CASE("transmit: answers in any order; a busy page is never reused");
    while (n < 16 && put_frame(&r->q, 60000, n, &(struct nf_meta){0})) {
        n++;
    }
    nf_tx_push(&r->q);
    for (unsigned i = 0; i < n; i++) {
        CHECK(peer_take(&r->peer, &pkt[i]));
    }
    /* All but the first, so the circle runs into it. */
    for (unsigned i = n - 1; i > 0; i--) {
        peer_answer(&r->peer, &pkt[i], NETIF_RSP_OKAY);
    }
    peer_push_tx(&r->peer);
    CHECK(nf_tx_reap(&r->q) > 0);
    unsigned first = pkt[0].id[0], more = 0;
    while (put_frame(&r->q, 60000, more, &(struct nf_meta){0})) {
        static struct peer_packet p;
        nf_tx_push(&r->q);
        CHECK(peer_take(&r->peer, &p));
        for (unsigned i = 0; i < p.n_slots; i++) {
            CHECK(p.id[i] < first || p.id[i] >= first + pkt[0].n_slots);
        }
        peer_answer(&r->peer, &p, NETIF_RSP_OKAY);
        peer_push_tx(&r->peer);
        nf_tx_reap(&r->q);
        CHECK(++more < 100);
    }
    CHECK(!nf_tx_arm(&r->q, 19)); /* slots are free: the next answer is what is needed */
    peer_answer(&r->peer, &pkt[0], NETIF_RSP_OKAY);
    CHECK(peer_push_tx(&r->peer));
    CHECK(nf_tx_reap(&r->q) == (int)pkt[0].n_slots);
    CHECK(nf_tx_reserve(&r->q, 17) != NULL && !nf_tx_in_flight(&r->q));
}

static void
test_tx_aux_and_mcast(struct rig *r)
{
    static struct peer_packet pkt;
    static const uint8_t group[6] = {1, 0, 0x5e, 0, 0, 7};
    struct nf_mcast m;
    struct nf_mcast_set set = {.n = 1, .mac = {{1, 0, 0x5e, 0, 0, 1}}};
    uint8_t frame[NF_ANNOUNCE_LEN];

    CASE("transmit: announcement and multicast list");
    nf_announce_frame(group, frame);
    CHECK(!nf_tx_put_aux(&r->q, frame, sizeof frame));
    CHECK(nf_tx_put_aux(&r->q, frame, sizeof frame) == EAGAIN);
    nf_tx_push(&r->q);
    CHECK(peer_take(&r->peer, &pkt) && pkt.len == 60 && !memcmp(pkt.data, frame, 60));
    peer_answer(&r->peer, &pkt, NETIF_RSP_OKAY);

    nf_mcast_init(&m);
    CHECK(nf_mcast_set(&m, &set) && !nf_mcast_set(&m, &set) && nf_mcast_pending(&m));
    nf_mcast_flush(&m, &r->q);
    CHECK(!nf_mcast_pending(&m));
    CHECK(peer_take(&r->peer, &pkt) && pkt.n_extras == 1 &&
          pkt.extra[0].type == XEN_NETIF_EXTRA_TYPE_MCAST_ADD &&
          !memcmp(pkt.extra[0].u.mcast.addr, set.mac[0], 6));
    peer_answer(&r->peer, &pkt, NETIF_RSP_ERROR);
    memcpy(set.mac[0], group, 6);
    CHECK(nf_mcast_set(&m, &set));
    nf_mcast_flush(&m, &r->q);
    CHECK(peer_take(&r->peer, &pkt) && pkt.extra[0].type == XEN_NETIF_EXTRA_TYPE_MCAST_DEL);
    peer_answer(&r->peer, &pkt, NETIF_RSP_OKAY);
    CHECK(peer_take(&r->peer, &pkt) && pkt.extra[0].type == XEN_NETIF_EXTRA_TYPE_MCAST_ADD &&
          !memcmp(pkt.extra[0].u.mcast.addr, group, 6));
    peer_answer(&r->peer, &pkt, NETIF_RSP_OKAY);
    peer_push_tx(&r->peer);
    CHECK(nf_tx_reap(&r->q) == 1 + 3 * 2);
    CHECK(NF_GET(r->q.stats.mcast_errors) == 1);
    nf_mcast_reset(&m); /* a new connection: told again */
    nf_mcast_flush(&m, &r->q);
    CHECK(peer_take(&r->peer, &pkt) && !memcmp(pkt.extra[0].u.mcast.addr, group, 6));
    peer_answer(&r->peer, &pkt, NETIF_RSP_OKAY);
    peer_push_tx(&r->peer);
    nf_tx_reap(&r->q);
}

static void
test_rx_shapes(struct rig *r)
{
    static const uint32_t lens[] = {60, 1514, 4096, 4097, 9014, 65226};
    static uint8_t frame[65536], got[65536];
    struct netif_extra_info gso = {.type = XEN_NETIF_EXTRA_TYPE_GSO,
                                   .u.gso = {.size = 1448, .type = XEN_NETIF_GSO_TYPE_TCPV4}};
    struct nf_rx_frame f;

    CASE("receive: every shape arrives whole, many times around the ring");
    for (unsigned i = 0; i < 600; i++) {
        uint32_t len = lens[i % 6];
        bool seg = len > 9000;
        fill(frame, len, i);
        CHECK(peer_give(&r->peer, frame, len, seg ? NETRXF_csum_blank | NETRXF_data_validated : 0,
                        seg ? &gso : NULL));
        peer_push_rx(&r->peer);
        CHECK(nf_rx_next(&r->q, &f) == 1 && f.len == len);
        uint32_t at = 0;
        for (unsigned k = 0; k < f.n_frags; k++) {
            memcpy(got + at, f.frag[k].iov_base, f.frag[k].iov_len);
            at += (uint32_t)f.frag[k].iov_len;
        }
        CHECK(at == len && !memcmp(frame, got, len));
        CHECK(f.meta.csum_blank == seg && (f.meta.gso_size == 1448) == seg);
        CHECK(nf_rx_next(&r->q, &f) == 0);
        nf_rx_repost(&r->q);
        nf_rx_push(&r->q);
        CHECK(peer_rx_room(&r->peer) == NF_RX_PAGES);
    }
    CHECK(NF_GET(r->q.stats.rx_errors) == 0);
}

static void
test_rx_events(struct rig *r)
{
    static uint8_t frame[64];
    struct nf_rx_frame f;

    CASE("receive: notified when asleep, never when awake");
    peer_give(&r->peer, frame, sizeof frame, 0, NULL);
    peer_push_rx(&r->peer);
    CHECK(nf_rx_arm(&r->q)); /* there is one already */
    CHECK(nf_rx_next(&r->q, &f) == 1);
    nf_rx_repost(&r->q);
    nf_rx_push(&r->q);
    CHECK(!nf_rx_arm(&r->q));
    local_evtchn_clear(r->dom, r->q.rx_port);
    peer_give(&r->peer, frame, sizeof frame, 0, NULL);
    CHECK(peer_push_rx(&r->peer) && readable(r->q.rx_fd));
    peer_give(&r->peer, frame, sizeof frame, 0, NULL);
    CHECK(!peer_push_rx(&r->peer)); /* not armed again: one notification per sleep */
    CHECK(local_evtchn_clear(r->dom, r->q.rx_port) && !readable(r->q.rx_fd));
    CHECK(nf_drain_rx(&r->q, 64) == 2);

    CHECK(!peer_arm_tx(&r->peer));
    peer_was_notified(&r->peer);
    CHECK(put_frame(&r->q, 60, 0, &(struct nf_meta){0}));
    nf_tx_push(&r->q);
    CHECK(peer_was_notified(&r->peer));
    CHECK(put_frame(&r->q, 60, 0, &(struct nf_meta){0}));
    nf_tx_push(&r->q);
    CHECK(!peer_was_notified(&r->peer));
}

static void
give_bad(struct rig *r, int id_off, uint16_t offset, uint16_t flags, int16_t status)
{
    unsigned slot = r->peer.rx.req_cons % NF_RX_PAGES;
    netif_rx_response_t rsp = {
        .id = (uint16_t)(slot + id_off), .offset = offset, .flags = flags, .status = status};
    peer_give_raw(&r->peer, &rsp);
}

static void
test_rx_bad(struct rig *r)
{
    static uint8_t frame[64];
    struct netif_extra_info endless = {.type = XEN_NETIF_EXTRA_TYPE_GSO,
                                       .flags = XEN_NETIF_EXTRA_FLAG_MORE};
    netif_rx_response_t raw;
    struct nf_rx_frame f;
    uint64_t errors = NF_GET(r->q.stats.rx_errors);

    CASE("receive: bad answers are skipped, good ones behind them are not");
    give_bad(r, 0, 4000, 0, 97);             /* passes the page */
    give_bad(r, 0, 0xffff, 0, 0x7fff);       /* by far */
    give_bad(r, 0, 0, 0, NETIF_RSP_ERROR);   /* the backend's own error */
    give_bad(r, 0, 0, 0, 0);                 /* empty */
    give_bad(r, 1, 0, 0, 60);                /* another slot's id */
    give_bad(r, 0, 0, NETRXF_more_data, 60); /* a bad fragment behind a good one */
    give_bad(r, 0, 0, 0, NETIF_RSP_ERROR);
    give_bad(r, 0, 0, NETRXF_extra_info, 60); /* segments of no bytes */
    endless.flags = 0;
    memcpy(&raw, &endless, sizeof raw);
    peer_give_raw(&r->peer, &raw);
    peer_give(&r->peer, frame, sizeof frame, 0, NULL);
    peer_push_rx(&r->peer);
    CHECK(nf_rx_next(&r->q, &f) == 1 && f.len == sizeof frame);
    CHECK(NF_GET(r->q.stats.rx_errors) == errors + 7);
    nf_rx_repost(&r->q);
    nf_rx_push(&r->q);

    CASE("receive: endless chains end");
    give_bad(r, 0, 0, NETRXF_extra_info, 60);
    endless.flags = XEN_NETIF_EXTRA_FLAG_MORE;
    memcpy(&raw, &endless, sizeof raw);
    while (peer_give_raw(&r->peer, &raw)) {
    }
    peer_push_rx(&r->peer);
    CHECK(nf_rx_next(&r->q, &f) == 0);
    nf_rx_repost(&r->q);
    nf_rx_push(&r->q);
    while (peer_rx_room(&r->peer)) {
        give_bad(r, 0, 0, NETRXF_more_data, 60);
    }
    peer_push_rx(&r->peer);
    CHECK(nf_rx_next(&r->q, &f) == 0);
    CHECK(NF_GET(r->q.stats.rx_errors) == errors + 9);
    nf_rx_repost(&r->q);
    nf_rx_push(&r->q);
    CHECK(peer_rx_room(&r->peer) == NF_RX_PAGES);
}

static void
test_protocol_breaks(void)
{
    static struct peer_packet pkt;
    static struct rig r;
    struct nf_rx_frame f;

    CASE("an answer nobody waits for breaks the ring");
    rig_up(&r, true);
    CHECK(put_frame(&r.q, 60, 0, &(struct nf_meta){0}));
    nf_tx_push(&r.q);
    CHECK(peer_take(&r.peer, &pkt));
    peer_answer_id(&r.peer, (uint16_t)(pkt.id[0] + 1), NETIF_RSP_OKAY);
    peer_push_tx(&r.peer);
    CHECK(nf_tx_reap(&r.q) == -EPROTO);
    rig_down(&r);
    rig_up(&r, true);
    CHECK(put_frame(&r.q, 60, 0, &(struct nf_meta){0}));
    nf_tx_push(&r.q);
    peer_answer_id(&r.peer, 0xfffe, NETIF_RSP_OKAY);
    peer_push_tx(&r.peer);
    CHECK(nf_tx_reap(&r.q) == -EPROTO);
    rig_down(&r);

    CASE("indices that jump break the ring");
    rig_up(&r, false);
    r.peer.tx.sring->rsp_prod = 1;
    CHECK(nf_tx_reap(&r.q) == -EPROTO);
    r.peer.rx.sring->rsp_prod = NF_RX_PAGES + 1;
    CHECK(nf_rx_next(&r.q, &f) == -EPROTO);
    rig_down(&r);
}

static void
test_grants(void)
{
    static struct rig r;
    struct xen_netif_gref list[NF_QUEUE_PAGES];

    CASE("grants: read-only to send, held ones survive a reconnection");
    rig_up(&r, true);
    unsigned n = nf_queue_data_grefs(&r.q, list, NF_QUEUE_PAGES);
    CHECK(n == NF_TX_PAGES + 1 + NF_RX_PAGES);
    void *page = NULL;
    const struct hv_ops *ops = r.peer.hv->ops;
    CHECK(list[0].flags & XEN_NETIF_CTRLF_GREF_readonly && !list[n - 1].flags);
    CHECK(ops->grant_map(r.peer.grants, 9, &list[0].ref, 1, true, &page) != 0);
    CHECK(!ops->grant_map(r.peer.grants, 9, &list[0].ref, 1, false, &page));
    uint32_t ref = r.q.gref[2];
    CHECK(ref == list[0].ref);
    CHECK(nf_queue_disconnect(&r.q) == 3); /* this page and both rings */
    CHECK(r.q.gref[2] == ref && !r.q.gref[3]);
    CHECK(!nf_queue_connect(&r.q, 0, false));
    CHECK(r.q.gref[2] == ref && r.q.gref[3]);
    peer_disconnect(&r.peer);
    rig_down(&r);
}

/* Random frames both ways with the peer as an echo: nothing lost, nothing changed. */
static void
test_echo(void)
{
    static struct peer_packet pkt;
    static struct rig r;
    static uint8_t want[65536], got[65536];
    struct nf_rx_frame f;
    unsigned seed = 1, sent = 0, back = 0;

    CASE("echo of 3,000 frames of random sizes");
    rig_up(&r, false);
    while (back < 3000) {
        for (int burst = 0; burst < 8 && sent < 3000; burst++) {
            seed = seed * 1103515245u + 12345u;
            uint32_t len = seed >> 16 & 1 ? 60 + (seed >> 17) % 1455 : 60 + (seed >> 8) % 60000;
            if (!put_frame(&r.q, len, len, &(struct nf_meta){0})) {
                break;
            }
            sent++;
        }
        nf_tx_push(&r.q);
        while (peer_rx_room(&r.peer) >= 18 && peer_take(&r.peer, &pkt)) {
            peer_answer(&r.peer, &pkt, NETIF_RSP_OKAY);
            CHECK(peer_give(&r.peer, pkt.data, pkt.len, 0, NULL));
        }
        peer_push_tx(&r.peer);
        peer_push_rx(&r.peer);
        CHECK(nf_tx_reap(&r.q) >= 0);
        while (nf_rx_next(&r.q, &f) == 1) {
            uint32_t at = 0;
            for (unsigned k = 0; k < f.n_frags; k++) {
                memcpy(got + at, f.frag[k].iov_base, f.frag[k].iov_len);
                at += (uint32_t)f.frag[k].iov_len;
            }
            fill(want, at, at);
            CHECK(at == f.len && !memcmp(want, got, at));
            back++;
            nf_rx_recycle(&r.q);
        }
        nf_rx_push(&r.q);
    }
    CHECK(sent == 3000 && NF_GET(r.q.stats.rx_errors) == 0);
    CHECK(NF_GET(r.q.stats.tx_bytes) == NF_GET(r.q.stats.rx_bytes));
    rig_down(&r);
}

/* --- wakeups ------------------------------------------------------------------------------ */

#define WAKE_FRAMES 60000u
#define WAKE_PATIENCE_MS 5000

/* The peer as an echo on its own thread: sleeps on its event channel whenever
 * there is nothing it can do. */
struct echo_thread {
    struct rig *rig;
    _Atomic bool stop;
    pthread_t thread;
};

static bool
echo_some(struct peer *p)
{
    static struct peer_packet pkt;
    bool any = false;

    /* The guest's answers to our frames come as posted pages. */
    while (peer_rx_room(p) >= 18 && peer_take(p, &pkt)) {
        peer_answer(p, &pkt, NETIF_RSP_OKAY);
        peer_give(p, pkt.data, pkt.len, 0, NULL);
        any = true;
        if (pkt.id[0] % 3 == 0) {
            peer_push_tx(p);
            peer_push_rx(p);
        }
    }
    peer_push_tx(p);
    peer_push_rx(p);
    return any;
}

static void *
echo_thread_main(void *arg)
{
    struct echo_thread *e = arg;
    struct peer *p = &e->rig->peer;

    while (!atomic_load(&e->stop)) {
        struct pollfd fd = {.fd = p->hv->ops->evtchn_fd(p->events), .events = POLLIN};
        if (echo_some(p)) {
            continue;
        }
        if (peer_rx_room(p) < 18) {
            p->rx.sring->req_event = p->rx.req_cons + 18;
            xen_mb();
            if (peer_rx_room(p) >= 18) {
                continue;
            }
        } else if (peer_arm_tx(p)) {
            continue;
        }
        poll(&fd, 1, -1); /* if a wakeup is lost, the guest waits in vain, and says so */
        peer_was_notified(p);
    }
    return NULL;
}

/* Moves what can be moved; returns how many frames. */
static unsigned
exchange(struct nf_queue *q, unsigned *sent, unsigned *back)
{
    struct nf_rx_frame f;
    unsigned n = 0;

    nf_tx_reap(q);
    while (*sent < WAKE_FRAMES && n < 40 &&
           put_frame(q, *sent % 7 ? 60 : 20000 + *sent % 40000, *sent, &(struct nf_meta){0})) {
        ++*sent;
        n++;
    }
    nf_tx_push(q);
    while (nf_rx_next(q, &f) == 1) {
        ++*back;
        n++;
        nf_rx_recycle(q);
    }
    nf_rx_push(q);
    return n;
}

static void
test_wakeups(bool split)
{
    static struct rig r;
    struct echo_thread e = {.rig = &r};
    struct nf_queue *q = &r.q;
    unsigned sent = 0, back = 0;
    bool stuck = false;

    CASE(split ? "no wakeup is lost, two event channels" : "no wakeup is lost, one event channel");
    rig_up(&r, split);
    CHECK(!pthread_create(&e.thread, NULL, echo_thread_main, &e));
    while (back < WAKE_FRAMES && !stuck) {
        if (exchange(q, &sent, &back)) {
            continue;
        }
        if (nf_rx_arm(q) || (sent < WAKE_FRAMES && nf_tx_arm(q, 19))) {
            continue;
        }
        struct pollfd fds[2] = {{.fd = q->rx_fd, .events = POLLIN},
                                {.fd = q->tx_fd, .events = POLLIN}};
        stuck = poll(fds, split ? 2 : 1, WAKE_PATIENCE_MS) == 0;
        local_evtchn_clear(r.dom, q->rx_port);
        local_evtchn_clear(r.dom, q->tx_port);
    }
    CHECK(!stuck && back == WAKE_FRAMES);
    atomic_store(&e.stop, true);
    local_evtchn_notify(r.dom, q->tx_port);
    pthread_join(e.thread, NULL);
    rig_down(&r);
}

/* --- workers ----------------------------------------------------------------------------- */

#define WORKER_FRAMES 200u

static uint64_t
now_ms(void)
{
    return nf_now_ns() / 1000000;
}

/* Looks until it holds, or too long. */
#define UNTIL(cond, ms)                                                                            \
    ({                                                                                             \
        uint64_t end_ = now_ms() + (ms);                                                           \
        bool held_;                                                                                \
        while (!(held_ = (cond)) && now_ms() < end_) {                                             \
            sched_yield();                                                                         \
        }                                                                                          \
        held_;                                                                                     \
    })

/* Takes and answers what there is; returns how many were announcements. */
static unsigned
take_announcements(struct peer *peer)
{
    static struct peer_packet pkt;
    unsigned n = 0;

    while (peer_take(peer, &pkt)) {
        n += pkt.len == NF_ANNOUNCE_LEN;
        peer_answer(peer, &pkt, NETIF_RSP_OKAY);
    }
    peer_push_tx(peer);
    return n;
}

/* A guest's worker that drops what it gets; each frame comes when it has
 * nothing else to do. */
static void
test_worker(bool polls)
{
    static struct nf_guest g;
    static uint8_t frame[64];
    struct nf_config cfg = {.mode = &nf_mode_idle, .poll = polls};
    struct nf_queue *q = &g.queue[0];
    unsigned notified = 0, announced = 0;
    struct peer peer;

    CASE(polls ? "a worker that polls says its MAC again although nothing moves"
               : "a worker that sleeps says its MAC again");
    memset(&g, 0, sizeof g);
    g.cfg = &cfg;
    g.n_queues = 1;
    g.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(!local_domain_create(peer_dir(), 9, NF_QUEUE_PAGES, NF_QUEUE_PAGES, &g.dom));
    nf_queue_init(q, g.dom, 0);
    CHECK(!nf_queue_connect(q, 0, true) && !peer_connect(&peer, q));
    CHECK(!nf_worker_init(&g.worker[0], &g, 0) && !nf_worker_start(&g.worker[0]));
    /* Within a second; if the first was not answered by then, within a minute. */
    CHECK(UNTIL((announced += take_announcements(&peer)) >= 2, 80000));

    CASE(polls ? "and is never notified" : "and is notified");
    for (unsigned i = 0; i < WORKER_FRAMES; i++) {
        CHECK(polls || UNTIL(__atomic_load_n(&peer.rx.sring->rsp_event, __ATOMIC_RELAXED) ==
                                 peer.rx.rsp_prod_pvt + 1,
                             4 * WAKE_PATIENCE_MS));
        CHECK(peer_give(&peer, frame, sizeof frame, 0, NULL));
        notified += peer_push_rx(&peer);
        CHECK(UNTIL(NF_GET(q->stats.rx_packets) == i + 1, 4 * WAKE_PATIENCE_MS));
    }
    /* A new ring asks for its first answer's event by itself. */
    CHECK(notified == (polls ? 1 : WORKER_FRAMES));
    nf_worker_stop(&g.worker[0]);
    CHECK(polls ? NF_GET(q->stats.wakeups) == 0 : NF_GET(q->stats.wakeups) > 0);
    nf_worker_fini(&g.worker[0]);
    peer_disconnect(&peer);
    CHECK(nf_queue_disconnect(q) == 0);
    local_domain_destroy(g.dom);
    close(g.event_fd);
}

/* --- control ring ---------------------------------------------------------------------- */

/* The backend's half on a thread of its own: answers with a status by type,
 * and remembers the requests. */
struct ctrl_peer {
    struct xen_netif_ctrl_back_ring ring;
    struct local_domain *dom;
    struct hv *hv;
    struct hv_grants *grants;
    struct hv_evtchns *events;
    uint32_t port;
    pthread_mutex_t lock;
    uint32_t status[16], data[16];          /* guarded by lock */
    struct xen_netif_ctrl_request seen[64]; /* guarded by lock */
    unsigned n_seen;                        /* guarded by lock */
    _Atomic bool stop;
    pthread_t thread;
};

static void
ctrl_respond(struct ctrl_peer *p, uint16_t id, uint16_t type, uint32_t status, uint32_t data)
{
    *RING_GET_RESPONSE(&p->ring, p->ring.rsp_prod_pvt) =
        (struct xen_netif_ctrl_response){.id = id, .type = type, .status = status, .data = data};
    p->ring.rsp_prod_pvt++;
}

static void *
ctrl_peer_main(void *arg)
{
    struct ctrl_peer *p = arg;

    while (!atomic_load(&p->stop)) {
        int pending, notify;
        struct pollfd fd = {.fd = p->hv->ops->evtchn_fd(p->events), .events = POLLIN};
        RING_FINAL_CHECK_FOR_REQUESTS(&p->ring, pending);
        if (!pending) {
            poll(&fd, 1, 50);
            while (hv_evtchn_next(p->hv->ops, p->events) >= 0) {
            }
            continue;
        }
        struct xen_netif_ctrl_request req;
        RING_COPY_REQUEST(&p->ring, p->ring.req_cons, &req);
        p->ring.req_cons++;
        pthread_mutex_lock(&p->lock);
        p->seen[p->n_seen++] = req;
        ctrl_respond(p, req.id, req.type, p->status[req.type], p->data[req.type]);
        pthread_mutex_unlock(&p->lock);
        RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(&p->ring, notify);
        if (notify) {
            p->hv->ops->evtchn_notify(p->events, p->port);
        }
    }
    return NULL;
}

/* From now on. */
static void
ctrl_answers(struct ctrl_peer *p, uint16_t type, uint32_t status, uint32_t data)
{
    pthread_mutex_lock(&p->lock);
    p->status[type] = status;
    p->data[type] = data;
    p->n_seen = 0;
    pthread_mutex_unlock(&p->lock);
}

/* The i-th request since; all zero if there was none. */
static struct xen_netif_ctrl_request
ctrl_saw(struct ctrl_peer *p, unsigned i)
{
    struct xen_netif_ctrl_request req = {0};

    pthread_mutex_lock(&p->lock);
    if (i < p->n_seen) {
        req = p->seen[i];
    }
    pthread_mutex_unlock(&p->lock);
    return req;
}

static void
ctrl_peer_up(struct ctrl_peer *p, struct nf_ctrl *c)
{
    char spec[80], why[128];
    void *page = NULL;

    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    snprintf(spec, sizeof spec, "local:%s", peer_dir());
    CHECK(!hv_open(spec, &p->hv, why, sizeof why));
    CHECK(!p->hv->ops->grants_open(p->hv, &p->grants) &&
          !p->hv->ops->evtchns_open(p->hv, &p->events));
    CHECK(!p->hv->ops->grant_map(p->grants, 9, &c->ring_ref, 1, true, &page));
    CHECK(!p->hv->ops->evtchn_bind(p->events, 9, c->port, &p->port));
    BACK_RING_INIT(&p->ring, (struct xen_netif_ctrl_sring *)page, HV_PAGE_SIZE);
    CHECK(!pthread_create(&p->thread, NULL, ctrl_peer_main, p));
}

static void
ctrl_peer_down(struct ctrl_peer *p)
{
    atomic_store(&p->stop, true);
    pthread_join(p->thread, NULL);
    p->hv->ops->evtchns_close(p->events);
    p->hv->ops->grants_close(p->grants);
    hv_close(p->hv);
}

static void
test_ctrl(void)
{
    static struct ctrl_peer p;
    static struct rig r;
    struct xen_netif_gref list[600] = {0};
    uint32_t flags = 0xf, limit = 0, mapping[128] = {0};
    uint8_t key[40] = {1, 2, 3};
    unsigned done = 0;

    CASE("control ring: hashing");
    rig_up(&r, true);
    CHECK(nf_ctrl_gref_limit(&r.ctrl, 0, &limit) == EOPNOTSUPP); /* not connected */
    CHECK(!nf_ctrl_connect(&r.ctrl, 0));
    ctrl_peer_up(&p, &r.ctrl);
    ctrl_answers(&p, XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS, 0, 3);
    ctrl_answers(&p, XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE, 0, 128);
    CHECK(!nf_ctrl_hash_enable(&r.ctrl, key, 40, &flags) && flags == 3);
    CHECK(!nf_ctrl_hash_mapping(&r.ctrl, mapping, 128));
    CHECK(ctrl_saw(&p, 1).type == XEN_NETIF_CTRL_TYPE_SET_HASH_KEY &&
          ctrl_saw(&p, 1).data[1] == 40);
    CHECK(ctrl_saw(&p, 3).type == XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS &&
          ctrl_saw(&p, 3).data[0] == 3);
    ctrl_answers(&p, XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE, 0, 127);
    CHECK(nf_ctrl_hash_mapping(&r.ctrl, mapping, 128) == ENOSPC);
    ctrl_answers(&p, XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM, XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED,
                 0);
    CHECK(nf_ctrl_hash_enable(&r.ctrl, key, 40, &flags) == EOPNOTSUPP);

    CASE("control ring: static grants in lists of at most 512");
    ctrl_answers(&p, XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE, 0, 1024);
    CHECK(!nf_ctrl_gref_limit(&r.ctrl, 1, &limit) && limit == 1024);
    CHECK(!nf_ctrl_gref_add(&r.ctrl, 1, list, 600, &done) && done == 600);
    CHECK(ctrl_saw(&p, 1).data[2] == 512 && ctrl_saw(&p, 2).data[2] == 88 &&
          ctrl_saw(&p, 2).data[0] == 1 && !ctrl_saw(&p, 3).type);
    CHECK(!nf_ctrl_gref_del(&r.ctrl, 1, list, 5, &done) && done == 5);
    ctrl_answers(&p, XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING, XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER,
                 0);
    CHECK(nf_ctrl_gref_add(&r.ctrl, 0, list, 5, &done) == EINVAL && done == 0);
    ctrl_answers(&p, XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING, 77, 0);
    CHECK(nf_ctrl_gref_add(&r.ctrl, 0, list, 5, &done) == EPROTO);
    ctrl_peer_down(&p);
    nf_ctrl_disconnect(&r.ctrl);
    rig_down(&r);
}

int
main(void)
{
    static struct rig r;

    peer_broker_start();
    for (int split = 0; split < 2; split++) {
        CASE(split ? "connect with two event channels" : "connect with one event channel");
        rig_up(&r, split);
        test_tx_shapes(&r);
        test_tx_full(&r);
        test_tx_out_of_order(&r);
        test_tx_aux_and_mcast(&r);
        test_rx_shapes(&r);
        test_rx_events(&r);
        test_rx_bad(&r);
        rig_down(&r);
    }
    test_protocol_breaks();
    test_grants();
    test_echo();
    test_wakeups(true);
    test_wakeups(false);
    test_worker(false);
    test_worker(true);
    test_ctrl();
    int failed = check_done();
    peer_broker_stop();
    return failed;
}
