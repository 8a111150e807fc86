/* netfront_mcast: the guest's multicast list, told to the backend.
 *
 * The main thread sets the wanted list; the worker of queue 0 sends the
 * difference to what the backend knows as dummy transmit requests.
 *
 * Threads: nf_mcast_set() main thread; nf_mcast_reset() main thread while no
 * worker runs; nf_mcast_flush() worker of queue 0. */
#ifndef NETFRONT_MCAST_H
#define NETFRONT_MCAST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "netfront_ring.h"

/* As many as backends are known to keep (Linux: 64). */
#define NF_MCAST_MAX 64u

struct nf_mcast_set {
    unsigned n;
    uint8_t mac[NF_MCAST_MAX][6];
};

struct nf_mcast {
    pthread_mutex_t lock;
    struct nf_mcast_set wanted; /* guarded by lock */
    _Atomic bool changed;       /* wanted may differ from told */
    struct nf_mcast_set told;   /* worker of queue 0 */
};

void nf_mcast_init(struct nf_mcast *);
/* Replaces the wanted list; true if it differs from the last one.  Entries beyond
 * NF_MCAST_MAX are the caller's to leave out. */
bool nf_mcast_set(struct nf_mcast *, const struct nf_mcast_set *);
/* A new connection: the backend knows nothing. */
void nf_mcast_reset(struct nf_mcast *);
static inline bool
nf_mcast_pending(const struct nf_mcast *m)
{
    return atomic_load_explicit(&m->changed, memory_order_relaxed);
}
/* Puts as many changes as fit the ring and pushes them; what is left stays
 * pending. */
void nf_mcast_flush(struct nf_mcast *, struct nf_queue *);
/* Reads interface 'ifname' from the text of /proc/net/dev_mcast behind 'fd'. */
int nf_mcast_read_proc(int fd, const char *ifname, struct nf_mcast_set *);

#endif
