#include <config.h>

#include "share.h"

#include <stdlib.h>
#include <string.h>

#include "fence.h"
#include "hash.h"
#include "openvswitch/dynamic-string.h"
#include "openvswitch/hmap.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "pool-idl.h"
#include "timeval.h"
#include "util.h"
#include "uuid.h"

VLOG_DEFINE_THIS_MODULE(share);

/* As leader.c has them. */
#define LEASE_DEFAULT_MS 3000
#define LEASE_MIN_MS 500
#define LEASE_MAX_MS 60000
#define PROBE_MS 5000
#define RETRY_MS 1000

/* A controller, ourselves included. */
struct peer {
    int64_t lease;
    long long int seen_at; /* when it changed last */
    size_t n;              /* hosts that are to be its; while they are divided */
};

/* A host that we lead. */
struct holding {
    struct hmap_node node; /* by host */
    struct uuid host;
    uint64_t epoch;
};

struct take {
    struct uuid host;
    uint64_t epoch;
};

struct share {
    char *id;
    struct ovsdb_idl *idl;
    struct fence_link link;
    struct ovsdb_idl_txn *txn; /* under way, or NULL */
    struct take *takes;        /* what it takes; none: it renews our lease */
    size_t n_takes;

    struct shash peers; /* struct peer */
    struct hmap holdings;
    unsigned lease_ms;
    long long int renew_at, retry_at;
    unsigned seqno; /* for which the hosts were divided, among these */
    uint32_t live;
    long long int ran_at; /* 0: what is to be judged is to be seen anew */
};

struct share *
share_create(const char *database, const char *id)
{
    struct share *s = xzalloc(sizeof *s);

    s->id = xstrdup(id);
    shash_init(&s->peers);
    hmap_init(&s->holdings);
    s->lease_ms = LEASE_DEFAULT_MS;
    s->link.remote = xstrdup(database);
    s->idl = ovsdb_idl_create(database, &poolrec_idl_class, false, true);
    ovsdb_idl_set_probe_interval(s->idl, PROBE_MS);
    ovsdb_idl_set_leader_only(s->idl, false);
    fence_monitor(s->idl);
    ovsdb_idl_add_column(s->idl, &poolrec_pool_col_lease_ms);
    ovsdb_idl_add_column(s->idl, &poolrec_pool_col_leader_epoch);
    ovsdb_idl_add_column(s->idl, &poolrec_controller_col_name);
    ovsdb_idl_add_column(s->idl, &poolrec_controller_col_lease);
    ovsdb_idl_add_column(s->idl, &poolrec_host_col_name);
    ovsdb_idl_add_column(s->idl, &poolrec_host_col_controller);
    ovsdb_idl_add_column(s->idl, &poolrec_host_col_controller_epoch);
    return s;
}

static void
end_txn(struct share *s)
{
    if (s->txn) {
        ovsdb_idl_txn_destroy(s->txn);
        s->txn = NULL;
    }
    free(s->takes);
    s->takes = NULL;
    s->n_takes = 0;
}

static void
drop(struct share *s, struct holding *h)
{
    hmap_remove(&s->holdings, &h->node);
    free(h);
}

void
share_destroy(struct share *s)
{
    struct holding *h;

    if (s) {
        end_txn(s);
        HMAP_FOR_EACH_SAFE (h, node, &s->holdings) {
            drop(s, h);
        }
        hmap_destroy(&s->holdings);
        shash_destroy_free_data(&s->peers);
        ovsdb_idl_destroy(s->idl);
        free(s->link.remote);
        free(s->id);
        free(s);
    }
}

static struct holding *
find(const struct share *s, const struct uuid *host)
{
    struct holding *h;

    HMAP_FOR_EACH_WITH_HASH (h, node, uuid_hash(host), &s->holdings) {
        if (uuid_equals(&h->host, host)) {
            return h;
        }
    }
    return NULL;
}

uint64_t
share_epoch(const struct share *s, const struct uuid *host)
{
    const struct holding *h = find(s, host);

    return h ? h->epoch : 0;
}

void
share_deposed(struct share *s, const struct uuid *host)
{
    struct holding *h = find(s, host);

    if (h) {
        VLOG_WARN("leads host " UUID_FMT " no more: its switch obeys a newer epoch than %" PRIu64,
                  UUID_ARGS(host), h->epoch);
        drop(s, h);
        s->retry_at = time_msec() + RETRY_MS;
        s->live = 0;
    }
}

/* --- what the rows say ------------------------------------------------------------- */

static bool
is_live(const struct share *s, const char *name)
{
    const struct peer *p = shash_find_data(&s->peers, name);

    return !strcmp(name, s->id) || (p && time_msec() < p->seen_at + s->lease_ms + s->lease_ms / 2);
}

static const struct poolrec_controller *
controller_row(const struct share *s, const char *name)
{
    const struct poolrec_controller *row;

    POOLREC_CONTROLLER_FOR_EACH(row, s->idl)
    {
        if (!strcmp(row->name, name)) {
            return row;
        }
    }
    return NULL;
}

