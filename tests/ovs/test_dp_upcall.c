/* Upcalls: bounds, order, fairness, changes and threads.  What arrives of a packet and its
 * flow: test_dp_upcall_copy.c. */
#include <config.h>

#include <stdatomic.h>

#include "openvswitch/poll-loop.h"
#include "ovs-thread.h"
#include "timeval.h"
#include "upcall_rig.h"

#define VIF_MISSES 128u /* bounds of dp_upcall.c for a vif */
#define VIF_BYTES (1u << 20)
#define FLOW_MISSES 32u

/* --- bounds ------------------------------------------------------------------------ */

static void
test_bounds(void)
{
    struct dp_port *port = rig_port(1, DP_PORT_VIF), *other = rig_port(2, DP_PORT_VIF);
    uint64_t before = lost();

    for (int round = 0; round < 2; round++) {
        CASE(round ? "upcall-bound-again" : "upcall-bound");
        for (unsigned i = 0; i < 1000; i++) {
            miss(1, i, i);
        }
        CHECK(lost() - before == 1000 - VIF_MISSES);
        CHECK(port_lost(port) == (round + 1) * (1000 - VIF_MISSES));

        CASE(round ? "upcall-bound-actions-apart-again" : "upcall-bound-actions-apart");
        for (unsigned i = 0; i < 1000; i++) {
            send_type(1, i, i, 20, DPIF_UC_ACTION);
        }
        CHECK(lost() - before == 2000 - 2 * VIF_MISSES);

        CASE(round ? "upcall-bound-ports-apart-again" : "upcall-bound-ports-apart");
        miss(2, 1, 1);
        CHECK(lost() - before == 2000 - 2 * VIF_MISSES);
        CHECK(port_lost(other) == 0);
        CHECK(drain(0) == 2 * VIF_MISSES + 1);
        before = lost();
        atomic_store_relaxed(&port->upcalls_lost, (round + 1) * (1000 - VIF_MISSES));
    }

    CASE("upcall-bound-bytes");
    for (unsigned i = 0; i < 100; i++) {
        send_type(1, i, i, 60000, DPIF_UC_MISS);
    }
    CHECK(lost() - before >= 100 - VIF_BYTES / 60000 - 1);
    CHECK(lost() - before <= 100 - VIF_BYTES / 62000);
    CHECK(drain(0) == 100 - (lost() - before));

    CASE("upcall-bound-one-flow");
    before = lost();
    for (unsigned i = 0; i < 1000; i++) {
        miss(1, 7, i);
    }
    CHECK(lost() - before == 1000 - FLOW_MISSES);
    for (unsigned i = 0; i < 64; i++) {
        miss(1, 100 + i, i);
    }
    /* Of the others, those of the same hash bucket are lost: 4 on average. */
    CHECK(lost() - before < 1000 - FLOW_MISSES + 20);
    CHECK(drain(0) > FLOW_MISSES + 44);

    CASE("upcall-bound-no-port");
    before = lost();
    for (unsigned i = 0; i < 2000; i++) {
        miss(UINT16_MAX, i, i);
    }
    CHECK(lost() - before > 0 && lost() - before < 1500);
    drain(0);
    rig_port_free(port);
    rig_port_free(other);
}

/* --- order and fairness --------------------------------------------------------------- */

#define N_FLOWS 12u

