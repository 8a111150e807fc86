/* Deaths and successors: of netback, killed under traffic, and of a guest.
 *
 *   this process: guests ==rings, store== child "--serve": netback and an echo
 *   child "--guest": a guest ==rings, store== this process: netback and an echo
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <xenstore.h>

#include "check.h"
#include "journal.h"
#include "nb_guest.h"
#include "nb_neighbour.h"
#include "nb_rig.h"
#include "ring_guest.h" /* frame_build() */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define N_KILLS 3u
#else
#define N_KILLS 6u
#endif

#define SUCCESS XEN_NETIF_CTRL_STATUS_SUCCESS

static uint8_t frame[65536];
static struct nb_packet got;

/* --- children --------------------------------------------------------------------- */

static unsigned
echo(struct netback_vif *v)
{
    struct rte_mbuf *pkts[NETBACK_MAX_BURST];
    unsigned sum = 0;

    for (unsigned q = 0; q < netback_n_queues(v); q++) {
        unsigned n = netback_rx_burst(v, q, pkts, NETBACK_MAX_BURST);

        if (n) {
            netback_tx_burst(v, pkts, n);
        }
        sum += n;
    }
    return sum;
}

/* Serves the vifs of two domains and echoes until it is killed. */
static int
serve(const char *where, uint16_t domid)
{
    struct netback_vif *v[2];

    rig_join(where);
    rig_netback();
    if (netback_attach(rig_nb, domid, 0, &v[0]) || netback_attach(rig_nb, domid + 1, 0, &v[1])) {
        return 1;
    }
    (void)!write(STDOUT_FILENO, "r", 1);
    for (;;) {
        if (!(echo(v[0]) + echo(v[1]))) {
            rig_yield();
        }
    }
}

/* Is a guest that sends as much as it can until it is killed. */
static int
be_guest(const char *where, uint16_t domid)
{
    rig_join(where);
    struct nb_guest *g = nb_guest_new(domid, NULL);
    struct nb_options o = {.n_queues = 2, .split = true, .ctrl = true};

    if (!nb_connect(g, &o) || nb_static_all(g, 0, true) == 0) {
        return 1;
    }
    (void)!write(STDOUT_FILENO, "r", 1);
    for (;;) {
        for (unsigned i = 0; i < 2; i++) {
            while (nb_tx_frame(&g->q[i], frame, 1000, 0, NULL, 300)) {
            }
            nb_tx_push(&g->q[i]);
            nb_rx_discard(&g->q[i]);
        }
        rig_yield();
    }
}

/* Starts this program anew in another role, and waits until it is at work. */
static pid_t
start_child(const char *role, uint16_t domid)
{
    char number[8], byte;
    pid_t parent = getpid();
    int ready[2];

    snprintf(number, sizeof number, "%u", domid);
    if (pipe(ready)) {
        exit(2);
    }
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
        dup2(ready[1], STDOUT_FILENO);
        close(ready[0]);
        close(ready[1]);
        execl("/proc/self/exe", "test_netback_restart", role, rig_dir(), number, NULL);
        _exit(127);
    }
    close(ready[1]);
    if (pid < 0 || read(ready[0], &byte, 1) != 1) {
        fprintf(stderr, "a child does not start\n");
        exit(2);
    }
    close(ready[0]);
    return pid;
}

static void
kill_child(pid_t pid)
{
    int status;

    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
}

/* --- a guest's view ----------------------------------------------------------------- */

/* Takes all there is; returns how many frames had 'len' bytes. */
static unsigned
take_frames(struct nb_queue *q, uint32_t len)
{
    unsigned n = 0, slots = 0;

    while (nb_rx_take(q, &got)) {
        slots += got.n_slots;
        n += !got.malformed && !got.error && got.len == len;
    }
    nb_rx_post(q, slots);
    return n;
}

/* Sends 'n' frames of a flow each and takes what comes back, for at most 'ms'.
 * Counts the frames back by queue; those of earlier calls do not count. */