static void
observe_controllers(struct share *s)
{
    const struct poolrec_controller *row;
    struct shash_node *node;

    POOLREC_CONTROLLER_FOR_EACH(row, s->idl)
    {
        struct peer *p = shash_find_data(&s->peers, row->name);

        if (!p) {
            p = xzalloc(sizeof *p);
            shash_add(&s->peers, row->name, p);
            p->lease = row->lease - 1;
        }
        if (p->lease != row->lease || !s->ran_at) {
            p->lease = row->lease;
            p->seen_at = time_msec();
        }
    }
    SHASH_FOR_EACH_SAFE (node, &s->peers) {
        if (!controller_row(s, node->name)) {
            free(shash_steal(&s->peers, node));
        }
    }
}

static void
observe_hosts(struct share *s)
{
    struct holding *h;

    HMAP_FOR_EACH_SAFE (h, node, &s->holdings) {
        const struct poolrec_host *row = poolrec_host_get_for_uuid(s->idl, &h->host);

        if (!row) {
            drop(s, h);
        } else if ((uint64_t)row->controller_epoch > h->epoch && !s->txn) {
            VLOG_INFO("host %s: %s leads it with epoch %" PRId64, row->name, row->controller,
                      row->controller_epoch);
            drop(s, h);
        }
    }
}

static void
observe(struct share *s)
{
    const struct poolrec_pool *pool = poolrec_pool_first(s->idl);
    long long int now = time_msec();

    if (pool) {
        s->lease_ms = !pool->lease_ms ? LEASE_DEFAULT_MS
                                      : MAX(LEASE_MIN_MS, MIN(pool->lease_ms, LEASE_MAX_MS));
    }
    if (s->ran_at && now - s->ran_at > s->lease_ms / 2) {
        /* It was us who stood still. */
        s->ran_at = 0;
    }
    observe_controllers(s);
    observe_hosts(s);
    s->ran_at = now;
}

/* --- who should lead what ------------------------------------------------------------ */

static int
compare_hosts(const void *a_, const void *b_)
{
    const struct poolrec_host *const *a = a_, *const *b = b_;

    return strcmp((*a)->name, (*b)->name);
}

static uint32_t
rank(const char *controller, const char *host)
{
    return hash_finish(hash_string(controller, 0) ^ hash_string(host, 1), 2);
}

/* The one with room that ranks highest. */
static struct shash_node *
best_for(const struct poolrec_host *host, struct shash_node **live, size_t n_live, size_t room)
{
    struct shash_node *best = NULL;

    for (size_t i = 0; i < n_live; i++) {
        const struct peer *p = live[i]->data;
        uint32_t r = rank(live[i]->name, host->name);
        uint32_t b = best ? rank(best->name, host->name) : 0;

        if (p->n < room && (!best || r > b || (r == b && strcmp(live[i]->name, best->name) > 0))) {
            best = live[i];
        }
    }
    return best;
}

/* It should be ours. */
static void
want(struct share *s, const struct poolrec_host *row)
{
    const struct poolrec_pool *pool = poolrec_pool_first(s->idl);
    uint64_t newest = MAX((uint64_t)row->controller_epoch, fence_floor());

    if (find(s, &row->header_.uuid)) {
        return;
    }
    /* Switches may remember the pool's epoch from before hosts had theirs. */
    newest = MAX(newest, pool ? (uint64_t)pool->leader_epoch : 0);
    s->takes = xrealloc(s->takes, (s->n_takes + 1) * sizeof *s->takes);
    s->takes[s->n_takes++] = (struct take){row->header_.uuid, newest + 1};
}

/* Leaves in 'takes' what should be ours and is not. */
static void
divide(struct share *s)
{
    const struct poolrec_host **hosts = NULL, *row;
    struct shash_node **live = xmalloc((shash_count(&s->peers) + 1) * sizeof *live), *node;
    size_t n = 0, n_live = 0, room, cap = 0;

    SHASH_FOR_EACH (node, &s->peers) {
        ((struct peer *)node->data)->n = 0;
        if (is_live(s, node->name)) {
            live[n_live++] = node;
        }
    }
    POOLREC_HOST_FOR_EACH(row, s->idl)
    {
        if (n == cap) {
            hosts = x2nrealloc(hosts, &cap, sizeof *hosts);
        }
        hosts[n++] = row;
    }
    if (n && n_live) {
        qsort(hosts, n, sizeof *hosts, compare_hosts);
        room = (n + n_live - 1) / n_live;
        for (size_t i = 0; i < n; i++) {
            node = best_for(hosts[i], live, n_live, room);
            ((struct peer *)node->data)->n++;
            if (!strcmp(node->name, s->id)) {
                want(s, hosts[i]);
            }
        }
    }
    free(hosts);
    free(live);
}