static void
test_order(void)
{
    int home[N_FLOWS];
    uint32_t next[N_FLOWS] = {0};
    unsigned n = 0, homes = 0;
    struct received r;
    struct flow flow;

    CASE("upcall-order");
    dp_upcall_handlers_set(RIG_DPIF, 3);
    memset(home, -1, sizeof home);
    for (unsigned i = 0; i < 20; i++) {
        for (unsigned id = 0; id < N_FLOWS; id++) {
            send_type(3, id, i, 20, i & 1 ? DPIF_UC_ACTION : DPIF_UC_MISS);
        }
    }
    for (int h = 0; h < 3; h++) {
        bool any = false;

        while (receive(h, &r)) {
            odp_flow_key_to_flow(r.up.key, r.up.key_len, &flow, NULL);
            uint32_t id = ntohl(flow.nw_src) & 0xff;

            CHECK(home[id] == -1 || home[id] == h);
            home[id] = h;
            CHECK(seq_of(&r.up.packet) == next[id]);
            CHECK(r.up.type == (next[id] & 1 ? DPIF_UC_ACTION : DPIF_UC_MISS));
            next[id]++;
            n++;
            any = true;
            done(&r);
        }
        homes += any;
    }
    CHECK(n == 20 * N_FLOWS);
    CHECK(homes > 1);
    dp_upcall_handlers_set(RIG_DPIF, 1);
}

static void
test_fairness(void)
{
    struct received r;
    unsigned turns = 0, of_hog[9] = {0};

    CASE("upcall-quiet-beside-hogs");
    for (unsigned hog = 1; hog <= 8; hog++) {
        for (unsigned i = 0; i < 100; i++) {
            miss(hog, i, i);
        }
    }
    for (unsigned i = 0; i < 20; i++) {
        ovs_assert(receive(0, &r));
        done(&r);
    }
    miss(99, 1, 1);
    for (bool served = false; !served && turns < 1000; turns++) {
        ovs_assert(receive(0, &r));
        served = in_port_of(&r) == 99;
        done(&r);
    }
    CHECK(turns <= 9);

    CASE("upcall-turns");
    drain(0);
    for (unsigned hog = 1; hog <= 8; hog++) {
        for (unsigned i = 0; i < 10 * hog; i++) {
            miss(hog, i, i);
        }
    }
    for (unsigned i = 0; i < 80; i++) {
        ovs_assert(receive(0, &r));
        of_hog[in_port_of(&r)]++;
        done(&r);
    }
    for (unsigned hog = 1; hog <= 8; hog++) {
        CHECK(of_hog[hog] == 10);
    }
    CHECK(drain(0) == 360 - 80);
}

/* --- changes ------------------------------------------------------------------------------- */

static void
test_changes(void)
{
    uint64_t before = lost();

    CASE("upcall-purge");
    for (unsigned i = 0; i < 50; i++) {
        miss(1, i, i);
    }
    dp_upcall_recv_purge(RIG_DPIF);
    CHECK(lost() - before == 50);
    CHECK(drain(0) == 0);

    CASE("upcall-handlers-change");
    for (unsigned i = 0; i < 50; i++) {
        miss(1, i, i);
    }
    dp_upcall_handlers_set(RIG_DPIF, 2);
    CHECK(lost() - before == 100);
    for (unsigned i = 0; i < 50; i++) {
        miss(1, i, i);
    }
    CHECK(lost() - before == 100);
    CHECK(drain(0) + drain(1) == 50);
    CHECK(drain(2) == 0);
    dp_upcall_handlers_set(RIG_DPIF, 1);

    CASE("upcall-off");
    dp_upcall_recv_set(RIG_DPIF, false);
    before = lost();
    miss(1, 1, 1);
    CHECK(lost() - before == 1);
    CHECK(drain(0) == 0);
    dp_upcall_recv_set(RIG_DPIF, true);
    miss(1, 1, 1);
    CHECK(drain(0) == 1);
}

/* --- threads --------------------------------------------------------------------------------- */

#define N_PRODUCERS 3u
#define N_HANDLERS 2u
#define N_EACH 20000u

static _Atomic unsigned n_received, n_out_of_order;
static _Atomic bool stop;
/* By producer and flow; each written by the flow's handler only. */
static uint32_t last_seq[N_PRODUCERS][N_FLOWS];

