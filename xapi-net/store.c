#include <config.h>

#include "store.h"

#include <stdlib.h>
#include <string.h>

#include "openvswitch/list.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl-provider.h"
#include "ovsdb-idl.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(store);

#define PROBE_MS 5000

struct pending {
    struct ovs_list node;
    struct ovsdb_idl_txn *txn;
    store_done *done;
    void *aux;
};

struct store {
    struct ovsdb_idl *idl;
    struct ovs_list pending; /* struct pending, oldest first */
};

/* Columns that change all the time and make no event. */
static const struct ovsdb_idl_column *const quiet[] = {
    &poolrec_pool_col_coordinator_until,
    &poolrec_pool_col_leader_epoch,
    &poolrec_pool_col_lease_until,
    &poolrec_pool_col_generation,
    &poolrec_host_col_xapi_seen,
    &poolrec_host_col_last_seen,
    &poolrec_host_col_drift,
    &poolrec_host_col_applied_generation,
    &poolrec_vif_col_ofport,
};

static const struct ovsdb_idl_table_class *const tables[] = {
    &poolrec_table_pool,      &poolrec_table_host, &poolrec_table_network,
    &poolrec_table_vm,        &poolrec_table_vif,  &poolrec_table_task,
    &poolrec_table_migration, &poolrec_table_user, &poolrec_table_tenant,
};

static void
watch_column(struct ovsdb_idl *idl, const struct ovsdb_idl_column *column)
{
    for (size_t i = 0; i < ARRAY_SIZE(quiet); i++) {
        if (quiet[i] == column) {
            ovsdb_idl_add_column(idl, column);
            ovsdb_idl_omit_alert(idl, column);
            return;
        }
    }
    ovsdb_idl_track_add_column(idl, column);
}

struct store *
store_open(const char *remotes)
{
    struct store *s = xzalloc(sizeof *s);

    ovs_list_init(&s->pending);
    s->idl = ovsdb_idl_create(remotes, &poolrec_idl_class, false, true);
    ovsdb_idl_set_probe_interval(s->idl, PROBE_MS);
    /* A follower's view may be older; conditions are judged by the majority. */
    ovsdb_idl_set_leader_only(s->idl, false);
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        for (size_t j = 0; j < tables[i]->n_columns; j++) {
            watch_column(s->idl, &tables[i]->columns[j]);
        }
    }
    return s;
}

static void
finish(struct pending *p, enum store_result result, const char *why)
{
    ovs_list_remove(&p->node);
    if (p->done) {
        p->done(result, why, p->aux);
    }
    free(p);
}

void
store_close(struct store *s)
{
    struct pending *p;

    if (s) {
        LIST_FOR_EACH_SAFE (p, node, &s->pending) {
            ovsdb_idl_txn_destroy(p->txn);
            finish(p, STORE_CONFLICT, "weft-xapid ends");
        }
        ovsdb_idl_destroy(s->idl);
        free(s);
    }
}

static enum store_result
outcome(const struct ovsdb_idl_txn *txn, enum ovsdb_idl_txn_status status, char **why)
{
    *why = NULL;
    if (status == TXN_SUCCESS || status == TXN_UNCHANGED) {
        return STORE_DONE;
    }
    if (status == TXN_TRY_AGAIN) {
        *why = xstrdup("the pool's database has changed meanwhile");
        return STORE_CONFLICT;
    }
    *why = xstrdup(status == TXN_ERROR ? ovsdb_idl_txn_get_error(txn)
                                       : ovsdb_idl_txn_status_to_string(status));
    VLOG_WARN("transaction failed: %s", *why);
    return STORE_FAILED;
}

void
store_run(struct store *s)
{
    struct pending *p;

    ovsdb_idl_track_clear(s->idl);
    ovsdb_idl_run(s->idl);
    LIST_FOR_EACH_SAFE (p, node, &s->pending) {
        enum ovsdb_idl_txn_status status = ovsdb_idl_txn_commit(p->txn);

        if (status != TXN_INCOMPLETE) {
            char *why;
            enum store_result result = outcome(p->txn, status, &why);

            ovsdb_idl_txn_destroy(p->txn);
            finish(p, result, why ? why : "");
            free(why);
        }
    }
}

void
store_wait(struct store *s)
{
    struct pending *p;

    ovsdb_idl_wait(s->idl);
    LIST_FOR_EACH (p, node, &s->pending) {
        ovsdb_idl_txn_wait(p->txn);
    }
}

bool
store_ready(const struct store *s)
{
    return ovsdb_idl_has_ever_connected(s->idl) && poolrec_pool_first(s->idl);
}

bool
store_writable(const struct store *s)
{
    const struct poolrec_pool *pool = poolrec_pool_first(s->idl);

    return pool && ovsdb_idl_is_connected(s->idl) && !pool->closed;
}

struct ovsdb_idl *
store_idl(struct store *s)
{
    return s->idl;
}

unsigned
store_seqno(const struct store *s)
{
    return ovsdb_idl_get_seqno(s->idl);
}

/* Every write is conditional on the server's being the one that counts. */
struct ovsdb_idl_txn *
store_begin(struct store *s)
{
    const struct poolrec_pool *pool = poolrec_pool_first(s->idl);
    struct ovsdb_idl_txn *txn;

    if (!store_writable(s)) {
        return NULL;
    }
    txn = ovsdb_idl_txn_create(s->idl);
    poolrec_pool_verify_fence(pool);
    poolrec_pool_verify_closed(pool);
    return txn;
}

void
store_commit(struct store *s, struct ovsdb_idl_txn *txn, store_done *done, void *aux)
{
    struct pending *p = xmalloc(sizeof *p);

    *p = (struct pending){.txn = txn, .done = done, .aux = aux};
    ovs_list_push_back(&s->pending, &p->node);
    ovsdb_idl_txn_commit(txn);
    /* Its end is looked at in store_run(), also if it is known already. */
    poll_immediate_wake();
}

/* --- rows by name ---------------------------------------------------------------- */

const struct poolrec_host *
store_host(struct store *s, const char *name)
{
    const struct poolrec_host *host;

    POOLREC_HOST_FOR_EACH(host, s->idl)
    {
        if (!strcmp(host->name, name)) {
            return host;
        }
    }
    return NULL;
}

const struct poolrec_vm *
store_vm(struct store *s, const char *text)
{
    struct uuid uuid;

    return uuid_from_string(&uuid, text) ? poolrec_vm_get_for_uuid(s->idl, &uuid) : NULL;
}

const struct poolrec_task *
store_task(struct store *s, const char *text)
{
    struct uuid uuid;

    return uuid_from_string(&uuid, text) ? poolrec_task_get_for_uuid(s->idl, &uuid) : NULL;
}

const struct poolrec_migration *
store_migration(struct store *s, const char *migration)
{
    const struct poolrec_migration *m;

    POOLREC_MIGRATION_FOR_EACH(m, s->idl)
    {
        if (!strcmp(m->migration, migration)) {
            return m;
        }
    }
    return NULL;
}

const struct poolrec_pool *
store_pool(struct store *s)
{
    return poolrec_pool_first(s->idl);
}

const char *
store_uuid(const struct uuid *uuid)
{
    static char text[8][UUID_LEN + 1];
    static unsigned next;

    next = (next + 1) % ARRAY_SIZE(text);
    snprintf(text[next], sizeof text[next], UUID_FMT, UUID_ARGS(uuid));
    return text[next];
}
