/* A whole netback and its guests on XenBus: how they meet and part.
 *
 *   toolstack (this test) ==store== netback ==store, rings== guest
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <xenstore.h>

#include "check.h"
#include "nb_guest.h"
#include "nb_rig.h"

static const uint8_t frame[100] = {2, 2, 2, 2, 2, 2};

/* A case's name, kept until the end. */
static const char *name_of(const char *, ...) __attribute__((format(printf, 1, 2)));

static const char *
name_of(const char *format, ...)
{
    static char names[64][96];
    static unsigned n;
    char *name = names[n++ % 64];
    va_list args;

    va_start(args, format);
    vsnprintf(name, sizeof names[0], format, args);
    va_end(args);
    return name;
}

static unsigned
count_queue_threads(uint16_t domid)
{
    unsigned n = 0;

    for (unsigned i = 0; i < NB_MAX_QUEUES; i++) {
        char name[32];
        snprintf(name, sizeof name, "vif%u.0-q%u", domid, i);
        n += rig_has_thread(name);
    }
    return n;
}

/* --- XenBus ------------------------------------------------------------------------ */

static void
test_features(void)
{
    static const char *const ones[] = {
        "feature-sg",
        "feature-gso-tcpv4",
        "feature-gso-tcpv6",
        "feature-ipv6-csum-offload",
        "feature-rx-copy",
        "feature-multicast-control",
        "feature-dynamic-multicast-control",
        "feature-split-event-channels",
        "feature-ctrl-ring",
    };
    struct nb_guest *g = nb_guest_new(1, NULL);

    CASE("features are offered with state 2, before anyone attaches");
    CHECK(nb_wait_backend(g, 1u << XenbusStateInitWait, RIG_PATIENCE_MS));
    for (size_t i = 0; i < sizeof ones / sizeof ones[0]; i++) {
        CHECK(rig_key_is(g->backend, ones[i], "1"));
    }
    CHECK(rig_key_is(g->backend, "feature-rx-flip", "0"));
    CHECK(rig_key_is(g->backend, "multi-queue-max-queues", "4"));

    CASE("a vif appears in the list with what the toolstack said of it");
    struct netback_vif_info info[4] = {0};
    CHECK(RIG_UNTIL(netback_list(rig_nb, info, 4) == 1, RIG_PATIENCE_MS));
    CHECK(info[0].domid == 1 && info[0].handle == 0 && !strcmp(info[0].bridge, "xenbr0"));
    CHECK(!strcmp(info[0].mac, "02:00:00:00:00:01"));
    nb_guest_free(g);
    CHECK(RIG_UNTIL(netback_list(rig_nb, info, 4) == 0, RIG_PATIENCE_MS));
}

static void
test_connect(void)
{
    struct nb_guest *g = nb_guest_new(2, NULL);
    struct netback_vif *v = rig_attach(2);
    struct rig_resources base = rig_resources();

    for (unsigned n = 1; n <= RIG_MAX_QUEUES; n++) {
        for (int split = 0; split < 2; split++) {
            struct nb_options o = {.n_queues = n, .split = split, .ctrl = n == 2};
            bool all = true;

            CASE(name_of("connects with %u queue(s), %s event channels, and closes", n,
                         split ? "split" : "shared"));
            CHECK(nb_connect(g, &o));
            struct netback_status s = rig_status(v);
            CHECK(s.connected && s.carrier && s.n_queues == n && s.mac[5] == 2);
            CHECK(count_queue_threads(2) == n);
            CHECK(rig_key_is(g->backend, "carrier", "1"));
            for (unsigned q = 0; q < n; q++) {
                all &= nb_exchange(g, q, v);
            }
            CHECK(all);
            CHECK(local_grants_in_use(g->dom) == 2 * n + (n == 2));
            CHECK(nb_close(g));
            CHECK(local_grants_in_use(g->dom) == 0);
            CHECK(!rig_status(v).connected && count_queue_threads(2) == 0);
            CHECK(rig_settles(&base));
            CHECK(nb_reinit(g));
        }
    }
    netback_detach(v);
    nb_guest_free(g);
}

