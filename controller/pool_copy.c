#include <config.h>

#include "pool_copy.h"

#include <stdlib.h>
#include <string.h>

#include "fence.h"
#include "openvswitch/poll-loop.h"
#include "ovsdb-idl.h"
#include "pool-idl.h"
#include "util.h"

#define PROBE_MS 5000

struct pool_copy {
    struct fence_link link;
    struct ovsdb_idl *idl; /* NULL: there is no copy */
};

struct pool_copy *
pool_copy_create(void)
{
    struct pool_copy *c = xzalloc(sizeof *c);

    c->link.remote = xstrdup("");
    return c;
}

void
pool_copy_destroy(struct pool_copy *c)
{
    if (c) {
        ovsdb_idl_destroy(c->idl);
        free(c->link.remote);
        free(c);
    }
}

void
pool_copy_set(struct pool_copy *c, const char *target)
{
    if (!strcmp(c->link.remote, target)) {
        return;
    }
    free(c->link.remote);
    c->link = (struct fence_link){.remote = xstrdup(target)};
    ovsdb_idl_destroy(c->idl);
    c->idl = NULL;
    if (*target) {
        c->idl = ovsdb_idl_create(target, &poolrec_idl_class, false, true);
        ovsdb_idl_set_probe_interval(c->idl, PROBE_MS);
        fence_monitor(c->idl);
        ovsdb_idl_add_column(c->idl, &poolrec_pool_col_generation);
        ovsdb_idl_add_column(c->idl, &poolrec_pool_col_pending_deadline);
    }
}

void
pool_copy_run(struct pool_copy *c)
{
    const struct poolrec_pool *pool;

    if (c->idl) {
        ovsdb_idl_run(c->idl);
        fence_keep(c->idl, &c->link);
        pool = poolrec_pool_first(c->idl);
        if (pool) {
            /* A greater one than the database's: it was promoted. */
            fence_note(pool->fence);
        }
    }
}

void
pool_copy_wait(struct pool_copy *c)
{
    if (c->idl) {
        ovsdb_idl_wait(c->idl);
        fence_wait(&c->link);
    }
}

bool
pool_copy_has(const struct pool_copy *c, int64_t generation, int64_t deadline)
{
    const struct poolrec_pool *pool;

    if (!c->idl) {
        return true;
    }
    pool = ovsdb_idl_is_connected(c->idl) ? poolrec_pool_first(c->idl) : NULL;
    return pool && pool->fence == fence_newest() && !pool->closed &&
           (pool->generation > generation ||
            (pool->generation == generation && pool->pending_deadline == deadline));
}
