/* Guests that mean harm, against a whole netback, beside a neighbour that must
 * not notice.  Case numbers are those of the plan of attacks on rings. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xenstore.h>

#include "check.h"
#include "nb_guest.h"
#include "nb_neighbour.h"
#include "nb_rig.h"
#include "ring_guest.h" /* frame_build() */

/* Sanitizers take their time. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 6u
#else
#define SLOW 1u
#endif

#define NEIGHBOUR 500
#define TRIES 5u

static uint8_t frame[65536];

/* What may be in use; the neighbour's share goes up and down. */
static struct rig_resources
resources(void)
{
    struct rig_resources r = rig_resources();

    r.buffers += NB_NEIGHBOUR_BUFFERS;
    return r;
}

/* Ends the vif as a toolstack does and makes it anew; true if the backend let
 * go of everything in between. */
static bool
replug(struct nb_guest *g, const struct toolstack_vif *vif)
{
    bool released = !toolstack_vif_offline(rig_store(), g->domid, 0) &&
                    nb_wait_backend(g, 1u << XenbusStateClosed, RIG_PATIENCE_MS) &&
                    local_grants_in_use(g->dom) == 0 && nb_release(g) == 0;

    toolstack_vif_destroy(rig_store(), g->domid, 0);
    nb_guest_plug(g->domid, vif);
    return released;
}

/* --- 1: index jumps ---------------------------------------------------------------- */

static void
jump_tx(struct nb_guest *g)
{
    g->q[0].tx.sring->req_prod += NB_SLOTS + 1;
    local_evtchn_notify(g->dom, g->q[0].tx_port);
}

static void
jump_tx_back(struct nb_guest *g)
{
    g->q[0].tx.sring->req_prod -= 1;
    local_evtchn_notify(g->dom, g->q[0].tx_port);
}

static void
jump_rx(struct nb_guest *g)
{
    g->q[0].rx.sring->req_prod += 0x80000000;
}

static void
jump_ctrl(struct nb_guest *g)
{
    g->ctrl.sring->req_prod += 1000;
    local_evtchn_notify(g->dom, g->ctrl_port);
}

static void
test_index_jump(void)
{
    static const struct {
        const char *name;
        void (*jump)(struct nb_guest *);
    } jumps[] = {
        {"1: transmit index jumps: vif off in 100 ms", jump_tx},
        {"1: transmit index goes back: vif off in 100 ms", jump_tx_back},
        {"1: receive index jumps: vif off in 100 ms", jump_rx},
        {"1: control index jumps: vif off in 100 ms", jump_ctrl},
    };

    for (size_t i = 0; i < sizeof jumps / sizeof jumps[0]; i++) {
        uint64_t best = UINT64_MAX;
        struct nb_guest *g = nb_guest_new(10 + i, NULL);
        struct netback_vif *v = rig_attach(10 + i);

        CASE(jumps[i].name);
        /* A busy machine has more than one chance. */
        for (unsigned try = 0; try < TRIES && best > 100 * SLOW; try++) {
            struct rte_mbuf *m = rig_mbuf(frame, 60);

            CHECK(nb_connect(g, &(struct nb_options){.ctrl = true}) && nb_exchange(g, 0, v));
            rig_log_clear();
            uint64_t start = rig_now_ms();
            jumps[i].jump(g);
            netback_tx_burst(v, &m, 1);
            CHECK(RIG_UNTIL(!rig_status(v).connected, RIG_PATIENCE_MS));
            uint64_t took = rig_now_ms() - start;
            best = took < best ? took : best;
            CHECK(nb_wait_backend(g, 1u << XenbusStateClosing, RIG_PATIENCE_MS));
            CHECK(rig_logged("ring is broken"));
            /* It may come back. */
            CHECK(nb_close(g) && nb_reinit(g));
        }
        CHECK(best <= 100 * SLOW);
        CHECK(nb_connect(g, NULL) && nb_exchange(g, 0, v));
        netback_detach(v);
        nb_guest_free(g);
    }
}

/* --- 8: malformed packet, then disconnect ---------------------------------------------- */