static unsigned
round_trips(struct nb_guest *g, unsigned n, unsigned ms, unsigned by_queue[2])
{
    static unsigned call;
    uint64_t until = rig_now_ms() + ms;
    unsigned sent = 0, back = 0, payload = 800 + call++ % 100;
    uint32_t len = 0;

    while (back < n && rig_now_ms() < until) {
        struct nb_queue *q = &g->q[sent % g->n_queues];
        bool full = sent == n || sent - back >= 100;

        if (!full) {
            len = frame_build(frame,
                              &(struct frame_spec){.payload = payload, .src_port = 1000 + sent});
            full = !nb_tx_frame(q, frame, len, 0, NULL, 400);
            sent += !full;
            nb_tx_push(q);
        }
        for (unsigned i = 0; i < g->n_queues; i++) {
            unsigned k = take_frames(&g->q[i], len);
            by_queue[i] += k;
            back += k;
            nb_tx_reap(&g->q[i]);
        }
        if (full) {
            rig_yield();
        }
    }
    return back;
}

/* Whether a frame to 'mac' comes back. */
static bool
passes(struct nb_guest *g, const uint8_t mac[6], int ms)
{
    memset(frame, 0, 100);
    memcpy(frame, mac, 6);
    return nb_tx_one(&g->q[0], frame, 100, 0, NULL) == NETIF_RSP_OKAY &&
           nb_rx_wait(&g->q[0], &got, ms) && !memcmp(got.data, mac, 6);
}

static const uint8_t listed[6] = {0x01, 0, 0x5e, 1, 2, 3};
static const uint8_t unlisted[6] = {0x01, 0, 0x5e, 1, 2, 4};
static const uint8_t unicast[6] = {0x02, 0, 0, 1, 2, 4};
/* IP frames all go to queue 1, those without a hash to the first entry's: 0. */
static const uint32_t mapping[4] = {0, 1, 1, 1};

/* Everything the guest asked for through its rings is in force. */
static void
check_control_state(struct nb_guest *g)
{
    unsigned by_queue[2] = {0};

    CHECK(RIG_UNTIL(local_grants_in_use(g->dom) == 5 + 4 * NB_SLOTS, RIG_PATIENCE_MS));
    CHECK(local_grant_end(g->dom, g->q[0].tx_ref[3]) == EBUSY);
    CHECK(round_trips(g, 600, 3 * RIG_PATIENCE_MS, by_queue) == 600);
    /* The hash spreads over the table: three quarters to queue 1. */
    CHECK(by_queue[1] > 350 && by_queue[1] < 550);
    CHECK(passes(g, unicast, RIG_PATIENCE_MS));
    CHECK(passes(g, listed, RIG_PATIENCE_MS));
    /* In order: had it passed, it would come before the next. */
    memcpy(frame, unlisted, 6);
    CHECK(nb_tx_one(&g->q[0], frame, 100, 0, NULL) == NETIF_RSP_OKAY);
    CHECK(passes(g, unicast, RIG_PATIENCE_MS));
}

/* True if what 'xs' watches was touched. */
static bool
touched(struct xs_handle *xs)
{
    bool any = false;

    for (char **w; (w = xs_check_watch(xs));) {
        any = true;
        free(w);
    }
    return any;
}

static struct xs_handle *
watch_backend(struct nb_guest *g)
{
    char path[TOOLSTACK_PATH_MAX + 16];
    struct xs_handle *xs;

    if (local_store_open(g->dom, &xs)) {
        exit(2);
    }
    snprintf(path, sizeof path, "%s/state", g->backend);
    xs_watch(xs, path, "state");
    snprintf(path, sizeof path, "%s/carrier", g->backend);
    xs_watch(xs, path, "carrier");
    /* Each fires once to begin with. */
    for (int i = 0; i < 2; i++) {
        free(xs_read_watch(xs, &(unsigned){0}));
    }
    return xs;
}

