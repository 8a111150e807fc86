/* Bonds that balance in the datapath: a hash's bucket says which member.
 *
 * A new map of an existing bond is written over the old one, bucket by bucket,
 * so that the buckets' counters live on: rebalancing compares them.
 *
 * A host has a handful of bonds, so they are in an array, which is replaced
 * under OVS's RCU when one comes or goes. */
#include <config.h>

#include <errno.h>
#include <stdatomic.h>

#include "coverage.h"
#include "dp.h"
#include "ovs-rcu.h"
#include "util.h"

COVERAGE_DEFINE(weft_drop_invalid_bond);

struct bucket {
    _Atomic uint32_t member; /* odp_port_t */
    _Atomic uint64_t packets, bytes;
};

struct tx_bond {
    uint32_t id;
    struct bucket buckets[BOND_BUCKETS];
};

struct table {
    size_t n;
    struct tx_bond *bonds[];
};

struct dp_bonds {
    struct table *_Atomic table; /* OVS's RCU; writers hold 'lock' */
    struct ovs_mutex lock;
};

static struct table *
get_table(const struct dp_bonds *bonds)
{
    return atomic_load_explicit(&bonds->table, memory_order_acquire);
}

static struct tx_bond *
find(const struct dp_bonds *bonds, uint32_t id)
{
    const struct table *t = get_table(bonds);

    for (size_t i = 0; i < t->n; i++) {
        if (t->bonds[i]->id == id) {
            return t->bonds[i];
        }
    }
    return NULL;
}

/* Has a table without 'minus' and with 'plus', either of which may be NULL,
 * take the place of the one there is. */
static void
change_table(struct dp_bonds *bonds, const struct tx_bond *minus, struct tx_bond *plus)
    OVS_REQUIRES(bonds->lock)
{
    struct table *old = get_table(bonds);
    struct table *new = xzalloc(sizeof *new + (old->n + 1) * sizeof new->bonds[0]);

    for (size_t i = 0; i < old->n; i++) {
        if (old->bonds[i] != minus) {
            new->bonds[new->n++] = old->bonds[i];
        }
    }
    if (plus) {
        new->bonds[new->n++] = plus;
    }
    atomic_store_explicit(&bonds->table, new, memory_order_release);
    ovsrcu_postpone(free, old);
}

void
dp_bonds_init(struct dp *dp)
{
    dp->bonds = xzalloc(sizeof *dp->bonds);
    ovs_mutex_init(&dp->bonds->lock);
    atomic_init(&dp->bonds->table, xzalloc(sizeof(struct table)));
}

void
dp_bonds_destroy(struct dp *dp)
{
    if (dp->bonds) {
        struct table *t = get_table(dp->bonds);

        for (size_t i = 0; i < t->n; i++) {
            ovsrcu_postpone(free, t->bonds[i]);
        }
        ovsrcu_postpone(free, t);
        ovs_mutex_destroy(&dp->bonds->lock);
        free(dp->bonds);
        dp->bonds = NULL;
    }
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
        change_table(bonds, NULL, bond);
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
        change_table(bonds, bond, NULL);
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
