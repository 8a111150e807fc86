/* Workers: what a thread needs to handle packets; and the packets' own
 * housekeeping between ports, the engine and Open vSwitch's libraries. */
#include <config.h>

#include <rte_mbuf.h>

#include "coverage.h"
#include "dp.h"
#include "fast/portq.h"
#include "ovs-rcu.h"
#include "timeval.h"
#include "util.h"

/* Bursts between quiescent states of Open vSwitch's RCU, each of which takes
 * a global mutex (or fails to); and how long slow bursts may make of it, since
 * the main thread waits for all. */
#define RCU_BURSTS 64u
#define RCU_MS 8

void
dp_workers_init(struct dp *dp)
{
    ovs_mutex_init(&dp->workers_lock);
    ovs_list_init(&dp->spare);
    ovs_list_init(&dp->workers);
}

void
dp_workers_destroy(struct dp *dp)
{
    struct dp_worker *w;

    LIST_FOR_EACH_SAFE (w, node, &dp->spare) {
        dp_worker_destroy(w);
    }
    ovs_assert(ovs_list_is_empty(&dp->workers));
    ovs_mutex_destroy(&dp->workers_lock);
}

struct dp_worker *
dp_worker_create(struct dp *dp, unsigned cache_max, bool foreign)
{
    struct dp_worker *w = xzalloc(sizeof *w);

    w->dp = dp;
    w->foreign = foreign;
    ovs_list_init(&w->node);
    w->worker = worker_create(dp->engine, cache_max, w);
    if (!w->worker) {
        out_of_memory();
    }
    ovs_mutex_lock(&dp->workers_lock);
    ovs_list_push_back(&dp->workers, &w->in_all);
    ovs_mutex_unlock(&dp->workers_lock);
    return w;
}

static void
add_stats(struct worker_stats *to, const struct worker_stats *from)
{
    to->packets += from->packets;
    to->cache_hits += from->cache_hits;
    to->misses += from->misses;
    to->verdicts += from->verdicts;
    to->odd += from->odd;
    to->learned += from->learned;
    to->evicted += from->evicted;
    for (size_t i = 0; i < ENGINE_N_DROPS; i++) {
        to->drops[i] += from->drops[i];
    }
    to->cache_entries += from->cache_entries;
    to->cache_size += from->cache_size;
}

/* Ports that it sent to keep no lane for it. */
static void
forget(struct dp_worker *w)
{
    struct dp_port *port;

    ovs_rwlock_rdlock(&w->dp->ports_lock);
    HMAP_FOR_EACH (port, node, &w->dp->ports) {
        if (port->queue) {
            portq_forget(port->queue, w->worker);
        }
    }
    ovs_rwlock_unlock(&w->dp->ports_lock);
}

void
dp_worker_destroy(struct dp_worker *w)
{
    struct worker_stats last;

    if (!w) {
        return;
    }
    forget(w);
    ovs_mutex_lock(&w->dp->workers_lock);
    worker_stats(w->worker, &last);
    last.cache_entries = last.cache_size = 0;
    add_stats(&w->dp->past, &last);
    ovs_list_remove(&w->in_all);
    ovs_list_remove(&w->node);
    ovs_mutex_unlock(&w->dp->workers_lock);
    worker_destroy(w->worker);
    free(w->ct_scratch);
    free(w->miss_scratch);
    free(w->record_scratch);
    free(w);
}

struct dp_worker *
dp_borrow(struct dp *dp)
{
    struct dp_worker *w = NULL;

    ovs_mutex_lock(&dp->workers_lock);
    if (!ovs_list_is_empty(&dp->spare)) {
        w = CONTAINER_OF(ovs_list_pop_front(&dp->spare), struct dp_worker, node);
        ovs_list_init(&w->node);
    }
    ovs_mutex_unlock(&dp->workers_lock);
    if (!w) {
        w = dp_worker_create(dp, 0, false);
        ovs_strlcpy(w->name, "spare", sizeof w->name);
        w->borrowed = true;
    }
    w->depth = 0;
    worker_begin(w->worker);
    worker_set_now(w->worker, time_msec());
    worker_record_turn(w->worker);
    return w;
}

void
dp_return(struct dp_worker *w)
{
    worker_end(w->worker);
    ovs_mutex_lock(&w->dp->workers_lock);
    ovs_list_push_front(&w->dp->spare, &w->node);
    ovs_mutex_unlock(&w->dp->workers_lock);
}

void
dp_workers_stats(struct dp *dp, struct worker_stats *sum)
{
    struct dp_worker *w;

    ovs_mutex_lock(&dp->workers_lock);
    *sum = dp->past;
    LIST_FOR_EACH (w, in_all, &dp->workers) {
        struct worker_stats s;

        worker_stats(w->worker, &s);
        add_stats(sum, &s);
    }
    ovs_mutex_unlock(&dp->workers_lock);
}

/* --- Open vSwitch's RCU ----------------------------------------------------- */

void
dp_worker_rcu_enter__(struct dp_worker *w)
{
    ovsrcu_quiesce_end();
    w->in_rcu = true;
}

void
dp_worker_rcu_leave(struct dp_worker *w)
{
    if (w->in_rcu) {
        ovsrcu_quiesce_start();
        w->in_rcu = false;
    }
    /* Once a second, makes what the thread has counted public. */
    coverage_try_clear();
}

void
dp_worker_rcu_quiesce(struct dp_worker *w)
{
    int64_t now;

    if (w->foreign && !w->in_rcu) {
        return;
    }
    now = worker_now(w->worker);
    if ((++w->bursts >= RCU_BURSTS || now - w->quiesced >= RCU_MS) && !ovsrcu_try_quiesce()) {
        w->bursts = 0;
        w->quiesced = now;
        coverage_try_clear();
    }
}

/* --- packets ---------------------------------------------------------------- */

void
dp_packet_adopt(struct dp_packet *b, odp_port_t in_port)
{
    dp_packet_reset_offsets(b);
    dp_packet_reset_cutlen(b);
    b->packet_type = htonl(PT_ETH);
    pkt_metadata_init(&b->md, in_port);
}

void
dp_packet_complete(struct dp_packet *b)
{
    if (b->source != DPBUF_DPDK) {
        b->mbuf.pool = NULL;
        b->mbuf.next = NULL;
        b->mbuf.nb_segs = 1;
        rte_mbuf_refcnt_set(&b->mbuf, 1);
    }
}

void
dp_packets_free(struct rte_mbuf **pkts, unsigned n)
{
    unsigned first = 0;

    /* Runs of pools' packets go back together. */
    for (unsigned i = 0; i < n; i++) {
        if (OVS_UNLIKELY(!pkts[i]->pool)) {
            rte_pktmbuf_free_bulk(&pkts[first], i - first);
            dp_packet_delete(dp_packet_of(pkts[i]));
            first = i + 1;
        }
    }
    rte_pktmbuf_free_bulk(&pkts[first], n - first);
}
