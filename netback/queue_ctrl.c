/* queue_ctrl: what a guest's control ring changes in its queues.
 *
 * Runs on queue 0's thread; tables of other queues are changed on their own. */
#include "queue_priv.h"

#include <errno.h>
#include <syslog.h>

static uint32_t
ctrl_request_index(const struct queue *q)
{
    /* ctrl_run() has consumed the request it is working on. */
    return q->ctrl.ring.req_cons - 1;
}

static struct queue *
peer_queue(struct queue *q0, unsigned queue)
{
    return queue < q0->vif->n_open ? q0->vif->queues[queue] : NULL;
}

static int
on_queue(struct queue *q0, struct queue *q, int (*fn)(struct queue *, void *aux), void *aux)
{
    return q == q0 ? fn(q, aux) : queue_call(q, fn, aux);
}

struct gref_change {
    const struct xen_netif_gref *list;
    unsigned n;
    uint32_t ref;
};

static int
gref_add_here(struct queue *q, void *change_)
{
    struct gref_change *c = change_;

    lane_hold(q->lane);
    int error =
        gref_table_add(&q->grefs, q->vif->nb->hv->ops, q->grants, q->vif->domid, c->list, c->n);
    lane_let_go(q->lane);
    return error;
}

static int
gref_del_here(struct queue *q, void *change_)
{
    struct gref_change *c = change_;

    lane_hold(q->lane);
    int error = gref_table_del(&q->grefs, q->vif->nb->hv->ops, q->grants, c->ref);
    lane_let_go(q->lane);
    return error;
}

static int
gref_map_here(struct queue *q, void *mapped)
{
    const struct hv_ops *ops = q->vif->nb->hv->ops;
    unsigned failed = 0;

    lane_hold(q->lane);
    if (*(bool *)mapped) {
        failed = gref_table_map(&q->grefs, ops, q->grants, q->vif->domid);
    } else {
        gref_table_unmap(&q->grefs, ops, q->grants);
    }
    lane_let_go(q->lane);
    if (failed) {
        vif_log(q->vif, LOG_WARNING, "queue %u: %u static grants could not be mapped again", q->id,
                failed);
    }
    return 0;
}

void
queue_set_static(struct queue *q, bool mapped)
{
    queue_call(q, gref_map_here, &mapped);
}

static unsigned
hook_gref_limit(void *q0, unsigned queue)
{
    struct queue *q = peer_queue(q0, queue);
    int left = q ? atomic_load(&q->vif->nb->gref_left) : 0;
    unsigned mine = q ? q->grefs.limit : 0;
    /* Only this thread has another queue's table changed. */
    unsigned used = q ? q->grefs.n : 0;

    /* What it has counts as its own, the rest must still be in the budget. */
    return left < 0 ? used : mine < used + left ? mine : used + left;
}

bool
queue_gref_budget_take(struct netback *nb, unsigned n)
{
    int left = atomic_load(&nb->gref_left);

    do {
        if (left < (int)n) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(&nb->gref_left, &left, left - (int)n));
    return true;
}

static int
hook_gref_add(void *q0_, unsigned queue, const struct xen_netif_gref *list, unsigned n)
{
    struct queue *q0 = q0_, *q = peer_queue(q0, queue);
    struct gref_change change = {.list = list, .n = n};

    if (!q) {
        return EINVAL;
    }
    if (!queue_gref_budget_take(q->vif->nb, n)) {
        return ENOSPC;
    }
    int error = on_queue(q0, q, gref_add_here, &change);
    if (error) {
        atomic_fetch_add(&q->vif->nb->gref_left, (int)n);
        return error;
    }
    if (!atomic_fetch_add(&q->vif->n_static, n)) {
        vif_changed(q->vif);
    }
    for (unsigned i = 0; i < n; i++) {
        journal_gref_add(q->vif->journal, queue, list[i].ref,
                         list[i].flags & XEN_NETIF_CTRLF_GREF_readonly, ctrl_request_index(q0));
    }
    return 0;
}

static int
hook_gref_del(void *q0_, unsigned queue, uint32_t ref)
{
    struct queue *q0 = q0_, *q = peer_queue(q0, queue);
    struct gref_change change = {.ref = ref};

    if (!q) {
        return EINVAL;
    }
    journal_gref_removing(q->vif->journal, queue, ref, ctrl_request_index(q0));
    int error = on_queue(q0, q, gref_del_here, &change);
    if (!error) {
        atomic_fetch_add(&q->vif->nb->gref_left, 1);
        if (atomic_fetch_sub(&q->vif->n_static, 1) == 1) {
            vif_changed(q->vif);
        }
    }
    return error;
}

const struct ctrl_hooks queue_ctrl_hooks = {
    .gref_limit = hook_gref_limit, .gref_add = hook_gref_add, .gref_del = hook_gref_del,
    /* No hash_changed: the settings lie in the journal themselves. */
};