static void
malformed(struct nb_queue *q, unsigned kind)
{
    netif_extra_info_t gso = nb_gso(XEN_NETIF_GSO_TYPE_TCPV4, kind & 8 ? 0 : 1400);

    switch (kind % 8) {
    case 0: /* past the page */
        nb_tx_slot(q, q->tx_ref[0], 4000, 200, 0);
        break;
    case 1: /* a grant that is not there */
        nb_tx_slot(q, 0xdeadbeef, 0, 200, 0);
        break;
    case 2: /* first size less than the sum */
        nb_tx_slot(q, q->tx_ref[0], 0, 100, NETTXF_more_data);
        nb_tx_slot(q, q->tx_ref[1], 0, 200, 0);
        break;
    case 3: /* a chain too long */
        for (unsigned i = 0; i < 30; i++) {
            nb_tx_slot(q, q->tx_ref[i], 0, i ? 10 : 500, i < 29 ? NETTXF_more_data : 0);
        }
        break;
    case 4: /* GSO of what is no TCP */
        memset(q->tx_data, 0xee, 300);
        nb_tx_slot(q, q->tx_ref[0], 0, 300, NETTXF_extra_info | NETTXF_csum_blank);
        nb_tx_extra(q, &gso);
        break;
    case 5: /* unfinished */
        nb_tx_slot(q, q->tx_ref[0], 0, 300, NETTXF_more_data);
        break;
    case 6: /* endless extras */
        nb_tx_slot(q, q->tx_ref[0], 0, 300, NETTXF_extra_info);
        gso.flags = XEN_NETIF_EXTRA_FLAG_MORE;
        for (unsigned i = 0; i < 20; i++) {
            nb_tx_extra(q, &gso);
        }
        break;
    default: /* empty */
        nb_tx_slot(q, q->tx_ref[0], 0, 0, 0);
    }
    nb_tx_push(q);
}

static void
test_malformed(void)
{
    struct nb_guest *g = nb_guest_new(2, NULL);
    struct netback_vif *v = rig_attach(2);
    struct nb_options o = {.n_queues = 1, .ctrl = true};
    unsigned n = 0, bad = 0;

    CASE("8: malformed packet, then the switch's side disconnects, for 4 s and 1,000 times");
    CHECK(nb_connect(g, &o));
    netback_detach(v);
    struct rig_resources base = resources();
    for (uint64_t until = rig_now_ms() + 4000;
         n < 10000 && (rig_now_ms() < until || (n < 1000 / SLOW && !bad)); n++) {
        nb_tx_reap(&g->q[0]);
        if (RING_FREE_REQUESTS(&g->q[0].tx) > 40) {
            malformed(&g->q[0], n);
        }
        v = rig_attach(2);
        /* Often enough it is connected in time, and at work. */
        bad += !RIG_UNTIL(rig_status(v).connected, RIG_PATIENCE_MS);
        netback_detach(v);
        bad += local_grants_in_use(g->dom) != 0;
    }
    CHECK(bad == 0 && n >= 1000 / SLOW);
    CHECK(g->q[0].n_error > n / 2);
    CHECK(rig_settles(&base));
    printf("# 8: %u times\n", n);

    CASE("8: malformed packet, then hot unplug, for 3 s");
    v = rig_attach(2);
    CHECK(RIG_UNTIL(rig_status(v).connected, RIG_PATIENCE_MS));
    CHECK(replug(g, NULL));
    base = resources();
    n = bad = 0;
    for (uint64_t until = rig_now_ms() + 3000; rig_now_ms() < until || (n < 50 / SLOW && !bad);
         n++) {
        bad += !nb_connect(g, &o);
        malformed(&g->q[0], n);
        bad += !replug(g, NULL);
    }
    CHECK(bad == 0 && n >= 50 / SLOW);
    CHECK(rig_settles(&base));
    printf("# 8: %u times over the store\n", n);
    netback_detach(v);
    nb_guest_free(g);
}

/* --- 11: disconnect with N in flight ---------------------------------------------------- */

