/* A vif that goes to another host: hold, keep, take, feed.
 *
 *   guest ==rings, store== netback ==bursts== this test, as both switches */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "check.h"
#include "nb_guest.h"
#include "nb_rig.h"

#define FRAME_LEN 300u

static struct nb_packet got;

static struct rte_mbuf *
numbered(uint32_t n)
{
    uint8_t frame[FRAME_LEN] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5};

    memcpy(frame + 14, &n, sizeof n);
    return rig_mbuf(frame, sizeof frame);
}

static uint32_t
number_of(const uint8_t *frame)
{
    uint32_t n;

    memcpy(&n, frame + 14, sizeof n);
    return n;
}

static void
send_numbered(struct netback_vif *v, uint32_t from, uint32_t to)
{
    for (; from < to; from++) {
        struct rte_mbuf *m = numbered(from);
        netback_tx_burst(v, &m, 1);
    }
}

static void
feed_numbered(struct netback_vif *v, uint32_t from, uint32_t to)
{
    for (; from < to; from++) {
        struct rte_mbuf *m = numbered(from);
        netback_feed(v, &m, 1);
    }
}

/* True if the guest gets exactly these next. */
static bool
guest_gets(struct nb_guest *g, uint32_t from, uint32_t to)
{
    for (; from < to; from++) {
        if (!nb_rx_wait(&g->q[0], &got, RIG_PATIENCE_MS) || got.malformed || got.len != FRAME_LEN ||
            number_of(got.data) != from) {
            return false;
        }
    }
    return true;
}

static bool
taken_are(struct netback_vif *v, uint32_t from, uint32_t to)
{
    struct rte_mbuf *m;
    bool good = true;

    for (; from < to && good; from++) {
        good = netback_kept_take(v, &m, 1) == 1;
        if (good) {
            good = number_of(rte_pktmbuf_mtod(m, uint8_t *)) == from;
            rig_free(&m, 1);
        }
    }
    return good;
}

static bool
readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

static struct netback_move_status
move_status(struct netback_vif *v)
{
    struct netback_move_status s;

    netback_move_status(v, &s);
    return s;
}

static void
test_hold(void)
{
    struct nb_guest *g = nb_guest_new(20, NULL);
    struct netback_vif *v = rig_attach(20);
    uint8_t frame[FRAME_LEN] = {2};
    struct rte_mbuf *m;

    CASE("hold: what the guest has sent is taken, nothing after it");
    CHECK(nb_connect(g, NULL));
    netback_watch(v, true);
    send_numbered(v, 0, 3);
    CHECK(guest_gets(g, 0, 3));
    uint64_t before = rig_now_ns();
    /* In the ring, not announced: the queue's thread sleeps. */
    CHECK(nb_tx_frame(&g->q[0], frame, sizeof frame, 0, NULL, 4096));
    RING_PUSH_REQUESTS(&g->q[0].tx);
    CHECK(netback_hold(v) == 0);
    CHECK(rig_collect(v, &m, NULL, 1, RIG_PATIENCE_MS) == 1);
    rig_free(&m, 1);
    CHECK(nb_tx_reap(&g->q[0]) == 1);
    RING_IDX answered = g->q[0].rx.sring->rsp_prod, sent = g->q[0].tx.sring->rsp_prod;
    CHECK(nb_tx_frame(&g->q[0], frame, sizeof frame, 0, NULL, 4096));
    nb_tx_push(&g->q[0]);

    CASE("hold: frames are kept, no ring is touched, times are known");
    send_numbered(v, 3, 40);
    struct netback_move_status s = move_status(v);
    CHECK(s.state == 2 && s.kept == 37 && s.bytes && !s.dropped);
    CHECK(s.last_ns && s.last_ns < before && s.held_ns >= before);
    CHECK(g->q[0].rx.sring->rsp_prod == answered && g->q[0].tx.sring->rsp_prod == sent);
    CHECK(rig_status(v).connected && rig_status(v).carrier);
    CHECK(netback_hold(v) == 0);
    CHECK(netback_keep(v) == EISCONN);

    CASE("hold: a release delivers in order, then what is new, and takes again");
    CHECK(netback_release(v) == 0);
    send_numbered(v, 40, 60);
    CHECK(guest_gets(g, 3, 60));
    CHECK(rig_collect(v, &m, NULL, 1, RIG_PATIENCE_MS) == 1);
    rig_free(&m, 1);
    CHECK(nb_tx_drain(&g->q[0], RIG_PATIENCE_MS));
    CHECK(move_status(v).state == 0 && netback_release(v) == 0);

    CASE("hold: bounded by memory, what is too much is counted");
    CHECK(netback_hold(v) == 0);
    send_numbered(v, 0, 4000);
    s = move_status(v);
    CHECK(s.dropped && s.kept + s.dropped == 4000 && s.bytes <= RIG_QUEUE_BYTES);
    CHECK(rig_drops(v, DROP_GRX_QUEUE_FULL) == s.dropped);
    CHECK(taken_are(v, 0, 10) && move_status(v).taken == 10);

    CASE("hold: frames outlive the guest, and go on coming");
    nb_guest_free(g);
    CHECK(RIG_UNTIL(!rig_status(v).present, RIG_PATIENCE_MS));
    CHECK(readable(netback_kept_fd(v)));
    CHECK(taken_are(v, 10, s.kept) && !readable(netback_kept_fd(v)));
    send_numbered(v, 7, 9);
    CHECK(readable(netback_kept_fd(v)) && taken_are(v, 7, 9));
    send_numbered(v, 0, 100);
    netback_detach(v);
}

