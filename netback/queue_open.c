/* queue_open: a queue's life, from the rings' mapping to their release. */
#include "queue_priv.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

static int
map_page(struct queue *q, uint32_t ref, void **page)
{
    return q->vif->nb->hv->ops->grant_map(q->grants, q->vif->domid, &ref, 1, true, page);
}

static int
bind_ports(struct queue *q, const struct queue_config *c)
{
    const struct hv_ops *ops = q->vif->nb->hv->ops;
    int error = ops->evtchn_bind(q->evtchns, q->vif->domid, c->refs.tx_port, &q->tx_port);

    if (!error) {
        q->split = c->refs.rx_port != c->refs.tx_port;
        q->rx_port = q->tx_port;
        if (q->split) {
            error = ops->evtchn_bind(q->evtchns, q->vif->domid, c->refs.rx_port, &q->rx_port);
        }
    }
    if (!error && c->has_ctrl) {
        error = ops->evtchn_bind(q->evtchns, q->vif->domid, c->ctrl_port, &q->ctrl_port);
    }
    return error;
}

static void
init_port(struct queue *q, const struct queue_config *c)
{
    struct netback_vif *v = q->vif;

    const struct ring_port port = {
        .hv = v->nb->hv,
        .grants = q->grants,
        .domid = v->domid,
        .features = c->features,
        .pool = &q->pool,
        .grefs = &q->grefs,
        .hash = &v->journal->hash,
        .mcast = &v->journal->mcast,
        .stats = &q->lane->stats,
        .tx_log = &v->journal->tx_log[q->id],
        .rx_log = &v->journal->rx_log[q->id],
    };
    q->port = port;
    q->grx_port = port;
    q->grx_port.stats = &q->lane->grx_stats;
    queue_set_mtu(q, atomic_load(&v->mtu));
}

static int
open_ctrl(struct queue *q, const struct queue_config *c)
{
    struct netback_vif *v = q->vif;

    q->ctrl = (struct ctrl){
        .hv = v->nb->hv,
        .grants = q->grants,
        .domid = v->domid,
        .n_queues = c->n_queues,
        .hash = &v->journal->hash,
        .stats = &q->lane->stats,
        .hooks = &queue_ctrl_hooks,
        .aux = q,
        .log = &v->journal->ctrl_log,
    };
    int error = map_page(q, c->ctrl_ref, &q->ctrl_page);
    if (!error) {
        error = ctrl_init(&q->ctrl, q->ctrl_page);
    }
    q->has_ctrl = !error;
    return error;
}

int
queue_open(struct netback_vif *v, unsigned id, const struct queue_config *c, struct queue **out,
           char *why, size_t why_size)
{
    struct netback *nb = v->nb;
    const char *step = "out of memory";
    int error = ENOMEM;
    struct queue *q;

    if (posix_memalign((void **)&q, 64, sizeof *q)) {
        goto fail;
    }
    memset(q, 0, sizeof *q);
    q->vif = v;
    q->id = id;
    q->lane = &v->lanes[id];
    q->grefs.limit = nb->config.gref_per_queue;
    q->grefs.unmapped = v->static_off;
    pthread_mutex_init(&q->call_lock, NULL);

    pkt_pool_init(&q->pool, nb->config.small, nb->config.large, nb->config.free_foreign);
    step = "grant handle";
    if ((error = nb->hv->ops->grants_open(nb->hv, &q->grants))) {
        goto fail_close;
    }
    step = "event channel handle";
    if ((error = nb->hv->ops->evtchns_open(nb->hv, &q->evtchns))) {
        goto fail_close;
    }
    init_port(q, c);
    step = "tx-ring-ref cannot be mapped";
    if ((error = map_page(q, c->refs.tx_ref, &q->tx_page))) {
        goto fail_close;
    }
    step = "rx-ring-ref cannot be mapped";
    if ((error = map_page(q, c->refs.rx_ref, &q->rx_page))) {
        goto fail_close;
    }
    step = "event channel cannot be bound";
    if ((error = bind_ports(q, c))) {
        goto fail_close;
    }
    step = "ring indices make no sense";
    if ((error = gtx_init(&q->gtx, &q->port, q->tx_page)) ||
        (error = grx_init(&q->grx, &q->grx_port, q->rx_page))) {
        goto fail_close;
    }
    gtx_set_rate(&q->gtx, c->rate_bytes, c->rate_usecs);
    step = "control ring cannot be used";
    if (c->has_ctrl && (error = open_ctrl(q, c))) {
        goto fail_close;
    }
    *out = q;
    return 0;

fail_close:
    queue_close(q);
    goto fail;
fail:
    error = error < 0 ? -error : error;
    snprintf(why, why_size, "queue %u: %s (%s)", id, step, strerror(error));
    return error;
}

