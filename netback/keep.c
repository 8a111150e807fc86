#include "keep.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_mbuf.h>

#include "queue_priv.h"

/* --- lists (under the lock) -------------------------------------------------- */

static void
list_add(struct keep_list *l, struct rte_mbuf *m)
{
    /* The link lies where the NIC's hash was. */
    m->ol_flags &= ~RTE_MBUF_F_RX_RSS_HASH;
    inbox_set_next(m, NULL);
    if (l->head) {
        inbox_set_next(l->tail, m);
    } else {
        l->head = m;
    }
    l->tail = m;
}

static struct rte_mbuf *
list_take(struct keep_list *l)
{
    struct rte_mbuf *m = l->head;

    if (m) {
        l->head = inbox_next(m);
    }
    return m;
}

/* The next frames in order; returns how many. */
static unsigned
take(struct vif_keep *k, struct rte_mbuf **pkts, unsigned n)
{
    unsigned got;

    for (got = 0; got < n; got++) {
        struct rte_mbuf *m = list_take(k->first.head ? &k->first : &k->rest);

        if (!m) {
            break;
        }
        k->bytes -= pkt_footprint(m);
        pkts[got] = m;
    }
    return got;
}

/* Adds what there is room for and returns how many, from the first. */
static unsigned
add(struct vif_keep *k, struct keep_list *l, struct rte_mbuf **pkts, unsigned n)
{
    bool was_empty = !k->bytes;
    unsigned i;

    for (i = 0; i < n && k->bytes + pkt_footprint(pkts[i]) <= k->bytes_max; i++) {
        k->bytes += pkt_footprint(pkts[i]);
        list_add(l, pkts[i]);
    }
    k->dropped += n - i;
    if (was_empty && i && k->fd >= 0) {
        (void)!eventfd_write(k->fd, 1);
    }
    return i;
}

/* --- producers ----------------------------------------------------------------- */

unsigned
vif_keep_burst(struct netback_vif *v, struct rte_mbuf **pkts, unsigned n)
{
    struct vif_keep *k = &v->keep;
    unsigned n_queues, fit;

    if (atomic_load_explicit(&k->state, memory_order_acquire) == KEEP_OFF) {
        n_queues = atomic_load_explicit(&v->n_connected, memory_order_acquire);
        if (!n_queues) {
            vif_drop_all(v, pkts, n, DROP_GRX_NOT_CONNECTED);
        }
        return n_queues;
    }
    pthread_mutex_lock(&k->lock);
    n_queues = atomic_load_explicit(&v->n_connected, memory_order_acquire);
    fit = 0;
    if (!n_queues) {
        fit = add(k, &k->rest, pkts, n);
        k->kept += fit;
    }
    pthread_mutex_unlock(&k->lock);
    if (!n_queues) {
        vif_drop_all(v, pkts + fit, n - fit, DROP_GRX_QUEUE_FULL);
    }
    return n_queues;
}

void
vif_keep_first(struct netback_vif *v, struct rte_mbuf **pkts, unsigned n)
{
    struct vif_keep *k = &v->keep;

    pthread_mutex_lock(&k->lock);
    unsigned fit = add(k, &k->first, pkts, n);
    k->kept += fit;
    pthread_mutex_unlock(&k->lock);
    vif_drop_all(v, pkts + fit, n - fit, DROP_GRX_QUEUE_FULL);
}

void
netback_feed(struct netback_vif *v, struct rte_mbuf **pkts, unsigned n)
{
    struct vif_keep *k = &v->keep;
    unsigned fit = 0;
    bool connected;

    pthread_mutex_lock(&k->lock);
    connected = atomic_load(&v->n_connected) || atomic_load(&k->state) == KEEP_OFF;
    k->fed += n;
    if (!connected) {
        fit = add(k, &k->first, pkts, n);
    }
    pthread_mutex_unlock(&k->lock);
    if (connected) {
        netback_tx_burst(v, pkts, n);
    } else {
        vif_drop_all(v, pkts + fit, n - fit, DROP_GRX_QUEUE_FULL);
    }
}