/* Kills and succeeds the server 'pid' of 'g' and 'plain' again and again. */
static void
kill_often(pid_t *pid, struct nb_guest *g, struct nb_guest *plain)
{
    struct xs_handle *xs = watch_backend(g);
    unsigned by_queue[2] = {0};
    uint64_t worst_ms = 0;

    CASE("killed under traffic and succeeded: the guest sees nothing, all is in force");
    for (unsigned i = 0; i < N_KILLS; i++) {
        /* Some come back, then none. */
        round_trips(g, 100 + 50 * i, 20, by_queue);
        for (unsigned k = 0; k < 60; k++) {
            nb_tx_frame(&g->q[k % 2], frame, 1000, 0, NULL, 300);
        }
        nb_tx_push(&g->q[0]);
        nb_tx_push(&g->q[1]);
        uint64_t start = rig_now_ms();
        kill_child(*pid);
        *pid = start_child("--serve", 60);
        CHECK(nb_tx_drain(&g->q[0], RIG_PATIENCE_MS) && nb_tx_drain(&g->q[1], RIG_PATIENCE_MS));
        CHECK(g->q[0].n_error + g->q[1].n_error == 0);
        uint64_t outage = rig_now_ms() - start;
        worst_ms = outage > worst_ms ? outage : worst_ms;
        nb_rx_discard(&g->q[0]);
        nb_rx_discard(&g->q[1]);
        check_control_state(g);
        CHECK(nb_rx_posted(&g->q[0]) == NB_SLOTS && nb_rx_posted(&g->q[1]) == NB_SLOTS);
        CHECK(round_trips(plain, 300, RIG_PATIENCE_MS, by_queue) == 300);
        CHECK(!touched(xs));
    }
    printf("# killed %u times, answered again within %lu ms\n", N_KILLS, (unsigned long)worst_ms);
    CHECK(!touched(xs));
    xs_close(xs);
}

static void
test_killed(void)
{
    struct nb_options o = {.n_queues = 2, .split = true, .ctrl = true, .mcast_control = true};
    struct nb_guest *g = nb_guest_new(60, NULL), *plain = nb_guest_new(61, NULL);

    CASE("served by another process: hash, static grants, multicast in force");
    pid_t pid = start_child("--serve", 60);
    CHECK(nb_connect(g, &o) && nb_connect(plain, NULL));
    CHECK(nb_set_hash(g, mapping, 4));
    CHECK(nb_static_all(g, 0, true) && nb_static_all(g, 1, true));
    CHECK(nb_tx_mcast(&g->q[0], listed, true) == NETIF_RSP_OKAY);
    check_control_state(g);

    kill_often(&pid, g, plain);

    CASE("requests to a dead backend are carried out by its successor");
    kill_child(pid);
    netif_extra_info_t del = {.type = XEN_NETIF_EXTRA_TYPE_MCAST_DEL};
    memcpy(del.u.mcast.addr, listed, 6);
    nb_tx_slot(&g->q[0], 0, 0, 0, NETTXF_extra_info);
    nb_tx_extra(&g->q[0], &del);
    nb_tx_push(&g->q[0]);
    pid = start_child("--serve", 60);
    CHECK(nb_tx_drain(&g->q[0], RIG_PATIENCE_MS));
    memcpy(frame, listed, 6);
    CHECK(nb_tx_one(&g->q[0], frame, 100, 0, NULL) == NETIF_RSP_OKAY);
    CHECK(passes(g, unicast, RIG_PATIENCE_MS));

    CASE("what a killed one had mapped is deleted by its successor");
    CHECK(nb_static_all(g, 0, false) && nb_static_all(g, 1, false));
    CHECK(local_grants_in_use(g->dom) == 5);
    CHECK(nb_close(g));

    CASE("a guest that closed meanwhile is found closed");
    CHECK(nb_reinit(g) && nb_connect(g, &o));
    CHECK(nb_set_hash(g, mapping, 4) && nb_static_all(g, 0, true));
    kill_child(pid);
    nb_set_state(g, XenbusStateClosing);
    pid = start_child("--serve", 60);
    CHECK(nb_close(g) && nb_reinit(g));
    CHECK(nb_connect(g, &o));
    CHECK(local_grants_in_use(g->dom) == 5); /* nothing of the last connection */
    kill_child(pid);
    CHECK(nb_release(g) == 0 && nb_release(plain) == 0);
    toolstack_vif_destroy(rig_store(), 60, 0);
    toolstack_vif_destroy(rig_store(), 61, 0);
    nb_guest_free(g);
    nb_guest_free(plain);
}