static void
test_in_flight(void)
{
    /* So little credit that nothing is taken. */
    struct toolstack_vif vif = {.hotplug_connected = true, .rate = "1,4000000"};
    struct nb_guest *g = nb_guest_new(3, &vif);
    struct netback_vif *v = rig_attach(3);
    struct rig_resources base = resources();
    unsigned bad = 0, answered = 0;
    unsigned step = SLOW > 1 ? 16 : 1;

    CASE("11: disconnect with N requests in flight, every N");
    for (unsigned n = 0; n <= NB_SLOTS; n += step) {
        bad += !nb_connect(g, &(struct nb_options){.split = n & 1});
        for (unsigned i = 0; i < n; i++) {
            bad += !nb_tx_frame(&g->q[0], frame, 60, 0, NULL, HV_PAGE_SIZE);
        }
        nb_tx_push(&g->q[0]);
        bad += !replug(g, &vif);
        nb_tx_reap(&g->q[0]);
        answered += n - nb_tx_in_flight(&g->q[0]);
    }
    CHECK(bad == 0);
    CHECK(answered == 0);
    CHECK(rig_settles(&base));
    netback_detach(v);
    nb_guest_free(g);

    CASE("11: disconnect while packets pour in both ways");
    g = nb_guest_new(3, NULL);
    v = rig_attach(3);
    base = resources();
    bad = 0;
    for (unsigned n = 0; n < 100 / SLOW; n++) {
        bad += !nb_connect(g, &(struct nb_options){.split = n & 1});
        for (unsigned i = 0; i < 200; i++) {
            struct rte_mbuf *m = rig_mbuf(frame, i & 1 ? 60 : 1500);
            netback_tx_burst(v, &m, 1);
            bad += !nb_tx_frame(&g->q[0], frame, 60, 0, NULL, HV_PAGE_SIZE);
        }
        nb_tx_push(&g->q[0]);
        bad += !replug(g, NULL);
        rig_discard(v);
    }
    CHECK(bad == 0);
    CHECK(rig_settles(&base));
    netback_detach(v);
    nb_guest_free(g);
}

/* --- 12: a guest that takes nothing ------------------------------------------------------ */

static void
push_many(struct netback_vif *v, uint32_t len, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct rte_mbuf *m = rig_mbuf(frame, len);

        if (len > 1514) {
            m->ol_flags = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4;
            m->tso_segsz = 1448;
        }
        netback_tx_burst(v, &m, 1);
    }
}

static void
frozen(const char *name, unsigned free_slots)
{
    struct nb_guest *g = nb_guest_new(4, NULL);
    struct netback_vif *v = rig_attach(4);
    struct nb_queue *q = &g->q[0];
    struct rig_resources base = resources();

    CASE(name);
    CHECK(nb_connect(g, NULL) && nb_exchange(g, 0, v));
    rig_log_clear();
    /* Fill the ring but for 'free_slots', with packets of one slot. */
    push_many(v, 60, NB_SLOTS - free_slots);
    CHECK(RIG_UNTIL(rig_stats(v).tx_packets == 1 + NB_SLOTS - free_slots, RIG_PATIENCE_MS));
    /* Now load with what does not fit. */
    uint32_t len = frame_build(frame, &(struct frame_spec){.payload = 20000, .blank = true});
    size_t idle = netback_memory(v);
    push_many(v, len, 100);
    CHECK(netback_memory(v) - idle <= RIG_QUEUE_BYTES);
    CHECK(rig_drops(v, DROP_GRX_QUEUE_FULL) >= 100 - RIG_QUEUE_BYTES / 65536);

    CHECK(RIG_UNTIL(rig_key_is(g->backend, "carrier", "0"), RIG_PATIENCE_MS));
    CHECK(!rig_status(v).carrier && rig_status(v).connected);
    CHECK(rig_logged("takes no packets") && rig_stats(v).stalls == 1);
    CHECK(RIG_UNTIL(rig_drops(v, DROP_GRX_STALLED) > 0, RIG_PATIENCE_MS));
    CHECK(RIG_UNTIL(netback_memory(v) <= idle, RIG_PATIENCE_MS));
    push_many(v, len, 10);
    CHECK(RIG_UNTIL(rig_stats(v).tx_packets + rig_drops(v, DROP_GRX_STALLED) +
                            rig_drops(v, DROP_GRX_QUEUE_FULL) ==
                        1 + NB_SLOTS - free_slots + 110,
                    RIG_PATIENCE_MS));

    /* It takes them at last. */
    nb_rx_discard(q);
    CHECK(RIG_UNTIL(rig_key_is(g->backend, "carrier", "1"), RIG_PATIENCE_MS));
    CHECK(rig_status(v).carrier && nb_exchange(g, 0, v));
    CHECK(nb_close(g));
    netback_detach(v);
    nb_guest_free(g);
    CHECK(rig_settles(&base));
}