uint32_t
queue_ctrl_answered(const struct queue *q)
{
    return q->has_ctrl ? q->ctrl.ring.rsp_prod_pvt : 0;
}

void
queue_replay(struct queue *q, const struct journal *j)
{
    struct netback *nb = q->vif->nb;
    unsigned lost = 0;

    for (unsigned i = 0; i < JOURNAL_GREFS_MAX && i < j->gref_top[q->id]; i++) {
        const struct jgref *g = &j->grefs[q->id][i];
        struct xen_netif_gref gref = {
            .ref = g->ref,
            .flags = g->readonly ? XEN_NETIF_CTRLF_GREF_readonly : 0,
        };
        if (g->state != JGREF_MAPPED) {
            continue;
        }
        if (!queue_gref_budget_take(nb, 1)) {
            lost++;
        } else if (gref_table_add(&q->grefs, nb->hv->ops, q->grants, q->vif->domid, &gref, 1)) {
            atomic_fetch_add(&nb->gref_left, 1);
            lost++;
        } else {
            atomic_fetch_add(&q->vif->n_static, 1);
        }
    }
    if (lost) {
        vif_log(q->vif, LOG_WARNING, "queue %u: %u static grants could not be mapped again", q->id,
                lost);
    }
}

void
queue_close(struct queue *q)
{
    if (!q) {
        return;
    }
    const struct hv_ops *ops = q->vif->nb->hv->ops;

    if (q->started) {
        atomic_store_explicit(&q->stop, true, memory_order_release);
        inbox_wake(&q->lane->in);
        pthread_join(q->thread, NULL);
    }
    lane_hold(q->lane);
    q->lane->queue = NULL;
    lane_let_go(q->lane);
    if (q->pool.small) {
        if (q->held) {
            queue_keep_waiting(q);
        }
        queue_drop_waiting(q, DROP_GRX_DETACHED);
    }
    queue_set_stalled(q, false);
    atomic_fetch_add(&q->vif->nb->gref_left, (int)q->grefs.n);
    atomic_fetch_sub(&q->vif->n_static, q->grefs.n);
    gref_table_clear(&q->grefs, ops, q->grants);
    gtx_done(&q->gtx);
    grx_done(&q->grx);
    if (q->ctrl_page) {
        ops->grant_unmap(q->grants, q->ctrl_page, 1);
    }
    if (q->rx_page) {
        ops->grant_unmap(q->grants, q->rx_page, 1);
    }
    if (q->tx_page) {
        ops->grant_unmap(q->grants, q->tx_page, 1);
    }
    ops->evtchns_close(q->evtchns);
    ops->grants_close(q->grants);
    pkt_pool_done(&q->pool);
    pthread_mutex_destroy(&q->call_lock);
    free(q);
}

static int
set_rate_here(struct queue *q, void *rate_)
{
    const uint64_t *rate = rate_;

    gtx_set_rate(&q->gtx, rate[0], rate[1]);
    return 0;
}

void
queue_set_rate(struct queue *q, uint64_t bytes, uint64_t usecs)
{
    uint64_t rate[2] = {bytes, usecs};

    queue_call(q, set_rate_here, rate);
}

static int
set_receiver_here(struct queue *q, void *aux)
{
    queue_change_receiver(q, q->vif->receiver, q->vif->receiver_aux);
    return 0;
}

void
queue_set_receiver(struct queue *q)
{
    queue_call(q, set_receiver_here, NULL);
}

void
queue_set_mtu(struct queue *q, uint16_t mtu)
{
    atomic_store(&q->port.mtu, mtu);
    atomic_store(&q->grx_port.mtu, mtu);
}

static int
gref_slots_here(struct queue *q, void *slots)
{
    *(size_t *)slots = q->grefs.slots ? q->grefs.mask + 1 : 0;
    return 0;
}

size_t
queue_memory(struct queue *q)
{
    size_t slots = 0;

    queue_call(q, gref_slots_here, &slots);
    return sizeof *q + slots * sizeof *q->grefs.slots + QUEUE_STACK_USED;
}

int
queue_start(struct queue *q)
{
    pthread_attr_t attr;
    sigset_t all, old;
    char name[16];

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, QUEUE_STACK_BYTES);
    /* Signals are the main thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    q->first.receiver = q->vif->receiver;
    q->first.aux = q->vif->receiver_aux;
    atomic_store(&q->alive, true);
    int error = pthread_create(&q->thread, &attr, queue_main, q);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (error) {
        atomic_store(&q->alive, false);
        return error;
    }
    q->started = true;
    snprintf(name, sizeof name, "vif%u.%u-q%u", q->vif->domid, q->vif->handle, q->id);
    pthread_setname_np(q->thread, name);
    return 0;
}
