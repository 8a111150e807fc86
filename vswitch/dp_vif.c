/* dp_vif: guests' queue threads run their packets to completion.
 *
 * A queue of a vif gets its worker with its first packet, so that one that
 * never sends costs nothing.  The worker is online during a burst only: what
 * comes after, a guest's receive ring or another thread's time slice, must not
 * hold up whoever waits for an epoch. */
#include <config.h>

#include <rte_mbuf.h>

#include "dp.h"
#include "netback.h"
#include "netdev_netback.h"
#include "offload_ports.h"
#include "timeval.h"
#include "util.h"

/* Entries of a queue's exact-match cache, at most; it grows with use. */
#define CACHE_MAX (1u << 17)

/* A queue of a guest, on its thread. */
struct vif_queue {
    struct dp_port *port;
    struct dp_worker *worker; /* NULL until there is a packet */
    unsigned id;
};

/* --- from the guest --------------------------------------------------------- */

static void *
queue_start(void *port, unsigned q)
{
    struct vif_queue *queue = xzalloc(sizeof *queue);

    queue->port = port;
    queue->id = q;
    return queue;
}

static void
get_worker(struct vif_queue *queue)
{
    struct dp_worker *w = dp_worker_create(queue->port->dp, CACHE_MAX, true);

    worker_set_partial(w->worker);
    snprintf(w->name, sizeof w->name, "%s-q%u", netdev_get_name(queue->port->netdev), queue->id);
    queue->worker = w;
}

static void
queue_burst(void *queue_, struct rte_mbuf **pkts, unsigned n)
{
    struct vif_queue *queue = queue_;
    struct dp_port *port = queue->port;

    BUILD_ASSERT_DECL(NETBACK_TURN_MAX <= ENGINE_BURST);
    if (OVS_UNLIKELY(!queue->worker)) {
        get_worker(queue);
    }
    worker_begin(queue->worker->worker);
    worker_run(queue->worker->worker, odp_to_u32(port->port_no), pkts, n, time_msec());
    worker_end(queue->worker->worker);
    dp_worker_rcu_quiesce(queue->worker);
}

static void
queue_sleep(void *queue_)
{
    struct vif_queue *queue = queue_;

    if (queue->worker) {
        dp_worker_rcu_leave(queue->worker);
    }
}

static void
queue_idle(void *queue_)
{
    struct vif_queue *queue = queue_;

    if (queue->worker) {
        worker_trim(queue->worker->worker);
    }
}

static void
queue_stop(void *queue_)
{
    struct vif_queue *queue = queue_;

    if (queue->worker) {
        dp_worker_rcu_leave(queue->worker);
        dp_worker_destroy(queue->worker);
    }
    free(queue);
}

static const struct netback_receiver receiver = {
    .start = queue_start,
    .burst = queue_burst,
    .sleep = queue_sleep,
    .idle = queue_idle,
    .stop = queue_stop,
    .takes_partial = true,
};

/* --- to the guest ------------------------------------------------------------- */

/* A segment straight from another guest is nobody's tunnel, for what encapsulates
 * completes it first: netback may have it as it is. */
static bool
takes(const struct rte_mbuf *m)
{
    return offload_netback_takes(m->ol_flags) || netback_is_partial(m);
}

void
dp_vif_send(struct fast_port *fast, struct worker *w OVS_UNUSED, struct rte_mbuf **pkts, unsigned n)
{
    struct dp_port *port = CONTAINER_OF(fast, struct dp_port, fast);
    unsigned end;

    /* A whole segment among partial ones is no reason to complete these. */
    for (unsigned i = 0; i < n; i = end) {
        bool plain = takes(pkts[i]);

        for (end = i + 1; end < n && (plain ? takes(pkts[end]) : !netback_is_partial(pkts[end]));
             end++) {
            continue;
        }
        if (OVS_LIKELY(plain)) {
            netdev_netback_tx(port->netdev, pkts + i, end - i);
        } else {
            dp_port_send(port, pkts + i, end - i, 0, true);
        }
    }
}

/* --- life --------------------------------------------------------------------- */

int
dp_vif_start(struct dp_port *port)
{
    netdev_netback_set_receiver(port->netdev, &receiver, port);
    return 0;
}

void
dp_vif_stop(struct dp_port *port)
{
    netdev_netback_set_receiver(port->netdev, NULL, NULL);
}