static void
test_orderly(void)
{
    struct nb_guest *g = nb_guest_new(62, NULL);
    struct netback_vif *v;
    unsigned by_queue[2] = {0};

    CASE("stopped and started: the guest keeps its connection");
    rig_netback();
    CHECK(!netback_attach(rig_nb, 62, 0, &v));
    CHECK(nb_connect(g, NULL));
    rig_netback_stop(false);
    CHECK(rig_key_is(g->backend, "state", "4") && local_grants_in_use(g->dom) == 0);
    rig_netback();
    CHECK(!netback_attach(rig_nb, 62, 0, &v));
    CHECK(nb_tx_one(&g->q[0], frame, 100, 0, NULL) == NETIF_RSP_OKAY);
    CHECK(RIG_UNTIL(echo(v), RIG_PATIENCE_MS) && nb_rx_wait(&g->q[0], &got, RIG_PATIENCE_MS));
    CHECK(RIG_UNTIL(rig_logged("adopted"), RIG_PATIENCE_MS));

    CASE("stopped for good: the guest is closed, and may come back later");
    rig_netback_stop(true);
    CHECK(rig_key_is(g->backend, "state", "6"));
    CHECK(nb_release(g) == 0);
    rig_netback();
    CHECK(!netback_attach(rig_nb, 62, 0, &v));
    nb_set_state(g, XenbusStateClosed);
    CHECK(nb_reinit(g) && nb_connect(g, NULL));
    nb_tx_frame(&g->q[0], frame, 100, 0, NULL, 4096);
    nb_tx_push(&g->q[0]);
    CHECK(RIG_UNTIL(echo(v), RIG_PATIENCE_MS));
    CHECK(RIG_UNTIL((by_queue[0] += nb_rx_discard(&g->q[0])) == 1, RIG_PATIENCE_MS));
    netback_detach(v);
    nb_guest_free(g);
    rig_netback_stop(false);
}

/* Leaves in rings and journal what a process leaves that is killed while it
 * writes answers: the log complete, the ring's slots half written. */
static void
die_amid_answers(struct nb_guest *g)
{
    struct nb_queue *q = &g->q[0];
    RING_IDX tx = q->tx.sring->rsp_prod, rx = q->rx.sring->rsp_prod, c = g->ctrl.sring->rsp_prod;
    char dir[96];
    struct journal *j;

    snprintf(dir, sizeof dir, "%s/journals", rig_dir());
    if (journal_open(dir, g->domid, 0, &j)) {
        exit(2);
    }
    for (unsigned i = 0; i < 3; i++) {
        netif_tx_response_t t = {.id = (tx + i) % NB_SLOTS, .status = NETIF_RSP_OKAY};
        netif_rx_response_t r = {.id = (rx + i) % NB_SLOTS, .status = 60 + i};
        memcpy(&j->tx_log[0].rsp[(tx + i) % NB_SLOTS], &t, sizeof t);
        memcpy(&j->rx_log[0].rsp[(rx + i) % NB_SLOTS], &r, sizeof r);
    }
    j->tx_log[0].to = tx + 3;
    j->rx_log[0].to = rx + 3;
    memset(RING_GET_REQUEST(&q->tx, tx), 0, sizeof(netif_tx_request_t));
    memset(RING_GET_REQUEST(&q->rx, rx), 0xff, sizeof(netif_rx_request_t));
    j->ctrl_log.rsp = (struct xen_netif_ctrl_response){
        .id = (uint16_t)c, .type = XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE, .data = 4321};
    j->ctrl_log.index = c;
    j->ctrl_log.under_way = true;
    memset(RING_GET_REQUEST(&g->ctrl, c), 0xff, sizeof(struct xen_netif_ctrl_request));
    journal_close(j);
}

