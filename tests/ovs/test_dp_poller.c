/* The thread that waits, and a TAP that wakes it for nothing: netdev-linux drops frames that are
 * too long, or have a bad header, and returns a burst of none.
 *
 *   tap (stand-in) > poller > worker_run() > port 2 */
#include <config.h>

#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "check.h"
#include "dp_poller.h"
#include "dp_rig.h"
#include "flow_text.h"
#include "netdev-provider.h"
#include "openvswitch/poll-loop.h"
#include "timeval.h"

#define ASKED 100
#define DEADLINE_MS 10000

static int tap_fd; /* always readable */
static atomic_uint n_asked, n_sent, to_come, n_past;

/* --- the ports ---------------------------------------------------------------- */

static int
tap_recv(struct netdev_rxq *rxq OVS_UNUSED, struct dp_packet_batch *batch, int *qfill OVS_UNUSED)
{
    atomic_fetch_add(&n_asked, 1);
    batch->count = 0;
    batch->packets[0] = NULL; /* nobody's business */
    if (atomic_exchange(&to_come, 0)) {
        struct dp_packet *b = dp_packet_new_with_headroom(60, 128);

        memcpy(dp_packet_put_zeros(b, 60), "\2\0\0\0\0\1\2\0\0\0\0\2\x88\xcc", 14);
        dp_packet_batch_add(batch, b);
    }
    return 0;
}

static void
tap_wait(struct netdev_rxq *rxq OVS_UNUSED)
{
    poll_fd_wait(tap_fd, POLLIN);
}

static const struct netdev_class tap_class = {
    .type = "tap",
    .rxq_recv = tap_recv,
    .rxq_wait = tap_wait,
};

static void
sink(struct fast_port *port OVS_UNUSED, struct worker *worker OVS_UNUSED, struct rte_mbuf **pkts,
     unsigned n)
{
    atomic_fetch_add(&n_sent, n);
    dp_packets_free(pkts, n);
}

/* --- cases -------------------------------------------------------------------- */

/* True once 'n' has come to 'least'. */
static bool
comes(const atomic_uint *n, unsigned least)
{
    long long end = time_msec() + DEADLINE_MS;

    while (atomic_load(n) < least && time_msec() < end) {
        ovsrcu_quiesce();
        usleep(1000);
    }
    return atomic_load(n) >= least;
}

static void
past(atomic_uint *n)
{
    atomic_fetch_add(n, 1);
}

static void
test_nothing(struct dp_port *tap)
{
    struct poller *p = poller_create(rig_dp, POLLER_WAITS);

    CASE("poller: bursts that the device has dropped whole");
    poller_give_rxq(p, tap, 0);
    CHECK(comes(&n_asked, ASKED));

    CASE("poller: a packet after them");
    atomic_store(&to_come, 1);
    CHECK(comes(&n_sent, 1));

    CASE("poller: it passes through RCU among them");
    ovsrcu_postpone(past, &n_past);
    CHECK(comes(&n_past, 1));
    poller_take_away(p, tap);
    poller_destroy(p);
}

int
main(int argc OVS_UNUSED, char *argv[])
{
    struct netdev device = {.name = CONST_CAST(char *, "tap0"), .netdev_class = &tap_class};
    struct netdev_rxq queue = {.netdev = &device}, *queues[] = {&queue};
    ovs_u128 ufid = {.u64 = {1, 1}};
    struct dp_port *tap, *out;

    set_program_name(argv[0]);
    rig_start();
    tap_fd = eventfd(1, EFD_CLOEXEC);
    tap = rig_port(1, DP_PORT_WAITED);
    tap->netdev = &device;
    tap->rxqs = queues;
    out = rig_port(2, DP_PORT_WAITED);
    out->fast.send = sink;
    ovs_assert(!flow_text_put(rig_dp, DPIF_FP_CREATE, &ufid,
                              "recirc_id(0),in_port(1),eth_type(0x88cc)", "2", NULL));
    test_nothing(tap);
    rig_port_free(tap);
    rig_port_free(out);
    ovsrcu_exit();
    epoch_synchronize();
    rig_stop();
    close(tap_fd);
    return check_done();
}
