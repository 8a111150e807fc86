#include <config.h>

#include "leader.h"

#include <stdlib.h>
#include <string.h>

#include "fence.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "pool-idl.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(leader);

/* Where the database says 0, and bounds of what it may say. */
#define LEASE_DEFAULT_MS 3000
#define LEASE_MIN_MS 500
#define LEASE_MAX_MS 60000
#define PROBE_MS 5000
/* After a failure. */
#define RETRY_MS 1000

struct leader {
    char *id;
    struct ovsdb_idl *idl;
    struct fence_link link;
    struct ovsdb_idl_txn *txn; /* under way, or NULL */
    bool taking;               /* it takes the lead, rather than renewing */

    uint64_t epoch;     /* ours; 0: we do not lead */
    uint64_t taking_as; /* of 'txn' */
    bool twin;          /* another controller has our id */

    /* What the row said last, and since when it has. */
    char *holder;
    int64_t seen_epoch, seen_lease;
    long long int seen_at; /* 0: not yet */
    unsigned lease_ms;
    long long int renew_at; /* while we lead */
    long long int retry_at; /* else */
};

struct leader *
leader_create(const char *database, const char *id)
{
    struct leader *l = xzalloc(sizeof *l);

    l->id = xstrdup(id);
    l->holder = xstrdup("");
    l->lease_ms = LEASE_MAX_MS;
    l->link.remote = xstrdup(database);
    l->idl = ovsdb_idl_create(database, &poolrec_idl_class, false, true);
    ovsdb_idl_set_probe_interval(l->idl, PROBE_MS);
    /* What a follower of a cluster shows may be old; conditions are judged by all. */
    ovsdb_idl_set_leader_only(l->idl, false);
    fence_monitor(l->idl);
    ovsdb_idl_add_column(l->idl, &poolrec_pool_col_leader);
    ovsdb_idl_add_column(l->idl, &poolrec_pool_col_leader_epoch);
    ovsdb_idl_add_column(l->idl, &poolrec_pool_col_lease_ms);
    ovsdb_idl_add_column(l->idl, &poolrec_pool_col_lease_until);
    return l;
}

void
leader_destroy(struct leader *l)
{
    if (l) {
        if (l->txn) {
            ovsdb_idl_txn_destroy(l->txn);
        }
        ovsdb_idl_destroy(l->idl);
        free(l->link.remote);
        free(l->holder);
        free(l->id);
        free(l);
    }
}

uint64_t
leader_epoch(const struct leader *l)
{
    return l->epoch;
}

/* --- what the row says ------------------------------------------------------------- */

static void
observe(struct leader *l, const struct poolrec_pool *pool)
{
    l->lease_ms =
        !pool->lease_ms ? LEASE_DEFAULT_MS : MAX(LEASE_MIN_MS, MIN(pool->lease_ms, LEASE_MAX_MS));
    if (l->seen_at && !strcmp(l->holder, pool->leader) && l->seen_epoch == pool->leader_epoch &&
        l->seen_lease == pool->lease_until) {
        return;
    }
    free(l->holder);
    l->holder = xstrdup(pool->leader);
    l->seen_epoch = pool->leader_epoch;
    l->seen_lease = pool->lease_until;
    l->seen_at = time_msec();
    if (l->epoch && l->seen_epoch > l->epoch && !l->txn) {
        VLOG_WARN("leads no more: %s leads with epoch %" PRId64, l->holder, l->seen_epoch);
        if (!strcmp(l->holder, l->id)) {
            VLOG_ERR("another controller runs under the id %s; set --id", l->id);
            l->twin = true;
        }
        l->epoch = 0;
    }
}

/* When we may try to take the lead. */
static long long int
take_at(const struct leader *l)
{
    if (!l->holder[0] || (!strcmp(l->holder, l->id) && !l->twin)) {
        return l->retry_at;
    }
    return MAX(l->retry_at, l->seen_at + l->lease_ms + l->lease_ms / 2);
}

/* --- changing it --------------------------------------------------------------------- */

static void
finish_txn(struct leader *l)
{
    enum ovsdb_idl_txn_status status = ovsdb_idl_txn_commit(l->txn);

    if (status == TXN_INCOMPLETE) {
        return;
    }
    if (l->taking && (status == TXN_SUCCESS || status == TXN_UNCHANGED)) {
        l->epoch = l->taking_as;
        VLOG_INFO("%s leads with epoch %" PRIu64, l->id, l->epoch);
    } else if (l->taking) {
        VLOG_INFO("did not take the lead: %s", ovsdb_idl_txn_status_to_string(status));
        l->retry_at = time_msec() + RETRY_MS;
    }
    ovsdb_idl_txn_destroy(l->txn);
    l->txn = NULL;
}

/* The condition: nobody has written since we read. */
static void
start_txn(struct leader *l, const struct poolrec_pool *pool, uint64_t epoch)
{
    l->taking = !l->epoch;
    l->taking_as = epoch;
    l->txn = ovsdb_idl_txn_create(l->idl);
    fence_verify(l->idl);
    poolrec_pool_verify_leader(pool);
    poolrec_pool_verify_leader_epoch(pool);
    if (l->taking) {
        poolrec_pool_verify_lease_until(pool);
        poolrec_pool_set_leader(pool, l->id);
        poolrec_pool_set_leader_epoch(pool, epoch);
    }
    /* Always another value than before; as a time it is for people. */
    poolrec_pool_set_lease_until(pool, MAX(pool->lease_until + 1, time_wall_msec() + l->lease_ms));
    l->renew_at = time_msec() + l->lease_ms / 3;
    finish_txn(l);
}

void
leader_run(struct leader *l)
{
    const struct poolrec_pool *pool;

    ovsdb_idl_run(l->idl);
    if (!fence_good(l->idl, &l->link, "leader") || !ovsdb_idl_is_connected(l->idl)) {
        /* Nobody's lease can be judged from here. */
        if (l->txn) {
            ovsdb_idl_txn_destroy(l->txn);
            l->txn = NULL;
        }
        l->seen_at = 0;
        return;
    }
    pool = poolrec_pool_first(l->idl);
    if (!ovsdb_idl_has_ever_connected(l->idl) || !pool) {
        return;
    }
    if (l->txn) {
        finish_txn(l);
    }
    observe(l, pool);
    if (l->txn) {
        return;
    }
    if (l->epoch) {
        if (time_msec() >= l->renew_at) {
            start_txn(l, pool, l->epoch);
        }
    } else if (time_msec() >= take_at(l)) {
        start_txn(l, pool, MAX((uint64_t)l->seen_epoch, fence_floor()) + 1);
    }
}

void
leader_wait(struct leader *l)
{
    ovsdb_idl_wait(l->idl);
    fence_wait(&l->link);
    if (l->txn) {
        ovsdb_idl_txn_wait(l->txn);
    } else if (l->seen_at) {
        poll_timer_wait_until(l->epoch ? l->renew_at : take_at(l));
    }
}

void
leader_format(const struct leader *l, struct ds *ds)
{
    ds_put_format(ds, "%s: ", l->id);
    if (l->epoch) {
        ds_put_format(ds, "leads with epoch %" PRIu64 "\n", l->epoch);
    } else if (!l->seen_at) {
        ds_put_cstr(ds, "does not lead; the pool database does not answer\n");
    } else {
        ds_put_format(ds, "does not lead; %s does, epoch %" PRId64 ", lease renewed %lld ms ago\n",
                      l->holder[0] ? l->holder : "nobody", l->seen_epoch, time_msec() - l->seen_at);
    }
}