static void
test_killed_amid_answers(void)
{
    struct nb_guest *g = nb_guest_new(66, NULL);
    struct netback_vif *v;
    struct rte_mbuf *m[2];

    CASE("answers that a killed one was writing are finished, none is given twice");
    rig_netback();
    CHECK(!netback_attach(rig_nb, 66, 0, &v));
    CHECK(nb_connect(g, &(struct nb_options){.ctrl = true}));
    for (unsigned i = 0; i < 300; i++) {
        CHECK(nb_tx_one(&g->q[0], frame, 100, 0, NULL) == NETIF_RSP_OKAY);
    }
    rig_discard(v);
    rig_netback_stop(false);
    for (unsigned i = 0; i < 5; i++) {
        CHECK(nb_tx_frame(&g->q[0], frame, 100 + i, 0, NULL, 4096));
    }
    nb_tx_push(&g->q[0]);
    g->ctrl.sring->req_prod = g->ctrl.req_prod_pvt + 1;
    die_amid_answers(g);
    rig_netback();
    CHECK(!netback_attach(rig_nb, 66, 0, &v));
    /* The first three have been sent, for all we know. */
    CHECK(nb_tx_drain(&g->q[0], RIG_PATIENCE_MS) && g->q[0].n_okay == 305);
    CHECK(rig_collect(v, m, NULL, 2, RIG_PATIENCE_MS) == 2);
    CHECK(m[0]->data_len == 103 && m[1]->data_len == 104);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(nb_rx_wait(&g->q[0], &got, RIG_PATIENCE_MS) && !got.malformed);
        CHECK(got.len == 60 + i);
    }
    netback_tx_burst(v, m, 2);
    CHECK(nb_rx_wait(&g->q[0], &got, RIG_PATIENCE_MS) && !got.malformed && got.len == 103);
    CHECK(nb_rx_wait(&g->q[0], &got, RIG_PATIENCE_MS) && !got.malformed && got.len == 104);

    CASE("and so on the control ring");
    CHECK(RIG_UNTIL(g->ctrl.sring->rsp_prod == g->ctrl.req_prod_pvt + 1, RIG_PATIENCE_MS));
    CHECK(RING_GET_RESPONSE(&g->ctrl, g->ctrl.rsp_cons)->data == 4321);
    g->ctrl.req_prod_pvt = ++g->ctrl.rsp_cons;
    uint32_t data = 0;
    CHECK(nb_ctrl(g, XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE, 0, 0, 0, &data) == SUCCESS);
    CHECK(data != 4321);
    netback_detach(v);
    nb_guest_free(g);
    rig_netback_stop(false);
}

static void
test_guest_dies(void)
{
    char backend[TOOLSTACK_PATH_MAX];
    struct netback_vif *v;

    rig_netback();
    struct rig_resources begin = rig_resources();
    struct nb_neighbour *n = nb_neighbour_start(63);
    toolstack_backend_path(64, 0, backend);
    for (unsigned round = 0; round < 3; round++) {
        struct rig_resources base = rig_resources();

        base.buffers += NB_NEIGHBOUR_BUFFERS;
        CASE(round == 0   ? "a guest is killed in mid-traffic: netback goes on"
             : round == 1 ? "its domain id used again: works, and dies again"
                          : "and a third time");
        CHECK(!netback_attach(rig_nb, 64, 0, &v));
        pid_t pid = start_child("--guest", 64);
        for (uint64_t until = rig_now_ms() + 100; rig_now_ms() < until;) {
            if (!echo(v)) {
                rig_yield();
            }
        }
        CHECK(rig_stats(v).rx_packets > 100 && rig_stats(v).tx_packets > 100);
        kill_child(pid);
        /* More for it comes, and what it had sent is still there. */
        for (unsigned i = 0; i < 200; i++) {
            struct rte_mbuf *m = rig_mbuf(frame, 100);
            netback_tx_burst(v, &m, 1);
        }
        rig_discard(v);
        uint64_t before = nb_neighbour_received(n);
        CHECK(RIG_UNTIL(nb_neighbour_received(n) > before + 200, RIG_PATIENCE_MS));
        CHECK(toolstack_vif_unplug(rig_store(), 64, 0, RIG_PATIENCE_MS) == 0);
        CHECK(RIG_UNTIL(!rig_status(v).connected && !rig_status(v).present, RIG_PATIENCE_MS));
        rig_discard(v);
        netback_detach(v);
        CHECK(rig_settles(&base));
    }
    CASE("the neighbour lost at most 0.1 % of its packets meanwhile");
    CHECK(nb_neighbour_stop(n, 500) <= NB_NEIGHBOUR_LOSS_MAX);
    CHECK(rig_settles(&begin));
    rig_netback_stop(false);
}

int
main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "--serve")) {
        return serve(argv[2], atoi(argv[3]));
    }
    if (argc == 4 && !strcmp(argv[1], "--guest")) {
        return be_guest(argv[2], atoi(argv[3]));
    }
    rig_begin();
    test_guest_dies();
    test_orderly();
    test_killed_amid_answers();
    test_killed();
    int failed = check_done();
    rig_end();
    return failed;
}