static void
test_stalled_and_broken(void)
{
    struct nb_guest *g = nb_guest_new(8, NULL);
    struct netback_vif *v = rig_attach(8);

    CASE("12: a stalled guest that breaks its index is switched off, not polled");
    CHECK(nb_connect(g, NULL) && nb_exchange(g, 0, v));
    push_many(v, 60, NB_SLOTS + 1);
    CHECK(RIG_UNTIL(!rig_status(v).carrier, RIG_PATIENCE_MS));
    g->q[0].rx.sring->req_prod -= 1000;
    local_evtchn_notify(g->dom, g->q[0].rx_port);
    CHECK(RIG_UNTIL(!rig_status(v).connected, RIG_PATIENCE_MS));
    CHECK(nb_close(g) && nb_reinit(g));
    netback_detach(v);
    nb_guest_free(g);
}

/* --- 13: event storm ------------------------------------------------------------------------ */

static void
test_event_storm(void)
{
    struct nb_guest *g = nb_guest_new(5, NULL);
    struct netback_vif *v = rig_attach(5);

    CASE("13: an event storm costs at most 10 % of a CPU");
    CHECK(nb_connect(g, &(struct nb_options){.split = true, .ctrl = true}) && nb_exchange(g, 0, v));
    uint64_t start = rig_now_ns(), cpu = rig_thread_cpu_ns("vif5.0-q0"), n = 0;
    while (rig_now_ns() - start < 1000000000) {
        local_evtchn_notify(g->dom, g->q[0].tx_port);
        local_evtchn_notify(g->dom, g->q[0].rx_port);
        local_evtchn_notify(g->dom, g->ctrl_port);
        n++;
    }
    uint64_t wall = rig_now_ns() - start;
    cpu = rig_thread_cpu_ns("vif5.0-q0") - cpu;
    CHECK(cpu > 0 && cpu * 10 <= wall * (SLOW > 1 ? 3 : 1));
    CHECK(nb_exchange(g, 0, v));
    printf("# 13: %.1f %% of a CPU under %lu events a second\n", cpu * 100.0 / wall,
           (unsigned long)(3 * n * 1000000000 / wall));
    netback_detach(v);
    nb_guest_free(g);
}

/* --- 14: state flips and a store flood -------------------------------------------------------- */

static void
flip_states(struct nb_guest *g, unsigned ms)
{
    static const int states[] = {4, 5, 1, 6, 4, 3, 2, 1, 5, 4, 7, 0};
    uint64_t start = rig_now_ns();

    for (unsigned i = 0; rig_now_ns() - start < ms * 1000000ull; i++) {
        nb_set_state(g, states[i % 12]);
        while (rig_now_ns() - start < i * 1000000ull) {
            rig_yield();
        }
    }
}

static void
flood_store(struct nb_guest *g, unsigned ms)
{
    static const char junk[] = "4294967296000000000000000000000000000000000000000000000000000000";
    uint64_t start = rig_now_ns();

    for (unsigned i = 0; rig_now_ns() - start < ms * 1000000ull; i++) {
        char path[TOOLSTACK_PATH_MAX + 48];
        const char *key = i % 4 == 0   ? "state"
                          : i % 4 == 1 ? "request-multicast-control"
                          : i % 4 == 2 ? "multi-queue-num-queues"
                                       : NULL;

        if (key) {
            snprintf(path, sizeof path, "%s/%s", g->frontend, key);
        } else {
            snprintf(path, sizeof path, "%s/junk-%u/%u", g->frontend, i % 2000, i);
        }
        xs_write(g->xs, XBT_NULL, path, junk, i % sizeof junk);
    }
}

