/* cell_net: the cell's interface as XenBus sees it.
 *
 * The store is the host's work, rings and grants are the guest's: each step of the
 * state machine that concerns them is told to the guest, which answers before the
 * next step is made (cell_vcpu_tell()).  A cell that waits to be run holds in state
 * 1 with the backend in 2, so that its offer is all that is left to do. */
#include <errno.h>
#include <string.h>
#include <xenstore.h>

#include "cell_host.h"

static int
on_offer(void *aux, const struct nf_backend_features *be, struct nf_offer *offer)
{
    struct cell *c = aux;
    struct cell_info *info = cell_info(c);

    if (!be->rx_copy) {
        cell_log("the backend does not offer feature-rx-copy");
        return EOPNOTSUPP;
    }
    info->backend.domid = be->domid;
    info->backend.csum_v4 = be->csum_v4;
    info->backend.gso_v4 = be->gso_tcpv4;
    info->backend.sg = be->sg;
    int error = cell_vcpu_tell(c, CELL_EV_OFFER);
    if (error) {
        return error;
    }
    *offer = (struct nf_offer){
        .n_queues = 1,
        .queue[0] = {.tx_ref = info->offer.tx_ref,
                     .rx_ref = info->offer.rx_ref,
                     .tx_port = info->offer.port,
                     .rx_port = info->offer.port},
        .sg = info->offer.sg == 1,
        .gso_tcpv4 = info->offer.gso_v4 == 1,
        .csum_v4 = true,
    };
    return 0;
}

static void
on_connected(void *aux)
{
    struct cell *c = aux;

    cell_info(c)->rx_frames = 0; /* an earlier connection's */
    atomic_store(&c->connected_ns, cell_now_ns());
    atomic_store(&c->connected, true);
    c->pending |= CELL_EV_CONNECTED;
}

static void
on_quiesce(void *aux)
{
    struct cell *c = aux;

    atomic_store(&c->connected, false);
    cell_vcpu_tell(c, CELL_EV_QUIESCE);
}

static void
on_release(void *aux)
{
    struct cell *c = aux;

    atomic_store(&c->connected, false);
    cell_vcpu_tell(c, CELL_EV_RELEASE);
}

static void
on_carrier(void *aux, bool up)
{
    struct cell *c = aux;

    cell_info(c)->backend.carrier = up;
}

static void
on_log(void *aux, const char *text)
{
    cell_log("vif: %s", text);
}

static const struct nf_bus_ops bus_ops = {
    .offer = on_offer,
    .connected = on_connected,
    .quiesce = on_quiesce,
    .release = on_release,
    .carrier = on_carrier,
    .log = on_log,
};

int
cell_net_init(struct cell *c)
{
    if (!c->cfg.has_vif) {
        return 0;
    }
    int error = local_store_open(c->dom, &c->store);
    if (!error) {
        error = nf_bus_init(&c->bus, c->store, c->cfg.domid, c->cfg.vif.handle, &bus_ops, c);
    }
    c->bus.held = true; /* until the guest runs */
    return error;
}

void
cell_net_process(struct cell *c)
{
    int error = nf_bus_process(&c->bus);

    atomic_store(&c->vif_state, (unsigned)c->bus.backend_state);
    if (error) {
        cell_log("the store is gone: %s", strerror(error));
        xs_close(c->store);
        c->store = NULL;
    }
}

void
cell_net_start(struct cell *c)
{
    if (c->store && c->bus.held) {
        nf_bus_hold(&c->bus, false);
        cell_net_process(c);
    }
}
