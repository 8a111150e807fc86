/* vif: a guest's network interface as a port of the switch. */
#include "vif.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#define LOG_BURST 10u
#define LOG_PERIOD_NS 5000000000ull

void
vif_log(struct netback_vif *v, int level, const char *format, ...)
{
    uint64_t now = nb_now(v->nb);
    char msg[512];
    va_list args;

    pthread_mutex_lock(&v->nb->lock);
    if (now - v->log_refill_ns > LOG_PERIOD_NS) {
        v->log_refill_ns = now;
        v->log_credit = LOG_BURST;
    }
    bool say = v->log_credit > 0;
    v->log_credit -= say;
    pthread_mutex_unlock(&v->nb->lock);
    if (!say) {
        return;
    }
    va_start(args, format);
    vsnprintf(msg, sizeof msg, format, args);
    va_end(args);
    netback_log(v->nb, level, "vif%u.%u: %s", v->domid, v->handle, msg);
}

void
vif_changed(struct netback_vif *v)
{
    atomic_fetch_add(&v->seq, 1);
}

void
vif_poke(struct netback_vif *v)
{
    atomic_store(&v->poked, true);
    xenbus_kick(v->nb);
}

void
vif_broken(struct netback_vif *v)
{
    atomic_store(&v->broken, true);
    vif_poke(v);
}

void
vif_set_stalled(struct netback_vif *v, bool stalled)
{
    unsigned before = atomic_fetch_add(&v->n_stalled, stalled ? 1 : -1);

    if (before == (stalled ? 0 : 1)) {
        vif_log(v, stalled ? LOG_WARNING : LOG_INFO,
                stalled ? "guest takes no packets, carrier off" : "guest takes packets again");
        vif_changed(v);
        vif_poke(v);
    }
}

/* --- attaching ------------------------------------------------------------ */

int
vif_attach(struct netback_vif *v)
{
    if (v->attached) {
        return EBUSY;
    }
    int error = lanes_alloc(v);
    if (error) {
        return error;
    }
    error = journal_open(v->nb->config.journal_dir, v->domid, v->handle, &v->journal);
    if (error) {
        lanes_free(v);
        return error;
    }
    for (int i = 0; i < DROP_N_REASONS; i++) {
        atomic_store(&v->drops[i], 0);
    }
    v->receiver = NULL;
    v->attached = true;
    return 0;
}

void
vif_detach(struct netback_vif *v)
{
    vif_disconnect(v);
    vif_keep_drop(v);
    netback_watch(v, false);
    free(v->carried);
    v->carried = NULL;
    netback_continue_stats(v, &(struct netback_stats){0});
    v->attached = false;
    journal_close(v->journal);
    v->journal = NULL;
    if (!v->present) {
        journal_remove(v->nb->config.journal_dir, v->domid, v->handle);
    }
    lanes_free(v);
}

/* --- connecting ----------------------------------------------------------- */

static void
close_queues(struct netback_vif *v)
{
    /* Queue 0 first: its control ring may be calling the others. */
    for (unsigned i = 0; i < v->n_open; i++) {
        queue_close(v->queues[i]);
        v->queues[i] = NULL;
    }
    v->n_open = 0;
}

int
vif_connect(struct netback_vif *v, const struct connection *c, bool adopt, char *why,
            size_t why_size)
{
    bool same = adopt && journal_matches(v->journal, &c->ids);
    int error = 0;

    if (!same) {
        journal_reset(v->journal, &c->ids);
        vif_apply_carried(v);
    }
    for (unsigned i = 0; i < c->n_queues && !error; i++) {
        error = queue_open(v, i, &c->queue[i], &v->queues[i], why, why_size);
        v->n_open += !error;
    }
    if (error) {
        close_queues(v);
        return error;
    }
    if (same) {
        journal_settle(v->journal, queue_ctrl_answered(v->queues[0]));
        for (unsigned i = 0; i < v->n_open; i++) {
            queue_replay(v->queues[i], v->journal);
        }
    }
    atomic_store(&v->journal->mcast.enabled, c->mcast_control);
    atomic_store(&v->broken, false);
    v->rate_bytes = c->queue[0].rate_bytes;
    v->rate_usecs = c->queue[0].rate_usecs;
    for (unsigned i = 0; i < v->n_open; i++) {
        lane_hold(&v->lanes[i]);
        v->lanes[i].queue = v->queues[i];
        lane_let_go(&v->lanes[i]);
    }
    /* First, for the answer to a guest's packet may be faster than we are. */
    bool kept = atomic_load(&v->keep.state) != KEEP_OFF;
    if (!kept) {
        atomic_store_explicit(&v->n_connected, v->n_open, memory_order_release);
    }
    /* Queue 0 last: a control request that waits for us may call the others. */
    for (unsigned i = v->n_open; i-- > 0 && !error;) {
        error = queue_start(v->queues[i]);
    }
    if (error) {
        snprintf(why, why_size, "cannot start a thread (%s)", strerror(error));
        atomic_store(&v->n_connected, 0);
        close_queues(v);
        return error;
    }
    if (kept) {
        vif_keep_end(v, v->n_open);
    }
    atomic_fetch_add(&v->connects, 1);
    vif_changed(v);
    return 0;
}

