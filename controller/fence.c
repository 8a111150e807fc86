#include <config.h>

#include "fence.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "pool-idl.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(fence);

/* Bits of an epoch below the fence's. */
#define EPOCH_BITS 40
/* For a connection that shows something wrong to show something else. */
#define PATIENCE_MS 5000
#define AGAIN_MS 500
#define UP_MS 1000
#define TRY_ALL_MS 3000
/* Then a cluster's member counts that has less than another one had: perhaps
 * there is no other any more (weft pool db rescue). */
#define ANY_MS 10000

static int64_t newest;
static char *file;

/* --- remembering ------------------------------------------------------------------- */

void
fence_open(const char *name)
{
    FILE *f;

    free(file);
    file = xstrdup(name);
    f = fopen(file, "re");
    if (!f) {
        if (errno != ENOENT) {
            VLOG_WARN("%s: %s", file, ovs_strerror(errno));
        }
        return;
    }
    if (fscanf(f, "%" SCNd64, &newest) != 1 || newest < 0) {
        VLOG_WARN("%s holds no number; older pool databases cannot be told", file);
        newest = 0;
    }
    fclose(f);
}

/* Old or new, whenever we die. */
static int
store(void)
{
    char *temporary = xasprintf("%s.new", file);
    FILE *f = fopen(temporary, "we");
    int error = f ? 0 : errno;

    if (f) {
        if (fprintf(f, "%" PRId64 "\n", newest) < 0 || fflush(f) || fsync(fileno(f))) {
            error = errno;
        }
        if (fclose(f) && !error) {
            error = errno;
        }
    }
    if (!error && rename(temporary, file)) {
        error = errno;
    }
    free(temporary);
    return error;
}

void
fence_note(int64_t fence)
{
    int error;

    if (fence <= newest) {
        return;
    }
    VLOG_INFO("the pool database has number %" PRId64 "; older ones count no more", fence);
    newest = fence;
    error = file ? store() : 0;
    if (error) {
        VLOG_WARN("%s: %s; after a restart an older pool database might be taken for this one",
                  file, ovs_strerror(error));
    }
}

int64_t
fence_newest(void)
{
    return newest;
}

uint64_t
fence_floor(void)
{
    return (uint64_t)newest << EPOCH_BITS;
}

/* --- connections --------------------------------------------------------------------- */

void
fence_monitor(struct ovsdb_idl *idl)
{
    ovsdb_idl_add_column(idl, &poolrec_pool_col_fence);
    ovsdb_idl_add_column(idl, &poolrec_pool_col_closed);
}

/* NULL, or what is wrong with it. */
static const char *
fault_of(const struct poolrec_pool *pool)
{
    if (!pool) {
        return newest ? "is empty" : NULL;
    }
    if (pool->fence < newest) {
        return "is an older one";
    }
    /* Closing comes with the number of the one that takes over. */
    return pool->closed ? "was handed to another server" : NULL;
}

void
fence_keep(struct ovsdb_idl *idl, struct fence_link *link)
{
    long long int now = time_msec();

    if (ovsdb_idl_is_connected(idl)) {
        link->up_at = link->up_at ? link->up_at : now;
        if (now >= link->up_at + UP_MS) {
            link->lost_at = 0;
        }
        return;
    }
    link->up_at = 0;
    if (!link->lost_at) {
        link->lost_at = link->tried_at = now;
    } else if (now >= link->tried_at + TRY_ALL_MS) {
        link->tried_at = now;
        if (now >= link->lost_at + ANY_MS) {
            ovsdb_idl_reset_min_index(idl);
        }
        ovsdb_idl_set_remote(idl, NULL, true);
        ovsdb_idl_set_remote(idl, link->remote, true);
    }
}

static long long int
turn_at(const struct fence_link *link)
{
    return link->wrong_at + (link->here ? AGAIN_MS : PATIENCE_MS);
}

/* What is wrong now may be what another server said before the connection to
 * this one stood: only what comes in is known to be this one's. */
bool
fence_good(struct ovsdb_idl *idl, struct fence_link *link, const char *who)
{
    const struct poolrec_pool *pool = poolrec_pool_first(idl);
    unsigned seqno = ovsdb_idl_get_seqno(idl);
    bool came = seqno != link->seqno, first = !link->wrong_at;
    const char *fault;

    link->seqno = seqno;
    fence_keep(idl, link);
    if (!ovsdb_idl_has_ever_connected(idl)) {
        return true;
    }
    if (pool) {
        fence_note(pool->fence);
    }
    fault = fault_of(pool);
    if (!fault) {
        link->wrong_at = 0;
        link->here = false;
        return true;
    }
    if (first) {
        VLOG_WARN("%s: this pool database %s (number %" PRId64 ", the newest is %" PRId64
                  "); looking for another",
                  who, fault, pool ? pool->fence : 0, newest);
        link->wrong_at = time_msec();
    }
    link->here = link->here || came;
    if (first ? came : time_msec() >= turn_at(link)) {
        link->wrong_at = time_msec();
        link->here = false;
        ovsdb_idl_force_reconnect(idl);
    }
    return false;
}

void
fence_wait(const struct fence_link *link)
{
    if (link->lost_at) {
        poll_timer_wait_until(link->up_at ? link->up_at + UP_MS : link->tried_at + TRY_ALL_MS);
    }
    if (link->wrong_at) {
        poll_timer_wait_until(turn_at(link));
    }
}

void
fence_verify(struct ovsdb_idl *idl)
{
    const struct poolrec_pool *pool = poolrec_pool_first(idl);

    if (pool) {
        poolrec_pool_verify_fence(pool);
        poolrec_pool_verify_closed(pool);
    }
}