static void
test_hotplug_script(void)
{
    struct nb_guest *g = nb_guest_new(3, &(struct toolstack_vif){.script = "vif-test"});
    struct netback_vif *v = rig_attach(3);

    CASE("with a script, state 2 is held until hotplug-status says connected");
    CHECK(nb_wait_backend(g, 1u << XenbusStateInitWait, RIG_PATIENCE_MS));
    nb_make_rings(g, &(struct nb_options){0});
    nb_publish(g, &(struct nb_options){0});
    CHECK(!nb_wait_backend(g, 1u << XenbusStateConnected, 50));
    CHECK(rig_key_is(g->backend, "state", "2"));
    rig_write(g->backend, "hotplug-status", "connected");
    CHECK(nb_wait_backend(g, 1u << XenbusStateConnected, RIG_PATIENCE_MS));
    CHECK(nb_exchange(g, 0, v));

    CASE("hot unplug: online=0 and state=5 lead to state 6, nothing held");
    CHECK(!toolstack_vif_offline(rig_store(), 3, 0));
    CHECK(nb_wait_backend(g, 1u << XenbusStateClosed, RIG_PATIENCE_MS));
    CHECK(local_grants_in_use(g->dom) == 0 && nb_release(g) == 0);
    CHECK(count_queue_threads(3) == 0);
    nb_guest_free(g);

    CASE("plugged again while attached: works");
    g = nb_guest_new(3, NULL);
    CHECK(nb_connect(g, NULL));
    CHECK(nb_exchange(g, 0, v));
    netback_detach(v);
    nb_guest_free(g);
}

static void
test_unplug_races(void)
{
    struct nb_guest *g = nb_guest_new(13, NULL);
    struct netback_vif *v = rig_attach(13);
    bool all = true;

    CASE("unplugged while it starts or connects, 60 times: always reaches state 6");
    for (unsigned i = 0; i < 60; i++) {
        if (i % 2) {
            all &= nb_wait_backend(g, 1u << XenbusStateInitWait, RIG_PATIENCE_MS);
            nb_make_rings(g, &(struct nb_options){0});
            nb_publish(g, &(struct nb_options){0});
        }
        all &= !toolstack_vif_offline(rig_store(), 13, 0);
        all &= nb_wait_backend(g, 1u << XenbusStateClosed, RIG_PATIENCE_MS);
        all &= local_grants_in_use(g->dom) == 0 && nb_release(g) == 0;
        all &= !toolstack_vif_destroy(rig_store(), 13, 0);
        nb_guest_plug(13, NULL);
    }
    CHECK(all);

    CHECK(nb_connect(g, NULL) && nb_exchange(g, 0, v));

    CASE("a driver that ends before it connected sees the backend end");
    CHECK(nb_close(g) && nb_reinit(g));
    nb_set_state(g, XenbusStateClosing);
    CHECK(nb_wait_backend(g, 1u << XenbusStateClosing, RIG_PATIENCE_MS));
    nb_set_state(g, XenbusStateClosed);
    CHECK(nb_wait_backend(g, 1u << XenbusStateClosed, RIG_PATIENCE_MS));
    CHECK(nb_reinit(g) && nb_connect(g, NULL) && nb_exchange(g, 0, v));

    CASE("in Closing the backend waits for the frontend's Closed");
    nb_set_state(g, XenbusStateClosing);
    CHECK(nb_wait_backend(g, 1u << XenbusStateClosing, RIG_PATIENCE_MS));
    CHECK(!nb_wait_backend(g, 1u << XenbusStateClosed, 50));
    nb_set_state(g, XenbusStateClosed);
    CHECK(nb_wait_backend(g, 1u << XenbusStateClosed, RIG_PATIENCE_MS));
    netback_detach(v);
    nb_guest_free(g);
}