/* Something on which the division depends is not as it was. */
static bool
is_moved(struct share *s)
{
    uint32_t live = 0;
    struct shash_node *node;

    SHASH_FOR_EACH (node, &s->peers) {
        live += is_live(s, node->name) ? hash_string(node->name, 0) : 0;
    }
    if (live == s->live && s->seqno == ovsdb_idl_get_seqno(s->idl)) {
        return false;
    }
    s->live = live;
    s->seqno = ovsdb_idl_get_seqno(s->idl);
    return true;
}

/* --- changing it ------------------------------------------------------------------------ */

static void
take_all(struct share *s)
{
    for (size_t i = 0; i < s->n_takes; i++) {
        const struct poolrec_host *row = poolrec_host_get_for_uuid(s->idl, &s->takes[i].host);
        struct holding *h = xzalloc(sizeof *h);

        h->host = s->takes[i].host;
        h->epoch = s->takes[i].epoch;
        hmap_insert(&s->holdings, &h->node, uuid_hash(&h->host));
        VLOG_INFO("%s leads host %s with epoch %" PRIu64, s->id, row ? row->name : "?", h->epoch);
    }
}

static void
finish_txn(struct share *s)
{
    enum ovsdb_idl_txn_status status = ovsdb_idl_txn_commit(s->txn);

    if (status == TXN_INCOMPLETE) {
        return;
    }
    if (status == TXN_SUCCESS || status == TXN_UNCHANGED) {
        take_all(s);
    } else {
        VLOG_INFO("%s: %s", s->n_takes ? "did not take hosts" : "did not renew the lease",
                  ovsdb_idl_txn_status_to_string(status));
        s->retry_at = time_msec() + RETRY_MS / 4;
        s->live = 0;
    }
    end_txn(s);
}

static void
renew(struct share *s)
{
    const struct poolrec_controller *row = controller_row(s, s->id);

    s->txn = ovsdb_idl_txn_create(s->idl);
    fence_verify(s->idl);
    if (!row) {
        row = poolrec_controller_insert(s->txn);
        poolrec_controller_set_name(row, s->id);
        poolrec_controller_set_lease(row, 1);
    } else {
        poolrec_controller_set_lease(row, row->lease + 1);
    }
    s->renew_at = time_msec() + s->lease_ms / 3;
    finish_txn(s);
}

/* The condition: neither the host's row has changed since we read it, nor the
 * lease of its controller, if we took it for gone. */
static void
take(struct share *s)
{
    s->txn = ovsdb_idl_txn_create(s->idl);
    fence_verify(s->idl);
    for (size_t i = 0; i < s->n_takes; i++) {
        const struct poolrec_host *row = poolrec_host_get_for_uuid(s->idl, &s->takes[i].host);
        const struct poolrec_controller *old = controller_row(s, row->controller);

        poolrec_host_verify_controller(row);
        poolrec_host_verify_controller_epoch(row);
        if (old && !is_live(s, row->controller)) {
            poolrec_controller_verify_lease(old);
        }
        poolrec_host_set_controller(row, s->id);
        poolrec_host_set_controller_epoch(row, s->takes[i].epoch);
    }
    finish_txn(s);
}

/* --- the loop ------------------------------------------------------------------------------ */

void
share_run(struct share *s)
{
    ovsdb_idl_run(s->idl);
    if (!fence_good(s->idl, &s->link, "share") || !ovsdb_idl_is_connected(s->idl) ||
        !ovsdb_idl_has_ever_connected(s->idl) || !poolrec_pool_first(s->idl)) {
        /* Nobody's lease can be judged from here; what is ours stays so until
         * its switch says otherwise. */
        end_txn(s);
        s->ran_at = 0;
        return;
    }
    if (s->txn) {
        finish_txn(s);
    }
    observe(s);
    if (s->txn || time_msec() < s->retry_at) {
        return;
    }
    if (time_msec() >= s->renew_at || !controller_row(s, s->id)) {
        renew(s);
    } else if (is_moved(s)) {
        divide(s);
        if (s->n_takes) {
            take(s);
        }
    }
}

void
share_wait(struct share *s)
{
    struct shash_node *node;

    ovsdb_idl_wait(s->idl);
    fence_wait(&s->link);
    if (s->txn) {
        ovsdb_idl_txn_wait(s->txn);
    } else if (s->ran_at) {
        poll_timer_wait_until(MAX(s->renew_at, s->retry_at));
        if (!s->live) {
            poll_timer_wait_until(s->retry_at);
        }
        SHASH_FOR_EACH (node, &s->peers) {
            const struct peer *p = node->data;

            /* When it counts as gone. */
            if (is_live(s, node->name) && strcmp(node->name, s->id)) {
                poll_timer_wait_until(p->seen_at + s->lease_ms + s->lease_ms / 2);
            }
        }
    }
}

void
share_format(const struct share *s, struct ds *ds)
{
    size_t n_live = 0;
    struct shash_node *node;

    SHASH_FOR_EACH (node, &s->peers) {
        n_live += is_live(s, node->name);
    }
    ds_put_format(ds, "hosts: leads %" PRIuSIZE ", shared by %" PRIuSIZE " controllers\n",
                  hmap_count(&s->holdings), n_live);
}