static void
test_store_attacks(void)
{
    struct nb_guest *g = nb_guest_new(6, NULL);
    struct netback_vif *v = rig_attach(6);

    CASE("14: states flip at 1 kHz: the xenbus thread is hardly busy");
    CHECK(nb_connect(g, NULL) && nb_exchange(g, 0, v));
    rig_log_clear();
    uint64_t start = rig_now_ns(), cpu = rig_thread_cpu_ns("weft-xenbus");
    flip_states(g, 1500);
    uint64_t wall = rig_now_ns() - start;
    cpu = rig_thread_cpu_ns("weft-xenbus") - cpu;
    CHECK(cpu > 0 && cpu * 5 <= wall * (SLOW > 1 ? 3 : 1));
    CHECK(rig_log_lines() <= 20 * (1 + wall / 1500000000));
    printf("# 14: flips: %.1f %% of a CPU, %u log lines\n", cpu * 100.0 / wall, rig_log_lines());

    CASE("14: the store is flooded: the xenbus thread is hardly busy");
    start = rig_now_ns(), cpu = rig_thread_cpu_ns("weft-xenbus");
    flood_store(g, 1500);
    wall = rig_now_ns() - start;
    cpu = rig_thread_cpu_ns("weft-xenbus") - cpu;
    CHECK(cpu > 0 && cpu * 5 <= wall * (SLOW > 1 ? 3 : 1));
    CHECK(rig_log_lines() <= 40 * (1 + wall / 1500000000));
    printf("# 14: flood: %.1f %% of a CPU, %u log lines\n", cpu * 100.0 / wall, rig_log_lines());

    CASE("14: the guest that did it may behave again");
    nb_set_state(g, XenbusStateClosed);
    CHECK(nb_wait_backend(g, 1u << XenbusStateClosed, RIG_PATIENCE_MS));
    CHECK(RIG_UNTIL(local_grants_in_use(g->dom) == 0, RIG_PATIENCE_MS) && nb_release(g) == 0);
    CHECK(nb_reinit(g) && nb_connect(g, NULL) && nb_exchange(g, 0, v));
    netback_detach(v);
    nb_guest_free(g);
}

/* --- rings and grants that change all the time ------------------------------------------------ */

struct scribbler {
    struct nb_guest *g;
    atomic_bool stop;
};

/* Random bytes all over the rings, indices now and then. */
static void *
scribble_rings(void *s_)
{
    struct scribbler *s = s_;
    struct nb_queue *q = &s->g->q[0];
    uint8_t *tx = (void *)q->tx.sring, *rx = (void *)q->rx.sring;
    unsigned seed = 1;

    while (!s->stop) {
        for (unsigned i = 0; i < 200; i++) {
            unsigned at = 64 + rand_r(&seed) % (HV_PAGE_SIZE - 64);
            __atomic_store_n(&tx[at], (uint8_t)rand_r(&seed), __ATOMIC_RELAXED);
            __atomic_store_n(&rx[at], (uint8_t)rand_r(&seed), __ATOMIC_RELAXED);
        }
        /* As many requests as may be, whatever they say. */
        __atomic_store_n(&q->tx.sring->req_prod, q->tx.sring->rsp_prod + rand_r(&seed) % NB_SLOTS,
                         __ATOMIC_RELEASE);
        __atomic_store_n(&q->rx.sring->req_prod, q->rx.sring->rsp_prod + rand_r(&seed) % NB_SLOTS,
                         __ATOMIC_RELEASE);
        local_evtchn_notify(s->g->dom, q->tx_port);
    }
    return NULL;
}

static void *
toggle_grants(void *s_)
{
    struct scribbler *s = s_;
    struct nb_queue *q = &s->g->q[0];

    while (!s->stop) {
        for (unsigned i = 0; i < NB_SLOTS; i++) {
            /* The reference just given back is the one handed out next. */
            if (local_grant_end(s->g->dom, q->rx_ref[i]) == 0 &&
                local_grant_access(s->g->dom, 0, 10, i & 1) != q->rx_ref[i]) {
                abort();
            }
            if (local_grant_end(s->g->dom, q->tx_ref[i]) == 0 &&
                local_grant_access(s->g->dom, 0, i % 3 ? 11 : 1u << 30, true) != q->tx_ref[i]) {
                abort();
            }
        }
    }
    return NULL;
}

/* Packets for the guest that were delivered, or dropped for its grants or the
 * queue's bound. */
