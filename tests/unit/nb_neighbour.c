/* nb_neighbour: see nb_neighbour.h. */
#include "nb_neighbour.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nb_guest.h"
#include "nb_rig.h"

#define PER_ROUND 8u
#define IN_FLIGHT_MAX 128u
#define FRAME_LEN 200u

struct nb_neighbour {
    struct nb_guest *g;
    struct netback_vif *v;
    pthread_t thread;
    atomic_bool stop;
    _Atomic uint64_t received; /* whole and in order or not */
    uint64_t sent;             /* thread; read after its end */
    uint8_t frame[FRAME_LEN];
};

static void
echo(struct nb_neighbour *n)
{
    struct rte_mbuf *pkts[NETBACK_MAX_BURST];
    unsigned k;

    while ((k = netback_rx_burst(n->v, 0, pkts, NETBACK_MAX_BURST)) > 0) {
        netback_tx_burst(n->v, pkts, k);
    }
}

static void
round_trip(struct nb_neighbour *n, bool send)
{
    struct nb_queue *q = &n->g->q[0];

    for (unsigned i = 0; send && i < PER_ROUND; i++) {
        if (n->sent - n->received < IN_FLIGHT_MAX &&
            nb_tx_frame(q, n->frame, FRAME_LEN, 0, NULL, HV_PAGE_SIZE)) {
            n->sent++;
        }
    }
    nb_tx_push(q);
    echo(n);
    n->received += nb_rx_discard(q);
    nb_tx_reap(q);
}

static void *
neighbour_main(void *n_)
{
    struct nb_neighbour *n = n_;

    while (!n->stop) {
        round_trip(n, true);
        rig_yield();
    }
    uint64_t until = rig_now_ms() + RIG_PATIENCE_MS;
    while (n->received < n->sent && rig_now_ms() < until) {
        round_trip(n, false);
        rig_yield();
    }
    return NULL;
}

struct nb_neighbour *
nb_neighbour_start(uint16_t domid)
{
    struct nb_neighbour *n = calloc(1, sizeof *n);

    if (!n) {
        abort();
    }
    n->g = nb_guest_new(domid, NULL);
    if (netback_attach(rig_nb, domid, 0, &n->v) || !nb_connect(n->g, NULL)) {
        fprintf(stderr, "neighbour %u does not connect\n", domid);
        exit(2);
    }
    memset(n->frame, 2, sizeof n->frame);
    pthread_create(&n->thread, NULL, neighbour_main, n);
    return n;
}

uint64_t
nb_neighbour_received(const struct nb_neighbour *n)
{
    return n->received;
}

uint64_t
nb_neighbour_stop(struct nb_neighbour *n, uint64_t min)
{
    n->stop = true;
    pthread_join(n->thread, NULL);
    uint64_t sent = n->sent, received = n->received;
    netback_detach(n->v);
    nb_guest_free(n->g);
    free(n);
    if (received < min || received > sent) {
        fprintf(stderr, "neighbour: %lu of %lu packets\n", (unsigned long)received,
                (unsigned long)sent);
        return UINT64_MAX;
    }
    return sent ? (sent - received) * 1000000 / sent : 0;
}
