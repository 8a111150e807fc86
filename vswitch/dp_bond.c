/* Bonds that balance in the datapath: a hash's bucket says which member.
 *
 * A new map of an existing bond is written over the old one, bucket by bucket,
 * so that the buckets' counters live on: rebalancing compares them. */
#include <config.h>

#include <errno.h>
#include <stdatomic.h>

#include "coverage.h"
#include "dp.h"
#include "hash.h"
#include "ovs-rcu.h"
#include "util.h"

COVERAGE_DEFINE(weft_drop_invalid_bond);

struct bucket {
    _Atomic uint32_t member; /* odp_port_t */
    _Atomic uint64_t packets, bytes;
};

struct tx_bond {
    struct cmap_node node; /* in dp_bonds */
    uint32_t id;
    struct bucket buckets[BOND_BUCKETS];
};

struct dp_bonds {
    struct ovs_mutex lock; /* writers of 'map' */
    struct cmap map;       /* struct tx_bond */
};

static uint32_t
hash_id(uint32_t id)
{
    return hash_int(id, 0);
}

static struct tx_bond *
find(const struct dp_bonds *bonds, uint32_t id)
{
    struct tx_bond *bond;

    CMAP_FOR_EACH_WITH_HASH(bond, node, hash_id(id), &bonds->map)
    {
        if (bond->id == id) {
            return bond;
        }
    }
    return NULL;
}

void
dp_bonds_init(struct dp *dp)
{
    dp->bonds = xzalloc(sizeof *dp->bonds);
    ovs_mutex_init(&dp->bonds->lock);
    cmap_init(&dp->bonds->map);
}

void
dp_bonds_destroy(struct dp *dp)
{
    struct dp_bonds *bonds = dp->bonds;
    struct tx_bond *bond;

    if (!bonds) {
        return;
    }
    CMAP_FOR_EACH(bond, node, &bonds->map)
    {
        cmap_remove(&bonds->map, &bond->node, hash_id(bond->id));
        ovsrcu_postpone(free, bond);
    }
    cmap_destroy(&bonds->map);
    ovs_mutex_destroy(&bonds->lock);
    free(bonds);
    dp->bonds = NULL;
}

/* --- packets ------------------------------------------------------------------- */

/* Packets for one bucket, collected so that its counters are touched once. */
struct run {
    struct bucket *bucket;
    uint64_t bytes;
    unsigned n;
    struct rte_mbuf *pkts[NETDEV_MAX_BURST];
};

static void
run_send(struct dp_worker *w, struct run *run)
{
    odp_port_t member;

    if (!run->n) {
        return;
    }
    member = u32_to_odp(atomic_load_explicit(&run->bucket->member, memory_order_relaxed));
    if (dp_port_lookup(w->dp, member)) {
        atomic_fetch_add_explicit(&run->bucket->packets, run->n, memory_order_relaxed);
        atomic_fetch_add_explicit(&run->bucket->bytes, run->bytes, memory_order_relaxed);
        worker_output(w->worker, odp_to_u32(member), run->pkts, run->n);
    } else {
        worker_drop(w->worker, ENGINE_DROP_NO_PORT, run->pkts, run->n);
    }
    run->n = 0;
    run->bytes = 0;
}

/* The packets have their hashes (dp_exec.c). */
void
dp_bond_output(struct dp_worker *w, struct dp_packet_batch *batch, uint32_t bond_id, bool steal)
{
    struct tx_bond *bond = find(w->dp->bonds, bond_id);
    struct run run = {.n = 0};
    struct dp_packet_batch copy;
    struct dp_packet *b;

    if (!bond) {
        COVERAGE_ADD(weft_drop_invalid_bond, dp_packet_batch_size(batch));
        dp_packet_delete_batch(batch, steal);
        return;
    }
    if (!steal) {
        dp_packet_batch_clone(&copy, batch);
        dp_packet_batch_reset_cutlen(batch);
        batch = &copy;
    }
    dp_packet_batch_apply_cutlen(batch);
    DP_PACKET_BATCH_FOR_EACH (i, b, batch) {
        struct bucket *bucket = &bond->buckets[dp_packet_get_rss_hash(b) & BOND_MASK];

        if (bucket != run.bucket) {
            run_send(w, &run);
            run.bucket = bucket;
        }
        dp_packet_complete(b);
        run.bytes += dp_packet_size(b);
        run.pkts[run.n++] = &b->mbuf;
    }
    run_send(w, &run);
}

/* --- the class's functions -------------------------------------------------------- */

static void
set_members(struct tx_bond *bond, const odp_port_t members[])
{
    for (int i = 0; i < BOND_BUCKETS; i++) {
        atomic_store_explicit(&bond->buckets[i].member, odp_to_u32(members[i]),
                              memory_order_relaxed);
    }
}

int
dp_bond_add(struct dpif *dpif, uint32_t bond_id, odp_port_t *members)
{
    struct dp_bonds *bonds = dp_of(dpif)->bonds;
    struct tx_bond *bond;

    ovs_mutex_lock(&bonds->lock);
    bond = find(bonds, bond_id);
    if (bond) {
        set_members(bond, members);
    } else {
        bond = xzalloc(sizeof *bond);
        bond->id = bond_id;
        set_members(bond, members);
        cmap_insert(&bonds->map, &bond->node, hash_id(bond_id));
    }
    ovs_mutex_unlock(&bonds->lock);
    return 0;
}

int
dp_bond_del(struct dpif *dpif, uint32_t bond_id)
{
    struct dp_bonds *bonds = dp_of(dpif)->bonds;
    struct tx_bond *bond;

    ovs_mutex_lock(&bonds->lock);
    bond = find(bonds, bond_id);
    if (bond) {
        cmap_remove(&bonds->map, &bond->node, hash_id(bond_id));
        ovsrcu_postpone(free, bond);
    }
    ovs_mutex_unlock(&bonds->lock);
    return bond ? 0 : ENOENT;
}

int
dp_bond_stats_get(struct dpif *dpif, uint32_t bond_id, uint64_t *n_bytes)
{
    const struct tx_bond *bond = find(dp_of(dpif)->bonds, bond_id);

    if (!bond) {
        return ENOENT;
    }
    for (int i = 0; i < BOND_BUCKETS; i++) {
        n_bytes[i] += atomic_load_explicit(&bond->buckets[i].bytes, memory_order_relaxed);
    }
    return 0;
}