void
vif_disconnect(struct netback_vif *v)
{
    if (!v->n_open) {
        return;
    }
    atomic_store(&v->n_connected, 0);
    close_queues(v);
    vif_keep_unhold(v);
    vif_changed(v);
}

void
vif_sample_mcast(struct netback_vif *v, bool enabled)
{
    if (v->journal && atomic_exchange(&v->journal->mcast.enabled, enabled) != enabled) {
        vif_changed(v);
    }
}

/* --- the switch's side ------------------------------------------------------ */

unsigned
netback_n_queues(const struct netback_vif *v)
{
    return v->n_lanes;
}

void
netback_status(const struct netback_vif *v, struct netback_status *s)
{
    struct netback *nb = v->nb;
    uint64_t mac = atomic_load(&v->mac);

    *s = (struct netback_status){0};
    pthread_mutex_lock(&nb->lock);
    s->present = v->present;
    pthread_mutex_unlock(&nb->lock);
    s->n_queues = atomic_load(&v->n_connected);
    s->n_queues = s->n_queues ? s->n_queues : atomic_load(&v->keep.n_held);
    s->connected = s->n_queues > 0;
    s->carrier = s->connected && !atomic_load(&v->n_stalled);
    for (int i = 0; i < 6; i++) {
        s->mac[i] = mac >> (40 - 8 * i);
    }
    s->mtu = atomic_load(&v->mtu);
    s->connects = atomic_load(&v->connects);
    if (v->journal && s->connected) {
        s->multicast_control = atomic_load(&v->journal->mcast.enabled);
        s->static_grants = atomic_load(&v->n_static) > 0;
    }
}

struct receiver_change {
    struct netback_vif *vif;
    const struct netback_receiver *receiver;
    void *aux;
};

static int
set_receiver(struct netback *nb, void *change_)
{
    struct receiver_change *c = change_;

    c->vif->receiver = c->receiver;
    c->vif->receiver_aux = c->aux;
    for (unsigned i = 0; i < c->vif->n_open; i++) {
        queue_set_receiver(c->vif->queues[i]);
    }
    return 0;
}

void
netback_set_receiver(struct netback_vif *v, const struct netback_receiver *receiver, void *aux)
{
    struct receiver_change c = {v, receiver, aux};

    xenbus_call(v->nb, set_receiver, &c);
}

void
netback_set_carrier(struct netback_vif *v, bool up)
{
    if (atomic_exchange(&v->admin_up, up) != up) {
        vif_poke(v);
    }
}

struct mtu_change {
    struct netback_vif *vif;
    uint16_t mtu;
};

static int
set_mtu(struct netback *nb, void *change_)
{
    struct mtu_change *c = change_;

    atomic_store(&c->vif->mtu, c->mtu);
    for (unsigned i = 0; i < c->vif->n_open; i++) {
        queue_set_mtu(c->vif->queues[i], c->mtu);
    }
    return 0;
}

int
netback_set_mtu(struct netback_vif *v, uint16_t mtu)
{
    struct mtu_change c = {v, mtu};

    return mtu < 68 || mtu > 65000 ? EINVAL : xenbus_call(v->nb, set_mtu, &c);
}

uint64_t
netback_change_seq(const struct netback_vif *v)
{
    return atomic_load(&v->seq);
}

void
netback_stats(const struct netback_vif *v, struct netback_stats *s)
{
    *s = (struct netback_stats){
        .rx_packets = atomic_load(&v->before.rx_packets),
        .rx_bytes = atomic_load(&v->before.rx_bytes),
        .tx_packets = atomic_load(&v->before.tx_packets),
        .tx_bytes = atomic_load(&v->before.tx_bytes),
    };
    for (unsigned i = 0; i < v->n_lanes; i++) {
        const struct queue_stats *q = &v->lanes[i].stats, *grx = &v->lanes[i].grx_stats;
#define X(name) s->name += STAT_GET(q->name) + STAT_GET(grx->name);
        NETBACK_COUNTERS(X)
#undef X
        for (int r = 0; r < DROP_N_REASONS; r++) {
            s->drops[r] += STAT_GET(q->drops[r]) + STAT_GET(grx->drops[r]);
        }
    }
    for (int r = 0; r < DROP_N_REASONS; r++) {
        s->drops[r] += STAT_GET(v->drops[r]);
    }
}

static int
measure_memory(struct netback *nb, void *sum_)
{
    struct {
        const struct netback_vif *vif;
        size_t bytes;
    } *sum = sum_;
    const struct netback_vif *v = sum->vif;

    sum->bytes = sizeof *v;
    for (unsigned i = 0; i < v->n_lanes; i++) {
        const struct lane *l = &v->lanes[i];
        sum->bytes += sizeof *l + (l->out.mask + 1) * sizeof *l->out.slots +
                      atomic_load(&l->out_bytes) + atomic_load(&l->in.bytes);
    }
    for (unsigned i = 0; i < v->n_open; i++) {
        sum->bytes += queue_memory(v->queues[i]);
    }
    return 0;
}

size_t
netback_memory(const struct netback_vif *v)
{
    struct {
        const struct netback_vif *vif;
        size_t bytes;
    } sum = {v, 0};

    xenbus_call(v->nb, measure_memory, &sum);
    return sum.bytes;
}