static void
test_unplug_amid_connect(void)
{
    struct toolstack_vif vif = {.hotplug_connected = true, .rate = "a line is logged for this"};
    struct nb_guest *g = nb_guest_new(15, &vif);
    struct netback_vif *v = rig_attach(15);

    CASE("unplugged in the middle of connecting");
    rig_log_hold("vif15.0: key");
    CHECK(nb_wait_backend(g, 1u << XenbusStateInitWait, RIG_PATIENCE_MS));
    nb_make_rings(g, &(struct nb_options){0});
    nb_publish(g, &(struct nb_options){0});
    CHECK(rig_log_wait());
    CHECK(!toolstack_vif_offline(rig_store(), 15, 0));
    rig_log_go();
    CHECK(nb_wait_backend(g, 1u << XenbusStateClosed, RIG_PATIENCE_MS));
    CHECK(local_grants_in_use(g->dom) == 0 && nb_release(g) == 0);
    CHECK(!toolstack_vif_destroy(rig_store(), 15, 0));
    nb_guest_plug(15, NULL);
    CHECK(nb_connect(g, NULL) && nb_exchange(g, 0, v));
    netback_detach(v);
    nb_guest_free(g);
}

static void
test_refused(void)
{
    static const struct {
        const char *name, *log;
        struct nb_options o;
    } bad[] = {
        {"queue count 0", "0 queues", {.num_queues = "0"}},
        {"queue count max + 1", "5 queues", {.n_queues = 5}},
        {"queue count is no number", "queues", {.num_queues = "two"}},
        {"queue count 2 with one queue's keys", "tx-ring-ref", {.num_queues = "2"}},
        {"no tx-ring-ref", "tx-ring-ref", {.omit = "tx-ring-ref"}},
        {"no rx-ring-ref", "rx-ring-ref", {.omit = "rx-ring-ref"}},
        {"no event-channel", "event-channel", {.omit = "event-channel"}},
        {"split, no event-channel-rx",
         "event-channel-rx",
         {.split = true, .omit = "event-channel-rx"}},
        {"no event-channel-ctrl",
         "event-channel-ctrl",
         {.ctrl = true, .omit = "event-channel-ctrl"}},
        {"no request-rx-copy", "request-rx-copy", {.omit = "request-rx-copy"}},
        {"no queue-1 in two queues", "tx-ring-ref", {.n_queues = 2, .omit = "tx-ring-ref"}},
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct nb_guest *g = nb_guest_new(100 + i, NULL);
        struct netback_vif *v = rig_attach(100 + i);

        CASE(name_of("refused with state 5 and a line: %s", bad[i].name));
        rig_log_clear();
        CHECK(nb_wait_backend(g, 1u << XenbusStateInitWait, RIG_PATIENCE_MS));
        nb_make_rings(g, &bad[i].o);
        nb_publish(g, &bad[i].o);
        CHECK(nb_wait_backend(g, 1u << XenbusStateClosing, RIG_PATIENCE_MS));
        CHECK(rig_logged("not connected") && rig_logged(bad[i].log));
        CHECK(local_grants_in_use(g->dom) == 0);
        CHECK(nb_close(g));
        CHECK(nb_reinit(g) && nb_connect(g, NULL) && nb_exchange(g, 0, v));
        netback_detach(v);
        nb_guest_free(g);
    }
}

static void
test_bad_refs(void)
{
    struct nb_guest *g = nb_guest_new(4, NULL);
    struct netback_vif *v = rig_attach(4);
    struct rig_resources base = rig_resources();
    static const char *const keys[] = {"tx-ring-ref", "rx-ring-ref", "event-channel",
                                       "ctrl-ring-ref"};

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        struct nb_options o = {.ctrl = true, .omit = keys[i], .instead = "4000"};

        CASE(name_of("refused: %s that does not exist", keys[i]));
        CHECK(nb_wait_backend(g, 1u << XenbusStateInitWait, RIG_PATIENCE_MS));
        nb_make_rings(g, &o);
        rig_log_clear();
        nb_publish(g, &o);
        CHECK(nb_wait_backend(g, 1u << XenbusStateClosing, RIG_PATIENCE_MS));
        CHECK(rig_logged("not connected"));
        CHECK(nb_close(g));
        CHECK(rig_settles(&base));
        CHECK(nb_reinit(g));
    }
    netback_detach(v);
    nb_guest_free(g);
}