unsigned
netback_kept_take(struct netback_vif *v, struct rte_mbuf **pkts, unsigned n)
{
    struct vif_keep *k = &v->keep;
    eventfd_t ignored;
    unsigned got;

    pthread_mutex_lock(&k->lock);
    got = take(k, pkts, n);
    k->taken += got;
    if (!k->bytes) {
        (void)!eventfd_read(k->fd, &ignored);
    }
    pthread_mutex_unlock(&k->lock);
    return got;
}

int
netback_kept_fd(const struct netback_vif *v)
{
    return v->keep.fd;
}

/* --- states (xenbus thread) -------------------------------------------------------- */

void
vif_keep_init(struct netback_vif *v)
{
    v->keep.fd = -1;
    pthread_mutex_init(&v->keep.lock, NULL);
}

void
vif_keep_done(struct netback_vif *v)
{
    if (v->keep.fd >= 0) {
        close(v->keep.fd);
    }
    pthread_mutex_destroy(&v->keep.lock);
}

static int
begin(struct netback_vif *v, enum keep_state state)
{
    struct vif_keep *k = &v->keep;

    if (k->fd < 0) {
        k->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (k->fd < 0) {
            return errno;
        }
    }
    pthread_mutex_lock(&k->lock);
    k->bytes_max = v->nb->config.grx_queue_bytes;
    if (atomic_load(&k->state) == KEEP_OFF) {
        k->kept = k->fed = k->taken = k->dropped = 0;
    }
    k->held_ns = nb_now(v->nb);
    atomic_store(&k->state, state);
    atomic_store(&v->n_connected, 0);
    pthread_mutex_unlock(&k->lock);
    return 0;
}

void
vif_keep_end(struct netback_vif *v, unsigned n_queues)
{
    struct vif_keep *k = &v->keep;
    struct rte_mbuf *pkts[NETBACK_MAX_BURST];
    unsigned n;

    do {
        pthread_mutex_lock(&k->lock);
        n = take(k, pkts, NETBACK_MAX_BURST);
        if (!n) {
            atomic_store_explicit(&v->n_connected, n_queues, memory_order_release);
            atomic_store_explicit(&k->state, KEEP_OFF, memory_order_release);
        }
        pthread_mutex_unlock(&k->lock);
        vif_to_queues(v, pkts, n, n_queues);
    } while (n);
}

void
vif_keep_unhold(struct netback_vif *v)
{
    atomic_store(&v->keep.n_held, 0);
}

void
vif_keep_drop(struct netback_vif *v)
{
    struct vif_keep *k = &v->keep;
    struct rte_mbuf *pkts[NETBACK_MAX_BURST];
    unsigned n;

    atomic_store(&k->n_held, 0);
    do {
        pthread_mutex_lock(&k->lock);
        atomic_store(&k->state, KEEP_OFF);
        n = take(k, pkts, NETBACK_MAX_BURST);
        pthread_mutex_unlock(&k->lock);
        vif_drop_all(v, pkts, n, DROP_GRX_DETACHED);
    } while (n);
}

static int
hold(struct netback *nb, void *vif)
{
    struct netback_vif *v = vif;
    int error;

    (void)nb;
    if (!v->attached) {
        return ENOTCONN;
    }
    if (atomic_load(&v->keep.state) == KEEP_HELD) {
        return 0;
    }
    error = begin(v, KEEP_HELD);
    /* Queue 0 last: a control request that it answers may call the others. */
    for (unsigned i = v->n_open; i-- > 0 && !error;) {
        error = queue_set_held(v->queues[i], true);
    }
    atomic_store(&v->keep.n_held, v->n_open);
    return error;
}