static uint64_t
to_guest_since(const struct netback_vif *v, const struct netback_stats *before)
{
    struct netback_stats s = rig_stats(v);

    return s.tx_packets - before->tx_packets + s.drops[DROP_GRX_BAD_GRANT] -
           before->drops[DROP_GRX_BAD_GRANT] + s.drops[DROP_GRX_QUEUE_FULL] -
           before->drops[DROP_GRX_QUEUE_FULL];
}

static void
test_chaos(void)
{
    struct nb_guest *g = nb_guest_new(7, NULL);
    struct netback_vif *v = rig_attach(7);
    struct scribbler s = {.g = g};
    struct rig_resources base = resources();
    unsigned off = 0, rounds = 12;
    bool closed = true;
    pthread_t t;

    CASE("rings overwritten with noise while in use");
    for (unsigned i = 0; i < rounds; i++) {
        bool ready = nb_connect(g, NULL);

        CHECK(ready);
        s.stop = false;
        pthread_create(&t, NULL, scribble_rings, &s);
        for (uint64_t until = rig_now_ms() + 50; rig_now_ms() < until;) {
            push_many(v, 60, 20);
            rig_discard(v);
            rig_yield();
        }
        s.stop = true;
        pthread_join(t, NULL);
        off += !rig_status(v).connected;
        closed &= replug(g, NULL);
    }
    printf("# noise: switched off %u of %u times\n", off, rounds);
    CHECK(closed);
    CHECK(rig_settles(&base));

    CASE("grants revoked and given anew while in use: no stall, all accounted");
    CHECK(nb_connect(g, NULL));
    struct netback_stats before = rig_stats(v);
    uint64_t pushed = 0, taken = 0;
    s.stop = false;
    pthread_create(&t, NULL, toggle_grants, &s);
    for (uint64_t until = rig_now_ms() + 1000; rig_now_ms() < until; pushed += 20) {
        push_many(v, 60, 20);
        nb_rx_discard(&g->q[0]);
        for (unsigned i = 0; i < 20; i++) {
            taken += nb_tx_frame(&g->q[0], frame, 60, 0, NULL, HV_PAGE_SIZE);
        }
        nb_tx_push(&g->q[0]);
        nb_tx_reap(&g->q[0]);
        rig_discard(v);
        rig_yield();
    }
    s.stop = true;
    pthread_join(t, NULL);
    CHECK(nb_tx_drain(&g->q[0], RIG_PATIENCE_MS));
    CHECK(RIG_UNTIL((nb_rx_discard(&g->q[0]), to_guest_since(v, &before)) == pushed,
                    RIG_PATIENCE_MS));
    struct netback_stats after = rig_stats(v);
    CHECK(after.rx_packets - before.rx_packets + after.drops[DROP_GTX_BAD_GRANT] -
              before.drops[DROP_GTX_BAD_GRANT] ==
          taken);
    CHECK(after.drops[DROP_GRX_BAD_GRANT] > before.drops[DROP_GRX_BAD_GRANT]);
    CHECK(rig_status(v).carrier);
    rig_discard(v);
    CHECK(replug(g, NULL));
    netback_detach(v);
    nb_guest_free(g);
}

int
main(void)
{
    rig_begin();
    rig_netback();
    struct rig_resources base = rig_resources();
    struct nb_neighbour *n = nb_neighbour_start(NEIGHBOUR);
    test_index_jump();
    test_malformed();
    test_in_flight();
    frozen("12: receive frozen with no free slot: bounded, stall seen, recovers", 0);
    frozen("12: receive frozen with one free slot: bounded, stall seen, recovers", 1);
    test_stalled_and_broken();
    test_event_storm();
    test_store_attacks();
    test_chaos();

    CASE("the neighbour lost at most 0.1 % of its packets meanwhile");
    CHECK(RIG_UNTIL(nb_neighbour_received(n) > 5000, RIG_PATIENCE_MS));
    CHECK(nb_neighbour_stop(n, 5000) <= NB_NEIGHBOUR_LOSS_MAX);

    CASE("after all this nothing is left in use");
    CHECK(rig_settles(&base));
    int failed = check_done();
    rig_end();
    return failed;
}