static void
test_reboots(void)
{
    enum { N_GUESTS = 10, N_REBOOTS = 10 };
    struct nb_guest *g[N_GUESTS];
    struct netback_vif *v[N_GUESTS];
    unsigned good = 0;

    CASE("a guest reboots 100 times (10 guests, 10 times each)");
    for (unsigned i = 0; i < N_GUESTS; i++) {
        g[i] = nb_guest_new(20 + i, NULL);
        v[i] = rig_attach(20 + i);
    }
    struct rig_resources base = rig_resources();
    for (unsigned r = 0; r < N_REBOOTS; r++) {
        for (unsigned i = 0; i < N_GUESTS; i++) {
            struct nb_options o = {.n_queues = 1 + (r + i) % 2, .split = r & 1, .ctrl = i & 1};
            good += nb_connect(g[i], &o) && nb_exchange(g[i], 0, v[i]);
        }
        for (unsigned i = 0; i < N_GUESTS; i++) {
            good += nb_close(g[i]) && nb_reinit(g[i]);
        }
    }
    CHECK(good == 2 * N_GUESTS * N_REBOOTS);
    CHECK(rig_settles(&base));
    CHECK(rig_status(v[0]).connects == N_REBOOTS);

    CASE("a guest that comes back without closing (kexec) connects again");
    CHECK(nb_connect(g[0], NULL) && nb_exchange(g[0], 0, v[0]));
    nb_set_state(g[0], XenbusStateInitialising);
    CHECK(nb_wait_backend(g[0], 1u << XenbusStateInitWait, RIG_PATIENCE_MS));
    CHECK(nb_release(g[0]) == 0);
    CHECK(nb_connect(g[0], NULL) && nb_exchange(g[0], 0, v[0]));
    for (unsigned i = 0; i < N_GUESTS; i++) {
        netback_detach(v[i]);
        nb_guest_free(g[i]);
    }
}

static void
test_removed(void)
{
    struct nb_guest *g = nb_guest_new(5, NULL);
    struct netback_vif *v = rig_attach(5);
    char journal[128];

    CASE("the toolstack removes the directories of a connected vif");
    CHECK(nb_connect(g, NULL) && nb_exchange(g, 0, v));
    CHECK(!toolstack_vif_destroy(rig_store(), 5, 0));
    CHECK(RIG_UNTIL(!rig_status(v).present && !rig_status(v).connected, RIG_PATIENCE_MS));
    CHECK(RIG_UNTIL(local_grants_in_use(g->dom) == 0, RIG_PATIENCE_MS) && nb_release(g) == 0);
    CHECK(!rig_key_is(g->backend, "state", "6"));

    CASE("and makes them again under a new connection");
    nb_guest_plug(5, NULL);
    CHECK(nb_connect(g, NULL) && nb_exchange(g, 0, v));

    CASE("removed and made again before it is noticed");
    struct nb_guest *other = nb_guest_new(14, NULL);
    struct netback_vif *w = rig_attach(14);
    rig_log_hold("vif14.0: connected");
    CHECK(nb_connect(other, NULL) && rig_log_wait());
    CHECK(!toolstack_vif_destroy(rig_store(), 5, 0));
    nb_guest_plug(5, NULL);
    rig_log_go();
    CHECK(nb_wait_backend(g, 1u << XenbusStateInitWait, RIG_PATIENCE_MS));
    CHECK(local_grants_in_use(g->dom) == 0 && nb_release(g) == 0);
    CHECK(nb_connect(g, NULL) && nb_exchange(g, 0, v));
    netback_detach(w);
    nb_guest_free(other);

    CASE("all directories of a domain vanish at once");
    CHECK(xs_rm(rig_store(), XBT_NULL, "/local/domain/0/backend/vif/5"));
    CHECK(RIG_UNTIL(!rig_status(v).connected, RIG_PATIENCE_MS));
    CHECK(RIG_UNTIL(local_grants_in_use(g->dom) == 0, RIG_PATIENCE_MS) && nb_release(g) == 0);
    snprintf(journal, sizeof journal, "%s/journals/vif-5.0", rig_dir());
    netback_detach(v);
    CHECK(RIG_UNTIL(access(journal, F_OK) != 0, RIG_PATIENCE_MS));
    toolstack_vif_destroy(rig_store(), 5, 0);
    nb_guest_free(g);
}

