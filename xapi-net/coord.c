/* Which of the pool's hosts is the coordinator, and which are alive.
 *
 * The coordinator is named in the row Pool (name, epoch, lease), which changes
 * by compare-and-swap: who has seen the lease stand still for one and a half
 * times its length, by its own monotonic clock, writes its name and the next
 * epoch on condition that nobody did before.  Two that believe to be it harm
 * nothing: all that they write is conditional in itself.
 *
 * Each host says in its row where its weft-xapid is reached, and that it lives. */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "timeval.h"
#include "util.h"
#include "xapi.h"

VLOG_DEFINE_THIS_MODULE(coord);

enum {
    RETRY_MS = 1000,
    SEEN_MS = 5000,  /* how often a host says that it lives */
    LIVE_MS = 20000, /* and how long that counts at least */
};

/* The lease's length, in ms. */
static long long int
lease_ms(const struct xapi *x)
{
    return x->options->lease_s * 1000LL;
}

/* Who is slow to renew a lease is slow to say that he lives. */
static long long int
live_ms(const struct xapi *x)
{
    return MAX(LIVE_MS, 3 * lease_ms(x));
}

struct sight { /* of a host */
    int64_t seen;
    long long int at; /* monotonic; 0: dead when first looked at */
};

struct coord {
    uint64_t epoch; /* ours; 0: another host is it */
    bool writing, taking;
    uint64_t taking_as;
    char *holder; /* what the row said last, and since when */
    int64_t holder_epoch, holder_until;
    long long int since; /* 0: not yet */
    long long int renew_at, retry_at, seen_at;
    bool seen_writing;
    struct shash sights; /* by host name */
};

struct coord *
coord_create(void)
{
    struct coord *c = xzalloc(sizeof *c);

    c->holder = xstrdup("");
    shash_init(&c->sights);
    return c;
}

void
coord_destroy(struct coord *c)
{
    if (c) {
        shash_destroy_free_data(&c->sights);
        free(c->holder);
        free(c);
    }
}

bool
coord_is(const struct xapi *x)
{
    return x->coord->epoch && store_ready(x->store);
}

/* "https://[2001:db8::1]:443" > "2001:db8::1". */
const char *
coord_address(struct xapi *x)
{
    static char ip[80];
    const struct poolrec_pool *pool = store_pool(x->store);
    const struct poolrec_host *host =
        pool && *pool->coordinator ? store_host(x->store, pool->coordinator) : NULL;
    const char *from = host ? strstr(host->xapi_address, "://") : NULL;

    if (!from || !strcmp(pool->coordinator, x->options->host)) {
        return "";
    }
    from += 3;
    from += *from == '[';
    snprintf(ip, sizeof ip, "%.*s", (int)strcspn(from, strchr(from, ']') ? "]" : ":/"), from);
    return ip;
}

/* --- hosts that live --------------------------------------------------------------- */

static void
look_at_hosts(struct xapi *x)
{
    const struct poolrec_host *host;

    POOLREC_HOST_FOR_EACH(host, store_idl(x->store))
    {
        struct sight *s = shash_find_data(&x->coord->sights, host->name);

        if (!s) {
            s = xzalloc(sizeof *s);
            s->at = time_wall_msec() - host->xapi_seen < live_ms(x) ? time_msec() : 0;
            shash_add(&x->coord->sights, host->name, s);
        } else if (s->seen != host->xapi_seen) {
            s->at = time_msec();
        }
        s->seen = host->xapi_seen;
    }
}

bool
coord_host_live(struct xapi *x, const struct poolrec_host *host)
{
    const struct sight *s = shash_find_data(&x->coord->sights, host->name);

    return s && s->at && time_msec() - s->at < live_ms(x) && *host->xapi_address;
}

static void
seen_written(enum store_result result, const char *why, void *coord_)
{
    struct coord *c = coord_;

    c->seen_writing = false;
}

static void
say_alive(struct xapi *x)
{
    const struct poolrec_host *host = store_host(x->store, x->options->host);
    struct coord *c = x->coord;
    struct ovsdb_idl_txn *txn;

    if (c->seen_writing || time_msec() < c->seen_at || !host || !(txn = store_begin(x->store))) {
        return;
    }
    c->seen_at = time_msec() + SEEN_MS;
    c->seen_writing = true;
    if (strcmp(host->xapi_address, x->options->advertise)) {
        poolrec_host_set_xapi_address(host, x->options->advertise);
    }
    if (strcmp(host->migration_address, x->options->migration_address)) {
        poolrec_host_set_migration_address(host, x->options->migration_address);
    }
    poolrec_host_set_xapi_seen(host, MAX(time_wall_msec(), host->xapi_seen + 1));
    store_commit(x->store, txn, seen_written, c);
}

