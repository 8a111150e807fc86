/* courier: a thread of the switch that delivers into guests' rings itself (vif.h).
 *
 * It holds what a delivery takes besides the ring: a handle for grants and packet
 * buffers, its own because the queue's are used by the queue's thread meanwhile.  Its
 * thread and netback may end in either order. */
#include <stdlib.h>

#include "vif.h"

/* Bytes of a burst. */
#define LITTLE 4096u

struct courier {
    struct courier *next; /* of all */
    struct netback *nb;   /* NULL once that has ended */
    struct hv_grants *grants;
    struct pkt_pool pool;
};

static __thread struct courier *mine;
static __thread enum netback_deliver deliver;

/* Guards all but what a delivery uses: during one, netback does not end. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct courier *couriers;

static struct courier *
courier_new(struct netback *nb)
{
    struct courier *c = calloc(1, sizeof *c);

    if (!c) {
        return NULL;
    }
    if (nb->hv->ops->grants_open(nb->hv, &c->grants)) {
        free(c);
        return NULL;
    }
    c->nb = nb;
    pkt_pool_init(&c->pool, nb->config.small, nb->config.large, nb->config.free_foreign);
    pthread_mutex_lock(&lock);
    c->next = couriers;
    couriers = c;
    pthread_mutex_unlock(&lock);
    return c;
}

static void
courier_close(struct courier *c)
{
    if (c->nb) {
        c->nb->hv->ops->grants_close(c->grants);
        pkt_pool_done(&c->pool);
        c->nb = NULL;
    }
}

static void
courier_free(struct courier *c)
{
    pthread_mutex_lock(&lock);
    courier_close(c);
    for (struct courier **link = &couriers; *link; link = &(*link)->next) {
        if (*link == c) {
            *link = c->next;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    free(c);
}

void
couriers_close(const struct netback *nb)
{
    pthread_mutex_lock(&lock);
    for (struct courier *c = couriers; c; c = c->next) {
        if (c->nb == nb) {
            courier_close(c);
        }
    }
    pthread_mutex_unlock(&lock);
}

void
netback_deliver_here(enum netback_deliver what)
{
    deliver = what;
    if (what == NETBACK_DELIVER_NONE && mine) {
        courier_free(mine);
        mine = NULL;
    }
}

void
netback_deliver_trim(void)
{
    if (mine) {
        pthread_mutex_lock(&lock);
        if (mine->nb) {
            pkt_pool_trim(&mine->pool);
        }
        pthread_mutex_unlock(&lock);
    }
}

/* A queue's thread that is awake takes a little along with what it is doing. */
static bool
is_ours(struct rte_mbuf *const *pkts, unsigned n, bool asleep)
{
    size_t bytes = 0;

    for (unsigned i = 0; i < n; i++) {
        bytes += pkts[i]->pkt_len;
    }
    return bytes <= LITTLE ? asleep : deliver == NETBACK_DELIVER_ALL;
}

struct courier *
courier_for(struct netback *nb, struct rte_mbuf *const *pkts, unsigned n, bool asleep)
{
    if (deliver == NETBACK_DELIVER_NONE || !is_ours(pkts, n, asleep)) {
        return NULL;
    }
    if (!mine || mine->nb != nb) {
        if (mine) {
            courier_free(mine); /* an earlier netback's */
        }
        mine = courier_new(nb);
        deliver = mine ? deliver : NETBACK_DELIVER_NONE; /* no descriptors: as without us */
    }
    return mine;
}

struct pkt_pool *
courier_pool(struct courier *c)
{
    return &c->pool;
}

struct hv_grants *
courier_grants(struct courier *c)
{
    return c->grants;
}