static void *
producer_main(void *number_)
{
    uint32_t number = (uintptr_t)number_;
    struct dp_worker *w = dp_worker_create(rig_dp, 0, false);
    struct dp_packet *packets[N_FLOWS];

    for (unsigned id = 0; id < N_FLOWS; id++) {
        packets[id] = udp_packet(10 + number, id, 0, 20);
    }
    for (uint32_t i = 0; i < N_EACH; i++) {
        struct dp_packet *b = packets[i % N_FLOWS];
        uint32_t seq = i + 1;

        memcpy((uint8_t *)dp_packet_data(b) + 42, &seq, sizeof seq);
        worker_begin(w->worker);
        upcall(w, b, DPIF_UC_MISS, NULL, NULL, NULL);
        worker_end(w->worker);
        if (i % 100 == 0) {
            /* Time for the handlers to catch up and fall asleep. */
            xnanosleep(random_range(2) ? 200000 : 2000000);
        }
    }
    for (unsigned id = 0; id < N_FLOWS; id++) {
        dp_packet_delete(packets[id]);
    }
    dp_worker_destroy(w);
    return NULL;
}

static void
take_one(struct received *r)
{
    uint32_t seq = seq_of(&r->up.packet);
    struct flow flow;

    ovs_assert(odp_flow_key_to_flow(r->up.key, r->up.key_len, &flow, NULL) == ODP_FIT_PERFECT);
    uint32_t *last = &last_seq[odp_to_u32(flow.in_port.odp_port) - 10][ntohl(flow.nw_src) & 0xff];

    if (seq <= *last) {
        atomic_fetch_add(&n_out_of_order, 1);
    }
    *last = seq;
    atomic_fetch_add(&n_received, 1);
    done(r);
}

static void *
handler_main(void *number_)
{
    uint32_t number = (uintptr_t)number_;
    struct received r;

    while (!atomic_load(&stop)) {
        bool any = false;

        for (int i = 0; i < 64 && receive(number, &r); i++) {
            take_one(&r);
            any = true;
        }
        if (any) {
            poll_immediate_wake();
        } else {
            dp_upcall_recv_wait(RIG_DPIF, number);
        }
        poll_block();
    }
    return NULL;
}

/* Nothing but a producer's wake-up ends a handler's sleep: a lost one leaves
 * packets in the queue. */
static void
test_threads(void)
{
    pthread_t producers[N_PRODUCERS], handlers[N_HANDLERS];
    uint64_t before = lost();
    long long deadline;

    CASE("upcall-threads");
    dp_upcall_handlers_set(RIG_DPIF, N_HANDLERS);
    for (uintptr_t i = 0; i < N_HANDLERS; i++) {
        handlers[i] = ovs_thread_create("handler", handler_main, (void *)i);
    }
    for (uintptr_t i = 0; i < N_PRODUCERS; i++) {
        producers[i] = ovs_thread_create("producer", producer_main, (void *)i);
    }
    ovsrcu_quiesce_start();
    for (unsigned i = 0; i < N_PRODUCERS; i++) {
        xpthread_join(producers[i], NULL);
    }
    deadline = time_msec() + 20000;
    while (atomic_load(&n_received) + lost() - before < N_PRODUCERS * N_EACH &&
           time_msec() < deadline) {
        xnanosleep(1000000);
    }
    CHECK(atomic_load(&n_received) + lost() - before == N_PRODUCERS * N_EACH);
    /* On a busy machine handlers run seldom. */
    CHECK(atomic_load(&n_received) > N_PRODUCERS * N_EACH / 100);
    CHECK(atomic_load(&n_out_of_order) == 0);

    /* They sleep now; one packet each wakes them to see 'stop'. */
    atomic_store(&stop, true);
    for (unsigned id = 0; id < 200; id++) {
        miss(9, 1000 + id, 0);
    }
    for (unsigned i = 0; i < N_HANDLERS; i++) {
        xpthread_join(handlers[i], NULL);
    }
    ovsrcu_quiesce_end();
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    upcall_begin(argv);
    test_bounds();
    test_order();
    test_fairness();
    test_changes();
    test_threads();
    return upcall_end();
}