static void
test_attach(void)
{
    struct nb_guest *g = nb_guest_new(6, NULL);
    struct netback_vif *v = rig_attach(6), *second = NULL;
    struct nb_options o = {.n_queues = 2, .ctrl = true};
    struct rte_mbuf *m;

    CASE("a vif is attached once");
    CHECK(netback_attach(rig_nb, 6, 0, &second) == EBUSY);

    CASE("detached: the guest sees no state change, only its carrier");
    CHECK(nb_connect(g, &o) && nb_exchange(g, 1, v));
    CHECK(nb_static_all(g, 0, true) == 2 * NB_SLOTS);
    netback_detach(v);
    CHECK(rig_key_is(g->backend, "state", "4") && rig_key_is(g->backend, "carrier", "0"));
    CHECK(local_grants_in_use(g->dom) == 0);
    nb_tx_frame(&g->q[0], frame, 60, 0, NULL, 4096);
    nb_tx_push(&g->q[0]);

    CASE("attached again: what waited is sent, static grants are mapped again");
    v = rig_attach(6);
    CHECK(rig_collect(v, &m, NULL, 1, RIG_PATIENCE_MS) == 1);
    rig_free(&m, 1);
    CHECK(nb_tx_drain(&g->q[0], RIG_PATIENCE_MS));
    CHECK(rig_key_is(g->backend, "state", "4"));
    CHECK(RIG_UNTIL(rig_key_is(g->backend, "carrier", "1"), RIG_PATIENCE_MS));
    CHECK(local_grants_in_use(g->dom) == 5 + 2 * NB_SLOTS);
    CHECK(nb_exchange(g, 0, v) && nb_exchange(g, 1, v));

    CASE("a switch that waits for packets is woken by one");
    uint32_t seen = 0;
    netback_rx_wait(rig_nb, &seen, 0);
    nb_tx_frame(&g->q[1], frame, 60, 0, NULL, 4096);
    nb_tx_push(&g->q[1]);
    uint64_t start = rig_now_ms();
    CHECK(RIG_UNTIL((netback_rx_wait(rig_nb, &seen, 5000000000), netback_rx_ready(v, 1)),
                    RIG_PATIENCE_MS));
    CHECK(rig_now_ms() - start < 4000); /* the ticker sleeps on, also from those that follow */
    CHECK(rig_discard(v) == 1);
    start = rig_now_ms();
    netback_rx_wait(rig_nb, &seen, 20000000);
    netback_rx_wait(rig_nb, &seen, 20000000);
    CHECK(rig_now_ms() - start >= 20);

    CASE("the port's carrier is the guest's carrier node");
    uint64_t seq = netback_change_seq(v);
    netback_set_carrier(v, false);
    CHECK(RIG_UNTIL(rig_key_is(g->backend, "carrier", "0"), RIG_PATIENCE_MS));
    netback_set_carrier(v, true);
    CHECK(RIG_UNTIL(rig_key_is(g->backend, "carrier", "1"), RIG_PATIENCE_MS));
    CHECK(nb_close(g));
    CHECK(netback_change_seq(v) != seq);
    CHECK(netback_memory(v) > 1000 && netback_memory(v) < 1u << 20);
    netback_detach(v);
    nb_guest_free(g);
}

int
main(void)
{
    rig_begin();
    rig_netback();
    test_features();
    test_connect();
    test_hotplug_script();
    test_unplug_races();
    test_unplug_amid_connect();
    test_refused();
    test_bad_refs();
    test_removed();
    test_attach();
    test_reboots();
    int failed = check_done();
    rig_end();
    return failed;
}