static void
test_feed(void)
{
    struct nb_guest *g = nb_guest_new(21, NULL);
    struct netback_vif *v = rig_attach(21);

    CASE("feed: the other host's frames first, in order, once the guest connects");
    CHECK(netback_keep(v) == 0);
    send_numbered(v, 10, 20); /* came here directly */
    feed_numbered(v, 0, 10);
    CHECK(move_status(v).kept == 10 && move_status(v).fed == 10 && !move_status(v).first_ns);
    CHECK(nb_connect(g, NULL));
    CHECK(guest_gets(g, 0, 20));
    CHECK(move_status(v).state == 0 && move_status(v).first_ns);

    CASE("feed: later ones are delivered at once");
    feed_numbered(v, 20, 25);
    send_numbered(v, 25, 30);
    CHECK(guest_gets(g, 20, 30));

    CASE("feed: a wait that is given up drops");
    CHECK(nb_close(g));
    CHECK(netback_keep(v) == 0);
    feed_numbered(v, 0, 10);
    CHECK(netback_release(v) == 0);
    CHECK(rig_drops(v, DROP_GRX_DETACHED) == 10 && move_status(v).state == 0);
    netback_detach(v);
    nb_guest_free(g);
}

/* --- while a neighbour sends ------------------------------------------------------- */

enum { WINDOW = 64 }; /* frames: what is dropped for want of room would look like disorder */
static _Atomic bool stop;
static _Atomic uint32_t received;

static void *
sender(void *v)
{
    uint32_t n = 0;

    while (!stop) {
        if (n < received + WINDOW) {
            send_numbered(v, n, n + 8);
            n += 8;
        }
        rig_yield();
    }
    return (void *)(uintptr_t)n;
}

static void
test_churn(void)
{
    struct nb_guest *g = nb_guest_new(22, NULL);
    struct netback_vif *v = rig_attach(22);
    uint32_t next = 0;
    pthread_t thread;
    bool good = true;
    void *sent;

    CASE("hold and release while frames come: none lost, none out of order");
    CHECK(nb_connect(g, NULL));
    CHECK(!pthread_create(&thread, NULL, sender, v));
    for (int i = 0; i < 60 && good; i++) {
        good = guest_gets(g, next, next + 20);
        received = next += 20;
        good &= netback_hold(v) == 0;
        rig_yield();
        good &= netback_release(v) == 0;
    }
    stop = true;
    pthread_join(thread, &sent);
    CHECK(good);
    CHECK(guest_gets(g, next, (uintptr_t)sent) && !rig_drops(v, DROP_GRX_QUEUE_FULL));
    netback_detach(v);
    nb_guest_free(g);
}

int
main(void)
{
    rig_begin();
    rig_netback();
    struct rig_resources base = rig_resources();
    test_hold();
    test_feed();
    test_churn();
    CASE("nothing is left behind");
    CHECK(rig_settles(&base));
    int failed = check_done();
    rig_end();
    return failed;
}