static int
release(struct netback *nb, void *vif)
{
    struct netback_vif *v = vif;

    (void)nb;
    if (atomic_load(&v->keep.state) == KEEP_OFF) {
        return 0;
    }
    if (!v->n_open) {
        vif_keep_drop(v);
        return 0;
    }
    for (unsigned i = 0; i < v->n_open; i++) {
        queue_set_held(v->queues[i], false);
    }
    vif_keep_end(v, v->n_open);
    vif_keep_unhold(v);
    return 0;
}

static int
keep(struct netback *nb, void *vif)
{
    struct netback_vif *v = vif;

    (void)nb;
    if (!v->attached || v->n_open) {
        return v->attached ? EISCONN : ENOTCONN;
    }
    return begin(v, KEEP_WAITING);
}

int
netback_hold(struct netback_vif *v)
{
    return xenbus_call(v->nb, hold, v);
}

int
netback_release(struct netback_vif *v)
{
    return xenbus_call(v->nb, release, v);
}

int
netback_keep(struct netback_vif *v)
{
    netback_watch(v, true);
    return xenbus_call(v->nb, keep, v);
}

static int
static_grants(struct netback *nb, void *vif)
{
    struct netback_vif *v = vif;

    (void)nb;
    for (unsigned i = v->n_open; i-- > 0;) {
        queue_set_static(v->queues[i], !v->static_off);
    }
    return 0;
}
static int
static_off(struct netback *nb, void *vif)
{
    ((struct netback_vif *)vif)->static_off = true;
    return static_grants(nb, vif);
}
static int
static_on(struct netback *nb, void *vif)
{
    ((struct netback_vif *)vif)->static_off = false;
    return static_grants(nb, vif);
}

void
netback_static_grants(struct netback_vif *v, bool on)
{
    xenbus_call(v->nb, on ? static_on : static_off, v);
}

struct injection {
    struct netback_vif *vif;
    struct rte_mbuf **pkts;
    unsigned n;
};

static int
inject(struct netback *nb, void *injection)
{
    struct injection *i = injection;

    (void)nb;
    return i->vif->n_open ? queue_inject(i->vif->queues[0], i->pkts, i->n) : ENOTCONN;
}

int
netback_inject(struct netback_vif *v, struct rte_mbuf **pkts, unsigned n)
{
    struct injection i = {v, pkts, n};

    return xenbus_call(v->nb, inject, &i);
}

/* --- times ----------------------------------------------------------------------- */

void
netback_watch(struct netback_vif *v, bool on)
{
    for (unsigned i = 0; i < v->n_lanes; i++) {
        struct lane *l = &v->lanes[i];

        if (on) {
            atomic_store(&l->first_ns, 0);
            atomic_store(&l->last_ns, 0);
        }
    }
    atomic_store(&v->timed, on);
}

void
lane_stamp(struct netback_vif *v, struct lane *l, bool to_guest)
{
    uint64_t now = nb_now(v->nb), none = 0;

    atomic_compare_exchange_strong(&l->first_ns, &none, now);
    if (to_guest) {
        atomic_store_explicit(&l->last_ns, now, memory_order_relaxed);
    }
}

void
netback_move_status(struct netback_vif *v, struct netback_move_status *s)
{
    struct vif_keep *k = &v->keep;

    *s = (struct netback_move_status){0};
    for (unsigned i = 0; i < v->n_lanes; i++) {
        uint64_t first = atomic_load(&v->lanes[i].first_ns);
        uint64_t last = atomic_load(&v->lanes[i].last_ns);

        s->last_ns = last > s->last_ns ? last : s->last_ns;
        s->first_ns = first && (!s->first_ns || first < s->first_ns) ? first : s->first_ns;
    }
    pthread_mutex_lock(&k->lock);
    s->state = atomic_load(&k->state);
    s->kept = k->kept;
    s->fed = k->fed;
    s->taken = k->taken;
    s->dropped = k->dropped;
    s->bytes = k->bytes;
    s->held_ns = k->held_ns;
    pthread_mutex_unlock(&k->lock);
}