/* --- the lease -------------------------------------------------------------------------- */

static void
observe(struct xapi *x, const struct poolrec_pool *pool)
{
    struct coord *c = x->coord;

    if (c->since && !strcmp(c->holder, pool->coordinator) &&
        c->holder_epoch == pool->coordinator_epoch && c->holder_until == pool->coordinator_until) {
        return;
    }
    free(c->holder);
    c->holder = xstrdup(pool->coordinator);
    c->holder_epoch = pool->coordinator_epoch;
    c->holder_until = pool->coordinator_until;
    c->since = time_msec();
    if (c->epoch && c->holder_epoch > c->epoch && !c->writing) {
        VLOG_WARN("is the coordinator no more: %s is, epoch %" PRId64, c->holder, c->holder_epoch);
        c->epoch = 0;
    }
}

static void
lease_written(enum store_result result, const char *why, void *coord_)
{
    struct coord *c = coord_;

    c->writing = false;
    if (c->taking && result == STORE_DONE) {
        c->epoch = c->taking_as;
        VLOG_INFO("is the pool's coordinator, epoch %" PRIu64, c->epoch);
    }
    if (result != STORE_DONE) {
        c->retry_at = time_msec() + RETRY_MS;
    }
}

static void
write_lease(struct xapi *x, const struct poolrec_pool *pool, uint64_t epoch)
{
    struct coord *c = x->coord;
    struct ovsdb_idl_txn *txn = store_begin(x->store);

    if (!txn) {
        return;
    }
    c->taking = !c->epoch;
    c->taking_as = epoch;
    c->writing = true;
    poolrec_pool_verify_coordinator(pool);
    poolrec_pool_verify_coordinator_epoch(pool);
    if (c->taking) {
        poolrec_pool_verify_coordinator_until(pool);
        poolrec_pool_set_coordinator(pool, x->options->host);
        poolrec_pool_set_coordinator_epoch(pool, epoch);
    }
    poolrec_pool_set_coordinator_until(
        pool, MAX(pool->coordinator_until + 1, time_wall_msec() + lease_ms(x)));
    c->renew_at = time_msec() + lease_ms(x) / 3;
    store_commit(x->store, txn, lease_written, c);
}

/* One that is started again takes its own lease back at once. */
static long long int
take_at(const struct xapi *x)
{
    const struct coord *c = x->coord;

    return !*c->holder || !strcmp(c->holder, x->options->host)
               ? c->retry_at
               : MAX(c->retry_at, c->since + lease_ms(x) + lease_ms(x) / 2);
}

void
coord_run(struct xapi *x)
{
    const struct poolrec_pool *pool = store_pool(x->store);
    struct coord *c = x->coord;

    if (!store_writable(x->store)) {
        c->since = 0; /* nobody's lease can be judged from here */
        if (c->epoch && time_msec() > c->renew_at + lease_ms(x)) {
            VLOG_WARN("the pool's database is out of reach: is the coordinator no more");
            c->epoch = 0;
        }
        return;
    }
    look_at_hosts(x);
    say_alive(x);
    observe(x, pool);
    if (c->writing || x->options->agent_only || !store_host(x->store, x->options->host)) {
        return;
    }
    if (c->epoch && time_msec() >= c->renew_at) {
        write_lease(x, pool, c->epoch);
    } else if (!c->epoch && time_msec() >= take_at(x)) {
        write_lease(x, pool, (uint64_t)c->holder_epoch + 1);
    }
}

void
coord_wait(struct xapi *x)
{
    const struct coord *c = x->coord;

    if (store_writable(x->store) && store_host(x->store, x->options->host)) {
        poll_timer_wait_until(c->seen_at);
        if (!x->options->agent_only) {
            poll_timer_wait_until(c->epoch ? c->renew_at : take_at(x));
        }
    } else if (c->epoch) {
        poll_timer_wait_until(c->renew_at + lease_ms(x) + 1);
    }
}
